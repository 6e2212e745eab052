/* needs: route */
/* Several senders, many receivers, connections that end at any byte, memory that is short: what came
 * over the wire is what was sent, by an independent reader; what did not is counted as lost. */
#include "pack.h"

enum { PIDS = 24, NAMES = 6, ALIASES = 6, DESTS = PIDS + NAMES + ALIASES, SENDERS = 5,
       WAYS = SENDERS * DESTS, TRACE = 1 << 16 };

typedef struct way {
    uint8_t lead[256];
    size_t n;
    uint64_t number;
    uint32_t next, expect;    /* the next to send; the next that may be on the wire */
} way;

typedef struct storm {
    pair p;
    rt_process *box[DESTS];
    uint8_t alias[ALIASES][64];
    size_t alias_n[ALIASES];
    way way[WAYS];
    uint64_t numbers, accepted, written, signals, signals_written, delivered;
    uint32_t *due[DESTS];     /* (way, seq) in the order of the wire */
    size_t due_n[DESTS], due_at[DESTS];
    stress_random seed;
    uint64_t turns, packs;
} storm;

static void lead_of(storm *s, int w)
{
    uint8_t from[64], pid[RT_PID_BYTES_MAX];
    int dest = w % DESTS;
    rt_buf b = RT_BUF_INIT;
    memcpy(from, "Xw\xb" "a@127.0.0.1" "\0\0\0\1\0\0\0\0\0\0\0\1", 26);
    from[17] = (uint8_t)(w / DESTS + 1);
    rt_slice sender = rt_slice_of(from, 26);
    CHECK_INT(rt_outbound_begin(&b), RT_OK);
    if (dest < PIDS) {
        size_t k = rt_route_pid(&s->p.n.route, s->box[dest]->self, pid);
        CHECK_INT(rt_control_send_sender(&b, sender, rt_slice_of(pid, k)), RT_OK);
    } else if (dest < PIDS + NAMES) {
        char name[16];
        int n = snprintf(name, sizeof name, "box%d", dest);
        CHECK_INT(rt_control_reg_send(&b, sender, rt_slice_of(name, (size_t)n)), RT_OK);
    } else {
        int a = dest - PIDS - NAMES;
        CHECK_INT(rt_control_alias_send(&b, sender, rt_slice_of(s->alias[a], s->alias_n[a])), RT_OK);
    }
    memcpy(s->way[w].lead, b.p, b.n);
    s->way[w].n = b.n;
    rt_buf_fini(&b);
}

static void storm_open(storm *s, uint64_t seed)
{
    memset(s, 0, sizeof *s);
    s->seed.s = seed;
    pair_open(&s->p, true);
    for (int i = 0; i < DESTS; i++) {
        CHECK_INT(rt_process_new(s->p.n.route.registry, &s->box[i]), RT_OK);
        s->due[i] = malloc(TRACE * 8);
    }
    for (int i = 0; i < NAMES; i++) {
        char name[16];
        int n = snprintf(name, sizeof name, "box%d", PIDS + i);
        CHECK_INT(rt_registry_register(s->p.n.route.registry, rt_slice_of(name, (size_t)n),
                                       s->box[PIDS + i]->self), RT_OK);
    }
    for (int i = 0; i < ALIASES; i++) {
        static const uint8_t ref[] = "Z\0\1w\xb" NODE "\0\0\0\7\0\0\0\1";
        s->alias_n[i] = sizeof ref - 1;
        memcpy(s->alias[i], ref, sizeof ref - 1);
        s->alias[i][sizeof ref - 2] = (uint8_t)(i + 1);
        rt_relation rel = {.kind = RT_REL_ALIAS, .flags = 0,
                           .local = s->box[PIDS + NAMES + i]->self,
                           .ref = rt_slice_of(s->alias[i], s->alias_n[i])};
        CHECK_INT(rt_relations_add(s->p.n.route.relations, &rel), RT_OK);
    }
    for (int w = 0; w < WAYS; w++) {
        lead_of(s, w);
        s->way[w].number = ++s->numbers;
    }
}

static void put_term(rt_buf *b, uint32_t w, uint32_t seq, size_t n)
{
    CHECK_INT(rt_buf_reserve(b, 32 + n), RT_OK);
    rt_buf_u8(b, RT_TAG_SMALL_TUPLE);
    rt_buf_u8(b, n == SIZE_MAX ? 2 : 3);
    rt_buf_u8(b, RT_TAG_INTEGER);
    rt_buf_u32(b, w);
    rt_buf_u8(b, RT_TAG_INTEGER);
    rt_buf_u32(b, seq);
    if (n == SIZE_MAX) return;  /* 12 bytes: too short for a pack */
    rt_buf_u8(b, RT_TAG_BINARY);
    rt_buf_u32(b, (uint32_t)n);
    memset(b->p + b->n, (int)(seq & 0x3f), n);   /* bytes that look like turns */
    b->n += n;
}

static size_t some_size(storm *s)
{
    uint32_t r = stress_below(&s->seed, 1000);
    if (r < 20) return SIZE_MAX;
    if (r < 850) return stress_below(&s->seed, 60);
    if (r < 960) return stress_below(&s->seed, 2000);
    if (r < 992) return stress_below(&s->seed, 20000);
    if (r < 997) return stress_below(&s->seed, 60000);
    return 60000 + stress_below(&s->seed, 300000);
}

static void add_frame(storm *s, rt_buf *b, int w, uint32_t seq, size_t n)
{
    size_t start = b->n;
    CHECK_INT(rt_buf_put(b, s->way[w].lead, s->way[w].n), RT_OK);
    put_term(b, (uint32_t)w, seq, n);
    CHECK_INT(rt_outbound_end(b, start, &s->p.limits), RT_OK);
}

static void send_some(storm *s, int w, bool memory_short)
{
    way *y = &s->way[w];
    rt_peer *p = s->p.there;
    rt_buf b = RT_BUF_INIT;
    rt_queued how;
    uint32_t count = stress_below(&s->seed, 10) ? 1 : 1 + stress_below(&s->seed, 40);
    rt_lead lead = {y->n, stress_below(&s->seed, 50) ? y->number : 0};
    rt_limits limits = s->p.limits;
    size_t ends[64];
    for (uint32_t i = 0; i < count; i++) {
        size_t n = some_size(s);
        if (count > 1 && n != SIZE_MAX && n > 60000) n = 100;
        add_frame(s, &b, w, y->next + i, n);
        ends[i] = b.n;
    }
    if (stress_below(&s->seed, 20) == 0)
        limits.queue_bytes_max = p->out.bytes + stress_below(&s->seed, 600);
    uint64_t out = p->count.messages_out, bytes = p->count.bytes_out, was = p->out.bytes;
    if (memory_short) rt_alloc_fail_after(stress_below(&s->seed, 3));
    bool joined = false;
    if (count == 1 && stress_below(&s->seed, 5))
        joined = rt_outbound_join(p, lead, rt_slice_of(b.p + lead.n, b.n - lead.n), &limits, &how);
    int rc = RT_OK;
    uint32_t took = 1;
    if (!joined) {
        if (stress_below(&s->seed, 60) == 0) lead = RT_LEAD_NONE; /* as send_copy */
        if (count > 1 && lead.n == 0) lead.n = y->n;
        rc = rt_outbound_put(p, rt_slice_of(b.p, b.n), lead, false, &limits,
                             count == 1 ? &b : NULL, &how);
        took = 0;
        for (uint32_t i = 0; i < count; i++) took += ends[i] <= how.taken;
        CHECK(rc == RT_OK ? took == count : rc == RT_EFULL || rc == RT_ENOMEM);
    } else {
        CHECK_INT(how.before, was);
        CHECK_INT(how.taken, p->out.bytes - was);
    }
    rt_alloc_fail_after(-1);
    CHECK_INT(p->count.messages_out - out, took);
    CHECK_INT(p->count.bytes_out - bytes, p->out.bytes - was);
    y->next += took;
    s->accepted += took;
    rt_buf_fini(&b);
}

static void send_signal(storm *s)
{
    rt_buf b = RT_BUF_INIT;
    uint8_t pid[RT_PID_BYTES_MAX];
    size_t k = rt_route_pid(&s->p.n.route, s->box[0]->self, pid);
    static const uint8_t from[] = "Xw\xb" "a@127.0.0.1" "\0\0\0\1\0\0\0\0\0\0\0\1";
    CHECK_INT(rt_outbound_begin(&b), RT_OK);
    CHECK_INT(rt_control_unlink(&b, rt_slice_of(from, sizeof from - 1), rt_slice_of(pid, k)), RT_OK);
    CHECK_INT(rt_outbound_end(&b, 0, &s->p.limits), RT_OK);
    int rc = rt_outbound_put(s->p.there, rt_slice_of(b.p, b.n), RT_LEAD_NONE, true, &s->p.limits,
                             NULL, NULL);
    CHECK_INT(rc, RT_OK);
    s->signals++;
    rt_buf_fini(&b);
}

/* One message that stands on the wire. */
static void seen(storm *s, const uint8_t *lead, size_t lead_n, const uint8_t *p)
{
    uint32_t w = rt_load_u32(p + 3), seq = rt_load_u32(p + 8);
    CHECK(w < WAYS);
    way *y = &s->way[w];
    int dest = (int)(w % DESTS);
    CHECK_INT(lead_n, y->n - 7);
    for (size_t i = 0; i < lead_n; i++) /* the head, but for the bit */
        CHECK_INT(lead[i] & (i == 3 ? 0x7f : 0xff), y->lead[7 + i]);
    CHECK_INT(seq, y->expect);
    y->expect = seq + 1;
    s->written++;
    CHECK(s->due_n[dest] < TRACE);
    s->due[dest][2 * s->due_n[dest]] = w;
    s->due[dest][2 * s->due_n[dest]++ + 1] = seq;
}

static void read_pack(storm *s, const uint8_t *p, size_t n)
{
    struct { const uint8_t *p; size_t n; } place[32] = {{0}}, now;
    size_t at = 3;
    int64_t k = rt_term_skip(p + at, n - at);
    CHECK(k > 0 && n <= RT_PACK_BYTES_MAX);
    now.p = p + at, now.n = (size_t)k;
    at += (size_t)k;
    for (bool first = true; at < n; first = false) {
        if (!first && p[at] < 32) {
            CHECK(place[p[at]].p);
            now.p = place[p[at]].p, now.n = place[p[at]].n;
            at++, s->turns++;
        } else if (!first && p[at] < 64) {
            int i = p[at] - 32;
            CHECK(memcmp(p + at + 1, "\x83\x44\0", 3) == 0);
            at += 4, s->turns++;
            k = rt_term_skip(p + at, n - at);
            CHECK(k > 0 && p[at + 3] & 0x80);
            place[i].p = now.p = p + at, place[i].n = now.n = (size_t)k;
            at += (size_t)k;
        }
        CHECK(at < n);
        k = rt_term_skip(p + at, n - at);
        CHECK(k > 0 && (first || k >= 16));
        seen(s, now.p, now.n, p + at);
        at += (size_t)k;
    }
    CHECK_INT(at, n);
    s->packs++;
}

/* Frames in the stream; of fragments the first is kept until the last one comes. */
static struct { uint64_t seq; uint8_t head[256]; size_t n; uint8_t term[13]; } begun[8];

static void read_frame(storm *s, const uint8_t *p, size_t n)
{
    if (p[1] == 69) {
        int i = 0;
        while (i < 8 && begun[i].seq) i++;
        CHECK(i < 8);
        begun[i].seq = rt_load_u64(p + 2);
        int64_t k = rt_term_skip(p + 19, n - 19);
        CHECK(k > 0);
        memcpy(begun[i].head, p + 19, begun[i].n = (size_t)k);
        memcpy(begun[i].term, p + 19 + k, 13);
        if (rt_load_u64(p + 10) > 1) return; /* a frame little longer than a fragment is one */
        seen(s, begun[i].head, begun[i].n, begun[i].term);
        begun[i].seq = 0;
    } else if (p[1] == 70) {
        if (rt_load_u64(p + 10) > 1) return;
        int i = 0;
        while (i < 8 && begun[i].seq != rt_load_u64(p + 2)) i++;
        CHECK(i < 8);
        seen(s, begun[i].head, begun[i].n, begun[i].term);
        begun[i].seq = 0;
    } else {
        CHECK(p[0] == 131 && p[1] == 68 && p[2] == 0);
        if (p[6] & 0x80) {
            read_pack(s, p, n);
        } else if (p[6] == RT_OP_UNLINK) {
            s->signals_written++;
        } else {
            int64_t k = rt_term_skip(p + 3, n - 3);
            CHECK(k > 0);
            CHECK_INT(rt_term_skip(p + 3 + k, n - 3 - (size_t)k), n - 3 - (size_t)k);
            seen(s, p + 3, (size_t)k, p + 3 + k);
        }
    }
}

static void look_and_feed(storm *s)
{
    pair *t = &s->p;
    size_t at = t->read;
    while (t->wire.n - at >= 4) {
        size_t n = rt_load_u32(t->wire.p + at);
        if (t->wire.n - at - 4 < n) break;
        read_frame(s, t->wire.p + at + 4, n);
        at += 4 + n;
    }
    read_all(t);
    CHECK_INT(at, t->read);
    if (t->read == t->wire.n) t->read = t->wire.n = 0;
}

static void empty_boxes(storm *s)
{
    for (int d = 0; d < DESTS; d++) {
        for (rt_message *m; (m = rt_mailbox_pop(&s->box[d]->mailbox)); s->due_at[d]++, s->delivered++) {
            const uint8_t *p = rt_message_data(m);
            CHECK(s->due_at[d] < s->due_n[d]);
            CHECK_INT(rt_load_u32(p + 3), s->due[d][2 * s->due_at[d]]);
            CHECK_INT(rt_load_u32(p + 8), s->due[d][2 * s->due_at[d] + 1]);
            rt_message_free(m);
        }
        CHECK_INT(s->due_at[d], s->due_n[d]);
        s->due_at[d] = s->due_n[d] = 0;
    }
}

static void reconnect(storm *s)
{
    pair *t = &s->p;
    uint64_t flags = RT_FLAGS_OURS | RT_F_PACKS;
    look_and_feed(s);
    empty_boxes(s);
    CHECK_INT(t->here->count.messages_in, s->written);
    uint64_t dropped = t->there->count.dropped_out;
    uint64_t lost = rt_peer_down(t->there);
    CHECK_INT(t->there->count.dropped_out - dropped, lost);
    CHECK_INT(lost, s->accepted + s->signals - s->written - s->signals_written);
    rt_peer_down(t->here);
    t->read = t->wire.n = 0;
    memset(begun, 0, sizeof begun);
    s->accepted = s->written;
    s->signals = s->signals_written;
    for (int w = 0; w < WAYS; w++) s->way[w].expect = s->way[w].next;
    if (stress_below(&s->seed, 2)) {
        rt_peer_set_state(t->there, RT_PEER_CONNECTING);
        for (int i = 0; i < 30; i++) send_some(s, (int)stress_below(&s->seed, WAYS), false);
    }
    CHECK_INT(rt_peer_up(t->there, flags, CREATION, &t->limits), RT_OK);
    CHECK_INT(rt_peer_up(t->here, flags, 1, &t->limits), RT_OK);
}

static void run(uint64_t seed, int steps)
{
    static storm s;
    storm_open(&s, seed * 0x9e3779b97f4a7c15ull + 1);
    s.p.limits.message_bytes_max = s.p.n.route.limits.message_bytes_max;
    uint32_t few = 4, base = 0;
    for (int i = 0; i < steps; i++) {
        uint32_t r = stress_below(&s.seed, 1000);
        if (r < 3) few = 1 + stress_below(&s.seed, r == 0 ? WAYS : 40), base = stress_below(&s.seed, WAYS);
        int w = (int)((base + stress_below(&s.seed, few)) % WAYS);
        if (r < 900) send_some(&s, w, r % 40 == 0);
        else if (r < 910) send_signal(&s);
        else if (r < 925) s.way[w].number = ++s.numbers;  /* evicted and made anew */
        else if (r < 965) write_some(&s.p, r & 1 ? SIZE_MAX : 1 + stress_below(&s.seed, 6000));
        else if (r < 990) look_and_feed(&s), empty_boxes(&s);
        else if (r < 992) reconnect(&s);
        if (s.p.there->out.bytes > 3u << 20)
            while (s.p.there->out.bytes) write_some(&s.p, SIZE_MAX);
        if (r == 999) { /* names and pids come and go */
            char a[16];
            int d = PIDS + (int)stress_below(&s.seed, NAMES);
            int n = snprintf(a, sizeof a, "box%d", d);
            look_and_feed(&s);
            empty_boxes(&s);
            CHECK_INT(rt_registry_unregister(s.p.n.route.registry, rt_slice_of(a, (size_t)n)), RT_OK);
            end_box(&s.p.n, s.box[d]); /* another takes it */
            CHECK_INT(rt_process_new(s.p.n.route.registry, &s.box[d]), RT_OK);
            CHECK_INT(rt_registry_register(s.p.n.route.registry, rt_slice_of(a, (size_t)n),
                                           s.box[d]->self), RT_OK);
            /* and one pid is no more, when nothing is on its way to it */
            while (s.p.there->out.bytes) write_some(&s.p, SIZE_MAX);
            look_and_feed(&s);
            empty_boxes(&s);
            d = (int)stress_below(&s.seed, PIDS);
            end_box(&s.p.n, s.box[d]);
            CHECK_INT(rt_process_new(s.p.n.route.registry, &s.box[d]), RT_OK);
            for (int k = 0; k < SENDERS; k++) {
                lead_of(&s, k * DESTS + d);
                s.way[k * DESTS + d].number = ++s.numbers;
            }
        }
    }
    while (s.p.there->out.bytes) write_some(&s.p, SIZE_MAX);
    look_and_feed(&s);
    empty_boxes(&s);
    CHECK_INT(s.written, s.accepted);
    CHECK_INT(s.signals_written, s.signals);
    CHECK(s.turns > (uint64_t)steps / 20);
    if (getenv("VERBOSE")) printf("seed %llu: %llu messages, %llu packs, %llu turns\n",
        (unsigned long long)seed, (unsigned long long)s.written, (unsigned long long)s.packs,
        (unsigned long long)s.turns);
    for (int d = 0; d < DESTS; d++) {
        end_box(&s.p.n, s.box[d]);
        free(s.due[d]);
    }
    pair_close(&s.p);
}

static void test_storm(void)
{
    const char *first = getenv("RT_SEED");
    uint64_t seed = first ? strtoull(first, NULL, 10) : 1;
    for (uint64_t i = 0; i < 4 * stress_scale(); i++) run(seed + i, 20000);
}

TESTS(test_storm)
