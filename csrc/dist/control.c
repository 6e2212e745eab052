/* The shape of every opcode is a row of a table, one letter per element after
 * the opcode; one loop reads them all through the readers of term/. The sends
 * have a short way of their own in front of it. */
#include "dist/control.h"

#include "base/cursor.h"
#include "base/limits.h"
#include "term/ident.h"
#include "term/scan.h"
#include "term/tags.h"
#include "term/utf8.h"

enum { SHAPES = RT_OP_ALTACT_SIG_SEND + 1, DEPTH_MAX = 10000 };

/* p: `from`, a pid             f: `from`, a pid or a name
 * t: `to`, a pid               n: `to`, a name
 * x: `to`, a pid or a name     a: `to`, an alias reference
 * d: `to`, as the flags of ALTACT_SIG_SEND say
 * r: `ref`                     i: `id`, any 64-bit number
 * F: `id`, a small number      R: `reason`, any term
 * S: `reason`, a pid or atom   g: `group_leader`, a pid
 * m: `mfa`                     o: `options`, a list
 * u: any term, dropped (unused elements and trace tokens)
 * k: the same, there only when the flags of ALTACT_SIG_SEND say so */
typedef struct shape {
    char elements[7];
    bool payload;
} shape;

static const shape SHAPE[SHAPES] = {
    [RT_OP_LINK] = {"pt", false},
    [RT_OP_SEND] = {"ut", true},
    [RT_OP_EXIT] = {"ptR", false},
    [RT_OP_UNLINK] = {"pt", false},
    [RT_OP_REG_SEND] = {"pun", true},
    [RT_OP_GROUP_LEADER] = {"pt", false},
    [RT_OP_EXIT2] = {"ptR", false},
    [RT_OP_SEND_TT] = {"utu", true},
    [RT_OP_EXIT_TT] = {"ptuR", false},
    [RT_OP_REG_SEND_TT] = {"punu", true},
    [RT_OP_EXIT2_TT] = {"ptuR", false},
    [RT_OP_MONITOR_P] = {"pxr", false},
    [RT_OP_DEMONITOR_P] = {"pxr", false},
    [RT_OP_MONITOR_P_EXIT] = {"ftrR", false},
    [RT_OP_SEND_SENDER] = {"pt", true},
    [RT_OP_SEND_SENDER_TT] = {"ptu", true},
    [RT_OP_PAYLOAD_EXIT] = {"pt", true},
    [RT_OP_PAYLOAD_EXIT_TT] = {"ptu", true},
    [RT_OP_PAYLOAD_EXIT2] = {"pt", true},
    [RT_OP_PAYLOAD_EXIT2_TT] = {"ptu", true},
    [RT_OP_PAYLOAD_MONITOR_P_EXIT] = {"ftr", true},
    [RT_OP_SPAWN_REQUEST] = {"rpgmo", true},
    [RT_OP_SPAWN_REQUEST_TT] = {"rpgmou", true},
    [RT_OP_SPAWN_REPLY] = {"rtFS", false},
    [RT_OP_SPAWN_REPLY_TT] = {"rtFSu", false},
    [RT_OP_ALIAS_SEND] = {"pa", true},
    [RT_OP_ALIAS_SEND_TT] = {"pau", true},
    [RT_OP_UNLINK_ID] = {"ipt", false},
    [RT_OP_UNLINK_ID_ACK] = {"ipt", false},
    [RT_OP_ALTACT_SIG_SEND] = {"Fpdk", true},
};

/* The length of an identifier of today's form: `head` bytes, a short node name
 * in ASCII, `tail` bytes. 0 when it is of another form or cut. */
RT_INLINE size_t short_ident(const uint8_t *p, size_t left, size_t head, size_t tail) {
    size_t n;
    if (left < head + 2 || p[head] != RT_TAG_SMALL_ATOM_UTF8) return 0;
    n = head + 2 + p[head + 1] + tail;
    if (left < n || !rt_ascii(p + head + 2, p[head + 1])) return 0;
    return n;
}

RT_INLINE size_t short_pid(const uint8_t *p, size_t left) {
    if (RT_UNLIKELY(left == 0 || p[0] != RT_TAG_NEW_PID)) return 0;
    return short_ident(p, left, 1, 12);
}

RT_INLINE size_t short_ref(const uint8_t *p, size_t left) {
    if (RT_UNLIKELY(left < 3 || p[0] != RT_TAG_NEWER_REFERENCE)) return 0;
    if (RT_UNLIKELY(p[1] != 0 || p[2] > RT_REF_WORDS_MAX)) return 0;
    return short_ident(p, left, 3, 4 + 4 * (size_t)p[2]);
}

static int take_pid(rt_cursor *c, rt_slice *out) {
    const uint8_t *start = c->p;
    rt_pid_view v;
    int rc = rt_read_pid(c, &v);
    if (rc < 0) return rc;
    *out = rt_slice_of(start, (size_t)(c->p - start));
    return RT_OK;
}

static int take_ref(rt_cursor *c, rt_slice *out) {
    const uint8_t *start = c->p;
    rt_ref_view v;
    int rc = rt_read_ref(c, &v);
    if (rc < 0) return rc;
    *out = rt_slice_of(start, (size_t)(c->p - start));
    return RT_OK;
}

static int take_atom(rt_cursor *c, rt_slice *out) {
    const uint8_t *start = c->p;
    rt_slice name;
    bool latin1;
    int rc = rt_read_atom(c, &name, &latin1);
    if (rc < 0) return rc;
    *out = rt_slice_of(start, (size_t)(c->p - start));
    return RT_OK;
}

static bool is_atom_tag(uint8_t tag) {
    return tag == RT_TAG_SMALL_ATOM_UTF8 || tag == RT_TAG_ATOM_UTF8 ||
           tag == RT_TAG_ATOM_LATIN1 || tag == RT_TAG_SMALL_ATOM_LATIN1;
}

static int take_pid_or_atom(rt_cursor *c, rt_slice *out, bool *name) {
    if (c->p == c->end) return RT_AGAIN;
    *name = is_atom_tag(*c->p);
    return *name ? take_atom(c, out) : take_pid(c, out);
}

/* Takes any term. The empty atom is what stands in SEND and REG_SEND. */
static int take_any(rt_cursor *c, rt_slice *out) {
    rt_scan scan = {.depth_max = DEPTH_MAX};
    const uint8_t *p = c->p;
    size_t left = rt_cursor_left(c);
    int64_t n = 2;
    if (!(left >= 2 && p[0] == RT_TAG_SMALL_ATOM_UTF8 && p[1] == 0)) {
        n = rt_term_scan(p, left, &scan);
        if (n < 0) return (int)n;
    }
    *out = rt_slice_of(p, (size_t)n);
    c->p += n;
    return RT_OK;
}

/* Integers of up to eight bytes in any of the tags that can hold them. */
static int take_u64(rt_cursor *c, uint64_t *out) {
    rt_cursor at = *c;
    rt_slice digits;
    uint64_t v = 0;
    int64_t small;
    uint32_t n;
    uint8_t tag, n8, sign;
    int rc;
    if (!rt_cursor_u8(&at, &tag)) return RT_AGAIN;
    if (tag == RT_TAG_SMALL_BIG || tag == RT_TAG_LARGE_BIG) {
        if (tag == RT_TAG_LARGE_BIG) {
            if (!rt_cursor_u32(&at, &n)) return RT_AGAIN;
        } else {
            if (!rt_cursor_u8(&at, &n8)) return RT_AGAIN;
            n = n8;
        }
        if (n > 8) return RT_EBAD;
        if (!rt_cursor_u8(&at, &sign) || !rt_cursor_take(&at, n, &digits)) return RT_AGAIN;
        for (uint32_t i = 0; i < n; i++) v |= (uint64_t)digits.p[i] << (8 * i);
        if (sign && v != 0) return RT_EBAD;
        *c = at;
        *out = v;
        return RT_OK;
    }
    rc = rt_read_i64(c, &small);
    if (rc < 0) return rc;
    if (small < 0) return RT_EBAD;
    *out = (uint64_t)small;
    return RT_OK;
}

static int take_flags(rt_cursor *c, uint64_t *out) {
    uint64_t v;
    int rc = take_u64(c, &v);
    if (rc < 0) return rc;
    if (v > UINT32_MAX) return RT_EBAD;
    *out = v;
    return RT_OK;
}

static int take_mfa(rt_cursor *c, rt_slice *out) {
    const uint8_t *start = c->p;
    rt_slice name;
    uint32_t n;
    uint64_t arity;
    int rc = rt_read_tuple(c, &n);
    if (rc < 0) return rc;
    if (n != 3) return RT_EBAD;
    rc = take_atom(c, &name);
    if (rc < 0) return rc;
    rc = take_atom(c, &name);
    if (rc < 0) return rc;
    rc = take_flags(c, &arity);
    if (rc < 0) return rc;
    *out = rt_slice_of(start, (size_t)(c->p - start));
    return RT_OK;
}

static int take_list(rt_cursor *c, rt_slice *out) {
    if (c->p == c->end) return RT_AGAIN;
    if (*c->p != RT_TAG_LIST && *c->p != RT_TAG_NIL && *c->p != RT_TAG_STRING) return RT_EBAD;
    return take_any(c, out);
}

static int take_altact_to(rt_cursor *c, rt_control *m) {
    bool alias = m->id & RT_ALTACT_ALIAS, name = m->id & RT_ALTACT_NAME;
    if (alias && name) return RT_EBAD;
    m->to_alias = alias;
    m->to_name = name;
    if (alias) return take_ref(c, &m->to);
    return name ? take_atom(c, &m->to) : take_pid(c, &m->to);
}

static int take_element(rt_cursor *c, char kind, rt_control *m) {
    rt_slice dropped;
    bool name;
    switch (kind) {
    case 'p': return take_pid(c, &m->from);
    case 't': return take_pid(c, &m->to);
    case 'u': return take_any(c, &dropped);
    case 'n': m->to_name = true; return take_atom(c, &m->to);
    case 'a': m->to_alias = true; return take_ref(c, &m->to);
    case 'x': return take_pid_or_atom(c, &m->to, &m->to_name);
    case 'f': return take_pid_or_atom(c, &m->from, &name);
    case 'd': return take_altact_to(c, m);
    case 'r': return take_ref(c, &m->ref);
    case 'i': return take_u64(c, &m->id);
    case 'F': return take_flags(c, &m->id);
    case 'R': return take_any(c, &m->reason);
    case 'S': return take_pid_or_atom(c, &m->reason, &name);
    case 'g': return take_pid(c, &m->group_leader);
    case 'm': return take_mfa(c, &m->mfa);
    case 'o': return take_list(c, &m->options);
    default: return m->id & RT_ALTACT_TOKEN ? take_any(c, &dropped) : RT_OK; /* 'k' */
    }
}

/* Reads the tuple header and the opcode; `rest` is how many elements follow. */
static int take_head(rt_cursor *c, uint64_t *op, uint32_t *rest) {
    uint32_t arity;
    int rc = rt_read_tuple(c, &arity);
    if (rc < 0) return rc;
    if (arity == 0) return RT_EBAD;
    *rest = arity - 1;
    return take_u64(c, op);
}

/* True when `rest` elements may follow that opcode. The trace token of
 * ALTACT_SIG_SEND is checked once its flags are known. */
static bool arity_ok(uint64_t op, uint32_t rest) {
    size_t n;
    if (op == RT_OP_NODE_LINK) return rest == 0;
    if (op >= SHAPES || SHAPE[op].elements[0] == '\0') return false;
    n = strlen(SHAPE[op].elements);
    return rest == n || (op == RT_OP_ALTACT_SIG_SEND && rest == n - 1);
}

static bool may_be_pack(uint64_t op) {
    return op == RT_OP_SEND_SENDER || op == RT_OP_REG_SEND || op == RT_OP_ALIAS_SEND;
}

/* SEND, SEND_SENDER, REG_SEND and ALIAS_SEND as nodes write them today, which
 * is nearly all there ever comes. Returns 0 for anything else, malformed or
 * not: the table judges that. */
RT_INLINE size_t parse_short(const uint8_t *p, size_t n, rt_control *out) {
    const uint8_t *at = p + 4, *end = p + n;
    size_t from = 0, to;
    bool name, alias;
    uint8_t op;
    if (n < 6 || p[0] != RT_TAG_SMALL_TUPLE || p[2] != RT_TAG_SMALL_INTEGER) return 0;
    op = p[3] & (uint8_t)~RT_OP_PACK;
    name = op == RT_OP_REG_SEND;
    alias = op == RT_OP_ALIAS_SEND;
    if (!name && !alias && p[3] != RT_OP_SEND && op != RT_OP_SEND_SENDER) return 0;
    if (p[1] != (name ? 4 : 3)) return 0;
    if (op != RT_OP_SEND) {
        from = short_pid(at, (size_t)(end - at));
        if (RT_UNLIKELY(from == 0)) return 0;
        at += from;
    }
    if (name || op == RT_OP_SEND) { /* the unused element: an empty atom */
        if (end - at < 2 || at[0] != RT_TAG_SMALL_ATOM_UTF8 || at[1] != 0) return 0;
        at += 2;
    }
    to = name ? short_ident(at, (size_t)(end - at), 0, 0)
              : alias ? short_ref(at, (size_t)(end - at)) : short_pid(at, (size_t)(end - at));
    if (RT_UNLIKELY(to == 0)) return 0;
    memset(out, 0, sizeof *out);
    out->op = (enum rt_control_op)op;
    out->payload = true;
    out->pack = (p[3] & RT_OP_PACK) != 0;
    out->from = rt_slice_of(from ? p + 4 : NULL, from);
    out->to = rt_slice_of(at, to);
    out->to_name = name;
    out->to_alias = alias;
    return (size_t)(at - p) + to;
}

/* Anything, by the table. */
static int64_t parse_any(const uint8_t *p, size_t n, rt_control *out) {
    rt_cursor c = rt_cursor_of(p, n);
    rt_control m = {0};
    uint64_t op;
    uint32_t rest;
    int rc = take_head(&c, &op, &rest);
    if (rc < 0) return rc;
    if (op & RT_OP_PACK && may_be_pack(op ^ RT_OP_PACK)) {
        m.pack = true;
        op ^= RT_OP_PACK;
    }
    if (!arity_ok(op, rest)) return RT_EBAD;
    m.op = (enum rt_control_op)op;
    m.payload = SHAPE[op].payload;
    for (const char *kind = SHAPE[op].elements; *kind; kind++) {
        rc = take_element(&c, *kind, &m);
        if (rc < 0) return rc;
        if (op == RT_OP_ALTACT_SIG_SEND && *kind == 'F' &&
            rest != ((m.id & RT_ALTACT_TOKEN) ? 4u : 3u))
            return RT_EBAD;
    }
    *out = m;
    return c.p - p;
}

int64_t rt_control_parse(const uint8_t *p, size_t n, rt_control *out) {
    size_t used = parse_short(p, n, out);
    return RT_LIKELY(used > 0) ? (int64_t)used : parse_any(p, n, out);
}
