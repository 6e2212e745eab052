# The process registry alone, as a routing table of Python objects. Part of _core.pyx.

from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.buffer cimport (
    PyBUF_ANY_CONTIGUOUS, PyBUF_CONTIG, PyBuffer_Release, PyObject_GetBuffer)
from libc.stdint cimport int64_t

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *n) except NULL
    ctypedef struct PyListObject:
        PyObject **ob_item
    PyObject *PyList_GET_ITEM(PyObject *items, Py_ssize_t i)
    Py_ssize_t PyList_GET_SIZE(PyObject *items)
    void Py_INCREF_ "Py_INCREF" (PyObject *o)
    void Py_XDECREF_ "Py_XDECREF" (PyObject *o)
    PyObject *None_ "Py_None"

cdef extern from *:
    void prefetch "__builtin_prefetch" (const void *p) noexcept nogil

from types import GenericAlias as _GenericAlias

cdef enum:
    CHUNK = 256                # ids looked up, then objects read
    KEPT_SLOTS = 1024          # of `objects`, whatever the registry holds


cdef struct Entry:
    rt_pid id
    PyObject *object
    char *name
    size_t bytes


cdef struct Walk:
    Entry *entries             # NULL: only count
    char *text
    size_t text_bytes
    uint32_t count
    PyObject *objects          # the registry's list


cdef void _visit(void *arg, rt_slice name, rt_pid pid) noexcept:
    """Called under the registry's lock: it runs no code of Python's."""
    cdef Walk *w = <Walk *>arg
    cdef Entry *e
    if w.entries == NULL:
        w.text_bytes += name.n
        return
    e = &w.entries[w.count]
    w.count += 1
    e.id = pid
    e.name = w.text
    e.bytes = name.n
    memcpy(w.text, name.p, name.n)
    w.text += name.n
    e.object = item_at(w.objects, <uint32_t>pid)
    Py_INCREF_(e.object)


cdef inline PyObject *item_at(PyObject *objects, uint32_t slot) noexcept:
    """None when there is no such slot: a collection of garbage has cleared the list."""
    if slot >= <size_t>PyList_GET_SIZE(objects):
        return None_
    return PyList_GET_ITEM(objects, slot)


# Not cleared in cycles: the list of objects is, and then answers as if they were gone.
@cython.final
@cython.no_gc_clear
cdef class Registry:
    """Names and 64-bit ids for objects of this process: the registry of a node, alone.

    `Registry(limit=16777216)`: at most that many entries. Every method may be called from any
    thread. An id is `serial << 32 | slot`: a slot serves again when its entry has gone, with
    another serial, so an id that is no longer registered finds nothing, not the next tenant of its
    slot (until the serial has wrapped after 2**32 entries in that slot). Memory follows
    the number of entries down as well as up.

    >>> routes = Registry()
    >>> here = routes.register("orders", handler)
    >>> routes.whereis("orders") is routes.lookup(here) is handler
    True
    """

    cdef rt_registry *ptr
    cdef list objects          # at each slot its object, None where there is none
    cdef object __weakref__

    def __cinit__(self, *, limit=1 << 24):
        if not isinstance(limit, int) or isinstance(limit, bool):
            raise TypeError(f"limit is an int, not {type(limit).__name__}")
        if not 0 < limit < RT_ID_SLOT_MAX:
            raise ValueError(f"limit is from 1 to {RT_ID_SLOT_MAX - 1}, not {limit}")
        self.objects = [None]
        self.ptr = rt_registry_new(<uint32_t>limit, <uint32_t>limit)
        if self.ptr == NULL:
            raise MemoryError("cannot make a registry")

    def __dealloc__(self):
        rt_registry_free(self.ptr)

    def register(self, name, obj, /):
        """Enters an object under a name of up to 255 characters; its id, an int.

        Raises NameTaken when the name is taken, RouterError when the registry is full, ValueError
        when the name is empty or too long, TypeError when `obj` is None (what `whereis` says when
        there is nobody).
        """
        cdef rt_process *p
        cdef rt_slice text = self.name_of_str(name)
        cdef rt_pid pid
        cdef uint32_t slot
        cdef int rc
        if obj is None:
            raise TypeError("None cannot be registered: it stands for nobody")
        if text.n == 0 or text.n > RT_ATOM_BYTES_MAX or len(name) > RT_ATOM_CHARS_MAX:
            raise ValueError(
                f"a name has from 1 to {RT_ATOM_CHARS_MAX} characters, not {len(name)}")
        check(rt_process_new(self.ptr, &p), "cannot register")
        pid = p.self
        slot = <uint32_t>pid
        try:
            while len(self.objects) <= slot:
                self.objects.append(None)
            check(rt_registry_register(self.ptr, text, pid), name)
        except BaseException:
            self.end(p)
            raise
        # Nothing between the name and this runs other code.
        self.objects[slot] = obj
        return pid

    def unregister(self, name, /):
        """Takes a name and its id back. False when the name is not there."""
        cdef rt_pid pid = rt_registry_whereis(self.ptr, self.name_of_str(name))
        cdef rt_process *p
        cdef object obj  # goes last, for it may run code
        cdef Py_ssize_t n
        if pid == 0:
            return False
        obj = self.at(pid)
        self.end(rt_registry_lookup(self.ptr, pid))
        if <uint32_t>pid < <size_t>len(self.objects):
            self.objects[<uint32_t>pid] = None
        n = len(self.objects)
        if n > KEPT_SLOTS and n > 2 * <Py_ssize_t>rt_registry_count(self.ptr):
            while n > KEPT_SLOTS and PyList_GET_ITEM(<PyObject *>self.objects, n - 1) == None_:
                n -= 1
            del self.objects[n:]
        return True

    def whereis(self, name, /):
        """The object of that name, or None."""
        return self.at(rt_registry_whereis(self.ptr, self.name_of_str(name)))

    def id_of(self, name, /):
        """The id of that name, or None."""
        cdef rt_pid pid = rt_registry_whereis(self.ptr, self.name_of_str(name))
        return pid if pid else None

    def lookup(self, uint64_t id, /):
        """The object with that id, or None."""
        if rt_registry_lookup(self.ptr, id) == NULL:
            return None
        return self.at(id)

    def name_of(self, uint64_t id, /):
        """The name of that id, or None."""
        cdef uint8_t name[RT_ATOM_BYTES_MAX]
        cdef size_t n = rt_registry_name_of(self.ptr, id, name)
        return (<char *>name)[:n].decode() if n else None

    def lookup_many(self, ids, /, out="object"):
        """Looks up a whole array of ids, shape (n,) and dtype uint64; an array of shape (n,).

        out="object": the objects, None where there is nobody; dtype object. out="slot": the number
        of each id's slot, dtype int64, and -1 where there is nobody. Slots are from 1 upward
        and as few as there have been entries at once, so they index arrays of one's own; objects
        are not touched and other threads run meanwhile.
        """
        import numpy as np

        if not isinstance(ids, np.ndarray) or ids.dtype != np.uint64:
            kind = ids.dtype if isinstance(ids, np.ndarray) else type(ids).__name__
            raise TypeError(f"ids is a numpy array of uint64, not {kind}")
        if ids.ndim != 1:
            raise ValueError(f"ids has one dimension, not {ids.ndim}")
        if out == "slot":
            found = np.empty(ids.shape[0], dtype=np.int64)
        elif out == "object":
            found = np.empty(ids.shape[0], dtype=object)
        else:
            raise ValueError(f'out is "object" or "slot", not {out!r}')
        cdef Py_buffer given, made
        PyObject_GetBuffer(np.ascontiguousarray(ids), &given, PyBUF_ANY_CONTIGUOUS)
        try:
            PyObject_GetBuffer(found, &made, PyBUF_CONTIG)
            try:
                if out == "slot":
                    with nogil:
                        rt_registry_lookup_many(self.ptr, <const uint64_t *>given.buf,
                                                given.len // sizeof(uint64_t), <int64_t *>made.buf)
                else:
                    self.fill(<const uint64_t *>given.buf, given.len // sizeof(uint64_t),
                              <PyObject **>made.buf)
            finally:
                PyBuffer_Release(&made)
        finally:
            PyBuffer_Release(&given)
        return found

    def names(self):
        """The names, as a list: a snapshot."""
        return self.snapshot()[0]

    def ids(self):
        """The ids, as an array of uint64 in the order of names(): a snapshot."""
        import numpy as np

        return np.frombuffer(self.snapshot()[1], dtype=np.uint64)

    def items(self):
        """Pairs of name and object, as a list: a snapshot."""
        names, _, objects = self.snapshot()
        return list(zip(names, objects))

    def __iter__(self):
        return iter(self.snapshot()[0])

    __class_getitem__ = classmethod(_GenericAlias)

    def __contains__(self, name):
        return isinstance(name, str) and rt_registry_whereis(
            self.ptr, self.name_of_str(name)) != 0

    def __len__(self):
        return rt_registry_count(self.ptr)

    def __repr__(self):
        return f"<router.Registry of {len(self)}>"

    cdef rt_slice name_of_str(self, name) except *:
        """Its bytes, which live as long as the str."""
        cdef rt_slice text
        cdef Py_ssize_t n
        if not isinstance(name, str):
            raise TypeError(f"a name is a str, not {type(name).__name__}")
        text.p = <const uint8_t *>PyUnicode_AsUTF8AndSize(name, &n)
        text.n = <size_t>n
        return text

    cdef object at(self, rt_pid pid):
        return <object>item_at(<PyObject *>self.objects, <uint32_t>pid)

    cdef void end(self, rt_process *p) noexcept:
        cdef rt_slice reason
        reason.p = NULL
        reason.n = 0
        rt_process_exit(self.ptr, p.self, reason)
        rt_process_release(self.ptr, p)

    cdef void fill(self, const uint64_t *ids, size_t n, PyObject **into) noexcept:
        """Three passes over each chunk, so that what one waits for is on its way when the next
        comes by: the slots, the objects' addresses, the objects."""
        cdef int64_t slots[CHUNK]
        cdef PyObject *objects[CHUNK]
        cdef PyObject **held = (<PyListObject *>self.objects).ob_item
        cdef int64_t have = len(self.objects)
        cdef size_t i, k
        while n > 0:
            k = n if n < CHUNK else CHUNK
            rt_registry_lookup_many(self.ptr, ids, k, slots)
            for i in range(k):
                if slots[i] >= have:
                    slots[i] = -1
                if slots[i] > 0:
                    prefetch(&held[slots[i]])
            for i in range(k):
                objects[i] = held[slots[i]] if slots[i] > 0 else None_
                prefetch(objects[i])
            for i in range(k):
                Py_INCREF_(objects[i])
                Py_XDECREF_(into[i])  # the None that was there
                into[i] = objects[i]
            ids += k
            into += k
            n -= k

    cdef tuple snapshot(self):
        """Names, ids (bytes) and objects of one moment."""
        cdef Walk w
        cdef uint32_t i, n = rt_registry_count(self.ptr)
        cdef list names = [], objects = []
        # What is read and held here is of one moment: an allocation by Python may collect
        # garbage, and that may run code which changes the registry.
        w.text_bytes = 0
        w.count = 0
        w.objects = <PyObject *>self.objects
        w.entries = NULL
        rt_registry_each_name(self.ptr, _visit, &w)
        w.entries = <Entry *>PyMem_RawMalloc(n * sizeof(Entry) + w.text_bytes + 1)
        if w.entries == NULL:
            raise MemoryError("cannot take a snapshot")
        w.text = <char *>(w.entries + n)
        w.count = 0
        rt_registry_each_name(self.ptr, _visit, &w)
        try:
            ids = bytearray(n * sizeof(uint64_t))
            for i in range(n):
                (<uint64_t *>PyByteArray_AS_STRING(ids))[i] = w.entries[i].id
                names.append(w.entries[i].name[:w.entries[i].bytes].decode())
                objects.append(<object>w.entries[i].object)
        finally:
            for i in range(n):
                Py_XDECREF_(w.entries[i].object)
            PyMem_RawFree(w.entries)
        return names, ids, objects
