/* Boxes that are full and pause their peers: what comes meanwhile is spilled into
 * the box up to spill_bytes_max a peer, then the peer is not read, and after
 * pause_ms_max the box is closed. */
#include "base/alloc.h"
#include "base/clock.h"
#include "node/internal.h"

static uint64_t spilled(const rt_node *n, const rt_peer *p)
{
    uint64_t bytes = 0;
    for (const rt_hold *h = n->holds; h; h = h->next)
        if (h->peer == p) bytes += h->bytes;
    return bytes;
}

bool rt_holds_paused(rt_node *n, rt_peer *p)
{
    return n->holds && spilled(n, p) > n->route.limits.spill_bytes_max;
}

static void adjust(rt_node *n, rt_peer *p)
{
    rt_session *s = p->session;
    if (s && s->state == RT_SESSION_UP) rt_conn_pause(&s->conn, rt_holds_paused(n, p));
}

static void hold_free(rt_hold *h)
{
    rt_timer_cancel(h->node->engine.timers, &h->timer);
    rt_free(h);
}

/* It was full for too long. */
static void overdue(rt_timer *t)
{
    rt_hold *h = RT_CONTAINER_OF(t, rt_hold, timer);
    rt_node *n = h->node;
    rt_pid pid = h->pid;
    rt_node_close_full(n, h->peer, pid);
    rt_holds_end(n, pid);
}

void rt_holds_add(rt_node *n, rt_peer *p, rt_pid pid, uint64_t bytes)
{
    rt_hold *h = n->holds;
    rt_process *box = rt_registry_lookup(n->route.registry, pid);
    if (!box) return;
    while (h && (h->pid != pid || h->peer != p)) h = h->next;
    if (!h) {
        h = rt_calloc(1, sizeof *h);
        if (!h) {
            rt_node_close_full(n, p, pid); /* rather than grow without bound */
            return;
        }
        h->node = n;
        h->pid = pid;
        h->peer = p;
        h->timer.fire = overdue;
        h->next = n->holds;
        n->holds = h;
        uint64_t end = rt_now() + n->route.limits.pause_ms_max * RT_MS;
        if (rt_timer_set(n->engine.timers, &h->timer, end) < 0) {
            rt_node_close_full(n, p, pid);
            rt_holds_end(n, pid);
            return;
        }
    }
    h->bytes += bytes;
    atomic_fetch_or_explicit(&box->flags, RT_PROCESS_HELD, memory_order_relaxed); /* fenced below */
    atomic_thread_fence(memory_order_seq_cst); /* pairs with rt_node_consumed and `ended` */
    if (!rt_node_box_over(box) || !rt_registry_lookup(n->route.registry, pid)) rt_holds_end(n, pid);
    else adjust(n, p);
}

void rt_holds_end(rt_node *n, rt_pid pid)
{
    rt_hold **at = &n->holds;
    while (*at) {
        rt_hold *h = *at;
        if (h->pid != pid) {
            at = &h->next;
            continue;
        }
        *at = h->next;
        rt_peer *p = h->peer;
        hold_free(h);
        adjust(n, p);
    }
}

void rt_holds_forget(rt_node *n, rt_peer *p)
{
    rt_hold **at = &n->holds;
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
