"""Finding each other: a real epmd, the one a node serves itself, and none at all.

What real nodes do when their port mapper goes away: their erl_epmd notices the closed connection
and registers again every 2 seconds (OTP 25 and 28 alike). So does this node, sooner.
"""

from __future__ import annotations

import asyncio
import logging

import pytest

from interop.erlang import Epmd, ErlangNode, Nodes, Otp
from interop.talk import both_ways, eventually, names, port_of, quoted
from router import NameTaken, Node, NodeDown


def short(name: str) -> str:
    return name.partition("@")[0]


async def pinged(a: ErlangNode, b: str) -> bool:
    return bool(await a.aeval(f"net_adm:ping({quoted(b)})") == "pong")


# A real one


async def test_a_real_port_mapper(private_epmd: Epmd, erlang: Nodes, name: str) -> None:
    erl = erlang("real")
    async with Node(name) as node:
        assert names(private_epmd.port) == {"real": port_of(erl), short(name): node.port}
        assert await erl.aeval("{ok, L} = net_adm:names(), lists:sort(L)") == sorted(
            [([*map(ord, n)], p) for n, p in names(private_epmd.port).items()]
        )
        assert await pinged(erl, name)
    await eventually(lambda: set(names(private_epmd.port)) == {"real"})
    async with Node(name, listen=False) as node:
        assert set(names(private_epmd.port)) == {"real"}
        assert await node.ping(erl.name)


def test_a_real_one_is_restarted(private_epmd: Epmd, erlang: Nodes, name: str) -> None:
    """A node that is not driven meanwhile finds the new one and registers with that."""
    erl = erlang("real")
    with Node(name, engine="inline") as node, node.mailbox() as box:
        private_epmd.restart()
        assert names(private_epmd.port) == {}
        while short(name) not in names(private_epmd.port):
            with pytest.raises(TimeoutError):
                box.get(0.05)
        assert names(private_epmd.port)[short(name)] == node.port
        # The real node comes back too, in its own time.
        while "real" not in names(private_epmd.port):
            with pytest.raises(TimeoutError):
                box.get(0.05)
        assert node.ping_sync(erl.name)


async def test_a_real_one_dies(
    private_epmd: Epmd, erlang: Nodes, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """This node takes its place, and the real nodes register here."""
    caplog.set_level(logging.INFO, "router")
    port = private_epmd.port
    a, b = erlang("a"), erlang("b")
    async with Node(name) as node:
        await node.connect(a.name)
        private_epmd.kill()
        await eventually(lambda: short(name) in names(port))
        assert node.nodes() == [a.name]
        assert "the port mapper went away" in caplog.text
        assert "serving the port mapper" in caplog.text
        await eventually(lambda: {"a", "b"} <= set(names(port)))
        assert names(port) == {"a": port_of(a), "b": port_of(b), short(name): node.port}
        assert await pinged(a, b.name)
        assert await pinged(b, name)
        assert await pinged(await asyncio.to_thread(erlang, "late"), name)


# One of our own


async def test_real_nodes_use_ours(no_epmd: int, erlang: Nodes, name: str) -> None:
    async with Node(name) as node:
        assert names(no_epmd) == {short(name): node.port}
        a = await asyncio.to_thread(erlang, "a")
        b = await asyncio.to_thread(erlang, "b")
        known = {"a": port_of(a), "b": port_of(b), short(name): node.port}
        assert names(no_epmd) == known
        for erl in (a, b):
            assert await erl.aeval("{ok, L} = net_adm:names(), lists:sort(L)") == sorted(
                [([*map(ord, n)], p) for n, p in known.items()]
            )
        assert await pinged(a, b.name)
        assert await pinged(a, name)
        await both_ways(node, b)
        with pytest.raises(RuntimeError, match=r"(?s)ended at start.*in use"):
            await asyncio.to_thread(erlang, "a")
        with pytest.raises(NameTaken):
            await Node("b@127.0.0.1").start()
        await asyncio.to_thread(b.kill)
        await eventually(lambda: set(names(no_epmd)) == {"a", short(name)})
        with pytest.raises(NodeDown, match="knows no node"):
            await node.connect("nobody@127.0.0.1")
        assert await a.aeval('erl_epmd:port_please("nobody", {127,0,0,1})') == "noport"
        await asyncio.to_thread(b.start)
        assert await node.ping(b.name)


async def test_the_epmd_command_asks_ours(no_epmd: int, otp: Otp, name: str) -> None:
    async with Node(name) as node:
        command = [*otp.epmd, "-port", str(no_epmd), "-names"]
        asked = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        said, _ = await asked.communicate()
        assert f"name {short(name)} at port {node.port}" in said.decode()


async def test_another_takes_over(no_epmd: int, erlang: Nodes, name: str) -> None:
    first = Node(name)
    await first.start()
    async with Node("second@127.0.0.1") as second, Node("third@127.0.0.1") as third:
        erl = await asyncio.to_thread(erlang, "real")
        everybody = {"second": second.port, "third": third.port, "real": port_of(erl)}
        assert names(no_epmd) == everybody | {short(name): first.port}
        await first.stop()
        # Without a gap that a patient caller would notice; the real node within its 2 seconds.
        await eventually(lambda: names(no_epmd) == everybody)
        assert await pinged(erl, second.name)
        assert await pinged(erl, third.name)
        assert await second.ping(third.name)
        assert await third.ping(erl.name)
        assert erl.name in third.nodes()
        # The first comes back and is a guest now.
        async with Node(name) as first:
            assert names(no_epmd) == everybody | {short(name): first.port}
            assert await pinged(erl, name)


# None


async def test_without_a_port_mapper(
    talker: ErlangNode, name: str, monkeypatch: pytest.MonkeyPatch, epmd_port: int
) -> None:
    port = port_of(talker)
    monkeypatch.setenv("ERL_EPMD_PORT", str(epmd_port))
    async with Node(name, epmd="none") as node:
        assert names(epmd_port) == {}
        with pytest.raises(NodeDown, match="no port mapper"):
            await node.connect(talker.name)
        await node.connect(talker.name, host="127.0.0.1", port=port)
        await both_ways(node, talker)
        node.disconnect(talker.name)
        assert await node.ping(talker.name)  # the address was kept


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
async def test_a_resolver(talker: ErlangNode, name: str, kind: str) -> None:
    port = port_of(talker)
    asked: list[str] = []

    def plain(who: str) -> tuple[str, int]:
        asked.append(who)
        if who == talker.name:
            return "127.0.0.1", port
        raise LookupError(f"{who} is not in the directory")

    async def coroutine(who: str) -> tuple[str, int]:
        await asyncio.sleep(0)
        return plain(who)

    resolver = plain if kind == "plain" else coroutine
    async with Node(name, epmd="none", resolver=resolver) as node:
        with node.mailbox() as box:
            node.send(("init", talker.name), box.pid)  # also when sending connects
            assert await node.ping(talker.name)
        with pytest.raises(NodeDown, match="not in the directory"):
            await node.connect("nobody@127.0.0.1")
        assert asked == [talker.name, "nobody@127.0.0.1"]


async def test_two_nodes_without_a_port_mapper(no_epmd: int, erlang: Nodes, name: str) -> None:
    """A real node finds one that is registered nowhere only when that one connects."""
    async with Node(name) as mapper, Node("hermit@127.0.0.1", epmd="none") as hermit:
        erl = await asyncio.to_thread(erlang, "real")
        assert "hermit" not in names(no_epmd)
        assert not await pinged(erl, "hermit@127.0.0.1")
        await hermit.connect(erl.name, host="127.0.0.1", port=port_of(erl))
        assert await pinged(erl, "hermit@127.0.0.1")
        await both_ways(hermit, erl)
        assert mapper.nodes() == []
