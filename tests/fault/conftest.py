"""For tests of a live node against hostile and broken peers.

`host` starts nodes without a port mapper, each with a box to send to and an eye on its log.
A test that takes longer than it may is ended with every thread's stack.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import faulthandler
import logging
import os
import re
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from fault.peer import PATIENCE_S, Atom, Link, Listener, Peer, close_sockets
from router import Limits, Node

TEST_SECONDS_MAX = 60.0


@pytest.fixture(autouse=True)
def time_limit() -> Iterator[None]:
    faulthandler.dump_traceback_later(TEST_SECONDS_MAX, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(autouse=True)
def no_socket_left() -> Iterator[None]:
    yield
    close_sockets()


class LogLines(logging.Handler):
    """What the package logs, and a way to wait for it."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []
        self._more = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        with self._more:
            self.lines.append(record.getMessage())
            self._more.notify_all()

    def count(self, pattern: str) -> int:
        return sum(bool(re.search(pattern, line)) for line in self.lines)

    def wait_for(self, pattern: str, times: int) -> None:
        with self._more:
            if not self._more.wait_for(lambda: self.count(pattern) >= times, PATIENCE_S):
                said = "\n".join(self.lines)
                raise TimeoutError(f"{times} log lines {pattern!r} did not come in time:\n{said}")


@pytest.fixture(scope="session")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop with a thread of its own, on which nodes live while tests block."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="nodes", daemon=True)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


Attempt = concurrent.futures.Future[None]


class Host:
    """A node under attack."""

    def __init__(self, node: Node, log: LogLines, loop: asyncio.AbstractEventLoop) -> None:
        self.node = node
        self.log = log
        self.loop = loop
        self.news = node.mailbox()
        node.monitor_nodes(self.news)
        self.box = node.mailbox("box")
        self.bystander: Link | None = None
        self._sent = 0

    @property
    def name(self) -> str:
        return self.node.name

    @property
    def port(self) -> int:
        return self.node.port

    def count(self, pattern: str) -> int:
        return self.log.count(pattern)

    def logged(self, pattern: str, times: int = 1) -> None:
        self.log.wait_for(pattern, times)

    def up(self, peer: Peer) -> None:
        assert self.news.get(PATIENCE_S) == ("nodeup", peer.name)

    def down(self, peer: Peer) -> None:
        assert self.news.get(PATIENCE_S) == ("nodedown", peer.name)

    def connected(self, peer: Peer) -> Link:
        """A peer that has connected."""
        link = peer.connect(self.port)
        self.up(peer)
        return link

    def dials(self, listener: Listener) -> tuple[Attempt, Link]:
        """The node begins to connect to the peer there; nothing was said yet."""
        name = listener.peer.name
        connecting = self.node.connect(name, 2 * PATIENCE_S, host="127.0.0.1", port=listener.port)
        attempt = asyncio.run_coroutine_threadsafe(connecting, self.loop)
        return attempt, listener.accept()

    def outcome(self, attempt: Attempt) -> BaseException | None:
        return attempt.exception(PATIENCE_S)

    def meets(self, peer: Peer, answer: Callable[[Link], None]) -> BaseException | None:
        """What becomes of the node's connect while `answer` plays the acceptor."""
        with peer.listen() as listener:
            attempt, link = self.dials(listener)
            answer(link)
            return self.outcome(attempt)

    def flows(self, link: Link) -> None:
        """One message each way."""
        self._sent += 1
        me = link.peer.pid()
        link.say((6, me, Atom(""), Atom("box")), (Atom("in"), self._sent))
        assert self.box.get(PATIENCE_S) == ("in", self._sent)
        self.node.send(me, (Atom("out"), self._sent))
        control, payload = link.hear()
        assert control[0] in (2, 22) and control[2] == me
        assert payload == ("out", self._sent)

    def others_go_on(self) -> None:
        assert self.bystander is not None
        self.flows(self.bystander)


@pytest.fixture
def log() -> Iterator[LogLines]:
    handler = LogLines()
    logger = logging.getLogger("router")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


Start = Callable[..., Host]
ENGINES: list[dict[str, Any]] = [{}, {"engine": "thread", "threads": 3}]


@pytest.fixture
def driven() -> dict[str, Any]:
    """By whom: a module's own fixture of that name says it otherwise."""
    return {}


@pytest.fixture
def start(
    log: LogLines, loop: asyncio.AbstractEventLoop, driven: dict[str, Any]
) -> Iterator[Start]:
    """`start(name=, limits=, **options)` gives a Host whose node runs."""
    nodes: list[Node] = []

    def wait(coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, loop).result(2 * PATIENCE_S)

    def begin(name: str = "node@127.0.0.1", **options: Any) -> Host:
        options.setdefault("limits", Limits(handshake_step_ms=5000, connect_ms=5000))
        node = Node(name, **{"cookie": "secret", "epmd": "none", **driven, **options})
        nodes.append(node)
        wait(node.start())
        return Host(node, log, loop)

    yield begin
    for node in nodes:
        wait(node.stop())


@pytest.fixture
def host(start: Start) -> Host:
    return start()


@pytest.fixture
def watched(host: Host) -> Host:
    """A host with another peer connected, whose messages must keep flowing."""
    host.bystander = host.connected(Peer("bystander@127.0.0.1"))
    host.others_go_on()
    return host


def open_sockets() -> int:
    """How many sockets this process has open. (Of its other descriptors some are made on first
    use and kept.)"""
    count = 0
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the listing's own is closed again
            count += os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")
    return count
