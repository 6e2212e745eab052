/* Purpose: the one structure that holds what the terms need at run time:
 * types, exceptions, the table of atoms, the caches, numpy's classes.
 * Ownership: made by rt_py_init and kept until the process ends. The extension
 * module cannot be loaded into a second interpreter, so one pointer serves;
 * everything mutable hangs off it, which is what makes striping possible.
 * Threads: GIL.
 * Limits: RT_PY_*_CACHE entries are the most that the caches keep alive. */
#ifndef RT_PYTHON_STATE_H
#define RT_PYTHON_STATE_H

#include "python/py.h"

#include "base/base.h"

#define RT_PY_ATOM_CACHE 8192u   /* atoms kept alive after their last use */
#define RT_PY_PID_CACHE 2048u
#define RT_PY_KEY_CACHE 2048u
#define RT_PY_FREED_REFS 16u     /* lists of references that ended, by size: a power of two */
#define RT_PY_FREED_REFS_MAX 16u /* in each */
#define RT_PY_KEY_BYTES_MAX 48u  /* longer map keys are not cached */
#define RT_PY_ATOM_INLINE 34u
#define RT_PY_SCRATCH (64u * 1024u)

/* What an atom stands for besides itself. */
enum rt_atom_special {
    RT_ATOM_PLAIN = 0, RT_ATOM_TRUE, RT_ATOM_FALSE, RT_ATOM_NIL, RT_ATOM_UNDEFINED
};

typedef struct rt_atom_obj {
    PyUnicodeObject str;
    struct rt_atom_obj *next;  /* chain of the weak table */
    uint64_t hash;             /* of the UTF-8 name, keyed by the state's seed */
    uint8_t *ext;              /* canonical external bytes: `in_place` or own memory */
    uint16_t ext_n;
    uint8_t name_at;           /* where the name starts in ext: 2 or 3 */
    uint8_t special;
    uint8_t in_place[RT_PY_ATOM_INLINE];
} rt_atom_obj;

/* Pid, Reference and Port: everything but the node is read from the bytes. */
typedef struct rt_ident_obj {
    PyObject_VAR_HEAD
    PyObject *node;            /* Atom */
    Py_hash_t hash;            /* -1 until asked for */
    uint8_t ext[];             /* ob_size canonical bytes */
} rt_ident_obj;

typedef struct rt_freed_refs {
    rt_ident_obj *first;
    uint32_t n;
} rt_freed_refs;

enum rt_binaries { RT_BINARIES_BYTES, RT_BINARIES_STR, RT_BINARIES_VIEW };

struct rt_codec {
    PyObject_HEAD
    uint8_t binaries, strings_str, none_undefined, text_atom, compressed, safe;
    uint32_t max_depth;
    size_t max_bytes;
    PyObject *structs;   /* router.etf.Structs, or NULL; and two dicts of it: */
    PyObject *to_term;   /* type -> what makes a term of an object */
    PyObject *from_term; /* Atom of a module -> what makes an object of a map */
};

typedef struct rt_py_state {
    PyTypeObject *atom, *pid, *ref, *port, *fun, *export, *bits, *improper, *frozen, *map, *codec;
    PyObject *encode_error, *decode_error;
    PyObject *codec_default;
    PyObject *struct_key;      /* the Atom __struct__ */
    PyObject *term_hook;       /* the str "__to_term__" */
    PyObject *small[256];      /* the integers of a byte */
    PyObject *np_generic, *np_ndarray, *np_bool, *np_integer, *np_floating; /* lazily */
    PyObject *compare;                                                      /* lazily */
    uint64_t seed;
    rt_atom_obj **bucket;
    size_t bucket_mask, atoms;
    uint8_t *scratch;
    bool scratch_taken;
    rt_atom_obj *atom_cache[RT_PY_ATOM_CACHE];
    PyObject *pid_cache[RT_PY_PID_CACHE];
    PyObject *bytes_keys[RT_PY_KEY_CACHE];
    PyObject *str_keys[RT_PY_KEY_CACHE];
    rt_freed_refs freed_refs[RT_PY_FREED_REFS];
} rt_py_state;

extern rt_py_state *rt_py_st __attribute__((visibility("hidden")));

/* Each makes its types; -1 with an exception. */
int rt_py_atom_init(rt_py_state *st);
int rt_py_ident_init(rt_py_state *st);
int rt_py_types_init(rt_py_state *st);
int rt_py_lists_init(rt_py_state *st);
int rt_py_map_init(rt_py_state *st);
int rt_py_codec_init(rt_py_state *st);
/* Makes one immutable heap type; `match` (may be NULL) ends with NULL. */
PyTypeObject *rt_py_type(PyType_Spec *spec, PyTypeObject *base, const char *const *match);

/* Finds numpy's classes when numpy has been imported by somebody: 1 found,
 * 0 numpy is not loaded (so no object can be numpy's), -1 exception. */
int rt_py_numpy(rt_py_state *st);

/* Orders two terms as Erlang does, through router._order. */
PyObject *rt_py_order(PyObject *a, PyObject *b, int op);

RT_INLINE PyObject *rt_py_richbool(int op, int c) {
    Py_RETURN_RICHCOMPARE(c, 0, op);
}

#endif
