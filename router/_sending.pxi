# Part of _core.pyx: what a node sends.

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


cdef bytes taken(PyObject *new):
    """What C gave a new reference to."""
    found = <bytes>new
    Py_DECREF(found)  # the cast took a reference of its own
    return found


cdef class NodeCore(BareNode):
    """A node of the C core; router.Node is its public face."""

    cdef rt_buf scratch
    cdef bint scratch_busy
    cdef size_t large             # bytes of the last message that took the scratch with it
    cdef uint64_t credit_turn     # the turn in which the direct write was used up
    cdef list ways                # WAYS of them or None, by the address of the destination
    cdef uint64_t ways_made

    def __cinit__(self, *args, **kwargs):
        self.ways = [None] * WAYS

    def __dealloc__(self):
        rt_buf_fini(&self.scratch)

    def _identify(self):
        BareNode._identify(self)
        self.ways = [None] * WAYS

    def _connect_held(self, Peer peer):
        """Overridden: begins to connect to a peer that `_hold` made connecting."""
        raise NotImplementedError

    cdef int reach(self, Peer peer) except -1:
        """Makes sure that something queued for the peer has a connection to wait for."""
        if rt_peer_state_of(peer.ptr) == RT_PEER_IDLE and self._hold(peer):
            self._connect_held(peer)
        return 0

    @cython.final
    cdef inline rt_buf *take_scratch(self, rt_buf *own) noexcept:
        rt_py_let_go()
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
    cdef void empty(self, rt_buf *b) noexcept:
        b.n = 0
        if b.p == NULL:
            self.refill(b)

    @cython.final
    cdef inline void give_scratch(self, rt_buf *b) noexcept:
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
        cdef LoopFlush flush = self.loop_flush
        cdef unsigned how = self.who_writes(flush, alone)
        cdef int rc = rt_node_send(self.ptr, peer.ptr, frames, lead, how, own)
        if rc == RT_ENOTCONN:
            rc = self.connect_and_send(peer, frames, lead, how, own)
        if own != NULL and own.p == NULL:
            self.large = frames.n
        return self.queued(peer, rc, how, flush)

    @cython.final
    cdef int put_apart(self, Way way, rt_buf *b, size_t at, bytes data, bint alone) except -1:
        """The same for one frame that is not ended and lacks its lead, and what belongs at `at`."""
        cdef LoopFlush flush = self.loop_flush
        cdef unsigned how = self.who_writes(flush, alone)
        cdef rt_body body
        cdef int rc
        way.write(b.p)
        body.at = at
        body.p = <const uint8_t *><char *>data
        body.n = len(data)
        body.shared = rt_py_apart_share(data)
        rc = rt_node_send_body(self.ptr, way.peer.ptr, rt_slice_of(b.p, b.n), &body, how)
        rt_shared_rele(body.shared)
        if rc != RT_AGAIN and rc != RT_ENOTCONN and rc != RT_ELIMIT:
            return self.queued(way.peer, rc, how, flush)
        rt_py_apart_insert(b, at, data)
        self.end(b, 0)
        return self.put(way.peer, rt_slice_of(b.p, b.n), way.lead, alone, b)

    @cython.final
    cdef unsigned who_writes(self, LoopFlush flush, bint alone) except 255:
        cdef unsigned how = 0
        if alone:
            if not self.credit and flush is None and rt_node_turns(self.ptr) != self.credit_turn:
                self.credit = True
            if self.credit:
                how = RT_SEND_DIRECT
        if flush is None or not flush.here():
            how |= RT_SEND_WAKE
        return how

    @cython.final
    cdef int queued(self, Peer peer, int rc, unsigned how, LoopFlush flush) except -1:
        """Takes note of what was queued, or raises what was not."""
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
    cdef inline int join(self, Way way, rt_slice payload) except -1:
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
    cdef inline Way way_to(self, object dest, object sender):
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
    cdef inline int lead(self, rt_buf *b, Way way) except -1:
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
    cdef inline int send_one(self, object dest, object term, object sender) except -1:
        cdef rt_buf own
        cdef rt_buf *b = self.take_scratch(&own)
        cdef Way way
        cdef rt_py_apart apart
        try:
            way = self.way_to(dest, sender)
            if way is None:
                return self.send_here(dest, [term], b)
            self.lead(b, way)
            rt_py_encode_apart(self.codec, term, b, &apart)
            if apart.bytes != NULL:
                return self.put_apart(way, b, apart.at, taken(apart.bytes), True)
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
        cdef rt_py_apart apart
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
                    rt_py_encode_apart(self.codec, term, b, &apart)
                    if apart.bytes != NULL:
                        data = taken(apart.bytes)
                        whole, start = start, 0
                        if whole > 0:
                            self.put(way.peer, rt_slice_of(b.p, whole), way.lead, False, NULL)
                        memmove(b.p, b.p + whole, b.n - whole)
                        b.n -= whole
                        self.put_apart(way, b, apart.at - whole, data, False)
                        self.empty(b)
                        continue
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
                    self.empty(b)
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

    @cython.binding(False)
    @cython.embedsignature(True)
    @cython.embedsignature.format("clinic")
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

    @cython.binding(False)
    @cython.embedsignature(True)
    @cython.embedsignature.format("clinic")
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
