"""Runs inside this process: a piece of work, repeated, by CPU time."""

from __future__ import annotations

import time
from collections.abc import Callable

from bench.measure import Run, Sample

__all__ = ["PER_CALL", "per_call"]

PER_CALL = {"us": "each"}


def per_call(work: Callable[[int], None], seconds: float, weight: int = 1) -> Run:
    """A run that calls `work(n)`, with n such that it takes about so long.

    weight: messages in each of the n.
    """
    n = 1
    while True:  # the last of these has warmed everything up
        begin = time.perf_counter()
        work(n)
        took = time.perf_counter() - begin
        if took >= seconds / 4:
            break
        n = max(n * 2, int(n * seconds / max(took, 1e-7) / 2))
    n = max(1, int(n * seconds / took))

    def run() -> Sample:
        clock, cpu = time.perf_counter_ns(), time.process_time_ns()
        work(n)
        spent, took = time.process_time_ns() - cpu, time.perf_counter_ns() - clock
        count = n * weight
        return Sample(messages=count, cpu=spent / 1e3 / count, more={"each": took / 1e3 / count})

    return run
