/* Purpose: what every file needs: fixed-width types, assertions, attributes. */
#ifndef RT_BASE_BASE_H
#define RT_BASE_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/err.h"

#define RT_CACHE_LINE 64
#define RT_INLINE static inline __attribute__((always_inline, unused))
/* A way that is seldom taken and would make the usual one save registers. */
#define RT_APART static __attribute__((noinline))
#define RT_LIKELY(x) __builtin_expect(!!(x), 1)
#define RT_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define RT_CONTAINER_OF(ptr, type, member) \
    ((type *)((char *)(ptr) - offsetof(type, member)))

/* RT_ASSERT states programmer errors; it is compiled out unless RT_DEBUG is
 * set and must never be reached by anything a peer sends. */
#ifdef RT_DEBUG
void rt_assert_fail(const char *expr, const char *file, int line) __attribute__((noreturn));
#define RT_ASSERT(x) ((x) ? (void)0 : rt_assert_fail(#x, __FILE__, __LINE__))
#else
#define RT_ASSERT(x) ((void)0)
#endif

/* Network byte order to and from the host's, both ways the same. */
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define rt_be32(v) (v)
#define rt_be64(v) (v)
#else
#define rt_be32(v) __builtin_bswap32(v)
#define rt_be64(v) __builtin_bswap64(v)
#endif

/* A borrowed run of bytes. */
typedef struct rt_slice {
    const uint8_t *p;
    size_t n;
} rt_slice;

RT_INLINE rt_slice rt_slice_of(const void *p, size_t n) {
    rt_slice s = {(const uint8_t *)p, n};
    return s;
}
RT_INLINE bool rt_slice_eq(rt_slice a, rt_slice b) {
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

#endif
