#include "check.h"

#include "base/md5.h"

static void to_hex(const uint8_t digest[16], char out[33]) {
    for (int i = 0; i < 16; i++) snprintf(out + 2 * i, 3, "%02x", digest[i]);
}

static rt_slice text(const char *s) { return rt_slice_of(s, strlen(s)); }

static void the_suite_of_rfc_1321(void) {
    static const char *const cases[][2] = {
        {"", "d41d8cd98f00b204e9800998ecf8427e"},
        {"a", "0cc175b9c0f1b6a831c399e269772661"},
        {"abc", "900150983cd24fb0d6963f7d28e17f72"},
        {"message digest", "f96b697d7cb7938d525a2f31aaf161d0"},
        {"abcdefghijklmnopqrstuvwxyz", "c3fcd3d76192e4007dfb496cca67e13b"},
        {"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
         "d174ab98d277d9f5a5611c2c9f419d9f"},
        {"12345678901234567890123456789012345678901234567890123456789012345678901234567890",
         "57edf4a22be3c955ac49da2e2107b67a"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t digest[16];
        char hex[33];
        rt_md5(text(cases[i][0]), text(""), digest);
        to_hex(digest, hex);
        CHECK(strcmp(hex, cases[i][1]) == 0);
    }
}

/* erlang:md5 of n bytes 0, 1, 2 ... around the block and padding edges,
 * themselves hashed together. */
static void lengths_around_the_blocks(void) {
    uint8_t bytes[200], digests[200 * 16], sum[16];
    char hex[33];
    for (unsigned i = 0; i < 200; i++) bytes[i] = (uint8_t)i;
    for (unsigned n = 0; n < 200; n++)
        rt_md5(rt_slice_of(bytes, n), rt_slice_of(NULL, 0), digests + 16 * n);
    rt_md5(rt_slice_of(digests, sizeof digests), rt_slice_of(NULL, 0), sum);
    to_hex(sum, hex);
    CHECK(strcmp(hex, "eefa41f088d589fcf4e0f2c1cfdb7a3f") == 0);
}

static void where_the_two_slices_meet_does_not_matter(void) {
    uint8_t bytes[150], whole[16], cut[16];
    for (unsigned i = 0; i < 150; i++) bytes[i] = (uint8_t)(i * 11);
    rt_md5(rt_slice_of(bytes, 150), rt_slice_of(NULL, 0), whole);
    for (size_t at = 0; at <= 150; at++) {
        rt_md5(rt_slice_of(bytes, at), rt_slice_of(bytes + at, 150 - at), cut);
        CHECK_BYTES(cut, whole, 16);
        CHECK(rt_digest_eq(cut, whole));
    }
}

static void digests_differ_in_any_byte(void) {
    uint8_t a[16] = {1, 2, 3}, b[16];
    for (int i = 0; i < 16; i++) {
        memcpy(b, a, 16);
        CHECK(rt_digest_eq(a, b));
        b[i] ^= 0x80;
        CHECK(!rt_digest_eq(a, b));
    }
}

TESTS(the_suite_of_rfc_1321, lengths_around_the_blocks, where_the_two_slices_meet_does_not_matter,
      digests_differ_in_any_byte)
