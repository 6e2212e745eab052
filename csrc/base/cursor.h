/* Purpose: the only way bytes become integers: a bounded read position.
 * Threads: none. Errors: a read past the end returns false and moves nothing. */
#ifndef RT_BASE_CURSOR_H
#define RT_BASE_CURSOR_H

#include "base/base.h"

typedef struct rt_cursor {
    const uint8_t *p;
    const uint8_t *end;
} rt_cursor;

RT_INLINE rt_cursor rt_cursor_of(const void *p, size_t n) {
    rt_cursor c = {(const uint8_t *)p, (const uint8_t *)p + n};
    return c;
}
RT_INLINE size_t rt_cursor_left(const rt_cursor *c) { return (size_t)(c->end - c->p); }

RT_INLINE uint16_t rt_load_u16(const uint8_t *p) { return (uint16_t)((p[0] << 8) | p[1]); }
RT_INLINE uint32_t rt_load_u32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return rt_be32(v); }
RT_INLINE uint64_t rt_load_u64(const uint8_t *p) { uint64_t v; memcpy(&v, p, 8); return rt_be64(v); }

RT_INLINE bool rt_cursor_u8(rt_cursor *c, uint8_t *out) {
    if (RT_UNLIKELY(c->p >= c->end)) return false;
    *out = *c->p++;
    return true;
}
RT_INLINE bool rt_cursor_u16(rt_cursor *c, uint16_t *out) {
    if (RT_UNLIKELY(rt_cursor_left(c) < 2)) return false;
    *out = rt_load_u16(c->p); c->p += 2;
    return true;
}
RT_INLINE bool rt_cursor_u32(rt_cursor *c, uint32_t *out) {
    if (RT_UNLIKELY(rt_cursor_left(c) < 4)) return false;
    *out = rt_load_u32(c->p); c->p += 4;
    return true;
}
RT_INLINE bool rt_cursor_u64(rt_cursor *c, uint64_t *out) {
    if (RT_UNLIKELY(rt_cursor_left(c) < 8)) return false;
    *out = rt_load_u64(c->p); c->p += 8;
    return true;
}
/* Takes `n` bytes as a slice. */
RT_INLINE bool rt_cursor_take(rt_cursor *c, size_t n, rt_slice *out) {
    if (RT_UNLIKELY(rt_cursor_left(c) < n)) return false;
    out->p = c->p; out->n = n; c->p += n;
    return true;
}

#endif
