#include "check.h"

#include "base/cursor.h"
#include "base/md5.h"
#include "dist/handshake.h"

#define S(text) rt_slice_of(text, sizeof(text) - 1)
#define A_NAME S("a@host")
#define B_NAME S("b@host")
#define COOKIE S("secret")

/* One side, what it sent, and how its handshake ended. */
typedef struct side {
    rt_handshake hs;
    rt_buf in, out;
    size_t read; /* of `in` */
    int verdict;
} side;

/* How a conversation is to go. */
typedef struct plan {
    enum rt_hs_answer answer;
    bool go_on;             /* the initiator's word after `alive` */
    rt_slice a_cookie, b_cookie;
    uint64_t a_flags, b_flags;
    size_t step;            /* bytes moved at a time */
} plan;

static plan plain(void) {
    plan p = {RT_HS_OK, true, COOKIE, COOKIE, RT_FLAGS_OURS, RT_FLAGS_OURS, SIZE_MAX};
    return p;
}

static void side_fini(side *s) {
    rt_buf_fini(&s->in);
    rt_buf_fini(&s->out);
}

static void open_sides(const plan *p, side *a, side *b) {
    memset(a, 0, sizeof *a);
    memset(b, 0, sizeof *b);
    CHECK_INT(rt_handshake_init(&a->hs, true, A_NAME, p->a_flags, 7, 4000000000u, p->a_cookie,
                                B_NAME), 0);
    CHECK_INT(rt_handshake_init(&b->hs, false, B_NAME, p->b_flags, 9, 0, S(""), S("")), 0);
    a->hs.packs = b->hs.packs = true;
    CHECK_INT(rt_handshake_start(&a->hs, &a->out), 0);
}

/* Moves up to `step` bytes of what `from` sent to `to`. */
static bool move(side *from, side *to, size_t step) {
    size_t n = from->out.n < step ? from->out.n : step;
    if (n == 0) return false;
    CHECK_INT(rt_buf_put(&to->in, from->out.p, n), 0);
    memmove(from->out.p, from->out.p + n, from->out.n - n);
    from->out.n -= n;
    return true;
}

/* Feeds what came, from a block that ends where the bytes do. */
static void feed(side *s, const plan *p) {
    for (;;) {
        size_t n = s->in.n - s->read, used = 99;
        unsigned char *copy = check_copy(s->in.p + s->read, n);
        s->verdict = rt_handshake_feed(&s->hs, copy, n, &used, &s->out);
        free(copy);
        s->read += used;
        if (s->verdict == RT_HS_DECIDE)
            CHECK_INT(rt_handshake_decide(&s->hs, p->answer, p->b_cookie, &s->out), 0);
        else if (s->verdict == RT_HS_ALIVE)
            CHECK_INT(rt_handshake_alive(&s->hs, p->go_on, &s->out), 0);
        else if (s->verdict != RT_HS_MORE || used == 0)
            return;
    }
}

static bool ended(const side *s) { return s->verdict == RT_HS_DONE || s->verdict < 0; }

static void converse(const plan *p, side *a, side *b) {
    bool moved = true;
    open_sides(p, a, b);
    while (moved) {
        moved = false;
        if (!ended(b) && move(a, b, p->step)) {
            moved = true;
            feed(b, p);
        }
        if (!ended(a) && move(b, a, p->step)) {
            moved = true;
            feed(a, p);
        }
    }
}

static void check_run(plan p, int a_end, int b_end) {
    static const size_t steps[] = {1, 2, 3, 7, SIZE_MAX};
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        side a, b;
        p.step = steps[i];
        converse(&p, &a, &b);
        CHECK_INT(a.verdict, a_end);
        CHECK_INT(b.verdict, b_end);
        side_fini(&a);
        side_fini(&b);
    }
}

static void both_roles_meet(void) {
    plan p = plain();
    side a, b;
    check_run(p, RT_HS_DONE, RT_HS_DONE);
    p.b_flags &= ~RT_F_SPAWN;
    converse(&p, &a, &b);
    CHECK_INT(a.hs.peer_creation, 9);
    CHECK_INT(b.hs.peer_creation, 7);
    CHECK(rt_slice_eq(rt_slice_of(b.hs.peer_name, b.hs.peer_name_len), A_NAME));
    CHECK(a.hs.peer_flags == p.b_flags && b.hs.peer_flags == p.a_flags);
    CHECK(rt_handshake_common(&a.hs) == ((RT_FLAGS_OURS & ~RT_F_SPAWN) | RT_F_PACKS));
    CHECK(rt_handshake_common(&b.hs) == rt_handshake_common(&a.hs));
    CHECK(!a.hs.simultaneous && !b.hs.old_name);
    a.hs.packs = false; /* a router that does not unpack */
    CHECK(!(rt_handshake_common(&a.hs) & RT_F_PACKS));
    side_fini(&a);
    side_fini(&b);
}

static void cookies_are_not_kept(void) {
    static const uint8_t none[256];
    plan p = plain();
    side a, b;
    converse(&p, &a, &b);
    CHECK_BYTES(a.hs.cookie, none, sizeof none);
    CHECK_BYTES(b.hs.cookie, none, sizeof none);
    side_fini(&a);
    side_fini(&b);
}

static void a_wrong_cookie_ends_it(void) {
    plan p = plain();
    side a, b;
    p.a_cookie = S("guess");
    check_run(p, RT_HS_MORE, RT_EAUTH);
    converse(&p, &a, &b);
    CHECK_INT(b.out.n, 0); /* a stranger gets no digest */
    CHECK_INT(rt_handshake_closed(&a.hs), RT_EAUTH);
    CHECK_INT(rt_handshake_closed(&b.hs), RT_ECLOSED);
    side_fini(&a);
    side_fini(&b);
}

/* The initiator checks the digest of the acknowledgement. */
static void a_wrong_acknowledgement_ends_it(void) {
    plan p = plain();
    side a, b;
    size_t used;
    open_sides(&p, &a, &b);
    move(&a, &b, SIZE_MAX);
    feed(&b, &p);
    move(&b, &a, SIZE_MAX);
    feed(&a, &p);
    CHECK_INT(a.out.n, 2 + 21);
    CHECK_INT(rt_handshake_feed(&a.hs, S("\0\x11" "a0123456789abcdef").p, 19, &used, &a.out),
              RT_EAUTH);
    side_fini(&a);
    side_fini(&b);
}

static void missing_flags_are_named(void) {
    uint64_t wanted = RT_FLAGS_MANDATORY;
    for (; wanted; wanted &= wanted - 1) {
        uint64_t bit = wanted & -wanted;
        plan p = plain();
        side a, b;
        p.a_flags = RT_FLAGS_OURS & ~bit & ~RT_F_MANDATORY_25_DIGEST;
        check_run(p, RT_ENOTALLOWED, RT_EFLAGS);
        converse(&p, &a, &b);
        CHECK(b.hs.missing == bit);
        side_fini(&a);
        side_fini(&b);
        p = plain();
        p.b_flags = RT_FLAGS_OURS & ~bit & ~RT_F_MANDATORY_25_DIGEST;
        check_run(p, RT_EFLAGS, RT_HS_MORE);
        converse(&p, &a, &b);
        CHECK(a.hs.missing == bit);
        side_fini(&a);
        side_fini(&b);
    }
}

static void the_digest_flag_stands_for_the_mandatory_ones(void) {
    plan p = plain();
    side a, b;
    p.a_flags = RT_F_MANDATORY_25_DIGEST | RT_F_SPAWN;
    check_run(p, RT_HS_DONE, RT_HS_DONE);
    converse(&p, &a, &b);
    CHECK(b.hs.peer_flags == (RT_F_MANDATORY_25_DIGEST | RT_F_SPAWN | RT_FLAGS_MANDATORY));
    CHECK(rt_handshake_common(&b.hs) == (b.hs.peer_flags | RT_F_PACKS));
    side_fini(&a);
    side_fini(&b);
}

static void every_status(void) {
    plan p = plain();
    side a, b;
    p.answer = RT_HS_OK_SIMULTANEOUS;
    check_run(p, RT_HS_DONE, RT_HS_DONE);
    converse(&p, &a, &b);
    CHECK(a.hs.simultaneous);
    side_fini(&a);
    side_fini(&b);
    p.answer = RT_HS_NOK;
    check_run(p, RT_ENOK, RT_ECLOSED);
    p.answer = RT_HS_NOT_ALLOWED;
    check_run(p, RT_ENOTALLOWED, RT_ECLOSED);
    p.answer = RT_HS_SAY_ALIVE;
    check_run(p, RT_HS_DONE, RT_HS_DONE);
    p.go_on = false;
    check_run(p, RT_ECLOSED, RT_EALIVE);
}

/* Both begin at once: a real pair of connections, where the higher name wins. */
static void simultaneous_attempts_leave_one(void) {
    plan low = plain(), high = plain();
    side a1, b1, a2, b2;
    low.answer = RT_HS_NOK; /* b@host answers the lower a@host, and goes on */
    converse(&low, &a1, &b1);
    CHECK_INT(a1.verdict, RT_ENOK);
    high.answer = RT_HS_OK_SIMULTANEOUS;
    converse(&high, &a2, &b2);
    CHECK_INT(a2.verdict, RT_HS_DONE);
    CHECK_INT(b2.verdict, RT_HS_DONE);
    CHECK(a2.hs.simultaneous && !a1.hs.simultaneous);
    side_fini(&a1);
    side_fini(&b1);
    side_fini(&a2);
    side_fini(&b2);
}

/* A started initiator or a fresh acceptor that gets one packet. */
static int answer_to(bool initiator, rt_slice packet, rt_handshake *hs, rt_buf *out) {
    size_t used = 0;
    unsigned char *copy = check_copy(packet.p, packet.n);
    int rc;
    CHECK_INT(rt_handshake_init(hs, initiator, B_NAME, RT_FLAGS_OURS, 9, 1, COOKIE,
                                initiator ? A_NAME : S("")), 0);
    hs->packs = true;
    if (initiator) CHECK_INT(rt_handshake_start(hs, out), 0);
    out->n = 0;
    rc = rt_handshake_feed(hs, copy, packet.n, &used, out);
    free(copy);
    return rc;
}

static void check_answer(bool initiator, rt_slice packet, int want) {
    rt_handshake hs;
    rt_buf out = RT_BUF_INIT;
    CHECK_INT(answer_to(initiator, packet, &hs, &out), want);
    rt_buf_fini(&out);
}

static void malformed_packets_are_refused(void) {
    check_answer(false, S("\0\0"), RT_EBAD);
    check_answer(false, S("\x08\x01"), RT_ELIMIT); /* before the rest has come */
    check_answer(false, S("\xff\xff"), RT_ELIMIT);
    check_answer(false, S("\x08\x00"), RT_HS_MORE);
    check_answer(false, S("\0\1N"), RT_EBAD);
    check_answer(false, S("\0\1n"), RT_EBAD);
    check_answer(false, S("\0\3xok"), RT_EBAD);
    check_answer(true, S("\0\0"), RT_EBAD);
    check_answer(true, S("\x08\x01"), RT_ELIMIT);
    check_answer(true, S("\0\1s"), RT_EBAD);
    check_answer(true, S("\0\4sok "), RT_EBAD);
    check_answer(true, S("\0\3xok"), RT_EBAD);
    check_answer(true, S("\0\3sok"), RT_HS_MORE);
    check_answer(true, S("\0\4snok"), RT_ENOK);
    check_answer(true, S("\0\x10snamed:\0\3x@y\0\0\0\5"), RT_EBAD);
}

/* 'N' flags creation length name, with a name and a tail of one's choice. */
static rt_buf name_packet(uint64_t flags, rt_slice name, uint16_t claimed, rt_slice tail) {
    rt_buf b = RT_BUF_INIT;
    if (rt_buf_reserve(&b, 64 + name.n + tail.n) < 0) abort();
    rt_buf_u16(&b, (uint16_t)(15 + name.n + tail.n));
    rt_buf_u8(&b, 'N');
    rt_buf_u64(&b, flags);
    rt_buf_u32(&b, 5);
    rt_buf_u16(&b, claimed);
    rt_buf_raw(&b, name.p, name.n);
    rt_buf_raw(&b, tail.p, tail.n);
    return b;
}

static void check_name(uint64_t flags, rt_slice name, rt_slice tail, int want) {
    rt_buf b = name_packet(flags, name, (uint16_t)name.n, tail);
    check_answer(false, rt_slice_of(b.p, b.n), want);
    rt_buf_fini(&b);
}

static void names_are_checked(void) {
    uint8_t longest[RT_NODE_NAME_BYTES_MAX + 5];
    rt_buf b;
    check_name(RT_FLAGS_OURS, A_NAME, S(""), RT_HS_DECIDE);
    check_name(RT_FLAGS_OURS, A_NAME, S("from the future"), RT_HS_DECIDE);
    check_name(RT_FLAGS_OURS, S("d\xc3\xa9j\xc3\xa0@h"), S(""), RT_HS_DECIDE);
    check_name(RT_FLAGS_OURS, S("d\xe9j@h"), S(""), RT_EBAD);
    check_name(RT_FLAGS_OURS, S("nohost"), S(""), RT_EBAD);
    check_name(RT_FLAGS_OURS, S("@host"), S(""), RT_EBAD);
    check_name(RT_FLAGS_OURS, S("name@"), S(""), RT_EBAD);
    check_name(RT_FLAGS_OURS, S("a@b@c"), S(""), RT_EBAD);
    check_name(RT_FLAGS_OURS, S("a\n@host"), S(""), RT_EBAD);
    check_name(RT_FLAGS_OURS, S(""), S(""), RT_EBAD);
    check_name(RT_FLAGS_OURS, B_NAME, S(""), RT_EINVAL); /* our own */
    check_name(RT_FLAGS_OURS | RT_F_NAME_ME, S("host"), S(""), RT_ENOTALLOWED);
    memset(longest, 'x', sizeof longest);
    longest[3] = '@';
    check_name(RT_FLAGS_OURS, rt_slice_of(longest, 255), S(""), RT_HS_DECIDE);
    check_name(RT_FLAGS_OURS, rt_slice_of(longest, 256), S(""), RT_EBAD);
    check_name(RT_FLAGS_OURS, rt_slice_of(longest, sizeof longest), S(""), RT_EBAD);
    b = name_packet(RT_FLAGS_OURS, A_NAME, 7, S(""));
    check_answer(false, rt_slice_of(b.p, b.n), RT_EBAD); /* claims more than it holds */
    rt_buf_fini(&b);
}

static void refusals_are_answered(void) {
    rt_handshake hs;
    rt_buf out = RT_BUF_INIT;
    rt_buf b = name_packet(RT_FLAGS_OURS | RT_F_NAME_ME, S("host"), 4, S(""));
    CHECK_INT(answer_to(false, rt_slice_of(b.p, b.n), &hs, &out), RT_ENOTALLOWED);
    CHECK_INT(out.n, 14);
    CHECK_BYTES(out.p, "\0\x0csnot_allowed", 14);
    rt_buf_fini(&b);
    rt_buf_fini(&out);
}

/* What follows a name: a router's, none, cut, another's, of a router that knows no packs. */
static void only_a_router_is_told_from_its_name(void) {
    static const struct { const char *tail; size_t n; bool packs; } extras[] = {
        {"router\2", 7, true}, {"router\3 and more", 16, true}, {"", 0, false},
        {"router", 6, false}, {"rooter\2", 7, false}, {"router\1", 7, false}};
    for (size_t i = 0; i < sizeof extras / sizeof extras[0]; i++) {
        uint8_t hello[64] = "\0\x15N\0\0\0\0\x04\0\0\0\0\0\0\x2a\0\6a@host";
        rt_handshake hs;
        rt_buf out = RT_BUF_INIT;
        hello[1] = (uint8_t)(hello[1] + extras[i].n);
        memcpy(hello + 23, extras[i].tail, extras[i].n);
        CHECK_INT(answer_to(false, rt_slice_of(hello, 23 + extras[i].n), &hs, &out), RT_HS_DECIDE);
        CHECK_INT(hs.peer_packs, extras[i].packs);
        CHECK(!(rt_handshake_common(&hs) & RT_F_PACKS) == !extras[i].packs);
        CHECK_INT(rt_handshake_decide(&hs, RT_HS_OK, S(""), &out), 0);
        CHECK_INT(out.n, 5 + 2 + 19 + 6 + (extras[i].packs ? 7 : 0)); /* to others nothing new */
        rt_buf_fini(&out);
    }
}

/* A flag of that number in the handshake is not ours. */
static void packs_are_no_flag_on_the_wire(void) {
    rt_handshake hs;
    rt_buf out = RT_BUF_INIT;
    uint8_t hello[] = "\0\x15N\x80\0\0\0\x04\0\0\0\0\0\0\x2a\0\6a@host";
    CHECK_INT(answer_to(false, rt_slice_of(hello, 23), &hs, &out), RT_HS_DECIDE);
    CHECK(!(rt_handshake_common(&hs) & RT_F_PACKS));
    rt_buf_fini(&out);
}

/* The old introduction: 32 bits of flags and no creation, both of which the
 * complement adds after the challenge. */
static void an_old_introduction_is_completed(void) {
    static const char hello[] = "\0\x0dn\0\5\x01\x07\x0f\x94" "a@host";
    rt_handshake hs;
    rt_buf out = RT_BUF_INIT;
    uint8_t reply[2 + 21] = "\0\x15r\0\0\0\1";
    size_t used;
    CHECK_INT(answer_to(false, S(hello), &hs, &out), RT_HS_DECIDE);
    CHECK(hs.old_name && hs.peer_creation == 0 && hs.peer_flags == 0x1070f94);
    CHECK_INT(rt_handshake_decide(&hs, RT_HS_OK, S(""), &out), 0);
    CHECK_BYTES(out.p, "\0\3sok\0\x19N", 8);
    out.n = 0;
    rt_md5(COOKIE, S("1"), reply + 7);
    CHECK_INT(rt_handshake_feed(&hs, S("\0\x0b" "c\0\0\0\x0d\0\0\0\x2a!!").p, 13, &used, &out), 0);
    CHECK_INT(used, 13);
    CHECK(hs.peer_flags == (0x1070f94 | RT_F_SPAWN | RT_F_V4_NC | RT_F_ALIAS));
    CHECK_INT(hs.peer_creation, 42);
    CHECK_INT(rt_handshake_feed(&hs, reply, sizeof reply, &used, &out), RT_HS_DONE);
    CHECK_INT(out.n, 19);
    rt_buf_fini(&out);
    CHECK_INT(answer_to(false, S("\0\x0dn\0\5\x00\x07\x0f\x94" "a@host"), &hs, &out), RT_EFLAGS);
    CHECK(hs.missing == RT_F_HANDSHAKE_23);
    rt_buf_fini(&out);
}

/* Without the complement an old introduction ends. */
static void an_old_introduction_needs_its_complement(void) {
    static const char hello[] = "\0\x0dn\0\5\x01\x07\x0f\x94" "a@host";
    rt_handshake hs;
    rt_buf out = RT_BUF_INIT;
    uint8_t reply[2 + 21] = "\0\x15r\0\0\0\1";
    size_t used;
    CHECK_INT(answer_to(false, S(hello), &hs, &out), RT_HS_DECIDE);
    CHECK_INT(rt_handshake_decide(&hs, RT_HS_OK, S(""), &out), 0);
    rt_md5(COOKIE, S("1"), reply + 7);
    CHECK_INT(rt_handshake_feed(&hs, reply, sizeof reply, &used, &out), RT_EBAD);
    rt_buf_fini(&out);
}

static void the_challenge_names_who_was_called(void) {
    plan p = plain();
    side a, b;
    open_sides(&p, &a, &b);
    memcpy(b.hs.our_name, "c", 1);
    move(&a, &b, SIZE_MAX);
    feed(&b, &p);
    move(&b, &a, SIZE_MAX);
    feed(&a, &p);
    CHECK_INT(a.verdict, RT_EINVAL);
    side_fini(&a);
    side_fini(&b);
}

/* The first packets may come in the read that ends the handshake: the bytes
 * after `used` are theirs. */
static void packets_follow_at_once(void) {
    static const uint8_t tick[8] = {0, 0, 0, 0, 0, 0, 0, 1};
    for (int acceptor = 0; acceptor < 2; acceptor++) {
        plan p = plain();
        side a, b, *last;
        open_sides(&p, &a, &b);
        for (int i = 0; i < 2; i++) {
            move(&a, &b, SIZE_MAX);
            if (acceptor && i == 1) rt_buf_put(&b.in, tick, 8);
            feed(&b, &p);
            move(&b, &a, SIZE_MAX);
            if (!acceptor && i == 1) rt_buf_put(&a.in, tick, 8);
            feed(&a, &p);
        }
        last = acceptor ? &b : &a;
        CHECK_INT(last->verdict, RT_HS_DONE);
        CHECK_INT(last->in.n - last->read, 8);
        side_fini(&a);
        side_fini(&b);
    }
}

/* Whatever is cut off the end of what one side says, the other one waits. */
static void every_cut_waits(void) {
    plan p = plain();
    side a, b;
    open_sides(&p, &a, &b);
    for (size_t cut = 0; cut < a.out.n; cut++)
        check_answer(false, rt_slice_of(a.out.p, cut), RT_HS_MORE);
    side_fini(&a);
    side_fini(&b);
}

/* A bit flipped anywhere in either direction never does more than end it. */
static void flipped_bits_never_join(void) {
    for (int way = 0; way < 2; way++) {
        for (size_t bit = 0; bit < 8 * 120; bit++) {
            plan p = plain();
            side a, b;
            size_t moved = 0;
            open_sides(&p, &a, &b);
            for (int i = 0; i < 8 && !(ended(&a) && ended(&b)); i++) {
                side *from = i & 1 ? &b : &a, *to = i & 1 ? &a : &b;
                size_t end = moved + from->out.n;
                if ((i & 1) == way) {
                    if (bit / 8 >= moved && bit / 8 < end)
                        from->out.p[bit / 8 - moved] ^= (uint8_t)(1 << bit % 8);
                    moved = end;
                }
                if (!ended(to) && move(from, to, SIZE_MAX)) feed(to, &p);
            }
            /* Who is up has seen the other's digest of the right number. */
            if (a.verdict == RT_HS_DONE) CHECK(b.hs.peer_challenge == a.hs.our_challenge);
            if (b.verdict == RT_HS_DONE) CHECK(a.hs.peer_challenge == b.hs.our_challenge);
            CHECK(a.verdict != RT_HS_DECIDE && b.verdict != RT_HS_ALIVE);
            side_fini(&a);
            side_fini(&b);
        }
    }
}

static void arguments_are_checked(void) {
    static const uint8_t huge[257];
    rt_handshake hs;
    rt_slice none = S(""), big = rt_slice_of(huge, sizeof huge);
    CHECK_INT(rt_handshake_init(&hs, true, S("bad"), 0, 1, 1, COOKIE, B_NAME), RT_EINVAL);
    CHECK_INT(rt_handshake_init(&hs, true, A_NAME, 0, 0, 1, COOKIE, B_NAME), RT_EINVAL);
    CHECK_INT(rt_handshake_init(&hs, true, A_NAME, 0, 1, 1, none, B_NAME), RT_EINVAL);
    CHECK_INT(rt_handshake_init(&hs, true, A_NAME, 0, 1, 1, big, B_NAME), RT_EINVAL);
    CHECK_INT(rt_handshake_init(&hs, true, A_NAME, 0, 1, 1, COOKIE, none), RT_EINVAL);
    CHECK_INT(rt_handshake_init(&hs, true, A_NAME, 0, 1, 1, COOKIE, A_NAME), RT_EINVAL);
    CHECK_INT(rt_handshake_init(&hs, true, A_NAME, ~0ull, 1, 1, COOKIE, B_NAME), 0);
    CHECK(hs.our_flags == ~(1ull << 36)); /* that one is never sent */
}

/* An acceptor that knows no cookie lets nobody in. */
static void no_cookie_no_connection(void) {
    plan p = plain();
    side a, b;
    size_t used;
    open_sides(&p, &a, &b);
    CHECK_INT(rt_handshake_feed(&b.hs, a.out.p, a.out.n, &used, &b.out), RT_HS_DECIDE);
    CHECK_INT(rt_handshake_decide(&b.hs, RT_HS_OK, S(""), &b.out), RT_EINVAL);
    CHECK_INT(b.out.n, 0);
    side_fini(&a);
    side_fini(&b);
}

/* Nothing moves while the caller has not decided, or after the end. */
static void a_decision_is_waited_for(void) {
    plan p = plain();
    side a, b;
    size_t used;
    open_sides(&p, &a, &b);
    CHECK_INT(rt_handshake_feed(&b.hs, a.out.p, a.out.n, &used, &b.out), RT_HS_DECIDE);
    CHECK_INT(rt_handshake_feed(&b.hs, a.out.p, a.out.n, &used, &b.out), RT_HS_DECIDE);
    CHECK_INT(used, 0);
    CHECK_INT(rt_handshake_decide(&b.hs, RT_HS_NOK, S(""), &b.out), 0);
    CHECK_INT(rt_handshake_feed(&b.hs, a.out.p, a.out.n, &used, &b.out), RT_ECLOSED);
    side_fini(&a);
    side_fini(&b);
}

/* A step without memory can be taken again. */
static void every_allocation_fails_once(void) {
    rt_handshake hs;
    rt_buf out = RT_BUF_INIT, name = name_packet(RT_FLAGS_OURS, A_NAME, 6, S(""));
    size_t used;
    CHECK_INT(rt_handshake_init(&hs, true, A_NAME, RT_FLAGS_OURS, 1, 1, COOKIE, B_NAME), 0);
    rt_alloc_fail_after(0);
    CHECK_INT(rt_handshake_start(&hs, &out), RT_ENOMEM);
    CHECK_INT(rt_handshake_start(&hs, &out), 0);
    rt_buf_fini(&out);
    CHECK_INT(rt_handshake_init(&hs, false, B_NAME, RT_FLAGS_OURS, 1, 1, COOKIE, S("")), 0);
    rt_alloc_fail_after(0);
    CHECK_INT(rt_handshake_feed(&hs, name.p, name.n, &used, &out), RT_ENOMEM);
    CHECK_INT(used, 0);
    CHECK_INT(rt_handshake_feed(&hs, name.p, name.n, &used, &out), RT_HS_DECIDE);
    rt_buf_fini(&out);
    rt_alloc_fail_after(0);
    CHECK_INT(rt_handshake_decide(&hs, RT_HS_OK, S(""), &out), RT_ENOMEM);
    CHECK_INT(rt_handshake_decide(&hs, RT_HS_OK, S(""), &out), 0);
    rt_buf_fini(&out);
    rt_buf_fini(&name);
}

static void flags_have_names(void) {
    CHECK(strcmp(rt_flag_name(0), "none") == 0);
    CHECK(strcmp(rt_flag_name(RT_F_HANDSHAKE_23 | RT_F_SPAWN), "HANDSHAKE_23") == 0);
    CHECK(strcmp(rt_flag_name(RT_F_NATIVE_RECORDS), "NATIVE_RECORDS") == 0);
    CHECK(strcmp(rt_flag_name(1ull << 36), "unknown") == 0);
    CHECK(strcmp(rt_flag_name(1ull << 62), "unknown") == 0);
}

TESTS(both_roles_meet, cookies_are_not_kept, a_wrong_cookie_ends_it,
      a_wrong_acknowledgement_ends_it, missing_flags_are_named,
      the_digest_flag_stands_for_the_mandatory_ones, every_status,
      simultaneous_attempts_leave_one, malformed_packets_are_refused, names_are_checked,
      refusals_are_answered, only_a_router_is_told_from_its_name, packs_are_no_flag_on_the_wire,
      an_old_introduction_is_completed,
      an_old_introduction_needs_its_complement, the_challenge_names_who_was_called,
      packets_follow_at_once, every_cut_waits, flipped_bits_never_join, arguments_are_checked,
      no_cookie_no_connection, a_decision_is_waited_for, every_allocation_fails_once,
      flags_have_names)
