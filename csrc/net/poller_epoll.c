#define _GNU_SOURCE /* ppoll */
#include "net/poller.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"

enum { BATCH_MAX = 256 };

struct rt_poller {
    int fd;                 /* -1 in the child of a fork */
    int at, count;          /* the part of the batch that still waits is [at, count) */
    bool waiting;
    struct epoll_event batch[BATCH_MAX];
};

static uint32_t to_epoll(uint32_t interest)
{
    return ((interest & RT_READABLE) ? EPOLLIN : 0u) | ((interest & RT_WRITABLE) ? EPOLLOUT : 0u);
}

static uint32_t from_epoll(uint32_t events)
{
    return ((events & EPOLLIN) ? RT_READABLE : 0u) | ((events & EPOLLOUT) ? RT_WRITABLE : 0u) |
           ((events & (EPOLLERR | EPOLLHUP)) ? RT_HANGUP : 0u);
}

int rt_poller_new(rt_poller **out)
{
    rt_poller *p = rt_calloc(1, sizeof *p);
    if (!p) return RT_ENOMEM;
    p->fd = epoll_create1(EPOLL_CLOEXEC);
    if (p->fd < 0) {
        int sys = errno;
        rt_free(p);
        errno = sys;
        return RT_ESYS;
    }
    *out = p;
    return RT_OK;
}

void rt_poller_free(rt_poller *p)
{
    if (!p) return;
    RT_ASSERT(!p->waiting);
    if (p->fd >= 0) close(p->fd);
    rt_free(p);
}

int rt_poller_fd(const rt_poller *p) { return p->fd; }

static int control(rt_poller *p, int op, int fd, rt_source *s, uint32_t interest)
{
    struct epoll_event e = {.events = to_epoll(interest), .data.ptr = s};
    if (p->fd < 0) return RT_EFORK;
    if (epoll_ctl(p->fd, op, fd, &e) == 0) return RT_OK;
    return errno == ENOMEM ? RT_ENOMEM : RT_ESYS;
}

int rt_poller_add(rt_poller *p, rt_source *s, int fd, uint32_t interest)
{
    RT_ASSERT(s->fd < 0);
    int rc = control(p, EPOLL_CTL_ADD, fd, s, interest);
    if (rc < 0) return rc;
    s->fd = fd;
    s->interest = interest;
    return RT_OK;
}

int rt_poller_modify(rt_poller *p, rt_source *s, uint32_t interest)
{
    RT_ASSERT(s->fd >= 0);
    if (s->interest == interest) return RT_OK;
    int rc = control(p, EPOLL_CTL_MOD, s->fd, s, interest);
    if (rc < 0) return rc;
    s->interest = interest;
    return RT_OK;
}

void rt_poller_remove(rt_poller *p, rt_source *s)
{
    if (s->fd < 0) return;
    /* A forked child shares the epoll set with its parent: control refuses. */
    (void)control(p, EPOLL_CTL_DEL, s->fd, s, 0);
    s->fd = -1;
    s->interest = 0;
    for (int i = p->at; i < p->count; i++)
        if (p->batch[i].data.ptr == s) p->batch[i].data.ptr = NULL;
}

/* epoll counts milliseconds. Longer waits are cut to whole ones, so that the
 * promise "at most" holds; below one millisecond ppoll does the waiting. */
static int fetch(rt_poller *p, uint64_t timeout_ns, int max)
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

int rt_poller_wait(rt_poller *p, uint64_t timeout_ns, int max)
{
    int called = 0;
    RT_ASSERT(max > 0 && !p->waiting);
    if (p->fd < 0) return RT_EFORK;
    int n = fetch(p, timeout_ns, max);
    if (n < 0) return errno == EINTR ? 0 : RT_ESYS;
    p->waiting = true;
    p->at = 0;
    p->count = n;
    while (p->at < p->count) {
        struct epoll_event e = p->batch[p->at++];
        rt_source *s = e.data.ptr;
        if (!s) continue; /* removed by a callback of this batch */
        /* An earlier callback may have taken interest away. */
        uint32_t events = from_epoll(e.events) & (s->interest | RT_HANGUP);
        if (!events) continue;
        s->ready(s, events);
        called++;
    }
    p->at = p->count = 0;
    p->waiting = false;
    return called;
}

void rt_poller_after_fork(rt_poller *p)
{
    if (p->fd >= 0) close(p->fd);
    p->fd = -1;
    p->at = p->count = 0;
    p->waiting = false;
}
