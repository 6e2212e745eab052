/* The limit of any decoder: an object like the given one is made of new objects, as a decoder has
 * to, and nothing is read or checked. Keys of dicts, atoms and pids are taken as they are, as from
 * a cache. */
#include "python/state.h"

static PyTypeObject *reference;

static PyObject *build(PyObject *like);

static PyObject *build_list(PyObject *like)
{
    PyObject *made = PyList_New(PyList_GET_SIZE(like));
    for (Py_ssize_t i = 0; made && i < PyList_GET_SIZE(like); i++)
        PyList_SET_ITEM(made, i, build(PyList_GET_ITEM(like, i)));
    return made;
}

static PyObject *build_tuple(PyObject *like)
{
    PyObject *made = PyTuple_New(PyTuple_GET_SIZE(like));
    for (Py_ssize_t i = 0; made && i < PyTuple_GET_SIZE(like); i++)
        PyTuple_SET_ITEM(made, i, build(PyTuple_GET_ITEM(like, i)));
    return made;
}

static PyObject *build_dict(PyObject *like)
{
    PyObject *made = PyDict_New(), *key, *value;
    for (Py_ssize_t at = 0; made && PyDict_Next(like, &at, &key, &value);) {
        PyObject *copy = build(value);
        if (!copy || PyDict_SetItem(made, key, copy) < 0) abort();
        Py_DECREF(copy);
    }
    return made;
}

static PyObject *build_text(PyObject *like)
{
    Py_ssize_t n = PyUnicode_GET_LENGTH(like);
    PyObject *made = PyUnicode_New(n, PyUnicode_MAX_CHAR_VALUE(like));
    if (made && n) memcpy(PyUnicode_DATA(made), PyUnicode_DATA(like), (size_t)n * PyUnicode_KIND(like));
    return made;
}

static PyObject *build_reference(PyObject *like)
{
    const rt_ident_obj *from = (const rt_ident_obj *)like;
    rt_ident_obj *made = PyObject_NewVar(rt_ident_obj, Py_TYPE(like), Py_SIZE(like));
    if (!made) return NULL;
    made->node = Py_NewRef(from->node);
    made->hash = -1;
    memcpy(made->ext, from->ext, (size_t)Py_SIZE(like));
    return (PyObject *)made;
}

static PyObject *build(PyObject *like)
{
    PyTypeObject *type = Py_TYPE(like);
    if (type == &PyDict_Type) return build_dict(like);
    if (type == &PyList_Type) return build_list(like);
    if (type == &PyTuple_Type) return build_tuple(like);
    if (type == &PyUnicode_Type) return build_text(like);
    if (type == &PyBytes_Type)
        return PyBytes_FromStringAndSize(PyBytes_AS_STRING(like), PyBytes_GET_SIZE(like));
    if (type == &PyFloat_Type) return PyFloat_FromDouble(PyFloat_AS_DOUBLE(like));
    if (type == reference) return build_reference(like);
    if (type == &PyLong_Type) {
        int overflow;
        long long value = PyLong_AsLongLongAndOverflow(like, &overflow);
        if (!overflow) return PyLong_FromLongLong(value);
    }
    return Py_NewRef(like);
}

static PyObject *call(PyObject *self, PyObject *like)
{
    int paused = PyGC_Disable(); /* as decoders do */
    PyObject *made = build(like);
    (void)self;
    if (paused) PyGC_Enable();
    return made;
}

/* A Python function that makes an object like its argument. */
__attribute__((visibility("default"))) PyObject *builder(PyTypeObject *type_of_references)
{
    reference = type_of_references;
    static PyMethodDef definition = {"build", call, METH_O, NULL};
    return PyCFunction_New(&definition, NULL);
}
