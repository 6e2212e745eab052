"""Process groups with OTP's own pg: what each side sees of the other's members."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from interop.erlang import ErlangNode
from interop.talk import PATIENCE, eventually, separated
from router import Atom, Mailbox, Node, Pid, etf
from router.groups import ProcessGroups

SCHEDULES = 6
OPERATIONS = 60


class Scope:
    """One scope on a real node: started, asked, and found alive at the end."""

    def __init__(self, erl: ErlangNode, name: str) -> None:
        self.erl, self.name = erl, name

    async def say(self, source: str, **values: Any) -> Any:
        return await self.erl.aeval(source, S=Atom(self.name), **values)

    async def start(self) -> Any:
        # Of a process of its own: the scope is linked to who starts it.
        return await self.say(
            "P = self(), spawn(fun() -> {ok, Q} = pg:start(S), P ! {started, Q} end), "
            "receive {started, Q} -> Q end"
        )

    async def process(self) -> Pid:
        found = await self.say("spawn(fun() -> receive stop -> ok end end)")
        assert isinstance(found, Pid)
        return found

    async def members(self, group: Any) -> list[Pid]:
        found = await self.say("pg:get_members(S, G)", G=group)
        assert isinstance(found, list)
        return found

    async def sees(self, group: Any, pids: list[Pid]) -> None:
        await self.say(
            "W = lists:sort(P), F = fun F(0) -> exit({other, pg:get_members(S, G)}); "
            "F(N) -> case lists:sort(pg:get_members(S, G)) of W -> ok; "
            "_ -> receive after 10 -> F(N - 1) end end end, F(1000)",
            G=group,
            P=pids,
        )


@asynccontextmanager
async def both(erl: ErlangNode, name: str) -> AsyncIterator[tuple[Node, ProcessGroups, Scope]]:
    """A Python node and a real one with the same scope; at the end the real scope is the one
    that was started: nothing has made it crash."""
    scope = Scope(erl, f"scope_{name.partition('@')[0]}")
    async with Node(name) as node:
        first = await scope.start()
        await node.connect(erl.name)
        yield node, node.pg(scope.name), scope
        assert await scope.say("whereis(S)") == first
    await scope.say("exit(whereis(S), kill)")


def sees(groups: ProcessGroups, group: Any, pids: list[Pid]) -> Any:
    wanted = sorted(pids)
    return eventually(lambda: sorted(groups.members(group)) == wanted)


async def views(groups: ProcessGroups, scope: Scope, group: Any) -> list[list[Pid]]:
    """Who is in the group: as each side says of its own, as ours sees it, and as the real one."""
    own = groups.local_members(group) + await scope.say("pg:get_local_members(S, G)", G=group)
    return [sorted(own), sorted(groups.members(group)), sorted(await scope.members(group))]


async def settled(look: Callable[[], Awaitable[list[list[Pid]]]]) -> None:
    """All views are the same, after a while."""
    found: list[list[Pid]] = []
    try:
        async with asyncio.timeout(PATIENCE):
            while not found or found.count(found[0]) != len(found):
                found = await look()
    except TimeoutError:
        pytest.fail(f"they do not agree: {found}")


async def test_members_of_both_sides(talker: ErlangNode, name: str) -> None:
    async with both(talker, name) as (node, groups, scope):
        theirs = [await scope.process() for _ in range(3)]
        await scope.say("pg:join(S, G, P)", G=Atom("workers"), P=theirs)
        await sees(groups, Atom("workers"), theirs)
        assert groups.local_members(Atom("workers")) == []
        ours = [node.mailbox() for _ in range(2)]
        groups.join(Atom("workers"), ours)
        groups.join(Atom("workers"), ours[0])
        pids = [ours[0].pid, ours[0].pid, ours[1].pid]
        await scope.sees(Atom("workers"), theirs + pids)
        assert sorted(groups.local_members(Atom("workers"))) == sorted(pids)
        assert groups.leave(Atom("workers"), ours[0])
        await scope.sees(Atom("workers"), [*theirs, ours[0].pid, ours[1].pid])
        ours[1].close()
        await scope.sees(Atom("workers"), [*theirs, ours[0].pid])
        await scope.say("P ! stop", P=theirs[0])
        await scope.say("pg:leave(S, G, P)", G=Atom("workers"), P=theirs[1:])
        await sees(groups, Atom("workers"), [ours[0].pid])
        assert groups.leave(Atom("workers"), ours[0])
        await scope.sees(Atom("workers"), [])
        assert groups.groups() == []
        assert not groups.leave(Atom("workers"), ours[0])


async def test_what_was_joined_before_they_met(talker: ErlangNode, name: str) -> None:
    scope = Scope(talker, "early")
    async with Node(name) as node:
        groups, box = node.pg("early"), node.mailbox()
        for group in (Atom("a"), "a", 1, 1.0, (Atom("t"), [1, "x"]), [1, 2, 3]):
            groups.join(group, box)
        first = await scope.start()
        theirs = await scope.process()
        await scope.say("pg:join(S, b, P)", P=theirs)
        await node.connect(talker.name)
        await sees(groups, Atom("b"), [theirs])
        for source in ("a", '<<"a">>', "1", "1.0", '{t, [1, <<"x">>]}', "[1, 2, 3]"):
            await scope.sees(await scope.say(source), [box.pid])
        assert await scope.say("length(pg:which_groups(S))") == 7
        assert await scope.say("whereis(S)") == first
    await scope.sees(Atom("a"), [])
    await scope.say("exit(whereis(S), kill)")


@pytest.mark.parametrize("hidden", [True, False])
async def test_a_scope_that_starts_later_or_again(
    talker: ErlangNode, name: str, hidden: bool
) -> None:
    scope = Scope(talker, f"late_{hidden}".lower())
    async with Node(name, hidden=hidden) as node:
        await node.connect(talker.name)
        groups, box = node.pg(scope.name), node.mailbox()
        groups.join(Atom("g"), box)
        assert await talker.aeval("1 + 1") == 2  # it has had what was sent before
        for _ in range(2):
            await scope.start()
            theirs = await scope.process()
            await scope.say("pg:join(S, g, P)", P=theirs)
            await sees(groups, Atom("g"), [box.pid, theirs])
            await scope.sees(Atom("g"), [box.pid, theirs])
            await scope.say("exit(whereis(S), kill)")
            await sees(groups, Atom("g"), [box.pid])


async def test_a_split_and_its_end(talker: ErlangNode, name: str) -> None:
    async with both(talker, name) as (node, groups, scope):
        box, theirs = node.mailbox(), await scope.process()
        groups.join(Atom("g"), box)
        await scope.say("pg:join(S, g, P)", P=theirs)
        for _ in range(3):
            await sees(groups, Atom("g"), [box.pid, theirs])
            await scope.sees(Atom("g"), [box.pid, theirs])
            async with separated(node, talker):
                node.disconnect(talker.name)
            await sees(groups, Atom("g"), [box.pid])
            await scope.sees(Atom("g"), [theirs])
            more = node.mailbox()
            groups.join(Atom("while apart"), more)
            await node.connect(talker.name)
            await scope.sees(Atom("while apart"), [more.pid])
            assert groups.leave(Atom("while apart"), more)
            await scope.sees(Atom("while apart"), [])


async def test_monitors_tell_of_every_change(talker: ErlangNode, name: str) -> None:
    async with both(talker, name) as (node, groups, scope):
        theirs, box, watcher = await scope.process(), node.mailbox(), node.mailbox()
        ref, there = groups.monitor(Atom("g"), watcher)
        every, pairs = groups.monitor_scope(watcher)
        assert there == [] and pairs == []
        watching = talker.submit(
            "{Ref, []} = pg:monitor(S, g), "
            "Next = fun() -> receive {Ref, What, g, [P]} -> {What, P} after 20000 -> none end end, "
            "pg:join(S, g, self()), pg:leave(S, g, self()), Next(), Next(), [Next(), Next()]",
            S=Atom(scope.name),
        )
        for what in ("join", "leave"):
            for _ in range(2):
                match await watcher.receive(PATIENCE):
                    case (r, w, "g", [Pid() as asking]) if r in (ref, every) and w == what:
                        assert asking.node == talker.name
                    case other:
                        raise AssertionError(other)
        groups.join(Atom("g"), box)
        groups.leave(Atom("g"), box)
        said = etf.decode(await asyncio.wrap_future(watching))
        assert said == [(Atom("join"), box.pid), (Atom("leave"), box.pid)]
        assert len(await watcher.receive_many(4, PATIENCE)) == 4
        assert groups.demonitor(every) and not groups.demonitor(every)
        await scope.say("pg:join(S, g, P)", P=theirs)
        assert await watcher.receive(PATIENCE) == (ref, "join", "g", [theirs])
        watcher.close()
        groups.join(Atom("g"), box)  # tells nobody, and does not mind


async def test_a_broadcast_reaches_processes_of_both(talker: ErlangNode, name: str) -> None:
    async with both(talker, name) as (node, groups, scope):
        box = node.mailbox()
        groups.join(Atom("g"), box)
        heard = talker.submit(
            "pg:join(S, g, self()), receive {hello, N} -> N after 20000 -> none end",
            S=Atom(scope.name),
        )
        await eventually(lambda: len(groups.members(Atom("g"))) == 2)
        assert groups.broadcast(Atom("g"), (Atom("hello"), 42)) == 2
        assert etf.decode(await asyncio.wrap_future(heard)) == 42
        assert await box.receive(PATIENCE) == ("hello", 42)


async def test_a_herd_of_scopes_is_answered(talker: ErlangNode, name: str) -> None:
    """Each hears of all groups and is asked for its own; when they end, nothing is left."""
    async with both(talker, name) as (node, groups, scope):
        box = node.mailbox()
        for number in range(1000):
            groups.join(number, box)
        members = await talker.aeval(
            "P = self(), [spawn(fun() -> {S, Node} ! {discover, self()}, "
            "receive {'$gen_cast', {sync, Q, All}} -> receive {discover, Q} -> "
            "Q ! {'$gen_cast', {sync, self(), [{herd, [self()]}]}}, P ! {self(), length(All)}, "
            "receive stop -> ok end end end end) || _ <- lists:seq(1, 300)], "
            "[receive {Pid, 1000} -> Pid after 20000 -> none end || _ <- lists:seq(1, 300)]",
            S=Atom(scope.name),
            Node=Atom(name),
        )
        await sees(groups, Atom("herd"), members)
        groups.leave(7, box)
        await scope.sees(7, [])  # the real scope is one among them
        await talker.aeval("[exit(M, kill) || M <- Ms], ok", Ms=members[1:])
        await sees(groups, Atom("herd"), members[:1])
        await talker.aeval("M ! stop", M=members[0])
        await sees(groups, Atom("herd"), [])
        assert len(groups._peers) == 1  # the real one


@pytest.mark.parametrize("seed", range(SCHEDULES))
async def test_random_schedules_end_the_same_on_both(
    talker: ErlangNode, name: str, seed: int
) -> None:
    """Joins, leaves, deaths and splits in random order: when all is quiet, both sides see the
    same members, and the real scope lives."""
    dice = random.Random(seed)
    names = [Atom(f"g{number}") for number in range(4)]
    async with both(talker, name) as (node, groups, scope):
        boxes: list[Mailbox] = [node.mailbox() for _ in range(4)]
        theirs = [await scope.process() for _ in range(4)]
        for _ in range(OPERATIONS):
            group = dice.choice(names)
            match dice.randrange(12):
                case 0 | 1 | 2:
                    groups.join(group, dice.sample(boxes, dice.randint(1, 3)))
                case 3 | 4:
                    groups.leave(group, dice.sample(boxes, dice.randint(1, 3)))
                case 5 | 6 | 7:
                    pids = dice.sample(theirs, dice.randint(1, 3))
                    await scope.say("pg:join(S, G, P)", G=group, P=pids)
                case 8 | 9:
                    await scope.say("pg:leave(S, G, P)", G=group, P=dice.choice(theirs))
                case 10:
                    at = dice.randrange(4)
                    boxes[at].close()
                    boxes[at] = node.mailbox()
                case 11 if dice.random() < 0.3:
                    async with separated(node, talker):
                        node.disconnect(talker.name)
                    await node.connect(talker.name)
                case 11:
                    at = dice.randrange(4)
                    await scope.say("P ! stop", P=theirs[at])
                    theirs[at] = await scope.process()
        for group in names:
            # Who has ended a moment ago may still stand in his own scope.
            await settled(lambda group=group: views(groups, scope, group))
