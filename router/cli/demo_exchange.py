"""What one node of the demo exchanges with another, every message checked.

The other side is demo_peer.py or demo_peer.erl. It serves these messages:

    {count, From, N}         then takes N of {m, I, Payload}, and answers
                             {counted, ok | {wrong, Expected, Got}, Messages, Microseconds}
    {flood, To, N, Payload}  sends N of {m, I, Payload}
    {echo, From, Term}       answers {echoed, Term}
    {terms, From}            sends {echo, self(), Term} for every kind of term it knows and
                             compares what comes back; at the end {compared, N, [Wrong]}
    stop                     ends
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import astuple, dataclass, field
from typing import Any

from router import Atom, BitString, Export, ImproperList, Mailbox, Node, RouterError, etf

__all__ = ["COUNTED", "ECHOED", "Seen", "compare", "count", "exchange", "flood"]

M, WRONG, OK, NOTHING = (Atom(a) for a in ("m", "wrong", "ok", "nothing"))
COUNT, COUNTED, FLOOD = (Atom(a) for a in ("count", "counted", "flood"))
ECHO, ECHOED, TERMS = (Atom(a) for a in ("echo", "echoed", "terms"))

PAYLOAD = b"x" * 64
ROUND = 20_000
BATCH = 512
PATIENCE = 20.0


@dataclass
class Seen:
    """What a node exchanged with one peer. Rates are in messages, times in seconds."""

    sent: int = 0
    sent_rate: float = 0.0
    received: int = 0
    received_rate: float = 0.0
    round_trips: int = 0
    p50: float = 0.0
    p99: float = 0.0
    terms_sent: int = 0
    terms_received: int = 0
    wrong: list[str] = field(default_factory=list)

    def term(self) -> tuple[Any, ...]:
        return astuple(self)

    @classmethod
    def of(cls, term: tuple[Any, ...]) -> Seen:
        seen = cls(*term)
        seen.wrong = [bytes(text).decode(errors="replace") for text in term[-1]]
        return seen


class _Wrong(Exception):
    """Something was lost, or came otherwise than it was sent."""


async def exchange(node: Node, peer: Any, seconds: float, doing: Callable[[str], None]) -> Seen:
    """Messages both ways, round trips and terms, for about so many seconds."""
    seen = Seen()
    with node.mailbox() as box:
        box.monitor(peer)
        try:
            doing("messages there")
            await _send(node, box, peer, seconds / 3, seen)
            doing("messages back")
            await _receive(node, box, peer, seconds / 3, seen)
            doing("round trips")
            await _round_trips(node, box, peer, seconds / 3, seen)
            doing("every kind of term")
            await _terms(node, box, peer, seen)
        except _Wrong as e:
            seen.wrong.append(str(e))
    return seen


async def answer(box: Mailbox) -> Any:
    """The next message, from a peer that is alive."""
    try:
        term = await box.receive(timeout=PATIENCE)
    except TimeoutError:
        raise _Wrong(f"no answer within {PATIENCE:g} s: a message was lost") from None
    match term:
        case ("DOWN", _, "process", _, reason):
            raise RouterError(f"the other side ended: {etf.format(reason)}")
    return term


async def _send(node: Node, box: Mailbox, peer: Any, share: float, seen: Seen) -> None:
    counted, micros, end = 0, 0, time.perf_counter() + share
    while not seen.sent or time.perf_counter() < end:
        node.send(peer, (COUNT, box.pid, ROUND))
        await flood(node, peer, ROUND, PAYLOAD)
        match await answer(box):
            case ("counted", "ok", messages, took):
                counted, micros = counted + messages, micros + took
            case other:
                raise _Wrong(f"the receiver says {_brief(other)}")
        seen.sent += ROUND
    seen.sent_rate = counted / micros * 1e6 if micros else 0.0


async def _receive(node: Node, box: Mailbox, peer: Any, share: float, seen: Seen) -> None:
    counted, micros, end = 0, 0, time.perf_counter() + share
    while not seen.received or time.perf_counter() < end:
        node.send(peer, (FLOOD, box.pid, ROUND, PAYLOAD))
        verdict, messages, took = await count(box, ROUND)
        if verdict != OK:
            raise _Wrong(f"received {_brief(verdict)}")
        seen.received += ROUND
        counted, micros = counted + messages, micros + took
    seen.received_rate = counted / micros * 1e6 if micros else 0.0


async def _round_trips(node: Node, box: Mailbox, peer: Any, share: float, seen: Seen) -> None:
    times: list[float] = []
    end = time.perf_counter() + share
    while (start := time.perf_counter()) < end or not times:
        node.send(peer, (ECHO, box.pid, len(times)))
        echoed = await answer(box)
        times.append(time.perf_counter() - start)
        if echoed != (ECHOED, len(times) - 1):
            raise _Wrong(f"echo {len(times) - 1} came back as {_brief(echoed)}")
    times.sort()
    seen.round_trips = len(times)
    seen.p50, seen.p99 = (times[int(len(times) * q)] for q in (0.5, 0.99))


async def _terms(node: Node, box: Mailbox, peer: Any, seen: Seen) -> None:
    seen.terms_sent, wrong = await compare(node, box, peer)
    seen.wrong += wrong
    node.send(peer, (TERMS, box.pid))
    while True:
        match await answer(box):
            case ("echo", sender, term):
                node.send(sender, (ECHOED, term))
            case ("compared", number, notes):
                seen.terms_received = number
                seen.wrong += [note.decode(errors="replace") for note in notes]
                return
            case other:
                raise _Wrong(f"instead of a term came {_brief(other)}")


async def compare(node: Node, box: Mailbox, peer: Any) -> tuple[int, list[str]]:
    """Sends every kind of term; how many, and those that came back otherwise."""
    kinds = _kinds(node, box, peer)
    wrong = []
    for term in kinds:
        node.send(peer, (ECHO, box.pid, term))
        match await answer(box):
            # Python holds 1, 1.0 and True equal; their bytes differ.
            case ("echoed", back) if etf.encode(back) == etf.encode(term):
                continue
            case other:
                wrong.append(f"{_brief(term)} came back as {_brief(other)}")
    return len(kinds), wrong


def _kinds(node: Node, box: Mailbox, peer: Any) -> list[Any]:
    return [
        Atom("ok"), Atom("an atom"), Atom(""), Atom("Ünï→"), True, False, None,
        0, -1, 255, 2**31, -(2**63), 2**64, -(10**40), 1.5, -0.0, 5e-324,
        b"", b"bytes", b"x" * 200_000, BitString(b"\xa0", 3),
        [], [1, 2, 3], [1, 1000, b"mixed", [[]]], ImproperList([1], 2), [True, None, 1.0],
        (), (1, (2, (3,))), tuple(range(300)),
        {}, {1: b"a", b"k": [{}]}, {(1, 2): Atom("v")}, etf.Map([(1, b"int"), (1.0, b"float")]),
        box.pid, peer, node.reference(), Export("lists", "map", 2),
    ]  # fmt: skip


def _brief(term: Any) -> str:
    text = etf.format(term)
    return text if len(text) <= 80 else text[:77] + "..."


# What a peer does too


async def count(box: Mailbox, total: int) -> tuple[Any, int, int]:
    """Takes `total` messages {m, I, _} in order.

    Gives OK or (WRONG, expected, got); then how many came in how many
    microseconds, counted from the first batch, whose own messages do not count.
    """
    seen, first, start = 0, 0, 0.0
    while seen < total:
        try:
            batch = await box.receive_many(timeout=PATIENCE)
        except TimeoutError:
            return (WRONG, seen, NOTHING), 0, 0
        for term in batch:
            if not isinstance(term, tuple) or term[:2] != (M, seen):
                return (WRONG, seen, term), 0, 0
            seen += 1
        if not start:
            first, start = seen, time.perf_counter()
    return OK, seen - first, int((time.perf_counter() - start) * 1e6)


async def flood(node: Node, to: Any, total: int, payload: bytes) -> None:
    """Sends {m, 0, Payload} and so on, as fast as the receiver takes them."""
    for first in range(0, total, BATCH):
        last = min(first + BATCH, total)
        node.send_many(to, [(M, i, payload) for i in range(first, last)])
        await node.drain()
