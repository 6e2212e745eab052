#include "route/signal.h"

#include "base/alloc.h"
#include "base/cursor.h"
#include "dist/flags.h"
#include "route/outbound.h"
#include "term/ident.h"
#include "term/scan.h"
#include "term/tags.h"
#include "term/utf8.h"
#include "term/write.h"

#define REL_SPAWN 1u   /* a MONITOR_OUT that stands for an unanswered spawn request */
#define REL_NAMED 2u   /* a MONITOR_IN by name: `remote` is the watcher, then the name */

size_t rt_route_pid(const rt_route *r, rt_pid pid, uint8_t out[RT_PID_BYTES_MAX])
{
    uint8_t *p = out;
    *p++ = RT_TAG_NEW_PID;
    memcpy(p, r->atom.p, r->atom.n);
    p += r->atom.n;
    rt_store_u32(p, (uint32_t)pid);
    rt_store_u32(p + 4, (uint32_t)(pid >> 32));
    rt_store_u32(p + 8, r->creation);
    return (size_t)(p + 12 - out);
}

int rt_route_local(const rt_route *r, rt_slice pid, rt_pid *out)
{
    rt_cursor c = rt_cursor_of(pid.p, pid.n);
    rt_pid_view v;
    if (rt_read_pid(&c, &v) < 0) return RT_EBAD;
    if (!rt_slice_eq(v.node, r->name)) return RT_ENOTCONN;
    if (v.creation != r->creation) return RT_ENOENT;
    *out = (uint64_t)v.serial << 32 | v.id;
    return RT_OK;
}

void rt_route_undeliverable(rt_route *r, uint64_t n)
{
    atomic_fetch_add_explicit(&r->undeliverable, n, memory_order_relaxed); /* a counter */
}

static int chain_of(rt_chain *chain, rt_pid to, rt_slice term)
{
    memset(chain, 0, sizeof *chain);
    rt_message *m = rt_chain_add(chain, to, (uint32_t)term.n);
    if (!m) return RT_ENOMEM;
    memcpy(rt_message_data(m), term.p, term.n);
    return RT_OK;
}

int rt_route_post(rt_route *r, rt_pid to, rt_slice term)
{
    rt_chain chain;
    int rc = chain_of(&chain, to, term);
    if (rc == RT_OK) rc = rt_registry_push(r->registry, to, &chain, NULL);
    if (rc < 0) rt_chain_free(&chain);
    return rc;
}

int rt_route_post_signal(rt_route *r, rt_pid to, rt_slice term)
{
    rt_chain chain;
    rt_room extra = {r->limits.signals_max, r->limits.spill_bytes_max};
    int rc = chain_of(&chain, to, term);
    if (rc == RT_OK) chain.first->signal = 1;
    if (rc == RT_OK) rc = rt_registry_signal(r->registry, to, &chain, &extra);
    if (rc < 0) rt_chain_free(&chain);
    return rc;
}

/* Puts a signal into a box. One without room even for signals must not keep the
 * signal's sender, or the rest of what goes on here, from anything: it is closed a
 * little later. */
static int post(rt_route *r, rt_pid to, rt_slice term)
{
    int rc = rt_route_post_signal(r, to, term);
    if (rc != RT_EFULL) return rc;
    r->overflow(r, NULL, to, true, term.n);
    return RT_OK;
}

/* RT_ENOTCONN: the peer is idle, nothing was queued. */
static int put_request(rt_route *r, rt_peer *peer, rt_buf *b, int rc)
{
    if (rc == RT_OK) rc = rt_outbound_end(b, 0, &r->limits);
    if (rc == RT_OK) rc = rt_outbound_put(peer, rt_slice_of(b->p, b->n), RT_LEAD_NONE, true, &r->limits, NULL, NULL);
    if (rc == RT_OK) r->kick(r, peer);
    rt_buf_fini(b);
    return rc;
}

int rt_route_put_signal(rt_route *r, rt_peer *peer, rt_buf *b, int rc)
{
    rc = put_request(r, peer, b, rc);
    /* An idle peer has no connection that the signal could belong to. */
    return rc == RT_ENOTCONN ? RT_OK : rc;
}

static rt_slice atom_slice(const char *text, uint8_t buf[32])
{
    size_t n = strlen(text);
    buf[0] = RT_TAG_SMALL_ATOM_UTF8;
    buf[1] = (uint8_t)n;
    memcpy(buf + 2, text, n);
    return rt_slice_of(buf, n + 2);
}

/* {DOWN, Ref, process, Object, Reason} */
static int post_down(rt_route *r, rt_pid to, rt_slice ref, rt_slice object, rt_slice reason)
{
    rt_buf b = RT_BUF_INIT;
    int rc = rt_put_tuple(&b, 5);
    if (rc == RT_OK) rc = rt_put_atom_str(&b, "DOWN");
    if (rc == RT_OK) rc = rt_buf_put(&b, ref.p, ref.n);
    if (rc == RT_OK) rc = rt_put_atom_str(&b, "process");
    if (rc == RT_OK) rc = rt_buf_put(&b, object.p, object.n);
    if (rc == RT_OK) rc = rt_buf_put(&b, reason.p, reason.n);
    if (rc == RT_OK) rc = post(r, to, rt_slice_of(b.p, b.n));
    rt_buf_fini(&b);
    return rc;
}

/* {spawn_reply, Ref, ok | error, Result} */
static int post_spawn_reply(rt_route *r, rt_pid to, rt_slice ref, const char *how, rt_slice result)
{
    rt_buf b = RT_BUF_INIT;
    int rc = rt_put_tuple(&b, 4);
    if (rc == RT_OK) rc = rt_put_atom_str(&b, "spawn_reply");
    if (rc == RT_OK) rc = rt_buf_put(&b, ref.p, ref.n);
    if (rc == RT_OK) rc = rt_put_atom_str(&b, how);
    if (rc == RT_OK) rc = rt_buf_put(&b, result.p, result.n);
    if (rc == RT_OK) rc = post(r, to, rt_slice_of(b.p, b.n));
    rt_buf_fini(&b);
    return rc;
}

static bool is_atom(rt_slice term, const char *text)
{
    rt_cursor c = rt_cursor_of(term.p, term.n);
    rt_slice name;
    bool latin1;
    return rt_read_atom(&c, &name, &latin1) == RT_OK &&
           rt_slice_eq(name, rt_slice_of(text, strlen(text)));
}

/* Decides what an exit signal does to a process. 1: it dies, of *reason. */
static int exit_signal(rt_route *r, rt_pid to, rt_slice from, rt_slice *reason, bool from_link)
{
    static const uint8_t killed[] = {RT_TAG_SMALL_ATOM_UTF8, 6, 'k', 'i', 'l', 'l', 'e', 'd'};
    rt_process *p = rt_registry_lookup(r->registry, to);
    if (!p) return RT_OK;
    if (!from_link && is_atom(*reason, "kill")) {
        *reason = rt_slice_of(killed, sizeof killed);
        return 1;
    }
    /* relaxed: a flag on its own; the owner sets it before it can expect signals */
    if (!(atomic_load_explicit(&p->flags, memory_order_relaxed) & RT_PROCESS_TRAP_EXIT))
        return is_atom(*reason, "normal") ? RT_OK : 1;
    rt_buf b = RT_BUF_INIT;
    int rc = rt_put_tuple(&b, 3);
    if (rc == RT_OK) rc = rt_put_atom_str(&b, "EXIT");
    if (rc == RT_OK) rc = rt_buf_put(&b, from.p, from.n);
    if (rc == RT_OK) rc = rt_buf_put(&b, reason->p, reason->n);
    if (rc == RT_OK) rc = post(r, to, rt_slice_of(b.p, b.n));
    rt_buf_fini(&b);
    return rc == RT_ENOENT || rc == RT_ECLOSED ? RT_OK : rc;
}

/* Processes still to be told that they die; a chain of local links must not
 * become a chain of calls. */
typedef struct death {
    struct death *next;
    rt_pid pid;
    size_t n;
    uint8_t reason[];
} death;

static int death_add(death **list, rt_pid pid, rt_slice reason)
{
    death *d = rt_malloc(sizeof *d + reason.n);
    if (!d) return RT_ENOMEM;
    d->next = *list;
    d->pid = pid;
    d->n = reason.n;
    memcpy(d->reason, reason.p, reason.n);
    *list = d;
    return RT_OK;
}

/* As relations know it. */
static uint32_t number_of(const rt_peer *peer) { return peer ? peer->number : 0; }

static rt_peer *peer_of(rt_route *r, const rt_relation *rel)
{
    return rel->peer ? rt_peers_at(r->peers, rel->peer) : NULL;
}

static int tell_link(rt_route *r, const rt_relation *rel, rt_slice self, rt_slice reason,
                     death **deaths)
{
    rt_peer *peer = peer_of(r, rel);
    if (peer) {
        rt_buf b = RT_BUF_INIT;
        int rc = rt_outbound_begin(&b);
        if (rc == RT_OK) rc = rt_control_payload_exit(&b, self, rel->remote);
        if (rc == RT_OK) rc = rt_buf_put(&b, reason.p, reason.n);
        return rt_route_put_signal(r, peer, &b, rc);
    }
    rt_pid other;
    if (rt_route_local(r, rel->remote, &other) < 0) return RT_OK;
    if (rt_relations_remove_link(r->relations, other, self) < 0) return RT_OK;
    int rc = exit_signal(r, other, self, &reason, true);
    return rc == 1 ? death_add(deaths, other, reason) : rc;
}

static int tell_watcher(rt_route *r, const rt_relation *rel, rt_slice self, rt_slice reason)
{
    rt_peer *peer = peer_of(r, rel);
    if (peer) {
        rt_buf b = RT_BUF_INIT;
        rt_slice watcher = rel->remote;
        if (rel->flags & REL_NAMED) {
            int64_t k = rt_term_skip(watcher.p, watcher.n);
            RT_ASSERT(k > 0);
            self = rt_slice_of(watcher.p + k, watcher.n - (size_t)k);
            watcher.n = (size_t)k;
        }
        int rc = rt_outbound_begin(&b);
        if (rc == RT_OK) rc = rt_control_payload_monitor_exit(&b, self, watcher, rel->ref);
        if (rc == RT_OK) rc = rt_buf_put(&b, reason.p, reason.n);
        return rt_route_put_signal(r, peer, &b, rc);
    }
    return rt_signal_got_down(r, NULL, rel->ref, reason);
}

static int drop_monitor(rt_route *r, const rt_relation *rel, rt_slice self)
{
    rt_peer *peer = peer_of(r, rel);
    if (!peer) {
        rt_relations_remove_ref(r->relations, RT_REL_MONITOR_IN, rel->ref, NULL);
        return RT_OK;
    }
    if (rel->flags & REL_SPAWN) return RT_OK;
    rt_buf b = RT_BUF_INIT;
    rt_cursor c = rt_cursor_of(rel->remote.p, rel->remote.n);
    rt_slice target = rel->remote;
    uint32_t arity;
    /* {Name, Node}: the peer knows it by the name alone */
    if (rt_read_tuple(&c, &arity) == RT_OK) {
        const uint8_t *name = c.p;
        rt_slice text;
        bool latin1;
        if (rt_read_atom(&c, &text, &latin1) < 0) return RT_EBAD;
        target = rt_slice_of(name, (size_t)(c.p - name));
    }
    int rc = rt_outbound_begin(&b);
    if (rc == RT_OK) rc = rt_control_demonitor(&b, self, target, rel->ref);
    return rt_route_put_signal(r, peer, &b, rc);
}

static int terminate_one(rt_route *r, rt_pid self, rt_slice reason, death **deaths)
{
    rt_process *p = rt_registry_lookup(r->registry, self);
    int rc = rt_process_exit(r->registry, self, reason);
    if (rc < 0) return rc;
    r->ended(r, p, self);
    uint8_t me[RT_PID_BYTES_MAX];
    rt_slice self_bytes = rt_slice_of(me, rt_route_pid(r, self, me));
    rt_relation *list = rt_relations_take_process(r->relations, self);
    for (rt_relation *rel = list; rel; rel = rel->next) {
        int k = RT_OK;
        if (rel->kind == RT_REL_LINK) k = tell_link(r, rel, self_bytes, reason, deaths);
        else if (rel->kind == RT_REL_MONITOR_IN) k = tell_watcher(r, rel, self_bytes, reason);
        else if (rel->kind == RT_REL_MONITOR_OUT) k = drop_monitor(r, rel, self_bytes);
        if (k < 0 && k != RT_ENOENT) rc = k;
    }
    rt_relation_free_list(list);
    return rc;
}

int rt_signal_terminate(rt_route *r, rt_pid self, rt_slice reason)
{
    death *deaths = NULL;
    int rc = terminate_one(r, self, reason, &deaths);
    while (deaths) {
        death *d = deaths;
        deaths = d->next;
        terminate_one(r, d->pid, rt_slice_of(d->reason, d->n), &deaths);
        rt_free(d);
    }
    return rc;
}

int rt_signal_let_go(rt_route *r, rt_pid self, rt_slice ref, rt_slice reason)
{
    if (rt_relations_find_ref(r->relations, RT_REL_MONITOR_IN, ref) != self) return RT_ENOENT;
    rt_relation *rel;
    int rc = rt_relations_remove_ref(r->relations, RT_REL_MONITOR_IN, ref, &rel);
    if (rc < 0) return rc;
    uint8_t me[RT_PID_BYTES_MAX];
    rc = tell_watcher(r, rel, rt_slice_of(me, rt_route_pid(r, self, me)), reason);
    rt_relation_free_list(rel);
    return rc;
}

int rt_signal_got_exit(rt_route *r, rt_peer *peer, rt_pid to, rt_slice from, rt_slice reason,
                       bool from_link)
{
    if (from_link && rt_relations_end_link(r->relations, number_of(peer), to, from) < 0)
        return RT_OK;
    int rc = exit_signal(r, to, from, &reason, from_link);
    if (rc == 1) rc = rt_signal_terminate(r, to, reason);
    return rc == RT_ENOENT ? RT_OK : rc;
}

int rt_signal_got_down(rt_route *r, rt_peer *peer, rt_slice ref, rt_slice reason)
{
    rt_relation *rel;
    int rc = rt_relations_end_ref(r->relations, number_of(peer), RT_REL_MONITOR_OUT, ref, &rel);
    if (rc < 0) return RT_OK;  /* demonitored meanwhile, or not that peer's to end */
    rc = post_down(r, rel->local, ref, rel->remote, reason);
    rt_relation_free_list(rel);
    return rc == RT_ENOENT || rc == RT_ECLOSED ? RT_OK : rc;
}

/* Adds a local link or monitor pair; both ends are processes of this node. */
static int add(rt_route *r, enum rt_relation_kind kind, rt_pid local, uint32_t peer,
               rt_slice remote, rt_slice ref, uint32_t flags)
{
    rt_relation rel = {.kind = kind, .local = local, .peer = peer, .remote = remote,
                       .ref = ref, .flags = flags};
    return rt_relations_add(r->relations, &rel);
}

/* The same for a process of one's own. It may die meanwhile: its end then either finds
 * the relation, or nobody does. RT_ENOENT: it is dead. */
static int add_own(rt_route *r, enum rt_relation_kind kind, rt_pid self, uint32_t peer,
                   rt_slice remote, rt_slice ref, uint32_t flags)
{
    int rc = add(r, kind, self, peer, remote, ref, flags);
    if (rc < 0 || rt_registry_lookup(r->registry, self)) return rc;
    if (kind == RT_REL_LINK) rt_relations_remove_link(r->relations, self, remote);
    else rt_relations_remove_ref(r->relations, kind, ref, NULL);
    return RT_ENOENT;
}

int rt_signal_link(rt_route *r, rt_pid self, rt_peer *peer, rt_slice other)
{
    uint8_t me[RT_PID_BYTES_MAX], atom[32];
    rt_slice self_bytes = rt_slice_of(me, rt_route_pid(r, self, me));
    if (!rt_registry_lookup(r->registry, self)) return RT_ENOENT;
    if (rt_slice_eq(self_bytes, other)) return RT_OK;
    int rc = add_own(r, RT_REL_LINK, self, number_of(peer), other, rt_slice_of(NULL, 0), 0);
    if (rc < 0) return rc == RT_EEXIST ? RT_OK : rc;
    if (peer) {
        rt_buf b = RT_BUF_INIT;
        rc = rt_outbound_begin(&b);
        if (rc == RT_OK) rc = rt_control_link(&b, self_bytes, other);
        rc = put_request(r, peer, &b, rc);
        if (rc != RT_ENOTCONN) return rc;
        /* The attempt to connect has failed already and did not see this link. */
        return rt_signal_got_exit(r, peer, self, other, atom_slice("noconnection", atom), true);
    }
    rt_pid to;
    if (rt_route_local(r, other, &to) == RT_OK && rt_registry_lookup(r->registry, to)) {
        rc = add(r, RT_REL_LINK, to, 0, self_bytes, rt_slice_of(NULL, 0), 0);
        if (rc < 0 && rc != RT_EEXIST) {
            rt_relations_remove_link(r->relations, self, other);
            return rc;
        }
        /* It may have died between the look and the link. */
        if (rt_registry_lookup(r->registry, to)) return RT_OK;
        rt_relations_remove_link(r->relations, to, self_bytes);
    }
    return rt_signal_got_exit(r, NULL, self, other, atom_slice("noproc", atom), true);
}

int rt_signal_unlink(rt_route *r, rt_pid self, rt_peer *peer, rt_slice other)
{
    uint8_t me[RT_PID_BYTES_MAX];
    rt_slice self_bytes = rt_slice_of(me, rt_route_pid(r, self, me));
    int rc = rt_relations_remove_link(r->relations, self, other);
    if (rc < 0) return RT_OK;
    if (!peer) {
        rt_pid to;
        if (rt_route_local(r, other, &to) == RT_OK)
            rt_relations_remove_link(r->relations, to, self_bytes);
        return RT_OK;
    }
    rt_buf b = RT_BUF_INIT;
    /* relaxed: only uniqueness matters */
    uint64_t id = atomic_fetch_add_explicit(&r->unlink_ids, 1, memory_order_relaxed) + 1;
    rc = rt_outbound_begin(&b);
    if (rc == RT_OK) rc = rt_control_unlink_id(&b, id, self_bytes, other);
    return rt_route_put_signal(r, peer, &b, rc);
}

int rt_signal_got_link(rt_route *r, rt_peer *peer, rt_slice from, rt_slice to)
{
    rt_pid self;
    uint8_t atom[32];
    int rc = rt_route_local(r, to, &self);
    if (rc == RT_EBAD) return rc;
    if (rc == RT_OK && rt_registry_lookup(r->registry, self)) {
        rc = add(r, RT_REL_LINK, self, peer->number, from, rt_slice_of(NULL, 0), 0);
        if (rc < 0) return rc == RT_EEXIST ? RT_OK : rc;
        if (rt_registry_lookup(r->registry, self)) return RT_OK;
        if (rt_relations_remove_link(r->relations, self, from) < 0) return RT_OK;
    }
    rt_buf b = RT_BUF_INIT;
    rc = rt_outbound_begin(&b);
    if (rc == RT_OK) rc = rt_control_exit(&b, to, from, atom_slice("noproc", atom));
    return rt_route_put_signal(r, peer, &b, rc);
}

/* The process a monitor is aimed at on this node: a pid, or a registered name. */
static rt_pid monitored(rt_route *r, rt_slice target, bool by_name)
{
    rt_pid pid;
    if (!by_name) return rt_route_local(r, target, &pid) == RT_OK ? pid : 0;
    rt_cursor c = rt_cursor_of(target.p, target.n);
    rt_slice name;
    bool latin1;
    uint8_t wide[2 * RT_ATOM_CHARS_MAX];
    if (rt_read_atom(&c, &name, &latin1) < 0) return 0;
    if (latin1) name = rt_slice_of(wide, rt_utf8_from_latin1(wide, name.p, name.n));
    return rt_registry_whereis(r->registry, name);
}

int rt_signal_got_monitor(rt_route *r, rt_peer *peer, rt_slice from, rt_slice to, bool to_name,
                          rt_slice ref)
{
    uint8_t atom[32];
    rt_pid self = monitored(r, to, to_name);
    /* net_kernel is answered for by route/system and lives as long as the node. */
    if (!self && to_name && is_atom(to, "net_kernel")) return RT_OK;
    if (self && rt_registry_lookup(r->registry, self)) {
        rt_buf remote = RT_BUF_INIT;
        int rc = rt_buf_put(&remote, from.p, from.n);
        if (rc == RT_OK && to_name) rc = rt_buf_put(&remote, to.p, to.n);
        if (rc == RT_OK)
            rc = add(r, RT_REL_MONITOR_IN, self, peer->number, rt_slice_of(remote.p, remote.n),
                     ref, to_name ? REL_NAMED : 0);
        rt_buf_fini(&remote);
        if (rc < 0) return rc == RT_EEXIST ? RT_OK : rc;
        if (rt_registry_lookup(r->registry, self)) return RT_OK;
        if (rt_relations_remove_ref(r->relations, RT_REL_MONITOR_IN, ref, NULL) < 0) return RT_OK;
    }
    rt_buf b = RT_BUF_INIT;
    int rc = rt_outbound_begin(&b);
    if (rc == RT_OK)
        rc = rt_control_monitor_exit(&b, to, from, ref, atom_slice("noproc", atom));
    return rt_route_put_signal(r, peer, &b, rc);
}

int rt_signal_monitor(rt_route *r, rt_pid self, rt_peer *peer, rt_slice target, rt_slice object,
                      rt_slice ref)
{
    uint8_t me[RT_PID_BYTES_MAX], atom[32];
    rt_slice self_bytes = rt_slice_of(me, rt_route_pid(r, self, me));
    if (!rt_registry_lookup(r->registry, self)) return RT_ENOENT;
    int rc = add_own(r, RT_REL_MONITOR_OUT, self, number_of(peer), object, ref, 0);
    if (rc < 0) return rc;
    if (peer) {
        rt_buf b = RT_BUF_INIT;
        rc = rt_outbound_begin(&b);
        if (rc == RT_OK) rc = rt_control_monitor(&b, self_bytes, target, ref);
        rc = put_request(r, peer, &b, rc);
        if (rc != RT_ENOTCONN) return rc;
        return rt_signal_got_down(r, peer, ref, atom_slice("noconnection", atom)); /* as for links */
    }
    bool by_name = target.n > 0 && target.p[0] != RT_TAG_NEW_PID;
    rt_pid to = monitored(r, target, by_name);
    if (to && rt_registry_lookup(r->registry, to)) {
        rc = add(r, RT_REL_MONITOR_IN, to, 0, self_bytes, ref, 0);
        if (rc < 0) {
            rt_relations_remove_ref(r->relations, RT_REL_MONITOR_OUT, ref, NULL);
            return rc;
        }
        if (rt_registry_lookup(r->registry, to)) return RT_OK;
        rt_relations_remove_ref(r->relations, RT_REL_MONITOR_IN, ref, NULL);
    }
    return rt_signal_got_down(r, NULL, ref, atom_slice("noproc", atom));
}

int rt_signal_demonitor(rt_route *r, rt_pid self, rt_slice ref)
{
    rt_relation *rel;
    uint8_t me[RT_PID_BYTES_MAX];
    if (rt_relations_find_ref(r->relations, RT_REL_MONITOR_OUT, ref) != self) return RT_ENOENT;
    int rc = rt_relations_remove_ref(r->relations, RT_REL_MONITOR_OUT, ref, &rel);
    if (rc < 0) return rc;
    rc = drop_monitor(r, rel, rt_slice_of(me, rt_route_pid(r, self, me)));
    rt_relation_free_list(rel);
    return rc;
}

int rt_signal_exit(rt_route *r, rt_pid self, rt_peer *peer, rt_slice to, rt_slice reason)
{
    uint8_t me[RT_PID_BYTES_MAX];
    rt_slice from = rt_slice_of(me, rt_route_pid(r, self, me));
    if (!peer) {
        rt_pid other;
        int rc = rt_route_local(r, to, &other);
        if (rc < 0) return rc == RT_EBAD ? rc : RT_OK;
        return rt_signal_got_exit(r, NULL, other, from, reason, false);
    }
    rt_buf b = RT_BUF_INIT;
    int rc = rt_outbound_begin(&b);
    if (rc == RT_OK) rc = rt_control_payload_exit2(&b, from, to);
    if (rc == RT_OK) rc = rt_buf_put(&b, reason.p, reason.n);
    return rt_route_put_signal(r, peer, &b, rc);
}

void rt_signal_peer_up(rt_route *r, rt_peer *peer)
{
    uint8_t atom[32];
    if (!rt_peer_lacks(peer, RT_F_SPAWN)) return;
    rt_relation *list = rt_relations_take_flagged(r->relations, peer->number, REL_SPAWN);
    for (rt_relation *rel = list; rel; rel = rel->next)
        post_spawn_reply(r, rel->local, rel->ref, "error", atom_slice("notsup", atom));
    rt_relation_free_list(list);
}

int rt_signal_spawn(rt_route *r, rt_pid self, rt_peer *peer, rt_slice ref, rt_slice module,
                    rt_slice function, uint32_t arity, rt_slice args, rt_slice options)
{
    uint8_t me[RT_PID_BYTES_MAX], atom[32];
    rt_slice self_bytes = rt_slice_of(me, rt_route_pid(r, self, me));
    /* Until the answer comes the request is a monitor of the peer itself. */
    int rc = add_own(r, RT_REL_MONITOR_OUT, self, peer->number, peer->atom, ref, REL_SPAWN);
    if (rc < 0) return rc;
    rt_buf b = RT_BUF_INIT;
    rc = rt_outbound_begin(&b);
    if (rc == RT_OK)
        rc = rt_control_spawn_request(&b, ref, self_bytes, self_bytes, module, function, arity,
                                      options);
    if (rc == RT_OK) rc = rt_buf_put(&b, args.p, args.n);
    rc = put_request(r, peer, &b, rc);
    if (rc == RT_OK) rt_signal_peer_up(r, peer); /* it may be one that knows no such request */
    if (rc == RT_OK) return rc;
    int removed = rt_relations_remove_ref(r->relations, RT_REL_MONITOR_OUT, ref, NULL);
    if (rc != RT_ENOTCONN) return rc;
    /* As for links; whoever took the relation has answered. */
    if (removed == RT_OK)
        post_spawn_reply(r, self, ref, "error", atom_slice("noconnection", atom));
    return RT_OK;
}

int rt_signal_not_spawned(rt_route *r, rt_peer *peer, rt_slice from, rt_slice ref,
                          const char *reason)
{
    uint8_t atom[32];
    rt_buf b = RT_BUF_INIT;
    int rc = rt_outbound_begin(&b);
    if (rc == RT_OK) rc = rt_control_spawn_reply(&b, ref, from, 0, atom_slice(reason, atom));
    return rt_route_put_signal(r, peer, &b, rc);
}

int rt_signal_got_spawn(rt_route *r, rt_peer *peer, rt_slice from, rt_slice ref, rt_slice mfa,
                        rt_slice options, rt_slice args)
{
    rt_pid to = atomic_load_explicit(&r->spawner, memory_order_relaxed); /* see its setter */
    rt_cursor c = rt_cursor_of(from.p, from.n);
    rt_pid_view asker;
    rt_buf b = RT_BUF_INIT;
    /* Nobody asks in another node's name: the answer would go there. */
    if (rt_read_pid(&c, &asker) < 0 || !rt_slice_eq(asker.node, peer->name)) return RT_EBAD;
    int rc = to ? RT_OK : RT_ENOENT;
    if (rc == RT_OK) rc = rt_put_tuple(&b, 6);
    if (rc == RT_OK) rc = rt_put_atom_str(&b, "spawn_request");
    if (rc == RT_OK) rc = rt_buf_put(&b, ref.p, ref.n);
    if (rc == RT_OK) rc = rt_buf_put(&b, from.p, from.n);
    if (rc == RT_OK) rc = rt_buf_put(&b, mfa.p, mfa.n);
    if (rc == RT_OK) rc = rt_buf_put(&b, options.p, options.n);
    if (rc == RT_OK) rc = rt_buf_put(&b, args.p, args.n);
    if (rc == RT_OK) rc = rt_route_post_signal(r, to, rt_slice_of(b.p, b.n));
    rt_buf_fini(&b);
    if (rc == RT_ENOENT || rc == RT_ECLOSED)
        return rt_signal_not_spawned(r, peer, from, ref, "notsup");
    return rc;
}

int rt_signal_spawned(rt_route *r, rt_pid self, rt_peer *peer, rt_slice from, rt_slice ref,
                      uint32_t flags)
{
    uint8_t me[RT_PID_BYTES_MAX];
    rt_slice self_bytes = rt_slice_of(me, rt_route_pid(r, self, me));
    if (rt_peer_state_of(peer) != RT_PEER_UP) return RT_OK;
    int rc = RT_OK;
    if (flags & RT_SPAWN_MONITOR)
        rc = add_own(r, RT_REL_MONITOR_IN, self, peer->number, from, ref, 0);
    if (rc == RT_OK && flags & RT_SPAWN_LINK)
        rc = add_own(r, RT_REL_LINK, self, peer->number, from, rt_slice_of(NULL, 0), 0);
    if (rc < 0) return rc;
    rt_buf b = RT_BUF_INIT;
    rc = rt_outbound_begin(&b);
    if (rc == RT_OK) rc = rt_control_spawn_reply(&b, ref, from, flags, self_bytes);
    return rt_route_put_signal(r, peer, &b, rc);
}

int rt_signal_got_spawn_reply(rt_route *r, rt_peer *peer, rt_pid to, rt_slice ref, uint64_t flags,
                              rt_slice result)
{
    if (rt_relations_end_ref(r->relations, peer->number, RT_REL_MONITOR_OUT, ref, NULL) < 0)
        return RT_OK;
    bool ok = result.n > 0 && result.p[0] == RT_TAG_NEW_PID;
    if (ok && flags & 2) {
        int rc = add(r, RT_REL_MONITOR_OUT, to, peer->number, result, ref, 0);
        if (rc < 0) return rc;
    }
    if (ok && flags & 1) {
        int rc = add(r, RT_REL_LINK, to, peer->number, result, rt_slice_of(NULL, 0), 0);
        if (rc < 0 && rc != RT_EEXIST) return rc;
    }
    int rc = post_spawn_reply(r, to, ref, ok ? "ok" : "error", result);
    return rc == RT_ENOENT || rc == RT_ECLOSED ? RT_OK : rc;
}

void rt_signal_peer_down(rt_route *r, rt_peer *peer)
{
    uint8_t atom[32];
    rt_slice noconnection = atom_slice("noconnection", atom);
    rt_relation *list = rt_relations_take_peer(r->relations, peer->number);
    for (rt_relation *rel = list; rel; rel = rel->next) {
        rt_slice reason = noconnection;
        if (rel->kind == RT_REL_MONITOR_OUT && rel->flags & REL_SPAWN) {
            post_spawn_reply(r, rel->local, rel->ref, "error", noconnection);
        } else if (rel->kind == RT_REL_MONITOR_OUT) {
            post_down(r, rel->local, rel->ref, rel->remote, noconnection);
        } else if (rel->kind == RT_REL_LINK) {
            if (exit_signal(r, rel->local, rel->remote, &reason, true) == 1)
                rt_signal_terminate(r, rel->local, reason);
        }
    }
    rt_relation_free_list(list);
}
