/* threads */
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "check.h"
#include "stress.h"
#include "sync/notifier.h"

static rt_notifier *new_notifier(void) {
    rt_notifier *n = NULL;
    CHECK_INT(rt_notifier_new(&n), RT_OK);
    return n;
}

static int readable(rt_notifier *n) {
    struct pollfd p = {.fd = rt_notifier_fd(n), .events = POLLIN};
    return poll(&p, 1, 0) == 1;
}

static void test_new(void) {
    rt_notifier *n = NULL;
    rt_alloc_fail_after(0);
    CHECK_INT(rt_notifier_new(&n), RT_ENOMEM);
    CHECK(n == NULL);
    rt_alloc_fail_after(-1);
    n = new_notifier();
    CHECK(rt_notifier_fd(n) >= 0);
    CHECK(!readable(n));
    CHECK(rt_notifier_next(n) == NULL);
    rt_notifier_hold(n);
    rt_notifier_rele(n);
    CHECK(!readable(n));
    rt_notifier_rele(n);
    rt_notifier_rele(NULL);
}

static void test_order(void) {
    rt_notifier *n = new_notifier();
    rt_ready r[5] = {{{NULL}, 0}};
    for (int i = 0; i < 5; i++) rt_notifier_mark(n, &r[i]);
    rt_notifier_mark(n, &r[2]);
    for (int i = 0; i < 5; i++) CHECK(rt_notifier_next(n) == &r[i]);
    CHECK(rt_notifier_next(n) == NULL);
    rt_notifier_mark(n, &r[2]);       /* again, once it has been taken */
    rt_notifier_mark(n, &r[0]);
    CHECK(rt_notifier_next(n) == &r[2]);
    rt_notifier_mark(n, &r[2]);
    CHECK(rt_notifier_next(n) == &r[0]);
    CHECK(rt_notifier_next(n) == &r[2]);
    CHECK(rt_notifier_next(n) == NULL);
    rt_notifier_rele(n);
}

static void test_bell(void) {
    rt_notifier *n = new_notifier();
    rt_ready a = {{NULL}, 0}, b = {{NULL}, 0};
    CHECK_INT(rt_notifier_wait(n, 0), RT_ETIME);
    rt_notifier_mark(n, &a);
    CHECK(readable(n));
    CHECK_INT(rt_notifier_wait(n, UINT64_MAX), RT_OK);
    CHECK(!readable(n));
    rt_notifier_hush(n);
    rt_notifier_mark(n, &b);
    rt_notifier_poke(n);
    CHECK(!readable(n));              /* hushed: no write */
    CHECK(rt_notifier_rung(n));
    CHECK(rt_notifier_rest(n));
    CHECK(!rt_notifier_rung(n));
    CHECK(rt_notifier_next(n) == &a);
    CHECK(rt_notifier_next(n) == &b);
    CHECK(!rt_notifier_rest(n));
    rt_notifier_poke(n);
    rt_notifier_poke(n);
    CHECK(readable(n) && rt_notifier_rung(n));
    rt_notifier_hush(n);
    CHECK(!rt_notifier_rung(n));
    CHECK(readable(n));               /* only rest clears */
    CHECK(!rt_notifier_rest(n));      /* what came before hush was looked at after it */
    CHECK(!readable(n));
    rt_notifier_poke(n);
    CHECK(rt_notifier_rest(n));       /* rest without hush */
    CHECK(!readable(n));
    rt_notifier_hush(n);
    CHECK_INT(rt_notifier_wait(n, 0), RT_ETIME);   /* wait ends a hush */
    rt_notifier_poke(n);
    CHECK(readable(n));
    rt_notifier_hush(n);
    rt_notifier_poke(n);
    CHECK_INT(rt_notifier_wait(n, UINT64_MAX), RT_OK);
    CHECK_INT(rt_notifier_wait(n, RT_MS), RT_ETIME);
    rt_notifier_rele(n);
}

static void test_armed(void) {
    rt_notifier *n = new_notifier();
    rt_ready r = {{NULL}, 0};
    rt_ready_fire(&r);                /* not armed: nothing */
    CHECK(!readable(n) && rt_ready_idle(&r));
    rt_notifier_arm(n, &r);
    rt_notifier_arm(n, &r);
    CHECK(!rt_ready_idle(&r));
    rt_ready_fire(&r);
    rt_ready_fire(&r);
    CHECK(readable(n));
    CHECK(!rt_notifier_disarm(&r));
    rt_notifier_arm(n, &r);           /* claimed: stays so */
    CHECK(rt_notifier_next(n) == &r);
    CHECK(rt_notifier_next(n) == NULL);
    CHECK(rt_ready_idle(&r));
    rt_notifier_arm(n, &r);
    CHECK(rt_notifier_disarm(&r));
    CHECK(rt_notifier_disarm(&r));
    rt_notifier_arm(n, &r);
    rt_notifier_mark(n, &r);          /* marked while armed */
    CHECK(rt_notifier_next(n) == &r);
    rt_notifier_arm(n, &r);           /* the armed entry keeps the notifier */
    rt_notifier_rele(n);
    rt_ready_fire(&r);                /* and firing it lets go of it, and of the entry */
    CHECK(rt_ready_idle(&r));
}

static void test_forget(void) {
    enum { N = 100 };
    rt_notifier *n = new_notifier();
    rt_ready r[N];
    int idle = 0;
    memset(r, 0, sizeof r);
    CHECK(rt_notifier_forget(n, &r[0]));
    for (int i = 0; i < 4; i++) rt_notifier_mark(n, &r[i]);
    CHECK(rt_notifier_forget(n, &r[0]));          /* the first goes at once */
    CHECK(!rt_notifier_forget(n, &r[2]));         /* another waits */
    CHECK(!rt_notifier_forget(n, &r[2]));
    CHECK(rt_notifier_next(n) == &r[1]);
    CHECK(rt_notifier_next(n) == &r[3]);          /* and is passed over */
    CHECK(rt_ready_idle(&r[2]));
    CHECK(rt_notifier_next(n) == NULL);
    for (int i = 0; i < 4; i++) rt_notifier_mark(n, &r[i]);
    CHECK(!rt_notifier_forget(n, &r[3]));
    rt_notifier_purge(n);
    CHECK(rt_ready_idle(&r[3]));
    rt_notifier_mark(n, &r[4]);                   /* the list's end is right again */
    rt_notifier_purge(n);
    for (int i = 0; i < 3; i++) CHECK(rt_notifier_next(n) == &r[i]);
    CHECK(rt_notifier_next(n) == &r[4]);
    for (int i = 0; i < N; i++) rt_notifier_mark(n, &r[i]);
    for (int i = N - 1; i >= 0; i--) (void)rt_notifier_forget(n, &r[i]);
    for (int i = 0; i < N; i++) idle += rt_ready_idle(&r[i]);
    CHECK(idle >= N - 32);                        /* many are cleared together */
    CHECK(rt_notifier_next(n) == NULL);
    for (int i = 0; i < N; i++) CHECK(rt_ready_idle(&r[i]));
    for (int i = 0; i < N; i++) rt_notifier_mark(n, &r[i]);
    rt_notifier_rele(n);                          /* the last count empties the list */
    for (int i = 0; i < N; i++) CHECK(rt_ready_idle(&r[i]));
}

static void test_after_fork(void) {
    rt_notifier *n = new_notifier();
    rt_ready r = {{NULL}, 0};
    int status = 0;
    pid_t child;
    rt_notifier_arm(n, &r);
    child = fork();
    if (child == 0) {
        alarm(20);
        rt_notifier_after_fork(n);
        rt_ready_fire(&r);
        rt_notifier_poke(n);
        status = rt_notifier_fd(n) == -1 ? 0 : 1;
        rt_notifier_rele(n);
        _exit(status);
    }
    CHECK_INT(waitpid(child, &status, 0), child);
    CHECK_INT(status, 0);
    CHECK(!readable(n));              /* the child's news are its own */
    CHECK(rt_notifier_disarm(&r));
    rt_notifier_rele(n);
}

/* Producers count up entries and mark them; the consumer sleeps without a
 * timeout until it has seen every count. A lost wake-up is a sleep for ever. */
enum { ENTRIES = 8, PRODUCERS = 3 };

typedef struct item {
    rt_ready ready;
    _Atomic uint64_t posted;
    uint64_t seen;
} item;

typedef struct marks {
    rt_notifier *n;
    item item[ENTRIES];
    uint64_t rounds;
    bool hushing, arming;
} marks;

static void mark_run(void *arg, unsigned number, stress_random *random) {
    marks *m = arg;
    (void)number;
    for (uint64_t i = 0; i < m->rounds; i++) {
        item *t = &m->item[stress_below(random, ENTRIES)];
        if (m->arming) {
            atomic_fetch_add_explicit(&t->posted, 1, memory_order_seq_cst);
            rt_ready_fire(&t->ready);
        } else {
            /* Relaxed: mark publishes it. */
            atomic_fetch_add_explicit(&t->posted, 1, memory_order_relaxed);
            rt_notifier_mark(m->n, &t->ready);
        }
    }
}

static uint64_t look(item *t) {
    uint64_t posted = atomic_load_explicit(&t->posted, memory_order_relaxed);
    uint64_t fresh = posted - t->seen;
    t->seen = posted;
    return fresh;
}

/* Looks and arms; what comes after the look fires. */
static uint64_t look_and_arm(marks *m, item *t) {
    uint64_t fresh = look(t);
    for (;;) {
        rt_notifier_arm(m->n, &t->ready);
        if (atomic_load_explicit(&t->posted, memory_order_seq_cst) == t->seen) return fresh;
        rt_notifier_disarm(&t->ready);
        fresh += look(t);
    }
}

static void sleep_run(void *arg, unsigned number, stress_random *random) {
    marks *m = arg;
    uint64_t left = m->rounds * PRODUCERS;
    rt_ready *r;
    (void)number;
    (void)random;
    if (m->arming)
        for (int i = 0; i < ENTRIES; i++) left -= look_and_arm(m, &m->item[i]);
    while (left) {
        if (m->hushing) rt_notifier_hush(m->n);
        while ((r = rt_notifier_next(m->n))) {
            item *t = RT_CONTAINER_OF(r, item, ready);
            left -= m->arming ? look_and_arm(m, t) : look(t);
        }
        if (m->hushing && rt_notifier_rest(m->n)) continue;
        if (left) CHECK_INT(rt_notifier_wait(m->n, UINT64_MAX), RT_OK);
    }
}

static void run_marks(bool hushing, bool arming) {
    static void (*const run[])(void *, unsigned, stress_random *) = {sleep_run, mark_run};
    static const unsigned count[] = {1, PRODUCERS};
    marks m = {.n = new_notifier(), .rounds = 200000 * stress_scale(), .hushing = hushing,
               .arming = arming};
    stress_watchdog(60);
    stress_run(&m, 2, run, count);
    for (int i = 0; i < ENTRIES; i++) CHECK_INT(m.item[i].seen, m.item[i].posted);
    if (arming)
        for (int i = 0; i < ENTRIES; i++)
            if (!rt_notifier_disarm(&m.item[i].ready)) rt_notifier_purge(m.n);
    rt_notifier_rele(m.n);
    alarm(0);
}

static void test_no_wakeup_lost(void) { run_marks(false, false); }
static void test_no_wakeup_lost_hushing(void) { run_marks(true, false); }
static void test_no_wakeup_lost_armed(void) { run_marks(false, true); }
static void test_no_wakeup_lost_armed_hushing(void) { run_marks(true, true); }

/* Entries move between two notifiers while they are fired: every count is seen
 * by whoever owns the entry then. */
typedef struct moves {
    rt_notifier *n[2];
    item item;
    uint64_t rounds;
} moves;

static void fire_run(void *arg, unsigned number, stress_random *random) {
    moves *m = arg;
    (void)number;
    (void)random;
    for (uint64_t i = 0; i < m->rounds; i++) {
        atomic_fetch_add_explicit(&m->item.posted, 1, memory_order_seq_cst);
        rt_ready_fire(&m->item.ready);
    }
}

static void move_run(void *arg, unsigned number, stress_random *random) {
    moves *m = arg;
    uint64_t left = m->rounds * 2;
    unsigned at = 0;
    (void)number;
    while (left) {
        rt_notifier *n = m->n[at];
        rt_notifier_arm(n, &m->item.ready);
        if (atomic_load_explicit(&m->item.posted, memory_order_seq_cst) == m->item.seen) {
            CHECK_INT(rt_notifier_wait(n, UINT64_MAX), RT_OK);
            (void)rt_notifier_next(n);
        }
        left -= look(&m->item);
        if (stress_below(random, 4) == 0) {
            while (!rt_notifier_disarm(&m->item.ready) && !rt_notifier_forget(n, &m->item.ready))
                rt_notifier_purge(n);
            CHECK(rt_ready_idle(&m->item.ready));
            at ^= 1;
        }
    }
    while (!rt_notifier_disarm(&m->item.ready) && !rt_notifier_forget(m->n[at], &m->item.ready))
        rt_notifier_purge(m->n[at]);
}

static void test_moving(void) {
    static void (*const run[])(void *, unsigned, stress_random *) = {move_run, fire_run};
    static const unsigned count[] = {1, 2};
    moves m = {.n = {new_notifier(), new_notifier()}, .rounds = 200000 * stress_scale()};
    stress_watchdog(60);
    stress_run(&m, 2, run, count);
    CHECK_INT(m.item.seen, m.rounds * 2);
    rt_notifier_rele(m.n[0]);
    rt_notifier_rele(m.n[1]);
    alarm(0);
}

TESTS(test_new, test_order, test_bell, test_armed, test_forget, test_after_fork,
      test_no_wakeup_lost, test_no_wakeup_lost_hushing, test_no_wakeup_lost_armed,
      test_no_wakeup_lost_armed_hushing, test_moving)
