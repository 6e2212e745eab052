/* threads */
#include "proc/stock.h"

#include "base/base.h"
#include "check.h"
#include "proc/message.h"
#include "stress.h"

#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#define ASAN 1
#include <sanitizer/asan_interface.h>
#else
#define ASAN 0
#endif

#define COUNT(array) (sizeof array / sizeof array[0])

/* A message in a block of its own, filled with a byte. */
static rt_message *add(rt_stock *s, uint32_t n, uint8_t fill) {
    rt_chain c = {0};
    rt_message *m = rt_chain_add_from(&c, s, 1, n);
    if (m) memset(rt_message_data(m), fill, n);
    return m;
}

static void check_content(rt_message *m, uint8_t fill) {
    for (uint32_t i = 0; i < m->n; i++)
        if (rt_message_data(m)[i] != fill) {
            CHECK(!"content changed");
            return;
        }
}

static void what_comes_back_serves_again(void) {
    rt_stock s = {0};
    rt_message *m[3000];
    for (int round = 0; round < 4; round++) {
        long before = rt_alloc_live();
        if (round > 0) rt_alloc_fail_after(0);
        for (size_t i = 0; i < COUNT(m); i++) CHECK((m[i] = add(&s, 90, (uint8_t)i)) != NULL);
        if (round > 0) CHECK_INT(rt_alloc_live(), before);
        for (size_t i = 0; i < COUNT(m); i++) {
            check_content(m[i], (uint8_t)i);
            rt_message_free(m[i]);
        }
    }
    rt_stock_fini(&s);
}

/* Many messages of one chain: its first blocks are the stock's, the larger ones are not. */
static void chains(void) {
    rt_stock s = {0};
    rt_chain c = {0};
    for (int i = 0; i < 500; i++) {
        rt_message *m = rt_chain_add_from(&c, &s, 1, 40);
        if (!CHECK(m != NULL)) return;
        memset(rt_message_data(m), 3, 40);
        if (i == 0) CHECK(m->block->stocked);
        if (i == 499) CHECK(!m->block->stocked);
    }
    rt_chain_undo(&c);
    CHECK_INT(c.count, 499);
    rt_chain_free(&c);
    rt_chain_add_from(&c, &s, 1, 40);
    rt_chain_undo(&c);
    rt_stock_fini(&s);
}

/* Blocks of all sizes come and go in any order; none shares a byte with another. */
static void any_sizes_in_any_order(void) {
    rt_stock s = {0};
    rt_message *m[400] = {0};
    stress_random random = {5};
    size_t stocked = 0, others = 0;
    for (int step = 0; step < 200000; step++) {
        uint32_t i = stress_below(&random, COUNT(m));
        if (m[i]) {
            check_content(m[i], (uint8_t)i);
            rt_message_free(m[i]);
            m[i] = NULL;
            continue;
        }
        uint32_t n = stress_below(&random, RT_STOCK_ROOM_MAX + 40);
        m[i] = add(&s, n, (uint8_t)i);
        if (!CHECK(m[i] != NULL)) return;
        CHECK_INT((uintptr_t)m[i] % 8, 0);
        CHECK(m[i]->block->cap >= sizeof(rt_message) + n);
        if (m[i]->block->stocked) stocked++;
        else others++;
        if (sizeof(rt_message) + n > RT_STOCK_ROOM_MAX) CHECK(!m[i]->block->stocked);
    }
    CHECK(stocked > 80000 && others > 8000);
    /* At most 400 * 512 bytes were there at once: of holes there are about as many again. */
    CHECK(s.slabs <= 2 * COUNT(m) * 512 / RT_SLAB_BYTES);
    for (size_t i = 0; i < COUNT(m); i++) rt_message_free(m[i]);
    rt_stock_fini(&s);
}

/* Room between others is found, also when it is not the lowest. */
static void holes(void) {
    rt_stock s = {0};
    rt_message *m[31];
    if (ASAN) return;   /* the lines between blocks make other holes */
    for (size_t i = 0; i < COUNT(m); i++) m[i] = add(&s, 64, (uint8_t)i);      /* 2 lines each */
    for (size_t i = 0; i < 5; i++)
        if (i != 1) rt_message_free(m[i]);
    rt_message *large = add(&s, 6 * RT_SLAB_LINE_BYTES - 64, 99);
    CHECK_INT(s.slabs, 1);
    m[0] = add(&s, 64, 0);
    CHECK_INT(s.slabs, 1);
    check_content(large, 99);
    rt_message_free(large);
    for (size_t i = 0; i < COUNT(m); i++) {
        if (i > 1 && i < 5) continue;
        check_content(m[i], (uint8_t)i);
        rt_message_free(m[i]);
    }
    rt_stock_fini(&s);
}

static void its_limit(void) {
    enum { MANY = 2 * RT_STOCK_BYTES_MAX / 256 };
    rt_stock s = {0};
    long before = rt_alloc_live();
    rt_message **m = rt_malloc(MANY * sizeof *m);
    long others = 0;
    for (int round = 0; round < 3; round++) {
        others = 0;
        for (int i = 0; i < MANY; i++) {
            CHECK((m[i] = add(&s, 180, 1)) != NULL);
            others += !m[i]->block->stocked;
        }
        CHECK(others > MANY / 3);
        CHECK_INT(rt_alloc_live(), before + 1 + others + RT_STOCK_SLABS_MAX);
        for (int i = 0; i < MANY; i++) rt_message_free(m[i]);
        CHECK_INT(rt_alloc_live(), before + 1 + RT_STOCK_SLABS_MAX);
    }
    CHECK_INT(s.slabs, RT_STOCK_SLABS_MAX);
    /* Full of what nobody reads: the allocator's turn, and its failure is told. */
    for (int i = 0; i < MANY; i++) m[i] = add(&s, 180, 1);
    rt_alloc_fail_after(0);
    CHECK(add(&s, 180, 1) == NULL);
    rt_alloc_fail_after(-1);
    /* One was read: its room is found though the ring is long. */
    const int one_read = MANY / 5;      /* of a slab half around the ring */
    CHECK(m[one_read]->block->stocked);
    rt_message_free(m[one_read]);
    bool found = false;
    for (size_t i = 0; i < 2 * RT_STOCK_SLABS_MAX && !found; i++) {
        rt_message *one = add(&s, 180, 1);
        found = one->block->stocked;
        if (found) m[one_read] = one;
        else rt_message_free(one);
    }
    CHECK(found);
    for (int i = 0; i < MANY; i++) rt_message_free(m[i]);
    rt_free(m);
    rt_stock_fini(&s);
}

/* What a message that stays keeps from others is its own lines. */
static void one_that_stays_keeps_no_slab(void) {
    rt_stock s = {0};
    rt_message *kept[100];
    for (size_t i = 0; i < COUNT(kept); i++) {
        CHECK((kept[i] = add(&s, 90, 7)) != NULL);
        for (int k = 0; k < 200; k++) {
            rt_message *m = add(&s, 90, 8);
            CHECK(m && m->block->stocked);
            rt_message_free(m);
        }
    }
    CHECK(s.slabs <= 10);
    for (size_t i = 0; i < COUNT(kept); i++) {
        check_content(kept[i], 7);
        rt_message_free(kept[i]);
    }
    rt_stock_fini(&s);
}

/* Ten thousand boxes with a message of 50 bytes each. */
static void small_messages_hold_little(void) {
    enum { BOXES = 10000, BYTES = 50 };
    rt_stock s = {0};
    static rt_message *m[BOXES];
    size_t held = 0;
    for (int i = 0; i < BOXES; i++) {
        if (!CHECK((m[i] = add(&s, BYTES, 1)) != NULL)) return;
        if (!m[i]->block->stocked) held += sizeof(rt_block) + m[i]->block->cap + 16;
    }
    held += s.slabs * (RT_SLAB_BYTES + 16);
    CHECK(s.slabs > 0);
    CHECK(held < (ASAN ? 4 : 3) * BOXES * BYTES);   /* with it a line is between them */
    for (int i = 0; i < BOXES; i++) rt_message_free(m[i]);
    rt_stock_fini(&s);
}

static void blocks_outlive_their_stock(void) {
    rt_stock s = {0};
    rt_message *m[100];
    long before = rt_alloc_live();
    rt_stock_fini(&s);                                     /* never used */
    for (int round = 0; round < 2; round++) {              /* and it may be used again */
        for (size_t i = 0; i < COUNT(m); i++) m[i] = add(&s, 100, (uint8_t)i);
        for (size_t i = 0; i < COUNT(m); i += 3) rt_message_free(m[i]);
        rt_stock_fini(&s);
        CHECK(!s.slab && s.slabs == 0 && s.lines == 0);
        CHECK(rt_alloc_live() > before);
        for (size_t i = 0; i < COUNT(m); i++) {
            if (i % 3 == 0) continue;
            check_content(m[i], (uint8_t)i);
            rt_message_free(m[i]);
        }
        CHECK_INT(rt_alloc_live(), before);
    }
}

static void no_memory(void) {
    rt_stock s = {0};
    rt_message *m;
    rt_alloc_fail_after(0);     /* for a slab; for a block there is some */
    m = add(&s, 100, 1);
    CHECK(m && !m->block->stocked);
    CHECK(!s.slab && s.slabs == 0);
    rt_message_free(m);
    rt_alloc_fail_after(-1);
    m = add(&s, 100, 1);
    CHECK(m && m->block->stocked);
    rt_message_free(m);
    rt_stock_fini(&s);
}

#if ASAN
static void freed_messages_are_forbidden(void) {
    rt_stock s = {0};
    rt_message *m = add(&s, 100, 1), *next = add(&s, 100, 2);
    uint8_t *data = rt_message_data(m);
    CHECK(!__asan_region_is_poisoned(m, sizeof *m + 100));
    CHECK(__asan_address_is_poisoned((uint8_t *)(m->block + 1) + m->block->cap));
    rt_message_free(m);
    CHECK(__asan_address_is_poisoned(m));
    CHECK(__asan_address_is_poisoned(data) && __asan_address_is_poisoned(data + 99));
    CHECK(!__asan_region_is_poisoned(next, sizeof *next + 100));
    CHECK(__asan_address_is_poisoned((uint8_t *)s.slab + RT_SLAB_BYTES - 1));
    rt_message_free(next);
    rt_stock_fini(&s);
}
#else
static void freed_messages_are_forbidden(void) {}
#endif

/* One thread takes; the others read and free what they get, also when the stock is closed. */
typedef struct traffic {
    rt_stock stock;
    rt_pile pile[3];
    _Atomic uint32_t done;
    _Atomic uint64_t freed;
} traffic;

#define MESSAGES 60000u

static void taker(void *arg, unsigned number, stress_random *random) {
    traffic *t = arg;
    (void)number;
    for (uint32_t i = 0; i < MESSAGES * stress_scale(); i++) {
        uint32_t n = stress_below(random, 300);
        rt_message *m = add(&t->stock, n, (uint8_t)n);
        if (!CHECK(m != NULL)) break;
        rt_pile_push(&t->pile[stress_below(random, 3)], &m->link, &m->link);
        if (stress_below(random, 5000) == 0) rt_stock_fini(&t->stock);
    }
    rt_stock_fini(&t->stock);
    atomic_store_explicit(&t->done, 1, memory_order_release); /* partner: reader */
}

static void reader(void *arg, unsigned number, stress_random *random) {
    traffic *t = arg;
    rt_message *kept[64] = {0};
    uint64_t freed = 0;
    for (bool last = false; !last;) {
        rt_link *newest, *at;
        last = atomic_load_explicit(&t->done, memory_order_acquire);
        at = rt_pile_take(&t->pile[number - 1], &newest);
        while (at) {
            rt_link *next = at->next;
            rt_message **place = &kept[stress_below(random, COUNT(kept))];
            if (*place) check_content(*place, (uint8_t)(*place)->n);
            freed += *place != NULL;
            rt_message_free(*place);
            *place = (rt_message *)at;
            at = next;
        }
    }
    for (size_t i = 0; i < COUNT(kept); i++) {
        freed += kept[i] != NULL;
        rt_message_free(kept[i]);
    }
    atomic_fetch_add_explicit(&t->freed, freed, memory_order_relaxed);
}

static void freed_by_other_threads(void) {
    static traffic t;
    memset(&t, 0, sizeof t);
    stress_watchdog(120);
    stress_run(&t, 2, (void (*const[])(void *, unsigned, stress_random *)){taker, reader},
               (const unsigned[]){1, 3});
    CHECK_INT(t.freed, MESSAGES * stress_scale());
}

TESTS(what_comes_back_serves_again, chains, any_sizes_in_any_order, holes, its_limit,
      one_that_stays_keeps_no_slab, small_messages_hold_little, blocks_outlive_their_stock,
      no_memory, freed_messages_are_forbidden, freed_by_other_threads)
