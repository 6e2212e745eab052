/* threads; needs: net route node */
#define _GNU_SOURCE
#include <poll.h>
#include <sys/syscall.h>

#include "base/clock.h"
#include "node/engine.h"
#include "sockets.h"

#define GRACE_NS (RT_ENGINE_GRACE_MS * RT_MS)
#define TRIES 20

static atomic_int polls, blocks, blocked;

/* This one stands in front of libc's, to count. Nobody else here calls it. */
int poll(struct pollfd *fds, nfds_t n, int timeout)
{
    struct timespec t = {timeout / 1000, timeout % 1000 * (long)RT_MS};
    atomic_fetch_add(&polls, 1);
    if (timeout < 0) atomic_fetch_add(&blocks, 1);
    if (timeout < 0) atomic_store(&blocked, 1);
    int k = (int)syscall(SYS_ppoll, fds, n, timeout < 0 ? NULL : &t, NULL, 8);
    atomic_store(&blocked, 0);
    return k;
}

/* The own thread of an engine, and this thread, which drives when it likes. A peer sends single
 * bytes. */
typedef struct world {
    rt_engine engine;
    rt_source source;
    int fd[2];
    pthread_t here;
    atomic_int heard;
    atomic_int own;     /* rounds of the own thread */
    atomic_int left;    /* something was gathered, and waits */
} world;

static void turned(rt_engine *e)
{
    world *w = RT_CONTAINER_OF(e, world, engine);
    atomic_store(&w->left, 0);
    if (!pthread_equal(pthread_self(), w->here)) atomic_fetch_add(&w->own, 1);
}

static bool waiting(rt_engine *e) { return atomic_load(&RT_CONTAINER_OF(e, world, engine)->left); }

static void came(rt_source *s, uint32_t events)
{
    world *w = RT_CONTAINER_OF(s, world, source);
    (void)events;
    if (!took_byte(s->fd)) return;
    atomic_fetch_add(&w->heard, 1);
    rt_poller_spend(w->engine.poller, 1);
}

static void begin(world *w, int promised)
{
    memset(w, 0, sizeof *w);
    if (rt_engine_init(&w->engine, RT_ENGINE_AUTO, RT_POLLER_EPOLL, turned) < 0) abort();
    w->engine.waiting = waiting;
    w->here = pthread_self();
    w->source.fd = -1;
    w->source.ready = came;
    make_pair(w->fd);
    CHECK_INT(rt_poller_add(w->engine.poller, &w->source, w->fd[0], RT_READABLE), RT_OK);
    atomic_store(&polls, 0);
    atomic_store(&blocks, 0);
    if (promised) rt_engine_promise(&w->engine, promised);
    CHECK_INT(rt_engine_start(&w->engine), RT_OK);
}

static void end(world *w)
{
    rt_engine_stop(&w->engine);
    rt_engine_enter(&w->engine);
    rt_poller_remove(w->engine.poller, &w->source);
    rt_engine_leave(&w->engine);
    rt_engine_fini(&w->engine);
    close(w->fd[0]);
    close(w->fd[1]);
}

static void rest(uint64_t ns)
{
    struct timespec t = {(time_t)(ns / RT_SEC), (long)(ns % RT_SEC)};
    nanosleep(&t, NULL);
}

/* How long the own thread lets a byte lie. */
static uint64_t taken_after(world *w)
{
    int before = atomic_load(&w->heard);
    uint64_t start = rt_now();
    put_byte(w->fd[1]);
    CHECK(EVENTUALLY(atomic_load(&w->heard) > before));
    return rt_now() - start;
}

/* This thread has just driven, and nothing was there. */
static void live(world *w)
{
    int before = atomic_load(&w->heard);
    put_byte(w->fd[1]);
    /* The own thread looks, or has taken it. */
    CHECK(EVENTUALLY(!atomic_load(&blocked) || atomic_load(&w->heard) > before));
    for (int i = 0; i < 3; i++) rt_engine_drive(&w->engine, true);
    rest(GRACE_NS / 4 * (uint64_t)(rt_now() % 9));
    rt_engine_drive(&w->engine, true);
}

static void test_it_takes_over_after_a_grace_and_gives_way_again(void)
{
    world w;
    uint64_t least = UINT64_MAX, again = UINT64_MAX;
    begin(&w, 1);
    for (int i = 0; i < TRIES; i++) {
        live(&w);
        uint64_t ns = taken_after(&w);
        CHECK(ns > GRACE_NS * 9 / 10);
        if (ns < least) least = ns;
        ns = taken_after(&w); /* nobody has driven since */
        if (ns < again) again = ns;
    }
    CHECK(least < 3 * GRACE_NS);
    CHECK(again < GRACE_NS / 2);
    end(&w);
}

static void test_where_nobody_promised_it_waits_for_nobody(void)
{
    world w;
    uint64_t least = UINT64_MAX;
    begin(&w, 0);
    for (int i = 0; i < TRIES; i++) {
        live(&w);
        uint64_t ns = taken_after(&w);
        if (ns < least) least = ns;
    }
    CHECK(least < GRACE_NS / 2);
    end(&w);
}

static void test_it_is_not_woken_by_what_others_drive(void)
{
    world w;
    begin(&w, 1);
    live(&w);
    uint64_t start = rt_now();
    int sent = 0;
    while (rt_now() < start + 40 * GRACE_NS) {
        put_byte(w.fd[1]);
        rt_engine_drive(&w.engine, true);
        if (sent++ % 2) rest(GRACE_NS / 25);
    }
    int looks = (int)((rt_now() - start) / GRACE_NS);
    /* This thread may lose its processor, and the own thread takes over then. */
    int own = atomic_load(&w.own);
    CHECK(own < sent / 4);
    CHECK(atomic_load(&blocks) <= 4 + 4 * own);
    CHECK(atomic_load(&polls) <= looks / 2 + 10 + 4 * own); /* each look takes two */
    end(&w);
}

static void drive_for(world *w, uint64_t ns)
{
    uint64_t start = rt_now();
    while (rt_now() < start + ns) {
        put_byte(w->fd[1]);
        rt_engine_drive(&w->engine, true);
        rest(GRACE_NS / 25);
    }
}

/* Its next look may be far, but what is gathered does not wait for that. */
static void test_what_is_gathered_waits_for_a_grace_alone(void)
{
    world w;
    int soon = 0, tries = TRIES / 2;
    begin(&w, 1);
    for (int i = 0; i < tries; i++) {
        live(&w);
        drive_for(&w, (20 + 3 * (uint64_t)i) * GRACE_NS);
        uint64_t start = rt_now();
        atomic_store(&w.left, 1);
        rt_engine_gathered(&w.engine);
        while (atomic_load(&w.left) && rt_now() < start + RT_SEC) rest(GRACE_NS / 25);
        soon += rt_now() - start < 3 * GRACE_NS;
    }
    CHECK(soon > tries / 2); /* beside programs that compute some are late */
    end(&w);
}

/* It trusts who has driven for a while, but not for ever. */
static void test_it_takes_over_from_who_drove_for_long(void)
{
    world w;
    uint64_t least = UINT64_MAX;
    begin(&w, 1);
    for (int i = 0; i < TRIES / 4; i++) {
        live(&w);
        drive_for(&w, 20 * GRACE_NS);
        uint64_t ns = taken_after(&w);
        CHECK(ns > GRACE_NS * 9 / 10);
        if (ns < least) least = ns;
    }
    CHECK(least < RT_ENGINE_LOOK_MS_MAX * RT_MS + 3 * GRACE_NS);
    end(&w);
}

static void test_it_sleeps_when_nothing_happens(void)
{
    world w;
    begin(&w, 1);
    for (int i = 0; i < 3; i++) {
        live(&w);
        if (i == 1) taken_after(&w);
        if (i == 2) rt_engine_gathered(&w.engine);
        rest(10 * GRACE_NS);
        CHECK(EVENTUALLY(atomic_load(&blocked)));
        int before = atomic_load(&polls);
        rest(10 * GRACE_NS);
        CHECK_INT(atomic_load(&polls), before);
    }
    end(&w);
}

/* A loop gathers, and writes it at the end of its turn before the own thread has come round to look.
 * Then it gathers again, and computes. */
static void test_what_is_gathered_later_is_written_too(void)
{
    world w;
    begin(&w, 1);
    for (int i = 0; i < TRIES; i++) {
        CHECK(EVENTUALLY(atomic_load(&blocked)));
        rt_engine_gathered(&w.engine);
        rt_engine_drive(&w.engine, true);
        rest(3 * GRACE_NS);
        atomic_store(&w.left, 1);
        rt_engine_gathered(&w.engine);
        uint64_t start = rt_now();
        while (atomic_load(&w.left) && rt_now() < start + RT_SEC) rest(GRACE_NS / 5);
        CHECK(!atomic_load(&w.left));
    }
    end(&w);
}

TESTS(test_it_takes_over_after_a_grace_and_gives_way_again,
      test_where_nobody_promised_it_waits_for_nobody, test_it_is_not_woken_by_what_others_drive,
      test_it_takes_over_from_who_drove_for_long,
      test_what_is_gathered_waits_for_a_grace_alone,
      test_it_sleeps_when_nothing_happens, test_what_is_gathered_later_is_written_too)
