#include "proc/stock.h"

#include "base/alloc.h"
#include "proc/message.h"

#define LINE RT_SLAB_LINE_BYTES
#define HEAD 1ull            /* the head's bit */
#define ALL UINT64_MAX
#define NONE 64u

struct rt_slab {
    _Atomic uint64_t free;   /* lines nobody has */
    rt_slab *next;           /* in the ring; the taker's */
};

_Static_assert(sizeof(rt_slab) <= LINE, "the head is one line");
_Static_assert(RT_STOCK_SLABS_MAX > 0, "room for one");

/* The address sanitizer is told what no block has, so that it sees who uses a message after
 * freeing it, as it does with the allocator's memory; and a line behind each block is kept from
 * all others, so that it sees who reads past the end. */
#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#include <sanitizer/asan_interface.h>
#define GUARD LINE
RT_INLINE void forbid(void *p, size_t n) { ASAN_POISON_MEMORY_REGION(p, n); }
RT_INLINE void permit(void *p, size_t n) { ASAN_UNPOISON_MEMORY_REGION(p, n); }
#else
#define GUARD 0u
RT_INLINE void forbid(void *p, size_t n) { (void)p, (void)n; }
RT_INLINE void permit(void *p, size_t n) { (void)p, (void)n; }
#endif

RT_INLINE uint32_t lines_for(size_t room) {
    return (uint32_t)((sizeof(rt_block) + room + GUARD + LINE - 1) / LINE);
}

RT_INLINE uint64_t bits_of(uint32_t first, uint32_t n) { return ((1ull << n) - 1) << first; }

/* The lowest place where n bits in a row are set, or NONE. */
RT_INLINE uint32_t run_of(uint64_t bits, uint32_t n) {
    uint32_t low = bits ? (uint32_t)__builtin_ctzll(bits) : 0;
    if (RT_LIKELY((bits >> low & bits_of(0, n)) == bits_of(0, n))) return low;
    for (uint32_t have = 1, more; have < n; have += more) {
        more = have < n - have ? have : n - have;
        bits &= bits >> more;
    }
    return bits ? (uint32_t)__builtin_ctzll(bits) : NONE;
}

/* Lines that nobody has from now on; those of closed slabs as well. */
static void give(rt_slab *slab, uint64_t bits) {
    /* Release: partner of turn_to's exchange. All are RMWs, so one exchange synchronises with
     * each whose bits it gets. Acquire: who frees the slab comes after all others. */
    uint64_t was = atomic_fetch_or_explicit(&slab->free, bits, memory_order_acq_rel);
    RT_ASSERT(!(was & bits));
    if (RT_UNLIKELY((was | bits) == ALL)) rt_free(slab);
}

static rt_slab *slab_new(void) {
    rt_slab *slab = rt_aligned(LINE, RT_SLAB_BYTES);
    if (!slab) return NULL;
    forbid((uint8_t *)slab + LINE, RT_SLAB_BYTES - LINE);
    atomic_init(&slab->free, ALL & ~HEAD);
    return slab;
}

/* Puts the rest of its slab back. */
static void leave(rt_stock *s) {
    if (s->lines) give(s->slab, s->lines);
    s->lines = 0;
}

static void turn_to(rt_stock *s, rt_slab *slab) {
    leave(s);
    s->slab = slab;
    s->lines = atomic_exchange_explicit(&slab->free, 0, memory_order_acquire); /* of give */
}

/* The next slab with n lines in a row. Before the stock grows all are looked at. When it is as large
 * as it may be, one: that look is all that a block may cost which the allocator gives then. */
static rt_slab *find(const rt_stock *s, uint32_t n) {
    uint32_t looks = s->slabs < RT_STOCK_SLABS_MAX ? s->slabs : 1;
    for (rt_slab *slab = s->slab; looks > 0; looks--) {
        slab = slab->next;
        /* relaxed: until turn_to's exchange lines are only added */
        if (run_of(atomic_load_explicit(&slab->free, memory_order_relaxed), n) != NONE) return slab;
    }
    return NULL;
}

static rt_slab *grow(rt_stock *s) {
    rt_slab *slab = s->slabs < RT_STOCK_SLABS_MAX ? slab_new() : NULL;
    if (!slab) return NULL;
    slab->next = s->slab ? s->slab->next : slab;
    if (s->slab) s->slab->next = slab;
    s->slabs++;
    return slab;
}

/* Goes on to a slab with n lines in a row. */
RT_APART bool turn(rt_stock *s, uint32_t n) {
    rt_slab *slab = find(s, n);
    if (!slab) slab = grow(s);
    if (slab) {
        turn_to(s, slab);
    } else if (s->slab) {
        leave(s);
        s->slab = s->slab->next; /* the one behind it is looked at next time */
    }
    return slab != NULL;
}

rt_block *rt_stock_take(rt_stock *s, size_t room) {
    uint32_t n = lines_for(room);
    uint32_t first = run_of(s->lines, n);
    rt_block *b;
    RT_ASSERT(room <= RT_STOCK_ROOM_MAX);
    if (RT_UNLIKELY(first == NONE)) {
        if (!turn(s, n)) return NULL;
        first = run_of(s->lines, n);
    }
    s->lines &= ~bits_of(first, n);
    b = (rt_block *)((uint8_t *)s->slab + first * LINE);
    permit(b, n * LINE - GUARD);
    b->cap = n * LINE - GUARD - sizeof *b;
    b->slab = s->slab;
    b->stocked = 1;
    return b;
}

void rt_stock_return(rt_block *b) {
    rt_slab *slab = b->slab;
    size_t bytes = sizeof *b + b->cap;
    uint32_t first = (uint32_t)(((uint8_t *)b - (uint8_t *)slab) / LINE);
    forbid(b, bytes);
    give(slab, bits_of(first, (uint32_t)((bytes + GUARD) / LINE)));
}

void rt_stock_fini(rt_stock *s) {
    rt_slab *slab = s->slab;
    leave(s);
    for (uint32_t n = s->slabs; n > 0; n--) {
        rt_slab *next = slab->next;
        give(slab, HEAD);
        slab = next;
    }
    memset(s, 0, sizeof *s);
}
