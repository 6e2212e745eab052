/* Purpose: what the fuzz targets share: reading an input piece by piece, and
 * checks that end the program.
 * A target is one file that defines LLVMFuzzerTestOneInput. It runs under
 * libFuzzer (make fuzz) and under replay.c (make test). */
#ifndef RT_TESTS_FUZZ_H
#define RT_TESTS_FUZZ_H

#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/base.h"
#include "base/cursor.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A property that holds for every input, whoever made it. */
#define HOLDS(cond)                                                                  \
    do {                                                                             \
        if (!(cond)) {                                                               \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #cond); \
            abort();                                                                 \
        }                                                                            \
    } while (0)

#define TEXT(literal) rt_slice_of(literal, sizeof(literal) - 1)

/* The rest of the input, or 0 when there is none. */
RT_INLINE uint8_t take_u8(rt_cursor *c) {
    uint8_t v = 0;
    rt_cursor_u8(c, &v);
    return v;
}

/* A piece with a 16-bit length before it; cut where the input ends. False at
 * the end of the input. */
RT_INLINE bool take_piece(rt_cursor *c, rt_slice *out) {
    uint16_t n;
    if (!rt_cursor_u16(c, &n)) return false;
    if (n > rt_cursor_left(c)) n = (uint16_t)rt_cursor_left(c);
    return rt_cursor_take(c, n, out);
}

/* A copy in a block of its own size, in which a read past the end shows. */
RT_INLINE uint8_t *exact_copy(rt_slice s) {
    uint8_t *p = malloc(s.n ? s.n : 1);
    HOLDS(p);
    if (s.n) memcpy(p, s.p, s.n);
    return p;
}

/* Every allocation made since `before` was counted is freed again. */
RT_INLINE void nothing_left(long before) {
    rt_alloc_fail_after(-1);
    HOLDS(rt_alloc_live() == before);
}

/* From the input's byte: 0 lets every allocation succeed, another lets one fail. */
RT_INLINE void fail_some_allocation(uint8_t which) {
    rt_alloc_fail_after(which ? which - 1 : -1);
}

#endif
