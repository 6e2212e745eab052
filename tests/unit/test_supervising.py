"""Supervisors: what is started, started again, and ended in which order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from router import Atom, Child, GenServer, Mailbox, Node, Pid, Supervisor, supervising

from .conftest import new_name, until

SECONDS = 20.0


class Workers:
    """Children that note when they begin and end."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.log: list[str] = []
        self.stubborn: set[str] = set()
        self.fails: dict[str, int] = {}

    async def work(self, box: Mailbox, name: str) -> None:
        self.log.append(f"+{name}")
        try:
            async for term in box:
                raise RuntimeError(term)
        except asyncio.CancelledError:
            if box._exit_reason() != ("killed",) and name in self.stubborn:
                await asyncio.Event().wait()  # for ever
            raise
        finally:
            for _ in range(10):  # it has something to set free
                await asyncio.sleep(0)
            self.log.append(f"-{name}")

    def child(self, name: str, **options: Any) -> Child:
        def start() -> Pid:
            if self.fails.get(name, 0) > 0:
                self.fails[name] -= 1
                raise OSError(f"no {name} today")
            return self.node.spawn(self.work, name)

        return Child(name, start, **options)

    async def logged(self, *wanted: str) -> None:
        await until(lambda: len(self.log) >= len(wanted))
        assert self.log == list(wanted)
        self.log.clear()


@asynccontextmanager
async def workers() -> AsyncIterator[Workers]:
    async with Node(new_name(), cookie="c", epmd="none") as node:
        yield Workers(node)


def pid_of(supervisor: Supervisor, name: str) -> Pid:
    pid = supervisor.children()[name]
    assert pid is not None
    return pid


@pytest.mark.parametrize(
    ("strategy", "ended", "begun"),
    [
        ("one_for_one", ["-b"], ["+b"]),
        ("one_for_all", ["-b", "-c", "-a"], ["+a", "+b", "+c"]),
        ("rest_for_one", ["-b", "-c"], ["+b", "+c"]),
    ],
)
async def test_strategies(strategy: Any, ended: list[str], begun: list[str]) -> None:
    async with workers() as w:
        supervisor = await w.node.supervise(
            [w.child(name) for name in "abc"], strategy=strategy, intensity=3
        )
        await w.logged("+a", "+b", "+c")
        before = supervisor.children()
        w.node.send(pid_of(supervisor, "b"), Atom("die"))
        await w.logged(*ended, *begun)
        await until(lambda: all(supervisor.children().values()))
        after = supervisor.children()
        changed = [name for name in before if before[name] != after[name]]
        assert changed == sorted(name[1:] for name in ended)
        await supervisor.stop()
        await w.logged("-c", "-b", "-a")
        assert supervisor.server.box.closed and await supervisor.server.wait() == "shutdown"


async def test_who_is_started_again() -> None:
    async with workers() as w:
        supervisor = await w.node.supervise(
            [
                w.child("permanent"),
                w.child("transient", restart="transient"),
                w.child("temporary", restart="temporary"),
            ],
            intensity=10,
        )
        await w.logged("+permanent", "+transient", "+temporary")
        killer = w.node.mailbox()
        for name, reason, again in (
            ("permanent", "normal_enough", True),
            ("transient", "oops", True),
            ("transient", "shutdown", False),
            ("temporary", "oops", False),
        ):
            killer.exit(pid_of(supervisor, name), Atom(reason))
            await w.logged(f"-{name}", *([f"+{name}"] if again else []))
        await until(lambda: supervisor.children().keys() == {"permanent", "transient"})
        assert supervisor.children()["transient"] is None


async def test_too_many_restarts_end_it_and_all_its_children() -> None:
    async with workers() as w:
        supervisor = await w.node.supervise([w.child("a"), w.child("b")], intensity=2, period=60)
        watcher = w.node.mailbox()
        watcher.monitor(supervisor.pid)
        await w.logged("+a", "+b")
        for _ in range(2):
            w.node.send(pid_of(supervisor, "a"), 1)
            await w.logged("-a", "+a")
            await until(lambda: supervisor.children()["a"])
        w.node.send(pid_of(supervisor, "a"), 1)
        assert (await watcher.receive(SECONDS))[4] == "shutdown"
        await w.logged("-a", "-b")
        assert await supervisor.server.wait() == "shutdown"


async def test_restarts_long_ago_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(supervising, "time", SimpleNamespace(monotonic=lambda: now[0]))
    async with workers() as w:
        supervisor = await w.node.supervise([w.child("a")], intensity=1, period=60)
        await w.logged("+a")
        for _ in range(4):
            now[0] += 61
            w.node.send(pid_of(supervisor, "a"), 1)
            await w.logged("-a", "+a")
            await until(lambda: supervisor.children()["a"])


async def test_a_start_that_fails_is_tried_again_and_counts() -> None:
    async with workers() as w:
        supervisor = await w.node.supervise([w.child("a")], intensity=3, period=60)
        await w.logged("+a")
        w.fails["a"] = 2
        w.node.send(pid_of(supervisor, "a"), 1)
        await w.logged("-a", "+a")
        w.fails["a"] = 100
        w.node.send(pid_of(supervisor, "a"), 1)
        assert await asyncio.wait_for(supervisor.server.wait(), SECONDS) == "shutdown"
        assert w.fails["a"] == 100, "the fourth restart was one too many before it began"


async def test_when_one_cannot_be_started_at_first_none_stays() -> None:
    async with workers() as w:
        w.fails["b"] = 1
        with pytest.raises(OSError, match="no b today"):
            await w.node.supervise([w.child("a"), w.child("b"), w.child("c")], name="sup")
        # It may have been ended before it began.
        assert w.log in ([], ["+a", "-a"])
        assert w.node.whereis("sup") is None
        await w.node.supervise([w.child("b")], name="sup")


async def test_one_that_does_not_end_is_killed() -> None:
    async with workers() as w:
        holder = w.node.mailbox()
        holder.trap_exit = True  # it takes the signal for a message, and stays
        supervisor = await w.node.supervise(
            [w.child("a"), Child("stays", lambda: holder, shutdown=0.05)]
        )
        await w.logged("+a")
        await supervisor.stop()
        await w.logged("-a")
        assert holder.closed and holder._exit_reason() == ("killed",)


async def test_servers_are_children_too() -> None:
    class Counter(GenServer):
        def __init__(self) -> None:
            self.count = 0

        def handle_call(self, request: Any, caller: Any) -> int:
            self.count += 1
            return self.count // (request != "die")

    async with workers() as w:
        node = w.node
        await node.supervise([Child("counter", lambda: node.serve("counter", Counter()))])
        assert [await node.call("counter", 1) for _ in range(3)] == [1, 2, 3]
        first = node.whereis("counter")
        with pytest.raises(Exception, match="ZeroDivisionError"):
            await node.call("counter", Atom("die"))
        await until(lambda: node.whereis("counter") not in (None, first))
        assert await node.call("counter", 1) == 1


async def test_a_supervisor_of_supervisors_and_the_nodes_end() -> None:
    async with workers() as w:
        node = w.node

        def inner() -> Any:
            return node.supervise([w.child("x"), w.child("y")])

        outer = await node.supervise([w.child("a"), Child("inner", inner), w.child("b")])
        assert set(outer.children()) == {"a", "inner", "b"}
        await until(lambda: len(w.log) == 4)
        assert sorted(w.log) == ["+a", "+b", "+x", "+y"]
        w.log.clear()
    assert w.log == ["-b", "-y", "-x", "-a"]


async def test_a_supervisor_ends_with_the_one_above_it() -> None:
    async with workers() as w:
        inner: list[Supervisor] = []

        async def start() -> Supervisor:
            inner.append(await w.node.supervise([w.child("x"), w.child("y")]))
            return inner[-1]

        outer = await w.node.supervise(
            [w.child("a"), Child("inner", start, shutdown=3600)], intensity=5
        )
        await until(lambda: len(w.log) == 3)
        w.log.clear()
        # Told by the one above it: in order, and the one above waits for all of it.
        await outer.stop()
        await w.logged("-y", "-x", "-a")
        assert await inner[0].server.wait() == "shutdown"
        # By a stranger it is not told to end.
        outer = await w.node.supervise([Child("inner", start)])
        w.node.mailbox().exit(inner[1].pid, Atom("shutdown"))
        w.node.send(pid_of(inner[1], "x"), 1)
        await until(lambda: w.log.count("+x") == 2)
        # The one above is killed.
        w.node.mailbox().exit(outer.pid, Atom("kill"))
        assert await inner[1].server.wait() == "killed"
        assert w.log[-2:] == ["-y", "-x"]


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda n: [1], TypeError),
        (lambda n: [Child("a", lambda: n), Child("a", lambda: n)], ValueError),
        (lambda n: [Child("a", lambda: 5)], TypeError),
    ],
)
async def test_bad_children(make: Any, error: type[Exception]) -> None:
    async with workers() as w:
        with pytest.raises(error):
            await w.node.supervise(make(w.node))
        assert not w.node._servers


async def test_bad_arguments() -> None:
    async with workers() as w:
        for options in ({"strategy": "x"}, {"intensity": -1}, {"period": 0}):
            with pytest.raises(ValueError, match="is"):
                await w.node.supervise([], **options)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="restart is one of"):
            Child("a", lambda: None, restart="always")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="start is a function"):
            Child("a", 5)  # type: ignore[arg-type]
