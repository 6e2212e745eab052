/* Why nothing that was admitted is lost, and nothing comes late.
 *
 * A push is three steps: (1) the CAS that adds its messages to the gate's count,
 * (2) the bytes, if they are limited, (3) the exchange on the pile. Close and death are RMWs of the
 * gate, so each push's step 1 comes either before (it is accepted, and M2 says
 * it will arrive) or after (it is refused). Who drains knows by M3 whether
 * something is still on its way, without knowing who brings it. Between 1 and 3
 * a producer may be suspended for as long as the system likes: only its own
 * messages wait.
 *
 * Why no wake-up is lost. The consumer arms (A: seq_cst CAS of ready.state), and
 * then looks at the pile and the gate (B: seq_cst loads). A producer puts its
 * chain on the pile, a closer clears the gate's bit (C: seq_cst RMWs), and then
 * looks whether the box is armed (D: seq_cst load). In the one order of these
 * four either A precedes D, and D sees the armed state (or that another has
 * fired it, or that the consumer has disarmed it and is awake), or C precedes B,
 * and the consumer sees the news and does not sleep.
 *
 * A fire may come late, when the box has been given to a new generation. It then
 * wakes the new consumer once for nothing; the notifier it uses is the one the
 * new consumer armed, of which the armed state itself holds a count. */
#include "proc/mailbox.h"

#include <sched.h>

#include "base/alloc.h"

_Static_assert(offsetof(rt_mailbox, head) == RT_CACHE_LINE, "producers write one line");

/* Where a push may be suspended. A test puts others' steps here. */
#ifndef RT_MAILBOX_PAUSE
#define RT_MAILBOX_PAUSE() ((void)0)
#endif

RT_INLINE uint32_t gate_generation(uint64_t g) { return (uint32_t)(g >> 32); }

void rt_mailbox_open(rt_mailbox *mb, uint32_t generation) {
    RT_ASSERT(rt_pile_empty(&mb->pile) && !mb->head && !mb->notifier);
    RT_ASSERT(rt_ready_idle(&mb->ready));
    /* Relaxed: published by the gate below. */
    atomic_store_explicit(&mb->pushed_bytes, 0, memory_order_relaxed);
    atomic_store_explicit(&mb->popped_bytes, 0, memory_order_relaxed);
    atomic_store_explicit(&mb->popped, 0, memory_order_relaxed);
    atomic_store_explicit(&mb->limit, 0, memory_order_relaxed);
    atomic_store_explicit(&mb->limit_bytes, 0, memory_order_relaxed);
    atomic_store_explicit(&mb->overflow, RT_OVERFLOW_NONE, memory_order_relaxed);
    atomic_store_explicit(&mb->dropped, (uint64_t)generation << 32, memory_order_relaxed);
    /* Release: partner of the acquire loads in admit and rt_mailbox_alive. */
    atomic_store_explicit(&mb->gate, (uint64_t)generation << 32 | RT_GATE_ALIVE | RT_GATE_OPEN,
                          memory_order_release);
}

void rt_mailbox_fini(rt_mailbox *mb) {
    uint64_t freed;
    rt_mailbox_bind(mb, NULL);
    rt_mailbox_drain(mb, &freed);
}

/* Counts refused messages, unless another generation has come. */
static bool count_dropped(rt_mailbox *mb, uint32_t generation, uint32_t n) {
    uint64_t was = atomic_load_explicit(&mb->dropped, memory_order_relaxed);
    uint64_t next;
    do {
        if ((uint32_t)(was >> 32) != generation) return false;
        next = (was & ~(uint64_t)UINT32_MAX) | (uint32_t)(was + n);
        /* Relaxed: a counter; it publishes nothing. */
    } while (!atomic_compare_exchange_weak_explicit(&mb->dropped, &was, next, memory_order_relaxed,
                                                    memory_order_relaxed));
    return true;
}

/* Gives `n` admissions back. On a closed box that may be what the consumer waits
 * for (done), so it counts as news: C and D of the argument above. */
static void give_back(rt_mailbox *mb, uint32_t n) {
    uint64_t g = atomic_load_explicit(&mb->gate, memory_order_relaxed);
    uint64_t next;
    do {
        next = (g & ~RT_GATE_COUNT) | ((g - n) & RT_GATE_COUNT);
        /* seq_cst: C. As a release: partner of the acquire in drain and done; what
         * this push did to the box happens before the slot is used again. */
    } while (!atomic_compare_exchange_weak_explicit(&mb->gate, &g, next, memory_order_seq_cst,
                                                    memory_order_relaxed));
    if (!(next & RT_GATE_OPEN)) rt_ready_fire(&mb->ready);       /* D */
}

/* The limits as one push sees them. */
typedef struct bounds {
    enum rt_overflow overflow;
    uint32_t limit;
    uint64_t limit_bytes;
    uint32_t level;         /* messages with this push; only with bounds */
    uint64_t level_bytes;
} bounds;

static void read_bounds(const rt_mailbox *mb, enum rt_overflow overflow, const rt_room *extra,
                        bounds *b) {
    memset(b, 0, sizeof *b);
    b->overflow = overflow;
    b->limit = atomic_load_explicit(&mb->limit, memory_order_relaxed);
    b->limit_bytes = atomic_load_explicit(&mb->limit_bytes, memory_order_relaxed);
    if (RT_LIKELY(!extra)) return;
    /* Signals are never dropped, and nobody is held back for them. */
    b->overflow = RT_OVERFLOW_CLOSE;
    if (b->limit)
        b->limit += extra->messages < RT_MAILBOX_MESSAGES_MAX ? extra->messages
                                                              : RT_MAILBOX_MESSAGES_MAX;
    if (b->limit_bytes) b->limit_bytes += extra->bytes;
}

static int check_gate(uint64_t g, uint32_t generation) {
    if (gate_generation(g) != generation || !(g & RT_GATE_ALIVE)) return RT_ENOENT;
    return g & RT_GATE_OPEN ? RT_OK : RT_ECLOSED;
}

/* How full the box is, for a push of n messages, with the gate that belongs to it. An old
 * `popped` makes the level too high: before anything is refused for that, the number
 * must have stood while the gate was read. If it has not, the consumer has got on. */
static int read_level(rt_mailbox *mb, uint32_t generation, uint32_t n, bounds *b, uint64_t *g) {
    for (;;) {
        int rc;
        RT_MAILBOX_PAUSE();
        /* Acquire, after a look at the gate that says the generation is ours and before
         * the look that counts: partner of the store in pop. What was popped was
         * counted in first, so popped <= the count in g. */
        uint32_t popped = atomic_load_explicit(&mb->popped, memory_order_acquire);
        RT_MAILBOX_PAUSE();
        *g = atomic_load_explicit(&mb->gate, memory_order_acquire);
        rc = check_gate(*g, generation);
        if (rc < 0) return rc;
        b->level = (uint32_t)((*g - popped) & RT_GATE_COUNT);
        if (b->level + (uint64_t)n <= b->limit ||
            atomic_load_explicit(&mb->popped, memory_order_acquire) == popped)
            return RT_OK;
    }
}

/* Step 1. On RT_OK *admitted of the n messages are counted in: all, or with bounds (may
 * be NULL) and DROP as many as the message limit leaves room for. */
RT_INLINE int admit(rt_mailbox *mb, uint32_t generation, uint32_t n, bounds *b, uint32_t *admitted) {
    /* Acquire here and below: partner of the release in rt_mailbox_open. */
    uint64_t g = atomic_load_explicit(&mb->gate, memory_order_acquire);
    uint64_t next;
    uint32_t room;
    do {
        int rc = check_gate(g, generation);
        if (rc < 0) return rc;
        room = n;
        if (b && b->limit) {
            rc = read_level(mb, generation, n, b, &g);
            if (rc < 0) return rc;
            if (b->overflow != RT_OVERFLOW_PAUSE) {
                room = b->level < b->limit ? b->limit - b->level : 0;
                if (room > n) room = n;
                if (room < n && b->overflow == RT_OVERFLOW_CLOSE) return RT_EFULL;
            }
            b->level += room;
        }
        if (room == 0) break;
        next = (g & ~RT_GATE_COUNT) | ((g + room) & RT_GATE_COUNT);
        /* Acquire on failure too: the loop goes on with what it read. */
    } while (!atomic_compare_exchange_weak_explicit(&mb->gate, &g, next, memory_order_acquire,
                                                    memory_order_acquire));
    *admitted = room;
    return RT_OK;
}

/* Marks the newest k messages from m on as counted. */
static void mark_counted(rt_message *m, uint32_t k) {
    for (; k > 0; k--, m = (rt_message *)m->link.next) m->counted = 1;
}

/* Step 2, with a byte limit. Counts the bytes of the oldest `admitted` messages, or of
 * as many of them as fit; returns how many. */
static uint32_t admit_bytes(rt_mailbox *mb, const rt_chain *c, uint32_t admitted, bounds *b) {
    uint32_t k = c->count;
    uint64_t bytes = c->bytes, pushed, popped;
    rt_message *m = c->last;
    for (; k > admitted; k--, m = (rt_message *)m->link.next) bytes -= m->n;
    if (b->overflow == RT_OVERFLOW_PAUSE) {
        mark_counted(m, k);
        /* Relaxed: published with the messages by the pile. */
        pushed = atomic_fetch_add_explicit(&mb->pushed_bytes, bytes, memory_order_relaxed) + bytes;
        b->level_bytes = pushed - atomic_load_explicit(&mb->popped_bytes, memory_order_relaxed);
        return k;
    }
    for (;;) {
        uint32_t fit = k;
        uint64_t size = bytes;
        rt_message *newest = m;
        /* Acquire, before pushed_bytes is read: partner of pop, as in read_level; and
         * pushed_bytes before the second look, for the same reason as there. The
         * generation is held by the admission (M3). */
        popped = atomic_load_explicit(&mb->popped_bytes, memory_order_acquire);
        RT_MAILBOX_PAUSE();
        pushed = atomic_load_explicit(&mb->pushed_bytes, memory_order_acquire);
        for (; fit > 0 && pushed - popped + size > b->limit_bytes;
             fit--, newest = (rt_message *)newest->link.next)
            size -= newest->n;
        if (fit < k && atomic_load_explicit(&mb->popped_bytes, memory_order_acquire) != popped)
            continue;
        if (fit == 0 || (fit < c->count && b->overflow == RT_OVERFLOW_CLOSE)) return 0;
        if (atomic_compare_exchange_strong_explicit(&mb->pushed_bytes, &pushed, pushed + size,
                                                    memory_order_relaxed, memory_order_relaxed)) {
            mark_counted(newest, fit);
            return fit;
        }
    }
}

static bool passed(const bounds *b) {
    return (b->limit && b->level > b->limit) ||
           (b->limit_bytes && b->level_bytes > b->limit_bytes);
}

/* Steps 1 and 2 of a box with limits. What is left of the chain is admitted. */
RT_APART int admit_within(rt_mailbox *mb, uint32_t generation, rt_chain *chain,
                          enum rt_overflow overflow, const rt_room *extra, bool *over) {
    bounds b;
    uint32_t n = chain->count, admitted, kept;
    int rc;
    read_bounds(mb, overflow, extra, &b);
    rc = admit(mb, generation, n, &b, &admitted);
    if (rc < 0) return rc;
    RT_MAILBOX_PAUSE();
    kept = admitted;
    if (b.limit_bytes && admitted) kept = admit_bytes(mb, chain, admitted, &b);
    if (kept < n) {
        if (b.overflow == RT_OVERFLOW_CLOSE) {
            give_back(mb, admitted);
            return RT_EFULL;
        }
        if (!count_dropped(mb, generation, n - kept)) return RT_ENOENT; /* nothing was admitted */
        /* Before the rest is pushed: they may share a block with the consumer's. */
        rt_chain_cut(chain, kept);
        if (kept < admitted) give_back(mb, admitted - kept);
    }
    if (over) *over = b.overflow == RT_OVERFLOW_PAUSE && passed(&b);
    return RT_OK;
}

int rt_mailbox_put(rt_mailbox *mb, uint32_t generation, rt_chain *chain, const rt_room *extra,
                   bool *over) {
    uint32_t admitted;
    int rc;
    /* Acquire: partner of the release in rt_mailbox_limit; the limits follow. */
    enum rt_overflow overflow = atomic_load_explicit(&mb->overflow, memory_order_acquire);
    if (!chain->first) return RT_OK;
    if (over) *over = false;
    if (RT_LIKELY(overflow == RT_OVERFLOW_NONE)) {
        rc = admit(mb, generation, chain->count, NULL, &admitted);
        RT_MAILBOX_PAUSE();
    } else {
        rc = admit_within(mb, generation, chain, overflow, extra, over);
    }
    if (rc < 0 || !chain->first) return rc;
    rt_pile_push(&mb->pile, &chain->first->link, &chain->last->link);   /* step 3; C */
    memset(chain, 0, sizeof *chain);
    RT_MAILBOX_PAUSE();
    return RT_OK;
}

int rt_mailbox_push(rt_mailbox *mb, rt_chain *chain, bool *over) {
    if (!chain->first) return RT_OK;
    int rc = rt_mailbox_put(mb, (uint32_t)(chain->first->target >> 32), chain, NULL, over);
    if (rc == RT_OK) rt_mailbox_wake(mb);                               /* D */
    return rc;
}

rt_message *rt_mailbox_pop(rt_mailbox *mb) {
    rt_link *newest;
    rt_message *m;
    uint32_t popped;
    if (!mb->head && !(mb->head = rt_pile_take(&mb->pile, &newest))) return NULL;
    m = (rt_message *)mb->head;
    mb->head = m->link.next;
    m->link.next = NULL;
    /* The consumer alone writes these; release: partner of admit and admit_bytes,
     * who then see at least the admissions that led to this pop. */
    if (RT_UNLIKELY(m->counted)) {
        uint64_t bytes = atomic_load_explicit(&mb->popped_bytes, memory_order_relaxed);
        atomic_store_explicit(&mb->popped_bytes, bytes + m->n, memory_order_release);
        m->counted = 0;
    }
    popped = atomic_load_explicit(&mb->popped, memory_order_relaxed);
    atomic_store_explicit(&mb->popped, (uint32_t)((popped + 1) & RT_GATE_COUNT),
                          memory_order_release);
    return m;
}

bool rt_mailbox_any(const rt_mailbox *mb) { return mb->head || !rt_pile_empty(&mb->pile); }

/* True when all that was admitted has been popped. */
static bool drained(const rt_mailbox *mb, uint64_t g) {
    uint32_t popped = atomic_load_explicit(&mb->popped, memory_order_relaxed);
    return ((g - popped) & RT_GATE_COUNT) == 0;
}

bool rt_mailbox_closed(const rt_mailbox *mb) {
    /* Acquire: partner of end: who sees the box closed by exit sees the reason. */
    return !(atomic_load_explicit(&mb->gate, memory_order_acquire) & RT_GATE_OPEN);
}

bool rt_mailbox_done(const rt_mailbox *mb) {
    /* seq_cst: B. As an acquire: partner of end and give_back. */
    uint64_t g = atomic_load_explicit(&mb->gate, memory_order_seq_cst);
    return !(g & RT_GATE_OPEN) && drained(mb, g);
}

bool rt_mailbox_arm(rt_mailbox *mb) {
    RT_ASSERT(mb->notifier);
    if (mb->head) return false;
    rt_notifier_arm(mb->notifier, &mb->ready);                   /* A */
    if (!rt_mailbox_any(mb) && !rt_mailbox_done(mb)) return true;    /* B */
    rt_notifier_disarm(&mb->ready);
    return false;
}

bool rt_mailbox_unbind(rt_mailbox *mb) {
    rt_notifier *n = mb->notifier;
    if (!n) return true;
    if (!rt_notifier_disarm(&mb->ready) && !rt_notifier_forget(n, &mb->ready)) return false;
    mb->notifier = NULL;
    rt_notifier_rele(n);
    return true;
}

void rt_mailbox_bind(rt_mailbox *mb, rt_notifier *n) {
    if (n == mb->notifier) return;
    while (!rt_mailbox_unbind(mb)) {
        /* A thread is between its claim and the list, a few instructions. A new
         * notifier must not be armed before that is over. */
        rt_notifier_purge(mb->notifier);
        if (!rt_ready_idle(&mb->ready)) sched_yield();
    }
    if (n) rt_notifier_hold(n);
    mb->notifier = n;
}

void rt_mailbox_limit(rt_mailbox *mb, uint32_t messages, uint64_t bytes,
                      enum rt_overflow overflow) {
    if (messages > RT_MAILBOX_MESSAGES_MAX) messages = RT_MAILBOX_MESSAGES_MAX;
    if (!messages && !bytes) overflow = RT_OVERFLOW_NONE;
    atomic_store_explicit(&mb->limit, messages, memory_order_relaxed);
    atomic_store_explicit(&mb->limit_bytes, bytes, memory_order_relaxed);
    /* Release: partner of read_bounds. */
    atomic_store_explicit(&mb->overflow, (uint32_t)overflow, memory_order_release);
}

void rt_mailbox_close(rt_mailbox *mb) {
    atomic_fetch_and_explicit(&mb->gate, ~RT_GATE_OPEN, memory_order_seq_cst);   /* C */
    rt_ready_fire(&mb->ready);                                                   /* D */
}

bool rt_mailbox_end(rt_mailbox *mb, uint32_t generation) {
    uint64_t g = atomic_load_explicit(&mb->gate, memory_order_relaxed);
    do {
        if (gate_generation(g) != generation || !(g & RT_GATE_ALIVE)) return false;
        /* seq_cst: C, of the wake that follows. As a release: partner of closed. */
    } while (!atomic_compare_exchange_weak_explicit(&mb->gate, &g,
                                                    g & ~(RT_GATE_ALIVE | RT_GATE_OPEN),
                                                    memory_order_seq_cst, memory_order_relaxed));
    return true;
}

bool rt_mailbox_drain(rt_mailbox *mb, uint64_t *freed) {
    rt_message *m;
    uint64_t n = 0;
    while ((m = rt_mailbox_pop(mb))) {
        rt_message_free(m);
        n++;
    }
    *freed = n;
    /* Acquire: partner of admit's and give_back's RMWs. A push that comes after
     * this look at the gate was refused: the box is dead. */
    return drained(mb, atomic_load_explicit(&mb->gate, memory_order_acquire));
}

uint32_t rt_mailbox_count(const rt_mailbox *mb) {
    /* Acquire and in this order, as in admit: never below 0. */
    uint32_t popped = atomic_load_explicit(&mb->popped, memory_order_acquire);
    uint64_t g = atomic_load_explicit(&mb->gate, memory_order_relaxed);
    return (uint32_t)((g - popped) & RT_GATE_COUNT);
}

uint64_t rt_mailbox_counted_bytes(const rt_mailbox *mb) {
    uint64_t popped = atomic_load_explicit(&mb->popped_bytes, memory_order_acquire);
    return atomic_load_explicit(&mb->pushed_bytes, memory_order_relaxed) - popped;
}

uint64_t rt_mailbox_waiting_bytes(const rt_mailbox *mb) {
    /* Acquire: partner of push; a release sequence, as for take. */
    const rt_link *from[2] = {
        mb->head, atomic_load_explicit(&mb->pile.top, memory_order_acquire)};
    uint64_t bytes = 0;
    for (int i = 0; i < 2; i++)
        for (const rt_link *at = from[i]; at; at = at->next) bytes += ((const rt_message *)at)->n;
    return bytes;
}

uint32_t rt_mailbox_dropped(const rt_mailbox *mb) {
    return (uint32_t)atomic_load_explicit(&mb->dropped, memory_order_relaxed);
}
