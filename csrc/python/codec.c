#include "python/codec.h"

#include "base/limits.h"
#include "python/terms.h"

#define MAX_BYTES_DEFAULT (1u << 30)
#define MAX_DEPTH_DEFAULT 10000u
#define MAX_DEPTH_MAX 1000000u

static const char *const binaries_names[] = {"bytes", "str", "memoryview", NULL};
static const char *const strings_names[] = {"list", "str", NULL};
static const char *const none_names[] = {"nil", "undefined", NULL};
static const char *const text_names[] = {"binary", "atom", NULL};

int rt_py_is_codec(PyObject *obj) {
    return obj && Py_IS_TYPE(obj, rt_py_st->codec);
}

/* The index of a policy's value; ValueError naming the choices. */
static int choice(const char *policy, PyObject *value, const char *const *names, uint8_t *out) {
    if (!value) return 0;
    PyObject *list = PyUnicode_FromString("");
    for (uint8_t i = 0; list && names[i]; i++) {
        if (PyUnicode_Check(value) && PyUnicode_CompareWithASCIIString(value, names[i]) == 0) {
            Py_DECREF(list);
            *out = i;
            return 0;
        }
        PyUnicode_AppendAndDel(&list, PyUnicode_FromFormat(i ? ", '%s'" : "'%s'", names[i]));
    }
    if (list) PyErr_Format(PyExc_ValueError, "%s must be one of %U, not %R", policy, list, value);
    Py_XDECREF(list);
    return -1;
}

static int number(const char *policy, PyObject *value, long long low, long long high,
                  long long *out) {
    if (!value) return 0;
    int overflow = 0;
    long long v = -1;
    PyObject *index = PyNumber_Index(value);
    if (!index) return -1;
    v = PyLong_AsLongLongAndOverflow(index, &overflow);
    Py_DECREF(index);
    if (!overflow && v >= low && v <= high) {
        *out = v;
        return 0;
    }
    PyErr_Format(PyExc_ValueError, "%s must be between %lld and %lld, not %R", policy, low, high,
                 value);
    return -1;
}

/* The dict under a name of a Structs; ValueError for anything else. */
static PyObject *table(PyObject *structs, const char *name) {
    PyObject *found = PyObject_GetAttrString(structs, name);
    if (found && PyDict_CheckExact(found)) return found;
    Py_XDECREF(found);
    if (found || PyErr_ExceptionMatches(PyExc_AttributeError))
        PyErr_Format(PyExc_ValueError, "structs must be None or etf.Structs, not %R", structs);
    return NULL;
}

static int take_structs(rt_codec *self, PyObject *structs) {
    if (!structs || structs == Py_None) return 0;
    self->structs = Py_NewRef(structs);
    self->to_term = table(structs, "_to_term");
    self->from_term = self->to_term ? table(structs, "_from_term") : NULL;
    return self->from_term ? 0 : -1;
}

static rt_codec *codec_alloc(PyTypeObject *type) {
    rt_codec *self = PyObject_GC_New(rt_codec, type);
    if (!self) return NULL;
    self->structs = self->to_term = self->from_term = NULL;
    self->binaries = self->strings_str = self->none_undefined = self->text_atom = 0;
    self->compressed = self->safe = 0;
    self->max_depth = MAX_DEPTH_DEFAULT;
    self->max_bytes = MAX_BYTES_DEFAULT;
    return self;
}

static PyObject *codec_tp_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"binaries", "strings", "none", "text", "max_depth", "max_bytes",
                            "compressed", "safe", "structs", NULL};
    PyObject *binaries = NULL, *strings = NULL, *none = NULL, *text = NULL;
    PyObject *depth = NULL, *bytes = NULL, *compressed = NULL, *structs = NULL;
    int safe = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$OOOOOOOpO:Codec", names, &binaries,
                                     &strings, &none, &text, &depth, &bytes, &compressed, &safe,
                                     &structs))
        return NULL;
    rt_codec *self = codec_alloc(type);
    if (!self) return NULL;
    long long d = self->max_depth, b = (long long)self->max_bytes, level = 0;
    if (choice("binaries", binaries, binaries_names, &self->binaries) < 0 ||
        choice("strings", strings, strings_names, &self->strings_str) < 0 ||
        choice("none", none, none_names, &self->none_undefined) < 0 ||
        choice("text", text, text_names, &self->text_atom) < 0 ||
        number("max_depth", depth, 1, MAX_DEPTH_MAX, &d) < 0 ||
        number("max_bytes", bytes, 1, (long long)(PY_SSIZE_T_MAX / 2), &b) < 0 ||
        number("compressed", compressed, 0, 9, &level) < 0 || take_structs(self, structs) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    self->max_depth = (uint32_t)d;
    self->max_bytes = (size_t)b;
    self->compressed = (uint8_t)level;
    self->safe = (uint8_t)safe;
    PyObject_GC_Track(self);
    return (PyObject *)self;
}

static int codec_traverse(PyObject *obj, visitproc visit, void *arg) {
    rt_codec *self = (rt_codec *)obj;
    Py_VISIT(Py_TYPE(obj));
    Py_VISIT(self->structs);
    Py_VISIT(self->to_term);
    Py_VISIT(self->from_term);
    return 0;
}

static void codec_dealloc(PyObject *obj) {
    PyTypeObject *type = Py_TYPE(obj);
    rt_codec *self = (rt_codec *)obj;
    PyObject_GC_UnTrack(obj);
    Py_XDECREF(self->structs);
    Py_XDECREF(self->to_term);
    Py_XDECREF(self->from_term);
    type->tp_free(obj);
    Py_DECREF(type);
}

/* The policies as keyword arguments. */
static PyObject *codec_policies(const rt_codec *c) {
    return Py_BuildValue("{sssssssssIsnsisOsO}", "binaries", binaries_names[c->binaries], "strings",
                         strings_names[c->strings_str], "none", none_names[c->none_undefined],
                         "text", text_names[c->text_atom], "max_depth", (unsigned)c->max_depth,
                         "max_bytes", (Py_ssize_t)c->max_bytes, "compressed", (int)c->compressed,
                         "safe", c->safe ? Py_True : Py_False, "structs",
                         c->structs ? c->structs : Py_None);
}

static PyObject *codec_repr(PyObject *obj) {
    PyObject *policies = codec_policies((rt_codec *)obj);
    PyObject *out = policies ? PyUnicode_FromString("Codec(") : NULL;
    PyObject *key, *value;
    for (Py_ssize_t at = 0, i = 0; out && PyDict_Next(policies, &at, &key, &value); i++)
        PyUnicode_AppendAndDel(&out, PyUnicode_FromFormat(i ? ", %U=%R" : "%U=%R", key, value));
    if (out) PyUnicode_AppendAndDel(&out, PyUnicode_FromString(")"));
    Py_XDECREF(policies);
    return out;
}

static PyObject *codec_richcompare(PyObject *a, PyObject *b, int op) {
    if (!rt_py_is_codec(b) || (op != Py_EQ && op != Py_NE)) Py_RETURN_NOTIMPLEMENTED;
    PyObject *x = codec_policies((rt_codec *)a), *y = codec_policies((rt_codec *)b);
    PyObject *r = x && y ? PyObject_RichCompare(x, y, op) : NULL;
    Py_XDECREF(x);
    Py_XDECREF(y);
    return r;
}

static Py_hash_t codec_hash(PyObject *obj) {
    PyObject *policies = codec_policies((rt_codec *)obj);
    /* Structs grow, and are equal to themselves alone. */
    int rc = policies ? PyDict_DelItemString(policies, "structs") : -1;
    PyObject *repr = rc < 0 ? NULL : PyObject_Repr(policies);
    Py_hash_t h = repr ? PyObject_Hash(repr) : -1;
    Py_XDECREF(repr);
    Py_XDECREF(policies);
    return h;
}

/* Pickles as a call with keywords, through a partial. */
static PyObject *codec_reduce(PyObject *obj, PyObject *unused) {
    (void)unused;
    PyObject *functools = PyImport_ImportModule("functools");
    PyObject *partial = functools ? PyObject_GetAttrString(functools, "partial") : NULL;
    PyObject *args = partial ? PyTuple_Pack(1, Py_TYPE(obj)) : NULL;
    PyObject *policies = args ? codec_policies((rt_codec *)obj) : NULL;
    PyObject *call = policies ? PyObject_Call(partial, args, policies) : NULL;
    Py_XDECREF(functools);
    Py_XDECREF(partial);
    Py_XDECREF(args);
    Py_XDECREF(policies);
    return call ? Py_BuildValue("N()", call) : NULL;
}

/* A DecodeError about the byte at an offset. */
static PyObject *fail_at(const char *text, size_t at) {
    PyObject *error = PyObject_CallFunction(rt_py_st->decode_error, "sn", text, (Py_ssize_t)at);
    if (error) PyErr_SetObject(rt_py_st->decode_error, error);
    Py_XDECREF(error);
    return NULL;
}

/* What stands after the version byte at an offset; NULL with an exception when it is not there. */
static const uint8_t *versioned(const Py_buffer *view, size_t at) {
    const uint8_t *p = (const uint8_t *)view->buf + at;
    if (at == (size_t)view->len) return fail_at("the input is empty", at), NULL;
    if (*p != RT_TAG_VERSION) return fail_at("the version byte is not 131", at), NULL;
    return p + 1;
}

/* More follows than max_bytes: *n becomes the length of the first term, or -1 with an exception. */
static int at_most(const rt_codec *codec, const Py_buffer *view, const uint8_t *p, size_t *n) {
    int64_t length = rt_py_scan(codec, view->buf, p, *n);
    if (length < 0) return -1;
    *n = (size_t)length;
    if (*n <= codec->max_bytes) return 0;
    fail_at("the term is larger than max_bytes", (size_t)(p - (const uint8_t *)view->buf));
    return -1;
}

/* Decodes at an offset of a bytes-like object that must begin with 131. */
static PyObject *decode_from(const rt_codec *codec, const Py_buffer *view, PyObject *data,
                             size_t at, size_t *used) {
    const uint8_t *p = versioned(view, at);
    PyObject *owner = NULL, *out;
    size_t n = (size_t)view->len - at - 1;
    if (!p || (n > codec->max_bytes && at_most(codec, view, p, &n) < 0)) return NULL;
    if (codec->binaries == RT_BINARIES_VIEW) {
        PyObject *any = PyMemoryView_FromObject(data);
        PyObject *flat = any ? PyObject_CallMethod(any, "cast", "s", "B") : NULL;
        owner = flat ? PyObject_CallMethod(flat, "toreadonly", NULL) : NULL;
        Py_XDECREF(any);
        Py_XDECREF(flat);
        if (!owner) return NULL;
    }
    out = rt_py_decode_at(codec, view->buf, p, n, used, owner);
    Py_XDECREF(owner);
    if (out) *used += 1;
    return out;
}

static PyObject *decode_whole(const rt_codec *codec, PyObject *data) {
    Py_buffer view;
    bool bytes = PyBytes_CheckExact(data); /* which cannot change, and need no export */
    if (bytes) {
        view.buf = PyBytes_AS_STRING(data);
        view.len = PyBytes_GET_SIZE(data);
    } else if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    size_t used = 0;
    PyObject *out = decode_from(codec, &view, data, 0, &used);
    if (out && used != (size_t)view.len) {
        Py_DECREF(out);
        out = fail_at("bytes after the term", used);
    }
    if (!bytes) PyBuffer_Release(&view);
    return out;
}

/* A buffer and an optional offset into it, from arguments that begin with `first`; false with an
 * exception. The caller releases the view. */
static bool take_buffer(const char *name, PyObject *const *args, Py_ssize_t n, Py_ssize_t first,
                        int flags, Py_buffer *view, size_t *at) {
    if (n < first + 1 || n > first + 2) {
        PyErr_Format(PyExc_TypeError, "%s() takes %zd or %zd arguments, not %zd", name, first + 1,
                     first + 2, n);
        return false;
    }
    Py_ssize_t offset = n == first + 2 ? PyNumber_AsSsize_t(args[first + 1], PyExc_OverflowError)
                                       : 0;
    if (offset == -1 && PyErr_Occurred()) return false;
    if (PyObject_GetBuffer(args[first], view, flags) < 0) return false;
    if (offset >= 0 && offset <= view->len) {
        *at = (size_t)offset;
        return true;
    }
    PyErr_SetString(PyExc_ValueError, "the offset is outside of the data");
    PyBuffer_Release(view);
    return false;
}

static PyObject *decode_prefix(const rt_codec *codec, PyObject *const *args, Py_ssize_t n) {
    Py_buffer view;
    size_t at, used = 0;
    if (!take_buffer("decode_prefix", args, n, 0, PyBUF_SIMPLE, &view, &at)) return NULL;
    PyObject *out = decode_from(codec, &view, args[0], at, &used);
    PyBuffer_Release(&view);
    return out ? Py_BuildValue("Nn", out, (Py_ssize_t)(at + used)) : NULL;
}

static PyObject *decode_many(const rt_codec *codec, PyObject *data) {
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) return NULL;
    PyObject *out = PyList_New(0);
    for (size_t at = 0, used; out && at < (size_t)view.len; at += used) {
        PyObject *term = decode_from(codec, &view, data, at, &used);
        if (!term || PyList_Append(out, term) < 0) Py_CLEAR(out);
        Py_XDECREF(term);
    }
    PyBuffer_Release(&view);
    return out;
}

static PyObject *core_peek(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    const rt_codec *codec = (rt_codec *)rt_py_st->codec_default;
    (void)module;
    Py_buffer view;
    size_t at;
    if (!take_buffer("peek", args, n, 0, PyBUF_SIMPLE, &view, &at)) return NULL;
    const uint8_t *p = versioned(&view, at);
    PyObject *out = p ? rt_py_peek(codec, view.buf, p, (size_t)view.len - at - 1) : NULL;
    PyBuffer_Release(&view);
    return out;
}

static PyObject *encode_into(const rt_codec *codec, PyObject *const *args, Py_ssize_t n) {
    Py_buffer view;
    size_t at, used = 0, room;
    if (!take_buffer("encode_into", args, n, 1, PyBUF_WRITABLE, &view, &at)) return NULL;
    room = (size_t)view.len - at;
    PyObject *whole = rt_py_encode_into(codec, args[0], (uint8_t *)view.buf + at, room, &used);
    if (whole && whole != Py_None && used <= room) /* it was near the end, and fits */
        memcpy((char *)view.buf + at, PyBytes_AS_STRING(whole), used);
    PyBuffer_Release(&view);
    if (whole && used > room) {
        if (!PyByteArray_Check(args[1])) {
            PyErr_Format(rt_py_st->encode_error,
                         "the term takes %zu bytes, the buffer has %zu left", used, room);
            Py_CLEAR(whole);
        } else if (PyByteArray_Resize(args[1], (Py_ssize_t)(at + used)) < 0) {
            Py_CLEAR(whole);
        } else {
            memcpy(PyByteArray_AS_STRING(args[1]) + at, PyBytes_AS_STRING(whole), used);
        }
    }
    if (!whole) return NULL;
    Py_DECREF(whole);
    return PyLong_FromSize_t(at + used);
}

/* Each as a method of a codec and as a function with the default one. */

#define FAST(call)                                                                        \
    static PyObject *codec_##call(PyObject *self, PyObject *const *args, Py_ssize_t n) {  \
        return call((rt_codec *)self, args, n);                                           \
    }                                                                                     \
    static PyObject *core_##call(PyObject *module, PyObject *const *args, Py_ssize_t n) { \
        (void)module;                                                                     \
        return call((rt_codec *)rt_py_st->codec_default, args, n);                        \
    }
FAST(decode_prefix)
FAST(encode_into)

static PyObject *codec_encode(PyObject *self, PyObject *term) {
    return rt_py_encode_bytes((rt_codec *)self, term);
}

static PyObject *codec_decode(PyObject *self, PyObject *data) {
    return decode_whole((rt_codec *)self, data);
}

static PyObject *codec_decode_many(PyObject *self, PyObject *data) {
    return decode_many((rt_codec *)self, data);
}

static PyObject *core_encode(PyObject *module, PyObject *term) {
    (void)module;
    return rt_py_encode_bytes((rt_codec *)rt_py_st->codec_default, term);
}

static PyObject *core_decode(PyObject *module, PyObject *data) {
    (void)module;
    return decode_whole((rt_codec *)rt_py_st->codec_default, data);
}

static PyObject *core_decode_many(PyObject *module, PyObject *data) {
    (void)module;
    return decode_many((rt_codec *)rt_py_st->codec_default, data);
}

#define ENCODE_DOC                                                                        \
    "encode($self, term, /)\n--\n\n"                                                      \
    "The external form of a term, with its version byte.\n\n"                             \
    "Raises EncodeError for what is no term, naming its type and place."
#define DECODE_DOC                                                                        \
    "decode($self, data, /)\n--\n\n"                                                      \
    "The term in a bytes-like object: the version byte 131, one term, nothing more.\n\n"  \
    "Raises DecodeError with the offset of the byte at fault."
#define PREFIX_DOC                                                                        \
    "decode_prefix($self, data, offset=0, /)\n--\n\n"                                     \
    "Decodes one term at an offset, for streams: (term, offset of what follows).\n\n"     \
    "Raises DecodeError, ValueError for an offset outside of the data."
#define MANY_DOC                                                                          \
    "decode_many($self, data, /)\n--\n\n"                                                 \
    "The terms of a bytes-like object that holds nothing else, each with its version\n"   \
    "byte, as a list.\n\n"                                                                \
    "Raises DecodeError with the offset of the byte at fault."
#define INTO_DOC                                                                          \
    "encode_into($self, term, buffer, offset=0, /)\n--\n\n"                               \
    "Writes what encode() gives, never compressed, into a writable buffer; gives the\n"   \
    "offset of what follows. A bytearray grows when it is too short, and is not cut.\n"   \
    "The term shares no memory with the buffer.\n\n"                                      \
    "Raises EncodeError for what is no term, and for a buffer of fixed length that\n"     \
    "is too short, naming both lengths (what it holds from the offset on is then\n"       \
    "undefined); ValueError for an offset outside of the buffer, BufferError for a\n"     \
    "buffer that cannot be written or made longer."
#define PEEK_DOC                                                                          \
    "_peek($self, data, offset=0, /)\n--\n\n"                                              \
    "(kind, size, length) of one term at an offset, see router.etf.peek."

static PyMethodDef codec_methods[] = {
    {"encode", codec_encode, METH_O, ENCODE_DOC},
    {"decode", codec_decode, METH_O, DECODE_DOC},
    {"decode_prefix", (PyCFunction)(void (*)(void))codec_decode_prefix, METH_FASTCALL, PREFIX_DOC},
    {"decode_many", codec_decode_many, METH_O, MANY_DOC},
    {"encode_into", (PyCFunction)(void (*)(void))codec_encode_into, METH_FASTCALL, INTO_DOC},
    {"__reduce__", codec_reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

PyMethodDef *rt_py_functions(void) {
    static PyMethodDef functions[] = {
        {"encode", core_encode, METH_O, ENCODE_DOC},
        {"decode", core_decode, METH_O, DECODE_DOC},
        {"decode_prefix", (PyCFunction)(void (*)(void))core_decode_prefix, METH_FASTCALL,
         PREFIX_DOC},
        {"decode_many", core_decode_many, METH_O, MANY_DOC},
        {"encode_into", (PyCFunction)(void (*)(void))core_encode_into, METH_FASTCALL, INTO_DOC},
        {"_peek", (PyCFunction)(void (*)(void))core_peek, METH_FASTCALL, PEEK_DOC},
        {NULL, NULL, 0, NULL},
    };
    return functions;
}

static PyObject *get_name(PyObject *obj, void *which) {
    PyObject *policies = codec_policies((rt_codec *)obj);
    PyObject *value = policies ? Py_XNewRef(PyDict_GetItemString(policies, which)) : NULL;
    Py_XDECREF(policies);
    return value;
}

static PyGetSetDef codec_fields[] = {
    {"binaries", get_name, NULL, "What a binary decodes to.", (void *)"binaries"},
    {"strings", get_name, NULL, "What a charlist decodes to.", (void *)"strings"},
    {"none", get_name, NULL, "The atom that stands for None.", (void *)"none"},
    {"text", get_name, NULL, "What a str encodes to.", (void *)"text"},
    {"max_depth", get_name, NULL, "Deepest nesting, both ways.", (void *)"max_depth"},
    {"max_bytes", get_name, NULL, "Longest term in bytes, both ways.", (void *)"max_bytes"},
    {"compressed", get_name, NULL, "Level of compression, 0 for none.", (void *)"compressed"},
    {"safe", get_name, NULL, "Whether funs and unknown atoms are refused.", (void *)"safe"},
    {"structs", get_name, NULL, "Which classes stand for Elixir's structs.", (void *)"structs"},
    {NULL, NULL, NULL, NULL, NULL},
};
static PyType_Slot codec_slots[] = {
    {Py_tp_doc, (void *)
     "Codec(*, binaries='bytes', strings='list', none='nil', text='binary', max_depth=10000, "
     "max_bytes=1073741824, compressed=0, safe=False, structs=None)\n--\n\n"
     "How terms become Python objects and back; immutable.\n\n"
     "binaries: 'bytes', 'str' (bytes when it is no UTF-8) or 'memoryview' (slices\n"
     "of the input, except in map keys). strings: charlists as 'list' or 'str'.\n"
     "none: the atom None stands for, 'nil' or 'undefined'. text: str as 'binary'\n"
     "or 'atom'. compressed: zlib level, used when the result is shorter. safe:\n"
     "refuse funs, external functions and atoms that do not exist yet. structs: an\n"
     "etf.Structs, the classes that stand for Elixir's structs; None leaves them maps.\n"
     "ValueError for anything else."},
    {Py_tp_new, codec_tp_new},
    {Py_tp_dealloc, codec_dealloc},
    {Py_tp_traverse, codec_traverse},
    {Py_tp_repr, codec_repr},
    {Py_tp_hash, codec_hash},
    {Py_tp_richcompare, codec_richcompare},
    {Py_tp_methods, codec_methods},
    {Py_tp_getset, codec_fields},
    {0, NULL},
};
static PyType_Spec codec_spec = {
    .name = "router.etf.Codec",
    .basicsize = sizeof(rt_codec),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = codec_slots,
};

int rt_py_codec_init(rt_py_state *st) {
    st->codec = rt_py_type(&codec_spec, NULL, NULL);
    if (!st->codec) return -1;
    st->codec_default = (PyObject *)codec_alloc(st->codec);
    if (!st->codec_default) return -1;
    PyObject_GC_Track(st->codec_default);
    st->struct_key = rt_py_atom((const uint8_t *)"__struct__", 10);
    st->term_hook = PyUnicode_InternFromString("__to_term__");
    return st->struct_key && st->term_hook ? 0 : -1;
}
