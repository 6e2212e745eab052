#include "python/terms.h"

#include "base/cursor.h"

/* Export */

PyObject *rt_py_export_new(PyObject *module, PyObject *function, int arity) {
    rt_export_obj *self = PyObject_New(rt_export_obj, rt_py_st->export);
    if (!self) return NULL;
    self->module = Py_NewRef(module);
    self->function = Py_NewRef(function);
    self->arity = arity;
    return (PyObject *)self;
}

static PyObject *export_tp_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    (void)type;
    static char *names[] = {"module", "function", "arity", NULL};
    PyObject *module, *function, *number, *self = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO:Export", names, &module, &function,
                                     &number))
        return NULL;
    Py_ssize_t arity = PyNumber_AsSsize_t(number, NULL); /* the nearest, if it does not fit */
    if (arity == -1 && PyErr_Occurred()) return NULL;
    if (arity < 0 || arity > INT32_MAX) {
        PyErr_Format(PyExc_ValueError, "arity must be between 0 and %d", INT32_MAX);
        return NULL;
    }
    PyObject *m = rt_py_atom_from(module);
    PyObject *f = m ? rt_py_atom_from(function) : NULL;
    if (f) self = rt_py_export_new(m, f, (int)arity);
    Py_XDECREF(m);
    Py_XDECREF(f);
    return self;
}

static void export_dealloc(PyObject *obj) {
    rt_export_obj *self = (rt_export_obj *)obj;
    PyTypeObject *type = Py_TYPE(obj);
    Py_XDECREF(self->module);
    Py_XDECREF(self->function);
    type->tp_free(obj);
    Py_DECREF(type);
}

/* The parts as a tuple: for hashing, comparing and pickling. */
static PyObject *export_key(rt_export_obj *self) {
    return Py_BuildValue("OOi", self->module, self->function, self->arity);
}

static PyObject *export_repr(PyObject *obj) {
    rt_export_obj *self = (rt_export_obj *)obj;
    return PyUnicode_FromFormat("fun %U:%U/%d", self->module, self->function, self->arity);
}

static PyObject *compare_and_drop(PyObject *x, PyObject *y, int op) {
    PyObject *r = x && y ? PyObject_RichCompare(x, y, op) : NULL;
    Py_XDECREF(x);
    Py_XDECREF(y);
    return r;
}

static Py_hash_t hash_and_drop(PyObject *x) {
    Py_hash_t h = x ? PyObject_Hash(x) : -1;
    Py_XDECREF(x);
    return h;
}

static PyObject *reduce_and_drop(PyObject *self, PyObject *args) {
    return args ? Py_BuildValue("ON", Py_TYPE(self), args) : NULL;
}

static PyObject *export_richcompare(PyObject *a, PyObject *b, int op) {
    if (Py_TYPE(a) != Py_TYPE(b)) Py_RETURN_NOTIMPLEMENTED;
    return compare_and_drop(export_key((rt_export_obj *)a), export_key((rt_export_obj *)b), op);
}

static Py_hash_t export_hash(PyObject *obj) {
    return hash_and_drop(export_key((rt_export_obj *)obj));
}

static PyObject *export_reduce(PyObject *obj, PyObject *unused) {
    (void)unused;
    return reduce_and_drop(obj, export_key((rt_export_obj *)obj));
}

static PyObject *get_object(PyObject *self, void *offset) {
    return Py_NewRef(*(PyObject **)((char *)self + (intptr_t)offset));
}

static PyObject *get_int(PyObject *self, void *offset) {
    return PyLong_FromLong(*(int *)((char *)self + (intptr_t)offset));
}

#define AT(type, member) ((void *)offsetof(type, member))

static PyGetSetDef export_fields[] = {
    {"module", get_object, NULL, "Atom.", AT(rt_export_obj, module)},
    {"function", get_object, NULL, "Atom.", AT(rt_export_obj, function)},
    {"arity", get_int, NULL, "Number of arguments.", AT(rt_export_obj, arity)},
    {NULL, NULL, NULL, NULL, NULL},
};
static PyMethodDef export_methods[] = {{"__reduce__", export_reduce, METH_NOARGS, NULL},
                                       {NULL, NULL, 0, NULL}};
static PyType_Slot export_slots[] = {
    {Py_tp_doc, (void *)"Export(module, function, arity)\n--\n\n"
     "An external function: Erlang's fun m:f/1."},
    {Py_tp_new, export_tp_new},
    {Py_tp_dealloc, export_dealloc},
    {Py_tp_hash, export_hash},
    {Py_tp_richcompare, export_richcompare},
    {Py_tp_repr, export_repr},
    {Py_tp_methods, export_methods},
    {Py_tp_getset, export_fields},
    {0, NULL},
};
static PyType_Spec export_spec = {
    .name = "router.etf.Export",
    .basicsize = sizeof(rt_export_obj),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = export_slots,
};

/* BitString */

PyObject *rt_py_bits_new(const uint8_t *p, size_t n, int bits) {
    /* From NULL, since Python shares bytes of length 1 and we write into it. */
    PyObject *data = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)n);
    if (!data) return NULL;
    memcpy(PyBytes_AS_STRING(data), p, n);
    PyBytes_AS_STRING(data)[n - 1] &= (char)(0xff << (8 - bits));
    rt_bits_obj *self = PyObject_New(rt_bits_obj, rt_py_st->bits);
    if (!self) {
        Py_DECREF(data);
        return NULL;
    }
    self->data = data;
    self->bits = bits;
    return (PyObject *)self;
}

static PyObject *bits_tp_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    (void)type;
    static char *names[] = {"data", "bits", NULL};
    Py_buffer view;
    PyObject *number, *self = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "y*O:BitString", names, &view, &number))
        return NULL;
    Py_ssize_t bits = PyNumber_AsSsize_t(number, NULL); /* the nearest, if it does not fit */
    if (bits == -1 && PyErr_Occurred()) self = NULL;
    else if (bits < 1 || bits > 7)
        PyErr_SetString(PyExc_ValueError, "bits, those used in the last byte, must be "
                        "between 1 and 7; whole bytes are bytes");
    else if (!view.len)
        PyErr_SetString(PyExc_ValueError, "a BitString has at least one byte of data");
    else
        self = rt_py_bits_new(view.buf, (size_t)view.len, (int)bits);
    PyBuffer_Release(&view);
    return self;
}

static void bits_dealloc(PyObject *obj) {
    PyTypeObject *type = Py_TYPE(obj);
    Py_XDECREF(((rt_bits_obj *)obj)->data);
    type->tp_free(obj);
    Py_DECREF(type);
}

static PyObject *bits_key(rt_bits_obj *self) {
    return Py_BuildValue("Oi", self->data, self->bits);
}

static PyObject *bits_repr(PyObject *obj) {
    rt_bits_obj *self = (rt_bits_obj *)obj;
    return PyUnicode_FromFormat("BitString(%R, %d)", self->data, self->bits);
}

/* Bit by bit, the shorter one first when it is a prefix. Unused bits are 0 and
 * the data are never empty, so the bytes decide and then the used bits do. */
static PyObject *bits_richcompare(PyObject *a, PyObject *b, int op) {
    if (Py_TYPE(a) != Py_TYPE(b)) Py_RETURN_NOTIMPLEMENTED;
    return compare_and_drop(bits_key((rt_bits_obj *)a), bits_key((rt_bits_obj *)b), op);
}

static Py_hash_t bits_hash(PyObject *obj) {
    return hash_and_drop(bits_key((rt_bits_obj *)obj));
}

static PyObject *bits_reduce(PyObject *obj, PyObject *unused) {
    (void)unused;
    return reduce_and_drop(obj, bits_key((rt_bits_obj *)obj));
}

static PyObject *bits_size(PyObject *obj, void *c) {
    (void)c;
    rt_bits_obj *self = (rt_bits_obj *)obj;
    return PyLong_FromSsize_t((PyBytes_GET_SIZE(self->data) - 1) * 8 + self->bits);
}

static PyGetSetDef bits_fields[] = {
    {"data", get_object, NULL, "The bytes; unused low bits of the last are 0.",
     AT(rt_bits_obj, data)},
    {"bits", get_int, NULL, "Bits used in the last byte, 1 to 7.", AT(rt_bits_obj, bits)},
    {"bit_size", bits_size, NULL, "Length in bits.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
static PyMethodDef bits_methods[] = {{"__reduce__", bits_reduce, METH_NOARGS, NULL},
                                     {NULL, NULL, 0, NULL}};
static PyType_Slot bits_slots[] = {
    {Py_tp_doc, (void *)"BitString(data, bits)\n--\n\n"
     "A run of bits that does not end on a byte: bits (1 to 7) of the last byte\n"
     "of data count, from its high end."},
    {Py_tp_new, bits_tp_new},
    {Py_tp_dealloc, bits_dealloc},
    {Py_tp_hash, bits_hash},
    {Py_tp_richcompare, bits_richcompare},
    {Py_tp_repr, bits_repr},
    {Py_tp_methods, bits_methods},
    {Py_tp_getset, bits_fields},
    {0, NULL},
};
static PyType_Spec bits_spec = {
    .name = "router.etf.BitString",
    .basicsize = sizeof(rt_bits_obj),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = bits_slots,
};

/* Fun: 112, size:32, arity:8, uniq:16 bytes, index:32, free count:32, ... */

#define FUN_ARITY 5
#define FUN_UNIQ 6
#define FUN_INDEX 22
#define FUN_FREE 26

static const uint8_t *fun_raw(const rt_fun_obj *self) {
    return (const uint8_t *)PyBytes_AS_STRING(self->raw);
}

PyObject *rt_py_fun_new(const uint8_t *p, size_t n, size_t free_at, PyObject *module,
                        PyObject *pid, PyObject *old_index, PyObject *old_uniq) {
    PyObject *raw = PyBytes_FromStringAndSize((const char *)p, (Py_ssize_t)n);
    rt_fun_obj *self = raw ? PyObject_New(rt_fun_obj, rt_py_st->fun) : NULL;
    if (!self) {
        Py_XDECREF(raw);
        return NULL;
    }
    self->raw = raw;
    self->free_at = free_at;
    self->module = Py_NewRef(module);
    self->pid = Py_NewRef(pid);
    self->old_index = Py_NewRef(old_index);
    self->old_uniq = Py_NewRef(old_uniq);
    return (PyObject *)self;
}

/* Fun(raw): decodes the bytes, so only what a peer could send can be made. */
static PyObject *fun_tp_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    (void)type;
    static char *names[] = {"raw", NULL};
    Py_buffer view;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "y*:Fun", names, &view)) return NULL;
    size_t used = 0;
    PyObject *self = rt_py_decode_at((rt_codec *)rt_py_st->codec_default, view.buf, view.buf,
                                     (size_t)view.len, &used, NULL);
    if (self && (!Py_IS_TYPE(self, rt_py_st->fun) || used != (size_t)view.len)) {
        Py_CLEAR(self);
        PyErr_SetString(PyExc_ValueError, "raw is not the external form of a fun");
    }
    PyBuffer_Release(&view);
    return self;
}

static void fun_dealloc(PyObject *obj) {
    rt_fun_obj *self = (rt_fun_obj *)obj;
    PyTypeObject *type = Py_TYPE(obj);
    Py_XDECREF(self->raw);
    Py_XDECREF(self->module);
    Py_XDECREF(self->pid);
    Py_XDECREF(self->old_index);
    Py_XDECREF(self->old_uniq);
    type->tp_free(obj);
    Py_DECREF(type);
}

/* Who made a fun is no part of what it is; all else is. */
static PyObject *fun_key(rt_fun_obj *self) {
    const uint8_t *p = fun_raw(self);
    return Py_BuildValue("OOOy#y#", self->module, self->old_index, self->old_uniq,
                         (const char *)p + FUN_ARITY, (Py_ssize_t)(FUN_FREE + 4 - FUN_ARITY),
                         (const char *)p + self->free_at,
                         PyBytes_GET_SIZE(self->raw) - (Py_ssize_t)self->free_at);
}

static PyObject *fun_richcompare(PyObject *a, PyObject *b, int op) {
    if (Py_TYPE(a) != Py_TYPE(b)) Py_RETURN_NOTIMPLEMENTED;
    if (op != Py_EQ && op != Py_NE) return rt_py_order(a, b, op);
    return compare_and_drop(fun_key((rt_fun_obj *)a), fun_key((rt_fun_obj *)b), op);
}

static Py_hash_t fun_hash(PyObject *obj) {
    return hash_and_drop(fun_key((rt_fun_obj *)obj));
}

static PyObject *fun_repr(PyObject *obj) {
    rt_fun_obj *self = (rt_fun_obj *)obj;
    return PyUnicode_FromFormat("#Fun<%U.%S.%S>", self->module, self->old_index, self->old_uniq);
}

static PyObject *fun_reduce(PyObject *obj, PyObject *unused) {
    (void)unused;
    return Py_BuildValue("O(O)", Py_TYPE(obj), ((rt_fun_obj *)obj)->raw);
}

static PyObject *fun_arity(PyObject *obj, void *c) {
    (void)c;
    return PyLong_FromLong(fun_raw((rt_fun_obj *)obj)[FUN_ARITY]);
}

static PyObject *fun_index(PyObject *obj, void *c) {
    (void)c;
    return PyLong_FromUnsignedLong(rt_load_u32(fun_raw((rt_fun_obj *)obj) + FUN_INDEX));
}

static PyObject *fun_uniq(PyObject *obj, void *c) {
    (void)c;
    return PyBytes_FromStringAndSize((const char *)fun_raw((rt_fun_obj *)obj) + FUN_UNIQ, 16);
}

static PyObject *fun_free(PyObject *obj, void *c) {
    (void)c;
    rt_fun_obj *self = (rt_fun_obj *)obj;
    const uint8_t *p = fun_raw(self);
    size_t at = self->free_at, n = (size_t)PyBytes_GET_SIZE(self->raw);
    uint32_t count = rt_load_u32(p + FUN_FREE);
    PyObject *out = PyList_New(0);
    for (uint32_t i = 0; out && i < count; i++) {
        size_t used = 0;
        PyObject *v = rt_py_decode_at((rt_codec *)rt_py_st->codec_default, p, p + at, n - at,
                                      &used, NULL);
        if (!v || PyList_Append(out, v) < 0) Py_CLEAR(out);
        Py_XDECREF(v);
        at += used;
    }
    if (!out) return NULL;
    PyObject *tuple = PyList_AsTuple(out);
    Py_DECREF(out);
    return tuple;
}

static PyGetSetDef fun_fields[] = {
    {"module", get_object, NULL, "Atom: the module that defines it.", AT(rt_fun_obj, module)},
    {"arity", fun_arity, NULL, "Number of arguments.", NULL},
    {"index", fun_index, NULL, "Its number within the module.", NULL},
    {"uniq", fun_uniq, NULL, "16 bytes: a digest of the module's code.", NULL},
    {"old_index", get_object, NULL, "Number within the module, old form.",
     AT(rt_fun_obj, old_index)},
    {"old_uniq", get_object, NULL, "Digest, old form.", AT(rt_fun_obj, old_uniq)},
    {"pid", get_object, NULL, "Pid of the process that made it.", AT(rt_fun_obj, pid)},
    {"free_vars", fun_free, NULL, "Tuple of the terms it closes over, decoded now.", NULL},
    {"raw", get_object, NULL, "Its external form.", AT(rt_fun_obj, raw)},
    {NULL, NULL, NULL, NULL, NULL},
};
static PyMethodDef fun_methods[] = {{"__reduce__", fun_reduce, METH_NOARGS, NULL},
                                    {NULL, NULL, 0, NULL}};
static PyType_Slot fun_slots[] = {
    {Py_tp_doc, (void *)"Fun(raw)\n--\n\n"
     "An Erlang fun. It cannot be called here; it can be kept and sent back."},
    {Py_tp_new, fun_tp_new},
    {Py_tp_dealloc, fun_dealloc},
    {Py_tp_hash, fun_hash},
    {Py_tp_richcompare, fun_richcompare},
    {Py_tp_repr, fun_repr},
    {Py_tp_methods, fun_methods},
    {Py_tp_getset, fun_fields},
    {0, NULL},
};
static PyType_Spec fun_spec = {
    .name = "router.etf.Fun",
    .basicsize = sizeof(rt_fun_obj),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = fun_slots,
};

int rt_py_types_init(rt_py_state *st) {
    static const char *const export_match[] = {"module", "function", "arity", NULL};
    static const char *const bits_match[] = {"data", "bits", NULL};
    static const char *const fun_match[] = {"module", "arity", NULL};
    st->export = rt_py_type(&export_spec, NULL, export_match);
    st->bits = rt_py_type(&bits_spec, NULL, bits_match);
    st->fun = rt_py_type(&fun_spec, NULL, fun_match);
    return st->export && st->bits && st->fun ? 0 : -1;
}
