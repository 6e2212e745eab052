/* Purpose: the whole of the C unit tests' framework. A test is a function of
 * no arguments; main lists them in TESTS. Every failed check prints its place.
 * Programs run with the repository's root as working directory. */
#ifndef RT_TESTS_CHECK_H
#define RT_TESTS_CHECK_H

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

static atomic_long check_passed, check_failed;

static inline __attribute__((unused)) int check_that(int ok, const char *text, const char *file,
                                                     int line) {
    atomic_fetch_add_explicit(ok ? &check_passed : &check_failed, 1, memory_order_relaxed);
    if (!ok) fprintf(stderr, "%s:%d: failed: %s\n", file, line, text);
    return ok;
}

/* An expression: its value is whether the check held. */
#define CHECK(cond) check_that(!!(cond), #cond, __FILE__, __LINE__)

static inline __attribute__((unused)) int check_int(long long got, long long want,
                                                    const char *text, const char *file, int line) {
    int ok = check_that(got == want, text, file, line);
    if (!ok) fprintf(stderr, "    got %lld, want %lld\n", got, want);
    return ok;
}

/* Compares integers and shows both. */
#define CHECK_INT(got, want) \
    check_int((long long)(got), (long long)(want), #got " == " #want, __FILE__, __LINE__)

/* Compares n bytes and shows where they differ. */
#define CHECK_BYTES(got, want, n)                                                         \
    do {                                                                                  \
        const unsigned char *check_g = (const void *)(got), *check_w = (const void *)(want); \
        size_t check_n = (n), check_i = 0;                                                \
        while (check_i < check_n && check_g[check_i] == check_w[check_i]) check_i++;      \
        if (!check_that(check_i == check_n, #got " has the bytes of " #want, __FILE__,    \
                        __LINE__))                                                        \
            fprintf(stderr, "    byte %zu: got %02x, want %02x\n", check_i,               \
                    check_g[check_i], check_w[check_i]);                                  \
    } while (0)

typedef void (*check_test)(void);

/* Runs the tests and returns the exit status. What a test allocates through
 * rt_malloc it must have freed. */
static inline __attribute__((unused)) int check_main(const check_test *tests, size_t n) {
    for (size_t i = 0; i < n; i++) {
        long before = rt_alloc_live();
        tests[i]();
        rt_alloc_fail_after(-1);
        if (!CHECK(rt_alloc_live() == before))
            fprintf(stderr, "    test %zu leaves %ld allocations\n", i, rt_alloc_live() - before);
    }
    printf("%ld passed, %ld failed\n", check_passed, check_failed);
    return check_failed > 0 || check_passed == 0;
}

#define TESTS(...)                                                     \
    int main(void) {                                                   \
        static const check_test tests[] = {__VA_ARGS__};               \
        return check_main(tests, sizeof tests / sizeof tests[0]);      \
    }

/* A copy in a block of exactly n bytes, so that the address sanitizer sees any
 * read past the end. Freed with free. */
static inline __attribute__((unused)) unsigned char *check_copy(const void *p, size_t n) {
    unsigned char *copy = malloc(n);
    if (!copy && n) abort();
    if (n) memcpy(copy, p, n);
    return copy;
}

#endif
