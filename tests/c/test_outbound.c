/* needs: route */
#include "check.h"

#include "base/cursor.h"
#include "dist/flags.h"
#include "route/multicast.h"
#include "route/outbound.h"
#include "route/peer.h"
#include "stress.h"
#include "term/ident.h"
#include "term/scan.h"
#include "term/tags.h"

#define S(literal) rt_slice_of(literal, sizeof(literal) - 1)
#define TO S("Xw\1b\0\0\0\x56\0\0\0\0\0\0\0\2")

static void compose(rt_buf *b, size_t n, const rt_limits *limits)
{
    b->n = 0;
    CHECK_INT(rt_outbound_begin(b), RT_OK);
    CHECK_INT(rt_control_send_sender(b, TO, TO), RT_OK);
    CHECK_INT(rt_buf_reserve(b, n + 5), RT_OK);
    rt_buf_u8(b, RT_TAG_BINARY);
    rt_buf_u32(b, (uint32_t)n);
    for (size_t i = 0; i < n; i++) rt_buf_u8(b, (uint8_t)(i * 13));
    CHECK_INT(rt_outbound_end(b, 0, limits), RT_OK);
}

/* All that waits, in one piece. */
static void flatten(const rt_outq *q, rt_buf *out)
{
    out->n = 0;
    for (int lane = 0; lane < 2; lane++)
        for (const rt_outchunk *c = q->lane[lane].first; c; c = c->next)
            CHECK_INT(rt_buf_put(out, c->data + c->off, c->n - c->off), RT_OK);
    CHECK_INT(out->n, q->bytes);
}

static uint64_t waiting(const rt_peer *p)
{
    return rt_outbound_count(p->out.lane[RT_LANE_PROMPT].first) +
           rt_outbound_count(p->out.lane[RT_LANE_BULK].first);
}

/* Writes so many bytes, in the order of the wire, after those in `out`. */
static void write_some(rt_outq *q, size_t n, rt_buf *out)
{
    struct iovec iov[RT_OUTQ_IOV_MAX];
    while (n > 0) {
        size_t done = 0;
        int k = rt_outq_snapshot(q, iov, RT_OUTQ_IOV_MAX, n, RT_OUTQ_SLICE_MIN);
        if (!CHECK(k > 0)) return;
        for (int i = 0; i < k; i++) {
            if (out) CHECK_INT(rt_buf_put(out, iov[i].iov_base, iov[i].iov_len), RT_OK);
            done += iov[i].iov_len;
        }
        rt_outq_consume(q, done);
        n -= done;
    }
}

/* Reads the fragments of one message and compares what they carry. */
static void check_fragments(rt_slice sent, rt_slice frame, uint64_t seq, const rt_limits *limits)
{
    rt_fragments *f = rt_fragments_new(4, limits->message_bytes_max, limits->term_depth_max, NULL);
    rt_atom_cache *cache = rt_atom_cache_new();
    rt_assembled whole;
    int done = 0;
    for (size_t at = 0; at < sent.n;) {
        size_t n = rt_load_u32(sent.p + at);
        rt_frame part;
        CHECK_INT(rt_frame_parse(cache, true, rt_slice_of(sent.p + at + 4, n), &part), RT_OK);
        CHECK_INT(part.sequence, seq);
        CHECK(part.body.n <= RT_FRAGMENT_BYTES + 64);
        CHECK_INT(done, 0);
        done = rt_fragments_feed(f, &part, &whole);
        at += 4 + n;
    }
    if (CHECK_INT(done, 1)) {
        rt_slice payload = rt_assembled_payload(&whole);
        size_t head = RT_FRAME_NORMAL_HEAD;
        CHECK_INT(whole.control.n + payload.n, frame.n - head);
        CHECK_BYTES(whole.control.p, frame.p + head, whole.control.n);
        CHECK_BYTES(payload.p, frame.p + head + whole.control.n, payload.n);
        rt_assembled_fini(&whole);
    }
    rt_fragments_free(f);
    rt_atom_cache_free(cache);
}

static void test_large_messages_are_cut(void)
{
    static const size_t sizes[] = {65000, 65536, 65537, 131072, 1 << 20, 3000001};
    rt_limits limits = rt_limits_default();
    rt_peers *peers = rt_peers_new(&limits);
    rt_peer *p = NULL;
    rt_buf b = RT_BUF_INIT, sent = RT_BUF_INIT;
    uint64_t seq = 0;
    CHECK_INT(rt_peers_get(peers, S("a@127.0.0.1"), &p), RT_OK);
    CHECK_INT(rt_peer_up(p, RT_FLAGS_OURS, 1, &limits), RT_OK);
    for (int i = 0; i < 6; i++) {
        compose(&b, sizes[i], &limits);
        CHECK_INT(rt_outbound_put(p, rt_slice_of(b.p, b.n), RT_LEAD_NONE, false, &limits, NULL, NULL), RT_OK);
        CHECK_INT(waiting(p), 1);
        flatten(&p->out, &sent);
        if (b.n > RT_FRAGMENT_BYTES)
            check_fragments(rt_slice_of(sent.p, sent.n), rt_slice_of(b.p, b.n), ++seq, &limits);
        else
            CHECK(rt_slice_eq(rt_slice_of(sent.p, sent.n), rt_slice_of(b.p, b.n)));
        /* Half a message that was not written is one that is lost. */
        write_some(&p->out, sent.n / 2, NULL);
        CHECK_INT(waiting(p), 1);
        write_some(&p->out, sent.n - sent.n / 2, NULL);
        CHECK_INT(waiting(p), 0);
    }
    rt_buf_fini(&b);
    rt_buf_fini(&sent);
    rt_peer_down(p);
    rt_peers_free(peers);
}

/* Whichever allocation fails, a message is queued whole or not at all. */
static void test_no_memory(void)
{
    rt_limits limits = rt_limits_default();
    rt_peers *peers = rt_peers_new(&limits);
    rt_peer *p = NULL;
    rt_buf small = RT_BUF_INIT, b = RT_BUF_INIT, sent = RT_BUF_INIT;
    long failures = 0;
    CHECK_INT(rt_peers_get(peers, S("a@127.0.0.1"), &p), RT_OK);
    CHECK_INT(rt_peer_up(p, RT_FLAGS_OURS, 1, &limits), RT_OK);
    compose(&small, 10, &limits);
    compose(&b, 200000, &limits);
    CHECK_INT(rt_outbound_put(p, rt_slice_of(small.p, small.n), RT_LEAD_NONE, false, &limits, NULL, NULL), RT_OK);
    for (long at = 0;; at++) {
        rt_alloc_fail_after(at);
        int rc = rt_outbound_put(p, rt_slice_of(b.p, b.n), RT_LEAD_NONE, false, &limits, NULL, NULL);
        rt_alloc_fail_after(-1);
        if (rc == RT_OK) break;
        failures++;
        CHECK_INT(rc, RT_ENOMEM);
        CHECK_INT(p->out.bytes, small.n);
        CHECK_INT(waiting(p), 1);
        CHECK_INT(p->count.messages_out, 1);
    }
    CHECK(failures >= 4); /* one for each fragment */
    flatten(&p->out, &sent);
    CHECK_INT(waiting(p), 2);
    check_fragments(rt_slice_of(sent.p + small.n, sent.n - small.n), rt_slice_of(b.p, b.n), 1,
                    &limits);
    rt_buf_fini(&small);
    rt_buf_fini(&b);
    rt_buf_fini(&sent);
    rt_peer_down(p);
    rt_peers_free(peers);
}

/* A message of one sender for one receiver, each a pid, a name or an alias, with its number in
 * the payload. */
typedef struct address {
    enum { TO_PID, TO_NAME, TO_ALIAS, SIGNAL, MULTICAST, ADDRESSES } kind;
    uint32_t who;
} address;

static void compose_to(rt_buf *b, uint32_t from, address to, uint32_t number, size_t n,
                       const rt_limits *limits)
{
    rt_buf sender = RT_BUF_INIT, receiver = RT_BUF_INIT;
    uint32_t words[3] = {to.who, 1, 2};
    char name[8];
    b->n = 0;
    CHECK_INT(rt_put_pid(&sender, S("a@b"), from, 0, 1), RT_OK);
    CHECK_INT(rt_outbound_begin(b), RT_OK);
    rt_slice s = rt_slice_of(sender.p, sender.n);
    switch (to.kind) {
    case TO_PID:
    case SIGNAL:
        CHECK_INT(rt_put_pid(&receiver, S("c@d"), to.who, 0, 1), RT_OK);
        CHECK_INT((to.kind == TO_PID ? rt_control_send_sender : rt_control_payload_exit2)(
                      b, s, rt_slice_of(receiver.p, receiver.n)), RT_OK);
        break;
    case MULTICAST:
        CHECK_INT(rt_control_reg_send(b, s, S(RT_MULTICAST_NAME)), RT_OK);
        break;
    case ADDRESSES:
        break;
    case TO_NAME:
        snprintf(name, sizeof name, "n%u", to.who);
        CHECK_INT(rt_control_reg_send(b, s, rt_slice_of(name, strlen(name))), RT_OK);
        break;
    case TO_ALIAS:
        CHECK_INT(rt_put_ref(&receiver, S("c@d"), 1, words, 3), RT_OK);
        CHECK_INT(rt_control_alias_send(b, s, rt_slice_of(receiver.p, receiver.n)), RT_OK);
        break;
    }
    CHECK_INT(rt_buf_reserve(b, n + 9), RT_OK);
    rt_buf_u8(b, RT_TAG_BINARY);
    rt_buf_u32(b, (uint32_t)n + 4);
    rt_buf_u32(b, number);
    for (size_t i = 0; i < n; i++) rt_buf_u8(b, (uint8_t)number);
    CHECK_INT(rt_outbound_end(b, 0, limits), RT_OK);
    rt_buf_fini(&sender);
    rt_buf_fini(&receiver);
}

/* The numbers of the messages on a wire, in the order in which they are whole. */
static size_t arrivals(rt_slice wire, uint32_t *number, size_t max, const rt_limits *limits)
{
    rt_fragments *f = rt_fragments_new(64, limits->message_bytes_max, limits->term_depth_max, NULL);
    rt_atom_cache *cache = rt_atom_cache_new();
    size_t found = 0;
    for (size_t at = 0; at + 4 <= wire.n;) {
        size_t n = rt_load_u32(wire.p + at);
        rt_frame part;
        rt_assembled whole;
        if (at + 4 + n > wire.n) break;
        CHECK_INT(rt_frame_parse(cache, true, rt_slice_of(wire.p + at + 4, n), &part), RT_OK);
        at += 4 + n;
        rt_slice payload;
        bool cut = part.kind != RT_FRAME_NORMAL;
        if (cut) {
            if (rt_fragments_feed(f, &part, &whole) == 0) continue;
            payload = rt_assembled_payload(&whole);
        } else {
            int64_t head = rt_term_skip(part.body.p, part.body.n);
            payload = rt_slice_of(part.body.p + head, part.body.n - (size_t)head);
        }
        CHECK_INT(payload.n, 5 + (size_t)rt_load_u32(payload.p + 1));
        uint32_t value = rt_load_u32(payload.p + 5);
        for (size_t i = 9; i < payload.n; i++)
            if (payload.p[i] != (uint8_t)value) CHECK_INT(payload.p[i], (uint8_t)value);
        if (CHECK(found < max)) number[found++] = value;
        if (cut) rt_assembled_fini(&whole);
    }
    rt_fragments_free(f);
    rt_atom_cache_free(cache);
    return found;
}

/* Whether Erlang, or a program that sends without a sender, counts on the order of two; signals
 * pass nothing that comes before them, and nothing passes a multicast. */
static bool ordered(uint32_t from, address to, uint32_t from2, address to2)
{
    if (to2.kind == SIGNAL || to.kind == MULTICAST || to2.kind == MULTICAST) return true;
    int kind = to.kind == SIGNAL ? TO_PID : (int)to.kind;
    if (kind == (int)to2.kind && to.who == to2.who) return true;
    return from == from2 && (kind != (int)to2.kind || kind == TO_ALIAS);
}

static void test_what_passes_a_large_message(void)
{
    rt_limits limits = rt_limits_default();
    rt_peers *peers = rt_peers_new(&limits);
    rt_peer *p = NULL;
    rt_buf b = RT_BUF_INIT, wire = RT_BUF_INIT;
    CHECK_INT(rt_peers_get(peers, S("a@127.0.0.1"), &p), RT_OK);
    for (uint32_t i = 0; i < ADDRESSES * ADDRESSES * 2 * 2; i++) {
        address large = {i % ADDRESSES, 1};
        address small = {i / ADDRESSES % ADDRESSES, 1 + i / ADDRESSES / ADDRESSES % 2};
        uint32_t from = 1 + i / ADDRESSES / ADDRESSES / 2, number[2] = {0};
        CHECK_INT(rt_peer_up(p, RT_FLAGS_OURS, 1, &limits), RT_OK);
        compose_to(&b, 1, large, 1, 300000, &limits);
        CHECK_INT(rt_outbound_put(p, rt_slice_of(b.p, b.n), RT_LEAD_NONE, false, &limits, NULL, NULL), RT_OK);
        wire.n = 0;
        write_some(&p->out, 100000, &wire);         /* in the middle of a fragment */
        compose_to(&b, from, small, 2, 10, &limits);
        CHECK_INT(rt_outbound_put(p, rt_slice_of(b.p, b.n), RT_LEAD_NONE, false, &limits, NULL, NULL), RT_OK);
        CHECK_INT(waiting(p), 2);
        write_some(&p->out, p->out.bytes, &wire);
        CHECK_INT(arrivals(rt_slice_of(wire.p, wire.n), number, 2, &limits), 2);
        CHECK_INT(number[0], ordered(1, large, from, small) ? 1 : 2);
        CHECK(!rt_outq_bulk(&p->out));
        rt_peer_down(p);
    }
    rt_buf_fini(&b);
    rt_buf_fini(&wire);
    rt_peers_free(peers);
}

/* What was lost with a connection holds nobody back on the next; an old peer has one lane. */
static void test_lanes_of_other_connections(void)
{
    rt_limits limits = rt_limits_default();
    rt_peers *peers = rt_peers_new(&limits);
    rt_peer *p = NULL;
    rt_buf b = RT_BUF_INIT, wire = RT_BUF_INIT;
    CHECK_INT(rt_peers_get(peers, S("a@127.0.0.1"), &p), RT_OK);
    for (int old = 0; old < 2; old++) {
        uint64_t flags = old ? RT_FLAGS_OURS & ~RT_F_ALIAS : RT_FLAGS_OURS;
        uint32_t number[2] = {0};
        for (uint32_t who = 1; who <= 2; who++) {
            CHECK_INT(rt_peer_up(p, flags, 1, &limits), RT_OK);
            compose_to(&b, 1, (address){TO_PID, who}, 1, 300000, &limits);
            CHECK_INT(rt_outbound_put(p, rt_slice_of(b.p, b.n), RT_LEAD_NONE, false, &limits, NULL, NULL), RT_OK);
            if (who == 1) CHECK_INT(rt_peer_down(p), 1);
        }
        compose_to(&b, 1, (address){TO_PID, old ? 2 : 1}, 2, 10, &limits);
        CHECK_INT(rt_outbound_put(p, rt_slice_of(b.p, b.n), RT_LEAD_NONE, false, &limits, NULL, NULL), RT_OK);
        wire.n = 0;
        write_some(&p->out, p->out.bytes, &wire);
        CHECK_INT(arrivals(rt_slice_of(wire.p, wire.n), number, 2, &limits), 2);
        CHECK_INT(number[0], old ? 1 : 2);
        rt_peer_down(p);
    }
    rt_buf_fini(&b);
    rt_buf_fini(&wire);
    rt_peers_free(peers);
}

static void test_order(void)
{
    enum { MESSAGES = 3000 };
    static uint32_t from[MESSAGES], number[MESSAGES];
    static address to[MESSAGES];
    stress_random random = {5};
    rt_limits limits = rt_limits_default();
    rt_peers *peers = rt_peers_new(&limits);
    rt_peer *p = NULL;
    rt_buf b = RT_BUF_INIT, wire = RT_BUF_INIT;
    uint32_t put = 0, passed = 0;
    CHECK_INT(rt_peers_get(peers, S("a@127.0.0.1"), &p), RT_OK);
    rt_peer_set_state(p, RT_PEER_CONNECTING);
    while (put < MESSAGES) {
        from[put] = stress_below(&random, 12);
        to[put] = (address){stress_below(&random, 100) ? stress_below(&random, SIGNAL)
                                                      : stress_below(&random, ADDRESSES),
                            stress_below(&random, 12)};
        bool large = stress_below(&random, 8) == 0;
        size_t n = large ? 65000 + stress_below(&random, 200000) : stress_below(&random, 2000);
        compose_to(&b, from[put], to[put], put, n, &limits);
        put++;
        if (n < 2000 && put < MESSAGES && stress_below(&random, 2)) {    /* two in one go */
            rt_buf two = RT_BUF_INIT;
            from[put] = from[put - 1];
            to[put] = to[put - 1];
            compose_to(&two, from[put], to[put], put, 5, &limits);
            CHECK_INT(rt_buf_put(&b, two.p, two.n), RT_OK);
            put++;
            rt_buf_fini(&two);
        }
        CHECK_INT(rt_outbound_put(p, rt_slice_of(b.p, b.n), RT_LEAD_NONE, false, &limits, NULL, NULL), RT_OK);
        if (put > 50 && rt_peer_state_of(p) != RT_PEER_UP)
            CHECK_INT(rt_peer_up(p, RT_FLAGS_OURS, 1, &limits), RT_OK);
        if (put > 100 && put < MESSAGES - 50 && stress_below(&random, 3) == 0) {
            size_t some = stress_below(&random, 200000);
            write_some(&p->out, some < p->out.bytes ? some : p->out.bytes, &wire);
        }
    }
    uint64_t left = waiting(p);
    size_t got = arrivals(rt_slice_of(wire.p, wire.n), number, MESSAGES, &limits);
    CHECK_INT(left + got, MESSAGES);
    CHECK(left > 10);
    write_some(&p->out, p->out.bytes, &wire);
    CHECK_INT(arrivals(rt_slice_of(wire.p, wire.n), number, MESSAGES, &limits), MESSAGES);
    for (size_t i = 0; i < MESSAGES; i++) {
        for (size_t j = i + 1; j < MESSAGES; j++) {
            uint32_t one = number[i], other = number[j];
            if (one < other) continue;
            passed++;
            if (ordered(from[other], to[other], from[one], to[one])) CHECK_INT(one, other);
        }
    }
    CHECK(passed > 500);
    rt_buf_fini(&b);
    rt_buf_fini(&wire);
    rt_peer_down(p);
    rt_peers_free(peers);
}

/* Of several frames in one go those before a failure are queued, and are those that it says. */
static void test_no_memory_beside_bulk(void)
{
    rt_limits limits = rt_limits_default();
    rt_peers *peers = rt_peers_new(&limits);
    rt_peer *p = NULL;
    rt_buf b = RT_BUF_INIT, one = RT_BUF_INIT;
    address to = {TO_PID, 1};
    int failures = 0;
    CHECK_INT(rt_peers_get(peers, S("a@127.0.0.1"), &p), RT_OK);
    for (long at = 0;; at++) {
        rt_queued how;
        CHECK_INT(rt_peer_up(p, RT_FLAGS_OURS, 1, &limits), RT_OK);
        compose_to(&b, 1, to, 0, 100000, &limits);
        CHECK_INT(rt_outbound_put(p, rt_slice_of(b.p, b.n), RT_LEAD_NONE, false, &limits, NULL, NULL), RT_OK);
        uint64_t out = p->count.messages_out;
        b.n = 0;
        for (uint32_t i = 1; i < 4; i++) {
            compose_to(&one, 1, to, i, 10, &limits);
            CHECK_INT(rt_buf_put(&b, one.p, one.n), RT_OK);
        }
        rt_alloc_fail_after(at);
        int rc = rt_outbound_put(p, rt_slice_of(b.p, b.n), RT_LEAD_NONE, false, &limits, NULL, &how);
        rt_alloc_fail_after(-1);
        CHECK_INT(how.taken, (p->count.messages_out - out) * one.n);
        CHECK_INT(waiting(p), 1 + p->count.messages_out - out);
        CHECK(rc == RT_OK ? how.taken == b.n : rc == RT_ENOMEM && how.taken < b.n);
        failures += rc == RT_ENOMEM;
        rt_peer_down(p);
        if (rc == RT_OK) break;
    }
    CHECK(failures >= 3);
    rt_buf_fini(&b);
    rt_buf_fini(&one);
    rt_peers_free(peers);
}

/* What a body stands in, and how many of its references were given back for the last time. */
typedef struct owned {
    rt_shared shared;
    int releases;
} owned;

static void release(rt_shared *s) { RT_CONTAINER_OF(s, owned, shared)->releases++; }

/* A message without its body, of `before` and `after` bytes around it, and with it. */
static void compose_apart(rt_buf *b, rt_buf *whole, rt_body *body, size_t before, size_t after)
{
    const size_t first = 5 + before, last = 5 + after;
    b->n = 0;
    CHECK_INT(rt_outbound_begin(b), RT_OK);
    CHECK_INT(rt_control_send_sender(b, TO, TO), RT_OK);
    CHECK_INT(rt_buf_reserve(b, 7 + first + last), RT_OK);
    rt_buf_raw(b, after ? "h\3" : "h\2", 2);
    rt_buf_u8(b, RT_TAG_BINARY);
    rt_buf_u32(b, (uint32_t)before);
    for (size_t i = 0; i < before; i++) rt_buf_u8(b, (uint8_t)(i * 3));
    rt_buf_u8(b, RT_TAG_BINARY);
    rt_buf_u32(b, (uint32_t)body->n);
    body->at = b->n;
    if (after) {
        rt_buf_u8(b, RT_TAG_BINARY);
        rt_buf_u32(b, (uint32_t)after);
        for (size_t i = 0; i < after; i++) rt_buf_u8(b, (uint8_t)(i * 5));
    }
    whole->n = 0;
    CHECK_INT(rt_buf_put(whole, b->p, body->at), RT_OK);
    CHECK_INT(rt_buf_put(whole, body->p, body->n), RT_OK);
    CHECK_INT(rt_buf_put(whole, b->p + body->at, b->n - body->at), RT_OK);
}

static void test_a_body_is_referred_to(void)
{
    static const size_t sizes[] = {40000, 65000, 65536, 66000, 70000, 131072, 1 << 20, 1048575};
    static const size_t beside[][2] = {{0, 0}, {1, 0}, {4000, 0}, {0, 1}, {20, 4000}};
    static uint8_t bytes[1 << 20];
    rt_limits limits = rt_limits_default();
    rt_peers *peers = rt_peers_new(&limits);
    rt_peer *p = NULL;
    rt_buf b = RT_BUF_INIT, whole = RT_BUF_INIT, wire = RT_BUF_INIT;
    rt_queued how;
    uint64_t seq = 0;
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)(i * 13 + (i >> 9));
    CHECK_INT(rt_peers_get(peers, S("a@127.0.0.1"), &p), RT_OK);
    CHECK_INT(rt_peer_up(p, RT_FLAGS_OURS, 1, &limits), RT_OK);
    for (size_t i = 0; i < 8; i++) {
        for (size_t k = 0; k < 5; k++) {
            owned own = {0};
            rt_body body = {0, sizes[i], bytes, &own.shared};
            rt_shared_init(&own.shared, release);
            compose_apart(&b, &whole, &body, beside[k][0], beside[k][1]);
            int rc = rt_outbound_put_body(p, rt_slice_of(b.p, b.n), &body, &limits, &how);
            CHECK_INT(rc, RT_OK);
            CHECK_INT(how.taken, whole.n);
            CHECK_INT(waiting(p), 1);
            rt_shared_rele(&own.shared);
            wire.n = 0;
            write_some(&p->out, p->out.bytes - 1, &wire);
            CHECK_INT(waiting(p), 1);
            CHECK_INT(own.releases, wire.n > 0 && beside[k][1] > 0);
            write_some(&p->out, 1, &wire);
            CHECK_INT(waiting(p), 0);
            CHECK_INT(own.releases, 1);
            rt_frame_head_normal(whole.p, whole.n - RT_FRAME_NORMAL_HEAD);
            if (whole.n <= RT_FRAGMENT_BYTES + RT_FRAGMENT_SLACK && beside[k][1] == 0)
                CHECK(rt_slice_eq(rt_slice_of(wire.p, wire.n), rt_slice_of(whole.p, whole.n)));
            else
                check_fragments(rt_slice_of(wire.p, wire.n), rt_slice_of(whole.p, whole.n), ++seq,
                                &limits);
        }
    }
    CHECK_INT(p->count.messages_out, 40);
    rt_peer_down(p);
    rt_buf_fini(&b);
    rt_buf_fini(&whole);
    rt_buf_fini(&wire);
    rt_peers_free(peers);
}

static void test_a_body_that_is_refused(void)
{
    static const uint8_t bytes[200000];
    rt_limits limits = rt_limits_default();
    rt_peers *peers = rt_peers_new(&limits);
    rt_peer *p = NULL;
    rt_buf b = RT_BUF_INIT, whole = RT_BUF_INIT;
    owned own = {0};
    rt_body body = {0, sizeof bytes, bytes, &own.shared};
    rt_queued how;
    rt_shared_init(&own.shared, release);
    compose_apart(&b, &whole, &body, 10, 10);
    CHECK_INT(rt_peers_get(peers, S("a@127.0.0.1"), &p), RT_OK);
    rt_slice frame = rt_slice_of(b.p, b.n);
    CHECK_INT(rt_outbound_put_body(p, frame, &body, &limits, &how), RT_ENOTCONN);
    CHECK_INT(rt_peer_up(p, RT_FLAGS_OURS & ~(uint64_t)RT_F_FRAGMENTS, 1, &limits), RT_OK);
    CHECK_INT(rt_outbound_put_body(p, frame, &body, &limits, &how), RT_AGAIN);
    rt_peer_down(p);
    CHECK_INT(rt_peer_up(p, RT_FLAGS_OURS, 1, &limits), RT_OK);
    limits.message_bytes_max = whole.n - RT_FRAME_NORMAL_HEAD - 1;
    CHECK_INT(rt_outbound_put_body(p, frame, &body, &limits, &how), RT_ELIMIT);
    limits.message_bytes_max++;
    limits.queue_bytes_max = 1000;
    for (long at = 0;; at++) { /* all or nothing */
        rt_alloc_fail_after(at);
        int rc = rt_outbound_put_body(p, frame, &body, &limits, &how);
        rt_alloc_fail_after(-1);
        if (rc == RT_OK) break;
        CHECK_INT(rc, RT_ENOMEM);
        CHECK_INT(p->out.bytes, 0);
        CHECK_INT(waiting(p), 0);
        CHECK_INT(own.shared.refs, 1);
    }
    CHECK_INT(waiting(p), 1);
    size_t bytes_before = p->out.bytes;
    CHECK_INT(rt_outbound_put_body(p, frame, &body, &limits, &how), RT_EFULL);
    CHECK_INT(p->out.bytes, bytes_before);
    CHECK_INT(p->count.refused, 1);
    /* Too much beside it is not worth a reference. */
    limits = rt_limits_default();
    compose_apart(&b, &whole, &body, RT_BODY_BESIDE_MAX, 0);
    frame = rt_slice_of(b.p, b.n);
    CHECK_INT(rt_outbound_put_body(p, frame, &body, &limits, &how), RT_AGAIN);
    compose_apart(&b, &whole, &body, 0, RT_BODY_BESIDE_MAX);
    frame = rt_slice_of(b.p, b.n);
    CHECK_INT(rt_outbound_put_body(p, frame, &body, &limits, &how), RT_AGAIN);
    CHECK_INT(own.releases, 0);
    rt_peer_down(p); /* with one that waits */
    rt_shared_rele(&own.shared);
    CHECK_INT(own.releases, 1);
    rt_buf_fini(&b);
    rt_buf_fini(&whole);
    rt_peers_free(peers);
}

TESTS(test_a_body_is_referred_to, test_a_body_that_is_refused, test_large_messages_are_cut, test_no_memory,
      test_what_passes_a_large_message, test_lanes_of_other_connections, test_order, test_no_memory_beside_bulk)
