"""The process that keeps a node's part of OTP's `global`: names and locks of a whole cluster.

What the name servers of two nodes say to each other, and in which order, is global.erl of
OTP 25 to 28 (protocol version 8). In short:

- Two nodes that meet tell each other a tag and a locker (`init_connect`). One of the
  lockers takes the lock `global` on both sides' nodes, and says so (`lock_set`). Then each
  tells the other its names (`exchange`), settles what is registered on both sides, and
  tells what came of it and whom it knows (`resolved`). Each then tells its own side (`new_nodes`).
- A name is registered by whoever holds the lock `global` on all nodes that are known.
- A node that loses a connection tells all others (`lost_connection`), who then
  disconnect from the same node, so that no two parts of the cluster overlap.

A tag tells one meeting from the next; what carries an old one is about the past.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from router._calls import GEN_CAST, Calls
from router._global_locker import Locker, Meeting
from router._global_locks import GLOBAL, SERVER, Lock, Locks, term_key
from router.errors import EncodeError, RouterError
from router.etf import Atom, Export, Pid, Reference
from router.serving import NO_REPLY, Caller, GenServer

if TYPE_CHECKING:
    from router.mailbox import Mailbox
    from router.node import Node

__all__ = ["NameServer", "resolve"]

log = logging.getLogger("router")

VERSION = 8
VERSION_MIN = 7
"""Of OTP 25's first releases; older nodes are refused in the handshake."""

LOCKER, NO_LONGER_A_PID, UNUSED = Atom("locker"), Atom("no_longer_a_pid"), Atom("unused")
INIT_CONNECT, INIT_CONNECT_ACK = Atom("init_connect"), Atom("init_connect_ack")
CANCEL_CONNECT = Atom("cancel_connect")
EXCHANGE, RESOLVED, NEW_NODES = Atom("exchange"), Atom("resolved"), Atom("new_nodes")
IN_SYNC, VSN, LOCK = Atom("in_sync"), Atom("vsn"), Atom("lock")
INSERT, DELETE = Atom("insert"), Atom("delete")
LOST_CONNECTION, REMOVE_CONNECTION = Atom("lost_connection"), Atom("remove_connection")
REGISTER, UNREGISTER = Atom("register"), Atom("unregister")
YES, OK, NONE, UNDEFINED = Atom("yes"), Atom("ok"), Atom("none"), Atom("undefined")

RESOLVE_SECONDS = 60.0
"""For the method of another node that chooses between two processes of one name."""

LOST_SECONDS = 3600.0
"""How long the news of a lost connection is told apart from a repetition."""


class _Name:
    __slots__ = ("method", "pid", "ref", "term")

    def __init__(self, term: Any, pid: Pid, method: Any, ref: Reference) -> None:
        self.term, self.pid, self.method, self.ref = term, pid, method, ref


class NameServer(GenServer):
    """The process `global_name_server` of one node; everything of it runs on one loop."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.names: dict[bytes, _Name] = {}
        self._held: dict[bytes, Mailbox] = {}
        self._me = node.atom
        self._external: dict[bytes, tuple[Any, Pid, Any]] = {}
        self._watched: dict[Reference, bytes] = {}
        self._up: set[str] = set()
        self._known: dict[str, int] = {}
        """Nodes that share all names with this one, and their protocol version."""
        self._synced: set[str] = set()
        self._meetings: dict[str, Meeting] = {}
        self._early: dict[str, tuple[Any, Any]] = {}
        """What nodes said that came up, before this process was told so."""
        self._removing: set[str] = set()
        self._lost: dict[tuple[str, str], tuple[int, int, float]] = {}
        self._numbers = itertools.count(1)
        self._epoch = (random.getrandbits(60) >> 32 << 32) + node.creation
        self._syncing: list[tuple[set[str], asyncio.Future[None]]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._registering = asyncio.Lock()

    def begin(self) -> None:
        """After `Node.serve` has given it a process."""
        self.box = self.server.box
        self.box._decode_plainly()
        self._changing = Calls(self.node)
        self._locks = Locks(self.box, self._ask_self)
        self._locker = Locker(
            Calls(self.node), self._locks, self._meetings, self._known, self._send, self._exchange
        )
        self.node.expose(GLOBAL, "resolve_it", self._resolve_it)
        self.node.monitor_nodes(self.box)
        self._start(self._locker.run())
        for name in self.node.nodes():
            self._came_up(name)

    def terminate(self, reason: Any) -> None:
        for task in list(self._tasks):
            task.cancel()
        for _, future in self._syncing:
            if not future.done():
                future.set_exception(RouterError(f"{self!r} has ended"))

    def __repr__(self) -> str:
        return f"<global of {self._me}>"

    def state(self) -> Any:
        return {
            Atom("names"): [(n.term, n.pid) for n in self.names.values()],
            Atom("known"): [Atom(n) for n in self._known],
            Atom("synced"): [Atom(n) for n in self._synced],
            Atom("meeting"): [Atom(n) for n in self._meetings],
        }

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # One that is cancelled before its first step has not begun the work.
        task.add_done_callback(lambda _: work.close())

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except RouterError as e:
            if self.node.running and not self.box.closed:
                log.warning("%r: %s", self, e)

    # what arrives ---------------------------------------------------------------------

    def handle_call(self, request: Any, caller: Caller) -> Any:
        match request:
            case ("set_lock", (resource, requester)):
                return self._locks.take((resource, requester), caller.pid)
            case ("del_lock", (resource, requester)):
                self._locks.give_back((resource, requester), caller.pid)
                return True
            case ("register", name, Pid() as pid, method):
                self._insert(name, pid, method, caller.pid, None)
                return YES
            case ("unregister", name):
                self._delete(term_key(name))
                return OK
            case ("register_ext", name, Pid() as pid, method, registrar):
                self._insert(name, pid, method, caller.pid, None)
                if term_key(name) in self.names:
                    self._external[term_key(name)] = (name, pid, registrar)
                return YES
            case "get_known":
                return self._known_list(0)
            case "get_synced":
                return [Atom(name) for name in self._synced]
            case "get_protocol_version":
                return VERSION
            case "get_names_ext":
                return list(self._external.values())
            case ("sync", list() as nodes):
                self._start(self._answer_when_synced(nodes, caller))
                return NO_REPLY
        log.warning("%r: unexpected call %r", self, request)
        return NO_REPLY

    def _ask_self(self, request: Any, asker: Pid) -> Any:
        return self.handle_call(request, Caller(self.box, asker, None))

    def handle_cast(self, request: Any) -> None:
        self._take(request)

    def handle_info(self, message: Any) -> None:
        self._take(message)

    def _take(self, message: Any) -> None:
        try:
            self._handle(message)
        except (RouterError, TypeError, ValueError, EncodeError) as e:
            if self.node.running:
                log.warning("%r: cannot take %r: %s", self, message, e)

    def _handle(self, message: Any) -> None:
        match message:
            case ("nodeup", str() as name):
                self._came_up(name)
            case ("nodedown", str() as name):
                if name in self._up:
                    self._up.discard(name)
                    self._went_down(name)
            case ("DOWN", Reference() as ref, "process", _, _):
                if not self._locks.died(ref) and ref in self._watched:
                    self._let_name_go(self._watched.pop(ref))
            case ("init_connect", version, str() as name, (_, _, _, Pid() as locker)):
                self._init_connect(version, name, locker)
            case ("init_connect_ack", str() as name, my_tag, his_tag):
                met = self._meetings.get(name)
                if met is None or met.tag != my_tag or met.his_tag != his_tag:
                    self._say(name, (CANCEL_CONNECT, self._me, his_tag))
                    self._meet_again(name)
            case ("cancel_connect", str() as name, tag):
                if self._at(name, tag):
                    self._meet_again(name)
            case ("lock_set", Pid() as locker, bool() as is_set, _, tag):
                if self._at(locker.node, tag):
                    self._locker.said(locker, is_set, tag)
            case ("lock_set", Pid(), bool(), _):
                self._locker.said_without_tag(message)
            case ("exchange", str() as name, list() as names, _, tag):
                if met := self._at(name, tag):
                    met.names = names
                    self._resolve_when_ready(met)
            case ("resolved", str() as name, list() as his, list() as known, _, list() as ext, tag):
                if met := self._at(name, tag):
                    met.resolved = his, known, ext
                    self._merge_when_ready(met)
            case ("new_nodes", str() as name, list() as changes, list() as ext, list() as nodes,
                  list() as extra):  # fmt: skip
                added = self._add_known(nodes)
                self._tell_in_sync(added)
                self._do(changes, name, ext, _lock_of(extra))
            case ("in_sync", str() as name, _):
                self._in_sync(name)
            case ("lost_connection", str() as a, int() as epoch, int() as number, str() as b):
                self._others_lost(a, epoch, number, b)
            case ("remove_connection", str() as name):
                if self._is_known(name):
                    self._remove(name)
            case ("whereis", name, (Pid() as pid, tag)):
                self._tell_where(name, Caller(self.box, pid, tag))
            case _:
                log.warning("%r: unexpected message %r", self, message)

    def _at(self, name: str, tag: Any) -> Meeting | None:
        """The meeting that carries this tag."""
        met = self._meetings.get(name)
        return met if met is not None and met.tag == tag else None

    def _send(self, dest: Any, term: Any, sender: Mailbox | None = None) -> None:
        self.node._send_or_part(dest, term, sender or self.box)

    def _cast(self, name: str, message: Any, sender: Any = None) -> None:
        self._send((SERVER, name), (GEN_CAST, message), sender)

    def _say(self, name: str, message: Any) -> None:
        """To a node that is connected; to no other."""
        if name in self._up:
            self._send((SERVER, name), message)

    # meeting ---------------------------------------------------------------------------

    def _came_up(self, name: str) -> None:
        if not self.node._peer(name).visible:
            return
        self._up.add(name)
        self._meet(name)

    def _meet(self, name: str) -> None:
        if name in self._known or name in self._meetings:
            return
        met = self._meetings[name] = Meeting(name, next(self._numbers))
        locker: Any = (LOCKER, NO_LONGER_A_PID, [], self._locker.box.pid)
        self._cast(name, (INIT_CONNECT, (VERSION, met.tag), self._me, locker))
        if (early := self._early.pop(name, None)) is not None:
            self._init_connect(early[0], name, early[1])

    def _init_connect(self, version: Any, name: str, locker: Pid) -> None:
        match version:
            case (int() as his_version, tag, *_) if his_version >= VERSION_MIN:
                pass
            case _:
                log.warning("%r: %s speaks an unknown version: %r", self, name, version)
                return
        met = self._meetings.get(name)
        if met is None:
            self._early[name] = version, locker
            return
        if met.version:
            self._say(name, (CANCEL_CONNECT, self._me, tag))
            self._meet_again(name)
            return
        met.his_tag = tag
        met.version = min(his_version, VERSION)
        met.locker = locker
        if met.version >= VERSION:
            self._say(name, (INIT_CONNECT_ACK, self._me, tag, met.tag))
        self._locker.look()

    def _end_meeting(self, name: str, last_words: Callable[[], None] | None = None) -> None:
        self._early.pop(name, None)
        met = self._meetings.pop(name, None)
        if met is not None and met.in_lock:
            met.last_words = last_words
        elif last_words is not None:
            last_words()
        if met is not None:
            met.ended.set()
            self._locker.look()

    def _meet_again(self, name: str) -> None:
        """What was said so far is void, on both sides."""
        met = self._meetings.get(name)
        if met is not None and met.version >= VERSION:
            self._say(name, (CANCEL_CONNECT, self._me, met.his_tag))
        self._end_meeting(name)
        self._locks.forget(name)
        for key, found in list(self.names.items()):
            if found.pid.node == name:
                self._delete(key)
        if met is not None:
            self._meet(name)

    def _exchange(self, met: Meeting) -> None:
        """The lock is held."""
        names = [(n.term, n.pid, n.method) for n in self.names.values()]
        self._cast(met.node, (EXCHANGE, self._me, names, [], met.his_tag))
        self._resolve_when_ready(met)

    def _resolve_when_ready(self, met: Meeting) -> None:
        if met.lock is not None and met.names is not None and not met.resolving:
            met.resolving = True
            self._start(self._resolve(met, met.names))

    async def _resolve(self, met: Meeting, theirs: list[Any]) -> None:
        with self._or_part(met):
            await self._settle(met, theirs)

    @contextmanager
    def _or_part(self, met: Meeting) -> Iterator[None]:
        """A meeting that cannot go on must not keep the lock: its node is disconnected."""
        try:
            yield
        except (TypeError, ValueError, EncodeError) as e:
            log.error("%r: %s tells nonsense, and is disconnected: %s", self, met.node, e)
            self.node.disconnect(met.node)

    async def _settle(self, met: Meeting, theirs: list[Any]) -> None:
        """The names of both sides: changes for this side, and for the other."""
        ours_change: list[Any] = []
        theirs_change: list[Any] = []
        for name, pid, method in theirs:
            mine = self.names.get(term_key(name))
            if mine is None:
                ours_change.append((INSERT, (name, pid, method)))
                continue
            if mine.pid == pid or not self._me < met.node:  # the other side settles it
                continue
            kept = await self._kept_of(mine, name, pid)
            if kept == pid:
                ours_change.append((INSERT, (name, pid, method)))
            elif kept == mine.pid:
                theirs_change.append((INSERT, (name, mine.pid, mine.method)))
            else:
                if kept != NONE:
                    log.warning("%r: %r: its method gave %r", self, name, kept)
                ours_change.append((DELETE, name))
                theirs_change.append((DELETE, name))
        if self._meetings.get(met.node) is not met:
            return
        known = self._known_list(met.version)
        external = list(self._external.values())
        answer = (RESOLVED, self._me, theirs_change, known, UNUSED, external, met.his_tag)
        self._cast(met.node, answer)
        met.changes = ours_change
        self._merge_when_ready(met)

    async def _kept_of(self, mine: _Name, name: Any, pid: Pid) -> Any:
        """Which of two processes keeps the name; asked where ours runs."""
        try:
            if mine.pid.node == self._me:
                return await self._resolve_it(mine.method, name, pid, mine.pid)
            return await self._resolve_at(mine.pid.node, [mine.method, name, pid, mine.pid])
        except RouterError as e:
            log.info("%r: nobody settles %r: %s", self, name, e)
            return pid

    async def _resolve_it(self, method: Any, name: Any, other: Pid, mine: Pid) -> Any:
        """What peers call on the node of `mine`, whose method it is."""
        if isinstance(method, Export) and method.module == GLOBAL:
            found = resolve(str(method.function), name, other, mine)
            if found is not None:
                kept, kill, tell = found
                for pid in kill:
                    log.info("%s: the name %r is taken: ending %r", self._me, name, pid)
                    self.box.exit(pid, "kill")
                for pid, message in tell:
                    self._send(pid, message)
                return kept
        if other.node == self._me:
            log.warning("%r: %r: nobody here can run %r", self, name, method)
            return NONE
        # A fun of some Erlang module: the other process may live where it can be run.
        return await self._resolve_at(other.node, [method, name, other, mine])

    async def _resolve_at(self, node: str, args: list[Any]) -> Any:
        return await self._changing.rpc(node, GLOBAL, "resolve_it", args, RESOLVE_SECONDS)

    def _merge_when_ready(self, met: Meeting) -> None:
        if met.changes is not None and met.resolved is not None:
            with self._or_part(met):
                self._merge(met, met.changes, *met.resolved)

    def _merge(
        self, met: Meeting, changes: list[Any], his: list[Any], his_known: list[Any], external: Any
    ) -> None:
        changes = changes + his
        before = dict(self._known)
        nodes = [(met.node, met.version), *his_known]
        names = [_node_of(entry) for entry in his_known]
        versions = [(Atom(n), v or self._version_of(n)) for n, v in map(_node_of, nodes)]
        extra = [(VSN, met.version), (LOCK, met.lock)]
        self._tell_in_sync([n for n, _ in names])
        self._do(changes, self._me, external, met.lock)
        self._now_synced(met.node)
        for other, _ in names:
            self._end_meeting(other)

        def tell_ours() -> None:
            # As the locker: before the same process gives the lock back.
            for name, version in before.items():
                listed = versions if version >= 7 else [n for n, _ in versions]
                message = (NEW_NODES, self._me, changes, external, listed, extra)
                self._cast(name, message, self._locker.box)

        self._end_meeting(met.node, tell_ours)
        self._add_known(versions)
        self._synced.add(met.node)

    def _in_sync(self, name: str) -> None:
        self._now_synced(name)
        self._synced.add(name)
        self._end_meeting(name)

    def _add_known(self, nodes: list[Any]) -> list[str]:
        added = []
        for name, version in map(_node_of, nodes):
            if name == self._me:
                continue
            if name not in self._known:
                added.append(name)
                self._known[name] = version
            elif not self._known[name]:
                self._known[name] = version
        return added

    def _tell_in_sync(self, names: Iterable[str]) -> None:
        for name in names:
            if name != self._me:
                self._start(self._connect_and_tell(name))

    async def _connect_and_tell(self, name: str) -> None:
        try:
            await self.node.connect(name)
        except (RouterError, OSError) as e:
            log.warning("%r: cannot connect to %s: %s", self, name, e)
            self._went_down(name)
            return
        self._cast(name, (IN_SYNC, self._me, True))

    def _version_of(self, name: str) -> int:
        if name == self._me:
            return VERSION
        met = self._meetings.get(name)
        return self._known.get(name) or (met.version if met is not None else 0)

    def _known_list(self, version: int) -> list[Any]:
        if version < 7:
            return [Atom(name) for name in self._known]
        return [(Atom(name), v) for name, v in self._known.items()]

    def _is_known(self, name: str) -> bool:
        met = self._meetings.get(name)
        return name in self._known or (met is not None and met.version > 0)

    # parting ---------------------------------------------------------------------------

    def _went_down(self, name: str) -> None:
        self._forget(name)
        if name in self._removing:
            self._removing.discard(name)
            return
        number = next(self._numbers)
        self._tell_lost((LOST_CONNECTION, self._me, self._epoch, number, Atom(name)), name)

    def _forget(self, name: str) -> None:
        self._end_meeting(name)
        self._known.pop(name, None)
        self._synced.discard(name)
        self._now_synced(name)  # nobody waits for it any more

    def _tell_lost(self, message: Any, but: str) -> None:
        for other in {*self._known, *(m.node for m in self._meetings.values() if m.version)}:
            if other != but:
                self._say(other, message)

    def _others_lost(self, a: str, epoch: int, number: int, b: str) -> None:
        """The connection of `a` and `b` is lost: this node is to stay with one of them only."""
        now = time.monotonic()
        told = self._lost.get((a, b))
        if told is not None and told[0] == epoch and number <= told[1]:
            return
        self._lost = {k: v for k, v in self._lost.items() if now - v[2] < LOST_SECONDS}
        self._lost[a, b] = epoch, number, now
        self._tell_lost((LOST_CONNECTION, Atom(a), epoch, number, Atom(b)), a)
        gone = a if b == self._me else b
        if not self._is_known(gone):
            return
        self._say(gone, (REMOVE_CONNECTION, self._me))
        log.warning(
            "%s: asks %s to disconnect, which %s has lost: parts of a cluster must not overlap",
            self._me, gone, a if gone == b else b,
        )  # fmt: skip
        self._forget(gone)
        self._removing.add(gone)

    def _remove(self, name: str) -> None:
        log.warning("%s: disconnects from %s, as it asked: others lost it", self._me, name)
        self.node.disconnect(name)
        self._forget(name)
        self._removing.add(name)

    # names -----------------------------------------------------------------------------

    def where(self, name: Any) -> Pid | None:
        found = self.names.get(term_key(name))
        if found is None:
            return None
        pid = found.pid
        return pid if pid.node != self._me or self.node._is_alive(pid) else None

    def _insert(
        self, term: Any, pid: Pid, method: Any, giver: Pid | None, lock: Lock | None
    ) -> None:
        """giver: who holds the lock for it; None: `lock` is held."""
        key = term_key(term)
        self._delete(key)
        ref = self.box.monitor(pid)
        self._watched[ref] = key
        self.names[key] = _Name(term, pid, method, ref)
        if not self._locks.is_global_held_by(giver, lock):
            self._delete(key)

    def _delete(self, key: bytes) -> None:
        found = self._let_name_go(key)
        if found is not None:
            del self._watched[found.ref]
            self.box.demonitor(found.ref)

    def _let_name_go(self, key: bytes) -> _Name | None:
        self._external.pop(key, None)
        self._held.pop(key, None)
        return self.names.pop(key, None)

    def hold(self, name: Any, box: Mailbox) -> None:
        """A box with a name lives though the program forgets it."""
        if self.where(name) == box.pid:
            self._held[term_key(name)] = box

    def _do(self, changes: list[Any], name: str, external: list[Any], lock: Lock | None) -> None:
        registrars = {(term_key(n), pid): registrar for n, pid, registrar in external}
        for change in changes:
            match change:
                case ("insert", (term, Pid() as pid, method)):
                    self._insert(term, pid, method, None, lock)
                    found = term_key(term), pid
                    if found in registrars and found[0] in self.names:
                        self._external[found[0]] = term, pid, registrars[found]
                case ("delete", term):
                    self._delete(term_key(term))
                case _:
                    raise ValueError(f"an unknown change of {name}: {change!r}")

    def _tell_where(self, name: Any, caller: Caller) -> None:
        if not self._locks.is_global_taken:
            caller.reply(self.where(name) or UNDEFINED)
            return
        loop = asyncio.get_running_loop()
        loop.call_later(_pause(5), self._take, (Atom("whereis"), name, (caller.pid, caller._tag)))

    async def register(self, name: Any, pid: Pid, method: Any, again: bool) -> bool:
        """On all nodes that are known; False when the name is taken."""

        async def change(nodes: list[str]) -> bool:
            if not again and self.where(name) is not None:
                return False
            await self._locks.ask(self._changing, nodes, (REGISTER, name, pid, method))
            return True

        return bool(await self._locked_everywhere(change))

    async def unregister(self, name: Any) -> None:
        async def change(nodes: list[str]) -> None:
            await self._locks.ask(self._changing, nodes, (UNREGISTER, name))

        if self.where(name) is not None:
            await self._locked_everywhere(change)

    def keys_of(self, pid: Pid) -> list[bytes]:
        return [key for key, name in self.names.items() if name.pid == pid]

    async def _locked_everywhere(self, change: Callable[[list[str]], Awaitable[Any]]) -> Any:
        """Calls `change(nodes)` while no other in the cluster changes names."""
        calls, locks = self._changing, self._locks
        async with self._registering:
            lock = (GLOBAL, calls.box.pid)
            nodes: list[str] = []
            for times in itertools.count():
                known = list(self._known)
                nodes = [self._me, *known]
                boss = [max(nodes)]
                try:
                    if await locks.lock(calls, lock, boss):
                        locked = await locks.lock(calls, lock, nodes)
                        if locked and set(self._known) <= set(known):
                            break
                        await locks.unlock(calls, lock, nodes if locked else boss)
                except BaseException:  # cancelled: some may be locked
                    await locks.unlock_all(calls, lock, nodes)
                    raise
                await asyncio.sleep(_pause(times))
            try:
                return await change(nodes)
            finally:
                await locks.unlock_all(calls, lock, nodes)

    # waiting until all is one -------------------------------------------------------------

    def _now_synced(self, name: str) -> None:
        for missing, future in list(self._syncing):
            missing.discard(name)
            if not missing and not future.done():
                future.set_result(None)

    async def sync(self, nodes: Iterable[str] | None = None) -> None:
        """Returns when all visible nodes, or these, share their names with this one."""
        connected = {name for name in self.node.nodes() if self.node._peer(name).visible}
        wanted = connected if nodes is None else connected.intersection(nodes)
        missing = wanted - self._synced
        if not missing:
            return
        entry = missing, asyncio.get_running_loop().create_future()
        self._syncing.append(entry)
        try:
            await entry[1]
        finally:
            self._syncing.remove(entry)

    async def _answer_when_synced(self, nodes: list[str], caller: Caller) -> None:
        await self.sync(nodes)
        caller.reply(OK)


def resolve(
    method: str, name: Any, first: Pid, second: Pid
) -> tuple[Any, list[Pid], list[tuple[Pid, Any]]] | None:
    """What global's own methods do with two processes of one name.

    Who keeps it, who is killed, and who is told what. None: not one of them.
    """
    conflict = Atom("global_name_conflict")
    low, high = (first, second) if first.node < second.node else (second, first)
    match method:
        case "random_exit_name":
            return low, [high], []
        case "random_notify_name":
            return low, [], [(high, (conflict, name))]
        case "notify_all_name":
            return NONE, [], [(first, (conflict, name, second)), (second, (conflict, name, first))]
    return None


def _node_of(entry: Any) -> tuple[str, int]:
    match entry:
        case (str() as name, int() as version):
            return name, version
        case str() as name:
            return name, 0
    raise ValueError(f"not a node: {entry!r}")


def _lock_of(extra: list[Any]) -> Lock | None:
    for entry in extra:
        match entry:
            case ("lock", (resource, requester)) if resource == GLOBAL:
                return resource, requester
    return None


def _pause(times: int) -> float:
    """Seconds before the next attempt: by chance, and longer after more of them."""
    return random.uniform(0.001, 8.0 if times > 5 else (1 << times) / 8)
