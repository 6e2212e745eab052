#define _GNU_SOURCE /* ppoll */
#include "net/poller_ops.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"

/* So many times in a row others that are ready may wait for a guess, each of so many bytes. */
enum { BATCH_MAX = 256, GUESSES_MAX = 8, GUESS_BYTES_MAX = 16 * 1024 };

typedef struct poller {
    rt_poller base;
    int fd;                 /* -1 in the child of a fork */
    int at, count;          /* the part of the batch that still waits is [at, count) */
    bool waiting;
    rt_source *lone;        /* all that the last fetch found, or NULL; see guess */
    int guesses;            /* since then */
    struct epoll_event batch[BATCH_MAX];
} poller;

static poller *of(rt_poller *p) { return RT_CONTAINER_OF(p, poller, base); }

static uint32_t to_epoll(uint32_t interest)
{
    return ((interest & RT_READABLE) ? EPOLLIN : 0u) | ((interest & RT_WRITABLE) ? EPOLLOUT : 0u) |
           ((interest & RT_EDGE) ? EPOLLET : 0u);
}

static uint32_t from_epoll(uint32_t events)
{
    return ((events & EPOLLIN) ? RT_READABLE : 0u) | ((events & EPOLLOUT) ? RT_WRITABLE : 0u) |
           ((events & (EPOLLERR | EPOLLHUP)) ? RT_HANGUP : 0u);
}

static void epoll_free(rt_poller *base)
{
    poller *p = of(base);
    RT_ASSERT(!p->waiting);
    if (p->fd >= 0) close(p->fd);
    rt_free(p);
}

static int epoll_fd(const rt_poller *base) { return of((rt_poller *)base)->fd; }

static int control(poller *p, int op, int fd, rt_source *s, uint32_t interest)
{
    struct epoll_event e = {.events = to_epoll(interest), .data.ptr = s};
    if (p->fd < 0) return RT_EFORK;
    if (epoll_ctl(p->fd, op, fd, &e) == 0) return RT_OK;
    return errno == ENOMEM ? RT_ENOMEM : RT_ESYS;
}

static int epoll_add(rt_poller *p, rt_source *s, int fd, uint32_t interest)
{
    return control(of(p), EPOLL_CTL_ADD, fd, s, interest);
}

static int epoll_modify(rt_poller *p, rt_source *s, uint32_t interest)
{
    return control(of(p), EPOLL_CTL_MOD, s->fd, s, interest);
}

static void epoll_remove(rt_poller *base, rt_source *s)
{
    poller *p = of(base);
    /* A forked child shares the epoll set with its parent: control refuses. */
    (void)control(p, EPOLL_CTL_DEL, s->fd, s, 0);
    for (int i = p->at; i < p->count; i++)
        if (p->batch[i].data.ptr == s) p->batch[i].data.ptr = NULL;
    if (p->lone == s) p->lone = NULL;
}

/* epoll counts milliseconds. Longer waits are cut to whole ones, so that the
 * promise "at most" holds; below one millisecond ppoll does the waiting. */
static int fetch(poller *p, uint64_t timeout_ns, int max)
{
    int ms = 0;
    if (timeout_ns == UINT64_MAX) {
        ms = -1;
    } else if (timeout_ns >= RT_MS) {
        uint64_t whole = timeout_ns / RT_MS;
        ms = whole > INT_MAX ? INT_MAX : (int)whole;
    } else if (timeout_ns > 0) {
        struct pollfd f = {.fd = p->fd, .events = POLLIN};
        struct timespec t = {.tv_sec = 0, .tv_nsec = (long)timeout_ns};
        int n = ppoll(&f, 1, &t, NULL);
        if (n <= 0) return n;
    }
    return epoll_wait(p->fd, p->batch, max < BATCH_MAX ? max : BATCH_MAX, ms);
}

/* Calls those of the batch that are ready, as many as the limit permits. */
static int give(poller *p)
{
    int called = 0;
    p->waiting = true;
    while (p->at < p->count && !rt_poller_sated(&p->base)) {
        struct epoll_event e = p->batch[p->at++];
        rt_source *s = e.data.ptr;
        if (!s) continue; /* removed by a callback of this batch */
        /* An earlier callback may have taken interest away. */
        uint32_t events = from_epoll(e.events) & (s->interest | RT_HANGUP);
        if (!events) continue;
        s->ready(s, events);
        called++;
    }
    p->waiting = false;
    size_t spent = rt_poller_spent(&p->base);
    if (spent == 0 || spent > GUESS_BYTES_MAX) p->lone = NULL; /* a timer, nothing, or a stream */
    return called;
}

/* Who plays ping-pong is told of the same source each time: it is asked itself at once, and when
 * it has brought something the set need not be. That saves a system call. */
static bool guess(poller *p)
{
    if (!p->lone || p->lone->interest != RT_READABLE || p->guesses == GUESSES_MAX) return false;
    p->guesses++;
    p->batch[0] = (struct epoll_event){.events = EPOLLIN, .data.ptr = p->lone};
    p->at = 0;
    p->count = 1;
    give(p);
    return rt_poller_spent(&p->base) > 0;
}

static int epoll_give(rt_poller *base, uint64_t timeout_ns, int max)
{
    poller *p = of(base);
    RT_ASSERT(!p->waiting);
    if (p->fd < 0) return RT_EFORK;
    if (p->at < p->count) return give(p); /* the last wait had no room for those */
    if (base->told && guess(p)) return 1;
    int n = fetch(p, timeout_ns, max);
    p->guesses = 0;
    p->lone = n == 1 ? p->batch[0].data.ptr : NULL;
    if (n < 0) return errno == EINTR ? 0 : RT_ESYS;
    p->at = 0;
    p->count = n;
    return give(p);
}

/* The set knows no threads. */
static void epoll_leave(rt_poller *p) { (void)p; }

static void epoll_after_fork(rt_poller *base)
{
    poller *p = of(base);
    if (p->fd >= 0) close(p->fd);
    p->fd = -1;
    p->at = p->count = 0;
    p->waiting = false;
    p->lone = NULL;
}

static const rt_poller_ops epoll_ops = {
    .free = epoll_free,
    .fd = epoll_fd,
    .add = epoll_add,
    .modify = epoll_modify,
    .remove = epoll_remove,
    .wait = epoll_give,
    .leave = epoll_leave,
    .after_fork = epoll_after_fork,
    .edges = true,
};

int rt_poller_epoll_new(rt_poller **out)
{
    poller *p = rt_calloc(1, sizeof *p);
    if (!p) return RT_ENOMEM;
    p->base.ops = &epoll_ops;
    p->fd = epoll_create1(EPOLL_CLOEXEC);
    if (p->fd < 0) {
        int sys = errno;
        rt_free(p);
        errno = sys;
        return RT_ESYS;
    }
    *out = &p->base;
    return RT_OK;
}
