/* needs: net */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>

#include "base/clock.h"
#include "net/timer.h"
#include "sockets.h"

static int settime_calls, settime_fails, settime_fd;

/* Stands in front of libc's, to count and to fail. */
int timerfd_settime(int fd, int flags, const struct itimerspec *new_value,
                    struct itimerspec *old_value)
{
    settime_calls++;
    settime_fd = fd;
    if (settime_fails) {
        errno = ECANCELED;
        return -1;
    }
    return (int)syscall(SYS_timerfd_settime, fd, flags, new_value, old_value);
}

static rt_poller *poller;

static rt_timers *new_timers(void)
{
    rt_timers *t = NULL;
    poller = NULL;
    if (!CHECK(rt_poller_new(&poller, RT_POLLER_EPOLL) == RT_OK)) abort();
    if (!CHECK(rt_timers_new(&t, poller) == RT_OK)) abort();
    return t;
}

static void free_timers(rt_timers *t)
{
    rt_timers_free(t);
    rt_poller_free(poller);
}

/* ---- against a model: the model is an array of deadlines ---- */

#define NOT_SET UINT64_MAX

typedef struct model {
    rt_timers *timers;
    rt_timer *timer;
    uint64_t *deadline;
    bool *due;              /* must fire in the run under way */
    size_t n;
    size_t fired;
    uint64_t now, last;
    uint64_t random;
    bool busy_callbacks;
} model;

static model m;

static uint64_t pick(uint64_t below) { return next_random(&m.random) % below; }

static void model_set(size_t i, uint64_t deadline)
{
    CHECK_INT(rt_timer_set(m.timers, &m.timer[i], deadline), RT_OK);
    CHECK(m.timer[i].deadline == deadline && m.timer[i].place != 0);
    m.deadline[i] = deadline;
    m.due[i] = false;
}

static void model_cancel(size_t i)
{
    rt_timer_cancel(m.timers, &m.timer[i]);
    CHECK(m.timer[i].place == 0);
    m.deadline[i] = NOT_SET;
    m.due[i] = false;
}

static void model_fired(rt_timer *t)
{
    size_t i = (size_t)(t - m.timer);
    CHECK(m.due[i]);
    CHECK(t->place == 0);
    CHECK(m.deadline[i] <= m.now);
    CHECK(m.deadline[i] >= m.last); /* in order */
    m.last = m.deadline[i];
    m.due[i] = false;
    m.deadline[i] = NOT_SET;
    m.fired++;
    if (!m.busy_callbacks) return;
    for (uint64_t k = pick(4); k > 0; k--) {
        size_t other = pick(3) ? pick(m.n) : i;
        /* Also for times that have passed: those wait for the next run. */
        if (pick(2)) model_set(other, m.now + pick(200) - (m.now < 100 ? m.now : 100));
        else model_cancel(other);
    }
}

static uint64_t model_next(void)
{
    uint64_t least = NOT_SET;
    for (size_t i = 0; i < m.n; i++)
        if (m.deadline[i] < least) least = m.deadline[i];
    return least;
}

static void model_run(uint64_t now)
{
    m.now = now;
    m.last = 0;
    for (size_t i = 0; i < m.n; i++) m.due[i] = m.deadline[i] <= now;
    rt_timers_run(m.timers, now);
    for (size_t i = 0; i < m.n; i++) CHECK(!m.due[i]);
    CHECK(rt_timers_next(m.timers) == model_next());
}

static void model_open(size_t n, uint64_t seed)
{
    m = (model){.timers = new_timers(), .n = n, .random = seed};
    m.timer = calloc(n, sizeof *m.timer);
    m.deadline = malloc(n * sizeof *m.deadline);
    m.due = calloc(n, sizeof *m.due);
    if (!m.timer || !m.deadline || !m.due) abort();
    for (size_t i = 0; i < n; i++) {
        m.timer[i].fire = model_fired;
        m.deadline[i] = NOT_SET;
    }
}

static void model_close(void)
{
    free_timers(m.timers);
    for (size_t i = 0; i < m.n; i++) CHECK(m.timer[i].place == 0);
    free(m.timer);
    free(m.deadline);
    free(m.due);
}

static void test_a_hundred_thousand(void)
{
    const size_t n = 100000;
    model_open(n, 1);
    for (size_t i = 0; i < n; i++) model_set(i, pick(1000000));
    CHECK(rt_timers_next(m.timers) == model_next());
    for (int round = 0; round < 100; round++) {
        for (int k = 0; k < 4000; k++) {
            size_t i = pick(n);
            if (pick(4)) model_set(i, m.now + pick(1000000));
            else model_cancel(i);
        }
        model_run(m.now + pick(40000));
    }
    CHECK(m.fired > n);
    m.busy_callbacks = true;
    model_run(m.now + 500000);
    model_run(m.now);
    model_close();
}

static void test_every_step_of_a_small_heap(void)
{
    model_open(40, 2);
    m.busy_callbacks = true;
    for (int step = 0; step < 50000; step++) {
        size_t i = pick(m.n);
        switch (pick(8)) {
        case 0: model_run(m.now + pick(60)); break;
        case 1: model_run(m.now); break;
        case 2: case 3: model_cancel(i); break;
        default: model_set(i, m.now + pick(300)); break;
        }
        CHECK(rt_timers_next(m.timers) == model_next());
    }
    CHECK(m.fired > 10000);
    model_close();
}

/* ---- callbacks ---- */

typedef struct probe {
    rt_timer timer;
    int calls;
    void (*then)(struct probe *p);
} probe;

static rt_timers *timers;
static probe *other;

static void seen(rt_timer *t)
{
    probe *p = RT_CONTAINER_OF(t, probe, timer);
    p->calls++;
    if (p->then) p->then(p);
}

static void again_now(probe *p) { CHECK_INT(rt_timer_set(timers, &p->timer, 50), RT_OK); }
static void cancel_other(probe *p)
{
    (void)p;
    if (other) rt_timer_cancel(timers, &other->timer);
}

static void test_each_at_most_once_a_run(void)
{
    probe a = {.timer.fire = seen, .then = again_now}, b = {.timer.fire = seen};
    timers = new_timers();
    CHECK_INT(rt_timer_set(timers, &a.timer, 100), RT_OK);
    CHECK_INT(rt_timer_set(timers, &b.timer, 100), RT_OK);
    rt_timers_run(timers, 99);
    CHECK_INT(a.calls + b.calls, 0);
    rt_timers_run(timers, 100);
    CHECK_INT(a.calls, 1);
    CHECK_INT(b.calls, 1); /* a stands before it again, and yet is passed by */
    CHECK(rt_timers_next(timers) == 50);
    rt_timers_run(timers, 100);
    CHECK_INT(a.calls, 2);
    free_timers(timers);
    CHECK_INT(a.timer.place, 0);
}

/* The cancelled timer is freed memory afterwards. */
static void free_other(probe *p)
{
    cancel_other(p);
    free(other);
    other = NULL;
}

static void test_cancelled_by_a_neighbour(void)
{
    probe a = {.timer.fire = seen, .then = free_other};
    timers = new_timers();
    other = calloc(1, sizeof *other);
    other->timer.fire = seen;
    other->then = again_now;
    CHECK_INT(rt_timer_set(timers, &a.timer, 1), RT_OK);
    CHECK_INT(rt_timer_set(timers, &other->timer, 2), RT_OK);
    rt_timers_run(timers, 3);
    CHECK_INT(a.calls, 1);
    CHECK(rt_timers_next(timers) == UINT64_MAX);
    rt_timer_cancel(timers, &a.timer); /* harmless when not set */
    free_timers(timers);
}

/* ---- the descriptor ---- */

static void test_armed_only_on_change(void)
{
    probe a = {.timer.fire = seen}, b = {.timer.fire = seen};
    uint64_t far = rt_now() + 3600 * RT_SEC;
    timers = new_timers();
    settime_calls = 0;
    CHECK_INT(rt_timers_arm(timers), RT_OK);
    CHECK_INT(settime_calls, 0); /* nothing set, nothing armed */
    rt_timer_set(timers, &a.timer, far);
    CHECK_INT(settime_calls, 0); /* only arm does it */
    for (int i = 0; i < 3; i++) CHECK_INT(rt_timers_arm(timers), RT_OK);
    CHECK_INT(settime_calls, 1);
    rt_timer_set(timers, &b.timer, far + 1);
    rt_timers_arm(timers);
    rt_timer_cancel(timers, &b.timer);
    rt_timers_arm(timers);
    CHECK_INT(settime_calls, 1); /* the next deadline is the same */
    rt_timer_set(timers, &b.timer, far - 1);
    rt_timers_arm(timers);
    CHECK_INT(settime_calls, 2);
    rt_timer_cancel(timers, &b.timer);
    rt_timer_cancel(timers, &a.timer);
    for (int i = 0; i < 3; i++) CHECK_INT(rt_timers_arm(timers), RT_OK);
    CHECK_INT(settime_calls, 3);
    rt_timer_set(timers, &a.timer, UINT64_MAX); /* never: like not armed */
    rt_timers_arm(timers);
    CHECK_INT(settime_calls, 3);
    free_timers(timers);
}

static void test_wakes_in_time(void)
{
    probe a = {.timer.fire = seen};
    timers = new_timers();
    uint64_t deadline = rt_now() + 20 * RT_MS;
    rt_timer_set(timers, &a.timer, deadline);
    rt_timers_arm(timers);
    CHECK_INT(rt_poller_wait(poller, UINT64_MAX, 10), 1);
    uint64_t now = rt_now();
    CHECK(now >= deadline);
    CHECK_INT(a.calls, 0);
    /* With a time from before, nothing is due; arming again wakes again. */
    rt_timers_run(timers, deadline - 1);
    CHECK_INT(rt_poller_wait(poller, 0, 10), 0);
    rt_timers_arm(timers);
    CHECK_INT(rt_poller_wait(poller, PATIENCE, 10), 1);
    rt_timers_run(timers, now);
    CHECK_INT(a.calls, 1);
    rt_timers_arm(timers);
    CHECK_INT(rt_poller_wait(poller, 0, 10), 0);
    free_timers(timers);
}

static void test_a_deadline_in_the_past(void)
{
    const uint64_t past[] = {0, 1, RT_SEC};
    probe a = {.timer.fire = seen};
    timers = new_timers();
    for (int i = 0; i < 3; i++) {
        rt_timer_set(timers, &a.timer, past[i]);
        rt_timers_arm(timers);
        CHECK_INT(rt_poller_wait(poller, PATIENCE, 10), 1);
        rt_timers_run(timers, rt_now());
        rt_timers_arm(timers);
        CHECK_INT(a.calls, i + 1);
    }
    free_timers(timers);
}

static void test_disarmed(void)
{
    probe a = {.timer.fire = seen};
    struct itimerspec left;
    timers = new_timers();
    /* Expired and not yet seen: cancelling quiets the descriptor too. */
    rt_timer_set(timers, &a.timer, 1);
    rt_timers_arm(timers);
    struct pollfd f = {.fd = settime_fd, .events = POLLIN};
    CHECK_INT(poll(&f, 1, -1), 1);
    rt_timer_cancel(timers, &a.timer);
    rt_timers_arm(timers);
    CHECK_INT(rt_poller_wait(poller, 0, 10), 0);
    /* Far in the future, then UINT64_MAX: the descriptor waits for nothing. */
    rt_timer_set(timers, &a.timer, rt_now() + 3600 * RT_SEC);
    rt_timers_arm(timers);
    CHECK_INT(timerfd_gettime(settime_fd, &left), 0);
    CHECK(left.it_value.tv_sec > 3000);
    rt_timer_set(timers, &a.timer, UINT64_MAX);
    rt_timers_arm(timers);
    CHECK_INT(timerfd_gettime(settime_fd, &left), 0);
    CHECK(left.it_value.tv_sec == 0 && left.it_value.tv_nsec == 0);
    rt_timer_set(timers, &a.timer, UINT64_MAX - 1); /* more than the kernel's clock holds */
    CHECK_INT(rt_timers_arm(timers), RT_OK);
    CHECK_INT(rt_poller_wait(poller, 0, 10), 0);
    free_timers(timers);
}

/* ---- what fails ---- */

static void test_allocations_fail(void)
{
    enum { N = 200 };
    static probe p[N];
    rt_timers *t = NULL;
    int fds = open_fds();
    timers = new_timers();
    rt_alloc_fail_after(0);
    CHECK_INT(rt_timers_new(&t, poller), RT_ENOMEM);
    rlim_t before = no_more_fds();
    int rc = rt_timers_new(&t, poller), sys = errno;
    let_fds(before);
    CHECK_INT(rc, RT_ESYS);
    CHECK_INT(sys, EMFILE);
    CHECK(t == NULL);
    int failures = 0;
    for (int i = 0; i < N; i++) {
        p[i] = (probe){.timer = {.fire = seen, .deadline = 7}};
        /* The first and the second allocation of every growth. */
        for (long k = 0; k < 2; k++) {
            rt_alloc_fail_after(k);
            rc = rt_timer_set(timers, &p[i].timer, 1000 + (uint64_t)i);
            rt_alloc_fail_after(-1);
            if (rc == RT_OK) break;
            failures++;
            CHECK_INT(rc, RT_ENOMEM);
            CHECK_INT(p[i].timer.place, 0);
            CHECK_INT(p[i].timer.deadline, 7);
        }
        if (rc < 0) CHECK_INT(rt_timer_set(timers, &p[i].timer, 1000 + (uint64_t)i), RT_OK);
    }
    CHECK(failures >= 6);
    rt_alloc_fail_after(0); /* moving, firing and cancelling need no memory */
    for (int i = 0; i < N; i++) CHECK_INT(rt_timer_set(timers, &p[i].timer, 2000), RT_OK);
    rt_timer_cancel(timers, &p[0].timer);
    rt_timers_run(timers, 2000);
    rt_alloc_fail_after(-1);
    for (int i = 0; i < N; i++) CHECK_INT(p[i].calls, i > 0);
    free_timers(timers);
    rt_timers_free(NULL);
    CHECK_INT(open_fds(), fds);
}

/* Moving what is due into a full heap, from a callback, needs none either. */
static probe full[16];
static void move_all(probe *p)
{
    for (int i = 0; i < 16; i++) {
        if (&full[i] == p) continue;
        CHECK_INT(rt_timer_set(timers, &full[i].timer, 5), RT_OK);
    }
}

static void test_moving_in_a_callback_needs_no_memory(void)
{
    timers = new_timers();
    for (int i = 0; i < 16; i++) {
        full[i] = (probe){.timer.fire = seen, .then = move_all};
        CHECK_INT(rt_timer_set(timers, &full[i].timer, 1), RT_OK);
    }
    rt_alloc_fail_after(0);
    rt_timers_run(timers, 1);
    rt_alloc_fail_after(-1);
    int calls = 0;
    for (int i = 0; i < 16; i++) calls += full[i].calls;
    CHECK_INT(calls, 1);
    CHECK(rt_timers_next(timers) == 5);
    free_timers(timers);
}

/* Room is kept for what is due and might be moved, whatever is set before. */
static probe fresh[16];
static void set_fresh_and_move_all(probe *p)
{
    for (int i = 0; i < 16; i++) CHECK_INT(rt_timer_set(timers, &fresh[i].timer, 6), RT_OK);
    move_all(p);
}

static void test_setting_and_moving_in_a_callback(void)
{
    timers = new_timers();
    for (int i = 0; i < 16; i++) {
        fresh[i] = (probe){.timer.fire = seen};
        full[i] = (probe){.timer.fire = seen, .then = set_fresh_and_move_all};
        CHECK_INT(rt_timer_set(timers, &full[i].timer, 1), RT_OK);
    }
    rt_timers_run(timers, 1);
    for (int i = 0; i < 16; i++) full[i].then = NULL;
    rt_timers_run(timers, 6);
    int calls = 0;
    for (int i = 0; i < 16; i++) calls += full[i].calls + fresh[i].calls;
    CHECK_INT(calls, 1 + 15 + 16);
    free_timers(timers);
}

static void test_arming_fails(void)
{
    probe a = {.timer.fire = seen};
    timers = new_timers();
    rt_timer_set(timers, &a.timer, 1);
    settime_fails = 1;
    CHECK_INT(rt_timers_arm(timers), RT_ESYS);
    CHECK_INT(errno, ECANCELED);
    settime_fails = 0;
    CHECK_INT(rt_timers_arm(timers), RT_OK); /* not taken for armed */
    CHECK_INT(rt_poller_wait(poller, PATIENCE, 10), 1);
    free_timers(timers);
}

static void in_the_child(void *arg)
{
    (void)arg;
    rt_poller_after_fork(poller);
    free_timers(timers);
}

static void test_fork(void)
{
    probe a = {.timer.fire = seen};
    timers = new_timers();
    rt_timer_set(timers, &a.timer, rt_now() + 50 * RT_MS);
    rt_timers_arm(timers);
    CHECK(holds_in_child(in_the_child, NULL));
    CHECK(EVENTUALLY(rt_poller_wait(poller, RT_SEC, 10) == 1)); /* still armed here */
    free_timers(timers);
}

TESTS(test_a_hundred_thousand, test_every_step_of_a_small_heap, test_each_at_most_once_a_run,
      test_cancelled_by_a_neighbour, test_armed_only_on_change, test_wakes_in_time,
      test_a_deadline_in_the_past, test_disarmed, test_allocations_fail,
      test_moving_in_a_callback_needs_no_memory, test_setting_and_moving_in_a_callback,
      test_arming_fails, test_fork)
