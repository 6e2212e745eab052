"""What the Python programs share: commands in, answers out, payloads, and checking."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from bench.measure import percentile

__all__ = [
    "BATCH",
    "BATCH_BYTES",
    "MASK",
    "PING_NS_MAX",
    "SHIFT",
    "TAG",
    "Wrong",
    "answer",
    "batch",
    "check_payload",
    "commands",
    "now",
    "payload",
    "read_commands",
    "round_trips",
]

TAG = "event"
SHIFT = 26
MASK = (1 << SHIFT) - 1
BATCH = 512
BATCH_BYTES = 1 << 20
PING_NS_MAX = 3_000_000_000  # under load one round trip may take long: the rest is left out

now = time.monotonic_ns


class Wrong(Exception):
    """A message is not the one that was expected."""


def payload(size: int) -> bytes:
    """The bytes every sender sends."""
    return (bytes(range(256)) * (size // 256 + 1))[:size]


def check_payload(tag: object, found: bytes, size: int) -> None:
    """Once a run, outside the loop: that whole messages arrived, not just their ids."""
    if tag != TAG or found != payload(size):
        raise Wrong(f"tag {tag!r} and {len(found)} bytes, not the {size} that were sent")


def batch(size: int) -> int:
    """Messages in one batch: 512, or fewer where they would be over a mebibyte."""
    return max(1, min(BATCH, BATCH_BYTES // size))


def answer(**fields: Any) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def round_trips(nanoseconds: Sequence[int]) -> dict[str, float]:
    """Microseconds."""
    return {
        "p50": percentile(nanoseconds, 0.5) / 1e3,
        "p99": percentile(nanoseconds, 0.99) / 1e3,
        "p999": percentile(nanoseconds, 0.999) / 1e3,
        "mean": sum(nanoseconds) / len(nanoseconds) / 1e3,
    }


def read_commands() -> Iterator[list[str]]:
    """For programs without an event loop."""
    for line in iter(sys.stdin.readline, ""):
        yield line.split()


async def commands() -> AsyncIterator[list[str]]:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while line := await reader.readline():
        yield line.decode().split()
