/* Packets of one connection: frames with an atom cache, fragments, control
 * messages. Input: options, which allocation fails, then packets. */
#include "fuzz.h"

#include "dist/control.h"
#include "dist/fragments.h"
#include "dist/frame.h"

enum { HEADERS = 1, DEPTH = 64, MESSAGE_BYTES_MAX = 1 << 20, IN_FLIGHT = 3 };

typedef struct receiver {
    rt_atom_cache *cache;
    rt_fragments *fragments;
    bool header;
} receiver;

static bool inside(rt_slice part, rt_slice whole) {
    return part.n == 0 || (part.p >= whole.p && part.p + part.n <= whole.p + whole.n);
}

/* The writer's words for a message, where it has any. */
static int write_again(rt_buf *b, const rt_control *m) {
    switch (m->op) {
    case RT_OP_LINK: return rt_control_link(b, m->from, m->to);
    case RT_OP_SEND: return rt_control_send(b, m->to);
    case RT_OP_EXIT: return rt_control_exit(b, m->from, m->to, m->reason);
    case RT_OP_UNLINK: return rt_control_unlink(b, m->from, m->to);
    case RT_OP_EXIT2: return rt_control_exit2(b, m->from, m->to, m->reason);
    case RT_OP_SEND_SENDER: return rt_control_send_sender(b, m->from, m->to);
    case RT_OP_ALIAS_SEND: return rt_control_alias_send(b, m->from, m->to);
    case RT_OP_MONITOR_P: return rt_control_monitor(b, m->from, m->to, m->ref);
    case RT_OP_DEMONITOR_P: return rt_control_demonitor(b, m->from, m->to, m->ref);
    case RT_OP_MONITOR_P_EXIT:
        return rt_control_monitor_exit(b, m->from, m->to, m->ref, m->reason);
    case RT_OP_PAYLOAD_EXIT: return rt_control_payload_exit(b, m->from, m->to);
    case RT_OP_PAYLOAD_EXIT2: return rt_control_payload_exit2(b, m->from, m->to);
    case RT_OP_PAYLOAD_MONITOR_P_EXIT:
        return rt_control_payload_monitor_exit(b, m->from, m->to, m->ref);
    case RT_OP_UNLINK_ID: return rt_control_unlink_id(b, m->id, m->from, m->to);
    case RT_OP_UNLINK_ID_ACK: return rt_control_unlink_id_ack(b, m->id, m->from, m->to);
    case RT_OP_SPAWN_REPLY:
        return rt_control_spawn_reply(b, m->ref, m->to, (uint32_t)m->id, m->reason);
    default: return RT_ENOENT;
    }
}

/* A frame of ours, as it is and rewritten for a peer without headers. */
static void rewritten(const rt_buf *control) {
    uint8_t head[RT_FRAME_NORMAL_HEAD];
    rt_buf frame = RT_BUF_INIT, pass = RT_BUF_INIT;
    rt_slice c, payload;
    rt_frame f;
    rt_frame_head_normal(head, control->n);
    if (rt_buf_put(&frame, head, sizeof head) == RT_OK &&
        rt_buf_put(&frame, control->p, control->n) == RT_OK &&
        rt_frame_to_pass(&pass, rt_slice_of(frame.p, frame.n)) == RT_OK) {
        HOLDS(rt_load_u32(pass.p) == pass.n - 4);
        HOLDS(rt_frame_parse(NULL, false, rt_slice_of(pass.p + 4, pass.n - 4), &f) == RT_OK);
        HOLDS(rt_frame_split_pass(f.body, &c, &payload) == RT_OK && payload.n == 0);
        HOLDS(rt_slice_eq(c, rt_slice_of(control->p, control->n)));
    }
    rt_buf_fini(&frame);
    rt_buf_fini(&pass);
}

static int on_control(rt_slice control, rt_control *m) {
    rt_control again;
    rt_buf b = RT_BUF_INIT;
    int64_t n = rt_control_parse(control.p, control.n, m);
    if (n < 0) return n == RT_ENOMEM ? RT_ENOMEM : RT_EBAD;
    HOLDS((size_t)n <= control.n);
    HOLDS(inside(m->from, control) && inside(m->to, control) && inside(m->ref, control));
    HOLDS(inside(m->reason, control) && inside(m->options, control) && inside(m->mfa, control));
    if (write_again(&b, m) == RT_OK) {
        n = rt_control_parse(b.p, b.n, &again);
        if (n != RT_ENOMEM) {
            HOLDS(n == (int64_t)b.n && again.op == m->op && again.payload == m->payload);
            HOLDS(rt_slice_eq(again.from, m->from) || m->op == RT_OP_SEND);
            HOLDS(rt_slice_eq(again.to, m->to) && again.to_name == m->to_name);
            HOLDS(rt_slice_eq(again.ref, m->ref) && rt_slice_eq(again.reason, m->reason));
            HOLDS(again.id == m->id);
            rewritten(&b);
        }
    }
    rt_buf_fini(&b);
    return RT_OK;
}

/* A control message, which may refer to atoms, and the payload behind it. */
static int on_message(rt_slice body, const rt_atoms *atoms, size_t *used) {
    rt_scan scan = {.depth_max = DEPTH, .atoms = atoms};
    rt_buf plain = RT_BUF_INIT;
    rt_control m;
    int64_t n = rt_term_scan(body.p, body.n, &scan);
    if (n < 0) return n == RT_ENOMEM ? RT_ENOMEM : RT_EBAD;
    *used = (size_t)n;
    if (scan.compressed) return RT_EBAD;
    int rc = rt_term_expand(&plain, body.p, (size_t)n, atoms);
    HOLDS(rc == RT_OK || rc == RT_ENOMEM);
    if (rc == RT_OK) rc = on_control(rt_slice_of(plain.p, plain.n), &m);
    rt_buf_fini(&plain);
    return rc < 0 ? rc : m.payload;
}

static int on_payload(rt_slice body, const rt_atoms *atoms) {
    rt_scan scan = {.depth_max = DEPTH, .atoms = atoms};
    rt_buf plain = RT_BUF_INIT;
    int64_t n = rt_term_scan(body.p, body.n, &scan);
    if (n < 0) return n == RT_ENOMEM ? RT_ENOMEM : RT_EBAD;
    int rc = rt_term_expand(&plain, body.p, (size_t)n, atoms);
    HOLDS(rc == RT_ENOMEM || plain.n == scan.expanded_bytes);
    rt_buf_fini(&plain);
    return rc;
}

static int on_fragment(receiver *r, const rt_frame *f) {
    rt_assembled a;
    rt_control m;
    int rc = rt_fragments_feed(r->fragments, f, &a);
    HOLDS(rt_fragments_in_flight(r->fragments) <= IN_FLIGHT);
    HOLDS(rt_fragments_held(r->fragments) <= (size_t)IN_FLIGHT * MESSAGE_BYTES_MAX);
    if (rc <= 0) return rc;
    rc = on_control(rt_slice_of(a.control.p, a.control.n), &m);
    if (rc == RT_OK && m.payload) rc = on_payload(rt_assembled_payload(&a), &a.atoms);
    rt_assembled_fini(&a);
    return rc;
}

static int on_packet(receiver *r, rt_slice packet) {
    rt_frame f;
    rt_slice control, payload;
    size_t used;
    int rc = rt_frame_parse(r->cache, r->header, packet, &f);
    if (rc < 0) return rc;
    HOLDS(inside(f.body, packet) && f.atoms.count <= 255);
    switch (f.kind) {
    case RT_FRAME_TICK:
        return RT_OK;
    case RT_FRAME_PASS:
        rc = rt_frame_split_pass(f.body, &control, &payload);
        if (rc == RT_OK) rc = on_message(control, NULL, &used);
        return rc == 1 ? on_payload(payload, NULL) : rc;
    case RT_FRAME_NORMAL:
        rc = on_message(f.body, &f.atoms, &used);
        if (rc < 1) return rc;
        return on_payload(rt_slice_of(f.body.p + used, f.body.n - used), &f.atoms);
    default:
        return on_fragment(r, &f);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    rt_cursor c = rt_cursor_of(data, size);
    receiver r = {.header = take_u8(&c) & HEADERS};
    uint8_t failing = take_u8(&c);
    rt_slice packet;
    long before = rt_alloc_live();
    r.cache = rt_atom_cache_new();
    r.fragments = rt_fragments_new(IN_FLIGHT, MESSAGE_BYTES_MAX, DEPTH, NULL);
    fail_some_allocation(failing);
    while (take_piece(&c, &packet)) {
        uint8_t *copy = exact_copy(packet);
        int rc = on_packet(&r, rt_slice_of(copy, packet.n));
        free(copy);
        if (rc < 0) break; /* the connection is closed */
    }
    rt_atom_cache_free(r.cache);
    rt_fragments_free(r.fragments);
    nothing_left(before);
    return 0;
}
