"""Which Python classes stand for which Elixir structs, and one that Python lacks."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from functools import total_ordering
from typing import Any, NamedTuple, TypeVar

from router._core import Atom, Pid, Reference

__all__ = ["STRUCT", "Structs", "Version"]

STRUCT = Atom("__struct__")
ELIXIR = "Elixir."
PLAIN = {list, dict, tuple, str, bytes, int, float, bool, type(None), Atom, Pid, Reference}
"""What the codec writes without asking anybody."""

T = TypeVar("T")


@total_ordering
@dataclasses.dataclass(frozen=True)
class Version:
    """A version as Elixir's `Version` reads it (Semantic Versioning 2.0.0), ordered as there.

    pre: the parts of a pre-release, `("rc", 1)`; build: what follows a `+`, which does not
    take part in comparisons.
    """

    major: int
    minor: int
    patch: int
    pre: tuple[int | str, ...] = ()
    build: str | None = None

    def _key(self) -> tuple[Any, ...]:
        pre = tuple((type(part) is str, part) for part in self.pre)
        return (self.major, self.minor, self.patch, not self.pre, pre)

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, Version) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())

    def __lt__(self, other: object) -> bool:
        return self._key() < other._key() if isinstance(other, Version) else NotImplemented

    def __str__(self) -> str:
        pre = "-" + ".".join(map(str, self.pre)) if self.pre else ""
        build = "" if self.build is None else f"+{self.build}"
        return f"{self.major}.{self.minor}.{self.patch}{pre}{build}"


class _Field(NamedTuple):
    key: Atom
    """Of the struct."""
    name: str
    """Of the attribute."""
    argument: str | None
    """Of the class, which makes the others itself."""


def _fields_of(cls: Any) -> list[_Field] | None:
    """What a dataclass, an attrs or msgspec class, or a named tuple holds."""
    if dataclasses.is_dataclass(cls):
        return [
            _Field(Atom(f.name), f.name, f.name if f.init else None)
            for f in dataclasses.fields(cls)
        ]
    if hasattr(cls, "__attrs_attrs__"):
        return [
            _Field(Atom(a.name), a.name, (a.alias or a.name) if a.init else None)
            for a in cls.__attrs_attrs__
        ]
    if hasattr(cls, "__struct_encode_fields__"):  # msgspec, which can rename them
        both = zip(cls.__struct_encode_fields__, cls.__struct_fields__, strict=True)
        return [_Field(Atom(key), name, name) for key, name in both]
    names: tuple[str, ...] | None = getattr(cls, "_fields", None)  # of a named tuple
    if names is None or not issubclass(cls, tuple):
        return None
    return [_Field(Atom(name), name, name) for name in names]


def module_atom(module: Any) -> Atom:
    """The atom of a module as Elixir writes it: `Shop.Order`; an `Atom` is meant as it is."""
    if not isinstance(module, str) or not module:
        raise TypeError(f"module is the name of an Elixir module, not {module!r}")
    return module if type(module) is Atom else Atom(ELIXIR + module.removeprefix(ELIXIR))


def _check_arguments(cls: type, fields: list[_Field]) -> None:
    """What the class needs to make an object must be among its fields."""
    given = {field.argument for field in fields}
    for name, parameter in inspect.signature(cls).parameters.items():
        optional = parameter.default is not parameter.empty or parameter.kind in (
            parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD,
        )  # fmt: skip
        if name not in given and not optional:
            raise TypeError(f"{cls.__qualname__} needs {name!r}, which is no field of it")


class _Fields:
    """A class whose objects are their fields."""

    def __init__(self, cls: type, module: Atom, fields: list[_Field], ignore_unknown: bool) -> None:
        self.cls = cls
        self.ignore_unknown = ignore_unknown
        self.module = module
        self.fields = fields
        self.known = {STRUCT, *(field.key for field in fields)}

    def to_term(self, obj: Any) -> dict[Atom, Any]:
        term: dict[Atom, Any] = {STRUCT: self.module}
        for key, name, _ in self.fields:
            term[key] = getattr(obj, name)
        return term

    def from_term(self, term: Mapping[Any, Any]) -> Any:
        for key in term:
            # With some codecs a text equals an atom.
            if not self.ignore_unknown and (key not in self.known or type(key) is not Atom):
                raise ValueError(f"{self.cls.__qualname__} has no field {key!s}")
        return self.cls(**{
            argument: term[key] for key, _, argument in self.fields if argument and key in term
        })  # fmt: skip


class _Hooks:
    """A class that says itself what it stands for."""

    def __init__(self, cls: type, module: Atom) -> None:
        self.cls = cls
        self.module = module

    def to_term(self, obj: Any) -> dict[Any, Any]:
        return {STRUCT: self.module, **_atom_keys(obj.__to_term__())}

    def from_term(self, term: Mapping[Any, Any]) -> Any:
        make: Callable[[dict[str, Any]], Any] = self.cls.__from_term__  # type: ignore[attr-defined]
        return make({str(key): value for key, value in term.items() if key != STRUCT})


def _atom_keys(fields: Any) -> dict[Any, Any]:
    if not isinstance(fields, Mapping):
        raise TypeError(f"__to_term__ of a struct gives a mapping of fields, not {fields!r}")
    return {Atom(k) if type(k) is str else k: v for k, v in fields.items()}


class Structs:
    """Which Python classes stand for which Elixir structs, for `Codec(structs=...)`.

    >>> import dataclasses
    >>> from router import etf
    >>> structs = etf.Structs()
    >>> @structs.register(module="Shop.Order")
    ... @dataclasses.dataclass
    ... class Order:
    ...     id: int
    ...     paid: bool = False
    >>> codec = etf.Codec(structs=structs)
    >>> codec.decode(codec.encode(Order(7)))
    Order(id=7, paid=False)

    elixir: whether Elixir's own are known, and `Decimal` of its library of that name.
    They become, and are made of:

        Date            datetime.date             Decimal    decimal.Decimal
        Time            datetime.time             MapSet     frozenset (also of a set)
        NaiveDateTime   datetime.datetime         Range      range
        DateTime        the same with a time zone Version    etf.Version

    A value that Python has no equal of, such as a year before 1, an offset unknown to
    `zoneinfo`, or a Decimal of over 10,000 digits, stays a map. A precision of seconds
    other than Python would write, and the version in a set of an Elixir before 1.15, are
    remembered in a subclass, so that these structs go back as they came.

    tensors: whether numpy arrays are `Nx.Tensor` structs, instead of nested lists. An
    array that is decoded is read-only and lies in the bytes of the binary; with
    `binaries="memoryview"` these are the message's, and seldom aligned, for which
    numpy's matrix products take a slow way: `np.require(array, requirements="A")` makes
    an aligned copy. One that is encoded is copied once, into the message. Masked arrays
    and those of other elements are written as lists. Names of axes and backends other
    than `Nx.BinaryBackend` are left as maps; a tensor of an Nx before 0.6 comes back with
    `vectorized_axes`.

    A struct inside a map's key stays an `etf.Map`, save Elixir's own as elements of a
    `MapSet`. Register everything before the codec is used by several threads.
    """

    def __init__(self, *, elixir: bool = True, tensors: bool = False) -> None:
        self._to_term: dict[type, Callable[[Any], Any]] = {}
        self._from_term: dict[Atom, Callable[[Any], Any]] = {}
        if elixir:
            from router import _elixir

            _elixir.add_to(self)
        if tensors:
            from router import _tensors

            _tensors.add_to(self)

    def register(
        self,
        cls: type[T] | None = None,
        /,
        *,
        module: str | None = None,
        ignore_unknown: bool = False,
    ) -> Any:
        """Makes a class and a struct stand for each other; also a decorator.

        cls: a dataclass, an attrs or msgspec class or a named tuple, whose fields are the
        struct's; or any class with the two hooks `__to_term__(self)`, which gives the
        fields as a mapping from their names, and `__from_term__(cls, fields)`, a class
        method that makes an object of it. module: as Elixir writes it, `"Shop.Order"`,
        or an Atom, of a module that is not Elixir's; the name of the class when it is left
        out. An object of a subclass is written as its base, which is what comes back.

        A field the class does not know, or one that it needs and that is missing, is a
        `DecodeError`. ignore_unknown: the first is left out instead, as `__meta__` of an
        Ecto schema may be; it is then not there when the object is sent back. Raises
        TypeError for a class whose fields cannot be known or that needs others,
        ValueError when the class or the module is registered already.
        """
        if cls is None:
            return lambda decorated: self.register(
                decorated, module=module, ignore_unknown=ignore_unknown
            )
        if not isinstance(cls, type):
            raise TypeError(f"a class is registered, not {cls!r}")
        atom = module_atom(cls.__name__ if module is None else module)
        fields = _fields_of(cls)
        hooks = [hasattr(cls, name) for name in ("__to_term__", "__from_term__")]
        made: _Hooks | _Fields
        if all(hooks):
            if not isinstance(
                inspect.getattr_static(cls, "__from_term__"), (classmethod, staticmethod)
            ):
                raise TypeError(f"{cls.__qualname__}.__from_term__ is no class method")
            made = _Hooks(cls, atom)
        elif any(hooks):
            raise TypeError(f"{cls.__qualname__} has only one of __to_term__ and __from_term__")
        elif fields is not None:
            _check_arguments(cls, fields)
            made = _Fields(cls, atom, fields, ignore_unknown)
        else:
            raise TypeError(
                f"{cls.__qualname__} is no dataclass, attrs or msgspec class or named tuple: "
                "give it __to_term__ and __from_term__"
            )
        self.add(cls, atom, made.to_term, made.from_term)
        return cls

    def add(
        self,
        cls: type,
        module: str,
        to_term: Callable[[Any], Any],
        from_term: Callable[[Any], Any],
    ) -> None:
        """The same with two functions, for a class that is not one's own.

        to_term: gives the term to write for an object, with `Atom("__struct__")` in it;
        NotImplemented leaves the object to the codec. from_term: gives the object for a
        map, or NotImplemented, which leaves it a map.
        """
        atom = module_atom(module)
        if cls in PLAIN:
            raise TypeError(f"a {cls.__name__} stands for itself")
        if cls in self._to_term:
            raise ValueError(f"{cls.__qualname__} is registered already")
        if atom in self._from_term:
            raise ValueError(f"the struct {atom.removeprefix(ELIXIR)} is registered already")
        self._to_term[cls] = to_term
        self._from_term[atom] = from_term

    def __repr__(self) -> str:
        names = sorted(str(atom).removeprefix(ELIXIR) for atom in self._from_term)
        return f"<Structs of {', '.join(names) or 'nothing'}>"
