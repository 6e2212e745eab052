/* Purpose: an intrusive queue for many producers and one consumer: a pile that
 * producers put whole chains on, and that the consumer takes away whole.
 *
 * Why a pile and not a queue with a tail exchange: such a queue has two steps,
 * and a producer that is suspended between them hides what everybody else put
 * behind it. Here one compare-and-exchange does all, so there is no half-made
 * state, no stub node, and the pile is empty exactly when `top` is NULL. The
 * price is that the consumer turns each pile it takes around, once.
 *
 * A chain is linked from its newest element to its oldest.
 * Ownership: links belong to the pile from push to take.
 * Threads:
 *   operation   | may run with | needs
 *   push, empty | everything   | nothing
 *   take        | push, empty  | nothing (two takers share the elements)
 * Invariants:
 *   P1 from top, `next` leads from newer to older and ends with NULL;
 *   P2 only push (top := newest of its chain) and take (top := NULL) write top.
 * ABA: push depends on the value of top alone, not on what it points to having
 * stayed; when top equals what was read, `next` of the chain's oldest is right
 * whatever happened in between.
 * Order:
 *   push  CAS seq_cst      releases the elements to take's acquire. Later pushes
 *                          are RMWs on top and continue the release sequence, so
 *                          one take synchronises with every pusher it takes from
 *   take  exchange acquire partner of push, after a look like empty's
 *   empty load seq_cst
 * seq_cst and not release: users need "pushed, then looked at a flag" against
 * "set the flag, then looked at the pile" (see mailbox.c). */
#ifndef RT_SYNC_MPSC_H
#define RT_SYNC_MPSC_H

#include "base/atomic.h"
#include "base/base.h"

typedef struct rt_link {
    struct rt_link *next;
} rt_link;

typedef struct rt_pile {
    _Atomic(rt_link *) top;
} rt_pile;

/* Puts the chain newest -> ... -> oldest on the pile. */
RT_INLINE void rt_pile_push(rt_pile *p, rt_link *oldest, rt_link *newest) {
    rt_link *top = atomic_load_explicit(&p->top, memory_order_relaxed); /* a guess for the CAS */
    do {
        oldest->next = top;
    } while (!atomic_compare_exchange_weak_explicit(&p->top, &top, newest, memory_order_seq_cst,
                                                    memory_order_relaxed));
}

/* A moment's view; seq_cst, partner of push, for those who set a flag before. */
RT_INLINE bool rt_pile_empty(const rt_pile *p) {
    return atomic_load_explicit(&p->top, memory_order_seq_cst) == NULL;
}

/* Takes all, linked from oldest to newest; *newest is the last. NULL: empty. */
RT_INLINE rt_link *rt_pile_take(rt_pile *p, rt_link **newest) {
    rt_link *at, *done = NULL;
    if (rt_pile_empty(p)) return NULL;  /* spares the exchange and its cache line */
    at = atomic_exchange_explicit(&p->top, NULL, memory_order_acquire);
    *newest = at;
    while (at) {
        rt_link *older = at->next;
        at->next = done;
        done = at;
        at = older;
    }
    return done;
}

#endif
