#include "check.h"

#include "base/cursor.h"
#include "base/limits.h"
#include "dist/atom_cache.h"

/* Reads a section given as bytes, from a block of that size. */
static int read_bytes(rt_atom_cache *cache, const void *bytes, size_t n, rt_atoms *atoms) {
    unsigned char *p = check_copy(bytes, n);
    rt_cursor c = rt_cursor_of(p, n);
    int rc = rt_atom_cache_read(cache, &c, atoms);
    if (rc == 0) CHECK_INT(rt_cursor_left(&c), 0);
    else CHECK(c.p == p);
    free(p);
    return rc;
}

#define READ(cache, literal, atoms) read_bytes(cache, literal, sizeof(literal) - 1, atoms)

static bool is(rt_slice s, const char *text) {
    return rt_slice_eq(s, rt_slice_of(text, strlen(text)));
}

static void no_references(void) {
    rt_atom_cache *cache = rt_atom_cache_new();
    rt_atoms atoms = {.count = 9};
    CHECK_INT(READ(cache, "\0", &atoms), 0);
    CHECK_INT(atoms.count, 0);
    rt_atom_cache_free(cache);
    rt_atom_cache_free(NULL);
}

/* Nibbles: the low half of a byte is the earlier reference, the one after the
 * last holds LongAtoms. Three references: new 0/5 "ab", new 7/255 "", new 3/0 "c". */
static void the_layout_is_the_documented_one(void) {
    rt_atom_cache *cache = rt_atom_cache_new();
    rt_atoms atoms;
    CHECK_INT(READ(cache, "\3\xf8\x0b" "\5\2ab" "\xff\0" "\0\1c", &atoms), 0);
    CHECK_INT(atoms.count, 3);
    CHECK(is(atoms.at[0], "ab") && is(atoms.at[1], "") && is(atoms.at[2], "c"));
    /* The same as old ones, in another order; an even count has its own byte
     * for LongAtoms. */
    CHECK_INT(READ(cache, "\2\x03\x00" "\0\5", &atoms), 0);
    CHECK_INT(atoms.count, 2);
    CHECK(is(atoms.at[0], "c") && is(atoms.at[1], "ab"));
    CHECK_INT(READ(cache, "\1\x07" "\xff", &atoms), 0);
    CHECK(is(atoms.at[0], ""));
    rt_atom_cache_free(cache);
}

static void long_atoms_have_two_bytes_of_length(void) {
    rt_atom_cache *cache = rt_atom_cache_new();
    rt_atoms atoms;
    uint8_t b[4 + 2 + 512] = {1, 0x18, 9, 2, 0};
    for (size_t i = 0; i < 256; i++) memcpy(b + 5 + 2 * i, "\xce\xb1", 2);
    CHECK_INT(read_bytes(cache, b, 5 + 512, &atoms), RT_EBAD); /* 256 characters */
    b[3] = 1;
    b[4] = 0xfe;
    CHECK_INT(read_bytes(cache, b, 5 + 510, &atoms), 0); /* 255 */
    CHECK_INT(atoms.at[0].n, 510);
    CHECK_INT(READ(cache, "\2\x88\x01" "\1\0\1x" "\2\0\0", &atoms), 0);
    CHECK(is(atoms.at[0], "x") && is(atoms.at[1], ""));
    rt_atom_cache_free(cache);
}

/* A slot that is overwritten twice in one header: both slices hold what stood
 * there when they were named. */
static void slices_live_until_the_next_call(void) {
    rt_atom_cache *cache = rt_atom_cache_new();
    rt_atoms atoms;
    CHECK_INT(READ(cache, "\1\x08" "\7\5first", &atoms), 0);
    CHECK_INT(READ(cache, "\4\x80\x08\x00" "\7" "\7\6second" "\7" "\7", &atoms), RT_EBAD);
    CHECK_INT(READ(cache, "\4\x80\x08\x00" "\7" "\7\6second" "\7\5third" "\7", &atoms), 0);
    CHECK(is(atoms.at[0], "second") && is(atoms.at[1], "second"));
    CHECK(is(atoms.at[2], "third") && is(atoms.at[3], "third"));
    rt_atom_cache_free(cache);
}

static void an_empty_slot_cannot_be_old(void) {
    rt_atom_cache *cache = rt_atom_cache_new();
    rt_atoms atoms = {.count = 77};
    CHECK_INT(READ(cache, "\1\x00" "\0", &atoms), RT_EBAD);
    CHECK_INT(READ(cache, "\1\x08" "\1\1a", &atoms), 0);
    CHECK_INT(READ(cache, "\1\x00" "\0", &atoms), RT_EBAD);
    CHECK_INT(READ(cache, "\1\x01" "\1", &atoms), RT_EBAD); /* another segment */
    CHECK_INT(READ(cache, "\1\x00" "\1", &atoms), 0);
    rt_atom_cache_free(cache);
}

static void broken_text_is_refused(void) {
    rt_atom_cache *cache = rt_atom_cache_new();
    rt_atoms atoms;
    CHECK_INT(READ(cache, "\1\x08" "\0\1\xff", &atoms), RT_EBAD);
    CHECK_INT(READ(cache, "\1\x08" "\0\1\xe9", &atoms), RT_EBAD);         /* latin-1 */
    CHECK_INT(READ(cache, "\1\x08" "\0\2\xc0\x80", &atoms), RT_EBAD);     /* overlong */
    CHECK_INT(READ(cache, "\1\x08" "\0\3\xed\xa0\x80", &atoms), RT_EBAD); /* surrogate */
    CHECK_INT(READ(cache, "\1\x08" "\0\2\xc3\xa9", &atoms), 0);
    rt_atom_cache_free(cache);
}

/* 255 references, all new and then all old, over all segments. */
static rt_buf full_section(bool fresh) {
    rt_buf b = RT_BUF_INIT;
    if (rt_buf_reserve(&b, 4096) < 0) abort();
    rt_buf_u8(&b, 255);
    for (unsigned i = 0; i < 128; i++) {
        unsigned low = (2 * i) % 8, high = (2 * i + 1) % 8;
        if (i == 127) high = 0; /* LongAtoms: no */
        if (fresh) low |= 8;
        if (fresh && i < 127) high |= 8;
        rt_buf_u8(&b, (uint8_t)(low | high << 4));
    }
    for (unsigned i = 0; i < 255; i++) {
        char text[8];
        int n = snprintf(text, sizeof text, "a%u", i);
        rt_buf_u8(&b, (uint8_t)i);
        if (!fresh) continue;
        rt_buf_u8(&b, (uint8_t)n);
        rt_buf_raw(&b, text, (size_t)n);
    }
    return b;
}

static void a_full_section(void) {
    rt_atom_cache *cache = rt_atom_cache_new();
    rt_buf fresh = full_section(true), old = full_section(false);
    rt_atoms atoms;
    CHECK_INT(read_bytes(cache, old.p, old.n, &atoms), RT_EBAD);
    CHECK_INT(read_bytes(cache, fresh.p, fresh.n, &atoms), 0);
    CHECK_INT(read_bytes(cache, old.p, old.n, &atoms), 0);
    CHECK_INT(atoms.count, 255);
    for (unsigned i = 0; i < 255; i++) {
        char text[8];
        snprintf(text, sizeof text, "a%u", i);
        CHECK(is(atoms.at[i], text));
    }
    rt_buf_fini(&fresh);
    rt_buf_fini(&old);
    rt_atom_cache_free(cache);
}

static void every_cut_is_malformed(void) {
    rt_buf b = full_section(true);
    for (size_t cut = 0; cut < b.n; cut++) {
        rt_atom_cache *cache = rt_atom_cache_new();
        rt_atoms atoms = {.count = 77};
        CHECK_INT(read_bytes(cache, b.p, cut, &atoms), RT_EBAD);
        CHECK_INT(atoms.count, 77); /* untouched */
        rt_atom_cache_free(cache);
    }
    rt_buf_fini(&b);
}

/* Without memory nothing is lost but that header. */
static void every_allocation_fails_once(void) {
    rt_buf b = full_section(true);
    long at = 0;
    int rc = RT_ENOMEM;
    rt_alloc_fail_after(0);
    CHECK(rt_atom_cache_new() == NULL);
    for (; rc == RT_ENOMEM; at++) {
        rt_atom_cache *cache = rt_atom_cache_new();
        rt_atoms atoms;
        rt_alloc_fail_after(at);
        rc = read_bytes(cache, b.p, b.n, &atoms);
        rt_alloc_fail_after(-1);
        CHECK(rc == 0 || rc == RT_ENOMEM);
        CHECK_INT(read_bytes(cache, b.p, b.n, &atoms), 0);
        rt_atom_cache_free(cache);
    }
    CHECK_INT(at, 255 + 8 + 1); /* the atoms, the segments, and the run that went well */
    rt_buf_fini(&b);
}

TESTS(no_references, the_layout_is_the_documented_one, long_atoms_have_two_bytes_of_length,
      slices_live_until_the_next_call, an_empty_slot_cannot_be_old, broken_text_is_refused,
      a_full_section, every_cut_is_malformed, every_allocation_fails_once)
