/* Purpose: bytes on their way to one stream: whole frames in chunks, in two lanes.
 * What is in a lane stays in order. The prompt lane goes first; the bulk lane follows in
 * slices that end with a whole frame, so that a small message waits for one slice and not
 * for all that is large before it. Who puts decides which lane is right for a frame: the
 * keys of what waits in the bulk lane tell what may not pass it.
 * Ownership: the queue owns its chunks. The transmit token belongs to whoever
 * set `writing`; only the holder reads chunk bytes or moves the front.
 * Threads: everything under `lock`, except that the token's holder may read
 * the bytes of a snapshot without it: chunks never move, and appending touches
 * only bytes behind the snapshot.
 * Limits: the caller compares `bytes` with its marks. A frame never spans two
 * chunks, so what a broken connection loses can be counted frame by frame; in the bulk lane
 * each has a chunk of its own.
 * Errors: RT_ENOMEM; the queue is then as it was. */
#ifndef RT_BASE_OUTQ_H
#define RT_BASE_OUTQ_H

#include <pthread.h>
#include <sys/uio.h>

#include "base/atomic.h"
#include "base/base.h"
#include "base/buf.h"
#include "base/pool.h"

/* A fragment of 64 KiB fits with its heads. */
#define RT_OUTQ_CHUNK_BYTES (64u * 1024u + 256u)
#define RT_OUTQ_IOV_MAX 64
#define RT_OUTQ_SLICE_MIN (128u * 1024u) /* of the bulk lane, written at a time */
#define RT_OUTQ_SLICE_MAX (512u * 1024u)
#define RT_OUTQ_KEYS 512u
#define RT_OUTQ_PLACES 32u
#define RT_CHUNK_POOL_MAX 32u

/* Memory that chunks point into instead of holding a copy. Who gives the last reference back
 * releases it: any thread, maybe with a queue's lock. */
typedef struct rt_shared {
    _Atomic uint32_t refs;
    void (*release)(struct rt_shared *s);
} rt_shared;

RT_INLINE void rt_shared_init(rt_shared *s, void (*release)(rt_shared *s))
{
    atomic_init(&s->refs, 1);
    s->release = release;
}
/* Takes over the memory of `b`, which is empty then, for one reference; NULL when memory is
 * short, and `b` is as it was. The memory ends in the pool. */
rt_shared *rt_shared_new(rt_buf *b, rt_pool *pool);
void rt_shared_rele(rt_shared *s);           /* NULL is fine */

typedef struct rt_outchunk {
    struct rt_outchunk *next;
    size_t off, n, cap;      /* bytes [off, n) wait */
    rt_shared *shared;       /* NULL, or what `rest` points into: */
    const uint8_t *rest;     /* the bytes from `cap` on stand there */
    bool raw;                /* not frames: the rest of a handshake */
    bool keyed;              /* the last of a message that waits in the bulk lane, */
    uint16_t key[2];         /* and by what it may be asked for */
    uint8_t data[];
} rt_outchunk;

/* Written chunks that serve again: fresh memory costs as much as what is copied into it.
 * Shared by many queues; its lock is taken last. */
typedef struct rt_chunk_pool {
    pthread_mutex_t lock;
    rt_outchunk *free;
    uint32_t count;          /* at most RT_CHUNK_POOL_MAX, each of RT_OUTQ_CHUNK_BYTES */
} rt_chunk_pool;

int rt_chunk_pool_init(rt_chunk_pool *pool);
void rt_chunk_pool_fini(rt_chunk_pool *pool);

enum rt_lane { RT_LANE_PROMPT, RT_LANE_BULK };

typedef struct rt_outlane {
    rt_outchunk *first, *last;
} rt_outlane;

typedef struct rt_outq {
    pthread_mutex_t lock;
    rt_outlane lane[2];
    size_t bytes;            /* waiting, in both */
    size_t planned[3];       /* of the snapshot: the begun bulk frame, prompt, more bulk */
    uint8_t *open;           /* the last prompt frame while it may still grow, or NULL */
    uint64_t open_lead;      /* what stands for the lead of its last message, or 0 */
    uint64_t *places;        /* what stands for the lead in each of its places; NULL: none yet */
    uint32_t open_places;    /* a bit for each that it has */
    uint32_t *keys;          /* how many messages in the bulk lane have each; NULL: none yet */
    bool writing;            /* the transmit token is out */
    _Atomic bool dirty;      /* stands in somebody's list of queues to flush */
    int fd;                  /* -1: not connected */
    size_t slice;            /* of the bulk lane, as long as suits the connection: see conn.c */
    size_t slice_unsent;     /* what was unsent behind the last one; 0: the lane had no more */
    uint64_t slice_at;       /* when; ns */
    uint64_t written;        /* bytes, since the last connect */
    rt_chunk_pool *pool;     /* or NULL */
} rt_outq;

/* Where appending stood. */
typedef struct rt_outq_mark {
    rt_outchunk *last;
    size_t n, bytes;
} rt_outq_mark;

int rt_outq_init(rt_outq *q, rt_chunk_pool *pool);
void rt_outq_fini(rt_outq *q);
/* With the lock held: */
int rt_outq_put(rt_outq *q, const void *frame, size_t n);
/* Room for n contiguous bytes at the end, added already; NULL when memory is short. */
uint8_t *rt_outq_add(rt_outq *q, size_t n);
/* The same for one frame in the bulk lane. */
uint8_t *rt_outq_add_bulk(rt_outq *q, size_t n);
/* The same for one whose first `head` bytes are to be written and whose last n stand in shared
 * memory, which this refers to once more. */
uint8_t *rt_outq_add_shared(rt_outq *q, size_t head, const uint8_t *p, size_t n, rt_shared *s);
/* What was added to the bulk lane last ends a message that has these keys until it is
 * written. Makes room for keys first; RT_ENOMEM: nothing has changed. */
int rt_outq_keys_ready(rt_outq *q);
void rt_outq_key(rt_outq *q, uint32_t one, uint32_t other);
RT_INLINE bool rt_outq_bulk(const rt_outq *q) { return q->lane[RT_LANE_BULK].first != NULL; }
RT_INLINE bool rt_outq_has_key(const rt_outq *q, uint32_t key) { return q->keys && q->keys[key]; }
/* acquire pairs with the release in set_dirty of driver.c: see rt_driver_mark */
RT_INLINE bool rt_outq_is_dirty(const rt_outq *q)
{
    return atomic_load_explicit(&((rt_outq *)q)->dirty, memory_order_acquire);
}
/* The frame added last to the prompt lane, of n bytes, may grow until something else is added
 * or a snapshot is taken: whoever writes has not seen it yet. */
void rt_outq_keep_open(rt_outq *q, size_t n);
/* n more bytes for the open frame; NULL when there is none, or no room behind it. */
RT_INLINE uint8_t *rt_outq_grow(rt_outq *q, size_t n)
{
    rt_outchunk *c = q->lane[RT_LANE_PROMPT].last;
    if (!q->open || c->cap - c->n < n) return NULL;
    uint8_t *p = c->data + c->n;
    c->n += n;
    q->bytes += n;
    return p;
}
/* Makes room for places. RT_ENOMEM: nothing has changed. */
int rt_outq_places_ready(rt_outq *q);
/* Takes back what was added to that lane since the mark, all under one hold of the lock and
 * without keys. */
rt_outq_mark rt_outq_here(const rt_outq *q, enum rt_lane lane);
void rt_outq_undo(rt_outq *q, enum rt_lane lane, rt_outq_mark mark);
/* Puts bytes before everything else; only while nobody holds the token. */
int rt_outq_put_front(rt_outq *q, const void *p, size_t n);
/* Takes all chunks out, the prompt ones first. */
rt_outchunk *rt_outq_take(rt_outq *q);
void rt_outchunk_free(rt_outchunk *list);
/* What the token's holder writes next; returns the number of vectors. `bulk`: how much of the
 * bulk lane may be among it, in whole frames, behind the rest of a frame that was begun: one more
 * frame when that is not 0. */
int rt_outq_snapshot(rt_outq *q, struct iovec *iov, int max, size_t bytes_max, size_t bulk);
/* So much of the snapshot has been written. */
void rt_outq_consume(rt_outq *q, size_t n);

#endif
