#include "base/alloc.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "base/atomic.h"

#ifdef RT_TEST_ALLOC

/* The only globals of the core, and only in test builds. Relaxed order is
 * enough: they count, they publish nothing. */
static atomic_long fail_after = -1;
static atomic_long live;

void rt_alloc_fail_after(long n) { atomic_store_explicit(&fail_after, n, memory_order_relaxed); }
long rt_alloc_live(void) { return atomic_load_explicit(&live, memory_order_relaxed); }

static bool must_fail(void) {
    long left = atomic_load_explicit(&fail_after, memory_order_relaxed);
    while (left >= 0) {
        if (atomic_compare_exchange_weak_explicit(&fail_after, &left, left - 1,
                                                  memory_order_relaxed, memory_order_relaxed))
            return left == 0;
    }
    return false;
}

static void *counted(void *p) {
    if (p) atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
    return p;
}

static void uncount(void) { atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed); }

#else

RT_INLINE bool must_fail(void) { return false; }
RT_INLINE void *counted(void *p) { return p; }
RT_INLINE void uncount(void) {}

#endif

void rt_alloc_accustom(void) {
    void *volatile p = malloc(RT_ALLOC_LARGE_BYTES); /* volatile: a compiler would leave it out */
    free(p);
}

void *rt_malloc(size_t n) {
    if (must_fail()) return NULL;
    return counted(malloc(n ? n : 1));
}

void *rt_calloc(size_t count, size_t size) {
    size_t total;
    if (__builtin_mul_overflow(count, size, &total)) return NULL;
    if (must_fail()) return NULL;
    return counted(calloc(1, total ? total : 1));
}

void *rt_realloc(void *p, size_t n) {
    if (!p) return rt_malloc(n);
    if (must_fail()) return NULL;
    return realloc(p, n ? n : 1); /* the count stays: one block before and after */
}

void *rt_aligned(size_t align, size_t n) {
    void *p = NULL;
    RT_ASSERT(align >= sizeof(void *) && (align & (align - 1)) == 0);
    if (must_fail()) return NULL;
    if (posix_memalign(&p, align, n ? n : 1) != 0) return NULL;
    return counted(p);
}

void rt_free(void *p) {
    if (!p) return;
    uncount();
    free(p);
}

void *rt_pages(size_t n) {
    void *p;
    if (must_fail()) return NULL;
    p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return counted(p == MAP_FAILED ? NULL : p);
}

void rt_pages_free(void *p, size_t n) {
    if (!p) return;
    uncount();
    munmap(p, n);
}

bool rt_pages_drop(void *p, size_t n) { return madvise(p, n, MADV_DONTNEED) == 0; }
