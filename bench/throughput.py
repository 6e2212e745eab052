"""`throughput`: `(tag, id, payload)` from one process to another, beside the peers."""

from __future__ import annotations

from collections.abc import Iterable

from bench import iperf, report
from bench.actors import Stage
from bench.flow import Flow, System
from bench.measure import BenchError, Run, compare
from bench.peers.control import batch

__all__ = ["P2E", "P2P", "measure"]

SIZES = (64, 1024, 64 << 10, 1 << 20)
QUICK_SIZES = (64, 64 << 10)
P2P, P2E, E2P = "Python to Python", "Python to Erlang", "Erlang to Python"
SECONDS = 0.25
CROSS_SECONDS = 1.0
"""From and to Erlang, whose sender first fills its socket: that is not the rate it keeps up."""
ZMQ_QUEUE_BYTES = 16 << 20
IPERF_SIZE_MIN = 64 << 10

R = "router"
ONE_MANY = System("router send, receive_many", R, "send", R, "receive_many")
MANY_MANY = System("router send_many, receive_many", R, "send_many", R, "receive_many")
ONE_FOR = System("router send, async for", R, "send", R, "async_for")
ONE_ONE = System("router send, receive", R, "send", R, "receive")
ONE_ERL = System("router send to Erlang", R, "send", "erlang", "any")
MANY_ERL = System("router send_many to Erlang", R, "send_many", "erlang", "any")
ERL_MANY = System("Erlang to router receive_many", "erlang", "any", R, "receive_many")
ERL_FOR = System("Erlang to router async for", "erlang", "any", R, "async_for")
ERL_ERL = System("Erlang to Erlang", "erlang", "any", "erlang", "any")
C_SINK = System("plain C (limit)", "c", "any", "c", "any")
IPERF = System(iperf.NAME, "iperf3", "any", "iperf3", "any")


def framed(loop: str, style: str, form: str) -> System:
    kind = f"{loop}-{style}"
    words = {"streams": "streams", "buffered": "BufferedProtocol"}
    many = "one by one" if form == "single" else "batched by 512"
    return System(f"{loop} {words[style]}, {many}", kind, form, kind, form)


def pyzmq(size: int, form: str) -> System:
    """The high-water mark counts messages: one that keeps what waits below 16 MiB."""
    each = size * batch(size) if form == "batched" else size
    kind = f"pyzmq/{max(16, ZMQ_QUEUE_BYTES // each)}"
    many = "one by one" if form == "single" else "batched by 512"
    return System(f"pyzmq, {many}", kind, form, kind, form)


def pairs(size: int) -> Iterable[tuple[str, System, System]]:
    """(path, ours, peer): one by one against one by one, batches against batches."""
    for ours in (ONE_MANY, ONE_FOR, ONE_ONE):
        yield P2P, ours, pyzmq(size, "single")
    yield P2P, ONE_MANY, framed("asyncio", "streams", "single")
    yield P2P, ONE_MANY, framed("uvloop", "streams", "single")
    yield P2P, ONE_MANY, framed("uvloop", "buffered", "single")
    yield P2P, ONE_MANY, framed("aiofastnet", "streams", "single")
    yield P2P, ONE_MANY, framed("aiofastnet", "buffered", "single")
    yield P2P, ONE_MANY, ERL_ERL
    yield P2P, MANY_MANY, pyzmq(size, "batched")
    yield P2P, MANY_MANY, framed("uvloop", "streams", "batched")
    yield P2P, MANY_MANY, framed("uvloop", "buffered", "batched")
    yield P2P, MANY_MANY, framed("aiofastnet", "buffered", "batched")
    yield P2P, MANY_MANY, C_SINK
    if size >= IPERF_SIZE_MIN:
        yield P2P, MANY_MANY, IPERF
    yield P2E, ONE_ERL, ERL_ERL
    yield P2E, MANY_ERL, ERL_ERL
    yield E2P, ERL_MANY, ERL_ERL
    yield E2P, ERL_FOR, ERL_ERL


def _run(stage: Stage, system: System, size: int, seconds: float) -> tuple[str, Run]:
    if system is IPERF:
        return system.name, iperf.stream(size)
    return Flow(stage, system, size, seconds).named_run


def measure(
    quick: bool,
    say: report.Say,
    *,
    sizes: Iterable[int] = (),
    seconds: float = 0.0,
    count: int = 11,
    wanted: report.Wanted = report.everything,
) -> report.Document:
    document = report.Document("throughput")
    for size in sizes or (QUICK_SIZES if quick else SIZES):
        # Processes that have seen large messages keep the memory: each size has its own.
        with Stage() as stage:
            for path, ours, peer in pairs(size):
                if not wanted(path, ours.name, peer.name, size):
                    continue
                say(f"{path}, {size} bytes: {ours.name} beside {peer.name}")
                least = SECONDS if path == P2P else CROSS_SECONDS
                span = seconds or (0.025 if quick else least)
                try:
                    second = _run(stage, peer, size, span)
                    first = _run(stage, ours, size, span)
                    unit = peer in (C_SINK, IPERF)
                    found = compare(first, second, pairs=count, unit=unit)
                except BenchError as e:
                    document.failed(e, ours.name, path, size, report.FLOW)
                else:
                    document.add(found, path, size, report.FLOW)
    return document
