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

typedef struct rt_queued {
    size_t before;   /* bytes that waited before */
    size_t taken;    /* bytes of the frames that were queued: with RT_EFULL those before
                        the first that was refused */
} rt_queued;

/* Queues whole frames; several only if none of them needs cutting. `head`: not 0 when each of
 * them begins with the same head and control tuple of so many bytes, composed by begin and one
 * of the sends that may be packed: then they may join the frame that was queued last.
 * `own`: NULL, or the buffer in which one frame stands: its memory may be taken over, and it is
 * empty then. `how` may be NULL. */
int rt_outbound_put(rt_peer *p, rt_slice frames, size_t head, bool signal,
                    const rt_limits *limits, rt_buf *own, rt_queued *how);
/* For rt_peer_up: the lock is held, the peer is up. */
int rt_outbound_put_locked(rt_peer *p, rt_slice frame);
/* Messages in a list of chunks of which the bytes before `off` of the first are
 * written already. */
uint64_t rt_outbound_count(const rt_outchunk *list);

#endif
