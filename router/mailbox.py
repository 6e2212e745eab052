"""A mailbox: a process as its peers see it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from router._core import EMPTY, OVERFLOWS, MailboxCore, Notifier, calls_directly
from router.errors import DecodeError, ExitSignal, RouterError
from router.etf import Atom, Reference

if TYPE_CHECKING:
    from router._loop import LoopBinding
    from router.node import Node

__all__ = ["Mailbox"]

_BATCH = 1024


@calls_directly
class Mailbox(MailboxCore):
    """Receives what is sent to its pid, its name or its aliases.

    Made by `Node.mailbox`. A named box lives until it is closed or its node
    stops; an anonymous one also ends, with reason `normal`, when the program
    holds it no longer. One receiver at a time.
    """

    __slots__ = ()

    node: Node

    def __init__(
        self,
        node: Node,
        name: str | None = None,
        *,
        limit: int | None = None,
        limit_bytes: int | None = None,
        overflow: str | None = None,
    ) -> None:
        if limit is None and limit_bytes is None:
            if overflow is not None:
                raise ValueError("overflow needs a limit (messages) or limit_bytes")
        elif overflow not in ("drop", "close", "pause"):
            raise ValueError("with a limit, overflow is 'drop', 'close' or 'pause'")
        for what, value in (("limit", limit), ("limit_bytes", limit_bytes)):
            number: object = value
            if number is not None and not (isinstance(number, int) and 0 < number < 1 << 32):
                raise ValueError(f"{what} is an int between 1 and 2**32 - 1, not {value!r}")
        self._limit(limit or 0, limit_bytes or 0, OVERFLOWS[overflow])
        if name is not None:
            self._register(name)

    def __repr__(self) -> str:
        name = f" {str(self.name)!r}" if self.name is not None else ""
        state = " closed" if self.closed else ""
        return f"<Mailbox{name} {self.pid!r}{state}>"

    # receiving on a loop ---------------------------------------------------

    # receive, receive_many and async for are in the core.

    def on_messages(self, callback: Callable[[list[Any]], object] | None) -> None:
        """Calls `callback(list of terms)` on this loop whenever terms arrive.

        None ends it. While it is set, receiving otherwise raises RuntimeError.
        A term the codec refuses, and an exception of the callback, go to the
        loop's exception handler.
        """
        if callback is None:
            if self._callback is not None:
                self.node._callbacks.discard(self)
            self._callback = None
            return
        if not callable(callback):
            raise TypeError(f"callback is a function or None, not {type(callback).__name__}")
        self._claim()
        loop = asyncio.get_running_loop()
        self._attach(loop)
        self._loop = loop
        self._callback = callback
        # A box with a callback is in use though nobody may hold it.
        self.node._callbacks.add(self)
        loop.call_soon(self._on_ready)

    def _attach(self, loop: asyncio.AbstractEventLoop) -> LoopBinding:
        binding = self.node._binding(loop)
        self._bind(binding.notifier)
        return binding

    def _raise_if_ended(self) -> None:
        """After arm said no: if nothing is to be read, the process has ended."""
        if self.closed and not self.waiting:
            reason = self._exit_reason()
            if reason is not None:
                raise ExitSignal(reason[0])

    def _run_callback(self) -> None:
        loop, callback = self._loop, self._callback
        if loop is None or callback is None:
            return
        try:
            terms = self._pop_many(_BATCH)
        except DecodeError as e:
            self._complain(loop, "a term was refused by the codec", e)
            terms = []
        if terms:
            try:
                callback(terms)
            except (SystemExit, KeyboardInterrupt):
                loop.call_soon(self._on_ready)  # the loop may run on
                raise
            except BaseException as e:
                self._complain(loop, "the on_messages callback failed", e)
        if self._callback is None:
            return
        if not self._arm():
            if self.closed and not self.waiting:
                self.on_messages(None)
            else:
                loop.call_soon(self._on_ready)

    def _complain(self, loop: asyncio.AbstractEventLoop, message: str, e: BaseException) -> None:
        loop.call_exception_handler(
            {"message": f"{self!r}: {message}", "exception": e, "mailbox": self}
        )

    # receiving in a thread ---------------------------------------------------

    def get(self, timeout: float | None = None) -> Any:
        """`receive` for a thread without a loop: blocks, and drives the node meanwhile."""
        return self._get(self._pop, timeout)

    def get_many(self, max: int = _BATCH, timeout: float | None = None) -> list[Any]:
        """`receive_many` for a thread without a loop."""
        if max < 1:
            raise ValueError(f"max is at least 1, not {max}")
        terms: list[Any] = self._get(lambda: self._pop_many(max) or EMPTY, timeout)
        return terms

    def _get(self, pop: Callable[[], Any], timeout: float | None) -> Any:
        self._claim()
        self._getting = True
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            while True:
                found = pop()
                if found is not EMPTY:
                    return found
                if not self._block(deadline):
                    # One round of the engine: else nobody who polls would ever drive.
                    self.node._drive()
                    found = pop()
                    if found is EMPTY:
                        raise TimeoutError("no message in time")
                    return found
        finally:
            self._getting = False

    def _block(self, deadline: float | None) -> bool:
        """Waits for news; False when the time is up."""
        if self._thread_notifier is None:
            self._thread_notifier = Notifier()
        notifier = self._thread_notifier
        self._bind(notifier)
        if not self._arm():
            self._raise_if_ended()
            return True
        left = -1.0 if deadline is None else deadline - time.monotonic()
        if deadline is not None and left <= 0:
            return False
        self.node._wait(notifier, left)
        notifier.ready()
        return True

    # starting others --------------------------------------------------------------

    def spawn_request(
        self,
        node: str,
        module: str,
        function: str,
        args: list[Any],
        *,
        link: bool = False,
        monitor: bool = False,
    ) -> Reference:
        """Asks another node to start `module:function(args...)`, as erlang:spawn_request/5 does.

        `("spawn_reply", reference, "ok", pid)` or `(..., "error", reason)` answers. link,
        monitor: with this process, from its first moment on; the reference is the monitor's too.
        """
        options = [Atom(name) for name, on in (("link", link), ("monitor", monitor)) if on]
        return self._spawn_request(node, module, function, list(args), options)

    # ending --------------------------------------------------------------------

    def close(self, reason: Any = "normal") -> None:
        """Ends the process: its name is free, links and monitors are told `reason`.

        What was accepted can still be read; afterwards receiving raises ExitSignal.
        A second close does nothing. A str reason is an atom.
        """
        self._exit(reason)
        self.node._forget(self)

    def _end(self, reason: str) -> None:
        """The node stops: closes, and wakes a receiver whose loop is let go of next."""
        self.close(reason)
        with contextlib.suppress(RuntimeError):  # that loop is closed
            self._wake_soon()

    def __enter__(self) -> Mailbox:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __copy__(self) -> Mailbox:
        raise RouterError("a mailbox cannot be copied; send its pid instead")

    def __reduce__(self) -> Any:
        raise TypeError("a mailbox cannot be pickled; send its pid instead")
