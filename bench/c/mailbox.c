/* A mailbox: in and out again, and several producers at once. */
#include <stdatomic.h>

#include "bench.h"
#include "proc/registry.h"

#define BATCH 16u

typedef struct box {
    rt_registry *registry;
    rt_process *process;
} box;

BENCH void *box_new(void)
{
    box *b = must(calloc(1, sizeof *b));
    b->registry = must(rt_registry_new(16, 16));
    if (rt_process_new(b->registry, &b->process) < 0) abort();
    return b;
}

BENCH void box_free(void *context)
{
    box *b = context;
    rt_process_exit(b->registry, b->process->self, rt_slice_of("j", 1));
    rt_process_release(b->registry, b->process);
    rt_registry_free(b->registry);
    free(b);
}

static void fill(rt_chain *chain, rt_pid to, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        memset(rt_message_data(must(rt_chain_add(chain, to, 8))), 'j', 8);
}

/* One message goes in and comes out. It is the same one each time: what making and freeing
 * it costs is message_life's. */
BENCH uint64_t box_single(void *context, uint64_t n)
{
    box *b = context;
    rt_chain chain = {0};
    rt_message *m;
    uint64_t right = 0;
    fill(&chain, b->process->self, 1);
    m = chain.first;
    for (uint64_t i = 0; i < n; i++) {
        rt_chain again = {m, m, 1, 8};
        right += rt_registry_push(b->registry, m->target, &again, NULL) == RT_OK &&
                 rt_process_pop(b->registry, b->process) == m;
    }
    rt_message_free(m);
    return right;
}

/* Sixteen go in at once and come out one by one; n counts messages. */
BENCH uint64_t box_batch(void *context, uint64_t n)
{
    box *b = context;
    rt_message *m[BATCH];
    rt_chain chain = {0};
    uint64_t right = 0;
    fill(&chain, b->process->self, BATCH);
    m[0] = chain.first; /* the oldest */
    for (uint32_t i = BATCH; i > 0; i--) {
        rt_message *at = chain.last;
        for (uint32_t j = BATCH; j > i; j--)
            at = RT_CONTAINER_OF(at->link.next, rt_message, link);
        m[i - 1] = at;
    }
    for (uint64_t done = 0; done < n; done += BATCH) {
        rt_chain again = {m[0], m[BATCH - 1], BATCH, 8 * BATCH};
        for (uint32_t i = 1; i < BATCH; i++)
            m[i]->link.next = &m[i - 1]->link;
        if (rt_registry_push(b->registry, m[0]->target, &again, NULL) < 0) return right;
        for (uint32_t i = 0; i < BATCH; i++)
            right += rt_process_pop(b->registry, b->process) == m[i];
    }
    for (uint32_t i = 0; i < BATCH; i++)
        rt_message_free(m[i]);
    return right >= n ? n : right;
}

/* A message of 64 bytes is made, goes in, comes out, and is freed. */
BENCH uint64_t message_life(void *context, uint64_t n)
{
    box *b = context;
    uint64_t right = 0;
    for (uint64_t i = 0; i < n; i++) {
        rt_chain chain = {0};
        rt_message *m = must(rt_chain_add(&chain, b->process->self, 64));
        memset(rt_message_data(m), 'j', 64);
        if (rt_registry_push(b->registry, m->target, &chain, NULL) < 0) break;
        m = rt_process_pop(b->registry, b->process);
        right += m != NULL;
        rt_message_free(m);
    }
    return right;
}

typedef struct producer {
    box *box;
    uint64_t most, pushed;
    pthread_barrier_t *start;
    atomic_bool *over;
    pthread_t thread;
} producer;

static void *produce(void *arg)
{
    producer *p = arg;
    pthread_barrier_wait(p->start);
    while (p->pushed < p->most && !atomic_load_explicit(p->over, memory_order_relaxed)) {
        rt_chain chain = {0};
        fill(&chain, p->box->process->self, BATCH);
        if (rt_registry_push(p->box->registry, p->box->process->self, &chain, NULL) < 0) abort();
        p->pushed += BATCH;
    }
    atomic_store_explicit(p->over, true, memory_order_relaxed);
    return NULL;
}

/* Producers push in sixteens, all together, until one of them has pushed its part of n: none goes
 * on alone. Then the owner reads. Returns the nanoseconds of CPU time that pushing took all of
 * them, and in *pushed how many there were; 0 when one is missing. */
BENCH uint64_t box_produce(void *context, uint64_t n, uint32_t producers, uint64_t *pushed)
{
    producer p[8];
    pthread_barrier_t start;
    atomic_bool over = false;
    box *b = context;
    uint64_t got = 0, begin = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    *pushed = 0;
    if (pthread_barrier_init(&start, NULL, producers)) abort();
    for (uint32_t i = 0; i < producers; i++) {
        p[i] = (producer){.box = b, .most = n / producers, .start = &start, .over = &over};
        if (pthread_create(&p[i].thread, NULL, produce, &p[i])) abort();
    }
    for (uint32_t i = 0; i < producers; i++) {
        pthread_join(p[i].thread, NULL);
        *pushed += p[i].pushed;
    }
    uint64_t spent = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - begin;
    pthread_barrier_destroy(&start);
    for (rt_message *m; (m = rt_process_pop(b->registry, b->process)); got++)
        rt_message_free(m);
    return got == *pushed ? spent : 0;
}
