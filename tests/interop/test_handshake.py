"""How nodes meet: who connects, who may, under which names, and what a second meeting does."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import time
from typing import Any

import pytest

from fault.proxy import Faults, Proxy
from interop.erlang import Epmd, ErlangNode, Nodes
from interop.talk import (
    PATIENCE,
    answer,
    both_ways,
    down,
    flags,
    port_of,
    quoted,
    registered,
    separated,
    watch,
)
from router import Atom, HandshakeError, NameTaken, Node, NodeDown, NotAllowed, _core

URING = _core.poller_missing(_core.POLLERS["io_uring"]) is None

ENGINES: list[dict[str, Any]] = [
    {"engine": "auto"},
    {"engine": "thread"},
    {"engine": "thread", "threads": 3},
    *[{"engine": "thread", "threads": 2, "poller": "io_uring"}] * URING,
    {"engine": "inline"},
]

# Who connects


async def test_python_connects(talker: ErlangNode, name: str) -> None:
    async with Node(name) as node:
        assert node.nodes() == []
        await node.connect(talker.name)
        assert node.nodes() == [talker.name]
        assert await flags(talker, node) == "hidden"
        assert await node.ping(talker.name)
        await both_ways(node, talker)
        async with separated(node, talker):
            node.disconnect(talker.name)
        assert node.nodes() == []
        assert await flags(talker, node) is None


async def test_erlang_connects(talker: ErlangNode, name: str) -> None:
    async with Node(name) as node:
        me = quoted(name)
        assert await talker.aeval(f"net_kernel:connect_node({me})") is True
        assert node.nodes() == [talker.name]
        assert await talker.aeval(f"net_adm:ping({me})") == "pong"
        await both_ways(node, talker)
        async with separated(node, talker):
            assert await talker.aeval(f"erlang:disconnect_node({me})") is True
        assert node.nodes() == []


async def test_a_ping_connects(talker: ErlangNode, name: str) -> None:
    async with Node(name) as node:
        assert await talker.aeval(f"net_adm:ping({quoted(name)})") == "pong"
        assert node.nodes() == [talker.name]
        async with separated(node, talker):
            node.disconnect(talker.name)
        assert await node.ping(talker.name)


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_connect_after_a_disconnect_is_a_new_one(
    talker: ErlangNode, name: str, engine: dict[str, Any]
) -> None:
    """It must not be content with the connection that is about to go."""
    async with Node(name, **engine) as node:
        for _ in range(10):
            await node.connect(talker.name)
            node.disconnect(talker.name)
            await node.connect(talker.name)
            await both_ways(node, talker)
            node.disconnect(talker.name)
            assert await node.ping(talker.name)
            node.disconnect(talker.name)

            def on_a_thread() -> bool:
                node.connect_sync(talker.name)
                node.disconnect(talker.name)
                return node.ping_sync(talker.name)

            assert await asyncio.to_thread(on_a_thread)
            node.disconnect(talker.name)
        assert node.stats()[0]["connects"] == 50


def test_connecting_without_a_loop(talker: ErlangNode, name: str) -> None:
    with Node(name) as node:
        node.connect_sync(talker.name)
        assert node.ping_sync(talker.name)
        assert talker.eval(f"net_adm:ping({quoted(name)})") == "pong"
        assert node.ping_sync("nobody@127.0.0.1") is False


@pytest.mark.parametrize("engine", ENGINES)
async def test_every_engine(talker: ErlangNode, name: str, engine: dict[str, Any]) -> None:
    async with Node(name, **engine) as node:
        assert await node.ping(talker.name)
        assert await talker.aeval(f"net_adm:ping({quoted(name)})") == "pong"
        await both_ways(node, talker)


async def test_sending_connects(talker: ErlangNode, name: str) -> None:
    """What is sent before there is a connection waits for it, in order."""
    async with Node(name) as node:
        await talker.aeval("talk:counter(Who, 300)", Who=Atom(name))
        for i in range(1, 301):
            node.send((name, talker.name), (Atom("seq"), i, Atom("x")))
        verdict = await talker.aeval(
            "Who ! {verdict, self()}, receive {_, V} -> V end", Who=Atom(name)
        )
        assert verdict == ("ok", 300)


# Cookies


async def test_a_wrong_cookie_of_ours(talker: ErlangNode, name: str) -> None:
    async with Node(name, cookie="wrong") as node:
        started = time.monotonic()
        with pytest.raises(HandshakeError, match="cookie"):
            await node.connect(talker.name)
        assert time.monotonic() - started < 7
        assert node.nodes() == []
        assert not await node.ping(talker.name)
        assert await flags(talker, node) is None


def test_a_wrong_cookie_of_ours_without_a_loop(talker: ErlangNode, name: str) -> None:
    with Node(name, cookie="wrong") as node, pytest.raises(HandshakeError):
        node.connect_sync(talker.name)


async def test_a_wrong_cookie_of_theirs(
    talker: ErlangNode, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "router")
    async with Node(name, cookie="quite another") as node:
        assert await talker.aeval(f"net_kernel:connect_node({quoted(name)})") is False
        assert await talker.aeval(f"net_adm:ping({quoted(name)})") == "pang"
        assert node.nodes() == []
    assert f"refused a connection from {talker.name}" in caplog.text
    assert "quite another" not in caplog.text
    assert "secret" not in caplog.text


async def test_a_cookie_of_its_own_when_we_connect(talker: ErlangNode, name: str) -> None:
    async with Node(name, cookie="of ours") as node:
        await node.connect(talker.name, cookie=talker.cookie)
        async with separated(node, talker):
            node.disconnect(talker.name)
        await node.connect(talker.name)  # it was kept
        # And counts when that node connects to us.
        async with separated(node, talker):
            node.disconnect(talker.name)
        assert await talker.aeval(f"net_adm:ping({quoted(name)})") == "pong"


async def test_a_cookie_of_its_own_in_erlang(talker: ErlangNode, name: str) -> None:
    await talker.aeval(f"erlang:set_cookie({quoted(name)}, 'of ours')")
    async with Node(name, cookie="of ours") as node:
        assert await talker.aeval(f"net_adm:ping({quoted(name)})") == "pong"
        async with separated(node, talker):
            node.disconnect(talker.name)
        await node.connect(talker.name)
        await both_ways(node, talker)


# Who may


async def test_not_allowed(erlang: Nodes, name: str) -> None:
    erl = erlang("closed")
    await erl.aeval("net_kernel:allow(['friend@127.0.0.1'])")
    async with Node(name) as node, Node("friend@127.0.0.1") as friend:
        with pytest.raises(NotAllowed, match=erl.name):
            await node.connect(erl.name)
        await friend.connect(erl.name)
        assert await erl.aeval(f"net_kernel:connect_node({quoted(name)})") is False


async def test_a_node_that_wants_a_name_from_us_is_refused(erlang: Nodes, name: str) -> None:
    """`-sname undefined` asks the first node it meets for a name; this one hands out none."""
    erl = erlang("undefined", short=True)
    async with Node("py@localhost") as node:
        assert await erl.aeval("net_kernel:connect_node('py@localhost')") is False
        assert node.nodes() == []


async def test_nobody_there(name: str, epmd: Epmd) -> None:
    async with Node(name) as node:
        with pytest.raises(NodeDown, match="knows no node"):
            await node.connect("nobody@127.0.0.1")
        with pytest.raises(NodeDown, match="unknown host"):
            await node.connect("nobody@no-such-host.invalid")


# Hidden and visible


async def test_a_visible_node(erlang: Nodes, name: str) -> None:
    """`global` of a real node meets the new one and finds nobody of its kind there. It must not
    part the nodes for that, nor keep those that know each other from agreeing."""
    a, b = erlang("a"), erlang("b")
    for erl in (a, b):
        erl.load("talk.erl")
    async with Node(name, hidden=False) as node:
        await node.connect(a.name)
        assert await b.aeval(f"net_kernel:connect_node({quoted(name)})") is True
        assert await a.aeval(f"net_adm:ping({quoted(b.name)})") == "pong"
        erlangs = [erl.submit("talk:gone(Node, 3000)", Node=Atom(name)) for erl in (a, b)]
        assert [await answer(gone) for gone in erlangs] == ["timeout", "timeout"]
        for erl in (a, b):
            assert await flags(erl, node) == "visible"
        registered = "yes = global:register_name(N, self()), global:whereis_name(N)"
        assert (await a.aeval(registered, N=Atom("one"))).node == a.name
        assert await b.aeval("global:trans({lock, self()}, fun() -> done end)") == "done"
        assert sorted(node.nodes()) == [a.name, b.name]


async def test_a_hidden_erlang_node(erlang: Nodes, name: str) -> None:
    erl = erlang("unseen", hidden=True)
    async with Node(name) as node:
        await node.connect(erl.name)
        assert await flags(erl, node) == "hidden"
        await both_ways(node, erl)


# Names


async def test_a_name_that_a_real_node_has(talker: ErlangNode) -> None:
    with pytest.raises(NameTaken, match=talker.name.partition("@")[0]):
        await Node(talker.name).start()
    with pytest.raises(NameTaken):
        Node(talker.name).start_sync()


async def test_a_real_node_finds_its_name_taken(erlang: Nodes, name: str) -> None:
    async with Node(name):
        with pytest.raises(RuntimeError, match=r"(?s)ended at start.*in use"):
            await asyncio.to_thread(erlang, name)
    erlang(name)


async def test_short_names(erlang: Nodes) -> None:
    erl = erlang("short", short=True)
    async with Node("py@localhost") as node:
        await node.connect("short@localhost")
        assert await flags(erl, node) == "hidden"
        assert await erl.aeval("net_adm:ping('py@localhost')") == "pong"
        await both_ways(node, erl)


async def test_a_short_name_by_the_hosts_own_name(erlang: Nodes) -> None:
    host = socket.gethostname().partition(".")[0]
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        pytest.skip(f"this machine does not resolve its own name {host!r}")
    erl = erlang(f"short@{host}", short=True)
    async with Node(f"py@{host}") as node:
        assert await node.ping(f"short@{host}")
        assert await erl.aeval(f"net_adm:ping('py@{host}')") == "pong"


async def test_names_of_many_letters(erlang: Nodes) -> None:
    long = "n" * 200
    erl = erlang(long)
    mine = "p" * 190 + "@127.0.0.1"
    async with Node(mine) as node:
        await node.connect(erl.name)
        await both_ways(node, erl)
        assert await erl.aeval(f"net_adm:ping({quoted(mine)})") == "pong"


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.skipif(not has_ipv6(), reason="no ::1 in this kernel")
async def test_ipv6(erlang: Nodes) -> None:
    erl = erlang("six", ipv6=True)
    async with Node("py@::1") as node:
        await node.connect("six@::1")
        await both_ways(node, erl)
        erl.load("talk.erl")
        async with separated(node, erl):
            node.disconnect(erl.name)
        assert await erl.aeval("net_adm:ping('py@::1')") == "pong"
        await both_ways(node, erl)
    async with Node("named@localhost", listen="::1") as node:
        await node.connect("six@::1")
        await both_ways(node, erl)


# Twice


ORDER = pytest.mark.parametrize("mine", ["aaa", "zzz"], ids=["python lower", "python higher"])


@ORDER
async def test_our_attempt_is_under_way_when_theirs_comes(talker: ErlangNode, mine: str) -> None:
    """The real node is asked by this one and has not heard it yet; then it asks itself. The
    attempt of the higher name goes on, and who waited for the other is content with it."""
    me = f"{mine}@127.0.0.1"
    with Proxy(("127.0.0.1", port_of(talker))) as proxy:
        async with Node(me) as node:
            box = node.mailbox("box")
            proxy.hold("up")
            ours = asyncio.create_task(node.connect(talker.name, host="127.0.0.1", port=proxy.port))
            # The first words are in the proxy's hands, at the latest, when it has a connection.
            await asyncio.to_thread(proxy.wait_until, lambda: proxy.open_connections() == 1)
            node.send(("nobody", talker.name), 1)
            theirs = talker.submit(
                "{box, Node} ! early, net_kernel:connect_node(Node)", Node=Atom(me)
            )
            if mine == "aaa":
                assert await answer(theirs) is True
            else:
                # `nok` was said; what the real node does with that shows when it may go on.
                await asyncio.to_thread(proxy.release, "up")
                assert await answer(theirs) is True
            await ours
            assert node.nodes() == [talker.name]
            assert await box.receive(PATIENCE) == "early"
            await both_ways(node, talker)
            proxy.release("up")
            assert node.stats()[0]["connects"] == 1
            assert node.stats()[0]["dropped_out"] == 0


@ORDER
async def test_their_attempt_is_under_way_when_ours_comes(
    talker: ErlangNode, epmd: Epmd, mine: str
) -> None:
    me = f"{mine}@127.0.0.1"
    async with Node(me, epmd="none") as node:
        box = node.mailbox("box")
        with Proxy(("127.0.0.1", node.port)) as proxy, registered(epmd, mine, proxy.port):
            proxy.hold("up")
            theirs = talker.submit(
                "{box, Node} ! early, net_kernel:connect_node(Node)", Node=Atom(me)
            )
            await asyncio.to_thread(proxy.wait_until, lambda: proxy.open_connections() == 1)
            ours = asyncio.create_task(
                node.connect(talker.name, host="127.0.0.1", port=port_of(talker))
            )
            if mine == "zzz":
                await ours
            proxy.release("up")
            await ours
            assert await answer(theirs) is True
            assert node.nodes() == [talker.name]
            assert await box.receive(PATIENCE) == "early"
            await both_ways(node, talker)
            assert node.stats()[0]["connects"] == 1


async def test_both_attempts_are_all_but_done(talker: ErlangNode, epmd: Epmd) -> None:
    """Theirs lacks one word to us when ours is heard there: the real node, lower in name, has
    then given up its own, so that word must not make it the connection."""
    me = "zzz@127.0.0.1"
    async with Node(me, epmd="none") as node:
        box = node.mailbox("box")
        with (
            Proxy(("127.0.0.1", node.port), up=Faults(delay=0.3)) as theirs,
            Proxy(("127.0.0.1", port_of(talker))) as ours,
            registered(epmd, "zzz", theirs.port),
        ):
            begun = talker.submit(
                "{box, Node} ! early, net_kernel:connect_node(Node)", Node=Atom(me)
            )
            name = 2 + 1 + 8 + 4 + 2 + len(talker.name)
            await asyncio.to_thread(theirs.wait_until, lambda: theirs.forwarded("up") == name)
            theirs.hold("up")
            # Welcomed here; what it says to that is on its way as long as we like.
            sent = (
                "[N || P <- erlang:ports(), {ok, {_, To}} <- [catch inet:peername(P)],"
                " To =:= Port, {ok, [{send_cnt, N}]} <- [inet:getstat(P, [send_cnt])]]"
            )
            while await talker.aeval(sent, Port=theirs.port) != [2]:
                pass
            ours.hold("down")
            task = asyncio.create_task(node.connect(talker.name, host="127.0.0.1", port=ours.port))
            await asyncio.to_thread(ours.wait_until, lambda: ours.forwarded("up") > 0)
            theirs.release("up")
            await asyncio.to_thread(theirs.wait_until, lambda: theirs.forwarded("up") > name)
            ours.release("down")
            await task
            assert await answer(begun) is True
            assert node.nodes() == [talker.name]
            assert await box.receive(PATIENCE) == "early"
            await both_ways(node, talker)
            assert node.stats()[0]["connects"] == 1


@ORDER
@pytest.mark.parametrize("rounds", [15, pytest.param(300, marks=pytest.mark.slow)])
async def test_both_connect_at_once(talker: ErlangNode, mine: str, rounds: int) -> None:
    """Whoever wins, there is one connection, and what was sent after a connect arrives."""
    rng = random.Random(mine)
    me = f"{mine}@127.0.0.1"
    async with Node(me) as node:
        box = node.mailbox("box")
        for round_ in range(rounds):
            moment = time.time_ns() // 1000 + 8_000
            theirs = talker.submit(
                "true = talk:connect_at(Node, Moment), {box, Node} ! {I, self()},"
                " receive Answer -> Answer =:= {I, back} after 20000 -> nothing end",
                Node=Atom(me), Moment=moment + rng.randrange(-500, 1500), I=round_,
            )  # fmt: skip
            # Spins, on purpose: the loop's own clock is too coarse to meet anybody with.
            while time.time_ns() // 1000 < moment:
                pass
            await node.connect(talker.name)
            assert node.nodes() == [talker.name]
            seen, pid = await box.receive(PATIENCE)
            assert seen == round_
            node.send(pid, (round_, Atom("back")))
            assert await answer(theirs) is True
            assert await flags(talker, node) == "hidden"
            async with separated(node, talker):
                node.disconnect(talker.name)
            assert box.waiting == 0
        (row,) = node.stats()
        assert row["connects"] == rounds
        assert row["dropped_in"] == row["dropped_out"] == 0


async def test_a_new_connection_while_theirs_of_us_still_stands(
    talker: ErlangNode, epmd: Epmd, name: str
) -> None:
    """This node went away without a word and comes back: the real one says `alive` and gives up
    the connection that is dead."""
    with Proxy(("127.0.0.1", port_of(talker))) as proxy:
        async with Node(name, epmd="none") as first:
            await first.connect(talker.name, host="127.0.0.1", port=proxy.port)
            before = first.creation
            old = first.mailbox().pid
            assert await flags(talker, first) == "hidden"
            proxy.hold("up")  # from here on nothing reaches the real node
        assert await talker.aeval("nodes(hidden)") == [name]
        gone = await watch(talker, name)
        async with Node(name) as second:
            assert second.creation != before
            await second.connect(talker.name)
            await gone()
            await both_ways(second, talker)
            await talker.aeval("Old ! to_the_dead, ok", Old=old)
            assert second.nodes() == [talker.name]


async def test_a_new_connection_while_ours_of_them_still_stands(erlang: Nodes, name: str) -> None:
    """The real node was killed and its end did not get here; it starts again and connects."""
    erl = erlang("phoenix")
    with Proxy(("127.0.0.1", port_of(erl))) as proxy:
        async with Node(name) as node:
            box = node.mailbox("box")
            node.monitor_nodes(box)
            await node.connect(erl.name, host="127.0.0.1", port=proxy.port)
            assert await box.receive(PATIENCE) == ("nodeup", erl.name)
            proxy.hold("down")
            erl.kill()
            assert node.nodes() == [erl.name]
            await asyncio.to_thread(erl.start)
            assert await erl.aeval(f"net_adm:ping({quoted(name)})") == "pong"
            assert await box.receive(PATIENCE) == ("nodedown", erl.name)
            assert await box.receive(PATIENCE) == ("nodeup", erl.name)
            await both_ways(node, erl)


async def test_pids_of_an_earlier_life_reach_nobody(talker: ErlangNode, name: str) -> None:
    async with Node(name) as node:
        old_box = node.mailbox()
        old = old_box.pid
        await node.connect(talker.name)
        first = node.creation
    async with Node(name) as node:
        boxes = [node.mailbox() for _ in range(20)]
        assert node.creation != first
        await node.connect(talker.name)
        # Some box has the numbers of the old one; only the creation tells them apart.
        assert any((b.pid.id, b.pid.serial) == (old.id, old.serial) for b in boxes)
        await talker.aeval("Old ! lost, New ! found, ok", Old=old, New=boxes[-1].pid)
        assert await boxes[-1].receive(PATIENCE) == "found"
        assert all(not box.waiting for box in boxes)
        assert node.stats()[0]["dropped_in"] == 1


async def test_pids_of_an_earlier_life_of_erlang_reach_nobody(erlang: Nodes, name: str) -> None:
    erl = erlang("reborn")
    async with Node(name) as node:
        watch = node.mailbox()
        node.monitor_nodes(watch)
        await node.connect(erl.name)
        old = await erl.aeval("spawn(fun() -> receive never -> ok end end)")
        await asyncio.to_thread(erl.restart)
        await down(watch, erl.name)
        with node.mailbox() as box:
            ref = box.monitor(old)
            assert await box.receive(PATIENCE) == ("DOWN", ref, "process", old, "noproc")
        await both_ways(node, erl)
