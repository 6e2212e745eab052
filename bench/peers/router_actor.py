"""router: a node in a process. Arguments: node name, loop (asyncio or uvloop), engine, poller,
busy wait (microseconds)."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import router
from bench.peers.control import (
    MASK,
    PING_NS_MAX,
    SHIFT,
    TAG,
    Wrong,
    answer,
    batch,
    check_payload,
    commands,
    now,
    payload,
    round_trips,
)

EVENT = router.Atom(TAG)
DRAIN_BYTES = 1 << 18
BULK_BYTES_MAX = 16 << 20

Times = tuple[int, int, int]


async def by_receive_many(box: router.Mailbox, count: int, size: int) -> Times:
    want = alone = first = 0
    while want < count:
        terms = await box.receive_many()
        if not first:
            first, alone = now(), len(terms)
        for term in terms:
            if term[1] != want:
                raise Wrong(f"id {term[1]}, not {want}")
            want += 1
        del terms  # here and in peers: its memory then serves the next ones
    last = now()
    check_payload(term[0], term[2], size)
    return first, last, count - alone


async def by_receive(box: router.Mailbox, count: int, size: int) -> Times:
    first = 0
    for want in range(count):
        tag, id_, data = await box.receive()
        if id_ != want:
            raise Wrong(f"id {id_}, not {want}")
        if not first:
            first = now()
    last = now()
    check_payload(tag, data, size)
    return first, last, count - 1


async def by_iteration(box: router.Mailbox, count: int, size: int) -> Times:
    want = first = 0
    async for term in box:
        tag, id_, data = term
        if id_ != want:
            raise Wrong(f"id {id_}, not {want}")
        if not first:
            first = now()
        want += 1
        if want == count:
            break
    last = now()
    check_payload(tag, data, size)
    return first, last, count - 1


async def of_many(box: router.Mailbox, count: int, size: int, senders: int) -> Times:
    """`receive_many`; ids of several senders, each in its own order."""
    expected = [sender << SHIFT for sender in range(senders)]
    got = alone = first = 0
    while got < count:
        terms = await box.receive_many()
        if not first:
            first, alone = now(), len(terms)
        for term in terms:
            id_ = term[1]
            sender = id_ >> SHIFT
            if id_ != expected[sender]:
                raise Wrong(f"id {id_ & MASK} of {sender}, not {expected[sender] & MASK}")
            expected[sender] += 1
        got += len(terms)
        del terms
    last = now()
    check_payload(term[0], term[2], size)
    return first, last, count - alone


FORMS: dict[str, Callable[[router.Mailbox, int, int], Awaitable[Times]]] = {
    "receive_many": by_receive_many,
    "receive": by_receive,
    "async_for": by_iteration,
}


class Actor:
    def __init__(self, node: router.Node) -> None:
        self.node = node
        self.boxes: list[router.Mailbox] = []
        self.echo = node.mailbox("echo")
        self.echo_task = asyncio.create_task(self.answer_pings())
        self.replies = node.mailbox()
        self.bulk_box = node.mailbox("bulk", limit_bytes=BULK_BYTES_MAX, overflow="pause")
        self.bulk_task: asyncio.Task[None] | None = None
        self.crowd: list[router.Node] = []
        # A task that receives in a loop may not yield while messages wait; a callback does.
        self.bulk_box.on_messages(lambda terms: None)

    @staticmethod
    def dest(word: str) -> Any:
        name, _, node = word.partition("/")
        return name, node

    async def receive(self, form: str, count: int, size: int, senders: int, boxes: int) -> None:
        while len(self.boxes) < boxes:
            self.boxes.append(self.node.mailbox(f"sink{len(self.boxes)}"))
        if senders == 1:
            work = [FORMS[form](box, count, size) for box in self.boxes[:boxes]]
        else:
            work = [of_many(box, count, size, senders) for box in self.boxes[:boxes]]
        answer(armed=True)
        done = await asyncio.gather(*work) if boxes > 1 else [await work[0]]
        answer(
            first=min(d[0] for d in done),
            last=max(d[1] for d in done),
            counted=sum(d[2] for d in done),
        )

    async def connect(self, *dests: str) -> None:
        for node in {self.dest(d)[1] for d in dests}:
            await self.node.connect(node)
        answer(connected=True)

    async def send(self, form: str, count: int, size: int, sender: int, *words: str) -> None:
        """Each destination gets `count` messages."""
        node, data = self.node, payload(size)
        dests = [self.dest(word) for word in words]
        first = sender << SHIFT
        if form == "send":
            await self.send_singly(dests, first, count, data)
        else:
            step = batch(size)
            for start in range(first, first + count, step):
                ids = range(start, min(start + step, first + count))
                for dest in dests:
                    node.send_many(dest, [(EVENT, i, data) for i in ids])
                    await node.drain()
        await node.drain()
        answer(sent=count)

    async def send_singly(self, dests: list[Any], first: int, count: int, data: bytes) -> None:
        send, drain = self.node.send, self.node.drain
        step = max(1, min(256, DRAIN_BYTES // len(data)) // len(dests))
        only = dests[0] if len(dests) == 1 else None  # no loop within the loop, here and in peers
        for start in range(first, first + count, step):
            ids = range(start, min(start + step, first + count))
            for i in ids if only is None else ():
                for dest in dests:
                    send(dest, (EVENT, i, data))
            for i in ids if only is not None else ():
                send(only, (EVENT, i, data))
            await drain()

    async def answer_pings(self) -> None:
        send = self.node.send
        with suppress(router.ExitSignal):  # the node stops
            async for sender, id_, data in self.echo:
                send(sender, (id_, data))

    async def serve(self, count: int) -> None:
        answer(armed=True)
        answer(served=count)

    async def ping(self, form: str, count: int, size: int, word: str) -> None:
        dest, data, me = self.dest(word), payload(size), self.replies.pid
        send, receive = self.node.send, self.replies.receive
        times = []
        stop = now() + PING_NS_MAX
        for i in range(count):
            begin = now()
            if begin > stop:
                break
            send(dest, (me, i, data))
            id_, _ = await receive()
            times.append(now() - begin)
            if id_ != i:
                raise Wrong(f"id {id_}, not {i}")
        answer(**round_trips(times))

    async def bulk(self, size: str, word: str = "") -> None:
        if self.bulk_task is not None:
            self.bulk_task.cancel()
            await asyncio.wait([self.bulk_task])
            self.bulk_task = None
        if size != "off":
            self.bulk_task = asyncio.create_task(self.send_bulk(int(size), self.dest(word)))
        answer(bulk=size)

    async def send_bulk(self, size: int, dest: Any) -> None:
        data, i = payload(size), 0
        while True:
            self.node.send(dest, (EVENT, i, data))
            i += 1
            await self.node.drain()
            await asyncio.sleep(0)

    # connections -----------------------------------------------------------------

    async def cycle(self, count: int, word: str) -> None:
        name = self.dest(word)[1]
        begin = now()
        for _ in range(count):
            await self.node.connect(name)
            self.node.disconnect(name)
        answer(cycles=count, ns=now() - begin)

    async def hold(self, count: int, word: str) -> None:
        """So many nodes in this process, each with its connection. No thread for each."""
        short = self.node.name.partition("@")[0]
        for i in range(len(self.crowd), len(self.crowd) + count):
            node = router.Node(
                f"{short}_{i}@127.0.0.1", cookie="bench", listen=False, engine="inline"
            )
            self.crowd.append(node)
            await node.start()
            await node.connect(self.dest(word)[1])
        answer(held=count)

    async def flood(self, each: int, size: int, word: str) -> None:
        dest, data = self.dest(word), payload(size)
        for start in range(0, each, 16):
            for number, node in enumerate(self.crowd):
                first = (number << SHIFT) + start
                for i in range(first, first + min(16, each - start)):
                    node.send(dest, (EVENT, i, data))
                await node.drain()
        answer(sent=each)

    async def volley(self, each: int, size: int, word: str) -> None:
        dest, data = self.dest(word), payload(size)

        async def trips(node: router.Node) -> None:
            with node.mailbox() as box:
                for i in range(each):
                    node.send(dest, (box.pid, i, data))
                    id_, _ = await box.receive()
                    if id_ != i:
                        raise Wrong(f"id {id_}, not {i}")

        begin = now()
        await asyncio.gather(*map(trips, self.crowd))
        answer(ns=now() - begin)

    async def release(self) -> None:
        crowd, self.crowd = self.crowd, []
        for node in crowd:
            await node.stop()


async def main(name: str, engine: str, poller: str, busy_us: str) -> None:
    async with router.Node(
        name, cookie="bench", engine=engine, poller=poller, busy_wait=int(busy_us) / 1e6
    ) as node:
        actor = Actor(node)
        answer(ready=True, address=node.name)
        async for command, *words in commands():
            method = getattr(actor, command)
            try:
                await method(*(int(w) if w.isdigit() else w for w in words))
            except Exception as e:
                answer(error=f"{type(e).__name__}: {e}")
        await actor.release()
        actor.echo_task.cancel()


if __name__ == "__main__":
    factory = None
    if sys.argv[2] == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main(*sys.argv[1:2], *sys.argv[3:6]))
