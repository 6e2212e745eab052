/* Purpose: open compressed terms (tag 80), streaming, within limits.
 * Errors: RT_ELIMIT when the claimed size is over bytes_max or over ratio_max
 * times the input (checked before memory is taken), RT_ESIZE when the stream
 * is longer or shorter than claimed, RT_EBAD for a broken stream. */
#ifndef RT_TERM_INFLATE_H
#define RT_TERM_INFLATE_H

#include "base/base.h"
#include "base/buf.h"

/* p: after the tag byte, i.e. 32-bit size then zlib data. Appends the plain
 * bytes to `out`; returns how many input bytes the whole object took. */
int64_t rt_term_inflate(rt_buf *out, const uint8_t *p, size_t n, size_t bytes_max,
                        uint32_t ratio_max);
/* Measures a compressed object without keeping its content: returns the input
 * bytes it takes. Bounded memory. */
int64_t rt_term_inflate_skip(const uint8_t *p, size_t n, size_t bytes_max, uint32_t ratio_max);
/* Appends tag 80, size and the zlib stream of p at `level` (1..9). */
int rt_term_deflate(rt_buf *out, const uint8_t *p, size_t n, int level);

#endif
