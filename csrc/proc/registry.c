/* Limbo. A slot is free again when (a) everything its mailbox admitted has been
 * taken out and freed, and (b) its ready entry is in no notifier's list. Both
 * may have to wait for a thread that is between two steps. Release therefore
 * tries once, and else puts the slot on the limbo list; new and release try a
 * few of that list each time.
 *
 * For (a) somebody must come even if nobody calls new or release any more, or
 * the messages would stay: the producer itself. Release counts such slots in
 * `owed` (seq_cst) and then tries again; a producer puts its chain on the
 * pile (seq_cst) and then reads `owed` (seq_cst). In the one order of these four
 * either the producer sees owed > 0 and sweeps, or release sees the chain. The
 * admission that was taken back (give_back in mailbox.c) leaves no message, only
 * a slot, for the next new or release. */
#include "proc/registry.h"

#include <pthread.h>
#include <sched.h>
#include <time.h>

#include "base/alloc.h"
#include "base/limits.h"
#include "proc/names.h"
#include "proc/slots.h"

#define LOOK_AHEAD 16u                 /* ids */
#define SWEEP 4u                       /* slots in limbo tried by each new and release */
#define LOOKS_AWAKE 1000u              /* some microseconds */
#define NAP_NS 20000

_Static_assert(sizeof(void *) != 8 || sizeof(rt_process) == 128, "two cache lines a process");
_Static_assert(offsetof(rt_process, mailbox) == 0, "a mailbox is its process");

/* What a slot is at present (R3); in mailbox.spare, guarded by the lock. */
enum slot_state {
    SLOT_FREE,     /* among the free slots */
    SLOT_OWNED,
    SLOT_LEFT,     /* in limbo: only (b) may be missing, or an admission not given back */
    SLOT_OWED      /* in limbo: messages are on their way */
};

typedef struct slot_list {
    uint32_t first, last, count;
} slot_list;

struct rt_registry {
    /* Read by everybody; what of it is written, see slots.h. */
    rt_slots slots;
    rt_names *names;
    _Atomic uint32_t owed;            /* slots in limbo that wait for messages; nearly always 0 */
    /* Written by who pushes together, read by who pops. */
    _Alignas(RT_CACHE_LINE) _Atomic uint32_t together;
    /* Writers. */
    _Alignas(RT_CACHE_LINE) pthread_mutex_t lock;
    slot_list limbo;
    _Atomic uint32_t count;
    _Atomic uint64_t lost;
};

RT_INLINE rt_process *slot_of(rt_registry *r, uint32_t id) {
    return rt_slots_at(&r->slots, id, sizeof(rt_process));
}

RT_INLINE uint32_t serial_of(rt_pid pid) { return (uint32_t)(pid >> 32); }

static void lock(rt_registry *r) { pthread_mutex_lock(&r->lock); }
static void unlock(rt_registry *r) { pthread_mutex_unlock(&r->lock); }

#define SERIAL_GIVE_BACK_BELOW (1u << 31)      /* see slots.h */

rt_registry *rt_registry_new(uint32_t processes_max, uint32_t names_max) {
    rt_registry *r = rt_aligned(RT_CACHE_LINE, sizeof *r);
    if (!r) return NULL;
    memset(r, 0, sizeof *r);
    if (processes_max > RT_ID_SLOT_MAX - 1) processes_max = RT_ID_SLOT_MAX - 1;
    if (rt_slots_init(&r->slots, processes_max, sizeof(rt_process),
                      offsetof(rt_process, next_free), SERIAL_GIVE_BACK_BELOW) < 0)
        goto no_slots;
    r->names = rt_names_new(names_max);
    if (!r->names) goto no_names;
    pthread_mutex_init(&r->lock, NULL);
    return r;
no_names:
    rt_slots_fini(&r->slots);
no_slots:
    rt_free(r);
    return NULL;
}

void rt_registry_free(rt_registry *r) {
    if (!r) return;
    for (uint32_t id = 0; (id = rt_slots_next(&r->slots, id));) {
        rt_process *p = slot_of(r, id);
        if (p->mailbox.spare == SLOT_OWNED)
            rt_message_free(atomic_load_explicit(&p->reason, memory_order_relaxed));
        rt_mailbox_fini(&p->mailbox);
    }
    rt_slots_fini(&r->slots);
    rt_names_free(r->names);
    pthread_mutex_destroy(&r->lock);
    rt_free(r);
}

/* List functions and all that follow with `_locked`: under the lock. Relaxed: the
 * lock orders it. */
static void list_add_locked(rt_registry *r, slot_list *l, rt_process *p) {
    uint32_t id = (uint32_t)p->self;
    atomic_store_explicit(&p->next_free, 0, memory_order_relaxed);
    if (l->last)
        atomic_store_explicit(&slot_of(r, l->last)->next_free, id, memory_order_relaxed);
    else l->first = id;
    l->last = id;
    l->count++;
}

static rt_process *list_take_locked(rt_registry *r, slot_list *l) {
    rt_process *p;
    if (!l->first) return NULL;
    p = slot_of(r, l->first);
    l->first = atomic_load_explicit(&p->next_free, memory_order_relaxed);
    if (!l->first) l->last = 0;
    l->count--;
    return p;
}

/* Frees what has arrived; true when the slot can be used again. */
static bool settle_locked(rt_registry *r, rt_process *p) {
    uint64_t freed;
    bool all = rt_mailbox_drain(&p->mailbox, &freed);
    bool left = rt_mailbox_unbind(&p->mailbox);
    /* Relaxed: a counter. */
    atomic_fetch_add_explicit(&r->lost, freed, memory_order_relaxed);
    if (all && p->mailbox.spare == SLOT_OWED) {
        p->mailbox.spare = SLOT_LEFT;
        atomic_fetch_sub_explicit(&r->owed, 1, memory_order_relaxed); /* less is only less work */
    }
    return all && left;
}

/* Puts a released slot where it belongs now. */
static void place_locked(rt_registry *r, rt_process *p) {
    if (settle_locked(r, p)) {
        p->mailbox.spare = SLOT_FREE;
        rt_slots_put(&r->slots, (uint32_t)p->self, (uint64_t)serial_of(p->self) + 1);
    } else {
        list_add_locked(r, &r->limbo, p);
    }
}

static void sweep_locked(rt_registry *r, uint32_t most) {
    if (most > r->limbo.count) most = r->limbo.count;
    for (; most > 0; most--) place_locked(r, list_take_locked(r, &r->limbo));
}

/* A free slot with `self` set to its new pid. */
static int slot_take_locked(rt_registry *r, rt_process **out) {
    uint64_t serial;
    uint32_t id;
    bool fresh;
    int rc;
    sweep_locked(r, SWEEP);
    rc = rt_slots_take(&r->slots, &id, &fresh, &serial);
    if (rc < 0 && r->limbo.count) {
        sweep_locked(r, r->limbo.count);
        rc = rt_slots_take(&r->slots, &id, &fresh, &serial);
    }
    if (rc < 0) return rc;
    *out = slot_of(r, id);
    if (!fresh) serial = serial_of((*out)->self) + 1u;       /* R1 */
    (*out)->self = (uint64_t)(uint32_t)serial << 32 | id;
    return RT_OK;
}

int rt_process_new(rt_registry *r, rt_process **out) {
    rt_process *p;
    int rc;
    lock(r);
    rc = slot_take_locked(r, &p);
    if (rc == RT_OK) {
        p->mailbox.spare = SLOT_OWNED;
        p->user = NULL;
        /* Relaxed: published by the gate, in rt_mailbox_open. */
        atomic_store_explicit(&p->reason, NULL, memory_order_relaxed);
        atomic_store_explicit(&p->flags, 0, memory_order_relaxed);
        atomic_store_explicit(&p->named, 0, memory_order_relaxed);
        atomic_fetch_add_explicit(&r->count, 1, memory_order_relaxed);
        rt_mailbox_open(&p->mailbox, serial_of(p->self));
        *out = p;
    }
    unlock(r);
    return rc;
}

rt_process *rt_registry_lookup(rt_registry *r, rt_pid pid) {
    rt_process *p = slot_of(r, (uint32_t)pid);
    return p && rt_mailbox_alive(&p->mailbox, serial_of(pid)) ? p : NULL;
}

void rt_registry_lookup_many(rt_registry *r, const rt_pid *pids, size_t n, int64_t *slots) {
    for (size_t i = 0; i < n; i++) {
        /* Far enough ahead for memory to answer, near enough to still be there. */
        if (i + LOOK_AHEAD < n) {
            const rt_process *later = slot_of(r, (uint32_t)pids[i + LOOK_AHEAD]);
            if (later) __builtin_prefetch(&later->mailbox.gate);
        }
        slots[i] = rt_registry_lookup(r, pids[i]) ? (int64_t)(uint32_t)pids[i] : -1;
    }
}

/* After a push: for those who have been released with it on its way. */
RT_INLINE void pushed(rt_registry *r) {
    /* seq_cst: after the exchange on the pile; partner of the RMW in release. */
    if (RT_LIKELY(!atomic_load_explicit(&r->owed, memory_order_seq_cst))) return;
    lock(r);
    sweep_locked(r, r->limbo.count);
    unlock(r);
}

static int push(rt_registry *r, rt_pid pid, rt_chain *chain, const rt_room *extra, bool *over) {
    rt_process *p = slot_of(r, (uint32_t)pid);
    int rc;
    if (!p) return RT_ENOENT;
    RT_ASSERT(!chain->first || chain->first->target == pid);
    rc = rt_mailbox_put(&p->mailbox, serial_of(pid), chain, extra, over);
    if (rc < 0) return rc;
    rt_mailbox_wake(&p->mailbox);
    pushed(r);
    return RT_OK;
}

/* Why nobody sees a part. `together` is raised before the first of the pushes and lowered after the
 * last. Who takes one of these messages from a pile looks at it then, and gives nothing away before
 * it is 0: so whoever knows of a message, having popped it or been told by one who has, knows it
 * after all of them have been pushed. All that is done to `together` are RMWs: to see it lowered by
 * another is to see what was pushed before that as well. */
void rt_registry_push_together(rt_registry *r, rt_share *shares, size_t n) {
    /* Relaxed: published by the pushes, which are releases. */
    if (n > 1) atomic_fetch_add_explicit(&r->together, 1, memory_order_relaxed);
    for (rt_share *s = shares; s < shares + n; s++) {
        rt_process *p = slot_of(r, (uint32_t)s->to);
        RT_ASSERT(!s->chain.first || s->chain.first->target == s->to);
        s->bytes = s->chain.bytes;
        s->over = false;
        s->rc = p ? rt_mailbox_put(&p->mailbox, serial_of(s->to), &s->chain, NULL, &s->over)
                  : RT_ENOENT;
    }
    /* Release: partner of the acquire in await_together. */
    if (n > 1) atomic_fetch_sub_explicit(&r->together, 1, memory_order_release);
    for (rt_share *s = shares; s < shares + n; s++)
        if (s->rc == RT_OK) rt_mailbox_wake(&slot_of(r, (uint32_t)s->to)->mailbox);
    pushed(r);
}

/* Pushing takes some hundred nanoseconds, longer where a full box drops what came; or the thread
 * that pushes is suspended, and may need this processor. */
RT_APART void await_together(rt_registry *r) {
    for (uint32_t looks = 0; atomic_load_explicit(&r->together, memory_order_acquire); looks++) {
        if (looks < LOOKS_AWAKE) rt_cpu_relax();
        else if (looks < 2 * LOOKS_AWAKE) sched_yield();
        else nanosleep(&(struct timespec){.tv_nsec = NAP_NS}, NULL);
    }
}

int rt_registry_push(rt_registry *r, rt_pid pid, rt_chain *chain, bool *over) {
    return push(r, pid, chain, NULL, over);
}

int rt_registry_signal(rt_registry *r, rt_pid pid, rt_chain *chain, const rt_room *extra) {
    return push(r, pid, chain, extra, NULL);
}

static void unname_locked(rt_registry *r, rt_process *p) {
    uint32_t cell = atomic_load_explicit(&p->named, memory_order_relaxed);
    if (!cell) return;
    /* Release: as in register. */
    atomic_store_explicit(&p->named, 0, memory_order_release);
    rt_names_drop(r->names, cell);
}

int rt_process_exit(rt_registry *r, rt_pid pid, rt_slice reason) {
    rt_process *p = rt_registry_lookup(r, pid);
    rt_chain copy = {0};
    rt_message *m = NULL;
    bool won;
    if (!p) return RT_ENOENT;
    /* Dying does not depend on memory: without it the reason is empty. */
    if (reason.n && reason.n <= UINT32_MAX) m = rt_chain_add(&copy, 0, (uint32_t)reason.n);
    if (m) memcpy(rt_message_data(m), reason.p, reason.n);
    lock(r);
    won = rt_mailbox_alive(&p->mailbox, serial_of(pid));
    if (won) {
        /* Relaxed: published by the gate; partner of rt_mailbox_closed. */
        atomic_store_explicit(&p->reason, m, memory_order_relaxed);
        unname_locked(r, p);         /* first: who sees it dead finds no name (R4) */
        rt_mailbox_end(&p->mailbox, serial_of(pid));     /* true: only here, under the lock */
        atomic_fetch_sub_explicit(&r->count, 1, memory_order_relaxed);
    }
    unlock(r);
    if (!won) {
        rt_message_free(m);
        return RT_ENOENT;
    }
    rt_mailbox_wake(&p->mailbox);
    return RT_OK;
}

rt_slice rt_process_reason(rt_process *p) {
    rt_message *m = NULL;
    /* The acquire in alive orders the load behind exit's store. */
    if (!rt_process_alive(p)) m = atomic_load_explicit(&p->reason, memory_order_relaxed);
    return m ? rt_message_slice(m) : rt_slice_of(NULL, 0);
}

bool rt_process_alive(const rt_process *p) {
    return rt_mailbox_alive(&p->mailbox, serial_of(p->self));
}

void rt_process_release(rt_registry *r, rt_process *p) {
    uint64_t freed;
    bool free;
    RT_ASSERT(p->mailbox.spare == SLOT_OWNED && !rt_process_alive(p));
    /* What takes time is done before the lock: the owner is still the consumer. */
    rt_message_free(atomic_load_explicit(&p->reason, memory_order_relaxed));
    p->user = NULL;
    free = rt_mailbox_drain(&p->mailbox, &freed);
    atomic_fetch_add_explicit(&r->lost, freed, memory_order_relaxed);
    lock(r);
    p->mailbox.spare = SLOT_LEFT;
    if (!free) {
        p->mailbox.spare = SLOT_OWED;
        /* seq_cst, before settle looks at the pile: partner of the load in push. */
        atomic_fetch_add_explicit(&r->owed, 1, memory_order_seq_cst);
    }
    place_locked(r, p);
    sweep_locked(r, SWEEP);
    unlock(r);
}

rt_message *rt_process_pop(rt_registry *r, rt_process *p) {
    RT_ASSERT(!p->mailbox.head || ((rt_message *)p->mailbox.head)->target == p->self);
    if (p->mailbox.head) return rt_mailbox_pop(&p->mailbox); /* taken before */
    rt_message *m = rt_mailbox_pop(&p->mailbox);
    if (m && RT_UNLIKELY(atomic_load_explicit(&r->together, memory_order_acquire)))
        await_together(r);
    return m;
}

int rt_registry_register(rt_registry *r, rt_slice name, rt_pid pid) {
    rt_process *p = slot_of(r, (uint32_t)pid);
    uint32_t cell;
    int rc = RT_ENOENT;
    if (!p) return rc;
    lock(r);
    if (rt_mailbox_alive(&p->mailbox, serial_of(pid))) {
        /* Relaxed: written under the lock alone. */
        if (atomic_load_explicit(&p->named, memory_order_relaxed)) rc = RT_EEXIST;
        else rc = rt_names_put(r->names, name, pid, &cell);
        /* Release: partner of the acquire in name_of. */
        if (rc == RT_OK) atomic_store_explicit(&p->named, cell, memory_order_release);
    }
    unlock(r);
    return rc;
}

int rt_registry_unregister(rt_registry *r, rt_slice name) {
    uint32_t cell;
    lock(r);
    cell = rt_names_index(r->names, name);
    /* R4: under the lock the slot is that process's. */
    if (cell) unname_locked(r, slot_of(r, (uint32_t)rt_names_pid(r->names, cell)));
    unlock(r);
    return cell ? RT_OK : RT_ENOENT;
}

uint64_t rt_registry_names_changes(rt_registry *r) { return rt_names_changes(r->names); }

rt_pid rt_registry_whereis(rt_registry *r, rt_slice name) {
    return rt_names_find(r->names, name);
}

size_t rt_registry_name_of(rt_registry *r, rt_pid pid, uint8_t *out) {
    rt_process *p = rt_registry_lookup(r, pid);
    uint32_t cell;
    if (!p) return 0;
    /* Acquire: partner of register. A cell of another process says so itself. */
    cell = atomic_load_explicit(&p->named, memory_order_acquire);
    return cell ? rt_names_read(r->names, cell, pid, out) : 0;
}

void rt_registry_each(rt_registry *r, void (*f)(void *arg, rt_process *p), void *arg) {
    lock(r);
    for (uint32_t id = 0; (id = rt_slots_next(&r->slots, id));) {
        rt_process *p = slot_of(r, id);
        if (p->mailbox.spare == SLOT_OWNED) f(arg, p);
    }
    unlock(r);
}

void rt_registry_each_name(rt_registry *r, void (*f)(void *arg, rt_slice name, rt_pid pid),
                           void *arg) {
    lock(r);
    rt_names_each(r->names, f, arg);
    unlock(r);
}

uint32_t rt_registry_count(const rt_registry *r) {
    return atomic_load_explicit(&r->count, memory_order_relaxed);   /* a moment's view */
}

uint64_t rt_registry_lost(const rt_registry *r) {
    return atomic_load_explicit(&r->lost, memory_order_relaxed);
}

uint32_t rt_registry_limbo(rt_registry *r) {
    uint32_t n;
    lock(r);
    n = r->limbo.count;
    unlock(r);
    return n;
}
