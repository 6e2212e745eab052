"""`router demo`: nodes in several processes, messages both ways, and what was seen."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from router import Atom, BitString, Export, ImproperList, Mailbox, Node, RouterError
from router.cli.common import fail, free_port, out
from router.cli.demo_peer import count, flood

__all__ = ["demo"]

COUNT, FLOOD, ECHO, STOP = (Atom(a) for a in ("count", "flood", "echo", "stop"))
PAYLOAD = b"x" * 64
ROUND = 20_000
HERE = Path(__file__).parent


@dataclass
class Seen:
    """What was exchanged with one peer."""

    label: str
    sent: int = 0
    sent_rate: float = 0.0
    received: int = 0
    received_rate: float = 0.0
    round_trips: list[float] = field(default_factory=list)
    terms: int = 0
    wrong: list[str] = field(default_factory=list)

    def percentile(self, q: float) -> float:
        times = sorted(self.round_trips)
        return times[min(len(times) - 1, int(len(times) * q))] if times else 0.0


def demo(
    seconds: Annotated[float, typer.Option(min=0.5, help="How long, roughly.")] = 8.0,
    erlang: Annotated[
        bool, typer.Option("--erlang/--no-erlang", help="With a real Erlang node, if there is one.")
    ] = True,
) -> None:
    """Start two nodes in two processes, and an Erlang one, and exchange messages both ways."""
    erl = shutil.which("erl") if erlang else None
    try:
        seen = asyncio.run(_run(seconds, erl))
    except KeyboardInterrupt:
        raise fail("stopped", 130) from None
    except (RouterError, TimeoutError, OSError) as e:
        raise fail(f"the demo failed: {str(e) or type(e).__name__}") from None
    _report(seen)
    if erlang and not erl:
        out.print(
            "\nNo Erlang was found. For a real Erlang node in the demo: apt-get install erlang-base"
        )
    wrong = [f"{s.label}: {w}" for s in seen for w in s.wrong]
    if wrong:
        raise fail("\n".join(wrong))


async def _run(seconds: float, erl: str | None) -> list[Seen]:
    epmd_port = free_port()
    boss = f"demo_boss_{os.getpid()}@127.0.0.1"
    found = []
    with tempfile.TemporaryDirectory(prefix="router-demo-") as home:
        cookie = secrets.token_hex(16)
        (Path(home) / ".erlang.cookie").write_text(cookie)
        (Path(home) / ".erlang.cookie").chmod(0o400)
        env = {**os.environ, "HOME": home, "ERL_EPMD_PORT": str(epmd_port)}
        async with Node(boss, cookie=cookie, epmd_port=epmd_port) as node:
            box = node.mailbox("demo")
            peers: list[tuple[str, list[str]]] = [
                ("Python", _python_peer(boss)),
            ]
            if erl:
                peers.append(("Erlang", _erlang_peer(erl, boss, home)))
            share = seconds / len(peers) / 3
            for label, command in peers:
                with _process(command, env) as process, _progress(label) as progress:
                    found.append(await _meet(node, box, process, label, share, progress))
    return found


def _python_peer(boss: str) -> list[str]:
    name = f"demo_python_{os.getpid()}@127.0.0.1"
    return [sys.executable, "-m", "router.cli.demo_peer", name, boss]


def _erlang_peer(erl: str, boss: str, home: str) -> list[str]:
    source = HERE / "demo_peer.erl"
    start = (
        f'{{ok, M, B}} = compile:file("{source}", [binary]),'
        f'{{module, M}} = code:load_binary(M, "{source}", B),'
        f"demo_peer:start('{boss}')."
    )
    name = f"demo_erlang_{os.getpid()}@127.0.0.1"
    return [erl, "-name", name, "-start_epmd", "false", "-hidden", "-noinput", "-eval", start]


@contextmanager
def _process(command: list[str], env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        command,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
        process.wait(5)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@contextmanager
def _progress(label: str) -> Iterator[Progress]:
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as p:
        p.add_task(f"{label}: starting", total=None)
        yield p


def _say(progress: Progress, text: str) -> None:
    progress.update(progress.task_ids[0], description=text)


async def _meet(
    node: Node,
    box: Mailbox,
    process: subprocess.Popen[bytes],
    label: str,
    share: float,
    progress: Progress,
) -> Seen:
    seen = Seen(label)
    peer = await _ready(box, process, label)
    _say(progress, f"{label}: sending")
    await _send(node, box, peer, share, seen)
    _say(progress, f"{label}: receiving")
    await _receive(node, box, peer, share, seen)
    _say(progress, f"{label}: round trips")
    await _round_trips(node, box, peer, share, seen)
    _say(progress, f"{label}: every kind of term")
    await _terms(node, box, peer, seen)
    node.send(peer, STOP)
    return seen


async def _ready(box: Mailbox, process: subprocess.Popen[bytes], label: str) -> Any:
    deadline = time.monotonic() + 20
    while True:
        try:
            match await box.receive(timeout=0.25):
                case ("ready", peer):
                    return peer
        except TimeoutError:
            if process.poll() is not None:
                said = (process.stderr.read() if process.stderr else b"").decode(errors="replace")
                raise RouterError(f"{label} did not start: {said.strip()[-500:]}") from None
            if time.monotonic() > deadline:
                raise RouterError(f"{label} did not say that it is ready") from None


async def _send(node: Node, box: Mailbox, peer: Any, share: float, seen: Seen) -> None:
    micros, end = 0, time.perf_counter() + share
    while time.perf_counter() < end and not seen.wrong:
        node.send(peer, (COUNT, box.pid, ROUND))
        await flood(node, peer, ROUND, PAYLOAD)
        match await box.receive(timeout=30):
            case ("counted", "ok", took):
                seen.sent += ROUND
                micros += took
            case answer:
                seen.wrong.append(f"the receiver says {answer!r}")
    seen.sent_rate = seen.sent / micros * 1e6 if micros else 0.0


async def _receive(node: Node, box: Mailbox, peer: Any, share: float, seen: Seen) -> None:
    micros, end = 0, time.perf_counter() + share
    while time.perf_counter() < end and not seen.wrong:
        node.send(peer, (FLOOD, box.pid, ROUND, PAYLOAD))
        verdict, took = await count(box, ROUND)
        if verdict != "ok":
            seen.wrong.append(f"received {verdict!r}")
        seen.received += ROUND
        micros += took
    seen.received_rate = seen.received / micros * 1e6 if micros else 0.0


async def _round_trips(node: Node, box: Mailbox, peer: Any, share: float, seen: Seen) -> None:
    end = time.perf_counter() + share
    number = 0
    while (start := time.perf_counter()) < end and not seen.wrong:
        node.send(peer, (ECHO, box.pid, number))
        answer = await box.receive(timeout=10)
        seen.round_trips.append(time.perf_counter() - start)
        if answer != ("echoed", number):
            seen.wrong.append(f"an echo came back as {answer!r}")
        number += 1


async def _terms(node: Node, box: Mailbox, peer: Any, seen: Seen) -> None:
    kinds: tuple[Any, ...] = (
        Atom("an atom"), Atom("Ünï"), True, False, None, 0, -1, 2**31, -(2**63), 10**40, 1.5, -0.0,
        b"", b"bytes", b"x" * 200_000, [], [1, 2, 3], [1, 1000, b"mixed"], ImproperList([1], 2),
        (), (1, (2, (3,))), {}, {1: b"a", b"k": [{}]}, {(1, 2): Atom("v")}, BitString(b"\xa0", 3),
        box.pid, peer, node.reference(), Export("lists", "map", 2), [[[[]]]],
    )  # fmt: skip
    for term in kinds:
        node.send(peer, (ECHO, box.pid, term))
        answer = await box.receive(timeout=10)
        if answer != ("echoed", term) or type(answer[1]) is not type(term):
            seen.wrong.append(f"{term!r:.60} came back as {answer[1]!r:.60}")
        seen.terms += 1


def _report(seen: list[Seen]) -> None:
    table = Table(title="What this node exchanged, every message checked", title_justify="left")
    table.add_column("with", no_wrap=True)
    for heading in ("sent", "per s", "received", "per s", "p50", "p99", "terms"):
        table.add_column(heading, justify="right", no_wrap=True)
    for s in seen:
        table.add_row(
            s.label, f"{s.sent:,}", f"{s.sent_rate:,.0f}", f"{s.received:,}",
            f"{s.received_rate:,.0f}", f"{s.percentile(0.5) * 1e6:.0f} us",
            f"{s.percentile(0.99) * 1e6:.0f} us", str(s.terms),
        )  # fmt: skip
    out.print(table)
    out.print(
        "Messages are {m, Id, 64-byte binary} between processes of this machine. Rates are the\n"
        "receiver's, first to last message. p50, p99: round trips, one at a time. terms: kinds of\n"
        "term sent there and back, compared equal."
    )
