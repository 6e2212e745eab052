/* Purpose: atoms, one object per name.
 * Ownership: the weak table borrows (an atom leaves it when freed); the
 * direct-mapped cache of recent atoms holds references.
 * Threads: GIL.
 * Limits: names of at most 255 characters.
 * Errors: NULL with ValueError for a bad name, MemoryError. */
#ifndef RT_PYTHON_ATOM_H
#define RT_PYTHON_ATOM_H

#include "python/state.h"

/* The atom of a UTF-8 name, new reference. `known` finds only atoms that
 * exist: NULL without an exception when there is none. */
PyObject *rt_py_atom_get(const uint8_t *utf8, size_t n, bool known);
/* The same from a str (or an Atom, which is returned itself). */
PyObject *rt_py_atom_from(PyObject *str);

RT_INLINE uint64_t rt_py_mix(const uint8_t *p, size_t n) {
    uint64_t a = 0, b = 0;
    if (n >= 8) {
        memcpy(&a, p, 8);
        memcpy(&b, p + n - 8, 8);
    } else if (n >= 4) {
        uint32_t x, y;
        memcpy(&x, p, 4);
        memcpy(&y, p + n - 4, 4);
        a = x;
        b = y;
    } else if (n) {
        a = p[0] | (uint64_t)p[n / 2] << 8 | (uint64_t)p[n - 1] << 16;
    }
    a = (a ^ (n * 0x9e3779b97f4a7c15ULL)) * 0xff51afd7ed558ccdULL;
    a ^= (b + (a >> 32)) * 0xc4ceb9fe1a85ec53ULL;
    return a ^ (a >> 29);
}

/* A call of memcpy costs more than copying what most strings hold. */
#define RT_PY_COPY_MAX 64u
RT_INLINE void rt_py_copy(uint8_t *to, const uint8_t *p, size_t n) {
    if (n > RT_PY_COPY_MAX) {
        memcpy(to, p, n);
    } else if (n > 16) { /* the last piece may overlap the one before it */
        uint8_t piece[16];
        for (size_t i = 0; i < n - 16; i += 16) {
            memcpy(piece, p + i, 16);
            memcpy(to + i, piece, 16);
        }
        memcpy(piece, p + n - 16, 16);
        memcpy(to + n - 16, piece, 16);
    } else if (n >= 8) { /* two pieces that may overlap */
        uint64_t first, last;
        memcpy(&first, p, 8);
        memcpy(&last, p + n - 8, 8);
        memcpy(to, &first, 8);
        memcpy(to + n - 8, &last, 8);
    } else if (n >= 4) {
        uint32_t first, last;
        memcpy(&first, p, 4);
        memcpy(&last, p + n - 4, 4);
        memcpy(to, &first, 4);
        memcpy(to + n - 4, &last, 4);
    } else if (n > 0) {
        to[0] = p[0];
        to[n / 2] = p[n / 2];
        to[n - 1] = p[n - 1];
    }
}
/* Whether two runs of n bytes are the same; names and keys are short, and a call of memcmp
 * costs more than comparing them. */
RT_INLINE bool rt_py_same(const void *x, const void *y, size_t n) {
    const uint8_t *p = x, *q = y;
    uint64_t a, b, c, d, both = 0;
    if (n > 16) {
        if (n > 32) return memcmp(p, q, n) == 0;
        memcpy(&a, p, 8);
        memcpy(&b, q, 8);
        memcpy(&c, p + 8, 8);
        memcpy(&d, q + 8, 8);
        both = (a ^ b) | (c ^ d);
        p += n - 16; /* the last ones may overlap these */
        q += n - 16;
        n = 16;
    }
    if (n >= 8) { /* two pieces that may overlap */
        memcpy(&a, p, 8);
        memcpy(&b, q, 8);
        memcpy(&c, p + n - 8, 8);
        memcpy(&d, q + n - 8, 8);
        return ((a ^ b) | (c ^ d) | both) == 0;
    }
    if (n >= 4) {
        uint32_t e, f, g, h;
        memcpy(&e, p, 4);
        memcpy(&f, q, 4);
        memcpy(&g, p + n - 4, 4);
        memcpy(&h, q + n - 4, 4);
        return ((e ^ f) | (g ^ h)) == 0;
    }
    return n == 0 || (p[0] == q[0] && p[n / 2] == q[n / 2] && p[n - 1] == q[n - 1]);
}

/* The atom of a UTF-8 name through the cache of recent atoms, borrowed from
 * the cache (valid until the next lookup): take a reference. NULL on a miss. */
RT_INLINE rt_atom_obj *rt_py_atom_recent(rt_py_state *st, const uint8_t *p, size_t n,
                                         size_t *slot) {
    *slot = (rt_py_mix(p, n) >> 8) & (RT_PY_ATOM_CACHE - 1);
    rt_atom_obj *a = st->atom_cache[*slot];
    if (RT_LIKELY(a && (size_t)(a->ext_n - a->name_at) == n &&
                  rt_py_same(a->ext + a->name_at, p, n)))
        return a;
    return NULL;
}

#endif
