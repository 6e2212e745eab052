#include "base/limits.h"
#include "python/enc.h"

/* numpy scalars become Python's own numbers; arrays of native integers,
 * floats and bools are read through the buffer protocol, every other array
 * through its tolist. */

/* The longest a single element can get. */
#define ELEMENT_MAX 11u

typedef struct array {
    const Py_buffer *view;
    char code;
    bool is_float, is_bool, is_signed;
} array;

/* Understands the format letter of a native, C-sized number. */
static bool array_kind(const Py_buffer *v, array *a) {
    const char *f = v->format ? v->format : "B";
    if (*f == '@' || *f == '=') f++;
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    else if (*f == '>') f++;
#else
    else if (*f == '<') f++;
#endif
    if (!f[0] || f[1]) return false;
    a->view = v;
    a->code = *f;
    a->is_float = *f == 'f' || *f == 'd';
    a->is_bool = *f == '?';
    a->is_signed = strchr("bhilq", *f) != NULL;
    if (a->is_float) return v->itemsize == (*f == 'f' ? 4 : 8);
    if (!a->is_bool && !a->is_signed && !strchr("BHILQ", *f)) return false;
    return v->itemsize == 1 || v->itemsize == 2 || v->itemsize == 4 || v->itemsize == 8;
}

static int64_t read_signed(const char *p, Py_ssize_t size) {
    switch (size) {
    case 1: return *(const int8_t *)p;
    case 2: { int16_t v; memcpy(&v, p, 2); return v; }
    case 4: { int32_t v; memcpy(&v, p, 4); return v; }
    default: { int64_t v; memcpy(&v, p, 8); return v; }
    }
}

static uint64_t read_unsigned(const char *p, Py_ssize_t size) {
    switch (size) {
    case 1: return *(const uint8_t *)p;
    case 2: { uint16_t v; memcpy(&v, p, 2); return v; }
    case 4: { uint32_t v; memcpy(&v, p, 4); return v; }
    default: { uint64_t v; memcpy(&v, p, 8); return v; }
    }
}

static void put_u64(rt_enc *e, uint64_t v) {
    if (v <= INT64_MAX) {
        rt_enc_i64(e, (int64_t)v);
        return;
    }
    e->w[0] = RT_TAG_SMALL_BIG;
    e->w[1] = 8;
    e->w[2] = 0;
    for (int i = 0; i < 8; i++) e->w[3 + i] = (uint8_t)(v >> (8 * i));
    e->w += 11;
}

static int row_floats(rt_enc *e, const array *a, const char *p, Py_ssize_t n, Py_ssize_t step) {
    for (Py_ssize_t i = 0; i < n; i++, p += step) {
        double v;
        if (a->code == 'f') {
            float f;
            memcpy(&f, p, 4);
            v = f;
        } else {
            memcpy(&v, p, 8);
        }
        uint64_t bits;
        memcpy(&bits, &v, 8);
        if (RT_UNLIKELY((bits >> 52 & 0x7ff) == 0x7ff)) return rt_enc_double(e, v);
        e->w[0] = RT_TAG_NEW_FLOAT;
        rt_store_u64(e->w + 1, bits);
        e->w += 9;
    }
    return 0;
}

static int row_bools(rt_enc *e, const char *p, Py_ssize_t n, Py_ssize_t step) {
    for (Py_ssize_t i = 0; i < n; i++, p += step)
        if (rt_enc_atom_lit(e, *p ? "true" : "false", *p ? 4 : 5) < 0) return -1;
    return 0;
}

/* Bytes in a row are a STRING, as Erlang writes them. */
static void row_string(rt_enc *e, const char *p, Py_ssize_t n, Py_ssize_t step) {
    e->w[0] = RT_TAG_STRING;
    rt_store_u16(e->w + 1, (uint16_t)n);
    e->w += 3;
    for (Py_ssize_t i = 0; i < n; i++, p += step) *e->w++ = *(const uint8_t *)p;
}

/* Elements of a row, for which there is room. */
static int row_part(rt_enc *e, const array *a, const char *p, Py_ssize_t n, Py_ssize_t step) {
    Py_ssize_t size = a->view->itemsize;
    if (a->is_float) return row_floats(e, a, p, n, step);
    if (a->is_bool) return row_bools(e, p, n, step);
    if (a->is_signed)
        for (Py_ssize_t i = 0; i < n; i++, p += step) rt_enc_i64(e, read_signed(p, size));
    else
        for (Py_ssize_t i = 0; i < n; i++, p += step) put_u64(e, read_unsigned(p, size));
    return 0;
}

/* One list of numbers, with its header and its end. */
static int row(rt_enc *e, const array *a, const char *p, Py_ssize_t n, Py_ssize_t step) {
    if ((size_t)n > UINT32_MAX) return rt_enc_fail(e, "cannot encode a list of %zd elements", n);
    if (rt_enc_room(e, 6) < 0) return -1;
    if (n == 0) {
        rt_enc_u8(e, RT_TAG_NIL);
        return 0;
    }
    if (a->view->itemsize == 1 && !a->is_signed && !a->is_bool && n <= 65535) {
        if (rt_enc_room(e, 3 + (size_t)n) < 0) return -1;
        row_string(e, p, n, step);
        return 0;
    }
    rt_enc_tag_u32(e, RT_TAG_LIST, (uint32_t)n);
    size_t start = (size_t)(e->w - e->base);
    Py_ssize_t all = n;
    for (Py_ssize_t part; n > 0; n -= part, p += part * step) {
        part = n < 4096 ? n : 4096;
        if (rt_enc_room(e, (size_t)part * ELEMENT_MAX) < 0) return -1;
        if (row_part(e, a, p, part, step) < 0) return -1;
    }
    if (rt_enc_compact(e, start, all)) return 0;
    if (rt_enc_room(e, 1) < 0) return -1;
    rt_enc_u8(e, RT_TAG_NIL);
    return 0;
}

/* An array of one number, of no dimension. */
static int scalar(rt_enc *e, const array *a, const char *p) {
    if (rt_enc_room(e, ELEMENT_MAX) < 0) return -1;
    if (a->is_float) return row_floats(e, a, p, 1, 0);
    if (a->is_bool) return row_bools(e, p, 1, 0);
    if (a->is_signed) rt_enc_i64(e, read_signed(p, a->view->itemsize));
    else put_u64(e, read_unsigned(p, a->view->itemsize));
    return 0;
}

/* numpy allows 64 dimensions, the buffer protocol too. Walks them like an
 * odometer: `index` counts, `p` follows. */
static int nested(rt_enc *e, const array *a) {
    const Py_buffer *v = a->view;
    Py_ssize_t index[PyBUF_MAX_NDIM] = {0};
    const char *at[PyBUF_MAX_NDIM];
    int last = v->ndim - 1, d = 0;
    at[0] = v->buf;
    for (;;) {
        if (d == last) {
            if (row(e, a, at[d], v->shape[d], v->strides[d]) < 0) return -1;
        } else if (index[d] == 0) {
            if ((size_t)v->shape[d] > UINT32_MAX) return rt_enc_fail(e, "the array is too large");
            if (rt_enc_room(e, 6) < 0) return -1;
            if (v->shape[d] == 0) {
                rt_enc_u8(e, RT_TAG_NIL);
            } else {
                rt_enc_tag_u32(e, RT_TAG_LIST, (uint32_t)v->shape[d]);
                at[d + 1] = at[d];
                d++;
                index[d] = 0;
                continue;
            }
        }
        /* This list is written: go up to one that has elements left. */
        for (;;) {
            if (d == 0) return 0;
            d--;
            if (++index[d] < v->shape[d]) break;
            index[d] = 0;
            if (rt_enc_room(e, 1) < 0) return -1;
            rt_enc_u8(e, RT_TAG_NIL);
        }
        at[d + 1] = at[d] + index[d] * v->strides[d];
        d++;
        index[d] = 0;
    }
}

static int from_buffer(rt_enc *e, PyObject *obj) {
    Py_buffer view;
    array a;
    if (PyObject_GetBuffer(obj, &view, PyBUF_STRIDES | PyBUF_FORMAT) < 0) {
        /* Some kinds, such as dates, have no buffer; tolist tells more. */
        if (!PyErr_ExceptionMatches(PyExc_ValueError) &&
            !PyErr_ExceptionMatches(PyExc_BufferError))
            return -1;
        PyErr_Clear();
        return 0;
    }
    int rc = 0;
    if ((uint32_t)view.ndim > e->codec->max_depth - e->depth)
        rc = rt_enc_fail(e, "the term is nested over %u deep (max_depth)",
                         (unsigned)e->codec->max_depth);
    else if (array_kind(&view, &a))
        rc = (view.ndim ? nested(e, &a) : scalar(e, &a, view.buf)) < 0 ? -1 : 1;
    PyBuffer_Release(&view);
    return rc;
}

int rt_enc_foreign(rt_enc *e, PyObject *obj, PyObject **instead) {
    rt_py_state *st = e->st;
    int found = rt_py_numpy(st);
    if (found <= 0) return found;
    int array = PyObject_IsInstance(obj, st->np_ndarray);
    if (array < 0) return -1;
    if (array) {
        int rc = from_buffer(e, obj);
        if (rc) return rc;
        *instead = PyObject_CallMethod(obj, "tolist", NULL);
        return *instead ? 2 : -1;
    }
    int generic = PyObject_IsInstance(obj, st->np_generic);
    if (generic <= 0) return generic;
    int is;
    if ((is = PyObject_IsInstance(obj, st->np_bool)) > 0)
        *instead = PyBool_FromLong(PyObject_IsTrue(obj));
    else if (is == 0 && (is = PyObject_IsInstance(obj, st->np_integer)) > 0)
        *instead = PyNumber_Index(obj);
    else if (is == 0 && (is = PyObject_IsInstance(obj, st->np_floating)) > 0)
        *instead = PyNumber_Float(obj);
    if (is <= 0) return is;
    return *instead ? 2 : -1;
}
