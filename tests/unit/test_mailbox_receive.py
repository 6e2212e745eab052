"""Receiving: every form, time limits, cancellation, limits, ends."""

from __future__ import annotations

import asyncio
import gc
import io
import sys
import threading
import time
import weakref
from typing import Any

import pytest

from router import Atom, BufferFull, Codec, DecodeError, ExitSignal, NameTaken, Node
from router._loop import LoopBinding
from router.mailbox import Mailbox

from .conftest import Pair, new_name


@pytest.fixture
def node(options: dict[str, Any]) -> Any:
    with Node(new_name(), **options) as node:
        yield node


async def test_time_limits(node: Node, loop_kind: str) -> None:
    box = node.mailbox()
    for timeout in (0, 0.01):
        with pytest.raises(TimeoutError):
            await box.receive(timeout)
        with pytest.raises(TimeoutError):
            await box.receive_many(timeout=timeout)
    node.send(box.pid, 1)
    assert await box.receive(0) == 1
    node.send(box.pid, 2)
    assert await box.receive_many(timeout=0) == [2]
    with pytest.raises(ValueError, match="max"):
        await box.receive_many(0)


def test_time_limits_in_a_thread(node: Node) -> None:
    box = node.mailbox()
    for timeout in (0, 0.01):
        with pytest.raises(TimeoutError):
            box.get(timeout)
        with pytest.raises(TimeoutError):
            box.get_many(timeout=timeout)
    node.send(box.pid, 1)
    assert box.get(0) == 1
    node.send_many(box.pid, [2, 3, 4])
    assert box.get_many(2) == [2, 3]
    assert box.get_many(2) == [4]


async def test_cancelling_loses_no_message(node: Node, loop_kind: str) -> None:
    box = node.mailbox()
    seen: list[int] = []
    for i in range(300):
        task = asyncio.create_task(box.receive())
        await asyncio.sleep(0)
        if i % 3:
            node.send(box.pid, i)  # news and the cancellation in the same turn
        task.cancel()
        try:
            seen.append(await task)
        except asyncio.CancelledError:
            pass
        if not i % 3:
            node.send(box.pid, i)
    while len(seen) < 300:
        seen += await box.receive_many(timeout=5)
    assert seen == list(range(300))


async def test_what_was_read_belongs_to_the_reader_alone(node: Node) -> None:
    box = node.mailbox("in")
    kept = 0
    for _ in range(3):  # the first time caches are filled
        before = sys.getallocatedblocks()
        for _ in range(10):
            node.send_many("in", [(i + 1000, b"x" * 50) for i in range(100)])
            assert len(await box.receive_many()) == 100
            node.send("in", (1000, b"x" * 50))
            assert await box.receive() == (1000, b"x" * 50)
        kept = sys.getallocatedblocks() - before
    assert kept < 100  # of three thousand objects


async def test_one_receiver_at_a_time(node: Node) -> None:
    box = node.mailbox()
    first = asyncio.create_task(box.receive())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="receiving"):
        await box.receive()
    with pytest.raises(RuntimeError, match="receiving"):
        box.on_messages(print)
    node.send(box.pid, 1)
    assert await first == 1
    box.on_messages(print)
    with pytest.raises(RuntimeError, match="on_messages"):
        await box.receive()


async def test_on_messages(node: Node, loop_kind: str) -> None:
    box = node.mailbox("cb")
    batches: list[list[Any]] = []
    done = asyncio.Event()
    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))

    def take(terms: list[Any]) -> None:
        batches.append(terms)
        if terms[-1] == 99:
            done.set()
        if 5 in terms:
            raise ZeroDivisionError

    box.on_messages(take)
    for i in range(100):
        node.send("cb", i)
    await asyncio.wait_for(done.wait(), 5)
    assert [t for batch in batches for t in batch] == list(range(100))
    assert len(errors) == 1
    assert isinstance(errors[0]["exception"], ZeroDivisionError)
    box.on_messages(None)
    node.send("cb", "again")
    assert await box.receive(5) == b"again"


async def test_a_box_with_a_callback_lives_without_being_held(node: Node) -> None:
    got: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    box = node.mailbox()
    pid = box.pid
    box.on_messages(lambda terms: got.set_result(terms))
    del box
    gc.collect()
    node.send(pid, 1)
    assert await asyncio.wait_for(got, 5) == [1]


async def test_iteration_ends_quietly_on_normal_and_raises_otherwise(node: Node) -> None:
    box = node.mailbox()
    node.send(box.pid, 1)
    node.send(box.pid, 2)
    box.close()
    assert [t async for t in box] == [1, 2]
    with pytest.raises(ExitSignal) as e:
        await box.receive()
    assert e.value.reason == "normal"
    box = node.mailbox()
    node.send(box.pid, 1)
    box.close((Atom("bad"), 1))
    seen = []
    with pytest.raises(ExitSignal) as e:
        async for term in box:
            seen.append(term)
    assert (seen, e.value.reason) == ([1], ("bad", 1))
    box.close("again")  # nothing happens
    with pytest.raises(ExitSignal) as e:
        box.get()
    assert e.value.reason == ("bad", 1)


async def test_closing_wakes_a_receiver(node: Node) -> None:
    box = node.mailbox()
    task = asyncio.create_task(box.receive())
    await asyncio.sleep(0)
    box.close("enough")
    with pytest.raises(ExitSignal, match="enough"):
        await asyncio.wait_for(task, 5)


def test_closing_wakes_a_thread(node: Node) -> None:
    box = node.mailbox()
    seen: list[BaseException] = []

    def wait() -> None:
        try:
            box.get()
        except ExitSignal as e:
            seen.append(e)

    thread = threading.Thread(target=wait)
    thread.start()
    box.close("enough")
    thread.join(10)
    assert [str(e) for e in seen] == ["Atom('enough')"]


async def test_a_refused_term_is_raised_once_and_the_box_goes_on(options: dict[str, Any]) -> None:
    codec = Codec(max_depth=3)
    async with Node(new_name(), codec=codec, **options) as a, Node(new_name(), **options) as b:
        box = a.mailbox("in")
        deep: list[Any] = []
        for _ in range(10):
            deep = [deep]
        for term in (1, 2, deep, 3):
            b.send(("in", a.name), term)
        b.send(("in", a.name), b"end")
        while box.waiting < 5:
            await asyncio.sleep(0.001)
        assert await box.receive_many() == [1, 2]
        with pytest.raises(DecodeError) as e:
            await box.receive_many()
        assert isinstance(e.value.data, bytes)
        assert await box.receive() == 3
        b.send(("in", a.name), deep)
        assert await box.receive() == b"end"
        with pytest.raises(DecodeError):
            await box.receive(5)
        with pytest.raises(TimeoutError):
            await box.receive(0.01)


async def test_names(node: Node) -> None:
    box = node.mailbox("one")
    assert node.whereis("one") == box.pid
    assert node.whereis("two") is None
    with pytest.raises(NameTaken, match="one"):
        node.mailbox("one")
    box.close()
    assert node.whereis("one") is None
    again = node.mailbox("one")
    assert again.pid != box.pid
    for bad in ("", "x" * 256):
        with pytest.raises(ValueError, match="255"):
            node.mailbox(bad)
    longest = "ü" * 255
    assert node.mailbox(longest).name == longest


async def test_an_anonymous_box_ends_when_nobody_holds_it(node: Node) -> None:
    watcher, box = node.mailbox(), node.mailbox()
    named = node.mailbox("kept")
    ref = watcher.monitor(box.pid)
    kept = watcher.monitor("kept")
    del box, named
    gc.collect()
    message = await watcher.receive(5)
    assert message[:3] == ("DOWN", ref, "process")
    assert message[4] == "normal"
    assert watcher.demonitor(kept)  # it stood


async def test_limits_must_say_what_happens(node: Node) -> None:
    for bad in (
        {"limit": 5},
        {"limit_bytes": 5},
        {"overflow": "drop"},
        {"limit": 0, "overflow": "drop"},
        {"limit": 1, "overflow": "explode"},
    ):
        with pytest.raises(ValueError, match="limit|overflow"):
            node.mailbox(**bad)  # type: ignore[arg-type]


async def test_overflow_drop_counts_the_newest(pair: Pair) -> None:
    async with pair() as (a, b):
        box = b.mailbox("in", limit=10, overflow="drop")
        end = b.mailbox("end")
        for i in range(100):
            a.send(("in", b.name), i)
        a.send(("end", b.name), 1)
        await end.receive(5)
        assert await box.receive_many() == list(range(10))
        assert box.dropped == 90
        a.send(("in", b.name), "room again")
        assert await box.receive(5) == b"room again"


async def test_overflow_close(pair: Pair) -> None:
    async with pair() as (a, b):
        box = b.mailbox("in", limit_bytes=1000, overflow="close")
        for _ in range(20):
            a.send(("in", b.name), bytes(100))
        seen = []
        with pytest.raises(ExitSignal) as e:
            while True:
                seen += await box.receive_many(timeout=5)
        assert e.value.reason == "overflow"
        assert len(seen) < 10


async def test_overflow_pause_holds_the_peer_back(pair: Pair) -> None:
    limits = {"spill_bytes_max": 50_000, "pause_ms_max": 20_000}
    async with pair(limits=limits) as (a, b):
        box = b.mailbox("in", limit=100, overflow="pause")
        for i in range(20_000):
            a.send(("in", b.name), (i, bytes(100)))
        drained = asyncio.create_task(a.drain())  # once there is room
        seen: list[int] = []
        most = 0
        while len(seen) < 20_000:
            most = max(most, box.waiting_bytes)
            seen += [i for i, _ in await box.receive_many(50, timeout=5)]
        assert seen == list(range(20_000))
        assert most < 2_000_000  # 2.2 MB were sent
        await drained


async def test_a_box_paused_for_too_long_is_closed(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    limits = {"spill_bytes_max": 10_000, "pause_ms_max": 100}
    async with pair(limits=limits) as (a, b):
        box = b.mailbox("in", limit=10, overflow="pause")
        other = b.mailbox("other")
        watcher = b.mailbox()
        watcher.monitor(box.pid)
        for i in range(5000):
            a.send(("in", b.name), (i, bytes(100)))
        a.send(("other", b.name), "behind it")
        assert (await watcher.receive(10))[4] == "overflow"
        assert await other.receive(10) == b"behind it"
        read = len(await box.receive_many(10_000))
        assert read + int(b.stats()["dropped_in"][0]) == 5000


@pytest.mark.parametrize("how", ["killed", "closed"])
async def test_a_box_that_ends_holds_nobody_back(pair: Pair, how: str) -> None:
    """Killed from elsewhere, it held its peers back until pause_ms_max had passed."""
    limits = {"spill_bytes_max": 10_000, "pause_ms_max": 60_000}
    async with pair(limits=limits) as (a, b):
        box = b.mailbox("in", limit=10, overflow="pause")
        for i in range(5000):
            a.send(("in", b.name), (i, bytes(100)))
        await a.drain()
        while box.waiting_bytes <= 10_000:  # from then on the peer is held back
            await asyncio.sleep(0)
        behind = b.mailbox("behind")
        a.send(("behind", b.name), 1)
        if how == "killed":
            b.mailbox().exit(box.pid, "kill")
        else:
            box.close()
        assert await behind.receive(10) == 1


async def test_a_local_sender_to_a_full_pausing_box_is_told(node: Node) -> None:
    box = node.mailbox("full", limit=2, overflow="pause")
    node.send("full", 1)
    node.send("full", 2)
    with pytest.raises(BufferFull):
        node.send("full", 3)
    assert await box.receive() == 1
    node.send("full", 3)
    assert await box.receive_many() == [2, 3]


async def test_several_loops_each_with_its_own_box(options: dict[str, Any]) -> None:
    with Node(new_name("a"), **options) as a, Node(new_name("b"), **options) as b:
        results: dict[int, list[int]] = {}

        async def echo(k: int, box: Mailbox) -> None:
            results[k] = [await box.receive(20) for _ in range(200)]

        boxes = [b.mailbox(f"loop{k}") for k in range(3)]
        threads = [
            threading.Thread(target=lambda k=k: asyncio.run(echo(k, boxes[k]))) for k in range(3)
        ]
        for t in threads:
            t.start()
        for i in range(200):
            for k in range(3):
                a.send((f"loop{k}", b.name), i)
        for t in threads:
            await asyncio.to_thread(t.join, 30)
        assert results == {k: list(range(200)) for k in range(3)}


def test_a_box_moves_from_loop_to_loop_and_to_a_thread(options: dict[str, Any]) -> None:
    with Node(new_name("a"), **options) as a, Node(new_name("b"), **options) as b:
        box = b.mailbox("in")

        async def one() -> Any:
            a.send(("in", b.name), "for a loop")
            return await box.receive(5)

        assert asyncio.run(one()) == b"for a loop"
        assert asyncio.run(one()) == b"for a loop"  # the first loop is closed
        a.send(("in", b.name), "for a thread")
        assert box.get(5) == b"for a thread"
        assert asyncio.run(one()) == b"for a loop"


def test_a_mailbox_is_not_copied_or_pickled(node: Node) -> None:
    import copy
    import pickle

    box = node.mailbox()
    with pytest.raises(Exception, match="pid"):
        copy.copy(box)
    with pytest.raises(TypeError, match="pid"):
        pickle.dumps(box)
    assert pickle.loads(pickle.dumps(box.pid)) == box.pid


async def test_what_receive_gives_is_a_coroutine(node: Node, loop_kind: str) -> None:
    """Also when it never has to wait: tasks, time limits and gather take it."""
    box = node.mailbox()
    node.send_many(box.pid, range(5))
    first = box.receive()
    assert asyncio.iscoroutine(first)
    assert await first == 0
    with pytest.raises(RuntimeError, match="already awaited"):
        await first
    assert await asyncio.create_task(box.receive()) == 1
    assert await asyncio.wait_for(box.receive(), 5) == 2
    assert await asyncio.gather(box.receive_many(2)) == [[3, 4]]
    task = asyncio.create_task(box.receive())
    await asyncio.sleep(0)
    assert "cr_await" in dir(type(first))
    assert isinstance(repr(task), str)
    task.print_stack(file=io.StringIO())
    node.send(box.pid, (5, 6))
    assert await task == (5, 6)


async def test_nothing_is_taken_before_it_is_awaited(node: Node) -> None:
    box = node.mailbox()
    node.send_many(box.pid, range(3))
    unused = box.receive()
    unused.close()
    thrown = box.receive()
    with pytest.raises(KeyError):
        thrown.throw(KeyError("thrown"))
    never = asyncio.create_task(box.receive())
    never.cancel()
    with pytest.raises(asyncio.CancelledError):
        await never
    dropped = [box.receive_many()]
    with pytest.warns(RuntimeWarning, match="never awaited"):
        dropped.clear()
    assert await box.receive_many() == [0, 1, 2]


@pytest.mark.parametrize("form", ["receive", "receive_many", "async for"])
async def test_a_receiver_that_always_finds_work_lets_others_run(
    node: Node, form: str, loop_kind: str
) -> None:
    box = node.mailbox()
    turns = 0
    stop = False

    async def other() -> None:
        nonlocal turns
        while not stop:
            turns += 1
            await asyncio.sleep(0)

    async def receiver() -> None:
        """Sends itself a message for each that it reads: the box is never empty."""
        end = time.monotonic() + 0.2
        node.send_many(box.pid, range(4))
        if form == "async for":
            async for term in box:
                node.send(box.pid, term)
                if time.monotonic() > end:
                    return
        while time.monotonic() < end:
            if form == "receive":
                node.send(box.pid, await box.receive())
            else:
                node.send_many(box.pid, await box.receive_many())

    task = asyncio.create_task(other())
    await receiver()
    assert turns >= 10  # 100 spans of 2 ms
    stop = True
    await task


@pytest.mark.parametrize("how", ["close", "throw", "drop", "cancel the future"])
async def test_a_receiver_that_ends_while_it_waits_leaves_the_box_free(
    node: Node, loop_kind: str, how: str
) -> None:
    box = node.mailbox()
    waiting = box.receive(60)
    future = waiting.send(None)
    awaited = waiting.cr_await  # type: ignore[attr-defined]
    assert asyncio.isfuture(future) and awaited is future
    with pytest.raises(RuntimeError, match="another task"):
        box.receive().send(None)
    match how:
        case "close":
            waiting.close()
        case "throw":
            with pytest.raises(KeyError, match="thrown"):
                waiting.throw(KeyError, KeyError("thrown"), None)
        case "drop":
            del waiting
        case _:
            future.cancel()
            with pytest.raises(asyncio.CancelledError):
                waiting.send(None)
    assert box._waiter is None
    node.send(box.pid, 1)
    assert await box.receive() == 1
    left = weakref.ref(future)
    del future, awaited
    gc.collect()
    assert left() is None, "its timer has gone with it"


async def test_a_receiver_woken_for_nothing_waits_again(node: Node, loop_kind: str) -> None:
    box = node.mailbox()
    waiting = box.receive(60)
    for _ in range(3):
        waiting.send(None)
        box._on_ready()
    task = asyncio.create_task(waiting)
    node.send(box.pid, b"something")
    assert await task == b"something"


async def test_a_receiver_without_a_loop_is_told(node: Node) -> None:
    box = node.mailbox()
    seen: list[BaseException] = []

    def elsewhere() -> None:
        try:
            box.receive().send(None)
        except RuntimeError as e:
            seen.append(e)

    await asyncio.to_thread(elsewhere)
    assert [str(e) for e in seen] == ["no running event loop"]
    node.send(box.pid, 1)
    assert await box.receive() == 1


async def test_a_receiver_that_gave_way_finds_another_in_its_place(node: Node) -> None:
    box = node.mailbox()
    node.send_many(box.pid, [1, 2])
    assert await box.receive_many(1) == [1]
    end = time.monotonic() + 0.01  # longer than a receiver may keep its loop
    while time.monotonic() < end:
        pass
    first = box.receive_many()
    assert first.send(None) is None  # it gives way, and another comes
    assert await box.receive() == 2
    second = asyncio.create_task(box.receive())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="another task"):
        first.send(None)
    node.send(box.pid, 3)
    assert await second == 3


def test_a_receiver_may_be_collected_together_with_its_loop(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    unraisable: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    alive = node._process_count()

    def leave_behind(timeout: float | None) -> None:
        loop = asyncio.new_event_loop()
        task = loop.create_task(node.mailbox().receive(timeout))
        loop.call_soon(loop.stop)
        loop.run_forever()
        assert not task.done()
        loop.close()

    for timeout in (30, None, 30, None):
        leave_behind(timeout)
    gc.collect()
    assert [str(u.exc_value) for u in unraisable] == []
    assert node._process_count() == alive, "their boxes have gone too"


@pytest.mark.parametrize("timeout", [float("nan"), "soon"])
async def test_a_time_limit_that_is_none(node: Node, loop_kind: str, timeout: Any) -> None:
    box = node.mailbox()
    with pytest.raises((ValueError, TypeError), match=r"."):
        await box.receive(timeout)
    node.send(box.pid, 1)
    assert await box.receive() == 1


async def test_news_that_driving_brought_is_looked_at_once(
    pair: Pair, loop_kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    news = LoopBinding._news

    def counted(binding: LoopBinding) -> None:
        nonlocal looks
        looks += 1
        news(binding)

    monkeypatch.setattr(LoopBinding, "_news", counted)
    async with pair() as (a, b):
        here, there = a.mailbox("here"), b.mailbox("there")
        await a.connect(b.name)
        before = looks
        for number in range(100):
            a.send(("there", b.name), number)
            assert await there.receive(20) == number
            b.send(("here", a.name), number)
            assert await here.receive(20) == number
    assert looks - before < 100  # of 200 turns that brought something


async def test_what_was_awaited_is_not_given_twice(pair: Pair) -> None:
    """A box keeps what a receive was, for the next one, unless somebody else holds it."""
    async with pair() as (a, _):
        box = a.mailbox("in")
        for i in range(6):
            a.send("in", i)
        held = box.receive()
        assert await held == 0
        other = box.receive()
        assert other is not held
        with pytest.raises(RuntimeError, match="already awaited"):
            await held
        third = box.receive_many(2)
        assert third is not other
        assert await other == 1
        assert await third == [2, 3]
        del held, other, third
        assert await box.receive() == 4
        with pytest.warns(RuntimeWarning, match="never awaited"):
            box.receive()
        assert await box.receive(timeout=5) == 5
        with pytest.raises(TimeoutError):
            await box.receive(timeout=0.01)
        assert await anext_or_end(box, a) == "end"


async def anext_or_end(box: Mailbox, node: Node) -> Any:
    node.send("in", Atom("end"))
    async for term in box:
        return term


class Counting(Mailbox):
    """A subclass of a program's own."""

    __slots__ = ()
    asked = 0

    def __anext__(self) -> Any:
        Counting.asked += 1
        return super().__anext__()


async def test_a_subclass_may_iterate_in_its_own_way(pair: Pair) -> None:
    async with pair() as (a, _):
        box = Counting(a, "in")
        assert await anext_or_end(box, a) == "end"
        assert Counting.asked == 1
