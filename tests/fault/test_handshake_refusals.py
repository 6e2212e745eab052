"""Peers that introduce themselves badly: who is refused, in both roles, and what is said of it."""

from __future__ import annotations

import struct

import pytest

from fault.conftest import Host, Start, open_sockets
from fault.peer import MANDATORY, MODERN, Flag, Link, Peer, long, short
from router import HandshakeError, NodeDown, NotAllowed, RouterError

EACH_MANDATORY = [pytest.param(flag, id=str(flag.name)) for flag in Flag if flag in MANDATORY]
SIMPLE = MODERN & ~Flag.MANDATORY_25_DIGEST  # the digest stands for the mandatory flags


def expect_refusal(host: Host, link: Link, pattern: str) -> None:
    assert link.end() == "closed"
    host.logged(f"refused a connection from .*: {pattern}")


# Flags


@pytest.mark.parametrize("flag", EACH_MANDATORY)
def test_a_missing_flag_of_an_initiator(host: Host, flag: Flag) -> None:
    with Peer(flags=SIMPLE & ~flag).dial(host.port) as link:
        link.send(link.name_packet())
        assert link.hear_status() == "not_allowed"
        expect_refusal(host, link, f"the peer lacks the mandatory flag .*{flag.name}")


@pytest.mark.parametrize("flag", EACH_MANDATORY)
def test_a_missing_flag_of_an_acceptor(host: Host, flag: Flag) -> None:
    def lacking(link: Link) -> None:
        link.hear_name()
        link.send(short(b"sok") + link.challenge_packet())
        assert link.end() == "closed"

    error = host.meets(Peer(flags=SIMPLE & ~flag), lacking)
    assert isinstance(error, HandshakeError)
    assert str(flag.name) in str(error)


def test_the_digest_flag_stands_for_all_that_are_mandatory(host: Host) -> None:
    peer = Peer(flags=Flag.MANDATORY_25_DIGEST | Flag.HANDSHAKE_23)
    with host.connected(peer) as link:
        host.flows(link)


def test_only_the_mandatory_flags(host: Host) -> None:
    with host.connected(Peer(flags=MANDATORY)) as link:
        assert not link.header
        host.flows(link)


# Cookies


def test_an_initiator_with_another_cookie(host: Host) -> None:
    with Peer(cookie=b"wrong").dial(host.port) as link:
        link.send(link.name_packet())
        assert link.hear_status() == "ok"
        link.send(link.reply_packet(link.hear_challenge().challenge))
        assert link.end() == "closed"  # without an acknowledgement
        host.logged(f"refused a connection from {link.peer.name}: .*cookie")
    assert not any("secret" in line or "wrong" in line for line in host.log.lines)


def test_an_acceptor_with_another_cookie(host: Host) -> None:
    def wrong(link: Link) -> None:
        link.hear_name()
        link.send(short(b"sok") + link.challenge_packet())
        reply = link.short()
        link.send(link.ack_packet(struct.unpack(">I", reply[1:5])[0]))
        assert link.end() == "closed"

    error = host.meets(Peer(cookie=b"wrong"), wrong)
    assert isinstance(error, HandshakeError)
    assert "cookie" in str(error)


def test_an_acceptor_that_hangs_up_on_our_digest(host: Host) -> None:
    def hang_up(link: Link) -> None:
        link.hear_name()
        link.send(short(b"sok") + link.challenge_packet())
        link.short()
        link.close()

    error = host.meets(Peer(), hang_up)
    assert isinstance(error, HandshakeError)
    assert "cookie" in str(error)


@pytest.mark.parametrize("changed", [0, 7, 15])
def test_one_wrong_byte_of_a_digest(host: Host, changed: int) -> None:
    with Peer().dial(host.port) as link:
        link.send(link.name_packet())
        assert link.hear_status() == "ok"
        reply = bytearray(link.reply_packet(link.hear_challenge().challenge))
        reply[7 + changed] ^= 1
        link.send(bytes(reply))
        expect_refusal(host, link, ".*cookie")


def test_each_connection_has_another_challenge(host: Host) -> None:
    seen = set()
    for _ in range(20):
        with Peer().dial(host.port) as link:
            link.send(link.name_packet())
            assert link.hear_status() == "ok"
            seen.add(link.hear_challenge().challenge)
    assert len(seen) == 20


# Packets that are none


@pytest.mark.parametrize(
    ("said", "pattern"),
    [
        pytest.param(short(b"N" * 2049), "malformed", id="longer than any handshake"),
        pytest.param(b"\xff\xff", "malformed", id="the longest length"),
        pytest.param(short(b""), "malformed", id="empty"),
        pytest.param(short(b"N"), "malformed", id="a tag alone"),
        pytest.param(short(b"X" * 40), "malformed", id="unknown tag"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n" * 200, "malformed", id="another protocol"),
        pytest.param(short(b"r" + bytes(20)), "malformed", id="the wrong step"),
        pytest.param(short(b"sok"), "malformed", id="the other role's step"),
        pytest.param(
            short(struct.pack(">cQIH", b"N", MODERN, 5, 300) + b"a@b"), "malformed", id="name cut"
        ),
    ],
)
def test_a_first_packet_that_is_none(host: Host, said: bytes, pattern: str) -> None:
    with Peer().dial(host.port) as link:
        link.send(said)
        assert link.end() in ("closed", "reset")  # a reset when more was sent than was read
        host.logged(f"refused a connection from .*: {pattern}")
    host.connected(Peer()).close()


@pytest.mark.parametrize(
    "name",
    [
        "",
        "nobody",
        "@host",
        "name@",
        "@",
        "a@b@c",
        "a b@c",
        "a\n@b",
        "a\x00@b",
        "a\x7f@b",
        "x" * 250 + "@12345",
    ],
)
@pytest.mark.parametrize("old", [False, True], ids=["N", "n"])
def test_a_name_that_is_none(host: Host, name: str, old: bool) -> None:
    with Peer(name).dial(host.port) as link:
        link.send(link.old_name_packet() if old else link.name_packet())
        expect_refusal(host, link, "malformed")
    assert len(host.node.stats()) == 0


def test_a_name_that_is_not_utf8(host: Host) -> None:
    with Peer().dial(host.port) as link:
        link.send(short(struct.pack(">cQIH", b"N", MODERN, 5, 4) + b"a@\xff\xfe"))
        expect_refusal(host, link, "malformed")


def test_the_longest_name(host: Host) -> None:
    """255 characters, which are up to four bytes each."""
    with host.connected(Peer("\U0001d11e" * 245 + "@127.0.0.1")) as link:
        host.flows(link)


def test_a_name_like_ours(host: Host) -> None:
    with Peer(host.name).dial(host.port) as link:
        link.send(link.name_packet())
        assert link.hear_status() == "not_allowed"
        assert link.end() == "closed"
        host.logged(f"refused a connection from {host.name}: the peer bears our own name")
    assert host.node.nodes() == []


def test_an_initiator_that_wants_a_name_given(host: Host) -> None:
    with Peer("127.0.0.1", flags=MODERN | Flag.NAME_ME).dial(host.port) as link:
        link.send(link.name_packet())
        assert link.hear_status() == "not_allowed"
        expect_refusal(host, link, ".*not allowed")


def test_an_acceptor_under_another_name(host: Host) -> None:
    """Who answers must be who was called: else messages would go to a stranger."""

    def stranger(link: Link) -> None:
        link.hear_name()
        link.peer = Peer("stranger@127.0.0.1")
        link.send(short(b"sok") + link.challenge_packet())
        assert link.end() == "closed"

    error = host.meets(Peer(), stranger)
    assert isinstance(error, HandshakeError)
    assert "another name" in str(error)
    assert host.node.nodes() == []


# What an acceptor may answer


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        pytest.param(short(b"snot_allowed"), NotAllowed, id="not_allowed"),
        pytest.param(short(b"srubbish"), HandshakeError, id="rubbish"),
        pytest.param(short(b"s"), HandshakeError, id="no status"),
        pytest.param(short(b"snamed:" + b"\0\3a@b" + bytes(4)), HandshakeError, id="named"),
        pytest.param(short(b"Nok"), HandshakeError, id="another tag"),
        pytest.param(short(b""), HandshakeError, id="empty"),
        pytest.param(short(b"s" * 3000), HandshakeError, id="oversized"),
        pytest.param(
            b"HTTP/1.1 400 Bad Request\r\n\r\n" * 100, HandshakeError, id="another protocol"
        ),
        pytest.param(long(b"sok"), HandshakeError, id="a length of four bytes"),
    ],
)
def test_a_status_that_ends_it(host: Host, answer: bytes, kind: type[RouterError]) -> None:
    def say(link: Link) -> None:
        link.hear_name()
        link.send(answer)
        assert link.end() in ("closed", "reset")

    peer = Peer()
    error = host.meets(peer, say)
    assert isinstance(error, kind), error
    assert peer.name in str(error)
    host.logged(f"cannot connect to {peer.name}: ")


def test_nok_from_a_peer_that_never_comes(start: Start) -> None:
    """It means that the peer's own attempt is under way; we wait for that one step's time."""
    host = start(limits={"handshake_step_ms": 100})

    def nok(link: Link) -> None:
        link.hear_name()
        link.send(short(b"snok"))
        assert link.end() == "closed"

    error = host.meets(Peer(), nok)
    assert isinstance(error, NodeDown)
    assert host.node.nodes() == []


@pytest.mark.parametrize("status", ["ok", "ok_simultaneous", "alive"])
def test_a_status_that_goes_on(host: Host, status: str) -> None:
    kept: list[Link] = []

    def admit(link: Link) -> None:
        link.admit(status.encode())
        host.up(link.peer)
        host.flows(link)
        kept.append(link)

    assert host.meets(Peer(), admit) is None
    assert kept


# Forms that are unusual and right


@pytest.mark.parametrize("flags", [MODERN, MANDATORY], ids=["modern", "mandatory"])
def test_the_old_name_with_its_complement(host: Host, flags: Flag) -> None:
    """OTP 23 and 24 introduce themselves so when no port mapper told them more."""
    peer = Peer(flags=flags)
    with peer.dial(host.port) as link:
        link.send(link.old_name_packet())
        assert link.hear_status() == "ok"
        heard = link.hear_challenge()
        link.send(link.complement_packet() + link.reply_packet(heard.challenge))
        link.hear_ack()
        host.up(peer)
        host.flows(link)


def test_an_old_name_without_its_complement(host: Host) -> None:
    with Peer().dial(host.port) as link:
        link.send(link.old_name_packet())
        assert link.hear_status() == "ok"
        link.send(link.reply_packet(link.hear_challenge().challenge))
        expect_refusal(host, link, "malformed")


def test_trailing_bytes_are_ignored(host: Host) -> None:
    def padded(packet: bytes) -> bytes:
        return short(packet[2:] + b"what a later release may add")

    peer = Peer()
    with peer.dial(host.port) as link:
        link.send(padded(link.name_packet()))
        assert link.hear_status() == "ok"
        link.send(padded(link.reply_packet(link.hear_challenge().challenge)))
        link.hear_ack()
        host.up(peer)
        host.flows(link)


def test_one_byte_at_a_time(host: Host) -> None:
    peer = Peer()
    with peer.dial(host.port) as link:
        link.send_bytewise(link.name_packet())
        assert link.hear_status() == "ok"
        link.send_bytewise(link.reply_packet(link.hear_challenge().challenge))
        link.hear_ack()
        link.send_bytewise(link.frame((6, peer.pid(), b"", host.box.name), 1))
        assert host.box.get(5) == 1


def test_the_first_packets_come_with_the_last_of_the_handshake(host: Host) -> None:
    """Lengths change from two bytes to four within one segment."""
    peer = Peer()
    with peer.dial(host.port) as link:
        link.send(link.name_packet())
        assert link.hear_status() == "ok"
        reply = link.reply_packet(link.hear_challenge().challenge)
        hello = [link.frame((6, peer.pid(), b"", host.box.name), i) for i in range(3)]
        link.send(reply + long(b"") + b"".join(hello) + hello[0][:7])
        link.hear_ack()
        assert [host.box.get(5) for _ in hello] == [0, 1, 2]
        link.send(hello[0][7:])
        assert host.box.get(5) == 0


def test_the_first_packets_come_with_an_acknowledgement(host: Host) -> None:
    def answer(link: Link) -> None:
        link.hear_name()
        link.send(short(b"sok") + link.challenge_packet())
        ack = link.ack_packet(link.hear_reply())
        link.send(ack + link.frame((6, link.peer.pid(), b"", host.box.name), "early"))
        assert host.box.get(5) == b"early"

    assert host.meets(Peer(), answer) is None


def test_status_and_challenge_in_one_segment(host: Host) -> None:
    def answer(link: Link) -> None:
        link.hear_name()
        link.send_bytewise(short(b"sok") + link.challenge_packet())
        link.send_bytewise(link.ack_packet(link.hear_reply()))
        host.flows(link)

    assert host.meets(Peer(), answer) is None


def test_refusals_leave_nothing_open(host: Host) -> None:
    with Peer("last@127.0.0.1").connect(host.port) as link:
        host.up(link.peer)
        before = open_sockets()
        for name in ("nobody", host.name):
            with Peer(name).dial(host.port) as bad:
                bad.send(bad.name_packet())
                bad.end()
        host.logged("refused a connection", 2)
        assert open_sockets() == before
        host.flows(link)
