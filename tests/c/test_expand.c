#include "vectors.h"

#include "term/scan.h"
#include "term/tags.h"
#include "term/write.h"

/* Atom 0 is "ok", 1 is empty, 2 has 300 bytes, the others are one letter. */
static uint8_t long_name[300];

static rt_atoms some_atoms(void) {
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz";
    rt_atoms a = {.count = 20};
    for (size_t i = 0; i < sizeof long_name; i += 2) memcpy(long_name + i, "\xc3\xa4", 2);
    for (uint32_t i = 0; i < a.count; i++) a.at[i] = rt_slice_of(letters + i, 1);
    a.at[0] = rt_slice_of("ok", 2);
    a.at[1] = rt_slice_of("", 0);
    a.at[2] = rt_slice_of(long_name, sizeof long_name);
    return a;
}

/* An atom of the table, as a reference or as itself. */
static void put_atom(rt_buf *b, const rt_atoms *atoms, uint8_t index, bool refs) {
    uint8_t ref[2] = {RT_TAG_ATOM_CACHE_REF, index};
    if (refs)
        CHECK_INT(rt_buf_put(b, ref, 2), RT_OK);
    else
        CHECK_INT(rt_put_atom(b, atoms->at[index]), RT_OK);
}

static void put_bytes(rt_buf *b, const void *p, size_t n) { CHECK_INT(rt_buf_put(b, p, n), RT_OK); }

static void put_pid(rt_buf *b, const rt_atoms *atoms, bool refs) {
    put_bytes(b, "X", 1);
    put_atom(b, atoms, 4, refs);
    put_bytes(b, "\0\0\0\1\0\0\0\2\0\0\0\3", 12);
}

/* Every identifier there is, each with its node from the table. */
static void put_identifiers(rt_buf *b, const rt_atoms *atoms, bool refs) {
    static const struct {
        const char *head;
        size_t head_n, tail_n;
    } kinds[] = {{"X", 1, 12}, {"g", 1, 9}, {"x", 1, 12}, {"Y", 1, 8}, {"f", 1, 5}, {"e", 1, 5},
                 {"Z\0\5", 3, 24}, {"Z\0\0", 3, 4}, {"r\0\3", 3, 13}, {"r\0\0", 3, 1}};
    static const char zeros[24];
    size_t n = sizeof kinds / sizeof kinds[0];
    CHECK_INT(rt_put_tuple(b, (uint32_t)n), RT_OK);
    for (size_t i = 0; i < n; i++) {
        put_bytes(b, kinds[i].head, kinds[i].head_n);
        put_atom(b, atoms, (uint8_t)(5 + i), refs);
        put_bytes(b, zeros, kinds[i].tail_n);
    }
}

/* `nested` funs one in another, each with an atom before and after it. */
static void put_fun(rt_buf *b, const rt_atoms *atoms, bool refs, int nested) {
    size_t size_at = b->n + 1;
    static const char fixed[29];
    put_bytes(b, "p", 1);
    put_bytes(b, fixed, 29);
    b->p[b->n - 1] = nested > 1 ? 3 : 1;
    put_atom(b, atoms, 3, refs);
    put_bytes(b, "a\1b\0\0\0\2", 7);
    put_pid(b, atoms, refs);
    put_atom(b, atoms, 0, refs);
    if (nested > 1) {
        put_fun(b, atoms, refs, nested - 1);
        put_atom(b, atoms, 2, refs);
    }
    rt_store_u32(b->p + size_at, (uint32_t)(b->n - size_at));
}

static void put_everything(rt_buf *b, const rt_atoms *atoms, bool refs) {
    CHECK_INT(rt_put_list(b, 8), RT_OK);
    for (uint8_t i = 0; i < 3; i++) put_atom(b, atoms, i, refs);
    put_identifiers(b, atoms, refs);
    put_fun(b, atoms, refs, 1);
    put_bytes(b, "q", 1);
    put_atom(b, atoms, 3, refs);
    put_atom(b, atoms, 2, refs);
    put_bytes(b, "a\2", 2);
    put_fun(b, atoms, refs, 40);
    CHECK_INT(rt_put_map(b, 1), RT_OK);
    put_atom(b, atoms, 19, refs);
    CHECK_INT(rt_put_binary(b, rt_slice_of("R\0R\1", 4)), RT_OK);
    put_atom(b, atoms, 1, refs); /* the tail */
}

static void references_become_atoms(void) {
    rt_atoms atoms = some_atoms();
    rt_buf in = RT_BUF_INIT, want = RT_BUF_INIT, out = RT_BUF_INIT;
    rt_scan s = {.depth_max = 100, .atoms = &atoms};
    put_everything(&in, &atoms, true);
    put_everything(&want, &atoms, false);
    CHECK_INT(rt_term_scan(in.p, in.n, &s), in.n);
    CHECK_INT(s.cache_refs, 3 + 10 + 3 + 2 + 40 * 4 - 1 + 2);
    CHECK_INT(s.expanded_bytes, want.n);
    CHECK_INT(rt_term_skip(in.p, in.n), in.n);
    put_bytes(&out, "before", 6);
    CHECK_INT(rt_term_expand(&out, in.p, in.n, &atoms), RT_OK);
    if (CHECK_INT(out.n, want.n + 6)) CHECK_BYTES(out.p + 6, want.p, want.n);
    CHECK_BYTES(out.p, "before", 6);
    s = (rt_scan){.depth_max = 100};
    CHECK_INT(rt_term_scan(out.p + 6, out.n - 6, &s), want.n);
    rt_buf_fini(&in);
    rt_buf_fini(&want);
    rt_buf_fini(&out);
}

/* Expanding what was scanned gives what expanding gives. */
static void expands_the_same(const uint8_t *p, size_t n, const rt_atoms *atoms) {
    rt_scan s = {.depth_max = 100, .atoms = atoms};
    rt_buf slow = RT_BUF_INIT, fast = RT_BUF_INIT;
    put_bytes(&fast, "before", 6);
    CHECK_INT(rt_term_scan(p, n, &s), n);
    CHECK_INT(rt_term_expand(&slow, p, n, atoms), RT_OK);
    CHECK_INT(rt_term_expand_scanned(&fast, p, n, &s), RT_OK);
    CHECK_INT(slow.n, s.expanded_bytes);
    if (CHECK_INT(fast.n, slow.n + 6)) CHECK_BYTES(fast.p + 6, slow.p, slow.n);
    rt_buf_fini(&slow);
    rt_buf_fini(&fast);
}

static void a_scanned_term_expands_the_same(void) {
    rt_atoms atoms = some_atoms();
    rt_buf in = RT_BUF_INIT;
    put_everything(&in, &atoms, true);
    expands_the_same(in.p, in.n, &atoms);
    in.n = 0;
    put_fun(&in, &atoms, true, 3); /* its size field grows */
    expands_the_same(in.p, in.n, &atoms);
    for (size_t refs = 0; refs <= 2 * RT_SCAN_REFS_MAX; refs++) {
        in.n = 0;
        put_bytes(&in, "h", 1);
        put_bytes(&in, (const char[]){(char)(2 * refs)}, 1);
        for (size_t i = 0; i < refs; i++) {
            put_bytes(&in, (const char[]){'R', (char)(i % atoms.count)}, 2);
            put_bytes(&in, "a\5", 2);
        }
        expands_the_same(in.p, in.n, &atoms);
    }
    rt_buf_fini(&in);
}

static void references_outside_the_table_are_refused(void) {
    rt_atoms atoms = some_atoms();
    rt_scan s = {.depth_max = 100, .atoms = &atoms};
    CHECK_INT(rt_term_scan((const uint8_t *)"R\x13", 2, &s), 2);
    CHECK_INT(rt_term_scan((const uint8_t *)"R\x14", 2, &s), RT_EBAD);
    CHECK_INT(rt_term_scan((const uint8_t *)"XR\x14\0\0\0\0\0\0\0\0\0\0\0\0", 15, &s), RT_EBAD);
    CHECK_INT(rt_term_scan((const uint8_t *)"R", 1, &s), RT_AGAIN);
}

/* A term with references, cut and changed: whatever still passes the scan
 * expands to a term that passes it too, as long as the scan said. */
static void changed_and_cut_terms_stay_consistent(void) {
    rt_atoms atoms = some_atoms();
    rt_buf in = RT_BUF_INIT;
    put_fun(&in, &atoms, true, 3);
    for (size_t n = 0; n < in.n; n++) {
        unsigned char *p = check_copy(in.p, n);
        rt_scan s = {.depth_max = 100, .atoms = &atoms};
        CHECK_INT(rt_term_scan(p, n, &s), RT_AGAIN);
        CHECK_INT(rt_term_skip(p, n), RT_EBAD);
        free(p);
    }
    for (size_t i = 0; i < in.n * 256; i++) {
        unsigned char *p = check_copy(in.p, in.n);
        rt_scan s = {.depth_max = 100, .atoms = &atoms}, again = {.depth_max = 100};
        int64_t rc;
        p[i / 256] = (uint8_t)i;
        rc = rt_term_scan(p, in.n, &s);
        if (rc > 0) {
            rt_buf out = RT_BUF_INIT;
            CHECK_INT(rt_term_expand(&out, p, (size_t)rc, &atoms), RT_OK);
            CHECK_INT(out.n, s.expanded_bytes);
            CHECK_INT(rt_term_scan(out.p, out.n, &again), out.n);
            rt_buf_fini(&out);
        }
        free(p);
    }
    rt_buf_fini(&in);
}

static void without_memory_nothing_is_written(void) {
    rt_atoms atoms = some_atoms();
    rt_buf in = RT_BUF_INIT;
    int failures = 0;
    put_everything(&in, &atoms, true);
    for (long i = 0; i < 1000; i++) {
        rt_buf out = RT_BUF_INIT;
        int rc;
        rt_alloc_fail_after(i);
        rc = rt_term_expand(&out, in.p, in.n, &atoms);
        rt_alloc_fail_after(-1);
        if (rc < 0) {
            CHECK_INT(rc, RT_ENOMEM);
            CHECK_INT(out.n, 0);
            failures++;
        }
        rt_buf_fini(&out);
        if (rc == RT_OK) break;
    }
    CHECK(failures >= 5 && failures < 100);
    rt_buf_fini(&in);
}

static void a_term_that_goes_on_is_not_the_whole(void) {
    rt_atoms none = {.count = 0};
    rt_buf out = RT_BUF_INIT;
    CHECK_INT(rt_term_expand(&out, (const uint8_t *)"jj", 2, &none), RT_EBAD);
    CHECK_INT(rt_term_expand(&out, (const uint8_t *)"h\2j", 3, &none), RT_EBAD);
    CHECK_INT(rt_term_expand(&out, (const uint8_t *)"R\0", 2, &none), RT_EBAD);
    CHECK_INT(out.n, 0);
    rt_buf_fini(&out);
}

TESTS(references_become_atoms, a_scanned_term_expands_the_same,
      references_outside_the_table_are_refused, changed_and_cut_terms_stay_consistent,
      without_memory_nothing_is_written, a_term_that_goes_on_is_not_the_whole)
