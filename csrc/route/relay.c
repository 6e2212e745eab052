#include "route/relay.h"

#include "base/buf.h"
#include "route/outbound.h"
#include "term/ident.h"

int rt_relay_send(rt_route *r, const rt_control *c, rt_slice payload)
{
    rt_cursor at = rt_cursor_of(c->to.p, c->to.n);
    rt_pid_view to;
    if (rt_read_pid(&at, &to) < 0) return RT_EBAD;
    rt_peer *peer = rt_peers_find(r->peers, to.node);
    if (!peer || rt_peer_state_of(peer) != RT_PEER_UP) return RT_ENOTCONN;
    rt_buf b = RT_BUF_INIT;
    int rc = rt_outbound_begin(&b);
    if (rc == RT_OK)
        rc = c->from.n ? rt_control_send_sender(&b, c->from, c->to) : rt_control_send(&b, c->to);
    if (rc == RT_OK) rc = rt_buf_put(&b, payload.p, payload.n);
    if (rc == RT_OK) rc = rt_outbound_end(&b, 0, &r->limits);
    if (rc == RT_OK)
        rc = rt_outbound_put(peer, rt_slice_of(b.p, b.n), RT_LEAD_NONE, false, &r->limits, &b, NULL);
    if (rc == RT_OK) r->kick(r, peer);
    rt_buf_fini(&b);
    return rc;
}
