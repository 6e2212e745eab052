/* needs: route
 * What a peer sends to a node with processes, links, monitors and aliases: all
 * of routing but the sockets. Input: the flags both have, which allocation
 * fails, then packets. A packet that closes the connection is followed by a new
 * connection of the same peer.
 *
 * The node is second@127.0.0.1, creation 5. Its processes, by number:
 *   1 `box`, traps exits, linked with process 90 of the peer, watches 91
 *   2 `bounded`, closed when full         3 `paused`, wants a pause when full
 *   4 no name, linked with 1              5 `watched`, which 1 watches
 * References {1} (once) and {2} of the node are aliases of 1, {3} its monitor of
 * 91, {4} an unanswered spawn request, {5} the monitor of 5. */
#include "fuzz.h"

#include "dist/control.h"
#include "dist/frame.h"
#include "route/inbound.h"
#include "route/outbound.h"
#include "route/signal.h"
#include "term/ident.h"
#include "term/scan.h"
#include "term/write.h"

enum { CREATION = 5, PROCESSES = 5, CONNECTIONS_MAX = 8 };

typedef struct node {
    rt_route route; /* first */
    rt_inbound inbound;
    rt_buf atom;
    rt_process *at[PROCESSES + 1];
    rt_peer *peer, *other;
    rt_pid doomed; /* a box that a signal found full, to be closed later */
} node;

static void kick(rt_route *r, rt_peer *p) {
    HOLDS(r && p);
}

static void ended(rt_route *r, const rt_process *p, rt_pid pid) { (void)r, (void)p, (void)pid; }

static void overflow(rt_route *r, rt_peer *p, rt_pid pid, bool close, uint64_t bytes) {
    (void)bytes;
    if (!close) return;
    if (p) rt_signal_terminate(r, pid, TEXT("w\x08overflow"));
    else RT_CONTAINER_OF(r, node, route)->doomed = pid;
}

static rt_slice text_of(const rt_buf *b) { return rt_slice_of(b->p, b->n); }

static void put_pid(rt_buf *b, rt_slice name, uint32_t id) {
    HOLDS(rt_put_pid(b, name, id, 0, CREATION) == RT_OK);
}

static void put_own_ref(rt_buf *b, const rt_route *r, uint32_t word) {
    HOLDS(rt_put_ref(b, r->name, r->creation, &word, 1) == RT_OK);
}

static void add_alias(node *n, uint32_t word, uint32_t flags) {
    rt_buf ref = RT_BUF_INIT;
    put_own_ref(&ref, &n->route, word);
    rt_relation rel = {.kind = RT_REL_ALIAS, .local = n->at[1]->self, .flags = flags,
                       .ref = text_of(&ref)};
    HOLDS(rt_relations_add(n->route.relations, &rel) == RT_OK);
    rt_buf_fini(&ref);
}

/* Process 1 watches a process of the peer (word 3) or of its own node (5), or
 * has asked the peer for a new one (4). */
static void add_monitor(node *n, uint32_t word) {
    rt_buf ref = RT_BUF_INIT, target = RT_BUF_INIT;
    rt_slice nil = TEXT("j");
    int rc;
    put_own_ref(&ref, &n->route, word);
    if (word == 5) put_pid(&target, n->route.name, (uint32_t)n->at[5]->self);
    else put_pid(&target, n->peer->name, 91);
    if (word == 4)
        rc = rt_signal_spawn(&n->route, n->at[1]->self, n->peer, text_of(&ref), TEXT("m"),
                             TEXT("f"), 0, nil, nil);
    else
        rc = rt_signal_monitor(&n->route, n->at[1]->self, word == 5 ? NULL : n->peer,
                               text_of(&target), text_of(&target), text_of(&ref));
    HOLDS(rc == RT_OK);
    rt_buf_fini(&ref);
    rt_buf_fini(&target);
}

static void add_link(node *n, int number, rt_peer *peer, uint32_t id) {
    rt_buf other = RT_BUF_INIT;
    put_pid(&other, peer ? peer->name : n->route.name, id);
    HOLDS(rt_signal_link(&n->route, n->at[number]->self, peer, text_of(&other)) == RT_OK);
    rt_buf_fini(&other);
}

static rt_peer *connected(node *n, rt_slice name, uint64_t flags) {
    rt_peer *p;
    HOLDS(rt_peers_get(n->route.peers, name, &p) == RT_OK);
    HOLDS(rt_peer_up(p, flags, CREATION, &n->route.limits) == RT_OK);
    return p;
}

static void open_node(node *n, uint64_t flags) {
    static const char *const names[] = {NULL, "box", "bounded", "paused", NULL, "watched"};
    memset(n, 0, sizeof *n);
    rt_route *r = &n->route;
    r->limits = rt_limits_default();
    r->limits.message_bytes_max = 1 << 20;
    r->limits.term_depth_max = 64;
    r->limits.fragments_in_flight_max = 3;
    r->limits.peers_max = 4;
    r->name = TEXT("second@127.0.0.1");
    HOLDS(rt_put_atom(&n->atom, r->name) == RT_OK);
    r->atom = text_of(&n->atom);
    r->creation = CREATION;
    r->registry = rt_registry_new(64, 16);
    r->relations = rt_relations_new();
    r->peers = rt_peers_new(&r->limits);
    HOLDS(r->registry && r->relations && r->peers);
    r->relay = true;
    r->kick = kick;
    r->overflow = overflow;
    r->ended = ended;
    rt_inbound_init(&n->inbound, r);
    for (int i = 1; i <= PROCESSES; i++) {
        HOLDS(rt_process_new(r->registry, &n->at[i]) == RT_OK);
        HOLDS((uint32_t)n->at[i]->self == (uint32_t)i);
        if (names[i])
            HOLDS(rt_registry_register(r->registry, rt_slice_of(names[i], strlen(names[i])),
                                       n->at[i]->self) == RT_OK);
    }
    atomic_fetch_or(&n->at[1]->flags, RT_PROCESS_TRAP_EXIT);
    rt_route_set_multicaster(r, n->at[4]->self);
    rt_mailbox_limit(&n->at[2]->mailbox, 2, 0, RT_OVERFLOW_CLOSE);
    rt_mailbox_limit(&n->at[3]->mailbox, 2, 64, RT_OVERFLOW_PAUSE);
    n->peer = connected(n, TEXT("first@127.0.0.1"), flags);
    n->other = connected(n, TEXT("other@127.0.0.1"), RT_FLAGS_OURS);
    add_alias(n, 1, RT_ALIAS_ONCE);
    add_alias(n, 2, 0);
    for (uint32_t word = 3; word <= 5; word++) add_monitor(n, word);
    add_link(n, 1, n->peer, 90);
    add_link(n, 4, NULL, 1);
}

/* What reached a box is one valid term without references into a cache. */
static void empty_boxes(node *n) {
    for (int i = 1; i <= PROCESSES; i++) {
        rt_message *m;
        while ((m = rt_mailbox_pop(&n->at[i]->mailbox))) {
            rt_scan scan = {.depth_max = 100};
            HOLDS(rt_term_scan(rt_message_data(m), m->n, &scan) == (int64_t)m->n);
            rt_message_free(m);
        }
    }
}

/* One packet of ours that a peer would read. */
static void readable(const node *n, const rt_peer *p, rt_slice packet) {
    rt_atom_cache *cache = rt_atom_cache_new();
    rt_frame f;
    rt_control m;
    rt_scan scan = {.depth_max = n->route.limits.term_depth_max + 8};
    rt_slice control, payload;
    HOLDS(cache && rt_frame_parse(cache, p->header, packet, &f) == RT_OK);
    if (f.kind == RT_FRAME_PASS) {
        HOLDS(rt_frame_split_pass(f.body, &control, &payload) == RT_OK);
    } else if (f.kind == RT_FRAME_NORMAL) {
        int64_t k = rt_term_skip(f.body.p, f.body.n);
        HOLDS(k > 0);
        control = rt_slice_of(f.body.p, (size_t)k);
        payload = rt_slice_of(f.body.p + k, f.body.n - (size_t)k);
    } else {
        rt_atom_cache_free(cache);
        return; /* fragments: only what is cut in outbound.c */
    }
    HOLDS(rt_control_parse(control.p, control.n, &m) == (int64_t)control.n);
    HOLDS(m.payload == (payload.n > 0));
    if (m.payload) HOLDS(rt_term_scan(payload.p, payload.n, &scan) == (int64_t)payload.n);
    rt_atom_cache_free(cache);
}

static void read_queue(const node *n, rt_peer *p) {
    rt_outchunk *list = rt_outq_take(&p->out);
    for (rt_outchunk *k = list; k; k = k->next) {
        for (size_t at = 0; at < k->n;) {
            size_t len = rt_load_u32(k->data + at);
            HOLDS(at + 4 + len <= k->n);
            readable(n, p, rt_slice_of(k->data + at + 4, len));
            at += 4 + len;
        }
    }
    rt_outchunk_free(list);
}

static void look(node *n) {
    rt_inbound_flush(&n->inbound);
    rt_alloc_fail_after(-1);
    empty_boxes(n);
    read_queue(n, n->peer);
    read_queue(n, n->other);
}

static void disconnect(node *n, rt_peer *p) {
    rt_peer_down(p);
    rt_signal_peer_down(&n->route, p);
    rt_relation *left = rt_relations_take_peer(n->route.relations, p->number);
    HOLDS(!left);
}

static void close_node(node *n) {
    disconnect(n, n->peer);
    disconnect(n, n->other);
    empty_boxes(n);
    for (int i = 1; i <= PROCESSES; i++) {
        rt_signal_terminate(&n->route, n->at[i]->self, TEXT("w\x06normal"));
        rt_process_release(n->route.registry, n->at[i]);
    }
    HOLDS(rt_relations_count(n->route.relations) == 0);
    rt_inbound_fini(&n->inbound);
    rt_relations_free(n->route.relations);
    rt_peers_free(n->route.peers);
    rt_registry_free(n->route.registry);
    rt_buf_fini(&n->atom);
}

static uint64_t flags_of(uint8_t options) {
    static const uint64_t optional[] = {
        RT_F_DIST_HDR_ATOM_CACHE, RT_F_FRAGMENTS, RT_F_SEND_SENDER, RT_F_EXIT_PAYLOAD,
        RT_F_UNLINK_ID, RT_F_ALIAS, RT_F_SPAWN, RT_F_ALTACT_SIG};
    uint64_t flags = RT_FLAGS_MANDATORY;
    for (unsigned i = 0; i < 8; i++)
        if (options & 1u << i) flags |= optional[i];
    return options & 1 ? flags | RT_F_PACKS : flags;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    rt_cursor c = rt_cursor_of(data, size);
    uint64_t flags = flags_of(take_u8(&c));
    uint8_t failing = take_u8(&c);
    long before = rt_alloc_live();
    int connections = 1;
    rt_slice packet;
    node n;
    open_node(&n, flags);
    fail_some_allocation(failing);
    while (take_piece(&c, &packet)) {
        uint8_t *copy = exact_copy(packet);
        int rc = rt_inbound_packet(&n.inbound, n.peer, copy, packet.n);
        free(copy);
        if (n.doomed) rt_signal_terminate(&n.route, n.doomed, TEXT("w\x08overflow"));
        n.doomed = 0;
        HOLDS(rc == RT_OK || rc == RT_EBAD || rc == RT_ELIMIT || (rc == RT_ENOMEM && failing));
        if (rc == RT_OK) continue;
        look(&n);
        disconnect(&n, n.peer);
        if (connections++ == CONNECTIONS_MAX) break;
        connected(&n, n.peer->name, flags);
    }
    look(&n);
    close_node(&n);
    nothing_left(before);
    return 0;
}
