#include "base/random.h"

#include <errno.h>
#include <sys/random.h>

int rt_random(void *p, size_t n) {
    uint8_t *at = p;
    while (n > 0) {
        ssize_t got = getrandom(at, n, 0);
        if (got < 0) {
            if (errno == EINTR) continue;
            return RT_ESYS;
        }
        at += got;
        n -= (size_t)got;
    }
    return RT_OK;
}

int rt_random_u32(uint32_t *out) {
    uint32_t v;
    if (rt_random(&v, sizeof v) < 0) return RT_ESYS;
    *out = v;
    return RT_OK;
}

int rt_random_u64(uint64_t *out) {
    uint64_t v;
    if (rt_random(&v, sizeof v) < 0) return RT_ESYS;
    *out = v;
    return RT_OK;
}
