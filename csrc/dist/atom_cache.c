/* An entry stays where it is until the call after the one that replaced it:
 * a header may overwrite a slot that an earlier reference of the same header
 * (or the atoms of the call before) still points at. */
#include "dist/atom_cache.h"

#include "base/alloc.h"
#include "base/limits.h"
#include "term/utf8.h"

enum { SEGMENTS = 8, SLOTS = 256 };

typedef struct entry {
    struct entry *next_dead;
    uint16_t n;
    uint8_t bytes[];
} entry;

struct rt_atom_cache {
    entry **segment[SEGMENTS]; /* NULL, or SLOTS pointers */
    entry *dead;               /* replaced by the last call */
    uint64_t changes;
};

/* One header being read. */
typedef struct reader {
    rt_cursor c;
    const uint8_t *flags;
    bool long_atoms;
} reader;

rt_atom_cache *rt_atom_cache_new(void) { return rt_calloc(1, sizeof(rt_atom_cache)); }

static void bury(rt_atom_cache *cache) {
    while (cache->dead) {
        entry *e = cache->dead;
        cache->dead = e->next_dead;
        rt_free(e);
    }
}

void rt_atom_cache_free(rt_atom_cache *cache) {
    if (!cache) return;
    bury(cache);
    for (unsigned s = 0; s < SEGMENTS; s++) {
        if (!cache->segment[s]) continue;
        for (unsigned i = 0; i < SLOTS; i++) rt_free(cache->segment[s][i]);
        rt_free(cache->segment[s]);
    }
    rt_free(cache);
}

static bool text_ok(rt_slice text) {
    int64_t chars;
    if (text.n > RT_ATOM_BYTES_MAX) return false;
    if (text.n <= RT_ATOM_CHARS_MAX && rt_ascii(text.p, text.n)) return true;
    chars = rt_utf8_chars(text.p, text.n);
    return chars >= 0 && chars <= RT_ATOM_CHARS_MAX;
}

static int read_new(rt_atom_cache *cache, reader *r, entry **slot) {
    rt_slice text;
    uint16_t n;
    uint8_t small;
    entry *e = *slot;
    if (r->long_atoms) {
        if (!rt_cursor_u16(&r->c, &n)) return RT_EBAD;
    } else {
        if (!rt_cursor_u8(&r->c, &small)) return RT_EBAD;
        n = small;
    }
    if (!rt_cursor_take(&r->c, n, &text)) return RT_EBAD;
    if (e && rt_slice_eq(rt_slice_of(e->bytes, e->n), text)) return RT_OK;
    if (!text_ok(text)) return RT_EBAD;
    e = rt_malloc(sizeof *e + text.n);
    if (!e) return RT_ENOMEM;
    e->n = n;
    if (text.n) memcpy(e->bytes, text.p, text.n);
    if (*slot) {
        (*slot)->next_dead = cache->dead;
        cache->dead = *slot;
    }
    *slot = e;
    cache->changes++;
    return RT_OK;
}

uint64_t rt_atom_cache_changes(const rt_atom_cache *cache) { return cache->changes; }

/* The nibble of reference i: the low half of a byte comes first. */
RT_INLINE unsigned nibble(const uint8_t *flags, unsigned i) {
    return (flags[i / 2] >> (4 * (i & 1))) & 15u;
}

static int read_ref(rt_atom_cache *cache, reader *r, unsigned i, rt_slice *out) {
    unsigned bits = nibble(r->flags, i), s = bits & 7;
    entry **slot;
    uint8_t index;
    if (!rt_cursor_u8(&r->c, &index)) return RT_EBAD;
    if (!cache->segment[s]) {
        if (!(bits & 8)) return RT_EBAD;
        cache->segment[s] = rt_calloc(SLOTS, sizeof(entry *));
        if (!cache->segment[s]) return RT_ENOMEM;
    }
    slot = &cache->segment[s][index];
    if (bits & 8) {
        int rc = read_new(cache, r, slot);
        if (rc < 0) return rc;
    } else if (!*slot) {
        return RT_EBAD;
    }
    *out = rt_slice_of((*slot)->bytes, (*slot)->n);
    return RT_OK;
}

int rt_atom_cache_read(rt_atom_cache *cache, rt_cursor *c, rt_atoms *atoms) {
    rt_slice at[255], flags;
    reader r = {*c, NULL, false};
    uint8_t count;
    bury(cache);
    if (!rt_cursor_u8(&r.c, &count)) return RT_EBAD;
    if (count > 0) {
        if (!rt_cursor_take(&r.c, (size_t)count / 2 + 1, &flags)) return RT_EBAD;
        r.flags = flags.p;
        r.long_atoms = nibble(flags.p, count) & 1;
        for (unsigned i = 0; i < count; i++) {
            int rc = read_ref(cache, &r, i, &at[i]);
            if (rc < 0) return rc;
        }
        memcpy(atoms->at, at, count * sizeof at[0]);
    }
    atoms->count = count;
    *c = r.c;
    return RT_OK;
}
