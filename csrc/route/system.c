#include "route/system.h"

#include "base/buf.h"
#include "base/cursor.h"
#include "route/outbound.h"
#include "route/signal.h"
#include "term/ident.h"
#include "term/scan.h"
#include "term/write.h"

static bool atom_is(rt_cursor *c, const char *text)
{
    rt_slice name;
    bool latin1;
    return rt_read_atom(c, &name, &latin1) == RT_OK &&
           rt_slice_eq(name, rt_slice_of(text, strlen(text)));
}

static bool take_term(rt_cursor *c, rt_slice *out)
{
    int64_t n = rt_term_skip(c->p, rt_cursor_left(c));
    return n > 0 && rt_cursor_take(c, (size_t)n, out);
}

static bool take_pid(rt_cursor *c, rt_slice *out)
{
    const uint8_t *start = c->p;
    rt_pid_view pid;
    if (rt_read_pid(c, &pid) < 0) return false;
    *out = rt_slice_of(start, (size_t)(c->p - start));
    return true;
}

/* Tag is Ref, or [alias | Ref] when the caller may be reached by its alias. */
static rt_slice alias_of(rt_slice tag)
{
    rt_cursor c = rt_cursor_of(tag.p, tag.n);
    rt_slice none = {NULL, 0};
    rt_ref_view ref;
    uint8_t kind;
    uint32_t count;
    if (!rt_cursor_u8(&c, &kind) || kind != RT_TAG_LIST || !rt_cursor_u32(&c, &count) ||
        count != 1 || !atom_is(&c, "alias"))
        return none;
    rt_slice alias = rt_slice_of(c.p, rt_cursor_left(&c));
    return rt_read_ref(&c, &ref) == RT_OK ? alias : none;
}

/* {'$gen_call', {Pid, Tag}, {is_auth, Node}} */
int rt_system_message(rt_route *r, rt_peer *peer, rt_slice payload)
{
    rt_cursor c = rt_cursor_of(payload.p, payload.n);
    uint32_t arity;
    rt_slice pid, tag;
    if (rt_read_tuple(&c, &arity) < 0 || arity != 3 || !atom_is(&c, "$gen_call") ||
        rt_read_tuple(&c, &arity) < 0 || arity != 2 || !take_pid(&c, &pid) ||
        !take_term(&c, &tag) || rt_read_tuple(&c, &arity) < 0 || arity != 2 ||
        !atom_is(&c, "is_auth"))
        return RT_ENOENT;
    rt_buf b = RT_BUF_INIT;
    rt_slice alias = alias_of(tag);
    uint8_t me[RT_PID_BYTES_MAX];
    int rc = rt_outbound_begin(&b);
    if (rc == RT_OK)
        rc = alias.n ? rt_control_alias_send(&b, rt_slice_of(me, rt_route_pid(r, 0, me)), alias)
                     : rt_control_send(&b, pid);
    if (rc == RT_OK) rc = rt_put_tuple(&b, 2);
    if (rc == RT_OK) rc = rt_buf_put(&b, tag.p, tag.n);
    if (rc == RT_OK) rc = rt_put_atom_str(&b, "yes");
    return rt_route_put_signal(r, peer, &b, rc);
}
