/* Boxes that are full and pause their peers: what comes meanwhile is spilled into
 * the box up to spill_bytes_max a peer, then the peer is not read, and after
 * pause_ms_max the box is closed. */
#include "base/alloc.h"
#include "base/clock.h"
#include "node/internal.h"

static uint64_t spilled(const rt_driver *d, const rt_peer *p)
{
    uint64_t bytes = 0;
    for (const rt_hold *h = d->holds; h; h = h->next)
        if (h->peer == p) bytes += h->bytes;
    return bytes;
}

static void adjust(rt_driver *d, rt_peer *p)
{
    rt_session *s = rt_driver_carried(d, p);
    if (s) rt_conn_pause(&s->conn, spilled(d, p) > d->node->route.limits.spill_bytes_max);
}

bool rt_holds_any(const rt_driver *d, const rt_peer *p)
{
    const rt_hold *h = d->holds;
    while (h && h->peer != p) h = h->next;
    return h != NULL;
}

static void hold_free(rt_hold *h)
{
    rt_timer_cancel(h->driver->engine.timers, &h->timer);
    rt_free(h);
}

/* It was full for too long. */
static void overdue(rt_timer *t)
{
    rt_hold *h = RT_CONTAINER_OF(t, rt_hold, timer);
    rt_driver *d = h->driver;
    rt_pid pid = h->pid;
    const rt_process *box = rt_registry_lookup(d->node->route.registry, pid);
    /* It may have been read meanwhile, and what would have told so not have come through. */
    if (box && rt_node_box_over(box)) rt_node_close_full(d->node, h->peer, pid);
    rt_holds_end(d, pid);
}

void rt_holds_add(rt_driver *d, rt_peer *p, rt_pid pid, uint64_t bytes)
{
    rt_node *n = d->node;
    rt_hold *h = d->holds;
    rt_process *box = rt_registry_lookup(n->route.registry, pid);
    if (!box) return;
    while (h && (h->pid != pid || h->peer != p)) h = h->next;
    if (!h) {
        h = rt_calloc(1, sizeof *h);
        if (!h) {
            rt_node_close_full(n, p, pid); /* rather than grow without bound */
            return;
        }
        h->driver = d;
        h->pid = pid;
        h->peer = p;
        h->timer.fire = overdue;
        h->next = d->holds;
        d->holds = h;
        uint64_t end = rt_now() + n->route.limits.pause_ms_max * RT_MS;
        if (rt_timer_set(d->engine.timers, &h->timer, end) < 0) {
            rt_node_close_full(n, p, pid);
            rt_holds_end(d, pid);
            return;
        }
    }
    h->bytes += bytes;
    atomic_fetch_or_explicit(&box->flags, RT_PROCESS_HELD, memory_order_relaxed); /* fenced below */
    atomic_thread_fence(memory_order_seq_cst); /* pairs with rt_node_consumed and `ended` */
    if (!rt_node_box_over(box) || !rt_registry_lookup(n->route.registry, pid)) rt_holds_end(d, pid);
    else adjust(d, p);
}

void rt_holds_end(rt_driver *d, rt_pid pid)
{
    rt_hold **at = &d->holds;
    while (*at) {
        rt_hold *h = *at;
        if (h->pid != pid) {
            at = &h->next;
            continue;
        }
        *at = h->next;
        rt_peer *p = h->peer;
        hold_free(h);
        adjust(d, p);
        at = &d->holds; /* it may have ended the connection, and with it other holds */
    }
}

void rt_holds_forget(rt_driver *d, rt_peer *p)
{
    rt_hold **at = &d->holds;
    while (*at) {
        rt_hold *h = *at;
        if (p && h->peer != p) {
            at = &h->next;
            continue;
        }
        *at = h->next;
        hold_free(h);
    }
}
