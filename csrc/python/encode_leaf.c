#include <math.h>

#include "base/limits.h"
#include "python/enc.h"

int rt_enc_atom_lit(rt_enc *e, const char *name, size_t n) {
    if (rt_enc_room(e, 2 + n) < 0) return -1;
    uint8_t *w = e->w;
    e->w = w + 2 + n;
    w[0] = RT_TAG_SMALL_ATOM_UTF8;
    w[1] = (uint8_t)n;
    memcpy(w + 2, name, n);
    return 1;
}

int rt_enc_double(rt_enc *e, double v) {
    if (!isfinite(v)) return rt_enc_fail(e, "cannot encode the float %s", isnan(v) ? "nan" : "inf");
    if (rt_enc_room(e, 9) < 0) return -1;
    uint64_t bits;
    memcpy(&bits, &v, 8);
    uint8_t *w = e->w;
    e->w = w + 9;
    w[0] = RT_TAG_NEW_FLOAT;
    rt_store_u64(w + 1, bits);
    return 1;
}

int rt_enc_bytes(rt_enc *e, const void *p, size_t n) {
    if (n > UINT32_MAX) return rt_enc_fail(e, "cannot encode a binary of %zu bytes", n);
    if (rt_enc_room(e, 5 + n) < 0) return -1;
    if (n) rt_enc_run(e, RT_TAG_BINARY, p, n);
    else rt_enc_tag_u32(e, RT_TAG_BINARY, 0);
    return 1;
}

/* Writes code points as UTF-8; NULL at a surrogate. */
static uint8_t *put_utf8(uint8_t *w, const void *data, int kind, Py_ssize_t n) {
    for (Py_ssize_t i = 0; i < n; i++) {
        uint32_t c = PyUnicode_READ(kind, data, i);
        if (c < 0x80) {
            *w++ = (uint8_t)c;
        } else if (c < 0x800) {
            *w++ = (uint8_t)(0xc0 | c >> 6);
            *w++ = (uint8_t)(0x80 | (c & 63));
        } else if (c < 0x10000) {
            if (c >= 0xd800 && c < 0xe000) return NULL;
            *w++ = (uint8_t)(0xe0 | c >> 12);
            *w++ = (uint8_t)(0x80 | (c >> 6 & 63));
            *w++ = (uint8_t)(0x80 | (c & 63));
        } else {
            *w++ = (uint8_t)(0xf0 | c >> 18);
            *w++ = (uint8_t)(0x80 | (c >> 12 & 63));
            *w++ = (uint8_t)(0x80 | (c >> 6 & 63));
            *w++ = (uint8_t)(0x80 | (c & 63));
        }
    }
    return w;
}

static int text_atom(rt_enc *e, PyObject *str) {
    if (PyUnicode_GET_LENGTH(str) > (Py_ssize_t)RT_ATOM_CHARS_MAX)
        return rt_enc_fail(e, "an atom has at most 255 characters, not %zd",
                           PyUnicode_GET_LENGTH(str));
    uint8_t utf8[RT_ATOM_BYTES_MAX];
    uint8_t *end = put_utf8(utf8, PyUnicode_DATA(str), (int)PyUnicode_KIND(str),
                            PyUnicode_GET_LENGTH(str));
    if (!end) return rt_enc_fail(e, "cannot encode a str with surrogates");
    size_t n = (size_t)(end - utf8);
    if (rt_enc_room(e, 3 + n) < 0) return -1;
    rt_enc_u8(e, n < 256 ? RT_TAG_SMALL_ATOM_UTF8 : RT_TAG_ATOM_UTF8);
    if (n >= 256) rt_enc_u8(e, (uint8_t)(n >> 8));
    rt_enc_u8(e, (uint8_t)n);
    memcpy(e->w, utf8, n);
    e->w += n;
    return 1;
}

int rt_enc_text(rt_enc *e, PyObject *str) {
    if (e->codec->text_atom && !e->canonical) return text_atom(e, str);
    size_t n = (size_t)PyUnicode_GET_LENGTH(str);
    if (PyUnicode_IS_ASCII(str)) return rt_enc_bytes(e, PyUnicode_DATA(str), n);
    int kind = (int)PyUnicode_KIND(str);
    if (n > UINT32_MAX / 4) return rt_enc_fail(e, "cannot encode a str of %zu characters", n);
    if (rt_enc_room(e, 5 + n * (size_t)(kind == 4 ? 4 : kind + 1)) < 0) return -1;
    uint8_t *end = put_utf8(e->w + 5, PyUnicode_DATA(str), kind, (Py_ssize_t)n);
    if (!end) return rt_enc_fail(e, "cannot encode a str with surrogates");
    e->w[0] = RT_TAG_BINARY;
    rt_store_u32(e->w + 1, (uint32_t)(end - e->w - 5));
    e->w = end;
    return 1;
}

/* The magnitude, lowest byte first, into n bytes; 0 in the top ones if n is
 * more than needed. */
static int big_bytes(PyObject *magnitude, uint8_t *p, size_t n) {
#if PY_VERSION_HEX >= 0x030d0000
    return PyLong_AsNativeBytes(magnitude, p, (Py_ssize_t)n,
                                Py_ASNATIVEBYTES_LITTLE_ENDIAN |
                                    Py_ASNATIVEBYTES_UNSIGNED_BUFFER) < 0 ? -1 : 0;
#else
    return _PyLong_AsByteArray((PyLongObject *)magnitude, p, n, 1, 0);
#endif
}

static Py_ssize_t big_size(PyObject *magnitude) {
#if PY_VERSION_HEX >= 0x030d0000
    return PyLong_AsNativeBytes(magnitude, NULL, 0, Py_ASNATIVEBYTES_LITTLE_ENDIAN |
                                                        Py_ASNATIVEBYTES_UNSIGNED_BUFFER);
#else
    size_t bits = _PyLong_NumBits(magnitude);
    return bits == (size_t)-1 ? -1 : (Py_ssize_t)((bits + 7) / 8);
#endif
}

int rt_enc_big(rt_enc *e, PyObject *num) {
    int overflow;
    long long v = PyLong_AsLongLongAndOverflow(num, &overflow);
    if (!overflow) {
        if (v == -1 && PyErr_Occurred()) return -1;
        if (rt_enc_room(e, 11) < 0) return -1;
        rt_enc_i64(e, v);
        return 1;
    }
    /* int's own slots, so that no override of a subclass runs. */
    PyNumberMethods *slots = PyLong_Type.tp_as_number;
    PyObject *magnitude = overflow < 0 ? slots->nb_negative(num) : slots->nb_positive(num);
    if (!magnitude) return -1;
    Py_ssize_t n = big_size(magnitude);
    int rc = -1;
    if (n < 0) goto done;
    if ((size_t)n > UINT32_MAX) {
        rc = rt_enc_fail(e, "cannot encode an integer of %zd bytes", n);
        goto done;
    }
    if (rt_enc_room(e, 6 + (size_t)n) < 0) goto done;
    uint8_t *at = e->w + (n < 256 ? 3 : 6);
    if (big_bytes(magnitude, at, (size_t)n) < 0) goto done;
    while (n && at[n - 1] == 0) n--;
    if (at == e->w + 6 && n < 256) memmove(e->w + 3, at, (size_t)n);
    if (n < 256) {
        e->w[0] = RT_TAG_SMALL_BIG;
        e->w[1] = (uint8_t)n;
        e->w[2] = overflow < 0;
        e->w += 3 + n;
    } else {
        e->w[0] = RT_TAG_LARGE_BIG;
        rt_store_u32(e->w + 1, (uint32_t)n);
        e->w[5] = overflow < 0;
        e->w += 6 + n;
    }
    rc = 1;
done:
    Py_DECREF(magnitude);
    return rc;
}

static int put_raw(rt_enc *e, const void *p, size_t n) {
    if (rt_enc_room(e, n) < 0) return -1;
    memcpy(e->w, p, n);
    e->w += n;
    return 1;
}

/* Erlang writes a port of up to 28 bits in the form that older nodes read. */
static int put_port(rt_enc *e, PyObject *obj) {
    rt_ident_obj *p = (rt_ident_obj *)obj;
    size_t n = (size_t)Py_SIZE(p);
    if (rt_py_port_id(p) >> 28) return put_raw(e, p->ext, n);
    if (rt_enc_room(e, n - 4) < 0) return -1;
    memcpy(e->w, p->ext, n - 12);
    memcpy(e->w + n - 12, p->ext + n - 8, 8);
    e->w[0] = RT_TAG_NEW_PORT;
    e->w += n - 4;
    return 1;
}

static int put_export(rt_enc *e, PyObject *obj) {
    rt_export_obj *x = (rt_export_obj *)obj;
    rt_atom_obj *m = (rt_atom_obj *)x->module, *f = (rt_atom_obj *)x->function;
    if (rt_enc_room(e, 12u + m->ext_n + f->ext_n) < 0) return -1;
    rt_enc_u8(e, RT_TAG_EXPORT);
    memcpy(e->w, m->ext, m->ext_n);
    e->w += m->ext_n;
    memcpy(e->w, f->ext, f->ext_n);
    e->w += f->ext_n;
    rt_enc_i64(e, x->arity);
    return 1;
}

static int put_bits(rt_enc *e, PyObject *obj) {
    rt_bits_obj *b = (rt_bits_obj *)obj;
    size_t n = (size_t)PyBytes_GET_SIZE(b->data);
    if (n > UINT32_MAX) return rt_enc_fail(e, "cannot encode a bitstring of %zu bytes", n);
    if (rt_enc_room(e, 6 + n) < 0) return -1;
    rt_enc_tag_u32(e, RT_TAG_BIT_BINARY, (uint32_t)n);
    rt_enc_u8(e, (uint8_t)b->bits);
    memcpy(e->w, PyBytes_AS_STRING(b->data), n);
    e->w += n;
    return 1;
}

static int put_buffer(rt_enc *e, PyObject *obj) {
    Py_buffer view;
    if (PyObject_GetBuffer(obj, &view, PyBUF_FULL_RO) < 0) return -1;
    int rc;
    if (PyBuffer_IsContiguous(&view, 'C')) {
        rc = rt_enc_bytes(e, view.buf, (size_t)view.len);
    } else {
        size_t n = (size_t)view.len;
        rc = n > UINT32_MAX ? rt_enc_fail(e, "cannot encode a binary of %zu bytes", n)
                            : rt_enc_room(e, 5 + n);
        if (rc == 0 && (rc = PyBuffer_ToContiguous(e->w + 5, &view, view.len, 'C')) == 0) {
            e->w[0] = RT_TAG_BINARY;
            rt_store_u32(e->w + 1, (uint32_t)n);
            e->w += 5 + n;
            rc = 1;
        }
    }
    PyBuffer_Release(&view);
    return rc;
}

/* Leaves that are no exact str, bytes, int, float, bool or None. */
int rt_enc_own(rt_enc *e, PyObject *obj) {
    rt_py_state *st = e->st;
    PyTypeObject *t = Py_TYPE(obj);
    if (t == st->pid || t == st->ref)
        return put_raw(e, ((rt_ident_obj *)obj)->ext, (size_t)Py_SIZE(obj));
    if (t == st->port) return put_port(e, obj);
    if (t == st->fun) {
        PyObject *raw = ((rt_fun_obj *)obj)->raw;
        return put_raw(e, PyBytes_AS_STRING(raw), (size_t)PyBytes_GET_SIZE(raw));
    }
    if (t == st->export) return put_export(e, obj);
    if (t == st->bits) return put_bits(e, obj);
    if (PyByteArray_Check(obj) || PyMemoryView_Check(obj)) return put_buffer(e, obj);
    if (PyBytes_Check(obj))
        return rt_enc_bytes(e, PyBytes_AS_STRING(obj), (size_t)PyBytes_GET_SIZE(obj));
    if (PyUnicode_Check(obj)) return rt_enc_text(e, obj);
    if (PyLong_Check(obj)) return rt_enc_big(e, obj);
    if (PyFloat_Check(obj)) return rt_enc_double(e, PyFloat_AS_DOUBLE(obj));
    return 0;
}
