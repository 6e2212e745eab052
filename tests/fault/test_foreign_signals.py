"""Peers that end what is not theirs: a link or monitor with another node stays."""

from __future__ import annotations

import pytest

from fault.conftest import Host
from fault.peer import Atom, Link, Peer
from router import ExitSignal

SEND, LINK, EXIT, UNLINK, MONITOR, DEMONITOR, MONITOR_EXIT = 2, 1, 3, 4, 19, 20, 21
SPAWN_REPLY, UNLINK_ID, UNLINK_ID_ACK = 31, 35, 36


@pytest.fixture
def friend(host: Host) -> Link:
    return host.connected(Peer("friend@127.0.0.1"))


@pytest.fixture
def stranger(host: Host) -> Link:
    return host.connected(Peer("stranger@127.0.0.1"))


def test_news_of_an_end(host: Host, friend: Link, stranger: Link) -> None:
    box, other = host.node.mailbox(), friend.peer.pid()
    ref = box.monitor(other)
    friend.hear()
    stranger.say((MONITOR_EXIT, other, box.pid, ref, Atom("forged")))
    host.flows(stranger)
    assert not box.waiting
    friend.say((MONITOR_EXIT, other, box.pid, ref, Atom("true")))
    assert box.get(5) == ("DOWN", ref, "process", other, True)


def test_news_of_a_local_end(host: Host, stranger: Link) -> None:
    box, other = host.node.mailbox(), host.node.mailbox()
    ref = box.monitor(other.pid)
    stranger.say((MONITOR_EXIT, other.pid, box.pid, ref, Atom("forged")))
    host.flows(stranger)
    assert not box.waiting
    other.close("done")
    assert box.get(5) == ("DOWN", ref, "process", other.pid, "done")


def test_the_end_of_a_monitor(host: Host, friend: Link, stranger: Link) -> None:
    box, me = host.node.mailbox(), friend.peer.pid()
    ref = friend.peer.ref(7, 7, 7)
    friend.say((MONITOR, me, box.pid, ref))
    host.flows(friend)
    stranger.say((DEMONITOR, me, box.pid, ref))
    host.flows(stranger)
    box.close("done")
    control, reason = friend.hear()
    assert control[0] in (MONITOR_EXIT, 28) and control[3] == ref
    assert "done" in (reason, control[-1])


def test_an_exit_of_a_link(host: Host, friend: Link, stranger: Link) -> None:
    box, other = host.node.mailbox(), friend.peer.pid()
    box.link(other)
    friend.hear()
    stranger.say((UNLINK, other, box.pid))
    stranger.say((EXIT, other, box.pid, Atom("forged")))
    stranger.say((UNLINK_ID, 1, other, box.pid))
    control, _ = stranger.hear()
    assert control[0] == UNLINK_ID_ACK
    host.flows(stranger)
    assert not box.closed
    friend.say((EXIT, other, box.pid, Atom("real")))
    with pytest.raises(ExitSignal) as caught:
        box.get(5)
    assert caught.value.reason == "real"


def test_an_answer_to_a_spawn_request(host: Host, friend: Link, stranger: Link) -> None:
    box = host.node.mailbox()
    ref = box._spawn_request(friend.peer.name, "m", "f", [], [])
    friend.hear()
    stranger.say((SPAWN_REPLY, ref, box.pid, 0, stranger.peer.pid()))
    host.flows(stranger)
    assert not box.waiting
    friend.say((SPAWN_REPLY, ref, box.pid, 0, friend.peer.pid()))
    assert box.get(5) == ("spawn_reply", ref, "ok", friend.peer.pid())


def test_a_monitor_of_another_box(host: Host, friend: Link) -> None:
    """Nor does a process of this node end another's."""
    box, meddler, other = host.node.mailbox(), host.node.mailbox(), friend.peer.pid()
    ref = box.monitor(other)
    assert friend.hear()[0][0] == MONITOR
    assert not meddler.demonitor(ref)
    friend.say((MONITOR_EXIT, other, box.pid, ref, Atom("end")))
    assert box.get(5)[1] == ref
