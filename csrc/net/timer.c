#include "net/timer.h"

#include <errno.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"

/* A heap with four children a node: half the levels of a binary one, and the
 * children of a node share a cache line. The deadline stands in the entry, so
 * that sifting does not touch the timers it passes by.
 *
 * While timers are fired, what is due stands in `due` and no longer in the
 * heap: a callback may set any timer again, for any time, without the run
 * meeting it a second time. Both arrays have room for every timer that is set,
 * so only setting a timer that was not set can need memory. */

#define WAYS 4u
#define IN_DUE (SIZE_MAX / 2 + 1) /* the top bit of `place`: the timer stands in due */
#define ENTRIES_MIN 16u

typedef struct entry {
    uint64_t deadline;
    rt_timer *timer;
} entry;

struct rt_timers {
    rt_source source;
    rt_poller *poller;
    uint64_t armed;         /* what the timerfd waits for; UINT64_MAX: nothing */
    entry *heap;
    rt_timer **due;
    size_t n;               /* in the heap */
    size_t cap;             /* of heap and of due */
    size_t due_n;           /* in due, taken ones too */
    bool running;
};

static void put(rt_timers *t, size_t i, entry e)
{
    t->heap[i] = e;
    e.timer->place = i + 1;
}

static void sift_up(rt_timers *t, size_t i, entry e)
{
    while (i > 0) {
        size_t parent = (i - 1) / WAYS;
        if (t->heap[parent].deadline <= e.deadline) break;
        put(t, i, t->heap[parent]);
        i = parent;
    }
    put(t, i, e);
}

static void sift_down(rt_timers *t, size_t i, entry e)
{
    for (;;) {
        size_t first = i * WAYS + 1;
        if (first >= t->n) break;
        size_t end = t->n - first < WAYS ? t->n : first + WAYS;
        size_t least = first;
        for (size_t k = first + 1; k < end; k++)
            if (t->heap[k].deadline < t->heap[least].deadline) least = k;
        if (t->heap[least].deadline >= e.deadline) break;
        put(t, i, t->heap[least]);
        i = least;
    }
    put(t, i, e);
}

/* Gives the entry at i, whatever stood there before, its right place. */
static void settle(rt_timers *t, size_t i, entry e)
{
    if (i > 0 && e.deadline < t->heap[(i - 1) / WAYS].deadline) sift_up(t, i, e);
    else sift_down(t, i, e);
}

static void heap_remove(rt_timers *t, size_t i)
{
    RT_ASSERT(i < t->n);
    t->heap[i].timer->place = 0;
    entry last = t->heap[--t->n];
    if (i < t->n) settle(t, i, last);
}

static int reserve(rt_timers *t)
{
    if (t->n + t->due_n < t->cap) return RT_OK;
    size_t cap = t->cap ? t->cap * 2 : ENTRIES_MIN;
    if (cap > IN_DUE / sizeof(entry)) return RT_ENOMEM;
    entry *heap = rt_realloc(t->heap, cap * sizeof *heap);
    if (!heap) return RT_ENOMEM;
    t->heap = heap; /* kept, though larger than cap says, if the next step fails */
    rt_timer **due = rt_realloc(t->due, cap * sizeof *due);
    if (!due) return RT_ENOMEM;
    t->due = due;
    t->cap = cap;
    return RT_OK;
}

int rt_timer_set(rt_timers *t, rt_timer *timer, uint64_t deadline)
{
    entry e = {deadline, timer};
    if (timer->place == 0) {
        int rc = reserve(t);
        if (rc < 0) return rc;
        timer->deadline = deadline;
        sift_up(t, t->n++, e);
        return RT_OK;
    }
    timer->deadline = deadline;
    if (timer->place & IN_DUE) {
        t->due[timer->place - IN_DUE - 1] = NULL;
        sift_up(t, t->n++, e); /* the place in due counts as room: cap holds both */
    } else {
        settle(t, timer->place - 1, e);
    }
    return RT_OK;
}

void rt_timer_cancel(rt_timers *t, rt_timer *timer)
{
    if (timer->place == 0) return;
    if (timer->place & IN_DUE) {
        t->due[timer->place - IN_DUE - 1] = NULL;
        timer->place = 0;
    } else {
        heap_remove(t, timer->place - 1);
    }
}

void rt_timers_run(rt_timers *t, uint64_t now)
{
    RT_ASSERT(!t->running);
    t->running = true;
    while (t->n > 0 && t->heap[0].deadline <= now) {
        rt_timer *timer = t->heap[0].timer;
        heap_remove(t, 0);
        t->due[t->due_n++] = timer;
        timer->place = IN_DUE + t->due_n;
    }
    for (size_t i = 0; i < t->due_n; i++) {
        rt_timer *timer = t->due[i];
        if (!timer) continue; /* cancelled or moved by a callback of this run */
        t->due[i] = NULL;
        timer->place = 0;
        timer->fire(timer);
    }
    t->due_n = 0;
    t->running = false;
}

uint64_t rt_timers_next(const rt_timers *t) { return t->n > 0 ? t->heap[0].deadline : UINT64_MAX; }

int rt_timers_arm(rt_timers *t)
{
    uint64_t next = rt_timers_next(t);
    struct itimerspec at = {.it_value = {0, 0}};
    if (next == t->armed) return RT_OK;
    if (next != UINT64_MAX) {
        at.it_value.tv_sec = (time_t)(next / RT_SEC);
        at.it_value.tv_nsec = (long)(next % RT_SEC);
        if (next == 0) at.it_value.tv_nsec = 1; /* zero would disarm */
    }
    if (timerfd_settime(t->source.fd, TFD_TIMER_ABSTIME, &at, NULL) < 0) return RT_ESYS;
    t->armed = next;
    return RT_OK;
}

/* Only quiets the descriptor: the engine runs the timers after each drive. */
static void expired(rt_source *s, uint32_t events)
{
    rt_timers *t = RT_CONTAINER_OF(s, rt_timers, source);
    uint64_t ticks;
    (void)events;
    if (read(s->fd, &ticks, sizeof ticks) == (ssize_t)sizeof ticks) t->armed = UINT64_MAX;
}

int rt_timers_new(rt_timers **out, rt_poller *p)
{
    int rc = RT_ESYS, fd = -1, sys;
    rt_timers *t = rt_calloc(1, sizeof *t);
    if (!t) return RT_ENOMEM;
    t->poller = p;
    t->armed = UINT64_MAX;
    t->source.fd = -1;
    t->source.ready = expired;
    fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (fd < 0) goto fail;
    rc = rt_poller_add(p, &t->source, fd, RT_READABLE);
    if (rc < 0) goto fail;
    *out = t;
    return RT_OK;
fail:
    sys = errno;
    if (fd >= 0) close(fd);
    rt_free(t);
    errno = sys;
    return rc;
}

void rt_timers_after_fork(rt_timers *t)
{
    /* The heap may be half changed, in the middle of a run. */
    if (t->source.fd >= 0) close(t->source.fd);
    t->source.fd = -1;
}

void rt_timers_free(rt_timers *t)
{
    if (!t) return;
    RT_ASSERT(!t->running);
    int fd = t->source.fd;
    for (size_t i = 0; i < t->n; i++) t->heap[i].timer->place = 0;
    rt_poller_remove(t->poller, &t->source);
    if (fd >= 0) close(fd); /* in a forked child this leaves the parent's timer armed */
    rt_free(t->heap);
    rt_free(t->due);
    rt_free(t);
}
