"""Erlang as the oracle: the same play with two Erlang nodes, and with one of them replaced by ours.

A play is a list of steps for puppets on both nodes (erl/puppet.erl tells which). Its trace says
after each step what everybody was sent, who lives, and who is tied to whom. Pids, references and
node names are given names in it, and nothing else is changed.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import pytest

from conftest import LONG
from fault.proxy import Faults, Proxy, Way
from interop.erlang import Epmd, ErlangNode, Nodes, Otp
from interop.puppets import Puppets
from interop.talk import eventually, names, registered, separated, watch
from router import Atom, Node, etf

Step = tuple[Any, ...]

SCHEDULES = 10_000 if LONG else 50  # with each release, of others
BATCH = 10
STEPS = 14
CUT: Step = (Atom("cut"),)
"""The connection is ended here; what comes after makes it again."""


WAIT: Step = (Atom("wait"),)


def a(*words: str) -> Any:
    """Atoms: one alone, several as a tuple."""
    made = tuple(Atom(word) for word in words)
    return made if len(made) > 1 else made[0]


def pid(who: str) -> Step:
    return a("pid", who)


def ref(label: str) -> Step:
    return a("ref", label)


def child(label: str) -> Step:
    """Who was made by the spawn request of that label."""
    return (Atom("pid"), a("child", label))


def made(who: str, function: str, args: list[Any], *options: str, label: str) -> Step:
    """A spawn request to the other node."""
    there = a("node", "s" if who[0] == "d" else "d")
    return do(who, SPAWN, there, Atom(function), args, [Atom(o) for o in options], label=label)


def rpc(who: str, function: str, args: list[Any], timeout: int = 5000) -> Step:
    there = a("node", "s" if who[0] == "d" else "d")
    return do(who, RPC, there, Atom(function), args, timeout)


def new(who: str, name: Any = None) -> Step:
    where = Atom(who[0])
    return (Atom("new"), Atom(who), where, Atom("none") if name is None else name)


def do(who: str, *what: Any, label: str | None = None) -> Step:
    said = what if len(what) > 1 else what[0]
    return (Atom("do"), Atom(who), said, *([] if label is None else [Atom(label)]))


def tell(who: str, *what: Any) -> Step:
    return (Atom("tell"), Atom(who), what)


TRAP, LINK, UNLINK = Atom("trap"), Atom("link"), Atom("unlink")
MONITOR, DEMONITOR, EXIT, SEND = Atom("monitor"), Atom("demonitor"), Atom("exit"), Atom("send")
STOP, BURST, UNALIAS, CALL = Atom("stop"), Atom("burst"), Atom("unalias"), Atom("call")
ALIAS, ALIAS_ONCE = Atom("alias"), Atom("alias_once")
SPAWN, RPC = Atom("spawn"), Atom("rpc")
JOIN, LEAVE, MEMBERS = Atom("join"), Atom("leave"), Atom("members")
WATCH, UNWATCH = Atom("watch"), Atom("unwatch")
LEAVE_AND_STOP, SYNC, DISCOVER = Atom("leave_and_stop"), Atom("sync"), Atom("discover")
REASONS: list[Any] = [
    Atom("normal"), Atom("shutdown"), (Atom("shutdown"), 1), Atom("kill"), Atom("killed"),
    Atom("bye"), b"text", [1, {Atom("k"): 2.5}],
]  # fmt: skip


def both(*steps: Step) -> list[list[Step]]:
    """The steps, and the same with the two nodes' puppets in each other's place."""
    return [list(steps), [_mirrored(step) for step in steps]]


def _mirrored(term: Any) -> Any:
    if isinstance(term, Atom) and term[0] in "ds" and (len(term) == 1 or term[1:].isdigit()):
        return Atom({"d": "s", "s": "d"}[term[0]] + term[1:])
    if isinstance(term, tuple | list):
        return type(term)(_mirrored(item) for item in term)
    return term


def ends(*prepare: Step) -> list[list[Step]]:
    """d1 and s1 after `prepare`, and s1 ends in each way; then once by a cut."""
    start = [new("d1"), new("s1"), *prepare]
    plays = []
    for reason in REASONS:
        plays += both(*start, tell("s1", STOP, reason), WAIT)
        plays += both(*start, do("d1", EXIT, pid("s1"), reason), WAIT)
    return plays + both(*start, CUT, do("d1", SEND, pid("s1"), 1), do("s1", SEND, pid("d1"), 2))


SCENARIOS: dict[str, list[list[Step]]] = {
    "links": ends(do("d1", LINK, pid("s1"))),
    "trapped links": ends(do("d1", TRAP, True), do("s1", TRAP, True), do("s1", LINK, pid("d1"))),
    "links from both sides": ends(
        do("d1", TRAP, True), do("d1", LINK, pid("s1")), do("s1", LINK, pid("d1"))
    ),
    "links taken away": ends(
        do("d1", TRAP, True), do("d1", LINK, pid("s1")), do("s1", UNLINK, pid("d1"))
    ),
    "links anew": ends(
        do("d1", TRAP, True), do("d1", LINK, pid("s1")), do("d1", UNLINK, pid("s1")),
        do("s1", LINK, pid("d1")),
    ),
    "monitors": ends(
        do("d1", MONITOR, pid("s1"), label="r1"), do("d1", MONITOR, pid("s1"), label="r2")
    ),
    "monitors taken away": ends(
        do("d1", MONITOR, pid("s1"), label="r1"), do("d1", MONITOR, pid("s1"), label="r2"),
        do("d1", DEMONITOR, ref("r1")), do("d1", DEMONITOR, ref("r1")),
    ),
    "monitors of names": both(
        new("d1"), new("s1", Atom("clerk")),
        do("d1", MONITOR, a("named", "clerk", "s"), label="r1"),
        do("d1", MONITOR, a("named", "nobody", "s"), label="r2"),
        do("d1", SEND, a("named", "clerk", "s"), 5), do("d1", SEND, a("named", "nobody", "s"), 6),
        tell("s1", STOP, Atom("bye")), do("d1", MONITOR, a("named", "clerk", "s"), label="r3"),
        new("s2", Atom("clerk")), do("d1", MONITOR, a("named", "clerk", "s"), label="r4"), CUT,
        do("d1", SEND, a("named", "clerk", "s"), 7),
    ),
    "those who have ended": both(
        new("d1"), new("s1"), do("d1", TRAP, True), tell("s1", STOP, Atom("bye")),
        do("d1", LINK, pid("s1")), do("d1", MONITOR, pid("s1"), label="r1"),
        do("d1", SEND, pid("s1"), 1), do("d1", EXIT, pid("s1"), Atom("kill")),
        do("d1", UNLINK, pid("s1")), do("d1", DEMONITOR, ref("r1")),
        do("d1", TRAP, False), do("d1", LINK, pid("s1")),
    ),
    "messages before the end": ends(
        do("d1", MONITOR, pid("s1"), label="r1"), tell("s1", BURST, pid("d1"), 50, Atom("bye"))
    ),
    "aliases": both(
        new("d1"), new("s1"), do("d1", ALIAS, label="r1"), do("s1", SEND, ref("r1"), 1),
        do("s1", SEND, ref("r1"), 2), do("d1", UNALIAS, ref("r1")), do("s1", SEND, ref("r1"), 3),
        do("d1", UNALIAS, ref("r1")), do("d1", ALIAS_ONCE, label="r2"),
        do("s1", SEND, ref("r2"), 4), do("s1", SEND, ref("r2"), 5), do("d1", ALIAS, label="r3"),
        CUT, do("s1", SEND, ref("r3"), 6),
    ),
    "a chain": both(
        new("d1"), new("s1"), new("d2"), new("s2"), new("d3"), do("d3", TRAP, True),
        do("d1", LINK, pid("s1")), do("s1", LINK, pid("d2")), do("d2", LINK, pid("s2")),
        do("s2", LINK, pid("d3")), do("d3", MONITOR, pid("s1"), label="r1"),
        tell("d1", STOP, Atom("bye")), WAIT,
    ),
    "a star": both(
        new("s1"), *[new(f"d{i}") for i in range(2, 8)], do("d2", TRAP, True),
        *[do(f"d{i}", LINK, pid("s1")) for i in range(2, 8)],
        *[do(f"d{i}", MONITOR, pid("s1"), label=f"r{i}") for i in range(2, 8)],
        do("d2", EXIT, pid("s1"), Atom("kill")), WAIT,
    ),
    "calls": [
        play
        for reason in (Atom("normal"), Atom("shutdown"), (Atom("shutdown"), 1), Atom("bye"))
        for reply in ((), (7,))
        for play in both(
            new("s1", a("server", "adder")), new("d1"), do("d1", MONITOR, pid("s1"), label="r1"),
            do("d1", CALL, pid("s1"), (Atom("add"), 2), 5000),
            do("d1", CALL, a("named", "adder", "s"), (Atom("add"), 3), 5000),
            do("d1", CALL, a("named", "nobody", "s"), (Atom("add"), 3), 5000),
            do("d1", CALL, pid("s1"), Atom("later"), 50),
            do("d1", SEND, pid("s1"), (Atom("$gen_cast"), (Atom("answer"), 4))),
            do("d1", CALL, pid("s1"), (STOP, reason, *reply), 5000),
            do("d1", CALL, pid("s1"), (Atom("add"), 2), 5000),
            do("d1", CALL, a("named", "adder", "s"), (Atom("add"), 3), 5000),
        )
    ],
    "rpc": both(
        new("d1"), rpc("d1", "returns", [(1, b"two", [Atom("three")])]),
        *[rpc("d1", "exits", [reason]) for reason in REASONS],
        rpc("d1", "nothing", [1, 2]), rpc("d1", "waits", [], 50),
        CUT, rpc("d1", "returns", [4]), CUT, rpc("d1", "nothing", []),
    ),
    "spawn requests": [
        play
        for options in ([], ["link"], ["monitor"], ["link", "monitor"])
        for play in both(
            new("d1"), do("d1", TRAP, True), made("d1", "returns", [1], *options, label="r0"),
            *[made("d1", "exits", [reason], *options, label=f"r{i}")
              for i, reason in enumerate(REASONS, 1)],
            made("d1", "nothing", [1], *options, label="r20"),
        )
    ],
    "children": [
        play
        for options in ([], ["link"], ["monitor"], ["link", "monitor"])
        for last in (
            [do("d1", EXIT, child("r1"), Atom("kill"))],
            [do("d1", EXIT, child("r1"), Atom("bye"))],
            [do("d1", EXIT, child("r1"), Atom("normal"))],
            [do("d1", UNLINK, child("r1")), do("s1", EXIT, child("r1"), Atom("bye"))],
            [do("d1", DEMONITOR, ref("r1")), do("s1", EXIT, child("r1"), Atom("bye"))],
            [do("d1", TRAP, False), do("s1", EXIT, child("r1"), Atom("bye"))],
            [tell("d1", STOP, Atom("bye"))], [CUT, do("d1", SEND, pid("s1"), 1)],
        )
        for play in both(
            new("d1"), new("s1"), do("d1", TRAP, True), do("s1", TRAP, True),
            made("d1", "waits", [], *options, label="r1"),
            do("s1", MONITOR, child("r1"), label="r2"), do("s1", LINK, child("r1")), *last, WAIT,
            do("d1", MONITOR, child("r1"), label="r3"),
        )
    ],
}  # fmt: skip


def joins(who: str, group: str) -> Step:
    return do(who, JOIN, Atom(group))


def leaves(who: str, group: str) -> Step:
    return do(who, LEAVE, Atom(group))


def members(group: str) -> list[Step]:
    return [do(who, MEMBERS, Atom(group)) for who in ("d0", "s0")]


def synced(who: str, *groups: tuple[str, list[str]]) -> Step:
    """The scope of the other node is told all the groups that this one's has, truly or not."""
    there = a("node", "s" if who[0] == "d" else "d")
    return do(who, SYNC, there, [(Atom(g), [pid(member) for member in pids]) for g, pids in groups])


WATCHED = [
    new("d0"), new("s0"), do("d0", WATCH, Atom("g"), label="rd"),
    do("s0", WATCH, Atom("g"), label="rs"),
]  # fmt: skip

GROUPS: dict[str, list[list[Step]]] = {
    "joins and leaves": both(
        *WATCHED, new("d1"), new("s1"), *members("g"), joins("d1", "g"), *members("g"),
        joins("s1", "g"), joins("s1", "g"), *members("g"), leaves("s1", "g"), *members("g"),
        leaves("s1", "g"), leaves("s1", "g"), *members("g"), joins("s1", "h"), *members("h"),
        do("d0", UNWATCH, ref("rd")), do("d0", UNWATCH, ref("rd")), leaves("d1", "g"),
        *members("g"),
    ),
    "members that end": [
        play
        for reason in REASONS
        for play in both(
            *WATCHED, new("d1"), new("s1"), joins("d1", "g"), joins("s1", "g"), joins("s1", "g"),
            joins("s1", "h"), tell("s1", STOP, reason), *members("g"), *members("h"),
            do("s0", EXIT, pid("d1"), Atom("kill")), *members("g"),
        )
    ],
    "watchers that end": both(
        *WATCHED, new("d1"), new("s1"), joins("s1", "g"), joins("d1", "g"),
        tell("d0", STOP, Atom("bye")), leaves("d1", "g"), joins("d1", "g"), leaves("s1", "g"),
        do("s0", MEMBERS, Atom("g")),
    ),
    "a split": both(
        *WATCHED, new("d1"), new("s1"), new("s2"), joins("d1", "g"), joins("s1", "g"),
        joins("s2", "g"), joins("s2", "g"), joins("s2", "h"), CUT,
        do("d1", MEMBERS, Atom("g")), do("d1", SEND, pid("s1"), 1), WAIT, *members("g"),
        *members("h"), CUT, leaves("s2", "g"), joins("s1", "h"), do("d1", SEND, pid("s1"), 2),
        WAIT, *members("g"), *members("h"),
    ),
    # The cases of OTP's pg_SUITE of these names.
    "forced sync": both(
        *WATCHED, new("d1"), new("s1"), new("s2"), joins("d1", "g"), joins("s1", "g"),
        synced("s0", ("g", ["s1", "s2", "s2"]), ("h", ["s2"])), *members("g"), *members("h"),
        synced("s0", ("h", ["s1"])), *members("g"), *members("h"),
        synced("s0"), *members("g"), *members("h"),
        synced("s0", ("g", ["s2"])), joins("s1", "g"), leaves("s1", "g"), *members("g"),
        tell("s2", STOP, Atom("bye")), *members("g"), CUT, do("d1", SEND, pid("s1"), 1), WAIT,
        *members("g"), *members("h"),
    ),
    "leave and exit race": [
        play
        for reason in REASONS
        for play in both(
            *WATCHED, new("d1"), new("s1"), joins("d1", "g"), joins("s1", "g"), joins("s1", "g"),
            tell("s1", LEAVE_AND_STOP, Atom("g"), reason), WAIT, *members("g"),
            tell("d1", LEAVE_AND_STOP, Atom("g"), reason), WAIT, *members("g"),
        )
    ],
    "thundering herd": both(
        *WATCHED, new("d1"), new("s1"), joins("d1", "g"), joins("s1", "g"),
        do("s0", DISCOVER, a("node", "d"), 1000), joins("s1", "g"),
        do("s0", DISCOVER, a("node", "d"), 1000), leaves("d1", "g"), *members("g"),
        tell("s1", STOP, Atom("bye")), *members("g"),
    ),
}  # fmt: skip


def random_groups(seed: int) -> list[Step]:
    """Four puppets that join, leave and end in three groups, with cuts in between."""
    dice = random.Random(seed)
    names = ["d1", "d2", "s1", "s2"]
    steps = [*WATCHED, *map(new, names)]
    for _ in range(STEPS):
        one, group = dice.choice(names), dice.choice("ghi")
        match dice.randrange(10):
            case 0 | 1 | 2 | 3:
                steps.append(joins(one, group))
            case 4 | 5:
                steps.append(leaves(one, group))
            case 6:
                steps += members(group)
            case 7:
                steps += [tell(one, STOP, dice.choice(REASONS)), WAIT]
            case 8:
                steps.append(new(one))
            case 9:
                steps += [CUT, do("d0", SEND, pid("s0"), 1), WAIT]
    return [*steps, *members("g"), *members("h"), *members("i")]


def random_play(seed: int) -> list[Step]:
    """Six puppets that trap, tie, message and end each other, with cuts in between."""
    dice = random.Random(seed)
    names = ["d1", "d2", "d3", "s1", "s2", "s3"]
    steps = [new(who, Atom(f"name_{who}")) for who in names]
    trapping = {who for who in names if dice.random() < 0.5}
    steps += [do(who, TRAP, True) for who in names if who in trapping]
    owners: dict[str, str] = {}  # of monitors and aliases
    children = {"c0": "d"}  # and the node they were asked for on
    for _ in range(STEPS):
        one = dice.choice(names)
        other = dice.choice([who for who in names if who[0] != one[0]])
        neighbour = dice.choice([who for who in names if who != one])
        named = a("named", f"name_{neighbour}", neighbour[0])
        label = f"r{len(owners) + 1}"
        known = dice.choice(list(owners)) if owners else "r1"
        known_child, asked_on = dice.choice(list(children.items()))
        match dice.randrange(20):
            case 0 | 1 | 2:
                steps.append(do(one, LINK, pid(other)))
            case 3:
                steps.append(do(one, UNLINK, pid(other)))
            case 4 | 5:
                owners[label] = one
                steps.append(do(one, MONITOR, dice.choice([pid(neighbour), named]), label=label))
            case 6:  # another's is badarg in Erlang
                what = dice.choice([DEMONITOR, UNALIAS])
                steps.append(do(owners.get(known, one), what, ref(known)))
            case 7 | 8:
                steps.append(do(one, EXIT, pid(neighbour), dice.choice(REASONS)))
            case 9:
                steps.append(tell(one, STOP, dice.choice(REASONS)))
            case 10:
                steps.append(tell(one, BURST, pid(neighbour), 20, dice.choice(REASONS)))
            case 11:
                steps.append(do(one, BURST, dice.choice([pid(neighbour), named]), 20))
            case 12:
                owners[label] = one
                steps.append(do(one, dice.choice([ALIAS, ALIAS_ONCE]), label=label))
            case 13:
                steps.append(do(one, SEND, ref(known), dice.randrange(100)))
            case 14:
                steps.append(new(one))  # another one of that name, without a registered name
                trapping.discard(one)
            case 15:
                steps.append(CUT)
            case 16:
                child_label = f"c{len(steps)}"
                children[child_label] = one[0]
                options = [option for option in ("link", "monitor") if dice.random() < 0.5]
                function, args = dice.choice([("waits", []), ("exits", [dice.choice(REASONS)])])
                if function == "exits" and one not in trapping:
                    # The end of its child may take the asker along before it has told of it: so it
                    # is between two Erlang nodes too, now and then.
                    options = [option for option in options if option != "link"]
                steps.append(made(one, function, args, *options, label=child_label))
            case 17:  # with one's neighbour who has ended: noproc, at once, in Erlang
                other = dice.choice([who for who in names if who[0] == asked_on])
                steps.append(do(other, dice.choice([LINK, UNLINK]), child(known_child)))
            case 18:
                steps.append(do(one, EXIT, child(known_child), dice.choice(REASONS)))
            case 19:
                function = dice.choice(["returns", "exits", "nothing"])
                steps.append(rpc(one, function, [dice.choice(REASONS)]))
    return steps


# The nodes ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def oracle(
    otp: Otp, session_epmd: Epmd, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ErlangNode]:
    """The node whose place ours takes: as hidden as ours."""
    nodes = Nodes(otp, tmp_path_factory.mktemp("oracle"))
    node = nodes(f"oracle{otp.release}", epmd_port=session_epmd.port, hidden=True)
    node.load("puppet.erl")
    node.load("talk.erl")
    yield node
    nodes.close()


@pytest.fixture
def stage(talker: ErlangNode) -> ErlangNode:
    """Where plays are directed."""
    if talker.text("erlang:module_loaded(puppet)") == "false":
        talker.load("puppet.erl")
    return talker


# The scopes of pg find each other on nodes that are not hidden; these are no cluster otherwise.
SEEN = {"args": ("-connect_all", "false"), "hidden": False}


@pytest.fixture(scope="module")
def seen(
    otp: Otp, session_epmd: Epmd, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ErlangNode, ErlangNode]]:
    """A stage and an oracle that are visible."""
    nodes = Nodes(otp, tmp_path_factory.mktemp("seen"))
    made = [
        nodes(f"{what}{otp.release}", epmd_port=session_epmd.port, **SEEN)
        for what in ("seen_stage", "seen_oracle")
    ]
    for node in made:
        node.load("puppet.erl")
        node.load("talk.erl")
    yield made[0], made[1]
    nodes.close()


@asynccontextmanager
async def apart(one: ErlangNode, other: ErlangNode) -> AsyncIterator[None]:
    """As `separated`, for two Erlang nodes."""
    gone = [await watch(one, other.name), await watch(other, one.name)]
    yield
    for ended in gone:
        await ended()


async def with_erlang(stage: ErlangNode, oracle: ErlangNode, steps: list[Step]) -> list[Any]:
    await oracle.aeval("puppet:puppeteer()")

    async def cut(number: int) -> None:
        one, other = (stage, oracle) if number % 2 else (oracle, stage)
        async with apart(stage, oracle):
            await one.aeval("erlang:disconnect_node(Node)", Node=Atom(other.name))

    return await play(stage, oracle.name, steps, cut)


async def with_ours(stage: ErlangNode, node: Node, steps: list[Step]) -> list[Any]:
    async def cut(number: int) -> None:
        async with separated(node, stage):
            if number % 2:
                await stage.aeval("erlang:disconnect_node(Node)", Node=Atom(node.name))
            else:
                node.disconnect(stage.name)

    return await play(stage, node.name, steps, cut)


class BadNetwork:
    """Between the stage and our node: streams in small pieces and late, and ends of several kinds.
    Which, a seed tells."""

    def __init__(self, stage: ErlangNode, node: Node, epmd: Epmd, stack: ExitStack) -> None:
        self.stage = stage
        self.node = node
        self.epmd = epmd
        self.short = node.name.partition("@")[0]
        self.stack = stack
        self.registration = ExitStack()
        stack.callback(lambda: self.registration.close())

    async def begin(self, seed: int) -> None:
        """A path of its own for what is connected from now on."""
        self.dice = random.Random(seed)
        if self.stage.name in self.node.nodes():
            async with separated(self.node, self.stage):
                self.node.disconnect(self.stage.name)
        await self._new_path()

    async def _new_path(self) -> None:
        self.registration.close()
        await eventually(lambda: self.short not in names(self.epmd.port))
        up, down = (
            Faults(split=self.dice.choice([None, 1, 3, 100]), delay=self.dice.choice([0, 0, 0.001]))
            for _ in "ud"
        )
        self.proxy = Proxy(("127.0.0.1", self.node.port), up=up, down=down)
        self.stack.enter_context(self.proxy)
        self.registration.enter_context(registered(self.epmd, self.short, self.proxy.port))

    async def cut(self, _: int) -> None:
        kind = self.dice.choice(["reset", "close", "stage", "ours", "half"])
        if kind == "half":
            await self._half_open()
            return
        async with separated(self.node, self.stage):
            if kind == "reset":
                await asyncio.to_thread(self.proxy.reset_all)
            elif kind == "close":
                await asyncio.to_thread(self.proxy.close_all)
            elif kind == "stage":
                await self._stage_disconnects()
            else:
                self.node.disconnect(self.stage.name)

    async def _half_open(self) -> None:
        """The stage has left and comes again, and we have not heard that it left."""
        ways: tuple[Way, ...] = ("up", "down")
        for way in ways:
            await asyncio.to_thread(self.proxy.hold, way)
        gone = await watch(self.stage, self.node.name)
        await self._stage_disconnects()
        await gone()
        assert self.stage.name in self.node.nodes()
        await self._new_path()

    async def _stage_disconnects(self) -> None:
        await self.stage.aeval("erlang:disconnect_node(Node)", Node=Atom(self.node.name))


async def play(stage: ErlangNode, other: str, steps: list[Step], cut: Any) -> list[Any]:
    """The trace of a play; cuts are between acts."""
    await stage.aeval("puppet:puppeteer()")
    assert await stage.aeval("puppet:stage(Other)", Other=Atom(other)) == "ok"
    trace: list[Any] = []
    act: list[Step] = []
    for number, step in enumerate([*steps, CUT]):
        if step != CUT:
            act.append(step)
            continue
        played = await stage.aeval("puppet:play(Steps)", Steps=act)
        trace += played
        act = [WAIT]
        if number < len(steps):
            await cut(number)
    await stage.aeval("puppet:clear(Other)", Other=Atom(other))
    assert len(trace) >= len([step for step in steps if step != CUT])
    return trace


def told(steps: list[Step], trace: list[Any]) -> str:
    return "\n".join([*map(etf.format, steps), "", *map(etf.format, trace)])


def differences(theirs: list[Any], ours: list[Any]) -> list[str]:
    pairs = zip(theirs, ours, strict=False)
    found = [
        f"Erlang: {etf.format(one)}\nours:   {etf.format(other)}"
        for one, other in pairs
        if etf.encode(one) != etf.encode(other)
    ]
    return found + ([] if len(theirs) == len(ours) else [f"{len(theirs)} steps and {len(ours)}"])


def seeds(stage: ErlangNode, batch: int) -> range:
    fixed = (stage.otp.release * 1000 + batch) * BATCH
    first = random.SystemRandom().randrange(1 << 32) if LONG else fixed
    return range(first, first + BATCH)


# The comparisons ------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_a_scenario_ends_as_with_erlang(
    stage: ErlangNode, oracle: ErlangNode, name: str, scenario: str
) -> None:
    async with Node(name) as node, Puppets(node):
        for steps in SCENARIOS[scenario]:
            theirs = await with_erlang(stage, oracle, steps)
            ours = await with_ours(stage, node, steps)
            assert not differences(theirs, ours), told(steps, theirs)


@pytest.mark.parametrize("batch", range(SCHEDULES // BATCH))
async def test_a_random_play_ends_as_with_erlang(
    stage: ErlangNode, oracle: ErlangNode, name: str, batch: int
) -> None:
    async with Node(name) as node, Puppets(node):
        for seed in seeds(stage, batch):
            steps = random_play(seed)
            theirs = await with_erlang(stage, oracle, steps)
            ours = await with_ours(stage, node, steps)
            assert not differences(theirs, ours), f"seed {seed}\n{told(steps, theirs)}"


@pytest.mark.parametrize("batch", range(SCHEDULES // BATCH // 2))
async def test_a_random_play_ends_as_with_erlang_on_a_bad_network(
    stage: ErlangNode, oracle: ErlangNode, epmd: Epmd, name: str, batch: int
) -> None:
    async with Node(name, epmd="none") as node, Puppets(node):
        with ExitStack() as stack:
            network = BadNetwork(stage, node, epmd, stack)
            for seed in seeds(stage, batch):
                steps = random_play(seed)
                theirs = await with_erlang(stage, oracle, steps)
                await network.begin(seed)
                ours = await play(stage, node.name, steps, network.cut)
                assert not differences(theirs, ours), f"seed {seed}\n{told(steps, theirs)}"


async def compare_groups(
    seen: tuple[ErlangNode, ErlangNode], name: str, plays: dict[Any, list[Step]]
) -> None:
    stage, oracle = seen
    async with Node(name, hidden=False) as node, Puppets(node):
        for which, steps in plays.items():
            theirs = await with_erlang(stage, oracle, steps)
            ours = await with_ours(stage, node, steps)
            assert not differences(theirs, ours), f"{which}\n{told(steps, theirs)}"


@pytest.mark.usefixtures("epmd")
@pytest.mark.parametrize("scenario", GROUPS)
async def test_groups_are_as_with_erlang(
    seen: tuple[ErlangNode, ErlangNode], name: str, scenario: str
) -> None:
    await compare_groups(seen, name, dict(enumerate(GROUPS[scenario])))


@pytest.mark.usefixtures("epmd")
@pytest.mark.parametrize("batch", range(SCHEDULES // BATCH // 2))
async def test_random_groups_are_as_with_erlang(
    seen: tuple[ErlangNode, ErlangNode], name: str, batch: int
) -> None:
    plays = {f"seed {seed}": random_groups(seed) for seed in seeds(seen[0], batch)}
    await compare_groups(seen, name, plays)


async def test_a_trace_without_one_of_its_signals_is_another(
    stage: ErlangNode, oracle: ErlangNode, name: str
) -> None:
    """Of each scenario that has some: a DOWN, an EXIT or a message that is missing, comes twice,
    or comes later is seen, and so is a tie that is left over."""
    async with Node(name) as node, Puppets(node):
        changed = 0
        for scenario in SCENARIOS.values():
            trace = await with_ours(stage, node, scenario[0])
            assert not differences(trace, await with_erlang(stage, oracle, scenario[0]))
            for at, (number, result, said, living, ties) in enumerate(trace):
                for other in (
                    *[(said[:i] + said[i + 1 :], ties) for i in range(len(said))],
                    *[([*said[:i], (who, log[1:]), *said[i + 1 :]], ties)
                      for i, (who, log) in enumerate(said)],
                    *[([*said[:i], (who, [*log, log[0]]), *said[i + 1 :]], ties)
                      for i, (who, log) in enumerate(said)],
                    *[(said, [*ties, (who, (Atom("links"), [who]))]) for who, _ in ties[:1]],
                ):  # fmt: skip
                    now = [
                        *trace[:at],
                        (number, result, other[0], living, other[1]),
                        *trace[at + 1 :],
                    ]
                    assert len(differences(trace, now)) == 1
                    changed += 1
        assert changed > 100
