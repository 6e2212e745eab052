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
    for (; n >= 8; n -= 8, p += 8) {
        memcpy(&v, p, 8);
        bits |= v;
    }
    for (; n > 0; n--, p++) bits |= *p;
    return (bits & 0x8080808080808080ULL) == 0;
}

/* Counts the characters of n bytes of UTF-8. */
int64_t rt_utf8_chars(const uint8_t *p, size_t n);

/* Writes n latin-1 bytes as UTF-8 (at most 2n bytes) and returns the length. */
size_t rt_utf8_from_latin1(uint8_t *out, const uint8_t *p, size_t n);

#endif
