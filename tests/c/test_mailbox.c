/* threads */
#include "check.h"
#include "proc/mailbox.h"
#include "stress.h"

static const rt_pid PID = 7ull << 32 | 5;

static void add(rt_chain *c, uint64_t value, uint32_t n) {
    rt_message *m = rt_chain_add(c, PID, n < 8 ? 8 : n);
    memcpy(rt_message_data(m), &value, 8);
}

static uint64_t value_of(rt_message *m) {
    uint64_t v;
    memcpy(&v, rt_message_data(m), 8);
    return v;
}

/* Pushes values first .. first + count - 1 of n bytes; what is refused is freed. */
static int push(rt_mailbox *mb, uint64_t first, uint32_t count, uint32_t n, bool *over) {
    rt_chain c = {0};
    int rc;
    for (uint32_t i = 0; i < count; i++) add(&c, first + i, n);
    rc = rt_mailbox_push(mb, &c, over);
    if (rc == RT_OK) CHECK(!c.first && !c.last && !c.count && !c.bytes);
    else CHECK_INT(c.count, count);
    rt_chain_free(&c);
    return rc;
}

static bool pop_is(rt_mailbox *mb, uint64_t value) {
    rt_message *m = rt_mailbox_pop(mb);
    bool is = m && value_of(m) == value;
    rt_message_free(m);
    return is;
}

static void open_box(rt_mailbox *mb) {
    memset(mb, 0, sizeof *mb);
    rt_mailbox_open(mb, (uint32_t)(PID >> 32));
}

static void test_fifo(void) {
    rt_mailbox mb;
    open_box(&mb);
    CHECK(rt_mailbox_pop(&mb) == NULL && !rt_mailbox_any(&mb));
    CHECK_INT(push(&mb, 0, 0, 8, NULL), RT_OK);
    CHECK_INT(push(&mb, 0, 1, 8, NULL), RT_OK);
    CHECK_INT(push(&mb, 1, 5, 8, NULL), RT_OK);
    CHECK(rt_mailbox_any(&mb));
    CHECK(pop_is(&mb, 0));
    CHECK_INT(push(&mb, 6, 300, 100, NULL), RT_OK);
    CHECK_INT(rt_mailbox_count(&mb), 305);
    CHECK_INT(rt_mailbox_waiting_bytes(&mb), 5 * 8 + 300 * 100);
    for (uint64_t i = 1; i < 306; i++)
        if (!CHECK(pop_is(&mb, i))) break;
    CHECK(!rt_mailbox_any(&mb) && rt_mailbox_pop(&mb) == NULL);
    CHECK_INT(rt_mailbox_count(&mb), 0);
    CHECK_INT(rt_mailbox_waiting_bytes(&mb), 0);
    CHECK_INT(push(&mb, 0, 20, 8, NULL), RT_OK);
    CHECK(pop_is(&mb, 0));
    CHECK_INT(push(&mb, 20, 20, 8, NULL), RT_OK);
    rt_mailbox_fini(&mb);             /* frees what is left, taken over or not */
}

static void test_close(void) {
    rt_mailbox mb;
    open_box(&mb);
    push(&mb, 0, 2, 8, NULL);
    CHECK(!rt_mailbox_closed(&mb));
    rt_mailbox_close(&mb);
    rt_mailbox_close(&mb);
    CHECK(rt_mailbox_closed(&mb) && !rt_mailbox_done(&mb));
    CHECK_INT(push(&mb, 2, 1, 8, NULL), RT_ECLOSED);
    CHECK(pop_is(&mb, 0) && pop_is(&mb, 1));
    CHECK(rt_mailbox_done(&mb));
    CHECK(rt_mailbox_alive(&mb, 7));
    CHECK(!rt_mailbox_end(&mb, 6));
    CHECK(rt_mailbox_end(&mb, 7));
    CHECK(!rt_mailbox_end(&mb, 7));
    CHECK(!rt_mailbox_alive(&mb, 7));
    CHECK_INT(push(&mb, 2, 1, 8, NULL), RT_ENOENT);
    rt_mailbox_fini(&mb);
}

/* A push for another generation is refused, and leaves no trace. */
static void test_generation(void) {
    rt_mailbox mb;
    rt_chain c = {0};
    open_box(&mb);
    rt_mailbox_limit(&mb, 1, 8, RT_OVERFLOW_DROP);
    add(&c, 1, 8);
    CHECK_INT(rt_mailbox_put(&mb, 6, &c, NULL, NULL), RT_ENOENT);
    CHECK_INT(rt_mailbox_put(&mb, 8, &c, NULL, NULL), RT_ENOENT);
    CHECK_INT(c.count, 1);
    CHECK_INT(rt_mailbox_count(&mb) + rt_mailbox_counted_bytes(&mb) + rt_mailbox_dropped(&mb), 0);
    CHECK_INT(rt_mailbox_put(&mb, 7, &c, NULL, NULL), RT_OK);
    push(&mb, 2, 1, 8, NULL);
    CHECK_INT(rt_mailbox_dropped(&mb), 1);
    CHECK(pop_is(&mb, 1));
    CHECK(rt_mailbox_end(&mb, 7));
    rt_mailbox_open(&mb, 8);          /* without limits and counts */
    CHECK_INT(push(&mb, 0, 1, 8, NULL), RT_ENOENT);
    CHECK_INT(rt_mailbox_dropped(&mb), 0);
    for (uint64_t i = 0; i < 5; i++) {
        add(&c, i, 8);
        CHECK_INT(rt_mailbox_put(&mb, 8, &c, NULL, NULL), RT_OK);
    }
    CHECK_INT(rt_mailbox_count(&mb), 5);
    rt_mailbox_fini(&mb);
}

static void test_drop(void) {
    rt_mailbox mb;
    bool over = true;
    open_box(&mb);
    rt_mailbox_limit(&mb, 4, 0, RT_OVERFLOW_DROP);
    CHECK_INT(push(&mb, 0, 3, 8, &over), RT_OK);
    CHECK(!over);
    CHECK_INT(push(&mb, 3, 3, 8, &over), RT_OK);    /* the newest two are dropped */
    CHECK_INT(push(&mb, 6, 2, 8, &over), RT_OK);
    CHECK(!over);
    CHECK_INT(rt_mailbox_dropped(&mb), 4);
    CHECK_INT(rt_mailbox_count(&mb), 4);
    CHECK(pop_is(&mb, 0));
    CHECK_INT(push(&mb, 8, 2, 8, NULL), RT_OK);
    CHECK(pop_is(&mb, 1) && pop_is(&mb, 2) && pop_is(&mb, 3) && pop_is(&mb, 8));
    CHECK(rt_mailbox_pop(&mb) == NULL);
    CHECK_INT(rt_mailbox_dropped(&mb), 5);
    rt_mailbox_limit(&mb, 0, 100, RT_OVERFLOW_DROP);
    CHECK_INT(push(&mb, 0, 3, 40, NULL), RT_OK);
    CHECK_INT(rt_mailbox_count(&mb), 2);
    CHECK_INT(push(&mb, 3, 1, 21, NULL), RT_OK);    /* does not fit */
    CHECK_INT(push(&mb, 4, 1, 20, NULL), RT_OK);    /* fits exactly */
    CHECK_INT(rt_mailbox_waiting_bytes(&mb), 100);
    CHECK_INT(rt_mailbox_counted_bytes(&mb), 100);
    CHECK_INT(push(&mb, 5, 2, 500, NULL), RT_OK);
    CHECK(pop_is(&mb, 0) && pop_is(&mb, 1) && pop_is(&mb, 4));
    CHECK_INT(push(&mb, 5, 1, 500, NULL), RT_OK);   /* never fits */
    CHECK(rt_mailbox_pop(&mb) == NULL);
    CHECK_INT(rt_mailbox_dropped(&mb), 5 + 1 + 1 + 2 + 1);
    CHECK_INT(rt_mailbox_count(&mb) + rt_mailbox_counted_bytes(&mb), 0);
    rt_mailbox_limit(&mb, 2, 50, RT_OVERFLOW_DROP); /* both: the tighter one */
    CHECK_INT(push(&mb, 0, 3, 30, NULL), RT_OK);
    CHECK_INT(rt_mailbox_count(&mb), 1);
    CHECK_INT(push(&mb, 1, 3, 8, NULL), RT_OK);
    CHECK_INT(rt_mailbox_count(&mb), 2);
    CHECK_INT(rt_mailbox_dropped(&mb), 10 + 2 + 2);
    rt_mailbox_fini(&mb);
}

static void test_overflow_close(void) {
    rt_mailbox mb;
    open_box(&mb);
    rt_mailbox_limit(&mb, 3, 100, RT_OVERFLOW_CLOSE);
    CHECK_INT(push(&mb, 0, 2, 8, NULL), RT_OK);
    CHECK_INT(push(&mb, 2, 2, 8, NULL), RT_EFULL);
    CHECK_INT(push(&mb, 2, 1, 85, NULL), RT_EFULL);
    CHECK_INT(rt_mailbox_count(&mb), 2);
    CHECK_INT(rt_mailbox_waiting_bytes(&mb), 16);
    CHECK_INT(push(&mb, 2, 1, 84, NULL), RT_OK);
    CHECK_INT(rt_mailbox_dropped(&mb), 0);
    rt_mailbox_close(&mb);
    CHECK(pop_is(&mb, 0) && pop_is(&mb, 1) && pop_is(&mb, 2) && rt_mailbox_done(&mb));
    rt_mailbox_fini(&mb);
}

static int push_signal(rt_mailbox *mb, uint64_t value, uint32_t n) {
    static const rt_room extra = {2, 100};
    rt_chain c = {0};
    add(&c, value, n);
    int rc = rt_mailbox_put(mb, (uint32_t)(PID >> 32), &c, &extra, NULL);
    rt_chain_free(&c);
    return rc;
}

/* Signals pass the limits of any policy, by so much and no more. */
static void test_signals(void) {
    static const enum rt_overflow policy[] = {RT_OVERFLOW_DROP, RT_OVERFLOW_CLOSE,
                                              RT_OVERFLOW_PAUSE};
    for (int i = 0; i < 3; i++) {
        rt_mailbox mb;
        open_box(&mb);
        rt_mailbox_limit(&mb, 1, 0, policy[i]);
        CHECK_INT(push(&mb, 0, 1, 8, NULL), RT_OK);
        CHECK_INT(push_signal(&mb, 1, 1000), RT_OK);
        CHECK_INT(push_signal(&mb, 2, 8), RT_OK);
        CHECK_INT(push_signal(&mb, 3, 8), RT_EFULL);
        CHECK_INT(push(&mb, 3, 1, 8, NULL), policy[i] == RT_OVERFLOW_CLOSE ? RT_EFULL : RT_OK);
        CHECK_INT(rt_mailbox_count(&mb), policy[i] == RT_OVERFLOW_PAUSE ? 4 : 3);
        CHECK(pop_is(&mb, 0) && pop_is(&mb, 1) && pop_is(&mb, 2));
        rt_mailbox_fini(&mb);
        open_box(&mb);
        rt_mailbox_limit(&mb, 0, 50, policy[i]);
        CHECK_INT(push(&mb, 0, 1, 50, NULL), RT_OK);
        CHECK_INT(push_signal(&mb, 1, 100), RT_OK);
        CHECK_INT(push_signal(&mb, 2, 8), RT_EFULL);
        CHECK_INT(rt_mailbox_waiting_bytes(&mb), 150);
        CHECK_INT(rt_mailbox_counted_bytes(&mb), 150);
        CHECK(pop_is(&mb, 0) && pop_is(&mb, 1));
        rt_mailbox_limit(&mb, UINT32_MAX, 0, policy[i]); /* the largest of both */
        CHECK_INT(push_signal(&mb, 3, 8), RT_OK);
        rt_mailbox_fini(&mb);
        open_box(&mb);                                   /* no limit, no end */
        for (uint64_t k = 0; k < 10; k++) CHECK_INT(push_signal(&mb, k, 200), RT_OK);
        rt_mailbox_fini(&mb);
    }
}

static void test_pause(void) {
    rt_mailbox mb;
    bool over = true;
    open_box(&mb);
    rt_mailbox_limit(&mb, 2, 0, RT_OVERFLOW_PAUSE);
    CHECK_INT(push(&mb, 0, 2, 8, &over), RT_OK);
    CHECK(!over);
    CHECK_INT(push(&mb, 2, 1, 8, &over), RT_OK);
    CHECK(over);
    CHECK(pop_is(&mb, 0) && pop_is(&mb, 1) && pop_is(&mb, 2));
    rt_mailbox_limit(&mb, 0, 16, RT_OVERFLOW_PAUSE);
    CHECK_INT(push(&mb, 0, 2, 8, &over), RT_OK);
    CHECK(!over);
    CHECK_INT(push(&mb, 2, 2, 8, &over), RT_OK);
    CHECK(over);
    CHECK_INT(push(&mb, 4, 1, 8, NULL), RT_OK);
    rt_mailbox_limit(&mb, 0, 0, RT_OVERFLOW_DROP);  /* no limit is no limit */
    CHECK_INT(push(&mb, 5, 100, 8, &over), RT_OK);
    CHECK(!over);
    CHECK_INT(rt_mailbox_count(&mb), 105);
    rt_mailbox_fini(&mb);
}

/* A byte limit counts what is pushed while it stands: what came before or comes after is
 * neither counted in nor out, whether it waits in the pile or was taken from it. */
static void test_bytes_counted_under_a_limit(void) {
    rt_mailbox mb;
    bool over = true;
    open_box(&mb);
    CHECK_INT(push(&mb, 0, 3, 100, &over), RT_OK);
    CHECK(pop_is(&mb, 0));                          /* takes the pile: two stand in the head */
    CHECK_INT(push(&mb, 3, 1, 50, &over), RT_OK);
    CHECK_INT(rt_mailbox_waiting_bytes(&mb), 250);
    CHECK_INT(rt_mailbox_counted_bytes(&mb), 0);
    rt_mailbox_limit(&mb, 0, 20, RT_OVERFLOW_PAUSE);
    CHECK_INT(push(&mb, 4, 2, 10, &over), RT_OK);
    CHECK(!over);
    CHECK_INT(rt_mailbox_counted_bytes(&mb), 20);
    CHECK_INT(rt_mailbox_waiting_bytes(&mb), 270);
    rt_mailbox_limit(&mb, 0, 0, RT_OVERFLOW_NONE);
    CHECK_INT(push(&mb, 6, 2, 1000, &over), RT_OK);
    CHECK(!over);
    CHECK(pop_is(&mb, 1) && pop_is(&mb, 2) && pop_is(&mb, 3) && pop_is(&mb, 4));
    CHECK_INT(rt_mailbox_counted_bytes(&mb), 10);
    rt_mailbox_limit(&mb, 0, 30, RT_OVERFLOW_DROP);
    CHECK_INT(push(&mb, 8, 3, 10, NULL), RT_OK);    /* two beside the one of before */
    CHECK_INT(rt_mailbox_dropped(&mb), 1);
    CHECK(pop_is(&mb, 5) && pop_is(&mb, 6) && pop_is(&mb, 7));
    CHECK_INT(rt_mailbox_counted_bytes(&mb), 20);
    CHECK(pop_is(&mb, 8) && pop_is(&mb, 9));
    CHECK_INT(rt_mailbox_counted_bytes(&mb) + rt_mailbox_waiting_bytes(&mb), 0);
    rt_mailbox_fini(&mb);
}

/* A message that was popped may be pushed again, into a box that does not count. */
static void test_popped_and_pushed_again(void) {
    rt_mailbox mb;
    rt_chain c = {0};
    rt_message *m;
    open_box(&mb);
    rt_mailbox_limit(&mb, 0, 20, RT_OVERFLOW_DROP);
    CHECK_INT(push(&mb, 0, 1, 10, NULL), RT_OK);
    m = rt_mailbox_pop(&mb);
    rt_mailbox_limit(&mb, 0, 0, RT_OVERFLOW_NONE);
    c = (rt_chain){m, m, 1, m->n};
    CHECK_INT(rt_mailbox_push(&mb, &c, NULL), RT_OK);
    CHECK(pop_is(&mb, 0));
    CHECK_INT(rt_mailbox_counted_bytes(&mb), 0);
    rt_mailbox_fini(&mb);
}

/* The count in the gate wraps without touching its neighbours. */
static void test_count_wraps(void) {
    rt_mailbox mb;
    open_box(&mb);
    mb.gate |= RT_GATE_COUNT - 2;
    mb.popped = (uint32_t)(RT_GATE_COUNT - 2);
    rt_mailbox_limit(&mb, 6, 0, RT_OVERFLOW_DROP);
    CHECK_INT(push(&mb, 0, 5, 8, NULL), RT_OK);
    CHECK_INT(rt_mailbox_count(&mb), 5);
    CHECK(rt_mailbox_alive(&mb, 7) && !rt_mailbox_closed(&mb));
    CHECK_INT(push(&mb, 5, 3, 8, NULL), RT_OK);
    CHECK_INT(rt_mailbox_dropped(&mb), 2);
    for (uint64_t i = 0; i < 6; i++) CHECK(pop_is(&mb, i));
    rt_mailbox_close(&mb);
    CHECK(rt_mailbox_done(&mb));
    rt_mailbox_fini(&mb);
}

static void test_arm(void) {
    rt_mailbox mb;
    rt_notifier *a = NULL, *b = NULL;
    CHECK_INT(rt_notifier_new(&a), RT_OK);
    CHECK_INT(rt_notifier_new(&b), RT_OK);
    open_box(&mb);
    rt_mailbox_bind(&mb, a);
    rt_mailbox_bind(&mb, a);
    push(&mb, 0, 1, 8, NULL);
    CHECK(rt_notifier_next(a) == NULL);             /* not armed */
    CHECK(!rt_mailbox_arm(&mb));
    CHECK(pop_is(&mb, 0));
    CHECK(rt_mailbox_arm(&mb));
    push(&mb, 1, 1, 8, NULL);
    push(&mb, 2, 1, 8, NULL);
    CHECK(rt_notifier_next(a) == &mb.ready);
    CHECK(RT_MAILBOX_OF_READY(&mb.ready) == &mb);
    CHECK(rt_notifier_next(a) == NULL);             /* one wake-up for the batch */
    CHECK(!rt_mailbox_arm(&mb));
    CHECK(pop_is(&mb, 1));
    CHECK(!rt_mailbox_arm(&mb));                    /* taken over, not yet read */
    CHECK(pop_is(&mb, 2));
    CHECK(rt_mailbox_arm(&mb));
    rt_mailbox_bind(&mb, b);                        /* a has nothing to do with it any more */
    push(&mb, 3, 1, 8, NULL);
    CHECK(rt_notifier_next(a) == NULL && rt_notifier_next(b) == NULL);
    CHECK(pop_is(&mb, 3));
    CHECK(rt_mailbox_arm(&mb));
    push(&mb, 4, 1, 8, NULL);
    rt_mailbox_bind(&mb, a);                        /* takes the mark back out of b */
    CHECK(rt_notifier_next(b) == NULL);
    CHECK(!rt_mailbox_arm(&mb));
    CHECK(pop_is(&mb, 4));
    CHECK(rt_mailbox_arm(&mb));
    rt_mailbox_close(&mb);
    CHECK(rt_notifier_next(a) == &mb.ready);        /* closing wakes */
    CHECK(!rt_mailbox_arm(&mb));                    /* done: nothing will come */
    rt_mailbox_bind(&mb, NULL);
    rt_notifier_rele(a);
    rt_notifier_rele(b);
    rt_mailbox_fini(&mb);
}

/* Stress. A message holds its producer and its number there. */
enum { PRODUCERS = 3 };

typedef struct race {
    rt_mailbox mb;
    rt_notifier *n;
    enum rt_overflow overflow;
    uint32_t limit;
    uint64_t close_after;             /* messages read; 0: closed by the last producer */
    bool limit_comes_and_goes;        /* of bytes */
    uint64_t rounds;
    _Atomic uint32_t running;
    _Atomic uint64_t accepted;
    uint64_t read;
} race;

static void produce_run(void *arg, unsigned number, stress_random *random) {
    race *t = arg;
    uint64_t sequence = 0, accepted = 0;
    for (uint64_t i = 0; i < t->rounds; i++) {
        rt_chain c = {0};
        uint32_t n = 1 + stress_below(random, 16);
        bool over;
        int rc;
        for (uint32_t k = 0; k < n; k++)
            add(&c, (uint64_t)number << 48 | sequence++, 8 + stress_below(random, 20));
        rc = rt_mailbox_push(&t->mb, &c, &over);
        if (rc == RT_OK) accepted += n;
        else CHECK(c.count == n);
        if (rc == RT_ECLOSED) CHECK(rt_mailbox_closed(&t->mb));
        if (rc == RT_EFULL) CHECK(t->overflow == RT_OVERFLOW_CLOSE);
        rt_chain_free(&c);
    }
    atomic_fetch_add_explicit(&t->accepted, accepted, memory_order_relaxed);
    /* The last one closes: acq_rel, so that every push came before. */
    if (atomic_fetch_sub_explicit(&t->running, 1, memory_order_acq_rel) == 1)
        rt_mailbox_close(&t->mb);
}

static void consume_run(void *arg, unsigned number, stress_random *random) {
    race *t = arg;
    uint64_t next[PRODUCERS + 1] = {0};
    (void)number;
    (void)random;
    rt_mailbox_bind(&t->mb, t->n);
    while (!rt_mailbox_done(&t->mb)) {
        rt_message *m = rt_mailbox_pop(&t->mb);
        uint64_t v, owner;
        if (!m) {
            if (!rt_mailbox_arm(&t->mb)) continue;
            CHECK_INT(rt_notifier_wait(t->n, UINT64_MAX), RT_OK);
            while (rt_notifier_next(t->n)) continue;
            continue;
        }
        v = value_of(m);
        owner = v >> 48;
        v &= (1ull << 48) - 1;
        if (t->limit && t->overflow != RT_OVERFLOW_PAUSE)
            CHECK(rt_mailbox_count(&t->mb) <= t->limit);
        if (CHECK(owner >= 1 && owner <= PRODUCERS)) {
            /* In order, and without a gap unless some were refused. */
            if (t->overflow == RT_OVERFLOW_NONE) CHECK(v == next[owner]);
            else CHECK(v >= next[owner]);
            next[owner] = v + 1;
        }
        t->read++;
        rt_message_free(m);
        if (t->read == t->close_after) rt_mailbox_close(&t->mb);
        if (t->limit_comes_and_goes && t->read % 7 == 0)
            rt_mailbox_limit(&t->mb, 0, t->read % 2 ? 600 : 0, RT_OVERFLOW_DROP);
    }
    CHECK(rt_mailbox_pop(&t->mb) == NULL);
}

static void run_race(enum rt_overflow overflow, uint32_t limit, uint64_t close_after) {
    static void (*const run[])(void *, unsigned, stress_random *) = {consume_run, produce_run};
    static const unsigned count[] = {1, PRODUCERS};
    race t = {.overflow = overflow, .limit = limit, .close_after = close_after,
              .rounds = 8000 * stress_scale(), .running = PRODUCERS};
    CHECK_INT(rt_notifier_new(&t.n), RT_OK);
    rt_mailbox_open(&t.mb, (uint32_t)(PID >> 32));
    rt_mailbox_limit(&t.mb, limit, 0, overflow);
    stress_watchdog(60);
    stress_run(&t, 2, run, count);
    /* Exactly: what was accepted has been read or was counted as dropped. */
    CHECK_INT(t.read + rt_mailbox_dropped(&t.mb), t.accepted);
    CHECK_INT(rt_mailbox_count(&t.mb), 0);
    CHECK_INT(rt_mailbox_waiting_bytes(&t.mb), 0);
    rt_mailbox_fini(&t.mb);
    rt_notifier_rele(t.n);
    alarm(0);
}

static void test_race(void) { run_race(RT_OVERFLOW_NONE, 0, 0); }
static void test_race_close(void) {
    for (uint64_t i = 0; i < 5; i++) run_race(RT_OVERFLOW_NONE, 0, 1 + i * i * 500);
}
static void test_race_drop(void) { run_race(RT_OVERFLOW_DROP, 20, 0); }
static void test_race_drop_close(void) { run_race(RT_OVERFLOW_DROP, 7, 3000); }
static void test_race_full(void) { run_race(RT_OVERFLOW_CLOSE, 20, 0); }
static void test_race_pause(void) { run_race(RT_OVERFLOW_PAUSE, 20, 0); }

/* The same with a limit of bytes, which gives admissions back. */
static void run_bytes(enum rt_overflow overflow, uint64_t rounds, uint64_t close_after,
                      bool comes_and_goes) {
    static void (*const run[])(void *, unsigned, stress_random *) = {consume_run, produce_run};
    static const unsigned count[] = {1, PRODUCERS};
    race t = {.overflow = overflow, .close_after = close_after, .rounds = rounds * stress_scale(),
              .limit_comes_and_goes = comes_and_goes, .running = PRODUCERS};
    CHECK_INT(rt_notifier_new(&t.n), RT_OK);
    rt_mailbox_open(&t.mb, (uint32_t)(PID >> 32));
    rt_mailbox_limit(&t.mb, 0, 600, overflow);
    stress_watchdog(60);
    stress_run(&t, 2, run, count);
    CHECK_INT(t.read + rt_mailbox_dropped(&t.mb), t.accepted);
    CHECK_INT(rt_mailbox_count(&t.mb), 0);
    CHECK_INT(rt_mailbox_counted_bytes(&t.mb), 0);
    rt_mailbox_fini(&t.mb);
    rt_notifier_rele(t.n);
    alarm(0);
}

static void test_race_bytes(void) {
    run_bytes(RT_OVERFLOW_DROP, 8000, 4000, false);
    /* Often: closing while admissions are on their way back. */
    for (uint64_t i = 0; i < 100; i++) run_bytes(RT_OVERFLOW_DROP, 50, 1 + i % 40, false);
}
static void test_race_bytes_full(void) {
    run_bytes(RT_OVERFLOW_CLOSE, 8000, 4000, false);
    for (uint64_t i = 0; i < 100; i++) run_bytes(RT_OVERFLOW_CLOSE, 50, 1 + i % 40, false);
}

/* With PAUSE nothing is given back, and each push counts what the others have brought. */
static void test_race_bytes_pause(void) { run_bytes(RT_OVERFLOW_PAUSE, 8000, 0, false); }
static void test_race_limit_comes_and_goes(void) { run_bytes(RT_OVERFLOW_DROP, 8000, 0, true); }

/* One message back and forth: each side pushes while the other goes to sleep. */
typedef struct table_tennis {
    rt_mailbox mb[2];
    rt_notifier *n[2];
    uint64_t rounds;
} table_tennis;

static void play_run(void *arg, unsigned number, stress_random *random) {
    table_tennis *t = arg;
    (void)random;
    for (uint64_t i = 0; i < t->rounds; i++) {
        rt_message *m;
        if (number == 0) push(&t->mb[1], i, 1, 8, NULL);
        while (!(m = rt_mailbox_pop(&t->mb[number]))) {
            if (!rt_mailbox_arm(&t->mb[number])) continue;
            (void)rt_notifier_wait(t->n[number], UINT64_MAX);
            while (rt_notifier_next(t->n[number])) continue;
        }
        CHECK(value_of(m) == i);
        rt_message_free(m);
        if (number == 1) push(&t->mb[0], i, 1, 8, NULL);
    }
}

static void test_back_and_forth(void) {
    static void (*const run[])(void *, unsigned, stress_random *) = {play_run};
    static const unsigned count[] = {2};
    table_tennis t = {.rounds = 20000 * stress_scale()};
    stress_watchdog(60);
    for (int i = 0; i < 2; i++) {
        CHECK_INT(rt_notifier_new(&t.n[i]), RT_OK);
        rt_mailbox_open(&t.mb[i], (uint32_t)(PID >> 32));
        rt_mailbox_bind(&t.mb[i], t.n[i]);
        rt_notifier_rele(t.n[i]);
    }
    stress_run(&t, 1, run, count);
    for (int i = 0; i < 2; i++) rt_mailbox_fini(&t.mb[i]);
    alarm(0);
}

TESTS(test_fifo, test_close, test_generation, test_drop, test_overflow_close, test_signals,
      test_bytes_counted_under_a_limit, test_popped_and_pushed_again, test_race_bytes_pause,
      test_race_limit_comes_and_goes,
      test_pause, test_count_wraps, test_arm, test_race, test_race_close, test_race_drop,
      test_race_drop_close, test_race_full, test_race_pause, test_race_bytes,
      test_race_bytes_full, test_back_and_forth)
