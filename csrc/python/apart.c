#include "python/apart.h"

#include "base/alloc.h"
#include "base/atomic.h"
#include "python/enc.h"

/* Whether what comes next is a key, or stands in one: a key is compared by its bytes. */
static bool in_key(const rt_enc *e)
{
    for (uint32_t i = 0; i < e->depth; i++) {
        const rt_enc_frame *f = &e->stack[i];
        if (f->kind < RT_ENC_PAIRS) continue;
        if (f->in_key || (i + 1 == e->depth && f->start == (size_t)(e->w - e->base))) return true;
    }
    return false;
}

int rt_enc_large(rt_enc *e, PyObject *obj)
{
    size_t n = (size_t)PyBytes_GET_SIZE(obj);
    if (!e->apart || e->apart->bytes || n > UINT32_MAX || in_key(e))
        return rt_enc_bytes(e, PyBytes_AS_STRING(obj), n);
    if (rt_enc_room(e, 5) < 0) return -1;
    rt_enc_tag_u32(e, RT_TAG_BINARY, (uint32_t)n);
    e->apart->bytes = Py_NewRef(obj);
    e->apart->at = (size_t)(e->w - e->buf->p);
    return 1;
}

typedef struct held {
    rt_shared shared;
    PyObject *bytes;
    struct held *next;
} held;

static _Atomic(held *) pile; /* to be let go */
static atomic_bool asked;    /* the main thread to do so */

void rt_py_let_go(void)
{
    /* relaxed: a hint */
    if (!atomic_load_explicit(&pile, memory_order_relaxed)) return;
    /* acquire pairs with the release in `released` */
    held *h = atomic_exchange_explicit(&pile, NULL, memory_order_acquire);
    while (h) {
        held *next = h->next;
        Py_DECREF(h->bytes);
        rt_free(h);
        h = next;
    }
}

static int let_go_later(void *unused)
{
    (void)unused;
    /* acq_rel, here and in `released`: who found it set has laid its object down before this takes
     * them. */
    atomic_exchange_explicit(&asked, false, memory_order_acq_rel);
    rt_py_let_go();
    return 0;
}

/* By whoever has written the last of it: no GIL, perhaps a queue's lock. */
static void released(rt_shared *s)
{
    held *h = RT_CONTAINER_OF(s, held, shared);
    held *below = atomic_load_explicit(&pile, memory_order_relaxed);
    /* release: see rt_py_let_go, which may have freed it as soon as it lies there */
    do h->next = below;
    while (!atomic_compare_exchange_weak_explicit(&pile, &below, h, memory_order_release,
                                                  memory_order_relaxed));
    /* The interpreter has room for few requests, from everybody. Without room the next call of a
     * node does it; an interpreter that has ended needs nothing back. */
    if (!Py_IsInitialized() || atomic_exchange_explicit(&asked, true, memory_order_acq_rel)) return;
    if (Py_AddPendingCall(let_go_later, NULL) < 0)
        atomic_store_explicit(&asked, false, memory_order_relaxed); /* the next one tries again */
}

rt_shared *rt_py_apart_share(PyObject *bytes)
{
    held *h = rt_malloc(sizeof *h);
    if (!h) {
        PyErr_NoMemory();
        return NULL;
    }
    rt_shared_init(&h->shared, released);
    h->bytes = Py_NewRef(bytes);
    return &h->shared;
}

int rt_py_apart_insert(rt_buf *b, size_t at, PyObject *bytes)
{
    size_t n = (size_t)PyBytes_GET_SIZE(bytes);
    if (rt_buf_reserve(b, n) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    memmove(b->p + at + n, b->p + at, b->n - at);
    memcpy(b->p + at, PyBytes_AS_STRING(bytes), n);
    b->n += n;
    return 0;
}
