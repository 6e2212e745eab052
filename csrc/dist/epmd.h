/* Purpose: the port mapper's messages: client side, and a server as a state
 * machine. No sockets. Source: erl_dist_protocol, "EPMD Protocol".
 * Limits: names of at most 255 characters (epmd's own), `names_max`
 * registrations.
 * Errors: RT_AGAIN, RT_EBAD, RT_EEXIST (name taken), RT_ENOENT (no such name). */
#ifndef RT_DIST_EPMD_H
#define RT_DIST_EPMD_H

#include "base/base.h"
#include "base/buf.h"

#define RT_EPMD_PORT 4369
#define RT_EPMD_NODE_NORMAL 77
#define RT_EPMD_NODE_HIDDEN 72

/* Requests (2-byte length included). `name` is the part before '@'. */
int rt_epmd_put_alive2(rt_buf *b, rt_slice name, uint16_t port, bool hidden);
int rt_epmd_put_port_please2(rt_buf *b, rt_slice name);
int rt_epmd_put_names(rt_buf *b);

/* Answers: bytes eaten, RT_AGAIN, or an error. */
/* 118 or 121; RT_EEXIST */
int64_t rt_epmd_read_alive2(const uint8_t *p, size_t n, uint32_t *creation);
typedef struct rt_epmd_port {
    uint16_t port, highest, lowest;
    uint8_t node_type, protocol;
} rt_epmd_port;
int64_t rt_epmd_read_port2(const uint8_t *p, size_t n, rt_epmd_port *out);  /* RT_ENOENT */

/* The server: who is registered, by connection. */
typedef struct rt_epmd_server rt_epmd_server;
rt_epmd_server *rt_epmd_server_new(uint16_t own_port, uint32_t names_max);
void rt_epmd_server_free(rt_epmd_server *s);
/* Handles what connection `conn` (any number, unique among open ones) sent.
 * `local` tells whether the connection comes from this host (registration is
 * refused otherwise). `*used` bytes eaten. Returns 0: wait for more; 1: send
 * `out` and keep the connection (it holds a registration); 2: send `out`,
 * then close; negative: close. */
int rt_epmd_server_feed(rt_epmd_server *s, uint64_t conn, bool local, const uint8_t *p, size_t n,
                        size_t *used, rt_buf *out);
/* The connection is gone, and with it what it registered. */
void rt_epmd_server_closed(rt_epmd_server *s, uint64_t conn);
/* The node that serves registers itself without a connection. */
int rt_epmd_server_add(rt_epmd_server *s, rt_slice name, uint16_t port, bool hidden,
                       uint32_t *creation);
uint32_t rt_epmd_server_count(const rt_epmd_server *s);

#endif
