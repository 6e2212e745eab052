/* Who may still touch a slot whose segment gives its pages back: a reader, who then
 * finds either what was there (a tenant that has gone) or zeros, word by word, and both
 * are "nobody"; and a writer's compare-and-exchange that fails. Nobody adds to a slot
 * that is free, so nothing is lost with the pages. */
#include "proc/slots.h"

#include "base/alloc.h"

struct rt_slots_account {
    uint32_t first, last;            /* free slots that have been used; ids, 0: none */
    uint32_t fresh;                  /* slots below it have been used since the pages came */
    uint32_t taken;
    uint64_t next;                   /* the highest that put was told */
};

#define WORD_BITS 64u

static void bits_set(rt_slots_bits *b, uint32_t i) {
    b->word[i / WORD_BITS] |= 1ull << i % WORD_BITS;
    if (i / WORD_BITS < b->low) b->low = i / WORD_BITS;
}

static void bits_clear(rt_slots_bits *b, uint32_t i) {
    b->word[i / WORD_BITS] &= ~(1ull << i % WORD_BITS);
}

/* The lowest bit that is set among the first n. */
static bool bits_lowest(rt_slots_bits *b, uint32_t n, uint32_t *i) {
    uint32_t words = (n + WORD_BITS - 1) / WORD_BITS;
    while (b->low < words && !b->word[b->low]) b->low++;
    if (b->low >= words) return false;
    *i = b->low * WORD_BITS + (uint32_t)__builtin_ctzll(b->word[b->low]);
    return true;
}

int rt_slots_init(rt_slots *s, uint32_t max, uint32_t bytes, uint32_t link,
                  uint64_t give_back_below) {
    uint32_t segments = max / RT_SLOTS_SEGMENT + 1;      /* ids 0 .. max; 0 is never used */
    size_t words = (segments + WORD_BITS - 1) / WORD_BITS;
    size_t memory = segments * (sizeof s->segment[0] + sizeof s->account[0]) +
                    2 * words * sizeof(uint64_t);
    /* Pages, because a table for millions costs nothing until it has as many. */
    uint8_t *p = rt_pages(memory);
    if (!p) return RT_ENOMEM;
    *s = (rt_slots){.segments = segments, .max = max, .bytes = bytes, .link = link,
                    .give_back_below = give_back_below, .memory_bytes = memory};
    s->segment = (_Atomic(uint8_t *) *)(void *)p;
    s->account = (rt_slots_account *)(void *)(s->segment + segments);
    s->open.word = (uint64_t *)(void *)(s->account + segments);
    s->bare.word = s->open.word + words;
    return RT_OK;
}

static size_t segment_bytes(const rt_slots *s) { return (size_t)RT_SLOTS_SEGMENT * s->bytes; }

void rt_slots_fini(rt_slots *s) {
    for (uint32_t i = 0; i < s->made; i++)
        rt_pages_free(atomic_load_explicit(&s->segment[i], memory_order_relaxed), segment_bytes(s));
    rt_pages_free(s->segment, s->memory_bytes);
}

/* Where a segment's ids begin and end. */
static uint32_t first_of(uint32_t i) { return i ? i << RT_SLOTS_SEGMENT_BITS : 1; }

static uint32_t end_of(const rt_slots *s, uint32_t i) {
    uint32_t end = (i + 1) << RT_SLOTS_SEGMENT_BITS;
    return end <= s->max ? end : s->max + 1;
}

static _Atomic uint32_t *link_of(const rt_slots *s, uint32_t id) {
    return (_Atomic uint32_t *)(void *)((uint8_t *)rt_slots_at(s, id, s->bytes) + s->link);
}

/* Opens a segment without used slots: one that gave its pages back, or a new one. */
static int settle(rt_slots *s, uint32_t *i) {
    if (bits_lowest(&s->bare, s->made, i)) {
        bits_clear(&s->bare, *i);
    } else {
        uint8_t *p;
        if (s->made == s->segments || first_of(s->made) > s->max) return RT_ELIMIT;
        p = rt_pages(segment_bytes(s));
        if (!p) return RT_ENOMEM;
        *i = s->made++;
        /* Release: partner of the acquire in at. */
        atomic_store_explicit(&s->segment[*i], p, memory_order_release);
    }
    s->account[*i].fresh = first_of(*i);
    s->spare += end_of(s, *i) - first_of(*i);
    bits_set(&s->open, *i);
    return RT_OK;
}

int rt_slots_take(rt_slots *s, uint32_t *id, bool *fresh, uint64_t *from) {
    rt_slots_account *a;
    uint32_t i;
    if (!bits_lowest(&s->open, s->made, &i)) {
        int rc = settle(s, &i);
        if (rc < 0) return rc;
    }
    a = &s->account[i];
    *fresh = !a->first;
    *from = a->next;
    if (*fresh) {
        *id = a->fresh++;
    } else {
        *id = a->first;
        a->first = atomic_load_explicit(link_of(s, *id), memory_order_relaxed);
    }
    a->taken++;
    s->spare--;
    if (!a->first && a->fresh == end_of(s, i)) bits_clear(&s->open, i);
    return RT_OK;
}

static void give_back(rt_slots *s, uint32_t i) {
    rt_slots_account *a = &s->account[i];
    if (!rt_pages_drop(atomic_load_explicit(&s->segment[i], memory_order_relaxed),
                       segment_bytes(s)))
        return;
    s->spare -= end_of(s, i) - first_of(i);
    a->first = 0;
    a->fresh = 0;
    bits_clear(&s->open, i);
    bits_set(&s->bare, i);
}

void rt_slots_put(rt_slots *s, uint32_t id, uint64_t next) {
    uint32_t i = id >> RT_SLOTS_SEGMENT_BITS;
    rt_slots_account *a = &s->account[i];
    RT_ASSERT(a->taken > 0);
    /* Release, here and below: late readers acquire it. */
    atomic_store_explicit(link_of(s, id), 0, memory_order_release);
    if (a->first) atomic_store_explicit(link_of(s, a->last), id, memory_order_release);
    else a->first = id;
    a->last = id;
    if (next > a->next) a->next = next;
    a->taken--;
    s->spare++;
    bits_set(&s->open, i);
    /* One segment's worth stays at hand beside this one. */
    if (!a->taken && s->spare >= 2 * RT_SLOTS_SEGMENT && a->next < s->give_back_below)
        give_back(s, i);
}

uint32_t rt_slots_next(const rt_slots *s, uint32_t id) {
    id++;
    for (uint32_t i = id >> RT_SLOTS_SEGMENT_BITS; i < s->made; i++) {
        if (id < first_of(i)) id = first_of(i);
        if (id < s->account[i].fresh) return id;
    }
    return 0;
}
