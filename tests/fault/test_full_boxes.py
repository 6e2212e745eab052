"""Bounded boxes that a peer fills: the box pays for it, not the connection."""

from __future__ import annotations

import pytest

from fault.conftest import Host
from fault.peer import Atom, Link, Peer
from router import ExitSignal
from router.mailbox import Mailbox

SEND, EXIT2, MONITOR_EXIT, SPAWN_REPLY, LINK, EXIT = 2, 8, 21, 31, 1, 3


@pytest.fixture
def link(host: Host) -> Link:
    host.bystander = host.connected(Peer("bystander@127.0.0.1"))
    return host.connected(Peer("filler@127.0.0.1"))


def overflowed(host: Host, link: Link, box: Mailbox) -> None:
    """The box took one message and was closed; both peers go on."""
    assert box.get(5) == 1
    with pytest.raises(ExitSignal) as caught:
        box.get(5)
    assert caught.value.reason == "overflow"
    host.logged("full mailbox was closed")
    host.flows(link)
    host.others_go_on()


def test_a_message_too_many(host: Host, link: Link) -> None:
    box = host.node.mailbox(limit=1, overflow="close")
    for i in (1, 2):
        link.say((SEND, Atom(""), box.pid), i)
        host.flows(link)  # messages that come together are taken together, or not at all
    overflowed(host, link, box)


def test_an_exit_signal_too_many(host: Host, link: Link) -> None:
    box = host.node.mailbox(limit=1, overflow="close")
    box.trap_exit = True
    link.say((SEND, Atom(""), box.pid), 1)
    link.say((EXIT2, link.peer.pid(), box.pid, Atom("bye")))
    host.flows(link)
    overflowed(host, link, box)


def test_a_link_that_breaks(host: Host, link: Link) -> None:
    box = host.node.mailbox(limit=1, overflow="close")
    box.trap_exit = True
    me = link.peer.pid()
    link.say((LINK, me, box.pid))
    link.say((SEND, Atom(""), box.pid), 1)
    link.say((EXIT, me, box.pid, Atom("bye")))
    host.flows(link)
    overflowed(host, link, box)


def test_news_of_an_end_too_many(host: Host, link: Link) -> None:
    box = host.node.mailbox(limit=1, overflow="close")
    me = link.peer.pid()
    ref = box.monitor(me)
    link.hear()
    link.say((SEND, Atom(""), box.pid), 1)
    link.say((MONITOR_EXIT, me, box.pid, ref, Atom("bye")))
    host.flows(link)
    overflowed(host, link, box)


def test_news_of_a_lost_connection_too_many(host: Host, link: Link) -> None:
    """The signals that the end of a connection brings have to find room as well."""
    host.flows(link)
    boxes = [host.node.mailbox(limit=1, overflow="close") for _ in range(3)]
    me = link.peer.pid()
    boxes[0].monitor(me)
    boxes[1].trap_exit = True
    boxes[1].link(me)
    link.hear()
    link.hear()
    for box in boxes:
        link.say((SEND, Atom(""), box.pid), 1)
    host.flows(link)
    link.close()
    host.down(link.peer)
    for box in boxes[:2]:
        assert box.get(5) == 1
        with pytest.raises(ExitSignal) as caught:
            box.get(5)
        assert caught.value.reason == "overflow"
    assert boxes[2].get(5) == 1 and not boxes[2].closed
    host.others_go_on()


def test_a_dropping_box(host: Host, link: Link) -> None:
    box = host.node.mailbox(limit=2, overflow="drop")
    box.trap_exit = True
    for i in range(5):
        link.say((SEND, Atom(""), box.pid), i)
    link.say((EXIT2, link.peer.pid(), box.pid, Atom("bye")))
    host.flows(link)
    assert [box.get(5), box.get(5)] == [0, 1]
    assert not box.waiting and not box.closed
