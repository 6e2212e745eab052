"""`groups`: joining and leaving process groups, beside OTP's `pg`; each scope alone on its node."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack

import router
from bench import machine, report
from bench.erlang import NAME as ERLANG
from bench.erlang import Erlang
from bench.inline import PER_CALL, per_call
from bench.measure import BenchError, compare
from router.etf import Atom

__all__ = ["measure"]

GROUP = Atom("group")
ONE = "one process joins and leaves"
MANY = "15 processes in each group, until they end"
OURS, PEER = "router: pg", f"{ERLANG}: pg"
GROUPS, FEW, EACH = 10_000, 100, 15
PIECES = 20
"""Of a run: OTP takes longer for a leave the more groups a process is in."""


class Scope:
    """A node that only has groups, and the loop that it is used on."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.node = router.Node("bench_groups@127.0.0.1", cookie="bench", listen=False, epmd="none")
        self.loop.run_until_complete(self._begin())

    async def _begin(self) -> None:
        await self.node.start()
        self.groups = self.node.pg("bench")
        self.box = self.node.mailbox()

    def close(self) -> None:
        self.loop.run_until_complete(self.node.stop())
        self.loop.close()

    def join(self, n: int) -> None:
        self.loop.run_until_complete(self._join(n))

    async def _join(self, n: int) -> None:
        for i in range(n):
            self.groups.join((GROUP, i), self.box)

    def leave(self, n: int) -> None:
        self.loop.run_until_complete(self._leave(n))

    async def _leave(self, n: int) -> None:
        for i in range(n):
            if not self.groups.leave((GROUP, i), self.box):
                raise BenchError("nobody had joined")

    def hold(self, groups: int) -> Callable[[int], None]:
        def work(n: int) -> None:
            for _ in range(n):
                self.loop.run_until_complete(self._hold(groups))

        return work

    async def _hold(self, groups: int) -> None:
        boxes = [self.node.mailbox() for _ in range(EACH)]
        for box in boxes:
            for i in range(groups):
                self.groups.join((GROUP, i), box)
        held = sum(len(self.groups.members(group)) for group in self.groups.groups())
        if held != groups * EACH:
            raise BenchError(f"{held} members are held of {groups * EACH}")
        for box in boxes:
            box.close()
        while self.groups.groups():
            await asyncio.sleep(0)


def measure(
    quick: bool, say: report.Say, *, count: int = 7, wanted: report.Wanted = report.everything
) -> report.Document:
    document = report.Document("groups")
    seconds = 0.02 if quick else 0.1
    most = FEW if quick else GROUPS
    with ExitStack() as stack:
        stack.enter_context(machine.one_processor())
        try:
            erlang = stack.enter_context(Erlang())
        except BenchError as e:
            document.failed(e, PEER, ONE, 0, PER_CALL)
            return document
        scope = Scope()
        stack.callback(scope.close)
        join, leave = Atom("join"), Atom("leave")
        ways = {
            "join": (
                per_call(scope.join, seconds, pieces=PIECES, after=scope.leave),
                erlang.run(join, seconds=seconds, pieces=PIECES, after=(leave,)),
            ),
            "leave": (
                per_call(scope.leave, seconds, pieces=PIECES, before=scope.join),
                erlang.run(leave, seconds=seconds, pieces=PIECES, before=(join,)),
            ),
        }
        for way, (mine, theirs) in ways.items():
            ours, peer = f"{OURS}, {way}", f"{PEER}, {way}"
            if wanted(ONE, ours, peer, 0):
                say(f"{ONE}: {way}")
                found = compare((ours, mine), (peer, theirs), pairs=count)
                document.add(found, ONE, 0, PER_CALL)
        large, small = (f"{OURS}, {groups:,} groups" for groups in (GROUPS, FEW))
        runs = {
            large: per_call(scope.hold(most), seconds, most * EACH, pieces=1),
            small: per_call(scope.hold(FEW), seconds, FEW * EACH, pieces=1),
        }
        if wanted(MANY, large, PEER, 0):
            say(MANY)
            held = erlang.run(
                Atom("hold"), most, EACH, seconds=seconds, pieces=1, weight=most * EACH
            )
            found = compare((large, runs[large]), (PEER, held), pairs=1 if quick else 3)
            document.add(found, MANY, 0, PER_CALL)
        if wanted(MANY, large, small, 0):
            found = compare((large, runs[large]), (small, runs[small]), pairs=1 if quick else 3)
            document.add(found, MANY, 0, PER_CALL)
    return document
