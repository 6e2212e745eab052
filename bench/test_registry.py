"""router.Registry beside dict and numpy. ``python -m pytest bench/test_registry.py``

Ratios are for `python -m bench registry`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from bench.registry import SIZES, Table, Work


def _works() -> Iterator[tuple[str, str, Work]]:
    for size in SIZES:
        for case in Table(size).cases():
            yield f"{case.what} of {size:,}", "router", case.ours
            for peer, work in case.peers.items():
                yield f"{case.what} of {size:,}", peer, work


@pytest.mark.parametrize(
    ("group", "work"),
    [
        pytest.param(group, work, id=f"{group}-{name}".replace(" ", "_"))
        for group, name, work in _works()
    ],
)
def test_registry(benchmark: Any, group: str, work: Work) -> None:
    benchmark.group = group
    benchmark(work, 1)
