"""Streams of small messages, of which the node holds acknowledgements back: however they end or go
on, all that came before is delivered."""

from __future__ import annotations

from typing import Any

import pytest

from fault.conftest import ENGINES, Host
from fault.peer import PATIENCE_S, Atom, Link, Peer

ME = Peer("small@127.0.0.1")
COUNT = 400
"""Messages, each in a segment of its own, so that many come in a row."""


@pytest.fixture(params=ENGINES, ids=["loop", "threads"])
def driven(request: pytest.FixtureRequest) -> dict[str, Any]:
    return dict(request.param)


def stream(link: Link, first: int, payload: bytes = b"") -> None:
    control = (6, ME.pid(), Atom(""), Atom("box"))
    for frame in [link.frame(control, (first + i, payload)) for i in range(COUNT)]:
        link.send(frame)


def arrive(host: Host, first: int, payload: bytes = b"") -> None:
    for i in range(COUNT):
        assert host.box.get(PATIENCE_S) == (first + i, payload)


@pytest.mark.parametrize("how", ["finish", "close"])
def test_an_end(host: Host, how: str) -> None:
    for _ in range(10):
        link = host.connected(ME)
        stream(link, 0)
        getattr(link, how)()
        arrive(host, 0)
        host.down(ME)


def test_a_break(host: Host) -> None:
    """Bytes that a reset overtakes may be lost; what had arrived is not, nor is the end."""
    for _ in range(10):
        link = host.connected(ME)
        stream(link, 0)
        arrive(host, 0)
        link.reset()
        host.down(ME)


def test_the_node_hangs_up(host: Host) -> None:
    """It closes, it does not break the stream: what it had sent arrives first."""
    for _ in range(10):
        link = host.connected(ME)
        stream(link, 0)
        arrive(host, 0)
        host.node.send(ME.pid(), Atom("goodbye"))
        host.node.disconnect(ME.name)
        assert link.hear()[1] == "goodbye"
        assert link.end() == "closed"
        host.down(ME)


def test_large_messages_in_between(host: Host) -> None:
    link = host.connected(ME)
    for size in (16_000, 20_000, 60_000, 500_000):
        stream(link, 0)
        link.say((6, ME.pid(), Atom(""), Atom("box")), bytes(size))
        stream(link, COUNT)
        arrive(host, 0)
        assert host.box.get(PATIENCE_S) == bytes(size)
        arrive(host, COUNT)
    host.flows(link)


def test_answers_in_between(host: Host) -> None:
    link = host.connected(ME)
    for round in range(10):
        stream(link, round * COUNT)
        arrive(host, round * COUNT)
        host.flows(link)


def test_a_box_that_pauses(host: Host) -> None:
    box = host.node.mailbox("slow", limit=50, overflow="pause")
    link = host.connected(ME)
    control = (6, ME.pid(), Atom(""), Atom("slow"))
    for round in range(5):
        for i in range(COUNT):
            link.say(control, (round, i))
        for i in range(COUNT):
            assert box.get(PATIENCE_S) == (round, i)
    host.flows(link)
