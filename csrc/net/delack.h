/* Purpose: acknowledgements that are held back for a moment where many small messages come. What
 * has come is read at once all the same, but only looked at (MSG_PEEK), and taken from the socket
 * later: a sender whose window is full meanwhile gathers what it sends next, and sends it in fewer,
 * larger segments. docs/measurements.md says what that saves both sides.
 * Ownership: embedded in its connection.
 * Threads: the connection's driver.
 * Limits: RT_DELACK_NS, RT_DELACK_BYTES_MAX. It begins with RT_DELACK_READS small reads in a row,
 * with packets at RT_DELACK_PACKETS_PER_S or more and nothing written meanwhile: a slower sender
 * has nothing to gather, and its messages would wait for nothing. It ends when less comes, when
 * something was written or waits to be, with a packet over RT_DELACK_PACKET_MAX, and with a
 * pause. Where the kernel cannot remember how far it was looked (SO_PEEK_OFF of TCP: Linux
 * 6.9), or the poller cannot tell of news alone, nothing is ever held back.
 * What is held counts as unread: a process that dies in that time breaks its streams, and the
 * kernel sends nothing any more. Urgent data, which no node sends, puts a stream out of step.
 * Errors: none. */
#ifndef RT_NET_DELACK_H
#define RT_NET_DELACK_H

#include "base/base.h"
#include "net/timer.h"

/* Less than a sender waits, at least, before it sends again what nobody acknowledged (two ticks of
 * its clock). */
#define RT_DELACK_NS (3 * RT_MS / 2)
/* Less than the window of a new stream (64 KiB): nobody waits for room. */
#define RT_DELACK_BYTES_MAX (48u * 1024u)
#define RT_DELACK_READS 64u
#define RT_DELACK_PACKETS_PER_S 64000u
#define RT_DELACK_PACKET_MAX (16u * 1024u)

typedef struct rt_conn rt_conn;

typedef struct rt_delack {
    rt_timers *timers;       /* NULL: nothing is held back */
    rt_timer timer;
    uint64_t since, written; /* when the present run of small reads began; what was written then */
    uint32_t reads, packets; /* in that run; while it is on, packets since the timer fired */
    uint32_t vain, skip;     /* runs passed over after the last in vain; how many are left of those */
    size_t held;             /* bytes that were read and are in the socket still */
    bool large;              /* a packet is, of the present ready call */
    bool on;
    bool primed;             /* the timer has fired since, so that what comes tells */
} rt_delack;

/* For a connection that is up; harmless where it cannot be. */
void rt_delack_start(rt_conn *c, rt_timers *timers);
void rt_delack_stop(rt_conn *c);     /* before it leaves its poller */
/* A ready call has read so many bytes; `empty`: all there were. */
void rt_delack_note(rt_conn *c, size_t got, bool empty);
/* Takes what is held and goes on as before; the poller is to be told: rt_conn_arm. */
void rt_delack_end(rt_conn *c);

#endif
