/* Purpose: what the tests of csrc/net share: descriptors counted, waits that
 * end, and system limits that make a call fail. */
#ifndef RT_TESTS_SOCKETS_H
#define RT_TESTS_SOCKETS_H

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "check.h"

#define UNUSED __attribute__((unused))

/* For what must happen at once, and only on a broken day does not. */
#define PATIENCE (20 * RT_SEC)

static inline UNUSED int entries_of(const char *path) {
    int n = 0;
    DIR *d = opendir(path);
    if (!d) abort();
    while (readdir(d)) n++;
    closedir(d);
    return n;
}

static inline UNUSED int open_fds(void) { return entries_of("/proc/self/fd"); }

/* Yields until the condition holds; false when it does not in time. */
#define EVENTUALLY(cond)                                                     \
    ({                                                                       \
        uint64_t until_ = rt_now() + PATIENCE;                               \
        bool held_;                                                          \
        while (!(held_ = (cond)) && rt_now() < until_) sched_yield();        \
        held_;                                                               \
    })

static inline UNUSED void make_pair(int fd[2]) {
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd) < 0) abort();
}

static inline UNUSED void put_byte(int fd) {
    if (write(fd, "x", 1) != 1) abort();
}

/* False when there is none, as after a guess of the poller's. */
static inline UNUSED bool took_byte(int fd) {
    char c;
    return read(fd, &c, 1) == 1;
}

static inline UNUSED void take_byte(int fd) {
    if (!took_byte(fd)) abort();
}

/* From here on no descriptor can be made; give what it returns to let_fds. */
static inline UNUSED rlim_t no_more_fds(void) {
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) < 0) abort();
    rlim_t before = r.rlim_cur;
    r.rlim_cur = 0;
    if (setrlimit(RLIMIT_NOFILE, &r) < 0) abort();
    return before;
}

static inline UNUSED void let_fds(rlim_t before) {
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) < 0) abort();
    r.rlim_cur = before;
    if (setrlimit(RLIMIT_NOFILE, &r) < 0) abort();
}

/* Runs `child` in a forked process; true when it left with no failed check. */
static inline UNUSED bool holds_in_child(void (*child)(void *), void *arg) {
    int status;
    fflush(NULL);
    pid_t id = fork();
    if (id < 0) abort();
    if (id == 0) {
        long before = check_failed;
        child(arg);
        fflush(NULL);
        _exit(check_failed == before ? 0 : 1);
    }
    if (waitpid(id, &status, 0) != id) abort();
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* xorshift64*: the same numbers on every run. */
static inline UNUSED uint64_t next_random(uint64_t *state) {
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * 0x2545f4914f6cdd1dull;
}

#endif
