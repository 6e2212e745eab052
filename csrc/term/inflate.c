/* zlib's memory comes from rt_malloc, so it is counted and can be made to fail.
 * Output memory grows with what has really come out of the stream, never with
 * what the sender claims. */
#include "term/inflate.h"

#include <limits.h>
#include <zlib.h>

#include "base/alloc.h"
#include "base/cursor.h"
#include "term/tags.h"

enum { SIZE_BYTES = 4, STEP_BYTES = 16 * 1024 };

/* zlib's names for its own memory functions. */
static voidpf z_take(voidpf opaque, uInt items, uInt size) {
    (void)opaque;
    return rt_calloc(items, size);
}
static void z_give(voidpf opaque, voidpf p) {
    (void)opaque;
    rt_free(p);
}

typedef struct stream {
    z_stream z;
    const uint8_t *p;   /* input not yet given to zlib */
    size_t left;
    uint64_t claimed, made;
} stream;

static int stream_error(int code) {
    return code == Z_MEM_ERROR ? RT_ENOMEM : RT_EBAD;
}

static int stream_begin(stream *s, const uint8_t *p, size_t n, size_t bytes_max,
                        uint32_t ratio_max) {
    int code;
    if (n < SIZE_BYTES) return RT_AGAIN;
    memset(s, 0, sizeof *s);
    s->claimed = rt_load_u32(p);
    s->p = p + SIZE_BYTES;
    s->left = n - SIZE_BYTES;
    if (s->claimed == 0) return RT_EBAD; /* no term is empty */
    if (s->claimed > bytes_max) return RT_ELIMIT;
    if (s->left == 0) return RT_AGAIN;
    if (s->claimed > (uint64_t)ratio_max * s->left) return RT_ELIMIT;
    s->z.zalloc = z_take;
    s->z.zfree = z_give;
    code = inflateInit(&s->z);
    return code == Z_OK ? RT_OK : stream_error(code);
}

/* Fills n bytes at `to`. Returns how many came before the stream ended
 * (*ended) or the input did (RT_AGAIN). */
static int64_t stream_read(stream *s, uint8_t *to, size_t n, bool *ended) {
    s->z.next_out = to;
    s->z.avail_out = (uInt)n;
    while (s->z.avail_out > 0) {
        int code;
        if (s->z.avail_in == 0 && s->left > 0) {
            s->z.next_in = (z_const Bytef *)s->p;
            s->z.avail_in = s->left < UINT_MAX ? (uInt)s->left : UINT_MAX;
            s->p += s->z.avail_in;
            s->left -= s->z.avail_in;
        }
        /* Even without input there may be output: zlib keeps what did not fit. */
        code = inflate(&s->z, Z_NO_FLUSH);
        if (code == Z_STREAM_END) {
            *ended = true;
            break;
        }
        if (code == Z_BUF_ERROR) return RT_AGAIN;
        if (code != Z_OK) return stream_error(code);
    }
    return (int64_t)(n - s->z.avail_out);
}

/* Reads the stream to its end, into `out` or, when NULL, into `scratch`. */
static int stream_drain(stream *s, rt_buf *out, uint8_t scratch[STEP_BYTES]) {
    bool ended = false;
    while (!ended) {
        uint64_t want = s->claimed - s->made;
        uint8_t *to = scratch;
        int64_t got;
        /* One byte past the claimed size tells whether the stream goes on. */
        if (want == 0) want = 1;
        else if (want > STEP_BYTES) want = STEP_BYTES;
        if (out && s->made < s->claimed) {
            if (rt_buf_reserve(out, want) < 0) return RT_ENOMEM;
            to = out->p + out->n;
        }
        got = stream_read(s, to, (size_t)want, &ended);
        if (got < 0) return (int)got;
        s->made += (uint64_t)got;
        if (s->made > s->claimed) return RT_ESIZE;
        if (out) out->n += (size_t)got;
    }
    return s->made == s->claimed ? RT_OK : RT_ESIZE;
}

static int64_t inflate_object(rt_buf *out, const uint8_t *p, size_t n, size_t bytes_max,
                              uint32_t ratio_max) {
    uint8_t scratch[STEP_BYTES];
    stream s;
    size_t start = out ? out->n : 0;
    int64_t used;
    int rc = stream_begin(&s, p, n, bytes_max, ratio_max);
    if (rc < 0) return rc;
    rc = stream_drain(&s, out, scratch);
    used = (int64_t)(n - s.left - s.z.avail_in);
    inflateEnd(&s.z);
    if (rc < 0) {
        if (out) out->n = start;
        return rc;
    }
    return used;
}

int64_t rt_term_inflate(rt_buf *out, const uint8_t *p, size_t n, size_t bytes_max,
                        uint32_t ratio_max) {
    return inflate_object(out, p, n, bytes_max, ratio_max);
}

int64_t rt_term_inflate_skip(const uint8_t *p, size_t n, size_t bytes_max, uint32_t ratio_max) {
    return inflate_object(NULL, p, n, bytes_max, ratio_max);
}

/* Runs the whole of p through deflate; both lengths may pass what zlib's
 * counters hold, so both are given in pieces. */
static int deflate_all(z_stream *z, rt_buf *out, const uint8_t *p, size_t n) {
    int code = Z_OK;
    z->next_in = (z_const Bytef *)p;
    while (code != Z_STREAM_END) {
        uInt room;
        if (rt_buf_reserve(out, STEP_BYTES) < 0) return RT_ENOMEM;
        if (z->avail_in == 0 && n > 0) {
            z->avail_in = n < UINT_MAX ? (uInt)n : UINT_MAX;
            n -= z->avail_in;
        }
        room = z->avail_out = STEP_BYTES;
        z->next_out = out->p + out->n;
        code = deflate(z, n == 0 ? Z_FINISH : Z_NO_FLUSH);
        if (code == Z_STREAM_ERROR) return RT_EINVAL;
        out->n += room - z->avail_out;
    }
    return RT_OK;
}

int rt_term_deflate(rt_buf *out, const uint8_t *p, size_t n, int level) {
    z_stream z;
    size_t start = out->n;
    int rc, code;
    if (level < 1 || level > 9 || n == 0 || n > UINT32_MAX) return RT_EINVAL;
    rc = rt_buf_reserve(out, 1 + SIZE_BYTES);
    if (rc < 0) return rc;
    memset(&z, 0, sizeof z);
    z.zalloc = z_take;
    z.zfree = z_give;
    code = deflateInit(&z, level);
    if (code != Z_OK) return code == Z_MEM_ERROR ? RT_ENOMEM : RT_EINVAL;
    rt_buf_u8(out, RT_TAG_COMPRESSED);
    rt_buf_u32(out, (uint32_t)n);
    rc = deflate_all(&z, out, p, n);
    deflateEnd(&z);
    if (rc < 0) out->n = start;
    return rc;
}
