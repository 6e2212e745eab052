/* needs: net, and liburing where it is */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>

#include "base/clock.h"
#include "net/poller.h"
#include "sockets.h"

static int control_calls;
static enum rt_poller_kind kind;

/* Stands in front of libc's, to count. */
int epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
    control_calls++;
    return (int)syscall(SYS_epoll_ctl, epfd, op, fd, event);
}

typedef struct probe {
    rt_source source;
    rt_poller *poller;
    int fd[2];              /* [0] is watched */
    int calls;
    uint32_t events;
    void (*then)(struct probe *p);
} probe;

static void seen(rt_source *s, uint32_t events)
{
    probe *p = RT_CONTAINER_OF(s, probe, source);
    p->calls++;
    p->events = events;
    if (p->then) p->then(p);
}

static void open_probe(probe *p, rt_poller *poller, uint32_t interest)
{
    memset(p, 0, sizeof *p);
    p->poller = poller;
    p->source.fd = -1;
    p->source.ready = seen;
    make_pair(p->fd);
    CHECK_INT(rt_poller_add(poller, &p->source, p->fd[0], interest), RT_OK);
    CHECK_INT(p->source.fd, p->fd[0]);
}

static void close_probe(probe *p)
{
    rt_poller_remove(p->poller, &p->source);
    CHECK_INT(p->source.fd, -1);
    CHECK_INT(p->source.interest, 0);
    close(p->fd[0]);
    if (p->fd[1] >= 0) close(p->fd[1]);
}

static rt_poller *new_poller(void)
{
    rt_poller *p = NULL;
    if (!CHECK(rt_poller_new(&p, kind) == RT_OK)) abort();
    return p;
}

static void test_events(void)
{
    int fds = open_fds();
    rt_poller *p = new_poller();
    probe a;
    open_probe(&a, p, RT_READABLE);
    CHECK_INT(rt_poller_wait(p, 0, 10), 0);
    put_byte(a.fd[1]);
    CHECK_INT(rt_poller_wait(p, UINT64_MAX, 10), 1);
    CHECK_INT(a.events, RT_READABLE);
    CHECK_INT(rt_poller_wait(p, 0, 10), 1); /* level-triggered */
    CHECK_INT(rt_poller_modify(p, &a.source, RT_READABLE | RT_WRITABLE), RT_OK);
    CHECK_INT(rt_poller_wait(p, 0, 10), 1);
    CHECK_INT(a.events, RT_READABLE | RT_WRITABLE);
    CHECK_INT(rt_poller_modify(p, &a.source, RT_WRITABLE), RT_OK);
    CHECK_INT(rt_poller_wait(p, 0, 10), 1);
    CHECK_INT(a.events, RT_WRITABLE);
    CHECK_INT(rt_poller_modify(p, &a.source, 0), RT_OK);
    CHECK_INT(rt_poller_wait(p, 0, 10), 0);
    close(a.fd[1]);
    a.fd[1] = -1;
    CHECK_INT(rt_poller_wait(p, 0, 10), 1); /* a hang-up needs no interest */
    CHECK_INT(a.events, RT_HANGUP);
    CHECK_INT(a.calls, 5);
    rt_poller_remove(p, &a.source);
    CHECK_INT(rt_poller_wait(p, 0, 10), 0);
    rt_poller_remove(p, &a.source); /* harmless */
    close_probe(&a);
    rt_poller_free(p);
    rt_poller_free(NULL);
    CHECK_INT(open_fds(), fds);
}

static void test_unchanged_interest_costs_no_call(void)
{
    rt_poller *p = new_poller();
    probe a;
    control_calls = 0;
    int each = kind == RT_POLLER_EPOLL; /* io_uring needs none at all */
    open_probe(&a, p, RT_READABLE);
    CHECK_INT(control_calls, each);
    CHECK_INT(rt_poller_modify(p, &a.source, RT_READABLE), RT_OK);
    CHECK_INT(control_calls, each);
    CHECK_INT(rt_poller_modify(p, &a.source, 0), RT_OK);
    CHECK_INT(rt_poller_modify(p, &a.source, 0), RT_OK);
    CHECK_INT(control_calls, 2 * each);
    close_probe(&a);
    rt_poller_free(p);
}

#define MANY 20
static probe many[MANY];

static int calls_of_many(void)
{
    int n = 0;
    for (int i = 0; i < MANY; i++) n += many[i].calls;
    return n;
}

static void open_many(rt_poller *p, void (*then)(probe *))
{
    for (int i = 0; i < MANY; i++) {
        open_probe(&many[i], p, RT_READABLE);
        many[i].then = then;
        put_byte(many[i].fd[1]);
    }
}

static void close_many(void)
{
    for (int i = 0; i < MANY; i++) close_probe(&many[i]);
}

static void remove_all(probe *p)
{
    for (int i = 0; i < MANY; i++) rt_poller_remove(p->poller, &many[i].source);
}

static void test_removed_in_a_batch(void)
{
    rt_poller *p = new_poller();
    open_many(p, remove_all);
    CHECK_INT(rt_poller_wait(p, UINT64_MAX, 100), 1);
    CHECK_INT(calls_of_many(), 1);
    CHECK_INT(rt_poller_wait(p, 0, 100), 0);
    close_many();
    rt_poller_free(p);
}

static void remove_others_half(probe *p)
{
    for (int i = 0; i < MANY; i++)
        if (&many[i] != p && i % 2) rt_poller_remove(p->poller, &many[i].source);
}

static void test_the_rest_of_a_batch_is_called(void)
{
    rt_poller *p = new_poller();
    open_many(p, remove_others_half);
    int n = rt_poller_wait(p, UINT64_MAX, 100);
    CHECK_INT(n, calls_of_many());
    for (int i = 0; i < MANY; i += 2) CHECK_INT(many[i].calls, 1);
    CHECK(n == MANY / 2 || n == MANY / 2 + 1); /* the first one called may be odd */
    close_many();
    rt_poller_free(p);
}

static int quiet[2];

/* Each other source gives its place in the poller to a descriptor that is not
 * readable: what the batch knows of the old one must not reach the new one. */
static void replace_others(probe *p)
{
    for (int i = 0; i < MANY; i++) {
        if (&many[i] == p) continue;
        rt_poller_remove(p->poller, &many[i].source);
        int fd = dup(quiet[0]);
        dup2(fd, many[i].fd[0]);
        close(fd);
        CHECK_INT(rt_poller_add(p->poller, &many[i].source, many[i].fd[0], RT_READABLE), RT_OK);
    }
}

static void test_a_source_used_again_in_a_batch(void)
{
    rt_poller *p = new_poller();
    make_pair(quiet);
    open_many(p, replace_others);
    CHECK_INT(rt_poller_wait(p, UINT64_MAX, 100), 1);
    CHECK_INT(calls_of_many(), 1);
    CHECK_INT(rt_poller_wait(p, 0, 100), 1); /* the one that was not replaced */
    CHECK_INT(calls_of_many(), 2);
    put_byte(quiet[1]);
    CHECK_INT(rt_poller_wait(p, UINT64_MAX, 100), 1);
    close_many();
    close(quiet[0]);
    close(quiet[1]);
    rt_poller_free(p);
}

/* A source in memory of its own, freed by a neighbour in the same batch: the
 * address sanitizer would see a touch. */
static probe *mortal[2];

static void free_other(probe *p)
{
    int other = p == mortal[0];
    if (!mortal[other]) return;
    close_probe(mortal[other]);
    free(mortal[other]);
    mortal[other] = NULL;
}

static void test_a_source_freed_in_a_batch(void)
{
    rt_poller *p = new_poller();
    for (int i = 0; i < 2; i++) {
        mortal[i] = malloc(sizeof *mortal[i]);
        open_probe(mortal[i], p, RT_READABLE);
        mortal[i]->then = free_other;
        put_byte(mortal[i]->fd[1]);
    }
    CHECK_INT(rt_poller_wait(p, UINT64_MAX, 10), 1);
    CHECK(!mortal[0] != !mortal[1]);
    for (int i = 0; i < 2; i++) {
        if (mortal[i]) close_probe(mortal[i]);
        free(mortal[i]);
    }
    rt_poller_free(p);
}

static void lose_interest(probe *p)
{
    for (int i = 0; i < MANY; i++)
        if (&many[i] != p) CHECK_INT(rt_poller_modify(p->poller, &many[i].source, 0), RT_OK);
}

static void test_interest_lost_in_a_batch(void)
{
    rt_poller *p = new_poller();
    open_many(p, lose_interest);
    CHECK_INT(rt_poller_wait(p, UINT64_MAX, 100), 1);
    CHECK_INT(calls_of_many(), 1);
    close_many();
    rt_poller_free(p);
}

static void take(probe *p) { take_byte(p->fd[0]); }

static void test_at_most_max(void)
{
    rt_poller *p = new_poller();
    open_many(p, take);
    for (int left = MANY; left > 0; left -= 7)
        CHECK_INT(rt_poller_wait(p, 0, 7), left < 7 ? left : 7);
    for (int i = 0; i < MANY; i++) CHECK_INT(many[i].calls, 1);
    CHECK_INT(rt_poller_wait(p, 0, 7), 0);
    close_many();
    /* Also where all stay ready, everybody has a turn. */
    open_many(p, NULL);
    for (int i = 0; i < MANY; i++) CHECK_INT(rt_poller_wait(p, 0, 1), 1);
    for (int i = 0; i < MANY; i++) CHECK_INT(many[i].calls, 1);
    close_many();
    rt_poller_free(p);
}

static void bring(probe *p) { (void)rt_poller_spend(p->poller, 60); }

/* Who has brought enough ends a wait; the others come first in the next, and each in its turn. */
static void test_a_limit(void)
{
    if (kind != RT_POLLER_EPOLL) return;
    rt_poller *p = new_poller();
    probe probes[5];
    CHECK(rt_poller_spend(p, SIZE_MAX)); /* there is none yet */
    rt_poller_limit(p, 100);
    for (int i = 0; i < 5; i++) {
        open_probe(&probes[i], p, RT_READABLE);
        probes[i].then = bring;
        CHECK_INT(write(probes[i].fd[1], "x", 1), 1);
    }
    for (int round = 1; round <= 10; round++) {
        int called = rt_poller_wait(p, 0, 64);
        CHECK(called >= 1 && called <= 2);
        CHECK(rt_poller_spend(p, 0) == (called == 1));
        CHECK_INT(rt_poller_spent(p), 60 * called);
        for (int i = 0; i < 5; i++) CHECK(abs(probes[i].calls - probes[0].calls) <= 1);
    }
    for (int i = 0; i < 5; i++) CHECK(probes[i].calls >= 3);
    rt_poller_limit(p, 0);
    rt_poller_wait(p, 0, 64); /* what was left */
    CHECK_INT(rt_poller_wait(p, UINT64_MAX, 64), 5);
    for (int i = 0; i < 5; i++) close_probe(&probes[i]);
    rt_poller_free(p);
}

/* Those that wait for the next turn may be removed, lose interest, or be over by then. */
static void test_what_a_limit_has_left(void)
{
    if (kind != RT_POLLER_EPOLL) return;
    rt_poller *p = new_poller();
    probe probes[4];
    char x;
    rt_poller_limit(p, 1);
    for (int i = 0; i < 4; i++) {
        open_probe(&probes[i], p, RT_READABLE);
        probes[i].then = bring;
        CHECK_INT(write(probes[i].fd[1], "x", 1), 1);
    }
    CHECK_INT(rt_poller_wait(p, UINT64_MAX, 64), 1);
    for (int i = 1; i < 4; i++) CHECK_INT(probes[i].calls, 0);
    rt_poller_remove(p, &probes[1].source);
    CHECK_INT(rt_poller_modify(p, &probes[2].source, 0), RT_OK);
    CHECK_INT(read(probes[0].fd[0], &x, 1), 1);
    CHECK_INT(rt_poller_wait(p, UINT64_MAX, 64), 1); /* the last is left, and it does not wait */
    CHECK_INT(probes[1].calls + probes[2].calls, 0);
    CHECK_INT(probes[3].calls, 1);
    CHECK_INT(read(probes[3].fd[0], &x, 1), 1);
    CHECK_INT(rt_poller_wait(p, 0, 64), 0);
    CHECK_INT(rt_poller_modify(p, &probes[2].source, RT_READABLE), RT_OK);
    CHECK_INT(rt_poller_wait(p, 0, 64), 1);
    CHECK_INT(probes[2].calls, 1);
    for (int i = 0; i < 4; i++) close_probe(&probes[i]);
    rt_poller_free(p);
}

static void test_nested(void)
{
    if (kind != RT_POLLER_EPOLL) return; /* only epoll's descriptor is watched by anybody */
    rt_poller *p = new_poller();
    probe a;
    struct epoll_event e = {.events = EPOLLIN}, got;
    int outer = epoll_create1(EPOLL_CLOEXEC);
    open_probe(&a, p, RT_READABLE);
    a.then = take;
    CHECK_INT(epoll_ctl(outer, EPOLL_CTL_ADD, rt_poller_fd(p), &e), 0);
    for (int i = 0; i < 3; i++) {
        CHECK_INT(epoll_wait(outer, &got, 1, 0), 0);
        put_byte(a.fd[1]);
        CHECK_INT(epoll_wait(outer, &got, 1, -1), 1);
        CHECK_INT(epoll_wait(outer, &got, 1, 0), 1);
        CHECK_INT(rt_poller_wait(p, 0, 10), 1);
    }
    CHECK_INT(epoll_wait(outer, &got, 1, 0), 0);
    put_byte(a.fd[1]);
    rt_poller_remove(p, &a.source);
    CHECK_INT(epoll_wait(outer, &got, 1, 0), 0);
    close_probe(&a);
    close(outer);
    rt_poller_free(p);
}

static void test_timeout(void)
{
    rt_poller *p = new_poller();
    probe a;
    struct itimerspec in = {.it_value = {.tv_nsec = 20 * (long)RT_MS}};
    uint64_t begin = rt_now();
    CHECK_INT(rt_poller_wait(p, 300000, 10), 0); /* below a millisecond: exact */
    CHECK(rt_now() - begin >= 300000);
    begin = rt_now();
    CHECK_INT(rt_poller_wait(p, 5 * RT_MS, 10), 0);
    CHECK(rt_now() - begin >= 4 * RT_MS); /* the kernel's milliseconds */
    open_probe(&a, p, RT_READABLE);
    rt_poller_remove(p, &a.source);
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    CHECK_INT(rt_poller_add(p, &a.source, fd, RT_READABLE), RT_OK);
    for (uint64_t k = 0; k < 2; k++) {
        begin = rt_now();
        CHECK_INT(timerfd_settime(fd, 0, &in, NULL), 0);
        /* For ever, and for more milliseconds than an int holds. */
        CHECK_INT(rt_poller_wait(p, UINT64_MAX - k, 10), 1);
        CHECK(rt_now() - begin >= 20 * RT_MS);
        CHECK_INT(rt_poller_wait(p, 300000, 10), 1); /* ready: no waiting */
    }
    close_probe(&a);
    close(fd);
    rt_poller_free(p);
}

static void on_alarm(int sig) { (void)sig; }

static void test_a_signal_counts_as_none(void)
{
    rt_poller *p = new_poller();
    struct sigaction act = {.sa_handler = on_alarm}, old;
    struct itimerval tick = {{0, 5000}, {0, 5000}}, off = {{0, 0}, {0, 0}};
    sigaction(SIGALRM, &act, &old);
    setitimer(ITIMER_REAL, &tick, NULL); /* repeats: none can fall before the wait for good */
    CHECK_INT(rt_poller_wait(p, UINT64_MAX, 10), 0);
    CHECK_INT(rt_poller_wait(p, 3600 * RT_SEC, 10), 0);
    for (int i = 0; i < 50; i++) CHECK_INT(rt_poller_wait(p, 900000, 10), 0);
    setitimer(ITIMER_REAL, &off, NULL);
    sigaction(SIGALRM, &old, NULL);
    rt_poller_free(p);
}

static void test_errors(void)
{
    int fds = open_fds();
    rt_poller *p = NULL;
    rt_alloc_fail_after(0);
    CHECK_INT(rt_poller_new(&p, kind), RT_ENOMEM);
    rlim_t before = no_more_fds();
    int rc = rt_poller_new(&p, kind), sys = errno;
    let_fds(before);
    CHECK_INT(rc, RT_ESYS);
    CHECK_INT(sys, EMFILE);
    CHECK(p == NULL);
    CHECK_INT(open_fds(), fds);
}

static void test_errors_of_epoll(void)
{
    if (kind != RT_POLLER_EPOLL) return;
    int fds = open_fds();
    rt_poller *q = new_poller();
    rt_source s = {.fd = -1, .ready = seen};
    probe a;
    CHECK_INT(rt_poller_add(q, &s, 1000000, RT_READABLE), RT_ESYS);
    CHECK_INT(errno, EBADF);
    CHECK_INT(s.fd, -1);
    open_probe(&a, q, RT_READABLE);
    CHECK_INT(rt_poller_add(q, &s, a.fd[0], RT_READABLE), RT_ESYS);
    CHECK_INT(errno, EEXIST);
    CHECK_INT(s.fd, -1);
    close(a.fd[0]); /* against the rules: the set has lost the descriptor */
    CHECK_INT(rt_poller_modify(q, &a.source, RT_WRITABLE), RT_ESYS);
    CHECK_INT(a.source.interest, RT_READABLE);
    a.fd[0] = dup(a.fd[1]);
    close_probe(&a);
    rt_poller_free(q);
    CHECK_INT(open_fds(), fds);
}

static void test_errors_of_io_uring(void)
{
    if (kind != RT_POLLER_URING) return;
    rt_poller *p = new_poller();
    probe a = {.source = {.fd = -1, .ready = seen}};
    CHECK_INT(rt_poller_add(p, &a.source, 1000000, RT_READABLE), RT_OK);
    CHECK_INT(rt_poller_wait(p, UINT64_MAX, 10), 1);
    CHECK_INT(a.events, RT_HANGUP);
    rt_poller_remove(p, &a.source);
    /* Each of the three arrays that grow. */
    for (int k = 0; k < 3; k++) {
        rt_poller *q = new_poller();
        rt_alloc_fail_after(k);
        CHECK_INT(rt_poller_add(q, &a.source, 0, RT_READABLE), RT_ENOMEM);
        rt_alloc_fail_after(-1);
        CHECK_INT(a.source.fd, -1);
        rt_poller_free(q);
    }
    rt_poller_free(p);
}

static bool at_end(int fd)
{
    struct pollfd f = {.fd = fd, .events = POLLIN};
    return poll(&f, 1, 0) == 1 && f.revents & POLLHUP;
}

static void test_what_was_removed_is_let_go_of(void)
{
    rt_poller *p = new_poller();
    probe a;
    for (int ready = 0; ready < 2; ready++) {
        open_probe(&a, p, RT_READABLE);
        if (ready) put_byte(a.fd[1]);
        CHECK_INT(rt_poller_wait(p, 0, 10), ready);
        CHECK_INT(rt_poller_wait(p, 0, 10), ready);
        rt_poller_remove(p, &a.source);
        close(a.fd[0]);
        CHECK_INT(rt_poller_wait(p, 0, 10), 0);
        CHECK(at_end(a.fd[1]));
        close(a.fd[1]);
    }
    rt_poller_free(p);
}

static void *wait_and_leave(void *arg)
{
    CHECK_INT(rt_poller_wait(arg, PATIENCE, 100), 1);
    rt_poller_leave(arg);
    return NULL;
}

static void test_after_the_thread_has_left(void)
{
    rt_poller *p = new_poller();
    pthread_t thread;
    probe a, b;
    open_probe(&a, p, RT_READABLE); /* before there is a thread, as an engine does */
    open_probe(&b, p, RT_READABLE);
    put_byte(b.fd[1]);
    if (pthread_create(&thread, NULL, wait_and_leave, p) != 0) abort();
    pthread_join(thread, NULL);
    CHECK_INT(a.calls, 0);
    CHECK_INT(b.calls, 1);
    CHECK_INT(rt_poller_modify(p, &b.source, RT_WRITABLE), RT_OK);
    rt_poller_remove(p, &a.source);
    close(a.fd[0]);
    CHECK(at_end(a.fd[1]));
    close(a.fd[1]);
    close_probe(&b);
    rt_poller_free(p);
}

static uint64_t cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * RT_SEC + (uint64_t)t.tv_nsec;
}

/* That the peer has sent its last is no event for who does not read, nor one to be
 * told of again and again. */
static void test_half_closed(void)
{
    rt_poller *p = new_poller();
    probe a;
    open_probe(&a, p, 0);
    shutdown(a.fd[1], SHUT_WR);
    uint64_t before = cpu_ns();
    CHECK_INT(rt_poller_wait(p, 100 * RT_MS, 10), 0);
    CHECK(cpu_ns() - before < 50 * RT_MS);
    CHECK_INT(rt_poller_modify(p, &a.source, RT_WRITABLE), RT_OK);
    for (int i = 0; i < 3; i++) {
        a.events = 0;
        CHECK_INT(rt_poller_wait(p, UINT64_MAX, 10), 1);
        CHECK_INT(a.events, RT_WRITABLE);
    }
    CHECK_INT(rt_poller_modify(p, &a.source, RT_READABLE), RT_OK);
    for (int i = 0; i < 3; i++) {
        CHECK_INT(rt_poller_wait(p, UINT64_MAX, 10), 1);
        CHECK_INT(a.events, RT_READABLE);
    }
    CHECK_INT(rt_poller_modify(p, &a.source, 0), RT_OK);
    CHECK_INT(rt_poller_wait(p, 0, 10), 0);
    CHECK_INT(rt_poller_wait(p, 0, 10), 0);
    close(a.fd[1]);
    a.fd[1] = -1;
    CHECK_INT(rt_poller_wait(p, UINT64_MAX, 10), 1);
    CHECK_INT(a.events, RT_HANGUP);
    close_probe(&a);
    rt_poller_free(p);
}

/* More than io_uring's queues hold. */
#define CROWD 3000
static probe crowd[CROWD];

static void empty(probe *p)
{
    uint64_t n;
    if (read(p->fd[0], &n, sizeof n) != sizeof n) abort();
}

static void test_a_crowd(void)
{
    struct rlimit before, room;
    if (getrlimit(RLIMIT_NOFILE, &before) < 0) abort();
    room = (struct rlimit){before.rlim_max, before.rlim_max};
    if (!CHECK(room.rlim_max > CROWD + 100) || setrlimit(RLIMIT_NOFILE, &room) < 0) return;
    rt_poller *p = new_poller();
    for (int i = 0; i < CROWD; i++) {
        int fd = eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC);
        crowd[i] = (probe){.source = {.fd = -1, .ready = seen}, .fd = {fd, -1}, .then = empty};
        crowd[i].poller = p;
        CHECK_INT(rt_poller_add(p, &crowd[i].source, fd, RT_READABLE), RT_OK);
    }
    for (int round = 1; round <= 3; round++) {
        int called = 0, n;
        while (called < CROWD && (n = rt_poller_wait(p, PATIENCE, 256)) > 0) called += n;
        CHECK_INT(called, CROWD);
        CHECK_INT(rt_poller_wait(p, 0, 256), 0);
        for (int i = 0; i < CROWD; i++) {
            uint64_t one = 1;
            CHECK_INT(crowd[i].calls, round);
            if (write(crowd[i].fd[0], &one, sizeof one) != sizeof one) abort();
        }
    }
    for (int i = 0; i < CROWD; i++) close_probe(&crowd[i]);
    CHECK_INT(rt_poller_wait(p, 0, 256), 0);
    rt_poller_free(p);
    setrlimit(RLIMIT_NOFILE, &before);
}

static uint32_t truth(const probe *p)
{
    struct pollfd f = {.fd = p->fd[0]};
    if (p->source.interest & RT_READABLE) f.events |= POLLIN;
    if (p->source.interest & RT_WRITABLE) f.events |= POLLOUT;
    if (poll(&f, 1, 0) < 0) abort();
    return (f.revents & POLLIN ? RT_READABLE : 0) | (f.revents & POLLOUT ? RT_WRITABLE : 0) |
           (f.revents & (POLLHUP | POLLERR) ? RT_HANGUP : 0);
}

static void at_random(rt_poller *p, probe *a, uint64_t r)
{
    char c;
    switch (r >> 8 & 7) {
    case 0:
        close_probe(a);
        open_probe(a, p, r >> 16 & 3);
        break;
    case 1:
        (void)!write(a->fd[r >> 16 & 1], "x", 1);
        break;
    case 2: (void)!read(a->fd[r >> 16 & 1], &c, 1); break;
    case 3: shutdown(a->fd[1], r >> 16 & 1 ? SHUT_WR : SHUT_RDWR); break;
    default: CHECK_INT(rt_poller_modify(p, &a->source, r >> 16 & 3), RT_OK);
    }
}

/* Whatever happened since: what is ready is called, with what it is ready for. io_uring may
 * also tell what was so and was taken back before anybody waited. */
static void test_at_random(void)
{
    rt_poller *p = new_poller();
    uint64_t state = 1;
    signal(SIGPIPE, SIG_IGN);
    for (int i = 0; i < MANY; i++) open_probe(&many[i], p, RT_READABLE);
    for (int round = 0; round < 3000; round++) {
        for (uint64_t r = next_random(&state), k = r >> 60; k > 0; k--) {
            r = next_random(&state);
            at_random(p, &many[r % MANY], r);
        }
        uint32_t want[MANY];
        for (int i = 0; i < MANY; i++) {
            want[i] = truth(&many[i]);
            many[i].events = 0;
        }
        CHECK(rt_poller_wait(p, 0, 1000) >= 0);
        for (int i = 0; i < MANY; i++) {
            uint32_t over = kind == RT_POLLER_URING ? many[i].source.interest | RT_HANGUP : 0;
            CHECK_INT(many[i].events & ~(over & ~want[i]), want[i]);
        }
    }
    close_many();
    rt_poller_free(p);
}

static void in_the_child(void *arg)
{
    probe *a = arg;
    rt_source s = {.fd = -1, .ready = seen};
    int fd = rt_poller_fd(a->poller);
    rt_poller_after_fork(a->poller);
    CHECK_INT(fcntl(fd, F_GETFD), -1);
    CHECK_INT(rt_poller_add(a->poller, &s, a->fd[1], RT_READABLE), RT_EFORK);
    CHECK_INT(rt_poller_modify(a->poller, &a->source, 0), RT_EFORK);
    CHECK_INT(rt_poller_wait(a->poller, UINT64_MAX, 10), RT_EFORK);
    close_probe(a);
    rt_poller_free(a->poller);
}

static void test_fork(void)
{
    rt_poller *p = new_poller();
    probe a;
    open_probe(&a, p, RT_READABLE);
    CHECK(holds_in_child(in_the_child, &a));
    put_byte(a.fd[1]); /* the parent's set is as it was */
    CHECK_INT(rt_poller_wait(p, PATIENCE, 10), 1);
    close_probe(&a);
    rt_poller_free(p);
}

static void with_epoll(void)
{
    kind = RT_POLLER_EPOLL;
    CHECK_INT(rt_poller_usable(kind), RT_OK);
}

static void with_io_uring(void)
{
    int rc = rt_poller_usable(RT_POLLER_URING);
#ifdef RT_HAVE_LIBURING
    CHECK(rc == RT_OK || rc == RT_ESYS);
#else
    CHECK_INT(rc, RT_EINVAL);
#endif
    if (rc == RT_OK) kind = RT_POLLER_URING;
    else printf("io_uring is not here (%s): epoll once more\n", rt_err_text(rc));
}

#define ALL                                                                                     \
    test_events, test_unchanged_interest_costs_no_call, test_removed_in_a_batch,                \
        test_the_rest_of_a_batch_is_called, test_a_source_used_again_in_a_batch,                \
        test_a_source_freed_in_a_batch, test_interest_lost_in_a_batch, test_at_most_max,        \
        test_a_limit, test_what_a_limit_has_left, test_nested, test_timeout,                    \
        test_a_signal_counts_as_none, test_errors,                                              \
        test_errors_of_epoll, test_errors_of_io_uring, test_what_was_removed_is_let_go_of,      \
        test_after_the_thread_has_left, test_half_closed, test_a_crowd, test_at_random, test_fork

TESTS(with_epoll, ALL, with_io_uring, ALL)
