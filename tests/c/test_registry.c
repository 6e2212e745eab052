/* threads */
#include "base/limits.h"
#include "check.h"
#include "proc/registry.h"
#include "stress.h"

static rt_slice text(const char *s) { return rt_slice_of(s, strlen(s)); }

static int push(rt_registry *r, rt_pid pid, uint32_t count) {
    rt_chain c = {0};
    int rc;
    for (uint32_t i = 0; i < count; i++) {
        rt_message *m = rt_chain_add(&c, pid, 8);
        memcpy(rt_message_data(m), &pid, 8);
    }
    rc = rt_registry_push(r, pid, &c, NULL);
    CHECK_INT(c.count, rc == RT_OK ? 0 : count);
    rt_chain_free(&c);
    return rc;
}

static rt_process *new_process(rt_registry *r) {
    rt_process *p = NULL;
    CHECK_INT(rt_process_new(r, &p), RT_OK);
    return p;
}

static void end(rt_registry *r, rt_process *p) {
    CHECK_INT(rt_process_exit(r, p->self, text("")), RT_OK);
    rt_process_release(r, p);
}

static void test_life(void) {
    rt_registry *r = rt_registry_new(10, 10);
    rt_process *p = new_process(r), *q = new_process(r);
    rt_pid pid = p->self;
    rt_slice why;
    rt_message *m;
    CHECK_INT(sizeof(rt_process), 128);
    CHECK_INT((uintptr_t)p % 64, 0);
    CHECK(pid != q->self && (uint32_t)pid != 0 && (uint32_t)q->self != 0);
    CHECK(p->user == NULL && p->flags == 0);
    CHECK_INT(rt_registry_count(r), 2);
    CHECK(rt_registry_lookup(r, pid) == p && rt_registry_lookup(r, q->self) == q);
    CHECK(rt_registry_lookup(r, 0) == NULL);
    CHECK(rt_registry_lookup(r, pid + (1ull << 32)) == NULL);
    CHECK(rt_registry_lookup(r, 9) == NULL);
    CHECK(rt_registry_lookup(r, UINT64_MAX) == NULL);
    CHECK(rt_registry_lookup(r, UINT32_MAX) == NULL);
    CHECK_INT(push(r, pid, 3), RT_OK);
    CHECK_INT(push(r, 9, 1), RT_ENOENT);
    CHECK_INT(push(r, UINT32_MAX, 1), RT_ENOENT);
    CHECK_INT(rt_process_reason(p).n, 0);
    CHECK(rt_process_alive(p));
    CHECK_INT(rt_process_exit(r, pid, text("because")), RT_OK);
    CHECK_INT(rt_process_exit(r, pid, text("again")), RT_ENOENT);
    CHECK_INT(rt_process_exit(r, 9, text("nobody")), RT_ENOENT);
    CHECK(!rt_process_alive(p) && rt_mailbox_closed(&p->mailbox));
    why = rt_process_reason(p);
    CHECK(rt_slice_eq(why, text("because")));
    CHECK(rt_registry_lookup(r, pid) == NULL);
    CHECK_INT(push(r, pid, 1), RT_ENOENT);
    CHECK_INT(rt_registry_count(r), 1);
    m = rt_process_pop(r, p);                       /* what was accepted is still there */
    CHECK(m && m->target == pid);
    rt_message_free(m);
    CHECK_INT(rt_registry_lost(r), 0);
    rt_process_release(r, p);
    CHECK_INT(rt_registry_lost(r), 2);
    CHECK_INT(rt_registry_limbo(r), 0);
    end(r, q);
    CHECK_INT(rt_registry_count(r), 0);
    rt_registry_free(r);
    rt_registry_free(NULL);
}

/* A box closed by its owner is still a process; exit closes it for good. */
static void test_closed_is_not_dead(void) {
    rt_registry *r = rt_registry_new(10, 10);
    rt_process *p = new_process(r);
    CHECK_INT(push(r, p->self, 1), RT_OK);
    rt_mailbox_close(&p->mailbox);
    CHECK_INT(push(r, p->self, 1), RT_ECLOSED);
    CHECK(rt_registry_lookup(r, p->self) == p);
    CHECK_INT(rt_process_exit(r, p->self, text("x")), RT_OK);
    rt_process_release(r, p);
    rt_registry_free(r);
}

static void test_reuse(void) {
    rt_registry *r = rt_registry_new(3, 10);
    rt_process *p[4];
    rt_pid old[3], first;
    for (int i = 0; i < 3; i++) {
        p[i] = new_process(r);
        old[i] = p[i]->self;
        CHECK_INT(old[i] >> 32, 0);
    }
    CHECK_INT(rt_process_new(r, &p[3]), RT_ELIMIT);
    p[0]->user = r;
    p[0]->flags = RT_PROCESS_TRAP_EXIT;
    rt_mailbox_limit(&p[0]->mailbox, 1, 0, RT_OVERFLOW_DROP);
    CHECK_INT(push(r, old[0], 5), RT_OK);
    CHECK_INT(rt_registry_register(r, text("zero"), old[0]), RT_OK);
    /* First freed, first used; with the next serial, and as good as new. */
    end(r, p[2]);
    end(r, p[0]);
    end(r, p[1]);
    for (int i = 0; i < 3; i++) {
        static const int order[] = {2, 0, 1};
        rt_process *q = new_process(r);
        uint8_t name[RT_ATOM_BYTES_MAX];
        CHECK_INT((uint32_t)q->self, (uint32_t)old[order[i]]);
        CHECK_INT(q->self >> 32, 1);
        CHECK(q == p[order[i]]);
        CHECK(q->user == NULL && q->flags == 0);
        CHECK_INT(rt_registry_name_of(r, q->self, name), 0);
        CHECK_INT(rt_mailbox_count(&q->mailbox) + rt_mailbox_dropped(&q->mailbox), 0);
        CHECK_INT(push(r, q->self, 5), RT_OK);
        CHECK_INT(rt_mailbox_count(&q->mailbox), 5);
        CHECK(rt_registry_lookup(r, old[order[i]]) == NULL);
        CHECK_INT(push(r, old[order[i]], 1), RT_ENOENT);
        CHECK_INT(rt_process_exit(r, old[order[i]], text("x")), RT_ENOENT);
        CHECK_INT(rt_registry_register(r, text("x"), old[order[i]]), RT_ENOENT);
    }
    /* The serial wraps to 0 after 2^32 - 1. */
    first = p[0]->self;
    end(r, p[0]);
    p[0]->self = (uint64_t)UINT32_MAX << 32 | (uint32_t)first;
    p[0] = new_process(r);
    CHECK_INT(p[0]->self, (uint32_t)first);
    CHECK(rt_registry_lookup(r, p[0]->self) == p[0]);
    rt_registry_free(r);                         /* with living processes and messages */
}

static void count_process(void *arg, rt_process *p) {
    uint64_t *sum = arg;
    *sum += p->self;
}

static void test_many(void) {
    enum { N = 5000 };
    rt_registry *r = rt_registry_new(N, 10);
    static rt_process *p[N];
    uint64_t sum = 0, expect = 0;
    long found = 0;
    for (int i = 0; i < N; i++) p[i] = new_process(r);
    for (int i = 0; i < N; i++) found += rt_registry_lookup(r, p[i]->self) == p[i];
    CHECK_INT(found, N);
    for (int i = 0; i < N; i += 2) end(r, p[i]);
    CHECK_INT(rt_process_exit(r, p[1]->self, text("")), RT_OK);  /* not released: still there */
    for (int i = 1; i < N; i += 2) expect += p[i]->self;
    rt_registry_each(r, count_process, &sum);
    CHECK_INT(sum, expect);
    CHECK_INT(rt_registry_count(r), N / 2 - 1);
    rt_registry_free(r);
}

static void count_name(void *arg, rt_slice name, rt_pid pid) {
    uint64_t *sum = arg;
    CHECK(name.n == 1);
    *sum += pid;
}

static void test_names(void) {
    rt_registry *r = rt_registry_new(10, 2);
    rt_process *p = new_process(r), *q = new_process(r), *s = new_process(r);
    rt_pid pid = p->self;
    uint8_t out[RT_ATOM_BYTES_MAX];
    uint64_t sum = 0;
    CHECK_INT(rt_registry_whereis(r, text("p")), 0);
    CHECK_INT(rt_registry_register(r, text("p"), pid), RT_OK);
    CHECK_INT(rt_registry_register(r, text("p"), q->self), RT_EEXIST);
    CHECK_INT(rt_registry_register(r, text("other"), pid), RT_EEXIST);
    CHECK_INT(rt_registry_register(r, text(""), q->self), RT_EINVAL);
    CHECK_INT(rt_registry_register(r, text("q"), 99), RT_ENOENT);
    CHECK_INT(rt_registry_register(r, text("q"), q->self), RT_OK);
    CHECK_INT(rt_registry_register(r, text("s"), s->self), RT_ELIMIT);
    CHECK_INT(rt_registry_whereis(r, text("p")), pid);
    CHECK_INT(rt_registry_name_of(r, pid, out), 1);
    CHECK_INT(out[0], 'p');
    CHECK_INT(rt_registry_name_of(r, s->self, out), 0);
    CHECK_INT(rt_registry_name_of(r, 99, out), 0);
    rt_registry_each_name(r, count_name, &sum);
    CHECK_INT(sum, pid + q->self);
    CHECK_INT(rt_registry_unregister(r, text("q")), RT_OK);
    CHECK_INT(rt_registry_unregister(r, text("q")), RT_ENOENT);
    CHECK_INT(rt_registry_name_of(r, q->self, out), 0);
    CHECK_INT(rt_registry_register(r, text("again"), q->self), RT_OK);
    CHECK_INT(rt_process_exit(r, pid, text("")), RT_OK);
    CHECK_INT(rt_registry_whereis(r, text("p")), 0);     /* the name goes with it */
    CHECK_INT(rt_registry_name_of(r, pid, out), 0);
    CHECK_INT(rt_registry_register(r, text("p"), pid), RT_ENOENT);
    CHECK_INT(rt_registry_register(r, text("p"), s->self), RT_OK);
    rt_process_release(r, p);
    CHECK_INT(rt_registry_whereis(r, text("p")), s->self);
    end(r, q);
    CHECK_INT(rt_registry_whereis(r, text("again")), 0);
    end(r, s);
    rt_registry_free(r);
}

static void test_no_memory(void) {
    for (long k = 0; k < 3; k++) {
        rt_alloc_fail_after(k);
        CHECK(rt_registry_new(10, 10) == NULL);
    }
    rt_alloc_fail_after(-1);
    rt_registry *r = rt_registry_new(10, 10);
    rt_process *p = NULL;
    rt_alloc_fail_after(0);
    CHECK_INT(rt_process_new(r, &p), RT_ENOMEM);
    CHECK(p == NULL && rt_registry_count(r) == 0);
    rt_alloc_fail_after(-1);
    p = new_process(r);
    rt_alloc_fail_after(0);
    CHECK_INT(rt_registry_register(r, text("p"), p->self), RT_ENOMEM);
    CHECK_INT(rt_registry_whereis(r, text("p")), 0);
    rt_alloc_fail_after(-1);
    CHECK_INT(rt_registry_register(r, text("p"), p->self), RT_OK);
    rt_alloc_fail_after(0);                      /* dying needs no memory */
    CHECK_INT(rt_process_exit(r, p->self, text("reason")), RT_OK);
    rt_alloc_fail_after(-1);
    CHECK_INT(rt_process_reason(p).n, 0);
    CHECK_INT(rt_registry_whereis(r, text("p")), 0);
    rt_process_release(r, p);
    rt_registry_free(r);
}

/* A released process's entry is not given out, its slot waits for it. */
static void test_release_while_marked(void) {
    rt_registry *r = rt_registry_new(2, 2);
    rt_notifier *n = NULL;
    rt_process *p = new_process(r), *q = new_process(r);
    CHECK_INT(rt_notifier_new(&n), RT_OK);
    rt_mailbox_bind(&p->mailbox, n);
    rt_mailbox_bind(&q->mailbox, n);
    CHECK(rt_mailbox_arm(&p->mailbox) && rt_mailbox_arm(&q->mailbox));
    CHECK_INT(push(r, q->self, 1), RT_OK);
    CHECK_INT(push(r, p->self, 1), RT_OK);
    end(r, p);                                   /* second in the list */
    CHECK_INT(rt_registry_limbo(r), 1);
    CHECK(rt_notifier_next(n) == &q->mailbox.ready);
    CHECK(rt_notifier_next(n) == NULL);
    p = new_process(r);                          /* sweeps, and gets that slot */
    CHECK_INT(rt_registry_limbo(r), 0);
    rt_mailbox_bind(&p->mailbox, n);
    CHECK(rt_mailbox_arm(&p->mailbox) && !rt_mailbox_arm(&q->mailbox));
    CHECK_INT(push(r, p->self, 1), RT_OK);
    end(r, q);
    CHECK_INT(push(r, p->self, 1), RT_OK);
    CHECK(rt_notifier_next(n) == &p->mailbox.ready);
    rt_notifier_rele(n);                         /* p holds it until the end */
    rt_registry_free(r);
}

/* A producer that has been admitted and is suspended before it reaches the pile,
 * played by hand: it holds back its slot and nothing else, and brings it back. */
static void test_stalled_producer(void) {
    rt_registry *r = rt_registry_new(2, 2);
    rt_process *p = new_process(r), *q = new_process(r), *other = NULL;
    rt_pid pid = p->self;
    rt_chain c = {0};
    rt_message *m = rt_chain_add(&c, pid, 8);
    CHECK_INT(push(r, pid, 2), RT_OK);
    atomic_fetch_add(&p->mailbox.gate, 1);       /* step 1 */
    CHECK_INT(push(r, pid, 2), RT_OK);           /* others are not hidden */
    for (int i = 0; i < 4; i++) {
        rt_message *got = rt_process_pop(r, p);
        CHECK(got != NULL);
        rt_message_free(got);
    }
    CHECK(rt_process_pop(r, p) == NULL);
    CHECK_INT(rt_process_exit(r, pid, text("")), RT_OK);
    CHECK(!rt_mailbox_done(&p->mailbox));
    rt_process_release(r, p);
    CHECK_INT(rt_registry_limbo(r), 1);
    CHECK_INT(rt_process_new(r, &other), RT_ELIMIT);
    CHECK_INT(push(r, q->self, 1), RT_OK);
    CHECK_INT(rt_registry_limbo(r), 1);
    rt_pile_push(&p->mailbox.pile, &m->link, &m->link);  /* step 3 */
    CHECK_INT(push(r, q->self, 1), RT_OK);       /* any push comes by */
    CHECK_INT(rt_registry_limbo(r), 0);
    CHECK_INT(rt_registry_lost(r), 1);
    other = new_process(r);
    CHECK(other == p && other->self == pid + (1ull << 32));
    CHECK(rt_process_pop(r, other) == NULL);
    CHECK_INT(rt_mailbox_waiting_bytes(&other->mailbox) + rt_mailbox_count(&other->mailbox), 0);
    rt_registry_free(r);
}

/* Stress: owners make processes in a few slots, read some, and let them die (by
 * their own hand or a killer's); pushers use pids old and new. Each message holds
 * the pid it is meant for. */
enum { OWNERS = 2, PUSHERS = 2, PIDS = 6 };

typedef struct world {
    rt_registry *r;
    _Atomic rt_pid pid[PIDS];
    uint64_t rounds;
    _Atomic uint32_t owners;
    _Atomic uint64_t accepted, delivered, dropped, died, killed, named;
    bool limited;
} world;

static uint64_t read_one(world *w, rt_process *p) {
    rt_message *m = rt_process_pop(w->r, p);
    rt_pid target;
    if (!m) return 0;
    memcpy(&target, rt_message_data(m), 8);
    CHECK(target == p->self && m->target == p->self);
    rt_message_free(m);
    return 1;
}

/* One process from birth to release. */
static void live(world *w, rt_notifier *n, unsigned number, stress_random *random) {
    uint64_t want = stress_below(random, 30), delivered = 0;
    rt_process *p = NULL;
    char name[16];
    bool named = false;
    if (rt_process_new(w->r, &p) != RT_OK) return;
    p->user = w;
    if (w->limited) rt_mailbox_limit(&p->mailbox, 5, 0, RT_OVERFLOW_DROP);
    rt_mailbox_bind(&p->mailbox, n);
    snprintf(name, sizeof name, "owner%u", number);
    if (stress_below(random, 2)) {
        /* A killer may have been faster; the name is its owner's alone. */
        int rc = rt_registry_register(w->r, text(name), p->self);
        CHECK(rc == RT_OK || rc == RT_ENOENT);
        named = rc == RT_OK;
        w->named += named;
    }
    /* The living one where pushers find it, the one before among the stale. */
    w->pid[OWNERS + stress_below(random, PIDS - OWNERS)] = w->pid[number];
    w->pid[number] = p->self;
    while (delivered < want && !rt_mailbox_done(&p->mailbox)) {
        uint64_t got = read_one(w, p);
        rt_ready *ready;
        delivered += got;
        if (got || !rt_mailbox_arm(&p->mailbox)) continue;
        CHECK_INT(rt_notifier_wait(n, UINT64_MAX), RT_OK);
        while ((ready = rt_notifier_next(n)))
            CHECK(RT_MAILBOX_OF_READY(ready) == &p->mailbox);   /* never a released one's */
    }
    if (named && rt_process_alive(p) && stress_below(random, 2))
        (void)rt_registry_unregister(w->r, text(name));
    w->killed += rt_process_exit(w->r, p->self, text("done")) == RT_OK;
    w->died++;
    CHECK(!rt_process_alive(p) && rt_mailbox_closed(&p->mailbox));
    CHECK_INT(rt_registry_whereis(w->r, text(name)), 0);
    if (stress_below(random, 2))
        while (read_one(w, p)) delivered++;
    w->delivered += delivered;
    /* A drop by the last pushes, seen too late here, is what the sum tolerates. */
    w->dropped += rt_mailbox_dropped(&p->mailbox);
    rt_process_release(w->r, p);
}

static void own_run(void *arg, unsigned number, stress_random *random) {
    world *w = arg;
    rt_notifier *n = NULL;
    CHECK_INT(rt_notifier_new(&n), RT_OK);
    for (uint64_t i = 0; i < w->rounds; i++) live(w, n, number, random);
    rt_notifier_rele(n);
    w->owners--;
}

static void push_run(void *arg, unsigned number, stress_random *random) {
    world *w = arg;
    uint64_t accepted = 0;
    uint8_t out[RT_ATOM_BYTES_MAX];
    (void)number;
    while (w->owners) {
        rt_pid pid = w->pid[stress_below(random, PIDS)];
        uint32_t n = 1 + stress_below(random, 8), dice = stress_below(random, 64);
        if (!pid) continue;
        if (dice == 0) {
            w->killed += rt_process_exit(w->r, pid, text("killed")) == RT_OK;
        } else if (dice == 1) {
            rt_process *p = rt_registry_lookup(w->r, pid);
            size_t got = rt_registry_name_of(w->r, pid, out);
            CHECK(got == 0 || (got == 6 && memcmp(out, "owner", 5) == 0));
            (void)p;
        } else if (push(w->r, pid, n) == RT_OK) {
            accepted += n;
        }
    }
    w->accepted += accepted;
}

static void run_world(uint32_t slots, bool limited) {
    static void (*const run[])(void *, unsigned, stress_random *) = {own_run, push_run};
    static const unsigned count[] = {OWNERS, PUSHERS};
    world w = {.r = rt_registry_new(slots, 10), .rounds = 4000 * stress_scale(),
               .owners = OWNERS, .limited = limited};
    rt_process *p;
    stress_watchdog(100);
    stress_run(&w, 2, run, count);
    CHECK_INT(w.killed, w.died);                 /* exit wins once per process */
    CHECK_INT(rt_registry_count(w.r), 0);
    while (rt_registry_limbo(w.r)) {             /* nobody is on the way any more */
        p = new_process(w.r);
        end(w.r, p);
    }
    if (limited) CHECK(w.delivered + rt_registry_lost(w.r) + w.dropped <= w.accepted);
    else CHECK_INT(w.delivered + rt_registry_lost(w.r), w.accepted);
    CHECK(w.delivered > 0 && w.died > 0 && w.named > 0);
    rt_registry_free(w.r);
    alarm(0);
}

static void test_race(void) { run_world(3, false); }
static void test_race_one_slot(void) { run_world(1, false); }
static void test_race_limited(void) { run_world(3, true); }

TESTS(test_life, test_closed_is_not_dead, test_reuse, test_many, test_names, test_no_memory,
      test_release_while_marked, test_stalled_producer, test_race, test_race_one_slot,
      test_race_limited)
