#include "python/state.h"

#include "base/alloc.h"
#include "base/random.h"
#include "python/codec.h"
#include "python/module.h"
#include "python/terms.h"

rt_py_state *rt_py_st;

static int set_match_args(PyObject *type, const char *const *match) {
    Py_ssize_t n = 0;
    while (match[n]) n++;
    PyObject *names = PyTuple_New(n);
    for (Py_ssize_t i = 0; names && i < n; i++) {
        PyObject *name = PyUnicode_InternFromString(match[i]);
        if (!name) Py_CLEAR(names);
        else PyTuple_SET_ITEM(names, i, name);
    }
    int rc = names ? PyObject_SetAttrString(type, "__match_args__", names) : -1;
    Py_XDECREF(names);
    return rc;
}

PyTypeObject *rt_py_type(PyType_Spec *spec, PyTypeObject *base, const char *const *match) {
    PyObject *bases = base ? PyTuple_Pack(1, base) : NULL;
    if (base && !bases) return NULL;
    PyObject *type = PyType_FromSpecWithBases(spec, bases);
    Py_XDECREF(bases);
    if (!type) return NULL;
    if (match && set_match_args(type, match) < 0) {
        Py_DECREF(type);
        return NULL;
    }
    /* Only now, since the line above sets an attribute. */
    ((PyTypeObject *)type)->tp_flags |= Py_TPFLAGS_IMMUTABLETYPE;
    PyType_Modified((PyTypeObject *)type);
    return (PyTypeObject *)type;
}

static PyObject *take(PyObject *module, const char *name) {
    return module ? PyObject_GetAttrString(module, name) : NULL;
}

static int load_errors(rt_py_state *st) {
    PyObject *errors = PyImport_ImportModule("router.errors");
    st->encode_error = take(errors, "EncodeError");
    st->decode_error = st->encode_error ? take(errors, "DecodeError") : NULL;
    Py_XDECREF(errors);
    return st->decode_error ? 0 : -1;
}

static void state_drop(rt_py_state *st) {
    PyObject *held[] = {
        (PyObject *)st->codec, (PyObject *)st->map, (PyObject *)st->frozen,
        (PyObject *)st->improper, (PyObject *)st->bits, (PyObject *)st->export,
        (PyObject *)st->fun, (PyObject *)st->port, (PyObject *)st->ref, (PyObject *)st->pid,
        (PyObject *)st->atom, st->encode_error, st->decode_error, st->codec_default,
        st->struct_key, st->term_hook,
    };
    for (size_t i = 0; i < sizeof held / sizeof *held; i++) Py_XDECREF(held[i]);
    for (int i = 0; i < 256; i++) Py_XDECREF(st->small[i]);
    rt_free(st->bucket);
    rt_free(st->scratch);
    rt_free(st);
}

static int state_make(void) {
    rt_py_state *st = rt_calloc(1, sizeof *st);
    if (!st) {
        PyErr_NoMemory();
        return -1;
    }
    rt_py_st = st;
    st->bucket_mask = 1023;
    st->bucket = rt_calloc(st->bucket_mask + 1, sizeof *st->bucket);
    st->scratch = rt_malloc(RT_PY_SCRATCH);
    if (!st->bucket || !st->scratch) {
        PyErr_NoMemory();
        goto fail;
    }
    for (int i = 0; i < 256; i++)
        if (!(st->small[i] = PyLong_FromLong(i))) goto fail;
    if (rt_random_u64(&st->seed) < 0) {
        PyErr_SetString(PyExc_OSError, "no random bytes from the system");
        goto fail;
    }
    if (load_errors(st) < 0 || rt_py_atom_init(st) < 0 || rt_py_ident_init(st) < 0 ||
        rt_py_types_init(st) < 0 || rt_py_lists_init(st) < 0 || rt_py_map_init(st) < 0 ||
        rt_py_codec_init(st) < 0)
        goto fail;
    return 0;
fail:
    rt_py_st = NULL;
    state_drop(st);
    return -1;
}

void rt_py_set_send(void *type, rt_py_send send) {
    /* PySendResult is an int: PYGEN_RETURN, PYGEN_ERROR, PYGEN_NEXT. */
    ((PyTypeObject *)type)->tp_as_async->am_send = (sendfunc)send;
}

void rt_py_inherit_anext(void *type) {
    PyTypeObject *t = type;
    t->tp_as_async->am_anext = t->tp_base->tp_as_async->am_anext;
}

int rt_py_own_method(PyObject *type, PyObject *name) {
    PyObject *found = PyObject_GetAttr(type, name), *own = NULL;
    if (!found) return -1;
    if (Py_IS_TYPE(found, &PyMethodDescr_Type))
        own = PyDescr_NewMethod((PyTypeObject *)type, ((PyMethodDescrObject *)found)->d_method);
    else
        PyErr_Format(PyExc_TypeError, "%R of %R is no method in C", name, type);
    int rc = own ? PyObject_SetAttr(type, name, own) : -1;
    Py_XDECREF(own);
    Py_DECREF(found);
    return rc;
}

int rt_py_init(PyObject *module) {
    if (!rt_py_st && state_make() < 0) return -1;
    rt_py_state *st = rt_py_st;
    PyTypeObject *types[] = {st->atom, st->pid, st->ref, st->port, st->fun, st->export,
                             st->bits, st->improper, st->frozen, st->map, st->codec};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (PyModule_AddType(module, types[i]) < 0) return -1;
    if (PyModule_AddObjectRef(module, "default_codec", st->codec_default) < 0) return -1;
    return PyModule_AddFunctions(module, rt_py_functions());
}

int rt_py_numpy(rt_py_state *st) {
    if (st->np_ndarray) return 1;
    PyObject *name = PyUnicode_FromString("numpy");
    PyObject *np = name ? PyImport_GetModule(name) : NULL;
    Py_XDECREF(name);
    if (!np) return PyErr_Occurred() ? -1 : 0;
    st->np_generic = take(np, "generic");
    st->np_bool = st->np_generic ? take(np, "bool_") : NULL;
    st->np_integer = st->np_bool ? take(np, "integer") : NULL;
    st->np_floating = st->np_integer ? take(np, "floating") : NULL;
    st->np_ndarray = st->np_floating ? take(np, "ndarray") : NULL;
    Py_DECREF(np);
    if (st->np_ndarray) return 1;
    Py_CLEAR(st->np_generic);
    Py_CLEAR(st->np_bool);
    Py_CLEAR(st->np_integer);
    Py_CLEAR(st->np_floating);
    /* Half imported, or something else of that name: not numpy for us. */
    if (!PyErr_ExceptionMatches(PyExc_AttributeError)) return -1;
    PyErr_Clear();
    return 0;
}

PyObject *rt_py_order(PyObject *a, PyObject *b, int op) {
    rt_py_state *st = rt_py_st;
    if (!st->compare) {
        PyObject *m = PyImport_ImportModule("router._order");
        st->compare = take(m, "compare");
        Py_XDECREF(m);
        if (!st->compare) return NULL;
    }
    PyObject *r = PyObject_CallFunctionObjArgs(st->compare, a, b, NULL);
    if (!r) return NULL;
    long c = PyLong_AsLong(r);
    Py_DECREF(r);
    if (c == -1 && PyErr_Occurred()) return NULL;
    return rt_py_richbool(op, (int)c);
}
