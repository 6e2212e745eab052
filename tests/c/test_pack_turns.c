/* needs: route */
/* A frame that turns from one receiver to another: whom its messages reach, what it may hold. */
#include "pack.h"

/* What is queued becomes packets of the receiver; how many. */
static int pass_on(pair *t)
{
    int packets = 0;
    while (t->there->out.bytes) write_some(t, SIZE_MAX);
    packets = read_all(t);
    CHECK_INT(t->here->count.bytes_in, t->there->count.bytes_out);
    CHECK_INT(t->here->count.messages_in, t->there->count.messages_out);
    return packets;
}

static void expect_numbers(pair *t, int box, uint32_t first, uint32_t step, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) CHECK_INT(next(t, box), first + i * step);
    CHECK_INT(next(t, box), -1);
}

/* Three receivers in turn, one of them by its name: the first frame, then two heads, then the
 * first head once more, then one byte for each message. */
static void test_receivers_in_turn_share_a_frame(void)
{
    pair t;
    bool joined;
    pair_open(&t, true);
    for (int round = 0; round < 3; round++) { /* not remembered, remembered, with nothing new */
        for (uint32_t i = 0; i < 90; i++) {
            int to = i % 3 == 2 ? -1 : (int)(i % 3) + 1;
            CHECK_INT(join_or_put(&t, to, i, 10, &joined), RT_OK);
            CHECK_INT(joined, i >= 4);
        }
        CHECK_INT(rt_outbound_count(t.there->out.lane[RT_LANE_PROMPT].first), 90);
        CHECK_INT(pass_on(&t), 1);
        expect_numbers(&t, 1, 0, 3, 30);
        expect_numbers(&t, 2, 1, 3, 30);
        expect_numbers(&t, 0, 2, 3, 30);
    }
    pair_close(&t);
}

/* A place belongs to the last head that was put into it; a lead without a number has none. */
static void test_places(void)
{
    pair t;
    pair_open(&t, true);
    uint32_t n = 0, same = RT_OUTQ_PLACES;
    for (int i = 0; i < 15; i++) {
        CHECK_INT(put_numbered(&t, 1, n++, 10, 5), RT_OK);
        CHECK_INT(put_numbered(&t, 2, n++, 10, 5 + same), RT_OK);
    }
    CHECK_INT(pass_on(&t), 1);
    expect_numbers(&t, 1, 0, 2, 15);
    expect_numbers(&t, 2, 1, 2, 15);
    CHECK_INT(put_numbered(&t, 1, 0, 10, 5), RT_OK);
    CHECK_INT(put_numbered(&t, 2, 0, 10, 6), RT_OK);
    CHECK_INT(put_numbered(&t, 1, 1, 10, 0), RT_OK);  /* the open frame is not for it alone */
    CHECK_INT(put_numbered(&t, 1, 2, 10, 0), RT_OK);  /* but this one is, */
    CHECK_INT(put_numbered(&t, 1, 3, 10, 5), RT_OK);  /* by its bytes, */
    CHECK_INT(put_numbered(&t, 2, 1, 10, 6), RT_OK);  /* and may turn */
    CHECK_INT(put_numbered(&t, 2, 2, 10, 6 + same), RT_OK);
    CHECK_INT(pass_on(&t), 2);
    expect_numbers(&t, 1, 0, 1, 4);
    expect_numbers(&t, 2, 0, 1, 3);
    /* Places are a frame's: the next one begins without. */
    CHECK_INT(put_numbered(&t, 1, 0, 10, 5), RT_OK);
    CHECK_INT(put_numbered(&t, 2, 0, 10, 6), RT_OK);
    write_some(&t, SIZE_MAX);
    CHECK_INT(put_numbered(&t, 1, 1, 10, 5), RT_OK);
    CHECK_INT(put_numbered(&t, 2, 1, 10, 6), RT_OK);
    CHECK_INT(put_numbered(&t, 2, 2, RT_PACK_BYTES_MAX - 300, 6), RT_OK); /* another chunk */
    CHECK_INT(put_numbered(&t, 1, 2, 300, 5), RT_OK); /* full */
    CHECK_INT(put_numbered(&t, 2, 3, 10, 6), RT_OK);
    CHECK_INT(put_numbered(&t, 1, 3, 10, 5), RT_OK);
    CHECK_INT(pass_on(&t), 4);
    expect_numbers(&t, 1, 0, 1, 4);
    expect_numbers(&t, 2, 0, 1, 4);
    pair_close(&t);
}

/* Without memory for places, messages stand in frames of their own. */
static void test_no_memory_for_places(void)
{
    pair t;
    pair_open(&t, true);
    CHECK_INT(put_numbered(&t, 1, 0, 10, 5), RT_OK);
    rt_buf b = RT_BUF_INIT;
    rt_lead lead = {compose(&t, &b, 2, 0, 10), 6};
    rt_alloc_fail_after(0);
    CHECK_INT(rt_outbound_put(t.there, rt_slice_of(b.p, b.n), lead, false, &t.limits, NULL, NULL),
              RT_OK);
    rt_alloc_fail_after(-1);
    rt_buf_fini(&b);
    CHECK_INT(pass_on(&t), 2);
    expect_numbers(&t, 1, 0, 1, 1);
    expect_numbers(&t, 2, 0, 1, 1);
    pair_close(&t);
}

/* A process that ends between two packs, or in one; a name that another takes. */
static void test_receivers_that_change(void)
{
    pair t;
    bool joined;
    pair_open(&t, true);
    for (uint32_t round = 0; round < 3; round++) {
        if (round == 1) {
            CHECK_INT(rt_process_exit(t.n.route.registry, t.box[2]->self, S("j")), RT_OK);
            CHECK_INT(rt_registry_unregister(t.n.route.registry, S("name")), RT_OK);
        }
        if (round == 2)
            CHECK_INT(rt_registry_register(t.n.route.registry, S("name"), t.box[1]->self), RT_OK);
        for (uint32_t i = 0; i < 12; i++)
            CHECK_INT(join_or_put(&t, i % 3 == 2 ? -1 : (int)(i % 3) + 1, i, 10, &joined), RT_OK);
        CHECK_INT(pass_on(&t), 1);
        if (round < 2) expect_numbers(&t, 1, 0, 3, 4);
        if (round == 0) expect_numbers(&t, 2, 1, 3, 4);
        expect_numbers(&t, 0, 2, 3, round ? 0 : 4);
        CHECK_INT(t.here->count.dropped_in, round == 0 ? 0 : round == 1 ? 8 : 12);
    }
    for (uint32_t i = 0; i < 4; i++) {
        CHECK_INT(next(&t, 1), 3 * i);
        CHECK_INT(next(&t, 1), 3 * i + 2);
    }
    rt_process_release(t.n.route.registry, t.box[2]);
    CHECK_INT(rt_process_new(t.n.route.registry, &t.box[2]), RT_OK);
    pair_close(&t);
}

static const uint8_t ALIAS[] = "Z\0\1w\xb" NODE "\0\0\0\7\0\0\0\1";
static const uint8_t SENDER[] = "Xw\xb" "a@127.0.0.1" "\0\0\0\1\0\0\0\0\0\0\0\1";

/* A pack by hand: a frame to box 1, and what the caller puts behind it. */
static void begin_pack(pair *t, rt_buf *b)
{
    b->n = 0;
    compose(t, b, 1, 0, 10);
    b->p[RT_FRAME_NORMAL_HEAD + RT_CONTROL_OP_AT] |= RT_OP_PACK;
    CHECK_INT(rt_buf_reserve(b, 4096), RT_OK);
}

static void add_payload(rt_buf *b, uint32_t number)
{
    rt_buf_raw(b, "h\2b", 3);
    rt_buf_u32(b, number);
    rt_buf_raw(b, "m\0\0\0\x0axxxxxxxxxx", 15);
}

/* The head of a frame to `to`, behind the number of its place. */
static void add_head(pair *t, rt_buf *b, uint8_t place, int to)
{
    rt_buf frame = RT_BUF_INIT;
    size_t head = compose(t, &frame, to, 0, 10);
    frame.p[RT_FRAME_NORMAL_HEAD + RT_CONTROL_OP_AT] |= RT_OP_PACK;
    rt_buf_u8(b, place);
    rt_buf_raw(b, frame.p + 4, head - 4);
    rt_buf_fini(&frame);
}

static int feed_pack(pair *t, const rt_buf *b)
{
    unsigned char *copy = check_copy(b->p + 4, b->n - 4);
    int rc = rt_inbound_packet(&t->n.in, t->here, copy, b->n - 4);
    free(copy);
    rt_inbound_flush(&t->n.in);
    return rc;
}

/* An alias that its first message ends is looked up for each. */
static void test_an_alias_among_others(void)
{
    pair t;
    rt_buf b = RT_BUF_INIT, control = RT_BUF_INIT;
    rt_slice alias = rt_slice_of(ALIAS, sizeof ALIAS - 1);
    pair_open(&t, true);
    rt_slice sender = rt_slice_of(SENDER, sizeof SENDER - 1);
    CHECK_INT(rt_control_alias_send(&control, sender, alias), RT_OK);
    control.p[RT_CONTROL_OP_AT] |= RT_OP_PACK;
    for (int again = 0; again < 2; again++) {
        rt_relation rel = {.kind = RT_REL_ALIAS, .flags = RT_ALIAS_ONCE, .local = t.box[2]->self,
                           .ref = alias};
        CHECK_INT(rt_relations_add(t.n.route.relations, &rel), RT_OK);
        uint64_t dropped = t.here->count.dropped_in;
        begin_pack(&t, &b);
        rt_buf_u8(&b, RT_PACK_NEW + 7);
        rt_buf_raw(&b, "\x83\x44\0", 3);
        rt_buf_raw(&b, control.p, control.n);
        add_payload(&b, 1);
        add_payload(&b, 2);
        add_head(&t, &b, RT_PACK_NEW + 8, 1);
        add_payload(&b, 3);
        rt_buf_u8(&b, 7);
        add_payload(&b, 4);
        CHECK_INT(feed_pack(&t, &b), RT_OK);
        CHECK_INT(next(&t, 1), 0);
        CHECK_INT(next(&t, 1), 3);
        CHECK_INT(next(&t, 2), 1);
        CHECK_INT(next(&t, 2), -1);
        CHECK_INT(t.here->count.dropped_in, dropped + 2);
    }
    rt_buf_fini(&b);
    rt_buf_fini(&control);
    pair_close(&t);
}

/* Cut at every byte: whole only behind a payload. What came before the cut arrives. */
static void test_cut_packs(void)
{
    pair t;
    pair_open(&t, true);
    for (int remembered = 0; remembered < 2; remembered++) {
        static const int turns[] = {1, 2, -1, 1, 2, 2, -1, 1};
        size_t ends[16], count = sizeof turns / sizeof turns[0], start = t.wire.n;
        bool joined;
        for (uint32_t i = 0; i < count; i++) {
            CHECK_INT(join_or_put(&t, turns[i], i, 10, &joined), RT_OK);
            ends[i] = t.there->out.bytes - 4;
        }
        while (t.there->out.bytes) write_some(&t, SIZE_MAX);
        size_t n = t.wire.n - start - 4;
        CHECK_INT(ends[count - 1], n);
        for (size_t cut = 1; cut <= n; cut++) {
            size_t whole = 0;
            while (whole < count && ends[whole] <= cut) whole++;
            unsigned char *copy = check_copy(t.wire.p + start + 4, cut);
            int rc = rt_inbound_packet(&t.n.in, t.here, copy, cut);
            free(copy);
            rt_inbound_flush(&t.n.in);
            CHECK_INT(rc, whole && ends[whole - 1] == cut ? RT_OK : RT_EBAD);
            for (size_t i = 0; i < whole; i++)
                CHECK_INT(next(&t, turns[i] < 0 ? 0 : turns[i]), i);
            for (int k = 0; k < BOXES; k++) CHECK_INT(next(&t, k), -1);
        }
        t.read = t.wire.n;
    }
    pair_close(&t);
}

/* Each place between two payloads takes one turn, to a place that has a head or with a head. */
static void test_bad_turns(void)
{
    enum { UNKNOWN, TWICE, NEW_TWICE, LAST, NEW_LAST, SHORT, NO_PACK, NOT_A_HEAD, ATOMS, REFERENCE,
           A_SIGNAL, BEYOND, GOOD, CASES };
    pair t;
    rt_buf b = RT_BUF_INIT;
    pair_open(&t, true);
    for (int again = 0; again < 2; again++) {
        for (int i = 0; i < CASES; i++) {
            begin_pack(&t, &b);
            add_head(&t, &b, RT_PACK_NEW + 1, 2);
            size_t control = b.n;
            add_payload(&b, 1);
            size_t behind = b.n;
            if (i == UNKNOWN) rt_buf_u8(&b, 0);
            else if (i == NEW_TWICE || i == NEW_LAST) add_head(&t, &b, RT_PACK_NEW + 2, 1);
            else if (i == BEYOND) rt_buf_u8(&b, RT_PACK_NEW + RT_PACK_PLACES);
            else rt_buf_u8(&b, 1);
            if (i == TWICE || i == NEW_TWICE) rt_buf_u8(&b, 1);
            if (i == SHORT) rt_buf_raw(&b, "m\0\0\0\x0axxxxxxxxxx", 15);
            else if (i != LAST && i != NEW_LAST) add_payload(&b, 2);
            if (i == NO_PACK || i == NOT_A_HEAD || i == ATOMS || i == REFERENCE || i == A_SIGNAL) {
                b.n = behind;
                add_head(&t, &b, RT_PACK_NEW + 3, 2);
                uint8_t *head = b.p + behind + 1;
                if (i == NO_PACK) head[3 + RT_CONTROL_OP_AT] &= (uint8_t)~RT_OP_PACK;
                if (i == NOT_A_HEAD) head[1] = RT_TAG_DIST_FRAG_FIRST;
                if (i == ATOMS) head[2] = 1;
                if (i == REFERENCE) head[3 + 4] = RT_TAG_ATOM_CACHE_REF;
                if (i == A_SIGNAL) head[3 + RT_CONTROL_OP_AT] = RT_OP_LINK;
                add_payload(&b, 2);
            }
            CHECK_INT(feed_pack(&t, &b), i == GOOD ? RT_OK : RT_EBAD);
            CHECK_INT(next(&t, 1), 0);
            CHECK_INT(next(&t, 2), 1);
            CHECK_INT(next(&t, 2), i == GOOD ? 2 : -1);
            for (int k = 0; k < BOXES; k++) CHECK_INT(next(&t, k), -1);
            CHECK(control < behind);
        }
    }
    /* A payload comes first, and a peer that sends no packs turns nowhere. */
    b.n = 0;
    size_t head = compose(&t, &b, 1, 0, 10);
    b.p[RT_FRAME_NORMAL_HEAD + RT_CONTROL_OP_AT] |= RT_OP_PACK;
    CHECK_INT(rt_buf_reserve(&b, 4096), RT_OK);
    b.n = head;
    add_head(&t, &b, RT_PACK_NEW, 2);
    add_payload(&b, 1);
    CHECK_INT(feed_pack(&t, &b), RT_EBAD);
    b.n = head;
    rt_buf_u8(&b, 0);
    add_payload(&b, 1);
    CHECK_INT(feed_pack(&t, &b), RT_EBAD);
    b.n = 0;
    compose(&t, &b, 1, 0, 10);
    CHECK_INT(rt_buf_reserve(&b, 4096), RT_OK);
    add_head(&t, &b, RT_PACK_NEW, 2); /* no pack: what stands behind the payload is ignored */
    add_payload(&b, 1);
    CHECK_INT(feed_pack(&t, &b), RT_OK);
    CHECK_INT(next(&t, 1), 0);
    for (int k = 0; k < BOXES; k++) CHECK_INT(next(&t, k), -1);
    rt_buf_fini(&b);
    pair_close(&t);
}

/* More receivers than places, in any order, sizes and leads with and without numbers. */
static void test_random_turns(void)
{
    enum { MANY = 50, MESSAGES = 30000 };
    stress_random seed = {11};
    pair t;
    rt_process *box[MANY];
    uint32_t sent[MANY] = {0}, got[MANY] = {0};
    int packets = 0;
    pair_open(&t, true);
    rt_process *own = t.box[1];
    for (int i = 0; i < MANY; i++) CHECK_INT(rt_process_new(t.n.route.registry, &box[i]), RT_OK);
    for (int i = 0; i < MESSAGES; i++) {
        uint64_t r = stress_next(&seed);
        /* Now few, now many in turn. */
        int k = (int)(r % (i / 1000 % 2 ? MANY : 4)), joined = 0;
        size_t n = r >> 8 & 63 ? 4 + (r >> 16) % 60 : (r >> 16) % 20000;
        rt_buf b = RT_BUF_INIT;
        rt_queued how;
        t.box[1] = box[k];
        rt_lead lead = {compose(&t, &b, 1, sent[k]++, n), r >> 40 & 7 ? (uint64_t)k + 1 : 0};
        if (lead.number && r >> 43 & 3)
            joined = rt_outbound_join(t.there, lead, rt_slice_of(b.p + lead.n, b.n - lead.n),
                                      &t.limits, &how);
        if (!joined)
            CHECK_INT(rt_outbound_put(t.there, rt_slice_of(b.p, b.n), lead, false, &t.limits, &b,
                                      NULL), RT_OK);
        rt_buf_fini(&b);
        if ((r >> 45 & 63) == 0) write_some(&t, r >> 51 & 1 ? SIZE_MAX : (r >> 52) % 3000 + 1);
        if (i % 500 == 0) CHECK_INT(rt_outbound_count(t.there->out.lane[RT_LANE_PROMPT].first) > 0,
                                    t.there->out.bytes > 0);
        packets += read_all(&t);
    }
    packets += pass_on(&t);
    CHECK_INT(t.here->count.messages_in, MESSAGES);
    CHECK(packets < MESSAGES / 4);
    for (int k = 0; k < MANY; k++) {
        t.box[1] = box[k];
        for (int64_t m; (m = next(&t, 1)) >= 0; got[k]++) CHECK_INT(m, got[k]);
        CHECK_INT(got[k], sent[k]);
        end_box(&t.n, box[k]);
    }
    t.box[1] = own;
    pair_close(&t);
}

TESTS(test_receivers_in_turn_share_a_frame, test_places, test_no_memory_for_places,
      test_receivers_that_change, test_an_alias_among_others, test_cut_packs, test_bad_turns,
      test_random_turns)
