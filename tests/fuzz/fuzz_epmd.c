/* The port mapper: answers to a client, and a server with several clients.
 * Input: what to try, which allocation fails, then bytes of a server or steps
 * of clients: who (and whether it goes away), and what it says. */
#include "fuzz.h"

#include "dist/epmd.h"

enum { CLIENTS = 4, LEAVES = 16, REMOTE = 32, NAMES_MAX = 5, HELD_MAX = 8192 };

static void answers(rt_slice text) {
    uint32_t creation = 0;
    rt_epmd_port port;
    uint8_t *p = exact_copy(text);
    int64_t n = rt_epmd_read_alive2(p, text.n, &creation);
    if (n > 0) HOLDS((size_t)n <= text.n && creation != 0);
    n = rt_epmd_read_port2(p, text.n, &port);
    if (n > 0) HOLDS((size_t)n <= text.n);
    free(p);
}

/* Gives a client's bytes to the server as its connection does. False: close. */
static bool says(rt_epmd_server *s, rt_buf *held, uint64_t client, bool local, rt_slice text) {
    if (held->n + text.n > HELD_MAX) return false;
    rt_alloc_fail_after(-1); /* the connection's own buffer is not on trial */
    HOLDS(rt_buf_put(held, text.p, text.n) == RT_OK);
    for (;;) {
        rt_buf out = RT_BUF_INIT;
        size_t used = 0;
        uint8_t *p = exact_copy(rt_slice_of(held->p, held->n));
        int rc = rt_epmd_server_feed(s, client, local, p, held->n, &used, &out);
        free(p);
        HOLDS(used <= held->n && rc <= 2);
        HOLDS(rc != 0 || out.n == 0);
        HOLDS(rt_epmd_server_count(s) <= NAMES_MAX);
        if (rc > 0) HOLDS(out.n > 0);
        rt_buf_fini(&out);
        if (rc < 0 || rc == 2) return false;
        if (used == 0) return true;
        memmove(held->p, held->p + used, held->n - used);
        held->n -= used;
    }
}

static void served(rt_cursor c, uint8_t failing) {
    rt_epmd_server *s = rt_epmd_server_new(4369, NAMES_MAX);
    rt_buf held[CLIENTS] = {RT_BUF_INIT};
    uint32_t creation;
    uint8_t who;
    rt_slice text;
    HOLDS(s && rt_epmd_server_add(s, TEXT("own"), 1, true, &creation) == RT_OK);
    while (rt_cursor_u8(&c, &who) && take_piece(&c, &text)) {
        unsigned k = who % CLIENTS;
        fail_some_allocation(failing);
        if (!says(s, &held[k], k, !(who & REMOTE), text) || who & LEAVES) {
            rt_epmd_server_closed(s, k);
            held[k].n = 0;
        }
    }
    for (unsigned k = 0; k < CLIENTS; k++) {
        rt_epmd_server_closed(s, k);
        rt_buf_fini(&held[k]);
    }
    HOLDS(rt_epmd_server_count(s) == 1); /* what its connections held is gone */
    rt_epmd_server_free(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    rt_cursor c = rt_cursor_of(data, size);
    uint8_t what = take_u8(&c), failing = take_u8(&c);
    long before = rt_alloc_live();
    if (what & 1) served(c, failing);
    else answers(rt_slice_of(c.p, rt_cursor_left(&c)));
    nothing_left(before);
    return 0;
}
