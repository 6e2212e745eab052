"""A task that waits for a message goes on in the loop's callback that brings it."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import weakref
from asyncio import tasks
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from router import Mailbox, Node, _core

from .conftest import Pair, new_name, until

variable = contextvars.ContextVar("variable", default="outside")


@pytest.fixture
def node(options: dict[str, Any]) -> Any:
    with Node(new_name(), **options) as node:
        yield node


async def waits(box: Mailbox, then: Callable[[Any], object]) -> asyncio.Task[Any]:
    """A task that waits in `box`, and calls `then` with what it receives."""

    async def receive() -> Any:
        term = await box.receive()
        then(term)
        return term

    task = asyncio.create_task(receive())
    while box._waiter is None:
        await asyncio.sleep(0)
    return task


async def order_of(node: Node) -> list[str]:
    """What runs first: a task that was sent something, or what the loop is asked for meanwhile."""
    box, first, order = node.mailbox(), node.mailbox(), list[str]()
    loop = asyncio.get_running_loop()
    task = await waits(box, lambda term: order.append("the task"))
    first.on_messages(lambda terms: loop.call_soon(order.append, "the next turn"))
    await asyncio.sleep(0)
    node.send(first.pid, 1)
    node.send(box.pid, 2)
    assert await task == 2
    while len(order) < 2:
        await asyncio.sleep(0)
    return order


async def test_it_goes_on_before_the_loop_turns(node: Node, loop_kind: str) -> None:
    assert await order_of(node) == ["the task", "the next turn"]


async def test_what_it_sends_is_written_without_another_turn(pair: Pair, loop_kind: str) -> None:
    async with pair(engine="inline") as (a, b):  # without a thread that would write it in time
        await a.connect(b.name)
        there, back = b.mailbox("there"), a.mailbox("back")

        def answer(term: Any) -> None:
            for i in range(100):
                b.send(("back", a.name), i)

        for _ in range(3):
            task = await waits(there, answer)
            a.send(("there", b.name), "go")
            assert [await back.receive(5) for _ in range(100)] == list(range(100))
            assert task.done()


async def test_it_has_its_context_and_is_the_current_task(node: Node, loop_kind: str) -> None:
    box, loop = node.mailbox(), asyncio.get_running_loop()
    seen: list[Any] = []

    async def receive() -> None:
        variable.set("inside")
        for _ in range(2):
            await box.receive(10)
            seen.append((variable.get(), asyncio.current_task(), asyncio.get_running_loop()))
            variable.set("later")

    node._binding(loop)  # whose callbacks have the context of now
    task = asyncio.create_task(receive())
    for i in range(2):
        while box._waiter is None:
            await asyncio.sleep(0)
        node.send(box.pid, i)
        await until(lambda i=i: len(seen) > i)  # type: ignore[misc]
    await task
    assert seen == [("inside", task, loop), ("later", task, loop)]
    assert variable.get() == "outside"


async def test_a_callback_comes_first_and_may_cancel_it(node: Node, loop_kind: str) -> None:
    """Whatever the order in which the two boxes have news."""
    for turned in (False, True):
        box, other = node.mailbox(), node.mailbox()
        got: list[Any] = []
        task = await waits(box, got.append)
        other.on_messages(lambda terms, task=task: task.cancel("enough"))  # type: ignore[misc]
        await asyncio.sleep(0)
        for one in (other, box) if turned else (box, other):
            node.send(one.pid, 1)
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await task
        assert not got
        assert await box.receive(0) == 1  # and it is not lost
        other.on_messages(None)


async def test_a_loop_that_nests_is_asked_for_a_turn(node: Node) -> None:
    """nest_asyncio runs a loop within its callbacks: a task must not go on in one that it runs."""
    asyncio.get_running_loop()._nest_patched = True  # type: ignore[attr-defined]
    assert await order_of(node) == ["the next turn", "the task"]


async def test_in_a_context_that_is_entered_too(node: Node) -> None:
    box, context = node.mailbox(), contextvars.copy_context()
    got: list[Any] = []

    async def receive() -> None:
        got.append(await box.receive())

    task = asyncio.create_task(receive(), context=context)
    while box._waiter is None:
        await asyncio.sleep(0)
    binding = node._binding(asyncio.get_running_loop())
    node.send(box.pid, 1)
    asyncio.get_running_loop().call_soon(context.run, binding._news)  # ahead of the loop's own
    await task
    assert got == [1]


async def test_within_a_task_it_waits_for_the_next_turn(node: Node, loop_kind: str) -> None:
    """As where a loop runs within a task of its own: two tasks cannot be entered at once."""
    box = node.mailbox()
    got: list[Any] = []
    task = await waits(box, got.append)
    node.send(box.pid, 1)
    box._on_ready()
    assert not got
    assert await task == 1
    assert got == [1]


async def test_a_loop_that_is_told_within_a_task_waits_for_its_next_turn(
    node: Node, loop_kind: str
) -> None:
    """The same where it is the loop's own callback that somebody calls."""
    boxes = [node.mailbox() for _ in range(2)]
    got: list[Any] = []
    tasks = [await waits(box, got.append) for box in boxes]
    for i, box in enumerate(boxes):
        node.send(box.pid, i)
    node._binding(asyncio.get_running_loop())._news()
    assert all(box._waiter.done() for box in boxes)  # they are told
    assert not got
    assert await asyncio.gather(*tasks) == [0, 1]
    assert got == [0, 1]


async def test_who_is_no_task_is_given_what_it_waited_for(node: Node) -> None:
    """Also by a method in C, of something else."""
    box = node.mailbox()
    receiving = box.receive(10)
    waiting = receiving.send(None)
    told: list[Any] = []
    waiting.add_done_callback(told.append)
    node.send(box.pid, 1)
    await until(lambda: bool(told))
    assert told == [waiting]
    receiving.close()


async def test_a_task_in_c_is_woken_with_a_future_of_asyncios_own(node: Node) -> None:
    box, idle = node.mailbox(), asyncio.create_task(asyncio.Event().wait())
    receiving = box.receive(10)
    receiving.send(None).add_done_callback(idle.cancel)  # shows what it is given
    node.send(box.pid, 1)
    with pytest.raises(asyncio.CancelledError) as caught:
        await idle
    (given,) = caught.value.args
    assert type(given) is asyncio.Future
    assert given.result() is None
    receiving.close()


async def test_who_is_no_task_waits_for_the_next_turn_too(node: Node) -> None:
    """It may have no guard of its own against running within another task."""
    box, within = node.mailbox(), list[bool]()
    receiving = box.receive(10)

    def wake(waiting: Any) -> None:
        within.append(asyncio.current_task() is not None)

    receiving.send(None).add_done_callback(wake)
    node.send(box.pid, 1)
    node._binding(asyncio.get_running_loop())._news()
    assert not within
    await until(lambda: bool(within))
    assert within == [False]
    receiving.close()


async def test_an_error_of_who_is_woken_is_told_once(node: Node, loop_kind: str) -> None:
    box = node.mailbox()
    errors: list[Any] = []
    woken: list[Any] = []

    def wake(waiting: Any) -> None:
        woken.append(waiting)
        raise RuntimeError("its own")

    receiving = box.receive(10)
    waiting = receiving.send(None)
    waiting.add_done_callback(wake)
    asyncio.get_running_loop().set_exception_handler(
        lambda loop, context: errors.append(context["exception"])
    )
    node.send(box.pid, 1)
    await until(lambda: bool(errors))
    turned = asyncio.Event()
    asyncio.get_running_loop().call_soon(turned.set)  # behind whatever was asked for before
    await turned.wait()
    assert woken == [waiting]
    assert [str(e) for e in errors] == ["its own"]
    receiving.close()


async def test_an_interrupt_in_one_leaves_the_others_hearing(node: Node) -> None:
    loop = asyncio.get_running_loop()
    boxes = [node.mailbox() for _ in range(3)]
    reached: list[Any] = []

    def interrupt(term: Any) -> None:
        reached.append(term)
        raise SystemExit(3)

    receiving = [await waits(box, interrupt if i == 1 else reached.append)
                 for i, box in enumerate(boxes)]  # fmt: skip
    binding = node._binding(loop)
    for i, box in enumerate(boxes):
        node.send(box.pid, i)
    task = asyncio.current_task()
    assert task is not None
    caught: list[BaseException] = []

    def look() -> None:
        try:
            binding._news()
        except SystemExit as e:
            caught.append(e)

    loop.call_soon(look)  # before the loop hears of it
    while not caught:
        await asyncio.sleep(0)
    assert caught[0].code == 3  # type: ignore[attr-defined]
    assert await receiving[0] == 0
    assert await receiving[2] == 2
    with pytest.raises(SystemExit):
        receiving[1].result()


async def test_what_an_interrupted_one_has_sent_is_written(pair: Pair) -> None:
    async with pair(engine="inline") as (a, b):  # without a thread that would write it in time
        await a.connect(b.name)
        there, back = b.mailbox("there"), a.mailbox("back")
        binding, loop = b._binding(asyncio.get_running_loop()), asyncio.get_running_loop()

        def interrupt(term: Any) -> None:
            for i in range(100):
                b.send(("back", a.name), i)
            raise SystemExit

        def look() -> None:
            with pytest.raises(SystemExit):
                binding._news()

        task = await waits(there, interrupt)
        b.send("there", "go")
        loop.call_soon(look)
        assert [await back.receive(5) for _ in range(100)] == list(range(100))
        for i in range(100):
            b.send(("back", a.name), i)
        assert [await back.receive(5) for _ in range(100)] == list(range(100))
        with pytest.raises(SystemExit):
            task.result()


async def test_news_that_came_in_time_count(node: Node) -> None:
    """Also where the task is called only after its time was up."""
    box = node.mailbox()
    receiving = box.receive(60)
    waiting = receiving.send(None)
    node.send(box.pid, 1)
    box._on_ready()
    _core._expire(waiting)
    with pytest.raises(StopIteration) as got:
        receiving.send(None)
    assert got.value.value == 1


def test_a_box_that_moves_to_another_loop(node: Node) -> None:
    """A callback hands it over, and somebody waits in it elsewhere before the callback returns."""
    box, moved, ran = node.mailbox(), threading.Event(), list[threading.Thread]()

    async def receive() -> None:
        task = await waits(box, lambda term: ran.append(threading.current_thread()))
        moved.set()
        assert await task == 2

    other = threading.Thread(target=lambda: asyncio.run(receive()))

    def hand_over(terms: list[Any]) -> None:
        box.on_messages(None)
        other.start()
        assert moved.wait(20)

    async def begin() -> None:
        box.on_messages(hand_over)
        await asyncio.sleep(0)
        node.send(box.pid, 1)
        while not moved.is_set():
            await asyncio.sleep(0)
        node.send(box.pid, 2)
        await asyncio.to_thread(other.join)

    asyncio.run(begin())
    assert ran == [other]


async def test_a_task_written_in_python(node: Node) -> None:
    """asyncio has two kinds; so do programs that set a task factory."""
    loop = asyncio.get_running_loop()

    def factory(
        loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **kw: Any
    ) -> asyncio.Task[Any]:
        made: asyncio.Task[Any] = tasks._PyTask(work, loop=loop, **kw)  # type: ignore[attr-defined]
        return made

    loop.set_task_factory(factory)  # type: ignore[arg-type]
    box = node.mailbox()
    try:
        task = await waits(box, lambda term: None)
        node.send(box.pid, 1)
        assert await task == 1
        task = await waits(box, lambda term: None)
        task.cancel("enough")
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(box.receive(), 0.01)
        with pytest.raises(TimeoutError):
            await loop.create_task(_receive(box, 0.01))
    finally:
        loop.set_task_factory(None)


async def _receive(box: Mailbox, timeout: float) -> Any:
    return await box.receive(timeout)


async def test_what_a_task_asks_of_it(node: Node) -> None:
    box = node.mailbox()
    receiving = box.receive()
    waiting = receiving.send(None)
    assert asyncio.isfuture(waiting)
    assert waiting.get_loop() is asyncio.get_running_loop()
    assert not waiting.done() and not waiting.cancelled()
    with pytest.raises(RuntimeError, match="with a task"):
        waiting.result()
    called: list[Any] = []
    waiting.add_done_callback(called.append)
    with pytest.raises(RuntimeError, match="already"):
        waiting.add_done_callback(called.append)
    assert waiting.cancel("enough")
    assert waiting.cancelled() and waiting.done()
    assert not waiting.cancel("again")
    assert not called
    await asyncio.sleep(0)
    assert called == [waiting]
    with pytest.raises(asyncio.CancelledError, match="enough"):
        waiting.result()
    waiting.add_done_callback(called.append)  # late: it is told all the same
    await asyncio.sleep(0)
    assert called == [waiting, waiting]
    receiving.close()


async def test_one_that_is_sent_into_too_early_says_so(node: Node) -> None:
    box = node.mailbox()
    receiving = box.receive()
    receiving.send(None)
    with pytest.raises(RuntimeError, match="with a task"):
        receiving.send(None)
    assert box._waiter is None


async def test_a_node_that_is_stopped_from_its_own_callback_is_gone(bare: dict[str, Any]) -> None:
    """Its last message let the task go on there, and the callback holds parts of it."""
    loop = asyncio.get_running_loop()

    async def life() -> bool:
        node = Node(new_name(), **bare)
        await node.start()
        box = node.mailbox()
        watched = weakref.ref(node._binding(loop))
        loop.call_soon(node.send, box.pid, 1)
        assert await box.receive(10) == 1
        await node.stop()
        del node, box
        gc.collect()
        return watched() is None

    assert await asyncio.create_task(life())


async def test_a_look_in_vain_hears_nobody(bare: dict[str, Any]) -> None:
    """Who was heard last is read first, also when something else wakes the engine."""
    async with Node(new_name("x"), **bare) as x, Node(new_name("y"), **bare) as y:
        await x.connect(y.name, host="127.0.0.1", port=y.port)
        box, there = x.mailbox("box"), y.mailbox("there")
        for i in range(3):
            y.send(("box", x.name), i)
            assert await box.receive(10) == i
        await until(lambda: x.stats()["idle"][0] > 0.2)
        await asyncio.to_thread(lambda: [x.send(("there", y.name), i) for i in range(3)])
        assert [await there.receive(10) for _ in range(3)] == [0, 1, 2]
        assert x.stats()["idle"][0] > 0.2
