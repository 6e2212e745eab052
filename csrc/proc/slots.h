/* Purpose: numbered slots that never move, for processes and for names; internal to proc/.
 *
 * Slots stand in segments. Once made, a segment keeps its addresses until rt_slots_fini,
 * so a stale pointer always points at a slot. A segment in which nothing is taken gives
 * its pages back when there are enough free slots elsewhere, and reads as zeros from
 * then on. Therefore:
 *   - zeros must be what a reader takes for "nobody";
 *   - what tells a slot's tenants apart (a serial, a stamp) must grow across it. The
 *     user says with `put` what the next tenant may begin with, and a slot that
 *     has been zeroed is given out with the highest of these in its segment.
 * A segment whose counts have grown past `give_back_below` keeps its pages, so that a
 * count wraps only after all its values have been used.
 *
 * The lowest segment with a free slot serves first, so that the upper ones run
 * empty; within one, first freed is first used.
 * Threads:
 *   at                  | may run with everything | the id was taken once
 *   take, put, next     | at                      | one at a time (the caller's lock)
 *   init, fini          | nothing                 |
 * Order: a segment's address: release in take, acquire in at. The free slot's link is
 * atomic, for readers who come late; what they make of it they validate themselves.
 * Limits: ids are 1 .. max. Kept free: up to two segments and what stands beside
 * slots in use. Per segment that ever was: 8 bytes of address, 24 of account.
 * Errors: RT_ELIMIT, RT_ENOMEM. */
#ifndef RT_PROC_SLOTS_H
#define RT_PROC_SLOTS_H

#include "base/atomic.h"
#include "base/base.h"

#define RT_SLOTS_SEGMENT_BITS 10u
#define RT_SLOTS_SEGMENT (1u << RT_SLOTS_SEGMENT_BITS)

typedef struct rt_slots_bits {
    uint64_t *word;
    uint32_t low;                    /* words below it are 0 */
} rt_slots_bits;

typedef struct rt_slots_account rt_slots_account;   /* of a segment; see slots.c */

typedef struct rt_slots {
    /* Read by everybody, written once. */
    _Atomic(uint8_t *) *segment;
    uint32_t segments;
    /* The writer's. */
    uint32_t max, made;              /* the highest id; segments that have an address */
    uint32_t bytes, link;            /* of a slot; where its link is */
    uint64_t give_back_below;
    rt_slots_account *account;
    rt_slots_bits open, bare;        /* segments with pages and a free slot; without pages */
    uint64_t spare;                  /* free slots in segments with pages */
    size_t memory_bytes;
} rt_slots;

/* Slots of `bytes` bytes with an _Atomic uint32_t at `link`, the table's while free. */
int rt_slots_init(rt_slots *s, uint32_t max, uint32_t bytes, uint32_t link,
                  uint64_t give_back_below);
void rt_slots_fini(rt_slots *s);

/* A free slot's id. *fresh: it is all zeros, and its count begins with *from; else it
 * is as it was put (but for the link). */
int rt_slots_take(rt_slots *s, uint32_t *id, bool *fresh, uint64_t *from);
/* next: the lowest count that may come after this tenant. */
void rt_slots_put(rt_slots *s, uint32_t id, uint64_t next);
/* The next id after this one that may be taken, in rising order; 0 at the end. */
uint32_t rt_slots_next(const rt_slots *s, uint32_t id);

/* NULL: no such id was ever taken, or it is out of range. bytes: as in init, a constant. */
RT_INLINE void *rt_slots_at(const rt_slots *s, uint32_t id, size_t bytes) {
    uint8_t *at;
    if (RT_UNLIKELY(id >> RT_SLOTS_SEGMENT_BITS >= s->segments)) return NULL;
    /* Acquire: partner of the release in settle. */
    at = atomic_load_explicit(&s->segment[id >> RT_SLOTS_SEGMENT_BITS], memory_order_acquire);
    return at ? at + (size_t)(id & (RT_SLOTS_SEGMENT - 1)) * bytes : NULL;
}

#endif
