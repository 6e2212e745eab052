/* needs: route */
#include "inbound.h"

#include "stress.h"

/* Atoms of the headers below stand in these slots of the cache. */
enum { SLOT_FROM, SLOT_TO, SLOT_TAG, SLOTS };

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
    CHECK(p->repeats && p->repeats->last);
    CHECK_INT(p->count.messages_in, 5);
    rt_buf_fini(&b);
    node_close(&n);
}

/* Who sends to several has all their heads remembered, as far as their places differ. */
static void test_heads_of_many_processes(void)
{
    enum { BOXES = 14, ROUNDS = 3, MARK = 77 };
    node n;
    rt_buf b = RT_BUF_INIT;
    rt_process *box[BOXES];
    uint32_t held = 0, used = 0;
    node_open(&n);
    rt_peer *p = peer_up(&n, "a@127.0.0.1");
    for (int i = 0; i < BOXES; i++) CHECK_INT(rt_process_new(n.route.registry, &box[i]), RT_OK);
    put_send(&b, NEW, box[0]->self, 0);
    CHECK_INT(feed(&n, p, &b), RT_OK);
    expect(box[0], "event", 0);
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < BOXES; i++) {
            put_send(&b, KNOWN, box[i]->self, (uint8_t)(i + round));
            CHECK_INT(feed(&n, p, &b), RT_OK);
        }
        for (int i = 0; i < BOXES; i++) expect(box[i], "event", (uint8_t)(i + round));
    }
    /* What is parsed anew loses its mark. */
    for (uint32_t i = 0; i < RT_REPEATS; i++) {
        rt_repeat *r = p->repeats->at[i];
        if (!r) continue;
        held++;
        r->found.names = MARK;
        put_send(&b, KNOWN, r->found.to, 1);
        CHECK_INT(feed(&n, p, &b), RT_OK);
        CHECK(p->repeats->last == r);
        used += r->found.names == MARK;
    }
    CHECK(held > RT_REPEATS / 4);
    CHECK_INT(used, held);
    CHECK_INT(p->count.messages_in, 1 + BOXES * ROUNDS + held);
    CHECK_INT(dropped(p), 0);
    for (int i = 0; i < BOXES; i++) end_box(&n, box[i]);
    rt_buf_fini(&b);
    node_close(&n);
}

/* Messages for several in turns take no new memory once their first blocks have come back; and
 * these may come back when the node's inbound is gone. */
static void test_blocks_serve_again(void)
{
    enum { BOXES = 4, ROUNDS = 100 };
    node n;
    rt_buf b = RT_BUF_INIT;
    rt_process *box[BOXES];
    node_open(&n);
    rt_peer *p = peer_up(&n, "a@127.0.0.1");
    for (int i = 0; i < BOXES; i++) CHECK_INT(rt_process_new(n.route.registry, &box[i]), RT_OK);
    for (int round = 0; round < ROUNDS; round++) {
        if (round == 2) rt_alloc_fail_after(0);
        for (int i = 0; i < BOXES; i++) {
            put_send(&b, round == 0 && i == 0 ? NEW : KNOWN, box[i]->self, (uint8_t)round);
            CHECK_INT(feed(&n, p, &b), RT_OK);
        }
        for (int i = 0; i < BOXES; i++) expect(box[i], "event", (uint8_t)round);
    }
    rt_alloc_fail_after(-1);
    CHECK_INT(n.in.stock.slabs, 1);
    put_send(&b, KNOWN, n.box->self, 9);
    CHECK_INT(feed(&n, p, &b), RT_OK);
    rt_message *m = rt_mailbox_pop(&n.box->mailbox);
    for (int i = 0; i < BOXES; i++) end_box(&n, box[i]);
    rt_buf_fini(&b);
    node_close(&n);
    if (CHECK(m != NULL)) CHECK_INT(rt_message_data(m)[m->n - 1], 9);
    rt_message_free(m);
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

/* SEND of {Tag, Value} with a header that writes one slot twice: the tag is what stood there
 * before it was written again. */
static void put_twice(rt_buf *b, const char *tag, rt_pid to, uint8_t value)
{
    static const uint8_t head[5] = {131, 68, 3, 0x88, 0x08};
    const char *const name[3] = {tag, NODE, "bar"};
    static const uint8_t slot[3] = {5, 6, 5};
    b->n = 0;
    CHECK_INT(rt_buf_put(b, head, sizeof head), RT_OK);
    for (int i = 0; i < 3; i++) {
        uint8_t entry[2] = {slot[i], (uint8_t)strlen(name[i])};
        CHECK_INT(rt_buf_put(b, entry, 2), RT_OK);
        CHECK_INT(rt_buf_put(b, name[i], entry[1]), RT_OK);
    }
    CHECK_INT(rt_buf_put(b, "h\3a\2w\0", 6), RT_OK);
    put_pid(b, 1, to, CREATION);
    CHECK_INT(rt_buf_put(b, "h\2R\0a", 5), RT_OK);
    CHECK_INT(rt_buf_put(b, &value, 1), RT_OK);
}

static void test_a_slot_written_twice_in_one_header(void)
{
    static const char tag[] = "the atom that dies";
    node n;
    rt_buf b = RT_BUF_INIT;
    node_open(&n);
    rt_peer *p = peer_up(&n, "a@127.0.0.1");
    put_send(&b, NEW, n.box->self, 0);
    CHECK_INT(feed(&n, p, &b), RT_OK);
    expect(n.box, "event", 0);
    for (uint8_t i = 0; i < 3; i++) {
        put_twice(&b, tag, n.box->self, i);
        CHECK_INT(feed(&n, p, &b), RT_OK);
        expect(n.box, tag, i);
        put_reg_send(&b, KNOWN, 1); /* to nobody: it reads the cache, and is not remembered */
        CHECK_INT(feed(&n, p, &b), RT_OK);
    }
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
    CHECK(p->repeats == NULL);
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
                rt_message *m = rt_mailbox_pop(&n.box->mailbox);
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

/* The memory of a large message is that of the next one, and goes when nobody holds it. */
static void test_large_memory_serves_again(void)
{
    static const size_t sizes[] = {300000, 300000, 299000, 320000, 300000};
    node n;
    rt_buf term = RT_BUF_INIT;
    const rt_message *last = NULL;
    rt_message *m = NULL;
    node_open(&n);
    rt_peer *p = peer_up(&n, "a@127.0.0.1");
    for (uint64_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        put_large(&term, sizes[i], false);
        CHECK_INT(feed_parts(&n, p, &term, 1 << 16, i + 1), RT_OK);
        m = rt_mailbox_pop(&n.box->mailbox);
        if (!CHECK(m != NULL)) return;
        CHECK_INT(m->n, term.n);
        CHECK_BYTES(rt_message_data(m), term.p, term.n);
        if (i == 1 || i == 2) CHECK(m == last);
        last = m;
        if (i + 1 < sizeof sizes / sizeof sizes[0]) rt_message_free(m);
    }
    /* Waiting, it is not given to others. */
    put_large(&term, 300000, false);
    CHECK_INT(feed_parts(&n, p, &term, 1 << 16, 99), RT_OK);
    rt_message *other = rt_mailbox_pop(&n.box->mailbox);
    CHECK(other != NULL && other != m);
    node_close(&n);
    rt_message_free(m);
    rt_message_free(other);
    rt_buf_fini(&term);
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
        rt_message *m = rt_mailbox_pop(&n.box->mailbox);
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
        rt_message *m = rt_mailbox_pop(&n.box->mailbox);
        CHECK(rc == RT_ENOMEM ? m == NULL : rc == RT_OK && m != NULL);
        rt_message_free(m);
        if (rc == RT_OK && p->repeats && p->repeats->last) break; /* nothing failed any more */
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
        /* Of as many pids as there are places to remember, one lives. */
        rt_pid to = mine.box->self + (stress_below(&random, 8) ? 0 : stress_below(&random, 16));
        if (stress_below(&random, 3)) put_send(&b, name, to, value);
        else put_reg_send(&b, name, value);
        if (stress_below(&random, 40) == 0) b.p[stress_below(&random, (uint32_t)b.n)] ^= 1;
        if (stress_below(&random, 50) == 0) {
            bool there = rt_registry_whereis(mine.route.registry, S("box")) != 0;
            for (node *n = &mine; n; n = n == &mine ? &theirs : NULL)
                CHECK_INT(there ? rt_registry_unregister(n->route.registry, S("box"))
                                : rt_registry_register(n->route.registry, S("box"), n->box->self),
                          RT_OK);
        }
        if (q->repeats) q->repeats->last = NULL;
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
            rt_message *m = rt_mailbox_pop(&mine.box->mailbox), *k = rt_mailbox_pop(&theirs.box->mailbox);
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

TESTS(test_a_head_that_repeats_itself, test_heads_of_many_processes, test_blocks_serve_again,
      test_a_slot_that_changes,
      test_a_slot_written_twice_in_one_header, test_a_name_that_moves, test_a_process_that_ends, test_a_connection_that_is_new,
      test_each_peer_has_its_own, test_a_payload_that_is_cut, test_fragments, test_large_memory_serves_again,
      test_fragments_without_memory, test_no_memory, test_memory_makes_no_difference)
