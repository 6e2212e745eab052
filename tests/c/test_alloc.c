#include "check.h"

#include "base/alloc.h"

static void counts_what_is_live(void) {
    long before = rt_alloc_live();
    void *a = rt_malloc(0), *b = rt_calloc(3, 5), *c = rt_aligned(64, 100);
    CHECK(a && b && c);
    CHECK(((uintptr_t)c & 63) == 0);
    CHECK_INT(rt_alloc_live(), before + 3);
    a = rt_realloc(a, 1000);
    CHECK_INT(rt_alloc_live(), before + 3);
    rt_free(a);
    rt_free(b);
    rt_free(c);
    rt_free(NULL);
    CHECK_INT(rt_alloc_live(), before);
}

static void calloc_is_zeroed_and_checks_its_product(void) {
    uint8_t *p = rt_calloc(100, 3), zero[300] = {0};
    CHECK_BYTES(p, zero, 300);
    rt_free(p);
    CHECK(rt_calloc(SIZE_MAX / 2, 3) == NULL);
}

static void exactly_one_allocation_fails(void) {
    void *p[4];
    rt_alloc_fail_after(2);
    for (int i = 0; i < 4; i++) p[i] = rt_malloc(8);
    CHECK(p[0] && p[1] && !p[2] && p[3]);
    rt_alloc_fail_after(0);
    CHECK(rt_realloc(p[0], 100) == NULL);
    for (int i = 0; i < 4; i++) rt_free(p[i]);
    rt_alloc_fail_after(0);
    CHECK(rt_calloc(1, 1) == NULL);
    rt_alloc_fail_after(0);
    CHECK(rt_aligned(64, 1) == NULL);
    rt_alloc_fail_after(0);
    rt_alloc_fail_after(-1);
    p[0] = rt_malloc(1);
    CHECK(p[0] != NULL);
    rt_free(p[0]);
}

TESTS(counts_what_is_live, calloc_is_zeroed_and_checks_its_product, exactly_one_allocation_fails)
