"""A peer of the tests' own, which keeps to the protocol only as far as a test wants.

It is written from the protocol's description (erl_dist_protocol) over a blocking socket and shares
no code with the node under test but the terms of router.etf. In both roles each step of the
handshake is a method, so that a test can leave one out, cut it or say something else.

    link = Peer("peer@127.0.0.1").connect(node.port)     # the initiator, connected
    link.say((22, pid, box.pid), Atom("hello"))
    control, payload = link.hear()
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import itertools
import select
import socket
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from router import etf
from router.etf import Atom, Pid, Reference

PATIENCE_S = 15.0
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
VERSION = b"\x83"
NOTHING = object()

_numbers = itertools.count(1)


class Flag(enum.IntFlag):
    PUBLISHED = 0x1
    EXTENDED_REFERENCES = 0x4
    DIST_MONITOR = 0x8
    FUN_TAGS = 0x10
    DIST_MONITOR_NAME = 0x20
    NEW_FUN_TAGS = 0x80
    EXTENDED_PIDS_PORTS = 0x100
    EXPORT_PTR_TAG = 0x200
    BIT_BINARIES = 0x400
    NEW_FLOATS = 0x800
    UNICODE_IO = 0x1000
    DIST_HDR_ATOM_CACHE = 0x2000
    SMALL_ATOM_TAGS = 0x4000
    UTF8_ATOMS = 0x10000
    MAP_TAG = 0x20000
    BIG_CREATION = 0x40000
    SEND_SENDER = 0x80000
    BIG_SEQTRACE_LABELS = 0x100000
    EXIT_PAYLOAD = 0x400000
    FRAGMENTS = 0x800000
    HANDSHAKE_23 = 0x1000000
    UNLINK_ID = 0x2000000
    MANDATORY_25_DIGEST = 0x4000000
    SPAWN = 1 << 32
    NAME_ME = 1 << 33
    V4_NC = 1 << 34
    ALIAS = 1 << 35
    ALTACT_SIG = 1 << 37


MANDATORY = (
    Flag.EXTENDED_REFERENCES
    | Flag.FUN_TAGS
    | Flag.NEW_FUN_TAGS
    | Flag.EXTENDED_PIDS_PORTS
    | Flag.EXPORT_PTR_TAG
    | Flag.BIT_BINARIES
    | Flag.NEW_FLOATS
    | Flag.UTF8_ATOMS
    | Flag.MAP_TAG
    | Flag.BIG_CREATION
    | Flag.HANDSHAKE_23
)
MODERN = (
    MANDATORY
    | Flag.DIST_MONITOR
    | Flag.DIST_MONITOR_NAME
    | Flag.UNICODE_IO
    | Flag.DIST_HDR_ATOM_CACHE
    | Flag.SMALL_ATOM_TAGS
    | Flag.SEND_SENDER
    | Flag.BIG_SEQTRACE_LABELS
    | Flag.EXIT_PAYLOAD
    | Flag.FRAGMENTS
    | Flag.UNLINK_ID
    | Flag.MANDATORY_25_DIGEST
    | Flag.SPAWN
    | Flag.V4_NC
    | Flag.ALIAS
)
HEADERS = Flag.DIST_HDR_ATOM_CACHE | Flag.FRAGMENTS


class EndedError(Exception):
    """The node closed the connection; the argument says how: `closed` or `reset`."""


class Name(NamedTuple):
    flags: Flag
    creation: int
    name: str


class Challenge(NamedTuple):
    flags: Flag
    challenge: int
    creation: int
    name: str


def digest(cookie: bytes, challenge: int) -> bytes:
    return hashlib.md5(cookie + str(challenge).encode()).digest()


def short(body: bytes) -> bytes:
    """A packet of the handshake."""
    return struct.pack(">H", len(body)) + body


def long(body: bytes) -> bytes:
    """A packet after the handshake."""
    return struct.pack(">I", len(body)) + body


def bare(term: Any) -> bytes:
    """A term without its version byte."""
    return etf.encode(term)[1:]


OPENED: list[socket.socket] = []
"""Every socket made here; the tests' fixtures close them after each test."""


def close_sockets() -> None:
    for sock in OPENED:
        sock.close()
    OPENED.clear()


class Wire:
    """Bytes to and from the node."""

    def __init__(self, sock: socket.socket) -> None:
        OPENED.append(sock)
        self.socket = sock
        sock.settimeout(PATIENCE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, data: bytes) -> None:
        try:
            self.socket.sendall(data)
        except ConnectionError as e:
            raise EndedError("reset") from e

    def send_bytewise(self, data: bytes) -> None:
        for i in range(len(data)):
            self.send(data[i : i + 1])

    def exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            try:
                part = self.socket.recv(count - len(data))
            except ConnectionError as e:
                raise EndedError("reset") from e
            if not part:
                raise EndedError("closed")
            data += part
        return data

    def short(self) -> bytes:
        return self.exactly(struct.unpack(">H", self.exactly(2))[0])

    def long(self) -> bytes:
        return self.exactly(struct.unpack(">I", self.exactly(4))[0])

    def end(self) -> str:
        """Waits until the node closes the connection; what it still said is thrown away."""
        try:
            while True:
                self.exactly(1)
        except EndedError as e:
            return str(e)

    def finish(self) -> None:
        """Sends no more."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.socket.close()

    def close(self) -> None:
        self.socket.close()


@dataclass
class Peer:
    """Who the tests' peer claims to be."""

    name: str = field(default_factory=lambda: f"peer{next(_numbers)}@127.0.0.1")
    cookie: bytes = b"secret"
    flags: Flag = MODERN
    creation: int = 77

    def pid(self, number: int = 90) -> Pid:
        return Pid(self.name, number, 0, self.creation)

    def ref(self, *words: int) -> Reference:
        return Reference(self.name, self.creation, words or (1, 2, 3))

    def dial(self, port: int) -> Link:
        """A connection on which nothing was said yet."""
        return Link(self, socket.create_connection(("127.0.0.1", port), PATIENCE_S))

    def connect(self, port: int) -> Link:
        """The initiator's part of the handshake, all of it."""
        link = self.dial(port)
        link.join()
        return link

    def listen(self) -> Listener:
        return Listener(self)


class Listener:
    """Where the node finds a peer that waits for it."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=128)
        OPENED.append(self.socket)
        self.socket.settimeout(PATIENCE_S)
        self.port: int = self.socket.getsockname()[1]

    def accept(self) -> Link:
        return Link(self.peer, self.socket.accept()[0])

    def admit(self) -> Link:
        """The acceptor's part of the handshake, all of it."""
        link = self.accept()
        link.admit()
        return link

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


class Link(Wire):
    """One connection of a peer with the node."""

    challenge = 0x01020304

    def __init__(self, peer: Peer, sock: socket.socket) -> None:
        super().__init__(sock)
        self.peer = peer
        self.common = Flag(0)

    # What a peer says during the handshake

    def name_packet(self) -> bytes:
        name = self.peer.name.encode()
        head = struct.pack(">cQIH", b"N", self.peer.flags, self.peer.creation, len(name))
        return short(head + name)

    def old_name_packet(self) -> bytes:
        low = self.peer.flags & 0xFFFFFFFF
        return short(struct.pack(">cHI", b"n", 5, low) + self.peer.name.encode())

    def complement_packet(self) -> bytes:
        return short(struct.pack(">cII", b"c", self.peer.flags >> 32, self.peer.creation))

    def challenge_packet(self) -> bytes:
        name = self.peer.name.encode()
        head = (b"N", self.peer.flags, self.challenge, self.peer.creation, len(name))
        return short(struct.pack(">cQIIH", *head) + name)

    def reply_packet(self, theirs: int) -> bytes:
        return short(b"r" + struct.pack(">I", self.challenge) + digest(self.peer.cookie, theirs))

    def ack_packet(self, theirs: int) -> bytes:
        return short(b"a" + digest(self.peer.cookie, theirs))

    # What it hears

    def hear_name(self) -> Name:
        body = self.short()
        tag, flags, creation, n = struct.unpack_from(">cQIH", body)
        assert tag == b"N" and body[15 + n :] == b"router\x02"  # to be ignored, says OTP's page
        self.common = self.peer.flags & Flag(flags)
        return Name(Flag(flags), creation, body[15 : 15 + n].decode())

    def hear_status(self) -> str:
        body = self.short()
        assert body[:1] == b"s"
        return body[1:].decode()

    def hear_challenge(self) -> Challenge:
        body = self.short()
        tag, flags, challenge, creation, n = struct.unpack_from(">cQIIH", body)
        assert tag == b"N" and len(body) == 19 + n
        self.common = self.peer.flags & Flag(flags)
        return Challenge(Flag(flags), challenge, creation, body[19:].decode())

    def hear_reply(self) -> int:
        """Checks the node's digest and gives the challenge that it wants answered."""
        body = self.short()
        assert body[:1] == b"r" and body[5:] == digest(self.peer.cookie, self.challenge)
        return int(struct.unpack(">I", body[1:5])[0])

    def hear_ack(self) -> None:
        assert self.short() == b"a" + digest(self.peer.cookie, self.challenge)

    # Whole handshakes

    def join(self, status: str = "ok") -> None:
        self.send(self.name_packet())
        heard = self.hear_status()
        assert heard == status
        if status == "alive":
            self.send(short(b"strue"))
        self.send(self.reply_packet(self.hear_challenge().challenge))
        self.hear_ack()

    def admit(self, status: bytes = b"ok") -> None:
        self.hear_name()
        self.send(short(b"s" + status))
        if status == b"alive":
            assert self.hear_status() == "true"
        self.send(self.challenge_packet())
        self.send(self.ack_packet(self.hear_reply()))

    # Messages

    @property
    def header(self) -> bool:
        return bool(self.common & HEADERS)

    def frame(self, control: tuple[Any, ...], payload: Any = NOTHING) -> bytes:
        """A packet with its length, in the form that was agreed on."""
        parts = [etf.encode(control)] + ([] if payload is NOTHING else [etf.encode(payload)])
        if self.header:
            return long(VERSION + b"D\0" + b"".join(part[1:] for part in parts))
        return long(b"p" + b"".join(parts))

    def say(self, control: tuple[Any, ...], payload: Any = NOTHING) -> None:
        self.send(self.frame(control, payload))

    def tick(self) -> None:
        self.send(long(b""))

    def hear(self) -> tuple[tuple[Any, ...], Any]:
        """The next message, ticks left out: its control tuple, and its payload or NOTHING."""
        while not (body := self.long()):
            pass
        if not self.header:
            assert body[:1] == b"p"
            return split(body[1:], b"")
        assert body[:3] == VERSION + b"D\0", body[:24]
        return split(body[3:], VERSION)

    def hear_tick(self) -> None:
        assert self.long() == b""


def split(body: bytes, version: bytes) -> tuple[tuple[Any, ...], Any]:
    control, used = etf.decode_prefix(version + body)
    rest = body[used - len(version) :]
    return control, etf.decode(version + rest) if rest else NOTHING


def fragments(sequence: int, control: bytes, payload: bytes, cuts: Iterable[int]) -> list[bytes]:
    """The packets of a message cut before these offsets of its payload."""
    edges = [0, *cuts, len(payload)]
    parts = [payload[a:b] for a, b in zip(edges, edges[1:])]
    packets = []
    for left, part in zip(range(len(parts), 0, -1), parts):
        numbers = struct.pack(">QQ", sequence, left)
        if left == len(parts):
            packets.append(long(VERSION + b"E" + numbers + b"\0" + control + part))
        else:
            packets.append(long(VERSION + b"F" + numbers + part))
    return packets


def wait_for_ends(wires: Iterable[Wire], seconds: float = PATIENCE_S) -> None:
    """Waits until the node has closed every one of these connections that is open here."""
    poll = select.poll()
    waiting = {wire.socket.fileno(): wire for wire in wires if wire.socket.fileno() >= 0}
    for fd in waiting:
        poll.register(fd, select.POLLIN)
    deadline = time.monotonic() + seconds
    while waiting:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"{len(waiting)} connections are still open")
        for fd, _ in poll.poll(left * 1000):
            try:
                ended = not waiting[fd].socket.recv(65536)
            except ConnectionError:
                ended = True
            if ended:
                poll.unregister(fd)
                del waiting[fd]


__all__ = [
    "MANDATORY",
    "MODERN",
    "NOTHING",
    "OPENED",
    "Atom",
    "EndedError",
    "Flag",
    "Link",
    "Listener",
    "Peer",
    "Wire",
    "bare",
    "close_sockets",
    "digest",
    "fragments",
    "long",
    "short",
    "wait_for_ends",
]
