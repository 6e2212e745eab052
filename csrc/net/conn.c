#include "net/conn.h"

#include <errno.h>
#include <sched.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/cursor.h"

#define LARGE_PACKET (128u * 1024u)
/* What is read behind a packet that has a place: the head of the next one, which may have a place
 * too, and not much of it to copy. */
#define AHEAD_BYTES 4096u
#define WRITE_BYTES_MAX (1u << 20)
#define SLICE_NS (RT_MS / 4) /* of the bulk lane: what comes next may wait so long */

static void conn_ready(rt_source *s, uint32_t events);

int rt_conn_init(rt_conn *c, rt_poller *p, uint8_t *shared, size_t frame_bytes_max,
                 const rt_conn_ops *ops)
{
    memset(c, 0, sizeof *c);
    int rc = rt_outq_init(&c->own, NULL);
    if (rc < 0) return rc;
    c->out = &c->own;
    c->source.fd = -1;
    c->source.ready = conn_ready;
    c->poller = p;
    c->shared = shared;
    c->frame_bytes_max = frame_bytes_max;
    c->ops = ops;
    return RT_OK;
}

int rt_conn_adopt(rt_conn *c, int fd)
{
    int rc = rt_poller_add(c->poller, &c->source, fd, RT_READABLE);
    if (rc < 0) return rc;
    c->own.fd = fd;
    return RT_OK;
}

int rt_conn_open(rt_conn *c, const rt_address *to)
{
    int fd;
    int rc = rt_socket_connect(to, &fd);
    if (rc < 0 && rc != RT_AGAIN) return rc;
    /* A connect that succeeded at once is also reported by the poller: one path. */
    rc = rt_poller_add(c->poller, &c->source, fd, RT_WRITABLE);
    if (rc < 0) {
        rt_socket_close(fd);
        return rc;
    }
    c->own.fd = fd;
    c->connecting = true;
    return RT_OK;
}

void rt_conn_packets(rt_conn *c) { c->packets = true; }

void rt_conn_arm(rt_conn *c)
{
    if (c->source.fd < 0) return;
    pthread_mutex_lock(&c->out->lock);
    bool more = c->out->bytes > 0;
    pthread_mutex_unlock(&c->out->lock);
    if (more || c->paused) rt_delack_end(c);
    uint32_t want = (c->paused ? 0 : RT_READABLE) | (more || c->connecting ? RT_WRITABLE : 0) |
                    (c->delack.on ? RT_EDGE : 0);
    if (want != c->source.interest && rt_poller_modify(c->poller, &c->source, want) < 0)
        rt_conn_close(c, RT_ESYS, errno);
}

/* Waits until no sender holds the token, then takes the descriptor away from
 * the queue. A sender's write does not block, so the wait is short. */
static void queue_detach(rt_outq *q)
{
    pthread_mutex_lock(&q->lock);
    while (q->writing) {
        pthread_mutex_unlock(&q->lock);
        sched_yield();
        pthread_mutex_lock(&q->lock);
    }
    q->fd = -1;
    pthread_mutex_unlock(&q->lock);
}

static void conn_end(rt_conn *c)
{
    int fd = c->own.fd; /* in no poller between leave and join */
    c->dead = true;
    rt_delack_stop(c); /* or what is left in the socket makes the kernel break the stream */
    rt_poller_remove(c->poller, &c->source);
    queue_detach(c->out);
    if (c->out != &c->own) queue_detach(&c->own);
    if (fd >= 0) rt_socket_close(fd);
    rt_free(c->partial);
    c->partial = c->into = NULL;
    c->partial_n = c->into_n = 0;
    rt_outq_fini(&c->own);
    c->ops->closed(c, c->fail_rc, c->fail_sys);
}

void rt_conn_close(rt_conn *c, int rc, int sys)
{
    if (c->closing) return;
    c->closing = true;
    c->fail_rc = rc;
    c->fail_sys = sys;
    if (!c->busy) conn_end(c);
}

void rt_conn_finish(rt_conn *c)
{
    if (c->closing) return;
    c->eof_after_write = true;
    rt_conn_flush(c);
}

int rt_conn_use_queue(rt_conn *c, rt_outq *q)
{
    int rc = RT_OK;
    pthread_mutex_lock(&q->lock);
    for (rt_outchunk *k = c->own.lane[RT_LANE_PROMPT].first; k; k = k->next) {
        RT_ASSERT(k->next == NULL); /* a handshake fits one chunk */
        if (k->n > k->off) rc = rt_outq_put_front(q, k->data + k->off, k->n - k->off);
        if (rc < 0) goto done;
    }
    rt_outchunk_free(rt_outq_take(&c->own));
    q->fd = c->own.fd;
    q->written = 0;
    q->slice = RT_OUTQ_SLICE_MIN;
    q->slice_unsent = 0;
    c->out = q;
done:
    pthread_mutex_unlock(&q->lock);
    return rc;
}

_Static_assert(RT_OUTQ_SLICE_MIN == RT_SOCKET_UNSENT_BYTES, "as a stream begins");

/* Waking up for each portion costs a fast stream half its rate, and what the kernel has not sent
 * yet cannot be passed any more. So one that had sent a whole slice when its writer came again is
 * given twice as much, and one that takes longer than SLICE_NS for it, half. */
static void pace(rt_outq *q, size_t unsent, uint64_t now)
{
    size_t slice = q->slice;
    uint64_t sent = q->slice_unsent > unsent ? q->slice_unsent - unsent : 0;
    if (sent == 0) return;
    if (unsent == 0 && sent >= slice && slice < RT_OUTQ_SLICE_MAX) slice *= 2;
    if (unsent > 0 && (now - q->slice_at) * slice > SLICE_NS * sent && slice > RT_OUTQ_SLICE_MIN)
        slice /= 2;
    if (slice != q->slice && rt_socket_allow_unsent(q->fd, slice) == RT_OK) q->slice = slice;
}

/* How much of the bulk lane is written next. */
static size_t next_slice(rt_outq *q)
{
    if (!rt_outq_bulk(q)) return 0;
    size_t unsent = rt_socket_unsent(q->fd);
    if (unsent >= q->slice) return 0;
    uint64_t now = rt_now();
    pace(q, unsent, now);
    q->slice_unsent = unsent;
    q->slice_at = now;
    return q->slice;
}

/* One system call, with the lock held before and after it. RT_AGAIN: something is left;
 * *room: the socket took all that it was given. */
static int write_once(rt_outq *q, size_t *bytes_max, bool *room)
{
    struct iovec iov[RT_OUTQ_IOV_MAX];
    int fd = q->fd;
    size_t slice = next_slice(q);
    int k = rt_outq_snapshot(q, iov, RT_OUTQ_IOV_MAX, *bytes_max, slice);
    size_t planned = q->planned[0] + q->planned[1] + q->planned[2];
    *room = false;
    if (k == 0) return RT_AGAIN;
    pthread_mutex_unlock(&q->lock);
    struct msghdr mh = {.msg_iov = iov, .msg_iovlen = (size_t)k};
    ssize_t n;
    do n = sendmsg(fd, &mh, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    int sys = errno;
    pthread_mutex_lock(&q->lock);
    if (n > 0) {
        rt_outq_consume(q, (size_t)n);
        *bytes_max -= (size_t)n;
        *room = (size_t)n == planned;
        if (slice) q->slice_unsent = rt_outq_bulk(q) ? q->slice_unsent + (size_t)n : 0;
    }
    errno = sys;
    if (n < 0 && sys != EAGAIN && sys != EWOULDBLOCK) return RT_ESYS;
    return q->bytes == 0 ? RT_OK : RT_AGAIN;
}

int rt_outq_write(rt_outq *q, size_t bytes_max)
{
    bool room;
    pthread_mutex_lock(&q->lock);
    int rc = q->fd < 0 ? RT_ENOTCONN : q->writing ? RT_EBUSY : q->bytes == 0 ? RT_OK : RT_AGAIN;
    if (rc == RT_AGAIN) {
        q->writing = true;
        do rc = write_once(q, &bytes_max, &room);
        while (rc == RT_AGAIN && room && bytes_max > 0);
        q->writing = false;
    }
    int sys = errno;
    pthread_mutex_unlock(&q->lock);
    errno = sys;
    return rc;
}

void rt_conn_flush(rt_conn *c)
{
    if (c->closing || c->connecting || c->source.fd < 0) return;
    int rc = rt_outq_write(c->out, WRITE_BYTES_MAX);
    if (rc == RT_ESYS) {
        rt_conn_close(c, RT_ESYS, errno);
        return;
    }
    if (rc == RT_OK && c->eof_after_write) {
        rt_conn_close(c, RT_OK, 0);
        return;
    }
    if (rc != RT_ENOTCONN && c->ops->written) c->ops->written(c);
    if (!c->closing) rt_conn_arm(c);
}

int rt_conn_send(rt_conn *c, const void *p, size_t n)
{
    if (c->closing) return RT_ECLOSED;
    pthread_mutex_lock(&c->out->lock);
    int rc = rt_outq_put(c->out, p, n);
    pthread_mutex_unlock(&c->out->lock);
    if (rc == RT_OK) rt_conn_flush(c);
    return rc;
}

void rt_conn_pause(rt_conn *c, bool on)
{
    if (c->paused == on || c->closing) return;
    c->paused = on;
    rt_conn_arm(c);
}

void rt_conn_leave(rt_conn *c)
{
    RT_ASSERT(!c->busy && !c->connecting);
    rt_delack_stop(c);
    rt_poller_remove(c->poller, &c->source);
}

int rt_conn_join(rt_conn *c, rt_poller *p, uint8_t *shared)
{
    c->poller = p;
    c->shared = shared;
    return rt_poller_add(p, &c->source, c->own.fd, c->paused ? 0 : RT_READABLE);
}

/* Gives whole packets (or raw messages) of [p, p+n) on; *used tells how far. */
static int dispatch(rt_conn *c, const uint8_t *p, size_t n, size_t *used)
{
    size_t at = 0;
    int rc = RT_OK;
    while (at < n && !c->closing) {
        if (!c->packets) {
            int64_t k = c->ops->bytes(c, p + at, n - at);
            if (k < 0) { rc = (int)k; break; }
            if (k == 0 && !c->packets) break;
            at += (size_t)k;
            continue;
        }
        if (n - at < 4) break;
        size_t len = rt_load_u32(p + at);
        if (len > c->frame_bytes_max) { rc = RT_ELIMIT; break; }
        if (n - at - 4 < len) break;
        c->asked = false;
        c->delack.large |= len > RT_DELACK_PACKET_MAX;
        c->delack.packets++;
        rc = c->ops->packet(c, p + at + 4, len);
        if (rc < 0) break;
        at += 4 + len;
    }
    *used = at;
    return rc;
}

/* Copies the beginning of a packet, or of raw bytes, to where there is room for `cap`. */
static int keep_partial(rt_conn *c, const uint8_t *p, size_t n, size_t cap)
{
    if (c->partial_cap < cap) {
        uint8_t *q = rt_malloc(cap);
        if (!q) return RT_ENOMEM;
        memcpy(q, p, n);
        rt_free(c->partial);
        c->partial = q;
        c->partial_cap = cap;
    } else {
        memmove(c->partial, p, n);
    }
    c->partial_n = n;
    return RT_OK;
}

static void drop_partial(rt_conn *c)
{
    rt_free(c->partial);
    c->partial = NULL;
    c->partial_n = c->partial_cap = 0;
}

/* Keeps what is left of a read for the next one. */
static int keep(rt_conn *c, const uint8_t *p, size_t n)
{
    if (n == 0) {
        drop_partial(c);
        return RT_OK;
    }
    size_t len = c->packets && n >= 4 ? rt_load_u32(p) : 0;
    if (c->packets ? len > c->frame_bytes_max : n > LARGE_PACKET) return RT_ELIMIT;
    c->delack.large |= len > RT_DELACK_PACKET_MAX;
    if (len > RT_CONN_PLACE_MIN && len + 4 <= LARGE_PACKET && n >= 4 + RT_CONN_HEAD && !c->asked &&
        c->ops->place) {
        c->asked = true;
        c->into = c->ops->place(c, p + 4, n - 4, len);
        c->placed = c->into != NULL;
        c->into_n = 4 + len - n;
        if (c->placed) {
            drop_partial(c);
            return RT_OK;
        }
    }
    if (len + 4 <= LARGE_PACKET) return keep_partial(c, p, n, n < 256 ? 256 : n);
    int rc = keep_partial(c, p, n, len + 4);
    if (rc < 0) return rc;
    c->into = c->partial + n;
    c->into_n = 4 + len - n;
    return RT_OK;
}

/* The packet that had a place is whole. */
static int give_placed(rt_conn *c)
{
    c->into = NULL;
    c->asked = false;
    if (c->placed) {
        c->placed = false;
        return c->ops->placed(c);
    }
    int rc = c->ops->packet(c, c->partial + 4, rt_load_u32(c->partial));
    drop_partial(c);
    return rc;
}

/* One system call; got as recv's. Bytes that have a place go there, the others to the shared
 * buffer, behind `start` bytes. */
static ssize_t receive(rt_conn *c, size_t start, size_t *room)
{
    *room = c->into ? AHEAD_BYTES : RT_READ_BUFFER_BYTES - start;
    if (!c->into) {
        int peek = c->delack.on ? MSG_PEEK : 0;
        ssize_t got = recv(c->source.fd, c->shared + start, *room, MSG_DONTWAIT | peek);
        if (peek && got > 0) c->delack.held += (size_t)got;
        return got;
    }
    if (c->delack.on) {
        rt_delack_end(c);
        rt_conn_arm(c);
    }
    struct iovec iov[2] = {{c->into, c->into_n}, {c->shared, *room}};
    struct msghdr mh = {.msg_iov = iov, .msg_iovlen = 2};
    *room += c->into_n;
    return recvmsg(c->source.fd, &mh, MSG_DONTWAIT);
}

/* RT_OK: read on; RT_AGAIN: nothing left for now. */
static int read_once(rt_conn *c)
{
    size_t start = c->into ? 0 : c->partial_n, room;
    if (start) memcpy(c->shared, c->partial, start);
    ssize_t got = receive(c, start, &room);
    if (got == 0) { c->fail_sys = 0; return RT_ECLOSED; }
    if (got < 0) {
        if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) return RT_AGAIN;
        c->fail_sys = errno;
        return RT_ESYS;
    }
    c->bytes_in += (uint64_t)got;
    c->reads++;
    size_t n = start + (size_t)got, used = 0;
    int rc = RT_OK;
    if (c->into) {
        size_t filled = n < c->into_n ? n : c->into_n;
        c->into += filled;
        c->into_n -= filled;
        n -= filled;
        if (c->into_n) return RT_AGAIN;
        rc = give_placed(c);
    }
    if (rc == RT_OK && !c->closing) rc = dispatch(c, c->shared, n, &used);
    if (rc == RT_OK && !c->closing) rc = keep(c, c->shared + used, n - used);
    if (rc == RT_OK && (size_t)got < room) rc = RT_AGAIN;
    return rc;
}

void rt_conn_go_on(rt_conn *c)
{
    uint8_t *p = c->partial;
    size_t n = c->partial_n, used = 0;
    RT_ASSERT(!c->busy && !c->into);
    c->partial = NULL;
    c->partial_n = c->partial_cap = 0;
    c->busy = true;
    rt_conn_pause(c, false);
    int rc = dispatch(c, p, n, &used);
    if (rc == RT_OK && !c->closing) rc = keep(c, p + used, n - used);
    if (c->packets && c->ops->batch) c->ops->batch(c);
    if (rc < 0) rt_conn_close(c, rc, 0);
    c->busy = false;
    rt_free(p);
    if (c->closing) conn_end(c);
}

static void read_some(rt_conn *c)
{
    int rc = RT_OK;
    bool more = true;
    uint64_t begin = c->bytes_in;
    while (more && rc == RT_OK && !c->closing && !c->paused &&
           c->bytes_in - begin < RT_CONN_ROUNDS * RT_READ_BUFFER_BYTES) {
        uint64_t before = c->bytes_in;
        rc = read_once(c);
        more = rt_poller_spend(c->poller, (size_t)(c->bytes_in - before));
    }
    if (c->bytes_in != begin && c->packets && c->ops->batch) c->ops->batch(c);
    if (!c->closing) rt_delack_note(c, (size_t)(c->bytes_in - begin), rc == RT_AGAIN);
    if (rc < 0 && rc != RT_AGAIN) rt_conn_close(c, rc, c->fail_sys);
}

static void conn_ready(rt_source *s, uint32_t events)
{
    rt_conn *c = RT_CONTAINER_OF(s, rt_conn, source);
    c->busy = true;
    if (c->connecting) {
        int sys = rt_socket_error(s->fd);
        if (sys) {
            rt_conn_close(c, RT_ESYS, sys);
        } else if (events & RT_WRITABLE) {
            c->connecting = false;
            rt_conn_arm(c);
            if (!c->closing) c->ops->connected(c);
        }
    } else {
        /* A hang-up is found by reading, after what the peer still sent. */
        if (events & RT_HANGUP && c->paused) rt_conn_close(c, RT_ECLOSED, 0);
        else if (events & (RT_READABLE | RT_HANGUP)) read_some(c);
        if (!c->closing && events & RT_WRITABLE) rt_conn_flush(c);
    }
    c->busy = false;
    if (c->closing) conn_end(c);
}
