#include <math.h>

#include "base/limits.h"
#include "python/dec.h"
#include "term/ident.h"
#include "term/scan.h"
#include "term/text_float.h"
#include "term/utf8.h"

PyObject *rt_dec_fail(const rt_dec *d, const uint8_t *at, const char *text) {
    Py_ssize_t offset = at - d->from;
    PyObject *error = PyObject_CallFunction(d->st->decode_error, "sn", text, offset);
    if (error) PyErr_SetObject(d->st->decode_error, error);
    Py_XDECREF(error);
    return NULL;
}

/* Atoms */

PyObject *rt_dec_special(const rt_dec *d, rt_atom_obj *a) {
    bool undefined = d->codec->none_undefined;
    switch (a->special) {
    case RT_ATOM_TRUE: return Py_NewRef(Py_True);
    case RT_ATOM_FALSE: return Py_NewRef(Py_False);
    case RT_ATOM_NIL: return Py_NewRef(undefined ? (PyObject *)a : Py_None);
    default: return Py_NewRef(undefined ? Py_None : (PyObject *)a);
    }
}

static PyObject *atom_slow(rt_dec *d, const uint8_t *p, size_t n, bool plain) {
    int64_t chars = n > RT_ATOM_BYTES_MAX ? (int64_t)n : rt_utf8_chars(p, n);
    if (chars < 0) return rt_dec_fail(d, d->c.p - n, "an atom's name is not UTF-8");
    if (chars > (int64_t)RT_ATOM_CHARS_MAX)
        return rt_dec_fail(d, d->c.p - n, "an atom has over 255 characters");
    PyObject *atom = rt_py_atom_get(p, n, d->codec->safe);
    if (!atom) {
        if (PyErr_Occurred()) return NULL;
        return rt_dec_fail(d, d->c.p - n, "an unknown atom, refused by safe=True");
    }
    PyObject *value = rt_dec_atom_value(d, (rt_atom_obj *)atom, plain);
    Py_DECREF(atom);
    return value;
}

static PyObject *atom_latin1(rt_dec *d, const uint8_t *p, size_t n, bool plain) {
    uint8_t utf8[2 * RT_ATOM_CHARS_MAX];
    if (n > RT_ATOM_CHARS_MAX)
        return rt_dec_fail(d, d->c.p - n, "an atom has over 255 characters");
    size_t len = rt_utf8_from_latin1(utf8, p, n);
    PyObject *atom = rt_py_atom_get(utf8, len, d->codec->safe);
    if (!atom) {
        if (PyErr_Occurred()) return NULL;
        return rt_dec_fail(d, d->c.p - n, "an unknown atom, refused by safe=True");
    }
    PyObject *value = rt_dec_atom_value(d, (rt_atom_obj *)atom, plain);
    Py_DECREF(atom);
    return value;
}

/* `plain` leaves true, false and nil atoms, as in the name of a node. */
PyObject *rt_dec_atom(rt_dec *d, uint8_t tag, bool plain) {
    size_t n;
    uint8_t n8;
    uint16_t n16;
    rt_slice name;
    if (tag == RT_TAG_SMALL_ATOM_UTF8 || tag == RT_TAG_SMALL_ATOM_LATIN1) {
        if (RT_UNLIKELY(!rt_cursor_u8(&d->c, &n8))) return rt_dec_cut(d);
        n = n8;
    } else if (tag == RT_TAG_ATOM_UTF8 || tag == RT_TAG_ATOM_LATIN1) {
        if (RT_UNLIKELY(!rt_cursor_u16(&d->c, &n16))) return rt_dec_cut(d);
        n = n16;
    } else {
        return rt_dec_fail(d, d->c.p - 1, "expected an atom");
    }
    if (RT_UNLIKELY(!rt_cursor_take(&d->c, n, &name))) return rt_dec_cut(d);
    bool latin1 = tag == RT_TAG_ATOM_LATIN1 || tag == RT_TAG_SMALL_ATOM_LATIN1;
    if (RT_UNLIKELY(latin1 && !rt_ascii(name.p, n))) return atom_latin1(d, name.p, n, plain);
    size_t slot;
    rt_atom_obj *recent = rt_py_atom_recent(d->st, name.p, n, &slot);
    if (RT_LIKELY(recent)) return rt_dec_atom_value(d, recent, plain);
    return atom_slow(d, name.p, n, plain);
}

static PyObject *atom_next(rt_dec *d) {
    uint8_t tag;
    if (!rt_cursor_u8(&d->c, &tag)) return rt_dec_cut(d);
    return rt_dec_atom(d, tag, true);
}

/* Numbers */

static PyObject *big(rt_dec *d, size_t n) {
    uint8_t sign;
    rt_slice digits;
    if (!rt_cursor_u8(&d->c, &sign) || !rt_cursor_take(&d->c, n, &digits)) return rt_dec_cut(d);
    if (n <= 8) {
        uint64_t v = 0;
        /* Reads 8 bytes at once where the input goes on that far. */
        if (RT_LIKELY(n && (size_t)(d->c.end - digits.p) >= 8))
            v = __builtin_bswap64(rt_load_u64(digits.p)) & UINT64_MAX >> (64 - 8 * n);
        else
            for (size_t i = n; i-- > 0;) v = v << 8 | digits.p[i];
        if (!sign) return PyLong_FromUnsignedLongLong(v);
        if (v <= INT64_MAX) return PyLong_FromLongLong(-(int64_t)v);
    }
#if PY_VERSION_HEX >= 0x030d0000
    PyObject *num = PyLong_FromUnsignedNativeBytes(digits.p, n, Py_ASNATIVEBYTES_LITTLE_ENDIAN);
#else
    PyObject *num = _PyLong_FromByteArray(digits.p, n, 1, 0);
#endif
    if (num && sign) Py_SETREF(num, PyNumber_Negative(num));
    return num;
}

PyObject *rt_dec_big(rt_dec *d, uint8_t tag) {
    uint8_t n8;
    uint32_t n32;
    if (tag == RT_TAG_SMALL_BIG)
        return rt_cursor_u8(&d->c, &n8) ? big(d, n8) : rt_dec_cut(d);
    return rt_cursor_u32(&d->c, &n32) ? big(d, n32) : rt_dec_cut(d);
}

PyObject *rt_dec_float(rt_dec *d, uint8_t tag) {
    double v;
    if (tag == RT_TAG_NEW_FLOAT) {
        uint64_t bits;
        if (!rt_cursor_u64(&d->c, &bits)) return rt_dec_cut(d);
        memcpy(&v, &bits, 8);
    } else {
        rt_slice text;
        char copy[RT_TEXT_FLOAT_BYTES + 1];
        if (!rt_cursor_take(&d->c, RT_TEXT_FLOAT_BYTES, &text)) return rt_dec_cut(d);
        if (rt_text_float_check(text.p) < 0)
            return rt_dec_fail(d, text.p, "the text of a float is malformed");
        memcpy(copy, text.p, RT_TEXT_FLOAT_BYTES);
        copy[RT_TEXT_FLOAT_BYTES] = 0;
        v = PyOS_string_to_double(copy, NULL, NULL);
        if (v == -1.0 && PyErr_Occurred()) {
            PyErr_Clear();
            return rt_dec_fail(d, text.p, "the text of a float is malformed");
        }
    }
    if (RT_UNLIKELY(!isfinite(v))) return rt_dec_fail(d, d->c.p - 8, "a float is not finite");
    return PyFloat_FromDouble(v);
}

/* Binaries and strings */

/* Not in the cache: takes the place of what is. */
PyObject *rt_dec_new_key_bytes(PyObject **slot, const uint8_t *p, size_t n) {
    PyObject *key = PyBytes_FromStringAndSize((const char *)p, (Py_ssize_t)n);
    if (key) Py_XSETREF(*slot, Py_NewRef(key));
    return key;
}

PyObject *rt_dec_text(const uint8_t *p, size_t n) {
    if (RT_LIKELY(rt_ascii(p, n))) {
        PyObject *str = PyUnicode_New((Py_ssize_t)n, 127);
        if (RT_LIKELY(str)) rt_py_copy((uint8_t *)(((PyASCIIObject *)str) + 1), p, n);
        return str;
    }
    if (rt_utf8_chars(p, n) < 0)
        return PyBytes_FromStringAndSize((const char *)p, (Py_ssize_t)n);
    return PyUnicode_DecodeUTF8((const char *)p, (Py_ssize_t)n, NULL);
}

/* Only ASCII keys are kept: the bytes of the others are not those of their text. */
PyObject *rt_dec_new_key_str(PyObject **slot, const uint8_t *p, size_t n) {
    PyObject *key = rt_dec_text(p, n);
    if (key && PyUnicode_CheckExact(key) && PyUnicode_IS_ASCII(key))
        Py_XSETREF(*slot, Py_NewRef(key));
    return key;
}

static PyObject *binary_str(rt_dec *d, const uint8_t *p, size_t n) {
    return d->keys && n && n <= RT_PY_KEY_BYTES_MAX ? rt_dec_key_str(d, p, n) : rt_dec_text(p, n);
}

static PyObject *binary_view(rt_dec *d, const uint8_t *p, size_t n) {
    if (d->owner) {
        Py_ssize_t at = p - d->from;
        PyObject *from = PyLong_FromSsize_t(at), *to = PyLong_FromSsize_t(at + (Py_ssize_t)n);
        PyObject *slice = from && to ? PySlice_New(from, to, NULL) : NULL;
        PyObject *view = slice ? PyObject_GetItem(d->owner, slice) : NULL;
        Py_XDECREF(from);
        Py_XDECREF(to);
        Py_XDECREF(slice);
        return view;
    }
    PyObject *copy = PyBytes_FromStringAndSize((const char *)p, (Py_ssize_t)n);
    PyObject *view = copy ? PyMemoryView_FromObject(copy) : NULL;
    Py_XDECREF(copy);
    return view;
}

static PyObject *binary_of(rt_dec *d, const uint8_t *p, size_t n) {
    switch (d->codec->binaries) {
    case RT_BINARIES_STR: return binary_str(d, p, n);
    case RT_BINARIES_VIEW:
        if (!d->keys) return binary_view(d, p, n);
        break;
    default: break;
    }
    if (d->keys && n <= RT_PY_KEY_BYTES_MAX) return rt_dec_key_bytes(d, p, n);
    return PyBytes_FromStringAndSize((const char *)p, (Py_ssize_t)n);
}

PyObject *rt_dec_binary(rt_dec *d) {
    uint32_t n;
    rt_slice data;
    if (RT_UNLIKELY(!rt_cursor_u32(&d->c, &n) || !rt_cursor_take(&d->c, n, &data)))
        return rt_dec_cut(d);
    return binary_of(d, data.p, n);
}

PyObject *rt_dec_bits(rt_dec *d) {
    uint32_t n;
    uint8_t bits;
    rt_slice data;
    if (!rt_cursor_u32(&d->c, &n) || !rt_cursor_u8(&d->c, &bits)) return rt_dec_cut(d);
    if (bits > 8 || (bits == 0) != (n == 0))
        return rt_dec_fail(d, d->c.p - 1, "a bitstring's last byte has a wrong number of bits");
    if (!rt_cursor_take(&d->c, n, &data)) return rt_dec_cut(d);
    if (n == 0 || bits == 8) return binary_of(d, data.p, n);
    return rt_py_bits_new(data.p, n, bits);
}

PyObject *rt_dec_string(rt_dec *d) {
    uint16_t n;
    rt_slice data;
    if (!rt_cursor_u16(&d->c, &n) || !rt_cursor_take(&d->c, n, &data)) return rt_dec_cut(d);
    if (d->codec->strings_str && !d->keys)
        return PyUnicode_DecodeLatin1((const char *)data.p, n, NULL);
    PyObject *seq = d->keys ? PyTuple_New(n) : PyList_New(n);
    for (size_t i = 0; seq && i < n; i++) {
        PyObject *v = Py_NewRef(d->st->small[data.p[i]]);
        if (d->keys) PyTuple_SET_ITEM(seq, (Py_ssize_t)i, v);
        else PyList_SET_ITEM(seq, (Py_ssize_t)i, v);
    }
    if (seq && d->keys) Py_SETREF(seq, rt_py_frozen_new(seq));
    return seq;
}

/* Identifiers */

enum { OLD_CREATION_MAX = 3, OLD_REF_WORD_MAX = (1 << 18) - 1 };

#define IDENT_MAX (3 + 3 + RT_ATOM_BYTES_MAX + 4 + 4 * RT_REF_WORDS_MAX)

/* The Pid with these canonical bytes: a recent one, or a new one. */
static PyObject *pid_of(rt_dec *d, const uint8_t *ext, size_t n, PyObject *node) {
    uint64_t h = rt_load_u64(ext + n - 12) * 0x9e3779b97f4a7c15ULL ^ rt_load_u32(ext + n - 4);
    PyObject **slot = &d->st->pid_cache[(h >> 32 ^ n) & (RT_PY_PID_CACHE - 1)];
    rt_ident_obj *recent = (rt_ident_obj *)*slot;
    if (recent && (size_t)Py_SIZE(recent) == n && rt_py_same(recent->ext, ext, n))
        return Py_NewRef((PyObject *)recent);
    if (!node) return NULL;
    PyObject *pid = rt_py_ident_new(d->st->pid, node, ext, n);
    if (pid) Py_XSETREF(*slot, Py_NewRef(pid));
    return pid;
}

PyObject *rt_dec_recent_pid(rt_dec *d) {
    const uint8_t *p = d->c.p;
    size_t left = rt_cursor_left(&d->c), n;
    if (left < 3 || p[1] != RT_TAG_SMALL_ATOM_UTF8 || left < (n = 3u + p[2] + 12u)) return NULL;
    PyObject *pid = pid_of(d, p, n, NULL);
    if (RT_LIKELY(pid)) d->c.p = p + n;
    return pid;
}

PyObject *rt_dec_recent_ref(rt_dec *d) {
    const uint8_t *p = d->c.p;
    size_t left = rt_cursor_left(&d->c), slot, n;
    if (left < 5 || p[1] != 0 || p[2] > RT_REF_WORDS_MAX || p[3] != RT_TAG_SMALL_ATOM_UTF8 ||
        left < (n = 5u + p[4] + 4u + 4u * p[2]))
        return NULL;
    rt_atom_obj *node = rt_py_atom_recent(d->st, p + 5, p[4], &slot);
    PyObject *ref = node ? rt_py_ident_new(d->st->ref, (PyObject *)node, p, n) : NULL;
    if (RT_LIKELY(ref)) d->c.p = p + n;
    return ref;
}

/* Copies `n` bytes of numbers; false at the end of the input. */
static bool numbers(rt_dec *d, uint8_t **w, size_t n) {
    rt_slice s;
    if (!rt_cursor_take(&d->c, n, &s)) return false;
    memcpy(*w, s.p, n);
    *w += n;
    return true;
}

/* A creation of 32 bits, or of one byte with two bits in the old forms. */
static bool creation(rt_dec *d, uint8_t **w, bool old) {
    if (!old) return numbers(d, w, 4);
    memset(*w, 0, 3);
    *w += 3;
    return numbers(d, w, 1);
}

static bool ref_numbers(rt_dec *d, uint8_t **w, uint8_t tag, size_t words) {
    if (tag != RT_TAG_REFERENCE)
        return creation(d, w, tag == RT_TAG_NEW_REFERENCE) && numbers(d, w, 4 * words);
    /* The oldest form has its only word before the creation. */
    uint8_t word[4], *at = word;
    if (!numbers(d, &at, 4) || !creation(d, w, true)) return false;
    memcpy(*w, word, 4);
    *w += 4;
    return true;
}

/* The old forms have unused bits, which must be 0. `from` is where the numbers
 * start in the canonical bytes. */
static bool numbers_fit(uint8_t tag, const uint8_t *from, const uint8_t *end) {
    switch (tag) {
    case RT_TAG_PID:
    case RT_TAG_PORT: return end[-1] <= OLD_CREATION_MAX;
    case RT_TAG_REFERENCE:
    case RT_TAG_NEW_REFERENCE:
        return from[3] <= OLD_CREATION_MAX &&
               (end - from == 4 || rt_load_u32(from + 4) <= OLD_REF_WORD_MAX);
    default: return true;
    }
}

static bool ident_numbers(rt_dec *d, uint8_t **w, uint8_t tag, size_t words) {
    switch (tag) {
    case RT_TAG_NEW_PID:
    case RT_TAG_PID: return numbers(d, w, 8) && creation(d, w, tag == RT_TAG_PID);
    case RT_TAG_NEW_PORT:
    case RT_TAG_PORT:
        memset(*w, 0, 4);
        *w += 4;
        return numbers(d, w, 4) && creation(d, w, tag == RT_TAG_PORT);
    case RT_TAG_V4_PORT: return numbers(d, w, 12);
    default: return ref_numbers(d, w, tag, words);
    }
}

static PyTypeObject *ident_type(rt_py_state *st, uint8_t tag, uint8_t *canonical) {
    switch (tag) {
    case RT_TAG_NEW_PID:
    case RT_TAG_PID: *canonical = RT_TAG_NEW_PID; return st->pid;
    case RT_TAG_NEW_PORT:
    case RT_TAG_PORT:
    case RT_TAG_V4_PORT: *canonical = RT_TAG_V4_PORT; return st->port;
    default: *canonical = RT_TAG_NEWER_REFERENCE; return st->ref;
    }
}

PyObject *rt_dec_ident(rt_dec *d, uint8_t tag) {
    uint8_t ext[IDENT_MAX], *w = ext;
    uint16_t words = 1;
    PyTypeObject *type = ident_type(d->st, tag, w++);
    if (type == d->st->ref) {
        if (tag != RT_TAG_REFERENCE && !rt_cursor_u16(&d->c, &words)) return rt_dec_cut(d);
        if (words > RT_REF_WORDS_MAX)
            return rt_dec_fail(d, d->c.p - 2, "a reference has over 5 words");
        *w++ = 0;
        *w++ = (uint8_t)words;
    }
    PyObject *node = atom_next(d);
    if (!node) return NULL;
    rt_atom_obj *a = (rt_atom_obj *)node;
    memcpy(w, a->ext, a->ext_n);
    w += a->ext_n;
    const uint8_t *at = d->c.p;
    uint8_t *from = w;
    PyObject *out;
    if (!ident_numbers(d, &w, tag, words)) out = rt_dec_cut(d);
    else if (!numbers_fit(tag, from, w)) out = rt_dec_fail(d, at, "a number is out of range");
    else if (type == d->st->pid) out = pid_of(d, ext, (size_t)(w - ext), node);
    else out = rt_py_ident_new(type, node, ext, (size_t)(w - ext));
    Py_DECREF(node);
    return out;
}

/* Functions */

enum { FUN_FREE_MAX = 255 };

PyObject *rt_dec_export(rt_dec *d) {
    int64_t arity;
    PyObject *out = NULL;
    if (d->codec->safe)
        return rt_dec_fail(d, d->c.p - 1, "an external function, refused by safe=True");
    PyObject *module = atom_next(d);
    PyObject *function = module ? atom_next(d) : NULL;
    if (!function) goto done;
    const uint8_t *at = d->c.p;
    int rc = rt_read_i64(&d->c, &arity);
    if (rc == RT_AGAIN) rt_dec_cut(d);
    else if (rc < 0 || arity < 0 || arity > INT32_MAX)
        rt_dec_fail(d, at, "an arity is out of range");
    else out = rt_py_export_new(module, function, (int)arity);
done:
    Py_XDECREF(module);
    Py_XDECREF(function);
    return out;
}

/* An old index or uniq: what fits an Erlang word with its tag. */
static PyObject *small_next(rt_dec *d) {
    int64_t v;
    const uint8_t *at = d->c.p;
    int rc = rt_read_i64(&d->c, &v);
    if (rc == RT_AGAIN) return rt_dec_cut(d);
    if (rc < 0 || v < -(INT64_C(1) << 59) || v >= INT64_C(1) << 59)
        return rt_dec_fail(d, at, "expected a small integer in a fun");
    return PyLong_FromLongLong(v);
}

static PyObject *pid_next(rt_dec *d) {
    uint8_t tag;
    if (!rt_cursor_u8(&d->c, &tag)) return rt_dec_cut(d);
    if (tag != RT_TAG_NEW_PID && tag != RT_TAG_PID)
        return rt_dec_fail(d, d->c.p - 1, "expected a pid in a fun");
    return rt_dec_ident(d, tag);
}

/* Moves over the free variables, checking them. */
static bool skip_free(rt_dec *d, uint32_t count) {
    if (count > FUN_FREE_MAX) {
        rt_dec_fail(d, d->c.p, "a fun has over 255 free variables");
        return false;
    }
    for (uint32_t i = 0; i < count; i++) {
        rt_scan scan = {.depth_max = d->codec->max_depth - d->above - d->depth};
        if (rt_cursor_left(&d->c) && *d->c.p == RT_TAG_COMPRESSED) {
            rt_dec_fail(d, d->c.p, "a compressed term inside another one");
            return false;
        }
        int64_t n = rt_term_scan(d->c.p, rt_cursor_left(&d->c), &scan);
        if (n == RT_ENOMEM) {
            PyErr_NoMemory();
            return false;
        }
        if (n < 0) {
            rt_dec_fail(d, d->c.p + scan.error_offset, "a free variable of a fun is malformed");
            return false;
        }
        d->c.p += n;
    }
    return true;
}

/* `c` of d is narrowed to the fun's own bytes. */
static PyObject *fun_body(rt_dec *d, const uint8_t *start) {
    PyObject *module = NULL, *index = NULL, *uniq = NULL, *pid = NULL, *out = NULL;
    rt_slice head;
    uint32_t count;
    if (!rt_cursor_take(&d->c, 21, &head) || !rt_cursor_u32(&d->c, &count)) {
        rt_dec_cut(d);
        goto done;
    }
    if (!(module = atom_next(d)) || !(index = small_next(d)) || !(uniq = small_next(d)) ||
        !(pid = pid_next(d)))
        goto done;
    size_t free_at = (size_t)(d->c.p - start);
    if (!skip_free(d, count)) goto done;
    if (d->c.p != d->c.end) rt_dec_fail(d, d->c.p, "a fun is shorter than its size");
    else out = rt_py_fun_new(start, (size_t)(d->c.p - start), free_at, module, pid, index, uniq);
done:
    Py_XDECREF(module);
    Py_XDECREF(index);
    Py_XDECREF(uniq);
    Py_XDECREF(pid);
    return out;
}

PyObject *rt_dec_fun(rt_dec *d) {
    const uint8_t *start = d->c.p - 1, *end = d->c.end;
    uint32_t size;
    if (d->codec->safe) return rt_dec_fail(d, start, "a fun, refused by safe=True");
    if (!rt_cursor_u32(&d->c, &size)) return rt_dec_cut(d);
    if (size < 4 || size - 4 > rt_cursor_left(&d->c))
        return rt_dec_fail(d, start + 1, "a fun's size is wrong");
    d->c.end = d->c.p + (size - 4);
    PyObject *fun = fun_body(d, start);
    d->c.end = end;
    return fun;
}
