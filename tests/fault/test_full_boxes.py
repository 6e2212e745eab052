"""Bounded boxes that a peer fills: the box pays for it, not the connection, and signals pass."""

from __future__ import annotations

from typing import Any

import pytest

from fault.conftest import ENGINES, Host, Start
from fault.peer import Atom, Link, Peer
from router import ExitSignal, Limits
from router.mailbox import Mailbox

SEND, EXIT2, MONITOR_EXIT, SPAWN_REPLY, LINK, EXIT = 2, 8, 21, 31, 1, 3


@pytest.fixture(params=ENGINES)
def driven(request: pytest.FixtureRequest) -> dict[str, Any]:
    return request.param


@pytest.fixture
def host(start: Start) -> Host:
    return start(limits=Limits(signals_max=1))


@pytest.fixture
def link(host: Host) -> Link:
    host.bystander = host.connected(Peer("bystander@127.0.0.1"))
    return host.connected(Peer("filler@127.0.0.1"))


def overflowed(host: Host, link: Link, box: Mailbox, *taken: Any) -> None:
    """The box took these and was closed; both peers go on."""
    assert [box.get(5) for _ in taken] == list(taken)
    with pytest.raises(ExitSignal) as caught:
        box.get(5)
    assert caught.value.reason == "overflow"
    host.logged("full mailbox was closed")
    host.flows(link)
    host.others_go_on()


@pytest.mark.parametrize("overflow", ["drop", "close", "pause"])
@pytest.mark.parametrize("bound", ["limit", "limit_bytes"])
def test_a_signal_finds_room_in_a_full_box(
    host: Host, link: Link, overflow: str, bound: str
) -> None:
    box = host.node.mailbox(overflow=overflow, **{bound: 2 if bound == "limit" else 6})
    box.trap_exit = True
    for i in range(2):
        link.say((SEND, Atom(""), box.pid), i)
    me = link.peer.pid()
    link.say((EXIT2, me, box.pid, Atom("bye")))
    host.flows(link)
    assert [box.get(5) for _ in range(3)] == [0, 1, ("EXIT", me, "bye")]
    assert not (box.waiting or box.dropped or box.closed)


def test_a_message_too_many(host: Host, link: Link) -> None:
    box = host.node.mailbox(limit=1, overflow="close")
    for i in (1, 2):
        link.say((SEND, Atom(""), box.pid), i)
        host.flows(link)  # messages that come together are taken together, or not at all
    overflowed(host, link, box, 1)


@pytest.mark.parametrize("overflow", ["drop", "close", "pause"])
def test_an_exit_signal_too_many(host: Host, link: Link, overflow: str) -> None:
    box = host.node.mailbox(limit=1, overflow=overflow)
    box.trap_exit = True
    me = link.peer.pid()
    link.say((SEND, Atom(""), box.pid), 1)
    for _ in range(2):
        link.say((EXIT2, me, box.pid, Atom("bye")))
    host.flows(link)
    overflowed(host, link, box, 1, ("EXIT", me, "bye"))


def test_a_link_that_breaks(host: Host, link: Link) -> None:
    box = host.node.mailbox(limit=1, overflow="close")
    box.trap_exit = True
    one, two = link.peer.pid(), link.peer.pid(2)
    link.say((SEND, Atom(""), box.pid), 1)
    for pid in (one, two):
        link.say((LINK, pid, box.pid))
        link.say((EXIT, pid, box.pid, Atom("bye")))
    host.flows(link)
    overflowed(host, link, box, 1, ("EXIT", one, "bye"))


def test_news_of_an_end_too_many(host: Host, link: Link) -> None:
    box = host.node.mailbox(limit=1, overflow="close")
    me = link.peer.pid()
    refs = [box.monitor(me) for _ in range(2)]
    for _ in refs:
        link.hear()
    link.say((SEND, Atom(""), box.pid), 1)
    for ref in refs:
        link.say((MONITOR_EXIT, me, box.pid, ref, Atom("bye")))
    host.flows(link)
    overflowed(host, link, box, 1, ("DOWN", refs[0], "process", me, "bye"))


def test_news_of_a_lost_connection_too_many(host: Host, link: Link) -> None:
    """The signals that the end of a connection brings have to find room as well."""
    host.flows(link)
    boxes = [host.node.mailbox(limit=1, overflow="close") for _ in range(3)]
    one, two = link.peer.pid(), link.peer.pid(2)
    boxes[1].trap_exit = True
    for pid in (one, two):
        boxes[0].monitor(pid)
        boxes[1].link(pid)
        link.hear()
        link.hear()
    for box in boxes:
        link.say((SEND, Atom(""), box.pid), 1)
    host.flows(link)
    link.close()
    host.down(link.peer)
    for box in boxes[:2]:
        assert box.get(5) == 1
        assert box.get(5)[-1] == "noconnection"
        with pytest.raises(ExitSignal) as caught:
            box.get(5)
        assert caught.value.reason == "overflow"
    assert boxes[2].get(5) == 1 and not boxes[2].closed
    host.others_go_on()


def test_a_dropping_box(host: Host, link: Link) -> None:
    box = host.node.mailbox(limit=2, overflow="drop")
    for i in range(5):
        link.say((SEND, Atom(""), box.pid), i)
    host.flows(link)
    assert [box.get(5), box.get(5)] == [0, 1]
    assert box.dropped == 3 and not box.waiting and not box.closed
