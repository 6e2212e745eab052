/* Purpose: the queue of one process: many producers, one consumer.
 * FIFO per producer; a chain is pushed with one exchange on the pile.
 *
 * A mailbox belongs to one incarnation (`generation`) of the slot it stands in,
 * and the gate admits only what was meant for it. The gate is one word, so that
 * admission, closing and death are steps of one order:
 *     generation:32 | alive:1 | open:1 | count of admitted messages:30
 * Invariants:
 *   M1 a message is admitted (by a CAS of the gate) only for the generation the
 *      gate holds, and only while it is alive and open. Nothing is ever admitted
 *      for a past generation, so a new one sees neither its messages nor its counts;
 *   M2 what was admitted reaches the pile, whatever happens to the gate meanwhile,
 *      or (bytes did not fit) is taken back from the count;
 *   M3 count - popped = messages admitted and not popped; while it is not 0 the
 *      generation does not change (registry.c releases the slot only then);
 *   M4 with a message limit and DROP or CLOSE that difference never passes it,
 *      but for signals, which have room of their own beyond it;
 *   M5 pushed_bytes - popped_bytes = bytes of the admitted messages that were pushed
 *      under a byte limit and not popped. They alone are marked as counted: a box
 *      without such a limit is spared the exchange.
 *
 * Threads:
 *   operation         | may run with    | needs
 *   push              | everything      | the slot's memory (type-stable)
 *   pop, arm, bind,   | push, close     | one consumer at a time
 *   waiting_bytes     |                 |
 *   close             | everything      | that the generation is the caller's
 *   count, dropped,   | everything      | nothing (a moment's view)
 *   counted_bytes,    |                 |
 *   closed            |                 |
 *   open, fini        | stale pushes    | the owner alone
 * Order: named at each operation in mailbox.c.
 * Limits: bounded by messages or bytes when asked. The count is kept modulo
 * 2^30: more messages than that in one box make rt_mailbox_count wrong, nothing
 * else. A push that was admitted and is suspended before it reaches the pile
 * hides nobody else's messages.
 * Errors: RT_ENOENT (dead, or not this generation), RT_ECLOSED, RT_EFULL. A
 * refused chain stays the caller's. */
#ifndef RT_PROC_MAILBOX_H
#define RT_PROC_MAILBOX_H

#include "base/atomic.h"
#include "proc/message.h"
#include "sync/mpsc.h"
#include "sync/notifier.h"

enum rt_overflow { RT_OVERFLOW_NONE, RT_OVERFLOW_DROP, RT_OVERFLOW_CLOSE, RT_OVERFLOW_PAUSE };

/* The largest message limit that is kept; a larger one is this. */
#define RT_MAILBOX_MESSAGES_MAX (1u << 28)

/* What signals may add to a box beyond its limits. */
typedef struct rt_room {
    uint32_t messages;
    uint64_t bytes;
} rt_room;

/* Laid out here so that a process slot can embed it; touch it through the
 * functions only. The first 64 bytes are what producers write. */
typedef struct rt_mailbox {
    rt_pile pile;
    _Atomic uint64_t gate;           /* see above */
    _Atomic uint64_t pushed_bytes;   /* admitted under a byte limit, wraps */
    _Atomic uint64_t dropped;        /* generation << 32 | refused by a limit */
    rt_ready ready;
    _Atomic uint64_t limit_bytes;    /* 0: none */
    _Atomic uint32_t limit;          /* messages; 0: none */
    _Atomic uint32_t overflow;       /* NONE: the limits are not looked at */
    /* The consumer's. */
    rt_link *head;                   /* taken from the pile, oldest first */
    _Atomic uint64_t popped_bytes;
    rt_notifier *notifier;
    _Atomic uint32_t popped;         /* modulo 2^30 like the gate's count */
    uint32_t spare;                  /* the registry's */
} rt_mailbox;

#define RT_MAILBOX_OF_READY(r) RT_CONTAINER_OF(r, rt_mailbox, ready)

/* Opens zeroed or drained memory for a new generation, without limits. */
void rt_mailbox_open(rt_mailbox *mb, uint32_t generation);
/* Unbinds, and frees what is left. Nobody may push any more. */
void rt_mailbox_fini(rt_mailbox *mb);

/* Pushes the whole chain; wakes the consumer if it is armed. The generation it
 * is meant for is that of its first target. On RT_OK the chain is empty, and
 * *over (may be NULL) tells whether the box now stands over its limit with
 * RT_OVERFLOW_PAUSE. With DROP the newest that do not fit are freed and counted
 * and RT_OK is returned; with CLOSE nothing is taken unless all fits, and RT_EFULL
 * tells the caller to close it. */
int rt_mailbox_push(rt_mailbox *mb, rt_chain *chain, bool *over);
/* The oldest message, or NULL. The caller frees it. */
rt_message *rt_mailbox_pop(rt_mailbox *mb);
/* True when pop would find something. Consumer only. */
bool rt_mailbox_any(const rt_mailbox *mb);
/* Asks for a mark at the next push or close, of the notifier it is bound to.
 * Returns false when there is something to see already: a message, or that the
 * box is done (then nothing is armed). Consumer only. */
bool rt_mailbox_arm(rt_mailbox *mb);
/* Binds the consumer's notifier (holding it), or NULL. A mark that stands in the
 * old one's list is taken back: look into the box after it. Consumer only. */
void rt_mailbox_bind(rt_mailbox *mb, rt_notifier *n);
/* messages, bytes: 0 for none. May change at any time; acts on later pushes, and a
 * byte limit counts only what those bring. */
void rt_mailbox_limit(rt_mailbox *mb, uint32_t messages, uint64_t bytes,
                      enum rt_overflow overflow);
/* Refuses further pushes; what was accepted can still be popped. Wakes. */
void rt_mailbox_close(rt_mailbox *mb);
bool rt_mailbox_closed(const rt_mailbox *mb);
/* Closed, and everything accepted has been popped. Consumer only. */
bool rt_mailbox_done(const rt_mailbox *mb);
uint32_t rt_mailbox_count(const rt_mailbox *mb);
uint64_t rt_mailbox_counted_bytes(const rt_mailbox *mb);    /* see M5 */
/* Bytes of all messages that pop would find. Looks at each of them. Consumer only. */
uint64_t rt_mailbox_waiting_bytes(const rt_mailbox *mb);
uint32_t rt_mailbox_dropped(const rt_mailbox *mb);  /* refused by a limit */

/* For the registry: a push that does not wake; the caller does, then. With `extra` the
 * chain is a signal: it passes the limits by that much, whatever the policy, and beyond
 * is RT_EFULL. */
int rt_mailbox_put(rt_mailbox *mb, uint32_t generation, rt_chain *chain, const rt_room *extra,
                   bool *over);
/* Ends alive and open at once, without waking; returns false when it was dead
 * or of another generation. */
bool rt_mailbox_end(rt_mailbox *mb, uint32_t generation);
RT_INLINE void rt_mailbox_wake(rt_mailbox *mb) { rt_ready_fire(&mb->ready); }
/* Frees what can be popped; true when nothing admitted is still on its way. */
bool rt_mailbox_drain(rt_mailbox *mb, uint64_t *freed);
/* Disarms and lets go of the notifier; false when its list cannot be left yet:
 * call again. The ready entry will not be given out by next() any more. */
bool rt_mailbox_unbind(rt_mailbox *mb);

#define RT_GATE_ALIVE (1ull << 31)
#define RT_GATE_OPEN (1ull << 30)
#define RT_GATE_COUNT ((1ull << 30) - 1)

/* Whether the gate holds that generation, alive. Acquire: partner of the release
 * in rt_mailbox_open: who sees the generation sees its mailbox prepared. */
RT_INLINE bool rt_mailbox_alive(const rt_mailbox *mb, uint32_t generation) {
    uint64_t g = atomic_load_explicit(&mb->gate, memory_order_acquire);
    return g >> 31 == ((uint64_t)generation << 1 | 1);
}

#endif
