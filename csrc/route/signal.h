/* Purpose: what processes do to each other besides sending: links, monitors,
 * exits; for local processes and across nodes.
 * Identifiers are canonical external bytes (term/ident.h), reasons external
 * terms. A peer of NULL means this node.
 * Threads: any. Nothing blocks; what cannot be reached is reported by signal
 * (noproc, noconnection), as in Erlang.
 * Errors: RT_ENOMEM, RT_ENOENT (the local process is dead), RT_EBAD. */
#ifndef RT_ROUTE_SIGNAL_H
#define RT_ROUTE_SIGNAL_H

#include "base/buf.h"
#include "route/route.h"

int rt_signal_link(rt_route *r, rt_pid self, rt_peer *peer, rt_slice other);
int rt_signal_unlink(rt_route *r, rt_pid self, rt_peer *peer, rt_slice other);
/* `target`: a pid, or an atom term (a registered name at the peer). `object`:
 * what DOWN will name: the pid, or a {Name, Node} tuple. */
int rt_signal_monitor(rt_route *r, rt_pid self, rt_peer *peer, rt_slice target, rt_slice object,
                      rt_slice ref);
/* RT_ENOENT when `self` has no such monitor (any more). */
int rt_signal_demonitor(rt_route *r, rt_pid self, rt_slice ref);
/* Tells the watcher with that reference, and nobody else, that `self` ended of `reason`; it
 * watches no longer. RT_ENOENT: nobody watches `self` with it. */
int rt_signal_let_go(rt_route *r, rt_pid self, rt_slice ref, rt_slice reason);
/* exit(To, Reason) from `self` (0: from the node). */
int rt_signal_exit(rt_route *r, rt_pid self, rt_peer *peer, rt_slice to, rt_slice reason);
/* Ends a local process and tells everybody. RT_ENOENT when it is dead already. */
int rt_signal_terminate(rt_route *r, rt_pid self, rt_slice reason);
/* Starts a process at a peer: {M, F, Args}; the answer arrives in the box of
 * `self` as {spawn_reply, Ref, ok | error, Pid | Reason}. */
int rt_signal_spawn(rt_route *r, rt_pid self, rt_peer *peer, rt_slice ref, rt_slice module,
                    rt_slice function, uint32_t arity, rt_slice args, rt_slice options);
/* The answer to a spawn request of a peer: `self` was started for it. `flags`, of
 * RT_SPAWN_*: what the request asked for. Nothing when that connection is gone. */
#define RT_SPAWN_LINK 1u
#define RT_SPAWN_MONITOR 2u
int rt_signal_spawned(rt_route *r, rt_pid self, rt_peer *peer, rt_slice from, rt_slice ref,
                      uint32_t flags);
/* Or that nothing was, for `reason`, an atom. */
int rt_signal_not_spawned(rt_route *r, rt_peer *peer, rt_slice from, rt_slice ref,
                          const char *reason);
/* A connection stands: answers the spawn requests that this peer has no word for with
 * notsup, as real nodes do. */
void rt_signal_peer_up(rt_route *r, rt_peer *peer);
/* All relations with a peer whose connection ended: DOWN and EXIT with
 * noconnection. */
void rt_signal_peer_down(rt_route *r, rt_peer *peer);

/* Arrivals, for route/inbound. `from`, `ref`: canonical. A peer ends only what it is
 * the other end of. */
int rt_signal_got_exit(rt_route *r, rt_peer *peer, rt_pid to, rt_slice from, rt_slice reason,
                       bool from_link);
int rt_signal_got_link(rt_route *r, rt_peer *peer, rt_slice from, rt_slice to);
int rt_signal_got_monitor(rt_route *r, rt_peer *peer, rt_slice from, rt_slice to, bool to_name,
                          rt_slice ref);
int rt_signal_got_down(rt_route *r, rt_peer *peer, rt_slice ref, rt_slice reason);
/* Hands a request to who answers them, as {spawn_request, Ref, From, {M, F, Arity}, Options,
 * Args}, or refuses it. */
int rt_signal_got_spawn(rt_route *r, rt_peer *peer, rt_slice from, rt_slice ref, rt_slice mfa,
                        rt_slice options, rt_slice args);
int rt_signal_got_spawn_reply(rt_route *r, rt_peer *peer, rt_pid to, rt_slice ref, uint64_t flags,
                              rt_slice result);

/* Ends the frame composed in b (rc: how composing went), queues it past the
 * hard limit, kicks, and frees b. To an idle peer it is nothing: RT_OK. */
int rt_route_put_signal(rt_route *r, rt_peer *peer, rt_buf *b, int rc);
/* Puts one term into a local box, as a message or as a signal, which passes the box's
 * limits. RT_ENOENT, RT_ECLOSED, RT_EFULL (the caller closes it), RT_ENOMEM. */
int rt_route_post(rt_route *r, rt_pid to, rt_slice term);
int rt_route_post_signal(rt_route *r, rt_pid to, rt_slice term);

#endif
