#include "route/multicast.h"

#include "term/ident.h"
#include "term/scan.h"
#include "term/tags.h"
#include "term/write.h"

static rt_slice word(void) { return rt_slice_of("multicast", 9); }

bool rt_multicast_read(rt_slice payload, rt_multicast *out)
{
    rt_cursor c = rt_cursor_of(payload.p, payload.n);
    uint32_t arity, count;
    rt_slice name;
    bool latin1;
    uint8_t tag;
    if (rt_read_tuple(&c, &arity) < 0 || arity != 3) return false;
    if (rt_read_atom(&c, &name, &latin1) < 0 || !rt_slice_eq(name, word())) return false;
    if (!rt_cursor_u8(&c, &tag) || tag != RT_TAG_LIST || !rt_cursor_u32(&c, &count)) return false;
    out->pids = c;
    out->count = count;
    for (uint32_t i = 0; i < count; i++) {
        rt_pid_view pid;
        if (rt_read_pid(&c, &pid) < 0) return false;
    }
    if (!rt_cursor_u8(&c, &tag) || tag != RT_TAG_NIL) return false;
    out->term = rt_slice_of(c.p, rt_cursor_left(&c));
    return true;
}

rt_pid rt_multicast_next(rt_multicast *m, const rt_route *r)
{
    const uint8_t *start = m->pids.p;
    rt_pid_view view;
    rt_pid pid;
    m->count--;
    if (rt_read_pid(&m->pids, &view) < 0) return 0; /* read has seen it whole */
    if (rt_route_local(r, rt_slice_of(start, (size_t)(m->pids.p - start)), &pid) < 0) return 0;
    return pid;
}

bool rt_multicast_fits(rt_slice term, uint32_t depth_max)
{
    rt_scan scan = {.depth_max = depth_max - 1};
    return rt_term_scan(term.p, term.n, &scan) == (int64_t)term.n;
}

int rt_multicast_put(rt_buf *b, rt_slice pids, uint32_t count)
{
    int rc = rt_put_tuple(b, 3);
    if (rc == RT_OK) rc = rt_put_atom(b, word());
    if (rc == RT_OK) rc = rt_put_list(b, count);
    if (rc == RT_OK) rc = rt_buf_put(b, pids.p, pids.n);
    return rc == RT_OK ? rt_put_nil(b) : rc;
}
