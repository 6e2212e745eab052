/* One engine's share of a node: what it is asked to do, which queues it writes, its turn.
 *
 * The control, the first driver, listens, connects, shakes hands and ends sessions. Connections that
 * are up are dealt out to all drivers: the control hands one over, its new driver carries it
 * (reads, writes, ticks), closes it, and tells the control, which ends the session. So a peer's
 * connection is one driver's at any time, and no driver waits for another.
 *
 * Whose it is stands in rt_peer.driver. The control alone changes it, under the lock of the driver
 * that had it; so who reads it under the lock of a driver, and finds that driver, may use
 * rt_peer.carried, which only that driver writes. */
#include <string.h>

#include "base/alloc.h"
#include "node/internal.h"
#include "route/signal.h"

static bool is_here(const rt_driver *d, rt_peer *p)
{
    return rt_driver_of(d->node, p) == d;
}

rt_session *rt_driver_carried(rt_driver *d, rt_peer *p)
{
    pthread_mutex_lock(&d->lock);
    rt_session *s = is_here(d, p) ? p->carried : NULL;
    pthread_mutex_unlock(&d->lock);
    return s;
}

/* --- what waits to be written ------------------------------------------- */

static void set_dirty(rt_outq *q, bool dirty)
{
    atomic_store_explicit(&q->dirty, dirty, memory_order_release); /* see rt_outq_is_dirty */
}

/* RT_OK: in the list. The lock is held. */
static int mark_locked(rt_driver *d, rt_peer *p)
{
    if (rt_outq_is_dirty(&p->out)) return RT_OK;
    if (d->dirty_n == d->dirty_cap) {
        uint32_t cap = d->dirty_cap ? d->dirty_cap * 2 : 16;
        rt_peer **list = rt_realloc(d->dirty, cap * sizeof *list);
        if (!list) return RT_ENOMEM;
        d->dirty = list;
        d->dirty_cap = cap;
    }
    d->dirty[d->dirty_n++] = p;
    set_dirty(&p->out, true);
    return RT_OK;
}

/* For who takes the connection over: it writes the queue first of all. The lock is held. */
static void unmark_locked(rt_driver *d, rt_peer *p)
{
    for (uint32_t i = 0; i < d->dirty_n; i++) {
        if (d->dirty[i] != p) continue;
        d->dirty[i] = d->dirty[--d->dirty_n];
        set_dirty(&p->out, false);
        return;
    }
}

rt_driver *rt_driver_mark_first(rt_node *n, rt_peer *p)
{
    for (;;) {
        if (rt_outq_is_dirty(&p->out)) return rt_driver_of(n, p);
        rt_driver *d = rt_driver_of(n, p);
        pthread_mutex_lock(&d->lock);
        bool here = is_here(d, p);
        int rc = here ? mark_locked(d, p) : RT_OK;
        pthread_mutex_unlock(&d->lock);
        if (here) return rc == RT_OK ? d : NULL;
    }
}

rt_peer *rt_driver_take_dirty(rt_driver *d)
{
    pthread_mutex_lock(&d->lock);
    rt_peer *p = d->dirty_n ? d->dirty[--d->dirty_n] : NULL;
    if (p) set_dirty(&p->out, false);
    pthread_mutex_unlock(&d->lock);
    return p;
}

uint32_t rt_driver_dirty(rt_driver *d)
{
    pthread_mutex_lock(&d->lock);
    uint32_t count = d->dirty_n;
    pthread_mutex_unlock(&d->lock);
    return count;
}

void rt_driver_kick(rt_node *n, rt_peer *p)
{
    rt_driver *d = rt_driver_mark(n, p);
    /* Without memory for the list the next tick writes the queue. */
    if (d && !rt_engine_is_driver(&d->engine)) rt_engine_wake(&d->engine);
}

/* --- requests ------------------------------------------------------------ */

void rt_driver_lend(rt_driver *d, rt_request *q)
{
    q->next = NULL;
    pthread_mutex_lock(&d->lock);
    if (d->requests_last) d->requests_last->next = q;
    else d->requests = q;
    d->requests_last = q;
    pthread_mutex_unlock(&d->lock);
    rt_engine_wake(&d->engine);
}

int rt_driver_ask(rt_driver *d, rt_peer *p, int what, rt_pid pid, const char *text, uint16_t port)
{
    size_t n = text ? strlen(text) + 1 : 0;
    rt_request *q = rt_calloc(1, sizeof *q + n);
    if (!q) return RT_ENOMEM;
    q->peer = p;
    q->what = what;
    q->pid = pid;
    q->port = port;
    if (n) q->text = memcpy(q + 1, text, n);
    rt_driver_lend(d, q);
    return RT_OK;
}

void rt_driver_ask_all(rt_node *n, int what, rt_pid pid)
{
    for (uint32_t i = 0; i < n->drivers_n; i++) rt_driver_ask(&n->drivers[i], NULL, what, pid, NULL, 0);
}

/* From now on that driver carries the peer's connection; what asked the control to hand it
 * over asks the driver. */
static void hand_over(rt_driver *d, rt_request *q)
{
    rt_driver *control = d->node->control;
    q->peer->carried = NULL;
    pthread_mutex_lock(&control->lock);
    unmark_locked(control, q->peer);
    atomic_store_explicit(&q->peer->driver, (uint32_t)(d - d->node->drivers),
                          memory_order_release); /* see rt_driver_of */
    pthread_mutex_unlock(&control->lock);
    q->what = RT_ASK_CARRY;
    rt_driver_lend(d, q);
}

void rt_driver_take_back(rt_driver *d, rt_peer *p)
{
    pthread_mutex_lock(&d->lock);
    unmark_locked(d, p);
    atomic_store_explicit(&p->driver, 0, memory_order_release); /* see rt_driver_of */
    pthread_mutex_unlock(&d->lock);
}

static void abandon(rt_node *n, rt_peer *p, const char *text)
{
    uint64_t lost = rt_peer_down(p);
    rt_signal_peer_down(&n->route, p);
    atomic_fetch_add_explicit(&p->count.failures, 1, memory_order_relaxed); /* a counter */
    rt_events_put(&n->events, RT_EVENT_FAILED, p->name, RT_ENOENT, 0, lost, text);
}

static void hang_up(rt_driver *d, rt_peer *p)
{
    rt_session *s = rt_driver_carried(d, p);
    if (s) rt_conn_close(&s->conn, RT_ECLOSED, 0);
}

/* What was sent before goes first, as far as the socket takes it. */
static void part(rt_driver *d, rt_peer *p)
{
    rt_session *s = rt_driver_carried(d, p);
    if (s) rt_conn_flush(&s->conn); /* may end it */
    hang_up(d, p);
}

/* What concerns sessions, by the control. True when the request has gone on to a driver. */
static bool control(rt_node *n, rt_request *q)
{
    rt_session *s = q->peer ? q->peer->session : NULL;
    /* Whoever made it connecting may have been given up on meanwhile. */
    bool held = q->peer && !s && rt_peer_state_of(q->peer) == RT_PEER_CONNECTING;
    rt_driver *d;
    switch (q->what) {
    case RT_ASK_DIAL:
        if (held && rt_session_connect(n, q->peer, q->text ? q->text : "", q->port) < 0)
            abandon(n, q->peer, rt_err_text(RT_ENOMEM));
        break;
    case RT_ASK_ABANDON:
        if (held) abandon(n, q->peer, q->text);
        break;
    case RT_ASK_DISCONNECT:
        if (held) abandon(n, q->peer, "disconnected before there was an address");
        if (s && s->away) {
            q->what = RT_ASK_PART;
            rt_driver_lend(&n->drivers[s->place], q);
            return true;
        }
        if (s && s->state == RT_SESSION_UP) part(n->control, q->peer);
        else if (s) rt_session_close(s, RT_ECLOSED);
        break;
    case RT_ASK_HAND_OVER:
        d = s ? rt_session_hand_over(s) : NULL;
        if (d) hand_over(d, q);
        return d != NULL;
    default:
        RT_ASSERT(0);
    }
    return false;
}

/* Frees the request. */
static void carry_out(rt_driver *d, rt_request *q)
{
    switch (q->what) {
    case RT_ASK_ENDED:
        rt_session_ended(q); /* and with it the request */
        return;
    case RT_ASK_RESUME:
        rt_holds_end(d, q->pid);
        break;
    case RT_ASK_CLOSE:
        rt_node_close_full(d->node, NULL, q->pid);
        break;
    case RT_ASK_CARRY:
        rt_session_carry(q->peer->session, d);
        break;
    case RT_ASK_PART:
        part(d, q->peer);
        break;
    case RT_ASK_HANG_UP:
        hang_up(d, q->peer);
        break;
    default:
        if (control(d->node, q)) return;
    }
    rt_free(q);
}

static rt_request *take_requests(rt_driver *d)
{
    pthread_mutex_lock(&d->lock);
    rt_request *q = d->requests;
    d->requests = d->requests_last = NULL;
    pthread_mutex_unlock(&d->lock);
    return q;
}

static void carry_out_all(rt_driver *d)
{
    for (rt_request *q = take_requests(d), *next; q; q = next) {
        next = q->next;
        carry_out(d, q);
    }
}

void rt_driver_wind_up(rt_driver *d)
{
    for (rt_request *q = take_requests(d), *next; q; q = next) {
        next = q->next;
        if (q->what == RT_ASK_CARRY || q->what == RT_ASK_ENDED) carry_out(d, q);
        else rt_free(q);
    }
}

/* --- the turn ------------------------------------------------------------ */

static void turn(rt_engine *e)
{
    rt_driver *d = RT_CONTAINER_OF(e, rt_driver, engine);
    rt_node *n = d->node;
    carry_out_all(d);
    rt_inbound_flush(&d->inbound);
    atomic_fetch_add_explicit(&n->turns, 1, memory_order_relaxed); /* a hint for senders */
    /* What a peer does not take now is armed for by its connection. */
    rt_peer *p;
    uint32_t dirty = rt_driver_dirty(d);
    while (dirty-- && (p = rt_driver_take_dirty(d))) {
        rt_session *s = rt_driver_carried(d, p);
        if (s) rt_conn_flush(&s->conn);
    }
    /* A connection that ended just now may have marked others: the driver's kick
     * woke nobody. */
    if (rt_driver_dirty(d)) rt_engine_wake(e);
}

static bool waiting(rt_engine *e)
{
    return rt_driver_dirty(RT_CONTAINER_OF(e, rt_driver, engine)) > 0;
}

int rt_driver_init(rt_driver *d, rt_node *n, enum rt_engine_mode mode, enum rt_poller_kind poller)
{
    d->node = n;
    if (pthread_mutex_init(&d->lock, NULL) != 0) return RT_ENOMEM;
    rt_inbound_init(&d->inbound, &n->route);
    int rc = rt_engine_init(&d->engine, mode, poller, turn);
    if (rc < 0) pthread_mutex_destroy(&d->lock);
    d->engine.waiting = waiting;
    return rc;
}

void rt_driver_fini(rt_driver *d)
{
    rt_engine_fini(&d->engine);
    for (rt_request *q = d->requests, *next; q; q = next) {
        next = q->next;
        rt_free(q);
    }
    rt_inbound_fini(&d->inbound);
    rt_free(d->dirty);
    pthread_mutex_destroy(&d->lock);
}
