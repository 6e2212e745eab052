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
from libc.string cimport memcpy, memmove, memset

rt_py_init(sys.modules[__name__])
Atom = sys.modules[__name__].Atom

from asyncio import CancelledError as _CancelledError  # noqa: E402
from asyncio import Future as _Future  # noqa: E402
from asyncio import Task as _Task  # noqa: E402
from asyncio import _get_running_loop  # noqa: E402
from asyncio import current_task as _current_task  # noqa: E402
from contextvars import copy_context as _copy_context  # noqa: E402

# Before Python 3.12 asyncio's `current_task` is a function in Python, which looks in here.
cdef dict _current_tasks = None
if sys.version_info < (3, 12):
    from asyncio.tasks import _current_tasks

from router import errors  # noqa: E402

cdef extern from "Python.h":
    ctypedef struct PyTypeObject
    Py_ssize_t Py_REFCNT(PyObject *o)
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1
    bint PyCFunction_Check(object o)
    PyObject *PyCFunction_GetSelf(object o) except? NULL
    enum:
        PYGEN_RETURN
        PYGEN_NEXT

cdef enum:
    # How long a receiver that finds work may keep its loop: less than the 5 ms after which the
    # node's own thread takes over, and would read more than the receiver keeps up with.
    TURN_NS = 2_000_000
    SLICE_NS = 10_000             # what a turn of a loop that stays awake waits at most
    WAYS = 256                    # a power of two
    SCRATCH_KEPT_BYTES = 4 << 20  # of the buffer that sends encode into
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

    cpdef list ready(self):
        """The mailboxes that have something, oldest news first."""
        cdef rt_ready *r
        cdef rt_process *p
        cdef list found = []
        while True:
            r = rt_notifier_next(self.ptr)
            if r == NULL:
                return found
            p = <rt_process *>RT_MAILBOX_OF_READY(r)  # the mailbox stands first
            if p.user != NULL:
                found.append(<object>p.user)

    def after_fork(self):
        rt_notifier_after_fork(self.ptr)


cdef bint runs_task(object loop) except -1:
    if _current_tasks is not None:
        return loop in _current_tasks
    return _current_task(loop) is not None


cdef int tell_all(list waits, bint later) except -1:
    """Tells each Wait of its news, and takes it out."""
    cdef Wait waiting
    cdef Py_ssize_t at
    for at in range(len(waits)):
        waiting = <Wait>waits[at]
        waits[at] = None
        if waiting is None:
            pass
        elif later:
            waiting.tell(NEWS)
        else:
            waiting.tell_now(NEWS)
    return 0


cdef class LoopCore:
    """One node on one loop: what runs there when there is news. `_loop.LoopBinding` is the rest."""

    cdef readonly object loop
    cdef readonly Notifier notifier
    cdef readonly object _node    # weak
    cdef public bint drives       # this loop drives the engine
    cdef public bint _attached
    cdef unsigned long looking    # the thread whose `look` runs, or 0
    cdef bint awake               # `_stay_awake` is scheduled
    cdef bint heard               # a peer was, since the loop began to stay awake
    cdef uint64_t awake_until     # ns

    def __cinit__(self, node, loop):
        self.loop = loop
        self._node = weakref.ref(node)
        self.notifier = Notifier()

    def _engine_ready(self):
        self.look(True, 0)

    def _news(self):
        self.look(False, 0)

    cdef int look(self, bint drive, uint64_t busy_ns) except -1:
        """Wakes whoever has something; the notifier is hushed meanwhile.

        What tasks send that go on here is written at its end, and not by the loop's next turn.
        busy_ns: how long to wait for that without sleeping.
        """
        cdef NodeCore node = self._node()
        cdef rt_notifier *notifier = self.notifier.ptr
        cdef LoopFlush flush = None
        cdef bint busy, nested = nests(self.loop)
        cdef list ready = None, waits = None
        cdef MailboxCore box
        cdef Py_ssize_t at
        if node is None:
            self.detach()
            return 0
        busy = node.busy_ns != 0
        try:
            if not nested:
                self.looking = PyThread_get_thread_ident()
                flush = node.loop_flush
                if flush is not None and (flush.scheduled or flush.loop is not self.loop):
                    flush = None
                if flush is not None:
                    flush.turns_in(self.looking)
            if busy_ns and rt_notifier_rung(notifier):
                busy_ns = 0
            rt_notifier_hush(notifier)
            if drive or busy_ns:
                if busy_ns:
                    node.busy_wait(notifier, busy_ns)
                else:
                    node.drive(True)
                rt_notifier_hush(notifier)  # what it brought is seen now, and is no news after
            elif self.drives and node.ptr != NULL:
                rt_node_beat(node.ptr)
            rt_py_let_go()
            ready = self.notifier.ready()
            for at in range(len(ready)):
                box = <MailboxCore>ready[at]
                if box._callback is not None:
                    box._run_callback()
            if node.has_events():
                node._handle_events()
            # Tasks come last: what a callback was told may have cancelled one. And nothing is held
            # for them: one may end the node, and look whether anything is left of it.
            for at in range(len(ready)):
                ready[at] = (<MailboxCore>ready[at]).waiting_on(self.loop)
            ready, waits = None, ready
            node = box = None
            # Two tasks cannot be entered at once, and somebody may run a loop within one.
            tell_all(waits, nested or (waits and runs_task(self.loop)))
        finally:
            self.looking = 0
            if flush is not None:
                flush.turn_ends()
            # After an interrupt in a callback the loop may run on, in a notebook for one.
            if ready is not None:
                for box in ready:
                    self.loop.call_soon(box._on_ready)
            if waits is not None:
                tell_all(waits, True)
            if rt_notifier_rest(notifier) and self._attached:
                self.loop.call_soon(self._news)
            if busy:
                node = self._node()
                if node is not None:
                    self.expect(node)
        return 0

    cdef int expect(self, NodeCore node) except -1:
        """A peer that was heard may be heard again soon: the loop stays awake for a while."""
        if self.drives and self._attached and node.ptr != NULL and rt_node_expects(node.ptr):
            self.heard = True
            self.stay_awake()
        return 0

    cdef int stay_awake(self) except -1:
        if not self.awake:
            self.loop.call_soon(self._stay_awake)
            self.awake = True
        return 0

    def _stay_awake(self):
        """Runs once a turn, so that the loop does not sleep, and looks for what comes next.

        One turn waits for a slice of the time alone: another socket, a timer or a call from
        another thread, of which nothing is known here, is no later than that.
        """
        cdef NodeCore node = self._node()
        cdef LoopFlush flush
        cdef uint64_t now
        self.awake = False
        if node is None or node.ptr == NULL or not self.drives or not self._attached:
            return
        flush = node.loop_flush
        if flush is not None and flush.scheduled and flush.loop is self.loop:
            self.stay_awake()  # first what the peer may answer is written
            return
        now = rt_now()
        if self.heard:
            self.heard = False
            self.awake_until = now + node.busy_ns
            self.stay_awake()  # first whatever else is ready now
        elif now < self.awake_until:
            self.look(False, min(self.awake_until - now, <uint64_t>SLICE_NS))
            self.stay_awake()
        else:
            rt_node_give_up(node.ptr)


cdef bint nests(object loop) except -1:
    """Whether the loop may run within a callback of its own: nest_asyncio, for notebooks, lets it.

    A callback that has not returned is not called again, so no task may go on in one.
    """
    return getattr(loop, "_nest_patched", False)


@cython.final
cdef class LoopFlush:
    """Flushes a node at the end of the turn of the loop that drives it."""

    cdef object loop
    cdef object node              # weak
    cdef bint scheduled
    cdef bint turning             # within `look`, whose end is the turn's
    cdef unsigned long thread     # where the loop ran last

    def __cinit__(self, loop, node_ref):
        self.loop = loop
        self.node = node_ref
        self.thread = PyThread_get_thread_ident()

    cdef inline bint here(self) except -1:
        """True when the caller runs on that loop, so that its turn will end.

        Asking asyncio costs a system call (it compares process ids), so it is asked
        once a turn.
        """
        if self.thread != PyThread_get_thread_ident():
            return False
        return self.scheduled or self.turning or _get_running_loop() is self.loop

    cdef inline int schedule(self) except -1:
        if not self.scheduled:
            if not self.turning:
                self.loop.call_soon(self._run)
            self.scheduled = True
        return 0

    cdef void turns_in(self, unsigned long thread) noexcept:
        self.turning = True
        self.thread = thread

    cdef int turn_ends(self) except -1:
        self.turning = False
        if self.scheduled:
            self._run()
        return 0

    def _run(self):
        self.scheduled = False
        self.thread = PyThread_get_thread_ident()
        node = self.node()
        if node is not None:
            (<NodeCore>node).paced = 0
            (<NodeCore>node)._flush()


def calls_directly(cls):
    """Decorates a subclass of NodeCore or MailboxCore: what is called for each message costs there
    what it costs in the base. Else a method in C is called after a walk through the bases, and
    `async for` looks its own up by name.
    """
    if not issubclass(cls, (NodeCore, MailboxCore)):
        raise TypeError(f"a subclass of NodeCore or MailboxCore, not {cls!r}")
    of_box = issubclass(cls, MailboxCore)
    for name in ("receive", "receive_many") if of_box else ("send", "send_many"):
        rt_py_own_method(cls, name)
    if of_box:
        rt_py_inherit_anext(<PyTypeObject *>cls)
    return cls


include "_node.pxi"
include "_sending.pxi"
include "_mailbox.pxi"
include "_receiving.pxi"
include "_registry.pxi"
