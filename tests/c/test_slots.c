/* threads */
#include "proc/slots.h"

#include <sys/mman.h>

#include "base/alloc.h"
#include "check.h"
#include "stress.h"

typedef struct slot {
    _Atomic uint64_t stamp;
    _Atomic uint32_t link;
    uint32_t tenant;
    uint64_t more[2];
} slot;

enum { SEGMENT = RT_SLOTS_SEGMENT };

static void init(rt_slots *s, uint32_t max) {
    CHECK_INT(rt_slots_init(s, max, sizeof(slot), offsetof(slot, link), 1u << 20), RT_OK);
}

static slot *at(rt_slots *s, uint32_t id) { return rt_slots_at(s, id, sizeof(slot)); }

/* Takes a slot as a user does, with the count it begins with. */
static uint32_t take(rt_slots *s, uint64_t *count) {
    uint64_t from;
    uint32_t id;
    bool fresh;
    slot *p;
    if (rt_slots_take(s, &id, &fresh, &from) < 0) return 0;
    p = at(s, id);
    if (fresh) CHECK(p->stamp == 0 && p->link == 0 && p->tenant == 0);
    *count = fresh ? from : p->stamp + 1;
    p->stamp = *count;
    CHECK(p->tenant == 0);
    p->tenant = id;
    return id;
}

static void put(rt_slots *s, uint32_t id) {
    slot *p = at(s, id);
    CHECK_INT(p->tenant, id);
    p->tenant = 0;
    rt_slots_put(s, id, p->stamp + 1);
}

/* How many pages of a segment are in memory. */
static int resident(rt_slots *s, uint32_t segment) {
    unsigned char in[SEGMENT * sizeof(slot) / 4096];
    int n = 0;
    CHECK_INT(mincore(s->segment[segment], SEGMENT * sizeof(slot), in), 0);
    for (size_t i = 0; i < sizeof in; i++) n += in[i] & 1;
    return n;
}

static void test_ids(void) {
    rt_slots s;
    uint64_t count;
    init(&s, 3);
    CHECK(at(&s, 0) == NULL && at(&s, 1) == NULL && at(&s, UINT32_MAX) == NULL);
    CHECK_INT(rt_slots_next(&s, 0), 0);
    for (uint32_t i = 1; i <= 3; i++) {
        CHECK_INT(take(&s, &count), i);
        CHECK_INT(count, 0);
    }
    CHECK_INT(take(&s, &count), 0);              /* RT_ELIMIT */
    CHECK_INT(rt_slots_next(&s, 0), 1);
    CHECK_INT(rt_slots_next(&s, 2), 3);
    CHECK_INT(rt_slots_next(&s, 3), 0);
    put(&s, 3);                                  /* first freed, first used */
    put(&s, 1);
    CHECK_INT(take(&s, &count), 3);
    CHECK_INT(count, 1);
    CHECK_INT(take(&s, &count), 1);
    CHECK_INT(take(&s, &count), 0);
    rt_slots_fini(&s);
}

/* The last segment ends where the ids end. */
static void test_limits(void) {
    static const uint32_t most[] = {0, 1, SEGMENT - 1, SEGMENT, SEGMENT + 1, 3 * SEGMENT - 1};
    for (size_t k = 0; k < sizeof most / sizeof most[0]; k++) {
        rt_slots s;
        uint64_t count;
        uint32_t n = 0, walked = 0;
        init(&s, most[k]);
        while (take(&s, &count)) n++;
        CHECK_INT(n, most[k]);
        for (uint32_t id = 0; (id = rt_slots_next(&s, id));) walked++;
        CHECK_INT(walked, most[k]);
        rt_slots_fini(&s);
    }
}

/* A spike goes: its pages go with it, its addresses stay, and no count comes twice. */
static void test_give_back(void) {
    enum { SEGMENTS = 8, N = SEGMENTS * SEGMENT - 1 };
    rt_slots s;
    uint64_t count;
    uint32_t id;
    slot *stale;
    init(&s, N);
    for (int i = 0; i < N; i++) take(&s, &count);
    for (uint32_t i = 1; i <= 5; i++) {          /* one slot of the last segment has more */
        put(&s, N);
        CHECK_INT(take(&s, &count), N);
        CHECK_INT(count, i);
    }
    stale = at(&s, N);
    for (int i = 1; i <= N; i++)
        if (i != 5) put(&s, (uint32_t)i);
    CHECK_INT(s.spare, 2 * SEGMENT - 2);         /* the first, with one taken; and another */
    for (uint32_t i = 0; i < 2; i++) CHECK(resident(&s, i) > 0);
    for (uint32_t i = 2; i < SEGMENTS; i++) CHECK_INT(resident(&s, i), 0);
    CHECK(at(&s, N) == stale && stale->stamp == 0 && stale->link == 0);
    id = 0;
    for (uint32_t n = 1; n < 2 * SEGMENT; n++) CHECK_INT(id = rt_slots_next(&s, id), n);
    CHECK_INT(rt_slots_next(&s, id), 0);
    /* The lowest first; what was given back begins behind everything it has had. */
    for (uint32_t n = 1; n < 2 * SEGMENT - 1; n++) {
        id = take(&s, &count);
        CHECK(id && id < 2 * SEGMENT);
        CHECK_INT(count, 1);
    }
    for (uint32_t n = 2 * SEGMENT; n <= N; n++) {
        CHECK_INT(take(&s, &count), n);
        CHECK_INT(count, n >= (SEGMENTS - 1) * SEGMENT ? 6 : 1);
    }
    CHECK_INT(take(&s, &count), 0);
    CHECK_INT(s.spare, 0);
    rt_slots_fini(&s);
}

/* Slots that are taken low down let what stands above run empty. */
static void test_lowest_first(void) {
    enum { N = 4 * SEGMENT - 1 };
    rt_slots s;
    uint64_t count;
    init(&s, N);
    for (int i = 0; i < N; i++) take(&s, &count);
    put(&s, N - 7);
    put(&s, 3);
    CHECK_INT(take(&s, &count), 3);
    CHECK_INT(take(&s, &count), N - 7);
    rt_slots_fini(&s);
}

/* A count that is about to wrap keeps its pages, or its values would come twice. */
static void test_old_segment_stays(void) {
    enum { N = 4 * SEGMENT - 1 };
    rt_slots s;
    uint64_t count;
    init(&s, N);
    for (int i = 0; i < N; i++) take(&s, &count);
    at(&s, N)->stamp = 1u << 20;
    for (uint32_t i = 1; i <= N; i++) put(&s, i);
    CHECK(resident(&s, 3) > 0 && at(&s, N)->stamp == 1u << 20);
    CHECK_INT(resident(&s, 2), 0);
    rt_slots_fini(&s);
}

static void test_no_memory(void) {
    rt_slots s;
    uint64_t count;
    rt_alloc_fail_after(0);
    CHECK_INT(rt_slots_init(&s, 10, sizeof(slot), offsetof(slot, link), 1), RT_ENOMEM);
    rt_alloc_fail_after(-1);
    init(&s, 10);
    rt_alloc_fail_after(0);
    CHECK_INT(take(&s, &count), 0);
    rt_alloc_fail_after(-1);
    CHECK_INT(take(&s, &count), 1);
    rt_slots_fini(&s);
}

/* Readers of stale ids beside segments that come and go: each sees a tenant of that id or
 * nobody, and counts that only grow. */
enum { RACE_SEGMENTS = 4, RACE = RACE_SEGMENTS * SEGMENT - 1 };

typedef struct race {
    rt_slots slots;
    atomic_bool done;
} race;

static void race_write(void *arg, unsigned number, stress_random *random) {
    race *w = arg;
    static uint32_t held[RACE];
    uint64_t highest = 0, count;
    (void)number;
    for (unsigned long round = 0; round < 40 * stress_scale(); round++) {
        uint32_t n = 1 + stress_below(random, RACE);
        for (uint32_t i = 0; i < n; i++) {
            slot *p;
            uint64_t from;
            bool fresh;
            CHECK_INT(rt_slots_take(&w->slots, &held[i], &fresh, &from), RT_OK);
            p = at(&w->slots, held[i]);
            count = fresh ? from : atomic_load_explicit(&p->stamp, memory_order_relaxed) + 1;
            /* An even count is nobody. The id stands in the upper half. */
            count = (count & UINT32_MAX) | 1;
            if (count > highest) highest = count;
            atomic_store_explicit(&p->stamp, (uint64_t)held[i] << 32 | count, memory_order_release);
        }
        for (uint32_t i = 0; i < n; i++) {
            slot *p = at(&w->slots, held[i]);
            count = (atomic_load_explicit(&p->stamp, memory_order_relaxed) & UINT32_MAX) + 1;
            atomic_store_explicit(&p->stamp, count, memory_order_release);
            rt_slots_put(&w->slots, held[i], count);
        }
    }
    CHECK(highest > 1);
    atomic_store(&w->done, true);
}

static void race_read(void *arg, unsigned number, stress_random *random) {
    race *w = arg;
    static _Thread_local uint64_t seen[RACE + 1];
    uint64_t wrong = 0;
    (void)number;
    while (!atomic_load(&w->done)) {
        uint32_t id = 1 + stress_below(random, RACE);
        slot *p = at(&w->slots, id);
        uint64_t stamp = p ? atomic_load_explicit(&p->stamp, memory_order_acquire) : 0;
        if (!(stamp & 1)) continue;
        if (stamp >> 32 != id || (stamp & UINT32_MAX) < seen[id]) wrong++;
        seen[id] = stamp & UINT32_MAX;
    }
    CHECK_INT(wrong, 0);
}

static void test_race(void) {
    static void (*const run[])(void *, unsigned, stress_random *) = {race_write, race_read};
    static const unsigned count[] = {1, 2};
    race w = {.done = false};
    CHECK_INT(rt_slots_init(&w.slots, RACE, sizeof(slot), offsetof(slot, link), 1u << 30), RT_OK);
    stress_watchdog(120);
    stress_run(&w, 2, run, count);
    rt_slots_fini(&w.slots);
}

TESTS(test_ids, test_limits, test_give_back, test_lowest_first, test_old_segment_stays,
      test_no_memory, test_race)
