/* Purpose: deadlines in a heap, one timerfd for the next of them, so that
 * whoever watches the poller wakes in time and an idle node sleeps.
 * Ownership: a timer is embedded in its owner, which zeroes it before its first
 * use and cancels it before it goes.
 * Threads: the driver only.
 * Errors: RT_ENOMEM from set (the timer is then not set), RT_ESYS. */
#ifndef RT_NET_TIMER_H
#define RT_NET_TIMER_H

#include "base/base.h"
#include "net/poller.h"

typedef struct rt_timer rt_timer;
struct rt_timer {
    uint64_t deadline;      /* monotonic nanoseconds */
    size_t place;           /* in the heap plus 1; 0 when not set */
    void (*fire)(rt_timer *t);
};

typedef struct rt_timers rt_timers;

int rt_timers_new(rt_timers **out, rt_poller *p);   /* adds its timerfd as a source */
void rt_timers_after_fork(rt_timers *t);            /* the child's: closes, frees nothing */
void rt_timers_free(rt_timers *t);                  /* what is still set is unset, not fired */
int rt_timer_set(rt_timers *t, rt_timer *timer, uint64_t deadline);  /* also moves */
void rt_timer_cancel(rt_timers *t, rt_timer *timer);                 /* harmless when not set */
/* Fires what is due at `now` (each at most once per call; a timer set again
 * inside its callback for a time not after now waits for the next call). */
void rt_timers_run(rt_timers *t, uint64_t now);
/* Arms the timerfd for the next deadline if it changed; called by the engine
 * after each drive. The descriptor's own callback fires nothing: the engine calls
 * rt_timers_run with a time read after rt_poller_wait. */
int rt_timers_arm(rt_timers *t);
uint64_t rt_timers_next(const rt_timers *t);  /* UINT64_MAX: none */

#endif
