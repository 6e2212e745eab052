/* threads */
#include "check.h"
#include "proc/relation.h"
#include "stress.h"

static rt_slice text(const char *s) { return rt_slice_of(s, strlen(s)); }

static int add(rt_relations *r, enum rt_relation_kind kind, rt_pid local, uint32_t peer,
               const char *remote, const char *ref) {
    rt_relation rel = {.kind = kind, .local = local, .peer = peer, .remote = text(remote),
                       .ref = text(ref), .flags = 8};
    return rt_relations_add(r, &rel);
}

static void test_links(void) {
    rt_relations *r = rt_relations_new();
    CHECK_INT(add(r, RT_REL_LINK, 1, 5, "x", ""), RT_OK);
    CHECK_INT(add(r, RT_REL_LINK, 1, 5, "x", ""), RT_EEXIST);
    CHECK_INT(add(r, RT_REL_LINK, 2, 5, "x", ""), RT_OK);
    CHECK_INT(add(r, RT_REL_LINK, 1, 5, "y", ""), RT_OK);
    CHECK_INT(rt_relations_count(r), 3);
    CHECK(rt_relations_has_link(r, 1, text("x")) && rt_relations_has_link(r, 2, text("x")));
    CHECK(!rt_relations_has_link(r, 2, text("y")) && !rt_relations_has_link(r, 3, text("x")));
    CHECK_INT(rt_relations_remove_link(r, 2, text("y")), RT_ENOENT);
    CHECK_INT(rt_relations_remove_link(r, 1, text("x")), RT_OK);
    CHECK_INT(rt_relations_remove_link(r, 1, text("x")), RT_ENOENT);
    CHECK(!rt_relations_has_link(r, 1, text("x")) && rt_relations_has_link(r, 2, text("x")));
    CHECK_INT(rt_relations_count(r), 2);
    rt_relations_free(r);
    rt_relations_free(NULL);
}

static void test_refs(void) {
    rt_relations *r = rt_relations_new();
    rt_relation *out = NULL;
    CHECK_INT(add(r, RT_REL_MONITOR_OUT, 1, 5, "x", "r1"), RT_OK);
    CHECK_INT(add(r, RT_REL_MONITOR_OUT, 2, 6, "x", "r1"), RT_EEXIST);
    CHECK_INT(add(r, RT_REL_MONITOR_IN, 2, 5, "x", "r1"), RT_OK);
    CHECK_INT(add(r, RT_REL_ALIAS, 3, 5, "", "r1"), RT_OK);
    CHECK_INT(rt_relations_find_ref(r, RT_REL_MONITOR_OUT, text("r1")), 1);
    CHECK_INT(rt_relations_find_ref(r, RT_REL_MONITOR_IN, text("r1")), 2);
    CHECK_INT(rt_relations_find_ref(r, RT_REL_ALIAS, text("r1")), 3);
    CHECK_INT(rt_relations_find_ref(r, RT_REL_ALIAS, text("r2")), 0);
    CHECK_INT(rt_relations_remove_ref(r, RT_REL_MONITOR_OUT, text("r2"), &out), RT_ENOENT);
    CHECK(out == NULL);
    CHECK_INT(rt_relations_remove_ref(r, RT_REL_MONITOR_OUT, text("r1"), &out), RT_OK);
    if (CHECK(out != NULL)) {
        CHECK(out->next == NULL);
        CHECK_INT(out->local, 1);
        CHECK_INT(out->peer, 5);
        CHECK_INT(out->flags, 8);
        CHECK(rt_slice_eq(out->remote, text("x")) && rt_slice_eq(out->ref, text("r1")));
        rt_relation_free_list(out);
    }
    CHECK_INT(rt_relations_remove_ref(r, RT_REL_ALIAS, text("r1"), NULL), RT_OK);
    CHECK_INT(rt_relations_count(r), 1);
    rt_relations_free(r);
}

static void test_only_its_peer_ends_it(void) {
    rt_relations *r = rt_relations_new();
    rt_relation *out = NULL;
    add(r, RT_REL_LINK, 1, 5, "x", "");
    add(r, RT_REL_MONITOR_OUT, 1, 5, "x", "a");
    add(r, RT_REL_MONITOR_IN, 1, 0, "x", "b");
    CHECK_INT(rt_relations_end_link(r, 6, 1, text("x")), RT_ENOENT);
    CHECK_INT(rt_relations_end_link(r, 0, 1, text("x")), RT_ENOENT);
    CHECK_INT(rt_relations_end_ref(r, 6, RT_REL_MONITOR_OUT, text("a"), &out), RT_ENOENT);
    CHECK_INT(rt_relations_end_ref(r, 5, RT_REL_MONITOR_IN, text("b"), &out), RT_ENOENT);
    CHECK(out == NULL);
    CHECK_INT(rt_relations_count(r), 3);
    CHECK_INT(rt_relations_end_link(r, 5, 1, text("x")), RT_OK);
    CHECK_INT(rt_relations_end_ref(r, 5, RT_REL_MONITOR_OUT, text("a"), NULL), RT_OK);
    CHECK_INT(rt_relations_end_ref(r, 0, RT_REL_MONITOR_IN, text("b"), NULL), RT_OK);
    CHECK_INT(rt_relations_count(r), 0);
    rt_relations_free(r);
}

static int add_alias(rt_relations *r, rt_pid local, const char *ref, uint32_t flags) {
    rt_relation rel = {.kind = RT_REL_ALIAS, .local = local, .ref = text(ref), .flags = flags};
    return rt_relations_add(r, &rel);
}

static void test_reach(void) {
    rt_relations *r = rt_relations_new();
    add_alias(r, 1, "a", 0);
    add_alias(r, 2, "b", RT_ALIAS_ONCE);
    CHECK_INT(rt_relations_reach(r, text("c")), 0);
    CHECK_INT(rt_relations_reach(r, text("a")), 1);
    CHECK_INT(rt_relations_reach(r, text("a")), 1);
    CHECK_INT(rt_relations_reach(r, text("b")), 2);
    CHECK_INT(rt_relations_reach(r, text("b")), 0);
    CHECK_INT(rt_relations_count(r), 1);
    rt_relations_free(r);
}

typedef struct once {
    rt_relations *r;
    _Atomic unsigned reached[1000];
} once;

static void once_run(void *arg, unsigned number, stress_random *random) {
    once *o = arg;
    (void)number, (void)random;
    for (unsigned i = 0; i < 1000; i++) {
        char ref[20];
        snprintf(ref, sizeof ref, "%u", i);
        if (rt_relations_reach(o->r, text(ref)))
            atomic_fetch_add_explicit(&o->reached[i], 1, memory_order_relaxed);
    }
}

/* Of several who reach for such an alias together exactly one gets it. */
static void test_reach_together(void) {
    static void (*const run[])(void *, unsigned, stress_random *) = {once_run};
    static const unsigned count[] = {4};
    once o = {.r = rt_relations_new()};
    char ref[20];
    for (unsigned i = 0; i < 1000; i++) {
        snprintf(ref, sizeof ref, "%u", i);
        add_alias(o.r, 1, ref, RT_ALIAS_ONCE);
    }
    stress_run(&o, 1, run, count);
    for (unsigned i = 0; i < 1000; i++)
        if (!CHECK_INT(atomic_load_explicit(&o.reached[i], memory_order_relaxed), 1)) break;
    CHECK_INT(rt_relations_count(o.r), 0);
    rt_relations_free(o.r);
}

/* The refs or remotes of a list in order, as one string. */
static const char *names(const rt_relation *list, char *buf) {
    size_t n = 0;
    for (; list; list = list->next) {
        rt_slice s = list->ref.n ? list->ref : list->remote;
        memcpy(buf + n, s.p, s.n);
        n += s.n;
        buf[n++] = ' ';
    }
    buf[n] = 0;
    return buf;
}

static void test_take(void) {
    rt_relations *r = rt_relations_new();
    rt_relation *list;
    char buf[200];
    add(r, RT_REL_LINK, 1, 5, "a", "");
    add(r, RT_REL_MONITOR_OUT, 1, 6, "x", "b");
    add(r, RT_REL_LINK, 2, 5, "c", "");
    add(r, RT_REL_ALIAS, 1, 0, "", "d");
    add(r, RT_REL_MONITOR_IN, 2, 5, "x", "e");
    add(r, RT_REL_LINK, 1, 5, "f", "");
    add(r, RT_REL_LINK, 1, 0, "g", "");
    add(r, RT_REL_MONITOR_IN, 1, 5, "x", "h");
    add(r, RT_REL_ALIAS, 1, 5, "", "i");
    rt_relations_remove_ref(r, RT_REL_MONITOR_IN, text("h"), NULL);
    CHECK(rt_relations_take_process(r, 3) == NULL);
    CHECK(rt_relations_take_peer(r, 7) == NULL);
    list = rt_relations_take_peer(r, 5);
    CHECK(strcmp(names(list, buf), "a c e f ") == 0);   /* no alias */
    rt_relation_free_list(list);
    CHECK(rt_relations_take_peer(r, 5) == NULL);
    CHECK(!rt_relations_has_link(r, 1, text("a")));
    CHECK_INT(rt_relations_count(r), 4);
    CHECK_INT(add(r, RT_REL_LINK, 1, 5, "a", ""), RT_OK);
    list = rt_relations_take_process(r, 1);
    CHECK(strcmp(names(list, buf), "b d g i a ") == 0);
    rt_relation_free_list(list);
    CHECK_INT(rt_relations_count(r), 0);
    CHECK(rt_relations_take_peer(r, 5) == NULL && rt_relations_take_peer(r, 6) == NULL);
    rt_relations_free(r);
}

/* What is removed leaves nothing behind but tables of the size they grew to. */
static void test_memory(void) {
    rt_relations *r = rt_relations_new();
    char ref[20];
    long before = rt_alloc_live();
    for (unsigned i = 1; i <= 1000; i++) {
        snprintf(ref, sizeof ref, "%u", i);
        CHECK_INT(add(r, RT_REL_MONITOR_IN, i, i, "x", ref), RT_OK);
        if (i % 3 == 0) rt_relation_free_list(rt_relations_take_process(r, i));
        else if (i % 3 == 1) rt_relation_free_list(rt_relations_take_peer(r, i));
        else CHECK_INT(rt_relations_remove_ref(r, RT_REL_MONITOR_IN, text(ref), NULL), RT_OK);
        if (!CHECK_INT(rt_alloc_live(), before)) break;
    }
    rt_relations_free(r);
}

static void test_limits(void) {
    rt_relations *r = rt_relations_new();
    uint8_t *big = calloc(1, RT_RELATION_BYTES_MAX + 1);
    rt_relation rel = {.kind = RT_REL_ALIAS, .local = 1,
                       .ref = rt_slice_of(big, RT_RELATION_BYTES_MAX + 1)};
    CHECK_INT(rt_relations_add(r, &rel), RT_ELIMIT);
    rel.ref.n--;
    CHECK_INT(rt_relations_add(r, &rel), RT_OK);
    CHECK_INT(rt_relations_find_ref(r, RT_REL_ALIAS, rel.ref), 1);
    free(big);
    rt_relations_free(r);
}

static void test_no_memory(void) {
    for (long k = 0; k < 10; k++) {
        rt_relations *r;
        rt_alloc_fail_after(k);
        r = rt_relations_new();
        if (!CHECK(r != NULL || k < 3)) break;
        if (!r) continue;
        if (add(r, RT_REL_LINK, 1, 5, "a", "") < 0) {
            CHECK_INT(rt_relations_count(r), 0);
            CHECK(!rt_relations_has_link(r, 1, text("a")));
            CHECK(rt_relations_take_peer(r, 5) == NULL && rt_relations_take_process(r, 1) == NULL);
            CHECK_INT(add(r, RT_REL_LINK, 1, 5, "a", ""), RT_OK);
        }
        rt_alloc_fail_after(-1);
        CHECK(rt_relations_has_link(r, 1, text("a")));
        rt_relations_free(r);
    }
}

/* Against a plain list: random adds, removals and takes of many keys. The tables
 * grow without memory too (each growth may fail). */
enum { SLOTS = 4000, PROCESSES = 30, PEERS = 6 };

typedef struct model {
    bool in;
    rt_pid local;
    uint32_t peer;
    uint64_t added;
} model;

static model slots[SLOTS];

static rt_relation of_slot(uint32_t i, char *buf) {
    static const enum rt_relation_kind kind[] = {RT_REL_LINK, RT_REL_MONITOR_OUT,
                                                 RT_REL_MONITOR_IN, RT_REL_ALIAS};
    rt_relation rel = {.kind = kind[i % 4], .flags = i};
    rt_slice s = rt_slice_of(buf, (size_t)snprintf(buf, 20, "%u", i / 4 % 500));
    /* The same bytes for different kinds, and for links of different processes. */
    rel.local = 1 + i / 4 / 500;
    if (i % 4) {
        rel.local = 1 + i % PROCESSES;
        rel.ref = rt_slice_of(buf, (size_t)snprintf(buf, 20, "%u", i / 4));
    } else {
        rel.remote = s;
    }
    rel.peer = i % 7 % PEERS;
    return rel;
}

static int remove_one(rt_relations *r, const rt_relation *rel) {
    if (rel->kind == RT_REL_LINK) return rt_relations_remove_link(r, rel->local, rel->remote);
    return rt_relations_remove_ref(r, rel->kind, rel->ref, NULL);
}

static void check_taken(rt_relation *list, bool by_peer, uint64_t key) {
    uint64_t last = 0;
    uint32_t expect = 0, got = 0;
    for (uint32_t i = 0; i < SLOTS; i++)
        expect += slots[i].in && (by_peer ? slots[i].peer == key && i % 4 != 3
                                          : slots[i].local == key);
    for (rt_relation *rel = list; rel; rel = rel->next) {
        model *m = &slots[rel->flags];
        CHECK(m->in && m->added > last);
        last = m->added;
        m->in = false;
        got++;
    }
    CHECK_INT(got, expect);
    rt_relation_free_list(list);
}

static void test_model(void) {
    rt_relations *r = rt_relations_new();
    stress_random random = {88172645463325252ull};
    uint64_t step, count = 0;
    char buf[20];
    memset(slots, 0, sizeof slots);
    for (step = 1; step <= 60000; step++) {
        uint32_t i = stress_below(&random, SLOTS);
        rt_relation rel = of_slot(i, buf);
        uint32_t dice = stress_below(&random, 2000);
        if (step % 50 == 0) rt_alloc_fail_after(2);
        if (dice == 0) {
            check_taken(rt_relations_take_process(r, rel.local), false, rel.local);
        } else if (dice == 1 && rel.peer) {
            check_taken(rt_relations_take_peer(r, rel.peer), true, rel.peer);
        } else if (dice < 1200) {
            int rc = rt_relations_add(r, &rel);
            CHECK(rc == (slots[i].in ? RT_EEXIST : RT_OK) || (rc == RT_ENOMEM && step % 50 < 3));
            if (rc == RT_OK) slots[i] = (model){true, rel.local, rel.peer, step};
        } else {
            int rc = remove_one(r, &rel);
            CHECK_INT(rc, slots[i].in ? RT_OK : RT_ENOENT);
            slots[i].in = false;
        }
        if (step % 50 == 2) rt_alloc_fail_after(-1);
    }
    for (uint32_t i = 0; i < SLOTS; i++) count += slots[i].in;
    CHECK_INT(rt_relations_count(r), count);
    CHECK(count > 1000);
    rt_relations_free(r);
}

/* Threads: everything added is removed or taken exactly once. */
typedef struct race {
    rt_relations *r;
    uint64_t rounds;
    _Atomic uint64_t added, gone;
} race;

static void race_run(void *arg, unsigned number, stress_random *random) {
    race *t = arg;
    char buf[20];
    (void)number;
    for (uint64_t i = 0; i < t->rounds; i++) {
        rt_relation rel = of_slot(stress_below(random, 200), buf);
        uint64_t gone = 0;
        rt_relation *list = NULL;
        uint32_t dice = stress_below(random, 100);
        if (dice < 55) t->added += rt_relations_add(t->r, &rel) == RT_OK;
        else if (dice < 96) gone = remove_one(t->r, &rel) == RT_OK;
        else if (dice < 98) list = rt_relations_take_process(t->r, rel.local);
        else list = rt_relations_take_peer(t->r, 1 + dice % PEERS);
        for (rt_relation *at = list; at; at = at->next) gone++;
        rt_relation_free_list(list);
        t->gone += gone;
    }
}

static void test_race(void) {
    static void (*const run[])(void *, unsigned, stress_random *) = {race_run};
    static const unsigned count[] = {3};
    race t = {.r = rt_relations_new(), .rounds = 15000 * stress_scale()};
    stress_watchdog(60);
    stress_run(&t, 1, run, count);
    CHECK_INT(t.added - t.gone, rt_relations_count(t.r));
    rt_relations_free(t.r);
    alarm(0);
}

TESTS(test_links, test_refs, test_only_its_peer_ends_it, test_reach, test_reach_together, test_take,
      test_memory, test_limits, test_no_memory, test_model,
      test_race)
