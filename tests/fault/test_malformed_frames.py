"""What a connected peer may do wrong: each closes its own connection, and nothing else."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import pytest

from fault.conftest import Host, Start, open_sockets
from fault.peer import (
    MANDATORY,
    MODERN,
    VERSION,
    Atom,
    Flag,
    Link,
    Peer,
    bare,
    fragments,
    long,
)
from router.etf import Pid

ME = Peer("bad@127.0.0.1")
OLD = Peer("bad@127.0.0.1", flags=MANDATORY)
TO_BOX = bare((6, ME.pid(), Atom(""), Atom("box")))
FRAME_BYTES_MAX = 1 << 20
LIMITS = {
    "frame_bytes_max": FRAME_BYTES_MAX,
    "message_bytes_max": 4 << 20,
    "term_depth_max": 100,
    "fragments_in_flight_max": 4,
}


def normal(body: bytes, atoms: bytes = b"\0") -> bytes:
    return long(VERSION + b"D" + atoms + body)


def first(sequence: int, left: int, body: bytes, atoms: bytes = b"\0") -> bytes:
    return long(VERSION + b"E" + struct.pack(">QQ", sequence, left) + atoms + body)


def following(sequence: int, left: int, body: bytes) -> bytes:
    return long(VERSION + b"F" + struct.pack(">QQ", sequence, left) + body)


def passed(*terms: bytes) -> bytes:
    return long(b"p" + b"".join(VERSION + term for term in terms))


def control(*elements: Any) -> bytes:
    return bare(elements)


def nested(depth: int) -> bytes:
    return b"h\1" * depth + b"j"


def compressed(term: bytes) -> bytes:
    return b"P" + struct.pack(">I", len(term)) + zlib.compress(term)


def new_atoms(count: int, text: bytes, *, said: int | None = None, wide: bool = False) -> bytes:
    """The atom section of a header that brings `count` new atoms, all of that text."""
    nibbles = [0x8] * count + [1 if wide else 0]
    nibbles += [0] * (len(nibbles) % 2)
    flags = bytes(low | high << 4 for low, high in zip(nibbles[::2], nibbles[1::2]))
    length = struct.pack(">H" if wide else "B", len(text))
    refs = b"".join(bytes([i % 256]) + length + text for i in range(count))
    return bytes([count if said is None else said]) + flags + refs


MALFORMED = {
    # what a packet is
    "no frame": b"\0",
    "a version alone": VERSION,
    "an unknown kind": VERSION + b"C",
    "pass-through where headers were agreed on": b"p" + VERSION + TO_BOX + VERSION + b"a\1",
    "no control message": VERSION + b"D\0",
    # control messages
    "an unknown opcode": normal(control(99, ME.pid(), ME.pid()))[4:],
    "opcode 0": normal(control(0))[4:],
    "a huge opcode": normal(control(1 << 70))[4:],
    "a negative opcode": normal(control(-2))[4:],
    "an opcode that is no number": normal(control(Atom("send"), ME.pid()))[4:],
    "an empty tuple": normal(control())[4:],
    "a control message that is no tuple": normal(bare([2, b"", ME.pid()]))[4:],
    "an element too few": normal(control(2, Atom("")))[4:],
    "an element too many": normal(control(2, Atom(""), ME.pid(), 1) + b"j")[4:],
    "a destination that is no pid": normal(control(2, Atom(""), 5) + b"j")[4:],
    "a name that is no atom": normal(control(6, ME.pid(), Atom(""), b"box") + b"j")[4:],
    "a sender that is no pid": normal(control(22, Atom("me"), ME.pid()) + b"j")[4:],
    "a reference that is none": normal(control(19, ME.pid(), Atom("box"), 7))[4:],
    "an unlink id below zero": normal(control(35, -1, ME.pid(), ME.pid()))[4:],
    "an unlink id of 9 bytes": normal(control(35, 1 << 64, ME.pid(), ME.pid()))[4:],
    "a message without its payload": normal(TO_BOX)[4:],
    # terms
    "a payload cut": normal(TO_BOX + b"h\5a\1")[4:],
    "a control message cut": normal(TO_BOX[:-3])[4:],
    "an unknown tag": normal(TO_BOX + b"\xff")[4:],
    "a term too deep": normal(TO_BOX + nested(101))[4:],
    "a control message too deep": normal(b"h\3a\2" + nested(101) + bare(ME.pid()) + b"j")[4:],
    "a compressed payload": normal(TO_BOX + compressed(b"m\0\0\1\0" + bytes(256)))[4:],
    "a compressed control message": normal(compressed(TO_BOX) + b"j")[4:],
    "an atom of 256 characters": normal(TO_BOX + b"v\1\0" + b"a" * 256)[4:],
    "an atom that is not UTF-8": normal(TO_BOX + b"w\2\xc3\x28")[4:],
    "a reference of six words": normal(TO_BOX + b"Z\0\6w\3a@b" + bytes(28))[4:],
    "a claim of 2**32 elements": normal(TO_BOX + b"i\xff\xff\xff\xffj")[4:],
    "a claim of 2**32 bytes": normal(TO_BOX + b"m\xff\xff\xff\xffj")[4:],
    "NaN": normal(TO_BOX + b"F\x7f\xf8" + bytes(6))[4:],
    "infinity": normal(TO_BOX + b"F\x7f\xf0" + bytes(6))[4:],
    "a bit binary with nine bits": normal(TO_BOX + b"M\0\0\0\1\x09\0")[4:],
    "a term of the peer's own machine": normal(TO_BOX + b"y" + bytes(8) + b"j")[4:],
    "another version inside": normal(TO_BOX + VERSION + b"j")[4:],
    # atoms of the header
    "a reference beyond the header's": normal(TO_BOX + b"R\0")[4:],
    "a segment of the cache that is empty": VERSION + b"D" + b"\1\7\0" + TO_BOX + b"R\0",
    "an atom section cut": VERSION + b"D" + new_atoms(3, b"abc")[:-2],
    "flags cut": VERSION + b"D" + b"\xff\x88",
    "more references than flags": VERSION + b"D" + new_atoms(3, b"a", said=200) + TO_BOX + b"j",
    "a header's atom of 256 characters": VERSION
    + b"D"
    + new_atoms(1, b"a" * 256, wide=True)
    + TO_BOX
    + b"R\0",
    "a header's atom that is not UTF-8": VERSION + b"D" + new_atoms(1, b"\xff") + TO_BOX + b"R\0",
    # fragments
    "a continuation without a first": following(1, 1, b"abc")[4:],
    "fragment 0": first(1, 0, TO_BOX + b"j")[4:],
    "a continuation as fragment 0": following(1, 0, b"j")[4:],
    "a fragment cut": VERSION + b"E" + bytes(9),
    "a first fragment without a control message": first(1, 2, b"")[4:],
    "a control message split over fragments": first(1, 2, TO_BOX[:10])[4:] + b"",
}

SEQUENCES = {
    "fragments out of order": [first(1, 3, TO_BOX + b"m\0\0\0\4a"), following(1, 1, b"bcd")],
    "a fragment twice": [
        first(1, 4, TO_BOX + b"m\0\0\0\4a"),
        following(1, 3, b"b"),
        following(1, 3, b"c"),
    ],
    "a sequence begun twice": [first(1, 2, TO_BOX + b"h\1")] * 2,
    "a sequence continued after its end": [
        first(1, 2, TO_BOX + b"h\1"),
        following(1, 1, b"j"),
        following(1, 1, b"j"),
    ],
    "more sequences than there may be": [first(i, 2, TO_BOX + b"h\1") for i in range(5)],
    "more bytes than a message may have": [
        first(1, 9, TO_BOX + b"m\0\x90\0\0"),
        *[following(1, left, bytes(900_000)) for left in range(8, 2, -1)],
    ],
    "more bytes than all messages together may have": [
        *[first(i, 3, TO_BOX + b"m\0\x20\0\0" + bytes(1_040_000)) for i in range(4)],
        following(0, 2, bytes(300_000)),
    ],
    "a length of 4 GiB": [b"\xff\xff\xff\xff"],
    "a length one over the limit": [struct.pack(">I", FRAME_BYTES_MAX + 1)],
    "a control message split, then the rest": [
        first(1, 2, TO_BOX[:10]),
        following(1, 1, TO_BOX[10:] + b"j"),
    ],
    "a slot of the cache that is empty": [
        long(VERSION + b"D" + new_atoms(1, b"abc") + TO_BOX + b"R\0"),
        long(VERSION + b"D\1\0\1" + TO_BOX + b"R\0"),
    ],
    "atoms that grow a small frame into a large one": [
        long(VERSION + b"D" + new_atoms(1, "\u20ac".encode() * 255, wide=True) + TO_BOX + b"j"),
        long(VERSION + b"D\1\0\0" + TO_BOX + b"l\0\0\x20\0" + b"R\0" * 8192 + b"j"),
    ],
}
SEQUENCES |= {what: [long(packet)] for what, packet in MALFORMED.items()}

OLD_SEQUENCES = {
    "a header where none was agreed on": [normal(TO_BOX + b"j")],
    "a fragment where none was agreed on": [first(1, 1, TO_BOX + b"j")],
    "a control message without version": [long(b"p" + TO_BOX + VERSION + b"j")],
    "a payload without version": [long(b"p" + VERSION + TO_BOX + b"j")],
    "a payload that is a version alone": [long(b"p" + VERSION + TO_BOX + VERSION)],
    "no payload": [passed(TO_BOX)],
    "a reference into a cache": [passed(TO_BOX, b"R\0")],
    "a compressed payload": [passed(TO_BOX, compressed(b"m\0\0\1\0" + bytes(256)))],
    "a compressed control message": [passed(compressed(TO_BOX), b"j")],
    "pass-through alone": [long(b"p")],
    "an unknown opcode": [passed(control(99, ME.pid()))],
    "a control message cut": [passed(TO_BOX[:-1])],
    "a payload cut": [passed(TO_BOX, b"h\2j")],
    "a claim of 2**32 elements": [passed(b"i\xff\xff\xff\xffj")],
}


@pytest.fixture
def watched(start: Start) -> Host:
    host = start(limits=LIMITS)
    host.bystander = host.connected(Peer("bystander@127.0.0.1"))
    host.others_go_on()
    return host


RIGHT_AT_FIRST = {
    "a slot of the cache that is empty": "abc",
    "a sequence continued after its end": ([],),
    "atoms that grow a small frame into a large one": [],
}


def closes_that_alone(
    host: Host, peer: Peer, packets: list[bytes], delivered: object = None
) -> None:
    before = open_sockets()
    link = host.connected(peer)
    host.flows(link)
    for packet in packets[:-1]:
        link.send(packet)
    if delivered is not None:
        assert host.box.get(5) == delivered
    host.others_go_on()
    link.send(packets[-1])
    assert link.end() in ("closed", "reset")  # a reset when more was sent than was read
    host.down(peer)
    host.logged(f"connection with {peer.name} ended: (malformed|a limit)")
    link.close()
    host.others_go_on()
    assert open_sockets() == before
    again = host.connected(peer)
    host.flows(again)
    assert not host.box.waiting


@pytest.mark.parametrize("what", SEQUENCES)
def test_a_frame_that_closes_its_connection(watched: Host, what: str) -> None:
    closes_that_alone(watched, ME, SEQUENCES[what], RIGHT_AT_FIRST.get(what))


@pytest.mark.parametrize("what", OLD_SEQUENCES)
def test_a_pass_through_frame_that_closes_its_connection(watched: Host, what: str) -> None:
    closes_that_alone(watched, OLD, OLD_SEQUENCES[what])


RIGHT = {
    "a frame without atoms": [normal(TO_BOX + b"a\1")],
    "255 atoms": [long(VERSION + b"D" + new_atoms(255, b"ab") + TO_BOX + b"h\2R\0R\xfe")],
    "the longest atom": [
        long(VERSION + b"D" + new_atoms(1, "\u20ac".encode() * 255, wide=True) + TO_BOX + b"R\0")
    ],
    "a cached atom again": [
        long(VERSION + b"D" + new_atoms(1, b"abc") + TO_BOX + b"R\0"),
        long(VERSION + b"D\1\0\0" + TO_BOX + b"R\0"),
    ],
    "an atom that takes a slot over": [
        long(VERSION + b"D" + new_atoms(1, b"abc") + TO_BOX + b"R\0"),
        long(VERSION + b"D" + new_atoms(1, b"xyz") + TO_BOX + b"R\0"),
    ],
    "one fragment": [first(1, 1, TO_BOX + b"m\0\0\0\3abc")],
    "empty fragments": [
        first(1, 3, TO_BOX),
        following(1, 2, b""),
        following(1, 1, b"m\0\0\0\3abc"),
    ],
    "sequences that interleave": [
        first(1, 2, TO_BOX + b"m\0\0\0\4a"),
        first(2, 2, TO_BOX + b"m\0\0\0\4b"),
        following(1, 1, b"aaa"),
        following(2, 1, b"bbb"),
    ],
    "a sequence number again after its end": [first(1, 1, TO_BOX + b"j")] * 2,
    "bytes behind the payload": [normal(TO_BOX + b"a\1" + b"more")],
    "the deepest term": [normal(TO_BOX + nested(99))],
    "group leader": [normal(control(7, ME.pid(), ME.pid()) + b""), normal(TO_BOX + b"j")],
    "node link": [normal(control(5)), normal(TO_BOX + b"j")],
    "an unlink acknowledged that nobody asked for": [
        normal(control(36, 5, ME.pid(), ME.pid())),
        normal(TO_BOX + b"j"),
    ],
    "a pid of another node": [
        normal(control(2, Atom(""), Pid("x@y", 1, 2, 3)) + b"j"),
        normal(TO_BOX + b"j"),
    ],
    "ticks between fragments": [
        first(1, 2, TO_BOX + b"m\0\0\0\4a"),
        long(b""),
        following(1, 1, b"aaa"),
    ],
}
ARRIVES: dict[str, list[Any]] = {
    "a frame without atoms": [1],
    "255 atoms": [("ab", "ab")],
    "the longest atom": ["\u20ac" * 255],
    "a cached atom again": ["abc", "abc"],
    "an atom that takes a slot over": ["abc", "xyz"],
    "one fragment": [b"abc"],
    "empty fragments": [b"abc"],
    "sequences that interleave": [b"aaaa", b"bbbb"],
    "a sequence number again after its end": [[], []],
    "bytes behind the payload": [1],
    "ticks between fragments": [b"aaaa"],
}


@pytest.mark.parametrize("what", RIGHT)
@pytest.mark.parametrize("bytewise", [False, True], ids=["whole", "bytewise"])
def test_an_unusual_frame_that_is_right(watched: Host, what: str, bytewise: bool) -> None:
    link = watched.connected(ME)
    for packet in RIGHT[what]:
        if bytewise:
            link.send_bytewise(packet)
        else:
            link.send(packet)
    for term in ARRIVES.get(what, [None]):
        got = watched.box.get(5)
        assert term is None or got == term
    watched.flows(link)


# Half a message


BIG = b"m" + struct.pack(">I", 3000) + bytes(range(250)) * 12


def test_a_peer_that_dies_at_every_offset_of_a_fragmented_message(watched: Host) -> None:
    """Nothing of the message is delivered, and nothing of it stays behind."""
    whole = b"".join(fragments(9, TO_BOX, BIG[:40] + BIG[40:], [30, 1000, 1000, 2900]))
    offsets = [
        *range(1, 150),
        *range(150, len(whole) - 30, 97),
        *range(len(whole) - 30, len(whole)),
    ]
    before = open_sockets()
    for i, at in enumerate(offsets):
        link = watched.connected(ME)
        link.send(whole[:at])
        if i % 3 == 0:
            link.reset()
        elif i % 3 == 1:
            link.close()
        else:
            link.finish()
            assert link.end() == "closed"
            link.close()
        watched.down(ME)
    assert not watched.box.waiting
    assert open_sockets() == before
    link = watched.connected(ME)
    link.send(whole)
    assert watched.box.get(5) == BIG[5:]
    watched.others_go_on()


def test_half_a_message_does_not_outlive_its_connection(watched: Host) -> None:
    packets = fragments(5, TO_BOX, BIG, [100, 2000])
    link = watched.connected(ME)
    link.send(packets[0])
    watched.flows(link)
    link.close()
    watched.down(ME)
    link = watched.connected(ME)
    link.send(packets[1])
    assert link.end() in ("closed", "reset")
    watched.down(ME)
    watched.logged(f"connection with {ME.name} ended: malformed")


def test_cached_atoms_do_not_outlive_their_connection(watched: Host) -> None:
    link = watched.connected(ME)
    link.send(RIGHT["a cached atom again"][0])
    assert watched.box.get(5) == "abc"
    link.close()
    watched.down(ME)
    link = watched.connected(ME)
    link.send(RIGHT["a cached atom again"][1])
    assert link.end() in ("closed", "reset")
    watched.down(ME)


def test_as_many_sequences_as_there_may_be(watched: Host) -> None:
    link = watched.connected(ME)
    for i in range(4):
        link.send(first(i, 2, TO_BOX + b"h\1"))
    for i in range(4):
        link.send(following(i, 1, b"a" + bytes([i])))
    assert [watched.box.get(5) for _ in range(4)] == [(0,), (1,), (2,), (3,)]
    for i in range(4):  # their places are free again
        link.send(first(i, 2, TO_BOX + b"h\1"))
    watched.flows(link)


def test_a_frame_as_long_as_it_may_be(watched: Host) -> None:
    link = watched.connected(ME)
    room = FRAME_BYTES_MAX - 3 - len(TO_BOX) - 5
    link.send(normal(TO_BOX + b"m" + struct.pack(">I", room) + bytes(room)))
    assert watched.box.get(5) == bytes(room)
    watched.flows(link)


def test_what_came_before_a_malformed_frame_is_delivered(watched: Host) -> None:
    link = watched.connected(ME)
    good = [normal(TO_BOX + bare(i)) for i in range(5)]
    link.send(b"".join(good) + long(b"\0") + good[0])
    assert [watched.box.get(5) for _ in good] == [0, 1, 2, 3, 4]
    watched.down(ME)
    assert not watched.box.waiting


@pytest.mark.parametrize(
    "flags", [MODERN, MODERN & ~Flag.DIST_HDR_ATOM_CACHE], ids=["all", "no cache"]
)
def test_fragments_with_and_without_a_cache(watched: Host, flags: Flag) -> None:
    link = watched.connected(Peer("bad@127.0.0.1", flags=flags))
    link.send(b"".join(fragments(3, TO_BOX, BIG, [1, 2, 3])))
    assert watched.box.get(5) == BIG[5:]
    watched.flows(link)


def big_echo(link: Link, size: int) -> bytes:
    """Reads one message of the node's, put together by hand from its fragments."""
    parts: list[bytes] = []
    while True:
        body = link.long()
        if not body:
            continue
        assert body[:2] in (VERSION + b"E", VERSION + b"F")
        (left,) = struct.unpack(">Q", body[10:18])
        assert len(body) <= 66_000
        parts.append(body[19:] if body[1:2] == b"E" else body[18:])
        if left == 1:
            message = b"".join(parts)
            assert message.endswith(bytes(size))
            return message


def test_a_long_message_of_ours_is_cut(watched: Host) -> None:
    link = watched.connected(ME)
    watched.node.send(ME.pid(), bytes(500_000))
    assert len(big_echo(link, 500_000)) > 500_000
    watched.flows(link)
