#include "check.h"

#include "dist/control.h"
#include "term/ident.h"
#include "term/write.h"

#define S(literal) rt_slice_of(literal, sizeof(literal) - 1)

/* Elements of control tuples as terms, as OTP 25 writes them. */
#define FROM "Xw\x0e" "a@127.0.0.1xyz" "\0\0\0\x55\0\0\0\1\x65\x02\x03\x04"
#define TO "Xw\1b\0\0\0\x56\0\0\0\0\0\0\0\2"
#define OLD_PID "gd\0\3c@d\0\0\0\x26\0\0\0\0\1"
#define LEADER "Xw\2gl\0\0\0\7\0\0\0\0\0\0\0\2"
#define REF "Z\0\3w\1b\0\0\0\2\0\0\0\1\0\0\0\2\0\0\0\3"
#define EMPTY "w\0"
#define NAME "w\4name"
#define OLD_NAME "d\0\4name"
#define REASON "h\2w\6reasonk\0\2\1\2"
#define TOKEN "h\5a\1a\2a\3" FROM "a\4"
#define MFA "h\3w\1mw\1fa\2"
#define OPTIONS "l\0\0\0\1w\4linkj"
#define BIG_ID "n\x08\0\xff\xff\xff\xff\xff\xff\xff\xff"

/* A tuple's elements after the opcode, and what is to be read from them. */
typedef struct sample {
    enum rt_control_op op;
    bool payload;
    unsigned count;
    rt_slice element[6];
    rt_slice from, to, ref, reason, leader, mfa, options;
    uint64_t id;
    bool to_name, to_alias;
} sample;

#define E(literal) {(const uint8_t *)(literal), sizeof(literal) - 1}

static const sample SAMPLES[] = {
    {RT_OP_LINK, false, 2, {E(FROM), E(TO)}, .from = E(FROM), .to = E(TO)},
    {RT_OP_LINK, false, 2, {E(OLD_PID), E(TO)}, .from = E(OLD_PID), .to = E(TO)},
    {RT_OP_SEND, true, 2, {E(EMPTY), E(TO)}, .to = E(TO)},
    {RT_OP_SEND, true, 2, {E(REASON), E(TO)}, .to = E(TO)},
    {RT_OP_EXIT, false, 3, {E(FROM), E(TO), E(REASON)},
     .from = E(FROM), .to = E(TO), .reason = E(REASON)},
    {RT_OP_UNLINK, false, 2, {E(FROM), E(TO)}, .from = E(FROM), .to = E(TO)},
    {RT_OP_NODE_LINK, false, 0, {E("")}, .id = 0},
    {RT_OP_REG_SEND, true, 3, {E(FROM), E(EMPTY), E(NAME)},
     .from = E(FROM), .to = E(NAME), .to_name = true},
    {RT_OP_REG_SEND, true, 3, {E(FROM), E(EMPTY), E(OLD_NAME)},
     .from = E(FROM), .to = E(OLD_NAME), .to_name = true},
    {RT_OP_GROUP_LEADER, false, 2, {E(FROM), E(TO)}, .from = E(FROM), .to = E(TO)},
    {RT_OP_EXIT2, false, 3, {E(FROM), E(TO), E(REASON)},
     .from = E(FROM), .to = E(TO), .reason = E(REASON)},
    {RT_OP_SEND_TT, true, 3, {E(EMPTY), E(TO), E(TOKEN)}, .to = E(TO)},
    {RT_OP_EXIT_TT, false, 4, {E(FROM), E(TO), E(TOKEN), E(REASON)},
     .from = E(FROM), .to = E(TO), .reason = E(REASON)},
    {RT_OP_REG_SEND_TT, true, 4, {E(FROM), E(EMPTY), E(NAME), E(TOKEN)},
     .from = E(FROM), .to = E(NAME), .to_name = true},
    {RT_OP_EXIT2_TT, false, 4, {E(FROM), E(TO), E(TOKEN), E(REASON)},
     .from = E(FROM), .to = E(TO), .reason = E(REASON)},
    {RT_OP_MONITOR_P, false, 3, {E(FROM), E(TO), E(REF)},
     .from = E(FROM), .to = E(TO), .ref = E(REF)},
    {RT_OP_MONITOR_P, false, 3, {E(FROM), E(NAME), E(REF)},
     .from = E(FROM), .to = E(NAME), .ref = E(REF), .to_name = true},
    {RT_OP_DEMONITOR_P, false, 3, {E(FROM), E(NAME), E(REF)},
     .from = E(FROM), .to = E(NAME), .ref = E(REF), .to_name = true},
    {RT_OP_MONITOR_P_EXIT, false, 4, {E(NAME), E(TO), E(REF), E(REASON)},
     .from = E(NAME), .to = E(TO), .ref = E(REF), .reason = E(REASON)},
    {RT_OP_SEND_SENDER, true, 2, {E(FROM), E(TO)}, .from = E(FROM), .to = E(TO)},
    {RT_OP_SEND_SENDER_TT, true, 3, {E(FROM), E(TO), E(TOKEN)}, .from = E(FROM), .to = E(TO)},
    {RT_OP_PAYLOAD_EXIT, true, 2, {E(FROM), E(TO)}, .from = E(FROM), .to = E(TO)},
    {RT_OP_PAYLOAD_EXIT_TT, true, 3, {E(FROM), E(TO), E(TOKEN)}, .from = E(FROM), .to = E(TO)},
    {RT_OP_PAYLOAD_EXIT2, true, 2, {E(FROM), E(TO)}, .from = E(FROM), .to = E(TO)},
    {RT_OP_PAYLOAD_EXIT2_TT, true, 3, {E(FROM), E(TO), E(TOKEN)}, .from = E(FROM), .to = E(TO)},
    {RT_OP_PAYLOAD_MONITOR_P_EXIT, true, 3, {E(FROM), E(TO), E(REF)},
     .from = E(FROM), .to = E(TO), .ref = E(REF)},
    {RT_OP_SPAWN_REQUEST, true, 5, {E(REF), E(FROM), E(LEADER), E(MFA), E(OPTIONS)},
     .from = E(FROM), .ref = E(REF), .leader = E(LEADER), .mfa = E(MFA), .options = E(OPTIONS)},
    {RT_OP_SPAWN_REQUEST_TT, true, 6,
     {E(REF), E(FROM), E(LEADER), E(MFA), E("j"), E(TOKEN)},
     .from = E(FROM), .ref = E(REF), .leader = E(LEADER), .mfa = E(MFA), .options = E("j")},
    {RT_OP_SPAWN_REPLY, false, 4, {E(REF), E(TO), E("a\3"), E(FROM)},
     .ref = E(REF), .to = E(TO), .id = 3, .reason = E(FROM)},
    {RT_OP_SPAWN_REPLY_TT, false, 5, {E(REF), E(TO), E("a\0"), E(NAME), E(TOKEN)},
     .ref = E(REF), .to = E(TO), .reason = E(NAME)},
    {RT_OP_ALIAS_SEND, true, 2, {E(FROM), E(REF)},
     .from = E(FROM), .to = E(REF), .to_alias = true},
    {RT_OP_ALIAS_SEND_TT, true, 3, {E(FROM), E(REF), E(TOKEN)},
     .from = E(FROM), .to = E(REF), .to_alias = true},
    {RT_OP_UNLINK_ID, false, 3, {E(BIG_ID), E(FROM), E(TO)},
     .from = E(FROM), .to = E(TO), .id = UINT64_MAX},
    {RT_OP_UNLINK_ID_ACK, false, 3, {E("b\0\0\1\0"), E(FROM), E(TO)},
     .from = E(FROM), .to = E(TO), .id = 256},
    {RT_OP_ALTACT_SIG_SEND, true, 3, {E("a\1"), E(FROM), E(TO)},
     .from = E(FROM), .to = E(TO), .id = RT_ALTACT_PRIO},
    {RT_OP_ALTACT_SIG_SEND, true, 4, {E("a\3"), E(FROM), E(TO), E(TOKEN)},
     .from = E(FROM), .to = E(TO), .id = RT_ALTACT_PRIO | RT_ALTACT_TOKEN},
    {RT_OP_ALTACT_SIG_SEND, true, 3, {E("a\5"), E(FROM), E(REF)},
     .from = E(FROM), .to = E(REF), .to_alias = true, .id = RT_ALTACT_PRIO | RT_ALTACT_ALIAS},
    {RT_OP_ALTACT_SIG_SEND, true, 3, {E("a\x09"), E(FROM), E(NAME)},
     .from = E(FROM), .to = E(NAME), .to_name = true, .id = RT_ALTACT_PRIO | RT_ALTACT_NAME},
    {RT_OP_ALTACT_SIG_SEND, true, 4, {E("a\x17"), E(FROM), E(REF), E(TOKEN)},
     .from = E(FROM), .to = E(REF), .to_alias = true,
     .id = RT_ALTACT_PRIO | RT_ALTACT_TOKEN | RT_ALTACT_ALIAS | RT_ALTACT_EXIT},
};
enum { SAMPLES_N = sizeof SAMPLES / sizeof SAMPLES[0] };

/* The tuple, with `arity` instead of the right one when that is not 0, with
 * element `swap` replaced, in the short or the long form. */
static rt_buf tuple(const sample *s, unsigned arity, unsigned swap, rt_slice with, bool wide) {
    rt_buf b = RT_BUF_INIT;
    if (rt_buf_reserve(&b, 1024) < 0) abort();
    if (!arity) arity = s->count + 1;
    if (wide) {
        rt_buf_u8(&b, 'i');
        rt_buf_u32(&b, arity);
        rt_buf_u8(&b, 'b');
        rt_buf_u32(&b, s->op);
    } else {
        rt_buf_u8(&b, 'h');
        rt_buf_u8(&b, (uint8_t)arity);
        rt_buf_u8(&b, 'a');
        rt_buf_u8(&b, (uint8_t)s->op);
    }
    for (unsigned i = 0; i < s->count; i++) {
        rt_slice e = i == swap ? with : s->element[i];
        rt_buf_raw(&b, e.p, e.n);
    }
    return b;
}

static rt_buf whole(const sample *s) { return tuple(s, 0, 99, S(""), false); }

/* Parses from a block of exactly n bytes; the slices are moved back. */
static int64_t parse(const uint8_t *p, size_t n, rt_control *m) {
    unsigned char *copy = check_copy(p, n);
    int64_t rc = rt_control_parse(copy, n, m);
    rt_slice *all[] = {&m->from, &m->to, &m->ref, &m->reason, &m->group_leader, &m->mfa,
                       &m->options};
    for (size_t i = 0; rc >= 0 && i < sizeof all / sizeof all[0]; i++)
        if (all[i]->p) all[i]->p = p + (all[i]->p - copy);
    free(copy);
    return rc;
}

static int64_t parse_rc(rt_buf b) {
    rt_control m = {0};
    int64_t rc = parse(b.p, b.n, &m);
    rt_buf_fini(&b);
    return rc;
}

static void check_sample(const sample *s, const rt_control *m) {
    int ok = CHECK(m->op == s->op && m->payload == s->payload && m->id == s->id);
    ok &= CHECK(m->to_name == s->to_name && m->to_alias == s->to_alias);
    ok &= CHECK(rt_slice_eq(m->from, s->from));
    ok &= CHECK(rt_slice_eq(m->to, s->to));
    ok &= CHECK(rt_slice_eq(m->ref, s->ref));
    ok &= CHECK(rt_slice_eq(m->reason, s->reason));
    ok &= CHECK(rt_slice_eq(m->group_leader, s->leader));
    ok &= CHECK(rt_slice_eq(m->mfa, s->mfa));
    ok &= CHECK(rt_slice_eq(m->options, s->options));
    if (!ok) fprintf(stderr, "    opcode %d\n", s->op);
}

static void every_opcode(void) {
    for (int i = 0; i < SAMPLES_N; i++) {
        for (int wide = 0; wide < 2; wide++) {
            rt_buf b = tuple(&SAMPLES[i], 0, 99, S(""), wide);
            rt_control m;
            size_t n = b.n;
            if (rt_buf_put(&b, "payload", 7) < 0) abort();
            CHECK_INT(parse(b.p, b.n, &m), n); /* what follows is left alone */
            check_sample(&SAMPLES[i], &m);
            rt_buf_fini(&b);
        }
    }
}

static void every_cut_asks_for_more(void) {
    for (int i = 0; i < SAMPLES_N; i++) {
        for (int wide = 0; wide < 2; wide++) {
            rt_buf b = tuple(&SAMPLES[i], 0, 99, S(""), wide);
            rt_control m = {.id = 12345}, before = m;
            for (size_t cut = 0; cut < b.n; cut++) {
                if (!CHECK(parse(b.p, cut, &m) == RT_AGAIN))
                    fprintf(stderr, "    opcode %d cut at %zu\n", SAMPLES[i].op, cut);
            }
            CHECK_BYTES(&m, &before, sizeof m);
            rt_buf_fini(&b);
        }
    }
}

static void wrong_arities_are_refused(void) {
    for (int i = 0; i < SAMPLES_N; i++) {
        const sample *s = &SAMPLES[i];
        for (unsigned arity = 1; arity < 10; arity++) {
            if (arity == s->count + 1) continue;
            if (!CHECK(parse_rc(tuple(s, arity, 99, S(""), false)) == RT_EBAD) ||
                !CHECK(parse_rc(tuple(s, arity, 99, S(""), true)) == RT_EBAD))
                fprintf(stderr, "    opcode %d arity %u\n", s->op, arity);
        }
    }
    CHECK_INT(parse_rc(tuple(&SAMPLES[0], 255, 99, S(""), false)), RT_EBAD);
    CHECK_INT(parse_rc(tuple(&SAMPLES[0], UINT32_MAX, 99, S(""), true)), RT_EBAD);
}

/* True when any term may stand in that place. */
static bool any_term(const sample *s, unsigned i) {
    rt_slice e = s->element[i];
    return rt_slice_eq(e, S(EMPTY)) || rt_slice_eq(e, S(TOKEN)) || rt_slice_eq(e, S(REASON));
}

static void wrong_elements_are_refused(void) {
    for (int i = 0; i < SAMPLES_N; i++) {
        for (unsigned at = 0; at < SAMPLES[i].count; at++) {
            rt_slice map = S("t\0\0\0\0"), cache = S("R\0"), unknown = S("\xff\xff");
            if (!any_term(&SAMPLES[i], at))
                CHECK_INT(parse_rc(tuple(&SAMPLES[i], 0, at, map, false)), RT_EBAD);
            CHECK_INT(parse_rc(tuple(&SAMPLES[i], 0, at, cache, false)), RT_EBAD);
            CHECK_INT(parse_rc(tuple(&SAMPLES[i], 0, at, unknown, false)), RT_EBAD);
        }
    }
}

static int64_t with_element(enum rt_control_op op, unsigned at, rt_slice e) {
    for (int i = 0; i < SAMPLES_N; i++)
        if (SAMPLES[i].op == op) return parse_rc(tuple(&SAMPLES[i], 0, at, e, false));
    abort();
}

/* Kinds that are close to each other. */
static void near_misses_are_refused(void) {
    CHECK_INT(with_element(RT_OP_SEND, 1, S(NAME)), RT_EBAD);
    CHECK_INT(with_element(RT_OP_SEND, 1, S(REF)), RT_EBAD);
    CHECK_INT(with_element(RT_OP_REG_SEND, 2, S(TO)), RT_EBAD);
    CHECK_INT(with_element(RT_OP_ALIAS_SEND, 1, S(TO)), RT_EBAD);
    CHECK_INT(with_element(RT_OP_MONITOR_P, 0, S(NAME)), RT_EBAD);
    CHECK_INT(with_element(RT_OP_MONITOR_P, 1, S(REF)), RT_EBAD);
    CHECK_INT(with_element(RT_OP_MONITOR_P, 2, S(TO)), RT_EBAD);
    CHECK_INT(with_element(RT_OP_MONITOR_P_EXIT, 1, S(NAME)), RT_EBAD);
    CHECK_INT(with_element(RT_OP_UNLINK_ID, 0, S("b\xff\xff\xff\xff")), RT_EBAD);
    CHECK_INT(with_element(RT_OP_UNLINK_ID, 0, S("n\1\1\1")), RT_EBAD);
    CHECK_INT(with_element(RT_OP_UNLINK_ID, 0, S("n\x09\0\1\2\3\4\5\6\7\x08\x09")), RT_EBAD);
    CHECK_INT(with_element(RT_OP_SPAWN_REPLY, 2, S("n\5\0\0\0\0\0\1")), RT_EBAD);
    CHECK_INT(with_element(RT_OP_SPAWN_REPLY, 3, S(REF)), RT_EBAD);
    CHECK_INT(with_element(RT_OP_SPAWN_REQUEST, 3, S("h\2w\1mw\1f")), RT_EBAD);
    CHECK_INT(with_element(RT_OP_SPAWN_REQUEST, 3, S("h\3w\1mw\1fb\xff\xff\xff\xff")), RT_EBAD);
    CHECK_INT(with_element(RT_OP_SPAWN_REQUEST, 3, S("h\3w\1mk\0\1xa\1")), RT_EBAD);
    CHECK_INT(with_element(RT_OP_SPAWN_REQUEST, 4, S(NAME)), RT_EBAD);
    CHECK_INT(with_element(RT_OP_ALTACT_SIG_SEND, 0, S("a\5")), RT_EBAD);
    CHECK_INT(with_element(RT_OP_ALTACT_SIG_SEND, 0, S("a\x0d")), RT_EBAD);
    CHECK_INT(with_element(RT_OP_ALTACT_SIG_SEND, 0, S("a\3")), RT_EBAD);
    CHECK_INT(with_element(RT_OP_SEND, 1, S("Xw\2\xc3\x28\0\0\0\1\0\0\0\0\0\0\0\2")), RT_EBAD);
    CHECK(with_element(RT_OP_SEND, 1, S("Xw\2\xc3\xa9\0\0\0\1\0\0\0\0\0\0\0\2")) > 0);
    CHECK_INT(with_element(RT_OP_REG_SEND, 2, S("w\2\xc3\x28")), RT_EBAD);
    CHECK_INT(with_element(RT_OP_ALIAS_SEND, 1, S("Z\0\6w\1b\0\0\0\2\0\0\0\1\0\0\0\2\0\0\0\3"
                                                  "\0\0\0\4\0\0\0\5\0\0\0\6")), RT_EBAD);
    CHECK(with_element(RT_OP_UNLINK_ID, 0, S("o\0\0\0\1\0\5")) > 0); /* a wide tag */
}

static void unknown_opcodes_are_refused(void) {
    for (unsigned op = 0; op < 256; op++) {
        uint8_t p[] = {'h', 3, 'a', (uint8_t)op, 'a', 1, 'a', 1};
        rt_control m;
        CHECK_INT(parse(p, sizeof p, &m), RT_EBAD); /* known ones: for their elements */
    }
    CHECK_INT(parse_rc(tuple(&(sample){.op = 38}, 0, 99, S(""), true)), RT_EBAD);
    CHECK_INT(parse_rc(tuple(&(sample){.op = 1 << 20}, 0, 99, S(""), true)), RT_EBAD);
    CHECK_INT(rt_control_parse(S("h\0").p, 2, &(rt_control){0}), RT_EBAD);
    CHECK_INT(rt_control_parse(S("j").p, 1, &(rt_control){0}), RT_EBAD);
    CHECK_INT(rt_control_parse(S("h\1w\1x").p, 5, &(rt_control){0}), RT_EBAD);
}

/* A reason nested without end is bounded. */
static void depth_is_bounded(void) {
    enum { N = 1 << 20 };
    uint8_t *p = malloc(N);
    rt_control m;
    if (!p) abort();
    for (size_t i = 0; i < N; i += 2) memcpy(p + i, "h\1", 2);
    memcpy(p, "h\4a\3" OLD_PID TO, 4 + sizeof OLD_PID TO - 1);
    CHECK_INT(rt_control_parse(p, N, &m), RT_ELIMIT);
    free(p);
}

/* Every writer: sample `at` is what it must write. */
static int write_sample(rt_buf *b, const sample *s) {
    const rt_slice *e = s->element;
    switch (s->op) {
    case RT_OP_LINK: return rt_control_link(b, e[0], e[1]);
    case RT_OP_SEND: return rt_control_send(b, e[1]);
    case RT_OP_EXIT: return rt_control_exit(b, e[0], e[1], e[2]);
    case RT_OP_UNLINK: return rt_control_unlink(b, e[0], e[1]);
    case RT_OP_REG_SEND: return rt_control_reg_send(b, e[0], S("name"));
    case RT_OP_GROUP_LEADER: return rt_control_group_leader(b, e[0], e[1]);
    case RT_OP_EXIT2: return rt_control_exit2(b, e[0], e[1], e[2]);
    case RT_OP_MONITOR_P: return rt_control_monitor(b, e[0], e[1], e[2]);
    case RT_OP_DEMONITOR_P: return rt_control_demonitor(b, e[0], e[1], e[2]);
    case RT_OP_MONITOR_P_EXIT: return rt_control_monitor_exit(b, e[0], e[1], e[2], e[3]);
    case RT_OP_SEND_SENDER: return rt_control_send_sender(b, e[0], e[1]);
    case RT_OP_PAYLOAD_EXIT: return rt_control_payload_exit(b, e[0], e[1]);
    case RT_OP_PAYLOAD_EXIT2: return rt_control_payload_exit2(b, e[0], e[1]);
    case RT_OP_PAYLOAD_MONITOR_P_EXIT:
        return rt_control_payload_monitor_exit(b, e[0], e[1], e[2]);
    case RT_OP_SPAWN_REQUEST:
        return rt_control_spawn_request(b, e[0], e[1], e[2], S("m"), S("f"), 2, e[4]);
    case RT_OP_SPAWN_REPLY:
        return rt_control_spawn_reply(b, e[0], e[1], (uint32_t)s->id, e[3]);
    case RT_OP_ALIAS_SEND: return rt_control_alias_send(b, e[0], e[1]);
    case RT_OP_UNLINK_ID: return rt_control_unlink_id(b, s->id, e[1], e[2]);
    case RT_OP_UNLINK_ID_ACK: return rt_control_unlink_id_ack(b, s->id, e[1], e[2]);
    default: return 1; /* no writer */
    }
}

static void writers_write_the_samples(void) {
    unsigned written = 0;
    for (int i = 0; i < SAMPLES_N; i++) {
        rt_buf want = whole(&SAMPLES[i]), b = RT_BUF_INIT;
        int rc;
        if (rt_buf_put(&b, "before", 6) < 0) abort();
        rc = write_sample(&b, &SAMPLES[i]);
        if (rc == 0 && !rt_slice_eq(SAMPLES[i].element[0], S(REASON)) &&
            !rt_slice_eq(SAMPLES[i].element[2], S(OLD_NAME))) {
            written++;
            CHECK_INT(b.n, 6 + want.n);
            CHECK_BYTES(b.p, "before", 6);
            CHECK_BYTES(b.p + 6, want.p, want.n);
        }
        CHECK(rc == 0 || rc == 1);
        rt_buf_fini(&want);
        rt_buf_fini(&b);
    }
    CHECK_INT(written, 21);
}

/* Without memory a writer leaves the buffer as it was. */
static void every_allocation_fails_once(void) {
    for (int i = 0; i < SAMPLES_N; i++) {
        int rc = RT_ENOMEM;
        for (long at = 0; rc == RT_ENOMEM; at++) {
            rt_buf b = RT_BUF_INIT;
            if (rt_buf_put(&b, "before", 6) < 0) abort();
            rt_alloc_fail_after(at);
            rc = write_sample(&b, &SAMPLES[i]);
            rt_alloc_fail_after(-1);
            CHECK(rc == 0 || rc == 1 || (rc == RT_ENOMEM && b.n == 6));
            rt_buf_fini(&b);
        }
    }
}

static void names_too_long_are_refused(void) {
    uint8_t name[256];
    rt_buf b = RT_BUF_INIT;
    rt_slice long_name = rt_slice_of(name, sizeof name);
    memset(name, 'n', sizeof name);
    CHECK_INT(rt_control_reg_send(&b, S(FROM), long_name), RT_EINVAL);
    CHECK_INT(rt_control_spawn_request(&b, S(REF), S(FROM), S(LEADER), S("m"), long_name, 1,
                                       S("j")), RT_EINVAL);
    CHECK_INT(b.n, 0);
    rt_buf_fini(&b);
}

TESTS(every_opcode, every_cut_asks_for_more, wrong_arities_are_refused,
      wrong_elements_are_refused, near_misses_are_refused, unknown_opcodes_are_refused,
      depth_is_bounded, writers_write_the_samples, every_allocation_fails_once,
      names_too_long_are_refused)
