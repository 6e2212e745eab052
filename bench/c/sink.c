/* The physical limit: frames of a 4-byte length and an 8-byte id over loopback TCP, nothing
 * decoded, the id of each checked. Commands and answers as in bench/peers/__init__.py. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define GATHER_BYTES (256u * 1024u)
#define HEAD_BYTES 12u

static void answer(const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    vprintf(format, ap);
    va_end(ap);
    putchar('\n');
    fflush(stdout);
}

static void fail(const char *what)
{
    answer("{\"error\": \"%s: %s\"}", what, strerror(errno));
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void *need(void *p)
{
    if (!p)
        fail("memory");
    return p;
}

static int listen_on_loopback(uint16_t *port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, n) || listen(fd, 16) ||
        getsockname(fd, (struct sockaddr *)&a, &n))
        fail("listen");
    *port = ntohs(a.sin_port);
    return fd;
}

static int connect_to(uint16_t port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one))
        fail("connect");
    return fd;
}

static void write_all(int fd, const uint8_t *p, size_t n)
{
    while (n) {
        ssize_t done = write(fd, p, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            fail("write");
        p += done;
        n -= (size_t)done;
    }
}

/* Each frame is composed anew: a message differs from the one before it. */
static void send_frames(int fd, uint64_t count, size_t size, uint64_t id)
{
    size_t frame = HEAD_BYTES + size, room = frame > GATHER_BYTES ? frame : GATHER_BYTES, n = 0;
    uint8_t *out = need(malloc(room)), *payload = need(malloc(size + 1));
    for (size_t i = 0; i < size; i++)
        payload[i] = (uint8_t)i;
    for (uint64_t stop = id + count; id < stop; id++) {
        uint32_t length = htonl((uint32_t)(8 + size));
        if (n + frame > room) {
            write_all(fd, out, n);
            n = 0;
        }
        memcpy(out + n, &length, 4);
        memcpy(out + n + 4, &id, 8);
        memcpy(out + n + HEAD_BYTES, payload, size);
        n += frame;
    }
    write_all(fd, out, n);
    free(out);
    free(payload);
    answer("{\"sent\": %llu}", (unsigned long long)count);
}

static void receive_frames(int fd, uint64_t count, size_t size)
{
    size_t frame = HEAD_BYTES + size, room = frame + GATHER_BYTES, have = 0;
    uint8_t *in = need(malloc(room));
    uint64_t want = 0, first = 0, alone = 0;
    while (want < count) {
        ssize_t got = read(fd, in + have, room - have);
        size_t at = 0;
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            fail("read");
        have += (size_t)got;
        for (; have - at >= frame; at += frame) {
            uint32_t length;
            uint64_t id;
            memcpy(&length, in + at, 4);
            memcpy(&id, in + at + 4, 8);
            if (ntohl(length) != 8 + size || id != want) {
                answer("{\"error\": \"id %llu, not %llu\"}", (unsigned long long)id,
                       (unsigned long long)want);
                exit(1);
            }
            want++;
        }
        if (!first && want) {
            first = now_ns();
            alone = want;
        }
        have -= at;
        memmove(in, in + at, have);
    }
    answer("{\"first\": %llu, \"last\": %llu, \"counted\": %llu}", (unsigned long long)first,
           (unsigned long long)now_ns(), (unsigned long long)(count - alone));
    free(in);
}

int main(void)
{
    char line[256], form[32];
    unsigned long long count, size, sender;
    unsigned port;
    uint16_t mine;
    int listener = listen_on_loopback(&mine), in = -1, out = -1;

    answer("{\"ready\": true, \"address\": \"127.0.0.1:%u\"}", mine);
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "receive %31s %llu %llu", form, &count, &size) == 3) {
            if (in < 0 && (in = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) < 0)
                fail("accept");
            answer("{\"armed\": true}");
            receive_frames(in, count, size);
        } else if (sscanf(line, "connect 127.0.0.1:%u", &port) == 1) {
            out = connect_to((uint16_t)port);
            answer("{\"connected\": true}");
        } else if (sscanf(line, "send %31s %llu %llu %llu", form, &count, &size, &sender) == 4) {
            send_frames(out, count, size, sender << 26);
        } else {
            answer("{\"error\": \"no such command\"}");
        }
    }
    return 0;
}
