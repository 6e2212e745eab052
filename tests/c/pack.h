/* Purpose: what the tests of packs share: what one side queues, the other is fed. */
#ifndef RT_TESTS_PACK_H
#define RT_TESTS_PACK_H

#include "inbound.h"
#include "route/outbound.h"
#include "stress.h"
#include "term/tags.h"

#define BOXES 3

/* A receiver with three processes, one of them with a name and an alias, and the sender's peer. */
typedef struct pair {
    node n;
    rt_process *box[BOXES];
    rt_peer *here, *there;     /* of the receiver, of the sender */
    rt_peers *peers;
    rt_limits limits;
    rt_buf wire;
    size_t read;
} pair;

static inline UNUSED void pair_open(pair *t, bool packs)
{
    uint64_t flags = RT_FLAGS_OURS | (packs ? RT_F_PACKS : 0);
    memset(t, 0, sizeof *t);
    node_open(&t->n);
    t->limits = t->n.route.limits;
    for (int i = 0; i < BOXES; i++)
        CHECK_INT(rt_process_new(t->n.route.registry, &t->box[i]), RT_OK);
    CHECK_INT(rt_registry_register(t->n.route.registry, S("name"), t->box[0]->self), RT_OK);
    t->peers = rt_peers_new(&t->limits);
    CHECK_INT(rt_peers_get(t->peers, S(NODE), &t->there), RT_OK);
    CHECK_INT(rt_peer_up(t->there, flags, CREATION, &t->limits), RT_OK);
    CHECK_INT(rt_peers_get(t->n.route.peers, S("a@127.0.0.1"), &t->here), RT_OK);
    CHECK_INT(rt_peer_up(t->here, flags, 1, &t->limits), RT_OK);
}

static inline UNUSED void pair_close(pair *t)
{
    rt_peer_down(t->there);
    rt_peers_free(t->peers);
    for (int i = 0; i < BOXES; i++) end_box(&t->n, t->box[i]);
    node_close(&t->n);
    rt_buf_fini(&t->wire);
}

/* A frame to a process, or for -1 to the name; returns the bytes of its head. The message is
 * {number, binary of n bytes}. */
static inline UNUSED size_t compose(pair *t, rt_buf *b, int to, uint32_t number, size_t n)
{
    static const uint8_t from[] = "Xw\xb" "a@127.0.0.1" "\0\0\0\1\0\0\0\0\0\0\0\1";
    uint8_t pid[RT_PID_BYTES_MAX];
    rt_slice sender = rt_slice_of(from, sizeof from - 1);
    size_t head, start = b->n;
    if (start == 0) {
        CHECK_INT(rt_outbound_begin(b), RT_OK);
    } else {
        CHECK_INT(rt_buf_reserve(b, RT_FRAME_NORMAL_HEAD), RT_OK);
        memset(b->p + b->n, 0, RT_FRAME_NORMAL_HEAD);
        b->n += RT_FRAME_NORMAL_HEAD;
    }
    if (to < 0) {
        CHECK_INT(rt_control_reg_send(b, sender, S("name")), RT_OK);
    } else {
        size_t k = rt_route_pid(&t->n.route, t->box[to]->self, pid);
        CHECK_INT(rt_control_send_sender(b, sender, rt_slice_of(pid, k)), RT_OK);
    }
    head = b->n - start;
    CHECK_INT(rt_buf_reserve(b, 12 + n), RT_OK);
    rt_buf_u8(b, RT_TAG_SMALL_TUPLE);
    rt_buf_u8(b, 2);
    rt_buf_u8(b, RT_TAG_INTEGER);
    rt_buf_u32(b, number);
    rt_buf_u8(b, RT_TAG_BINARY);
    rt_buf_u32(b, (uint32_t)n);
    memset(b->p + b->n, 'x', n);
    b->n += n;
    CHECK_INT(rt_outbound_end(b, start, &t->limits), RT_OK);
    return head;
}

static inline UNUSED int put_numbered(pair *t, int to, uint32_t number, size_t n,
                                      uint64_t lead_number)
{
    rt_buf b = RT_BUF_INIT;
    rt_lead lead = {compose(t, &b, to, number, n), lead_number};
    int rc = rt_outbound_put(t->there, rt_slice_of(b.p, b.n), lead, false, &t->limits, &b, NULL);
    rt_buf_fini(&b);
    return rc;
}

static inline UNUSED int put(pair *t, int to, uint32_t number, size_t n)
{
    return put_numbered(t, to, number, n, 0);
}

/* What stands for the lead of such a frame. */
static inline UNUSED uint64_t number_of(int to) { return (uint64_t)to + 2; }

/* As a node sends: the payload alone if it may join, else the frame. */
static inline UNUSED int join_or_put(pair *t, int to, uint32_t number, size_t n, bool *joined)
{
    rt_buf b = RT_BUF_INIT;
    rt_queued how;
    rt_lead lead = {compose(t, &b, to, number, n), number_of(to)};
    rt_slice payload = rt_slice_of(b.p + lead.n, b.n - lead.n);
    size_t before = t->there->out.bytes;
    int rc = RT_OK;
    *joined = rt_outbound_join(t->there, lead, payload, &t->limits, &how);
    size_t grown = t->there->out.bytes - before; /* by a byte more, if it turns to another */
    CHECK(*joined ? grown == payload.n || grown == payload.n + 1 : grown == 0);
    if (*joined) CHECK(how.before == before && how.taken == grown);
    else rc = rt_outbound_put(t->there, rt_slice_of(b.p, b.n), lead, false, &t->limits, &b, NULL);
    rt_buf_fini(&b);
    return rc;
}

/* Moves so many bytes of the queue to the wire, as they would be written. */
static inline UNUSED void write_some(pair *t, size_t most)
{
    rt_outq *q = &t->there->out;
    struct iovec iov[RT_OUTQ_IOV_MAX];
    int k = rt_outq_snapshot(q, iov, RT_OUTQ_IOV_MAX, most, RT_OUTQ_SLICE_MIN);
    size_t done = 0;
    for (int i = 0; i < k; i++) {
        CHECK_INT(rt_buf_put(&t->wire, iov[i].iov_base, iov[i].iov_len), RT_OK);
        done += iov[i].iov_len;
    }
    rt_outq_consume(q, done);
}

/* Feeds the packets that have come whole; how many. */
static inline UNUSED int read_all(pair *t)
{
    int packets = 0;
    while (t->wire.n - t->read >= 4) {
        size_t n = rt_load_u32(t->wire.p + t->read);
        if (t->wire.n - t->read - 4 < n) break;
        unsigned char *copy = check_copy(t->wire.p + t->read + 4, n);
        CHECK_INT(rt_inbound_packet(&t->n.in, t->here, copy, n), RT_OK);
        free(copy);
        t->read += 4 + n;
        packets++;
    }
    rt_inbound_flush(&t->n.in);
    return packets;
}

/* The number of the next message of a process, or -1. */
static inline UNUSED int64_t next(pair *t, int box)
{
    rt_message *m = rt_mailbox_pop(&t->box[box]->mailbox);
    if (!m) return -1;
    const uint8_t *p = rt_message_data(m);
    uint32_t number = rt_load_u32(p + 3);
    CHECK_INT(rt_load_u32(p + 8) + 12, m->n);
    rt_message_free(m);
    return number;
}

#endif
