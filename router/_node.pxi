# Part of _core.pyx: a node of the C core, and its peers.

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

cdef class BareNode:
    """A node of the C core that sends nothing: its life, who drives it, its peers, its processes."""

    cdef rt_node *ptr
    cdef rt_route *route
    cdef bint is_running
    cdef bint inline              # no thread looks after what a program leaves lying
    cdef bint forked
    cdef uint64_t busy_ns         # how long its loop stays awake after a peer was heard
    cdef bint credit              # the next send may write at once
    cdef uint64_t paced           # when `_paced` was asked first in this turn; ns
    cdef uint64_t references
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
        self.credit = True

    def _open(self, str name, bytes cookie, *, bint hidden, bint relay, int engine, int threads,
              uint32_t busy_wait_ns, int poller, int epmd, int epmd_port, bint epmd_any,
              double net_ticktime, listen, dict limits, codec):
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

    cdef int drive(self, bint told) except -1:
        """told: by the engine's descriptor, which is readable."""
        if self.ptr == NULL:
            return 0
        with nogil:
            rt_node_drive(self.ptr, told)
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
        self.drive(False)

    def _wait(self, Notifier notifier, double seconds):
        """Blocks until the notifier has news; False on time-out. Negative: for ever."""
        cdef uint64_t ns = <uint64_t>-1 if seconds < 0 else <uint64_t>(seconds * 1e9)
        cdef rt_notifier *n = notifier.ptr
        cdef int rc
        if self.ptr == NULL:
            raise errors.RouterError("the node is closed")
        with nogil:
            rc = rt_node_wait(self.ptr, n, ns)
        rt_py_let_go()
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
            rt_py_let_go()
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
