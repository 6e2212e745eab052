#define _GNU_SOURCE
#include "node/engine.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "net/conn.h"

/* Waits in vain, one after the other, and as many as that were left off: see rt_vigil. A wait in
 * vain for so many messages is rare enough not to be seen. */
enum { VAIN_MAX = 1024 };

static void wake_ready(rt_source *s, uint32_t events)
{
    rt_engine *e = RT_CONTAINER_OF(s, rt_engine, wake);
    uint64_t n;
    (void)events;
    ssize_t k = read(s->fd, &n, sizeof n);
    (void)k; /* empty is fine: another round has read it */
    /* seq_cst pairs with the exchange in rt_engine_wake: a waker that still saw
     * 1 wrote its news before this store, and the turn that follows reads it. */
    atomic_store_explicit(&e->woken, 0, memory_order_seq_cst);
}

void rt_engine_wake(rt_engine *e)
{
    uint64_t one = 1;
    /* seq_cst: see wake_ready. */
    if (atomic_exchange_explicit(&e->woken, 1, memory_order_seq_cst)) return;
    ssize_t k = write(e->wake.fd, &one, sizeof one);
    (void)k; /* the counter cannot overflow with one writer per reading */
}

static void wake_own_thread(rt_engine *e)
{
    uint64_t one = 1;
    ssize_t k = write(e->own_fd, &one, sizeof one);
    (void)k; /* as in rt_engine_wake */
}

void rt_engine_gathered_first(rt_engine *e)
{
    /* seq_cst, both: either doze sees the first, or this sees the second. */
    if (atomic_exchange_explicit(&e->gathered, 1, memory_order_seq_cst)) return;
    if (atomic_exchange_explicit(&e->dozing, 0, memory_order_seq_cst)) wake_own_thread(e);
}

int rt_engine_fd(const rt_engine *e) { return rt_poller_fd(e->poller); }

int rt_engine_init(rt_engine *e, enum rt_engine_mode mode, enum rt_poller_kind poller,
                   void (*turn)(rt_engine *e))
{
    if (poller == RT_POLLER_URING && mode != RT_ENGINE_THREAD) return RT_EINVAL;
    memset(e, 0, sizeof *e);
    e->mode = mode;
    e->turn = turn;
    e->wake.fd = e->own_fd = -1;
    e->wake.ready = wake_ready;
    int rc = pthread_mutex_init(&e->drive, NULL) == 0 ? RT_OK : RT_ENOMEM;
    if (rc < 0) return rc;
    e->read_buffer = rt_malloc(RT_READ_BUFFER_BYTES);
    rc = e->read_buffer ? rt_poller_new(&e->poller, poller) : RT_ENOMEM;
    if (rc == RT_OK && mode != RT_ENGINE_THREAD) rt_poller_limit(e->poller, RT_ENGINE_READ_BYTES);
    if (rc == RT_OK) rc = rt_timers_new(&e->timers, e->poller);
    if (rc < 0) goto fail;
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    rc = fd < 0 ? RT_ESYS : rt_poller_add(e->poller, &e->wake, fd, RT_READABLE);
    if (rc < 0) {
        if (fd >= 0) close(fd);
        goto fail;
    }
    e->own_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (e->own_fd >= 0) return RT_OK;
    rc = RT_ESYS;
fail:
    rt_engine_fini(e);
    return rc;
}

void rt_engine_fini(rt_engine *e)
{
    RT_ASSERT(!e->has_thread);
    int fd = e->wake.fd;
    if (fd >= 0) {
        rt_poller_remove(e->poller, &e->wake);
        close(fd);
    }
    if (e->own_fd >= 0) close(e->own_fd);
    e->own_fd = -1;
    if (e->timers) rt_timers_free(e->timers);
    if (e->poller) rt_poller_free(e->poller);
    e->timers = NULL;
    e->poller = NULL;
    rt_free(e->read_buffer);
    e->read_buffer = NULL;
    pthread_mutex_destroy(&e->drive);
}

bool rt_engine_is_driver(rt_engine *e)
{
    /* relaxed: only a thread's own value can compare equal */
    return atomic_load_explicit(&e->driver, memory_order_relaxed) == (unsigned long)pthread_self();
}

static bool stopping(rt_engine *e)
{
    /* acquire pairs with the release in rt_engine_stop */
    return atomic_load_explicit(&e->stopping, memory_order_acquire) != 0;
}

/* The lock is held. */
static int round_locked(rt_engine *e, uint64_t timeout_ns)
{
    /* relaxed: see rt_engine_is_driver */
    atomic_store_explicit(&e->driver, (unsigned long)pthread_self(), memory_order_relaxed);
    int n = rt_poller_wait(e->poller, timeout_ns, RT_ENGINE_EVENTS_MAX);
    if (e->vigil.ns && rt_poller_spent(e->poller))
        atomic_store_explicit(&e->vigil.heard, 1, memory_order_relaxed); /* a hint */
    rt_timers_run(e->timers, rt_now());
    e->turn(e);
    rt_timers_arm(e->timers);
    atomic_store_explicit(&e->driver, 0, memory_order_relaxed); /* see above */
    return n;
}

int rt_engine_drive(rt_engine *e, bool told)
{
    if (e->mode == RT_ENGINE_THREAD) return RT_EBUSY;
    int n = RT_EBUSY;
    if (pthread_mutex_trylock(&e->drive) == 0) {
        if (told) rt_poller_told(e->poller);
        n = round_locked(e, 0);
        pthread_mutex_unlock(&e->drive);
    }
    rt_engine_beat(e); /* after: what the own thread saw waiting before it is done with */
    return n;
}

/* Relaxed, all of it: hints, of which a lost one costs a wait. What was heard is announced
 * elsewhere. */
bool rt_engine_expects(rt_engine *e)
{
    rt_vigil *v = &e->vigil;
    if (!v->ns || !atomic_exchange_explicit(&v->heard, 0, memory_order_relaxed)) return false;
    if (atomic_load_explicit(&v->on, memory_order_relaxed)) {
        uint32_t vain = atomic_load_explicit(&v->vain, memory_order_relaxed);
        atomic_store_explicit(&v->vain, vain / 2, memory_order_relaxed);
        return true;
    }
    uint32_t skip = atomic_load_explicit(&v->skip, memory_order_relaxed);
    atomic_store_explicit(&v->skip, skip ? skip - 1 : 0, memory_order_relaxed);
    atomic_store_explicit(&v->on, skip == 0, memory_order_relaxed);
    return skip == 0;
}

void rt_engine_give_up(rt_engine *e)
{
    rt_vigil *v = &e->vigil;
    uint32_t vain = 2 * atomic_load_explicit(&v->vain, memory_order_relaxed); /* see above */
    if (vain == 0) vain = 1;
    if (vain > VAIN_MAX) vain = VAIN_MAX;
    atomic_store_explicit(&v->vain, vain, memory_order_relaxed);
    atomic_store_explicit(&v->skip, vain, memory_order_relaxed);
    atomic_store_explicit(&v->on, 0, memory_order_relaxed);
}

/* Whether who stays awake has something to look at. */
static bool called(rt_engine *e, const rt_notifier *n)
{
    return atomic_load_explicit(&e->vigil.heard, memory_order_relaxed) || /* a hint */
           rt_notifier_rung(n) || stopping(e);
}

int rt_engine_busy_wait(rt_engine *e, const rt_notifier *n, uint64_t ns)
{
    uint64_t end = rt_now() + ns;
    while (!called(e, n)) {
        /* Each round takes the lock anew: another thread may want to drive, or to stop. */
        if (rt_engine_drive(e, false) == RT_EBUSY) rt_cpu_relax();
        if (rt_now() >= end) return called(e, n) ? RT_OK : RT_ETIME;
    }
    return RT_OK;
}

void rt_engine_enter(rt_engine *e)
{
    rt_engine_wake(e);
    pthread_mutex_lock(&e->drive);
    atomic_store_explicit(&e->driver, (unsigned long)pthread_self(),
                          memory_order_relaxed); /* see rt_engine_is_driver */
}

void rt_engine_leave(rt_engine *e)
{
    atomic_store_explicit(&e->driver, 0, memory_order_relaxed); /* see rt_engine_is_driver */
    pthread_mutex_unlock(&e->drive);
}

void rt_engine_promise(rt_engine *e, int more)
{
    /* relaxed: a hint for the own thread; being late costs one grace period */
    atomic_fetch_add_explicit(&e->promised, (uint32_t)more, memory_order_relaxed);
}

/* After a grace: true when something that was gathered waits still. While it does,
 * nobody needs to wake this thread for more of it. */
static bool left_over(rt_engine *e)
{
    atomic_store_explicit(&e->gathered, 0, memory_order_relaxed); /* see rt_engine_gathered */
    if (!e->waiting(e)) return false;
    atomic_store_explicit(&e->gathered, 1, memory_order_relaxed);
    return true;
}

/* Sleeps until there is something to drive (the first of these), or to look after, or so long. The
 * wake descriptor would not do for that: who drives may have read it before this thread gets a
 * processor. */
static int doze(rt_engine *e, struct pollfd *fds, nfds_t count, int ms)
{
    /* seq_cst, both: see rt_engine_gathered_first. */
    atomic_store_explicit(&e->dozing, 1, memory_order_seq_cst);
    bool gathered = atomic_load_explicit(&e->gathered, memory_order_seq_cst);
    int n = poll(fds, count, gathered ? 0 : ms);
    atomic_store_explicit(&e->dozing, 0, memory_order_relaxed); /* else it is told once in vain */
    return n;
}

/* Sleeps until there is something to drive, and once there was and others drive, looks whether they
 * do so still, after a grace, and then less and less often: to be woken by each packet beside them,
 * or in the middle of what a packet makes a processor do, costs a round trip more than that. */
static void watch(rt_engine *e)
{
    uint64_t seen = UINT64_MAX;     /* beats at the last look that found something, */
    uint64_t last = 0;              /* and at the last */
    bool looking = false;
    int trust = RT_ENGINE_GRACE_MS; /* until the next look; doubled while others drive */
    int next = trust;
    struct pollfd fds[2] = {{.fd = rt_engine_fd(e), .events = POLLIN},
                            {.fd = e->own_fd, .events = POLLIN}};
    while (!stopping(e)) {
        bool gathered = atomic_load_explicit(&e->gathered, memory_order_relaxed); /* a hint */
        if (gathered) poll(fds + 1, 1, RT_ENGINE_GRACE_MS);
        else if (looking) doze(e, fds + 1, 1, next);
        int n = looking || gathered ? poll(fds, 2, 0) : doze(e, fds, 2, -1);
        if (n < 0 && errno != EINTR) return;
        uint64_t told;
        if (n > 0 && fds[1].revents) {
            ssize_t k = read(e->own_fd, &told, sizeof told);
            (void)k; /* what it was told for is asked above */
        }
        uint64_t beats = atomic_load_explicit(&e->beats, memory_order_relaxed); /* see beat */
        bool ready = n > 0 && fds[0].revents & POLLIN;
        /* Nobody has promised to drive (a hint), or nobody has for a grace, or longer. */
        bool act = ready && (atomic_load_explicit(&e->promised, memory_order_relaxed) == 0 ||
                             beats == seen);
        looking = !act && (ready || (looking && beats != last));
        if (!looking || beats == last) trust = RT_ENGINE_GRACE_MS;
        else if (trust < RT_ENGINE_LOOK_MS_MAX) trust *= 2;
        next = ready ? RT_ENGINE_GRACE_MS : trust;
        last = beats;
        if (ready) seen = beats;
        if (!act && !(gathered && left_over(e))) continue;
        if (pthread_mutex_trylock(&e->drive) != 0) { /* somebody drives after all */
            looking = true;
            continue;
        }
        round_locked(e, 0);
        /* Much has come for somebody who is busy, or waits for a processor: each further portion
         * waits for its own grace, or would wait in memory. */
        if (rt_poller_sated(e->poller)) seen = UINT64_MAX;
        pthread_mutex_unlock(&e->drive);
    }
}

static void *engine_main(void *arg)
{
    rt_engine *e = arg;
    if (e->mode == RT_ENGINE_AUTO) {
        watch(e);
        return NULL;
    }
    uint64_t awake_until = 0; /* 0: it sleeps when there is nothing */
    while (!stopping(e)) {
        pthread_mutex_lock(&e->drive);
        round_locked(e, awake_until ? 0 : UINT64_MAX);
        pthread_mutex_unlock(&e->drive);
        if (rt_engine_expects(e)) {
            awake_until = rt_now() + e->vigil.ns;
        } else if (awake_until && rt_now() >= awake_until) {
            rt_engine_give_up(e);
            awake_until = 0;
        }
    }
    pthread_mutex_lock(&e->drive);
    rt_poller_leave(e->poller);
    pthread_mutex_unlock(&e->drive);
    return NULL;
}

int rt_engine_start(rt_engine *e)
{
    if (e->mode == RT_ENGINE_INLINE) return RT_OK;
    sigset_t all, old;
    sigfillset(&all);
    /* Signals belong to the program's own threads. */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = pthread_create(&e->thread, NULL, engine_main, e);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc != 0) {
        errno = rc;
        return RT_ESYS;
    }
    e->has_thread = true;
    return RT_OK;
}

void rt_engine_stop(rt_engine *e)
{
    /* release pairs with the acquire in stopping() */
    atomic_store_explicit(&e->stopping, 1, memory_order_release);
    wake_own_thread(e);
    rt_engine_wake(e);
    if (!e->has_thread) return;
    pthread_join(e->thread, NULL);
    e->has_thread = false;
}

/* Blocks until the notifier or the engine has something; drives in that case. */
static int sleep_and_drive(rt_engine *e, rt_notifier *n, uint64_t timeout_ns)
{
    struct pollfd fds[2] = {{.fd = rt_notifier_fd(n), .events = POLLIN},
                            {.fd = rt_engine_fd(e), .events = POLLIN}};
    struct timespec ts = {(time_t)(timeout_ns / RT_SEC), (long)(timeout_ns % RT_SEC)};
    int k = ppoll(fds, 2, timeout_ns == UINT64_MAX ? NULL : &ts, NULL);
    if (k > 0 && fds[1].revents && !stopping(e)) {
        /* Waiting for the lock is short: nobody sleeps with it in this mode. */
        pthread_mutex_lock(&e->drive);
        rt_poller_told(e->poller);
        if (!stopping(e)) round_locked(e, 0);
        pthread_mutex_unlock(&e->drive);
    }
    rt_engine_beat(e); /* see rt_engine_drive */
    return k == 0 ? RT_ETIME : RT_OK;
}

int rt_engine_wait(rt_engine *e, rt_notifier *n, uint64_t timeout_ns)
{
    if (e->mode == RT_ENGINE_THREAD) return rt_notifier_wait(n, timeout_ns);
    int rc = RT_ETIME;
    rt_engine_promise(e, 1);
    if (rt_engine_expects(e)) {
        uint64_t ns = timeout_ns < e->vigil.ns ? timeout_ns : e->vigil.ns;
        rc = rt_engine_busy_wait(e, n, ns);
        if (rc == RT_ETIME) {
            rt_engine_give_up(e);
            /* A signal that came meanwhile ends no sleep: the caller looks first, and comes again. */
            if (ns < timeout_ns) rc = RT_OK;
        }
        timeout_ns -= ns;
    }
    if (rc == RT_ETIME) rc = sleep_and_drive(e, n, timeout_ns);
    rt_engine_promise(e, -1);
    if (rc == RT_ETIME) return rc;
    rt_notifier_wait(n, 0); /* clears it */
    return RT_OK;
}

void rt_engine_after_fork(rt_engine *e)
{
    if (e->wake.fd >= 0) close(e->wake.fd);
    if (e->own_fd >= 0) close(e->own_fd);
    e->wake.fd = e->own_fd = -1;
    if (e->poller) rt_poller_after_fork(e->poller);
    if (e->timers) rt_timers_after_fork(e->timers);
    e->timers = NULL;
}
