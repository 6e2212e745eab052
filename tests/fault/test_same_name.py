"""Several connections under one name: at once, again, and by somebody who only says so."""

from __future__ import annotations

from typing import Any

import pytest

from fault.conftest import ENGINES, Host, Start
from fault.peer import Atom, Link, Peer, long, short, wait_for_ends

LOWER, HIGHER = "a@127.0.0.1", "z@127.0.0.1"


@pytest.fixture(params=ENGINES)
def driven(request: pytest.FixtureRequest) -> dict[str, Any]:
    return request.param


# Both connect at once


def both_dial(host: Host, listener_link: Link) -> Link:
    """The node's own attempt waits for its status; the peer's comes in."""
    heard = listener_link.hear_name()
    assert heard.name == host.name
    link = listener_link.peer.dial(host.port)
    link.send(link.name_packet())
    return link


def finish_joining(link: Link) -> None:
    link.send(link.reply_packet(link.hear_challenge().challenge))
    link.hear_ack()


def test_the_higher_name_says_nok_and_goes_on(host: Host) -> None:
    peer = Peer(LOWER)
    with peer.listen() as listener:
        attempt, ours = host.dials(listener)
        host.node.send(peer.pid(), Atom("waited"))
        theirs = both_dial(host, ours)
        assert theirs.hear_status() == "nok"
        assert theirs.end() == "closed"
        ours.send(short(b"sok_simultaneous") + ours.challenge_packet())
        ours.send(ours.ack_packet(ours.hear_reply()))
        assert ours.hear()[1] == "waited"
        host.up(peer)
        host.flows(ours)
        assert host.outcome(attempt) is None


def test_the_lower_name_says_ok_simultaneous(host: Host) -> None:
    peer = Peer(HIGHER)
    with peer.listen() as listener:
        attempt, ours = host.dials(listener)
        host.node.send(peer.pid(), Atom("waited"))
        theirs = both_dial(host, ours)
        assert theirs.hear_status() == "ok_simultaneous"
        ours.send(short(b"snok"))
        finish_joining(theirs)
        assert ours.end() in ("closed", "reset")  # a reset when nok was not read any more
        assert theirs.hear()[1] == "waited"
        host.up(peer)
        host.flows(theirs)
        assert host.outcome(attempt) is None


def test_ok_simultaneous_and_no_answer_to_ours(host: Host) -> None:
    """Our attempt is dropped when theirs stands, whatever became of it."""
    peer = Peer(HIGHER)
    with peer.listen() as listener:
        attempt, ours = host.dials(listener)
        theirs = both_dial(host, ours)
        assert theirs.hear_status() == "ok_simultaneous"
        finish_joining(theirs)
        assert ours.end() in ("closed", "reset")
        host.up(peer)
        host.flows(theirs)
        assert host.outcome(attempt) is None
    assert host.count("nodedown|ended") == 0


def test_their_attempt_fails_and_ours_goes_on(host: Host) -> None:
    """Somebody who only says that name must not end our attempt."""
    peer = Peer(HIGHER)
    with peer.listen() as listener:
        attempt, ours = host.dials(listener)
        theirs = both_dial(host, ours)
        assert theirs.hear_status() == "ok_simultaneous"
        theirs.close()
        host.logged(f"refused a connection from {peer.name}")
        ours.send(short(b"sok") + ours.challenge_packet())
        ours.send(ours.ack_packet(ours.hear_reply()))
        host.up(peer)
        host.flows(ours)
        assert host.outcome(attempt) is None


def test_nok_and_then_theirs(host: Host) -> None:
    """The peer answers nok before its own attempt has arrived: ours waits for it."""
    peer = Peer(HIGHER)
    with peer.listen() as listener:
        attempt, ours = host.dials(listener)
        host.node.send(peer.pid(), Atom("waited"))
        ours.hear_name()
        ours.send(short(b"snok"))
        assert ours.end() == "closed"
        theirs = peer.connect(host.port)
        assert theirs.hear()[1] == "waited"
        host.up(peer)
        assert host.outcome(attempt) is None


def test_nok_and_a_wrong_digest(start: Start) -> None:
    """After nok a stranger comes under that name: the wait goes on to its end, no longer."""
    host = start(limits={"handshake_step_ms": 200})
    peer = Peer(HIGHER)
    with peer.listen() as listener:
        attempt, ours = host.dials(listener)
        ours.hear_name()
        ours.send(short(b"snok"))
        assert ours.end() == "closed"
        stranger = Peer(HIGHER, cookie=b"wrong").dial(host.port)
        stranger.send(stranger.name_packet())
        assert stranger.hear_status() == "ok"
        stranger.send(stranger.reply_packet(stranger.hear_challenge().challenge))
        assert stranger.end() == "closed"
        assert host.outcome(attempt) is not None
    assert host.node.nodes() == []
    host.flows(host.connected(peer))


# Again, while the old connection stands


def test_alive_and_the_peer_goes_on(host: Host) -> None:
    peer = Peer()
    old = host.connected(peer)
    host.flows(old)
    again = peer.dial(host.port)
    again.join("alive")
    assert old.end() in ("closed", "reset")
    host.down(peer)
    host.up(peer)
    host.flows(again)
    assert host.node.nodes() == [peer.name]


def test_alive_and_the_peer_gives_up(host: Host) -> None:
    peer = Peer()
    old = host.connected(peer)
    again = peer.dial(host.port)
    again.send(again.name_packet())
    assert again.hear_status() == "alive"
    host.flows(old)
    again.send(short(b"sfalse"))
    assert again.end() == "closed"
    host.flows(old)
    assert not host.news.waiting


@pytest.mark.parametrize("answer", [b"smaybe", b"s", b"strue and more", b"true", b""])
def test_alive_and_rubbish(host: Host, answer: bytes) -> None:
    peer = Peer()
    old = host.connected(peer)
    again = peer.dial(host.port)
    again.send(again.name_packet())
    assert again.hear_status() == "alive"
    again.send(short(answer))
    assert again.end() == "closed"
    host.flows(old)


def test_alive_and_a_wrong_digest(host: Host) -> None:
    """Who cannot prove the name does not end the connection of who could."""
    old = host.connected(Peer("taken@127.0.0.1"))
    stranger = Peer("taken@127.0.0.1", cookie=b"wrong").dial(host.port)
    stranger.send(stranger.name_packet())
    assert stranger.hear_status() == "alive"
    stranger.send(short(b"strue"))
    stranger.send(stranger.reply_packet(stranger.hear_challenge().challenge))
    assert stranger.end() == "closed"
    host.flows(old)
    assert not host.news.waiting


def test_alive_and_silence(start: Start) -> None:
    host = start(limits={"handshake_step_ms": 100})
    peer = Peer()
    old = host.connected(peer)
    again = peer.dial(host.port)
    again.send(again.name_packet())
    assert again.hear_status() == "alive"
    assert again.end() == "closed"
    host.flows(old)


def test_a_bad_message_from_the_old_connection(host: Host) -> None:
    """While the new one is not up yet, and when it is: only the old one ends."""
    peer = Peer()
    old = host.connected(peer)
    again = peer.dial(host.port)
    again.send(again.name_packet())
    assert again.hear_status() == "alive"
    again.send(short(b"strue"))
    heard = again.hear_challenge()
    old.send(long(b"rubbish"))
    assert old.end() in ("closed", "reset")
    host.down(peer)
    again.send(again.reply_packet(heard.challenge))
    again.hear_ack()
    host.up(peer)
    host.flows(again)


def test_a_bad_message_in_the_moment_of_replacement(host: Host) -> None:
    peer = Peer()
    for _ in range(20):
        old = host.connected(peer)
        again = peer.dial(host.port)
        again.send(again.name_packet())
        assert again.hear_status() == "alive"
        again.send(short(b"strue"))
        reply = again.reply_packet(again.hear_challenge().challenge)
        old.send(long(b"rubbish"))
        again.send(reply)
        again.hear_ack()
        wait_for_ends([old])
        host.down(peer)
        host.up(peer)
        host.flows(again)
        again.close()
        host.down(peer)


def test_a_message_from_the_old_connection_is_not_lost_before_it_ends(host: Host) -> None:
    peer = Peer()
    old = host.connected(peer)
    again = peer.dial(host.port)
    again.send(again.name_packet())
    assert again.hear_status() == "alive"
    old.say((6, peer.pid(), Atom(""), Atom("box")), Atom("last words"))
    assert host.box.get(5) == "last words"
    again.send(short(b"strue"))
    finish_joining(again)
    host.flows(again)


def test_what_follows_the_reply_at_once_is_read(host: Host) -> None:
    """Before the old connection has ended, for who carries that may be another thread."""
    peer = Peer()
    old = host.connected(peer)
    for number in range(10):
        again = peer.dial(host.port)
        again.send(again.name_packet())
        assert again.hear_status() == "alive"
        again.send(short(b"strue"))
        reply = again.reply_packet(again.hear_challenge().challenge)
        again.send(reply + again.frame((6, peer.pid(), Atom(""), Atom("box")), number))
        again.hear_ack()
        assert host.box.get(5) == number
        wait_for_ends([old])
        old = again
    host.flows(old)


def test_a_peer_that_restarted(host: Host) -> None:
    """The new incarnation has another creation: what was for the old one is not for it."""
    old = host.connected(Peer("again@127.0.0.1", creation=1))
    ref = host.box.monitor(old.peer.pid())
    old.hear()
    again = Peer("again@127.0.0.1", creation=2).dial(host.port)
    again.join("alive")
    assert host.box.get(5) == ("DOWN", ref, "process", old.peer.pid(), "noconnection")
    host.flows(again)


# Somebody who only says the name


def test_a_silent_impostor_keeps_nobody_out(host: Host) -> None:
    peer = Peer("wanted@127.0.0.1")
    impostors = [Peer(peer.name, cookie=b"wrong").dial(host.port) for _ in range(3)]
    for impostor in impostors:
        impostor.send(impostor.name_packet())
        assert impostor.hear_status() == "ok"
    link = host.connected(peer)
    host.flows(link)
    for impostor in impostors:
        impostor.send(impostor.reply_packet(impostor.hear_challenge().challenge))
        assert impostor.end() == "closed"
    host.logged(f"refused a connection from {peer.name}: .*cookie", 3)
    host.flows(link)


def test_a_silent_impostor_does_not_end_our_attempt(host: Host) -> None:
    peer = Peer("wanted@127.0.0.1")
    with peer.listen() as listener:
        attempt, ours = host.dials(listener)
        host.node.send(peer.pid(), Atom("waited"))
        impostor = Peer(peer.name, cookie=b"wrong").dial(host.port)
        impostor.send(impostor.name_packet())
        assert impostor.hear_status() in ("ok_simultaneous", "ok")
        ours.admit()
        assert ours.hear()[1] == "waited"
        assert host.outcome(attempt) is None
    host.flows(ours)


def test_an_impostor_holds_up_nothing_that_is_sent(host: Host) -> None:
    """Messages for that name do not wait for somebody who has proved nothing."""
    peer = Peer("wanted@127.0.0.1")
    impostor = Peer(peer.name, cookie=b"wrong").dial(host.port)
    impostor.send(impostor.name_packet())
    assert impostor.hear_status() == "ok"
    with peer.listen() as listener:
        attempt, ours = host.dials(listener)
        host.node.send(peer.pid(), Atom("now"))
        ours.admit()
        assert ours.hear()[1] == "now"
        assert host.outcome(attempt) is None


def test_two_at_once_under_one_name(host: Host) -> None:
    """Both can prove it: the later one stands, as after a restart."""
    peer = Peer()
    one, two = peer.dial(host.port), peer.dial(host.port)
    for link in (one, two):
        link.send(link.name_packet())
        assert link.hear_status() == "ok"
    finish_joining(one)
    host.up(peer)
    finish_joining(two)
    assert one.end() in ("closed", "reset")
    host.down(peer)
    host.up(peer)
    host.flows(two)


def test_names_that_nobody_proved_are_forgotten(start: Start) -> None:
    """Else strangers could fill the table of peers, which is kept for good."""
    host = start(limits={"peers_max": 10})
    for i in range(30):
        stranger = Peer(f"stranger{i}@127.0.0.1", cookie=b"wrong").dial(host.port)
        stranger.send(stranger.name_packet())
        assert stranger.hear_status() == "ok"
        stranger.send(stranger.reply_packet(stranger.hear_challenge().challenge))
        assert stranger.end() == "closed"
    assert len(host.node.stats()) == 0
    host.flows(host.connected(Peer()))


def test_more_peers_than_there_may_be(start: Start) -> None:
    host = start(limits={"peers_max": 3})
    links = [host.connected(Peer()) for _ in range(3)]
    late = Peer().dial(host.port)
    late.send(late.name_packet())
    assert late.hear_status() == "not_allowed"
    assert late.end() == "closed"
    for link in links:
        host.flows(link)
    links[0].close()
    host.down(links[0].peer)
    host.connected(links[0].peer)
