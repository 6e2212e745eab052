"""Classes that stand for Elixir's structs, and the hooks of one's own classes."""

from __future__ import annotations

import copy
import dataclasses
import datetime as dt
import decimal
import gc
import pickle
import time
import weakref
import zoneinfo
from collections.abc import Callable
from typing import Any, NamedTuple

import attrs
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router import etf
from router._structs import module_atom
from router.etf import Atom, Codec, DecodeError, EncodeError, Structs

STRUCT = Atom("__struct__")
CODEC = Codec(structs=Structs())
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
ISO = {Atom("calendar"): Atom("Elixir.Calendar.ISO")}
NOON = ISO | {Atom("hour"): 12, Atom("minute"): 0, Atom("second"): 0}
NEW_YEAR = ISO | {Atom("year"): 2026, Atom("month"): 1, Atom("day"): 1}
IN_UTC = {
    Atom("time_zone"): b"Etc/UTC", Atom("zone_abbr"): b"UTC", Atom("utc_offset"): 0,
    Atom("std_offset"): 0,
}  # fmt: skip


def struct(module: str, fields: dict[Atom, Any] | None = None, **named: Any) -> dict[Atom, Any]:
    return {STRUCT: module_atom(module), **(fields or {}), **{Atom(k): v for k, v in named.items()}}


PAIRS: list[tuple[Any, dict[Atom, Any]]] = [
    (dt.date(2026, 1, 1), struct("Date", NEW_YEAR)),
    (dt.time(12), struct("Time", NOON, microsecond=(0, 0))),
    (dt.time(12, microsecond=40), struct("Time", NOON, microsecond=(40, 6))),
    (dt.datetime(2026, 1, 1, 12), struct("NaiveDateTime", NEW_YEAR | NOON, microsecond=(0, 0))),
    (
        dt.datetime(2026, 1, 1, 12, 0, 0, 7, dt.UTC),
        struct("DateTime", NEW_YEAR | NOON | IN_UTC, microsecond=(7, 6)),
    ),
    (
        dt.datetime(2026, 7, 1, 12, tzinfo=BERLIN),
        struct("DateTime", NEW_YEAR | NOON, month=7, microsecond=(0, 0), utc_offset=3600,
               std_offset=3600, time_zone=b"Europe/Berlin", zone_abbr=b"CEST"),
    ),
    (decimal.Decimal("-12.340"), struct("Decimal", sign=-1, coef=12340, exp=-3)),
    (decimal.Decimal("0E+7"), struct("Decimal", sign=1, coef=0, exp=7)),
    (decimal.Decimal("-0"), struct("Decimal", sign=-1, coef=0, exp=0)),
    (decimal.Decimal("-Infinity"), struct("Decimal", sign=-1, coef=Atom("inf"), exp=0)),
    (frozenset({1, (2, b"x")}), struct("MapSet", map={1: [], (2, b"x"): []})),
    (frozenset(), struct("MapSet", map={})),
    (range(1, 10, 2), struct("Range", first=1, last=9, step=2)),
    (range(5, 1, -1), struct("Range", first=5, last=2, step=-1)),
    (range(1, 1), struct("Range", first=1, last=0, step=1)),
    (
        etf.Version(1, 2, 3, ("rc", 1), "b"),
        struct("Version", major=1, minor=2, patch=3, pre=[b"rc", 1], build=b"b"),
    ),
    (etf.Version(1, 2, 3), struct("Version", major=1, minor=2, patch=3, pre=[], build=None)),
]  # fmt: skip


@pytest.mark.parametrize(("value", "term"), PAIRS, ids=[repr(value) for value, _ in PAIRS])
def test_elixirs_own(value: Any, term: dict[Atom, Any]) -> None:
    assert etf.decode(CODEC.encode(value)) == term
    found = CODEC.decode(etf.encode(term))
    assert found == value
    assert type(found) is type(value)
    assert str(found) == str(value)


@pytest.mark.parametrize("policy", [
    {"binaries": "str"}, {"binaries": "memoryview"}, {"none": "undefined"}, {"strings": "str"},
    {"compressed": 9},
], ids=str)  # fmt: skip
def test_with_every_policy(policy: dict[str, Any]) -> None:
    codec = Codec(structs=Structs(), **policy)
    values = [value for value, _ in PAIRS]
    if "binaries" in policy:
        values = [v for v in values if not isinstance(v, frozenset)]
    found = codec.decode(codec.encode(values))
    assert found == values
    assert codec.decode(codec.encode(found)) == values


def test_text_as_atoms_leaves_the_texts_of_structs() -> None:
    codec = Codec(structs=Structs(), text="atom")
    for value, term in PAIRS:
        assert etf.decode(codec.encode(value)) == term


def test_nan_and_a_set() -> None:
    assert CODEC.decode(CODEC.encode(decimal.Decimal("NaN"))).is_nan()
    assert CODEC.decode(CODEC.encode({1, 2})) == frozenset({1, 2})


def test_a_precision_is_remembered() -> None:
    for fields, module in ((NOON, "Time"), (NEW_YEAR | NOON, "NaiveDateTime"),
                           (NEW_YEAR | NOON | IN_UTC, "DateTime")):  # fmt: skip
        for microsecond in ((120_000, 3), (0, 6), (0, 3), (120_000, 2)):
            data = etf.encode(struct(module, fields, microsecond=microsecond))
            found = CODEC.decode(data)
            assert isinstance(found, (dt.time, dt.datetime))
            assert found.microsecond == microsecond[0]
            assert etf.decode(CODEC.encode(found)) == etf.decode(data)
            for copied in (
                pickle.loads(pickle.dumps(found)),
                copy.copy(found),
                copy.deepcopy(found),
            ):
                assert copied == found
                assert CODEC.encode(copied) == CODEC.encode(found)
            assert repr(found).startswith("datetime.")


def test_both_hours_of_an_autumn_night() -> None:
    for fold, name in ((0, "CEST"), (1, "CET")):
        value = dt.datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=fold)
        found = CODEC.decode(CODEC.encode(value))
        assert (found.fold, found.tzname()) == (fold, name)


def test_a_set_of_an_older_elixir_goes_back_as_it_came() -> None:
    data = etf.encode(struct("MapSet", map={1: [], 2: []}, version=2))
    found = CODEC.decode(data)
    assert found == {1, 2}
    assert repr(found) == "frozenset({1, 2})"
    assert etf.decode(CODEC.encode(found)) == etf.decode(data)


def test_structs_are_elements_of_sets() -> None:
    held = frozenset({dt.date(2026, 1, 1), frozenset({range(3)}), (dt.date(2026, 1, 2),)})
    found = CODEC.decode(CODEC.encode(held))
    inside = next(element for element in found if isinstance(element, tuple))
    assert found - {inside} == held - {(dt.date(2026, 1, 2),)}
    # Deeper in a key they stay maps.
    assert isinstance(inside[0], etf.Map)
    assert etf.decode(CODEC.encode(found)) == etf.decode(CODEC.encode(held))


ODD = [
    struct("Date", NEW_YEAR, year=0),
    struct("Date", NEW_YEAR, day=32),
    struct("Date", NEW_YEAR, day=True),
    struct("Date", NEW_YEAR, day=2**70),
    struct("Date", NEW_YEAR, era=1),
    struct("Date", NEW_YEAR, calendar=Atom("Elixir.Other")),
    struct("Time", NOON, microsecond=(0, 7)),
    struct("Time", NOON, microsecond=(10**6, 6)),
    struct("Time", NOON, microsecond=0),
    struct("Time", NOON, second=60, microsecond=(0, 0)),
    struct("NaiveDateTime", NEW_YEAR | NOON, year=10_000, microsecond=(0, 0)),
    struct("DateTime", NEW_YEAR | NOON | IN_UTC, microsecond=(0, 0), time_zone=b"Mars/Olympus"),
    struct("DateTime", NEW_YEAR | NOON | IN_UTC, microsecond=(0, 0), time_zone=b"../etc/passwd"),
    struct("DateTime", NEW_YEAR | NOON | IN_UTC, microsecond=(0, 0), time_zone=b"\xff"),
    struct("DateTime", NEW_YEAR | NOON | IN_UTC, microsecond=(0, 0), time_zone=7),
    struct("DateTime", NEW_YEAR | NOON | IN_UTC, microsecond=(0, 0), utc_offset=1),
    struct("DateTime", NEW_YEAR | NOON | IN_UTC, microsecond=(0, 0), zone_abbr=b"GMT"),
    struct("DateTime", NEW_YEAR | NOON | IN_UTC, year=1, microsecond=(0, 0), utc_offset=46800,
           time_zone=b"Pacific/Apia", zone_abbr=b"+13"),
    struct("Decimal", sign=0, coef=1, exp=0),
    struct("Decimal", sign=1, coef=-1, exp=0),
    struct("Decimal", sign=1, coef=1, exp=10**30),
    struct("Decimal", sign=1, coef=Atom("qNaN"), exp=0),
    struct("Decimal", sign=1, coef=Atom("inf"), exp=1),
    struct("Decimal", sign=1, coef=10**20_000, exp=0),
    struct("Decimal", sign=1.0, coef=1, exp=0),
    struct("MapSet", map={1: [2]}),
    struct("MapSet", map=[1]),
    struct("MapSet", map={1: []}, version=3),
    struct("MapSet", map=etf.Map([(1, []), (1.0, [])])),
    struct("Range", first=1, last=2),
    struct("Range", first=1, last=2, step=0),
    struct("Range", first=1.0, last=2, step=1),
    struct("Version", major=1, minor=2, patch=3, pre=[b"\xff"], build=None),
    struct("Version", major=1, minor=2, patch=3, pre=[], build=7),
    struct("Version", major=1, minor=2, patch=b"3", pre=[], build=None),
    struct("DateTime", NEW_YEAR | NOON | IN_UTC, microsecond=(0, 0), time_zone=b"a/" * 500 + b"b"),
    struct("Nobody.Knows", a=1),
    {STRUCT: b"Elixir.Date", **NEW_YEAR},
    {STRUCT: 7},
]  # fmt: skip


@pytest.mark.parametrize("term", ODD, ids=[str(term[STRUCT]) for term in ODD])
def test_what_python_cannot_say_stays_a_map(term: dict[Atom, Any]) -> None:
    data = etf.encode([term])
    assert CODEC.decode(data) == etf.decode(data)
    assert CODEC.encode(CODEC.decode(data)) == data


@settings(max_examples=60)
@given(st.recursive(
    st.one_of(
        st.dates(), st.times(), st.datetimes(), st.integers(), st.decimals(allow_nan=False),
        st.datetimes(timezones=st.just(dt.UTC)), st.datetimes(timezones=st.just(BERLIN)),
        st.builds(range, st.integers(), st.integers(), st.integers(1)),
        st.frozensets(st.one_of(st.dates(), st.integers(), st.binary())),
    ),
    lambda inner: st.lists(inner) | st.dictionaries(st.integers(), inner),
))  # fmt: skip
def test_any_of_them_goes_round(value: Any) -> None:
    data = CODEC.encode(value)
    found = CODEC.decode(data)
    assert found == value
    assert CODEC.decode(CODEC.encode(found)) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (dt.datetime(2026, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=2))), "no time zone with"),
        (dt.time(12, tzinfo=dt.UTC), "no time zone"),
        (decimal.Decimal("sNaN"), "sNaN"),
        (decimal.Decimal("NaN12"), "NaN12"),
    ],
)
def test_what_elixir_cannot_say_is_an_error(value: Any, text: str) -> None:
    with pytest.raises(EncodeError, match=text):
        CODEC.encode(value)


def test_versions_are_ordered_as_elixir_orders_them() -> None:
    one = etf.Version
    ordered = [
        one(1, 0, 0, ("alpha",)), one(1, 0, 0, ("alpha", 1)), one(1, 0, 0, ("alpha", "beta")),
        one(1, 0, 0, ("beta", 2)), one(1, 0, 0, ("beta", 11)), one(1, 0, 0, ("rc", 1)),
        one(1, 0, 0), one(1, 0, 1),
    ]  # fmt: skip
    assert sorted([*ordered[4:], *ordered[:4]]) == ordered
    assert one(1, 0, 0, build="a") == one(1, 0, 0, build="b") <= one(1, 0, 0)
    assert str(one(1, 2, 3, ("rc", 1), "b")) == "1.2.3-rc.1+b"


@pytest.mark.parametrize("strings", ["list", "str"])
def test_versions_in_every_policy(strings: Any) -> None:
    codec = Codec(structs=Structs(), binaries="str", strings=strings)
    for version in (
        (one := etf.Version)(1, 0, 0, (), "nil"),
        one(1, 0, 0, (1,)),
        one(1, 0, 0, ("x",)),
    ):
        found = codec.decode(codec.encode(version))
        assert (found, found.build) == (version, version.build)


def test_utc_under_another_name() -> None:
    value = dt.datetime.strptime("2026-01-01 GMT +0000", "%Y-%m-%d %Z %z")
    assert etf.decode(CODEC.encode(value))[Atom("zone_abbr")] == b"UTC"
    assert CODEC.decode(CODEC.encode(value)) == value


def test_text_keys_are_not_fields() -> None:
    codec = Codec(structs=shop(), binaries="str")
    for term in (
        struct("Date", NEW_YEAR) | {b"day": 1},
        {STRUCT: Atom("Elixir.Date"), Atom("calendar"): ISO[Atom("calendar")], b"year": 1,
         b"month": 1, b"day": 1},
    ):  # fmt: skip
        assert type(codec.decode(etf.encode(term))) in (dict, etf.Map)
    with pytest.raises(DecodeError, match="no field x"):
        codec.decode(etf.encode({STRUCT: Atom("Elixir.Point"), b"x": 1}))


def test_a_precision_of_somebody_elses() -> None:
    class Mine(dt.datetime):
        precision = "day"

    assert etf.decode(CODEC.encode(Mine(2026, 1, 1)))[Atom("microsecond")] == (0, 0)
    later = CODEC.decode(etf.encode(struct("NaiveDateTime", NEW_YEAR | NOON, microsecond=(0, 3))))
    assert etf.decode(CODEC.encode(later + dt.timedelta(1)))[Atom("microsecond")] == (0, 0)


@pytest.mark.parametrize("kind", ["integers", "decimals", "ranges"])
def test_elements_of_one_hash_do_not_stall_a_set(kind: str) -> None:
    """Which a peer can choose; few of them do no harm."""
    prime = 2**61 - 1
    make: Callable[[int], Any] = {
        "integers": lambda k: k * prime,
        "decimals": lambda k: struct("Decimal", sign=1, coef=k * prime, exp=0),
        "ranges": lambda k: struct("Range", first=1, last=0, step=k),  # all empty, all equal
    }[kind]
    for count in (100, 3_000):
        held = {STRUCT: Atom("Elixir.MapSet"), Atom("map"): etf.Map(
            [(etf.Map(key) if isinstance(key := make(k), dict) else key, [])
             for k in range(1, count)])}  # fmt: skip
        data = etf.encode(held)
        start = time.process_time()
        found = CODEC.decode(data)
        assert time.process_time() - start < 2
        assert isinstance(found, frozenset) == (count == 100 and kind != "ranges")


def test_unknown_zones_cost_nothing() -> None:
    zones = [b"/".join(b"%d" % (i * k) for k in range(230)) for i in range(300)]
    terms = [
        struct("DateTime", NEW_YEAR | NOON | IN_UTC, microsecond=(0, 0), time_zone=zone)
        for zone in zones
    ]
    CODEC.decode(etf.encode(terms[:1]))  # the names that are known are read once
    start = time.process_time()
    assert CODEC.decode(etf.encode(terms)) == terms
    assert time.process_time() - start < 1


def test_nobody_finds_a_container_with_holes() -> None:
    """Not even those who look at all objects while a class makes its own."""
    found = []

    def look(_: Any) -> Any:
        found.extend(len(o) for o in gc.get_objects() if type(o) in (list, tuple))
        return 1

    structs = Structs(elixir=False)
    structs.add(Order, "Order", look, look)
    codec = Codec(structs=structs)
    one, rest = struct("Order", id=1), [0] * 10_000
    for kind in (list, tuple):
        terms = ([one, *rest], [*rest, one], [[one], [one, *rest]])
        data = [etf.encode(kind(term)) for term in terms]
        del terms
        before = len(found)
        for each in data:
            made = codec.decode(each)
            assert gc.is_tracked(made) and type(made) is kind
            assert made[0] in (0, 1, [1])
            del made
        assert 10_001 not in found[before:]
        with pytest.raises(DecodeError):
            codec.decode(data[0][:-1])


def test_the_collector_is_left_alone() -> None:
    seen = []
    structs = Structs(elixir=False)
    structs.add(Order, "Order", id, lambda _: seen.append(gc.isenabled()) or gc.disable())
    try:
        Codec(structs=structs).decode(etf.encode([b"x" * 500, struct("Order")]))
        assert seen == [True]
        assert not gc.isenabled()
    finally:
        gc.enable()


# One's own


@dataclasses.dataclass
class Order:
    id: int
    lines: list[Any] = dataclasses.field(default_factory=list)
    total: int = dataclasses.field(init=False, default=0)

    def __post_init__(self) -> None:
        self.total = len(self.lines)


@attrs.define
class Line:
    item: bytes
    _price: int = 3


class Sign(msgspec.Struct, rename={"name": "nom"}):
    name: bytes
    size: int = 1


class Point(NamedTuple):
    x: int
    y: int = 0


@dataclasses.dataclass
class Later:
    x: int
    y: dataclasses.InitVar[int]


class Unhashable(type):
    def __eq__(cls, other: object) -> bool:
        return cls is other

    __hash__ = None  # type: ignore[assignment]


class Account:
    def __init__(self, owner: bytes, cents: int) -> None:
        self.owner, self.cents = owner, cents

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Account) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]

    def __to_term__(self) -> dict[str, Any]:
        return {"owner": self.owner, "balance": (self.cents // 100, self.cents % 100)}

    @classmethod
    def __from_term__(cls, fields: dict[str, Any]) -> Account:
        whole, cents = fields["balance"]
        return cls(fields["owner"], 100 * whole + cents)


def shop() -> Structs:
    structs = Structs()
    structs.register(Order, module="Shop.Order")
    structs.register(Line, module="Elixir.Shop.Line")
    for cls in (Sign, Point, Account):
        structs.register(cls)
    return structs


def test_classes_of_every_kind() -> None:
    codec = Codec(structs=shop())
    order = Order(7, [Line(b"tea", 5), Sign(b"open"), Point(1, 2), Account(b"ann", 250)])
    assert etf.decode(codec.encode(order)) == struct(
        "Shop.Order", id=7, total=4, lines=[
            struct("Shop.Line", item=b"tea", _price=5), struct("Sign", nom=b"open", size=1),
            struct("Point", x=1, y=2), struct("Account", owner=b"ann", balance=(2, 50)),
        ],
    )  # fmt: skip
    assert codec.decode(codec.encode(order)) == order
    assert codec.decode(etf.encode(struct("Point", x=1))) == Point(1)


def test_a_class_that_cannot_be_hashed() -> None:
    thing = Unhashable("Thing", (), {})()
    for codec in (Codec(), CODEC):
        with pytest.raises(EncodeError, match="cannot encode Thing"):
            codec.encode(thing)


def test_a_subclass_is_written_as_its_base() -> None:
    class Nearer(Point):
        pass

    codec = Codec(structs=shop())
    assert codec.decode(codec.encode(Nearer(1, 2))) == Point(1, 2)
    assert etf.decode(etf.encode(Point(1, 2))) == (1, 2)


@pytest.mark.parametrize(
    ("term", "text"),
    [
        (struct("Point", x=1, z=2), "struct Elixir.Point: Point has no field z"),
        (struct("Point", y=1), "struct Elixir.Point: .*missing.*'x'"),
        (struct("Account", owner=b"ann"), "struct Elixir.Account: 'balance'"),
        ({**struct("Point", x=1), b"x": 2}, "struct Elixir.Point: Point has no field b'x'"),
    ],
)
def test_a_struct_that_does_not_fit_is_an_error(term: Any, text: str) -> None:
    codec = Codec(structs=shop())
    data = etf.encode([term])
    with pytest.raises(DecodeError, match=text) as caught:
        codec.decode(data)
    assert caught.value.offset == len(data) - 1
    assert isinstance(caught.value.__cause__, (ValueError, TypeError, KeyError))
    with pytest.raises(DecodeError, match="compressed") as caught:
        codec.decode(Codec(compressed=9).encode([term] * 50))
    assert text.partition(":")[0] in str(caught.value.__cause__)


def test_unknown_fields_can_be_left_out() -> None:
    structs = Structs()
    structs.register(Point, module="Point", ignore_unknown=True)
    codec = Codec(structs=structs)
    assert codec.decode(etf.encode(struct("Point", x=1, __meta__=(1, 2)))) == Point(1)
    with pytest.raises(DecodeError, match="missing"):
        codec.decode(etf.encode(struct("Point", __meta__=(1, 2))))


def test_an_exception_that_cannot_be_shown() -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    def fail(_: Any) -> Any:
        raise Odd

    structs = Structs(elixir=False)
    structs.add(Order, "Order", fail, fail)
    with pytest.raises(DecodeError, match=r"^struct Elixir.Order \(at"):
        Codec(structs=structs).decode(etf.encode(struct("Order")))


def test_errors_of_converters_have_their_place() -> None:
    with pytest.raises(EncodeError, match=r"no time zone.* \(at \[1\]\['k'\]\)"):
        CODEC.encode([1, {"k": dt.time(1, tzinfo=dt.UTC)}])
    with pytest.raises(EncodeError, match="surrogates"):
        CODEC.encode(etf.Version(1, 0, 0, ("\ud800",)))


class Stop(BaseException):
    pass


@pytest.mark.parametrize("error", [Stop, MemoryError, KeyboardInterrupt])
def test_what_no_input_brings_about_passes_through(error: type[BaseException]) -> None:
    def fail(_: Any) -> Any:
        raise error

    structs = Structs(elixir=False)
    structs.add(Order, "Order", fail, fail)
    with pytest.raises(error):
        Codec(structs=structs).decode(etf.encode(struct("Order", id=1)))
    with pytest.raises(error):
        Codec(structs=structs).encode([Order(1)])


def test_registering_twice_or_what_has_no_fields_is_an_error() -> None:
    structs = shop()
    with pytest.raises(ValueError, match="Point is registered already"):
        structs.register(Point, module="Other")
    with pytest.raises(ValueError, match=r"struct Shop\.Order is registered already"):
        structs.add(Stop, "Shop.Order", lambda _: {}, lambda _: None)
    with pytest.raises(TypeError, match="Stop is no dataclass"):
        structs.register(Stop)
    for plain in (list, dict, str, Atom, etf.Pid):
        with pytest.raises(TypeError, match="stands for itself"):
            structs.add(plain, "Plain", id, id)
    for name in (5, ""):
        with pytest.raises(TypeError, match="module is the name"):
            structs.register(Later, module=name)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="needs 'y', which is no field"):
        structs.register(Later)
    for hooks, text in (({"__to_term__": id}, "only one of"),
                        ({"__to_term__": id, "__from_term__": id}, "no class method")):  # fmt: skip
        with pytest.raises(TypeError, match=text):
            structs.register(type("Half", (), hooks))
    structs.register(type("shop", (Point,), {}), module=Atom("shop"))
    assert "shop" in repr(structs)
    with pytest.raises(TypeError, match="a class is registered"):
        structs.register(Point(1, 2))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="structs must be None or etf.Structs"):
        Codec(structs={})  # type: ignore[arg-type]


def test_a_text_is_not_the_atom_of_a_struct() -> None:
    codec = Codec(structs=shop(), binaries="str")
    data = etf.encode({b"__struct__": Atom("Elixir.Point"), Atom("x"): 1})
    assert codec.decode(data) == {"__struct__": Atom("Elixir.Point"), Atom("x"): 1}
    assert type(codec.decode(data)) is dict


def test_a_struct_in_a_key_stays_a_map() -> None:
    codec = Codec(structs=shop())
    found = codec.decode(codec.encode({Point(1, 2): Point(3, 4)}))
    [(key, value)] = found.items()
    assert type(key) is etf.Map
    assert value == Point(3, 4)
    assert codec.encode(found) == codec.encode({Point(1, 2): Point(3, 4)})


def test_a_class_says_itself_what_is_written() -> None:
    class Money:
        def __init__(self, term: Callable[[], Any]) -> None:
            self.term = term

        def __to_term__(self) -> Any:
            return self.term()

    class Loop:
        def __to_term__(self) -> Any:
            return self

    def fail() -> Any:
        raise ZeroDivisionError

    assert etf.decode(etf.encode([Money(lambda: (Atom("eur"), 5))])) == [(Atom("eur"), 5)]
    assert etf.decode(etf.encode({"k": Money(lambda: Money(lambda: 1))})) == {b"k": 1}
    with pytest.raises(EncodeError, match="cannot encode Loop"):
        etf.encode(Loop())
    with pytest.raises(EncodeError, match="nested over"):
        etf.encode(deep := Money(lambda: [deep]))
    with pytest.raises(ZeroDivisionError):
        etf.encode([Money(fail)])
    with pytest.raises(EncodeError, match=r"cannot encode function \(at \[0\]\)"):
        etf.encode([Money(lambda: fail)])
    with pytest.raises(EncodeError, match="cannot encode type"):
        etf.encode(Money)


def test_a_converter_may_use_codecs() -> None:
    structs = Structs(elixir=False)
    codec = Codec(structs=structs)
    structs.add(
        Order, "Order", lambda o: struct("Order", blob=codec.encode([o.id] * 9)),
        lambda fields: Order(codec.decode(fields[Atom("blob")])[0]),
    )  # fmt: skip
    assert codec.decode(codec.encode([Order(300)] * 3)) == [Order(300)] * 3


def test_codecs_with_structs_pickle_and_copy() -> None:
    codec = Codec(structs=shop())
    for twin in (pickle.loads(pickle.dumps(codec)), copy.copy(codec), copy.deepcopy(codec)):
        assert twin.decode(twin.encode([Point(1), Order(2)])) == [Point(1), Order(2)]
    assert "Shop.Order" in repr(codec)
    assert codec == Codec(structs=codec.structs) != CODEC
    before = hash(codec)
    assert codec.structs is not None
    codec.structs.register(type("Third", (Point,), {}))
    assert hash(codec) == before == hash(Codec(structs=codec.structs))
    assert Codec().structs is None


def test_a_codec_that_its_structs_hold_is_collected() -> None:
    structs = Structs()
    structs.codec = Codec(structs=structs)  # type: ignore[attr-defined]
    gone = weakref.ref(structs)
    del structs
    gc.collect()
    assert gone() is None
