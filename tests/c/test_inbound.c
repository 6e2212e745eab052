/* needs: route */
#include "check.h"

#include "dist/control.h"
#include "dist/flags.h"
#include "route/inbound.h"
#include "route/multicast.h"
#include "stress.h"
#include "term/ident.h"
#include "term/scan.h"
#include "term/write.h"

#define S(literal) rt_slice_of(literal, sizeof(literal) - 1)
#define CREATION 7u
#define NODE "b@127.0.0.1"

/* Atoms of the headers below stand in these slots of the cache. */
enum { SLOT_FROM, SLOT_TO, SLOT_TAG, SLOTS };

typedef struct node {
    rt_route route;
    rt_inbound in;
    rt_buf atom;
    rt_process *box;
} node;

static void no_kick(rt_route *r, rt_peer *p) { (void)r, (void)p; }
static void no_overflow(rt_route *r, rt_peer *p, rt_pid pid, bool close, uint64_t bytes)
{
    (void)r, (void)p, (void)pid, (void)close, (void)bytes;
}
static void no_end(rt_route *r, const rt_process *p, rt_pid pid) { (void)r, (void)p, (void)pid; }

static void node_open(node *n)
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
    r->registry = rt_registry_new(16, 16);
    r->relations = rt_relations_new();
    r->peers = rt_peers_new(&r->limits);
    rt_inbound_init(&n->in, r);
    CHECK_INT(rt_process_new(r->registry, &n->box), RT_OK);
}

static void end_box(node *n, rt_process *p)
{
    CHECK_INT(rt_process_exit(n->route.registry, p->self, S("j")), RT_OK);
    rt_process_release(n->route.registry, p);
}

static rt_peer *peer_up(node *n, const char *name)
{
    rt_peer *p = NULL;
    CHECK_INT(rt_peers_get(n->route.peers, rt_slice_of(name, strlen(name)), &p), RT_OK);
    CHECK_INT(rt_peer_up(p, RT_FLAGS_OURS, 1, &n->route.limits), RT_OK);
    return p;
}

static void node_close(node *n)
{
    rt_inbound_fini(&n->in);
    end_box(n, n->box);
    rt_peers_free(n->route.peers);
    rt_relations_free(n->route.relations);
    rt_registry_free(n->route.registry);
    rt_buf_fini(&n->atom);
}

/* A header with three atoms: those that are not NULL are new, the others are known. */
static void put_head(rt_buf *b, const char *const name[SLOTS])
{
    uint8_t head[4] = {131, 68, SLOTS, 0}, last = 0;
    for (int i = 0; i < SLOTS; i++) {
        uint8_t bit = name[i] ? 8 : 0;
        if (i == 2) last = bit;
        else head[3] |= (uint8_t)(bit << (4 * i));
    }
    CHECK_INT(rt_buf_put(b, head, 4), RT_OK);
    CHECK_INT(rt_buf_put(b, &last, 1), RT_OK);
    for (int i = 0; i < SLOTS; i++) {
        uint8_t entry[2] = {(uint8_t)i, (uint8_t)(name[i] ? strlen(name[i]) : 0)};
        CHECK_INT(rt_buf_put(b, entry, name[i] ? 2 : 1), RT_OK);
        if (name[i]) CHECK_INT(rt_buf_put(b, name[i], entry[1]), RT_OK);
    }
}

static void put_pid(rt_buf *b, uint8_t ref, rt_pid pid, uint32_t creation)
{
    CHECK_INT(rt_buf_reserve(b, 15), RT_OK);
    rt_buf_u8(b, RT_TAG_NEW_PID);
    rt_buf_u8(b, RT_TAG_ATOM_CACHE_REF);
    rt_buf_u8(b, ref);
    rt_buf_u32(b, (uint32_t)pid);
    rt_buf_u32(b, (uint32_t)(pid >> 32));
    rt_buf_u32(b, creation);
}

/* SEND_SENDER of {Tag, Value} to a pid of slot SLOT_TO's node. */
static void put_send(rt_buf *b, const char *const name[SLOTS], rt_pid to, uint8_t value)
{
    b->n = 0;
    put_head(b, name);
    CHECK_INT(rt_buf_put(b, "h\3a\x16", 4), RT_OK);
    put_pid(b, SLOT_FROM, 100, 1);
    put_pid(b, SLOT_TO, to, CREATION);
    CHECK_INT(rt_buf_put(b, "h\2R\2a", 5), RT_OK);
    CHECK_INT(rt_buf_put(b, &value, 1), RT_OK);
}

/* REG_SEND of {Tag, Value} to the name in slot SLOT_TO. */
static void put_reg_send(rt_buf *b, const char *const name[SLOTS], uint8_t value)
{
    b->n = 0;
    put_head(b, name);
    CHECK_INT(rt_buf_put(b, "h\4a\6", 4), RT_OK);
    put_pid(b, SLOT_FROM, 100, 1);
    CHECK_INT(rt_buf_put(b, "w\0R\1h\2R\2a", 9), RT_OK);
    CHECK_INT(rt_buf_put(b, &value, 1), RT_OK);
}

static const char *const NEW[SLOTS] = {"a@127.0.0.1", NODE, "event"};
static const char *const KNOWN[SLOTS] = {NULL, NULL, NULL};

static int feed(node *n, rt_peer *p, const rt_buf *b)
{
    int rc = rt_inbound_packet(&n->in, p, b->p, b->n);
    rt_inbound_flush(&n->in);
    return rc;
}

/* The next message of the box is {tag, value}. */
static void expect(rt_process *box, const char *tag, uint8_t value)
{
    uint8_t want[64] = {RT_TAG_SMALL_TUPLE, 2, RT_TAG_SMALL_ATOM_UTF8, (uint8_t)strlen(tag)};
    size_t n = 4 + strlen(tag);
    rt_message *m = rt_process_pop(box);
    memcpy(want + 4, tag, strlen(tag));
    want[n++] = RT_TAG_SMALL_INTEGER;
    want[n++] = value;
    if (!CHECK(m != NULL)) return;
    CHECK_INT(m->n, n);
    CHECK_BYTES(rt_message_data(m), want, m->n < n ? m->n : n);
    rt_message_free(m);
}

static void expect_nothing(rt_process *box) { CHECK(rt_process_pop(box) == NULL); }

static uint64_t dropped(const rt_peer *p) { return p->count.dropped_in; }

static void test_a_head_that_repeats_itself(void)
{
    node n;
    rt_buf b = RT_BUF_INIT;
    node_open(&n);
    rt_peer *p = peer_up(&n, "a@127.0.0.1");
    put_send(&b, NEW, n.box->self, 0);
    CHECK_INT(feed(&n, p, &b), RT_OK);
    expect(n.box, "event", 0);
    for (uint8_t i = 1; i < 5; i++) {
        put_send(&b, KNOWN, n.box->self, i);
        CHECK_INT(feed(&n, p, &b), RT_OK);
        expect(n.box, "event", i);
    }
    CHECK(p->repeat && p->repeat->n > 0);
    CHECK_INT(p->count.messages_in, 5);
    rt_buf_fini(&b);
    node_close(&n);
}

/* The same bytes mean something else once a slot of the cache was written. */
static void test_a_slot_that_changes(void)
{
    node n;
    rt_buf b = RT_BUF_INIT;
    const char *const tag[SLOTS] = {NULL, NULL, "other"};
    const char *const elsewhere[SLOTS] = {NULL, "c@127.0.0.1", NULL};
    node_open(&n);
    rt_peer *p = peer_up(&n, "a@127.0.0.1");
    rt_pid self = n.box->self;
    put_send(&b, NEW, self, 0);
    CHECK_INT(feed(&n, p, &b), RT_OK);
    for (int i = 0; i < 2; i++) {
        put_send(&b, KNOWN, self, 1);
        CHECK_INT(feed(&n, p, &b), RT_OK);
    }
    put_send(&b, tag, self, 2);
    CHECK_INT(feed(&n, p, &b), RT_OK);
    put_send(&b, KNOWN, self, 3);
    CHECK_INT(feed(&n, p, &b), RT_OK);
    CHECK_INT(feed(&n, p, &b), RT_OK);
    expect(n.box, "event", 0);
    expect(n.box, "event", 1);
    expect(n.box, "event", 1);
    expect(n.box, "other", 2);
    expect(n.box, "other", 3);
    expect(n.box, "other", 3);
    put_send(&b, elsewhere, self, 4); /* the pid is now another node's */
    CHECK_INT(feed(&n, p, &b), RT_OK);
    put_send(&b, KNOWN, self, 5);
    CHECK_INT(feed(&n, p, &b), RT_OK);
    expect_nothing(n.box);
    CHECK_INT(dropped(p), 2);
    rt_buf_fini(&b);
    node_close(&n);
}

static void test_a_name_that_moves(void)
{
    node n;
    rt_buf b = RT_BUF_INIT;
    rt_process *other = NULL;
    const char *const named[SLOTS] = {"a@127.0.0.1", "box", "event"};
    node_open(&n);
    rt_registry *r = n.route.registry;
    rt_peer *p = peer_up(&n, "a@127.0.0.1");
    CHECK_INT(rt_process_new(r, &other), RT_OK);
    CHECK_INT(rt_registry_register(r, S("box"), n.box->self), RT_OK);
    put_reg_send(&b, named, 0);
    CHECK_INT(feed(&n, p, &b), RT_OK);
    for (int i = 0; i < 2; i++) {
        put_reg_send(&b, KNOWN, 1);
        CHECK_INT(feed(&n, p, &b), RT_OK);
    }
    expect(n.box, "event", 0);
    expect(n.box, "event", 1);
    expect(n.box, "event", 1);
    CHECK_INT(rt_registry_unregister(r, S("box")), RT_OK);
    CHECK_INT(feed(&n, p, &b), RT_OK);
    CHECK_INT(dropped(p), 1);
    CHECK_INT(rt_registry_register(r, S("box"), other->self), RT_OK);
    CHECK_INT(feed(&n, p, &b), RT_OK);
    expect_nothing(n.box);
    expect(other, "event", 1);
    end_box(&n, other);
    CHECK_INT(feed(&n, p, &b), RT_OK);
    CHECK_INT(dropped(p), 2);
    rt_buf_fini(&b);
    node_close(&n);
}

static void test_a_process_that_ends(void)
{
    node n;
    rt_buf b = RT_BUF_INIT;
    rt_process *box = NULL, *next = NULL;
    node_open(&n);
    rt_peer *p = peer_up(&n, "a@127.0.0.1");
    CHECK_INT(rt_process_new(n.route.registry, &box), RT_OK);
    rt_pid pid = box->self;
    put_send(&b, NEW, pid, 0);
    CHECK_INT(feed(&n, p, &b), RT_OK);
    CHECK_INT(feed(&n, p, &b), RT_OK);
    end_box(&n, box);
    CHECK_INT(rt_process_new(n.route.registry, &next), RT_OK);
    CHECK_INT(feed(&n, p, &b), RT_OK);
    expect_nothing(next);
    CHECK_INT(dropped(p), 1);
    end_box(&n, next);
    rt_buf_fini(&b);
    node_close(&n);
}

/* A new connection begins with an empty cache. */
static void test_a_connection_that_is_new(void)
{
    node n;
    rt_buf b = RT_BUF_INIT;
    node_open(&n);
    rt_peer *p = peer_up(&n, "a@127.0.0.1");
    put_send(&b, NEW, n.box->self, 0);
    CHECK_INT(feed(&n, p, &b), RT_OK);
    put_send(&b, KNOWN, n.box->self, 1);
    CHECK_INT(feed(&n, p, &b), RT_OK);
    rt_peer_down(p);
    CHECK(p->repeat == NULL);
    CHECK_INT(rt_peer_up(p, RT_FLAGS_OURS, 2, &n.route.limits), RT_OK);
    CHECK_INT(feed(&n, p, &b), RT_EBAD);
    rt_buf_fini(&b);
    node_close(&n);
}

static void test_each_peer_has_its_own(void)
{
    node n;
    rt_buf b = RT_BUF_INIT, c = RT_BUF_INIT;
    const char *const others[SLOTS] = {"c@127.0.0.1", NODE, "tag"};
    node_open(&n);
    rt_peer *p = peer_up(&n, "a@127.0.0.1"), *q = peer_up(&n, "c@127.0.0.1");
    put_send(&b, NEW, n.box->self, 0);
    put_send(&c, others, n.box->self, 0);
    CHECK_INT(feed(&n, p, &b), RT_OK);
    CHECK_INT(feed(&n, q, &c), RT_OK);
    expect(n.box, "event", 0);
    expect(n.box, "tag", 0);
    put_send(&b, KNOWN, n.box->self, 1); /* the same bytes from both */
    for (int i = 0; i < 3; i++) {
        CHECK_INT(feed(&n, p, &b), RT_OK);
        CHECK_INT(feed(&n, q, &b), RT_OK);
        expect(n.box, "event", 1);
        expect(n.box, "tag", 1);
    }
    rt_buf_fini(&b);
    rt_buf_fini(&c);
    node_close(&n);
}

/* What follows a head that is known is looked at as closely as ever. */
static void test_a_payload_that_is_cut(void)
{
    node n;
    rt_buf b = RT_BUF_INIT;
    node_open(&n);
    rt_peer *p = peer_up(&n, "a@127.0.0.1");
    put_send(&b, NEW, n.box->self, 0);
    CHECK_INT(feed(&n, p, &b), RT_OK);
    put_send(&b, KNOWN, n.box->self, 1);
    CHECK_INT(feed(&n, p, &b), RT_OK);
    size_t whole = b.n;
    for (size_t cut = 1; cut < whole; cut++) {
        rt_buf part = {b.p, cut, b.cap};
        CHECK_INT(feed(&n, p, &part), RT_EBAD);
    }
    b.p[whole - 4] = 'R'; /* an atom that the header has not */
    b.p[whole - 3] = SLOTS;
    CHECK_INT(feed(&n, p, &b), RT_EBAD);
    rt_buf_fini(&b);
    node_close(&n);
}

/* One fragment: the first with header and control, others with payload alone. */
static void put_fragment(rt_buf *b, rt_pid to, uint64_t seq, uint64_t left, bool first,
                         const uint8_t *p, size_t n)
{
    static const uint8_t head[] = {131, 69}, next[] = {131, 70};
    b->n = 0;
    CHECK_INT(rt_buf_put(b, first ? head : next, 2), RT_OK);
    CHECK_INT(rt_buf_reserve(b, 16), RT_OK);
    rt_buf_u64(b, seq);
    rt_buf_u64(b, left);
    if (first) {
        rt_buf part = RT_BUF_INIT;
        put_send(&part, NEW, to, 0);
        /* Behind `131 68`, up to the payload: the atoms and the control tuple. */
        CHECK_INT(rt_buf_put(b, part.p + 2, part.n - 2 - 6), RT_OK);
        rt_buf_fini(&part);
    }
    CHECK_INT(rt_buf_put(b, p, n), RT_OK);
}

/* A binary, or with `atom` a tuple of the third atom of the header and a binary. */
static void put_large(rt_buf *term, size_t n, bool atom)
{
    term->n = 0;
    if (atom) CHECK_INT(rt_buf_put(term, "h\2R\2", 4), RT_OK);
    CHECK_INT(rt_buf_reserve(term, 5 + n), RT_OK);
    rt_buf_u8(term, RT_TAG_BINARY);
    rt_buf_u32(term, (uint32_t)n);
    for (size_t i = 0; i < n; i++) rt_buf_u8(term, (uint8_t)(i * 7));
}

/* Feeds the term in parts; what the last one gave. */
static int feed_parts(node *n, rt_peer *p, const rt_buf *term, size_t part, uint64_t seq)
{
    rt_buf b = RT_BUF_INIT;
    uint64_t left = (term->n + part - 1) / part;
    int rc = RT_OK;
    for (size_t at = 0; at < term->n && rc == RT_OK; at += part, left--) {
        size_t k = term->n - at < part ? term->n - at : part;
        put_fragment(&b, n->box->self, seq, left, at == 0, term->p + at, k);
        rc = feed(n, p, &b);
    }
    rt_buf_fini(&b);
    return rc;
}

static void test_fragments(void)
{
    static const size_t sizes[] = {0, 1, 100, 1000, 70000, 300001};
    static const size_t parts[] = {1 << 16, 1000, 33};
    node n;
    rt_buf term = RT_BUF_INIT;
    uint64_t seq = 0;
    node_open(&n);
    rt_peer *p = peer_up(&n, "a@127.0.0.1");
    for (int i = 0; i < 6; i++) {
        for (int j = 0; j < 3; j++) {
            for (int atom = 0; atom < 2; atom++) {
                put_large(&term, sizes[i], atom);
                CHECK_INT(feed_parts(&n, p, &term, parts[j], ++seq), RT_OK);
                rt_message *m = rt_process_pop(n.box);
                if (!CHECK(m != NULL)) continue;
                size_t more = atom ? 5 : 0; /* "event" takes the place of the reference */
                CHECK_INT(m->n, term.n + more);
                CHECK_BYTES(rt_message_data(m) + (atom ? 9 : 0), term.p + (atom ? 4 : 0),
                            sizes[i] + 5);
                rt_message_free(m);
            }
        }
    }
    /* To nobody: the memory goes. */
    rt_pid self = n.box->self;
    end_box(&n, n.box);
    put_large(&term, 70000, false);
    n.box = &(rt_process){.self = self};
    CHECK_INT(feed_parts(&n, p, &term, 1 << 16, ++seq), RT_OK);
    CHECK_INT(dropped(p), 1);
    CHECK_INT(rt_process_new(n.route.registry, &n.box), RT_OK);
    rt_buf_fini(&term);
    node_close(&n);
}

static void test_fragments_without_memory(void)
{
    node n;
    rt_buf term = RT_BUF_INIT;
    node_open(&n);
    rt_peer *p = peer_up(&n, "a@127.0.0.1");
    put_large(&term, 3000, false);
    for (long at = 0;; at++) {
        rt_buf b = RT_BUF_INIT;
        rt_alloc_fail_after(-1);
        put_fragment(&b, n.box->self, (uint64_t)at + 1, 2, true, term.p, 2000);
        rt_buf last = RT_BUF_INIT;
        put_fragment(&last, n.box->self, (uint64_t)at + 1, 1, false, term.p + 2000, term.n - 2000);
        rt_alloc_fail_after(at);
        int rc = rt_inbound_packet(&n.in, p, b.p, b.n);
        if (rc == RT_OK) rc = rt_inbound_packet(&n.in, p, last.p, last.n);
        rt_alloc_fail_after(-1);
        rt_inbound_flush(&n.in);
        rt_message *m = rt_process_pop(n.box);
        CHECK(rc == RT_ENOMEM ? m == NULL : rc == RT_OK && m != NULL && m->n == term.n);
        rt_message_free(m);
        rt_buf_fini(&b);
        rt_buf_fini(&last);
        if (rc == RT_OK && at > 20) break;
        if (rc < 0) { /* as a session does */
            rt_peer_down(p);
            CHECK_INT(rt_peer_up(p, RT_FLAGS_OURS, 1, &n.route.limits), RT_OK);
        }
    }
    rt_buf_fini(&term);
    node_close(&n);
}

static void test_no_memory(void)
{
    node n;
    rt_buf b = RT_BUF_INIT;
    node_open(&n);
    rt_peer *p = peer_up(&n, "a@127.0.0.1");
    put_send(&b, NEW, n.box->self, 0);
    for (long at = 0;; at++) {
        rt_alloc_fail_after(at);
        int rc = rt_inbound_packet(&n.in, p, b.p, b.n);
        rt_alloc_fail_after(-1);
        rt_inbound_flush(&n.in);
        rt_message *m = rt_process_pop(n.box);
        CHECK(rc == RT_ENOMEM ? m == NULL : rc == RT_OK && m != NULL);
        rt_message_free(m);
        if (rc == RT_OK && p->repeat && p->repeat->n) break; /* nothing failed any more */
    }
    rt_buf_fini(&b);
    node_close(&n);
}

/* Whatever comes, a node that remembers does what one that forgets does. */
static void test_memory_makes_no_difference(void)
{
    static const char *const words[] = {NULL, NULL, NULL, NULL, "a@127.0.0.1", NODE, "event", "box",
                                        "c@127.0.0.1", "other"};
    stress_random random = {77};
    rt_buf b = RT_BUF_INIT;
    node mine, theirs;
    rt_peer *p, *q;
    uint64_t told = 0, ended = 0;
    node_open(&mine);
    node_open(&theirs);
    p = peer_up(&mine, "a@127.0.0.1");
    q = peer_up(&theirs, "a@127.0.0.1");
    CHECK_INT(mine.box->self, theirs.box->self);
    for (uint32_t round = 0; round < 60000; round++) {
        const char *name[SLOTS];
        for (int i = 0; i < SLOTS; i++)
            name[i] = stress_below(&random, 8) ? NULL : words[stress_below(&random, 10)];
        uint8_t value = (uint8_t)stress_below(&random, 3);
        if (stress_below(&random, 3)) put_send(&b, name, mine.box->self, value);
        else put_reg_send(&b, name, value);
        if (stress_below(&random, 40) == 0) b.p[stress_below(&random, (uint32_t)b.n)] ^= 1;
        if (stress_below(&random, 50) == 0) {
            bool there = rt_registry_whereis(mine.route.registry, S("box")) != 0;
            for (node *n = &mine; n; n = n == &mine ? &theirs : NULL)
                CHECK_INT(there ? rt_registry_unregister(n->route.registry, S("box"))
                                : rt_registry_register(n->route.registry, S("box"), n->box->self),
                          RT_OK);
        }
        if (q->repeat) q->repeat->n = 0;
        int rc = feed(&mine, p, &b);
        CHECK_INT(rc, feed(&theirs, q, &b));
        if (rc < 0) { /* as a session does: the connection ends, and a new one comes */
            ended++;
            rt_peer_down(p);
            rt_peer_down(q);
            CHECK_INT(rt_peer_up(p, RT_FLAGS_OURS, 1, &mine.route.limits), RT_OK);
            CHECK_INT(rt_peer_up(q, RT_FLAGS_OURS, 1, &theirs.route.limits), RT_OK);
            put_send(&b, NEW, mine.box->self, 9);
            CHECK_INT(feed(&mine, p, &b), RT_OK);
            CHECK_INT(feed(&theirs, q, &b), RT_OK);
        }
        for (;;) {
            rt_message *m = rt_process_pop(mine.box), *k = rt_process_pop(theirs.box);
            CHECK(!m == !k);
            if (m && k) {
                CHECK_INT(m->n, k->n);
                CHECK_BYTES(rt_message_data(m), rt_message_data(k), m->n < k->n ? m->n : k->n);
            }
            rt_message_free(m);
            rt_message_free(k);
            if (!m || !k) break;
            told++;
        }
        CHECK_INT(p->count.messages_in, q->count.messages_in);
        CHECK_INT(dropped(p), dropped(q));
    }
    /* All of it happened, and often. */
    CHECK(told > 10000);
    CHECK(ended > 500);
    CHECK(dropped(p) > 1000);
    rt_buf_fini(&b);
    node_close(&mine);
    node_close(&theirs);
}

/* A multicast: SEND of {multicast, Pids, {Tag, Value}} to the box, without a header's atoms. */
typedef struct cast {
    rt_buf pids;
    uint32_t count;
} cast;

static void cast_to(cast *c, const char *node, rt_pid pid, uint32_t creation)
{
    CHECK_INT(rt_put_pid(&c->pids, rt_slice_of(node, strlen(node)), (uint32_t)pid,
                         (uint32_t)(pid >> 32), creation), RT_OK);
    c->count++;
}

static void put_members(rt_buf *b, const cast *c)
{
    CHECK_INT(rt_multicast_put(b, rt_slice_of(c->pids.p, c->pids.n), c->count), RT_OK);
}

static void put_event(rt_buf *b, uint8_t value)
{
    CHECK_INT(rt_buf_put(b, "h\2w\5eventa", 10), RT_OK);
    CHECK_INT(rt_buf_put(b, &value, 1), RT_OK);
}

static void put_to(rt_buf *b, rt_pid to)
{
    rt_buf pid = RT_BUF_INIT;
    b->n = 0;
    CHECK_INT(rt_put_pid(&pid, S(NODE), (uint32_t)to, (uint32_t)(to >> 32), CREATION), RT_OK);
    CHECK_INT(rt_buf_put(b, "\x83\x44\0", 3), RT_OK);
    CHECK_INT(rt_control_send(b, rt_slice_of(pid.p, pid.n)), RT_OK);
    rt_buf_fini(&pid);
}

static void put_cast(rt_buf *b, const cast *c, rt_pid to, uint8_t value)
{
    put_to(b, to);
    put_members(b, c);
    put_event(b, value);
}

static void expect_unread(rt_process *box, const char *starts)
{
    rt_message *m = rt_process_pop(box);
    if (!CHECK(m != NULL)) return;
    CHECK_BYTES(rt_message_data(m), starts, strlen(starts));
    rt_message_free(m);
}

static void test_multicast(void)
{
    node n;
    rt_buf b = RT_BUF_INIT;
    cast c = {0};
    rt_process *q, *gone;
    node_open(&n);
    rt_peer *p = peer_up(&n, "a@127.0.0.1");
    CHECK_INT(rt_process_new(n.route.registry, &q), RT_OK);
    CHECK_INT(rt_process_new(n.route.registry, &gone), RT_OK);
    rt_pid dead = gone->self, caster = n.box->self;
    end_box(&n, gone);
    cast_to(&c, NODE, q->self, CREATION);
    cast_to(&c, NODE, q->self, CREATION + 1);       /* an older life of this node, */
    cast_to(&c, "c@127.0.0.1", q->self, CREATION);  /* another node, */
    cast_to(&c, NODE, dead, CREATION);              /* and one that has ended */
    cast_to(&c, NODE, q->self, CREATION);           /* twice in the group: twice told */
    cast_to(&c, NODE, caster, CREATION);
    put_cast(&b, &c, caster, 1);
    CHECK_INT(feed(&n, p, &b), RT_OK);              /* nobody is named: a message */
    expect_unread(n.box, "h\3w\11multicastl");
    expect_nothing(q);
    rt_route_set_multicaster(&n.route, caster);
    for (uint8_t i = 2; i < 5; i++) {               /* the head is remembered from the second on */
        put_cast(&b, &c, caster, i);
        CHECK_INT(feed(&n, p, &b), RT_OK);
        expect(q, "event", i);
        expect(q, "event", i);
        expect(n.box, "event", i);
    }
    CHECK_INT(p->count.messages_in, 1 + 3 * 6);
    CHECK_INT(dropped(p), 3 * 3);
    put_send(&b, NEW, caster, 7);                   /* what is no multicast is a message */
    CHECK_INT(feed(&n, p, &b), RT_OK);
    expect(n.box, "event", 7);
    c.count = 0;
    c.pids.n = 0;
    put_cast(&b, &c, caster, 8);                    /* to nobody: a list of none, which no node sends */
    CHECK_INT(feed(&n, p, &b), RT_OK);
    expect_nothing(q);
    put_cast(&b, &c, q->self, 9);                   /* to another process */
    CHECK_INT(feed(&n, p, &b), RT_OK);
    expect_unread(q, "h\3w\11multicast");
    end_box(&n, q);
    rt_buf_fini(&c.pids);
    rt_buf_fini(&b);
    node_close(&n);
}

/* One multicast in another is given to its members as it is: copies do not make copies. */
static void test_multicast_of_a_multicast(void)
{
    node n;
    rt_buf b = RT_BUF_INIT;
    cast c = {0};
    node_open(&n);
    rt_peer *p = peer_up(&n, "a@127.0.0.1");
    rt_route_set_multicaster(&n.route, n.box->self);
    cast_to(&c, NODE, n.box->self, CREATION);
    cast_to(&c, NODE, n.box->self, CREATION);
    put_to(&b, n.box->self);
    put_members(&b, &c);
    put_members(&b, &c);
    put_event(&b, 1);
    CHECK_INT(feed(&n, p, &b), RT_OK);
    expect_unread(n.box, "h\3w\11multicastl");
    expect_unread(n.box, "h\3w\11multicastl");
    expect_nothing(n.box);
    rt_buf_fini(&c.pids);
    rt_buf_fini(&b);
    node_close(&n);
}

static void test_multicast_limit(void)
{
    node n;
    rt_buf b = RT_BUF_INIT;
    cast c = {0};
    node_open(&n);
    rt_peer *p = peer_up(&n, "a@127.0.0.1");
    rt_route_set_multicaster(&n.route, n.box->self);
    for (int i = 0; i < 3; i++) cast_to(&c, NODE, n.box->self, CREATION);
    put_cast(&b, &c, n.box->self, 1);
    n.route.limits.multicast_bytes_max = 3 * (11 + RT_MULTICAST_COPY_BYTES);
    CHECK_INT(feed(&n, p, &b), RT_OK);
    for (int i = 0; i < 3; i++) expect(n.box, "event", 1);
    n.route.limits.multicast_bytes_max--;
    CHECK_INT(feed(&n, p, &b), RT_ELIMIT);
    expect_nothing(n.box);
    rt_buf_fini(&c.pids);
    rt_buf_fini(&b);
    node_close(&n);
}

/* Cut or changed anywhere it is a message, an error, or copies of a valid term. */
static void test_multicast_that_is_broken(void)
{
    node n;
    rt_buf b = RT_BUF_INIT;
    cast c = {0};
    node_open(&n);
    rt_peer *p = peer_up(&n, "a@127.0.0.1");
    rt_route_set_multicaster(&n.route, n.box->self);
    cast_to(&c, NODE, n.box->self, CREATION);
    put_cast(&b, &c, n.box->self, 1);
    size_t whole = b.n;
    for (size_t at = 0; at < whole; at++) {
        for (int bit = -1; bit < 8; bit++) {        /* -1: cut there */
            put_cast(&b, &c, n.box->self, 1);
            if (bit < 0) b.n = at;
            else b.p[at] ^= (uint8_t)(1 << bit);
            if (feed(&n, p, &b) < 0) {
                rt_peer_down(p);
                CHECK_INT(rt_peer_up(p, RT_FLAGS_OURS, 1, &n.route.limits), RT_OK);
            }
            for (rt_message *m; (m = rt_process_pop(n.box));) {
                rt_scan scan = {.depth_max = 100};
                CHECK_INT(rt_term_scan(rt_message_data(m), m->n, &scan), m->n);
                rt_message_free(m);
            }
        }
    }
    rt_buf_fini(&c.pids);
    rt_buf_fini(&b);
    node_close(&n);
}

static void test_multicast_without_memory(void)
{
    node n;
    rt_buf b = RT_BUF_INIT;
    cast c = {0};
    node_open(&n);
    rt_peer *p = peer_up(&n, "a@127.0.0.1");
    rt_process *q;
    CHECK_INT(rt_process_new(n.route.registry, &q), RT_OK);
    rt_route_set_multicaster(&n.route, n.box->self);
    cast_to(&c, NODE, q->self, CREATION);
    cast_to(&c, NODE, n.box->self, CREATION);
    put_cast(&b, &c, n.box->self, 1);
    int failed = 0;
    for (long at = 0; at < 10; at++) {
        rt_alloc_fail_after(at);
        int rc = feed(&n, p, &b);
        rt_alloc_fail_after(-1);
        CHECK(rc == RT_OK || rc == RT_ENOMEM);
        failed += rc == RT_ENOMEM;
        rt_message *m = rt_process_pop(q), *k = rt_process_pop(n.box);
        if (rc == RT_OK) CHECK(m && k);
        rt_message_free(m);
        rt_message_free(k);
    }
    CHECK(failed >= 2);
    end_box(&n, q);
    rt_buf_fini(&c.pids);
    rt_buf_fini(&b);
    node_close(&n);
}

TESTS(test_a_head_that_repeats_itself, test_a_slot_that_changes, test_a_name_that_moves,
      test_a_process_that_ends, test_a_connection_that_is_new, test_each_peer_has_its_own,
      test_a_payload_that_is_cut, test_fragments, test_fragments_without_memory, test_no_memory,
      test_memory_makes_no_difference, test_multicast, test_multicast_of_a_multicast,
      test_multicast_limit, test_multicast_that_is_broken, test_multicast_without_memory)
