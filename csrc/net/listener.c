#include "net/listener.h"

#include <errno.h>

static void listener_ready(rt_source *s, uint32_t events)
{
    rt_listener *l = RT_CONTAINER_OF(s, rt_listener, source);
    (void)events;
    for (int i = 0; i < RT_ACCEPTS_PER_TURN && s->fd >= 0; i++) {
        int fd;
        rt_address peer;
        int rc = rt_socket_accept(s->fd, &fd, &peer);
        if (rc == RT_AGAIN) return;
        if (rc < 0) {
            int sys = errno;
            rt_poller_modify(l->poller, s, 0);
            l->failed(l, sys);
            return;
        }
        l->accepted(l, fd, &peer);
    }
}

int rt_listener_open(rt_listener *l, rt_poller *p, const rt_address *at)
{
    int fd;
    rt_address bound;
    int rc = rt_socket_listen(at, 1024, &fd, &bound);
    if (rc < 0) return rc;
    l->source.fd = -1;
    l->source.ready = listener_ready;
    rc = rt_poller_add(p, &l->source, fd, RT_READABLE);
    if (rc < 0) {
        rt_socket_close(fd);
        return rc;
    }
    l->poller = p;
    l->bound = bound;
    return RT_OK;
}

void rt_listener_resume(rt_listener *l)
{
    if (l->source.fd >= 0) rt_poller_modify(l->poller, &l->source, RT_READABLE);
}

void rt_listener_close(rt_listener *l)
{
    int fd = l->source.fd;
    if (fd < 0) return;
    rt_poller_remove(l->poller, &l->source);
    rt_socket_close(fd);
}
