"""Python serves, Erlang and Elixir call: gen_server, gen_statem, sys, GenServer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from interop.erlang import ElixirNode, ErlangNode, Nodes
from interop.talk import eventually
from router import NO_REPLY, Atom, Caller, Child, ExitSignal, GenServer, Mailbox, Node

SOON = 15.0


class Counter(GenServer):
    def __init__(self) -> None:
        self.count = 0
        self.seen: list[Any] = []
        self.ended: list[Any] = []

    async def handle_call(self, request: Any, caller: Caller) -> Any:
        match request:
            case "get":
                return self.count
            case "later":
                asyncio.get_running_loop().call_later(0.05, caller.reply, Atom("late"))
                return NO_REPLY
            case ("stop", reason):
                raise ExitSignal(reason)
        return 1 // 0

    def handle_cast(self, request: Any) -> None:
        self.count += request

    def handle_info(self, message: Any) -> None:
        self.seen.append(message)

    def terminate(self, reason: Any) -> None:
        self.ended.append(reason)


async def handler(request: Any, caller: Caller | None) -> Any:
    match request:
        case ("double", x):
            return (Atom("ok"), x * 2)
        case "boom":
            raise ValueError("no such model")
    return request


async def test_gen_server_calls(talker: ErlangNode, name: str) -> None:
    async with Node(name) as node:
        node.serve("model", handler)
        where = {"Server": (Atom("model"), Atom(name))}
        for source, wanted in (
            ("gen_server:call(Server, {double, 21})", "{ok,42}"),
            ("gen_server:call(Server, {double, 1.5}, infinity)", "{ok,3.0}"),
            ("catch gen_server:call(Server, boom, 10000)", None),
            ("gen_server:call(Server, still_there)", "still_there"),
            ("gen_statem:call(Server, statem)", "statem"),
            ("gen_statem:call(Server, statem, {clean_timeout, 5000})", "statem"),
            ("gen_server:receive_response(gen_server:send_request(Server, r), 5000)", "{reply,r}"),
            ("element(1, gen_server:multi_call([element(2, Server)], model, m, 5000))",
             f"[{{'{name}',m}}]"),
        ):  # fmt: skip
            found = await asyncio.to_thread(talker.text, source, **where)
            if wanted is not None:
                assert found == wanted, source
            else:
                assert found.startswith(
                    '{\'EXIT\',{{python_error,<<"ValueError">>,<<"no such model">>'
                )
                assert "{gen_server,call," in found


async def test_a_gen_server_with_state(talker: ErlangNode, name: str) -> None:
    async with Node(name) as node:
        counter = Counter()
        server = node.serve("counter", counter)
        where = {"S": (Atom("counter"), Atom(name)), "Pid": server.pid}

        async def says(source: str) -> str:
            return await asyncio.to_thread(talker.text, source, **where)

        assert (
            await says("[gen_server:cast(S, N) || N <- [1, 2, 3]], gen_server:call(S, get)") == "6"
        )
        assert await says("gen_server:call(Pid, later)") == "late"
        assert await says("Pid ! hello, gen_server:call(Pid, get)") == "6"
        assert counter.seen == ["hello"]
        ref = await says(
            "R = monitor(process, Pid), catch gen_server:call(S, crash), "
            "receive {'DOWN', R, process, Pid, {python_error, N, T, _}} -> {N, T} end"
        )
        assert ref.startswith('{<<"ZeroDivisionError">>,<<"integer')
        assert counter.ended[0][1] == b"ZeroDivisionError"
        assert (await says("catch gen_server:call(S, get)")).startswith("{'EXIT',{noproc,")
        node.serve("counter", Counter())
        assert await says("catch gen_server:call(S, {stop, enough})") == (
            f"{{'EXIT',{{enough,{{gen_server,call,[{{counter,'{name}'}},{{stop,enough}}]}}}}}}"
        )


async def test_erlangs_tools_look_in(talker: ErlangNode, name: str) -> None:
    async with Node(name) as node:
        counter = Counter()
        server = node.serve("counter", counter)
        where = {"S": (Atom("counter"), Atom(name)), "Pid": server.pid}

        async def says(source: str) -> str:
            return await asyncio.to_thread(talker.text, source, **where)

        state = "[{count,0},{ended,[]},{seen,[]}]"
        assert await says("lists:sort(maps:to_list(sys:get_state(S)))") == state
        assert await says("{status, Pid, {module, M}, [_, running, Pid, [], _]} = "
                          "sys:get_status(S), M") == f"'{__name__}.Counter'"  # fmt: skip
        assert await says(
            "ok = sys:suspend(S), gen_server:cast(S, 7), "
            "{_, _, _, [_, W | _]} = sys:get_status(S), {W, maps:get(count, sys:get_state(S))}"
        ) == "{suspended,0}"  # fmt: skip
        assert await says("ok = sys:resume(S), gen_server:call(S, get)") == "7"
        assert "unknown_system_msg" in await says("catch sys:replace_state(S, fun(X) -> X end)")
        assert await says("gen_server:stop(S)") == "ok"
        assert await server.wait() == "normal" and counter.ended == ["normal"]


async def test_a_caller_that_is_killed_costs_nothing(talker: ErlangNode, name: str) -> None:
    async with Node(name) as node:
        server = node.serve("model", handler)
        await asyncio.to_thread(
            talker.text,
            "P = spawn(fun() -> gen_server:call(S, later) end), exit(P, kill), "
            "gen_server:call(S, {double, 1})",
            S=(Atom("model"), Atom(name)),
        )
        assert not server.box.closed


@pytest.fixture
def iex(elixir: Nodes) -> ElixirNode:
    node = elixir("phoenix")
    assert isinstance(node, ElixirNode)
    return node


async def test_elixir_calls(iex: ElixirNode, name: str) -> None:
    async with Node(name) as node:
        node.serve("model", handler)
        counter = Counter()
        node.serve("counter", counter)

        async def says(source: str) -> Any:
            return await asyncio.to_thread(iex.elixir, source)

        model, count = f'{{:model, :"{name}"}}', f'{{:counter, :"{name}"}}'
        assert await says(f"GenServer.call({model}, {{:double, 4}}, 5_000)") == ("ok", 8)
        found = await says(
            f"try do GenServer.call({model}, :boom) catch :exit, {{reason, _}} -> reason end"
        )
        assert found[:3] == ("python_error", b"ValueError", b"no such model")
        assert await says(f"GenServer.cast({count}, 5); GenServer.call({count}, :get)") == 5
        assert await says(f"GenServer.stop({count}, :shutdown)") == "ok"
        assert counter.ended == ["shutdown"]
        assert await says(
            f"Task.async_stream(1..50, &GenServer.call({model}, {{:double, &1}}))"
            " |> Enum.map(fn {:ok, {:ok, x}} -> x end) |> Enum.sum()"
        ) == 2550  # fmt: skip


async def test_erlang_looks_at_a_supervisor(talker: ErlangNode, name: str) -> None:
    async with Node(name) as node:

        async def work(box: Mailbox) -> None:
            async for term in box:
                raise RuntimeError(term)

        children = [Child(word, lambda: node.spawn(work)) for word in ("first", "second")]
        supervisor = await node.supervise(children, name="sup", intensity=5)
        await node.connect(talker.name)
        before = supervisor.children()
        said = await talker.aeval("supervisor:which_children({sup, N})", N=Atom(name))
        assert said == [
            (Atom(word), before[word], Atom("worker"), []) for word in ("second", "first")
        ]
        said = await talker.aeval("lists:sort(supervisor:count_children({sup, N}))", N=Atom(name))
        assert said == [("active", 2), ("specs", 2), ("supervisors", 0), ("workers", 2)]
        # A child that Erlang kills is there again.
        await talker.aeval("exit(P, kill)", P=before["first"])
        await eventually(lambda: supervisor.children()["first"] not in (None, before["first"]))
        gone = await talker.aeval(
            "R = erlang:monitor(process, {sup, N}), exit(P, kill), "
            "receive {'DOWN', R, process, _, W} -> W after 20000 -> none end",
            N=Atom(name),
            P=supervisor.pid,
        )
        assert gone == "killed"
