"""Connections of a node, as its program asks for them, and how full they are."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from router import _core
from router._arguments import cookie_bytes, is_port, is_text
from router._loop import LoopBinding, running_loop
from router._reports import ReportingNode, Waiter
from router.errors import BufferFull, NodeDown, RouterError
from router.etf import Pid

__all__ = ["ConnectingNode", "Resolver"]

log = logging.getLogger("router")

Resolver = Callable[[str], "tuple[str, int] | Awaitable[tuple[str, int]]"]
"""Takes a node name, gives (host, port), now or as an awaitable."""


class _Resolving:
    """A resolver that has not answered yet, on its loop."""

    __slots__ = ("given_up", "loop", "task")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.task: asyncio.Task[None] | None = None
        self.given_up = False

    def give_up(self) -> None:
        """Its answer, should it come, is not wanted any more. Any thread."""
        self.given_up = True
        if self.task is None:
            return
        with contextlib.suppress(RuntimeError):  # that loop is closed
            self.loop.call_soon_threadsafe(self.task.cancel)


class ConnectingNode(ReportingNode):
    """The part of a node that connects."""

    _epmd: str
    _config: dict[str, Any]

    def __init__(self, resolver: Resolver | None) -> None:
        super().__init__()
        self._resolver = resolver
        self._addresses: dict[str, tuple[str | None, int]] = {}
        self._bindings: dict[asyncio.AbstractEventLoop, LoopBinding] = {}
        self._resolving: dict[str, _Resolving] = {}

    def _binding(self, loop: asyncio.AbstractEventLoop) -> LoopBinding:
        raise NotImplementedError

    def nodes(self) -> list[str]:
        """The names of the nodes that are connected, hidden ones too."""
        self._handle_events()
        return self._peers_up()

    async def connect(
        self,
        name: str,
        timeout: float = 7.0,
        *,
        host: str | None = None,
        port: int | None = None,
        cookie: str | bytes | None = None,
    ) -> None:
        """Connects to the node `name`, or returns at once when it is connected.

        timeout: seconds. host, port: where it listens, for nodes without a port
        mapper; kept for later connects. cookie: for this peer alone, kept too.

        Raises NodeDown (unreachable, unknown, no answer in time), HandshakeError
        (wrong cookie, missing flag), NotAllowed, ValueError (no node name).
        """
        peer = self._prepare(name, host, port, cookie)
        if self._is_up(peer):
            return
        loop = asyncio.get_running_loop()
        self._binding(loop)
        future: asyncio.Future[None] = loop.create_future()
        waiter = self._await_connection(peer, future)
        try:
            async with asyncio.timeout(timeout):
                await future
        except TimeoutError:
            raise NodeDown(f"{name}: no connection within {timeout} s") from None
        finally:
            self._forget_waiter(name, waiter)

    def connect_sync(
        self,
        name: str,
        timeout: float = 7.0,
        *,
        host: str | None = None,
        port: int | None = None,
        cookie: str | bytes | None = None,
    ) -> None:
        """`connect` for a thread without an event loop."""
        peer = self._prepare(name, host, port, cookie)
        if self._is_up(peer):
            return
        waiter = self._await_connection(peer, None)
        try:
            if not self._wait_for(waiter, timeout):
                raise NodeDown(f"{name}: no connection within {timeout} s")
        finally:
            self._forget_waiter(name, waiter)

    def _prepare(
        self, name: str, host: str | None, port: int | None, cookie: str | bytes | None
    ) -> _core.Peer:
        peer = self._peer(name)
        if host is not None and not is_text(host):
            raise ValueError(f"host is a name or an address, not {host!r}")
        if port is not None and not is_port(port):
            raise ValueError(f"port is between 1 and 65535, not {port!r}")
        if host is not None or port is not None:
            self._addresses[name] = (host, port or 0)
        if cookie is not None:
            self._set_cookie(peer, cookie_bytes(cookie))
        return peer

    def _await_connection(self, peer: _core.Peer, future: asyncio.Future[None] | None) -> Waiter:
        waiter = Waiter(future)
        # Events that are still unread speak of an earlier attempt.
        self._handle_events()
        self._connecting.setdefault(peer.name, []).append(waiter)
        self._take_over_resolving(peer)
        self._reach(peer)
        if self._is_up(peer):
            waiter.finish(None)
        return waiter

    def _is_up(self, peer: _core.Peer) -> bool:
        return peer.state == 2 and peer.name not in self._leaving

    def _reach(self, peer: _core.Peer) -> None:
        if self._hold(peer):
            self._connect_held(peer)

    def _forget_waiter(self, name: str, waiter: Waiter) -> None:
        waiters = self._connecting.get(name)
        if waiters and waiter in waiters:
            waiters.remove(waiter)

    def _connect_held(self, peer: _core.Peer) -> None:
        address = self._addresses.get(peer.name)
        try:
            if address is None and self._resolver is not None:
                found = self._resolver(peer.name)
                if inspect.isawaitable(found):
                    self._resolve_later(peer, found)
                    return
                address = found
            if address is not None:
                self._dial(peer, *address)
            elif self._epmd == "none":
                self._abandon(
                    peer, "no port mapper (epmd='none'): connect(name, host=, port=) or a resolver"
                )
            else:
                self._dial(peer, None, 0)
        except BaseException as e:
            self._abandon(peer, f"the resolver failed: {str(e) or type(e).__name__}")
            if not isinstance(e, Exception):
                raise

    def _resolve_later(self, peer: _core.Peer, found: Awaitable[tuple[str, int]]) -> None:
        loop = running_loop() or next((x for x in self._bindings if x.is_running()), None)
        if loop is None:
            if inspect.iscoroutine(found):
                found.close()
            raise RouterError("an asynchronous resolver needs a running event loop")
        self._give_up_resolving(peer.name)
        resolving = self._resolving[peer.name] = _Resolving(loop)
        seconds = self._config["limits"]["connect_ms"] / 1000

        async def resolve() -> None:
            try:
                async with asyncio.timeout(seconds):
                    address = await found
            except BaseException as e:
                self._resolved(peer, resolving, e)
                if not isinstance(e, Exception):
                    raise
            else:
                self._resolved(peer, resolving, address)

        def begin() -> None:
            if not resolving.given_up:
                resolving.task = loop.create_task(resolve())
            elif inspect.iscoroutine(found):
                found.close()

        if loop is running_loop():
            begin()
        else:
            loop.call_soon_threadsafe(begin)

    def _resolved(
        self, peer: _core.Peer, resolving: _Resolving, found: tuple[str, int] | BaseException
    ) -> None:
        if resolving.given_up or not self.running:
            return
        self._resolving.pop(peer.name, None)
        try:
            if isinstance(found, BaseException):
                raise found
            self._dial(peer, *found)
        except BaseException as e:
            self._abandon(peer, f"the resolver failed: {str(e) or type(e).__name__}")

    def _give_up_resolving(self, name: str) -> None:
        resolving = self._resolving.pop(name, None)
        if resolving is not None:
            resolving.give_up()

    def _take_over_resolving(self, peer: _core.Peer) -> None:
        """Asks again when the loop on which the resolver waits does not run."""
        resolving = self._resolving.get(peer.name)
        if resolving is not None and not resolving.loop.is_running():
            self._give_up_resolving(peer.name)
            self._connect_held(peer)

    def disconnect(self, name: str) -> None:
        """Closes the connection with `name`, or gives up connecting; nothing when there is none.

        Does not wait for it. A connect that follows makes a new connection.
        """
        peer = self._peer(name)
        self._handle_events()
        if peer.state:
            self._leaving.add(peer.name)
        self._give_up_resolving(peer.name)
        self._disconnect(peer)

    def _send_or_part(self, dest: Any, term: Any, sender: Any) -> None:
        """For what a peer must not miss while it is connected: one whose buffer is full is
        disconnected. It is told everything again when its connection comes back, and what is
        said to it makes none: that its connection has ended may not have been told here yet."""
        try:
            self._send_where_up(dest, term, sender)
        except BufferFull as e:
            node = dest.node if isinstance(dest, Pid) else dest[1]
            log.error("%r: %s has missed something, and is disconnected: %s", sender, node, e)
            self.disconnect(node)

    # outgoing buffers ---------------------------------------------------------------

    async def drain(self, peer: str | None = None) -> None:
        """Waits until the outgoing buffer of `peer`, or of every peer, is below its soft mark.

        It does not write: what was gathered goes at 256 KiB and at the end of the loop's turn, or
        5 ms later when that end does not come (with engine="inline" it does write). A peer that
        is down has no buffer, nor has a stopped node. The mark is `Limits.queue_bytes_soft`.
        """
        loop = asyncio.get_running_loop()
        self._binding(loop)
        if self._paced(loop):
            await asyncio.sleep(0)
        while self._above_soft(peer):
            self._flush()
            waiter = Waiter(loop.create_future())
            self._draining.append(waiter)
            if not self._above_soft(peer):
                break
            assert waiter.future is not None
            await waiter.future

    def drain_sync(self, peer: str | None = None, timeout: float | None = None) -> None:
        """`drain` for a thread without an event loop. Raises TimeoutError."""
        self._flush()
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._above_soft(peer):
            waiter = Waiter(None)
            self._draining.append(waiter)
            if not self._above_soft(peer):
                break
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not self._wait_for(waiter, left):
                raise TimeoutError("the outgoing buffer is still above its mark")
