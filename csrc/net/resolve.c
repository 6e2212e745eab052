#include "net/resolve.h"

#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <strings.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/alloc.h"

/* What a look-up found; outside the lock it belongs to whoever made it. */
typedef struct answer {
    int rc;
    uint32_t count;
    rt_address at[RT_RESOLVE_ADDRESSES_MAX];
    char error[sizeof ((rt_resolve *)0)->error];
} answer;

/* A job stands in exactly one list. `req` belongs to the driver: a worker only
 * asks, under the lock, whether somebody still wants the answer. */
typedef struct job {
    struct job *prev, *next;
    rt_resolve *req;        /* NULL: cancelled */
    enum { WAITING, RUNNING, DONE } state;
    int family;
    answer found;
    char host[];
} job;

typedef struct list {
    job *first, *last;
    size_t n;
} list;

/* Owner, workers and a dispatch under way each hold one count; the last to go
 * frees it. So a worker that is stuck in getaddrinfo keeps only this memory. */
struct rt_resolver {
    rt_source source;       /* the driver's: the eventfd in the poller */
    rt_poller *poller;
    pthread_mutex_t lock;   /* guards all below */
    list lists[3];          /* by state */
    int wake;               /* the eventfd; -1 once closed */
    int threads;
    int counts;
    bool forked;
};

static void list_add(list *l, job *j)
{
    j->next = NULL;
    j->prev = l->last;
    if (l->last) l->last->next = j;
    else l->first = j;
    l->last = j;
    l->n++;
}

static void list_remove(list *l, job *j)
{
    if (j->prev) j->prev->next = j->next;
    else l->first = j->next;
    if (j->next) j->next->prev = j->prev;
    else l->last = j->prev;
    l->n--;
}

/* ---- looking up ---- */

static void found_add(answer *f, const rt_address *a)
{
    if (f->count < RT_RESOLVE_ADDRESSES_MAX) f->at[f->count++] = *a;
}

static void found_none(answer *f, const char *why)
{
    f->rc = RT_ENOENT;
    f->count = 0;
    snprintf(f->error, sizeof f->error, "%s", why);
}

/* Numeric text and localhost need no resolver. False: ask the system. */
static bool look_up_here(const char *host, int family, answer *f)
{
    rt_address a;
    f->rc = RT_OK;
    f->count = 0;
    f->error[0] = '\0';
    if (rt_address_parse(host, 0, &a) == RT_OK) {
        if (family != AF_UNSPEC && family != a.sa.sa_family)
            found_none(f, "the address is of the other family");
        else found_add(f, &a);
        return true;
    }
    if (strcasecmp(host, "localhost") != 0) return false;
    if (family != AF_INET6 && rt_address_loopback(AF_INET, 0, &a) == RT_OK) found_add(f, &a);
    if (family != AF_INET && rt_address_loopback(AF_INET6, 0, &a) == RT_OK) found_add(f, &a);
    return true;
}

static void look_up_there(const char *host, int family, answer *f)
{
    struct addrinfo hints = {.ai_family = family, .ai_socktype = SOCK_STREAM};
    struct addrinfo *first = NULL;
    int rc = getaddrinfo(host, NULL, &hints, &first);
    if (rc == EAI_SYSTEM) {
        char text[sizeof f->error];
        snprintf(text, sizeof text, "%m"); /* errno's words; unlike strerror safe in threads */
        found_none(f, text);
        return;
    }
    if (rc != 0) {
        found_none(f, gai_strerror(rc));
        return;
    }
    for (struct addrinfo *i = first; i; i = i->ai_next) {
        rt_address a;
        if (i->ai_family != AF_INET && i->ai_family != AF_INET6) continue;
        if (i->ai_addrlen > sizeof a.in6) continue;
        memset(&a, 0, sizeof a);
        memcpy(&a.sa, i->ai_addr, i->ai_addrlen);
        a.n = i->ai_addrlen;
        rt_address_set_port(&a, 0);
        found_add(f, &a);
    }
    freeaddrinfo(first);
    if (f->count == 0) found_none(f, "the host has no address");
}

static void give(rt_resolve *req, const answer *f)
{
    req->count = f->count;
    memcpy(req->at, f->at, f->count * sizeof f->at[0]);
    memcpy(req->error, f->error, sizeof req->error);
}

static int check_host(const char *host, int family)
{
    if (family != AF_UNSPEC && family != AF_INET && family != AF_INET6) return RT_EINVAL;
    size_t n = strnlen(host, RT_RESOLVE_HOST_BYTES_MAX + 1);
    return n == 0 || n > RT_RESOLVE_HOST_BYTES_MAX ? RT_EINVAL : RT_OK;
}

int rt_resolve_now(rt_resolve *req, const char *host, int family)
{
    answer f;
    int rc = check_host(host, family);
    if (rc < 0) return rc;
    if (!look_up_here(host, family, &f)) look_up_there(host, family, &f);
    give(req, &f);
    return f.rc;
}

/* ---- jobs ---- */

/* With the lock held, which this gives up. */
static void release(rt_resolver *r)
{
    bool last = --r->counts == 0;
    pthread_mutex_unlock(&r->lock);
    if (!last) return;
    pthread_mutex_destroy(&r->lock);
    rt_free(r);
}

/* With the lock held. */
static void wake_driver(rt_resolver *r)
{
    uint64_t one = 1;
    /* Can fail only when the counter is full, and then it is readable anyway. */
    if (r->wake >= 0 && write(r->wake, &one, sizeof one) < 0) return;
}

/* With the lock held: the job is over. */
static void finish(rt_resolver *r, job *j)
{
    if (!j->req) {
        rt_free(j);
        return;
    }
    j->state = DONE;
    list_add(&r->lists[DONE], j);
    wake_driver(r);
}

static void *work(void *arg)
{
    rt_resolver *r = arg;
    job *j;
    pthread_mutex_lock(&r->lock);
    while ((j = r->lists[WAITING].first) != NULL) {
        list_remove(&r->lists[WAITING], j);
        j->state = RUNNING;
        list_add(&r->lists[RUNNING], j);
        pthread_mutex_unlock(&r->lock);
        look_up_there(j->host, j->family, &j->found);
        pthread_mutex_lock(&r->lock);
        list_remove(&r->lists[RUNNING], j);
        finish(r, j);
    }
    r->threads--;
    release(r);
    return NULL;
}

/* With the lock held. Detached, and with the signals of the program blocked:
 * those are for its own threads. What the thread itself may cause stays open,
 * so that crash handlers see it. Returns an errno value. */
static int start_worker(rt_resolver *r)
{
    static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS};
    sigset_t block, before;
    pthread_attr_t attr;
    pthread_t id;
    int rc = pthread_attr_init(&attr);
    if (rc) return rc;
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    sigfillset(&block);
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++) sigdelset(&block, own[i]);
    pthread_sigmask(SIG_SETMASK, &block, &before);
    rc = pthread_create(&id, &attr, work, r);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    if (rc) return rc;
    r->threads++;
    r->counts++;
    return 0;
}

/* With the lock held. A worker that cannot be started matters only when there
 * is none: otherwise the job waits in line. */
static int queue(rt_resolver *r, job *j)
{
    j->state = WAITING;
    list_add(&r->lists[WAITING], j);
    if (r->threads >= RT_RESOLVE_THREADS_MAX) return RT_OK;
    int sys = start_worker(r);
    if (sys == 0 || r->threads > 0) return RT_OK;
    list_remove(&r->lists[WAITING], j);
    errno = sys;
    return RT_ESYS;
}

int rt_resolve_start(rt_resolver *r, rt_resolve *req, const char *host, int family)
{
    int rc = check_host(host, family);
    RT_ASSERT(!req->job);
    if (rc < 0) return rc;
    if (r->forked) return RT_EFORK;
    size_t n = strlen(host) + 1;
    job *j = rt_calloc(1, sizeof *j + n);
    if (!j) return RT_ENOMEM;
    memcpy(j->host, host, n);
    j->family = family;
    j->req = req;
    bool here = look_up_here(j->host, family, &j->found);
    pthread_mutex_lock(&r->lock);
    if (here) finish(r, j);
    else rc = queue(r, j);
    pthread_mutex_unlock(&r->lock);
    if (rc < 0) rt_free(j);
    else req->job = j;
    return rc;
}

void rt_resolve_cancel(rt_resolver *r, rt_resolve *req)
{
    job *j = req->job;
    if (!j) return;
    req->job = NULL;
    if (r->forked) return;
    pthread_mutex_lock(&r->lock);
    j->req = NULL;
    if (j->state != RUNNING) { /* else its worker frees it */
        list_remove(&r->lists[j->state], j);
        rt_free(j);
    }
    pthread_mutex_unlock(&r->lock);
}

/* ---- the driver's side ---- */

static job *take_done(rt_resolver *r)
{
    job *j = r->lists[DONE].first;
    if (j) list_remove(&r->lists[DONE], j);
    return j;
}

/* Gives out what is done now; what a callback starts waits for the next call,
 * so that the call is bounded. A callback may cancel others and free us. */
static void dispatch(rt_source *s, uint32_t events)
{
    rt_resolver *r = RT_CONTAINER_OF(s, rt_resolver, source);
    uint64_t ticks;
    job *j;
    (void)events;
    pthread_mutex_lock(&r->lock);
    r->counts++;
    /* The lock orders this with wake_driver: no wake-up is lost in between. */
    if (read(s->fd, &ticks, sizeof ticks) < 0) ticks = 0;
    for (size_t left = r->lists[DONE].n; left > 0 && (j = take_done(r)) != NULL; left--) {
        rt_resolve *req = j->req;
        int rc = j->found.rc;
        pthread_mutex_unlock(&r->lock);
        req->job = NULL;
        give(req, &j->found);
        rt_free(j);
        req->done(req, rc);
        pthread_mutex_lock(&r->lock);
    }
    release(r);
}

int rt_resolver_new(rt_resolver **out, rt_poller *p)
{
    int rc = RT_ESYS, sys;
    rt_resolver *r = rt_calloc(1, sizeof *r);
    if (!r) return RT_ENOMEM;
    r->poller = p;
    r->source.fd = -1;
    r->source.ready = dispatch;
    r->counts = 1;
    r->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (r->wake < 0) goto fail;
    rc = rt_poller_add(p, &r->source, r->wake, RT_READABLE);
    if (rc < 0) goto fail;
    pthread_mutex_init(&r->lock, NULL); /* cannot fail for a plain one */
    *out = r;
    return RT_OK;
fail:
    sys = errno;
    if (r->wake >= 0) close(r->wake);
    rt_free(r);
    errno = sys;
    return rc;
}

static void forget(list *l, bool and_free)
{
    for (job *j = l->first, *next; j; j = next) {
        next = j->next;
        if (j->req) j->req->job = NULL;
        j->req = NULL;
        if (and_free) rt_free(j);
    }
}

void rt_resolver_free(rt_resolver *r)
{
    static const list none;
    if (!r) return;
    rt_poller_remove(r->poller, &r->source);
    if (r->forked) {
        /* The lists may be half changed and the lock taken: both are left. */
        rt_free(r);
        return;
    }
    pthread_mutex_lock(&r->lock);
    close(r->wake);
    r->wake = -1;
    forget(&r->lists[WAITING], true);
    forget(&r->lists[DONE], true);
    forget(&r->lists[RUNNING], false); /* their workers free them */
    r->lists[WAITING] = r->lists[DONE] = none;
    release(r);
}

void rt_resolver_after_fork(rt_resolver *r)
{
    r->source.fd = -1; /* not taken out of the poller: that set is the parent's too */
    if (r->wake >= 0) close(r->wake);
    r->wake = -1;
    r->forked = true;
}
