"""A node: processes of this program in a cluster of Erlang nodes."""

from __future__ import annotations

import asyncio
import builtins
import inspect
from collections.abc import Callable, Coroutine, Iterable
from types import NoneType
from typing import Any

from router import _calls, _core
from router._arguments import (
    busy_wait_ns_of,
    cookie_bytes,
    epmd_port_of,
    listen_on,
    name_ok,
    poller_of,
)
from router._connecting import Resolver
from router._life import LivingNode
from router._multicast import Multicaster
from router.errors import RouterError
from router.etf import Codec, Pid, Reference
from router.global_names import GlobalNames
from router.groups import ProcessGroups
from router.keeping import PAUSE_SECONDS_MAX, Kept, check_pause
from router.limits import Limits
from router.mailbox import Mailbox
from router.serving import Caller, GenServer, Server
from router.spawning import Processes
from router.supervising import Child, Strategy, Supervisor

__all__ = ["Node", "Resolver"]

_NAMED_MARK = 64


@_core.calls_directly
class Node(LivingNode):
    """A node that other Erlang, Elixir and router nodes can reach.

    name: `name@host`. The host is where peers find this node.
    cookie: the cluster's shared secret; None reads `~/.erlang.cookie`.
    listen: address to listen on, `"host"`, `"host:port"` or `(host, port)`; None
        takes the address that the host in the name resolves to; False does not
        listen: such a node only connects out.
    hidden: True keeps the node out of the others' `nodes()`, as Erlang's
        `-hidden` does. A visible node connects to all others, and takes part in
        `global` (`global_names`).
    epmd: `"auto"` registers with the port mapper of this host, and serves one
        when none runs; `"none"` does without: peers are reached by
        `connect(name, host=, port=)` or through `resolver`.
    epmd_port: of every host; None takes the environment's ERL_EPMD_PORT or 4369.
    epmd_any: the embedded port mapper listens on every address, not on loopback
        alone, so that other hosts can look nodes up.
    net_ticktime: seconds of silence after which a peer counts as down (within a
        quarter); the same on all nodes of a cluster.
    engine: who drives sockets and timers. `"auto"`: the event loop or the waiting
        thread, and a thread of the node's own when those are busy; `"thread"`:
        that thread always; `"inline"`: never a thread, so that a program that
        computes without yielding falls out of the cluster.
    threads: how many threads of the node's own share its connections; more than one
        with `engine="thread"` only.
    busy_wait: seconds, at most 0.001, for which who drives looks for more, awake, after it
        heard a peer and before it sleeps; 0: it sleeps at once. For round trips between
        programs that have processors to themselves; docs/lifecycle.md says what it costs.
    poller: what waits for the sockets: `"epoll"`; `"io_uring"`, for `engine="thread"`
        where router was built with liburing and the kernel (Linux 6.1 or later) permits
        it; `"auto"`: the one that measured better, epoll.
    relay: forward messages that are for other connected nodes.
    codec: an `etf.Codec` with policies for this node's terms.
    limits: a `Limits`, or a dict of those to change.
    resolver: `f(name) -> (host, port)`, plain or coroutine function, asked before
        each connect.

    A node runs once: from `start` (or entering `with` / `async with`) to `stop`.
    """

    def __init__(
        self,
        name: str,
        *,
        cookie: str | bytes | None = None,
        listen: str | tuple[str, int] | bool | None = None,
        hidden: bool = True,
        epmd: str = "auto",
        epmd_port: int | None = None,
        epmd_any: bool = False,
        net_ticktime: float = 60,
        engine: str = "auto",
        poller: str = "auto",
        threads: int = 1,
        busy_wait: float = 0.0,
        relay: bool = False,
        codec: Any = None,
        limits: Limits | dict[str, int] | None = None,
        resolver: Resolver | None = None,
    ) -> None:
        if not name_ok(name):
            raise ValueError(f"a node name is name@host, not {name!r}")
        if engine not in list(_core.ENGINES):
            raise ValueError(f"engine is 'auto', 'thread' or 'inline', not {engine!r}")
        self._poller = poller_of(poller, engine)
        if epmd not in ("auto", "none"):
            raise ValueError(f"epmd is 'auto' or 'none', not {epmd!r}")
        if type(threads) is not int or not 1 <= threads <= _core.THREADS_MAX:
            raise ValueError(f"threads is a number from 1 to {_core.THREADS_MAX}, not {threads!r}")
        if threads > 1 and engine != "thread":
            raise ValueError(f"{threads} threads need engine='thread', not {engine!r}")
        seconds: object = net_ticktime
        if not isinstance(seconds, (int, float)) or not 0 < seconds < 1e6:
            raise ValueError(f"net_ticktime is a positive number of seconds, not {net_ticktime!r}")
        if isinstance(limits, dict):
            limits = Limits(**limits)
        if not isinstance(limits, (Limits, NoneType)):
            raise TypeError(f"limits is a Limits or a dict, not {type(limits).__name__}")
        if not isinstance(codec, (Codec, NoneType)):
            raise TypeError(f"codec is an etf.Codec, not {type(codec).__name__}")
        if resolver is not None and not callable(resolver):
            raise TypeError(f"resolver is a function, not {type(resolver).__name__}")
        super().__init__(name, cookie_bytes(cookie), listen_on(listen), engine, epmd, resolver)
        self._config = {
            "hidden": bool(hidden),
            "relay": bool(relay),
            "engine": _core.ENGINES[engine],
            "threads": threads,
            "busy_wait_ns": busy_wait_ns_of(busy_wait),
            "poller": _core.POLLERS[self._poller],
            "epmd": _core.EPMD_MODES[epmd],
            "epmd_port": epmd_port_of(epmd_port),
            "epmd_any": bool(epmd_any),
            "net_ticktime": float(net_ticktime),
            "limits": (limits or Limits()).as_dict(),
            "codec": codec,
        }
        self._codec = codec
        self._named_mark = _NAMED_MARK
        self._exposed: dict[tuple[str, str], Callable[..., Any]] = {}
        self._scopes: dict[str, ProcessGroups] = {}
        self._casting: Multicaster | None = None
        self._kept: dict[str, Kept] = {}
        self.refused_calls = 0
        """Calls of peers to functions that are not exposed; each was answered `undef`."""

    def __repr__(self) -> str:
        state = "running" if self.running else "stopped" if self._used else "not started"
        return f"<Node {self._full_name} {state}>"

    @property
    def poller(self) -> str:
        """What waits for this node's sockets: `"epoll"` or `"io_uring"`."""
        return self._poller

    def _begun(self) -> None:
        super()._begun()
        if not self._config["hidden"]:
            self._global = GlobalNames(self)
            self._global.start()

    async def ping(self, name: str, timeout: float = 7.0) -> bool:
        """True when `name` is, or can be, connected and its net_kernel answers."""
        if name == self._full_name:
            return True
        try:
            await self.connect(name, timeout)
            answer = await self.call(
                (_calls.NET_KERNEL, name), (_calls.IS_AUTH, self.atom), timeout
            )
        except (RouterError, TimeoutError):
            return False
        return bool(answer == "yes")

    def ping_sync(self, name: str, timeout: float = 7.0) -> bool:
        """`ping` for a thread without an event loop."""
        if name == self._full_name:
            return True
        try:
            self.connect_sync(name, timeout)
            answer = self.call_sync((_calls.NET_KERNEL, name), (_calls.IS_AUTH, self.atom), timeout)
        except (RouterError, TimeoutError):
            return False
        return bool(answer == "yes")

    def keep(
        self,
        name: str,
        *,
        host: str | None = None,
        port: int | None = None,
        cookie: str | bytes | None = None,
        pause_max: float = PAUSE_SECONDS_MAX,
    ) -> Kept:
        """Connects to `name`, and again whenever that ends, until `close` of what this gives.

        After a failure it pauses, for a quarter of a second at first, twice as long each
        time, at most pause_max (seconds), less up to a half by chance. On the running loop.
        host, port, cookie: as for `connect`. A peer that is kept already is given again.
        """
        if name == self._full_name or not name_ok(name):
            raise ValueError(f"keep takes the name of another node, not {name!r}")
        check_pause(pause_max)
        processes = self._processes_here()
        kept = self._kept.get(name)
        if kept is None or kept.closed:
            box = self.mailbox()
            kept = self._kept[name] = Kept(self, name, box, pause_max)
            processes.spawn(box, kept.run, ({"host": host, "port": port, "cookie": cookie},))
        return kept

    def keep_all(
        self,
        names: Iterable[str],
        *,
        cookie: str | bytes | None = None,
        pause_max: float = PAUSE_SECONDS_MAX,
    ) -> dict[str, Kept]:
        """Keeps all of a static list of nodes connected, each as `keep` does.

        names: the same list for every node of a cluster; this node's own name is passed
        over. None is kept when one is no name (ValueError).
        """
        if isinstance(names, str):
            raise TypeError(f"keep_all takes the names of nodes, not one: [{names!r}]")
        check_pause(pause_max)
        others = [name for name in dict.fromkeys(names) if name != self._full_name]
        for name in others:
            if not name_ok(name):
                raise ValueError(f"keep_all takes names of nodes, not {name!r}")
        return {name: self.keep(name, cookie=cookie, pause_max=pause_max) for name in others}

    def monitor_nodes(self, box: Mailbox, on: bool = True) -> None:
        """Sends `("nodeup", name)` and `("nodedown", name)` to `box` from now on, or no more."""
        if getattr(box, "node", None) is not self:
            raise ValueError(f"monitor_nodes takes a Mailbox of this node, not {box!r}")
        box._watch_nodes(on)

    # processes ------------------------------------------------------------------------

    def mailbox(
        self,
        name: str | None = None,
        *,
        limit: int | None = None,
        limit_bytes: int | None = None,
        overflow: str | None = None,
    ) -> Mailbox:
        """Makes a process of this node and gives its mailbox.

        name: registered, so that others reach it by name. limit (messages) and
        limit_bytes bound it; then overflow is `"drop"` (the newest, counted),
        `"close"`, or `"pause"`. Raises NameTaken, ValueError.
        """
        box = Mailbox(self, name, limit=limit, limit_bytes=limit_bytes, overflow=overflow)
        if name is not None:
            self._keep(name, box)
        return box

    def _keep(self, name: str, box: Mailbox) -> None:
        """A named box lives though the program forgets it; not when a signal has ended it."""
        self._named[name] = box
        if len(self._named) > self._named_mark:
            for key, other in list(self._named.items()):
                if other.closed:
                    del self._named[key]
            self._named_mark = 2 * len(self._named) + _NAMED_MARK

    def _forget(self, box: Mailbox) -> None:
        if box.name is not None and self._named.get(box.name) is box:
            del self._named[box.name]

    def whereis(self, name: str) -> Any:
        """The Pid registered as `name` on this node, or None."""
        return self._whereis(name)

    def reference(self) -> Reference:
        """A new Reference of this node, unlike any other, as make_ref() gives."""
        return self._reference()

    # calls -----------------------------------------------------------------------------

    def _caller(self) -> _calls.Calls:
        loop = asyncio.get_running_loop()
        caller = self._callers.get(loop)
        if caller is None or caller.stale:
            for other in [loop for loop in list(self._callers) if loop.is_closed()]:
                self._callers.pop(other).close()
            caller = self._callers[loop] = _calls.Calls(self)
        return caller

    async def call(self, dest: Any, request: Any, timeout: float = 5.0) -> Any:
        """Calls a gen_server and gives its reply.

        dest: a Pid, a local name or `(name, node)`. timeout: seconds. Raises
        CallTimeout, NoProcess, NodeDown, and RemoteError when the server ended before
        it answered.
        """
        return await self._caller().call(dest, request, timeout)

    def call_sync(self, dest: Any, request: Any, timeout: float = 5.0) -> Any:
        """`call` for a thread without an event loop."""
        return _calls.call_sync(self, dest, request, timeout)

    def cast(self, dest: Any, request: Any) -> None:
        """Sends a request to a gen_server that answers nothing."""
        self.send(dest, (_calls.GEN_CAST, request))

    async def rpc(
        self, node: str, module: str, function: str, args: list[Any], timeout: float = 5.0
    ) -> Any:
        """Runs `module:function(args...)` on `node`, as erpc:call does, and gives its result.

        A node that knows no spawn requests is asked as rpc:call does it; that cannot tell
        a thrown value from a result. Raises RemoteError (what it raised), NodeDown, CallTimeout.
        """
        return await self._caller().rpc(node, module, function, args, timeout)

    def rpc_sync(
        self, node: str, module: str, function: str, args: list[Any], timeout: float = 5.0
    ) -> Any:
        """`rpc` for a thread without an event loop."""
        return _calls.rpc_sync(self, node, module, function, args, timeout)

    async def spawn_remote(
        self, node: str, module: str, function: str, args: list[Any], timeout: float = 5.0
    ) -> Pid:
        """Starts `module:function(args...)` as a process of another node; its Pid.

        Raises NodeDown, CallTimeout, and RemoteError when that node will not (`notsup`,
        `system_limit`; a router node starts what it exposes). For a link or monitor from
        the first moment on see `Mailbox.spawn_request`.
        """
        pid: Pid = await self._caller().spawn(node, module, function, args, timeout)
        return pid

    def serve(
        self,
        name: str | None,
        handler: GenServer | Callable[[Any, Caller | None], Any],
        *,
        concurrency: int = 1,
        limit: int | None = None,
        limit_bytes: int | None = None,
        overflow: str | None = None,
    ) -> Server:
        """Makes a process on the running loop that answers gen_server calls.

        handler: a GenServer, or a function or coroutine `handler(request, caller)`
        that gives the answer, NO_REPLY when `caller.reply` gives it later, and gets
        None as caller of a cast. What such a function raises ends that call, as if the
        server had died; the server goes on. concurrency: calls that are handled at
        once; with 1, as in Erlang, each message waits for the one before it. The
        others: as for `mailbox`. Raises NameTaken, TypeError, ValueError.
        """
        loop = asyncio.get_running_loop()
        if isinstance(handler, GenServer):
            if getattr(handler, "server", None) is not None:
                raise ValueError(f"{handler!r} serves already: make another one")
        elif isinstance(handler, type):
            raise TypeError(f"handler is a GenServer, not its class: {handler.__name__}()")
        elif not callable(handler):
            raise TypeError(f"handler is a GenServer or function, not {type(handler).__name__}")
        number: object = concurrency
        if not (isinstance(number, int) and number >= 1):
            raise ValueError(f"concurrency is an int of at least 1, not {concurrency!r}")
        self._binding(loop)
        box = self.mailbox(name, limit=limit, limit_bytes=limit_bytes, overflow=overflow)
        return Server(box, handler, concurrency, self._watch_server)

    async def supervise(
        self,
        children: Iterable[Child],
        *,
        name: str | None = None,
        strategy: Strategy = "one_for_one",
        intensity: int = 1,
        period: float = 5.0,
    ) -> Supervisor:
        """Starts the children in order, and again when they end, as Erlang's supervisor does.

        strategy: `"one_for_one"` starts that child again, `"one_for_all"` all of them,
        `"rest_for_one"` those behind it too. More than `intensity` restarts within `period`
        seconds end it. name: registered. Raises what a child's start raises, when none of
        them stays; ValueError, TypeError, NameTaken.
        """
        found = Supervisor(children, strategy=strategy, intensity=intensity, period=period)
        server = self.serve(name, found)
        await found.begin(server)
        return found

    def _watch_server(self, server: Server) -> Callable[[], None]:
        processes = self._processes_here()
        ref = processes.watch(server.box, server._task)
        self._servers.add(server)

        def let_alone() -> None:
            processes.forget(ref)
            self._servers.discard(server)

        return let_alone

    def _processes_here(self) -> Processes:
        """Of the running loop."""
        loop = asyncio.get_running_loop()
        found = self._processes.get(loop)
        if found is None or found.stale:
            for other in [o for o, p in list(self._processes.items()) if p.stale]:
                del self._processes[other]
            found = self._processes[loop] = Processes(self)
        return found

    def spawn(
        self,
        function: Callable[..., Coroutine[Any, Any, Any]],
        *args: Any,
        name: str | None = None,
        link: Mailbox | Pid | None = None,
    ) -> Pid:
        """Runs `function(box, *args)`, a coroutine, as a process of the running loop.

        It ends with reason `normal` when the coroutine returns, with the exception as
        reason when it raises (`ExitSignal(reason)`: with that reason), and its task is
        cancelled when an exit signal ends it. name: registered. link: who is linked to
        it. Raises NameTaken, TypeError.
        """
        if not inspect.iscoroutinefunction(function):
            raise TypeError(f"spawn takes a coroutine function (async def), not {function!r}")
        if link is not None and not isinstance(link, (Mailbox, Pid)):
            raise TypeError(f"link is a Mailbox or a Pid, not {type(link).__name__}")
        processes = self._processes_here()
        box = self.mailbox(name)
        if link is not None:
            box.link(link.pid if isinstance(link, Mailbox) else link)
        processes.spawn(box, function, args)
        return box.pid

    def expose(self, module: str, function: str, callable: Callable[..., Any] | None) -> None:
        """Lets peers call `callable(*args)`, a function or coroutine, as module:function.

        By erpc:call, cast and multicall, rpc:call and cast, and spawn and its kin; on the
        loop that exposes. What it raises arrives as an error whose reason is
        `{python_error, Name, Message, Traceback}`; ExitSignal as an exit. None takes it
        back. Nothing else can be called: that is logged, counted in `refused_calls`,
        and answered with `undef`.
        """
        for what, value in (("module", module), ("function", function)):
            text: object = value
            if not isinstance(text, str) or not 0 < len(text) <= 255:
                raise TypeError(f"{what} is a str of 1 to 255 characters, not {value!r}")
        if callable is None:
            self._exposed.pop((module, function), None)
            return
        if not builtins.callable(callable):
            raise TypeError(f"callable is a function or None, not {type(callable).__name__}")
        processes = self._processes_here()
        self._exposed[module, function] = callable
        processes.serve_spawn_requests(True)

    @property
    def global_names(self) -> GlobalNames:
        """The names that the whole cluster knows, as OTP's `global` has them.

        Raises RouterError for a hidden node: it takes no part in `global`.
        """
        if self._global is None:
            raise RouterError(
                f"{self._full_name}: only a visible node that runs takes part in global; "
                "Node(..., hidden=False)"
            )
        return self._global

    def pg(self, scope: str = "pg") -> ProcessGroups:
        """The process groups of a scope, as OTP's `pg` has them; the same object each time.

        The first call starts the scope on the running loop, as a process registered under
        its name. Raises NameTaken when something else has that name.
        """
        found = self._scopes.get(scope)
        if found is not None and found.stale:
            found.close()
            found = None
        if found is None:
            found = self._scopes[scope] = ProcessGroups(self, scope, self._codec)
        return found

    def _multicaster(self) -> Multicaster:
        if self._casting is None or self._casting.closed:
            self._casting = Multicaster(self, self._config["limits"]["multicast_bytes_max"])
        self._casting.attend()
        return self._casting

    # looking in ---------------------------------------------------------------------------

    def stats(self) -> Any:
        """One row for each peer known, as a numpy structured array.

        Fields: peer (name), up, messages_in, messages_out, bytes_in, bytes_out,
        queued_bytes, dropped_in (nobody there, or a full box), dropped_out (lost
        with a connection), refused (BufferFull), connects, failures, round_trip
        (seconds, as the kernel estimates it), idle (seconds since it was heard),
        age (seconds connected).
        """
        import numpy as np

        rows = [(row[0], row[1] == 2, *row[2:]) for row in self._stats()]
        return np.array(rows, dtype=np.dtype(_STATS_FIELDS))


_STATS_FIELDS = [
    ("peer", "O"),
    ("up", "?"),
    ("messages_in", "u8"),
    ("messages_out", "u8"),
    ("bytes_in", "u8"),
    ("bytes_out", "u8"),
    ("queued_bytes", "u8"),
    ("dropped_in", "u8"),
    ("dropped_out", "u8"),
    ("refused", "u8"),
    ("connects", "u8"),
    ("failures", "u8"),
    ("round_trip", "f8"),
    ("idle", "f8"),
    ("age", "f8"),
]
