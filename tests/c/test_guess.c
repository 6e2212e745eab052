/* needs: net */
#define _GNU_SOURCE
#include <sys/epoll.h>
#include <sys/syscall.h>

#include "base/clock.h"
#include "net/poller.h"
#include "sockets.h"

/* An epoll set that asks who was alone the last time before it asks the kernel. */

static int waits;

/* Stands in front of libc's, to count. */
int epoll_wait(int epfd, struct epoll_event *events, int max, int timeout)
{
    waits++;
    return (int)syscall(SYS_epoll_pwait, epfd, events, max, timeout, NULL, 8);
}

typedef struct probe {
    rt_source source;
    rt_poller *poller;
    int fd[2];              /* [0] is watched */
    int calls, bytes;
    size_t brings;          /* so many bytes, as it says, with each */
} probe;

static rt_poller *p;
static probe a, b;

static void seen(rt_source *s, uint32_t events)
{
    probe *of = RT_CONTAINER_OF(s, probe, source);
    (void)events;
    of->calls++;
    if (!took_byte(s->fd)) return;
    of->bytes++;
    (void)rt_poller_spend(of->poller, of->brings);
}

static void open_probe(probe *of)
{
    memset(of, 0, sizeof *of);
    of->poller = p;
    of->brings = 1;
    of->source.fd = -1;
    of->source.ready = seen;
    make_pair(of->fd);
    CHECK_INT(rt_poller_add(p, &of->source, of->fd[0], RT_READABLE), RT_OK);
}

static void close_probe(probe *of)
{
    rt_poller_remove(p, &of->source);
    close(of->fd[0]);
    close(of->fd[1]);
}

static void begin(void)
{
    if (!CHECK(rt_poller_new(&p, RT_POLLER_EPOLL) == RT_OK)) abort();
    open_probe(&a);
    open_probe(&b);
    waits = 0;
}

static void end(void)
{
    close_probe(&a);
    close_probe(&b);
    rt_poller_free(p);
}

/* By somebody who saw that the set's descriptor is readable. */
static int told(void)
{
    rt_poller_told(p);
    return rt_poller_wait(p, 0, 8);
}

/* One byte comes for a, and it is the only one: the next is a guess. */
static void a_was_alone(void)
{
    put_byte(a.fd[1]);
    CHECK_INT(told(), 1);
    CHECK_INT(a.bytes, 1);
    CHECK_INT(waits, 1);
}

static void test_who_was_alone_is_asked_first(void)
{
    begin();
    a_was_alone();
    put_byte(a.fd[1]);
    CHECK_INT(told(), 1);
    CHECK_INT(a.bytes, 2);
    CHECK_INT(waits, 1);
    for (int i = 0; i < 88; i++) {
        put_byte(a.fd[1]);
        CHECK_INT(told(), 1);
    }
    CHECK_INT(a.bytes, 90);
    CHECK_INT(waits, 10);
    end();
}

/* Who is never without something keeps others waiting for a few rounds at most. */
static void test_others_have_their_turn(void)
{
    begin();
    for (int i = 0; i < 100; i++) put_byte(a.fd[1]);
    CHECK_INT(told(), 1);
    put_byte(b.fd[1]);
    int rounds = 0;
    for (; b.bytes == 0 && rounds < 100; rounds++) told();
    CHECK(rounds > 1 && rounds <= 9);
    CHECK_INT(waits, 2);
    /* Two that are busy are both asked each time. */
    for (int i = 0; i < 20; i++) put_byte(b.fd[1]);
    int before = a.bytes;
    for (int i = 0; i < 20; i++) CHECK_INT(told(), 2);
    CHECK_INT(b.bytes, 21);
    CHECK_INT(a.bytes - before, 20);
    end();
}

static void test_a_wrong_guess_ends_in_the_same_wait(void)
{
    begin();
    a_was_alone();
    put_byte(b.fd[1]);
    CHECK_INT(told(), 1);
    CHECK_INT(b.bytes, 1);
    CHECK_INT(a.calls, 2);
    CHECK_INT(waits, 2);
    /* and now b is the one */
    put_byte(b.fd[1]);
    CHECK_INT(told(), 1);
    CHECK_INT(b.bytes, 2);
    CHECK_INT(waits, 2);
    end();
}

/* Nobody to guess: who has gone, who is not to be read alone, who brings nothing that counts, or
 * so much that others would wait. */
static void test_nobody_is_guessed(void)
{
    begin();
    a_was_alone();
    rt_poller_remove(p, &a.source);
    put_byte(a.fd[1]);
    CHECK_INT(told(), 0);
    CHECK_INT(waits, 2);
    CHECK_INT(a.calls, 1);
    end();
    begin();
    a_was_alone();
    CHECK_INT(rt_poller_modify(p, &a.source, 0), RT_OK);
    put_byte(a.fd[1]);
    CHECK_INT(told(), 0);
    CHECK_INT(a.calls, 1);
    end();
    begin();
    a_was_alone(); /* and would also write: which it may be able to, only the set knows */
    CHECK_INT(rt_poller_modify(p, &a.source, RT_READABLE | RT_WRITABLE), RT_OK);
    put_byte(b.fd[1]);
    CHECK_INT(told(), 2);
    CHECK_INT(a.calls, 2);
    end();
    static const size_t brings[] = {0, 100000}; /* a timer, a stream of large messages */
    for (int i = 0; i < 2; i++) {
        begin();
        a.brings = brings[i];
        a_was_alone();
        put_byte(b.fd[1]);
        CHECK_INT(told(), 1);
        CHECK_INT(a.calls, 1);
        end();
    }
}

/* Who was not told may not come again at once: the set is asked, which knows of all. */
static void test_a_wait_of_itself_guesses_nothing(void)
{
    begin();
    a_was_alone();
    put_byte(a.fd[1]);
    put_byte(b.fd[1]);
    CHECK_INT(rt_poller_wait(p, 0, 8), 2);
    CHECK_INT(a.bytes, 2);
    CHECK_INT(b.bytes, 1);
    put_byte(b.fd[1]);
    CHECK_INT(rt_poller_wait(p, PATIENCE, 8), 1);
    CHECK_INT(b.bytes, 2);
    end();
}

TESTS(test_who_was_alone_is_asked_first, test_others_have_their_turn,
      test_a_wrong_guess_ends_in_the_same_wait, test_nobody_is_guessed,
      test_a_wait_of_itself_guesses_nothing)
