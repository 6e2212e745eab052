/* threads */
/* Is the registry linearizable? Threads register, unregister, look up and end processes at once;
 * each operation is recorded with the times of its call and its answer. A history is right when
 * there is an order of its operations that agrees with those times and in which a plain table
 * gives the same answers (Herlihy and Wing 1990). Histories are split by name, for names do not
 * know of each other, and cut where all threads have paused. */
#include <sched.h>
#include <string.h>
#include <time.h>

#include "check.h"
#include "proc/registry.h"
#include "stress.h"

enum { THREADS = 3, NAMES = 2, PIDS = 4, OPS = 8, HISTORY_MAX = 2 * THREADS * OPS + 1 };

/* An exit that wins is two steps, the end of the name and the end of the life (R4), with
 * nothing between them but what readers see. */
enum kind { REGISTER, UNREGISTER, WHEREIS, EXIT, DIE, LOOKUP };

typedef struct op {
    uint64_t called, answered;
    enum kind kind;
    uint32_t pid;               /* 1 .. PIDS: which of the name's processes; 0: none */
    uint32_t result;            /* whereis: a pid's number; else 0 or 1: it did, it is alive */
} op;

/* What a plain table knows of one name: whose it is, and who has died. */
typedef struct table {
    uint32_t owner, dead;
    uint32_t exiting;           /* whose name has gone and whose life has not; 0: nobody */
} table;

/* Whether the table answers as recorded; then it is what it is afterwards. */
static bool apply(table *t, const op *o) {
    uint32_t bit = 1u << o->pid;
    switch (o->kind) {
    case WHEREIS:
        return o->result == t->owner;
    case LOOKUP:
        return o->result == !(t->dead & bit);
    case DIE:
        if (t->exiting != o->pid) return false;
        t->exiting = 0;
        t->dead |= bit;
        return true;
    case EXIT:
        if (!o->result) return (t->dead & bit) != 0;
        if (t->exiting || t->dead & bit) return false;
        t->exiting = o->pid;
        if (t->owner == o->pid) t->owner = 0;
        return true;
    case REGISTER:
        if (t->exiting || o->result != (!t->owner && !(t->dead & bit))) return false;
        if (o->result) t->owner = o->pid;
        return true;
    default:
        if (t->exiting || o->result != (t->owner != 0)) return false;
        t->owner = 0;
        return true;
    }
}

/* The states of the search that led nowhere: which operations were done, and the table. */
typedef struct memory {
    struct { uint64_t done, table; } seen[1 << 12];
    uint32_t count;
} memory;

static bool is_new(memory *m, uint64_t done, const table *t) {
    uint64_t state = t->exiting << 24 | t->owner << 16 | t->dead << 8 | 1;
    uint32_t at = (uint32_t)(((done ^ state << 40) * 0x9e3779b97f4a7c15ull) >> 52);
    while (m->seen[at].table) {
        if (m->seen[at].table == state && m->seen[at].done == done) return false;
        at = (at + 1) & 4095;
    }
    if (m->count < 4000) {      /* full: only slower */
        m->seen[at].done = done;
        m->seen[at].table = state;
        m->count++;
    }
    return true;
}

/* Wing and Gong's search: whoever was called before the first answer may be next. */
static bool linearizable(const op *ops, uint32_t n, uint64_t done, table t, memory *m) {
    uint64_t first = UINT64_MAX;
    if (done == (1ull << n) - 1) return true;
    if (!is_new(m, done, &t)) return false;
    for (uint32_t i = 0; i < n; i++)
        if (!(done >> i & 1) && ops[i].answered < first) first = ops[i].answered;
    for (uint32_t i = 0; i < n; i++) {
        table after = t;
        if (done >> i & 1 || ops[i].called > first) continue;
        if (apply(&after, &ops[i]) && linearizable(ops, n, done | 1ull << i, after, m)) return true;
    }
    return false;
}

static bool is_linearizable(const op *ops, uint32_t n) {
    static memory m;
    op all[HISTORY_MAX];
    uint32_t k = 0;
    for (uint32_t i = 0; i < n; i++) {
        all[k++] = ops[i];
        if (ops[i].kind != EXIT || !ops[i].result) continue;
        all[k] = ops[i];
        all[k++].kind = DIE;
    }
    memset(&m, 0, sizeof m);
    return linearizable(all, k, 0, (table){0}, &m);
}

static op at(uint64_t called, uint64_t answered, enum kind kind, uint32_t pid, uint32_t result) {
    return (op){.called = called, .answered = answered, .kind = kind, .pid = pid, .result = result};
}

/* The checker itself: what it must take and what it must refuse. */
static void test_checker(void) {
    op late[] = {at(1, 2, REGISTER, 1, 1), at(3, 6, UNREGISTER, 0, 1), at(4, 5, WHEREIS, 0, 1)};
    op gone[] = {at(1, 2, REGISTER, 1, 1), at(3, 4, UNREGISTER, 0, 1), at(5, 6, WHEREIS, 0, 1)};
    op twice[] = {at(1, 9, REGISTER, 1, 1), at(2, 8, REGISTER, 2, 1)};
    op back[] = {at(1, 9, REGISTER, 1, 1), at(2, 3, WHEREIS, 0, 1), at(4, 5, WHEREIS, 0, 0)};
    op died[] = {at(1, 2, REGISTER, 1, 1), at(3, 9, EXIT, 1, 1), at(4, 5, LOOKUP, 1, 0),
                 at(6, 7, WHEREIS, 0, 1)};
    op dies[] = {at(1, 2, REGISTER, 1, 1), at(3, 9, EXIT, 1, 1), at(4, 5, WHEREIS, 0, 0),
                 at(6, 7, LOOKUP, 1, 1)};
    op both[] = {at(1, 4, EXIT, 1, 1), at(2, 3, EXIT, 1, 1)};
    CHECK(is_linearizable(late, 3));
    CHECK(!is_linearizable(gone, 3));
    CHECK(!is_linearizable(twice, 2));
    CHECK(!is_linearizable(back, 3));
    CHECK(!is_linearizable(died, 4));            /* R4: dead, and its name still there */
    CHECK(is_linearizable(dies, 4));
    CHECK(!is_linearizable(both, 2));
    both[1].result = 0;
    CHECK(is_linearizable(both, 2));
}

typedef struct world {
    rt_registry *registry;
    rt_process *process[NAMES][PIDS];
    rt_pid pid[NAMES][PIDS];
    op history[NAMES][HISTORY_MAX];
    uint32_t count[THREADS][NAMES];
    op own[THREADS][NAMES][OPS];
    _Atomic uint64_t arrived;
    unsigned long rounds, wrong;
    uint64_t overlaps;
} world;

static const char *const NAME[NAMES] = {"one", "the other, which takes a second cell"};

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint32_t number_of(const world *w, uint32_t name, rt_pid pid) {
    for (uint32_t i = 0; i < PIDS; i++)
        if (w->pid[name][i] == pid) return i + 1;
    return pid ? PIDS + 1 : 0;                   /* nobody's: no table answers so */
}

static void act(world *w, uint32_t name, op *o) {
    rt_slice text = rt_slice_of(NAME[name], strlen(NAME[name]));
    rt_pid pid = o->pid ? w->pid[name][o->pid - 1] : 0, found = 0;
    int rc = RT_OK;
    o->called = now();
    switch (o->kind) {
    case REGISTER: rc = rt_registry_register(w->registry, text, pid); break;
    case UNREGISTER: rc = rt_registry_unregister(w->registry, text); break;
    case WHEREIS: found = rt_registry_whereis(w->registry, text); break;
    case EXIT: rc = rt_process_exit(w->registry, pid, rt_slice_of(NULL, 0)); break;
    default: found = rt_registry_lookup(w->registry, pid) ? pid : 0; break;
    }
    o->answered = now();
    if (o->kind == WHEREIS) o->result = number_of(w, name, found);
    else if (o->kind == LOOKUP) o->result = found != 0;
    else o->result = rc == RT_OK;
}

/* The processes of a round, and after it the verdict. */
static void begin(world *w) {
    for (uint32_t i = 0; i < NAMES; i++) {
        for (uint32_t k = 0; k < PIDS; k++) {
            if (rt_process_new(w->registry, &w->process[i][k]) < 0) abort();
            w->pid[i][k] = w->process[i][k]->self;
        }
    }
}

static void judge(world *w) {
    for (uint32_t i = 0; i < NAMES; i++) {
        op *all = w->history[i];
        uint32_t n = 0;
        for (uint32_t t = 0; t < THREADS; t++)
            for (uint32_t k = 0; k < w->count[t][i]; k++) all[n++] = w->own[t][i][k];
        for (uint32_t a = 0; a < n; a++)
            for (uint32_t b = 0; b < a; b++)
                w->overlaps += all[a].called < all[b].answered && all[b].called < all[a].answered;
        all[n] = (op){.kind = WHEREIS};          /* how it stands when all have paused */
        act(w, i, &all[n++]);
        if (!is_linearizable(all, n)) w->wrong++;
        for (uint32_t k = 0; k < PIDS; k++) {
            (void)rt_process_exit(w->registry, w->pid[i][k], rt_slice_of(NULL, 0));
            rt_process_release(w->registry, w->process[i][k]);
        }
    }
}

/* Waits for the others without sleeping, so that all go on at once. */
static void meet(world *w) {
    uint64_t all = (atomic_fetch_add(&w->arrived, 1) / THREADS + 1) * THREADS;
    for (int spins = 0; atomic_load(&w->arrived) < all; spins++)
        if (spins % 256 == 255) sched_yield();
}

static void run(void *arg, unsigned number, stress_random *random) {
    world *w = arg;
    for (unsigned long round = 0; round < w->rounds; round++) {
        if (number == 0) begin(w);
        meet(w);
        memset(w->count[number], 0, sizeof w->count[number]);
        for (int i = 0; i < OPS; i++) {
            static const enum kind kinds[] = {REGISTER, REGISTER, UNREGISTER, WHEREIS,
                                              WHEREIS, EXIT, LOOKUP};
            uint32_t name = stress_below(random, NAMES);
            op *o = &w->own[number][name][w->count[number][name]++];
            *o = (op){.kind = kinds[stress_below(random, 7)]};
            if (o->kind != UNREGISTER && o->kind != WHEREIS) o->pid = 1 + stress_below(random, PIDS);
            act(w, name, o);
        }
        meet(w);
        if (number == 0) judge(w);
    }
}

static void test_histories(void) {
    static world w;
    static void (*const runs[])(void *, unsigned, stress_random *) = {run};
    static const unsigned count[] = {THREADS};
    w.registry = rt_registry_new(NAMES * PIDS, NAMES);
    w.rounds = 10000 * stress_scale();
    stress_watchdog(100);
    stress_run(&w, 1, runs, count);
    alarm(0);
    CHECK_INT(w.wrong, 0);
    printf("%lu rounds, %llu pairs of operations at once\n", w.rounds,
           (unsigned long long)w.overlaps);
    rt_registry_free(w.registry);
}

TESTS(test_checker, test_histories)
