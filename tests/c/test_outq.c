#include "check.h"

#include "base/outq.h"

#define FULL RT_OUTQ_CHUNK_BYTES

static uint32_t chunks(const rt_outq *q) {
    uint32_t n = 0;
    for (const rt_outchunk *c = q->first; c; c = c->next) n++;
    return n;
}

/* Adds n bytes of one value. */
static int add(rt_outq *q, size_t n, uint8_t value) {
    uint8_t *p = rt_outq_add(q, n);
    if (!p) return RT_ENOMEM;
    memset(p, value, n);
    return RT_OK;
}

static void test_written_chunks_serve_again(void) {
    rt_chunk_pool pool;
    rt_outq q;
    long before;
    CHECK_INT(rt_chunk_pool_init(&pool), RT_OK);
    CHECK_INT(rt_outq_init(&q, &pool), RT_OK);
    for (int i = 0; i < 3; i++) CHECK_INT(add(&q, FULL, 1), RT_OK);
    CHECK_INT(chunks(&q), 3);
    rt_outq_consume(&q, q.bytes);
    CHECK_INT(pool.count, 3);
    before = rt_alloc_live();
    for (int i = 0; i < 3; i++) CHECK_INT(add(&q, FULL, 2), RT_OK);
    CHECK_INT(rt_alloc_live(), before);
    CHECK_INT(pool.count, 0);
    CHECK(q.first->data[0] == 2 && q.first->off == 0 && q.first->n == FULL);
    for (unsigned i = 0; i < 2 * RT_CHUNK_POOL_MAX; i++) CHECK_INT(add(&q, FULL, 3), RT_OK);
    rt_outq_consume(&q, q.bytes);
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
            rt_outq_mark mark = rt_outq_here(&q);
            for (int k = 0; k < 3; k++) CHECK_INT(add(&q, more[j], 2), RT_OK);
            rt_outq_undo(&q, mark);
            CHECK_INT(q.bytes, first[i]);
            CHECK_INT(chunks(&q), first[i] ? 1 : 0);
            CHECK_INT(add(&q, 7, 3), RT_OK);
            size_t seen = 0;
            int n = rt_outq_snapshot(&q, iov, 8, SIZE_MAX);
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

TESTS(test_written_chunks_serve_again, test_what_was_added_is_taken_back, test_no_memory)
