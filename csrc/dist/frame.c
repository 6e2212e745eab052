#include "dist/frame.h"

#include "base/cursor.h"
#include "term/tags.h"

enum { PASS_THROUGH = 112 };

static int parse_fragment(rt_cursor *c, uint64_t *sequence, uint64_t *fragment) {
    if (!rt_cursor_u64(c, sequence) || !rt_cursor_u64(c, fragment)) return RT_EBAD;
    return *fragment == 0 ? RT_EBAD : RT_OK; /* they count down to 1 */
}

static int parse_header(rt_atom_cache *cache, rt_cursor c, rt_frame *out) {
    enum rt_frame_kind kind;
    uint64_t sequence = 0, fragment = 0;
    uint8_t version, tag;
    if (!rt_cursor_u8(&c, &version) || version != RT_TAG_VERSION) return RT_EBAD;
    if (!rt_cursor_u8(&c, &tag)) return RT_EBAD;
    switch (tag) {
    case RT_TAG_DIST_HEADER: kind = RT_FRAME_NORMAL; break;
    case RT_TAG_DIST_FRAG_FIRST: kind = RT_FRAME_FRAG_FIRST; break;
    case RT_TAG_DIST_FRAG_NEXT: kind = RT_FRAME_FRAG_NEXT; break;
    default: return RT_EBAD;
    }
    if (kind != RT_FRAME_NORMAL && parse_fragment(&c, &sequence, &fragment) < 0) return RT_EBAD;
    if (kind == RT_FRAME_FRAG_NEXT) {
        out->atoms.count = 0;
    } else {
        /* The last step that can fail: it alone may write into `out`. */
        int rc = rt_atom_cache_read(cache, &c, &out->atoms);
        if (rc < 0) return rc;
    }
    out->kind = kind;
    out->sequence = sequence;
    out->fragment = fragment;
    out->body = rt_slice_of(c.p, rt_cursor_left(&c));
    return RT_OK;
}

int rt_frame_parse(rt_atom_cache *cache, bool header, rt_slice packet, rt_frame *out) {
    enum rt_frame_kind kind = RT_FRAME_TICK;
    rt_slice body = {packet.p, 0};
    if (packet.n > 0) {
        if (header) return parse_header(cache, rt_cursor_of(packet.p, packet.n), out);
        if (packet.p[0] != PASS_THROUGH) return RT_EBAD;
        kind = RT_FRAME_PASS;
        body = rt_slice_of(packet.p + 1, packet.n - 1);
    }
    out->kind = kind;
    out->sequence = 0;
    out->fragment = 0;
    out->atoms.count = 0;
    out->body = body;
    return RT_OK;
}

bool rt_frame_has_no_atoms(rt_slice packet) {
    const uint8_t *p = packet.p;
    if (packet.n < 2 || p[0] != RT_TAG_VERSION) return false;
    switch (p[1]) {
    case RT_TAG_DIST_HEADER: return packet.n > 2 && p[2] == 0;
    case RT_TAG_DIST_FRAG_FIRST: return packet.n > 18 && p[18] == 0;
    case RT_TAG_DIST_FRAG_NEXT: return packet.n >= 18;
    default: return false;
    }
}

int rt_frame_split_pass(rt_slice body, rt_slice *control, rt_slice *payload) {
    rt_slice rest;
    int64_t n;
    if (body.n < 2 || body.p[0] != RT_TAG_VERSION) return RT_EBAD;
    n = rt_term_skip(body.p + 1, body.n - 1);
    if (n < 0) return n == RT_ENOMEM ? RT_ENOMEM : RT_EBAD;
    rest = rt_slice_of(body.p + 1 + n, body.n - 1 - (size_t)n);
    if (rest.n > 0) {
        if (rest.p[0] != RT_TAG_VERSION || rest.n == 1) return RT_EBAD;
        rest = rt_slice_of(rest.p + 1, rest.n - 1);
    }
    *control = rt_slice_of(body.p + 1, (size_t)n);
    *payload = rest;
    return RT_OK;
}

/* A packet is as long as 32 bits can say; senders cut long before that. */
static void put_length(uint8_t *p, size_t head, size_t body) {
    RT_ASSERT(body <= UINT32_MAX - head);
    rt_store_u32(p, (uint32_t)(head - 4 + body));
    p[4] = RT_TAG_VERSION;
}

void rt_frame_head_normal(uint8_t *p, size_t body) {
    put_length(p, RT_FRAME_NORMAL_HEAD, body);
    p[5] = RT_TAG_DIST_HEADER;
    p[6] = 0;
}

void rt_frame_head_frag_first(uint8_t *p, uint64_t seq, uint64_t frag, size_t body) {
    put_length(p, RT_FRAME_FRAG_FIRST_HEAD, body);
    p[5] = RT_TAG_DIST_FRAG_FIRST;
    rt_store_u64(p + 6, seq);
    rt_store_u64(p + 14, frag);
    p[22] = 0;
}

void rt_frame_head_frag_next(uint8_t *p, uint64_t seq, uint64_t frag, size_t body) {
    put_length(p, RT_FRAME_FRAG_NEXT_HEAD, body);
    p[5] = RT_TAG_DIST_FRAG_NEXT;
    rt_store_u64(p + 6, seq);
    rt_store_u64(p + 14, frag);
}

int rt_frame_to_pass(rt_buf *out, rt_slice frame) {
    static const uint8_t head[3] = {RT_TAG_VERSION, RT_TAG_DIST_HEADER, 0};
    const uint8_t *body = frame.p + RT_FRAME_NORMAL_HEAD;
    size_t left, control, total;
    int64_t n;
    if (frame.n <= RT_FRAME_NORMAL_HEAD || memcmp(frame.p + 4, head, sizeof head) != 0 ||
        rt_load_u32(frame.p) != frame.n - 4)
        return RT_EINVAL;
    n = rt_term_skip(body, frame.n - RT_FRAME_NORMAL_HEAD);
    if (n < 0) return n == RT_ENOMEM ? RT_ENOMEM : RT_EINVAL;
    control = (size_t)n;
    left = frame.n - RT_FRAME_NORMAL_HEAD - control;
    total = 2 + control + (left ? 1 + left : 0); /* 112 131 control [131 payload] */
    if (rt_buf_reserve(out, 4 + total) < 0) return RT_ENOMEM;
    rt_buf_u32(out, (uint32_t)total);
    rt_buf_u8(out, PASS_THROUGH);
    rt_buf_u8(out, RT_TAG_VERSION);
    rt_buf_raw(out, body, control);
    if (left) {
        rt_buf_u8(out, RT_TAG_VERSION);
        rt_buf_raw(out, body + control, left);
    }
    return RT_OK;
}
