/* Purpose: unpredictable bytes from the kernel (getrandom). */
#ifndef RT_BASE_RANDOM_H
#define RT_BASE_RANDOM_H

#include "base/base.h"

int rt_random(void *p, size_t n);       /* RT_OK or RT_ESYS */
int rt_random_u32(uint32_t *out);
int rt_random_u64(uint64_t *out);

#endif
