#include "check.h"

#include "base/outq.h"
#include "stress.h"

#define FULL RT_OUTQ_CHUNK_BYTES

static uint32_t chunks(const rt_outq *q) {
    uint32_t n = 0;
    for (const rt_outchunk *c = q->lane[RT_LANE_PROMPT].first; c; c = c->next) n++;
    return n;
}

/* Adds n bytes of one value. */
static int add(rt_outq *q, size_t n, uint8_t value) {
    uint8_t *p = rt_outq_add(q, n);
    if (!p) return RT_ENOMEM;
    memset(p, value, n);
    return RT_OK;
}

static void write_all(rt_outq *q) {
    struct iovec iov[8];
    while (q->bytes) {
        size_t n = 0;
        for (int k = rt_outq_snapshot(q, iov, 8, SIZE_MAX, RT_OUTQ_SLICE_MIN); k > 0; k--) n += iov[k - 1].iov_len;
        rt_outq_consume(q, n);
    }
}

static void test_written_chunks_serve_again(void) {
    rt_chunk_pool pool;
    rt_outq q;
    long before;
    CHECK_INT(rt_chunk_pool_init(&pool), RT_OK);
    CHECK_INT(rt_outq_init(&q, &pool), RT_OK);
    for (int i = 0; i < 3; i++) CHECK_INT(add(&q, FULL, 1), RT_OK);
    CHECK_INT(chunks(&q), 3);
    write_all(&q);
    CHECK_INT(pool.count, 3);
    before = rt_alloc_live();
    for (int i = 0; i < 3; i++) CHECK_INT(add(&q, FULL, 2), RT_OK);
    CHECK_INT(rt_alloc_live(), before);
    CHECK_INT(pool.count, 0);
    CHECK(q.lane[RT_LANE_PROMPT].first->data[0] == 2 && q.lane[RT_LANE_PROMPT].first->off == 0 && q.lane[RT_LANE_PROMPT].first->n == FULL);
    for (unsigned i = 0; i < 2 * RT_CHUNK_POOL_MAX; i++) CHECK_INT(add(&q, FULL, 3), RT_OK);
    write_all(&q);
    CHECK_INT(pool.count, RT_CHUNK_POOL_MAX); /* and no more */
    CHECK_INT(add(&q, 1, 4), RT_OK); /* a small one does not take a large one's place */
    CHECK_INT(pool.count, RT_CHUNK_POOL_MAX);
    CHECK_INT(add(&q, FULL + 1, 4), RT_OK);
    CHECK_INT(pool.count, RT_CHUNK_POOL_MAX);
    rt_outq_fini(&q);
    rt_chunk_pool_fini(&pool);
}

static void test_what_was_added_is_taken_back(void) {
    static const size_t first[] = {0, 10, 4096, FULL};
    static const size_t more[] = {1, 4000, FULL, 2 * FULL};
    rt_chunk_pool pool;
    CHECK_INT(rt_chunk_pool_init(&pool), RT_OK);
    for (int i = 0; i < 4; i++) {
        for (int j = 0; j < 4; j++) {
            rt_outq q;
            struct iovec iov[8];
            CHECK_INT(rt_outq_init(&q, &pool), RT_OK);
            if (first[i]) CHECK_INT(add(&q, first[i], 1), RT_OK);
            rt_outq_mark mark = rt_outq_here(&q, RT_LANE_PROMPT);
            for (int k = 0; k < 3; k++) CHECK_INT(add(&q, more[j], 2), RT_OK);
            rt_outq_undo(&q, RT_LANE_PROMPT, mark);
            CHECK_INT(q.bytes, first[i]);
            CHECK_INT(chunks(&q), first[i] ? 1 : 0);
            CHECK_INT(add(&q, 7, 3), RT_OK);
            size_t seen = 0;
            int n = rt_outq_snapshot(&q, iov, 8, SIZE_MAX, RT_OUTQ_SLICE_MIN);
            for (int k = 0; k < n; k++) {
                const uint8_t *p = iov[k].iov_base;
                for (size_t at = 0; at < iov[k].iov_len; at++, seen++)
                    if (p[at] != (seen < first[i] ? 1 : 3)) CHECK_INT(p[at], 0);
            }
            CHECK_INT(seen, first[i] + 7);
            rt_outq_fini(&q);
        }
    }
    rt_chunk_pool_fini(&pool);
}

static void test_no_memory(void) {
    rt_outq q;
    CHECK_INT(rt_outq_init(&q, NULL), RT_OK);
    rt_alloc_fail_after(0);
    CHECK(rt_outq_add(&q, 5) == NULL);
    CHECK_INT(q.bytes, 0);
    CHECK_INT(add(&q, 5, 1), RT_OK);
    rt_alloc_fail_after(0);
    CHECK(rt_outq_add(&q, FULL) == NULL);
    CHECK_INT(q.bytes, 5);
    rt_outq_fini(&q);
}

/* Frames of each lane hold their lane, number and length; what is written is read back. */
enum { PROMPT_MAX = 3000, BULK_MAX = RT_OUTQ_CHUNK_BYTES };

typedef struct wire {
    uint8_t head[8];
    size_t have, left;       /* of the head; of the frame behind it */
    uint8_t fill;
    uint32_t next[2];
    size_t bulk_since;       /* bytes of the bulk lane since a prompt frame began to wait */
} wire;

static void put_frame(rt_outq *q, enum rt_lane lane, uint32_t number, size_t n) {
    uint8_t *p = lane == RT_LANE_BULK ? rt_outq_add_bulk(q, n) : rt_outq_add(q, n);
    uint32_t size = (uint32_t)n;
    if (!CHECK(p != NULL)) return;
    memset(p, (int)(number * 7 + 1), n);
    p[0] = (uint8_t)lane;
    memcpy(p + 1, &number, 3);
    memcpy(p + 4, &size, 4);
}

static void read_wire(wire *w, const uint8_t *p, size_t n) {
    for (size_t at = 0; at < n;) {
        if (w->have < 8) {
            w->head[w->have++] = p[at++];
            if (w->have < 8) continue;
            uint32_t number = 0, size;
            memcpy(&number, w->head + 1, 3);
            memcpy(&size, w->head + 4, 4);
            CHECK_INT(number, w->next[w->head[0]]);
            w->next[w->head[0]] = number + 1;
            w->fill = (uint8_t)(number * 7 + 1);
            w->left = size - 8;
        }
        size_t part = n - at < w->left ? n - at : w->left;
        for (size_t i = 0; i < part; i++)
            if (p[at + i] != w->fill) CHECK_INT(p[at + i], w->fill);
        if (w->head[0] == RT_LANE_BULK) w->bulk_since += part;
        at += part;
        w->left -= part;
        if (w->left == 0) w->have = 0;
    }
}

static void test_lanes(void) {
    stress_random random = {11};
    rt_chunk_pool pool;
    rt_outq q;
    wire w = {0};
    uint32_t put[2] = {0}, passed = 0;
    CHECK_INT(rt_chunk_pool_init(&pool), RT_OK);
    CHECK_INT(rt_outq_init(&q, &pool), RT_OK);
    CHECK_INT(rt_outq_keys_ready(&q), RT_OK);
    for (int round = 0; round < 20000; round++) {
        enum rt_lane lane = stress_below(&random, 3) ? RT_LANE_PROMPT : RT_LANE_BULK;
        if (q.bytes < 4u << 20) {
            bool first = put[RT_LANE_PROMPT] == w.next[RT_LANE_PROMPT];
            size_t n = 8 + stress_below(&random, lane == RT_LANE_BULK ? BULK_MAX - 8 : PROMPT_MAX);
            put_frame(&q, lane, put[lane]++, n);
            if (lane == RT_LANE_BULK) rt_outq_key(&q, put[lane] % 256, 256 + put[lane] % 256);
            else if (first) w.bulk_since = 0;
        }
        if (stress_below(&random, 3)) continue;
        struct iovec iov[6];
        size_t most = stress_below(&random, 2) ? SIZE_MAX : 1 + stress_below(&random, 100000);
        bool bulk = stress_below(&random, 4) != 0;
        uint32_t before = w.next[RT_LANE_BULK];
        int k = rt_outq_snapshot(&q, iov, 1 + (int)stress_below(&random, 6), most, bulk ? RT_OUTQ_SLICE_MIN : 0);
        size_t planned = q.planned[0] + q.planned[1] + q.planned[2];
        size_t n = stress_below(&random, 3) ? planned
                                            : planned ? stress_below(&random, (uint32_t)planned) : 0;
        size_t left = n;
        for (int i = 0; i < k && left; i++) {
            size_t part = iov[i].iov_len < left ? iov[i].iov_len : left;
            read_wire(&w, iov[i].iov_base, part);
            left -= part;
        }
        CHECK_INT(left, 0);
        rt_outq_consume(&q, n);
        if (!bulk && w.next[RT_LANE_BULK] > before) CHECK(!"a bulk frame was begun");
        if (put[RT_LANE_PROMPT] > w.next[RT_LANE_PROMPT]) CHECK(w.bulk_since <= BULK_MAX);
        passed += put[RT_LANE_BULK] - w.next[RT_LANE_BULK] > 2 && q.planned[1] > 0;
        /* The begun frame is still waiting. */
        uint32_t waits = put[RT_LANE_BULK] - w.next[RT_LANE_BULK] + (w.have == 8 && w.head[0] == RT_LANE_BULK);
        uint32_t keys = 0;
        for (uint32_t i = 0; i < RT_OUTQ_KEYS; i++) keys += q.keys[i];
        CHECK_INT(keys, 2 * waits);
    }
    for (struct iovec iov[8]; q.bytes;) {
        size_t n = 0;
        int k = rt_outq_snapshot(&q, iov, 8, SIZE_MAX, RT_OUTQ_SLICE_MIN);
        for (int i = 0; i < k; n += iov[i++].iov_len) read_wire(&w, iov[i].iov_base, iov[i].iov_len);
        rt_outq_consume(&q, n);
    }
    CHECK_INT(w.next[RT_LANE_PROMPT], put[RT_LANE_PROMPT]);
    CHECK_INT(w.next[RT_LANE_BULK], put[RT_LANE_BULK]);
    CHECK_INT(q.bytes, 0);
    CHECK(passed > 100);
    rt_outq_fini(&q);
    rt_chunk_pool_fini(&pool);
}

static void test_a_begun_frame_is_ended_first(void) {
    rt_outq q;
    struct iovec iov[8];
    CHECK_INT(rt_outq_init(&q, NULL), RT_OK);
    for (uint32_t i = 0; i < 4; i++) put_frame(&q, RT_LANE_BULK, i, 60000);
    CHECK_INT(rt_outq_snapshot(&q, iov, 8, SIZE_MAX, RT_OUTQ_SLICE_MIN), 3); /* the slice ends with a frame */
    rt_outq_consume(&q, 70000);
    put_frame(&q, RT_LANE_PROMPT, 0, 100);
    CHECK_INT(rt_outq_snapshot(&q, iov, 8, SIZE_MAX, RT_OUTQ_SLICE_MIN), 4);
    CHECK_INT(iov[0].iov_len, 50000);
    CHECK_INT(iov[1].iov_len, 100);
    CHECK_INT(iov[2].iov_len, 60000);
    CHECK_INT(rt_outq_snapshot(&q, iov, 8, SIZE_MAX, 0), 2);
    CHECK_INT(rt_outq_snapshot(&q, iov, 8, 20000, RT_OUTQ_SLICE_MIN), 1);   /* not even that frame */
    CHECK_INT(iov[0].iov_len, 20000);
    rt_outq_consume(&q, 20000);
    CHECK_INT(rt_outq_snapshot(&q, iov, 8, SIZE_MAX, 0), 2);
    CHECK_INT(iov[0].iov_len, 30000);
    rt_outq_consume(&q, 30100);
    CHECK_INT(rt_outq_snapshot(&q, iov, 8, SIZE_MAX, 0), 0);
    rt_outchunk *rest = rt_outq_take(&q);
    size_t left = 0;
    for (const rt_outchunk *c = rest; c; c = c->next) left += c->n - c->off;
    CHECK_INT(left, 120000);
    CHECK_INT(q.bytes, 0);
    rt_outchunk_free(rest);
    rt_outq_fini(&q);
}

static void test_bulk_is_taken_back(void) {
    rt_outq q;
    CHECK_INT(rt_outq_init(&q, NULL), RT_OK);
    CHECK_INT(rt_outq_keys_ready(&q), RT_OK);
    for (int had = 0; had < 2; had++) {
        if (had) put_frame(&q, RT_LANE_BULK, 0, 5000);
        rt_outq_mark mark = rt_outq_here(&q, RT_LANE_BULK);
        put_frame(&q, RT_LANE_BULK, 1, 100);
        put_frame(&q, RT_LANE_BULK, 2, 70000);
        rt_outq_undo(&q, RT_LANE_BULK, mark);
        CHECK_INT(q.bytes, had ? 5000 : 0);
        CHECK(rt_outq_bulk(&q) == (had == 1));
    }
    rt_alloc_fail_after(0);
    CHECK(rt_outq_add_bulk(&q, 10) == NULL);
    rt_alloc_fail_after(-1);
    CHECK_INT(q.bytes, 5000);
    rt_outq_fini(&q);
}

TESTS(test_written_chunks_serve_again, test_what_was_added_is_taken_back, test_no_memory,
      test_lanes, test_a_begun_frame_is_ended_first, test_bulk_is_taken_back)
