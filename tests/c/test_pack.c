/* needs: route */
/* Messages to one receiver share a frame: what one side queues, the other is fed. */
#include "pack.h"

static void test_messages_of_one_way_share_a_frame(void)
{
    pair t;
    pair_open(&t, true);
    for (uint32_t i = 0; i < 5; i++) CHECK_INT(put(&t, 1, i, 10), RT_OK);
    CHECK_INT(rt_outbound_count(t.there->out.lane[RT_LANE_PROMPT].first), 5);
    CHECK_INT(t.there->count.messages_out, 5);
    CHECK_INT(t.there->count.bytes_out, t.there->out.bytes);
    CHECK_INT(put(&t, -1, 5, 10), RT_OK); /* another way */
    CHECK_INT(put(&t, -1, 6, 10), RT_OK);
    CHECK_INT(put(&t, 1, 7, 10), RT_OK);  /* and the first again, alone */
    write_some(&t, SIZE_MAX);
    CHECK_INT(read_all(&t), 3);
    CHECK_INT(t.here->count.messages_in, 8);
    CHECK_INT(t.here->count.bytes_in, t.there->count.bytes_out);
    for (int i = 0; i < 5; i++) CHECK_INT(next(&t, 1), i);
    CHECK_INT(next(&t, 1), 7);
    CHECK_INT(next(&t, 1), -1);
    CHECK_INT(next(&t, 0), 5);
    CHECK_INT(next(&t, 0), 6);
    pair_close(&t);
}

/* What somebody may be writing is not touched any more, nor what has another behind it. */
static void test_what_ends_a_frame(void)
{
    pair t;
    pair_open(&t, true);
    CHECK_INT(put(&t, 1, 0, 10), RT_OK);
    CHECK_INT(put(&t, 1, 1, 10), RT_OK);
    write_some(&t, 9);                   /* within the first head */
    CHECK_INT(put(&t, 1, 2, 10), RT_OK);
    CHECK_INT(put(&t, 1, 3, 10), RT_OK);
    rt_buf b = RT_BUF_INIT;              /* a signal */
    compose(&t, &b, 2, 99, 1);
    CHECK_INT(rt_outbound_put(t.there, rt_slice_of(b.p, b.n), RT_LEAD_NONE, true, &t.limits, NULL, NULL), RT_OK);
    rt_buf_fini(&b);
    CHECK_INT(put(&t, 1, 4, RT_PACK_BYTES_MAX - 200), RT_OK);
    CHECK_INT(put(&t, 1, 5, 150), RT_OK); /* too much for the same frame */
    CHECK_INT(put(&t, 1, 6, 2 * RT_FRAGMENT_BYTES), RT_OK); /* two fragments */
    CHECK_INT(put(&t, 1, 7, 10), RT_OK);  /* behind these, and so is the next */
    CHECK_INT(put(&t, 1, 8, 10), RT_OK);
    while (t.there->out.bytes) write_some(&t, SIZE_MAX);
    CHECK_INT(read_all(&t), 1 + 1 + 1 + 2 + 3 + 2);
    for (int i = 0; i < 9; i++) CHECK_INT(next(&t, 1), i);
    CHECK_INT(next(&t, 2), 99);
    pair_close(&t);
}

/* What joins by number alone is, byte for byte, what joins by its head. */
static void test_a_payload_joins_by_number(void)
{
    static const struct { int to; size_t n; bool joins; } sent[] = {
        {1, 10, false}, {1, 10, true}, {1, 3, false}, {1, 10, true}, {2, 10, false},
        {1, 10, false}, {1, 10, true}, {-1, 10, false}, {-1, 10, true}, {1, 10, true},
        {1, RT_PACK_BYTES_MAX, false}, {1, 10, false}, {1, RT_PACK_BYTES_MAX - 200, true},
        {1, 200, false}};
    pair t, plain;
    bool joined;
    pair_open(&t, true);
    pair_open(&plain, true);
    for (uint32_t i = 0; i < sizeof sent / sizeof sent[0]; i++) {
        CHECK_INT(join_or_put(&t, sent[i].to, i, sent[i].n, &joined), RT_OK);
        CHECK_INT(joined, sent[i].joins);
        CHECK_INT(put_numbered(&plain, sent[i].to, i, sent[i].n, number_of(sent[i].to)), RT_OK);
    }
    CHECK_INT(t.there->count.messages_out, plain.there->count.messages_out);
    CHECK_INT(t.there->count.bytes_out, plain.there->count.bytes_out);
    write_some(&t, SIZE_MAX);
    write_some(&plain, SIZE_MAX);
    CHECK_INT(t.wire.n, plain.wire.n);
    CHECK(memcmp(t.wire.p, plain.wire.p, t.wire.n) == 0);
    CHECK_INT(join_or_put(&t, 1, 0, 10, &joined), RT_OK);
    CHECK(!joined); /* what came before is written */
    pair_close(&t);
    pair_close(&plain);
}

/* The limits count a payload that joins as if it stood in a frame of its own. */
static void test_what_may_not_join(void)
{
    pair t;
    bool joined;
    pair_open(&t, true);
    size_t soft = t.limits.queue_bytes_soft;
    CHECK_INT(join_or_put(&t, 1, 0, 50, &joined), RT_OK);
    size_t frame = t.there->out.bytes;
    t.limits.queue_bytes_max = 2 * frame - 1;
    CHECK_INT(join_or_put(&t, 1, 1, 50, &joined), RT_EFULL);
    CHECK(!joined);
    t.limits.queue_bytes_max = 2 * frame;
    t.limits.queue_bytes_soft = frame;
    CHECK_INT(join_or_put(&t, 1, 1, 50, &joined), RT_OK);
    CHECK(joined && t.there->above_soft);
    t.limits = t.n.route.limits;
    t.limits.queue_bytes_soft = soft;
    t.limits.message_bytes_max = frame - 1;
    CHECK_INT(join_or_put(&t, 1, 2, 50, &joined), RT_OK);
    CHECK(!joined);
    t.limits = t.n.route.limits;
    CHECK_INT(put(&t, 1, 3, 50), RT_OK); /* it has joined, and its lead has no number */
    CHECK_INT(join_or_put(&t, 1, 4, 50, &joined), RT_OK);
    CHECK(!joined);
    CHECK_INT(join_or_put(&t, 1, 5, 50, &joined), RT_OK);
    CHECK(joined);
    CHECK_INT(join_or_put(&t, 1, 6, 2 * RT_FRAGMENT_BYTES, &joined), RT_OK); /* the bulk lane */
    CHECK_INT(join_or_put(&t, 1, 7, 50, &joined), RT_OK);
    CHECK(!joined);
    while (t.there->out.bytes) write_some(&t, SIZE_MAX);
    read_all(&t);
    for (int i = 0; i < 8; i++) CHECK_INT(next(&t, 1), i);
    CHECK_INT(join_or_put(&t, 1, 8, 50, &joined), RT_OK);
    rt_peer_down(t.there);
    CHECK_INT(join_or_put(&t, 1, 9, 50, &joined), RT_ENOTCONN);
    CHECK(!joined);
    pair_close(&t);
}

static void test_who_does_not_unpack_gets_frames(void)
{
    pair t;
    pair_open(&t, false);
    for (uint32_t i = 0; i < 5; i++) CHECK_INT(put(&t, 1, i, 10), RT_OK);
    write_some(&t, SIZE_MAX);
    CHECK_INT(read_all(&t), 5);
    for (int i = 0; i < 5; i++) CHECK_INT(next(&t, 1), i);
    pair_close(&t);
}

/* Several frames with one head, up to the hard limit of the queue: those before it are taken. */
static void test_many_at_once_and_the_limit(void)
{
    pair t;
    rt_buf b = RT_BUF_INIT;
    rt_queued how;
    size_t head = 0, each = 0;
    pair_open(&t, true);
    for (uint32_t i = 0; i < 100; i++) {
        head = compose(&t, &b, 1, i, 10);
        if (i == 0) each = b.n;
    }
    t.limits.queue_bytes_max = 40 * each + 3;
    CHECK_INT(rt_outbound_put(t.there, rt_slice_of(b.p, b.n), (rt_lead){head, 0}, false,
                                 &t.limits, NULL, &how),
              RT_EFULL);
    CHECK_INT(how.taken, 40 * each);
    CHECK_INT(t.there->count.messages_out, 40);
    CHECK_INT(t.there->out.bytes, 40 * (each - head) + head);
    CHECK_INT(rt_outbound_count(t.there->out.lane[RT_LANE_PROMPT].first), 40);
    write_some(&t, SIZE_MAX);
    CHECK_INT(read_all(&t), 1);
    for (int i = 0; i < 40; i++) CHECK_INT(next(&t, 1), i);
    CHECK_INT(next(&t, 1), -1);
    rt_buf_fini(&b);
    pair_close(&t);
}

/* A pack as a peer might send it, cut at every byte; and from one that may not. */
static void test_bad_packs(void)
{
    pair t, other;
    rt_buf b = RT_BUF_INIT;
    pair_open(&t, true);
    pair_open(&other, false);
    for (uint32_t i = 0; i < 3; i++) CHECK_INT(put(&t, 1, i, 10), RT_OK);
    write_some(&t, SIZE_MAX);
    size_t n = t.wire.n - 4, head = compose(&t, &b, 1, 0, 10) - 4;
    for (size_t cut = 0; cut < n; cut++) {
        unsigned char *copy = check_copy(t.wire.p + 4, cut);
        int rc = rt_inbound_packet(&t.n.in, t.here, copy, cut);
        bool whole = cut == 0 || (cut > head && (cut - head) % 22 == 0);
        free(copy);
        rt_inbound_flush(&t.n.in);
        CHECK_INT(rc, whole ? RT_OK : RT_EBAD);
        for (size_t i = 0; cut > head && i < (cut - head) / 22; i++) CHECK_INT(next(&t, 1), i);
        CHECK_INT(next(&t, 1), -1);
    }
    CHECK_INT(rt_inbound_packet(&other.n.in, other.here, t.wire.p + 4, n), RT_EBAD);
    rt_buf_fini(&b);
    pair_close(&t);
    pair_close(&other);
}

/* What a packet may ask for is bounded: it is not longer than honest ones, and no message of it but
 * the first is shorter. */
static void test_what_a_pack_may_hold(void)
{
    pair t;
    rt_buf b = RT_BUF_INIT;
    pair_open(&t, true);
    size_t head = compose(&t, &b, 1, 0, 4); /* a message of 16 bytes: see the next checks */
    CHECK_INT(b.n - head, RT_PACK_PAYLOAD_MIN);
    b.p[RT_FRAME_NORMAL_HEAD + RT_CONTROL_OP_AT] |= RT_OP_PACK;
    size_t most = (RT_PACK_BYTES_MAX + 4 - head) / RT_PACK_PAYLOAD_MIN;
    CHECK_INT(rt_buf_reserve(&b, RT_PACK_BYTES_MAX), RT_OK);
    while (b.n < head + most * RT_PACK_PAYLOAD_MIN)
        CHECK_INT(rt_buf_put(&b, b.p + head, RT_PACK_PAYLOAD_MIN), RT_OK);
    for (int again = 0; again < 2; again++) { /* parsed, and remembered */
        CHECK_INT(rt_buf_put(&b, b.p + head, RT_PACK_PAYLOAD_MIN), RT_OK);
        CHECK_INT(rt_inbound_packet(&t.n.in, t.here, b.p + 4, b.n - 4), RT_EBAD);
        b.n -= RT_PACK_PAYLOAD_MIN;
        CHECK_INT(rt_inbound_packet(&t.n.in, t.here, b.p + 4, b.n - 4), RT_OK);
        rt_inbound_flush(&t.n.in);
        for (size_t i = 0; i < most; i++) CHECK_INT(next(&t, 1), 0);
        CHECK_INT(next(&t, 1), -1);
    }
    b.n = head + RT_PACK_PAYLOAD_MIN;
    CHECK_INT(rt_buf_put(&b, "m\0\0\0\x0axxxxxxxxxx", 15), RT_OK);
    CHECK_INT(rt_inbound_packet(&t.n.in, t.here, b.p + 4, b.n - 4), RT_EBAD);
    CHECK_INT(put(&t, 1, 0, 20), RT_OK);    /* and short ones are not sent so */
    CHECK_INT(put(&t, 1, 1, 3), RT_OK);
    CHECK_INT(put(&t, 1, 2, 4), RT_OK);     /* but may begin a pack */
    write_some(&t, SIZE_MAX);
    CHECK_INT(read_all(&t), 2);
    CHECK_INT(next(&t, 1), 0); /* of the pack that was refused at its second message */
    for (int i = 0; i < 3; i++) CHECK_INT(next(&t, 1), i);
    CHECK_INT(next(&t, 1), -1);
    rt_buf_fini(&b);
    pair_close(&t);
}

/* Fragments hold one message: its memory becomes the message. */
static void test_a_pack_in_fragments(void)
{
    pair t;
    pair_open(&t, true);
    CHECK_INT(put(&t, 1, 0, 2 * RT_FRAGMENT_BYTES), RT_OK);
    while (t.there->out.bytes) write_some(&t, SIZE_MAX);
    t.wire.p[RT_FRAME_FRAG_FIRST_HEAD + RT_CONTROL_OP_AT] |= RT_OP_PACK;
    for (int rc = RT_OK; rc == RT_OK;) {
        size_t n = rt_load_u32(t.wire.p + t.read);
        rc = rt_inbound_packet(&t.n.in, t.here, t.wire.p + t.read + 4, n);
        t.read += 4 + n;
        CHECK_INT(rc, t.read < t.wire.n ? RT_OK : RT_EBAD);
    }
    rt_inbound_flush(&t.n.in);
    CHECK_INT(next(&t, 1), -1);
    pair_close(&t);
}

/* Whichever allocation fails, what was accepted is what is queued. */
static void test_no_memory(void)
{
    bool done = false;
    for (long at = 0; !done; at++) {
        pair t;
        rt_buf b = RT_BUF_INIT;
        rt_queued how;
        size_t head = 0;
        pair_open(&t, true);
        for (uint32_t i = 0; i < 3000; i++) head = compose(&t, &b, 1, i, 10);
        rt_alloc_fail_after(at);
        int rc = rt_outbound_put(t.there, rt_slice_of(b.p, b.n), (rt_lead){head, 0}, false,
                                 &t.limits, NULL, &how);
        rt_alloc_fail_after(-1);
        done = rc == RT_OK;
        if (!done) CHECK_INT(rc, RT_ENOMEM);
        uint64_t count = rt_outbound_count(t.there->out.lane[RT_LANE_PROMPT].first);
        CHECK_INT(t.there->count.messages_out, count);
        CHECK_INT(count, done ? 3000 : how.taken / (b.n / 3000));
        while (t.there->out.bytes) write_some(&t, SIZE_MAX);
        read_all(&t);
        for (uint64_t i = 0; i < count; i++) CHECK_INT(next(&t, 1), i);
        CHECK_INT(next(&t, 1), -1);
        if (done) CHECK(at > 1);
        rt_buf_fini(&b);
        pair_close(&t);
    }
}

/* Fragments refer to the buffer that they were composed in, which then belongs to the queue; if
 * an allocation fails, nothing is queued. */
static void test_a_buffer_that_is_taken(void)
{
    bool done = false;
    for (long at = 0; !done; at++) {
        pair t;
        rt_buf b = RT_BUF_INIT;
        pair_open(&t, true);
        size_t head = compose(&t, &b, 1, 5, 300000);
        const uint8_t *first = b.p, *last = b.p + b.n;
        rt_alloc_fail_after(at);
        int rc = rt_outbound_put(t.there, rt_slice_of(b.p, b.n), (rt_lead){head, 0}, false,
                                 &t.limits, &b, NULL);
        rt_alloc_fail_after(-1);
        done = rc == RT_OK && b.p == NULL;
        rt_outchunk *c = t.there->out.lane[RT_LANE_BULK].first;
        if (rc == RT_OK) {
            CHECK_INT(rt_outbound_count(c), 1);
            for (; c; c = c->next)
                CHECK((c->shared && c->rest > first && c->rest < last) == done);
            /* Seven bytes at a time: within the heads, and from one piece into the next. */
            for (int i = 0; i < 20; i++) write_some(&t, 7);
            while (t.there->out.bytes) write_some(&t, 100001);
            read_all(&t);
            CHECK_INT(next(&t, 1), 5);
        } else {
            CHECK_INT(rc, RT_ENOMEM);
            CHECK(c == NULL);
            CHECK_INT(t.there->out.bytes, 0);
        }
        CHECK_INT(next(&t, 1), -1);
        CHECK(!done || at > 4);
        rt_buf_fini(&b);
        pair_close(&t);
    }
}

/* A buffer much larger than its message does not wait with it, nor one that no pool would keep. */
static void test_a_buffer_that_is_not_taken(void)
{
    static const struct { size_t n, room; bool taken; } buffers[] = {
        {300000, 0, true}, {300000, 60000, true}, {300000, 400000, false},
        {RT_POOL_BYTES_MAX, 0, false}};
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++) {
        pair t;
        rt_buf b = RT_BUF_INIT;
        pair_open(&t, true);
        CHECK_INT(rt_buf_reserve(&b, buffers[i].n + 200 + buffers[i].room), RT_OK);
        size_t head = compose(&t, &b, 1, 5, buffers[i].n);
        CHECK_INT(rt_outbound_put(t.there, rt_slice_of(b.p, b.n), (rt_lead){head, 0}, false,
                                  &t.limits, &b, NULL),
                  RT_OK);
        CHECK((b.p == NULL) == buffers[i].taken);
        while (t.there->out.bytes) write_some(&t, SIZE_MAX);
        read_all(&t);
        CHECK_INT(next(&t, 1), 5);
        rt_buf_fini(&b);
        pair_close(&t);
    }
}

/* Any mixture of sizes, ways and partial writes arrives whole and in order. */
static void test_random(void)
{
    static const size_t sizes[] = {1, 10, 60, 10, 700, 5000, 16200, 20000, 200000};
    stress_random seed = {7};
    pair t;
    pair_open(&t, true);
    uint32_t sent[BOXES] = {0}, got[BOXES] = {0};
    int packets = 0, joins = 0;
    for (int i = 0; i < 20000; i++) {
        uint64_t r = stress_next(&seed);
        int way = (int)(r % 8) < 5 ? 1 : (int)(r % 8) - 6;
        int box = way < 0 ? 0 : way;
        size_t n = sizes[r / 8 % 64 < 60 ? r / 8 % 4 : r / 8 % 9];
        /* A box by its name alone: a pid and a name of one process keep no order in Erlang. */
        bool joined = false;
        int to = box == 0 ? -1 : box;
        if (r >> 40 & 1) CHECK_INT(put_numbered(&t, to, sent[box]++, n, r >> 41 & 1 ? number_of(to) : 0), RT_OK);
        else CHECK_INT(join_or_put(&t, to, sent[box]++, n, &joined), RT_OK);
        joins += joined;
        if (r / 4096 % 8 == 0) write_some(&t, r / 65536 % 4 ? SIZE_MAX : r / 262144 % 3000 + 1);
        if (t.there->out.bytes > 4u << 20) while (t.there->out.bytes) write_some(&t, SIZE_MAX);
        packets += read_all(&t);
        for (int k = 0; k < BOXES; k++)
            for (int64_t m; (m = next(&t, k)) >= 0; got[k]++) CHECK_INT(m, got[k]);
    }
    while (t.there->out.bytes) write_some(&t, SIZE_MAX);
    packets += read_all(&t);
    for (int k = 0; k < BOXES; k++) {
        for (int64_t m; (m = next(&t, k)) >= 0; got[k]++) CHECK_INT(m, got[k]);
        CHECK_INT(got[k], sent[k]);
    }
    CHECK(joins > 1000);
    CHECK_INT(t.here->count.messages_in, 20000);
    CHECK_INT(t.here->count.bytes_in, t.there->count.bytes_out);
    CHECK(packets < 17000);
    pair_close(&t);
}

TESTS(test_messages_of_one_way_share_a_frame, test_what_ends_a_frame,
      test_a_payload_joins_by_number, test_what_may_not_join,
      test_who_does_not_unpack_gets_frames, test_many_at_once_and_the_limit, test_bad_packs,
      test_what_a_pack_may_hold, test_a_pack_in_fragments, test_no_memory,
      test_a_buffer_that_is_taken, test_a_buffer_that_is_not_taken,
      test_random)
