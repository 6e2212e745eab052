/* needs: net */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/syscall.h>

#include "net/socket.h"
#include "sockets.h"

static int fail_connect, fail_accept, accepts_to_fail, fail_option;

/* These stand in front of libc's, to fail with the errno a test wants. */
int connect(int fd, const struct sockaddr *to, socklen_t n)
{
    long rc = syscall(SYS_connect, fd, to, n);
    if (!fail_connect) return (int)rc;
    errno = fail_connect;
    return -1;
}

int accept4(int fd, struct sockaddr *peer, socklen_t *n, int flags)
{
    if (accepts_to_fail > 0) {
        accepts_to_fail--;
        errno = fail_accept;
        return -1;
    }
    return (int)syscall(SYS_accept4, fd, peer, n, flags);
}

int setsockopt(int fd, int level, int name, const void *value, socklen_t n)
{
    if (fail_option == name) {
        errno = ENOPROTOOPT;
        return -1;
    }
    return (int)syscall(SYS_setsockopt, fd, level, name, value, n);
}

static const int families[] = {AF_INET, AF_INET6};
#define EACH_FAMILY(f) for (int i_ = 0, f; i_ < 2 && (f = families[i_], 1); i_++)

/* ---- addresses ---- */

static void test_parse_and_text(void)
{
    static const struct { const char *host, *text; int family; } good[] = {
        {"127.0.0.1", "127.0.0.1:4369", AF_INET},
        {"0.0.0.0", "0.0.0.0:4369", AF_INET},
        {"255.255.255.255", "255.255.255.255:4369", AF_INET},
        {"::1", "[::1]:4369", AF_INET6},
        {"::", "[::]:4369", AF_INET6},
        {"2001:DB8:0:0:0:0:0:1", "[2001:db8::1]:4369", AF_INET6},
        {"::ffff:10.0.0.1", "[::ffff:10.0.0.1]:4369", AF_INET6},
        {"fe80::1%1", "[fe80::1%1]:4369", AF_INET6},
        {"fe80:1111:2222:3333:4444:5555:6666:7777%4294967295",
         "[fe80:1111:2222:3333:4444:5555:6666:7777%4294967295]:4369", AF_INET6},
    };
    static const char *const bad[] = {
        "", " ", "localhost", "127.0.0.1 ", "127.0.0", "127.1", "256.0.0.1", "1.2.3.4:80",
        "[::1]", ":::", "::1%", "::1%nolink", "fe80::1%0", "fe80::1%4294967296",
        "fe80::1%4294967297", "fe80::1%1x", "fe80::1%-1", "12345::",
        "0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0001",
    };
    char text[RT_ADDRESS_TEXT_MAX];
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        rt_address a;
        memset(&a, 0xff, sizeof a);
        CHECK_INT(rt_address_parse(good[i].host, 4369, &a), RT_OK);
        CHECK_INT(a.sa.sa_family, good[i].family);
        rt_address_text(&a, text);
        if (!CHECK(strcmp(text, good[i].text) == 0)) fprintf(stderr, "    %s\n", text);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        rt_address a, before;
        memset(&a, 0x5a, sizeof a);
        before = a;
        if (!CHECK(rt_address_parse(bad[i], 1, &a) == RT_EINVAL))
            fprintf(stderr, "    %s\n", bad[i]);
        CHECK_BYTES(&a, &before, sizeof a);
    }
    rt_address none = {0};
    rt_address_text(&none, text);
    CHECK(strcmp(text, "(no address)") == 0);
}

static void test_scope_by_name(void)
{
    rt_address a;
    char host[64], name[IF_NAMESIZE];
    if (!CHECK(if_indextoname(1, name) != NULL)) return; /* the loopback link */
    snprintf(host, sizeof host, "fe80::1%%%s", name);
    CHECK_INT(rt_address_parse(host, 1, &a), RT_OK);
    CHECK_INT(a.in6.sin6_scope_id, 1);
}

static void test_ports_and_kinds(void)
{
    rt_address a;
    EACH_FAMILY(f) {
        CHECK_INT(rt_address_any(f, 1, &a), RT_OK);
        CHECK_INT(rt_address_port(&a), 1);
        CHECK(!rt_address_is_loopback(&a));
        CHECK_INT(rt_address_loopback(f, 65535, &a), RT_OK);
        CHECK_INT(rt_address_port(&a), 65535);
        CHECK(rt_address_is_loopback(&a));
        rt_address_set_port(&a, 0x1234);
        CHECK_INT(rt_address_port(&a), 0x1234);
        CHECK(rt_address_is_loopback(&a));
    }
    CHECK_INT(rt_address_any(AF_UNIX, 1, &a), RT_EINVAL);
    CHECK_INT(rt_address_loopback(AF_UNSPEC, 1, &a), RT_EINVAL);
    memset(&a, 0, sizeof a);
    CHECK_INT(rt_address_port(&a), 0);
    CHECK(!rt_address_is_loopback(&a));
}

static rt_address parsed(const char *host, uint16_t port)
{
    rt_address a = {0};
    CHECK_INT(rt_address_parse(host, port, &a), RT_OK);
    return a;
}

static void test_same_host(void)
{
    static const struct { const char *a, *b; bool same; } pairs[] = {
        {"10.0.0.1", "10.0.0.1", true},           {"10.0.0.1", "10.0.0.2", false},
        {"::ffff:10.0.0.1", "10.0.0.1", true},    {"::ffff:10.0.0.1", "10.0.0.2", false},
        {"::1", "::1", true},                     {"::1", "127.0.0.1", false},
        {"2001:db8::1", "2001:db8::2", false},    {"::10.0.0.1", "10.0.0.1", false},
        {"fe80::1%1", "fe80::1%2", false},        {"fe80::1%1", "fe80::1%1", true},
        {"::ffff:10.0.0.1", "::ffff:10.0.0.1", true},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        rt_address a = parsed(pairs[i].a, 1), b = parsed(pairs[i].b, 2);
        CHECK_INT(rt_address_same_host(&a, &b), pairs[i].same);
        CHECK_INT(rt_address_same_host(&b, &a), pairs[i].same);
    }
    rt_address none = {0}, a = parsed("::1", 1);
    CHECK(!rt_address_same_host(&none, &none));
    CHECK(!rt_address_same_host(&none, &a));
    static const struct { const char *a; bool loopback; } kinds[] = {
        {"127.1.2.3", true}, {"128.0.0.1", false}, {"::ffff:127.0.0.1", true},
        {"::ffff:126.0.0.1", false}, {"::2", false}, {"::127.0.0.1", false},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        a = parsed(kinds[i].a, 1);
        CHECK_INT(rt_address_is_loopback(&a), kinds[i].loopback);
    }
}

/* ---- sockets ---- */

static bool wait_for(int fd, short events)
{
    struct pollfd f = {.fd = fd, .events = events};
    return poll(&f, 1, (int)(PATIENCE / RT_MS)) == 1;
}

static int option(int fd, int level, int name)
{
    int v = -1;
    socklen_t n = sizeof v;
    CHECK_INT(getsockopt(fd, level, name, &v, &n), 0);
    return v;
}

static void check_stream(int fd)
{
    CHECK(option(fd, IPPROTO_TCP, TCP_NODELAY) == 1);
    CHECK(option(fd, SOL_SOCKET, SO_KEEPALIVE) == 1);
    CHECK(fcntl(fd, F_GETFL) & O_NONBLOCK);
    CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
}

static int listen_on(int family, rt_address *bound)
{
    rt_address at;
    int fd = -1;
    CHECK_INT(rt_address_loopback(family, 0, &at), RT_OK);
    CHECK_INT(rt_socket_listen(&at, 16, &fd, bound), RT_OK);
    CHECK(fcntl(fd, F_GETFL) & O_NONBLOCK);
    CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    CHECK(rt_address_port(bound) != 0);
    CHECK(rt_address_same_host(bound, &at));
    return fd;
}

static int connect_to(const rt_address *to)
{
    int fd = -1;
    int rc = rt_socket_connect(to, &fd);
    CHECK(rc == RT_OK || rc == RT_AGAIN);
    CHECK(wait_for(fd, POLLOUT));
    CHECK_INT(rt_socket_error(fd), 0);
    return fd;
}

static void test_connect_and_accept(void)
{
    int fds = open_fds();
    EACH_FAMILY(f) {
        rt_address bound, peer = {0}, a = {0}, b = {0};
        int out = -7, listener = listen_on(f, &bound);
        CHECK_INT(rt_socket_accept(listener, &out, &peer), RT_AGAIN);
        CHECK_INT(out, -7);
        CHECK_INT(peer.n, 0);
        int fd = connect_to(&bound);
        check_stream(fd);
        CHECK(wait_for(listener, POLLIN));
        CHECK_INT(rt_socket_accept(listener, &out, &peer), RT_OK);
        check_stream(out);
        CHECK_INT(rt_socket_local(fd, &a), RT_OK);
        CHECK_INT(rt_socket_peer(out, &b), RT_OK);
        CHECK_INT(a.n, peer.n);
        CHECK_BYTES(&a.sa, &peer.sa, a.n);
        CHECK_BYTES(&a.sa, &b.sa, a.n);
        CHECK_INT(rt_socket_peer(fd, &b), RT_OK);
        CHECK_BYTES(&b.sa, &bound.sa, b.n);
        put_byte(fd);
        CHECK(wait_for(out, POLLIN));
        take_byte(out);
        CHECK_INT(rt_socket_error(out), 0);
        rt_socket_close(fd);
        rt_socket_close(out);
        rt_socket_close(listener);
    }
    CHECK_INT(open_fds(), fds);
}

/* Little is unsent in the kernel, and a stream is writable while that is so; the window of one
 * whose peer is near is small. */
static void test_how_far_a_sender_runs_ahead(void)
{
    static uint8_t data[64 * 1024];
    rt_address bound;
    int out, pair[2], listener = listen_on(AF_INET, &bound), fd = connect_to(&bound);
    CHECK(wait_for(listener, POLLIN));
    CHECK_INT(rt_socket_accept(listener, &out, NULL), RT_OK);
    put_byte(fd);
    CHECK(wait_for(out, POLLIN));
    take_byte(out);
    put_byte(out);
    CHECK(wait_for(fd, POLLIN));
    take_byte(fd);
    int before = option(out, SOL_SOCKET, SO_RCVBUF);
    rt_socket_settle(out, true);
    CHECK(option(out, SOL_SOCKET, SO_RCVBUF) >= RT_SOCKET_WINDOW_WIDE);
    rt_socket_settle(out, false);
    int window = option(out, SOL_SOCKET, SO_RCVBUF); /* the kernel's own use is counted in */
    CHECK(window >= 2 * RT_SOCKET_WINDOW_MIN);
    CHECK(window < 2 * (int)(RT_SOCKET_NEAR_US * RT_SOCKET_NEAR_BYTES_PER_US));
    CHECK(window != before);
    CHECK_INT(rt_socket_unsent(fd), 0);
    size_t sent = 0;
    for (ssize_t n; (n = send(fd, data, sizeof data, MSG_DONTWAIT)) > 0;) sent += (size_t)n;
    CHECK(sent < (size_t)window + 4 * RT_SOCKET_UNSENT_BYTES);
    CHECK(rt_socket_unsent(fd) >= RT_SOCKET_UNSENT_BYTES);
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    CHECK_INT(poll(&p, 1, 0), 0);
    for (size_t got = 0; got < sent;) {
        ssize_t n = wait_for(out, POLLIN) ? recv(out, data, sizeof data, 0) : -1;
        if (!CHECK(n > 0)) break;
        got += (size_t)n;
    }
    CHECK(wait_for(fd, POLLOUT));
    CHECK(rt_socket_unsent(fd) < RT_SOCKET_UNSENT_BYTES);
    CHECK_INT(rt_socket_allow_unsent(fd, 4 * RT_SOCKET_UNSENT_BYTES), RT_OK);
    while (send(fd, data, sizeof data, MSG_DONTWAIT) > 0) {}
    CHECK(rt_socket_unsent(fd) >= 4 * RT_SOCKET_UNSENT_BYTES);
    rt_socket_close(fd);
    rt_socket_close(out);
    rt_socket_close(listener);
    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    rt_socket_settle(pair[0], true);                      /* not TCP: nothing */
    CHECK_INT(rt_socket_unsent(pair[0]), 0);
    rt_socket_close(pair[0]);
    rt_socket_close(pair[1]);
    rt_socket_settle(-1, true);
    CHECK_INT(rt_socket_unsent(-1), 0);
    CHECK_INT(rt_socket_allow_unsent(-1, 1), RT_ESYS);
}

static void test_refused(void)
{
    int fds = open_fds();
    EACH_FAMILY(f) {
        rt_address bound;
        int fd = -7;
        /* Bound and not listening: nobody else can get the port meanwhile. */
        int holder = socket(f, SOCK_STREAM | SOCK_CLOEXEC, 0);
        rt_address_loopback(f, 0, &bound);
        CHECK_INT(bind(holder, &bound.sa, bound.n), 0);
        CHECK_INT(rt_socket_local(holder, &bound), RT_OK);
        int rc = rt_socket_connect(&bound, &fd);
        if (rc == RT_AGAIN) {
            CHECK(wait_for(fd, POLLOUT));
            CHECK_INT(rt_socket_error(fd), ECONNREFUSED);
            rt_socket_close(fd);
        } else {
            CHECK_INT(rc, RT_ESYS);
            CHECK_INT(errno, ECONNREFUSED);
            CHECK_INT(fd, -7);
        }
        close(holder);
    }
    CHECK_INT(open_fds(), fds);
}

static void test_connected_to_itself(void)
{
    EACH_FAMILY(f) {
        rt_address a;
        int fd = socket(f, SOCK_STREAM | SOCK_CLOEXEC, 0);
        rt_address_loopback(f, 0, &a);
        CHECK_INT(bind(fd, &a.sa, a.n), 0);
        CHECK_INT(rt_socket_local(fd, &a), RT_OK);
        CHECK_INT(connect(fd, &a.sa, a.n), 0); /* TCP allows it */
        CHECK_INT(rt_socket_error(fd), ECONNREFUSED);
        rt_socket_close(fd);
    }
}

static void test_connect_fails(void)
{
    int fds = open_fds(), fd = -7;
    rt_address to = {0}, bound;
    CHECK_INT(rt_socket_connect(&to, &fd), RT_EINVAL);
    to.n = sizeof to.sa;
    to.sa.sa_family = AF_UNIX;
    CHECK_INT(rt_socket_connect(&to, &fd), RT_EINVAL);
    int listener = listen_on(AF_INET, &bound);
    fail_connect = ENETUNREACH;
    CHECK_INT(rt_socket_connect(&bound, &fd), RT_ESYS);
    CHECK_INT(errno, ENETUNREACH);
    fail_connect = 0;
    const int options[] = {TCP_NODELAY, SO_KEEPALIVE};
    for (int i = 0; i < 2; i++) {
        fail_option = options[i];
        CHECK_INT(rt_socket_connect(&bound, &fd), RT_ESYS);
        CHECK_INT(errno, ENOPROTOOPT);
    }
    fail_option = 0;
    rlim_t before = no_more_fds();
    int rc = rt_socket_connect(&bound, &fd), sys = errno;
    let_fds(before);
    CHECK_INT(rc, RT_ESYS);
    CHECK_INT(sys, EMFILE);
    CHECK_INT(fd, -7);
    fail_connect = EINTR; /* the kernel goes on connecting */
    CHECK_INT(rt_socket_connect(&bound, &fd), RT_AGAIN);
    fail_connect = 0;
    CHECK(wait_for(fd, POLLOUT));
    CHECK_INT(rt_socket_error(fd), 0);
    rt_socket_close(fd);
    rt_socket_close(listener);
    CHECK_INT(open_fds(), fds);
    CHECK_INT(rt_socket_error(listener), EBADF);
    CHECK_INT(rt_socket_local(listener, &bound), RT_ESYS);
    CHECK_INT(rt_socket_peer(listener, &bound), RT_ESYS);
}

static void test_listen_fails(void)
{
    int fds = open_fds();
    EACH_FAMILY(f) {
        rt_address bound, again, before;
        int fd = -7, listener = listen_on(f, &bound);
        memset(&again, 0x5a, sizeof again);
        before = again;
        CHECK_INT(rt_socket_listen(&bound, 16, &fd, &again), RT_ESYS);
        CHECK_INT(errno, EADDRINUSE);
        CHECK_INT(fd, -7);
        CHECK_BYTES(&again, &before, sizeof again);
        rt_socket_close(listener);
        const int options[] = {SO_REUSEADDR, IPV6_V6ONLY};
        for (int i = 0; i < (f == AF_INET6 ? 2 : 1); i++) {
            fail_option = options[i];
            CHECK_INT(rt_socket_listen(&bound, 16, &fd, &again), RT_ESYS);
            CHECK_INT(errno, ENOPROTOOPT);
        }
        fail_option = 0;
    }
    rt_address none = {0};
    int fd = -7;
    CHECK_INT(rt_socket_listen(&none, 16, &fd, NULL), RT_EINVAL);
    CHECK_INT(open_fds(), fds);
}

/* A restarted node takes its port again although old streams linger on it. */
static void test_listen_again_at_once(void)
{
    EACH_FAMILY(f) {
        rt_address bound;
        int again = -1, out = -1, listener = listen_on(f, &bound);
        int fd = connect_to(&bound);
        CHECK(wait_for(listener, POLLIN));
        CHECK_INT(rt_socket_accept(listener, &out, NULL), RT_OK);
        rt_socket_close(out); /* our side closes first and lingers */
        CHECK(wait_for(fd, POLLIN));
        rt_socket_close(fd);
        rt_socket_close(listener);
        CHECK_INT(rt_socket_listen(&bound, 16, &again, NULL), RT_OK);
        rt_socket_close(again);
    }
}

static void test_any_v6_takes_v4(void)
{
    rt_address at, bound, peer;
    int listener = -1, out = -1;
    CHECK_INT(rt_address_any(AF_INET6, 0, &at), RT_OK);
    CHECK_INT(rt_socket_listen(&at, 16, &listener, &bound), RT_OK);
    EACH_FAMILY(f) {
        CHECK_INT(rt_address_loopback(f, rt_address_port(&bound), &at), RT_OK);
        int fd = connect_to(&at);
        CHECK(wait_for(listener, POLLIN));
        CHECK_INT(rt_socket_accept(listener, &out, &peer), RT_OK);
        CHECK(rt_address_is_loopback(&peer));
        CHECK(rt_address_same_host(&peer, &at));
        rt_socket_close(fd);
        rt_socket_close(out);
    }
    rt_socket_close(listener);
}

static void test_accept_fails(void)
{
    int fds = open_fds();
    rt_address bound;
    int out = -7, listener = listen_on(AF_INET, &bound);
    int fd = connect_to(&bound);
    CHECK(wait_for(listener, POLLIN));
    /* Out of descriptors: told, and the connection waits. */
    rlim_t before = no_more_fds();
    int rc = rt_socket_accept(listener, &out, NULL), sys = errno;
    let_fds(before);
    CHECK_INT(rc, RT_ESYS);
    CHECK_INT(sys, EMFILE);
    CHECK_INT(out, -7);
    /* Errors of single connections are passed over, in bounded time. */
    const int single[] = {ECONNABORTED, EINTR, EPROTO, EPERM, ENETDOWN};
    for (size_t i = 0; i < sizeof single / sizeof single[0]; i++) {
        fail_accept = single[i];
        accepts_to_fail = 1000000;
        CHECK_INT(rt_socket_accept(listener, &out, NULL), RT_AGAIN);
        CHECK_INT(out, -7);
        CHECK(accepts_to_fail > 999000 && accepts_to_fail < 1000000);
    }
    accepts_to_fail = 3;
    CHECK_INT(rt_socket_accept(listener, &out, NULL), RT_OK);
    rt_socket_close(out);
    rt_socket_close(fd);
    /* A stream whose options cannot be set is not handed out. */
    fd = connect_to(&bound);
    CHECK(wait_for(listener, POLLIN));
    fail_option = SO_KEEPALIVE;
    out = -7;
    CHECK_INT(rt_socket_accept(listener, &out, NULL), RT_AGAIN);
    CHECK_INT(out, -7);
    fail_option = 0;
    rt_socket_close(fd);
    rt_socket_close(listener);
    CHECK_INT(rt_socket_accept(listener, &out, NULL), RT_ESYS);
    CHECK_INT(errno, EBADF);
    CHECK_INT(open_fds(), fds);
}

static void test_close_keeps_errno(void)
{
    errno = EILSEQ;
    rt_socket_close(-1);
    CHECK_INT(errno, EILSEQ);
    rt_socket_close(1000000);
    CHECK_INT(errno, EILSEQ);
}

TESTS(test_parse_and_text, test_scope_by_name, test_ports_and_kinds, test_same_host,
      test_connect_and_accept, test_how_far_a_sender_runs_ahead, test_refused, test_connected_to_itself, test_connect_fails,
      test_listen_fails, test_listen_again_at_once, test_any_v6_takes_v4, test_accept_fails,
      test_close_keeps_errno)
