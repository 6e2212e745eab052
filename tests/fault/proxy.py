"""A TCP proxy that does to a stream what networks do.

    with Proxy(("127.0.0.1", port)) as proxy:
        proxy.down = Faults(cut_after=100)
        ...connect to proxy.address...

`up` is what the client sends to the target, `down` what comes back. Offsets count the bytes of one
connection in one direction from 0. Faults count for connections accepted after they are set. The
proxy has a thread of its own, so tests may block or run a loop, and `wait_until` takes the place
of sleeping.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal, Self

Way = Literal["up", "down"]

CHUNK_BYTES = 64 * 1024
PATIENCE_S = 20.0
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Faults:
    """What befalls one direction of a connection. The default is nothing."""

    cut_after: int | None = None
    """Forward so many bytes, then end the connection on both sides."""
    reset: bool = False
    """Let that end be a reset (RST) instead of an orderly one."""
    stall_after: int | None = None
    """Forward so many bytes, then read no more of this direction and keep everything open."""
    swallow_after: int | None = None
    """Forward so many bytes, then read on and throw away: the sender notices nothing."""
    corrupt_at: int | None = None
    """Change the byte at this offset."""
    corrupt_mask: int = 0xFF
    """The bits of it that are turned over."""
    split: int | None = None
    """Write at most so many bytes at a time."""
    delay: float = 0.0
    """Seconds that each chunk is kept back."""

    def __post_init__(self) -> None:
        if sum(x is not None for x in (self.cut_after, self.stall_after, self.swallow_after)) > 1:
            raise ValueError("cut_after, stall_after and swallow_after exclude each other")
        if self.reset and self.cut_after is None:
            raise ValueError("reset needs cut_after")
        if self.split is not None and self.split < 1:
            raise ValueError(f"split must be at least 1, not {self.split}")

    @property
    def forwarded_max(self) -> int | None:
        """Bytes that get through, or None for all."""
        for limit in (self.cut_after, self.stall_after, self.swallow_after):
            if limit is not None:
                return limit
        return None


class _CutError(Exception):
    """The end that `cut_after` asks for."""

    def __init__(self, reset: bool) -> None:
        self.reset = reset


@dataclass(eq=False)
class Connection:
    """One client's connection; the counts may be read from any thread."""

    client: socket.socket
    faults: dict[Way, Faults]
    target: socket.socket | None = None
    forwarded: dict[Way, int] = field(default_factory=lambda: {"up": 0, "down": 0})
    swallowed: dict[Way, int] = field(default_factory=lambda: {"up": 0, "down": 0})
    open: bool = True
    task: asyncio.Task[None] | None = None

    def sockets(self) -> list[socket.socket]:
        return [s for s in (self.client, self.target) if s is not None]


class Proxy:
    """Listens on a free port and forwards each connection to `target`."""

    def __init__(
        self,
        target: tuple[str, int],
        *,
        host: str = "127.0.0.1",
        up: Faults | None = None,
        down: Faults | None = None,
    ) -> None:
        self.target = target
        self.up = up or Faults()
        self.down = down or Faults()
        self.connections: list[Connection] = []
        self._changed = threading.Condition()
        self._family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._host = host
        self._thread: threading.Thread | None = None

    # Start and stop

    def start(self) -> Self:
        self._listener = socket.create_server(
            (self._host, 0), family=self._family, backlog=128, reuse_port=False
        )
        self._listener.setblocking(False)
        self.host, self.port = self._listener.getsockname()[:2]
        self._loop = asyncio.new_event_loop()
        # asyncio's own events: these belong to the proxy's loop alone.
        self._gates: dict[Way, asyncio.Event] = {"up": asyncio.Event(), "down": asyncio.Event()}
        for gate in self._gates.values():
            gate.set()
        self._serving = self._loop.create_task(self._serve())
        self._thread = threading.Thread(target=self._run, name="fault proxy", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Close everything, in order; harmless when stopped."""
        if self._thread is None:
            return
        self._loop.call_soon_threadsafe(self._serving.cancel)
        self._thread.join()
        self._thread = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def address(self) -> tuple[str, int]:
        return self.host, self.port

    # What a test does to connections that stand

    def hold(self, way: Way) -> None:
        """Keep back what comes this way on every connection, until `release`.

        Bytes that were read before may still arrive.
        """
        self._in_loop(self._gates[way].clear)

    def release(self, way: Way) -> None:
        self._in_loop(self._gates[way].set)

    def reset_all(self) -> None:
        """Reset both sides of every connection."""
        self._end_all(reset=True)

    def close_all(self) -> None:
        """Close both sides of every connection."""
        self._end_all(reset=False)

    # What a test sees

    def open_connections(self) -> int:
        return sum(c.open for c in self.connections)

    def forwarded(self, way: Way) -> int:
        """Bytes forwarded this way, all connections together."""
        return sum(c.forwarded[way] for c in self.connections)

    def wait_until(self, condition: Callable[[], bool], timeout: float = PATIENCE_S) -> None:
        """Wait for a condition over this proxy's connections and counts."""
        with self._changed:
            if not self._changed.wait_for(condition, timeout):
                raise TimeoutError("the proxy did not come to this state in time")

    # The proxy's thread

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._serving)
        asyncio.set_event_loop(None)
        self._loop.close()

    def _in_loop(self, action: Callable[[], None]) -> None:
        async def act() -> None:
            action()

        asyncio.run_coroutine_threadsafe(act(), self._loop).result(PATIENCE_S)

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    async def _serve(self) -> None:
        try:
            while True:
                client, _ = await self._loop.sock_accept(self._listener)
                connection = Connection(client, {"up": self.up, "down": self.down})
                connection.task = self._loop.create_task(self._carry(connection))
                self.connections.append(connection)
                self._notify()
        finally:
            self._listener.close()
            tasks = [c.task for c in self.connections if c.task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _end_all(self, *, reset: bool) -> None:
        async def end() -> None:
            ending = [c for c in self.connections if c.open]
            for connection in ending:
                if reset:
                    _reset_on_close(connection)
                assert connection.task is not None
                connection.task.cancel()
            await asyncio.gather(*(c.task for c in ending if c.task), return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(PATIENCE_S)

    async def _carry(self, connection: Connection) -> None:
        try:
            await self._connect(connection)
            await self._both_ways(connection)
        except OSError:
            _reset_on_close(connection)  # what befell one side befalls the other
        finally:
            for s in connection.sockets():
                s.close()
            connection.open = False
            self._notify()

    async def _connect(self, connection: Connection) -> None:
        family = socket.AF_INET6 if ":" in self.target[0] else socket.AF_INET
        connection.target = socket.socket(family, socket.SOCK_STREAM)
        for s in connection.sockets():
            s.setblocking(False)
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await self._loop.sock_connect(connection.target, self.target)

    async def _both_ways(self, connection: Connection) -> None:
        assert connection.target is not None
        client, target = connection.client, connection.target
        try:
            await _all_or_first_error(
                self._pump(connection, "up", client, target),
                self._pump(connection, "down", target, client),
            )
        except _CutError as cut:
            if cut.reset:
                _reset_on_close(connection)
                return
            # Closing with unread bytes would be a reset, and could overtake what was forwarded.
            for s in (client, target):
                _end_of_stream(s)
            await _all_or_first_error(self._drain(client), self._drain(target))

    async def _pump(
        self, connection: Connection, way: Way, source: socket.socket, sink: socket.socket
    ) -> None:
        faults = connection.faults[way]
        limit = faults.forwarded_max
        while True:
            done = connection.forwarded[way]
            if limit is not None and done >= limit and faults.swallow_after is None:
                if faults.cut_after is not None:
                    raise _CutError(faults.reset)
                await self._loop.create_future()  # stalled: only the end of the connection ends it
            await self._gates[way].wait()
            data = await self._loop.sock_recv(source, CHUNK_BYTES)
            await self._gates[way].wait()
            if faults.delay:
                await asyncio.sleep(faults.delay)
            if not data:
                if not (faults.swallow_after is not None and connection.swallowed[way]):
                    _end_of_stream(sink)
                return
            through = data if limit is None else data[: limit - done]
            await self._forward(connection, way, _corrupted(through, done, faults), sink)
            if faults.swallow_after is not None:
                connection.swallowed[way] += len(data) - len(through)
                self._notify()

    async def _forward(
        self, connection: Connection, way: Way, data: bytes, sink: socket.socket
    ) -> None:
        size = connection.faults[way].split or CHUNK_BYTES
        for at in range(0, len(data), size):
            piece = data[at : at + size]
            await self._loop.sock_sendall(sink, piece)
            connection.forwarded[way] += len(piece)
            self._notify()

    async def _drain(self, source: socket.socket) -> None:
        while await self._loop.sock_recv(source, CHUNK_BYTES):
            pass


def _corrupted(data: bytes, offset: int, faults: Faults) -> bytes:
    """`data`, which begins at `offset` of the stream, with the fault's byte changed."""
    if faults.corrupt_at is None or not 0 <= faults.corrupt_at - offset < len(data):
        return data
    changed = bytearray(data)
    changed[faults.corrupt_at - offset] ^= faults.corrupt_mask
    return bytes(changed)


def _end_of_stream(s: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it may be gone already
        s.shutdown(socket.SHUT_WR)


def _reset_on_close(connection: Connection) -> None:
    for s in connection.sockets():
        with contextlib.suppress(OSError):
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)


async def _all_or_first_error(*work: Awaitable[None]) -> None:
    """Like gather, but when one part fails the others are ended before the error is raised."""
    tasks = [asyncio.ensure_future(w) for w in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
