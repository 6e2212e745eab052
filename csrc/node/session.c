/* One connection with a peer, from the host's name to the last tick. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/random.h"
#include "dist/control.h"
#include "node/internal.h"
#include "route/signal.h"
#include "term/tags.h"

#define SMALL_PACKET_BYTES_MAX RT_PACK_BYTES_MAX
#define MIXED_NS 100000000u       /* small and large ones within this: both at once */
#define WIDEN_NS 1000000000u      /* large ones alone for so long */
#define TICKS_PER_TIME 4   /* a tick every quarter of net_ticktime */

static void session_timer(rt_timer *t);

rt_session *rt_session_new(rt_node *n)
{
    rt_session *l = rt_calloc(1, sizeof *l);
    if (!l) return NULL;
    l->node = n;
    l->driver = n->control;
    l->timer.fire = session_timer;
    l->next = n->sessions;
    if (l->next) l->next->prev = l;
    n->sessions = l;
    n->handshakes++;
    return l;
}

static void drop_attempt(rt_session *l)
{
    if (!l->attempt) return;
    rt_resolve_cancel(l->node->resolver, &l->attempt->resolve);
    rt_free(l->attempt);
    l->attempt = NULL;
}

void rt_session_free(rt_session *l)
{
    rt_node *n = l->node;
    if (l->prev) l->prev->next = l->next;
    else n->sessions = l->next;
    if (l->next) l->next->prev = l->prev;
    if (l->state == RT_SESSION_UP) n->drivers[l->place].carries--;
    else n->handshakes--;
    if (l->predecessor) l->predecessor->successor = NULL;
    if (l->successor) l->successor->predecessor = NULL;
    rt_timer_cancel(l->driver->engine.timers, &l->timer);
    drop_attempt(l);
    rt_free(l->hs);
    rt_free(l);
}

/* Who the other side is, or says it is; empty when it has not said so. */
static rt_slice name_of(const rt_session *l)
{
    if (l->peer) return l->peer->name;
    return l->hs ? rt_slice_of(l->hs->peer_name, l->hs->peer_name_len) : rt_slice_of(NULL, 0);
}

static void succeed(rt_session *l);

/* What its driver does last for a connection that was up. */
static void put_down(rt_session *l)
{
    rt_driver *d = l->driver;
    rt_inbound_flush(&d->inbound);
    rt_holds_forget(d, l->peer);
    l->peer->carried = NULL;
}

/* The session is over, whatever it was: tells whom it concerns and frees it. Its
 * stream is closed already. */
void rt_session_end(rt_session *l, int rc, int sys, const char *text)
{
    rt_node *n = l->node;
    rt_peer *p = l->peer;
    char reason[RT_EVENT_TEXT_MAX];
    if (!text && rc == RT_ESYS) {
        snprintf(reason, sizeof reason, "%s", strerror(sys));
        text = reason;
    }
    if (!text) text = rt_err_text(rc);
    bool mine = p && p->session == l;
    rt_session *successor = l->successor;
    if (mine) p->session = NULL;
    if (mine && l->state == RT_SESSION_UP) {
        put_down(l);
        uint64_t lost = rt_peer_down(p);
        rt_signal_peer_down(&n->route, p);
        /* The event first: who is woken by the message finds it told. */
        rt_events_put(&n->events, RT_EVENT_DOWN, p->name, rc, sys, lost, text);
        rt_node_tell_watchers(n, "nodedown", p);
    } else if (mine) {
        uint64_t lost = rt_peer_down(p);
        atomic_fetch_add_explicit(&p->count.failures, 1, memory_order_relaxed); /* a counter */
        rt_signal_peer_down(&n->route, p);
        rt_events_put(&n->events, RT_EVENT_FAILED, p->name, rc, sys, lost, text);
    }
    /* Also when somebody here waits for the peer: it was the peer who came. */
    if (l->state != RT_SESSION_UP && !l->initiator) {
        if (!p) p = rt_peers_find(n->route.peers, name_of(l));
        if (rc == RT_ECLOSED && p && p->session) rc = RT_ENOK; /* it prefers our connection */
        rt_events_put(&n->events, RT_EVENT_REFUSED, name_of(l), rc, sys, 0, text);
    }
    rt_session_free(l);
    if (successor && !n->stopped) succeed(successor);
}

/* Words for what ended a handshake, or NULL where the code's own will do. The code
 * becomes one that tells who connects what to raise. */
static const char *handshake_failure(const rt_session *l, int *rc, char text[RT_EVENT_TEXT_MAX])
{
    switch (*rc) {
    case RT_EFLAGS:
        snprintf(text, RT_EVENT_TEXT_MAX, "the peer lacks the mandatory flag %s",
                 rt_flag_name(l->hs->missing));
        return text;
    case RT_ECLOSED:
        /* A peer that does not like our digest closes without a word. */
        *rc = rt_handshake_closed(l->hs);
        return *rc == RT_EAUTH ? "the cookie does not match the peer's"
                               : "the peer closed the connection during the handshake";
    case RT_ETIME:
        return "the peer fell silent during the handshake";
    case RT_ELIMIT:
        *rc = RT_EBAD;
        return "malformed input: longer than any handshake";
    case RT_EINVAL:
        *rc = RT_EBAD;
        return l->initiator ? "a node with another name answers there"
                            : "the peer bears our own name";
    default:
        return NULL;
    }
}

/* The driver that carried it gives it back to the control, to be ended. */
static void give_back(rt_session *l, int rc, int sys)
{
    rt_driver *control = l->node->control;
    put_down(l);
    rt_timer_cancel(l->driver->engine.timers, &l->timer);
    l->driver = control;
    l->ended.what = RT_ASK_ENDED;
    l->end_rc = rc;
    l->end_sys = sys;
    rt_driver_lend(control, &l->ended);
}

void rt_session_ended(rt_request *q)
{
    rt_session *l = RT_CONTAINER_OF(q, rt_session, ended);
    rt_driver_take_back(&l->node->drivers[l->place], l->peer);
    rt_session_end(l, l->end_rc, l->end_sys, NULL);
}

static void conn_closed(rt_conn *c, int rc, int sys)
{
    rt_session *l = rt_session_of(c);
    l->conn_open = false;
    if (rc == RT_OK) rc = RT_ECLOSED;
    if (l->driver != l->node->control && !l->node->stopped) {
        give_back(l, rc, sys);
        return;
    }
    /* While several addresses are left, a failed connect is not the end. */
    if (l->state == RT_SESSION_CONNECT && rc == RT_ESYS && rt_session_more(l)) {
        l->attempt->next++;
        rc = rt_session_try(l);
        if (rc == RT_OK) return;
        sys = errno;
    }
    if (l->state == RT_SESSION_AWAIT) return; /* our attempt is over, theirs is to come */
    char text[RT_EVENT_TEXT_MAX], where[RT_ADDRESS_TEXT_MAX];
    const char *say = NULL;
    rt_address_text(&l->remote, where);
    if (l->state == RT_SESSION_CONNECT) {
        snprintf(text, sizeof text, "cannot connect to %s: %s", where,
                 rc == RT_ESYS ? strerror(sys) : rt_err_text(rc));
        say = text;
    } else if (l->state == RT_SESSION_HANDSHAKE && l->hs) {
        say = handshake_failure(l, &rc, text);
    }
    rt_session_end(l, rc, sys, say);
}

void rt_session_close(rt_session *l, int rc)
{
    if (l->conn_open) rt_conn_close(&l->conn, rc, 0);
    else rt_session_end(l, rc, 0, NULL);
}

void rt_sessions_close_all(rt_node *n)
{
    while (n->sessions) {
        rt_session *l = n->sessions;
        if (l->conn_open && l->state == RT_SESSION_UP) rt_conn_flush(&l->conn);
        if (n->sessions == l) rt_session_close(l, RT_ECLOSED);
    }
}

static uint64_t tick_interval(const rt_node *n)
{
    return (uint64_t)n->net_ticktime_ms * RT_MS / TICKS_PER_TIME;
}

/* Ticks of many connections are spread in time. */
static int start_ticks(rt_session *l)
{
    uint64_t interval = tick_interval(l->node);
    uint32_t phase = 0;
    rt_random_u32(&phase); /* 0 does as well: ticks then merely coincide */
    uint64_t first = interval * (phase % 1024) / 1024 / 2 + interval / 2;
    return rt_timer_set(l->driver->engine.timers, &l->timer, rt_now() + first);
}

void rt_session_deadline(rt_session *l, uint32_t ms)
{
    if (rt_timer_set(l->node->control->engine.timers, &l->timer, rt_now() + ms * RT_MS) < 0)
        rt_session_close(l, RT_ENOMEM);
}

/* A quarter of the tick time passed: say something if nothing was said, and
 * give up on a peer that was silent for all of it. */
static void tick(rt_session *l)
{
    rt_conn *c = &l->conn;
    if (c->reads != l->seen_reads || c->paused) {
        l->seen_reads = c->reads;
        l->silent = 0;
        uint64_t now = rt_now();
        atomic_store_explicit(&l->peer->count.heard, now, memory_order_relaxed); /* a counter */
    } else if (++l->silent >= TICKS_PER_TIME) {
        rt_conn_close(c, RT_ETIME, 0);
        return;
    }
    pthread_mutex_lock(&c->out->lock);
    uint64_t written = c->out->written;
    bool waiting = c->out->bytes > 0;
    pthread_mutex_unlock(&c->out->lock);
    rt_timer_set(l->driver->engine.timers, &l->timer, rt_now() + tick_interval(l->node));
    if (written == l->seen_written && !waiting) {
        static const uint8_t empty[4];
        l->seen_written = written + sizeof empty;
        rt_conn_send(c, empty, sizeof empty); /* may close and free the session */
        return;
    }
    l->seen_written = written;
    if (waiting) rt_conn_flush(c); /* it may stand in no list: see rt_driver_kick */
}

static void session_timer(rt_timer *t)
{
    rt_session *l = RT_CONTAINER_OF(t, rt_session, timer);
    switch (l->state) {
    case RT_SESSION_UP:
        tick(l);
        return;
    case RT_SESSION_CONNECT:
        if (l->conn_open) rt_conn_close(&l->conn, RT_ESYS, ETIMEDOUT);
        return;
    default:
        rt_session_close(l, RT_ETIME);
    }
}

/* --- handshake ---------------------------------------------------------- */

/* Another driver carries the peer's old connection, or has closed it just now: this one
 * is read again when that has ended. RT_AGAIN, or an error. */
static int await_end(rt_session *l, rt_session *other)
{
    int rc = rt_driver_ask(&l->node->drivers[other->place], l->peer, RT_ASK_HANG_UP, 0, NULL, 0);
    if (rc < 0) return rc;
    if (other->successor) rt_session_close(other->successor, RT_ENOK);
    other->successor = l;
    l->predecessor = other;
    rt_conn_pause(&l->conn, true);
    return RT_AGAIN;
}

/* The peer has proved who it is: from now on this session stands for it. RT_AGAIN: when its old
 * connection has ended. */
static int claim_peer(rt_session *l)
{
    int rc = l->peer ? RT_OK : rt_peers_get(l->node->route.peers, name_of(l), &l->peer);
    if (rc < 0) return rc;
    rt_session *other = l->peer->session;
    if (other && other != l) {
        if (other->state != RT_SESSION_UP) { /* an attempt of ours; what waits stays queued */
            other->peer = NULL;
            rt_session_close(other, RT_ENOK);
        } else if (other->away) { /* as below, but by and by */
            return await_end(l, other);
        } else { /* the peer said that the old connection is dead */
            rt_session_close(other, RT_ECLOSED);
        }
    }
    l->peer->session = l;
    return RT_OK;
}

static int session_up(rt_session *l)
{
    rt_node *n = l->node;
    int rc = claim_peer(l);
    if (rc < 0) return rc;
    rt_peer *p = l->peer;
    rc = rt_peer_up(p, rt_handshake_common(l->hs), l->hs->peer_creation, &n->route.limits);
    if (rc < 0) return rc;
    rt_signal_peer_up(&n->route, p);
    rc = rt_conn_use_queue(&l->conn, &p->out);
    if (rc < 0) return rc;
    p->carried = l;
    rt_conn_packets(&l->conn);
    l->state = RT_SESSION_UP;
    n->handshakes--;
    n->control->carries++;
    rt_free(l->hs);
    l->hs = NULL;
    drop_attempt(l);
    rc = start_ticks(l);
    if (rc < 0) return rc;
    rt_delack_start(&l->conn, n->control->engine.timers);
    atomic_store_explicit(&p->count.heard, rt_now(), memory_order_relaxed); /* a counter */
    rt_events_put(&n->events, RT_EVENT_UP, p->name, l->initiator ? 0 : 1, 0, 0, NULL);
    rt_node_tell_watchers(n, "nodeup", p);
    n->route.kick(&n->route, p);
    /* Not at once: this may be inside the connection's own callback. Without memory
     * for the request it stays with the control. */
    if (n->drivers_n > 1) rt_driver_ask(n->control, p, RT_ASK_HAND_OVER, 0, NULL, 0);
    return RT_OK;
}

/* The peer's old connection has ended, which this one waited for. */
static void succeed(rt_session *l)
{
    int rc = session_up(l);
    if (rc < 0) rt_conn_close(&l->conn, rc, errno);
    else rt_conn_go_on(&l->conn); /* may close and free it */
}

rt_driver *rt_session_hand_over(rt_session *l)
{
    rt_node *n = l->node;
    if (l->state != RT_SESSION_UP || l->away) return NULL;
    RT_ASSERT(!n->control->inbound.shares); /* each read ends with a push */
    /* What is held back is resumed by the driver that holds it. */
    if (rt_holds_any(n->control, l->peer)) return NULL;
    /* The control carries it still. It has more to do: among equals it is the last. */
    uint32_t place = 0;
    for (uint32_t i = 1; i < n->drivers_n; i++)
        if (n->drivers[i].carries < n->drivers[place].carries) place = i;
    if (place == 0) return NULL;
    rt_conn_leave(&l->conn);
    rt_timer_cancel(n->control->engine.timers, &l->timer);
    n->control->carries--;
    n->drivers[place].carries++;
    l->place = place;
    l->away = true;
    l->driver = &n->drivers[place];
    return l->driver;
}

void rt_session_carry(rt_session *l, rt_driver *d)
{
    l->peer->carried = l;
    int rc = rt_conn_join(&l->conn, d->engine.poller, d->engine.read_buffer);
    if (rc == RT_OK) rc = start_ticks(l);
    if (rc == RT_OK) rt_delack_start(&l->conn, d->engine.timers);
    if (rc < 0) rt_conn_close(&l->conn, rc, errno);
    else rt_conn_flush(&l->conn); /* may close it */
}

int rt_session_write(rt_session *l, rt_buf *out)
{
    return out->n ? rt_conn_send(&l->conn, out->p, out->n) : RT_OK;
}

static bool ours_is_higher(const rt_node *n, rt_slice name)
{
    size_t k = name.n < n->route.name.n ? name.n : n->route.name.n;
    int order = memcmp(n->route.name.p, name.p, k);
    return order ? order > 0 : n->route.name.n > name.n;
}

/* What to say to somebody who introduces itself so. Anybody can use any name until
 * the digests are checked: so far no peer is made for it, no attempt of ours ends
 * for it, and several may try at once. */
static enum rt_hs_answer answer_for(rt_node *n, rt_slice name, const rt_peer *peer)
{
    if (!peer)
        return rt_peers_count(n->route.peers) < n->route.limits.peers_max ? RT_HS_OK
                                                                          : RT_HS_NOT_ALLOWED;
    const rt_session *other = peer->session;
    if (!other || other->state == RT_SESSION_AWAIT) return RT_HS_OK;
    if (other->state == RT_SESSION_UP) return RT_HS_SAY_ALIVE;
    if (other->state < RT_SESSION_HANDSHAKE) return RT_HS_OK;
    return ours_is_higher(n, name) ? RT_HS_NOK : RT_HS_OK_SIMULTANEOUS;
}

/* We named ourselves on a connection of our own after this one was let in. The peer,
 * whose name is the lower, gives this one up when it hears that; if we answered here,
 * each side could settle for the connection that the other one drops. */
static bool peer_gives_way(const rt_session *l)
{
    rt_node *n = l->node;
    const rt_peer *peer = rt_peers_find(n->route.peers, name_of(l));
    const rt_session *other = peer ? peer->session : NULL;
    return !l->initiator && other && other->state == RT_SESSION_HANDSHAKE &&
           ours_is_higher(n, name_of(l));
}

static int decide(rt_session *l, rt_buf *out)
{
    rt_node *n = l->node;
    rt_slice name = name_of(l);
    uint8_t cookie[RT_COOKIE_BYTES_MAX];
    size_t cookie_n = n->cookie_n;
    l->peer = rt_peers_find(n->route.peers, name);
    memcpy(cookie, n->cookie, n->cookie_n);
    if (l->peer) {
        pthread_mutex_lock(&l->peer->out.lock);
        if (l->peer->cookie) memcpy(cookie, l->peer->cookie, cookie_n = l->peer->cookie_n);
        pthread_mutex_unlock(&l->peer->out.lock);
    }
    enum rt_hs_answer answer = answer_for(n, name, l->peer);
    int rc = rt_handshake_decide(l->hs, answer, rt_slice_of(cookie, cookie_n), out);
    if (rc == RT_OK && answer == RT_HS_NOK) rc = RT_ENOK;
    if (rc == RT_OK && answer == RT_HS_NOT_ALLOWED) rc = RT_ENOTALLOWED;
    return rc;
}

/* The peer answered `nok`: it goes on with its own attempt; wait for that. */
static int await_theirs(rt_session *l)
{
    l->state = RT_SESSION_AWAIT;
    rt_conn_close(&l->conn, RT_ENOK, 0);
    rt_session_deadline(l, l->node->route.limits.handshake_step_ms);
    return RT_OK;
}

static int64_t handshake_bytes(rt_conn *c, const uint8_t *p, size_t n)
{
    rt_session *l = rt_session_of(c);
    rt_buf out = RT_BUF_INIT;
    size_t used = 0;
    if (l->predecessor) return 0;
    int verdict = rt_handshake_feed(l->hs, p, n, &used, &out);
    if (verdict == RT_HS_DECIDE) verdict = decide(l, &out);
    else if (verdict == RT_HS_ALIVE) verdict = rt_handshake_alive(l->hs, true, &out);
    if (verdict == RT_HS_DONE && (used == 0 || peer_gives_way(l))) {
        rt_buf_fini(&out); /* unanswered, for as long as a step may take */
        return used ? (int64_t)used : RT_EBAD;
    }
    int rc = rt_session_write(l, &out);
    rt_buf_fini(&out);
    if (c->closing) return RT_ECLOSED;
    if (verdict == RT_ENOK && l->initiator) {
        await_theirs(l);
        return RT_ECLOSED;
    }
    if (verdict < 0) return verdict;
    if (rc < 0) return rc;
    if (verdict == RT_HS_DONE) rc = session_up(l);
    else if (used) rt_session_deadline(l, l->node->route.limits.handshake_step_ms);
    if (rc == RT_AGAIN) rc = RT_OK;
    return rc < 0 ? rc : (int64_t)used;
}

static int session_packet(rt_conn *c, const uint8_t *p, size_t n)
{
    rt_session *l = rt_session_of(c);
    /* A large message's last fragment is no small message, nor is a tick. */
    if (n > SMALL_PACKET_BYTES_MAX) l->large_came = true;
    else if (n > 1 && p[1] != RT_TAG_DIST_FRAG_NEXT) l->small_came = true;
    return rt_inbound_packet(&l->driver->inbound, l->peer, p, n);
}

static uint8_t *session_place(rt_conn *c, const uint8_t *p, size_t n, size_t whole)
{
    rt_session *l = rt_session_of(c);
    l->large_came = true;
    return rt_inbound_place(l->peer, p, n, whole);
}

static int session_placed(rt_conn *c)
{
    rt_session *l = rt_session_of(c);
    return rt_inbound_placed(&l->driver->inbound, l->peer);
}

/* A wide window lets large messages come faster, and small ones wait for more of them: it is for
 * connections that have, for a while, only large ones. */
static void choose_window(rt_session *l, uint64_t now)
{
    enum rt_window want = l->window;
    if (l->small_came) l->small_at = now;
    if (l->large_came) l->large_at = now;
    l->small_came = l->large_came = false;
    if (l->large_at == 0) return;
    if (l->small_at && now - l->small_at < MIXED_NS && now - l->large_at < MIXED_NS)
        want = RT_WINDOW_NARROW;
    else if (l->large_at == now && (want == RT_WINDOW_UNSET || now - l->small_at > WIDEN_NS))
        want = RT_WINDOW_WIDE;
    if (want == l->window) return;
    l->window = want;
    rt_socket_settle(l->conn.source.fd, want == RT_WINDOW_WIDE);
}

static void session_batch(rt_conn *c)
{
    rt_session *l = rt_session_of(c);
    uint64_t now = rt_now();
    rt_inbound_flush(&l->driver->inbound);
    choose_window(l, now);
    atomic_store_explicit(&l->peer->count.heard, now, memory_order_relaxed); /* a counter */
}

static void session_written(rt_conn *c)
{
    rt_session *l = rt_session_of(c);
    if (l->state != RT_SESSION_UP) return;
    pthread_mutex_lock(&c->out->lock);
    bool told = l->peer->above_soft && c->out->bytes <= l->node->route.limits.queue_bytes_soft / 2;
    if (told) l->peer->above_soft = false;
    pthread_mutex_unlock(&c->out->lock);
    if (told)
        rt_events_put(&l->node->events, RT_EVENT_DRAINED, l->peer->name, 0, 0, 0, NULL);
}

static int begin_handshake(rt_session *l, rt_slice peer)
{
    rt_node *n = l->node;
    uint32_t challenge;
    uint8_t cookie[RT_COOKIE_BYTES_MAX];
    size_t cookie_n = n->cookie_n;
    int rc = rt_random_u32(&challenge);
    if (rc < 0) return rc;
    l->hs = rt_calloc(1, sizeof *l->hs);
    if (!l->hs) return RT_ENOMEM;
    memcpy(cookie, n->cookie, n->cookie_n);
    if (l->peer) {
        pthread_mutex_lock(&l->peer->out.lock);
        if (l->peer->cookie) memcpy(cookie, l->peer->cookie, cookie_n = l->peer->cookie_n);
        pthread_mutex_unlock(&l->peer->out.lock);
    }
    uint64_t flags = RT_FLAGS_OURS | (n->hidden ? 0 : RT_F_PUBLISHED);
    rc = rt_handshake_init(l->hs, l->initiator, n->route.name, flags, n->route.creation, challenge,
                           rt_slice_of(cookie, cookie_n), peer);
    l->hs->packs = n->route.limits.frame_bytes_max >= RT_PACK_BYTES_MAX;
    return rc;
}

static void session_connected(rt_conn *c)
{
    rt_session *l = rt_session_of(c);
    rt_buf out = RT_BUF_INIT;
    l->state = RT_SESSION_HANDSHAKE;
    int rc = begin_handshake(l, l->peer->name);
    if (rc == RT_OK) rc = rt_handshake_start(l->hs, &out);
    if (rc == RT_OK) rc = rt_session_write(l, &out);
    rt_buf_fini(&out);
    if (rc < 0) rt_conn_close(c, rc, errno);
    else rt_session_deadline(l, l->node->route.limits.handshake_step_ms);
}

const rt_conn_ops rt_session_ops = {
    .connected = session_connected, .bytes = handshake_bytes, .packet = session_packet,
    .place = session_place, .placed = session_placed,
    .batch = session_batch, .written = session_written, .closed = conn_closed,
};

void rt_session_accept(rt_node *n, int fd, const rt_address *remote)
{
    if (n->handshakes >= n->route.limits.handshakes_max) {
        rt_socket_close(fd);
        rt_events_put(&n->events, RT_EVENT_REFUSED, rt_slice_of(NULL, 0), RT_ELIMIT, 0, 0,
                      "too many handshakes in progress (handshakes_max)");
        return;
    }
    rt_session *l = rt_session_new(n);
    if (!l) {
        rt_socket_close(fd);
        return;
    }
    l->remote = *remote;
    l->state = RT_SESSION_HANDSHAKE;
    int rc = begin_handshake(l, rt_slice_of(NULL, 0));
    if (rc == RT_OK)
        rc = rt_conn_init(&l->conn, n->control->engine.poller, n->control->engine.read_buffer,
                          n->route.limits.frame_bytes_max, &rt_session_ops);
    if (rc == RT_OK) {
        rc = rt_conn_adopt(&l->conn, fd);
        if (rc < 0) rt_outq_fini(&l->conn.own);
    }
    if (rc < 0) {
        rt_socket_close(fd);
        rt_session_end(l, rc, errno, NULL);
        return;
    }
    l->conn_open = true;
    rt_session_deadline(l, n->route.limits.handshake_step_ms);
}
