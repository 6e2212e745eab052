"""Runs inside this process: a piece of work, repeated, by CPU time."""

from __future__ import annotations

import time
from collections.abc import Callable

from bench.measure import TURNS, Pieces

__all__ = ["PER_CALL", "per_call", "pieces_of"]

PER_CALL = {"us": "each"}


Work = Callable[[int], None]


def nothing(n: int) -> None:
    """Before or after work that needs neither."""


def pieces_of(
    spent: Callable[[int], float], seconds: float, weight: int = 1, pieces: int = TURNS
) -> Pieces:
    """A run of so many pieces that together take about so long.

    spent: does the work n times, which is the same each time, and gives the seconds that took.
    weight: messages in each of the n.
    """
    n = 1
    # The last of these has warmed everything up; what took long once may do so by accident.
    while (took := min(spent(n), spent(n))) < seconds / 4:
        n = max(n * 2, int(n * seconds / max(took, 1e-7) / 2))
    whole = max(1, int(n * seconds / took))
    pieces = min(pieces, whole)
    n = whole // pieces
    return Pieces(lambda: spent(n) * 1e6 / n / weight, pieces, n * pieces * weight)


def per_call(
    work: Work, seconds: float, weight: int = 1, pieces: int = TURNS,
    before: Work = nothing, after: Work = nothing,
) -> Pieces:  # fmt: skip
    """A run that calls `work(n)` in pieces; what is done before and after is not counted."""

    def spent(n: int) -> float:
        before(n)
        begin = time.process_time_ns()
        work(n)
        took = time.process_time_ns() - begin
        after(n)
        return took / 1e9

    return pieces_of(spent, seconds, weight, pieces)
