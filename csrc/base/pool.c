#include "base/pool.h"

#include <pthread.h>

#include "base/alloc.h"
#include "base/atomic.h"

typedef struct piece {
    void *at;
    size_t cap;
} piece;

struct rt_pool {
    pthread_mutex_t lock;
    _Atomic uint32_t held;
    uint32_t count;
    size_t bytes;
    piece kept[RT_POOL_PIECES];   /* the one that was given last stands last */
};

rt_pool *rt_pool_new(void)
{
    rt_pool *p = rt_calloc(1, sizeof *p);
    if (!p) return NULL;
    if (pthread_mutex_init(&p->lock, NULL) != 0) {
        rt_free(p);
        return NULL;
    }
    atomic_init(&p->held, 1);
    return p;
}

void rt_pool_hold(rt_pool *p)
{
    /* relaxed: who holds one can hand on another */
    atomic_fetch_add_explicit(&p->held, 1, memory_order_relaxed);
}

void rt_pool_rele(rt_pool *p)
{
    /* acq_rel: the last one sees what all others did with it */
    if (!p || atomic_fetch_sub_explicit(&p->held, 1, memory_order_acq_rel) > 1) return;
    for (uint32_t i = 0; i < p->count; i++) rt_free(p->kept[i].at);
    pthread_mutex_destroy(&p->lock);
    rt_free(p);
}

/* Takes the i-th out; the others stay in order. */
static piece take_out(rt_pool *p, uint32_t i)
{
    piece found = p->kept[i];
    p->count--;
    p->bytes -= found.cap;
    memmove(&p->kept[i], &p->kept[i + 1], (p->count - i) * sizeof *p->kept);
    return found;
}

void *rt_pool_take(rt_pool *p, size_t least, size_t *cap)
{
    piece found = {NULL, 0};
    *cap = 0;
    if (least > RT_POOL_BYTES_MAX) return NULL;
    pthread_mutex_lock(&p->lock);
    for (uint32_t i = p->count; i > 0 && !found.at; i--)  /* the last is in the cache still */
        if (p->kept[i - 1].cap >= least && p->kept[i - 1].cap / 2 <= least)
            found = take_out(p, i - 1);
    pthread_mutex_unlock(&p->lock);
    *cap = found.cap;
    return found.at;
}

void rt_pool_give(rt_pool *p, void *at, size_t cap)
{
    piece old[RT_POOL_PIECES];
    uint32_t n = 0;
    if (cap < RT_POOL_PIECE_BYTES_MIN || cap > RT_POOL_BYTES_MAX) {
        rt_free(at);
        return;
    }
    pthread_mutex_lock(&p->lock);
    /* The oldest go, so that sizes nobody asks for any more do not stay. */
    while (p->count == RT_POOL_PIECES || p->bytes > RT_POOL_BYTES_MAX - cap)
        old[n++] = take_out(p, 0);
    p->kept[p->count++] = (piece){at, cap};
    p->bytes += cap;
    pthread_mutex_unlock(&p->lock);
    while (n > 0) rt_free(old[--n].at);
}
