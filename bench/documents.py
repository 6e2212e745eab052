"""The documents that serializers are measured on, and how each library carries them."""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct
from typing import Any

import numpy

from router import Pid, Reference, etf

__all__ = [
    "DOCUMENTS",
    "MISSING",
    "Document",
    "Library",
    "arrays",
    "libraries",
    "plain",
    "with_bytes",
]

MISSING: dict[str, str] = {}
"""Libraries that are not installed, and what importing them said."""


def _peer(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as e:
        MISSING[name] = str(e)
        return None


msgspec, ormsgpack, msgpack, orjson = map(_peer, ("msgspec", "ormsgpack", "msgpack", "orjson"))

Event = tuple[str, int, float, str, bool]


@dataclass(frozen=True)
class Document:
    name: str
    value: Any
    shape: Any = Any
    """The type msgspec is told: its decoder makes tuples only when it knows."""
    json: bool = True
    """orjson can carry it."""
    terms: bool = False
    """Holds a pid and a reference: for msgpack, ext types whose hooks build the same."""


@dataclass(frozen=True)
class Library:
    name: str
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]
    expected: Any
    """What decoding must give, up to tuples that the format cannot tell from lists."""


def _small() -> dict[str, Any]:
    return {
        "id": 123456,
        "name": "a small document",
        "active": True,
        "ratio": 0.375,
        "tags": ["one", "two", "three"],
        "parent": None,
        "position": {"x": -17, "y": 2048},
    }


def _users() -> list[dict[str, Any]]:
    return [
        {
            "id": i,
            "name": f"user {i}",
            "email": f"user{i}@example.org",
            "age": 18 + i % 60,
            "score": i * 1.25,
            "active": i % 3 != 0,
            "roles": ["reader", "writer"][: 1 + i % 2],
            "address": {"street": f"{i} Main Street", "city": "Uppsala", "zip": f"{75000 + i}"},
        }
        for i in range(100)
    ]


def _integers() -> list[int]:
    """A third each of one byte, up to four bytes, and up to eight, of both signs."""
    made, x = [], 88172645463325252
    for i in range(10_000):
        x = (x * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        bits = (8, 31, 62)[i % 3]
        value = (x >> 2) % (1 << bits)
        made.append(-value if x & 1 and bits > 8 else value)
    return made


def _nested() -> dict[str, Any]:
    """A thousand entries, ten in each of a hundred places, three levels deep."""
    return {
        f"group{i}": {f"place{j}": {f"entry{k}": [i, j, k] for k in range(10)} for j in range(10)}
        for i in range(10)
    }


PID = Pid("shop@127.0.0.1", 812, 3, 1690000000)
REF = Reference("shop@127.0.0.1", 1690000000, (12345, 678901, 2345678))


def _call() -> tuple[Any, ...]:
    return ("$gen_call", (PID, REF), ("reserve", 42, {"item": "apple", "count": 3}))


def _events() -> list[Event]:
    return [("event", i, i * 0.5, f"source {i % 7}", i % 2 == 0) for i in range(500)]


DOCUMENTS = (
    Document("small dict", _small()),
    Document("100 users", _users()),
    Document("10,000 integers", _integers()),
    Document("1,000 nested entries", _nested()),
    Document("gen_server call", _call(), tuple[str, tuple[Any, Any], tuple[str, int, Any]],
             json=False, terms=True),
    Document("500 events", _events(), list[Event]),
    Document("1 MiB binary", bytes(range(256)) * 4096, bytes, json=False),
)  # fmt: skip


def arrays() -> dict[str, Any]:
    integers = numpy.array(_integers())
    return {"10,000 integers": integers, "10,000 floats": integers.astype(float) * 0.37}


def plain(value: Any) -> Any:
    """The value with lists for tuples, for formats that know no tuples."""
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


def with_bytes(value: Any) -> Any:
    """The value as it arrives by default: text is a binary."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, list):
        return [with_bytes(item) for item in value]
    if isinstance(value, tuple):
        return tuple(with_bytes(item) for item in value)
    if isinstance(value, dict):
        return {with_bytes(key): with_bytes(item) for key, item in value.items()}
    return value


# Pids and references for the msgpack libraries.

PID_WORDS, REF_WORDS = Struct("!III"), Struct("!IIII")


def _to_ext(value: Any) -> tuple[int, bytes]:
    if isinstance(value, Pid):
        head = PID_WORDS.pack(value.id, value.serial, value.creation)
        return 1, head + value.node.encode()
    if isinstance(value, Reference):
        return 2, REF_WORDS.pack(value.creation, *value.words) + value.node.encode()
    raise TypeError(type(value).__name__)


def _from_ext(code: int, data: bytes | memoryview) -> Any:
    if code == 1:
        id_, serial, creation = PID_WORDS.unpack_from(data)
        return Pid(str(data[PID_WORDS.size :], "utf-8"), id_, serial, creation)
    creation, *words = REF_WORDS.unpack_from(data)
    return Reference(str(data[REF_WORDS.size :], "utf-8"), creation, words)


def _msgspec(document: Document) -> Library:
    hooks: dict[str, Any] = {}
    unhooks: dict[str, Any] = {}
    if document.terms:
        hooks["enc_hook"] = lambda value: msgspec.msgpack.Ext(*_to_ext(value))
        unhooks["ext_hook"] = _from_ext
    encoder = msgspec.msgpack.Encoder(**hooks)
    decoder = msgspec.msgpack.Decoder(document.shape, **unhooks)
    return Library("msgspec.msgpack", encoder.encode, decoder.decode, document.value)


def _ormsgpack(document: Document) -> Library:
    encode, decode = ormsgpack.packb, ormsgpack.unpackb
    if document.terms:
        ext = ormsgpack.Ext
        return Library(
            "ormsgpack",
            lambda v: encode(v, default=lambda value: ext(*_to_ext(value))),
            lambda b: decode(b, ext_hook=_from_ext),
            plain(document.value),
        )
    return Library("ormsgpack", encode, decode, plain(document.value))


def _msgpack(document: Document) -> Library:
    if document.terms:
        packer = msgpack.Packer(default=lambda value: msgpack.ExtType(*_to_ext(value)))
        unpack = msgpack.unpackb
        return Library(
            "msgpack",
            packer.pack,
            lambda b: unpack(b, ext_hook=_from_ext),
            plain(document.value),
        )
    return Library("msgpack", msgpack.Packer().pack, msgpack.unpackb, plain(document.value))


def libraries(document: Document) -> list[Library]:
    """ours first: bytes for text, then str for text; then whoever can carry it."""
    value = document.value
    text = etf.Codec(binaries="str")
    made = [Library("router etf", etf.encode, etf.decode, with_bytes(value))]
    # One megabyte is bytes on both sides: it is not text.
    if not isinstance(value, bytes):
        made.append(Library("router etf, str", text.encode, text.decode, value))
    if msgspec is not None:
        made.append(_msgspec(document))
    if ormsgpack is not None:
        made.append(_ormsgpack(document))
    if msgpack is not None:
        made.append(_msgpack(document))
    if orjson is not None and document.json:
        made.append(Library("orjson", orjson.dumps, orjson.loads, plain(value)))
    made.append(
        Library("pickle", lambda v: pickle.dumps(v, pickle.HIGHEST_PROTOCOL), pickle.loads, value)
    )
    return made
