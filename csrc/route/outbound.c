#include "route/outbound.h"

#include "base/cursor.h"
#include "base/hash.h"
#include "route/multicast.h"
#include "term/ident.h"
#include "term/tags.h"
#include "term/scan.h"

int rt_outbound_begin(rt_buf *b)
{
    RT_ASSERT(b->n == 0);
    int rc = rt_buf_reserve(b, 256);
    if (rc == RT_OK) b->n = RT_FRAME_NORMAL_HEAD;
    return rc;
}

int rt_outbound_end(rt_buf *b, size_t start, const rt_limits *limits)
{
    size_t body = b->n - start - RT_FRAME_NORMAL_HEAD;
    if (body > limits->message_bytes_max) return RT_ELIMIT;
    rt_frame_head_normal(b->p + start, body);
    return RT_OK;
}

/* The frame's control tuple and payload, both without version byte. */
static int split(rt_slice frame, rt_slice *control, rt_slice *payload)
{
    const uint8_t *p = frame.p + RT_FRAME_NORMAL_HEAD;
    size_t n = frame.n - RT_FRAME_NORMAL_HEAD;
    int64_t k = rt_term_skip(p, n);
    if (k < 0) return (int)k;
    *control = rt_slice_of(p, (size_t)k);
    *payload = rt_slice_of(p + k, n - (size_t)k);
    return RT_OK;
}

/* What a message may not pass, if it waits in the bulk lane: what is for the same receiver, and
 * what its sender has sent to one whose pid, name or alias does not tell whether it is the same.
 * Two names are two processes, and two pids are; aliases may be anybody's. A multicast is for
 * any of them. Signals pass nothing: whom they are from is not always said by pid. A key is a
 * hash, so others may have to wait with it. */
enum kind { PID, NAME, ALIAS, KINDS };
#define KEY_MULTICAST (RT_OUTQ_KEYS - 1)

static enum kind kind_of(const rt_control *c)
{
    return c->to_alias ? ALIAS : c->to_name ? NAME : PID;
}

static bool is_send(const rt_control *c)
{
    return c->op == RT_OP_SEND_SENDER || c->op == RT_OP_REG_SEND || c->op == RT_OP_ALIAS_SEND;
}

static bool is_multicast(const rt_control *c)
{
    rt_cursor at = rt_cursor_of(c->to.p, c->to.n);
    rt_slice name;
    bool latin1;
    return c->to_name && rt_read_atom(&at, &name, &latin1) == RT_OK &&
           rt_slice_eq(name, rt_slice_of(RT_MULTICAST_NAME, sizeof RT_MULTICAST_NAME - 1));
}

static uint32_t to_key(const rt_control *c)
{
    return (uint32_t)(rt_hash_bytes(c->to.p, c->to.n, 0) % (RT_OUTQ_KEYS / 2));
}

static uint32_t from_key(const rt_control *c, enum kind kind)
{
    return RT_OUTQ_KEYS / 2 +
           (uint32_t)(rt_hash_bytes(c->from.p, c->from.n, kind) % (RT_OUTQ_KEYS / 2 - 1));
}

static bool may_pass(const rt_outq *q, const rt_control *c)
{
    enum kind own = kind_of(c);
    if (!is_send(c) || is_multicast(c) || rt_outq_has_key(q, KEY_MULTICAST)) return false;
    if (rt_outq_has_key(q, to_key(c))) return false;
    for (enum kind k = PID; k < KINDS; k++)
        if ((k != own || k == ALIAS) && rt_outq_has_key(q, from_key(c, k))) return false;
    return true;
}

/* Ends a message in the bulk lane, for which there are keys. */
static void hold_back(rt_outq *q, const rt_control *c)
{
    rt_outq_key(q, to_key(c), is_multicast(c) ? KEY_MULTICAST : from_key(c, kind_of(c)));
}

/* The parts of a message that is cut. */
typedef struct parts {
    rt_slice control, before, body, after;
} parts;

/* A fragment of `head` bytes, which the caller writes, and of the n at p: in shared memory, or
 * copied. NULL: no memory. */
static uint8_t *put_fragment(rt_outq *q, enum rt_lane lane, size_t head, const uint8_t *p, size_t n,
                             rt_shared *shared)
{
    if (shared && n) return rt_outq_add_shared(q, head, p, n, shared);
    uint8_t *out = lane == RT_LANE_BULK ? rt_outq_add_bulk(q, head + n) : rt_outq_add(q, head + n);
    if (out) memcpy(out + head, p, n);
    return out;
}

/* All or nothing. The first fragment has what stands before the body as well; what stands
 * behind it has one of its own. */
static int cut(rt_peer *p, const parts *m, enum rt_lane lane, rt_shared *shared)
{
    rt_outq *q = &p->out;
    rt_outq_mark mark = rt_outq_here(q, lane);
    uint64_t seq = p->sequence + 1;
    size_t begin = m->control.n + m->before.n;
    size_t left = (m->before.n + m->body.n + RT_FRAGMENT_BYTES - 1) / RT_FRAGMENT_BYTES +
                  (m->after.n > 0);
    size_t part = RT_FRAGMENT_BYTES - m->before.n;
    if (part > m->body.n) part = m->body.n;
    uint8_t *out = put_fragment(q, lane, RT_FRAME_FRAG_FIRST_HEAD + begin, m->body.p, part, shared);
    if (!out) goto fail;
    rt_frame_head_frag_first(out, seq, left, begin + part);
    memcpy(out + RT_FRAME_FRAG_FIRST_HEAD, m->control.p, m->control.n);
    if (m->before.n)
        memcpy(out + RT_FRAME_FRAG_FIRST_HEAD + m->control.n, m->before.p, m->before.n);
    for (size_t at = part; --left > 0; at += part) {
        bool behind = at == m->body.n;
        rt_slice from = behind ? m->after : rt_slice_of(m->body.p + at, m->body.n - at);
        part = from.n < RT_FRAGMENT_BYTES ? from.n : RT_FRAGMENT_BYTES;
        out = put_fragment(q, lane, RT_FRAME_FRAG_NEXT_HEAD, from.p, part, behind ? NULL : shared);
        if (!out) goto fail;
        rt_frame_head_frag_next(out, seq, left, part);
    }
    p->sequence = seq;
    return RT_OK;
fail:
    rt_outq_undo(q, lane, mark);
    return RT_ENOMEM;
}

/* Into the bulk lane, unless the peer is an old one. */
static int put_fragments(rt_peer *p, rt_slice frame, rt_buf *own)
{
    parts m = {{NULL, 0}, {NULL, 0}, {NULL, 0}, {NULL, 0}};
    rt_control c;
    int rc = split(frame, &m.control, &m.body);
    if (rc < 0) return rc;
    /* The reason of an old exit stands in the control tuple, which is never cut. */
    if (m.body.n == 0) return rt_outq_put(&p->out, frame.p, frame.n);
    if (p->legacy) return cut(p, &m, RT_LANE_PROMPT, NULL);
    int64_t k = rt_control_parse(m.control.p, m.control.n, &c);
    if (k < 0) return (int)k;
    rc = rt_outq_keys_ready(&p->out);
    if (rc < 0) return rc;
    /* Copied is what has no buffer of its own, or one that is much too large to wait with it, or
     * would be better freed bit by bit. */
    bool take = own && own->cap - own->n <= own->n / 4 && own->cap <= RT_POOL_BYTES_MAX;
    rt_shared *shared = take ? rt_shared_new(own, p->pool) : NULL;
    rc = cut(p, &m, RT_LANE_BULK, shared);
    if (rc == RT_OK) hold_back(&p->out, &c);
    rt_shared_rele(shared);
    return rc;
}

/* One that is whole or cut, in the bulk lane. */
static int put_body_locked(rt_peer *p, rt_slice frame, const rt_body *body)
{
    rt_outq *q = &p->out;
    parts m = {{NULL, 0}, {NULL, 0}, rt_slice_of(body->p, body->n),
               rt_slice_of(frame.p + body->at, frame.n - body->at)};
    rt_control c;
    int rc = split(frame, &m.control, &m.before);
    if (rc < 0) return rc;
    m.before.n -= m.after.n;
    if (m.before.n > RT_BODY_BESIDE_MAX || m.after.n > RT_BODY_BESIDE_MAX) return RT_AGAIN;
    int64_t k = rt_control_parse(m.control.p, m.control.n, &c);
    if (k < 0) return (int)k;
    rc = rt_outq_keys_ready(q);
    if (rc < 0) return rc;
    if (m.after.n == 0 && frame.n + body->n <= RT_FRAGMENT_BYTES + RT_FRAGMENT_SLACK) {
        uint8_t *out = rt_outq_add_shared(q, frame.n, body->p, body->n, body->shared);
        if (!out) return RT_ENOMEM;
        memcpy(out, frame.p, frame.n);
        rt_frame_head_normal(out, frame.n - RT_FRAME_NORMAL_HEAD + body->n);
    } else {
        rc = cut(p, &m, RT_LANE_BULK, body->shared);
    }
    if (rc == RT_OK) hold_back(q, &c);
    return rc;
}

/* A small message while the bulk lane is in use. */
static int put_beside_bulk(rt_peer *p, rt_slice frame)
{
    rt_outq *q = &p->out;
    rt_control c;
    int64_t k = rt_control_parse(frame.p + RT_FRAME_NORMAL_HEAD, frame.n - RT_FRAME_NORMAL_HEAD,
                                 &c);
    if (k < 0) return (int)k;
    if (may_pass(q, &c)) return rt_outq_put(q, frame.p, frame.n);
    uint8_t *out = rt_outq_add_bulk(q, frame.n);
    if (!out) return RT_ENOMEM;
    memcpy(out, frame.p, frame.n);
    hold_back(q, &c);
    return RT_OK;
}

/* Rewrites a control message for a peer without the newer opcodes. RT_ENOENT:
 * the peer has no word for it. */
static int downgrade(rt_buf *b, uint64_t flags, const rt_control *c, rt_slice *payload)
{
    bool by_payload = (flags & RT_F_EXIT_PAYLOAD) != 0;
    rt_slice reason = *payload;
    switch (c->op) {
    case RT_OP_SEND_SENDER:
        if (flags & RT_F_SEND_SENDER) return RT_AGAIN;
        return rt_control_send(b, c->to);
    case RT_OP_ALIAS_SEND:
        return flags & RT_F_ALIAS ? RT_AGAIN : RT_ENOENT;
    case RT_OP_SPAWN_REQUEST:
    case RT_OP_SPAWN_REPLY:
        return flags & RT_F_SPAWN ? RT_AGAIN : RT_ENOENT;
    case RT_OP_UNLINK_ID:
        if (flags & RT_F_UNLINK_ID) return RT_AGAIN;
        return rt_control_unlink(b, c->from, c->to);
    case RT_OP_UNLINK_ID_ACK:
        return flags & RT_F_UNLINK_ID ? RT_AGAIN : RT_ENOENT;
    case RT_OP_PAYLOAD_EXIT:
    case RT_OP_PAYLOAD_EXIT2:
    case RT_OP_PAYLOAD_MONITOR_P_EXIT:
        if (by_payload) return RT_AGAIN;
        *payload = rt_slice_of(NULL, 0);
        if (c->op == RT_OP_PAYLOAD_EXIT) return rt_control_exit(b, c->from, c->to, reason);
        if (c->op == RT_OP_PAYLOAD_EXIT2) return rt_control_exit2(b, c->from, c->to, reason);
        return rt_control_monitor_exit(b, c->from, c->to, c->ref, reason);
    default:
        return RT_AGAIN;
    }
}

static int put_legacy(rt_peer *p, rt_slice frame)
{
    rt_slice control = {NULL, 0}, payload = {NULL, 0};
    rt_control c;
    rt_buf b = RT_BUF_INIT, pass = RT_BUF_INIT;
    int rc = split(frame, &control, &payload);
    if (rc < 0) return rc;
    int64_t k = rt_control_parse(control.p, control.n, &c);
    if (k < 0) return (int)k;
    rc = rt_outbound_begin(&b);
    if (rc < 0) goto out;
    rc = downgrade(&b, p->flags, &c, &payload);
    if (rc == RT_ENOENT) {
        atomic_fetch_add_explicit(&p->count.dropped_out, 1, memory_order_relaxed); /* a counter */
        rc = RT_OK;
        goto out;
    }
    if (rc == RT_AGAIN) rc = rt_buf_put(&b, control.p, control.n);
    if (rc == RT_OK) rc = rt_buf_put(&b, payload.p, payload.n);
    if (rc < 0) goto out;
    rt_frame_head_normal(b.p, b.n - RT_FRAME_NORMAL_HEAD);
    if (!p->header) {
        rc = rt_frame_to_pass(&pass, rt_slice_of(b.p, b.n));
        if (rc == RT_OK) rc = rt_outq_put(&p->out, pass.p, pass.n);
    } else if (p->fragment && b.n > RT_FRAGMENT_BYTES) {
        rc = put_fragments(p, rt_slice_of(b.p, b.n), NULL);
    } else {
        rc = rt_outq_put(&p->out, b.p, b.n);
    }
out:
    rt_buf_fini(&b);
    rt_buf_fini(&pass);
    return rc;
}

static int put_one(rt_peer *p, rt_slice frame, rt_buf *own)
{
    if (RT_UNLIKELY(p->legacy)) return put_legacy(p, frame);
    if (RT_UNLIKELY(frame.n > RT_FRAGMENT_BYTES && p->fragment))
        return put_fragments(p, frame, own);
    if (RT_UNLIKELY(rt_outq_bulk(&p->out))) return put_beside_bulk(p, frame);
    return rt_outq_put(&p->out, frame.p, frame.n);
}

int rt_outbound_put_locked(rt_peer *p, rt_slice frame) { return put_one(p, frame, NULL); }

enum { OP_AT = RT_FRAME_NORMAL_HEAD + RT_CONTROL_OP_AT };

/* Whether a frame is for whom the open one's last message is for, from the same sender. */
static bool same_way(const rt_outq *q, const uint8_t *frame, rt_lead lead)
{
    const uint8_t *open = q->open;
    if (!open) return false;
    if (lead.number && lead.number == q->open_lead) return true;
    if (q->open_places || 4 + (size_t)rt_load_u32(open) <= lead.n) return false;
    return (open[OP_AT] & ~RT_OP_PACK) == frame[OP_AT] &&
           memcmp(open + 4, frame + 4, OP_AT - 4) == 0 &&
           memcmp(open + OP_AT + 1, frame + OP_AT + 1, lead.n - OP_AT - 1) == 0;
}

/* Leading frames that together have at most `room` bytes, and how many they are. */
static rt_slice frames_within(rt_slice frames, size_t room, uint32_t *count)
{
    size_t at = 0;
    *count = 0;
    while (at < frames.n) {
        size_t n = 4 + (size_t)rt_load_u32(frames.p + at);
        if (n > room - at) break;
        at += n;
        ++*count;
    }
    return rt_slice_of(frames.p, at);
}

/* On an error frames and count become those before the one that failed. */
static int put_each_locked(rt_peer *p, rt_slice *frames, rt_buf *own, uint32_t *count)
{
    uint32_t done = 0;
    for (size_t at = 0; at < frames->n; done++) {
        size_t n = 4 + (size_t)rt_load_u32(frames->p + at);
        int rc = put_one(p, rt_slice_of(frames->p + at, n), own);
        if (rc < 0) {
            frames->n = at;
            *count = done;
            return rc;
        }
        at += n;
    }
    return RT_OK;
}

_Static_assert(RT_OUTQ_PLACES == RT_PACK_PLACES, "a bit and a number for each");

/* n more bytes of the open frame; NULL when there is none, or no room in it. */
RT_INLINE uint8_t *grow_locked(rt_outq *q, size_t n)
{
    uint8_t *open = q->open;
    size_t body = open ? rt_load_u32(open) + n : SIZE_MAX;
    uint8_t *to = body > RT_PACK_BYTES_MAX ? NULL : rt_outq_grow(q, n);
    if (!to) return NULL;
    rt_store_u32(open, (uint32_t)body);
    open[OP_AT] |= RT_OP_PACK;
    return to;
}

/* The open frame takes up one more payload for whom the last one was. */
RT_INLINE bool join_locked(rt_outq *q, rt_slice payload)
{
    uint8_t *to = payload.n < RT_PACK_PAYLOAD_MIN ? NULL : grow_locked(q, payload.n);
    if (to) memcpy(to, payload.p, payload.n);
    return to != NULL;
}

/* The same for somebody else, by the number of a place, or by a frame's head, which then has the
 * place. `frame`: one that begins with the lead; NULL: only if it has its place already. */
static bool turn_locked(rt_outq *q, rt_lead lead, const uint8_t *frame, rt_slice payload)
{
    uint32_t place = (uint32_t)(lead.number % RT_OUTQ_PLACES);
    bool known = q->open_places >> place & 1 && q->places[place] == lead.number;
    size_t head = known ? 0 : lead.n - 4;
    if (!q->open || !lead.number || payload.n < RT_PACK_PAYLOAD_MIN) return false;
    if (!known && (!frame || rt_outq_places_ready(q) < 0)) return false;
    uint8_t *to = grow_locked(q, 1 + head + payload.n);
    if (!to) return false;
    *to++ = (uint8_t)(known ? place : RT_PACK_NEW + place);
    if (!known) {
        memcpy(to, frame + 4, head);
        to[OP_AT - 4] |= RT_OP_PACK;
        q->places[place] = lead.number;
        q->open_places |= 1u << place;
    }
    memcpy(to + head, payload.p, payload.n);
    q->open_lead = lead.number;
    return true;
}

/* Queues frames that share a lead. One that was queued last and that nobody has begun to write
 * takes up what follows: the lead is nearly half of a small message, which the kernel need not copy
 * twice, nor the receiver look up. On an error as put_each_locked. */
static int pack_locked(rt_outq *q, rt_slice *frames, rt_lead lead, uint32_t *count)
{
    uint32_t done = 0;
    for (size_t at = 0, n; at < frames->n; at += n, done++) {
        const uint8_t *frame = frames->p + at;
        n = 4 + (size_t)rt_load_u32(frame);
        rt_slice payload = rt_slice_of(frame + lead.n, n - lead.n);
        if (same_way(q, frame, lead) ? !join_locked(q, payload)
                                     : !turn_locked(q, lead, frame, payload)) {
            if (rt_outq_put(q, frame, n) < 0) {
                frames->n = at;
                *count = done;
                return RT_ENOMEM;
            }
            rt_outq_keep_open(q, n);
        }
        q->open_lead = lead.number;
    }
    return RT_OK;
}

/* One message, or several, of so many bytes have been queued. */
static void queued_locked(rt_peer *p, const rt_limits *limits, uint32_t count, size_t before)
{
    if (p->out.bytes > limits->queue_bytes_soft) p->above_soft = true;
    rt_count_locked(&p->count.messages_out, count);
    rt_count_locked(&p->count.bytes_out, p->out.bytes - before);
}

bool rt_outbound_join(rt_peer *p, rt_lead lead, rt_slice payload, const rt_limits *limits,
                      rt_queued *how)
{
    rt_outq *q = &p->out;
    size_t whole = lead.n + payload.n; /* the limits count it as if it stood alone */
    if (whole > limits->message_bytes_max) return false;
    pthread_mutex_lock(&q->lock);
    size_t before = q->bytes;
    bool joined = q->open && lead.number && before + whole <= limits->queue_bytes_max &&
                  (RT_LIKELY(q->open_lead == lead.number) ? join_locked(q, payload)
                                                          : turn_locked(q, lead, NULL, payload));
    *how = (rt_queued){before, q->bytes - before};
    if (joined) queued_locked(p, limits, 1, before);
    pthread_mutex_unlock(&q->lock);
    return joined;
}

int rt_outbound_put(rt_peer *p, rt_slice frames, rt_lead lead, bool signal,
                    const rt_limits *limits, rt_buf *own, rt_queued *how)
{
    uint32_t count = 0;
    size_t room = SIZE_MAX;
    rt_slice put = rt_slice_of(frames.p, 0);
    int rc = RT_OK;
    pthread_mutex_lock(&p->out.lock);
    size_t before = p->out.bytes;
    enum rt_peer_state state = rt_peer_state_of(p);
    if (state == RT_PEER_IDLE) {
        rc = RT_ENOTCONN;
        goto out;
    }
    if (!signal && before + frames.n > limits->queue_bytes_max) {
        room = before < limits->queue_bytes_max ? limits->queue_bytes_max - before : 0;
        /* An empty queue takes one frame of any size. */
        if (before == 0 && room < 4 + (size_t)rt_load_u32(frames.p))
            room = 4 + (size_t)rt_load_u32(frames.p);
    }
    put = frames_within(frames, room, &count);
    if (put.n > 0) {
        bool up = state == RT_PEER_UP, plain = !p->legacy && !rt_outq_bulk(&p->out);
        if (up && plain && lead.n && p->flags & RT_F_PACKS &&
            (count > 1 || put.n <= RT_PACK_BYTES_MAX)) {
            rc = pack_locked(&p->out, &put, lead, &count);
        } else if (up && (!plain || count == 1)) {
            rc = put_each_locked(p, &put, count == 1 ? own : NULL, &count);
        } else {
            rc = rt_outq_put(&p->out, put.p, put.n);
            if (rc < 0) put.n = count = 0;
        }
    }
    queued_locked(p, limits, count, before);
    if (rc == RT_OK && put.n < frames.n) {
        rc = RT_EFULL;
        rt_count_locked(&p->count.refused, 1);
    }
out:
    pthread_mutex_unlock(&p->out.lock);
    if (how) *how = (rt_queued){before, put.n};
    return rc;
}

int rt_outbound_put_body(rt_peer *p, rt_slice frame, const rt_body *body, const rt_limits *limits,
                         rt_queued *how)
{
    size_t whole = frame.n + body->n;
    int rc = RT_OK;
    if (whole - RT_FRAME_NORMAL_HEAD > limits->message_bytes_max) return RT_ELIMIT;
    pthread_mutex_lock(&p->out.lock);
    size_t before = p->out.bytes;
    enum rt_peer_state state = rt_peer_state_of(p);
    if (state == RT_PEER_IDLE) rc = RT_ENOTCONN;
    else if (state != RT_PEER_UP || p->legacy || !p->fragment) rc = RT_AGAIN;
    else if (before > 0 && before + whole > limits->queue_bytes_max) rc = RT_EFULL;
    else rc = put_body_locked(p, frame, body);
    if (rc == RT_EFULL) rt_count_locked(&p->count.refused, 1);
    if (rc == RT_OK) queued_locked(p, limits, 1, before);
    pthread_mutex_unlock(&p->out.lock);
    *how = (rt_queued){before, rc == RT_OK ? whole : 0};
    return rc;
}

/* How many messages a frame ends: none is a tick or a fragment that others follow, many a pack. */
static uint64_t messages_in(const uint8_t *p, size_t n)
{
    const size_t op_at = OP_AT - 4;
    if (n < 2 || p[0] != RT_TAG_VERSION) return n > 0;
    if (p[1] == RT_TAG_DIST_FRAG_FIRST || p[1] == RT_TAG_DIST_FRAG_NEXT)
        return n >= 18 && rt_load_u64(p + 10) == 1;
    if (n <= op_at || p[op_at - 1] != RT_TAG_SMALL_INTEGER || !(p[op_at] & RT_OP_PACK)) return 1;
    uint64_t payloads = 0;
    size_t at = RT_FRAME_NORMAL_HEAD - 4;
    int64_t k = rt_term_skip(p + at, n - at); /* the control tuple */
    while (k > 0 && (at += (size_t)k) < n) {
        bool turn = p[at] < RT_PACK_NEW + RT_PACK_PLACES, head = turn && p[at] >= RT_PACK_NEW;
        at += turn + (head ? RT_FRAME_NORMAL_HEAD - 4 : 0);
        payloads += !head;
        k = at < n ? rt_term_skip(p + at, n - at) : 0;
    }
    return payloads;
}

uint64_t rt_outbound_count(const rt_outchunk *list)
{
    uint64_t count = 0;
    for (const rt_outchunk *c = list; c; c = c->next) {
        if (c->raw) continue;
        for (size_t at = 0; at + 4 <= c->n;) {
            size_t n = rt_load_u32(c->data + at);
            at += 4 + n;
            if (at > c->off) count += messages_in(c->data + at - n, n);
        }
    }
    return count;
}
