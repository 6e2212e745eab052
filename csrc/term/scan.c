/* The scan keeps the terms still to come of the current container in `cur` and
 * those of the containers around it on a stack: 64 levels without an
 * allocation, more on the heap up to depth_max. Everything of fixed shape
 * (numbers, atoms, identifiers) is a leaf; tuples, lists, maps and funs push a
 * level. */
#include "term/scan.h"

#include "base/alloc.h"
#include "base/cursor.h"
#include "base/limits.h"
#include "term/ident.h"
#include "term/inflate.h"
#include "term/tags.h"
#include "term/text_float.h"
#include "term/utf8.h"

enum {
    LEVELS_INLINE = 64,
    FUN_HEAD_BYTES = 30, /* tag, size, arity, uniq, index, count of free variables */
    FUN_FREE_MAX = 255,
    OLD_CREATION_MAX = 3,
    OLD_REF_WORD_MAX = (1 << 18) - 1
};

/* What Erlang holds without a bignum; arities and fun indices must fit. */
#define SMALL_MAX ((INT64_C(1) << 59) - 1)
#define SMALL_MIN (-SMALL_MAX - 1)

#define FLOAT_EXPONENT_BITS 0x7ff0000000000000ULL

/* A compressed term is inflated once to find its end. These bounds keep that
 * finite; the decoder applies the node's own. */
#define MEASURE_BYTES_MAX ((size_t)1 << 30)
#define MEASURE_RATIO_MAX 1100u

typedef struct level {
    uint64_t left;          /* terms still to come */
    const uint8_t *fun_end; /* where a fun must end; NULL for anything else */
} level;

/* The cache references seen so far. */
typedef struct refs {
    rt_scan *scan;
    const uint8_t *begin;
    uint64_t grown;    /* bytes that expanding will add */
    uint32_t n;
} refs;

typedef struct scanner {
    const uint8_t *end;
    refs refs;
    bool fun;
    level *stack;      /* `space` or the heap */
    uint32_t depth, cap, depth_max;
    level space[LEVELS_INLINE];
} scanner;

/* Leaves: each returns the bytes it takes, tag included, or an error. */

static int64_t utf8_atom(const uint8_t *name, size_t n, size_t head) {
    int64_t chars;
    if (n > RT_ATOM_BYTES_MAX) return RT_EBAD;
    chars = rt_utf8_chars(name, n);
    if (chars < 0 || chars > RT_ATOM_CHARS_MAX) return RT_EBAD;
    return (int64_t)(head + n);
}

RT_INLINE int64_t cache_ref(refs *r, const uint8_t *p, size_t left) {
    const rt_atoms *atoms = r->scan->atoms;
    size_t name;
    if (left < 2) return RT_AGAIN;
    if (!atoms || p[1] >= atoms->count) return RT_EBAD;
    name = atoms->at[p[1]].n;
    if (r->n < RT_SCAN_REFS_MAX) r->scan->ref_at[r->n] = (uint32_t)(p - r->begin);
    r->n++;
    r->grown += (name < 256 ? 2 : 3) + name - 2;
    return 2;
}

static int64_t rare_atom(scanner *s, const uint8_t *p, size_t left) {
    size_t head, n;
    bool latin1 = p[0] == RT_TAG_ATOM_LATIN1 || p[0] == RT_TAG_SMALL_ATOM_LATIN1;
    switch (p[0]) {
    case RT_TAG_ATOM_CACHE_REF:
        return cache_ref(&s->refs, p, left);
    case RT_TAG_SMALL_ATOM_UTF8:
    case RT_TAG_SMALL_ATOM_LATIN1:
        if (left < 2) return RT_AGAIN;
        head = 2;
        n = p[1];
        break;
    case RT_TAG_ATOM_UTF8:
    case RT_TAG_ATOM_LATIN1:
        if (left < 3) return RT_AGAIN;
        head = 3;
        n = rt_load_u16(p + 1);
        break;
    default:
        return RT_EBAD;
    }
    if (n > (latin1 ? RT_ATOM_CHARS_MAX : RT_ATOM_BYTES_MAX)) return RT_EBAD;
    if (left - head < n) return RT_AGAIN;
    return latin1 ? (int64_t)(head + n) : utf8_atom(p + head, n, head);
}

RT_INLINE int64_t atom(scanner *s, const uint8_t *p, size_t left) {
    if (RT_LIKELY(left >= 2 && p[0] == RT_TAG_SMALL_ATOM_UTF8)) {
        size_t n = p[1];
        if (RT_UNLIKELY(left - 2 < n)) return RT_AGAIN;
        if (RT_LIKELY(rt_ascii(p + 2, n))) return (int64_t)(2 + n);
    }
    if (left == 0) return RT_AGAIN;
    return rare_atom(s, p, left);
}

/* The bytes after the node of an identifier, for the tag and words given. */
static size_t ident_tail_bytes(uint8_t tag, size_t words) {
    switch (tag) {
    case RT_TAG_NEW_PID: return 12;
    case RT_TAG_PID: return 9;
    case RT_TAG_V4_PORT: return 12;
    case RT_TAG_NEW_PORT: return 8;
    case RT_TAG_PORT: return 5;
    case RT_TAG_NEWER_REFERENCE: return 4 + 4 * words;
    case RT_TAG_NEW_REFERENCE: return 1 + 4 * words;
    default: return 5; /* RT_TAG_REFERENCE */
    }
}

/* The old tags have unused bits that must be zero. */
static bool ident_tail_ok(uint8_t tag, const uint8_t *tail, size_t words) {
    switch (tag) {
    case RT_TAG_PID: return tail[8] <= OLD_CREATION_MAX;
    case RT_TAG_PORT: return tail[4] <= OLD_CREATION_MAX;
    case RT_TAG_REFERENCE:
        return tail[4] <= OLD_CREATION_MAX && rt_load_u32(tail) <= OLD_REF_WORD_MAX;
    case RT_TAG_NEW_REFERENCE:
        return tail[0] <= OLD_CREATION_MAX &&
               (words == 0 || rt_load_u32(tail + 1) <= OLD_REF_WORD_MAX);
    default: return true;
    }
}

static int64_t ident(scanner *s, const uint8_t *p, size_t left) {
    size_t head = 1, words = 0, tail;
    int64_t node;
    if (p[0] == RT_TAG_NEWER_REFERENCE || p[0] == RT_TAG_NEW_REFERENCE) {
        if (left < 3) return RT_AGAIN;
        words = rt_load_u16(p + 1);
        if (words > RT_REF_WORDS_MAX) return RT_EBAD;
        head = 3;
    }
    node = atom(s, p + head, left - head);
    if (node < 0) return node;
    head += (size_t)node;
    tail = ident_tail_bytes(p[0], words);
    if (left - head < tail) return RT_AGAIN;
    if (!ident_tail_ok(p[0], p + head, words)) return RT_EBAD;
    return (int64_t)(head + tail);
}

RT_INLINE bool is_finite(const uint8_t *p) {
    return (rt_load_u64(p) & FLOAT_EXPONENT_BITS) != FLOAT_EXPONENT_BITS;
}

static int64_t small_integer(const uint8_t *p, size_t left, int64_t low) {
    rt_cursor c = rt_cursor_of(p, left);
    int64_t v;
    int rc = rt_read_i64(&c, &v);
    if (rc < 0) return rc;
    if (v < low || v > SMALL_MAX) return RT_EBAD;
    return c.p - p;
}

static int64_t export(scanner *s, const uint8_t *p, size_t left) {
    size_t at = 1;
    int64_t used = 0;
    for (int i = 0; i < 3; i++) {
        used = i < 2 ? atom(s, p + at, left - at) : small_integer(p + at, left - at, 0);
        if (used < 0) return used;
        at += (size_t)used;
    }
    return (int64_t)at;
}

static int64_t rare_leaf(scanner *s, const uint8_t *p, size_t left) {
    uint64_t n;
    switch (p[0]) {
    case RT_TAG_FLOAT:
        if (left < 1 + RT_TEXT_FLOAT_BYTES) return RT_AGAIN;
        if (rt_text_float_check(p + 1) < 0) return RT_EBAD;
        return 1 + RT_TEXT_FLOAT_BYTES;
    case RT_TAG_LARGE_BIG:
        if (left < 6) return RT_AGAIN;
        n = 6 + (uint64_t)rt_load_u32(p + 1);
        return left < n ? RT_AGAIN : (int64_t)n;
    case RT_TAG_BIT_BINARY:
        if (left < 6) return RT_AGAIN;
        n = rt_load_u32(p + 1);
        if (n == 0 ? p[5] != 0 : p[5] < 1 || p[5] > 8) return RT_EBAD;
        return left - 6 < n ? RT_AGAIN : (int64_t)(6 + n);
    case RT_TAG_EXPORT:
        return export(s, p, left);
    default: /* unknown tags, LOCAL, native records, COMPRESSED inside a term */
        return RT_EBAD;
    }
}

/* Passes the usual leaves that stand at p, at most *count of them. At anything else it stops, and
 * at what is cut or wrong: leaf() reads that, and says what it is. */
RT_INLINE const uint8_t *plain_leaves(refs *r, const uint8_t *p, const uint8_t *end,
                                      uint64_t *count) {
    for (; *count > 0; --*count) {
        size_t left = (size_t)(end - p), n;
        if (RT_UNLIKELY(left < 2)) break;
        switch (*p) {
        case RT_TAG_SMALL_INTEGER: n = 2; break;
        case RT_TAG_INTEGER: n = 5; break;
        case RT_TAG_SMALL_BIG: n = 3 + (size_t)p[1]; break;
        case RT_TAG_NIL: n = 1; break;
        case RT_TAG_BINARY:
            if (RT_UNLIKELY(left < 5)) return p;
            n = 5 + (size_t)rt_load_u32(p + 1);
            break;
        case RT_TAG_SMALL_ATOM_UTF8:
            n = 2 + (size_t)p[1];
            if (RT_UNLIKELY(left < n || !rt_ascii(p + 2, n - 2))) return p;
            break;
        case RT_TAG_ATOM_CACHE_REF:
            if (RT_UNLIKELY(cache_ref(r, p, left) < 0)) return p;
            n = 2;
            break;
        case RT_TAG_STRING:
            if (RT_UNLIKELY(left < 3)) return p;
            n = 3 + (size_t)rt_load_u16(p + 1);
            break;
        case RT_TAG_NEW_FLOAT:
            if (RT_UNLIKELY(left < 9 || !is_finite(p + 1))) return p;
            n = 9;
            break;
        default: return p;
        }
        if (RT_UNLIKELY(left < n)) break;
        p += n;
    }
    return p;
}

/* Returns 0 for a container. */
static int64_t leaf(scanner *s, const uint8_t *p, size_t left) {
    uint64_t n;
    switch (p[0]) {
    case RT_TAG_SMALL_INTEGER:
        return RT_LIKELY(left >= 2) ? 2 : RT_AGAIN;
    case RT_TAG_INTEGER:
        return RT_LIKELY(left >= 5) ? 5 : RT_AGAIN;
    case RT_TAG_SMALL_BIG:
        if (left < 3) return RT_AGAIN;
        n = 3 + (uint64_t)p[1];
        return left < n ? RT_AGAIN : (int64_t)n;
    case RT_TAG_NEW_FLOAT:
        if (left < 9) return RT_AGAIN;
        return is_finite(p + 1) ? 9 : RT_EBAD;
    case RT_TAG_SMALL_ATOM_UTF8:
    case RT_TAG_ATOM_UTF8:
    case RT_TAG_SMALL_ATOM_LATIN1:
    case RT_TAG_ATOM_LATIN1:
    case RT_TAG_ATOM_CACHE_REF:
        return atom(s, p, left);
    case RT_TAG_BINARY:
        if (left < 5) return RT_AGAIN;
        n = 5 + (uint64_t)rt_load_u32(p + 1);
        return left < n ? RT_AGAIN : (int64_t)n;
    case RT_TAG_STRING:
        if (left < 3) return RT_AGAIN;
        n = 3 + (uint64_t)rt_load_u16(p + 1);
        return left < n ? RT_AGAIN : (int64_t)n;
    case RT_TAG_NIL:
        return 1;
    case RT_TAG_NEW_PID: case RT_TAG_NEWER_REFERENCE: case RT_TAG_V4_PORT:
    case RT_TAG_NEW_PORT: case RT_TAG_PID: case RT_TAG_NEW_REFERENCE:
    case RT_TAG_REFERENCE: case RT_TAG_PORT:
        return ident(s, p, left);
    case RT_TAG_SMALL_TUPLE: case RT_TAG_LARGE_TUPLE: case RT_TAG_LIST:
    case RT_TAG_MAP: case RT_TAG_NEW_FUN:
        return 0;
    default:
        return rare_leaf(s, p, left);
    }
}

/* A fun's fixed part: everything before its free variables. The size field
 * counts itself and all that follows it. */
static int64_t fun_head(scanner *s, const uint8_t *p, size_t left, level *inside) {
    size_t at = FUN_HEAD_BYTES;
    uint32_t size, free_vars;
    int64_t used;
    s->fun = true;
    if (left < FUN_HEAD_BYTES) return RT_AGAIN;
    size = rt_load_u32(p + 1);
    free_vars = rt_load_u32(p + 26);
    if (free_vars > FUN_FREE_MAX) return RT_EBAD;
    if (left - 1 < size) return RT_AGAIN;
    if (size < FUN_HEAD_BYTES - 1) return RT_EBAD;
    for (int i = 0; i < 4; i++) {
        const uint8_t *part = p + at;
        size_t rest = left - at;
        if (rest == 0) return RT_AGAIN;
        if (i == 0)
            used = atom(s, part, rest);
        else if (i < 3)
            used = small_integer(part, rest, SMALL_MIN);
        else
            used = part[0] == RT_TAG_NEW_PID || part[0] == RT_TAG_PID ? ident(s, part, rest)
                                                                      : RT_EBAD;
        if (used < 0) return used;
        at += (size_t)used;
    }
    inside->left = free_vars;
    inside->fun_end = p + 1 + size;
    return (int64_t)at;
}

/* Reads a container's head: how long it is, and what must follow. */
RT_INLINE int64_t container(scanner *s, const uint8_t *p, size_t left, level *inside) {
    uint64_t children;
    size_t head = 5;
    if (p[0] == RT_TAG_SMALL_TUPLE) {
        if (left < 2) return RT_AGAIN;
        children = p[1];
        head = 2;
    } else if (p[0] == RT_TAG_NEW_FUN) {
        return fun_head(s, p, left, inside);
    } else {
        if (left < 5) return RT_AGAIN;
        children = rt_load_u32(p + 1);
        if (p[0] == RT_TAG_LIST) children++; /* the tail */
        if (p[0] == RT_TAG_MAP) children *= 2;
    }
    if (children > left - head) return RT_AGAIN; /* each takes a byte at least */
    inside->left = children;
    inside->fun_end = NULL;
    return (int64_t)head;
}

/* Makes room on the stack: on the heap beyond the first levels. */
static int grow(scanner *s) {
    level *bigger;
    uint32_t cap = s->cap > s->depth_max / 2 ? s->depth_max : s->cap * 2;
    if (s->stack == s->space) {
        bigger = rt_malloc(cap * sizeof *bigger);
        if (bigger) memcpy(bigger, s->space, sizeof s->space);
    } else {
        bigger = rt_realloc(s->stack, cap * sizeof *bigger);
    }
    if (!bigger) return RT_ENOMEM;
    s->stack = bigger;
    s->cap = cap;
    return RT_OK;
}

RT_INLINE int push(scanner *s, level cur) {
    if (RT_UNLIKELY(s->depth == s->depth_max)) return RT_ELIMIT;
    if (RT_UNLIKELY(s->depth == s->cap) && grow(s) < 0) return RT_ENOMEM;
    s->stack[s->depth++] = cur;
    return RT_OK;
}

/* Walks the terms of `cur`, and of the levels on the stack, from *at; leaves *at where it stopped. */
static int walk(scanner *s, const uint8_t **at, level cur) {
    const uint8_t *p = *at, *end = s->end;
    level inside;
    int64_t used;
    for (;;) {
        p = plain_leaves(&s->refs, p, end, &cur.left);
        if (cur.left == 0) {
            if (RT_UNLIKELY(cur.fun_end && cur.fun_end != p)) goto bad_fun;
            if (s->depth == 0) break;
            cur = s->stack[--s->depth];
            continue;
        }
        cur.left--;
        used = RT_AGAIN;
        if (RT_UNLIKELY(p == end)) goto fail;
        used = *p == RT_TAG_SMALL_TUPLE ? 0 : leaf(s, p, (size_t)(end - p));
        if (used == 0) {
            int rc;
            used = container(s, p, (size_t)(end - p), &inside);
            if (RT_UNLIKELY(used < 0)) goto fail;
            rc = push(s, cur);
            if (RT_UNLIKELY(rc < 0)) {
                used = rc;
                goto fail;
            }
            cur = inside;
        }
        if (RT_UNLIKELY(used < 0)) goto fail;
        p += used;
    }
    *at = p;
    return RT_OK;
bad_fun:
    used = RT_EBAD;
fail:
    *at = p;
    return (int)used;
}

static int64_t scan_compressed(const uint8_t *p, size_t n, rt_scan *scan) {
    int64_t used = rt_term_inflate_skip(p + 1, n - 1, MEASURE_BYTES_MAX, MEASURE_RATIO_MAX);
    if (used < 0) {
        scan->error_offset = 0;
        return used;
    }
    scan->cache_refs = 0;
    scan->fun = false;
    scan->compressed = true;
    scan->expanded_bytes = (uint64_t)used + 1;
    return used + 1;
}

RT_INLINE int64_t seen(const refs *r, const uint8_t *end, bool fun) {
    int64_t n = end - r->begin;
    r->scan->cache_refs = r->n;
    r->scan->fun = fun;
    r->scan->compressed = false;
    r->scan->expanded_bytes = (uint64_t)n + r->grown;
    return n;
}

/* Scans on at `at`: at the beginning, where the one term is still to come; or behind the head of a
 * tuple and some leaves of it, where `left` are. */
RT_APART int64_t scan_rest(refs seen_refs, const uint8_t *at, const uint8_t *end, uint64_t left) {
    scanner s;
    level cur = {left, NULL};
    rt_scan *scan = seen_refs.scan;
    int rc;
    s.end = end;
    s.refs = seen_refs;
    s.fun = false;
    s.stack = s.space;
    s.space[0] = (level){0, NULL}; /* around the tuple */
    s.depth = at != seen_refs.begin;
    s.cap = LEVELS_INLINE;
    s.depth_max = scan->depth_max;
    rc = walk(&s, &at, cur);
    if (s.stack != s.space) rt_free(s.stack);
    if (rc < 0) {
        scan->error_offset = (size_t)(at - s.refs.begin);
        return rc;
    }
    return seen(&s.refs, at, s.fun);
}

/* Most messages are a tuple of the usual leaves, which needs no stack. */
int64_t rt_term_scan(const uint8_t *p, size_t n, rt_scan *scan) {
    const uint8_t *at = p;
    refs r = {scan, p, 0, 0};
    uint64_t left = 1;
    if (RT_LIKELY(n >= 2 && p[0] == RT_TAG_SMALL_TUPLE && p[1] <= n - 2 && scan->depth_max > 0)) {
        left = p[1];
        at = plain_leaves(&r, p + 2, p + n, &left);
        if (RT_LIKELY(left == 0)) return seen(&r, at, false);
    }
    if (RT_UNLIKELY(n > 0 && p[0] == RT_TAG_COMPRESSED)) return scan_compressed(p, n, scan);
    return scan_rest(r, at, p + n, left);
}
