"""`router bench`: what this installation does on this machine, and how far another node is."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from router import Atom, Mailbox, Node, RouterError, etf
from router.cli.common import (
    AsJson,
    Cookie,
    EpmdPort,
    Name,
    Timeout,
    err,
    fail,
    free_port,
    node_for,
    out,
    shown,
)
from router.cli.demo import (
    STOP,
    Member,
    _ended,
    _environment,
    _process,
    _python,
    _ready,
    _write_cookie,
)
from router.cli.demo_exchange import exchange
from router.errors import RemoteError

__all__ = ["bench"]

BATCH = 512
SIZES = (64, 1 << 10, 64 << 10, 1 << 20)
EVENT = Atom("event")

Say = Callable[[str], None]


@dataclass
class Figure:
    """One line of the table. Times in microseconds."""

    what: str
    per_second: float
    cpu: float | None = None
    """Of this process, user and system, a message."""
    p50: float | None = None
    p99: float | None = None


def bench(
    node: Annotated[
        str | None,
        typer.Option(
            metavar="NODE",
            show_default=False,
            help="Measure the way to this Erlang node, name@host, instead.",
        ),
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=0.1, max=600, help="How long to measure, roughly.")
    ] = 5.0,
    as_json: AsJson = False,
    timeout: Timeout = 5.0,
    name: Name = None,
    cookie: Cookie = None,
    epmd_port: EpmdPort = None,
) -> None:
    """Measure this installation: terms, mailboxes, and messages between two processes.

    With --node, calls to that node and back: erpc calls that return what they
    are given, which every Erlang node answers.

    Examples:

    router bench

    router bench --node shop@127.0.0.1 --seconds 10
    """
    with _progress() as say:
        if node is None:
            found = _itself(seconds, say)
        else:
            with node_for(node, name, cookie, epmd_port) as own:
                found = _calls(own, node, seconds, timeout, say)
    if as_json:
        out.print(json.dumps([asdict(figure) for figure in found]), markup=False)
    else:
        _show(node or "this installation, against itself", found)


# Against itself


def _itself(seconds: float, say: Say) -> list[Figure]:
    share = seconds / 8
    term = (EVENT, 123456, b"x" * 64)
    data = etf.encode(term)
    found = []
    for what, call, argument in (
        ("encode {event, I, 64 bytes}", etf.encode, term),
        ("decode it", etf.decode, data),
    ):
        say(what)
        found.append(_repeat(what, share, BATCH, _times(call, argument)))
    with (
        Node("bench@127.0.0.1", cookie="alone", listen=False, epmd="none") as node,
        node.mailbox() as box,
    ):
        say("send and get, in one process")
        found.append(_repeat("send and get, in one process", share, BATCH, _singly(node, box)))
        say("send_many and get_many")
        found.append(_repeat("send_many and get_many", share, BATCH, _batches(node, box)))
    try:
        found += asyncio.run(_two_processes(seconds / 2, say))
    except (RouterError, TimeoutError, OSError) as e:
        raise fail(f"the other process: {str(e) or type(e).__name__}") from None
    return found


def _times(call: Callable[[Any], Any], argument: Any) -> Callable[[], None]:
    def work() -> None:
        for _ in range(BATCH):
            call(argument)

    return work


def _singly(node: Node, box: Mailbox) -> Callable[[], None]:
    pid, data = box.pid, b"x" * 64

    def work() -> None:
        for i in range(BATCH):
            node.send(pid, (EVENT, i, data))
        _check([box.get() for _ in range(BATCH)])

    return work


def _batches(node: Node, box: Mailbox) -> Callable[[], None]:
    pid, data = box.pid, b"x" * 64

    def work() -> None:
        node.send_many(pid, [(EVENT, i, data) for i in range(BATCH)])
        _check(box.get_many(BATCH))

    return work


def _check(terms: list[Any]) -> None:
    if [term[1] for term in terms] != list(range(BATCH)):
        raise fail("messages were lost or came out of order")


def _repeat(what: str, seconds: float, count: int, work: Callable[[], None]) -> Figure:
    """`work` handles `count` messages; it runs once before the clock does."""
    work()
    done, began, cpu = 0, time.perf_counter(), time.process_time()
    while not done or time.perf_counter() - began < seconds:
        work()
        done += count
    spent, took = time.process_time() - cpu, time.perf_counter() - began
    return Figure(what, done / took, cpu=spent / done * 1e6)


async def _two_processes(seconds: float, say: Say) -> list[Figure]:
    number = os.getpid()
    boss = Member("Python 1", f"bench_1_{number}@127.0.0.1")
    other = Member("Python 2", f"bench_2_{number}@127.0.0.1")
    epmd_port = free_port()
    async with AsyncExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="router-bench-")))
        node = Node(boss.name, cookie=_write_cookie(home), epmd_port=epmd_port)
        await stack.enter_async_context(node)
        box = node.mailbox("demo")  # the name that the other process reports to
        other.log = home / "other.log"
        other.process = stack.enter_context(
            _process(_python(other, boss), _environment(home, epmd_port), other.log)
        )
        say("starting another process")
        await _ready(box, [other])
        seen = await exchange(node, other.pid, seconds, say)
        node.send(other.pid, STOP)
        await _ended(other)
    if seen.wrong:
        raise fail("not everything arrived as it was sent:\n" + "\n".join(seen.wrong))
    return [
        Figure("to another process, as it counts them", seen.sent_rate),
        Figure("from another process", seen.received_rate),
        Figure(
            "round trips, one at a time",
            1 / seen.p50 if seen.p50 else 0.0,
            p50=seen.p50 * 1e6,
            p99=seen.p99 * 1e6,
        ),
    ]


# Another node


def _calls(own: Node, node: str, seconds: float, timeout: float, say: Say) -> list[Figure]:
    say(f"connecting to {node}")
    own.connect_sync(node, timeout)
    share = seconds / (len(SIZES) + 1)
    pings = _trips("ping", share, lambda: own.ping_sync(node, timeout))
    found = [pings]
    for size in SIZES:
        words = f"{size:,} bytes there and back" if size < 1 << 20 else "1 MiB there and back"
        say(words)
        payload = os.urandom(size)

        def call(payload: bytes = payload) -> bool:
            back = own.rpc_sync(node, "lists", "last", [[payload]], timeout)
            return bool(back == payload)

        try:
            found.append(_trips(words, share, call))
        except RemoteError as e:
            if e.reason == ("erpc", "notsup"):  # a router node: it answers pings alone
                return found
            raise
    return found


def _trips(what: str, seconds: float, call: Callable[[], bool]) -> Figure:
    call()
    times: list[float] = []
    began, cpu = time.perf_counter(), time.process_time()
    while not times or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        if not call():
            raise fail(f"{what}: the answer is not what was sent")
        times.append(time.perf_counter() - start)
    spent, took = time.process_time() - cpu, time.perf_counter() - began
    times.sort()
    p50, p99 = (times[int(len(times) * q)] * 1e6 for q in (0.5, 0.99))
    return Figure(what, len(times) / took, cpu=spent / len(times) * 1e6, p50=p50, p99=p99)


# What a person sees


@contextmanager
def _progress() -> Iterator[Say]:
    bar = Progress(
        BarColumn(24),
        TextColumn("{task.description}", markup=False),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    )
    task = bar.add_task("", total=9)
    with bar:
        yield lambda text: bar.update(task, advance=1, description=shown(text))


def _show(title: str, found: list[Figure]) -> None:
    table = Table(title=f"\n{shown(title)}", title_justify="left")
    table.add_column("what", no_wrap=True)
    for heading in ("a second", "CPU", "p50", "p99"):
        table.add_column(heading, justify="right", no_wrap=True)
    for f in found:
        times = (f.cpu, f.p50, f.p99)
        table.add_row(
            f.what,
            f"{f.per_second:,.0f}",
            *("" if t is None else f"{t:,.2f} us" if t < 10 else f"{t:,.0f} us" for t in times),
        )
    out.print(table)
    out.print(
        "CPU: of this process, user and system, for each. On a shared machine the rates differ "
        "from run to\nrun; `make bench` in a checkout measures router beside other libraries, "
        "in pairs."
    )
