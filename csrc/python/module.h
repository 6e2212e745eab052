/* Purpose: puts the terms of this folder (types, exceptions, encode and
 * decode) into the extension module `router._core`.
 * Ownership: one state for the process, made by the first call and kept until
 * the process ends; the extension refuses to load into a second interpreter.
 * Threads: call with the GIL held.
 * Errors: -1 with a Python exception set; a later call tries again. */
#ifndef RT_PYTHON_MODULE_H
#define RT_PYTHON_MODULE_H

#include "python/py.h"

/* Adds Atom, Pid, Reference, Port, Fun, Export, BitString, ImproperList,
 * FrozenList, Map, Codec and the functions of codec.c.
 * Imports router.errors. A second call adds the same objects again. */
int rt_py_init(PyObject *module);

typedef int (*rt_py_send)(PyObject *self, PyObject *value, PyObject **result);
/* Gives a type with an __await__ of its own the slot am_send, which Cython does not
 * know: a step of it then gives its result without a StopIteration. */
void rt_py_set_send(void *type, rt_py_send send);
/* Gives a class made in Python the slot am_anext of its base: Cython's __anext__ is a method too,
 * which Python would look up by name each time. */
void rt_py_inherit_anext(void *type);
/* Gives a class made in Python a method of its own from one in C that it inherits: 0 or -1. */
int rt_py_own_method(PyObject *type, PyObject *name);

#endif
