#include "check.h"

#include "base/cursor.h"
#include "dist/epmd.h"

#define S(literal) rt_slice_of(literal, sizeof(literal) - 1)

enum { PORT = 14369, WAIT = 0, KEEP = 1, CLOSE = 2 };

/* Feeds a whole request from a block of its own. */
static int feed(rt_epmd_server *s, uint64_t conn, bool local, rt_slice request, rt_buf *out) {
    unsigned char *p = check_copy(request.p, request.n);
    size_t used = 0;
    int rc = rt_epmd_server_feed(s, conn, local, p, request.n, &used, out);
    if (rc > 0) CHECK_INT(used, request.n);
    free(p);
    return rc;
}

static int feed_buf(rt_epmd_server *s, uint64_t conn, rt_buf *request, rt_buf *out) {
    int rc = feed(s, conn, true, rt_slice_of(request->p, request->n), out);
    rt_buf_fini(request);
    return rc;
}

/* Registers over a connection; the creation, or an error. */
static int64_t enroll(rt_epmd_server *s, uint64_t conn, rt_slice name, uint16_t port) {
    rt_buf request = RT_BUF_INIT, out = RT_BUF_INIT;
    uint32_t creation = 0;
    int64_t rc;
    int verdict;
    CHECK_INT(rt_epmd_put_alive2(&request, name, port, false), 0);
    verdict = feed_buf(s, conn, &request, &out);
    rc = rt_epmd_read_alive2(out.p, out.n, &creation);
    CHECK_INT(verdict, rc < 0 ? CLOSE : KEEP);
    if (rc >= 0) CHECK_INT(rc, out.n);
    rt_buf_fini(&out);
    return rc < 0 ? rc : creation;
}

static int64_t look_up(rt_epmd_server *s, rt_slice name, rt_epmd_port *port) {
    rt_buf request = RT_BUF_INIT, out = RT_BUF_INIT;
    int64_t rc;
    CHECK_INT(rt_epmd_put_port_please2(&request, name), 0);
    CHECK_INT(feed_buf(s, UINT64_MAX, &request, &out), CLOSE);
    rc = rt_epmd_read_port2(out.p, out.n, port);
    for (size_t cut = 0; cut < out.n; cut++) {
        int64_t part = rt_epmd_read_port2(out.p, cut, port);
        CHECK(part == RT_AGAIN || (part == rc && rc < 0));
    }
    rt_buf_fini(&out);
    return rc;
}

/* The bytes that OTP 25 and its port mapper exchange. */
static void messages_are_the_documented_ones(void) {
    rt_buf b = RT_BUF_INIT;
    uint32_t creation = 0;
    rt_epmd_port port;
    CHECK_INT(rt_epmd_put_alive2(&b, S("py"), 0x1234, true), 0);
    CHECK_INT(b.n, 17);
    CHECK_BYTES(b.p, "\0\x0fx\x12\x34\x48\0\0\6\0\6\0\2py\0\0", 17);
    b.n = 0;
    CHECK_INT(rt_epmd_put_port_please2(&b, S("py")), 0);
    CHECK_BYTES(b.p, "\0\3zpy", 5);
    CHECK_INT(b.n, 5);
    b.n = 0;
    CHECK_INT(rt_epmd_put_names(&b), 0);
    CHECK_INT(b.n, 3);
    CHECK_BYTES(b.p, "\0\1n", 3);
    rt_buf_fini(&b);
    CHECK_INT(rt_epmd_read_alive2(S("v\0\x65\x40\x11\x22").p, 6, &creation), 6);
    CHECK_INT(creation, 0x65401122);
    CHECK_INT(rt_epmd_read_alive2(S("y\0\0\2").p, 4, &creation), 4);
    CHECK_INT(creation, 2);
    CHECK_INT(rt_epmd_read_alive2(S("v\1\0\0\0\x63").p, 6, &creation), RT_EEXIST);
    CHECK_INT(rt_epmd_read_alive2(S("v\0\0\0\0\0").p, 6, &creation), RT_EBAD);
    CHECK_INT(rt_epmd_read_alive2(S("w\0\0\0\0\1").p, 6, &creation), RT_EBAD);
    for (size_t n = 0; n < 6; n++)
        CHECK_INT(rt_epmd_read_alive2(S("v\0\x65\x40\x11\x22").p, n, &creation), RT_AGAIN);
    CHECK_INT(rt_epmd_read_port2(S("w\0\xa1\xb2M\0\0\6\0\5\0\2py\0\1!").p, 17, &port), 17);
    CHECK(port.port == 0xa1b2 && port.node_type == RT_EPMD_NODE_NORMAL && port.protocol == 0);
    CHECK(port.highest == 6 && port.lowest == 5);
    CHECK_INT(rt_epmd_read_port2(S("w\1").p, 2, &port), RT_ENOENT);
    CHECK_INT(rt_epmd_read_port2(S("v\1").p, 2, &port), RT_EBAD);
}

static void names_are_checked(void) {
    uint8_t name[256];
    rt_buf b = RT_BUF_INIT;
    memset(name, 'n', sizeof name);
    CHECK_INT(rt_epmd_put_alive2(&b, S(""), 1, false), RT_EINVAL);
    CHECK_INT(rt_epmd_put_alive2(&b, S("a@b"), 1, false), RT_EINVAL);
    CHECK_INT(rt_epmd_put_alive2(&b, S("a\nname b"), 1, false), RT_EINVAL);
    CHECK_INT(rt_epmd_put_alive2(&b, S("\xff"), 1, false), RT_EINVAL);
    CHECK_INT(rt_epmd_put_alive2(&b, rt_slice_of(name, 256), 1, false), RT_EINVAL);
    CHECK_INT(rt_epmd_put_port_please2(&b, rt_slice_of(name, 256)), RT_EINVAL);
    CHECK_INT(b.n, 0);
    CHECK_INT(rt_epmd_put_alive2(&b, rt_slice_of(name, 255), 1, false), 0);
    rt_buf_fini(&b);
}

static void a_name_is_found_while_its_connection_lives(void) {
    rt_epmd_server *s = rt_epmd_server_new(PORT, 100);
    rt_epmd_port port;
    CHECK_INT(look_up(s, S("one"), &port), RT_ENOENT);
    CHECK(enroll(s, 1, S("one"), 1001) > 3);
    CHECK(enroll(s, 2, S("two"), 1002) > 3);
    CHECK_INT(rt_epmd_server_count(s), 2);
    CHECK(look_up(s, S("two"), &port) > 0);
    CHECK(port.port == 1002 && port.node_type == RT_EPMD_NODE_NORMAL && port.highest == 6);
    rt_epmd_server_closed(s, 2);
    rt_epmd_server_closed(s, 2);
    rt_epmd_server_closed(s, 77);
    CHECK_INT(look_up(s, S("two"), &port), RT_ENOENT);
    CHECK(look_up(s, S("one"), &port) > 0);
    CHECK_INT(rt_epmd_server_count(s), 1);
    rt_epmd_server_free(s);
    rt_epmd_server_free(NULL);
}

static void a_taken_name_is_refused(void) {
    rt_epmd_server *s = rt_epmd_server_new(PORT, 100);
    rt_epmd_port port;
    rt_buf out = RT_BUF_INIT;
    uint32_t creation;
    CHECK(enroll(s, 1, S("one"), 1001) > 3);
    CHECK_INT(enroll(s, 2, S("one"), 1002), RT_EEXIST);
    rt_epmd_server_closed(s, 2); /* must not take the other's name away */
    CHECK(look_up(s, S("one"), &port) > 0);
    CHECK_INT(port.port, 1001);
    CHECK_INT(rt_epmd_server_add(s, S("one"), 7, true, &creation), RT_EEXIST);
    CHECK_INT(feed(s, 3, true, S("\0\x10x\0\7M\0\0\5\0\5\0\3one\0\0"), &out), CLOSE);
    CHECK_BYTES(out.p, "y\1\0\x63", 4); /* the old answer to an old node */
    CHECK_INT(out.n, 4);
    rt_buf_fini(&out);
    rt_epmd_server_free(s);
}

static void creations_differ(void) {
    rt_epmd_server *s = rt_epmd_server_new(PORT, 100);
    int64_t last = 0;
    for (int i = 0; i < 1000; i++) {
        int64_t creation = enroll(s, 1, S("again"), 5);
        CHECK(creation > 3 && creation != last);
        last = creation;
        rt_epmd_server_closed(s, 1);
    }
    rt_epmd_server_free(s);
}

static void old_nodes_get_old_creations(void) {
    rt_epmd_server *s = rt_epmd_server_new(PORT, 100);
    rt_buf out = RT_BUF_INIT;
    uint32_t creation = 0;
    CHECK_INT(feed(s, 3, true, S("\0\x10x\0\7M\0\0\5\0\5\0\3old\0\0"), &out), KEEP);
    CHECK_INT(out.n, 4);
    CHECK_INT(rt_epmd_read_alive2(out.p, out.n, &creation), 4);
    CHECK(creation >= 1 && creation <= 3);
    rt_buf_fini(&out);
    rt_epmd_server_free(s);
}

static void the_serving_node_is_listed_too(void) {
    rt_epmd_server *s = rt_epmd_server_new(PORT, 2);
    rt_epmd_port port;
    rt_buf out = RT_BUF_INIT;
    uint32_t creation = 0;
    CHECK_INT(rt_epmd_server_add(s, S("own"), 4000, true, &creation), 0);
    CHECK(creation > 3);
    rt_epmd_server_closed(s, 0);
    CHECK(look_up(s, S("own"), &port) > 0);
    CHECK(port.port == 4000 && port.node_type == RT_EPMD_NODE_HIDDEN);
    CHECK(enroll(s, 0, S("zero"), 4001) > 3); /* any number is a connection */
    CHECK_INT(enroll(s, 1, S("more"), 4002), RT_EEXIST); /* over names_max */
    CHECK_INT(rt_epmd_server_add(s, S("bad name"), 4000, true, &creation), RT_EINVAL);
    CHECK_INT(feed(s, 5, false, S("\0\1n"), &out), CLOSE);
    CHECK_INT(rt_load_u32(out.p), PORT);
    CHECK(rt_slice_eq(rt_slice_of(out.p + 4, out.n - 4),
                      S("name zero at port 4001\nname own at port 4000\n")));
    out.n = 0;
    CHECK_INT(feed(s, 5, true, S("\0\1d"), &out), CLOSE);
    CHECK(rt_slice_eq(rt_slice_of(out.p + 4, out.n - 4),
                      S("active name     <zero> at port 4001, fd = 0\n\0"
                        "active name     <own> at port 4000, fd = -1\n\0")));
    rt_buf_fini(&out);
    rt_epmd_server_free(s);
}

static void strangers_and_nonsense_are_closed(void) {
    static const char alive2[] = "\0\x10x\0\7M\0\0\6\0\5\0\3far\0\0";
    rt_epmd_server *s = rt_epmd_server_new(PORT, 100);
    rt_buf out = RT_BUF_INIT;
    CHECK_INT(feed(s, 1, false, S(alive2), &out), RT_ENOTALLOWED);
    CHECK_INT(feed(s, 1, false, S("\0\1d"), &out), RT_ENOTALLOWED);
    CHECK_INT(feed(s, 1, false, S("\0\1k"), &out), RT_ENOTALLOWED);
    CHECK_INT(feed(s, 1, true, S("\0\4sfar"), &out), RT_ENOTALLOWED);
    CHECK_INT(feed(s, 1, true, S("\0\0"), &out), RT_EBAD);
    CHECK_INT(feed(s, 1, true, S("\0\1?"), &out), RT_EBAD);
    CHECK_INT(feed(s, 1, true, S("\xff\xff"), &out), RT_ELIMIT);
    CHECK_INT(feed(s, 1, true, S("\0\1z"), &out), RT_EBAD);
    CHECK_INT(feed(s, 1, true, S("\0\3zx\n"), &out), RT_EBAD);
    for (uint8_t n = 1; n < 16; n++) { /* every shorter body */
        uint8_t cut[sizeof alive2];
        memcpy(cut, alive2, sizeof alive2);
        cut[1] = n;
        CHECK_INT(feed(s, 1, true, rt_slice_of(cut, 2 + n), &out), RT_EBAD);
    }
    CHECK_INT(out.n, 0);
    CHECK_INT(feed(s, 1, true, S("\0\1k"), &out), CLOSE); /* KILL: no */
    CHECK(rt_slice_eq(rt_slice_of(out.p, out.n), S("NO")));
    CHECK_INT(rt_epmd_server_count(s), 0);
    rt_buf_fini(&out);
    rt_epmd_server_free(s);
}

/* Byte by byte, and with more behind it. */
static void requests_may_come_in_parts(void) {
    static const char alive2[] = "\0\x10x\0\7M\0\0\6\0\5\0\3far\0\0" "what else";
    rt_epmd_server *s = rt_epmd_server_new(PORT, 100);
    rt_buf out = RT_BUF_INIT;
    size_t used;
    for (size_t n = 0; n < 18; n++) {
        CHECK_INT(rt_epmd_server_feed(s, 1, true, S(alive2).p, n, &used, &out), WAIT);
        CHECK_INT(used, 0);
    }
    CHECK_INT(rt_epmd_server_feed(s, 1, true, S(alive2).p, sizeof alive2 - 1, &used, &out), KEEP);
    CHECK_INT(used, 18);
    CHECK_INT(out.n, 6);
    /* What a registered node says is swallowed. */
    CHECK_INT(rt_epmd_server_feed(s, 1, true, S(alive2).p, 18, &used, &out), WAIT);
    CHECK_INT(used, 18);
    CHECK_INT(out.n, 6);
    CHECK_INT(rt_epmd_server_count(s), 1);
    rt_buf_fini(&out);
    rt_epmd_server_free(s);
}

/* Some clients end the name with a zero byte. The extra comes back as it was. */
static void look_ups_answer_in_full(void) {
    rt_epmd_server *s = rt_epmd_server_new(PORT, 100);
    rt_buf out = RT_BUF_INIT;
    CHECK_INT(feed(s, 1, true, S("\0\x13x\0\7H\0\0\6\0\5\0\3far\0\3abc"), &out), KEEP);
    out.n = 0;
    CHECK_INT(feed(s, 2, false, S("\0\5zfar\0"), &out), CLOSE);
    CHECK(rt_slice_eq(rt_slice_of(out.p, out.n), S("w\0\0\7H\0\0\6\0\5\0\3far\0\3abc")));
    out.n = 0;
    CHECK_INT(feed(s, 2, false, S("\0\4zfa\0"), &out), CLOSE);
    CHECK(rt_slice_eq(rt_slice_of(out.p, out.n), S("w\1")));
    rt_buf_fini(&out);
    rt_epmd_server_free(s);
}

static void ten_thousand_names(void) {
    enum { N = 10000 };
    rt_epmd_server *s = rt_epmd_server_new(PORT, N);
    rt_epmd_port port;
    rt_buf out = RT_BUF_INIT;
    char name[16];
    for (int i = 0; i < N; i++) {
        int n = snprintf(name, sizeof name, "node%d", i);
        CHECK(enroll(s, (uint64_t)i, rt_slice_of(name, (size_t)n), (uint16_t)i) > 3);
    }
    for (int i = 0; i < N; i += 2) rt_epmd_server_closed(s, (uint64_t)i);
    for (int i = 0; i < N; i++) {
        int n = snprintf(name, sizeof name, "node%d", i);
        int64_t rc = look_up(s, rt_slice_of(name, (size_t)n), &port);
        CHECK(i % 2 ? rc > 0 && port.port == i : rc == RT_ENOENT);
    }
    CHECK_INT(rt_epmd_server_count(s), N / 2);
    CHECK_INT(feed(s, N, true, S("\0\1n"), &out), CLOSE);
    CHECK(out.n > N / 2 * 20);
    rt_buf_fini(&out);
    rt_epmd_server_free(s);
}

/* Fills until the tables grow, with each allocation of the last step failing. */
static void every_allocation_fails_once(void) {
    static const char request[] = "\0\x10x\0\7M\0\0\6\0\5\0\3far\0\0";
    int rc = RT_ENOMEM;
    for (long at = 0; at < 3; at++) {
        rt_alloc_fail_after(at);
        CHECK(rt_epmd_server_new(PORT, 100) == NULL);
    }
    for (long at = 0; rc == RT_ENOMEM || at < 5; at++) {
        rt_epmd_server *s = rt_epmd_server_new(PORT, 100);
        rt_buf out = RT_BUF_INIT;
        rt_epmd_port port;
        for (unsigned i = 0; i < 64; i++) {
            char name[3] = {'n', (char)('0' + i % 64 / 8), (char)('0' + i % 8)};
            CHECK(enroll(s, i, rt_slice_of(name, 3), 1) > 3);
        }
        rt_alloc_fail_after(at);
        rc = feed(s, 100, true, S(request), &out);
        rt_alloc_fail_after(-1);
        CHECK(rc == KEEP || rc == RT_ENOMEM);
        CHECK_INT(look_up(s, S("far"), &port) > 0, rc == KEEP);
        CHECK(look_up(s, S("n77"), &port) > 0);
        CHECK_INT(rt_epmd_server_count(s), 64 + (rc == KEEP));
        out.n = 0;
        rt_buf_fini(&out);
        rt_alloc_fail_after(0);
        CHECK_INT(feed(s, 101, true, S("\0\1n"), &out), RT_ENOMEM);
        CHECK_INT(out.n, 0);
        rt_buf_fini(&out);
        rt_epmd_server_free(s);
    }
}

TESTS(messages_are_the_documented_ones, names_are_checked,
      a_name_is_found_while_its_connection_lives, a_taken_name_is_refused, creations_differ,
      old_nodes_get_old_creations, the_serving_node_is_listed_too,
      strangers_and_nonsense_are_closed, requests_may_come_in_parts, look_ups_answer_in_full,
      ten_thousand_names, every_allocation_fails_once)
