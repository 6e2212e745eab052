"""Large packets in parts of any size: what comes of them is what comes of whole ones."""

from __future__ import annotations

import itertools
import random
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fault.conftest import ENGINES, Host
from fault.peer import PATIENCE_S, VERSION, Atom, Peer, bare, long

ME = Peer("large@127.0.0.1")
OTHER = Peer("other@127.0.0.1")
SIZES = (10, 300, 4000, 32700, 32768, 33000, 40000, 65000, 65536, 66500, 100000, 131000, 131100)

Term = tuple[bytes, int, bytes]


@pytest.fixture(params=ENGINES, ids=["loop", "threads"])
def driven(request: pytest.FixtureRequest) -> dict[str, Any]:
    return dict(request.param)


def normal(body: bytes) -> bytes:
    return long(VERSION + b"D\0" + body)


def fragment(sequence: int, left: int, body: bytes, *, first: bool) -> bytes:
    head = struct.pack(">QQ", sequence, left)
    return long(VERSION + (b"E" if first else b"F") + head + (b"\0" if first else b"") + body)


def to_box(peer: Peer) -> bytes:
    return bare((6, peer.pid(), Atom(""), Atom("box")))


class Talk:
    """What a peer says: packets that end messages in a known order."""

    def __init__(self, peer: Peer, seed: int) -> None:
        self.peer = peer
        self.random = random.Random(seed)
        self.packets: list[bytes] = []
        self.messages: list[Term] = []

    def compose(self, count: int) -> None:
        begun: list[tuple[Term, list[bytes]]] = []
        r = self.random
        for number in range(count):
            term = (self.peer.name.encode(), number, r.randbytes(50) * (r.choice(SIZES) // 50))
            if r.randrange(2):
                self.packets.append(normal(to_box(self.peer) + bare(term)))
                self.messages.append(term)
            else:
                begun.append((term, list(self.fragments(number, bare(term)))))
            if r.randrange(4) == 0:
                self.packets.append(long(b""))
            while len(begun) > 3 or (begun and number == count - 1):
                self.advance(begun)

    def advance(self, begun: list[tuple[Term, list[bytes]]]) -> None:
        at = self.random.randrange(len(begun))
        term, parts = begun[at]
        self.packets.append(parts.pop(0))
        if not parts:
            self.messages.append(term)
            del begun[at]

    def fragments(self, sequence: int, payload: bytes) -> Iterator[bytes]:
        cut = self.random.choice((len(payload) + 1, 1 + len(payload) // 2, 60000))
        parts = [payload[i : i + cut] for i in range(0, len(payload), cut)]
        for i, part in enumerate(parts):
            head = b"" if i else to_box(self.peer)
            yield fragment(sequence, len(parts) - i, head + part, first=i == 0)


def chunks(r: random.Random, data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        n = r.choice((1, 3, 5, 50, 100, 4095, 4096, 4100, 30000, 32800, 65536, 200000))
        yield data[at : at + n]
        at += n


@pytest.mark.parametrize("seed", range(3))
def test_parts_of_any_size(host: Host, seed: int) -> None:
    talks = [Talk(ME, seed), Talk(OTHER, seed + 100)]
    links = [host.connected(talk.peer) for talk in talks]
    for talk in talks:
        talk.compose(60)
    streams = [chunks(t.random, b"".join(t.packets)) for t in talks]
    for turn in itertools.zip_longest(*streams, fillvalue=b""):
        for link, chunk in zip(links, turn):
            link.send(chunk)
    came: dict[bytes, list[Any]] = {talk.peer.name.encode(): [] for talk in talks}
    for _ in range(sum(len(talk.messages) for talk in talks)):
        term = host.box.get(PATIENCE_S)
        came[term[0]].append(term)
    stats = host.node.stats()
    counted = dict(zip(stats["peer"], zip(stats["messages_in"], stats["bytes_in"])))
    for talk in talks:
        assert came[talk.peer.name.encode()] == talk.messages
        sizes = sum(len(p) for p in talk.packets if len(p) > 4)
        assert tuple(map(int, counted[talk.peer.name])) == (len(talk.messages), sizes)


Packets = Callable[[Peer], list[bytes]]
AWAITED: dict[str, Packets] = {
    "a message": lambda p: [normal(to_box(p) + bare(bytes(50000)))],
    "a first fragment": lambda p: [fragment(1, 2, to_box(p) + bytes(50000), first=True)],
    "a next fragment": lambda p: [
        fragment(1, 3, to_box(p) + b"m\0\1\0\0" + bytes(50000), first=True),
        fragment(1, 2, bytes(50000), first=False),
    ],
    "a larger packet": lambda p: [normal(to_box(p) + bare(bytes(200000)))],
}


@pytest.mark.parametrize("what", AWAITED)
@pytest.mark.parametrize("reset", [False, True])
def test_an_end_within_a_packet(host: Host, what: str, reset: bool) -> None:
    for have in (4, 5, 30, 200, 40000):
        link = host.connected(ME)
        data = b"".join(AWAITED[what](ME)[:-1]) + AWAITED[what](ME)[-1][:have]
        link.send(data)
        if reset:
            link.reset()
        else:
            link.finish()
            link.end()
        host.down(ME)
    host.flows(host.connected(ME))


def test_a_peer_that_comes_anew_within_a_packet(host: Host) -> None:
    for what in AWAITED.values():
        old = host.connected(ME)
        old.send(b"".join(what(ME))[:-100])
        new = ME.dial(host.port)
        new.join("alive")
        host.down(ME)
        host.up(ME)
        host.flows(new)
        new.reset()
        host.down(ME)
