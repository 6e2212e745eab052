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
    q->pool = pool;
    return pthread_mutex_init(&q->lock, NULL) == 0 ? RT_OK : RT_ENOMEM;
}

void rt_outq_fini(rt_outq *q)
{
    rt_outchunk_free(rt_outq_take(q));
    pthread_mutex_destroy(&q->lock);
}

void rt_outchunk_free(rt_outchunk *list)
{
    while (list) {
        rt_outchunk *next = list->next;
        rt_free(list);
        list = next;
    }
}

rt_outchunk *rt_outq_take(rt_outq *q)
{
    rt_outchunk *list = q->first;
    q->first = q->last = NULL;
    q->bytes = 0;
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
    c->raw = false;
    return c;
}

static void chunk_free(rt_outq *q, rt_outchunk *c)
{
    if (!q->pool || c->cap != RT_OUTQ_CHUNK_BYTES || !pool_give(q->pool, c)) rt_free(c);
}

/* A quiet peer's few bytes take a small chunk. One that follows a full one is large, so
 * that a busy peer is written in few vectors. */
static size_t room_for(const rt_outq *q, size_t n)
{
    if (!q->last && n <= SMALL_CHUNK_BYTES) return SMALL_CHUNK_BYTES;
    return n <= RT_OUTQ_CHUNK_BYTES ? RT_OUTQ_CHUNK_BYTES : n;
}

uint8_t *rt_outq_add(rt_outq *q, size_t n)
{
    rt_outchunk *c = q->last;
    if (!c || c->cap - c->n < n) {
        c = chunk_new(q, room_for(q, n));
        if (!c) return NULL;
        if (q->last) q->last->next = c;
        else q->first = c;
        q->last = c;
    }
    uint8_t *p = c->data + c->n;
    c->n += n;
    q->bytes += n;
    return p;
}

int rt_outq_put(rt_outq *q, const void *frame, size_t n)
{
    uint8_t *p = rt_outq_add(q, n);
    if (!p) return RT_ENOMEM;
    memcpy(p, frame, n);
    return RT_OK;
}

rt_outq_mark rt_outq_here(const rt_outq *q)
{
    return (rt_outq_mark){q->last, q->last ? q->last->n : 0, q->bytes};
}

void rt_outq_undo(rt_outq *q, rt_outq_mark mark)
{
    rt_outchunk *added = mark.last ? mark.last->next : q->first;
    q->last = mark.last;
    if (mark.last) {
        mark.last->next = NULL;
        mark.last->n = mark.n;
    } else {
        q->first = NULL;
    }
    q->bytes = mark.bytes;
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
    c->next = q->first;
    q->first = c;
    if (!q->last) q->last = c;
    q->bytes += n;
    return RT_OK;
}

int rt_outq_snapshot(rt_outq *q, struct iovec *iov, int max, size_t bytes_max)
{
    int k = 0;
    for (rt_outchunk *c = q->first; c && k < max && bytes_max > 0; c = c->next) {
        size_t n = c->n - c->off;
        if (n > bytes_max) n = bytes_max;
        if (n == 0) continue;
        iov[k].iov_base = c->data + c->off;
        iov[k].iov_len = n;
        bytes_max -= n;
        k++;
    }
    return k;
}

void rt_outq_consume(rt_outq *q, size_t n)
{
    RT_ASSERT(n <= q->bytes);
    q->bytes -= n;
    q->written += n;
    while (q->first) {
        rt_outchunk *c = q->first;
        size_t have = c->n - c->off;
        if (have > n) {
            c->off += n;
            return;
        }
        n -= have;
        if (c == q->last) {
            /* Kept and rewound: the next frame needs no allocation. */
            if (c->cap <= SMALL_CHUNK_BYTES) {
                c->off = c->n = 0;
                return;
            }
            q->last = NULL;
        }
        q->first = c->next;
        chunk_free(q, c);
    }
}
