/* Every form is compared with what Erlang's term_to_binary gives. */
#include "check.h"

#include "term/utf8.h"
#include "term/write.h"

#define IS(b, literal) is(&(b), literal, sizeof(literal) - 1, __LINE__)

static void is(rt_buf *b, const char *want, size_t n, int line) {
    if (!check_that(b->n == n && memcmp(b->p, want, n) == 0, "bytes", __FILE__, line)) {
        for (size_t i = 0; i < b->n; i++) fprintf(stderr, " %u", b->p[i]);
        fputc('\n', stderr);
    }
    b->n = 0;
}

static void integers(void) {
    rt_buf b = RT_BUF_INIT;
    rt_put_i64(&b, 0), IS(b, "\x61\0");
    rt_put_i64(&b, 255), IS(b, "\x61\xff");
    rt_put_i64(&b, 256), IS(b, "\x62\0\0\1\0");
    rt_put_i64(&b, -1), IS(b, "\x62\xff\xff\xff\xff");
    rt_put_i64(&b, 2147483647), IS(b, "\x62\x7f\xff\xff\xff");
    rt_put_i64(&b, 2147483648), IS(b, "\x6e\4\0\0\0\0\x80");
    rt_put_i64(&b, -2147483648LL), IS(b, "\x62\x80\0\0\0");
    rt_put_i64(&b, -2147483649LL), IS(b, "\x6e\4\1\1\0\0\x80");
    rt_put_i64(&b, 1LL << 40), IS(b, "\x6e\6\0\0\0\0\0\0\1");
    rt_put_i64(&b, INT64_MAX), IS(b, "\x6e\x08\0\xff\xff\xff\xff\xff\xff\xff\x7f");
    rt_put_i64(&b, INT64_MIN), IS(b, "\x6e\x08\1\0\0\0\0\0\0\0\x80");
    rt_put_u64(&b, 7), IS(b, "\x61\7");
    rt_put_u64(&b, 1ULL << 63), IS(b, "\x6e\x08\0\0\0\0\0\0\0\0\x80");
    rt_put_u64(&b, UINT64_MAX), IS(b, "\x6e\x08\0\xff\xff\xff\xff\xff\xff\xff\xff");
    rt_buf_fini(&b);
}

static void containers(void) {
    rt_buf b = RT_BUF_INIT;
    rt_put_version(&b), IS(b, "\x83");
    rt_put_tuple(&b, 0), IS(b, "h\0");
    rt_put_tuple(&b, 255), IS(b, "h\xff");
    rt_put_tuple(&b, 256), IS(b, "i\0\0\1\0");
    rt_put_list(&b, 3), IS(b, "l\0\0\0\3");
    rt_put_nil(&b), IS(b, "j");
    rt_put_map(&b, 70000), IS(b, "t\0\1\x11\x70");
    rt_put_binary(&b, rt_slice_of("hey", 3)), IS(b, "m\0\0\0\3hey");
    rt_put_binary(&b, rt_slice_of(NULL, 0)), IS(b, "m\0\0\0\0");
    rt_buf_fini(&b);
}

static void floats(void) {
    rt_buf b = RT_BUF_INIT;
    CHECK_INT(rt_put_f64(&b, 1.5), RT_OK), IS(b, "F\x3f\xf8\0\0\0\0\0\0");
    CHECK_INT(rt_put_f64(&b, -0.0), RT_OK), IS(b, "F\x80\0\0\0\0\0\0\0");
    CHECK_INT(rt_put_f64(&b, __builtin_nan("")), RT_EINVAL);
    CHECK_INT(rt_put_f64(&b, __builtin_inf()), RT_EINVAL);
    CHECK_INT(rt_put_f64(&b, -__builtin_inf()), RT_EINVAL);
    CHECK_INT(b.n, 0);
    rt_buf_fini(&b);
}

static void fill(uint8_t *p, const char *character, size_t count) {
    for (size_t i = 0, n = strlen(character); i < count; i++) memcpy(p + i * n, character, n);
}

static void atoms(void) {
    uint8_t name[1100];
    rt_buf b = RT_BUF_INIT;
    rt_put_atom_str(&b, "ok"), IS(b, "w\2ok");
    rt_put_atom_str(&b, ""), IS(b, "w\0");
    fill(name, "a", 256);
    CHECK_INT(rt_put_atom(&b, rt_slice_of(name, 255)), RT_OK);
    CHECK(b.n == 257 && b.p[0] == RT_TAG_SMALL_ATOM_UTF8 && b.p[1] == 255);
    b.n = 0;
    CHECK_INT(rt_put_atom(&b, rt_slice_of(name, 256)), RT_EINVAL);
    fill(name, "\xc3\xa4", 256);
    CHECK_INT(rt_put_atom(&b, rt_slice_of(name, 254)), RT_OK);
    CHECK(b.n == 256 && b.p[0] == RT_TAG_SMALL_ATOM_UTF8);
    b.n = 0;
    CHECK_INT(rt_put_atom(&b, rt_slice_of(name, 510)), RT_OK);
    CHECK(b.n == 513 && b.p[0] == RT_TAG_ATOM_UTF8 && b.p[1] == 1 && b.p[2] == 254);
    CHECK_BYTES(b.p + 3, name, 510);
    b.n = 0;
    CHECK_INT(rt_put_atom(&b, rt_slice_of(name, 512)), RT_EINVAL);
    CHECK_INT(rt_put_atom(&b, rt_slice_of(name, 3)), RT_EINVAL); /* cut in a character */
    fill(name, "\xf0\x9f\x98\x80", 256);
    CHECK_INT(rt_put_atom(&b, rt_slice_of(name, 1020)), RT_OK);
    CHECK_INT(b.n, 1023);
    b.n = 0;
    CHECK_INT(rt_put_atom(&b, rt_slice_of(name, 1024)), RT_EINVAL);
    CHECK_INT(b.n, 0);
    rt_buf_fini(&b);
}

/* Each code point is encoded here by the definition and must count as one. */
static void utf8_by_its_definition(void) {
    for (uint32_t u = 0; u < 0x112000; u += u < 0x11000 ? 1 : 257) {
        uint8_t p[4];
        size_t n = u < 0x80 ? 1 : u < 0x800 ? 2 : u < 0x10000 ? 3 : 4;
        bool good = u < 0xd800 || (u > 0xdfff && u <= 0x10ffff);
        for (size_t i = n; i-- > 1;) p[i] = (uint8_t)(0x80 | (u >> (6 * (n - 1 - i)) & 0x3f));
        p[0] = n == 1 ? (uint8_t)u : (uint8_t)(0xf00 >> n | u >> (6 * (n - 1)));
        if (!CHECK(rt_utf8_chars(p, n) == (good ? 1 : RT_EBAD))) break;
        if (n > 1) CHECK_INT(rt_utf8_chars(p, n - 1), RT_EBAD);
        CHECK(rt_ascii(p, n) == (n == 1));
    }
    CHECK_INT(rt_utf8_chars((const uint8_t *)"", 0), 0);
    CHECK_INT(rt_utf8_chars((const uint8_t *)"\xe0\x80\x80", 3), RT_EBAD);
    CHECK_INT(rt_utf8_chars((const uint8_t *)"\xf0\x80\x80\x80", 4), RT_EBAD);
}

static void latin1_becomes_utf8(void) {
    uint8_t all[256], out[512];
    size_t n;
    for (int i = 0; i < 256; i++) all[i] = (uint8_t)i;
    n = rt_utf8_from_latin1(out, all, 256);
    CHECK_INT(n, 384);
    CHECK_INT(rt_utf8_chars(out, n), 256);
    CHECK_BYTES(out + 382, "\xc3\xbf", 2);
}

typedef int (*put)(rt_buf *);
static int put_version(rt_buf *b) { return rt_put_version(b); }
static int put_atom(rt_buf *b) { return rt_put_atom_str(b, "abc"); }
static int put_i64(rt_buf *b) { return rt_put_i64(b, 1LL << 40); }
static int put_u64(rt_buf *b) { return rt_put_u64(b, UINT64_MAX); }
static int put_tuple(rt_buf *b) { return rt_put_tuple(b, 1000); }
static int put_list(rt_buf *b) { return rt_put_list(b, 1); }
static int put_nil(rt_buf *b) { return rt_put_nil(b); }
static int put_map(rt_buf *b) { return rt_put_map(b, 1); }
static int put_binary(rt_buf *b) { return rt_put_binary(b, rt_slice_of("a", 1)); }
static int put_f64(rt_buf *b) { return rt_put_f64(b, 1.0); }

static void without_memory_nothing_is_written(void) {
    static const put puts[] = {put_version, put_atom, put_i64, put_u64, put_tuple,
                               put_list, put_nil, put_map, put_binary, put_f64};
    for (size_t i = 0; i < sizeof puts / sizeof puts[0]; i++) {
        rt_buf b = RT_BUF_INIT;
        rt_alloc_fail_after(0);
        CHECK_INT(puts[i](&b), RT_ENOMEM);
        CHECK_INT(b.n, 0);
        CHECK_INT(puts[i](&b), RT_OK);
        rt_buf_fini(&b);
    }
}

TESTS(integers, containers, floats, atoms, utf8_by_its_definition, latin1_becomes_utf8,
      without_memory_nothing_is_written)
