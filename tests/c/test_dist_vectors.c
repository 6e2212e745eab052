/* Replays what real nodes said (tests/vectors/make_dist.py) through handshake,
 * frames, fragments and control messages. */
#include "vectors.h"

#include "base/cursor.h"
#include "base/hash.h"
#include "base/limits.h"
#include "dist/control.h"
#include "dist/fragments.h"
#include "dist/frame.h"
#include "dist/handshake.h"
#include "term/scan.h"

#define S(literal) rt_slice_of(literal, sizeof(literal) - 1)

enum { OPS = RT_OP_ALTACT_SIG_SEND + 1, DEPTH = 1000, MESSAGE_BYTES_MAX = 1 << 24 };

/* What a node that receives one direction knows. */
typedef struct receiver {
    rt_handshake hs;
    rt_atom_cache *cache;
    rt_fragments *fragments;
    rt_buf in, out;
    size_t read;
    bool up, header;
    unsigned ops[OPS], ticks, frames, cut, whole_written;
    uint64_t hash; /* of every control and payload, expanded */
    size_t longest;
} receiver;

static bool has(const char *name, const char *part) { return strstr(name, part) != NULL; }

/* The packet of a handshake that begins with `tag`. */
static const uint8_t *packet(const vector *v, uint8_t tag) {
    const uint8_t *p = v->p;
    while (p[2] != tag) p += 2 + rt_load_u16(p);
    return p + 2;
}

/* Takes the place of the real receiver: its name, cookie and challenge, the
 * last of which the other direction holds. */
static void open_receiver(receiver *r, const vector *v, const vector *other) {
    bool initiator = has(v->name, "from_acceptor");
    rt_slice first = S("first@127.0.0.1"), second = S("second@127.0.0.1");
    uint32_t challenge =
        initiator ? rt_load_u32(packet(other, 'r') + 1) : rt_load_u32(packet(other, 'N') + 9);
    memset(r, 0, sizeof *r);
    r->header = !has(v->name, "pass");
    r->cache = rt_atom_cache_new();
    r->fragments = rt_fragments_new(16, MESSAGE_BYTES_MAX, DEPTH, NULL);
    CHECK_INT(rt_handshake_init(&r->hs, initiator, initiator ? first : second, RT_FLAGS_OURS, 5,
                                challenge, S("vectors"), initiator ? second : S("")), 0);
    if (initiator) CHECK_INT(rt_handshake_start(&r->hs, &r->out), 0);
}

static void close_receiver(receiver *r) {
    rt_atom_cache_free(r->cache);
    rt_fragments_free(r->fragments);
    rt_buf_fini(&r->in);
    rt_buf_fini(&r->out);
}

/* Our own writer's words for a message, where there is one for its opcode. */
static int write_again(rt_buf *b, const rt_control *m) {
    switch (m->op) {
    case RT_OP_LINK: return rt_control_link(b, m->from, m->to);
    case RT_OP_SEND: return rt_control_send(b, m->to);
    case RT_OP_EXIT: return rt_control_exit(b, m->from, m->to, m->reason);
    case RT_OP_EXIT2: return rt_control_exit2(b, m->from, m->to, m->reason);
    case RT_OP_GROUP_LEADER: return rt_control_group_leader(b, m->from, m->to);
    case RT_OP_SEND_SENDER: return rt_control_send_sender(b, m->from, m->to);
    case RT_OP_REG_SEND:
        return rt_control_reg_send(b, m->from, rt_slice_of(m->to.p + 2, m->to.n - 2));
    case RT_OP_ALIAS_SEND: return rt_control_alias_send(b, m->from, m->to);
    case RT_OP_MONITOR_P: return rt_control_monitor(b, m->from, m->to, m->ref);
    case RT_OP_DEMONITOR_P: return rt_control_demonitor(b, m->from, m->to, m->ref);
    case RT_OP_MONITOR_P_EXIT:
        return rt_control_monitor_exit(b, m->from, m->to, m->ref, m->reason);
    case RT_OP_PAYLOAD_EXIT: return rt_control_payload_exit(b, m->from, m->to);
    case RT_OP_PAYLOAD_EXIT2: return rt_control_payload_exit2(b, m->from, m->to);
    case RT_OP_PAYLOAD_MONITOR_P_EXIT:
        return rt_control_payload_monitor_exit(b, m->from, m->to, m->ref);
    case RT_OP_SPAWN_REPLY:
        return rt_control_spawn_reply(b, m->ref, m->to, (uint32_t)m->id, m->reason);
    case RT_OP_UNLINK_ID: return rt_control_unlink_id(b, m->id, m->from, m->to);
    case RT_OP_UNLINK_ID_ACK: return rt_control_unlink_id_ack(b, m->id, m->from, m->to);
    default: return RT_ENOENT;
    }
}

/* Judges a message: an expanded control and a payload that may refer to atoms. */
static int on_message(receiver *r, rt_slice control, rt_slice payload, const rt_atoms *atoms) {
    rt_scan scan = {.depth_max = DEPTH, .atoms = atoms};
    rt_buf again = RT_BUF_INIT, plain = RT_BUF_INIT;
    rt_control m;
    int64_t n = rt_control_parse(control.p, control.n, &m);
    if (n < 0) return (int)n;
    if ((size_t)n != control.n || m.payload != (payload.n > 0)) return RT_EBAD;
    if (write_again(&again, &m) == RT_OK)
        r->whole_written += rt_slice_eq(rt_slice_of(again.p, again.n), control);
    rt_buf_fini(&again);
    r->hash = rt_hash_bytes(control.p, control.n, r->hash);
    if (payload.n > 0) {
        n = rt_term_scan(payload.p, payload.n, &scan);
        if (n < 0) return (int)n;
        if (rt_term_expand(&plain, payload.p, (size_t)n, atoms) < 0) return RT_ENOMEM;
        r->hash = rt_hash_bytes(plain.p, plain.n, r->hash);
        if (plain.n > r->longest) r->longest = plain.n;
        rt_buf_fini(&plain);
    }
    r->ops[m.op]++;
    return RT_OK;
}

static int on_normal(receiver *r, const rt_frame *f) {
    rt_scan scan = {.depth_max = DEPTH, .atoms = &f->atoms};
    rt_buf control = RT_BUF_INIT;
    int64_t n = rt_term_scan(f->body.p, f->body.n, &scan);
    int rc;
    if (n < 0) return (int)n;
    rc = rt_term_expand(&control, f->body.p, (size_t)n, &f->atoms);
    if (rc == RT_OK)
        rc = on_message(r, rt_slice_of(control.p, control.n),
                        rt_slice_of(f->body.p + n, f->body.n - (size_t)n), &f->atoms);
    rt_buf_fini(&control);
    return rc;
}

static int on_fragment(receiver *r, const rt_frame *f) {
    rt_assembled a;
    int rc = rt_fragments_feed(r->fragments, f, &a);
    r->cut++;
    if (rc <= 0) return rc;
    rc = on_message(r, rt_slice_of(a.control.p, a.control.n),
                    rt_assembled_payload(&a), &a.atoms);
    rt_assembled_fini(&a);
    return rc;
}

static int on_pass(receiver *r, const rt_frame *f) {
    static const rt_atoms none;
    rt_slice control, payload;
    int rc = rt_frame_split_pass(f->body, &control, &payload);
    return rc < 0 ? rc : on_message(r, control, payload, &none);
}

static int on_packet(receiver *r, rt_slice bytes) {
    unsigned char *copy = check_copy(bytes.p, bytes.n);
    rt_frame f;
    int rc = rt_frame_parse(r->cache, r->header, rt_slice_of(copy, bytes.n), &f);
    r->frames++;
    if (rc == RT_OK) {
        switch (f.kind) {
        case RT_FRAME_TICK: r->ticks++; break;
        case RT_FRAME_PASS: rc = on_pass(r, &f); break;
        case RT_FRAME_NORMAL: rc = on_normal(r, &f); break;
        default: rc = on_fragment(r, &f); break;
        }
    }
    free(copy);
    return rc;
}

/* One step: a packet, or RT_AGAIN. */
static int step(receiver *r) {
    const uint8_t *p = r->in.p + r->read;
    size_t left = r->in.n - r->read, used, n;
    if (!r->up) {
        int rc = rt_handshake_feed(&r->hs, p, left, &used, &r->out);
        r->read += used;
        if (rc == RT_HS_DECIDE) return rt_handshake_decide(&r->hs, RT_HS_OK, S(""), &r->out);
        r->up = rc == RT_HS_DONE;
        return rc < 0 ? rc : used ? RT_OK : RT_AGAIN;
    }
    if (left < 4) return RT_AGAIN;
    n = rt_load_u32(p);
    if (n > MESSAGE_BYTES_MAX) return RT_ELIMIT;
    if (left - 4 < n) return RT_AGAIN;
    r->read += 4 + n;
    return on_packet(r, rt_slice_of(p + 4, n));
}

/* Feeds all bytes, so many at a time. RT_AGAIN at the end is as it should be:
 * nothing is left over that could be used. */
static int replay(receiver *r, const uint8_t *p, size_t n, size_t at_a_time) {
    int rc = RT_AGAIN;
    for (size_t at = 0; at < n; at += at_a_time) {
        size_t part = n - at < at_a_time ? n - at : at_a_time;
        if (rt_buf_put(&r->in, p + at, part) < 0) abort();
        while ((rc = step(r)) == RT_OK) {}
        if (rc != RT_AGAIN) return rc;
    }
    return rc;
}

/* Calls `with` for each direction of each file. */
static void each_vector(void (*with)(const vector *v, const vector *other)) {
    static const char *const files[] = {"tests/vectors/dist_otp25.txt",
                                        "tests/vectors/dist_otp28.txt"};
    for (size_t f = 0; f < 2; f++) {
        vectors all = vectors_read(files[f]);
        CHECK(all.n >= 4 && all.n % 2 == 0);
        for (size_t i = 0; i < all.n; i++) {
            long failed = atomic_load(&check_failed);
            with(&all.at[i], &all.at[i ^ 1]);
            if (atomic_load(&check_failed) > failed)
                fprintf(stderr, "    %s of %s\n", all.at[i].name, files[f]);
        }
        vectors_free(&all);
    }
}

/* What the conversation is known to hold. */
static void check_ops(const receiver *r, const vector *v) {
    bool pass = has(v->name, "pass"), talker = has(v->name, "from_initiator");
    static const enum rt_control_op today[] = {
        RT_OP_SEND_SENDER, RT_OP_MONITOR_P, RT_OP_DEMONITOR_P, RT_OP_PAYLOAD_EXIT,
        RT_OP_PAYLOAD_MONITOR_P_EXIT, RT_OP_UNLINK_ID, RT_OP_UNLINK_ID_ACK};
    static const enum rt_control_op old[] = {RT_OP_SEND, RT_OP_MONITOR_P, RT_OP_DEMONITOR_P,
                                             RT_OP_EXIT, RT_OP_MONITOR_P_EXIT};
    static const enum rt_control_op said[] = {RT_OP_REG_SEND, RT_OP_SPAWN_REQUEST, RT_OP_LINK,
                                              RT_OP_GROUP_LEADER, RT_OP_REG_SEND_TT,
                                              RT_OP_SPAWN_REQUEST_TT};
    static const enum rt_control_op answered[] = {RT_OP_SPAWN_REPLY, RT_OP_SPAWN_REPLY_TT};
    for (size_t i = 0; !pass && i < sizeof today / sizeof today[0]; i++)
        CHECK(r->ops[today[i]] > 0);
    for (size_t i = 0; pass && i < sizeof old / sizeof old[0]; i++) CHECK(r->ops[old[i]] > 0);
    for (size_t i = 0; talker && i < sizeof said / sizeof said[0]; i++)
        CHECK(r->ops[said[i]] > 0);
    for (size_t i = 0; !talker && i < sizeof answered / sizeof answered[0]; i++)
        CHECK(r->ops[answered[i]] > 0);
    if (talker) CHECK(r->ops[pass ? RT_OP_EXIT2 : RT_OP_PAYLOAD_EXIT2] > 0);
    /* Where both know it, ALTACT_SIG_SEND has taken the place of ALIAS_SEND. */
    if (rt_handshake_common(&r->hs) & RT_F_ALTACT_SIG)
        CHECK(r->ops[RT_OP_ALTACT_SIG_SEND] > 0);
    else if (!talker)
        CHECK(r->ops[RT_OP_ALIAS_SEND] > 0 && r->ops[RT_OP_ALIAS_SEND_TT] > 0);
    CHECK(r->ops[pass ? RT_OP_SEND_TT : RT_OP_SEND_SENDER_TT] > 0);
}

static void replay_whole(const vector *v, const vector *other) {
    receiver r;
    unsigned written = 0;
    open_receiver(&r, v, other);
    CHECK_INT(replay(&r, v->p, v->n, v->n), RT_AGAIN);
    CHECK_INT(r.read, v->n);
    CHECK(r.up && r.hs.peer_creation > 0);
    check_ops(&r, v);
    for (int op = 0; op < OPS; op++) written += r.ops[op];
    CHECK(r.whole_written * 10 > written * 8); /* the rest has trace tokens or is a spawn */
    CHECK_INT(rt_fragments_in_flight(r.fragments), 0);
    if (has(v->name, "talk_from_initiator")) CHECK(r.cut > 3 && r.longest > 200000);
    if (has(v->name, "pass")) CHECK_INT(r.cut, 0);
    close_receiver(&r);
}

static void real_conversations(void) { each_vector(replay_whole); }

static void replay_in_parts(const vector *v, const vector *other) {
    static const size_t sizes[] = {1, 2, 3, 5, 64, 1448, 65536};
    receiver whole, parts;
    open_receiver(&whole, v, other);
    CHECK_INT(replay(&whole, v->p, v->n, v->n), RT_AGAIN);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        open_receiver(&parts, v, other);
        CHECK_INT(replay(&parts, v->p, v->n, sizes[i]), RT_AGAIN);
        CHECK(parts.hash == whole.hash && parts.frames == whole.frames);
        CHECK_BYTES(parts.ops, whole.ops, sizeof whole.ops);
        close_receiver(&parts);
    }
    close_receiver(&whole);
}

static void in_parts_of_any_size(void) { each_vector(replay_in_parts); }

/* The same numbers in every run. */
static uint32_t next_random(uint64_t *state) {
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(*state >> 33);
}

static void replay_damaged(const vector *v, const vector *other) {
    uint64_t seed = v->n;
    uint8_t *p = malloc(v->n);
    if (!p) abort();
    for (int i = 0; i < 150; i++) {
        /* Most of the damage at the front, where the small packets are. */
        size_t at = next_random(&seed) % (i % 3 ? v->n < 12000 ? v->n : 12000 : v->n);
        uint8_t bit = (uint8_t)(1u << next_random(&seed) % 8);
        receiver r;
        int rc;
        memcpy(p, v->p, v->n);
        p[at] ^= bit;
        open_receiver(&r, v, other);
        rc = replay(&r, p, v->n, v->n);
        CHECK(rc < 0 && rc != RT_ENOMEM);
        CHECK(rt_fragments_in_flight(r.fragments) <= 1);
        close_receiver(&r);
    }
    free(p);
}

static void flipped_bits_end_nothing_but_the_connection(void) { each_vector(replay_damaged); }

/* Each packet of the first kilobytes loses its tail: its length says so too. */
static void replay_shortened(const vector *v, const vector *other) {
    for (size_t target = 0; target < 60; target++) {
        receiver r;
        size_t seen = 0;
        int rc = RT_OK;
        open_receiver(&r, v, other);
        if (rt_buf_put(&r.in, v->p, v->n) < 0) abort();
        while (rc == RT_OK && (!r.up || seen < target)) {
            seen += r.up;
            rc = step(&r);
        }
        if (rc == RT_OK && r.in.n - r.read >= 4) {
            const uint8_t *p = r.in.p + r.read + 4;
            size_t n = rt_load_u32(p - 4), keep = n < 2 ? 0 : n - 1 - (target * 7) % (n - 1);
            CHECK(n == 0 || on_packet(&r, rt_slice_of(p, keep)) < 0);
        }
        close_receiver(&r);
    }
}

static void shortened_packets_are_refused(void) { each_vector(replay_shortened); }

TESTS(real_conversations, in_parts_of_any_size, flipped_bits_end_nothing_but_the_connection,
      shortened_packets_are_refused)
