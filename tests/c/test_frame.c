#include "check.h"

#include "base/cursor.h"
#include "dist/frame.h"

#define S(literal) rt_slice_of(literal, sizeof(literal) - 1)

static int parse(rt_atom_cache *cache, bool header, rt_slice packet, rt_frame *out) {
    return rt_frame_parse(cache, header, packet, out);
}

/* From a block of its own, which is gone afterwards: no slice is looked at. */
static int parse_only(bool header, rt_slice packet) {
    rt_atom_cache *cache = rt_atom_cache_new();
    unsigned char *p = check_copy(packet.p, packet.n);
    rt_frame f;
    int rc = parse(cache, header, rt_slice_of(p, packet.n), &f);
    free(p);
    rt_atom_cache_free(cache);
    return rc;
}

static void an_empty_packet_is_a_tick(void) {
    rt_frame f = {.kind = RT_FRAME_NORMAL, .atoms.count = 3};
    CHECK_INT(parse(NULL, true, S(""), &f), 0);
    CHECK(f.kind == RT_FRAME_TICK && f.atoms.count == 0 && f.body.n == 0);
    CHECK_INT(parse(NULL, false, S(""), &f), 0);
    CHECK(f.kind == RT_FRAME_TICK);
}

static void what_was_negotiated_decides(void) {
    CHECK_INT(parse_only(true, S("\x83\x44\0h")), 0);
    CHECK_INT(parse_only(false, S("\x83\x44\0h")), RT_EBAD);
    CHECK_INT(parse_only(false, S("p\x83h")), 0);
    CHECK_INT(parse_only(true, S("p\x83h")), RT_EBAD);
    CHECK_INT(parse_only(true, S("\x83\x47\0h")), RT_EBAD);
    CHECK_INT(parse_only(true, S("\x82\x44\0h")), RT_EBAD);
    CHECK_INT(parse_only(false, S("q\x83h")), RT_EBAD);
}

static void a_normal_frame(void) {
    rt_atom_cache *cache = rt_atom_cache_new();
    rt_frame f;
    CHECK_INT(parse(cache, true, S("\x83\x44\1\x08\0\2abrest"), &f), 0);
    CHECK(f.kind == RT_FRAME_NORMAL && f.sequence == 0 && f.fragment == 0);
    CHECK(f.atoms.count == 1 && rt_slice_eq(f.atoms.at[0], S("ab")));
    CHECK(rt_slice_eq(f.body, S("rest")));
    rt_atom_cache_free(cache);
}

static void fragments(void) {
    rt_atom_cache *cache = rt_atom_cache_new();
    rt_frame f;
    CHECK_INT(parse(cache, true,
                    S("\x83\x45\1\2\3\4\5\6\7\x08" "\0\0\0\0\0\0\0\2" "\1\x08\0\2abrest"), &f), 0);
    CHECK(f.kind == RT_FRAME_FRAG_FIRST && f.atoms.count == 1);
    CHECK(f.sequence == 0x0102030405060708 && f.fragment == 2);
    CHECK(rt_slice_eq(f.body, S("rest")));
    CHECK_INT(parse(cache, true, S("\x83\x46\1\2\3\4\5\6\7\x08" "\0\0\0\0\0\0\0\1more"), &f), 0);
    CHECK(f.kind == RT_FRAME_FRAG_NEXT && f.atoms.count == 0 && f.fragment == 1);
    CHECK(rt_slice_eq(f.body, S("more")));
    CHECK_INT(parse_only(true, S("\x83\x46\1\2\3\4\5\6\7\x08" "\0\0\0\0\0\0\0\0more")), RT_EBAD);
    CHECK_INT(parse_only(true, S("\x83\x45\1\2\3\4\5\6\7\x08" "\0\0\0\0\0\0\0\0\0x")), RT_EBAD);
    rt_atom_cache_free(cache);
}

/* Each packet is cut in front of its body. */
static void every_cut_is_malformed(void) {
    static const uint8_t first[] = "\x83\x45\1\2\3\4\5\6\7\x08" "\0\0\0\0\0\0\0\2" "\1\x08\0\2ab";
    static const uint8_t next[] = "\x83\x46\1\2\3\4\5\6\7\x08" "\0\0\0\0\0\0\0\2";
    static const uint8_t normal[] = "\x83\x44\1\x08\0\2ab";
    for (size_t n = 1; n < sizeof first - 1; n++)
        CHECK_INT(parse_only(true, rt_slice_of(first, n)), RT_EBAD);
    for (size_t n = 1; n < sizeof next - 1; n++)
        CHECK_INT(parse_only(true, rt_slice_of(next, n)), RT_EBAD);
    for (size_t n = 1; n < sizeof normal - 1; n++)
        CHECK_INT(parse_only(true, rt_slice_of(normal, n)), RT_EBAD);
}

static void failures_leave_the_frame_alone(void) {
    rt_atom_cache *cache = rt_atom_cache_new();
    rt_frame f, before;
    memset(&f, 0x5a, sizeof f);
    before = f;
    CHECK_INT(parse(cache, true, S("\x83\x45\1\2\3\4\5\6\7\x08" "\0\0\0\0\0\0\0\2" "\1\x08\0"), &f),
              RT_EBAD);
    CHECK_BYTES(&f, &before, sizeof f);
    CHECK_INT(parse(cache, false, S("x"), &f), RT_EBAD);
    CHECK_BYTES(&f, &before, sizeof f);
    rt_atom_cache_free(cache);
}

static void pass_frames_are_split(void) {
    rt_slice control, payload;
    CHECK_INT(rt_frame_split_pass(S("\x83h\1a\x05"), &control, &payload), 0);
    CHECK(rt_slice_eq(control, S("h\1a\x05")) && payload.n == 0);
    CHECK_INT(rt_frame_split_pass(S("\x83h\1a\x05\x83j"), &control, &payload), 0);
    CHECK(rt_slice_eq(control, S("h\1a\x05")) && rt_slice_eq(payload, S("j")));
    CHECK_INT(rt_frame_split_pass(S(""), &control, &payload), RT_EBAD);
    CHECK_INT(rt_frame_split_pass(S("\x83"), &control, &payload), RT_EBAD);
    CHECK_INT(rt_frame_split_pass(S("\x83h\1"), &control, &payload), RT_EBAD);
    CHECK_INT(rt_frame_split_pass(S("h\1a\x05"), &control, &payload), RT_EBAD);
    CHECK_INT(rt_frame_split_pass(S("\x83h\1a\x05j"), &control, &payload), RT_EBAD);
    CHECK_INT(rt_frame_split_pass(S("\x83h\1a\x05\x83"), &control, &payload), RT_EBAD);
}

static void heads_are_read_back(void) {
    rt_atom_cache *cache = rt_atom_cache_new();
    uint8_t b[RT_FRAME_FRAG_FIRST_HEAD + 3] = {0};
    rt_frame f;
    rt_frame_head_normal(b, 3);
    CHECK_BYTES(b, "\0\0\0\6\x83\x44\0", RT_FRAME_NORMAL_HEAD);
    CHECK_INT(parse(cache, true, rt_slice_of(b + 4, 6), &f), 0);
    CHECK(f.kind == RT_FRAME_NORMAL && f.body.n == 3 && f.atoms.count == 0);
    rt_frame_head_frag_first(b, 1ull << 40 | 7, 3, 3);
    CHECK_INT(rt_load_u32(b), RT_FRAME_FRAG_FIRST_HEAD - 4 + 3);
    CHECK_INT(parse(cache, true, rt_slice_of(b + 4, rt_load_u32(b)), &f), 0);
    CHECK(f.kind == RT_FRAME_FRAG_FIRST && f.body.n == 3);
    CHECK(f.sequence == (1ull << 40 | 7) && f.fragment == 3);
    rt_frame_head_frag_next(b, 9, 2, 3);
    CHECK_INT(rt_load_u32(b), RT_FRAME_FRAG_NEXT_HEAD - 4 + 3);
    CHECK_INT(parse(cache, true, rt_slice_of(b + 4, rt_load_u32(b)), &f), 0);
    CHECK(f.kind == RT_FRAME_FRAG_NEXT && f.sequence == 9 && f.fragment == 2 && f.body.n == 3);
    rt_atom_cache_free(cache);
}

static void a_normal_frame_becomes_a_pass_frame(void) {
    rt_buf out = RT_BUF_INIT;
    CHECK_INT(rt_frame_to_pass(&out, S("\0\0\0\7\x83\x44\0h\1a\x05")), 0);
    CHECK_INT(out.n, 10);
    CHECK_BYTES(out.p, "\0\0\0\6p\x83h\1a\x05", 10);
    CHECK_INT(rt_frame_to_pass(&out, S("\0\0\0\x0a\x83\x44\0h\1a\x05w\1x")), 0);
    CHECK_INT(out.n, 10 + 14); /* appended */
    CHECK_BYTES(out.p + 10, "\0\0\0\x0ap\x83h\1a\x05\x83w\1x", 14);
    CHECK_INT(rt_frame_to_pass(&out, S("\0\0\0\x0b\x83\x44\0h\1a\x05w\1x")), RT_EINVAL);
    CHECK_INT(rt_frame_to_pass(&out, S("\0\0\0\x0a\x83\x44\1h\1a\x05w\1x")), RT_EINVAL);
    CHECK_INT(rt_frame_to_pass(&out, S("\0\0\0\4\x83\x44\0h")), RT_EINVAL);
    CHECK_INT(rt_frame_to_pass(&out, S("\0\0\0\0")), RT_EINVAL);
    CHECK_INT(out.n, 24);
    rt_buf_fini(&out);
    rt_alloc_fail_after(0);
    CHECK_INT(rt_frame_to_pass(&out, S("\0\0\0\7\x83\x44\0h\1a\x05")), RT_ENOMEM);
    CHECK(out.n == 0 && out.p == NULL);
}

TESTS(an_empty_packet_is_a_tick, what_was_negotiated_decides, a_normal_frame, fragments,
      every_cut_is_malformed, failures_leave_the_frame_alone, pass_frames_are_split,
      heads_are_read_back, a_normal_frame_becomes_a_pass_frame)
