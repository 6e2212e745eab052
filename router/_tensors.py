"""`Nx.Tensor` structs and numpy arrays, whose data are the struct's bytes.

Source: the documentation of Nx, `Nx.Tensor` and `Nx.BinaryBackend`: a tensor of that backend holds
its elements row by row, in the byte order of the machine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from router._core import Atom
from router._structs import STRUCT

if TYPE_CHECKING:
    from router._structs import Structs

__all__ = ["add_to"]

DATA, STATE, TYPE, SHAPE, NAMES, AXES = map(
    Atom, ("data", "state", "type", "shape", "names", "vectorized_axes")
)
TENSOR, BACKEND, NIL = map(Atom, ("Elixir.Nx.Tensor", "Elixir.Nx.BinaryBackend", "nil"))
FIELDS = {STRUCT, DATA, TYPE, SHAPE, NAMES, AXES}
KINDS = {"u": "u", "i": "s", "f": "f", "c": "c"}
"""Nx's name of a numpy kind."""
DTYPES = {
    (KINDS[dtype.kind], 8 * dtype.itemsize): dtype
    for dtype in map(np.dtype, ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8",
                                "c8", "c16"))
}  # fmt: skip


def _array_to(array: np.ndarray[Any, Any]) -> Any:
    """NotImplemented for what no tensor has; the codec then writes a list."""
    if isinstance(array, np.ma.MaskedArray):
        return NotImplemented
    kind = (KINDS.get(array.dtype.kind, ""), 8 * array.dtype.itemsize)
    if kind not in DTYPES:
        return NotImplemented
    rows = np.ascontiguousarray(array, DTYPES[kind])  # in the byte order of the machine
    return {
        STRUCT: TENSOR,
        DATA: {STRUCT: BACKEND, STATE: rows.reshape(-1).view(np.uint8).data},
        TYPE: (Atom(kind[0]), kind[1]),
        SHAPE: array.shape,
        NAMES: [NIL] * array.ndim,
        AXES: [],
    }


def _bytes_of(data: Any, size: int) -> Any:
    """The elements of a tensor, if they are here and as many as its shape says."""
    if not isinstance(data, Mapping) or len(data) != 2 or data.get(STRUCT) != BACKEND:
        return None
    state = data.get(STATE)
    if type(state) is str:  # with Codec(binaries="str"), bytes that happen to be text
        state = state.encode()
    return state if isinstance(state, bytes | memoryview) and len(state) == size else None


def _is_nil(name: Any) -> bool:
    return name is None or (type(name) is Atom and name == NIL)


def _array_from(fields: Mapping[Any, Any]) -> Any:
    kind, shape, names = fields.get(TYPE), fields.get(SHAPE), fields.get(NAMES)
    axes = fields.get(AXES)
    if not all(type(key) is Atom and key in FIELDS for key in fields):
        return NotImplemented
    if axes is not None and (type(axes) is not list or axes):
        return NotImplemented
    try:
        dtype = DTYPES.get(kind)  # type: ignore[arg-type]
    except TypeError:
        return NotImplemented
    if dtype is None or type(shape) is not tuple or type(names) is not list:
        return NotImplemented
    if not all(type(n) is int and n >= 0 for n in shape):
        return NotImplemented
    if len(names) != len(shape) or not all(map(_is_nil, names)):
        return NotImplemented
    held = _bytes_of(fields.get(DATA), math.prod(shape) * dtype.itemsize)
    if held is None:
        return NotImplemented
    try:
        return np.frombuffer(held, dtype).reshape(shape)
    except ValueError:  # more axes than numpy has
        return NotImplemented


def add_to(structs: Structs) -> None:
    structs.add(np.ndarray, TENSOR, _array_to, _array_from)
