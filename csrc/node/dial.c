/* From a peer's name to a connection with it: the host's addresses, the port mapper there, TCP. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "dist/epmd.h"
#include "node/internal.h"

static const rt_conn_ops lookup_ops;

bool rt_session_more(const rt_session *l)
{
    return l->attempt && l->attempt->next + 1 < l->attempt->resolve.count;
}

static int open_conn(rt_session *l, const rt_address *to, const rt_conn_ops *ops)
{
    rt_node *n = l->node;
    int rc = rt_conn_init(&l->conn, n->control->engine.poller, n->control->engine.read_buffer,
                          n->route.limits.frame_bytes_max, ops);
    if (rc < 0) return rc;
    l->remote = *to;
    rc = rt_conn_open(&l->conn, to);
    if (rc < 0) {
        rt_outq_fini(&l->conn.own);
        return rc;
    }
    l->conn_open = true;
    return RT_OK;
}

/* Connects to the address whose turn it is: to the node when its port is known,
 * else to the port mapper there. Skips addresses that fail at once. */
int rt_session_try(rt_session *l)
{
    rt_node *n = l->node;
    rt_attempt *a = l->attempt;
    int rc = RT_ENOENT;
    for (; a->next < a->resolve.count; a->next++) {
        rt_address to = a->resolve.at[a->next];
        rt_address_set_port(&to, l->port ? l->port : n->epmd_port);
        l->state = RT_SESSION_CONNECT;
        rc = open_conn(l, &to, l->port ? &rt_session_ops : &lookup_ops);
        if (rc == RT_OK) {
            rt_session_deadline(l, n->route.limits.connect_ms);
            return RT_OK;
        }
    }
    return rc;
}

static void resolved(rt_resolve *r, int rc)
{
    rt_session *l = RT_CONTAINER_OF(r, rt_attempt, resolve)->session;
    if (rc == RT_OK) {
        rc = rt_session_try(l);
        if (rc < 0) rt_session_end(l, rc, errno, NULL);
        return;
    }
    char text[RT_EVENT_TEXT_MAX];
    snprintf(text, sizeof text, "unknown host: %s", r->error);
    rt_session_end(l, rc, 0, text);
}

static void lookup_connected(rt_conn *c)
{
    rt_session *l = rt_session_of(c);
    rt_buf out = RT_BUF_INIT;
    rt_slice name = l->peer->name;
    const uint8_t *at = memchr(name.p, '@', name.n);
    l->state = RT_SESSION_LOOKUP;
    int rc = rt_epmd_put_port_please2(&out, rt_slice_of(name.p, (size_t)(at - name.p)));
    if (rc == RT_OK) rc = rt_session_write(l, &out);
    rt_buf_fini(&out);
    if (rc < 0) rt_conn_close(c, rc, errno);
}

static int64_t lookup_bytes(rt_conn *c, const uint8_t *p, size_t n)
{
    rt_session *l = rt_session_of(c);
    rt_epmd_port answer;
    int64_t used = rt_epmd_read_port2(p, n, &answer);
    if (used == RT_AGAIN) return 0;
    if (used < 0) return used;
    if (answer.port == 0) return RT_ENOENT; /* a node that does not listen */
    l->port = answer.port;
    return RT_EALIVE; /* closes: found */
}

static void lookup_closed(rt_conn *c, int rc, int sys)
{
    rt_session *l = rt_session_of(c);
    char text[RT_EVENT_TEXT_MAX], where[RT_ADDRESS_TEXT_MAX];
    l->conn_open = false;
    rt_address_text(&l->remote, where);
    if (rc == RT_EALIVE && l->port) {
        rc = rt_session_try(l);
        if (rc < 0) rt_session_end(l, rc, errno, NULL);
        return;
    }
    if (l->state == RT_SESSION_CONNECT && rc == RT_ESYS && rt_session_more(l)) {
        l->attempt->next++;
        if (rt_session_try(l) == RT_OK) return;
    }
    if (rc == RT_ENOENT)
        snprintf(text, sizeof text, "the port mapper at %s knows no node of that name", where);
    else
        snprintf(text, sizeof text, "no port mapper at %s: %s", where,
                 rc == RT_ESYS ? strerror(sys) : rt_err_text(rc));
    /* Nothing was said to the peer itself: for who connects it is not to be found. */
    rt_session_end(l, rc == RT_ESYS || rc == RT_ETIME ? rc : RT_ENOENT, sys, text);
}

static const rt_conn_ops lookup_ops = {
    .connected = lookup_connected, .bytes = lookup_bytes, .closed = lookup_closed,
};

int rt_session_connect(rt_node *n, rt_peer *p, const char *host, uint16_t port)
{
    RT_ASSERT(!p->session);
    rt_session *l = rt_session_new(n);
    if (!l) return RT_ENOMEM;
    l->attempt = rt_calloc(1, sizeof *l->attempt);
    if (!l->attempt) {
        rt_session_free(l);
        return RT_ENOMEM;
    }
    l->attempt->session = l;
    l->attempt->resolve.done = resolved;
    l->initiator = true;
    l->peer = p;
    l->port = port;
    l->state = RT_SESSION_RESOLVE;
    p->session = l;
    char from_name[RT_NODE_NAME_BYTES_MAX + 1];
    if (!host[0]) {
        rt_slice h = rt_node_host_part(p->name);
        memcpy(from_name, h.p, h.n);
        from_name[h.n] = 0;
        host = from_name;
    }
    int rc = rt_resolve_start(n->resolver, &l->attempt->resolve, host, AF_UNSPEC);
    if (rc < 0) rt_session_end(l, rc, errno, NULL);
    else rt_session_deadline(l, n->route.limits.connect_ms);
    return RT_OK;
}
