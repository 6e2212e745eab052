#include "base/base.h"

#ifdef RT_DEBUG

#include <stdio.h>
#include <stdlib.h>

void rt_assert_fail(const char *expr, const char *file, int line) {
    fprintf(stderr, "%s:%d: assertion failed: %s\n", file, line, expr);
    fflush(stderr);
    abort();
}

#else

/* ISO C wants a translation unit to declare something. */
typedef int rt_assert_unused;

#endif
