"""Terms in buffers of one's own: encoded into them, several in one, looked at and not decoded."""

from __future__ import annotations

import array
import mmap
import zlib
from typing import Any

import numpy as np
import pytest

from router import etf
from router.etf import Atom, Codec, DecodeError, EncodeError, Peek

TERM = {b"k": [1, 2.5, "text", (Atom("ok"), 2**80)]}


@pytest.mark.parametrize("offset", [0, 5])
def test_into_a_buffer(offset: int) -> None:
    data = etf.encode(TERM)
    buffer = bytearray(b"\xee" * 200)
    end = etf.encode_into(TERM, buffer, offset)
    assert end == offset + len(data)
    assert buffer == b"\xee" * offset + data + b"\xee" * (200 - end)
    with mmap.mmap(-1, 4096) as shared:
        assert etf.encode_into(TERM, memoryview(shared)[7:], offset) == end
        assert shared[7 + offset : 7 + end] == data


@pytest.mark.parametrize("length", range(len(etf.encode(TERM)) + 2))
def test_a_bytearray_grows(length: int) -> None:
    data = etf.encode(TERM)
    buffer = bytearray(b"\xee" * length)
    assert Codec().encode_into(TERM, buffer) == len(data)
    assert buffer == data + b"\xee" * (length - len(data))
    # At its end, which is how a stream is written.
    end = len(buffer)
    assert etf.encode_into(TERM, buffer, end) == end + len(data)
    assert buffer[end:] == data


@pytest.mark.parametrize("length", range(len(etf.encode(TERM))))
def test_a_buffer_of_fixed_length_does_not(length: int) -> None:
    memory = bytearray(b"\xee" * (length + 9))
    with pytest.raises(EncodeError, match=rf"takes {len(etf.encode(TERM))} bytes.* {length} left"):
        etf.encode_into(TERM, memoryview(memory)[: length + 4], 4)
    assert memory[:4] == b"\xee" * 4
    assert memory[length + 4 :] == b"\xee" * 5


def test_large_terms_into_short_buffers() -> None:
    term = [bytes([i % 256]) * 1000 for i in range(500)]
    buffer = bytearray(10)
    assert etf.encode_into(term, buffer) == len(buffer)
    assert etf.decode(buffer) == term


def test_bad_buffers() -> None:
    for buffer, offset, error in (
        (b"never", 0, BufferError), ("text", 0, TypeError), (bytearray(3), 4, ValueError),
        (bytearray(3), -1, ValueError), (memoryview(bytearray(8))[::2], 0, BufferError),
    ):  # fmt: skip
        with pytest.raises(error):
            etf.encode_into(1, buffer, offset)  # type: ignore[arg-type]
    held = bytearray(1)
    with memoryview(held), pytest.raises(BufferError):  # it cannot grow
        etf.encode_into(TERM, held)
    with pytest.raises(TypeError):
        etf.encode_into(1)  # type: ignore[call-arg]
    with pytest.raises(EncodeError, match="cannot encode object"):
        etf.encode_into([object()], bytearray(100))
    with pytest.raises(EncodeError, match="max_bytes"):
        Codec(max_bytes=10).encode_into("x" * 100, bytearray(200))


@pytest.mark.parametrize("room", range(0, len(etf.encode(TERM)) + 20, 3))
@pytest.mark.parametrize(
    "term", [TERM, "a" * 100 + "é", np.arange(1000) % 200, np.arange(50_000) % 50], ids=[*"abcd"]
)
def test_max_bytes_is_the_same_limit_everywhere(room: int, term: Any) -> None:
    """However short the buffer, what encode() takes is taken."""
    data = etf.encode(term)
    codec = Codec(max_bytes=len(data))
    assert codec.encode(term) == data
    buffer = bytearray(room)
    assert codec.encode_into(term, buffer) == len(data)
    assert buffer[: len(data)] == data
    for into in (codec.encode, lambda term: codec.encode_into(term, bytearray(room))):
        with pytest.raises(EncodeError, match="max_bytes"):
            into([term])


def test_user_code_that_tries_to_take_the_buffer_away() -> None:
    class Thief:
        def __to_term__(self) -> Any:
            buffer.clear()

    buffer = bytearray(100)
    with pytest.raises(BufferError):
        etf.encode_into([Thief()], buffer)
    assert len(buffer) == 100


def test_many_in_one() -> None:
    terms = [1, TERM and {b"a": 1}, [], Atom("x"), b"y" * 3000]
    data = b"".join(map(etf.encode, terms))
    assert etf.decode_many(data) == terms
    assert etf.decode_many(bytearray(data)) == terms
    assert etf.decode_many(b"") == []
    assert Codec(binaries="str").decode_many(data)[-1] == "y" * 3000
    # One after the other, without the list.
    at, found = 0, []
    while at < len(data):
        term, at = etf.decode_prefix(data, at)
        found.append(term)
    assert found == terms


def test_max_bytes_is_of_each_term() -> None:
    codec = Codec(max_bytes=10)
    data = etf.encode(1) * 10
    assert codec.decode_many(data) == [1] * 10
    assert codec.decode_prefix(data) == (1, 3)
    with pytest.raises(DecodeError, match="max_bytes") as caught:
        codec.decode_many(data + etf.encode(b"x" * 20) + data)
    assert caught.value.offset == len(data) + 1


def test_many_cut_or_broken() -> None:
    whole = etf.encode((1, b"abc"))
    for cut in range(1, len(whole)):
        with pytest.raises(DecodeError) as caught:
            etf.decode_many(whole + whole[:cut])
        assert caught.value.offset is not None
        assert len(whole) <= caught.value.offset <= len(whole) + cut
    with pytest.raises(DecodeError, match="version byte") as caught:
        etf.decode_many(whole + b"\x00")
    assert caught.value.offset == len(whole)


PID = etf.Pid("a@b", 1, 2, 3)
FUN = bytes.fromhex("83 71 77 01 6d 77 01 66 61 02")


@pytest.mark.parametrize(
    ("term", "kind", "length"),
    [
        (0, "integer", None), (2**40, "integer", None), (-(2**3000), "integer", None),
        (1.5, "float", None), (Atom("ok"), "atom", None), (Atom("é" * 200), "atom", None),
        (True, "atom", None), (None, "atom", None), (b"", "binary", 0), ("é", "binary", 2),
        (etf.BitString(b"\xa0\xa0", 3), "bitstring", 11), ([], "list", 0), ([1, 2], "list", 2),
        ([300] * 70_000, "list", 70_000), (etf.ImproperList([1, 2], 3), "list", 2),
        ((), "tuple", 0), ((1,) * 300, "tuple", 300), ({}, "map", 0), ({1: 2}, "map", 1),
        (PID, "pid", None), (etf.Reference("a@b", 1, [1, 2, 3]), "reference", None),
        (etf.Port("a@b", 1, 2), "port", None), (etf.Export("m", "f", 1), "fun", None),
    ],
    ids=lambda v: repr(v)[:30],
)  # fmt: skip
def test_peek(term: Any, kind: str, length: int | None) -> None:
    data = etf.encode(term)
    assert etf.peek(data) == Peek(kind, len(data), length)
    assert etf.peek(b"skip" + data + b"rest", 4) == Peek(kind, len(data), length)
    packed = Codec(compressed=9).encode([term] * 100)
    assert etf.peek(packed).kind == "list"
    assert etf.peek(packed)[1:] == (len(packed), 100)


def test_peek_sees_through_odd_forms() -> None:
    assert etf.peek(b"\x83\x6c\0\0\0\0\x6c\0\0\0\0\x61\x01") == Peek("integer", 13, None)
    assert etf.peek(b"\x83\x4d\0\0\0\x02\x08ab") == Peek("binary", 9, 2)
    assert etf.peek(b"\x83\x4d\0\0\0\0\0") == Peek("binary", 7, 0)
    assert etf.peek(FUN) == Peek("fun", len(FUN), None)


def test_peek_at_what_is_no_term() -> None:
    data = etf.encode([1, TERM, PID])
    for cut in range(len(data)):
        with pytest.raises(DecodeError) as caught:
            etf.peek(data[:cut])
        assert caught.value.offset is not None
        assert caught.value.offset <= cut
    with pytest.raises(DecodeError, match="version byte"):
        etf.peek(b"\x00")
    with pytest.raises(DecodeError, match="malformed"):
        etf.peek(b"\x83\x00")
    with pytest.raises(DecodeError, match="too large"):
        etf.peek(b"\x83\x50\xff\xff\xff\xff" + Codec(compressed=9).encode([0] * 1000)[6:])
    nested = b"\x50\0\0\0\x02" + zlib.compress(b"\x61\x01")
    for content in (nested, b"\x68\x02\x6a", b"\x68\x02\x6d\0\0\3\0" + b"a" * 768 + b"\xff"):
        odd = b"\x83\x50" + len(content).to_bytes(4, "big") + zlib.compress(content)
        with pytest.raises(DecodeError, match="content of a compressed") as caught:
            etf.peek(odd)
        assert caught.value.offset == 1
    with pytest.raises(DecodeError, match="max_depth"):
        etf.peek(b"\x83" + b"\x68\x01" * 20_000 + b"\x6a")
    with pytest.raises(ValueError, match="offset"):
        etf.peek(data, len(data) + 1)
    with pytest.raises(TypeError):
        etf.peek("text")  # type: ignore[arg-type]


def test_peek_takes_what_decode_takes() -> None:
    whole = etf.encode([1, TERM, PID, etf.Export("m", "f", 1)])
    for at in range(1, len(whole)):
        for value in range(0, 256, 7):
            data = whole[:at] + bytes([value]) + whole[at + 1 :]
            try:
                decoded: int | None = etf.decode_prefix(data)[1]
            except DecodeError:
                decoded = None
            try:
                seen: int | None = etf.peek(data).size
            except DecodeError:
                seen = None
            # Only the decoder looks for keys that are there twice.
            assert decoded == seen or decoded is None, data


def test_array_module_buffers() -> None:
    words = array.array("B", bytes(64))
    end = etf.encode_into(TERM, words)
    assert etf.decode(memoryview(words)[:end]) == etf.decode(etf.encode(TERM))
