/* Purpose: memory of small blocks that serves again. Who gets messages for many processes in
 * turns needs a block for each of them; the allocator splits and merges such sizes each time.
 * A stock is a ring of slabs. A slab has 64 lines, one bit each in a word: its own head, and what
 * blocks are made of. One thread takes blocks, line by line through a slab as long as there are
 * lines; any thread returns one by setting its bits. A list of free blocks would be shorter, but
 * is slower than the allocator: blocks come back in another order than they were made in, and
 * following them through cold memory costs more than it spares.
 * Ownership: a stock is part of its taker, and a slab is its stock's until it is closed. From
 * then on nobody takes from it, and whoever sets the last bit frees it: blocks may come back
 * when the taker is gone.
 * Threads:
 *   operation  | may run with | needs
 *   take, fini | return       | one taker at a time
 *   return     | everything   | that the block is the caller's, and a stock's
 * Invariants:
 *   S1 each line is at one place: its bit is set, or in the taker's `lines`, or it is in a block;
 *   S2 bit 0, the head's, is set by closing alone, so no slab of an open stock has all bits set,
 *      and a closed one, whose bits are only ever set, has all of them exactly once;
 *   S3 who sets bits does not touch the slab afterwards, unless these were the last.
 * Limits: RT_STOCK_ROOM_MAX bytes of room for each block, RT_STOCK_BYTES_MAX for the slabs of a
 * stock. What is beyond is the allocator's, as is everything while unread messages take up all
 * slabs.
 * Errors: NULL from take when there is no room, or no memory for more. */
#ifndef RT_PROC_STOCK_H
#define RT_PROC_STOCK_H

#include "base/atomic.h"
#include "base/base.h"

/* What one read brings, and some that waits in boxes meanwhile. */
#ifndef RT_STOCK_BYTES_MAX
#define RT_STOCK_BYTES_MAX (1024u * 1024u)
#endif
#define RT_STOCK_ROOM_MAX 480u
#define RT_SLAB_LINE_BYTES 64u
#define RT_SLAB_BYTES (64u * RT_SLAB_LINE_BYTES)
#define RT_STOCK_SLABS_MAX (RT_STOCK_BYTES_MAX / RT_SLAB_BYTES)

struct rt_block;
typedef struct rt_slab rt_slab;

/* The taker's. Zeroed memory is an empty one. */
typedef struct rt_stock {
    rt_slab *slab;       /* of the ring, the one that blocks are taken from; NULL: there is none */
    uint64_t lines;      /* its lines that are left */
    uint32_t slabs;
} rt_stock;

/* A block with at least `room` bytes, room <= RT_STOCK_ROOM_MAX, behind its head. */
struct rt_block *rt_stock_take(rt_stock *s, size_t room);
void rt_stock_return(struct rt_block *b);
/* Closes its slabs. The stock is empty then, and may be used again. */
void rt_stock_fini(rt_stock *s);

#endif
