# Part of _core.pyx: what `await box.receive()` awaits.

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
