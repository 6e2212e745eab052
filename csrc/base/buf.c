#include "base/buf.h"

#include "base/alloc.h"

enum { BUF_BYTES_MIN = 64 };

int rt_buf_grow(rt_buf *b, size_t extra) {
    size_t need, cap;
    uint8_t *p;
    if (__builtin_add_overflow(b->n, extra, &need)) return RT_ENOMEM;
    if (need > SIZE_MAX / 2) return RT_ENOMEM;
    /* Doubling keeps appending linear; a big single need is met exactly. */
    cap = b->cap < BUF_BYTES_MIN / 2 ? BUF_BYTES_MIN : b->cap * 2;
    if (cap < need) cap = need;
    p = rt_realloc(b->p, cap);
    if (!p) return RT_ENOMEM;
    b->p = p;
    b->cap = cap;
    return RT_OK;
}

void rt_buf_fini(rt_buf *b) {
    rt_free(b->p);
    b->p = NULL;
    b->n = 0;
    b->cap = 0;
}
