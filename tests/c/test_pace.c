/* needs: net */
#define _GNU_SOURCE
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>

#include "base/clock.h"
#include "base/outq.h"
#include "net/conn.h"
#include "net/socket.h"
#include "sockets.h"

/* How much of the bulk lane a stream is given at a time. */

#define FRAME (64u * 1024u)

typedef struct stream {
    rt_outq q;
    int from, to;
} stream;

static void begin(stream *s)
{
    rt_address at, bound;
    int listener;
    CHECK_INT(rt_address_loopback(AF_INET, 0, &at), RT_OK);
    CHECK_INT(rt_socket_listen(&at, 1, &listener, &bound), RT_OK);
    int rc = rt_socket_connect(&bound, &s->from);
    CHECK(rc == RT_OK || rc == RT_AGAIN);
    CHECK(EVENTUALLY(rt_socket_accept(listener, &s->to, NULL) == RT_OK));
    rt_socket_close(listener);
    CHECK_INT(rt_outq_init(&s->q, NULL), RT_OK);
    s->q.fd = s->from;
}

static void end(stream *s)
{
    rt_outq_fini(&s->q);
    rt_socket_close(s->from);
    rt_socket_close(s->to);
}

static void put(stream *s)
{
    uint8_t *p = rt_outq_add_bulk(&s->q, FRAME);
    if (!CHECK(p != NULL)) abort();
    memset(p, 7, FRAME);
}

static void read_all(stream *s)
{
    static uint8_t data[1 << 20];
    while (recv(s->to, data, sizeof data, MSG_DONTWAIT) > 0) {}
}

/* As an engine does: writes when the socket takes more. The lane never runs empty. */
static void turn(stream *s)
{
    struct pollfd p = {.fd = s->from, .events = POLLOUT};
    while (s->q.bytes < 2 * RT_OUTQ_SLICE_MAX) put(s);
    if (poll(&p, 1, 1) == 1) CHECK(rt_outq_write(&s->q, 1 << 20) >= RT_AGAIN);
    read_all(s);
}

static size_t allowed(stream *s)
{
    int v = -1;
    socklen_t n = sizeof v;
    CHECK_INT(getsockopt(s->from, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &v, &n), 0);
    return (size_t)v;
}

static void test_a_fast_stream_is_given_more(void)
{
    stream s;
    begin(&s);
    CHECK_INT(allowed(&s), RT_OUTQ_SLICE_MIN);
    CHECK(EVENTUALLY((turn(&s), s.q.slice == RT_OUTQ_SLICE_MAX)));
    CHECK_INT(allowed(&s), RT_OUTQ_SLICE_MAX);
    for (int i = 0; i < 20; i++) turn(&s);
    CHECK(s.q.slice <= RT_OUTQ_SLICE_MAX);
    end(&s);
}

static void test_a_slow_one_is_given_less(void)
{
    stream s;
    int rate = 20 << 20; /* bytes a second: 128 KiB take 6 ms */
    begin(&s);
    CHECK_INT(setsockopt(s.from, SOL_SOCKET, SO_MAX_PACING_RATE, &rate, sizeof rate), 0);
    CHECK_INT(rt_socket_allow_unsent(s.from, RT_OUTQ_SLICE_MAX), RT_OK);
    s.q.slice = RT_OUTQ_SLICE_MAX;
    CHECK(EVENTUALLY((turn(&s), s.q.slice == RT_OUTQ_SLICE_MIN)));
    CHECK_INT(allowed(&s), RT_OUTQ_SLICE_MIN);
    for (int i = 0; i < 20; i++) turn(&s);
    CHECK_INT(s.q.slice, RT_OUTQ_SLICE_MIN);
    end(&s);
}

/* Nor does a small part of a slice that is gone at once: who writes in portions is not the limit. */
static void test_a_part_of_a_slice_tells_nothing(void)
{
    stream s;
    begin(&s);
    for (int i = 0; i < 100; i++) {
        while (s.q.bytes < 2 * RT_OUTQ_SLICE_MAX) put(&s);
        CHECK_INT(rt_outq_write(&s.q, 16 * 1024), RT_AGAIN);
        CHECK(EVENTUALLY((read_all(&s), rt_socket_unsent(s.from) == 0)));
        CHECK_INT(s.q.slice, RT_OUTQ_SLICE_MIN);
    }
    end(&s);
}

/* That all was sent says nothing where there was no more to send, nor does the time since then. */
static void test_who_has_no_more_to_send_tells_nothing(void)
{
    stream s;
    begin(&s);
    for (int i = 0; i < 100; i++) {
        put(&s);
        CHECK(EVENTUALLY(rt_outq_write(&s.q, 1 << 20) == RT_OK));
        CHECK(EVENTUALLY((read_all(&s), rt_socket_unsent(s.from) == 0)));
        CHECK_INT(s.q.slice, RT_OUTQ_SLICE_MIN);
    }
    end(&s);
}

TESTS(test_a_fast_stream_is_given_more, test_a_slow_one_is_given_less,
      test_a_part_of_a_slice_tells_nothing,
      test_who_has_no_more_to_send_tells_nothing)
