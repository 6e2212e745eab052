/* needs: route */
/* Packs at their edges: limits, places, what is lost, memory that is short, names that move. */
#include "pack.h"

#include "route/multicast.h"
#include "route/relay.h"
#include "term/ident.h"

static const uint8_t SENDER[] = "Xw\xb" "a@127.0.0.1" "\0\0\0\1\0\0\0\0\0\0\0\1";

static void add_payload(rt_buf *b, uint32_t number)
{
    CHECK_INT(rt_buf_reserve(b, 64), RT_OK);
    rt_buf_raw(b, "h\2b", 3);
    rt_buf_u32(b, number);
    rt_buf_raw(b, "m\0\0\0\x0axxxxxxxxxx", 15);
}

/* The head of a frame to `to`, as a pack's, without its length. */
static void add_head(pair *t, rt_buf *b, int to)
{
    rt_buf frame = RT_BUF_INIT;
    size_t head = compose(t, &frame, to, 0, 10);
    frame.p[RT_FRAME_NORMAL_HEAD + RT_CONTROL_OP_AT] |= RT_OP_PACK;
    CHECK_INT(rt_buf_put(b, frame.p + 4, head - 4), RT_OK);
    rt_buf_fini(&frame);
}

static void add_byte(rt_buf *b, unsigned v)
{
    CHECK_INT(rt_buf_put(b, &(uint8_t){(uint8_t)v}, 1), RT_OK);
}

static int feed_packet(pair *t, const rt_buf *b)
{
    unsigned char *copy = check_copy(b->p, b->n);
    int rc = rt_inbound_packet(&t->n.in, t->here, copy, b->n);
    free(copy);
    rt_inbound_flush(&t->n.in);
    return rc;
}

static uint64_t waiting(pair *t)
{
    return rt_outbound_count(t->there->out.lane[RT_LANE_PROMPT].first);
}

/* Two leads without a number are not the same one. */
static void test_no_number_joins_nothing(void)
{
    pair t;
    rt_buf b = RT_BUF_INIT;
    rt_queued how;
    pair_open(&t, true);
    CHECK_INT(put_numbered(&t, 1, 0, 10, 0), RT_OK);
    rt_lead lead = {compose(&t, &b, 2, 1, 10), 0};
    CHECK(!rt_outbound_join(t.there, lead, rt_slice_of(b.p + lead.n, b.n - lead.n), &t.limits, &how));
    rt_buf_fini(&b);
    pair_close(&t);
}

/* Heads in the first place and the last, and a queue that has
 * been written up to any byte of three packs. */
static void test_what_is_lost(void)
{
    for (size_t cut = 0;; cut++) {
        pair t;
        size_t ends[3];
        pair_open(&t, true);
        for (uint32_t i = 0; i < 3; i++) {
            for (int k = 0; k < 8; k++)
                CHECK_INT(put_numbered(&t, 1 + (k & 1), 0, 10, (uint64_t[]){32, 33, 63}[k % 3]), RT_OK);
            ends[i] = t.there->out.bytes;
            rt_outq *q = &t.there->out;
            q->open = NULL; /* as a frame of somebody else would */
        }
        CHECK_INT(waiting(&t), 24);
        bool all = cut >= ends[2];
        if (cut) write_some(&t, cut);
        size_t whole = 0;
        while (whole < 3 && ends[whole] <= cut) whole++;
        CHECK_INT(rt_peer_down(t.there), 8 * (3 - whole));
        pair_close(&t);
        if (all) return;
    }
}

/* A frame is as long as it may be, and no byte longer. */
static void test_a_full_frame(void)
{
    for (int over = 0; over < 2; over++) {
        pair t;
        rt_buf b = RT_BUF_INIT;
        bool joined;
        pair_open(&t, true);
        CHECK_INT(put_numbered(&t, 1, 0, 8000, 5), RT_OK); /* a large chunk */
        CHECK_INT(put_numbered(&t, 1, 0, RT_PACK_BYTES_MAX, 5), RT_OK);
        CHECK_INT(put_numbered(&t, 1, 1, 10, number_of(1)), RT_OK);
        size_t head = compose(&t, &b, 1, 0, 10);
        size_t room = RT_PACK_BYTES_MAX - (b.n - 4);
        CHECK_INT(join_or_put(&t, 1, 2, room - 12 + (size_t)over, &joined), RT_OK);
        CHECK_INT(joined, !over);
        (void)head;
        while (t.there->out.bytes) write_some(&t, SIZE_MAX);
        read_all(&t);
        rt_buf_fini(&b);
        pair_close(&t);
    }
}

/* What a turn may not be, remembered or not. */
static void test_more_bad_turns(void)
{
    enum { HIGH, NO_HEAD, NO_BIT, WITH_ATOMS, CASES };
    for (int i = 0; i < CASES; i++) {
        pair t;
        rt_buf b = RT_BUF_INIT;
        pair_open(&t, true);
        if (i == NO_BIT) { /* a frame alone with that head is remembered */
            add_head(&t, &b, 2);
            b.p[3 + RT_CONTROL_OP_AT] &= (uint8_t)~RT_OP_PACK;
            add_payload(&b, 9);
            CHECK_INT(feed_packet(&t, &b), RT_OK);
            CHECK_INT(next(&t, 2), 9);
            b.n = 0;
        }
        add_head(&t, &b, 1);
        add_payload(&b, 0);
        if (i == WITH_ATOMS) {
            static const uint8_t header[] = {131, 68, 1, 8, 0, 1, 'x'};
            CHECK_INT(rt_buf_reserve(&b, sizeof header), RT_OK);
            memmove(b.p + sizeof header, b.p + 3, b.n - 3);
            memcpy(b.p, header, sizeof header);
            b.n += sizeof header - 3;
        } else {
            if (i == NO_HEAD) { /* the place has had one */
                add_byte(&b, RT_PACK_NEW + 3);
                add_head(&t, &b, 2);
                add_payload(&b, 1);
            }
            add_byte(&b, i == HIGH ? RT_PACK_NEW + RT_PACK_PLACES : RT_PACK_NEW + 3);
            size_t at = b.n;
            if (i != NO_HEAD) add_head(&t, &b, 2);
            if (i == NO_BIT) b.p[at + 3 + RT_CONTROL_OP_AT] &= (uint8_t)~RT_OP_PACK;
            add_payload(&b, 1);
        }
        CHECK_INT(feed_packet(&t, &b), RT_EBAD);
        CHECK_INT(next(&t, 1), i == WITH_ATOMS ? -1 : 0);
        if (i == NO_HEAD) CHECK_INT(next(&t, 2), 1);
        for (int k = 0; k < BOXES; k++) CHECK_INT(next(&t, k), -1);
        rt_buf_fini(&b);
        pair_close(&t);
    }
}

/* It makes copies whether it comes first or by a turn, parsed or remembered. */
static void test_a_multicast_in_a_pack(void)
{
    pair t;
    rt_buf b = RT_BUF_INIT, pids = RT_BUF_INIT, cast = RT_BUF_INIT, control = RT_BUF_INIT;
    pair_open(&t, true);
    rt_route_set_multicaster(&t.n.route, t.n.box->self);
    CHECK_INT(rt_registry_register(t.n.route.registry, S(RT_MULTICAST_NAME), t.n.box->self), RT_OK);
    for (int k = 0; k < BOXES; k++) {
        rt_pid to = t.box[k]->self;
        CHECK_INT(rt_put_pid(&pids, S(NODE), (uint32_t)to, (uint32_t)(to >> 32), CREATION), RT_OK);
    }
    CHECK_INT(rt_multicast_put(&cast, rt_slice_of(pids.p, pids.n), BOXES), RT_OK);
    rt_slice sender = rt_slice_of(SENDER, sizeof SENDER - 1);
    CHECK_INT(rt_control_reg_send(&control, sender, S(RT_MULTICAST_NAME)), RT_OK);
    control.p[RT_CONTROL_OP_AT] |= RT_OP_PACK;
    for (int round = 0; round < 4; round++) {
        uint64_t in = t.here->count.messages_in;
        b.n = 0;
        if (round & 1) {
            add_head(&t, &b, 1);
            add_payload(&b, 7);
            add_byte(&b, RT_PACK_NEW);
        }
        CHECK_INT(rt_buf_put(&b, "\x83\x44\0", 3), RT_OK);
        CHECK_INT(rt_buf_put(&b, control.p, control.n), RT_OK);
        for (uint32_t i = 0; i < 2; i++) {
            CHECK_INT(rt_buf_put(&b, cast.p, cast.n), RT_OK);
            add_payload(&b, i);
        }
        CHECK_INT(feed_packet(&t, &b), RT_OK);
        if (round & 1) CHECK_INT(next(&t, 1), 7);
        for (int k = 0; k < BOXES; k++)
            for (int64_t i = -2; i < 2; i++) CHECK_INT(next(&t, k), i < 0 ? i + 2 : -1);
        CHECK_INT(t.here->count.messages_in - in, 2 * BOXES + (round & 1));
    }
    rt_buf_fini(&b);
    rt_buf_fini(&pids);
    rt_buf_fini(&cast);
    rt_buf_fini(&control);
    pair_close(&t);
}

/* Heads of turns are, so the next pack needs no parsing. */
static void test_turned_heads_are_remembered(void)
{
    pair t;
    rt_buf b = RT_BUF_INIT;
    int known = 0;
    pair_open(&t, true);
    for (int to = 2; to >= -1; to--) {
        if (to == 0) continue;
        if (to < 2) add_byte(&b, (unsigned)(RT_PACK_NEW + 4 + to));
        add_head(&t, &b, to);
        add_payload(&b, 0);
    }
    CHECK_INT(feed_packet(&t, &b), RT_OK);
    for (uint32_t i = 0; t.here->repeats && i < RT_REPEATS; i++)
        known += t.here->repeats->at[i] && t.here->repeats->at[i]->found.pack;
    CHECK_INT(known, 3);
    for (int k = 0; k < BOXES; k++) CHECK_INT(next(&t, k), 0);
    rt_buf_fini(&b);
    pair_close(&t);
}

static pair *moving;

/* The box was full: somebody gives its neighbour's name to another. */
static void move_name(rt_route *r, rt_peer *p, rt_pid pid, bool close, uint64_t bytes)
{
    (void)p, (void)pid, (void)close, (void)bytes;
    CHECK_INT(rt_registry_unregister(r->registry, S("name")), RT_OK);
    CHECK_INT(rt_registry_register(r->registry, S("name"), moving->box[2]->self), RT_OK);
    rt_mailbox_limit(&moving->box[1]->mailbox, 0, 0, RT_OVERFLOW_PAUSE);
}

/* A name that moves while a message to it is delivered is looked up again. */
static void test_a_name_that_moves_meanwhile(void)
{
    pair t;
    rt_buf b = RT_BUF_INIT;
    moving = &t;
    pair_open(&t, true);
    t.n.route.overflow = move_name;
    rt_mailbox_limit(&t.box[1]->mailbox, 1, 0, RT_OVERFLOW_PAUSE);
    add_head(&t, &b, 1);
    for (uint32_t i = 0; i < 3; i++) add_payload(&b, i);
    add_byte(&b, RT_PACK_NEW);
    add_head(&t, &b, -1);
    add_payload(&b, 3);
    CHECK_INT(feed_packet(&t, &b), RT_OK);
    CHECK_INT(next(&t, 0), 3);
    b.n = 0;
    add_head(&t, &b, -1);
    add_payload(&b, 4);
    CHECK_INT(feed_packet(&t, &b), RT_OK);
    CHECK_INT(next(&t, 0), -1);
    CHECK_INT(next(&t, 2), 4);
    while (next(&t, 1) >= 0) ;
    rt_buf_fini(&b);
    pair_close(&t);
}

/* What is said to have come has come, whichever allocation fails. */
static void test_no_memory_for_a_message(void)
{
    for (long at = 0, failed = 1; failed;  at++) {
        pair t;
        rt_buf b = RT_BUF_INIT;
        pair_open(&t, true);
        for (int to = 2; to >= -1; to--) {
            if (to == 0) continue;
            if (to < 2) add_byte(&b, (unsigned)(RT_PACK_NEW + 4 + to));
            add_head(&t, &b, to);
            CHECK_INT(rt_buf_reserve(&b, 4000), RT_OK); /* more than a stock's block holds */
            rt_buf_raw(&b, "h\2b\0\0\0\0m\0\0\x0b\xb8", 12);
            memset(b.p + b.n, 'x', 3000);
            b.n += 3000;
        }
        rt_alloc_fail_after(at);
        int rc = feed_packet(&t, &b);
        rt_alloc_fail_after(-1);
        int came = 0;
        for (int k = 0; k < BOXES; k++) came += next(&t, k) == 0;
        CHECK(rc == RT_OK ? came == 3 : rc == RT_ENOMEM);
        failed = at < 20;
        rt_buf_fini(&b);
        pair_close(&t);
    }
}

/* What is longer than a pack is none, though the next one would join it. */
static void test_what_is_too_long_stays_alone(void)
{
    pair t;
    rt_buf b = RT_BUF_INIT;
    pair_open(&t, true);
    size_t head = compose(&t, &b, 1, 0, RT_PACK_BYTES_MAX);
    compose(&t, &b, 1, 1, 10);
    compose(&t, &b, 1, 2, 10);
    CHECK_INT(rt_outbound_put(t.there, rt_slice_of(b.p, b.n), (rt_lead){head, 3}, false, &t.limits,
                              NULL, NULL), RT_OK);
    write_some(&t, SIZE_MAX);
    CHECK_INT(read_all(&t), 2);
    for (int i = 0; i < 3; i++) CHECK_INT(next(&t, 1), i);
    rt_buf_fini(&b);
    pair_close(&t);
}

/* What the last connection's peer understood says nothing of the next one's. */
static void test_nothing_is_packed_before_the_peer_is_up(void)
{
    pair t;
    pair_open(&t, true);
    rt_peer_down(t.there);
    rt_peer_set_state(t.there, RT_PEER_CONNECTING);
    for (uint32_t i = 0; i < 3; i++) CHECK_INT(put_numbered(&t, 1, i, 10, 5), RT_OK);
    CHECK_INT(rt_peer_up(t.there, RT_FLAGS_OURS, CREATION, &t.limits), RT_OK);
    write_some(&t, SIZE_MAX);
    CHECK_INT(read_all(&t), 3);
    for (int i = 0; i < 3; i++) CHECK_INT(next(&t, 1), i);
    pair_close(&t);
}

static size_t to_name(pair *t, rt_buf *b, const char *name)
{
    b->n = 0;
    CHECK_INT(rt_outbound_begin(b), RT_OK);
    rt_slice sender = rt_slice_of(SENDER, sizeof SENDER - 1);
    CHECK_INT(rt_control_reg_send(b, sender, rt_slice_of(name, strlen(name))), RT_OK);
    size_t head = b->n;
    CHECK_INT(rt_buf_put(b, "a\1", 2), RT_OK);
    CHECK_INT(rt_outbound_end(b, 0, &t->limits), RT_OK);
    return head;
}

/* A lead longer than the open frame, which ends with its chunk, is not
 * compared with what stands behind it. For the address sanitizer. */
static void test_a_lead_longer_than_the_open_frame(void)
{
    pair t;
    rt_buf small = RT_BUF_INIT, large = RT_BUF_INIT;
    pair_open(&t, true);
    to_name(&t, &small, "nobody");
    rt_outq *q = &t.there->out;
    CHECK_INT(put(&t, 1, 0, 10), RT_OK);
    rt_outchunk *c = q->lane[RT_LANE_PROMPT].last;
    CHECK_INT(put(&t, 2, 0, c->cap - c->n - small.n - 75), RT_OK);
    CHECK_INT(c->cap - c->n, small.n);
    CHECK_INT(rt_outbound_put(t.there, rt_slice_of(small.p, small.n), (rt_lead){small.n - 2, 0}, false,
                              &t.limits, NULL, NULL), RT_OK);
    CHECK_INT(c->cap, c->n);
    rt_lead lead = {to_name(&t, &large, "nobody of a name that is much longer"), 0};
    CHECK_INT(rt_outbound_put(t.there, rt_slice_of(large.p, large.n), lead, false, &t.limits, NULL,
                              NULL), RT_OK);
    rt_buf_fini(&small);
    rt_buf_fini(&large);
    pair_close(&t);
}

static void quiet(rt_route *r, rt_peer *p) { (void)r, (void)p; }

/* Who sends is told to whom it is relayed, by each head. */
static void test_a_relay_keeps_senders(void)
{
    pair t;
    rt_buf b = RT_BUF_INIT, to = RT_BUF_INIT, control = RT_BUF_INIT;
    rt_peer *other;
    uint8_t from[26];
    pair_open(&t, true);
    t.n.route.relay = true;
    t.n.route.kick = quiet;
    CHECK_INT(rt_peers_get(t.n.route.peers, S("c@127.0.0.1"), &other), RT_OK);
    CHECK_INT(rt_peer_up(other, RT_FLAGS_OURS | RT_F_PACKS, 1, &t.limits), RT_OK);
    CHECK_INT(rt_put_pid(&to, S("c@127.0.0.1"), 1, 0, 1), RT_OK);
    memcpy(from, SENDER, 26);
    static const uint8_t order[] = {0, 1, 2, 1, 0};
    for (int i = 0; i < 5; i++) {
        from[17] = order[i];
        control.n = 0;
        CHECK_INT(rt_control_send_sender(&control, rt_slice_of(from, 26), rt_slice_of(to.p, to.n)), RT_OK);
        control.p[RT_CONTROL_OP_AT] |= RT_OP_PACK;
        if (i == 0 || i == 4 || i < 3) {
            if (i) add_byte(&b, (unsigned)(RT_PACK_NEW + order[i]));
            CHECK_INT(rt_buf_put(&b, "\x83\x44\0", 3), RT_OK);
            CHECK_INT(rt_buf_put(&b, control.p, control.n), RT_OK);
        } else {
            add_byte(&b, order[i]);
        }
        add_payload(&b, (uint32_t)i);
    }
    CHECK_INT(feed_packet(&t, &b), RT_OK);
    rt_outchunk *c = other->out.lane[RT_LANE_PROMPT].first;
    size_t at = 0;
    for (int i = 0; i < 5 && CHECK(c && at < c->n); i++) {
        rt_control m;
        int64_t k = rt_control_parse(c->data + at + 7, c->n - at - 7, &m);
        CHECK(k > 0 && !m.pack);
        CHECK_INT(m.from.p[17], order[i]);
        CHECK_INT(rt_load_u32(c->data + at + 7 + k + 3), i);
        at += 4 + rt_load_u32(c->data + at);
    }
    rt_peer_down(other);
    rt_buf_fini(&b);
    rt_buf_fini(&to);
    rt_buf_fini(&control);
    pair_close(&t);
}

TESTS(test_no_number_joins_nothing, test_what_is_lost, test_a_full_frame, test_more_bad_turns,
      test_a_multicast_in_a_pack, test_turned_heads_are_remembered,
      test_a_name_that_moves_meanwhile, test_no_memory_for_a_message, test_what_is_too_long_stays_alone,
      test_nothing_is_packed_before_the_peer_is_up,
      test_a_lead_longer_than_the_open_frame, test_a_relay_keeps_senders)
