/* Lets the program that is measured say what is measured. Apart from the other files, for it needs
 * valgrind's header, which nothing else does. */
#include <valgrind/callgrind.h>

#include "bench.h"

BENCH void counting_begin(void)
{
    CALLGRIND_START_INSTRUMENTATION;
    CALLGRIND_ZERO_STATS;
}

/* Writes what was counted since into a file of its own, under this name. */
BENCH void counting_end(const char *name)
{
    CALLGRIND_DUMP_STATS_AT(name);
    CALLGRIND_STOP_INSTRUMENTATION;
}
