/* Purpose: messages and signals on their way out: compose a frame, put it into
 * a peer's queue in the form that peer understands.
 * A frame is composed as `131 68 0 control payload` with the newest opcodes.
 * When it enters a queue it is cut into fragments, or rewritten for a peer
 * that negotiated less. While a peer is connecting, frames wait unchanged.
 * Threads: compose in a buffer of one's own; put from any thread.
 * Errors: RT_EFULL at queue_bytes_max (signals pass), RT_ENOTCONN when the peer
 * is idle (nothing is queued: connect first), RT_ENOMEM. */
#ifndef RT_ROUTE_OUTBOUND_H
#define RT_ROUTE_OUTBOUND_H

#include "base/buf.h"
#include "base/limits.h"
#include "dist/control.h"
#include "dist/frame.h"
#include "route/peer.h"

/* Leaves room for the head at the start of an empty buffer. */
int rt_outbound_begin(rt_buf *b);
/* Fills in the head of the frame that began at `start` and ends the buffer. RT_ELIMIT
 * over message_bytes_max. */
int rt_outbound_end(rt_buf *b, size_t start, const rt_limits *limits);

/* The head and control tuple that a frame begins with: how many bytes, 0 when frames may have
 * different ones, and a number that stands for these bytes while this node lives; 0: none. */
typedef struct rt_lead {
    size_t n;
    uint64_t number;
} rt_lead;

#define RT_LEAD_NONE ((rt_lead){0, 0})

typedef struct rt_queued {
    size_t before;   /* bytes that waited before */
    size_t taken;    /* bytes of the frames that were queued: with RT_EFULL those before
                        the first that was refused */
} rt_queued;

/* Queues whole frames; several only if none of them needs cutting. `lead`: not
 * RT_LEAD_NONE when each of them begins with the same one, composed by begin and one of the
 * sends that may be packed: then they may join the frame that was queued last.
 * `own`: NULL, or the buffer in which one frame stands: its memory may be taken over, and it is
 * empty then. `how` may be NULL. */
int rt_outbound_put(rt_peer *p, rt_slice frames, rt_lead lead, bool signal,
                    const rt_limits *limits, rt_buf *own, rt_queued *how);
/* Bytes of a frame that stand elsewhere: they belong before its byte `at`, in the payload, and the
 * queue refers to them until they are written. */
typedef struct rt_body {
    size_t at, n;
    const uint8_t *p;
    rt_shared *shared;
} rt_body;

/* Queues one frame without its body, not ended yet. What stands before the body and behind it is
 * copied; at most RT_BODY_BESIDE_MAX bytes each. RT_ELIMIT over message_bytes_max. RT_AGAIN: not
 * to this peer, or not now; the body is to be put into the frame. */
#define RT_BODY_BESIDE_MAX 4096u
int rt_outbound_put_body(rt_peer *p, rt_slice frame, const rt_body *body, const rt_limits *limits,
                         rt_queued *how);
/* Queues the message of which this is the payload, when it may join the frame that was queued
 * last and that one has this lead already, by its number: then nobody needs to compose it.
 * False: nothing has happened. */
bool rt_outbound_join(rt_peer *p, rt_lead lead, rt_slice payload, const rt_limits *limits,
                      rt_queued *how);
/* For rt_peer_up: the lock is held, the peer is up. */
int rt_outbound_put_locked(rt_peer *p, rt_slice frame);
/* Messages in a list of chunks of which the bytes before `off` of the first are
 * written already. */
uint64_t rt_outbound_count(const rt_outchunk *list);

#endif
