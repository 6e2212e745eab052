"""512 into a mailbox of this process and out again, beside queues."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bench.local import Local, asyncio_queue, simple_queue


@pytest.fixture
def local() -> Iterator[Local]:
    made = Local()
    yield made
    made.close()


@pytest.mark.parametrize("form", ["singly", "many"])
def test_mailbox(benchmark: Any, local: Local, form: str) -> None:
    benchmark.group = "512 in, 512 out"
    benchmark(getattr(local, form), 1)


@pytest.mark.parametrize("make", [asyncio_queue, simple_queue])
def test_queue(benchmark: Any, make: Callable[[], Callable[[int], None]]) -> None:
    benchmark.group = "512 in, 512 out"
    benchmark(make(), 1)
