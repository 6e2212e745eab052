/* Purpose: readiness of file descriptors, behind one interface: epoll, or io_uring
 * where it was built in and the kernel permits it.
 * Ownership: a source is embedded in its owner, which removes it before it
 * closes the descriptor or frees the memory.
 * Threads: one driver at a time (the engine's drive lock). With io_uring one thread
 * alone may wait, the first that does; whoever holds the lock may do the rest, and
 * it takes effect when that thread waits next. rt_poller_fd may be watched by
 * anybody: it is readable while a source is ready (epoll alone).
 * Errors: RT_ESYS, RT_ENOMEM; RT_EFORK after rt_poller_after_fork. A descriptor that
 * cannot be watched: epoll's add says so, io_uring gives its source RT_HANGUP. */
#ifndef RT_NET_POLLER_H
#define RT_NET_POLLER_H

#include "base/base.h"

#define RT_READABLE 1u
#define RT_WRITABLE 2u
#define RT_HANGUP 4u       /* error or hang-up; reported whether asked or not */
#define RT_EDGE 8u         /* news alone, not what is there still: see rt_poller_edges */

typedef struct rt_source rt_source;
struct rt_source {
    int fd;                /* -1 when not in a poller */
    uint32_t interest;
    uint32_t slot;         /* the poller's */
    void (*ready)(rt_source *s, uint32_t events);
};

enum rt_poller_kind { RT_POLLER_EPOLL, RT_POLLER_URING };

typedef struct rt_poller rt_poller;

/* RT_OK, or why there can be no such poller: RT_EINVAL, this build has none; RT_ESYS, the
 * kernel refuses (EPERM), has none (ENOSYS), or is older than what is needed (EINVAL). */
int rt_poller_usable(enum rt_poller_kind kind);
int rt_poller_new(rt_poller **out, enum rt_poller_kind kind); /* errors: as of rt_poller_usable */
void rt_poller_free(rt_poller *p);
int rt_poller_fd(const rt_poller *p);
/* It knows RT_EDGE: epoll alone. Where a limit leaves such a source for the next wait, rt_poller_fd
 * does not tell of it: there must be something else that wakes, as a timer. */
bool rt_poller_edges(const rt_poller *p);
/* Level-triggered, without RT_EDGE. interest may be 0 (only hang-ups). The descriptor does not
 * block: what an event says may be over by the time it is given, and epoll guesses: see
 * rt_poller_told. */
int rt_poller_add(rt_poller *p, rt_source *s, int fd, uint32_t interest);
int rt_poller_modify(rt_poller *p, rt_source *s, uint32_t interest); /* no call when unchanged */
/* Safe inside a ready callback, also for other sources of the same batch:
 * a removed source is never called again. Sets s->fd = -1; does not close. */
void rt_poller_remove(rt_poller *p, rt_source *s);
/* Waits at most timeout_ns (0: not at all; UINT64_MAX: for ever) and calls
 * ready for each source that is; at most `max` of them, so that a call is
 * bounded. Returns how many, or RT_ESYS. EINTR counts as none. Not to be called
 * from a ready callback. Of events that an earlier callback of the batch has
 * lost interest in, none is given. */
int rt_poller_wait(rt_poller *p, uint64_t timeout_ns, int max);
/* Somebody saw rt_poller_fd readable, and comes again as long as it is. The next wait, which waits
 * for nothing, may then call the source that alone brought something the last time
 * (rt_poller_spend), whether or not it has more, and the others only if it has not: epoll alone. */
void rt_poller_told(rt_poller *p);
/* What the sources of one wait should bring, in bytes, all together; 0, as it begins: whatever
 * there is. When they have brought it, the others that are ready are the first of the next wait,
 * which then waits for nothing. epoll alone. */
void rt_poller_limit(rt_poller *p, size_t bytes);
/* A source has brought so many. False: with them the limit is reached. */
bool rt_poller_spend(rt_poller *p, size_t bytes);
bool rt_poller_sated(const rt_poller *p);   /* it was reached, in this wait or the last */
size_t rt_poller_spent(const rt_poller *p); /* what they have brought, in this wait or the last */
/* By the thread that waited, when it will not wait again: the kernel lets go of the
 * descriptors, so that closing them afterwards closes them, whoever does it. */
void rt_poller_leave(rt_poller *p);
/* In the child of a fork, before its sources are removed: closes the descriptor,
 * touches nothing shared; removing a source is then a matter of memory alone. */
void rt_poller_after_fork(rt_poller *p);

#endif
