#include "net/delack.h"

#include "base/clock.h"
#include "net/conn.h"

#define PACKET_NS (RT_SEC / RT_DELACK_PACKETS_PER_S)
#define VAIN_MAX 1024u

static uint64_t written(rt_conn *c)
{
    pthread_mutex_lock(&c->out->lock);
    uint64_t n = c->out->written;
    pthread_mutex_unlock(&c->out->lock);
    return n;
}

/* The kernel acknowledges what it has not yet. Nothing is copied: MSG_TRUNC. */
static void take(rt_conn *c)
{
    rt_delack *d = &c->delack;
    while (d->held) {
        size_t n = d->held < RT_READ_BUFFER_BYTES ? d->held : RT_READ_BUFFER_BYTES;
        ssize_t got = recv(c->own.fd, c->shared, n, MSG_TRUNC | MSG_DONTWAIT);
        if (got <= 0) break; /* the stream is broken, as the next read finds */
        d->held -= (size_t)got;
    }
    d->held = 0;
}

void rt_delack_end(rt_conn *c)
{
    rt_delack *d = &c->delack;
    if (!d->on) return;
    rt_timer_cancel(d->timers, &d->timer);
    take(c);
    d->on = false;
    d->reads = 0;
}

/* May close it, as telling the poller may. */
static void finish(rt_conn *c)
{
    rt_delack_end(c);
    rt_conn_arm(c);
}

/* As long as it is on the timer is set: an end that came with the last bytes is no news of its own,
 * and is found when nothing else comes. */
static int set_timer(rt_delack *d)
{
    return rt_timer_set(d->timers, &d->timer, rt_now() + RT_DELACK_NS);
}

static void go_on(rt_conn *c, bool worth)
{
    take(c);
    if (!worth || written(c) != c->delack.written || set_timer(&c->delack) < 0) finish(c);
}

/* A sender soon stands still, its window full, until it is told what came: what it gathers meanwhile
 * comes then, and tells the next time whether it has that much to send. Each time it has not
 * doubles how many runs are passed over. */
static void due(rt_timer *t)
{
    rt_delack *d = RT_CONTAINER_OF(t, rt_delack, timer);
    bool worth = d->packets * PACKET_NS >= RT_DELACK_NS;
    if (!d->primed) worth = true;
    else if (worth) d->vain /= 2;
    else if (d->vain < VAIN_MAX) d->vain = d->vain ? 2 * d->vain : 1;
    if (!worth) d->skip = d->vain;
    d->primed = true;
    d->packets = 0;
    go_on(RT_CONTAINER_OF(d, rt_conn, delack), worth);
}

static void begin(rt_conn *c)
{
    rt_delack *d = &c->delack;
    int from = 0;
    if (setsockopt(c->own.fd, SOL_SOCKET, SO_PEEK_OFF, &from, sizeof from) < 0) {
        d->timers = NULL;
        return;
    }
    if (set_timer(d) < 0) return;
    d->on = true;
    d->primed = false;
    d->packets = 0;
    rt_conn_arm(c);
}

/* While it is on, the poller tells of news alone: what a read has left it would never hear of. */
static void note_held(rt_conn *c, bool empty)
{
    rt_delack *d = &c->delack;
    if (d->large || !empty) finish(c);
    else if (d->held > RT_DELACK_BYTES_MAX) go_on(c, true);
}

static void note_run(rt_conn *c, size_t got, bool empty)
{
    rt_delack *d = &c->delack;
    if (d->large || got > RT_DELACK_PACKET_MAX) {
        d->reads = 0;
        return;
    }
    if (d->reads++ == 0) {
        d->since = rt_now();
        d->written = written(c);
        d->packets = 0;
    }
    if (d->reads < RT_DELACK_READS || !empty) return;
    d->reads = 0;
    if (rt_now() - d->since > d->packets * PACKET_NS || written(c) != d->written) return;
    if (d->skip) d->skip--;
    else begin(c);
}

void rt_delack_note(rt_conn *c, size_t got, bool empty)
{
    rt_delack *d = &c->delack;
    if (!d->timers || got == 0) return;
    if (c->into) d->large = true;
    if (d->on) note_held(c, empty);
    else note_run(c, got, empty);
    d->large = false;
}

void rt_delack_start(rt_conn *c, rt_timers *timers)
{
    if (!rt_poller_edges(c->poller)) return;
    c->delack.timers = timers;
    c->delack.timer.fire = due;
    c->delack.reads = 0;
}

void rt_delack_stop(rt_conn *c)
{
    rt_delack_end(c);
    c->delack.timers = NULL;
}
