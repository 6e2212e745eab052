/* threads; needs: net */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>

#include "base/clock.h"
#include "net/resolve.h"
#include "sockets.h"

#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__) || \
    __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define SANITIZED 1 /* their own pthread_create must stay in front */
#else
#define SANITIZED 0
#endif

/* ---- the system's resolver, as this program defines it ----
 *
 * fast*     one address                 stuck*  the same, but only when released
 * both      two families, ports set     many    more addresses than are kept
 * none      unknown                     broken  EAI_SYSTEM
 * foreign   an address of no kind we know
 * Anything else goes to libc. */

static struct {
    pthread_mutex_t lock;
    pthread_cond_t change;
    bool released;
    int inside, inside_most, calls;
    sigset_t mask;          /* of the thread that called last */
} fake = {.lock = PTHREAD_MUTEX_INITIALIZER, .change = PTHREAD_COND_INITIALIZER};

static void fake_lock(void) { pthread_mutex_lock(&fake.lock); }
static void fake_unlock(void) { pthread_mutex_unlock(&fake.lock); }

static void fake_reset(void)
{
    fake_lock();
    fake.released = false;
    fake.inside = fake.inside_most = fake.calls = 0;
    fake_unlock();
}

static void fake_release(void)
{
    fake_lock();
    fake.released = true;
    pthread_cond_broadcast(&fake.change);
    fake_unlock();
}

static void wait_inside(int n)
{
    fake_lock();
    while (fake.inside < n) pthread_cond_wait(&fake.change, &fake.lock);
    fake_unlock();
}

static int fake_calls(void)
{
    fake_lock();
    int n = fake.calls;
    fake_unlock();
    return n;
}

typedef struct node {
    struct addrinfo info;
    rt_address address;
} node;

static char made_here[] = "here";

static struct addrinfo *push(struct addrinfo *next, const char *host)
{
    node *n = calloc(1, sizeof *n);
    if (!n || rt_address_parse(host, 99, &n->address) < 0) abort();
    n->info.ai_family = n->address.sa.sa_family;
    n->info.ai_addr = &n->address.sa;
    n->info.ai_addrlen = n->address.n;
    n->info.ai_canonname = made_here;
    n->info.ai_next = next;
    return &n->info;
}

static bool starts(const char *host, const char *with)
{
    return strncmp(host, with, strlen(with)) == 0;
}

static void enter(const char *host)
{
    fake_lock();
    fake.calls++;
    pthread_sigmask(SIG_SETMASK, NULL, &fake.mask);
    if (++fake.inside > fake.inside_most) fake.inside_most = fake.inside;
    pthread_cond_broadcast(&fake.change);
    while (starts(host, "stuck") && !fake.released) pthread_cond_wait(&fake.change, &fake.lock);
    fake.inside--;
    fake_unlock();
}

int getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                struct addrinfo **out)
{
    CHECK(service == NULL && hints->ai_socktype == SOCK_STREAM);
    enter(host);
    *out = NULL;
    if (starts(host, "fast") || starts(host, "stuck")) {
        *out = push(NULL, "10.0.0.1");
    } else if (strcmp(host, "both") == 0) {
        if (hints->ai_family != AF_INET) *out = push(*out, "2001:db8::1");
        if (hints->ai_family != AF_INET6) *out = push(*out, "10.0.0.2");
    } else if (strcmp(host, "many") == 0) {
        char text[32];
        for (int i = 12; i > 0; i--) {
            snprintf(text, sizeof text, "10.0.1.%d", i);
            *out = push(*out, text);
        }
    } else if (strcmp(host, "none") == 0) {
        return EAI_NONAME;
    } else if (strcmp(host, "broken") == 0) {
        errno = EIO;
        return EAI_SYSTEM;
    } else if (strcmp(host, "foreign") == 0) {
        *out = push(NULL, "10.0.0.3");
        (*out)->ai_family = AF_UNIX;
    } else {
        int (*libc)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
        *(void **)&libc = dlsym(RTLD_NEXT, "getaddrinfo");
        return libc(host, service, hints, out);
    }
    return 0;
}

void freeaddrinfo(struct addrinfo *list)
{
    if (list && list->ai_canonname != made_here) {
        void (*libc)(struct addrinfo *);
        *(void **)&libc = dlsym(RTLD_NEXT, "freeaddrinfo");
        libc(list);
        return;
    }
    while (list) {
        node *n = RT_CONTAINER_OF(list, node, info);
        list = list->ai_next;
        free(n);
    }
}

#if !SANITIZED
static int fail_create;

int pthread_create(pthread_t *id, const pthread_attr_t *attr, void *(*run)(void *), void *arg)
{
    int (*libc)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (fail_create) return fail_create;
    *(void **)&libc = dlsym(RTLD_NEXT, "pthread_create");
    return libc(id, attr, run, arg);
}
#endif

/* ---- the driver ---- */

typedef struct probe {
    rt_resolve req;
    int calls, rc;
    void (*then)(struct probe *p);
} probe;

static rt_poller *poller;
static rt_resolver *resolver;
static int fds_before, threads_before;
static long live_before;

static void answered(rt_resolve *r, int rc)
{
    probe *p = RT_CONTAINER_OF(r, probe, req);
    CHECK(r->job == NULL);
    p->calls++;
    p->rc = rc;
    if (p->then) p->then(p);
}

#define PROBE {.req.done = answered}

static int threads_now(void) { return entries_of("/proc/self/task"); }

static void begin(void)
{
    fake_reset();
    fds_before = open_fds();
    live_before = rt_alloc_live();
    /* The sanitizer starts a thread of its own with our first: not counted. */
    threads_before = threads_now();
    if (!CHECK(rt_poller_new(&poller, RT_POLLER_EPOLL) == RT_OK)) abort();
    if (!CHECK(rt_resolver_new(&resolver, poller) == RT_OK)) abort();
}

/* Workers leave by themselves; the test waits for it, the code does not. */
static void finish(void)
{
    rt_resolver_free(resolver);
    rt_poller_free(poller);
    resolver = NULL;
    fake_release();
    CHECK(EVENTUALLY(rt_alloc_live() == live_before));
    CHECK(EVENTUALLY(threads_now() <= threads_before + SANITIZED));
    CHECK_INT(open_fds(), fds_before);
}

static int start(probe *p, const char *host, int family)
{
    return rt_resolve_start(resolver, &p->req, host, family);
}

static void drive_until(const int *calls, int n)
{
    uint64_t until = rt_now() + PATIENCE;
    while (*calls < n && rt_now() < until) CHECK(rt_poller_wait(poller, PATIENCE, 10) >= 0);
    CHECK_INT(*calls, n);
}

static void check_address(const rt_address *a, const char *want)
{
    char text[RT_ADDRESS_TEXT_MAX];
    rt_address_text(a, text);
    if (!CHECK(strcmp(text, want) == 0)) fprintf(stderr, "    %s, not %s\n", text, want);
}

/* ---- hosts that need no resolver ---- */

static const struct {
    const char *host;
    int family, rc;
    const char *first, *second;
} local[] = {
    {"127.0.0.9", AF_UNSPEC, RT_OK, "127.0.0.9:0", NULL},
    {"127.0.0.9", AF_INET, RT_OK, "127.0.0.9:0", NULL},
    {"127.0.0.9", AF_INET6, RT_ENOENT, NULL, NULL},
    {"::1", AF_UNSPEC, RT_OK, "[::1]:0", NULL},
    {"::1", AF_INET6, RT_OK, "[::1]:0", NULL},
    {"::1", AF_INET, RT_ENOENT, NULL, NULL},
    {"localhost", AF_UNSPEC, RT_OK, "127.0.0.1:0", "[::1]:0"},
    {"LocalHost", AF_INET, RT_OK, "127.0.0.1:0", NULL},
    {"localhost", AF_INET6, RT_OK, "[::1]:0", NULL},
};

static void check_local(const rt_resolve *r, int rc, size_t i)
{
    CHECK_INT(rc, local[i].rc);
    CHECK_INT(r->count, (local[i].first != NULL) + (local[i].second != NULL));
    CHECK_INT(r->error[0] != '\0', rc != RT_OK);
    if (r->count > 0) check_address(&r->at[0], local[i].first);
    if (r->count > 1) check_address(&r->at[1], local[i].second);
}

static void test_local_hosts(void)
{
    begin();
    for (size_t i = 0; i < sizeof local / sizeof local[0]; i++) {
        probe p = PROBE;
        CHECK_INT(start(&p, local[i].host, local[i].family), RT_OK);
        CHECK_INT(p.calls, 0); /* never from inside start */
        CHECK_INT(rt_poller_wait(poller, 0, 10), 1);
        CHECK_INT(p.calls, 1);
        check_local(&p.req, p.rc, i);
        CHECK_INT(rt_poller_wait(poller, 0, 10), 0);
        rt_resolve now = {0};
        check_local(&now, rt_resolve_now(&now, local[i].host, local[i].family), i);
    }
    CHECK_INT(fake_calls(), 0);
    finish();
}

/* ---- hosts that do ---- */

static void check_both(const rt_resolve *r)
{
    CHECK_INT(r->count, 2);
    check_address(&r->at[0], "10.0.0.2:0"); /* in the system's order, port 0 */
    check_address(&r->at[1], "[2001:db8::1]:0");
    CHECK(r->error[0] == '\0');
}

static void test_looked_up(void)
{
    static const struct { const char *host, *text; } bad[] = {
        {"none", NULL}, {"broken", "Input/output error"}, {"foreign", "the host has no address"},
    };
    begin();
    probe p = PROBE;
    CHECK_INT(start(&p, "both", AF_UNSPEC), RT_OK);
    drive_until(&p.calls, 1);
    CHECK_INT(p.rc, RT_OK);
    check_both(&p.req);
    CHECK_INT(start(&p, "both", AF_INET6), RT_OK);
    drive_until(&p.calls, 2);
    CHECK_INT(p.req.count, 1);
    check_address(&p.req.at[0], "[2001:db8::1]:0");
    CHECK_INT(start(&p, "many", AF_INET), RT_OK);
    drive_until(&p.calls, 3);
    CHECK_INT(p.req.count, RT_RESOLVE_ADDRESSES_MAX);
    check_address(&p.req.at[0], "10.0.1.1:0");
    check_address(&p.req.at[7], "10.0.1.8:0");
    for (int i = 0; i < 3; i++) {
        CHECK_INT(start(&p, bad[i].host, AF_UNSPEC), RT_OK);
        drive_until(&p.calls, 4 + i);
        CHECK_INT(p.rc, RT_ENOENT);
        CHECK_INT(p.req.count, 0);
        const char *text = bad[i].text ? bad[i].text : gai_strerror(EAI_NONAME);
        if (!CHECK(strcmp(p.req.error, text) == 0)) fprintf(stderr, "    %s\n", p.req.error);
    }
    CHECK_INT(start(&p, "127.1", AF_UNSPEC), RT_OK); /* libc's own notation, by libc */
    drive_until(&p.calls, 7);
    CHECK_INT(p.rc, RT_OK);
    check_address(&p.req.at[0], "127.0.0.1:0");
    finish();
}

static void test_looked_up_now(void)
{
    rt_resolve r = {0};
    CHECK_INT(rt_resolve_now(&r, "both", AF_UNSPEC), RT_OK);
    check_both(&r);
    CHECK_INT(rt_resolve_now(&r, "none", AF_UNSPEC), RT_ENOENT);
    CHECK(r.error[0] != '\0');
}

static void test_hosts_refused(void)
{
    char host[RT_RESOLVE_HOST_BYTES_MAX + 2];
    probe p = PROBE;
    begin();
    memset(host, 'f', sizeof host);
    memcpy(host, "fast", 4);
    host[sizeof host - 1] = '\0';
    CHECK_INT(start(&p, host, AF_UNSPEC), RT_EINVAL);
    CHECK_INT(rt_resolve_now(&p.req, host, AF_UNSPEC), RT_EINVAL);
    CHECK_INT(start(&p, "", AF_UNSPEC), RT_EINVAL);
    CHECK_INT(start(&p, "fast", AF_UNIX), RT_EINVAL);
    CHECK(p.req.job == NULL);
    rt_resolve_cancel(resolver, &p.req); /* harmless */
    host[sizeof host - 2] = '\0';
    CHECK_INT(start(&p, host, AF_UNSPEC), RT_OK);
    memset(host, 0, sizeof host); /* it was copied */
    drive_until(&p.calls, 1);
    CHECK_INT(p.rc, RT_OK);
    finish();
}

/* ---- workers ---- */

static void test_workers_are_few_and_leave(void)
{
    enum { N = 10 };
    probe p[N];
    begin();
    int idle = threads_now();
    for (int i = 0; i < N; i++) {
        p[i] = (probe)PROBE;
        CHECK_INT(start(&p[i], "stuck", AF_UNSPEC), RT_OK);
    }
    wait_inside(RT_RESOLVE_THREADS_MAX);
    CHECK_INT(threads_now() <= idle + RT_RESOLVE_THREADS_MAX + SANITIZED, 1);
    CHECK_INT(fake_calls(), RT_RESOLVE_THREADS_MAX);
    CHECK_INT(rt_poller_wait(poller, 0, 10), 0);
    fake_release();
    for (int i = 0; i < N; i++) drive_until(&p[i].calls, 1);
    CHECK_INT(fake_calls(), N);
    CHECK_INT(fake.inside_most, RT_RESOLVE_THREADS_MAX);
    /* Nothing to do: no threads, though the resolver lives. */
    CHECK(EVENTUALLY(threads_now() <= idle + SANITIZED));
    probe late = PROBE;
    CHECK_INT(start(&late, "fast", AF_UNSPEC), RT_OK);
    drive_until(&late.calls, 1);
    finish();
}

static void test_signals_stay_away(void)
{
    sigset_t none, before, after;
    probe p = PROBE;
    begin();
    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, &before);
    CHECK_INT(start(&p, "fast", AF_UNSPEC), RT_OK);
    pthread_sigmask(SIG_SETMASK, &before, &after);
    drive_until(&p.calls, 1);
    const int blocked[] = {SIGINT, SIGTERM, SIGALRM, SIGCHLD, SIGUSR1, SIGPROF, SIGRTMIN};
    for (size_t i = 0; i < sizeof blocked / sizeof blocked[0]; i++) {
        CHECK_INT(sigismember(&fake.mask, blocked[i]), 1);
        CHECK_INT(sigismember(&after, blocked[i]), 0); /* ours is as it was */
    }
    CHECK_INT(sigismember(&fake.mask, SIGSEGV), 0);
    finish();
}

static void test_a_stuck_worker_does_not_hold_up_the_end(void)
{
    enum { N = 6 };
    probe p[N];
    begin();
    for (int i = 0; i < N; i++) {
        p[i] = (probe)PROBE;
        CHECK_INT(start(&p[i], "stuck", AF_UNSPEC), RT_OK);
    }
    wait_inside(RT_RESOLVE_THREADS_MAX);
    rt_resolver_free(resolver); /* comes back although nobody released them */
    rt_poller_free(poller);
    poller = NULL;
    resolver = NULL;
    CHECK_INT(open_fds(), fds_before);
    for (int i = 0; i < N; i++) CHECK(p[i].req.job == NULL);
    memset(p, 0x5a, sizeof p); /* the requests may go too */
    int used = fake_calls();
    finish();
    CHECK_INT(fake_calls(), used); /* those in line were not looked up any more */
}

/* ---- cancelling ---- */

static void test_cancelled(void)
{
    enum { N = RT_RESOLVE_THREADS_MAX + 2 };
    probe p[N], fast = PROBE;
    begin();
    for (int i = 0; i < N; i++) {
        p[i] = (probe)PROBE;
        CHECK_INT(start(&p[i], "stuck", AF_UNSPEC), RT_OK);
    }
    wait_inside(RT_RESOLVE_THREADS_MAX);
    CHECK_INT(start(&fast, "127.0.0.1", AF_UNSPEC), RT_OK);
    /* One that runs, one that waits in line, one that is done. */
    rt_resolve_cancel(resolver, &p[0].req);
    rt_resolve_cancel(resolver, &p[N - 2].req);
    rt_resolve_cancel(resolver, &fast.req);
    CHECK(p[0].req.job == NULL && p[N - 2].req.job == NULL && fast.req.job == NULL);
    fake_release();
    for (int i = 1; i < N; i++)
        if (i != N - 2) drive_until(&p[i].calls, 1);
    CHECK_INT(fake_calls(), N - 1); /* the one in line was never looked up */
    rt_resolve_cancel(resolver, &p[1].req); /* harmless when over */
    finish();
    CHECK_INT(p[0].calls + p[N - 2].calls + fast.calls, 0);
}

static void test_a_request_is_used_again_after_cancel(void)
{
    probe p = PROBE;
    begin();
    CHECK_INT(start(&p, "stuck", AF_UNSPEC), RT_OK);
    wait_inside(1);
    rt_resolve_cancel(resolver, &p.req);
    CHECK_INT(start(&p, "none", AF_UNSPEC), RT_OK);
    drive_until(&p.calls, 1);
    CHECK_INT(p.rc, RT_ENOENT);
    finish();
    CHECK_INT(p.calls, 1); /* the stuck one's answer is nobody's */
}

static probe pair[2];

static void cancel_the_other(probe *p) { rt_resolve_cancel(resolver, &pair[p == pair].req); }
static void free_the_resolver(probe *p)
{
    (void)p;
    rt_resolver_free(resolver);
    resolver = NULL;
}
static void start_again(probe *p) { CHECK_INT(start(p, "127.0.0.1", AF_UNSPEC), RT_OK); }

static void start_pair(void (*then)(probe *))
{
    for (int i = 0; i < 2; i++) {
        pair[i] = (probe){.req.done = answered, .then = then};
        CHECK_INT(start(&pair[i], "127.0.0.1", AF_UNSPEC), RT_OK);
    }
}

static void test_inside_a_callback(void)
{
    begin();
    start_pair(cancel_the_other);
    CHECK_INT(rt_poller_wait(poller, 0, 10), 1);
    CHECK_INT(pair[0].calls + pair[1].calls, 1);
    CHECK_INT(rt_poller_wait(poller, 0, 10), 0);
    /* What is started inside waits for the next call, so a call ends. */
    start_pair(start_again);
    for (int i = 1; i < 5; i++) {
        CHECK_INT(rt_poller_wait(poller, 0, 10), 1);
        CHECK_INT(pair[0].calls, i);
        CHECK_INT(pair[1].calls, i);
    }
    for (int i = 0; i < 2; i++) rt_resolve_cancel(resolver, &pair[i].req);
    start_pair(free_the_resolver);
    CHECK_INT(rt_poller_wait(poller, 0, 10), 1);
    CHECK_INT(pair[0].calls + pair[1].calls, 1);
    CHECK(pair[0].req.job == NULL && pair[1].req.job == NULL);
    finish();
}

/* ---- what fails ---- */

static void test_allocations_fail(void)
{
    probe p = PROBE;
    rt_resolver *r = NULL;
    begin();
    int fds = open_fds();
    rt_alloc_fail_after(0);
    CHECK_INT(rt_resolver_new(&r, poller), RT_ENOMEM);
    const char *hosts[] = {"127.0.0.1", "fast"};
    for (int i = 0; i < 2; i++) {
        rt_alloc_fail_after(0);
        CHECK_INT(start(&p, hosts[i], AF_UNSPEC), RT_ENOMEM);
        rt_alloc_fail_after(-1);
        CHECK(p.req.job == NULL);
        CHECK_INT(start(&p, hosts[i], AF_UNSPEC), RT_OK);
        drive_until(&p.calls, i + 1);
    }
    rlim_t before = no_more_fds();
    int rc = rt_resolver_new(&r, poller), sys = errno;
    let_fds(before);
    CHECK_INT(rc, RT_ESYS);
    CHECK_INT(sys, EMFILE);
    CHECK(r == NULL);
    rt_resolver_free(NULL);
    CHECK_INT(open_fds(), fds);
    finish();
}

#if !SANITIZED
static void test_threads_fail(void)
{
    probe p = PROBE, q = PROBE;
    begin();
    fail_create = EAGAIN;
    CHECK_INT(start(&p, "fast", AF_UNSPEC), RT_ESYS); /* nobody could do it */
    CHECK_INT(errno, EAGAIN);
    CHECK(p.req.job == NULL);
    fail_create = 0;
    CHECK_INT(start(&p, "stuck", AF_UNSPEC), RT_OK);
    wait_inside(1);
    fail_create = EAGAIN;
    CHECK_INT(start(&q, "fast", AF_UNSPEC), RT_OK); /* the other one will */
    fail_create = 0;
    CHECK_INT(rt_poller_wait(poller, 0, 10), 0);
    fake_release();
    drive_until(&p.calls, 1);
    drive_until(&q.calls, 1);
    finish();
}
#define WITHOUT_SANITIZER test_threads_fail,
#else
#define WITHOUT_SANITIZER
#endif

static void in_the_child(void *arg)
{
    probe *p = arg, q = PROBE;
    rt_resolver_after_fork(resolver);
    rt_poller_after_fork(poller);
    CHECK_INT(start(&q, "127.0.0.1", AF_UNSPEC), RT_EFORK);
    rt_resolve_cancel(resolver, &p->req);
    CHECK(p->req.job == NULL);
    rt_resolver_free(resolver);
    rt_poller_free(poller);
}

static void test_fork(void)
{
    probe p = PROBE, q = PROBE;
    begin();
    CHECK_INT(start(&p, "stuck", AF_UNSPEC), RT_OK);
    wait_inside(1);
    CHECK_INT(start(&q, "127.0.0.1", AF_UNSPEC), RT_OK);
    CHECK(holds_in_child(in_the_child, &p));
    CHECK_INT(rt_poller_wait(poller, PATIENCE, 10), 1); /* the child took nothing away */
    CHECK_INT(q.calls, 1);
    fake_release();
    drive_until(&p.calls, 1);
    finish();
}

/* ---- much at once ---- */

static void test_nothing_is_lost_or_doubled(void)
{
    enum { N = 500, ROUNDS = 8 };
    static probe p[N];
    uint64_t random = 3;
    begin();
    for (int round = 0; round < ROUNDS; round++) {
        int wanted[N], cancelled = 0;
        for (int i = 0; i < N; i++) {
            static const char *const hosts[] = {"fast", "none", "::1", "both"};
            uint64_t r = next_random(&random);
            p[i] = (probe)PROBE;
            wanted[i] = 1;
            CHECK_INT(start(&p[i], hosts[r % 4], AF_UNSPEC), RT_OK);
            if (r >> 8 & 1) CHECK(rt_poller_wait(poller, 0, 10) >= 0);
            int k = i - (int)((r >> 16) % 4); /* a late one: few of the others still run */
            if (k < 0) continue;
            if ((r >> 32) % 4 || p[k].calls || !wanted[k]) continue;
            rt_resolve_cancel(resolver, &p[k].req);
            wanted[k] = 0;
            cancelled++;
        }
        CHECK(cancelled > 0);
        for (int i = 0; i < N; i++)
            if (wanted[i]) drive_until(&p[i].calls, 1);
        for (int i = 0; i < N; i++) CHECK_INT(p[i].calls, wanted[i]);
    }
    finish();
}

TESTS(test_local_hosts, test_looked_up, test_looked_up_now, test_hosts_refused,
      test_workers_are_few_and_leave, test_signals_stay_away,
      test_a_stuck_worker_does_not_hold_up_the_end, test_cancelled,
      test_a_request_is_used_again_after_cancel, test_inside_a_callback, test_allocations_fail,
      WITHOUT_SANITIZER test_fork, test_nothing_is_lost_or_doubled)
