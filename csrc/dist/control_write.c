/* Control tuples going out. Each writer appends the whole tuple or nothing. */
#include "dist/control.h"

#include "base/limits.h"
#include "term/tags.h"
#include "term/write.h"

enum { HEAD = 4, ATOM_HEAD = 3, INTEGER_MAX = 11 };

/* {Op, ...} with `count` slices that are terms already. */
static int put_tuple(rt_buf *b, enum rt_control_op op, const rt_slice *terms, unsigned count) {
    size_t total = HEAD;
    for (unsigned i = 0; i < count; i++) total += terms[i].n;
    if (rt_buf_reserve(b, total) < 0) return RT_ENOMEM;
    rt_buf_u8(b, RT_TAG_SMALL_TUPLE);
    rt_buf_u8(b, (uint8_t)(count + 1));
    rt_buf_u8(b, RT_TAG_SMALL_INTEGER);
    rt_buf_u8(b, (uint8_t)op);
    for (unsigned i = 0; i < count; i++) rt_buf_raw(b, terms[i].p, terms[i].n);
    return RT_OK;
}

static int put_2(rt_buf *b, enum rt_control_op op, rt_slice x, rt_slice y) {
    rt_slice terms[2] = {x, y};
    return put_tuple(b, op, terms, 2);
}

static int put_3(rt_buf *b, enum rt_control_op op, rt_slice x, rt_slice y, rt_slice z) {
    rt_slice terms[3] = {x, y, z};
    return put_tuple(b, op, terms, 3);
}

static rt_slice empty_atom(void) {
    static const uint8_t bytes[2] = {RT_TAG_SMALL_ATOM_UTF8, 0};
    return rt_slice_of(bytes, sizeof bytes);
}

int rt_control_send(rt_buf *b, rt_slice to) { return put_2(b, RT_OP_SEND, empty_atom(), to); }

int rt_control_send_sender(rt_buf *b, rt_slice from, rt_slice to) {
    return put_2(b, RT_OP_SEND_SENDER, from, to);
}

int rt_control_reg_send(rt_buf *b, rt_slice from, rt_slice name_utf8) {
    size_t start = b->n;
    int rc;
    if (rt_buf_reserve(b, HEAD + from.n + 2 + ATOM_HEAD + name_utf8.n) < 0) return RT_ENOMEM;
    rc = put_2(b, RT_OP_REG_SEND, from, empty_atom());
    if (rc < 0) return rc;
    b->p[start + 1] = 4; /* the name makes four */
    rc = rt_put_atom(b, name_utf8);
    if (rc < 0) b->n = start;
    return rc;
}

int rt_control_alias_send(rt_buf *b, rt_slice from, rt_slice alias) {
    return put_2(b, RT_OP_ALIAS_SEND, from, alias);
}

int rt_control_link(rt_buf *b, rt_slice from, rt_slice to) {
    return put_2(b, RT_OP_LINK, from, to);
}

/* {Op, Id, From, To} */
static int put_id(rt_buf *b, enum rt_control_op op, uint64_t id, rt_slice from, rt_slice to) {
    size_t start = b->n;
    int rc;
    if (rt_buf_reserve(b, HEAD + INTEGER_MAX + from.n + to.n) < 0) return RT_ENOMEM;
    rc = put_tuple(b, op, NULL, 0);
    if (rc < 0) return rc;
    b->p[start + 1] = 4; /* with the three that follow */
    rc = rt_put_u64(b, id);
    if (rc < 0) {
        b->n = start;
        return rc;
    }
    rt_buf_raw(b, from.p, from.n);
    rt_buf_raw(b, to.p, to.n);
    return RT_OK;
}

int rt_control_unlink_id(rt_buf *b, uint64_t id, rt_slice from, rt_slice to) {
    return put_id(b, RT_OP_UNLINK_ID, id, from, to);
}

int rt_control_unlink_id_ack(rt_buf *b, uint64_t id, rt_slice from, rt_slice to) {
    return put_id(b, RT_OP_UNLINK_ID_ACK, id, from, to);
}

int rt_control_unlink(rt_buf *b, rt_slice from, rt_slice to) {
    return put_2(b, RT_OP_UNLINK, from, to);
}

int rt_control_exit(rt_buf *b, rt_slice from, rt_slice to, rt_slice reason) {
    return put_3(b, RT_OP_EXIT, from, to, reason);
}

int rt_control_exit2(rt_buf *b, rt_slice from, rt_slice to, rt_slice reason) {
    return put_3(b, RT_OP_EXIT2, from, to, reason);
}

int rt_control_payload_exit(rt_buf *b, rt_slice from, rt_slice to) {
    return put_2(b, RT_OP_PAYLOAD_EXIT, from, to);
}

int rt_control_payload_exit2(rt_buf *b, rt_slice from, rt_slice to) {
    return put_2(b, RT_OP_PAYLOAD_EXIT2, from, to);
}

int rt_control_monitor(rt_buf *b, rt_slice from, rt_slice target, rt_slice ref) {
    return put_3(b, RT_OP_MONITOR_P, from, target, ref);
}

int rt_control_demonitor(rt_buf *b, rt_slice from, rt_slice target, rt_slice ref) {
    return put_3(b, RT_OP_DEMONITOR_P, from, target, ref);
}

int rt_control_monitor_exit(rt_buf *b, rt_slice target, rt_slice watcher, rt_slice ref,
                            rt_slice reason) {
    rt_slice terms[4] = {target, watcher, ref, reason};
    return put_tuple(b, RT_OP_MONITOR_P_EXIT, terms, 4);
}

int rt_control_payload_monitor_exit(rt_buf *b, rt_slice target, rt_slice watcher, rt_slice ref) {
    return put_3(b, RT_OP_PAYLOAD_MONITOR_P_EXIT, target, watcher, ref);
}

int rt_control_group_leader(rt_buf *b, rt_slice from, rt_slice to) {
    return put_2(b, RT_OP_GROUP_LEADER, from, to);
}

/* Appends the {M, F, Arity} of a spawn request. */
static int put_mfa(rt_buf *b, rt_slice module, rt_slice function, uint32_t arity) {
    int rc = rt_put_tuple(b, 3);
    if (rc < 0) return rc;
    rc = rt_put_atom(b, module);
    if (rc < 0) return rc;
    rc = rt_put_atom(b, function);
    if (rc < 0) return rc;
    return rt_put_u64(b, arity);
}

int rt_control_spawn_request(rt_buf *b, rt_slice ref, rt_slice from, rt_slice leader,
                             rt_slice module_utf8, rt_slice function_utf8, uint32_t arity,
                             rt_slice options) {
    size_t start = b->n;
    int rc = put_3(b, RT_OP_SPAWN_REQUEST, ref, from, leader);
    if (rc < 0) return rc;
    b->p[start + 1] = 6; /* the entry point and the options make six */
    rc = put_mfa(b, module_utf8, function_utf8, arity);
    if (rc < 0) goto fail;
    rc = rt_buf_put(b, options.p, options.n);
    if (rc < 0) goto fail;
    return RT_OK;
fail:
    b->n = start;
    return rc;
}

int rt_control_spawn_reply(rt_buf *b, rt_slice ref, rt_slice to, uint32_t flags,
                           rt_slice result) {
    size_t start = b->n;
    int rc;
    if (rt_buf_reserve(b, HEAD + ref.n + to.n + INTEGER_MAX + result.n) < 0) return RT_ENOMEM;
    rc = put_2(b, RT_OP_SPAWN_REPLY, ref, to);
    if (rc < 0) return rc;
    b->p[start + 1] = 5; /* with the two that follow */
    rc = rt_put_u64(b, flags);
    if (rc < 0) {
        b->n = start;
        return rc;
    }
    rt_buf_raw(b, result.p, result.n);
    return RT_OK;
}
