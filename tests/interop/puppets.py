"""Puppets on a node of ours: what erl/puppet.erl says of its own, said in Python."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from router import (
    NO_REPLY,
    Atom,
    Caller,
    CallTimeout,
    ExitSignal,
    GenServer,
    Mailbox,
    Node,
    NodeDown,
    NoProcess,
    Pid,
    RemoteError,
)

DONE, OK, GONE, SYNC = Atom("done"), Atom("ok"), Atom("gone"), Atom("sync")
BURST, FAILED, ERPC = Atom("burst"), Atom("failed"), Atom("erpc")
NOT_JOINED, MEMBERS = Atom("not_joined"), Atom("members")
GEN_CAST, DISCOVER = Atom("$gen_cast"), Atom("discover")
SCOPE, PUPPET = "puppets", "puppet"


def returns(value: Any) -> Any:
    return value


def exits(reason: Any) -> Any:
    raise ExitSignal(reason)


async def waits() -> None:
    await asyncio.Event().wait()


class Puppets:
    """The process `puppeteer` of a node, and those it has made; within `async with`."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.box = node.mailbox("puppeteer")
        self.boxes: list[Mailbox] = []
        self.node.pg(SCOPE)
        for function in (returns, exits, waits):
            self.node.expose(PUPPET, function.__name__, function)

    async def __aenter__(self) -> Puppets:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        async for term in self.box:
            match term:
                case ("new", Pid() as asker, ref, name):
                    made = self._new(name)
                    self.boxes.append(made)
                    self.node.send(asker, (DONE, ref, made.pid))
                case ("settle", Pid() as asker, ref):
                    alive = [box for box in self.boxes if await self._asked(box.pid) != GONE]
                    self.boxes = alive
                    await self._scope_knows()
                    self.node.send(asker, (DONE, ref, [box.pid for box in alive]))
                case ("clear", Pid() as asker, ref):
                    for box in self.boxes:
                        box.close()
                    self.boxes = []
                    await self._scope_knows()
                    self.node.send(asker, (DONE, ref, OK))

    async def _scope_knows(self) -> None:
        """It has heard of those who have ended."""
        alive, groups = {box.pid for box in self.boxes}, self.node.pg(SCOPE)
        while any(not alive.issuperset(groups.local_members(g)) for g in groups.groups()):
            await asyncio.sleep(0)

    def _new(self, name: Any) -> Mailbox:
        match name:
            case ("server", str() as own):
                return self.node.serve(own, Adder()).box
            case "none":
                return Puppet(self.node, None).box
        return Puppet(self.node, name).box

    async def _asked(self, pid: Pid) -> Any:
        with self.node.mailbox() as box:
            ref = box.monitor(pid)
            self.node.send(pid, (SYNC, box.pid, ref))
            match await box.receive(20.0):
                case ("done", _, value):
                    return value
                case ("DOWN", *_):
                    return GONE


class Puppet:
    def __init__(self, node: Node, name: str | None) -> None:
        self.node = node
        self.box = node.mailbox(name)
        self.log: list[Any] = []
        self.box.on_messages(self._arrived)

    def _arrived(self, terms: list[Any]) -> None:
        for term in terms:
            match term:
                case ("sync", Pid() as asker, ref):
                    self._send(asker, (DONE, ref, OK))
                case ("log", Pid() as asker, ref):
                    self._send(asker, (DONE, ref, self.log))
                    self.log = []
                case ("do", Pid() as asker, ref, ("call" | "rpc", *_) as what):
                    self.asking = asyncio.create_task(self._ask(asker, ref, what))
                case ("do", Pid() as asker, ref, what):
                    self._send(asker, (DONE, ref, self._do(what)))
                case ("stop", reason):
                    self.box.close(reason)
                    return
                case ("leave_and_stop", group, reason):
                    self.node.pg(SCOPE).leave(group, self.box)
                    self.box.close(reason)
                    return
                case ("burst", to, count, reason):
                    self._burst(to, count)
                    self.box.close(reason)
                    return
                case message:
                    self.log.append(message)

    def _send(self, to: Any, term: Any) -> None:
        with suppress(NoProcess):  # of a local name; Erlang's {Name, Node} ! Term says nothing
            self.node.send(to, term, sender=self.box)

    def _burst(self, to: Any, count: int) -> None:
        with suppress(NoProcess):
            self.node.send_many(to, [(BURST, i) for i in range(1, count + 1)], sender=self.box)

    def _do(self, what: Any) -> Any:
        match what:
            case ("trap", on):
                self.box.trap_exit = on
            case ("link", pid):
                self.box.link(pid)
            case ("unlink", pid):
                self.box.unlink(pid)
            case ("monitor", target):
                return self.box.monitor(target)
            case ("demonitor", ref):
                return self.box.demonitor(ref)
            case ("exit", pid, reason):
                self.box.exit(pid, reason)
            case ("send", to, term):
                self._send(to, term)
            case ("burst", to, count):
                self._burst(to, count)
            case "alias":
                return self.box.alias()
            case "alias_once":
                return self.box.alias(once=True)
            case ("unalias", ref):
                return self.box.unalias(ref)
            case ("spawn", node, function, args, options):
                return self.box.spawn_request(
                    node, PUPPET, function, args,
                    link="link" in options, monitor="monitor" in options,
                )  # fmt: skip
            case ("join", group):
                self.node.pg(SCOPE).join(group, self.box)
            case ("leave", group):
                return OK if self.node.pg(SCOPE).leave(group, self.box) else NOT_JOINED
            case ("members", group):
                groups = self.node.pg(SCOPE)
                return (MEMBERS, groups.members(group), groups.local_members(group))
            case ("watch", group):
                return self.node.pg(SCOPE).monitor(group, self.box)[0]
            case ("unwatch", ref):
                return OK if self.node.pg(SCOPE).demonitor(ref) else False
            case ("sync", node, groups):
                self._send((SCOPE, node), (GEN_CAST, (SYNC, self.node.pg(SCOPE).pid, groups)))
            case ("discover", node, count):
                for _ in range(count):
                    self._send((SCOPE, node), (DISCOVER, self.node.pg(SCOPE).pid))
            case other:
                raise ValueError(f"no such thing to do: {other!r}")
        return OK

    async def _ask(self, asker: Pid, ref: Any, what: Any) -> None:
        self._send(asker, (DONE, ref, await self._answer(what)))

    async def _answer(self, what: Any) -> Any:
        """What Erlang's puppet says of gen_server:call and erpc:call."""
        match what:
            case ("call", to, request, timeout):
                try:
                    return (OK, await self.node.call(to, request, timeout / 1000))
                except CallTimeout:
                    return (FAILED, Atom("timeout"))
                except NoProcess:
                    return (FAILED, Atom("noproc"))
                except NodeDown:
                    node = to[1] if isinstance(to, tuple) else to.node
                    return (FAILED, (Atom("nodedown"), Atom(node)))
                except RemoteError as e:
                    return (FAILED, e.reason)
            case (_, node, function, args, timeout):
                try:
                    return (OK, await self.node.rpc(node, PUPPET, function, args, timeout / 1000))
                except CallTimeout:
                    return (ERPC, Atom("timeout"))
                except NodeDown:
                    return (ERPC, Atom("noconnection"))
                except RemoteError as e:
                    where = e.stacktrace[:1] if e.class_ == "error" else []
                    return (Atom(e.class_), e.reason, *where)


class Adder(GenServer):
    """The server of puppet.erl."""

    def __init__(self) -> None:
        self.sum = 0
        self.caller: Caller | None = None

    def handle_call(self, request: Any, caller: Caller) -> Any:
        match request:
            case ("add", number):
                self.sum += number
                return self.sum
            case "later":
                self.caller = caller
                return NO_REPLY
            case ("stop", reason, reply):
                caller.reply(reply)
                raise ExitSignal(reason)
            case ("stop", reason):
                raise ExitSignal(reason)
        raise ValueError(f"no such request: {request!r}")

    def handle_cast(self, request: Any) -> None:
        match request:
            case ("answer", reply):
                if self.caller is not None:
                    self.caller.reply(reply)
                self.caller = None
            case ("stop", reason):
                raise ExitSignal(reason)

    def handle_info(self, message: Any) -> None:
        match message:
            case ("sync", Pid() as asker, ref):
                self.server.box.node.send(asker, (DONE, ref, OK), sender=self.server.box)
            case ("log", Pid() as asker, ref):
                self.server.box.node.send(asker, (DONE, ref, []), sender=self.server.box)
