#include "base/clock.h"

#include <time.h>

uint64_t rt_now(void) {
    struct timespec t;
    /* Cannot fail: the clock exists on every system the core is built for. */
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * RT_SEC + (uint64_t)t.tv_nsec;
}
