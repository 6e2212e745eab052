/* Purpose: C11 atomics in one place. Every use names its order; each acquire
 * and release names its partner in a comment at the place of use. */
#ifndef RT_BASE_ATOMIC_H
#define RT_BASE_ATOMIC_H

#include <stdatomic.h>

#include "base/base.h"

RT_INLINE void rt_cpu_relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield" ::: "memory");
#endif
}

#endif
