/* Why find is right: whereis, register and unregister act as if each happened at one
 * moment (tests/models/names.pml takes every step of them apart). A name comes and goes with
 * the store of its cell's stamp, after it has been linked and before it is unlinked. With
 * the stamp first, a reader who stands on the cell since its last use would find a name
 * that one who begins after it does not.
 *
 * Found: the stamp was odd and the same before and after the name and the pid
 * were read. Writers store every field of a cell with release after the stamp
 * became even, and readers load with acquire: whoever reads a field of a later
 * use also sees, in its last look at the stamp, that the stamp has moved on. So
 * the pair was a registered one when the first stamp was read.
 *
 * Not found: the walk ended with the END mark of its own bucket in a table that
 * is the current one, after the walk too (and by A4 was so all the time). Take a
 * name that was there all that time; its cell Y did not change. Reading the head,
 * Y was in front of the reader. Each step reads a link of some cell C:
 *   - C stays in the chain: Y stays in front (A3);
 *   - C has been dropped: its link still leads to what followed it when it was
 *     dropped, and that was in front of Y or Y itself, or had been dropped later
 *     than C. Links of dropped cells thus lead forward in time and make no circle;
 *   - C has been used again in this chain: it entered at the head, and everything
 *     that stayed is in front of the reader again;
 *   - C has been used again in another chain, or as the rest of a long name (its
 *     links stay as they were): the walk ends there with another mark, or comes
 *     back by another re-use at the head. Another mark: start again;
 *   - C's page has been given back: it reads as zeros, a cell that is no name and leads
 *     to cell 0, which no chain has. Start again. (A stamp that was read before is then
 *     0, or counts on from the highest of its segment: it has moved.)
 * So a walk that ends with its own mark has passed Y. The links of a table serve
 * again for the table after the next one; a reader of the older one that strays
 * into it sees at the end that its table is not the current one.
 *
 * Growth fills the next table a few cells per write, through the other link of
 * each cell; readers stay with the current one until the next one is complete. */
#include "proc/names.h"

#include "base/alloc.h"
#include "base/atomic.h"
#include "base/hash.h"
#include "base/limits.h"
#include "base/random.h"
#include "proc/slots.h"

#define WORDS 7u                      /* of a name in one cell */
#define CELL_NAME_BYTES (WORDS * 4u)
#define CELLS_PER_NAME_MAX ((RT_ATOM_BYTES_MAX + CELL_NAME_BYTES - 1) / CELL_NAME_BYTES)
#define END 0x80000000u               /* a chain's end: END | bucket */
#define BUCKETS_MIN 64u
#define BUCKETS_MAX (1u << 30)
#define SWEEP 64u                     /* cells moved by each write while growing */

_Static_assert(SWEEP > CELLS_PER_NAME_MAX, "growth overtakes the cells that are added meanwhile");

typedef struct cell {
    _Atomic uint32_t next[2];
    _Atomic uint64_t stamp;           /* uses << 16 | bytes of the name; uses is odd for a name */
    _Atomic uint64_t hash;
    _Atomic uint64_t pid;
    _Atomic uint32_t more;            /* the cell with the rest of the name; see slots.h */
    _Atomic uint32_t word[WORDS];     /* the name, zero-padded */
} cell;

_Static_assert(sizeof(cell) == 64, "a cell is a cache line");

typedef struct table {
    struct table *older;
    uint32_t mask;
    uint32_t set;                     /* which link of a cell */
    _Atomic uint32_t head[];
} table;

struct rt_names {
    _Atomic(table *) current;
    uint64_t seed;
    _Atomic uint64_t changes;
    /* Writers only. */
    table *growing;                   /* the next table, or NULL */
    uint32_t cursor;                  /* names up to this cell stand in `growing` too */
    uint32_t count, max;
    rt_slots cells;
};

#define USES_GIVE_BACK_BELOW (1ull << 46)
#define LIVE(stamp) (((stamp) >> 16) & 1)
#define NAME_BYTES(stamp) ((uint32_t)(stamp) & 0xffff)

/* An index comes from a link. */
RT_INLINE cell *cell_at(const rt_names *n, uint32_t i) {
    return rt_slots_at(&n->cells, i, sizeof(cell));
}

/* Loads by readers acquire, stores by writers release: partners of each other.
 * Writers' own loads could be relaxed; they use the same. */
#define GET(x) atomic_load_explicit(&(x), memory_order_acquire)
#define SET(x, v) atomic_store_explicit(&(x), (v), memory_order_release)

/* Where a reader may be overtaken by writers. A test puts their steps here. */
#ifndef RT_NAMES_PAUSE
#define RT_NAMES_PAUSE() ((void)0)
#endif

static table *table_new(uint32_t buckets, uint32_t set) {
    table *t = rt_malloc(sizeof *t + (size_t)buckets * sizeof t->head[0]);
    if (!t) return NULL;
    t->older = NULL;
    t->mask = buckets - 1;
    t->set = set;
    for (uint32_t i = 0; i < buckets; i++) atomic_init(&t->head[i], END | i);
    return t;
}

rt_names *rt_names_new(uint32_t names_max) {
    uint64_t cells = (uint64_t)names_max * CELLS_PER_NAME_MAX;
    rt_names *n = rt_calloc(1, sizeof *n);
    table *t = NULL;
    if (!n) return NULL;
    if (cells > END - 1) cells = END - 1;
    if (rt_slots_init(&n->cells, (uint32_t)cells, sizeof(cell), offsetof(cell, more),
                      USES_GIVE_BACK_BELOW) < 0)
        goto no_cells;
    t = table_new(BUCKETS_MIN, 0);
    if (!t || rt_random_u64(&n->seed) < 0) goto no_table;
    atomic_init(&n->current, t);
    n->max = names_max;
    return n;
no_table:
    rt_free(t);
    rt_slots_fini(&n->cells);
no_cells:
    rt_free(n);
    return NULL;
}

void rt_names_free(rt_names *n) {
    table *t;
    if (!n) return;
    rt_free(n->growing);
    t = atomic_load_explicit(&n->current, memory_order_relaxed);
    while (t) {
        table *older = t->older;
        rt_free(t);
        t = older;
    }
    rt_slots_fini(&n->cells);
    rt_free(n);
}

RT_INLINE uint32_t name_word(rt_slice name, size_t at) {
    const uint8_t *p = name.p + at;
    size_t left = name.n - at;
    uint32_t w;
    if (left >= 4) {
        memcpy(&w, p, 4);
        return w;
    }
    /* Not a memcpy of `left` bytes: reading the word back would wait for each of them. */
    w = (uint32_t)p[0] << 24;
    if (left > 1) w |= (uint32_t)p[1] << 16;
    if (left > 2) w |= (uint32_t)p[2] << 8;
    return rt_be32(w);
}

/* Compares the name in the cell; what is read may be of a later use, the caller
 * looks at the stamp again. */
static bool cell_is(const rt_names *n, const cell *c, rt_slice name) {
    size_t at = 0;
    for (;;) {
        uint32_t more;
        for (uint32_t i = 0; i < WORDS && at < name.n; i++, at += 4)
            if (GET(c->word[i]) != name_word(name, at)) return false;
        if (at >= name.n) return true;
        more = GET(c->more);
        if (!more) return false;
        c = cell_at(n, more);
    }
}

/* Looks a name up; the cell's number or 0, and its pid. */
static uint32_t find(const rt_names *n, rt_slice name, uint64_t hash, rt_pid *pid) {
    for (;;) {
        table *t = GET(n->current);
        uint32_t bucket = (uint32_t)hash & t->mask, i = GET(t->head[bucket]);
        bool moved = false;
        while (!(i & END) && !moved) {
            cell *c = cell_at(n, i);
            uint64_t stamp;
            RT_NAMES_PAUSE();
            stamp = GET(c->stamp);
            if (LIVE(stamp) && GET(c->hash) == hash && NAME_BYTES(stamp) == name.n &&
                cell_is(n, c, name)) {
                RT_NAMES_PAUSE();
                *pid = GET(c->pid);
                if (GET(c->stamp) == stamp) return i;
                moved = true;
            } else {
                i = GET(c->next[t->set]);
                moved = !i;           /* the cell's page has gone */
            }
        }
        if (!moved && i == (END | bucket) && GET(n->current) == t) return 0;
        rt_cpu_relax();
    }
}

static bool name_ok(rt_slice name) { return name.n > 0 && name.n <= RT_ATOM_BYTES_MAX; }

rt_pid rt_names_find(const rt_names *n, rt_slice name) {
    rt_pid pid;
    if (!name_ok(name)) return 0;
    return find(n, name, rt_hash_bytes(name.p, name.n, n->seed), &pid) ? pid : 0;
}

uint32_t rt_names_index(const rt_names *n, rt_slice name) {
    rt_pid pid;
    if (!name_ok(name)) return 0;
    return find(n, name, rt_hash_bytes(name.p, name.n, n->seed), &pid);
}

rt_pid rt_names_pid(const rt_names *n, uint32_t index) { return GET(cell_at(n, index)->pid); }

size_t rt_names_read(const rt_names *n, uint32_t index, rt_pid pid, uint8_t *out) {
    cell *first = cell_at(n, index), *c = first;
    uint64_t stamp = GET(first->stamp);
    size_t bytes = NAME_BYTES(stamp), at = 0;
    if (!LIVE(stamp) || GET(first->pid) != pid) return 0;
    RT_NAMES_PAUSE();
    for (;;) {
        uint32_t more;
        for (uint32_t i = 0; i < WORDS && at < bytes; i++, at += 4) {
            uint32_t w = GET(c->word[i]);
            memcpy(out + at, &w, bytes - at < 4 ? bytes - at : 4);
        }
        if (at >= bytes) break;
        more = GET(c->more);
        if (!more) return 0;          /* of a later use */
        c = cell_at(n, more);
    }
    return GET(first->stamp) == stamp ? bytes : 0;
}

/* A free cell, or 0 with *rc. */
static uint32_t cell_new(rt_names *n, int *rc) {
    uint64_t uses;
    uint32_t i;
    bool fresh;
    *rc = rt_slots_take(&n->cells, &i, &fresh, &uses);
    if (*rc < 0) return 0;
    if (fresh) SET(cell_at(n, i)->stamp, uses << 16);
    return i;
}

/* Puts a cell and the rest of its name among the free ones. */
static void cells_free(rt_names *n, uint32_t i) {
    while (i) {
        cell *c = cell_at(n, i);
        uint32_t more = GET(c->more);
        rt_slots_put(&n->cells, i, GET(c->stamp) >> 16);
        i = more;
    }
}

/* Writes the name into a row of new cells; the first one's number or 0 with *rc. */
static uint32_t cells_fill(rt_names *n, rt_slice name, int *rc) {
    uint32_t first = 0, before = 0;
    for (size_t at = 0; at < name.n;) {
        uint32_t i = cell_new(n, rc);
        cell *c;
        if (!i) {
            cells_free(n, first);
            return 0;
        }
        c = cell_at(n, i);
        SET(c->more, 0);
        for (uint32_t w = 0; w < WORDS; w++, at += 4)
            SET(c->word[w], at < name.n ? name_word(name, at) : 0);
        if (before) SET(cell_at(n, before)->more, i);
        else first = i;
        before = i;
    }
    return first;
}

static void link_into(table *t, cell *c, uint32_t i) {
    _Atomic uint32_t *head = &t->head[(uint32_t)GET(c->hash) & t->mask];
    SET(c->next[t->set], GET(*head));
    SET(*head, i);
}

static void unlink_from(const rt_names *n, table *t, cell *c, uint32_t i) {
    _Atomic uint32_t *at = &t->head[(uint32_t)GET(c->hash) & t->mask];
    uint32_t on;
    while ((on = GET(*at)) != i) {
        RT_ASSERT(!(on & END));
        at = &cell_at(n, on)->next[t->set];
    }
    SET(*at, GET(c->next[t->set]));   /* the cell keeps its own link for who stands on it */
}

/* Moves the growth on; publishes the next table when it is complete. */
static void grow(rt_names *n) {
    table *t = atomic_load_explicit(&n->current, memory_order_relaxed);
    if (!n->growing) {
        if (n->count <= t->mask || t->mask + 1 >= BUCKETS_MAX) return;
        n->growing = table_new((t->mask + 1) * 2, !t->set);
        if (!n->growing) return;      /* longer chains until memory is there again */
        n->cursor = 0;
    }
    for (uint32_t k = 0; k < SWEEP; k++) {
        uint32_t i = rt_slots_next(&n->cells, n->cursor);
        cell *c;
        if (!i) goto complete;
        c = cell_at(n, i);
        if (LIVE(GET(c->stamp))) link_into(n->growing, c, i);
        n->cursor = i;
    }
    return;
complete:
    n->growing->older = t;
    SET(n->current, n->growing);
    n->growing = NULL;
}

/* After the change can be seen by find: whoever reads the old number before find may
 * have found the old state, and sees the number move; who reads the new one finds the
 * new state. */
static void changed(rt_names *n) { SET(n->changes, GET(n->changes) + 1); }

uint64_t rt_names_changes(const rt_names *n) { return GET(((rt_names *)n)->changes); }

int rt_names_put(rt_names *n, rt_slice name, rt_pid pid, uint32_t *index) {
    uint64_t hash, stamp;
    uint32_t i;
    rt_pid other;
    cell *c;
    int rc;
    if (!name_ok(name)) return RT_EINVAL;
    hash = rt_hash_bytes(name.p, name.n, n->seed);
    if (find(n, name, hash, &other)) return RT_EEXIST;
    if (n->count >= n->max) return RT_ELIMIT;
    i = cells_fill(n, name, &rc);
    if (!i) return rc;
    c = cell_at(n, i);
    SET(c->hash, hash);
    SET(c->pid, pid);
    stamp = GET(c->stamp) >> 16;
    link_into(atomic_load_explicit(&n->current, memory_order_relaxed), c, i);
    if (n->growing && i <= n->cursor) link_into(n->growing, c, i);
    SET(c->stamp, (stamp + 1) << 16 | name.n);   /* odd: a name, for every reader at once */
    n->count++;
    changed(n);
    grow(n);
    *index = i;
    return RT_OK;
}

void rt_names_drop(rt_names *n, uint32_t index) {
    cell *c = cell_at(n, index);
    uint64_t uses = GET(c->stamp) >> 16;
    RT_ASSERT(uses & 1);
    SET(c->stamp, (uses + 1) << 16);  /* even: no name any more, and no field is written before */
    unlink_from(n, atomic_load_explicit(&n->current, memory_order_relaxed), c, index);
    if (n->growing && index <= n->cursor) unlink_from(n, n->growing, c, index);
    changed(n);
    cells_free(n, index);
    n->count--;
    if (n->growing) grow(n);
}

void rt_names_each(const rt_names *n, void (*f)(void *arg, rt_slice name, rt_pid pid), void *arg) {
    uint8_t name[RT_ATOM_BYTES_MAX];
    for (uint32_t i = 0; (i = rt_slots_next(&n->cells, i));) {
        cell *c = cell_at(n, i);
        rt_pid pid = GET(c->pid);
        size_t bytes = LIVE(GET(c->stamp)) ? rt_names_read(n, i, pid, name) : 0;
        if (bytes) f(arg, rt_slice_of(name, bytes), pid);
    }
}

uint32_t rt_names_count(const rt_names *n) { return n->count; }
