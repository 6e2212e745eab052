"""Every kind of term through running nodes, judged by Erlang with =:=."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from interop.erlang import ErlangNode, Nodes, Otp, installed
from interop.talk import PATIENCE, answer, echo
from router import Atom, BitString, Export, Fun, ImproperList, Node, Pid, Port, Reference, etf

# What Python calls a term, and what Erlang does.
NAMES: list[tuple[Any, str]] = [
    (Atom("ok"), "ok"),
    (Atom(""), "''"),
    (Atom("with space"), "'with space'"),
    (Atom("été"), "'été'"),
    (Atom("日本"), "'日本'"),
    (Atom("😀" * 255), "list_to_atom(lists:duplicate(255, 16#1F600))"),
    (True, "true"),
    (False, "false"),
    (None, "nil"),
    (0, "0"),
    (-1, "-1"),
    (255, "255"),
    (256, "256"),
    (-(2**31), "-(1 bsl 31)"),
    (2**31, "1 bsl 31"),
    (2**63, "1 bsl 63"),
    (-(2**64), "-(1 bsl 64)"),
    (2**2040, "1 bsl 2040"),
    (-(2**20000) - 7, "-(1 bsl 20000) - 7"),
    (0.0, "0.0"),
    (-0.0, "-0.0"),
    (1.5, "1.5"),
    (5e-324, "5.0e-324"),
    (1.7976931348623157e308, "1.7976931348623157e308"),
    (b"", "<<>>"),
    (b"abc\x00\xff", "<<97, 98, 99, 0, 255>>"),
    (b"\x2a" * 100_000, "binary:copy(<<42>>, 100000)"),
    (BitString(b"\xa0", 3), "<<5:3>>"),
    (BitString(b"ab\x80", 1), "<<97, 98, 1:1>>"),
    ([], "[]"),
    ([1, 2, 3], "[1, 2, 3]"),
    ([104, 105], '"hi"'),
    ([1000], "[1000]"),
    ([[], [[]]], "[[], [[]]]"),
    ([1] * 70_000, "lists:duplicate(70000, 1)"),
    (ImproperList([1, 2], 3), "[1, 2 | 3]"),
    (ImproperList([[1]], Atom("tail")), "[[1] | tail]"),
    ((), "{}"),
    ((1,), "{1}"),
    (tuple(range(300)), "list_to_tuple(lists:seq(0, 299))"),
    ((Atom("ok"), [(Atom("deep"), {Atom("k"): [b"v"]})]), '{ok, [{deep, #{k => [<<"v">>]}}]}'),
    ({}, "#{}"),
    ({Atom("a"): 1, b"b": 2, 3: 4}, '#{a => 1, <<"b">> => 2, 3 => 4}'),
    ({i: i * i for i in range(100)}, "maps:from_list([{I, I * I} || I <- lists:seq(0, 99)])"),
    (etf.Map([(1, Atom("one")), (1.0, Atom("float"))]), "#{1 => one, 1.0 => float}"),
    (etf.Map([(True, 1), (1, True)]), "#{true => 1, 1 => true}"),
    ({etf.FrozenList([1, 2]): {(): []}}, "#{[1, 2] => #{{} => []}}"),
    (Export("lists", "map", 2), "fun lists:map/2"),
]

# What Python sends and cannot come back as itself.
ONE_WAY: list[tuple[Any, str]] = [
    ("text", '<<"text">>'),
    ("éß€😀", '<<"éß€😀"/utf8>>'),
    (bytearray(b"abc"), '<<"abc">>'),
    (memoryview(b"abc"), '<<"abc">>'),
    ({"key": "value"}, '#{<<"key">> => <<"value">>}'),
]


async def test_python_sends_and_erlang_judges(talker: ErlangNode, name: str) -> None:
    wrong = []
    async with Node(name) as node:
        box = node.mailbox()
        judge = await talker.aeval(
            "spawn(fun() -> F = fun F() -> receive {P, Term, Text} ->"
            " P ! talk:same(Term, Text), F(); stop -> ok end end, F() end)"
        )
        for term, text in [*NAMES, *ONE_WAY]:
            node.send(judge, (box.pid, term, text.encode()))
            if await box.receive(PATIENCE) is not True:
                wrong.append((term, text))
        node.send(judge, Atom("stop"))
    assert not wrong


async def test_erlang_sends_and_python_judges(talker: ErlangNode, name: str) -> None:
    async with Node(name) as node:
        box = node.mailbox()
        waiting = talker.submit(
            "[begin {ok, T, _} = erl_scan:string(unicode:characters_to_list(Text) ++ [$ , $.]),"
            " {ok, E} = erl_parse:parse_exprs(T), {value, V, _} = erl_eval:exprs(E, []),"
            " Box ! V end || Text <- Texts], ok",
            Box=box.pid, Texts=[text.encode() for _, text in NAMES],
        )  # fmt: skip
        for term, text in NAMES:
            got = await box.receive(PATIENCE)
            assert identical(got, term), text
        assert await answer(waiting) == "ok"


def identical(a: Any, b: Any) -> bool:
    """Equal, of the same types all through, with the sign of zero."""
    if type(a) is not type(b) or a != b:
        return False
    if isinstance(a, float):
        return math.copysign(1, a) == math.copysign(1, b)
    if isinstance(a, (list, tuple)):
        return all(identical(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict):
        return all(identical(a[k], b[k]) for k in a)
    return True


async def test_there_and_back_from_erlang(talker: ErlangNode, name: str) -> None:
    """Of every kind, by themselves and in lists of many."""
    async with Node(name) as node:
        echo(node, "echo")
        assert await talker.aeval(
            "[{I, io_lib:format(\"~0tp\", [T])} || {I, T, _} <-"
            " talk:bounce({echo, Node}, talk:every_kind(), 1)]",
            Node=Atom(name),
        ) == []  # fmt: skip


async def test_there_and_back_from_python(talker: ErlangNode, name: str) -> None:
    async with Node(name) as node:
        box = node.mailbox()
        pid = await talker.aeval("talk:echo(N)", N=Atom(name))
        third = Reference("third@127.0.0.1", 7, [1, 2, 3])
        terms = [
            *(term for term, _ in NAMES),
            box.pid,
            box.alias(),
            Pid("third@127.0.0.1", 5, 6, 77),
            Pid("été@127.0.0.1", 2**32 - 1, 2**32 - 1, 2**32 - 1),
            third,
            Reference("third@127.0.0.1", 7, [1, 2, 3, 4, 5]),
            Port("third@127.0.0.1", 2**60, 9),
            {third: Port("third@127.0.0.1", 3, 9)},
        ]
        for term in terms:
            node.send(pid, (box.pid, term))
        for term in terms:
            sender, got = await box.receive(PATIENCE)
            assert sender == pid
            assert identical(got, term)
        node.send(pid, Atom("stop"))


async def test_what_came_keeps_its_meaning(talker: ErlangNode, name: str) -> None:
    """A fun can be called, a pid reached, a reference matched after a visit to Python."""
    async with Node(name) as node:
        box = node.mailbox()
        waiting = talker.submit(
            "X = 40, Port = hd(erlang:ports()), R = make_ref(),"
            " Box ! {self(), fun(Y) -> X + Y end, fun lists:sum/1, R, Port},"
            " receive {F, G, R, Port} -> {F(2), G([1, 2]), is_port(Port)} after 20000 -> no end",
            Box=box.pid,
        )
        pid, fun, export, ref, port = await box.receive(PATIENCE)
        assert isinstance(fun, Fun)
        assert fun.module == "erl_eval"
        assert export == Export("lists", "sum", 1)
        assert isinstance(ref, Reference)
        assert isinstance(port, Port)
        assert ref.node == port.node == pid.node == talker.name
        node.send(pid, (fun, export, ref, port))
        assert await answer(waiting) == (42, 3, True)


async def test_pids_of_third_nodes(erlang: Nodes, talker: ErlangNode, name: str) -> None:
    """One node tells of a process on another, which is reached without further ado."""
    other = erlang("other")
    async with Node(name) as node:
        box = node.mailbox()
        waiting = other.submit(
            "register(third, self()),"
            " receive {hello, Box} -> Box ! self(), node(Box) after 20000 -> nothing end"
        )
        told = talker.submit(
            "Find = fun Find() -> case erpc:call(Other, erlang, whereis, [third]) of"
            " undefined -> Find(); Pid -> Pid end end, Box ! Find(), ok",
            Other=Atom(other.name), Box=box.pid,
        )  # fmt: skip
        pid = await box.receive(PATIENCE)
        assert pid.node == other.name
        assert node.nodes() == [talker.name]
        node.send(pid, (Atom("hello"), box.pid))
        assert await box.receive(PATIENCE) == pid
        assert sorted(node.nodes()) == sorted([talker.name, other.name])
        assert await answer(waiting) == name
        assert await answer(told) == "ok"


@pytest.mark.parametrize("other", installed(), ids=str)
async def test_by_way_of_python_to_another_node(
    erlang: Nodes, node_logs: Path, other: Otp, name: str
) -> None:
    """A's terms go to Python, from there to B, and back the same way: A finds what it sent,
    whatever releases A and B are of."""
    a = erlang("a")
    a.load("talk.erl")
    others = Nodes(other, node_logs)
    try:
        b = others("b")
        b.load("talk.erl")
        await a.aeval(f"net_kernel:allow(['{name}'])")  # there is no other way to B
        async with Node(name) as node:
            away = await b.aeval("talk:echo(echo)")
            waiting: dict[int, Any] = {}
            relay = node.mailbox("relay")

            def carry(terms: list[Any]) -> None:
                for term in terms:
                    match term:
                        case (Pid() as pid, int() as number, what) if pid.node == a.name:
                            waiting[number] = pid
                            node.send(away, (relay.pid, (number, what)))
                        case (Pid(), (number, what)):
                            node.send(waiting.pop(number), (number, what))

            relay.on_messages(carry)
            assert await a.aeval(
                "[{I, io_lib:format(\"~0tp\", [T])} || {I, T, _} <-"
                " talk:bounce({relay, Node}, talk:every_kind(), 1)]",
                Node=Atom(name),
            ) == []  # fmt: skip
            assert await a.aeval("nodes(connected)") == [name]
            assert not waiting
    finally:
        others.close()
