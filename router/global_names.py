"""Names that a whole cluster knows: OTP's `global`, for visible nodes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from router._global import NameServer
from router._global_locks import GLOBAL, SERVER, term_key
from router.errors import NameTaken, RouterError
from router.etf import Atom, Codec, Export, Pid, decode
from router.mailbox import Mailbox

if TYPE_CHECKING:
    from router.node import Node

__all__ = ["GlobalNames"]

METHODS = ("random_exit_name", "random_notify_name", "notify_all_name")
_START_SECONDS = _STOP_SECONDS = 10.0


class GlobalNames:
    """The names that all visible nodes of the cluster share. `Node.global_names`.

    A name is any term. It is gone when its process ends, or when the last connection with the
    process's node does. Every registration locks all nodes for its time, so names are for
    the few processes that the whole cluster looks for.

    The work is done on a thread and a loop of its own: other nodes wait for this one whenever
    they register a name, also while this program computes.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._server = NameServer(node)
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name=f"{GLOBAL} {node.name}", daemon=True)
        self.loop: asyncio.AbstractEventLoop | None = None
        """Of that thread."""

    def __repr__(self) -> str:
        return f"<GlobalNames of {self._node.name}>"

    # life -------------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()
        try:
            self._ready.result(_START_SECONDS)
        except TimeoutError:
            raise RouterError(f"{self!r} does not start within {_START_SECONDS} s") from None

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as e:
            if self._ready.done():
                raise
            self._ready.set_exception(e)

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        server = self._node.serve(SERVER, self._server)
        self._server.begin()
        self._ready.set_result(None)
        await server.wait()

    def wait(self) -> None:
        """For the end, after the node has ended the process."""
        if self._thread.ident is not None and threading.current_thread() is not self._thread:
            self._thread.join(_STOP_SECONDS)

    def _submit(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        try:
            self._node._need()
            assert self.loop is not None
            return asyncio.run_coroutine_threadsafe(work, self.loop)
        except (RouterError, RuntimeError) as e:
            work.close()
            raise RouterError(f"{self!r} has ended") from e

    # names ------------------------------------------------------------------------------

    def whereis(self, name: Any) -> Pid | None:
        """The process that is registered as `name`, or None. From any thread."""
        return self._server.where(name)

    def names(self) -> list[Any]:
        """All registered names."""
        codec = self._node._codec or Codec()
        return [codec.decode(key) for key in list(self._server.names)]

    async def register(
        self,
        name: Any,
        process: Mailbox | Pid,
        *,
        resolve: str | Export = "random_exit_name",
        again: bool = False,
    ) -> None:
        """Registers a process of any node as `name` on all nodes. A Mailbox then lives as long
        as it has the name, though the program holds it no longer.

        resolve: what happens when two parts of a cluster meet that both have the name: a
        method of `global` (`"random_exit_name"` ends one of the two processes,
        `"random_notify_name"` tells one, `"notify_all_name"` both), or an Export that the
        Erlang node of the process can call. again: take the name over from who has it.

        Raises NameTaken, ValueError for a process that has a global name already. Waits until
        every node has answered; cancelling gives the locks back.
        """
        await asyncio.wrap_future(self._submit(self._register(name, process, resolve, again)))

    def register_sync(
        self,
        name: Any,
        process: Mailbox | Pid,
        *,
        resolve: str | Export = "random_exit_name",
        again: bool = False,
        timeout: float | None = None,
    ) -> None:
        """`register` for a thread without an event loop. timeout: seconds. Raises TimeoutError."""
        _result(self._submit(self._register(name, process, resolve, again)), timeout)

    async def unregister(self, name: Any) -> None:
        """Takes the name from whoever has it; nothing when nobody does."""
        await asyncio.wrap_future(self._submit(self._server.unregister(name)))

    def unregister_sync(self, name: Any, *, timeout: float | None = None) -> None:
        """`unregister` for a thread without an event loop."""
        _result(self._submit(self._server.unregister(name)), timeout)

    async def sync(self) -> None:
        """Returns when all visible nodes that are connected share their names with this one."""
        await asyncio.wrap_future(self._submit(self._server.sync()))

    def sync_sync(self, *, timeout: float | None = None) -> None:
        """`sync` for a thread without an event loop."""
        _result(self._submit(self._server.sync()), timeout)

    async def _register(
        self, name: Any, process: Mailbox | Pid, resolve: str | Export, again: bool
    ) -> None:
        pid = process.pid if isinstance(process, Mailbox) else process
        if not isinstance(pid, Pid):
            raise TypeError(f"a process is a Mailbox or a Pid, not {type(process).__name__}")
        method = Export(GLOBAL, Atom(resolve), 3) if isinstance(resolve, str) else resolve
        if isinstance(resolve, str) and resolve not in METHODS:
            raise ValueError(f"resolve is one of {METHODS} or an Export, not {resolve!r}")
        given: object = method
        if not isinstance(given, Export) or given.arity != 3:
            raise TypeError(f"resolve is a method's name or an Export of arity 3, not {resolve!r}")
        others = [key for key in self._server.keys_of(pid) if key != term_key(name)]
        if others and not again:
            raise ValueError(f"{pid!r} has a global name already: {decode(others[0])!r}")
        if not await self._server.register(name, pid, method, again):
            raise NameTaken(f"{name!r} is registered globally already")
        if isinstance(process, Mailbox):
            self._server.hold(name, process)


def _result(work: Future[Any], timeout: float | None) -> None:
    try:
        work.result(timeout)
    except TimeoutError:
        work.cancel()
        raise
