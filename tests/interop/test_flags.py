"""Real nodes that do without the atom cache, fragments or both: three more forms of frames.

A real node offers all it knows; a distribution carrier may reject some flags, and
erl/dist_util.erl makes the usual carrier one that does.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from interop.erlang import Epmd, ErlangNode, Nodes, Otp
from interop.talk import PATIENCE, answer, blob, both_ways, echo, port_of, quoted, separated
from router import Atom, Node

CACHE, FRAGMENTS = 0x2000, 0x80_0000

LESS = """
    {_, Original, _} = code:get_object_code(dist_util),
    {ok, dist_util, Chunks} = beam_lib:all_chunks(Original),
    Rename = fun({"AtU8", Atoms}) ->
                     [Before, After] = binary:split(Atoms, <<"dist_util">>),
                     {"AtU8", <<Before/binary, "dist_utlx", After/binary>>};
                (Other) -> Other end,
    {ok, Copy} = beam_lib:build_module(lists:map(Rename, Chunks)),
    {module, _} = code:load_binary(dist_utlx, "dist_utlx", Copy),
    persistent_term:put(rejected_flags, Flags),
    code:unstick_mod(dist_util)
"""


@pytest.fixture(
    scope="module",
    params=[CACHE | FRAGMENTS, FRAGMENTS, CACHE],
    ids=["pass-through", "no fragments", "no cache"],
)
def lesser_node(
    request: pytest.FixtureRequest, otp: Otp, session_epmd: Epmd, node_logs: Path
) -> Iterator[ErlangNode]:
    nodes = Nodes(otp, node_logs)
    node = nodes(f"lesser{otp.release}", epmd_port=session_epmd.port)
    node.load("talk.erl")
    node.eval(LESS, Flags=request.param)
    node.load("dist_util.erl")
    assert offered(node) & (CACHE | FRAGMENTS) == (CACHE | FRAGMENTS) & ~request.param
    yield node
    nodes.close()


@pytest.fixture
def lesser(lesser_node: ErlangNode, epmd: Epmd) -> ErlangNode:
    return lesser_node


def offered(erl: ErlangNode) -> int:
    """The flags a node challenges with, read from the wire by no code under test."""
    with socket.create_connection(("127.0.0.1", port_of(erl)), timeout=PATIENCE) as s:
        me = b"asks@127.0.0.1"
        everything = 0x2D_07DF_7FBD  # what OTP 25 and 28 both know
        hello = struct.pack(">BQIH", ord("N"), everything, 7, len(me)) + me
        s.sendall(struct.pack(">H", len(hello)) + hello)
        with s.makefile("rb") as stream:
            (size,) = struct.unpack(">H", stream.read(2))
            assert stream.read(size) == b"sok"
            stream.read(2)
            kind, flags = struct.unpack(">BQ", stream.read(9))
            assert kind == ord("N")
            return int(flags)


@pytest.mark.parametrize("who", ["python", "erlang"])
async def test_frames_of_another_form(lesser: ErlangNode, name: str, who: str) -> None:
    async with Node(name) as node:
        if who == "python":
            await node.connect(lesser.name)
        else:
            assert await lesser.aeval(f"net_kernel:connect_node({quoted(name)})") is True
        await both_ways(node, lesser)
        assert await node.ping(lesser.name)
        assert await lesser.aeval(f"net_adm:ping({quoted(name)})") == "pong"
        echo(node, "echo")
        me = Atom(name)
        assert await lesser.aeval(
            "[{I, io_lib:format(\"~0tp\", [T])} || {I, T, _} <-"
            " talk:bounce({echo, Node}, talk:every_kind(), 1)]", Node=me,
        ) == []  # fmt: skip
        assert await lesser.aeval(
            "Atoms = [list_to_atom(\"atom\" ++ integer_to_list(I)) || I <- lists:seq(1, 3000)],"
            " talk:bounce({echo, Node}, [Atoms | Atoms], 1)", Node=me,
        ) == []  # fmt: skip
        sizes = [1, 65_400, 65_536, 65_700, 131_072, 1_000_000, 5_000_000]
        box = node.mailbox("box")
        waiting = lesser.submit("talk:send_blobs({box, Node}, Sizes)", Node=me, Sizes=sizes)
        for size in sizes:
            assert await box.receive(PATIENCE) == (size, size, blob(size, size))
        assert await answer(waiting) == "ok"
        await lesser.aeval("talk:judge_blobs(judge, Count)", Count=len(sizes))
        for size in sizes:
            node.send(("judge", lesser.name), (size, size, blob(size, size)), sender=box)
        assert await lesser.aeval("talk:verdict(whereis(judge))") == ("wrong", [])


async def test_signals_in_frames_of_another_form(lesser: ErlangNode, name: str) -> None:
    async with Node(name) as node:
        box, mortal = node.mailbox("box"), node.mailbox("mortal")
        box.trap_exit = True
        large = (Atom("why"), b"x" * 200_000)
        pid = await lesser.aeval("talk:hold(held, self())")
        there = (Atom("held"), Atom(lesser.name))
        refs = {box.monitor(pid): pid, box.monitor(there): there}
        box.demonitor(box.monitor(pid))
        box.link(pid)
        node.send(pid, (Atom("die"), large), sender=box)
        for _ in range(3):
            match await box.receive(PATIENCE):
                case ("DOWN", ref, "process", what, reason):
                    assert (refs.pop(ref), reason) == (what, large)
                case ("EXIT", who, reason):
                    assert (who, reason) == (pid, large)
        assert not refs
        waiting = lesser.submit(
            "process_flag(trap_exit, true), link(Mortal), R = monitor(process, Mortal),"
            " N = monitor(process, {mortal, node(Mortal)}), Box ! self(),"
            " {receive {'EXIT', Mortal, A} -> A =:= Large end,"
            "  receive {'DOWN', R, process, Mortal, B} -> B =:= Large end,"
            "  receive {'DOWN', N, process, {mortal, _}, C} -> C =:= Large end}",
            Mortal=mortal.pid, Box=box.pid, Large=large,
        )  # fmt: skip
        await box.receive(PATIENCE)
        mortal.close(large)
        assert await answer(waiting) == (True, True, True)
        sleeper = await lesser.aeval("talk:sleeper()")
        ref = box.monitor(sleeper)
        box.exit(sleeper, large)
        assert await box.receive(PATIENCE) == ("DOWN", ref, "process", sleeper, large)
        assert await node.rpc(lesser.name, "lists", "sum", [[1, 2]]) == 3
        assert not node._relation_count()
        async with separated(node, lesser):
            node.disconnect(lesser.name)


async def test_what_waited_is_sent_in_the_form_agreed(lesser: ErlangNode, name: str) -> None:
    """Messages are encoded before it is known what the peer can read."""
    async with Node(name) as node:
        await lesser.aeval("talk:judge_many(judge, 1, 30)")
        for i in range(1, 31):
            size = 200_000 if i % 10 == 0 else 100
            node.send(("judge", lesser.name), (1, i, size, blob(1000 + i, size)))
        assert await lesser.aeval("talk:verdict(whereis(judge))") == ("ok", [30])
