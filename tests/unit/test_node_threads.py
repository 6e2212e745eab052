"""One node, many threads and loops: nobody is forgotten, nobody waits for nothing."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from router import ExitSignal, Node, NodeDown, NoProcess, RouterError

from .conftest import Pair, new_name, run_by, until


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Where connecting succeeds and nobody ever answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=200) as s:
        yield s.getsockname()[1]


def introduce(*nodes: Node) -> None:
    for node in nodes:
        for other in nodes:
            if other is not node:
                node._addresses[other.name] = ("127.0.0.1", other.port)


def run_threads(functions: list[Callable[[], object]], seconds: float = 30) -> list[BaseException]:
    errors: list[BaseException] = []

    def guarded(f: Callable[[], object]) -> None:
        try:
            f()
        except BaseException as e:
            errors.append(e)

    threads = [threading.Thread(target=guarded, args=(f,), daemon=True) for f in functions]
    for t in threads:
        t.start()
    deadline = time.monotonic() + seconds
    for t in threads:
        t.join(max(0.0, deadline - time.monotonic()))
    assert not any(t.is_alive() for t in threads)
    return errors


def test_more_threads_than_a_few_wait_for_a_connection(
    bare: dict[str, Any], silent_port: int
) -> None:
    with Node(new_name(), **bare) as node:

        def connect() -> None:
            with pytest.raises(RouterError):
                node.connect_sync("quiet@127.0.0.1", 0.5, host="127.0.0.1", port=silent_port)

        assert run_threads([connect] * 100) == []


def test_a_waiting_thread_is_woken_by_whoever_took_the_news(bare: dict[str, Any]) -> None:
    with Node(new_name("a"), **bare) as a:
        waiter = a._connecting.setdefault("x@y", [])
        from router._reports import Waiter

        mine = Waiter(None)
        waiter.append(mine)
        # The event is gone: only the one who settles the waiter can wake its thread.
        settle = threading.Timer(0.05, lambda: a._settle(a._connecting.pop("x@y"), None))
        settle.start()
        start = time.monotonic()
        assert a._wait_for(mine, 20)
        assert time.monotonic() - start < 10
        settle.join()


def test_stop_ends_what_threads_wait_for(bare: dict[str, Any], silent_port: int) -> None:
    node = Node(new_name(), **bare)
    node.start_sync()
    box = node.mailbox()
    started = threading.Barrier(4)

    def connect() -> None:
        started.wait()
        node.connect_sync("quiet@127.0.0.1", 20, host="127.0.0.1", port=silent_port)

    def get() -> None:
        started.wait()
        box.get()

    def call() -> None:
        started.wait()
        node.call_sync(node.mailbox("server").pid, 1, timeout=20)

    def stop() -> None:
        started.wait()
        node.stop_sync()

    start = time.monotonic()
    errors = run_threads([connect, get, call, stop])
    assert time.monotonic() - start < 10
    assert all(isinstance(e, RouterError) for e in errors), errors
    assert len(errors) == 3


def test_stop_under_the_hands_of_busy_threads(bare: dict[str, Any], engine: str) -> None:
    for _ in range(5):
        node, other = Node(new_name(), **run_by(engine), **bare), Node(new_name(), **bare)
        node.start_sync()
        other.start_sync()
        introduce(node, other)
        sink = other.mailbox("sink")
        began = threading.Semaphore(0)

        def work(node: Node = node, other: Node = other, began: Any = began) -> None:
            began.release()
            with pytest.raises((RouterError, TimeoutError)):
                while True:
                    box = node.mailbox()
                    node.send(("sink", other.name), box.pid)
                    node.send(box.pid, 1)
                    box.get(1)
                    ref = box.monitor(("sink", other.name))
                    box.demonitor(ref)

        def stop(node: Node = node, began: Any = began) -> None:
            for _ in range(4):
                began.acquire()
            node.stop_sync()

        assert run_threads([work] * 4 + [stop]) == []
        assert not sink.closed
        other.stop_sync()


def test_no_message_is_lost_between_time_limits(bare: dict[str, Any], engine: str) -> None:
    total = 3000
    with Node(new_name("a"), **bare) as a, Node(new_name("b"), **run_by(engine), **bare) as b:
        introduce(a, b)
        box = b.mailbox("in")
        seen: list[int] = []
        tries = random.Random(7)

        def send() -> None:
            for i in range(total):
                a.send(("in", b.name), i)

        def receive() -> None:
            while len(seen) < total:
                try:
                    seen.append(box.get(tries.choice((0, 0.00001, 0.0001))))
                except TimeoutError:
                    pass

        assert run_threads([send, receive]) == []
        assert seen == list(range(total))


async def test_no_message_is_lost_between_time_limits_on_a_loop(pair: Pair, loop_kind: str) -> None:
    total = 3000
    async with pair() as (a, b):
        box = b.mailbox("in")
        seen: list[int] = []
        tries = random.Random(7)

        def send() -> None:
            for i in range(total):
                a.send(("in", b.name), i)

        sender = asyncio.create_task(asyncio.to_thread(send))
        while len(seen) < total:
            try:
                if tries.random() < 0.5:
                    seen.append(await box.receive(tries.choice((0, 0.00001, 0.0001))))
                else:
                    async with asyncio.timeout(0.0001):
                        seen += await box.receive_many()
            except TimeoutError:
                await asyncio.sleep(0)
        await sender
        assert seen == list(range(total))


def sleeps(task: str) -> int:
    with open(f"/proc/self/task/{task}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("voluntary_ctxt"))


async def test_the_own_thread_does_not_wake_for_each_packet(pair: Pair, loop_kind: str) -> None:
    """While its loop drives, it looks whether that is so each 5 ms, and sleeps once each time."""
    others = set(os.listdir("/proc/self/task"))
    async with pair(engine="auto") as (a, b):
        own = set(os.listdir("/proc/self/task")) - others
        assert len(own) == 2
        here, there = a.mailbox(), b.mailbox("there")
        trips = 0
        begin = time.monotonic()
        before = {task: sleeps(task) for task in own}
        while time.monotonic() < begin + 0.5:
            a.send(("there", b.name), (here.pid, trips))
            pid, number = await there.receive()
            b.send(pid, number)
            assert await here.receive() == trips
            trips += 1
        slept = [sleeps(task) - before[task] for task in own]
        looks = (time.monotonic() - begin) / 0.005
        assert trips > 3 * looks
        assert max(slept) < 2 * looks + 5  # more than once where it took over


async def test_what_a_program_gathers_before_it_computes_is_written(
    bare: dict[str, Any], loop_kind: str
) -> None:
    """Also when its loop has itself written what it gathered before, and no peer says anything."""
    others = set(os.listdir("/proc/self/task"))
    async with Node(new_name("a"), engine="auto", **bare) as a:
        (own,) = set(os.listdir("/proc/self/task")) - others
        async with Node(new_name("b"), engine="thread", **bare) as b:
            box = b.mailbox("in")
            await a.connect(b.name, host="127.0.0.1", port=b.port)
            came = [threading.Event() for _ in range(12)]
            looks = [0, 0]  # how often the own thread has slept, and how often that was so before

            def rests() -> bool:
                slept = sleeps(own)
                looks[:] = slept, looks[1] + 1 if slept == looks[0] else 0
                return looks[1] > 4  # it has not looked for four graces

            def read() -> None:
                while not came[-1].is_set():
                    number = box.get(20)
                    if number >= 0:
                        came[number].set()

            reading = asyncio.create_task(asyncio.to_thread(read))
            for number, event in enumerate(came):
                for last in (-1, number):
                    looks[1] = 0
                    await until(rests)
                    for what in (-1, -1, last):  # the first is written at once
                        a.send(("in", b.name), what)
                assert event.wait(2)  # so long, at most, this loop does not turn
            await reading


async def test_threads_send_beside_a_loop(pair: Pair, loop_kind: str) -> None:
    """To the same process: what the loop's turn gathers is the loop's, and each order holds."""
    total = 3000
    asyncio.get_running_loop().set_debug(True)  # it tells who is not on its thread
    async with pair() as (a, b):
        box = b.mailbox("in")
        await a.connect(b.name)
        dest = ("in", b.name)

        def send() -> None:
            for i in range(total):
                a.send(dest, ("thread", i, b"x" * 20))

        async def send_here() -> None:
            for i in range(total):
                a.send(dest, ("loop", i, b"x" * 20))
                if i % 10 == 0:
                    await asyncio.sleep(0)

        sending = asyncio.gather(asyncio.to_thread(send), send_here())
        seen: dict[bytes, list[int]] = {b"thread": [], b"loop": []}
        while sum(map(len, seen.values())) < 2 * total:
            for who, i, _ in await box.receive_many(timeout=20):
                seen[who].append(i)
        await sending
        assert all(numbers == list(range(total)) for numbers in seen.values())


def test_polling_without_waiting_drives_the_node(bare: dict[str, Any]) -> None:
    with Node(new_name("a"), **bare) as a, Node(new_name("b"), engine="inline", **bare) as b:
        introduce(a, b)
        box = b.mailbox("in")
        a.send(("in", b.name), 1)
        deadline = time.monotonic() + 10
        while True:
            try:
                assert box.get(0) == 1
                break
            except TimeoutError:
                assert time.monotonic() < deadline


def test_the_next_loop_drives_when_the_first_is_closed(bare: dict[str, Any], engine: str) -> None:
    with Node(new_name("a"), **run_by(engine), **bare) as a, Node(new_name("b"), **bare) as b:
        introduce(a, b)
        one, two = a.mailbox("one"), a.mailbox("two")

        async def take(box: Any, timeout: float) -> Any:
            b.send((str(box.name), a.name), 1)
            return await box.receive(timeout)

        async def look(box: Any) -> None:
            with pytest.raises(TimeoutError):
                await box.receive(0)

        first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
        assert first.run_until_complete(take(one, 10)) == 1
        second.run_until_complete(look(two))  # known to the node, and does not drive
        first.close()
        assert second.run_until_complete(take(two, 10)) == 1
        second.close()


def test_calls_from_one_loop_after_the_other_leave_nothing(bare: dict[str, Any]) -> None:
    with Node(new_name("a"), **bare) as a, Node(new_name("b"), **bare) as b:
        introduce(a, b)

        async def ping() -> None:
            assert await a.ping(b.name)

        for _ in range(5):
            asyncio.run(ping())
        assert a._process_count() <= 1
        # Two loops that take turns keep one process each.
        loops = [asyncio.new_event_loop() for _ in range(2)]
        for _ in range(5):
            for loop in loops:
                loop.run_until_complete(ping())
        assert a._process_count() <= 2
        for loop in loops:
            loop.close()


def test_calls_pending_on_a_closed_loop_do_not_hinder_stop(bare: dict[str, Any]) -> None:
    node = Node(new_name(), **bare)
    node.start_sync()
    silent = node.mailbox("silent")
    loop = asyncio.new_event_loop()
    task = loop.create_task(node.call("silent", 1, timeout=30))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    node.stop_sync()
    assert not node.running
    assert silent.closed
    task._log_destroy_pending = False  # type: ignore[attr-defined]


def test_a_loop_and_threads_share_a_node(options: dict[str, Any], engine: str) -> None:
    """The loop in its own thread echoes; plain threads send to it and block for answers."""
    with Node(new_name("a"), **options) as a, Node(new_name("b"), **options) as b:
        ready = threading.Event()

        async def serve() -> None:
            box = b.mailbox("echo")
            ready.set()
            async for term in box:
                if term == b"stop":
                    return
                pid, value = term
                b.send(pid, value)

        server = threading.Thread(target=lambda: asyncio.run(serve()))
        server.start()
        assert ready.wait(10)

        def ask() -> None:
            box = a.mailbox()
            for i in range(200):
                a.send(("echo", b.name), (box.pid, i))
                assert box.get(20) == i

        assert run_threads([ask] * 3) == []
        a.send(("echo", b.name), "stop")
        server.join(10)
        assert not server.is_alive()


def test_a_signal_handler_interrupts_a_blocked_thread(bare: dict[str, Any], engine: str) -> None:
    class Rang(Exception):
        pass

    def ring(*_: object) -> None:
        raise Rang

    with Node(new_name(), **run_by(engine), **bare) as node:
        box = node.mailbox()
        before = signal.signal(signal.SIGALRM, ring)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(Rang):
                box.get()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        node.send(box.pid, "still usable")
        assert box.get(5) == b"still usable"


def test_a_node_forgotten_by_another_thread_leaves_the_loop(bare: dict[str, Any]) -> None:
    loop = asyncio.new_event_loop()
    runner = threading.Thread(target=loop.run_forever)
    runner.start()

    async def use(node: Node) -> None:
        box = node.mailbox()
        node.send(box.pid, 1)
        assert await box.receive(5) == 1
        with pytest.raises(TimeoutError):
            await box.receive(0.001)

    async def nothing() -> None:
        pass

    def settle() -> None:
        gc.collect()
        for _ in range(3):
            asyncio.run_coroutine_threadsafe(nothing(), loop).result(5)

    counts = []
    for _ in range(4):
        node = Node(new_name(), **bare)
        node.start_sync()
        asyncio.run_coroutine_threadsafe(use(node), loop).result(10)
        del node
        settle()
        counts.append((len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))))
    loop.call_soon_threadsafe(loop.stop)
    runner.join(10)
    loop.close()
    assert counts[1:] == counts[:1] * 3


def test_every_send_to_nowhere_is_counted_and_none_raises(bare: dict[str, Any]) -> None:
    with Node(new_name(), **bare) as node:

        def send() -> None:
            for i in range(1000):
                node.send(("x", "nowhere@127.0.0.1"), i)

        assert run_threads([send] * 3) == []
        with pytest.raises(NodeDown):  # everything before it has been given up
            node.connect_sync("nowhere@127.0.0.1")
        deadline = time.monotonic() + 10
        while (row := node.stats()[0])["dropped_out"] < 3000:
            assert time.monotonic() < deadline
        assert (row["messages_out"], row["dropped_out"]) == (3000, 3000)


def test_a_resolver_that_ends_the_program_leaves_no_peer_half_connected(
    bare: dict[str, Any],
) -> None:
    calls = []

    def resolver(name: str) -> tuple[str, int]:
        calls.append(name)
        if len(calls) == 1:
            raise KeyboardInterrupt
        raise LookupError("unknown")

    with Node(new_name(), resolver=resolver, **bare) as node:
        with pytest.raises(KeyboardInterrupt):
            node.send(("x", "b@127.0.0.1"), 1)
        deadline = time.monotonic() + 10
        while node.stats()[0]["dropped_out"] < 1:
            assert time.monotonic() < deadline
        with pytest.raises(NodeDown, match="unknown"):
            node.connect_sync("b@127.0.0.1")
        assert len(calls) == 2


def test_a_coroutine_resolver_needs_a_loop(bare: dict[str, Any]) -> None:
    async def resolver(name: str) -> tuple[str, int]:
        return "127.0.0.1", 1

    with Node(new_name(), resolver=resolver, **bare) as node:
        with pytest.raises(NodeDown, match="running event loop"):
            node.connect_sync("b@127.0.0.1")


async def test_a_resolver_that_gives_no_address(bare: dict[str, Any]) -> None:
    for found in (("127.0.0.1", 99999), ("127.0.0.1", "1"), 5, ("a\0b", 1), (5, 5)):
        async with Node(new_name(), resolver=lambda name, f=found: f, **bare) as node:
            with pytest.raises(NodeDown, match="resolver failed"):
                await node.connect("b@127.0.0.1")


async def test_two_nodes_of_one_process_on_one_inline_loop(options: dict[str, Any]) -> None:
    """One serves the port mapper for the other: both are driven by the loop that waits."""
    async with (
        Node(new_name("a"), engine="inline", **options) as a,
        Node(new_name("b"), engine="inline", **options) as b,
    ):
        box = b.mailbox("in")
        a.send(("in", b.name), 1)
        assert await box.receive(5) == 1
        with pytest.raises(NoProcess):
            await a.call(("nobody", b.name), 1)
        with pytest.raises(ExitSignal):
            box.close()
            await box.receive()
