/* threads */
#include "base/limits.h"
#include "check.h"
#include "proc/names.h"
#include "stress.h"

static rt_slice name_of(char *buf, size_t cap, const char *kind, uint64_t number) {
    int n = snprintf(buf, cap, "%s%llu", kind, (unsigned long long)number);
    return rt_slice_of(buf, (size_t)n);
}

static rt_slice text(const char *s) { return rt_slice_of(s, strlen(s)); }

static void test_put_find_drop(void) {
    rt_names *n = rt_names_new(3);
    uint32_t a = 0, b = 0, c = 0, d = 0;
    uint8_t out[RT_ATOM_BYTES_MAX];
    CHECK_INT(rt_names_find(n, text("a")), 0);
    CHECK_INT(rt_names_put(n, text("a"), 11, &a), RT_OK);
    CHECK_INT(rt_names_put(n, text("b"), 12, &b), RT_OK);
    CHECK_INT(rt_names_put(n, text("a"), 13, &c), RT_EEXIST);
    CHECK_INT(rt_names_put(n, text("c"), 13, &c), RT_OK);
    CHECK_INT(rt_names_put(n, text("d"), 14, &d), RT_ELIMIT);
    CHECK_INT(d, 0);
    CHECK_INT(rt_names_count(n), 3);
    CHECK(a && b && c && a != b && b != c);
    CHECK_INT(rt_names_find(n, text("a")), 11);
    CHECK_INT(rt_names_find(n, text("b")), 12);
    CHECK_INT(rt_names_find(n, text("d")), 0);
    CHECK_INT(rt_names_index(n, text("b")), b);
    CHECK_INT(rt_names_index(n, text("d")), 0);
    CHECK_INT(rt_names_pid(n, c), 13);
    CHECK_INT(rt_names_read(n, b, 12, out), 1);
    CHECK_INT(out[0], 'b');
    CHECK_INT(rt_names_read(n, b, 13, out), 0);
    rt_names_drop(n, b);
    CHECK_INT(rt_names_find(n, text("b")), 0);
    CHECK_INT(rt_names_read(n, b, 12, out), 0);
    CHECK_INT(rt_names_put(n, text("dd"), 14, &d), RT_OK);
    CHECK_INT(d, b);                  /* the cell is used again */
    CHECK_INT(rt_names_read(n, b, 12, out), 0);
    CHECK_INT(rt_names_read(n, d, 14, out), 2);
    rt_names_free(n);
    rt_names_free(NULL);
}

static void test_lengths(void) {
    rt_names *n = rt_names_new(5000);
    static uint8_t name[RT_ATOM_BYTES_MAX + 1], out[RT_ATOM_BYTES_MAX];
    uint32_t index[RT_ATOM_BYTES_MAX + 1];
    for (size_t i = 0; i < sizeof name; i++) name[i] = (uint8_t)(i * 7);
    CHECK_INT(rt_names_put(n, rt_slice_of(name, 0), 1, index), RT_EINVAL);
    CHECK_INT(rt_names_put(n, rt_slice_of(name, sizeof name), 1, index), RT_EINVAL);
    CHECK_INT(rt_names_find(n, rt_slice_of(name, 0)), 0);
    CHECK_INT(rt_names_find(n, rt_slice_of(name, sizeof name)), 0);
    /* Each is the beginning of the next; some hold and end with zeros. */
    for (int round = 0; round < 3; round++) {
        for (uint32_t i = 1; i <= RT_ATOM_BYTES_MAX; i++) {
            /* A copy of exactly this size, so that reading on is seen. */
            uint8_t *copy = check_copy(name, i);
            CHECK_INT(rt_names_put(n, rt_slice_of(copy, i), i, &index[i]), RT_OK);
            free(copy);
        }
        for (uint32_t i = 1; i <= RT_ATOM_BYTES_MAX; i++) {
            CHECK_INT(rt_names_find(n, rt_slice_of(name, i)), i);
            CHECK_INT(rt_names_read(n, index[i], i, out), i);
            CHECK(memcmp(out, name, i) == 0);
        }
        name[RT_ATOM_BYTES_MAX - 1]++;   /* differs in the last byte only */
        CHECK_INT(rt_names_find(n, rt_slice_of(name, RT_ATOM_BYTES_MAX)), 0);
        name[RT_ATOM_BYTES_MAX - 1]--;
        for (uint32_t i = 1; i <= RT_ATOM_BYTES_MAX; i++) rt_names_drop(n, index[i]);
        CHECK_INT(rt_names_count(n), 0);
    }
    rt_names_free(n);
}

typedef struct seen {
    uint64_t sum, count;
} seen;

static void see(void *arg, rt_slice name, rt_pid pid) {
    seen *s = arg;
    char buf[32];
    CHECK(rt_slice_eq(name, name_of(buf, sizeof buf, "name", pid)));
    s->sum += pid;
    s->count++;
}

static void test_growth(void) {
    enum { N = 20000 };
    rt_names *n = rt_names_new(N);
    static uint32_t index[N + 1];
    char buf[32];
    seen s = {0, 0};
    long found = 0;
    for (uint64_t i = 1; i <= N; i++) {
        CHECK_INT(rt_names_put(n, name_of(buf, sizeof buf, "name", i), i, &index[i]), RT_OK);
        /* While a table is being filled: names come, go and are found. */
        if (i % 3 == 0) {
            rt_names_drop(n, index[i - 1]);
            CHECK_INT(rt_names_find(n, name_of(buf, sizeof buf, "name", i - 1)), 0);
            CHECK_INT(rt_names_find(n, name_of(buf, sizeof buf, "name", i - 2)), i - 2);
        }
    }
    for (uint64_t i = 1; i <= N; i++)
        found += rt_names_find(n, name_of(buf, sizeof buf, "name", i)) == i;
    CHECK_INT(found, N - N / 3);
    CHECK_INT(rt_names_count(n), N - N / 3);
    rt_names_each(n, see, &s);
    CHECK_INT(s.count, N - N / 3);
    for (uint64_t i = 1; i <= N; i++)
        if (i % 3 != 2 || i == N) rt_names_drop(n, index[i]);
    CHECK_INT(rt_names_count(n), 0);
    rt_names_free(n);
}

/* Every allocation fails once; without a table for growth it goes on. */
static void test_no_memory(void) {
    char buf[32];
    for (long k = 0;; k++) {
        rt_names *n;
        rt_alloc_fail_after(k);
        n = rt_names_new(3000);
        if (n) {
            uint32_t index = 0;
            int failed = 0;
            for (uint64_t i = 1; i <= 3000; i++) {
                int rc = rt_names_put(n, name_of(buf, sizeof buf, "name", i), i, &index);
                if (rc == RT_OK) continue;
                CHECK_INT(rc, RT_ENOMEM);
                CHECK_INT(rt_names_find(n, name_of(buf, sizeof buf, "name", i)), 0);
                failed++;
                i--;
            }
            CHECK(failed <= 1);
            for (uint64_t i = 1; i <= 3000; i++)
                CHECK(rt_names_find(n, name_of(buf, sizeof buf, "name", i)) == i);
            rt_names_free(n);
            rt_alloc_fail_after(-1);
            if (k > 20) break;
        } else {
            CHECK(k < 3);                            /* cells, table, and what holds both */
        }
    }
}

/* Stress: names that stay are found by every lookup while others come and go in
 * the same chains and the table grows; a name that is found has its own pid. */
enum { STAY = 64, CHURN = 512 };

typedef struct churn {
    rt_names *n;
    uint32_t stay_index[STAY];
    _Atomic uint32_t index[CHURN];
    uint64_t rounds;
    _Atomic uint32_t stop;
} churn;

static const char *kind_of(uint64_t i) {
    /* Every fourth takes many cells. */
    return i % 4 ? "churn" : "a name that needs more than a single cell of the table, ";
}

static void churn_run(void *arg, unsigned number, stress_random *random) {
    churn *t = arg;
    char buf[128];
    uint32_t grown = 0;
    (void)number;
    for (uint64_t i = 0; i < t->rounds; i++) {
        uint32_t k = stress_below(random, CHURN);
        uint32_t index = t->index[k];
        if (index) {
            t->index[k] = 0;
            rt_names_drop(t->n, index);
        } else {
            CHECK_INT(rt_names_put(t->n, name_of(buf, sizeof buf, kind_of(k), k), 1000 + k,
                                   &index), RT_OK);
            t->index[k] = index;
        }
        if (i % 16 == 0) {            /* and the table grows */
            CHECK_INT(rt_names_put(t->n, name_of(buf, sizeof buf, "g", grown), 1, &index), RT_OK);
            grown++;
        }
    }
    t->stop = 1;
}

static void find_run(void *arg, unsigned number, stress_random *random) {
    churn *t = arg;
    char buf[128];
    uint8_t out[RT_ATOM_BYTES_MAX];
    (void)number;
    while (!t->stop) {
        uint64_t k = stress_below(random, STAY);
        size_t n;
        rt_slice name;
        rt_pid pid = rt_names_find(t->n, name_of(buf, sizeof buf, "stay", k));
        CHECK_INT(pid, 1 + k);
        k = stress_below(random, CHURN);
        name = name_of(buf, sizeof buf, kind_of(k), k);
        pid = rt_names_find(t->n, name);
        CHECK(pid == 0 || pid == 1000 + k);
        n = t->index[k] ? rt_names_read(t->n, t->index[k] ? t->index[k] : 1, 1000 + k, out) : 0;
        if (n) CHECK(rt_slice_eq(name, rt_slice_of(out, n)));
        CHECK_INT(rt_names_find(t->n, name_of(buf, sizeof buf, "nobody", k)), 0);
    }
}

static void test_race(void) {
    static void (*const run[])(void *, unsigned, stress_random *) = {churn_run, find_run};
    static const unsigned count[] = {1, 2};
    stress_watchdog(60);
    for (int round = 0; round < 4; round++) {
        churn t = {.n = rt_names_new(1 << 20), .rounds = 15000 * stress_scale()};
        char buf[32];
        for (uint64_t i = 0; i < STAY; i++)
            CHECK_INT(rt_names_put(t.n, name_of(buf, sizeof buf, "stay", i), 1 + i,
                                   &t.stay_index[i]), RT_OK);
        stress_run(&t, 2, run, count);
        rt_names_free(t.n);
    }
    alarm(0);
}

TESTS(test_put_find_drop, test_lengths, test_growth, test_no_memory, test_race)
