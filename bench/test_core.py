"""Registry, mailbox and frames in C, each a thousand times. ``python -m pytest bench/test_core.py``

Ratios are for `python -m bench core`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bench.core import SIZES, WORDS, cases
from bench.measure import BenchError
from bench.native import Context, lfht

N = 1000


def _works() -> Iterator[tuple[str, str, Callable[[int], None]]]:
    context = Context()  # as long as the program
    for size in SIZES:
        for path, what, work, _ in cases(context, size):
            yield path, f"router: {what}", work
    try:
        peer = lfht()
    except BenchError:
        return
    for size in SIZES:
        table = context.make(peer, "lfht", size, 1)
        for word, what in WORDS.items():
            yield f"registry of {size:,}", f"cds_lfht: {what}", peer.work(f"lfht_{word}", table)


@pytest.mark.parametrize(
    ("group", "work"),
    [
        pytest.param(group, work, id=f"{group}-{name}".replace(" ", "_"))
        for group, name, work in _works()
    ],
)
def test_a_thousand(benchmark: Any, group: str, work: Callable[[int], None]) -> None:
    benchmark.group = group
    benchmark(work, N)
