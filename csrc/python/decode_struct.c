#include "python/dec.h"

void rt_dec_blame(const uint8_t *base, const uint8_t *at, PyObject *prefix, bool say) {
    PyObject *type, *raised, *trace, *error = NULL;
    if (!prefix) return;
    PyErr_Fetch(&type, &raised, &trace);
    PyErr_NormalizeException(&type, &raised, &trace);
    if (trace) PyException_SetTraceback(raised, trace);
    PyObject *text = say ? PyUnicode_FromFormat("%U: %S", prefix, raised) : NULL;
    if (say && !text) PyErr_Clear(); /* it cannot be shown */
    if (!text) text = Py_NewRef(prefix);
    if (text) error = PyObject_CallFunction(rt_py_st->decode_error, "On", text,
                                            (Py_ssize_t)(at - base));
    if (error) {
        PyException_SetCause(error, Py_NewRef(raised));
        PyErr_SetObject(rt_py_st->decode_error, error);
    }
    Py_XDECREF(error);
    Py_XDECREF(text);
    Py_DECREF(prefix);
    Py_XDECREF(type);
    Py_XDECREF(raised);
    Py_XDECREF(trace);
}

/* With Codec(binaries="str") a text may equal the atom. */
static bool has_struct_atom(const rt_dec *d, PyObject *map) {
    PyObject *key, *value;
    if (d->codec->binaries != RT_BINARIES_STR) return true;
    for (Py_ssize_t at = 0; PyDict_Next(map, &at, &key, &value);)
        if (key == d->st->struct_key) return true;
    return false;
}

int rt_dec_struct(rt_dec *d, PyObject **v) {
    PyObject *module = NULL, *maker = NULL, *made = NULL;
    if (!PyDict_CheckExact(*v)) return 0; /* a Map */
    module = PyDict_GetItemWithError(*v, d->st->struct_key);
    if (module && Py_IS_TYPE(module, d->st->atom) && has_struct_atom(d, *v))
        maker = PyDict_GetItemWithError(d->codec->from_term, module);
    if (!maker) {
        if (!PyErr_Occurred()) return 0;
        Py_CLEAR(*v);
        return -1;
    }
    Py_INCREF(maker);
    Py_INCREF(module);
    made = PyObject_CallOneArg(maker, *v);
    /* What no input can bring about passes through. */
    if (!made && PyErr_ExceptionMatches(PyExc_Exception) &&
        !PyErr_ExceptionMatches(PyExc_MemoryError))
        rt_dec_blame(d->from, d->c.p, PyUnicode_FromFormat("struct %U", module), true);
    if (made == Py_NotImplemented) Py_DECREF(made);
    else Py_SETREF(*v, made);
    Py_DECREF(maker);
    Py_DECREF(module);
    return *v ? 0 : -1;
}
