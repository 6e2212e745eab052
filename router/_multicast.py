"""What lets a broadcast reach many processes of a router node in one message.

A node that takes such messages has a process registered as `router_multicast`. It says so to
the process of that name on each node that is connected, in an ordinary message, which a node
that has none drops, as Erlang's do:

- `{multicast_hello, Pid, BytesMax}`: this process, which has that name too, takes
  `{multicast, [Pid], Term}`, sent to the name. The term's copies may take that many bytes
  together. It is answered with
- `{multicast_welcome, Pid, BytesMax}`, which says the same and is not answered.

The copies are made by the core (csrc/route/multicast.h), in the order of all that its sender
sends. A pid is forgotten when its process or the connection ends.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from router.errors import RouterError
from router.etf import Atom, Pid, Reference

if TYPE_CHECKING:
    from router.node import Node

__all__ = ["NAME", "Multicaster"]

log = logging.getLogger("router")

NAME = Atom("router_multicast")
HELLO, WELCOME = Atom("multicast_hello"), Atom("multicast_welcome")


Routes = tuple[list[Pid], list[tuple[tuple[str, str], list[Pid], bytes, int]]]
"""Who gets the term itself, and the casts of `NodeCore._broadcast`."""


class Multicaster:
    """One of a node, made on a loop; makes copies and knows who else does."""

    def __init__(self, node: Node, bytes_max: int) -> None:
        self._node = node
        self._loop = asyncio.get_running_loop()
        self._bytes_max = bytes_max
        self.changes = 0
        self._others: dict[str, tuple[Pid, Reference, int]] = {}
        self._box = node.mailbox(NAME)
        try:
            self._box._multicast()
            self._box._decode_plainly()
            self._box.on_messages(self._arrived)
            node.monitor_nodes(self._box)
            for name in node.nodes():
                self._say(HELLO, (NAME, name))
        except BaseException:
            self._box.close()
            raise

    @property
    def closed(self) -> bool:
        return self._box.closed

    def attend(self) -> None:
        """On the running loop, when the one before was closed. Copies are made without one."""
        if self._loop.is_closed():
            self._loop = asyncio.get_running_loop()
            self._box.on_messages(None)
            self._box.on_messages(self._arrived)

    def close(self) -> None:
        self._box.close()

    def known(self) -> set[str]:
        """The nodes that make copies."""
        return set(self._others)

    def route(self, pids: list[Pid]) -> Routes:
        """How a broadcast reaches these; right until `self.changes` is another number."""
        direct: list[Pid] = []
        there: dict[str, list[Pid]] = {}
        for pid in pids:
            if pid.node in self._others:
                there.setdefault(pid.node, []).append(pid)
            else:
                direct.append(pid)
        casts: list[tuple[tuple[str, str], list[Pid], bytes, int]] = []
        for name, members in there.items():
            if len(members) == 1:
                direct += members
            else:
                to: tuple[str, str] = (NAME, name)
                casts.append((to, members, self._node._canonical(members), self._others[name][2]))
        return direct, casts

    def _arrived(self, terms: list[Any]) -> None:
        for term in terms:
            try:
                self._handle(term)
            except RouterError as e:  # a peer whose buffer is full
                if not self._node.running:
                    return
                log.warning("%s of %s: %r: %s", NAME, self._node.name, term, e)

    def _handle(self, term: Any) -> None:
        match term:
            case ("multicast_hello" | "multicast_welcome" as word, Pid() as pid, int() as most):
                if pid.node == self._node.name:
                    return
                self._learn(pid, most)
                if word == HELLO:
                    self._say(WELCOME, pid)
            case ("nodeup", str() as name):
                self._say(HELLO, (NAME, name))
            case ("nodedown", str()):
                pass  # its process is watched
            case ("DOWN", Reference() as ref, "process", Pid() as pid, _):
                known = self._others.get(pid.node)
                if known is not None and known[1] == ref:
                    del self._others[pid.node]
                    self.changes += 1
            case _:
                log.warning("%s of %s: does not know %r", NAME, self._node.name, term)

    def _learn(self, pid: Pid, bytes_max: int) -> None:
        known = self._others.get(pid.node)
        ref = known[1] if known is not None and known[0] == pid else self._box.monitor(pid)
        if known is not None and known[1] != ref:
            self._box.demonitor(known[1])
        self._others[pid.node] = pid, ref, bytes_max
        self.changes += 1

    def _say(self, word: Atom, to: Any) -> None:
        self._node.send(to, (word, self._box.pid, self._bytes_max), sender=self._box)
