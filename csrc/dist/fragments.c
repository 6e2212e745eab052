/* Sequences hang in a small table that is made with the first of them, so
 * that a connection which never sees a fragment pays a few words. The chains
 * are as long as the limit on sequences allows and no longer. */
#include "dist/fragments.h"

#include "base/alloc.h"
#include "base/hash.h"

enum { BUCKETS = 64 };

typedef struct sequence {
    struct sequence *next;
    uint64_t id;
    uint64_t due;     /* the fragment that comes next */
    size_t pooled;    /* bytes of the pool's memory that it has been given */
    rt_buf control;
    rt_buf payload;
    rt_buf atoms;     /* 8-bit count; each: 16-bit length, bytes */
} sequence;

struct rt_fragments {
    sequence **bucket; /* NULL, or BUCKETS chains */
    uint32_t depth_max, in_flight_max, in_flight;
    size_t message_bytes_max, held, pooled;
    rt_pool *pool;
};

rt_fragments *rt_fragments_new(uint32_t in_flight_max, size_t message_bytes_max,
                               uint32_t depth_max, rt_pool *pool) {
    rt_fragments *f = rt_calloc(1, sizeof *f);
    if (!f) return NULL;
    f->depth_max = depth_max;
    f->in_flight_max = in_flight_max;
    f->message_bytes_max = message_bytes_max;
    f->pool = pool;
    return f;
}

static size_t bytes_of(const sequence *s) {
    size_t payload = s->payload.n ? s->payload.n - RT_FRAGMENTS_HEADROOM : 0;
    return s->control.n + payload + s->atoms.n;
}

static void sequence_fini(sequence *s) {
    rt_buf_fini(&s->control);
    rt_buf_fini(&s->payload);
    rt_buf_fini(&s->atoms);
}

void rt_fragments_free(rt_fragments *f) {
    if (!f) return;
    for (unsigned i = 0; f->bucket && i < BUCKETS; i++) {
        while (f->bucket[i]) {
            sequence *s = f->bucket[i];
            f->bucket[i] = s->next;
            sequence_fini(s);
            rt_free(s);
        }
    }
    rt_free(f->bucket);
    rt_free(f);
}

size_t rt_fragments_held(const rt_fragments *f) { return f->held; }

uint32_t rt_fragments_in_flight(const rt_fragments *f) { return f->in_flight; }

void rt_assembled_fini(rt_assembled *a) {
    rt_buf_fini(&a->control);
    rt_buf_fini(&a->payload);
    rt_buf_fini(&a->atom_bytes);
    a->atoms.count = 0;
}

/* The link that points at the sequence, or where it would hang. */
static sequence **find(const rt_fragments *f, uint64_t id) {
    sequence **link = &f->bucket[rt_hash_u64(id) % BUCKETS];
    while (*link && (*link)->id != id) link = &(*link)->next;
    return link;
}

static int pack_atoms(rt_buf *out, const rt_atoms *atoms) {
    size_t total = 1;
    for (uint32_t i = 0; i < atoms->count; i++) total += 2 + atoms->at[i].n;
    if (rt_buf_reserve(out, total) < 0) return RT_ENOMEM;
    rt_buf_u8(out, (uint8_t)atoms->count);
    for (uint32_t i = 0; i < atoms->count; i++) {
        rt_buf_u16(out, (uint16_t)atoms->at[i].n);
        rt_buf_raw(out, atoms->at[i].p, atoms->at[i].n);
    }
    return RT_OK;
}

/* The reverse, over bytes that pack_atoms wrote. */
static void unpack_atoms(const rt_buf *packed, rt_atoms *atoms) {
    const uint8_t *p = packed->p + 1;
    atoms->count = packed->p[0];
    for (uint32_t i = 0; i < atoms->count; i++) {
        size_t n = rt_load_u16(p);
        atoms->at[i] = rt_slice_of(p + 2, n);
        p += 2 + n;
    }
}

/* Memory from the pool for a payload that begins with n bytes, if the fragments to come are as
 * long as it, the last one aside; it grows when they are not. */
static void payload_from_pool(rt_fragments *f, const rt_frame *frame, size_t n, sequence *s) {
    rt_buf *b = &s->payload;
    size_t most = RT_POOL_BYTES_MAX / (n + 1);
    if (!f->pool || frame->fragment < 2 || frame->fragment > most) return;
    size_t least = RT_FRAGMENTS_HEADROOM + ((size_t)frame->fragment - 1) * n + 1;
    b->p = rt_pool_take(f->pool, least, &b->cap);
    if (!b->p) return;
    /* What is claimed may never come: a quarter of the limit is there for such memory. */
    if (b->cap > f->message_bytes_max / 4 - f->pooled) {
        rt_pool_give(f->pool, b->p, b->cap);
        *b = (rt_buf)RT_BUF_INIT;
        return;
    }
    s->pooled = b->cap;
    f->pooled += b->cap;
}

/* Takes what a first fragment holds: the whole control tuple and the whole
 * atom section, by the protocol. */
static int fill_first(rt_fragments *f, const rt_frame *frame, sequence *s) {
    rt_scan scan = {.depth_max = f->depth_max, .atoms = &frame->atoms};
    const uint8_t *p = frame->body.p;
    int64_t n = rt_term_scan(p, frame->body.n, &scan);
    int rc;
    if (n < 0) return n == RT_AGAIN ? RT_EBAD : (int)n;
    rc = scan.cache_refs ? rt_term_expand_scanned(&s->control, p, (size_t)n, &scan)
                         : rt_buf_put(&s->control, p, (size_t)n);
    if (rc < 0) return rc;
    payload_from_pool(f, frame, frame->body.n - (size_t)n, s);
    rc = rt_buf_reserve(&s->payload, RT_FRAGMENTS_HEADROOM + frame->body.n - (size_t)n);
    if (rc < 0) return rc;
    s->payload.n = RT_FRAGMENTS_HEADROOM;
    rt_buf_raw(&s->payload, p + n, frame->body.n - (size_t)n);
    rc = pack_atoms(&s->atoms, &frame->atoms);
    if (rc < 0) return rc;
    return bytes_of(s) > f->message_bytes_max ? RT_ELIMIT : RT_OK;
}

static void hand_over(sequence *s, rt_assembled *out) {
    out->control = s->control;
    out->payload = s->payload;
    out->atom_bytes = s->atoms;
    unpack_atoms(&s->atoms, &out->atoms);
}

static int feed_first(rt_fragments *f, const rt_frame *frame, rt_assembled *out) {
    sequence fresh = {.id = frame->sequence, .due = frame->fragment - 1}, *kept;
    int rc;
    if (!f->bucket) {
        f->bucket = rt_calloc(BUCKETS, sizeof *f->bucket);
        if (!f->bucket) return RT_ENOMEM;
    }
    if (*find(f, frame->sequence)) return RT_EBAD;
    if (fresh.due > 0 && f->in_flight >= f->in_flight_max) return RT_ELIMIT;
    rc = fill_first(f, frame, &fresh);
    if (rc < 0) goto fail;
    if (fresh.due == 0) {
        hand_over(&fresh, out);
        return 1;
    }
    kept = rt_malloc(sizeof *kept);
    if (!kept) {
        rc = RT_ENOMEM;
        goto fail;
    }
    *kept = fresh;
    *find(f, fresh.id) = kept;
    f->in_flight++;
    f->held += bytes_of(kept);
    return 0;
fail:
    f->pooled -= fresh.pooled;
    sequence_fini(&fresh);
    return rc;
}

static int feed_next(rt_fragments *f, const rt_frame *frame, rt_assembled *out) {
    sequence **link, *s;
    if (!f->bucket) return RT_EBAD;
    link = find(f, frame->sequence);
    s = *link;
    if (!s || frame->fragment != s->due) return RT_EBAD;
    if (frame->body.n > f->message_bytes_max - bytes_of(s)) return RT_ELIMIT;
    if (rt_buf_put(&s->payload, frame->body.p, frame->body.n) < 0) return RT_ENOMEM;
    f->held += frame->body.n;
    s->due--;
    if (s->due > 0) return 0;
    *link = s->next;
    f->in_flight--;
    f->held -= bytes_of(s);
    f->pooled -= s->pooled;
    hand_over(s, out);
    rt_free(s);
    return 1;
}

int rt_fragments_feed(rt_fragments *f, const rt_frame *frame, rt_assembled *out) {
    RT_ASSERT(frame->kind == RT_FRAME_FRAG_FIRST || frame->kind == RT_FRAME_FRAG_NEXT);
    RT_ASSERT(frame->fragment > 0);
    return frame->kind == RT_FRAME_FRAG_FIRST ? feed_first(f, frame, out)
                                              : feed_next(f, frame, out);
}
