"""Coroutines as processes. Exposed functions are called in tests/interop/test_exposing.py."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from router import Atom, ExitSignal, Mailbox, NameTaken, Node, RemoteError, RouterError

from .conftest import Pair, new_name


async def echo(box: Mailbox, *more: Any) -> None:
    async for sender, term in box:
        box.node.send(sender, (term, *more), sender=box)


async def down(box: Mailbox) -> Any:
    kind, _, _, _, reason = await box.receive(10)
    assert kind == "DOWN"
    return reason


async def test_a_coroutine_is_a_process(pair: Pair, loop_kind: str) -> None:
    async with pair() as (a, b):
        pid = a.spawn(echo, 1, 2, name="echo")
        box = b.mailbox()
        for dest in (pid, ("echo", a.name)):
            b.send(dest, (box.pid, "hello"))
            assert await box.receive(10) == (b"hello", 1, 2)
        with pytest.raises(NameTaken):
            a.spawn(echo, name="echo")


@pytest.mark.parametrize("far", [False, True])
async def test_how_it_ends_is_its_reason(pair: Pair, far: bool) -> None:
    async def returns(box: Mailbox) -> str:
        await box.receive()
        return "ignored"

    async def raises(box: Mailbox) -> None:
        await box.receive()
        raise ValueError("no")

    async def exits(box: Mailbox) -> None:
        await box.receive()
        raise ExitSignal(("enough", 1))

    async def odd(box: Mailbox) -> None:
        await box.receive()
        raise ExitSignal(object())

    async with pair() as (a, b):
        node = b if far else a
        box = node.mailbox()
        reasons = []
        for function in (returns, raises, exits, odd):
            pid = a.spawn(function)
            box.monitor(pid)
            node.send(pid, "go")
            reasons.append(await down(box))
        assert reasons[0] == "normal" and reasons[2] == (b"enough", 1)
        assert reasons[1][:3] == ("python_error", b"ValueError", b"no")
        assert reasons[3][:2] == ("python_error", b"EncodeError")


async def test_an_exit_signal_cancels_it(pair: Pair) -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def sleeps(box: Mailbox) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with pair() as (a, b):
        box = b.mailbox()
        pid = a.spawn(sleeps)
        box.monitor(pid)
        await begun.wait()
        box.exit(pid, Atom("enough"))
        assert await down(box) == "enough"
        async with asyncio.timeout(10):
            await cancelled.wait()


async def test_what_it_does_at_its_end_is_not_cancelled_too(pair: Pair) -> None:
    begun, ending, go, ended = asyncio.Event(), asyncio.Event(), asyncio.Event(), []

    async def process(box: Mailbox) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ending.set()
            await go.wait()
            ended.append(box.pid)

    async with pair() as (a, b):
        pid, box = a.spawn(process), b.mailbox()
        processes = a._processes_here()
        (task,) = processes.tasks()
        await begun.wait()
        task.cancel()  # as stopping the node does
        await ending.wait()
        box.exit(pid, "kill")
        while processes.tasks():  # until its end was told
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        go.set()
        await asyncio.wait([task])
        assert ended == [pid]


async def test_links(pair: Pair) -> None:
    async def fails(box: Mailbox) -> None:
        await box.receive()
        raise ExitSignal("broken")

    async with pair() as (a, b):
        for parent in (a.mailbox(), b.mailbox()):
            parent.trap_exit = True
            pid = a.spawn(fails, link=parent if parent.node is a else parent.pid)
            parent.node.send(pid, 1)
            assert await parent.receive(10) == ("EXIT", pid, "broken")


async def test_the_node_stops_them(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router._life._PROCESSES_SECONDS", 30.0)
    ended: list[str] = []

    async def waits(box: Mailbox, how: str) -> None:
        try:
            if how == "receives":
                await box.receive()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(how)

    async with Node(new_name(), **options) as node:
        for how in ("receives", "sleeps"):
            node.spawn(waits, how)
        await asyncio.sleep(0)
        async with asyncio.timeout(10):
            await node.stop()
    assert sorted(ended) == ["receives", "sleeps"]


async def test_bad_arguments_are_told(pair: Pair) -> None:
    async with pair() as (a, _):
        for function in (1, len, lambda box: None):
            with pytest.raises(TypeError, match="async def"):
                a.spawn(function)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="link"):
            a.spawn(echo, link="x")  # type: ignore[arg-type]
        for module, function in (("", "f"), ("m", "x" * 256), (1, "f")):
            with pytest.raises(TypeError, match="str of 1 to 255"):
                a.expose(module, function, len)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="callable"):
            a.expose("m", "f", 1)  # type: ignore[arg-type]


async def test_router_nodes_call_each_other(pair: Pair) -> None:
    """What node.rpc asks for, node.expose answers."""

    async def slow(x: int) -> int:
        await asyncio.sleep(0)
        return x * 2

    async with pair() as (a, b):
        with pytest.raises(RemoteError) as caught:
            await b.rpc(a.name, "math", "double", [1])
        assert caught.value.reason == ("erpc", "notsup")
        a.expose("math", "double", slow)
        a.expose("math", "divide", lambda x, y: x // y)
        assert await asyncio.gather(*(b.rpc(a.name, "math", "double", [i]) for i in range(50))) == [
            2 * i for i in range(50)
        ]
        assert await b.rpc(a.name, "math", "divide", [7, 2]) == 3
        with pytest.raises(RemoteError) as caught:
            await b.rpc(a.name, "math", "divide", [7, 0])
        assert caught.value.class_ == "error"
        assert caught.value.reason[:2] == ("python_error", b"ZeroDivisionError")
        with pytest.raises(RemoteError) as caught:
            await b.rpc(a.name, "os", "system", [b"true"])
        assert caught.value.reason == "undef" and a.refused_calls == 1
        a.expose("math", "double", None)
        with pytest.raises(RemoteError):
            await b.rpc(a.name, "math", "double", [1])
        assert a.refused_calls == 2


async def test_a_result_that_is_no_term(pair: Pair) -> None:
    async with pair() as (a, b):
        a.expose("m", "odd", object)
        with pytest.raises(RemoteError) as caught:
            await b.rpc(a.name, "m", "odd", [], timeout=30)
        assert caught.value.reason[:2] == ("python_error", b"EncodeError")


async def test_a_caller_that_gives_up_ends_nothing_else(pair: Pair) -> None:
    async with pair() as (a, b):
        go = asyncio.Event()

        async def waits() -> int:
            await go.wait()
            return 1

        a.expose("m", "waits", waits)
        with pytest.raises(RouterError):
            await b.rpc(a.name, "m", "waits", [], timeout=0.05)
        go.set()
        assert await b.rpc(a.name, "m", "waits", [], timeout=10) == 1


async def test_one_that_ends_before_it_began_leaves_nothing_unawaited(pair: Pair) -> None:
    """The function is called in the task: a coroutine that nobody awaits would be warned of."""
    began = []

    async def never(box: Mailbox) -> None:
        began.append(box)

    async with pair() as (a, b):
        await b.stop()  # now, so that the loop does not turn between the last line and a's end
        with a.mailbox() as box:
            box.exit(a.spawn(never), "kill")
        a.spawn(never)
    gc.collect()
    assert began == []
