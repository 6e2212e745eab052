#include "term/utf8.h"

/* Length of the well-formed sequence at p (n >= 1 bytes left), 0 if none.
 * The range of the second byte excludes overlong forms, surrogates and values
 * over U+10FFFF. */
static size_t sequence(const uint8_t *p, size_t n) {
    uint8_t low = 0x80, high = 0xbf, first = p[0];
    size_t len;
    if (first < 0x80) return 1;
    if (first < 0xc2 || first > 0xf4) return 0;
    if (first < 0xe0) {
        len = 2;
    } else if (first < 0xf0) {
        len = 3;
        if (first == 0xe0) low = 0xa0;
        if (first == 0xed) high = 0x9f;
    } else {
        len = 4;
        if (first == 0xf0) low = 0x90;
        if (first == 0xf4) high = 0x8f;
    }
    if (n < len || p[1] < low || p[1] > high) return 0;
    for (size_t i = 2; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80) return 0;
    }
    return len;
}

int64_t rt_utf8_chars(const uint8_t *p, size_t n) {
    int64_t chars = 0;
    while (n > 0) {
        size_t len = sequence(p, n);
        if (len == 0) return RT_EBAD;
        p += len;
        n -= len;
        chars++;
    }
    return chars;
}

size_t rt_utf8_from_latin1(uint8_t *out, const uint8_t *p, size_t n) {
    uint8_t *at = out;
    for (size_t i = 0; i < n; i++) {
        if (p[i] < 0x80) {
            *at++ = p[i];
        } else {
            *at++ = (uint8_t)(0xc0 | (p[i] >> 6));
            *at++ = (uint8_t)(0x80 | (p[i] & 0x3f));
        }
    }
    return (size_t)(at - out);
}
