#include "check.h"

#include "base/limits.h"
#include "dist/fragments.h"

#define S(literal) rt_slice_of(literal, sizeof(literal) - 1)

/* {2, X, Y} with two references into the header's atoms, and without. */
#define CONTROL "h\3a\2R\0R\1"
#define EXPANDED "h\3a\2w\2abw\0"

enum { DEPTH = 100 };

static rt_frame first(uint64_t seq, uint64_t frag, rt_slice body) {
    rt_frame f = {.kind = RT_FRAME_FRAG_FIRST, .sequence = seq, .fragment = frag, .body = body};
    f.atoms.count = 2;
    f.atoms.at[0] = S("ab");
    f.atoms.at[1] = S("");
    return f;
}

static rt_frame next(uint64_t seq, uint64_t frag, rt_slice body) {
    rt_frame f = {.kind = RT_FRAME_FRAG_NEXT, .sequence = seq, .fragment = frag, .body = body};
    return f;
}

static int feed_first(rt_fragments *f, uint64_t seq, uint64_t frag, rt_slice body,
                      rt_assembled *out) {
    rt_frame frame = first(seq, frag, body);
    return rt_fragments_feed(f, &frame, out);
}

static int feed_next(rt_fragments *f, uint64_t seq, uint64_t frag, rt_slice body,
                     rt_assembled *out) {
    rt_frame frame = next(seq, frag, body);
    return rt_fragments_feed(f, &frame, out);
}

static void check_message(rt_assembled *a, rt_slice payload) {
    CHECK(rt_slice_eq(rt_slice_of(a->control.p, a->control.n), S(EXPANDED)));
    CHECK(rt_slice_eq(rt_assembled_payload(a), payload));
    CHECK_INT(a->atoms.count, 2);
    CHECK(rt_slice_eq(a->atoms.at[0], S("ab")) && a->atoms.at[1].n == 0);
    rt_assembled_fini(a);
}

static void one_fragment_is_a_message(void) {
    rt_fragments *f = rt_fragments_new(0, 1000, DEPTH, NULL);
    rt_assembled a;
    CHECK_INT(feed_first(f, 1, 1, S(CONTROL "R\0"), &a), 1);
    check_message(&a, S("R\0"));
    CHECK_INT(feed_first(f, 1, 1, S(CONTROL), &a), 1);
    check_message(&a, S(""));
    CHECK_INT(rt_fragments_in_flight(f), 0);
    CHECK_INT(rt_fragments_held(f), 0);
    rt_fragments_free(f);
    rt_fragments_free(NULL);
}

static void sequences_interleave(void) {
    enum { N = 200 };
    rt_fragments *f = rt_fragments_new(N, 1000, DEPTH, NULL);
    rt_assembled a;
    for (uint64_t s = 0; s < N; s++)
        CHECK_INT(feed_first(f, s << 32 | s % 7, 3, S(CONTROL "m"), &a), 0);
    CHECK_INT(rt_fragments_in_flight(f), N);
    CHECK(rt_fragments_held(f) >= N * (sizeof EXPANDED - 1 + 1));
    for (uint64_t s = 0; s < N; s++)
        CHECK_INT(feed_next(f, s << 32 | s % 7, 2, S("\0\0\0\2"), &a), 0);
    for (uint64_t s = N; s-- > 0;) {
        uint8_t tail[2] = {(uint8_t)s, 'x'};
        uint8_t whole[7] = {'m', 0, 0, 0, 2, (uint8_t)s, 'x'};
        CHECK_INT(feed_next(f, s << 32 | s % 7, 1, rt_slice_of(tail, 2), &a), 1);
        check_message(&a, rt_slice_of(whole, 7));
    }
    CHECK_INT(rt_fragments_in_flight(f), 0);
    CHECK_INT(rt_fragments_held(f), 0);
    CHECK_INT(feed_first(f, 0, 2, S(CONTROL), &a), 0); /* the number may come again */
    rt_fragments_free(f);
}

/* What the caller's buffers held may be gone when the message is whole. */
static void nothing_points_into_the_packets(void) {
    rt_fragments *f = rt_fragments_new(4, 1000, DEPTH, NULL);
    unsigned char *atom = check_copy("ab", 2), *body = check_copy(CONTROL "R\0", 10);
    rt_frame frame = first(5, 2, rt_slice_of(body, 10));
    rt_assembled a;
    frame.atoms.at[0].p = atom;
    CHECK_INT(rt_fragments_feed(f, &frame, &a), 0);
    free(atom);
    free(body);
    CHECK_INT(feed_next(f, 5, 1, S(""), &a), 1);
    check_message(&a, S("R\0"));
    rt_fragments_free(f);
}

static void order_is_checked(void) {
    rt_fragments *f = rt_fragments_new(4, 1000, DEPTH, NULL);
    rt_assembled a;
    CHECK_INT(feed_next(f, 1, 1, S("x"), &a), RT_EBAD); /* nothing was begun */
    CHECK_INT(feed_first(f, 1, 4, S(CONTROL), &a), 0);
    CHECK_INT(feed_first(f, 1, 4, S(CONTROL), &a), RT_EBAD);
    CHECK_INT(feed_first(f, 1, 1, S(CONTROL), &a), RT_EBAD);
    CHECK_INT(feed_next(f, 2, 3, S("x"), &a), RT_EBAD);
    CHECK_INT(feed_next(f, 1, 4, S("x"), &a), RT_EBAD);
    CHECK_INT(feed_next(f, 1, 2, S("x"), &a), RT_EBAD);
    CHECK_INT(feed_next(f, 1, 1, S("x"), &a), RT_EBAD);
    CHECK_INT(feed_next(f, 1, 3, S("x"), &a), 0);
    CHECK_INT(feed_next(f, 1, 3, S("x"), &a), RT_EBAD);
    rt_fragments_free(f); /* with the sequence that never ended */
}

static void the_first_holds_the_whole_control(void) {
    rt_fragments *f = rt_fragments_new(4, 1000, DEPTH, NULL);
    rt_assembled a;
    for (size_t n = 0; n < sizeof CONTROL - 1; n++)
        CHECK_INT(feed_first(f, 1, 2, rt_slice_of(CONTROL, n), &a), RT_EBAD);
    CHECK_INT(feed_first(f, 1, 2, S("h\2a\2R\2"), &a), RT_EBAD); /* no such atom */
    CHECK_INT(feed_first(f, 1, 2, S("\xff"), &a), RT_EBAD);
    CHECK_INT(rt_fragments_in_flight(f), 0);
    CHECK_INT(rt_fragments_held(f), 0);
    rt_fragments_free(f);
}

static void limits_hold(void) {
    rt_fragments *f = rt_fragments_new(2, 30, DEPTH, NULL);
    rt_assembled a;
    size_t held;
    CHECK_INT(feed_first(f, 1, 3, S(CONTROL "0123456789"), &a), 0);
    held = rt_fragments_held(f); /* of 30 */
    CHECK_INT(held, sizeof EXPANDED - 1 + 10 + 1 + 2 + 2 + 2);
    CHECK_INT(feed_next(f, 1, 2, S("0123"), &a), RT_ELIMIT);
    CHECK_INT(feed_next(f, 1, 2, S("012"), &a), 0);
    CHECK_INT(feed_next(f, 1, 1, S("0"), &a), RT_ELIMIT);
    CHECK_INT(rt_fragments_held(f), 30);
    CHECK_INT(feed_first(f, 2, 3, S(CONTROL "0123456789abcd"), &a), RT_ELIMIT);
    CHECK_INT(feed_first(f, 2, 1, S(CONTROL "0123456789abcd"), &a), RT_ELIMIT);
    CHECK_INT(feed_first(f, 2, 3, S(CONTROL), &a), 0);
    CHECK_INT(feed_first(f, 3, 2, S(CONTROL), &a), RT_ELIMIT);
    CHECK_INT(feed_first(f, 3, 1, S(CONTROL), &a), 1); /* never in flight */
    rt_assembled_fini(&a);
    CHECK_INT(feed_next(f, 1, 1, S(""), &a), 1);
    rt_assembled_fini(&a);
    CHECK_INT(feed_first(f, 3, 2, S(CONTROL), &a), 0);
    rt_fragments_free(f);
}

/* A claim of 2^64 fragments costs no more than what came. */
static void claims_cost_nothing(void) {
    rt_fragments *f = rt_fragments_new(2, 1000, DEPTH, NULL);
    rt_assembled a;
    CHECK_INT(feed_first(f, 1, UINT64_MAX, S(CONTROL), &a), 0);
    CHECK(rt_fragments_held(f) < 50);
    CHECK_INT(feed_next(f, 1, UINT64_MAX - 1, S("x"), &a), 0);
    CHECK(rt_fragments_held(f) < 50);
    rt_fragments_free(f);
}

/* Memory that a pool keeps anyway serves what is claimed, for a quarter of the limit. */
static void kept_memory_is_given_to_claims(void) {
    enum { PIECE = 90 * 1024, PART = 40 * 1024 };
    static uint8_t part[sizeof CONTROL - 1 + PART] = CONTROL;
    rt_slice first = rt_slice_of(part, sizeof part), next = rt_slice_of(part, PART);
    rt_pool *pool = rt_pool_new();
    rt_fragments *f = rt_fragments_new(8, 4 * 100 * 1024, DEPTH, pool);
    rt_assembled a;
    size_t cap;
    for (int i = 0; i < 2; i++) rt_pool_give(pool, rt_malloc(PIECE), PIECE);
    CHECK_INT(feed_first(f, 1, 3, first, &a), 0);
    CHECK_INT(feed_first(f, 2, 3, first, &a), 0); /* not for this one too */
    void *piece = rt_pool_take(pool, PIECE, &cap);
    CHECK(piece != NULL);
    CHECK(rt_pool_take(pool, PIECE, &cap) == NULL);
    rt_pool_give(pool, piece, PIECE);
    CHECK_INT(feed_next(f, 1, 2, next, &a), 0);
    CHECK_INT(feed_next(f, 1, 1, S("end"), &a), 1);
    CHECK_INT(a.payload.cap, PIECE);
    rt_assembled_fini(&a);
    CHECK_INT(feed_first(f, 3, 3, first, &a), 0); /* for this it is again */
    CHECK(rt_pool_take(pool, PIECE, &cap) == NULL);
    CHECK_INT(feed_first(f, 4, UINT64_MAX, first, &a), 0);
    rt_fragments_free(f);
    rt_pool_rele(pool);
}

static int one_message(rt_fragments *f, rt_assembled *a) {
    int rc = feed_first(f, 8, 2, S(CONTROL "0123456789"), a);
    if (rc < 0) return rc;
    return feed_next(f, 8, 1, S("a payload that asks for more room than the first part did and so "
                                "makes its buffer grow once more, which takes memory"), a);
}

static void every_allocation_fails_once(void) {
    int rc = RT_ENOMEM;
    long at = 0;
    rt_alloc_fail_after(0);
    CHECK(rt_fragments_new(1, 1, 1, NULL) == NULL);
    for (; rc == RT_ENOMEM; at++) {
        rt_fragments *f = rt_fragments_new(4, 1000, DEPTH, NULL);
        rt_assembled a;
        rt_alloc_fail_after(at);
        rc = one_message(f, &a);
        rt_alloc_fail_after(-1);
        CHECK(rc == 1 || rc == RT_ENOMEM);
        if (rc == 1) rt_assembled_fini(&a);
        rt_fragments_free(f);
    }
    CHECK_INT(at, 6 + 1); /* table, control, payload, atoms, sequence, growth */
}

TESTS(one_fragment_is_a_message, sequences_interleave, nothing_points_into_the_packets,
      order_is_checked, the_first_holds_the_whole_control, limits_hold, claims_cost_nothing,
      kept_memory_is_given_to_claims,
      every_allocation_fails_once)
