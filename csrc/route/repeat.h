/* Purpose: the heads of frames that went to a local process, and to which. Senders repeat
 * themselves: a frame that begins with the same bytes goes to the same process without being parsed
 * and looked up again.
 * Ownership: a peer's belong to it, and keep nothing of the packet they were seen in.
 * Threads: the peer's driver only.
 * Limits: RT_REPEATS heads for each peer, of RT_REPEAT_BYTES_MAX and RT_REPEAT_ATOMS_MAX.
 * Errors: none; without memory nothing is remembered. */
#ifndef RT_ROUTE_REPEAT_H
#define RT_ROUTE_REPEAT_H

#include "route/route.h"

#define RT_REPEATS 32u         /* a power of two */
#define RT_REPEAT_BYTES_MAX 192u
#define RT_REPEAT_ATOMS_MAX 16u

/* Whom a head led to. */
typedef struct rt_found {
    rt_pid to;             /* 0: to none of our processes, or not always to the same */
    bool pack;             /* the head is a pack's */
    bool named;            /* it has a name, */
    uint64_t names;        /* valid while rt_registry_names_changes is this */
    uint64_t cached;       /* its atoms: valid while rt_atom_cache_changes is this */
} rt_found;

typedef struct rt_repeat {
    rt_found found;
    uint16_t n;            /* bytes of head */
    uint16_t atoms_cap;    /* atoms there is memory for */
    uint8_t head[RT_REPEAT_BYTES_MAX];
    rt_atoms atoms;        /* last: there is only memory for atoms_cap of them */
} rt_repeat;

/* What one peer has repeated: the last one, and two for each hash of a head. A frame is looked up
 * by as many bytes as the last head had: most heads of one peer are equally long. */
typedef struct rt_repeats {
    rt_repeat *last;
    rt_repeat *at[RT_REPEATS];
} rt_repeats;

/* Nothing found yet: to be asked before anything is looked up, see rt_registry_names_changes. */
rt_found rt_found_none(const rt_route *r, const rt_peer *peer);
/* Remembers whom a head led to, with the atoms of the frame. */
void rt_repeat_keep(rt_peer *peer, rt_slice head, const rt_atoms *atoms, const rt_found *found);
RT_INLINE bool rt_repeat_begins(const rt_repeat *r, const uint8_t *p, size_t n)
{
    return n > r->n && memcmp(p, r->head, r->n) == 0;
}
/* One that is not the last; NULL: there is none. */
rt_repeat *rt_repeat_other(rt_repeats *t, const uint8_t *p, size_t n);
/* The remembered head that these bytes begin with, if what it stands for still stands. Valid until
 * the next one is kept. */
RT_INLINE const rt_repeat *rt_repeat_find(const rt_route *route, const rt_peer *peer,
                                          const uint8_t *p, size_t n)
{
    rt_repeats *t = peer->repeats;
    const rt_repeat *r = t ? t->last : NULL;
    if (r && RT_UNLIKELY(!rt_repeat_begins(r, p, n))) r = rt_repeat_other(t, p, n);
    if (!r) return NULL;
    const rt_found *f = &r->found;
    if (f->named && rt_registry_names_changes(route->registry) != f->names) return NULL;
    if (r->atoms.count && rt_atom_cache_changes(peer->cache) != f->cached) return NULL;
    return r;
}
void rt_repeats_free(rt_repeats *t);   /* may be NULL */

#endif
