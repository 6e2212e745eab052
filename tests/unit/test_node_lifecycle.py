"""The edges of a node's life: docs/lifecycle.md, line by line."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import pytest

from router import ExitSignal, Limits, NameTaken, Node, NodeDown, RouterError
from router.cli.common import free_port

from .conftest import Pair, descriptors, new_name, run_by, threads


def resident_kib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4


async def test_a_node_runs_once(options: dict[str, Any]) -> None:
    node = Node(new_name(), **options)
    assert "not started" in repr(node)
    with pytest.raises(RouterError, match="not running"):
        node.mailbox()
    await node.start()
    assert node.running
    assert node.port > 0
    assert node.creation > 3
    with pytest.raises(RuntimeError, match="runs once"):
        await node.start()
    await node.stop()
    await node.stop()
    assert not node.running
    with pytest.raises(RuntimeError, match="runs once"):
        node.start_sync()


async def test_stop_ends_processes_and_waiters(pair: Pair) -> None:
    async with pair() as (a, b):
        box, silent, far = a.mailbox("box"), a.mailbox("silent"), b.mailbox()
        ref = far.monitor(("box", a.name))
        waiting = asyncio.create_task(box.receive())
        call = asyncio.create_task(b.call((silent.name, a.name), 1, timeout=30))
        assert await b.ping(a.name)
        a.send(far.pid, "last words")
        await a.stop()
        with pytest.raises(ExitSignal, match="shutdown"):
            await waiting
        seen = [await far.receive(5), await far.receive(5)]
        assert seen[0][1::3] == (ref, "shutdown") or seen[1][1::3] == (ref, "shutdown")
        assert b"last words" in seen
        with pytest.raises(Exception, match="shutdown|no connection"):
            await call


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "nohost"}, "name@host"),
        ({"name": "@host"}, "name@host"),
        ({"name": 5}, "name@host"),
        ({"engine": "fast"}, "engine"),
        ({"epmd": "maybe"}, "epmd"),
        ({"threads": 2}, "engine='thread'"),
        ({"threads": 2, "engine": "inline"}, "engine='thread'"),
        ({"threads": 0, "engine": "thread"}, "from 1 to 64"),
        ({"threads": 65, "engine": "thread"}, "from 1 to 64"),
        ({"threads": True, "engine": "thread"}, "from 1 to 64"),
        ({"net_ticktime": 0}, "net_ticktime"),
        ({"cookie": "x" * 256}, "cookie"),
        ({"epmd_port": 0}, "epmd_port"),
        ({"limits": {"queue_bytes_max": 0}}, "queue_bytes_max"),
        ({"limits": {"queue_bytes_max": 5}}, "queue_bytes_soft"),
    ],
)
def test_bad_arguments_say_what_was_expected(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"name": "a@127.0.0.1", "cookie": "x", **change}
    with pytest.raises(ValueError, match=message):
        Node(arguments.pop("name"), **arguments)


def test_the_limits_of_python_and_c_agree() -> None:
    from router import _core

    assert Limits().as_dict() == _core.default_limits()
    with pytest.raises(TypeError):
        Limits(queue_bytes_max="many")  # type: ignore[arg-type]


def test_without_a_cookie_the_message_says_where_to_put_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(RouterError, match=r"\.erlang\.cookie"):
        Node("a@127.0.0.1")
    (tmp_path / ".erlang.cookie").write_text("from the file\n")
    assert Node("a@127.0.0.1")._cookie == b"from the file"


async def test_a_name_is_taken_once(options: dict[str, Any]) -> None:
    name = new_name()
    async with Node(name, **options):
        with pytest.raises(NameTaken, match=r"n\d+"):
            await Node(name, **options).start()
    async with Node(name, **options):  # free again
        pass


async def test_listening_addresses(options: dict[str, Any]) -> None:
    port = free_port()
    async with Node(new_name(), listen=f"127.0.0.1:{port}", **options) as node:
        assert node.port == port
        with pytest.raises(OSError, match="in use"):
            await Node(new_name(), listen=("127.0.0.1", port), **options).start()
    async with Node(new_name(), listen=False, **options) as deaf:
        assert deaf.port == 0
        async with Node(new_name(), **options) as node:
            box = deaf.mailbox("box")
            await deaf.connect(node.name)
            node.send(box.pid, 1)
            assert await box.receive(5) == 1
    with pytest.raises(RouterError, match="listen="):
        await Node("a@no-such-host.invalid", **options).start()


async def test_cookies_for_all_and_for_one(options: dict[str, Any]) -> None:
    other = {**options, "cookie": "other"}
    async with Node(new_name("a"), **options) as a, Node(new_name("b"), **other) as b:
        with pytest.raises(RouterError, match="cookie"):
            await a.connect(b.name)
        await a.connect(b.name, cookie="other")
        assert a.nodes() == [b.name]


async def test_the_port_mapper_moves_to_a_node_that_lives(options: dict[str, Any]) -> None:
    async with Node(new_name("a"), **options) as first:
        async with (
            Node(new_name("b"), **options) as second,
            Node(new_name("c"), **options) as third,
        ):
            box = third.mailbox("box")
            await first.stop()  # it served the port mapper
            deadline = time.monotonic() + 20
            while not await second.ping(third.name):
                assert time.monotonic() < deadline
            second.send(("box", third.name), 1)
            assert await box.receive(5) == 1


@pytest.mark.parametrize("hidden", [True, False])
def test_the_program_may_end_with_a_live_node(
    options: dict[str, Any], engine: str, hidden: bool
) -> None:
    code = (
        "from router import Node\n"
        f"node = Node({new_name()!r}, cookie='x', epmd_port={options['epmd_port']},"
        f" hidden={hidden}, **{run_by(engine)!r})\n"
        "node.start_sync()\nbox = node.mailbox('kept')\nnode.send('kept', 1)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=20, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_fork(options: dict[str, Any]) -> None:
    before = descriptors()
    with Node(new_name("a"), **options) as a, Node(new_name("b"), **options) as b:
        a.connect_sync(b.name)
        box = b.mailbox("box")
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            said = []
            for use in (lambda: a.send("x", 1), lambda: box.get(1), lambda: b.mailbox()):
                try:
                    use()
                except RouterError as e:
                    said.append("fork" in str(e))
            ok = said == [True] * 3 and descriptors() <= before + 2 and not a.running
            os.write(write, b"1" if ok else b"0")
            os._exit(0)
        os.waitpid(pid, 0)
        assert os.read(read, 1) == b"1"
        os.close(read)
        os.close(write)
        a.send(("box", b.name), "still there")
        assert box.get(5) == b"still there"
        assert a.nodes() == [b.name]


def test_a_loop_may_close_under_a_node(options: dict[str, Any]) -> None:
    with Node(new_name("a"), **options) as a, Node(new_name("b"), **options) as b:
        box = b.mailbox("box")

        async def use(value: int) -> None:
            a.send(("box", b.name), value)
            assert await box.receive(5) == value
            assert await a.ping(b.name)

        for value in range(3):
            asyncio.run(use(value))
        a.send(("box", b.name), "no loop")
        assert box.get(5) == b"no loop"
        asyncio.run(use(3))


def test_a_loop_may_close_before_it_lets_go_of_a_node(options: dict[str, Any]) -> None:
    fds = descriptors()
    for _ in range(5):
        node, loop = Node(new_name(), **options), asyncio.new_event_loop()
        loop.run_until_complete(node.start())
        loop.run_until_complete(node.ping("nobody@127.0.0.1"))

        def last_turn(node: Node = node, loop: asyncio.AbstractEventLoop = loop) -> None:
            loop.stop()
            thread = threading.Thread(target=node.stop_sync)
            thread.start()
            thread.join()

        loop.call_soon(last_turn)
        loop.run_forever()
        loop.close()
    del node, loop, last_turn
    assert descriptors() == fds


def test_a_forgotten_node_is_closed(options: dict[str, Any], engine: str) -> None:
    options = {"cookie": "x", "epmd": "none", **run_by(engine)}
    Node(new_name(), **options).start_sync()
    gc.collect()
    fds, tasks = descriptors(), threads()
    for _ in range(5):
        node = Node(new_name(), **options)
        node.start_sync()
        box = node.mailbox("named")
        watched = weakref.ref(node)
        del node, box
        gc.collect()
        assert watched() is None
    assert (descriptors(), threads()) == (fds, tasks)


async def test_a_node_forgotten_on_a_loop_leaves_no_reader(options: dict[str, Any]) -> None:
    fds = descriptors()
    node = Node(new_name(), **options)
    await node.start()
    box = node.mailbox("named")
    with pytest.raises(TimeoutError):
        await box.receive(0.01)
    watched = weakref.ref(node)
    del node, box
    gc.collect()
    await asyncio.sleep(0)
    gc.collect()
    assert watched() is None
    assert descriptors() == fds


@pytest.mark.parametrize("rounds", [100, pytest.param(1000, marks=pytest.mark.slow)])
async def test_start_and_stop_many_times(options: dict[str, Any], engine: str, rounds: int) -> None:
    async def once() -> None:
        async with Node("a@127.0.0.1", **run_by(engine), **options) as a:
            async with Node("b@127.0.0.1", **run_by(engine), **options) as b:
                box = b.mailbox("box")
                a.send(("box", b.name), 1)
                assert await box.receive(5) == 1

    await asyncio.to_thread(gc.collect)  # the loop's helper thread stays
    for _ in range(20):
        await once()
    gc.collect()
    fds, tasks, kib = descriptors(), threads(), resident_kib()
    for _ in range(rounds):
        await once()
    gc.collect()
    assert (descriptors(), threads()) == (fds, tasks)
    if "san" not in os.environ.get("LD_PRELOAD", ""):  # a sanitizer keeps what was freed
        assert resident_kib() - kib < 8_000


async def test_an_exception_leaves_nothing_behind(options: dict[str, Any]) -> None:
    async def fails() -> None:
        async with Node(new_name(), **options) as node:
            node.mailbox("box")
            raise ZeroDivisionError

    counts = []
    for _ in range(10):  # a loop keeps its last handle for a while: one more or less
        with pytest.raises(ZeroDivisionError):
            await fails()
        counts.append(descriptors())
    assert max(counts[5:]) <= counts[0] + 1


@pytest.mark.parametrize("hidden", [True, False])
async def test_an_idle_node_uses_no_cpu(pair: Pair, hidden: bool) -> None:
    async with pair(hidden=hidden) as (a, b):
        await a.connect(b.name)
        await asyncio.sleep(0.1)
        start = time.process_time()
        await asyncio.sleep(1.0)
        assert time.process_time() - start < 0.02


BUSY = """
import asyncio, sys, time
from router import Node
async def main():
    node = Node(sys.argv[1], cookie="secret", epmd_port=int(sys.argv[2]), net_ticktime=1,
                **eval(sys.argv[4]))
    async with node:
        node.send(("ready", sys.argv[3]), 1)
        await asyncio.sleep(0.05)
        end = time.monotonic() + 3
        while time.monotonic() < end:
            pass
        node.send(("ready", sys.argv[3]), 2)
        await node.drain()
        await asyncio.sleep(0.2)
asyncio.run(main())
"""


async def test_a_program_that_computes_stays_or_falls_out(
    options: dict[str, Any], engine: str
) -> None:
    async with Node(new_name("a"), net_ticktime=1, **options) as a:
        box, nodes = a.mailbox("ready"), a.mailbox()
        a.monitor_nodes(nodes)
        busy = new_name("busy")
        child = subprocess.Popen(
            [
                sys.executable,
                "-c",
                BUSY,
                busy,
                str(options["epmd_port"]),
                a.name,
                repr(run_by(engine)),
            ]
        )
        try:
            assert await box.receive(20) == 1
            assert await nodes.receive(5) == ("nodeup", busy)
            if engine == "inline":
                start = time.monotonic()
                assert await nodes.receive(5) == ("nodedown", busy)
                assert time.monotonic() - start < 1.6
            else:
                with pytest.raises(TimeoutError):
                    await nodes.receive(2)
                assert await a.ping(busy, 1)  # answered while it computes
                assert await box.receive(10) == 2
        finally:
            await asyncio.to_thread(child.wait, 20)


FLOODING = """
import asyncio, sys
from router import Node
async def main():
    async with Node(sys.argv[1], cookie='secret', epmd_port=int(sys.argv[2])) as node:
        while True:
            node.send(('sink', sys.argv[3]), bytes(1 << 16))
            await node.drain()
asyncio.run(main())
"""


async def test_a_flood_waits_with_its_sender(options: dict[str, Any]) -> None:
    """While the program computes, its node's own thread takes in a portion now and then."""
    async with Node(new_name("busy"), **options) as node:
        box = node.mailbox("sink")
        arguments = [new_name("flood"), str(options["epmd_port"]), node.name]
        child = subprocess.Popen([sys.executable, "-c", FLOODING, *arguments])

        def bytes_in() -> int:
            return next(row["bytes_in"] for row in node.stats() if row["peer"] == arguments[0])

        try:
            await box.receive_many(timeout=20)
            before = bytes_in()
            begin = time.monotonic()
            while time.monotonic() - begin < 0.5:
                pass
            came, portions = bytes_in() - before, (time.monotonic() - begin) / 0.005 + 2
            # Half a mebibyte each, and the rest of a read.
            assert 0 < came < portions * (768 << 10)
        finally:
            child.kill()
            await asyncio.to_thread(child.wait, 20)


async def test_ticks_keep_an_idle_connection(pair: Pair) -> None:
    async with pair(net_ticktime=0.4) as (a, b):
        await a.connect(b.name)
        box = a.mailbox()
        a.monitor_nodes(box)
        with pytest.raises(TimeoutError):
            await box.receive(1.5)
        assert a.nodes() == [b.name]


async def test_stats(pair: Pair) -> None:
    async with pair() as (a, b):
        assert len(a.stats()) == 0
        box = b.mailbox("in")
        for i in range(10):
            a.send(("in", b.name), i)
        a.send(("nobody", b.name), 1)
        a.send(("in", b.name), "end")
        while await box.receive(5) != b"end":
            pass
        sent, got = a.stats()[0], b.stats()[0]
        assert (sent["peer"], sent["up"], got["peer"]) == (b.name, True, a.name)
        assert (sent["messages_out"], got["messages_in"], got["dropped_in"]) == (12, 12, 1)
        assert sent["bytes_out"] == got["bytes_in"] > 0
        assert 0 < sent["round_trip"] < 1
        assert sent["age"] > 0
        with pytest.raises(NodeDown):
            await a.connect("nobody@127.0.0.1")
        assert [row["failures"] for row in a.stats()] == [0, 1]


def test_many_threads_start_and_stop_nodes(options: dict[str, Any]) -> None:
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(10):
                with Node(new_name(), **options) as node:
                    box = node.mailbox("me")
                    node.send("me", 1)
                    assert box.get(5) == 1
        except BaseException as e:
            errors.append(e)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for w in workers:
        w.start()
    for w in workers:
        w.join(60)
    assert errors == []
