/* Every relation stands in one chain of the identity table (by kind and ref, a
 * link by process and remote), and in the lists of its anchors: the process, and
 * unless it is an alias the peer. Anchors stand in a second table, are made with
 * the first relation and freed with the last. Lists keep the order of adding. */
#include "proc/relation.h"

#include <pthread.h>

#include "base/alloc.h"
#include "base/hash.h"
#include "base/random.h"

#define BUCKETS_MIN 64u
#define BUCKETS_MAX (1u << 30)

enum side { SIDE_PROCESS, SIDE_PEER, SIDES };

typedef struct node {               /* in a bucket's chain */
    struct node *next;
    uint64_t hash;
} node;

typedef struct table {
    node **bucket;
    uint32_t mask, count;
} table;

struct entry;

typedef struct anchor {
    node node;
    uint64_t key;                   /* pid, or peer number */
    enum side side;
    struct entry *first, *last;
} anchor;

typedef struct entry {
    rt_relation rel;                /* first: what a taken list is made of */
    node node;
    anchor *anchor[SIDES];          /* NULL: not on that side */
    struct entry *prev[SIDES], *next[SIDES];
    uint8_t bytes[];
} entry;

struct rt_relations {
    pthread_mutex_t lock;           /* guards all */
    uint64_t seed;
    table entries, anchors;
    _Atomic uint32_t count;         /* relaxed: a moment's view for those without the lock */
};

_Static_assert(offsetof(entry, rel) == 0, "a taken relation is its block");

static int table_init(table *t) {
    t->bucket = rt_calloc(BUCKETS_MIN, sizeof *t->bucket);
    if (!t->bucket) return RT_ENOMEM;
    t->mask = BUCKETS_MIN - 1;
    t->count = 0;
    return RT_OK;
}

/* Doubles a full table; without memory the chains get longer. */
static void table_grow(table *t) {
    uint32_t buckets = (t->mask + 1) * 2;
    node **to;
    if (t->count <= t->mask || t->mask >= BUCKETS_MAX - 1) return;
    to = rt_calloc(buckets, sizeof *to);
    if (!to) return;
    for (uint32_t i = 0; i <= t->mask; i++) {
        node *n = t->bucket[i];
        while (n) {
            node *next = n->next;
            n->next = to[n->hash & (buckets - 1)];
            to[n->hash & (buckets - 1)] = n;
            n = next;
        }
    }
    rt_free(t->bucket);
    t->bucket = to;
    t->mask = buckets - 1;
}

static void table_add(table *t, node *n) {
    node **at;
    table_grow(t);
    at = &t->bucket[n->hash & t->mask];
    n->next = *at;
    *at = n;
    t->count++;
}

static void table_remove(table *t, node *n) {
    node **at = &t->bucket[n->hash & t->mask];
    while (*at != n) at = &(*at)->next;
    *at = n->next;
    t->count--;
}

rt_relations *rt_relations_new(void) {
    rt_relations *r = rt_calloc(1, sizeof *r);
    if (!r) return NULL;
    if (rt_random_u64(&r->seed) < 0 || table_init(&r->entries) < 0 ||
        table_init(&r->anchors) < 0) {
        rt_free(r->entries.bucket);
        rt_free(r);
        return NULL;
    }
    pthread_mutex_init(&r->lock, NULL);
    return r;
}

/* Frees the nodes too: each is the first thing in its block at `offset`. */
static void table_free(table *t, size_t offset) {
    for (uint32_t i = 0; i <= t->mask; i++) {
        while (t->bucket[i]) {
            node *n = t->bucket[i];
            t->bucket[i] = n->next;
            rt_free((char *)n - offset);
        }
    }
    rt_free(t->bucket);
}

void rt_relations_free(rt_relations *r) {
    if (!r) return;
    table_free(&r->entries, offsetof(entry, node));
    table_free(&r->anchors, offsetof(anchor, node));
    pthread_mutex_destroy(&r->lock);
    rt_free(r);
}

static uint64_t identity(const rt_relations *r, enum rt_relation_kind kind, rt_pid local,
                         rt_slice bytes) {
    uint64_t seed = r->seed + kind;
    if (kind == RT_REL_LINK) seed ^= rt_hash_u64(local);
    return rt_hash_bytes(bytes.p, bytes.n, seed);
}

/* The bytes that make a relation what it is, besides its kind and a link's process. */
RT_INLINE rt_slice key_of(const rt_relation *rel) {
    return rel->kind == RT_REL_LINK ? rel->remote : rel->ref;
}

static entry *find(const rt_relations *r, enum rt_relation_kind kind, rt_pid local,
                   rt_slice bytes) {
    uint64_t hash = identity(r, kind, local, bytes);
    for (node *n = r->entries.bucket[hash & r->entries.mask]; n; n = n->next) {
        entry *e = RT_CONTAINER_OF(n, entry, node);
        if (n->hash == hash && e->rel.kind == kind && rt_slice_eq(key_of(&e->rel), bytes) &&
            (kind != RT_REL_LINK || e->rel.local == local))
            return e;
    }
    return NULL;
}

static uint64_t anchor_hash(const rt_relations *r, enum side side, uint64_t key) {
    return rt_hash_u64(key ^ r->seed ^ ((uint64_t)side << 63));
}

static anchor *anchor_find(const rt_relations *r, enum side side, uint64_t key) {
    uint64_t hash = anchor_hash(r, side, key);
    for (node *n = r->anchors.bucket[hash & r->anchors.mask]; n; n = n->next) {
        anchor *a = RT_CONTAINER_OF(n, anchor, node);
        if (a->key == key && a->side == side) return a;
    }
    return NULL;
}

/* The anchor there is, or a new one without relations. */
static anchor *anchor_get(rt_relations *r, enum side side, uint64_t key) {
    anchor *a = anchor_find(r, side, key);
    if (a) return a;
    a = rt_calloc(1, sizeof *a);
    if (!a) return NULL;
    a->key = key;
    a->side = side;
    a->node.hash = anchor_hash(r, side, key);
    table_add(&r->anchors, &a->node);
    return a;
}

/* Frees an anchor without relations. */
static void anchor_done(rt_relations *r, anchor *a) {
    if (!a || a->first) return;
    table_remove(&r->anchors, &a->node);
    rt_free(a);
}

static void attach(entry *e, enum side side, anchor *a) {
    e->anchor[side] = a;
    e->prev[side] = a->last;
    e->next[side] = NULL;
    if (a->last) a->last->next[side] = e;
    else a->first = e;
    a->last = e;
}

/* Out of all tables and lists; the caller's then. */
static void detach(rt_relations *r, entry *e) {
    for (int side = 0; side < SIDES; side++) {
        anchor *a = e->anchor[side];
        if (!a) continue;
        if (e->prev[side]) e->prev[side]->next[side] = e->next[side];
        else a->first = e->next[side];
        if (e->next[side]) e->next[side]->prev[side] = e->prev[side];
        else a->last = e->prev[side];
        anchor_done(r, a);
    }
    table_remove(&r->entries, &e->node);
    atomic_store_explicit(&r->count, r->entries.count, memory_order_relaxed);
    e->rel.next = NULL;
}

static entry *entry_new(const rt_relation *rel) {
    entry *e = rt_calloc(1, sizeof *e + rel->remote.n + rel->ref.n);
    uint8_t *at;
    if (!e) return NULL;
    at = e->bytes;
    e->rel = *rel;
    e->rel.next = NULL;
    if (rel->remote.n) memcpy(at, rel->remote.p, rel->remote.n);
    e->rel.remote = rt_slice_of(at, rel->remote.n);
    at += rel->remote.n;
    if (rel->ref.n) memcpy(at, rel->ref.p, rel->ref.n);
    e->rel.ref = rt_slice_of(at, rel->ref.n);
    return e;
}

static int insert(rt_relations *r, entry *e) {
    anchor *process, *peer = NULL;
    bool to_peer = e->rel.peer && e->rel.kind != RT_REL_ALIAS;
    if (find(r, e->rel.kind, e->rel.local, key_of(&e->rel))) return RT_EEXIST;
    if (r->entries.count == UINT32_MAX) return RT_ELIMIT;
    process = anchor_get(r, SIDE_PROCESS, e->rel.local);
    if (!process) return RT_ENOMEM;
    if (to_peer && !(peer = anchor_get(r, SIDE_PEER, e->rel.peer))) {
        anchor_done(r, process);
        return RT_ENOMEM;
    }
    attach(e, SIDE_PROCESS, process);
    if (peer) attach(e, SIDE_PEER, peer);
    e->node.hash = identity(r, e->rel.kind, e->rel.local, key_of(&e->rel));
    table_add(&r->entries, &e->node);
    atomic_store_explicit(&r->count, r->entries.count, memory_order_relaxed);
    return RT_OK;
}

int rt_relations_add(rt_relations *r, const rt_relation *rel) {
    entry *e;
    int rc;
    if (rel->remote.n > RT_RELATION_BYTES_MAX || rel->ref.n > RT_RELATION_BYTES_MAX)
        return RT_ELIMIT;
    e = entry_new(rel);
    if (!e) return RT_ENOMEM;
    pthread_mutex_lock(&r->lock);
    rc = insert(r, e);
    pthread_mutex_unlock(&r->lock);
    if (rc < 0) rt_free(e);
    return rc;
}

/* Whose relation it is does not matter. */
#define ANY_PEER UINT32_MAX

static entry *take(rt_relations *r, uint32_t peer, enum rt_relation_kind kind, rt_pid local,
                   rt_slice bytes) {
    entry *e;
    pthread_mutex_lock(&r->lock);
    e = find(r, kind, local, bytes);
    if (e && peer != ANY_PEER && e->rel.peer != peer) e = NULL;
    if (e) detach(r, e);
    pthread_mutex_unlock(&r->lock);
    return e;
}

int rt_relations_end_link(rt_relations *r, uint32_t peer, rt_pid local, rt_slice remote) {
    entry *e = take(r, peer, RT_REL_LINK, local, remote);
    rt_free(e);
    return e ? RT_OK : RT_ENOENT;
}

int rt_relations_remove_link(rt_relations *r, rt_pid local, rt_slice remote) {
    return rt_relations_end_link(r, ANY_PEER, local, remote);
}

bool rt_relations_has_link(rt_relations *r, rt_pid local, rt_slice remote) {
    bool has;
    pthread_mutex_lock(&r->lock);
    has = find(r, RT_REL_LINK, local, remote) != NULL;
    pthread_mutex_unlock(&r->lock);
    return has;
}

int rt_relations_end_ref(rt_relations *r, uint32_t peer, enum rt_relation_kind kind, rt_slice ref,
                         rt_relation **out) {
    entry *e;
    RT_ASSERT(kind != RT_REL_LINK);
    e = take(r, peer, kind, 0, ref);
    if (!e) return RT_ENOENT;
    if (out) *out = &e->rel;
    else rt_free(e);
    return RT_OK;
}

int rt_relations_remove_ref(rt_relations *r, enum rt_relation_kind kind, rt_slice ref,
                            rt_relation **out) {
    return rt_relations_end_ref(r, ANY_PEER, kind, ref, out);
}

rt_pid rt_relations_find_ref(rt_relations *r, enum rt_relation_kind kind, rt_slice ref) {
    entry *e;
    rt_pid local;
    RT_ASSERT(kind != RT_REL_LINK);
    pthread_mutex_lock(&r->lock);
    e = find(r, kind, 0, ref);
    local = e ? e->rel.local : 0;
    pthread_mutex_unlock(&r->lock);
    return local;
}

rt_pid rt_relations_reach(rt_relations *r, rt_slice ref) {
    rt_pid local = 0;
    entry *e, *once = NULL;
    pthread_mutex_lock(&r->lock);
    e = find(r, RT_REL_ALIAS, 0, ref);
    if (e) {
        local = e->rel.local;
        if (e->rel.flags & RT_ALIAS_ONCE) detach(r, once = e);
    }
    pthread_mutex_unlock(&r->lock);
    rt_free(once);
    return local;
}

/* flags: one of these must be set; 0: all are taken. */
static rt_relation *take_all(rt_relations *r, enum side side, uint64_t key, uint32_t flags) {
    rt_relation *first = NULL, **end = &first;
    anchor *a;
    pthread_mutex_lock(&r->lock);
    a = anchor_find(r, side, key);
    for (entry *e = a ? a->first : NULL; e;) {
        entry *next = e->next[side];
        if (!flags || e->rel.flags & flags) {
            detach(r, e);            /* the last one frees the anchor */
            *end = &e->rel;
            end = &e->rel.next;
        }
        e = next;
    }
    pthread_mutex_unlock(&r->lock);
    return first;
}

rt_relation *rt_relations_take_process(rt_relations *r, rt_pid local) {
    return take_all(r, SIDE_PROCESS, local, 0);
}

rt_relation *rt_relations_take_peer(rt_relations *r, uint32_t peer) {
    return take_all(r, SIDE_PEER, peer, 0);
}

rt_relation *rt_relations_take_flagged(rt_relations *r, uint32_t peer, uint32_t flags) {
    RT_ASSERT(flags);
    return take_all(r, SIDE_PEER, peer, flags);
}

void rt_relation_free_list(rt_relation *list) {
    while (list) {
        rt_relation *next = list->next;
        rt_free(list);               /* the entry begins with it */
        list = next;
    }
}

uint32_t rt_relations_count(const rt_relations *r) {
    return atomic_load_explicit(&r->count, memory_order_relaxed);
}
