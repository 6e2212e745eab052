/* Every reader works on a copy of the cursor and stores it back on success,
 * so a failure moves nothing. The old tags carry two bits of creation and 18
 * bits of the first reference word; Erlang refuses more, and so does this. */
#include "term/ident.h"

#include "term/tags.h"
#include "term/utf8.h"
#include "term/write.h"

enum { OLD_CREATION_MAX = 3, OLD_REF_WORD_MAX = (1 << 18) - 1 };

int rt_read_atom(rt_cursor *c, rt_slice *name, bool *latin1) {
    rt_cursor at = *c;
    rt_slice s;
    uint8_t tag, small;
    uint16_t n;
    bool old, ascii;
    if (!rt_cursor_u8(&at, &tag)) return RT_AGAIN;
    switch (tag) {
    case RT_TAG_SMALL_ATOM_UTF8:
    case RT_TAG_SMALL_ATOM_LATIN1:
        if (!rt_cursor_u8(&at, &small)) return RT_AGAIN;
        n = small;
        break;
    case RT_TAG_ATOM_UTF8:
    case RT_TAG_ATOM_LATIN1:
        if (!rt_cursor_u16(&at, &n)) return RT_AGAIN;
        break;
    default:
        return RT_EBAD;
    }
    old = tag == RT_TAG_SMALL_ATOM_LATIN1 || tag == RT_TAG_ATOM_LATIN1;
    if (n > (old ? RT_ATOM_CHARS_MAX : RT_ATOM_BYTES_MAX)) return RT_EBAD;
    if (!rt_cursor_take(&at, n, &s)) return RT_AGAIN;
    ascii = rt_ascii(s.p, s.n);
    if (!old && (!ascii || n > RT_ATOM_CHARS_MAX)) {
        int64_t chars = rt_utf8_chars(s.p, s.n);
        if (chars < 0 || chars > RT_ATOM_CHARS_MAX) return RT_EBAD;
    }
    *name = s;
    *latin1 = old && !ascii;
    *c = at;
    return RT_OK;
}

/* A creation of one byte (old tags) or four. */
static int read_creation(rt_cursor *c, bool old, uint32_t *out) {
    uint8_t small;
    if (!old) return rt_cursor_u32(c, out) ? RT_OK : RT_AGAIN;
    if (!rt_cursor_u8(c, &small)) return RT_AGAIN;
    if (small > OLD_CREATION_MAX) return RT_EBAD;
    *out = small;
    return RT_OK;
}

int rt_read_pid(rt_cursor *c, rt_pid_view *out) {
    rt_cursor at = *c;
    rt_pid_view v;
    uint8_t tag;
    int rc;
    if (!rt_cursor_u8(&at, &tag)) return RT_AGAIN;
    if (tag != RT_TAG_NEW_PID && tag != RT_TAG_PID) return RT_EBAD;
    rc = rt_read_atom(&at, &v.node, &v.node_latin1);
    if (rc < 0) return rc;
    if (!rt_cursor_u32(&at, &v.id) || !rt_cursor_u32(&at, &v.serial)) return RT_AGAIN;
    rc = read_creation(&at, tag == RT_TAG_PID, &v.creation);
    if (rc < 0) return rc;
    *out = v;
    *c = at;
    return RT_OK;
}

/* REFERENCE: node, one word, creation; there is no count. */
static int read_oldest_ref(rt_cursor *at, rt_ref_view *v) {
    int rc = rt_read_atom(at, &v->node, &v->node_latin1);
    if (rc < 0) return rc;
    v->words = 1;
    if (!rt_cursor_u32(at, &v->word[0])) return RT_AGAIN;
    if (v->word[0] > OLD_REF_WORD_MAX) return RT_EBAD;
    return read_creation(at, true, &v->creation);
}

static int read_counted_ref(rt_cursor *at, bool old, rt_ref_view *v) {
    uint16_t words;
    int rc;
    if (!rt_cursor_u16(at, &words)) return RT_AGAIN;
    if (words > RT_REF_WORDS_MAX) return RT_EBAD;
    rc = rt_read_atom(at, &v->node, &v->node_latin1);
    if (rc < 0) return rc;
    rc = read_creation(at, old, &v->creation);
    if (rc < 0) return rc;
    v->words = words;
    for (uint32_t i = 0; i < words; i++) {
        if (!rt_cursor_u32(at, &v->word[i])) return RT_AGAIN;
        if (old && i == 0 && v->word[0] > OLD_REF_WORD_MAX) return RT_EBAD;
    }
    return RT_OK;
}

int rt_read_ref(rt_cursor *c, rt_ref_view *out) {
    rt_cursor at = *c;
    rt_ref_view v = {0};
    uint8_t tag;
    int rc;
    if (!rt_cursor_u8(&at, &tag)) return RT_AGAIN;
    switch (tag) {
    case RT_TAG_NEWER_REFERENCE: rc = read_counted_ref(&at, false, &v); break;
    case RT_TAG_NEW_REFERENCE: rc = read_counted_ref(&at, true, &v); break;
    case RT_TAG_REFERENCE: rc = read_oldest_ref(&at, &v); break;
    default: return RT_EBAD;
    }
    if (rc < 0) return rc;
    *out = v;
    *c = at;
    return RT_OK;
}

static int read_small_big(rt_cursor *at, int64_t *out) {
    uint8_t n, sign;
    uint64_t magnitude = 0;
    rt_slice digits;
    if (!rt_cursor_u8(at, &n) || !rt_cursor_u8(at, &sign)) return RT_AGAIN;
    if (n > 8) return RT_EBAD;
    if (!rt_cursor_take(at, n, &digits)) return RT_AGAIN;
    for (unsigned i = 0; i < n; i++) magnitude |= (uint64_t)digits.p[i] << (8 * i);
    if (magnitude > (uint64_t)INT64_MAX + (sign != 0)) return RT_EBAD;
    *out = sign ? (int64_t)(0 - magnitude) : (int64_t)magnitude;
    return RT_OK;
}

int rt_read_i64(rt_cursor *c, int64_t *out) {
    rt_cursor at = *c;
    uint8_t tag, small;
    uint32_t word;
    int64_t v;
    int rc;
    if (!rt_cursor_u8(&at, &tag)) return RT_AGAIN;
    switch (tag) {
    case RT_TAG_SMALL_INTEGER:
        if (!rt_cursor_u8(&at, &small)) return RT_AGAIN;
        v = small;
        break;
    case RT_TAG_INTEGER:
        if (!rt_cursor_u32(&at, &word)) return RT_AGAIN;
        v = (int32_t)word;
        break;
    case RT_TAG_SMALL_BIG:
        rc = read_small_big(&at, &v);
        if (rc < 0) return rc;
        break;
    default:
        return RT_EBAD;
    }
    *out = v;
    *c = at;
    return RT_OK;
}

int rt_read_tuple(rt_cursor *c, uint32_t *arity) {
    rt_cursor at = *c;
    uint8_t tag, small;
    uint32_t n;
    if (!rt_cursor_u8(&at, &tag)) return RT_AGAIN;
    if (tag == RT_TAG_SMALL_TUPLE) {
        if (!rt_cursor_u8(&at, &small)) return RT_AGAIN;
        n = small;
    } else if (tag == RT_TAG_LARGE_TUPLE) {
        if (!rt_cursor_u32(&at, &n)) return RT_AGAIN;
    } else {
        return RT_EBAD;
    }
    *arity = n;
    *c = at;
    return RT_OK;
}

/* The canonical forms are appended in one piece: room for the whole is made
 * first, so that nothing can fail half way except the node's name, which is
 * undone. */
static int begin(rt_buf *b, rt_slice node, size_t head, size_t tail) {
    return rt_buf_reserve(b, head + 3 + node.n + tail);
}

int rt_put_pid(rt_buf *b, rt_slice node, uint32_t id, uint32_t serial, uint32_t creation) {
    size_t start = b->n;
    int rc = begin(b, node, 1, 12);
    if (rc < 0) return rc;
    rt_buf_u8(b, RT_TAG_NEW_PID);
    rc = rt_put_atom(b, node);
    if (rc < 0) {
        b->n = start;
        return rc;
    }
    rt_buf_u32(b, id);
    rt_buf_u32(b, serial);
    rt_buf_u32(b, creation);
    return RT_OK;
}

int rt_put_ref(rt_buf *b, rt_slice node, uint32_t creation, const uint32_t *word,
               uint32_t words) {
    size_t start = b->n;
    int rc;
    if (words > RT_REF_WORDS_MAX) return RT_EINVAL;
    rc = begin(b, node, 3, 4 + 4 * RT_REF_WORDS_MAX);
    if (rc < 0) return rc;
    rt_buf_u8(b, RT_TAG_NEWER_REFERENCE);
    rt_buf_u16(b, (uint16_t)words);
    rc = rt_put_atom(b, node);
    if (rc < 0) {
        b->n = start;
        return rc;
    }
    rt_buf_u32(b, creation);
    for (uint32_t i = 0; i < words; i++) rt_buf_u32(b, word[i]);
    return RT_OK;
}

static int put_port(rt_buf *b, rt_slice node, uint64_t id, uint32_t creation) {
    size_t start = b->n;
    int rc = begin(b, node, 1, 12);
    if (rc < 0) return rc;
    rt_buf_u8(b, RT_TAG_V4_PORT);
    rc = rt_put_atom(b, node);
    if (rc < 0) {
        b->n = start;
        return rc;
    }
    rt_buf_u64(b, id);
    rt_buf_u32(b, creation);
    return RT_OK;
}

typedef struct port_view {
    rt_slice node;
    bool node_latin1;
    uint64_t id;
    uint32_t creation;
} port_view;

static int read_port(rt_cursor *at, port_view *v) {
    uint8_t tag;
    uint32_t small;
    int rc;
    if (!rt_cursor_u8(at, &tag)) return RT_AGAIN;
    if (tag != RT_TAG_V4_PORT && tag != RT_TAG_NEW_PORT && tag != RT_TAG_PORT) return RT_EBAD;
    rc = rt_read_atom(at, &v->node, &v->node_latin1);
    if (rc < 0) return rc;
    if (tag == RT_TAG_V4_PORT) {
        if (!rt_cursor_u64(at, &v->id)) return RT_AGAIN;
    } else {
        if (!rt_cursor_u32(at, &small)) return RT_AGAIN;
        v->id = small;
    }
    return read_creation(at, tag == RT_TAG_PORT, &v->creation);
}

/* The node as UTF-8, in `space` when it has to be converted. */
static rt_slice node_utf8(rt_slice node, bool latin1, uint8_t space[2 * RT_ATOM_CHARS_MAX]) {
    if (!latin1) return node;
    return rt_slice_of(space, rt_utf8_from_latin1(space, node.p, node.n));
}

int rt_put_canonical(rt_buf *b, rt_cursor *c) {
    uint8_t space[2 * RT_ATOM_CHARS_MAX];
    rt_cursor at = *c;
    rt_pid_view pid;
    rt_ref_view ref;
    port_view port;
    int rc;
    if (rt_cursor_left(&at) == 0) return RT_AGAIN;
    switch (at.p[0]) {
    case RT_TAG_NEW_PID:
    case RT_TAG_PID:
        rc = rt_read_pid(&at, &pid);
        if (rc < 0) return rc;
        rc = rt_put_pid(b, node_utf8(pid.node, pid.node_latin1, space), pid.id, pid.serial,
                        pid.creation);
        break;
    case RT_TAG_NEWER_REFERENCE:
    case RT_TAG_NEW_REFERENCE:
    case RT_TAG_REFERENCE:
        rc = rt_read_ref(&at, &ref);
        if (rc < 0) return rc;
        rc = rt_put_ref(b, node_utf8(ref.node, ref.node_latin1, space), ref.creation, ref.word,
                        ref.words);
        break;
    default:
        rc = read_port(&at, &port);
        if (rc < 0) return rc;
        rc = put_port(b, node_utf8(port.node, port.node_latin1, space), port.id, port.creation);
        break;
    }
    if (rc < 0) return rc;
    *c = at;
    return RT_OK;
}
