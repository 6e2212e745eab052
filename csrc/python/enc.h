/* Purpose: the encoder's inside, shared by encode.c and encode_array.c: a
 * write position with room ahead and an explicit stack of open containers.
 * Ownership: frames hold references to the containers they walk; the target is
 * either the caller's rt_buf or memory of the encoder's own.
 * Threads: GIL; user code may run while arrays are converted, so nothing
 * borrowed is kept across that.
 * Errors: -1 with a Python exception. */
#ifndef RT_PYTHON_ENC_H
#define RT_PYTHON_ENC_H

#include "python/apart.h"
#include "python/terms.h"

typedef struct rt_enc_frame {
    PyObject *obj;    /* the container */
    PyObject *held;   /* dict: the value whose key is being written */
    PyObject *seen;   /* dict with keys of several kinds: set of written keys */
    PyTypeObject *key_type; /* dict: of the last key */
    size_t *at;       /* canonical dict: where each key starts, and the end */
    Py_ssize_t pos;   /* next index, or PyDict_Next's position */
    Py_ssize_t done;  /* elements or pairs begun */
    Py_ssize_t n;     /* elements or pairs promised in the header */
    size_t start;     /* list: where its elements start; dict: the current key */
    uint8_t kind;
    uint8_t key_kinds; /* dict: which kinds of keys were seen */
    bool in_key;
} rt_enc_frame;

#define RT_ENC_STACK 16u
#define RT_ENC_PAIRS 3 /* the first kind of container with keys and values */

typedef struct rt_enc {
    uint8_t *w, *end;           /* next byte, end of room */
    uint8_t *base;              /* where this term began */
    rt_buf *buf;                /* target, or NULL: own memory */
    PyObject *bytes;            /* own memory beyond the scratch block */
    rt_py_apart *apart;         /* where a large `bytes` may stand, or NULL: nowhere */
    bool scratch, canonical;
    const rt_codec *codec;
    rt_py_state *st;
    rt_enc_frame *stack;
    uint32_t depth, cap;
    rt_enc_frame first[RT_ENC_STACK];
} rt_enc;

/* A large `bytes`: apart.c. 1 written, or -1. */
int rt_enc_large(rt_enc *e, PyObject *obj);
int rt_enc_grow(rt_enc *e, size_t extra);
RT_INLINE int rt_enc_room(rt_enc *e, size_t extra) {
    if (RT_LIKELY((size_t)(e->end - e->w) >= extra)) return 0;
    return rt_enc_grow(e, extra);
}
/* Bytes written may alias the encoder for all the compiler knows, so each of
 * these moves `w` through a local. The caller has made room. */
RT_INLINE void rt_enc_u8(rt_enc *e, uint8_t v) { *e->w++ = v; }
RT_INLINE void rt_enc_tag_u32(rt_enc *e, uint8_t tag, uint32_t v) {
    uint8_t *w = e->w;
    e->w = w + 5;
    w[0] = tag;
    rt_store_u32(w + 1, v);
}
/* A length-tagged run of bytes; needs 5 + n of room. */
RT_INLINE void rt_enc_run(rt_enc *e, uint8_t tag, const void *p, size_t n) {
    uint8_t *w = e->w;
    e->w = w + 5 + n;
    w[0] = tag;
    rt_store_u32(w + 1, (uint32_t)n);
    rt_py_copy(w + 5, p, n);
}
/* Integers of at most two of Python's digits, which is 60 bits. */
RT_INLINE bool rt_enc_small_int(PyObject *num, int64_t *out) {
#if PY_VERSION_HEX >= 0x030c0000 && PY_VERSION_HEX < 0x030e0000
    /* The low bits of the tag are the sign (0, 1 none, 2 negative). */
    const struct _PyLongValue *v = &((PyLongObject *)num)->long_value;
    const digit *d = v->ob_digit;
    if (RT_LIKELY(v->lv_tag == 1 << 3)) {
        *out = d[0];
        return true;
    }
    size_t digits = v->lv_tag >> 3;
    bool negative = (v->lv_tag & 3) == 2;
#elif PY_VERSION_HEX < 0x030c0000
    Py_ssize_t size = Py_SIZE(num);
    const digit *d = ((PyLongObject *)num)->ob_digit;
    if (RT_LIKELY(size == 1)) {
        *out = d[0];
        return true;
    }
    size_t digits = (size_t)(size < 0 ? -size : size);
    bool negative = size < 0;
#else
    int overflow;
    *out = PyLong_AsLongLongAndOverflow(num, &overflow);
    return !overflow;
#endif
#if PY_VERSION_HEX < 0x030e0000
    int64_t u;
    if (digits == 1) u = d[0];
    else if (digits == 2) u = (int64_t)d[0] | (int64_t)d[1] << PyLong_SHIFT;
    else if (digits == 0) u = 0;
    else return false;
    *out = negative ? -u : u;
    return true;
#endif
}
/* One integer of up to 64 bits; needs 11 bytes of room. */
RT_INLINE void rt_enc_i64(rt_enc *e, int64_t v) {
    uint8_t *w = e->w;
    if (v >= 0 && v <= 255) {
        e->w = w + 2;
        w[0] = RT_TAG_SMALL_INTEGER;
        w[1] = (uint8_t)v;
    } else if (v == (int32_t)v) {
        e->w = w + 5;
        w[0] = RT_TAG_INTEGER;
        rt_store_u32(w + 1, (uint32_t)v);
    } else {
        uint64_t u = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
        size_t n = (size_t)(71 - __builtin_clzll(u)) / 8;
        e->w = w + 3 + n;
        w[0] = RT_TAG_SMALL_BIG;
        w[1] = (uint8_t)n;
        w[2] = v < 0;
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        u = __builtin_bswap64(u);
#endif
        memcpy(w + 3, &u, 8);
    }
}
/* Raises EncodeError: the text, then where in the term it happened. */
int rt_enc_fail(rt_enc *e, const char *format, ...);

/* Turns the finished list of n elements that began at `start` (an offset from
 * base, after its header) into a STRING when it can be one. */
bool rt_enc_compact(rt_enc *e, size_t start, Py_ssize_t n);

/* map.c, for dicts: notes a key's type; whether keys of the types so far may be one term. */
bool rt_enc_key_kind(rt_enc *e, rt_enc_frame *f, PyTypeObject *t);
/* Makes the set of the keys written so far, which may run the collector; -1: exception. */
int rt_enc_begin_seen(rt_enc *e, rt_enc_frame *f);
/* Sorts the pairs of a finished canonical map by the bytes of their keys. */
int rt_enc_sort_pairs(rt_enc *e, rt_enc_frame *f);

/* Writes what Python itself does not know. 1: written; 2: *instead (new
 * reference) is to be written in its place; 0: not ours; -1: exception. */
int rt_enc_foreign(rt_enc *e, PyObject *obj, PyObject **instead);

/* What a registered class or a hook of the user's says: 2 with what is to be written in the object's
 * place (new reference), 0 when the object stands for itself, -1. */
int rt_enc_stand_in(rt_enc *e, PyObject *obj, PyObject **instead);

/* encode_leaf.c: atoms, text, numbers, identifiers. 1 written, 0 not a leaf,
 * -1 exception. */
int rt_enc_text(rt_enc *e, PyObject *str);
int rt_enc_bytes(rt_enc *e, const void *p, size_t n);
int rt_enc_big(rt_enc *e, PyObject *num);
int rt_enc_double(rt_enc *e, double v);
int rt_enc_atom_lit(rt_enc *e, const char *name, size_t n);
int rt_enc_own(rt_enc *e, PyObject *obj);

#endif
