/* Purpose: what routing works with: one node's tables and identity.
 * Ownership: the node owns everything here and outlives its routes.
 * Threads: the tables carry their own rules; the identity is fixed before the
 * first message, except creation, which a port mapper may change while the
 * node has no connection yet. */
#ifndef RT_ROUTE_ROUTE_H
#define RT_ROUTE_ROUTE_H

#include "base/atomic.h"
#include "base/limits.h"
#include "proc/registry.h"
#include "proc/relation.h"
#include "route/peer.h"

typedef struct rt_route rt_route;

struct rt_route {
    rt_limits limits;
    rt_slice name;               /* of this node, UTF-8 */
    rt_slice atom;               /* as an external atom */
    uint32_t creation;
    rt_registry *registry;
    rt_relations *relations;
    rt_peers *peers;
    _Atomic uint64_t unlink_ids; /* the last one given out */
    _Atomic uint64_t undeliverable; /* local sends to nobody */
    _Atomic rt_pid spawner;      /* who answers spawn requests; 0: nobody, then it is notsup */
    _Atomic rt_pid multicaster;  /* see multicast.h; 0: there is none */
    bool relay;                  /* forward what is for other nodes */
    /* Something was queued for the peer: see that it gets written. Any thread. */
    void (*kick)(rt_route *r, rt_peer *p);
    /* A bounded box is full and wants its peer to pause, or must be closed
     * (`RT_OVERFLOW_CLOSE`). Driver; any thread, and from within any of route/, when
     * the peer is NULL: then a signal found the box full, and closing waits until
     * nothing of route/ is under way. */
    void (*overflow)(rt_route *r, rt_peer *p, rt_pid pid, bool close, uint64_t bytes);
    /* That process has ended; `p` was its slot and may be another's. Any thread. */
    void (*ended)(rt_route *r, const rt_process *p, rt_pid pid);
};

/* The canonical bytes of a local pid: at most RT_PID_BYTES_MAX. */
#define RT_PID_BYTES_MAX (RT_NODE_NAME_BYTES_MAX + 16u)
#define RT_REF_BYTES_MAX (RT_NODE_NAME_BYTES_MAX + 32u)
size_t rt_route_pid(const rt_route *r, rt_pid pid, uint8_t out[RT_PID_BYTES_MAX]);
/* The local process an external pid names: RT_OK with *out; RT_ENOENT when it
 * is of this node but an older creation; RT_ENOTCONN when it is of another
 * node; RT_EBAD when it is not a pid. */
int rt_route_local(const rt_route *r, rt_slice pid, rt_pid *out);
/* Any thread; 0: nobody any more. */
RT_INLINE void rt_route_set_spawner(rt_route *r, rt_pid pid)
{
    /* relaxed: a pid on its own, looked up by whoever reads it */
    atomic_store_explicit(&r->spawner, pid, memory_order_relaxed);
}
RT_INLINE void rt_route_set_multicaster(rt_route *r, rt_pid pid)
{
    /* relaxed: as the spawner */
    atomic_store_explicit(&r->multicaster, pid, memory_order_relaxed);
}
/* Counts what was sent to a local process that does not exist. */
void rt_route_undeliverable(rt_route *r, uint64_t n);

#endif
