/* Purpose: one TCP stream under the engine: what comes in is handed on as raw
 * bytes (handshake, port mapper) and later as packets with 4-byte lengths;
 * what waits in the output queue is written.
 * Ownership: embedded in its owner, who frees it in or after `closed`. The
 * output queue may be the connection's own or, once up, its peer's.
 * Threads: the driver only, except rt_outq_write, which any thread may call on
 * a queue whose lock it does not hold.
 * Limits: frame_bytes_max; an idle connection holds no receive buffer; one
 * ready call reads at most RT_CONN_ROUNDS times the shared buffer.
 * Errors: given to `closed`: an rt_err, and errno where it is RT_ESYS. */
#ifndef RT_NET_CONN_H
#define RT_NET_CONN_H

#include "base/base.h"
#include "base/outq.h"
#include "net/delack.h"
#include "net/poller.h"
#include "net/socket.h"

#define RT_READ_BUFFER_BYTES (256u * 1024u)
#define RT_CONN_ROUNDS 4
#define RT_CONN_PLACE_MIN (32u * 1024u)
#define RT_CONN_HEAD 1024u   /* what a packet begins with before its payload is shorter */

typedef struct rt_conn_ops {
    void (*connected)(rt_conn *c);       /* an outgoing connect succeeded */
    /* Raw phase: returns the bytes used (0: wait for more), or an error that
     * closes. May call rt_conn_packets to switch; the rest is then packets. */
    int64_t (*bytes)(rt_conn *c, const uint8_t *p, size_t n);
    int (*packet)(rt_conn *c, const uint8_t *p, size_t n);   /* an error closes */
    /* May be NULL. A packet of `whole` bytes, over RT_CONN_PLACE_MIN, of which the first n are
     * there, at least RT_CONN_HEAD, and taken over: where the others go, and `placed` follows, which
     * is as `packet`. NULL: the packet is given when it is whole. */
    uint8_t *(*place)(rt_conn *c, const uint8_t *p, size_t n, size_t whole);
    int (*placed)(rt_conn *c);
    void (*batch)(rt_conn *c);           /* all packets of one read were given */
    void (*written)(rt_conn *c);         /* the queue went down */
    void (*closed)(rt_conn *c, int rc, int sys);  /* last call; may free */
} rt_conn_ops;

struct rt_conn {
    rt_source source;
    rt_poller *poller;
    const rt_conn_ops *ops;
    uint8_t *shared;         /* the engine's read buffer, RT_READ_BUFFER_BYTES */
    rt_outq own;             /* until a peer's queue takes over */
    rt_outq *out;
    uint8_t *partial;        /* the beginning of an unfinished packet or message */
    size_t partial_n;
    size_t partial_cap;
    uint8_t *into;           /* not NULL: the next into_n bytes go there, the last of a packet: */
    size_t into_n;
    bool placed;             /* in its owner's memory, or else in `partial` */
    bool asked;              /* whether this packet has a place: once */
    rt_delack delack;
    size_t frame_bytes_max;
    uint64_t bytes_in;
    uint64_t reads;          /* moves with every successful read: liveness */
    bool packets, connecting, paused, busy, dead, closing, eof_after_write;
    int fail_rc, fail_sys;
};

int rt_conn_init(rt_conn *c, rt_poller *p, uint8_t *shared, size_t frame_bytes_max,
                 const rt_conn_ops *ops);
int rt_conn_open(rt_conn *c, const rt_address *to);  /* then `connected` or `closed`, later */
int rt_conn_adopt(rt_conn *c, int fd);               /* an accepted descriptor; on failure still the caller's */
void rt_conn_packets(rt_conn *c);
/* Makes the queue `q` (with its lock free) this connection's; what waits in the
 * connection's own goes first. */
int rt_conn_use_queue(rt_conn *c, rt_outq *q);
/* Appends to the queue and writes what the socket takes at once. */
int rt_conn_send(rt_conn *c, const void *p, size_t n);
/* Tells the poller what is waited for, as a change demands; may close. */
void rt_conn_arm(rt_conn *c);
/* Writes what waits and arms for the rest. */
void rt_conn_flush(rt_conn *c);
void rt_conn_pause(rt_conn *c, bool on);             /* stop or resume reading */
/* The same as resuming, outside of callbacks, where `bytes` left something unread when it stopped. */
void rt_conn_go_on(rt_conn *c);
/* From one driver to another: the one lets go, outside of callbacks; the other goes on with its own
 * poller and buffer. */
void rt_conn_leave(rt_conn *c);
int rt_conn_join(rt_conn *c, rt_poller *p, uint8_t *shared);
/* Closes; `closed` is called before this returns, or, from inside another
 * callback of the same connection, when that one ends. Once only. */
void rt_conn_close(rt_conn *c, int rc, int sys);
/* Closes after what is queued has been written. */
void rt_conn_finish(rt_conn *c);

/* Writes from the queue without blocking, at most bytes_max. RT_OK: empty;
 * RT_AGAIN: something is left (or somebody else holds the token: RT_EBUSY);
 * RT_ESYS: the stream is broken; RT_ENOTCONN. */
int rt_outq_write(rt_outq *q, size_t bytes_max);

#endif
