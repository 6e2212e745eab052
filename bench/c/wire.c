/* The way of a message between a socket and a mailbox: frames, control messages and terms, step by
 * step and as a whole. Nothing of Python, nothing of the kernel. */
#include "bench.h"
#include "dist/control.h"
#include "dist/flags.h"
#include "route/inbound.h"
#include "route/outbound.h"
#include "term/write.h"

#define READ_MESSAGES 64u  /* that came with one read */
#define WRITE_MESSAGES 512u

typedef struct wire {
    rt_route route;
    rt_peer *peer;
    rt_inbound inbound;
    rt_process *process;
    rt_buf name, atom, packet;
    rt_atom_cache *cache;      /* of the steps, apart from the peer's */
    rt_frame frame;
    rt_slice control, payload; /* of the packet */
    rt_buf expanded;
    rt_slice pid;
    uint8_t pid_bytes[RT_PID_BYTES_MAX];
} wire;

static void nothing(rt_route *r, rt_peer *p) { (void)r, (void)p; }
static void unexpected(rt_route *r, rt_peer *p, rt_pid pid, bool close, uint64_t bytes)
{
    (void)r, (void)p, (void)pid, (void)close, (void)bytes;
    abort();
}
static void ended(rt_route *r, const rt_process *p, rt_pid pid) { (void)r, (void)p, (void)pid; }

static int open_node(wire *w, const char *name, uint32_t creation)
{
    rt_route *r = &w->route;
    rt_slice own = rt_slice_of(name, strlen(name)), other = rt_slice_of("a@127.0.0.1", 11);
    r->limits = rt_limits_default();
    r->kick = nothing;
    r->overflow = unexpected;
    r->ended = ended;
    r->creation = creation;
    if (rt_buf_put(&w->name, own.p, own.n) < 0 || rt_put_atom(&w->atom, own) < 0) return RT_ENOMEM;
    r->name = rt_slice_of(w->name.p, w->name.n);
    r->atom = rt_slice_of(w->atom.p, w->atom.n);
    r->registry = must(rt_registry_new(16, 16));
    r->relations = must(rt_relations_new());
    r->peers = must(rt_peers_new(&r->limits));
    rt_inbound_init(&w->inbound, r);
    if (rt_process_new(r->registry, &w->process) < 0) return RT_ENOMEM;
    w->pid = rt_slice_of(w->pid_bytes, rt_route_pid(r, w->process->self, w->pid_bytes));
    int rc = rt_peers_get(r->peers, other, &w->peer);
    if (rc == RT_OK) rc = rt_peer_up(w->peer, RT_FLAGS_OURS, 1, &r->limits);
    return rc;
}

BENCH void wire_free(void *context)
{
    wire *w = context;
    rt_inbound_fini(&w->inbound);
    rt_peer_down(w->peer);
    rt_process_exit(w->route.registry, w->process->self, rt_slice_of("j", 1));
    rt_process_release(w->route.registry, w->process);
    rt_peers_free(w->route.peers);
    rt_relations_free(w->route.relations);
    rt_registry_free(w->route.registry);
    rt_atom_cache_free(w->cache);
    rt_buf_fini(&w->name);
    rt_buf_fini(&w->atom);
    rt_buf_fini(&w->packet);
    rt_buf_fini(&w->expanded);
    free(w);
}

/* A node with one process. */
BENCH void *wire_new(const char *name, uint32_t creation)
{
    wire *w = must(calloc(1, sizeof *w));
    w->cache = must(rt_atom_cache_new());
    if (open_node(w, name, creation) < 0) abort();
    return w;
}

static int split(wire *w, rt_slice packet)
{
    rt_scan s = {.depth_max = 256, .atoms = &w->frame.atoms};
    if (rt_frame_parse(w->cache, true, packet, &w->frame) < 0) return RT_EBAD;
    int64_t n = rt_term_scan(w->frame.body.p, w->frame.body.n, &s);
    if (n < 0) return RT_EBAD;
    w->control = rt_slice_of(w->frame.body.p, (size_t)n);
    w->payload = rt_slice_of(w->frame.body.p + n, w->frame.body.n - (size_t)n);
    return RT_OK;
}

/* The packet that is read from now on, without its length; call it first with one that
 * brings the atoms which this one refers to. 0 when it is not understood. */
BENCH uint64_t wire_packet(void *context, const uint8_t *p, uint64_t n)
{
    wire *w = context;
    w->packet.n = 0;
    if (rt_buf_put(&w->packet, p, n) < 0 || split(w, rt_slice_of(w->packet.p, n)) < 0 ||
        rt_inbound_packet(&w->inbound, w->peer, w->packet.p, n) < 0)
        return 0;
    rt_inbound_flush(&w->inbound);
    rt_message *m = rt_process_pop(w->route.registry, w->process);
    uint64_t right = m != NULL;
    rt_message_free(m);
    return right;
}

BENCH uint64_t wire_packet_bytes(void *context) { return ((wire *)context)->packet.n; }
BENCH uint64_t wire_pid(void *context) { return ((wire *)context)->process->self; }

BENCH uint64_t wire_frame(void *context, uint64_t n)
{
    wire *w = context;
    uint64_t right = 0;
    for (uint64_t i = 0; i < n; i++) {
        rt_frame f;
        keep(w->packet.p);
        right += rt_frame_parse(w->cache, true, rt_slice_of(w->packet.p, w->packet.n), &f) == RT_OK;
        keep(&f);
    }
    return right;
}

BENCH uint64_t wire_control(void *context, uint64_t n)
{
    wire *w = context;
    uint64_t right = 0;
    for (uint64_t i = 0; i < n; i++) {
        rt_control c;
        keep(w->control.p);
        w->expanded.n = 0;
        right += rt_term_expand(&w->expanded, w->control.p, w->control.n, &w->frame.atoms) ==
                     RT_OK &&
                 rt_control_parse(w->expanded.p, w->expanded.n, &c) == (int64_t)w->expanded.n;
        keep(&c);
    }
    return right;
}

BENCH uint64_t wire_scan(void *context, uint64_t n)
{
    wire *w = context;
    uint64_t right = 0;
    for (uint64_t i = 0; i < n; i++) {
        rt_scan s = {.depth_max = 256, .atoms = &w->frame.atoms};
        keep(w->payload.p);
        right += rt_term_scan(w->payload.p, w->payload.n, &s) == (int64_t)w->payload.n;
        keep(&s);
    }
    return right;
}

BENCH uint64_t wire_copy(void *context, uint64_t n)
{
    wire *w = context;
    uint8_t *to = must(malloc(w->packet.n));
    for (uint64_t i = 0; i < n; i++) {
        keep(w->packet.p);
        memcpy(to, w->packet.p, w->packet.n);
        keep(to);
    }
    free(to);
    return n;
}

/* From the bytes of a packet to a message that its process has popped. */
BENCH uint64_t wire_inbound(void *context, uint64_t n)
{
    wire *w = context;
    uint64_t right = 0;
    for (uint64_t done = 0; done < n;) {
        uint64_t stop = done + READ_MESSAGES < n ? done + READ_MESSAGES : n;
        for (; done < stop; done++)
            if (rt_inbound_packet(&w->inbound, w->peer, w->packet.p, w->packet.n) < 0) return right;
        rt_inbound_flush(&w->inbound);
        for (rt_message *m; (m = rt_process_pop(w->route.registry, w->process)); right++)
            rt_message_free(m);
    }
    return right;
}

/* A message of 80 bytes composed and queued for the peer, ready to be written. */
BENCH uint64_t wire_outbound(void *context, uint64_t n)
{
    wire *w = context;
    static const uint8_t term[80] = "m\0\0\0\x4b";
    rt_buf b = RT_BUF_INIT;
    uint64_t right = 0;
    for (uint64_t i = 0; i < n; i++) {
        b.n = 0;
        right += rt_outbound_begin(&b) == RT_OK &&
                 rt_control_send_sender(&b, w->pid, w->pid) == RT_OK &&
                 rt_buf_put(&b, term, sizeof term) == RT_OK &&
                 rt_outbound_end(&b, 0, &w->route.limits) == RT_OK &&
                 rt_outbound_put(w->peer, rt_slice_of(b.p, b.n), RT_LEAD_NONE, false, &w->route.limits,
                                 NULL, NULL) == RT_OK;
        if ((i + 1) % WRITE_MESSAGES == 0 || i + 1 == n) {
            pthread_mutex_lock(&w->peer->out.lock);
            rt_outchunk *list = rt_outq_take(&w->peer->out);
            pthread_mutex_unlock(&w->peer->out.lock);
            rt_outchunk_free(list);
        }
    }
    rt_buf_fini(&b);
    return right;
}
