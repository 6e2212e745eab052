/* Purpose: what the files of node/ share.
 * Threads: a node has one driver or several (driver.c). The first, the control, owns everything
 * here unless it says otherwise; a connection that is up belongs to the driver that carries it. */
#ifndef RT_NODE_INTERNAL_H
#define RT_NODE_INTERNAL_H

#include "dist/epmd.h"
#include "dist/handshake.h"
#include "net/conn.h"
#include "net/listener.h"
#include "net/resolve.h"
#include "node/engine.h"
#include "node/node.h"
#include "route/inbound.h"

/* One attempt to reach a peer, or one connection with it. */
enum rt_session_state {
    RT_SESSION_RESOLVE,     /* host name to address */
    RT_SESSION_LOOKUP,      /* port mapper: name to port */
    RT_SESSION_CONNECT,
    RT_SESSION_HANDSHAKE,
    RT_SESSION_AWAIT,       /* the peer said nok: its own attempt is to come */
    RT_SESSION_UP
};

/* How far the peer's kernel may run ahead: see rt_socket_settle. */
enum rt_window { RT_WINDOW_UNSET, RT_WINDOW_WIDE, RT_WINDOW_NARROW };

typedef struct rt_driver rt_driver;

/* Something for a driver to do, from any thread. */
typedef struct rt_request {
    struct rt_request *next;
    rt_peer *peer;
    enum {
        RT_ASK_DIAL, RT_ASK_ABANDON, RT_ASK_DISCONNECT, RT_ASK_CLOSE, /* of the control */
        RT_ASK_HAND_OVER, RT_ASK_ENDED,                               /* likewise */
        RT_ASK_CARRY, RT_ASK_PART, RT_ASK_HANG_UP, RT_ASK_RESUME      /* of any */
    } what;
    rt_pid pid;
    uint16_t port;
    const char *text;            /* host, or the reason to abandon; stands behind it */
} rt_request;

/* Up to RT_SESSION_UP, and when it has ended, it is the control's. Between, `conn`, `timer` and
 * what its reads tell are the driver's that carries it. */
typedef struct rt_session {
    rt_conn conn;
    bool conn_open;              /* conn is initialised */
    rt_node *node;
    rt_driver *driver;           /* whose the connection is now: whose poller, timers, buffer */
    uint32_t place;              /* that driver's number, for the control, */
    bool away;                   /* who has handed it over */
    struct rt_session *successor, *predecessor; /* waits for this one's end; whose end it awaits */
    rt_request ended;            /* what the driver tells the control at its end, */
    int end_rc, end_sys;         /* and why */
    rt_peer *peer;               /* NULL: an incoming one of whom nothing is proved */
    enum rt_session_state state;
    bool initiator;
    enum rt_window window;       /* as it was set last; */
    bool small_came, large_came; /* what is in the present read, */
    uint64_t small_at, large_at; /* and when such a message came last */
    rt_handshake *hs;            /* until the connection is up */
    rt_timer timer;
    struct rt_attempt *attempt;  /* while connecting out */
    uint16_t port;               /* 0: ask the port mapper */
    rt_address remote;
    uint64_t seen_reads, seen_written; /* at the last tick */
    uint32_t silent;             /* tick intervals without a read */
    struct rt_session *prev, *next; /* all sessions of the node */
} rt_session;

/* The addresses of a host, tried in turn. */
typedef struct rt_attempt {
    rt_resolve resolve;
    rt_session *session;
    uint32_t next;               /* which of resolve.at is tried */
} rt_attempt;

/* A full box (RT_OVERFLOW_PAUSE) and a peer that goes on filling it. Its driver's. */
typedef struct rt_hold {
    rt_driver *driver;
    rt_pid pid;
    rt_peer *peer;
    uint64_t bytes;              /* what the peer sent since the box was full */
    rt_timer timer;
    struct rt_hold *next;
} rt_hold;

/* Registration with the port mapper, or the port mapper itself. */
typedef struct rt_mapper {
    rt_node *node;
    rt_conn conn;
    bool conn_open, registered, announced;
    uint32_t attempt;
    rt_timer timer;
    rt_listener listener[2];     /* IPv4 and IPv6 */
    rt_epmd_server *server;
    uint64_t next_client;
    uint32_t asking;             /* clients that hold no registration */
    struct rt_mapper_client *clients;
} rt_mapper;

/* One engine, and what belongs to whoever drives it. */
struct rt_driver {
    rt_engine engine;
    rt_node *node;
    rt_inbound inbound;
    rt_hold *holds;
    uint32_t carries;            /* connections that are up; the control's account */
    pthread_mutex_t lock;        /* what stands below; any thread */
    rt_peer **dirty;             /* whose queues want writing */
    uint32_t dirty_n, dirty_cap;
    rt_request *requests, *requests_last;
};

struct rt_node {
    rt_driver *control;          /* the first of */
    rt_driver *drivers;
    uint32_t drivers_n;
    rt_route route;
    rt_events events;
    rt_resolver *resolver;
    rt_listener listener;
    rt_mapper mapper;
    rt_timer accept_timer;       /* accepting again after a shortage */
    rt_session *sessions;
    uint32_t handshakes;         /* sessions that are not up */
    rt_buf name, atom;
    uint8_t cookie[RT_COOKIE_BYTES_MAX];
    size_t cookie_n;
    bool hidden, listening, started, stopped;
    int epmd;
    bool epmd_any;
    uint16_t epmd_port;
    uint32_t net_ticktime_ms;
    uint32_t gather_shift;       /* a turn gathers 1 << this many bytes, then they are written */
    rt_address listen;
    _Atomic uint64_t turns;
    pthread_mutex_t lock;        /* what stands below; any thread */
    bool stopping;               /* stop was called */
    rt_pid *watchers;
    uint32_t watchers_n;
};

/* driver.c; any thread where no driver is said */
int rt_driver_init(rt_driver *d, rt_node *n, enum rt_engine_mode mode, enum rt_poller_kind poller);
void rt_driver_fini(rt_driver *d);
/* Whose the connection is, or is to be. */
RT_INLINE rt_driver *rt_driver_of(rt_node *n, rt_peer *p)
{
    /* acquire pairs with the release in hand_over and rt_driver_take_back: who finds a driver here
     * sees what rt_peer.carried was when it became that one's */
    return &n->drivers[atomic_load_explicit(&p->driver, memory_order_acquire)];
}
/* Remembers that the peer's queue, into which something was put, wants writing, and gives the
 * driver in whose list it stands: whose the connection is. NULL when memory is short.
 *
 * The look without the driver's lock is right: who flushes clears the mark before it
 * takes the queue's lock. Had it held that lock before the caller did, the caller
 * would see the mark cleared; so a mark that is seen means that the flush is to come. And who
 * sees it sees what the one who set it saw: whose the connection is, or somebody later. */
rt_driver *rt_driver_mark_first(rt_node *n, rt_peer *p);
RT_INLINE rt_driver *rt_driver_mark(rt_node *n, rt_peer *p)
{
    return RT_LIKELY(rt_outq_is_dirty(&p->out)) ? rt_driver_of(n, p) : rt_driver_mark_first(n, p);
}
rt_peer *rt_driver_take_dirty(rt_driver *d);
uint32_t rt_driver_dirty(rt_driver *d);
void rt_driver_kick(rt_node *n, rt_peer *p);    /* marks, and wakes its driver */
/* RT_ENOMEM. */
int rt_driver_ask(rt_driver *d, rt_peer *p, int what, rt_pid pid, const char *text, uint16_t port);
void rt_driver_ask_all(rt_node *n, int what, rt_pid pid);
void rt_driver_lend(rt_driver *d, rt_request *q); /* the same, with memory of the caller's */
/* The driver's: its connection with that peer, or NULL. */
rt_session *rt_driver_carried(rt_driver *d, rt_peer *p);
void rt_driver_take_back(rt_driver *d, rt_peer *p); /* the control's: what it carried has ended */
/* Nobody drives any more: carries out what a session hangs on, and drops the rest. */
void rt_driver_wind_up(rt_driver *d);

/* session.c: a connection, ours or theirs, from its handshake on */
extern const rt_conn_ops rt_session_ops;
RT_INLINE rt_session *rt_session_of(rt_conn *c) { return RT_CONTAINER_OF(c, rt_session, conn); }
rt_session *rt_session_new(rt_node *n);
void rt_session_free(rt_session *l);
/* The session is over, whatever it was: tells whom it concerns and frees it. Its stream is
 * closed already. `text`: why, or NULL where the code's own words will do. */
void rt_session_end(rt_session *l, int rc, int sys, const char *text);
void rt_session_deadline(rt_session *l, uint32_t ms);
int rt_session_write(rt_session *l, rt_buf *out);
void rt_session_accept(rt_node *n, int fd, const rt_address *remote);
void rt_session_close(rt_session *l, int rc);
/* The control lets go of a connection that is up: who is to be asked to carry it, or NULL. */
rt_driver *rt_session_hand_over(rt_session *l);
void rt_session_carry(rt_session *l, rt_driver *d);  /* by that driver */
void rt_session_ended(rt_request *q);                /* the control again, for RT_ASK_ENDED */
void rt_sessions_close_all(rt_node *n);

/* dial.c: how it gets that far, from a name */
int rt_session_connect(rt_node *n, rt_peer *p, const char *host, uint16_t port);
int rt_session_try(rt_session *l);              /* the address whose turn it is, or a later one */
bool rt_session_more(const rt_session *l);      /* several are left */

/* mapper.c */
int rt_mapper_start(rt_node *n);
void rt_mapper_stop(rt_node *n);
void rt_mapper_after_fork(rt_node *n);

/* hold.c */
void rt_holds_add(rt_driver *d, rt_peer *p, rt_pid pid, uint64_t bytes);
void rt_holds_end(rt_driver *d, rt_pid pid);    /* the box has room again, or is gone */
void rt_holds_forget(rt_driver *d, rt_peer *p); /* the connection is gone; NULL: all */
bool rt_holds_any(const rt_driver *d, const rt_peer *p);

/* node.c */
void rt_node_tell_watchers(rt_node *n, const char *what, rt_peer *p);
bool rt_node_box_over(const rt_process *p);
rt_slice rt_node_host_part(rt_slice name);
void rt_node_accept_failed(rt_node *n, int sys); /* a listener is quiet: wakes it later */
void rt_node_close_full(rt_node *n, rt_peer *p, rt_pid pid); /* with reason overflow */

#endif
