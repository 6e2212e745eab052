"""`router demo`: nodes in several processes, messages both ways, and what was seen."""

from __future__ import annotations

import asyncio
import os
import platform
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from router import Atom, Mailbox, Node, RouterError
from router.cli.common import err, fail, free_port, out
from router.cli.demo_exchange import PATIENCE, Seen, exchange

__all__ = ["demo"]

MEET, STOP = Atom("meet"), Atom("stop")
PEER_SOURCE = Path(__file__).with_name("demo_peer.erl")
START_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 10.0
PHASES = 4  # that exchange() names


@dataclass
class Member:
    """A node of the demo, in a process of its own or in this one."""

    label: str
    name: str
    pid: Any = None
    version: str = ""
    process: subprocess.Popen[bytes] | None = None
    log: Path | None = None

    def said(self) -> str:
        text = self.log.read_text(errors="replace").strip() if self.log else ""
        return f":\n{text[-1000:]}" if text else ""


def demo(
    seconds: Annotated[
        float, typer.Option(min=0.5, max=3600, help="How long to exchange, roughly.")
    ] = 7.0,
    erlang: Annotated[
        bool, typer.Option("--erlang/--no-erlang", help="With a real Erlang node, if there is one.")
    ] = True,
) -> None:
    """Start nodes in processes of their own and exchange messages between all of them.

    Two router nodes and, where `erl` is found, an Erlang node, on loopback with
    a port mapper and a cookie of their own. Exits 1 when anything is lost or
    comes out wrong.

    Examples:

    router demo

    router demo --seconds 60 --no-erlang
    """
    erl = shutil.which("erl") if erlang else None
    try:
        members, pairs = asyncio.run(_run(seconds, erl))
    except KeyboardInterrupt:
        raise fail("stopped; nothing is left running", code=130) from None
    except asyncio.CancelledError:
        raise fail("told to end; nothing is left running", code=143) from None
    except (RouterError, TimeoutError, OSError) as e:
        raise fail(
            f"the demo failed: {str(e) or type(e).__name__}",
            hint="Without the Erlang node: router demo --no-erlang" if erl else "",
        ) from None
    _report(members, pairs)
    if erlang and not erl:
        out.print(
            "\nNo Erlang was found (no `erl` on PATH), so only router nodes met. "
            "To see them with a real\nErlang node:  apt-get install erlang-base"
        )
    wrong = [f"{a.label} and {b.label}: {w}" for a, b, seen in pairs for w in seen.wrong]
    if wrong:
        raise fail("not everything arrived as it was sent:\n" + "\n".join(wrong))


Pairs = list[tuple[Member, Member, Seen]]


async def _run(seconds: float, erl: str | None) -> tuple[list[Member], Pairs]:
    task = asyncio.current_task()
    assert task is not None
    for ends in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(ends, task.cancel)
    number = os.getpid()
    boss = Member("Python 1", f"demo_1_{number}@127.0.0.1")
    boss.version = f"{platform.python_implementation()} {platform.python_version()}"
    others = [Member("Python 2", f"demo_2_{number}@127.0.0.1")]
    if erl:
        others.append(Member("Erlang", f"demo_erlang_{number}@127.0.0.1"))
    members = [boss, *others]
    meetings = list(combinations(members, 2))
    epmd_port = free_port()
    pairs: Pairs = []
    async with AsyncExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="router-demo-")))
        env = _environment(home, epmd_port)
        node = Node(boss.name, cookie=_write_cookie(home), epmd_port=epmd_port)
        await stack.enter_async_context(node)
        box = node.mailbox("demo")
        progress = stack.enter_context(_Progress(len(meetings)))
        for member in others:
            command = (
                _python(member, boss)
                if member.label != "Erlang"
                else _erlang(str(erl), member, boss)
            )
            member.log = home / f"{member.label}.log"
            member.process = stack.enter_context(_process(command, env, member.log))
        progress.doing("starting " + " and ".join(m.label for m in others))
        await _ready(box, others)
        for a, b in meetings:
            progress.meeting(f"{a.label} and {b.label}")
            share = seconds / len(meetings)
            if a is boss:
                seen = await exchange(node, b.pid, share, progress.doing)
            else:
                seen = await _elsewhere(node, box, a, b, share, progress)
            pairs.append((a, b, seen))
        progress.doing("ending")
        for member in others:
            node.send(member.pid, STOP)
        for member in others:
            await _ended(member)
    return members, pairs


# Processes


def _environment(home: Path, epmd_port: int) -> dict[str, str]:
    """A home of their own: both Python and Erlang find the cookie there."""
    return {
        **os.environ,
        "HOME": str(home),
        "ERL_EPMD_PORT": str(epmd_port),
        "ERL_CRASH_DUMP_BYTES": "0",
    }


def _write_cookie(home: Path) -> str:
    """Not on a command line, where other users of this machine could read it."""
    cookie = secrets.token_hex(16)
    path = home / ".erlang.cookie"
    path.touch(0o600)
    path.write_text(cookie)
    path.chmod(0o400)
    return cookie


def _python(member: Member, boss: Member) -> list[str]:
    # The same path as this process has, whichever way it was started.
    start = "import sys; sys.path[:] = sys.argv[3:]; from router.cli.demo_peer import main; main()"
    return [sys.executable, "-P", "-c", start, member.name, boss.name, *sys.path]


def _erlang(erl: str, member: Member, boss: Member) -> list[str]:
    source = str(PEER_SOURCE).replace("\\", "\\\\").replace('"', '\\"')
    start = (
        f'{{ok, M, B}} = compile:file("{source}", [binary, report]),'
        f'{{module, M}} = code:load_binary(M, "{source}", B),'
        f"demo_peer:start('{boss.name}')."
    )
    flags = ["-start_epmd", "false", "-hidden", "-noinput"]
    return [erl, "-name", member.name, *flags, "-eval", start]


@contextmanager
def _process(
    command: list[str], env: dict[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Ends with the block, whatever happens. In a session of its own: Ctrl-C is ours to handle."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        # Erlang's helpers share its group.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


async def _ready(box: Mailbox, members: list[Member]) -> None:
    """Waits until each has said who it is."""
    waiting = {m.name: m for m in members}
    deadline = time.monotonic() + START_SECONDS_MAX
    while waiting:
        try:
            match await box.receive(timeout=0.25):
                case ("ready", bytes(name), pid, bytes(version)) if name.decode() in waiting:
                    member = waiting.pop(name.decode())
                    member.pid, member.version = pid, version.decode()
        except TimeoutError:
            for member in waiting.values():
                if member.process and member.process.poll() is not None:
                    raise RouterError(f"{member.label} did not start{member.said()}") from None
        if waiting and time.monotonic() > deadline:
            late = next(iter(waiting.values()))
            raise RouterError(
                f"{late.label} was not ready after {START_SECONDS_MAX:g} s{late.said()}"
            )


async def _ended(member: Member) -> None:
    assert member.process is not None
    try:
        status = await asyncio.to_thread(member.process.wait, STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        raise RouterError(f"{member.label} did not end when it was told to") from None
    if status:
        raise RouterError(f"{member.label} ended with status {status}{member.said()}")


async def _elsewhere(
    node: Node, box: Mailbox, a: Member, b: Member, seconds: float, progress: _Progress
) -> Seen:
    """Has `a` exchange with `b`."""
    ref = box.monitor(a.pid)
    node.send(a.pid, (MEET, box.pid, b.pid, int(seconds * 1000)))
    while True:
        match await box.receive(timeout=seconds + 2 * PATIENCE):
            case ("doing", text):
                progress.doing(text.decode())
            case ("met", seen):
                box.demonitor(ref)
                return Seen.of(seen)
            case ("DOWN", *_):
                raise RouterError(f"{a.label} ended{a.said()}")


# What a person sees


class _Progress:
    """A bar on a terminal, a line for each meeting elsewhere."""

    def __init__(self, meetings: int) -> None:
        self._what = ""
        self._bar = Progress(
            SpinnerColumn(),
            BarColumn(24),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            console=err,
            transient=True,
            disable=not err.is_terminal,
        )
        # One step to start, one for each phase of each meeting, one to end.
        self._task = self._bar.add_task("", total=meetings * PHASES + 2)
        self._steps = -1

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()

    def meeting(self, what: str) -> None:
        self._what = f"{what}: "
        if not err.is_terminal:
            out.print(f"{what} exchange messages", markup=False)

    def doing(self, text: str) -> None:
        self._steps += 1
        self._bar.update(self._task, completed=self._steps, description=f"{self._what}{text}")


def _report(members: list[Member], pairs: Pairs) -> None:
    for member in members:
        where = "this process" if member.process is None else f"process {member.process.pid}"
        out.print(f"{member.label}: {member.version}, {member.name}, {where}", markup=False)
    table = Table(title="\nWhat they exchanged", title_justify="left")
    table.add_column("between", no_wrap=True)
    for heading in ("messages", "there/s", "back/s", "p50", "p99", "terms"):
        table.add_column(heading, justify="right", no_wrap=True)
    for a, b, seen in pairs:
        table.add_row(
            f"{a.label}, {b.label}",
            f"{seen.sent + seen.received + 2 * seen.round_trips:,}",
            f"{seen.sent_rate:,.0f}",
            f"{seen.received_rate:,.0f}",
            f"{seen.p50 * 1e6:,.0f} us",
            f"{seen.p99 * 1e6:,.0f} us",
            f"{seen.terms_sent} + {seen.terms_received}",
        )
    out.print(table)
    if not any(seen.wrong for _, _, seen in pairs):
        out.print("Every message arrived once and in order; every term came back the same.")
    out.print(
        "Rates: messages {m, I, 64 bytes}, as the receiver counts them. p50, p99: round trips, "
        "one at a\ntime. terms: kinds of term there and back + back and there. All of it on this "
        "machine's loopback."
    )
