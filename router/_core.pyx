# cython: language_level=3
"""The C core as thin classes: nodes, mailboxes, notifiers.

Everything here is private; router/node.py and router/mailbox.py are the public
face. This is the one place where a result code becomes an exception, and where
the GIL is released: around drives, waits, start and stop.
"""

import errno as _errno
import os
import sys
import weakref

cimport cython
from cpython.exc cimport (
    PyErr_CheckSignals, PyErr_Clear, PyErr_Fetch, PyErr_NormalizeException, PyErr_Restore,
    PyErr_WarnEx)
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from cpython.object cimport PyObject
from cpython.pythread cimport PyThread_get_thread_ident
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport errno
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

rt_py_init(sys.modules[__name__])
Atom = sys.modules[__name__].Atom

from asyncio import _get_running_loop  # noqa: E402

from router import errors  # noqa: E402

cdef extern from "Python.h":
    ctypedef struct PyTypeObject
    Py_ssize_t Py_REFCNT(PyObject *o)
    int PyIter_Send(object iter, PyObject *value, PyObject **result) except -1
    enum:
        PYGEN_RETURN
        PYGEN_NEXT

cdef enum:
    TURN_NS = 5_000_000           # how long a receiver that finds work may keep its loop
    WAYS = 64                     # a power of two
    SCRATCH_KEPT_BYTES = 4 << 20  # of the buffer that sends encode into
    WAY_BYTES_MAX = 192           # a longer head is written anew for each frame
    BATCH_BYTES = 48 * 1024       # frames of one send_many that are queued at once

cdef object _EMPTY = object()  # what pop gives when nothing is there
EMPTY = _EMPTY

cdef dict _PLAIN_ERRORS = {
    RT_EBAD: errors.RouterError,
    RT_ELIMIT: errors.RouterError,
    RT_EINVAL: ValueError,
    RT_EFULL: errors.BufferFull,
    RT_ENOENT: errors.NoProcess,
    RT_EEXIST: errors.NameTaken,
    RT_ECLOSED: errors.RouterError,
    RT_ENOTCONN: errors.NodeDown,
    RT_EALIVE: errors.RouterError,
    RT_EFORK: errors.RouterError,
}


cdef int check(int rc, str what) except -1:
    """Raises what a negative code stands for; else gives the code back."""
    if rc >= 0:
        return rc
    if rc == RT_ENOMEM:
        raise MemoryError(what)
    if rc == RT_ESYS:
        raise OSError(errno, f"{what}: {os.strerror(errno)}")
    text = rt_err_text(rc).decode()
    raise _PLAIN_ERRORS.get(rc, errors.RouterError)(f"{what}: {text}")


def default_limits():
    """The limits of base/limits.h by name."""
    cdef rt_limits l = rt_limits_default()
    return l


def connect_error(int code, str text, str name):
    """The exception for a connection that failed or ended with `code`."""
    message = f"{name}: {text}"
    if code in (RT_EAUTH, RT_EFLAGS, RT_EBAD):
        return errors.HandshakeError(message)
    if code in (RT_ECLOSED, RT_ETIME) and "handshake" in text:
        return errors.HandshakeError(message)
    if code == RT_ENOTALLOWED:
        return errors.NotAllowed(message)
    return errors.NodeDown(message)


notifiers = weakref.WeakSet()  # all of them: the child of a fork closes its copies


cdef class Notifier:
    """Wakes one event loop or thread."""

    cdef rt_notifier *ptr
    cdef object __weakref__

    def __cinit__(self):
        check(rt_notifier_new(&self.ptr), "cannot make a notifier")
        notifiers.add(self)

    def __dealloc__(self):
        if self.ptr != NULL:
            rt_notifier_rele(self.ptr)

    @property
    def fd(self):
        return rt_notifier_fd(self.ptr)

    def poke(self):
        rt_notifier_poke(self.ptr)

    def hush(self):
        rt_notifier_hush(self.ptr)

    def rest(self):
        return rt_notifier_rest(self.ptr)

    def ready(self):
        """The mailboxes that have something, oldest news first."""
        cdef rt_ready *r
        cdef rt_process *p
        found = []
        while True:
            r = rt_notifier_next(self.ptr)
            if r == NULL:
                return found
            p = <rt_process *>RT_MAILBOX_OF_READY(r)  # the mailbox stands first
            if p.user != NULL:
                found.append(<object>p.user)

    def after_fork(self):
        rt_notifier_after_fork(self.ptr)


cdef class LoopFlush:
    """Flushes a node at the end of the turn of the loop that drives it."""

    cdef object loop
    cdef object node              # weak
    cdef bint scheduled
    cdef unsigned long thread     # where the loop ran last

    def __cinit__(self, loop, node_ref):
        self.loop = loop
        self.node = node_ref
        self.thread = PyThread_get_thread_ident()

    cdef bint here(self):
        """True when the caller runs on that loop, so that its turn will end.

        Asking asyncio costs a system call (it compares process ids), so it is asked
        once a turn.
        """
        if self.thread != PyThread_get_thread_ident():
            return False
        return self.scheduled or _get_running_loop() is self.loop

    cdef int schedule(self) except -1:
        if not self.scheduled:
            self.loop.call_soon(self._run)
            self.scheduled = True
        return 0

    def _run(self):
        self.scheduled = False
        self.thread = PyThread_get_thread_ident()
        node = self.node()
        if node is not None:
            (<NodeCore>node)._flush()


cdef class Peer:
    """Another node, as this one knows it."""

    cdef rt_peer *ptr
    cdef readonly str name
    cdef readonly object atom

    @property
    def state(self):
        """0 idle, 1 connecting, 2 up."""
        return <int>rt_peer_state_of(self.ptr)

    @property
    def number(self):
        return self.ptr.number

    @property
    def visible(self):
        """Up, and neither side hides from the other."""
        return self.state == 2 and not rt_peer_lacks(self.ptr, RT_F_PUBLISHED)


@cython.final
cdef class Way:
    """What leads every frame from one sender to one destination, kept for the next one."""

    cdef object dest              # compared by identity: none of its kinds ever changes
    cdef object sender            # a Pid, or None
    cdef Peer peer
    cdef size_t n
    cdef uint8_t head[WAY_BYTES_MAX]


cdef class NodeCore:
    """A node of the C core; router.Node is its public face."""

    cdef rt_node *ptr
    cdef rt_route *route
    cdef rt_buf scratch
    cdef bint scratch_busy
    cdef bint is_running
    cdef bint forked
    cdef uint64_t credit_turn     # the turn in which the direct write was used up
    cdef bint credit
    cdef uint64_t references
    cdef list ways                # WAYS of them, by the address of the destination
    cdef uint8_t node_pid[RT_PID_BYTES_MAX]
    cdef size_t node_pid_n
    cdef dict peers
    cdef readonly str name
    cdef readonly object atom
    cdef readonly object codec
    cdef LoopFlush loop_flush     # of the loop that drives, or None
    cdef object __weakref__

    def __cinit__(self, *args, **kwargs):
        self.peers = {}
        self.ways = [Way.__new__(Way) for _ in range(WAYS)]
        self.credit = True

    def _open(self, str name, bytes cookie, *, bint hidden, bint relay, int engine, int epmd,
              int epmd_port, bint epmd_any, double net_ticktime, listen, dict limits, codec):
        """Makes the C node. listen: (numeric host, port), or None not to listen."""
        cdef rt_node_config c
        cdef bytes raw = name.encode()
        cdef bytes host
        if self.ptr != NULL:
            raise RuntimeError("the node is open already")
        memset(&c, 0, sizeof(c))
        c.name = rt_slice_of(<const uint8_t *>raw, len(raw))
        c.cookie = rt_slice_of(<const uint8_t *>cookie, len(cookie))
        c.hidden = hidden
        c.relay = relay
        c.engine = engine
        c.epmd = epmd
        c.epmd_port = epmd_port
        c.epmd_any = epmd_any
        c.net_ticktime_ms = max(4, min(int(net_ticktime * 1000), 2**31))
        c.limits = limits
        if listen is not None:
            host = listen[0].encode()
            check(rt_address_parse(host, listen[1], &c.listen), f"cannot listen on {listen[0]}")
            c.listening = True
        check(rt_node_new(&c, &self.ptr), f"cannot make the node {name}")
        self.route = rt_node_route(self.ptr)
        self.name = name
        self.atom = Atom(name)
        self.codec = codec

    def __dealloc__(self):
        if self.ptr != NULL:
            with nogil:
                rt_node_free(self.ptr)
            self.ptr = NULL
        rt_buf_fini(&self.scratch)

    cdef int need(self) except -1:
        if not self.is_running:
            if self.forked:
                raise errors.RouterError("the node was closed by a fork: make one in the child")
            raise errors.RouterError("the node is not running: start it, or make a new one")
        return 0

    # life -----------------------------------------------------------------

    def _need(self):
        """Raises RouterError unless the node runs."""
        self.need()

    def _start(self):
        cdef int rc
        with nogil:
            rc = rt_node_start(self.ptr)
        check(rc, f"cannot start {self.name}")
        self.is_running = True

    def _identify(self):
        """Takes the creation over, once the port mapper gave one: it is final then."""
        self.node_pid_n = rt_route_pid(self.route, 0, self.node_pid)
        self.ways = [Way.__new__(Way) for _ in range(WAYS)]

    def _stop(self):
        if self.ptr == NULL:
            return
        self.is_running = False
        with nogil:
            rt_node_stop(self.ptr)

    def _after_fork(self):
        """In the child: closes descriptors and forgets the C node, whose memory stays."""
        if self.ptr != NULL:
            rt_node_after_fork(self.ptr)
            self.forked = True
        self.ptr = NULL
        self.is_running = False

    @property
    def running(self):
        """True between start and stop."""
        return self.is_running

    @property
    def creation(self):
        """The 32-bit number that tells this incarnation of the name from others."""
        return self.route.creation if self.ptr != NULL else 0

    @property
    def port(self):
        """The TCP port the node listens on; 0 when it does not."""
        return rt_node_port(self.ptr) if self.ptr != NULL else 0

    # driving --------------------------------------------------------------

    def _fd(self):
        return rt_node_fd(self.ptr)

    def _drive(self):
        if self.ptr == NULL:
            return
        with nogil:
            rt_node_drive(self.ptr)
        self.credit = True

    def _wait(self, Notifier notifier, double seconds):
        """Blocks until the notifier has news; False on time-out. Negative: for ever."""
        cdef uint64_t ns = <uint64_t>-1 if seconds < 0 else <uint64_t>(seconds * 1e9)
        cdef rt_notifier *n = notifier.ptr
        cdef int rc
        if self.ptr == NULL:
            raise errors.RouterError("the node is closed")
        with nogil:
            rc = rt_node_wait(self.ptr, n, ns)
        PyErr_CheckSignals()
        return rc != RT_ETIME

    def _set_loop(self, LoopFlush flush):
        """The loop that drives this node from now on, or None."""
        self.loop_flush = flush

    def _promise(self, int more):
        if self.ptr != NULL:
            rt_node_promise(self.ptr, more)

    def _flush(self):
        if self.ptr != NULL:
            rt_node_flush(self.ptr)
            self.credit = True

    def _listen_events(self, Notifier notifier):
        check(rt_events_listen(rt_node_events(self.ptr), notifier.ptr), "cannot listen")

    def _ignore_events(self, Notifier notifier):
        if self.ptr != NULL:
            rt_events_ignore(rt_node_events(self.ptr), notifier.ptr)

    def _events_dropped(self):
        """How many events found no room since this was asked last."""
        return rt_events_dropped(rt_node_events(self.ptr)) if self.ptr != NULL else 0

    def _take_events(self):
        """What happened since: (kind, peer name, code, errno, lost, text)."""
        cdef rt_event *e
        found = []
        if self.ptr == NULL:
            return found
        while True:
            e = rt_events_take(rt_node_events(self.ptr))
            if e == NULL:
                return found
            name = (<bytes>(<char *>e.name)[:e.name_n]).decode("utf-8", "replace")
            found.append((e.kind, name, e.code, e.sys, e.lost,
                          (<bytes>e.text).decode("utf-8", "replace")))
            rt_free(e)

    # peers ----------------------------------------------------------------

    cdef Peer find_peer(self, object name):
        found = self.peers.get(name)
        if found is not None:
            return <Peer>found
        cdef bytes raw = name.encode()
        cdef Peer peer = Peer.__new__(Peer)
        cdef int rc = rt_peers_get(self.route.peers, rt_slice_of(<const uint8_t *>raw, len(raw)),
                                   &peer.ptr)
        if rc == RT_EINVAL:
            raise ValueError(f"not a node name (name@host): {name!r}")
        check(rc, f"cannot add the peer {name} (limit peers_max)")
        peer.name = str(name)
        peer.atom = Atom(name)
        self.peers[peer.name] = peer
        return peer

    def _peer(self, name):
        self.need()
        if not isinstance(name, str):
            raise TypeError(f"a node name is a str, not {type(name).__name__}")
        return self.find_peer(name)

    def _hold(self, Peer peer):
        """True when this call made the peer connecting: dial or abandon next."""
        cdef int rc = rt_node_hold(self.ptr, peer.ptr)
        if rc == RT_EALIVE:
            return False
        if rc == RT_EINVAL:
            raise ValueError("a node does not connect to itself")
        check(rc, f"cannot connect to {peer.name}")
        return True

    def _dial(self, Peer peer, host, int port):
        cdef bytes raw = b"" if host is None else host.encode()
        if b"\0" in raw or not 0 <= port <= 0xffff:
            raise ValueError(f"no address: ({host!r}, {port})")
        check(rt_node_dial(self.ptr, peer.ptr, raw, port), f"cannot connect to {peer.name}")

    def _abandon(self, Peer peer, why):
        cdef bytes raw = why.encode()[:200]
        check(rt_node_abandon(self.ptr, peer.ptr, raw), peer.name)

    def _disconnect(self, Peer peer):
        check(rt_node_disconnect(self.ptr, peer.ptr), peer.name)

    def _set_cookie(self, Peer peer, bytes cookie):
        check(rt_node_set_cookie(self.ptr, peer.ptr,
                                 rt_slice_of(<const uint8_t *>cookie, len(cookie))),
              "a cookie has at most 255 bytes")

    def _peers_up(self):
        cdef uint32_t i
        cdef rt_peer *p
        found = []
        if self.ptr == NULL:
            return found
        for i in range(rt_peers_count(self.route.peers)):
            p = rt_peers_at(self.route.peers, i + 1)
            if rt_peer_state_of(p) == RT_PEER_UP:
                found.append((<bytes>(<char *>p.name.p)[:p.name.n]).decode())
        return found

    def _stats(self):
        """One tuple a peer: its name, then the fields of rt_peer_stats."""
        cdef uint32_t n, i
        cdef rt_peer *p
        rows = []
        if self.ptr == NULL:
            return rows
        n = rt_peers_count(self.route.peers)
        cdef rt_peer_stats *all_rows
        cdef bytearray room = bytearray(n * sizeof(rt_peer_stats))
        if n == 0:
            return rows
        all_rows = <rt_peer_stats *><void *><char *>room
        n = rt_node_stats(self.ptr, all_rows, n)
        for i in range(n):
            p = rt_peers_at(self.route.peers, i + 1)
            rows.append((
                (<bytes>(<char *>p.name.p)[:p.name.n]).decode(), all_rows[i].state,
                all_rows[i].messages_in, all_rows[i].messages_out,
                all_rows[i].bytes_in, all_rows[i].bytes_out, all_rows[i].queued_bytes,
                all_rows[i].dropped_in, all_rows[i].dropped_out, all_rows[i].refused,
                all_rows[i].connects, all_rows[i].failures,
                all_rows[i].round_trip, all_rows[i].idle, all_rows[i].age))
        return rows

    # sending --------------------------------------------------------------

    def _connect_held(self, Peer peer):
        """Overridden: begins to connect to a peer that `_hold` made connecting."""
        raise NotImplementedError

    cdef int reach(self, Peer peer) except -1:
        """Makes sure that something queued for the peer has a connection to wait for."""
        if rt_peer_state_of(peer.ptr) == RT_PEER_IDLE and self._hold(peer):
            self._connect_held(peer)
        return 0

    cdef rt_buf *take_scratch(self, rt_buf *own) noexcept:
        # An encoder hook may call back into send: the second one in has its own buffer.
        if self.scratch_busy:
            memset(own, 0, sizeof(rt_buf))
            return own
        self.scratch_busy = True
        self.scratch.n = 0
        return &self.scratch

    cdef void give_scratch(self, rt_buf *b) noexcept:
        if b != &self.scratch:
            rt_buf_fini(b)
            return
        self.scratch_busy = False
        if b.cap > SCRATCH_KEPT_BYTES:  # a large message must not pin its size for ever
            rt_buf_fini(b)

    cdef int put(self, Peer peer, rt_slice frames, bint alone) except -1:
        """Queues whole frames; writes them or sees that somebody does."""
        cdef unsigned how = 0
        cdef int rc
        cdef LoopFlush flush = self.loop_flush
        if alone:
            if not self.credit and flush is None and rt_node_turns(self.ptr) != self.credit_turn:
                self.credit = True
            if self.credit:
                how = RT_SEND_DIRECT
        if flush is None or not flush.here():
            how |= RT_SEND_WAKE
        rc = rt_node_send(self.ptr, peer.ptr, frames, how)
        if rc == RT_ENOTCONN:
            rc = self.connect_and_send(peer, frames, how)
        if how & RT_SEND_DIRECT:
            self.credit = False
            self.credit_turn = rt_node_turns(self.ptr)
        if rc == 1:
            flush.schedule()
        elif rc < 0:
            self.not_sent(peer, rc)
        return 0

    cdef int connect_and_send(self, Peer peer, rt_slice frames, unsigned how) except -1000:
        # The frames are queued before the attempt begins: one that fails at once then
        # counts them as lost like any other. Another thread's attempt may have failed.
        cdef int rc = RT_ENOTCONN
        for _ in range(100):
            held = self._hold(peer)
            rc = rt_node_send(self.ptr, peer.ptr, frames, how)
            if held:
                self._connect_held(peer)
            if rc != RT_ENOTCONN:
                break
        return rc

    cdef int not_sent(self, Peer peer, int rc) except -1:
        if rc == RT_EFULL:
            raise errors.BufferFull(
                f"{peer.name}: the outgoing buffer is at its limit "
                f"(queue_bytes_max={self.route.limits.queue_bytes_max}); await node.drain()")
        if rc == RT_ENOTCONN:
            raise errors.NodeDown(f"{peer.name}: not connected")
        return check(rc, f"cannot send to {peer.name}")

    cdef Peer begin(self, rt_buf *b, object dest, object sender):
        """Writes what leads a frame to dest; None when dest is of this node or unusable."""
        cdef Way way = <Way>self.ways[(<size_t><void *>dest >> 4) & (WAYS - 1)]
        cdef Peer peer
        if way.dest is dest and way.sender is sender:
            check(rt_buf_put(b, way.head, way.n), "cannot send")
            return way.peer
        if rt_py_is_pid(dest) or rt_py_is_ref(dest):
            node = dest.node
        elif (isinstance(dest, tuple) and len(dest) == 2 and isinstance(dest[0], str)
                and isinstance(dest[1], str)):
            node = dest[1]
        else:
            return None
        if node == self.name:
            return None
        peer = self.find_peer(node)
        self.write_head(b, dest, sender)
        if b.n <= WAY_BYTES_MAX:
            way.dest = dest
            way.sender = sender
            way.peer = peer
            way.n = b.n
            memcpy(way.head, b.p, b.n)
        return peer

    cdef int write_head(self, rt_buf *b, object dest, object sender) except -1:
        cdef rt_slice sender_bytes, to_bytes
        cdef size_t n
        cdef int rc
        cdef bytes raw
        if sender is None:
            sender_bytes = rt_slice_of(self.node_pid, self.node_pid_n)
        else:
            sender_bytes.p = rt_py_ident_bytes(sender, &n)
            sender_bytes.n = n
        check(rt_outbound_begin(b), "cannot send")
        if isinstance(dest, tuple):
            raw = dest[0].encode()
            rc = rt_control_reg_send(b, sender_bytes, rt_slice_of(<const uint8_t *>raw, len(raw)))
            if rc == RT_EINVAL:
                raise ValueError(f"a registered name has at most 255 characters: {dest[0]!r}")
            return check(rc, "cannot send")
        to_bytes.p = rt_py_ident_bytes(dest, &n)
        to_bytes.n = n
        if rt_py_is_pid(dest):
            rc = rt_control_send_sender(b, sender_bytes, to_bytes)
        else:
            rc = rt_control_alias_send(b, sender_bytes, to_bytes)
        return check(rc, "cannot send")

    cdef int end(self, rt_buf *b, size_t start) except -1:
        """The frame that began at `start` is complete."""
        if rt_outbound_end(b, start, &self.route.limits) == RT_ELIMIT:
            n = b.n - start
            b.n = start
            raise errors.EncodeError(f"the message has {n} bytes; the limit message_bytes_max is "
                                     f"{self.route.limits.message_bytes_max}")
        return 0

    cdef int send_one(self, object dest, object term, object sender) except -1:
        cdef rt_buf own
        cdef rt_buf *b = self.take_scratch(&own)
        cdef Peer peer
        try:
            peer = self.begin(b, dest, sender)
            if peer is None:
                b.n = 0
                return self.send_here(dest, [term], b)
            rt_py_encode(self.codec, term, b)
            self.end(b, 0)
            return self.put(peer, rt_slice_of(b.p, b.n), True)
        finally:
            self.give_scratch(b)

    cdef int send_list(self, object dest, list terms, object sender) except -1:
        """Queues many frames at once: a queue's lock costs more than a small frame."""
        cdef rt_buf own
        cdef rt_buf *b = self.take_scratch(&own)
        cdef Peer peer
        cdef size_t head, start = 0, whole
        cdef bint fresh = True
        try:
            peer = self.begin(b, dest, sender)
            if peer is None:
                b.n = 0
                return self.send_here(dest, terms, b)
            head = b.n
            try:
                for term in terms:
                    if not fresh:
                        check(rt_buf_reserve(b, head), "cannot send")
                        memcpy(b.p + b.n, b.p, head)
                        b.n += head
                    fresh = False
                    rt_py_encode(self.codec, term, b)
                    self.end(b, start)
                    if b.n < BATCH_BYTES:
                        start = b.n
                        continue
                    # One that will be cut into fragments is queued alone.
                    whole = start if b.n - start > RT_FRAGMENT_BYTES else b.n
                    start = 0
                    if whole > 0:
                        self.put(peer, rt_slice_of(b.p, whole), False)
                    if whole < b.n:
                        self.put(peer, rt_slice_of(b.p + whole, b.n - whole), False)
                    b.n = head
                    fresh = True
            finally:
                if start > 0:
                    self.put(peer, rt_slice_of(b.p, start), False)
            return 0
        finally:
            self.give_scratch(b)

    cdef int send_local(self, rt_pid to, list terms, rt_buf *b) except -1:
        """Encoded and decoded like a remote message: a snapshot."""
        cdef int rc
        cdef rt_process *p
        for term in terms:
            p = rt_registry_lookup(self.route.registry, to)
            if p != NULL and rt_node_box_full(p):
                raise errors.BufferFull(
                    "the mailbox is at its limit (overflow='pause'); nothing was queued")
            b.n = 0
            rt_py_encode(self.codec, term, b)
            rc = rt_route_post(self.route, to, rt_slice_of(b.p, b.n))
            if rc == RT_ENOENT or rc == RT_ECLOSED:
                rt_route_undeliverable(self.route, 1)
            elif rc == RT_EFULL:
                self.overflowed(to)
            elif rc < 0:
                check(rc, "cannot send")
        return 0

    cdef int overflowed(self, rt_pid to) except -1:
        """A local send filled a box whose policy is to close."""
        cdef rt_buf b
        memset(&b, 0, sizeof(b))
        try:
            rt_py_encode(None, Atom("overflow"), &b)
            rt_signal_terminate(self.route, to, rt_slice_of(b.p, b.n))
        finally:
            rt_buf_fini(&b)
        return 0

    cdef int send_here(self, object dest, list terms, rt_buf *b) except -1:
        """To a process of this node, or to what is no destination."""
        cdef rt_pid local
        cdef size_t n
        cdef const uint8_t *p
        cdef bytes raw
        if rt_py_is_pid(dest):
            p = rt_py_ident_bytes(dest, &n)
            if rt_route_local(self.route, rt_slice_of(p, n), &local) < 0:
                rt_route_undeliverable(self.route, len(terms))
                return 0
            return self.send_local(local, terms, b)
        if isinstance(dest, tuple):
            if len(dest) != 2 or not isinstance(dest[0], str) or not isinstance(dest[1], str):
                raise TypeError(f"a destination on another node is (name, node), not {dest!r}")
            dest = dest[0]
        if isinstance(dest, str):
            raw = dest.encode()
            local = rt_registry_whereis(self.route.registry,
                                        rt_slice_of(<const uint8_t *>raw, len(raw)))
            if local == 0:
                raise errors.NoProcess(f"no process is registered as {dest!r} on {self.name}")
            return self.send_local(local, terms, b)
        if rt_py_is_ref(dest):
            p = rt_py_ident_bytes(dest, &n)
            for term in terms:
                local = rt_relations_reach(self.route.relations, rt_slice_of(p, n))
                if local == 0:
                    rt_route_undeliverable(self.route, 1)
                else:
                    self.send_local(local, [term], b)
            return 0
        raise TypeError(
            "a destination is a Pid, a registered name, (name, node) or an alias Reference, "
            f"not {type(dest).__name__}")

    cdef object sender_pid(self, object sender):
        if sender is None or rt_py_is_pid(sender):
            return sender
        if not isinstance(sender, MailboxCore):
            raise TypeError(f"sender is a Mailbox or a Pid, not {type(sender).__name__}")
        return (<MailboxCore>sender).pid_of()

    def send(self, dest, term, *, sender=None):
        """Sends `term` to `dest` without waiting.

        dest: a `Pid`, a name registered on this node, `(name, node)`, or an alias
        `Reference`. The term is encoded before this returns. A node that is not
        connected is connected to; what is sent meanwhile waits in order.
        sender: the `Mailbox` or `Pid` it comes from.

        Raises EncodeError, BufferFull (nothing was queued), NoProcess (no such local
        name), ValueError and TypeError for what is no destination.
        """
        if not self.is_running:
            self.need()
        if sender is not None:
            sender = self.sender_pid(sender)
        self.send_one(dest, term, sender)

    def send_many(self, dest, terms, *, sender=None):
        """Sends each of `terms`, in order, written together; else like `send`.

        When it raises, the terms before the one that failed have been sent.
        """
        cdef list items = list(terms)
        if not self.is_running:
            self.need()
        sender = self.sender_pid(sender)
        if len(items) == 1:
            self.send_one(dest, items[0], sender)
        if len(items) <= 1:
            return
        try:
            self.send_list(dest, items, sender)
        finally:
            if self.credit and self.ptr != NULL:
                rt_node_flush(self.ptr)
                self.credit = False
                self.credit_turn = rt_node_turns(self.ptr)

    # references -----------------------------------------------------------

    def _reference(self):
        """A reference no other of this incarnation equals."""
        cdef uint32_t word[3]
        if self.ptr == NULL:
            self.need()
        self.references += 1
        word[0] = self.references & 0x3ffff
        word[1] = (self.references >> 18) & 0xffffffff
        word[2] = (self.references >> 50) & 0xffffffff
        return rt_py_ref(self.atom, self.route.creation, word, 3)

    def _whereis(self, name):
        cdef bytes raw = name.encode()
        cdef rt_pid p
        if self.ptr == NULL:
            self.need()
        p = rt_registry_whereis(self.route.registry,
                                rt_slice_of(<const uint8_t *>raw, len(raw)))
        return self.pid_of(p) if p else None

    def _is_alive(self, pid):
        """Whether a process of this incarnation runs still; pid: a Pid of this node."""
        if self.ptr == NULL:
            self.need()
        cdef rt_pid p = <rt_pid>pid.id | <rt_pid>pid.serial << 32
        return pid.creation == self.creation and rt_registry_lookup(self.route.registry, p) != NULL

    cdef object pid_of(self, rt_pid p):
        return rt_py_pid(self.atom, <uint32_t>p, <uint32_t>(p >> 32), self.route.creation)

    def _boxes(self):
        """The mailboxes of this node that the program still holds."""
        cdef Boxes b
        cdef uint32_t i
        if self.ptr == NULL:
            return []
        found = []
        # Read and held in one go: making the list may run code that makes boxes.
        b.at = NULL
        b.count = 0
        rt_registry_each(self.route.registry, _visit_box, &b)
        b.at = <PyObject **>PyMem_RawMalloc(b.count * sizeof(PyObject *) + 1)
        if b.at == NULL:
            raise MemoryError("cannot list the mailboxes")
        b.count = 0
        rt_registry_each(self.route.registry, _visit_box, &b)
        try:
            for i in range(b.count):
                found.append(<object>b.at[i])
        finally:
            for i in range(b.count):
                Py_DECREF(<object>b.at[i])
            PyMem_RawFree(b.at)
        return found

    def _process_count(self):
        return rt_registry_count(self.route.registry) if self.ptr != NULL else 0

    def _relation_count(self):
        return rt_relations_count(self.route.relations) if self.ptr != NULL else 0


cdef struct Boxes:
    PyObject **at               # NULL: only count
    uint32_t count


cdef void _visit_box(void *arg, rt_process *p) noexcept:
    cdef Boxes *b = <Boxes *>arg
    cdef PyObject *box = <PyObject *>p.user
    # One without references is on its way out, and must not be held.
    if box == NULL or Py_REFCNT(box) == 0:
        return
    if b.at != NULL:
        Py_INCREF(<object>box)
        b.at[b.count] = box
    b.count += 1


# A box found dead in a cycle ends its process like any other, for which it needs its
# node: the collector must not take that away first.
@cython.no_gc_clear
cdef class MailboxCore:
    """A process of the C core; router.Mailbox is its public face."""

    cdef rt_process *ptr
    cdef rt_pid local
    cdef readonly NodeCore node
    cdef object own_pid           # made when somebody asks
    cdef readonly object name
    cdef object codec
    cdef object failed            # a DecodeError to raise after the good prefix
    cdef Notifier bound
    cdef bint pausing             # overflow="pause": peers may be held back for this box
    cdef public object _waiter    # the future of a receiver that waits, or None
    cdef public object _callback  # of on_messages, or None
    cdef public bint _getting     # a thread is in get or get_many
    cdef public object _loop      # of on_messages
    cdef public object _thread_notifier
    cdef unsigned streak          # receives since the receiver last gave way to its loop
    cdef uint64_t streak_began    # when; ns
    cdef object __weakref__

    def __cinit__(self, NodeCore node not None, name=None, *args, **kwargs):
        node.need()
        self.node = node
        self.codec = node.codec
        check(rt_process_new(node.route.registry, &self.ptr),
              "cannot make a process (limit processes_max)")
        self.local = self.ptr.self
        self.ptr.user = <void *>self

    def __dealloc__(self):
        if self.ptr == NULL or self.node is None:
            return
        self.ptr.user = NULL
        if self.node.ptr != NULL:
            self.exit_with(None)
            rt_process_release(self.node.route.registry, self.ptr)
        self.ptr = NULL

    @property
    def pid(self):
        """The Pid of this process."""
        return self.pid_of()

    cdef object pid_of(self):
        if self.own_pid is None:
            self.own_pid = self.node.pid_of(self.local)
        return self.own_pid

    def _register(self, name):
        if not isinstance(name, str):
            raise TypeError(f"a registered name is a str, not {type(name).__name__}")
        cdef bytes raw = name.encode()
        if not name or len(name) > 255:
            raise ValueError(f"a registered name has 1 to 255 characters: {name!r}")
        cdef int rc = rt_registry_register(self.node.route.registry,
                                           rt_slice_of(<const uint8_t *>raw, len(raw)), self.local)
        if rc == RT_EEXIST:
            raise errors.NameTaken(f"{name!r} is registered on {self.node.name} already")
        check(rc, f"cannot register {name!r}")
        self.name = Atom(name)

    def _limit(self, uint32_t messages, uint64_t size, int overflow):
        rt_mailbox_limit(&self.ptr.mailbox, messages, size, <rt_overflow>overflow)
        self.pausing = overflow == RT_OVERFLOW_PAUSE

    def _decode_plainly(self):
        """Without the policies of the node's codec: for what a protocol says to this box."""
        self.codec = None

    cdef int alive(self) except -1:
        if self.node.ptr == NULL:
            raise errors.RouterError("the node was closed by a fork: make one in the child")
        return 0

    # receiving --------------------------------------------------------------

    cdef object decode(self, rt_message *m):
        cdef size_t used
        cdef PyObject *term = rt_py_decode_or_null(self.codec, rt_message_data(m), m.n, &used)
        if term == NULL:
            self.refuse(m)  # raises, unless it is a signal: that is told all the same
            try:
                return rt_py_decode(None, rt_message_data(m), m.n, &used)
            finally:
                rt_message_free(m)
        rt_message_free(m)
        found = <object>term
        Py_DECREF(found)  # the cast took a reference of its own
        return found

    cdef int refuse(self, rt_message *m) except -1:
        """Raises what the decoder has set, with the bytes it refused, and frees them.

        Of a signal's refusal nothing is raised, and the message is kept.
        """
        cdef PyObject *kind
        cdef PyObject *value
        cdef PyObject *trace
        PyErr_Fetch(&kind, &value, &trace)
        PyErr_NormalizeException(&kind, &value, &trace)
        cdef bint refused = isinstance(<object>value, errors.DecodeError)
        if refused and not m.signal:
            (<object>value).data = (<bytes>(<char *>rt_message_data(m))[:m.n])
        PyErr_Restore(kind, value, trace)
        if refused and m.signal:
            PyErr_Clear()
            return 0
        rt_message_free(m)
        return -1

    cdef int claim(self) except -1:
        if self._waiter is not None or self._getting:
            raise RuntimeError("another task or thread is receiving from this mailbox")
        if self._callback is not None:
            raise RuntimeError("on_messages is set on this mailbox; on_messages(None) ends it")
        return 0

    def _claim(self):
        """Raises RuntimeError when somebody is receiving."""
        self.claim()

    cdef bint gives_way(self, unsigned looks):
        """True when a receiver that always found something should let its loop turn.

        looks: how often it received between two looks at the clock.
        """
        cdef uint64_t now
        self.streak += 1
        if self.streak == 1:
            self.streak_began = rt_now()
        elif self.streak % looks == 0:
            now = rt_now()
            if now - self.streak_began > TURN_NS:
                self.streak = 0
                return True
        return False

    def receive(self, timeout=None):
        """The next term.

        timeout: seconds. Raises TimeoutError; ExitSignal when the box is closed
        and empty; DecodeError, once, for a term the codec refuses; RuntimeError
        when somebody else is receiving. Cancelling loses no message.
        """
        return receiving(self, timeout, 0, False)

    def receive_many(self, Py_ssize_t max=1024, timeout=None):
        """At least one and at most `max` terms, as many as are there; else like `receive`."""
        if max < 1:
            raise ValueError(f"max is at least 1, not {max}")
        return receiving(self, timeout, max, False)

    def __aiter__(self):
        return self

    def __anext__(self):
        """The next term; iteration ends when the box was closed with reason `normal`."""
        return receiving(self, None, 0, True)

    cdef object pop(self):
        """The oldest term, or EMPTY. Raises DecodeError once per refused term."""
        cdef rt_message *m
        if self.failed is not None:
            failed, self.failed = self.failed, None
            raise failed
        self.alive()
        m = rt_process_pop(self.ptr)
        if m == NULL:
            return _EMPTY
        if self.pausing:
            rt_node_consumed(self.node.ptr, self.ptr)
        return self.decode(m)

    def _pop(self):
        return self.pop()

    def _pop_many(self, Py_ssize_t most):
        return self.pop_many(most)

    cdef list pop_many(self, Py_ssize_t most):
        """Up to `most` terms. A refused term is raised once those before it were given."""
        cdef rt_message *m
        cdef list found = []
        cdef Py_ssize_t count = 0
        if self.failed is not None:
            failed, self.failed = self.failed, None
            raise failed
        self.alive()
        try:
            while count < most:
                m = rt_process_pop(self.ptr)
                if m == NULL:
                    break
                found.append(self.decode(m))
                count += 1
        except BaseException as e:
            if not found:
                raise
            self.failed = e
        finally:
            if self.pausing:
                rt_node_consumed(self.node.ptr, self.ptr)
        return found

    def _arm(self):
        """False when something is there already, or the box is closed."""
        if self.failed is not None:
            return False
        self.alive()
        return rt_mailbox_arm(&self.ptr.mailbox)

    def _bind(self, Notifier notifier):
        if self.bound is not notifier:
            self.alive()
            rt_mailbox_bind(&self.ptr.mailbox, notifier.ptr)
            self.bound = notifier

    @property
    def waiting(self):
        """How many messages wait, at this moment."""
        return rt_mailbox_count(&self.ptr.mailbox) if self.node.ptr != NULL else 0

    @property
    def waiting_bytes(self):
        """How many bytes the waiting messages take in external form."""
        return rt_mailbox_bytes(&self.ptr.mailbox) if self.node.ptr != NULL else 0

    @property
    def dropped(self):
        """How many messages a limit of this box refused."""
        return rt_mailbox_dropped(&self.ptr.mailbox) if self.node.ptr != NULL else 0

    @property
    def closed(self):
        """True when the process has ended; what was accepted can still be read."""
        return self.node.ptr == NULL or rt_mailbox_closed(&self.ptr.mailbox)

    def _exit_reason(self):
        """(reason,) of an ended process, or None while it lives."""
        cdef rt_slice reason
        cdef size_t used
        if self.node.ptr == NULL:
            return (Atom("noconnection"),)
        if rt_process_alive(self.ptr):
            return None
        reason = rt_process_reason(self.ptr)
        if reason.n == 0:
            return (Atom("unknown"),)
        try:
            return (rt_py_decode(self.codec, reason.p, reason.n, &used),)
        except errors.DecodeError:  # the end is told all the same
            return (rt_py_decode(None, reason.p, reason.n, &used),)

    # ending -----------------------------------------------------------------

    cdef int exit_with(self, object reason) except -1:
        cdef rt_buf b
        memset(&b, 0, sizeof(b))
        try:
            if reason is None:
                rt_buf_put(&b, <const char *>b"w\x06normal", 8)  # the atom
            else:
                rt_py_encode(self.codec, reason, &b)
            rt_signal_terminate(self.node.route, self.local, rt_slice_of(b.p, b.n))
        finally:
            rt_buf_fini(&b)
        return 0

    def _exit(self, reason):
        if self.node.ptr != NULL:
            self.exit_with(Atom(reason) if type(reason) is str else reason)

    # links and monitors -------------------------------------------------------

    cdef rt_peer *peer_of(self, object node) except? NULL:
        cdef Peer peer
        if node == self.node.name:
            return NULL
        peer = self.node.find_peer(node)
        self.node.reach(peer)
        return peer.ptr

    cdef rt_slice bytes_of(self, object ident) except *:
        cdef size_t n
        cdef const uint8_t *p = rt_py_ident_bytes(ident, &n)
        return rt_slice_of(p, n)

    cdef int signal_ok(self, int rc, str what) except -1:
        if rc == RT_ENOENT:
            raise errors.ExitSignal(self._exit_reason()[0] if self.closed else None)
        return check(rc, what)

    def link(self, pid):
        """Links this process with `pid`: when one ends abnormally, so does the other."""
        self.node.need()
        if not rt_py_is_pid(pid):
            raise TypeError(f"link takes a Pid, not {type(pid).__name__}")
        cdef rt_peer *peer = self.peer_of(pid.node)
        self.signal_ok(rt_signal_link(self.node.route, self.local, peer, self.bytes_of(pid)),
                       "cannot link")

    def unlink(self, pid):
        """Takes a link away; nothing happens when there is none."""
        self.node.need()
        if not rt_py_is_pid(pid):
            raise TypeError(f"unlink takes a Pid, not {type(pid).__name__}")
        cdef rt_peer *peer = NULL
        if pid.node != self.node.name:
            peer = self.node.find_peer(pid.node).ptr
        check(rt_signal_unlink(self.node.route, self.local, peer, self.bytes_of(pid)),
              "cannot unlink")

    def monitor(self, dest):
        """Watches `dest`, a Pid, a local name or `(name, node)`; returns the Reference.

        When it ends, `("DOWN", ref, "process", object, reason)` arrives, where object
        is the Pid or `(name, node)`. A process that does not exist is reported as
        `noproc`, a node that cannot be reached as `noconnection`.
        """
        return self.watch(dest, None)

    def _monitor_alias(self, dest):
        """A monitor whose reference also is an alias of this process, ended by one message."""
        ref = self.alias(once=True)
        try:
            return self.watch(dest, ref)
        except BaseException:
            self.unalias(ref)
            raise

    cdef object watch(self, dest, ref):
        cdef rt_buf target, shown
        cdef rt_peer *peer = NULL
        self.node.need()
        if isinstance(dest, str):
            dest = (dest, self.node.name)
        memset(&target, 0, sizeof(target))
        memset(&shown, 0, sizeof(shown))
        if ref is None:
            ref = self.node._reference()
        try:
            if rt_py_is_pid(dest):
                rt_py_encode(None, dest, &target)
                rt_py_encode(None, dest, &shown)
                peer = self.peer_of(dest.node)
            elif (isinstance(dest, tuple) and len(dest) == 2 and isinstance(dest[0], str)
                    and isinstance(dest[1], str)):
                rt_py_encode(None, Atom(dest[0]), &target)
                rt_py_encode(None, (Atom(dest[0]), Atom(dest[1])), &shown)
                peer = self.peer_of(dest[1])
            else:
                raise TypeError(
                    f"monitor takes a Pid, a name or (name, node), not {type(dest).__name__}")
            self.signal_ok(
                rt_signal_monitor(self.node.route, self.local, peer,
                                  rt_slice_of(target.p, target.n), rt_slice_of(shown.p, shown.n),
                                  self.bytes_of(ref)), "cannot monitor")
        finally:
            rt_buf_fini(&target)
            rt_buf_fini(&shown)
        return ref

    def demonitor(self, ref):
        """Stops watching. True when the monitor stood; False when it had fired or never was.

        A DOWN message that has arrived already stays in the box.
        """
        self.node.need()
        if not rt_py_is_ref(ref):
            raise TypeError(f"demonitor takes a Reference, not {type(ref).__name__}")
        cdef int rc = rt_signal_demonitor(self.node.route, self.local, self.bytes_of(ref))
        if rc == RT_ENOENT:
            return False
        check(rc, "cannot demonitor")
        return True

    def _let_go(self, ref, reason):
        """Tells the one watcher with that reference that this process ended; False: there is none."""
        cdef rt_buf b
        cdef int rc
        self.node.need()
        memset(&b, 0, sizeof(b))
        try:
            rt_py_encode(self.codec, reason, &b)
            rc = rt_signal_let_go(self.node.route, self.local, self.bytes_of(ref),
                                  rt_slice_of(b.p, b.n))
        finally:
            rt_buf_fini(&b)
        if rc == RT_ENOENT:
            return False
        check(rc, "cannot tell a watcher")
        return True

    def exit(self, pid, reason):
        """Sends an exit signal to `pid`, as exit(Pid, Reason) does. A str reason is an atom."""
        cdef rt_buf b
        self.node.need()
        if not rt_py_is_pid(pid):
            raise TypeError(f"exit takes a Pid, not {type(pid).__name__}")
        memset(&b, 0, sizeof(b))
        try:
            rt_py_encode(self.codec, Atom(reason) if type(reason) is str else reason, &b)
            check(rt_signal_exit(self.node.route, self.local, self.peer_of(pid.node),
                                 self.bytes_of(pid), rt_slice_of(b.p, b.n)),
                  "cannot send the exit signal")
        finally:
            rt_buf_fini(&b)

    @property
    def trap_exit(self):
        """When true, exit signals arrive as `("EXIT", pid, reason)` instead of closing the box."""
        return self.node.ptr != NULL and rt_node_trap_exit(self.ptr)

    @trap_exit.setter
    def trap_exit(self, bint on):
        self.alive()
        rt_node_set_trap_exit(self.ptr, on)

    def alias(self, *, bint once=False):
        """A Reference that others may send to in place of the pid, until `unalias`.

        once: the first message that arrives ends it.
        """
        cdef rt_relation rel
        self.node.need()
        ref = self.node._reference()
        memset(&rel, 0, sizeof(rel))
        rel.kind = RT_REL_ALIAS
        rel.local = self.local
        rel.flags = RT_ALIAS_ONCE if once else 0
        rel.ref = self.bytes_of(ref)
        check(rt_relations_add(self.node.route.relations, &rel), "cannot make an alias")
        if not rt_process_alive(self.ptr):  # its end has not seen the alias
            self.unalias(ref)
            self.signal_ok(RT_ENOENT, "cannot make an alias")
        return ref

    def unalias(self, ref):
        """Ends an alias. True when it stood."""
        if not rt_py_is_ref(ref):
            raise TypeError(f"unalias takes a Reference, not {type(ref).__name__}")
        if self.node.ptr == NULL:
            return False
        return rt_relations_remove_ref(self.node.route.relations, RT_REL_ALIAS,
                                       self.bytes_of(ref), NULL) == RT_OK

    def _watch_nodes(self, bint on):
        self.node.need()
        check(rt_node_watch(self.node.ptr, self.local, on), "cannot watch nodes")

    def _take_spawn_requests(self, bint on=True):
        """From now on peers' spawn requests arrive here as messages, or are refused again."""
        self.node.need()
        rt_route_set_spawner(self.node.route, self.local if on else 0)

    def _spawned(self, from_, ref, uint32_t flags):
        """Tells a peer's process that this one was started for its request."""
        self.node.need()
        check(rt_signal_spawned(self.node.route, self.local, self.node.find_peer(from_.node).ptr,
                                self.bytes_of(from_), self.bytes_of(ref), flags),
              "cannot answer a spawn request")

    def _not_spawned(self, from_, ref, reason):
        """Tells it that none was."""
        cdef bytes text = reason.encode()
        self.node.need()
        check(rt_signal_not_spawned(self.node.route, self.node.find_peer(from_.node).ptr,
                                    self.bytes_of(from_), self.bytes_of(ref), text),
              "cannot refuse a spawn request")

    def _spawn_request(self, node, module, function, list args, list options):
        """Sends a spawn request; `("spawn_reply", ref, "ok" | "error", result)` answers."""
        cdef rt_buf a, o
        cdef bytes m = module.encode(), f = function.encode()
        cdef rt_peer *peer
        self.node.need()
        memset(&a, 0, sizeof(a))
        memset(&o, 0, sizeof(o))
        ref = self.node._reference()
        try:
            rt_py_encode(self.codec, args, &a)
            rt_py_encode(None, options, &o)
            peer = self.peer_of(node)
            if peer == NULL:
                raise ValueError("a process of this node is started with node.spawn")
            self.signal_ok(rt_signal_spawn(self.node.route, self.local, peer, self.bytes_of(ref),
                                  rt_slice_of(<const uint8_t *>m, len(m)),
                                  rt_slice_of(<const uint8_t *>f, len(f)), len(args),
                                  rt_slice_of(a.p, a.n), rt_slice_of(o.p, o.n)), "cannot spawn")
        finally:
            rt_buf_fini(&a)
            rt_buf_fini(&o)
        return ref


@cython.final
@cython.freelist(16)
cdef class Receiving:
    """What `receive` gives: a coroutine that usually never needs to be one.

    The first step looks into the box; when something is there, awaiting costs about as
    much as a function call. Only when nothing is does it begin the coroutine that waits.
    Nothing is taken from the box before the first step, so that one that is dropped or
    cancelled before loses nothing.
    """

    cdef MailboxCore box
    cdef object timeout
    cdef Py_ssize_t most          # 0: one term, else a list
    cdef bint iterating           # the end of the box ends an `async for`
    cdef object waiting           # the coroutine that waits, once there is one
    cdef bint begun, ended

    cdef int step(self, PyObject *value, PyObject **result) except -1:
        if self.waiting is not None:
            return PyIter_Send(self.waiting, value, result)
        if self.ended:
            raise RuntimeError("cannot reuse already awaited coroutine")
        if not self.begun:
            self.begun = True
            self.box.claim()
            if self.box.gives_way(1 if self.most else 16):
                result[0] = <PyObject *>None
                Py_INCREF(None)
                return PYGEN_NEXT
        found = self.box.pop_many(self.most) if self.most else self.box.pop()
        if found is _EMPTY or (self.most and not found):
            self.box.streak = 0
            self.waiting = self.box._receive(self.timeout, self.most, self.iterating)
            return PyIter_Send(self.waiting, value, result)
        self.ended = True
        result[0] = <PyObject *>found
        Py_INCREF(found)
        return PYGEN_RETURN

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        return self.send(None)

    def send(self, value):
        cdef PyObject *result = NULL
        cdef int how = self.step(<PyObject *>value, &result)
        found = <object>result
        Py_DECREF(found)  # the cast took a reference of its own
        if how == PYGEN_NEXT:
            return found
        raise StopIteration(found)

    def throw(self, kind, value=None, trace=None):
        self.begun = self.ended = True
        # Since Python 3.12 throwing in three parts is deprecated, but `yield from` does it.
        if isinstance(kind, BaseException):
            value = kind
        elif not isinstance(value, BaseException):
            value = kind() if value is None else kind(value)
        if trace is not None:
            value = value.with_traceback(trace)
        if self.waiting is not None:
            return self.waiting.throw(value)
        raise value

    def close(self):
        self.begun = self.ended = True
        if self.waiting is not None:
            self.waiting.close()

    @property
    def cr_await(self):
        """What it waits for, as debuggers ask."""
        return None if self.waiting is None else self.waiting.cr_await

    def __dealloc__(self):
        if not self.begun:
            PyErr_WarnEx(RuntimeWarning, b"what Mailbox.receive gave was never awaited", 1)


cdef Receiving receiving(MailboxCore box, object timeout, Py_ssize_t most, bint iterating):
    cdef Receiving made = Receiving.__new__(Receiving)
    made.box = box
    made.timeout = timeout
    made.most = most
    made.iterating = iterating
    return made


cdef int receiving_send(PyObject *self, PyObject *value, PyObject **result) except -1:
    return (<Receiving>self).step(value, result)


# Cython knows no am_send; with it a result needs no StopIteration.
rt_py_set_send(<PyTypeObject *>Receiving, receiving_send)


EVENT_UP = RT_EVENT_UP
EVENT_DOWN = RT_EVENT_DOWN
EVENT_FAILED = RT_EVENT_FAILED
EVENT_REFUSED = RT_EVENT_REFUSED
EVENT_DRAINED = RT_EVENT_DRAINED
EVENT_REGISTERED = RT_EVENT_REGISTERED
EVENT_UNREGISTERED = RT_EVENT_UNREGISTERED
EVENT_OVERFLOW = RT_EVENT_OVERFLOW
EVENT_ACCEPT = RT_EVENT_ACCEPT
ENGINES = {"auto": RT_ENGINE_AUTO, "thread": RT_ENGINE_THREAD, "inline": RT_ENGINE_INLINE}
EPMD_MODES = {"auto": RT_EPMD_AUTO, "none": RT_EPMD_NONE}
OVERFLOWS = {None: RT_OVERFLOW_NONE, "drop": RT_OVERFLOW_DROP, "close": RT_OVERFLOW_CLOSE,
             "pause": RT_OVERFLOW_PAUSE}
CODE_EEXIST = RT_EEXIST
CODE_ENOK = RT_ENOK

include "_registry.pxi"
