#include "node/node.h"

#include <errno.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/random.h"
#include "node/internal.h"
#include "route/outbound.h"
#include "route/signal.h"
#include "term/write.h"

#define ACCEPT_RETRY_MS 1000u
#define FLUSH_BYTES_MAX (1u << 20)
#define GATHER_SHIFT_MIN 12u /* 4 KiB */
#define GATHER_SHIFT_MAX 18u /* 256 KiB */

static rt_node *node_of_route(rt_route *r) { return RT_CONTAINER_OF(r, rt_node, route); }

rt_slice rt_node_host_part(rt_slice name)
{
    const uint8_t *at = memchr(name.p, '@', name.n);
    return rt_slice_of(at + 1, (size_t)(name.p + name.n - at - 1));
}

/* --- what waits to be written ------------------------------------------- */

static void kick(rt_route *r, rt_peer *p) { rt_driver_kick(node_of_route(r), p); }

/* Tells about a queue that a sender, not the engine, brought below the mark. */
static void check_soft(rt_node *n, rt_peer *p)
{
    pthread_mutex_lock(&p->out.lock);
    bool told = p->above_soft && p->out.bytes <= n->route.limits.queue_bytes_soft / 2;
    if (told) p->above_soft = false;
    pthread_mutex_unlock(&p->out.lock);
    if (told) rt_events_put(&n->events, RT_EVENT_DRAINED, p->name, 0, 0, 0, NULL);
}

void rt_node_flush(rt_node *n)
{
    for (rt_driver *d = n->drivers; d < n->drivers + n->drivers_n; d++) {
        rt_peer *p;
        uint32_t left = rt_driver_dirty(d); /* what is marked meanwhile waits for the next flush */
        while (left-- && (p = rt_driver_take_dirty(d))) {
            int rc = rt_outq_write(&p->out, FLUSH_BYTES_MAX);
            if (rc == RT_OK) check_soft(n, p);
            else if (rc != RT_ENOTCONN) rt_driver_kick(n, p); /* the engine arms and goes on */
        }
    }
}

/* The sender's turn gathers what was queued: 1, or RT_OK when the engine will write it. */
static int gathered(rt_node *n, rt_peer *p, const rt_queued *queued)
{
    rt_driver *d = rt_driver_mark(n, p);
    if (RT_UNLIKELY(!d)) return RT_OK; /* without memory for the list the next tick writes the queue */
    /* Once for each so many that a turn gathers, whether or not the socket takes them. */
    uint32_t shift = n->gather_shift;
    if (queued->before >> shift != (queued->before + queued->taken) >> shift) {
        int rc = rt_outq_write(&p->out, FLUSH_BYTES_MAX);
        if (rc == RT_OK) check_soft(n, p);
        else if (rc != RT_ENOTCONN) rt_driver_kick(n, p);
    }
    rt_engine_gathered(&d->engine);
    return 1;
}

/* Writes what was queued, or sees that somebody does. */
static int queued_for(rt_node *n, rt_peer *p, unsigned how, const rt_queued *queued)
{
    if (how & RT_SEND_DIRECT && queued->before == 0) {
        int rc = rt_outq_write(&p->out, RT_DIRECT_WRITE_BYTES_MAX);
        if (rc != RT_OK && rc != RT_ENOTCONN) rt_driver_kick(n, p);
        return RT_OK;
    }
    if (!(how & RT_SEND_WAKE)) return gathered(n, p, queued);
    rt_driver_kick(n, p);
    return RT_OK;
}

int rt_node_send(rt_node *n, rt_peer *p, rt_slice frames, rt_lead lead, unsigned how, rt_buf *own)
{
    rt_queued queued;
    int rc = rt_outbound_put(p, frames, lead, false, &n->route.limits, own, &queued);
    if (rc == RT_OK) return queued_for(n, p, how, &queued);
    if (queued.taken > 0) rt_driver_kick(n, p);
    return rc;
}

int rt_node_send_body(rt_node *n, rt_peer *p, rt_slice frame, const rt_body *body, unsigned how)
{
    rt_queued queued;
    int rc = rt_outbound_put_body(p, frame, body, &n->route.limits, &queued);
    return rc == RT_OK ? queued_for(n, p, how, &queued) : rc;
}

int rt_node_join(rt_node *n, rt_peer *p, rt_lead lead, rt_slice payload)
{
    rt_queued queued;
    if (!rt_outbound_join(p, lead, payload, &n->route.limits, &queued)) return RT_AGAIN;
    return gathered(n, p, &queued);
}

/* --- connecting ---------------------------------------------------------- */

int rt_node_hold(rt_node *n, rt_peer *p)
{
    if (rt_slice_eq(p->name, n->route.name)) return RT_EINVAL;
    pthread_mutex_lock(&p->out.lock);
    bool idle = rt_peer_state_of(p) == RT_PEER_IDLE;
    if (idle)
        atomic_store_explicit(&p->state, RT_PEER_CONNECTING,
                              memory_order_relaxed); /* under the lock */
    pthread_mutex_unlock(&p->out.lock);
    return idle ? RT_OK : RT_EALIVE;
}

int rt_node_dial(rt_node *n, rt_peer *p, const char *host, uint16_t port)
{
    if (host && strlen(host) > RT_HOST_BYTES_MAX) return RT_EINVAL;
    return rt_driver_ask(n->control, p, RT_ASK_DIAL, 0, host, port);
}

int rt_node_abandon(rt_node *n, rt_peer *p, const char *text)
{
    return rt_driver_ask(n->control, p, RT_ASK_ABANDON, 0, text, 0);
}

int rt_node_disconnect(rt_node *n, rt_peer *p) { return rt_driver_ask(n->control, p, RT_ASK_DISCONNECT, 0, NULL, 0); }

int rt_node_set_cookie(rt_node *n, rt_peer *p, rt_slice cookie)
{
    (void)n;
    return cookie.n > RT_COOKIE_BYTES_MAX ? RT_EINVAL : rt_peer_set_cookie(p, cookie);
}

/* --- watchers ------------------------------------------------------------ */

int rt_node_watch(rt_node *n, rt_pid pid, bool on)
{
    int rc = RT_OK;
    uint32_t i = 0;
    pthread_mutex_lock(&n->lock);
    while (i < n->watchers_n && n->watchers[i] != pid) i++;
    if (on && i == n->watchers_n) {
        rt_pid *w = rt_realloc(n->watchers, (i + 1) * sizeof *w);
        if (w) {
            n->watchers = w;
            n->watchers[n->watchers_n++] = pid;
        } else {
            rc = RT_ENOMEM;
        }
    } else if (!on && i < n->watchers_n) {
        n->watchers[i] = n->watchers[--n->watchers_n];
    }
    pthread_mutex_unlock(&n->lock);
    return rc;
}

void rt_node_tell_watchers(rt_node *n, const char *what, rt_peer *p)
{
    rt_buf b = RT_BUF_INIT;
    int rc = rt_put_tuple(&b, 2);
    if (rc == RT_OK) rc = rt_put_atom_str(&b, what);
    if (rc == RT_OK) rc = rt_buf_put(&b, p->atom.p, p->atom.n);
    for (uint32_t i = 0; rc == RT_OK;) {
        rt_pid full = 0;
        pthread_mutex_lock(&n->lock);
        while (i < n->watchers_n && !full) {
            int k = rt_route_post_signal(&n->route, n->watchers[i], rt_slice_of(b.p, b.n));
            if (k == RT_EFULL) full = n->watchers[i];
            if (k == RT_ENOENT || full) n->watchers[i] = n->watchers[--n->watchers_n];
            else i++;
        }
        pthread_mutex_unlock(&n->lock);
        if (!full) break;
        rt_node_close_full(n, p, full);
    }
    rt_buf_fini(&b);
}

/* --- overflow ------------------------------------------------------------ */

/* For a signal that found its box full, in the middle of something. */
static void close_later(rt_node *n, rt_pid pid)
{
    rt_process *box = rt_registry_lookup(n->route.registry, pid);
    if (!box) return;
    uint32_t flags = atomic_fetch_or_explicit(&box->flags, RT_PROCESS_DOOMED,
                                              memory_order_relaxed); /* asked for once */
    if (flags & RT_PROCESS_DOOMED) return;
    if (rt_driver_ask(n->control, NULL, RT_ASK_CLOSE, pid, NULL, 0) < 0)
        /* Without memory the next signal asks again. */
        atomic_fetch_and_explicit(&box->flags, ~RT_PROCESS_DOOMED, memory_order_relaxed);
}

static void overflow(rt_route *r, rt_peer *p, rt_pid pid, bool close_it, uint64_t bytes)
{
    rt_node *n = node_of_route(r);
    /* This thread carries the peer's connection. */
    if (!close_it) rt_holds_add(((rt_session *)p->carried)->driver, p, pid, bytes);
    else if (p) rt_node_close_full(n, p, pid);
    else close_later(n, pid);
}

void rt_node_close_full(rt_node *n, rt_peer *p, rt_pid pid)
{
    rt_route *r = &n->route;
    rt_buf b = RT_BUF_INIT;
    if (rt_put_atom_str(&b, "overflow") == RT_OK &&
        rt_signal_terminate(r, pid, rt_slice_of(b.p, b.n)) == RT_OK)
        rt_events_put(&n->events, RT_EVENT_OVERFLOW, p ? p->name : rt_slice_of(NULL, 0),
                      RT_EFULL, 0, 0, NULL);
    rt_buf_fini(&b);
}

/* How far beyond its limits (`slack` messages of room asked for) a box is. */
static bool over_limit(const rt_process *p, uint32_t slack)
{
    rt_mailbox *mb = (rt_mailbox *)&p->mailbox;
    /* relaxed: the owner's own settings */
    uint32_t limit = atomic_load_explicit(&mb->limit, memory_order_relaxed);
    uint64_t bytes = atomic_load_explicit(&mb->limit_bytes, memory_order_relaxed);
    return (limit && rt_mailbox_count(mb) + slack > limit) ||
           (bytes && rt_mailbox_counted_bytes(mb) + slack > bytes);
}

bool rt_node_box_over(const rt_process *p) { return over_limit(p, 0); }

bool rt_node_box_full(const rt_process *p)
{
    uint32_t policy = atomic_load_explicit(&((rt_mailbox *)&p->mailbox)->overflow,
                                           memory_order_relaxed); /* the owner's setting */
    return policy == RT_OVERFLOW_PAUSE && over_limit(p, 1);
}

/* Who was held back for a box is not held back for a dead one. */
static void ended(rt_route *r, const rt_process *p, rt_pid pid)
{
    /* Either this sees the flag, or rt_holds_add sees the box closed. */
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&p->flags, memory_order_relaxed) & RT_PROCESS_HELD) /* fenced */
        rt_driver_ask_all(node_of_route(r), RT_ASK_RESUME, pid);
}

void rt_node_consumed(rt_node *n, rt_process *p)
{
    /* Either this sees the flag, or rt_holds_add, which sets it and fences before
     * it looks at the box, sees what was popped before this fence. */
    atomic_thread_fence(memory_order_seq_cst);
    uint32_t flags = atomic_load_explicit(&p->flags, memory_order_relaxed); /* fenced */
    if (!(flags & RT_PROCESS_HELD)) return;
    if (rt_node_box_over(p)) return;
    flags = atomic_fetch_and_explicit(&p->flags, ~RT_PROCESS_HELD, memory_order_relaxed);
    if (flags & RT_PROCESS_HELD) /* one of several asks */
        rt_driver_ask_all(n, RT_ASK_RESUME, p->self);
}

/* --- life ---------------------------------------------------------------- */

static void accepted(rt_listener *l, int fd, const rt_address *peer)
{
    rt_session_accept(RT_CONTAINER_OF(l, rt_node, listener), fd, peer);
}

static void resume_accept(rt_timer *t)
{
    rt_node *n = RT_CONTAINER_OF(t, rt_node, accept_timer);
    rt_listener_resume(&n->listener);
    for (int i = 0; i < 2 && n->mapper.server; i++) rt_listener_resume(&n->mapper.listener[i]);
}

void rt_node_accept_failed(rt_node *n, int sys)
{
    rt_events_put(&n->events, RT_EVENT_ACCEPT, rt_slice_of(NULL, 0), RT_ESYS, sys, 0, NULL);
    if (rt_timer_set(n->control->engine.timers, &n->accept_timer, rt_now() + ACCEPT_RETRY_MS * RT_MS) < 0)
        resume_accept(&n->accept_timer);
}

static void accept_failed(rt_listener *l, int sys)
{
    rt_node_accept_failed(RT_CONTAINER_OF(l, rt_node, listener), sys);
}

/* A creation no other incarnation is likely to have; 0 to 3 are small ones that
 * old port mappers gave out. */
static int new_creation(uint32_t *out)
{
    int rc = rt_random_u32(out);
    if (*out <= 3) *out += 4;
    return rc;
}

static int make_drivers(rt_node *n, const rt_node_config *config)
{
    int rc = RT_OK;
    n->drivers = n->control = rt_calloc(config->threads, sizeof *n->drivers);
    if (!n->drivers) return RT_ENOMEM;
    while (rc == RT_OK && n->drivers_n < config->threads) {
        rc = rt_driver_init(&n->drivers[n->drivers_n], n, (enum rt_engine_mode)config->engine,
                            (enum rt_poller_kind)config->poller);
        if (rc == RT_OK) n->drivers[n->drivers_n++].engine.vigil.ns = config->busy_wait_ns;
    }
    return rc == RT_OK ? rt_resolver_new(&n->resolver, n->control->engine.poller) : rc;
}

int rt_node_new(const rt_node_config *config, rt_node **out)
{
    if (!rt_node_name_ok(config->name) || config->cookie.n > RT_COOKIE_BYTES_MAX ||
        config->threads < 1 || config->threads > RT_NODE_THREADS_MAX ||
        config->busy_wait_ns > RT_BUSY_WAIT_NS_MAX ||
        (config->threads > 1 && config->engine != RT_ENGINE_THREAD))
        return RT_EINVAL;
    rt_alloc_accustom();
    rt_node *n = rt_calloc(1, sizeof *n);
    if (!n) return RT_ENOMEM;
    rt_route *r = &n->route;
    int rc = pthread_mutex_init(&n->lock, NULL) == 0 ? rt_events_init(&n->events) : RT_ENOMEM;
    if (rc < 0) {
        rt_free(n);
        return rc;
    }
    n->listener.source.fd = -1;
    n->hidden = config->hidden;
    n->listening = config->listening;
    n->listen = config->listen;
    n->epmd = config->epmd;
    n->epmd_any = config->epmd_any;
    n->epmd_port = config->epmd_port;
    n->net_ticktime_ms = config->net_ticktime_ms;
    n->cookie_n = config->cookie.n;
    if (n->cookie_n) memcpy(n->cookie, config->cookie.p, n->cookie_n);
    r->limits = config->limits;
    /* Written well before `drain` would wait, or a send be refused, for want of writing. */
    n->gather_shift = GATHER_SHIFT_MAX;
    while (n->gather_shift > GATHER_SHIFT_MIN && 4u << n->gather_shift > r->limits.queue_bytes_soft)
        n->gather_shift--;
    r->relay = config->relay;
    r->kick = kick;
    r->overflow = overflow;
    r->ended = ended;
    rc = new_creation(&r->creation);
    if (rc == RT_OK) rc = rt_buf_put(&n->name, config->name.p, config->name.n);
    if (rc == RT_OK) rc = rt_put_atom(&n->atom, config->name);
    if (rc < 0) goto fail;
    r->name = rt_slice_of(n->name.p, n->name.n);
    r->atom = rt_slice_of(n->atom.p, n->atom.n);
    r->registry = rt_registry_new(r->limits.processes_max, r->limits.names_max);
    r->relations = rt_relations_new();
    r->peers = rt_peers_new(&r->limits);
    rc = r->registry && r->relations && r->peers ? RT_OK : RT_ENOMEM;
    if (rc == RT_OK) rc = make_drivers(n, config);
    if (rc < 0) goto fail;
    n->accept_timer.fire = resume_accept;
    *out = n;
    return RT_OK;
fail:
    rt_node_free(n);
    return rc;
}

static int open_up(rt_node *n)
{
    int rc = RT_OK;
    rt_engine *e = &n->control->engine;
    rt_engine_enter(e);
    if (n->listening) {
        n->listener.accepted = accepted;
        n->listener.failed = accept_failed;
        rc = rt_listener_open(&n->listener, e->poller, &n->listen);
    }
    int sys = errno;
    if (rc == RT_OK) {
        if (n->epmd == RT_EPMD_AUTO) rc = rt_mapper_start(n);
        else rt_events_put(&n->events, RT_EVENT_REGISTERED, rt_slice_of(NULL, 0), 0, 0, 0, NULL);
        rt_timers_arm(e->timers);
    }
    rt_engine_leave(e);
    errno = sys;
    return rc;
}

int rt_node_start(rt_node *n)
{
    if (n->started) return RT_EINVAL;
    int rc = open_up(n);
    for (uint32_t i = n->drivers_n; rc == RT_OK && i > 0; i--) /* the control last */
        rc = rt_engine_start(&n->drivers[i - 1].engine);
    int sys = errno;
    if (rc < 0) rt_node_stop(n); /* the threads that run, and the listener */
    else n->started = true;
    errno = sys;
    return rc;
}

void rt_node_stop(rt_node *n)
{
    /* Several threads may want it at once: one does it, and joins the engine's. */
    pthread_mutex_lock(&n->lock);
    bool first = !n->stopping;
    n->stopping = true;
    pthread_mutex_unlock(&n->lock);
    if (!first) return;
    /* The control first, so that nothing is handed over to who has stopped. */
    for (uint32_t i = 0; i < n->drivers_n; i++) rt_engine_stop(&n->drivers[i].engine);
    for (uint32_t i = 0; i < n->drivers_n; i++) rt_engine_enter(&n->drivers[i].engine);
    n->stopped = true;
    for (uint32_t i = n->drivers_n; i > 0; i--) rt_driver_wind_up(&n->drivers[i - 1]);
    rt_listener_close(&n->listener);
    rt_sessions_close_all(n);
    for (uint32_t i = 0; i < n->drivers_n; i++) rt_holds_forget(&n->drivers[i], NULL);
    rt_mapper_stop(n);
    rt_timer_cancel(n->control->engine.timers, &n->accept_timer);
    for (uint32_t i = 0; i < n->drivers_n; i++) {
        rt_timers_arm(n->drivers[i].engine.timers);
        rt_engine_leave(&n->drivers[i].engine);
    }
}

void rt_node_free(rt_node *n)
{
    if (!n) return;
    if (n->drivers_n) rt_node_stop(n);
    if (n->resolver) rt_resolver_free(n->resolver);
    for (uint32_t i = 0; i < n->drivers_n; i++) rt_driver_fini(&n->drivers[i]);
    rt_free(n->drivers);
    if (n->route.relations) rt_relations_free(n->route.relations);
    if (n->route.peers) rt_peers_free(n->route.peers);
    if (n->route.registry) rt_registry_free(n->route.registry);
    rt_events_fini(&n->events);
    rt_buf_fini(&n->name);
    rt_buf_fini(&n->atom);
    rt_free(n->watchers);
    pthread_mutex_destroy(&n->lock);
    rt_free(n);
}

/* Only descriptors are closed: a lock may be held by a thread that the child
 * does not have. The memory stays. */
void rt_node_after_fork(rt_node *n)
{
    for (uint32_t i = 0; i < n->drivers_n; i++) rt_engine_after_fork(&n->drivers[i].engine);
    if (n->resolver) rt_resolver_after_fork(n->resolver);
    if (n->listener.source.fd >= 0) close(n->listener.source.fd);
    rt_mapper_after_fork(n);
    for (rt_session *l = n->sessions; l; l = l->next)
        if (l->conn_open && l->conn.own.fd >= 0) close(l->conn.own.fd);
}

/* --- small questions ------------------------------------------------------ */

rt_route *rt_node_route(rt_node *n) { return &n->route; }
rt_events *rt_node_events(rt_node *n) { return &n->events; }
uint16_t rt_node_port(const rt_node *n)
{
    return n->listener.source.fd >= 0 ? rt_address_port(&n->listener.bound) : 0;
}
uint32_t rt_node_creation(const rt_node *n) { return n->route.creation; }
int rt_node_fd(const rt_node *n) { return rt_engine_fd(&n->control->engine); }
int rt_node_drive(rt_node *n, bool told) { return rt_engine_drive(&n->control->engine, told); }
void rt_node_beat(rt_node *n) { rt_engine_beat(&n->control->engine); }
bool rt_node_expects(rt_node *n) { return rt_engine_expects(&n->control->engine); }
void rt_node_give_up(rt_node *n) { rt_engine_give_up(&n->control->engine); }
int rt_node_busy_wait(rt_node *n, const rt_notifier *notifier, uint64_t ns)
{
    return rt_engine_busy_wait(&n->control->engine, notifier, ns);
}
int rt_node_wait(rt_node *n, rt_notifier *notifier, uint64_t timeout_ns)
{
    return rt_engine_wait(&n->control->engine, notifier, timeout_ns);
}
void rt_node_promise(rt_node *n, int more) { rt_engine_promise(&n->control->engine, more); }

uint64_t rt_node_turns(const rt_node *n)
{
    return atomic_load_explicit(&((rt_node *)n)->turns, memory_order_relaxed); /* a hint */
}

bool rt_node_trap_exit(rt_process *p)
{
    uint32_t flags = atomic_load_explicit(&p->flags, memory_order_relaxed); /* the owner's */
    return (flags & RT_PROCESS_TRAP_EXIT) != 0;
}

void rt_node_set_trap_exit(rt_process *p, bool on)
{
    /* relaxed: see exit_signal */
    if (on) atomic_fetch_or_explicit(&p->flags, RT_PROCESS_TRAP_EXIT, memory_order_relaxed);
    else atomic_fetch_and_explicit(&p->flags, ~RT_PROCESS_TRAP_EXIT, memory_order_relaxed);
}

static double since(uint64_t then, uint64_t now)
{
    return then && now > then ? (double)(now - then) / (double)RT_SEC : 0.0;
}

uint32_t rt_node_stats(rt_node *n, rt_peer_stats *rows, uint32_t max)
{
    uint32_t count = rt_peers_count(n->route.peers);
    uint64_t now = rt_now();
    if (count > max) count = max;
#define COUNTER(field) atomic_load_explicit(&p->count.field, memory_order_relaxed) /* a counter */
    for (uint32_t i = 0; i < count; i++) {
        rt_peer *p = rt_peers_at(n->route.peers, i + 1);
        rt_peer_stats *s = &rows[i];
        pthread_mutex_lock(&p->out.lock);
        s->queued_bytes = p->out.bytes;
        s->state = rt_peer_state_of(p);
        s->round_trip = rt_socket_round_trip(p->out.fd);
        pthread_mutex_unlock(&p->out.lock);
        s->number = p->number;
        s->messages_in = COUNTER(messages_in);
        s->messages_out = COUNTER(messages_out);
        s->bytes_in = COUNTER(bytes_in);
        s->bytes_out = COUNTER(bytes_out);
        s->dropped_in = COUNTER(dropped_in);
        s->dropped_out = COUNTER(dropped_out);
        s->refused = COUNTER(refused);
        s->connects = COUNTER(connects);
        s->failures = COUNTER(failures);
        s->age = since(COUNTER(up_since), now);
        s->idle = since(COUNTER(heard), now);
    }
#undef COUNTER
    return count;
}
