/* RFC 1321. The message is the concatenation of two slices, so it is fed in
 * pieces through a block buffer. */
#include "base/md5.h"

typedef struct md5 {
    uint32_t state[4];
    uint64_t bytes;
    uint8_t block[64];
} md5;

/* floor(2^32 * |sin(i + 1)|) */
static const uint32_t SINES[64] = {
    0xd76aa478, 0xe8c7b756, 0x242070db, 0xc1bdceee, 0xf57c0faf, 0x4787c62a,
    0xa8304613, 0xfd469501, 0x698098d8, 0x8b44f7af, 0xffff5bb1, 0x895cd7be,
    0x6b901122, 0xfd987193, 0xa679438e, 0x49b40821, 0xf61e2562, 0xc040b340,
    0x265e5a51, 0xe9b6c7aa, 0xd62f105d, 0x02441453, 0xd8a1e681, 0xe7d3fbc8,
    0x21e1cde6, 0xc33707d6, 0xf4d50d87, 0x455a14ed, 0xa9e3e905, 0xfcefa3f8,
    0x676f02d9, 0x8d2a4c8a, 0xfffa3942, 0x8771f681, 0x6d9d6122, 0xfde5380c,
    0xa4beea44, 0x4bdecfa9, 0xf6bb4b60, 0xbebfbc70, 0x289b7ec6, 0xeaa127fa,
    0xd4ef3085, 0x04881d05, 0xd9d4d039, 0xe6db99e5, 0x1fa27cf8, 0xc4ac5665,
    0xf4292244, 0x432aff97, 0xab9423a7, 0xfc93a039, 0x655b59c3, 0x8f0ccc92,
    0xffeff47d, 0x85845dd1, 0x6fa87e4f, 0xfe2ce6e0, 0xa3014314, 0x4e0811a1,
    0xf7537e82, 0xbd3af235, 0x2ad7d2bb, 0xeb86d391
};

static const uint8_t SHIFTS[4][4] = {
    {7, 12, 17, 22}, {5, 9, 14, 20}, {4, 11, 16, 23}, {6, 10, 15, 21}};

RT_INLINE uint32_t load_le32(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
RT_INLINE void store_le32(uint8_t *p, uint32_t v) {
    for (int i = 0; i < 4; i++) p[i] = (uint8_t)(v >> (8 * i));
}

static void md5_block(md5 *m, const uint8_t *p) {
    uint32_t a = m->state[0], b = m->state[1], c = m->state[2], d = m->state[3];
    for (unsigned i = 0; i < 64; i++) {
        uint32_t f, sum;
        unsigned word, shift = SHIFTS[i / 16][i % 4];
        switch (i / 16) {
        case 0: f = (b & c) | (~b & d); word = i; break;
        case 1: f = (d & b) | (~d & c); word = (5 * i + 1) % 16; break;
        case 2: f = b ^ c ^ d; word = (3 * i + 5) % 16; break;
        default: f = c ^ (b | ~d); word = (7 * i) % 16; break;
        }
        sum = a + f + SINES[i] + load_le32(p + 4 * word);
        a = d;
        d = c;
        c = b;
        b += (sum << shift) | (sum >> (32 - shift));
    }
    m->state[0] += a;
    m->state[1] += b;
    m->state[2] += c;
    m->state[3] += d;
}

static void md5_feed(md5 *m, const uint8_t *p, size_t n) {
    while (n > 0) {
        size_t used = m->bytes % 64, take = 64 - used;
        if (take > n) take = n;
        memcpy(m->block + used, p, take);
        m->bytes += take;
        p += take;
        n -= take;
        if (m->bytes % 64 == 0) md5_block(m, m->block);
    }
}

static void md5_finish(md5 *m, uint8_t out[16]) {
    static const uint8_t pad[64] = {0x80};
    uint8_t length[8];
    size_t used = m->bytes % 64;
    uint64_t bits = m->bytes * 8;
    for (int i = 0; i < 8; i++) length[i] = (uint8_t)(bits >> (8 * i));
    md5_feed(m, pad, used < 56 ? 56 - used : 120 - used);
    md5_feed(m, length, 8);
    for (int i = 0; i < 4; i++) store_le32(out + 4 * i, m->state[i]);
}

void rt_md5(rt_slice a, rt_slice b, uint8_t out[16]) {
    md5 m = {{0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476}, 0, {0}};
    md5_feed(&m, a.p, a.n);
    md5_feed(&m, b.p, b.n);
    md5_finish(&m, out);
}

bool rt_digest_eq(const uint8_t a[16], const uint8_t b[16]) {
    uint8_t difference = 0;
    for (int i = 0; i < 16; i++) difference |= (uint8_t)(a[i] ^ b[i]);
    return difference == 0;
}
