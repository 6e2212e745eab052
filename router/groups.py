"""Process groups that real Erlang nodes share: OTP's `pg`, one scope.

A scope is a process registered under its name on each node. What these processes say
to each other, and in which order, is pg.erl of OTP 25 to 28 (`handle_info`,
`handle_cast`, `handle_discover`):

- `{discover, Pid}`, also with a version behind it, to the scope of a node that has come up;
  it is answered with a sync, and with a discover if the asker is new;
- `{'$gen_cast', {sync, Pid, [{Group, [Pid]}]}}`: all groups of that node's processes;
- `{join, Pid, Group, PidOrPids}` and `{leave, Pid, PidOrPids, [Group]}`.

A real scope crashes on a leave for a group that it has not heard of, so nothing but a
sync is sent to a peer before it has had one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from router.errors import RouterError
from router.etf import Atom, Codec, FrozenList, ImproperList, Map, Pid, Reference
from router.mailbox import Mailbox

if TYPE_CHECKING:
    from router._multicast import Multicaster, Routes
    from router.node import Node

__all__ = ["ProcessGroups"]

log = logging.getLogger("router")

DISCOVER, SYNC, JOIN, LEAVE = Atom("discover"), Atom("sync"), Atom("join"), Atom("leave")
GEN_CAST = Atom("$gen_cast")
MAP_TAG = 116
"""The byte a map begins with in external form; other bytes may be the same."""

SEARCH_SECONDS_MIN, SEARCH_SECONDS_MAX = 1.0, 60.0
"""Between two questions to a node whose scope has not answered."""

Members = dict[Pid, int]
"""Who is in a group, and how often: a process may join more than once."""


def _put(held: dict[Any, int], items: Iterable[Any]) -> None:
    for item in items:
        held[item] = held.get(item, 0) + 1


def _take(held: dict[Any, int], items: Iterable[Any]) -> list[Any]:
    """Takes each out once; gives those that were there."""
    taken = []
    for item in items:
        times = held.get(item)
        if times is None:
            continue
        taken.append(item)
        if times == 1:
            del held[item]
        else:
            held[item] = times - 1
    return taken


def _counted(items: Iterable[Any]) -> dict[Any, int]:
    held: dict[Any, int] = {}
    _put(held, items)
    return held


def _listed(held: dict[Any, int]) -> list[Any]:
    return [item for item, times in held.items() for _ in range(times)]


class _Group:
    __slots__ = ("everyone", "routes", "term")

    def __init__(self, term: Any) -> None:
        self.term = term
        self.everyone: Members = {}
        self.routes: tuple[tuple[Multicaster, int], Routes] | None = None
        """Of a broadcast, and when that was; None when members have come or gone since."""


class _Peer:
    """The scope of another node."""

    __slots__ = ("groups", "ref", "told")

    def __init__(self, ref: Reference) -> None:
        self.ref = ref
        self.told = False
        """It has had a sync of ours, and hears of every change since."""
        self.groups: dict[bytes, Members] = {}


class ProcessGroups:
    """The groups of one scope. Made by `Node.pg`; used on the loop that made it.

    A group is any term and exists while it has members. What a group is called compares as in
    Erlang: `Atom("x")` and `"x"`, `1` and `1.0` are different groups. Members leave when they
    end, and those of a node when the connection with it does.
    """

    def __init__(self, node: Node, scope: str, codec: Codec | None) -> None:
        self._node = node
        self._loop = asyncio.get_running_loop()
        self._codec = codec or Codec()
        self._encode = self._codec.encode
        self._groups: dict[bytes, _Group] = {}
        self._joined: dict[Pid, tuple[Reference, dict[bytes, int]]] = {}
        self._peers: dict[Pid, _Peer] = {}
        self._monitors: dict[Reference, tuple[Pid, bytes | None]] = {}
        self._watched: dict[bytes | None, dict[Reference, Pid]] = {}
        self._silent: set[str] = set()
        """Nodes that are up and whose scope, if they have one, is not known."""
        self._timer: asyncio.TimerHandle | None = None
        self._pause = SEARCH_SECONDS_MIN
        self._box = node.mailbox(scope)
        self._scope = Atom(scope)
        try:
            node._multicaster()
            self._box.on_messages(self._arrived)
            node.monitor_nodes(self._box)
            for name in node.nodes():
                self._search(name)
        except BaseException:
            self._box.close()
            raise

    def __repr__(self) -> str:
        return f"<ProcessGroups {self._scope} of {self._node.name}>"

    @property
    def pid(self) -> Pid:
        """The process of this scope."""
        return self._box.pid

    @property
    def stale(self) -> bool:
        return self._box.closed or self._loop.is_closed()

    # asking -----------------------------------------------------------------------------

    def members(self, group: Any) -> list[Pid]:
        """The processes in the group, of all nodes; one that joined twice stands there twice."""
        found = self._groups.get(self._key(group))
        return _listed(found.everyone) if found else []

    def local_members(self, group: Any) -> list[Pid]:
        """Those of this node."""
        found = self._groups.get(self._key(group))
        return self._own(found) if found else []

    def groups(self) -> list[Any]:
        """All groups that have members."""
        return [group.term for group in self._groups.values()]

    # changing ---------------------------------------------------------------------------

    def join(self, group: Any, members: Mailbox | Pid | Iterable[Mailbox | Pid]) -> None:
        """Enters processes of this node; each time anew, as in Erlang.

        Raises ValueError for a process of another node, RouterError when this scope has ended.
        """
        self._need()
        key, pids = self._key(group), self._pids(members)
        for pid in pids:
            joined = self._joined.get(pid)
            if joined is None:
                joined = self._joined[pid] = self._box.monitor(pid), {}
            joined[1][key] = joined[1].get(key, 0) + 1
        self._enter(key, group, pids)
        if self._peers and pids:
            self._tell((JOIN, self._box.pid, group, pids[0] if len(pids) == 1 else pids))

    def leave(self, group: Any, members: Mailbox | Pid | Iterable[Mailbox | Pid]) -> bool:
        """Takes processes out, once each. False when none of them had joined."""
        self._need()
        key = self._key(group)
        left = []
        for pid in self._pids(members):
            joined = self._joined.get(pid)
            if joined is None or not _take(joined[1], (key,)):
                continue
            left.append(pid)
            if not joined[1]:
                del self._joined[pid]
                self._box.demonitor(joined[0])
        if not left:
            return False
        self._take_out(key, left)
        if self._peers:
            self._tell((LEAVE, self._box.pid, left[0] if len(left) == 1 else left, [group]))
        return True

    def broadcast(self, group: Any, term: Any, *, sender: Mailbox | Pid | None = None) -> int:
        """Sends `term` to every member; to how many.

        It is encoded once, and a router node that has several members gets one message for
        them all. Raises BufferFull after all others have had it, when the buffer of some peer
        is full.
        """
        self._need()
        found = self._groups.get(self._key(group))
        if found is None:
            return 0
        caster = self._node._multicaster()
        when = caster, caster.changes
        if found.routes is None or found.routes[0] != when:
            found.routes = when, caster.route(_listed(found.everyone))
        return self._node._broadcast(*found.routes[1], term, sender)

    # watching ---------------------------------------------------------------------------

    def monitor(self, group: Any, box: Mailbox) -> tuple[Reference, list[Pid]]:
        """Sends `(reference, "join" or "leave", group, pids)` to `box` from now on.

        Gives the reference, and who is in the group now.
        """
        return self._watch(self._key(group), box), self.members(group)

    def monitor_scope(self, box: Mailbox) -> tuple[Reference, list[tuple[Any, list[Pid]]]]:
        """The same for all groups; gives the reference and pairs of group and members."""
        ref = self._watch(None, box)
        everything = [(g.term, _listed(g.everyone)) for g in self._groups.values()]
        return ref, everything

    def demonitor(self, ref: Reference) -> bool:
        """Ends that. What was sent already stays in the box. False when there is none."""
        if not self._forget(ref):
            return False
        self._box.demonitor(ref)
        return True

    def close(self) -> None:
        """Ends the scope on this node: its members are members for nobody any more."""
        self._box.close()
        if self._timer is not None:
            self._timer.cancel()

    # what arrives ------------------------------------------------------------------------

    def _arrived(self, terms: list[Any]) -> None:
        for term in terms:
            try:
                self._handle(term)
            except (RouterError, TypeError, ValueError) as e:
                if not self._node.running:
                    return
                # A peer's mistake. Nothing of it has been done.
                log.warning("%r: cannot take %r: %s", self, term, e)

    def _handle(self, term: Any) -> None:
        match term:
            case ("join", Pid() as peer, group, pids) if peer in self._peers:
                key, joining = self._key(group), _pids_of(pids)
                _put(self._peers[peer].groups.setdefault(key, {}), joining)
                self._enter(key, group, joining)
            case ("leave", Pid() as peer, pids, list() as groups) if peer in self._peers:
                leaving = _pids_of(pids)
                for key in [self._key(group) for group in groups]:
                    self._left(self._peers[peer], key, leaving)
            case ("join" | "leave", Pid(), _, _):
                pass  # of a scope that is not known: its connection has flickered
            case ("$gen_cast", ("sync", Pid() as peer, list() as groups)):
                new = {self._key(g): (g, _counted(_pids_of(pids))) for g, pids in groups}
                self._synced(self._peer(peer), new)
            case ("discover", Pid() as peer) | ("discover", Pid() as peer, _):
                self._discovered(peer)
            case ("nodeup", str() as name):
                self._search(name)
            case ("nodedown", str() as name):  # that of its scope comes with the monitor
                self._silent.discard(name)
            case ("DOWN", Reference() as ref, "process", Pid() as pid, reason):
                self._ended(ref, pid, reason)
            case _:
                log.warning("%r: not for a scope of process groups: %r", self, term)

    def _search(self, name: str) -> None:
        """Asks at once, and again while nobody answers: a scope that starts later does not
        look for hidden nodes."""
        self._discover(name)
        self._silent.add(name)
        self._pause = SEARCH_SECONDS_MIN
        self._search_later()

    def _search_later(self) -> None:
        if self._timer is None and self._silent and not self._box.closed:
            self._timer = self._loop.call_later(self._pause, self._search_again)

    def _search_again(self) -> None:
        self._timer = None
        self._pause = min(2 * self._pause, SEARCH_SECONDS_MAX)
        if not self._box.closed:
            for name in list(self._silent):
                self._discover(name)
        self._search_later()

    def _discover(self, name: str) -> None:
        self._send((self._scope, name), (DISCOVER, self._box.pid))

    def _peer(self, pid: Pid) -> _Peer:
        if pid not in self._peers:
            self._peers[pid] = _Peer(self._box.monitor(pid))
            self._silent.discard(pid.node)
        return self._peers[pid]

    def _discovered(self, pid: Pid) -> None:
        new = pid not in self._peers
        peer = self._peer(pid)
        local = [(g.term, own) for g in self._groups.values() if (own := self._own(g))]
        self._send(pid, (GEN_CAST, (SYNC, self._box.pid, local)))
        peer.told = True
        if new:
            self._send(pid, (DISCOVER, self._box.pid))

    def _synced(self, peer: _Peer, new: dict[bytes, tuple[Any, Members]]) -> None:
        """All that its node has. Groups it did not have before and those it no longer has are
        told to who watches; another membership of one it had is not, as in pg (`sync_groups`),
        whose scopes never send one."""
        for key, (term, members) in new.items():
            before = peer.groups.pop(key, None)
            if not before:
                self._enter(key, term, _listed(members))
            elif before != members:
                self._change(key, before, members)
        for key, members in peer.groups.items():
            self._take_out(key, _listed(members))
        peer.groups = {key: members for key, (_, members) in new.items()}

    def _left(self, peer: _Peer, key: bytes, pids: list[Pid]) -> None:
        known = peer.groups.get(key)
        if known is None:
            return
        gone = _take(known, pids)
        if not known:
            del peer.groups[key]
        self._take_out(key, gone)

    def _ended(self, ref: Reference, pid: Pid, reason: Any) -> None:
        if self._forget(ref):
            return
        peer = self._peers.get(pid)
        if peer is not None and peer.ref == ref:
            del self._peers[pid]
            for key, members in peer.groups.items():
                self._take_out(key, _listed(members))
            if reason != "noconnection":  # it may start anew
                self._silent.add(pid.node)
                self._search_later()
            return
        joined = self._joined.get(pid)
        if joined is None or joined[0] != ref:
            return
        del self._joined[pid]
        left: list[Any] = []
        for key in _listed(joined[1]):  # one message for each time it had joined, as from pg
            left.append(self._groups[key].term)
            self._take_out(key, [pid])
        self._tell((LEAVE, self._box.pid, pid, left))

    # what is kept --------------------------------------------------------------------------

    def _own(self, group: _Group) -> list[Pid]:
        name = self._node.name
        return [pid for pid in _listed(group.everyone) if pid.node == name]

    def _enter(self, key: bytes, term: Any, pids: list[Pid]) -> None:
        if not pids:
            return
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(term)
        _put(group.everyone, pids)
        group.routes = None
        if self._watched:
            self._notify(JOIN, key, group.term, pids)

    def _take_out(self, key: bytes, pids: list[Pid]) -> None:
        group = self._groups.get(key)
        if group is None or not pids:
            return
        group.routes = None
        _take(group.everyone, pids)
        if not group.everyone:
            del self._groups[key]
        if self._watched:
            self._notify(LEAVE, key, group.term, pids)

    def _change(self, key: bytes, before: Members, after: Members) -> None:
        group = self._groups[key]
        group.routes = None
        _take(group.everyone, _listed(before))
        _put(group.everyone, _listed(after))
        if not group.everyone:
            del self._groups[key]

    def _watch(self, key: bytes | None, box: Mailbox) -> Reference:
        self._need()
        if getattr(box, "node", None) is not self._node:
            raise ValueError(f"monitor takes a Mailbox of this node, not {box!r}")
        ref = self._box.monitor(box.pid)
        self._monitors[ref] = box.pid, key
        self._watched.setdefault(key, {})[ref] = box.pid
        return ref

    def _forget(self, ref: Reference) -> bool:
        found = self._monitors.pop(ref, None)
        if found is None:
            return False
        watching = self._watched[found[1]]
        del watching[ref]
        if not watching:
            del self._watched[found[1]]
        return True

    def _notify(self, what: Atom, key: bytes, group: Any, pids: list[Pid]) -> None:
        for watched in (None, key):
            for ref, pid in self._watched.get(watched, {}).items():
                self._send(pid, (ref, what, group, pids))

    def _tell(self, term: Any) -> None:
        for pid, peer in self._peers.items():
            if peer.told:
                self._send(pid, term)

    def _send(self, dest: Any, term: Any) -> None:
        self._node._send_or_part(dest, term, self._box)

    def _key(self, group: Any) -> bytes:
        key = self._encode(group)
        if MAP_TAG not in key or isinstance(group, (str, bytes)):  # for sure there is no map in it
            return key
        return self._encode(_in_order(group, self._codec))

    def _pids(self, members: Mailbox | Pid | Iterable[Mailbox | Pid]) -> list[Pid]:
        if isinstance(members, Mailbox) and members.node is self._node:
            return [members.pid]
        several = [members] if isinstance(members, (Mailbox, Pid)) else list(members)
        pids = [m.pid if isinstance(m, Mailbox) else m for m in several]
        for pid in pids:
            if not isinstance(pid, Pid):
                raise TypeError(f"a member is a Mailbox or a Pid, not {type(pid).__name__}")
            if pid.node != self._node.name or pid.creation != self._node.creation:
                raise ValueError(f"a member is a process of this node, not {pid!r}")
        return pids

    def _need(self) -> None:
        if self._box.closed:
            raise RouterError(f"{self!r} has ended")


def _in_order(term: Any, codec: Codec) -> Any:
    """The same term with the keys of its maps in the order of their bytes."""
    if isinstance(term, dict | Map):
        pairs = [(_in_order(k, codec), _in_order(v, codec)) for k, v in term.items()]
        pairs.sort(key=lambda pair: codec.encode(pair[0]))
        return type(term)(pairs)
    if type(term) in (tuple, list, FrozenList):
        return type(term)([_in_order(item, codec) for item in term])
    if isinstance(term, ImproperList):
        items = [_in_order(item, codec) for item in term.items]
        return ImproperList(items, _in_order(term.tail, codec))
    return term


def _pids_of(pids: Any) -> list[Pid]:
    listed = pids if isinstance(pids, list) else [pids]
    if not all(isinstance(pid, Pid) for pid in listed):
        raise ValueError("a member is a pid")
    return listed
