"""Which poller a node has, what io_uring must not change, and where it cannot be had."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from router import Node
from router.cli.common import free_port

from .conftest import Pair, descriptors, new_name, threads, until
from .test_node_fork import in_child

ROOT = Path(__file__).resolve().parents[2]
URING: dict[str, Any] = {"engine": "thread", "poller": "io_uring"}
ALONE: dict[str, Any] = {"cookie": "x", "epmd": "none", **URING}


def dial(node: Node) -> socket.socket:
    """A connection that the node accepts and then hears nothing on."""
    return socket.create_connection(("127.0.0.1", node.port), 10)


def assert_at_end(s: socket.socket) -> None:
    s.settimeout(10)
    try:
        assert s.recv(1) == b""
    except ConnectionResetError:
        pass
    s.close()


# which one ------------------------------------------------------------------------------


def test_epoll_unless_asked() -> None:
    for engine in ("auto", "thread", "inline"):
        for poller in ("auto", "epoll"):
            assert Node("a@127.0.0.1", cookie="x", engine=engine, poller=poller).poller == "epoll"


@pytest.mark.io_uring
def test_io_uring_when_asked() -> None:
    node = Node(new_name(), **ALONE)
    assert node.poller == "io_uring"
    with pytest.raises(AttributeError):
        node.poller = "epoll"  # type: ignore[misc]
    with node:
        assert node.running


@pytest.mark.parametrize("poller", ["uring", None, ["epoll"]])
def test_there_are_three_words(poller: Any) -> None:
    with pytest.raises(ValueError, match="poller is 'auto', 'epoll' or 'io_uring', not"):
        Node("a@127.0.0.1", cookie="x", poller=poller)


@pytest.mark.parametrize("engine", ["auto", "inline"])
def test_a_ring_needs_a_thread_of_its_own(engine: str) -> None:
    with pytest.raises(ValueError, match=r"poller='io_uring' needs engine='thread'"):
        Node("a@127.0.0.1", cookie="x", engine=engine, poller="io_uring")


# messages -------------------------------------------------------------------------------


@pytest.mark.io_uring
async def test_order_and_large_messages_both_ways(pair: Pair, loop_kind: str) -> None:
    sizes = [n % 300 if n % 500 else 3_000_000 for n in range(4000)]
    async with pair(**URING) as (a, b):
        boxes = {a: a.mailbox("box"), b: b.mailbox("box")}

        async def send(node: Node, to: Node) -> None:
            for number, size in enumerate(sizes):
                node.send(("box", to.name), (number, bytes(size)))
                if number % 50 == 0:
                    await node.drain()

        async def receive(node: Node) -> None:
            for number, size in enumerate(sizes):
                assert await boxes[node].receive() == (number, bytes(size))

        await asyncio.gather(send(a, b), send(b, a), receive(a), receive(b))


@pytest.mark.io_uring
async def test_a_box_that_holds_its_peer_back(pair: Pair) -> None:
    async with pair(limits={"spill_bytes_max": 100_000}, **URING) as (a, b):
        box = b.mailbox("box", limit=10, overflow="pause")
        for _ in range(3):
            for number in range(3000):
                a.send(("box", b.name), (number, bytes(1000)))
            for number in range(3000):
                assert (await box.receive(20))[0] == number


@pytest.mark.io_uring
async def test_a_disconnect_is_seen_at_once(pair: Pair) -> None:
    """What the kernel was asked about the socket must not keep it open."""
    async with pair(**URING) as (a, b):
        box = b.mailbox()
        b.monitor_nodes(box)
        for _ in range(20):
            await a.connect(b.name)
            assert await box.receive(10) == ("nodeup", a.name)
            a.disconnect(b.name)
            assert await box.receive(10) == ("nodedown", a.name)


@pytest.mark.io_uring
async def test_connections_come_and_go_by_the_thousand(pair: Pair) -> None:
    async with pair(**URING) as (a, b):
        before = descriptors()
        for _ in range(30):
            waiting = [dial(b) for _ in range(100)]
            for s in waiting[::2]:
                s.close()
            for s in waiting[1::2]:
                s.sendall(b"\0\1x")  # no handshake: the node closes
                assert_at_end(s)
        await until(lambda: descriptors() <= before)
        box = b.mailbox("box")
        a.send(("box", b.name), "still here")
        assert await box.receive(5) == b"still here"


@pytest.mark.io_uring
def test_messages_without_a_loop(options: dict[str, Any]) -> None:
    with Node(new_name(), **URING, **options) as a, Node(new_name(), **URING, **options) as b:
        box = b.mailbox("box")
        for number in range(2000):
            a.send(("box", b.name), number)
        assert [box.get(5) for _ in range(2000)] == list(range(2000))


# the ends -------------------------------------------------------------------------------


@pytest.mark.io_uring
def test_a_stop_closes_what_was_watched() -> None:
    """And frees the port: the thread that asked the kernel is gone, what it asked for too."""
    port = free_port()
    fds, tasks = descriptors(), threads()
    for _ in range(20):
        node = Node("a@127.0.0.1", listen=("127.0.0.1", port), **ALONE)
        with node:
            client = dial(node)
            with dial(node) as second:
                second.sendall(b"\0\1x")
                assert_at_end(second)  # so the first one has been accepted and is watched
        assert_at_end(client)
    assert threads() == tasks
    del node
    assert descriptors() == fds


@pytest.mark.io_uring
def test_a_node_that_never_started_leaves_nothing() -> None:
    before = descriptors()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for _ in range(3):
            with pytest.raises(OSError, match="cannot start"):
                Node("a@127.0.0.1", listen=taken.getsockname(), **ALONE).start_sync()
    assert descriptors() == before


@pytest.mark.io_uring
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_fork_leaves_the_ring_to_its_parent(options: dict[str, Any]) -> None:
    def rings() -> int:
        links = [f"/proc/self/fd/{n}" for n in os.listdir("/proc/self/fd")]
        return sum("io_uring" in os.readlink(link) for link in links if os.path.islink(link))

    def child() -> None:
        assert rings() == 0
        name = new_name("child")
        with Node(name, **ALONE) as own:  # and may have its own
            box = own.mailbox("box")
            own.send("box", 1)
            assert box.get(5) == 1

    with Node(new_name(), **URING, **options) as a, Node(new_name(), **URING, **options) as b:
        a.connect_sync(b.name)
        assert rings() == 2
        box = b.mailbox("box")
        for number in range(5):
            in_child(child)
            a.send(("box", b.name), number)
            assert box.get(5) == number


@pytest.mark.io_uring
async def test_an_idle_node_uses_no_cpu(pair: Pair) -> None:
    async with pair(**URING) as (a, b):
        await a.connect(b.name)
        with dial(b):
            before = time.process_time()
            await asyncio.sleep(0.5)  # this is what is measured
            assert time.process_time() - before < 0.1


# where it cannot be had -----------------------------------------------------------------

# io_uring_setup answers with an error from here on, as under a container's profile.
REFUSE = """
import ctypes, struct, sys
from router import Node
IO_URING_SETUP, LOAD_NR, JUMP_IF, RETURN, ALLOW = 425, 0x20, 0x15, 0x06, 0x7FFF0000
program = struct.pack("HBBI" * 4, LOAD_NR, 0, 0, 0, JUMP_IF, 0, 1, IO_URING_SETUP,
                      RETURN, 0, 0, 0x50000 | int(sys.argv[1]), RETURN, 0, 0, ALLOW)
kept = ctypes.create_string_buffer(program)
filter = ctypes.create_string_buffer(struct.pack("HP", 4, ctypes.addressof(kept)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, filter) == 0, ctypes.get_errno()
"""
TRY = """
arguments = {"cookie": "x", "epmd": "none", "engine": "thread"}
try:
    Node("a@127.0.0.1", poller="io_uring", **arguments)
except (OSError, ValueError) as e:
    print(type(e).__name__, getattr(e, "errno", 0), e)
with Node("a@127.0.0.1", **arguments) as node:
    print(node.poller)
"""


def run(program: str, *words: object, **env: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, words)],
        env=os.environ | env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done
    return done.stdout.splitlines()


@pytest.mark.io_uring
@pytest.mark.parametrize(
    ("number", "kind", "says"),
    [
        (errno.EPERM, "PermissionError", "the system forbids it (sysctl kernel.io_uring_disabled"),
        (errno.ENOSYS, "OSError", "older than Linux 6.1"),
        (errno.EINVAL, "OSError", "older than Linux 6.1"),
    ],
)
def test_where_the_kernel_refuses(number: int, kind: str, says: str) -> None:
    error, poller = run(REFUSE + TRY, number)
    assert error.startswith(f"{kind} {number} ")
    assert says in error and "poller='epoll' is there always" in error
    assert poller == "epoll"


@pytest.mark.io_uring
def test_where_no_descriptor_is_left() -> None:
    few = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (0, 99))\n"
    many = "resource.setrlimit(resource.RLIMIT_NOFILE, (99, 99))\n"
    error, poller = run("from router import Node\n" + few + TRY.replace("with", many + "with"))
    assert error.startswith(f"OSError {errno.EMFILE} ")
    assert "Too many open files" in error
    assert poller == "epoll"


@pytest.mark.slow
def test_where_it_was_built_without(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "setup.py", "-q", "build", "--build-lib", tmp_path],
        cwd=ROOT,
        env=os.environ | {"ROUTER_NO_URING": "1"},
        check=True,
    )
    where = "import router; print(router.__file__)\n"
    env = {"PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": "1"}
    file, error, poller = run(where + "from router import Node\n" + TRY, **env)
    assert file.startswith(str(tmp_path))
    assert error.startswith("ValueError 0 ")
    assert "built without it" in error and "liburing-dev" in error
    assert poller == "epoll"
