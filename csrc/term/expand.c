/* Walks a term that has passed the scan, so shapes are trusted and only bounds
 * are checked: every term says how many more it brings, and when none is
 * pending the walk is over. The same walk skips and expands; when it expands,
 * what lies between two cache references is copied in one piece. A fun tells
 * its own size, which grows with the atoms inside it: the funs that are open
 * stand on a stack and are corrected when they end. */
#include "term/scan.h"

#include "base/alloc.h"
#include "base/cursor.h"
#include "term/inflate.h"
#include "term/tags.h"
#include "term/text_float.h"
#include "term/write.h"

enum { FUNS_INLINE = 16, FUN_FIXED_BYTES = 29 };

typedef struct open_fun {
    const uint8_t *end; /* in the input */
    size_t size_at;     /* of its size field, in the output */
} open_fun;

typedef struct walker {
    rt_cursor c;
    uint64_t pending;      /* terms still to come */
    /* Only when expanding: */
    rt_buf *out;
    const rt_atoms *atoms;
    const uint8_t *copied; /* the input before this is in the output */
    open_fun *funs;
    size_t funs_n, funs_cap;
    open_fun space[FUNS_INLINE];
} walker;

static bool pass(walker *w, uint64_t n) {
    if (rt_cursor_left(&w->c) < n) return false;
    w->c.p += n;
    return true;
}

/* Copies the input up to `to` that is not yet in the output. */
static int copy_run(walker *w, const uint8_t *to) {
    int rc = rt_buf_put(w->out, w->copied, (size_t)(to - w->copied));
    if (rc < 0) return rc;
    w->copied = to;
    return RT_OK;
}

static int walk_cache_ref(walker *w) {
    const uint8_t *tag = w->c.p - 1;
    uint8_t index;
    int rc;
    if (!rt_cursor_u8(&w->c, &index)) return RT_EBAD;
    if (!w->out) return RT_OK;
    if (index >= w->atoms->count) return RT_EBAD;
    rc = copy_run(w, tag);
    if (rc < 0) return rc;
    w->copied = w->c.p;
    rc = rt_put_atom(w->out, w->atoms->at[index]);
    return rc == RT_EINVAL ? RT_EBAD : rc;
}

static int walk_atom_body(walker *w, uint8_t tag) {
    uint8_t small;
    uint16_t n;
    switch (tag) {
    case RT_TAG_ATOM_CACHE_REF:
        return walk_cache_ref(w);
    case RT_TAG_SMALL_ATOM_UTF8:
    case RT_TAG_SMALL_ATOM_LATIN1:
        return rt_cursor_u8(&w->c, &small) && pass(w, small) ? RT_OK : RT_EBAD;
    case RT_TAG_ATOM_UTF8:
    case RT_TAG_ATOM_LATIN1:
        return rt_cursor_u16(&w->c, &n) && pass(w, n) ? RT_OK : RT_EBAD;
    default:
        return RT_EBAD;
    }
}

static int walk_atom(walker *w) {
    uint8_t tag;
    return rt_cursor_u8(&w->c, &tag) ? walk_atom_body(w, tag) : RT_EBAD;
}

/* A node's name and a tail of fixed length. */
static int walk_ident(walker *w, uint64_t tail) {
    int rc = walk_atom(w);
    if (rc < 0) return rc;
    return pass(w, tail) ? RT_OK : RT_EBAD;
}

static int walk_ref(walker *w, uint64_t creation_bytes) {
    uint16_t words;
    if (!rt_cursor_u16(&w->c, &words)) return RT_EBAD;
    return walk_ident(w, creation_bytes + 4 * (uint64_t)words);
}

static int open_fun_at(walker *w, const uint8_t *size_field, uint32_t size) {
    open_fun *f;
    int rc;
    if (w->funs_n == w->funs_cap) {
        size_t cap = w->funs_cap * 2;
        bool heap = w->funs != w->space;
        f = rt_realloc(heap ? w->funs : NULL, cap * sizeof *f);
        if (!f) return RT_ENOMEM;
        if (!heap) memcpy(f, w->space, sizeof w->space);
        w->funs = f;
        w->funs_cap = cap;
    }
    rc = copy_run(w, size_field);
    if (rc < 0) return rc;
    f = &w->funs[w->funs_n++];
    f->end = size_field + size;
    f->size_at = w->out->n;
    return RT_OK;
}

/* Everything but the free variables; module, index, uniq and pid come as
 * pending terms, for each is a term of its own. */
static int walk_fun(walker *w) {
    const uint8_t *size_field = w->c.p;
    uint32_t size, free_vars;
    if (!rt_cursor_u32(&w->c, &size)) return RT_EBAD;
    if (!pass(w, FUN_FIXED_BYTES - 8) || !rt_cursor_u32(&w->c, &free_vars)) return RT_EBAD;
    w->pending += 4 + (uint64_t)free_vars;
    return w->out ? open_fun_at(w, size_field, size) : RT_OK;
}

/* Corrects the sizes of the funs that end here. */
static int close_funs(walker *w) {
    while (w->funs_n > 0 && w->funs[w->funs_n - 1].end == w->c.p) {
        const open_fun *f = &w->funs[w->funs_n - 1];
        size_t size;
        int rc = copy_run(w, w->c.p);
        if (rc < 0) return rc;
        size = w->out->n - f->size_at;
        if (size > UINT32_MAX) return RT_ELIMIT;
        rt_store_u32(w->out->p + f->size_at, (uint32_t)size);
        w->funs_n--;
    }
    return RT_OK;
}

/* A 32-bit count, then `each` pending terms for each and `more` besides. */
static int walk_counted(walker *w, uint64_t each, uint64_t more) {
    uint32_t n;
    if (!rt_cursor_u32(&w->c, &n)) return RT_EBAD;
    w->pending += each * n + more;
    return RT_OK;
}

/* A length of 1, 2 or 4 bytes, then `head` bytes, then as many as the length. */
static int walk_run(walker *w, int length_bytes, uint64_t head) {
    uint8_t n8;
    uint16_t n16;
    uint32_t n = 0;
    bool ok;
    if (length_bytes == 1) {
        ok = rt_cursor_u8(&w->c, &n8);
        if (ok) n = n8;
    } else if (length_bytes == 2) {
        ok = rt_cursor_u16(&w->c, &n16);
        if (ok) n = n16;
    } else {
        ok = rt_cursor_u32(&w->c, &n);
    }
    return ok && pass(w, head + n) ? RT_OK : RT_EBAD;
}

static int walk_one(walker *w) {
    uint8_t tag, arity;
    if (!rt_cursor_u8(&w->c, &tag)) return RT_EBAD;
    switch (tag) {
    case RT_TAG_SMALL_INTEGER: return pass(w, 1) ? RT_OK : RT_EBAD;
    case RT_TAG_INTEGER: return pass(w, 4) ? RT_OK : RT_EBAD;
    case RT_TAG_NEW_FLOAT: return pass(w, 8) ? RT_OK : RT_EBAD;
    case RT_TAG_FLOAT: return pass(w, RT_TEXT_FLOAT_BYTES) ? RT_OK : RT_EBAD;
    case RT_TAG_SMALL_BIG: return walk_run(w, 1, 1);
    case RT_TAG_LARGE_BIG: return walk_run(w, 4, 1);
    case RT_TAG_STRING: return walk_run(w, 2, 0);
    case RT_TAG_BINARY: return walk_run(w, 4, 0);
    case RT_TAG_BIT_BINARY: return walk_run(w, 4, 1);
    case RT_TAG_NIL: return RT_OK;
    case RT_TAG_SMALL_TUPLE:
        if (!rt_cursor_u8(&w->c, &arity)) return RT_EBAD;
        w->pending += arity;
        return RT_OK;
    case RT_TAG_LARGE_TUPLE: return walk_counted(w, 1, 0);
    case RT_TAG_LIST: return walk_counted(w, 1, 1);
    case RT_TAG_MAP: return walk_counted(w, 2, 0);
    case RT_TAG_NEW_FUN: return walk_fun(w);
    case RT_TAG_EXPORT: w->pending += 3; return RT_OK;
    case RT_TAG_NEW_PID:
    case RT_TAG_V4_PORT: return walk_ident(w, 12);
    case RT_TAG_PID: return walk_ident(w, 9);
    case RT_TAG_NEW_PORT: return walk_ident(w, 8);
    case RT_TAG_PORT:
    case RT_TAG_REFERENCE: return walk_ident(w, 5);
    case RT_TAG_NEWER_REFERENCE: return walk_ref(w, 4);
    case RT_TAG_NEW_REFERENCE: return walk_ref(w, 1);
    default: return walk_atom_body(w, tag);
    }
}

static int walk(walker *w) {
    while (w->pending > 0) {
        int rc;
        w->pending--;
        rc = walk_one(w);
        if (rc < 0) return rc;
        if (w->funs_n > 0) {
            rc = close_funs(w);
            if (rc < 0) return rc;
        }
    }
    return RT_OK;
}

static void walker_init(walker *w, const uint8_t *p, size_t n) {
    w->c = rt_cursor_of(p, n);
    w->pending = 1;
    w->out = NULL;
    w->atoms = NULL;
    w->copied = p;
    w->funs = w->space;
    w->funs_n = 0;
    w->funs_cap = FUNS_INLINE;
}

int rt_term_expand(rt_buf *out, const uint8_t *p, size_t n, const rt_atoms *atoms) {
    walker w;
    size_t start = out->n;
    int rc;
    /* No reference fits into a compressed term. */
    if (n > 0 && p[0] == RT_TAG_COMPRESSED) return rt_buf_put(out, p, n);
    walker_init(&w, p, n);
    w.out = out;
    w.atoms = atoms;
    rc = walk(&w);
    if (rc == RT_OK && rt_cursor_left(&w.c) > 0) rc = RT_EBAD;
    if (rc == RT_OK) rc = copy_run(&w, w.c.p);
    if (w.funs != w.space) rt_free(w.funs);
    if (rc < 0) out->n = start;
    return rc;
}

/* An atom of a header, which has been checked; room is reserved. */
static void put_known_atom(rt_buf *out, rt_slice name) {
    rt_buf_u8(out, name.n < 256 ? RT_TAG_SMALL_ATOM_UTF8 : RT_TAG_ATOM_UTF8);
    if (name.n < 256) rt_buf_u8(out, (uint8_t)name.n);
    else rt_buf_u16(out, (uint16_t)name.n);
    rt_buf_raw(out, name.p, name.n);
}

int rt_term_expand_scanned(rt_buf *out, const uint8_t *p, size_t n, const rt_scan *scan) {
    size_t at = 0;
    /* A fun's size field is to be corrected, and offsets have 32 bits. */
    if (scan->fun || scan->cache_refs > RT_SCAN_REFS_MAX || n > UINT32_MAX)
        return rt_term_expand(out, p, n, scan->atoms);
    if (rt_buf_reserve(out, scan->expanded_bytes) < 0) return RT_ENOMEM;
    for (uint32_t i = 0; i < scan->cache_refs; i++) {
        size_t ref = scan->ref_at[i];
        rt_buf_raw(out, p + at, ref - at);
        put_known_atom(out, scan->atoms->at[p[ref + 1]]);
        at = ref + 2;
    }
    rt_buf_raw(out, p + at, n - at);
    return RT_OK;
}

int64_t rt_term_skip(const uint8_t *p, size_t n) {
    walker w;
    int rc;
    if (n > 0 && p[0] == RT_TAG_COMPRESSED) {
        int64_t used = rt_term_inflate_skip(p + 1, n - 1, SIZE_MAX, UINT32_MAX);
        return used == RT_ENOMEM ? RT_ENOMEM : used < 0 ? RT_EBAD : used + 1;
    }
    walker_init(&w, p, n);
    rc = walk(&w);
    return rc < 0 ? rc : w.c.p - p;
}
