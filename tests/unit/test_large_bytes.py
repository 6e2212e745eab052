"""Large `bytes` are sent as they stand and received where they belong; nobody sees a difference."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import resource
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from fault.peer import Peer, fragments, long
from fault.peer import bare as term_bytes
from router import Atom, BufferFull, Codec, EncodeError, Mailbox, Node, NodeDown, etf
from router.etf import Map
from router.limits import Limits

from .conftest import Pair, new_name, run_by, until

APART = 32 << 10
"""From how many bytes on they are not copied; a frame is cut over 64 KiB."""
SIZES = [APART - 1, APART, 65_000, 65_400, 1 << 16, 66_400, 67_000, 1 << 17, 300_000, 1 << 20]


class Sub(bytes):
    pass


Shape = Callable[[bytes, int], Any]
SHAPES: dict[str, Shape] = {
    "alone": lambda data, i: data,
    "last": lambda data, i: (i, data),
    "first": lambda data, i: (data, i),
    "deep": lambda data, i: (Atom("a"), [("b", (i, data))], 2),
    "two": lambda data, i: (data, i, data[1:]),
    "in a list": lambda data, i: [1, 2, data],
    "as a value": lambda data, i: {"data": data, "i": i},
    "as a key": lambda data, i: {data: i, "other": 2},
    "in a key": lambda data, i: {(i, data): data},
    "in a Map": lambda data, i: Map([(data, i), (1, data)]),
    "behind much": lambda data, i: ("x" * 5000, data),
    "before much": lambda data, i: (data, "x" * 5000),
    "of a class": lambda data, i: (i, Sub(data)),
    "in an array": lambda data, i: (i, bytearray(data)),
}


def data_of(size: int, seed: int = 1) -> bytes:
    return random.Random(size * 7 + seed).randbytes(size)


def references(data: bytes) -> int:
    gc.collect()
    return sys.getrefcount(data)


@pytest.mark.parametrize("shape", SHAPES)
async def test_what_arrives_is_what_was_sent(pair: Pair, engine: str, shape: str) -> None:
    async with pair(**run_by(engine)) as (a, b):
        box = b.mailbox("in")
        await a.connect(b.name)
        terms = [SHAPES[shape](data_of(size), i) for i, size in enumerate(SIZES)]
        for term in terms:
            a.send(("in", b.name), term)
        a.send_many(("in", b.name), terms)
        for _ in range(2):
            for term in terms:
                assert await box.receive(20) == etf.decode(etf.encode(term))
        (row,) = [row for row in a.stats() if row["peer"] == b.name]
        assert row["messages_out"] == 2 * len(SIZES)


async def test_order_and_references(pair: Pair, loop_kind: str, engine: str) -> None:
    """Of small and large ones, one by one and many, to several processes."""
    draw = random.Random(5)
    pool = [data_of(size) for size in (*SIZES, 10, 100, 5000)]
    before = [references(data) for data in pool]
    async with pair(**run_by(engine)) as (a, b):
        boxes = [b.mailbox(f"in{i}") for i in range(3)]
        got: list[list[Any]] = [[], [], []]
        sent: list[list[Any]] = [[], [], []]

        async def read(box: Mailbox, into: list[Any]) -> None:
            async for number, data in box:
                into.append((number, pool.index(data)))

        readers = [asyncio.create_task(read(*one)) for one in zip(boxes, got, strict=True)]
        for turn in range(200):
            which = draw.randrange(3)
            some = [(turn * 10 + k, draw.randrange(len(pool))) for k in range(draw.randint(1, 4))]
            terms = [(number, pool[i]) for number, i in some]
            if len(terms) == 1:
                a.send((f"in{which}", b.name), terms[0])
            else:
                a.send_many((f"in{which}", b.name), terms)
            sent[which] += some
            if turn % 7 == 0:
                await a.drain()
        terms = []
        await until(lambda: [len(one) for one in got] == [len(one) for one in sent])
        assert got == sent
        for reader in readers:
            reader.cancel()
    await until(lambda: [references(data) for data in pool] == before)


async def test_what_is_not_sent_is_let_go(bare: dict[str, Any], loop_kind: str) -> None:
    data = data_of(1 << 20)
    before = references(data)
    limits = Limits(queue_bytes_max=3 << 20, message_bytes_max=2 << 20)
    async with Node(new_name(), limits=limits, **bare) as node:
        peer = Peer()
        with pytest.raises(EncodeError, match="message_bytes_max"):
            node.send(("in", "nobody@127.0.0.1"), (data, data, 1))
        link = await asyncio.to_thread(peer.connect, node.port)
        await until(lambda: peer.name in node.nodes())
        with pytest.raises(EncodeError, match="message_bytes_max"):
            node.send(("in", peer.name), data + data + data)
        with pytest.raises(BufferFull):
            for _ in range(100):
                node.send(("in", peer.name), data)
        with pytest.raises(BufferFull):
            node.send_many(("in", peer.name), [1, data, data])
        assert references(data) > before
        for twice in ({b"x" * APART: 1, "x" * APART: 2}, {5: 0, "x" * APART: 1, b"x" * APART: 2}):
            with pytest.raises(EncodeError, match="same term"):
                node.send(("in", peer.name), twice)
        (row,) = [row for row in node.stats() if row["peer"] == peer.name]
        accepted = row["messages_out"]
        link.reset()
        await until(lambda: peer.name not in node.nodes())
        await until(lambda: references(data) == before)
        (row,) = [row for row in node.stats() if row["peer"] == peer.name]
        assert 0 < row["dropped_out"] <= accepted
        with pytest.raises(NodeDown):
            await node.connect(peer.name, host="127.0.0.1", port=1)
    assert references(data) == before


async def test_before_there_is_a_connection(pair: Pair, loop_kind: str) -> None:
    data = data_of(200_000)
    before = references(data)
    async with pair() as (a, b):
        box = b.mailbox("in")
        a.send(("in", b.name), (1, data))
        a.send_many(("in", b.name), [(2, data), (3, data)])
        assert [await box.receive(20) for _ in range(3)] == [(i, data) for i in (1, 2, 3)]
    assert references(data) == before


async def test_a_codec_counts_what_stands_apart(pair: Pair) -> None:
    async with pair(codec=Codec(max_bytes=100_000)) as (a, b):
        box = b.mailbox("in")
        await a.connect(b.name)
        a.send(("in", b.name), data_of(99_000))
        with pytest.raises(EncodeError, match="max_bytes"):
            a.send(("in", b.name), data_of(100_000))
        assert len(await box.receive(20)) == 99_000


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_a_read_brings(bare: dict[str, Any], engine: str, seed: int) -> None:
    """Packets of all sizes from a peer that writes a few bytes, or many, at a time."""
    draw = random.Random(seed)
    async with Node(new_name(), **run_by(engine), **bare) as node:
        box = node.mailbox("in")
        peer = Peer()
        link = await asyncio.to_thread(peer.connect, node.port)
        control = term_bytes((6, peer.pid(), Atom(""), Atom("in")))
        stream, terms = bytearray(), []
        for i in range(120):
            size = draw.choice([20, 1000, 32_800, 40_000, 65_536, 131_000, 131_100, 400_000])
            terms.append((i, data_of(size, i)))
            payload = term_bytes(terms[-1])
            if draw.random() < 0.5:
                cuts = sorted(draw.sample(range(1, len(payload)), draw.randint(1, 5)))
                stream += b"".join(fragments(i, control, payload, cuts))
            else:
                stream += long(b"\x83D\0" + control + payload)
            if draw.random() < 0.3:
                stream += long(b"")  # a tick

        def write() -> None:
            at = 0
            while at < len(stream):
                n = draw.choice([1, 3, 18, 22, 100, 4096, 30_000, 70_000, 500_000])
                link.send(bytes(stream[at : at + n]))
                at += n

        writing = asyncio.create_task(asyncio.to_thread(write))
        for term in terms:
            assert await box.receive(20) == term
        await writing
        assert peer.name in node.nodes()


def test_memory_serves_again() -> None:
    """The allocator gives nothing back to the system that the next messages would take anew."""
    code = """
import asyncio, resource
from router import Node
async def main():
    async with Node("a@127.0.0.1", cookie="x", epmd="none"):
        for _ in range(2):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            for _ in range(100):
                kept = [b"x" * 65536 for _ in range(24)]
                del kept
        print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    if "san" in os.environ.get("LD_PRELOAD", ""):
        return  # a sanitizer's allocator keeps what was freed in its own way
    assert int(done.stdout) < 1.5 * 100 * 65536 / resource.getpagesize()  # of 24 times as many
