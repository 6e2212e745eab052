/* Purpose: what the files of node/ share.
 * Threads: everything here belongs to the driver unless it says otherwise. */
#ifndef RT_NODE_INTERNAL_H
#define RT_NODE_INTERNAL_H

#include "dist/epmd.h"
#include "dist/handshake.h"
#include "net/conn.h"
#include "net/listener.h"
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

typedef struct rt_session {
    rt_conn conn;
    bool conn_open;              /* conn is initialised */
    rt_node *node;
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

/* A full box (RT_OVERFLOW_PAUSE) and a peer that goes on filling it. */
typedef struct rt_hold {
    rt_node *node;
    rt_pid pid;
    rt_peer *peer;
    uint64_t bytes;              /* what the peer sent since the box was full */
    rt_timer timer;
    struct rt_hold *next;
} rt_hold;

/* A request from another thread, carried out by the driver. */
typedef struct rt_request {
    struct rt_request *next;
    rt_peer *peer;
    enum { RT_ASK_DIAL, RT_ASK_ABANDON, RT_ASK_DISCONNECT, RT_ASK_RESUME, RT_ASK_CLOSE } what;
    rt_pid pid;
    uint16_t port;
    char text[RT_HOST_BYTES_MAX + 1]; /* host, or the reason to abandon */
} rt_request;

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

struct rt_node {
    rt_engine engine;
    rt_route route;
    rt_events events;
    rt_inbound inbound;
    rt_listener listener;
    rt_mapper mapper;
    rt_timer accept_timer;       /* accepting again after a shortage */
    rt_session *sessions;
    uint32_t handshakes;         /* sessions that are not up */
    rt_hold *holds;
    rt_buf name, atom;
    uint8_t cookie[RT_COOKIE_BYTES_MAX];
    size_t cookie_n;
    bool hidden, listening, started, stopped;
    int epmd;
    bool epmd_any;
    uint16_t epmd_port;
    uint32_t net_ticktime_ms;
    rt_address listen;
    _Atomic uint64_t turns;
    pthread_mutex_t lock;        /* what stands below; any thread */
    bool stopping;               /* stop was called */
    rt_peer **dirty;
    uint32_t dirty_n, dirty_cap;
    rt_request *requests, *requests_last;
    rt_pid *watchers;
    uint32_t watchers_n;
};

/* session.c */
int rt_session_connect(rt_node *n, rt_peer *p, const char *host, uint16_t port);
void rt_session_accept(rt_node *n, int fd, const rt_address *remote);
void rt_session_close(rt_session *l, int rc);
void rt_sessions_close_all(rt_node *n);

/* mapper.c */
int rt_mapper_start(rt_node *n);
void rt_mapper_stop(rt_node *n);
void rt_mapper_after_fork(rt_node *n);

/* hold.c */
void rt_holds_add(rt_node *n, rt_peer *p, rt_pid pid, uint64_t bytes);
void rt_holds_end(rt_node *n, rt_pid pid);      /* the box has room again, or is gone */
void rt_holds_forget(rt_node *n, rt_peer *p);   /* the connection is gone; NULL: all */
bool rt_holds_paused(rt_node *n, rt_peer *p);   /* the peer is not read */

/* node.c */
void rt_node_tell_watchers(rt_node *n, const char *what, rt_peer *p);
bool rt_node_box_over(const rt_process *p);
rt_slice rt_node_host_part(rt_slice name);
void rt_node_accept_failed(rt_node *n, int sys); /* a listener is quiet: wakes it later */
void rt_node_close_full(rt_node *n, rt_peer *p, rt_pid pid); /* with reason overflow */

#endif
