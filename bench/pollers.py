"""`pollers`: io_uring beside epoll, each in a node with `engine="thread"`."""

from __future__ import annotations

from bench import report
from bench.actors import Actor, Meter, Stage
from bench.flow import Flow
from bench.flow import System as FlowSystem
from bench.inline import PER_CALL, per_call
from bench.latency import IDLE, Trips
from bench.latency import System as TripsSystem
from bench.measure import BenchError, Run, Sample, compare
from bench.native import Context, pollers
from router import _core

__all__ = ["measure"]

SIZE, LARGE = 64, 64 << 10
CONNECTIONS = 64
STREAM = "one stream"
VOLLEY = f"ping-pong on {CONNECTIONS} connections at once, the answering node"
KINDS = {"io_uring": "router-uring", "epoll": "router-thread"}
READY = (1, 64)
TRIPS = {"round trips/s": "rate"}


class Volley:
    """Nodes in one process, each with one message on its way; they are the same for both."""

    def __init__(self, stage: Stage, kind: str, each: int) -> None:
        self._each = each
        self._server: Actor = stage.actor(kind, "receiver0")
        self._client: Actor = stage.actor("router", f"crowd_{kind}")
        self._client.ask("hold", CONNECTIONS, f"echo/{self._server.address}")
        self.run()

    def run(self) -> Sample:
        count = self._each * CONNECTIONS
        meter = Meter([self._client], [self._server])
        meter.start()
        found = self._client.ask("volley", self._each, SIZE, f"echo/{self._server.address}")
        (sent, received), peak = meter.stop()
        return Sample(
            messages=count,
            cpu=(sent + received) / count,
            rate=count * 1e9 / found["ns"],
            sender_cpu=sent / count,
            receiver_cpu=received / count,
            peak=peak,
        )


def _run(stage: Stage, path: str, kind: str, size: int, quick: bool) -> Run:
    if path == IDLE:
        return Trips(stage, TripsSystem(kind, kind), 500 if quick else 4000, loaded=False).run
    if path == VOLLEY:
        return Volley(stage, kind, 30 if quick else 300).run
    system = FlowSystem(kind, kind, "send", kind, "receive_many")
    return Flow(stage, system, size, 0.025 if quick else 0.25).run


def _alone(quick: bool, document: report.Document, count: int) -> None:
    """The pollers without a node: what it costs to be told of a descriptor that is ready."""
    ours, peer = KINDS
    with Context() as context:
        for ready in READY:
            path = f"a wait that finds {ready} ready"

            def run(kind: str, ready: int = ready) -> Run:
                made = context.make(pollers(), "poller", _core.POLLERS[kind], ready)
                work = pollers().work("poller_wait", made)
                return per_call(work, 0.003 if quick else 0.2, ready, pieces=3 if quick else 100)

            try:
                found = compare((ours, run(ours)), (peer, run(peer)), pairs=count)
            except BenchError as e:
                document.failed(e, ours, path, 0, PER_CALL)
            else:
                document.add(found, path, 0, PER_CALL)


WORK = (
    (IDLE, SIZE, "p50", report.ROUND_TRIP),
    (VOLLEY, SIZE, "receiver_cpu", TRIPS),
    (STREAM, SIZE, "cpu", report.FLOW),
    (STREAM, LARGE, "cpu", report.FLOW),
)


def measure(
    quick: bool, say: report.Say, *, count: int = 11, wanted: report.Wanted = report.everything
) -> report.Document:
    if missing := _core.poller_missing(_core.POLLERS["io_uring"]):
        return report.Document("pollers", pending=missing[1])
    document = report.Document("pollers")
    ours, peer = KINDS
    if wanted("a wait", ours, peer, 0):
        say("a wait")
        _alone(quick, document, count)
    for path, size, decides, units in WORK:
        if not wanted(path, ours, peer, size):
            continue
        say(f"{path}, {size} bytes")
        try:
            with Stage() as stage:
                runs = {name: _run(stage, path, KINDS[name], size, quick) for name in (peer, ours)}
                found = compare(
                    (ours, runs[ours]), (peer, runs[peer]), decides=decides, pairs=count
                )
        except BenchError as e:
            document.failed(e, ours, path, size, units)
        else:
            document.add(found, path, size, units)
    return document
