#include "check.h"

#include "base/buf.h"
#include "base/cursor.h"

static void grows_and_keeps_its_bytes(void) {
    rt_buf b = RT_BUF_INIT;
    for (unsigned i = 0; i < 10000; i++) {
        uint8_t c = (uint8_t)(i * 7);
        CHECK_INT(rt_buf_put(&b, &c, 1), RT_OK);
    }
    CHECK_INT(b.n, 10000);
    CHECK(b.cap >= b.n && b.cap < 40000);
    for (unsigned i = 0; i < 10000; i++)
        if (!CHECK(b.p[i] == (uint8_t)(i * 7))) break;
    rt_buf_fini(&b);
    CHECK(b.p == NULL && b.n == 0 && b.cap == 0);
}

static void a_failed_reserve_changes_nothing(void) {
    rt_buf b = RT_BUF_INIT, before;
    CHECK_INT(rt_buf_put(&b, "abc", 3), RT_OK);
    before = b;
    rt_alloc_fail_after(0);
    CHECK_INT(rt_buf_reserve(&b, 1000000), RT_ENOMEM);
    CHECK(memcmp(&b, &before, sizeof b) == 0);
    CHECK_INT(rt_buf_reserve(&b, SIZE_MAX), RT_ENOMEM);
    CHECK_INT(rt_buf_reserve(&b, SIZE_MAX / 2), RT_ENOMEM);
    CHECK(memcmp(&b, &before, sizeof b) == 0);
    CHECK_BYTES(b.p, "abc", 3);
    rt_buf_fini(&b);
}

static void reserve_gives_the_room_asked_for(void) {
    for (size_t n = 0; n < 300; n++) {
        rt_buf b = RT_BUF_INIT;
        CHECK_INT(rt_buf_reserve(&b, n), RT_OK);
        if (n > 0) memset(b.p, 1, n); /* the sanitizer judges */
        CHECK(b.cap >= n);
        rt_buf_fini(&b);
    }
}

static void integers_are_big_endian_and_read_back(void) {
    static const uint8_t want[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 'x', 'y'};
    rt_buf b = RT_BUF_INIT;
    rt_cursor c;
    rt_slice s;
    uint8_t v8;
    uint16_t v16;
    uint32_t v32;
    uint64_t v64;
    CHECK_INT(rt_buf_reserve(&b, 17), RT_OK);
    rt_buf_u8(&b, 1);
    rt_buf_u16(&b, 0x0203);
    rt_buf_u32(&b, 0x04050607);
    rt_buf_u64(&b, 0x08090a0b0c0d0e0fULL);
    rt_buf_raw(&b, "xy", 2);
    CHECK_INT(b.n, sizeof want);
    CHECK_BYTES(b.p, want, sizeof want);
    c = rt_cursor_of(b.p, b.n);
    CHECK(rt_cursor_u8(&c, &v8) && v8 == 1);
    CHECK(rt_cursor_u16(&c, &v16) && v16 == 0x0203);
    CHECK(rt_cursor_u32(&c, &v32) && v32 == 0x04050607);
    CHECK(rt_cursor_u64(&c, &v64) && v64 == 0x08090a0b0c0d0e0fULL);
    CHECK(!rt_cursor_u32(&c, &v32) && rt_cursor_left(&c) == 2);
    CHECK(!rt_cursor_take(&c, 3, &s) && rt_cursor_left(&c) == 2);
    CHECK(rt_cursor_take(&c, 2, &s) && rt_slice_eq(s, rt_slice_of("xy", 2)));
    CHECK(!rt_cursor_u8(&c, &v8) && !rt_cursor_u16(&c, &v16) && !rt_cursor_u64(&c, &v64));
    rt_buf_fini(&b);
}

TESTS(grows_and_keeps_its_bytes, a_failed_reserve_changes_nothing,
      reserve_gives_the_room_asked_for, integers_are_big_endian_and_read_back)
