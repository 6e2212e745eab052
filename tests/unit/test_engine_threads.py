"""Several threads that share a node's connections: each has its own, and nothing is lost when one
comes, is handed over, is replaced or goes."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from contextlib import AsyncExitStack
from typing import Any

from router import BufferFull, Node, NodeDown, RouterError

from .conftest import new_name, until

SEVERAL: dict[str, Any] = {"engine": "thread", "threads": 3}


async def connected(stack: AsyncExitStack, hub: Node, **options: Any) -> Node:
    node = await stack.enter_async_context(Node(new_name("p"), **options))
    await node.connect(hub.name, host="127.0.0.1", port=hub.port)
    return node


def watched_sockets() -> list[int]:
    """How many sockets each epoll set of this program watches, largest first; sets without left
    out."""
    counts = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{fd}") != "anon_inode:[eventpoll]":
                continue
            with open(f"/proc/self/fdinfo/{fd}") as info:
                watched = [line.split()[1] for line in info if line.startswith("tfd:")]
            links = [os.readlink(f"/proc/self/fd/{w}") for w in watched]
        except FileNotFoundError:
            continue
        counts.append(sum(link.startswith("socket:") for link in links))
    return sorted(filter(None, counts), reverse=True)


async def test_connections_are_dealt_out(bare: dict[str, Any]) -> None:
    """Nine connections for three threads; the listener is the first one's too. The peers' own
    sets hold two: a connection, and their listener."""
    async with AsyncExitStack() as stack:
        before = set(os.listdir("/proc/self/task"))  # one of an earlier test's may be ending still
        hub = await stack.enter_async_context(Node(new_name("hub"), **SEVERAL, **bare))
        assert len(set(os.listdir("/proc/self/task")) - before) == 3
        peers = [await connected(stack, hub, engine="inline", **bare) for _ in range(9)]
        mine = [4, 3, 3]
        await until(lambda: watched_sockets()[:3] == mine)
        # All that one thread carried go: who comes next is carried there.
        for peer in peers[::3]:
            await peer.stop()
        await until(lambda: len(hub.nodes()) == 6)
        for _ in range(3):
            await connected(stack, hub, engine="inline", **bare)
        await until(lambda: watched_sockets()[:3] == mine)


async def test_connections_that_come_and_go_under_traffic(bare: dict[str, Any]) -> None:
    """Every message of each life of each peer comes once and in order, or is counted as lost."""
    dice = random.Random(7)
    seen: dict[tuple[str, int], int] = {}
    counts = {"sent": 0, "heard": 0}

    async def live(hub: Node, name: str, life: int) -> None:
        async with Node(name, **bare) as node:
            box, number = node.mailbox(), 0
            for _ in range(dice.randrange(1, 4)):
                try:
                    await node.connect(hub.name, host="127.0.0.1", port=hub.port)
                except RouterError:  # the old connection is on its way out
                    continue
                for _ in range(dice.randrange(300)):
                    filling = bytes(dice.choice([10, 10, 10, 3_000, 70_000]))
                    try:
                        node.send(("in", hub.name), (name, life, number, box.pid, filling))
                    except (NodeDown, BufferFull):
                        break
                    number += 1
                    if number % 50 == 0:
                        await node.drain()
                        await asyncio.sleep(0)
                ended = dice.random()
                if ended < 0.3:
                    hub.disconnect(name)
                elif ended < 0.6:
                    node.disconnect(hub.name)
            counts["sent"] += number

    async def lives(hub: Node, name: str) -> None:
        for life in range(12):
            await live(hub, name, life)

    async def read(hub: Node) -> None:
        box = hub.mailbox("in")
        while True:
            for name, life, number, pid, _ in await box.receive_many():
                assert number > seen.get((name, life), -1)
                seen[name, life] = number
                counts["heard"] += 1
                if number % 10 == 0:
                    hub.send(pid, number)

    async with Node(new_name("hub"), **SEVERAL, **bare) as hub:
        reading = asyncio.create_task(read(hub))
        await asyncio.gather(*(lives(hub, new_name("p")) for _ in range(6)))
        await until(lambda: not hub.nodes())
        # Some of it was in a queue of the sender's when its connection ended.
        assert 0 < counts["heard"] <= counts["sent"]
        stats = hub.stats()
        arrived = int(stats["messages_in"].sum()) - int(stats["dropped_in"].sum())
        await until(lambda: counts["heard"] == arrived)
        reading.cancel()


async def test_a_box_that_pauses_peers_of_different_threads(bare: dict[str, Any]) -> None:
    """Each thread holds its own peers back; reading from the box lets all of them go on."""
    limits = {"spill_bytes_max": 200_000, "pause_ms_max": 30_000}
    total = 400
    async with AsyncExitStack() as stack:
        hub = await stack.enter_async_context(
            Node(new_name("hub"), limits=limits, **SEVERAL, **bare)
        )
        box = hub.mailbox("in", limit=10, overflow="pause")
        peers = [await connected(stack, hub, **bare) for _ in range(3)]
        for i in range(total):
            for k, peer in enumerate(peers):
                peer.send(("in", hub.name), (k, i, bytes(20_000)))
        # Each has sent 8 MB; what is taken of it stands still.
        await until(lambda: all(peer.stats()["queued_bytes"][0] > 0 for peer in peers))
        following = [0] * len(peers)
        while sum(following) < total * len(peers):
            for k, i, _ in await box.receive_many(20, timeout=20):
                assert i == following[k]
                following[k] += 1


def test_stop_under_the_hands_of_busy_peers(bare: dict[str, Any]) -> None:
    for _ in range(10):
        hub = Node(new_name("hub"), **SEVERAL, **bare)
        hub.start_sync()
        hub.mailbox("in")
        ready = threading.Barrier(5)

        def flood(hub: Node = hub, ready: threading.Barrier = ready) -> None:
            with Node(new_name("p"), **bare) as node:
                node.connect_sync(hub.name, host="127.0.0.1", port=hub.port)
                ready.wait()
                while node.nodes():
                    try:
                        node.send(("in", hub.name), bytes(1000))
                        node.drain_sync(timeout=5)
                    except (RouterError, TimeoutError):
                        break

        peers = [threading.Thread(target=flood) for _ in range(4)]
        for peer in peers:
            peer.start()
        ready.wait()
        hub.stop_sync()
        for peer in peers:
            peer.join(20)
            assert not peer.is_alive()
        assert not hub.nodes()
