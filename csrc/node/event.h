/* Purpose: what happened, for whoever embeds the node: connections, the port
 * mapper, errors worth a log line. Bounded; when nobody reads, the newest are
 * dropped and counted, those of refused strangers before all others.
 * Ownership: the queue owns its events; listeners are held.
 * Threads: any; one lock.
 * Limits: RT_EVENTS_MAX. Errors: RT_ENOMEM from listen. */
#ifndef RT_NODE_EVENT_H
#define RT_NODE_EVENT_H

#include <pthread.h>

#include "base/limits.h"
#include "sync/notifier.h"

#define RT_EVENTS_MAX 4096
#define RT_EVENT_TEXT_MAX 256

enum rt_event_kind {
    RT_EVENT_UP = 1,       /* code: 1 when the peer connected to us */
    RT_EVENT_DOWN,         /* code: why; lost: messages that waited */
    RT_EVENT_FAILED,       /* a connection attempt; code: why; lost */
    RT_EVENT_REFUSED,      /* an incoming connection; code: why */
    RT_EVENT_DRAINED,      /* a peer's queue fell below its soft mark */
    RT_EVENT_REGISTERED,   /* with the port mapper; code: 1 when we serve it ourselves */
    RT_EVENT_UNREGISTERED, /* the port mapper went away, or refused: code */
    RT_EVENT_OVERFLOW,     /* a box was closed because it was full */
    RT_EVENT_ACCEPT        /* accept failed; code RT_ESYS, sys */
};

typedef struct rt_event {
    struct rt_event *next;
    enum rt_event_kind kind;
    int code, sys;
    uint64_t lost;
    uint64_t pid;          /* RT_EVENT_OVERFLOW */
    uint32_t name_n;
    uint8_t name[RT_NODE_NAME_BYTES_MAX]; /* the peer, where there is one */
    char text[RT_EVENT_TEXT_MAX];
} rt_event;

typedef struct rt_events {
    pthread_mutex_t lock;
    rt_event *first, *last;
    uint32_t count;
    uint64_t dropped;
    rt_notifier **listener;  /* loops, and threads while they wait for a connection */
    uint32_t listeners, listeners_cap;
} rt_events;

int rt_events_init(rt_events *q);
void rt_events_fini(rt_events *q);
/* `name` and `text` may be empty / NULL. Never fails: without memory the event
 * is counted as dropped. Pokes every listener. */
void rt_events_put(rt_events *q, enum rt_event_kind kind, rt_slice name, int code, int sys,
                   uint64_t lost, const char *text);
/* The oldest event, or NULL; freed by the caller with rt_free. */
rt_event *rt_events_take(rt_events *q);
/* Whether one is there, or was dropped since that was asked last. */
bool rt_events_any(rt_events *q);
/* How many were dropped since this was asked last. */
uint64_t rt_events_dropped(rt_events *q);
int rt_events_listen(rt_events *q, rt_notifier *n);     /* RT_ENOMEM */
void rt_events_ignore(rt_events *q, rt_notifier *n);

#endif
