"""Erlang's order of terms.

number < atom < reference < fun < port < pid < tuple < map < list < bitstring
(Erlang/OTP reference manual, "Term Comparisons"). Numbers compare by value,
tuples and maps by size first, lists element by element.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cmp_to_key
from typing import Any

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

__all__ = ["compare"]

_NUMBER, _ATOM, _REF, _FUN, _PORT, _PID, _TUPLE, _MAP, _LIST, _BITS = range(10)
_FIXED: dict[type, int] = {
    bool: _ATOM,
    int: _NUMBER,
    float: _NUMBER,
    Atom: _ATOM,
    type(None): _ATOM,
    Reference: _REF,
    Fun: _FUN,
    Export: _FUN,
    Port: _PORT,
    Pid: _PID,
    tuple: _TUPLE,
    dict: _MAP,
    Map: _MAP,
    list: _LIST,
    FrozenList: _LIST,
    ImproperList: _LIST,
    bytes: _BITS,
    str: _BITS,
    BitString: _BITS,
}
_INHERITED: tuple[type, ...] = (bool, int, float, tuple, dict, list, bytes, str)


def compare(a: object, b: object) -> int:
    """-1, 0 or 1 as Erlang's ``<``, ``==`` and ``>`` would have it.

    ``1 == 1.0`` here as in Erlang; only map keys tell an integer from a float
    (integers first). `str` counts as the binary it encodes to, `None` as the
    atom `nil`. Raises TypeError for what is no term.
    """
    return _walk(a, b, False)


def _kind(term: object) -> int:
    kind = _FIXED.get(type(term))
    if kind is not None:
        return kind
    if isinstance(term, (bytearray, memoryview)):
        return _BITS
    for base in _INHERITED:
        if isinstance(term, base):
            return _FIXED[base]
    raise TypeError(f"{type(term).__name__} is no Erlang term")


def _sign(a: Any, b: Any) -> int:
    return -1 if a < b else int(a > b)


def _walk(a: object, b: object, keys: bool) -> int:
    # Each entry is an iterator of pairs still to be compared, in order.
    stack: list[Iterator[tuple[object, object, bool]]] = [iter(((a, b, keys),))]
    while stack:
        pair = next(stack[-1], None)
        if pair is None:
            stack.pop()
            continue
        order = _step(*pair, stack)
        if order:
            return order
    return 0


def _step(a: Any, b: Any, keys: bool, stack: list[Iterator[tuple[object, object, bool]]]) -> int:
    kind, other = _kind(a), _kind(b)
    if kind != other:
        return _sign(kind, other)
    if kind == _NUMBER:
        return _numbers(a, b, keys)
    if kind == _ATOM:
        return _sign(_atom_name(a), _atom_name(b))
    if kind == _BITS:
        return _sign(_bits(a), _bits(b))
    if kind == _TUPLE:
        stack.append(((x, y, keys) for x, y in zip(a, b, strict=False)))
        return _undo(stack, _sign(len(a), len(b)))
    if kind == _MAP:
        return _maps(a, b, keys, stack)
    if kind == _LIST:
        stack.append(_lists(a, b, keys))
        return 0
    if kind == _FUN and isinstance(a, Fun):
        return _funs(a, b, keys, stack)
    if kind == _FUN and isinstance(b, Fun):
        return 1
    return _sign(a, b)


def _funs(
    a: Fun, b: Fun | Export, keys: bool, stack: list[Iterator[tuple[object, object, bool]]]
) -> int:
    """Local funs come before external ones, then where they are defined counts,
    then what they close over."""
    if not isinstance(b, Fun):
        return -1
    x, y = a.free_vars, b.free_vars
    stack.append(((v, w, keys) for v, w in zip(x, y, strict=True)))
    mine = (a.module, a.old_index, a.old_uniq, len(x))
    return _undo(stack, _sign(mine, (b.module, b.old_index, b.old_uniq, len(y))))


def _undo(stack: list[Iterator[tuple[object, object, bool]]], order: int) -> int:
    if order:
        stack.pop()
    return order


def _numbers(a: float, b: float, keys: bool) -> int:
    if keys and isinstance(a, int) != isinstance(b, int):
        return -1 if isinstance(a, int) else 1
    return _sign(a, b)


def _atom_name(term: object) -> str:
    if term is None:
        return "nil"
    if term is True:
        return "true"
    if term is False:
        return "false"
    return str.__str__(term)  # pyright: ignore[reportArgumentType]


def _bits(term: Any) -> tuple[bytes, int]:
    if isinstance(term, BitString):
        return term.data, term.bits
    data = term.encode() if isinstance(term, str) else bytes(term)
    return data, 8 if data else 0


def _lists(a: Any, b: Any, keys: bool) -> Iterator[tuple[object, object, bool]]:
    xs = a.items if isinstance(a, ImproperList) else a
    ys = b.items if isinstance(b, ImproperList) else b
    for x, y in zip(xs, ys, strict=False):
        yield x, y, keys
    n = min(len(xs), len(ys))
    x_rest, y_rest = _rest(a, xs, n), _rest(b, ys, n)
    if x_rest is _END and y_rest is _END:
        return
    if isinstance(x_rest, list) and isinstance(y_rest, list):
        # One list goes on where the other one ends: the empty list is less.
        yield len(x_rest), len(y_rest), keys
        return
    yield x_rest, y_rest, keys


# What is left of a list: nothing, or more elements (which ones has no part in
# the order). A tail that is no list stands for itself.
_END: list[Any] = []
_MORE: list[Any] = [None]


def _rest(term: Any, items: Any, n: int) -> object:
    if len(items) > n:
        return _MORE
    return term.tail if isinstance(term, ImproperList) else _END


def _maps(a: Any, b: Any, keys: bool, stack: list[Iterator[tuple[object, object, bool]]]) -> int:
    order = _sign(len(a), len(b))
    if order:
        return order
    x, y = _sorted(a), _sorted(b)
    stack.append(((p[1], q[1], keys) for p, q in zip(x, y, strict=True)))
    stack.append(((p[0], q[0], True) for p, q in zip(x, y, strict=True)))
    return 0


def _sorted(mapping: Any) -> list[tuple[Any, Any]]:
    return sorted(mapping.items(), key=lambda pair: _KEY(pair[0]))


_KEY = cmp_to_key(lambda x, y: _walk(x, y, True))
