#include "term/write.h"

#include "base/limits.h"
#include "term/utf8.h"

int rt_put_version(rt_buf *b) {
    if (rt_buf_reserve(b, 1) < 0) return RT_ENOMEM;
    rt_buf_u8(b, RT_TAG_VERSION);
    return RT_OK;
}

int rt_put_atom(rt_buf *b, rt_slice utf8) {
    if (utf8.n > RT_ATOM_BYTES_MAX) return RT_EINVAL;
    if (!rt_ascii(utf8.p, utf8.n) || utf8.n > RT_ATOM_CHARS_MAX) {
        int64_t chars = rt_utf8_chars(utf8.p, utf8.n);
        if (chars < 0 || chars > RT_ATOM_CHARS_MAX) return RT_EINVAL;
    }
    if (rt_buf_reserve(b, 3 + utf8.n) < 0) return RT_ENOMEM;
    if (utf8.n < 256) {
        rt_buf_u8(b, RT_TAG_SMALL_ATOM_UTF8);
        rt_buf_u8(b, (uint8_t)utf8.n);
    } else {
        rt_buf_u8(b, RT_TAG_ATOM_UTF8);
        rt_buf_u16(b, (uint16_t)utf8.n);
    }
    rt_buf_raw(b, utf8.p, utf8.n);
    return RT_OK;
}

int rt_put_atom_str(rt_buf *b, const char *ascii) {
    return rt_put_atom(b, rt_slice_of(ascii, strlen(ascii)));
}

/* A SMALL_BIG of as many bytes as the magnitude needs; room is reserved. */
static void put_big(rt_buf *b, uint64_t magnitude, bool negative) {
    size_t at = b->n + 1;
    rt_buf_u8(b, RT_TAG_SMALL_BIG);
    rt_buf_u8(b, 0);
    rt_buf_u8(b, negative);
    for (; magnitude; magnitude >>= 8) {
        rt_buf_u8(b, (uint8_t)magnitude);
        b->p[at]++;
    }
}

int rt_put_i64(rt_buf *b, int64_t v) {
    if (rt_buf_reserve(b, 11) < 0) return RT_ENOMEM;
    if (v >= 0 && v <= 255) {
        rt_buf_u8(b, RT_TAG_SMALL_INTEGER);
        rt_buf_u8(b, (uint8_t)v);
    } else if (v >= INT32_MIN && v <= INT32_MAX) {
        rt_buf_u8(b, RT_TAG_INTEGER);
        rt_buf_u32(b, (uint32_t)v);
    } else {
        put_big(b, v < 0 ? 0 - (uint64_t)v : (uint64_t)v, v < 0);
    }
    return RT_OK;
}

int rt_put_u64(rt_buf *b, uint64_t v) {
    if (v <= INT64_MAX) return rt_put_i64(b, (int64_t)v);
    if (rt_buf_reserve(b, 11) < 0) return RT_ENOMEM;
    put_big(b, v, false);
    return RT_OK;
}

int rt_put_tuple(rt_buf *b, uint32_t arity) {
    if (rt_buf_reserve(b, 5) < 0) return RT_ENOMEM;
    if (arity < 256) {
        rt_buf_u8(b, RT_TAG_SMALL_TUPLE);
        rt_buf_u8(b, (uint8_t)arity);
    } else {
        rt_buf_u8(b, RT_TAG_LARGE_TUPLE);
        rt_buf_u32(b, arity);
    }
    return RT_OK;
}

static int put_tag_u32(rt_buf *b, uint8_t tag, uint32_t v) {
    if (rt_buf_reserve(b, 5) < 0) return RT_ENOMEM;
    rt_buf_u8(b, tag);
    rt_buf_u32(b, v);
    return RT_OK;
}

int rt_put_list(rt_buf *b, uint32_t count) { return put_tag_u32(b, RT_TAG_LIST, count); }

int rt_put_map(rt_buf *b, uint32_t pairs) { return put_tag_u32(b, RT_TAG_MAP, pairs); }

int rt_put_nil(rt_buf *b) {
    if (rt_buf_reserve(b, 1) < 0) return RT_ENOMEM;
    rt_buf_u8(b, RT_TAG_NIL);
    return RT_OK;
}

int rt_put_binary(rt_buf *b, rt_slice bytes) {
    if (bytes.n > UINT32_MAX) return RT_EINVAL;
    if (rt_buf_reserve(b, 5 + bytes.n) < 0) return RT_ENOMEM;
    rt_buf_u8(b, RT_TAG_BINARY);
    rt_buf_u32(b, (uint32_t)bytes.n);
    rt_buf_raw(b, bytes.p, bytes.n);
    return RT_OK;
}

int rt_put_f64(rt_buf *b, double v) {
    uint64_t bits;
    if (!__builtin_isfinite(v)) return RT_EINVAL;
    if (rt_buf_reserve(b, 9) < 0) return RT_ENOMEM;
    memcpy(&bits, &v, 8);
    rt_buf_u8(b, RT_TAG_NEW_FLOAT);
    rt_buf_u64(b, bits);
    return RT_OK;
}
