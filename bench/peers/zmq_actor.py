"""pyzmq: PUSH to PULL, and a PAIR for round trips; blocking sockets, which cost it least.

Argument: the high-water mark, in messages. It is set before binding and connecting and stays:
lowering it on a connected pair can leave both sides waiting.
"""

from __future__ import annotations

import sys
from typing import Any

import msgspec
import zmq

from bench.peers.control import (
    MASK,
    SHIFT,
    TAG,
    Wrong,
    answer,
    batch,
    check_payload,
    now,
    payload,
    read_commands,
    round_trips,
)

Event = tuple[str, int, bytes]
ZERO_COPY_BYTES = 64 << 10  # pyzmq's own COPY_THRESHOLD


class Actor:
    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.context = zmq.Context()
        self.pull = self.context.socket(zmq.PULL)
        self.pull.set_hwm(limit)
        self.pull_port = self.pull.bind_to_random_port("tcp://127.0.0.1")
        self.pair = self.context.socket(zmq.PAIR)
        self.pair_port = self.pair.bind_to_random_port("tcp://127.0.0.1")
        self.push: dict[str, zmq.Socket[bytes]] = {}
        self.pairs: dict[str, zmq.Socket[bytes]] = {}
        self.encode = msgspec.msgpack.Encoder().encode
        self.decode = msgspec.msgpack.Decoder(Event).decode
        self.decode_list = msgspec.msgpack.Decoder(list[Event]).decode

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.pull_port}:{self.pair_port}"

    def receive(self, form: str, count: int, size: int, senders: int, boxes: int) -> None:
        answer(armed=True)
        if senders > 1:
            first, last, counted = self.receive_of_many(form, count, size, senders)
        elif form == "batched":
            first, last, counted = self.receive_batches(count, size)
        else:
            first, last, counted = self.receive_singly(count, size)
        answer(first=first, last=last, counted=counted)

    def receive_singly(self, count: int, size: int) -> tuple[int, int, int]:
        recv, decode = self.pull.recv, self.decode
        first = 0
        for want in range(count):
            if size < ZERO_COPY_BYTES:
                tag, id_, data = decode(recv())
            else:
                tag, id_, data = decode(recv(copy=False).buffer)
            if id_ != want:
                raise Wrong(f"id {id_}, not {want}")
            if not first:
                first = now()
        last = now()
        check_payload(tag, data, size)
        return first, last, count - 1

    def receive_batches(self, count: int, size: int) -> tuple[int, int, int]:
        recv, decode = self.pull.recv, self.decode_list
        want = alone = first = 0
        while want < count:
            events = decode(recv(copy=False).buffer)
            if not first:
                first, alone = now(), len(events)
            for event in events:
                if event[1] != want:
                    raise Wrong(f"id {event[1]}, not {want}")
                want += 1
            del events
        last = now()
        check_payload(event[0], event[2], size)
        return first, last, count - alone

    def receive_of_many(
        self, form: str, count: int, size: int, senders: int
    ) -> tuple[int, int, int]:
        recv = self.pull.recv
        expected = [sender << SHIFT for sender in range(senders)]
        got = alone = first = 0
        while got < count:
            if form == "batched":
                events = self.decode_list(recv(copy=False).buffer)
            else:
                events = [self.decode(recv())]
            if not first:
                first, alone = now(), len(events)
            for event in events:
                id_ = event[1]
                sender = id_ >> SHIFT
                if id_ != expected[sender]:
                    raise Wrong(f"id {id_ & MASK} of {sender}, not {expected[sender] & MASK}")
                expected[sender] += 1
            got += len(events)
            del events
        last = now()
        check_payload(event[0], event[2], size)
        return first, last, count - alone

    def connect(self, *dests: str) -> None:
        for dest in dests:
            host, port, _ = dest.split(":")
            socket = self.context.socket(zmq.PUSH)
            socket.set_hwm(self.limit)
            socket.connect(f"tcp://{host}:{port}")
            self.push[dest] = socket
        answer(connected=True)

    def send(self, form: str, count: int, size: int, sender: int, *dests: str) -> None:
        data, encode = payload(size), self.encode
        sends = [self.push[dest].send for dest in dests]
        first = sender << SHIFT
        copy = size < ZERO_COPY_BYTES
        if form == "batched":
            step = batch(size)
            for start in range(first, first + count, step):
                ids = range(start, min(start + step, first + count))
                for send in sends:
                    send(encode([(TAG, i, data) for i in ids]), copy=False)
        elif len(sends) == 1:
            (send,) = sends
            for i in range(first, first + count):
                send(encode((TAG, i, data)), 0, copy)
        else:
            for i in range(first, first + count):
                for send in sends:
                    send(encode((TAG, i, data)), 0, copy)
        answer(sent=count)

    def serve(self, count: int) -> None:
        pair, decode, encode = self.pair, self.decode, self.encode
        answer(armed=True)
        for _ in range(count):
            pair.send(encode(decode(pair.recv())))
        answer(served=count)

    def ping(self, form: str, count: int, size: int, dest: str) -> None:
        pair = self.pairs.get(dest)
        if pair is None:
            host, _, port = dest.split(":")
            pair = self.pairs[dest] = self.context.socket(zmq.PAIR)
            pair.connect(f"tcp://{host}:{port}")
        data, decode, encode = payload(size), self.decode, self.encode
        times = []
        for i in range(count):
            begin = now()
            pair.send(encode((TAG, i, data)))
            _, id_, _ = decode(pair.recv())
            times.append(now() - begin)
            if id_ != i:
                raise Wrong(f"id {id_}, not {i}")
        answer(**round_trips(times))


def main() -> None:
    actor = Actor(int(sys.argv[1]))
    answer(ready=True, address=actor.address)
    for command, *words in read_commands():
        values: list[Any] = [int(w) if w.isdigit() else w for w in words]
        try:
            getattr(actor, command)(*values)
        except Exception as e:
            answer(error=f"{type(e).__name__}: {e}")
    actor.context.destroy(linger=0)


if __name__ == "__main__":
    main()
