"""Global names with OTP's own global: a visible node is one of the cluster."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from interop.erlang import ErlangNode, Nodes
from interop.talk import PATIENCE, answer, eventually, separated
from router import Atom, Codec, ExitSignal, Mailbox, NameTaken, Node, Pid, RemoteError

SCHEDULES = 4
OPERATIONS = 40


@asynccontextmanager
async def visible(erl: ErlangNode, name: str, **more: Any) -> AsyncIterator[Node]:
    """A visible Python node that shares the names of a real one, and a real one that has had
    nothing to complain of at the end."""
    server = await erl.aeval("whereis(global_name_server)")
    said = len(erl.log.read_text())
    async with Node(name, hidden=False, **more) as node:
        await meet(node, erl)
        yield node
        assert await erl.aeval("whereis(global_name_server)") == server
    await eventually(lambda: Atom(name) not in erl.eval("nodes()"))
    assert "global_name_server received an unexpected" not in erl.log.read_text()[said:]


async def meet(node: Node, erl: ErlangNode) -> None:
    await node.connect(erl.name)
    async with asyncio.timeout(PATIENCE):
        await node.global_names.sync()
    assert await erl.aeval("global:sync()") == "ok"


async def process(erl: ErlangNode) -> Pid:
    found = await erl.aeval("spawn(fun() -> receive stop -> ok end end)")
    assert isinstance(found, Pid)
    return found


async def where(erl: ErlangNode, name: Any) -> Any:
    found = await erl.aeval("global:whereis_name(N)", N=name)
    return None if found == "undefined" else found


def seen(erl: ErlangNode, name: Any, pid: Pid | None) -> Callable[[], bool]:
    return lambda: erl.eval("global:whereis_name(N)", N=name) == (pid or "undefined")


async def test_names_of_both_sides(peer: ErlangNode, name: str) -> None:
    async with visible(peer, name) as node:
        names, box = node.global_names, node.mailbox()
        theirs = await process(peer)
        assert await peer.aeval("global:register_name(their, P)", P=theirs) == "yes"
        assert names.whereis(Atom("their")) == theirs
        for term in (Atom("ours"), "text", 1, 1.0, (Atom("tuple"), [1, "x"])):
            await names.register(term, box, again=True)
            assert await where(peer, term) == box.pid
            assert names.whereis(term) == box.pid
        assert await where(peer, 2) is None and names.whereis(2) is None
        assert len(names.names()) == 6
        await peer.aeval("global:send(ours, {hello, 42})")
        assert await box.receive(PATIENCE) == ("hello", 42)
        box.close()
        assert names.whereis(Atom("ours")) is None
        await eventually(seen(peer, Atom("ours"), None))
        await peer.aeval("P ! stop", P=theirs)
        await eventually(lambda: names.names() == [])


async def test_a_name_is_taken_once(peer: ErlangNode, name: str) -> None:
    async with visible(peer, name) as node:
        names, box, other = node.global_names, node.mailbox(), node.mailbox()
        theirs = await process(peer)
        await names.register(Atom("n"), box)
        assert await peer.aeval("global:register_name(n, P)", P=theirs) == "no"
        with pytest.raises(NameTaken, match="registered globally"):
            await names.register(Atom("n"), other)
        with pytest.raises(ValueError, match="has a global name already"):
            await names.register(Atom("m"), box)
        await names.register(Atom("n"), other, again=True)
        assert await where(peer, Atom("n")) == other.pid
        assert await peer.aeval("global:re_register_name(n, P)", P=theirs) == "yes"
        assert names.whereis(Atom("n")) == theirs
        await names.unregister(Atom("n"))
        assert await where(peer, Atom("n")) is None
        await names.unregister(Atom("n"))
        await names.register(Atom("theirs"), theirs)  # a process of any node
        assert await where(peer, Atom("theirs")) == theirs
        assert await peer.aeval("global:unregister_name(theirs)") == "ok"
        assert names.names() == []
        await peer.aeval("P ! stop", P=theirs)


async def test_names_from_before_they_met(peer: ErlangNode, name: str) -> None:
    theirs = await process(peer)
    await peer.aeval("global:register_name(early_theirs, P)", P=theirs)
    async with Node(name, hidden=False) as node:
        box = node.mailbox()
        await node.global_names.register(Atom("early_ours"), box)
        await meet(node, peer)
        assert node.global_names.whereis(Atom("early_theirs")) == theirs
        assert await where(peer, Atom("early_ours")) == box.pid
    await eventually(seen(peer, Atom("early_ours"), None))
    assert await where(peer, Atom("early_theirs")) == theirs
    await peer.aeval("P ! stop", P=theirs)


METHODS = ["random_exit_name", "random_notify_name", "notify_all_name"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("first", ["a", "z"])  # of the real node's name: who settles it
async def test_a_name_that_both_have(peer: ErlangNode, name: str, method: str, first: str) -> None:
    name = first + name
    theirs = await peer.aeval(
        "P = spawn(fun() -> receive {ask, A} -> A ! {last, receive M -> M after 5000 -> none end}"
        " end end), yes = global:register_name(both, P, fun global:F/3), P",
        F=Atom(method),
    )
    async with Node(name, hidden=False) as node:
        ours = node.mailbox()
        await node.global_names.register(Atom("both"), ours, resolve=method)
        await meet(node, peer)
        low, high = (ours.pid, theirs) if name < peer.name else (theirs, ours.pid)
        kept = node.global_names.whereis(Atom("both"))
        assert await where(peer, Atom("both")) == kept
        assert kept == (None if method == "notify_all_name" else low)
        told = {
            "random_exit_name": (),
            "random_notify_name": (high,),
            "notify_all_name": (low, high),
        }[method]
        if method == "random_exit_name" and high == ours.pid:
            with pytest.raises(ExitSignal) as e:
                await ours.receive(PATIENCE)
            assert e.value.reason == "killed"
        elif ours.pid in told:
            conflict = await ours.receive(PATIENCE)
            assert conflict[:2] == ("global_name_conflict", "both")
        with node.mailbox() as box:
            if method == "random_exit_name" and high == theirs:
                ref = box.monitor(theirs)
                down = await box.receive(PATIENCE)
                assert down[:4] == ("DOWN", ref, "process", theirs)
            elif theirs in told:
                node.send(theirs, (Atom("ask"), box.pid))
                conflict = (await box.receive(PATIENCE))[1]
                assert conflict[:2] == ("global_name_conflict", "both")
    await peer.aeval("exit(P, kill)", P=theirs)
    await eventually(seen(peer, Atom("both"), None))


async def test_one_of_three_and_the_third_comes_by_itself(erlang: Nodes, name: str) -> None:
    """Connected to one node, it is connected to all, and their names are one."""
    first, second = erlang("one"), erlang("two")
    assert await first.aeval("net_kernel:connect_node(N)", N=Atom(second.name)) is True
    await first.aeval("global:sync()")
    theirs = await process(second)
    assert await second.aeval("global:register_name(of_two, P)", P=theirs) == "yes"
    async with Node(name, hidden=False) as node:
        box = node.mailbox()
        await node.global_names.register(Atom("of_py"), box)
        await meet(node, first)
        await eventually(lambda: sorted(node.nodes()) == sorted([first.name, second.name]))
        assert node.global_names.whereis(Atom("of_two")) == theirs
        await eventually(seen(second, Atom("of_py"), box.pid))
        assert await second.aeval("global:sync()") == "ok"
        third = erlang("three")
        third_own = await process(third)
        assert await third.aeval("global:register_name(of_three, P)", P=third_own) == "yes"
        assert await third.aeval("net_kernel:connect_node(N)", N=Atom(node.name)) is True
        await third.aeval("global:sync()")
        assert await where(third, Atom("of_py")) == box.pid
        assert await where(third, Atom("of_two")) == theirs
        for erl in (first, second):  # told by who has met the third
            await eventually(seen(erl, Atom("of_three"), third_own))
        await eventually(lambda: len(third.eval("nodes()")) == 3)
        for _ in range(20):  # nobody waits for anybody
            began = time.monotonic()
            assert await third.aeval("global:re_register_name(again, self())") == "yes"
            assert time.monotonic() - began < PATIENCE / 2
        await second.aeval("P ! stop", P=theirs)
        await eventually(lambda: node.global_names.whereis(Atom("of_two")) is None)


def parts(nodes: dict[str, set[str]]) -> bool:
    """Whether the cluster falls into parts that do not overlap, each connected throughout."""
    whole = {name: others | {name} for name, others in nodes.items()}
    return all(whole[other] == mine for mine in whole.values() for other in mine)


async def test_parts_do_not_overlap_and_join_again(erlang: Nodes, name: str) -> None:
    """One lost connection of four nodes: real nodes and this one see to it that nobody stands
    with one foot in each part."""
    real = [erlang(n) for n in ("one", "two", "three")]
    async with Node(name, hidden=False) as node:
        for erl in real:
            await meet(node, erl)
            await erl.aeval("global:sync()")

        def connected() -> dict[str, set[str]]:
            seen = {erl.name: {str(n) for n in erl.eval("nodes()")} for erl in real}
            return seen | {node.name: set(node.nodes())}

        await eventually(lambda: all(len(s) == 3 for s in connected().values()))
        for side in range(2):
            if side:
                node.disconnect(real[0].name)
            else:
                await real[0].aeval("erlang:disconnect_node(N)", N=Atom(node.name))
            await eventually(lambda: real[0].name not in node.nodes())
            await eventually(lambda: parts(connected()))
            assert not all(len(s) == 3 for s in connected().values())
            # Who was let go of lately refuses for a moment, as among real nodes: try again.
            kept = [node.keep(erl.name) for erl in real]
            await eventually(lambda: all(len(s) == 3 for s in connected().values()))
            for one in kept:
                one.close()
            async with asyncio.timeout(PATIENCE):
                await node.global_names.sync()
            box = node.mailbox()
            await node.global_names.register(Atom(f"after{side}"), box)
            for erl in real:
                assert await where(erl, Atom(f"after{side}")) == box.pid


async def test_a_busy_program_does_not_keep_others_waiting(peer: ErlangNode, name: str) -> None:
    async with visible(peer, name):
        asked = peer.submit("global:re_register_name(while_busy, self())")
        deadline = time.monotonic() + PATIENCE
        while not asked.done():  # computing, on the loop's own thread
            assert time.monotonic() < deadline
        assert await answer(asked) == "yes"


async def test_locks_that_others_take(peer: ErlangNode, name: str) -> None:
    async with visible(peer, name) as node:
        took = await peer.aeval("global:set_lock({res, self()}, [node() | nodes()], 0)")
        assert took is True  # and its process has ended: the lock is free again
        held = await peer.aeval(
            "S = self(), P = spawn(fun() -> true = global:set_lock({res, 1}), S ! ok,"
            " receive stop -> global:del_lock({res, 1}) end end), receive ok -> P end"
        )
        again = "global:set_lock({res, R}, [N], 0)"
        assert await peer.aeval(again, N=Atom(node.name), R=1) is True  # the same requester
        assert await peer.aeval(again, N=Atom(node.name), R=2) is False
        await peer.aeval("exit(P, kill)", P=held)
        await eventually(lambda: peer.eval(again, N=Atom(node.name), R=2) is True)


async def test_the_names_go_with_the_connection_and_come_back(
    talker: ErlangNode, name: str
) -> None:
    async with visible(talker, name) as node:
        box, theirs = node.mailbox(), await process(talker)
        await node.global_names.register(Atom("ours"), box)
        assert await talker.aeval("global:register_name(theirs, P)", P=theirs) == "yes"
        for _ in range(3):
            async with separated(node, talker):
                node.disconnect(talker.name)
            await eventually(lambda: node.global_names.whereis(Atom("theirs")) is None)
            await eventually(seen(talker, Atom("ours"), None))
            assert node.global_names.whereis(Atom("ours")) == box.pid
            await meet(node, talker)
            assert node.global_names.whereis(Atom("theirs")) == theirs
            assert await where(talker, Atom("ours")) == box.pid
        await talker.aeval("P ! stop", P=theirs)


async def test_a_codec_with_policies_does_not_matter(peer: ErlangNode, name: str) -> None:
    codec = Codec(safe=True, binaries="str", strings="str")
    async with visible(peer, name, codec=codec) as node:
        box = node.mailbox()
        await node.global_names.register("text", box)
        assert await peer.aeval('global:whereis_name(<<"text">>)') == box.pid
        theirs = await peer.aeval(
            "P = spawn(fun() -> receive stop -> ok end end),"
            " yes = global:register_name({unheard_of, P}, P, fun(_, A, _) -> A end), P"
        )
        assert theirs in [node.global_names.whereis(n) for n in node.global_names.names()]
        await peer.aeval("P ! stop", P=theirs)


async def test_what_else_may_be_asked(peer: ErlangNode, name: str) -> None:
    async with visible(peer, name) as node:
        ask = "gen_server:call({global_name_server, N}, Q)"

        async def asked(question: str) -> Any:
            return await peer.aeval(ask.replace("Q", question), N=Atom(node.name))

        assert await asked("get_protocol_version") == 8
        assert await asked("get_known") == [Atom(peer.name)]
        assert await asked("get_synced") == [Atom(peer.name)]
        assert await asked("get_names_ext") == []
        assert await asked("{sync, [node()]}") == "ok"
        box = node.mailbox()
        await peer.aeval("global:register_name_external(ext, P)", P=box.pid)
        assert node.global_names.whereis(Atom("ext")) == box.pid
        assert await asked("get_names_ext") == [(Atom("ext"), box.pid, Atom(peer.name))]
        await peer.aeval("global:unregister_name_external(ext)")
        assert await asked("get_names_ext") == []
        found = await peer.aeval(
            "{global_name_server, N} ! {whereis, none, {self(), tag}},"
            " receive {tag, A} -> A after 20000 -> nothing end",
            N=Atom(node.name),
        )
        assert found == "undefined"
        with pytest.raises(RemoteError, match="undef"):
            await node.rpc(peer.name, "erlang", "no_such_function", [])


@pytest.mark.parametrize("seed", range(SCHEDULES))
async def test_random_schedules_end_the_same_on_both(
    talker: ErlangNode, name: str, seed: int
) -> None:
    dice = random.Random(seed)
    terms = [Atom(f"g{seed}_{number}") for number in range(5)]
    async with visible(talker, f"{dice.choice('az')}{name}") as node:
        names = node.global_names
        boxes: list[Mailbox] = [node.mailbox() for _ in range(4)]
        theirs = [await process(talker) for _ in range(4)]
        for _ in range(OPERATIONS):
            term = dice.choice(terms)
            match dice.randrange(12):
                case 0 | 1 | 2:
                    try:
                        await names.register(
                            term, dice.choice(boxes), resolve=dice.choice(METHODS[1:])
                        )
                    except (NameTaken, ValueError):
                        pass
                case 3:
                    await names.unregister(term)
                case 4 | 5 | 6:
                    await talker.aeval(
                        "global:register_name(N, P, fun global:F/3)",
                        N=term, P=dice.choice(theirs), F=Atom(dice.choice(METHODS[1:])),
                    )  # fmt: skip
                case 7:
                    await talker.aeval("global:unregister_name(N)", N=term)
                case 8:
                    at = dice.randrange(4)
                    boxes[at].close()
                    boxes[at] = node.mailbox()
                case 9:
                    at = dice.randrange(4)
                    await talker.aeval("P ! stop", P=theirs[at])
                    theirs[at] = await process(talker)
                case 10 if dice.random() < 0.4:
                    async with separated(node, talker):
                        node.disconnect(talker.name)
                    if dice.random() < 0.5:
                        await names.register(dice.choice(terms), node.mailbox(), again=True)
                    await meet(node, talker)
        for term in terms:
            await eventually(seen(talker, term, names.whereis(term)))
        for pid in theirs:
            await talker.aeval("exit(P, kill)", P=pid)
