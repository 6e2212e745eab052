"""`fanin`: many senders, one process. `fanout`: one sender, many processes on many nodes."""

from __future__ import annotations

from bench import report
from bench.actors import Stage
from bench.flow import Flow, System
from bench.measure import BenchError, compare
from bench.throughput import ERL_ERL, MANY_MANY, ONE_MANY, framed, pyzmq

__all__ = ["fan_in", "fan_out"]

SIZE = 64
MANY = 4
BOXES = 4
"""Processes on each receiving node; a peer without processes has one socket there."""


def _pairs() -> list[tuple[System, System]]:
    return [
        (ONE_MANY, pyzmq(SIZE, "single")),
        (ONE_MANY, framed("uvloop", "buffered", "single")),
        (ONE_MANY, ERL_ERL),
        (MANY_MANY, pyzmq(SIZE, "batched")),
        (MANY_MANY, framed("uvloop", "buffered", "batched")),
    ]


def _measure(
    name: str,
    path: str,
    quick: bool,
    say: report.Say,
    count: int,
    wanted: report.Wanted,
    **shape: int,
) -> report.Document:
    document = report.Document(name)
    # Longer than one to one: senders begin one after the other, and the last one ends alone.
    seconds = 0.015 if quick else 0.5
    with Stage() as stage:

        def flow(system: System) -> Flow:
            wide = dict(shape)
            if "router" not in system.receiver and "erlang" not in system.receiver:
                wide.pop("boxes", None)
            return Flow(stage, system, SIZE, seconds, **wide)

        for ours, peer in _pairs()[:: 2 if quick else 1]:
            if not wanted(path, ours.name, peer.name, SIZE):
                continue
            say(f"{path}: {ours.name} beside {peer.name}")
            try:
                second, first = flow(peer), flow(ours)
                found = compare(first.named_run, second.named_run, pairs=count)
            except BenchError as e:
                document.failed(e, ours.name, path, SIZE, report.FLOW)
            else:
                document.add(found, path, SIZE, report.FLOW)
        # What the width itself costs: the rate beside is to stay above 0.8.
        for ours in (ONE_MANY, MANY_MANY):
            width = f"{path} beside one to one"
            if not wanted(width, ours.name, f"{ours.name}, one to one", SIZE):
                continue
            say(f"{width}: {ours.name}")
            try:
                single = Flow(stage, ours, SIZE, seconds, told=shape.get("senders", 1))
                found = compare(
                    flow(ours).named_run, (f"{ours.name}, one to one", single.run), pairs=count
                )
            except BenchError as e:
                document.failed(e, ours.name, width, SIZE, report.FLOW)
            else:
                document.add(found, width, SIZE, report.FLOW)
    return document


def fan_in(
    quick: bool, say: report.Say, *, count: int = 21, wanted: report.Wanted = report.everything
) -> report.Document:
    path = f"{MANY} senders to one process"
    return _measure("fanin", path, quick, say, count, wanted, senders=MANY)


def fan_out(
    quick: bool, say: report.Say, *, count: int = 21, wanted: report.Wanted = report.everything
) -> report.Document:
    path = f"one sender to {MANY} nodes of {BOXES} processes"
    return _measure("fanout", path, quick, say, count, wanted, receivers=MANY, boxes=BOXES)
