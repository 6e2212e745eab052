/* The table of names, with a writer's steps put at exact places inside a reader's
 * walk: the file is compiled here once more, under other names, with its pauses. */
#include <stdio.h>

static void pause_here(void);
#define RT_NAMES_PAUSE() pause_here()
#define rt_names_new steps_new
#define rt_names_free steps_free
#define rt_names_find steps_find
#define rt_names_read steps_read
#define rt_names_put steps_put
#define rt_names_drop steps_drop
#define rt_names_index steps_index
#define rt_names_pid steps_pid
#define rt_names_each steps_each
#define rt_names_count steps_count
#define rt_names_changes steps_changes
#include "proc/names.c"

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

static rt_names *n;
static char x[64], y[64], z[64];

static rt_slice text(const char *s) { return rt_slice_of(s, strlen(s)); }

/* A new name whose hash ends in `low` (of the bits in mask), or does not. */
static void pick(char *name, uint64_t mask, uint64_t low, bool is) {
    static unsigned long number;
    do {
        snprintf(name, 64, "n%lu", number++);
    } while (((rt_hash_bytes(name, strlen(name), n->seed) & mask) == low) != is);
}

static uint32_t put(const char *name, rt_pid pid) {
    uint32_t index = 0;
    CHECK_INT(steps_put(n, text(name), pid, &index), RT_OK);
    return index;
}

static void drop(const char *name) { steps_drop(n, steps_index(n, text(name))); }

/* The reader stands on x, in front of y, when x's cell moves to another chain. */
static void move_x(void) {
    uint32_t cell = steps_index(n, text(x));
    drop(x);
    CHECK_INT(put(z, 3), cell);
}

static void test_carried_to_another_chain(void) {
    n = steps_new(100);
    pick(y, 63, 5, true);
    pick(x, 63, 5, true);
    pick(z, 63, 5, false);
    put(y, 2);
    put(x, 1);
    at_pause(0, move_x);
    CHECK_INT(steps_find(n, text(y)), 2);
    CHECK(steps == NULL);
    steps_free(n);
}

/* The same within the chain: everything is walked again from the head. */
static void test_moved_to_the_head(void) {
    n = steps_new(100);
    pick(y, 63, 5, true);
    pick(x, 63, 5, true);
    pick(z, 63, 5, true);
    put(y, 2);
    put(x, 1);
    at_pause(0, move_x);
    CHECK_INT(steps_find(n, text(y)), 2);
    CHECK(steps == NULL);
    steps_free(n);
}

/* The reader stands on a dropped cell: it still leads on. */
static void drop_x(void) { drop(x); }

static void test_on_a_dropped_cell(void) {
    n = steps_new(100);
    pick(y, 63, 5, true);
    pick(x, 63, 5, true);
    put(y, 2);
    put(x, 1);
    at_pause(0, drop_x);
    CHECK_INT(steps_find(n, text(y)), 2);
    CHECK(steps == NULL);
    put(x, 1);
    pick(z, 63, 5, false);
    at_pause(0, move_x);
    CHECK_INT(steps_find(n, text(x)), 0);   /* x itself goes while it is looked up */
    steps_free(n);
}

/* The reader has compared the name when the cell becomes another name's. */
static void test_taken_between_name_and_pid(void) {
    for (int at = 0; at < 2; at++) {
        n = steps_new(100);
        pick(x, 63, 5, true);
        pick(z, 63, 6, true);
        put(x, 1);
        at_pause(at, move_x);
        CHECK_INT(steps_find(n, text(x)), 0);
        CHECK(steps == NULL);
        CHECK_INT(steps_find(n, text(z)), 3);
        steps_free(n);
    }
}

/* The reader stands on x in a table that is replaced twice. The links it follows
 * then belong to the table after the next one, where y is in another chain and
 * x's chain has the same number. */
static void grow_twice(void) {
    static char name[64];
    const table *t = n->current;
    for (rt_pid pid = 10; n->current == t || !n->growing; pid++) {
        pick(name, 63, 5, false);
        put(name, pid);
    }
    while (n->growing) {
        pick(name, 63, 5, false);
        put(name, 1000);
    }
    CHECK_INT(((const table *)n->current)->set, t->set);
    CHECK_INT(((const table *)n->current)->mask, t->mask * 4 + 3);
}

static void test_table_replaced_twice(void) {
    n = steps_new(10000);
    pick(y, 255, 64 + 5, true);
    pick(x, 255, 5, true);
    put(y, 2);
    put(x, 1);
    at_pause(0, grow_twice);
    CHECK_INT(steps_find(n, text(y)), 2);
    CHECK(steps == NULL);
    CHECK_INT(steps_find(n, text(x)), 1);
    steps_free(n);
}

/* A name is read while its process gets another one, in the same cells. */
static const char *const LONG_A = "a name of more than twenty-eight bytes, of two cells";
static const char *const LONG_B = "another, as long as the first one but not the same..";

static void rename_long(void) {
    uint32_t cell = steps_index(n, text(LONG_A));
    drop(LONG_A);
    CHECK_INT(put(LONG_B, 7), cell);
}

static void test_renamed_while_read(void) {
    uint8_t out[RT_ATOM_BYTES_MAX];
    uint32_t cell;
    n = steps_new(10);
    cell = put(LONG_A, 7);
    at_pause(0, rename_long);
    CHECK_INT(steps_read(n, cell, 7, out), 0);
    CHECK(steps == NULL);
    CHECK_INT(steps_read(n, cell, 7, out), strlen(LONG_B));
    CHECK(memcmp(out, LONG_B, strlen(LONG_B)) == 0);
    steps_free(n);
}

/* The reader stands on x while a spike of names comes and goes, and x's page with it. */
static uint32_t x_cell;

static void spike_and_x_go(void) {
    enum { SPIKE = 3 * RT_SLOTS_SEGMENT };
    static uint32_t cell[SPIKE];
    char name[64];
    for (int i = 0; i < SPIKE; i++) {
        snprintf(name, sizeof name, "spike %d", i);
        cell[i] = put(name, 10);
    }
    drop(x);
    for (int i = SPIKE - 1; i >= 0; i--) steps_drop(n, cell[i]);
}

static void test_page_gone_under_a_reader(void) {
    enum { BEFORE = 2 * RT_SLOTS_SEGMENT - 2 };  /* with y two segments, filled */
    char name[64];
    n = steps_new(100000);
    put("first", 1);
    for (int i = 0; i < BEFORE; i++) {
        snprintf(name, sizeof name, "before %d", i);
        put(name, 5);
    }
    /* In one chain whatever the table's size: y stays, in the first segment. */
    pick(y, 0x3fff, 5, true);
    pick(x, 0x3fff, 5, true);
    drop("first");
    CHECK_INT(put(y, 2), 1);
    x_cell = put(x, 1);
    CHECK_INT(x_cell, 2 * RT_SLOTS_SEGMENT);
    at_pause(0, spike_and_x_go);
    CHECK_INT(steps_find(n, text(y)), 2);
    CHECK(steps == NULL);
    CHECK_INT(GET(cell_at(n, x_cell)->next[0]) | GET(cell_at(n, x_cell)->next[1]), 0);
    CHECK_INT(steps_find(n, text(x)), 0);
    steps_free(n);
}

/* A reader that stalls for ever holds nothing back: names come and go in the same memory. */
static void churn(void) {
    for (rt_pid pid = 10; pid < 50000; pid++) {
        put(z, pid);
        drop(z);
    }
}

static void test_stalled_reader(void) {
    n = steps_new(1000);
    pick(x, 63, 5, true);
    pick(z, 63, 5, true);
    put(x, 1);
    at_pause(0, churn);
    CHECK_INT(steps_find(n, text(x)), 1);
    CHECK(steps == NULL);
    CHECK_INT(n->cells.made, 1);
    CHECK_INT(rt_slots_next(&n->cells, 2), 0);   /* two cells did for all of them */
    steps_free(n);
}

TESTS(test_page_gone_under_a_reader, test_stalled_reader, test_carried_to_another_chain, test_moved_to_the_head, test_on_a_dropped_cell,
      test_taken_between_name_and_pid, test_table_replaced_twice, test_renamed_while_read)
