"""The locker of OTP's `global`: takes a lock for each meeting of two nodes, one at a time.

Source: global.erl (`loop_the_locker`, `select_node`, `lock_nodes_safely`, `wait_cancel_lock`).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from router._calls import GEN_CAST, Calls
from router._global_locks import GLOBAL, Lock, Locks
from router.etf import Atom, Pid

__all__ = ["Locker", "Meeting"]

VERSION_WITH_TAGS = 8
LOCK_SET = Atom("lock_set")


class Meeting:
    """A node with which names are being exchanged."""

    def __init__(self, node: str, tag: int) -> None:
        self.node = node
        self.tag = tag
        self.his_tag: Any = None
        self.version = 0
        """Agreed on; 0 before the other has said `init_connect`."""
        self.locker: Pid | None = None
        self.lock: Lock | None = None
        """Held on all nodes that either side knows."""
        self.names: list[Any] | None = None
        self.changes: list[Any] | None = None
        """What its names mean for this side."""
        self.resolved: tuple[list[Any], list[Any], list[Any]] | None = None
        """The same of the other side, whom it knows, and its external names."""
        self.resolving = False
        self.in_lock = False
        """The locker waits for its end, to give the lock back."""
        self.ended = asyncio.Event()
        self.last_words: Callable[[], None] | None = None
        """Said by the locker before it gives the lock back."""


class Locker:
    """meetings and known: the name server's own, by node; known: with the protocol version.
    send(dest, term, sender) and exchange(meeting): what the server does for it."""

    def __init__(
        self,
        calls: Calls,
        locks: Locks,
        meetings: Mapping[str, Meeting],
        known: Mapping[str, int],
        send: Callable[[Any, Any, Any], None],
        exchange: Callable[[Meeting], None],
    ) -> None:
        self._calls = calls
        self.box = calls.box
        self._me = calls.box.node.atom
        self._locks = locks
        self._meetings = meetings
        self._known = known
        self._send = send
        self._exchange = exchange
        self._said: list[tuple[Pid, bool, Any]] = []
        """By other lockers, oldest first."""
        self._news = asyncio.Event()
        calls.others = self.said_without_tag

    def said(self, locker: Pid, is_set: bool, tag: Any) -> None:
        self._said.append((locker, is_set, tag))
        self._news.set()

    def said_without_tag(self, message: Any) -> None:
        match message:
            case ("lock_set", Pid() as locker, bool() as is_set, _):
                if met := self._meetings.get(locker.node):
                    self.said(locker, is_set, met.tag)

    def look(self) -> None:
        """A meeting has begun or ended."""
        self._news.set()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        just_synced, since = False, loop.time()
        while True:
            if self._said:
                locker, is_set, tag = self._said.pop(0)
                if is_set:
                    just_synced = await self._asked(locker, tag)
                since = loop.time()
                continue
            if not self._waiting():
                await self._hear(None)
                since = loop.time()
                continue
            left = since + self._pause(just_synced) - loop.time()
            if left > 0:
                await self._hear(left)
                continue
            since, just_synced = loop.time(), False
            if not self._locks.is_global_taken:
                just_synced = await self._ask(self._next())
            else:
                await asyncio.sleep(0)

    def _pause(self, just_synced: bool) -> float:
        """Time for others to come up and ask, so that few ask at once."""
        if just_synced:
            return 0.0
        return min(1.0 + 0.1 * len(self._known), 3.0) if self._known else 0.2

    def _waiting(self) -> list[Meeting]:
        return [
            met
            for met in self._meetings.values()
            if met.locker is not None and met.lock is None and met.node not in self._known
        ]

    def _next(self) -> Meeting:
        """Of this host, as long as there are any."""
        waiting, host = self._waiting(), self._me.partition("@")[2]
        return random.choice([m for m in waiting if m.node.endswith(f"@{host}")] or waiting)

    async def _hear(self, seconds: float | None) -> None:
        """Returns at the next news, or after that time."""
        self._news.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()

    def _shared_lock(self, locker: Pid) -> Lock:
        return GLOBAL, sorted([self.box.pid, locker])

    def _tell(self, met: Meeting, is_set: bool) -> None:
        assert met.locker is not None
        message: tuple[Any, ...] = LOCK_SET, self.box.pid, is_set, [Atom(n) for n in self._known]
        if met.version >= VERSION_WITH_TAGS:
            message = (*message, met.his_tag)
        self._send((Atom("global_name_server"), met.node), (GEN_CAST, message), self.box)

    async def _lock(self, lock: Lock, more: list[str]) -> bool:
        """On this side's nodes and `more`, the boss first."""
        calls, locks = self._calls, self._locks
        boss = max([self._me, *self._known])
        if boss != self._me and not locks.can_take(lock):
            return False
        if not await locks.lock(calls, lock, [boss]):
            return False
        near = [name for name in (self._me, *more) if name != boss]
        if not await locks.lock(calls, lock, near):
            await locks.unlock(calls, lock, [boss])
            return False
        if not await locks.lock(calls, lock, [n for n in self._known if n != boss]):
            await locks.unlock(calls, lock, [boss, *near])
            return False
        return True

    async def _asked(self, locker: Pid, tag: Any) -> bool:
        """The other side has locked its nodes. True when the names have been exchanged."""
        met = self._meetings.get(locker.node)
        if met is None or met.tag != tag or met.locker is None:
            # It gives its lock back when it hears this.
            self._send(locker, (LOCK_SET, self.box.pid, False, []), self.box)
            return False
        lock = self._shared_lock(locker)
        met.in_lock = True
        locked = await self._lock(lock, [])
        known = [self._me, *self._known]
        if not met.ended.is_set():
            self._tell(met, locked)
        if not locked:
            met.in_lock = False
            return False
        await self._hold(met, lock, known)
        return True

    async def _ask(self, met: Meeting) -> bool:
        assert met.locker is not None
        lock = self._shared_lock(met.locker)
        met.in_lock = True
        if not await self._lock(lock, [met.node]):
            met.in_lock = False
            return False
        known = [self._me, met.node, *self._known]
        if not met.ended.is_set():
            self._tell(met, True)
        agreed = await self._answer(met)
        await self._hold(met, lock, known, agreed)
        return agreed

    async def _answer(self, met: Meeting) -> bool:
        """Whether the other side has locked its nodes too."""
        while not met.ended.is_set():
            answers = [said for said in self._said if said[0].node == met.node]
            for answer in answers:
                self._said.remove(answer)
            for _, is_set, tag in answers:
                if tag == met.tag:
                    return is_set
            await self._hear(None)
        return False

    async def _hold(self, met: Meeting, lock: Lock, nodes: list[str], agreed: bool = True) -> None:
        """Until the names are exchanged, or the other is gone; then gives the lock back."""
        if agreed and not met.ended.is_set():
            met.lock = lock
            self._exchange(met)
            await met.ended.wait()
        met.in_lock = False
        if met.last_words is not None:
            met.last_words()
        await self._locks.unlock_all(self._calls, lock, nodes)
