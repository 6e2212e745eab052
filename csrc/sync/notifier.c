/* No wake-up is lost. A producer publishes its news (the entry in `pile`, or for
 * a poke whatever the caller wrote) and then sets NEWS in `bell` by an RMW. The
 * consumer's hush and rest are RMWs on `bell` too, so the producer's stands
 * either before or after each of them in the order of that one variable:
 *   - before a hush or rest after which the consumer looks: that RMW acquires
 *     the producer's release, and the look finds the news;
 *   - between hush and rest: rest sees NEWS and returns true: the consumer looks;
 *   - after the rest that precedes sleep: the first such producer finds 0 and
 *     writes the eventfd, which nobody reads before the next hush (N2), so the
 *     sleep ends, or does not begin.
 * N2 is why rest reads the eventfd before it leaves HUSH: a read after that
 * could swallow the write of a producer that has set NEWS already, and then
 * everybody would rely on a write that is gone.
 * A producer may be slow between setting NEWS and writing. The write then comes
 * after the consumer has looked and rested, and is a spurious wake-up. `owed`
 * remembers it, so that a later rest reads it away and a level-triggered loop
 * does not spin, while a rest with nothing owed spares the system call. */
#define _GNU_SOURCE /* ppoll */
#include "sync/notifier.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"

enum { BELL_NEWS = 1, BELL_HUSH = 2 };           /* bits of bell */

#define READY_BITS ((uintptr_t)(RT_READY_QUEUED | RT_READY_ORPHAN))
/* Fewer forgotten entries than this are left for next() to pass over. */
#define ORPHANS_MIN 32u

struct rt_notifier {
    _Alignas(RT_CACHE_LINE) rt_pile pile;   /* claimed entries not yet seen by the consumer */
    _Atomic uint32_t bell;
    _Alignas(RT_CACHE_LINE) _Atomic uint32_t refs;
    int fd;
    uint64_t owed;                          /* consumer's */
    pthread_mutex_t lock;                   /* guards the rest */
    rt_link *first, *last;                  /* entries in order, oldest first */
    uint32_t count, orphans;
};

RT_INLINE rt_ready *ready_of(rt_link *l) { return RT_CONTAINER_OF(l, rt_ready, link); }

int rt_notifier_new(rt_notifier **out) {
    int fd;
    rt_notifier *n = rt_aligned(RT_CACHE_LINE, sizeof *n);
    if (!n) return RT_ENOMEM;
    memset(n, 0, sizeof *n);
    fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (fd < 0) {
        int keep = errno;
        rt_free(n);
        errno = keep;
        return RT_ESYS;
    }
    n->fd = fd;
    pthread_mutex_init(&n->lock, NULL);   /* cannot fail with default attributes */
    atomic_init(&n->refs, 1);
    *out = n;
    return RT_OK;
}

void rt_notifier_hold(rt_notifier *n) {
    /* Relaxed: a new count comes from an existing one. */
    atomic_fetch_add_explicit(&n->refs, 1, memory_order_relaxed);
}

/* Moves what producers put on the pile to the end of the list. Locked. */
static void collect(rt_notifier *n) {
    rt_link *newest, *l = rt_pile_take(&n->pile, &newest);
    if (!l) return;
    if (n->last) n->last->next = l;
    else n->first = l;
    n->last = newest;
    for (; l; l = l->next) n->count++;
}

static rt_link *pop_first(rt_notifier *n) {
    rt_link *l = n->first;
    if (!l) return NULL;
    n->first = l->next;
    if (!n->first) n->last = NULL;
    n->count--;
    return l;
}

/* Makes the entry idle; from here on it may be claimed again, so its link must
 * not be used any more. Returns the bits it had. acq_rel: acquires from mark's
 * RMW (what it announced is seen after next), releases to rt_ready_idle. */
static uintptr_t settle(rt_notifier *n, rt_link *l) {
    uintptr_t was = atomic_exchange_explicit(&ready_of(l)->state, 0, memory_order_acq_rel);
    RT_ASSERT(was & RT_READY_QUEUED);
    if (was & RT_READY_ORPHAN) n->orphans--;
    return was;
}

void rt_notifier_rele(rt_notifier *n) {
    rt_link *l;
    if (!n) return;
    /* acq_rel: what every other holder did happens before the freeing. */
    if (atomic_fetch_sub_explicit(&n->refs, 1, memory_order_acq_rel) != 1) return;
    collect(n);
    while ((l = pop_first(n))) settle(n, l);
    if (n->fd >= 0) {
        close(n->fd);
        pthread_mutex_destroy(&n->lock);
    }
    rt_free(n);
}

int rt_notifier_fd(const rt_notifier *n) { return n->fd; }

/* Rings after the news were published. */
static void ring(rt_notifier *n) {
    /* acq_rel: releases the news to hush's and rest's acquire. Always an RMW: a
     * plain load could read an older NEWS that the consumer has taken away. */
    uint32_t was = atomic_fetch_or_explicit(&n->bell, BELL_NEWS, memory_order_acq_rel);
    if (was == 0 && n->fd >= 0) {
        uint64_t one = 1;
        ssize_t done;
        do {
            done = write(n->fd, &one, sizeof one);
        } while (done < 0 && errno == EINTR);
        /* EAGAIN would need 2^64 - 2 writes unread. */
        RT_ASSERT(done == (ssize_t)sizeof one);
    }
}

void rt_notifier_poke(rt_notifier *n) { ring(n); }

void rt_notifier_mark(rt_notifier *n, rt_ready *r) {
    /* acq_rel: the caller's news are released to next's exchange, also when the
     * entry stands in the list already and nothing else is to be done. */
    uintptr_t was = atomic_fetch_or_explicit(&r->state, RT_READY_QUEUED, memory_order_acq_rel);
    if (was & RT_READY_QUEUED) return;
    RT_ASSERT(was == 0 || was == (uintptr_t)n);
    rt_pile_push(&n->pile, &r->link, &r->link);
    ring(n);
    if (was) rt_notifier_rele((rt_notifier *)was);   /* it was armed: its count is ours */
}

void rt_notifier_arm(rt_notifier *n, rt_ready *r) {
    uintptr_t was = 0;
    RT_ASSERT(((uintptr_t)n & READY_BITS) == 0);
    rt_notifier_hold(n);
    /* seq_cst: partner of the load in fire. The owner looks for news after this. */
    if (!atomic_compare_exchange_strong_explicit(&r->state, &was, (uintptr_t)n,
                                                 memory_order_seq_cst, memory_order_seq_cst)) {
        RT_ASSERT((was & RT_READY_QUEUED) || was == (uintptr_t)n);
        rt_notifier_rele(n);
    }
}

bool rt_notifier_disarm(rt_ready *r) {
    uintptr_t was = atomic_load_explicit(&r->state, memory_order_acquire);
    if (was == 0) return true;
    if (was & RT_READY_QUEUED) return false;
    /* acquire: partner of mark and fire, when one of them came first. */
    if (!atomic_compare_exchange_strong_explicit(&r->state, &was, 0, memory_order_acq_rel,
                                                 memory_order_acquire))
        return was == 0;
    rt_notifier_rele((rt_notifier *)was);
    return true;
}

void rt_ready_claim(rt_ready *r, uintptr_t was) {
    rt_notifier *n = (rt_notifier *)was;
    /* acq_rel: takes over the count of n that arm left here. A failure means
     * that another has claimed it or that the owner is awake and disarmed it. */
    if (!atomic_compare_exchange_strong_explicit(&r->state, &was, was | RT_READY_QUEUED,
                                                 memory_order_acq_rel, memory_order_relaxed))
        return;
    rt_pile_push(&n->pile, &r->link, &r->link);
    ring(n);
    rt_notifier_rele(n);
}

rt_ready *rt_notifier_next(rt_notifier *n) {
    rt_link *l;
    pthread_mutex_lock(&n->lock);
    if (!n->first) collect(n);
    while ((l = pop_first(n))) {
        if (!(settle(n, l) & RT_READY_ORPHAN)) break;
        if (!n->first) collect(n);
    }
    pthread_mutex_unlock(&n->lock);
    return l ? ready_of(l) : NULL;
}

/* Takes every forgotten entry out of the list. Locked. */
static void purge_locked(rt_notifier *n) {
    rt_link **at = &n->first;
    n->last = NULL;
    while (*at) {
        rt_link *l = *at;
        /* Relaxed: ORPHAN is set under the lock alone. */
        if (atomic_load_explicit(&ready_of(l)->state, memory_order_relaxed) & RT_READY_ORPHAN) {
            *at = l->next;
            n->count--;
            settle(n, l);
        } else {
            n->last = l;
            at = &l->next;
        }
    }
}

void rt_notifier_purge(rt_notifier *n) {
    pthread_mutex_lock(&n->lock);
    collect(n);
    if (n->orphans) purge_locked(n);
    pthread_mutex_unlock(&n->lock);
}

bool rt_notifier_forget(rt_notifier *n, rt_ready *r) {
    uintptr_t s;
    bool idle;
    pthread_mutex_lock(&n->lock);
    collect(n);
    s = atomic_load_explicit(&r->state, memory_order_acquire);
    if ((s & RT_READY_QUEUED) && n->first == &r->link) {
        settle(n, pop_first(n));
    } else if ((s & RT_READY_QUEUED) && !(s & RT_READY_ORPHAN)) {
        /* Relaxed: read under the lock. Claimed, so nobody else writes state. */
        atomic_fetch_or_explicit(&r->state, RT_READY_ORPHAN, memory_order_relaxed);
        n->orphans++;
        /* A pass over the list costs its length: pay it once per many. */
        if (n->orphans >= ORPHANS_MIN && n->orphans >= n->count / 2) purge_locked(n);
    }
    idle = rt_ready_idle(r);
    pthread_mutex_unlock(&n->lock);
    return idle;
}

/* Notes announced writes that an exchange on the bell has taken note of. */
static bool note(rt_notifier *n, uint32_t was) {
    if (was == BELL_NEWS) n->owed++;   /* NEWS on a quiet bell: somebody writes once */
    return (was & BELL_NEWS) != 0;
}

void rt_notifier_hush(rt_notifier *n) {
    /* acq_rel: partner of ring. */
    note(n, atomic_exchange_explicit(&n->bell, BELL_HUSH, memory_order_acq_rel));
}

bool rt_notifier_rest(rt_notifier *n) {
    /* Makes sure of HUSH before the read (N2), also for who did not hush. */
    bool news = note(n, atomic_exchange_explicit(&n->bell, BELL_HUSH, memory_order_acq_rel));
    if (n->owed && n->fd >= 0) {
        uint64_t writes;
        ssize_t got;
        do {
            got = read(n->fd, &writes, sizeof writes);
        } while (got < 0 && errno == EINTR);
        if (got == (ssize_t)sizeof writes) {
            RT_ASSERT(writes <= n->owed);
            n->owed -= writes;
        }
    }
    /* acq_rel: partner of ring; from here the next ring writes. */
    news |= note(n, atomic_exchange_explicit(&n->bell, 0, memory_order_acq_rel));
    return news;
}

bool rt_notifier_rung(const rt_notifier *n) {
    /* Relaxed: a hint; the hush before the look acquires what was announced. */
    return (atomic_load_explicit(&((rt_notifier *)n)->bell, memory_order_relaxed) & BELL_NEWS) != 0;
}

int rt_notifier_wait(rt_notifier *n, uint64_t timeout_ns) {
    struct pollfd pfd = {.fd = n->fd, .events = POLLIN};
    struct timespec ts, *limit = NULL;
    int rc;
    /* Relaxed: only the consumer sets and clears HUSH. */
    if (atomic_load_explicit(&n->bell, memory_order_relaxed) & BELL_HUSH) {
        if (rt_notifier_rest(n)) return RT_OK;
    }
    if (timeout_ns != UINT64_MAX) {
        ts.tv_sec = (time_t)(timeout_ns / RT_SEC);
        ts.tv_nsec = (long)(timeout_ns % RT_SEC);
        limit = &ts;
    }
    rc = ppoll(&pfd, 1, limit, NULL);
    if (rc == 0) return RT_ETIME;
    /* Readable, or a signal (then the caller looks, and may handle it). */
    rt_notifier_rest(n);
    return RT_OK;
}

void rt_notifier_after_fork(rt_notifier *n) {
    if (n->fd >= 0) close(n->fd);
    n->fd = -1;   /* the lock may be held by a thread that is not here: never taken again */
}
