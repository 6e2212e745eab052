/* needs: route */
#include "inbound.h"

#include "base/cursor.h"
#include "dist/fragments.h"
#include "dist/frame.h"
#include "route/outbound.h"
#include "stress.h"

/* Large packets of which the beginning is there, and the rest received where it belongs: each must
 * come to what it comes to when it is given whole. */

enum { LARGE = 40000 };

static const rt_slice SENDER = {(const uint8_t *)"Xw\1a\0\0\0\1\0\0\0\0\0\0\0\1", 16};

/* REG_SEND to `to` of a binary of n bytes; without the packet's length. */
static void put_message(rt_buf *b, const char *to, size_t n, uint8_t fill)
{
    b->n = 0;
    CHECK_INT(rt_buf_put(b, "\203D\0h\4a\6", 7), RT_OK);
    CHECK_INT(rt_buf_put(b, SENDER.p, SENDER.n), RT_OK);
    CHECK_INT(rt_buf_put(b, "w\0", 2), RT_OK);
    CHECK_INT(rt_put_atom(b, rt_slice_of(to, strlen(to))), RT_OK);
    CHECK_INT(rt_buf_reserve(b, 5 + n), RT_OK);
    rt_buf_u8(b, RT_TAG_BINARY);
    rt_buf_u32(b, (uint32_t)n);
    memset(b->p + b->n, fill, n);
    b->n += n;
}

enum { PAYLOAD_HEAD = 5 };

/* A packet of fragment `left` of a message: bytes [at, at + n) of what put_message made. */
static void put_fragment(rt_buf *b, const rt_buf *message, uint64_t seq, uint64_t left, bool first,
                         size_t at, size_t n)
{
    b->n = 0;
    CHECK_INT(rt_buf_reserve(b, 32 + n), RT_OK);
    rt_buf_u8(b, RT_TAG_VERSION);
    rt_buf_u8(b, first ? RT_TAG_DIST_FRAG_FIRST : RT_TAG_DIST_FRAG_NEXT);
    rt_buf_u64(b, seq);
    rt_buf_u64(b, left);
    if (first) rt_buf_u8(b, 0);
    rt_buf_raw(b, message->p + at, n);
}

/* As a connection does that has the first n bytes. */
static int feed_parts(node *n, rt_peer *p, const rt_buf *b, size_t have, bool *placed)
{
    uint8_t *to = rt_inbound_place(p, b->p, have, b->n);
    int rc;
    if (placed) *placed = to != NULL;
    if (to) {
        memcpy(to, b->p + have, b->n - have);
        rc = rt_inbound_placed(&n->in, p);
    } else {
        rc = rt_inbound_packet(&n->in, p, b->p, b->n);
    }
    rt_inbound_flush(&n->in);
    return rc;
}

static void expect_binary(rt_process *box, size_t n, uint8_t fill)
{
    rt_message *m = rt_mailbox_pop(&box->mailbox);
    if (!CHECK(m != NULL)) return;
    const uint8_t *p = rt_message_data(m);
    CHECK_INT(m->n, PAYLOAD_HEAD + n);
    CHECK(p[0] == RT_TAG_BINARY && rt_load_u32(p + 1) == n);
    CHECK(n == 0 || (p[PAYLOAD_HEAD] == fill && memcmp(p + PAYLOAD_HEAD, p + PAYLOAD_HEAD + 1,
                                                       n - 1) == 0));
    rt_message_free(m);
}

static void open_named(node *n)
{
    node_open(n);
    CHECK_INT(rt_registry_register(n->route.registry, S("in"), n->box->self), RT_OK);
}

static void every_part_of_a_message(void)
{
    node n;
    rt_buf b = RT_BUF_INIT;
    bool placed;
    uint64_t bytes = 0, count = 0;
    open_named(&n);
    rt_peer *p = peer_up(&n, "a@127.0.0.1");
    for (size_t have = 0; have < LARGE; have += have < 80 || have > LARGE ? 1 : 1777, count++) {
        put_message(&b, "in", LARGE, (uint8_t)have);
        CHECK_INT(feed_parts(&n, p, &b, have, &placed), RT_OK);
        if (have > 60) CHECK(placed);
        expect_binary(n.box, LARGE, (uint8_t)have);
        expect_nothing(n.box);
        bytes += b.n + 4;
    }
    CHECK_INT(p->count.messages_in, count);
    CHECK_INT(p->count.bytes_in, bytes);
    CHECK_INT(dropped(p), 0);
    rt_buf_fini(&b);
    node_close(&n);
}

static void fragments_in_parts(void)
{
    node n;
    rt_buf m = RT_BUF_INIT, b = RT_BUF_INIT;
    bool placed;
    uint64_t bytes = 0, seq = 0;
    open_named(&n);
    rt_peer *p = peer_up(&n, "a@127.0.0.1");
    put_message(&m, "in", 3 * LARGE, 9);
    for (size_t have = 0; have < LARGE; have += have < 100 ? 1 : 3011) {
        for (uint64_t left = 3, at = 3; left > 0; left--) {
            size_t part = left > 1 ? LARGE : m.n - at;
            put_fragment(&b, &m, ++seq - (3 - left), left, left == 3, at, part);
            seq -= left > 1;
            CHECK_INT(feed_parts(&n, p, &b, have, &placed), RT_OK);
            if (have > 80) CHECK(placed);
            at += part;
            bytes += b.n + 4;
            if (left > 1) expect_nothing(n.box);
            seq += left > 1;
        }
        expect_binary(n.box, 3 * LARGE, 9);
        CHECK_INT(rt_fragments_held(p->assembly), 0);
        CHECK_INT(rt_fragments_in_flight(p->assembly), 0);
    }
    CHECK_INT(p->count.bytes_in, bytes);
    rt_buf_fini(&m);
    rt_buf_fini(&b);
    node_close(&n);
}

/* One driver carries many connections: what another one says in between counts for that one. */
static void bytes_are_counted_for_whom_they_came_from(void)
{
    node n;
    rt_buf large = RT_BUF_INIT, small = RT_BUF_INIT;
    open_named(&n);
    rt_peer *a = peer_up(&n, "a@127.0.0.1"), *b = peer_up(&n, "c@127.0.0.1");
    put_message(&large, "in", LARGE, 1);
    put_message(&small, "in", 10, 2);
    uint8_t *to = rt_inbound_place(a, large.p, 100, large.n);
    CHECK_INT(feed(&n, b, &small), RT_OK);
    if (CHECK(to != NULL)) {
        memcpy(to, large.p + 100, large.n - 100);
        CHECK_INT(rt_inbound_placed(&n.in, a), RT_OK);
        rt_inbound_flush(&n.in);
    }
    expect_binary(n.box, 10, 2);
    expect_binary(n.box, LARGE, 1);
    CHECK_INT(b->count.bytes_in, small.n + 4);
    CHECK_INT(a->count.bytes_in, large.n + 4);
    rt_buf_fini(&large);
    rt_buf_fini(&small);
    node_close(&n);
}

/* The connection ends while the rest of a packet is awaited; the next one begins anew. */
static void an_end_before_the_rest_came(void)
{
    node n;
    rt_buf m = RT_BUF_INIT, b = RT_BUF_INIT;
    open_named(&n);
    rt_peer *p = peer_up(&n, "a@127.0.0.1");
    put_message(&m, "in", 3 * LARGE, 9);
    CHECK(rt_inbound_place(p, m.p, 100, m.n) != NULL);       /* in no chain yet */
    rt_peer_down(p);
    p = peer_up(&n, "a@127.0.0.1");
    put_fragment(&b, &m, 1, 3, true, 3, LARGE);
    CHECK(rt_inbound_place(p, b.p, 100, b.n) != NULL);
    rt_peer_down(p);
    p = peer_up(&n, "a@127.0.0.1");
    CHECK_INT(feed(&n, p, &b), RT_OK);
    put_fragment(&b, &m, 1, 2, false, 3 + LARGE, LARGE);
    CHECK(rt_inbound_place(p, b.p, 100, b.n) != NULL);
    CHECK_INT(rt_peer_up(p, RT_FLAGS_OURS, 1, &n.route.limits), RT_OK);
    CHECK_INT(rt_fragments_held(p->assembly), 0);
    CHECK_INT(feed_parts(&n, p, &b, 100, NULL), RT_EBAD);           /* of no message */
    put_message(&m, "in", LARGE, 3);
    CHECK_INT(feed_parts(&n, p, &m, 100, NULL), RT_OK);
    expect_binary(n.box, LARGE, 3);
    rt_buf_fini(&m);
    rt_buf_fini(&b);
    node_close(&n);
}

static void limits_hold_for_parts(void)
{
    for (int parts = 0; parts < 2; parts++) {
        node n;
        rt_buf m = RT_BUF_INIT, b = RT_BUF_INIT;
        size_t have = parts ? 200 : 0;
        open_named(&n);
        n.route.limits.message_bytes_max = 2 * LARGE + 10000;
        n.route.limits.fragments_in_flight_max = 2;
        rt_peer *p = peer_up(&n, "a@127.0.0.1");
        put_message(&m, "in", 6 * LARGE, 9);
        put_fragment(&b, &m, 1, 5, true, 3, LARGE);
        CHECK_INT(feed_parts(&n, p, &b, have, NULL), RT_OK);
        CHECK_INT(feed_parts(&n, p, &b, have, NULL), RT_EBAD);      /* once more */
        put_fragment(&b, &m, 1, 4, false, 3 + LARGE, LARGE);
        CHECK_INT(feed_parts(&n, p, &b, have, NULL), RT_OK);
        CHECK_INT(feed_parts(&n, p, &b, have, NULL), RT_EBAD);      /* once more */
        put_fragment(&b, &m, 1, 3, false, 3 + LARGE, LARGE);
        CHECK_INT(feed_parts(&n, p, &b, have, NULL), RT_ELIMIT);    /* the message */
        put_fragment(&b, &m, 2, 2, true, 3, LARGE);
        CHECK_INT(feed_parts(&n, p, &b, have, NULL), RT_ELIMIT);    /* all of them */
        put_fragment(&b, &m, 3, 2, true, 3, LARGE);
        CHECK_INT(feed_parts(&n, p, &b, have, NULL), RT_ELIMIT);    /* their number */
        put_fragment(&b, &m, 4, 1, true, 3, 3 * LARGE);
        CHECK_INT(feed_parts(&n, p, &b, have, NULL), RT_ELIMIT);    /* one alone */
        expect_nothing(n.box);
        rt_buf_fini(&m);
        rt_buf_fini(&b);
        node_close(&n);
    }
}

static void every_allocation_fails_once(void)
{
    rt_buf m = RT_BUF_INIT, b = RT_BUF_INIT;
    put_message(&m, "in", 2 * LARGE, 9);
    for (int kind = 0; kind < 3; kind++) {
        bool ended = false;
        for (long at = 0; !ended && at < 100; at++) {
            node n;
            open_named(&n);
            rt_peer *p = peer_up(&n, "a@127.0.0.1");
            put_fragment(&b, &m, 1, 2, true, 3, LARGE);
            if (kind == 2) {
                CHECK_INT(feed(&n, p, &b), RT_OK);
                put_fragment(&b, &m, 1, 1, false, 3 + LARGE, m.n - 3 - LARGE);
            }
            const rt_buf *packet = kind ? &b : &m;
            rt_alloc_fail_after(at);
            int rc = feed_parts(&n, p, packet, 100, NULL);
            rt_alloc_fail_after(-1);
            CHECK(rc == RT_OK || rc == RT_ENOMEM);
            if (rc == RT_OK && kind != 1) expect_binary(n.box, 2 * LARGE, 9);
            if (rc == RT_OK) {
                CHECK_INT(rt_fragments_in_flight(p->assembly), kind == 1);
                CHECK(kind == 1 || rt_fragments_held(p->assembly) == 0);
            }
            ended = rc == RT_OK && at > 20;
            node_close(&n);
        }
        CHECK(ended);
    }
    rt_buf_fini(&m);
    rt_buf_fini(&b);
}

typedef struct outcome {
    int64_t rc;
    uint64_t messages, bytes, dropped, boxed;
} outcome;

static outcome come_to(const rt_buf *packet, size_t n, size_t have, bool before)
{
    node x;
    rt_buf m = RT_BUF_INIT, b = RT_BUF_INIT;
    open_named(&x);
    x.route.limits.message_bytes_max = 3 * LARGE;
    rt_peer *p = peer_up(&x, "a@127.0.0.1");
    if (before) {
        put_message(&m, "in", 2 * LARGE, 9);
        put_fragment(&b, &m, 1, 2, true, 3, LARGE);
        CHECK_INT(feed(&x, p, &b), RT_OK);
    }
    rt_buf cut = {.p = packet->p, .n = n};
    outcome o = {.rc = feed_parts(&x, p, &cut, have, NULL)};
    o.messages = p->count.messages_in;
    o.bytes = p->count.bytes_in;
    o.dropped = p->count.dropped_in;
    for (rt_message *got; (got = rt_mailbox_pop(&x.box->mailbox)) != NULL; rt_message_free(got))
        o.boxed += 1 + got->n + rt_message_data(got)[got->n / 2];
    rt_buf_fini(&m);
    rt_buf_fini(&b);
    node_close(&x);
    return o;
}

/* What is wrong with a packet is found the same way, wherever it was cut. */
static void damaged_packets(void)
{
    stress_random r = {88172645463325252ull};
    rt_buf m = RT_BUF_INIT, b = RT_BUF_INIT;
    for (int i = 0; i < 6000; i++) {
        uint32_t kind = stress_below(&r, 3);
        put_message(&m, "in", 2 * LARGE, 9);
        if (kind == 0) put_message(&b, "in", LARGE, 7);
        if (kind == 1) put_fragment(&b, &m, 1, 1 + stress_below(&r, 2), true, 3, LARGE);
        if (kind == 2) put_fragment(&b, &m, 1, 1, false, 3 + LARGE, m.n - 3 - LARGE);
        for (uint32_t k = stress_below(&r, 4); k > 0; k--)
            b.p[stress_below(&r, 70)] = (uint8_t)stress_below(&r, 256);
        size_t n = stress_below(&r, 4) ? b.n : 100 + stress_below(&r, (uint32_t)b.n - 100);
        size_t have = 1 + stress_below(&r, stress_below(&r, 2) ? 90 : (uint32_t)n - 1);
        outcome whole = come_to(&b, n, 0, kind == 2), parts = come_to(&b, n, have, kind == 2);
        if (!CHECK(memcmp(&whole, &parts, sizeof whole) == 0)) {
            fprintf(stderr, "    %d kind %u n %zu have %zu\n", i, kind, n, have);
            break;
        }
    }
    rt_buf_fini(&m);
    rt_buf_fini(&b);
}

/* A header that uses a slot and then writes it means the old atom first, however it is cut. */
static void a_slot_used_and_written_in_one_header(void)
{
    for (size_t have = 0; have < 60; have++) {
        node n;
        rt_buf b = RT_BUF_INIT, payload = RT_BUF_INIT;
        open_named(&n);
        rt_peer *p = peer_up(&n, "a@127.0.0.1");
        /* slot 5: "in" */
        CHECK_INT(rt_buf_put(&b, "\203D\1\10\5\2inh\4a\6", 12), RT_OK);
        CHECK_INT(rt_buf_put(&b, SENDER.p, SENDER.n), RT_OK);
        CHECK_INT(rt_buf_put(&b, "w\0R\0a\1", 6), RT_OK);
        CHECK_INT(feed(&n, p, &b), RT_OK);
        rt_message *m = rt_mailbox_pop(&n.box->mailbox);
        if (CHECK(m != NULL)) rt_message_free(m);
        /* slot 5 as it is, then "no" */
        put_message(&payload, "in", LARGE, 4);
        b.n = 0;
        CHECK_INT(rt_buf_put(&b, "\203D\2\200\0\5\5\2noh\4a\6", 14), RT_OK);
        CHECK_INT(rt_buf_put(&b, SENDER.p, SENDER.n), RT_OK);
        CHECK_INT(rt_buf_put(&b, "w\0R\0", 4), RT_OK);
        CHECK_INT(rt_buf_put(&b, payload.p + payload.n - LARGE - 5, LARGE + 5), RT_OK);
        CHECK_INT(feed_parts(&n, p, &b, have, NULL), RT_OK);
        m = rt_mailbox_pop(&n.box->mailbox);
        if (!CHECK(m != NULL)) fprintf(stderr, "    have %zu\n", have);
        if (m) rt_message_free(m);
        rt_buf_fini(&b);
        rt_buf_fini(&payload);
        node_close(&n);
    }
}

TESTS(every_part_of_a_message, fragments_in_parts, bytes_are_counted_for_whom_they_came_from,
      an_end_before_the_rest_came, limits_hold_for_parts, every_allocation_fails_once,
      damaged_packets, a_slot_used_and_written_in_one_header)
