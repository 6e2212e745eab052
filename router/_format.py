"""Terms in Erlang's own notation, for logs and the command line, and back.

`format` never fails on a term, whatever its size; `parse` reads what a person
types. Pids, references and ports are shown but cannot be typed: their first
number means something to one node only.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterator
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
from router._types import Term

__all__ = ["format", "parse"]

_RESERVED = frozenset(
    [
        "after",
        "and",
        "andalso",
        "band",
        "begin",
        "bnot",
        "bor",
        "bsl",
        "bsr",
        "bxor",
        "case",
        "catch",
        "cond",
        "div",
        "else",
        "end",
        "fun",
        "if",
        "let",
        "maybe",
        "not",
        "of",
        "or",
        "orelse",
        "receive",
        "rem",
        "try",
        "when",
        "xor",
    ]
)
_PLAIN_ATOM = re.compile(r"[a-z\xdf-\xf6\xf8-\xff][0-9A-Za-z_@\xc0-\xd6\xd8-\xf6\xf8-\xff]*\Z")
_ESCAPES = {
    "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v", "\b": "\\b", "\f": "\\f",
    "\x1b": "\\e", "\\": "\\\\",
}  # fmt: skip
# Decimal digits of huge integers take quadratic time; beyond this, base 16.
_DECIMAL_BITS_MAX = 4096


def format(term: object) -> str:
    """The term in Erlang's notation: ``{ok,<<"abc">>,#{a => 1},[1,2|x]}``.

    Identifiers name their node (``<shop@127.0.0.1.85.0>``); integers of over
    4096 bits are written in base 16. Objects that are no terms show as
    ``#<repr>``.
    """
    out: list[str] = []
    # Text to append as it is, or an object to write, the next one last.
    todo: list[tuple[bool, Any]] = [(False, term)]
    while todo:
        is_text, item = todo.pop()
        if is_text:
            out.append(item)
            continue
        parts = _containers(item)
        if parts is None:
            out.append(_leaf(item))
        else:
            todo.extend(reversed(list(parts)))
    return "".join(out)


def _commas(items: Any) -> Iterator[tuple[bool, Any]]:
    for i, item in enumerate(items):
        if i:
            yield True, ","
        yield False, item


def _between(left: str, items: Any, right: str) -> Iterator[tuple[bool, Any]]:
    yield True, left
    yield from _commas(items)
    yield True, right


def _improper(term: ImproperList) -> Iterator[tuple[bool, Any]]:
    yield True, "["
    yield from _commas(term.items)
    yield True, "|"
    yield False, term.tail
    yield True, "]"


def _pairs(term: Any) -> Iterator[tuple[bool, Any]]:
    yield True, "#{"
    for i, (key, value) in enumerate(term.items()):
        if i:
            yield True, ","
        yield False, key
        yield True, " => "
        yield False, value
    yield True, "}"


def _containers(term: Any) -> Iterator[tuple[bool, Any]] | None:
    if isinstance(term, tuple):
        return _between("{", term, "}")
    if isinstance(term, (list, FrozenList)):
        return None if _charlist(term) else _between("[", term, "]")
    if isinstance(term, ImproperList):
        return _improper(term)
    if isinstance(term, (dict, Map)):
        return _pairs(term)
    return None


def _charlist(items: Any) -> bool:
    return len(items) > 0 and all(
        type(c) is int and (32 <= c < 127 or 160 <= c < 256 or c in (9, 10, 13)) for c in items
    )


def _leaf(term: Any) -> str:
    writer = _LEAVES.get(type(term))
    if writer is not None:
        return writer(term)
    if isinstance(term, (bytearray, memoryview)):
        return _binary(bytes(term))
    for base in (int, float, str, bytes):
        if isinstance(term, base):
            return _LEAVES[base](term)
    return f"#<{type(term).__name__}>"


def _atom(name: str) -> str:
    if _PLAIN_ATOM.match(name) and name not in _RESERVED:
        return str(name)
    return f"'{_escaped(name, chr(39))}'"


def _escaped(text: str, quote: str) -> str:
    return "".join(_escape(c, quote) for c in text)


def _escape(c: str, quote: str) -> str:
    if c == quote:
        return "\\" + c
    if c in _ESCAPES:
        return _ESCAPES[c]
    if c.isprintable():
        return c
    return f"\\x{{{ord(c):X}}}"


def _integer(value: int) -> str:
    if value.bit_length() <= _DECIMAL_BITS_MAX:
        return int.__repr__(value)
    return f"{'-' if value < 0 else ''}16#{abs(value):X}"


def _float(value: float) -> str:
    text = float.__repr__(value)
    if "e" in text:
        mantissa, exponent = text.split("e")
        if "." not in mantissa:
            mantissa += ".0"
        return f"{mantissa}e{int(exponent)}"
    return text


def _binary(data: bytes) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = "\0"
    if not data:
        return "<<>>"
    if all(c.isprintable() or c in "\n\r\t" for c in text):
        kind = "" if text.isascii() else "/utf8"
        return f'<<"{_escaped(text, chr(34))}"{kind}>>'
    return f"<<{','.join(map(str, data))}>>"


def _bits(term: BitString) -> str:
    *whole, last = term.data
    head = "".join(f"{byte}," for byte in whole)
    return f"<<{head}{last >> (8 - term.bits)}:{term.bits}>>"


def _list_text(items: Any) -> str:
    return f'"{_escaped("".join(map(chr, items)), chr(34))}"'


_LEAVES: dict[type, Callable[[Any], str]] = {
    Atom: _atom,
    type(None): lambda _: "nil",
    bool: lambda v: "true" if v else "false",
    int: _integer,
    float: _float,
    bytes: _binary,
    str: lambda s: _binary(s.encode("utf-8", "surrogatepass")),
    list: _list_text,
    FrozenList: _list_text,
    BitString: _bits,
    Pid: lambda p: repr(p)[4:],
    Reference: repr,
    Port: repr,
    Fun: repr,
    Export: lambda x: f"fun {_atom(x.module)}:{_atom(x.function)}/{x.arity}",
}


def parse(text: str) -> Term:
    """The term that a text in Erlang's notation stands for.

    Understands atoms, quoted atoms, integers (also ``16#ff`` and ``$c``),
    floats, strings (lists of characters), binaries, tuples, lists, maps and
    ``fun m:f/1``. A final full stop may stand at the end. Raises ValueError
    that tells the position for anything else.
    """
    term: Term = _Parser(text).whole()
    return term


_TOKEN = re.compile(
    r"""
    (?P<space>(?:\s|%[^\n]*)+)
  | (?P<float>-?[0-9][0-9_]*\.[0-9][0-9_]*(?:[eE][+-]?[0-9]+)?)
  | (?P<based>-?[0-9]{1,2}\#[0-9A-Za-z][0-9A-Za-z_]*)
  | (?P<int>-?[0-9][0-9_]*)
  | (?P<char>\$(?:\\(?:x\{[0-9A-Fa-f]+\}|x[0-9A-Fa-f]{2}|[0-7]{1,3}|\^.|.)|[^\\]))
  | (?P<atom>[a-z\xdf-\xf6\xf8-\xff][0-9A-Za-z_@\xc0-\xd6\xd8-\xf6\xf8-\xff]*)
  | (?P<quoted>'(?:[^'\\]|\\.)*')
  | (?P<string>"(?:[^"\\]|\\.)*")
  | (?P<mark><<|>>|=>|\#\{|[{}\[\]|,:/.])
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPED = re.compile(r"\\(x\{[0-9A-Fa-f]+\}|x[0-9A-Fa-f]{2}|[0-7]{1,3}|\^.|.)", re.DOTALL)
_UNESCAPE = {
    "n": "\n", "r": "\r", "t": "\t", "v": "\v", "b": "\b", "f": "\f", "e": "\x1b",
    "s": " ", "d": "\x7f",
}  # fmt: skip
_DEPTH_MAX = 200
_DIGITS_MAX = 10_000


def _unescape(text: str, position: int) -> str:
    def one(match: re.Match[str]) -> str:
        code = match.group(1)
        if code[0] == "x" and len(code) > 1:
            number = int(code[1:].strip("{}"), 16)
            if number > sys.maxunicode or 0xD800 <= number < 0xE000:
                raise ValueError(f"{match.group()} is no character, at position {position}")
            return chr(number)
        if code[0] in "01234567":
            return chr(int(code, 8))
        if code[0] == "^" and len(code) > 1:
            return chr(ord(code[1]) & 31)
        return _UNESCAPE.get(code, code)

    return _ESCAPED.sub(one, text)


class _Parser:
    """Recursive descent, bounded by _DEPTH_MAX; the text is the user's own."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.depth = 0
        self.kind = ""
        self.token = ""
        self.start = 0
        self.advance()

    def fail(self, expected: str) -> ValueError:
        found = repr(self.token) if self.kind != "end" else "the end"
        return ValueError(f"expected {expected}, found {found} at position {self.start}")

    def advance(self) -> None:
        while True:
            self.start = self.at
            if self.at == len(self.text):
                self.kind, self.token = "end", ""
                return
            match = _TOKEN.match(self.text, self.at)
            if match is None:
                raise ValueError(
                    f"cannot read {self.text[self.at : self.at + 10]!r} at position {self.at}"
                )
            self.at = match.end()
            if match.lastgroup != "space":
                self.kind, self.token = match.lastgroup or "", match.group()
                return

    def take(self, mark: str) -> bool:
        if self.kind == "mark" and self.token == mark:
            self.advance()
            return True
        return False

    def need(self, mark: str) -> None:
        if not self.take(mark):
            raise self.fail(repr(mark))

    def whole(self) -> Any:
        term = self.term()
        self.take(".")
        if self.kind != "end":
            raise self.fail("the end")
        return term

    def term(self) -> Any:
        self.depth += 1
        if self.depth > _DEPTH_MAX:
            raise ValueError(f"nested over {_DEPTH_MAX} deep at position {self.start}")
        try:
            return self.one()
        finally:
            self.depth -= 1

    def one(self) -> Any:
        kind, token = self.kind, self.token
        if kind == "mark":
            return self.container()
        if kind == "atom" and token == "fun":
            return self.function()
        if kind in ("atom", "quoted"):
            return _CONSTANTS.get(name := self.atom(), name)
        if kind == "end":
            raise self.fail("a term")
        return self.string() if kind == "string" else self.number(kind, token)

    def number(self, kind: str, token: str) -> int | float:
        if len(token) > _DIGITS_MAX:
            raise ValueError(f"a number of over {_DIGITS_MAX} digits at position {self.start}")
        start = self.start
        self.advance()
        digits = token.replace("_", "")
        try:
            if kind == "float":
                if not math.isfinite(value := float(digits)):
                    raise ValueError
                return value
            if kind == "char":
                return ord(_unescape(token[1:], start))
            if kind == "based":
                base, rest = digits.lstrip("-").split("#")
                whole = int(rest, int(base))
                return -whole if digits[0] == "-" else whole
            return int(digits)
        except ValueError as error:
            raise ValueError(f"{token} is no number, at position {start}") from error

    def atom(self) -> Atom:
        if self.kind == "quoted":
            name = _unescape(self.token[1:-1], self.start)
        elif self.kind == "atom" and self.token not in _RESERVED:
            name = self.token
        else:
            raise self.fail("an atom")
        self.advance()
        return Atom(name)

    def string(self) -> list[int]:
        out: list[int] = []
        while self.kind == "string":
            out.extend(map(ord, _unescape(self.token[1:-1], self.start)))
            self.advance()
        return out

    def container(self) -> Any:
        if self.take("{"):
            return tuple(self.items("}"))
        if self.take("["):
            return self.list()
        if self.take("#{"):
            return self.map()
        if self.take("<<"):
            return self.binary()
        raise self.fail("a term")

    def items(self, end: str) -> list[Any]:
        if self.take(end):
            return []
        out = [self.term()]
        while self.take(","):
            out.append(self.term())
        self.need(end)
        return out

    def list(self) -> Any:
        if self.take("]"):
            return []
        out = [self.term()]
        while self.take(","):
            out.append(self.term())
        if not self.take("|"):
            self.need("]")
            return out
        tail = self.term()
        self.need("]")
        if isinstance(tail, list):
            return out + tail
        if isinstance(tail, ImproperList):
            return ImproperList([*out, *tail.items], tail.tail)
        return ImproperList(out, tail)

    def map(self) -> Any:
        pairs: list[tuple[Any, Any]] = []
        while not self.take("}"):
            if pairs:
                self.need(",")
            start = self.start
            key = _frozen(self.term())
            self.need("=>")
            pairs.append((key, self.term()))
            if len(Map(pairs)) < len(pairs):
                raise ValueError(f"a key stands twice in a map, at position {start}")
        plain = dict(pairs)
        return plain if len(plain) == len(pairs) else Map(pairs)

    def binary(self) -> bytes | BitString:
        data = bytearray()
        bits = 0
        while not self.take(">>"):
            if data or bits:
                self.need(",")
            if bits:
                raise self.fail("'>>', since only the last part may have fewer than 8 bits")
            bits = self.segment(data)
        return BitString(bytes(data), bits) if bits else bytes(data)

    def segment(self, data: bytearray) -> int:
        """Appends one part; returns its bits when they are fewer than 8."""
        start = self.start
        if self.kind == "string":
            data.extend(self.text_segment(start))
            return 0
        if self.kind not in ("int", "based", "char"):
            raise self.fail("a byte or a string")
        value = int(self.number(self.kind, self.token))
        if not self.take(":"):
            if not -256 < value < 256:
                raise ValueError(f"{value} is no byte, at position {start}")
            data.append(value & 255)
            return 0
        if self.kind != "int" or not 1 <= (size := int(self.token)) <= 8:
            raise self.fail("a size of 1 to 8 bits")
        self.advance()
        data.append((value << (8 - size)) & 255)
        return size % 8

    def text_segment(self, start: int) -> bytes:
        text = "".join(map(chr, self.string()))
        if self.take("/"):
            if self.kind != "atom" or self.token != "utf8":
                raise self.fail("'utf8'")
            self.advance()
            return text.encode()
        try:
            return text.encode("latin-1")
        except UnicodeEncodeError:
            raise ValueError(
                f"characters over 255 need /utf8 after the string at position {start}"
            ) from None

    def function(self) -> Export:
        self.advance()
        module = self.atom()
        self.need(":")
        name = self.atom()
        self.need("/")
        if self.kind != "int":
            raise self.fail("an arity")
        arity = int(self.number("int", self.token))
        return Export(module, name, arity)


_CONSTANTS: dict[str, Any] = {"true": True, "false": False, "nil": None}


def _frozen(term: Any) -> Any:
    """A map key: lists and maps in it become their hashable equals."""
    if isinstance(term, list):
        return FrozenList([_frozen(item) for item in term])
    if isinstance(term, tuple):
        return tuple([_frozen(item) for item in term])
    if isinstance(term, dict):
        return Map([(_frozen(k), _frozen(v)) for k, v in term.items()])
    if isinstance(term, ImproperList):
        return ImproperList([_frozen(item) for item in term.items], _frozen(term.tail))
    return term
