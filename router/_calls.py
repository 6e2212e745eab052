"""Calling Erlang: gen_server:call and erpc:call, as OTP does them.

Sources: gen.erl (`$gen_call`, monitor with an alias) and erpc.erl
(`execute_call` started by a spawn request with a monitor; the result is the
exit reason).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from router.errors import CallTimeout, NodeDown, NoProcess, RemoteError
from router.etf import Atom, ImproperList, Reference

if TYPE_CHECKING:
    from router.mailbox import Mailbox
    from router.node import Node

__all__ = ["Calls", "call_sync", "rpc_sync"]

GEN_CALL = Atom("$gen_call")
GEN_CAST = Atom("$gen_cast")
ALIAS = Atom("alias")
NET_KERNEL = Atom("net_kernel")
IS_AUTH = Atom("is_auth")
MONITOR = Atom("monitor")
REX, CALL = Atom("rex"), Atom("call")

_PENDING = object()


class Call(ABC):
    """One call under way: what was sent and how its answer is told from others."""

    def __init__(self, box: Mailbox, dest: Any) -> None:
        self.box = box
        self.dest = dest
        self.ref: Reference

    @abstractmethod
    def answer(self, term: Any) -> Any:
        """The result in `term`, or _PENDING. Raises what the answer stands for."""

    def end(self) -> None:
        if not self.box.node.running:
            return
        self.box.demonitor(self.ref)
        self.box.unalias(self.ref)


class GenCall(Call):
    def __init__(self, box: Mailbox, dest: Any, request: Any) -> None:
        super().__init__(box, dest)
        node = box.node
        if isinstance(dest, Reference):
            raise TypeError("an alias cannot be called: it cannot be watched; call the Pid")
        self.ref = box._monitor_alias(dest)
        try:
            tag = ImproperList([ALIAS], self.ref)
            node.send(dest, (GEN_CALL, (box.pid, tag), request), sender=box)
        except BaseException:
            self.end()
            raise

    def answer(self, term: Any) -> Any:
        match term:
            case (ImproperList() as tag, reply) if tag.tail == self.ref:
                return reply
            case (Reference() as tag, reply) if tag == self.ref:
                return reply
            case ("DOWN", ref, "process", _, reason) if ref == self.ref:
                raise _down(self.dest, reason)
        return _PENDING


class ErpcCall(Call):
    def __init__(
        self, box: Mailbox, node: str, module: str, function: str, args: list[Any]
    ) -> None:
        super().__init__(box, node)
        self.result = box.node._reference()
        self.ref = box._spawn_request(
            node,
            "erpc",
            "execute_call",
            [self.result, Atom(module), Atom(function), args],
            [MONITOR],
        )

    def answer(self, term: Any) -> Any:
        match term:
            case ("spawn_reply", ref, "error", reason) if ref == self.ref:
                raise _not_spawned(self.dest, reason)
            case ("DOWN", ref, "process", _, reason) if ref == self.ref:
                return self._result(reason)
        return _PENDING

    def _result(self, reason: Any) -> Any:
        match reason:
            case (Reference() as ref, "return", value) if ref == self.result:
                return value
            case (Reference() as ref, "throw", value) if ref == self.result:
                raise RemoteError("throw", value)
            case (Reference() as ref, "exit", value) if ref == self.result:
                raise RemoteError("exit", value)
            case (Reference() as ref, "error", value, stack) if ref == self.result:
                raise RemoteError("error", value, stack)
            case "noconnection":
                raise NodeDown(f"{self.dest}: the connection ended before the answer came")
        raise RemoteError("exit", reason)


class RexCall(GenCall):
    """rpc:call as it was before erpc, for peers without spawn requests.

    Source: rpc.erl (`{call, M, F, A, GroupLeader}` to the server `rex`).
    """

    def __init__(
        self, box: Mailbox, node: str, module: str, function: str, args: list[Any]
    ) -> None:
        request = (CALL, Atom(module), Atom(function), args, box.pid)
        super().__init__(box, (REX, node), request)

    def answer(self, term: Any) -> Any:
        result = super().answer(term)
        match result:
            case ("badrpc", ("EXIT", (reason, list() as stack))):
                raise RemoteError("error", reason, stack)
            case ("badrpc", ("EXIT", reason)):
                raise RemoteError("exit", reason)
            case ("badrpc", reason):
                raise RemoteError("error", reason)
        return result


class SpawnCall(Call):
    """A process is started and let alone."""

    def __init__(
        self, box: Mailbox, node: str, module: str, function: str, args: list[Any]
    ) -> None:
        super().__init__(box, node)
        self.ref = box._spawn_request(node, module, function, args, [])

    def answer(self, term: Any) -> Any:
        match term:
            case ("spawn_reply", ref, "ok", pid) if ref == self.ref:
                return pid
            case ("spawn_reply", ref, "error", reason) if ref == self.ref:
                raise _not_spawned(self.dest, reason)
        return _PENDING


class NoSpawnRequests(RemoteError):
    """The peer knows no spawn requests."""


def _not_spawned(node: str, reason: Any) -> Exception:
    if reason == "noconnection":
        return NodeDown(f"{node}: no connection")
    kind = NoSpawnRequests if reason == "notsup" else RemoteError
    return kind("error", (Atom("erpc"), reason))


def _down(dest: Any, reason: Any) -> Exception:
    if reason == "noproc":
        return NoProcess(f"{_shown(dest)}: no such process")
    if reason == "noconnection":
        node = dest[1] if isinstance(dest, tuple) else getattr(dest, "node", dest)
        return NodeDown(f"{node}: no connection")
    return RemoteError("exit", reason)


def _shown(dest: Any) -> str:
    if isinstance(dest, tuple):
        return f"{dest[0]} on {dest[1]}"
    return str(dest) if isinstance(dest, str) else repr(dest)


def _key(term: Any) -> Reference | None:
    """The reference by which an answer names its call."""
    match term:
        case (ImproperList() as tag, _) if isinstance(tag.tail, Reference):
            return tag.tail
        case (Reference() as tag, _):
            return tag
        case ("DOWN" | "spawn_reply", Reference() as ref, *_):
            return ref
    return None


class Calls:
    """The calls of one node on one loop: one process, answers told apart by reference."""

    def __init__(self, node: Node) -> None:
        self._loop = asyncio.get_running_loop()
        self._box = node.mailbox()
        self._pending: dict[Reference, tuple[Call, asyncio.Future[Any]]] = {}
        self.others: Callable[[Any], None] = lambda term: None
        """Takes what answers no call, which else is dropped: it came too late."""
        self._box.on_messages(self._arrived)

    @property
    def box(self) -> Mailbox:
        """Who calls."""
        return self._box

    @property
    def stale(self) -> bool:
        return self._box.closed

    def _arrived(self, terms: list[Any]) -> None:
        for term in terms:
            key = _key(term)
            entry = self._pending.get(key) if key is not None else None
            if entry is None or entry[1].done():
                self.others(term)
                continue
            try:
                result = entry[0].answer(term)
            except Exception as e:
                entry[1].set_exception(e)
                continue
            if result is not _PENDING:
                entry[1].set_result(result)

    async def call(self, dest: Any, request: Any, timeout: float | None) -> Any:
        return await self._run(lambda: GenCall(self._box, dest, request), timeout)

    async def rpc(
        self, node: str, module: str, function: str, args: list[Any], timeout: float
    ) -> Any:
        deadline = self._loop.time() + timeout
        try:
            return await self._run(
                lambda: ErpcCall(self._box, node, module, function, list(args)), timeout
            )
        except NoSpawnRequests as e:
            refused = e
        try:
            return await self._run(
                lambda: RexCall(self._box, node, module, function, list(args)),
                deadline - self._loop.time(),
            )
        except NoProcess:  # and no rex: a router node that exposes nothing
            raise refused from None

    async def spawn(
        self, node: str, module: str, function: str, args: list[Any], timeout: float
    ) -> Any:
        return await self._run(
            lambda: SpawnCall(self._box, node, module, function, list(args)), timeout
        )

    async def _run(self, begin: Callable[[], Call], timeout: float | None) -> Any:
        call = begin()
        future: asyncio.Future[Any] = self._loop.create_future()
        self._pending[call.ref] = (call, future)
        try:
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError as e:
            if isinstance(e, CallTimeout):
                raise
            raise CallTimeout(f"{_shown(call.dest)}: no answer within {timeout} s") from None
        finally:
            del self._pending[call.ref]
            call.end()

    def stop(self, error: BaseException) -> None:
        for _, future in self._pending.values():
            if not future.done():
                with contextlib.suppress(RuntimeError):  # that loop is closed: nobody waits
                    self._loop.call_soon_threadsafe(_fail, future, error)

    def close(self) -> None:
        """The loop is closed: nobody calls any more."""
        self._box.on_messages(None)
        self._box.close()


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


def _run_sync(box: Mailbox, begin: Callable[[], Call], timeout: float) -> Any:
    deadline = time.monotonic() + timeout
    call = begin()
    try:
        while True:
            try:
                term = box.get(max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                raise CallTimeout(f"{_shown(call.dest)}: no answer within {timeout} s") from None
            result = call.answer(term)
            if result is not _PENDING:
                return result
    finally:
        call.end()


def call_sync(node: Node, dest: Any, request: Any, timeout: float) -> Any:
    with node.mailbox() as box:
        return _run_sync(box, lambda: GenCall(box, dest, request), timeout)


def rpc_sync(
    node: Node, target: str, module: str, function: str, args: list[Any], timeout: float
) -> Any:
    deadline = time.monotonic() + timeout
    given = list(args)
    with node.mailbox() as box:
        try:
            return _run_sync(box, lambda: ErpcCall(box, target, module, function, given), timeout)
        except NoSpawnRequests as e:
            refused = e
        try:
            left = deadline - time.monotonic()
            return _run_sync(box, lambda: RexCall(box, target, module, function, given), left)
        except NoProcess:
            raise refused from None
