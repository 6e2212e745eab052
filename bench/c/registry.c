/* The registry: pid and name to process, and processes that come and go. */
#include <stdatomic.h>

#include "bench.h"
#include "proc/registry.h"

typedef struct table {
    rt_registry *registry;
    rt_process **process;
    rt_pid *asked;              /* pids in the order in which they are looked up */
    char (*name)[32];           /* and names */
    uint8_t *name_bytes;
    const _Atomic uint64_t **gate;   /* of the processes asked for, in that order; or NULL */
    uint32_t count;
    uint32_t at;
} table;

static const rt_slice REASON = {(const uint8_t *)"w\6normal", 8};

/* named: 0 or 1, whether each process has a name. */
BENCH void *registry_new(uint32_t count, uint32_t named)
{
    table *t = must(calloc(1, sizeof *t));
    uint32_t *order = shuffled(count, 1);
    /* Room for what comes and goes beside those that stay, and for as many names again. */
    t->registry = must(rt_registry_new(count + 1024, 2 * count + 1024));
    t->process = must(malloc(count * sizeof *t->process));
    t->asked = must(malloc(count * sizeof *t->asked));
    t->count = count;
    for (uint32_t i = 0; i < count; i++)
        if (rt_process_new(t->registry, &t->process[i]) < 0) abort();
    for (uint32_t i = 0; i < count; i++)
        t->asked[i] = t->process[order[i]]->self;
    if (named) {
        t->name = must(malloc(count * sizeof *t->name));
        t->name_bytes = must(malloc(count));
        for (uint32_t i = 0; i < count; i++) {
            t->name_bytes[i] = (uint8_t)name_of(order[i], t->name[i]);
            if (rt_registry_register(t->registry, rt_slice_of(t->name[i], t->name_bytes[i]),
                                     t->asked[i]) < 0)
                abort();
        }
    }
    free(order);
    return t;
}

BENCH void registry_free(void *context)
{
    table *t = context;
    for (uint32_t i = 0; i < t->count; i++) {
        rt_process_exit(t->registry, t->process[i]->self, REASON);
        rt_process_release(t->registry, t->process[i]);
    }
    rt_registry_free(t->registry);
    free(t->process);
    free(t->asked);
    free(t->gate);
    free(t->name);
    free(t->name_bytes);
    free(t);
}

BENCH uint64_t registry_lookup(void *context, uint64_t n)
{
    table *t = context;
    uint64_t right = 0;
    for (uint64_t i = 0; i < n; i++) {
        right += rt_registry_lookup(t->registry, t->asked[t->at]) != NULL;
        if (++t->at == t->count) t->at = 0;
    }
    return right;
}

#define MANY 4096u

/* A block of pids at a time. */
BENCH uint64_t registry_many(void *context, uint64_t n)
{
    static int64_t slots[MANY];
    table *t = context;
    uint64_t right = 0;
    while (n > 0) {
        uint32_t k = t->count - t->at < MANY ? t->count - t->at : MANY;
        if (k > n) k = (uint32_t)n;
        rt_registry_lookup_many(t->registry, &t->asked[t->at], k, slots);
        for (uint32_t i = 0; i < k; i++) right += slots[i] == (uint32_t)t->asked[t->at + i];
        t->at = t->at + k == t->count ? 0 : t->at + k;
        n -= k;
    }
    return right;
}

/* The limit of any look-up: the one word of each slot that it must read, at addresses that are
 * known before. */
BENCH uint64_t registry_bare(void *context, uint64_t n)
{
    table *t = context;
    uint64_t right = 0;
    if (!t->gate) {
        t->gate = must(malloc(t->count * sizeof *t->gate));
        for (uint32_t i = 0; i < t->count; i++)
            t->gate[i] = &rt_registry_lookup(t->registry, t->asked[i])->mailbox.gate;
    }
    for (uint64_t i = 0; i < n; i++) {
        right += atomic_load_explicit(t->gate[t->at], memory_order_relaxed) != 0;
        if (++t->at == t->count) t->at = 0;
    }
    return right;
}

BENCH uint64_t registry_whereis(void *context, uint64_t n)
{
    table *t = context;
    uint64_t right = 0;
    for (uint64_t i = 0; i < n; i++) {
        rt_slice name = rt_slice_of(t->name[t->at], t->name_bytes[t->at]);
        right += rt_registry_whereis(t->registry, name) == t->asked[t->at];
        if (++t->at == t->count) t->at = 0;
    }
    return right;
}

/* A process begins and ends. */
BENCH uint64_t registry_life(void *context, uint64_t n)
{
    table *t = context;
    uint64_t right = 0;
    for (uint64_t i = 0; i < n; i++) {
        rt_process *p;
        if (rt_process_new(t->registry, &p) < 0) break;
        right += rt_process_exit(t->registry, p->self, REASON) == RT_OK;
        rt_process_release(t->registry, p);
    }
    return right;
}

/* A process that has one takes a name, and gives it back. */
BENCH uint64_t registry_rename(void *context, uint64_t n)
{
    table *t = context;
    uint64_t right = 0;
    for (uint64_t i = 0; i < n; i++) {
        rt_slice name = rt_slice_of(t->name[t->at], t->name_bytes[t->at]);
        right += rt_registry_unregister(t->registry, name) == RT_OK &&
                 rt_registry_register(t->registry, name, t->asked[t->at]) == RT_OK;
        if (++t->at == t->count) t->at = 0;
    }
    return right;
}

/* A writer beside the reader: this many processes begin and end in a second. */
#define LIVES_PER_MS 100u

typedef struct writer {
    table *table;
    atomic_bool stop;
    uint64_t lives;
} writer;

static void *write_on(void *arg)
{
    writer *w = arg;
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    while (!atomic_load_explicit(&w->stop, memory_order_relaxed)) {
        w->lives += registry_life(w->table, LIVES_PER_MS);
        at.tv_nsec += 1000000;
        if (at.tv_nsec >= 1000000000) {
            at.tv_nsec -= 1000000000;
            at.tv_sec++;
        }
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
    }
    return NULL;
}

/* Nanoseconds of the reading thread's CPU time for n lookups; 0 when one failed. lives: how
 * many processes a writer began and ended meanwhile; NULL: no writer. */
BENCH uint64_t registry_read(void *context, uint64_t n, uint64_t *lives)
{
    writer w = {.table = context};
    pthread_t thread;
    if (lives && pthread_create(&thread, NULL, write_on, &w)) return 0;
    uint64_t begin = clock_ns(CLOCK_THREAD_CPUTIME_ID), right = registry_lookup(context, n);
    uint64_t spent = clock_ns(CLOCK_THREAD_CPUTIME_ID) - begin;
    if (lives) {
        atomic_store(&w.stop, true);
        pthread_join(thread, NULL);
        *lives = w.lives;
    }
    return right == n ? spent : 0;
}
