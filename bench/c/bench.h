/* What the programs of this folder share. They are linked with csrc into one library, which
 * bench/native.py builds and calls. A piece of work has the shape
 *
 *     uint64_t work(void *context, uint64_t n);
 *
 * it does something n times and returns how many times the result was right. */
#ifndef BENCH_H
#define BENCH_H

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BENCH __attribute__((visibility("default")))

static inline void *must(void *p)
{
    if (!p) {
        fputs("bench: no memory\n", stderr);
        abort();
    }
    return p;
}

/* The compiler must take it that somebody looks at this value. */
static inline void keep(const void *p) { __asm__ volatile("" : : "g"(p) : "memory"); }

static inline uint64_t random_next(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

/* 0 .. n-1 in an order that no prefetcher guesses. */
static inline uint32_t *shuffled(uint32_t n, uint64_t seed)
{
    uint32_t *order = must(malloc(n * sizeof *order));
    for (uint32_t i = 0; i < n; i++)
        order[i] = i;
    for (uint32_t i = n; i > 1; i--) {
        uint32_t j = (uint32_t)(random_next(&seed) % i), x = order[i - 1];
        order[i - 1] = order[j];
        order[j] = x;
    }
    return order;
}

static inline size_t name_of(uint32_t i, char out[32]) { return (size_t)snprintf(out, 32, "process_%u", i); }

static inline uint64_t clock_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

#endif
