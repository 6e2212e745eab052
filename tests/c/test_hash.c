#include "check.h"

#include "base/hash.h"

static int by_value(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static size_t duplicates(uint64_t *h, size_t n) {
    size_t same = 0;
    qsort(h, n, sizeof *h, by_value);
    for (size_t i = 1; i < n; i++) same += h[i] == h[i - 1];
    return same;
}

static void equal_bytes_hash_equal_and_nothing_past_the_end_counts(void) {
    uint8_t bytes[100];
    for (unsigned i = 0; i < 100; i++) bytes[i] = (uint8_t)(i * 37);
    for (size_t n = 0; n < 100; n++) {
        unsigned char *exact = check_copy(bytes, n);
        uint64_t h = rt_hash_bytes(exact, n, 5);
        CHECK(h == rt_hash_bytes(bytes, n, 5));
        CHECK(h != rt_hash_bytes(bytes, n, 6));
        free(exact);
    }
}

/* Each flipped bit changes about half of the hash. */
static void every_bit_matters(void) {
    static const size_t lengths[] = {1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 100};
    uint8_t bytes[100] = {0};
    for (size_t l = 0; l < sizeof lengths / sizeof lengths[0]; l++) {
        size_t n = lengths[l];
        long bits = 0;
        uint64_t base = rt_hash_bytes(bytes, n, 1);
        for (size_t i = 0; i < 8 * n; i++) {
            uint64_t changed;
            bytes[i / 8] ^= (uint8_t)(1 << (i % 8));
            changed = base ^ rt_hash_bytes(bytes, n, 1);
            bytes[i / 8] ^= (uint8_t)(1 << (i % 8));
            CHECK(changed != 0);
            CHECK(__builtin_popcountll(changed) >= 8);
            bits += __builtin_popcountll(changed);
        }
        CHECK(bits > (long)(8 * n) * 26 && bits < (long)(8 * n) * 38);
    }
}

static void lengths_and_zeros_are_told_apart(void) {
    uint8_t zero[200] = {0};
    uint64_t h[201];
    for (size_t n = 0; n <= 200; n++) h[n] = rt_hash_bytes(zero, n, 0);
    CHECK_INT(duplicates(h, 201), 0);
}

/* Names that differ in a counter, as registered names and pids do. */
static void counted_names_spread(void) {
    enum { N = 100000, SLOTS = 1 << 12 };
    uint64_t *h = malloc(N * sizeof *h);
    unsigned *slot = calloc(SLOTS * 2, sizeof *slot), worst_low = 0, worst_high = 0;
    if (!h || !slot) abort();
    for (int i = 0; i < N; i++) {
        char name[32];
        int n = snprintf(name, sizeof name, "worker_%d", i);
        h[i] = rt_hash_bytes(name, (size_t)n, 42);
        slot[h[i] % SLOTS]++;
        slot[SLOTS + (h[i] >> 52)]++;
    }
    for (int i = 0; i < SLOTS; i++) {
        if (slot[i] > worst_low) worst_low = slot[i];
        if (slot[SLOTS + i] > worst_high) worst_high = slot[SLOTS + i];
    }
    CHECK(worst_low < 60); /* 24 on average */
    CHECK(worst_high < 60);
    CHECK_INT(duplicates(h, N), 0);
    free(slot);
    free(h);
}

/* A factor of zero must not be had by choosing bytes: for every word w of the
 * second half that could be a built-in constant, the first half still counts. */
static void a_chosen_word_does_not_silence_the_other(void) {
    static const uint64_t chosen[] = {0, UINT64_MAX, 0x6a09e667f3bcc909ULL, 0xbb67ae8584caa73bULL};
    for (size_t i = 0; i < sizeof chosen / sizeof chosen[0]; i++) {
        uint64_t pair[2] = {1, chosen[i]}, other[2] = {2, chosen[i]};
        CHECK(rt_hash_bytes(pair, 16, 9) != rt_hash_bytes(other, 16, 9));
        pair[1] = pair[0], other[1] = other[0], pair[0] = other[0] = chosen[i];
        CHECK(rt_hash_bytes(pair, 16, 9) != rt_hash_bytes(other, 16, 9));
    }
}

static void integers_spread(void) {
    enum { N = 65536 };
    uint64_t *h = malloc(N * sizeof *h);
    if (!h) abort();
    for (uint64_t i = 0; i < N; i++) h[i] = rt_hash_u64(i << 20) & 0xffffffff;
    CHECK(duplicates(h, N) < 10);
    free(h);
}

TESTS(equal_bytes_hash_equal_and_nothing_past_the_end_counts, every_bit_matters,
      lengths_and_zeros_are_told_apart, counted_names_spread,
      a_chosen_word_does_not_silence_the_other, integers_spread)
