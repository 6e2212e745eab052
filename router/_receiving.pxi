# Part of _core.pyx: what `await box.receive()` awaits.

cdef enum:
    WAITS
    NEWS
    TIME_IS_UP
    CANCELLED


class _Nowhere:
    """The loop of a future that nobody waits for."""

    def get_debug(self):
        return False


# A task asks what wakes it for a result, and then goes on. Of a future of asyncio's own it reads that
# directly; a Wait is asked by name, through text that is made for it each time.
cdef object _DONE = _Future(loop=_Nowhere())
_DONE.set_result(None)


cdef bint wakes_task(object callback) except -1:
    """Whether it is a method of asyncio's tasks, those in C: how one in Python asks is its own affair."""
    cdef PyObject *task = PyCFunction_GetSelf(callback) if PyCFunction_Check(callback) else NULL
    return task != NULL and isinstance(<object>task, _Task)


@cython.final
@cython.freelist(16)
cdef class Wait:
    """What a receiver's task waits for: as far as asyncio can tell, a future.

    A future that is resolved has its loop call the task in its next turn. News are told in a
    callback of the loop already, where no task runs, so the task goes on there and then.
    """

    cdef object loop
    cdef int state                # WAITS, NEWS, TIME_IS_UP or CANCELLED
    cdef object callback          # the task's, which awaits this
    cdef object context           # in which it wants to be called
    cdef object message           # of the CancelledError, or None
    cdef public bint _asyncio_future_blocking
    cdef object __weakref__

    cdef int tell_now(self, int state) except -1:
        """Called on the loop, in a callback of its own where no task runs: the task goes on."""
        if self.state != WAITS:
            return 0
        self.state = state
        if self.callback is None:
            return 0
        try:
            PyContext_Enter(self.context)
        except RuntimeError:  # whoever runs the loop is in it
            return self.call_soon()
        callback, context = self.callback, self.context
        self.callback = self.context = None
        try:
            callback(_DONE if wakes_task(callback) else self)
        finally:
            PyContext_Exit(context)
        return 0

    cdef int tell(self, int state) except -1:
        """The same: the task goes on in the loop's next turn."""
        if self.state == WAITS:
            self.state = state
            self.call_soon()
        return 0

    cdef int call_soon(self) except -1:
        callback, context = self.callback, self.context
        if callback is not None:
            self.callback = self.context = None
            self.loop.call_soon(callback, self, context=context)
        return 0

    cdef bint outcome(self) except -1:
        """True for news, False when the time is up."""
        if self.state == WAITS:
            raise RuntimeError("await wasn't used with a task")
        if self.state == CANCELLED:
            raise _CancelledError() if self.message is None else _CancelledError(self.message)
        return self.state == NEWS

    # What a task asks of a future.

    def get_loop(self):
        return self.loop

    def add_done_callback(self, callback, *, context=None):
        if self.callback is not None:
            raise RuntimeError("a task waits for this already")
        self.callback = callback
        self.context = _copy_context() if context is None else context
        if self.done():
            self.call_soon()

    def done(self):
        return self.state != WAITS

    def cancelled(self):
        return self.state == CANCELLED

    def cancel(self, msg=None):
        if self.state != WAITS:
            return False
        self.message = msg
        self.tell(CANCELLED)
        return True

    def result(self):
        return self.outcome()


# What is dropped while it waits must still find its box: the collector takes nothing away first.
@cython.final
@cython.no_gc_clear
@cython.freelist(16)
cdef class Receiving:
    """What `receive` gives: an awaitable with a coroutine's methods.

    Each step looks into the box; when something is there, awaiting costs about as much as a
    function call. When nothing is, it waits for a future that the box's next news resolve.
    Nothing is taken from the box before a step, so that one that is dropped or cancelled
    loses nothing. One that has given something is kept by its box for the next time.
    """

    cdef MailboxCore box          # None once it has given something
    cdef object timeout
    cdef Py_ssize_t most          # 0: one term, else a list
    cdef bint iterating           # the end of the box ends an `async for`
    cdef Wait waiting             # of the box, while this waits; else None
    cdef object deadline          # in loop time, once there is one
    cdef object timer
    cdef bint begun, ended

    cdef int step(self, PyObject *value, PyObject **result) except -1:
        cdef bint first, news
        if self.ended:
            raise RuntimeError("cannot reuse already awaited coroutine")
        try:
            if self.waiting is not None:
                news = self.waiting.outcome()
                self.rest()
                if not news:
                    raise TimeoutError(f"no message within {self.timeout} s")
                self.box.claim()
            else:
                first, self.begun = not self.begun, True
                self.box.claim()  # also after giving way: another may have come
                if first and self.box.gives_way(1 if self.most else 16):
                    result[0] = <PyObject *>None
                    Py_INCREF(None)
                    return PYGEN_NEXT
            while True:
                found = self.box.pop_many(self.most) if self.most else self.box.pop()
                if found if self.most else found is not _EMPTY:
                    break
                self.box.streak = 0
                if self.wait():
                    result[0] = <PyObject *>self.waiting
                    Py_INCREF(self.waiting)
                    return PYGEN_NEXT
        except BaseException as e:
            self.rest()
            self.ended = True
            if self.iterating and isinstance(e, errors.ExitSignal) and e.reason == "normal":
                raise StopAsyncIteration from None
            raise
        self.ended = True
        if self.box.spare is None:
            self.box.spare = self
            self.box = None  # else the two would hold each other
        result[0] = <PyObject *>found
        Py_INCREF(found)
        return PYGEN_RETURN

    cdef bint wait(self) except -1:
        """True when there is something to wait for, False when the box is to be looked at again."""
        cdef MailboxCore box = self.box
        cdef LoopCore binding = box.binding
        # Asking asyncio costs a system call (it compares process ids).
        if binding is not None and binding.looking == PyThread_get_thread_ident():
            loop = binding.loop
        else:
            loop = _get_running_loop()
            if loop is None:
                raise RuntimeError("no running event loop")
        if self.timeout is not None and self.deadline is None:
            if self.timeout != self.timeout:
                raise ValueError("timeout is not a number")
            self.deadline = loop.time() + self.timeout
        box.alive()
        if rt_mailbox_closed(&box.ptr.mailbox):
            box._raise_if_ended()
            return False
        box.attach(loop)
        if not box.arm():
            box._raise_if_ended()
            return False
        if self.timeout is not None and self.timeout <= 0:
            raise TimeoutError("no message")
        self.waiting = box._waiter = Wait.__new__(Wait)
        self.waiting.loop = loop
        self.waiting._asyncio_future_blocking = True
        if self.deadline is not None:
            self.timer = loop.call_at(self.deadline, _expire, self.waiting)
        return True

    cdef int rest(self) except -1:
        """Waits no longer."""
        if self.waiting is None:
            return 0
        if self.box._waiter is self.waiting:
            self.box._waiter = None
        self.waiting = None
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        return 0

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
        # Since Python 3.12 throwing in three parts is deprecated, but `yield from` does it.
        if isinstance(kind, BaseException):
            value = kind
        elif not isinstance(value, BaseException):
            value = kind() if value is None else kind(value)
        if trace is not None:
            value = value.with_traceback(trace)
        self.close()
        raise value

    def close(self):
        self.begun = self.ended = True
        self.rest()

    @property
    def cr_await(self):
        """What it waits for, as debuggers ask."""
        return self.waiting

    def __dealloc__(self):
        try:
            self.rest()
        except AttributeError:  # the collector has emptied the timer's loop before
            pass
        if not self.begun:
            PyErr_WarnEx(RuntimeWarning, b"what Mailbox.receive gave was never awaited", 1)


def _expire(Wait waiting):
    waiting.tell(TIME_IS_UP)


cdef Receiving receiving(MailboxCore box, object timeout, Py_ssize_t most, bint iterating):
    cdef Receiving made = <Receiving>box.spare
    if made is not None and Py_REFCNT(<PyObject *>made) == 2:  # the box's, and this one
        box.spare = None
        made.begun = made.ended = False
        made.deadline = None
    else:
        made = Receiving.__new__(Receiving)
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
THREADS_MAX = RT_NODE_THREADS_MAX
BUSY_WAIT_NS_MAX = RT_BUSY_WAIT_NS_MAX
POLLERS = {"epoll": RT_POLLER_EPOLL, "io_uring": RT_POLLER_URING}
EPMD_MODES = {"auto": RT_EPMD_AUTO, "none": RT_EPMD_NONE}
OVERFLOWS = {None: RT_OVERFLOW_NONE, "drop": RT_OVERFLOW_DROP, "close": RT_OVERFLOW_CLOSE,
             "pause": RT_OVERFLOW_PAUSE}
CODE_EEXIST = RT_EEXIST
CODE_ENOK = RT_ENOK
