/* What the machine itself does: the units in which other figures are given. */
#include <stdatomic.h>

#include "bench.h"

#define CHAIN_BYTES (256u << 20)
#define LINE_BYTES 64u
#define COPY_ROOM (16u << 10)

/* An exchange of a word in this core's cache, each after the one before. */
BENCH uint64_t primitive_exchange(void *context, uint64_t n)
{
    static _Alignas(LINE_BYTES) _Atomic uint64_t word;
    uint64_t right = 0;
    (void)context;
    atomic_store(&word, 0);
    for (uint64_t i = 0; i < n; i++)
        right += atomic_exchange(&word, i + 1) == i;
    return right;
}

/* A chain of cache lines through more memory than any cache holds, and where the last call ended. */
struct chain {
    char *lines;
    void *at;
};

BENCH void *chain_new(void)
{
    uint32_t n = CHAIN_BYTES / LINE_BYTES, *order = shuffled(n, 7);
    struct chain *chain = must(malloc(sizeof *chain));
    char *lines = must(aligned_alloc(LINE_BYTES, CHAIN_BYTES));
    for (uint32_t i = 0; i < n; i++)
        *(void **)(lines + (size_t)order[i] * LINE_BYTES) = lines + (size_t)order[(i + 1) % n] * LINE_BYTES;
    free(order);
    chain->at = chain->lines = lines;
    return chain;
}

BENCH void chain_free(void *context)
{
    struct chain *chain = context;
    free(chain->lines);
    free(chain);
}

/* A load that waits for memory and for the page table, each after the one before. */
BENCH uint64_t primitive_miss(void *context, uint64_t n)
{
    struct chain *chain = context;
    void *at = chain->at;
    for (uint64_t i = 0; i < n; i++)
        at = *(void **)at;
    chain->at = at;
    return n;
}

/* A copy of 64 bytes within the first cache. */
BENCH uint64_t primitive_copy(void *context, uint64_t n)
{
    static _Alignas(LINE_BYTES) char from[COPY_ROOM], to[COPY_ROOM];
    (void)context;
    for (uint64_t i = 0; i < n; i++) {
        size_t at = i * LINE_BYTES % COPY_ROOM;
        memcpy(to + at, from + at, LINE_BYTES);
        keep(to);
    }
    return n;
}
