/* Error texts, the clock and randomness. */
#include "check.h"

#include "base/clock.h"
#include "base/err.h"
#include "base/random.h"

static void every_code_has_its_own_text(void) {
    const char *unknown = rt_err_text(-9999);
    for (int code = RT_OK; code >= RT_ESIZE; code--) {
        CHECK(rt_err_text(code) != NULL && rt_err_text(code)[0] != 0);
        CHECK(strcmp(rt_err_text(code), unknown) != 0);
        for (int other = RT_OK; other > code; other--)
            CHECK(strcmp(rt_err_text(code), rt_err_text(other)) != 0);
    }
    CHECK(strcmp(rt_err_text(7), rt_err_text(RT_OK)) == 0);
}

static void the_clock_never_goes_back(void) {
    uint64_t last = rt_now();
    CHECK(last > 0);
    for (int i = 0; i < 1000; i++) {
        uint64_t now = rt_now();
        if (!CHECK(now >= last)) break;
        last = now;
    }
}

static void random_bytes_fill_the_whole_and_nothing_else(void) {
    uint8_t a[66] = {0}, b[66] = {0};
    uint64_t u = 0, v = 0;
    uint32_t w = 0;
    unsigned touched = 0;
    for (int i = 0; i < 20; i++) {
        CHECK_INT(rt_random(a + 1, 64), RT_OK);
        for (unsigned j = 0; j < 66; j++) b[j] |= a[j];
    }
    for (unsigned j = 1; j < 65; j++) touched += b[j] != 0;
    CHECK_INT(touched, 64);
    CHECK(b[0] == 0 && b[65] == 0);
    CHECK(rt_random_u64(&u) == RT_OK && rt_random_u64(&v) == RT_OK && u != v);
    CHECK(rt_random_u32(&w) == RT_OK);
    CHECK_INT(rt_random(a, 0), RT_OK);
}

TESTS(every_code_has_its_own_text, the_clock_never_goes_back,
      random_bytes_fill_the_whole_and_nothing_else)
