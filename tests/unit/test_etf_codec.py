"""Policies, limits and errors of the codec."""

from __future__ import annotations

import enum
import gc
import os
import pickle
import random
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections import OrderedDict, defaultdict
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router import etf
from router.errors import RouterError
from router.etf import Atom, Codec


def test_defaults_of_the_table() -> None:
    sent = {
        "text": "é", b"bytes": bytearray(b"x"), Atom("a"): memoryview(b"abcd")[::2],
        1: [1.5, True, False, None, (), [], {}], (1, 2): 2**100,
    }  # fmt: skip
    assert etf.decode(etf.encode(sent)) == {
        b"text": "é".encode(), b"bytes": b"x", Atom("a"): b"ac",
        1: [1.5, True, False, None, (), [], {}], (1, 2): 2**100,
    }  # fmt: skip


def test_subclasses_count_as_their_base() -> None:
    class Point(NamedTuple):
        x: int
        y: int

    class Number(enum.IntEnum):
        ONE = 1

    class Name(str):
        pass

    class Odd(int):
        def __index__(self) -> int:
            raise AssertionError("never asked")

    assert etf.decode(
        etf.encode([Point(1, 2), Number.ONE, Name("n"), OrderedDict(a=1), Odd(2**70)])
    ) == [(1, 2), 1, b"n", {b"a": 1}, 2**70]
    assert etf.decode(etf.encode(defaultdict(list, a=[1]))) == {b"a": [1]}


def test_policies_of_binaries() -> None:
    data = etf.encode({b"key": b"text", b"bad": b"\xff", b"\xfe": "é", b"deep": [b"x" * 5000]})
    text = Codec(binaries="str").decode(data)
    assert text == {"key": "text", "bad": b"\xff", b"\xfe": "é", "deep": ["x" * 5000]}
    views = Codec(binaries="memoryview").decode(data)
    assert list(views) == [b"key", b"bad", b"\xfe", b"deep"]
    view = views[b"deep"][0]
    assert type(view) is memoryview
    assert view.obj is data
    assert view.readonly
    assert view == b"x" * 5000


def test_views_of_a_bytearray_cannot_be_written() -> None:
    data = bytearray(etf.encode(b"x" * 10))
    view = Codec(binaries="memoryview").decode(data)
    with pytest.raises(TypeError):
        view[0] = 1
    with pytest.raises(BufferError):
        data.clear()
    del view
    data.clear()


def test_policy_of_strings() -> None:
    data = etf.encode([list(b"abc"), {1: list(b"x")}])
    assert Codec(strings="str").decode(data) == ["abc", {1: "x"}]
    # In keys a charlist stays one, or it could not be told from a binary.
    codec = Codec(strings="str", binaries="str")
    both = codec.decode(etf.encode({etf.FrozenList(b"ab"): 1, b"ab": 2}))
    assert both == {etf.FrozenList(b"ab"): 1, "ab": 2}


def test_policy_of_none() -> None:
    shop = Codec(none="undefined")
    assert shop.encode(None) == etf.encode(Atom("undefined"))
    assert shop.decode(shop.encode([None, Atom("nil")])) == [None, "nil"]
    assert type(shop.decode(shop.encode(Atom("nil")))) is Atom
    assert etf.decode(etf.encode(Atom("undefined"))) == "undefined"
    assert etf.decode(etf.encode(Atom("nil"))) is None
    pairs = shop.decode(shop.encode({None: 1, Atom("nil"): 2}))
    assert pairs == {None: 1, "nil": 2}


def test_policy_of_text() -> None:
    codec = Codec(text="atom")
    assert codec.encode(["ok", "é"]) == etf.encode([Atom("ok"), Atom("é")])
    assert codec.decode(codec.encode({"true": 1})) == {True: 1}
    with pytest.raises(etf.EncodeError, match="255"):
        codec.encode("x" * 256)
    with pytest.raises(etf.EncodeError, match="same term"):
        codec.encode({"true": 1, True: 2})


@pytest.mark.parametrize("level", [1, 6, 9])
def test_policy_of_compression(level: int) -> None:
    term = [b"again and again"] * 1000
    codec = Codec(compressed=level)
    data = codec.encode(term)
    assert data[1] == 80
    assert len(data) < 500
    assert etf.decode(data) == term
    assert codec.encode(1) == etf.encode(1)


def test_safe_refuses_what_can_be_abused() -> None:
    safe = Codec(safe=True)
    known = Atom("known_atom")
    assert safe.decode(etf.encode(known)) is known
    for data in (b"\x83w\x0bnever_heard", b"\x83s\x03\xff\xfe\xfd", etf.encode(
        etf.Export("known_atom", "known_atom", 1)
    )):  # fmt: skip
        with pytest.raises(etf.DecodeError, match="safe"):
            safe.decode(data)


@pytest.mark.parametrize(
    "bad",
    [
        {"binaries": "text"}, {"strings": "bytes"}, {"none": "null"}, {"text": "str"},
        {"compressed": 10}, {"compressed": -1}, {"max_depth": 0}, {"max_bytes": 0},
        {"binaries": None}, {"max_depth": 2**70},
    ],
)  # fmt: skip
def test_bad_policies_name_the_choices(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(bad))} must be"):
        Codec(**bad)


def test_policies_are_keywords_only_and_immutable() -> None:
    with pytest.raises(TypeError):
        Codec("str")  # type: ignore[misc]
    codec = Codec(binaries="str", max_depth=7)
    with pytest.raises(AttributeError):
        codec.binaries = "bytes"  # type: ignore[misc]
    assert codec == Codec(max_depth=7, binaries="str")
    assert codec != Codec()
    assert hash(codec) == hash(Codec(max_depth=7, binaries="str"))
    assert pickle.loads(pickle.dumps(codec)) == codec
    assert eval(repr(codec), {"Codec": Codec}) == codec


@pytest.mark.parametrize(
    ("term", "text"),
    [
        ({1, 2}, "cannot encode set"),
        ([1, (2, {"a": object()})], r"cannot encode object \(at \[1\]\[1\]\['a'\]\)"),
        (float("nan"), "nan"),
        (float("-inf"), "inf"),
        (["\ud800"], r"surrogates \(at \[0\]\)"),
        ((1, "\ud800"), r"surrogates \(at \[1\]\)"),
        (((1, {}), 2, (3, float("nan"))), r"nan \(at \[2\]\[1\]\)"),
        ((1, [], "a", float("nan")), r"nan \(at \[3\]\)"),
        ({"a": 1, b"a": 2}, "same term"),
        ({None: 1, Atom("nil"): 2}, "same term"),
        ({("a",): 1, (b"a",): 2}, "same term"),
        (1j, "complex"),
        (np.array([1.0, np.nan]), "nan"),
        (np.array([1j]), "complex"),
        (np.array(["2020-01-01"], dtype="M8[D]"), "date"),
        (np.array([object()]), "object"),
    ],
)
def test_what_is_no_term_is_named(term: object, text: str) -> None:
    with pytest.raises(etf.EncodeError, match=text) as caught:
        etf.encode(term)
    assert isinstance(caught.value, RouterError)


def test_loops_end_in_an_error() -> None:
    loop: list[object] = []
    loop.append(loop)
    table: dict[str, object] = {}
    table["self"] = (table,)
    array = np.empty(1, dtype=object)
    array[0] = array
    for term in (loop, table, array):
        with pytest.raises(etf.EncodeError, match="max_depth"):
            etf.encode(term)


def test_max_depth_counts_both_ways() -> None:
    codec = Codec(max_depth=3)
    three = [({1: 2},)]
    assert codec.decode(codec.encode(three)) == three
    with pytest.raises(etf.EncodeError, match="max_depth"):
        codec.encode([three])
    with pytest.raises(etf.DecodeError, match="max_depth"):
        codec.decode(etf.encode([three]))
    with pytest.raises(etf.EncodeError, match="max_depth"):
        codec.encode(np.zeros((1, 1, 1, 1)))
    assert codec.encode(np.ones((1, 1, 2))) == codec.encode([[[1.0, 1.0]]])


def test_max_bytes_counts_both_ways() -> None:
    codec = Codec(max_bytes=100)
    with pytest.raises(etf.EncodeError, match="max_bytes"):
        codec.encode(b"x" * 100)
    with pytest.raises(etf.DecodeError, match="max_bytes"):
        codec.decode(etf.encode(b"x" * 100))
    with pytest.raises(etf.DecodeError, match="limits"):
        codec.decode(Codec(compressed=9).encode(b"x" * 1000))
    assert codec.decode(codec.encode(b"x" * 90)) == b"x" * 90


class Meddler(np.ndarray[Any, Any]):
    """Changes the container it stands in while it is encoded."""

    container: Any

    def tolist(self) -> Any:
        if isinstance(self.container, list):
            self.container.clear()
        else:
            self.container.clear()
        return [1]


@pytest.mark.parametrize("kind", ["list", "dict", "dict key"])
def test_a_container_changed_meanwhile_raises(kind: str) -> None:
    meddler = np.array([None], dtype=object).view(Meddler)
    container: Any = [meddler, "b" * 50, "c"] if kind == "list" else {}
    if kind == "dict":
        container.update({"a": meddler, "b": "c" * 50})
    elif kind == "dict key":
        key = Holder(meddler)
        container.update({(key,): "v" * 50, "b": "c"})
    meddler.container = container
    with pytest.raises(etf.EncodeError):
        etf.encode(container)


class Holder(tuple):  # type: ignore[type-arg]
    """A hashable tuple holding what is not."""

    def __new__(cls, item: object) -> Any:
        return super().__new__(cls, (item,))

    def __hash__(self) -> int:
        return 1


def test_an_error_of_user_code_passes_through() -> None:
    class Failing(np.ndarray[Any, Any]):
        def tolist(self) -> Any:
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        etf.encode(np.array([None], dtype=object).view(Failing))


def test_user_code_may_encode_meanwhile() -> None:
    class Nested(np.ndarray[Any, Any]):
        def tolist(self) -> Any:
            return etf.encode(["inner" * 100, 1])

    term = ["a" * 100, np.array([None], dtype=object).view(Nested), "z"]
    assert etf.decode(etf.encode(term)) == [b"a" * 100, etf.encode(["inner" * 100, 1]), b"z"]


@pytest.mark.parametrize(
    "dtype",
    ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8", "?", ">i4", "<u2", "f2", "O"],
)
@pytest.mark.parametrize("shape", [(), (0,), (7,), (300,), (3, 4), (2, 0), (2, 3, 2)])
def test_arrays_are_nested_lists(dtype: str, shape: tuple[int, ...]) -> None:
    kind = np.dtype(dtype)
    count = int(np.prod(shape))
    if kind.kind in "iu":
        # Every magnitude, so that each form of integer is met.
        bits = kind.itemsize * 8
        values = [(i * 0x9E3779B97F4A7C15) % 2**64 >> (i % bits) for i in range(count)]
        array = np.array(values, "u8").astype(kind).reshape(shape)
    else:
        array = (np.arange(count) % 3).astype(kind).reshape(shape)
    array = np.asarray(array)
    for view in (array, array[::-1] if shape else array, array.T, np.asfortranarray(array)):
        assert etf.encode(view) == etf.encode(view.tolist()), view


@pytest.mark.parametrize(
    "scalar",
    [np.int8(-5), np.uint64(2**64 - 1), np.float32(1.5), np.float64(2.5), np.bool_(True),
     np.str_("text"), np.bytes_(b"x"), np.float16(0.5), np.longdouble(1.5)],
    ids=lambda s: type(s).__name__,
)  # fmt: skip
def test_numpy_scalars_are_numbers(scalar: Any) -> None:
    assert etf.encode(scalar) == etf.encode(scalar.item() if scalar.dtype != "g" else 1.5)


# Hostile bytes


def u32(n: int) -> bytes:
    return struct.pack(">I", n)


def test_nesting_a_million_deep_is_refused() -> None:
    for one in (b"l" + u32(1), b"h\x01", b"t" + u32(1), b"t" + u32(1) + b"a\x01"):
        with pytest.raises(etf.DecodeError, match=r"max_depth|256 deep"):
            etf.decode(b"\x83" + one * 1_000_000)


@pytest.mark.parametrize("depth", [9_999, 200_000])
def test_deep_terms_within_the_limit_come_and_go(depth: int) -> None:
    codec = Codec(max_depth=200_000)
    for one, end in ((b"l" + u32(1), b"j"), (b"h\x01", b""), (b"t" + u32(1) + b"a\x01", b"")):
        data = b"\x83" + one * depth + b"j" + end * depth
        term = codec.decode(data)
        assert codec.encode(term) == data
        del term


def peak(data: bytes) -> int:
    tracemalloc.start()
    try:
        etf.decode(data)
    except etf.DecodeError:
        pass
    finally:
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return size


@pytest.mark.parametrize("tag", [b"l", b"t", b"i", b"m", b"o", b"p"])
def test_claimed_lengths_take_no_memory(tag: bytes) -> None:
    assert peak(b"\x83" + tag + b"\xff\xff\xff\xff" + bytes(100)) < 20_000


def test_nested_claims_do_not_multiply_memory() -> None:
    """Each level claims all that is left: together they may promise it only once."""
    size = 200_000
    levels = 2000
    data = b"\x83" + b"".join(b"l" + u32(size - 5 * i - 10) for i in range(levels)) + bytes(size)
    assert peak(data) < 20 * len(data)


def test_a_bomb_of_zeros_is_refused() -> None:
    body = zlib.compress(bytes(1 << 26), 9)
    with pytest.raises(etf.DecodeError, match="compressed"):
        etf.decode(b"\x83P" + u32(1 << 30) + body)
    assert peak(b"\x83P" + u32(1 << 30) + body[:1000]) < 4_000_000


def test_a_chain_of_tails_is_linear() -> None:
    """[1|[2|[3|...]]], each tail its own list, is one flat list."""
    n = 300_000
    data = b"\x83" + (b"l" + u32(1) + b"a\x07") * n + b"j"
    assert etf.decode(data) == [7] * n
    data = b"\x83" + b"l" + u32(0) + (b"l" + u32(0)) * 1000 + b"a\x05"
    assert etf.decode(data) == 5


@pytest.mark.parametrize("keys", [
    [k * (2**61 - 1) for k in range(1, 60_000)],
    [2 ** (61 * k) for k in range(1000)],
])  # fmt: skip
def test_keys_of_one_hash_do_not_stall_the_decoder(keys: list[int]) -> None:
    data = b"\x83t" + u32(len(keys)) + b"".join(etf.encode(k)[1:] + b"j" for k in keys)
    term = etf.decode(data)
    assert len(term) == len(keys)
    # A dict of them would take quadratic time.
    assert type(term) is etf.Map
    assert keys[-1] in term
    assert etf.encode(term) == data


def test_colliding_keys_make_a_map_and_equal_keys_an_error() -> None:
    def pairs(*keys: bytes) -> bytes:
        return b"\x83t" + u32(len(keys)) + b"".join(k + b"a\x09" for k in keys)

    one, float_one, true = b"a\x01", b"F" + struct.pack(">d", 1.0), b"w\x04true"
    term = etf.decode(pairs(one, float_one, true))
    assert type(term) is etf.Map
    assert list(map(type, term)) == [int, float, bool]
    assert etf.encode(term) == pairs(one, float_one, true)
    for twice in (
        (one, one),
        (one, float_one, one),
        (b"b" + u32(1), one),
        (b"j", b"l" + u32(0) + b"j"),
    ):
        with pytest.raises(etf.DecodeError, match="twice"):
            etf.decode(pairs(*twice))
    zeros = etf.decode(pairs(b"F" + bytes(8), b"F\x80" + bytes(7)))
    assert type(zeros) is etf.Map
    assert len(zeros) == 2


def test_unhashable_keys_become_frozen() -> None:
    data = etf.encode(
        {etf.FrozenList([1, etf.FrozenList()]): 1, etf.Map({b"a": etf.FrozenList()}): 2}
    )
    term = etf.decode(data)
    assert list(map(type, term)) == [etf.FrozenList, etf.Map]
    assert etf.encode(term) == data
    assert term[etf.FrozenList([1, etf.FrozenList()])] == 1


def test_an_integer_of_a_million_digits_is_shown_and_sent() -> None:
    number = 1 << 4_000_000
    assert etf.decode(etf.encode(number)) == number
    assert etf.decode(etf.encode(-number)) == -number
    assert etf.format([number]).startswith("[16#1000")


def test_an_empty_input_and_a_wrong_version() -> None:
    for data, text in ((b"", "empty"), (b"\x82a\x01", "131")):
        with pytest.raises(etf.DecodeError, match=text) as caught:
            etf.decode(data)
        assert caught.value.offset == 0
        assert caught.value.data is None
    with pytest.raises(TypeError):
        etf.decode("text")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="offset"):
        etf.decode_prefix(b"\x83a\x01", 4)


def test_errors_pickle() -> None:
    error = etf.DecodeError("no", 3, b"x")
    again = pickle.loads(pickle.dumps(error))
    assert (again.message, again.offset, again.data, str(again)) == (
        "no",
        3,
        b"x",
        "no (at byte 3)",
    )


def test_nothing_leaks() -> None:
    good = etf.encode([{f"k{i}": (i, float(i), Atom("a")) for i in range(50)}, PID])
    bad = [good[:n] for n in range(0, len(good), 11)]

    def once() -> None:
        term = etf.decode(good)
        etf.encode(term)
        Codec(binaries="str").decode(good)
        Codec(binaries="memoryview").decode(good)
        for data in bad:
            try:
                etf.decode(data)
            except etf.DecodeError:
                pass
        try:
            etf.encode([term, {1: object()}])
        except etf.EncodeError:
            pass
        etf.decode(etf.encode({1: 2, "b": 3, (1,): etf.Map([(1, 2), (1.0, 3)])}))

    # Python's own free lists come and go; a leak grows in every round.
    grown = []
    for _ in range(4):
        gc.collect()
        before = sys.getallocatedblocks()
        for _ in range(500):
            once()
        gc.collect()
        grown.append(sys.getallocatedblocks() - before)
    assert min(grown) < 100, grown


PID = etf.Pid("shop@127.0.0.1", 85, 0, 7)

atoms = (
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    .filter(lambda s: s not in ("true", "false", "nil"))
    .map(Atom)
)
leaves = (
    st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.binary(max_size=40)
    | atoms | st.booleans() | st.none()
    | st.builds(etf.Pid, st.sampled_from(["a@b", "é@π"]), st.integers(0, 2**32 - 1),
                st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
    | st.builds(etf.Reference, st.just("a@b"), st.integers(0, 2**32 - 1),
                st.lists(st.integers(0, 2**32 - 1), max_size=5))
    | st.builds(etf.BitString, st.binary(min_size=1, max_size=9), st.integers(1, 7))
)  # fmt: skip
keys = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=4)
terms = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(keys, inner, max_size=5)
        | st.builds(etf.ImproperList, st.lists(inner, min_size=1, max_size=3), leaves)
    ),
    max_leaves=25,
)


def clash(term: Any) -> bool:
    """Whether a dict somewhere holds two keys that are one term, such as nil twice."""
    try:
        etf.encode(term)
    except etf.EncodeError as error:
        return "same term" in str(error)
    return False


@settings(max_examples=400, derandomize=True, deadline=None)
@given(terms.filter(lambda t: not clash(t)))
def test_any_term_goes_round(term: Any) -> None:
    data = etf.encode(term)
    assert etf.decode(data) == term
    assert etf.encode(etf.decode(data)) == data
    assert Codec(binaries="str").encode(Codec(binaries="str").decode(data)) == data
    assert etf.compare(term, etf.decode(data)) == 0


@settings(max_examples=1000, derandomize=True, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_give_a_term_or_an_error(data: bytes) -> None:
    try:
        etf.decode(b"\x83" + data)
    except etf.DecodeError as error:
        assert 0 <= error.offset <= len(data) + 1  # noqa: PT017


KEYS = [
    "a", "b", b"a", b"b", Atom("a"), Atom("nil"), Atom("true"), Atom("undefined"), "nil", "true",
    None, True, False, 0, 1.5, 2, ("a",), (b"a",), "é", "é".encode(),
]  # fmt: skip


@pytest.mark.parametrize(
    "policy", [{}, {"binaries": "str"}, {"none": "undefined"}, {"text": "atom"}], ids=str
)
def test_keys_meet_exactly_when_their_bytes_do(policy: dict[str, Any]) -> None:
    """In every order: a key may be the first of its kind after many of another."""
    codec, draw = etf.Codec(**policy), random.Random(5)
    refused = 0
    for _ in range(5000):
        keys = draw.sample(KEYS, draw.randint(1, 6))
        term = {key: draw.choice([1, "x", [1, 2], {"q": 1}]) for key in keys}
        pairs = [(codec.encode(k)[1:], codec.encode(v)[1:]) for k, v in term.items()]
        if len({key for key, _ in pairs}) < len(pairs):
            refused += 1
            with pytest.raises(etf.EncodeError, match="same term"):
                codec.encode(term)
        else:
            head = b"\x83t" + len(pairs).to_bytes(4, "big")
            assert codec.encode(term) == head + b"".join(k + v for k, v in pairs)
    assert 500 < refused < 4500


CLEARED_BY_THE_COLLECTOR = """
import gc
import os
from router import etf

class Bad:  # in a cycle: the collector ends it
    def __init__(self, container):
        self.me, self.container = self, container
    def __del__(self):
        self.container.clear()

def encode(container):
    try:
        1 / 0
    except ZeroDivisionError:  # so that Python makes the next exception's object at once
        gc.enable()
        try:
            return etf.encode(container)
        except etf.EncodeError as e:
            return str(e)
        finally:
            gc.disable()

for i in range(200):
    container = MAKE
    gc.disable()
    gc.collect()
    Bad(container)
    junk = [[] for _ in range(6)]
    gc.set_threshold(1, 1000, 1000)
    found = encode(container)
    gc.set_threshold(1000, 10, 10)
    assert not container
print(found)
"""


@pytest.mark.parametrize(
    "made",
    [
        "[tuple([i] * 40 + [float('nan')])]",  # the leaf that fails
        "{f'k{i}' * 30: ['v'] * 100, (b'b%d' % i) * 30: [f'v{i}'] * 200}",  # keys that may meet
    ],
)
def test_the_collector_may_take_away_what_is_encoded(made: str) -> None:
    """Whoever it calls finds a container that is being encoded, and may empty it."""
    done = subprocess.run(
        [sys.executable, "-c", CLEARED_BY_THE_COLLECTOR.replace("MAKE", made)],
        env=os.environ | {"PYTHONMALLOC": "debug"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "nan" in done.stdout or "changed size" in done.stdout
