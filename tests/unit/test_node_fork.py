"""A child of a fork has none of its parent's nodes, and its parent loses nothing by it."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from router import Node, RouterError

from .conftest import new_name, run_by

# Forking beside threads is what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")


def in_child(check: Callable[[], None]) -> None:
    """Runs `check` in a child; what it raises fails the test."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        text = b""
        try:
            os.close(read)
            check()
        except BaseException:
            text = traceback.format_exc().encode()
        os.write(write, text)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as f:
        said = f.read()
    os.waitpid(pid, 0)
    assert not said, said


def descriptors() -> set[str]:
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the folder's own
            found.add(f"{number} {os.readlink(f'/proc/self/fd/{number}')}")
    return {x for x in found if "/proc/" not in x}


def test_no_descriptor_of_a_node_is_left_in_the_child(options: dict[str, Any], engine: str) -> None:
    if engine == "inline":
        options = {"cookie": "secret", "epmd": "none"}
    loop = asyncio.new_event_loop()
    before = descriptors()

    def check() -> None:
        left = {x for x in descriptors() - before if "pipe:" not in x}  # the pipe of in_child
        assert left == set()

    with Node(new_name("a"), **run_by(engine), **options) as a, Node(new_name("b"), **options) as b:
        a.connect_sync(b.name, host="127.0.0.1", port=b.port)
        box, blocked = a.mailbox("box"), b.mailbox("blocked")
        with pytest.raises(TimeoutError):
            box.get(0.001)  # a notifier of this thread
        thread = threading.Thread(target=blocked.get)
        thread.start()  # and one of another, which the child does not have
        while blocked._thread_notifier is None:
            time.sleep(0)

        async def use() -> None:  # and those of a loop
            for node in (a, b):
                with pytest.raises(TimeoutError):
                    await node.mailbox().receive(0.001)
            in_child(check)

        loop.run_until_complete(use())
        loop.close()
        assert len(descriptors() - before) > 10
        b.send("blocked", 1)
        thread.join(10)
        a.send(("blocked", b.name), "the parent is undisturbed")
        assert blocked.get(5) == b"the parent is undisturbed"
        assert a.nodes() == [b.name]


def test_everything_of_a_dead_node_says_why(options: dict[str, Any]) -> None:
    with Node(new_name(), **options) as node:
        box = node.mailbox("box")
        ref = box.alias()
        node.send("box", "unread")

        def check() -> None:
            async def on_a_loop(use: Callable[[], Any]) -> None:
                await use()

            async def callback() -> None:
                box.on_messages(print)

            for use in (
                lambda: node.send("box", 1),
                lambda: node.send(box.pid, 1),
                lambda: node.mailbox(),
                lambda: node.connect_sync("b@127.0.0.1"),
                lambda: node.disconnect("b@127.0.0.1"),
                lambda: node.whereis("box"),
                lambda: node.reference(),
                lambda: box.get(1),
                lambda: box.get_many(timeout=1),
                lambda: box.link(box.pid),
                lambda: box.monitor("box"),
                lambda: box.demonitor(ref),
                lambda: box.exit(box.pid, "x"),
                lambda: box.alias(),
                lambda: setattr(box, "trap_exit", True),
                lambda: asyncio.run(on_a_loop(lambda: box.receive(1))),
                lambda: asyncio.run(on_a_loop(lambda: node.connect("b@127.0.0.1"))),
                lambda: asyncio.run(on_a_loop(lambda: node.drain())),
                lambda: asyncio.run(on_a_loop(callback)),
            ):
                with pytest.raises(RouterError, match="fork|not running"):
                    use()
            assert node.nodes() == [] and len(node.stats()) == 0
            assert node.creation == 0 and node.port == 0
            assert box.closed and box.waiting == 0 and not box.unalias(ref)
            assert not box.trap_exit
            box.close()
            node.stop_sync()
            repr(node), repr(box)

        in_child(check)
        assert box.get(5) == b"unread"
        assert box.unalias(ref)


def test_a_child_makes_a_node_of_its_own(options: dict[str, Any]) -> None:
    with Node(new_name("parent"), **options) as parent:
        box = parent.mailbox("box")
        name = new_name("child")
        unstarted = Node(name, **options)

        def check() -> None:
            with unstarted as child:
                mine = child.mailbox()
                child.send(("box", parent.name), mine.pid)
                assert mine.get(10) == b"welcome"

        thread = threading.Thread(target=lambda: parent.send(box.get(20), "welcome"))
        thread.start()
        in_child(check)
        thread.join(20)
        assert not thread.is_alive()


def _in_worker(numbers: list[int]) -> int:
    return sum(numbers)


def test_a_child_of_a_visible_node(options: dict[str, Any]) -> None:
    """Its thread for global names is the parent's alone."""
    with Node(new_name(), hidden=False, **options) as node:
        names = node.global_names

        def check() -> None:
            with pytest.raises(RouterError, match="has ended"):
                names.register_sync("n", node.mailbox)  # type: ignore[arg-type]
            node.stop_sync()
            with Node(new_name("child"), hidden=False, **options) as own:
                own.global_names.register_sync("n", own.mailbox("box"), timeout=10)

        in_child(check)
        names.register_sync("n", node.mailbox("box"), timeout=10)


def test_multiprocessing_by_fork(options: dict[str, Any], engine: str) -> None:
    if engine == "inline":
        options = {"cookie": "secret", "epmd": "none"}
    with Node(new_name("a"), **run_by(engine), **options) as a, Node(new_name("b"), **options) as b:
        a.connect_sync(b.name, host="127.0.0.1", port=b.port)
        box = b.mailbox("box")
        with multiprocessing.get_context("fork").Pool(2) as pool:
            for i in range(20):
                a.send(("box", b.name), i)
                a.drain_sync()  # with "inline" nobody else writes it
                assert pool.apply_async(_in_worker, ([i, 1],)).get(20) == i + 1
        assert [box.get(5) for _ in range(20)] == list(range(20))
        assert a.nodes() == [b.name]


def test_fork_while_a_loop_runs_and_messages_flow(options: dict[str, Any]) -> None:
    async def main() -> None:
        async with Node(new_name("a"), **options) as a, Node(new_name("b"), **options) as b:
            box = b.mailbox("in")
            seen: list[int] = []
            for i in range(2000):
                a.send(("in", b.name), i)
                if i % 400 == 200:
                    in_child(lambda: None)
                if i % 50 == 0:
                    seen += await box.receive_many(timeout=5)
            while len(seen) < 2000:
                seen += await box.receive_many(timeout=5)
            assert seen == list(range(2000))

    asyncio.run(main())


ENDINGS = {
    "a thread blocked in get": """
import threading
node.start_sync()
box = node.mailbox("box")
threading.Thread(target=box.get, daemon=True).start()
while box._thread_notifier is None: pass
""",
    "a loop that was closed": """
import asyncio
async def main():
    await node.start()
    box = node.mailbox("box")
    node.send("box", 1)
    assert await box.receive(5) == 1
asyncio.run(main())
""",
    "a loop that was only stopped": """
import asyncio
loop = asyncio.new_event_loop()
loop.run_until_complete(node.start())
box = node.mailbox("box")
box_task = loop.create_task(box.receive())
loop.run_until_complete(asyncio.sleep(0))
box_task._log_destroy_pending = False
box_task.get_coro().close()
""",
    "uvloop": """
import asyncio, uvloop
async def main():
    await node.start()
    node.mailbox("box").on_messages(print)
    await asyncio.sleep(0)
with asyncio.Runner(loop_factory=uvloop.new_event_loop) as r:
    r.run(main())
""",
    "a queue to a peer": """
other = Node("other@127.0.0.1", cookie="x", epmd="none")
other.start_sync()
node.start_sync()
node.connect_sync(other.name, host="127.0.0.1", port=other.port)
for i in range(1000):
    node.send(("nobody", other.name), bytes(1000))
""",
    "an exception": """
import sys
node.start_sync()
sys.exit(0)
""",
    "a call in an exit handler": """
import atexit
node.start_sync()
def late():
    try: node.send("x", 1)
    except Exception: pass
    node.stop_sync()
atexit.register(late)
""",
}


@pytest.mark.parametrize("how", ENDINGS)
def test_the_program_may_end_with(how: str, engine: str) -> None:
    code = (
        "from router import Node\n"
        f"node = Node({new_name()!r}, cookie='x', epmd='none', **{run_by(engine)!r})\n"
    ) + ENDINGS[how]
    done = subprocess.run([sys.executable, "-c", code], timeout=30, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
