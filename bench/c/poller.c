/* Waits of a poller whose sources are all ready and stay so: what it costs to be told. */
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/base.h"
#include "bench.h"
#include "net/poller.h"

typedef struct watched {
    rt_source source;
    int peer;
} watched;

typedef struct poller {
    rt_poller *poller;
    uint32_t sources;
    watched *all;
} poller;

static void seen(rt_source *s, uint32_t events)
{
    keep(s);
    (void)events;
}

static void check(int rc)
{
    if (rc >= 0) return;
    perror("bench: poller");
    abort();
}

/* A connection with a byte that nobody reads. */
static void open_watched(poller *p, watched *w)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof at;
    int listener = socket(AF_INET, SOCK_STREAM, 0), fd;
    check(bind(listener, (struct sockaddr *)&at, n));
    check(listen(listener, 1));
    check(getsockname(listener, (struct sockaddr *)&at, &n));
    check(w->peer = socket(AF_INET, SOCK_STREAM, 0));
    check(connect(w->peer, (struct sockaddr *)&at, n));
    check(fd = accept(listener, NULL, NULL));
    close(listener);
    check((int)send(w->peer, "x", 1, 0));
    w->source = (rt_source){.fd = -1, .ready = seen};
    check(rt_poller_add(p->poller, &w->source, fd, RT_READABLE));
}

BENCH void *poller_new(uint32_t kind, uint32_t sources)
{
    poller *p = must(calloc(1, sizeof *p));
    check(rt_poller_new(&p->poller, (enum rt_poller_kind)kind));
    p->sources = sources;
    p->all = must(calloc(sources, sizeof *p->all));
    for (uint32_t i = 0; i < sources; i++) open_watched(p, &p->all[i]);
    return p;
}

BENCH void poller_free(void *context)
{
    poller *p = context;
    for (uint32_t i = 0; i < p->sources; i++) {
        int fd = p->all[i].source.fd;
        rt_poller_remove(p->poller, &p->all[i].source);
        close(fd);
        close(p->all[i].peer);
    }
    rt_poller_free(p->poller);
    free(p->all);
    free(p);
}

BENCH uint64_t poller_wait(void *context, uint64_t n)
{
    poller *p = context;
    uint64_t right = 0;
    for (uint64_t i = 0; i < n; i++)
        right += rt_poller_wait(p->poller, UINT64_MAX, 256) == (int)p->sources;
    return right;
}
