"""A node: processes of this program in a cluster of Erlang nodes."""

from __future__ import annotations

import asyncio
import atexit
import inspect
import logging
import os
import socket
import time
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import NoneType, TracebackType
from typing import Any, TypeVar

from router import _calls, _core
from router._core import NodeCore, Notifier
from router._loop import LoopBinding
from router.errors import NameTaken, NodeDown, RouterError
from router.etf import Codec, Reference
from router.limits import Limits
from router.mailbox import Mailbox

__all__ = ["Node", "Resolver"]

log = logging.getLogger("router")

Resolver = Callable[[str], "tuple[str, int] | Awaitable[tuple[str, int]]"]
"""Takes a node name, gives (host, port), now or as an awaitable."""

_START_SECONDS = 10.0
_LINGER_SECONDS = 1.0
_NAMED_MARK = 64


class _Waiter:
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
            if _running_loop() is loop:
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


class Node(NodeCore):
    """A node that other Erlang, Elixir and router nodes can reach.

    name: `name@host`. The host is where peers find this node.
    cookie: the cluster's shared secret; None reads `~/.erlang.cookie`.
    listen: address to listen on, `"host"`, `"host:port"` or `(host, port)`; None
        takes the address that the host in the name resolves to; False does not
        listen: such a node only connects out.
    hidden: True keeps the node out of the others' `nodes()`, as Erlang's
        `-hidden` does.
    epmd: `"auto"` registers with the port mapper of this host, and serves one
        when none runs; `"none"` does without: peers are reached by
        `connect(name, host=, port=)` or through `resolver`.
    epmd_port: of every host; None takes the environment's ERL_EPMD_PORT or 4369.
    epmd_any: the embedded port mapper listens on every address, not on loopback
        alone, so that other hosts can look nodes up.
    net_ticktime: seconds of silence after which a peer counts as down (within a
        quarter); the same on all nodes of a cluster.
    engine: who drives sockets and timers. `"auto"`: the event loop or the waiting
        thread, and a thread of the node's own when those are busy; `"thread"`:
        that thread always; `"inline"`: never a thread, so that a program that
        computes without yielding falls out of the cluster.
    relay: forward messages that are for other connected nodes.
    codec: an `etf.Codec` with policies for this node's terms.
    limits: a `Limits`, or a dict of those to change.
    resolver: `f(name) -> (host, port)`, plain or coroutine function, asked before
        each connect.

    A node runs once: from `start` (or entering `with` / `async with`) to `stop`.
    """

    def __init__(
        self,
        name: str,
        *,
        cookie: str | bytes | None = None,
        listen: str | tuple[str, int] | bool | None = None,
        hidden: bool = True,
        epmd: str = "auto",
        epmd_port: int | None = None,
        epmd_any: bool = False,
        net_ticktime: float = 60,
        engine: str = "auto",
        threads: int = 1,
        relay: bool = False,
        codec: Any = None,
        limits: Limits | dict[str, int] | None = None,
        resolver: Resolver | None = None,
    ) -> None:
        if not _name_ok(name):
            raise ValueError(f"a node name is name@host, not {name!r}")
        if engine not in list(_core.ENGINES):
            raise ValueError(f"engine is 'auto', 'thread' or 'inline', not {engine!r}")
        if epmd not in ("auto", "none"):
            raise ValueError(f"epmd is 'auto' or 'none', not {epmd!r}")
        if threads != 1:
            raise ValueError("threads: only 1 is supported in this version")
        seconds: object = net_ticktime
        if not isinstance(seconds, (int, float)) or not 0 < seconds < 1e6:
            raise ValueError(f"net_ticktime is a positive number of seconds, not {net_ticktime!r}")
        if isinstance(limits, dict):
            limits = Limits(**limits)
        if not isinstance(limits, (Limits, NoneType)):
            raise TypeError(f"limits is a Limits or a dict, not {type(limits).__name__}")
        if not isinstance(codec, (Codec, NoneType)):
            raise TypeError(f"codec is an etf.Codec, not {type(codec).__name__}")
        if resolver is not None and not callable(resolver):
            raise TypeError(f"resolver is a function, not {type(resolver).__name__}")
        self._config: dict[str, Any] = {
            "hidden": bool(hidden),
            "relay": bool(relay),
            "engine": _core.ENGINES[engine],
            "epmd": _core.EPMD_MODES[epmd],
            "epmd_port": _epmd_port(epmd_port),
            "epmd_any": bool(epmd_any),
            "net_ticktime": float(net_ticktime),
            "limits": (limits or Limits()).as_dict(),
            "codec": codec,
        }
        self._full_name = name
        self._cookie = _cookie(cookie)
        self._listen = _listen(listen)
        self._epmd = epmd
        self._engine = engine
        self._resolver = resolver
        self._addresses: dict[str, tuple[str | None, int]] = {}
        self._bindings: dict[asyncio.AbstractEventLoop, LoopBinding] = {}
        self._driver: LoopBinding | None = None
        self._named: dict[str, Mailbox] = {}
        self._named_mark = _NAMED_MARK
        self._callbacks: set[Mailbox] = set()
        self._boxes: weakref.WeakSet[Mailbox] = weakref.WeakSet()
        self._connecting: dict[str, list[_Waiter]] = {}
        self._leaving: set[str] = set()  # disconnect was asked for and is not done
        self._draining: list[_Waiter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._registered: BaseException | bool | None = None
        self._callers: dict[asyncio.AbstractEventLoop, _calls.Caller] = {}
        self._used = False

    def __repr__(self) -> str:
        state = "running" if self.running else "stopped" if self._used else "not started"
        return f"<Node {self._full_name} {state}>"

    # life ------------------------------------------------------------------

    async def start(self) -> None:
        """Listens and registers with the port mapper.

        Raises NameTaken, OSError when the address cannot be had, RouterError when
        the port mapper does not answer, RuntimeError when the node ran before.
        """
        loop = asyncio.get_running_loop()
        listen = (
            await loop.run_in_executor(None, self._listen_address)
            if self._slow()
            else (self._listen_address())
        )
        self._begin(listen)
        try:
            self._binding(loop)
            waiter = _Waiter(loop.create_future())
            self._connecting.setdefault("", []).append(waiter)
            self._handle_events()
            assert waiter.future is not None
            async with asyncio.timeout(_START_SECONDS):
                await waiter.future
        except TimeoutError:
            await self.stop()
            raise RouterError(f"{self._full_name}: the port mapper does not answer") from None
        except BaseException:
            await self.stop()
            raise
        self._identify()

    def start_sync(self) -> None:
        """`start` for a program without an event loop."""
        self._begin(self._listen_address())
        waiter = _Waiter(None)
        self._connecting.setdefault("", []).append(waiter)
        try:
            if not self._wait_for(waiter, _START_SECONDS):
                raise RouterError(f"{self._full_name}: the port mapper does not answer")
        except BaseException:
            self.stop_sync()
            raise
        self._identify()

    def _begin(self, listen: tuple[str, int] | None) -> None:
        if self._used:
            raise RuntimeError("a node runs once; make a new Node")
        self._used = True
        _live.add(self)
        self._open(self._full_name, self._cookie, listen=listen, **self._config)
        self._start()

    async def stop(self) -> None:
        """Ends every process with reason `shutdown`, writes what waits, disconnects.

        Waits at most a second for peers to take what is queued. A second stop
        does nothing.
        """
        try:
            self._close_boxes()
            if self.running and any(row[6] for row in self._stats()):
                await asyncio.get_running_loop().run_in_executor(None, self._linger)
        finally:
            self._finish()

    def stop_sync(self) -> None:
        """`stop` for a program without an event loop."""
        try:
            self._close_boxes()
            if self.running and any(row[6] for row in self._stats()):
                self._linger()
        finally:
            self._finish()

    def _close_boxes(self) -> None:
        if not self.running:
            return
        for task in list(self._tasks):
            task.cancel()
        for box in _members(self._boxes):
            box._end("shutdown")
        self._flush()

    def _linger(self) -> None:
        """Blocks until nothing is queued for a connected peer, or a second passed."""
        notifier = Notifier()
        deadline = time.monotonic() + _LINGER_SECONDS
        while self.running and any(row[1] == 2 and row[6] for row in self._stats()):
            left = deadline - time.monotonic()
            if left <= 0:
                break
            self._drive()
            self._wait(notifier, min(left, 0.01))

    def _finish(self) -> None:
        self._handle_events()
        for binding in list(self._bindings.values()):
            binding.detach()
        self._bindings.clear()
        self._driver = None
        self._stop()
        for box in _members(self._boxes):  # those that threads made meanwhile
            box._end("shutdown")
        self._callbacks.clear()
        self._named.clear()
        error = RouterError(f"the node {self._full_name} has stopped")
        for waiters in [*self._connecting.values(), self._draining]:
            for waiter in waiters:
                waiter.finish(error)
        self._connecting.clear()
        self._draining.clear()
        for caller in list(self._callers.values()):
            caller.stop(error)
        self._callers.clear()
        self._handle_events()  # what the end cost
        _live.discard(self)

    async def __aenter__(self) -> Node:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.stop()

    def __enter__(self) -> Node:
        self.start_sync()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.stop_sync()

    def __del__(self) -> None:
        for binding in list(getattr(self, "_bindings", {}).values()):
            binding.detach()

    def _slow(self) -> bool:
        """True when finding the listen address may ask a name server."""
        return self._listen is not False and not _numeric(self._listen_host()[0])

    def _listen_host(self) -> tuple[str, int]:
        if isinstance(self._listen, tuple):
            return self._listen
        return self._full_name.partition("@")[2], 0

    def _listen_address(self) -> tuple[str, int] | None:
        if self._listen is False:
            return None
        host, port = self._listen_host()
        if _numeric(host):
            return host, port
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as e:
            raise RouterError(
                f"cannot listen: the host {host!r} in the node's name does not resolve ({e}); "
                "pass listen= with an address of this machine"
            ) from e
        return str(found[0][4][0]), port

    # the engine --------------------------------------------------------------

    def _binding(self, loop: asyncio.AbstractEventLoop) -> LoopBinding:
        """The tie of this node to the running loop, made on first use."""
        if not self.running:
            raise RouterError(f"the node {self._full_name} is not running")
        binding, driver = self._bindings.get(loop), self._driver
        undriven = self._engine != "thread" and (driver is None or driver.stale)
        if binding is not None and not binding.stale and not undriven:
            return binding
        for other in [b for b in list(self._bindings.values()) if b.stale]:
            other.detach()
            self._bindings.pop(other.loop, None)
        if binding is None or binding.stale:
            binding = self._bindings[loop] = LoopBinding(self, loop)
        if undriven:
            binding.drive()
            self._driver = binding
        return binding

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
                self._settle(self._connecting.pop(name, []), _core.connect_error(code, text, name))
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
                log.warning(
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
            if kind == _core.EVENT_DOWN and self._connecting.get(name) and self.running:
                # Who asked after a disconnect wants the connection that comes next.
                self._reach(self._peer(name))
            if kind in (_core.EVENT_DRAINED, _core.EVENT_DOWN, _core.EVENT_FAILED):
                waiting, self._draining = self._draining, []
                self._settle(waiting, None)
        dropped = self._events_dropped()
        if dropped:
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
    def _settle(waiters: list[_Waiter], error: BaseException | None) -> None:
        for waiter in waiters:
            waiter.finish(error)

    def _wait_for(self, waiter: _Waiter, timeout: float | None) -> bool:
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

    # peers -----------------------------------------------------------------------

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
        if host is not None and not _text(host):
            raise ValueError(f"host is a name or an address, not {host!r}")
        if port is not None and not _is_port(port):
            raise ValueError(f"port is between 1 and 65535, not {port!r}")
        if host is not None or port is not None:
            self._addresses[name] = (host, port or 0)
        if cookie is not None:
            self._set_cookie(peer, _cookie(cookie))
        return peer

    def _await_connection(self, peer: _core.Peer, future: asyncio.Future[None] | None) -> _Waiter:
        waiter = _Waiter(future)
        # Events that are still unread speak of an earlier attempt.
        self._handle_events()
        self._connecting.setdefault(peer.name, []).append(waiter)
        self._reach(peer)
        if self._is_up(peer):
            waiter.finish(None)
        return waiter

    def _is_up(self, peer: _core.Peer) -> bool:
        return peer.state == 2 and peer.name not in self._leaving

    def _reach(self, peer: _core.Peer) -> None:
        if self._hold(peer):
            self._connect_held(peer)

    def _forget_waiter(self, name: str, waiter: _Waiter) -> None:
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
        async def resolve() -> None:
            try:
                self._dial(peer, *(await found))
            except (Exception, asyncio.CancelledError) as e:
                self._abandon(peer, f"the resolver failed: {str(e) or type(e).__name__}")
                if isinstance(e, asyncio.CancelledError):
                    raise

        def begin(loop: asyncio.AbstractEventLoop) -> None:
            task = loop.create_task(resolve())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        running = _running_loop()
        if running is not None:
            begin(running)
            return
        for loop in self._bindings:
            if loop.is_running():
                loop.call_soon_threadsafe(begin, loop)
                return
        if inspect.iscoroutine(found):
            found.close()
        raise RouterError("an asynchronous resolver needs a running event loop")

    def disconnect(self, name: str) -> None:
        """Closes the connection with `name`, or gives up connecting; nothing when there is none.

        Does not wait for it. A connect that follows makes a new connection.
        """
        peer = self._peer(name)
        self._handle_events()
        if peer.state:
            self._leaving.add(peer.name)
        self._disconnect(peer)

    async def ping(self, name: str, timeout: float = 7.0) -> bool:
        """True when `name` is, or can be, connected and its net_kernel answers."""
        if name == self._full_name:
            return True
        try:
            await self.connect(name, timeout)
            answer = await self.call(
                (_calls.NET_KERNEL, name), (_calls.IS_AUTH, self.atom), timeout
            )
        except (RouterError, TimeoutError):
            return False
        return bool(answer == "yes")

    def ping_sync(self, name: str, timeout: float = 7.0) -> bool:
        """`ping` for a thread without an event loop."""
        if name == self._full_name:
            return True
        try:
            self.connect_sync(name, timeout)
            answer = self.call_sync((_calls.NET_KERNEL, name), (_calls.IS_AUTH, self.atom), timeout)
        except (RouterError, TimeoutError):
            return False
        return bool(answer == "yes")

    def monitor_nodes(self, box: Mailbox, on: bool = True) -> None:
        """Sends `("nodeup", name)` and `("nodedown", name)` to `box` from now on, or no more."""
        if getattr(box, "node", None) is not self:
            raise ValueError(f"monitor_nodes takes a Mailbox of this node, not {box!r}")
        box._watch_nodes(on)

    # outgoing buffers ---------------------------------------------------------------

    def _full(self, peer: str | None) -> bool:
        soft = self._config["limits"]["queue_bytes_soft"]
        return any(
            row[6] > soft and row[1] > 0 for row in self._stats() if peer is None or row[0] == peer
        )

    async def drain(self, peer: str | None = None) -> None:
        """Waits until the outgoing buffer of `peer`, or of every peer, is below its soft mark.

        A peer that goes down has no buffer. The mark is `Limits.queue_bytes_soft`.
        """
        self._flush()
        loop = asyncio.get_running_loop()
        self._binding(loop)
        while self._full(peer):
            waiter = _Waiter(loop.create_future())
            self._draining.append(waiter)
            if not self._full(peer):
                break
            assert waiter.future is not None
            await waiter.future

    def drain_sync(self, peer: str | None = None, timeout: float | None = None) -> None:
        """`drain` for a thread without an event loop. Raises TimeoutError."""
        self._flush()
        while self._full(peer):
            waiter = _Waiter(None)
            self._draining.append(waiter)
            if not self._full(peer):
                break
            if not self._wait_for(waiter, timeout):
                raise TimeoutError("the outgoing buffer is still above its mark")

    # processes ------------------------------------------------------------------------

    def mailbox(
        self,
        name: str | None = None,
        *,
        limit: int | None = None,
        limit_bytes: int | None = None,
        overflow: str | None = None,
    ) -> Mailbox:
        """Makes a process of this node and gives its mailbox.

        name: registered, so that others reach it by name. limit (messages) and
        limit_bytes bound it; then overflow is `"drop"` (the newest, counted),
        `"close"`, or `"pause"`. Raises NameTaken, ValueError.
        """
        box = Mailbox(self, name, limit=limit, limit_bytes=limit_bytes, overflow=overflow)
        self._boxes.add(box)
        if name is not None:
            self._keep(name, box)
        return box

    def _keep(self, name: str, box: Mailbox) -> None:
        """A named box lives though the program forgets it; not when a signal has ended it."""
        self._named[name] = box
        if len(self._named) > self._named_mark:
            for key, other in list(self._named.items()):
                if other.closed:
                    del self._named[key]
            self._named_mark = 2 * len(self._named) + _NAMED_MARK

    def _forget(self, box: Mailbox) -> None:
        if box.name is not None and self._named.get(box.name) is box:
            del self._named[box.name]
        self._boxes.discard(box)

    def whereis(self, name: str) -> Any:
        """The Pid registered as `name` on this node, or None."""
        return self._whereis(name)

    def reference(self) -> Reference:
        """A new Reference of this node, unlike any other, as make_ref() gives."""
        return self._reference()

    # calls -----------------------------------------------------------------------------

    def _caller(self) -> _calls.Caller:
        loop = asyncio.get_running_loop()
        caller = self._callers.get(loop)
        if caller is None or caller.stale:
            for other in [loop for loop in list(self._callers) if loop.is_closed()]:
                self._callers.pop(other).close()
            caller = self._callers[loop] = _calls.Caller(self)
        return caller

    async def call(self, dest: Any, request: Any, timeout: float = 5.0) -> Any:
        """Calls a gen_server and gives its reply.

        dest: a Pid, a local name or `(name, node)`. timeout: seconds. Raises
        CallTimeout, NoProcess, NodeDown, and RemoteError when the server ended before
        it answered.
        """
        return await self._caller().call(dest, request, timeout)

    def call_sync(self, dest: Any, request: Any, timeout: float = 5.0) -> Any:
        """`call` for a thread without an event loop."""
        return _calls.call_sync(self, dest, request, timeout)

    def cast(self, dest: Any, request: Any) -> None:
        """Sends a request to a gen_server that answers nothing."""
        self.send(dest, (_calls.GEN_CAST, request))

    async def rpc(
        self, node: str, module: str, function: str, args: list[Any], timeout: float = 5.0
    ) -> Any:
        """Runs `module:function(args...)` on `node`, as erpc:call does, and gives its result.

        Raises RemoteError (what it raised), NodeDown, CallTimeout.
        """
        return await self._caller().rpc(node, module, function, args, timeout)

    def rpc_sync(
        self, node: str, module: str, function: str, args: list[Any], timeout: float = 5.0
    ) -> Any:
        """`rpc` for a thread without an event loop."""
        return _calls.rpc_sync(self, node, module, function, args, timeout)

    # looking in ---------------------------------------------------------------------------

    def stats(self) -> Any:
        """One row for each peer known, as a numpy structured array.

        Fields: peer (name), up, messages_in, messages_out, bytes_in, bytes_out,
        queued_bytes, dropped_in (nobody there, or a full box), dropped_out (lost
        with a connection), refused (BufferFull), connects, failures, round_trip
        (seconds, as the kernel estimates it), idle (seconds since it was heard),
        age (seconds connected).
        """
        import numpy as np

        rows = [(row[0], row[1] == 2, *row[2:]) for row in self._stats()]
        return np.array(rows, dtype=np.dtype(_STATS_FIELDS))


_STATS_FIELDS = [
    ("peer", "O"),
    ("up", "?"),
    ("messages_in", "u8"),
    ("messages_out", "u8"),
    ("bytes_in", "u8"),
    ("bytes_out", "u8"),
    ("queued_bytes", "u8"),
    ("dropped_in", "u8"),
    ("dropped_out", "u8"),
    ("refused", "u8"),
    ("connects", "u8"),
    ("failures", "u8"),
    ("round_trip", "f8"),
    ("idle", "f8"),
    ("age", "f8"),
]


def _name_ok(name: object) -> bool:
    if not isinstance(name, str):
        return False
    short, at, host = name.partition("@")
    return bool(short and at and host) and len(name) <= 255 and name.isprintable()


def _lost(count: int) -> str:
    return f"; {count} message{'s' if count != 1 else ''} lost" if count else ""


def _listen(listen: object) -> tuple[str, int] | bool | None:
    """What the argument says, with an address taken apart."""
    if listen is None or isinstance(listen, bool):
        return listen
    host: object = listen
    port: object = 0
    if isinstance(listen, tuple) and len(listen) == 2:
        host, port = listen
    elif isinstance(listen, str) and listen.startswith("["):  # [::1]:port
        host, _, rest = listen[1:].partition("]")
        port = rest[1:] or 0
    elif isinstance(listen, str) and listen.count(":") == 1:
        host, _, port = listen.partition(":")
    if isinstance(port, str) and port.isascii() and port.isdigit():
        port = int(port)
    if isinstance(host, str) and host and isinstance(port, int) and _is_port(port, 0):
        return host, port
    raise ValueError(f"listen is 'host', 'host:port', (host, port) or False, not {listen!r}")


def _text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_port(value: object, least: int = 1) -> bool:
    return isinstance(value, int) and least <= value <= 65535


def _numeric(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        return True
    return False


def default_epmd_port() -> int:
    """The port of port mappers: the environment's ERL_EPMD_PORT, or 4369."""
    return int(os.environ.get("ERL_EPMD_PORT") or 4369)


def _epmd_port(port: int | None) -> int:
    if port is None:
        port = default_epmd_port()
    if not _is_port(port):
        raise ValueError(f"epmd_port is between 1 and 65535, not {port!r}")
    return port


def _cookie(cookie: str | bytes | None) -> bytes:
    if cookie is None:
        path = Path.home() / ".erlang.cookie"
        try:
            cookie = path.read_bytes().strip()
        except OSError as e:
            raise RouterError(
                f"no cookie: pass cookie=, or put the cluster's into {path} ({e.strerror})"
            ) from None
    if not isinstance(cookie, (str, bytes)):
        raise TypeError(f"cookie is a str or bytes, not {type(cookie).__name__}")
    raw = cookie.encode() if isinstance(cookie, str) else cookie
    if len(raw) > 255:
        raise ValueError("a cookie has at most 255 bytes")
    return raw


def _running_loop() -> asyncio.AbstractEventLoop | None:
    return asyncio._get_running_loop()


_T = TypeVar("_T")


def _members(things: weakref.WeakSet[_T]) -> list[_T]:
    """What is in the set, though other threads change it meanwhile."""
    while True:
        try:
            return list(things)
        except RuntimeError:  # it changed while it was copied
            continue


_live: weakref.WeakSet[Node] = weakref.WeakSet()


def _stop_all() -> None:
    """At interpreter exit: threads end, sockets close; peers see a clean disconnect."""
    for node in _members(_live):
        if node.running:
            node._flush()
            node._stop()


def _after_fork() -> None:
    """A child has none of its parent's nodes: their descriptors are closed in it."""
    for node in list(_live):
        for binding in node._bindings.values():
            binding.after_fork()
        node._bindings.clear()
        node._after_fork()
    _live.clear()
    # Of loops, boxes and threads that wait.
    for notifier in list(_core.notifiers):
        notifier.after_fork()
    _core.notifiers.clear()


atexit.register(_stop_all)
os.register_at_fork(after_in_child=_after_fork)
