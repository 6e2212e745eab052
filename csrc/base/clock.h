/* Purpose: the monotonic clock. */
#ifndef RT_BASE_CLOCK_H
#define RT_BASE_CLOCK_H

#include "base/base.h"

#define RT_MS 1000000ull  /* nanoseconds */
#define RT_SEC 1000000000ull

uint64_t rt_now(void);  /* nanoseconds, CLOCK_MONOTONIC */

#endif
