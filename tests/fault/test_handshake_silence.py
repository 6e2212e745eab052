"""Peers that stop in the middle of the handshake: silent, gone, or reset, at every byte of it."""

from __future__ import annotations

import resource
import threading
from collections.abc import Callable

import pytest

from fault.conftest import Host, Start, open_sockets
from fault.peer import Atom, Link, Peer, short, wait_for_ends
from router import HandshakeError, RouterError

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


def initiator_cut(port: int, at: int) -> Link:
    """An initiator that says so many bytes of its part."""
    link = Peer(f"cut{at:03}@127.0.0.1").dial(port)
    name = link.name_packet()
    link.send(name[:at])
    if at >= len(name):
        assert link.hear_status() == "ok"
        link.send(link.reply_packet(link.hear_challenge().challenge)[: at - len(name)])
    return link


INITIATORS_BYTES = 2 + 15 + len("cut000@127.0.0.1") + 2 + 21


def acceptor_cut(link: Link, at: int) -> None:
    """An acceptor that says so many bytes of its part."""
    link.hear_name()
    first = short(b"sok") + link.challenge_packet()
    link.send(first[:at])
    if at >= len(first):
        link.send(link.ack_packet(link.hear_reply())[: at - len(first)])


ACCEPTORS_BYTES = 2 + 3 + 2 + 19 + len("cut000@127.0.0.1") + 2 + 17


@pytest.mark.parametrize("leave", WAYS)
def test_an_initiator_that_stops_anywhere(start: Start, leave: Leave) -> None:
    host = start(limits={"handshake_step_ms": STEP_MS})
    host.bystander = host.connected(Peer("bystander@127.0.0.1"))
    before = open_sockets()
    links = [initiator_cut(host.port, at) for at in range(INITIATORS_BYTES)]
    for link in links:
        leave(link)
    wait_for_ends(links)
    host.logged("refused a connection", len(links))
    if leave is silent:
        assert host.count("fell silent during the handshake") == len(links)
    elif leave is not reset:
        assert host.count("closed the connection during the handshake") == len(links)
    for link in links:
        link.close()
    assert open_sockets() == before
    assert not any("secret" in line for line in host.log.lines)
    host.others_go_on()


@pytest.mark.parametrize("leave", WAYS)
def test_an_acceptor_that_stops_anywhere(start: Start, leave: Leave) -> None:
    host = start(limits={"handshake_step_ms": STEP_MS})
    attempts, links = [], []
    for at in range(ACCEPTORS_BYTES):
        with Peer(f"cut{at:03}@127.0.0.1").listen() as listener:
            attempt, link = host.dials(listener)
        acceptor_cut(link, at)
        leave(link)
        attempts.append(attempt)
        links.append(link)
    errors = [host.outcome(attempt) for attempt in attempts]
    assert all(isinstance(error, RouterError) for error in errors)
    if leave is not reset:
        assert {type(error) for error in errors} == {HandshakeError}
    wait_for_ends(links)
    assert host.node.nodes() == []


def test_an_acceptor_that_resets_at_once(host: Host) -> None:
    error = host.meets(Peer(), lambda link: link.reset())
    assert isinstance(error, RouterError)
    assert "reset" in str(error) or "closed" in str(error)


def test_each_step_has_a_time_of_its_own(start: Start) -> None:
    """A slow peer that goes on is not cut off: its steps together take longer than one may."""
    host = start(limits={"handshake_step_ms": 900})
    clock = start("clock@127.0.0.1", limits={"handshake_step_ms": 600})
    peer = Peer()
    link = peer.dial(host.port)
    wait_for_ends([Peer().dial(clock.port)])
    link.send(link.name_packet())
    assert link.hear_status() == "ok"
    heard = link.hear_challenge()
    wait_for_ends([Peer().dial(clock.port)])
    link.send(link.reply_packet(heard.challenge))
    link.hear_ack()
    host.up(peer)
    host.flows(link)


def test_a_byte_now_and_then_is_silence(start: Start) -> None:
    """Time is given to steps, not to bytes."""
    host = start(limits={"handshake_step_ms": 400})
    clock = start("clock@127.0.0.1", limits={"handshake_step_ms": 200})
    early = Peer().dial(host.port)
    wait_for_ends([Peer().dial(clock.port)])
    late = Peer("late@127.0.0.1").dial(host.port)
    late.send(late.name_packet())
    assert late.hear_status() == "ok"
    early.send(early.name_packet()[:5])
    wait_for_ends([early, late])
    host.logged(f"{host.name}: refused", 2)
    refused = [line for line in host.log.lines if line.startswith(f"{host.name}: refused")]
    assert "an unknown node" in refused[0] and "late" in refused[1]


def many_descriptors(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))


def test_a_thousand_silent_connections(start: Start) -> None:
    many_descriptors(4096)
    host = start(limits={"handshake_step_ms": 1500})
    host.bystander = host.connected(Peer("bystander@127.0.0.1"))
    host.others_go_on()
    before = open_sockets()
    silent_ones = [Peer().dial(host.port) for _ in range(1000)]
    with host.connected(Peer("real@127.0.0.1")) as link:
        host.flows(link)
        wait_for_ends(silent_ones)
        host.logged("fell silent during the handshake", 1000)
        host.flows(link)
        for one in silent_ones:
            one.close()
        link.close()
        host.down(link.peer)
    assert open_sockets() == before


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
    host.connected(Peer())


def test_a_flood_of_refusals_hides_no_connection(start: Start) -> None:
    """The node keeps only so much news for a program that does not look. What strangers can cause
    at will must not take the place of what somebody waits for."""
    many_descriptors(4096)
    host = start()
    looking = threading.Event()
    with Peer().listen() as listener:
        attempt, link = host.dials(listener)
        host.loop.call_soon_threadsafe(looking.wait)
        link.hear_name()
        for _ in range(4200):
            with Peer().dial(host.port) as refused:
                refused.send(b"\xff\xff")
                wait_for_ends([refused])
        link.send(short(b"sok") + link.challenge_packet())
        link.send(link.ack_packet(link.hear_reply()))
        me, ref = link.peer.pid(), link.peer.ref(1)
        ping = (Atom("$gen_call"), (me, ref), (Atom("is_auth"), Atom(link.peer.name)))
        link.say((6, me, Atom(""), Atom("net_kernel")), ping)
        assert link.hear()[1] == (ref, "yes")  # the connection stands; the program has not looked
        looking.set()
        assert host.outcome(attempt) is None
    host.flows(link)
