"""`core`: what the C core does, alone: registry, mailbox, and the way of a message through it.

The registry's peer is liburcu's `cds_lfht`. Everything else is given in units of the
machine: the "peer" is a primitive, and the ratio says how many of those it costs.
"""

from __future__ import annotations

import ctypes
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import report
from bench.inline import PER_CALL, per_call
from bench.measure import BenchError, Run, Sample, compare
from bench.native import Context, Library, bare_read, lfht, library, packets

__all__ = ["BARE", "MEMORY", "SIZES", "cases", "measure", "primitives", "resident"]

SIZES = (1_000, 1_000_000)
REGISTRY, MAILBOX, WIRE = "registry", "mailbox", "wire"
EXCHANGE = "atomic exchange"
MISS = "load that misses every cache"
COPY = "copy of 64 bytes"
MEMORY = {"bytes": "idle"}
LIVES_MIN = 90_000  # a second, beside the reader
ATTEMPTS = 20
SHORT = 7  # pairs of a short run each, for one of the others
PUSHED, SHORTEST = 100_000, 21  # runs of ten milliseconds: two threads take all of this machine
LFHT = "cds_lfht"
BARE = "bare indexed read of the same slots"
PAYLOAD_BYTES = 64
CREATION = 7

WORDS = {
    "lookup": "pid lookup, random",
    "whereis": "name lookup, random",
    "life": "a process begins and ends",
    "rename": "a name is given back and taken",
}


def primitives(context: Context) -> dict[str, Callable[[int], None]]:
    ours = library()
    chain = context.make(ours, "chain")
    return {
        EXCHANGE: ours.work("primitive_exchange"),
        MISS: ours.work("primitive_miss", chain),
        COPY: ours.work("primitive_copy"),
    }


def wire(context: Context) -> int:
    """A node whose next packet is a message of `PAYLOAD_BYTES`, as Erlang writes it."""
    ours = library()
    made = context.make(ours, "wire", b"b@127.0.0.1", CREATION)
    pid = ours.number("wire_pid", made, types=())
    for packet in packets(pid, CREATION, bytes(PAYLOAD_BYTES)):
        words = (ctypes.c_char_p, ctypes.c_uint64)
        if ours.number("wire_packet", made, packet, len(packet), types=words) != 1:
            raise BenchError("the packet is not understood")
    return made


def cases(context: Context, size: int) -> Iterator[tuple[str, str, Callable[[int], None], str]]:
    """(path, what, work, in units of which primitive); a registry of `size` processes."""
    ours = library()
    table = context.make(ours, "registry", size, 1)
    for word, what in WORDS.items():
        unit = MISS if size == max(SIZES) and word in ("lookup", "whereis") else EXCHANGE
        yield f"{REGISTRY} of {size:,}", what, ours.work(f"registry_{word}", table), unit
    if size != min(SIZES):
        return
    box = context.make(ours, "box")
    for word, what in (
        ("box_single", "push and pop"),
        ("box_batch", "push and pop, each of 16"),
        ("message_life", "make, push, pop, free"),
    ):
        yield MAILBOX, what, ours.work(word, box), EXCHANGE
    packet = wire(context)
    for word, what in (
        ("frame", "parse the frame"),
        ("control", "parse the control message"),
        ("scan", "validate the term"),
        ("inbound", "packet to popped message"),
        ("outbound", "message to queued frame"),
    ):
        yield WIRE, what, ours.work(f"wire_{word}", packet), COPY


def _reader(ours: Library, table: int, n: int, *, beside: bool) -> Run:
    """Lookups, timed by the reading thread's own clock, with or without a writer beside it."""
    lives = ctypes.c_uint64()

    def run() -> Sample:
        for _ in range(ATTEMPTS):
            begin = time.perf_counter()
            words = (ctypes.c_uint64, ctypes.POINTER(ctypes.c_uint64))
            counted = ctypes.byref(lives) if beside else None
            spent = ours.number("registry_read", table, n, counted, types=words)
            if spent == 0:
                raise BenchError("a lookup found nothing")
            rate = lives.value / (time.perf_counter() - begin)
            if not beside or rate >= LIVES_MIN:
                return Sample(messages=n, cpu=spent / 1e3 / n, more={"each": spent / 1e3 / n})
        raise BenchError(f"the writer got no processor: {rate:,.0f} lives a second")

    return run


def _producers(ours: Library, box: int, n: int, producers: int) -> Run:
    pushed = ctypes.c_uint64()

    def run() -> Sample:
        words = (ctypes.c_uint64, ctypes.c_uint32, ctypes.POINTER(ctypes.c_uint64))
        counted = ctypes.byref(pushed)
        spent = ours.number("box_produce", box, n, producers, counted, types=words)
        if spent == 0:
            raise BenchError("a message is missing")
        each = spent / 1e3 / pushed.value
        return Sample(messages=pushed.value, cpu=each, more={"each": each})

    return run


def resident() -> int:
    """Bytes of memory that this process holds, with nothing freed among them."""
    ctypes.CDLL(None).malloc_trim(0)
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()


def _bytes(made: Library, kind: str, size: int, aside: int) -> Run:
    """aside: bytes for each that are the measuring program's own."""

    def run() -> Sample:
        with Context() as context:
            before = resident()
            context.make(made, kind, size, 0)
            taken = resident() - before - aside * size
        return Sample(messages=size, more={"idle": taken / size})

    return run


def measure(
    quick: bool, say: report.Say, *, count: int = 7, wanted: report.Wanted = report.everything
) -> report.Document:
    document = report.Document("core")
    seconds = 0.003 if quick else 0.2
    pieces = 3 if quick else 500

    def each(work: Callable[[int], None]) -> Run:
        return per_call(work, seconds, pieces=pieces)

    def add(
        path: str, what: str, ours: Run, peer: tuple[str, Run], unit: bool = False, short: int = 1
    ) -> None:
        name = f"router: {what}"
        if not wanted(path, name, peer[0], 0):
            return
        try:
            found = compare((name, ours), peer, pairs=count * short, unit=unit)
        except BenchError as e:
            document.failed(e, name, path, 0, PER_CALL)
        else:
            document.add(found, path, 0, PER_CALL)

    try:
        peer: Library | None = lfht()
    except BenchError as e:
        document.failed(e, LFHT, REGISTRY, 0, PER_CALL)
        peer = None
    ours = library()
    with Context() as context:
        units = {name: (name, each(work)) for name, work in primitives(context).items()}
        for size in SIZES:
            say(f"a registry of {size:,} processes, mailboxes, frames")
            theirs = context.make(peer, "lfht", size, 1) if peer else 0
            for path, what, work, unit in cases(context, size):
                run = each(work)
                word = next((w for w, text in WORDS.items() if what == text), "")
                if word and peer:
                    same = each(peer.work(f"lfht_{word}", theirs))
                    add(path, what, run, (f"{LFHT}: {what}", same))
                add(path, what, run, units[unit], unit=True)
        say("a reader beside a writer, two producers")
        table = context.make(ours, "registry", 100_000, 0)
        n = 2_000_000
        short = 1 if quick else SHORT
        add(
            f"{REGISTRY} of 100,000",
            "pid lookup beside 100,000 lives a second",
            _reader(ours, table, n, beside=True),
            ("router: pid lookup, random", _reader(ours, table, n, beside=False)),
            short=short,
        )
        say("many at once")
        table = context.make(ours, "registry", max(SIZES), 0)
        add(
            f"{REGISTRY} of {max(SIZES):,}",
            "pid lookup, random, many at once",
            each(ours.work("registry_many", table)),
            (BARE, each(bare_read(table))),
        )
        box = context.make(ours, "box")
        add(
            MAILBOX,
            "sixteens pushed by two threads",
            _producers(ours, box, PUSHED, 2),
            ("router: sixteens pushed by one thread", _producers(ours, box, PUSHED, 1)),
            short=1 if quick else SHORTEST,
        )
    size = max(SIZES)
    path, what = f"{REGISTRY} of {size:,}", "memory of an idle process"
    if peer and wanted(path, f"router: {what}", f"{LFHT}: {what}", 0):
        say(what)
        # Ours keeps a pid and a pointer of each for its questions, the other one a pid.
        found = compare(
            (f"router: {what}", _bytes(ours, "registry", size, 16)),
            (f"{LFHT}: {what}", _bytes(peer, "lfht", size, 8)),
            decides="idle", pairs=1 if quick else 3,
        )  # fmt: skip
        document.add(found, path, 0, MEMORY)
    return document
