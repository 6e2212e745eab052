/* Purpose: what a kind of poller is made of. For csrc/net/poller*.c alone.
 * Ownership: a poller begins with a struct rt_poller and is freed by its kind.
 * Threads, Errors: see net/poller.h, each function under its name there.
 * Limits: none. */
#ifndef RT_NET_POLLER_OPS_H
#define RT_NET_POLLER_OPS_H

#include "net/poller.h"

typedef struct rt_poller_ops {
    void (*free)(rt_poller *p);
    int (*fd)(const rt_poller *p);
    int (*add)(rt_poller *p, rt_source *s, int fd, uint32_t interest);
    int (*modify)(rt_poller *p, rt_source *s, uint32_t interest); /* it differs */
    void (*remove)(rt_poller *p, rt_source *s);                   /* it is in the poller */
    int (*wait)(rt_poller *p, uint64_t timeout_ns, int max);
    void (*leave)(rt_poller *p);
    void (*after_fork)(rt_poller *p);
    bool edges;              /* RT_EDGE */
} rt_poller_ops;

struct rt_poller {
    const rt_poller_ops *ops;
    size_t limit, spent;     /* see rt_poller_limit; spent in this wait, or the last */
    bool told;               /* see rt_poller_told; of this wait */
};

int rt_poller_epoll_new(rt_poller **out);
int rt_poller_uring_new(rt_poller **out);

#endif
