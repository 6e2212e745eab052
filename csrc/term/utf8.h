/* Purpose: check and make the UTF-8 of atom names.
 * Ownership: nothing is kept. Threads: any.
 * Errors: what is not UTF-8 (overlong forms, surrogates, values over
 * U+10FFFF, cut sequences) is RT_EBAD. */
#ifndef RT_TERM_UTF8_H
#define RT_TERM_UTF8_H

#include "base/base.h"

/* True when none of n bytes is over 127. */
RT_INLINE bool rt_ascii(const uint8_t *p, size_t n) {
    uint64_t bits = 0, v;
    if (n >= 8) { /* the last piece may overlap */
        const uint8_t *last = p + n - 8;
        for (; p < last; p += 8) {
            memcpy(&v, p, 8);
            bits |= v;
        }
        memcpy(&v, last, 8);
        bits |= v;
    } else if (n >= 4) {
        uint32_t a, b;
        memcpy(&a, p, 4);
        memcpy(&b, p + n - 4, 4);
        bits = a | b;
    } else if (n > 0) {
        bits = (uint64_t)p[0] | p[n / 2] | p[n - 1];
    }
    return (bits & 0x8080808080808080ULL) == 0;
}

/* Counts the characters of n bytes of UTF-8. */
int64_t rt_utf8_chars(const uint8_t *p, size_t n);

/* Writes n latin-1 bytes as UTF-8 (at most 2n bytes) and returns the length. */
size_t rt_utf8_from_latin1(uint8_t *out, const uint8_t *p, size_t n);

#endif
