"""Erlang's notation, written and read."""

from __future__ import annotations

from typing import Any

import pytest

from router import etf
from router.etf import Atom

BOTH_WAYS: list[tuple[str, Any]] = [
    ("ok", Atom("ok")),
    ("'Quoted atom'", Atom("Quoted atom")),
    ("''", Atom("")),
    ("'it\\'s'", Atom("it's")),
    ("'end'", Atom("end")),
    ("'a\\nb'", Atom("a\nb")),
    ("été", Atom("été")),
    ("node@host_1", Atom("node@host_1")),
    ("true", True),
    ("nil", None),
    ("undefined", Atom("undefined")),
    ("42", 42),
    ("-7", -7),
    ("1.5", 1.5),
    ("-1.0e100", -1e100),
    ("1.0e-10", 1e-10),
    ("[]", []),
    ("[1,2,3]", [1, 2, 3]),
    ('"abc\\n"', [97, 98, 99, 10]),
    ("[1,2|x]", etf.ImproperList([1, 2], Atom("x"))),
    ("{}", ()),
    ("{ok,{1,[a]}}", (Atom("ok"), (1, [Atom("a")]))),
    ("#{}", {}),
    ('#{a => 1,<<"b">> => [2]}', {Atom("a"): 1, b"b": [2]}),
    ("#{1 => a,1.0 => b}", etf.Map([(1, Atom("a")), (1.0, Atom("b"))])),
    ("#{[1] => 1}", {etf.FrozenList([1]): 1}),
    ("<<>>", b""),
    ('<<"abc">>', b"abc"),
    ('<<"é→"/utf8>>', "é→".encode()),
    ("<<255,0,1>>", b"\xff\x00\x01"),
    ("<<1,5:3>>", etf.BitString(b"\x01\xa0", 3)),
    ("fun lists:map/2", etf.Export("lists", "map", 2)),
    ("fun 'A':'b c'/0", etf.Export("A", "b c", 0)),
]


@pytest.mark.parametrize(("text", "term"), BOTH_WAYS, ids=[t for t, _ in BOTH_WAYS])
def test_notation_is_written_and_read(text: str, term: Any) -> None:
    assert etf.format(term) == text
    again = etf.parse(text)
    assert again == term
    assert type(again) is type(term)
    assert etf.encode(again) == etf.encode(term)


@pytest.mark.parametrize(
    ("text", "term"),
    [
        ("16#ff", 255), ("-16#FF", -255), ("36#Z", 35), ("2#1010", 10), ("1_000", 1000),
        ("$a", 97), ("$\\n", 10), ("$\\x{1F600}", 0x1F600), ("$\\101", 65), ("$ ", 32), ("$é", 233),
        (' { ok , % a remark\n 1 } . ', (Atom("ok"), 1)),
        ('"a" "b"', [97, 98]), ("[1|[2,3]]", [1, 2, 3]), ("[1|[2|3]]", etf.ImproperList([1, 2], 3)),
        ("<<-1>>", b"\xff"), ('<<"é">>', b"\xe9"), ('<<"a",1,$b>>', b"a\x01b"),
        ("<<3:8>>", b"\x03"), ("1.5e3", 1500.0), ("'\\x{e9}'", Atom("é")), ("[[]]", [[]]),
    ],
)  # fmt: skip
def test_other_spellings_are_read(text: str, term: Any) -> None:
    assert etf.parse(text) == term


@pytest.mark.parametrize(
    "text",
    [
        "", "  ", "{", "}", "[1,", "[1|2,3]", "{a b}", "Var", "ok ok", "#{a}", "#{a => }",
        "<<256>>",
        "<<a>>", "<<1:3,2>>", '<<"→">>', "fun m:f", "fun m:f/-1",
         "1#1", "37#1", "16#", "16#g", "'open",
        '"open', "if", "#{a => 1, a => 2}", "1.5.5", "a.b", "[" * 10_000, "9" * 20_000,
        "$", "\x00",
        "'" + "x" * 256 + "'", "1.0e999999", "fun m:f/99999999999999999999", "<<$\\x{110000}>>",
    ],
    ids=lambda t: t[:20],
)  # fmt: skip
def test_anything_else_is_an_error_that_tells_where(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        etf.parse(text)


@pytest.mark.parametrize("quote", ["'", '"'])
@pytest.mark.parametrize("number", ["110000", "5" * 100, "d800", "DFFF"])
def test_a_number_that_is_no_character(quote: str, number: str) -> None:
    with pytest.raises(ValueError, match=r"^\\x\{\w+\} is no character, at position 4$"):
        etf.parse(f"{{a, {quote}b\\x{{{number}}}{quote}}}")
    assert etf.parse(f"{quote}\\x{{10ffff}}{quote}") in ("\U0010ffff", [0x10FFFF])


def test_identifiers_are_shown_with_their_node() -> None:
    term = [
        etf.Pid("shop@127.0.0.1", 85, 0, 7),
        etf.Reference("a@b", 1, (1, 2)),
        etf.Port("a@b", 3, 4),
    ]
    assert etf.format(term) == "[<shop@127.0.0.1.85.0>,#Ref<a@b.2.1>,#Port<a@b.3>]"


def test_formatting_never_fails() -> None:
    deep: Any = 1
    for _ in range(50_000):
        deep = [deep]
    assert etf.format(deep).startswith("[[[")
    assert etf.format({1: object}) == "#{1 => #<type>}"
    assert etf.format("\ud800").startswith("<<")
    assert etf.format(1 << 100_000).startswith("16#1000")
    assert etf.format(memoryview(b"ab")) == '<<"ab">>'
