"""Messages between running nodes: every way to address one, order, sizes, many at once."""

from __future__ import annotations

import asyncio
import resource

import pytest

from interop.erlang import ErlangError, ErlangNode, Nodes
from interop.talk import PATIENCE, answer, blob, echo
from router import Atom, BufferFull, Mailbox, Node

VERDICT = "talk:verdict(whereis(N))"

FRAGMENT = 64 * 1024
# Around the places where a message is cut, for every offset a frame's head may add to it.
EDGES = [
    *range(1, 4),
    *range(250, 260),
    *(n + d for n in (FRAGMENT, 2 * FRAGMENT, 3 * FRAGMENT) for d in range(-90, 10)),
]


async def verdict(erl: ErlangNode, name: str) -> object:
    return await erl.aeval(VERDICT, N=Atom(name))


# Addresses


async def test_by_pid_and_by_name(talker: ErlangNode, name: str) -> None:
    async with Node(name) as node:
        box = node.mailbox("shop")
        await talker.aeval(
            "Box ! by_pid, {shop, Node} ! by_name, erlang:send(Box, with_send, [noconnect]),"
            " gen_server:cast({shop, Node}, cast), ok",
            Box=box.pid, Node=Atom(name),
        )  # fmt: skip
        assert [await box.receive(PATIENCE) for _ in range(4)] == [
            "by_pid", "by_name", "with_send", ("$gen_cast", "cast"),
        ]  # fmt: skip
        waiting = talker.submit(
            "register(shop, self()), Box ! self(),"
            " receive {1, by_pid} -> ok end, receive {2, by_name} -> ok end,"
            " receive {3, from_nobody} -> ok end, unregister(shop), done",
            Box=box.pid,
        )
        pid = await box.receive(PATIENCE)
        node.send(pid, (1, Atom("by_pid")), sender=box)
        node.send((Atom("shop"), talker.name), (2, Atom("by_name")), sender=box)
        node.send(("shop", talker.name), (3, Atom("from_nobody")))
        assert await answer(waiting) == "done"


async def test_to_nobody(talker: ErlangNode, name: str) -> None:
    async with Node(name) as node:
        box = node.mailbox("here")
        gone = node.mailbox()
        dead = gone.pid
        gone.close()
        await talker.aeval(
            "{nobody, Node} ! 1, Dead ! 2, {here, Node} ! 3, ok", Dead=dead, Node=Atom(name)
        )
        assert await box.receive(PATIENCE) == 3
        assert node.stats()[0]["dropped_in"] == 2
        node.send(("nobody", talker.name), 1)
        node.send(await talker.aeval("spawn(fun() -> ok end)"), 2)
        assert await node.ping(talker.name)


async def test_to_our_alias(talker: ErlangNode, name: str) -> None:
    async with Node(name) as node:
        box = node.mailbox()
        always, once = box.alias(), box.alias(once=True)
        await talker.aeval("A ! 1, Once ! 2, Once ! lost, A ! 3, ok", A=always, Once=once)
        assert [await box.receive(PATIENCE) for _ in range(3)] == [1, 2, 3]
        assert box.unalias(always)
        await talker.aeval("A ! lost, Box ! 4, ok", A=always, Box=box.pid)
        assert await box.receive(PATIENCE) == 4
        assert node.stats()[0]["dropped_in"] == 2


async def test_to_their_alias(talker: ErlangNode, name: str) -> None:
    async with Node(name) as node:
        box = node.mailbox()
        waiting = talker.submit(
            "A = alias(), Once = alias([reply]), Box ! {A, Once, self()},"
            " L = [receive {I, M} -> M after 20000 -> nothing end || I <- [1, 2, 3]],"
            " unalias(A), Box ! unaliased,"
            " {L, receive M -> M after 20000 -> nothing end}",
            Box=box.pid,
        )
        always, once, pid = await box.receive(PATIENCE)
        for dest, number, what in [
            (always, 1, "a"), (once, 2, "b"), (once, 2, "lost"), (always, 3, "c"),
        ]:  # fmt: skip
            node.send(dest, (number, Atom(what)), sender=box)
        assert await box.receive(PATIENCE) == "unaliased"
        node.send(always, Atom("lost"))
        node.send(pid, Atom("end"))
        assert await answer(waiting) == (["a", "b", "c"], "end")


async def test_priority_messages(talker: ErlangNode, name: str) -> None:
    """OTP 28's priority signals are another opcode, to an alias, both for messages and exits."""
    async with Node(name) as node:
        box = node.mailbox()
        if talker.otp.release < 28:
            with pytest.raises(ErlangError, match="badarg"):
                await talker.aeval("erlang:send(A, urgent, [priority])", A=box.alias())
            return
        waiting = talker.submit("erlang:send(A, urgent, [priority]), A ! usual, ok", A=box.alias())
        assert await answer(waiting) == "ok"
        assert sorted([await box.receive(PATIENCE) for _ in range(2)]) == ["urgent", "usual"]
        box.trap_exit = True
        await talker.aeval("exit(A, {please, go}, [priority]), ok", A=box.alias())
        kind, _, reason = await box.receive(PATIENCE)
        assert (kind, reason) == ("EXIT", ("please", "go"))
        await talker.aeval("exit(P, again, [priority]), ok", P=box.pid)
        kind, _, reason = await box.receive(PATIENCE)
        assert (kind, reason) == ("EXIT", "again")


# Order


@pytest.mark.parametrize("by", ["pid", "name"])
async def test_100_000_from_erlang_in_order(talker: ErlangNode, name: str, by: str) -> None:
    async with Node(name) as node:
        box = node.mailbox("counts")
        to = box.pid if by == "pid" else (Atom("counts"), Atom(name))
        sending = talker.submit('talk:pump(To, 100000, <<"some more">>)', To=to)
        seen = 0
        while seen < 100_000:
            for kind, number, more in await box.receive_many(timeout=PATIENCE):
                seen += 1
                assert (kind, number, more) == ("seq", seen, b"some more")
        assert await answer(sending) == "ok"
        assert not box.waiting


@pytest.mark.parametrize("by", ["pid", "name", "many"])
async def test_100_000_from_python_in_order(talker: ErlangNode, name: str, by: str) -> None:
    async with Node(name) as node:
        box = node.mailbox()
        pid = await talker.aeval("talk:counter(N, 100000)", N=Atom(name))
        to = (name, talker.name) if by == "name" else pid
        seq, more = Atom("seq"), b"some more"
        for start in range(1, 100_001, 1000):
            batch = [(seq, i, more) for i in range(start, start + 1000)]
            if by == "many":
                node.send_many(to, batch, sender=box)
            else:
                for term in batch:
                    node.send(to, term, sender=box)
            await node.drain(talker.name)
        assert await verdict(talker, name) == ("ok", 100_000)


async def test_order_from_threads(talker: ErlangNode, name: str) -> None:
    """Each thread's messages keep their order; none gets between the parts of another's."""

    def pour(node: Node, who: int, box: Mailbox) -> None:
        for i in range(1, 41):
            size = 100_000 if i % 10 == 0 else 50
            node.send((name, talker.name), (who, i, size, blob(who * 1000 + i, size)), sender=box)

    async with Node(name) as node:
        await talker.aeval("talk:judge_many(N, 6, 40)", N=Atom(name))
        boxes = [node.mailbox() for _ in range(6)]
        await asyncio.gather(
            *(asyncio.to_thread(pour, node, who, box) for who, box in enumerate(boxes, 1))
        )
        assert await verdict(talker, name) == ("ok", [40])


# Sizes


async def test_sizes_around_the_fragments_from_erlang(talker: ErlangNode, name: str) -> None:
    async with Node(name) as node:
        box = node.mailbox()
        waiting = talker.submit("talk:send_blobs(Box, Sizes)", Box=box.pid, Sizes=EDGES)
        for size in EDGES:
            assert await box.receive(PATIENCE) == (size, size, blob(size, size))
        assert await answer(waiting) == "ok"


async def test_sizes_around_the_fragments_from_python(talker: ErlangNode, name: str) -> None:
    async with Node(name) as node:
        await talker.aeval("talk:judge_blobs(N, Count)", N=Atom(name), Count=len(EDGES))
        for size in EDGES:
            node.send((name, talker.name), (size, size, blob(size, size)))
            await node.drain()
        assert await verdict(talker, name) == ("wrong", [])


@pytest.mark.parametrize(
    "size",
    [1_000_000, 10_000_000, 100_000_000],
)
async def test_large_messages(talker: ErlangNode, name: str, size: int) -> None:
    async with Node(name, limits={"queue_bytes_max": 256 << 20}) as node:
        box = node.mailbox()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        waiting = talker.submit("talk:send_blobs(Box, [Size])", Box=box.pid, Size=size)
        seed, said, data = await box.receive(120)
        assert (seed, said, len(data)) == (size, size, size)
        assert await answer(waiting) == "ok"
        # Assembled once and decoded once, while it all is there: four times its size at most.
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown * 1024 < 4 * size + (32 << 20)
        expected = blob(size, size)
        assert data == expected
        del data
        await talker.aeval("talk:judge_blobs(N, 1)", N=Atom(name))
        node.send((name, talker.name), (size, size, expected))
        assert await talker.aeval(VERDICT, N=Atom(name), timeout=120) == ("wrong", [])
        await talker.aeval("[garbage_collect(P) || P <- processes()], ok")


# Many at once


@pytest.mark.parametrize("boxes", [1, 7])
async def test_fragments_of_many_erlang_senders(talker: ErlangNode, name: str, boxes: int) -> None:
    senders, count, size = 24, 6, 300_000
    async with Node(name) as node:
        there = [node.mailbox() for _ in range(boxes)]
        waiting = talker.submit(
            "talk:pump_many(Tos, Senders, Count, Size)",
            Tos=[box.pid for box in there], Senders=senders, Count=count, Size=size,
        )  # fmt: skip
        last = dict.fromkeys(range(1, senders + 1), 0)

        async def collect(place: int, box: Mailbox) -> None:
            mine = [who for who in last if who % boxes == place]
            for _ in range(len(mine) * count):
                who, number, said, data = await box.receive(PATIENCE)
                assert who in mine
                assert (number, said) == (last[who] + 1, size)
                assert data == blob(who * 1000 + number, size)
                last[who] = number

        await asyncio.gather(*(collect(i, box) for i, box in enumerate(there)))
        assert await answer(waiting) == "ok"
        assert set(last.values()) == {count}


async def test_many_python_senders(talker: ErlangNode, name: str) -> None:
    senders, count, size = 24, 6, 300_000
    async with Node(name) as node:
        await talker.aeval(
            "talk:judge_many(N, Senders, Count)", N=Atom(name), Senders=senders, Count=count
        )

        async def pour(who: int) -> None:
            box = node.mailbox()
            for i in range(1, count + 1):
                term = (who, i, size, blob(who * 1000 + i, size))
                node.send((name, talker.name), term, sender=box)
                await node.drain()

        await asyncio.gather(*(pour(who) for who in range(1, senders + 1)))
        assert await verdict(talker, name) == ("ok", [count])


async def test_10_000_names(talker: ErlangNode, name: str) -> None:
    async with Node(name) as node:
        boxes = {i: node.mailbox(f"name{i}") for i in range(1, 10_001)}
        await talker.aeval(
            '[{list_to_atom("name" ++ integer_to_list(I)), Node} ! I'
            " || I <- lists:seq(1, 10000)], ok",
            Node=Atom(name),
        )
        for i, box in boxes.items():
            assert await box.receive(PATIENCE) == i
            assert not box.waiting
        prefix = name.partition("@")[0] + "n"
        await talker.aeval("talk:named(unicode:characters_to_list(P), 10000)", P=prefix)
        answers = node.mailbox()
        for i in range(1, 10_001):
            node.send((f"{prefix}{i}", talker.name), (i, answers.pid))
        got = set()
        while len(got) < 10_000:
            got.update(number for _, number in await answers.receive_many(timeout=PATIENCE))
        assert got == set(range(1, 10_001))


# Atoms: their cache is the connection's memory, and any mistake shows as a wrong atom


async def test_10_000_atoms(talker: ErlangNode, name: str) -> None:
    """One atom a message, and long and foreign ones; twice, so that some come from the cache."""
    async with Node(name) as node:
        echo(node, "echo")
        assert await talker.aeval(
            "Atoms = [list_to_atom(lists:flatten(io_lib:format(\"atom ~b ~ts\","
            " [I, lists:duplicate(I rem 240, case I rem 3 of"
            "   0 -> $x; 1 -> 233; 2 -> 16#1f600 end)]))) || I <- lists:seq(1, 10000)],"
            " talk:bounce({echo, Node}, Atoms, 1) ++ talk:bounce({echo, Node}, Atoms, 20001)",
            Node=Atom(name),
        ) == []  # fmt: skip


async def test_atoms_rotate_through_the_cache(talker: ErlangNode, name: str) -> None:
    """More atoms than the cache has places, many in a message, in changing company."""
    async with Node(name) as node:
        echo(node, "echo")
        assert await talker.aeval(
            "Atom = fun(I) -> list_to_atom(\"rot\" ++ integer_to_list(I)) end,"
            " Terms = [[Atom((I * 7 + J * J) rem 3000) || J <- lists:seq(1, 1 + I rem 300)]"
            "          || I <- lists:seq(1, 1500)],"
            " talk:bounce({echo, Node}, Terms, 1)",
            Node=Atom(name),
        ) == []  # fmt: skip


async def test_more_atoms_in_a_message_than_a_header_holds(talker: ErlangNode, name: str) -> None:
    async with Node(name) as node:
        echo(node, "echo")
        assert await talker.aeval(
            "Make = fun(N, Long) -> [list_to_atom(lists:duplicate(Long, $y) ++"
            "   integer_to_list(I)) || I <- lists:seq(1, N)] end,"
            " Terms = [Make(N, Long) || N <- [1, 254, 255, 256, 257, 600, 5000],"
            "          Long <- [1, 200]],"
            " talk:bounce({echo, Node}, Terms ++ [{Big, T} || T <- Terms,"
            "   Big <- [binary:copy(<<1>>, 100000)]] ++ Terms, 1)",
            Node=Atom(name),
        ) == []  # fmt: skip


# A receiver that does not read


async def test_a_sender_in_erlang_waits_for_us(talker: ErlangNode, name: str) -> None:
    """A node that nobody drives reads nothing: the sender there is suspended, and goes on when
    it is driven again."""
    node = Node(name, engine="inline")
    await asyncio.to_thread(node.start_sync)
    try:
        box = node.mailbox("slow")
        await asyncio.to_thread(node.connect_sync, talker.name)
        await talker.aeval(
            "register(N, spawn(fun() -> talk:pump({slow, Node}, 3000,"
            " binary:copy(<<7>>, 10000)), receive stop -> ok end end)), ok",
            N=Atom("pump" + name), Node=Atom(name),
        )  # fmt: skip
        status = "{status, S} = process_info(whereis(N), status), S"
        while await talker.aeval(status, N=Atom("pump" + name)) != "suspended":
            assert not box.waiting

        def read() -> None:
            for i in range(1, 3001):
                assert box.get(PATIENCE) == ("seq", i, b"\x07" * 10_000)

        await asyncio.to_thread(read)
        assert await talker.aeval(status, N=Atom("pump" + name)) == "waiting"
        await talker.aeval("N ! stop, ok", N=Atom("pump" + name))
    finally:
        await asyncio.to_thread(node.stop_sync)


async def test_a_box_that_pauses_its_senders(talker: ErlangNode, name: str) -> None:
    async with Node(name, limits={"spill_bytes_max": 1 << 20}) as node:
        box = node.mailbox("small", limit=100, overflow="pause")
        other = node.mailbox("other")
        sending = talker.submit(
            "talk:pump({small, Node}, 2000, binary:copy(<<7>>, 5000)), {other, Node} ! passed",
            Node=Atom(name),
        )
        for i in range(1, 2001):
            assert await box.receive(PATIENCE) == ("seq", i, b"\x07" * 5000)
        assert await other.receive(PATIENCE) == "passed"
        assert await answer(sending) == "passed"
        assert box.dropped == 0


async def test_a_peer_that_does_not_read(erlang: Nodes, name: str) -> None:
    """The buffer fills to its limit and says so; all that was accepted arrives."""
    erl = erlang("stopped")
    erl.load("talk.erl")
    limit = 4 << 20
    async with Node(name, limits={"queue_bytes_max": limit, "queue_bytes_soft": 1 << 16}) as node:
        await node.connect(erl.name)
        erl.suspend()
        accepted = 0
        with pytest.raises(BufferFull):
            while True:
                node.send(("sink", erl.name), (Atom("seq"), accepted + 1, b"\x01" * 1000))
                accepted += 1
                assert accepted < 100_000
        (row,) = node.stats()
        assert limit - 2000 < row["queued_bytes"] <= limit
        assert row["refused"] == 1
        waiting = asyncio.create_task(node.drain(erl.name))
        assert not waiting.done()
        erl.resume()
        await waiting
        # All of it is read now, and went to nobody: nothing was registered there.
        assert await node.ping(erl.name)
        await erl.aeval("talk:counter(sink, 1000)")
        for i in range(1, 1001):
            node.send(("sink", erl.name), (Atom("seq"), i, b"\x01" * 1000))
            await node.drain()
        assert await verdict(erl, "sink") == ("ok", 1000)
        assert node.stats()[0]["dropped_out"] == 0


async def test_all_that_was_accepted_arrives(erlang: Nodes, name: str) -> None:
    erl = erlang("slowly")
    erl.load("talk.erl")
    async with Node(name, limits={"queue_bytes_max": 1 << 20, "queue_bytes_soft": 1 << 16}) as node:
        total = 20_000
        await erl.aeval("talk:counter(sink, Total)", Total=total)
        sent = full = 0
        while sent < total:
            try:
                node.send(("sink", erl.name), (Atom("seq"), sent + 1, b"\x01" * 500))
                sent += 1
            except BufferFull:
                full += 1
                await node.drain(erl.name)
        assert full
        assert await verdict(erl, "sink") == ("ok", total)
