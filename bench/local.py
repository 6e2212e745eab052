"""`local`: sending to a mailbox of this process, beside queues.

A queue hands over a reference to the same object. A mailbox takes a copy that
came through the codec, as it must for a message between processes: what it
costs above a queue is that.
"""

from __future__ import annotations

import asyncio
import queue
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import router
from bench import report
from bench.core import MEMORY
from bench.inline import PER_CALL, per_call
from bench.measure import BenchError, Run, Sample, compare
from bench.native import ROOT
from bench.peers.control import TAG, payload

__all__ = ["BATCH", "Local", "asyncio_queue", "measure", "simple_queue"]

BATCH = 512
SIZE = 64
PATH = "one process, 512 sent, then 512 received"
EVENT = router.Atom(TAG)


class Local:
    """A node that only talks to itself."""

    def __init__(self) -> None:
        self.node = router.Node("bench_local@127.0.0.1", cookie="bench", listen=False, epmd="none")
        self.node.start_sync()
        self.box = self.node.mailbox()
        self.data = payload(SIZE)

    def close(self) -> None:
        self.node.stop_sync()

    def check(self, terms: list[Any]) -> None:
        if [term[1] for term in terms] != list(range(BATCH)):
            raise AssertionError("not what was sent")

    def singly(self, n: int) -> None:
        node, box, pid, data = self.node, self.box, self.box.pid, self.data
        for _ in range(n):
            for i in range(BATCH):
                node.send(pid, (EVENT, i, data))
            self.check([box.get() for _ in range(BATCH)])

    def many(self, n: int) -> None:
        node, box, pid, data = self.node, self.box, self.box.pid, self.data
        for _ in range(n):
            node.send_many(pid, [(EVENT, i, data) for i in range(BATCH)])
            self.check(box.get_many(BATCH))


def _queue(put: Callable[[Any], None], get: Callable[[], Any]) -> Callable[[int], None]:
    data = payload(SIZE)

    def work(n: int) -> None:
        for _ in range(n):
            for i in range(BATCH):
                put((EVENT, i, data))
            terms = [get() for _ in range(BATCH)]
            if [term[1] for term in terms] != list(range(BATCH)):
                raise AssertionError("not what was sent")

    return work


def simple_queue() -> Callable[[int], None]:
    q: queue.SimpleQueue[Any] = queue.SimpleQueue()
    return _queue(q.put, q.get)


def asyncio_queue() -> Callable[[int], None]:
    q: asyncio.Queue[Any] = asyncio.Queue()
    return _queue(q.put_nowait, q.get_nowait)


# In a program of its own: the measuring one has memory at hand.
IDLE = """
import asyncio, sys
import router
from bench.core import resident

count = int(sys.argv[2])
node = router.Node("bench_idle@127.0.0.1", cookie="bench", listen=False, epmd="none")
node.start_sync()
make = node.mailbox if sys.argv[1] == "router" else asyncio.Queue
kept = [None] * count
before = resident()
for i in range(count):
    kept[i] = make()
print((resident() - before) / count)
kept.clear()
node.stop_sync()
"""


def idle(what: str, count: int) -> Run:
    """Bytes of memory for each of so many that wait for their first message."""

    def run() -> Sample:
        command = [sys.executable, "-c", IDLE, what, str(count)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        if done.returncode:
            raise BenchError(f"{what}: {done.stderr.strip()[-300:]}")
        return Sample(messages=count, more={"idle": float(done.stdout)})

    return run


def measure(
    quick: bool, say: report.Say, *, count: int = 7, wanted: report.Wanted = report.everything
) -> report.Document:
    document = report.Document("local")
    seconds = 0.02 if quick else 0.1
    say(PATH)
    local = Local()
    try:
        ours = {
            "router send, get": per_call(local.singly, seconds, BATCH),
            "router send_many, get_many": per_call(local.many, seconds, BATCH),
        }
        peers = {
            "asyncio.Queue": per_call(asyncio_queue(), seconds, BATCH),
            "queue.SimpleQueue": per_call(simple_queue(), seconds, BATCH),
        }
        for mine in ours.items():
            for peer in peers.items():
                if wanted(PATH, mine[0], peer[0], SIZE):
                    document.add(compare(mine, peer, pairs=count), PATH, SIZE, PER_CALL)
    finally:
        local.close()
    count_of = 50_000 if quick else 1_000_000
    # A tenth as many queues: a million of them take three gigabytes.
    path, name, queue = "those that are idle", f"router mailbox, of {count_of:,}", "asyncio.Queue"
    if wanted(path, name, queue, 0):
        say(path)
        try:
            found = compare(
                (name, idle("router", count_of)), (queue, idle("queue", count_of // 10)),
                decides="idle", pairs=1 if quick else 3,
            )  # fmt: skip
        except BenchError as e:
            document.failed(e, name, path, 0, MEMORY)
        else:
            document.add(found, path, 0, MEMORY)
    return document
