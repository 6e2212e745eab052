/* Purpose: a fast keyed hash of bytes for tables (not for secrets). */
#ifndef RT_BASE_HASH_H
#define RT_BASE_HASH_H

#include "base/base.h"

uint64_t rt_hash_bytes(const void *p, size_t n, uint64_t seed);

RT_INLINE uint64_t rt_hash_u64(uint64_t x) {
    x ^= x >> 33; x *= 0xff51afd7ed558ccdULL;
    x ^= x >> 33; x *= 0xc4ceb9fe1a85ec53ULL;
    return x ^ (x >> 33);
}

#endif
