"""Processes that Python starts on real nodes; and rpc as it was before erpc."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from interop.erlang import ErlangNode
from interop.talk import PATIENCE
from router import Atom, Node, NodeDown, Pid, RemoteError
from router._calls import RexCall


async def test_spawn_remote(talker: ErlangNode, name: str) -> None:
    async with Node(name) as node:
        await node.connect(talker.name)
        box = node.mailbox()
        pid = await node.spawn_remote(talker.name, "erlang", "send", [box.pid, Atom("hello")])
        assert isinstance(pid, Pid) and pid.node == talker.name
        assert await box.receive(PATIENCE) == "hello"
        ref = box.monitor(pid)
        match await box.receive(PATIENCE):
            case ("DOWN", r, "process", p, "noproc" | "normal"):
                assert r == ref and p == pid
            case other:
                raise AssertionError(other)
        # What is wrong with the function shows when it runs, as in Erlang.
        assert isinstance(await node.spawn_remote(talker.name, "no", "such", []), Pid)
        with pytest.raises(ValueError, match=r"node\.spawn"):
            await node.spawn_remote(node.name, "m", "f", [])
        with pytest.raises(NodeDown):
            await node.spawn_remote("nobody@127.0.0.1", "m", "f", [])


async def test_spawn_requests_with_link_and_monitor(talker: ErlangNode, name: str) -> None:
    async with Node(name) as node:
        await node.connect(talker.name)
        box = node.mailbox()
        box.trap_exit = True
        ref = box.spawn_request(talker.name, "erlang", "exit", [Atom("enough")], monitor=True)
        match await box.receive(PATIENCE):
            case ("spawn_reply", r, "ok", Pid() as pid) if r == ref:
                assert await box.receive(PATIENCE) == ("DOWN", ref, "process", pid, "enough")
            case other:
                raise AssertionError(other)
        ref = box.spawn_request(talker.name, "erlang", "exit", [Atom("gone")], link=True)
        match await box.receive(PATIENCE):
            case ("spawn_reply", r, "ok", Pid() as pid) if r == ref:
                assert await box.receive(PATIENCE) == ("EXIT", pid, "gone")
            case other:
                raise AssertionError(other)
        linked = await talker.aeval("spawn(fun() -> receive stop -> ok end end)")
        ref = box.spawn_request(
            talker.name, "erlang", "hibernate", [Atom("timer"), Atom("sleep"), [0]], link=True
        )
        assert linked.node == talker.name
        (_, _, _, sleeping) = await box.receive(PATIENCE)
        box.close("over")  # the linked process goes with it
        watcher = node.mailbox()
        watcher.monitor(sleeping)
        assert (await watcher.receive(PATIENCE))[4] in ("over", "noproc")


async def test_a_router_node_starts_only_what_it_exposes(name: str) -> None:
    async with Node(name) as node, Node("other-" + name) as other:
        await node.connect(other.name)
        with pytest.raises(RemoteError, match="notsup"):
            await node.spawn_remote(other.name, "m", "f", [])
        seen: list[Any] = []
        other.expose("m", "f", seen.append)
        pid = await node.spawn_remote(other.name, "m", "f", [5])
        box = node.mailbox()
        box.monitor(pid)
        await box.receive(PATIENCE)
        assert seen == [5]


async def test_rex_answers_as_rpc_call_does(talker: ErlangNode, name: str) -> None:
    async with Node(name) as node:
        await node.connect(talker.name)
        calls = node._caller()

        async def rex(module: str, function: str, args: list[Any]) -> Any:
            box = calls._box
            return await calls._run(
                lambda: RexCall(box, talker.name, module, function, args), PATIENCE
            )

        assert await rex("lists", "sum", [[1, 2, 3]]) == 6
        assert await rex("erlang", "throw", [Atom("ball")]) == "ball"  # rpc:call is like that
        for function, reason, class_ in (
            ("error", Atom("oops"), "error"),
            ("exit", Atom("bye"), "exit"),
        ):
            with pytest.raises(RemoteError) as caught:
                await rex("erlang", function, [reason])
            assert caught.value.class_ == class_ and caught.value.reason == reason
        with pytest.raises(RemoteError) as caught:
            await rex("no", "such", [])
        assert caught.value.reason == "undef"


async def test_a_peer_that_is_kept_comes_back(talker: ErlangNode, name: str) -> None:
    async with Node(name) as node:
        watcher = node.mailbox()
        node.monitor_nodes(watcher)
        kept = node.keep(talker.name)
        assert node.keep(talker.name) is kept
        for _ in range(3):
            async with asyncio.timeout(PATIENCE):
                while await watcher.receive() != ("nodeup", talker.name):
                    pass
            node.disconnect(talker.name)
        kept.close()
        assert kept.closed
