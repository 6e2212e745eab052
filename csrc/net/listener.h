/* Purpose: accept connections on one address.
 * Ownership: embedded in its owner. Threads: the driver only.
 * Limits: at most RT_ACCEPTS_PER_TURN a call. When the process is out of
 * descriptors, accepting stops until rt_listener_resume. */
#ifndef RT_NET_LISTENER_H
#define RT_NET_LISTENER_H

#include "net/poller.h"
#include "net/socket.h"

#define RT_ACCEPTS_PER_TURN 64

typedef struct rt_listener rt_listener;
struct rt_listener {
    rt_source source;
    rt_poller *poller;
    rt_address bound;
    /* Takes the descriptor over. */
    void (*accepted)(rt_listener *l, int fd, const rt_address *peer);
    /* accept failed with errno (EMFILE and the like); the listener is quiet
     * until resumed. */
    void (*failed)(rt_listener *l, int sys);
};

int rt_listener_open(rt_listener *l, rt_poller *p, const rt_address *at);
void rt_listener_resume(rt_listener *l);
void rt_listener_close(rt_listener *l);   /* harmless when not open */

#endif
