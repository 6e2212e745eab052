"""The decoder against bytes that real Erlang wrote, whole and damaged.

`tests/vectors/terms.txt` holds what Erlang accepts, `refused.txt` what it
refuses; both are made by `make_terms.escript`.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from router import etf

VECTORS = Path(__file__).parents[1] / "vectors"


def load(name: str) -> dict[str, bytes]:
    rows = (line.split("\t") for line in (VECTORS / name).read_text().splitlines() if line)
    return {row[0]: bytes.fromhex(row[1]) for row in rows}


TERMS = load("terms.txt")
REFUSED = load("refused.txt")


@pytest.mark.parametrize("name", TERMS)
def test_what_erlang_wrote_is_read_and_written_back(name: str) -> None:
    term = etf.decode(TERMS[name])
    again = etf.encode(term)
    # Compared as bytes, since Python does not compare lists nested this deep.
    assert etf.encode(etf.decode(again)) == again
    assert etf.format(etf.decode(again)) == etf.format(term)


@pytest.mark.parametrize("name", REFUSED)
def test_what_erlang_refuses_is_refused(name: str) -> None:
    with pytest.raises(etf.DecodeError) as caught:
        etf.decode(REFUSED[name])
    assert 0 <= caught.value.offset <= len(REFUSED[name])


@pytest.mark.parametrize("name", TERMS)
def test_a_term_cut_short_is_refused_at_every_length(name: str) -> None:
    data = TERMS[name]
    for length in range(len(data)):
        with pytest.raises(etf.DecodeError) as caught:
            etf.decode(data[:length])
        assert 0 <= caught.value.offset <= length


@pytest.mark.parametrize("name", TERMS)
def test_every_flipped_byte_gives_a_term_or_an_error(name: str) -> None:
    data = TERMS[name]
    rng = random.Random(name)
    for at in range(len(data)):
        for flip in {0xFF, 0x01, 0x80, rng.randrange(1, 256)}:
            damaged = data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :]
            try:
                term = etf.decode(damaged)
            except etf.DecodeError as error:
                assert 0 <= error.offset <= len(damaged)  # noqa: PT017
            else:
                again = etf.encode(term)
                assert etf.encode(etf.decode(again)) == again
                assert isinstance(etf.format(term), str)


@pytest.mark.parametrize("name", TERMS)
def test_bytes_after_a_term_are_refused_unless_asked_for(name: str) -> None:
    data = TERMS[name]
    with pytest.raises(etf.DecodeError, match="bytes after the term") as caught:
        etf.decode(data + b"x")
    assert caught.value.offset == len(data)
    assert etf.decode_prefix(b"??" + data + b"x", 2)[1] == 2 + len(data)


def test_terms_are_read_from_a_stream() -> None:
    stream = b"".join(TERMS.values())
    at, terms = 0, []
    while at < len(stream):
        term, at = etf.decode_prefix(stream, at)
        terms.append(term)
    assert list(map(etf.encode, terms)) == [etf.encode(etf.decode(v)) for v in TERMS.values()]
