#include "route/repeat.h"

#include "base/alloc.h"
#include "base/hash.h"

void rt_repeats_free(rt_repeats *t)
{
    for (uint32_t i = 0; t && i < RT_REPEATS; i++) rt_free(t->at[i]);
    rt_free(t);
}

rt_found rt_found_none(const rt_route *r, const rt_peer *peer)
{
    return (rt_found){.names = rt_registry_names_changes(r->registry),
                      .cached = rt_atom_cache_changes(peer->cache)};
}

/* Each head has two places: this one, and the one whose number differs in the last bit. */
static uint32_t place_of(const uint8_t *head, size_t n)
{
    return (uint32_t)(rt_hash_bytes(head, n, 0) & (RT_REPEATS - 1));
}

void rt_repeat_keep(rt_peer *peer, rt_slice head, const rt_atoms *atoms, const rt_found *found)
{
    if (head.n > RT_REPEAT_BYTES_MAX || atoms->count > RT_REPEAT_ATOMS_MAX) return;
    /* Only what wrote no slot: of a header that writes one twice, the first atom dies soon. */
    if (rt_atom_cache_changes(peer->cache) != found->cached) return;
    if (!peer->repeats) peer->repeats = rt_calloc(1, sizeof *peer->repeats);
    if (!peer->repeats) return;
    uint32_t at = place_of(head.p, head.n);
    rt_repeat **place = &peer->repeats->at[at], *r = *place;
    if (r && !rt_slice_eq(head, rt_slice_of(r->head, r->n))) { /* to its other place */
        *place = peer->repeats->at[at ^ 1];
        peer->repeats->at[at ^ 1] = r;
        r = *place;
    }
    if (!r || r->atoms_cap < atoms->count) {
        r = rt_malloc(offsetof(rt_repeat, atoms.at) + atoms->count * sizeof(rt_slice));
        if (!r) return;
        rt_free(*place);
        *place = r;
        r->atoms_cap = (uint16_t)atoms->count;
    }
    peer->repeats->last = r;
    memcpy(r->head, head.p, head.n);
    r->n = (uint16_t)head.n;
    r->found = *found;
    r->atoms.count = atoms->count;
    for (uint32_t i = 0; i < atoms->count; i++) r->atoms.at[i] = atoms->at[i];
}

rt_repeat *rt_repeat_other(rt_repeats *t, const uint8_t *p, size_t n)
{
    if (n <= t->last->n) return NULL;
    uint32_t at = place_of(p, t->last->n);
    rt_repeat *r = t->at[at];
    if (!r || !rt_repeat_begins(r, p, n)) r = t->at[at ^ 1];
    if (!r || !rt_repeat_begins(r, p, n)) return NULL;
    t->last = r;
    return r;
}
