/* needs: base */
#include "base/pool.h"

#include <pthread.h>

#include "base/alloc.h"
#include "check.h"

#define KIB 1024u

static void give(rt_pool *p, size_t n)
{
    uint8_t *at = rt_malloc(n);
    if (!CHECK(at != NULL)) return;
    at[0] = at[n - 1] = 1;
    rt_pool_give(p, at, n);
}

static void take(rt_pool *p, size_t least, size_t want)
{
    size_t cap = 1;
    uint8_t *at = rt_pool_take(p, least, &cap);
    CHECK_INT(cap, want);
    CHECK((at != NULL) == (want > 0));
    if (at) at[cap - 1] = 2;
    rt_free(at);
}

static void what_fits_serves_again(void)
{
    rt_pool *p = rt_pool_new();
    take(p, 100 * KIB, 0);
    give(p, 100 * KIB);
    give(p, 200 * KIB);
    take(p, 99 * KIB, 100 * KIB);
    take(p, 99 * KIB, 0);              /* 200 is over twice as much */
    take(p, 100 * KIB, 200 * KIB);
    give(p, 150 * KIB);
    give(p, 151 * KIB);
    take(p, 140 * KIB, 151 * KIB);     /* what was given last */
    rt_pool_rele(p);
}

static void its_limits(void)
{
    rt_pool *p = rt_pool_new();
    long before = rt_alloc_live();
    give(p, RT_POOL_PIECE_BYTES_MIN - 1);
    give(p, RT_POOL_BYTES_MAX + 1);
    CHECK_INT(rt_alloc_live(), before);
    take(p, RT_POOL_BYTES_MAX + 1, 0);
    for (uint32_t i = 0; i < 2 * RT_POOL_PIECES; i++) give(p, (100 + i) * KIB);
    CHECK_INT(rt_alloc_live(), before + RT_POOL_PIECES);
    take(p, 107 * KIB, 115 * KIB);     /* the oldest are gone */
    for (uint32_t i = 0; i < RT_POOL_PIECES; i++) give(p, 3000 * KIB);
    CHECK_INT(rt_alloc_live(), before + RT_POOL_BYTES_MAX / (3000 * KIB));
    give(p, RT_POOL_BYTES_MAX);
    CHECK_INT(rt_alloc_live(), before + 1);
    rt_pool_rele(p);
}

static void the_last_to_let_go_frees_it(void)
{
    long before = rt_alloc_live();
    rt_pool *p = rt_pool_new();
    rt_pool_hold(p);
    rt_pool_rele(p);
    give(p, 100 * KIB);
    rt_pool_rele(p);
    rt_pool_rele(NULL);
    CHECK_INT(rt_alloc_live(), before);
}

static void *turn_over(void *arg)
{
    for (size_t i = 1; i < 2000; i++) {
        size_t cap;
        uint8_t *at = rt_pool_take(arg, (64 + i % 64) * KIB, &cap);
        if (at) {
            at[0] = at[cap - 1] = (uint8_t)i;
            rt_pool_give(arg, at, cap);
        } else {
            give(arg, (64 + i % 64) * KIB);
        }
    }
    rt_pool_rele(arg);
    return NULL;
}

static void from_many_threads(void)
{
    long before = rt_alloc_live();
    pthread_t thread[4];
    rt_pool *p = rt_pool_new();
    for (int i = 0; i < 4; i++) {
        rt_pool_hold(p);
        CHECK_INT(pthread_create(&thread[i], NULL, turn_over, p), 0);
    }
    rt_pool_rele(p);
    for (int i = 0; i < 4; i++) pthread_join(thread[i], NULL);
    CHECK_INT(rt_alloc_live(), before);
}

static void no_memory(void)
{
    rt_alloc_fail_after(0);
    CHECK(rt_pool_new() == NULL);
    rt_alloc_fail_after(-1);
}

TESTS(what_fits_serves_again, its_limits, the_last_to_let_go_frees_it, from_many_threads, no_memory)
