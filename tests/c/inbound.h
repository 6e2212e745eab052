/* Purpose: what the tests of route/inbound share: a node without sockets that is fed packets, and
 * its box. */
#ifndef RT_TESTS_INBOUND_H
#define RT_TESTS_INBOUND_H

#include "check.h"
#include "dist/flags.h"
#include "route/inbound.h"
#include "term/write.h"

#define UNUSED __attribute__((unused))
#define S(literal) rt_slice_of(literal, sizeof(literal) - 1)
#define CREATION 7u
#define NODE "b@127.0.0.1"

typedef struct node {
    rt_route route;
    rt_inbound in;
    rt_buf atom;
    rt_process *box;
} node;

static inline UNUSED void no_kick(rt_route *r, rt_peer *p) { (void)r, (void)p; }
static inline UNUSED void no_overflow(rt_route *r, rt_peer *p, rt_pid pid, bool close, uint64_t bytes)
{
    (void)r, (void)p, (void)pid, (void)close, (void)bytes;
}
static inline UNUSED void no_end(rt_route *r, const rt_process *p, rt_pid pid) { (void)r, (void)p, (void)pid; }

static inline UNUSED void node_open(node *n)
{
    rt_route *r = &n->route;
    memset(n, 0, sizeof *n);
    r->limits = rt_limits_default();
    r->kick = no_kick;
    r->overflow = no_overflow;
    r->ended = no_end;
    r->creation = CREATION;
    r->name = S(NODE);
    CHECK_INT(rt_put_atom(&n->atom, r->name), RT_OK);
    r->atom = rt_slice_of(n->atom.p, n->atom.n);
    r->registry = rt_registry_new(64, 16);
    r->relations = rt_relations_new();
    r->peers = rt_peers_new(&r->limits);
    rt_inbound_init(&n->in, r);
    CHECK_INT(rt_process_new(r->registry, &n->box), RT_OK);
}

static inline UNUSED void end_box(node *n, rt_process *p)
{
    CHECK_INT(rt_process_exit(n->route.registry, p->self, S("j")), RT_OK);
    rt_process_release(n->route.registry, p);
}

static inline UNUSED rt_peer *peer_up(node *n, const char *name)
{
    rt_peer *p = NULL;
    CHECK_INT(rt_peers_get(n->route.peers, rt_slice_of(name, strlen(name)), &p), RT_OK);
    CHECK_INT(rt_peer_up(p, RT_FLAGS_OURS, 1, &n->route.limits), RT_OK);
    return p;
}

static inline UNUSED void node_close(node *n)
{
    rt_inbound_fini(&n->in);
    end_box(n, n->box);
    rt_peers_free(n->route.peers);
    rt_relations_free(n->route.relations);
    rt_registry_free(n->route.registry);
    rt_buf_fini(&n->atom);
}

static inline UNUSED int feed(node *n, rt_peer *p, const rt_buf *b)
{
    int rc = rt_inbound_packet(&n->in, p, b->p, b->n);
    rt_inbound_flush(&n->in);
    return rc;
}

/* The next message of the box is {tag, value}. */
static inline UNUSED void expect(rt_process *box, const char *tag, uint8_t value)
{
    uint8_t want[64] = {RT_TAG_SMALL_TUPLE, 2, RT_TAG_SMALL_ATOM_UTF8, (uint8_t)strlen(tag)};
    size_t n = 4 + strlen(tag);
    rt_message *m = rt_mailbox_pop(&box->mailbox);
    memcpy(want + 4, tag, strlen(tag));
    want[n++] = RT_TAG_SMALL_INTEGER;
    want[n++] = value;
    if (!CHECK(m != NULL)) return;
    CHECK_INT(m->n, n);
    CHECK_BYTES(rt_message_data(m), want, m->n < n ? m->n : n);
    rt_message_free(m);
}

static inline UNUSED void expect_nothing(rt_process *box) { CHECK(rt_mailbox_pop(&box->mailbox) == NULL); }

static inline UNUSED uint64_t dropped(const rt_peer *p) { return p->count.dropped_in; }

#endif
