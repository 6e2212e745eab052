/* Purpose: bytes on their way to one stream: whole frames in chunks, in order.
 * Ownership: the queue owns its chunks. The transmit token belongs to whoever
 * set `writing`; only the holder reads chunk bytes or moves the front.
 * Threads: everything under `lock`, except that the token's holder may read
 * the bytes of a snapshot without it: chunks never move, and appending touches
 * only bytes behind the snapshot.
 * Limits: the caller compares `bytes` with its marks. A frame never spans two
 * chunks, so what a broken connection loses can be counted frame by frame.
 * Errors: RT_ENOMEM; the queue is then as it was. */
#ifndef RT_BASE_OUTQ_H
#define RT_BASE_OUTQ_H

#include <pthread.h>
#include <sys/uio.h>

#include "base/atomic.h"
#include "base/base.h"

/* A fragment of 64 KiB fits with its heads. */
#define RT_OUTQ_CHUNK_BYTES (64u * 1024u + 256u)
#define RT_OUTQ_IOV_MAX 64
#define RT_CHUNK_POOL_MAX 32u

typedef struct rt_outchunk {
    struct rt_outchunk *next;
    size_t off, n, cap;      /* bytes [off, n) wait */
    bool raw;                /* not frames: the rest of a handshake */
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

typedef struct rt_outq {
    pthread_mutex_t lock;
    rt_outchunk *first, *last;
    size_t bytes;            /* waiting */
    bool writing;            /* the transmit token is out */
    _Atomic bool dirty;      /* stands in somebody's list of queues to flush */
    int fd;                  /* -1: not connected */
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
/* Takes back what was added since the mark, all under one hold of the lock. */
rt_outq_mark rt_outq_here(const rt_outq *q);
void rt_outq_undo(rt_outq *q, rt_outq_mark mark);
/* Puts bytes before everything else; only while nobody holds the token. */
int rt_outq_put_front(rt_outq *q, const void *p, size_t n);
/* Takes all chunks out. */
rt_outchunk *rt_outq_take(rt_outq *q);
void rt_outchunk_free(rt_outchunk *list);
/* What the token's holder writes next; returns the number of vectors. */
int rt_outq_snapshot(rt_outq *q, struct iovec *iov, int max, size_t bytes_max);
void rt_outq_consume(rt_outq *q, size_t n);

#endif
