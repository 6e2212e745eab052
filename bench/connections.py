"""`connections`: how fast they come and go, what an idle one costs, and many at work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bench import machine, report
from bench.actors import Actor, Meter, Stage
from bench.measure import BenchError, Sample, compare

__all__ = ["measure"]

SIZE = 64
RATE = "connect and disconnect, one after the other"
IDLE = "memory of the accepting process for an idle connection"
ACTIVE = "many active connections to one process"
CONNECTS = {"connections/s": "rate"}
MEMORY = {"bytes a connection": "idle"}


@dataclass(frozen=True)
class System:
    name: str
    server: str
    client: str


OURS = System("router", "router", "router")
ERLANG = System("Erlang", "erlang", "erlang")
BARE = System("uvloop BufferedProtocol, TCP alone", "uvloop-buffered", "uvloop-buffered")
# A BufferedProtocol brings a buffer of its own making; a stream's is asyncio's.
BARE_IDLE = System("uvloop streams, TCP alone", "uvloop-streams", "uvloop-streams")
# Many nodes come from one router process: what is measured is the Erlang node that accepts.
ERLANG_OF_ROUTER = System("Erlang, accepting the same nodes", "erlang", "router")


def _to(actor: Actor, name: str = "sink0") -> str:
    return f"{name}/{actor.address}" if "@" in actor.address else actor.address


@contextmanager
def _named(system: System) -> Iterator[None]:
    try:
        yield
    except BenchError as e:
        e.system = system.name
        raise


class Cycle:
    """Connects and disconnects, so many times."""

    def __init__(self, stage: Stage, system: System, count: int) -> None:
        self.name, self.system, self.count = system.name, system, count
        with _named(system):
            self.server = stage.actor(system.server, "receiver0")
            self.client = stage.actor(system.client, "sender0")
        self.run()

    def run(self) -> Sample:
        with _named(self.system):
            meter = Meter([self.client], [self.server])
            meter.start()
            found = self.client.ask("cycle", self.count, _to(self.server))
            (sent, received), peak = meter.stop()
        return Sample(
            messages=self.count,
            cpu=(sent + received) / self.count,
            rate=self.count * 1e9 / found["ns"],
            sender_cpu=sent / self.count,
            receiver_cpu=received / self.count,
            peak=peak,
        )


class Idle:
    """New processes each run: memory that was once taken does not show a second time."""

    def __init__(self, system: System, count: int) -> None:
        self.name, self.system, self.count = system.name, system, count

    def run(self) -> Sample:
        with _named(self.system), Stage() as stage:
            server = stage.actor(self.system.server, "receiver0")
            client = stage.actor(self.system.client, "sender0")
            # The first ones bring along what all share, and fill memory that was free already.
            client.ask("hold", self.count, _to(server))
            before = machine.resident_bytes(server.pid)
            client.ask("hold", self.count, _to(server))
            taken = machine.resident_bytes(server.pid) - before
        return Sample(messages=self.count, more={"idle": max(1, taken) / self.count})


class Active:
    """Connections that stay, all sending at once."""

    def __init__(self, stage: Stage, system: System, connections: int, each: int) -> None:
        self.name, self.system, self.each, self.connections = system.name, system, each, connections
        with _named(system):
            self.server = stage.actor(system.server, "receiver0")
            self.client = stage.actor(system.client, f"crowd_{system.server}")
            self.client.ask("hold", connections, _to(self.server))
        self.run()

    def run(self) -> Sample:
        count = self.each * self.connections
        with _named(self.system):
            self.server.ask("receive", self.form, count, SIZE, self.connections, 1)
            meter = Meter([self.client], [self.server])
            meter.start()
            self.client.ask("flood", self.each, SIZE, _to(self.server))
            found = self.server.answer()
            (sent, received), peak = meter.stop()
        seconds = (found["last"] - found["first"]) / 1e9
        return Sample(
            messages=count,
            cpu=(sent + received) / count,
            rate=found["counted"] / seconds if seconds > 0 else None,
            sender_cpu=sent / count,
            receiver_cpu=received / count,
            peak=peak,
        )

    @property
    def form(self) -> str:
        return "receive_many" if "router" in self.system.server else "single"


def measure(
    quick: bool, say: report.Say, *, count: int = 7, wanted: report.Wanted = report.everything
) -> report.Document:
    document = report.Document("connections")
    cycles, held, each = (20, 50, 40) if quick else (100, 200, 200)
    with Stage() as stage:
        for peer in (ERLANG, BARE):
            if not wanted(RATE, OURS.name, peer.name, 0):
                continue
            say(f"{RATE}: {peer.name}")
            try:
                second, first = Cycle(stage, peer, cycles), Cycle(stage, OURS, cycles)
                found = compare((first.name, first.run), (second.name, second.run), pairs=count)
            except BenchError as e:
                document.failed(e, OURS.name, RATE, 0, CONNECTS)
            else:
                document.add(found, RATE, 0, CONNECTS)
    path = f"{ACTIVE} ({held})"
    for peer in (ERLANG_OF_ROUTER, BARE):
        if not wanted(path, OURS.name, peer.name, SIZE):
            continue
        say(f"{path}: {peer.name}")
        try:
            with Stage() as stage:
                many, ours = Active(stage, peer, held, each), Active(stage, OURS, held, each)
                found = compare(
                    (ours.name, ours.run), (many.name, many.run),
                    decides="receiver_cpu", pairs=count,
                )  # fmt: skip
        except BenchError as e:
            document.failed(e, OURS.name, path, SIZE, report.FLOW)
        else:
            document.add(found, path, SIZE, report.FLOW)
    idle = 250 if quick else 1000
    path = f"{IDLE} (of {idle})"
    for peer in (ERLANG_OF_ROUTER, BARE_IDLE):
        if not wanted(path, OURS.name, peer.name, 0):
            continue
        say(f"{path}: {peer.name}")
        try:
            mine, theirs = Idle(OURS, idle), Idle(peer, idle)
            # Bytes do not depend on who else uses the processors: a few runs show it.
            found = compare(
                (mine.name, mine.run), (theirs.name, theirs.run),
                decides="idle", pairs=1 if quick else 3,
            )  # fmt: skip
        except BenchError as e:
            document.failed(e, OURS.name, path, 0, MEMORY)
        else:
            document.add(found, path, 0, MEMORY)
    return document
