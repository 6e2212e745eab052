/* The handshake in both roles: fed whole and byte by byte it ends the same.
 * Input: options, the answer to give, our challenge, then what the peer says. */
#include "fuzz.h"

#include "dist/handshake.h"

enum { INITIATOR = 1, FALLS_BACK = 2, STEPS_MAX = 64 };

typedef struct talk {
    rt_handshake hs;
    rt_buf out;
    int rc;
    unsigned decided;
} talk;

static void open_talk(talk *t, uint8_t options, uint32_t challenge) {
    rt_slice first = TEXT("first@127.0.0.1"), second = TEXT("second@127.0.0.1");
    bool initiator = options & INITIATOR;
    memset(t, 0, sizeof *t);
    t->rc = rt_handshake_init(&t->hs, initiator, initiator ? first : second, RT_FLAGS_OURS, 5,
                              challenge, TEXT("vectors"), initiator ? second : TEXT(""));
    HOLDS(t->rc == RT_OK);
    if (initiator) HOLDS(rt_handshake_start(&t->hs, &t->out) == RT_OK);
}

/* Takes what it can of n bytes and returns how many that were. */
static size_t feed(talk *t, const uint8_t *p, size_t n, uint8_t options, uint8_t answer) {
    size_t at = 0;
    for (int step = 0; step < STEPS_MAX && t->rc >= 0 && t->rc != RT_HS_DONE; step++) {
        size_t used = 0, said = t->out.n;
        t->rc = rt_handshake_feed(&t->hs, p + at, n - at, &used, &t->out);
        HOLDS(used <= n - at);
        HOLDS(t->out.n >= said && t->out.n - said <= 4 * RT_HANDSHAKE_PACKET_BYTES_MAX);
        at += used;
        if (t->rc == RT_HS_DECIDE) {
            HOLDS(t->decided++ == 0 && t->hs.peer_name_len > 2);
            enum rt_hs_answer say = (enum rt_hs_answer)(answer % (RT_HS_SAY_ALIVE + 1));
            t->rc = rt_handshake_decide(&t->hs, say, TEXT(""), &t->out);
            if (say == RT_HS_NOK || say == RT_HS_NOT_ALLOWED) t->rc = RT_ECLOSED; /* over */
        } else if (t->rc == RT_HS_ALIVE) {
            t->rc = rt_handshake_alive(&t->hs, !(options & FALLS_BACK), &t->out);
            if (options & FALLS_BACK) t->rc = RT_ECLOSED;
        } else if (used == 0) {
            break;
        }
    }
    return at;
}

/* Byte by byte, keeping what is not yet a packet. */
static size_t feed_slowly(talk *t, const uint8_t *p, size_t n, uint8_t options, uint8_t answer) {
    size_t start = 0;
    for (size_t end = 1; end <= n && t->rc >= 0 && t->rc != RT_HS_DONE; end++) {
        uint8_t *copy = exact_copy(rt_slice_of(p + start, end - start));
        start += feed(t, copy, end - start, options, answer);
        free(copy);
    }
    return start;
}

static void same(const talk *a, const talk *b) {
    HOLDS(a->rc == b->rc && a->hs.state == b->hs.state && a->decided == b->decided);
    HOLDS(rt_slice_eq(rt_slice_of(a->out.p, a->out.n), rt_slice_of(b->out.p, b->out.n)));
    HOLDS(a->hs.peer_flags == b->hs.peer_flags && a->hs.missing == b->hs.missing);
    HOLDS(a->hs.peer_creation == b->hs.peer_creation);
}

static void up(const talk *t) {
    static const uint8_t none[sizeof t->hs.cookie];
    HOLDS((t->hs.peer_flags & RT_FLAGS_MANDATORY) == RT_FLAGS_MANDATORY);
    HOLDS(memcmp(t->hs.cookie, none, sizeof none) == 0);
    HOLDS(t->hs.initiator || t->decided == 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    rt_cursor c = rt_cursor_of(data, size);
    uint8_t options = take_u8(&c), answer = take_u8(&c);
    uint32_t challenge = 0;
    talk whole, parts;
    long before = rt_alloc_live();
    rt_cursor_u32(&c, &challenge);
    size_t n = rt_cursor_left(&c);
    open_talk(&whole, options, challenge);
    open_talk(&parts, options, challenge);
    size_t used = feed(&whole, c.p, n, options, answer);
    HOLDS(feed_slowly(&parts, c.p, n, options, answer) == used || whole.rc < 0);
    same(&whole, &parts);
    if (whole.rc == RT_HS_DONE) up(&whole);
    rt_buf_fini(&whole.out);
    rt_buf_fini(&parts.out);
    nothing_left(before);
    return 0;
}
