"""Nx's tensors as numpy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from router import etf
from router._structs import module_atom
from router.etf import Atom, Codec, Structs

TENSORS = Codec(structs=Structs(tensors=True))
LISTS = Codec(structs=Structs())


def struct(module: str, **fields: Any) -> dict[Atom, Any]:
    return {Atom("__struct__"): module_atom(module)} | {Atom(k): v for k, v in fields.items()}


@pytest.mark.parametrize("shape", [(), (0,), (6,), (2, 3), (1, 2, 3)])
@pytest.mark.parametrize(
    "dtype", "u1 u2 u4 u8 i1 i2 i4 i8 f2 f4 f8 c8 c16 >i4 >f8".split()
)  # fmt: skip
def test_tensors(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape), dtype=dtype).reshape(shape)
    term = etf.decode(TENSORS.encode(array))
    kind = {"u": "u", "i": "s", "f": "f", "c": "c"}[array.dtype.kind]
    native = array.astype(array.dtype.newbyteorder("="))
    assert term == struct(
        "Nx.Tensor", type=(Atom(kind), 8 * array.itemsize), shape=shape, names=[None] * len(shape),
        data=struct("Nx.BinaryBackend", state=native.tobytes()), vectorized_axes=[],
    )  # fmt: skip
    found = TENSORS.decode(TENSORS.encode(array))
    assert found.dtype == native.dtype
    np.testing.assert_array_equal(found, array)
    assert not found.flags.writeable


def test_tensors_whose_bytes_are_text() -> None:
    codec = Codec(structs=Structs(tensors=True), binaries="str")
    for value in (1.5, 2.0):
        np.testing.assert_array_equal(codec.decode(codec.encode(np.array([value]))), [value])


def test_tensors_are_not_copied() -> None:
    codec = Codec(structs=Structs(tensors=True), binaries="memoryview")
    data = codec.encode(np.arange(1000.0))
    found = codec.decode(data)
    assert np.shares_memory(found, np.frombuffer(data, np.uint8))
    rows = np.arange(12).reshape(3, 4)[:, ::2]  # lies in pieces
    np.testing.assert_array_equal(codec.decode(codec.encode(rows)), rows)


TENSOR = struct(
    "Nx.Tensor", type=(Atom("f"), 32), shape=(2,), names=[None], vectorized_axes=[],
    data=struct("Nx.BinaryBackend", state=bytes(8)),
)  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"type": (Atom("bf"), 16)}, {"type": [1]}, {"type": ([], 1)}, {"shape": (3,)},
        {"shape": (2, 1)}, {"shape": [2]}, {"shape": (-2,)}, {"shape": (2**62, 2**62)},
        {"shape": (1,) * 80 + (2,), "names": [None] * 81}, {"names": [Atom("x")]}, {"names": []},
        {"vectorized_axes": [(Atom("x"), 2)]}, {"extra": 1}, {"data": 7}, {"names": [[1]]},
        {"data": struct("EXLA.Backend", state=bytes(8))},
        {"data": struct("Nx.BinaryBackend", state=7)},
        {"data": struct("Nx.BinaryBackend", state=bytes(7))},
    ],
    ids=repr,
)  # fmt: skip
def test_other_tensors_stay_maps(change: dict[str, Any]) -> None:
    term = TENSOR | {Atom(k): v for k, v in change.items()}
    assert TENSORS.decode(etf.encode(term)) == etf.decode(etf.encode(term))


def test_a_tensor_of_an_older_nx() -> None:
    term = {k: v for k, v in TENSOR.items() if k != "vectorized_axes"}
    np.testing.assert_array_equal(TENSORS.decode(etf.encode(term)), [0, 0])


def test_tensors_in_odd_places() -> None:
    inner = {Atom("names"): [TENSOR]}
    found = TENSORS.decode(etf.encode(TENSOR | inner))
    np.testing.assert_array_equal(found[Atom("names")][0], [0, 0])
    without = {k: v for k, v in TENSOR.items() if k != "vectorized_axes"} | {Atom("other"): 1}
    assert TENSORS.decode(etf.encode(without)) == without


def test_masked_arrays_are_lists() -> None:
    masked = np.ma.masked_array([1, 2], [True, False])
    assert TENSORS.decode(TENSORS.encode(masked)) == Codec(structs=Structs()).decode(
        Codec(structs=Structs()).encode(masked)
    )


def test_arrays_of_other_elements_are_lists() -> None:
    assert TENSORS.decode(TENSORS.encode(np.array([True, False]))) == [True, False]
    assert LISTS.decode(LISTS.encode(np.array([1, 2]))) == [
        1,
        2,
    ]
