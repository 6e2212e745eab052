"""Runs inside this process: a piece of work, repeated, by CPU time."""

from __future__ import annotations

import time
from collections.abc import Callable

from bench.measure import TURNS, Pieces

__all__ = ["PER_CALL", "per_call"]

PER_CALL = {"us": "each"}


def per_call(
    work: Callable[[int], None], seconds: float, weight: int = 1, pieces: int = TURNS
) -> Pieces:
    """A run that calls `work(n)` in so many pieces that together take about so long.

    weight: messages in each of the n. For work that is the same each time.
    """
    n = 1
    while True:  # the last of these has warmed everything up
        begin = time.perf_counter()
        work(n)
        took = time.perf_counter() - begin
        if took >= seconds / 4:
            break
        n = max(n * 2, int(n * seconds / max(took, 1e-7) / 2))
    n = max(1, int(n * seconds / took / pieces))

    def piece() -> float:
        begin = time.process_time_ns()
        work(n)
        return (time.process_time_ns() - begin) / 1e3 / n / weight

    return Pieces(piece, pieces, pieces * n * weight)
