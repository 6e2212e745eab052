#include "base/hash.h"
#include "python/enc.h"

/* A Map keeps its pairs in a dict under the canonical bytes of their keys, so
 * two keys are the same exactly when Erlang says so. */

PyObject *rt_py_map_new(void) {
    PyObject *pairs = PyDict_New();
    rt_map_obj *self = pairs ? PyObject_GC_New(rt_map_obj, rt_py_st->map) : NULL;
    if (!self) {
        Py_XDECREF(pairs);
        return NULL;
    }
    self->pairs = pairs;
    PyObject_GC_Track(self);
    return (PyObject *)self;
}

int rt_py_map_add(PyObject *map, PyObject *key, PyObject *value) {
    PyObject *pairs = ((rt_map_obj *)map)->pairs;
    PyObject *bytes = rt_py_canonical(key);
    PyObject *pair = bytes ? PyTuple_Pack(2, key, value) : NULL;
    int rc = -1;
    if (pair) {
        Py_ssize_t before = PyDict_GET_SIZE(pairs);
        if (PyDict_SetDefault(pairs, bytes, pair)) rc = PyDict_GET_SIZE(pairs) == before;
    }
    Py_XDECREF(pair);
    Py_XDECREF(bytes);
    return rc;
}

int rt_enc_sort_pairs(rt_enc *e, rt_enc_frame *f) {
    size_t n = (size_t)f->n, from = f->at[0], used = (size_t)(e->w - e->base);
    f->at[n] = used;
    PyObject *list = PyList_New((Py_ssize_t)n);
    int rc = -1;
    if (!list) return -1;
    /* A key's bytes never are the beginning of another's, so whole pairs sort
     * as their keys do. */
    for (size_t i = 0; i < n; i++) {
        PyObject *pair = PyBytes_FromStringAndSize((char *)e->base + f->at[i],
                                                   (Py_ssize_t)(f->at[i + 1] - f->at[i]));
        if (!pair) goto done;
        PyList_SET_ITEM(list, (Py_ssize_t)i, pair);
    }
    if (PyList_Sort(list) < 0) goto done;
    uint8_t *w = e->base + from;
    for (size_t i = 0; i < n; i++) {
        PyObject *pair = PyList_GET_ITEM(list, (Py_ssize_t)i);
        memcpy(w, PyBytes_AS_STRING(pair), (size_t)PyBytes_GET_SIZE(pair));
        w += PyBytes_GET_SIZE(pair);
    }
    rc = 0;
done:
    Py_DECREF(list);
    return rc;
}

/* Python tells keys apart that may be one term in Erlang: a str and the bytes of its text,
 * None and an atom. Keys of one kind, or of kinds that never meet, need no looking at. */
enum { STR = 1, BYTES = 2, ATOM = 4, CONST = 8, OTHER = 16 };

static unsigned kind_of(const rt_py_state *st, PyTypeObject *t) {
    if (t == &PyUnicode_Type) return STR;
    if (t == &PyBytes_Type) return BYTES;
    if (t == st->atom) return ATOM;
    if (t == &PyBool_Type || t == Py_TYPE(Py_None)) return CONST;
    if (t == &PyLong_Type || t == &PyFloat_Type || t == st->pid || t == st->ref) return 0;
    return OTHER;
}

static bool kinds_may_meet(unsigned kinds) {
    return (kinds & (STR | BYTES)) == (STR | BYTES) ||
           ((kinds & CONST) && (kinds & (ATOM | STR))) || (kinds & OTHER);
}

bool rt_enc_key_kind(rt_enc *e, rt_enc_frame *f, PyTypeObject *t) {
    f->key_kinds |= (uint8_t)kind_of(e->st, t);
    return kinds_may_meet(f->key_kinds);
}

/* The set of the keys written so far. They are of kinds that run no user's code. */
int rt_enc_begin_seen(rt_enc *e, rt_enc_frame *f) {
    PyObject *key, *value;
    Py_ssize_t at = 0;
    f->seen = PySet_New(NULL);
    if (!f->seen) return -1;
    for (Py_ssize_t i = 0; i < f->done && PyDict_Next(f->obj, &at, &key, &value); i++) {
        rt_buf b = RT_BUF_INIT;
        int rc = rt_py_encode((PyObject *)e->codec, key, &b);
        PyObject *bytes = rc < 0 ? NULL : PyBytes_FromStringAndSize((char *)b.p, (Py_ssize_t)b.n);
        rt_buf_fini(&b);
        rc = bytes ? PySet_Add(f->seen, bytes) : -1;
        Py_XDECREF(bytes);
        if (rc < 0) return -1;
    }
    return 0;
}

static int map_set(rt_map_obj *self, PyObject *key, PyObject *value) {
    PyObject *bytes = rt_py_canonical(key);
    PyObject *pair = bytes ? PyTuple_Pack(2, key, value) : NULL;
    int rc = pair ? PyObject_Hash(key) == -1 ? -1 : PyDict_SetItem(self->pairs, bytes, pair) : -1;
    Py_XDECREF(pair);
    Py_XDECREF(bytes);
    return rc;
}

static int map_fill(rt_map_obj *self, PyObject *from) {
    PyObject *items = PyObject_HasAttrString(from, "items")
                          ? PyObject_CallMethod(from, "items", NULL) : Py_NewRef(from);
    PyObject *iter = items ? PyObject_GetIter(items) : NULL;
    Py_XDECREF(items);
    if (!iter) return -1;
    int rc = 0;
    for (PyObject *pair; rc == 0 && (pair = PyIter_Next(iter));) {
        PyObject *two = PySequence_Tuple(pair);
        if (two && PyTuple_GET_SIZE(two) == 2) {
            rc = map_set(self, PyTuple_GET_ITEM(two, 0), PyTuple_GET_ITEM(two, 1));
        } else {
            if (two) PyErr_SetString(PyExc_ValueError, "Map() takes a mapping or pairs");
            rc = -1;
        }
        Py_XDECREF(two);
        Py_DECREF(pair);
    }
    Py_DECREF(iter);
    return rc < 0 || PyErr_Occurred() ? -1 : 0;
}

static PyObject *map_tp_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    (void)type;
    static char *names[] = {"items", NULL};
    PyObject *from = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:Map", names, &from)) return NULL;
    PyObject *self = rt_py_map_new();
    if (self && from && map_fill((rt_map_obj *)self, from) < 0) Py_CLEAR(self);
    return self;
}

static int map_traverse(PyObject *obj, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(obj));
    Py_VISIT(((rt_map_obj *)obj)->pairs);
    return 0;
}

static int map_clear(PyObject *obj) {
    Py_CLEAR(((rt_map_obj *)obj)->pairs);
    return 0;
}

static void map_dealloc(PyObject *obj) {
    PyTypeObject *type = Py_TYPE(obj);
    PyObject_GC_UnTrack(obj);
    Py_TRASHCAN_BEGIN(obj, map_dealloc)
    Py_XDECREF(((rt_map_obj *)obj)->pairs);
    type->tp_free(obj);
    Py_DECREF(type);
    Py_TRASHCAN_END
}

/* The pair under a key, borrowed; NULL without an exception when missing. */
static PyObject *find(PyObject *obj, PyObject *key) {
    PyObject *bytes = rt_py_canonical(key);
    if (!bytes) {
        /* What cannot be a term is in no map. */
        if (PyErr_ExceptionMatches(rt_py_st->encode_error)) PyErr_Clear();
        return NULL;
    }
    PyObject *pair = PyDict_GetItemWithError(((rt_map_obj *)obj)->pairs, bytes);
    Py_DECREF(bytes);
    return pair;
}

static PyObject *map_subscript(PyObject *obj, PyObject *key) {
    PyObject *pair = find(obj, key);
    if (pair) return Py_NewRef(PyTuple_GET_ITEM(pair, 1));
    if (!PyErr_Occurred()) PyErr_SetObject(PyExc_KeyError, key);
    return NULL;
}

static PyObject *map_get(PyObject *obj, PyObject *const *args, Py_ssize_t n) {
    if (n < 1 || n > 2) {
        PyErr_SetString(PyExc_TypeError, "get() takes a key and an optional default");
        return NULL;
    }
    PyObject *pair = find(obj, args[0]);
    if (pair) return Py_NewRef(PyTuple_GET_ITEM(pair, 1));
    if (PyErr_Occurred()) return NULL;
    return Py_NewRef(n == 2 ? args[1] : Py_None);
}

static int map_contains(PyObject *obj, PyObject *key) {
    return find(obj, key) ? 1 : PyErr_Occurred() ? -1 : 0;
}

static Py_ssize_t map_length(PyObject *obj) {
    return PyDict_GET_SIZE(((rt_map_obj *)obj)->pairs);
}

static PyObject *map_list(PyObject *obj, int part) {
    PyObject *out = PyList_New(0), *bytes, *pair;
    for (Py_ssize_t at = 0; out && PyDict_Next(((rt_map_obj *)obj)->pairs, &at, &bytes, &pair);)
        if (PyList_Append(out, part < 0 ? pair : PyTuple_GET_ITEM(pair, part)) < 0) Py_CLEAR(out);
    return out;
}

static PyObject *map_iter(PyObject *obj) {
    PyObject *keys = map_list(obj, 0);
    PyObject *iter = keys ? PyObject_GetIter(keys) : NULL;
    Py_XDECREF(keys);
    return iter;
}

static PyObject *view(PyObject *obj, const char *name) {
    PyObject *abc = PyImport_ImportModule("collections.abc");
    PyObject *out = abc ? PyObject_CallMethod(abc, name, "O", obj) : NULL;
    Py_XDECREF(abc);
    return out;
}

static PyObject *map_keys(PyObject *obj, PyObject *unused) {
    (void)unused;
    return view(obj, "KeysView");
}

static PyObject *map_values(PyObject *obj, PyObject *unused) {
    (void)unused;
    return view(obj, "ValuesView");
}

static PyObject *map_items(PyObject *obj, PyObject *unused) {
    (void)unused;
    return view(obj, "ItemsView");
}

/* A Map equals a Map, or a dict, of the same keys by Erlang's equality and of
 * values equal in Python. */
static PyObject *map_richcompare(PyObject *a, PyObject *b, int op) {
    bool dict = PyDict_Check(b);
    if (!dict && !Py_IS_TYPE(b, rt_py_st->map)) Py_RETURN_NOTIMPLEMENTED;
    if (op != Py_EQ && op != Py_NE) return rt_py_order(a, b, op);
    PyObject *other = dict ? PyObject_CallOneArg((PyObject *)rt_py_st->map, b) : Py_NewRef(b);
    if (!other) {
        if (!PyErr_ExceptionMatches(rt_py_st->encode_error)) return NULL;
        PyErr_Clear();
        return PyBool_FromLong(op == Py_NE);
    }
    PyObject *r = PyObject_RichCompare(((rt_map_obj *)a)->pairs, ((rt_map_obj *)other)->pairs, op);
    Py_DECREF(other);
    return r;
}

static Py_hash_t map_hash(PyObject *obj) {
    if (Py_EnterRecursiveCall(" while hashing a term")) return -1;
    Py_uhash_t h = 0x51ed27;
    PyObject *bytes, *pair;
    for (Py_ssize_t at = 0; PyDict_Next(((rt_map_obj *)obj)->pairs, &at, &bytes, &pair);) {
        Py_hash_t k = PyObject_Hash(bytes), v = PyObject_Hash(PyTuple_GET_ITEM(pair, 1));
        if (v == -1) {
            Py_LeaveRecursiveCall();
            return -1;
        }
        h ^= (Py_uhash_t)rt_hash_u64((uint64_t)k ^ ((uint64_t)v * 0x9e3779b97f4a7c15ULL));
    }
    Py_LeaveRecursiveCall();
    return (Py_hash_t)h == -1 ? -2 : (Py_hash_t)h;
}

static PyObject *map_repr(PyObject *obj) {
    if (Py_EnterRecursiveCall(" in the repr of a term")) return NULL;
    PyObject *list = map_list(obj, -1);
    PyObject *out = list ? PyUnicode_FromFormat("Map(%R)", list) : NULL;
    Py_XDECREF(list);
    Py_LeaveRecursiveCall();
    return out;
}

static PyObject *map_reduce(PyObject *obj, PyObject *unused) {
    (void)unused;
    PyObject *list = map_list(obj, -1);
    return list ? Py_BuildValue("O(N)", Py_TYPE(obj), list) : NULL;
}

static PyMethodDef map_methods[] = {
    {"get", (PyCFunction)(void (*)(void))map_get, METH_FASTCALL,
     "get($self, key, default=None, /)\n--\n\nThe value under a key, or the default."},
    {"keys", map_keys, METH_NOARGS, "keys($self, /)\n--\n\nA view of the keys."},
    {"values", map_values, METH_NOARGS, "values($self, /)\n--\n\nA view of the values."},
    {"items", map_items, METH_NOARGS, "items($self, /)\n--\n\nA view of the pairs."},
    {"__reduce__", map_reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};
static PyType_Slot map_slots[] = {
    {Py_tp_doc, (void *)"Map(items=())\n--\n\n"
     "A read-only mapping by Erlang's equality, for maps whose keys Python holds\n"
     "equal: 1, 1.0 and True; 0.0 and -0.0. Also what a map inside a map key\n"
     "becomes. Made of a mapping or of pairs; keys must be hashable terms."},
    {Py_tp_new, map_tp_new},
    {Py_tp_dealloc, map_dealloc},
    {Py_tp_traverse, map_traverse},
    {Py_tp_clear, map_clear},
    {Py_tp_hash, map_hash},
    {Py_tp_richcompare, map_richcompare},
    {Py_tp_repr, map_repr},
    {Py_tp_iter, map_iter},
    {Py_mp_length, map_length},
    {Py_mp_subscript, map_subscript},
    {Py_sq_contains, map_contains},
    {Py_tp_methods, map_methods},
    {0, NULL},
};
static PyType_Spec map_spec = {
    .name = "router.etf.Map",
    .basicsize = sizeof(rt_map_obj),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_MAPPING,
    .slots = map_slots,
};

int rt_py_map_init(rt_py_state *st) {
    st->map = rt_py_type(&map_spec, NULL, NULL);
    return st->map ? 0 : -1;
}
