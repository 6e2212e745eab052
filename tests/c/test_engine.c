/* threads; needs: net route node */
#define _GNU_SOURCE
#include <poll.h>
#include <sys/epoll.h>
#include <sys/syscall.h>

#include "base/clock.h"
#include "node/engine.h"
#include "sockets.h"

#define BUSY_NS 200000u

static atomic_int blocks, polls;

/* These stand in front of libc's, to count. */
int epoll_wait(int fd, struct epoll_event *events, int max, int timeout)
{
    if (timeout < 0) atomic_fetch_add(&blocks, 1);
    return (int)syscall(SYS_epoll_pwait, fd, events, max, timeout, NULL, 0);
}

int ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask)
{
    struct timespec rest = timeout ? *timeout : (struct timespec){0}; /* the kernel changes it */
    if (!timeout || timeout->tv_sec || timeout->tv_nsec) atomic_fetch_add(&polls, 1);
    return (int)syscall(SYS_ppoll, fds, n, timeout ? &rest : NULL, mask, 8);
}

/* A peer that sends single bytes. */
typedef struct world {
    rt_engine engine;
    rt_notifier *notifier;
    rt_source source;
    int fd[2];
    atomic_int turns;
    atomic_int heard;
    rt_timer timer;
    int fired;
} world;

static void turned(rt_engine *e) { atomic_fetch_add(&RT_CONTAINER_OF(e, world, engine)->turns, 1); }

static void came(rt_source *s, uint32_t events)
{
    world *w = RT_CONTAINER_OF(s, world, source);
    (void)events;
    if (!took_byte(s->fd)) return;
    atomic_fetch_add(&w->heard, 1);
    rt_poller_spend(w->engine.poller, 1);
}

static void fired(rt_timer *t) { RT_CONTAINER_OF(t, world, timer)->fired++; }

static void begin(world *w, enum rt_engine_mode mode, uint64_t busy_ns)
{
    memset(w, 0, sizeof *w);
    atomic_store(&blocks, 0);
    atomic_store(&polls, 0);
    if (rt_engine_init(&w->engine, mode, RT_POLLER_EPOLL, turned) < 0 ||
        rt_notifier_new(&w->notifier) < 0)
        abort();
    w->engine.vigil.ns = busy_ns;
    w->source.fd = -1;
    w->source.ready = came;
    w->timer.fire = fired;
    make_pair(w->fd);
    CHECK_INT(rt_poller_add(w->engine.poller, &w->source, w->fd[0], RT_READABLE), RT_OK);
    CHECK_INT(rt_engine_start(&w->engine), RT_OK);
}

static void end(world *w)
{
    rt_engine_stop(&w->engine);
    rt_engine_enter(&w->engine);
    rt_poller_remove(w->engine.poller, &w->source);
    rt_engine_leave(&w->engine);
    rt_engine_fini(&w->engine);
    rt_notifier_rele(w->notifier);
    close(w->fd[0]);
    close(w->fd[1]);
}

static int busy_wait(world *w, uint64_t ns)
{
    return rt_engine_busy_wait(&w->engine, w->notifier, ns);
}

static void test_it_looks_for_so_long_and_sleeps_never(void)
{
    world w;
    begin(&w, RT_ENGINE_INLINE, BUSY_NS);
    uint64_t start = rt_now();
    CHECK_INT(busy_wait(&w, BUSY_NS), RT_ETIME);
    CHECK(rt_now() - start >= BUSY_NS);
    /* It may lose the processor for all of the time. */
    int turns;
    do {
        turns = w.turns;
        CHECK_INT(busy_wait(&w, BUSY_NS), RT_ETIME);
    } while (w.turns <= turns + 1 && rt_now() - start < PATIENCE);
    CHECK(w.turns > turns + 1);
    CHECK_INT(polls, 0);
    CHECK_INT(blocks, 0);
    end(&w);
}

static void test_who_was_heard_is_expected_once(void)
{
    world w;
    begin(&w, RT_ENGINE_INLINE, BUSY_NS);
    CHECK(!rt_engine_expects(&w.engine));
    put_byte(w.fd[1]);
    CHECK_INT(busy_wait(&w, PATIENCE), RT_OK);
    CHECK_INT(w.heard, 1);
    CHECK_INT(busy_wait(&w, PATIENCE), RT_OK); /* nobody has looked yet */
    CHECK(rt_engine_expects(&w.engine));
    CHECK(!rt_engine_expects(&w.engine));
    put_byte(w.fd[1]);
    CHECK_INT(rt_engine_drive(&w.engine, true), 1);
    CHECK(rt_engine_expects(&w.engine));
    end(&w);
    begin(&w, RT_ENGINE_INLINE, 0);
    put_byte(w.fd[1]);
    CHECK_INT(rt_engine_drive(&w.engine, true), 1);
    CHECK(!rt_engine_expects(&w.engine)); /* it was not asked for */
    end(&w);
}

static void test_what_no_peer_sent_is_done_and_does_not_end_it(void)
{
    world w;
    begin(&w, RT_ENGINE_INLINE, BUSY_NS);
    rt_engine_wake(&w.engine);
    CHECK_INT(rt_timer_set(w.engine.timers, &w.timer, rt_now() + BUSY_NS / 2), RT_OK);
    do CHECK_INT(busy_wait(&w, BUSY_NS), RT_ETIME);
    while (!w.fired && rt_now() < w.timer.deadline + PATIENCE); /* it may lose the processor */
    CHECK_INT(w.fired, 1);
    CHECK_INT(w.engine.woken, 0);
    CHECK(!rt_engine_expects(&w.engine));
    end(&w);
}

static void *poke(void *arg)
{
    world *w = arg;
    while (!atomic_load(&w->turns)) rt_cpu_relax();
    rt_notifier_poke(w->notifier);
    return NULL;
}

static void *stop(void *arg)
{
    world *w = arg;
    while (!atomic_load(&w->turns)) rt_cpu_relax();
    rt_engine_stop(&w->engine);
    return NULL;
}

static void ends_by(void *(*other)(void *), bool hushed)
{
    world w;
    pthread_t thread;
    begin(&w, RT_ENGINE_INLINE, BUSY_NS);
    if (hushed) rt_notifier_hush(w.notifier);
    pthread_create(&thread, NULL, other, &w);
    uint64_t start = rt_now();
    CHECK_INT(busy_wait(&w, PATIENCE), RT_OK);
    CHECK(rt_now() - start < PATIENCE);
    pthread_join(thread, NULL);
    CHECK_INT(rt_notifier_rung(w.notifier), other == poke);
    rt_notifier_rest(w.notifier);
    CHECK(!rt_notifier_rung(w.notifier));
    end(&w);
}

static void test_news_of_another_thread_end_it(void)
{
    ends_by(poke, false);
    ends_by(poke, true);
}

static void test_stop_ends_it(void) { ends_by(stop, false); }

/* How many messages, from the next on, nobody stays awake after. */
static int left_off(world *w)
{
    for (int n = 0;; n++) {
        put_byte(w->fd[1]);
        CHECK_INT(rt_engine_drive(&w->engine, true), 1);
        if (rt_engine_expects(&w->engine)) return n;
    }
}

static void test_waits_in_vain_become_rare(void)
{
    world w;
    begin(&w, RT_ENGINE_INLINE, BUSY_NS);
    CHECK_INT(left_off(&w), 0);
    for (int n = 1; n <= 1024; n *= 2) {
        rt_engine_give_up(&w.engine);
        CHECK_INT(left_off(&w), n);
    }
    rt_engine_give_up(&w.engine);
    CHECK_INT(left_off(&w), 1024);
    CHECK_INT(left_off(&w), 0); /* this one came while somebody was awake */
    rt_engine_give_up(&w.engine);
    CHECK_INT(left_off(&w), 1024);
    for (int n = 1024; n; n /= 2) CHECK_INT(left_off(&w), 0);
    rt_engine_give_up(&w.engine);
    CHECK_INT(left_off(&w), 1);
    end(&w);
}

static void test_a_thread_that_waits_stays_awake_first(void)
{
    world w;
    begin(&w, RT_ENGINE_INLINE, BUSY_NS);
    put_byte(w.fd[1]);
    CHECK_INT(rt_engine_wait(&w.engine, w.notifier, PATIENCE), RT_OK);
    CHECK_INT(polls, 1);
    put_byte(w.fd[1]);
    CHECK_INT(rt_engine_wait(&w.engine, w.notifier, PATIENCE), RT_OK);
    CHECK_INT(polls, 1); /* it was awake */
    CHECK_INT(w.heard, 2);
    uint64_t start = rt_now();
    CHECK_INT(rt_engine_wait(&w.engine, w.notifier, 2 * BUSY_NS), RT_OK); /* in vain: look, and */
    CHECK(rt_now() - start >= BUSY_NS);
    CHECK_INT(polls, 1);
    CHECK_INT(rt_engine_wait(&w.engine, w.notifier, BUSY_NS), RT_ETIME); /* come again to sleep */
    CHECK(rt_now() - start >= 2 * BUSY_NS);
    CHECK_INT(polls, 2);
    CHECK(w.turns >= 3);
    int turns = w.turns;
    CHECK_INT(rt_engine_wait(&w.engine, w.notifier, BUSY_NS), RT_ETIME);
    CHECK_INT(polls, 3);
    CHECK_INT(w.turns, turns); /* nobody was heard */
    end(&w);
}

static void test_an_own_thread_stays_awake_and_sleeps_again(void)
{
    world w;
    begin(&w, RT_ENGINE_THREAD, BUSY_NS);
    CHECK(EVENTUALLY(atomic_load(&blocks) == 1));
    put_byte(w.fd[1]);
    CHECK(EVENTUALLY(atomic_load(&blocks) == 2));
    CHECK(atomic_load(&w.turns) > 1);
    end(&w);
}

TESTS(test_it_looks_for_so_long_and_sleeps_never, test_who_was_heard_is_expected_once,
      test_what_no_peer_sent_is_done_and_does_not_end_it, test_news_of_another_thread_end_it,
      test_stop_ends_it, test_waits_in_vain_become_rare,
      test_a_thread_that_waits_stays_awake_first, test_an_own_thread_stays_awake_and_sleeps_again)
