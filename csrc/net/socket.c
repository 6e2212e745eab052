#define _GNU_SOURCE /* accept4 */
#include "net/socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* ---- addresses ---- */

/* "%eth0" or "%2" behind a link-local address; 0 when there is no such link. */
static uint32_t parse_scope(const char *text)
{
    char *end;
    uint32_t id = if_nametoindex(text);
    if (id) return id;
    if (*text < '0' || *text > '9') return 0;
    unsigned long v = strtoul(text, &end, 10);
    return *end == '\0' && v <= UINT32_MAX ? (uint32_t)v : 0;
}

static bool parse_v6(const char *text, uint16_t port, rt_address *a)
{
    char host[INET6_ADDRSTRLEN];
    const char *scope = strchr(text, '%');
    size_t n = scope ? (size_t)(scope - text) : strlen(text);
    if (n >= sizeof host) return false;
    memcpy(host, text, n);
    host[n] = '\0';
    if (inet_pton(AF_INET6, host, &a->in6.sin6_addr) != 1) return false;
    if (scope) {
        a->in6.sin6_scope_id = parse_scope(scope + 1);
        if (a->in6.sin6_scope_id == 0) return false;
    }
    a->in6.sin6_family = AF_INET6;
    a->in6.sin6_port = htons(port);
    a->n = sizeof a->in6;
    return true;
}

static void make_v4(rt_address *a, uint16_t port, uint32_t host)
{
    memset(a, 0, sizeof *a);
    a->in.sin_family = AF_INET;
    a->in.sin_port = htons(port);
    a->in.sin_addr.s_addr = htonl(host);
    a->n = sizeof a->in;
}

static void make_v6(rt_address *a, uint16_t port, const struct in6_addr *host)
{
    memset(a, 0, sizeof *a);
    a->in6.sin6_family = AF_INET6;
    a->in6.sin6_port = htons(port);
    a->in6.sin6_addr = *host;
    a->n = sizeof a->in6;
}

int rt_address_parse(const char *numeric_host, uint16_t port, rt_address *out)
{
    rt_address a;
    struct in_addr v4;
    memset(&a, 0, sizeof a);
    if (inet_pton(AF_INET, numeric_host, &v4) == 1) make_v4(&a, port, ntohl(v4.s_addr));
    else if (!parse_v6(numeric_host, port, &a)) return RT_EINVAL;
    *out = a;
    return RT_OK;
}

int rt_address_any(int family, uint16_t port, rt_address *out)
{
    if (family == AF_INET) make_v4(out, port, INADDR_ANY);
    else if (family == AF_INET6) make_v6(out, port, &in6addr_any);
    else return RT_EINVAL;
    return RT_OK;
}

int rt_address_loopback(int family, uint16_t port, rt_address *out)
{
    if (family == AF_INET) make_v4(out, port, INADDR_LOOPBACK);
    else if (family == AF_INET6) make_v6(out, port, &in6addr_loopback);
    else return RT_EINVAL;
    return RT_OK;
}

static bool is_v4(const rt_address *a)
{
    return a->n >= sizeof a->in && a->sa.sa_family == AF_INET;
}
static bool is_v6(const rt_address *a)
{
    return a->n >= sizeof a->in6 && a->sa.sa_family == AF_INET6;
}

void rt_address_text(const rt_address *a, char out[RT_ADDRESS_TEXT_MAX])
{
    char host[INET6_ADDRSTRLEN], scope[16] = "";
    int n = -1;
    if (is_v4(a) && inet_ntop(AF_INET, &a->in.sin_addr, host, sizeof host)) {
        n = snprintf(out, RT_ADDRESS_TEXT_MAX, "%s:%u", host, ntohs(a->in.sin_port));
    } else if (is_v6(a) && inet_ntop(AF_INET6, &a->in6.sin6_addr, host, sizeof host)) {
        if (a->in6.sin6_scope_id) snprintf(scope, sizeof scope, "%%%u", a->in6.sin6_scope_id);
        n = snprintf(out, RT_ADDRESS_TEXT_MAX, "[%s%s]:%u", host, scope, ntohs(a->in6.sin6_port));
    }
    if (n < 0 || n >= (int)RT_ADDRESS_TEXT_MAX) memcpy(out, "(no address)", sizeof "(no address)");
}

uint16_t rt_address_port(const rt_address *a)
{
    return is_v4(a) ? ntohs(a->in.sin_port) : is_v6(a) ? ntohs(a->in6.sin6_port) : 0;
}

void rt_address_set_port(rt_address *a, uint16_t port)
{
    if (is_v4(a)) a->in.sin_port = htons(port);
    else if (is_v6(a)) a->in6.sin6_port = htons(port);
}

/* The IPv4 host of an IPv4 or IPv4-mapped address, host byte order. */
static bool as_v4(const rt_address *a, uint32_t *host)
{
    uint32_t v;
    if (is_v4(a)) {
        v = a->in.sin_addr.s_addr;
    } else if (is_v6(a) && IN6_IS_ADDR_V4MAPPED(&a->in6.sin6_addr)) {
        memcpy(&v, a->in6.sin6_addr.s6_addr + 12, 4);
    } else {
        return false;
    }
    *host = ntohl(v);
    return true;
}

bool rt_address_is_loopback(const rt_address *a)
{
    uint32_t v4;
    if (as_v4(a, &v4)) return v4 >> 24 == 127;
    return is_v6(a) && IN6_IS_ADDR_LOOPBACK(&a->in6.sin6_addr);
}

bool rt_address_same_host(const rt_address *a, const rt_address *b)
{
    uint32_t a4, b4;
    bool a_v4 = as_v4(a, &a4), b_v4 = as_v4(b, &b4);
    if (a_v4 || b_v4) return a_v4 && b_v4 && a4 == b4;
    if (!is_v6(a) || !is_v6(b)) return false;
    return memcmp(&a->in6.sin6_addr, &b->in6.sin6_addr, sizeof a->in6.sin6_addr) == 0 &&
           a->in6.sin6_scope_id == b->in6.sin6_scope_id;
}

/* ---- sockets ---- */

static int set_flag(int fd, int level, int name, int on)
{
    return setsockopt(fd, level, name, &on, sizeof on) == 0 ? RT_OK : RT_ESYS;
}

int rt_socket_allow_unsent(int fd, size_t bytes)
{
    return set_flag(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, (int)bytes);
}

static int set_stream_options(int fd)
{
    int rc = set_flag(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    /* Writable means that little is unsent: see rt_outq_write. */
    if (rc == RT_OK) rc = rt_socket_allow_unsent(fd, RT_SOCKET_UNSENT_BYTES);
    return rc < 0 ? rc : set_flag(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
}

size_t rt_socket_unsent(int fd)
{
    int n = 0;
    return ioctl(fd, SIOCOUTQNSD, &n) == 0 && n > 0 ? (size_t)n : 0;
}

static int open_socket(const rt_address *a, int *out)
{
    if (!is_v4(a) && !is_v6(a)) return RT_EINVAL;
    int fd = socket(a->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return RT_ESYS;
    *out = fd;
    return RT_OK;
}

int rt_socket_connect(const rt_address *to, int *out)
{
    int fd;
    int rc = open_socket(to, &fd);
    if (rc < 0) return rc;
    rc = set_stream_options(fd);
    if (rc < 0) goto fail;
    if (connect(fd, &to->sa, to->n) < 0) {
        /* After a signal the connect goes on by itself. */
        rc = errno == EINPROGRESS || errno == EINTR ? RT_AGAIN : RT_ESYS;
        if (rc == RT_ESYS) goto fail;
    }
    *out = fd;
    return rc;
fail:
    rt_socket_close(fd);
    return rc;
}

/* A connect to a port of this host that nobody listens on may be given that
 * very port as its own and then reach itself. That is no peer. */
static bool reached_itself(int fd)
{
    rt_address local, peer;
    return rt_socket_local(fd, &local) == RT_OK && rt_socket_peer(fd, &peer) == RT_OK &&
           rt_address_port(&local) == rt_address_port(&peer) &&
           rt_address_same_host(&local, &peer);
}

int rt_socket_error(int fd)
{
    int sys = 0;
    socklen_t n = sizeof sys;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &sys, &n) < 0) return errno;
    if (sys == 0 && reached_itself(fd)) return ECONNREFUSED;
    return sys;
}

int rt_socket_listen(const rt_address *at, int backlog, int *out, rt_address *bound)
{
    int fd;
    rt_address a;
    int rc = open_socket(at, &fd);
    if (rc < 0) return rc;
    rc = set_flag(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (rc < 0) goto fail;
    /* Said here, so that the machine's settings do not decide. */
    if (is_v6(at)) rc = set_flag(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
    if (rc < 0) goto fail;
    rc = RT_ESYS;
    if (bind(fd, &at->sa, at->n) < 0 || listen(fd, backlog) < 0) goto fail;
    rc = rt_socket_local(fd, &a);
    if (rc < 0) goto fail;
    if (bound) *bound = a;
    *out = fd;
    return RT_OK;
fail:
    rt_socket_close(fd);
    return rc;
}

/* accept reports errors of the connection that it took from the queue, which
 * say nothing about the listener. */
static bool concerns_one_peer(int sys)
{
    switch (sys) {
    case EINTR: case ECONNABORTED: case EPERM: case EPROTO: case ENOPROTOOPT: case EOPNOTSUPP:
    case ENETDOWN: case ENETUNREACH: case EHOSTDOWN: case EHOSTUNREACH: case ETIMEDOUT:
        return true;
    default:
        return false;
    }
}

int rt_socket_accept(int listener, int *out, rt_address *peer)
{
    enum { TRIES_MAX = 64 }; /* a bounded call; level-triggered readiness brings us back */
    for (int i = 0; i < TRIES_MAX; i++) {
        rt_address a;
        memset(&a, 0, sizeof a);
        a.n = sizeof a.in6;
        int fd = accept4(listener, &a.sa, &a.n, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EAGAIN || errno == EWOULDBLOCK) return RT_AGAIN;
            if (concerns_one_peer(errno)) continue;
            return RT_ESYS;
        }
        if (set_stream_options(fd) < 0) {
            rt_socket_close(fd);
            continue;
        }
        if (peer) *peer = a;
        *out = fd;
        return RT_OK;
    }
    return RT_AGAIN;
}

int rt_socket_local(int fd, rt_address *out)
{
    rt_address a;
    memset(&a, 0, sizeof a);
    a.n = sizeof a.in6;
    if (getsockname(fd, &a.sa, &a.n) < 0) return RT_ESYS;
    *out = a;
    return RT_OK;
}

int rt_socket_peer(int fd, rt_address *out)
{
    rt_address a;
    memset(&a, 0, sizeof a);
    a.n = sizeof a.in6;
    if (getpeername(fd, &a.sa, &a.n) < 0) return RT_ESYS;
    *out = a;
    return RT_OK;
}

/* Microseconds of the shortest round trip; 0 when the kernel has none. It stands where the
 * kernel's tcp_info has it: the C library's may be older and shorter. */
static uint32_t shortest_round_trip(int fd)
{
    enum { MIN_RTT_AT = 148 };
    uint8_t info[MIN_RTT_AT + 4];
    socklen_t size = sizeof info;
    uint32_t us = 0;
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, &size) == 0 && size == sizeof info)
        memcpy(&us, info + MIN_RTT_AT, 4);
    return us;
}

void rt_socket_settle(int fd, bool wide)
{
    uint32_t us = shortest_round_trip(fd);
    if (us == 0 || us >= RT_SOCKET_NEAR_US) return;
    int bytes = (int)(us * RT_SOCKET_NEAR_BYTES_PER_US);
    int least = wide ? RT_SOCKET_WINDOW_WIDE : RT_SOCKET_WINDOW_MIN;
    if (bytes < least) bytes = least;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes); /* a hint */
}

void rt_socket_close(int fd)
{
    int sys = errno; /* so that a failure can still be told after cleaning up */
    if (fd >= 0) close(fd);
    errno = sys;
}

double rt_socket_round_trip(int fd)
{
    struct tcp_info info;
    socklen_t size = sizeof info;
    if (fd < 0 || getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) return 0.0;
    return (double)info.tcpi_rtt / 1e6;
}
