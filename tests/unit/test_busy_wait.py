"""A node that stays awake for a while after it heard a peer: nothing is late for it, and nothing
is lost."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from router import ExitSignal, Mailbox, Node
from router._loop import LoopBinding

from .conftest import LOOPS, Pair, new_name, run_by

MOST = 0.001


def spy(
    monkeypatch: pytest.MonkeyPatch, node: Node, look: Callable[[Callable[[], None]], None]
) -> None:
    """`look(wait)` is called, and calls `wait`, where a loop may wait awake for that node."""

    def watched(self: LoopBinding) -> None:
        if self._node() is node:
            look(super(LoopBinding, self)._stay_awake)
        else:
            super(LoopBinding, self)._stay_awake()

    monkeypatch.setattr(LoopBinding, "_stay_awake", watched)


def queued(node: Node) -> int:
    return int(node.stats()["queued_bytes"].sum())


@pytest.mark.parametrize("busy_wait", [0, 0.0, 20e-6, MOST])
def test_what_is_accepted(busy_wait: float) -> None:
    Node("a@127.0.0.1", cookie="x", busy_wait=busy_wait)


async def echo(node: Node, box: Mailbox) -> None:
    async for pid, number in box:
        node.send(pid, number)


@pytest.mark.parametrize("busy_wait", [20e-6, MOST])
async def test_there_and_back(pair: Pair, loop_kind: str, engine: str, busy_wait: float) -> None:
    async with pair(busy_wait=busy_wait, **run_by(engine)) as (a, b):
        answering = asyncio.create_task(echo(b, b.mailbox("echo")))
        box = a.mailbox()
        for i in range(100):
            a.send(("echo", b.name), (box.pid, i))
            assert await box.receive(10) == i
        for i in range(1000):  # these are gathered
            a.send(("echo", b.name), (box.pid, i))
        assert [await box.receive(10) for _ in range(1000)] == list(range(1000))
        answering.cancel()


def test_threads_without_a_loop(bare: dict[str, Any], engine: str) -> None:
    with (
        Node(new_name("a"), busy_wait=MOST, **run_by(engine), **bare) as a,
        Node(new_name("b"), busy_wait=MOST, **run_by(engine), **bare) as b,
    ):
        box, there = a.mailbox(), b.mailbox("there")

        def answer() -> None:
            for _ in range(200):
                pid, number = there.get(20)
                b.send(pid, number)

        answering = threading.Thread(target=answer)
        answering.start()
        a.connect_sync(b.name, host="127.0.0.1", port=b.port)
        for i in range(200):
            a.send(("there", b.name), (box.pid, i))
            assert box.get(20) == i
        with pytest.raises(TimeoutError):
            box.get(0.0001)  # less than it would stay awake
        answering.join()


async def test_it_sleeps_when_the_time_is_over(pair: Pair, loop_kind: str, engine: str) -> None:
    async with pair(busy_wait=MOST, **run_by(engine)) as (a, b):
        box = b.mailbox("in")
        for i in range(10):
            a.send(("in", b.name), i)
            assert await box.receive(10) == i
        start = time.process_time()
        with pytest.raises(TimeoutError):
            await box.receive(1.0)  # nothing comes: all it may use is what it stays awake once
        assert time.process_time() - start < 0.02


async def test_what_was_gathered_is_written_first(
    pair: Pair, loop_kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The turn's end writes it. Had the wait begun before, the engine would have. (And with an own
    thread that one would, when the end is a long time coming.)"""
    found: list[tuple[int, int]] = []
    async with pair() as (a, _), pair(busy_wait=MOST, engine="inline") as (b, _):

        def look(wait: Callable[[], None]) -> None:
            before = queued(b)
            wait()
            found.append((before, queued(b)))

        box, there = a.mailbox(), b.mailbox("there")
        await a.connect(b.name)
        spy(monkeypatch, b, look)
        turns = 0
        while len([before for before, _ in found if before]) < 30:
            a.send(("there", b.name), turns)
            assert await there.receive(10) == turns
            for _ in range(turns % 6):  # the loop stays awake meanwhile
                await asyncio.sleep(0)
            for i in range(3):  # the first is written at once
                b.send(box.pid, i)
            assert [await box.receive(10) for _ in range(3)] == [0, 1, 2]
            turns += 1
    assert all(before == after for before, after in found if before)


async def test_others_have_their_turns(
    pair: Pair, loop_kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A turn of the loop waits for a part of the time alone; callbacks and timers run between."""
    loop = asyncio.get_running_loop()
    turns = 0
    seen: list[int] = []
    took: list[float] = []
    over = False

    def chain() -> None:
        nonlocal turns
        turns += 1
        if not over:
            loop.call_soon(chain)

    def look(wait: Callable[[], None]) -> None:
        start = time.monotonic()
        wait()
        took.append(time.monotonic() - start)
        seen.append(turns)

    async with pair(busy_wait=MOST) as (a, b):
        box = b.mailbox("in")
        await a.connect(b.name)
        spy(monkeypatch, b, look)
        loop.call_soon(chain)
        while len(took) < 100:
            a.send(("in", b.name), 1)
            timer = loop.create_future()
            loop.call_later(MOST / 2, timer.set_result, None)
            assert await box.receive(10) == 1
            await timer
        over = True
        assert all(one < two for one, two in itertools.pairwise(seen))
    assert sorted(took)[len(took) * 9 // 10] < MOST / 4


def test_news_of_a_thread_are_not_lost(bare: dict[str, Any], loop_kind: str) -> None:
    """Something comes from a peer, and while the loop is awake for it something from a thread:
    nothing else comes that would wake it."""
    with Node(new_name("a"), busy_wait=100e-6, **bare) as a, Node(new_name("b"), **bare) as b:
        a.connect_sync(b.name, host="127.0.0.1", port=b.port)
        heard = {"far": threading.Semaphore(0), "near": threading.Semaphore(0)}
        loop = LOOPS[loop_kind]()

        named = threading.Event()

        async def read(box: Mailbox, got: threading.Semaphore) -> None:
            with pytest.raises(ExitSignal):
                async for _ in box:
                    got.release()

        async def listen() -> None:
            readers = [read(a.mailbox(name), got) for name, got in heard.items()]
            named.set()
            await asyncio.gather(*readers)

        listening = threading.Thread(target=loop.run_until_complete, args=(listen(),))
        listening.start()
        assert named.wait(20)
        for i in range(2000):
            b.send(("far", a.name), i)
            if i % 2:
                assert heard["far"].acquire(timeout=20)
            for _ in range(i % 50):
                time.monotonic()
            a.send("near", i)
            assert heard["near"].acquire(timeout=20)
            if not i % 2:
                assert heard["far"].acquire(timeout=20)
        a.stop_sync()  # while it may be awake
        listening.join(20)
        assert not listening.is_alive()
        loop.close()


async def test_stop_while_it_is_awake(
    bare: dict[str, Any], loop_kind: str, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for how in ("at once", "in a later turn", "in a thread"):
        b = Node(new_name("b"), busy_wait=MOST, **run_by(engine), **bare)
        async with Node(new_name("a"), **bare) as a, b:
            box = b.mailbox("in")
            await a.connect(b.name, host="127.0.0.1", port=b.port)
            a.send(("in", b.name), 1)
            assert await box.receive(10) == 1
            if how == "in a later turn":
                for _ in range(3):
                    await asyncio.sleep(0)
            if how == "in a thread":
                threading.Thread(target=b.stop_sync).start()
                with pytest.raises(ExitSignal):
                    await box.receive(10)
            await b.stop()
            assert not b.running


def test_a_loop_that_ends_while_it_is_awake(bare: dict[str, Any], loop_kind: str) -> None:
    with Node(new_name("a"), **bare) as a, Node(new_name("b"), busy_wait=MOST, **bare) as b:
        box = b.mailbox("in")
        a.connect_sync(b.name, host="127.0.0.1", port=b.port)

        async def once(i: int) -> None:
            a.send(("in", b.name), i)
            assert await box.receive(10) == i

        for i in range(5):
            with asyncio.Runner(loop_factory=LOOPS[loop_kind]) as runner:
                runner.run(once(i))
                runner.run(once(i))


def test_an_interrupt_is_not_slept_through(bare: dict[str, Any]) -> None:
    """It comes while a thread that waits is awake, and nothing comes from the peer after."""
    trips = 1100  # waits in vain, before, are forgotten

    def answer() -> None:
        for _ in range(trips):
            pid, number = there.get(20)
            b.send(pid, number)
        over.wait(MOST / 3)  # in the middle of the time for which the other stays awake
        interrupted.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)
        if not over.wait(2):
            b.send(box.pid, "late")

    with Node(new_name("a"), busy_wait=MOST, **bare) as a, Node(new_name("b"), **bare) as b:
        box, there = a.mailbox(), b.mailbox("there")
        a.connect_sync(b.name, host="127.0.0.1", port=b.port)
        for _ in range(5):
            interrupted: list[float] = []
            over = threading.Event()
            answering = threading.Thread(target=answer)
            answering.start()
            with pytest.raises(KeyboardInterrupt):
                for i in range(trips):
                    a.send(("there", b.name), (box.pid, i))
                    assert box.get(20) == i
                box.get(20)
            took = time.monotonic() - interrupted[0]
            over.set()
            answering.join()
            assert took < 1
