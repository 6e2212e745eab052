/* The registry's peer: liburcu's lock-free hash table, with the flavour whose readers pay nothing
 * (QSBR) and the inline functions its documentation offers. Keys and orders as in registry.c. */
#define URCU_INLINE_SMALL_FUNCTIONS
#include <urcu-qsbr.h>
#include <urcu/rculfhash.h>
#include <urcu/compiler.h>

#include "base/hash.h"
#include "bench.h"

#define QUIET_EVERY 256u /* lookups between two quiescent states */

typedef struct entry {
    struct cds_lfht_node node;
    uint64_t pid;
    struct rcu_head head;
    const char *name;
    size_t name_bytes;
} entry;

typedef struct table {
    struct cds_lfht *pids, *names;
    entry *by_pid, *by_name;
    uint64_t *asked;
    char (*name)[32];
    uint8_t *name_bytes;
    uint32_t count, at;
} table;

typedef struct text {
    const char *p;
    size_t n;
} text;

static uint32_t tables; /* all made and used by one thread */

static int same_pid(struct cds_lfht_node *node, const void *key)
{
    return caa_container_of(node, entry, node)->pid == *(const uint64_t *)key;
}

static int same_name(struct cds_lfht_node *node, const void *key)
{
    const entry *e = caa_container_of(node, entry, node);
    const text *k = key;
    return e->name_bytes == k->n && memcmp(e->name, k->p, k->n) == 0;
}

static uint64_t hash_name(const char *p, size_t n) { return rt_hash_bytes(p, n, 0); }

static struct cds_lfht *table_for(uint32_t count)
{
    unsigned long size = 1;
    while (size < count)
        size *= 2;
    /* As many buckets as entries from the start: it never has to grow. */
    return must(cds_lfht_new(size, size, 0, 0, NULL));
}

BENCH void *lfht_new(uint32_t count, uint32_t named)
{
    table *t = must(calloc(1, sizeof *t));
    uint32_t *order = shuffled(count, 1);
    if (tables++ == 0) rcu_register_thread();
    t->pids = table_for(count);
    t->by_pid = must(calloc(count, sizeof *t->by_pid));
    t->asked = must(malloc(count * sizeof *t->asked));
    t->count = count;
    for (uint32_t i = 0; i < count; i++) {
        entry *e = &t->by_pid[i];
        e->pid = (uint64_t)1 << 32 | (i + 1);
        cds_lfht_add(t->pids, rt_hash_u64(e->pid), &e->node);
        t->asked[i] = (uint64_t)1 << 32 | (order[i] + 1);
    }
    if (named) {
        t->names = table_for(count);
        t->by_name = must(calloc(count, sizeof *t->by_name));
        t->name = must(malloc(count * sizeof *t->name));
        t->name_bytes = must(malloc(count));
        for (uint32_t i = 0; i < count; i++) {
            entry *e = &t->by_name[i];
            t->name_bytes[i] = (uint8_t)name_of(order[i], t->name[i]);
            e->pid = t->asked[i];
            e->name_bytes = t->name_bytes[i];
            e->name = must(strdup(t->name[i])); /* the table's own copy, as ours has one */
            cds_lfht_add(t->names, hash_name(e->name, e->name_bytes), &e->node);
        }
    }
    free(order);
    return t;
}

BENCH void lfht_free(void *context)
{
    table *t = context;
    for (uint32_t i = 0; i < t->count; i++)
        cds_lfht_del(t->pids, &t->by_pid[i].node);
    for (uint32_t i = 0; t->names && i < t->count; i++)
        cds_lfht_del(t->names, &t->by_name[i].node);
    rcu_barrier();
    cds_lfht_destroy(t->pids, NULL);
    if (t->names) cds_lfht_destroy(t->names, NULL);
    for (uint32_t i = 0; t->by_name && i < t->count; i++)
        free((char *)t->by_name[i].name);
    free(t->by_pid);
    free(t->by_name);
    free(t->asked);
    free(t->name);
    free(t->name_bytes);
    free(t);
    if (--tables == 0) rcu_unregister_thread();
}

BENCH uint64_t lfht_lookup(void *context, uint64_t n)
{
    table *t = context;
    uint64_t right = 0;
    for (uint64_t i = 0; i < n; i++) {
        struct cds_lfht_iter iter;
        uint64_t pid = t->asked[t->at];
        rcu_read_lock();
        cds_lfht_lookup(t->pids, rt_hash_u64(pid), same_pid, &pid, &iter);
        right += cds_lfht_iter_get_node(&iter) != NULL;
        rcu_read_unlock();
        if (++t->at == t->count) t->at = 0;
        if (i % QUIET_EVERY == 0) rcu_quiescent_state();
    }
    return right;
}

BENCH uint64_t lfht_whereis(void *context, uint64_t n)
{
    table *t = context;
    uint64_t right = 0;
    for (uint64_t i = 0; i < n; i++) {
        struct cds_lfht_iter iter;
        struct cds_lfht_node *found;
        text key = {t->name[t->at], t->name_bytes[t->at]};
        rcu_read_lock();
        cds_lfht_lookup(t->names, hash_name(key.p, key.n), same_name, &key, &iter);
        found = cds_lfht_iter_get_node(&iter);
        right += found && caa_container_of(found, entry, node)->pid == t->asked[t->at];
        rcu_read_unlock();
        if (++t->at == t->count) t->at = 0;
        if (i % QUIET_EVERY == 0) rcu_quiescent_state();
    }
    return right;
}

static void free_entry(struct rcu_head *head) { free(caa_container_of(head, entry, head)); }

/* An entry comes and goes, its memory after a grace period. */
BENCH uint64_t lfht_life(void *context, uint64_t n)
{
    table *t = context;
    uint64_t right = 0;
    for (uint64_t i = 0; i < n; i++) {
        entry *e = must(malloc(sizeof *e));
        e->pid = (uint64_t)2 << 32 | (i & 0xffffff);
        rcu_read_lock();
        cds_lfht_add(t->pids, rt_hash_u64(e->pid), &e->node);
        right += cds_lfht_del(t->pids, &e->node) == 0;
        rcu_read_unlock();
        call_rcu(&e->head, free_entry);
        if (i % QUIET_EVERY == 0) rcu_quiescent_state();
    }
    rcu_quiescent_state();
    return right;
}

BENCH uint64_t lfht_rename(void *context, uint64_t n)
{
    table *t = context;
    uint64_t right = 0;
    for (uint64_t i = 0; i < n; i++) {
        struct cds_lfht_iter iter;
        struct cds_lfht_node *found;
        text key = {t->name[t->at], t->name_bytes[t->at]};
        uint64_t hash = hash_name(key.p, key.n);
        entry *old, *e = must(malloc(sizeof *e));
        rcu_read_lock();
        cds_lfht_lookup(t->names, hash, same_name, &key, &iter);
        found = cds_lfht_iter_get_node(&iter);
        old = caa_container_of(found, entry, node);
        memcpy(e, old, sizeof *e);
        right += cds_lfht_del(t->names, found) == 0 &&
                 cds_lfht_add_unique(t->names, hash, same_name, &key, &e->node) == &e->node;
        rcu_read_unlock();
        /* The first entries stand in one block and are freed with it. */
        if (old < t->by_name || old >= t->by_name + t->count) call_rcu(&old->head, free_entry);
        if (++t->at == t->count) t->at = 0;
        if (i % QUIET_EVERY == 0) rcu_quiescent_state();
    }
    rcu_quiescent_state();
    return right;
}
