/* Purpose: one message in a mailbox: a validated external term without version
 * byte, standing right behind its head, in a block that holds one or more
 * messages of one destination.
 * Ownership: a block belongs to whoever builds it until its messages are
 * pushed, then to the consumer; after a push nothing is added to it. The count
 * of live messages is plain: one thread at a time owns a block.
 * Threads: none of its own; a chain and a block have one owner at a time.
 * Limits: blocks of a chain start at the size of the first message and double
 * up to RT_BLOCK_BYTES, so a chain holds at most twice what is in it; a larger
 * message has a block of its own size.
 * Errors: NULL when memory is short. */
#ifndef RT_PROC_MESSAGE_H
#define RT_PROC_MESSAGE_H

#include "base/atomic.h"
#include "base/base.h"
#include "base/pool.h"
#include "proc/stock.h"
#include "sync/mpsc.h"

#define RT_BLOCK_BYTES 8192u

typedef uint64_t rt_pid;    /* serial << 32 | id; 0 is nobody */

typedef struct rt_block {
    uint32_t live;              /* messages not yet freed */
    uint32_t stocked;           /* not 0: lines of `slab` */
    size_t used, cap;           /* bytes behind this head */
    union {
        rt_pool *pool;          /* held, and given this memory at the end; or NULL */
        rt_slab *slab;          /* a stock's, which gets its lines back */
    };
} rt_block;

typedef struct rt_message {
    rt_link link;           /* first. In a chain and on a pile: to the next older one */
    rt_block *block;
    rt_pid target;
    uint32_t n;             /* bytes of the term */
    uint16_t signal;        /* not 0: this node says it, no peer */
    uint16_t counted;       /* not 0: its bytes stand in its mailbox's account */
} rt_message;

RT_INLINE uint8_t *rt_message_data(rt_message *m) { return (uint8_t *)(m + 1); }
RT_INLINE rt_slice rt_message_slice(rt_message *m) { return rt_slice_of(m + 1, m->n); }

/* A chain under construction, linked from last (newest) to first (oldest). */
typedef struct rt_chain {
    rt_message *first, *last;
    uint32_t count;
    uint64_t bytes;         /* of the terms */
} rt_chain;

/* Appends a message with room for n bytes to the chain, in the last block when
 * it fits, else in a new one; NULL when memory is short (chain untouched). */
rt_message *rt_chain_add(rt_chain *chain, rt_pid target, uint32_t n);
/* The same; small blocks are taken from the stock, which may be NULL. */
rt_message *rt_chain_add_from(rt_chain *chain, rt_stock *stock, rt_pid target, uint32_t n);
/* Appends the n bytes that stand RT_MESSAGE_HEADROOM bytes behind `memory`, of `cap` bytes, as a
 * message of a block of its own; the memory is the chain's from now on, and in the end given to
 * the pool, which may be NULL. */
#define RT_MESSAGE_HEADROOM (sizeof(rt_block) + sizeof(rt_message))
void rt_chain_adopt(rt_chain *chain, rt_pid target, void *memory, size_t cap, uint32_t n,
                    rt_pool *pool);
/* Takes the last added message back (its content proved invalid). Only right
 * after rt_chain_add. */
void rt_chain_undo(rt_chain *chain);
void rt_message_free(rt_message *m);     /* frees its block with the last one; NULL is fine */
void rt_chain_free(rt_chain *chain);     /* frees all and empties the chain */
/* Frees the newest messages until `count` are left. */
void rt_chain_cut(rt_chain *chain, uint32_t count);

#endif
