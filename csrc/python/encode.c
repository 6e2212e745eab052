#include "python/enc.h"

#include <stdarg.h>

#include "base/alloc.h"
#include "base/limits.h"
#include "term/inflate.h"

#define SPARE_BYTES (128u * 1024u) /* a list of bytes is twice as long until its end */
#define STANDS_MAX 4 /* objects that stand for one another, one after the other */

enum kind { F_LIST, F_TUPLE, F_ITEMS, F_DICT = RT_ENC_PAIRS, F_MAP };
enum { END = 0, REST = 1, ANY = 2 }; /* see rest_of_list */

/* Room */

static int grow_own(rt_enc *e, size_t used, size_t need) {
    size_t cap = (size_t)(e->end - e->base);
    size_t want = cap * 2 < need ? need : cap * 2;
    if (e->bytes) {
        if (_PyBytes_Resize(&e->bytes, (Py_ssize_t)want) < 0) return -1;
    } else {
        PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)want);
        if (!bytes) return -1;
        if (used) memcpy(PyBytes_AS_STRING(bytes), e->base, used);
        e->bytes = bytes;
    }
    e->base = (uint8_t *)PyBytes_AS_STRING(e->bytes);
    e->end = e->base + want;
    e->w = e->base + used;
    return 0;
}

int rt_enc_grow(rt_enc *e, size_t extra) {
    size_t used = (size_t)(e->w - e->base);
    /* Who asks may ask for more than it needs: check_size is exact. */
    if (used + extra > e->codec->max_bytes + SPARE_BYTES)
        return rt_enc_fail(e, "the term takes over %zu bytes (max_bytes)", e->codec->max_bytes);
    if (!e->buf) return grow_own(e, used, used + extra);
    size_t before = (size_t)(e->base - e->buf->p);
    e->buf->n = before + used;
    if (rt_buf_reserve(e->buf, extra) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    e->base = e->buf->p + before;
    e->w = e->base + used;
    e->end = e->buf->p + e->buf->cap;
    return 0;
}

/* Errors */

/* The key a dict frame stands at, new reference or NULL. */
static PyObject *frame_key(const rt_enc_frame *f) {
    PyObject *key, *value;
    Py_ssize_t at = 0, i = 0;
    if (f->kind == F_MAP) {
        while (PyDict_Next(((rt_map_obj *)f->obj)->pairs, &at, &key, &value))
            if (++i == f->done) return Py_NewRef(PyTuple_GET_ITEM(value, 0));
        return NULL;
    }
    while (PyDict_Next(f->obj, &at, &key, &value))
        if (++i == f->done) return Py_NewRef(key);
    return NULL;
}

static PyObject *path_step(const rt_enc_frame *f) {
    if (f->kind != F_DICT && f->kind != F_MAP) return PyUnicode_FromFormat("[%zd]", f->done - 1);
    PyObject *key = frame_key(f);
    if (!key) return PyUnicode_FromString("[?]");
    PyObject *repr = NULL;
    /* Only the repr of plain keys is sure to be short and to run no code. */
    if (PyUnicode_Check(key) && PyUnicode_GET_LENGTH(key) <= 64) repr = PyUnicode_Type.tp_repr(key);
    else if (PyLong_CheckExact(key)) repr = PyNumber_ToBase(key, 16);
    else repr = PyUnicode_FromFormat("<%s>", Py_TYPE(key)->tp_name);
    Py_DECREF(key);
    PyObject *out = repr ? PyUnicode_FromFormat(f->in_key ? ".key(%U)" : "[%U]", repr) : NULL;
    Py_XDECREF(repr);
    return out;
}

/* Where we are, such as "[2]['a']"; the middle of a deep one is left out. */
static PyObject *path_text(const rt_enc *e) {
    PyObject *path = PyUnicode_FromString("");
    for (uint32_t i = 0; path && i < e->depth; i++) {
        if (i == 8 && e->depth > 16) {
            i = e->depth - 8;
            PyUnicode_AppendAndDel(&path, PyUnicode_FromString("..."));
        }
        if (path) PyUnicode_AppendAndDel(&path, path_step(&e->stack[i]));
    }
    return path;
}

int rt_enc_fail(rt_enc *e, const char *format, ...) {
    va_list args;
    va_start(args, format);
    PyObject *text = PyUnicode_FromFormatV(format, args);
    va_end(args);
    PyObject *path = text ? path_text(e) : NULL;
    if (path && PyUnicode_GET_LENGTH(path))
        PyErr_Format(e->st->encode_error, "%U (at %U)", text, path);
    else if (path)
        PyErr_SetObject(e->st->encode_error, text);
    Py_XDECREF(text);
    Py_XDECREF(path);
    return -1;
}

/* Frames */

RT_APART int stack_grow(rt_enc *e) {
    uint32_t cap = e->cap * 2;
    rt_enc_frame *own = e->stack == e->first ? NULL : e->stack;
    rt_enc_frame *bigger = rt_realloc(own, cap * sizeof *bigger);
    if (!bigger) {
        PyErr_NoMemory();
        return -1;
    }
    if (!own) memcpy(bigger, e->first, sizeof e->first);
    e->stack = bigger;
    e->cap = cap;
    return 0;
}

RT_APART rt_enc_frame *too_deep(rt_enc *e) {
    rt_enc_fail(e, "the term is nested over %u deep (max_depth)", (unsigned)e->codec->max_depth);
    return NULL;
}

/* One more open container. What only a dict's frame has is set by open_dict. */
RT_INLINE rt_enc_frame *push(rt_enc *e, PyObject *obj, uint8_t kind, Py_ssize_t n) {
    if (RT_UNLIKELY(e->depth >= e->codec->max_depth)) return too_deep(e);
    if (RT_UNLIKELY(e->depth == e->cap) && stack_grow(e) < 0) return NULL;
    rt_enc_frame *f = &e->stack[e->depth++];
    f->obj = Py_NewRef(obj);
    f->done = 0;
    f->n = n;
    f->start = (size_t)(e->w - e->base);
    f->kind = kind;
    f->in_key = false;
    return f;
}

/* For containers that are no dict. */
RT_INLINE void pop_plain(rt_enc *e) { Py_DECREF(e->stack[--e->depth].obj); }

static void pop(rt_enc *e) {
    rt_enc_frame *f = &e->stack[e->depth - 1];
    if (f->kind == F_DICT || f->kind == F_MAP) {
        Py_XDECREF(f->held);
        Py_XDECREF(f->seen);
        rt_free(f->at);
    }
    pop_plain(e);
}

/* A list of bytes is a STRING, as Erlang writes it. True: it was one, and is written whole;
 * its items are looked at before anything is, for most lists are told by their first. */
static bool put_string(rt_enc *e, PyObject *list, Py_ssize_t n) {
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *item = PyList_GET_ITEM(list, i);
        int64_t v;
        if (Py_TYPE(item) != &PyLong_Type || !rt_enc_small_int(item, &v) || v < 0 || v > 255)
            return false;
    }
    uint8_t *w = e->w;
    e->w = w + 3 + n;
    w[0] = RT_TAG_STRING;
    rt_store_u16(w + 1, (uint16_t)n);
    for (Py_ssize_t i = 0; i < n; i++) {
        int64_t v = 0;
        rt_enc_small_int(PyList_GET_ITEM(list, i), &v);
        w[3 + i] = (uint8_t)v;
    }
    return true;
}

static int open_list(rt_enc *e, PyObject *obj, uint8_t kind, Py_ssize_t n) {
    if ((size_t)n > UINT32_MAX) return rt_enc_fail(e, "cannot encode a list of %zd elements", n);
    if (rt_enc_room(e, 6) < 0) return -1;
    if (n == 0) {
        rt_enc_u8(e, RT_TAG_NIL);
        return 0;
    }
    if (kind == F_LIST && n <= UINT16_MAX) {
        if (rt_enc_room(e, 3 + (size_t)n) < 0) return -1;
        if (put_string(e, obj, n)) return 0;
    }
    rt_enc_tag_u32(e, RT_TAG_LIST, (uint32_t)n);
    return push(e, obj, kind, n) ? 0 : -1;
}

RT_INLINE int tuple_head(rt_enc *e, Py_ssize_t n) {
    if (rt_enc_room(e, 5) < 0) return -1;
    if (RT_LIKELY(n <= UINT8_MAX)) {
        uint8_t *w = e->w;
        e->w = w + 2;
        w[0] = RT_TAG_SMALL_TUPLE;
        w[1] = (uint8_t)n;
        return 0;
    }
    if ((size_t)n > UINT32_MAX) return rt_enc_fail(e, "cannot encode a tuple of %zd elements", n);
    rt_enc_tag_u32(e, RT_TAG_LARGE_TUPLE, (uint32_t)n);
    return 0;
}

static int open_tuple(rt_enc *e, PyObject *obj) {
    Py_ssize_t n = PyTuple_GET_SIZE(obj);
    if (tuple_head(e, n) < 0) return -1;
    return n == 0 || push(e, obj, F_TUPLE, n) ? 0 : -1;
}

static int open_dict(rt_enc *e, PyObject *obj, PyObject *dict, uint8_t kind) {
    Py_ssize_t n = PyDict_GET_SIZE(dict);
    if ((size_t)n > UINT32_MAX) return rt_enc_fail(e, "cannot encode a map of %zd pairs", n);
    if (rt_enc_room(e, 5) < 0) return -1;
    rt_enc_tag_u32(e, RT_TAG_MAP, (uint32_t)n);
    if (n == 0) return 0;
    rt_enc_frame *f = push(e, obj, kind, n);
    if (!f) return -1;
    f->held = f->seen = NULL;
    f->key_type = NULL;
    f->key_kinds = 0;
    f->at = NULL;
    f->pos = 0;
    if (e->canonical) {
        f->at = rt_calloc((size_t)n + 1, sizeof *f->at);
        if (!f->at) {
            PyErr_NoMemory();
            return -1;
        }
    }
    return 0;
}

/* One value */

static int put_none(rt_enc *e) {
    /* In canonical bytes None differs from both atoms: which one it is depends
     * on a codec that a Map does not know. */
    if (e->canonical) {
        if (rt_enc_room(e, 1) < 0) return -1;
        rt_enc_u8(e, 0);
        return 1;
    }
    return e->codec->none_undefined ? rt_enc_atom_lit(e, "undefined", 9)
                                    : rt_enc_atom_lit(e, "nil", 3);
}

#define RUN_MAX (1u << 20) /* longer ones may be too long for their head, and are not in a hurry */

RT_INLINE int put_run(rt_enc *e, const void *p, size_t n) {
    if (RT_UNLIKELY(n > RUN_MAX)) return rt_enc_bytes(e, p, n);
    if (RT_UNLIKELY(rt_enc_room(e, 5 + n) < 0)) return -1;
    rt_enc_run(e, RT_TAG_BINARY, p, n);
    return 1;
}

/* 1 written; 0 for what is no plain leaf. */
RT_INLINE int put_leaf(rt_enc *e, PyObject *obj) {
    PyTypeObject *t = Py_TYPE(obj);
    if (t == &PyUnicode_Type) {
        if (RT_LIKELY(PyUnicode_IS_COMPACT_ASCII(obj) && !e->codec->text_atom))
            return put_run(e, ((PyASCIIObject *)obj) + 1, (size_t)PyUnicode_GET_LENGTH(obj));
        return rt_enc_text(e, obj);
    }
    if (t == &PyLong_Type) {
        int64_t v;
        if (RT_UNLIKELY(!rt_enc_small_int(obj, &v))) return rt_enc_big(e, obj);
        if (RT_UNLIKELY(rt_enc_room(e, 11) < 0)) return -1;
        rt_enc_i64(e, v);
        return 1;
    }
    if (t == e->st->atom) {
        rt_atom_obj *a = (rt_atom_obj *)obj;
        size_t n = a->ext_n;
        if (RT_UNLIKELY(rt_enc_room(e, n) < 0)) return -1;
        uint8_t *w = e->w;
        e->w = w + n;
        rt_py_copy(w, a->ext, n);
        return 1;
    }
    if (t == &PyBytes_Type) {
        size_t n = (size_t)PyBytes_GET_SIZE(obj);
        if (RT_UNLIKELY(n >= RT_PY_APART_MIN)) return rt_enc_large(e, obj);
        return put_run(e, PyBytes_AS_STRING(obj), n);
    }
    if (t == &PyFloat_Type) return rt_enc_double(e, PyFloat_AS_DOUBLE(obj));
    if (obj == Py_True) return rt_enc_atom_lit(e, "true", 4);
    if (obj == Py_False) return rt_enc_atom_lit(e, "false", 5);
    if (obj == Py_None) return put_none(e);
    return 0;
}

/* Containers of Python and our own; 1 done or opened, 0 not a container. */
static int put_container(rt_enc *e, PyObject *obj) {
    PyTypeObject *t = Py_TYPE(obj);
    rt_py_state *st = e->st;
    int rc;
    if (PyTuple_Check(obj)) rc = open_tuple(e, obj);
    else if (PyList_Check(obj)) rc = open_list(e, obj, F_LIST, PyList_GET_SIZE(obj));
    else if (PyDict_Check(obj)) rc = open_dict(e, obj, obj, F_DICT);
    else if (t == st->map) rc = open_dict(e, obj, ((rt_map_obj *)obj)->pairs, F_MAP);
    else if (t == st->frozen || t == st->improper) {
        /* Both begin with their tuple of items. */
        PyObject *items = ((rt_frozen_obj *)obj)->items;
        rc = open_list(e, obj, F_ITEMS, PyTuple_GET_SIZE(items));
    } else return 0;
    return rc < 0 ? -1 : 1;
}

/* What is none of the usual: own types, subclasses, and what stands for something else. */
RT_APART int put_odd(rt_enc *e, PyObject *obj) {
    /* User code may run below and drop the object from its container. */
    PyObject *held = Py_NewRef(obj);
    int rc = 0;
    /* What an object stands for may again stand for something, but not for ever. */
    for (int i = 0; i <= STANDS_MAX; i++) {
        PyObject *instead = NULL;
        rc = i ? put_leaf(e, obj) : 0;
        if (rc == 0) rc = rt_enc_stand_in(e, obj, &instead);
        if (rc == 0) rc = put_container(e, obj);
        if (rc == 0) rc = rt_enc_own(e, obj);
        if (rc == 0) rc = rt_enc_foreign(e, obj, &instead);
        if (rc != 2) break;
        Py_SETREF(held, instead);
        obj = instead;
    }
    if (rc == 0 || rc == 2) rc = rt_enc_fail(e, "cannot encode %.200s", Py_TYPE(obj)->tp_name);
    Py_DECREF(held);
    return rc < 0 ? -1 : 0;
}

/* A tuple of leaves needs no frame. It gets one when something else comes, which becomes *obj,
 * and when a leaf fails: that one then fails once more, and the error says where. The caller
 * holds the tuple: to make the first error may run the collector, and with it anybody's code. */
RT_INLINE int put_held_tuple(rt_enc *e, PyObject *tuple, PyObject **obj) {
    Py_ssize_t n = PyTuple_GET_SIZE(tuple);
    if (RT_UNLIKELY(e->depth >= e->codec->max_depth)) return open_tuple(e, tuple);
    if (RT_UNLIKELY(tuple_head(e, n) < 0)) return -1;
    for (Py_ssize_t i = 0; i < n; i++) {
        *obj = PyTuple_GET_ITEM(tuple, i);
        int rc = put_leaf(e, *obj);
        if (RT_LIKELY(rc > 0)) continue;
        if (rc < 0) PyErr_Clear();
        rt_enc_frame *f = push(e, tuple, F_TUPLE, n);
        if (!f) return -1;
        f->done = rc < 0 ? i : i + 1;
        return rc < 0 ? END : REST;
    }
    return END;
}

RT_INLINE int put_tuple(rt_enc *e, PyObject **obj) {
    PyObject *tuple = Py_NewRef(*obj);
    int rc = put_held_tuple(e, tuple, obj);
    Py_DECREF(tuple);
    return rc;
}

RT_INLINE int put_rest(rt_enc *e, PyObject **obj) {
    PyTypeObject *t = Py_TYPE(*obj);
    if (t == &PyTuple_Type) return put_tuple(e, obj);
    if (t == &PyList_Type) return open_list(e, *obj, F_LIST, PyList_GET_SIZE(*obj));
    if (t == &PyDict_Type) return open_dict(e, *obj, *obj, F_DICT);
    if (t == e->st->pid || t == e->st->ref) return rt_enc_own(e, *obj) < 0 ? -1 : END;
    return put_odd(e, *obj);
}

/* The next value to write */

/* A charlist: Erlang writes a list of bytes as STRING, at half the size. */
bool rt_enc_compact(rt_enc *e, size_t start, Py_ssize_t n) {
    uint8_t *p = e->base + start;
    if ((size_t)(e->w - p) != 2 * (size_t)n || n > 65535) return false;
    for (const uint8_t *q = p; q < e->w; q += 2)
        if (*q != RT_TAG_SMALL_INTEGER) return false;
    uint8_t *to = p - 5;
    to[0] = RT_TAG_STRING;
    rt_store_u16(to + 1, (uint16_t)n);
    for (Py_ssize_t i = 0; i < n; i++) to[3 + i] = p[2 * i + 1];
    e->w = to + 3 + n;
    return true;
}

static int end_list(rt_enc *e, rt_enc_frame *f) {
    if (!rt_enc_compact(e, f->start, f->n)) {
        if (rt_enc_room(e, 1) < 0) return -1;
        rt_enc_u8(e, RT_TAG_NIL);
    }
    pop_plain(e);
    return 0;
}

static int changed(rt_enc *e) {
    return rt_enc_fail(e, "a container changed size while it was encoded");
}

/* Looks at a key of another type than the one before. 1: a set was made, the collector may have
 * run, and with it anybody's code. */
RT_APART int note_key_type(rt_enc *e, rt_enc_frame *f, PyTypeObject *t) {
    f->key_type = t;
    bool may_meet = rt_enc_key_kind(e, f, t);
    if (!may_meet || f->seen || f->at || f->kind != F_DICT || f->n < 2) return 0;
    if (rt_enc_begin_seen(e, f) < 0) return -1;
    return PyDict_GET_SIZE(f->obj) == f->n ? 1 : changed(e);
}

/* Notes a key that was just written; EncodeError when it is a second one. */
static int check_key(rt_enc *e, rt_enc_frame *f) {
    PyObject *bytes = PyBytes_FromStringAndSize((char *)e->base + f->start,
                                                e->w - e->base - (Py_ssize_t)f->start);
    if (!bytes) return -1;
    int dup = PySet_Contains(f->seen, bytes);
    if (dup == 0) dup = PySet_Add(f->seen, bytes);
    Py_DECREF(bytes);
    if (dup > 0) {
        f->in_key = true;
        return rt_enc_fail(e, "two keys of a dict are the same term in Erlang");
    }
    return dup;
}

/* The functions below write what is left of a container, until its END, or until something
 * comes that is no plain leaf: REST with *out (borrowed from the frame or its container); ANY
 * when it may be a leaf all the same. Leaves run no user's code, so what was looked at once
 * stays as it is until one of these returns. */

static int rest_of_list(rt_enc *e, rt_enc_frame *f, PyObject **out) {
    PyObject *list = f->obj;
    Py_ssize_t i = f->done, n = f->n;
    if (RT_UNLIKELY(PyList_GET_SIZE(list) != n)) return changed(e);
    while (i < n) {
        PyObject *item = PyList_GET_ITEM(list, i);
        f->done = ++i; /* an error says where */
        int rc = put_leaf(e, item);
        if (RT_LIKELY(rc > 0)) continue;
        *out = item;
        return rc < 0 ? -1 : REST;
    }
    return end_list(e, f);
}

static int rest_of_tuple(rt_enc *e, rt_enc_frame *f, PyObject **out) {
    PyObject *tuple = f->obj;
    Py_ssize_t i = f->done, n = f->n;
    while (i < n) {
        PyObject *item = PyTuple_GET_ITEM(tuple, i);
        f->done = ++i; /* an error says where */
        int rc = put_leaf(e, item);
        if (RT_LIKELY(rc > 0)) continue;
        *out = item;
        return rc < 0 ? -1 : REST;
    }
    pop_plain(e);
    return END;
}

/* A key that is no leaf: it is written first, and its value waits in the frame. */
static int key_first(rt_enc_frame *f, PyObject *key, PyObject *value, PyObject **out) {
    f->held = Py_NewRef(value);
    f->in_key = true;
    *out = key;
    return ANY;
}

/* Of a dict, or of the pairs of a Map. */
RT_INLINE bool next_pair(rt_enc_frame *f, PyObject *dict, PyObject **key, PyObject **value) {
    if (!PyDict_Next(dict, &f->pos, key, value)) return false;
    if (f->kind == F_MAP) {
        PyObject *pair = *value;
        *key = PyTuple_GET_ITEM(pair, 0);
        *value = PyTuple_GET_ITEM(pair, 1);
    }
    return true;
}

static int rest_of_dict(rt_enc *e, rt_enc_frame *f, PyObject **out) {
    PyObject *key, *value;
    PyObject *dict = f->kind == F_MAP ? ((rt_map_obj *)f->obj)->pairs : f->obj;
    if (f->in_key) {
        if (f->seen && check_key(e, f) < 0) return -1;
        f->in_key = false;
        int rc = put_leaf(e, f->held);
        *out = f->held;
        if (rc <= 0) return rc < 0 ? -1 : REST;
    }
    Py_CLEAR(f->held);
    if (RT_UNLIKELY(PyDict_GET_SIZE(dict) != f->n)) return changed(e);
    while (f->done < f->n) {
        Py_ssize_t here = f->pos;
        if (RT_UNLIKELY(!next_pair(f, dict, &key, &value))) return changed(e);
        if (RT_UNLIKELY(Py_TYPE(key) != f->key_type)) {
            int rc = note_key_type(e, f, Py_TYPE(key));
            if (rc < 0) return -1;
            if (rc > 0) { /* once for each dict: its pair is to be found again */
                f->pos = here;
                continue;
            }
        }
        f->start = (size_t)(e->w - e->base);
        if (f->at) f->at[f->done] = f->start;
        f->done++;
        if (RT_UNLIKELY(f->seen != NULL)) return key_first(f, key, value, out);
        int rc = put_leaf(e, key);
        if (RT_UNLIKELY(rc <= 0)) return rc < 0 ? -1 : key_first(f, key, value, out);
        rc = put_leaf(e, value);
        if (rc > 0) continue;
        *out = value;
        return rc < 0 ? -1 : REST;
    }
    if (f->at && rt_enc_sort_pairs(e, f) < 0) return -1;
    pop(e);
    return END;
}

static int rest_of_items(rt_enc *e, rt_enc_frame *f, PyObject **out) {
    PyObject *items = ((rt_frozen_obj *)f->obj)->items;
    while (f->done < f->n) {
        *out = PyTuple_GET_ITEM(items, f->done++);
        int rc = put_leaf(e, *out);
        if (rc <= 0) return rc < 0 ? -1 : REST;
    }
    if (!Py_IS_TYPE(f->obj, e->st->improper)) return end_list(e, f);
    if (f->done++ == f->n) {
        *out = ((rt_improper_obj *)f->obj)->tail;
        return ANY;
    }
    pop(e);
    return END;
}

static int rest_of(rt_enc *e, rt_enc_frame *f, PyObject **out) {
    switch (f->kind) {
    case F_LIST: return rest_of_list(e, f, out);
    case F_TUPLE: return rest_of_tuple(e, f, out);
    case F_ITEMS: return rest_of_items(e, f, out);
    default: return rest_of_dict(e, f, out);
    }
}

/* Room is only asked for when there is none, so the end is looked at too. */
static int check_size(rt_enc *e) {
    size_t n = (size_t)(e->w - e->base);
    if (e->apart && e->apart->bytes) n += (size_t)PyBytes_GET_SIZE(e->apart->bytes);
    if (RT_LIKELY(n <= e->codec->max_bytes)) return 0;
    return rt_enc_fail(e, "the term takes over %zu bytes (max_bytes)", e->codec->max_bytes);
}

static int run(rt_enc *e, PyObject *obj) {
    /* Most messages are tuples, which put_leaf would tell last. */
    int rc = Py_IS_TYPE(obj, &PyTuple_Type) ? REST : ANY;
    for (;;) {
        if (rc == ANY) {
            int leaf = put_leaf(e, obj);
            rc = leaf == 0 ? REST : leaf < 0 ? -1 : END;
        }
        while (rc == REST) rc = put_rest(e, &obj);
        if (rc < 0) return -1;
        if (e->depth == 0) return check_size(e);
        rc = rest_of(e, &e->stack[e->depth - 1], &obj);
    }
}

/* Entry points */

/* Without room, which comes from elsewhere. */
RT_INLINE void enc_init(rt_enc *e, const rt_codec *codec) {
    e->st = rt_py_st;
    e->codec = codec;
    e->buf = NULL;
    e->bytes = NULL;
    e->apart = NULL;
    e->scratch = e->canonical = false;
    e->stack = e->first;
    e->depth = 0;
    e->cap = RT_ENC_STACK;
}

RT_INLINE void drop_frames(rt_enc *e) {
    while (RT_UNLIKELY(e->depth)) pop(e);
    if (RT_UNLIKELY(e->stack != e->first)) rt_free(e->stack);
}

static void enc_fini(rt_enc *e) {
    drop_frames(e);
    if (e->scratch) e->st->scratch_taken = false;
    Py_XDECREF(e->bytes);
}

int rt_py_encode_apart(PyObject *codec, PyObject *term, rt_buf *out, rt_py_apart *apart) {
    rt_enc e;
    enc_init(&e, rt_py_codec(codec));
    e.apart = apart;
    if (apart) apart->bytes = NULL;
    size_t before = out->n;
    if (rt_buf_reserve(out, 64) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    e.buf = out;
    e.base = e.w = out->p + out->n;
    e.end = out->p + out->cap;
    int rc = run(&e, term);
    out->n = rc < 0 ? before : (size_t)(e.w - out->p);
    drop_frames(&e); /* there is no memory of its own */
    if (RT_UNLIKELY(rc < 0) && apart) Py_CLEAR(apart->bytes);
    return rc;
}

int rt_py_encode(PyObject *codec, PyObject *term, rt_buf *out) {
    return rt_py_encode_apart(codec, term, out, NULL);
}

/* Encodes into own memory, beginning after `head` bytes left for the caller. */
static int run_own(rt_enc *e, PyObject *term, size_t head) {
    rt_py_state *st = e->st;
    if (!st->scratch_taken) {
        st->scratch_taken = e->scratch = true;
        e->base = st->scratch;
        e->end = st->scratch + RT_PY_SCRATCH;
        e->w = e->base;
    } else {
        e->base = e->end = NULL;
        if (grow_own(e, 0, 256) < 0) return -1;
    }
    e->w += head;
    return run(e, term);
}

static PyObject *take_own(rt_enc *e) {
    size_t n = (size_t)(e->w - e->base);
    if (!e->bytes) return PyBytes_FromStringAndSize((char *)e->base, (Py_ssize_t)n);
    PyObject *bytes = e->bytes;
    e->bytes = NULL;
    if (_PyBytes_Resize(&bytes, (Py_ssize_t)n) < 0) return NULL;
    return bytes;
}

PyObject *rt_py_canonical(PyObject *term) {
    rt_enc e;
    enc_init(&e, (rt_codec *)rt_py_st->codec_default);
    e.canonical = true;
    PyObject *out = run_own(&e, term, 0) < 0 ? NULL : take_own(&e);
    enc_fini(&e);
    return out;
}

/* The compressed form when it is shorter, else NULL without an exception. */
static PyObject *compress(rt_enc *e, int level) {
    rt_buf buf = RT_BUF_INIT;
    size_t n = (size_t)(e->w - e->base);
    PyObject *out = NULL;
    uint8_t version = RT_TAG_VERSION;
    if (rt_buf_put(&buf, &version, 1) < 0 ||
        rt_term_deflate(&buf, e->base + 1, n - 1, level) < 0)
        PyErr_NoMemory();
    else if (buf.n < n)
        out = PyBytes_FromStringAndSize((char *)buf.p, (Py_ssize_t)buf.n);
    rt_buf_fini(&buf);
    return out;
}

/* Encodes straight into the memory, as far as it goes: what does not fit is finished elsewhere, so
 * that the error can say how long it is. */
PyObject *rt_py_encode_into(const rt_codec *codec, PyObject *term, uint8_t *p, size_t n,
                            size_t *used) {
    rt_enc e;
    PyObject *rest = NULL;
    enc_init(&e, codec);
    e.base = e.w = p;
    e.end = p + n;
    if (rt_enc_room(&e, 1) < 0) goto done;
    rt_enc_u8(&e, RT_TAG_VERSION);
    if (run(&e, term) < 0) goto done;
    *used = (size_t)(e.w - e.base);
    rest = e.bytes ? Py_NewRef(e.bytes) : Py_NewRef(Py_None);
done:
    enc_fini(&e);
    return rest;
}

PyObject *rt_py_encode_bytes(const rt_codec *codec, PyObject *term) {
    rt_enc e;
    PyObject *out = NULL;
    enc_init(&e, codec);
    if (run_own(&e, term, 1) < 0) goto done;
    e.base[0] = RT_TAG_VERSION;
    if (codec->compressed && (size_t)(e.w - e.base) - 1 <= UINT32_MAX)
        out = compress(&e, codec->compressed);
    if (!out && !PyErr_Occurred()) out = take_own(&e);
done:
    enc_fini(&e);
    return out;
}
