"""Silence and ticks."""

from __future__ import annotations

import time
from typing import Any

import pytest

from fault.conftest import ENGINES, Host, Start
from fault.peer import MANDATORY, Atom, Peer, long

TICKTIME_S = 0.4


@pytest.fixture(params=ENGINES)
def driven(request: pytest.FixtureRequest) -> dict[str, Any]:
    return request.param


def test_a_peer_that_never_ticks_is_dropped(start: Start) -> None:
    host = start(net_ticktime=TICKTIME_S)
    peer = Peer()
    link = host.connected(peer)
    since = time.monotonic()
    link.hear_tick()  # we go on ticking
    assert link.end() == "closed"
    assert time.monotonic() - since >= 0.5 * TICKTIME_S
    host.down(peer)
    host.logged(f"connection with {peer.name} ended: the deadline passed")


def test_a_peer_that_only_ticks_stays(start: Start) -> None:
    """For each of our ticks it says one of its own: for three times the time of silence."""
    host = start(net_ticktime=TICKTIME_S)
    peer = Peer()
    link = host.connected(peer)
    silent = host.connected(Peer("silent@127.0.0.1"))
    for _ in range(3 * 4):
        link.hear_tick()
        link.tick()
    assert silent.end() == "closed"
    host.down(silent.peer)
    assert host.node.nodes() == [peer.name]
    host.flows(link)


def test_half_a_frame_is_a_sign_of_life(start: Start) -> None:
    """A slow peer in the middle of a message is not silent."""
    host = start(net_ticktime=TICKTIME_S)
    peer = Peer()
    link = host.connected(peer)
    frame = link.frame((6, peer.pid(), Atom(""), Atom("box")), bytes(100))
    for at in range(8):
        link.send(frame[at : at + 1])
        link.hear_tick()
    link.send(frame[8:])
    assert host.box.get(5) == bytes(100)


def test_ticks_of_every_form_of_peer(start: Start) -> None:
    host = start(net_ticktime=TICKTIME_S)
    for peer in (Peer(), Peer(flags=MANDATORY)):
        link = host.connected(peer)
        link.send(long(b"") * 1000)
        host.flows(link)


def test_messages_take_the_place_of_ticks(start: Start) -> None:
    """While we have something to say we need no ticks, and what we hear needs none either."""
    host = start(net_ticktime=TICKTIME_S)
    peer = Peer()
    link = host.connected(peer)
    until = time.monotonic() + 2 * TICKTIME_S
    while time.monotonic() < until:
        host.flows(link)
    assert host.node.nodes() == [peer.name]


def test_a_busy_program_still_ticks(start: Start) -> None:
    """The program looks at nothing; the node's own thread answers for it."""
    host = start(net_ticktime=TICKTIME_S)
    link = host.connected(Peer())
    for _ in range(6):
        link.hear_tick()
        link.tick()
    host.flows(link)


def test_a_peer_that_does_not_read(start: Start) -> None:
    """Its queue grows to the limit and no further; it is not silent as long as it ticks."""
    host: Host = start(net_ticktime=TICKTIME_S, limits={"queue_bytes_max": 4 << 20})
    host.bystander = host.connected(Peer("bystander@127.0.0.1"))
    peer = Peer()
    link = host.connected(peer)
    from router import BufferFull

    sent = 0
    try:
        while True:
            host.node.send(peer.pid(), bytes(60_000))
            sent += 1
    except BufferFull:
        pass
    assert sent * 60_000 >= 4 << 20
    host.others_go_on()
    for _ in range(sent):
        assert link.hear()[1] == bytes(60_000)
    host.flows(link)
