/* Purpose: wake one consumer (an event loop, a thread, an engine) once per
 * batch, and tell it which of its mailboxes have something.
 *
 * A notifier is a list of ready entries (any thread adds, the consumer takes)
 * and an eventfd. An entry is intrusive and stands in at most one list, once.
 * The eventfd is written at most once between two looks of the consumer, and
 * never while the consumer has hushed the notifier (it promises to look at the
 * list before it sleeps again).
 *
 * Ownership: reference counted; each mailbox bound to it holds one count, each
 * armed entry another, which the thread that fires it takes over.
 * Threads:
 *   operation          | may run with            | needs
 *   mark, fire, poke   | everything              | the entry's memory
 *   next, hush, rest,  | mark, fire, poke,       | one consumer at a time
 *   wait, rung         | forget, purge           |
 *   arm, disarm        | mark, fire, next        | the entry's owner
 *   forget, purge      | everything              | a count; no arm of that entry meanwhile
 *   hold, rele         | everything              | a count of one's own
 * next, forget and purge share a short internal lock; producers take none.
 *
 * An entry's life (`state`):
 *   0 idle -> n armed -> n|QUEUED claimed (about to stand, or standing, in n's
 *   list) -> 0. Only one thread wins the step to QUEUED, and only it pushes.
 *   An armed entry owns a count of n. A claim that was not armed is QUEUED alone.
 *   ORPHAN beside QUEUED: its owner has gone; next() passes over it.
 * Invariants:
 *   N1 QUEUED is set exactly while the entry is claimed, so it is pushed once;
 *   N2 the eventfd is read only while hushed; NEWS without HUSH means that a
 *      write came, or is about to come, after the last read;
 *   N3 `owed` = writes announced (NEWS set on a quiet bell) that were seen by
 *      the consumer minus writes read; it is never negative.
 * Errors: RT_ESYS, RT_ENOMEM from new. */
#ifndef RT_SYNC_NOTIFIER_H
#define RT_SYNC_NOTIFIER_H

#include "base/atomic.h"
#include "base/base.h"
#include "sync/mpsc.h"

enum { RT_READY_QUEUED = 1, RT_READY_ORPHAN = 2 };  /* bits of state beside the pointer */

typedef struct rt_ready {
    rt_link link;
    _Atomic uintptr_t state;    /* 0 is idle: zeroed memory is a good entry */
} rt_ready;

typedef struct rt_notifier rt_notifier;

int rt_notifier_new(rt_notifier **out);
void rt_notifier_hold(rt_notifier *n);
void rt_notifier_rele(rt_notifier *n);
int rt_notifier_fd(const rt_notifier *n);   /* readable when there is news */

/* Puts the entry into the list unless it stands there, and wakes. */
void rt_notifier_mark(rt_notifier *n, rt_ready *r);
/* Wakes without an entry (events, hand-over). */
void rt_notifier_poke(rt_notifier *n);
/* Takes the next ready entry; NULL when there is none. The entry may be marked
 * again from this moment. */
rt_ready *rt_notifier_next(rt_notifier *n);
/* From here on marks do not write the eventfd. */
void rt_notifier_hush(rt_notifier *n);
/* Ends hush and clears the eventfd; true when something came meanwhile that
 * the consumer must look at before it sleeps. */
bool rt_notifier_rest(rt_notifier *n);
/* Whether news came since the last hush or rest: for who waits without sleeping, and
 * looks at the list in any case before it does sleep. */
bool rt_notifier_rung(const rt_notifier *n);
/* Blocks until news or until timeout_ns passed (UINT64_MAX: for ever);
 * RT_OK or RT_ETIME. A spurious RT_OK is allowed, and a signal gives one.
 * Ends a hush. After RT_OK the consumer looks at the list. */
int rt_notifier_wait(rt_notifier *n, uint64_t timeout_ns);
/* The child of a fork closes what it inherited, without locks. */
void rt_notifier_after_fork(rt_notifier *n);

/* Armed entries: the one who has news fires them without knowing the notifier. */

/* Idle -> armed for n. No effect when it is armed or claimed already (with n). */
void rt_notifier_arm(rt_notifier *n, rt_ready *r);
/* Armed -> idle. True when no claim is open: the entry is idle. */
bool rt_notifier_disarm(rt_ready *r);
/* Armed -> claimed, put into its notifier's list, waking. Nothing when it is
 * idle or claimed already. */
void rt_ready_claim(rt_ready *r, uintptr_t armed);  /* for rt_ready_fire, which saw it armed */
RT_INLINE void rt_ready_fire(rt_ready *r) {
    /* seq_cst: after the caller's seq_cst publication. Either this load comes
     * later in the one order than arm's exchange and sees the armed state, or
     * the owner's look after arm sees what was published. */
    uintptr_t was = atomic_load_explicit(&r->state, memory_order_seq_cst);
    if (RT_UNLIKELY(was && !(was & RT_READY_QUEUED))) rt_ready_claim(r, was);
}
/* After disarm: takes a claimed entry out of the list of n. True when it is
 * idle now. False when that has to wait (for a thread on its way to push it, or
 * for purge): next() will not give it out any more, and it becomes idle later. */
bool rt_notifier_forget(rt_notifier *n, rt_ready *r);
/* Makes every forgotten entry that stands in the list idle. */
void rt_notifier_purge(rt_notifier *n);

RT_INLINE bool rt_ready_idle(const rt_ready *r) {
    /* Acquire: partner of the release in next, forget and purge. */
    return atomic_load_explicit(&r->state, memory_order_acquire) == 0;
}

#endif
