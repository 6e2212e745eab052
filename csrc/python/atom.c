#include "python/atom.h"

#include "base/alloc.h"
#include "base/hash.h"
#include "base/limits.h"
#include "python/codec.h"
#include "python/terms.h"

static uint8_t special_of(const uint8_t *p, size_t n) {
    if (n == 4 && memcmp(p, "true", 4) == 0) return RT_ATOM_TRUE;
    if (n == 5 && memcmp(p, "false", 5) == 0) return RT_ATOM_FALSE;
    if (n == 3 && memcmp(p, "nil", 3) == 0) return RT_ATOM_NIL;
    if (n == 9 && memcmp(p, "undefined", 9) == 0) return RT_ATOM_UNDEFINED;
    return RT_ATOM_PLAIN;
}

/* Doubles the table; staying small is slower but right, so failure is no error. */
static void table_grow(rt_py_state *st) {
    size_t mask = st->bucket_mask * 2 + 1;
    rt_atom_obj **bucket = rt_calloc(mask + 1, sizeof *bucket);
    if (!bucket) return;
    for (size_t i = 0; i <= st->bucket_mask; i++) {
        for (rt_atom_obj *a = st->bucket[i], *next; a; a = next) {
            next = a->next;
            a->next = bucket[a->hash & mask];
            bucket[a->hash & mask] = a;
        }
    }
    rt_free(st->bucket);
    st->bucket = bucket;
    st->bucket_mask = mask;
}

static rt_atom_obj *table_find(rt_py_state *st, const uint8_t *p, size_t n, uint64_t hash) {
    for (rt_atom_obj *a = st->bucket[hash & st->bucket_mask]; a; a = a->next)
        if (a->hash == hash && (size_t)(a->ext_n - a->name_at) == n &&
            memcmp(a->ext + a->name_at, p, n) == 0)
            return a;
    return NULL;
}

static void table_remove(rt_py_state *st, rt_atom_obj *atom) {
    rt_atom_obj **at = &st->bucket[atom->hash & st->bucket_mask];
    while (*at && *at != atom) at = &(*at)->next;
    if (!*at) return;
    *at = atom->next;
    st->atoms--;
}

static int fill_ext(rt_atom_obj *a, const uint8_t *p, size_t n) {
    size_t head = n < 256 ? 2 : 3;
    a->ext = head + n <= sizeof a->in_place ? a->in_place : rt_malloc(head + n);
    if (!a->ext) {
        PyErr_NoMemory();
        return -1;
    }
    a->ext[0] = n < 256 ? RT_TAG_SMALL_ATOM_UTF8 : RT_TAG_ATOM_UTF8;
    if (n >= 256) a->ext[1] = (uint8_t)(n >> 8);
    a->ext[head - 1] = (uint8_t)n;
    if (n) memcpy(a->ext + head, p, n);
    a->ext_n = (uint16_t)(head + n);
    a->name_at = (uint8_t)head;
    return 0;
}

/* `text` is an exact str whose UTF-8 form is p, n. */
static PyObject *atom_make(rt_py_state *st, PyObject *text, const uint8_t *p, size_t n,
                           uint64_t hash) {
    if (PyUnicode_GET_LENGTH(text) > (Py_ssize_t)RT_ATOM_CHARS_MAX) {
        PyErr_Format(PyExc_ValueError, "an atom has at most 255 characters, not %zd",
                     PyUnicode_GET_LENGTH(text));
        return NULL;
    }
    PyObject *args = PyTuple_Pack(1, text);
    if (!args) return NULL;
    PyObject *obj = PyUnicode_Type.tp_new(st->atom, args, NULL);
    Py_DECREF(args);
    if (!obj) return NULL;
    rt_atom_obj *a = (rt_atom_obj *)obj;
    if (fill_ext(a, p, n) < 0 || PyObject_Hash(obj) == -1) {
        Py_DECREF(obj);
        return NULL;
    }
    a->special = special_of(p, n);
    a->hash = hash;
    if (st->atoms > st->bucket_mask) table_grow(st);
    a->next = st->bucket[hash & st->bucket_mask];
    st->bucket[hash & st->bucket_mask] = a;
    st->atoms++;
    return obj;
}

static PyObject *lookup(const uint8_t *utf8, size_t n, PyObject *text, bool known) {
    rt_py_state *st = rt_py_st;
    size_t slot;
    rt_atom_obj *recent = rt_py_atom_recent(st, utf8, n, &slot);
    if (recent) return Py_NewRef((PyObject *)recent);
    uint64_t hash = rt_hash_bytes(utf8, n, st->seed);
    PyObject *found = Py_XNewRef((PyObject *)table_find(st, utf8, n, hash));
    if (!found && known) return NULL;
    if (!found) {
        PyObject *own = text ? Py_NewRef(text)
                             : PyUnicode_DecodeUTF8((const char *)utf8, (Py_ssize_t)n, NULL);
        if (!own) return NULL;
        found = atom_make(st, own, utf8, n, hash);
        Py_DECREF(own);
        if (!found) return NULL;
    }
    /* The atom that leaves the cache is freed last: freeing touches the table. */
    rt_atom_obj *old = st->atom_cache[slot];
    st->atom_cache[slot] = (rt_atom_obj *)Py_NewRef(found);
    Py_XDECREF((PyObject *)old);
    return found;
}

PyObject *rt_py_atom_get(const uint8_t *utf8, size_t n, bool known) {
    return lookup(utf8, n, NULL, known);
}

PyObject *rt_py_atom(const uint8_t *utf8, size_t n) {
    return lookup(utf8, n, NULL, false);
}

PyObject *rt_py_atom_from(PyObject *str) {
    if (Py_IS_TYPE(str, rt_py_st->atom)) return Py_NewRef(str);
    if (!PyUnicode_Check(str)) {
        PyErr_Format(PyExc_TypeError, "an atom is made from str, not %.100s",
                     Py_TYPE(str)->tp_name);
        return NULL;
    }
    /* A length check before UTF-8 is made of something huge. */
    if (PyUnicode_GET_LENGTH(str) > (Py_ssize_t)RT_ATOM_CHARS_MAX) {
        PyErr_Format(PyExc_ValueError, "an atom has at most 255 characters, not %zd",
                     PyUnicode_GET_LENGTH(str));
        return NULL;
    }
    PyObject *exact = PyUnicode_FromObject(str);
    if (!exact) return NULL;
    Py_ssize_t n;
    const char *utf8 = PyUnicode_AsUTF8AndSize(exact, &n);
    PyObject *atom = utf8 ? lookup((const uint8_t *)utf8, (size_t)n, exact, false) : NULL;
    Py_DECREF(exact);
    return atom;
}

static PyObject *atom_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    (void)type;
    PyObject *name;
    if (kwargs && PyDict_GET_SIZE(kwargs)) {
        PyErr_SetString(PyExc_TypeError, "Atom() takes no keyword arguments");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "O:Atom", &name)) return NULL;
    return rt_py_atom_from(name);
}

static void atom_dealloc(PyObject *self) {
    rt_atom_obj *a = (rt_atom_obj *)self;
    PyTypeObject *type = Py_TYPE(self);
    if (a->ext) {
        if (rt_py_st) table_remove(rt_py_st, a);
        if (a->ext != a->in_place) rt_free(a->ext);
        a->ext = NULL;
    }
    PyUnicode_Type.tp_dealloc(self);
    Py_DECREF(type);
}

static PyObject *atom_repr(PyObject *self) {
    PyObject *text = PyUnicode_Type.tp_repr(self);
    PyObject *out = text ? PyUnicode_FromFormat("Atom(%U)", text) : NULL;
    Py_XDECREF(text);
    return out;
}

static PyObject *atom_reduce(PyObject *self, PyObject *unused) {
    (void)unused;
    PyObject *text = PyObject_Str(self);
    PyObject *out = text ? Py_BuildValue("O(O)", Py_TYPE(self), text) : NULL;
    Py_XDECREF(text);
    return out;
}

static PyObject *atom_self(PyObject *self, PyObject *unused) {
    (void)unused;
    return Py_NewRef(self);
}

static PyMethodDef atom_methods[] = {
    {"__reduce__", atom_reduce, METH_NOARGS, NULL},
    {"__copy__", atom_self, METH_NOARGS, NULL},
    {"__deepcopy__", atom_self, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot atom_slots[] = {
    {Py_tp_doc, (void *)"Atom(name)\n--\n\n"
     "An Erlang atom: a str that encodes to an atom, one object per name.\n\n"
     "At most 255 characters, else ValueError. String methods give a plain str,\n"
     "which encodes to a binary."},
    {Py_tp_new, atom_new},
    {Py_tp_dealloc, atom_dealloc},
    {Py_tp_repr, atom_repr},
    {Py_tp_methods, atom_methods},
    {0, NULL},
};

static PyType_Spec atom_spec = {
    .name = "router.etf.Atom",
    .basicsize = sizeof(rt_atom_obj),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = atom_slots,
};

int rt_py_atom_init(rt_py_state *st) {
    st->atom = rt_py_type(&atom_spec, &PyUnicode_Type, NULL);
    return st->atom ? 0 : -1;
}

int rt_py_is_atom(PyObject *obj) {
    return Py_IS_TYPE(obj, rt_py_st->atom);
}

rt_slice rt_py_atom_name(PyObject *atom) {
    rt_atom_obj *a = (rt_atom_obj *)atom;
    return rt_slice_of(a->ext + a->name_at, (size_t)(a->ext_n - a->name_at));
}
