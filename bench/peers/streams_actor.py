"""Frames of a 4-byte length over TCP. Arguments: loop (asyncio, uvloop, aiofastnet), style.

Styles: `streams` (StreamReader and StreamWriter), `buffered` (BufferedProtocol).
aiofastnet works on uvloop here. Each message is one frame and one write, or, in
the form `batched`, one frame holds a list of messages.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from struct import Struct
from typing import Any

import msgspec

from bench.peers.control import (
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

Event = tuple[str, int, bytes]
LENGTH = Struct("!I")
BUFFER_BYTES = 1 << 20  # as router's own marks: what may wait before a sender does
BACKLOG = 1024
JOIN_BYTES = 4096  # a longer body is not copied behind its length

encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Event).decode
decode_list = msgspec.msgpack.Decoder(list[Event]).decode


class Run:
    """What one `receive` waits for, on all connections together."""

    def __init__(self, form: str, count: int, size: int, senders: int) -> None:
        self.batched = form == "batched"
        self.each = count // senders
        self.size = size
        self.left = senders
        self.first = self.alone = self.last = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def begin(self, messages: int) -> None:
        if not self.first:
            self.first, self.alone = now(), messages

    def end(self, tag: str, data: bytes) -> None:
        """One connection has had its share."""
        check_payload(tag, data, self.size)
        self.left -= 1
        if not self.left and not self.done.done():
            self.last = now()
            self.done.set_result(None)

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class Buffered(asyncio.BufferedProtocol):
    """Cuts frames out of one buffer; what a frame means is a subclass's."""

    def __init__(self) -> None:
        self.data = bytearray(1 << 18)
        self.view = memoryview(self.data)
        self.begin = self.end = 0
        self.may_write = asyncio.Event()
        self.may_write.set()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.set_write_buffer_limits(high=BUFFER_BYTES)

    def connection_lost(self, error: Exception | None) -> None:
        self.may_write.set()

    def pause_writing(self) -> None:
        self.may_write.clear()

    def resume_writing(self) -> None:
        self.may_write.set()

    def get_buffer(self, hint: int) -> memoryview:
        return self.view[self.end :]

    def buffer_updated(self, count: int) -> None:
        end = self.end = self.end + count
        begin = self.frames(self.begin, end)
        if begin == end:
            self.begin = self.end = 0
            return
        self.begin = begin
        need = 4
        if end - begin >= 4:
            need += LENGTH.unpack_from(self.data, begin)[0]
        if begin + need > len(self.data):
            self.move(need)

    def move(self, need: int) -> None:
        """To the front, of a larger buffer if one frame needs it."""
        rest = bytes(self.view[self.begin : self.end])
        if need > len(self.data):
            self.data = bytearray(need + (1 << 18))
            self.view = memoryview(self.data)
        self.view[: len(rest)] = rest
        self.begin, self.end = 0, len(rest)

    def frames(self, begin: int, end: int) -> int:
        raise NotImplementedError


class BufferedSink(Buffered):
    def __init__(self, actor: Actor) -> None:
        super().__init__()
        self.actor = actor
        self.run: Run | None = None
        self.want = 0
        self.stop = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.actor.sinks.append(self)

    def frames(self, begin: int, end: int) -> int:
        try:
            run = self.actor.run
            if run is None:
                raise Wrong("a message nobody waits for")
            if run is not self.run:
                self.run, self.want, self.stop = run, -1, 0
            return self.batches(run, begin, end) if run.batched else self.singles(run, begin, end)
        except Exception as e:
            if self.run is not None:
                self.run.fail(e)
            self.transport.abort()
            return end

    def singles(self, run: Run, begin: int, end: int) -> int:
        data, view, want = self.data, self.view, self.want
        length_at = LENGTH.unpack_from
        while end - begin >= 4:
            stop = begin + 4 + length_at(data, begin)[0]
            if stop > end:
                break
            tag, id_, body = decode(view[begin + 4 : stop])
            begin = stop
            if id_ != want:
                self.start(id_, want)
                want = id_
                run.begin(1)
            want += 1
            if want == self.stop:
                run.end(tag, body)
        self.want = want
        return begin

    def batches(self, run: Run, begin: int, end: int) -> int:
        while end - begin >= 4:
            stop = begin + 4 + LENGTH.unpack_from(self.data, begin)[0]
            if stop > end:
                break
            events = decode_list(self.view[begin + 4 : stop])
            begin = stop
            want = self.want
            if events[0][1] != want:
                self.start(events[0][1], want)
                want = events[0][1]
                run.begin(len(events))
            for event in events:
                if event[1] != want:
                    raise Wrong(f"id {event[1]}, not {want}")
                want += 1
            self.want = want
            del events
            if want == self.stop:
                run.end(event[0], event[2])
        return begin

    def start(self, id_: int, want: int) -> None:
        """The first id of a run says which sender this is."""
        if want != -1 or id_ & ((1 << SHIFT) - 1):
            raise Wrong(f"id {id_}, not {want}")
        assert self.run is not None
        self.stop = id_ + self.run.each


class BufferedEcho(Buffered):
    def frames(self, begin: int, end: int) -> int:
        while end - begin >= 4:
            stop = begin + 4 + LENGTH.unpack_from(self.data, begin)[0]
            if stop > end:
                break
            body = encode(decode(self.view[begin + 4 : stop]))
            self.transport.write(LENGTH.pack(len(body)) + body)
            begin = stop
        return begin


class BufferedPing(Buffered):
    """Round trips: the next ping leaves when the answer to the last is here."""

    def begin_pings(self, count: int, size: int) -> asyncio.Future[list[int]]:
        self.body, self.count, self.times = payload(size), count, [0] * 0
        self.finished: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        self.ping()
        return self.finished

    def ping(self) -> None:
        self.left = now()
        body = encode((TAG, len(self.times), self.body))
        self.transport.write(LENGTH.pack(len(body)) + body)

    def frames(self, begin: int, end: int) -> int:
        while end - begin >= 4:
            stop = begin + 4 + LENGTH.unpack_from(self.data, begin)[0]
            if stop > end:
                break
            _, id_, _ = decode(self.view[begin + 4 : stop])
            begin = stop
            if id_ != len(self.times):
                self.finished.set_exception(Wrong(f"id {id_}"))
                return end
            self.times.append(now() - self.left)
            if len(self.times) == self.count:
                self.finished.set_result(self.times)
            else:
                self.ping()
        return begin


class BufferedWriter:
    """What a sender needs of a transport, under StreamWriter's names."""

    def __init__(self, protocol: Buffered) -> None:
        self.protocol = protocol
        self.write = protocol.transport.write
        self.writelines = protocol.transport.writelines

    async def drain(self) -> None:
        if not self.protocol.may_write.is_set():
            await self.protocol.may_write.wait()


class Actor:
    def __init__(self, style: str) -> None:
        self.style = style
        self.run: Run | None = None
        self.armed = asyncio.Condition()
        self.sinks: list[BufferedSink] = []
        self.writers: dict[str, Any] = {}
        self.pingers: dict[str, Any] = {}
        self.bulk_task: asyncio.Task[None] | None = None
        self.crowd: list[Any] = []
        self.tasks: set[asyncio.Task[None]] = set()

    async def listen(self) -> str:
        loop = asyncio.get_running_loop()
        if self.style == "buffered":
            handlers = [
                await loop.create_server(
                    lambda: BufferedSink(self), "127.0.0.1", 0, backlog=BACKLOG
                ),
                await loop.create_server(BufferedEcho, "127.0.0.1", 0),
            ]
        else:
            handlers = [
                await asyncio.start_server(f, "127.0.0.1", 0, limit=BUFFER_BYTES, backlog=BACKLOG)
                for f in (self.sink, self.echo)
            ]
        drop = await asyncio.start_server(self.drop, "127.0.0.1", 0, limit=BUFFER_BYTES)
        self.servers = [*handlers, drop]
        return ":".join(["127.0.0.1", *(str(s.sockets[0].getsockname()[1]) for s in self.servers)])

    # receiving ---------------------------------------------------------------

    async def receive(self, form: str, count: int, size: int, senders: int, boxes: int) -> None:
        run = Run(form, count, size, senders)
        async with self.armed:
            self.run = run
            self.armed.notify_all()
        answer(armed=True)
        await run.done
        answer(first=run.first, last=run.last, counted=count - run.alone)

    async def sink(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        run = None
        try:
            while True:
                async with self.armed:
                    while self.run is run or self.run is None:
                        await self.armed.wait()
                    run = self.run
                await (self.batches if run.batched else self.singles)(run, reader)
        except asyncio.IncompleteReadError:
            writer.close()
        except Exception as e:
            if run is not None:
                run.fail(e)
            writer.close()

    async def singles(self, run: Run, reader: asyncio.StreamReader) -> None:
        exactly, length = reader.readexactly, LENGTH.unpack
        tag, id_, data = decode(await exactly(length(await exactly(4))[0]))
        run.begin(1)
        begin = id_
        for want in range(begin + 1, begin + run.each):
            tag, id_, data = decode(await exactly(length(await exactly(4))[0]))
            if id_ != want:
                raise Wrong(f"id {id_}, not {want}")
        run.end(tag, data)

    async def batches(self, run: Run, reader: asyncio.StreamReader) -> None:
        exactly, length = reader.readexactly, LENGTH.unpack
        want = -1
        got = 0
        while got < run.each:
            events = decode_list(await exactly(length(await exactly(4))[0]))
            if want < 0:
                want = events[0][1]
                run.begin(len(events))
            for event in events:
                if event[1] != want:
                    raise Wrong(f"id {event[1]}, not {want}")
                want += 1
            got += len(events)
            del events
        run.end(event[0], event[2])

    async def drop(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                decode(await reader.readexactly(LENGTH.unpack(await reader.readexactly(4))[0]))
        except asyncio.IncompleteReadError:
            writer.close()

    # sending -------------------------------------------------------------------

    async def open(self, dest: str, place: int) -> tuple[Any, Any]:
        words = dest.split(":")
        reader, writer = await asyncio.open_connection(
            words[0], int(words[place]), limit=BUFFER_BYTES
        )
        writer.transport.set_write_buffer_limits(high=BUFFER_BYTES)
        return reader, writer

    async def open_buffered(
        self, factory: Callable[[], Buffered], dest: str, place: int
    ) -> Buffered:
        words = dest.split(":")
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_connection(factory, words[0], int(words[place]))
        return protocol

    async def connect(self, *dests: str) -> None:
        for dest in dests:
            if self.style == "buffered":
                self.writers[dest] = BufferedWriter(await self.open_buffered(Buffered, dest, 1))
                self.pingers[dest] = await self.open_buffered(BufferedPing, dest, 2)
            else:
                _, self.writers[dest] = await self.open(dest, 1)
                self.pingers[dest] = await self.open(dest, 2)
        answer(connected=True)

    async def send(self, form: str, count: int, size: int, sender: int, *dests: str) -> None:
        data = payload(size)
        first = sender << SHIFT
        step = batch(size)
        for start in range(first, first + count, step):
            ids = range(start, min(start + step, first + count))
            for dest in dests:
                writer = self.writers[dest]
                if form == "batched":
                    body = encode([(TAG, i, data) for i in ids])
                    writer.writelines([LENGTH.pack(len(body)), body])
                else:
                    write, pack = writer.write, LENGTH.pack
                    if size < JOIN_BYTES:
                        for i in ids:
                            body = encode((TAG, i, data))
                            write(pack(len(body)) + body)
                    else:
                        for i in ids:
                            body = encode((TAG, i, data))
                            writer.writelines([pack(len(body)), body])
                await writer.drain()
        answer(sent=count)

    # round trips ---------------------------------------------------------------

    async def echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        exactly, length = reader.readexactly, LENGTH.unpack
        try:
            while True:
                body = encode(decode(await exactly(length(await exactly(4))[0])))
                writer.write(LENGTH.pack(len(body)) + body)
        except asyncio.IncompleteReadError:
            writer.close()

    async def serve(self, count: int) -> None:
        answer(armed=True)
        answer(served=count)

    async def ping(self, form: str, count: int, size: int, dest: str) -> None:
        if self.style == "buffered":
            times = await self.pingers[dest].begin_pings(count, size)
        else:
            reader, writer = self.pingers[dest]
            exactly, length, data, times = reader.readexactly, LENGTH.unpack, payload(size), []
            stop = now() + PING_NS_MAX
            for i in range(count):
                begin = now()
                if begin > stop:
                    break
                body = encode((TAG, i, data))
                writer.write(LENGTH.pack(len(body)) + body)
                _, id_, _ = decode(await exactly(length(await exactly(4))[0]))
                times.append(now() - begin)
                if id_ != i:
                    raise Wrong(f"id {id_}, not {i}")
        answer(**round_trips(times))

    async def bulk(self, size: str | int, dest: str = "") -> None:
        if self.bulk_task is not None:
            self.bulk_task.cancel()
            await asyncio.wait([self.bulk_task])
            self.bulk_task = None
        if size != "off":
            self.bulk_task = asyncio.create_task(self.send_bulk(int(size), dest))
        answer(bulk=size)

    async def send_bulk(self, size: int, dest: str) -> None:
        """On a connection of its own: a frame cannot pass another on the same one."""
        _, writer = await self.open(dest, 3)
        data, i = payload(size), 0
        try:
            while True:
                body = encode((TAG, i, data))
                writer.writelines([LENGTH.pack(len(body)), body])
                i += 1
                await writer.drain()
                await asyncio.sleep(0)
        finally:
            writer.close()

    # connections -----------------------------------------------------------------

    async def cycle(self, count: int, dest: str) -> None:
        begin = now()
        for _ in range(count):
            _, writer = await self.open(dest, 3)
            writer.close()
            await writer.wait_closed()
        answer(cycles=count, ns=now() - begin)

    async def hold(self, count: int, dest: str) -> None:
        for _ in range(count):
            if self.style == "buffered":
                self.crowd.append(BufferedWriter(await self.open_buffered(Buffered, dest, 1)))
            else:
                self.crowd.append((await self.open(dest, 1))[1])
        answer(held=count)

    async def flood(self, each: int, size: int, dest: str) -> None:
        data, pack = payload(size), LENGTH.pack
        for start in range(0, each, 16):
            for number, writer in enumerate(self.crowd):
                first = (number << SHIFT) + start
                for i in range(first, first + min(16, each - start)):
                    body = encode((TAG, i, data))
                    writer.write(pack(len(body)) + body)
                await writer.drain()
            await asyncio.sleep(0)  # a turn of the loop writes what the transports hold
        answer(sent=each)


async def main(style: str) -> None:
    actor = Actor(style)
    answer(ready=True, address=await actor.listen())
    async for command, *words in commands():
        method = getattr(actor, command)
        try:
            await method(*(int(w) if w.isdigit() else w for w in words))
        except Exception as e:
            answer(error=f"{type(e).__name__}: {e}")


def loop_factory(kind: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if kind == "asyncio":
        return None
    import uvloop

    if kind == "uvloop":
        return uvloop.new_event_loop
    import aiofastnet

    made: Callable[[], asyncio.AbstractEventLoop] = aiofastnet.loop_factory(uvloop.new_event_loop)
    return made


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory(sys.argv[1])) as runner:
        runner.run(main(sys.argv[2]))
