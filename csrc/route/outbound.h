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
/* Fills the head in; the buffer holds one whole frame. RT_ELIMIT over message_bytes_max. */
int rt_outbound_end(rt_buf *b, const rt_limits *limits);
/* Queues the frame. *waiting (may be NULL) gets the bytes queued before it. */
int rt_outbound_put(rt_peer *p, rt_slice frame, bool signal, const rt_limits *limits,
                    size_t *waiting);
/* For rt_peer_up: the lock is held, the peer is up. */
int rt_outbound_put_locked(rt_peer *p, rt_slice frame);
/* Messages in a list of chunks of which the bytes before `off` of the first are
 * written already. */
uint64_t rt_outbound_count(const rt_outchunk *list);

#endif
