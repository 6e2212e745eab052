/* The client's side: requests out, answers in. */
#include "dist/epmd.h"

#include "base/cursor.h"
#include "base/limits.h"
#include "dist/epmd_wire.h"
#include "term/utf8.h"

bool rt_epmd_name_ok(rt_slice name) {
    int64_t chars;
    if (name.n == 0 || name.n > RT_EPMD_NAME_BYTES_MAX) return false;
    for (size_t i = 0; i < name.n; i++) {
        if (name.p[i] <= ' ' || name.p[i] == 0x7f || name.p[i] == '@') return false;
    }
    chars = rt_utf8_chars(name.p, name.n);
    return chars > 0 && chars <= RT_ATOM_CHARS_MAX;
}

int rt_epmd_put_alive2(rt_buf *b, rt_slice name, uint16_t port, bool hidden) {
    size_t body = 1 + 2 + 1 + 1 + 2 + 2 + 2 + name.n + 2;
    if (!rt_epmd_name_ok(name)) return RT_EINVAL;
    if (rt_buf_reserve(b, 2 + body) < 0) return RT_ENOMEM;
    rt_buf_u16(b, (uint16_t)body);
    rt_buf_u8(b, RT_EPMD_ALIVE2_REQ);
    rt_buf_u16(b, port);
    rt_buf_u8(b, hidden ? RT_EPMD_NODE_HIDDEN : RT_EPMD_NODE_NORMAL);
    rt_buf_u8(b, 0); /* TCP */
    rt_buf_u16(b, RT_EPMD_VERSION);
    rt_buf_u16(b, RT_EPMD_VERSION);
    rt_buf_u16(b, (uint16_t)name.n);
    rt_buf_raw(b, name.p, name.n);
    rt_buf_u16(b, 0); /* no extra */
    return RT_OK;
}

int rt_epmd_put_port_please2(rt_buf *b, rt_slice name) {
    if (!rt_epmd_name_ok(name)) return RT_EINVAL;
    if (rt_buf_reserve(b, 3 + name.n) < 0) return RT_ENOMEM;
    rt_buf_u16(b, (uint16_t)(1 + name.n));
    rt_buf_u8(b, RT_EPMD_PORT2_REQ);
    rt_buf_raw(b, name.p, name.n);
    return RT_OK;
}

int rt_epmd_put_names(rt_buf *b) {
    if (rt_buf_reserve(b, 3) < 0) return RT_ENOMEM;
    rt_buf_u16(b, 1);
    rt_buf_u8(b, RT_EPMD_NAMES_REQ);
    return RT_OK;
}

int64_t rt_epmd_read_alive2(const uint8_t *p, size_t n, uint32_t *creation) {
    rt_cursor c = rt_cursor_of(p, n);
    uint8_t tag, result;
    uint16_t half;
    uint32_t v;
    if (!rt_cursor_u8(&c, &tag)) return RT_AGAIN;
    if (tag != RT_EPMD_ALIVE2_X_RESP && tag != RT_EPMD_ALIVE2_RESP) return RT_EBAD;
    if (!rt_cursor_u8(&c, &result)) return RT_AGAIN;
    if (result != 0) return RT_EEXIST;
    if (tag == RT_EPMD_ALIVE2_X_RESP) {
        if (!rt_cursor_u32(&c, &v)) return RT_AGAIN;
    } else {
        if (!rt_cursor_u16(&c, &half)) return RT_AGAIN;
        v = half;
    }
    if (v == 0) return RT_EBAD;
    *creation = v;
    return c.p - p;
}

int64_t rt_epmd_read_port2(const uint8_t *p, size_t n, rt_epmd_port *out) {
    rt_cursor c = rt_cursor_of(p, n);
    rt_epmd_port v;
    uint8_t tag, result;
    uint16_t length;
    rt_slice dropped;
    if (!rt_cursor_u8(&c, &tag)) return RT_AGAIN;
    if (tag != RT_EPMD_PORT2_RESP) return RT_EBAD;
    if (!rt_cursor_u8(&c, &result)) return RT_AGAIN;
    if (result != 0) return RT_ENOENT;
    if (!rt_cursor_u16(&c, &v.port) || !rt_cursor_u8(&c, &v.node_type) ||
        !rt_cursor_u8(&c, &v.protocol) || !rt_cursor_u16(&c, &v.highest) ||
        !rt_cursor_u16(&c, &v.lowest))
        return RT_AGAIN;
    if (!rt_cursor_u16(&c, &length)) return RT_AGAIN;
    if (length > RT_EPMD_NAME_BYTES_MAX) return RT_EBAD; /* nothing to wait for */
    if (!rt_cursor_take(&c, length, &dropped)) return RT_AGAIN;
    if (!rt_cursor_u16(&c, &length) || !rt_cursor_take(&c, length, &dropped)) return RT_AGAIN;
    *out = v;
    return c.p - p;
}
