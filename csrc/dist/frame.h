/* Purpose: one packet after the handshake, without its 4-byte length.
 * Ownership: everything points into the packet or the cache.
 * Errors: RT_EBAD. */
#ifndef RT_DIST_FRAME_H
#define RT_DIST_FRAME_H

#include "base/base.h"
#include "base/buf.h"
#include "dist/atom_cache.h"
#include "term/scan.h"

enum rt_frame_kind {
    RT_FRAME_TICK,        /* empty */
    RT_FRAME_PASS,        /* 112: control and payload each with a version byte */
    RT_FRAME_NORMAL,      /* 131 68 */
    RT_FRAME_FRAG_FIRST,  /* 131 69 */
    RT_FRAME_FRAG_NEXT    /* 131 70 */
};

typedef struct rt_frame {
    enum rt_frame_kind kind;
    uint64_t sequence, fragment;  /* fragments only; fragment counts down to 1 */
    rt_atoms atoms;               /* NORMAL and FRAG_FIRST; count 0 otherwise */
    rt_slice body;                /* control, then payload; FRAG_NEXT: payload part */
} rt_frame;

/* `header` says what was negotiated: true when DIST_HDR_ATOM_CACHE or
 * FRAGMENTS is, and then 112 is RT_EBAD; otherwise 131 is. */
int rt_frame_parse(rt_atom_cache *cache, bool header, rt_slice packet, rt_frame *out);

/* Of the beginning of a packet with a header: whether that is there and has no atoms, so that to
 * parse it changes nothing. */
bool rt_frame_has_no_atoms(rt_slice packet);

/* Splits `body` of a PASS frame: control (without 131) and payload (without
 * 131; empty when there is none). */
int rt_frame_split_pass(rt_slice body, rt_slice *control, rt_slice *payload);

/* Bytes that rt_frame_put_* write, the 4-byte length included. */
#define RT_FRAME_NORMAL_HEAD 7u      /* len:32 131 68 0 */
#define RT_FRAME_FRAG_FIRST_HEAD 23u /* len:32 131 69 seq:64 frag:64 0 */
#define RT_FRAME_FRAG_NEXT_HEAD 22u  /* len:32 131 70 seq:64 frag:64 */

/* Write a head into p, which has room. `body` is how many bytes follow. */
void rt_frame_head_normal(uint8_t *p, size_t body);
void rt_frame_head_frag_first(uint8_t *p, uint64_t seq, uint64_t frag, size_t body);
void rt_frame_head_frag_next(uint8_t *p, uint64_t seq, uint64_t frag, size_t body);

/* Turns a complete NORMAL frame without atom references (length included) into
 * a PASS frame appended to `out`; used for peers that negotiated no headers. */
int rt_frame_to_pass(rt_buf *out, rt_slice frame);

#endif
