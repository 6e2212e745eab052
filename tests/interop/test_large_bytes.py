"""Large `bytes` that are sent as they stand, to Erlang and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from interop.erlang import ErlangNode
from interop.talk import PATIENCE, blob
from router import Atom, Node

SIZES = [32_767, 32_768, 50_000, *range(65_000, 66_700, 61), 131_072, 300_000]
SHAPES: dict[str, Callable[[bytes], Any]] = {
    "alone": lambda d: d,
    "first": lambda d: (d, Atom("tail"), 1),
    "middle": lambda d: (Atom("head"), d, [1, 2, 3]),
    "twice": lambda d: [d, d],
    "a key": lambda d: {d: d, 1: d},
    "behind what is long": lambda d: (bytes(4080), d),
    "behind what is too long": lambda d: (bytes(5000), d),
    "between what is long": lambda d: (bytes(4000), d, bytes(4000)),
    "before what is too long": lambda d: (d, bytes(5000)),
}


@pytest.mark.parametrize("shape", SHAPES)
async def test_there_and_back(talker: ErlangNode, name: str, shape: str) -> None:
    async with Node(name) as node:
        box = node.mailbox()
        pid = await talker.aeval(
            "spawn(fun F() -> receive T -> Box ! T, F() after 20000 -> ok end end)", Box=box.pid
        )
        terms = [SHAPES[shape](blob(i, n)) for i, n in enumerate(SIZES)]
        for term in terms:
            node.send(pid, term)
            node.send(pid, 1)
            assert [await box.receive(PATIENCE), await box.receive(PATIENCE)] == [term, 1]
        for _ in range(3):
            node.send_many(pid, [*range(5), *terms, *range(5)])
            await node.drain()
        for _ in range(3):
            for term in [*range(5), *terms, *range(5)]:
                assert await box.receive(PATIENCE) == term
