/* Purpose: a growable run of bytes to write into.
 * Ownership: the buffer owns its memory; rt_buf_fini frees it.
 * Threads: none; one owner at a time.
 * Errors: reserve returns RT_ENOMEM and leaves the buffer as it was. */
#ifndef RT_BASE_BUF_H
#define RT_BASE_BUF_H

#include "base/base.h"

typedef struct rt_buf {
    uint8_t *p;
    size_t n;   /* bytes written */
    size_t cap;
} rt_buf;

#define RT_BUF_INIT {NULL, 0, 0}

int rt_buf_grow(rt_buf *b, size_t extra); /* slow path of reserve */
void rt_buf_fini(rt_buf *b);

/* Makes room for `extra` more bytes. */
RT_INLINE int rt_buf_reserve(rt_buf *b, size_t extra) {
    if (RT_LIKELY(b->cap - b->n >= extra)) return RT_OK;
    return rt_buf_grow(b, extra);
}
RT_INLINE int rt_buf_put(rt_buf *b, const void *p, size_t n) {
    if (RT_UNLIKELY(rt_buf_reserve(b, n) < 0)) return RT_ENOMEM;
    if (n) memcpy(b->p + b->n, p, n);
    b->n += n;
    return RT_OK;
}

RT_INLINE void rt_store_u16(uint8_t *p, uint16_t v) { p[0] = (uint8_t)(v >> 8); p[1] = (uint8_t)v; }
RT_INLINE void rt_store_u32(uint8_t *p, uint32_t v) { v = rt_be32(v); memcpy(p, &v, 4); }
RT_INLINE void rt_store_u64(uint8_t *p, uint64_t v) { v = rt_be64(v); memcpy(p, &v, 8); }

/* Unchecked: the caller has reserved. */
RT_INLINE void rt_buf_u8(rt_buf *b, uint8_t v) { RT_ASSERT(b->n < b->cap); b->p[b->n++] = v; }
RT_INLINE void rt_buf_u16(rt_buf *b, uint16_t v) { RT_ASSERT(b->cap - b->n >= 2); rt_store_u16(b->p + b->n, v); b->n += 2; }
RT_INLINE void rt_buf_u32(rt_buf *b, uint32_t v) { RT_ASSERT(b->cap - b->n >= 4); rt_store_u32(b->p + b->n, v); b->n += 4; }
RT_INLINE void rt_buf_u64(rt_buf *b, uint64_t v) { RT_ASSERT(b->cap - b->n >= 8); rt_store_u64(b->p + b->n, v); b->n += 8; }
RT_INLINE void rt_buf_raw(rt_buf *b, const void *p, size_t n) { RT_ASSERT(b->cap - b->n >= n); if (n) memcpy(b->p + b->n, p, n); b->n += n; }

#endif
