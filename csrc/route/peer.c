#include "route/peer.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/cursor.h"
#include "base/hash.h"
#include "route/repeat.h"
#include "route/outbound.h"
#include "term/write.h"

struct rt_peers {
    pthread_mutex_t lock;
    rt_limits limits;
    rt_chunk_pool pool;      /* of all their queues */
    rt_pool *large;          /* for large messages, both ways */
    rt_peer **bucket;
    uint32_t buckets;        /* a power of two */
    rt_peer **at;            /* by number - 1 */
    uint32_t count, cap;
};

bool rt_node_name_ok(rt_slice name)
{
    const uint8_t *at = name.n ? memchr(name.p, '@', name.n) : NULL;
    if (!at || at == name.p || at + 1 == name.p + name.n) return false;
    size_t chars = 0;
    for (size_t i = 0; i < name.n; i++) {
        if (name.p[i] < 0x20 || name.p[i] == 0x7f) return false;
        chars += (name.p[i] & 0xc0) != 0x80;
    }
    return chars <= RT_ATOM_CHARS_MAX;
}

rt_peers *rt_peers_new(const rt_limits *limits)
{
    rt_peers *t = rt_calloc(1, sizeof *t);
    if (!t) return NULL;
    t->limits = *limits;
    t->buckets = 64;
    t->bucket = rt_calloc(t->buckets, sizeof *t->bucket);
    t->large = rt_pool_new();
    if (!t->bucket || !t->large || rt_chunk_pool_init(&t->pool) < 0) goto fail;
    if (pthread_mutex_init(&t->lock, NULL) == 0) return t;
    rt_chunk_pool_fini(&t->pool);
fail:
    rt_pool_rele(t->large);
    rt_free(t->bucket);
    rt_free(t);
    return NULL;
}

/* What a connection has told; nothing of it means anything on the next one. */
static void forget_incoming(rt_peer *p)
{
    rt_atom_cache_free(p->cache);
    rt_fragments_free(p->assembly);
    rt_repeats_free(p->repeats);
    p->cache = NULL;
    p->assembly = NULL;
    p->repeats = NULL;
}

static void peer_free(rt_peer *p)
{
    if (!p) return;
    rt_outq_fini(&p->out);
    forget_incoming(p);
    rt_free((void *)p->name.p);
    rt_free((void *)p->atom.p);
    rt_free(p->cookie);
    rt_free(p);
}

void rt_peers_free(rt_peers *t)
{
    if (!t) return;
    for (uint32_t i = 0; i < t->count; i++) peer_free(t->at[i]);
    rt_free(t->at);
    rt_free(t->bucket);
    rt_chunk_pool_fini(&t->pool);
    rt_pool_rele(t->large);  /* messages that wait in boxes hold it */
    pthread_mutex_destroy(&t->lock);
    rt_free(t);
}

static rt_peer *peer_new(rt_slice name, rt_chunk_pool *pool, rt_pool *large)
{
    rt_buf atom = RT_BUF_INIT;
    rt_peer *p = rt_calloc(1, sizeof *p);
    uint8_t *copy = rt_malloc(name.n);
    if (!p || !copy || rt_outq_init(&p->out, pool) < 0) goto fail;
    memcpy(copy, name.p, name.n);
    if (rt_put_atom(&atom, name) < 0) {
        pthread_mutex_destroy(&p->out.lock);
        goto fail;
    }
    p->pool = large;
    p->name = rt_slice_of(copy, name.n);
    p->atom = rt_slice_of(atom.p, atom.n);
    return p;
fail:
    rt_buf_fini(&atom);
    rt_free(copy);
    rt_free(p);
    return NULL;
}

static rt_peer *find(rt_peers *t, rt_slice name, uint64_t hash)
{
    rt_peer *p = t->bucket[hash & (t->buckets - 1)];
    while (p && !rt_slice_eq(p->name, name)) p = p->next;
    return p;
}

static void rehash(rt_peers *t)
{
    uint32_t n = t->buckets * 2;
    rt_peer **b = rt_calloc(n, sizeof *b);
    if (!b) return; /* longer chains until memory is there again */
    for (uint32_t i = 0; i < t->count; i++) {
        rt_peer *p = t->at[i];
        rt_peer **slot = &b[rt_hash_bytes(p->name.p, p->name.n, 0) & (n - 1)];
        p->next = *slot;
        *slot = p;
    }
    rt_free(t->bucket);
    t->bucket = b;
    t->buckets = n;
}

rt_peer *rt_peers_find(rt_peers *t, rt_slice name)
{
    uint64_t hash = rt_hash_bytes(name.p, name.n, 0);
    pthread_mutex_lock(&t->lock);
    rt_peer *p = find(t, name, hash);
    pthread_mutex_unlock(&t->lock);
    return p;
}

static int insert(rt_peers *t, rt_slice name, uint64_t hash, rt_peer **out)
{
    if (t->count >= t->limits.peers_max) return RT_ELIMIT;
    if (t->count == t->cap) {
        uint32_t cap = t->cap ? t->cap * 2 : 16;
        rt_peer **at = rt_realloc(t->at, cap * sizeof *at);
        if (!at) return RT_ENOMEM;
        t->at = at;
        t->cap = cap;
    }
    rt_peer *p = peer_new(name, &t->pool, t->large);
    if (!p) return RT_ENOMEM;
    rt_peer **slot = &t->bucket[hash & (t->buckets - 1)];
    p->next = *slot;
    *slot = p;
    t->at[t->count++] = p;
    p->number = t->count;
    if (t->count > t->buckets) rehash(t);
    *out = p;
    return RT_OK;
}

int rt_peers_get(rt_peers *t, rt_slice name, rt_peer **out)
{
    if (!rt_node_name_ok(name)) return RT_EINVAL;
    uint64_t hash = rt_hash_bytes(name.p, name.n, 0);
    int rc = RT_OK;
    pthread_mutex_lock(&t->lock);
    rt_peer *p = find(t, name, hash);
    if (p) *out = p;
    else rc = insert(t, name, hash, out);
    pthread_mutex_unlock(&t->lock);
    return rc;
}

rt_pool *rt_peers_pool(rt_peers *t) { return t->large; }

uint32_t rt_peers_count(rt_peers *t)
{
    pthread_mutex_lock(&t->lock);
    uint32_t n = t->count;
    pthread_mutex_unlock(&t->lock);
    return n;
}

rt_peer *rt_peers_at(rt_peers *t, uint32_t number)
{
    pthread_mutex_lock(&t->lock);
    rt_peer *p = number >= 1 && number <= t->count ? t->at[number - 1] : NULL;
    pthread_mutex_unlock(&t->lock);
    return p;
}

void rt_peer_set_state(rt_peer *p, enum rt_peer_state s)
{
    pthread_mutex_lock(&p->out.lock);
    atomic_store_explicit(&p->state, s, memory_order_relaxed); /* decided under the lock */
    pthread_mutex_unlock(&p->out.lock);
}

int rt_peer_set_cookie(rt_peer *p, rt_slice cookie)
{
    uint8_t *copy = NULL;
    if (cookie.n) {
        copy = rt_malloc(cookie.n);
        if (!copy) return RT_ENOMEM;
        memcpy(copy, cookie.p, cookie.n);
    }
    pthread_mutex_lock(&p->out.lock);
    uint8_t *old = p->cookie;
    p->cookie = copy;
    p->cookie_n = cookie.n;
    pthread_mutex_unlock(&p->out.lock);
    rt_free(old);
    return RT_OK;
}

/* Puts every frame that waited back in the form now agreed. */
static int requeue(rt_peer *p, rt_outchunk *list)
{
    for (rt_outchunk *c = list; c; c = c->next) {
        for (size_t at = 0; at < c->n;) {
            size_t n = 4 + (size_t)rt_load_u32(c->data + at);
            int rc = rt_outbound_put_locked(p, rt_slice_of(c->data + at, n));
            if (rc < 0) return rc;
            at += n;
        }
    }
    return RT_OK;
}

int rt_peer_up(rt_peer *p, uint64_t flags, uint32_t creation, const rt_limits *limits)
{
    rt_atom_cache *cache = rt_atom_cache_new();
    rt_fragments *assembly = rt_fragments_new(limits->fragments_in_flight_max,
                                              limits->message_bytes_max, limits->term_depth_max,
                                              p->pool);
    if (!cache || !assembly) {
        rt_atom_cache_free(cache);
        rt_fragments_free(assembly);
        return RT_ENOMEM;
    }
    forget_incoming(p);
    p->cache = cache;
    p->assembly = assembly;
    pthread_mutex_lock(&p->out.lock);
    p->flags = flags;
    p->creation = creation;
    p->header = (flags & (RT_F_DIST_HDR_ATOM_CACHE | RT_F_FRAGMENTS)) != 0;
    p->fragment = (flags & RT_F_FRAGMENTS) != 0;
    uint64_t modern = RT_F_SEND_SENDER | RT_F_EXIT_PAYLOAD | RT_F_UNLINK_ID | RT_F_ALIAS |
                      RT_F_SPAWN;
    p->legacy = !p->header || (flags & modern) != modern;
    rt_outchunk *list = rt_outq_take(&p->out);
    int rc = requeue(p, list);
    if (rc == RT_OK) {
        if (p->out.bytes > limits->queue_bytes_soft) p->above_soft = true; /* heads were added */
        atomic_store_explicit(&p->state, RT_PEER_UP, memory_order_relaxed); /* under the lock */
    } else {
        rt_outchunk_free(rt_outq_take(&p->out));
        atomic_fetch_add_explicit(&p->count.dropped_out, rt_outbound_count(list),
                                  memory_order_relaxed); /* a counter */
    }
    pthread_mutex_unlock(&p->out.lock);
    rt_outchunk_free(list);
    if (rc == RT_OK) {
        atomic_store_explicit(&p->count.up_since, rt_now(), memory_order_relaxed); /* a counter */
        atomic_fetch_add_explicit(&p->count.connects, 1, memory_order_relaxed);    /* a counter */
    }
    return rc;
}

bool rt_peer_above(rt_peer *p, size_t bytes)
{
    pthread_mutex_lock(&p->out.lock);
    bool above = rt_peer_state_of(p) != RT_PEER_IDLE && p->out.bytes > bytes;
    pthread_mutex_unlock(&p->out.lock);
    return above;
}

bool rt_peer_lacks(rt_peer *p, uint64_t flags)
{
    pthread_mutex_lock(&p->out.lock);
    bool lacks = rt_peer_state_of(p) == RT_PEER_UP && (p->flags & flags) != flags;
    pthread_mutex_unlock(&p->out.lock);
    return lacks;
}

uint64_t rt_peer_down(rt_peer *p)
{
    pthread_mutex_lock(&p->out.lock);
    RT_ASSERT(!p->out.writing);
    rt_outchunk *list = rt_outq_take(&p->out);
    atomic_store_explicit(&p->state, RT_PEER_IDLE, memory_order_relaxed); /* under the lock */
    p->above_soft = false;
    pthread_mutex_unlock(&p->out.lock);
    uint64_t lost = rt_outbound_count(list);
    rt_outchunk_free(list);
    atomic_fetch_add_explicit(&p->count.dropped_out, lost, memory_order_relaxed); /* a counter */
    atomic_store_explicit(&p->count.up_since, 0, memory_order_relaxed);           /* a counter */
    forget_incoming(p);
    return lost;
}
