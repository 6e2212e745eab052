"""How boxes end that nobody closes, and what a callback's box does at its end."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from router import Atom, Codec, DecodeError, ExitSignal, Mailbox, Node

from .conftest import Pair, new_name


@pytest.fixture
def node() -> Any:
    with Node(new_name(), cookie="secret", epmd="none") as node:
        yield node


class InCycle(Mailbox):
    itself: Mailbox


def test_a_box_found_dead_in_a_cycle_ends_its_process(node: Node) -> None:
    watcher = node.mailbox()
    before = node._process_count()
    for _ in range(10):
        box = InCycle(node)
        box.itself = box
        ref = watcher.monitor(box.pid)
        pid = box.pid
        node.send(pid, "unread")
        del box
        gc.collect()
        assert watcher.get(5) == ("DOWN", ref, "process", pid, "normal")
        node.send(pid, "to nobody")
    assert node._process_count() == before


async def test_a_box_dead_in_a_cycle_is_not_woken(node: Node) -> None:
    """Its process waited for a message: the notifier must not meet what was freed."""
    for _ in range(20):
        box = InCycle(node)
        box.itself = box
        with pytest.raises(TimeoutError):
            await box.receive(0)  # armed
        node.send(box.pid, 1)  # marked
        del box
        gc.collect()
        await asyncio.sleep(0)
    other = node.mailbox()
    node.send(other.pid, 1)
    assert await other.receive(5) == 1
    assert node._process_count() == 1


def test_named_boxes_ended_by_signals_are_let_go(node: Node) -> None:
    killer = node.mailbox()
    alive = node.mailbox("alive").pid
    for i in range(500):
        killer.exit(node.mailbox(f"box{i}").pid, "killed off")
    gc.collect()
    assert len(node._named) < 200
    assert node._process_count() == 2
    assert node.whereis("alive") == alive


async def test_many_boxes_come_and_go(node: Node) -> None:
    for i in range(2000):
        with node.mailbox("same" if i % 2 else None) as box:
            node.send(box.pid, i)
            assert await box.receive(5) == i
    assert node._process_count() == 0
    assert node._relation_count() == 0


def test_what_was_accepted_is_read_after_the_end(node: Node) -> None:
    box = node.mailbox()
    node.send_many(box.pid, range(5))
    box.close((Atom("gone"), 1))
    node.send(box.pid, "too late")
    assert box.closed and box.waiting == 5
    assert box.get() == 0
    assert box.get_many() == [1, 2, 3, 4]
    for _ in range(2):
        with pytest.raises(ExitSignal) as e:
            box.get_many()
        assert e.value.reason == ("gone", 1)


def test_a_reason_that_is_no_term_closes_nothing(node: Node) -> None:
    box = node.mailbox("box")
    with pytest.raises(Exception, match="object"):
        box.close(object())
    assert not box.closed
    node.send("box", 1)
    assert box.get(5) == 1


async def test_on_messages_ends_with_its_box(node: Node) -> None:
    box = node.mailbox("cb")
    seen: list[Any] = []
    box.on_messages(seen.extend)
    node.send("cb", 1)
    box.close("enough")
    while not seen:
        await asyncio.sleep(0)
    assert seen == [1]
    assert box not in node._callbacks
    with pytest.raises(ExitSignal, match="enough"):
        await box.receive(5)


async def test_on_messages_may_be_ended_and_replaced_in_the_callback(node: Node) -> None:
    box = node.mailbox("cb")
    done = asyncio.get_running_loop().create_future()
    seen: list[Any] = []

    def first(terms: list[Any]) -> None:
        seen.append(("first", terms))
        box.on_messages(None)
        box.on_messages(second)
        node.send("cb", "more")

    def second(terms: list[Any]) -> None:
        seen.append(("second", terms))
        box.close()
        done.set_result(None)

    box.on_messages(first)
    node.send("cb", 1)
    await asyncio.wait_for(done, 5)
    assert seen == [("first", [1]), ("second", [b"more"])]


async def test_on_messages_reports_each_refused_term_and_goes_on(pair: Pair) -> None:
    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    async with Node(new_name(), cookie="x", epmd="none", codec=Codec(max_depth=2)) as node:
        deep: list[Any] = [[[[]]]]
        box = node.mailbox("cb")
        got: list[Any] = []
        done = asyncio.Event()

        def take(terms: list[Any]) -> None:
            got.extend(terms)
            if b"end" in terms:
                done.set()

        async with Node(new_name(), cookie="x", epmd="none") as other:
            await other.connect(node.name, host="127.0.0.1", port=node.port)
            other.send_many(("cb", node.name), [1, deep, deep, 2, deep, "end"])
            while box.waiting < 6:
                await asyncio.sleep(0.001)
            box.on_messages(take)
            await asyncio.wait_for(done.wait(), 5)
        assert got == [1, 2, b"end"]
        assert [type(e["exception"]) for e in errors] == [DecodeError] * 3
        assert all(e["mailbox"] is box for e in errors)


async def test_a_batch_gives_the_good_prefix_whatever_the_order(pair: Pair) -> None:
    async with Node(new_name(), cookie="x", epmd="none", codec=Codec(max_depth=2)) as node:
        async with Node(new_name(), cookie="x", epmd="none") as other:
            await other.connect(node.name, host="127.0.0.1", port=node.port)
            deep: list[Any] = [[[[]]]]
            box = node.mailbox("in")
            terms = [deep, 1, 2, deep, deep, 3, deep]
            other.send_many(("in", node.name), terms)
            while box.waiting < len(terms):
                await asyncio.sleep(0.001)
            seen: list[Any] = []
            for _ in range(100):
                try:
                    seen.append(await box.receive_many(2, timeout=0))
                except DecodeError as e:
                    seen.append(type(e.data))
                except TimeoutError:
                    break
            assert seen == [bytes, [1, 2], bytes, bytes, [3], bytes]


async def test_a_receiver_that_died_with_its_loop_does_not_block_the_box(node: Node) -> None:
    box = node.mailbox("in")

    def on_a_loop_that_closes() -> None:
        loop = asyncio.new_event_loop()
        task = loop.create_task(box.receive())
        loop.run_until_complete(asyncio.sleep(0))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(task)
        loop.close()

    await asyncio.to_thread(on_a_loop_that_closes)
    node.send("in", 1)
    assert await box.receive(5) == 1


async def test_cancelled_before_during_and_after_delivery_from_a_peer(
    pair: Pair, loop_kind: str
) -> None:
    async with pair() as (a, b):
        box = b.mailbox("in")
        await a.connect(b.name)
        seen: list[int] = []
        total = 500
        for i in range(total):
            task = asyncio.create_task(box.receive())
            a.send(("in", b.name), i)
            for _ in range(i % 5):  # at another stage of its way each time
                await asyncio.sleep(0)
            task.cancel()
            try:
                seen.append(await task)
            except asyncio.CancelledError:
                pass
        while len(seen) < total:
            seen += await box.receive_many(timeout=5)
        assert seen == list(range(total))


async def test_two_tasks_take_turns(node: Node) -> None:
    """One receiver at a time: the second is told, whatever state the first is in."""
    box = node.mailbox()

    async def receive() -> Any:
        return await box.receive(5)

    first = asyncio.create_task(receive())
    await asyncio.sleep(0)
    node.send(box.pid, 1)  # the first has been woken and did not run yet
    with pytest.raises(RuntimeError, match="receiving"):
        await box.receive()
    with pytest.raises(RuntimeError, match="receiving"):
        box.get(0)
    assert await first == 1
    node.send(box.pid, 2)
    assert await box.receive(5) == 2


def test_isinstance_and_repr(node: Node) -> None:
    box = node.mailbox("shown")
    assert isinstance(box, Mailbox)
    assert "shown" in repr(box) and "closed" not in repr(box)
    box.close()
    assert "closed" in repr(box)
