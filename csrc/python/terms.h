/* Purpose: what the files of this folder use of each other: objects of every
 * kind of term, the encoder and the decoder.
 * Ownership: as in codec.h. Threads: GIL. Errors: Python exceptions. */
#ifndef RT_PYTHON_TERMS_H
#define RT_PYTHON_TERMS_H

#include "python/atom.h"
#include "python/codec.h"
#include "python/state.h"
#include "term/tags.h"

typedef struct rt_export_obj {
    PyObject_HEAD
    PyObject *module, *function; /* Atoms */
    int arity;
} rt_export_obj;

typedef struct rt_bits_obj {
    PyObject_HEAD
    PyObject *data; /* bytes, unused low bits of the last one are 0 */
    int bits;       /* used in the last byte: 1..7 */
} rt_bits_obj;

typedef struct rt_fun_obj {
    PyObject_HEAD
    PyObject *raw;  /* bytes: the external form with its tag */
    PyObject *module, *pid, *old_index, *old_uniq;
    size_t free_at; /* where the free variables start in raw */
} rt_fun_obj;

typedef struct rt_improper_obj {
    PyObject_HEAD
    PyObject *items; /* tuple, not empty */
    PyObject *tail;
} rt_improper_obj;

typedef struct rt_frozen_obj {
    PyObject_HEAD
    PyObject *items; /* tuple */
} rt_frozen_obj;

typedef struct rt_map_obj {
    PyObject_HEAD
    PyObject *pairs; /* dict: canonical key bytes -> (key, value) */
} rt_map_obj;

/* Identifiers from fields or from canonical bytes (n of them, which must be
 * right for the type). */
PyObject *rt_py_ident_new(PyTypeObject *type, PyObject *node, const uint8_t *ext, size_t n);
RT_INLINE uint64_t rt_py_port_id(const rt_ident_obj *p) {
    uint64_t v;
    memcpy(&v, p->ext + Py_SIZE(p) - 12, 8);
    return rt_be64(v);
}
RT_INLINE uint32_t rt_py_ident_creation(const rt_ident_obj *p) {
    uint32_t v;
    memcpy(&v, p->ext + Py_SIZE(p) - 4, 4);
    return rt_be32(v);
}

PyObject *rt_py_export_new(PyObject *module, PyObject *function, int arity);
PyObject *rt_py_bits_new(const uint8_t *p, size_t n, int bits);
/* A fun from its checked external form. Steals nothing. */
PyObject *rt_py_fun_new(const uint8_t *p, size_t n, size_t free_at, PyObject *module,
                        PyObject *pid, PyObject *old_index, PyObject *old_uniq);
PyObject *rt_py_improper_new(PyObject *items_tuple, PyObject *tail);
PyObject *rt_py_frozen_new(PyObject *items_tuple);
PyObject *rt_py_map_new(void);
/* Adds a pair to a map nobody else has seen: 0, 1 when the key is there
 * already (nothing is changed), -1 with an exception. */
int rt_py_map_add(PyObject *map, PyObject *key, PyObject *value);
/* Bytes that are equal exactly when two terms are the same in Erlang. */
PyObject *rt_py_canonical(PyObject *term);

/* What a codec or None says, in C. */
RT_INLINE const rt_codec *rt_py_codec(PyObject *codec) {
    bool own = codec && Py_IS_TYPE(codec, rt_py_st->codec);
    return (const rt_codec *)(own ? codec : rt_py_st->codec_default);
}

enum rt_encode_mode { RT_ENCODE_PLAIN, RT_ENCODE_CANONICAL };
/* A whole external term with its version byte, as bytes; obeys `compressed`. */
PyObject *rt_py_encode_bytes(const rt_codec *codec, PyObject *term);
/* The same into the n bytes at p. Gives None; or, when it does not fit, bytes that begin with the
 * whole term. *used: its length. */
PyObject *rt_py_encode_into(const rt_codec *codec, PyObject *term, uint8_t *p, size_t n,
                            size_t *used);

/* Decodes one term; `owner` (may be NULL) is what memoryviews are taken of,
 * `base` what offsets in errors are counted from. */
PyObject *rt_py_decode_at(const rt_codec *codec, const uint8_t *base, const uint8_t *p,
                          size_t n, size_t *used, PyObject *owner);

/* The length of the term at p, which is checked and not built; -1 with a DecodeError. */
int64_t rt_py_scan(const rt_codec *codec, const uint8_t *base, const uint8_t *p, size_t n);
/* The kind and the length of one term that is not decoded: a tuple of what etf.Peek holds. */
PyObject *rt_py_peek(const rt_codec *codec, const uint8_t *base, const uint8_t *p, size_t n);

PyMethodDef *rt_py_functions(void);

#endif
