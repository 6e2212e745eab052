"""Large `bytes` that are sent cost a reference each, which comes back, whoever writes them."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest

from router import BufferFull, EncodeError, Limits, Node

from .conftest import Pair, new_name, run_by, until


def body(n: int) -> bytes:
    return bytes(n)


async def test_references_are_given_back(pair: Pair, engine: str) -> None:
    limits = Limits(message_bytes_max=1 << 20)
    async with pair(**run_by(engine), limits=limits) as (a, b):
        box, data, huge = b.mailbox("in"), body(200_000), body(2 << 20)
        dest = ("in", b.name)
        base = sys.getrefcount(data)

        def held() -> int:
            return sys.getrefcount(data) - base

        a.send(dest, data)  # not connected yet
        await box.receive(5)
        assert held() == 0
        for bad in ([data, object()], (data, object()), {data: object()}, {1: data, 2: object()}):
            with pytest.raises(EncodeError):
                a.send(dest, bad)
            with pytest.raises(EncodeError):
                a.send_many(dest, [data, bad, data])
            await box.receive(5)
        bad = None
        with pytest.raises(EncodeError, match="message_bytes_max"):
            a.send(dest, huge)
        with pytest.raises(EncodeError, match="message_bytes_max"):
            a.send_many(dest, [data, (data, huge), data])
        await box.receive(5)
        a.send_many(dest, [1, data, (data, data), [data, 2]])
        for _ in range(4):
            await box.receive(5)
        await until(lambda: held() == 0)


# Reports how many messages came.
PEER = """
import asyncio, sys
from router import Node
async def main():
    async with Node(sys.argv[1], cookie="secret", epmd_port=int(sys.argv[2])) as node:
        box, count = node.mailbox(), 0
        node.send(("ready", sys.argv[3]), box.pid)
        async for term in box:
            count += 1
            if term == b"report":
                node.send(("ready", sys.argv[3]), count)
asyncio.run(main())
"""


@pytest.mark.parametrize("ending", ["resumed", "killed"])
async def test_what_is_accepted_is_delivered_or_dropped(
    options: dict[str, Any], engine: str, ending: str
) -> None:
    r = random.Random(engine)
    limits = Limits(queue_bytes_max=4 << 20)
    async with Node(new_name(), **options, **run_by(engine), limits=limits) as node:
        ready, data = node.mailbox("ready"), body(150_000)
        base = sys.getrefcount(data)
        peer = [new_name("peer"), str(options["epmd_port"]), node.name]
        child = subprocess.Popen([sys.executable, "-c", PEER, *peer])
        try:
            pid = await ready.receive(10)
            os.kill(child.pid, signal.SIGSTOP)
            accepted = 0
            terms = [data, (1, data), (data, 2), [data, data], 5, body(3000), body(70_000)]
            for _ in range(2000):
                try:
                    node.send(pid, r.choice(terms))
                    accepted += 1
                except BufferFull:
                    pass
            del terms
            stats = node.stats()
            assert int(stats["messages_out"].sum()) == accepted
            assert sys.getrefcount(data) > base
            if ending == "killed":
                child.kill()
                await until(lambda: not node.stats()["queued_bytes"].sum())
                await until(lambda: node.stats()["dropped_out"].sum())  # counted after that
                assert int(node.stats()["dropped_out"].sum()) <= accepted
            else:
                os.kill(child.pid, signal.SIGCONT)
                await node.drain()
                node.send(pid, b"report")
                assert await ready.receive(20) == accepted + 1
            await until(lambda: sys.getrefcount(data) == base)
        finally:
            child.kill()
            child.wait()


def test_a_main_thread_that_waits_pins_no_memory(options: dict[str, Any]) -> None:
    """Nobody runs the main thread's pending calls while it waits for a lock."""
    left: list[int] = []

    async def work() -> None:
        async with (
            Node(new_name(), **options, engine="thread") as a,
            Node(new_name(), **options, engine="thread") as b,
        ):
            box, data = b.mailbox("in"), body(4 << 20)
            base = sys.getrefcount(data)
            for term in [1, *[data] * 8, *range(50)]:
                a.send(("in", b.name), term)
                await box.receive(10)
            del term
            left.append(sys.getrefcount(data) - base)

    thread = threading.Thread(target=lambda: asyncio.run(work()))
    thread.start()
    thread.join()
    assert left == [0]
