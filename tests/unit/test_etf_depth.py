"""A term reads the same at any depth: the decoder fills shallow containers by functions that call
themselves, and deeper ones by a loop over frames."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from router import etf
from router.etf import Codec, DecodeError, FrozenList, Structs
from unit.test_etf_vectors import REFUSED, TERMS

SHALLOW = 16  # RT_DEC_NEST
KINDS = {  # a container of one: what stands before its value, and after
    "tuple": (b"h\x01", b""),
    "list": (b"l\0\0\0\x01", b"j"),
    "map": (b"t\0\0\0\x01a\0", b""),
}
CODECS = {
    "plain": Codec(),
    "str": Codec(binaries="str", strings="str", none="undefined"),
    "memoryview": Codec(binaries="memoryview"),
    "safe": Codec(safe=True),
    "structs": Codec(structs=Structs()),
}
BODIES = {name: data[1:] for name, data in {**TERMS, **REFUSED}.items() if data[:1] == b"\x83"}
# A compressed term stands at the top alone; some vectors are as deep as a term may be.
BODIES = {name: body for name, body in BODIES.items() if body[:1] != b"P" and "deep" not in name}


def read(codec: Codec, body: bytes, kind: str, depth: int) -> tuple[Any, int]:
    """The canonical bytes of the term and its length, or what is wrong and where in the body."""
    before, after = (piece * depth for piece in KINDS[kind])
    try:
        term, end = codec.decode_prefix(b"\x83" + before + body + after)
    except DecodeError as error:
        return error.args[0], error.offset - len(before)
    for _ in range(depth):
        term = term[0]
    return codec.encode(term), end - len(before) - len(after)


def damaged(body: bytes, rng: random.Random) -> Iterator[bytes]:
    """Cut at every byte, with each byte changed once."""
    for at in range(len(body)):
        if at:  # what is cut before it begins is the container's fault
            yield body[:at]
        yield body[:at] + bytes([body[at] ^ rng.randrange(1, 256)]) + body[at + 1 :]


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_term_is_the_same_at_any_depth(name: str, kind: str) -> None:
    codec = CODECS[name]
    for body in BODIES.values():
        alone = read(codec, body, kind, 0)
        if kind == "list" and isinstance(alone[0], str):
            continue  # what is cut goes on with the ends of the lists
        for depth in (1, SHALLOW - 2, SHALLOW - 1, SHALLOW, SHALLOW + 1, 2 * SHALLOW):
            assert read(codec, body, kind, depth) == alone


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("kind", ["tuple", "map"])
def test_a_damaged_term_is_the_same_at_any_depth(name: str, kind: str) -> None:
    codec, rng = CODECS[name], random.Random(kind)
    for body in BODIES.values():
        if len(body) > 600:
            continue
        for bad in damaged(body, rng):
            if bad[:1] != b"P":
                assert read(codec, bad, kind, SHALLOW + 1) == read(codec, bad, kind, 0)


IMPROPER = (b"l\0\0\0\x01", b"a\1")


@pytest.mark.parametrize("outer", KINDS)
@pytest.mark.parametrize("inner", [*KINDS, "improper"])
def test_max_depth_counts_the_shallow_and_the_deep(outer: str, inner: str) -> None:
    for limit in range(1, 3 * SHALLOW):
        codec = Codec(max_depth=limit)
        for depth in range(limit + 2):
            outside = depth // 2
            kinds = [outer] * outside + [inner] * (depth - outside)
            pieces = [IMPROPER if kind == "improper" else KINDS[kind] for kind in kinds]
            before = b"".join(before for before, _ in pieces)
            after = b"".join(after for _, after in reversed(pieces))
            data = b"\x83" + before + b"w\2ok" + after
            if depth <= limit:
                assert codec.encode(codec.decode(data)) == data
            else:
                with pytest.raises(DecodeError, match="max_depth"):
                    codec.decode(data)


@pytest.mark.parametrize("depth", [0, 1, SHALLOW - 1, SHALLOW, SHALLOW + 1])
def test_only_what_stands_in_a_key_is_frozen(depth: int) -> None:
    term: Any = {(1, FrozenList([2])): [], (3,): {}, FrozenList([4]): [5, []], (6,): (7, [{}])}
    for _ in range(depth):
        term = (term,)
    found = etf.decode(etf.encode(term))
    for _ in range(depth):
        (found,) = found
    one, two, three, four = found.values()
    assert [type(value) for value in (one, two, three, four)] == [list, dict, list, tuple]
    assert type(three[1]) is type(four[1]) is list and type(four[1][0]) is dict
    assert [type(key) for key in found] == [tuple, tuple, FrozenList, tuple]
    assert type(next(iter(found))[1]) is FrozenList


@pytest.mark.parametrize("depth", [0, 1, SHALLOW - 2, SHALLOW - 1, SHALLOW, SHALLOW + 1])
def test_every_container_may_fill_the_input_to_its_last_byte(depth: int) -> None:
    """Nested claims are added up: what fits exactly is read, one more value is too many."""
    rng = random.Random(depth)

    def tree(levels: int) -> bytes:
        if not levels or rng.random() < 0.3:
            return rng.choice([b"j", b"h\0", b"t\0\0\0\0"])
        n = rng.randrange(1, 4)
        parts = [tree(levels - 1) for _ in range(n)]
        if rng.random() < 0.5:
            return bytes([104, n]) + b"".join(parts)
        return b"l" + n.to_bytes(4, "big") + b"".join(parts) + b"j"

    for _ in range(300):
        body = tree(5)
        data = b"\x83" + b"h\1" * depth + body
        assert etf.encode(etf.decode(data)) == data
        claims = [at for at in range(len(body)) if body[at] == 104 and at + 1 < len(body)]
        for at in claims:  # each tuple claims one more than there is
            more = body[: at + 1] + bytes([body[at + 1] + 1]) + body[at + 2 :]
            with pytest.raises(DecodeError):
                etf.decode(b"\x83" + b"h\1" * depth + more)
