"""A peer that does not read: what is accepted arrives, what is not is told, silence is noticed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from router import BufferFull, Limits, Node, NodeDown
from router.mailbox import Mailbox

from .conftest import new_name, run_by

NOBODY = "nobody@127.0.0.1"

# Reports (first, last, count, in order?) of what came before each "report".
PEER = """
import asyncio, sys
from router import Node
async def main():
    async with Node(sys.argv[1], cookie="secret", epmd_port=int(sys.argv[2]),
                    net_ticktime=float(sys.argv[4])) as node:
        box = node.mailbox("sink")
        node.send(("ready", sys.argv[3]), box.pid)
        count, ordered, expected = 0, True, 0
        async for term in box:
            match term:
                case (number, data):
                    ordered = ordered and number >= expected
                    expected, count = number + 1, count + 1
                case b"report":
                    node.send(("ready", sys.argv[3]), (count, expected, ordered))
asyncio.run(main())
"""


class Peer:
    def __init__(self, node: Node, port: int, net_ticktime: float) -> None:
        self.name = new_name("peer")
        arguments = [self.name, str(port), node.name, str(net_ticktime)]
        self.child = subprocess.Popen([sys.executable, "-c", PEER, *arguments])

    def pause(self) -> None:
        os.kill(self.child.pid, signal.SIGSTOP)
        # Until the signal has been carried out.
        status = Path(f"/proc/{self.child.pid}/stat")
        while status.read_text().rpartition(")")[2].split()[0] != "T":
            time.sleep(0.001)

    def resume(self) -> None:
        os.kill(self.child.pid, signal.SIGCONT)

    def kill(self) -> None:
        self.child.kill()
        self.child.wait()


@pytest.fixture
def peers() -> Iterator[list[Peer]]:
    made: list[Peer] = []
    yield made
    for peer in made:
        peer.kill()


async def begin(
    node: Node, box: Mailbox, peers: list[Peer], options: dict[str, Any], net_ticktime: float = 60
) -> Peer:
    peer = Peer(node, options["epmd_port"], net_ticktime)
    peers.append(peer)
    await box.receive(20)
    return peer


def row(node: Node) -> Any:
    (only,) = [r for r in node.stats() if r["peer"] != NOBODY]
    return only


async def test_what_was_accepted_arrives_when_the_peer_goes_on(
    options: dict[str, Any], engine: str, peers: list[Peer]
) -> None:
    limits = Limits(queue_bytes_soft=200_000, queue_bytes_max=1_000_000)
    async with Node(new_name(), **run_by(engine), limits=limits, **options) as node:
        box = node.mailbox("ready")
        peer = await begin(node, box, peers, options)
        peer.pause()
        sent = refused = 0
        most = 0
        number = 0
        deadline = time.monotonic() + 20
        while refused < 50:  # until the kernel takes no more, and the buffer neither
            assert time.monotonic() < deadline
            try:
                node.send(("sink", peer.name), (number, bytes(1000)))
                sent += 1
            except BufferFull:
                refused += 1
                await asyncio.sleep(0.001)  # the engine may write meanwhile
            number += 1
            most = max(most, int(row(node)["queued_bytes"]))
        with pytest.raises(BufferFull, match="queue_bytes_max=1000000"):
            node.send(("sink", peer.name), (number, bytes(100_000)))
        refused += 1
        assert 990_000 < most <= 1_000_000
        assert int(row(node)["refused"]) == refused
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await node.drain(peer.name)
        peer.resume()
        await asyncio.wait_for(node.drain(), 20)
        assert int(row(node)["queued_bytes"]) <= 200_000
        node.send(("sink", peer.name), "report")
        count, _, ordered = await box.receive(20)
        assert (count, ordered) == (sent, True)
        # The report and what was accepted; nothing was dropped.
        assert int(row(node)["messages_out"]) == sent + 1
        assert int(row(node)["dropped_out"]) == 0


def others_fail_all_the_time(node: Node, drain: Callable[[], None]) -> None:
    """The time to drain is one for all, however often something else happens meanwhile."""
    over = threading.Event()

    def fail() -> None:
        while not over.is_set():
            with contextlib.suppress(NodeDown):
                node.connect_sync(NOBODY, 5, host="127.0.0.1", port=1)

    failing = threading.Thread(target=fail)
    failing.start()
    began = time.monotonic()
    try:
        with pytest.raises(TimeoutError):
            drain()
        assert time.monotonic() - began < 5
    finally:
        over.set()
        failing.join()


def test_drain_in_a_thread(options: dict[str, Any], peers: list[Peer]) -> None:
    limits = Limits(queue_bytes_soft=200_000)
    with Node(new_name(), limits=limits, **options) as node:
        box = node.mailbox("ready")
        peer = asyncio.run(begin(node, box, peers, options))
        peer.pause()
        for i in range(20_000):
            node.send(("sink", peer.name), (i, bytes(1000)))
        with pytest.raises(TimeoutError):
            node.drain_sync(timeout=0.05)
        others_fail_all_the_time(node, lambda: node.drain_sync(timeout=0.3))
        peer.resume()
        node.drain_sync(timeout=20)
        assert int(row(node)["queued_bytes"]) <= 200_000
        node.send(("sink", peer.name), "report")
        assert box.get(20) == (20_000, 20_000, True)


async def test_what_a_dead_peer_costs_is_counted_and_logged(
    options: dict[str, Any], peers: list[Peer], caplog: pytest.LogCaptureFixture
) -> None:
    async with Node(new_name(), **options) as node:
        box = node.mailbox("ready")
        peer = await begin(node, box, peers, options)
        node.monitor_nodes(box)
        peer.pause()
        total = 20_000
        for i in range(total):
            node.send(("sink", peer.name), (i, bytes(1000)))
        drain = asyncio.create_task(node.drain(peer.name))
        await asyncio.sleep(0)
        peer.kill()
        assert await box.receive(10) == ("nodedown", peer.name)
        await asyncio.wait_for(drain, 10)  # a peer that is down has no buffer
        lost = int(row(node)["dropped_out"])
        assert total // 4 < lost < total  # the kernel had taken the rest
        assert f"{lost} messages lost" in caplog.text
        assert int(row(node)["queued_bytes"]) == 0
        assert node.nodes() == []


async def test_silence_is_noticed_within_a_quarter_of_the_tick_time(
    options: dict[str, Any], engine: str, peers: list[Peer]
) -> None:
    tick = 1.0
    async with Node(new_name(), **run_by(engine), net_ticktime=tick, **options) as node:
        box = node.mailbox("ready")
        nodes = node.mailbox()
        peer = await begin(node, box, peers, options, tick)
        node.monitor_nodes(nodes)
        ref = box.monitor(("sink", peer.name))
        peer.pause()
        start = time.monotonic()
        assert await nodes.receive(10) == ("nodedown", peer.name)
        took = time.monotonic() - start
        # It was heard up to half a tick time before it fell silent; a loaded machine is late.
        assert 0.5 * tick < took < 1.25 * tick + 0.5
        assert (await box.receive(5))[1::3] == (ref, "noconnection")
        peer.resume()
        assert not await node.ping("nobody@127.0.0.1")
        assert await node.ping(peer.name)  # it is back, under the same name


async def test_many_idle_nodes_use_no_cpu(options: dict[str, Any], engine: str) -> None:
    async with (
        Node(new_name("a"), **run_by(engine), **options) as a,
        Node(new_name("b"), **run_by(engine), **options) as b,
        Node(new_name("c"), **run_by(engine), **options) as c,
    ):
        for one, other in ((a, b), (b, c), (c, a)):
            await one.connect(other.name)
        boxes = [node.mailbox("box") for node in (a, b, c)]
        waiting = [asyncio.create_task(box.receive()) for box in boxes]
        await asyncio.sleep(0.1)
        start = time.process_time()
        await asyncio.sleep(1.0)
        assert time.process_time() - start < 0.02
        for task, node in zip(waiting, (a, b, c), strict=True):
            node.send("box", 1)
            assert await task == 1


async def test_stop_waits_for_a_slow_peer_and_not_for_ever(
    options: dict[str, Any], peers: list[Peer]
) -> None:
    node = Node(new_name(), **options)
    await node.start()
    box = node.mailbox("ready")
    peer = await begin(node, box, peers, options)
    peer.pause()
    for i in range(20_000):
        node.send(("sink", peer.name), (i, bytes(1000)))
    start = time.monotonic()
    await node.stop()
    assert 0.5 < time.monotonic() - start < 5
    assert not node.running


async def test_a_stop_that_is_cancelled_still_stops(
    options: dict[str, Any], peers: list[Peer]
) -> None:
    node = Node(new_name(), **options)
    await node.start()
    box = node.mailbox("ready")
    peer = await begin(node, box, peers, options)
    peer.pause()
    for i in range(20_000):
        node.send(("sink", peer.name), (i, bytes(1000)))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await node.stop()
    assert not node.running
    assert box.closed
    await node.stop()


async def test_a_quick_stop_delivers_what_was_sent(
    options: dict[str, Any], engine: str, peers: list[Peer]
) -> None:
    async with Node(new_name(), **options) as other:
        report = other.mailbox("ready")
        peer = await begin(other, report, peers, options)
        async with Node(new_name(), **run_by(engine), **options) as node:
            for i in range(5000):
                node.send(("sink", peer.name), (i, bytes(1000)))
            await node.connect(peer.name)  # what waits for a connection is not waited for
        other.send(("sink", peer.name), "report")
        count = 0
        while count < 5000:  # two connections have no order between them
            count, expected, ordered = await report.receive(10)
            assert ordered
            other.send(("sink", peer.name), "report")
        assert (count, expected) == (5000, 5000)
