"""Links, monitors, exits and aliases between processes of router nodes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from router import Atom, ExitSignal, Mailbox, Node, NodeDown, NoProcess, RemoteError

from .conftest import Pair, new_name


async def test_down_with_the_reason(pair: Pair) -> None:
    async with pair() as (a, b):
        for watcher, target in ((a.mailbox(), b.mailbox("t1")), (a.mailbox(), a.mailbox("t2"))):
            by_pid = watcher.monitor(target.pid)
            by_name = watcher.monitor((target.name, target.node.name))
            while target.node is b and not b.nodes():
                await asyncio.sleep(0.001)
            if target.node is b:  # a round trip: the monitors have arrived
                await a.ping(b.name)
            target.close((Atom("done"), [1]))
            first, second = await watcher.receive(5), await watcher.receive(5)
            downs = {first[1]: first, second[1]: second}
            assert downs[by_pid] == ("DOWN", by_pid, "process", target.pid, ("done", [1]))
            assert downs[by_name][3] == (target.name, target.node.name)
            assert not watcher.demonitor(by_pid)


async def test_noproc(pair: Pair) -> None:
    async with pair() as (a, b):
        box, gone = a.mailbox(), b.mailbox()
        pid = gone.pid
        gone.close()
        for target in (pid, ("nobody", b.name), "nobody"):
            ref = box.monitor(target)
            assert (await box.receive(5))[1::3] == (ref, "noproc")


async def test_noconnection(pair: Pair) -> None:
    async with pair() as (a, b):
        box = a.mailbox()
        box.trap_exit = True
        other = b.mailbox()
        ref = box.monitor(other.pid)
        box.link(other.pid)
        await a.ping(b.name)
        a.disconnect(b.name)
        seen = [await box.receive(5), await box.receive(5)]
        assert ("EXIT", other.pid, "noconnection") in seen
        assert ("DOWN", ref, "process", other.pid, "noconnection") in seen
        ref = box.monitor(("x", "nobody@127.0.0.1"))
        assert (await box.receive(5))[1::3] == (ref, "noconnection")


async def test_demonitor(pair: Pair) -> None:
    async with pair() as (a, b):
        box, target, local = a.mailbox(), b.mailbox(), a.mailbox()
        for t in (target, local):
            ref = box.monitor(t.pid)
            assert box.demonitor(ref)
            assert not box.demonitor(ref)
            await a.ping(b.name)
            t.close("unseen")
        a.send(box.pid, "nothing before this")
        assert await box.receive(5) == b"nothing before this"


@pytest.mark.parametrize("remote", [True, False])
async def test_links(pair: Pair, remote: bool) -> None:
    async with pair() as (a, b):
        where = b if remote else a
        one, two = a.mailbox(), where.mailbox()
        one.link(two.pid)
        await a.ping(b.name)
        two.close("broken")
        with pytest.raises(ExitSignal) as e:
            await one.receive(5)
        assert e.value.reason == "broken"
        one, two = a.mailbox(), where.mailbox()
        one.trap_exit = True
        assert one.trap_exit
        one.link(two.pid)
        await a.ping(b.name)
        two.close()  # normal: told only to those who trap
        assert await one.receive(5) == ("EXIT", two.pid, "normal")
        two = where.mailbox()
        one.link(two.pid)
        one.unlink(two.pid)
        await a.ping(b.name)
        two.close("unseen")
        gone = two.pid
        one.link(gone)
        assert await one.receive(5) == ("EXIT", gone, "noproc")


@pytest.mark.parametrize("remote", [True, False])
async def test_exit_signals(pair: Pair, remote: bool) -> None:
    async with pair() as (a, b):
        where = b if remote else a
        killer = a.mailbox()

        async def ended(box: Mailbox) -> Any:
            with pytest.raises(ExitSignal) as e:
                await box.receive(5)
            return e.value.reason

        victim = where.mailbox()
        killer.exit(victim.pid, "normal")  # nothing happens
        killer.exit(victim.pid, (Atom("because"), 1))
        assert await ended(victim) == ("because", 1)
        victim = where.mailbox()
        victim.trap_exit = True
        killer.exit(victim.pid, "shutdown")
        assert await victim.receive(5) == ("EXIT", killer.pid, "shutdown")
        killer.exit(victim.pid, "kill")  # cannot be trapped
        assert await ended(victim) == "killed"
        killer.exit(victim.pid, "dead already")


async def test_a_long_ring_of_links_ends_without_recursion(pair: Pair) -> None:
    async with pair() as (a, _):
        boxes = [a.mailbox() for _ in range(5000)]
        for one, two in zip(boxes, boxes[1:] + boxes[:1], strict=True):
            one.link(two.pid)
        boxes[17].close("all of us")
        assert all(box.closed for box in boxes)
        assert a._relation_count() == 0
        with pytest.raises(ExitSignal, match="all of us"):
            await boxes[4000].receive(1)


async def test_a_dead_process_sends_no_signals(pair: Pair) -> None:
    async with pair() as (a, b):
        box, other = a.mailbox(), b.mailbox()
        box.close("gone")
        for use in (box.link, box.monitor):
            with pytest.raises(ExitSignal, match="gone"):
                use(other.pid)


async def test_monitor_nodes(pair: Pair) -> None:
    async with pair() as (a, b):
        box = a.mailbox()
        a.monitor_nodes(box)
        await a.connect(b.name)
        assert await box.receive(5) == ("nodeup", b.name)
        await b.stop()
        assert await box.receive(5) == ("nodedown", b.name)
        a.monitor_nodes(box, False)
    assert box.closed


CHILD = """
import asyncio, sys
from router import Node
async def main():
    async with Node(sys.argv[1], cookie="secret", epmd_port=int(sys.argv[2])) as node:
        box = node.mailbox("there")
        node.send(("ready", sys.argv[3]), box.pid)
        await asyncio.Event().wait()
asyncio.run(main())
"""


async def test_a_killed_program_is_noticed_at_once(options: dict[str, Any]) -> None:
    async with Node(new_name("a"), **options) as a:
        box = a.mailbox("ready")
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, new_name("c"), str(options["epmd_port"]), a.name]
        )
        try:
            pid = await box.receive(20)
            ref = box.monitor(pid)
            call = asyncio.create_task(a.call(pid, "never answered", timeout=30))
            await a.ping(pid.node)
            os.kill(child.pid, signal.SIGKILL)
            assert (await box.receive(10))[1::3] == (ref, "noconnection")
            with pytest.raises(NodeDown):
                await call
        finally:
            child.kill()
            child.wait()


async def test_calls(pair: Pair, loop_kind: str) -> None:
    async with pair() as (a, b):
        server = b.mailbox("server")

        async def serve() -> None:
            async for term in server:
                match term:
                    case ("$gen_call", _, b"stop"):
                        server.close("stopped")
                    case ("$gen_call", (_, tag), request):
                        b.send(tag.tail, (tag, (Atom("reply"), request)))
                    case ("$gen_cast", (reply_to, value)):
                        b.send(reply_to, value)

        task = asyncio.create_task(serve())
        dest = ("server", b.name)
        answers = await asyncio.gather(*(a.call(dest, i) for i in range(100)))
        assert answers == [("reply", i) for i in range(100)]
        assert await a.call(server.pid, "by pid") == ("reply", b"by pid")
        assert await asyncio.to_thread(a.call_sync, dest, 7) == ("reply", 7)
        box = a.mailbox()
        a.cast(dest, (box.pid, 5))
        assert await box.receive(5) == 5
        with pytest.raises(NoProcess, match="nobody"):
            await a.call(("nobody", b.name), 1)
        with pytest.raises(RemoteError) as e:
            await a.call(dest, "stop")
        assert e.value.reason == "stopped"
        with pytest.raises(TimeoutError):
            await a.call(b.mailbox("silent").pid, 1, timeout=0.05)
        with pytest.raises(ExitSignal):
            await task
        assert a._relation_count() <= 1


async def test_an_alias_is_not_called(pair: Pair) -> None:
    async with pair() as (a, b):
        alias = b.mailbox().alias()
        with pytest.raises(TypeError, match="an alias cannot be called"):
            await a.call(alias, 1)
        with pytest.raises(TypeError, match="an alias cannot be called"):
            a.call_sync(alias, 1)


async def test_late_answers_are_dropped(pair: Pair) -> None:
    async with pair() as (a, b):
        server = b.mailbox("slow")
        with pytest.raises(TimeoutError):
            await a.call(("slow", b.name), 1, timeout=0.05)
        _, (_, tag), _ = await server.receive(5)
        dropped = int(a.stats()["dropped_in"][0])
        b.send(tag.tail, (tag, "late"))
        assert await a.ping(b.name)
        assert int(a.stats()["dropped_in"][0]) == dropped + 1
