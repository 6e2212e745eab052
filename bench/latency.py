"""`latency`: there and back, one at a time, idle and under load."""

from __future__ import annotations

from dataclasses import dataclass

from bench import report
from bench.actors import Actor, Meter, Stage
from bench.measure import BenchError, Sample, compare

__all__ = ["measure"]

SIZE = 64
BULK_BYTES = 64 << 10
IDLE, LOADED = "ping-pong", "ping-pong under load"
LOADED_BESIDE_IDLE = "ping-pong under load beside idle"
CROSS = "ping-pong, Python to Erlang"


@dataclass(frozen=True)
class System:
    name: str
    kind: str
    server: str = ""
    """Another kind of process that answers."""


OURS = System("router, engine auto on uvloop", "router")
BUSY = System("router, busy waiting 50 us, on uvloop", "router-busy/50")
PEERS = (
    System("uvloop streams", "uvloop-streams"),
    System("uvloop BufferedProtocol", "uvloop-buffered"),
    System("aiofastnet BufferedProtocol", "aiofastnet-buffered"),
    System("pyzmq PAIR, blocking", "pyzmq/1000"),
    System("Erlang to Erlang, as installed", "erlang-spinning"),
    System("Erlang to Erlang, no busy waiting", "erlang"),
)
PAIRS = (
    *((IDLE, OURS, peer) for peer in PEERS),
    (
        IDLE,
        System("router, engine auto on asyncio", "router-asyncio"),
        System("asyncio streams", "asyncio-streams"),
    ),
    (IDLE, System("router, engine thread on uvloop", "router-thread"), PEERS[0]),
    (IDLE, System("router, engine inline on uvloop", "router-inline"), PEERS[0]),
    (IDLE, BUSY, PEERS[0]),
    (IDLE, BUSY, PEERS[4]),
    (CROSS, System("router (auto, uvloop) to Erlang", "router", "erlang-spinning"), PEERS[4]),
    (LOADED, OURS, PEERS[0]),
    (LOADED, OURS, PEERS[4]),
)


class Trips:
    """One system's round trips on a stage."""

    def __init__(self, stage: Stage, system: System, count: int, *, loaded: bool) -> None:
        self.system = system
        self._stage = stage
        self._count = count
        self._loaded = loaded
        try:
            self._server = stage.actor(system.server or system.kind, "receiver0")
            self._client = stage.actor(system.kind, "sender0")
            self._client.connect(self._to(self._server, "echo"))
            for _ in range(2):
                self._attempt(max(20, count))
        except BenchError as e:
            e.system = system.name
            raise

    @staticmethod
    def _to(actor: Actor, name: str) -> str:
        return f"{name}/{actor.address}" if "@" in actor.address else actor.address

    def run(self) -> Sample:
        try:
            return self._attempt(self._count)
        except BenchError as e:
            e.system = self.system.name
            self._stage.drop(self._client, self._server)
            raise

    def _attempt(self, count: int) -> Sample:
        client, server = self._client, self._server
        if self._loaded:
            client.ask("bulk", BULK_BYTES, self._to(server, "bulk"))
        meter = Meter([client], [server])
        server.ask("serve", count)
        meter.start()
        found = client.ask("ping", "single", count, SIZE, self._to(server, "echo"))
        server.answer()
        (sent, received), peak = meter.stop()
        if self._loaded:
            client.ask("bulk", "off")
        return Sample(
            messages=count,
            # Under load most of it is the load's.
            cpu=None if self._loaded else (sent + received) / count,
            peak=peak,
            more={key: float(found[key]) for key in ("p50", "p99", "p999")},
        )


def measure(
    quick: bool, say: report.Say, *, count: int = 84, wanted: report.Wanted = report.everything
) -> report.Document:
    document = report.Document("latency")
    # Many short runs: what disturbs the machine disturbs some of them, and not the median.
    trips = 125 if quick else 1000
    loaded_count = max(1, count // 4)
    with Stage() as stage:
        for path, ours, peer in PAIRS:
            if quick and ours.kind in ("router-thread", "router-inline"):
                continue
            if not wanted(path, ours.name, peer.name, SIZE):
                continue
            loaded = path == LOADED
            few = (10 if quick else 200) if loaded else trips
            say(f"{path}: {ours.name} beside {peer.name}")
            try:
                second = Trips(stage, peer, few, loaded=loaded)
                first = Trips(stage, ours, few, loaded=loaded)
                found = compare(
                    (ours.name, first.run), (peer.name, second.run), decides="p50",
                    pairs=loaded_count if loaded else count,
                )  # fmt: skip
            except BenchError as e:
                document.failed(e, ours.name, path, SIZE, report.ROUND_TRIP)
            else:
                document.add(found, path, SIZE, report.ROUND_TRIP)
        path, name = LOADED_BESIDE_IDLE, f"{OURS.name}, loaded"
        if wanted(path, name, OURS.name, SIZE):
            say(f"{path}: {OURS.name}")
            few = 10 if quick else 200
            try:
                second = Trips(stage, OURS, trips, loaded=False)
                first = Trips(stage, OURS, few, loaded=True)
                found = compare(
                    (name, first.run), (OURS.name, second.run),
                    decides="p99", pairs=loaded_count, unit=True,
                )  # fmt: skip
            except BenchError as e:
                document.failed(e, name, path, SIZE, report.ROUND_TRIP)
            else:
                document.add(found, path, SIZE, report.ROUND_TRIP)
    return document
