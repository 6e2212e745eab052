/* Purpose: TCP sockets: addresses, non-blocking connect, listen, accept.
 * Everything is close-on-exec and non-blocking; TCP_NODELAY and keep-alive are
 * set on every stream. Errors: RT_ESYS with errno, RT_EINVAL (no address). */
#ifndef RT_NET_SOCKET_H
#define RT_NET_SOCKET_H

#include <netinet/in.h>
#include <sys/socket.h>

#include "base/base.h"

typedef struct rt_address {
    socklen_t n;
    union {
        struct sockaddr sa;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    };
} rt_address;

#define RT_ADDRESS_TEXT_MAX 64u

/* IPv4 or IPv6 text; a link-local one may end in %name or %number of its link. */
int rt_address_parse(const char *numeric_host, uint16_t port, rt_address *out);
int rt_address_any(int family, uint16_t port, rt_address *out);
int rt_address_loopback(int family, uint16_t port, rt_address *out);
/* 127.0.0.1:80, [::1]:80 */
void rt_address_text(const rt_address *a, char out[RT_ADDRESS_TEXT_MAX]);
uint16_t rt_address_port(const rt_address *a);
void rt_address_set_port(rt_address *a, uint16_t port);
bool rt_address_is_loopback(const rt_address *a);
/* True when the two addresses are of the same host (ports apart), IPv4-mapped
 * IPv6 counted as IPv4. */
bool rt_address_same_host(const rt_address *a, const rt_address *b);

/* Starts a connect; *out is the descriptor; RT_OK (done) or RT_AGAIN (wait for
 * writable, then rt_socket_error). */
int rt_socket_connect(const rt_address *to, int *out);
/* SO_ERROR as errno value, 0 when fine; ECONNREFUSED for a stream that was
 * connected to itself. Asking clears it. */
int rt_socket_error(int fd);
/* Bytes that the kernel has taken and not sent; 0 for what is no TCP socket. */
size_t rt_socket_unsent(int fd);
/* A stream of ours is writable with less than so many of them, until it is told otherwise. */
#define RT_SOCKET_UNSENT_BYTES (128u * 1024u)
int rt_socket_allow_unsent(int fd, size_t bytes);
/* An IPv6 "any" address takes IPv4 as well. `bound` may be NULL. */
int rt_socket_listen(const rt_address *at, int backlog, int *out, rt_address *bound);
/* RT_AGAIN when none waits; RT_ESYS. Connections that broke while they waited
 * are passed over. `peer` may be NULL. */
int rt_socket_accept(int listener, int *out, rt_address *peer);
int rt_socket_local(int fd, rt_address *out);
int rt_socket_peer(int fd, rt_address *out);
/* Seconds; the kernel's own smoothed estimate for a stream, 0 when it has none. */
double rt_socket_round_trip(int fd);
/* For a stream that large messages come on: the kernel, left alone, lets a fast sender run many
 * megabytes ahead of its reader, and what comes behind waits for all of them. One that has only
 * small ones keeps its window: what the kernel needs to hold each counts too, and is more than
 * they. With a peer that is near, what is on its way at 2.5 GB/s is enough, `wide` or not; one
 * farther away than a millisecond keeps what the kernel finds right. */
#define RT_SOCKET_NEAR_US 1000u
#define RT_SOCKET_NEAR_BYTES_PER_US 2500u
#define RT_SOCKET_WINDOW_MIN (128 * 1024)
#define RT_SOCKET_WINDOW_WIDE (1024 * 1024)
void rt_socket_settle(int fd, bool wide);
void rt_socket_close(int fd);                /* keeps errno; -1 is harmless */

#endif
