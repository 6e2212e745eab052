"""Erlang calls Python functions: erpc, rpc, spawn and its kin; and nothing that is not exposed."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import pytest

from interop.erlang import ErlangNode, Nodes
from interop.talk import PATIENCE, eventually
from router import Atom, ExitSignal, Node

OK = Atom("ok")


def add(x: Any, y: Any) -> Any:
    return x + y


async def slow(millis: int) -> Any:
    await asyncio.sleep(millis / 1000)
    return (OK, millis)


def fails(text: bytes) -> None:
    raise KeyError(text.decode())


def exits(reason: Any) -> None:
    raise ExitSignal(reason)


class Python:
    """A node with functions, and a peer that says what its evaluations gave."""

    def __init__(self, node: Node, peer: ErlangNode) -> None:
        self.node, self.peer = node, peer
        self.casts: list[Any] = []
        for function in (add, slow, fails, exits):
            node.expose("math", function.__name__, function)
        node.expose("math", "note", self.casts.append)

    async def says(self, source: str) -> str:
        return await asyncio.to_thread(self.peer.text, source, N=Atom(self.node.name))


async def test_erpc_and_rpc(talker: ErlangNode, name: str) -> None:
    async with Node(name) as node:
        python = Python(node, talker)
        for source, wanted in (
            ("erpc:call(N, math, add, [1, 2])", "3"),
            ("erpc:call(N, math, slow, [5], 10000)", "{ok,5}"),
            ("rpc:call(N, math, add, [1.5, 2])", "3.5"),
            ("erpc:multicall([N, N], math, add, [20, 22])", "[{ok,42},{ok,42}]"),
            ("rpc:multicall([N], math, add, [20, 1000])", "{[1020],[]}"),
            ("erpc:receive_response(erpc:send_request(N, math, add, [3, 4]))", "7"),
            ("rpc:yield(rpc:async_call(N, math, add, [3, 4]))", "7"),
            ("try erpc:call(N, math, exits, [enough]) catch exit:E -> E end", "{exception,enough}"),
            ("try erpc:call(N, os, cmd, [\"id\"]) catch error:{exception, R, _} -> R end", "undef"),
            ("try erpc:call(N, math, add, [1]) catch error:{exception, R, _} -> element(2, R) end",
             '<<"TypeError">>'),
            ("element(1, element(2, element(2, rpc:call(N, os, cmd, [\"id\"]))))", "undef"),
        ):  # fmt: skip
            assert await python.says(source) == wanted, source
        assert await python.says(
            "try erpc:call(N, math, fails, [<<\"x\">>]) "
            "catch error:{exception, {python_error, E, T, [_ | _]}, S} -> {E, T, S} end"
        ) == '{<<"KeyError">>,<<"\'x\'">>,[{math,fails,1,[]}]}'  # fmt: skip
        assert node.refused_calls == 2


async def test_a_time_out_is_the_callers(talker: ErlangNode, name: str) -> None:
    async with Node(name) as node:
        python = Python(node, talker)
        begun = time.monotonic()
        assert await python.says(
            "try erpc:call(N, math, slow, [60000], 100) catch error:{erpc, R} -> R end"
        ) == "timeout"  # fmt: skip
        assert time.monotonic() - begun < 30
        assert await python.says("erpc:call(N, math, add, [1, 1])") == "2"


async def test_casts(talker: ErlangNode, name: str) -> None:
    async with Node(name) as node:
        python = Python(node, talker)
        assert await python.says("erpc:cast(N, math, note, [1]), rpc:cast(N, math, note, [2])") == (
            "true"
        )
        await eventually(lambda: sorted(python.casts) == [1, 2])
        assert await python.says('erpc:cast(N, os, cmd, ["id"])') == "ok"
        await eventually(lambda: node.refused_calls == 1)


async def test_spawns(talker: ErlangNode, name: str) -> None:
    async with Node(name) as node:
        python = Python(node, talker)
        waits = "receive {'DOWN', R, process, P, W} -> W after 20000 -> late end"
        for source, wanted in (
            ("{P, R} = spawn_monitor(N, math, add, [1, 2]), " + waits, "normal"),
            ("{P, R} = spawn_monitor(N, math, exits, [enough]), " + waits, "enough"),
            ("{P, R} = spawn_monitor(N, os, cmd, [\"id\"]), " + waits,
             '{undef,[{os,cmd,["id"],[]}]}'),
            ("P = spawn(N, math, slow, [60000]), R = monitor(process, P), exit(P, kill), " + waits,
             "killed"),
            ("process_flag(trap_exit, true), P = spawn_link(N, math, exits, [broken]), "
             "receive {'EXIT', P, W} -> W after 20000 -> late end", "broken"),
            ("Q = spawn_request(N, math, note, [1], [{reply, yes}]), "
             "receive {spawn_reply, Q, ok, P} -> is_pid(P) after 20000 -> late end", "true"),
            ("P = spawn(N, math, note, [2]), is_pid(P)", "true"),
        ):  # fmt: skip
            assert await python.says(source) == wanted, source
        await eventually(lambda: sorted(python.casts) == [1, 2])
        assert node.refused_calls == 1


async def test_nothing_is_exposed_by_itself(
    talker: ErlangNode, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Node(name) as node:
        source = 'try erpc:call(N, os, cmd, ["id"]) catch error:{erpc, R} -> R end'
        says = await asyncio.to_thread(talker.text, source, N=Atom(name))
        assert says == "notsup"
        node.expose("math", "add", add)
        with caplog.at_level(logging.WARNING, logger="router"):
            source = 'try erpc:call(N, os, cmd, ["id"]) catch error:{exception, R, _} -> R end'
            says = await asyncio.to_thread(talker.text, source, N=Atom(name))
        assert says == "undef" and node.refused_calls == 1
        assert "os:cmd, which is not exposed" in caplog.text


async def test_many_calls_and_a_peer_that_dies(erlang: Nodes, name: str) -> None:
    async with Node(name) as node:
        erl = erlang("caller")
        python = Python(node, erl)
        assert await python.says(
            "Rs = [erpc:send_request(N, math, add, [I, 1]) || I <- lists:seq(1, 500)], "
            "lists:sum([erpc:receive_response(R) || R <- Rs])"
        ) == str(sum(range(1, 501)) + 500)  # fmt: skip
        began = asyncio.Event()
        cancelled = asyncio.Event()

        async def waits() -> None:
            began.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        node.expose("math", "waits", waits)
        await asyncio.to_thread(erl.text, "spawn(fun() -> spawn_link(N, math, waits, []), "
                                "receive after infinity -> ok end end)", N=Atom(name))  # fmt: skip
        async with asyncio.timeout(PATIENCE):
            await began.wait()
        erl.kill()
        async with asyncio.timeout(PATIENCE):
            await cancelled.wait()  # its link tells noconnection
