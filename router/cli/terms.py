"""Terms on a command line: typed by a person, or shown as JSON for a program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from router import etf
from router.cli.common import fail

__all__ = ["json_of", "term_of"]


def term_of(text: str) -> Any:
    """The term an argument stands for. What is none ends the command."""
    try:
        return etf.parse(text)
    except ValueError as e:
        if text.startswith("--"):
            raise fail(
                f"there is no option {text.partition('=')[0]}",
                hint="--help shows the options.",
                code=2,
            ) from None
        raise fail(
            f"not a term in Erlang's notation: {text}\n{e}",
            hint="Examples: 42  ok  'Quoted atom'  '<<\"binary\">>'  '[1,2]'  '{ok,#{a => 1}}'\n"
            "Quote what your shell would read itself.",
            code=2,
        ) from None


def json_of(term: Any) -> Any:
    """The term as JSON can hold it, which says less.

    Atoms and UTF-8 binaries become strings (true, false and nil their like),
    tuples arrays, maps objects. What JSON has no form for is a string in
    Erlang's notation. Raises ValueError when keys of a map fall together.
    """
    if term is None or isinstance(term, (bool, int, float)):
        return term
    if isinstance(term, str):
        return str(term)
    if isinstance(term, bytes):
        try:
            return term.decode()
        except UnicodeDecodeError:
            return etf.format(term)
    if isinstance(term, (list, tuple, etf.FrozenList)):
        return [json_of(item) for item in term]
    if isinstance(term, Mapping):
        return _object(term)
    return etf.format(term)


def _object(term: Mapping[Any, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in term.items():
        known = json_of(key)
        name = known if isinstance(known, str) else etf.format(key)
        if name in found:
            raise ValueError(f"two keys of a map are {name!r} in JSON; without --json both show")
        found[name] = json_of(value)
    return found
