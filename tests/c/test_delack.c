/* needs: net */
#include "net/delack.h"

#include <errno.h>
#include <poll.h>
#include <sys/ioctl.h>

#include "base/cursor.h"
#include "net/conn.h"
#include "sockets.h"

/* Many small messages, read at once and acknowledged later: nothing of them may be lost, given
 * twice, or left behind. */

enum { SMALL = 100, FAR = 100000 };
/* As many as must come in the time that something is held, and some more. */
enum { EACH = 5, MANY = RT_DELACK_PACKETS_PER_S / 1000 * 2 };

typedef struct stream {
    rt_poller *poller;
    rt_timers *timers;
    uint8_t *shared;
    rt_conn conn;
    int from;                /* the sender's end, blocking only where a test says so */
    uint32_t sent, given;    /* packets; each says which it is */
    bool closed, pause_next;
    int rc, sys;
} stream;

static stream *of(rt_conn *c) { return RT_CONTAINER_OF(c, stream, conn); }

static int64_t on_bytes(rt_conn *c, const uint8_t *p, size_t n)
{
    (void)c, (void)p, (void)n;
    return RT_EBAD;
}

static int on_packet(rt_conn *c, const uint8_t *p, size_t n)
{
    stream *s = of(c);
    CHECK(n >= 4);
    CHECK_INT(rt_load_u32(p), s->given);
    for (size_t i = 4; i < n; i++)
        if (p[i] != (uint8_t)(s->given + i)) return RT_EBAD;
    s->given++;
    if (s->pause_next) rt_conn_pause(c, true);
    return RT_OK;
}

static void on_closed(rt_conn *c, int rc, int sys)
{
    stream *s = of(c);
    s->closed = true;
    s->rc = rc;
    s->sys = sys;
}

static const rt_conn_ops ops = {.bytes = on_bytes, .packet = on_packet, .closed = on_closed};

static void begin_with(stream *s, enum rt_poller_kind kind)
{
    rt_address at, bound;
    int listener, to = -1;
    memset(s, 0, sizeof *s);
    CHECK_INT(rt_poller_new(&s->poller, kind), RT_OK);
    CHECK_INT(rt_timers_new(&s->timers, s->poller), RT_OK);
    s->shared = rt_malloc(RT_READ_BUFFER_BYTES);
    CHECK_INT(rt_address_loopback(AF_INET, 0, &at), RT_OK);
    CHECK_INT(rt_socket_listen(&at, 1, &listener, &bound), RT_OK);
    int rc = rt_socket_connect(&bound, &s->from);
    CHECK(rc == RT_OK || rc == RT_AGAIN);
    CHECK(EVENTUALLY(rt_socket_accept(listener, &to, NULL) == RT_OK));
    rt_socket_close(listener);
    CHECK_INT(rt_conn_init(&s->conn, s->poller, s->shared, 1 << 20, &ops), RT_OK);
    CHECK_INT(rt_conn_adopt(&s->conn, to), RT_OK);
    rt_conn_packets(&s->conn);
    rt_delack_start(&s->conn, s->timers);
}

static void begin(stream *s) { begin_with(s, RT_POLLER_EPOLL); }

static void end(stream *s)
{
    rt_conn_close(&s->conn, RT_OK, 0);
    rt_socket_close(s->from);
    CHECK(rt_timers_next(s->timers) == UINT64_MAX);
    rt_timers_free(s->timers);
    rt_poller_free(s->poller);
    rt_free(s->shared);
}

/* The next packet of n bytes; the whole of it, with its length. */
static size_t put_packet(stream *s, uint8_t *p, size_t n)
{
    rt_store_u32(p, (uint32_t)n);
    rt_store_u32(p + 4, s->sent);
    for (size_t i = 4; i < n; i++) p[4 + i] = (uint8_t)(s->sent + i);
    s->sent++;
    return 4 + n;
}

static void write_all(stream *s, const uint8_t *p, size_t n)
{
    for (size_t at = 0; at < n;) {
        ssize_t k = send(s->from, p + at, n - at, MSG_NOSIGNAL);
        if (k > 0) at += (size_t)k;
        else if (!CHECK(errno == EAGAIN)) abort();
    }
}

static void write_packet(stream *s, size_t n)
{
    static uint8_t data[1 << 20];
    write_all(s, data, put_packet(s, data, n));
}

/* What the engine does, without the time: no timer fires. */
static void look(stream *s) { CHECK(rt_poller_wait(s->poller, 0, 16) >= 0); }

static void read_all(stream *s)
{
    CHECK(EVENTUALLY((look(s), s->given == s->sent || s->closed)));
    CHECK_INT(s->given, s->sent);
}

/* Each packet in a read of its own. */
static void one_by_one(stream *s, int count)
{
    for (int i = 0; i < count; i++) {
        write_packet(s, SMALL);
        read_all(s);
    }
}

static int in_socket(const stream *s)
{
    int n = -1;
    CHECK_INT(ioctl(s->conn.own.fd, FIONREAD, &n), 0);
    return n;
}

static void fire(stream *s) { rt_timers_run(s->timers, rt_now() + RT_DELACK_NS); }

/* On a machine that stops for a moment a run is none: another one then. Without a yield, which
 * beside programs that compute is such a moment, and with several packets in each read, for one
 * that is slow. */
static void get_on(stream *s)
{
    static uint8_t data[EACH * (4 + SMALL)];
    uint64_t until = rt_now() + PATIENCE;
    while (!s->conn.delack.on && rt_now() < until) {
        size_t n = 0;
        while (n < sizeof data) n += put_packet(s, data + n, SMALL);
        write_all(s, data, n);
        read_all(s);
    }
    fire(s); /* the first time is not judged */
    CHECK(s->conn.delack.on);
}

/* Whether acknowledgements can be held back here at all: see the kernel's version in delack.h. */
static bool kernel_remembers(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0), from = 0;
    bool yes = setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &from, sizeof from) == 0;
    close(fd);
    return yes;
}

/* --- when ------------------------------------------------------------------ */

static void many_small_reads_are_held_and_taken_later(void)
{
    stream s;
    begin(&s);
    get_on(&s);
    CHECK_INT(in_socket(&s), 0);
    one_by_one(&s, MANY);
    CHECK_INT(in_socket(&s), MANY * (4 + SMALL));
    CHECK_INT(s.conn.delack.held, MANY * (4 + SMALL));
    CHECK_INT(rt_poller_wait(s.poller, 0, 16), 0); /* it is no news */
    uint64_t at = rt_timers_next(s.timers);
    CHECK(at > rt_now() - RT_SEC && at <= rt_now() + RT_DELACK_NS);
    fire(&s);
    CHECK_INT(in_socket(&s), 0);
    CHECK(s.conn.delack.on);
    one_by_one(&s, 5);
    CHECK_INT(in_socket(&s), 5 * (4 + SMALL));
    CHECK_INT(s.conn.bytes_in, (uint64_t)s.sent * (4 + SMALL));
    end(&s);
}

/* Less than that: it is over, and what comes is taken at once again. */
static void it_ends_when_little_comes(void)
{
    stream s;
    begin(&s);
    get_on(&s);
    one_by_one(&s, MANY / 2);
    fire(&s);
    CHECK(!s.conn.delack.on);
    CHECK_INT(s.conn.source.interest, RT_READABLE);
    CHECK(rt_timers_next(s.timers) == UINT64_MAX);
    one_by_one(&s, 3);
    CHECK_INT(in_socket(&s), 0);
    get_on(&s);
    one_by_one(&s, 3);
    CHECK_INT(in_socket(&s), 3 * (4 + SMALL));
    end(&s);
}

/* Who waits for us, in a way that cannot be seen here, stands still each time it is held back. */
static void in_vain_it_begins_less_often(void)
{
    stream s;
    begin(&s);
    for (uint32_t vain = 1; vain <= 16; vain *= 2) {
        uint32_t before = s.sent;
        get_on(&s);
        CHECK(s.sent - before >= EACH * RT_DELACK_READS * (vain / 2 + 1));
        CHECK_INT(s.conn.delack.skip, 0);
        fire(&s);
        CHECK(!s.conn.delack.on);
        CHECK_INT(s.conn.delack.skip, vain);
    }
    get_on(&s);
    for (int left = 8; left; left /= 2) {
        one_by_one(&s, MANY);
        fire(&s);
        CHECK(s.conn.delack.on);
        CHECK_INT(s.conn.delack.vain, left);
    }
    s.conn.delack.vain = 1024;
    fire(&s);
    CHECK_INT(s.conn.delack.skip, 1024);
    end(&s);
}

/* As one that was a stream and has become a conversation. */
static void an_answer_ends_it(void)
{
    stream s;
    uint8_t answer[8];
    begin(&s);
    get_on(&s);
    one_by_one(&s, MANY);
    fire(&s);
    CHECK(s.conn.delack.on);
    CHECK_INT(rt_conn_send(&s.conn, "answer!", 8), RT_OK);
    CHECK(EVENTUALLY(recv(s.from, answer, 8, MSG_DONTWAIT) == 8));
    one_by_one(&s, MANY);
    fire(&s);
    CHECK(!s.conn.delack.on);
    CHECK_INT(s.conn.delack.skip, 0);
    end(&s);
}

static void fewer_reads_are_no_stream(void)
{
    stream s;
    begin(&s);
    one_by_one(&s, RT_DELACK_READS - 1);
    CHECK(!s.conn.delack.on);
    CHECK_INT(in_socket(&s), 0);
    end(&s);
}

static void nor_is_what_is_answered(void)
{
    stream s;
    uint8_t answer[8];
    begin(&s);
    for (uint32_t i = 0; i < 20 * RT_DELACK_READS; i++) {
        one_by_one(&s, 1);
        if (i % (RT_DELACK_READS / 2)) continue;
        CHECK_INT(rt_conn_send(&s.conn, "answer!", 8), RT_OK);
        CHECK(EVENTUALLY(recv(s.from, answer, 8, MSG_DONTWAIT) == 8));
    }
    CHECK(!s.conn.delack.on);
    end(&s);
}

/* A packet, many small ones at once, or a packet in small parts. */
static void nor_are_larger_reads(void)
{
    static uint8_t data[2 * RT_DELACK_PACKET_MAX];
    stream s;
    begin(&s);
    for (uint32_t i = 0; i < 3 * 20; i++) {
        size_t n = 0, half;
        one_by_one(&s, RT_DELACK_READS / 2 + 1);
        CHECK(!s.conn.delack.on);
        if (i % 3 == 1) while (n <= RT_DELACK_PACKET_MAX) n += put_packet(&s, data + n, SMALL);
        else n = put_packet(&s, data, RT_DELACK_PACKET_MAX + 1);
        half = i % 3 == 2 ? n / 2 : n;
        write_all(&s, data, half);
        look(&s);
        write_all(&s, data + half, n - half);
        read_all(&s);
    }
    end(&s);
}

/* As after a guess of the poller's. */
static void nor_are_reads_of_nothing(void)
{
    stream s;
    begin(&s);
    one_by_one(&s, 1);
    for (uint32_t i = 0; i < RT_DELACK_READS + 9; i++)
        s.conn.source.ready(&s.conn.source, RT_READABLE);
    CHECK_INT(s.conn.delack.reads, 1);
    end(&s);
}

static void nor_what_comes_slowly(void)
{
    stream s;
    begin(&s);
    for (uint32_t i = 0; i < 20 * RT_DELACK_READS; i++) {
        uint64_t next = rt_now() + 2 * RT_SEC / RT_DELACK_PACKETS_PER_S;
        one_by_one(&s, 1);
        while (rt_now() < next) {}
    }
    CHECK(!s.conn.delack.on);
    end(&s);
}

static void nor_where_no_driver_said_so(void)
{
    stream s;
    begin(&s);
    rt_delack_stop(&s.conn);
    one_by_one(&s, 20 * RT_DELACK_READS);
    CHECK(!s.conn.delack.on);
    end(&s);
}

/* --- and nothing is left behind --------------------------------------------- */

/* Cut anywhere: the beginning of a packet is kept, and is not in the socket twice. */
static void packets_in_parts(void)
{
    stream s;
    uint8_t data[4 * (4 + SMALL)];
    uint64_t random = 7;
    begin(&s);
    for (int round = 0; round < 3000; round++) {
        size_t n = 0;
        if (round % 10 == 0) {
            s.conn.delack.skip = 0;
            get_on(&s);
        }
        for (int i = 0; i < 3; i++)
            n += put_packet(&s, data + n, 4 + next_random(&random) % (SMALL - 4));
        for (size_t at = 0; at < n;) {
            size_t k = 1 + next_random(&random) % (n - at);
            write_all(&s, data + at, k);
            at += k;
            look(&s);
        }
        if (round % 7 == 0) fire(&s);
    }
    fire(&s);
    read_all(&s);
    end(&s);
}

/* All of it is there before any is read. */
static void write_at_once(stream *s, const uint8_t *p, size_t n)
{
    int room = 4 << 20, before = in_socket(s);
    CHECK_INT(setsockopt(s->conn.own.fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room), 0);
    write_all(s, p, n);
    CHECK(EVENTUALLY(in_socket(s) == before + (int)n));
}

/* A source that is told of news alone would never hear of what a limit left. */
static void what_a_limit_leaves_is_read(void)
{
    static uint8_t data[RT_READ_BUFFER_BYTES + 4 * SMALL];
    size_t n = 0;
    stream s;
    begin(&s);
    get_on(&s);
    one_by_one(&s, 3);
    while (n + 4 + SMALL < sizeof data) n += put_packet(&s, data + n, SMALL);
    write_at_once(&s, data, n);
    rt_poller_limit(s.poller, 1);
    look(&s);
    CHECK(s.given < s.sent);
    CHECK(!s.conn.delack.on);
    look(&s);
    CHECK_INT(s.given, s.sent);
    end(&s);
}

/* Nor is the new driver's timer the old one's. */
static void who_leaves_leaves_nothing(void)
{
    stream s;
    begin(&s);
    get_on(&s);
    one_by_one(&s, 3);
    rt_conn_leave(&s.conn);
    CHECK_INT(in_socket(&s), 0);
    CHECK(rt_timers_next(s.timers) == UINT64_MAX);
    CHECK_INT(rt_conn_join(&s.conn, s.poller, s.shared), RT_OK);
    one_by_one(&s, 20 * RT_DELACK_READS);
    CHECK(!s.conn.delack.on);
    rt_delack_start(&s.conn, s.timers);
    get_on(&s);
    end(&s);
}

static void no_more_than_so_much_is_held(void)
{
    stream s;
    begin(&s);
    get_on(&s);
    size_t most = 0;
    for (int i = 0; i < 4000; i++) {
        one_by_one(&s, 1);
        if (s.conn.delack.held > most) most = s.conn.delack.held;
        CHECK_INT(in_socket(&s), s.conn.delack.held);
    }
    CHECK(s.conn.delack.on);
    CHECK(most <= RT_DELACK_BYTES_MAX && most > RT_DELACK_BYTES_MAX - 2 * SMALL);
    end(&s);
}

/* Messages that the sender has gathered already, or a reader that comes late. */
static void large_reads_are_taken_at_once(void)
{
    static uint8_t data[RT_DELACK_BYTES_MAX + 2 * SMALL];
    stream s;
    begin(&s);
    get_on(&s);
    for (int i = 0; i < 10; i++) {
        size_t n = 0;
        while (n + 4 + SMALL < sizeof data) n += put_packet(&s, data + n, SMALL);
        write_all(&s, data, n);
        CHECK(EVENTUALLY((look(&s), s.given == s.sent)));
        CHECK_INT(in_socket(&s), s.conn.delack.held);
        CHECK(s.conn.delack.held <= RT_DELACK_BYTES_MAX);
    }
    CHECK(s.conn.delack.on);
    end(&s);
}

/* Also one of which only the beginning is there: else nobody acknowledges the rest. */
static void a_large_packet_ends_it(void)
{
    static const size_t sizes[] = {20000, FAR, 200000, 1 << 19};
    static uint8_t data[(1 << 20) + 3 * SMALL];
    stream s;
    begin(&s);
    for (size_t i = 0; i < 2 * sizeof sizes / sizeof *sizes; i++) {
        get_on(&s);
        one_by_one(&s, 3);
        size_t n = put_packet(&s, data, SMALL);
        n += put_packet(&s, data + n, sizes[i / 2]);
        n += put_packet(&s, data + n, SMALL);
        size_t at = i % 2 ? 0 : 2 * SMALL;
        write_all(&s, data, at);
        if (at) CHECK(EVENTUALLY((look(&s), !s.conn.delack.on)));
        while (at < n) {
            ssize_t got = send(s.from, data + at, n - at, MSG_NOSIGNAL);
            if (got > 0) at += (size_t)got;
            look(&s);
        }
        read_all(&s);
        CHECK(!s.conn.delack.on);
        CHECK_INT(in_socket(&s), 0);
    }
    end(&s);
}

/* Nor are its parts, each in a read of its own, small messages. */
static void a_large_packet_in_small_parts_begins_none(void)
{
    static uint8_t data[FAR * 3 + 4];
    stream s;
    begin(&s);
    size_t n = put_packet(&s, data, FAR * 3);
    for (size_t at = 0; at < n; at += SMALL) {
        write_all(&s, data + at, at + SMALL < n ? SMALL : n - at);
        look(&s);
        CHECK(!s.conn.delack.on);
        CHECK(s.conn.delack.reads <= 4); /* until its memory is there */
    }
    read_all(&s);
    end(&s);
}

/* Bytes of it that have a place are received, not looked at. */
static void the_rest_of_a_large_packet(void)
{
    static uint8_t data[RT_READ_BUFFER_BYTES + (1 << 19)];
    size_t n = 0;
    stream s;
    begin(&s);
    get_on(&s);
    one_by_one(&s, 3);
    while (n + 4 + SMALL < RT_READ_BUFFER_BYTES - 2 * RT_CONN_HEAD)
        n += put_packet(&s, data + n, SMALL);
    n += put_packet(&s, data + n, 200000);
    write_at_once(&s, data, n);
    look(&s);
    CHECK(!s.conn.delack.on);
    CHECK_INT(s.conn.source.interest, RT_READABLE);
    CHECK_INT(s.given, s.sent);
    CHECK_INT(in_socket(&s), 0);
    end(&s);
}

static void a_pause_ends_it(void)
{
    stream s;
    begin(&s);
    get_on(&s);
    one_by_one(&s, 3);
    s.pause_next = true;
    write_packet(&s, SMALL);
    read_all(&s);
    CHECK(!s.conn.delack.on);
    CHECK_INT(in_socket(&s), 0);
    CHECK_INT(s.conn.source.interest, 0);
    write_packet(&s, SMALL);
    CHECK(EVENTUALLY(in_socket(&s) == 4 + SMALL));
    look(&s);
    CHECK_INT(s.given, s.sent - 1);
    s.pause_next = false;
    rt_conn_pause(&s.conn, false);
    read_all(&s);
    get_on(&s);
    rt_conn_pause(&s.conn, true); /* outside of a callback as well */
    CHECK(!s.conn.delack.on);
    end(&s);
}

/* Else a socket that takes more than one call writes would be told of once. */
static void what_waits_to_be_written_ends_it(void)
{
    static uint8_t data[1 << 20];
    stream s;
    uint64_t sent = 0, got = 0;
    begin(&s);
    get_on(&s);
    one_by_one(&s, 3);
    while (s.conn.own.bytes == 0) {
        CHECK_INT(rt_conn_send(&s.conn, data, sizeof data), RT_OK);
        sent += sizeof data;
    }
    for (int i = 0; i < 8; i++, sent += sizeof data)
        CHECK_INT(rt_conn_send(&s.conn, data, sizeof data), RT_OK);
    CHECK(!s.conn.delack.on);
    CHECK_INT(in_socket(&s), 0);
    CHECK_INT(s.conn.source.interest, RT_READABLE | RT_WRITABLE);
    CHECK(EVENTUALLY(({
        ssize_t n = recv(s.from, data, sizeof data, MSG_DONTWAIT);
        if (n > 0) got += (uint64_t)n;
        look(&s);
        got == sent;
    })));
    get_on(&s);
    end(&s);
}

/* --- ends --------------------------------------------------------------------- */

/* A stream that is closed with something unread is broken by the kernel, and what was sent on it
 * may be lost. */
static void who_closes_leaves_nothing(void)
{
    char word[8];
    stream s;
    begin(&s);
    get_on(&s);
    one_by_one(&s, 3);
    CHECK_INT(rt_conn_send(&s.conn, "goodbye", 8), RT_OK);
    CHECK(s.conn.delack.on);
    rt_conn_close(&s.conn, RT_ECLOSED, 0);
    CHECK(s.closed);
    struct pollfd p = {.fd = s.from, .events = POLLIN};
    CHECK_INT(poll(&p, 1, 10000), 1);
    CHECK_INT(recv(s.from, word, 8, 0), 8);
    CHECK(EVENTUALLY(recv(s.from, word, 8, 0) == 0));
    CHECK_INT(rt_socket_error(s.from), 0);
    end(&s);
}

/* Also where it comes with the last bytes, whatever came before. */
static void an_end_is_seen(void)
{
    stream s;
    begin(&s);
    get_on(&s);
    one_by_one(&s, MANY);
    fire(&s);
    CHECK(s.conn.delack.on);
    one_by_one(&s, MANY);
    write_packet(&s, SMALL);
    CHECK_INT(shutdown(s.from, SHUT_WR), 0);
    CHECK(EVENTUALLY((look(&s), s.given == s.sent)));
    fire(&s);
    fire(&s);
    CHECK(EVENTUALLY((look(&s), s.closed)));
    CHECK_INT(s.given, s.sent);
    CHECK_INT(s.rc, RT_ECLOSED);
    end(&s);
}

/* By a read, or first by who takes what is held. */
static void a_broken_stream_is_seen(void)
{
    struct linger now = {1, 0};
    for (int by_time = 0; by_time < 2; by_time++) {
        stream s;
        begin(&s);
        get_on(&s);
        one_by_one(&s, 3);
        CHECK_INT(setsockopt(s.from, SOL_SOCKET, SO_LINGER, &now, sizeof now), 0);
        rt_socket_close(s.from);
        s.from = -1;
        if (by_time) {
            fire(&s);
            CHECK_INT(s.conn.delack.held, 0);
        }
        CHECK(EVENTUALLY((look(&s), s.closed)));
        if (!by_time) CHECK(s.rc == RT_ESYS && s.sys == ECONNRESET);
        end(&s);
    }
}

static void without_memory_nothing_is_held(void)
{
    stream s;
    begin(&s);
    for (uint32_t i = 0; i < 20 * RT_DELACK_READS; i++) {
        rt_alloc_fail_after(0); /* the timers' heap */
        one_by_one(&s, 1);
    }
    rt_alloc_fail_after(-1);
    CHECK(!s.conn.delack.on);
    CHECK_INT(in_socket(&s), 0);
    get_on(&s);
    end(&s);
}

static void io_uring_holds_nothing(void)
{
    stream s;
    if (rt_poller_usable(RT_POLLER_URING) < 0) return;
    begin_with(&s, RT_POLLER_URING);
    one_by_one(&s, 20 * RT_DELACK_READS);
    CHECK(!s.conn.delack.on);
    rt_conn_close(&s.conn, RT_OK, 0);
    look(&s);
    rt_poller_leave(s.poller);
    end(&s);
}

static void an_older_kernel_holds_nothing(void)
{
    stream s;
    if (kernel_remembers()) return;
    begin(&s);
    one_by_one(&s, 20 * RT_DELACK_READS);
    CHECK(!s.conn.delack.on && !s.conn.delack.timers);
    end(&s);
}

static void where_the_kernel_remembers(void)
{
    if (!kernel_remembers()) return;
    many_small_reads_are_held_and_taken_later();
    it_ends_when_little_comes();
    in_vain_it_begins_less_often();
    an_answer_ends_it();
    who_leaves_leaves_nothing();
    packets_in_parts();
    what_a_limit_leaves_is_read();
    no_more_than_so_much_is_held();
    a_large_packet_in_small_parts_begins_none();
    the_rest_of_a_large_packet();
    large_reads_are_taken_at_once();
    a_large_packet_ends_it();
    a_pause_ends_it();
    what_waits_to_be_written_ends_it();
    who_closes_leaves_nothing();
    an_end_is_seen();
    a_broken_stream_is_seen();
    without_memory_nothing_is_held();
}

TESTS(where_the_kernel_remembers, an_older_kernel_holds_nothing, fewer_reads_are_no_stream,
      nor_is_what_is_answered, nor_are_larger_reads, nor_are_reads_of_nothing,
      nor_what_comes_slowly, nor_where_no_driver_said_so, io_uring_holds_nothing)
