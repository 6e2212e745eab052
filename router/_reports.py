"""Waiting for what a node's engine reports, on a loop or in a thread; and its log lines."""

from __future__ import annotations

import asyncio
import logging
import os
import time

from router import _core
from router._core import NodeCore, Notifier
from router._loop import running_loop
from router.errors import NameTaken, NodeDown

__all__ = ["ReportingNode", "Waiter"]

log = logging.getLogger("router")


class Waiter:
    """Somebody who waits for a connection or a drained buffer: a future or a thread."""

    __slots__ = ("done", "error", "future", "notifier")

    def __init__(self, future: asyncio.Future[None] | None) -> None:
        self.future = future
        self.notifier = Notifier() if future is None else None
        self.done = False
        self.error: BaseException | None = None

    def finish(self, error: BaseException | None) -> None:
        self.error = error
        self.done = True
        if self.future is None:
            # The event that settled it may have been taken by another thread.
            assert self.notifier is not None
            self.notifier.poke()
            return
        loop = self.future.get_loop()
        try:
            if running_loop() is loop:
                self._settle()
            else:
                loop.call_soon_threadsafe(self._settle)
        except RuntimeError:  # that loop is closed: nobody waits
            pass

    def _settle(self) -> None:
        if self.future is None or self.future.done():
            return
        if self.error is None:
            self.future.set_result(None)
        else:
            self.future.set_exception(self.error)


class ReportingNode(NodeCore):
    """The part of a node that acts on what the engine reports."""

    _full_name: str

    def __init__(self) -> None:
        self._connecting: dict[str, list[Waiter]] = {}  # by peer; "" for the port mapper
        self._leaving: set[str] = set()  # disconnect was asked for and is not done
        self._draining: list[Waiter] = []

    def _reach(self, peer: _core.Peer) -> None:
        raise NotImplementedError

    def _give_up_resolving(self, name: str) -> None:
        raise NotImplementedError

    def _handle_events(self) -> None:
        """Acts on what the engine reported; called on a loop's turn or by a waiting thread."""
        for kind, name, code, sys_, lost, text in self._take_events():
            if kind == _core.EVENT_UP:
                log.info("%s: connected to %s", self._full_name, name)
                self._leaving.discard(name)
                self._settle(self._connecting.pop(name, []), None)
            elif kind == _core.EVENT_FAILED:
                level = logging.WARNING if lost else logging.INFO
                log.log(
                    level,
                    "%s: cannot connect to %s: %s%s",
                    self._full_name,
                    name,
                    text,
                    _lost(lost),
                )
                # The peer was idle before this was told: if it is not, a later attempt is under
                # way, and who waits now waits for that.
                if not self.running or not self._peer(name).state:
                    error = _core.connect_error(code, text, name)
                    self._settle(self._connecting.pop(name, []), error)
            elif kind == _core.EVENT_DOWN:
                level = logging.WARNING if lost else logging.INFO
                log.log(
                    level,
                    "%s: connection with %s ended: %s%s",
                    self._full_name,
                    name,
                    text,
                    _lost(lost),
                )
            elif kind == _core.EVENT_REFUSED:
                # Both connected at once, and one of the two gave way: that is normal life.
                log.log(
                    logging.DEBUG if code == _core.CODE_ENOK else logging.WARNING,
                    "%s: refused a connection from %s: %s",
                    self._full_name,
                    name or "an unknown node",
                    text,
                )
            elif kind == _core.EVENT_REGISTERED:
                log.info(
                    "%s: registered%s",
                    self._full_name,
                    "; serving the port mapper of this host" if code else "",
                )
                self._settle(self._connecting.pop("", []), None)
            elif kind == _core.EVENT_UNREGISTERED:
                self._unregistered(code, text)
            elif kind == _core.EVENT_OVERFLOW:
                log.warning("%s: a full mailbox was closed (overflow)", self._full_name)
            elif kind == _core.EVENT_ACCEPT:
                log.error(
                    "%s: cannot accept connections: %s; trying again",
                    self._full_name,
                    os.strerror(sys_),
                )
            if kind in (_core.EVENT_DOWN, _core.EVENT_FAILED):
                self._leaving.discard(name)
                if not self.running or self._peer(name).state != 1:  # else a later attempt's
                    self._give_up_resolving(name)
            if kind == _core.EVENT_DOWN and self._connecting.get(name) and self.running:
                # Who asked after a disconnect wants the connection that comes next.
                self._reach(self._peer(name))
            if kind in (_core.EVENT_DRAINED, _core.EVENT_DOWN, _core.EVENT_FAILED):
                waiting, self._draining = self._draining, []
                self._settle(waiting, None)
        dropped = self._events_dropped()
        if dropped and self.running:
            self._catch_up(dropped)

    def _catch_up(self, dropped: int) -> None:
        """More happened than could be kept for us: whoever waits for that looks for himself."""
        log.warning("%s: %d events came too fast to be reported", self._full_name, dropped)
        for name in [name for name in self._connecting if name]:
            state = self._peer(name).state
            if state != 1:
                error = None if state else NodeDown(f"cannot connect to {name}: see the peer's log")
                self._settle(self._connecting.pop(name), error)
        self._leaving = {name for name in self._leaving if self._peer(name).state}
        waiting, self._draining = self._draining, []
        self._settle(waiting, None)

    def _unregistered(self, code: int, text: str) -> None:
        if code != _core.CODE_EEXIST:
            log.warning("%s: %s", self._full_name, text)
            return
        error = NameTaken(
            f"another node is registered as {self._full_name.partition('@')[0]!r} "
            "with the port mapper of this host"
        )
        log.error("%s: %s", self._full_name, error)
        self._settle(self._connecting.pop("", []), error)

    @staticmethod
    def _settle(waiters: list[Waiter], error: BaseException | None) -> None:
        for waiter in waiters:
            waiter.finish(error)

    def _wait_for(self, waiter: Waiter, timeout: float | None) -> bool:
        """Blocks this thread, driving the node, until the waiter is done; raises its error."""
        notifier = waiter.notifier
        assert notifier is not None
        deadline = None if timeout is None else time.monotonic() + timeout
        self._listen_events(notifier)
        try:
            while True:
                self._handle_events()
                if waiter.done:
                    if waiter.error is not None:
                        raise waiter.error
                    return True
                left = -1.0 if deadline is None else deadline - time.monotonic()
                if deadline is not None and left <= 0:
                    return False
                self._wait(notifier, left)
        finally:
            self._ignore_events(notifier)


def _lost(count: int) -> str:
    return f"; {count} message{'s' if count != 1 else ''} lost" if count else ""
