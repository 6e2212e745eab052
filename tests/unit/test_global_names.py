"""Global names among Python nodes, with and without a loop, and nonsense that peers may say."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import threading
import time
import weakref
from contextlib import AsyncExitStack
from typing import Any

import pytest

from router import Atom, Export, NameTaken, Node, RouterError
from router._global import resolve
from router._global_locks import SERVER
from router.etf import Pid
from unit.conftest import descriptors, new_name, run_by, threads, until

PATIENCE = 20.0


async def meet(*nodes: Node) -> None:
    """Each with each, and all names are one."""
    for a, b in itertools.combinations(nodes, 2):
        await a.connect(b.name)
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(node.global_names.sync() for node in nodes))


async def test_many_nodes_that_start_at_once(options: dict[str, Any]) -> None:
    async with AsyncExitStack() as stack:
        nodes = [Node(new_name("g"), hidden=False, **options) for _ in range(6)]
        await stack.enter_async_context(nodes[0])  # it serves the port mapper
        await asyncio.gather(*(stack.enter_async_context(node) for node in nodes[1:]))
        boxes = [node.mailbox() for node in nodes]
        for node, box in zip(nodes, boxes, strict=True):
            await node.global_names.register(node.name, box)
        for node in nodes[1:]:
            await node.connect(nodes[0].name)
        for node in nodes:  # each finds the others by itself
            await until(lambda node=node: len(node.nodes()) == 5)
            for other, box in zip(nodes, boxes, strict=True):
                await until(
                    lambda node=node, other=other, box=box: (
                        node.global_names.whereis(other.name) == box.pid
                    )
                )
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*(node.global_names.sync() for node in nodes))
        # All at once want the same name: one has it, and all know who.
        asking = [n.global_names.register("one", n.mailbox()) for n in nodes]
        answers = await asyncio.gather(*asking, return_exceptions=True)
        assert sum(isinstance(a, NameTaken) for a in answers) == 5, answers


async def test_work_that_is_cancelled_before_it_begins(options: dict[str, Any]) -> None:
    async with Node(new_name("g"), hidden=False, **options) as node:
        server = node.global_names._server
        begun: list[bool] = []

        async def work() -> None:
            begun.append(True)

        def cut_short() -> None:
            server._start(work())
            server.terminate("normal")

        assert node.global_names.loop is not None
        node.global_names.loop.call_soon_threadsafe(cut_short)
        await until(lambda: not server._tasks)
    gc.collect()  # a coroutine that nobody closed would be warned of
    assert not begun


async def test_who_asks_keeps_its_process(options: dict[str, Any]) -> None:
    """The box that was registered is the one everybody sees."""
    async with (
        Node(new_name(), hidden=False, **options) as a,
        Node(new_name(), hidden=False, **options) as b,
    ):
        await meet(a, b)
        with a.mailbox() as box:
            await a.global_names.register("n", box)
            assert b.global_names.whereis("n") == box.pid
            await b.global_names.unregister("n")
            assert a.global_names.whereis("n") is None
            await b.global_names.register("n", box.pid)
        assert a.global_names.whereis("n") is None
        await until(lambda: b.global_names.whereis("n") is None)


def test_without_a_loop(options: dict[str, Any]) -> None:
    with (
        Node(new_name(), hidden=False, **options) as a,
        Node(new_name(), hidden=False, **options) as b,
    ):
        a.connect_sync(b.name)
        a.global_names.sync_sync(timeout=PATIENCE)
        loop = a.global_names.loop
        assert loop is not None and not a._bindings[loop].drives  # the program does
        with a.mailbox() as box:
            a.global_names.register_sync("n", box, timeout=PATIENCE)
            assert b.global_names.whereis("n") == box.pid
            with pytest.raises(NameTaken):
                b.global_names.register_sync("n", box.pid, timeout=PATIENCE)
            b.global_names.unregister_sync("n", timeout=PATIENCE)
            assert a.global_names.names() == []
    assert not [t for t in threading.enumerate() if t.name.startswith("global ")]
    with pytest.raises(RouterError, match="has ended"):
        a.global_names.register_sync("n", box)


async def test_only_of_visible_nodes(options: dict[str, Any]) -> None:
    node = Node(new_name(), hidden=False, **options)
    with pytest.raises(RouterError, match="visible node"):
        _ = node.global_names
    async with (
        node,
        Node(new_name(), **options) as hidden,
        Node(new_name(), hidden=False, **options) as other,
    ):
        with pytest.raises(RouterError, match="hidden=False"):
            _ = hidden.global_names
        await meet(node, other)
        await node.connect(hidden.name)
        assert hidden.name in node.nodes()
        async with asyncio.timeout(PATIENCE):
            await node.global_names.sync()
            await node.global_names.register("n", node.mailbox())
        assert other.name in node.nodes() and hidden.name not in other.nodes()


async def test_arguments(options: dict[str, Any]) -> None:
    async with Node(new_name(), hidden=False, **options) as node:
        names, box = node.global_names, node.mailbox()
        with pytest.raises(TypeError, match="Mailbox or a Pid"):
            await names.register("n", "box")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="random_exit_name"):
            await names.register("n", box, resolve="first")
        with pytest.raises(TypeError, match="arity 3"):
            await names.register("n", box, resolve=Export("m", "f", 2))
        with pytest.raises(TypeError, match="arity 3"):
            await names.register("n", box, resolve=3)  # type: ignore[arg-type]
        assert names.names() == []
        await names.register("n", box)
        with pytest.raises(NameTaken):
            await names.register("n", node.mailbox())
        assert repr(names) == f"<GlobalNames of {node.name}>"


@pytest.mark.parametrize("first", ["slow", "asking"])
async def test_a_slow_node_is_waited_for_and_one_that_goes_is_not(
    options: dict[str, Any], first: str
) -> None:
    """first: which of the two is locked first: the one with the greater name."""
    part = {"slow": "ab", "asking": "ba"}[first]
    async with Node(new_name(part[0]), hidden=False, **options) as node:
        other = Node(new_name(part[1]), hidden=False, **options)
        await other.start()
        await meet(node, other)
        hold = threading.Event()
        loop = other.global_names.loop
        assert loop is not None
        loop.call_soon_threadsafe(hold.wait)
        asked = asyncio.create_task(node.global_names.register("n", node.mailbox()))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await asyncio.shield(asked)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        hold.set()
        # The cancelled one holds no lock any more, on either side.
        async with asyncio.timeout(PATIENCE):
            await other.global_names.register("of other", other.mailbox())
            await node.global_names.register("m", node.mailbox())
        hold.clear()
        loop.call_soon_threadsafe(hold.wait)
        asked = asyncio.create_task(node.global_names.register("n", node.mailbox()))
        await until(lambda: first == "slow" or node.global_names._server._locks.is_global_taken)
        release = threading.Timer(0.3, hold.set)
        release.start()
        await other.stop()  # its boxes end while it still holds out
        async with asyncio.timeout(PATIENCE):
            await asked
        assert node.global_names.whereis("n") is not None
        release.join()


async def test_a_name_from_a_lock_whose_holder_died_does_not_count(
    options: dict[str, Any],
) -> None:
    async with (
        Node(new_name(), hidden=False, **options) as node,
        Node(new_name(), hidden=False, **options) as other,
    ):
        await meet(node, other)
        server, box = (SERVER, node.name), other.mailbox()
        lock = (Atom("set_lock"), (Atom("global"), 1))
        # Of a process that ends with the call.
        assert await asyncio.to_thread(other.call_sync, server, lock) is True
        await until(lambda: not node.global_names._server._locks.is_global_taken)
        method = Export("global", "random_exit_name", 3)
        await other.call(server, (Atom("register"), Atom("late"), box.pid, method))
        assert node.global_names.whereis(Atom("late")) is None
        await other.global_names.register(Atom("late"), box)  # who holds it, and gives it back
        assert node.global_names.whereis(Atom("late")) == box.pid


async def test_a_lock_that_one_node_refuses_is_held_by_none(options: dict[str, Any]) -> None:
    async with AsyncExitStack() as stack:
        made = [Node(new_name(), hidden=False, **options) for _ in range(3)]
        a, b, c = [await stack.enter_async_context(node) for node in made]
        await meet(a, b, c)
        resource, names = Atom("resource"), a.global_names
        assert await b.call((SERVER, c.name), (Atom("set_lock"), (resource, 1))) is True
        calls, locks = names._server._changing, names._server._locks
        for nodes in ([b.name, c.name], [a.name, b.name, c.name], [c.name]):
            asked = names._submit(locks.lock(calls, (resource, 2), nodes))
            assert await asyncio.wrap_future(asked) is False
            for node in (a, b):
                assert node.global_names._server._locks.can_take((resource, 3))


async def test_parts_do_not_overlap(options: dict[str, Any]) -> None:
    """Whoever has lost a node is not in one part with who has not."""
    async with AsyncExitStack() as stack:
        made = [Node(new_name("p"), hidden=False, **options) for _ in range(4)]
        nodes = [await stack.enter_async_context(node) for node in made]
        await meet(*nodes)
        nodes[0].disconnect(nodes[1].name)

        def parts() -> list[set[str]]:
            return [{node.name, *node.nodes()} for node in nodes]

        def whole() -> bool:
            names = [node.name for node in nodes]
            return (
                all(mine == parts()[names.index(other)] for mine in parts() for other in mine)
                and len({frozenset(part) for part in parts()}) > 1
            )

        await until(whole)
        for node in nodes[1:]:
            nodes[0].keep(node.name)
        await until(lambda: all(len(part) == 4 for part in parts()))
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*(node.global_names.sync() for node in nodes))
            await nodes[1].global_names.register("n", nodes[1].mailbox())
        assert all(node.global_names.whereis("n") for node in nodes)


NONSENSE: list[Any] = [
    Atom("hello"),
    42,
    (),
    [],
    (Atom("$gen_cast"), Atom("x")),
    (Atom("$gen_cast"), (Atom("init_connect"), (8, 1), Atom("x@y"), ())),
    (Atom("$gen_cast"), (Atom("init_connect"), 3, Atom("x@y"), (1, 2, 3, 4))),
    (Atom("$gen_cast"), (Atom("exchange"), Atom("x@y"), [1], [], 7)),
    (Atom("$gen_cast"), (Atom("resolved"), Atom("x@y"), [1], [2], 0, [3], 7)),
    (Atom("$gen_cast"), (Atom("new_nodes"), Atom("x@y"), [1], [], [], [])),
    (Atom("$gen_cast"), (Atom("new_nodes"), Atom("x@y"), [], [1], [], [(Atom("lock"), 1)])),
    (Atom("$gen_cast"), (Atom("new_nodes"), Atom("x@y"), [], [], [1, 2], [])),
    (Atom("$gen_cast"), (Atom("in_sync"), 1, True)),
    (Atom("$gen_cast"), (Atom("lock_set"), 1, True, [], 1)),
    (Atom("init_connect_ack"), Atom("x@y"), 1, 2),
    (Atom("cancel_connect"), Atom("x@y"), 1),
    (Atom("lost_connection"), Atom("a@b"), 1, 2, Atom("c@d")),
    (Atom("lost_connection"), 1, 2, 3, 4),
    (Atom("remove_connection"), Atom("x@y")),
    (Atom("whereis"), 1, 2),
    (Atom("nodeup"), 1),
    (Atom("nodedown"), "x"),
]


async def test_nonsense_is_logged_and_changes_nothing(
    options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "router")
    async with (
        Node(new_name(), hidden=False, **options) as node,
        Node(new_name(), hidden=False, **options) as other,
    ):
        await meet(node, other)
        box = node.mailbox()
        await node.global_names.register("n", box)
        for term in NONSENSE:
            other.send((SERVER, node.name), term)
        for request in (Atom("x"), (Atom("set_lock"), 1), (Atom("register"), 1, 2, 3)):
            with pytest.raises(TimeoutError):
                await other.call((SERVER, node.name), request, 0.1)
        assert await other.call((SERVER, node.name), Atom("get_known")) == [other.atom]
        async with asyncio.timeout(PATIENCE):
            await other.global_names.register("m", other.mailbox())
        assert node.global_names.whereis("n") == box.pid
        assert sorted(node.global_names.names()) == [b"m", b"n"]
        assert len(caplog.records) >= 10
        assert not any(r.levelno >= logging.ERROR for r in caplog.records)


@pytest.mark.parametrize("nonsense", ["names", "changes", "known", "external"])
async def test_a_meeting_that_goes_wrong_gives_the_lock_back(
    options: dict[str, Any], nonsense: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        Node(new_name("a"), hidden=False, **options) as node,
        Node(new_name("b"), hidden=False, **options) as other,
    ):
        server, cast = other.global_names._server, other.global_names._server._cast

        def spoil(name: str, message: Any, sender: Any = None) -> None:
            match message:
                case ("exchange", me, _, ext, tag) if nonsense == "names":
                    message = (Atom("exchange"), me, [42], ext, tag)
                case ("resolved", me, changes, known, unused, ext, tag) if nonsense != "names":
                    bad = {"changes": changes, "known": known, "external": ext, nonsense: [42]}
                    message = (
                        Atom("resolved"), me, bad["changes"], bad["known"], unused,
                        bad["external"], tag,
                    )  # fmt: skip
            cast(name, message, sender)

        server._cast = spoil  # type: ignore[method-assign]
        await node.connect(other.name)
        await until(lambda: "tells nonsense, and is disconnected" in caplog.text)
        await until(lambda: not node.global_names._server._locks.is_global_taken)
        async with asyncio.timeout(PATIENCE):
            await node.global_names.register("n", node.mailbox())


async def test_a_program_that_holds_its_loop(options: dict[str, Any]) -> None:
    async with Node(new_name(), hidden=False, **options) as node:
        with Node(new_name(), hidden=False, **options) as other:
            await meet(node, other)
            box = other.mailbox()

            def register() -> None:
                other.global_names.register_sync("n", box, timeout=PATIENCE)

            thread = threading.Thread(target=register)
            thread.start()
            deadline = time.monotonic() + PATIENCE
            while thread.is_alive():  # this loop does not turn
                assert time.monotonic() < deadline
            assert node.global_names.whereis("n") == box.pid


def test_the_methods_of_global() -> None:
    low, high = Pid("a@h", 1, 0, 1), Pid("b@h", 1, 0, 1)
    for pids in ((low, high), (high, low)):
        assert resolve("random_exit_name", "n", *pids) == (low, [high], [])
        kept, killed, told = resolve("random_notify_name", "n", *pids) or ()
        assert (kept, killed, [pid for pid, _ in told]) == (low, [], [high])
        kept, killed, told = resolve("notify_all_name", "n", *pids) or ()
        assert (kept, killed, {pid for pid, _ in told}) == ("none", [], {low, high})
    assert resolve("another", "n", low, high) is None


async def test_start_and_stop_leave_nothing(options: dict[str, Any], engine: str) -> None:
    async def once() -> None:
        async with (
            Node("a@127.0.0.1", hidden=False, **run_by(engine), **options) as a,
            Node("b@127.0.0.1", hidden=False, **run_by(engine), **options) as b,
        ):
            await meet(a, b)
            await a.global_names.register("n", b.mailbox("box"))

    await asyncio.to_thread(gc.collect)  # the loop's helper thread stays
    await once()
    gc.collect()
    fds, tasks = descriptors(), threads()
    for _ in range(10):
        await once()
    gc.collect()
    # A thread that was joined may be the kernel's for a moment longer.
    await until(lambda: descriptors() == fds and threads() <= tasks)


def test_a_forgotten_node_lives_until_it_is_stopped(options: dict[str, Any]) -> None:
    """Its thread uses it: unlike a hidden one it is never collected."""
    node = Node(new_name(), hidden=False, **options)
    node.start_sync()
    watched = weakref.ref(node)
    del node
    gc.collect()
    found = watched()
    assert found is not None and found.running
    found.stop_sync()
    del found
    gc.collect()
    assert watched() is None
