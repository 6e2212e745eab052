/* Purpose: MD5 (RFC 1321), which the distribution handshake asks for. */
#ifndef RT_BASE_MD5_H
#define RT_BASE_MD5_H

#include "base/base.h"

/* Digest of the concatenation a ++ b. */
void rt_md5(rt_slice a, rt_slice b, uint8_t out[16]);
/* Compares two digests without a data-dependent branch. */
bool rt_digest_eq(const uint8_t a[16], const uint8_t b[16]);

#endif
