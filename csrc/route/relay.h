/* Purpose: forward a message that is for another node.
 * Only with Node(relay=True), and only to nodes that are connected: a relay
 * does not connect on a stranger's word. The payload is not looked into beyond
 * the validation every message gets.
 * Threads: the driver of the incoming connection.
 * Errors: RT_ENOTCONN (no such connection, counted by the caller), RT_EFULL. */
#ifndef RT_ROUTE_RELAY_H
#define RT_ROUTE_RELAY_H

#include "dist/control.h"
#include "route/route.h"

int rt_relay_send(rt_route *r, const rt_control *c, rt_slice payload);

#endif
