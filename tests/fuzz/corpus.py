"""The committed inputs of the fuzz targets: one file a target, `corpus/NAME.pack`.

    corpus.py unpack NAME FOLDER       write the inputs of a target as files
    corpus.py pack NAME FOLDER         make the pack of a folder's files anew
    corpus.py add NAME FILE...         put further inputs, such as a crash, into the pack
    corpus.py seed NAME FOLDER         write first inputs, made from tests/vectors

A pack is a run of inputs, each with its 32-bit length before it, the shortest first.
"""

from __future__ import annotations

import argparse
import hashlib
import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
VECTORS = HERE.parent / "vectors"
PACKED_BYTES_MAX = 200_000
INPUT_BYTES_MAX = 4096

Inputs = Iterable[bytes]


def pack_path(name: str) -> Path:
    return HERE / "corpus" / f"{name}.pack"


def read_pack(name: str) -> list[bytes]:
    path = pack_path(name)
    data = path.read_bytes() if path.exists() else b""
    found = []
    at = 0
    while at < len(data):
        (n,) = struct.unpack_from(">I", data, at)
        found.append(data[at + 4 : at + 4 + n])
        at += 4 + n
    return found


def write_pack(name: str, inputs: Inputs) -> None:
    ordered = sorted(set(inputs), key=lambda data: (len(data), data))
    packed = b"".join(struct.pack(">I", len(data)) + data for data in ordered)
    if len(packed) > PACKED_BYTES_MAX:
        sys.exit(f"{name}: {len(packed)} bytes; a pack has at most {PACKED_BYTES_MAX}")
    pack_path(name).parent.mkdir(exist_ok=True)
    pack_path(name).write_bytes(packed)
    print(f"{pack_path(name).relative_to(HERE)}: {len(ordered)} inputs, {len(packed)} bytes")


def write_files(folder: Path, inputs: Inputs) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for data in inputs:
        (folder / hashlib.sha1(data).hexdigest()).write_bytes(data)


def read_files(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()]


# First inputs


def vectors(file: str) -> Iterator[tuple[str, bytes]]:
    for line in (VECTORS / file).read_text().splitlines():
        name, _, text = line.partition("\t")
        try:
            yield name, bytes.fromhex(text.split("\t")[0])
        except ValueError:
            continue


def conversations() -> Iterator[tuple[str, list[bytes], list[bytes], list[bytes]]]:
    """Each direction of each: its name, its handshake, the other's handshake, its packets."""
    for file in ("dist_otp25.txt", "dist_otp28.txt"):
        ways = [(name, *split_stream(data)) for name, data in vectors(file)]
        for i, (name, handshake, packets) in enumerate(ways):
            yield name, handshake, ways[i ^ 1][1], packets


def split_stream(data: bytes) -> tuple[list[bytes], list[bytes]]:
    """The handshake's packets, with their lengths, and those after it, without."""
    handshake = []
    at = 0
    last = b"r" if data[2:3] == b"N" else b"a"
    while True:
        (n,) = struct.unpack_from(">H", data, at)
        handshake.append(data[at : at + 2 + n])
        at += 2 + n
        if handshake[-1][2:3] == last:
            break
    packets = []
    while at < len(data):
        (n,) = struct.unpack_from(">I", data, at)
        packets.append(data[at + 4 : at + 4 + n])
        at += 4 + n
    return handshake, packets


def piece(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


def pieces_up_to(packets: Inputs, limit: int) -> Iterator[bytes]:
    """Runs of packets from the beginning, which holds the new atoms, ever longer."""
    run = b""
    for packet in packets:
        if len(packet) > limit or len(run) + len(packet) > INPUT_BYTES_MAX:
            continue
        run += piece(packet)
        yield run


def seed_scan() -> Iterator[bytes]:
    for file in ("terms.txt", "refused.txt"):
        for _, data in vectors(file):
            term = data[1:] if data[:1] == b"\x83" else data
            if len(term) <= INPUT_BYTES_MAX:
                yield b"\1" + term
    for i in range(5):
        yield b"\1h\2R" + bytes([i]) + b"l\0\0\0\1R" + bytes([i]) + b"j"


def seed_handshake() -> Iterator[bytes]:
    for _name, ours, other, _packets in conversations():
        initiator = ours[0][2:3] == b"s"  # who answers a status is the acceptor
        source = other[-1][3:7] if initiator else other[1][11:15]
        for answer in range(5):
            yield bytes([initiator, answer]) + source + b"".join(ours)
        for end in range(1, len(ours)):
            yield bytes([initiator, 0]) + source + b"".join(ours[:end])
    old_name = b"n" + struct.pack(">HI", 5, 0x7DF7FBD) + b"first@127.0.0.1"
    complement = b"c" + struct.pack(">II", 0, 9)
    yield b"\0\0\0\0\0\1" + piece(old_name) + piece(complement)
    for status in (b"ok_simultaneous", b"alive", b"nok", b"not_allowed", b"named:"):
        yield b"\1\0\0\0\0\1" + piece(b"s" + status)
    for said in (b"true", b"false"):
        yield b"\0\4\0\0\0\1" + piece(old_name) + piece(b"s" + said)


def seed_frame() -> Iterator[bytes]:
    for name, _ours, _other, packets in conversations():
        header = 0 if "pass" in name else 1
        for run in list(pieces_up_to(packets, 1024))[::4]:
            yield bytes([header, 0]) + run
    yield b"\1\0" + fragments(b"h\3a\2w\0" + pid(90), b"m\0\0\0\4abcd")


def seed_epmd() -> Iterator[bytes]:
    def request(body: bytes) -> bytes:
        return piece(piece(body))

    alive = struct.pack(">BHBBHHH", 120, 4000, 77, 0, 6, 5, 3) + b"one\0\0"
    old = struct.pack(">BHBBHHH", 120, 4001, 72, 0, 5, 5, 3) + b"two\0\3abc"
    yield b"\0\0" + struct.pack(">BBI", 118, 0, 9)
    yield b"\0\0" + struct.pack(">BBH", 121, 0, 9)
    yield b"\0\0" + struct.pack(">BBHBBHHH", 119, 0, 4000, 77, 0, 6, 5, 3) + b"one\0\0"
    yield b"\1\0" + b"\0" + request(alive) + b"\1" + request(old) + b"\2" + request(b"zone")
    yield b"\1\0" + b"\0" + request(alive) + b"\1" + request(alive) + b"\2" + request(b"n")
    yield b"\1\0" + b"\0" + request(b"d") + b"\1" + request(b"k") + b"\2" + request(b"s")
    yield b"\1\0" + b"\x20" + request(alive) + b"\x30" + request(b"zown\0")


OURS, THEIRS = b"second@127.0.0.1", b"first@127.0.0.1"


def atom(text: bytes) -> bytes:
    return b"w" + bytes([len(text)]) + text


def pid(number: int, node: bytes = THEIRS) -> bytes:
    return b"X" + atom(node) + struct.pack(">III", number, 0, 5)


def ref(*words: int, node: bytes = OURS) -> bytes:
    head = b"Z" + struct.pack(">H", len(words)) + atom(node) + struct.pack(">I", 5)
    return head + b"".join(struct.pack(">I", word) for word in words)


def small(number: int) -> bytes:
    return bytes([97, number])


def control(op: int, *elements: bytes) -> bytes:
    return bytes([104, 1 + len(elements)]) + small(op) + b"".join(elements)


def fragments(head: bytes, payload: bytes) -> bytes:
    first, rest = payload[:3], payload[3:]
    numbers = struct.pack(">QQ", 7, 2), struct.pack(">QQ", 7, 1)
    return piece(b"\x83\x45" + numbers[0] + b"\0" + head + first) + piece(
        b"\x83\x46" + numbers[1] + rest
    )


PACK = 0x80  # several payloads follow: RT_OP_PACK


def inbound_messages() -> Iterator[tuple[bytes, bytes]]:
    """Control message and payload for each opcode, as fuzz_inbound.c knows the node."""
    peer, term, empty = pid(90), b"h\2" + atom(b"hi") + pid(90), atom(b"")
    tag = b"h\2" + peer + ref(9, node=THEIRS)
    is_auth = b"h\2" + atom(b"is_auth") + atom(THEIRS)
    ping = b"h\3" + atom(b"$gen_call") + tag + is_auth
    yield control(6, peer, empty, atom(b"net_kernel")), ping
    for name in (b"box", b"bounded", b"paused", b"nobody"):
        yield control(6, peer, empty, atom(name)), term
        yield control(16, peer, empty, atom(name), b"j"), term
    for number in (1, 2, 3, 4, 5, 6):
        to = pid(number, OURS)
        normal, reason = atom(b"normal"), atom(b"kill" if number % 2 else b"bye")
        yield control(1, peer, to), b""
        yield control(2, empty, to), term
        yield control(22, peer, to), term
        yield control(23, peer, to, b"j"), term
        yield control(3, peer, to, reason), b""
        yield control(8, peer, to, normal), b""
        yield control(8, peer, to, reason), b""
        yield control(13, peer, to, b"j", reason), b""
        yield control(24, peer, to), reason
        yield control(26, peer, to), reason
        yield control(19, peer, to, ref(7, 7, node=THEIRS)), b""
        yield control(20, peer, to, ref(7, 7, node=THEIRS)), b""
        yield control(4, peer, to), b""
        yield control(35, small(3), peer, to), b""
        yield control(36, small(3), peer, to), b""
        yield control(37, small(0), peer, to), term
        yield control(37, small(16), peer, to), reason
    yield control(19, peer, atom(b"watched"), ref(8, 8, node=THEIRS)), b""
    yield control(19, peer, atom(b"missing"), ref(8, 9, node=THEIRS)), b""
    yield control(22, peer, pid(4, b"other@127.0.0.1")), term
    for word in (1, 2, 3, 4, 5):
        to = pid(1, OURS)
        yield control(33, peer, ref(word)), term
        yield control(34, peer, ref(word), b"j"), term
        yield control(37, small(4), peer, ref(word)), term
        yield control(21, pid(91), to, ref(word), atom(b"noproc")), b""
        yield control(28, pid(91), to, ref(word)), atom(b"noproc")
        yield control(31, ref(word), to, small(3), pid(92)), b""
        yield control(31, ref(word), to, small(0), atom(b"badarg")), b""
    members = b"".join([pid(1, OURS), pid(3, OURS), pid(4, OURS), pid(1)])
    for count in (4, 3):  # the second is no list of pids
        listed = b"l" + struct.pack(">I", count) + members + b"j"
        yield control(22, peer, pid(4, OURS)), b"h\3" + atom(b"multicast") + listed + term
    for to in (control(22 | PACK, peer, pid(1, OURS)), control(33 | PACK, peer, ref(2))):
        yield to, term + term + term
    yield control(6 | PACK, peer, empty, atom(b"bounded")), term + term + term + small(1)
    # Heads with places of their own within a pack, and a turn back to the first: RT_PACK_NEW.
    turns = b""
    for place, other in enumerate(
        (
            control(22 | PACK, peer, pid(3, OURS)),
            control(33 | PACK, peer, ref(3)),
            control(6 | PACK, peer, empty, atom(b"box")),
        )
    ):
        turns += bytes([32 + place]) + b"\x83\x44\0" + other + term
    yield (
        control(22 | PACK, peer, pid(1, OURS)),
        term + turns + bytes([0]) + term + term + bytes([2]) + term,
    )
    leader, mfa = pid(60), b"h\3" + atom(b"m") + atom(b"f") + small(0)
    yield control(29, ref(4, node=THEIRS), peer, leader, mfa, b"j"), b"j"
    yield control(37, small(8), peer, atom(b"box")), term
    yield control(7, peer, pid(1, OURS)), b""
    yield control(5), b""


def seed_inbound() -> Iterator[bytes]:
    everything, nothing, fragmented = b"\xff\0", b"\0\0", b"\xfe\0"
    modern, legacy = b"", b""
    for head, payload in inbound_messages():
        normal = piece(b"\x83\x44\0" + head + payload)
        passed = piece(b"\x70\x83" + head + (b"\x83" + payload if payload else b""))
        yield everything + normal
        yield nothing + passed
        if payload:
            yield fragmented + fragments(head, payload)
        modern, legacy = modern + normal, legacy + passed
        if len(modern) > 2000:
            yield everything + modern
            yield nothing + legacy
            modern = legacy = b""
    for name, _ours, _other, packets in conversations():
        options = nothing if "pass" in name else everything
        for run in list(pieces_up_to(packets, 1024))[::8]:
            yield options + run


def seed_codec() -> Iterator[bytes]:
    from fuzz import fuzz_codec

    return fuzz_codec.seeds(
        data for _, data in vectors("terms.txt") if len(data) <= INPUT_BYTES_MAX // 8
    )


SEEDS: dict[str, Callable[[], Iterator[bytes]]] = {
    "fuzz_codec": seed_codec,
    "fuzz_scan": seed_scan,
    "fuzz_handshake": seed_handshake,
    "fuzz_frame": seed_frame,
    "fuzz_epmd": seed_epmd,
    "fuzz_inbound": seed_inbound,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["unpack", "pack", "add", "seed"])
    parser.add_argument("name", choices=list(SEEDS))
    parser.add_argument("paths", type=Path, nargs="+")
    asked = parser.parse_args()
    if asked.what == "unpack":
        write_files(asked.paths[0], read_pack(asked.name))
    elif asked.what == "pack":
        write_pack(asked.name, read_files(asked.paths[0]))
    elif asked.what == "add":
        write_pack(asked.name, [*read_pack(asked.name), *(p.read_bytes() for p in asked.paths)])
    else:
        write_files(asked.paths[0], SEEDS[asked.name]())


if __name__ == "__main__":
    main()
