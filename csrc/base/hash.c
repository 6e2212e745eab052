/* A chain of 64 x 64 -> 128 bit multiplications whose halves are folded.
 * The running state, which depends on the seed, enters both factors: a factor
 * that is zero (and would swallow the other one) cannot be chosen without
 * knowing the seed. The length enters first, so the overlapping loads of the
 * tail say which bytes they cover. */
#include "base/hash.h"

/* Odd, with about as many ones as zeros; digits of the square roots of 2 and 3. */
#define K0 0x6a09e667f3bcc909ULL
#define K1 0xbb67ae8584caa73bULL

RT_INLINE uint64_t load64(const uint8_t *p) { uint64_t v; memcpy(&v, p, 8); return v; }
RT_INLINE uint64_t load32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return v; }

RT_INLINE uint64_t fold(uint64_t a, uint64_t b) {
#ifdef __SIZEOF_INT128__
    unsigned __int128 r = (unsigned __int128)a * b;
    return (uint64_t)r ^ (uint64_t)(r >> 64);
#else
    uint64_t al = (uint32_t)a, ah = a >> 32, bl = (uint32_t)b, bh = b >> 32;
    uint64_t ll = al * bl, lh = al * bh, hl = ah * bl;
    uint64_t mid = (ll >> 32) + (uint32_t)lh + (uint32_t)hl;
    return (a * b) ^ (ah * bh + (lh >> 32) + (hl >> 32) + (mid >> 32));
#endif
}

/* Takes 16 bytes into the state. */
RT_INLINE uint64_t step(uint64_t h, uint64_t a, uint64_t b) {
    return fold(a ^ h ^ K0, b ^ ((h << 32) | (h >> 32)) ^ K1) + h;
}

uint64_t rt_hash_bytes(const void *p, size_t n, uint64_t seed) {
    const uint8_t *at = p;
    uint64_t h = fold(seed ^ K0, (uint64_t)n ^ K1) ^ seed;
    uint64_t a = 0, b = 0;
    size_t left = n;
    for (; left > 16; left -= 16, at += 16) h = step(h, load64(at), load64(at + 8));
    if (left >= 8) {
        a = load64(at);
        b = load64(at + left - 8);
    } else if (left >= 4) {
        a = load32(at);
        b = load32(at + left - 4);
    } else if (left > 0) {
        a = (uint64_t)at[0] | (uint64_t)at[left >> 1] << 8 | (uint64_t)at[left - 1] << 16;
    }
    h = step(h, a, b);
    return fold(h ^ K1, h ^ (h >> 29) ^ K0);
}
