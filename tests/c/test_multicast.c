/* needs: route */
#include "inbound.h"

#include "dist/control.h"
#include "route/multicast.h"
#include "term/ident.h"
#include "term/scan.h"

/* SEND of {multicast, Pids, {Tag, Value}} to the box, without a header's atoms. */
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

/* A node with a peer, a packet, and a cast. */
typedef struct stage {
    node n;
    rt_peer *p;
    rt_buf b;
    cast c;
} stage;

static void begin(stage *t, bool multicasts)
{
    memset(t, 0, sizeof *t);
    node_open(&t->n);
    t->p = peer_up(&t->n, "a@127.0.0.1");
    if (multicasts) rt_route_set_multicaster(&t->n.route, t->n.box->self);
}

static void end(stage *t)
{
    rt_buf_fini(&t->c.pids);
    rt_buf_fini(&t->b);
    node_close(&t->n);
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
    rt_message *m = rt_mailbox_pop(&box->mailbox);
    if (!CHECK(m != NULL)) return;
    CHECK_BYTES(rt_message_data(m), starts, strlen(starts));
    rt_message_free(m);
}

static void test_multicast(void)
{
    stage t;
    rt_process *q, *gone;
    begin(&t, false);
    CHECK_INT(rt_process_new(t.n.route.registry, &q), RT_OK);
    CHECK_INT(rt_process_new(t.n.route.registry, &gone), RT_OK);
    rt_pid dead = gone->self, caster = t.n.box->self;
    end_box(&t.n, gone);
    cast_to(&t.c, NODE, q->self, CREATION);
    cast_to(&t.c, NODE, q->self, CREATION + 1);       /* an older life of this node, */
    cast_to(&t.c, "c@127.0.0.1", q->self, CREATION);  /* another node, */
    cast_to(&t.c, NODE, dead, CREATION);              /* and one that has ended */
    cast_to(&t.c, NODE, q->self, CREATION);           /* twice in the group: twice told */
    cast_to(&t.c, NODE, caster, CREATION);
    put_cast(&t.b, &t.c, caster, 1);
    CHECK_INT(feed(&t.n, t.p, &t.b), RT_OK);              /* nobody is named: a message */
    expect_unread(t.n.box, "h\3w\11multicastl");
    expect_nothing(q);
    rt_route_set_multicaster(&t.n.route, caster);
    for (uint8_t i = 2; i < 5; i++) {               /* the head is remembered from the second on */
        put_cast(&t.b, &t.c, caster, i);
        CHECK_INT(feed(&t.n, t.p, &t.b), RT_OK);
        expect(q, "event", i);
        expect(q, "event", i);
        expect(t.n.box, "event", i);
    }
    CHECK_INT(t.p->count.messages_in, 1 + 3 * 6);
    CHECK_INT(dropped(t.p), 3 * 3);
    put_to(&t.b, caster);
    put_event(&t.b, 7);                               /* what is no multicast is a message */
    CHECK_INT(feed(&t.n, t.p, &t.b), RT_OK);
    expect(t.n.box, "event", 7);
    t.c.count = 0;
    t.c.pids.n = 0;
    put_cast(&t.b, &t.c, caster, 8);                    /* to nobody: a list of none, which no node sends */
    CHECK_INT(feed(&t.n, t.p, &t.b), RT_OK);
    expect_nothing(q);
    cast_to(&t.c, NODE, q->self, CREATION);
    put_to(&t.b, caster);
    put_members(&t.b, &t.c);
    t.b.n--;                                            /* in place of its end: [Pid | 5] */
    CHECK_INT(rt_buf_put(&t.b, "a\5", 2), RT_OK);
    put_event(&t.b, 8);
    CHECK_INT(feed(&t.n, t.p, &t.b), RT_OK);
    expect_unread(t.n.box, "h\3w\11multicastl");
    expect_nothing(q);
    put_cast(&t.b, &t.c, q->self, 9);                   /* to another process */
    CHECK_INT(feed(&t.n, t.p, &t.b), RT_OK);
    expect_unread(q, "h\3w\11multicast");
    end_box(&t.n, q);
    end(&t);
}

/* One multicast in another is given to its members as it is: copies do not make copies. */
static void test_multicast_of_a_multicast(void)
{
    stage t;
    begin(&t, true);
    cast_to(&t.c, NODE, t.n.box->self, CREATION);
    cast_to(&t.c, NODE, t.n.box->self, CREATION);
    put_to(&t.b, t.n.box->self);
    put_members(&t.b, &t.c);
    put_members(&t.b, &t.c);
    put_event(&t.b, 1);
    CHECK_INT(feed(&t.n, t.p, &t.b), RT_OK);
    expect_unread(t.n.box, "h\3w\11multicastl");
    expect_unread(t.n.box, "h\3w\11multicastl");
    expect_nothing(t.n.box);
    end(&t);
}

static void test_multicast_limit(void)
{
    stage t;
    begin(&t, true);
    for (int i = 0; i < 3; i++) cast_to(&t.c, NODE, t.n.box->self, CREATION);
    put_cast(&t.b, &t.c, t.n.box->self, 1);
    t.n.route.limits.multicast_bytes_max = 3 * (11 + RT_MULTICAST_COPY_BYTES);
    CHECK_INT(feed(&t.n, t.p, &t.b), RT_OK);
    for (int i = 0; i < 3; i++) expect(t.n.box, "event", 1);
    t.n.route.limits.multicast_bytes_max--;
    CHECK_INT(feed(&t.n, t.p, &t.b), RT_ELIMIT);
    expect_nothing(t.n.box);
    end(&t);
}

/* Cut or changed anywhere it is a message, an error, or copies of a valid term. */
static void test_multicast_that_is_broken(void)
{
    stage t;
    begin(&t, true);
    cast_to(&t.c, NODE, t.n.box->self, CREATION);
    put_cast(&t.b, &t.c, t.n.box->self, 1);
    size_t whole = t.b.n;
    for (size_t at = 0; at < whole; at++) {
        for (int bit = -1; bit < 8; bit++) {        /* -1: cut there */
            put_cast(&t.b, &t.c, t.n.box->self, 1);
            if (bit < 0) t.b.n = at;
            else t.b.p[at] ^= (uint8_t)(1 << bit);
            if (feed(&t.n, t.p, &t.b) < 0) {
                rt_peer_down(t.p);
                CHECK_INT(rt_peer_up(t.p, RT_FLAGS_OURS, 1, &t.n.route.limits), RT_OK);
            }
            for (rt_message *m; (m = rt_mailbox_pop(&t.n.box->mailbox));) {
                rt_scan scan = {.depth_max = 100};
                CHECK_INT(rt_term_scan(rt_message_data(m), m->n, &scan), m->n);
                rt_message_free(m);
            }
        }
    }
    end(&t);
}

static void test_multicast_without_memory(void)
{
    stage t;
    begin(&t, true);
    rt_process *q;
    CHECK_INT(rt_process_new(t.n.route.registry, &q), RT_OK);
    cast_to(&t.c, NODE, q->self, CREATION);
    cast_to(&t.c, NODE, t.n.box->self, CREATION);
    /* A binary that is too large for the blocks of a stock, which need no memory of their own. */
    static const uint8_t large[RT_STOCK_ROOM_MAX];
    put_to(&t.b, t.n.box->self);
    put_members(&t.b, &t.c);
    CHECK_INT(rt_buf_reserve(&t.b, 5), RT_OK);
    rt_buf_u8(&t.b, RT_TAG_BINARY);
    rt_buf_u32(&t.b, sizeof large);
    CHECK_INT(rt_buf_put(&t.b, large, sizeof large), RT_OK);
    int failed = 0;
    for (long at = 0; at < 10; at++) {
        rt_alloc_fail_after(at);
        int rc = feed(&t.n, t.p, &t.b);
        rt_alloc_fail_after(-1);
        CHECK(rc == RT_OK || rc == RT_ENOMEM);
        failed += rc == RT_ENOMEM;
        rt_message *m = rt_mailbox_pop(&q->mailbox), *k = rt_mailbox_pop(&t.n.box->mailbox);
        if (rc == RT_OK) CHECK(m && k);
        rt_message_free(m);
        rt_message_free(k);
    }
    CHECK(failed >= 2);
    end_box(&t.n, q);
    end(&t);
}

TESTS(test_multicast, test_multicast_of_a_multicast, test_multicast_limit,
      test_multicast_that_is_broken, test_multicast_without_memory)
