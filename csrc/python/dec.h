/* Purpose: the decoder's inside, shared by decode.c and decode_leaf.c.
 * Ownership: the cursor borrows the input; frames own what they build.
 * Threads: GIL. Errors: NULL with DecodeError, whose offset counts from `from`. */
#ifndef RT_PYTHON_DEC_H
#define RT_PYTHON_DEC_H

#include "base/cursor.h"
#include "python/terms.h"

#define RT_DEC_STACK 24u
#define RT_DEC_NEST 16u /* containers in each other that need no frame */
#define RT_DEC_KEY_DEPTH_MAX 256u /* hashing and comparing keys recurses in Python */
#define RT_DEC_HASH_CLASSES 1024u
#define RT_DEC_HASH_SAME_MAX 256u

typedef struct rt_dec_frame {
    PyObject *obj;   /* the container being filled */
    PyObject *key;   /* map: the key whose value comes next */
    uint32_t *hashes;/* large dict: how many keys fell into each class of hashes */
    uint32_t i, n;   /* elements (pairs) delivered, promised */
    uint8_t kind;
} rt_dec_frame;

typedef struct rt_dec {
    rt_cursor c;
    const uint8_t *from;     /* offset 0 of errors, and of the owner */
    const rt_codec *codec;
    rt_py_state *st;
    PyObject *owner;         /* memoryviews are slices of it; NULL: copy */
    uint64_t owed;           /* values that open containers still wait for */
    uint32_t keys;           /* over 0: inside a map key, everything is frozen */
    uint32_t keys_depth;     /* depth at which the outermost key began */
    uint32_t above;          /* containers open around the lowest frame */
    uint32_t nest;           /* how many open ones need no frame */
    uint32_t depth, cap;     /* frames used, held */
    rt_dec_frame *stack;
    rt_dec_frame first[RT_DEC_STACK];
} rt_dec;

/* Raises DecodeError about the byte at `at`; returns NULL. */
PyObject *rt_dec_fail(const rt_dec *d, const uint8_t *at, const char *text);
RT_INLINE PyObject *rt_dec_cut(const rt_dec *d) {
    return rt_dec_fail(d, d->c.end, "the term ends too early");
}

/* A DecodeError about the byte at `at`, caused by the exception that is set; `say`: its text follows
 * the prefix (stolen, NULL with another exception: that one stays). */
void rt_dec_blame(const uint8_t *base, const uint8_t *at, PyObject *prefix, bool say);
/* A finished map becomes what its registered class makes of it: 0, or -1 and it is gone. In a
 * map's key it stays what it is: there two structs may differ that Python holds equal. */
int rt_dec_struct(rt_dec *d, PyObject **v);

/* What an atom stands for; `plain`: true, false and nil stand for themselves. */
PyObject *rt_dec_special(const rt_dec *d, rt_atom_obj *a);
RT_INLINE PyObject *rt_dec_atom_value(const rt_dec *d, rt_atom_obj *a, bool plain) {
    if (RT_LIKELY(plain || a->special == RT_ATOM_PLAIN)) return Py_NewRef((PyObject *)a);
    return rt_dec_special(d, a);
}
/* The text of a binary, bytes when it is no UTF-8. */
PyObject *rt_dec_text(const uint8_t *p, size_t n);

/* The bytes of a binary. */
RT_INLINE PyObject *rt_dec_bytes(const uint8_t *p, size_t n) {
    if (RT_UNLIKELY(n - 2 >= RT_PY_COPY_MAX - 1)) /* Python keeps those of none and of one byte */
        return PyBytes_FromStringAndSize((const char *)p, (Py_ssize_t)n);
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)n);
    if (RT_LIKELY(bytes)) rt_py_copy((uint8_t *)PyBytes_AS_STRING(bytes), p, n);
    return bytes;
}

/* A key of a map through the cache of keys: of at most RT_PY_KEY_BYTES_MAX bytes, and at least one
 * as text. */
PyObject *rt_dec_new_key_bytes(PyObject **slot, const uint8_t *p, size_t n);
PyObject *rt_dec_new_key_str(PyObject **slot, const uint8_t *p, size_t n);
RT_INLINE PyObject *rt_dec_key_bytes(rt_dec *d, const uint8_t *p, size_t n) {
    PyObject **slot = &d->st->bytes_keys[(rt_py_mix(p, n) >> 8) & (RT_PY_KEY_CACHE - 1)];
    PyObject *key = *slot;
    if (RT_LIKELY(key && (size_t)PyBytes_GET_SIZE(key) == n &&
                  rt_py_same(PyBytes_AS_STRING(key), p, n)))
        return Py_NewRef(key);
    return rt_dec_new_key_bytes(slot, p, n);
}
RT_INLINE PyObject *rt_dec_key_str(rt_dec *d, const uint8_t *p, size_t n) {
    PyObject **slot = &d->st->str_keys[(rt_py_mix(p, n) >> 8) & (RT_PY_KEY_CACHE - 1)];
    PyObject *key = *slot;
    if (RT_LIKELY(key && (size_t)PyUnicode_GET_LENGTH(key) == n &&
                  rt_py_same(((PyASCIIObject *)key) + 1, p, n)))
        return Py_NewRef(key);
    return rt_dec_new_key_str(slot, p, n);
}

/* The identifier at the cursor if its bytes are canonical and we have seen the pid, or the node of
 * the reference, lately. NULL with the cursor unmoved when not; an exception is set if memory is short. */
PyObject *rt_dec_recent_pid(rt_dec *d);
PyObject *rt_dec_recent_ref(rt_dec *d);

/* Each builds what follows the tag, which has been read. */
PyObject *rt_dec_atom(rt_dec *d, uint8_t tag, bool plain);
PyObject *rt_dec_big(rt_dec *d, uint8_t tag);
PyObject *rt_dec_float(rt_dec *d, uint8_t tag);
PyObject *rt_dec_binary(rt_dec *d);
PyObject *rt_dec_bits(rt_dec *d);
PyObject *rt_dec_string(rt_dec *d);
PyObject *rt_dec_ident(rt_dec *d, uint8_t tag);
PyObject *rt_dec_export(rt_dec *d);
PyObject *rt_dec_fun(rt_dec *d);

#endif
