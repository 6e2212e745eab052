"""Erlang terms as Python objects, and back.

Usable alone, without a node:

>>> from router import etf
>>> etf.decode(etf.encode((etf.Atom("ok"), [1, 2.5, b"abc"])))
(Atom('ok'), [1, 2.5, b'abc'])

The bytes are Erlang's External Term Format, as `term_to_binary/1` writes it
(Erlang/OTP documentation, erl_ext_dist). A literal ``"ok"`` is a binary; an
atom is ``Atom("ok")``, unless `Codec(text="atom")` says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from router import _core
from router._core import (
    Atom,
    BitString,
    Codec,
    Export,
    FrozenList,
    Fun,
    ImproperList,
    Map,
    Pid,
    Port,
    Reference,
    decode,
    decode_many,
    decode_prefix,
    encode,
    encode_into,
)
from router._format import format, parse
from router._order import compare
from router._structs import Structs, Version
from router._types import Term
from router.errors import DecodeError, EncodeError

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = [
    "Atom",
    "BitString",
    "Codec",
    "DecodeError",
    "EncodeError",
    "Export",
    "FrozenList",
    "Fun",
    "ImproperList",
    "Map",
    "Peek",
    "Pid",
    "Port",
    "Reference",
    "Structs",
    "Term",
    "Version",
    "compare",
    "decode",
    "decode_many",
    "decode_prefix",
    "encode",
    "encode_into",
    "format",
    "parse",
    "peek",
]


class Peek(NamedTuple):
    """What a term is, without the term."""

    kind: str
    """integer, float, atom, binary, bitstring, list, tuple, map, pid, port, reference or fun."""
    size: int
    """Bytes it takes, with its version byte; compressed ones as they are."""
    length: int | None
    """Elements, pairs of a map, bytes of a binary, bits of a bitstring; None for the others.

    Of an improper list, or one in several pieces, those before the first tail.
    """


def peek(data: Buffer, offset: int = 0, /) -> Peek:
    """The kind and the size of the term at an offset, which is checked and not decoded.

    Keys that are there twice are left to the decoder. The limits are the default codec's.

    Raises DecodeError with the offset of the byte at fault, ValueError for an offset
    outside of the data.

    >>> peek(encode((1, 2, b"three")))
    Peek(kind='tuple', size=17, length=3)
    """
    return Peek(*_core._peek(data, offset))


Mapping.register(Map)  # pyright: ignore[reportAttributeAccessIssue]
Sequence.register(FrozenList)  # pyright: ignore[reportAttributeAccessIssue]
