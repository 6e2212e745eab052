/* threads, needs: route */
/* What is gathered for several processes is pushed together: nobody sees a message before those
 * that came before it. */
#include "base/alloc.h"
#include "inbound.h"
#include "stress.h"
#include "term/ident.h"

enum { BOXES = 45 }; /* more than there are shares */
enum { EFFECT = 1 << 30 };

static void add(rt_share *s, uint32_t number)
{
    rt_message *m = rt_chain_add(&s->chain, s->to, sizeof number);
    if (CHECK(m != NULL)) memcpy(rt_message_data(m), &number, sizeof number);
}

/* --- the registry ------------------------------------------------------------ */

typedef struct table {
    rt_registry *r;
    rt_process *even, *odd;
    _Atomic uint32_t seen;    /* numbers up to this have been taken from `even` */
    uint32_t last;
} table;

static void push_run(void *arg, unsigned number, stress_random *random)
{
    table *t = arg;
    (void)number;
    for (uint32_t next = 1; next < t->last;) {
        rt_share s[2] = {{.to = t->odd->self}, {.to = t->even->self}};
        /* The even one is never first, so its box may not show it alone. */
        uint32_t both = 1 + stress_below(random, 2);
        for (uint32_t i = 0; i < 2 * both; i++, next++) add(&s[next % 2 == 0], next);
        if (stress_below(random, 2)) { /* the order of the shares does not matter */
            rt_share first = s[0];
            s[0] = s[1];
            s[1] = first;
        }
        rt_registry_push_together(t->r, s, 2);
        CHECK_INT(s[0].rc, RT_OK);
        CHECK_INT(s[1].rc, RT_OK);
        CHECK(!s[0].chain.first && s[0].bytes == both * sizeof next);
    }
}

/* The number of the next message, which has to be `want`; 0: there is none. */
static uint32_t take(table *t, rt_process *p, uint32_t want)
{
    uint32_t number;
    rt_message *m = rt_process_pop(t->r, p);
    if (!m) return 0;
    memcpy(&number, rt_message_data(m), sizeof number);
    CHECK_INT(number, want);
    rt_message_free(m);
    return number;
}

static void even_run(void *arg, unsigned number, stress_random *random)
{
    table *t = arg;
    (void)number, (void)random;
    for (uint32_t next = 2; next <= t->last;) {
        if (!take(t, t->even, next)) continue;
        atomic_store(&t->seen, next);
        next += 2;
    }
}

/* Told by another thread that an even number has come, finds all odd ones before it. */
static void odd_run(void *arg, unsigned number, stress_random *random)
{
    table *t = arg;
    (void)number, (void)random;
    for (uint32_t next = 1; next < t->last; next += 2) {
        while (atomic_load(&t->seen) < next) continue;
        if (!CHECK_INT(take(t, t->odd, next), next)) return;
    }
}

/* Who has an even number tells the odd box, by a message of its own. */
static void relay_run(void *arg, unsigned number, stress_random *random)
{
    table *t = arg;
    (void)number, (void)random;
    for (uint32_t next = 2; next <= t->last; next += 2) {
        while (!take(t, t->even, next)) continue;
        rt_share effect = {.to = t->odd->self};
        add(&effect, EFFECT + next);
        CHECK_INT(rt_registry_push(t->r, effect.to, &effect.chain, NULL), RT_OK);
    }
}

/* It hears of an even number after all odd ones before it. */
static void effects_run(void *arg, unsigned number, stress_random *random)
{
    table *t = arg;
    uint32_t odd = 1, even = 2, came;
    (void)number, (void)random;
    while (even <= t->last) {
        rt_message *m = rt_process_pop(t->r, t->odd);
        if (!m) continue;
        memcpy(&came, rt_message_data(m), sizeof came);
        rt_message_free(m);
        if (came < EFFECT) {
            CHECK_INT(came, odd);
            odd += 2;
        } else {
            CHECK_INT(came - EFFECT, even);
            CHECK(odd > even - 1);
            even += 2;
        }
    }
}

/* One thread takes from both. */
static void both_run(void *arg, unsigned number, stress_random *random)
{
    table *t = arg;
    (void)number, (void)random;
    for (uint32_t next = 1; next < t->last; next += 2) {
        while (!take(t, t->even, next + 1)) continue;
        if (!CHECK_INT(take(t, t->odd, next), next)) return;
    }
}

static void open_table(table *t, uint32_t rounds)
{
    *t = (table){.r = rt_registry_new(4, 4), .last = 4 * rounds * (uint32_t)stress_scale()};
    CHECK_INT(rt_process_new(t->r, &t->even), RT_OK);
    CHECK_INT(rt_process_new(t->r, &t->odd), RT_OK);
}

static void test_nobody_sees_a_part(void)
{
    static void (*const run[][3])(void *, unsigned, stress_random *) = {
        {push_run, both_run}, {push_run, even_run, odd_run}, {push_run, relay_run, effects_run}};
    static const unsigned count[] = {1, 1, 1};
    for (size_t way = 0; way < 3; way++) {
        table t;
        open_table(&t, 150000);
        stress_watchdog(100);
        stress_run(&t, run[way][2] ? 3 : 2, run[way], count);
        alarm(0);
        rt_registry_free(t.r);
    }
}

/* Each share has an answer of its own, and who is refused keeps his chain. */
static void test_answers(void)
{
    table t;
    rt_process *full, *held;
    open_table(&t, 1);
    rt_share s[5] = {{.to = t.even->self}, {.to = 99}, {.rc = 1}, {.rc = 1}, {.to = t.odd->self}};
    CHECK_INT(rt_process_new(t.r, &full), RT_OK);
    CHECK_INT(rt_process_new(t.r, &held), RT_OK);
    rt_mailbox_limit(&full->mailbox, 1, 0, RT_OVERFLOW_CLOSE);
    rt_mailbox_limit(&held->mailbox, 1, 0, RT_OVERFLOW_PAUSE);
    s[2].to = full->self;
    s[3].to = held->self;
    for (uint32_t i = 0; i < 10; i++) add(&s[i % 5], i);
    rt_registry_push_together(t.r, s, 5);
    static const int rc[5] = {RT_OK, RT_ENOENT, RT_EFULL, RT_OK, RT_OK};
    for (int i = 0; i < 5; i++) {
        CHECK_INT(s[i].rc, rc[i]);
        CHECK_INT(s[i].over, i == 3);
        CHECK_INT(s[i].bytes, 2 * sizeof(uint32_t));
        CHECK_INT(s[i].chain.count, rc[i] == RT_OK ? 0 : 2);
        rt_chain_free(&s[i].chain);
    }
    CHECK(take(&t, t.even, 0) == 0 && take(&t, t.even, 5) == 5);
    CHECK(take(&t, held, 3) == 3 && take(&t, held, 8) == 8);
    CHECK(take(&t, t.odd, 4) == 4 && take(&t, t.odd, 9) == 9);
    rt_registry_push_together(t.r, s, 0);
    rt_registry_free(t.r);
}

/* A consumer that sleeps is woken, for each of them. */
static void test_wakes(void)
{
    table t;
    rt_notifier *n = NULL;
    open_table(&t, 1);
    CHECK_INT(rt_notifier_new(&n), RT_OK);
    rt_share s[2] = {{.to = t.odd->self}, {.to = t.even->self}};
    rt_process *box[2] = {t.odd, t.even};
    for (int i = 0; i < 2; i++) {
        rt_mailbox_bind(&box[i]->mailbox, n);
        CHECK(rt_mailbox_arm(&box[i]->mailbox));
        add(&s[i], 1);
    }
    rt_registry_push_together(t.r, s, 2);
    int woken = 0;
    for (rt_ready *ready; (ready = rt_notifier_next(n)); woken++)
        CHECK(RT_MAILBOX_OF_READY(ready) == &box[0]->mailbox ||
              RT_MAILBOX_OF_READY(ready) == &box[1]->mailbox);
    CHECK_INT(woken, 2);
    rt_registry_free(t.r);
    rt_notifier_rele(n);
}

/* --- what a read brings ------------------------------------------------------- */

typedef struct crowd {
    node n;
    rt_peer *p;
    rt_buf packet;
    rt_process *all[3 * 2 * RT_INBOUND_SHARES];
    rt_process *box[BOXES];  /* every three of them have one place in the table */
    uint8_t sent[BOXES], got[BOXES];
} crowd;

static void open_crowd(crowd *c)
{
    memset(c, 0, sizeof *c);
    node_open(&c->n);
    end_box(&c->n, c->n.box);
    rt_registry_free(c->n.route.registry);
    c->n.route.registry = rt_registry_new(256, 16);
    CHECK_INT(rt_process_new(c->n.route.registry, &c->n.box), RT_OK);
    c->p = peer_up(&c->n, "a@127.0.0.1");
    for (size_t i = 0; i < sizeof c->all / sizeof *c->all; i++)
        CHECK_INT(rt_process_new(c->n.route.registry, &c->all[i]), RT_OK);
    for (int i = 0; i < BOXES; i++) c->box[i] = c->all[i % 3 * 2 * (int)RT_INBOUND_SHARES + i / 3];
}

static void close_crowd(crowd *c)
{
    for (size_t i = 0; i < sizeof c->all / sizeof *c->all; i++)
        if (rt_process_alive(c->all[i])) end_box(&c->n, c->all[i]);
    rt_buf_fini(&c->packet);
    node_close(&c->n);
}

/* One more message for that box, as a packet of its own, not pushed yet. */
static int send_to(crowd *c, uint32_t i)
{
    rt_buf *b = &c->packet;
    rt_pid to = c->box[i]->self;
    b->n = 0;
    int rc = rt_buf_put(b, "\203D\0h\3a\2w\0", 9);
    if (rc == RT_OK) rc = rt_put_pid(b, S(NODE), (uint32_t)to, (uint32_t)(to >> 32), CREATION);
    if (rc == RT_OK) rc = rt_buf_put(b, "h\2w\5eventa", 10);
    if (rc == RT_OK) rc = rt_buf_put(b, &c->sent[i], 1);
    CHECK_INT(rc, RT_OK);
    rc = rt_inbound_packet(&c->n.in, c->p, b->p, b->n);
    if (rc == RT_OK) c->sent[i]++;
    return rc;
}

static void expect_all(crowd *c)
{
    for (int i = 0; i < BOXES; i++) {
        while (c->box[i] && c->got[i] != c->sent[i]) expect(c->box[i], "event", c->got[i]++);
        if (c->box[i]) expect_nothing(c->box[i]);
    }
}

static void test_each_box_keeps_its_order(void)
{
    crowd c;
    stress_random random = {7};
    open_crowd(&c);
    uint32_t most = 0;
    for (int read = 0; read < 400; read++) {
        uint32_t boxes = 1 + stress_below(&random, BOXES);
        for (uint32_t k = stress_below(&random, 300); k > 0; k--) {
            CHECK_INT(send_to(&c, stress_below(&random, boxes)), RT_OK);
            if (c.n.in.shares > most) most = c.n.in.shares;
        }
        rt_inbound_flush(&c.n.in);
        CHECK_INT(c.n.in.shares, 0);
        expect_all(&c);
    }
    CHECK_INT(most, RT_INBOUND_SHARES);
    CHECK_INT(dropped(c.p), 0);
    close_crowd(&c);
}

/* Those of one box are one push, however many others have their turns between. */
static void test_turns_are_gathered(void)
{
    crowd c;
    open_crowd(&c);
    for (uint32_t k = 0; k < 80; k++) CHECK_INT(send_to(&c, k % 4), RT_OK);
    CHECK_INT(c.n.in.shares, 4);
    for (int i = 0; i < 4; i++) CHECK_INT(c.n.in.share[i].chain.count, 20);
    for (int i = 0; i < 4; i++) CHECK_INT(rt_mailbox_count(&c.box[i]->mailbox), 0);
    rt_inbound_flush(&c.n.in);
    expect_all(&c);
    close_crowd(&c);
}

/* What was gathered for a process that died meanwhile is counted, and nobody else's is lost. */
static void test_a_process_that_dies_meanwhile(void)
{
    crowd c;
    open_crowd(&c);
    for (uint32_t k = 0; k < 30; k++) CHECK_INT(send_to(&c, k % 3), RT_OK);
    end_box(&c.n, c.box[1]);
    c.box[1] = NULL;
    rt_inbound_flush(&c.n.in);
    CHECK_INT(dropped(c.p), 10);
    expect_all(&c);
    close_crowd(&c);
}

/* One share for a process, however the pids of others collide with its own: a box that refuses some
 * of what a read brought takes none of what came later. */
static void test_a_full_box_takes_nothing_later(void)
{
    crowd c;
    open_crowd(&c);
    for (int i = 0; i < BOXES; i++) rt_mailbox_limit(&c.box[i]->mailbox, 5, 0, RT_OVERFLOW_CLOSE);
    for (uint32_t i = 0; i < RT_INBOUND_SHARES; i++)
        for (int k = 0; k < 6; k++) CHECK_INT(send_to(&c, i), RT_OK);
    for (uint32_t i = 0; i < RT_INBOUND_SHARES; i++) CHECK_INT(send_to(&c, i), RT_OK);
    CHECK_INT(c.n.in.shares, RT_INBOUND_SHARES);
    rt_inbound_flush(&c.n.in);
    CHECK_INT(dropped(c.p), 7 * RT_INBOUND_SHARES);
    for (int i = 0; i < BOXES; i++) expect_nothing(c.box[i]);
    close_crowd(&c);
}

/* --- what is told of full boxes may bring more --------------------------------- */

static crowd *bringing;
static int told;

static void bring(rt_route *r, rt_peer *p, rt_pid pid, bool close, uint64_t bytes)
{
    crowd *c = bringing;
    (void)r;
    CHECK(p == c->p && !close && bytes == 8 * 11);
    CHECK(pid == c->box[told]->self);
    if (told++ == 0) CHECK_INT(send_to(c, 9), RT_OK);
    else rt_inbound_flush(&c->n.in);
}

static void test_overflow_may_bring_more(void)
{
    crowd c;
    open_crowd(&c);
    bringing = &c;
    told = 0;
    c.n.route.overflow = bring;
    for (int i = 0; i < 2; i++) rt_mailbox_limit(&c.box[i]->mailbox, 5, 0, RT_OVERFLOW_PAUSE);
    for (uint32_t k = 0; k < 16; k++) CHECK_INT(send_to(&c, k % 2), RT_OK);
    rt_inbound_flush(&c.n.in);
    CHECK_INT(told, 2);
    CHECK_INT(c.n.in.shares, 0);
    expect_all(&c);
    close_crowd(&c);
}

/* All that is gathered has one limit. */
static void test_gathers_so_much(void)
{
    enum { BYTES = 3000, LEAST = 2 * 256 * 1024 / BYTES };
    static const uint8_t payload[BYTES];
    crowd c;
    open_crowd(&c);
    for (int i = 0; i < LEAST; i++) {
        rt_buf *b = &c.packet;
        rt_pid to = c.box[i % 8]->self;
        b->n = 0;
        CHECK_INT(rt_buf_put(b, "\203D\0h\3a\2w\0", 9), RT_OK);
        CHECK_INT(rt_put_pid(b, S(NODE), (uint32_t)to, (uint32_t)(to >> 32), CREATION), RT_OK);
        CHECK_INT(rt_put_binary(b, rt_slice_of(payload, BYTES)), RT_OK);
        CHECK_INT(rt_inbound_packet(&c.n.in, c.p, b->p, b->n), RT_OK);
        CHECK(c.n.in.bytes < 256 * 1024 + BYTES + 100);
    }
    int waiting = 0;
    for (int i = 0; i < BOXES; i++) waiting += rt_mailbox_count(&c.box[i]->mailbox) > 0;
    CHECK(waiting > 0);
    rt_inbound_flush(&c.n.in);
    close_crowd(&c);
}

/* Without memory for one message those before it arrive. */
static void test_no_memory(void)
{
    crowd c;
    open_crowd(&c);
    int failed = 0;
    for (long at = 0; at < 12; at++) {
        CHECK_INT(send_to(&c, 0), RT_OK); /* what its head needs is there */
        rt_alloc_fail_after(at);
        for (uint32_t k = 0; k < 400; k++) failed += send_to(&c, k % 7) == RT_ENOMEM;
        rt_alloc_fail_after(-1);
        rt_inbound_flush(&c.n.in);
        expect_all(&c);
    }
    CHECK(failed > 0);
    close_crowd(&c);
}

TESTS(test_nobody_sees_a_part, test_answers, test_wakes, test_each_box_keeps_its_order,
      test_turns_are_gathered, test_a_process_that_dies_meanwhile,
      test_a_full_box_takes_nothing_later, test_overflow_may_bring_more, test_gathers_so_much,
      test_no_memory)
