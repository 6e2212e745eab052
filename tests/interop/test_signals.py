"""Links, monitors and exit signals between real processes and mailboxes, both ways."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import router
from interop.erlang import ErlangNode, Nodes
from interop.talk import PATIENCE, answer, down, quoted, separated, watch
from router import Atom, BitString, BufferFull, ExitSignal, ImproperList, Mailbox, Node, Pid

REASONS: list[Any] = [
    Atom("normal"),
    Atom("shutdown"),
    (Atom("shutdown"), Atom("why")),
    Atom("killed"),
    Atom("kill"),
    Atom("été"),
    b"text",
    {Atom("a"): [1, 2.5, BitString(b"\x80", 1), ImproperList([1], 2)]},
    (Atom("large"), b"\x07" * 200_000),
    [(Atom("deep"), [i, [i]]) for i in range(20_000)],
]
REASON_IDS = ["normal", "shutdown", "tuple", "killed", "kill", "utf8", "binary", "map", "large",
              "long"]  # fmt: skip
each_reason = pytest.mark.parametrize("reason", REASONS, ids=REASON_IDS)

SLEEPER = "talk:sleeper()"


def relations(node: Node) -> int:
    return int(node._relation_count())


async def settled(node: Node, erl: ErlangNode) -> None:
    """All that was under way between the two has arrived: a message there and back."""
    assert await node.ping(erl.name)


# Monitors


@each_reason
async def test_we_monitor_a_pid(talker: ErlangNode, name: str, reason: Any) -> None:
    async with Node(name) as node:
        box = node.mailbox()
        pid = await talker.aeval(SLEEPER)
        ref = box.monitor(pid)
        node.send(pid, (Atom("die"), reason), sender=box)
        assert await box.receive(PATIENCE) == ("DOWN", ref, "process", pid, reason)
        assert not relations(node)
        # After the fact.
        ref = box.monitor(pid)
        assert await box.receive(PATIENCE) == ("DOWN", ref, "process", pid, "noproc")


@each_reason
async def test_they_monitor_a_pid(talker: ErlangNode, name: str, reason: Any) -> None:
    async with Node(name) as node:
        box, judge = node.mailbox(), node.mailbox()
        waiting = talker.submit(
            "R = monitor(process, Box), Judge ! self(),"
            " receive {'DOWN', R, process, Box, Why} -> {Why =:= Reason, process_info(self(),"
            " monitors)} after 20000 -> nothing end",
            Box=box.pid, Judge=judge.pid, Reason=reason,
        )  # fmt: skip
        await judge.receive(PATIENCE)
        box.close(reason)
        assert await answer(waiting) == (True, ("monitors", []))
        assert not relations(node)
        assert await talker.aeval(
            "R = monitor(process, Box), receive {'DOWN', R, process, Box, Why} -> Why end",
            Box=box.pid,
        ) == "noproc"  # fmt: skip


async def test_we_monitor_a_name(talker: ErlangNode, name: str) -> None:
    who = Atom("held by " + name)
    async with Node(name) as node:
        box = node.mailbox()
        await talker.aeval("talk:hold(Who, self())", Who=who)
        there = (who, Atom(talker.name))
        ref = box.monitor(there)
        node.send(there, (Atom("die"), Atom("bored")), sender=box)
        assert await box.receive(PATIENCE) == ("DOWN", ref, "process", there, "bored")
        ref = box.monitor(("nobody", talker.name))
        there = (Atom("nobody"), Atom(talker.name))
        assert await box.receive(PATIENCE) == ("DOWN", ref, "process", there, "noproc")
        assert not relations(node)


@pytest.mark.parametrize("who", ["shop", "été", "a name with blanks"])
async def test_they_monitor_a_name(talker: ErlangNode, name: str, who: str) -> None:
    async with Node(name) as node:
        box, judge = node.mailbox(who), node.mailbox()
        waiting = talker.submit(
            "R = monitor(process, {Who, Node}), Judge ! ok,"
            " receive {'DOWN', R, process, {Who, Node}, bored} -> ok; X -> X"
            " after 20000 -> nothing end",
            Who=Atom(who), Node=Atom(name), Judge=judge.pid,
        )  # fmt: skip
        await judge.receive(PATIENCE)
        box.close("bored")
        assert await answer(waiting) == "ok"
        assert await talker.aeval(
            "R = monitor(process, {Who, Node}),"
            " receive {'DOWN', R, process, {Who, Node}, Why} -> Why end",
            Who=Atom(who), Node=Atom(name),
        ) == "noproc"  # fmt: skip
        assert not relations(node)


async def test_demonitor(talker: ErlangNode, name: str) -> None:
    async with Node(name) as node:
        box = node.mailbox("box")
        pid = await talker.aeval(SLEEPER)
        refs = [box.monitor(pid), box.monitor(pid)]
        assert box.demonitor(refs[0])
        assert not box.demonitor(refs[0])
        node.send(pid, (Atom("die"), Atom("bored")), sender=box)
        assert await box.receive(PATIENCE) == ("DOWN", refs[1], "process", pid, "bored")
        waiting = talker.submit(
            "A = monitor(process, Box), B = monitor(process, {box, Node}),"
            " C = monitor(process, Box), demonitor(A), demonitor(B), Box ! self(),"
            " receive {'DOWN', C, process, Box, bored} -> ok; X -> X after 20000 -> nothing end",
            Box=box.pid, Node=Atom(name),
        )  # fmt: skip
        await box.receive(PATIENCE)
        assert relations(node) == 1
        box.close("bored")
        assert await answer(waiting) == "ok"
        assert not relations(node)


async def test_the_end_of_a_watcher_ends_its_monitors(talker: ErlangNode, name: str) -> None:
    async with Node(name) as node:
        box, watched = node.mailbox(), node.mailbox()
        pid = await talker.aeval(SLEEPER)
        box.monitor(pid)
        await settled(node, talker)
        info = "process_info(P, monitored_by)"
        assert await talker.aeval(info, P=pid) == ("monitored_by", [box.pid])
        box.close()
        await settled(node, talker)
        assert await talker.aeval(info, P=pid) == ("monitored_by", [])
        assert not relations(node)
        await talker.aeval(
            "{P, R} = spawn_monitor(fun() -> monitor(process, Box), Box ! done end),"
            " receive {'DOWN', R, _, _, _} -> ok end",
            Box=watched.pid,
        )
        assert await watched.receive(PATIENCE) == "done"
        await settled(node, talker)
        assert not relations(node)


# Links


@each_reason
async def test_we_link_and_they_die(talker: ErlangNode, name: str, reason: Any) -> None:
    async with Node(name) as node:
        pids = await talker.aeval("[talk:sleeper() || _ <- [1, 2]]")
        plain, trapping = node.mailbox(), node.mailbox()
        trapping.trap_exit = True
        for box, pid in zip((plain, trapping), pids, strict=True):
            box.link(pid)
            node.send(pid, (Atom("die"), reason), sender=box)
        assert await trapping.receive(PATIENCE) == ("EXIT", pids[1], reason)
        if reason == "normal":
            await settled(node, talker)
            assert not plain.closed
        else:
            with pytest.raises(ExitSignal) as caught:
                await plain.receive(PATIENCE)
            assert caught.value.reason == reason
            assert plain.closed
        assert not relations(node)
        pid = pids[1]
        trapping.link(pid)
        assert await trapping.receive(PATIENCE) == ("EXIT", pid, "noproc")


@each_reason
async def test_they_link_and_we_die(talker: ErlangNode, name: str, reason: Any) -> None:
    async with Node(name) as node:
        box, judge = node.mailbox(), node.mailbox()
        waiting = talker.submit(
            "process_flag(trap_exit, true), link(Box),"
            " {P, R} = spawn_monitor(fun() -> link(Box), Judge ! linked,"
            "   receive show_of_life -> exit(alive) end end),"
            " Judge ! linked,"
            " A = receive {'EXIT', Box, Why} -> Why =:= Reason after 20000 -> nothing end,"
            " Reason =:= normal andalso (P ! show_of_life),"
            " B = receive {'DOWN', R, _, _, alive} -> alive;"
            "   {'DOWN', R, _, _, Why2} -> Why2 =:= Reason after 20000 -> nothing end,"
            " {A, B, process_info(self(), links)}",
            Box=box.pid, Judge=judge.pid, Reason=reason,
        )  # fmt: skip
        for _ in range(2):
            assert await judge.receive(PATIENCE) == "linked"
        box.close(reason)
        a, b, links = await answer(waiting)
        assert a is True
        assert b == "alive" if reason == "normal" else b is True
        assert links == ("links", [])
        assert not relations(node)
        assert await talker.aeval(
            "process_flag(trap_exit, true), link(Box), receive {'EXIT', Box, Why} -> Why end",
            Box=box.pid,
        ) == "noproc"  # fmt: skip


async def test_unlink(talker: ErlangNode, name: str) -> None:
    async with Node(name) as node:
        box = node.mailbox()
        box.trap_exit = True
        pid = await talker.aeval(SLEEPER)
        links = "process_info(P, links)"
        box.link(pid)
        box.link(pid)
        await settled(node, talker)
        assert await talker.aeval(links, P=pid) == ("links", [box.pid])
        box.unlink(pid)
        box.unlink(pid)
        await settled(node, talker)
        assert await talker.aeval(links, P=pid) == ("links", [])
        for _ in range(5):
            box.link(pid)
            box.unlink(pid)
        box.link(pid)
        await settled(node, talker)
        assert await talker.aeval(links, P=pid) == ("links", [box.pid])
        box.unlink(pid)
        node.send(pid, (Atom("die"), Atom("bored")), sender=box)
        await settled(node, talker)
        assert not box.waiting
        assert not relations(node)


async def test_they_unlink(talker: ErlangNode, name: str) -> None:
    async with Node(name) as node:
        box, judge = node.mailbox(), node.mailbox()
        waiting = talker.submit(
            "process_flag(trap_exit, true), [begin link(Box), unlink(Box) end || _ <- [1, 2, 3]],"
            " link(Box), Judge ! self(), receive go -> unlink(Box) end, Judge ! self(),"
            " receive closed -> receive X -> X after 0 -> nothing end after 20000 -> late end",
            Box=box.pid, Judge=judge.pid,
        )  # fmt: skip
        pid = await judge.receive(PATIENCE)
        assert relations(node) == 1
        node.send(pid, Atom("go"))
        assert await judge.receive(PATIENCE) == pid
        assert not relations(node)
        box.close("bored")
        await settled(node, talker)
        node.send(pid, Atom("closed"))
        assert await answer(waiting) == "nothing"


# Exit signals


@each_reason
async def test_we_send_an_exit_signal(talker: ErlangNode, name: str, reason: Any) -> None:
    async with Node(name) as node:
        box = node.mailbox()
        waiting = talker.submit(
            "{P, R} = spawn_monitor(fun() -> process_flag(trap_exit, true), Box ! self(),"
            "  receive {'EXIT', Box, Why} -> exit({Why =:= Reason, trapped}) end end),"
            " receive {'DOWN', R, _, _, Why} -> Why after 20000 -> nothing end",
            Box=box.pid, Reason=reason,
        )  # fmt: skip
        box.exit(await box.receive(PATIENCE), reason)
        assert await answer(waiting) == ("killed" if reason == "kill" else (True, "trapped"))
        pid = await talker.aeval(SLEEPER)
        ref = box.monitor(pid)
        box.exit(pid, reason)
        if reason == "normal":
            await settled(node, talker)
            assert await talker.aeval("is_process_alive(P)", P=pid) is True
            box.exit(pid, "kill")
        expected = "killed" if reason in ("kill", "normal") else reason
        assert await box.receive(PATIENCE) == ("DOWN", ref, "process", pid, expected)


@each_reason
async def test_they_send_an_exit_signal(talker: ErlangNode, name: str, reason: Any) -> None:
    async with Node(name) as node:
        plain, trapping = node.mailbox(), node.mailbox()
        trapping.trap_exit = True
        sender = await talker.aeval(
            "[exit(P, Reason) || P <- Boxes], self()",
            Boxes=[plain.pid, trapping.pid], Reason=reason,
        )  # fmt: skip
        if reason == "kill":
            with pytest.raises(ExitSignal, match="killed"):
                await trapping.receive(PATIENCE)
        else:
            assert await trapping.receive(PATIENCE) == ("EXIT", sender, reason)
        if reason == "normal":
            await settled(node, talker)
            assert not plain.closed
        else:
            with pytest.raises(ExitSignal) as caught:
                await plain.receive(PATIENCE)
            assert caught.value.reason == ("killed" if reason == "kill" else reason)


# Many


async def test_a_process_dies_that_is_linked_to_1000_of_ours(talker: ErlangNode, name: str) -> None:
    async with Node(name) as node:
        boxes = [node.mailbox() for _ in range(1000)]
        for box in boxes[:500]:
            box.trap_exit = True
        control = node.mailbox()
        await talker.aeval("talk:die_linked(Pids, Control), ok",
                           Pids=[b.pid for b in boxes], Control=control.pid)  # fmt: skip
        _, pid = await control.receive(PATIENCE)
        assert relations(node) == 1000
        node.send(pid, (Atom("die"), (Atom("all"), b"x" * 3000)))
        for box in boxes[:500]:
            assert await box.receive(PATIENCE) == ("EXIT", pid, ("all", b"x" * 3000))
        for box in boxes[500:]:
            with pytest.raises(ExitSignal):
                await box.receive(PATIENCE)
        assert not relations(node)


async def test_a_box_dies_that_is_linked_to_1000_of_theirs(talker: ErlangNode, name: str) -> None:
    async with Node(name) as node:
        box, judge = node.mailbox(), node.mailbox()
        waiting = talker.submit(
            "All = [spawn_monitor(fun() -> link(Box), Judge ! linked,"
            "         receive never -> ok end end) || _ <- lists:seq(1, 1000)],"
            " lists:usort([receive {'DOWN', R, _, P, Why} -> Why after 20000 -> nothing end"
            "              || {P, R} <- All])",
            Box=box.pid, Judge=judge.pid,
        )  # fmt: skip
        for _ in range(1000):
            await judge.receive(PATIENCE)
        box.close((Atom("all"), b"x" * 3000))
        assert await answer(waiting) == [("all", b"x" * 3000)]
        assert not relations(node)


async def test_they_may_not_start_processes_here(talker: ErlangNode, name: str) -> None:
    async with Node(name) as node:
        assert await talker.aeval(
            "R = spawn_request(Node, os, cmd, [\"true\"], [monitor, link]),"
            " receive {spawn_reply, R, Result, Why} -> {Result, Why} after 20000 -> nothing end",
            Node=Atom(name),
        ) == ("error", "notsup")  # fmt: skip
        assert await talker.aeval(
            "try erpc:call(Node, erlang, node, []) catch C:E -> {C, E} end", Node=Atom(name)
        ) == ("error", ("erpc", "notsup"))  # fmt: skip
        assert node.nodes() == [talker.name]


# Nodes


async def test_nodes_are_monitored(talker: ErlangNode, name: str) -> None:
    async with Node(name) as node:
        box = node.mailbox()
        node.monitor_nodes(box)
        await talker.aeval(f"net_kernel:connect_node({quoted(name)})")
        assert await box.receive(PATIENCE) == ("nodeup", talker.name)
        async with separated(node, talker):
            node.disconnect(talker.name)
        assert await box.receive(PATIENCE) == ("nodedown", talker.name)
        node.monitor_nodes(box, False)
        await node.connect(talker.name)
        assert not box.waiting
        gone = await watch(talker, name)
    await gone()  # stop says goodbye


async def test_they_are_killed(erlang: Nodes, name: str) -> None:
    """Monitors, links and calls end with `noconnection`."""
    erl = erlang("mortal")
    erl.load("talk.erl")
    async with Node(name) as node:
        box, plain = node.mailbox(), node.mailbox()
        box.trap_exit = True
        pid = await erl.aeval(SLEEPER)
        by_pid, by_name = box.monitor(pid), box.monitor(("init", erl.name))
        box.link(pid)
        plain.link(pid)
        await settled(node, erl)
        erl.kill()
        got = [await box.receive(PATIENCE) for _ in range(3)]
        there = (Atom("init"), Atom(erl.name))
        for expected in [
            ("DOWN", by_pid, "process", pid, "noconnection"),
            ("DOWN", by_name, "process", there, "noconnection"),
            ("EXIT", pid, "noconnection"),
        ]:
            assert expected in got
        with pytest.raises(ExitSignal, match="noconnection"):
            await plain.receive(PATIENCE)
        assert not relations(node)
        # And there is nobody to connect to now.
        ref = box.monitor(pid)
        assert await box.receive(PATIENCE) == ("DOWN", ref, "process", pid, "noconnection")
        box.link(pid)
        assert await box.receive(PATIENCE) == ("EXIT", pid, "noconnection")


PROGRAM = """
import asyncio, sys
from router import Node

async def main():
    async with Node(sys.argv[1]) as node:
        box = node.mailbox("box")
        await node.connect(sys.argv[2])
        node.send(("judge", sys.argv[2]), box.pid)
        await box.receive()

asyncio.run(main())
"""


@contextmanager
def program(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A node in a process of its own."""
    env = os.environ | {"PYTHONPATH": str(Path(router.__file__).parents[1])}
    child = subprocess.Popen([sys.executable, "-c", PROGRAM, *arguments], env=env)
    try:
        yield child
    finally:
        child.kill()
        child.wait(30)


async def test_we_are_killed(erlang: Nodes, name: str) -> None:
    erl = erlang("widow")
    waiting = erl.submit(
        "register(judge, self()), process_flag(trap_exit, true),"
        " receive Box -> R = monitor(process, Box), N = monitor(process, {box, node(Box)}),"
        "   link(Box), monitor_node(node(Box), true) end,"
        " S = self(), spawn(fun() -> pong = net_adm:ping(node(Box)), S ! ready end),"
        " receive ready -> ok end, register(ready, spawn(fun() -> receive x -> ok end end)),"
        " [receive {'DOWN', R, process, Box, Why} -> Why after 20000 -> nothing end,"
        "  receive {'DOWN', N, process, _, Why} -> Why after 20000 -> nothing end,"
        "  receive {'EXIT', Box, Why} -> Why after 20000 -> nothing end,"
        "  receive {nodedown, Node} -> Node after 20000 -> nothing end]"
    )
    with program(name, erl.name) as child:
        while await erl.aeval("whereis(ready)") == "undefined":
            assert child.poll() is None
        child.send_signal(signal.SIGKILL)
        noconnection = [Atom("noconnection")] * 3
        got = await answer(waiting)
        assert got == [*noconnection, name]


async def test_a_monitor_of_a_node_that_is_not_there(talker: ErlangNode, name: str) -> None:
    assert talker
    async with Node(name) as node:
        box = node.mailbox()
        box.trap_exit = True
        ref = box.monitor(("shop", "nobody@127.0.0.1"))
        there = (Atom("shop"), Atom("nobody@127.0.0.1"))
        assert await box.receive(PATIENCE) == ("DOWN", ref, "process", there, "noconnection")
        pid = Pid("nobody@127.0.0.1", 1, 0, 5)
        box.link(pid)
        assert await box.receive(PATIENCE) == ("EXIT", pid, "noconnection")
        assert not relations(node)


async def test_signals_stay_behind_the_messages_before_them(talker: ErlangNode, name: str) -> None:
    """From one process to another, messages and signals keep their order."""
    async with Node(name) as node:
        box = node.mailbox()
        box.trap_exit = True
        await talker.aeval(
            "spawn(fun() -> link(Box), talk:pump(Box, 2000, binary:copy(<<1>>, 3000)),"
            " Box ! {large, binary:copy(<<2>>, 500000)}, exit(done) end), ok",
            Box=box.pid,
        )
        for i in range(1, 2001):
            assert (await box.receive(PATIENCE))[1] == i
        assert await box.receive(PATIENCE) == ("large", b"\x02" * 500_000)
        kind, _, reason = await box.receive(PATIENCE)
        assert (kind, reason) == ("EXIT", "done")
        waiting = talker.submit(
            "R = monitor(process, Box), Box ! self(),"
            " Count = fun F(N) -> receive {seq, I, _} when I =:= N + 1 -> F(N + 1);"
            "   {large, B} -> {N, byte_size(B), receive {'DOWN', R, _, _, Why} -> Why"
            "                                   after 20000 -> nothing end};"
            "   Other -> {N, Other} after 20000 -> {N, nothing} end end, Count(0)",
            Box=box.pid,
        )
        pid = await box.receive(PATIENCE)
        await pour(node, box, pid)
        box.close("done")
        assert await answer(waiting) == (2000, 500_000, "done")


async def test_signals_while_the_peer_does_not_read(erlang: Nodes, name: str) -> None:
    """The buffer is full, so messages are refused. Signals are not, and none is lost: links,
    monitors and ends arrive when the peer reads again, once and behind what was before them."""
    erl = erlang("busy")
    limit = 1 << 20
    async with Node(name, limits={"queue_bytes_max": limit, "queue_bytes_soft": 1 << 16}) as node:
        box, dying, killer = node.mailbox(), node.mailbox(), node.mailbox()
        box.trap_exit = True
        await node.connect(erl.name)
        heard = erl.submit(
            "process_flag(trap_exit, true), link(Dying), R = monitor(process, Dying),"
            "P1 = spawn(fun() -> receive stop -> exit(bye) end end),"
            "Self = self(), P2 = spawn(fun() -> process_flag(trap_exit, true), Self ! trapping,"
            "  receive {'EXIT', Killer, Why} -> exit({told, Why}) end end),"
            "receive trapping -> ok end, Box ! {self(), P1, P2},"
            "Count = fun F(N) -> receive {seq, I, _} when I =:= N + 1 -> F(N + 1)"
            "   after 0 -> N end end,"
            "Down = receive {'DOWN', R, process, Dying, D} -> D after 20000 -> nothing end,"
            "Exit = receive {'EXIT', Dying, E} -> E after 20000 -> nothing end,"
            "{Count(0), Down =:= Exit, size(element(2, Exit)), receive A -> A after 0 -> none end}",
            Box=box.pid, Dying=dying.pid, Killer=killer.pid,
        )  # fmt: skip
        evaluator, first, second = await box.receive(PATIENCE)
        assert await node.ping(erl.name)
        erl.suspend()
        accepted = 0
        with pytest.raises(BufferFull):
            while True:
                node.send(evaluator, (Atom("seq"), accepted + 1, b"\x01" * 1000), sender=dying)
                accepted += 1
        watched = box.monitor(second)
        box.link(first)
        killer.exit(second, Atom("enough"))
        dying.close((Atom("large"), b"\x02" * 300_000))
        erl.resume()
        assert await answer(heard) == (accepted, True, 300_000, "none")
        assert await box.receive(PATIENCE) == (
            "DOWN", watched, "process", second, (Atom("told"), Atom("enough"))
        )  # fmt: skip
        node.send(first, Atom("stop"))
        assert await box.receive(PATIENCE) == ("EXIT", first, "bye")
        await settled(node, erl)
        assert box.waiting == 0 and relations(node) == 0


async def test_what_a_traced_process_does(talker: ErlangNode, name: str) -> None:
    """With a token of seq_trace every signal goes in another form. A group leader is set too."""
    async with Node(name) as node:
        box, other = node.mailbox("traced"), node.mailbox()
        box.trap_exit = other.trap_exit = True
        ran: list[Any] = []
        alias = box.alias()
        node.expose("traced", "ran", ran.append)
        said = talker.submit(
            "Self = self(), spawn(fun() ->"
            "  Trace = fun() ->"
            "    seq_trace:set_token(label, 17), seq_trace:set_token(send, true) end,"
            "  Trace(),"
            "  Box ! {1, self()}, {traced, node(Box)} ! 2, Alias ! 3,"
            "  group_leader(self(), Box),"
            "  R = spawn_request(node(Box), traced, ran, [4], [monitor]),"
            "  Child = receive {spawn_reply, R, ok, P} -> P after 20000 -> none end,"
            "  Down = receive {'DOWN', R, process, Child, Why} -> Why after 20000 -> none end,"
            "  Trace()," # who receives a message without a token has none
            "  exit(Other, {5, <<0:2400000>>}), link(Box), Self ! Down, exit({6, <<0:2400000>>})"
            "  end), receive Down -> Down after 20000 -> none end",
            Box=box.pid, Alias=alias, Other=other.pid,
        )  # fmt: skip
        (one, pid), *rest = [await box.receive(PATIENCE) for _ in range(3)]
        assert (one, rest) == (1, [2, 3])
        assert await answer(said) == "normal" and ran == [4]
        assert await other.receive(PATIENCE) == ("EXIT", pid, (5, bytes(300_000)))
        assert await box.receive(PATIENCE) == ("EXIT", pid, (6, bytes(300_000)))
        await settled(node, talker)
        assert box.unalias(alias)
        assert node.nodes() == [talker.name] and relations(node) == 0


async def pour(node: Node, box: Mailbox, pid: Pid) -> None:
    for i in range(1, 2001):
        node.send(pid, (Atom("seq"), i, b"\x01" * 3000), sender=box)
    node.send(pid, (Atom("large"), b"\x02" * 500_000), sender=box)
    await asyncio.sleep(0)


async def test_a_watched_node_is_restarted(erlang: Nodes, name: str) -> None:
    erl = erlang("again")
    erl.load("talk.erl")
    async with Node(name) as node:
        watch, box = node.mailbox(), node.mailbox()
        node.monitor_nodes(watch)
        pid = await erl.aeval(SLEEPER)
        ref = box.monitor(pid)
        await settled(node, erl)
        await asyncio.to_thread(erl.restart)
        assert await box.receive(PATIENCE) == ("DOWN", ref, "process", pid, "noconnection")
        await down(watch, erl.name)
        ref = box.monitor(pid)
        assert await box.receive(PATIENCE) == ("DOWN", ref, "process", pid, "noproc")
