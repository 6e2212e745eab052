"""The type of an Erlang term, for annotations.

Any Python object may be passed where a term is wanted; what cannot be encoded
raises `EncodeError`. The alias says what the default codec decodes to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, Union

if TYPE_CHECKING:
    from router._core import (
        Atom,
        BitString,
        Export,
        FrozenList,
        Fun,
        ImproperList,
        Map,
        Pid,
        Port,
        Reference,
    )

__all__ = ["Term"]

Term: TypeAlias = Union[
    "Atom",
    bool,
    int,
    float,
    bytes,
    str,
    memoryview,
    list[Any],
    tuple[Any, ...],
    dict[Any, Any],
    "Pid",
    "Reference",
    "Port",
    "Fun",
    "Export",
    "BitString",
    "ImproperList",
    "FrozenList[Any]",
    "Map[Any, Any]",
    None,
]
