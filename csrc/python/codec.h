/* Purpose: Python objects to external terms and back, for the node layer.
 * Ownership: functions returning PyObject * give a new reference unless the
 * name says borrowed. Byte views borrow from the object asked.
 * Threads: the GIL is held throughout. User hooks (numpy arrays) may run
 * Python code inside rt_py_encode.
 * Limits: those of the codec (max_depth, max_bytes). Nothing recurses on data.
 * Errors: -1 or NULL with a Python exception set: EncodeError, DecodeError,
 * MemoryError, or what a user hook raised. */
#ifndef RT_PYTHON_CODEC_H
#define RT_PYTHON_CODEC_H

#include "python/py.h"

#include "base/base.h"
#include "base/buf.h"

typedef struct rt_codec rt_codec; /* the C side of a Codec object: policies */

/* True when the object is a Codec. Wherever a codec is taken, NULL and None
 * stand for the default policies. */
int rt_py_is_codec(PyObject *obj);

/* Appends the external form of `term` (no version byte, never compressed) to
 * `out`; on failure `out` keeps its old length. */
int rt_py_encode(PyObject *codec, PyObject *term, rt_buf *out);

/* Builds the object for the one term at p (no version byte, no
 * ATOM_CACHE_REF); *used gets its length in bytes. Safe on bytes that were
 * never scanned. On failure the DecodeError's offset counts from p. */
PyObject *rt_py_decode(PyObject *codec, const uint8_t *p, size_t n, size_t *used);
/* The same as the next item of a list; 0, or -1 and the list is as it was. */
int rt_py_decode_append(PyObject *codec, const uint8_t *p, size_t n, PyObject *list);

/* Identifiers. `node_atom` is an Atom. */
PyObject *rt_py_pid(PyObject *node_atom, uint32_t id, uint32_t serial, uint32_t creation);
PyObject *rt_py_ref(PyObject *node_atom, uint32_t creation, const uint32_t *word, uint32_t words);
PyObject *rt_py_atom(const uint8_t *utf8, size_t n); /* interned; ValueError when too long */
int rt_py_is_pid(PyObject *obj);
int rt_py_is_ref(PyObject *obj);
int rt_py_is_atom(PyObject *obj);

/* The canonical external bytes of a Pid or Reference, kept in the object. */
const uint8_t *rt_py_ident_bytes(PyObject *ident, size_t *n);
/* The UTF-8 name of an Atom, kept in the object. */
rt_slice rt_py_atom_name(PyObject *atom);
/* Splits a Pid; any output may be NULL. -1 with TypeError for anything else. */
int rt_py_pid_fields(PyObject *pid, PyObject **node_atom_borrowed, uint32_t *id,
                     uint32_t *serial, uint32_t *creation);

#endif
