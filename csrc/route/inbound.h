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
#include "route/route.h"

#define RT_REPEATS 32u         /* remembered for each peer; a power of two */
#define RT_REPEAT_BYTES_MAX 192u
#define RT_REPEAT_ATOMS_MAX 16u

/* The head and control tuple of a frame of a peer that was delivered to a local process.
 * Senders repeat themselves: a frame that begins with the same bytes goes to the same process
 * without being parsed and looked up again. */
typedef struct rt_repeat {
    rt_pid to;
    bool pack;             /* messages follow until the frame's end */
    bool named;            /* addressed by name, */
    uint64_t names;        /* valid while rt_registry_names_changes is this */
    uint64_t cached;       /* its atoms: valid while rt_atom_cache_changes is this */
    uint16_t n;            /* bytes of head */
    uint16_t atoms_cap;    /* atoms there is memory for */
    uint8_t head[RT_REPEAT_BYTES_MAX];
    rt_atoms atoms;        /* last: there is only memory for atoms_cap of them */
} rt_repeat;

/* What one peer has repeated: the last one, and two for each hash of a head. A frame is looked up
 * by as many bytes as the last head had: most heads of one peer are equally long. */
typedef struct rt_repeats {
    rt_repeat *last;
    rt_repeat *at[RT_REPEATS];
} rt_repeats;

typedef struct rt_inbound {
    rt_route *route;
    rt_chain chain;        /* messages of one destination, not yet pushed */
    rt_pid chain_to;
    rt_peer *chain_from;
    rt_stock stock;        /* of the blocks of its messages */
    rt_buf control;        /* expanded control tuple */
    rt_buf payload;        /* expanded payload */
    rt_buf ident[2];       /* canonical from and reference */
    rt_buf *assembled;     /* what the present payload stands in, if its memory may be taken */
    rt_pid found;          /* whom the present message goes to, by pid or name */
    bool found_by_name, found_pack;
    uint64_t cached;       /* rt_atom_cache_changes before the present frame */
    size_t packet_n;       /* bytes of the present packet */
} rt_inbound;

void rt_inbound_init(rt_inbound *in, rt_route *route);
void rt_inbound_fini(rt_inbound *in);
void rt_repeats_free(rt_repeats *t);   /* may be NULL */
/* One packet, without its length. */
int rt_inbound_packet(rt_inbound *in, rt_peer *peer, const uint8_t *p, size_t n);
/* Pushes what is gathered; at the end of each read. */
void rt_inbound_flush(rt_inbound *in);

#endif
