"""The codec, as Python sees it: any bytes give a term or a DecodeError, any object bytes or an
EncodeError, and what was read is written and read again as itself.

    fuzz_codec.py [FOLDER] [libFuzzer's options]

Runs under atheris (make fuzz), whose libFuzzer sees the branches of the C codec too when that is
compiled for it; and in `make test` over the committed inputs.
Input: what to do, a codec, then the bytes.
"""

from __future__ import annotations

import datetime
import decimal
import math
import os
import pickle
import re
import struct
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

if __name__ == "__main__":
    import atheris

    with atheris.instrument_imports(include=["router"]):
        import router  # noqa: F401

from router import etf
from router.etf import Atom, Codec, DecodeError, EncodeError, Structs

DEPTH = 300  # a loop of lists is written as deep
EXACT = [
    Codec(max_depth=DEPTH, **policies)
    for policies in (
        {}, {"binaries": "str"}, {"binaries": "memoryview"}, {"none": "undefined"},
        {"compressed": 1}, {"structs": Structs(tensors=True)},
    )
]  # fmt: skip
OTHERS = [
    Codec(strings="str", max_depth=DEPTH),  # a charlist becomes a binary
    Codec(text="atom", binaries="str", max_depth=DEPTH),  # a binary becomes an atom, if short
    Codec(safe=True, max_depth=DEPTH),
    Codec(max_depth=5, max_bytes=200),
]


def holds(right: object, *seen: object) -> None:
    if not right:
        raise AssertionError(seen)


def shape(data: bytes) -> Any:
    """What stays the same however the elements of sets are ordered."""
    return sorted(data)


def decode(codec: Codec, data: bytes) -> None:
    """What an exact codec reads it writes, and reads and writes the same again."""
    try:
        term = codec.decode(data)
    except DecodeError as e:
        holds(e.offset is not None and 0 <= e.offset <= len(data), e)
        return
    try:
        once = codec.encode(term)
    except EncodeError:
        holds(codec in OTHERS, term)
        return
    twice = codec.encode(codec.decode(once))
    holds(codec not in EXACT or codec.compressed or shape(once) == shape(twice), once, twice)


def shown(term: Any) -> str:
    """Its repr, in which each memoryview has an address of its own."""
    return re.sub("<memory at 0x[0-9a-fA-F]+>", "<memory>", repr(term))


def prefix(codec: Codec, data: bytes) -> None:
    """Whatever decode takes, peek takes, and says the same of its length."""
    at = 0
    terms = []
    while at < len(data):
        try:
            term, end = codec.decode_prefix(data, at)
        except DecodeError:
            break
        seen = etf.peek(data, at)
        holds(seen.size == end - at, seen, end - at)
        holds(at < end <= len(data), at, end)
        terms.append(term)
        at = end
    if at == len(data):
        holds(shown(codec.decode_many(data)) == shown(terms), terms)
    try:
        etf.peek(data)
    except DecodeError as e:
        holds(e.offset is not None and 0 <= e.offset <= len(data), e)


def text(_: Codec, data: bytes) -> None:
    """Erlang's notation: what is read is written and read again as itself."""
    try:
        term = etf.parse(data.decode("utf-8", "surrogateescape"))
    except (DecodeError, ValueError):
        return
    holds(etf.compare(etf.parse(etf.format(term)), term) == 0, term)


def show(_: Codec, data: bytes) -> None:
    """Every term can be shown, and what is shown can be read, save funs and identifiers."""
    try:
        term = etf.decode(data)
    except DecodeError:
        return
    said = etf.format(term)
    try:
        back = etf.parse(said)
    except (DecodeError, ValueError):
        holds("#" in said or "<" in said.replace("<<", ""), said)
        return
    holds(etf.compare(back, term) == 0, said)


def order(_: Codec, data: bytes) -> None:
    """An order of all terms, which equality and hashes agree with; copies are the same."""
    terms = []
    at = 0
    while at < len(data) and len(terms) < 2:
        try:
            term, at = etf.decode_prefix(data, at)
        except DecodeError:
            break
        terms.append(term)
        holds(etf.compare(term, term) == 0, term)
        copy = pickle.loads(pickle.dumps(term))
        holds(etf.encode(copy) == etf.encode(term), term)
    for a in terms:
        for b in terms:
            holds(etf.compare(a, b) == -etf.compare(b, a), a, b)
            for c in terms:
                if etf.compare(a, b) <= 0 and etf.compare(b, c) <= 0:
                    holds(etf.compare(a, c) <= 0, a, b, c)


class Stands:
    def __init__(self, term: Any) -> None:
        self.term = term

    def __to_term__(self) -> Any:
        return self.term


class Maker:
    """Objects of every kind that is given to an encoder, made of bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1] if self.at <= len(self.data) else 0

    def bytes(self) -> bytes:
        n = self.byte() % 40
        self.at += n
        return self.data[self.at - n : self.at]

    def word(self) -> int:
        return int.from_bytes(self.bytes(), "big", signed=True)

    def str(self) -> str:
        return self.bytes().decode(["utf-8", "latin-1", "utf-16"][self.byte() % 3], "surrogatepass")

    def many(self, depth: int) -> list[Any]:
        return [self.object(depth - 1) for _ in range(self.byte() % 5)]

    def array(self) -> Any:
        kind = ["u1", "i2", ">i4", "f2", "f8", "?", "c8", "O", "S3", "U2", "M8[s]"][
            self.byte() % 11
        ]
        array: Any = np.array([self.byte() for _ in range(self.byte() % 9)], "u1")
        array = array.astype(kind) if self.byte() % 2 else array.astype(kind)[::2]
        return array.reshape(-1, 1) if self.byte() % 2 else array

    def leaf(self) -> Any:
        makers: list[Callable[[], Any]] = [
            self.word, self.byte, self.bytes, self.str, self.array, lambda: None, lambda: True,
            lambda: Atom(self.str()), lambda: bytearray(self.bytes()),
            lambda: memoryview(self.bytes())[:: self.byte() % 3 + 1],
            lambda: struct.unpack("d", self.bytes().ljust(8, b"\0")[:8])[0],
            lambda: etf.Pid("a@b", self.word(), self.word(), self.word()),
            lambda: etf.Reference("a@b", self.word(), [self.word()] * (self.byte() % 6)),
            lambda: etf.Port("a@b", self.word(), self.word()),
            lambda: etf.Export(self.str(), self.str(), self.word()),
            lambda: etf.BitString(self.bytes(), self.byte()),
            lambda: etf.Fun(self.bytes()),
            lambda: datetime.datetime.fromtimestamp(self.byte(), datetime.UTC),
            lambda: datetime.date(1 + self.byte(), 1, 1), lambda: range(self.word(), self.word()),
            lambda: decimal.Decimal(self.word()), object, lambda: math.nan, lambda: Maker,
        ]  # fmt: skip
        return makers[self.byte() % len(makers)]()

    def object(self, depth: int = 5) -> Any:
        kind = self.byte() % 16
        if depth == 0 or kind > 9 or self.at > len(self.data):
            return self.leaf()
        many = self.many(depth)
        if kind == 0:
            return many
        if kind == 1:
            return tuple(many)
        if kind == 2:
            return etf.FrozenList(many)
        if kind == 3:
            return etf.ImproperList(many, self.object(depth - 1))
        if kind == 4:
            return Stands(self.object(depth - 1))
        if kind == 5:
            return etf.Map([(key, self.object(depth - 1)) for key in many])
        if kind == 6:
            return frozenset(many)
        if kind == 7 and many:
            many.append(many)  # a loop
            return many
        return {key: self.object(depth - 1) for key in many}


def made(codec: Codec, data: bytes) -> None:
    """Any object is encoded, into a buffer too, or refused."""
    maker = Maker(data)
    try:
        thing = maker.object()
    except (TypeError, ValueError, OverflowError, EncodeError, DecodeError):
        return  # of the constructors
    try:
        wanted = codec.encode(thing)
    except EncodeError:
        return
    buffer = bytearray(maker.byte())
    end = codec.encode_into(thing, buffer)
    holds(codec.compressed or shape(buffer[:end]) == shape(wanted), wanted)
    if codec in EXACT:
        codec.decode(wanted)


WAYS: list[Callable[[Codec, bytes], None]] = [decode, prefix, text, show, order, made]
CODECS = [*EXACT, *OTHERS]


def one(data: bytes) -> None:
    if len(data) > 1:
        WAYS[data[0] % len(WAYS)](CODECS[data[1] % len(CODECS)], data[2:])


def seeds(terms: Iterator[bytes]) -> Iterator[bytes]:
    """First inputs: each way of each term."""
    for number, term in enumerate(terms):
        for way in (decode, prefix, show, order):
            head = bytes([WAYS.index(way), number % len(CODECS)])
            yield head + term + (term if way in (prefix, order) else b"")
        try:
            shown = etf.format(etf.decode(term)).encode()
        except DecodeError:
            continue
        yield bytes([WAYS.index(text), 0]) + shown
        yield bytes([WAYS.index(made), number % len(CODECS)]) + term


if __name__ == "__main__":
    # libFuzzer starts its own program again to merge inputs.
    atheris.Setup([os.environ.get("FUZZ_PROGRAM", sys.argv[0]), *sys.argv[1:]], one)
    atheris.Fuzz()
