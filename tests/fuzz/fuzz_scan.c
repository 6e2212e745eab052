/* Terms: what the scan accepts, skip and expand agree with.
 * Input: options, then one term. */
#include "fuzz.h"

#include "term/ident.h"
#include "term/scan.h"
#include "term/tags.h"

enum { ATOMS = 1, SHALLOW = 2, DEEP = 5000 };

static void known_atoms(rt_atoms *atoms) {
    static char wide[2 * 255];
    for (size_t i = 0; i < sizeof wide; i += 2) memcpy(wide + i, "\xc3\xa9", 2);
    atoms->count = 5;
    atoms->at[0] = TEXT("");
    atoms->at[1] = TEXT("ok");
    atoms->at[2] = TEXT("first@127.0.0.1");
    atoms->at[3] = TEXT("\xe2\x82\xac");
    atoms->at[4] = rt_slice_of(wide, sizeof wide);
}

/* Every reader either fails or moves forward within the input. */
static void readers(const uint8_t *p, size_t n) {
    rt_cursor c = rt_cursor_of(p, n);
    rt_pid_view pid;
    rt_ref_view ref;
    rt_slice name;
    bool latin1;
    int64_t i;
    uint32_t arity;
    if (rt_read_pid(&c, &pid) == RT_OK) HOLDS(c.p > p && c.p <= p + n && pid.node.n <= n);
    c = rt_cursor_of(p, n);
    if (rt_read_ref(&c, &ref) == RT_OK) HOLDS(c.p > p && ref.words <= RT_REF_WORDS_MAX);
    c = rt_cursor_of(p, n);
    if (rt_read_atom(&c, &name, &latin1) == RT_OK) HOLDS(name.p + name.n == c.p);
    c = rt_cursor_of(p, n);
    if (rt_read_i64(&c, &i) == RT_OK) HOLDS(c.p > p);
    c = rt_cursor_of(p, n);
    if (rt_read_tuple(&c, &arity) == RT_OK) HOLDS(c.p > p);
}

/* The canonical form of the canonical form is itself. */
static void canonical(const uint8_t *p, size_t n) {
    rt_buf once = RT_BUF_INIT, twice = RT_BUF_INIT;
    rt_cursor c = rt_cursor_of(p, n);
    if (rt_put_canonical(&once, &c) == RT_OK) {
        c = rt_cursor_of(once.p, once.n);
        HOLDS(rt_put_canonical(&twice, &c) == RT_OK && rt_cursor_left(&c) == 0);
        HOLDS(rt_slice_eq(rt_slice_of(once.p, once.n), rt_slice_of(twice.p, twice.n)));
    }
    rt_buf_fini(&once);
    rt_buf_fini(&twice);
}

static void accepted(const uint8_t *p, size_t n, const rt_scan *scan) {
    rt_scan again = {.depth_max = scan->depth_max, .atoms = scan->atoms};
    rt_buf plain = RT_BUF_INIT, scanned = RT_BUF_INIT;
    HOLDS(rt_term_skip(p, n) == (int64_t)n);
    HOLDS(rt_term_expand(&plain, p, n, scan->atoms) == RT_OK);
    HOLDS(rt_term_expand_scanned(&scanned, p, n, scan) == RT_OK);
    HOLDS(rt_slice_eq(rt_slice_of(scanned.p, scanned.n), rt_slice_of(plain.p, plain.n)));
    rt_buf_fini(&scanned);
    HOLDS(plain.n == scan->expanded_bytes);
    if (scan->cache_refs == 0) HOLDS(rt_slice_eq(rt_slice_of(plain.p, plain.n), rt_slice_of(p, n)));
    again.atoms = NULL;
    HOLDS(rt_term_scan(plain.p, plain.n, &again) == (int64_t)plain.n);
    HOLDS(again.cache_refs == 0 && again.expanded_bytes == plain.n);
    HOLDS(again.compressed == scan->compressed);
    rt_buf_fini(&plain);
}

/* A term cut anywhere is an unfinished one. */
static void cut(const uint8_t *p, size_t n, const rt_scan *scan) {
    rt_scan part = {.depth_max = scan->depth_max, .atoms = scan->atoms};
    if (scan->compressed) return;
    for (size_t at = 0; at < n; at += 1 + n / 16) {
        uint8_t *copy = exact_copy(rt_slice_of(p, at));
        HOLDS(rt_term_scan(copy, at, &part) == RT_AGAIN);
        free(copy);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    rt_cursor c = rt_cursor_of(data, size);
    uint8_t options = take_u8(&c);
    rt_atoms atoms;
    rt_scan scan = {.depth_max = options & SHALLOW ? 3 : DEEP};
    long before = rt_alloc_live();
    known_atoms(&atoms);
    if (options & ATOMS) scan.atoms = &atoms;
    size_t n = rt_cursor_left(&c);
    uint8_t *p = exact_copy(rt_slice_of(c.p, n));
    int64_t used = rt_term_scan(p, n, &scan);
    if (used > 0) {
        HOLDS((size_t)used <= n);
        accepted(p, (size_t)used, &scan);
        cut(p, (size_t)used, &scan);
    } else {
        HOLDS(used < 0 && scan.error_offset <= n);
    }
    readers(p, n);
    canonical(p, n);
    free(p);
    nothing_left(before);
    return 0;
}
