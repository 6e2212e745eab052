#include "node/event.h"

#include "base/alloc.h"

int rt_events_init(rt_events *q)
{
    memset(q, 0, sizeof *q);
    return pthread_mutex_init(&q->lock, NULL) == 0 ? RT_OK : RT_ENOMEM;
}

void rt_events_fini(rt_events *q)
{
    while (q->first) {
        rt_event *next = q->first->next;
        rt_free(q->first);
        q->first = next;
    }
    for (uint32_t i = 0; i < q->listeners; i++) rt_notifier_rele(q->listener[i]);
    rt_free(q->listener);
    pthread_mutex_destroy(&q->lock);
}

/* Strangers make as many of these as they like: they get half of the room, or what
 * somebody waits for would find none. */
static uint32_t room_for(enum rt_event_kind kind)
{
    return kind == RT_EVENT_REFUSED ? RT_EVENTS_MAX / 2 : RT_EVENTS_MAX;
}

void rt_events_put(rt_events *q, enum rt_event_kind kind, rt_slice name, int code, int sys,
                   uint64_t lost, const char *text)
{
    rt_event *e = rt_calloc(1, sizeof *e);
    if (e) {
        e->kind = kind;
        e->code = code;
        e->sys = sys;
        e->lost = lost;
        e->name_n = (uint32_t)(name.n < sizeof e->name ? name.n : sizeof e->name);
        if (e->name_n) memcpy(e->name, name.p, e->name_n);
        if (text) strncpy(e->text, text, sizeof e->text - 1);
    }
    pthread_mutex_lock(&q->lock);
    if (!e || q->count >= room_for(kind)) {
        q->dropped++;
        rt_free(e);
    } else {
        if (q->last) q->last->next = e;
        else q->first = e;
        q->last = e;
        q->count++;
    }
    for (uint32_t i = 0; i < q->listeners; i++) rt_notifier_poke(q->listener[i]);
    pthread_mutex_unlock(&q->lock);
}

rt_event *rt_events_take(rt_events *q)
{
    pthread_mutex_lock(&q->lock);
    rt_event *e = q->first;
    if (e) {
        q->first = e->next;
        if (!q->first) q->last = NULL;
        q->count--;
    }
    pthread_mutex_unlock(&q->lock);
    return e;
}

bool rt_events_any(rt_events *q)
{
    pthread_mutex_lock(&q->lock);
    bool any = q->first || q->dropped;
    pthread_mutex_unlock(&q->lock);
    return any;
}

uint64_t rt_events_dropped(rt_events *q)
{
    pthread_mutex_lock(&q->lock);
    uint64_t n = q->dropped;
    q->dropped = 0;
    pthread_mutex_unlock(&q->lock);
    return n;
}

int rt_events_listen(rt_events *q, rt_notifier *n)
{
    int rc = RT_OK;
    pthread_mutex_lock(&q->lock);
    if (q->listeners == q->listeners_cap) {
        uint32_t cap = q->listeners_cap ? q->listeners_cap * 2 : 4;
        rt_notifier **more = rt_realloc(q->listener, cap * sizeof *more);
        if (more) {
            q->listener = more;
            q->listeners_cap = cap;
        } else {
            rc = RT_ENOMEM;
        }
    }
    if (rc == RT_OK) {
        rt_notifier_hold(n);
        q->listener[q->listeners++] = n;
        if (q->first) rt_notifier_poke(n);
    }
    pthread_mutex_unlock(&q->lock);
    return rc;
}

void rt_events_ignore(rt_events *q, rt_notifier *n)
{
    pthread_mutex_lock(&q->lock);
    for (uint32_t i = 0; i < q->listeners;) {
        if (q->listener[i] != n) {
            i++;
            continue;
        }
        q->listener[i] = q->listener[--q->listeners];
        rt_notifier_rele(n);
    }
    pthread_mutex_unlock(&q->lock);
}
