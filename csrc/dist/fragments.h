/* Purpose: put fragmented messages of one connection together.
 * Ownership: holds partial messages; a finished one is handed over.
 * Threads: one at a time.
 * Limits: fragments_in_flight_max sequences; message_bytes_max over all of one;
 * memory grows with what arrived, never with what is claimed, save for memory that a pool keeps
 * anyway, of which unfinished messages have at most a quarter of message_bytes_max.
 * Errors: RT_EBAD for a continuation without a first fragment, a fragment id
 * out of order, a sequence begun twice; RT_ELIMIT; RT_ENOMEM. */
#ifndef RT_DIST_FRAGMENTS_H
#define RT_DIST_FRAGMENTS_H

#include "base/base.h"
#include "base/buf.h"
#include "base/pool.h"
#include "dist/frame.h"

typedef struct rt_fragments rt_fragments;

/* What stands before a payload in its memory: room for whoever takes that over. */
#define RT_FRAGMENTS_HEADROOM 64u

/* A whole message again. `control` is expanded (no cache references);
 * `payload` may hold references into `atoms`. All of it is owned by the
 * caller, who ends it with rt_assembled_fini. */
typedef struct rt_assembled {
    rt_buf control;
    rt_buf payload;      /* behind RT_FRAGMENTS_HEADROOM bytes */
    rt_atoms atoms;      /* slices into atom_bytes */
    rt_buf atom_bytes;
} rt_assembled;

RT_INLINE rt_slice rt_assembled_payload(const rt_assembled *a) {
    return rt_slice_of(a->payload.p + RT_FRAGMENTS_HEADROOM, a->payload.n - RT_FRAGMENTS_HEADROOM);
}

/* `pool`: where memory for payloads is looked for first; it outlives this. NULL: none. */
rt_fragments *rt_fragments_new(uint32_t in_flight_max, size_t message_bytes_max,
                               uint32_t depth_max, rt_pool *pool);
void rt_fragments_free(rt_fragments *f);
/* Feeds a FRAG_FIRST or FRAG_NEXT frame. 1: `out` is filled; 0: more to come. */
int rt_fragments_feed(rt_fragments *f, const rt_frame *frame, rt_assembled *out);
/* Where the rest of a frame may be received, of which `frame` has the beginning of the body: so many
 * bytes, in memory of the message. A NORMAL frame is a message of one fragment. NULL: nothing has
 * happened, and the frame is to be fed when it is whole. */
uint8_t *rt_fragments_place(rt_fragments *f, const rt_frame *frame, size_t rest);
/* They have come; as feed. Nothing is fed between the two. */
int rt_fragments_placed(rt_fragments *f, rt_assembled *out);
void rt_assembled_fini(rt_assembled *a);
size_t rt_fragments_held(const rt_fragments *f);   /* bytes */
uint32_t rt_fragments_in_flight(const rt_fragments *f);

#endif
