/* Purpose: what every Erlang node answers by itself: net_adm:ping's is_auth
 * call to net_kernel. Answered here, so that a busy program still answers.
 * Threads: the driver. Errors: RT_ENOMEM; a message it does not know is RT_ENOENT. */
#ifndef RT_ROUTE_SYSTEM_H
#define RT_ROUTE_SYSTEM_H

#include "route/route.h"

/* A message to the registered name net_kernel, without atom references. */
int rt_system_message(rt_route *r, rt_peer *peer, rt_slice payload);

#endif
