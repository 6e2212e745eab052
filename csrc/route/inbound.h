/* Purpose: packets from a peer become messages in mailboxes and signals.
 * Ownership: one rt_inbound belongs to one driver; it owns scratch memory and a
 * stock of blocks only.
 * Threads: the driver only.
 * Limits: term_depth_max; payloads are validated before they reach a box.
 * Errors: any error is the peer's and closes its connection: RT_EBAD,
 * RT_ELIMIT; RT_ENOMEM is ours and closes too, so that nothing is lost in
 * silence. */
#ifndef RT_ROUTE_INBOUND_H
#define RT_ROUTE_INBOUND_H

#include "base/buf.h"
#include "route/repeat.h"

/* For how many processes messages are gathered until they are pushed. */
#define RT_INBOUND_SHARES 32u

typedef struct rt_inbound {
    rt_route *route;
    rt_share *now;         /* has the last message; NULL: nothing is gathered */
    rt_peer *from;         /* whose messages these are */
    uint64_t bytes;        /* of their terms */
    uint32_t shares;       /* of `share`, in the order in which they began: one for each process */
    rt_share share[RT_INBOUND_SHARES];
    uint8_t place[RT_INBOUND_SHARES];   /* of each in `found_at`, a hash table of shares; a place */
    uint8_t found_at[2 * RT_INBOUND_SHARES];    /* is taken if its share says that it has it */
    rt_stock stock;        /* of the blocks of their messages */
    rt_buf control;        /* expanded control tuple */
    rt_buf payload;        /* expanded payload */
    rt_buf ident[2];       /* canonical from and reference */
    rt_buf *assembled;     /* what the present payload stands in, if its memory may be taken */
    rt_found found;        /* whom the present message goes to */
    size_t packet_n;       /* bytes of the present packet */
} rt_inbound;

void rt_inbound_init(rt_inbound *in, rt_route *route);
void rt_inbound_fini(rt_inbound *in);
/* One packet, without its length. */
int rt_inbound_packet(rt_inbound *in, rt_peer *peer, const uint8_t *p, size_t n);
/* Of a large packet of `whole` bytes the first n are there. Where the others may be received, so
 * that they need not be copied; NULL: nowhere. Then no other packet comes before `placed`, which
 * is called when they are there. */
uint8_t *rt_inbound_place(rt_peer *peer, const uint8_t *p, size_t n, size_t whole);
int rt_inbound_placed(rt_inbound *in, rt_peer *peer);
/* Pushes what is gathered, so that nobody sees a message before those that came before it; at the
 * end of each read. */
void rt_inbound_flush(rt_inbound *in);

#endif
