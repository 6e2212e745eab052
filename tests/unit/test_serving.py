"""Serving: calls, casts, deferred answers, failures, and what Erlang's tools ask."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from router import (
    NO_REPLY,
    Atom,
    Caller,
    CallTimeout,
    ExitSignal,
    GenServer,
    ImproperList,
    Mailbox,
    NameTaken,
    Node,
    NoProcess,
    Pid,
    RemoteError,
    RouterError,
)

from .conftest import Pair, new_name

SYSTEM = Atom("system")


async def ask(box: Mailbox, server: Pid, request: Any) -> Any:
    """What a process of Erlang's sys module would."""
    ref = box.node.reference()
    box.node.send(server, (SYSTEM, (box.pid, ref), request), sender=box)
    tag, answer = await box.receive(10)
    assert tag == ref
    return answer


class Stock(GenServer):
    def __init__(self, **counts: int) -> None:
        self.counts = counts
        self.seen: list[Any] = []
        self.ended: list[Any] = []

    def handle_call(self, request: Any, caller: Caller) -> Any:
        match request:
            case ("take", bytes(item), int(count)):
                self.counts[item.decode()] -= count
                return (Atom("ok"), self.counts[item.decode()])
            case "later":
                self.seen.append(caller)
                return NO_REPLY
            case ("stop", reason):
                raise ExitSignal(reason)
            case "who":
                return caller.pid
        raise ValueError(f"what is {request!r}?")

    async def handle_cast(self, request: Any) -> None:
        await asyncio.sleep(0)
        self.seen.append(request)

    def handle_info(self, message: Any) -> None:
        self.seen.append(message)

    async def terminate(self, reason: Any) -> None:
        await asyncio.sleep(0)
        self.ended.append(reason)


@pytest.mark.parametrize("far", [False, True])
async def test_a_function_answers(pair: Pair, loop_kind: str, far: bool) -> None:
    async with pair() as (a, b):
        caller_node = b if far else a
        seen: list[Any] = []

        def plain(request: Any, caller: Caller | None) -> Any:
            seen.append((request, caller))
            return ("plain", request)

        async def coroutine(request: Any, caller: Caller | None) -> Any:
            await asyncio.sleep(0)
            return ("coroutine", request)

        server = a.serve("plain", plain)
        anonymous = a.serve(None, coroutine)
        assert await caller_node.call(("plain", a.name), 1) == (b"plain", 1)
        assert await caller_node.call(server.pid, 2) == (b"plain", 2)
        assert await caller_node.call(anonymous.pid, 3) == (b"coroutine", 3)
        caller_node.cast(("plain", a.name), 4)
        assert await caller_node.call(server.pid, 5) == (b"plain", 5)
        assert [request for request, _ in seen] == [1, 2, 4, 5]
        assert seen[2] == (4, None) and seen[0][1].pid.node == caller_node.name
        assert server.name == "plain" and anonymous.name is None


@pytest.mark.parametrize("far", [False, True])
async def test_a_handler_that_raises_ends_that_call_alone(pair: Pair, far: bool) -> None:
    async with pair() as (a, b):
        node = b if far else a

        async def handler(request: Any, caller: Caller | None) -> Any:
            return 10 // request

        server = a.serve("divide", handler)
        watcher = node.mailbox()
        ref = watcher.monitor(server.pid)
        with pytest.raises(RemoteError) as caught:
            await node.call(("divide", a.name), 0, timeout=30)
        kind, name, message, trace = caught.value.reason
        assert (kind, name) == ("python_error", b"ZeroDivisionError")
        assert b"division" in message and b"handler" in trace[-1]
        node.cast(server.pid, 0)
        assert await node.call(server.pid, 5) == 2
        server.close("later")
        assert await watcher.receive(10) == (
            Atom("DOWN"), ref, Atom("process"), server.pid, Atom("later"),
        )  # fmt: skip
        assert await server.wait() == "later"


async def test_an_answer_may_come_later_from_any_thread(pair: Pair) -> None:
    async with pair() as (a, b):
        stock = Stock()
        a.serve("stock", stock)
        calls = [asyncio.create_task(b.call(("stock", a.name), Atom("later"))) for _ in range(3)]
        while len(stock.seen) < 3:
            await asyncio.sleep(0)
        first, second, third = stock.seen
        assert not first.done and repr(first).startswith("<Caller #Pid<")
        thread = threading.Thread(target=first.reply, args=("from a thread",))
        thread.start()
        thread.join()
        second.fail(Atom("busy"))
        third.reply(3)
        assert first.done and second.done
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert found[0] == b"from a thread" and found[2] == 3
        assert isinstance(found[1], RemoteError) and found[1].reason == "busy"
        for again in (first.reply, second.fail):
            with pytest.raises(RuntimeError, match="once"):
                again(1)


async def test_an_answer_after_the_caller_gave_up_reaches_nobody(pair: Pair) -> None:
    async with pair() as (a, b):
        stock = Stock(apple=3)
        server = a.serve("stock", stock)
        with pytest.raises(CallTimeout):
            await b.call(server.pid, Atom("later"), timeout=0.05)
        (caller,) = stock.seen
        caller.reply("too late")
        assert await b.call(server.pid, (Atom("take"), "apple", 1)) == ("ok", 2)


async def test_state_casts_and_other_messages(pair: Pair) -> None:
    async with pair() as (a, b):
        stock = Stock(apple=10)
        server = a.serve("stock", stock)
        server.box.monitor(("nobody", a.name))
        for i in range(5):
            b.cast(server.pid, i)
        b.send(server.pid, ("plain", 1))
        assert await b.call(server.pid, (Atom("take"), "apple", 4)) == ("ok", 6)
        assert stock.seen[-6:] == [0, 1, 2, 3, 4, (b"plain", 1)]
        assert stock.seen[0][0] == "DOWN" and stock.seen[0][4] == "noproc"
        assert stock.ended == []
        server.close()
        server.close()
        assert await server.wait() == "normal"
        assert stock.ended == ["normal"]
        with pytest.raises(NoProcess):
            await b.call(("stock", a.name), 1)


async def test_a_gen_server_that_raises_ends(pair: Pair) -> None:
    async with pair() as (a, b):
        stock = Stock()
        server = a.serve("stock", stock)
        with pytest.raises(RemoteError) as caught:
            await b.call(server.pid, 1, timeout=30)
        assert caught.value.reason[:3] == (Atom("python_error"), b"ValueError", b"what is 1?")
        assert (await server.wait())[1] == b"ValueError"
        assert stock.ended[0][1] == b"ValueError"
        with pytest.raises(NoProcess):
            await b.call(("stock", a.name), 1)
        again = Stock()
        server = a.serve("stock", again)  # the name is free
        with pytest.raises(RemoteError) as caught:
            await b.call(server.pid, (Atom("stop"), Atom("enough")))
        assert caught.value.reason == "enough" and await server.wait() == "enough"
        with pytest.raises(ValueError, match="serves already"):
            a.serve("stock", again)


async def test_an_exit_signal_ends_it(pair: Pair) -> None:
    async with pair() as (a, b):
        stock, trapping = Stock(), Stock()
        server, other = a.serve("stock", stock), a.serve("trapping", trapping)
        other.box.trap_exit = True
        killer = b.mailbox()
        killer.exit(server.pid, "enough")
        assert await server.wait() == "enough" and stock.ended == ["enough"]
        killer.exit(other.pid, "enough")
        assert await b.call(other.pid, Atom("who")) != killer.pid
        assert trapping.seen == [("EXIT", killer.pid, "enough")]


async def test_calls_at_once(pair: Pair) -> None:
    async with pair() as (a, b):
        running, most, go = 0, 0, asyncio.Event()

        async def handler(request: Any, caller: Caller | None) -> Any:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await go.wait()
            running -= 1
            return request

        for concurrency in (1, 3):
            most = 0
            go.clear()
            server = a.serve(None, handler, concurrency=concurrency)
            calls = [asyncio.create_task(b.call(server.pid, i)) for i in range(10)]
            while running < concurrency:
                await asyncio.sleep(0)
            go.set()
            assert await asyncio.gather(*calls) == list(range(10))
            assert most == concurrency
            server.close()
            await server.wait()


async def test_an_exception_among_calls_at_once_ends_a_gen_server(pair: Pair) -> None:
    async with pair() as (a, b):
        stock = Stock()
        server = a.serve(None, stock, concurrency=2)
        with pytest.raises(RemoteError) as caught:
            await b.call(server.pid, 1, timeout=30)
        assert caught.value.reason[1] == b"ValueError"
        assert (await server.wait())[1] == b"ValueError" and len(stock.ended) == 1


async def test_an_answer_that_is_no_term(pair: Pair) -> None:
    async with pair() as (a, b):
        server = a.serve("odd", lambda request, caller: object() if request == 1 else request)
        with pytest.raises(RemoteError) as caught:
            await b.call(server.pid, 1, timeout=30)
        assert caught.value.reason[:2] == (Atom("python_error"), b"EncodeError")
        assert await b.call(server.pid, 2) == 2


async def test_what_sys_asks(pair: Pair) -> None:
    async with pair() as (a, b):
        stock = Stock(apple=1)
        server = a.serve("stock", stock)
        box = b.mailbox()
        state = await ask(box, server.pid, Atom("get_state"))
        assert state == ("ok", {"counts": {b"apple": 1}, "seen": [], "ended": []})
        kind, pid, module, (words, running, parent, debug, misc) = await ask(
            box, server.pid, Atom("get_status")
        )
        assert (kind, pid, running, debug) == ("status", server.pid, "running", [])
        assert module[0] == "module" and module[1].endswith("test_serving.Stock")
        assert parent == server.pid and words[0][0] == "$initial_call" and len(misc) == 3
        assert await ask(box, server.pid, Atom("nonsense")) == (
            "error", ("unknown_system_msg", "nonsense"),
        )  # fmt: skip
        assert await ask(box, server.pid, Atom("suspend")) == "ok"
        b.cast(server.pid, 1)
        held = asyncio.create_task(b.call(server.pid, Atom("who")))
        status = await ask(box, server.pid, Atom("get_status"))
        assert status[3][1] == "suspended"
        assert stock.seen == [] and not held.done()
        assert await ask(box, server.pid, Atom("resume")) == "ok"
        assert isinstance(await held, Pid)
        assert stock.seen == [1]
        stock.counts = {"odd": object()}  # type: ignore[dict-item]
        ok, shown = await ask(box, server.pid, Atom("get_state"))
        assert ok == "ok" and b"object at" in shown
        assert await ask(box, server.pid, (Atom("terminate"), Atom("done"))) == "ok"
        assert await server.wait() == "done" and stock.ended == ["done"]


async def test_tags_of_every_kind(pair: Pair) -> None:
    """gen:reply of OTP: to the alias in the tag, else to the pid."""
    async with pair() as (a, b):
        server = a.serve("echo", lambda request, caller: request)
        box = b.mailbox()
        for make in ("ref", "alias", "nested"):
            ref = box.alias() if make != "ref" else b.reference()
            alias = ImproperList([Atom("alias")], ref)
            tag = {"ref": ref, "alias": alias, "nested": ImproperList([alias], Atom("label"))}[make]
            b.send(server.pid, (Atom("$gen_call"), (box.pid, tag), make))
            assert await box.receive(10) == (tag, make.encode())


async def test_the_node_stops_them_first(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router._life._PROCESSES_SECONDS", 0.2)
    stock, begun, cancelled = Stock(), asyncio.Event(), []

    async def stuck(request: Any, caller: Caller | None) -> Any:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(request)
            raise

    async with Node(new_name(), **options) as node:
        first, second = node.serve("stock", stock), node.serve("stuck", stuck)
        call = asyncio.create_task(node.call(second.pid, 1))
        await begun.wait()
        await node.stop()
        assert stock.ended == ["shutdown"] and cancelled == [1]
    assert await first.wait() == "shutdown" and await second.wait() == "shutdown"
    with pytest.raises(RouterError):
        await call


async def test_a_handler_may_stop_its_node(options: dict[str, Any]) -> None:
    node = Node(new_name(), **options)
    await node.start()

    async def handler(request: Any, caller: Caller | None) -> Any:
        await node.stop()
        return 1

    server = node.serve("stopper", handler)
    node.cast("stopper", 1)
    assert await server.wait() == "shutdown"
    assert not node.running


async def test_a_handler_that_waits_is_ended_with_its_process(pair: Pair) -> None:
    async with pair() as (a, b):
        for concurrency in (1, 2):
            begun, cancelled = asyncio.Event(), []

            async def stuck(
                request: Any,
                caller: Caller | None,
                begun: asyncio.Event = begun,
                cancelled: list[Any] = cancelled,
            ) -> Any:
                begun.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    cancelled.append(request)

            server = a.serve("stuck", stuck, concurrency=concurrency)
            calls = [asyncio.create_task(b.call(server.pid, i)) for i in range(4)]
            await begun.wait()
            killer = b.mailbox()
            killer.exit(server.pid, "kill")
            async with asyncio.timeout(10):
                assert await server.wait() == "killed"
            assert sorted(cancelled) == list(range(concurrency))
            for call in calls:
                with pytest.raises((RemoteError, NoProcess)):
                    await call
            assert server not in a._servers


async def test_terminate_is_not_cut_short(pair: Pair) -> None:
    async with pair() as (a, b):
        stock, go, told = Stock(), asyncio.Event(), a.mailbox()

        async def terminate(reason: Any) -> None:
            stock.ended.append("begun")
            await go.wait()
            stock.ended.append(reason)

        stock.terminate = terminate  # type: ignore[method-assign]
        server = a.serve("stock", stock)
        ref = told.monitor(server.pid)  # later than the one that watches for its task
        with pytest.raises(RemoteError):
            await b.call(server.pid, 1)
        assert (await told.receive(10))[1] == ref
        go.set()
        async with asyncio.timeout(10):
            await server.wait()
        assert len(stock.ended) == 2


async def test_something_else_that_was_cancelled(pair: Pair) -> None:
    async with pair() as (a, b):

        async def handler(request: Any, caller: Caller | None) -> Any:
            if request != 1:
                return request
            task = asyncio.create_task(asyncio.Event().wait())
            task.cancel()
            await task

        server = a.serve("x", handler)
        with pytest.raises(RemoteError) as caught:
            await b.call(server.pid, 1)
        assert caught.value.reason[1] == b"CancelledError"
        assert await b.call(server.pid, 2) == 2


async def test_what_waits_when_it_ends_is_gone(pair: Pair) -> None:
    async with pair() as (a, _):
        seen: list[Any] = []
        server = a.serve("x", lambda request, caller: seen.append(request))
        for i in range(10):
            a.cast(server.pid, i)
        server.close()
        assert await server.wait() == "normal" and seen == []


async def test_a_state_that_cannot_be_shown(pair: Pair) -> None:
    class Odd(GenServer):
        def state(self) -> Any:
            raise ValueError("no state")

    async with pair() as (a, b):
        server = a.serve("odd", Odd())
        ok, shown = await ask(b.mailbox(), server.pid, Atom("get_state"))
        assert ok == "ok" and shown[:3] == ("python_error", b"ValueError", b"no state")


async def test_it_is_a_context_and_has_limits(pair: Pair) -> None:
    async with pair() as (a, b):
        async with a.serve("small", Stock(), limit=2, overflow="drop") as server:
            assert isinstance(await b.call(server.pid, Atom("who")), Pid)
        assert server.box.closed


async def test_bad_arguments_are_told(pair: Pair) -> None:
    async with pair() as (a, _):
        a.serve("taken", lambda request, caller: 1)
        with pytest.raises(NameTaken):
            a.serve("taken", Stock())
        for handler, message in ((1, "not int"), (Stock, "not its class")):
            with pytest.raises(TypeError, match=message):
                a.serve("x", handler)  # type: ignore[arg-type]
        for concurrency in (0, 1.5, "2"):
            with pytest.raises(ValueError, match="concurrency"):
                a.serve("x", Stock(), concurrency=concurrency)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="overflow"):
            a.serve("x", Stock(), limit=3)
        assert len(a._servers) == 1
        caught: list[BaseException] = []

        def without_a_loop() -> None:
            try:
                a.serve("x", Stock())
            except RuntimeError as e:
                caught.append(e)

        await asyncio.to_thread(without_a_loop)
        assert len(caught) == 1


async def test_what_a_gen_server_has_no_handler_for(pair: Pair) -> None:
    async with pair() as (a, b):
        server = a.serve(None, GenServer())
        b.send(server.pid, "is logged")
        b.cast(server.pid, "ends it")
        reason = await server.wait()
        assert reason[1] == b"RouterError" and b"takes no casts" in reason[2]
