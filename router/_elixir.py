"""Elixir's own structs, and what stands for them in Python.

Source: the documentation of Elixir's Calendar types, MapSet, Range and Version, and of the
library decimal. Each pair gives a struct back as it came, or leaves it a map.
"""

from __future__ import annotations

import datetime as dt
import decimal
import zoneinfo
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from router._core import Atom, FrozenList, Map
from router._structs import STRUCT, Version
from router.errors import EncodeError

if TYPE_CHECKING:
    from router._structs import Structs

__all__ = ["add_to"]

Fields = Mapping[Any, Any]
"""What a decoder found: a dict, or an `etf.Map`, which tells an atom from a text."""

UTC = "Etc/UTC"
DIGITS_MAX = 10_000
"""Of a Decimal: a longer one stays a map, for its conversion takes the square of the digits."""
SAME_HASH_MAX = 256
"""Elements of a MapSet: a set compares each with all others of its hash."""


def _atoms(names: str) -> tuple[Atom, ...]:
    return tuple(map(Atom, names.split()))


CALENDAR, MICROSECOND = _atoms("calendar microsecond")
ISO, NIL = _atoms("Elixir.Calendar.ISO nil")
DATE, CLOCK = _atoms("year month day"), _atoms("hour minute second")
ZONE = _atoms("time_zone zone_abbr utc_offset std_offset")
DECIMAL, RANGE = _atoms("sign coef exp"), _atoms("first last step")
VERSION = _atoms("major minor patch pre build")
MEMBERS, SET_VERSION = _atoms("map version")
NAN, INFINITY = _atoms("NaN inf")


def _whole(*values: Any) -> bool:
    return all(type(v) is int for v in values)


def _has(fields: Fields, *names: Atom) -> bool:
    """Whether it has these fields and no others. With some codecs a text equals an atom."""
    if len(fields) != len(names) + 1 or not all(name in fields for name in names):
        return False
    return all(type(key) is Atom for key in fields)


def _term(module: str, names: Iterable[Atom], values: Iterable[Any]) -> dict[Atom, Any]:
    return {STRUCT: Atom(f"Elixir.{module}"), **dict(zip(names, values, strict=True))}


def _text(value: Any) -> str | None:
    """Of a binary, which is `str` with some codecs and `bytes` or a view with others."""
    try:
        return value if type(value) is str else bytes(memoryview(value)).decode()
    except (TypeError, UnicodeDecodeError):
        return None


# Dates and times


class _Time(dt.time):
    """Remembers how many digits of a second were given, where Python would write others."""

    precision: int

    def plain(self) -> dt.time:
        return dt.time(self.hour, self.minute, self.second, self.microsecond)

    def __repr__(self) -> str:
        return repr(self.plain())

    def __reduce_ex__(self, _: Any) -> tuple[Any, ...]:
        return _remember, (self.plain(), _precision(self))


class _DateTime(dt.datetime):
    """The same."""

    precision: int

    def plain(self) -> dt.datetime:
        return dt.datetime.combine(self.date(), self.timetz())

    def __repr__(self) -> str:
        return repr(self.plain())

    def __reduce_ex__(self, _: Any) -> tuple[Any, ...]:
        return _remember, (self.plain(), _precision(self))


def _precision(value: dt.time | dt.datetime) -> int:
    usual = 6 if value.microsecond else 0
    # What was computed from one that remembers is of its class and remembers nothing.
    return getattr(value, "precision", usual) if isinstance(value, (_Time, _DateTime)) else usual


def _remember(value: Any, precision: int) -> Any:
    """The same time in the subclass that remembers, when it has to."""
    if precision == _precision(value):
        return value
    made: Any
    if isinstance(value, dt.datetime):
        made = _DateTime.combine(value.date(), value.timetz())
    else:
        made = _Time(value.hour, value.minute, value.second, value.microsecond)
    made.precision = precision
    return made


def _digits(pair: Any) -> bool:
    """Whether these are microseconds and how many digits of them count."""
    if type(pair) is not tuple or len(pair) != 2 or not _whole(*pair):
        return False
    microseconds, precision = pair
    return bool(0 <= microseconds < 10**6 and 0 <= precision <= 6)


def _calendar_values(value: Any, names: tuple[Atom, ...]) -> list[Any]:
    return [ISO, *(getattr(value, name) for name in names)]


def _date_to(value: dt.date) -> dict[Atom, Any]:
    return _term("Date", (CALENDAR, *DATE), _calendar_values(value, DATE))


def _date_from(fields: Fields) -> Any:
    values = [fields.get(name) for name in DATE]
    if not _has(fields, CALENDAR, *DATE) or fields[CALENDAR] != ISO or not _whole(*values):
        return NotImplemented
    try:
        return dt.date(*values)  # type: ignore[arg-type]
    except (ValueError, OverflowError):
        return NotImplemented


def _time_to(value: dt.time) -> dict[Atom, Any]:
    if value.tzinfo is not None:
        raise EncodeError(f"Elixir's Time has no time zone: {value!r}")
    values = [*_calendar_values(value, CLOCK), (value.microsecond, _precision(value))]
    return _term("Time", (CALENDAR, *CLOCK, MICROSECOND), values)


def _clock(kind: Any, fields: Fields, names: tuple[Atom, ...], more: tuple[Atom, ...] = ()) -> Any:
    """A time or datetime without a zone of the fields of these names; more: others it has."""
    values, second = [fields.get(name) for name in names], fields.get(MICROSECOND)
    if not _has(fields, CALENDAR, *names, MICROSECOND, *more) or fields[CALENDAR] != ISO:
        return NotImplemented
    if not _whole(*values) or not _digits(second):
        return NotImplemented
    try:
        return kind(*values, second[0])  # type: ignore[index]
    except (ValueError, OverflowError):
        return NotImplemented


def _precise(value: Any, fields: Fields) -> Any:
    return value if value is NotImplemented else _remember(value, fields[MICROSECOND][1])


def _time_from(fields: Fields) -> Any:
    return _precise(_clock(dt.time, fields, CLOCK), fields)


def _naive_from(fields: Fields) -> Any:
    return _precise(_clock(dt.datetime, fields, (*DATE, *CLOCK)), fields)


def _zone_values(value: dt.datetime) -> list[Any]:
    zone = value.tzinfo
    if zone == dt.UTC:
        return [UTC.encode(), b"UTC", 0, 0]
    name = getattr(zone, "key", None)
    if name is None:
        raise EncodeError(
            f"{zone!r} is no time zone with a name: "
            "use zoneinfo.ZoneInfo or .astimezone(timezone.utc)"
        )
    name = UTC if name == "UTC" else name
    offset, daylight = value.utcoffset() or dt.timedelta(), value.dst() or dt.timedelta()
    seconds = [int((offset - daylight).total_seconds()), int(daylight.total_seconds())]
    return [name.encode(), (value.tzname() or "").encode(), *seconds]


def _datetime_to(value: dt.datetime) -> dict[Atom, Any]:
    names = (CALENDAR, *DATE, *CLOCK, MICROSECOND)
    values = [*_calendar_values(value, (*DATE, *CLOCK)), (value.microsecond, _precision(value))]
    if value.tzinfo is None:
        return _term("NaiveDateTime", names, values)
    return _term("DateTime", (*names, *ZONE), [*values, *_zone_values(value)])


@cache
def _zone_names() -> set[str]:
    """A name that is not known costs nothing: who chooses it is a peer."""
    return zoneinfo.available_timezones()


def _tzinfo(name: str | None) -> dt.tzinfo | None:
    if name == UTC:
        return dt.UTC
    return zoneinfo.ZoneInfo(name) if name in _zone_names() else None


def _datetime_from(fields: Fields) -> Any:
    naive = _clock(dt.datetime, fields, (*DATE, *CLOCK), ZONE)
    if naive is NotImplemented:
        return NotImplemented
    zone = _tzinfo(_text(fields[ZONE[0]]))
    wanted = [_text(fields[name]) for name in ZONE[:2]] + [fields[name] for name in ZONE[2:]]
    for fold in (0, 1) if zone else ():
        value = naive.replace(tzinfo=zone, fold=fold)
        try:
            name, abbreviation, *offsets = _zone_values(value)
        except OverflowError:  # at the ends of the calendar
            break
        if wanted == [name.decode(), abbreviation.decode(), *offsets]:
            return _precise(value, fields)
    return NotImplemented


# The others


def _decimal_to(value: decimal.Decimal) -> dict[Atom, Any]:
    sign, digits, exponent = value.as_tuple()
    if value.is_snan() or (value.is_nan() and digits):
        raise EncodeError(f"Elixir's Decimal has no {value!r}")
    if isinstance(exponent, str):
        found: list[Any] = [NAN if value.is_nan() else INFINITY, 0]
    else:
        found = [int(decimal.Decimal((0, digits, 0))), exponent]
    return _term("Decimal", DECIMAL, [-1 if sign else 1, *found])


def _decimal_from(fields: Fields) -> Any:
    if not _has(fields, *DECIMAL):
        return NotImplemented
    sign, coefficient, exponent = (fields[name] for name in DECIMAL)
    if not _whole(sign, exponent) or sign not in (1, -1):
        return NotImplemented
    if isinstance(coefficient, Atom):
        if coefficient not in (NAN, INFINITY) or exponent != 0:
            return NotImplemented
        return decimal.Decimal(coefficient).copy_sign(decimal.Decimal(sign))
    if not _whole(coefficient) or coefficient < 0:
        return NotImplemented
    if coefficient.bit_length() > DIGITS_MAX * 10 // 3:
        return NotImplemented
    wanted = (int(sign < 0), decimal.Decimal(coefficient).as_tuple().digits, exponent)
    try:
        made = decimal.Decimal(wanted)
    except (ValueError, ArithmeticError):  # an exponent over what Python has
        return NotImplemented
    return made if made.as_tuple() == wanted else NotImplemented


class _VersionedSet(frozenset[Any]):
    """Of an Elixir whose MapSet holds a version, 2."""

    def __repr__(self) -> str:
        return repr(frozenset(self))


def _set_to(value: frozenset[Any] | set[Any]) -> dict[Atom, Any]:
    term = _term("MapSet", [MEMBERS], [{element: [] for element in value}])
    if isinstance(value, _VersionedSet):
        term[SET_VERSION] = 2
    return term


def _is_empty_list(value: Any) -> bool:
    return type(value) in (list, FrozenList) and len(value) == 0


def _element(key: Any) -> Any:
    """One of Elixir's own structs that is an element was left a Map, being a key."""
    module = key.get(STRUCT) if type(key) is Map else None
    make = FROM_TERM.get(module) if type(module) is Atom else None
    found = make(key) if make else NotImplemented
    return key if found is NotImplemented else found


def _set_from(fields: Fields) -> Any:
    versioned = _has(fields, MEMBERS, SET_VERSION) and fields[SET_VERSION] == 2
    if not versioned and not _has(fields, MEMBERS):
        return NotImplemented
    held = fields[MEMBERS]
    if not isinstance(held, Mapping) or not all(map(_is_empty_list, held.values())):
        return NotImplemented
    elements = list(map(_element, held))
    if len(elements) - len(set(map(hash, elements))) > SAME_HASH_MAX:
        return NotImplemented
    made = (_VersionedSet if versioned else frozenset)(elements)
    return made if len(made) == len(held) else NotImplemented


def _range_to(value: range) -> dict[Atom, Any]:
    last = value.stop - (1 if value.step > 0 else -1)
    return _term("Range", RANGE, [value.start, last, value.step])


def _range_from(fields: Fields) -> Any:
    if not _has(fields, *RANGE):
        return NotImplemented
    first, last, step = (fields[name] for name in RANGE)
    if not _whole(first, last, step) or step == 0:
        return NotImplemented
    return range(first, last + (1 if step > 0 else -1), step)


def _version_to(value: Version) -> dict[Atom, Any]:
    try:
        pre = [part if type(part) is int else str(part).encode() for part in value.pre]
        build = NIL if value.build is None else value.build.encode()
    except UnicodeEncodeError as e:
        raise EncodeError(f"cannot encode a Version with surrogates: {value!r}") from e
    return _term("Version", VERSION, [value.major, value.minor, value.patch, pre, build])


def _version_from(fields: Fields) -> Any:
    if not _has(fields, *VERSION):
        return NotImplemented
    major, minor, patch, pre, build = (fields[name] for name in VERSION)
    if type(pre) is str:  # with strings="str": a list of small numbers
        pre = list(pre.encode("latin-1", "replace"))
    if not _whole(major, minor, patch) or type(pre) not in (list, FrozenList):
        return NotImplemented
    parts: list[Any] = [part if type(part) is int else _text(part) for part in pre]
    none = build is None or (type(build) is Atom and build == NIL)
    text = None if none else _text(build)
    if None in parts or (text is None) != none:
        return NotImplemented
    return Version(major, minor, patch, tuple(parts), text)


FROM_TERM: dict[Atom, Callable[[Fields], Any]] = {
    Atom(f"Elixir.{module}"): from_term
    for module, from_term in (
        ("Date", _date_from), ("Time", _time_from), ("DateTime", _datetime_from),
        ("NaiveDateTime", _naive_from), ("Decimal", _decimal_from), ("MapSet", _set_from),
        ("Range", _range_from), ("Version", _version_from),
    )
}  # fmt: skip


def add_to(structs: Structs) -> None:
    structs._from_term |= FROM_TERM
    structs._to_term |= {
        dt.date: _date_to, dt.time: _time_to, dt.datetime: _datetime_to,
        decimal.Decimal: _decimal_to, frozenset: _set_to, set: _set_to, range: _range_to,
        Version: _version_to,
    }  # fmt: skip
