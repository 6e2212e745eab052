/* Purpose: large pieces of memory that serve again: fresh memory costs as much as what is copied
 * into it, and the allocator gives a large piece back to the system as soon as it is free.
 * Ownership: a piece belongs to whoever took it or allocated it (rt_malloc), until it is given.
 * Who keeps the pool beside pieces that will be given back holds it; the last one to let go
 * frees it. Pieces may be given by a thread after the pool's maker is gone.
 * Threads: any.
 * Limits: RT_POOL_PIECES pieces of RT_POOL_PIECE_BYTES_MIN to RT_POOL_BYTES_MAX bytes are kept,
 * together at most RT_POOL_BYTES_MAX.
 * Errors: NULL from new when memory is short. */
#ifndef RT_BASE_POOL_H
#define RT_BASE_POOL_H

#include "base/base.h"

#define RT_POOL_PIECES 8u
#define RT_POOL_PIECE_BYTES_MIN (64u * 1024u)
#define RT_POOL_BYTES_MAX (8u * 1024u * 1024u)

typedef struct rt_pool rt_pool;

rt_pool *rt_pool_new(void);                   /* held once */
void rt_pool_hold(rt_pool *p);
void rt_pool_rele(rt_pool *p);                /* NULL is fine */
/* A piece of `least` bytes, and not over twice as many; NULL when none is kept. */
void *rt_pool_take(rt_pool *p, size_t least, size_t *cap);
/* Keeps or frees it. */
void rt_pool_give(rt_pool *p, void *piece, size_t cap);

#endif
