"""Process groups between router nodes, and what a scope makes of bad messages."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest

import router
from router import Atom, Node, Pid
from router.groups import ProcessGroups

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
        sync([(1, [y, z]), (3, [x])])
        said: list[Any] = []
        while len(said) < 4:
            said += [m[1:] for m in await watcher.receive_many(4, SECONDS)]
        assert said == [("leave", 1, [x, y]), ("leave", 2, [z]), ("join", 1, [z]), ("join", 3, [x])]
        assert sorted(groups.members(1)) == sorted([y, z]) and groups.members(2) == []


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
        few, many = await fill(2_500), await fill(10_000)
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

        churn(100)
        few, many = churn(5_000), churn(20_000)
        assert groups.groups() == []
        assert many < 10 * few, f"{few:.2f} s, then {many:.2f} s"
