#include "python/terms.h"

/* ImproperList and FrozenList both hold a tuple of items. */

PyObject *rt_py_improper_new(PyObject *items, PyObject *tail) {
    rt_improper_obj *self = PyObject_GC_New(rt_improper_obj, rt_py_st->improper);
    if (!self) return NULL;
    self->items = Py_NewRef(items);
    self->tail = Py_NewRef(tail);
    PyObject_GC_Track(self);
    return (PyObject *)self;
}

PyObject *rt_py_frozen_new(PyObject *items) {
    rt_frozen_obj *self = PyObject_GC_New(rt_frozen_obj, rt_py_st->frozen);
    if (!self) return NULL;
    self->items = Py_NewRef(items);
    PyObject_GC_Track(self);
    return (PyObject *)self;
}

static PyObject *improper_tp_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    (void)type;
    static char *names[] = {"items", "tail", NULL};
    PyObject *items, *tail, *self = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO:ImproperList", names, &items, &tail))
        return NULL;
    PyObject *tuple = PySequence_Tuple(items);
    if (!tuple) return NULL;
    if (PyList_Check(tail) || Py_IS_TYPE(tail, rt_py_st->frozen) ||
        Py_IS_TYPE(tail, rt_py_st->improper))
        PyErr_SetString(PyExc_ValueError, "the tail of an ImproperList is not a list");
    else if (!PyTuple_GET_SIZE(tuple))
        PyErr_SetString(PyExc_ValueError, "an ImproperList has at least one item");
    else
        self = rt_py_improper_new(tuple, tail);
    Py_DECREF(tuple);
    return self;
}

static PyObject *frozen_tp_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    (void)type;
    static char *names[] = {"items", NULL};
    PyObject *items = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:FrozenList", names, &items)) return NULL;
    PyObject *tuple = items ? PySequence_Tuple(items) : PyTuple_New(0);
    PyObject *self = tuple ? rt_py_frozen_new(tuple) : NULL;
    Py_XDECREF(tuple);
    return self;
}

static int improper_traverse(PyObject *obj, visitproc visit, void *arg) {
    rt_improper_obj *self = (rt_improper_obj *)obj;
    Py_VISIT(Py_TYPE(obj));
    Py_VISIT(self->items);
    Py_VISIT(self->tail);
    return 0;
}

static int frozen_traverse(PyObject *obj, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(obj));
    Py_VISIT(((rt_frozen_obj *)obj)->items);
    return 0;
}

/* Nesting can be deep, so freeing goes through the trashcan. */
static void improper_dealloc(PyObject *obj) {
    rt_improper_obj *self = (rt_improper_obj *)obj;
    PyTypeObject *type = Py_TYPE(obj);
    PyObject_GC_UnTrack(obj);
    Py_TRASHCAN_BEGIN(obj, improper_dealloc)
    Py_XDECREF(self->items);
    Py_XDECREF(self->tail);
    type->tp_free(obj);
    Py_DECREF(type);
    Py_TRASHCAN_END
}

static void frozen_dealloc(PyObject *obj) {
    PyTypeObject *type = Py_TYPE(obj);
    PyObject_GC_UnTrack(obj);
    Py_TRASHCAN_BEGIN(obj, frozen_dealloc)
    Py_XDECREF(((rt_frozen_obj *)obj)->items);
    type->tp_free(obj);
    Py_DECREF(type);
    Py_TRASHCAN_END
}

static Py_hash_t hash_of(PyObject *items, PyObject *tail, Py_hash_t salt) {
    if (Py_EnterRecursiveCall(" while hashing a term")) return -1;
    Py_hash_t h = PyObject_Hash(items), t = 0;
    if (h != -1 && tail) t = PyObject_Hash(tail);
    Py_LeaveRecursiveCall();
    if (h == -1 || t == -1) return -1;
    h = (Py_hash_t)((Py_uhash_t)h * 1000003u ^ (Py_uhash_t)t ^ (Py_uhash_t)salt);
    return h == -1 ? -2 : h;
}

static Py_hash_t improper_hash(PyObject *obj) {
    rt_improper_obj *self = (rt_improper_obj *)obj;
    return hash_of(self->items, self->tail, 0x1d7);
}

static Py_hash_t frozen_hash(PyObject *obj) {
    return hash_of(((rt_frozen_obj *)obj)->items, NULL, 0x2f5);
}

static PyObject *improper_richcompare(PyObject *a, PyObject *b, int op) {
    if (Py_TYPE(a) != Py_TYPE(b)) Py_RETURN_NOTIMPLEMENTED;
    if (op != Py_EQ && op != Py_NE) return rt_py_order(a, b, op);
    rt_improper_obj *x = (rt_improper_obj *)a, *y = (rt_improper_obj *)b;
    int same = PyObject_RichCompareBool(x->items, y->items, Py_EQ);
    if (same > 0) same = PyObject_RichCompareBool(x->tail, y->tail, Py_EQ);
    if (same < 0) return NULL;
    return PyBool_FromLong(same == (op == Py_EQ));
}

/* Equal to a list of the same items too: a list has no hash to disagree with. */
static PyObject *frozen_richcompare(PyObject *a, PyObject *b, int op) {
    if (!Py_IS_TYPE(b, rt_py_st->frozen) && !PyList_Check(b)) Py_RETURN_NOTIMPLEMENTED;
    if (op != Py_EQ && op != Py_NE) return rt_py_order(a, b, op);
    PyObject *x = ((rt_frozen_obj *)a)->items;
    PyObject *y = PySequence_Tuple(PyList_Check(b) ? b : ((rt_frozen_obj *)b)->items);
    PyObject *r = y ? PyObject_RichCompare(x, y, op) : NULL;
    Py_XDECREF(y);
    return r;
}

static PyObject *improper_repr(PyObject *obj) {
    rt_improper_obj *self = (rt_improper_obj *)obj;
    if (Py_EnterRecursiveCall(" in the repr of a term")) return NULL;
    PyObject *list = PySequence_List(self->items);
    PyObject *out = list ? PyUnicode_FromFormat("ImproperList(%R, %R)", list, self->tail) : NULL;
    Py_XDECREF(list);
    Py_LeaveRecursiveCall();
    return out;
}

static PyObject *frozen_repr(PyObject *obj) {
    if (Py_EnterRecursiveCall(" in the repr of a term")) return NULL;
    PyObject *list = PySequence_List(((rt_frozen_obj *)obj)->items);
    PyObject *out = list ? PyUnicode_FromFormat("FrozenList(%R)", list) : NULL;
    Py_XDECREF(list);
    Py_LeaveRecursiveCall();
    return out;
}

static PyObject *improper_reduce(PyObject *obj, PyObject *unused) {
    (void)unused;
    rt_improper_obj *self = (rt_improper_obj *)obj;
    return Py_BuildValue("O(OO)", Py_TYPE(obj), self->items, self->tail);
}

static PyObject *frozen_reduce(PyObject *obj, PyObject *unused) {
    (void)unused;
    return Py_BuildValue("O(O)", Py_TYPE(obj), ((rt_frozen_obj *)obj)->items);
}

static Py_ssize_t frozen_length(PyObject *obj) {
    return PyTuple_GET_SIZE(((rt_frozen_obj *)obj)->items);
}

static PyObject *frozen_item(PyObject *obj, Py_ssize_t i) {
    return PySequence_GetItem(((rt_frozen_obj *)obj)->items, i);
}

static PyObject *frozen_subscript(PyObject *obj, PyObject *key) {
    return PyObject_GetItem(((rt_frozen_obj *)obj)->items, key);
}

static PyObject *frozen_iter(PyObject *obj) {
    return PyObject_GetIter(((rt_frozen_obj *)obj)->items);
}

static int frozen_contains(PyObject *obj, PyObject *value) {
    return PySequence_Contains(((rt_frozen_obj *)obj)->items, value);
}

static PyObject *get_object(PyObject *self, void *offset) {
    return Py_NewRef(*(PyObject **)((char *)self + (intptr_t)offset));
}

static PyGetSetDef improper_fields[] = {
    {"items", get_object, NULL, "Tuple of the items before the tail.",
     (void *)offsetof(rt_improper_obj, items)},
    {"tail", get_object, NULL, "What stands after the bar.",
     (void *)offsetof(rt_improper_obj, tail)},
    {NULL, NULL, NULL, NULL, NULL},
};
static PyMethodDef improper_methods[] = {{"__reduce__", improper_reduce, METH_NOARGS, NULL},
                                         {NULL, NULL, 0, NULL}};
static PyType_Slot improper_slots[] = {
    {Py_tp_doc, (void *)"ImproperList(items, tail)\n--\n\n"
     "A list whose last tail is no list: Erlang's [a, b | c]."},
    {Py_tp_new, improper_tp_new},
    {Py_tp_dealloc, improper_dealloc},
    {Py_tp_traverse, improper_traverse},
    {Py_tp_hash, improper_hash},
    {Py_tp_richcompare, improper_richcompare},
    {Py_tp_repr, improper_repr},
    {Py_tp_methods, improper_methods},
    {Py_tp_getset, improper_fields},
    {0, NULL},
};
static PyType_Spec improper_spec = {
    .name = "router.etf.ImproperList",
    .basicsize = sizeof(rt_improper_obj),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = improper_slots,
};

static PyMethodDef frozen_methods[] = {{"__reduce__", frozen_reduce, METH_NOARGS, NULL},
                                       {NULL, NULL, 0, NULL}};
static PyType_Slot frozen_slots[] = {
    {Py_tp_doc, (void *)"FrozenList(items=())\n--\n\n"
     "A list inside a map key: hashable, equal to a list of the same items."},
    {Py_tp_new, frozen_tp_new},
    {Py_tp_dealloc, frozen_dealloc},
    {Py_tp_traverse, frozen_traverse},
    {Py_tp_hash, frozen_hash},
    {Py_tp_richcompare, frozen_richcompare},
    {Py_tp_repr, frozen_repr},
    {Py_tp_iter, frozen_iter},
    {Py_sq_length, frozen_length},
    {Py_sq_item, frozen_item},
    {Py_sq_contains, frozen_contains},
    {Py_mp_length, frozen_length},
    {Py_mp_subscript, frozen_subscript},
    {Py_tp_methods, frozen_methods},
    {0, NULL},
};
static PyType_Spec frozen_spec = {
    .name = "router.etf.FrozenList",
    .basicsize = sizeof(rt_frozen_obj),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_SEQUENCE,
    .slots = frozen_slots,
};

int rt_py_lists_init(rt_py_state *st) {
    static const char *const match[] = {"items", "tail", NULL};
    st->improper = rt_py_type(&improper_spec, NULL, match);
    st->frozen = rt_py_type(&frozen_spec, NULL, NULL);
    return st->improper && st->frozen ? 0 : -1;
}
