/* Purpose: a node: its processes, its peers, its listener and port mapper, and
 * the engine that drives them.
 * Ownership: rt_node_new to rt_node_free; the embedder frees it after stop and
 * after every process was released.
 * Threads: any for everything, except that new, start, stop, free and
 * after_fork are the embedder's own sequence.
 * Limits: base/limits.h. Errors: with each function; text in `error`. */
#ifndef RT_NODE_NODE_H
#define RT_NODE_NODE_H

#include "base/limits.h"
#include "net/socket.h"
#include "node/event.h"
#include "proc/registry.h"
#include "route/outbound.h"
#include "route/route.h"
#include "sync/notifier.h"

#define RT_COOKIE_BYTES_MAX 255u
#define RT_HOST_BYTES_MAX 255u
#define RT_NODE_THREADS_MAX 64u

enum rt_epmd_mode { RT_EPMD_AUTO, RT_EPMD_NONE };

typedef struct rt_node_config {
    rt_slice name;               /* name@host, UTF-8 */
    rt_slice cookie;
    bool hidden, relay;
    int engine;                  /* enum rt_engine_mode */
    uint32_t threads;            /* 1, or with RT_ENGINE_THREAD up to RT_NODE_THREADS_MAX */
    uint32_t busy_wait_ns;       /* see node/engine.h; at most RT_BUSY_WAIT_NS_MAX */
    int poller;                  /* enum rt_poller_kind; io_uring for RT_ENGINE_THREAD alone */
    int epmd;                    /* enum rt_epmd_mode */
    uint16_t epmd_port;
    bool epmd_any;               /* the embedded port mapper listens on all addresses */
    uint32_t net_ticktime_ms;
    bool listening;              /* false: only connects out */
    rt_address listen;
    rt_limits limits;
} rt_node_config;

typedef struct rt_node rt_node;

/* One row of rt_node_stats. */
typedef struct rt_peer_stats {
    uint64_t messages_in, messages_out, bytes_in, bytes_out, queued_bytes;
    uint64_t dropped_in, dropped_out, refused, connects, failures;
    double age;                  /* seconds the connection stands; 0 when down */
    double idle;                 /* seconds since the peer was last heard */
    double round_trip;           /* seconds, the kernel's smoothed estimate; 0 when down */
    uint32_t state, number;
} rt_peer_stats;

int rt_node_new(const rt_node_config *config, rt_node **out);
/* Listens, starts the engine, begins to register (RT_EVENT_REGISTERED comes
 * later). RT_ESYS: the address cannot be had. */
int rt_node_start(rt_node *n);
void rt_node_stop(rt_node *n);
void rt_node_free(rt_node *n);
void rt_node_after_fork(rt_node *n);

rt_route *rt_node_route(rt_node *n);
rt_events *rt_node_events(rt_node *n);
uint16_t rt_node_port(const rt_node *n);
uint32_t rt_node_creation(const rt_node *n);

/* Driving: see node/engine.h. */
int rt_node_fd(const rt_node *n);
int rt_node_drive(rt_node *n, bool told);
void rt_node_beat(rt_node *n);
bool rt_node_expects(rt_node *n);
int rt_node_busy_wait(rt_node *n, const rt_notifier *notifier, uint64_t ns);
void rt_node_give_up(rt_node *n);
int rt_node_wait(rt_node *n, rt_notifier *notifier, uint64_t timeout_ns);
void rt_node_promise(rt_node *n, int more);
/* Writes what other threads and this one have gathered; the end of a loop's turn. */
void rt_node_flush(rt_node *n);

/* A connection begins in two steps, so that an embedder may look an address up
 * in between: hold marks the peer as connecting (frames wait in its queue) or
 * says RT_EALIVE; then dial, or abandon with the reason. host NULL: the host in
 * the peer's name; port 0: ask the port mapper there. */
int rt_node_hold(rt_node *n, rt_peer *p);
int rt_node_dial(rt_node *n, rt_peer *p, const char *host, uint16_t port);
int rt_node_abandon(rt_node *n, rt_peer *p, const char *text);
int rt_node_disconnect(rt_node *n, rt_peer *p);
int rt_node_set_cookie(rt_node *n, rt_peer *p, rt_slice cookie);

#define RT_SEND_DIRECT 1u   /* may write at once */
#define RT_SEND_WAKE 2u     /* no flush will follow: wake the engine */
/* Queues whole frames as rt_outbound_put does. RT_OK: written or the engine will; 1:
 * gathered, call rt_node_flush soon. RT_ENOTCONN: connect first. RT_EFULL: those
 * before the one that did not fit are queued. */
int rt_node_send(rt_node *n, rt_peer *p, rt_slice frames, rt_lead lead, unsigned how, rt_buf *own);
/* The same for one frame whose body stands elsewhere; also RT_ELIMIT and RT_AGAIN, as
 * rt_outbound_put_body. */
int rt_node_send_body(rt_node *n, rt_peer *p, rt_slice frame, const rt_body *body, unsigned how);
/* The same for one message of which only the payload has been composed, by a thread whose flush
 * follows. RT_AGAIN: it can join no frame in the queue, and is to be composed and sent. */
int rt_node_join(rt_node *n, rt_peer *p, rt_lead lead, rt_slice payload);

/* Moves with every drive: what was gathered before has been written since. */
uint64_t rt_node_turns(const rt_node *n);

bool rt_node_trap_exit(rt_process *p);
void rt_node_set_trap_exit(rt_process *p, bool on);

/* The owner of a box with RT_OVERFLOW_PAUSE has read from it: peers that are held
 * back for it may go on. Cheap when there are none. */
void rt_node_consumed(rt_node *n, rt_process *p);
/* True when a box with RT_OVERFLOW_PAUSE is at its limit: local senders are told. */
bool rt_node_box_full(const rt_process *p);

/* Boxes that get {nodeup, Name} and {nodedown, Name}. */
int rt_node_watch(rt_node *n, rt_pid pid, bool on);
uint32_t rt_node_stats(rt_node *n, rt_peer_stats *rows, uint32_t max);

#endif
