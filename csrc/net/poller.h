/* Purpose: readiness of file descriptors, behind one interface (epoll now).
 * Ownership: a source is embedded in its owner, which removes it before it
 * closes the descriptor or frees the memory.
 * Threads: one driver at a time (the engine's drive lock); rt_poller_fd may be
 * watched by anybody: it is readable while a source is ready.
 * Errors: RT_ESYS, RT_ENOMEM; RT_EFORK after rt_poller_after_fork. */
#ifndef RT_NET_POLLER_H
#define RT_NET_POLLER_H

#include "base/base.h"

#define RT_READABLE 1u
#define RT_WRITABLE 2u
#define RT_HANGUP 4u       /* error or hang-up; reported whether asked or not */

typedef struct rt_source rt_source;
struct rt_source {
    int fd;                /* -1 when not in a poller */
    uint32_t interest;
    void (*ready)(rt_source *s, uint32_t events);
};

typedef struct rt_poller rt_poller;

int rt_poller_new(rt_poller **out);
void rt_poller_free(rt_poller *p);
int rt_poller_fd(const rt_poller *p);
/* Level-triggered. interest may be 0 (only hang-ups). */
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
/* In the child of a fork, before its sources are removed: closes the descriptor,
 * touches nothing shared; removing a source is then a matter of memory alone. */
void rt_poller_after_fork(rt_poller *p);

#endif
