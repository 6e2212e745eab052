#include "base/limits.h"
#include "python/dec.h"
#include "term/inflate.h"
#include "term/scan.h"

/* What a head says: the kind in Erlang's words, and its elements, pairs, bytes or bits; -1 where
 * there is nothing to count. */
typedef struct head {
    const char *kind;
    int64_t length;
} head;

/* p begins a valid term of n bytes. */
static head read_head(const uint8_t *p, size_t n) {
    while (n > 5 && *p == RT_TAG_LIST && rt_load_u32(p + 1) == 0) { /* is its tail */
        p += 5;
        n -= 5;
    }
    switch (*p) {
    case RT_TAG_SMALL_INTEGER: case RT_TAG_INTEGER: case RT_TAG_SMALL_BIG: case RT_TAG_LARGE_BIG:
        return (head){"integer", -1};
    case RT_TAG_NEW_FLOAT: case RT_TAG_FLOAT: return (head){"float", -1};
    case RT_TAG_BINARY: return (head){"binary", rt_load_u32(p + 1)};
    case RT_TAG_BIT_BINARY: {
        int64_t bytes = rt_load_u32(p + 1), last = p[5];
        if (bytes == 0 || last == 8) return (head){"binary", bytes};
        return (head){"bitstring", 8 * (bytes - 1) + last};
    }
    case RT_TAG_NIL: return (head){"list", 0};
    case RT_TAG_STRING: return (head){"list", rt_load_u16(p + 1)};
    case RT_TAG_LIST: return (head){"list", rt_load_u32(p + 1)};
    case RT_TAG_SMALL_TUPLE: return (head){"tuple", p[1]};
    case RT_TAG_LARGE_TUPLE: return (head){"tuple", rt_load_u32(p + 1)};
    case RT_TAG_MAP: return (head){"map", rt_load_u32(p + 1)};
    case RT_TAG_NEW_PID: case RT_TAG_PID: return (head){"pid", -1};
    case RT_TAG_V4_PORT: case RT_TAG_NEW_PORT: case RT_TAG_PORT: return (head){"port", -1};
    case RT_TAG_NEWER_REFERENCE: case RT_TAG_NEW_REFERENCE: case RT_TAG_REFERENCE:
        return (head){"reference", -1};
    case RT_TAG_NEW_FUN: case RT_TAG_EXPORT: return (head){"fun", -1};
    default: return (head){"atom", -1};
    }
}

static const char *scan_error(int64_t code, bool compressed) {
    if (compressed) return code == RT_ELIMIT ? "a compressed term is too large for its limits"
                                             : "a compressed term is malformed";
    if (code == RT_AGAIN) return "the term ends too early";
    if (code == RT_ELIMIT) return "the term is nested too deep (max_depth)";
    return "the term is malformed";
}

int64_t rt_py_scan(const rt_codec *codec, const uint8_t *base, const uint8_t *p, size_t n) {
    rt_dec d = {.from = base, .st = rt_py_st};
    rt_scan s = {.depth_max = codec->max_depth};
    int64_t used = rt_term_scan(p, n, &s);
    if (used == RT_ENOMEM) PyErr_NoMemory();
    else if (used < 0) rt_dec_fail(&d, p + s.error_offset, scan_error(used, n && *p == RT_TAG_COMPRESSED));
    return used < 0 ? -1 : used;
}

/* False: no term, or MemoryError. */
static bool content_is_valid(const rt_codec *codec, const rt_buf *plain) {
    rt_scan s = {.depth_max = codec->max_depth};
    int64_t used = rt_term_scan(plain->p, plain->n, &s);
    if (used == RT_ENOMEM) PyErr_NoMemory();
    return used > 0 && *plain->p != RT_TAG_COMPRESSED;
}

/* The head of a compressed term's content. Errors inside name the term, as the decoder's do. */
static int inflated(const rt_codec *codec, const uint8_t *base, const uint8_t *p, size_t n,
                    head *out) {
    static const rt_limits limits = RT_LIMITS_DEFAULT;
    rt_buf plain = RT_BUF_INIT;
    rt_dec d = {.from = base, .st = rt_py_st};
    int64_t took = rt_term_inflate(&plain, p + 1, n - 1, codec->max_bytes,
                                   limits.inflate_ratio_max);
    int rc = -1;
    if (took == RT_ENOMEM) PyErr_NoMemory();
    else if (took < 0) rt_dec_fail(&d, p, "a compressed term is too large for its limits");
    else if (content_is_valid(codec, &plain)) rc = 0;
    else if (!PyErr_Occurred())
        rt_dec_fail(&d, p, "the content of a compressed term is malformed");
    if (rc == 0) *out = read_head(plain.p, plain.n);
    rt_buf_fini(&plain);
    return rc;
}

PyObject *rt_py_peek(const rt_codec *codec, const uint8_t *base, const uint8_t *p, size_t n) {
    head found;
    int64_t used = rt_py_scan(codec, base, p, n);
    if (used < 0) return NULL;
    if (*p == RT_TAG_COMPRESSED) {
        if (inflated(codec, base, p, n, &found) < 0) return NULL;
    } else {
        found = read_head(p, (size_t)used);
    }
    if (found.length < 0) return Py_BuildValue("sLO", found.kind, (long long)used + 1, Py_None);
    return Py_BuildValue("sLL", found.kind, (long long)used + 1, (long long)found.length);
}
