/* Purpose: host names to addresses without stopping the engine: numeric text
 * and "localhost" at once, everything else on a few threads of its own that
 * live only while there is work.
 * Ownership: a request is the caller's; it must be cancelled before it goes.
 * Threads: start, cancel and the callbacks run on the driver; the worker
 * threads touch only their own copies. A worker stuck in the system's resolver
 * delays neither stop nor free (it is left behind and cleans up after itself).
 * Limits: RT_RESOLVE_THREADS_MAX workers; the rest waits in line.
 * RT_RESOLVE_HOST_BYTES_MAX; more than RT_RESOLVE_ADDRESSES_MAX are cut off.
 * Errors: RT_ENOMEM, RT_ESYS, RT_EINVAL (empty or too long a host, unknown
 * family), RT_EFORK; an unknown host is told to the callback. */
#ifndef RT_NET_RESOLVE_H
#define RT_NET_RESOLVE_H

#include "base/base.h"
#include "net/poller.h"
#include "net/socket.h"

#define RT_RESOLVE_THREADS_MAX 4
#define RT_RESOLVE_ADDRESSES_MAX 8
#define RT_RESOLVE_HOST_BYTES_MAX 1024

typedef struct rt_resolve rt_resolve;
struct rt_resolve {
    void (*done)(rt_resolve *r, int rc);  /* RT_OK, or RT_ENOENT: unknown host (error text below) */
    uint32_t count;
    rt_address at[RT_RESOLVE_ADDRESSES_MAX];   /* port 0 */
    char error[96];                       /* the resolver's words */
    void *job;                            /* private */
};

typedef struct rt_resolver rt_resolver;

int rt_resolver_new(rt_resolver **out, rt_poller *p);   /* adds an eventfd source */
void rt_resolver_free(rt_resolver *r); /* no callback after this; allowed inside one */
/* In the child of a fork, before rt_resolver_free: the workers do not exist
 * there and the lock may be held for ever, so nothing shared is touched. */
void rt_resolver_after_fork(rt_resolver *r);
/* `host` is copied. family: AF_UNSPEC, AF_INET, AF_INET6. The callback always
 * comes later from the poller, never from inside start, also for numeric hosts. */
int rt_resolve_start(rt_resolver *r, rt_resolve *req, const char *host, int family);
/* The callback does not come any more; harmless when the request is not under
 * way (`job` is NULL: zero a request before its first use). */
void rt_resolve_cancel(rt_resolver *r, rt_resolve *req);
/* Blocking form for callers that may wait; any thread. Returns what the
 * callback would be given, or RT_EINVAL. */
int rt_resolve_now(rt_resolve *req, const char *host, int family);

#endif
