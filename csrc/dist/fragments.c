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
    sequence *placing; /* gets placing_n bytes from elsewhere; in no bucket if they are its first */
    size_t placing_n;
    bool placing_first;
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

static void sequence_free(sequence *s) {
    sequence_fini(s);
    rt_free(s);
}

void rt_fragments_free(rt_fragments *f) {
    if (!f) return;
    if (f->placing && f->placing_first) sequence_free(f->placing);
    for (unsigned i = 0; f->bucket && i < BUCKETS; i++) {
        while (f->bucket[i]) {
            sequence *s = f->bucket[i];
            f->bucket[i] = s->next;
            sequence_free(s);
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

/* Memory from the pool for a payload of `count` fragments, if those to come are as long as the
 * first, which has n bytes, the last one aside; it grows when they are not. */
static void payload_from_pool(rt_fragments *f, uint64_t count, size_t n, sequence *s) {
    rt_buf *b = &s->payload;
    size_t most = RT_POOL_BYTES_MAX / (n + 1);
    if (!f->pool || count > most) return;
    size_t least = RT_FRAGMENTS_HEADROOM + (count > 1 ? ((size_t)count - 1) * n + 1 : n);
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
 * atom section, by the protocol. Makes room for the rest of its payload. */
static int fill_first(rt_fragments *f, const rt_frame *frame, size_t rest, sequence *s) {
    rt_scan scan = {.depth_max = f->depth_max, .atoms = &frame->atoms};
    const uint8_t *p = frame->body.p;
    int64_t n = rt_term_scan(p, frame->body.n, &scan);
    int rc;
    if (n < 0) return n == RT_AGAIN ? RT_EBAD : (int)n;
    rc = scan.cache_refs ? rt_term_expand_scanned(&s->control, p, (size_t)n, &scan)
                         : rt_buf_put(&s->control, p, (size_t)n);
    if (rc < 0) return rc;
    size_t have = frame->body.n - (size_t)n;
    if (frame->fragment > 1 || rest) payload_from_pool(f, frame->fragment, have + rest, s);
    rc = rt_buf_reserve(&s->payload, RT_FRAGMENTS_HEADROOM + have + rest);
    if (rc < 0) return rc;
    s->payload.n = RT_FRAGMENTS_HEADROOM;
    rt_buf_raw(&s->payload, p + n, have);
    rc = pack_atoms(&s->atoms, &frame->atoms);
    if (rc < 0) return rc;
    return bytes_of(s) + rest > f->message_bytes_max ? RT_ELIMIT : RT_OK;
}

/* A sequence with its first fragment, or a part of it; NULL when that may not be. */
static int new_sequence(rt_fragments *f, const rt_frame *frame, size_t rest, sequence **out) {
    uint64_t due = frame->fragment ? frame->fragment - 1 : 0;
    if (!f->bucket) {
        f->bucket = rt_calloc(BUCKETS, sizeof *f->bucket);
        if (!f->bucket) return RT_ENOMEM;
    }
    if (frame->fragment && *find(f, frame->sequence)) return RT_EBAD;
    if (due > 0 && f->in_flight >= f->in_flight_max) return RT_ELIMIT;
    sequence *s = rt_calloc(1, sizeof *s);
    if (!s) return RT_ENOMEM;
    s->id = frame->sequence;
    s->due = due;
    int rc = fill_first(f, frame, rest, s);
    if (rc < 0) {
        f->pooled -= s->pooled;
        sequence_free(s);
        return rc;
    }
    *out = s;
    return RT_OK;
}

static int hand_over(rt_fragments *f, sequence *s, rt_assembled *out) {
    f->pooled -= s->pooled;
    out->control = s->control;
    out->payload = s->payload;
    out->atom_bytes = s->atoms;
    unpack_atoms(&s->atoms, &out->atoms);
    rt_free(s);
    return 1;
}

/* Its first fragment is there. */
static int begun(rt_fragments *f, sequence *s, rt_assembled *out) {
    if (s->due == 0) return hand_over(f, s, out);
    *find(f, s->id) = s;
    f->in_flight++;
    f->held += bytes_of(s);
    return 0;
}

static int feed_first(rt_fragments *f, const rt_frame *frame, rt_assembled *out) {
    sequence *s;
    int rc = new_sequence(f, frame, 0, &s);
    return rc < 0 ? rc : begun(f, s, out);
}

/* The sequence that a next fragment of n bytes belongs to. */
static int find_next(const rt_fragments *f, const rt_frame *frame, size_t n, sequence **out) {
    sequence *s = f->bucket ? *find(f, frame->sequence) : NULL;
    if (!s || frame->fragment != s->due) return RT_EBAD;
    if (n > f->message_bytes_max - bytes_of(s)) return RT_ELIMIT;
    *out = s;
    return RT_OK;
}

/* A next fragment of n bytes is there. */
static int continued(rt_fragments *f, sequence *s, size_t n, rt_assembled *out) {
    f->held += n;
    s->due--;
    if (s->due > 0) return 0;
    *find(f, s->id) = s->next;
    f->in_flight--;
    f->held -= bytes_of(s);
    return hand_over(f, s, out);
}

static int feed_next(rt_fragments *f, const rt_frame *frame, rt_assembled *out) {
    sequence *s;
    int rc = find_next(f, frame, frame->body.n, &s);
    if (rc == RT_OK) rc = rt_buf_put(&s->payload, frame->body.p, frame->body.n);
    return rc < 0 ? rc : continued(f, s, frame->body.n, out);
}

int rt_fragments_feed(rt_fragments *f, const rt_frame *frame, rt_assembled *out) {
    RT_ASSERT(frame->kind == RT_FRAME_FRAG_FIRST || frame->kind == RT_FRAME_FRAG_NEXT);
    RT_ASSERT(frame->fragment > 0 && !f->placing);
    return frame->kind == RT_FRAME_FRAG_FIRST ? feed_first(f, frame, out)
                                              : feed_next(f, frame, out);
}

uint8_t *rt_fragments_place(rt_fragments *f, const rt_frame *frame, size_t rest) {
    sequence *s;
    size_t have = frame->body.n;
    RT_ASSERT(!f->placing);
    f->placing_first = frame->kind != RT_FRAME_FRAG_NEXT;
    if (f->placing_first) {
        if (new_sequence(f, frame, rest, &s) < 0) return NULL;
        f->placing_n = rest;
        have = 0; /* in the payload already */
    } else {
        if (find_next(f, frame, have + rest, &s) < 0) return NULL;
        if (rt_buf_reserve(&s->payload, have + rest) < 0) return NULL;
        memcpy(s->payload.p + s->payload.n, frame->body.p, have);
        f->placing_n = have + rest;
    }
    f->placing = s;
    return s->payload.p + s->payload.n + have;
}

int rt_fragments_placed(rt_fragments *f, rt_assembled *out) {
    sequence *s = f->placing;
    f->placing = NULL;
    s->payload.n += f->placing_n;
    return f->placing_first ? begun(f, s, out) : continued(f, s, f->placing_n, out);
}
