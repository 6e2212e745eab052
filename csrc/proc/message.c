#include "proc/message.h"

#include "base/alloc.h"

#define ALIGN 8u

_Static_assert(offsetof(rt_message, link) == 0, "a link is its message");
_Static_assert(sizeof(rt_block) % ALIGN == 0 && sizeof(rt_message) % ALIGN == 0,
               "messages stay aligned");

RT_INLINE size_t room_for(uint32_t n) {
    return sizeof(rt_message) + (((size_t)n + ALIGN - 1) & ~(size_t)(ALIGN - 1));
}

/* A block for `need` bytes, larger when it follows others of the same chain. */
static rt_block *block_new(rt_stock *stock, const rt_block *before, size_t need) {
    size_t cap = before ? before->cap * 2 : 0;
    rt_block *b;
    if (cap > RT_BLOCK_BYTES - sizeof *b) cap = RT_BLOCK_BYTES - sizeof *b;
    if (cap < need) cap = need;
    b = stock && cap <= RT_STOCK_ROOM_MAX ? rt_stock_take(stock, cap) : NULL;
    if (!b) {
        b = rt_malloc(sizeof *b + cap);
        if (!b) return NULL;
        b->stocked = 0;
        b->cap = cap;
        b->pool = NULL;
    }
    b->live = 0;
    b->used = 0;
    return b;
}

static void append(rt_chain *chain, rt_message *m, rt_block *b, rt_pid target, uint32_t n) {
    m->link.next = chain->last ? &chain->last->link : NULL;
    m->block = b;
    m->target = target;
    m->n = n;
    m->signal = 0;
    m->counted = 0;
    if (!chain->first) chain->first = m;
    chain->last = m;
    chain->count++;
    chain->bytes += n;
}

rt_message *rt_chain_add_from(rt_chain *chain, rt_stock *stock, rt_pid target, uint32_t n) {
    rt_block *b = chain->last ? chain->last->block : NULL;
    size_t need = room_for(n);
    rt_message *m;
    if (!b || b->cap - b->used < need) {
        b = block_new(stock, b, need);
        if (!b) return NULL;
    }
    m = (rt_message *)((uint8_t *)(b + 1) + b->used);
    b->used += need;
    b->live++;
    append(chain, m, b, target, n);
    return m;
}

rt_message *rt_chain_add(rt_chain *chain, rt_pid target, uint32_t n) {
    return rt_chain_add_from(chain, NULL, target, n);
}

void rt_chain_adopt(rt_chain *chain, rt_pid target, void *memory, size_t cap, uint32_t n,
                    rt_pool *pool) {
    rt_block *b = memory;
    b->live = 1;
    b->stocked = 0;
    b->used = b->cap = cap - sizeof *b;
    b->pool = pool;
    if (pool) rt_pool_hold(pool);
    append(chain, (rt_message *)(b + 1), b, target, n);
}

/* Unlinks the newest message. */
static rt_message *take_newest(rt_chain *chain) {
    rt_message *m = chain->last;
    chain->last = (rt_message *)m->link.next;
    if (!chain->last) chain->first = NULL;
    chain->count--;
    chain->bytes -= m->n;
    return m;
}

void rt_chain_undo(rt_chain *chain) {
    rt_message *m;
    RT_ASSERT(chain->count > 0);
    m = take_newest(chain);
    m->block->used -= room_for(m->n);
    rt_message_free(m);
}

static void block_free(rt_block *b) {
    rt_pool *pool = b->pool;
    if (b->stocked) {
        rt_stock_return(b);
    } else if (RT_LIKELY(!pool)) {
        rt_free(b);
    } else {
        rt_pool_give(pool, b, sizeof *b + b->cap);
        rt_pool_rele(pool);
    }
}

void rt_message_free(rt_message *m) {
    if (!m) return;
    RT_ASSERT(m->block->live > 0);
    if (--m->block->live == 0) block_free(m->block);
}

void rt_chain_cut(rt_chain *chain, uint32_t count) {
    while (chain->count > count) rt_message_free(take_newest(chain));
}

void rt_chain_free(rt_chain *chain) { rt_chain_cut(chain, 0); }
