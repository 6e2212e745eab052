/* Registrations stand in two tables of chains, by name and by connection, and
 * in a list in the order they came. Creations are handed out from one counter
 * that starts anywhere: no two registrations in a row share one, whatever
 * their names are. */
#include "dist/epmd.h"

#include <stdio.h>

#include "base/alloc.h"
#include "base/cursor.h"
#include "base/hash.h"
#include "base/random.h"
#include "dist/epmd_wire.h"

enum {
    BUCKETS_MIN = 64,
    EXTRA_BYTES_MAX = 1024,
    REQUEST_BYTES_MAX = 13 + RT_EPMD_NAME_BYTES_MAX + EXTRA_BYTES_MAX,
    LINE_BYTES_MAX = 96 + RT_EPMD_NAME_BYTES_MAX, /* of NAMES and DUMP */
    WAIT = 0, KEEP = 1, CLOSE = 2                 /* what feed returns */
};

#define CREATION_MIN 4u        /* 1 to 3 are for nodes from before OTP 23 */
#define CREATION_REFUSED 99u   /* what stands beside a result of 1 */

typedef struct entry {
    struct entry *next_name, *next_conn;
    struct entry *newer, *older;
    uint64_t conn;
    bool own;              /* no connection holds it */
    uint32_t creation;
    rt_epmd_port port;
    uint16_t name_len, extra_len;
    uint8_t bytes[];       /* name, extra */
} entry;

struct rt_epmd_server {
    entry **by_name, **by_conn; /* `buckets` chains each */
    entry *oldest, *newest;
    size_t buckets;             /* a power of two */
    uint64_t seed;
    uint32_t count, names_max, creation;
    uint16_t own_port;
};

typedef struct registration {
    rt_slice name, extra;
    rt_epmd_port port;
    uint64_t conn;
    bool own;
} registration;

rt_epmd_server *rt_epmd_server_new(uint16_t own_port, uint32_t names_max) {
    rt_epmd_server *s = rt_calloc(1, sizeof *s);
    if (!s) return NULL;
    s->buckets = BUCKETS_MIN;
    s->by_name = rt_calloc(s->buckets, sizeof *s->by_name);
    s->by_conn = rt_calloc(s->buckets, sizeof *s->by_conn);
    if (!s->by_name || !s->by_conn) goto fail;
    if (rt_random_u64(&s->seed) < 0 || rt_random_u32(&s->creation) < 0) goto fail;
    s->own_port = own_port;
    s->names_max = names_max;
    return s;
fail:
    rt_epmd_server_free(s);
    return NULL;
}

void rt_epmd_server_free(rt_epmd_server *s) {
    if (!s) return;
    while (s->oldest) {
        entry *e = s->oldest;
        s->oldest = e->newer;
        rt_free(e);
    }
    rt_free(s->by_name);
    rt_free(s->by_conn);
    rt_free(s);
}

uint32_t rt_epmd_server_count(const rt_epmd_server *s) { return s->count; }

static entry **name_chain(const rt_epmd_server *s, rt_slice name) {
    return &s->by_name[rt_hash_bytes(name.p, name.n, s->seed) & (s->buckets - 1)];
}

static entry **conn_chain(const rt_epmd_server *s, uint64_t conn) {
    return &s->by_conn[rt_hash_u64(conn ^ s->seed) & (s->buckets - 1)];
}

static rt_slice name_of(const entry *e) { return rt_slice_of(e->bytes, e->name_len); }

static entry *find_name(const rt_epmd_server *s, rt_slice name) {
    entry *e = *name_chain(s, name);
    while (e && !rt_slice_eq(name_of(e), name)) e = e->next_name;
    return e;
}

static entry *find_conn(const rt_epmd_server *s, uint64_t conn) {
    entry *e = *conn_chain(s, conn);
    while (e && e->conn != conn) e = e->next_conn;
    return e;
}

static void hang(rt_epmd_server *s, entry *e) {
    entry **chain = name_chain(s, name_of(e));
    e->next_name = *chain;
    *chain = e;
    if (e->own) return;
    chain = conn_chain(s, e->conn);
    e->next_conn = *chain;
    *chain = e;
}

/* Doubles the tables. Without memory for that they stay as they are: the
 * chains get longer, and that is all. */
static void grow(rt_epmd_server *s) {
    size_t buckets = s->buckets * 2;
    entry **by_name = rt_calloc(buckets, sizeof *by_name);
    entry **by_conn = rt_calloc(buckets, sizeof *by_conn);
    if (!by_name || !by_conn) {
        rt_free(by_name);
        rt_free(by_conn);
        return;
    }
    rt_free(s->by_name);
    rt_free(s->by_conn);
    s->by_name = by_name;
    s->by_conn = by_conn;
    s->buckets = buckets;
    for (entry *e = s->oldest; e; e = e->newer) hang(s, e);
}

/* Old nodes know creations of two bits only. */
static uint32_t creation_for(uint32_t creation, const rt_epmd_port *port) {
    return port->highest >= RT_EPMD_VERSION ? creation : creation % 3 + 1;
}

static int add(rt_epmd_server *s, const registration *r, uint32_t *creation) {
    entry *e;
    if (find_name(s, r->name)) return RT_EEXIST;
    if (s->count >= s->names_max) return RT_ELIMIT;
    e = rt_malloc(sizeof *e + r->name.n + r->extra.n);
    if (!e) return RT_ENOMEM;
    if (s->count >= s->buckets) grow(s);
    memset(e, 0, sizeof *e);
    e->conn = r->conn;
    e->own = r->own;
    e->port = r->port;
    e->name_len = (uint16_t)r->name.n;
    e->extra_len = (uint16_t)r->extra.n;
    memcpy(e->bytes, r->name.p, r->name.n);
    if (r->extra.n) memcpy(e->bytes + r->name.n, r->extra.p, r->extra.n);
    s->creation = s->creation < CREATION_MIN || s->creation == UINT32_MAX ? CREATION_MIN
                                                                         : s->creation + 1;
    e->creation = creation_for(s->creation, &e->port);
    e->older = s->newest;
    *(s->newest ? &s->newest->newer : &s->oldest) = e;
    s->newest = e;
    hang(s, e);
    s->count++;
    *creation = e->creation;
    return RT_OK;
}

static void unhang(rt_epmd_server *s, entry *e) {
    entry **link = name_chain(s, name_of(e));
    while (*link != e) link = &(*link)->next_name;
    *link = e->next_name;
    link = conn_chain(s, e->conn);
    while (*link != e) link = &(*link)->next_conn;
    *link = e->next_conn;
}

void rt_epmd_server_closed(rt_epmd_server *s, uint64_t conn) {
    entry *e = find_conn(s, conn);
    if (!e) return;
    unhang(s, e);
    *(e->older ? &e->older->newer : &s->oldest) = e->newer;
    *(e->newer ? &e->newer->older : &s->newest) = e->older;
    s->count--;
    rt_free(e);
}

int rt_epmd_server_add(rt_epmd_server *s, rt_slice name, uint16_t port, bool hidden,
                       uint32_t *creation) {
    registration r = {.name = name, .own = true};
    if (!rt_epmd_name_ok(name)) return RT_EINVAL;
    r.port.port = port;
    r.port.node_type = hidden ? RT_EPMD_NODE_HIDDEN : RT_EPMD_NODE_NORMAL;
    r.port.highest = RT_EPMD_VERSION;
    r.port.lowest = RT_EPMD_VERSION;
    return add(s, &r, creation);
}

static int parse_alive2(rt_cursor c, registration *r) {
    uint16_t name, extra;
    if (!rt_cursor_u16(&c, &r->port.port) || !rt_cursor_u8(&c, &r->port.node_type) ||
        !rt_cursor_u8(&c, &r->port.protocol) || !rt_cursor_u16(&c, &r->port.highest) ||
        !rt_cursor_u16(&c, &r->port.lowest))
        return RT_EBAD;
    if (!rt_cursor_u16(&c, &name) || !rt_cursor_take(&c, name, &r->name)) return RT_EBAD;
    if (!rt_cursor_u16(&c, &extra) || !rt_cursor_take(&c, extra, &r->extra)) return RT_EBAD;
    return rt_epmd_name_ok(r->name) && extra <= EXTRA_BYTES_MAX ? RT_OK : RT_EBAD;
}

static int on_alive2(rt_epmd_server *s, uint64_t conn, rt_cursor c, rt_buf *out) {
    registration r = {.conn = conn};
    uint32_t creation = CREATION_REFUSED;
    int rc = parse_alive2(c, &r);
    if (rc < 0) return rc;
    if (rt_buf_reserve(out, 6) < 0) return RT_ENOMEM;
    rc = add(s, &r, &creation);
    if (rc == RT_ENOMEM) return rc;
    if (r.port.highest >= RT_EPMD_VERSION) {
        rt_buf_u8(out, RT_EPMD_ALIVE2_X_RESP);
        rt_buf_u8(out, rc < 0);
        rt_buf_u32(out, creation);
    } else {
        rt_buf_u8(out, RT_EPMD_ALIVE2_RESP);
        rt_buf_u8(out, rc < 0);
        rt_buf_u16(out, (uint16_t)creation);
    }
    return rc < 0 ? CLOSE : KEEP;
}

static int on_port2(const rt_epmd_server *s, rt_cursor c, rt_buf *out) {
    rt_slice name = rt_slice_of(c.p, rt_cursor_left(&c));
    const entry *e;
    if (name.n > 0 && name.p[name.n - 1] == '\0') name.n--; /* some clients end it so */
    if (!rt_epmd_name_ok(name)) return RT_EBAD;
    e = find_name(s, name);
    if (rt_buf_reserve(out, 14 + (e ? (size_t)e->name_len + e->extra_len : 0)) < 0)
        return RT_ENOMEM;
    rt_buf_u8(out, RT_EPMD_PORT2_RESP);
    rt_buf_u8(out, e ? 0 : 1);
    if (!e) return CLOSE;
    rt_buf_u16(out, e->port.port);
    rt_buf_u8(out, e->port.node_type);
    rt_buf_u8(out, e->port.protocol);
    rt_buf_u16(out, e->port.highest);
    rt_buf_u16(out, e->port.lowest);
    rt_buf_u16(out, e->name_len);
    rt_buf_raw(out, e->bytes, e->name_len);
    rt_buf_u16(out, e->extra_len);
    rt_buf_raw(out, e->bytes + e->name_len, e->extra_len);
    return CLOSE;
}

/* One line a registration. */
static int put_line(rt_buf *out, const entry *e, bool dump) {
    char *at;
    int n;
    if (rt_buf_reserve(out, LINE_BYTES_MAX) < 0) return RT_ENOMEM;
    at = (char *)out->p + out->n;
    if (dump) {
        n = snprintf(at, LINE_BYTES_MAX, "active name     <%.*s> at port %u, fd = %lld\n",
                     (int)e->name_len, (const char *)e->bytes, e->port.port,
                     e->own ? -1LL : (long long)e->conn);
        n++; /* the real one sends the terminating zero as well */
    } else {
        n = snprintf(at, LINE_BYTES_MAX, "name %.*s at port %u\n", (int)e->name_len,
                     (const char *)e->bytes, e->port.port);
    }
    RT_ASSERT(n > 0 && n < LINE_BYTES_MAX);
    out->n += (size_t)n;
    return RT_OK;
}

static int on_names(const rt_epmd_server *s, bool dump, rt_buf *out) {
    size_t start = out->n;
    if (rt_buf_reserve(out, 4) < 0) return RT_ENOMEM;
    rt_buf_u32(out, s->own_port);
    for (const entry *e = s->newest; e; e = e->older) {
        if (put_line(out, e, dump) < 0) {
            out->n = start;
            return RT_ENOMEM;
        }
    }
    return CLOSE;
}

/* Nobody ends this server from outside. */
static int on_kill(rt_buf *out) { return rt_buf_put(out, "NO", 2) < 0 ? RT_ENOMEM : CLOSE; }

static int on_request(rt_epmd_server *s, uint64_t conn, bool local, rt_slice body, rt_buf *out) {
    rt_cursor c = rt_cursor_of(body.p + 1, body.n - 1);
    switch (body.p[0]) {
    case RT_EPMD_PORT2_REQ: return on_port2(s, c, out);
    case RT_EPMD_NAMES_REQ: return on_names(s, false, out);
    case RT_EPMD_ALIVE2_REQ: return local ? on_alive2(s, conn, c, out) : RT_ENOTALLOWED;
    case RT_EPMD_DUMP_REQ: return local ? on_names(s, true, out) : RT_ENOTALLOWED;
    case RT_EPMD_KILL_REQ: return local ? on_kill(out) : RT_ENOTALLOWED;
    case RT_EPMD_STOP_REQ: return RT_ENOTALLOWED;
    default: return RT_EBAD;
    }
}

int rt_epmd_server_feed(rt_epmd_server *s, uint64_t conn, bool local, const uint8_t *p, size_t n,
                        size_t *used, rt_buf *out) {
    size_t body;
    *used = 0;
    if (find_conn(s, conn)) { /* a node that is registered has nothing to say */
        *used = n;
        return WAIT;
    }
    if (n < 2) return WAIT;
    body = rt_load_u16(p);
    if (body == 0) return RT_EBAD;
    if (body > REQUEST_BYTES_MAX) return RT_ELIMIT;
    if (n - 2 < body) return WAIT;
    *used = 2 + body;
    return on_request(s, conn, local, rt_slice_of(p + 2, body), out);
}
