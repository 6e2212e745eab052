# Part of _core.pyx: mailboxes, their signals, and their end.

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
    cdef LoopCore binding         # of the loop that received last
    cdef bint pausing             # overflow="pause": peers may be held back for this box
    cdef object spare             # a Receiving that has given something, or None
    cdef readonly Wait _waiter    # of a receiver that waits, or None
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
        """What the message says, which is freed."""
        cdef size_t used
        cdef PyObject *term = rt_py_decode_or_null(self.codec, rt_message_data(m), m.n, &used)
        if term == NULL:
            return self.decode_refused(m)
        rt_message_free(m)
        found = <object>term
        Py_DECREF(found)  # the cast took a reference of its own
        return found

    cdef object decode_refused(self, rt_message *m):
        """A message that the codec has refused: raises that unless it is a signal, which is told
        all the same. Frees it."""
        cdef size_t used
        self.refuse(m)
        try:
            return rt_py_decode(None, rt_message_data(m), m.n, &used)
        finally:
            rt_message_free(m)

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

    cdef bint gives_way(self, unsigned looks) except -1:
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

    @cython.binding(False)
    @cython.embedsignature(True)
    @cython.embedsignature.format("clinic")
    def receive(self, timeout=None):
        """The next term.

        timeout: seconds. Raises TimeoutError; ExitSignal when the box is closed
        and empty; DecodeError, once, for a term the codec refuses; RuntimeError
        when somebody else is receiving. Cancelling loses no message.
        """
        return receiving(self, timeout, 0, False)

    @cython.binding(False)
    @cython.embedsignature(True)
    @cython.embedsignature.format("clinic")
    def receive_many(self, Py_ssize_t max=1024, timeout=None):
        """At least one and at most `max` terms, as many as are there; else like `receive`.

        A list that is let go of (`del`) before the next is asked for leaves warm memory to it.
        """
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
        m = rt_process_pop(self.node.route.registry, self.ptr)
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
        codec = self.codec
        if self.failed is not None:
            failed, self.failed = self.failed, None
            raise failed
        self.alive()
        try:
            while count < most:
                m = rt_process_pop(self.node.route.registry, self.ptr)
                if m == NULL:
                    break
                # As `decode` does, in fewer calls: small messages are most of what comes.
                if rt_py_decode_append(codec, rt_message_data(m), m.n, found) < 0:
                    found.append(self.decode_refused(m))
                else:
                    rt_message_free(m)
                count += 1
        except BaseException as e:
            if not found:
                raise
            self.failed = e
        finally:
            if self.pausing:
                rt_node_consumed(self.node.ptr, self.ptr)
        return found

    cdef bint arm(self) except -1:
        """False when something is there already, or the box is closed."""
        if self.failed is not None:
            return False
        self.alive()
        return rt_mailbox_arm(&self.ptr.mailbox)

    def _arm(self):
        return self.arm()

    cdef int bind(self, Notifier notifier) except -1:
        if self.bound is not notifier:
            self.alive()
            rt_mailbox_bind(&self.ptr.mailbox, notifier.ptr)
            self.bound = notifier
        return 0

    def _bind(self, Notifier notifier):
        self.bind(notifier)

    cdef int attach(self, object loop) except -1:
        """News of this box go to that loop, the running one."""
        cdef LoopCore binding = self.binding
        # Else the node looks whether that loop, or the one that drives it, is closed.
        if binding is None or binding.loop is not loop or not binding._attached or not binding.drives:
            self.binding = self._attach(loop)
        else:
            self.bind(binding.notifier)
        return 0

    def _on_ready(self):
        """Called on the loop when the box has news."""
        cdef Wait waiting
        if self._callback is not None:
            self._run_callback()
        waiting = self.waiting_on(_get_running_loop())
        if waiting is not None:
            waiting.tell(NEWS)

    cdef Wait waiting_on(self, object loop):
        """Who waits on that loop, or None: another loop is told for itself."""
        cdef Wait waiting = self._waiter
        return waiting if waiting is not None and waiting.loop is loop else None

    def _wake_soon(self):
        """From any thread: a receiver that waits on its loop looks again."""
        waiting = self._waiter
        if waiting is not None:
            waiting.loop.call_soon_threadsafe(self._on_ready)

    @property
    def waiting(self):
        """How many messages wait, at this moment."""
        return rt_mailbox_count(&self.ptr.mailbox) if self.node.ptr != NULL else 0

    @property
    def waiting_bytes(self):
        """How many bytes the waiting messages take in external form; looks at each of them."""
        return rt_mailbox_waiting_bytes(&self.ptr.mailbox) if self.node.ptr != NULL else 0

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
        """Ends an alias of this process. True when it stood; False when it is another's."""
        if not rt_py_is_ref(ref):
            raise TypeError(f"unalias takes a Reference, not {type(ref).__name__}")
        if self.node.ptr == NULL:
            return False
        cdef rt_slice found = self.bytes_of(ref)
        cdef rt_relations *relations = self.node.route.relations
        return (rt_relations_find_ref(relations, RT_REL_ALIAS, found) == self.local
                and rt_relations_remove_ref(relations, RT_REL_ALIAS, found, NULL) == RT_OK)

    def _watch_nodes(self, bint on):
        self.node.need()
        check(rt_node_watch(self.node.ptr, self.local, on), "cannot watch nodes")

    def _take_spawn_requests(self, bint on=True):
        """From now on peers' spawn requests arrive here as messages, or are refused again."""
        self.node.need()
        rt_route_set_spawner(self.node.route, self.local if on else 0)

    def _multicast(self):
        """From now on what peers send here as a multicast goes to the processes it names."""
        self.node.need()
        rt_route_set_multicaster(self.node.route, self.local)

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
