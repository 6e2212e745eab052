"""For tests of a live node against hostile and broken peers.

`host` starts nodes without a port mapper, each with a box to send to and an eye on its log.
A test that takes longer than it may is ended with every thread's stack.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fault.peer import OPENED, PATIENCE_S, Atom, Link, Listener, Peer
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
    for sock in OPENED:
        sock.close()
    OPENED.clear()


class LogLines(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


class _Condition:
    """What Node._wait_for waits for: done as soon as the test's condition holds."""

    error = None

    def __init__(self, holds: Callable[[], bool]) -> None:
        self._holds = holds

    @property
    def done(self) -> bool:
        return self._holds()


class _Attempt:
    """One who waits for a connection, without blocking the test."""

    def __init__(self) -> None:
        self.done = False
        self.error: BaseException | None = None

    def finish(self, error: BaseException | None) -> None:
        self.done, self.error = True, error


class Host:
    """A node under attack."""

    def __init__(self, node: Node, log: LogLines) -> None:
        self.node = node
        self.log = log
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

    def until(self, holds: Callable[[], bool], what: str, seconds: float = PATIENCE_S) -> None:
        """Waits for a condition that an event of the node brings about."""
        if not self.node._wait_for(_Condition(holds), seconds):  # type: ignore[arg-type]
            raise TimeoutError(f"not in time: {what}\n" + "\n".join(self.log.lines))

    def count(self, pattern: str) -> int:
        return sum(bool(re.search(pattern, line)) for line in self.log.lines)

    def logged(self, pattern: str, times: int = 1) -> None:
        self.until(lambda: self.count(pattern) >= times, f"{times} log lines {pattern!r}")

    def up(self, peer: Peer) -> None:
        assert self.news.get(PATIENCE_S) == ("nodeup", peer.name)

    def down(self, peer: Peer) -> None:
        assert self.news.get(PATIENCE_S) == ("nodedown", peer.name)

    def connected(self, peer: Peer) -> Link:
        """A peer that has connected."""
        link = peer.connect(self.port)
        self.up(peer)
        return link

    def dials(self, listener: Listener, answer: Callable[[Link], None]) -> BaseException | None:
        """What becomes of the node's connect while `answer` plays the acceptor."""
        attempt = self.begin_dialing(listener)
        with listener.accept() as link:
            answer(link)
            return self.outcome(attempt)

    def outcome(self, attempt: _Attempt) -> BaseException | None:
        self.until(lambda: attempt.done, "the end of connecting")
        return attempt.error

    def begin_dialing(self, listener: Listener) -> _Attempt:
        attempt = _Attempt()
        name = listener.peer.name
        peer = self.node._prepare(name, "127.0.0.1", listener.port, None)
        self.node._handle_events()
        self.node._connecting.setdefault(name, []).append(attempt)  # type: ignore[arg-type]
        self.node._connect_needed(peer)
        return attempt

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


@pytest.fixture
def start(log: LogLines) -> Iterator[Start]:
    """`start(name=, limits=, **options)` gives a Host whose node runs."""
    hosts: list[Host] = []

    def begin(name: str = "node@127.0.0.1", **options: Any) -> Host:
        options.setdefault("limits", Limits(handshake_step_ms=5000, connect_ms=5000))
        node = Node(name, **{"cookie": "secret", "epmd": "none", **options})
        node.start_sync()
        hosts.append(Host(node, log))
        return hosts[-1]

    yield begin
    for host in hosts:
        host.node.stop_sync()


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
