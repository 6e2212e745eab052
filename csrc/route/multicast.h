/* Purpose: one packet for several processes of this node. The payload is
 * `{multicast, [Pid], Term}` and goes to the process that is registered as RT_MULTICAST_NAME
 * and that the node has named as its multicaster; each of the pids gets Term, in the packet's
 * place among what its sender sends. Only a node that has said that it has a multicaster is
 * sent this. What else that process gets is a message to it like any other.
 * Ownership: borrows from the payload, which is validated and without atom references.
 * Threads: none. Limits: multicast_bytes_max, checked by the caller, bounds the copies. */
#ifndef RT_ROUTE_MULTICAST_H
#define RT_ROUTE_MULTICAST_H

#include "base/buf.h"
#include "base/cursor.h"
#include "route/route.h"

/* By name and not by pid: see outbound.c, which must know it from other messages. */
#define RT_MULTICAST_NAME "router_multicast"
/* What a copy counts beside its term, against multicast_bytes_max. */
#define RT_MULTICAST_COPY_BYTES 64u

typedef struct rt_multicast {
    rt_cursor pids;
    uint32_t count;          /* of them, from the cursor on */
    rt_slice term;
} rt_multicast;

/* False when the payload is something else. */
bool rt_multicast_read(rt_slice payload, rt_multicast *out);
/* The next of the pids; 0 when it is no process of this incarnation of this node. */
rt_pid rt_multicast_next(rt_multicast *m, const rt_route *r);
/* Whether a term may be one level further down than it is: the payload is read as one term. */
bool rt_multicast_fits(rt_slice term, uint32_t depth_max);
/* Writes the payload up to the term, which follows; `pids`: canonical, one after the other. */
int rt_multicast_put(rt_buf *b, rt_slice pids, uint32_t count);

#endif
