/* Purpose: every allocation of the core goes through here, so that tests can
 * make each one fail once (rt_alloc_fail_after) and count what is held.
 * Threads: any. */
#ifndef RT_BASE_ALLOC_H
#define RT_BASE_ALLOC_H

#include "base/base.h"

void *rt_malloc(size_t n);             /* NULL when memory is short; n may be 0 */
void *rt_calloc(size_t count, size_t size); /* checks the product */
void *rt_realloc(void *p, size_t n);
void *rt_aligned(size_t align, size_t n);   /* freed with rt_free */
void rt_free(void *p);

/* glibc gives free memory at the end of its heap back to the system as soon as it is 128 KiB, to take
 * it anew, page by page, for the next message. Once it has seen a large block freed, it keeps
 * twice as much as that block had; this frees one. */
#define RT_ALLOC_LARGE_BYTES (1u << 20)
void rt_alloc_accustom(void);

/* Whole pages of zeros that cost nothing before they are touched. */
void *rt_pages(size_t n);
void rt_pages_free(void *p, size_t n);
/* Gives the memory back and keeps the addresses, which read as zeros from now on. False
 * when the system will not (locked memory): then nothing has changed. */
bool rt_pages_drop(void *p, size_t n);

#ifdef RT_TEST_ALLOC
/* The n-th allocation from now fails (0: the next one); -1 switches it off. */
void rt_alloc_fail_after(long n);
/* Allocations not yet freed. */
long rt_alloc_live(void);
#endif

#endif
