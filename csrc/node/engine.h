/* Purpose: drive one node's sockets and timers. Whoever waits, drives: an event
 * loop that watches rt_engine_fd, a thread blocked in a wait, or the engine's
 * own thread.
 *
 *   RT_ENGINE_THREAD  its own thread always drives
 *   RT_ENGINE_INLINE  only callers drive
 *   RT_ENGINE_AUTO    callers drive; its own thread takes over when work is
 *                     waiting and nobody has driven for RT_ENGINE_GRACE_MS, as it
 *                     finds within RT_ENGINE_LOOK_MS_MAX; at once when nobody has
 *                     promised to drive
 *
 * Who drives may stay awake for a while after a peer was heard, and look for more before it
 * sleeps: waking up costs more than many looks (rt_vigil). The own thread of RT_ENGINE_AUTO
 * never does: it drives for those who are busy.
 *
 * Ownership: the node owns its engine; poller, timers and everything hung on
 * them are touched only by whoever holds the drive lock.
 * Threads: drive, wake, wait from any thread. Nobody blocks while holding the
 * drive lock, except the engine's own thread in RT_ENGINE_THREAD.
 * Limits: one drive handles at most RT_ENGINE_EVENTS_MAX sources, and but in RT_ENGINE_THREAD
 * begins no read when it has read RT_ENGINE_READ_BYTES.
 * Errors: RT_ESYS, RT_ENOMEM, RT_EBUSY (another thread drives just now). */
#ifndef RT_NODE_ENGINE_H
#define RT_NODE_ENGINE_H

#include <pthread.h>

#include "base/atomic.h"
#include "net/poller.h"
#include "net/timer.h"
#include "sync/notifier.h"

#define RT_ENGINE_EVENTS_MAX 256
#define RT_ENGINE_GRACE_MS 5
/* Its own thread looks each grace whether others drive, and less and less often while they do: it
 * takes a processor from who waits for an answer. */
#define RT_ENGINE_LOOK_MS_MAX 40
/* What one drive reads where the driver is also who works on it. More would be there than a turn
 * of its loop works off: it would wait in memory, instead of in the senders' queues. */
#define RT_ENGINE_READ_BYTES (512u * 1024u)
#define RT_BUSY_WAIT_NS_MAX 1000000u

enum rt_engine_mode { RT_ENGINE_AUTO, RT_ENGINE_THREAD, RT_ENGINE_INLINE };

/* Staying awake. It pays while the peer answers in time. Where it does not, or cannot because it
 * would need the processor that is kept busy waiting for it, waits are left off: one after the
 * first in vain, two after the second, and so on, doubling up to a bound. Each that was not in
 * vain halves what the next in vain will leave off. */
typedef struct rt_vigil {
    uint64_t ns;                    /* at most RT_BUSY_WAIT_NS_MAX; set before start; 0: never */
    _Atomic uint32_t heard;         /* a peer was, since somebody asked */
    _Atomic uint32_t on;            /* somebody is awake */
    _Atomic uint32_t vain, skip;    /* how many one in vain left off last; how many are left of those */
} rt_vigil;

typedef struct rt_engine rt_engine;
struct rt_engine {
    rt_poller *poller;
    rt_timers *timers;
    uint8_t *read_buffer;
    enum rt_engine_mode mode;
    rt_vigil vigil;
    pthread_mutex_t drive;
    _Atomic uint64_t beats;         /* of those who drive, but for the own thread */
    _Atomic uint32_t promised;      /* loops and threads that watch the descriptor */
    _Atomic unsigned long driver;   /* pthread_self of the driver, 0 for none */
    _Atomic uint32_t woken;         /* the wake descriptor is written and not yet read */
    _Atomic uint32_t gathered;      /* the own thread looks after what others gathered */
    _Atomic uint32_t dozing;        /* the own thread sleeps until it is told */
    _Atomic uint32_t stopping;
    rt_source wake;
    int own_fd;                     /* wakes the own thread alone */
    bool has_thread;
    pthread_t thread;
    /* The node's part of each drive, after sockets and timers. */
    void (*turn)(rt_engine *e);
    /* Whether something still waits that the next turn would write. Any thread. */
    bool (*waiting)(rt_engine *e);
};

/* RT_POLLER_URING is for RT_ENGINE_THREAD, where one thread alone waits: RT_EINVAL. */
int rt_engine_init(rt_engine *e, enum rt_engine_mode mode, enum rt_poller_kind poller,
                   void (*turn)(rt_engine *e));
int rt_engine_start(rt_engine *e);          /* starts the own thread, if the mode has one */
/* Ends the own thread. Afterwards the caller alone may drive and tear down,
 * holding the drive lock through rt_engine_enter. */
void rt_engine_stop(rt_engine *e);
void rt_engine_fini(rt_engine *e);
int rt_engine_fd(const rt_engine *e);
/* One bounded round without blocking. Number of sources handled, RT_EBUSY. told: by rt_engine_fd,
 * which was readable; see rt_poller_told. */
int rt_engine_drive(rt_engine *e, bool told);
/* Who drives is not stuck: the own thread leaves the next packets to it again. For one that is told of
 * messages without having driven: the own thread was first, and would be every time. */
RT_INLINE void rt_engine_beat(rt_engine *e)
{
    atomic_fetch_add_explicit(&e->beats, 1, memory_order_relaxed); /* it orders nothing */
}
/* Whether who is about to sleep should stay awake for vigil.ns first, or as long anew: a peer
 * was heard since this was asked last. */
bool rt_engine_expects(rt_engine *e);
/* Drives again and again without sleeping, until a peer is heard or the notifier has news
 * (RT_OK), or for ns (RT_ETIME). Ends at once, with RT_OK, when the engine stops. */
int rt_engine_busy_wait(rt_engine *e, const rt_notifier *n, uint64_t ns);
void rt_engine_give_up(rt_engine *e);   /* by who was awake: nothing came */
/* Exclusive access for set-up and tear-down; waits for the present driver. */
void rt_engine_enter(rt_engine *e);
void rt_engine_leave(rt_engine *e);
/* Makes somebody drive soon. */
void rt_engine_wake(rt_engine *e);
/* Something waits that a loop will write at the end of its turn. The own thread, where
 * there is one, does so when that end is a long time coming. */
void rt_engine_gathered_first(rt_engine *e);
RT_INLINE void rt_engine_gathered(rt_engine *e)
{
    /* relaxed: the caller has put its news under a lock that waiting() takes after
     * left_over cleared the flag: one of the two sees the other's. */
    if (e->mode == RT_ENGINE_AUTO && !atomic_load_explicit(&e->gathered, memory_order_relaxed))
        rt_engine_gathered_first(e);
}
bool rt_engine_is_driver(rt_engine *e);
/* Blocks until the notifier has news, driving meanwhile. RT_OK or RT_ETIME; a
 * spurious RT_OK is allowed. */
int rt_engine_wait(rt_engine *e, rt_notifier *n, uint64_t timeout_ns);
void rt_engine_promise(rt_engine *e, int more);   /* +1, -1 */
/* The child of a fork closes what it inherited, without locks. */
void rt_engine_after_fork(rt_engine *e);

#endif
