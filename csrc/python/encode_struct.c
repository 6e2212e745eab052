#include "python/enc.h"

/* What makes a term of objects of this type or of a base of it: borrowed, or NULL. */
static PyObject *maker_of(PyObject *table, PyTypeObject *t) {
    PyObject *mro = t->tp_mro;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(mro); i++) {
        PyObject *found = PyDict_GetItemWithError(table, PyTuple_GET_ITEM(mro, i));
        if (found) return found;
        if (!PyErr_Occurred()) continue;
        if (!PyErr_ExceptionMatches(PyExc_TypeError)) return NULL;
        PyErr_Clear(); /* a class that cannot be hashed is registered nowhere */
    }
    return NULL;
}

/* An EncodeError of a converter gets its place in the term. */
static int add_place(rt_enc *e) {
    PyObject *type, *raised, *trace;
    if (!PyErr_ExceptionMatches(e->st->encode_error)) return -1;
    PyErr_Fetch(&type, &raised, &trace);
    PyErr_NormalizeException(&type, &raised, &trace);
    PyObject *text = PyObject_Str(raised);
    if (text) rt_enc_fail(e, "%U", text);
    Py_XDECREF(text);
    Py_XDECREF(type);
    Py_XDECREF(raised);
    Py_XDECREF(trace);
    return -1;
}

int rt_enc_stand_in(rt_enc *e, PyObject *obj, PyObject **instead) {
    PyTypeObject *t = Py_TYPE(obj);
    PyObject *maker = NULL;
    if (e->codec->to_term && !(maker = maker_of(e->codec->to_term, t)) && PyErr_Occurred())
        return -1;
    if (maker) {
        Py_INCREF(maker);
        *instead = PyObject_CallOneArg(maker, obj);
        Py_DECREF(maker);
    } else if (_PyType_Lookup(t, e->st->term_hook)) {
        *instead = PyObject_CallMethodNoArgs(obj, e->st->term_hook);
    } else {
        return 0;
    }
    if (*instead == Py_NotImplemented) Py_CLEAR(*instead);
    else if (!*instead) return maker ? add_place(e) : -1;
    return *instead ? 2 : 0;
}
