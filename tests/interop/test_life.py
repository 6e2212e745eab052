"""Nodes that die, fall silent, come back, and come and go all day."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import router
from interop.erlang import ErlangNode, Nodes
from interop.talk import (
    PATIENCE,
    answer,
    both_ways,
    down,
    flags,
    quoted,
    separated,
    watch,
)
from router import Atom, HandshakeError, Node, NodeDown

SEQ = Atom("seq")

TICKTIME = 2  # seconds; as short as a real node counts

# A node that answers {Pid, Term} with {its operating system's number, Term}.
PROGRAM = """
import asyncio, os, sys
from router import Node

async def main():
    async with Node(sys.argv[1], net_ticktime=float(sys.argv[2])) as node:
        box = node.mailbox("box")
        print("ready", flush=True)
        async for pid, term in box:
            node.send(pid, (os.getpid(), term))

asyncio.run(main())
"""


@contextmanager
def program(name: str, ticktime: float = 60) -> Iterator[subprocess.Popen[bytes]]:
    """A node in a process of its own, up when this is entered."""
    env = os.environ | {"PYTHONPATH": str(Path(router.__file__).parents[1])}
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, name, str(ticktime)], env=env, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == b"ready\n"
        yield child
    finally:
        child.kill()
        child.wait(30)
        child.stdout.close()


async def at_rest(node: Node) -> int:
    """The bytes that wait for a peer which takes no more."""
    waiting, turns = -1, 0
    while turns < 200:
        now = int(node.stats()[0]["queued_bytes"])
        turns = turns + 1 if now == waiting else 0
        waiting = now
        await asyncio.sleep(0)
    return waiting


# Death


async def test_erlang_dies_while_we_send(
    erlang: Nodes, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What was still here when the connection ended is counted and said; what is sent after that
    goes to the node that has the name next."""
    erl = erlang("mortal")
    async with Node(name) as node:
        watch = node.mailbox()
        node.monitor_nodes(watch)
        await node.connect(erl.name)
        assert await watch.receive(PATIENCE) == ("nodeup", erl.name)
        erl.suspend()
        count = 25_000  # more than the buffers of two sockets ever take
        for i in range(count):
            node.send(("sink", erl.name), (SEQ, i, b"x" * 2000))
        before = await at_rest(node)
        assert before > 1_000_000
        erl.kill()
        assert await watch.receive(PATIENCE) == ("nodedown", erl.name)
        (row,) = node.stats()
        assert not row["up"]
        assert row["queued_bytes"] == 0
        assert row["messages_out"] == count
        # A message of which a part is written is lost as a whole. The kernel may have taken
        # some more since we looked.
        size = row["bytes_out"] // count
        assert 100 < row["dropped_out"] <= before // size + 1
        # The log is written on this loop, perhaps a turn after the message is there.
        while not (lost := [r for r in caplog.records if "messages lost" in r.message]):
            await asyncio.sleep(0)
        assert [r.levelno for r in lost] == [logging.WARNING]
        assert str(row["dropped_out"]) in lost[0].message

        with pytest.raises(NodeDown):
            await node.connect(erl.name)
        await asyncio.to_thread(erl.start)
        erl.load("talk.erl")
        await erl.aeval("talk:counter(sink, 1000)")
        for i in range(1, 1001):
            node.send(("sink", erl.name), (SEQ, i, b""))
        assert await watch.receive(PATIENCE) == ("nodeup", erl.name)
        assert await erl.aeval("talk:verdict(whereis(sink))") == ("ok", 1000)
        assert node.stats()[0]["connects"] == 2


async def test_erlang_dies_while_it_sends(erlang: Nodes, name: str) -> None:
    """What came before is whole and in order; the half message at the end is nobody's."""
    erl = erlang("mortal")
    erl.load("talk.erl")
    async with Node(name) as node:
        box, watch = node.mailbox("box"), node.mailbox()
        node.monitor_nodes(watch)
        running = erl.submit(
            "talk:pump({box, Node}, 100000000, binary:copy(<<7>>, 100000))", Node=Atom(name)
        )
        seen = 0
        while seen < 200:
            for kind, number, data in await box.receive_many(timeout=PATIENCE):
                seen += 1
                assert (kind, number, len(data)) == ("seq", seen, 100_000)
        erl.kill()
        assert await watch.receive(PATIENCE) == ("nodeup", erl.name)
        assert await watch.receive(PATIENCE) == ("nodedown", erl.name)
        while box.waiting:
            for _, number, data in await box.receive_many(timeout=PATIENCE):
                seen += 1
                assert (number, data) == (seen, b"\x07" * 100_000)
        assert node.stats()[0]["messages_in"] == seen
        with pytest.raises(ConnectionError):
            await asyncio.wrap_future(running)


async def test_we_die_and_come_back(talker: ErlangNode, name: str) -> None:
    """A real node goes on sending to a name; its own automatic connect finds the next life."""
    ask = "{box, Node} ! {self(), Round}, receive {Pid, Round} -> Pid after 300 -> nothing end"
    for round_ in range(3):
        with program(name) as child:
            said = Atom("nothing")
            while said == "nothing":  # the old connection may have to be found dead first
                said = await talker.aeval(ask, Node=Atom(name), Round=round_)
            assert said == child.pid
            gone = await watch(talker, name)
            child.send_signal(signal.SIGKILL)
            await gone()


# Coming and going


async def test_50_rounds(talker: ErlangNode, name: str) -> None:
    """Both sides connect and disconnect in turn; every message of every round arrives, and
    nothing is left over."""
    fds = 0
    async with Node(name) as node:
        box = node.mailbox("box")
        me = quoted(name)
        for round_ in range(50):
            if round_ % 2:
                await node.connect(talker.name)
            else:
                assert await talker.aeval(f"net_kernel:connect_node({me})") is True
            await talker.aeval(f"{{box, {me}}} ! R, ok", R=round_)
            assert await box.receive(PATIENCE) == round_
            assert await node.ping(talker.name)
            async with separated(node, talker):
                if round_ % 4 < 2:
                    node.disconnect(talker.name)
                else:
                    await talker.aeval(f"erlang:disconnect_node({me})")
            if not fds:
                gc.collect()  # what earlier tests left must not go meanwhile
                fds = len(os.listdir("/proc/self/fd"))
        (row,) = node.stats()
        assert row["connects"] == 50
        assert row["dropped_in"] == row["dropped_out"] == 0
        assert not node._relation_count()
        assert len(os.listdir("/proc/self/fd")) == fds


async def test_a_storm(talker: ErlangNode, name: str) -> None:
    """Both sides disconnect whenever they like while both send: nothing breaks, each stream
    stays in order, and when it is over a message gets through."""
    async with Node(name) as node:
        box = node.mailbox("box")
        sink = await talker.aeval(
            "spawn(fun() -> F = fun F(Last, N) -> receive"
            " {seq, I, _} when I > Last -> F(I, N + 1); {seq, I, _} -> exit({order, Last, I});"
            " {report, P} -> P ! {report, Last, N} end end, F(0, 0) end)"
        )
        storm = talker.submit(
            "[begin {box, Node} ! I, (I rem 20 =:= 0) andalso erlang:disconnect_node(Node)"
            " end || I <- lists:seq(1, 1000)], ok",
            Node=Atom(name),
        )
        watching = asyncio.ensure_future(answer(storm))
        number = 0
        while not watching.done() or number < 1000:
            number += 1
            if number % 100 == 1:  # else a slow peer might see no connection last until a message
                # The other side may part in the middle of a handshake too.
                with suppress(NodeDown, HandshakeError):
                    await node.connect(talker.name)
            node.send(sink, (SEQ, number, b"y" * 100), sender=box)
            if number % 17 == 0:
                node.disconnect(talker.name)
            await asyncio.sleep(0)
        assert await watching == "ok"
        received = []
        with pytest.raises(TimeoutError):
            while True:
                received.append(await box.receive(1))
        assert received == sorted(set(received))
        await node.connect(talker.name)
        node.send(sink, (Atom("report"), box.pid), sender=box)
        kind, last, count = await box.receive(PATIENCE)
        assert kind == "report"
        assert 0 < count <= last <= number
        await both_ways(node, talker)
        (row,) = node.stats()
        assert row["messages_in"] >= len(received)
        # Whatever is missing there was counted here, or was written to a dying connection.
        assert row["dropped_out"] <= number - count


# Silence


async def test_ticks_keep_an_idle_connection(erlang: Nodes, name: str) -> None:
    """Three times the tick time without a message, and nobody thinks the other dead."""
    erl = erlang("idle", args=["-kernel", "net_ticktime", str(TICKTIME)])
    erl.load("talk.erl")
    async with Node(name, net_ticktime=TICKTIME) as node:
        watch = node.mailbox()
        node.monitor_nodes(watch)
        await node.connect(erl.name)
        assert await watch.receive(PATIENCE) == ("nodeup", erl.name)
        gone = erl.submit(f"talk:gone(Node, {3000 * TICKTIME + 500})", Node=Atom(name))
        assert await answer(gone) == "timeout"
        assert not watch.waiting
        assert await flags(erl, node) == "hidden"
        (row,) = node.stats()
        assert row["age"] > 3 * TICKTIME
        assert row["idle"] < TICKTIME
        assert row["connects"] == 1


@pytest.mark.slow
async def test_ticks_while_the_program_is_busy(erlang: Nodes, name: str) -> None:
    """A loop that computes for three tick times without a pause: the engine's thread ticks."""
    erl = erlang("waits", args=["-kernel", "net_ticktime", str(TICKTIME)])
    erl.load("talk.erl")
    async with Node(name, net_ticktime=TICKTIME) as node:
        await node.connect(erl.name)
        gone = erl.submit(f"talk:gone(Node, {3000 * TICKTIME})", Node=Atom(name))
        until = time.monotonic() + 3 * TICKTIME
        while time.monotonic() < until:
            sum(range(1000))
        assert await answer(gone) == "timeout"
        await both_ways(node, erl)


async def test_a_silent_erlang_node(erlang: Nodes, name: str) -> None:
    erl = erlang("silent", args=["-kernel", "net_ticktime", str(TICKTIME)])
    async with Node(name, net_ticktime=TICKTIME) as node:
        watch, box = node.mailbox(), node.mailbox()
        node.monitor_nodes(watch)
        await node.connect(erl.name)
        ref = box.monitor(("init", erl.name))
        assert await node.ping(erl.name)
        begun = time.monotonic()
        erl.suspend()
        await down(watch, erl.name)
        took = time.monotonic() - begun
        assert 0.75 * TICKTIME - 0.1 <= took <= 1.25 * TICKTIME + 0.5
        kind, got, *_, reason = await box.receive(PATIENCE)
        assert (kind, got, reason) == ("DOWN", ref, "noconnection")
        erl.resume()
        assert await node.ping(erl.name)


async def test_a_silent_python_node(erlang: Nodes, name: str) -> None:
    erl = erlang("listens", args=["-kernel", "net_ticktime", str(TICKTIME)])
    erl.load("talk.erl")
    with program(name, TICKTIME) as child:
        assert await erl.aeval(f"net_adm:ping({quoted(name)})") == "pong"
        begun = time.monotonic()
        child.send_signal(signal.SIGSTOP)
        assert await erl.aeval("talk:gone(Node, 20000)", Node=Atom(name)) == "ok"
        assert time.monotonic() - begun <= 1.25 * TICKTIME + 0.5
        child.send_signal(signal.SIGCONT)
        ask = "{box, Node} ! {self(), 1}, receive {Pid, 1} -> Pid after 300 -> nothing end"
        said = Atom("nothing")
        while said == "nothing":
            said = await erl.aeval(ask, Node=Atom(name))
        assert said == child.pid


async def test_a_clean_end(erlang: Nodes, name: str) -> None:
    erl = erlang("leaves")
    async with Node(name) as node:
        watch = node.mailbox()
        node.monitor_nodes(watch)
        await node.connect(erl.name)
        await asyncio.to_thread(erl.stop)
        await down(watch, erl.name)
        assert node.nodes() == []
