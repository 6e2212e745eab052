"""Being called: processes that answer gen_server calls, casts and system messages.

Sources: gen.erl (`reply/2`: where an answer goes), gen_server.erl, sys.erl (what
Erlang's own tools ask every such process), proc_lib.erl (`stop/3`).
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import traceback
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from router._calls import GEN_CALL, GEN_CAST
from router.errors import DecodeError, EncodeError, ExitSignal, RouterError
from router.etf import Atom, ImproperList, Pid, Reference, encode

if TYPE_CHECKING:
    from router.mailbox import Mailbox

__all__ = ["NO_REPLY", "Caller", "GenServer", "Server"]

log = logging.getLogger("router")

SYSTEM = Atom("system")
OK, ERROR = Atom("ok"), Atom("error")
RUNNING, SUSPENDED = Atom("running"), Atom("suspended")
_BATCH = 256
_TRACE_LINES = 20
_RELEASE_SECONDS = 2.0


class _NoReply:
    def __repr__(self) -> str:
        return "NO_REPLY"


NO_REPLY: Final = _NoReply()
"""What a handler returns when `caller.reply` answers later."""


def reason_of(e: BaseException) -> Any:
    """An exception as a term: {python_error, Name, Message, Traceback}, all of it text."""
    if isinstance(e, ExitSignal):
        return e.reason
    lines = traceback.format_tb(e.__traceback__)[-_TRACE_LINES:]
    return (Atom("python_error"), type(e).__qualname__, str(e), [line.rstrip() for line in lines])


class Caller:
    """Who waits for an answer. `pid` is the process that called."""

    __slots__ = ("_box", "_tag", "done", "pid")

    def __init__(self, box: Mailbox, pid: Pid, tag: Any) -> None:
        self._box = box
        self._tag = tag
        self.pid = pid
        self.done = False
        """It has been answered."""

    def __repr__(self) -> str:
        return f"<Caller {self.pid!r}{' answered' if self.done else ''}>"

    @property
    def _alias(self) -> Reference | None:
        """`[alias | Ref]`, or a list that begins with that: the answer goes to Ref."""
        tag = self._tag
        for _ in range(2):
            if isinstance(tag, ImproperList):
                head = tag.items[0]
                if head == "alias" and isinstance(tag.tail, Reference):
                    return tag.tail
                tag = head
            elif isinstance(tag, list) and tag:
                tag = tag[0]
        return None

    def reply(self, term: Any) -> None:
        """Answers, from any thread. Raises RuntimeError the second time, EncodeError."""
        if self.done:
            raise RuntimeError(f"{self!r}: a call is answered once")
        alias = self._alias
        dest = self.pid if alias is None else alias
        self._box.node.send(dest, (self._tag, term), sender=self._box)
        self.done = True

    def fail(self, reason: Any) -> None:
        """Ends the call: the caller's gen_server:call exits with `reason`, as if the server
        had died. The server goes on. Raises RuntimeError the second time.
        """
        if self.done:
            raise RuntimeError(f"{self!r}: a call is answered once")
        ref = self._alias or self._tag
        if isinstance(ref, Reference):
            self._box._let_go(ref, reason)
        self.done = True


class GenServer:
    """A process with state, as Erlang's gen_server. Give an instance to `Node.serve`.

    Each handler may be a function or a coroutine; one message at a time is
    handled. A handler that raises ends the process with the exception as its
    reason; `ExitSignal(reason)` ends it with that reason.
    """

    server: Server
    """Set by `Node.serve`."""

    def handle_call(self, request: Any, caller: Caller) -> Any:
        """Gives the answer, or NO_REPLY when `caller.reply` gives it later."""
        raise RouterError(f"{type(self).__qualname__} does not answer calls")

    def handle_cast(self, request: Any) -> Any:
        raise RouterError(f"{type(self).__qualname__} takes no casts")

    def handle_info(self, message: Any) -> Any:
        """Every other message, with DOWN, EXIT, nodeup and nodedown."""
        log.info("%r: unexpected message %r", self.server, message)

    def terminate(self, reason: Any) -> Any:
        """The process has ended; its name is free already."""

    def state(self) -> Any:
        """What sys:get_state shows: a term. Attributes by name, unless overridden."""
        return {Atom(k): v for k, v in vars(self).items() if k != "server"}


class _Function(GenServer):
    """A handler alone. What it raises ends that call, not the process."""

    def __init__(self, handler: Callable[[Any, Caller | None], Any]) -> None:
        self._handler = handler

    async def handle_call(self, request: Any, caller: Caller) -> Any:
        try:
            return await _finished(self._handler(request, caller))
        except ExitSignal:
            raise
        except (Exception, asyncio.CancelledError) as e:
            _unless_cancelled(e)
            log.exception("%r: a call of %r failed", self.server, caller.pid)
            if not caller.done:
                caller.fail(reason_of(e))
            return NO_REPLY

    async def handle_cast(self, request: Any) -> Any:
        try:
            await _finished(self._handler(request, None))
        except ExitSignal:
            raise
        except (Exception, asyncio.CancelledError) as e:
            _unless_cancelled(e)
            log.exception("%r: a cast failed", self.server)

    def state(self) -> Any:
        return getattr(self._handler, "__qualname__", repr(self._handler))


def _unless_cancelled(e: BaseException) -> None:
    """Passes on that this task is cancelled; not that something it waited for was."""
    task = asyncio.current_task()
    if isinstance(e, asyncio.CancelledError) and task is not None and task.cancelling():
        raise e


async def _finished(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result


Watch = Callable[["Server"], Callable[[], object]]
"""Sees that the task ends with the process. What it gives lets the task alone."""


class Server:
    """A process that serves. Made by `Node.serve`."""

    def __init__(self, box: Mailbox, handler: Any, concurrency: int, watch: Watch) -> None:
        self.box = box
        """Its mailbox: to link, monitor and send with, not to receive from."""
        self._gen = handler if isinstance(handler, GenServer) else _Function(handler)
        self._gen.server = self
        self._waiting: deque[Any] = deque()
        self._suspended = False
        self._calls: set[asyncio.Task[None]] = set()
        self._free = asyncio.Semaphore(concurrency) if concurrency > 1 else None
        self._reason: Any = None
        self._task = asyncio.get_running_loop().create_task(self._run(), name=repr(self))
        self._let_alone = watch(self)

    def __repr__(self) -> str:
        name = f" {str(self.box.name)!r}" if self.box.name is not None else ""
        return f"<Server{name} {self.box.pid!r}>"

    @property
    def pid(self) -> Pid:
        return self.box.pid

    @property
    def name(self) -> Atom | None:
        return self.box.name

    def close(self, reason: Any = "normal") -> None:
        """Ends the process; what it has not handled yet is gone. `wait` tells when."""
        self.box.close(reason)

    async def wait(self) -> Any:
        """Returns once the process has ended and `terminate` has run, with its reason."""
        await asyncio.wait([self._task])
        return self._reason

    async def __aenter__(self) -> Server:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()
        await self.wait()

    # one message after the other ------------------------------------------------------

    async def _run(self) -> None:
        reason: Any = Atom("killed")
        try:
            while True:
                await self._handle(await self._next())
        except ExitSignal as e:
            reason = e.reason
        except asyncio.CancelledError:
            reason = Atom("shutdown")  # unless something else has ended it already
        except Exception as e:
            log.exception("%r: ended by an exception", self)
            reason = reason_of(e)
        finally:
            await self._end(reason)

    async def _end(self, reason: Any) -> None:
        self._let_alone()
        for task in self._calls:
            task.cancel()
        try:
            self.box.close(reason)
        except EncodeError as e:
            self.box.close(reason_of(e))
        ended = self.box._exit_reason()
        self._reason = ended[0] if ended else reason  # as everybody else was told
        try:
            await _finished(self._gen.terminate(self._reason))
        except Exception:
            log.exception("%r: terminate failed", self)

    async def _next(self) -> Any:
        """The oldest message; while suspended the oldest system message."""
        while True:
            if (ended := self.box._exit_reason()) is not None:
                raise ExitSignal(ended[0])
            if self._suspended:
                for term in self._waiting:
                    if _is_system(term):
                        self._waiting.remove(term)
                        return term
            elif self._waiting:
                return self._waiting.popleft()
            try:
                self._waiting += await self.box.receive_many(_BATCH)
            except DecodeError as e:
                log.warning("%r: a message that the codec refuses: %s", self, e)
            except RouterError as e:
                if self.box.node.running or isinstance(e, ExitSignal):
                    raise
                raise ExitSignal(Atom("shutdown")) from None  # at the program's end, in a thread

    async def _handle(self, term: Any) -> None:
        if isinstance(term, tuple) and len(term) == 3 and _is_from(term[1]):
            if term[0] == GEN_CALL and isinstance(term[0], Atom):
                await self._call(Caller(self.box, *term[1]), term[2])
                return
            if _is_system(term):
                await self._system(Caller(self.box, *term[1]), term[2])
                return
        if (
            isinstance(term, tuple)
            and len(term) == 2
            and term[0] == GEN_CAST
            and isinstance(term[0], Atom)
        ):
            await _finished(self._gen.handle_cast(term[1]))
            return
        await _finished(self._gen.handle_info(term))

    async def _call(self, caller: Caller, request: Any) -> None:
        if self._free is None:
            await self._answer(caller, request)
            return
        await self._free.acquire()
        task = asyncio.get_running_loop().create_task(self._answer(caller, request))
        self._calls.add(task)
        task.add_done_callback(self._called)

    def _called(self, task: asyncio.Task[None]) -> None:
        assert self._free is not None
        self._free.release()
        self._calls.discard(task)
        if not task.cancelled() and (e := task.exception()) is not None:
            if not isinstance(e, ExitSignal):
                log.error("%r: ended by an exception", self, exc_info=e)
            self.box.close(reason_of(e))

    async def _answer(self, caller: Caller, request: Any) -> None:
        reply = await _finished(self._gen.handle_call(request, caller))
        if reply is NO_REPLY:
            return
        try:
            caller.reply(reply)
        except (EncodeError, RouterError) as e:
            # The handler is not to blame for a caller's full queue, nor can it see this one.
            log.exception("%r: an answer could not be sent", self)
            caller.fail(reason_of(e))

    # Erlang's own tools ---------------------------------------------------------------

    async def _system(self, caller: Caller, request: Any) -> None:
        match request:
            case "get_state":
                state = self._shown_state()
                caller.reply((OK, state) if await self._expects_ok(caller) else state)
            case "get_status":
                caller.reply(self._status())
            case "suspend":
                self._suspended = True
                caller.reply(OK)
            case "resume":
                self._suspended = False
                caller.reply(OK)
            case ("terminate", reason):
                caller.reply(OK)
                raise ExitSignal(reason)
            case _:
                caller.reply((ERROR, (Atom("unknown_system_msg"), request)))

    async def _expects_ok(self, caller: Caller) -> bool:
        """sys:get_state takes the state as it is before OTP 27, and `{ok, State}` since."""
        node = self.box.node
        if caller.pid.node == node.name:
            return True
        try:
            release = await node.rpc(
                caller.pid.node, "erlang", "system_info", [Atom("otp_release")], _RELEASE_SECONDS
            )
            return int(bytes(release)) >= 27
        except (RouterError, ValueError, TypeError):
            return True

    def _shown_state(self) -> Any:
        try:
            state = self._gen.state()
        except Exception as e:
            return reason_of(e)
        try:
            encode(state)
        except EncodeError:
            return repr(state)
        return state

    def _status(self) -> Any:
        """As gen_server's: {status, Pid, {module, M}, [Dictionary, State, Parent, Debug, Misc]}."""
        state = SUSPENDED if self._suspended else RUNNING
        kind = type(self._gen)
        shown = self._gen._handler if isinstance(self._gen, _Function) else kind
        name = getattr(shown, "__qualname__", type(shown).__qualname__)
        module = Atom(f"{getattr(shown, '__module__', '')}.{name}"[:255])
        data = Atom("data")
        misc = [
            (Atom("header"), list(f"Status for {self!r}".encode())),
            (data, [(list(b"Status"), state), (list(b"Waiting"), len(self._waiting))]),
            (data, [(list(b"State"), self._shown_state())]),
        ]
        words = [(Atom("$initial_call"), (module, Atom("init"), 1))]
        return (
            Atom("status"), self.pid, (Atom("module"), module), [words, state, self.pid, [], misc],
        )  # fmt: skip


def _is_from(term: Any) -> bool:
    return isinstance(term, tuple) and len(term) == 2 and isinstance(term[0], Pid)


def _is_system(term: Any) -> bool:
    return (
        isinstance(term, tuple)
        and len(term) == 3
        and term[0] == SYSTEM
        and isinstance(term[0], Atom)
        and _is_from(term[1])
    )
