/* Registration with a running port mapper, or being the port mapper. */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/random.h"
#include "node/internal.h"

#define RETRY_MS_FIRST 50u
#define RETRY_MS_MAX 5000u
#define ANSWER_MS_MAX 5000u

/* A connection to the port mapper that we serve. */
typedef struct rt_mapper_client {
    rt_conn conn;
    rt_mapper *mapper;
    uint64_t id;
    bool local;
    bool kept;                   /* it holds a registration, for as long as it likes */
    bool answered;               /* closed when the answer is written; says nothing more */
    rt_timer timer;
    struct rt_mapper_client *prev, *next;
} rt_mapper_client;

static void attempt(rt_mapper *m);

static rt_slice alive_name(const rt_node *n)
{
    const uint8_t *at = memchr(n->route.name.p, '@', n->route.name.n);
    return rt_slice_of(n->route.name.p, (size_t)(at - n->route.name.p));
}

static void say(rt_mapper *m, enum rt_event_kind kind, int code, const char *text)
{
    rt_events_put(&m->node->events, kind, rt_slice_of(NULL, 0), code, 0, 0, text);
}

static void retry_later(rt_mapper *m)
{
    uint32_t jitter = 0;
    uint32_t wait = m->attempt < 7 ? RETRY_MS_FIRST << m->attempt : RETRY_MS_MAX;
    rt_random_u32(&jitter); /* 0 does as well */
    wait = wait / 2 + jitter % wait;
    m->attempt++;
    if (rt_timer_set(m->node->control->engine.timers, &m->timer, rt_now() + wait * RT_MS) < 0)
        say(m, RT_EVENT_UNREGISTERED, RT_ENOMEM, NULL);
}

/* Only the first creation counts: pids were made with it. */
static void registered(rt_mapper *m, uint32_t creation, bool serving)
{
    if (!m->announced && creation) m->node->route.creation = creation;
    m->announced = m->registered = true;
    m->attempt = 0;
    say(m, RT_EVENT_REGISTERED, serving, NULL);
}

/* --- serving ------------------------------------------------------------ */

static void client_closed(rt_conn *c, int rc, int sys)
{
    rt_mapper_client *k = RT_CONTAINER_OF(c, rt_mapper_client, conn);
    rt_mapper *m = k->mapper;
    (void)rc;
    (void)sys;
    rt_timer_cancel(m->node->control->engine.timers, &k->timer);
    if (!k->kept) m->asking--;
    if (m->server) rt_epmd_server_closed(m->server, k->id);
    if (k->prev) k->prev->next = k->next;
    else m->clients = k->next;
    if (k->next) k->next->prev = k->prev;
    rt_free(k);
}

static int64_t client_bytes(rt_conn *c, const uint8_t *p, size_t n)
{
    rt_mapper_client *k = RT_CONTAINER_OF(c, rt_mapper_client, conn);
    rt_buf out = RT_BUF_INIT;
    size_t used = 0;
    if (k->answered) return (int64_t)n;
    int rc = rt_epmd_server_feed(k->mapper->server, k->id, k->local, p, n, &used, &out);
    if (rc >= 0 && out.n) {
        int sent = rt_conn_send(c, out.p, out.n);
        if (sent < 0) rc = sent;
    }
    rt_buf_fini(&out);
    if (rc < 0) return rc;
    if (rc == 1) {
        k->kept = true;
        k->mapper->asking--;
        rt_timer_cancel(k->mapper->node->control->engine.timers, &k->timer);
    }
    if (rc == 2) {
        k->answered = true;
        rt_conn_finish(c);
    }
    return (int64_t)used;
}

static const rt_conn_ops client_ops = {.bytes = client_bytes, .closed = client_closed};

static void client_timer(rt_timer *t)
{
    rt_conn_close(&RT_CONTAINER_OF(t, rt_mapper_client, timer)->conn, RT_ETIME, 0);
}

static void accept_client(rt_mapper *m, int fd, const rt_address *peer)
{
    rt_node *n = m->node;
    rt_address here;
    if (m->asking >= n->route.limits.handshakes_max) {
        rt_socket_close(fd);
        say(m, RT_EVENT_REFUSED, RT_ELIMIT, "too many clients of the port mapper (handshakes_max)");
        return;
    }
    rt_mapper_client *k = rt_calloc(1, sizeof *k);
    if (!k) goto fail;
    k->mapper = m;
    k->id = ++m->next_client;
    k->timer.fire = client_timer;
    k->local = rt_address_is_loopback(peer) ||
               (rt_socket_local(fd, &here) == RT_OK && rt_address_same_host(&here, peer));
    if (rt_conn_init(&k->conn, n->control->engine.poller, n->control->engine.read_buffer,
                     n->route.limits.frame_bytes_max, &client_ops) < 0)
        goto fail;
    if (rt_conn_adopt(&k->conn, fd) < 0) {
        rt_outq_fini(&k->conn.own);
        goto fail;
    }
    k->next = m->clients;
    if (k->next) k->next->prev = k;
    m->clients = k;
    m->asking++;
    uint64_t end = rt_now() + n->route.limits.connect_ms * RT_MS;
    if (rt_timer_set(n->control->engine.timers, &k->timer, end) < 0)
        rt_conn_close(&k->conn, RT_ENOMEM, 0);
    return;
fail:
    rt_free(k);
    rt_socket_close(fd);
}

static void accepted4(rt_listener *l, int fd, const rt_address *peer)
{
    accept_client(RT_CONTAINER_OF(l, rt_mapper, listener[0]), fd, peer);
}
static void accepted6(rt_listener *l, int fd, const rt_address *peer)
{
    accept_client(RT_CONTAINER_OF(l, rt_mapper, listener[1]), fd, peer);
}
static void accept_failed4(rt_listener *l, int sys)
{
    rt_node_accept_failed(RT_CONTAINER_OF(l, rt_mapper, listener[0])->node, sys);
}
static void accept_failed6(rt_listener *l, int sys)
{
    rt_node_accept_failed(RT_CONTAINER_OF(l, rt_mapper, listener[1])->node, sys);
}

/* Becomes the port mapper. RT_ESYS with EADDRINUSE: somebody else was faster. */
static int serve(rt_mapper *m)
{
    rt_node *n = m->node;
    rt_address at;
    uint32_t creation;
    int rc = n->epmd_any ? rt_address_any(AF_INET, n->epmd_port, &at)
                         : rt_address_loopback(AF_INET, n->epmd_port, &at);
    if (rc < 0) return rc;
    m->listener[0].accepted = accepted4;
    m->listener[1].accepted = accepted6;
    m->listener[0].failed = accept_failed4;
    m->listener[1].failed = accept_failed6;
    rc = rt_listener_open(&m->listener[0], n->control->engine.poller, &at);
    if (rc < 0) return rc;
    m->server = rt_epmd_server_new(n->epmd_port, n->route.limits.names_max);
    rc = m->server ? RT_OK : RT_ENOMEM;
    if (rc == RT_OK && n->listening)
        rc = rt_epmd_server_add(m->server, alive_name(n), rt_node_port(n), n->hidden, &creation);
    if (rc < 0) {
        rt_listener_close(&m->listener[0]);
        rt_epmd_server_free(m->server);
        m->server = NULL;
        return rc;
    }
    /* IPv6 beside it where the host has it. */
    if (rt_address_loopback(AF_INET6, n->epmd_port, &at) == RT_OK && n->epmd_any)
        rt_address_any(AF_INET6, n->epmd_port, &at);
    rt_listener_open(&m->listener[1], n->control->engine.poller, &at);
    registered(m, n->listening ? creation : 0, true);
    return RT_OK;
}

/* --- registering -------------------------------------------------------- */

static void asked(rt_conn *c)
{
    rt_mapper *m = RT_CONTAINER_OF(c, rt_mapper, conn);
    rt_node *n = m->node;
    rt_buf out = RT_BUF_INIT;
    int rc = rt_epmd_put_alive2(&out, alive_name(n), rt_node_port(n), n->hidden);
    if (rc == RT_OK) rc = rt_conn_send(c, out.p, out.n);
    rt_buf_fini(&out);
    if (rc < 0) rt_conn_close(c, rc, errno);
}

static int64_t answered(rt_conn *c, const uint8_t *p, size_t n)
{
    rt_mapper *m = RT_CONTAINER_OF(c, rt_mapper, conn);
    uint32_t creation;
    if (m->registered) return (int64_t)n; /* nothing more is expected; ignored */
    int64_t used = rt_epmd_read_alive2(p, n, &creation);
    if (used == RT_AGAIN) return 0;
    if (used < 0) return used;
    rt_timer_cancel(m->node->control->engine.timers, &m->timer);
    registered(m, creation, false);
    return used;
}

static void mapper_lost(rt_conn *c, int rc, int sys)
{
    rt_mapper *m = RT_CONTAINER_OF(c, rt_mapper, conn);
    bool was = m->registered;
    m->conn_open = m->registered = false;
    rt_timer_cancel(m->node->control->engine.timers, &m->timer);
    if (m->node->stopped) return;
    if (rc == RT_EEXIST) {
        say(m, RT_EVENT_UNREGISTERED, rc, NULL);
        if (m->announced) retry_later(m); /* a name once ours is asked for again */
        return;
    }
    if (was) {
        say(m, RT_EVENT_UNREGISTERED, RT_ECLOSED, "the port mapper went away; registering again");
        m->attempt = 0;
    }
    /* Nobody answers: serve. Somebody does but badly, or is faster: try again. */
    if (rc == RT_ESYS && sys == ECONNREFUSED && serve(m) == RT_OK) return;
    retry_later(m);
}

static const rt_conn_ops alive_ops = {
    .connected = asked, .bytes = answered, .closed = mapper_lost,
};

static void attempt(rt_mapper *m)
{
    rt_node *n = m->node;
    rt_address to;
    if (!n->listening) {
        /* Nothing to register; serve only when nobody does. */
        registered(m, 0, false);
        return;
    }
    int rc = rt_address_loopback(AF_INET, n->epmd_port, &to);
    if (rc == RT_OK)
        rc = rt_conn_init(&m->conn, n->control->engine.poller, n->control->engine.read_buffer,
                          n->route.limits.frame_bytes_max, &alive_ops);
    if (rc < 0) {
        retry_later(m);
        return;
    }
    rc = rt_conn_open(&m->conn, &to);
    if (rc < 0) {
        rt_outq_fini(&m->conn.own);
        if (errno != ECONNREFUSED || serve(m) < 0) retry_later(m);
        return;
    }
    m->conn_open = true;
    if (rt_timer_set(n->control->engine.timers, &m->timer, rt_now() + ANSWER_MS_MAX * RT_MS) < 0)
        rt_conn_close(&m->conn, RT_ENOMEM, 0);
}

static void mapper_timer(rt_timer *t)
{
    rt_mapper *m = RT_CONTAINER_OF(t, rt_mapper, timer);
    if (!m->conn_open) attempt(m);
    else if (!m->registered) rt_conn_close(&m->conn, RT_ETIME, 0);
}

int rt_mapper_start(rt_node *n)
{
    rt_mapper *m = &n->mapper;
    m->node = n;
    m->timer.fire = mapper_timer;
    m->listener[0].source.fd = m->listener[1].source.fd = -1;
    attempt(m);
    return RT_OK;
}

void rt_mapper_stop(rt_node *n)
{
    rt_mapper *m = &n->mapper;
    if (!m->node) return;
    rt_timer_cancel(n->control->engine.timers, &m->timer);
    if (m->conn_open) rt_conn_close(&m->conn, RT_OK, 0);
    rt_listener_close(&m->listener[0]);
    rt_listener_close(&m->listener[1]);
    while (m->clients) rt_conn_close(&m->clients->conn, RT_OK, 0);
    rt_epmd_server_free(m->server);
    m->server = NULL;
}

void rt_mapper_after_fork(rt_node *n)
{
    rt_mapper *m = &n->mapper;
    if (!m->node) return;
    for (int i = 0; i < 2; i++)
        if (m->listener[i].source.fd >= 0) close(m->listener[i].source.fd);
    if (m->conn_open && m->conn.source.fd >= 0) close(m->conn.source.fd);
    for (rt_mapper_client *k = m->clients; k; k = k->next)
        if (k->conn.source.fd >= 0) close(k->conn.source.fd);
}
