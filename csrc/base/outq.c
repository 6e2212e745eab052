#include "base/outq.h"

#include "base/alloc.h"

#define SMALL_CHUNK_BYTES 4096u

int rt_chunk_pool_init(rt_chunk_pool *pool)
{
    memset(pool, 0, sizeof *pool);
    return pthread_mutex_init(&pool->lock, NULL) == 0 ? RT_OK : RT_ENOMEM;
}

void rt_chunk_pool_fini(rt_chunk_pool *pool)
{
    rt_outchunk_free(pool->free);
    pthread_mutex_destroy(&pool->lock);
}

static rt_outchunk *pool_take(rt_chunk_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    rt_outchunk *c = pool->free;
    if (c) {
        pool->free = c->next;
        pool->count--;
    }
    pthread_mutex_unlock(&pool->lock);
    return c;
}

static bool pool_give(rt_chunk_pool *pool, rt_outchunk *c)
{
    pthread_mutex_lock(&pool->lock);
    bool room = pool->count < RT_CHUNK_POOL_MAX;
    if (room) {
        c->next = pool->free;
        pool->free = c;
        pool->count++;
    }
    pthread_mutex_unlock(&pool->lock);
    return room;
}

int rt_outq_init(rt_outq *q, rt_chunk_pool *pool)
{
    memset(q, 0, sizeof *q);
    q->fd = -1;
    q->slice = RT_OUTQ_SLICE_MIN;
    q->pool = pool;
    return pthread_mutex_init(&q->lock, NULL) == 0 ? RT_OK : RT_ENOMEM;
}

void rt_outq_fini(rt_outq *q)
{
    rt_outchunk_free(rt_outq_take(q));
    rt_free(q->keys);
    rt_free(q->places);
    q->keys = NULL;
    q->places = NULL;
    pthread_mutex_destroy(&q->lock);
}

typedef struct pooled {
    rt_shared shared;
    rt_pool *pool;           /* held */
    rt_buf memory;
} pooled;

static void release_pooled(rt_shared *s)
{
    pooled *own = RT_CONTAINER_OF(s, pooled, shared);
    rt_pool_give(own->pool, own->memory.p, own->memory.cap);
    rt_pool_rele(own->pool);
    rt_free(own);
}

rt_shared *rt_shared_new(rt_buf *b, rt_pool *pool)
{
    pooled *own = rt_malloc(sizeof *own);
    if (!own) return NULL;
    rt_shared_init(&own->shared, release_pooled);
    rt_pool_hold(pool);
    own->pool = pool;
    own->memory = *b;
    *b = (rt_buf)RT_BUF_INIT;
    return &own->shared;
}

void rt_shared_rele(rt_shared *s)
{
    /* acq_rel: the release comes after everybody's reading */
    if (s && atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) == 1) s->release(s);
}

void rt_outchunk_free(rt_outchunk *list)
{
    while (list) {
        rt_outchunk *next = list->next;
        rt_shared_rele(list->shared);
        rt_free(list);
        list = next;
    }
}

rt_outchunk *rt_outq_take(rt_outq *q)
{
    rt_outlane *prompt = &q->lane[RT_LANE_PROMPT], *bulk = &q->lane[RT_LANE_BULK];
    rt_outchunk *list = prompt->first ? prompt->first : bulk->first;
    if (prompt->last) prompt->last->next = bulk->first;
    memset(q->lane, 0, sizeof q->lane);
    memset(q->planned, 0, sizeof q->planned);
    if (q->keys) memset(q->keys, 0, RT_OUTQ_KEYS * sizeof *q->keys);
    q->bytes = 0;
    q->open = NULL;
    return list;
}

static rt_outchunk *chunk_new(rt_outq *q, size_t n)
{
    rt_outchunk *c = NULL;
    if (q->pool && n == RT_OUTQ_CHUNK_BYTES) c = pool_take(q->pool);
    if (!c) c = rt_malloc(sizeof *c + n);
    if (!c) return NULL;
    c->next = NULL;
    c->off = c->n = 0;
    c->cap = n;
    c->raw = c->keyed = false;
    c->shared = NULL;
    return c;
}

static void chunk_free(rt_outq *q, rt_outchunk *c)
{
    rt_shared_rele(c->shared);
    if (!q->pool || c->cap != RT_OUTQ_CHUNK_BYTES || !pool_give(q->pool, c)) rt_free(c);
}

/* A quiet peer's few bytes take a small chunk. One that follows a full one is large, so
 * that a busy peer is written in few vectors. */
static size_t room_for(const rt_outlane *l, size_t n)
{
    if (!l->last && n <= SMALL_CHUNK_BYTES) return SMALL_CHUNK_BYTES;
    return n <= RT_OUTQ_CHUNK_BYTES ? RT_OUTQ_CHUNK_BYTES : n;
}

static uint8_t *append(rt_outq *q, rt_outlane *l, size_t n, size_t room)
{
    rt_outchunk *c = l->last;
    if (room) {
        c = chunk_new(q, room);
        if (!c) return NULL;
        if (l->last) l->last->next = c;
        else l->first = c;
        l->last = c;
    }
    uint8_t *p = c->data + c->n;
    c->n += n;
    q->bytes += n;
    q->open = NULL;
    return p;
}

void rt_outq_keep_open(rt_outq *q, size_t n)
{
    rt_outchunk *c = q->lane[RT_LANE_PROMPT].last;
    q->open = c->data + c->n - n;
    q->open_places = 0;
}

int rt_outq_places_ready(rt_outq *q)
{
    if (!q->places) q->places = rt_calloc(RT_OUTQ_PLACES, sizeof *q->places);
    return q->places ? RT_OK : RT_ENOMEM;
}

uint8_t *rt_outq_add(rt_outq *q, size_t n)
{
    rt_outlane *l = &q->lane[RT_LANE_PROMPT];
    return append(q, l, n, !l->last || l->last->cap - l->last->n < n ? room_for(l, n) : 0);
}

uint8_t *rt_outq_add_bulk(rt_outq *q, size_t n)
{
    bool pooled = n > SMALL_CHUNK_BYTES && n <= RT_OUTQ_CHUNK_BYTES;
    return append(q, &q->lane[RT_LANE_BULK], n, pooled ? RT_OUTQ_CHUNK_BYTES : n);
}

uint8_t *rt_outq_add_shared(rt_outq *q, size_t head, const uint8_t *p, size_t n, rt_shared *s)
{
    uint8_t *to = append(q, &q->lane[RT_LANE_BULK], head, head);
    if (!to) return NULL;
    rt_outchunk *c = q->lane[RT_LANE_BULK].last;
    /* relaxed: who holds one can hand on another */
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    c->shared = s;
    c->rest = p;
    c->n += n;
    q->bytes += n;
    return to;
}

int rt_outq_keys_ready(rt_outq *q)
{
    if (!q->keys) q->keys = rt_calloc(RT_OUTQ_KEYS, sizeof *q->keys);
    return q->keys ? RT_OK : RT_ENOMEM;
}

void rt_outq_key(rt_outq *q, uint32_t one, uint32_t other)
{
    rt_outchunk *c = q->lane[RT_LANE_BULK].last;
    c->keyed = true;
    c->key[0] = (uint16_t)one;
    c->key[1] = (uint16_t)other;
    q->keys[one]++;
    q->keys[other]++;
}

int rt_outq_put(rt_outq *q, const void *frame, size_t n)
{
    uint8_t *p = rt_outq_add(q, n);
    if (!p) return RT_ENOMEM;
    memcpy(p, frame, n);
    return RT_OK;
}

rt_outq_mark rt_outq_here(const rt_outq *q, enum rt_lane lane)
{
    rt_outchunk *last = q->lane[lane].last;
    return (rt_outq_mark){last, last ? last->n : 0, q->bytes};
}

void rt_outq_undo(rt_outq *q, enum rt_lane lane, rt_outq_mark mark)
{
    rt_outlane *l = &q->lane[lane];
    rt_outchunk *added = mark.last ? mark.last->next : l->first;
    l->last = mark.last;
    if (mark.last) {
        mark.last->next = NULL;
        mark.last->n = mark.n;
    } else {
        l->first = NULL;
    }
    q->bytes = mark.bytes;
    q->open = NULL;
    rt_outchunk_free(added);
}

int rt_outq_put_front(rt_outq *q, const void *p, size_t n)
{
    RT_ASSERT(!q->writing);
    rt_outchunk *c = chunk_new(q, n);
    if (!c) return RT_ENOMEM;
    memcpy(c->data, p, n);
    c->n = n;
    c->raw = true;
    rt_outlane *l = &q->lane[RT_LANE_PROMPT];
    c->next = l->first;
    l->first = c;
    if (!l->last) l->last = c;
    q->bytes += n;
    return RT_OK;
}

/* Vectors for chunks from c on, as far as there is room; *left: bytes there may be. Returns
 * the first chunk that is not wholly among them. */
static const rt_outchunk *gather(const rt_outchunk *c, size_t limit, struct iovec *iov, int *k,
                                 int max, size_t *left, size_t *planned)
{
    for (; c && *k + (c->shared ? 2 : 1) <= max && *left > 0 && limit > 0; c = c->next) {
        size_t have = c->n - c->off, n = have;
        if (n > *left) n = *left;
        limit = n < limit ? limit - n : 0;
        *left -= n;
        *planned += n;
        for (size_t at = c->off, end = at + n; at < end; ++*k) {
            bool rest = c->shared && at >= c->cap;
            size_t part = c->shared && !rest && end > c->cap ? c->cap - at : end - at;
            iov[*k].iov_base = (uint8_t *)(rest ? c->rest + (at - c->cap) : c->data + at);
            iov[*k].iov_len = part;
            at += part;
        }
        if (n < have) return c;
    }
    return c;
}

int rt_outq_snapshot(rt_outq *q, struct iovec *iov, int max, size_t bytes_max, size_t bulk)
{
    const rt_outchunk *more = q->lane[RT_LANE_BULK].first;
    int k = 0;
    q->open = NULL;
    memset(q->planned, 0, sizeof q->planned);
    if (more && more->off > 0) {     /* a frame that was begun is ended first */
        const rt_outchunk *rest = gather(more, 1, iov, &k, max, &bytes_max, &q->planned[0]);
        if (rest == more) return k;
        more = more->next;
    }
    if (gather(q->lane[RT_LANE_PROMPT].first, SIZE_MAX, iov, &k, max, &bytes_max, &q->planned[1]))
        return k;
    /* Whole frames until the slice is full, so one at least. */
    if (bulk) gather(more, bulk, iov, &k, max, &bytes_max, &q->planned[2]);
    return k;
}

static void consume(rt_outq *q, rt_outlane *l, size_t n)
{
    while (l->first) {
        rt_outchunk *c = l->first;
        size_t have = c->n - c->off;
        if (have > n) {
            c->off += n;
            return;
        }
        n -= have;
        if (c == l->last) {
            /* Kept and rewound: the next frame needs no allocation. */
            if (l == &q->lane[RT_LANE_PROMPT] && c->cap <= SMALL_CHUNK_BYTES) {
                c->off = c->n = 0;
                return;
            }
            l->last = NULL;
        }
        l->first = c->next;
        if (c->keyed) {
            q->keys[c->key[0]]--;
            q->keys[c->key[1]]--;
        }
        chunk_free(q, c);
    }
}

void rt_outq_consume(rt_outq *q, size_t n)
{
    static const enum rt_lane lane[3] = {RT_LANE_BULK, RT_LANE_PROMPT, RT_LANE_BULK};
    RT_ASSERT(n <= q->planned[0] + q->planned[1] + q->planned[2]);
    q->bytes -= n;
    q->written += n;
    for (int i = 0; i < 3 && n > 0; i++) {
        size_t part = n < q->planned[i] ? n : q->planned[i];
        if (part) consume(q, &q->lane[lane[i]], part);
        n -= part;
    }
}
