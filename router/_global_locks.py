"""The locks of OTP's `global`: who holds one on this node, and taking one on many nodes.

Source: global.erl (`handle_set_lock`, `set_lock_on_nodes`, `delete_global_lock`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from router._calls import Calls
from router.errors import RouterError
from router.etf import Atom, Codec, Pid, Reference

if TYPE_CHECKING:
    from router.mailbox import Mailbox

__all__ = ["GLOBAL", "SERVER", "Lock", "Locks", "term_key"]

SERVER, GLOBAL = Atom("global_name_server"), Atom("global")
SET_LOCK, DEL_LOCK = Atom("set_lock"), Atom("del_lock")

Lock = tuple[Any, Any]
"""What is locked and who wants it: two who name the same requester share the lock."""

_codec = Codec()


def term_key(term: Any) -> bytes:
    """Equal for terms that Erlang holds equal (`=:=`)."""
    return _codec.encode(term)


GLOBAL_KEY = term_key(GLOBAL)


class _Held:
    """A lock that is taken."""

    def __init__(self, requester: bytes) -> None:
        self.requester = requester
        self.holders: dict[Pid, Reference] = {}


class Locks:
    """box: of the name server, which answers for this node by `answer(request, asker)`."""

    def __init__(self, box: Mailbox, answer: Callable[[Any, Pid], Any]) -> None:
        self._box = box
        self._me = box.node.atom
        self._answer = answer
        self._held: dict[bytes, _Held] = {}
        self._watched: dict[Reference, tuple[bytes, Pid]] = {}
        self._lock_died = False
        """Who held the lock `global` last has ended without giving it back."""

    # on this node -----------------------------------------------------------------------

    @property
    def is_global_taken(self) -> bool:
        return GLOBAL_KEY in self._held

    def is_global_held_by(self, holder: Pid | None, lock: Lock | None) -> bool:
        """A change of names counts for the one who holds the lock: a process, or `lock`."""
        held = self._held.get(GLOBAL_KEY)
        if held is None:
            return not self._lock_died
        if holder is not None:
            return holder in held.holders
        return lock is not None and held.requester == term_key(lock[1])

    def can_take(self, lock: Lock) -> bool:
        held = self._held.get(term_key(lock[0]))
        return held is None or held.requester == term_key(lock[1])

    def take(self, lock: Lock, pid: Pid) -> bool:
        if not self.can_take(lock):
            return False
        key = term_key(lock[0])
        held = self._held.setdefault(key, _Held(term_key(lock[1])))
        if pid not in held.holders:
            ref = held.holders[pid] = self._box.monitor(pid)
            self._watched[ref] = key, pid
        return True

    def give_back(self, lock: Lock, pid: Pid) -> None:
        key = term_key(lock[0])
        held = self._held.get(key)
        if held is None or held.requester != term_key(lock[1]) or pid not in held.holders:
            return
        ref = held.holders[pid]
        del self._watched[ref]
        self._box.demonitor(ref)
        self._let_go(key, pid, died=False)

    def died(self, ref: Reference) -> bool:
        """True when that was the monitor of a holder."""
        found = self._watched.pop(ref, None)
        if found is not None:
            self._let_go(*found, died=True)
        return found is not None

    def forget(self, node: str) -> None:
        """As if all holders of that node had died."""
        for ref, (_, pid) in list(self._watched.items()):
            if pid.node == node:
                self._box.demonitor(ref)
                self.died(ref)

    def _let_go(self, key: bytes, pid: Pid, *, died: bool) -> None:
        held = self._held[key]
        del held.holders[pid]
        if not held.holders:
            del self._held[key]
            if key == GLOBAL_KEY:
                self._lock_died = died

    # on many ----------------------------------------------------------------------------

    async def ask(self, calls: Calls, nodes: Iterable[str], request: Any) -> dict[str, Any]:
        """gen_server:multi_call without a time: the answers of those nodes that gave one."""

        async def ask(name: str) -> tuple[str, Any] | None:
            if name == self._me:
                return name, self._answer(request, calls.box.pid)
            try:
                return name, await calls.call((SERVER, name), request, None)
            except RouterError:
                self._box.node._need()
                return None

        answers = await asyncio.gather(*(ask(name) for name in nodes))
        return dict(answer for answer in answers if answer is not None)

    async def lock(self, calls: Calls, lock: Lock, nodes: list[str]) -> bool:
        """On all of the nodes that answer, or on none."""
        if len(nodes) > 1 and self._me in nodes and not self.can_take(lock):
            return False
        answers = await self.ask(calls, nodes, (SET_LOCK, lock))
        locked = [name for name, answer in answers.items() if answer is True]
        if len(locked) == len(answers):
            return True
        await self.unlock(calls, lock, locked)
        return False

    async def unlock(self, calls: Calls, lock: Lock, nodes: Iterable[str]) -> None:
        await self.ask(calls, nodes, (DEL_LOCK, lock))

    async def unlock_all(self, calls: Calls, lock: Lock, nodes: list[str]) -> None:
        """The boss last: whoever wants them all begins with that one."""
        boss = max(nodes)
        await self.unlock(calls, lock, [name for name in nodes if name != boss])
        await self.unlock(calls, lock, [boss])
