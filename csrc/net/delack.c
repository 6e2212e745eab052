#include "net/delack.h"

#include "base/clock.h"
#include "net/conn.h"

#define RUN_NS (RT_DELACK_READS * RT_MS / 16) /* a run of reads that takes longer is none */
#define READS_MIN 4u                          /* for what is held, or it ends */

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
static int wait(rt_delack *d)
{
    d->reads = 0;
    return rt_timer_set(d->timers, &d->timer, rt_now() + RT_DELACK_NS);
}

static void due(rt_timer *t)
{
    rt_delack *d = RT_CONTAINER_OF(t, rt_delack, timer);
    rt_conn *c = RT_CONTAINER_OF(d, rt_conn, delack);
    bool few = d->reads < READS_MIN;
    take(c);
    if (few || wait(d) < 0) finish(c);
}

static void begin(rt_conn *c)
{
    rt_delack *d = &c->delack;
    int from = 0;
    if (setsockopt(c->own.fd, SOL_SOCKET, SO_PEEK_OFF, &from, sizeof from) < 0) {
        d->timers = NULL;
        return;
    }
    if (wait(d) < 0) return;
    d->on = true;
    rt_conn_arm(c);
}

/* While it is on, the poller tells of news alone: what a read has left it would never hear of. */
static void note_held(rt_conn *c, bool empty)
{
    rt_delack *d = &c->delack;
    d->reads++;
    if (d->large || !empty) finish(c);
    else if (d->held > RT_DELACK_BYTES_MAX) due(&d->timer);
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
    }
    if (d->reads < RT_DELACK_READS || !empty) return;
    d->reads = 0;
    if (rt_now() - d->since <= RUN_NS && written(c) == d->written) begin(c);
}

void rt_delack_note(rt_conn *c, size_t got, bool empty)
{
    rt_delack *d = &c->delack;
    if (!d->timers || got == 0) return;
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
