#define _GNU_SOURCE /* POLLRDHUP */
#include "net/poller_ops.h"

#ifndef RT_HAVE_LIBURING

int rt_poller_uring_new(rt_poller **out)
{
    (void)out;
    return RT_EINVAL;
}

#else

#include <errno.h>
#include <liburing.h>
#include <poll.h>

#include "base/alloc.h"
#include "base/clock.h"

/* One poll request for each source, made anew after each that ended, and given to the
 * kernel with the next wait in one system call. That makes it level-triggered: a new
 * request looks at the descriptor first.
 *
 * Whoever adds, modifies or removes notes it down: `todo` are the slots that want a
 * request, `cancels` the requests that nobody wants any more. A request's name is its
 * slot and the slot's generation, and a cancelled one takes its generation with it: so
 * what it still completes with finds nobody, though source and memory are gone and slot
 * and descriptor are another's. Cancelling it is not for that, but because a request
 * holds the file open: the peer would see no end.
 *
 * The ring is made disabled and belongs to the thread that waits first (SINGLE_ISSUER);
 * completions are made when that thread asks for them (DEFER_TASKRUN) and interrupt
 * nothing that it does meanwhile. */
enum { ENTRIES = 256, COMPLETIONS = 1024, SLOTS_MIN = 16 };

#define SLOT_NONE UINT32_MAX
#define CANCEL_NAME (UINT64_MAX - 1)        /* no slot has it; liburing knows another */
#define LEAVE_NS_MAX RT_SEC

typedef struct slot {
    rt_source *source;      /* NULL: free */
    uint32_t generation;
    uint32_t next_free;
    bool armed;             /* the kernel has a request of this generation */
    bool queued;            /* stands in todo */
    bool ended;             /* the peer has sent its last; see arm */
} slot;

typedef struct poller {
    rt_poller base;
    struct io_uring ring;
    bool enabled, forked, waiting;
    slot *slots;            /* cap of each */
    uint32_t *todo;
    uint64_t *cancels;      /* one a slot at most: while any is left, none is armed */
    uint32_t cap, used, first_free;
    uint32_t todo_n, cancels_n;
    uint32_t pending;       /* poll requests that have not ended */
} poller;

static poller *of(rt_poller *p) { return RT_CONTAINER_OF(p, poller, base); }

static uint64_t name_of(const poller *p, uint32_t i)
{
    return (uint64_t)p->slots[i].generation << 32 | i;
}

/* --- what is noted down --------------------------------------------------- */

static void want(poller *p, uint32_t i)
{
    if (p->slots[i].queued) return;
    p->slots[i].queued = true;
    p->todo[p->todo_n++] = i;
}

static void disarm(poller *p, uint32_t i)
{
    if (!p->slots[i].armed) return;
    p->cancels[p->cancels_n++] = name_of(p, i);
    p->slots[i].generation++;
    p->slots[i].armed = false;
}

static int grow(poller *p)
{
    uint32_t cap = p->cap ? p->cap * 2 : SLOTS_MIN;
    if (cap > INT32_MAX) return RT_ENOMEM;
    slot *slots = rt_realloc(p->slots, cap * sizeof *slots);
    if (!slots) return RT_ENOMEM;
    p->slots = slots; /* each is kept, though larger than cap says, if the next fails */
    uint32_t *todo = rt_realloc(p->todo, cap * sizeof *todo);
    if (!todo) return RT_ENOMEM;
    p->todo = todo;
    uint64_t *cancels = rt_realloc(p->cancels, cap * sizeof *cancels);
    if (!cancels) return RT_ENOMEM;
    p->cancels = cancels;
    p->cap = cap;
    return RT_OK;
}

static int uring_add(rt_poller *base, rt_source *s, int fd, uint32_t interest)
{
    poller *p = of(base);
    (void)fd, (void)interest; /* read from the source when it is armed */
    if (p->forked) return RT_EFORK;
    uint32_t i = p->first_free;
    if (i == SLOT_NONE) {
        if (p->used == p->cap && grow(p) < 0) return RT_ENOMEM;
        i = p->used++;
        p->slots[i] = (slot){.next_free = SLOT_NONE};
    }
    p->first_free = p->slots[i].next_free;
    p->slots[i].source = s;
    p->slots[i].ended = false;
    s->slot = i;
    want(p, i);
    return RT_OK;
}

static int uring_modify(rt_poller *base, rt_source *s, uint32_t interest)
{
    poller *p = of(base);
    (void)interest;
    if (p->forked) return RT_EFORK;
    disarm(p, s->slot);
    want(p, s->slot);
    return RT_OK;
}

static void uring_remove(rt_poller *base, rt_source *s)
{
    poller *p = of(base);
    slot *k = &p->slots[s->slot];
    RT_ASSERT(k->source == s);
    if (!p->forked) disarm(p, s->slot);
    k->source = NULL;
    k->next_free = p->first_free;
    p->first_free = s->slot;
}

/* --- what the kernel is told ---------------------------------------------- */

static int result(int rc)
{
    if (rc >= 0 || rc == -ETIME) return RT_OK;
    errno = -rc;
    return rc == -ENOMEM ? RT_ENOMEM : RT_ESYS;
}

/* NULL, with the reason in *rc, when the queue is full and the kernel takes nothing. */
static struct io_uring_sqe *entry(poller *p, int *rc)
{
    struct io_uring_sqe *e = io_uring_get_sqe(&p->ring);
    if (e) return e;
    int k = io_uring_submit(&p->ring);
    *rc = result(k < 0 ? k : -EAGAIN);
    return io_uring_get_sqe(&p->ring);
}

static unsigned to_poll(uint32_t interest)
{
    return ((interest & RT_READABLE) ? POLLIN : 0u) | ((interest & RT_WRITABLE) ? POLLOUT : 0u);
}

static uint32_t from_poll(int events)
{
    return ((events & POLLIN) ? RT_READABLE : 0u) | ((events & POLLOUT) ? RT_WRITABLE : 0u) |
           ((events & (POLLERR | POLLHUP | POLLNVAL)) ? RT_HANGUP : 0u);
}

/* io_uring also tells, unasked and each time, that the peer has sent its last (POLLRDHUP),
 * which epoll does not. A source that does not want to read would be told for ever; so once
 * it has been, its request is one that tells of changes and stays (multishot). */
static void arm(poller *p, uint32_t i, struct io_uring_sqe *e)
{
    slot *k = &p->slots[i];
    RT_ASSERT(!k->armed);
    if (k->ended) io_uring_prep_poll_multishot(e, k->source->fd, to_poll(k->source->interest));
    else io_uring_prep_poll_add(e, k->source->fd, to_poll(k->source->interest));
    io_uring_sqe_set_data64(e, name_of(p, i));
    k->armed = true;
    p->pending++;
}

static int send_cancels(poller *p)
{
    int rc = RT_OK;
    while (p->cancels_n) {
        struct io_uring_sqe *e = entry(p, &rc);
        if (!e) return rc;
        io_uring_prep_cancel64(e, p->cancels[--p->cancels_n], 0);
        e->flags |= IOSQE_CQE_SKIP_SUCCESS;
        io_uring_sqe_set_data64(e, CANCEL_NAME);
    }
    return RT_OK;
}

static int send_todo(poller *p)
{
    int rc = RT_OK;
    uint32_t at = 0;
    for (; at < p->todo_n; at++) {
        uint32_t i = p->todo[at];
        if (p->slots[i].source) { /* else it was removed */
            struct io_uring_sqe *e = entry(p, &rc);
            if (!e) break;
            arm(p, i, e);
        }
        p->slots[i].queued = false;
    }
    p->todo_n -= at;
    if (p->todo_n == 0) return RT_OK;
    memmove(p->todo, p->todo + at, p->todo_n * sizeof *p->todo);
    return rc;
}

/* Everything is asked for anew. */
static void start_over(poller *p)
{
    for (uint32_t i = 0; i < p->used; i++) {
        if (!p->slots[i].source) continue;
        disarm(p, i);
        want(p, i);
    }
}

/* Submits and waits, in one system call. RT_AGAIN: a signal came. */
static int enter(poller *p, uint64_t timeout_ns)
{
    struct io_uring_cqe *first;
    struct __kernel_timespec t = {(int64_t)(timeout_ns / RT_SEC), (int64_t)(timeout_ns % RT_SEC)};
    int rc = io_uring_submit_and_wait_timeout(&p->ring, &first, 1,
                                              timeout_ns == UINT64_MAX ? NULL : &t, NULL);
    if (rc == -EBADR) { /* the kernel had no memory for completions, and says so once */
        start_over(p);
        rc = 0;
    }
    return rc == -EINTR ? RT_AGAIN : result(rc);
}

/* --- what the kernel tells ------------------------------------------------- */

/* 1 when a source was called. */
static int give(poller *p, uint64_t name, int res, bool stays)
{
    uint32_t i = (uint32_t)name;
    if (name == CANCEL_NAME) return 0;
    if (!stays) p->pending--;
    slot *k = &p->slots[i];
    /* Of a request that was cancelled, as by a callback that removed or modified its source. */
    if (!k->armed || name != name_of(p, i)) return 0;
    if (!stays) {
        k->armed = false;
        want(p, i);
    }
    rt_source *s = k->source;
    k->ended = res > 0 && res & POLLRDHUP && !(s->interest & RT_READABLE);
    uint32_t events = res == -ECANCELED ? 0 : res < 0 ? RT_HANGUP : from_poll(res);
    if (!events) return 0;
    disarm(p, i); /* one that stays would not tell again of what the callback leaves */
    want(p, i);
    s->ready(s, events);
    return 1;
}

static int give_batch(poller *p, int max)
{
    int called = 0;
    struct io_uring_cqe *c;
    p->waiting = true;
    for (unsigned n = io_uring_cq_ready(&p->ring); n > 0 && called < max; n--) {
        io_uring_peek_cqe(&p->ring, &c);
        uint64_t name = io_uring_cqe_get_data64(c);
        int res = c->res;
        bool stays = (c->flags & IORING_CQE_F_MORE) != 0;
        io_uring_cqe_seen(&p->ring, c);
        called += give(p, name, res, stays);
    }
    p->waiting = false;
    return called;
}

/* Of what was noted down. Less than all when the kernel has no memory just now. */
static int tell(poller *p)
{
    int rc = send_cancels(p);
    return rc < 0 ? rc : send_todo(p);
}

static int uring_wait(rt_poller *base, uint64_t timeout_ns, int max)
{
    poller *p = of(base);
    bool for_ever = timeout_ns > UINT64_MAX / 2;
    uint64_t left = for_ever ? UINT64_MAX : timeout_ns;
    uint64_t until = for_ever || !left ? 0 : rt_now() + left;
    RT_ASSERT(!p->waiting);
    if (p->forked) return RT_EFORK;
    if (!p->enabled) {
        int rc = io_uring_enable_rings(&p->ring);
        if (rc < 0) return result(rc);
        p->enabled = true;
    }
    for (;;) {
        int told = tell(p);
        int rc = enter(p, told < 0 ? 0 : left);
        int called = give_batch(p, max);
        if (called > 0 || rc == RT_AGAIN) return called;
        if (rc < 0 || told < 0) return rc < 0 ? rc : told;
        if (left == 0) return 0;
        /* The time is over, or what came nobody wants any more. */
        if (for_ever) continue;
        uint64_t now = rt_now();
        if (now >= until) return 0;
        left = until - now;
    }
}

/* A thread's poll requests outlive it, as long as the ring does, and closing that ends
 * them only some time later. */
static void uring_leave(rt_poller *base)
{
    poller *p = of(base);
    uint64_t until = rt_now() + LEAVE_NS_MAX;
    if (p->forked || !p->enabled) return;
    start_over(p);
    while (p->pending > 0 && rt_now() < until) {
        (void)send_cancels(p); /* what does not go now goes in the next round */
        (void)enter(p, RT_MS);
        (void)give_batch(p, INT32_MAX); /* all of them are cancelled: nobody is called */
    }
}

static void uring_after_fork(rt_poller *base)
{
    poller *p = of(base);
    if (p->forked) return;
    io_uring_queue_exit(&p->ring); /* unmaps and closes, without a word to the kernel's side */
    p->forked = true;
    p->waiting = false;
}

static void uring_free(rt_poller *base)
{
    poller *p = of(base);
    RT_ASSERT(!p->waiting);
    if (!p->forked) io_uring_queue_exit(&p->ring);
    rt_free(p->slots);
    rt_free(p->todo);
    rt_free(p->cancels);
    rt_free(p);
}

static int uring_fd(const rt_poller *base)
{
    const poller *p = of((rt_poller *)base);
    return p->forked ? -1 : p->ring.ring_fd;
}

static const rt_poller_ops uring_ops = {
    .free = uring_free,
    .fd = uring_fd,
    .add = uring_add,
    .modify = uring_modify,
    .remove = uring_remove,
    .wait = uring_wait,
    .leave = uring_leave,
    .after_fork = uring_after_fork,
};

int rt_poller_uring_new(rt_poller **out)
{
    struct io_uring_params params = {
        .flags = IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER |
                 IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE,
        .cq_entries = COMPLETIONS,
    };
    poller *p = rt_calloc(1, sizeof *p);
    if (!p) return RT_ENOMEM;
    int rc = result(io_uring_queue_init_params(ENTRIES, &p->ring, &params));
    if (rc < 0) {
        int sys = errno;
        rt_free(p);
        errno = sys;
        return rc;
    }
    p->base.ops = &uring_ops;
    p->first_free = SLOT_NONE;
    *out = &p->base;
    return RT_OK;
}

#endif
