/* The mailbox, with others' steps put at exact places inside a push: the file is
 * compiled here once more, under other names, with its pauses. */
static void pause_here(void);
#define RT_MAILBOX_PAUSE() pause_here()
#define rt_mailbox_open steps_open
#define rt_mailbox_fini steps_fini
#define rt_mailbox_push steps_push
#define rt_mailbox_put steps_put
#define rt_mailbox_pop steps_pop
#define rt_mailbox_any steps_any
#define rt_mailbox_arm steps_arm
#define rt_mailbox_bind steps_bind
#define rt_mailbox_unbind steps_unbind
#define rt_mailbox_limit steps_limit
#define rt_mailbox_close steps_close
#define rt_mailbox_closed steps_closed
#define rt_mailbox_done steps_done
#define rt_mailbox_count steps_count
#define rt_mailbox_counted_bytes steps_counted_bytes
#define rt_mailbox_waiting_bytes steps_waiting_bytes
#define rt_mailbox_dropped steps_dropped
#define rt_mailbox_end steps_end
#define rt_mailbox_drain steps_drain
#include "proc/mailbox.c"

#include "check.h"

/* The n-th pause from now (0: the next) runs the steps; pauses inside do nothing. */
static void (*steps)(void);
static int steps_at;

static void pause_here(void) {
    void (*run)(void) = steps;
    if (!run || steps_at-- > 0) return;
    steps = NULL;
    run();
}

static void at_pause(int n, void (*run)(void)) {
    steps_at = n;
    steps = run;
}

static rt_mailbox mb;
static rt_notifier *n;

static void begin(void) {
    memset(&mb, 0, sizeof mb);
    steps_open(&mb, 0);
    CHECK_INT(rt_notifier_new(&n), RT_OK);
    steps_bind(&mb, n);
}

static void finish(void) {
    CHECK(steps == NULL);
    steps_fini(&mb);
    rt_notifier_rele(n);
}

static int push(uint32_t count, uint32_t bytes) {
    rt_chain c = {0};
    int rc;
    for (uint32_t i = 0; i < count; i++) (void)rt_chain_add(&c, 5, bytes);
    rc = steps_push(&mb, &c, NULL);
    CHECK_INT(c.count, rc == RT_OK ? 0 : count);
    rt_chain_free(&c);
    return rc;
}

static void close_and_sleep(void) {
    steps_close(&mb);
    CHECK(steps_pop(&mb) == NULL);
    CHECK(!steps_done(&mb));          /* something was admitted */
    CHECK(steps_arm(&mb));
}

/* Admitted before a close, pushed after it: accepted, and wakes. */
static void test_closed_between_gate_and_pile(void) {
    begin();
    at_pause(0, close_and_sleep);
    CHECK_INT(push(3, 8), RT_OK);
    CHECK(rt_notifier_next(n) == &mb.ready);
    CHECK(!steps_done(&mb));
    for (int i = 0; i < 3; i++) {
        rt_message *m = steps_pop(&mb);
        CHECK(m != NULL);
        rt_message_free(m);
    }
    CHECK(steps_done(&mb));
    finish();
}

/* The same when nothing fits: what is given back wakes who waits for the end. */
static void test_closed_before_giving_back(void) {
    static const enum rt_overflow overflow[] = {RT_OVERFLOW_DROP, RT_OVERFLOW_CLOSE};
    for (int i = 0; i < 2; i++) {
        begin();
        steps_limit(&mb, 0, 10, overflow[i]);
        at_pause(0, close_and_sleep);
        CHECK_INT(push(3, 20), i ? RT_EFULL : RT_OK);
        CHECK_INT(steps_dropped(&mb), i ? 0 : 3);
        CHECK(rt_notifier_next(n) == &mb.ready);
        CHECK(steps_done(&mb));
        CHECK(!steps_arm(&mb));
        finish();
    }
}

/* The consumer goes to sleep between the pile and the fire: it does not sleep. */
static void try_to_sleep(void) { CHECK(!steps_arm(&mb)); }

static void test_arm_between_pile_and_fire(void) {
    begin();
    at_pause(1, try_to_sleep);
    CHECK_INT(push(1, 8), RT_OK);
    CHECK(rt_notifier_next(n) == NULL);
    finish();
}

/* The slot changes hands between the looks of one push. */
static void reborn(void) {
    uint64_t freed;
    uint32_t generation = (uint32_t)(mb.gate >> 32);
    CHECK(steps_end(&mb, generation));
    CHECK(steps_drain(&mb, &freed));
    CHECK(steps_unbind(&mb));
    steps_open(&mb, generation + 1);
    steps_bind(&mb, n);
}

static void test_reborn_while_admitted(void) {
    begin();
    CHECK_INT(push(4, 8), RT_OK);
    steps_limit(&mb, 5, 0, RT_OVERFLOW_DROP);
    at_pause(0, reborn);              /* after the first look at the gate */
    CHECK_INT(push(1, 8), RT_ENOENT);
    CHECK_INT(steps_count(&mb) + steps_waiting_bytes(&mb) + steps_dropped(&mb), 0);
    finish();
}

/* It was full for the old one; the new one must not count the drop. */
static void test_reborn_before_drop_is_counted(void) {
    begin();
    CHECK_INT(push(5, 8), RT_OK);
    steps_limit(&mb, 5, 0, RT_OVERFLOW_DROP);
    at_pause(2, reborn);
    CHECK_INT(push(1, 8), RT_ENOENT);
    CHECK_INT(steps_dropped(&mb), 0);
    finish();
}

/* Others push and the consumer pops while a push looks how full the box is: it never holds
 * more than one message, so none may be refused for its limit. */
static void others_come_and_go(void) {
    for (int i = 0; i < 5; i++) {
        rt_message *m;
        CHECK_INT(push(1, 8), RT_OK);
        m = steps_pop(&mb);
        CHECK(m != NULL);
        rt_message_free(m);
    }
}

static void test_an_old_level_refuses_nothing(void) {
    static const enum rt_overflow overflow[] = {RT_OVERFLOW_DROP, RT_OVERFLOW_CLOSE};
    for (int i = 0; i < 4; i++) {
        bool by_bytes = i & 1;
        begin();
        steps_limit(&mb, by_bytes ? 0 : 2, by_bytes ? 16 : 0, overflow[i / 2]);
        at_pause(1, others_come_and_go);
        CHECK_INT(push(1, 8), RT_OK);
        CHECK_INT(steps_dropped(&mb), 0);
        CHECK_INT(steps_count(&mb), 1);
        finish();
    }
}

/* A late fire: after the push nothing is the pusher's any more; the new one is
 * woken for nothing. */
static void reborn_and_asleep(void) {
    reborn();
    CHECK(steps_arm(&mb));
}

static void test_reborn_before_fire(void) {
    begin();
    at_pause(1, reborn_and_asleep);
    CHECK_INT(push(1, 8), RT_OK);
    CHECK(rt_notifier_next(n) == &mb.ready);
    CHECK(steps_pop(&mb) == NULL);
    CHECK(steps_arm(&mb));
    finish();
}

TESTS(test_closed_between_gate_and_pile, test_closed_before_giving_back,
      test_arm_between_pile_and_fire, test_reborn_while_admitted,
      test_reborn_before_drop_is_counted, test_an_old_level_refuses_nothing,
      test_reborn_before_fire)
