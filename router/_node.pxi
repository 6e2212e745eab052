# Part of _core.pyx: a node of the C core, its peers, and what it sends.

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
    cdef bytes head
    cdef rt_lead lead

    cdef void write(self, uint8_t *p) noexcept:
        memcpy(p, <char *>self.head, self.lead.n)


def poller_missing(int poller):
    """None, or why there is no such poller here: (errno, or 0 if it was not built in; text)."""
    cdef int rc = rt_poller_usable(poller)
    cdef int sys = errno if rc == RT_ESYS else _errno.ENOMEM
    if rc == RT_OK:
        return None
    if rc == RT_EINVAL:
        sys = 0
        why = "this router was built without it: build it where liburing-dev is installed"
    elif sys in (_errno.EPERM, _errno.EACCES):
        why = "the system forbids it (sysctl kernel.io_uring_disabled, or a container's seccomp)"
    elif sys in (_errno.EINVAL, _errno.ENOSYS):
        why = "the kernel has none, or it is older than Linux 6.1"
    else:
        why = os.strerror(sys)
    return sys, f"poller='io_uring' cannot be had: {why}; poller='epoll' is there always"


cdef class NodeCore:
    """A node of the C core; router.Node is its public face."""

    cdef rt_node *ptr
    cdef rt_route *route
    cdef rt_buf scratch
    cdef bint scratch_busy
    cdef size_t large             # bytes of the last message that took the scratch with it
    cdef bint is_running
    cdef bint inline              # no thread looks after what a program leaves lying
    cdef bint forked
    cdef uint64_t busy_ns         # how long its loop stays awake after a peer was heard
    cdef uint64_t credit_turn     # the turn in which the direct write was used up
    cdef bint credit
    cdef uint64_t paced           # when `_paced` was asked first in this turn; ns
    cdef uint64_t references
    cdef list ways                # WAYS of them or None, by the address of the destination
    cdef uint64_t ways_made
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
        self.ways = [None] * WAYS
        self.credit = True

    def _open(self, str name, bytes cookie, *, bint hidden, bint relay, int engine, int threads,
              uint32_t busy_wait_ns, int poller, int epmd, int epmd_port, bint epmd_any, double net_ticktime, listen,
              dict limits, codec):
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
        c.threads = threads
        c.busy_wait_ns = self.busy_ns = busy_wait_ns
        c.poller = poller
        self.inline = engine == RT_ENGINE_INLINE
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
        self.ways = [None] * WAYS

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

    cdef int drive(self) except -1:
        if self.ptr == NULL:
            return 0
        with nogil:
            rt_node_drive(self.ptr)
        self.credit = True
        self.paced = 0
        return 0

    cdef int busy_wait(self, rt_notifier *notifier, uint64_t ns) except -1:
        """Drives without sleeping until a peer was heard, the notifier has news, or `ns` passed."""
        if self.ptr == NULL:
            return 0
        with nogil:
            rt_node_busy_wait(self.ptr, notifier, ns)
        self.credit = True
        self.paced = 0
        return 0

    def _drive(self):
        self.drive()

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
        cdef LoopFlush before = self.loop_flush
        self.loop_flush = flush
        if before is not None and before.scheduled:
            self._flush()  # that loop may have ended before its turn did

    def _promise(self, int more):
        if self.ptr != NULL:
            rt_node_promise(self.ptr, more)

    def _flush(self):
        if self.ptr != NULL:
            rt_node_flush(self.ptr)
            self.credit = True

    def _paced(self, loop):
        """Whether who drains on that loop should let it turn. Writes what nobody else will soon."""
        cdef LoopFlush flush = self.loop_flush
        cdef uint64_t now = rt_now()
        if (flush is None or flush.loop is not loop or not flush.scheduled or self.inline) \
                and self.ptr != NULL:
            rt_node_flush(self.ptr)  # the next send is not the first of a turn all the same
        if self.paced == 0:
            self.paced = now
        elif now - self.paced > TURN_NS:
            self.paced = 0
            return True
        return False

    def _listen_events(self, Notifier notifier):
        check(rt_events_listen(rt_node_events(self.ptr), notifier.ptr), "cannot listen")

    def _ignore_events(self, Notifier notifier):
        if self.ptr != NULL:
            rt_events_ignore(rt_node_events(self.ptr), notifier.ptr)

    def _events_dropped(self):
        """How many events found no room since this was asked last."""
        return rt_events_dropped(rt_node_events(self.ptr)) if self.ptr != NULL else 0

    cdef bint has_events(self) noexcept:
        return self.ptr != NULL and rt_events_any(rt_node_events(self.ptr))

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

    def _above_soft(self, name):
        """Whether more than `queue_bytes_soft` wait for that peer; None: for any."""
        cdef uint32_t i
        cdef rt_peer *p
        cdef bytes raw
        if self.ptr == NULL:
            return False
        cdef size_t soft = self.route.limits.queue_bytes_soft
        if name is not None:
            raw = name.encode()
            p = rt_peers_find(self.route.peers, rt_slice_of(<const uint8_t *>raw, len(raw)))
            return p != NULL and rt_peer_above(p, soft)
        for i in range(rt_peers_count(self.route.peers)):
            if rt_peer_above(rt_peers_at(self.route.peers, i + 1), soft):
                return True
        return False

    # sending --------------------------------------------------------------

    def _connect_held(self, Peer peer):
        """Overridden: begins to connect to a peer that `_hold` made connecting."""
        raise NotImplementedError

    cdef int reach(self, Peer peer) except -1:
        """Makes sure that something queued for the peer has a connection to wait for."""
        if rt_peer_state_of(peer.ptr) == RT_PEER_IDLE and self._hold(peer):
            self._connect_held(peer)
        return 0

    @cython.final
    cdef rt_buf *take_scratch(self, rt_buf *own) noexcept:
        # An encoder hook may call back into send: the second one in has its own buffer.
        if self.scratch_busy:
            memset(own, 0, sizeof(rt_buf))
            return own
        self.scratch_busy = True
        self.scratch.n = 0
        if self.scratch.p == NULL and self.large:
            self.refill(&self.scratch)
        return &self.scratch

    @cython.final
    cdef void refill(self, rt_buf *b) noexcept:
        """Memory that a large message gave back, for the next one like it."""
        b.n = 0
        b.p = <uint8_t *>rt_pool_take(rt_peers_pool(self.route.peers), self.large, &b.cap)

    @cython.final
    cdef void give_scratch(self, rt_buf *b) noexcept:
        if b != &self.scratch:
            rt_buf_fini(b)
            return
        self.scratch_busy = False
        if b.cap > SCRATCH_KEPT_BYTES:  # a large message must not pin its size for ever
            rt_pool_give(rt_peers_pool(self.route.peers), b.p, b.cap)
            memset(b, 0, sizeof(rt_buf))

    @cython.final
    cdef int put(self, Peer peer, rt_slice frames, rt_lead lead, bint alone, rt_buf *own) except -1:
        """Queues whole frames with the same lead; writes them or sees that somebody does.

        own: NULL, or the buffer of one frame, which may be taken: it is empty then.
        """
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
        rc = rt_node_send(self.ptr, peer.ptr, frames, lead, how, own)
        if rc == RT_ENOTCONN:
            rc = self.connect_and_send(peer, frames, lead, how, own)
        if own != NULL and own.p == NULL:
            self.large = frames.n
        if how & RT_SEND_DIRECT:
            self.credit = False
            self.credit_turn = rt_node_turns(self.ptr)
        if rc == 1:
            flush.schedule()
        elif rc < 0:
            self.not_sent(peer, rc)
        return 0

    @cython.final
    cdef int connect_and_send(self, Peer peer, rt_slice frames, rt_lead lead, unsigned how,
                              rt_buf *own) except -1000:
        # The frames are queued before the attempt begins: one that fails at once then
        # counts them as lost like any other. Another thread's attempt may have failed.
        cdef int rc = RT_ENOTCONN
        for _ in range(100):
            held = self._hold(peer)
            rc = rt_node_send(self.ptr, peer.ptr, frames, lead, how, own)
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

    @cython.final
    cdef int join(self, Way way, rt_slice payload) except -1:
        """Whether a message joined the last frame that this turn gathered: its lead is the same."""
        cdef LoopFlush flush = self.loop_flush
        cdef int rc
        if flush is None or self.credit or not flush.here():
            return False
        rc = rt_node_join(self.ptr, way.peer.ptr, way.lead, payload)
        if rc == 1:
            flush.schedule()
        return rc >= 0

    @cython.final
    cdef Way way_to(self, object dest, object sender):
        """What leads a frame to dest; None when dest is of this node or unusable."""
        cdef size_t at = (<size_t><void *>dest >> 4 ^ <size_t><void *>dest >> 12) & (WAYS - 1)
        cdef Way way = <Way>self.ways[at]
        if way is None or way.dest is not dest or way.sender is not sender:
            way = <Way>self.ways[at ^ 1]  # each has two places
            if way is None or way.dest is not dest or way.sender is not sender:
                way = self.new_way(dest, sender)
                if way is not None:
                    self.ways[at ^ 1] = self.ways[at]
                    self.ways[at] = way
        return way

    cdef Way new_way(self, object dest, object sender):
        cdef Way way
        cdef rt_buf b
        if rt_py_is_pid(dest) or rt_py_is_ref(dest):
            node = dest.node
        elif (isinstance(dest, tuple) and len(dest) == 2 and isinstance(dest[0], str)
                and isinstance(dest[1], str)):
            node = dest[1]
        else:
            return None
        if node == self.name:
            return None
        way = Way.__new__(Way)
        way.peer = self.find_peer(node)
        memset(&b, 0, sizeof(b))
        try:
            self.write_head(&b, dest, sender)
            way.head = (<char *>b.p)[:b.n]
        finally:
            rt_buf_fini(&b)
        self.ways_made += 1
        way.lead.n = len(way.head)
        way.lead.number = self.ways_made
        way.dest = dest
        way.sender = sender
        return way

    @cython.final
    cdef int lead(self, rt_buf *b, Way way) except -1:
        """Leaves room in an empty buffer for the lead of a frame, unwritten."""
        check(rt_buf_reserve(b, way.lead.n + 64), "cannot send")
        b.n = way.lead.n
        return 0

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

    @cython.final
    cdef int end(self, rt_buf *b, size_t start) except -1:
        """The frame that began at `start` is complete."""
        if rt_outbound_end(b, start, &self.route.limits) == RT_ELIMIT:
            n = b.n - start
            b.n = start
            raise errors.EncodeError(f"the message has {n} bytes; the limit message_bytes_max is "
                                     f"{self.route.limits.message_bytes_max}")
        return 0

    @cython.final
    cdef int send_one(self, object dest, object term, object sender) except -1:
        cdef rt_buf own
        cdef rt_buf *b = self.take_scratch(&own)
        cdef Way way
        try:
            way = self.way_to(dest, sender)
            if way is None:
                return self.send_here(dest, [term], b)
            self.lead(b, way)
            rt_py_encode(self.codec, term, b)
            if self.join(way, rt_slice_of(b.p + way.lead.n, b.n - way.lead.n)):
                return 0
            way.write(b.p)
            self.end(b, 0)
            return self.put(way.peer, rt_slice_of(b.p, b.n), way.lead, True, b)
        finally:
            self.give_scratch(b)

    def _send_where_up(self, object dest, object term, object sender):
        """Like `send`, but makes no connection: erlang:send's `noconnect`."""
        cdef rt_buf own
        cdef rt_buf *b
        cdef Way way
        cdef int rc
        self.need()
        b = self.take_scratch(&own)
        try:
            sender = self.sender_pid(sender)
            way = self.way_to(dest, sender)
            if way is None:
                self.send_here(dest, [term], b)
                return
            self.lead(b, way)
            rt_py_encode(self.codec, term, b)
            way.write(b.p)
            self.end(b, 0)
            rc = rt_node_send(self.ptr, way.peer.ptr, rt_slice_of(b.p, b.n), way.lead,
                              RT_SEND_WAKE, NULL)
            if rc < 0 and rc != RT_ENOTCONN:
                self.not_sent(way.peer, rc)
        finally:
            self.give_scratch(b)

    @cython.final
    cdef int send_list(self, object dest, list terms, object sender) except -1:
        """Queues many frames at once: a queue's lock costs more than a small frame."""
        cdef rt_buf own
        cdef rt_buf *b = self.take_scratch(&own)
        cdef Way way
        cdef size_t start = 0, whole
        try:
            way = self.way_to(dest, sender)
            if way is None:
                return self.send_here(dest, terms, b)
            try:
                for term in terms:
                    check(rt_buf_reserve(b, way.lead.n), "cannot send")
                    way.write(b.p + start)
                    b.n = start + way.lead.n
                    rt_py_encode(self.codec, term, b)
                    self.end(b, start)
                    if b.n < BATCH_BYTES:
                        start = b.n
                        continue
                    # One that will be cut into fragments is queued alone.
                    whole = start if b.n - start > RT_FRAGMENT_BYTES else b.n
                    start = 0
                    if whole > 0:
                        self.put(way.peer, rt_slice_of(b.p, whole), way.lead, False, NULL)
                    if whole < b.n:
                        self.put(way.peer, rt_slice_of(b.p + whole, b.n - whole), way.lead, False, b)
                    b.n = 0
                    if b.p == NULL:
                        self.refill(b)
            finally:
                if start > 0:
                    self.put(way.peer, rt_slice_of(b.p, start), way.lead, False, NULL)
            return 0
        finally:
            self.give_scratch(b)

    cdef int send_local(self, rt_pid to, list terms, rt_buf *b) except -1:
        """Encoded and decoded like a remote message: a snapshot."""
        for term in terms:
            b.n = 0
            rt_py_encode(self.codec, term, b)
            self.post(to, rt_slice_of(b.p, b.n))
        return 0

    cdef int post(self, rt_pid to, rt_slice term) except -1:
        cdef int rc
        cdef rt_process *p = rt_registry_lookup(self.route.registry, to)
        if p != NULL and rt_node_box_full(p):
            raise errors.BufferFull(
                "the mailbox is at its limit (overflow='pause'); nothing was queued")
        rc = rt_route_post(self.route, to, term)
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
            self.spend_credit()

    cdef int spend_credit(self) except -1:
        """Writes what was queued at once, if this is the first that is sent in this turn."""
        if self.credit and self.ptr != NULL:
            rt_node_flush(self.ptr)
            self.credit = False
            self.credit_turn = rt_node_turns(self.ptr)
        return 0

    # one term to many -------------------------------------------------------

    def _canonical(self, pids):
        """The external terms of pids, one after the other."""
        cdef size_t n
        cdef const uint8_t *p
        cdef list parts = []
        for pid in pids:
            p = rt_py_ident_bytes(pid, &n)
            parts.append(p[:n])
        return b"".join(parts)

    def _broadcast(self, pids, casts, term, sender):
        """Sends `term`, encoded once, to each of `pids`, and along `casts`.

        A cast: (the multicaster of a router node, by name, processes there, these as
        `_canonical` has them, how many bytes its copies may take together). To how many it was sent; raises
        BufferFull when all others have it.
        """
        cdef rt_buf body
        cdef bytes members
        cdef Py_ssize_t sent = 0, at, count, most, size
        if not self.is_running:
            self.need()
        sender = self.sender_pid(sender)
        memset(&body, 0, sizeof(body))
        full = None
        direct = list(pids)
        try:
            rt_py_encode(self.codec, term, &body)
            fits = casts and rt_multicast_fits(rt_slice_of(body.p, body.n),
                                               self.route.limits.term_depth_max)
            for to, there, members, bytes_max in casts:
                most = bytes_max // (body.n + RT_MULTICAST_COPY_BYTES)
                if most < 2 or not fits:
                    direct += there
                    continue
                size = len(members) // len(there)  # of one node: all have the same
                for at in range(0, len(there), most):
                    count = min(most, len(there) - at)
                    try:
                        self.send_copy(to, rt_slice_of(<const uint8_t *>members + at * size,
                                                       count * size), <uint32_t>count, &body, sender)
                        sent += count
                    except errors.BufferFull as e:
                        full = e
            for to in direct:
                try:
                    self.send_copy(to, rt_slice_of(NULL, 0), 0, &body, sender)
                    sent += 1
                except errors.BufferFull as e:
                    full = e
        finally:
            rt_buf_fini(&body)
            self.spend_credit()
        if full is not None:
            raise errors.BufferFull(f"{sent} of the group have it; the others: {full}") from full
        return sent

    cdef int send_copy(self, object to, rt_slice members, uint32_t count, rt_buf *body,
                       object sender) except -1:
        cdef rt_buf own
        cdef rt_buf *b = self.take_scratch(&own)
        cdef rt_slice ident
        cdef rt_pid local
        cdef Way way
        try:
            way = self.way_to(to, sender)
            if way is None:
                ident.p = rt_py_ident_bytes(to, &ident.n)
                if rt_route_local(self.route, ident, &local) < 0:
                    rt_route_undeliverable(self.route, 1)
                    return 0
                return self.post(local, rt_slice_of(body.p, body.n))
            self.lead(b, way)
            way.write(b.p)
            if count:
                check(rt_multicast_put(b, members, count), "cannot send")
            check(rt_buf_put(b, body.p, body.n), "cannot send")
            self.end(b, 0)
            return self.put(way.peer, rt_slice_of(b.p, b.n), RT_LEAD_NONE, False, b)
        finally:
            self.give_scratch(b)

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
