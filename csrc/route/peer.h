/* Purpose: the other nodes, by name: what is queued for each, what was
 * negotiated, what was counted. A peer outlives its connections.
 * Ownership: the table owns the peers until it is freed; pointers stay valid.
 * Threads: find, get and each take the table's lock; a peer's outgoing side is
 * under out.lock; cache and fragments belong to the driver that carries its
 * connection; counters are atomic and only ever count.
 * Limits: peers_max; queue_bytes_max.
 * Errors: RT_ELIMIT, RT_ENOMEM, RT_EINVAL (not a node name), RT_EFULL. */
#ifndef RT_ROUTE_PEER_H
#define RT_ROUTE_PEER_H

#include "base/atomic.h"
#include "base/limits.h"
#include "base/outq.h"
#include "base/pool.h"
#include "dist/atom_cache.h"
#include "dist/flags.h"
#include "dist/fragments.h"

enum rt_peer_state { RT_PEER_IDLE, RT_PEER_CONNECTING, RT_PEER_UP };

/* Every accepted message ends in exactly one of: written, dropped, queued. */
typedef struct rt_peer_counters {
    _Atomic uint64_t messages_in, bytes_in;     /* the driver's */
    _Atomic uint64_t messages_out, bytes_out;   /* accepted into the queue; under out.lock */
    _Atomic uint64_t dropped_out;               /* lost with a connection, or not expressible */
    _Atomic uint64_t dropped_in;                /* nobody there, or a full box */
    _Atomic uint64_t refused;                   /* queue at its hard limit; under out.lock */
    _Atomic uint64_t connects, failures;
    _Atomic uint64_t up_since;                  /* monotonic ns; 0 when down */
    _Atomic uint64_t heard;                     /* monotonic ns of the last read */
} rt_peer_counters;

typedef struct rt_peer {
    rt_outq out;
    uint32_t number;                /* 1.. in its table */
    rt_slice name;                  /* UTF-8 */
    rt_slice atom;                  /* the name as an external atom */
    _Atomic uint32_t state;         /* enum rt_peer_state; written under out.lock */
    uint64_t flags;                 /* common ones; under out.lock */
    uint32_t creation;
    bool header, fragment, legacy;  /* how frames are written; under out.lock */
    bool above_soft;                /* somebody may wait for the mark; under out.lock */
    uint64_t sequence;              /* next fragment sequence; under out.lock */
    rt_atom_cache *cache;           /* driver */
    rt_fragments *assembly;         /* driver */
    size_t placed_n;                /* driver; bytes of the packet of which a part is there */
    rt_pool *pool;                  /* its table's, for large messages both ways */
    struct rt_repeats *repeats;     /* driver: see repeat.h; NULL before the first message */
    rt_peer_counters count;
    uint8_t *cookie;                /* of its own, or NULL; under out.lock */
    size_t cookie_n;
    void *session;                  /* the attempt or connection, node's; the control's */
    void *carried;                  /* the connection while it is up; its driver's */
    _Atomic uint32_t driver;        /* which driver's it is: node/driver.c */
    struct rt_peer *next;           /* in a hash bucket */
} rt_peer;

typedef struct rt_peers rt_peers;

rt_peers *rt_peers_new(const rt_limits *limits);
void rt_peers_free(rt_peers *t);
rt_peer *rt_peers_find(rt_peers *t, rt_slice name);          /* NULL when unknown */
int rt_peers_get(rt_peers *t, rt_slice name, rt_peer **out); /* makes it when unknown */
uint32_t rt_peers_count(rt_peers *t);
rt_peer *rt_peers_at(rt_peers *t, uint32_t number);          /* 1..count */
rt_pool *rt_peers_pool(rt_peers *t);                         /* large memory of all of them */

/* The connection stands: takes over what was negotiated and rewrites what
 * waited for it. Driver only. */
int rt_peer_up(rt_peer *p, uint64_t flags, uint32_t creation, const rt_limits *limits);
/* Connecting or up, and more bytes wait for it. */
bool rt_peer_above(rt_peer *p, size_t bytes);
/* Up, and without one of these flags. */
bool rt_peer_lacks(rt_peer *p, uint64_t flags);
/* It is gone, or never came: what is queued is counted as dropped. Returns how
 * many messages that were. Driver only; nobody holds the transmit token. */
uint64_t rt_peer_down(rt_peer *p);
/* A cookie for this peer alone; n of 0 takes it away. RT_ENOMEM. */
int rt_peer_set_cookie(rt_peer *p, rt_slice cookie);
void rt_peer_set_state(rt_peer *p, enum rt_peer_state s);
RT_INLINE enum rt_peer_state rt_peer_state_of(const rt_peer *p)
{
    /* relaxed: a hint; decisions are taken again under out.lock */
    return (enum rt_peer_state)atomic_load_explicit(&((rt_peer *)p)->state, memory_order_relaxed);
}

/* Adds to a counter that has one writer at a time; readers see some recent value. */
RT_INLINE void rt_count_locked(_Atomic uint64_t *counter, uint64_t n)
{
    /* relaxed: it orders nothing. Not a read-modify-write, which costs twenty times as much */
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
                          memory_order_relaxed);
}

/* True for `name@host` with both parts present and at most 255 characters. */
bool rt_node_name_ok(rt_slice name);

#endif
