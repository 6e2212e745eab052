#include "vectors.h"

#include "base/limits.h"
#include "term/scan.h"
#include "term/tags.h"
#include "term/write.h"

#define TERMS "tests/vectors/terms.txt"
#define REFUSED "tests/vectors/refused.txt"

static rt_scan scan_with(uint32_t depth_max, const rt_atoms *atoms) {
    rt_scan s = {.depth_max = depth_max, .atoms = atoms, .error_offset = SIZE_MAX};
    return s;
}

static int64_t scan(const uint8_t *p, size_t n) {
    rt_scan s = scan_with(10000, NULL);
    return rt_term_scan(p, n, &s);
}

#define SCAN(literal) scan_literal(literal, sizeof(literal) - 1)
static int64_t scan_literal(const char *bytes, size_t n) {
    unsigned char *p = check_copy(bytes, n);
    int64_t rc = scan(p, n);
    free(p);
    return rc;
}

static void check_vector(const vector *v, int ok) {
    if (!ok) fprintf(stderr, "    vector %s\n", v->name);
}

/* The vectors begin with the version byte, which is not the scan's. */
static void whole_terms_of_erlang(void) {
    vectors all = vectors_read(TERMS);
    CHECK(all.n > 150);
    for (size_t i = 0; i < all.n; i++) {
        size_t n = all.at[i].n - 1;
        unsigned char *p = check_copy(all.at[i].p + 1, n);
        rt_scan s = scan_with(200, NULL);
        int ok = CHECK(rt_term_scan(p, n, &s) == (int64_t)n);
        ok &= CHECK(rt_term_skip(p, n) == (int64_t)n);
        ok &= CHECK(s.cache_refs == 0 && s.expanded_bytes == n && s.error_offset == SIZE_MAX);
        ok &= CHECK(s.compressed == (p[0] == RT_TAG_COMPRESSED));
        check_vector(&all.at[i], ok);
        free(p);
    }
    vectors_free(&all);
}

static void what_follows_a_term_is_left_alone(void) {
    vectors all = vectors_read(TERMS);
    for (size_t i = 0; i < all.n; i++) {
        size_t n = all.at[i].n - 1;
        unsigned char *p = malloc(n + 5);
        if (!p) abort();
        memcpy(p, all.at[i].p + 1, n);
        memset(p + n, 0xff, 5);
        check_vector(&all.at[i], CHECK(scan(p, n + 5) == (int64_t)n) &
                                     CHECK(rt_term_skip(p, n + 5) == (int64_t)n));
        free(p);
    }
    vectors_free(&all);
}

static void a_term_cut_anywhere_is_incomplete(void) {
    vectors all = vectors_read(TERMS);
    for (size_t i = 0; i < all.n; i++) {
        for (size_t n = 0; n < all.at[i].n - 1; n++) {
            unsigned char *p = check_copy(all.at[i].p + 1, n);
            rt_scan s = scan_with(200, NULL);
            int ok = CHECK(rt_term_scan(p, n, &s) == RT_AGAIN);
            ok &= CHECK(s.error_offset <= n && s.cache_refs == 0 && !s.compressed);
            ok &= CHECK(rt_term_skip(p, n) == RT_EBAD);
            free(p);
            if (!ok) {
                fprintf(stderr, "    vector %s cut at %zu\n", all.at[i].name, n);
                break;
            }
        }
    }
    vectors_free(&all);
}

/* A changed byte may give another valid term; then every walk must agree about
 * its length. Otherwise the sanitizers judge. */
static void a_changed_byte_never_confuses(void) {
    static const uint8_t masks[] = {0xff, 0x01, 0x80, 0x10, 0x06};
    vectors all = vectors_read(TERMS);
    rt_atoms none = {.count = 0};
    for (size_t i = 0; i < all.n; i++) {
        size_t n = all.at[i].n - 1;
        unsigned char *p = check_copy(all.at[i].p + 1, n);
        for (size_t at = 0; at < n * sizeof masks; at++) {
            uint8_t mask = masks[at % sizeof masks];
            int64_t rc;
            p[at / sizeof masks] ^= mask;
            rc = scan(p, n);
            if (!CHECK(rc != 0 && rc <= (int64_t)n)) check_vector(&all.at[i], 0);
            if (rc > 0) {
                rt_buf out = RT_BUF_INIT;
                CHECK(rt_term_skip(p, (size_t)rc) == rc);
                CHECK(rt_term_expand(&out, p, (size_t)rc, &none) == RT_OK);
                CHECK(out.n == (size_t)rc && memcmp(out.p, p, out.n) == 0);
                rt_buf_fini(&out);
            }
            p[at / sizeof masks] ^= mask;
        }
        free(p);
    }
    vectors_free(&all);
}

static void what_erlang_refuses_is_refused(void) {
    vectors all = vectors_read(REFUSED);
    CHECK(all.n > 50);
    for (size_t i = 0; i < all.n; i++) {
        size_t n = all.at[i].n - 1;
        unsigned char *p = check_copy(all.at[i].p + 1, n);
        bool sound = strncmp(all.at[i].name, "decoder/", 8) == 0;
        int64_t rc = scan(p, n);
        check_vector(&all.at[i], sound ? CHECK(rc == (int64_t)n) : CHECK(rc < 0));
        free(p);
    }
    vectors_free(&all);
}

/* Where more bytes could not help, the code is not RT_AGAIN. */
static void the_right_code(void) {
    CHECK_INT(SCAN(""), RT_AGAIN);
    CHECK_INT(SCAN("\x83\x61\x01"), RT_EBAD);                    /* version byte */
    CHECK_INT(SCAN("F\x7f\xf0\0\0\0\0\0\0"), RT_EBAD);           /* infinity */
    CHECK_INT(SCAN("w\2\xc3\x28"), RT_EBAD);                     /* broken UTF-8 */
    CHECK_INT(SCAN("M\0\0\0\1\0\xff"), RT_EBAD);
    CHECK_INT(SCAN("M\0\0\0\1\x09\xff"), RT_EBAD);
    CHECK_INT(SCAN("M\0\0\0\0\0"), 6);
    CHECK_INT(SCAN("Z\0\6w\1a"), RT_EBAD);
    CHECK_INT(SCAN("Z\0\0w\1a\0\0\0\1"), 10);                    /* no words: nothing follows */
    CHECK_INT(SCAN("R\0"), RT_EBAD);                             /* no atoms were given */
    CHECK_INT(SCAN("y\1\2\3\4a\1"), RT_EBAD);                    /* LOCAL */
    CHECK_INT(SCAN("C\0\0\0\0\1w\1mw\1r"), RT_EBAD);             /* native record */
    CHECK_INT(SCAN("h\1P\0\0\0\2"), RT_EBAD);                    /* compressed inside */
    CHECK_INT(SCAN("v\xff\xff"), RT_EBAD);                       /* longer than any atom */
}

static void where_it_went_wrong(void) {
    static const uint8_t bytes[] = {104, 2, 108, 0, 0, 0, 1, 97, 1, 255, 97, 1};
    rt_scan s = scan_with(10, NULL);
    CHECK_INT(rt_term_scan(bytes, sizeof bytes, &s), RT_EBAD);
    CHECK_INT(s.error_offset, 9);
    CHECK_INT(rt_term_scan(bytes, 9, &s), RT_AGAIN);
    CHECK_INT(s.error_offset, 9);
    CHECK_INT(rt_term_scan(bytes, 8, &s), RT_AGAIN); /* no room for the list's two terms */
    CHECK_INT(s.error_offset, 2);
}

/* The last leaf of a tuple, changed and cut: what stands before it was right. */
static void where_a_leaf_went_wrong(void) {
    static const struct {
        const char *bytes;
        size_t n;
    } wrong[] = {
        {"w\1\xff", 3},
        {"F\x7f\xf0\0\0\0\0\0\0", 9},
        {"M\0\0\0\1\11\0", 7},
        {"Q", 1},
    };
    static const uint8_t before[] = {104, 3, 97, 1, 119, 1, 'a'};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        uint8_t p[32];
        rt_scan s = scan_with(1, NULL);
        memcpy(p, before, sizeof before);
        memcpy(p + sizeof before, wrong[i].bytes, wrong[i].n);
        CHECK_INT(rt_term_scan(p, sizeof before + wrong[i].n, &s), RT_EBAD);
        CHECK_INT(s.error_offset, sizeof before);
        s = scan_with(1, NULL);
        CHECK_INT(rt_term_scan(p, sizeof before, &s), RT_AGAIN);
        CHECK_INT(s.error_offset, sizeof before);
        s = scan_with(0, NULL);
        CHECK_INT(rt_term_scan(p, sizeof before, &s), RT_ELIMIT);
        CHECK_INT(s.error_offset, 0);
    }
}

/* Erlang ignores a fun's size and takes any term for its pid. Relaying and
 * skipping rely on the size, so it must be right here. */
static size_t fun_of(uint8_t *p, uint32_t size_error, uint8_t free_claimed, bool with_pid) {
    static const uint8_t rest[] = {119, 1, 'm', 97, 1, 97, 1};
    static const uint8_t pid[] = {88, 119, 1, 'a', 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1};
    size_t n = 30;
    memset(p, 0, 30);
    p[0] = RT_TAG_NEW_FUN;
    p[29] = free_claimed;
    memcpy(p + n, rest, sizeof rest);
    n += sizeof rest;
    if (with_pid) {
        memcpy(p + n, pid, sizeof pid);
        n += sizeof pid;
    } else {
        p[n++] = RT_TAG_NIL;
    }
    p[n++] = RT_TAG_NIL;
    rt_store_u32(p + 1, (uint32_t)(n - 1) + size_error);
    return n;
}

static void funs_must_be_as_long_as_they_say(void) {
    uint8_t p[200];
    size_t n = fun_of(p, 0, 1, true);
    memset(p + n, RT_TAG_NIL, 20);
    CHECK_INT(scan(p, n), n);
    CHECK_INT(scan(p, n + 20), n);
    fun_of(p, 1, 1, true), CHECK_INT(scan(p, n + 20), RT_EBAD);
    fun_of(p, 1, 1, true), CHECK_INT(scan(p, n), RT_AGAIN);
    fun_of(p, UINT32_MAX, 1, true), CHECK_INT(scan(p, n + 20), RT_EBAD); /* one less */
    fun_of(p, 0, 0, true), CHECK_INT(scan(p, n + 20), RT_EBAD);
    fun_of(p, 0, 2, true), CHECK_INT(scan(p, n + 20), RT_EBAD);
    n = fun_of(p, 0, 1, false), CHECK_INT(scan(p, n + 20), RT_EBAD);
    n = fun_of(p, 0, 1, true);
    rt_store_u32(p + 1, 0);
    CHECK_INT(scan(p, n), RT_EBAD);
}

/* `count` of the n bytes of `unit`, then `rest` bytes of NIL. */
static uint8_t *repeated(const char *unit, size_t n, size_t count, size_t rest) {
    uint8_t *p = malloc(n * count + rest);
    if (!p) abort();
    for (size_t i = 0; i < count; i++) memcpy(p + i * n, unit, n);
    memset(p + n * count, RT_TAG_NIL, rest);
    return p;
}

typedef struct nest {
    const char *unit;
    size_t n, rest; /* rest: NILs to close with, for each level */
} nest;

static const nest NESTS[] = {
    {"l\0\0\0\1", 5, 1},           /* [[[...]]] */
    {"l\0\0\0\1a\1", 7, 0},        /* [1 | [1 | ...]] */
    {"l\0\0\0\0", 5, 0},           /* only tails */
    {"h\1", 2, 0},                 /* {{{...}}} */
    {"h\2a\1", 4, 0},              /* {1, {1, ...}} */
    {"i\0\0\0\1", 5, 0},
    {"t\0\0\0\1a\1", 7, 0},        /* #{1 => #{1 => ...}} */
    {"t\0\0\0\1", 5, 1},           /* #{#{...} => []} */
};

static void nesting_counts_and_is_limited(void) {
    static const size_t depths[] = {1, 2, 63, 64, 65, 66, 127, 128, 129, 1000, 10000};
    for (size_t k = 0; k < sizeof NESTS / sizeof NESTS[0]; k++) {
        for (size_t i = 0; i < sizeof depths / sizeof depths[0]; i++) {
            size_t d = depths[i], n = d * NESTS[k].n + d * NESTS[k].rest + 1;
            uint8_t *p = repeated(NESTS[k].unit, NESTS[k].n, d, d * NESTS[k].rest + 1);
            rt_scan s = scan_with((uint32_t)d, NULL);
            CHECK_INT(rt_term_scan(p, n, &s), n);
            CHECK_INT(rt_term_skip(p, n), n);
            s = scan_with((uint32_t)d - 1, NULL);
            CHECK_INT(rt_term_scan(p, n, &s), RT_ELIMIT);
            CHECK_INT(s.error_offset, (d - 1) * NESTS[k].n);
            free(p);
        }
    }
}

static void a_million_levels_are_refused(void) {
    enum { LEVELS = 1000000 };
    for (size_t k = 0; k < sizeof NESTS / sizeof NESTS[0]; k++) {
        size_t rest = LEVELS * NESTS[k].rest + 1, n = LEVELS * NESTS[k].n + rest;
        uint8_t *p = repeated(NESTS[k].unit, NESTS[k].n, LEVELS, rest);
        CHECK_INT(scan(p, n), RT_ELIMIT);
        CHECK_INT(rt_term_skip(p, n), n); /* no stack at all */
        free(p);
    }
}

static void a_flat_term_needs_no_depth(void) {
    rt_scan s = scan_with(0, NULL);
    CHECK_INT(rt_term_scan((const uint8_t *)"a\1", 2, &s), 2);
    CHECK_INT(rt_term_scan((const uint8_t *)"h\0", 2, &s), RT_ELIMIT);
}

/* A term of four gigabytes that is not there. */
static void claimed_lengths_are_not_believed(void) {
    static const char tags[] = {'l', 'i', 't', 'm', 'M', 'o'};
    for (size_t i = 0; i < sizeof tags; i++) {
        static const uint32_t claims[] = {UINT32_MAX, UINT32_MAX - 1, 1u << 31, (1u << 31) - 1};
        for (size_t k = 0; k < sizeof claims / sizeof claims[0]; k++) {
            uint8_t bytes[40];
            unsigned char *p;
            memset(bytes, 1, sizeof bytes);
            bytes[0] = (uint8_t)tags[i];
            rt_store_u32(bytes + 1, claims[k]);
            p = check_copy(bytes, sizeof bytes);
            CHECK(scan(p, sizeof bytes) < 0);
            CHECK(rt_term_skip(p, sizeof bytes) < 0);
            free(p);
        }
    }
    CHECK_INT(SCAN("p\xff\xff\xff\xff\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0w\1m"),
              RT_AGAIN);
    CHECK(SCAN("P\xff\xff\xff\xffxxxxxxxx") < 0);
}

static void without_memory_the_scan_says_so(void) {
    uint8_t *p = repeated("h\1", 2, 1000, 1);
    int failures = 0;
    for (long i = 0;; i++) {
        rt_scan s = scan_with(10000, NULL);
        int64_t rc;
        rt_alloc_fail_after(i);
        rc = rt_term_scan(p, 2001, &s);
        rt_alloc_fail_after(-1);
        if (rc == 2001) break;
        CHECK_INT(rc, RT_ENOMEM);
        if (++failures > 100) break;
    }
    CHECK(failures >= 3 && failures < 10);
    rt_alloc_fail_after(0); /* 64 levels take no memory */
    CHECK_INT(scan(p + 2 * (1000 - 64), 129), 129);
    free(p);
}

TESTS(whole_terms_of_erlang, what_follows_a_term_is_left_alone, a_term_cut_anywhere_is_incomplete,
      a_changed_byte_never_confuses, what_erlang_refuses_is_refused, the_right_code,
      where_it_went_wrong, where_a_leaf_went_wrong, funs_must_be_as_long_as_they_say,
      nesting_counts_and_is_limited,
      a_million_levels_are_refused, a_flat_term_needs_no_depth, claimed_lengths_are_not_believed,
      without_memory_the_scan_says_so)
