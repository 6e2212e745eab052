"""Calls to real gen_servers and to erpc: answers, and every way to get none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from interop.erlang import ErlangNode, Nodes
from interop.talk import PATIENCE
from router import (
    Atom,
    CallTimeout,
    Node,
    NodeDown,
    NoProcess,
    Pid,
    RemoteError,
)

# Far more than any test here may take, so that a wait for the time-out shows as a failure.
LONG = 40.0
SOON = 15.0

HOLD, CASTS, WHO = Atom("hold"), Atom("casts"), Atom("who")
ECHO, CRASH, RELEASE = Atom("echo"), Atom("crash"), Atom("release")


@pytest.fixture
def soon() -> Iterator[None]:
    """Fails a test that waited for a time-out instead of an answer."""
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < SOON


@pytest.fixture
def server(talker: ErlangNode, name: str) -> tuple[str, str]:
    """(name, node) of a gen_server."""
    if talker.text("erlang:module_loaded(shop)") == "false":
        talker.load("shop.erl")
    talker.eval("shop:start(N)", N=Atom("shop " + name))
    return "shop " + name, talker.name


# gen_server


async def test_a_call(server: tuple[str, str], name: str) -> None:
    async with Node(name) as node:
        for term in [1, Atom("ok"), b"x" * 300_000, (ECHO, [{}, ()]), None]:
            assert await node.call(server, (ECHO, term)) == term
        caller = await node.call(server, WHO)
        assert isinstance(caller, Pid)
        assert caller.node == name
        assert await node.call((Atom(server[0]), Atom(server[1])), (ECHO, 1)) == 1


async def test_a_call_by_pid(talker: ErlangNode, server: tuple[str, str], name: str) -> None:
    async with Node(name) as node:
        pid = await talker.aeval("whereis(N)", N=Atom(server[0]))
        assert await node.call(pid, (ECHO, b"by pid")) == b"by pid"


async def test_1000_calls_at_once(server: tuple[str, str], name: str) -> None:
    async with Node(name) as node:
        answers = await asyncio.gather(
            *(node.call(server, (ECHO, i), PATIENCE) for i in range(1000))
        )
        assert answers == list(range(1000))
        assert not node._relation_count()


async def test_no_answer_in_time(server: tuple[str, str], name: str) -> None:
    """The answer that comes too late is for nobody: neither another call nor a mailbox gets it."""
    async with Node(name) as node:
        boxes = [node.mailbox() for _ in range(3)]
        begun = time.monotonic()
        with pytest.raises(CallTimeout, match="no answer within 0.3 s"):
            await node.call(server, HOLD, 0.3)
        assert 0.2 < time.monotonic() - begun < 5
        assert await node.call(server, (RELEASE, b"too late")) == 1
        for i in range(20):
            assert await node.call(server, (ECHO, i)) == i
        assert not any(box.waiting for box in boxes)
        assert node.stats()[0]["dropped_in"] == 1
        assert not node._relation_count()


async def test_a_cancelled_call_leaves_nothing(server: tuple[str, str], name: str) -> None:
    async with Node(name) as node:
        call = asyncio.create_task(node.call(server, HOLD, LONG))
        while not await node.call(server, (ECHO, True)):
            pass
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await node.call(server, (RELEASE, 1)) == 1
        assert await node.call(server, (ECHO, 2)) == 2
        assert not node._relation_count()


@pytest.mark.usefixtures("soon")
async def test_nobody_to_call(talker: ErlangNode, name: str) -> None:
    async with Node(name) as node:
        with pytest.raises(NoProcess, match="nobody"):
            await node.call(("nobody", talker.name), 1, LONG)
        dead = await talker.aeval(
            "{P, R} = spawn_monitor(fun() -> ok end), receive {'DOWN', R, _, _, _} -> P end"
        )
        with pytest.raises(NoProcess):
            await node.call(dead, 1, LONG)


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("reason", [Atom("bored"), (Atom("shutdown"), [1]), b"x" * 200_000])
async def test_the_server_ends_during_the_call(
    server: tuple[str, str], name: str, reason: object
) -> None:
    async with Node(name) as node:
        with pytest.raises(RemoteError) as caught:
            await node.call(server, (CRASH, reason), LONG)
        assert (caught.value.class_, caught.value.reason) == ("exit", reason)
        with pytest.raises(NoProcess):
            await node.call(server, 1, LONG)


@pytest.mark.usefixtures("soon")
async def test_the_node_ends_during_the_call(erlang: Nodes, name: str) -> None:
    erl = erlang("dies")
    erl.load("shop.erl")
    erl.eval("shop:start(shop)")
    async with Node(name) as node:
        assert await node.call(("shop", erl.name), (ECHO, 1)) == 1
        calls = [
            asyncio.create_task(node.call(("shop", erl.name), HOLD, LONG)),
            asyncio.create_task(node.rpc(erl.name, "timer", "sleep", [Atom("infinity")], LONG)),
        ]
        assert await node.call(("shop", erl.name), (ECHO, 2)) == 2
        erl.kill()
        for call in calls:
            with pytest.raises(NodeDown, match=erl.name):
                await call
        with pytest.raises(NodeDown):
            await node.call(("shop", erl.name), 1, LONG)
        with pytest.raises(NodeDown):
            await node.rpc(erl.name, "erlang", "node", [], LONG)
        assert not node._relation_count()


async def test_casts(server: tuple[str, str], name: str) -> None:
    async with Node(name) as node:
        for i in range(100):
            node.cast(server, i)
        # A cast and a call have different senders, so their order is nobody's promise.
        seen: list[int] = []
        while len(seen) < 100:
            seen = await node.call(server, CASTS)
        assert seen == list(range(100))
        node.cast(("nobody", server[1]), 1)
        assert await node.ping(server[1])


async def test_erlang_calls_us(talker: ErlangNode, name: str) -> None:
    """gen_server:call to a mailbox, answered by hand: the tag goes back as it came."""
    async with Node(name) as node:
        box = node.mailbox("shop")

        async def answers() -> None:
            while True:
                match await box.receive(PATIENCE):
                    case ("$gen_call", (Pid() as pid, tag), "silence"):
                        del pid, tag
                    case ("$gen_call", (Pid() as pid, tag), request):
                        node.send(pid, (tag, (Atom("answer"), request)), sender=box)

        serving = asyncio.create_task(answers())
        call = "try gen_server:call({shop, Node}, R, T) catch C:{Why, _} -> {C, Why} end"
        who = Atom(name)
        assert await talker.aeval(call, Node=who, R=b"question", T=20_000) == (
            "answer", b"question",
        )  # fmt: skip
        assert await talker.aeval(call, Node=who, R=Atom("silence"), T=50) == ("exit", "timeout")
        serving.cancel()
        asked = asyncio.create_task(
            talker.aeval(call, Node=who, R=Atom("silence"), T=Atom("infinity"))
        )
        await asyncio.wait([serving])
        while not box.waiting:
            await asyncio.sleep(0)
        box.close("bored")
        assert await asked == ("exit", "bored")
        assert await talker.aeval(call, Node=who, R=1, T=20_000) == ("exit", "noproc")
        assert not node._relation_count()


# erpc


async def test_rpc(server: tuple[str, str], name: str) -> None:
    node_name = server[1]
    async with Node(name) as node:
        assert await node.rpc(node_name, "erlang", "node", []) == node_name
        assert await node.rpc(node_name, "lists", "sum", [[1, 2, 3]]) == 6
        assert await node.rpc(node_name, "binary", "copy", [b"ab", 200_000]) == b"ab" * 200_000
        big = b"x" * 1_000_000
        assert await node.rpc(node_name, "erlang", "byte_size", [big]) == len(big)
        assert await asyncio.gather(
            *(node.rpc(node_name, "shop", "double", [i], PATIENCE) for i in range(200))
        ) == [2 * i for i in range(200)]
        assert not node._relation_count()


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("class_", ["error", "exit", "throw"])
async def test_rpc_that_fails(server: tuple[str, str], name: str, class_: str) -> None:
    async with Node(name) as node:
        with pytest.raises(RemoteError) as caught:
            await node.rpc(server[1], "shop", "raise", [Atom(class_), (Atom("why"), b"not")], LONG)
        assert (caught.value.class_, caught.value.reason) == (class_, ("why", b"not"))
        if class_ == "error":
            assert isinstance(caught.value.stacktrace, list)


@pytest.mark.usefixtures("soon")
async def test_rpc_of_what_is_not_there(server: tuple[str, str], name: str) -> None:
    async with Node(name) as node:
        with pytest.raises(RemoteError) as caught:
            await node.rpc(server[1], "no_module", "f", [1], LONG)
        assert (caught.value.class_, caught.value.reason) == ("error", "undef")
        assert caught.value.stacktrace[0][:3] == ("no_module", "f", [1])
        with pytest.raises(RemoteError, match="badarith"):
            await node.rpc(server[1], "shop", "double", [Atom("a")], LONG)
        with pytest.raises(NodeDown, match="nobody"):
            await node.rpc("nobody@127.0.0.1", "erlang", "node", [], LONG)


@pytest.mark.usefixtures("soon")
async def test_rpc_whose_process_is_killed(
    talker: ErlangNode, server: tuple[str, str], name: str
) -> None:
    async with Node(name) as node:
        box = node.mailbox()
        call = asyncio.create_task(node.rpc(server[1], "shop", "wait", [box.pid], LONG))
        pid = await box.receive(PATIENCE)
        box.exit(pid, "kill")
        with pytest.raises(RemoteError) as caught:
            await call
        assert (caught.value.class_, caught.value.reason) == ("exit", "killed")
        assert await talker.aeval("is_process_alive(P)", P=pid) is False


async def test_rpc_without_an_answer_in_time(server: tuple[str, str], name: str) -> None:
    async with Node(name) as node:
        with pytest.raises(CallTimeout):
            await node.rpc(server[1], "timer", "sleep", [400], 0.2)
        # Its end comes and is for nobody.
        await node.rpc(server[1], "timer", "sleep", [400])
        assert await node.rpc(server[1], "erlang", "node", []) == server[1]
        assert not node._relation_count()


# From threads


@pytest.mark.usefixtures("soon")
def test_calls_without_a_loop(server: tuple[str, str], name: str) -> None:
    with Node(name) as node:
        assert node.call_sync(server, (ECHO, 1)) == 1
        assert node.rpc_sync(server[1], "shop", "double", [21]) == 42
        with pytest.raises(CallTimeout):
            node.call_sync(server, HOLD, 0.1)
        with pytest.raises(CallTimeout):
            node.rpc_sync(server[1], "timer", "sleep", [Atom("infinity")], 0.1)
        with pytest.raises(NoProcess):
            node.call_sync(("nobody", server[1]), 1, LONG)
        with pytest.raises(RemoteError, match="undef"):
            node.rpc_sync(server[1], "no_module", "f", [], LONG)
        with pytest.raises(NodeDown):
            node.rpc_sync("nobody@127.0.0.1", "erlang", "node", [], LONG)
        with pytest.raises(RemoteError, match="bored"):
            node.call_sync(server, (CRASH, Atom("bored")), LONG)
        assert not node._relation_count()


async def test_threads_and_a_loop_call_together(server: tuple[str, str], name: str) -> None:
    async with Node(name) as node:

        def in_a_thread(who: int) -> list[object]:
            return [node.call_sync(server, (ECHO, (who, i)), PATIENCE) for i in range(50)]

        async def on_the_loop(who: int) -> list[object]:
            return [await node.call(server, (ECHO, (who, i)), PATIENCE) for i in range(50)]

        results = await asyncio.gather(
            *(asyncio.to_thread(in_a_thread, who) for who in range(4)),
            *(on_the_loop(who) for who in range(4, 8)),
        )
        assert results == [[(who, i) for i in range(50)] for who in range(8)]
        assert not node._relation_count()
