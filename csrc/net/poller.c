#include "net/poller_ops.h"

int rt_poller_usable(enum rt_poller_kind kind)
{
    rt_poller *p;
    if (kind == RT_POLLER_EPOLL) return RT_OK;
    int rc = rt_poller_new(&p, kind);
    if (rc == RT_OK) rt_poller_free(p);
    return rc;
}

int rt_poller_new(rt_poller **out, enum rt_poller_kind kind)
{
    return kind == RT_POLLER_URING ? rt_poller_uring_new(out) : rt_poller_epoll_new(out);
}

void rt_poller_free(rt_poller *p)
{
    if (p) p->ops->free(p);
}

int rt_poller_fd(const rt_poller *p) { return p->ops->fd(p); }

bool rt_poller_edges(const rt_poller *p) { return p->ops->edges; }

int rt_poller_add(rt_poller *p, rt_source *s, int fd, uint32_t interest)
{
    RT_ASSERT(s->fd < 0);
    int rc = p->ops->add(p, s, fd, interest);
    if (rc < 0) return rc;
    s->fd = fd;
    s->interest = interest;
    return RT_OK;
}

int rt_poller_modify(rt_poller *p, rt_source *s, uint32_t interest)
{
    RT_ASSERT(s->fd >= 0);
    if (s->interest == interest) return RT_OK;
    int rc = p->ops->modify(p, s, interest);
    if (rc < 0) return rc;
    s->interest = interest;
    return RT_OK;
}

void rt_poller_remove(rt_poller *p, rt_source *s)
{
    if (s->fd < 0) return;
    p->ops->remove(p, s);
    s->fd = -1;
    s->interest = 0;
}

void rt_poller_limit(rt_poller *p, size_t bytes) { p->limit = bytes; }

bool rt_poller_sated(const rt_poller *p) { return p->limit && p->spent >= p->limit; }

size_t rt_poller_spent(const rt_poller *p) { return p->spent; }

bool rt_poller_spend(rt_poller *p, size_t bytes)
{
    p->spent += bytes;
    return !rt_poller_sated(p);
}

int rt_poller_wait(rt_poller *p, uint64_t timeout_ns, int max)
{
    RT_ASSERT(max > 0);
    p->spent = 0;
    int n = p->ops->wait(p, timeout_ns, max);
    p->told = false;
    return n;
}

void rt_poller_told(rt_poller *p) { p->told = true; }

void rt_poller_leave(rt_poller *p) { p->ops->leave(p); }
void rt_poller_after_fork(rt_poller *p) { p->ops->after_fork(p); }
