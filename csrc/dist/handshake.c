/* Source: Erlang/OTP documentation, erl_dist_protocol, "Distribution
 * Handshake". Every answer fits in ANSWER_BYTES_MAX, for which room is made
 * before a packet is looked at: nothing can fail half way through a step. */
#include "dist/handshake.h"

#include "base/cursor.h"
#include "base/md5.h"
#include "term/utf8.h"

enum state {
    START,          /* initiator: nothing sent */
    WANT_STATUS,    /* initiator */
    ASKED_ALIVE,    /* initiator: the caller decides */
    WANT_CHALLENGE, /* initiator */
    WANT_ACK,       /* initiator */
    WANT_NAME,      /* acceptor */
    ASKED_DECIDE,   /* acceptor: the caller decides */
    WANT_ALIVE,     /* acceptor: `alive` was said, true or false comes */
    WANT_COMPLEMENT,/* acceptor: the other half of an old introduction */
    WANT_REPLY,     /* acceptor */
    UP,
    OVER
};

enum { DIGEST = 16, ANSWER_BYTES_MAX = 64 + RT_NODE_NAME_BYTES_MAX };

/* Bit 36 is the virtual machine's own and means nothing on the wire. */
#define NEVER_SENT (1ull << 36)

/* What follows a node's name is to be ignored, says OTP's page; router nodes know each other by
 * it. A byte says what else the sender understands (bit 0: packs that do not turn, of
 * earlier versions). Who accepts says it to routers only. */
static const uint8_t ROUTER[6] = {'r', 'o', 'u', 't', 'e', 'r'};
enum { EXTRA = sizeof ROUTER + 1, EXTRA_PACKS = 2 };

/* A name is host@domain in printable UTF-8 of at most 255 characters. */
static bool name_ok(rt_slice name) {
    unsigned ats = 0;
    int64_t chars;
    if (name.n < 3 || name.n > RT_NODE_NAME_BYTES_MAX) return false;
    for (size_t i = 0; i < name.n; i++) {
        if (name.p[i] <= ' ' || name.p[i] == 0x7f) return false;
        ats += name.p[i] == '@';
    }
    if (ats != 1 || name.p[0] == '@' || name.p[name.n - 1] == '@') return false;
    chars = rt_utf8_chars(name.p, name.n);
    return chars > 0 && chars <= RT_ATOM_CHARS_MAX;
}

static void set_cookie(rt_handshake *hs, rt_slice cookie) {
    hs->cookie_len = (uint16_t)cookie.n;
    if (cookie.n) memcpy(hs->cookie, cookie.p, cookie.n);
}

static void set_peer(rt_handshake *hs, rt_slice name) {
    hs->peer_name_len = (uint16_t)name.n;
    if (name.n) memcpy(hs->peer_name, name.p, name.n);
}

int rt_handshake_init(rt_handshake *hs, bool initiator, rt_slice our_name, uint64_t our_flags,
                      uint32_t creation, uint32_t challenge, rt_slice cookie, rt_slice peer) {
    if (!name_ok(our_name) || creation == 0 || cookie.n > sizeof hs->cookie) return RT_EINVAL;
    if (initiator && (cookie.n == 0 || !name_ok(peer) || rt_slice_eq(our_name, peer)))
        return RT_EINVAL;
    memset(hs, 0, sizeof *hs);
    hs->state = initiator ? START : WANT_NAME;
    hs->initiator = initiator;
    hs->our_flags = our_flags & ~NEVER_SENT;
    hs->our_creation = creation;
    hs->our_challenge = challenge;
    hs->our_name_len = (uint16_t)our_name.n;
    memcpy(hs->our_name, our_name.p, our_name.n);
    set_cookie(hs, cookie);
    if (initiator) set_peer(hs, peer);
    return RT_OK;
}

/* The end, good or bad: the cookie is not needed any more. The pointer is
 * volatile so that the compiler keeps the stores. */
static int finish(rt_handshake *hs, enum state state, int rc) {
    volatile uint8_t *p = hs->cookie;
    for (size_t i = 0; i < sizeof hs->cookie; i++) p[i] = 0;
    hs->cookie_len = 0;
    hs->state = state;
    return rc;
}

static int fail(rt_handshake *hs, int rc) { return finish(hs, OVER, rc); }

/* MD5 of the cookie and the challenge in decimal. */
static void digest(const rt_handshake *hs, uint32_t challenge, uint8_t out[DIGEST]) {
    uint8_t text[10];
    size_t at = sizeof text;
    do {
        text[--at] = (uint8_t)('0' + challenge % 10);
        challenge /= 10;
    } while (challenge > 0);
    rt_md5(rt_slice_of(hs->cookie, hs->cookie_len),
           rt_slice_of(text + at, sizeof text - at), out);
}

static bool digest_ok(const rt_handshake *hs, const uint8_t *theirs) {
    uint8_t ours[DIGEST];
    digest(hs, hs->our_challenge, ours);
    return rt_digest_eq(ours, theirs);
}

static void put_status(rt_buf *out, const char *text) {
    size_t n = strlen(text);
    rt_buf_u16(out, (uint16_t)(1 + n));
    rt_buf_u8(out, 's');
    rt_buf_raw(out, text, n);
}

static void put_own_name(const rt_handshake *hs, bool extra, rt_buf *out) {
    rt_buf_u32(out, hs->our_creation);
    rt_buf_u16(out, hs->our_name_len);
    rt_buf_raw(out, hs->our_name, hs->our_name_len);
    if (!extra) return;
    rt_buf_raw(out, ROUTER, sizeof ROUTER);
    rt_buf_u8(out, hs->packs ? EXTRA_PACKS : 0);
}

/* What follows the peer's name, if it is a router's. */
static void take_extra(rt_handshake *hs, const rt_cursor *c) {
    if (rt_cursor_left(c) < EXTRA || memcmp(c->p, ROUTER, sizeof ROUTER) != 0) return;
    hs->peer_packs = (c->p[sizeof ROUTER] & EXTRA_PACKS) != 0;
}

static void put_challenge(const rt_handshake *hs, rt_buf *out) {
    size_t extra = hs->peer_packs ? EXTRA : 0;
    rt_buf_u16(out, (uint16_t)(1 + 8 + 4 + 4 + 2 + hs->our_name_len + extra));
    rt_buf_u8(out, 'N');
    rt_buf_u64(out, hs->our_flags);
    rt_buf_u32(out, hs->our_challenge);
    put_own_name(hs, extra > 0, out);
}

/* Goes on after the status: the challenge, and what is waited for then. */
static void go_on(rt_handshake *hs, rt_buf *out) {
    put_challenge(hs, out);
    hs->state = hs->old_name ? WANT_COMPLEMENT : WANT_REPLY;
}

/* Keeps the peer's flags; the digest bit stands for everything OTP 25 made
 * mandatory. False when something is missing. */
static bool take_flags(rt_handshake *hs, uint64_t flags) {
    if (flags & RT_F_MANDATORY_25_DIGEST) flags |= RT_FLAGS_MANDATORY;
    hs->peer_flags = flags & ~NEVER_SENT;
    hs->missing = RT_FLAGS_MANDATORY & ~flags;
    return hs->missing == 0;
}

int rt_handshake_start(rt_handshake *hs, rt_buf *out) {
    RT_ASSERT(hs->state == START);
    if (rt_buf_reserve(out, ANSWER_BYTES_MAX) < 0) return RT_ENOMEM;
    rt_buf_u16(out, (uint16_t)(1 + 8 + 4 + 2 + hs->our_name_len + EXTRA));
    rt_buf_u8(out, 'N');
    rt_buf_u64(out, hs->our_flags);
    put_own_name(hs, true, out);
    hs->state = WANT_STATUS;
    return RT_OK;
}

static int feed_status(rt_handshake *hs, rt_slice body) {
    static const struct { const char *text; enum state next; int verdict; } known[] = {
        {"ok", WANT_CHALLENGE, RT_HS_MORE},
        {"ok_simultaneous", WANT_CHALLENGE, RT_HS_MORE},
        {"alive", ASKED_ALIVE, RT_HS_ALIVE},
        {"nok", OVER, RT_ENOK},
        {"not_allowed", OVER, RT_ENOTALLOWED},
    };
    if (body.p[0] != 's') return fail(hs, RT_EBAD);
    body = rt_slice_of(body.p + 1, body.n - 1);
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (!rt_slice_eq(body, rt_slice_of(known[i].text, strlen(known[i].text)))) continue;
        if (known[i].verdict < 0) return fail(hs, known[i].verdict);
        hs->simultaneous = i == 1;
        hs->state = known[i].next;
        return known[i].verdict;
    }
    return fail(hs, RT_EBAD); /* `named:` too: this node never asks for a name */
}

static int feed_challenge(rt_handshake *hs, rt_slice body, rt_buf *out) {
    rt_cursor c = rt_cursor_of(body.p + 1, body.n - 1);
    uint64_t flags;
    uint32_t challenge, creation;
    uint16_t n;
    rt_slice name;
    if (body.p[0] != 'N' || !rt_cursor_u64(&c, &flags) || !rt_cursor_u32(&c, &challenge) ||
        !rt_cursor_u32(&c, &creation) || !rt_cursor_u16(&c, &n) || !rt_cursor_take(&c, n, &name))
        return fail(hs, RT_EBAD);
    if (!rt_slice_eq(name, rt_slice_of(hs->peer_name, hs->peer_name_len)))
        return fail(hs, RT_EINVAL);
    hs->peer_challenge = challenge;
    hs->peer_creation = creation;
    if (!take_flags(hs, flags)) return fail(hs, RT_EFLAGS);
    take_extra(hs, &c);
    rt_buf_u16(out, 1 + 4 + DIGEST);
    rt_buf_u8(out, 'r');
    rt_buf_u32(out, hs->our_challenge);
    digest(hs, challenge, out->p + out->n);
    out->n += DIGEST;
    hs->state = WANT_ACK;
    return RT_HS_MORE;
}

static int feed_ack(rt_handshake *hs, rt_slice body) {
    if (body.n < 1 + DIGEST || body.p[0] != 'a') return fail(hs, RT_EBAD);
    if (!digest_ok(hs, body.p + 1)) return fail(hs, RT_EAUTH);
    return finish(hs, UP, RT_HS_DONE);
}

/* 'N' flags:64 creation:32 length:16 name, or the old form
 * 'n' version:16 flags:32 name, where the name fills the packet. */
static int parse_name(rt_slice body, uint64_t *flags, uint32_t *creation, rt_slice *name,
                      rt_cursor *extra) {
    rt_cursor c = rt_cursor_of(body.p + 1, body.n - 1);
    uint16_t n;
    uint32_t low;
    if (body.p[0] == 'N') {
        if (!rt_cursor_u64(&c, flags) || !rt_cursor_u32(&c, creation) || !rt_cursor_u16(&c, &n))
            return RT_EBAD;
        if (!rt_cursor_take(&c, n, name)) return RT_EBAD;
        *extra = c;
        return RT_OK;
    }
    if (body.p[0] != 'n' || !rt_cursor_u16(&c, &n) || !rt_cursor_u32(&c, &low)) return RT_EBAD;
    *flags = low;
    *creation = 0; /* the complement brings it */
    *name = rt_slice_of(c.p, rt_cursor_left(&c));
    *extra = rt_cursor_of(c.end, 0);
    return RT_OK;
}

static int refuse(rt_handshake *hs, rt_buf *out, int rc) {
    put_status(out, "not_allowed");
    return fail(hs, rc);
}

static int feed_name(rt_handshake *hs, rt_slice body, rt_buf *out) {
    uint64_t flags;
    uint32_t creation;
    rt_slice name;
    rt_cursor extra;
    if (parse_name(body, &flags, &creation, &name, &extra) < 0) return fail(hs, RT_EBAD);
    /* The name is only a host then, and this node hands out no names. */
    if (flags & RT_F_NAME_ME) return refuse(hs, out, RT_ENOTALLOWED);
    if (!name_ok(name)) return fail(hs, RT_EBAD);
    set_peer(hs, name);
    hs->old_name = body.p[0] == 'n';
    hs->peer_creation = creation;
    if (!take_flags(hs, flags)) return refuse(hs, out, RT_EFLAGS);
    take_extra(hs, &extra);
    if (rt_slice_eq(name, rt_slice_of(hs->our_name, hs->our_name_len)))
        return refuse(hs, out, RT_EINVAL);
    hs->state = ASKED_DECIDE;
    return RT_HS_DECIDE;
}

static int feed_alive(rt_handshake *hs, rt_slice body, rt_buf *out) {
    rt_slice text = rt_slice_of(body.p + 1, body.n - 1);
    if (body.p[0] != 's') return fail(hs, RT_EBAD);
    if (rt_slice_eq(text, rt_slice_of("true", 4))) {
        go_on(hs, out);
        return RT_HS_MORE;
    }
    return fail(hs, rt_slice_eq(text, rt_slice_of("false", 5)) ? RT_EALIVE : RT_EBAD);
}

static int feed_complement(rt_handshake *hs, rt_slice body) {
    rt_cursor c = rt_cursor_of(body.p + 1, body.n - 1);
    uint32_t high, creation;
    if (body.p[0] != 'c' || !rt_cursor_u32(&c, &high) || !rt_cursor_u32(&c, &creation))
        return fail(hs, RT_EBAD);
    hs->peer_flags |= ((uint64_t)high << 32) & ~NEVER_SENT;
    if (hs->peer_flags & RT_F_NAME_ME) return fail(hs, RT_EBAD);
    hs->peer_creation = creation;
    hs->state = WANT_REPLY;
    return RT_HS_MORE;
}

static int feed_reply(rt_handshake *hs, rt_slice body, rt_buf *out) {
    if (body.n < 1 + 4 + DIGEST || body.p[0] != 'r') return fail(hs, RT_EBAD);
    hs->peer_challenge = rt_load_u32(body.p + 1);
    if (!digest_ok(hs, body.p + 5)) return fail(hs, RT_EAUTH);
    rt_buf_u16(out, 1 + DIGEST);
    rt_buf_u8(out, 'a');
    digest(hs, hs->peer_challenge, out->p + out->n);
    out->n += DIGEST;
    return finish(hs, UP, RT_HS_DONE);
}

static int feed_packet(rt_handshake *hs, rt_slice body, rt_buf *out) {
    switch (hs->state) {
    case WANT_STATUS: return feed_status(hs, body);
    case WANT_CHALLENGE: return feed_challenge(hs, body, out);
    case WANT_ACK: return feed_ack(hs, body);
    case WANT_NAME: return feed_name(hs, body, out);
    case WANT_ALIVE: return feed_alive(hs, body, out);
    case WANT_COMPLEMENT: return feed_complement(hs, body);
    default: return feed_reply(hs, body, out);
    }
}

int rt_handshake_feed(rt_handshake *hs, const uint8_t *p, size_t n, size_t *used, rt_buf *out) {
    size_t body;
    *used = 0;
    RT_ASSERT(hs->state != START);
    switch (hs->state) { /* where nothing is read */
    case ASKED_DECIDE: return RT_HS_DECIDE;
    case ASKED_ALIVE: return RT_HS_ALIVE;
    case UP: return RT_HS_DONE;
    case START: return RT_EINVAL;
    case OVER: return RT_ECLOSED;
    default: break;
    }
    if (n < 2) return RT_HS_MORE;
    body = rt_load_u16(p);
    if (body == 0) return fail(hs, RT_EBAD);
    if (body > RT_HANDSHAKE_PACKET_BYTES_MAX) return fail(hs, RT_ELIMIT);
    if (n - 2 < body) return RT_HS_MORE;
    if (rt_buf_reserve(out, ANSWER_BYTES_MAX) < 0) return RT_ENOMEM;
    *used = 2 + body;
    return feed_packet(hs, rt_slice_of(p + 2, body), out);
}

int rt_handshake_decide(rt_handshake *hs, enum rt_hs_answer answer, rt_slice cookie, rt_buf *out) {
    static const char *const text[] = {
        [RT_HS_OK] = "ok", [RT_HS_OK_SIMULTANEOUS] = "ok_simultaneous", [RT_HS_NOK] = "nok",
        [RT_HS_NOT_ALLOWED] = "not_allowed", [RT_HS_SAY_ALIVE] = "alive"};
    bool refused = answer == RT_HS_NOK || answer == RT_HS_NOT_ALLOWED;
    RT_ASSERT(hs->state == ASKED_DECIDE);
    if (hs->state != ASKED_DECIDE || cookie.n > sizeof hs->cookie) return RT_EINVAL;
    if (!refused && cookie.n == 0 && hs->cookie_len == 0) return RT_EINVAL;
    if (rt_buf_reserve(out, ANSWER_BYTES_MAX) < 0) return RT_ENOMEM;
    if (cookie.n > 0) set_cookie(hs, cookie);
    put_status(out, text[answer]);
    if (refused) return fail(hs, RT_OK);
    if (answer == RT_HS_SAY_ALIVE) hs->state = WANT_ALIVE;
    else go_on(hs, out);
    return RT_OK;
}

int rt_handshake_alive(rt_handshake *hs, bool yes, rt_buf *out) {
    RT_ASSERT(hs->state == ASKED_ALIVE);
    if (hs->state != ASKED_ALIVE) return RT_EINVAL;
    if (rt_buf_reserve(out, ANSWER_BYTES_MAX) < 0) return RT_ENOMEM;
    put_status(out, yes ? "true" : "false");
    if (!yes) return fail(hs, RT_OK);
    hs->state = WANT_CHALLENGE;
    return RT_OK;
}

int rt_handshake_closed(const rt_handshake *hs) {
    return hs->state == WANT_ACK ? RT_EAUTH : RT_ECLOSED;
}

uint64_t rt_handshake_common(const rt_handshake *hs) {
    uint64_t both = hs->our_flags & hs->peer_flags & ~RT_F_PACKS;
    return hs->packs && hs->peer_packs ? both | RT_F_PACKS : both;
}
