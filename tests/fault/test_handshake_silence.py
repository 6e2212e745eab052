"""Peers that stop in the middle of the handshake: silent, gone, or reset, at every byte of it."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator

import pytest

from fault.conftest import Host, Start, open_descriptors
from fault.peer import Link, Listener, Peer, short, wait_for_ends
from router import HandshakeError

STEP_MS = 300

Leave = Callable[[Link], None]


def silent(link: Link) -> None:
    pass


def gone(link: Link) -> None:
    link.close()


def half_gone(link: Link) -> None:
    link.finish()


def reset(link: Link) -> None:
    link.reset()


WAYS = [pytest.param(way, id=way.__name__) for way in (silent, gone, half_gone, reset)]


def initiator_cut(port: int, number: int, at: int) -> Link | None:
    """An initiator that says `at` bytes of its part; None when there are not so many."""
    link = Peer(f"cut{number}.{at}@127.0.0.1").dial(port)
    name = link.name_packet()
    link.send(name[:at])
    at -= len(name)
    if at < 0:
        return link
    assert link.hear_status() == "ok"
    reply = link.reply_packet(link.hear_challenge().challenge)
    if at >= len(reply):
        link.close()
        return None
    link.send(reply[:at])
    return link


def acceptor_cut(listener: Listener, at: int) -> Link | None:
    """An acceptor that says `at` bytes of its part; None when there are not so many."""
    link = listener.accept()
    link.hear_name()
    first = short(b"sok") + link.challenge_packet()
    link.send(first[:at])
    at -= len(first)
    if at < 0:
        return link
    ack = link.ack_packet(link.hear_reply())
    if at >= len(ack):
        link.close()
        return None
    link.send(ack[:at])
    return link


@pytest.mark.parametrize("leave", WAYS)
def test_an_initiator_that_stops_anywhere(start: Start, leave: Leave) -> None:
    host = start(limits={"handshake_step_ms": STEP_MS})
    host.bystander = host.connected(Peer("bystander@127.0.0.1"))
    before = open_descriptors()
    links: list[Link] = []
    at = 0
    while (link := initiator_cut(host.port, 1, at)) is not None:
        links.append(link)
        leave(link)
        at += 1
    assert at > 50
    still_open = [link for link in links if link.socket.fileno() >= 0]
    wait_for_ends(still_open)
    host.logged("refused a connection", at)
    if leave is silent:
        assert host.count("fell silent during the handshake") == at
    elif leave is not reset:
        assert host.count("closed the connection during the handshake") == at
    for link in links:
        link.close()
    host.until(lambda: open_descriptors() == before, "every descriptor closed")
    assert not any("secret" in line for line in host.log.lines)
    host.others_go_on()


@pytest.fixture
def listeners() -> Iterator[Callable[[], Listener]]:
    opened: list[Listener] = []

    def listen() -> Listener:
        opened.append(Peer().listen())
        return opened[-1]

    yield listen
    for listener in opened:
        listener.socket.close()


@pytest.mark.parametrize("leave", WAYS)
def test_an_acceptor_that_stops_anywhere(
    start: Start, listeners: Callable[[], Listener], leave: Leave
) -> None:
    host = start(limits={"handshake_step_ms": STEP_MS})
    attempts, links = [], []
    at = 0
    while True:
        listener = listeners()
        attempt = host.begin_dialing(listener)
        link = acceptor_cut(listener, at)
        if link is None:
            break
        leave(link)
        attempts.append(attempt)
        links.append(link)
        at += 1
    assert at > 50
    host.until(lambda: all(attempt.done for attempt in attempts), "the end of all attempts")
    assert all(attempt.error is not None for attempt in attempts)
    if leave is not reset:
        assert {type(attempt.error) for attempt in attempts} == {HandshakeError}
    wait_for_ends(link for link in links if link.socket.fileno() >= 0)
    for link in links:
        link.close()


def test_an_acceptor_that_resets_at_once(host: Host) -> None:
    with Peer().listen() as listener:
        error = host.dials(listener, lambda link: link.reset())
    assert error is not None
    assert "reset" in str(error) or "closed" in str(error)


def test_each_step_has_a_time_of_its_own(start: Start) -> None:
    """A slow peer that goes on is not cut off: three steps take longer than one may."""
    host = start(limits={"handshake_step_ms": STEP_MS})
    peer = Peer()
    with Peer("clock@127.0.0.1").dial(host.port) as clock, peer.dial(host.port) as link:
        link.send(link.name_packet())
        assert link.hear_status() == "ok"
        heard = link.hear_challenge()
        assert clock.end() == "closed"  # one step's time has passed since both dialled
        link.send(link.reply_packet(heard.challenge))
        link.hear_ack()
        host.up(peer)
        host.flows(link)


def test_a_byte_now_and_then_is_silence(start: Start) -> None:
    """Time is given to steps, not to bytes: the connection ends though bytes keep coming."""
    host = start(limits={"handshake_step_ms": STEP_MS})
    with Peer().dial(host.port) as link:
        packet = link.name_packet()
        for at in range(8):
            with Peer().dial(host.port) as clock:
                link.send(packet[at : at + 1])
                clock.send(b"\0")
                wait_for_ends([link if at == 7 else clock])
            if at == 1:
                break
        wait_for_ends([link])
    host.logged("fell silent")


def many_descriptors(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))


def test_a_thousand_silent_connections(start: Start) -> None:
    many_descriptors(4096)
    host = start(limits={"handshake_step_ms": 1500})
    before = open_descriptors()
    silent_ones = [Peer().dial(host.port) for _ in range(1000)]
    with host.connected(Peer("real@127.0.0.1")) as link:
        host.flows(link)
        wait_for_ends(silent_ones)
        host.logged("fell silent during the handshake", 1000)
        host.flows(link)
    for one in silent_ones:
        one.close()
    host.until(lambda: open_descriptors() == before, "every descriptor closed")


def test_more_handshakes_than_there_may_be(start: Start) -> None:
    """Those beyond the limit are closed and logged; when the others' time is over, all is well."""
    host = start(limits={"handshakes_max": 8, "handshake_step_ms": STEP_MS})
    host.bystander = host.connected(Peer("bystander@127.0.0.1"))
    silent_ones = [Peer().dial(host.port) for _ in range(8)]
    # Accepted in order: when the ninth is closed, the eight are counted.
    refused = [Peer().dial(host.port) for _ in range(5)]
    wait_for_ends(refused)
    host.logged(r"refused a connection from an unknown node: .*handshakes_max", 5)
    host.others_go_on()
    wait_for_ends(silent_ones)
    host.connected(Peer()).close()
    for wire in silent_ones + refused:
        wire.close()


def test_a_flood_of_refusals_hides_no_connection(start: Start) -> None:
    """More news than the node keeps for a program that does not look: what matters is not lost."""
    many_descriptors(4096)
    host = start()
    for _ in range(4200):
        with Peer().dial(host.port) as link:
            link.send(b"\xff\xff")
            wait_for_ends([link])
    with Peer().listen() as listener:
        assert host.dials(listener, lambda link: link.admit()) is None
