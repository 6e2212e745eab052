"""The life of a node: its start, its stop, and the loops that drive it meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from router._arguments import numeric
from router._connecting import ConnectingNode, Resolver
from router._core import Notifier
from router._live import live
from router._loop import LoopBinding
from router._reports import Waiter
from router.errors import RouterError
from router.supervising import Supervisor

if TYPE_CHECKING:
    from router._calls import Calls
    from router.global_names import GlobalNames
    from router.mailbox import Mailbox
    from router.serving import Server
    from router.spawning import Processes

__all__ = ["LivingNode"]

_START_SECONDS = 10.0
_LINGER_SECONDS = 1.0
_PROCESSES_SECONDS = 5.0


class LivingNode(ConnectingNode):
    """The part of a node that starts and stops."""

    def __init__(
        self,
        name: str,
        cookie: bytes,
        listen: tuple[str, int] | bool | None,
        engine: str,
        epmd: str,
        resolver: Resolver | None,
    ) -> None:
        super().__init__(resolver)
        self._full_name = name
        self._cookie = cookie
        self._listen = listen
        self._engine = engine
        self._epmd = epmd
        self._driver: LoopBinding | None = None
        self._named: dict[str, Mailbox] = {}
        self._callbacks: set[Mailbox] = set()
        self._callers: dict[asyncio.AbstractEventLoop, Calls] = {}
        self._servers: set[Server] = set()
        self._processes: dict[asyncio.AbstractEventLoop, Processes] = {}
        self._global: GlobalNames | None = None
        self._used = False

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
            waiter = Waiter(loop.create_future())
            self._connecting.setdefault("", []).append(waiter)
            self._handle_events()
            assert waiter.future is not None
            async with asyncio.timeout(_START_SECONDS):
                await waiter.future
            self._begun()
        except TimeoutError:
            await self.stop()
            raise RouterError(f"{self._full_name}: the port mapper does not answer") from None
        except BaseException:
            await self.stop()
            raise

    def start_sync(self) -> None:
        """`start` for a program without an event loop."""
        self._begin(self._listen_address())
        waiter = Waiter(None)
        self._connecting.setdefault("", []).append(waiter)
        try:
            if not self._wait_for(waiter, _START_SECONDS):
                raise RouterError(f"{self._full_name}: the port mapper does not answer")
            self._begun()
        except BaseException:
            self.stop_sync()
            raise

    def _begun(self) -> None:
        self._identify()

    def _begin(self, listen: tuple[str, int] | None) -> None:
        if self._used:
            raise RuntimeError("a node runs once; make a new Node")
        self._used = True
        live.add(self)
        self._open(self._full_name, self._cookie, listen=listen, **self._config)
        self._start()

    async def stop(self) -> None:
        """Ends every process with reason `shutdown`, writes what waits, disconnects.

        First the children of supervisors, in order. Waits at most five seconds for those, for
        servers and for spawned processes, and a second for peers to
        take what is queued. A second stop does nothing.
        """
        ran = self.running
        try:
            await self._end_supervisors()
            self._close_boxes()
            await self._end_processes()
            if self.running and any(row[6] for row in self._stats()):
                await asyncio.get_running_loop().run_in_executor(None, self._linger)
        finally:
            self._finish()
        if ran:  # the caller may have gone on in a callback of this node, which holds parts of it
            await asyncio.sleep(0)

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
        for name in list(self._resolving):
            self._give_up_resolving(name)
        for box in self._boxes():
            box._end("shutdown")
        self._flush()

    async def _end_supervisors(self) -> None:
        """Their children in order; who takes too long is ended with everybody else."""
        loop = asyncio.get_running_loop()
        found = [s._gen for s in list(self._servers) if s._task.get_loop() is loop]
        supervisors = [s for s in found if isinstance(s, Supervisor) and s.parent is None]
        stopping = [s.stop() for s in supervisors if self.running]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PROCESSES_SECONDS):
                await asyncio.gather(*stopping, return_exceptions=True)

    async def _end_processes(self) -> None:
        """Waits until servers and processes of this loop have ended; who takes too long is
        cancelled."""
        loop, own = asyncio.get_running_loop(), asyncio.current_task()
        served = {s._task for s in list(self._servers) if s._task.get_loop() is loop}
        processes = self._processes.get(loop)
        tasks = served.union(processes.tasks() if processes else ())
        tasks.discard(own)  # a handler may stop its node
        for task in tasks - served:  # a process that is told to shut down ends
            if not task.cancelling():
                task.cancel()
        for _ in range(2):
            if tasks:
                _, tasks = await asyncio.wait(tasks, timeout=_PROCESSES_SECONDS)
            for task in tasks:
                task.cancel()

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
        self._stop()
        for binding in list(self._bindings.values()):
            binding.detach()
        self._bindings.clear()
        self._driver = None
        for box in self._boxes():  # those that threads made meanwhile
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
        self._processes.clear()
        if self._global is not None:
            self._global.wait()
        self._handle_events()  # what the end cost
        live.discard(self)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.stop()

    def __enter__(self) -> Self:
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
        return self._listen is not False and not numeric(self._listen_host()[0])

    def _listen_host(self) -> tuple[str, int]:
        if isinstance(self._listen, tuple):
            return self._listen
        return self._full_name.partition("@")[2], 0

    def _listen_address(self) -> tuple[str, int] | None:
        if self._listen is False:
            return None
        host, port = self._listen_host()
        if numeric(host):
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
        self._need()
        binding, driver = self._bindings.get(loop), self._driver
        undriven = self._engine != "thread" and (driver is None or driver.stale)
        if self._global is not None and loop is self._global.loop:
            undriven = False  # the program's own loops and threads drive
        if binding is not None and not binding.stale and not undriven:
            return binding
        for other in [b for b in list(self._bindings.values()) if b.stale]:
            other.detach()
            self._bindings.pop(other.loop, None)
        if binding is None or binding.stale:
            binding = self._bindings[loop] = LoopBinding(self, loop)
            for name in [n for n, r in list(self._resolving.items()) if r.loop.is_closed()]:
                self._take_over_resolving(self._peer(name))
        if undriven:
            binding.drive()
            self._driver = binding
        try:
            self._need()
        except RouterError:  # another thread stopped it meanwhile
            binding.detach()
            raise
        return binding
