#include "vectors.h"

#include "term/ident.h"
#include "term/scan.h"
#include "term/tags.h"

#define AT(literal) rt_cursor_of(literal, sizeof(literal) - 1)

static bool named(rt_slice s, const char *text) {
    return rt_slice_eq(s, rt_slice_of(text, strlen(text)));
}

static void atoms_of_every_tag(void) {
    rt_slice name;
    bool latin1;
    rt_cursor c = AT("w\2okd\0\2okv\0\2oks\2okw\0d\0\1\xe4w\2\xc3\xa4");
    for (int i = 0; i < 4; i++) {
        CHECK_INT(rt_read_atom(&c, &name, &latin1), RT_OK);
        CHECK(named(name, "ok") && !latin1);
    }
    CHECK_INT(rt_read_atom(&c, &name, &latin1), RT_OK);
    CHECK(name.n == 0 && !latin1);
    CHECK_INT(rt_read_atom(&c, &name, &latin1), RT_OK);
    CHECK(named(name, "\xe4") && latin1);
    CHECK_INT(rt_read_atom(&c, &name, &latin1), RT_OK);
    CHECK(named(name, "\xc3\xa4") && !latin1);
    CHECK_INT(rt_cursor_left(&c), 0);
    CHECK_INT(rt_read_atom(&c, &name, &latin1), RT_AGAIN);
}

static void atoms_that_are_none(void) {
    static const struct {
        const char *p;
        size_t n;
        int rc;
    } bad[] = {{"a\1", 2, RT_EBAD},          {"R\0", 2, RT_EBAD},      {"w\2\xc3", 3, RT_AGAIN},
               {"w\2\xc3\x28", 4, RT_EBAD},  {"d\1\0", 3, RT_EBAD},    {"v\3\xfd", 3, RT_EBAD},
               {"w", 1, RT_AGAIN},           {"d\0", 2, RT_AGAIN},     {"s\2a", 3, RT_AGAIN}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        unsigned char *p = check_copy(bad[i].p, bad[i].n);
        rt_cursor c = rt_cursor_of(p, bad[i].n);
        rt_slice name = {NULL, 77};
        bool latin1 = true;
        CHECK_INT(rt_read_atom(&c, &name, &latin1), bad[i].rc);
        CHECK(c.p == p && name.n == 77 && latin1);
        free(p);
    }
}

static void pids(void) {
    rt_pid_view v;
    rt_cursor c = AT("Xw\3a@b\1\2\3\4\5\6\7\x08\x09\x0a\x0b\x0cgd\0\1\xe4\0\0\0\1\0\0\0\2\3");
    CHECK_INT(rt_read_pid(&c, &v), RT_OK);
    CHECK(named(v.node, "a@b") && !v.node_latin1);
    CHECK(v.id == 0x01020304 && v.serial == 0x05060708 && v.creation == 0x090a0b0c);
    CHECK_INT(rt_read_pid(&c, &v), RT_OK);
    CHECK(named(v.node, "\xe4") && v.node_latin1 && v.id == 1 && v.serial == 2 && v.creation == 3);
    CHECK_INT(rt_cursor_left(&c), 0);
    c = AT("gw\1a\0\0\0\1\0\0\0\2\4");
    CHECK_INT(rt_read_pid(&c, &v), RT_EBAD);
    c = AT("Zw\1a");
    CHECK_INT(rt_read_pid(&c, &v), RT_EBAD);
}

static void refs(void) {
    rt_ref_view v;
    rt_cursor c = AT("Z\0\2w\1a\0\0\0\7\0\0\0\1\0\0\0\2"
                     "r\0\1w\1b\3\0\3\xff\xff"
                     "ew\1c\0\0\0\x09\2"
                     "Z\0\0w\1d\0\0\0\1");
    CHECK_INT(rt_read_ref(&c, &v), RT_OK);
    CHECK(named(v.node, "a") && v.creation == 7 && v.words == 2);
    CHECK(v.word[0] == 1 && v.word[1] == 2);
    CHECK_INT(rt_read_ref(&c, &v), RT_OK);
    CHECK(named(v.node, "b") && v.creation == 3 && v.words == 1 && v.word[0] == 0x3ffff);
    CHECK_INT(rt_read_ref(&c, &v), RT_OK);
    CHECK(named(v.node, "c") && v.creation == 2 && v.words == 1 && v.word[0] == 9);
    CHECK_INT(rt_read_ref(&c, &v), RT_OK);
    CHECK(named(v.node, "d") && v.words == 0 && v.creation == 1);
    CHECK_INT(rt_cursor_left(&c), 0);
    c = AT("Z\0\6w\1a\0\0\0\7");
    CHECK_INT(rt_read_ref(&c, &v), RT_EBAD);
    c = AT("r\0\1w\1b\3\0\4\0\0");
    CHECK_INT(rt_read_ref(&c, &v), RT_EBAD);
    c = AT("ew\1c\0\0\0\x09\4");
    CHECK_INT(rt_read_ref(&c, &v), RT_EBAD);
}

static void integers(void) {
    static const struct {
        const char *p;
        size_t n;
        int64_t v;
    } good[] = {{"a\xff", 2, 255}, {"b\xff\xff\xff\xff", 5, -1}, {"b\x80\0\0\0", 5, INT32_MIN},
                {"n\0\0", 3, 0}, {"n\0\1", 3, 0}, {"n\1\1\5", 4, -5}, {"n\1\xff\5", 4, -5},
                {"n\x08\0\xff\xff\xff\xff\xff\xff\xff\x7f", 11, INT64_MAX},
                {"n\x08\1\0\0\0\0\0\0\0\x80", 11, INT64_MIN}};
    int64_t v = 0;
    rt_cursor c;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        c = rt_cursor_of(good[i].p, good[i].n);
        CHECK_INT(rt_read_i64(&c, &v), RT_OK);
        CHECK(v == good[i].v && rt_cursor_left(&c) == 0);
    }
    c = AT("n\x08\0\0\0\0\0\0\0\0\x80"), CHECK_INT(rt_read_i64(&c, &v), RT_EBAD);
    c = AT("n\x08\1\1\0\0\0\0\0\0\x80"), CHECK_INT(rt_read_i64(&c, &v), RT_EBAD);
    c = AT("n\x09\0\0\0\0\0\0\0\0\0\0"), CHECK_INT(rt_read_i64(&c, &v), RT_EBAD);
    c = AT("w\1a"), CHECK_INT(rt_read_i64(&c, &v), RT_EBAD);
    c = AT("b\0\0\0"), CHECK_INT(rt_read_i64(&c, &v), RT_AGAIN);
    c = AT("n\2\0\1"), CHECK_INT(rt_read_i64(&c, &v), RT_AGAIN);
    CHECK_INT(rt_cursor_left(&c), 4);
}

static void tuples(void) {
    uint32_t n = 9;
    rt_cursor c = AT("h\3i\0\1\0\0");
    CHECK(rt_read_tuple(&c, &n) == RT_OK && n == 3);
    CHECK(rt_read_tuple(&c, &n) == RT_OK && n == 65536);
    CHECK_INT(rt_read_tuple(&c, &n), RT_AGAIN);
    c = AT("l\0\0\0\0"), CHECK_INT(rt_read_tuple(&c, &n), RT_EBAD);
    c = AT("i\0\0"), CHECK_INT(rt_read_tuple(&c, &n), RT_AGAIN);
    CHECK_INT(n, 65536);
}

static void canonical(const char *name, const char *in, size_t in_n, const char *want, size_t n) {
    rt_buf b = RT_BUF_INIT;
    rt_cursor c = rt_cursor_of(in, in_n);
    int ok = CHECK(rt_put_canonical(&b, &c) == RT_OK);
    ok &= CHECK(rt_cursor_left(&c) == 0);
    ok &= CHECK(b.n == n && memcmp(b.p, want, n) == 0);
    if (!ok) fprintf(stderr, "    %s\n", name);
    rt_buf_fini(&b);
}
#define CANONICAL(name, in, want) canonical(name, in, sizeof(in) - 1, want, sizeof(want) - 1)

static void one_form_for_every_spelling(void) {
    CANONICAL("new pid", "Xw\1a\0\0\0\1\0\0\0\2\0\0\0\3", "Xw\1a\0\0\0\1\0\0\0\2\0\0\0\3");
    CANONICAL("old pid", "gd\0\1a\0\0\0\1\0\0\0\2\3", "Xw\1a\0\0\0\1\0\0\0\2\0\0\0\3");
    CANONICAL("latin1", "Xs\1\xe4\0\0\0\1\0\0\0\2\0\0\0\3",
              "Xw\2\xc3\xa4\0\0\0\1\0\0\0\2\0\0\0\3");
    CANONICAL("long tag", "Xv\0\1a\0\0\0\1\0\0\0\2\0\0\0\3", "Xw\1a\0\0\0\1\0\0\0\2\0\0\0\3");
    CANONICAL("v4 port", "xw\1a\0\0\0\1\0\0\0\2\0\0\0\3", "xw\1a\0\0\0\1\0\0\0\2\0\0\0\3");
    CANONICAL("new port", "Yw\1a\0\0\0\2\0\0\0\3", "xw\1a\0\0\0\0\0\0\0\2\0\0\0\3");
    CANONICAL("old port", "fw\1a\0\0\0\2\3", "xw\1a\0\0\0\0\0\0\0\2\0\0\0\3");
    CANONICAL("newer ref", "Z\0\1w\1a\0\0\0\3\0\0\0\4", "Z\0\1w\1a\0\0\0\3\0\0\0\4");
    CANONICAL("new ref", "r\0\1w\1a\3\0\0\0\4", "Z\0\1w\1a\0\0\0\3\0\0\0\4");
    CANONICAL("old ref", "ew\1a\0\0\0\4\3", "Z\0\1w\1a\0\0\0\3\0\0\0\4");
}

/* The identifiers among Erlang's terms, whole and cut. */
static void identifiers_of_erlang(void) {
    vectors all = vectors_read("tests/vectors/terms.txt");
    size_t seen = 0;
    for (size_t i = 0; i < all.n; i++) {
        const vector *v = &all.at[i];
        rt_buf b = RT_BUF_INIT, again = RT_BUF_INIT;
        rt_scan s = {.depth_max = 1};
        rt_cursor c = rt_cursor_of(v->p + 1, v->n - 1);
        int ok;
        if (strncmp(v->name, "pid/", 4) && strncmp(v->name, "ref/", 4) &&
            strncmp(v->name, "port/", 5)) continue;
        seen++;
        ok = CHECK(rt_put_canonical(&b, &c) == RT_OK) & CHECK(rt_cursor_left(&c) == 0);
        ok &= CHECK(rt_term_scan(b.p, b.n, &s) == (int64_t)b.n);
        c = rt_cursor_of(b.p, b.n);
        ok &= CHECK(rt_put_canonical(&again, &c) == RT_OK);
        ok &= CHECK(rt_slice_eq(rt_slice_of(b.p, b.n), rt_slice_of(again.p, again.n)));
        again.n = 0;
        for (size_t n = 0; n < v->n - 1; n++) {
            unsigned char *p = check_copy(v->p + 1, n);
            c = rt_cursor_of(p, n);
            ok &= CHECK(rt_put_canonical(&again, &c) == RT_AGAIN);
            ok &= CHECK(c.p == p && again.n == 0);
            free(p);
        }
        if (!ok) fprintf(stderr, "    vector %s\n", v->name);
        rt_buf_fini(&b);
        rt_buf_fini(&again);
    }
    CHECK(seen >= 20);
    vectors_free(&all);
}

static void long_and_bad_nodes(void) {
    uint8_t node[1024];
    uint32_t word[6] = {1, 2, 3, 4, 5, 6};
    rt_buf b = RT_BUF_INIT;
    rt_cursor c;
    rt_ref_view v;
    for (size_t i = 0; i < sizeof node; i += 4) memcpy(node + i, "\xf0\x9f\x98\x80", 4);
    CHECK_INT(rt_put_ref(&b, rt_slice_of(node, 1020), 7, word, 5), RT_OK);
    c = rt_cursor_of(b.p, b.n);
    CHECK_INT(rt_read_ref(&c, &v), RT_OK);
    CHECK(v.node.n == 1020 && v.words == 5 && v.word[4] == 5 && v.creation == 7);
    b.n = 0;
    CHECK_INT(rt_put_ref(&b, rt_slice_of("a", 1), 7, word, 6), RT_EINVAL);
    CHECK_INT(rt_put_ref(&b, rt_slice_of(node, 1024), 7, word, 1), RT_EINVAL);
    CHECK_INT(rt_put_pid(&b, rt_slice_of(node, 1024), 1, 2, 3), RT_EINVAL);
    CHECK_INT(rt_put_pid(&b, rt_slice_of("\xff", 1), 1, 2, 3), RT_EINVAL);
    CHECK_INT(b.n, 0);
    rt_buf_fini(&b);
}

static void without_memory_nothing_moves(void) {
    static const struct {
        const char *p;
        size_t n;
    } in[] = {{"Xw\1a\0\0\0\1\0\0\0\2\0\0\0\3", 16}, {"Z\0\1w\1a\0\0\0\3\0\0\0\4", 14},
              {"Yw\1a\0\0\0\2\0\0\0\3", 12}};
    for (size_t i = 0; i < sizeof in / sizeof in[0]; i++) {
        rt_buf b = RT_BUF_INIT;
        rt_cursor c = rt_cursor_of(in[i].p, in[i].n);
        rt_alloc_fail_after(0);
        CHECK_INT(rt_put_canonical(&b, &c), RT_ENOMEM);
        CHECK(b.n == 0 && rt_cursor_left(&c) == in[i].n);
        CHECK_INT(rt_put_canonical(&b, &c), RT_OK);
        rt_buf_fini(&b);
    }
}

TESTS(atoms_of_every_tag, atoms_that_are_none, pids, refs, integers, tuples,
      one_form_for_every_spelling, identifiers_of_erlang, long_and_bad_nodes,
      without_memory_nothing_moves)
