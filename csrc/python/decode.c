#include "python/dec.h"

#include "base/alloc.h"
#include "base/hash.h"
#include "base/limits.h"
#include "term/inflate.h"

#define PRESIZED_MAX 1024u
#define GC_PAUSE_BYTES 256u
#define FLOAT_EXPONENT_BITS 0x7ff0000000000000ULL

enum kind { F_LIST, F_APPEND, F_TAIL, F_TUPLE, F_DICT, F_MAP };

static int stack_grow(rt_dec *d) {
    uint32_t cap = d->cap * 2;
    rt_dec_frame *own = d->stack == d->first ? NULL : d->stack;
    rt_dec_frame *bigger = rt_realloc(own, cap * sizeof *bigger);
    if (!bigger) {
        PyErr_NoMemory();
        return -1;
    }
    if (!own) memcpy(bigger, d->first, sizeof d->first);
    d->stack = bigger;
    d->cap = cap;
    return 0;
}

/* Each value takes a byte at least, and what all open containers claim together
 * must fit what is left, or nested claims would multiply memory. */
RT_INLINE bool fits(rt_dec *d, uint64_t values) {
    if (RT_LIKELY(values <= rt_cursor_left(&d->c))) return true;
    rt_dec_fail(d, d->c.p, "a container claims more elements than there are bytes");
    return false;
}

/* Promises `values` more terms. */
RT_INLINE bool promise(rt_dec *d, uint64_t values) {
    if (RT_UNLIKELY(!fits(d, d->owed + values))) return false;
    d->owed += values;
    return true;
}

/* Classes of the user's may look around meanwhile: nobody may find a container with holes. */
RT_INLINE void hide(const rt_dec *d, PyObject *obj) {
    if (RT_UNLIKELY(d->codec->from_term != NULL)) PyObject_GC_UnTrack(obj);
}
RT_INLINE void show(const rt_dec *d, PyObject *obj) {
    if (RT_UNLIKELY(d->codec->from_term != NULL)) PyObject_GC_Track(obj);
}

/* Why no further container can be opened; drops it. */
static bool too_deep(rt_dec *d, PyObject *obj) {
    if (d->above + d->depth >= d->codec->max_depth)
        rt_dec_fail(d, d->c.p, "the term is nested too deep (max_depth)");
    else
        rt_dec_fail(d, d->c.p, "a map key is nested over 256 deep");
    Py_DECREF(obj);
    return false;
}

/* Opens a container; steals obj, which may be NULL with an exception set. */
RT_INLINE bool push(rt_dec *d, PyObject *obj, uint8_t kind, uint32_t n) {
    if (RT_UNLIKELY(!obj)) return false;
    if (RT_UNLIKELY(d->above + d->depth >= d->codec->max_depth ||
                    (d->keys && d->depth - d->keys_depth >= RT_DEC_KEY_DEPTH_MAX)))
        return too_deep(d, obj);
    if (RT_UNLIKELY(d->depth == d->cap) && stack_grow(d) < 0) {
        Py_DECREF(obj);
        return false;
    }
    rt_dec_frame *f = &d->stack[d->depth++];
    f->obj = obj;
    f->key = NULL;
    f->hashes = NULL;
    f->i = 0;
    f->n = n;
    f->kind = kind;
    if (kind <= F_TUPLE) hide(d, obj);
    return true;
}

/* Gives the container to the caller and closes its frame. */
RT_INLINE PyObject *pop(rt_dec *d) {
    rt_dec_frame *f = &d->stack[--d->depth];
    if (f->kind <= F_TUPLE) show(d, f->obj);
    return f->obj;
}

RT_INLINE void key_begins(rt_dec *d) {
    if (d->keys++ == 0) d->keys_depth = d->depth;
}

/* Containers: 1 opened, 0 *out is the value, -1 exception. */

RT_INLINE int open_tuple(rt_dec *d, uint32_t n, PyObject **out) {
    if (n == 0) {
        *out = PyTuple_New(0);
        return *out ? 0 : -1;
    }
    if (!promise(d, n)) return -1;
    return push(d, PyTuple_New((Py_ssize_t)n), F_TUPLE, n) ? 1 : -1;
}

/* A dict with room for its pairs, within reason, unless they are str: Python
 * makes a smaller table of dicts that only ever had such keys. */
static PyObject *new_dict(const rt_dec *d, uint32_t n) {
    if (n <= 5 || n > PRESIZED_MAX || d->codec->binaries == RT_BINARIES_STR) return PyDict_New();
    return _PyDict_NewPresized((Py_ssize_t)n);
}

RT_INLINE int open_map(rt_dec *d, PyObject **out) {
    uint32_t n;
    if (!rt_cursor_u32(&d->c, &n)) {
        rt_dec_cut(d);
        return -1;
    }
    PyObject *map = d->keys ? rt_py_map_new() : new_dict(d, n);
    if (!map) return -1;
    if (n == 0) {
        *out = map;
        return 0;
    }
    if (!promise(d, 2 * (uint64_t)n)) {
        Py_DECREF(map);
        return -1;
    }
    return push(d, map, d->keys ? F_MAP : F_DICT, n) ? 1 : -1;
}

RT_INLINE int open_list(rt_dec *d, uint32_t n) {
    if (!promise(d, (uint64_t)n + 1)) return -1;
    return push(d, PyList_New((Py_ssize_t)n), F_LIST, n) ? 1 : -1;
}

/* Reads one value up to the point where it is whole or a container is open. */
static int value(rt_dec *d, PyObject **out) {
    uint8_t tag, n8;
    uint32_t n;
again:
    if (RT_UNLIKELY(!rt_cursor_u8(&d->c, &tag))) {
        rt_dec_cut(d);
        return -1;
    }
    switch (tag) {
    case RT_TAG_SMALL_INTEGER:
        if (RT_LIKELY(rt_cursor_u8(&d->c, &n8))) {
            *out = Py_NewRef(d->st->small[n8]);
            return 0;
        }
        *out = rt_dec_cut(d);
        break;
    case RT_TAG_INTEGER:
        if (RT_LIKELY(rt_cursor_u32(&d->c, &n))) *out = PyLong_FromLong((int32_t)n);
        else *out = rt_dec_cut(d);
        break;
    case RT_TAG_SMALL_BIG:
    case RT_TAG_LARGE_BIG: *out = rt_dec_big(d, tag); break;
    case RT_TAG_BINARY: *out = rt_dec_binary(d); break;
    case RT_TAG_SMALL_ATOM_UTF8:
    case RT_TAG_ATOM_UTF8:
    case RT_TAG_ATOM_LATIN1:
    case RT_TAG_SMALL_ATOM_LATIN1: *out = rt_dec_atom(d, tag, false); break;
    case RT_TAG_SMALL_TUPLE:
        if (RT_LIKELY(rt_cursor_u8(&d->c, &n8))) return open_tuple(d, n8, out);
        *out = rt_dec_cut(d);
        break;
    case RT_TAG_LARGE_TUPLE:
        if (rt_cursor_u32(&d->c, &n)) return open_tuple(d, n, out);
        *out = rt_dec_cut(d);
        break;
    case RT_TAG_MAP: return open_map(d, out);
    case RT_TAG_LIST:
        if (RT_UNLIKELY(!rt_cursor_u32(&d->c, &n))) {
            *out = rt_dec_cut(d);
            break;
        }
        /* An empty list with a tail is the tail. */
        if (RT_UNLIKELY(n == 0)) goto again;
        return open_list(d, n);
    case RT_TAG_NIL: {
        *out = d->keys ? PyTuple_New(0) : PyList_New(0);
        if (*out && d->keys) Py_SETREF(*out, rt_py_frozen_new(*out));
        break;
    }
    case RT_TAG_STRING: *out = rt_dec_string(d); break;
    case RT_TAG_NEW_FLOAT:
    case RT_TAG_FLOAT: *out = rt_dec_float(d, tag); break;
    case RT_TAG_NEW_PID:
    case RT_TAG_PID:
    case RT_TAG_NEWER_REFERENCE:
    case RT_TAG_NEW_REFERENCE:
    case RT_TAG_REFERENCE:
    case RT_TAG_V4_PORT:
    case RT_TAG_NEW_PORT:
    case RT_TAG_PORT: *out = rt_dec_ident(d, tag); break;
    case RT_TAG_BIT_BINARY: *out = rt_dec_bits(d); break;
    case RT_TAG_EXPORT: *out = rt_dec_export(d); break;
    case RT_TAG_NEW_FUN: *out = rt_dec_fun(d); break;
    case RT_TAG_COMPRESSED:
        *out = rt_dec_fail(d, d->c.p - 1, "a compressed term inside another one");
        break;
    case RT_TAG_ATOM_CACHE_REF:
        *out = rt_dec_fail(d, d->c.p - 1, "an atom cache reference outside of a frame");
        break;
    case RT_TAG_NATIVE_RECORD:
    case RT_TAG_LOCAL:
        *out = rt_dec_fail(d, d->c.p - 1, "a kind of term that only its own node understands");
        break;
    default: *out = rt_dec_fail(d, d->c.p - 1, "an unknown tag"); break;
    }
    return *out ? 0 : -1;
}

/* Delivering values into the open container. Each returns 1 when the container
 * waits for more, 0 when *v has become the finished container, -1. */

static int finish_list(rt_dec *d, PyObject **v) {
    PyObject *list = pop(d);
    if (d->keys) {
        PyObject *items = PyList_AsTuple(list);
        Py_DECREF(list);
        list = items ? rt_py_frozen_new(items) : NULL;
        Py_XDECREF(items);
    }
    *v = list;
    return list ? 0 : -1;
}

/* After the last element: the usual end is NIL; a list as tail goes on in the
 * same container; anything else makes it improper. */
static int list_tail(rt_dec *d, rt_dec_frame *f, PyObject **v) {
    while (rt_cursor_left(&d->c)) {
        uint8_t tag = *d->c.p;
        uint32_t n;
        if (RT_LIKELY(tag == RT_TAG_NIL)) {
            d->c.p++;
            d->owed--;
            return finish_list(d, v);
        }
        if (tag == RT_TAG_LIST) {
            d->c.p++;
            if (!rt_cursor_u32(&d->c, &n)) break;
            if (n == 0) continue;
            if (!promise(d, n)) return -1;
            f->kind = F_APPEND;
            f->i = 0;
            f->n = n;
            return 1;
        }
        if (tag == RT_TAG_STRING) {
            uint16_t count;
            rt_slice data;
            d->c.p++;
            if (!rt_cursor_u16(&d->c, &count) || !rt_cursor_take(&d->c, count, &data)) break;
            for (size_t i = 0; i < count; i++) {
                if (PyList_Append(f->obj, d->st->small[data.p[i]]) < 0) return -1;
            }
            d->owed--;
            return finish_list(d, v);
        }
        f->kind = F_TAIL;
        return 1;
    }
    rt_dec_cut(d);
    return -1;
}

static int finish_improper(rt_dec *d, PyObject **v) {
    PyObject *tail = *v, *list = pop(d);
    PyObject *items = PyList_AsTuple(list);
    *v = items ? rt_py_improper_new(items, tail) : NULL;
    Py_XDECREF(items);
    Py_DECREF(list);
    Py_DECREF(tail);
    return *v ? 0 : -1;
}

static int twice(rt_dec *d) {
    rt_dec_fail(d, d->c.p, "a map has the same key twice");
    return -1;
}

/* Python holds two keys equal: go on as a Map, if Erlang tells them apart. */
static int become_map(rt_dec *d, rt_dec_frame *f, PyObject *key, PyObject *val) {
    PyObject *map = rt_py_map_new(), *k, *v;
    int rc = map ? 0 : -1;
    for (Py_ssize_t at = 0; rc == 0 && PyDict_Next(f->obj, &at, &k, &v);)
        rc = rt_py_map_add(map, k, v);
    if (rc == 0) rc = rt_py_map_add(map, key, val);
    if (rc != 0) {
        Py_XDECREF(map);
        return rc > 0 ? twice(d) : -1;
    }
    Py_SETREF(f->obj, map);
    f->kind = F_MAP;
    return 0;
}

/* Python's hash of integers and of tuples is the same everywhere, so a peer can
 * choose thousands of keys of one hash, and a dict would compare each with all
 * others. A Map hashes the bytes of keys with a secret and does not mind: true
 * when the dict had better become one. Counting starts late, since few keys do
 * no harm. */
static int floods(rt_dec_frame *f, PyObject *key) {
    bool open = PyTuple_CheckExact(key) || Py_IS_TYPE(key, rt_py_st->frozen) ||
                Py_IS_TYPE(key, rt_py_st->improper) || Py_IS_TYPE(key, rt_py_st->map) ||
                PyFloat_CheckExact(key) || PyLong_CheckExact(key);
    if (!open) return 0;
    if (!f->hashes && !(f->hashes = rt_calloc(RT_DEC_HASH_CLASSES, sizeof *f->hashes))) {
        PyErr_NoMemory();
        return -1;
    }
    Py_hash_t h = PyObject_Hash(key);
    if (h == -1) return -1;
    uint32_t *count = &f->hashes[rt_hash_u64((uint64_t)h) & (RT_DEC_HASH_CLASSES - 1)];
    return ++*count > RT_DEC_HASH_SAME_MAX + f->i / (RT_DEC_HASH_CLASSES / 8);
}

RT_INLINE int add_pair(rt_dec *d, rt_dec_frame *f, PyObject *key, PyObject *val) {
    if (f->kind == F_MAP) {
        int rc = rt_py_map_add(f->obj, key, val);
        return rc > 0 ? twice(d) : rc;
    }
    if (RT_UNLIKELY(f->i >= RT_DEC_HASH_SAME_MAX)) {
        int flood = floods(f, key);
        if (flood) return flood < 0 ? -1 : become_map(d, f, key, val);
    }
    if (RT_UNLIKELY(!PyDict_SetDefault(f->obj, key, val))) {
        if (!PyErr_ExceptionMatches(PyExc_RecursionError)) return -1;
        PyErr_Clear();
        rt_dec_fail(d, d->c.p, "a map key is nested too deep");
        return -1;
    }
    if (RT_LIKELY((uint64_t)PyDict_GET_SIZE(f->obj) == (uint64_t)f->i + 1)) return 0;
    return become_map(d, f, key, val);
}

RT_INLINE int finish_map(rt_dec *d, rt_dec_frame *f, PyObject **v) {
    rt_free(f->hashes);
    *v = pop(d);
    return RT_UNLIKELY(d->codec->from_term != NULL) ? rt_dec_struct(d, v) : 0;
}

RT_INLINE int deliver_map(rt_dec *d, rt_dec_frame *f, PyObject **v) {
    if (!f->key) {
        f->key = *v;
        d->keys--;
        return 1;
    }
    int rc = add_pair(d, f, f->key, *v);
    Py_DECREF(*v);
    Py_CLEAR(f->key);
    if (RT_UNLIKELY(rc < 0)) return -1;
    return ++f->i < f->n ? 1 : finish_map(d, f, v);
}

RT_INLINE int deliver(rt_dec *d, PyObject **v) {
    rt_dec_frame *f = &d->stack[d->depth - 1];
    switch (f->kind) {
    case F_LIST:
        PyList_SET_ITEM(f->obj, (Py_ssize_t)f->i, *v);
        return ++f->i < f->n ? 1 : list_tail(d, f, v);
    case F_APPEND: {
        int rc = PyList_Append(f->obj, *v);
        Py_DECREF(*v);
        if (rc < 0) return -1;
        return ++f->i < f->n ? 1 : list_tail(d, f, v);
    }
    case F_TAIL: return finish_improper(d, v);
    case F_TUPLE:
        PyTuple_SET_ITEM(f->obj, (Py_ssize_t)f->i, *v);
        if (++f->i < f->n) return 1;
        *v = pop(d);
        return 0;
    default: return deliver_map(d, f, v);
    }
}

/* Plain leaves go straight into their container. Nothing is read here that is not known, or cut:
 * value() does that, and says what is wrong. 1: *out is the next value; 0: nothing was read; -1. */
RT_INLINE int leaf(rt_dec *d, PyObject **out) {
    const uint8_t *p = d->c.p;
    size_t left = rt_cursor_left(&d->c), n, slot;
    rt_atom_obj *a;
    if (RT_UNLIKELY(left < 2)) return 0;
    switch (*p) {
    case RT_TAG_SMALL_INTEGER:
        *out = Py_NewRef(d->st->small[p[1]]);
        d->c.p = p + 2;
        return 1;
    case RT_TAG_INTEGER:
        if (RT_UNLIKELY(left < 5)) return 0;
        *out = PyLong_FromLong((int32_t)rt_load_u32(p + 1));
        d->c.p = p + 5;
        break;
    case RT_TAG_NEW_FLOAT: {
        double v;
        uint64_t bits;
        if (RT_UNLIKELY(left < 9)) return 0;
        bits = rt_load_u64(p + 1);
        if (RT_UNLIKELY((bits & FLOAT_EXPONENT_BITS) == FLOAT_EXPONENT_BITS)) return 0;
        memcpy(&v, &bits, 8);
        *out = PyFloat_FromDouble(v);
        d->c.p = p + 9;
        break;
    }
    case RT_TAG_BINARY:
        if (RT_UNLIKELY(left < 5)) return 0;
        n = rt_load_u32(p + 1);
        if (RT_UNLIKELY(left - 5 < n || d->codec->binaries == RT_BINARIES_VIEW)) return 0;
        *out = d->codec->binaries == RT_BINARIES_STR
                   ? rt_dec_text(p + 5, n)
                   : rt_dec_bytes(p + 5, n);
        d->c.p = p + 5 + n;
        break;
    case RT_TAG_SMALL_ATOM_UTF8:
        n = p[1];
        if (RT_UNLIKELY(left - 2 < n)) return 0;
        a = rt_py_atom_recent(d->st, p + 2, n, &slot);
        if (RT_UNLIKELY(!a)) return 0;
        *out = rt_dec_atom_value(d, a, false);
        d->c.p = p + 2 + n;
        return 1;
    case RT_TAG_SMALL_BIG:
        d->c.p = p + 1;
        *out = rt_dec_big(d, RT_TAG_SMALL_BIG);
        break;
    case RT_TAG_STRING:
        d->c.p = p + 1;
        *out = rt_dec_string(d);
        break;
    case RT_TAG_NEW_PID: return (*out = rt_dec_recent_pid(d)) != NULL;
    case RT_TAG_NEWER_REFERENCE:
        *out = rt_dec_recent_ref(d);
        return RT_LIKELY(*out) ? 1 : PyErr_Occurred() ? -1 : 0;
    default: return 0;
    }
    return RT_LIKELY(*out) ? 1 : -1;
}

/* The same for a key of a dict. */
RT_INLINE int key_leaf(rt_dec *d, PyObject **out) {
    const uint8_t *p = d->c.p;
    size_t left = rt_cursor_left(&d->c), n;
    if (RT_LIKELY(left >= 5 && *p == RT_TAG_BINARY)) {
        n = rt_load_u32(p + 1);
        if (RT_UNLIKELY(left - 5 < n || n - 1 >= RT_PY_KEY_BYTES_MAX)) return 0;
        *out = d->codec->binaries == RT_BINARIES_STR ? rt_dec_key_str(d, p + 5, n)
                                                     : rt_dec_key_bytes(d, p + 5, n);
        d->c.p = p + 5 + n;
        return RT_LIKELY(*out) ? 1 : -1;
    }
    /* The others are cut or of a length that is not kept; a list must be frozen. */
    return left && *p != RT_TAG_BINARY && *p != RT_TAG_STRING ? leaf(d, out) : 0;
}

/* One value by the loop of frames: whatever comes, to any depth. */
static PyObject *run(rt_dec *d, int rc, PyObject *v) {
    for (;;) {
        while (rc == 0) {
            if (d->depth == 0) return v;
            rc = deliver(d, &v);
        }
        if (RT_UNLIKELY(rc < 0)) return NULL;
        rt_dec_frame *f = &d->stack[d->depth - 1];
        bool key = f->kind >= F_DICT && !f->key;
        int known = key ? key_leaf(d, &v) : leaf(d, &v);
        if (key) key_begins(d);
        d->owed--;
        rc = RT_LIKELY(known > 0) ? 0 : known < 0 ? -1 : value(d, &v);
    }
}

/* The usual containers, down to RT_DEC_NEST of them in each other, are filled by functions that
 * call themselves: `owed` values are still awaited by the containers around, `level` of them are
 * open. What these functions do not know, or is cut, they leave to the loop above. */

static PyObject *next_any(rt_dec *d, uint64_t owed, uint32_t level) {
    PyObject *v = NULL;
    d->owed = owed;
    d->above = level;
    int rc = value(d, &v);
    return run(d, rc, v);
}

static PyObject *next_container(rt_dec *d, uint64_t owed, uint32_t level);

RT_INLINE PyObject *next(rt_dec *d, uint64_t owed, uint32_t level) {
    PyObject *v;
    int rc = leaf(d, &v);
    return RT_LIKELY(rc > 0) ? v : rc < 0 ? NULL : next_container(d, owed, level);
}

static PyObject *next_tuple(rt_dec *d, uint32_t n, uint64_t owed, uint32_t level) {
    PyObject *tuple = PyTuple_New((Py_ssize_t)n), *v;
    if (RT_UNLIKELY(!tuple)) return NULL;
    hide(d, tuple);
    for (uint32_t i = 0; i < n; i++) {
        if (RT_UNLIKELY(!(v = next(d, owed + (n - 1 - i), level)))) {
            Py_DECREF(tuple);
            return NULL;
        }
        PyTuple_SET_ITEM(tuple, (Py_ssize_t)i, v);
    }
    show(d, tuple);
    return tuple;
}

/* After the last element something else than NIL. */
static PyObject *odd_tail(rt_dec *d, PyObject *list, uint32_t n, uint64_t owed, uint32_t level) {
    PyObject *v = NULL;
    d->owed = owed + 1;
    d->above = level;
    if (!push(d, list, F_LIST, n)) return NULL;
    int rc = list_tail(d, d->stack, &v);
    return run(d, rc, v);
}

static PyObject *next_list(rt_dec *d, uint32_t n, uint64_t owed, uint32_t level) {
    PyObject *list = PyList_New((Py_ssize_t)n), *v;
    if (RT_UNLIKELY(!list)) return NULL;
    hide(d, list);
    for (uint32_t i = 0; i < n; i++) {
        if (RT_UNLIKELY(!(v = next(d, owed + (n - i), level)))) {
            Py_DECREF(list);
            return NULL;
        }
        PyList_SET_ITEM(list, (Py_ssize_t)i, v);
    }
    if (RT_UNLIKELY(rt_cursor_left(&d->c) == 0 || *d->c.p != RT_TAG_NIL))
        return odd_tail(d, list, n, owed, level - 1);
    d->c.p++;
    show(d, list);
    return list;
}

static PyObject *next_key(rt_dec *d, uint64_t owed, uint32_t level) {
    PyObject *key;
    int rc = key_leaf(d, &key);
    if (RT_LIKELY(rc)) return rc > 0 ? key : NULL;
    key_begins(d);
    key = next_any(d, owed, level);
    d->keys = 0;
    return key;
}

static PyObject *next_dict(rt_dec *d, uint32_t n, uint64_t owed, uint32_t level) {
    rt_dec_frame f = {.obj = new_dict(d, n), .n = n, .kind = F_DICT};
    int rc = f.obj ? 0 : -1;
    owed += 2 * (uint64_t)n;
    for (; rc == 0 && f.i < n; f.i++) {
        PyObject *key = next_key(d, --owed, level);
        PyObject *v = RT_LIKELY(key) ? next(d, --owed, level) : NULL;
        rc = RT_LIKELY(v) ? add_pair(d, &f, key, v) : -1;
        Py_XDECREF(key);
        Py_XDECREF(v);
    }
    rt_free(f.hashes);
    if (RT_LIKELY(rc == 0)) {
        if (RT_UNLIKELY(d->codec->from_term != NULL) && rt_dec_struct(d, &f.obj) < 0) return NULL;
        return f.obj;
    }
    Py_XDECREF(f.obj);
    return NULL;
}

static PyObject *next_container(rt_dec *d, uint64_t owed, uint32_t level) {
    const uint8_t *p = d->c.p;
    if (RT_UNLIKELY(level >= d->nest || rt_cursor_left(&d->c) < 5)) return next_any(d, owed, level);
    bool small = *p == RT_TAG_SMALL_TUPLE;
    uint32_t n = small ? p[1] : rt_load_u32(p + 1);
    if (RT_UNLIKELY(n == 0)) return next_any(d, owed, level);
    const uint8_t *inside = p + (small ? 2 : 5);
    switch (*p) {
    case RT_TAG_SMALL_TUPLE:
    case RT_TAG_LARGE_TUPLE:
        d->c.p = inside;
        return fits(d, owed + n) ? next_tuple(d, n, owed, level + 1) : NULL;
    case RT_TAG_LIST:
        d->c.p = inside;
        return fits(d, owed + n + 1) ? next_list(d, n, owed, level + 1) : NULL;
    case RT_TAG_MAP:
        d->c.p = inside;
        return fits(d, owed + 2 * (uint64_t)n) ? next_dict(d, n, owed, level + 1) : NULL;
    default: return next_any(d, owed, level);
    }
}

RT_INLINE void dec_fini(rt_dec *d) {
    while (RT_UNLIKELY(d->depth)) {
        rt_dec_frame *f = &d->stack[--d->depth];
        Py_DECREF(f->obj);
        Py_XDECREF(f->key);
        rt_free(f->hashes);
    }
    if (RT_UNLIKELY(d->stack != d->first)) rt_free(d->stack);
}

/* What is being built is no garbage, and no user code runs meanwhile: a collector that looks
 * at it again and again only takes time. */
RT_APART PyObject *next_uncollected(rt_dec *d) {
    bool paused = PyGC_Disable();
    PyObject *out = next_container(d, 0, 0);
    if (paused) PyGC_Enable();
    return out;
}

static PyObject *decode_plain(const rt_codec *codec, const uint8_t *base, const uint8_t *p,
                              size_t n, size_t *used, PyObject *owner) {
    rt_dec d; /* what next_any, odd_tail and key_begins set is left out: most terms need none of it */
    d.c = rt_cursor_of(p, n);
    d.from = base;
    d.codec = codec;
    d.st = rt_py_st;
    d.owner = owner;
    d.keys = d.depth = 0;
    d.nest = codec->max_depth < RT_DEC_NEST ? codec->max_depth : RT_DEC_NEST;
    d.cap = RT_DEC_STACK;
    d.stack = d.first;
    bool long_one = n >= GC_PAUSE_BYTES && !codec->from_term;
    PyObject *out = RT_UNLIKELY(long_one) ? next_uncollected(&d) : next_container(&d, 0, 0);
    dec_fini(&d);
    if (out) *used = (size_t)(d.c.p - p);
    return out;
}

static PyObject *refuse(const uint8_t *base, const uint8_t *at, const char *text) {
    rt_dec d = {.from = base, .st = rt_py_st};
    return rt_dec_fail(&d, at, text);
}

/* Opens a compressed term and decodes what is in it; offsets inside mean
 * nothing to the caller, so errors name the compressed term. */
RT_APART PyObject *decode_compressed(const rt_codec *codec, const uint8_t *base, const uint8_t *p,
                                   size_t n, size_t *used) {
    static const rt_limits limits = RT_LIMITS_DEFAULT;
    rt_buf plain = RT_BUF_INIT;
    size_t inner = 0;
    PyObject *out = NULL;
    int64_t took = rt_term_inflate(&plain, p + 1, n - 1, codec->max_bytes,
                                   limits.inflate_ratio_max);
    if (took == RT_ENOMEM) PyErr_NoMemory();
    else if (took == RT_ELIMIT) refuse(base, p, "a compressed term is too large for its limits");
    else if (took < 0) refuse(base, p, "a compressed term is malformed");
    else out = decode_plain(codec, plain.p, plain.p, plain.n, &inner, NULL);
    if (!out && took >= 0 && PyErr_ExceptionMatches(rt_py_st->decode_error)) {
        rt_dec_blame(base, p, PyUnicode_FromString("the content of a compressed term is malformed"), false);
    }
    /* Erlang ignores what follows the inner term. */
    if (out) *used = (size_t)took + 1;
    rt_buf_fini(&plain);
    return out;
}

PyObject *rt_py_decode_at(const rt_codec *codec, const uint8_t *base, const uint8_t *p,
                          size_t n, size_t *used, PyObject *owner) {
    if (RT_UNLIKELY(n > codec->max_bytes))
        return refuse(base, base, "the input is larger than max_bytes");
    if (RT_UNLIKELY(n && *p == RT_TAG_COMPRESSED))
        return decode_compressed(codec, base, p, n, used);
    return decode_plain(codec, base, p, n, used, owner);
}

PyObject *rt_py_decode(PyObject *codec, const uint8_t *p, size_t n, size_t *used) {
    return rt_py_decode_at(rt_py_codec(codec), p, p, n, used, NULL);
}

int rt_py_decode_append(PyObject *codec, const uint8_t *p, size_t n, PyObject *list) {
    size_t used;
    PyObject *term = rt_py_decode_at(rt_py_codec(codec), p, p, n, &used, NULL);
    if (RT_UNLIKELY(!term)) return -1;
    PyListObject *l = (PyListObject *)list;
    Py_ssize_t at = Py_SIZE(l);
    if (RT_LIKELY(at < l->allocated)) { /* it has room, and takes our reference */
        l->ob_item[at] = term;
        Py_SET_SIZE(l, at + 1);
        return 0;
    }
    int rc = PyList_Append(list, term);
    Py_DECREF(term);
    return rc;
}
