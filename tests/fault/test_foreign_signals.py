"""Peers that end what is not theirs: a link or monitor with another node stays."""

from __future__ import annotations

import pytest

from fault.conftest import Host
from fault.peer import NOTHING, Atom, Link, Peer
from router import ExitSignal, Pid, Reference

SEND, LINK, EXIT, UNLINK, MONITOR, DEMONITOR, MONITOR_EXIT = 2, 1, 3, 4, 19, 20, 21
SPAWN_REQUEST, SPAWN_REPLY, UNLINK_ID, UNLINK_ID_ACK = 29, 31, 35, 36


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


@pytest.mark.parametrize(
    ("linked", "old", "new"), [(True, 13, 25), (False, 18, 27)], ids=["link", "exit"]
)
def test_an_exit_with_a_trace_token(
    host: Host, friend: Link, linked: bool, old: int, new: int
) -> None:
    """In the older form and in the newer one; the token is anything."""
    box, me = host.node.mailbox(), friend.peer.pid()
    box.trap_exit = True
    for control, reason in (((old, me, box.pid, (1, 2), Atom("old")), NOTHING),
                            ((new, me, box.pid, [b"token"]), Atom("new"))):  # fmt: skip
        if linked:
            box.link(me)
            friend.hear()
        friend.say(control, reason)
        assert box.get(5) == ("EXIT", me, "old" if reason is NOTHING else "new")


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


def spawn(peer: Peer, ref: Reference, from_: Pid, *options: Atom) -> tuple[object, ...]:
    return (SPAWN_REQUEST, ref, from_, from_, (Atom("m"), Atom("f"), 1), list(options))


def test_a_spawn_request(host: Host, friend: Link) -> None:
    """Whoever answers them gets it whole; the process then tells its end as it was asked to."""
    ref, me = friend.peer.ref(1, 2, 3), friend.peer.pid()
    friend.say(spawn(friend.peer, ref, me, Atom("monitor")), [b"x"])
    control, _ = friend.hear()
    assert control == (SPAWN_REPLY, ref, me, 0, Atom("notsup"))
    box, started = host.node.mailbox(), host.node.mailbox()
    box._take_spawn_requests()
    friend.say(spawn(friend.peer, ref, me, Atom("monitor")), [b"x"])
    assert box.get(5) == ("spawn_request", ref, me, ("m", "f", 1), ["monitor"], [b"x"])
    started._spawned(me, ref, 2)
    control, _ = friend.hear()
    assert control == (SPAWN_REPLY, ref, me, 2, started.pid)
    started.close("done")
    control, reason = friend.hear()
    assert control[3] == ref and "done" in (reason, control[-1])
    box._not_spawned(me, ref, "system_limit")
    assert friend.hear()[0] == (SPAWN_REPLY, ref, me, 0, Atom("system_limit"))
    box._take_spawn_requests(False)
    friend.say(spawn(friend.peer, ref, me), [])
    assert friend.hear()[0][4] == "notsup"


def test_a_spawn_request_in_anothers_name(host: Host, friend: Link, stranger: Link) -> None:
    """The answer, and the end of what it started, would go to who never asked."""
    box = host.node.mailbox()
    box._take_spawn_requests()
    stranger.say(spawn(stranger.peer, stranger.peer.ref(1, 2, 3), friend.peer.pid()), [])
    assert stranger.end() in ("closed", "reset")
    host.flows(friend)
    assert not box.waiting


def test_a_call_that_ends_alone(host: Host, friend: Link, stranger: Link) -> None:
    """One watcher is told of an end; the others, and the process itself, go on."""
    box = host.node.mailbox()
    mine, theirs = friend.peer.ref(1, 1, 1), stranger.peer.ref(2, 2, 2)
    friend.say((MONITOR, friend.peer.pid(), box.pid, mine))
    stranger.say((MONITOR, stranger.peer.pid(), box.pid, theirs))
    host.flows(friend)
    host.flows(stranger)
    assert not host.node.mailbox()._let_go(mine, Atom("failed"))  # another process's watcher
    assert box._let_go(mine, Atom("failed"))
    assert not box._let_go(mine, Atom("failed"))
    control, reason = friend.hear()
    assert control[3] == mine and "failed" in (reason, control[-1])
    assert not box.closed
    box.close("done")
    control, reason = stranger.hear()
    assert control[3] == theirs and "done" in (reason, control[-1])
    host.flows(friend)  # and no second time
