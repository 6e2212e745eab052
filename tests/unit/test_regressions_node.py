"""Faults of the node layer that a review found; each test failed before its fault was mended."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from typing import Any

import pytest

from fault.peer import MANDATORY, Atom, Flag, Link, Peer, long
from fault.peer import bare as term_bytes
from router import Codec, DecodeError, ExitSignal, Mailbox, Node

from .conftest import Pair, new_name, run_by

EXIT, REG_SEND = 3, 6


def joined(node: Node, peer: Peer) -> Link:
    """A peer that has connected and that the node knows to be up."""
    news = node.mailbox()
    node.monitor_nodes(news)
    link = peer.connect(node.port)
    assert news.get(5) == ("nodeup", peer.name)
    return link


async def test_signals_of_an_ended_connection_leave_at_once(pair: Pair, engine: str) -> None:
    """They are for a third node, and made while the engine ends the connection: in the middle
    of its turn, when nobody is there who would wake it for them. They waited for a tick."""
    driven = run_by(engine)
    async with pair(**driven) as (a, b), pair(**driven) as (c, _):
        middle, one, two = a.mailbox(), b.mailbox(), c.mailbox()
        two.trap_exit = True
        middle.link(one.pid)
        middle.link(two.pid)
        assert await a.ping(b.name) and await a.ping(c.name)
        await asyncio.sleep(0.3)  # nothing else is to make the engine turn once more
        a.disconnect(b.name)
        assert await two.receive(3) == ("EXIT", middle.pid, "noconnection")


def test_a_long_reason_for_a_peer_of_old_exits_that_knows_fragments(bare: dict[str, Any]) -> None:
    """There the reason is part of the control tuple, which must not be cut. What was sent in its
    place was memory of the node's."""
    with Node(new_name(), **bare) as node:
        link = joined(node, Peer(flags=MANDATORY | Flag.FRAGMENTS))
        box, them = node.mailbox(), link.peer.pid()
        box.link(them)
        assert link.hear()[0] == (1, box.pid, them)
        reason = (Atom("long"), b"x" * 200_000)
        box.close(reason)
        assert link.hear()[0] == (EXIT, box.pid, them, reason)
        node.send(them, "still here")
        assert link.hear()[1] == b"still here"


class Gate:
    """A relay of one connection that passes on only what it is told to."""

    def __init__(self) -> None:
        self.accepted = asyncio.Event()

    async def open(self, target: int) -> int:
        self._target = target
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def _accept(self, r: asyncio.StreamReader, w: asyncio.StreamWriter) -> None:
        self._caller = r, w
        self._callee = await asyncio.open_connection("127.0.0.1", self._target)
        self.accepted.set()

    async def there(self) -> bytes:
        """One handshake packet of the caller's."""
        return await self._packet(self._caller[0], self._callee[1])

    async def back(self) -> bytes:
        """One of the answers."""
        return await self._packet(self._callee[0], self._caller[1])

    @staticmethod
    async def _packet(r: asyncio.StreamReader, w: asyncio.StreamWriter) -> bytes:
        head = await r.readexactly(2)
        body = await r.readexactly(int.from_bytes(head))
        w.write(head + body)
        return body

    def lift(self) -> None:
        """Everything passes from now on."""
        pairs = ((self._caller[0], self._callee[1]), (self._callee[0], self._caller[1]))
        self._pumps = [asyncio.create_task(self._pump(r, w)) for r, w in pairs]

    @staticmethod
    async def _pump(r: asyncio.StreamReader, w: asyncio.StreamWriter) -> None:
        try:
            while data := await r.read(65536):
                w.write(data)
        except OSError:
            pass
        w.close()

    async def close(self) -> None:
        self._server.close()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        for _, w in (self._caller, self._callee):
            w.close()


@pytest.mark.parametrize("first", ["lower", "higher"])
async def test_connects_that_cross_late_settle_on_one(
    bare: dict[str, Any], first: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The lower node's attempt is let in before the higher one makes its own; then both
    handshakes reach their last step together. Each node took the connection that the other
    one dropped, and what waited was lost with both."""
    async with Node("lower@127.0.0.1", **bare) as low, Node("upper@127.0.0.1", **bare) as high:
        of_low, of_high = Gate(), Gate()
        low._addresses[high.name] = "127.0.0.1", await of_low.open(high.port)
        high._addresses[low.name] = "127.0.0.1", await of_high.open(low.port)
        boxes = low.mailbox("box"), high.mailbox("box")
        news = [node.mailbox() for node in (low, high)]
        low.monitor_nodes(news[0])
        high.monitor_nodes(news[1])
        low.send(("box", high.name), "up")
        await of_low.accepted.wait()
        await of_low.there()
        assert await of_low._callee[0].readexactly(5) == b"\0\3sok"
        of_low._caller[1].write(b"\0\3sok")
        high.send(("box", low.name), "down")
        await of_high.accepted.wait()
        await of_high.there()
        assert await of_high.back() == b"sok_simultaneous"
        await of_high.back()
        await of_low.back()  # both challenges
        gates = [of_low, of_high] if first == "lower" else [of_high, of_low]
        for gate in gates:  # and both answers to them, the last that the callers have to say
            await gate.there()
        of_low.lift()
        of_high.lift()
        assert [await box.receive(5) for box in boxes] == [b"down", b"up"]
        assert [await box.receive(5) for box in news] == [
            ("nodeup", high.name),
            ("nodeup", low.name),
        ]
        assert await low.ping(high.name) and await high.ping(low.name)
        assert not any(box.waiting for box in news)
        await of_low.close()
        await of_high.close()
    # Normal life: it was warned of.
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


def test_threads_that_stop_a_node_together(bare: dict[str, Any]) -> None:
    """Each of them joined the engine's thread; the second waited for ever."""
    for engine in ("auto", "thread", "threads", "inline") * 10:
        node = Node(new_name(), **run_by(engine), **bare)
        node.start_sync()
        start = threading.Barrier(3)

        def stop(node: Node = node, start: threading.Barrier = start) -> None:
            start.wait()
            node.stop_sync()

        threads = [threading.Thread(target=stop, daemon=True) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
        assert not node.running


@pytest.mark.parametrize("driven", ["auto", "thread", "threads"])
async def test_what_was_gathered_leaves_while_the_loop_is_blocked(
    bare: dict[str, Any], driven: str
) -> None:
    """The end of the loop's turn, when it would be written, does not come."""
    async with Node(new_name("a"), **run_by(driven), **bare) as a:
        with Node(new_name("b"), engine="thread", **bare) as b:
            box = b.mailbox("box")
            await a.connect(b.name, host="127.0.0.1", port=b.port)
            for i in range(5):
                a.send(("box", b.name), i)
            assert [box.get(10) for _ in range(5)] == list(range(5))  # blocks this thread


def test_a_closed_box_leaves_no_relations(bare: dict[str, Any]) -> None:
    """Its end was over when they came: nothing would ever have taken them away."""
    with Node(new_name(), **bare) as node:
        link = joined(node, Peer())
        box = node.mailbox()
        box.close("gone")
        for use in (
            box.alias,
            lambda: box._spawn_request(link.peer.name, "m", "f", [], []),
            lambda: box.monitor(link.peer.pid()),
            lambda: box.link(link.peer.pid()),
        ):
            with pytest.raises(ExitSignal, match="gone"):
                use()
        assert not node._relation_count()


def test_an_interrupted_callback_leaves_the_loop_hearing(bare: dict[str, Any], engine: str) -> None:
    """In a notebook the loop runs on. The other box that was ready was forgotten, and the loop
    was never woken for the node again."""
    heard: list[Any] = []

    def callback(terms: list[Any]) -> None:
        heard.extend(terms)
        if terms == [b"interrupt"]:
            raise KeyboardInterrupt

    async def begin(node: Node) -> asyncio.Task[Any]:
        await node.start()
        node.mailbox("one").on_messages(callback)
        task = asyncio.create_task(node.mailbox("two").receive(10))
        await asyncio.sleep(0)
        return task

    async def send(node: Node, *names: str) -> None:
        for name in names:
            node.send(name, "interrupt" if len(names) > 1 else "later")
        await asyncio.sleep(30)

    async def wait(node: Node, task: asyncio.Task[Any]) -> None:
        node.send("one", "later")
        assert await task == b"interrupt"
        while heard[-1] != b"later":
            await asyncio.sleep(0)

    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        node = Node(new_name(), **run_by(engine), **bare)
        task = loop.run_until_complete(begin(node))
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(send(node, "one", "two"))
        loop.run_until_complete(asyncio.wait_for(wait(node, task), 10))
        loop.run_until_complete(node.stop())


def test_terms_that_were_refused_make_room_too(bare: dict[str, Any]) -> None:
    """A box that pauses its peers was closed as overfull though it had been read empty, when
    all that was in it was refused by the codec."""
    limits = {"pause_ms_max": 500}
    with Node(new_name(), codec=Codec(safe=True), limits=limits, **bare) as node:
        box = node.mailbox("box", limit=1, overflow="pause")
        peer = Peer()
        link = joined(node, peer)
        stranger = b"w\x11no_such_atom_here"
        control = link.frame((REG_SEND, peer.pid(), Atom(""), Atom("box")))[4:]
        link.send(long(control + stranger) * 2)
        fence = node.mailbox("fence")
        link.say((REG_SEND, peer.pid(), Atom(""), Atom("fence")), 1)
        assert fence.get(5) == 1
        for _ in range(2):
            with pytest.raises(DecodeError):
                box.get_many(10, 5)
        with pytest.raises(TimeoutError):
            box.get(1)
        assert not box.closed


def test_a_reason_the_codec_refuses_ends_a_box_too(bare: dict[str, Any]) -> None:
    """Receiving raised DecodeError for ever, where it has to say that the process ended."""
    with Node(new_name(), codec=Codec(safe=True), **bare) as node:
        peer = Peer()
        link = joined(node, peer)
        box = node.mailbox()
        stranger = b"w\x14a_reason_of_the_peer"
        link.send(
            long(b"\x83D\0h\4a\x08" + term_bytes(peer.pid()) + term_bytes(box.pid) + stranger)
        )
        with pytest.raises(ExitSignal, match="a_reason_of_the_peer"):
            box.get(5)


def test_signals_are_told_whatever_the_codec_refuses(bare: dict[str, Any]) -> None:
    """With Codec(safe=True) a node refused its own words, DOWN and nodeup among them."""
    codec = Codec(safe=True, binaries="str")
    with Node(new_name(), codec=codec, **bare) as node:
        peer = Peer()
        box = node.mailbox()
        node.monitor_nodes(box)
        link = joined(node, peer)
        assert box.get(5) == ("nodeup", peer.name)
        box.trap_exit = True
        ref = box.monitor(peer.pid())
        link.hear()
        reason = b"h\2w\x11stopped_over_thatm\0\0\0\1\xff"
        exits = ((26, peer.pid(), box.pid), (28, peer.pid(), box.pid, ref))
        for control in exits:  # what stands after the control tuple is the reason
            link.send(long(link.frame(control)[4:] + reason))
        assert box.get(5) == ("EXIT", peer.pid(), ("stopped_over_that", b"\xff"))
        assert box.get(5) == ("DOWN", ref, "process", peer.pid(), ("stopped_over_that", b"\xff"))
        link.close()
        assert box.get(5) == ("nodedown", peer.name)


def test_ticks_come_every_quarter(bare: dict[str, Any]) -> None:
    """A tick counted as something that was said, so that only every other one was sent."""
    with Node(new_name(), net_ticktime=2.0, **bare) as node:
        link = joined(node, Peer())
        link.hear_tick()
        begun = time.monotonic()
        for _ in range(3):
            link.tick()
            link.hear_tick()
        assert time.monotonic() - begun < 2.3


async def test_stopping_says_what_it_loses(
    bare: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Messages that waited for a connection were counted, and the log knew nothing of it."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with Node(new_name(), **bare) as node:
            node._addresses["silent@127.0.0.1"] = silent.getsockname()
            for i in range(3):
                node.send(("box", "silent@127.0.0.1"), i)
        assert node.stats()["dropped_out"][0] == 3
        assert "3 messages lost" in caplog.text


def test_a_mailbox_of_no_node() -> None:
    with pytest.raises(TypeError):
        Mailbox(None)  # type: ignore[arg-type]


async def test_a_disconnect_loses_nothing_that_was_sent_before(pair: Pair, engine: str) -> None:
    """What a turn of the loop had gathered went with the connection."""
    async with pair(**run_by(engine)) as (a, b):
        box = b.mailbox("in")
        for _ in range(10):
            await a.connect(b.name)
            for i in range(50):
                a.send(("in", b.name), i)
            a.disconnect(b.name)
            seen: list[Any] = []
            while len(seen) < 50:
                seen += await box.receive_many(timeout=5)
            assert seen == list(range(50))
        assert int(a.stats()["dropped_out"][0]) == 0


async def test_what_is_said_where_a_peer_is_up_makes_no_connection(pair: Pair) -> None:
    """A process group or the global names said something to a peer whose end they had not been
    told of yet, and so brought it back."""
    async with pair() as (a, b):
        box = b.mailbox("in")
        a._send_where_up(("in", b.name), "nobody hears it", None)
        assert a.nodes() == [] and not a.stats()["connects"].any()
        await a.connect(b.name)
        a._send_where_up(("in", b.name), "heard", box.pid)
        assert await box.receive(5) == b"heard"
        here = a.mailbox("here")
        a._send_where_up("here", 1, None)
        assert await here.receive(5) == 1
