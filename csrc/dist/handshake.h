/* Purpose: the distribution handshake as a state machine, both roles.
 * Bytes in, bytes and verdicts out; the caller owns socket, clock and policy.
 * Ownership: the handshake keeps copies of names and cookies.
 * Threads: one at a time.
 * Limits: packets of at most RT_HANDSHAKE_PACKET_BYTES_MAX.
 * Errors: RT_EBAD (malformed), RT_ELIMIT (oversized), RT_EAUTH (digest), and
 * RT_EFLAGS (missing flag; `missing` tells which), RT_ENOTALLOWED,
 * RT_ENOK, RT_EINVAL for a peer that is not who it was expected to be (or
 * that bears our own name), RT_ECLOSED when fed after the end. A peer that
 * wants a name given (NAME_ME) is RT_ENOTALLOWED.
 * After an error `out` may still hold bytes worth sending before closing. */
#ifndef RT_DIST_HANDSHAKE_H
#define RT_DIST_HANDSHAKE_H

#include "base/base.h"
#include "base/buf.h"
#include "base/limits.h"
#include "dist/flags.h"

enum rt_hs_verdict {
    RT_HS_MORE = 0,     /* send what is in `out`, feed more bytes */
    RT_HS_DECIDE = 1,   /* acceptor: peer name and flags are known; call rt_handshake_decide */
    RT_HS_ALIVE = 2,    /* initiator: peer said `alive`; call rt_handshake_alive */
    RT_HS_DONE = 3      /* the connection is up; bytes after `*used` are packets */
};

enum rt_hs_answer {
    RT_HS_OK, RT_HS_OK_SIMULTANEOUS, RT_HS_NOK, RT_HS_NOT_ALLOWED, RT_HS_SAY_ALIVE
};

typedef struct rt_handshake {
    int state;                  /* private */
    bool initiator;
    uint64_t our_flags, peer_flags;
    uint32_t our_creation, peer_creation;
    uint32_t our_challenge, peer_challenge;
    bool simultaneous;          /* initiator: the status was ok_simultaneous */
    bool old_name;              /* the peer introduced itself with 'n' */
    bool packs, peer_packs;     /* each is a router, and unpacks; ours: set after init */
    uint64_t missing;           /* mandatory flags that the peer lacks */
    uint16_t our_name_len, peer_name_len, cookie_len;
    uint8_t our_name[RT_NODE_NAME_BYTES_MAX];
    uint8_t peer_name[RT_NODE_NAME_BYTES_MAX];
    uint8_t cookie[256];
} rt_handshake;

/* `challenge` is a fresh random number. `peer`: the name expected (initiator)
 * or empty (acceptor). The cookie may be set later for an acceptor. */
int rt_handshake_init(rt_handshake *hs, bool initiator, rt_slice our_name, uint64_t our_flags,
                      uint32_t creation, uint32_t challenge, rt_slice cookie, rt_slice peer);
/* Initiator: appends the first packet. */
int rt_handshake_start(rt_handshake *hs, rt_buf *out);
/* Consumes at most one packet. Returns a verdict (>= 0) or an error; *used is
 * how many bytes were eaten (0: the packet is not complete). Call again while
 * it eats. */
int rt_handshake_feed(rt_handshake *hs, const uint8_t *p, size_t n, size_t *used, rt_buf *out);
/* Acceptor after DECIDE. With OK or OK_SIMULTANEOUS also sends the challenge,
 * and `cookie` (for that peer) is used from now on; SAY_ALIVE waits for the
 * peer's true/false: true goes on with a challenge, false ends in RT_EALIVE.
 * An empty `cookie` keeps the one of init; without either it is RT_EINVAL.
 * NOK and NOT_ALLOWED: send `out` and close. */
int rt_handshake_decide(rt_handshake *hs, enum rt_hs_answer answer, rt_slice cookie, rt_buf *out);
/* Initiator after ALIVE: go on (the old connection is given up) or not. */
int rt_handshake_alive(rt_handshake *hs, bool go_on, rt_buf *out);
/* What it means that the peer closed the connection in this state: RT_EAUTH
 * when it did so instead of acknowledging our digest, else RT_ECLOSED. */
int rt_handshake_closed(const rt_handshake *hs);
/* Flags both sides have; RT_F_PACKS among them where both are routers. */
uint64_t rt_handshake_common(const rt_handshake *hs);

#endif
