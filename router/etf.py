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
    decode_prefix,
    encode,
)
from router._format import format, parse
from router._order import compare
from router._types import Term
from router.errors import DecodeError, EncodeError

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
    "Pid",
    "Port",
    "Reference",
    "Term",
    "compare",
    "decode",
    "decode_prefix",
    "encode",
    "format",
    "parse",
]

Mapping.register(Map)  # pyright: ignore[reportAttributeAccessIssue]
Sequence.register(FrozenList)  # pyright: ignore[reportAttributeAccessIssue]
