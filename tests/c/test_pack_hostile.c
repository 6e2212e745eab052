/* needs: route */
/* What a peer may put into a pack: remembered heads and parsed ones are the same to it, work is
 * bounded, and memory that is short is said to be. */
#include "pack.h"

#include <time.h>

#include "route/multicast.h"
#include "term/ident.h"

static const uint8_t SENDER[] = "Xw\xb" "a@127.0.0.1" "\0\0\0\1\0\0\0\0\0\0\0\1";
static const uint8_t ALIAS[] = "Z\0\1w\xb" NODE "\0\0\0\7\0\0\0\1";

enum { HEADS = 14 };

typedef struct heads {
    uint8_t at[HEADS][512];
    size_t n[HEADS];
    uint8_t pids[3][64];
    size_t pid_n[3];
} heads;

static rt_slice slice(const rt_buf *b) { return rt_slice_of(b->p, b->n); }

static void keep(heads *h, int i, rt_buf *control)
{
    memcpy(h->at[i], "\x83\x44\0", 3);
    memcpy(h->at[i] + 3, control->p, control->n);
    h->at[i][3 + RT_CONTROL_OP_AT] |= RT_OP_PACK;
    h->n[i] = 3 + control->n;
    control->n = 0;
}

/* Pids (one dead), names (one is nobody's, one the kernel's, one the multicaster's), an alias, a pid
 * of another node and of another creation, old tags. */
static void heads_of(pair *t, heads *h, rt_pid dead)
{
    rt_slice from = rt_slice_of(SENDER, sizeof SENDER - 1);
    rt_buf c = RT_BUF_INIT, pid = RT_BUF_INIT;
    int i = 0;
    for (int k = 0; k < 3; k++) {
        pid.n = 0;
        rt_pid self = t->box[k]->self;
        CHECK_INT(rt_put_pid(&pid, S(NODE), (uint32_t)self, (uint32_t)(self >> 32), CREATION), RT_OK);
        memcpy(h->pids[k], pid.p, h->pid_n[k] = pid.n);
        CHECK_INT(rt_control_send_sender(&c, from, slice(&pid)), RT_OK);
        keep(h, i++, &c);
    }
    static const char *names[] = {"name", "nobody", "net_kernel", RT_MULTICAST_NAME};
    for (int k = 0; k < 4; k++) {
        CHECK_INT(rt_control_reg_send(&c, from, rt_slice_of(names[k], strlen(names[k]))), RT_OK);
        keep(h, i++, &c);
    }
    CHECK_INT(rt_control_alias_send(&c, from, rt_slice_of(ALIAS, sizeof ALIAS - 1)), RT_OK);
    keep(h, i++, &c);
    for (int k = 0; k < 3; k++) { /* elsewhere, older, dead */
        pid.n = 0;
        CHECK_INT(rt_put_pid(&pid, k ? S(NODE) : S("c@127.0.0.1"), k == 2 ? (uint32_t)dead : 1,
                             k == 2 ? (uint32_t)(dead >> 32) : 0, k == 1 ? 3 : CREATION), RT_OK);
        CHECK_INT(rt_control_send_sender(&c, from, slice(&pid)), RT_OK);
        keep(h, i++, &c);
    }
    /* a tuple with an opcode of four bytes; a latin-1 name; a longer node name in the sender */
    CHECK_INT(rt_control_reg_send(&c, from, S("name")), RT_OK);
    memcpy(h->at[i], "\x83\x44\0h\4b\0\0\0\x86", 10);
    memcpy(h->at[i] + 10, c.p + 4, c.n - 4);
    h->n[i++] = 6 + c.n;
    keep(h, i, &c);
    h->at[i][h->n[i] - 6] = RT_TAG_SMALL_ATOM_LATIN1;
    i++;
    rt_slice long_form = S("Xv\0\xb" "x@127.0.0.1" "\0\0\0\1\0\0\0\0\0\0\0\1");
    CHECK_INT(rt_control_reg_send(&c, long_form, S("name")), RT_OK);
    keep(h, i++, &c);
    CHECK_INT(i, HEADS);
    rt_buf_fini(&c);
    rt_buf_fini(&pid);
}

static void put_payload(rt_buf *b, const heads *h, stress_random *r, uint32_t number)
{
    CHECK_INT(rt_buf_reserve(b, 1024), RT_OK);
    uint32_t kind = stress_below(r, 12);
    if (kind == 0) {
        rt_buf pids = RT_BUF_INIT;
        uint32_t n = stress_below(r, 4);
        for (uint32_t i = 0; i < n; i++)
            CHECK_INT(rt_buf_put(&pids, h->pids[i % 3], h->pid_n[i % 3]), RT_OK);
        CHECK_INT(rt_multicast_put(b, slice(&pids), n), RT_OK);
        rt_buf_fini(&pids);
        CHECK_INT(rt_buf_reserve(b, 64), RT_OK);
    } else if (kind == 1) { /* is_auth */
        rt_buf_raw(b, "h\3w\x09$gen_callh\2", 15);
        rt_buf_raw(b, SENDER, sizeof SENDER - 1);
        rt_buf_raw(b, "a\1h\2w\7is_autha\1", 15);
        return;
    }
    rt_buf_raw(b, "h\2b", 3);
    rt_buf_u32(b, number);
    uint32_t n = stress_below(r, 40);
    rt_buf_raw(b, "m\0\0\0", 4);
    rt_buf_u8(b, (uint8_t)n);
    memset(b->p + b->n, (int)stress_below(r, 70), n);
    b->n += n;
}

static void random_pack(rt_buf *b, const heads *h, stress_random *r)
{
    uint32_t known = 0, count = 1 + stress_below(r, 20);
    b->n = 0;
    int i = (int)stress_below(r, HEADS);
    CHECK_INT(rt_buf_put(b, h->at[i], h->n[i]), RT_OK);
    for (uint32_t k = 0; k < count; k++) {
        put_payload(b, h, r, k);
        CHECK_INT(rt_buf_reserve(b, 2048), RT_OK);
        if (k + 1 == count || stress_below(r, 3) == 0) continue;
        uint32_t place = stress_below(r, 6);
        if (known >> place & 1 && stress_below(r, 3)) {
            rt_buf_u8(b, (uint8_t)place);
        } else {
            i = (int)stress_below(r, HEADS);
            rt_buf_u8(b, (uint8_t)(32 + place));
            rt_buf_raw(b, h->at[i], h->n[i]);
            known |= 1u << place;
        }
    }
    for (uint32_t m = stress_below(r, 3); m && b->n; m--) { /* and some of it wrong */
        uint32_t at = stress_below(r, (uint32_t)b->n);
        switch (stress_below(r, 5)) {
        case 0: b->p[at] = (uint8_t)stress_next(r); break;
        case 1: b->p[at] ^= (uint8_t)(1u << stress_below(r, 8)); break;
        case 2: b->n = at; break;
        case 3: memmove(b->p + at, b->p + at + 1, b->n - at - 1), b->n--; break;
        default:
            CHECK_INT(rt_buf_reserve(b, 1), RT_OK);
            memmove(b->p + at + 1, b->p + at, b->n - at), b->n++;
            b->p[at] = (uint8_t)stress_below(r, 64);
        }
    }
}

static rt_pid new_dead(pair *t)
{
    rt_process *p;
    CHECK_INT(rt_process_new(t->n.route.registry, &p), RT_OK);
    rt_pid dead = p->self;
    end_box(&t->n, p);
    rt_route_set_multicaster(&t->n.route, t->box[2]->self);
    CHECK_INT(rt_registry_register(t->n.route.registry, S(RT_MULTICAST_NAME), t->box[2]->self), RT_OK);
    return dead;
}

static int feed_copy(pair *t, const rt_buf *b)
{
    unsigned char *copy = check_copy(b->p, b->n);
    int rc = rt_inbound_packet(&t->n.in, t->here, copy, b->n);
    free(copy);
    rt_inbound_flush(&t->n.in);
    return rc;
}

static void same_boxes(pair *a, pair *b)
{
    for (int k = 0; k < BOXES; k++) {
        for (;;) {
            rt_message *m = rt_mailbox_pop(&a->box[k]->mailbox), *o = rt_mailbox_pop(&b->box[k]->mailbox);
            CHECK((m == NULL) == (o == NULL));
            if (!m || !o) {
                if (m) rt_message_free(m);
                if (o) rt_message_free(o);
                break;
            }
            CHECK_INT(m->n, o->n);
            CHECK(m->n == o->n && memcmp(rt_message_data(m), rt_message_data(o), m->n) == 0);
            rt_message_free(m);
            rt_message_free(o);
        }
    }
}

/* One side remembers what it can, the other nothing. */
static void test_remembered_and_parsed_are_the_same(void)
{
    const char *first = getenv("RT_SEED");
    stress_random r = {(first ? strtoull(first, NULL, 10) : 1) * 77 + 3};
    pair warm, cold;
    heads h;
    rt_buf b = RT_BUF_INIT;
    uint64_t flags = RT_FLAGS_OURS | RT_F_PACKS, good = 0, bad = 0;
    pair_open(&warm, true);
    pair_open(&cold, true);
    heads_of(&warm, &h, new_dead(&warm));
    new_dead(&cold);
    for (uint64_t i = 0; i < 30000 * stress_scale(); i++) {
        rt_peer_down(cold.here);
        CHECK_INT(rt_peer_up(cold.here, flags, 1, &cold.limits), RT_OK);
        if (stress_below(&r, 20) == 0) {
            pair *both[] = {&warm, &cold};
            int to = (int)stress_below(&r, BOXES - 1);
            for (int k = 0; k < 2; k++) {
                rt_registry *reg = both[k]->n.route.registry;
                CHECK_INT(rt_registry_unregister(reg, S("name")), RT_OK);
                CHECK_INT(rt_registry_register(reg, S("name"), both[k]->box[to]->self), RT_OK);
            }
        }
        random_pack(&b, &h, &r);
        if (b.n == 0) continue;
        uint64_t in = warm.here->count.messages_in, cin = cold.here->count.messages_in;
        uint64_t drop = warm.here->count.dropped_in, cdrop = cold.here->count.dropped_in;
        uint64_t out = warm.here->out.bytes, cout = cold.here->out.bytes;
        int rc = feed_copy(&warm, &b), crc = feed_copy(&cold, &b);
        CHECK_INT(rc, crc);
        CHECK_INT(warm.here->count.messages_in - in, cold.here->count.messages_in - cin);
        CHECK_INT(warm.here->count.dropped_in - drop, cold.here->count.dropped_in - cdrop);
        CHECK_INT(warm.here->out.bytes - out, cold.here->out.bytes - cout);
        same_boxes(&warm, &cold);
        if (rc == RT_OK) good++;
        else bad++;
        if (warm.here->out.bytes > 1 << 20) {
            rt_outchunk_free(rt_outq_take(&warm.here->out));
        }
    }
    if (getenv("VERBOSE")) printf("good %lu bad %lu\n", (unsigned long)good, (unsigned long)bad);
    CHECK(good > 1000 && bad > 1000);
    rt_buf_fini(&b);
    pair_close(&warm);
    pair_close(&cold);
}

/* Whichever allocation fails while a pack comes, it is our memory that was short, and what came is
 * the beginning of it. */
static void test_no_memory_within_a_pack(void)
{
    bool done = false;
    for (long at = 0; !done; at++) {
        stress_random r = {5};
        pair t;
        heads h;
        rt_buf b = RT_BUF_INIT;
        pair_open(&t, true);
        heads_of(&t, &h, new_dead(&t));
        static const int order[] = {0, 1, 3, 2, 0, 1, 3, 13, 12, 7};
        for (int i = 0; i < 10; i++) {
            if (i) CHECK_INT(rt_buf_put(&b, &(uint8_t){(uint8_t)(32 + i)}, 1), RT_OK);
            CHECK_INT(rt_buf_put(&b, h.at[order[i]], h.n[order[i]]), RT_OK);
            do {
                CHECK_INT(rt_buf_reserve(&b, 64), RT_OK);
                rt_buf_raw(&b, "h\2b", 3);
                rt_buf_u32(&b, (uint32_t)i);
                rt_buf_raw(&b, "m\0\0\0\x0axxxxxxxxxx", 15);
            } while (stress_below(&r, 3));
        }
        rt_alloc_fail_after(at);
        int rc = rt_inbound_packet(&t.n.in, t.here, b.p, b.n);
        rt_inbound_flush(&t.n.in);
        rt_alloc_fail_after(-1);
        CHECK(rc == RT_OK || rc == RT_ENOMEM);
        int64_t last[BOXES] = {-1, -1, -1};
        for (int k = 0; k < BOXES; k++)
            for (int64_t m; (m = next(&t, k)) >= 0; last[k] = m) CHECK(m >= last[k]);
        done = at > 60;
        rt_buf_fini(&b);
        pair_close(&t);
    }
}

/* A head whose unused element is deep needs memory to be parsed. */
static void test_no_memory_for_a_head(void)
{
    for (int second = 0; second < 2; second++) {
        int seen_enomem = 0;
        for (long at = 0; at < 12; at++) {
            pair t;
            rt_buf b = RT_BUF_INIT;
            uint8_t lists[400];
            size_t deep = 0;
            for (int i = 0; i < 70; i++) memcpy(lists + deep, "l\0\0\0\1", 5), deep += 5;
            pair_open(&t, true);
            heads h;
            heads_of(&t, &h, new_dead(&t));
            for (int i = 0; i <= second; i++) {
                const uint8_t *head = h.at[3];
                if (i) CHECK_INT(rt_buf_put(&b, "\x21", 1), RT_OK);
                if (second && !i) {
                    CHECK_INT(rt_buf_put(&b, h.at[1], h.n[1]), RT_OK);
                } else {
                    size_t k = 3 + 4 + sizeof SENDER - 1;
                    CHECK_INT(rt_buf_put(&b, head, k), RT_OK);
                    CHECK_INT(rt_buf_put(&b, lists, deep), RT_OK);
                    for (int d = 0; d <= 70; d++) CHECK_INT(rt_buf_put(&b, "j", 1), RT_OK);
                    CHECK_INT(rt_buf_put(&b, head + k + 2, h.n[3] - k - 2), RT_OK);
                }
                CHECK_INT(rt_buf_put(&b, "h\2b\0\0\0\7m\0\0\0\x0axxxxxxxxxx", 22), RT_OK);
            }
            rt_alloc_fail_after(at);
            int rc = rt_inbound_packet(&t.n.in, t.here, b.p, b.n);
            rt_inbound_flush(&t.n.in);
            rt_alloc_fail_after(-1);
            CHECK(rc == RT_OK || rc == RT_ENOMEM);
            seen_enomem += rc == RT_ENOMEM;
            rt_buf_fini(&b);
            pair_close(&t);
        }
        CHECK(seen_enomem > 1);
    }
}

static double seconds(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

/* A long head costs its parsing once for each time it stands there. */
static void test_a_long_head_is_read_once(void)
{
    pair t;
    heads h;
    rt_buf b = RT_BUF_INIT;
    double took[2];
    pair_open(&t, true);
    heads_of(&t, &h, new_dead(&t));
    for (int many = 0; many < 2; many++) {
        const uint8_t *head = h.at[4]; /* nobody */
        size_t k = 3 + 4 + sizeof SENDER - 1;
        uint32_t elements = 4000;
        b.n = 0;
        CHECK_INT(rt_buf_put(&b, head, k), RT_OK);
        CHECK_INT(rt_buf_reserve(&b, 32768), RT_OK);
        rt_buf_u8(&b, RT_TAG_LIST);
        rt_buf_u32(&b, elements);
        for (uint32_t i = 0; i < elements; i++) rt_buf_raw(&b, "h\0", 2);
        rt_buf_raw(&b, "j", 1);
        rt_buf_raw(&b, head + k + 2, h.n[4] - k - 2);
        size_t payloads = (RT_PACK_BYTES_MAX - b.n) / 16;
        for (size_t i = 0; i < payloads; i++) {
            if (many) rt_buf_raw(&b, "m\0\0\0\x0bxxxxxxxxxxx", 16);
        }
        if (!many) {
            rt_buf_u8(&b, RT_TAG_BINARY);
            rt_buf_u32(&b, (uint32_t)(16 * payloads - 5));
            memset(b.p + b.n, 'x', 16 * payloads - 5);
            b.n += 16 * payloads - 5;
        }
        double start = seconds();
        for (int i = 0; i < 20; i++) CHECK_INT(rt_inbound_packet(&t.n.in, t.here, b.p, b.n), RT_OK);
        took[many] = seconds() - start;
    }
    CHECK(took[1] < 40 * took[0]);
    rt_buf_fini(&b);
    pair_close(&t);
}

TESTS(test_remembered_and_parsed_are_the_same, test_no_memory_within_a_pack,
      test_no_memory_for_a_head, test_a_long_head_is_read_once)
