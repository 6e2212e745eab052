#include "base/limits.h"
#include "python/terms.h"

#define IDENT_MAX (3 + 2 + RT_ATOM_BYTES_MAX + 1 + 4 + 4 * RT_REF_WORDS_MAX + 8)

static uint32_t u32_at(const uint8_t *p) {
    uint32_t v;
    memcpy(&v, p, 4);
    return rt_be32(v);
}

static uint8_t *put_u32(uint8_t *p, uint32_t v) {
    v = rt_be32(v);
    memcpy(p, &v, 4);
    return p + 4;
}

static uint8_t *put_node(uint8_t *p, PyObject *node) {
    rt_atom_obj *a = (rt_atom_obj *)node;
    memcpy(p, a->ext, a->ext_n);
    return p + a->ext_n;
}

/* References come and go with every call, and those of one node are of one size: some that ended
 * are kept for the next ones. The link of a list lies in `node`. */
static rt_freed_refs *freed_refs(size_t n) {
    return &rt_py_st->freed_refs[n & (RT_PY_FREED_REFS - 1)];
}

static rt_ident_obj *ref_again(PyTypeObject *type, size_t n) {
    rt_freed_refs *list = freed_refs(n);
    rt_ident_obj *self = list->first;
    if (!self || type != rt_py_st->ref) return NULL;
    list->first = (rt_ident_obj *)self->node;
    list->n--;
    if (RT_LIKELY((size_t)Py_SIZE(self) == n)) {
        _Py_NewReference((PyObject *)self);
        return self;
    }
    /* Of a size that may never be asked for again: its place is for those that are. */
    PyObject_Free(self);
    Py_DECREF(type);
    return NULL;
}

static bool ref_kept(PyObject *obj) {
    rt_ident_obj *self = (rt_ident_obj *)obj;
    rt_freed_refs *list = freed_refs((size_t)Py_SIZE(obj));
    if (!rt_py_is_ref(obj) || list->n == RT_PY_FREED_REFS_MAX) return false;
    self->node = (PyObject *)list->first;
    list->first = self;
    list->n++;
    return true;
}

PyObject *rt_py_ident_new(PyTypeObject *type, PyObject *node, const uint8_t *ext, size_t n) {
    rt_ident_obj *self = ref_again(type, n);
    if (!self && !(self = PyObject_NewVar(rt_ident_obj, type, (Py_ssize_t)n))) return NULL;
    self->node = Py_NewRef(node);
    self->hash = -1;
    rt_py_copy(self->ext, ext, n);
    return (PyObject *)self;
}

PyObject *rt_py_pid(PyObject *node, uint32_t id, uint32_t serial, uint32_t creation) {
    uint8_t ext[IDENT_MAX], *p = ext;
    *p++ = RT_TAG_NEW_PID;
    p = put_node(p, node);
    p = put_u32(put_u32(put_u32(p, id), serial), creation);
    return rt_py_ident_new(rt_py_st->pid, node, ext, (size_t)(p - ext));
}

PyObject *rt_py_ref(PyObject *node, uint32_t creation, const uint32_t *word, uint32_t words) {
    uint8_t ext[IDENT_MAX], *p = ext;
    *p++ = RT_TAG_NEWER_REFERENCE;
    *p++ = 0;
    *p++ = (uint8_t)words;
    p = put_node(p, node);
    p = put_u32(p, creation);
    for (uint32_t i = 0; i < words; i++) p = put_u32(p, word[i]);
    return rt_py_ident_new(rt_py_st->ref, node, ext, (size_t)(p - ext));
}

static PyObject *port_make(PyObject *node, uint64_t id, uint32_t creation) {
    uint8_t ext[IDENT_MAX], *p = ext;
    *p++ = RT_TAG_V4_PORT;
    p = put_node(p, node);
    p = put_u32(put_u32(put_u32(p, (uint32_t)(id >> 32)), (uint32_t)id), creation);
    return rt_py_ident_new(rt_py_st->port, node, ext, (size_t)(p - ext));
}

/* Where a reference keeps its words. */
static const uint8_t *ref_words(const rt_ident_obj *r, int *n) {
    *n = r->ext[2];
    return r->ext + Py_SIZE(r) - 4 * *n;
}

/* Keeps a number in range for a field; false with an exception. */
static bool field(PyObject *value, const char *name, uint64_t max, uint64_t *out) {
    PyObject *i = PyNumber_Index(value);
    if (!i) return false;
    unsigned long long v = PyLong_AsUnsignedLongLong(i);
    bool bad = v == (unsigned long long)-1 && PyErr_Occurred();
    Py_DECREF(i);
    if (!bad && v <= max) {
        *out = v;
        return true;
    }
    PyErr_Format(PyExc_ValueError, "%s must be between 0 and %llu", name,
                 (unsigned long long)max);
    return false;
}

static PyObject *pid_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    (void)type;
    static char *names[] = {"node", "id", "serial", "creation", NULL};
    PyObject *node, *a, *b, *c;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOO:Pid", names, &node, &a, &b, &c))
        return NULL;
    uint64_t id, serial, creation;
    if (!field(a, "id", UINT32_MAX, &id) || !field(b, "serial", UINT32_MAX, &serial) ||
        !field(c, "creation", UINT32_MAX, &creation))
        return NULL;
    PyObject *atom = rt_py_atom_from(node);
    if (!atom) return NULL;
    PyObject *self = rt_py_pid(atom, (uint32_t)id, (uint32_t)serial, (uint32_t)creation);
    Py_DECREF(atom);
    return self;
}

static PyObject *port_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    (void)type;
    static char *names[] = {"node", "id", "creation", NULL};
    PyObject *node, *a, *b;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO:Port", names, &node, &a, &b))
        return NULL;
    uint64_t id, creation;
    if (!field(a, "id", UINT64_MAX, &id) || !field(b, "creation", UINT32_MAX, &creation))
        return NULL;
    PyObject *atom = rt_py_atom_from(node);
    if (!atom) return NULL;
    PyObject *self = port_make(atom, id, (uint32_t)creation);
    Py_DECREF(atom);
    return self;
}

static PyObject *ref_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    (void)type;
    static char *names[] = {"node", "creation", "words", NULL};
    PyObject *node, *a, *b, *atom = NULL, *self = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO:Reference", names, &node, &a, &b))
        return NULL;
    uint64_t creation, v;
    uint32_t word[RT_REF_WORDS_MAX];
    if (!field(a, "creation", UINT32_MAX, &creation)) return NULL;
    PyObject *words = PySequence_Tuple(b);
    if (!words) return NULL;
    Py_ssize_t n = PyTuple_GET_SIZE(words);
    if (n > (Py_ssize_t)RT_REF_WORDS_MAX) {
        PyErr_Format(PyExc_ValueError, "a reference has at most %u words, not %zd",
                     RT_REF_WORDS_MAX, n);
        goto done;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        if (!field(PyTuple_GET_ITEM(words, i), "words", UINT32_MAX, &v)) goto done;
        word[i] = (uint32_t)v;
    }
    atom = rt_py_atom_from(node);
    if (atom) self = rt_py_ref(atom, (uint32_t)creation, word, (uint32_t)n);
done:
    Py_XDECREF(atom);
    Py_DECREF(words);
    return self;
}

static void ident_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    Py_DECREF(((rt_ident_obj *)self)->node);
    if (ref_kept(self)) return; /* and its reference to the type with it */
    type->tp_free(self);
    Py_DECREF(type);
}

static Py_hash_t ident_hash(PyObject *obj) {
    rt_ident_obj *self = (rt_ident_obj *)obj;
    if (self->hash != -1) return self->hash;
    size_t n = (size_t)Py_SIZE(self);
    uint64_t h = rt_py_st->seed;
    /* The node differs least, so the numbers at the end are mixed in fully. */
    for (size_t at = n > 24 ? n - 24 : 0; at + 4 <= n; at += 4)
        h = (h ^ u32_at(self->ext + at)) * 0x9e3779b97f4a7c15ULL, h ^= h >> 32;
    h ^= rt_py_mix(self->ext, n);
    self->hash = (Py_hash_t)h == -1 ? -2 : (Py_hash_t)h;
    return self->hash;
}

static int cmp_u64(uint64_t a, uint64_t b) {
    return a < b ? -1 : a > b;
}

static int cmp_node(const rt_ident_obj *a, const rt_ident_obj *b, uint32_t ca, uint32_t cb) {
    rt_slice x = rt_py_atom_name(a->node), y = rt_py_atom_name(b->node);
    int c = memcmp(x.p, y.p, x.n < y.n ? x.n : y.n);
    if (!c) c = cmp_u64(x.n, y.n);
    return c ? c : cmp_u64(ca, cb);
}

/* Pids: numbers before nodes, the serial being the higher part. */
static int cmp_pid(const rt_ident_obj *a, const rt_ident_obj *b) {
    const uint8_t *x = a->ext + Py_SIZE(a) - 12, *y = b->ext + Py_SIZE(b) - 12;
    int c = cmp_u64(u32_at(x + 4), u32_at(y + 4));
    if (!c) c = cmp_u64(u32_at(x), u32_at(y));
    return c ? c : cmp_node(a, b, u32_at(x + 8), u32_at(y + 8));
}

/* Ports: nodes before numbers. */
static int cmp_port(const rt_ident_obj *a, const rt_ident_obj *b) {
    int c = cmp_node(a, b, rt_py_ident_creation(a), rt_py_ident_creation(b));
    return c ? c : cmp_u64(rt_py_port_id(a), rt_py_port_id(b));
}

/* References: nodes before numbers, the last word being the highest part;
 * missing words count as 0. */
static int cmp_ref(const rt_ident_obj *a, const rt_ident_obj *b) {
    int na, nb;
    const uint8_t *x = ref_words(a, &na), *y = ref_words(b, &nb);
    int c = cmp_node(a, b, u32_at(x - 4), u32_at(y - 4));
    for (int i = (na > nb ? na : nb) - 1; i >= 0 && !c; i--)
        c = cmp_u64(i < na ? u32_at(x + 4 * i) : 0, i < nb ? u32_at(y + 4 * i) : 0);
    return c ? c : cmp_u64((uint64_t)na, (uint64_t)nb);
}

static PyObject *ident_richcompare(PyObject *a, PyObject *b, int op) {
    if (Py_TYPE(a) != Py_TYPE(b)) Py_RETURN_NOTIMPLEMENTED;
    const rt_ident_obj *x = (rt_ident_obj *)a, *y = (rt_ident_obj *)b;
    bool same = Py_SIZE(x) == Py_SIZE(y) && memcmp(x->ext, y->ext, (size_t)Py_SIZE(x)) == 0;
    if (op == Py_EQ || op == Py_NE) return PyBool_FromLong(same == (op == Py_EQ));
    int c = same                               ? 0
            : Py_IS_TYPE(a, rt_py_st->pid)     ? cmp_pid(x, y)
            : Py_IS_TYPE(a, rt_py_st->port)    ? cmp_port(x, y)
                                               : cmp_ref(x, y);
    return rt_py_richbool(op, c);
}

static PyObject *ident_node(PyObject *self, void *c) {
    (void)c;
    return Py_NewRef(((rt_ident_obj *)self)->node);
}

/* `where` is how far before the end of the bytes the number starts. */
static PyObject *ident_u32(PyObject *self, void *where) {
    rt_ident_obj *s = (rt_ident_obj *)self;
    return PyLong_FromUnsignedLong(u32_at(s->ext + Py_SIZE(s) - (intptr_t)where));
}

static PyObject *port_id(PyObject *self, void *c) {
    (void)c;
    return PyLong_FromUnsignedLongLong(rt_py_port_id((rt_ident_obj *)self));
}

static PyObject *ref_creation(PyObject *self, void *c) {
    (void)c;
    int n;
    return PyLong_FromUnsignedLong(u32_at(ref_words((rt_ident_obj *)self, &n) - 4));
}

static PyObject *ref_get_words(PyObject *self, void *c) {
    (void)c;
    int n;
    const uint8_t *p = ref_words((rt_ident_obj *)self, &n);
    PyObject *out = PyTuple_New(n);
    for (int i = 0; out && i < n; i++) {
        PyObject *v = PyLong_FromUnsignedLong(u32_at(p + 4 * i));
        if (!v) Py_CLEAR(out);
        else PyTuple_SET_ITEM(out, i, v);
    }
    return out;
}

static PyObject *pid_repr(PyObject *self) {
    rt_ident_obj *s = (rt_ident_obj *)self;
    const uint8_t *p = s->ext + Py_SIZE(s) - 12;
    return PyUnicode_FromFormat("#Pid<%U.%u.%u>", s->node, (unsigned)u32_at(p),
                                (unsigned)u32_at(p + 4));
}

static PyObject *port_repr(PyObject *self) {
    rt_ident_obj *s = (rt_ident_obj *)self;
    return PyUnicode_FromFormat("#Port<%U.%llu>", s->node, (unsigned long long)rt_py_port_id(s));
}

static PyObject *ref_repr(PyObject *self) {
    int n;
    const uint8_t *p = ref_words((rt_ident_obj *)self, &n);
    char text[RT_REF_WORDS_MAX * 11 + 1] = "";
    int at = 0;
    for (int i = n - 1; i >= 0; i--)
        at += PyOS_snprintf(text + at, sizeof text - (size_t)at, ".%u",
                            (unsigned)u32_at(p + 4 * i));
    return PyUnicode_FromFormat("#Ref<%U%s>", ((rt_ident_obj *)self)->node, text);
}

static PyObject *pid_reduce(PyObject *self, PyObject *unused) {
    (void)unused;
    rt_ident_obj *s = (rt_ident_obj *)self;
    const uint8_t *p = s->ext + Py_SIZE(s) - 12;
    return Py_BuildValue("O(OIII)", Py_TYPE(self), s->node, u32_at(p), u32_at(p + 4),
                         u32_at(p + 8));
}

static PyObject *port_reduce(PyObject *self, PyObject *unused) {
    (void)unused;
    rt_ident_obj *s = (rt_ident_obj *)self;
    return Py_BuildValue("O(OKI)", Py_TYPE(self), s->node,
                         (unsigned long long)rt_py_port_id(s), rt_py_ident_creation(s));
}

static PyObject *ref_reduce(PyObject *self, PyObject *unused) {
    (void)unused;
    PyObject *words = ref_get_words(self, NULL);
    if (!words) return NULL;
    int n;
    uint32_t creation = u32_at(ref_words((rt_ident_obj *)self, &n) - 4);
    return Py_BuildValue("O(OIN)", Py_TYPE(self), ((rt_ident_obj *)self)->node, creation, words);
}

static PyGetSetDef pid_fields[] = {
    {"node", ident_node, NULL, "The Atom naming the node.", NULL},
    {"id", ident_u32, NULL, "First number, 32 bits.", (void *)12},
    {"serial", ident_u32, NULL, "Second number, 32 bits.", (void *)8},
    {"creation", ident_u32, NULL, "Which incarnation of the node, 32 bits.", (void *)4},
    {NULL, NULL, NULL, NULL, NULL},
};
static PyGetSetDef port_fields[] = {
    {"node", ident_node, NULL, "The Atom naming the node.", NULL},
    {"id", port_id, NULL, "Number, 64 bits.", NULL},
    {"creation", ident_u32, NULL, "Which incarnation of the node, 32 bits.", (void *)4},
    {NULL, NULL, NULL, NULL, NULL},
};
static PyGetSetDef ref_fields[] = {
    {"node", ident_node, NULL, "The Atom naming the node.", NULL},
    {"creation", ref_creation, NULL, "Which incarnation of the node, 32 bits.", NULL},
    {"words", ref_get_words, NULL, "Up to five 32-bit words, lowest first.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

#define METHODS(noun)                                                             \
    static PyMethodDef noun##_methods[] = {{"__reduce__", noun##_reduce, METH_NOARGS, NULL}, \
                                           {NULL, NULL, 0, NULL}}
METHODS(pid);
METHODS(port);
METHODS(ref);

#define TYPE(noun, Name, text)                                                    \
    static PyType_Slot noun##_slots[] = {                                         \
        {Py_tp_doc, (void *)text},                                                \
        {Py_tp_new, noun##_new},                                                  \
        {Py_tp_dealloc, ident_dealloc},                                           \
        {Py_tp_hash, ident_hash},                                                 \
        {Py_tp_richcompare, ident_richcompare},                                   \
        {Py_tp_repr, noun##_repr},                                                \
        {Py_tp_methods, noun##_methods},                                          \
        {Py_tp_getset, noun##_fields},                                            \
        {0, NULL},                                                                \
    };                                                                            \
    static PyType_Spec noun##_spec = {                                            \
        .name = "router.etf." Name,                                               \
        .basicsize = offsetof(rt_ident_obj, ext),                                 \
        .itemsize = 1,                                                            \
        .flags = Py_TPFLAGS_DEFAULT,                                              \
        .slots = noun##_slots,                                                    \
    }
TYPE(pid, "Pid",
     "Pid(node, id, serial, creation)\n--\n\nA process identifier.\n\n"
     "node is an Atom or str, the rest are 32-bit numbers; ValueError outside.");
TYPE(port, "Port",
     "Port(node, id, creation)\n--\n\nA port identifier; id has 64 bits, creation 32.");
TYPE(ref, "Reference",
     "Reference(node, creation, words)\n--\n\nA reference: at most five 32-bit words,\n"
     "lowest first.");

int rt_py_ident_init(rt_py_state *st) {
    static const char *const pid_match[] = {"node", "id", "serial", "creation", NULL};
    static const char *const port_match[] = {"node", "id", "creation", NULL};
    static const char *const ref_match[] = {"node", "creation", "words", NULL};
    st->pid = rt_py_type(&pid_spec, NULL, pid_match);
    st->port = rt_py_type(&port_spec, NULL, port_match);
    st->ref = rt_py_type(&ref_spec, NULL, ref_match);
    return st->pid && st->port && st->ref ? 0 : -1;
}

int rt_py_is_pid(PyObject *obj) {
    return Py_IS_TYPE(obj, rt_py_st->pid);
}

int rt_py_is_ref(PyObject *obj) {
    return Py_IS_TYPE(obj, rt_py_st->ref);
}

const uint8_t *rt_py_ident_bytes(PyObject *ident, size_t *n) {
    RT_ASSERT(rt_py_is_pid(ident) || rt_py_is_ref(ident));
    *n = (size_t)Py_SIZE(ident);
    return ((rt_ident_obj *)ident)->ext;
}

int rt_py_pid_fields(PyObject *pid, PyObject **node, uint32_t *id, uint32_t *serial,
                     uint32_t *creation) {
    if (!rt_py_is_pid(pid)) {
        PyErr_Format(PyExc_TypeError, "expected a Pid, not %.100s", Py_TYPE(pid)->tp_name);
        return -1;
    }
    const rt_ident_obj *s = (rt_ident_obj *)pid;
    const uint8_t *p = s->ext + Py_SIZE(s) - 12;
    if (node) *node = s->node;
    if (id) *id = u32_at(p);
    if (serial) *serial = u32_at(p + 4);
    if (creation) *creation = u32_at(p + 8);
    return 0;
}
