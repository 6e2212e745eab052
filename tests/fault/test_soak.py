"""A node that feeds several others while they are stalled, killed, cut off and come again.

Ten minutes of it with ROUTER_TEST_LONG, some seconds else. What must hold at the end: whoever
was only stalled has had each message that was accepted, once and in order; nobody has had a gap
or a message twice within one connection; what was accepted, refused and dropped is what the
node's counters say; and memory is what it was in the beginning.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from conftest import LONG
from fault.soak_peer import payload
from router import Atom, BufferFull, Limits, Node, RouterError, _core
from router.testing import free_port

SECONDS = 600.0 if LONG else 7.0
PATIENCE = 60.0
SIZES = (8, 64, 64, 64, 500, 500, 4_000, 70_000, 300_000)
TURN_BYTES = 200_000
QUEUE_BYTES_MAX = 4 << 20
# A peer's box, what may spill into it, what is just put together or decoded; the feeder's queues.
MIB_AT_A_TIME = 32
PEER = Path(__file__).with_name("soak_peer.py")
# What may happen to whom: one is only stalled, one is only asked how long an answer takes.
STALLED, CALM = "stalled", "calm"
MISHAPS = {
    STALLED: ("stop",),
    CALM: (),
    "killed": ("stop", "kill"),
    "cut": ("stop", "cut", "leave"),
    "anything": ("stop", "kill", "cut", "leave"),
}

THREADS: dict[str, Any] = {"engine": "thread", "threads": 3}
URING = _core.poller_missing(_core.POLLERS["io_uring"]) is None
DRIVEN: list[dict[str, Any]] = [
    {"engine": "auto"},
    THREADS,
    *[{**THREADS, "poller": "io_uring"}] * URING,
]


@pytest.fixture(autouse=True)
def time_limit() -> Iterator[None]:
    faulthandler.dump_traceback_later(SECONDS + 3 * PATIENCE, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def resident(pid: int) -> float:
    """MiB of memory that a process has."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


class Fed:
    """One peer: its process, and what it was sent."""

    def __init__(self, soak: Soak, kind: str) -> None:
        self.soak, self.kind = soak, kind
        self.name = f"{kind}_{os.getpid()}@127.0.0.1"
        self.up = asyncio.Event()
        self.ends = 0  # connections that ended
        self.accepted = self.others = self.refused = 0
        self.number = 0
        self.count = self.wrong = 0  # as it says in the end, and without a gap from where to where
        self.runs: list[tuple[int, int]] = []
        self.start()

    def start(self) -> None:
        arguments = [self.name, str(self.soak.epmd_port), self.soak.node.name, str(self.soak.seed)]
        self.child = subprocess.Popen([sys.executable, str(PEER), *arguments])

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.child.pid, number)

    def end(self) -> None:
        self.child.kill()
        self.child.wait()

    async def feed(self) -> None:
        """As fast as it takes them; while it is away a few now and then."""
        dice, node = random.Random(f"{self.soak.seed} {self.kind}"), self.soak.node
        patient = True
        await self.up.wait()
        while not self.soak.over:
            if not self.up.is_set() and dice.random() < 0.9:
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.2):
                        await self.up.wait()
                continue
            left = TURN_BYTES if patient else 2 * QUEUE_BYTES_MAX
            while left > 0:
                size = dice.choice(SIZES)
                left -= size + 100
                try:
                    self.send(self.number, size, payload(self.number, size))
                except BufferFull:
                    self.refused += 1
                    break
                self.accepted += 1
                self.number += 1
            try:
                async with asyncio.timeout(0.5):
                    await node.drain(self.name)
                patient = True
            except TimeoutError:  # now it sends until it is told that no more goes
                patient = False

    def send(self, *term: Any) -> None:
        self.soak.node.send(("sink", self.name), term)

    def tell(self, *term: Any) -> None:
        try:
            self.send(*term)
        except BufferFull:
            self.refused += 1
            raise
        self.others += 1


class Soak:
    def __init__(self, node: Node, epmd_port: int, seed: int) -> None:
        self.node, self.epmd_port, self.seed = node, epmd_port, seed
        self.over = False
        self.dice = random.Random(seed)
        self.ready = node.mailbox("ready")
        self.watcher = node.mailbox()
        self.stopped = 0  # peers that stand now
        self.trips: dict[bool, list[float]] = {False: [], True: []}
        self.mishaps: dict[str, int] = {}
        self.to_come: list[tuple[str, str]] = []
        self.memory: list[list[float]] = []
        node.monitor_nodes(self.watcher)
        self.peers = {kind: Fed(self, kind) for kind in MISHAPS}

    async def watch(self) -> None:
        by_name = {peer.name: peer for peer in self.peers.values()}
        async for what, name in self.watcher:
            if what == "nodeup":
                by_name[name].up.set()
            else:
                by_name[name].up.clear()
                by_name[name].ends += 1

    async def greet(self) -> None:
        """Peers connect; one whose connection was cut is connected to again."""
        while not self.over:
            with suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await self.ready.receive()
            for peer in self.peers.values():
                if not peer.up.is_set() and peer.child.poll() is None:
                    with suppress(RouterError, TimeoutError):
                        await self.node.connect(peer.name, 2.0)

    async def ping(self) -> None:
        """How long the calm one's answers take, while others stand and while none does."""
        calm = self.peers[CALM]
        with self.node.mailbox() as box:
            while not self.over:
                await asyncio.wait_for(calm.up.wait(), PATIENCE)
                stopped, began = self.stopped > 0, time.perf_counter()
                calm.tell(Atom("ping"), box.pid, b"again")
                await box.receive(PATIENCE)
                self.trips[stopped].append(time.perf_counter() - began)
                await asyncio.sleep(0.005)  # some two hundred a second

    def next_mishap(self) -> tuple[str, str]:
        """Each of them in any order, and again."""
        if not self.to_come:
            self.to_come = [(kind, what) for kind, several in MISHAPS.items() for what in several]
            self.dice.shuffle(self.to_come)
        return self.to_come.pop()

    async def mishap(self) -> None:
        kind, what = self.next_mishap()
        peer = self.peers[kind]
        self.mishaps[what] = self.mishaps.get(what, 0) + 1
        match what:
            case "stop":
                self.stopped += 1
                peer.signal(signal.SIGSTOP)
                await asyncio.sleep(2.0 if kind == STALLED else self.dice.uniform(0.05, 1.0))
                peer.signal(signal.SIGCONT)
                self.stopped -= 1
            case "kill":
                peer.end()
                await asyncio.sleep(self.dice.choice((0.0, 0.5)))
                peer.start()
            case "cut":
                self.node.disconnect(peer.name)
            case "leave" if peer.up.is_set():
                with suppress(BufferFull):
                    peer.tell(Atom("leave"), Atom(self.node.name))

    async def run(self) -> None:
        tasks = [asyncio.create_task(work) for work in (self.watch(), self.greet(), self.ping())]
        tasks += [asyncio.create_task(peer.feed()) for kind, peer in self.peers.items()
                  if kind != CALM]  # fmt: skip
        for peer in self.peers.values():
            await asyncio.wait_for(peer.up.wait(), PATIENCE)
        began = time.monotonic()
        quarter = 0
        while (spent := time.monotonic() - began) < SECONDS:
            await self.mishap()
            if spent > quarter * SECONDS / 4:
                quarter += 1
                self.weigh()
            for task in tasks:
                if task.done():
                    task.result()
        self.weigh()
        self.over = True
        await asyncio.wait_for(asyncio.gather(*tasks[1:]), PATIENCE)
        for peer in self.peers.values():
            await self.settle(peer)
        tasks[0].cancel()

    def weigh(self) -> None:
        pids = [os.getpid(), *(self.peers[kind].child.pid for kind in (STALLED, CALM))]
        self.memory.append([resident(pid) for pid in pids])

    async def settle(self, peer: Fed) -> None:
        """All that was accepted is written or lost, and the peer has said what it had."""
        asked = None  # before which end of a connection
        with self.node.mailbox() as box:
            async with asyncio.timeout(PATIENCE):
                while True:
                    while not peer.up.is_set():
                        with suppress(RouterError, TimeoutError):
                            await self.node.connect(peer.name, 2.0)
                        await asyncio.sleep(0)
                    while int(self.row(peer)["queued_bytes"]):
                        await self.node.drain(peer.name)
                        await asyncio.sleep(0)  # the engine writes what is below the mark
                    # A peer that was asked to leave does so when it comes to that, and what came
                    # after it is lost with the connection.
                    if asked != peer.ends:
                        asked = peer.ends
                        peer.tell(Atom("report"), box.pid)
                    with suppress(TimeoutError):
                        _, peer.count, peer.wrong, peer.runs = await box.receive(0.5)
                        return

    def row(self, peer: Fed) -> Any:
        (row,) = [row for row in self.node.stats() if row["peer"] == peer.name]
        return row


@asynccontextmanager
async def soaking(seed: int, driven: dict[str, Any]) -> Any:
    limits = Limits(queue_bytes_soft=QUEUE_BYTES_MAX // 8, queue_bytes_max=QUEUE_BYTES_MAX)
    port = free_port()
    name = f"soak_{os.getpid()}@127.0.0.1"
    async with Node(name, cookie="secret", epmd_port=port, limits=limits, **driven) as node:
        soak = Soak(node, port, seed)
        try:
            yield soak
        finally:
            for peer in soak.peers.values():
                peer.end()


def late(trips: list[float]) -> float:
    return sorted(trips)[int(0.99 * len(trips))]


@pytest.mark.parametrize("driven", DRIVEN, ids=lambda driven: "-".join(map(str, driven.values())))
def test_accounts_and_memory_hold(driven: dict[str, Any]) -> None:
    asyncio.run(soak_and_judge(driven))


async def soak_and_judge(driven: dict[str, Any]) -> None:
    seed = random.SystemRandom().randrange(1 << 32) if LONG else 20
    async with soaking(seed, driven) as soak:
        await soak.run()
        shown = f"seed {seed}, {driven}, {soak.mishaps}"
        for kind, peer in soak.peers.items():
            row, said = soak.row(peer), f"{shown}: {kind} {peer.count} of {peer.accepted}"
            assert int(row["messages_out"]) == peer.accepted + peer.others, said
            assert int(row["refused"]) == peer.refused, said
            assert peer.wrong == 0, said
            # A gap needs the end of a connection, and nothing comes twice or late.
            assert len(peer.runs) <= 1 + peer.ends, f"{said}: {peer.runs}"
            ends = [edge for run in peer.runs for edge in run]
            assert ends == sorted(ends), f"{said}: {peer.runs}"
            assert peer.count == sum(last - first + 1 for first, last in peer.runs), said
            assert peer.count + int(row["dropped_out"]) <= peer.accepted + peer.others, said
            if kind in (STALLED, CALM):
                assert (peer.ends, int(row["dropped_out"])) == (0, 0), said
                assert peer.count == peer.accepted, said
            elif "cut" in MISHAPS[kind] or "kill" in MISHAPS[kind]:
                assert peer.ends > 0, said
        assert soak.peers[STALLED].refused > 0, shown
        for before, after in zip(soak.memory[1], soak.memory[-1], strict=True):
            assert after < 1.2 * before + MIB_AT_A_TIME, f"{shown}: MiB {soak.memory}"
        assert late(soak.trips[True]) < 5 * late(soak.trips[False]) + 0.25, shown
        fed = {k: (p.count, p.accepted, p.refused, p.ends) for k, p in soak.peers.items()}
        print(shown, fed, soak.memory, late(soak.trips[True]), late(soak.trips[False]))
