"""The types of terms: identity, equality, order, hashing, pickling, repr."""

from __future__ import annotations

import copy
import gc
import pickle
import sys
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence

import pytest

from router import etf
from router.etf import Atom

PID = etf.Pid("shop@127.0.0.1", 85, 0, 7)
REF = etf.Reference("a@b", 3, (1, 2, 3))
PORT = etf.Port("a@b", 5, 6)
FUN = etf.Fun(
    bytes.fromhex(
        "70000000490200000000000000000123456789abcdef000000030000000077016d62ffffffff"
        "6e04010900000058770e73686f70403132372e302e302e31000000010000000200000003"
    )
)
OWN = [
    Atom("ok"), Atom(""), Atom("é" * 255), PID, REF, etf.Reference("a@b", 3, ()), PORT, FUN,
    etf.Port("a@b", 2**64 - 1, 6), etf.Export("m", "f", 2), etf.BitString(b"\xff\xff", 3),
    etf.ImproperList([1, [2]], Atom("x")), etf.Map([(1, b"a"), (1.0, [2]), (True, None)]),
    etf.FrozenList([1, (2,)]), etf.FrozenList(),
]  # fmt: skip


@pytest.mark.parametrize("term", OWN, ids=repr)
def test_every_type_pickles_copies_and_goes_round(term: object) -> None:
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(term, protocol))
        assert again == term
        assert type(again) is type(term)
    assert copy.copy(term) == term
    assert copy.deepcopy(term) == term
    if isinstance(term, etf.FrozenList):
        assert etf.decode(etf.encode(term)) == list(term)
        assert next(iter(etf.decode(etf.encode({term: 1})))) == term
    else:
        assert etf.decode(etf.encode(term)) == term


@pytest.mark.parametrize("term", OWN, ids=repr)
def test_every_type_is_closed(term: object) -> None:
    with pytest.raises(TypeError):
        type("Sub", (type(term),), {})
    with pytest.raises((AttributeError, TypeError)):
        term.other = 1  # type: ignore[attr-defined]
    with pytest.raises(TypeError):
        type(term).other = 1  # type: ignore[attr-defined]


def test_repr_names_the_node() -> None:
    assert repr(PID) == "#Pid<shop@127.0.0.1.85.0>"
    assert repr(REF) == "#Ref<a@b.3.2.1>"
    assert repr(PORT) == "#Port<a@b.5>"
    assert repr(Atom("it's")) == 'Atom("it\'s")'
    assert str(Atom("ok")) == "ok"
    assert type(str(Atom("ok"))) is str
    assert repr(etf.Export("m", "f", 2)) == "fun m:f/2"
    assert repr(etf.BitString(b"\xff", 3)) == "BitString(b'\\xe0', 3)"
    assert repr(etf.ImproperList([1], 2)) == "ImproperList([1], 2)"
    assert repr(etf.Map({1: 2})) == "Map([(1, 2)])"


def test_fields_are_those_given() -> None:
    assert (PID.node, PID.id, PID.serial, PID.creation) == ("shop@127.0.0.1", 85, 0, 7)
    assert type(PID.node) is Atom
    assert (REF.node, REF.creation, REF.words) == ("a@b", 3, (1, 2, 3))
    assert (PORT.node, PORT.id, PORT.creation) == ("a@b", 5, 6)
    assert (FUN.module, FUN.arity, FUN.index, FUN.old_index) == ("m", 2, 3, -1)
    assert (len(FUN.uniq), FUN.free_vars, FUN.pid.node) == (16, (), "shop@127.0.0.1")
    assert etf.BitString(b"ab", 3).bit_size == 11
    match PID:
        case etf.Pid(node, number, _, creation):
            assert (node, number, creation) == ("shop@127.0.0.1", 85, 7)
        case _:
            pytest.fail("a Pid does not match its own pattern")


def test_an_atom_matches_a_literal() -> None:
    match (Atom("ok"), 1):
        case ("ok", value):
            assert value == 1
        case _:
            pytest.fail("an Atom does not match a literal")


def test_one_object_per_atom() -> None:
    a = Atom("some_atom")
    assert Atom("some_atom") is a
    assert etf.decode(etf.encode(a)) is a
    assert pickle.loads(pickle.dumps(a)) is a
    assert copy.deepcopy(a) is a
    assert hash(a) == hash("some_atom")
    assert a == "some_atom"
    assert Atom(a) is a


@pytest.mark.parametrize("name", ["x" * 256, "\ud800"])
def test_bad_atoms_raise(name: str) -> None:
    with pytest.raises(ValueError, match=r"255|surrogates"):
        Atom(name)


@pytest.mark.parametrize("name", [b"x", 1, None])
def test_atoms_are_made_of_text(name: object) -> None:
    with pytest.raises(TypeError):
        Atom(name)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "make",
    [
        lambda: etf.Pid("a@b", 2**32, 0, 0),
        lambda: etf.Pid("a@b", -1, 0, 0),
        lambda: etf.Pid("x" * 256, 0, 0, 0),
        lambda: etf.Port("a@b", 2**64, 0),
        lambda: etf.Reference("a@b", 1, [1] * 6),
        lambda: etf.Reference("a@b", 1, [2**32]),
        lambda: etf.Export("m", "f", -1),
        lambda: etf.Export("m", "f", 2**31),
        lambda: etf.Export("m", "f", 2**70),
        lambda: etf.BitString(b"a", 2**70),
        lambda: etf.BitString(b"a", 8),
        lambda: etf.BitString(b"a", 0),
        lambda: etf.BitString(b"", 1),
        lambda: etf.ImproperList([], 1),
        lambda: etf.ImproperList([1], [2]),
        lambda: etf.Fun(b"\x6a"),
    ],
)
def test_bad_parts_raise(make: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        make()  # type: ignore[operator]


def test_a_bitstring_never_touches_bytes_that_python_shares() -> None:
    etf.BitString(b"\xff", 1)
    assert bytes([255])[0] == 255
    assert bytes.fromhex("ff") == b"\xff"


def test_maps_tell_keys_apart_as_erlang_does() -> None:
    m = etf.Map([(1, "int"), (1.0, "float"), (True, "true"), (0.0, "plus"), (-0.0, "minus")])
    assert len(m) == 5
    assert m[1] == "int"
    assert m[1.0] == "float"
    assert m[True] == "true"
    assert m[Atom("true")] == "true"
    assert m[-0.0] == "minus"
    assert m.get(2) is None
    assert m.get(2, "x") == "x"
    assert 0.0 in m
    assert {1} not in m
    assert list(m) == [1, 1.0, True, 0.0, -0.0]
    assert next(iter(m.items())) == (1, "int")
    assert list(m.values())[1] == "float"
    assert isinstance(m, Mapping)
    with pytest.raises(KeyError):
        m[2]
    assert etf.Map({1: 2}) == {1: 2}
    assert etf.Map({1: 2}) == {1: 2}
    assert etf.Map({1: 2}) != {1.0: 2}
    assert hash(etf.Map({1: 2, 3: 4})) == hash(etf.Map({3: 4, 1: 2}))
    with pytest.raises(TypeError):
        hash(etf.Map({1: []}))


def test_frozen_lists_are_sequences() -> None:
    f = etf.FrozenList([1, 2, 3])
    assert isinstance(f, Sequence)
    assert f == [1, 2, 3]
    assert f != (1, 2, 3)
    assert f[0] == 1
    assert f[1:] == (2, 3)
    assert 2 in f
    assert hash(f) == hash(etf.FrozenList((1, 2, 3)))
    assert hash(f) != hash((1, 2, 3))


def test_order_among_one_kind() -> None:
    pids = [etf.Pid("a@b", i, s, 1) for s in range(2) for i in range(3)]
    assert pids == sorted([*pids[3:], *pids[:3]])
    assert etf.compare(pids[0], pids[1]) == -1
    assert etf.Reference("a@b", 1, (5, 1)) > etf.Reference("a@b", 1, (9, 0))
    with pytest.raises(TypeError):
        _ = PID < REF  # type: ignore[operator]


def test_order_of_all_terms() -> None:
    ordered: list[object] = [
        -1, 0, 1.5, 2, Atom("a"), None, True, REF, FUN, etf.Export("m", "f", 1), PORT, PID, (),
        (9,), (1, 2), {}, {1: 2}, {1: 3}, {2: 0}, {1.0: 0}, [], [1], [1, 2],
        etf.ImproperList([1, 2], b"x"), [2], b"", etf.BitString(b"\x00", 1), b"a", "b",
    ]  # fmt: skip
    # An integer key is less than a float key, whatever its value.
    for i, a in enumerate(ordered):
        for j, b in enumerate(ordered):
            assert etf.compare(a, b) == (i > j) - (i < j), (a, b)
    assert etf.compare(1, 1.0) == 0
    assert etf.compare([1], etf.FrozenList([1])) == 0
    assert etf.compare({1: 2}, etf.Map({1: 2})) == 0
    with pytest.raises(TypeError):
        etf.compare(1, {2})


def test_a_deep_term_is_compared_and_freed_without_recursion() -> None:
    deep: object = 1
    other: object = 2
    for _ in range(9000):
        deep, other = [deep], [other]
    assert etf.compare(deep, other) == -1
    term: object = Atom("end")
    for _ in range(200_000):
        term = etf.ImproperList([term], 1)
    del term
    term = ()
    for _ in range(200_000):
        term = etf.FrozenList([term])
    del term


def test_deep_terms_hash_and_print_with_an_error_at_worst() -> None:
    term: object = 1
    for _ in range(100_000):
        term = etf.ImproperList([term], 1)
    with pytest.raises(RecursionError):
        hash(term)
    with pytest.raises(RecursionError):
        repr(term)


@pytest.mark.parametrize(
    "make",
    [
        lambda inner: etf.ImproperList([inner], 1),
        lambda inner: etf.ImproperList([1], (inner,)),
        lambda inner: etf.FrozenList([inner]),
        lambda inner: etf.Map({1: inner}),
    ],
    ids=["items", "tail", "frozen", "map"],
)
def test_cycles_are_collected(make: Callable[[object], object]) -> None:
    class Probe:
        pass

    probe = Probe()
    gone = weakref.ref(probe)
    loop: list[object] = [probe]
    loop.append(make(loop))
    del loop, probe
    gc.collect()
    assert gone() is None


def test_atoms_of_a_flood_are_freed() -> None:
    gc.collect()
    live_before = _live_atoms()
    for i in range(60_000):
        etf.decode(etf.encode(Atom(f"flood_{i}")))
    assert _live_atoms() - live_before <= 8192


def _live_atoms() -> int:
    """How many of the flood's atoms still exist, seen by a codec that makes none."""
    safe = etf.Codec(safe=True)
    count = 0
    for i in range(60_000):
        name = f"flood_{i}".encode()
        try:
            safe.decode(b"\x83w" + bytes([len(name)]) + name)
            count += 1
        except etf.DecodeError:
            pass
    return count


def test_atoms_made_in_many_threads_are_the_same_objects() -> None:
    names = [f"threaded_{i}" for i in range(2000)]
    made: list[list[Atom]] = []

    def work() -> None:
        made.append([Atom(name) for name in names])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(len({id(a) for a in same}) == 1 for same in zip(*made, strict=True))


def test_references_are_counted_right() -> None:
    key, value = Atom("counted_key"), Atom("counted_value")
    node = Atom("counted@node")
    data = etf.encode(
        [{key: value}, (value, value), etf.ImproperList([value], value), {(key, key): value},
         {etf.FrozenList([key]): {value: 1}}, etf.Pid(node, 1, 2, 3), etf.Export(key, value, 1)]
    )  # fmt: skip
    etf.decode(data)
    before = [sys.getrefcount(x) for x in (key, value, node, None, True, data)]
    for _ in range(100):
        term = etf.decode(data)
        etf.encode(term)
        hash(term[2])
        repr(term)
        etf.compare(term, term)
        for cut in range(0, len(data), 7):
            with pytest.raises(etf.DecodeError):
                etf.decode(data[:cut])
        with pytest.raises(etf.EncodeError):
            etf.encode([key, {value: {key}}])
        del term
    gc.collect()
    after = [sys.getrefcount(x) for x in (key, value, node, None, True, data)]
    # None and True are used everywhere; what must not happen is growth with the loop.
    assert all(abs(b - a) < 50 for a, b in zip(before, after, strict=True)), (before, after)


def test_a_reference_in_the_memory_of_one_that_ended_is_a_new_one() -> None:
    """Ended references lend their memory to new ones: of other words, of another length, many."""
    of_type = sys.getrefcount(etf.Reference)

    def make(seed: int, node: Atom) -> list[etf.Reference]:
        # Names of 1 and of 17 bytes end in the same list of ended ones.
        return [etf.Reference(node, seed, range(i, i + i % 6)) for i in range(400)]

    short, long = Atom("n"), Atom("n" * 17)
    gc.collect()
    nodes = [sys.getrefcount(short), sys.getrefcount(long)]
    for seed in range(20):
        for node in (short, long):
            ended = make(seed, node)
            hashes = {hash(ref) for ref in ended}
            del ended
            made = make(seed + 1, node)
            assert [(r.node, r.creation, r.words) for r in made] == [
                (node, seed + 1, tuple(range(i, i + i % 6))) for i in range(400)
            ]
            assert hashes.isdisjoint(hash(ref) for ref in made)
            assert etf.decode(etf.encode(made)) == made
            del made, node
    assert [sys.getrefcount(short), sys.getrefcount(long)] == nodes
    # Each kept one holds its type, and at most 256 are kept.
    kept = sys.getrefcount(etf.Reference)
    assert abs(kept - of_type) <= 256
    # The memory of sizes no longer asked for makes way; that of the others is used again.
    for _ in range(40):
        held = [etf.Reference(short, 0, (1, 2, 3)) for _ in range(5)]
        del held
    kept = sys.getrefcount(etf.Reference)
    held = [etf.Reference(short, 0, (1, 2, 3)) for _ in range(5)]
    now = sys.getrefcount(etf.Reference)
    assert now == kept
    blocks = sys.getallocatedblocks()
    for i in range(2000):
        etf.Reference(short, 0, (1,) if i % 2 else (1, 2, 3, 4, 5))
    assert sys.getallocatedblocks() < blocks + 500
    # Identifiers of other types, as long as a reference.
    del held[:2]
    ports = [etf.Port("nnnnn", i, 0) for i in range(5)]
    same = [etf.Reference("nnn", 0, (i, i)) for i in range(5)]
    del ports
    assert [type(r) for r in (*held, *same)] == [etf.Reference] * 8
    del same
    assert type(etf.Port("nnnnn", 1, 0)) is etf.Port
    assert [type(etf.Reference("nnn", 0, (i, i))) for i in range(5)] == [etf.Reference] * 5
