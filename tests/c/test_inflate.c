#include "vectors.h"

#include "term/inflate.h"
#include "term/scan.h"
#include "term/tags.h"

enum { BYTES_MAX = 1 << 24, RATIO_MAX = 1100 };

/* n bytes that compress a little. */
static uint8_t *some_bytes(size_t n) {
    uint8_t *p = malloc(n);
    uint32_t x = 1;
    if (!p) abort();
    for (size_t i = 0; i < n; i++) {
        x = x * 1664525 + 1013904223;
        p[i] = (uint8_t)(x >> 30 ? 'a' : x >> 24);
    }
    return p;
}

static void round_trips(void) {
    static const size_t sizes[] = {1, 2, 100, 16383, 16384, 16385, 32768, 100000, 1000000};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (int level = 1; level <= 9; level += 4) {
            size_t n = sizes[i];
            uint8_t *p = some_bytes(n);
            rt_buf packed = RT_BUF_INIT, out = RT_BUF_INIT;
            CHECK_INT(rt_buf_put(&packed, "x", 1), RT_OK);
            CHECK_INT(rt_buf_put(&out, "keep", 4), RT_OK);
            CHECK_INT(rt_term_deflate(&packed, p, n, level), RT_OK);
            CHECK(packed.p[0] == 'x' && packed.p[1] == RT_TAG_COMPRESSED);
            CHECK_INT(rt_buf_put(&packed, "rest", 4), RT_OK);
            CHECK_INT(rt_term_inflate(&out, packed.p + 2, packed.n - 2, n, RATIO_MAX),
                      packed.n - 6);
            CHECK_INT(out.n, n + 4);
            CHECK_BYTES(out.p, "keep", 4);
            CHECK_BYTES(out.p + 4, p, n);
            CHECK_INT(rt_term_inflate_skip(packed.p + 2, packed.n - 2, n, RATIO_MAX),
                      packed.n - 6);
            rt_buf_fini(&packed);
            rt_buf_fini(&out);
            free(p);
        }
    }
}

static void terms_erlang_compressed(void) {
    vectors all = vectors_read("tests/vectors/terms.txt");
    size_t seen = 0;
    for (size_t i = 0; i < all.n; i++) {
        rt_buf out = RT_BUF_INIT;
        rt_scan s = {.depth_max = 100};
        if (all.at[i].p[1] != RT_TAG_COMPRESSED) continue;
        seen++;
        CHECK_INT(rt_term_inflate(&out, all.at[i].p + 2, all.at[i].n - 2, BYTES_MAX, RATIO_MAX),
                  all.at[i].n - 2);
        CHECK(rt_term_scan(out.p, out.n, &s) > 0);
        rt_buf_fini(&out);
    }
    CHECK(seen >= 4);
    vectors_free(&all);
}

static rt_buf packed_bytes(size_t n) {
    uint8_t *p = some_bytes(n);
    rt_buf packed = RT_BUF_INIT;
    CHECK_INT(rt_term_deflate(&packed, p, n, 6), RT_OK);
    free(p);
    return packed;
}

static void claims_are_held_against_the_stream(void) {
    rt_buf b = packed_bytes(50000), out = RT_BUF_INIT;
    CHECK_INT(rt_buf_put(&out, "keep", 4), RT_OK);
    rt_store_u32(b.p + 1, 49999);
    CHECK_INT(rt_term_inflate(&out, b.p + 1, b.n - 1, BYTES_MAX, RATIO_MAX), RT_ESIZE);
    CHECK_INT(rt_term_inflate_skip(b.p + 1, b.n - 1, BYTES_MAX, RATIO_MAX), RT_ESIZE);
    rt_store_u32(b.p + 1, 50001);
    CHECK_INT(rt_term_inflate(&out, b.p + 1, b.n - 1, BYTES_MAX, RATIO_MAX), RT_ESIZE);
    rt_store_u32(b.p + 1, 1);
    CHECK_INT(rt_term_inflate(&out, b.p + 1, b.n - 1, BYTES_MAX, RATIO_MAX), RT_ESIZE);
    rt_store_u32(b.p + 1, 0);
    CHECK_INT(rt_term_inflate(&out, b.p + 1, b.n - 1, BYTES_MAX, RATIO_MAX), RT_EBAD);
    CHECK(out.n == 4 && memcmp(out.p, "keep", 4) == 0);
    rt_buf_fini(&out);
    rt_buf_fini(&b);
}

static void limits_come_before_memory(void) {
    rt_buf b = packed_bytes(50000), out = RT_BUF_INIT;
    CHECK(rt_term_inflate(&out, b.p + 1, b.n - 1, 50000, RATIO_MAX) > 0);
    rt_buf_fini(&out);
    rt_alloc_fail_after(0);
    CHECK_INT(rt_term_inflate(&out, b.p + 1, b.n - 1, 49999, RATIO_MAX), RT_ELIMIT);
    CHECK_INT(rt_term_inflate(&out, b.p + 1, b.n - 1, BYTES_MAX, 1), RT_ELIMIT);
    CHECK_INT(rt_term_inflate(&out, b.p + 1, b.n - 1, BYTES_MAX, 0), RT_ELIMIT);
    rt_store_u32(b.p + 1, UINT32_MAX);
    CHECK_INT(rt_term_inflate(&out, b.p + 1, b.n - 1, SIZE_MAX, RATIO_MAX), RT_ELIMIT);
    CHECK_INT(rt_term_inflate(&out, b.p + 1, b.n - 1, BYTES_MAX, UINT32_MAX), RT_ELIMIT);
    rt_alloc_fail_after(-1);
    /* A claim the limits allow takes memory for what comes, not for the claim. */
    CHECK_INT(rt_term_inflate(&out, b.p + 1, b.n - 1, SIZE_MAX, UINT32_MAX), RT_ESIZE);
    CHECK(out.cap <= 4 * 50000);
    rt_buf_fini(&out);
    rt_buf_fini(&b);
}

static void streams_cut_anywhere_are_incomplete(void) {
    rt_buf b = packed_bytes(3000);
    for (size_t n = 0; n < b.n - 1; n++) {
        unsigned char *p = check_copy(b.p + 1, n);
        rt_buf out = RT_BUF_INIT;
        CHECK_INT(rt_term_inflate(&out, p, n, BYTES_MAX, UINT32_MAX), RT_AGAIN);
        CHECK_INT(rt_term_inflate_skip(p, n, BYTES_MAX, UINT32_MAX), RT_AGAIN);
        CHECK_INT(out.n, 0);
        rt_buf_fini(&out);
        free(p);
    }
    rt_buf_fini(&b);
}

static void changed_bytes_are_noticed(void) {
    rt_buf b = packed_bytes(2000);
    for (size_t i = 0; i < b.n - 1; i++) {
        unsigned char *p = check_copy(b.p + 1, b.n - 1);
        rt_buf out = RT_BUF_INIT;
        p[i] ^= 0x11;
        CHECK(rt_term_inflate(&out, p, b.n - 1, BYTES_MAX, RATIO_MAX) < 0);
        CHECK_INT(out.n, 0);
        rt_buf_fini(&out);
        free(p);
    }
    rt_buf_fini(&b);
}

static void a_bomb_is_stopped(void) {
    enum { BOMB = 8 << 20 };
    uint8_t *zeros = calloc(1, BOMB);
    rt_buf b = RT_BUF_INIT, out = RT_BUF_INIT;
    if (!zeros) abort();
    CHECK_INT(rt_term_deflate(&b, zeros, BOMB, 9), RT_OK);
    CHECK_INT(rt_term_inflate(&out, b.p + 1, b.n - 1, BOMB - 1, RATIO_MAX), RT_ELIMIT);
    CHECK_INT(rt_term_inflate(&out, b.p + 1, b.n - 1, BOMB, 500), RT_ELIMIT);
    CHECK(out.p == NULL);
    rt_store_u32(b.p + 1, 1000); /* lies: stopped just past its claim */
    CHECK_INT(rt_term_inflate(&out, b.p + 1, b.n - 1, BOMB, RATIO_MAX), RT_ESIZE);
    CHECK(out.cap < 100000);
    /* The end of the stream is not there, and is not looked for. */
    CHECK_INT(rt_term_inflate(&out, b.p + 1, b.n / 2, BOMB, RATIO_MAX), RT_ESIZE);
    CHECK_INT(rt_term_inflate_skip(b.p + 1, b.n / 2, BOMB, RATIO_MAX), RT_ESIZE);
    rt_buf_fini(&out);
    rt_buf_fini(&b);
    free(zeros);
}

static void bad_arguments(void) {
    rt_buf b = RT_BUF_INIT;
    CHECK_INT(rt_term_deflate(&b, (const uint8_t *)"a", 1, 0), RT_EINVAL);
    CHECK_INT(rt_term_deflate(&b, (const uint8_t *)"a", 1, 10), RT_EINVAL);
    CHECK_INT(rt_term_deflate(&b, (const uint8_t *)"a", 0, 1), RT_EINVAL);
    CHECK(b.p == NULL);
}

static void every_allocation_fails_once(void) {
    rt_buf b = packed_bytes(50000);
    uint8_t *plain = some_bytes(50000);
    int failures = 0;
    for (int what = 0; what < 3; what++) {
        for (long i = 0; i < 100; i++) {
            rt_buf out = RT_BUF_INIT;
            int64_t rc;
            rt_alloc_fail_after(i);
            rc = what == 0   ? rt_term_inflate(&out, b.p + 1, b.n - 1, BYTES_MAX, RATIO_MAX)
                 : what == 1 ? rt_term_inflate_skip(b.p + 1, b.n - 1, BYTES_MAX, RATIO_MAX)
                             : rt_term_deflate(&out, plain, 50000, 6);
            rt_alloc_fail_after(-1);
            if (rc < 0) {
                CHECK_INT(rc, RT_ENOMEM);
                CHECK_INT(out.n, 0);
                failures++;
            }
            rt_buf_fini(&out);
            if (rc >= 0) break;
        }
    }
    CHECK(failures >= 8 && failures < 100);
    free(plain);
    rt_buf_fini(&b);
}

TESTS(round_trips, terms_erlang_compressed, claims_are_held_against_the_stream,
      limits_come_before_memory, streams_cut_anywhere_are_incomplete, changed_bytes_are_noticed,
      a_bomb_is_stopped, bad_arguments, every_allocation_fails_once)
