#include "route/inbound.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/cursor.h"
#include "dist/control.h"
#include "dist/fragments.h"
#include "dist/frame.h"
#include "route/multicast.h"
#include "route/outbound.h"
#include "route/relay.h"
#include "route/repeat.h"
#include "route/signal.h"
#include "route/system.h"
#include "term/ident.h"
#include "term/scan.h"
#include "term/tags.h"
#include "term/utf8.h"
#include "term/write.h"

#define GATHERED_BYTES_MAX (256u * 1024u)

void rt_inbound_init(rt_inbound *in, rt_route *route)
{
    memset(in, 0, sizeof *in);
    in->route = route;
}

void rt_inbound_fini(rt_inbound *in)
{
    for (uint32_t i = 0; i < in->shares; i++) rt_chain_free(&in->share[i].chain);
    rt_stock_fini(&in->stock);
    rt_buf_fini(&in->control);
    rt_buf_fini(&in->payload);
    rt_buf_fini(&in->ident[0]);
    rt_buf_fini(&in->ident[1]);
}

static void count(_Atomic uint64_t *counter, uint64_t n)
{
    rt_count_locked(counter, n); /* the driver is the only writer */
}

/* Counts what a push refused; true when the owner of the box has to hear of it. */
static bool settle(rt_peer *from, rt_share *s)
{
    if (s->rc < 0) {
        count(&from->count.dropped_in, s->chain.count);
        rt_chain_free(&s->chain);
    }
    return s->over || s->rc == RT_EFULL;
}

void rt_inbound_flush(rt_inbound *in)
{
    struct { rt_pid to; uint64_t bytes; bool close; } full[RT_INBOUND_SHARES];
    uint32_t n = in->shares, k = 0;
    rt_peer *from = in->from;
    if (!n) return;
    rt_registry_push_together(in->route->registry, in->share, n);
    for (rt_share *s = in->share; s < in->share + n; s++) {
        if (RT_LIKELY(!settle(from, s))) continue;
        full[k].to = s->to;
        full[k].bytes = s->bytes;
        full[k++].close = s->rc == RT_EFULL;
    }
    in->shares = 0;
    in->bytes = 0;
    in->now = NULL;
    /* Last, for it may end connections, and their successors bring packets. */
    for (uint32_t i = 0; i < k; i++)
        in->route->overflow(in->route, from, full[i].to, full[i].close, full[i].bytes);
}

/* Where messages for that process are gathered. */
static rt_share *turn_to(rt_inbound *in, rt_peer *peer, rt_pid to)
{
    uint32_t place = (uint32_t)to, i;
    for (;; place++) {
        place %= 2 * RT_INBOUND_SHARES;
        i = in->found_at[place];
        if (i >= in->shares || in->place[i] != place) break;
        if (RT_LIKELY(in->share[i].to == to)) return &in->share[i];
    }
    if (RT_UNLIKELY(in->shares == RT_INBOUND_SHARES)) {
        rt_inbound_flush(in);
        return turn_to(in, peer, to); /* all places are free */
    }
    i = in->shares++;
    in->found_at[place] = (uint8_t)i;
    in->place[i] = (uint8_t)place;
    in->from = peer;
    in->share[i] = (rt_share){.to = to};
    return &in->share[i];
}

_Static_assert(RT_MESSAGE_HEADROOM == RT_FRAGMENTS_HEADROOM, "for a message's head");

/* A large payload that was put together from fragments becomes the message as it stands,
 * unless atoms had to be put into it. */
static bool take_over(rt_inbound *in, rt_peer *peer, rt_share *share, rt_slice payload)
{
    rt_buf *b = in->assembled;
    if (!b || payload.p != b->p + RT_FRAGMENTS_HEADROOM) return false;
    size_t need = RT_FRAGMENTS_HEADROOM + payload.n, cap = b->cap;
    /* Growing left room behind it. */
    if (cap - need > need / 4) cap = need;
    uint8_t *p = cap < b->cap ? rt_realloc(b->p, cap) : b->p;
    if (!p) return false;
    *b = (rt_buf)RT_BUF_INIT;
    rt_chain_adopt(&share->chain, share->to, p, cap, (uint32_t)payload.n, peer->pool);
    return true;
}

/* Gathers a message for a local process that was there a moment ago. */
static int add(rt_inbound *in, rt_peer *peer, rt_pid to, rt_slice payload)
{
    if (payload.n > UINT32_MAX) return RT_ELIMIT;
    if (in->bytes > GATHERED_BYTES_MAX) rt_inbound_flush(in);
    if (!in->now || in->now->to != to) in->now = turn_to(in, peer, to);
    RT_ASSERT(in->from == peer);
    rt_share *share = in->now;
    in->bytes += payload.n;
    if (take_over(in, peer, share, payload)) return RT_OK;
    rt_message *m = rt_chain_add_from(&share->chain, &in->stock, to, (uint32_t)payload.n);
    if (!m) return RT_ENOMEM;
    memcpy(rt_message_data(m), payload.p, payload.n);
    return RT_OK;
}

static int gather(rt_inbound *in, rt_peer *peer, rt_pid to, rt_slice payload)
{
    if (RT_LIKELY(rt_registry_lookup(in->route->registry, to) != NULL))
        return add(in, peer, to, payload);
    count(&peer->count.dropped_in, 1);
    return RT_OK;
}

/* A copy for each. A member that is the multicaster gets an ordinary message: copies do not
 * make copies. */
static int multicast(rt_inbound *in, rt_peer *peer, rt_multicast *m)
{
    int rc = RT_OK;
    uint64_t each = m->term.n + RT_MULTICAST_COPY_BYTES;
    if (m->count > in->route->limits.multicast_bytes_max / each) return RT_ELIMIT;
    /* One message has been counted. */
    if (m->count) count(&peer->count.messages_in, m->count - 1);
    while (m->count && rc == RT_OK) {
        rt_pid to = rt_multicast_next(m, in->route);
        if (to) rc = gather(in, peer, to, m->term);
        else count(&peer->count.dropped_in, 1);
    }
    return rc;
}

static bool is_multicaster(const rt_inbound *in, rt_pid to)
{
    /* relaxed: as the spawner */
    return to == atomic_load_explicit(&in->route->multicaster, memory_order_relaxed);
}

RT_INLINE int deliver(rt_inbound *in, rt_peer *peer, rt_pid to, rt_slice payload)
{
    rt_multicast m;
    if (RT_UNLIKELY(is_multicaster(in, to)) && rt_multicast_read(payload, &m))
        return multicast(in, peer, &m);
    return gather(in, peer, to, payload);
}

/* The canonical form of an identifier, in one of two scratch places. */
static int canonical(rt_inbound *in, int place, rt_slice *ident)
{
    if (ident->n > 2 && (ident->p[0] == RT_TAG_NEW_PID && ident->p[1] == RT_TAG_SMALL_ATOM_UTF8))
        return RT_OK;
    rt_buf *b = &in->ident[place];
    rt_cursor c = rt_cursor_of(ident->p, ident->n);
    b->n = 0;
    int rc = rt_put_canonical(b, &c);
    if (rc == RT_OK) *ident = rt_slice_of(b->p, b->n);
    return rc;
}

static int to_pid(rt_inbound *in, rt_peer *peer, const rt_control *c, rt_slice payload)
{
    rt_pid to;
    int rc = rt_route_local(in->route, c->to, &to);
    if (RT_LIKELY(rc == RT_OK)) {
        in->found.to = to;
        return deliver(in, peer, to, payload);
    }
    if (rc == RT_EBAD) return rc;
    if (rc == RT_ENOTCONN && in->route->relay) {
        rc = rt_relay_send(in->route, c, payload);
        if (rc == RT_OK || rc == RT_ENOMEM) return rc;
    }
    count(&peer->count.dropped_in, 1);
    return RT_OK;
}

static int to_name(rt_inbound *in, rt_peer *peer, rt_slice atom, rt_slice payload)
{
    rt_cursor c = rt_cursor_of(atom.p, atom.n);
    rt_slice name;
    bool latin1;
    int rc = rt_read_atom(&c, &name, &latin1);
    if (rc < 0) return rc;
    uint8_t wide[2 * RT_ATOM_CHARS_MAX];
    if (latin1) name = rt_slice_of(wide, rt_utf8_from_latin1(wide, name.p, name.n));
    rt_pid to = rt_registry_whereis(in->route->registry, name);
    if (to) {
        in->found.to = to;
        in->found.named = true;
        return deliver(in, peer, to, payload);
    }
    if (rt_slice_eq(name, rt_slice_of("net_kernel", 10))) {
        rc = rt_system_message(in->route, peer, payload);
        if (rc != RT_ENOENT) return rc;
    }
    count(&peer->count.dropped_in, 1);
    return RT_OK;
}

static int to_alias(rt_inbound *in, rt_peer *peer, rt_slice alias, rt_slice payload)
{
    int rc = canonical(in, 1, &alias);
    if (rc < 0) return rc;
    rt_pid to = rt_relations_reach(in->route->relations, alias);
    if (to) return deliver(in, peer, to, payload);
    count(&peer->count.dropped_in, 1);
    return RT_OK;
}

static int altact_exit(rt_inbound *in, rt_peer *peer, const rt_control *c, rt_slice reason)
{
    rt_pid to = 0;
    rt_slice from = c->from, alias = c->to;
    int rc = canonical(in, 0, &from);
    if (rc == RT_OK && c->to_alias) rc = canonical(in, 1, &alias);
    if (rc < 0) return rc;
    if (c->to_alias) to = rt_relations_find_ref(in->route->relations, RT_REL_ALIAS, alias);
    else if (rt_route_local(in->route, c->to, &to) < 0) to = 0;
    return to ? rt_signal_got_exit(in->route, peer, to, from, reason, false) : RT_OK;
}

static int altact(rt_inbound *in, rt_peer *peer, const rt_control *c, rt_slice payload)
{
    if (c->id & RT_ALTACT_EXIT) return altact_exit(in, peer, c, payload);
    if (c->to_alias) return to_alias(in, peer, c->to, payload);
    if (c->to_name) return to_name(in, peer, c->to, payload);
    return to_pid(in, peer, c, payload);
}

static int acknowledge_unlink(rt_inbound *in, rt_peer *peer, const rt_control *c)
{
    rt_buf b = RT_BUF_INIT;
    int rc = rt_outbound_begin(&b);
    if (rc == RT_OK) rc = rt_control_unlink_id_ack(&b, c->id, c->to, c->from);
    return rt_route_put_signal(in->route, peer, &b, rc);
}

/* Links, monitors, exits: rare, and always after the messages before them. */
static int signal(rt_inbound *in, rt_peer *peer, const rt_control *c, rt_slice payload)
{
    rt_route *r = in->route;
    rt_slice from = c->from, ref = c->ref;
    rt_slice reason = c->payload ? payload : c->reason;
    rt_pid to = 0;
    rt_inbound_flush(in);
    int rc = RT_OK;
    if (from.n && c->op != RT_OP_MONITOR_P_EXIT && c->op != RT_OP_PAYLOAD_MONITOR_P_EXIT)
        rc = canonical(in, 0, &from);
    if (rc == RT_OK && ref.n) rc = canonical(in, 1, &ref);
    if (rc < 0) return rc;
    bool here = c->to.n > 0 && !c->to_name && !c->to_alias &&
                rt_route_local(r, c->to, &to) == RT_OK;
    switch (c->op) {
    case RT_OP_LINK:
        return rt_signal_got_link(r, peer, from, c->to);
    case RT_OP_UNLINK:
    case RT_OP_UNLINK_ID:
        if (here) rt_relations_end_link(r->relations, peer->number, to, from);
        return c->op == RT_OP_UNLINK ? RT_OK : acknowledge_unlink(in, peer, c);
    case RT_OP_EXIT:
    case RT_OP_EXIT_TT:
    case RT_OP_PAYLOAD_EXIT:
    case RT_OP_PAYLOAD_EXIT_TT:
        return here ? rt_signal_got_exit(r, peer, to, from, reason, true) : RT_OK;
    case RT_OP_EXIT2:
    case RT_OP_EXIT2_TT:
    case RT_OP_PAYLOAD_EXIT2:
    case RT_OP_PAYLOAD_EXIT2_TT:
        return here ? rt_signal_got_exit(r, peer, to, from, reason, false) : RT_OK;
    case RT_OP_MONITOR_P:
        return rt_signal_got_monitor(r, peer, from, c->to, c->to_name, ref);
    case RT_OP_DEMONITOR_P:
        rt_relations_end_ref(r->relations, peer->number, RT_REL_MONITOR_IN, ref, NULL);
        return RT_OK;
    case RT_OP_MONITOR_P_EXIT:
    case RT_OP_PAYLOAD_MONITOR_P_EXIT:
        return rt_signal_got_down(r, peer, ref, reason);
    case RT_OP_SPAWN_REQUEST:
    case RT_OP_SPAWN_REQUEST_TT:
        return rt_signal_got_spawn(r, peer, from, ref, c->mfa, c->options, payload);
    case RT_OP_SPAWN_REPLY:
    case RT_OP_SPAWN_REPLY_TT:
        reason = c->reason;
        if (here && (reason.p[0] == RT_TAG_NEW_PID || reason.p[0] == RT_TAG_PID))
            rc = canonical(in, 0, &reason); /* it becomes a relation's other end */
        if (rc < 0 || !here) return rc;
        return rt_signal_got_spawn_reply(r, peer, to, ref, c->id, reason);
    default: /* acknowledgements, group leaders, node links: nothing to do */
        return RT_OK;
    }
}

static int dispatch(rt_inbound *in, rt_peer *peer, const rt_control *c, rt_slice payload)
{
    switch (c->op) {
    case RT_OP_SEND:
    case RT_OP_SEND_TT:
    case RT_OP_SEND_SENDER:
    case RT_OP_SEND_SENDER_TT:
        count(&peer->count.messages_in, 1);
        return to_pid(in, peer, c, payload);
    case RT_OP_REG_SEND:
    case RT_OP_REG_SEND_TT:
        count(&peer->count.messages_in, 1);
        return to_name(in, peer, c->to, payload);
    case RT_OP_ALIAS_SEND:
    case RT_OP_ALIAS_SEND_TT:
        count(&peer->count.messages_in, 1);
        return to_alias(in, peer, c->to, payload);
    case RT_OP_ALTACT_SIG_SEND:
        if (!(c->id & RT_ALTACT_EXIT)) count(&peer->count.messages_in, 1);
        else rt_inbound_flush(in);
        return altact(in, peer, c, payload);
    default:
        return signal(in, peer, c, payload);
    }
}

static rt_scan scan_of(const rt_inbound *in, const rt_atoms *atoms)
{
    rt_scan scan = {.depth_max = in->route->limits.term_depth_max, .atoms = atoms};
    return scan;
}

/* Validates a term and takes its atom references out. *used: its length as it
 * came. Bytes behind a payload are ignored, as Erlang does. */
RT_INLINE int open_term(rt_inbound *in, rt_slice raw, rt_scan *scan, rt_buf *scratch, rt_slice *out,
                        size_t *used)
{
    *used = 0;
    *out = raw;
    /* No node compresses what it distributes; here it could only be an attack. */
    if (raw.n > 0 && raw.p[0] == RT_TAG_COMPRESSED) return RT_EBAD;
    int64_t n = rt_term_scan(raw.p, raw.n, scan);
    if (n < 0) return n == RT_AGAIN ? RT_EBAD : (int)n;
    /* A two-byte cache reference may stand for an atom of a thousand. */
    if (scan->cache_refs && scan->expanded_bytes > in->route->limits.message_bytes_max)
        return RT_ELIMIT;
    *used = (size_t)n;
    *out = rt_slice_of(raw.p, (size_t)n);
    if (scan->cache_refs == 0) return RT_OK;
    scratch->n = 0;
    int rc = rt_term_expand_scanned(scratch, raw.p, (size_t)n, scan);
    if (rc == RT_OK) *out = rt_slice_of(scratch->p, scratch->n);
    return rc;
}

/* A parsed message that is not a pack. Bytes behind its payload are ignored, as Erlang does. */
static int single(rt_inbound *in, rt_peer *peer, const rt_control *c, rt_slice raw,
                  const rt_atoms *atoms)
{
    rt_slice payload = {NULL, 0};
    rt_scan scan = scan_of(in, atoms);
    size_t used;
    int rc = c->payload ? open_term(in, raw, &scan, &in->payload, &payload, &used) : RT_OK;
    return rc < 0 ? rc : dispatch(in, peer, c, payload);
}

static int parse_control(rt_slice control, rt_control *c)
{
    int64_t k = rt_control_parse(control.p, control.n, c);
    return k == RT_AGAIN ? RT_EBAD : k < 0 ? (int)k : RT_OK;
}

/* Control (expanded) and raw payload of one whole message. */
static int message(rt_inbound *in, rt_peer *peer, rt_slice control, rt_slice raw,
                   const rt_atoms *atoms)
{
    rt_control c;
    int rc = parse_control(control, &c);
    if (rc == RT_OK && c.pack) rc = RT_EBAD;
    return rc < 0 ? rc : single(in, peer, &c, raw, atoms);
}

/* What feeding a fragment came to. */
static int fed(rt_inbound *in, rt_peer *peer, int rc, rt_assembled *a)
{
    /* All unfinished messages of a connection together, as each of them alone. */
    if (rc == 0 && rt_fragments_held(peer->assembly) > in->route->limits.message_bytes_max)
        return RT_ELIMIT;
    if (rc <= 0) return rc;
    in->assembled = &a->payload;
    rc = message(in, peer, rt_slice_of(a->control.p, a->control.n), rt_assembled_payload(a),
                 &a->atoms);
    in->assembled = NULL;
    rt_assembled_fini(a);
    return rc;
}

static int fragment(rt_inbound *in, rt_peer *peer, const rt_frame *f)
{
    rt_assembled a;
    int rc = rt_fragments_feed(peer->assembly, f, &a);
    return fed(in, peer, rc, &a);
}

uint8_t *rt_inbound_place(rt_peer *peer, const uint8_t *p, size_t n, size_t whole)
{
    rt_frame f;
    /* What is wrong with it is found when it is whole. One with atoms would be read twice then, and
     * they change the cache. */
    if (n >= whole || !peer->header || !rt_frame_has_no_atoms(rt_slice_of(p, n)) ||
        rt_frame_parse(peer->cache, true, rt_slice_of(p, n), &f) < 0)
        return NULL;
    peer->placed_n = whole;
    return rt_fragments_place(peer->assembly, &f, whole - n);
}

int rt_inbound_placed(rt_inbound *in, rt_peer *peer)
{
    rt_assembled a;
    count(&peer->count.bytes_in, peer->placed_n + 4);
    in->found = rt_found_none(in->route, peer);
    return fed(in, peer, rt_fragments_placed(peer->assembly, &a), &a);
}

static const uint8_t PLAIN_HEAD[3] = {RT_TAG_VERSION, RT_TAG_DIST_HEADER, 0};

/* Whom messages of a pack are for. */
typedef struct target {
    rt_slice head;           /* where nothing is remembered of it, and what it says: read once, */
    rt_control control;      /* however many messages follow */
    rt_pid to;               /* a process, or 0: not known yet, or to be looked up each time */
    bool plain;              /* was there as the pack came: to add to one that dies then is right */
} target;

static void aim(const rt_inbound *in, target *t, rt_pid to)
{
    t->to = to;
    t->plain = !is_multicaster(in, to) && rt_registry_lookup(in->route->registry, to);
}

/* By what its head says; remembers whom that leads to. */
static int deliver_first(rt_inbound *in, rt_peer *peer, target *t, rt_slice payload)
{
    static const rt_atoms none = {0};
    in->found = rt_found_none(in->route, peer);
    in->found.pack = true;
    int rc = dispatch(in, peer, &t->control, payload);
    if (rc < 0 || !in->found.to) return rc;
    rt_repeat_keep(peer, t->head, &none, &in->found);
    aim(in, t, in->found.to);
    return RT_OK;
}

static int deliver_to(rt_inbound *in, rt_peer *peer, target *t, rt_slice payload)
{
    if (!t->to) return deliver_first(in, peer, t, payload);
    count(&peer->count.messages_in, 1);
    return deliver(in, peer, t->to, payload);
}

static void skip(rt_slice *s, size_t n)
{
    s->p += n;
    s->n -= n;
}

static int new_target(rt_inbound *in, rt_peer *peer, rt_slice *left, target *t)
{
    const rt_repeat *r = rt_repeat_find(in->route, peer, left->p, left->n);
    size_t used = 0;
    if (RT_LIKELY(r && r->found.pack)) {
        aim(in, t, r->found.to);
        skip(left, r->n);
        return RT_OK;
    }
    rt_scan scan = scan_of(in, NULL);
    rt_slice control, head = *left;
    if (head.n < sizeof PLAIN_HEAD || memcmp(head.p, PLAIN_HEAD, sizeof PLAIN_HEAD) != 0)
        return RT_EBAD;
    skip(left, sizeof PLAIN_HEAD);
    int rc = open_term(in, *left, &scan, &in->control, &control, &used);
    if (rc < 0) return rc;
    skip(left, used);
    t->head = rt_slice_of(head.p, sizeof PLAIN_HEAD + used);
    t->to = 0;
    t->plain = false;
    rc = parse_control(control, &t->control);
    return rc == RT_OK && !t->control.pack ? RT_EBAD : rc;
}

/* The messages of a pack, which end with it: see RT_OP_PACK. `first`: whom they are for until it
 * says otherwise. */
static int pack(rt_inbound *in, rt_peer *peer, target first, rt_slice left)
{
    target places[RT_PACK_PLACES], *now = &first;
    uint32_t known = 0; /* a bit for each place that has a head */
    rt_scan scan = scan_of(in, NULL);
    rt_slice payload;
    size_t used, least = 0;
    uint64_t came = 0;
    int rc;
    if (in->packet_n > RT_PACK_BYTES_MAX) return RT_EBAD;
    do {
        rc = open_term(in, left, &scan, &in->payload, &payload, &used);
        if (rc == RT_OK && used < least) rc = RT_EBAD;
        if (rc < 0) break;
        if (RT_LIKELY(now->plain)) {
            came++;
            rc = add(in, peer, now->to, payload);
        } else {
            rc = deliver_to(in, peer, now, payload);
        }
        if (rc < 0) break;
        skip(&left, used);
        least = RT_PACK_PAYLOAD_MIN;
        if (left.n == 0 || left.p[0] >= RT_PACK_NEW + RT_PACK_PLACES) continue;
        uint32_t place = left.p[0] % RT_PACK_PLACES;
        bool new = left.p[0] >= RT_PACK_NEW;
        now = &places[place];
        skip(&left, 1);
        if (new) rc = new_target(in, peer, &left, now);
        else if (!(known >> place & 1)) rc = RT_EBAD;
        if (rc == RT_OK && left.n == 0) rc = RT_EBAD;
        known |= 1u << place;
    } while (rc == RT_OK && left.n > 0);
    count(&peer->count.messages_in, came);
    return rc;
}

static int repeat(rt_inbound *in, rt_peer *peer, const rt_repeat *r, rt_slice raw)
{
    rt_scan scan = scan_of(in, &r->atoms);
    rt_slice payload;
    size_t used;
    if (r->found.pack) {
        target first;
        aim(in, &first, r->found.to);
        return pack(in, peer, first, raw);
    }
    int rc = open_term(in, raw, &scan, &in->payload, &payload, &used);
    if (rc < 0) return rc;
    count(&peer->count.messages_in, 1);
    return deliver(in, peer, r->found.to, payload);
}

static int normal(rt_inbound *in, rt_peer *peer, const uint8_t *p, const rt_frame *f)
{
    rt_slice control;
    rt_control c;
    size_t used;
    rt_scan scan = scan_of(in, &f->atoms);
    int rc = open_term(in, f->body, &scan, &in->control, &control, &used);
    if (rc == RT_OK) rc = parse_control(control, &c);
    if (rc < 0) return rc;
    rt_slice head = rt_slice_of(p, (size_t)(f->body.p - p) + used);
    rt_slice raw = rt_slice_of(f->body.p + used, f->body.n - used);
    if (c.pack) {
        /* The flags stand since the connection does. */
        if (f->atoms.count || !(peer->flags & RT_F_PACKS)) return RT_EBAD;
        return pack(in, peer, (target){head, c, 0, false}, raw);
    }
    rc = single(in, peer, &c, raw, &f->atoms);
    if (rc == RT_OK && in->found.to) rt_repeat_keep(peer, head, &f->atoms, &in->found);
    return rc;
}

int rt_inbound_packet(rt_inbound *in, rt_peer *peer, const uint8_t *p, size_t n)
{
    rt_frame f;
    rt_slice control, payload;
    rt_scan scan;
    size_t used;
    if (n == 0) return RT_OK; /* a tick */
    count(&peer->count.bytes_in, n + 4);
    in->packet_n = n;
    const rt_repeat *r = rt_repeat_find(in->route, peer, p, n);
    if (RT_LIKELY(r != NULL)) return repeat(in, peer, r, rt_slice_of(p + r->n, n - r->n));
    in->found = rt_found_none(in->route, peer);
    int rc = rt_frame_parse(peer->cache, peer->header, rt_slice_of(p, n), &f);
    if (rc < 0) return rc;
    switch (f.kind) {
    case RT_FRAME_TICK:
        return RT_OK;
    case RT_FRAME_FRAG_FIRST:
    case RT_FRAME_FRAG_NEXT:
        return fragment(in, peer, &f);
    case RT_FRAME_PASS:
        rc = rt_frame_split_pass(f.body, &control, &payload);
        scan = scan_of(in, NULL);
        if (rc == RT_OK) rc = open_term(in, control, &scan, &in->control, &control, &used);
        if (rc < 0) return rc;
        return message(in, peer, control, payload, NULL);
    case RT_FRAME_NORMAL:
        return normal(in, peer, p, &f);
    }
    return RT_EBAD;
}
