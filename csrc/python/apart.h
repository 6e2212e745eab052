/* Purpose: a large `bytes` object that is sent as it stands: the frame it belongs to is written
 * without it, and a queue refers to it until it has gone out.
 * Ownership: what a queue refers to holds a reference to the object. Only a thread with the GIL
 * can give that back, and who writes the last of it may have none: such objects wait in a pile
 * for rt_py_let_go, by the node's next call, or a pending call of the interpreter's main thread
 * (which may be overlooked until another thread wants to run: CPython's, and harmless here).
 * Threads: GIL, but for the release of what was shared.
 * Errors: -1 or NULL with a Python exception. */
#ifndef RT_PYTHON_APART_H
#define RT_PYTHON_APART_H

#include "python/py.h"

#include "base/outq.h"

/* From how many bytes on. Below, copying costs less than the bookkeeping. */
#define RT_PY_APART_MIN (32u * 1024u)

typedef struct rt_py_apart {
    PyObject *bytes;     /* exactly bytes, a new reference; NULL: none stands apart */
    size_t at;           /* where it belongs in the buffer */
} rt_py_apart;

/* As rt_py_encode, but the first large `bytes` may stand apart. */
int rt_py_encode_apart(PyObject *codec, PyObject *term, rt_buf *out, rt_py_apart *apart);
/* Puts them where they belong after all. */
int rt_py_apart_insert(rt_buf *b, size_t at, PyObject *bytes);
/* For a queue, which then holds the object. */
rt_shared *rt_py_apart_share(PyObject *bytes);
void rt_py_let_go(void);

#endif
