"""Messages between nodes on every kind of loop and engine, and in threads without a loop."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import socket
import threading
import time
from typing import Any

import pytest

from router import (
    Atom,
    BufferFull,
    EncodeError,
    Mailbox,
    Node,
    NodeDown,
    NoProcess,
    RouterError,
    _core,
)
from router.cli.common import free_port

from .conftest import Pair, new_name, run_by


async def test_by_pid_by_name_and_by_alias(pair: Pair, loop_kind: str, engine: str) -> None:
    async with pair(**run_by(engine)) as (a, b):
        box, other = a.mailbox("here"), b.mailbox("there")
        a.send(("there", b.name), (Atom("hello"), box.pid))
        greeting, pid = await other.receive(5)
        assert (greeting, pid) == ("hello", box.pid)
        b.send(pid, b"by pid")
        assert await box.receive(5) == b"by pid"
        ref = box.alias()
        b.send(ref, b"by alias")
        assert await box.receive(5) == b"by alias"
        assert not a.mailbox().unalias(ref)  # another's
        assert box.unalias(ref)
        assert not box.unalias(ref)
        b.send(ref, "too late")
        b.send(pid, "after it")
        assert await box.receive(5) == b"after it"


async def test_an_alias_for_once_ends_with_its_first_message(pair: Pair) -> None:
    async with pair() as (a, b):
        box = a.mailbox()
        ref = box.alias(once=True)
        for i in range(3):
            b.send(ref, i)
        b.send(box.pid, "end")
        assert [await box.receive(5), await box.receive(5)] == [0, b"end"]


async def test_local_sends_are_snapshots(pair: Pair, loop_kind: str, engine: str) -> None:
    async with pair(**run_by(engine)) as (a, _):
        box = a.mailbox("local")
        value = [1, 2]
        a.send("local", value)
        value.append(3)
        a.send(box.pid, value)
        assert [await box.receive(1), await box.receive(1)] == [[1, 2], [1, 2, 3]]
        with pytest.raises(NoProcess, match="nobody"):
            a.send("nobody", 1)


async def test_order_and_completeness(pair: Pair, loop_kind: str, engine: str) -> None:
    total = 20_000
    async with pair(**run_by(engine)) as (a, b):
        box = b.mailbox("in")
        for i in range(0, total, 100):
            if i % 1000 == 0:
                a.send_many(("in", b.name), range(i, i + 100))
            else:
                for k in range(i, i + 100):
                    a.send(("in", b.name), k)
            await a.drain()
        seen: list[int] = []
        while len(seen) < total:
            seen += await box.receive_many(timeout=10)
        assert seen == list(range(total))
        assert int(a.stats()["messages_out"][0]) >= total


async def test_what_is_sent_while_connecting_keeps_its_order(pair: Pair) -> None:
    async with pair() as (a, b):
        box = b.mailbox("in")
        for i in range(500):  # the first begins to connect, the rest wait
            a.send(("in", b.name), i)
        assert a.nodes() == []
        seen: list[int] = []
        while len(seen) < 500:
            seen += await box.receive_many(timeout=5)
        assert seen == list(range(500))


async def test_large_messages_cross_whole(pair: Pair) -> None:
    async with pair() as (a, b):
        box = b.mailbox("in")
        for size in (0, 1, 1023, 1024, 1025, 65_535, 65_536, 65_537, 300_000, 5_000_000):
            data = bytes(range(256)) * (size // 256 + 1)
            a.send(("in", b.name), (size, data[:size]))
            assert await box.receive(10) == (size, data[:size])


def test_threads_without_a_loop(options: dict[str, Any], engine: str) -> None:
    if engine == "inline":
        options = {"cookie": "secret", "epmd": "none"}
    a, b = (Node(new_name(), **run_by(engine), **options) for _ in range(2))
    with a, b:
        if engine == "inline":
            a._addresses[b.name] = ("127.0.0.1", b.port)
        boxes = [b.mailbox(f"in{i}") for i in range(3)]
        seen: list[list[Any]] = [[], [], []]
        total = 3000

        def receive(k: int) -> None:
            while len(seen[k]) < total:
                seen[k] += boxes[k].get_many(timeout=20)

        def send(who: int) -> None:
            for i in range(total):
                a.send((f"in{i % 3}", b.name), (who, i))
                a.drain_sync()

        work = [threading.Thread(target=send, args=(w,)) for w in range(3)]
        work += [threading.Thread(target=receive, args=(k,)) for k in range(3)]
        if engine == "inline":  # nobody drives the sender unless somebody waits
            stop = a.mailbox("stop")
            driver = threading.Thread(target=stop.get)
            driver.start()
        for t in work:
            t.start()
        for t in work:
            t.join(30)
            assert not t.is_alive()
        for k in range(3):
            for who in range(3):
                mine = [i for w, i in seen[k] if w == who]
                assert mine == [i for i in range(total) if i % 3 == k]
        if engine == "inline":
            a.send("stop", 1)
            driver.join(10)


async def test_a_node_that_is_not_there(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    async with pair() as (a, _):
        with pytest.raises(NodeDown, match="knows no node of that name"):
            await a.connect("nobody@127.0.0.1")
        a.send(("x", "nobody@127.0.0.1"), 1)
        with pytest.raises(NodeDown):
            await a.connect("nobody@127.0.0.1")
        assert "1 message lost" in caplog.text
        assert int(a.stats()["dropped_out"][0]) == 1
        with pytest.raises(NodeDown, match="unknown host"):
            await a.connect("x@no-such-host.invalid")
        assert not await a.ping("nobody@127.0.0.1")


async def test_resolvers(options: dict[str, Any]) -> None:
    async with Node(new_name("b"), cookie="secret", epmd="none") as b:
        box = b.mailbox("in")
        asked: list[str] = []

        def plain(name: str) -> tuple[str, int]:
            asked.append(name)
            return "127.0.0.1", b.port

        async def later(name: str) -> tuple[str, int]:
            await asyncio.sleep(0)
            return plain(name)

        for resolver in (plain, later):
            async with Node(new_name("a"), cookie="secret", epmd="none", resolver=resolver) as a:
                for i in range(3):
                    a.send(("in", b.name), i)
                assert [await box.receive(5) for _ in range(3)] == [0, 1, 2]
        assert asked == [b.name, b.name]

        def fails(name: str) -> tuple[str, int]:
            raise LookupError("no such service")

        async with Node(new_name("a"), cookie="secret", epmd="none", resolver=fails) as a:
            with pytest.raises(NodeDown, match="no such service"):
                await a.connect(b.name)
        async with Node(new_name("a"), cookie="secret", epmd="none") as a:
            with pytest.raises(NodeDown, match="host=, port="):
                await a.connect(b.name)
            await a.connect(b.name, host="127.0.0.1", port=b.port)
            a.disconnect(b.name)
            a.send(("in", b.name), "the address is kept")
            assert await box.receive(5) == b"the address is kept"


async def test_bad_destinations_and_terms(pair: Pair) -> None:
    async with pair() as (a, b):
        for bad in (1, None, ("a",), ("a", 1), ("a", "b", "c"), 1.5):
            with pytest.raises(TypeError, match="destination"):
                a.send(bad, 1)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="name@host"):
            a.send(("x", "nohost"), 1)
        with pytest.raises(EncodeError, match="object"):
            a.send(("x", b.name), object())
        with pytest.raises(TypeError, match="sender"):
            a.send(("x", b.name), 1, sender="me")  # type: ignore[arg-type]


async def test_a_message_over_the_limit_is_refused_at_the_call(pair: Pair) -> None:
    async with pair(limits={"message_bytes_max": 1000}) as (a, b):
        box = b.mailbox("in")
        with pytest.raises(EncodeError, match="message_bytes_max"):
            a.send(("in", b.name), b"x" * 2000)
        a.send(("in", b.name), b"x" * 100)
        assert len(await box.receive(5)) == 100


async def test_buffer_full_loses_nothing(pair: Pair) -> None:
    limits = {"queue_bytes_soft": 100_000, "queue_bytes_max": 400_000}
    async with pair(limits=limits) as (a, b):
        box = b.mailbox("in")
        await a.connect(b.name)
        sent = 0
        with pytest.raises(BufferFull, match="drain"):
            while True:  # no turn of the loop: nobody writes what is gathered
                a.send(("in", b.name), (sent, bytes(10_000)))
                sent += 1
        assert int(a.stats()["refused"][0]) == 1
        await a.drain(b.name)
        a.send(("in", b.name), (sent, b""))
        ids = [(await box.receive(5))[0] for _ in range(sent + 1)]
        assert ids == list(range(sent + 1))


async def test_a_peer_with_small_frames_gets_small_frames(options: dict[str, Any]) -> None:
    """Messages share frames only where the receiver's limit has room for them."""
    async with Node(new_name("a"), **options) as a:
        async with Node(new_name("b"), limits={"frame_bytes_max": 8192}, **options) as b:
            box = b.mailbox("in")
            await a.connect(b.name)
            for i in range(300):
                a.send(("in", b.name), (i, bytes(100)))
            got: list[Any] = []
            while len(got) < 300:
                got += await box.receive_many(timeout=5)
            assert [i for i, _ in got] == list(range(300))


def queued(node: Node) -> int:
    return int(node.stats()[0]["queued_bytes"])


@pytest.mark.parametrize("soft", [1 << 20, 256 << 10])
async def test_what_a_turn_gathers_is_written_in_large_pieces(pair: Pair, soft: int) -> None:
    """Not at every drain, but at a quarter of the soft limit, up to 256 KiB, and at the end of
    the turn."""
    async with pair(limits={"queue_bytes_soft": soft}) as (a, b):
        box = b.mailbox("in")
        await a.connect(b.name)
        for _ in range(20):  # a thread writes too, 5 ms later
            for _ in range(20):
                a.send(("in", b.name), bytes(1000))
                await a.drain()
            gathered = queued(a)
            for _ in range(50):
                a.send(("in", b.name), bytes(1000))
            left = queued(a)
            await asyncio.sleep(0)
            assert queued(a) == 0
            got = 0
            while got < 70:
                got += len(await box.receive_many(timeout=5))
            if gathered > 18_000:
                break
        assert 18_000 < gathered < 21_000
        assert left < 10_000 if soft < 1 << 20 else left > 65_000


async def test_an_inline_node_writes_at_each_drain(pair: Pair) -> None:
    async with pair(engine="inline") as (a, b):
        await a.connect(b.name)
        for _ in range(5):
            for _ in range(20):
                a.send(("in", b.name), bytes(1000))
            assert queued(a) > 18_000
            await a.drain()
            assert queued(a) == 0


def test_what_a_loop_left_is_written_by_the_next(options: dict[str, Any]) -> None:
    """A loop that stops within a turn never comes to its end."""
    a, b = (Node(new_name(n), engine="inline", **options) for n in "ab")
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()

    async def begin() -> None:
        await b.start()
        await a.start()
        await a.connect(b.name)

    def send_and_stop() -> None:
        for i in range(4):
            a.send(("in", b.name), i)
        first.stop()

    async def go_on() -> list[Any]:
        for i in range(4, 8):
            a.send(("in", b.name), i)
        await a.drain()
        assert queued(a) == 0
        got: list[Any] = []
        while len(got) < 8:
            got += await box.receive_many(timeout=5)
        await a.stop()
        await b.stop()
        return got

    first.run_until_complete(begin())
    box = b.mailbox("in")
    first.call_soon(send_and_stop)
    first.run_forever()
    first.close()
    assert second.run_until_complete(go_on()) == list(range(8))
    second.close()


async def test_who_only_sends_and_drains_lets_others_run(
    pair: Pair, loop_kind: str, engine: str
) -> None:
    async with pair(**run_by(engine)) as (a, b):
        box = b.mailbox("in")
        await a.connect(b.name)
        turns = 0

        async def count_turns() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count_turns())
        await asyncio.sleep(0)
        sent, before = 0, turns
        ends = time.monotonic() + 30
        while turns < before + 3:  # drain gives way though there is room
            assert time.monotonic() < ends
            a.send(("in", b.name), sent)
            sent += 1
            await a.drain()
        counting.cancel()
        got: list[Any] = []
        while len(got) < sent:
            got += await box.receive_many(timeout=5)
        assert got == list(range(sent))


async def test_calls_to_a_stopped_node_say_so(pair: Pair) -> None:
    async with pair() as (a, b):
        pass
    for use in (lambda: a.send("x", 1), lambda: a.mailbox(), lambda: a.disconnect(b.name)):
        with pytest.raises(RouterError, match="not running"):
            use()


def receive_buffers(port: int) -> dict[bool, int]:
    """SO_RCVBUF of both ends of the connections to a port: of who listens, and of who connected."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        if not os.path.realpath(f"/proc/self/fd/{name}").rpartition("/")[2].startswith("socket:"):
            continue
        with contextlib.suppress(OSError, IndexError):  # one that is not connected
            with socket.socket(fileno=os.dup(int(name))) as end:
                sides = end.getsockname()[1], end.getpeername()[1]
                if port in sides:
                    buffer = end.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
                    found[sides[0] == port] = buffer
    return found


async def test_only_who_gets_large_messages_sets_its_window(pair: Pair) -> None:
    async with pair() as (a, b):
        box = b.mailbox("in")
        await a.connect(b.name)
        assert b.port is not None
        before = receive_buffers(b.port)
        assert len(before) == 2
        for size in (10, 10_000):
            a.send(("in", b.name), bytes(size))
            await box.receive(5)
        assert receive_buffers(b.port) == before
        a.send(("in", b.name), bytes(20_000))
        await box.receive(5)
        after = receive_buffers(b.port)
        assert after[True] != before[True] and after[False] == before[False]


async def test_the_window_is_small_only_while_small_messages_come_too(pair: Pair) -> None:
    async with pair() as (a, b):
        box = b.mailbox("in")
        await a.connect(b.name)
        assert b.port is not None

        async def window(*sizes: int) -> int:
            for size in sizes:
                a.send(("in", b.name), bytes(size))
                await box.receive(5)
            assert b.port is not None
            return receive_buffers(b.port)[True]

        wide = await window(200_000, 200_000)
        narrow = await window(200_000, 10, 200_000)
        assert narrow < wide
        assert await window(200_000) == narrow
        ends = time.monotonic() + 30
        while await window(200_000) == narrow:  # for a second
            assert time.monotonic() < ends
        assert await window(200_000) == wide
        assert await window(10, 200_000) == narrow


def test_ports_are_really_free() -> None:
    assert free_port() != free_port()


async def test_a_name_that_moves_takes_what_follows_with_it(pair: Pair) -> None:
    """The receiving side remembers where frames that begin alike went: not for too long."""
    async with pair() as (a, b):
        await a.connect(b.name)
        dest = ("here", b.name)
        for round_ in range(5):
            box = b.mailbox("here")
            a.send_many(dest, [(round_, i) for i in range(300)])
            seen: list[Any] = []
            while len(seen) < 300:
                seen += await box.receive_many(timeout=5)
            assert seen == [(round_, i) for i in range(300)]
            box.close()
            lost = b.stats()["dropped_in"][0]
            a.send(dest, "nobody is here")
            async with asyncio.timeout(5):
                while b.stats()["dropped_in"][0] == lost:
                    await asyncio.sleep(0)


async def test_one_head_for_each_sender_and_destination(pair: Pair) -> None:
    """The sending side keeps the heads of frames: more pairs of boxes than it has places for."""
    async with pair() as (a, b):
        watched = b.mailbox("watched")
        senders = [a.mailbox() for _ in range(3)]
        boxes = [b.mailbox() for _ in range(150)]
        dests = [box.pid for box in boxes]
        for _ in range(3):
            for i, dest in enumerate(dests):
                for sender in (None, *senders):
                    a.send(dest, (i, sender.pid if sender else None), sender=sender)
        for _ in range(3):
            for i, box in enumerate(boxes):
                for sender in (None, *senders):
                    assert await box.receive(5) == (i, sender.pid if sender else None)
        a.send(("watched", b.name), b"by name")
        a.send(watched.pid, b"by pid")
        alias = watched.alias()
        a.send(alias, b"by alias")
        assert [await watched.receive(5) for _ in range(3)] == [b"by name", b"by pid", b"by alias"]


async def test_a_batch_ends_where_it_must(pair: Pair) -> None:
    """send_many: what stands before a term that fails arrives, whatever its sizes."""
    async with pair() as (a, b):
        box = b.mailbox("in")
        dest = ("in", b.name)
        sizes = [10, 40_000, 9_000, 70_000, 5, 200_000, 65_536, 65_400, 1] * 3
        a.send_many(dest, [bytes([i]) * n for i, n in enumerate(sizes)])
        assert [await box.receive(5) for _ in sizes] == [
            bytes([i]) * n for i, n in enumerate(sizes)
        ]
        for before in (0, 1, 700, 3000):
            with pytest.raises(EncodeError):
                a.send_many(dest, [*range(before), object(), "never"])
            a.send(dest, b"end")
            seen: list[Any] = []
            while not seen or seen[-1] != b"end":
                seen += await box.receive_many(timeout=5)
            assert seen == [*range(before), b"end"]


async def test_a_batch_that_meets_the_hard_limit(pair: Pair) -> None:
    """As many as fit are queued, one is counted as refused, and those that were queued arrive."""
    limits = {"queue_bytes_soft": 4096, "queue_bytes_max": 20_000}
    async with pair(limits=limits) as (a, b):
        box = b.mailbox("in")
        with pytest.raises(BufferFull):
            a.send_many(("in", b.name), [(i, b"x" * 200) for i in range(1000)])
        row = a.stats()[0]
        accepted = int(row["messages_out"])
        assert 40 < accepted < 100
        assert row["refused"] == 1
        a.send_many(("in", b.name), [])
        seen: list[Any] = []
        while len(seen) < accepted:
            seen += await box.receive_many(timeout=5)
        assert [term[0] for term in seen] == list(range(accepted))
        assert box.waiting == 0


@pytest.mark.parametrize(
    ("face", "name", "signature"),
    [
        (Node, "send", "(self, /, dest, term, *, sender=None)"),
        (Node, "send_many", "(self, /, dest, terms, *, sender=None)"),
        (Mailbox, "receive", "(self, /, timeout=None)"),
        (Mailbox, "receive_many", "(self, /, max=1024, timeout=None)"),
    ],
)
def test_what_is_called_for_each_message_is_of_the_public_class(
    face: type, name: str, signature: str
) -> None:
    """So that no call walks through the bases; and it explains itself as a function does."""
    method = getattr(face, name)
    assert method.__objclass__ is face
    assert str(inspect.signature(method)) == signature
    assert not (method.__doc__ or "(").startswith("(")
    with pytest.raises(TypeError, match=f"for '{face.__name__}' objects doesn't apply to a 'str'"):
        method("no such object", 1, 2)


def test_only_a_face_of_the_core_is_called_directly() -> None:
    class Other:
        send = send_many = None

    class Named(_core.NodeCore):
        send = "its own"

    with pytest.raises(TypeError, match="a subclass of NodeCore or MailboxCore"):
        _core.calls_directly(Other)  # type: ignore[type-var]
    with pytest.raises(TypeError, match="'send' of .*Named.* is no method in C"):
        _core.calls_directly(Named)
    assert Named.send == "its own"
