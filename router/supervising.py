"""Supervisors: processes that start others, and start them again when they end.

What the words mean (strategies, restart types, intensity, shutdown in reverse order) is
supervisor.erl; `supervisor:which_children/1` and `count_children/1` are answered.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from router.errors import ExitSignal
from router.etf import Atom, Pid
from router.serving import Caller, GenServer, Server

__all__ = ["Child", "Supervisor"]

log = logging.getLogger("router")

Strategy = Literal["one_for_one", "one_for_all", "rest_for_one"]
Restart = Literal["permanent", "transient", "temporary"]
STRATEGIES = ("one_for_one", "one_for_all", "rest_for_one")
RESTARTS = ("permanent", "transient", "temporary")
SHUTDOWN, KILL, UNDEFINED = Atom("shutdown"), Atom("kill"), Atom("undefined")
WORKER = Atom("worker")


@dataclass(frozen=True)
class Child:
    """What a supervisor starts."""

    id: str
    """Its name among the children."""
    start: Callable[[], Any]
    """Starts it and gives its Pid, its Mailbox or its Server, or a coroutine that does:
    `lambda: node.spawn(work)`, `lambda: node.serve("orders", Orders())`."""
    restart: Restart = "permanent"
    """`"permanent"`: whenever it ends. `"transient"`: unless its reason is normal or shutdown.
    `"temporary"`: never."""
    shutdown: float = 5.0
    """Seconds that it may take to end when it is told to; then it is killed."""

    def __post_init__(self) -> None:
        if self.restart not in RESTARTS:
            raise ValueError(f"restart is one of {', '.join(RESTARTS)}, not {self.restart!r}")
        if not callable(self.start):
            raise TypeError(f"start is a function, not {type(self.start).__name__}")


class Supervisor(GenServer):
    """A process that keeps its children running. Made by `Node.supervise`.

    When more than `intensity` restarts come within `period` seconds it ends them all, and
    itself with reason `shutdown`, so that a supervisor above it takes over.
    """

    def __init__(
        self,
        children: Iterable[Child],
        *,
        strategy: Strategy = "one_for_one",
        intensity: int = 1,
        period: float = 5.0,
    ) -> None:
        self._specs = list(children)
        for spec in self._specs:
            if not isinstance(spec, Child):
                raise TypeError(f"a child is a Child, not {type(spec).__name__}")
        if len({spec.id for spec in self._specs}) < len(self._specs):
            raise ValueError("two children have the same id")
        if strategy not in STRATEGIES:
            raise ValueError(f"strategy is one of {', '.join(STRATEGIES)}, not {strategy!r}")
        if intensity < 0 or not period > 0:
            raise ValueError("intensity is at least 0 and period is above 0 seconds")
        self._strategy = strategy
        self._intensity = intensity
        self._period = period
        self._pids: dict[str, Pid] = {}
        self.parent: Pid | None = None
        """The supervisor that has started this one: it tells it when to end, as in Erlang."""
        self._restarts: deque[float] = deque()
        # Starting, restarting and stopping take turns.
        self._turn = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<Supervisor {self.server.pid!r} of {', '.join(s.id for s in self._specs)}>"

    @property
    def pid(self) -> Pid:
        return self.server.pid

    def children(self) -> dict[str, Pid | None]:
        """The pid of each child by its id, in the order in which they are started."""
        return {spec.id: self._pids.get(spec.id) for spec in self._specs}

    async def stop(self, reason: Any = SHUTDOWN) -> None:
        """Ends the children, last started first, and then itself."""
        async with self._turn:
            await self._end(self._specs)
            self.server.close(reason)
        if asyncio.current_task() is not self.server._task:
            await self.server.wait()

    # as a process -------------------------------------------------------------------------

    def handle_call(self, request: Any, caller: Caller) -> Any:
        match request:
            case "which_children":
                return [
                    (Atom(spec.id), self._pids.get(spec.id, UNDEFINED), WORKER, [])
                    for spec in reversed(self._specs)
                ]
            case "count_children":
                count = len(self._specs)
                counts = {"specs": count, "active": len(self._pids), "supervisors": 0}
                return [(Atom(k), v) for k, v in {**counts, "workers": count}.items()]
        return (Atom("error"), (Atom("unknown_request"), request))

    async def handle_info(self, message: Any) -> None:
        match message:
            case ("EXIT", Pid() as pid, reason):
                async with self._turn:
                    if pid == self.parent:
                        await self._end(self._specs)
                        raise ExitSignal(reason)
                    spec = next((s for s in self._specs if self._pids.get(s.id) == pid), None)
                    if spec is not None:
                        await self._ended(spec, reason)
            case _:
                super().handle_info(message)

    def state(self) -> Any:
        return {Atom(name): pid or UNDEFINED for name, pid in self.children().items()}

    # its children -------------------------------------------------------------------------

    async def begin(self, server: Server) -> None:
        """Starts them all, or none: raises what a start raised."""
        server.box.trap_exit = True
        async with self._turn:
            try:
                for spec in self._specs:
                    await self._start(spec)
            except BaseException:
                await self._end(self._specs)
                server.close(SHUTDOWN)
                await server.wait()
                raise

    async def _start(self, spec: Child) -> None:
        made = spec.start()
        if inspect.isawaitable(made):
            made = await made
        pid = getattr(made, "pid", made)
        if not isinstance(pid, Pid):
            raise TypeError(f"child {spec.id}: start gave {made!r}, and neither Pid nor Server")
        if isinstance(made, Supervisor):
            made.parent = self.pid
        self.server.box.link(pid)
        self._pids[spec.id] = pid

    async def _ended(self, spec: Child, reason: Any) -> None:
        await self._cleared_up(spec, self._pids.pop(spec.id), spec.shutdown)
        if spec.restart == "temporary":
            self._specs.remove(spec)
            return
        if spec.restart == "transient" and _is_expected(reason):
            return
        log.warning("%r: %s has ended: %r", self, spec.id, reason)
        again = [spec]
        if self._strategy == "one_for_all":
            again = list(self._specs)
        elif self._strategy == "rest_for_one":
            again = self._specs[self._specs.index(spec) :]
        await self._end(again)
        again = [s for s in again if s.restart != "temporary"]
        self._specs = [s for s in self._specs if s in again or s.id in self._pids or s is spec]
        while again:
            await self._count_restart()
            try:
                while again:
                    await self._start(again[0])
                    del again[0]
            except Exception:
                log.exception("%r: %s could not be started again", self, again[0].id)

    async def _count_restart(self) -> None:
        now = time.monotonic()
        self._restarts.append(now)
        while self._restarts[0] < now - self._period:
            self._restarts.popleft()
        if len(self._restarts) > self._intensity:
            log.error("%r: more than %d restarts in %g s", self, self._intensity, self._period)
            await self._end(self._specs)
            raise ExitSignal(SHUTDOWN)

    async def _end(self, specs: list[Child]) -> None:
        """Ends those of them that run, last started first, one after the other."""
        node = self.server.box.node
        for spec in reversed(specs):
            pid = self._pids.pop(spec.id, None)
            if pid is None:
                continue
            until = time.monotonic() + spec.shutdown
            with node.mailbox() as box:
                box.monitor(pid)
                self.server.box.exit(pid, SHUTDOWN)
                try:
                    await box.receive(spec.shutdown)
                except TimeoutError:
                    log.warning("%r: %s does not end in %g s: killed", self, spec.id, spec.shutdown)
                    self.server.box.exit(pid, KILL)
                    await box.receive()
            await self._cleared_up(spec, pid, until - time.monotonic())

    async def _cleared_up(self, spec: Child, pid: Pid, seconds: float) -> None:
        """The process has ended; a coroutine behind it may still be at its `finally`."""
        task = self.server.box.node._processes_here().task_of(pid)
        if task is None:
            return
        _, late = await asyncio.wait([task], timeout=max(0.0, seconds))
        if late:
            log.warning("%r: %s goes on after its process has ended", self, spec.id)


def _is_expected(reason: Any) -> bool:
    kind = reason[0] if isinstance(reason, tuple) and len(reason) == 2 else reason
    return isinstance(kind, Atom) and (kind == "shutdown" or reason == "normal")
