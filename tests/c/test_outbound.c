/* needs: route */
#include "check.h"

#include "base/cursor.h"
#include "dist/flags.h"
#include "route/outbound.h"
#include "route/peer.h"
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
    for (const rt_outchunk *c = q->first; c; c = c->next)
        CHECK_INT(rt_buf_put(out, c->data + c->off, c->n - c->off), RT_OK);
    CHECK_INT(out->n, q->bytes);
}

/* Reads the fragments of one message and compares what they carry. */
static void check_fragments(rt_slice sent, rt_slice frame, uint64_t seq, const rt_limits *limits)
{
    rt_fragments *f = rt_fragments_new(4, limits->message_bytes_max, limits->term_depth_max);
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
        CHECK_INT(rt_outbound_put(p, rt_slice_of(b.p, b.n), false, &limits, NULL), RT_OK);
        CHECK_INT(rt_outbound_count(p->out.first), 1);
        flatten(&p->out, &sent);
        if (b.n > RT_FRAGMENT_BYTES)
            check_fragments(rt_slice_of(sent.p, sent.n), rt_slice_of(b.p, b.n), ++seq, &limits);
        else
            CHECK(rt_slice_eq(rt_slice_of(sent.p, sent.n), rt_slice_of(b.p, b.n)));
        /* Half a message that was not written is one that is lost. */
        rt_outq_consume(&p->out, sent.n / 2);
        CHECK_INT(rt_outbound_count(p->out.first), 1);
        rt_outq_consume(&p->out, sent.n - sent.n / 2);
        CHECK_INT(rt_outbound_count(p->out.first), 0);
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
    CHECK_INT(rt_outbound_put(p, rt_slice_of(small.p, small.n), false, &limits, NULL), RT_OK);
    for (long at = 0;; at++) {
        rt_alloc_fail_after(at);
        int rc = rt_outbound_put(p, rt_slice_of(b.p, b.n), false, &limits, NULL);
        rt_alloc_fail_after(-1);
        if (rc == RT_OK) break;
        failures++;
        CHECK_INT(rc, RT_ENOMEM);
        CHECK_INT(p->out.bytes, small.n);
        CHECK_INT(rt_outbound_count(p->out.first), 1);
        CHECK_INT(p->count.messages_out, 1);
    }
    CHECK(failures >= 4); /* one for each fragment */
    flatten(&p->out, &sent);
    CHECK_INT(rt_outbound_count(p->out.first), 2);
    check_fragments(rt_slice_of(sent.p + small.n, sent.n - small.n), rt_slice_of(b.p, b.n), 1,
                    &limits);
    rt_buf_fini(&small);
    rt_buf_fini(&b);
    rt_buf_fini(&sent);
    rt_peer_down(p);
    rt_peers_free(peers);
}

TESTS(test_large_messages_are_cut, test_no_memory)
