"""Processes that run coroutines, and calls from other nodes to exposed functions.

Sources: erpc.erl (`execute_call/4`, `execute_cast/3`: what a caller's node spawns
here, and the exit reasons that carry results back), erlang:spawn_request/5.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

from router.errors import EncodeError, ExitSignal, RouterError
from router.etf import Atom, Pid, Reference
from router.serving import reason_of

if TYPE_CHECKING:
    from router.mailbox import Mailbox
    from router.node import Node

__all__ = ["Processes", "exit_reason"]

log = logging.getLogger("router")

RETURN, ERROR, EXIT = Atom("return"), Atom("error"), Atom("exit")
UNDEF = Atom("undef")
LINK, MONITOR = 1, 2  # flags of a spawn reply


def exit_reason(e: BaseException) -> Any:
    """The reason of a process that an exception ended."""
    if isinstance(e, asyncio.CancelledError):
        return Atom("shutdown")
    reason = reason_of(e)
    return Atom(reason) if type(reason) is str else reason


class Processes:
    """The coroutines of one node that run as processes on one loop, each with its mailbox.

    One box watches them all: whoever ends from outside has its task cancelled.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._loop = asyncio.get_running_loop()
        self._box = node.mailbox()
        self._tasks: dict[Reference, asyncio.Task[None]] = {}
        self._of: dict[Pid, asyncio.Task[None]] = {}
        self._box.on_messages(self._arrived)

    @property
    def stale(self) -> bool:
        return self._box.closed or self._loop.is_closed()

    def tasks(self) -> list[asyncio.Task[None]]:
        return list(self._tasks.values())

    def spawn(self, box: Mailbox, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        async def work() -> Atom:
            await function(box, *args)
            return Atom("normal")

        self.start(box, work, f"{getattr(function, '__qualname__', function)} {box.pid!r}")

    def start(self, box: Mailbox, work: Callable[[], Coroutine[Any, Any, Any]], what: str) -> None:
        """Runs `work()` as the process of `box`: its result is the reason.

        It is made in the task: one that is cancelled before it began has not made it.
        """
        self.watch(box, self._loop.create_task(self._run(box, work), name=what))

    def watch(self, box: Mailbox, task: asyncio.Task[None]) -> Reference:
        """Cancels the task when something else ends the process of `box`."""
        ref = self._box.monitor(box.pid)
        self._tasks[ref] = task
        self._of[box.pid] = task
        task.add_done_callback(partial(self._done, box.pid))
        return ref

    def _done(self, pid: Pid, task: asyncio.Task[None]) -> None:
        if self._of.get(pid) is task:
            del self._of[pid]

    def task_of(self, pid: Pid) -> asyncio.Task[None] | None:
        """The task behind a process, also while it clears up after the process has ended."""
        return self._of.get(pid)

    def forget(self, ref: Reference) -> None:
        """What that task still does is its own affair."""
        if self._tasks.pop(ref, None) is not None and self._node.running:
            self._box.demonitor(ref)

    async def _run(self, box: Mailbox, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        try:
            reason = await work()
        except BaseException as e:
            if not isinstance(e, (ExitSignal, asyncio.CancelledError)):
                log.exception("%r: ended by an exception", box)
            _close(box, exit_reason(e))
            if not isinstance(e, Exception) and not isinstance(e, asyncio.CancelledError):
                raise
        else:
            _close(box, reason)

    def _arrived(self, terms: list[Any]) -> None:
        for term in terms:
            match term:
                case ("DOWN", Reference() as ref, "process", _, _):
                    task = self._tasks.pop(ref, None)
                    # Once: what it does at its end is not to be cancelled as well.
                    if task is not None and not task.cancelling():
                        task.cancel()
                case ("spawn_request", ref, from_, (module, function, _), options, args):
                    self._requested(ref, from_, module, function, options, args)

    # exposed functions ---------------------------------------------------------------

    def serve_spawn_requests(self, on: bool) -> None:
        self._box._take_spawn_requests(on)

    def _requested(
        self, ref: Reference, from_: Pid, module: str, function: str, options: Any, args: Any
    ) -> None:
        """A process is to be started for a peer: it calls what is exposed, and nothing else."""
        flags = 0
        for option in options if isinstance(options, list) else ():
            name = option[0] if isinstance(option, tuple) and option else option
            flags |= LINK * (name == "link") | MONITOR * (name == "monitor")
        try:
            box = self._node.mailbox()
            box._spawned(from_, ref, flags)
        except RouterError as e:
            log.warning("%s: cannot start a process for %r: %s", self._node.name, from_, e)
            self._box._not_spawned(from_, ref, "system_limit")
            return
        match module, function, args:
            case "erpc", "execute_call", [Reference() as result, m, f, list() as given]:
                work = partial(self._answer, result, from_, m, f, given)
            case "erpc", "execute_cast", [m, f, list() as given]:
                work = partial(self._apply, from_, m, f, given)
            case _:
                work = partial(self._apply, from_, module, function, args)
        self.start(box, work, f"{module}:{function} of {from_!r}")

    def _find(self, from_: Pid, module: Any, function: Any) -> Callable[..., Any] | None:
        named = isinstance(module, Atom) and isinstance(function, Atom)
        found = self._node._exposed.get((module, function)) if named else None
        if found is None:
            self._node.refused_calls += 1
            log.warning(
                "%s: %r of %s calls %s:%s, which is not exposed",
                self._node.name, from_, from_.node, module, function,
            )  # fmt: skip
        return found

    async def _answer(self, result: Reference, from_: Pid, m: Any, f: Any, args: list[Any]) -> Any:
        """As erpc:execute_call/4: the exit reason tells the caller how it went."""
        call = self._find(from_, m, f)
        if call is None:
            return (result, ERROR, UNDEF, [(m, f, args, [])])
        try:
            value = call(*args)
            return (result, RETURN, await value if inspect.isawaitable(value) else value)
        except ExitSignal as e:
            return (result, EXIT, exit_reason(e))
        except Exception as e:
            log.exception("%s: %s:%s, called by %r, failed", self._node.name, m, f, from_)
            return (result, ERROR, reason_of(e), [(m, f, len(args), [])])

    async def _apply(self, from_: Pid, m: Any, f: Any, args: Any) -> Any:
        """As spawn/4: nobody waits for the result."""
        call = self._find(from_, m, f)
        if call is None or not isinstance(args, list):
            return (UNDEF, [(m, f, args, [])])
        value = call(*args)
        if inspect.isawaitable(value):
            await value
        return Atom("normal")


def _close(box: Mailbox, reason: Any) -> None:
    """Ends the process; a reason that is no term must not keep it alive."""
    try:
        box.close(reason)
    except (EncodeError, RouterError) as e:
        if box.closed:
            return
        if isinstance(reason, tuple) and len(reason) == 3 and reason[1] == RETURN:
            box.close((reason[0], ERROR, reason_of(e), []))
        else:
            box.close(reason_of(e))
