"""Process groups between router nodes, and what a scope makes of bad messages."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any
from unittest.mock import ANY

import pytest

import router
from router import Atom, Mailbox, Node, Pid, etf
from router._multicast import NAME
from router.etf import FrozenList, ImproperList, Map
from router.groups import ProcessGroups
from router.limits import Limits

from .conftest import Pair, new_name, until

SECONDS = 20.0


async def test_two_nodes(pair: Pair, loop_kind: str) -> None:
    async with pair() as (a, b):
        here, there = a.pg(), b.pg()
        assert a.pg() is here and here.pid.node == a.name and a.whereis("pg") == here.pid
        one, two = a.mailbox(), b.mailbox()
        here.join("g", one)
        await a.connect(b.name)
        there.join("g", [two, two.pid])
        await until(lambda: len(here.members("g")) == len(there.members("g")) == 3)
        assert sorted(here.members("g")) == sorted([one.pid, two.pid, two.pid])
        assert here.local_members("g") == [one.pid]
        assert here.groups() == there.groups() == ["g"]
        assert there.broadcast("g", 5) == 3
        assert await one.receive(SECONDS) == 5
        assert await two.receive_many(2, SECONDS) == [5, 5]
        two.close()
        await until(lambda: here.members("g") == [one.pid])
        here.close()
        await until(lambda: there.members("g") == [])
        with pytest.raises(router.RouterError, match="has ended"):
            here.join("g", one)
        assert a.pg() is not here
        assert a.pg().members("g") == []


async def test_each_scope_is_its_own(pair: Pair) -> None:
    async with pair() as (a, b):
        await a.connect(b.name)
        box, other_box = a.mailbox(), b.mailbox()
        a.pg("one").join("g", box)
        b.pg("two").join("g", other_box)
        other = b.pg("one")
        await until(lambda: other.members("g") == [box.pid])
        assert b.pg("two").members("g") == [other_box.pid]


async def test_bad_arguments(pair: Pair) -> None:
    async with pair() as (a, b):
        groups, foreign = a.pg(), b.mailbox()
        for bad, error in (
            (foreign, ValueError), (foreign.pid, ValueError), ("x", TypeError), ([1], TypeError),
            (5, TypeError), (Pid(a.name, 1, 1, 1), ValueError),
        ):  # fmt: skip
            with pytest.raises(error):
                groups.join("g", bad)  # type: ignore[arg-type]
        with pytest.raises(router.EncodeError):
            groups.join(object(), a.mailbox())
        with pytest.raises(ValueError, match="Mailbox of this node"):
            groups.monitor("g", foreign)
        groups.join("g", [])
        assert groups.groups() == [] and not groups.leave("g", a.mailbox())
        assert groups.broadcast("nobody", 1) == 0
        a.mailbox("taken")
        with pytest.raises(router.NameTaken):
            a.pg("taken")


def test_without_a_loop_it_says_so() -> None:
    with Node(new_name(), cookie="c", epmd="none") as node, pytest.raises(RuntimeError):
        node.pg()


def sent(node: Node, to: Node) -> int:
    """Messages that `node` has sent to a peer."""
    rows = node.stats()
    return int(rows[rows["peer"] == to.name]["messages_out"][0])


async def take(box: Mailbox, count: int) -> list[Any]:
    return [await box.receive(SECONDS) for _ in range(count)]


async def members_at(there: Node, here: Node, count: int) -> list[Mailbox]:
    """So many processes of `there` in the group "g", of which `here` knows."""
    boxes = [there.mailbox() for _ in range(count)]
    there.pg().join("g", boxes)
    await until(lambda: len(here.pg().members("g")) == count)
    await until(lambda: there.name in here._multicaster().known())
    return boxes


async def test_a_broadcast_is_one_message_for_a_router_node(pair: Pair, loop_kind: str) -> None:
    """In the place where its sender put it among others, in every kind and size."""
    async with pair() as (a, b):
        await a.connect(b.name)
        sender, boxes = a.mailbox(), await members_at(b, a, 5)
        names = [b.mailbox(f"box{i}") for i in range(2)]
        b.pg().join("g", names)
        await until(lambda: len(a.pg().members("g")) == 7)
        boxes += names
        by_name = [box.pid for box in boxes[:5]] + [(box.name, b.name) for box in names]
        deepest: Any = []
        for _ in range(Limits().term_depth_max):
            deepest = [deepest]
        for number, (term, messages) in enumerate(
            [(([3], {1: b"x"}), 1), (b"large" * 50_000, 1), (deepest[0], 1), (deepest, 7)]
        ):
            before = sent(a, b)
            for box in boxes:  # a large one, which later ones could pass
                a.send(box.pid, (1, number, bytes(200_000)), sender=sender)
            assert a.pg().broadcast("g", term, sender=sender) == 7
            for to in by_name:
                a.send(to, (2, number), sender=sender)
            assert sent(a, b) - before == messages + 14
            for box in boxes:
                got = [await box.receive(SECONDS) for _ in range(3)]
                assert got[0][:2] == (1, number) and got[2] == (2, number)
                assert etf.encode(got[1]) == etf.encode(term)
        boxes[0].close()  # those that have ended meanwhile count as sent, as with `send`
        assert a.pg().broadcast("g", 1) == 7
        assert [await box.receive(SECONDS) for box in boxes[1:]] == [1] * 6
        await until(lambda: len(a.pg().members("g")) == 6)
        assert b.stats()[0]["dropped_in"] == 1


@pytest.mark.parametrize(("room", "messages"), [(5 * 164, 1), (4 * 164, 2), (2 * 164, 3), (163, 5)])
async def test_a_broadcast_asks_for_no_more_copies_than_a_peer_makes(
    pair: Pair, options: dict[str, Any], room: int, messages: int
) -> None:
    """A copy counts 64 bytes beside its term's; the last that is left goes alone."""
    limits = {"multicast_bytes_max": room}
    async with Node(new_name(), **options) as a, Node(new_name(), limits=limits, **options) as b:
        await a.connect(b.name)
        boxes = await members_at(b, a, 5)
        before = sent(a, b)
        assert a.pg().broadcast("g", b"x" * 95) == 5  # 100 bytes as a term
        assert sent(a, b) - before == messages
        for box in boxes:
            assert await box.receive(SECONDS) == b"x" * 95


async def test_a_broadcast_to_a_node_that_makes_no_copies(pair: Pair) -> None:
    """It has stopped making them, or lives again under the same name."""
    async with pair() as (a, b):
        await a.connect(b.name)
        boxes = await members_at(b, a, 3)
        before = sent(a, b)
        assert a.pg().broadcast("g", 6) == 3
        assert sent(a, b) - before == 1
        assert [await box.receive(SECONDS) for box in boxes] == [6, 6, 6]
        b._multicaster().close()
        await until(lambda: not a._multicaster().known())
        before = sent(a, b)
        assert a.pg().broadcast("g", 7) == 3
        assert sent(a, b) - before == 3
        assert [await box.receive(SECONDS) for box in boxes] == [7, 7, 7]
        name, options = b.name, {"cookie": "secret", "epmd_port": b._config["epmd_port"]}
        await b.stop()
        await until(lambda: not a.pg().members("g"))
        async with Node(name, **options) as again:
            await a.connect(name)
            boxes = await members_at(again, a, 3)
            before = sent(a, again)
            assert a.pg().broadcast("g", 8) == 3
            assert sent(a, again) - before == 1
            assert [await box.receive(SECONDS) for box in boxes] == [8, 8, 8]


async def test_a_broadcast_to_a_full_box_reaches_the_others(pair: Pair) -> None:
    async with pair() as (a, b):
        await a.connect(b.name)
        boxes = await members_at(b, a, 2)
        full, other = a.mailbox(limit=1, overflow="pause"), a.mailbox()
        a.pg().join("g", [full, other])
        assert a.pg().broadcast("g", 1) == 4
        with pytest.raises(router.BufferFull, match="3 of the group have it"):
            a.pg().broadcast("g", 2)
        for box in [other, *boxes]:
            assert await take(box, 2) == [1, 2]
        assert await full.receive(SECONDS) == 1 and full.waiting == 0
        with pytest.raises(router.EncodeError):
            a.pg().broadcast("g", object())


async def test_a_multicaster_does_not_mind_what_it_does_not_know(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    async with pair() as (a, b):
        await a.connect(b.name)
        await members_at(b, a, 2)
        box, known = b.mailbox(), a._multicaster().known()
        with caplog.at_level(logging.WARNING, "router"):
            for bad in (1, (Atom("multicast_hello"), 1, 1), (Atom("multicast_hello"), box.pid)):
                b.send((NAME, a.name), bad)
            b.send((NAME, a.name), (Atom("multicast_hello"), Pid(a.name, 1, 1, 1), 1), sender=box)
            relations = a._relation_count()
            b.send((NAME, a.name), (Atom("multicast_hello"), box.pid, 5000))
            welcome = await box.receive(SECONDS)
            assert a._relation_count() == relations  # the other is not watched any more
        assert welcome[:1] == ("multicast_welcome",) and welcome[2] == Limits().multicast_bytes_max
        assert len([r for r in caplog.records if "does not know" in r.getMessage()]) == 3
        assert a._multicaster().known() == known == {b.name}
        box.close()  # the last one that it heard of
        await until(lambda: not a._multicaster().known())


async def test_a_broadcast_goes_to_those_who_are_in_the_group(pair: Pair) -> None:
    async with pair() as (a, b):
        await a.connect(b.name)
        boxes = await members_at(b, a, 2)
        late, groups = b.mailbox(), a.pg()
        assert groups.broadcast("g", 1) == 2
        b.pg().join("g", late)
        await until(lambda: len(groups.members("g")) == 3)
        assert groups.broadcast("g", 2) == 3
        b.pg().leave("g", boxes[0])
        await until(lambda: len(groups.members("g")) == 2)
        assert groups.broadcast("g", 3) == 2
        a.send(boxes[0].pid, 4)
        assert await take(boxes[0], 2) == [1, 2]
        assert await boxes[0].receive(SECONDS) == 4
        assert await take(boxes[1], 3) == [1, 2, 3]
        assert await take(late, 2) == [2, 3]


async def test_a_name_that_is_taken_ends_no_scope_halfway(pair: Pair) -> None:
    async with pair() as (a, _):
        taken = a.mailbox(NAME)
        with pytest.raises(router.NameTaken, match=NAME):
            a.pg()
        assert a.whereis("pg") is None
        taken.close()
        assert a.pg().groups() == []


def test_a_second_loop_goes_on_making_copies() -> None:
    with Node(new_name(), cookie="c", epmd="none") as node:
        pids = set()

        async def members() -> int:
            box = node.mailbox()
            node.pg().join("g", [box, box])
            assert node.pg().broadcast("g", 3) == 2
            pids.add(node.whereis(NAME))
            return sum(await take(box, 2))

        assert asyncio.run(members()) == asyncio.run(members()) == 6
        assert len(pids) == 1  # what is on its way meanwhile is not lost


async def test_a_map_names_the_same_group_whatever_its_order(pair: Pair) -> None:
    def names(reverse: bool) -> list[Any]:
        step = -1 if reverse else 1
        inner = Map([(3, "x"), (4, "y")][::step])
        pairs = [("t", 1), (2, inner), ((5,), 6)][::step]
        one, key = dict(pairs), Map(pairs)
        return [
            one, key, (Atom("room"), one), [one, "t"], ImproperList([one], one),
            dict([(key, 1), ((FrozenList([key]),), 2)][::step]), (Atom("t"), "t", 116),
        ]  # fmt: skip

    async with pair() as (a, b):
        await a.connect(b.name)
        here, there = a.pg(), b.pg()
        box, other = a.mailbox(), b.mailbox()
        for one, same in zip(names(False), names(True), strict=True):
            here.join(one, box)
            await until(lambda one=one: there.members(one) == [box.pid])
            there.join(same, other)
            await until(lambda one=one: len(here.members(one)) == 2)
            assert here.members(same) == there.members(one) == there.members(same)
            here.leave(same, box)
            there.leave(one, other)
            await until(lambda: not here.groups() and not there.groups())
        here.join({1: 2}, box)
        assert here.members({1: 3}) == here.members({1.0: 2}) == here.members({2: 1}) == []


async def test_bad_messages_do_no_harm(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    """Each is logged, nothing of it is done, and the next one is taken."""
    async with pair() as (a, b):
        await a.connect(b.name)
        groups, box = a.pg(), b.mailbox()
        peer, good = box.pid, b.mailbox().pid
        bad: list[Any] = [
            (Atom("sync"), peer, []),
            (Atom("$gen_cast"), (Atom("sync"), peer, [Atom("x")])),
            (Atom("$gen_cast"), (Atom("sync"), peer, [("g", [1, 2])])),
            (Atom("$gen_cast"), (Atom("sync"), peer, [("g", [good]), ("h", 1)])),
            (Atom("join"), peer, "g", [good, "x"]),
            (Atom("join"), peer, "g", {}),
            (Atom("leave"), peer, 7, ["g"]),
            (Atom("leave"), peer, good, ["never", "heard", "of"]),
            (Atom("discover"), 1),
            {},
            b"noise",
        ]
        b.send(("pg", a.name), (Atom("$gen_cast"), (Atom("sync"), peer, [("old", [good])])))
        with caplog.at_level(logging.WARNING, "router"):
            b.send_many(("pg", a.name), bad)
            b.send(("pg", a.name), (Atom("join"), peer, "new", good))
            await until(lambda: groups.members("new") == [good])
        assert groups.members("g") == [] and groups.members("old") == [good]
        assert len(groups.groups()) == 2
        assert len([r for r in caplog.records if "ProcessGroups" in r.getMessage()]) >= 9
        box.close()  # a scope of that node that ends takes its members with it
        await until(lambda: groups.groups() == [])


async def test_a_stranger_that_has_not_met_us_changes_nothing(pair: Pair) -> None:
    async with pair() as (a, b):
        await a.connect(b.name)
        groups, box = a.pg(), b.mailbox()
        b.send(("pg", a.name), (Atom("join"), box.pid, "g", box.pid))
        b.send(("pg", a.name), (Atom("discover"), box.pid, 2))
        first = await box.receive(SECONDS)
        assert first == ("$gen_cast", ("sync", groups.pid, []))
        assert await box.receive(SECONDS) == ("discover", groups.pid)
        assert groups.members("g") == []


async def test_a_peer_hears_nothing_before_it_has_had_a_sync(pair: Pair) -> None:
    """A real scope crashes on a leave of a group it does not know."""
    async with pair() as (a, b):
        await a.connect(b.name)
        groups, box, member = a.pg(), b.mailbox(), a.mailbox()
        groups.join("g", member)
        # It has answered a question of ours, and not asked yet.
        b.send(("pg", a.name), (Atom("$gen_cast"), (Atom("sync"), box.pid, [("h", [box.pid])])))
        await until(lambda: groups.members("h") == [box.pid])
        assert groups.leave("g", member)
        b.send(("pg", a.name), (Atom("discover"), box.pid))
        assert await box.receive(SECONDS) == ("$gen_cast", ("sync", groups.pid, []))
        groups.join("g", member)
        assert (await box.receive(SECONDS))[0] == "join"


async def test_what_a_sync_no_longer_has_is_gone(pair: Pair) -> None:
    async with pair() as (a, b):
        await a.connect(b.name)
        groups, box, watcher = a.pg(), b.mailbox(), a.mailbox()
        x, y, z = (b.mailbox().pid for _ in range(3))
        groups.monitor_scope(watcher)

        def sync(pairs: list[Any]) -> None:
            b.send(("pg", a.name), (Atom("$gen_cast"), (Atom("sync"), box.pid, pairs)))

        sync([(1, [x, y, y]), (2, [z])])
        assert [m[1:] for m in await watcher.receive_many(2, SECONDS)] == [
            ("join", 1, [x, y, y]), ("join", 2, [z]),
        ]  # fmt: skip
        sync([(1, [y, z]), (3, [x])])  # nobody hears of what has changed in group 1
        said: list[Any] = []
        while len(said) < 2:
            said += [m[1:] for m in await watcher.receive_many(2, SECONDS)]
        assert said == [("join", 3, [x]), ("leave", 2, [z])]
        assert sorted(groups.members(1)) == sorted([y, z]) and groups.members(2) == []
        sync([(1, []), (3, [x])])
        sync([(1, [x]), (3, [x])])
        sync([(1, [x]), (3, [x])])
        assert await watcher.receive(SECONDS) == (ANY, "join", 1, [x])
        assert groups.members(1) == [x]
        sync([])
        for group in (1, 3):
            assert await watcher.receive(SECONDS) == (ANY, "leave", group, [x])
        assert groups.groups() == []


async def test_many_groups_and_members(pair: Pair) -> None:
    """10,000 groups of 15: what four times as many cost is not sixteen times as much."""
    async with pair() as (a, b):
        await a.connect(b.name)
        here, there = a.pg(), b.pg()
        boxes = [a.mailbox() for _ in range(150)]

        async def fill(count: int) -> float:
            began = time.process_time()
            for number in range(count):
                here.join(number, [boxes[(number * 15 + k) % 150] for k in range(15)])
                if number % 100 == 0:
                    await a.drain()
            await until(lambda: len(there.groups()) == count)
            for number in range(count):
                here.leave(number, [boxes[(number * 15 + k) % 150] for k in range(15)])
                if number % 100 == 0:
                    await a.drain()
            await until(lambda: there.groups() == [])
            return time.process_time() - began

        await fill(100)
        few = min([await fill(2_500) for _ in range(3)])
        many = min([await fill(10_000) for _ in range(2)])
        assert many < 10 * few, f"{few:.2f} s, then {many:.2f} s"


async def test_one_large_group_is_not_quadratic(pair: Pair) -> None:
    async with pair() as (a, _):
        groups: ProcessGroups = a.pg()
        boxes = [a.mailbox() for _ in range(20_000)]

        def churn(count: int) -> float:
            began = time.process_time()
            for box in boxes[:count]:
                groups.join("all", box)
            for box in boxes[:count]:
                groups.leave("all", box)
            return time.process_time() - began

        churn(20_000)  # what a first time costs, and what garbage falls due, is not meant
        few, many = (min(churn(count) for _ in range(3)) for count in (5_000, 20_000))
        assert groups.groups() == []
        assert many < 10 * few, f"{few:.2f} s, then {many:.2f} s"
