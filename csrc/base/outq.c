#include "base/outq.h"

#include "base/alloc.h"

int rt_outq_init(rt_outq *q)
{
    memset(q, 0, sizeof *q);
    q->fd = -1;
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

static rt_outchunk *chunk_new(size_t n)
{
    /* A quiet peer's few bytes take a small chunk; a chunk that follows a full
     * one is large, so that a busy peer is written in few vectors. */
    rt_outchunk *c = rt_malloc(sizeof *c + n);
    if (!c) return NULL;
    c->next = NULL;
    c->off = c->n = 0;
    c->cap = n;
    c->raw = false;
    return c;
}

uint8_t *rt_outq_add(rt_outq *q, size_t n)
{
    rt_outchunk *c = q->last;
    if (!c || c->cap - c->n < n) {
        size_t cap = c ? RT_OUTQ_CHUNK_BYTES : RT_OUTQ_CHUNK_BYTES / 16;
        c = chunk_new(n > cap ? n : cap);
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

int rt_outq_put_front(rt_outq *q, const void *p, size_t n)
{
    RT_ASSERT(!q->writing);
    rt_outchunk *c = chunk_new(n);
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
            if (c->cap <= RT_OUTQ_CHUNK_BYTES / 16) {
                c->off = c->n = 0;
                return;
            }
            q->last = NULL;
        }
        q->first = c->next;
        rt_free(c);
    }
}
