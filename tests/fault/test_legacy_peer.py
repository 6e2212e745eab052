"""Peers with the mandatory flags alone: pass-through frames, and the older words for things."""

from __future__ import annotations

import asyncio
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from fault.conftest import Host
from fault.peer import MANDATORY, MODERN, NOTHING, Atom, Flag, Link, Peer, bare, long
from router import ExitSignal, RemoteError
from router.etf import Pid, Reference

LINK, SEND, EXIT, UNLINK, REG_SEND, EXIT2 = 1, 2, 3, 4, 6, 8
MONITOR, DEMONITOR, MONITOR_EXIT = 19, 20, 21
SEND_SENDER, PAYLOAD_EXIT, PAYLOAD_EXIT2, PAYLOAD_MONITOR_EXIT = 22, 24, 26, 28
SPAWN_REQUEST, SPAWN_REPLY, ALIAS_SEND, UNLINK_ID, UNLINK_ID_ACK = 29, 31, 33, 35, 36


@pytest.fixture
def old(host: Host) -> Link:
    return host.connected(Peer("old@127.0.0.1", flags=MANDATORY))


def with_only(host: Host, *flags: Flag) -> Link:
    wanted = MANDATORY
    for flag in flags:
        wanted |= flag
    return host.connected(Peer("old@127.0.0.1", flags=wanted))


def nothing_more(host: Host, link: Link) -> None:
    """Whatever the node had to say before was heard: the next thing is this."""
    host.node.send(link.peer.pid(), "fence")
    control, payload = link.hear()
    assert control[0] in (SEND, SEND_SENDER) and payload == b"fence"


# From the peer


def test_a_peer_sends(host: Host, old: Link) -> None:
    me = old.peer.pid()
    terms: list[Any] = [1, (Atom("a"), b"b", [1, 2]), {Atom("k"): me}, host.box.pid, -(1 << 90)]
    for term in terms:
        old.say((SEND, Atom(""), host.box.pid), term)
        old.say((REG_SEND, me, Atom(""), Atom("box")), term)
        assert host.box.get(5) == host.box.get(5) == term


def test_a_peer_sends_to_nobody(host: Host, old: Link) -> None:
    me = old.peer.pid()
    gone = host.node.mailbox()
    gone.close()
    old.say((REG_SEND, me, Atom(""), Atom("nobody")), 1)
    old.say((SEND, Atom(""), gone.pid), 2)
    old.say((SEND, Atom(""), Pid(host.name, 1 << 20, 0, host.node.creation)), 3)
    old.say((SEND, Atom(""), Pid(host.name, host.box.pid.id, 0, host.node.creation + 1)), 4)
    old.say((SEND, Atom(""), Pid("other@127.0.0.1", 1, 0, 1)), 5)
    host.flows(old)
    (row,) = host.node.stats()
    assert row["dropped_in"] == 5


def test_a_peer_exits_a_process(host: Host, old: Link) -> None:
    victim, sturdy = host.node.mailbox(), host.node.mailbox()
    sturdy.trap_exit = True
    me = old.peer.pid()
    for box in (victim, sturdy):
        old.say((EXIT2, me, box.pid, (Atom("because"), 5)))
    assert sturdy.get(5) == ("EXIT", me, ("because", 5))
    with pytest.raises(ExitSignal) as caught:
        victim.get(5)
    assert caught.value.reason == ("because", 5)
    old.say((EXIT2, me, sturdy.pid, Atom("kill")))
    with pytest.raises(ExitSignal) as caught:
        sturdy.get(5)
    assert caught.value.reason == "killed"


def test_a_peer_links_and_dies(host: Host, old: Link) -> None:
    box = host.node.mailbox()
    box.trap_exit = True
    me = old.peer.pid()
    old.say((LINK, me, box.pid))
    old.say((EXIT, me, box.pid, Atom("bye")))
    assert box.get(5) == ("EXIT", me, "bye")
    old.say((EXIT, me, box.pid, Atom("again")))  # there is no link any more
    host.flows(old)
    assert not box.waiting


def test_a_peer_links_and_unlinks(host: Host, old: Link) -> None:
    box = host.node.mailbox()
    me = old.peer.pid()
    old.say((LINK, me, box.pid))
    old.say((UNLINK, me, box.pid))
    host.flows(old)
    box.close(Atom("bye"))
    nothing_more(host, old)


def test_our_process_ends_and_a_linked_peer_is_told(host: Host, old: Link) -> None:
    box = host.node.mailbox()
    pid, me = box.pid, old.peer.pid()
    old.say((LINK, me, pid))
    host.flows(old)
    box.close(Atom("bye"))
    assert old.hear() == ((EXIT, pid, me, "bye"), NOTHING)


def test_a_peer_links_with_nobody(host: Host, old: Link) -> None:
    gone = host.node.mailbox()
    pid, me = gone.pid, old.peer.pid()
    gone.close()
    old.say((LINK, me, pid))
    assert old.hear() == ((EXIT, pid, me, "noproc"), NOTHING)


@pytest.mark.parametrize("by_name", [False, True], ids=["pid", "name"])
def test_a_peer_watches(host: Host, old: Link, by_name: bool) -> None:
    box = host.node.mailbox("watched")
    target = Atom("watched") if by_name else box.pid
    me, ref = old.peer.pid(), old.peer.ref(1, 2, 3)
    old.say((MONITOR, me, target, ref))
    host.flows(old)
    box.close(Atom("bye"))
    assert old.hear() == ((MONITOR_EXIT, target, me, ref, "bye"), NOTHING)
    old.say((MONITOR, me, target, ref))
    assert old.hear() == ((MONITOR_EXIT, target, me, ref, "noproc"), NOTHING)


def test_a_peer_watches_no_more(host: Host, old: Link) -> None:
    box = host.node.mailbox()
    me, ref = old.peer.pid(), old.peer.ref(1)
    old.say((MONITOR, me, box.pid, ref))
    old.say((DEMONITOR, me, box.pid, ref))
    host.flows(old)
    box.close()
    nothing_more(host, old)


def test_a_peer_asks_for_a_process(host: Host, old: Link) -> None:
    """Without SPAWN there is no word to refuse it with either; nothing is said."""
    me = old.peer.pid()
    mfa = (Atom("m"), Atom("f"), 0)
    old.say((SPAWN_REQUEST, old.peer.ref(5), me, me, mfa, []), [])
    nothing_more(host, old)
    with host.connected(Peer(flags=MANDATORY | Flag.SPAWN)) as newer:
        me, ref = newer.peer.pid(), newer.peer.ref(5)
        newer.say((SPAWN_REQUEST, ref, me, me, mfa, []), [])
        assert newer.hear() == ((SPAWN_REPLY, ref, me, 0, "notsup"), NOTHING)


def old_bytes(pid: Pid) -> bytes:
    """A pid as it was written before UTF-8: with an atom of tag 100."""
    node = str(pid.node).encode()
    numbers = struct.pack(">III", pid.id, pid.serial, pid.creation)
    return b"X" + b"d" + struct.pack(">H", len(node)) + node + numbers


@pytest.mark.parametrize(
    "said", [SPAWN_REPLY, EXIT], ids=["the new form first", "the old form first"]
)
def test_a_pid_is_the_same_in_every_form(host: Host, said: int) -> None:
    """A process is started and linked under one form of its pid, and dies under the other."""
    link = with_only(host, Flag.SPAWN)
    box = host.node.mailbox()
    box.trap_exit = True
    started = link.peer.pid(123)
    ref = box._spawn_request(link.peer.name, "m", "f", [], [Atom("link")])
    control, _ = link.hear()
    assert control[:2] == (SPAWN_REQUEST, ref)
    forms = {SPAWN_REPLY: bare(started), EXIT: bare(started)}
    forms[EXIT if said == SPAWN_REPLY else SPAWN_REPLY] = old_bytes(started)
    reply = b"h\5a\x1f" + bare(ref) + bare(box.pid) + b"a\1" + forms[SPAWN_REPLY]
    death = b"h\4a\3" + forms[EXIT] + bare(box.pid) + bare(Atom("bye"))
    link.send(long(b"p\x83" + reply) + long(b"p\x83" + death))
    assert box.get(5) == ("spawn_reply", ref, "ok", started)
    assert box.get(5) == ("EXIT", started, "bye")


def test_a_name_is_the_same_in_every_form(host: Host, old: Link) -> None:
    """Latin-1 and UTF-8, for messages as for monitors."""
    box = host.node.mailbox("h\xe9llo")
    me, ref = old.peer.pid(), old.peer.ref(3)
    latin1 = b"s\5h\xe9llo"
    to_name = b"h\4a\6" + bare(me) + bare(Atom("")) + latin1
    old.send(long(b"p\x83" + to_name + b"\x83a\1"))
    assert box.get(5) == 1
    old.send(long(b"p\x83" + b"h\4a\x13" + bare(me) + latin1 + bare(ref)))
    host.flows(old)
    box.close(Atom("bye"))
    (op, target, watcher, told, reason), _ = old.hear()
    assert (op, target, watcher, told, reason) == (MONITOR_EXIT, "h\xe9llo", me, ref, "bye")


# To the peer


def test_sending_leaves_the_sender_out(host: Host, old: Link) -> None:
    me = old.peer.pid()
    host.node.send(me, (Atom("x"), [1.5, None]), sender=host.box)
    assert old.hear() == ((SEND, "", me), ("x", [1.5, None]))
    host.node.send(("proc", old.peer.name), b"y", sender=host.box)
    assert old.hear() == ((REG_SEND, host.box.pid, "", "proc"), b"y")


def test_sending_names_the_sender_where_that_is_known(host: Host) -> None:
    link = with_only(host, Flag.SEND_SENDER)
    assert not link.header
    me = link.peer.pid()
    host.node.send(me, 1, sender=host.box)
    assert link.hear() == ((SEND_SENDER, host.box.pid, me), 1)


def test_a_message_to_an_alias_cannot_be_said(host: Host, old: Link) -> None:
    alias = old.peer.ref(1, 2, 3)
    host.node.send(alias, 1)
    nothing_more(host, old)
    (row,) = host.node.stats()
    assert row["dropped_out"] == 1


def test_a_message_to_an_alias_where_that_is_known(host: Host) -> None:
    link = with_only(host, Flag.ALIAS)
    alias = link.peer.ref(1, 2, 3)
    host.node.send(alias, 1, sender=host.box)
    assert link.hear() == ((ALIAS_SEND, host.box.pid, alias), 1)


def test_an_exit_has_its_reason_inside(host: Host, old: Link) -> None:
    me = old.peer.pid()
    host.box.exit(me, (Atom("because"), 5))
    assert old.hear() == ((EXIT2, host.box.pid, me, ("because", 5)), NOTHING)
    box = host.node.mailbox()
    box.link(me)
    assert old.hear() == ((LINK, box.pid, me), NOTHING)
    pid = box.pid
    box.close(Atom("bye"))
    assert old.hear() == ((EXIT, pid, me, "bye"), NOTHING)


def test_an_exit_has_its_reason_as_payload_where_that_is_known(host: Host) -> None:
    link = with_only(host, Flag.EXIT_PAYLOAD)
    me = link.peer.pid()
    host.box.exit(me, Atom("because"))
    assert link.hear() == ((PAYLOAD_EXIT2, host.box.pid, me), "because")
    box = host.node.mailbox()
    pid, ref = box.pid, link.peer.ref(4)
    link.say((LINK, me, pid))
    link.say((MONITOR, me, pid, ref))
    host.flows(link)
    box.close(Atom("bye"))
    assert [link.hear(), link.hear()] == [
        ((PAYLOAD_EXIT, pid, me), "bye"),
        ((PAYLOAD_MONITOR_EXIT, pid, me, ref), "bye"),
    ]


def test_unlinking_has_no_number(host: Host, old: Link) -> None:
    me = old.peer.pid()
    host.box.link(me)
    host.box.unlink(me)
    assert old.hear() == ((LINK, host.box.pid, me), NOTHING)
    assert old.hear() == ((UNLINK, host.box.pid, me), NOTHING)


def test_unlinking_has_a_number_where_that_is_known(host: Host) -> None:
    link = with_only(host, Flag.UNLINK_ID)
    me = link.peer.pid()
    host.box.link(me)
    host.box.unlink(me)
    assert link.hear() == ((LINK, host.box.pid, me), NOTHING)
    (op, number, ours, theirs), _ = link.hear()
    assert (op, ours, theirs) == (UNLINK_ID, host.box.pid, me) and number > 0
    link.say((UNLINK_ID, 1 << 63, me, host.box.pid))
    assert link.hear() == ((UNLINK_ID_ACK, 1 << 63, host.box.pid, me), NOTHING)


def test_watching_a_process_of_the_peer(host: Host, old: Link) -> None:
    me = old.peer.pid()
    by_pid = host.box.monitor(me)
    assert old.hear() == ((MONITOR, host.box.pid, me, by_pid), NOTHING)
    by_name = host.box.monitor(("proc", old.peer.name))
    assert old.hear() == ((MONITOR, host.box.pid, "proc", by_name), NOTHING)
    old.say((MONITOR_EXIT, me, host.box.pid, by_pid, Atom("bye")))
    assert host.box.get(5) == ("DOWN", by_pid, "process", me, "bye")
    old.say((MONITOR_EXIT, Atom("proc"), host.box.pid, by_name, Atom("noproc")))
    assert host.box.get(5) == ("DOWN", by_name, "process", ("proc", old.peer.name), "noproc")


def test_watching_no_more(host: Host, old: Link) -> None:
    me = old.peer.pid()
    ref = host.box.monitor(me)
    assert host.box.demonitor(ref)
    assert old.hear() == ((MONITOR, host.box.pid, me, ref), NOTHING)
    assert old.hear() == ((DEMONITOR, host.box.pid, me, ref), NOTHING)
    old.say((MONITOR_EXIT, me, host.box.pid, ref, Atom("late")))
    host.flows(old)
    assert not host.box.waiting


def test_a_linked_process_of_the_peer_dies(host: Host, old: Link) -> None:
    box = host.node.mailbox()
    box.trap_exit = True
    me = old.peer.pid()
    box.link(me)
    assert old.hear() == ((LINK, box.pid, me), NOTHING)
    old.say((EXIT, me, box.pid, Atom("bye")))
    assert box.get(5) == ("EXIT", me, "bye")


def test_the_connection_ends_under_relations(host: Host, old: Link) -> None:
    box = host.node.mailbox()
    box.trap_exit = True
    me = old.peer.pid()
    box.link(me)
    ref = box.monitor(me)
    old.hear(), old.hear()
    old.close()
    got = {box.get(5), box.get(5)}
    assert got == {
        ("EXIT", me, "noconnection"),
        ("DOWN", ref, "process", me, "noconnection"),
    }


def test_a_ping(host: Host, old: Link) -> None:
    """net_adm:ping is a call to net_kernel."""
    me, ref = old.peer.pid(), old.peer.ref(7)
    call = (Atom("$gen_call"), (me, ref), (Atom("is_auth"), Atom(old.peer.name)))
    old.say((REG_SEND, me, Atom(""), Atom("net_kernel")), call)
    assert old.hear() == ((SEND, "", me), (ref, "yes"))


def test_a_megabyte_in_one_frame(host: Host) -> None:
    """Nothing cuts it where there are no fragments."""
    link = with_only(host)
    host.node.send(link.peer.pid(), bytes(1 << 20))
    control, payload = link.hear()
    assert control[0] == SEND and payload == bytes(1 << 20)
    link.say((SEND, Atom(""), host.box.pid), bytes(1 << 20))
    assert host.box.get(5) == bytes(1 << 20)


def test_a_process_is_asked_for(host: Host, old: Link) -> None:
    """It has no word for that, and the asker is told, not left to wait."""
    box = host.node.mailbox()
    ref = box._spawn_request(old.peer.name, "m", "f", [], [])
    assert box.get(5) == ("spawn_reply", ref, "error", "notsup")
    assert host.node._relation_count() == 0
    nothing_more(host, old)


def test_a_process_was_asked_for_before_the_peer_was_up(host: Host) -> None:
    with Peer("old@127.0.0.1", flags=MANDATORY).listen() as listener:
        attempt, link = host.dials(listener)
        box = host.node.mailbox()
        ref = box._spawn_request(listener.peer.name, "m", "f", [], [])
        watch = box.monitor(listener.peer.pid())
        link.admit()
        assert host.outcome(attempt) is None
        assert box.get(5) == ("spawn_reply", ref, "error", "notsup")
        assert link.hear()[0][0] == MONITOR
        assert box.demonitor(watch)


def test_what_waited_is_said_in_the_peers_words(host: Host) -> None:
    """Messages from before the connection are rewritten when it stands."""
    peer = Peer("old@127.0.0.1", flags=MANDATORY)
    with peer.listen() as listener:
        _, link = host.dials(listener)
        for i in range(5):
            host.node.send(peer.pid(), i, sender=host.box)
        host.node.send(("proc", peer.name), bytes(100_000))
        link.admit()
        assert [link.hear() for _ in range(5)] == [((SEND, "", peer.pid()), i) for i in range(5)]
        assert link.hear()[1] == bytes(100_000)


@pytest.mark.parametrize("flag", [Flag.DIST_HDR_ATOM_CACHE, Flag.FRAGMENTS])
def test_either_kind_of_header_alone(host: Host, flag: Flag) -> None:
    link = with_only(host, flag)
    assert link.header
    host.flows(link)
    me = link.peer.pid()
    host.box.exit(me, Atom("bye"))
    assert link.hear() == ((EXIT2, host.box.pid, me, "bye"), NOTHING)


def test_a_modern_peer_may_use_the_old_words(host: Host) -> None:
    link = host.connected(Peer(flags=MODERN))
    me = link.peer.pid()
    box = host.node.mailbox()
    box.trap_exit = True
    link.say((SEND, Atom(""), box.pid), 1)
    link.say((LINK, me, box.pid))
    link.say((EXIT, me, box.pid, Atom("bye")))
    link.say((UNLINK, me, box.pid))
    assert [box.get(5), box.get(5)] == [1, ("EXIT", me, "bye")]


def test_a_reference_of_ours_as_alias(host: Host, old: Link) -> None:
    alias: Reference = host.box.alias()
    old.say((ALIAS_SEND, old.peer.pid(), alias), 5)
    assert host.box.get(5) == 5
    assert host.box.unalias(alias)
    old.say((ALIAS_SEND, old.peer.pid(), alias), 6)
    host.flows(old)
    assert not host.box.waiting


@pytest.mark.parametrize("asynchronous", [False, True], ids=["rpc_sync", "rpc"])
def test_a_function_is_called_as_before_erpc(host: Host, old: Link, asynchronous: bool) -> None:
    """No spawn requests: the server rex is asked, and its word for a failure understood."""
    node, peer = host.node, old.peer.name

    def call(*args: Any) -> Any:
        if asynchronous:
            return asyncio.run(node.rpc(peer, "m", "f", [*args], 10))
        return node.rpc_sync(peer, "m", "f", [*args], 10)

    with ThreadPoolExecutor(1) as pool:
        for answer in (7, (Atom("badrpc"), (Atom("EXIT"), (Atom("undef"), [])))):
            asked = pool.submit(call, 1, b"x")
            assert old.hear()[0][0] == MONITOR
            control, payload = old.hear()
            assert control[0] == REG_SEND and control[3] == "rex"
            tag, (from_, (alias)), request = payload
            assert tag == "$gen_call" and request[:4] == ("call", "m", "f", [1, b"x"])
            old.say((SEND, Atom(""), from_), (alias, answer))
            if answer == 7:
                assert asked.result(10) == 7
            else:
                with pytest.raises(RemoteError, match="undef"):
                    asked.result(10)
            assert old.hear()[0][0] == DEMONITOR
