"""`router demo` without Erlang: what it prints, that it notices what is wrong, how it ends."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from program import begin, failed, read_until, running, wait_until_gone, worked
from router import Atom, ImproperList, Mailbox, Node, RouterError
from router.cli import demo_exchange
from router.cli.app import app
from router.cli.demo import Member
from router.cli.demo_exchange import Seen, count, exchange, flood
from router.cli.demo_peer import serve

from .conftest import Pair

RUNNER = CliRunner()


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the demo puts its files; it must take them away again."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def test_it_tells_what_it_did_and_leaves_nothing(files: Path) -> None:
    text = worked("demo", "--no-erlang", "--seconds", "0.5")
    assert "Python 1 and Python 2 exchange messages\n" in text
    row = next(line for line in text.splitlines() if "Python 1, Python 2" in line)
    messages, there, back = (int(cell.replace(",", "")) for cell in row.split("│")[2:5])
    assert messages >= 2 * demo_exchange.ROUND
    assert there > 0 and back > 0
    assert "37 + 37" in row
    assert "Every message arrived once and in order" in text
    assert "apt-get" not in text
    name = re.search(r"demo_2_\d+@127.0.0.1", text)
    assert name is not None
    assert running(name[0]) == []
    assert list(files.iterdir()) == []


def test_without_erlang_it_says_how_to_get_it() -> None:
    text = worked("demo", "--seconds", "0.5", PATH="/nonexistent")
    assert "Every message arrived once and in order" in text
    assert "apt-get install erlang-base" in text


@pytest.mark.parametrize(
    ("end", "status", "message"),
    [
        (signal.SIGINT, 130, "router: stopped"),
        (signal.SIGTERM, 143, "router: told to end"),
        (signal.SIGHUP, 143, "router: told to end"),
    ],
)
def test_told_to_end_it_leaves_nothing(
    files: Path, end: signal.Signals, status: int, message: str
) -> None:
    process = begin("demo", "--no-erlang", "--seconds", "600", PYTHONUNBUFFERED="1")
    try:
        read_until(process, "Python 1 and Python 2")
        assert len(running(f"demo_2_{process.pid}@")) == 1
        process.send_signal(end)
        rest, _ = process.communicate(timeout=30)
        assert process.returncode == status
        assert message in rest and "Traceback" not in rest
    finally:
        process.kill()
        process.wait()
    assert running(f"demo_2_{process.pid}@") == []
    assert list(files.iterdir()) == []


def test_killed_it_takes_the_others_along() -> None:
    process = begin("demo", "--no-erlang", "--seconds", "600", PYTHONUNBUFFERED="1")
    read_until(process, "Python 1 and Python 2")
    process.kill()
    process.communicate(timeout=30)
    wait_until_gone(f"demo_2_{process.pid}@")


def test_another_node_that_dies_is_named(files: Path) -> None:
    process = begin("demo", "--no-erlang", "--seconds", "600", PYTHONUNBUFFERED="1")
    try:
        read_until(process, "Python 1 and Python 2")
        (child,) = running(f"demo_2_{process.pid}@")
        os.kill(child, signal.SIGKILL)
        rest, _ = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "the demo failed" in rest and "Traceback" not in rest
    finally:
        process.kill()
        process.wait()
    assert list(files.iterdir()) == []


def test_an_erlang_that_does_not_start_is_told(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("bin")
    (folder / "erl").write_text(
        f"#!{sys.executable}\nprint('no such runtime')\nraise SystemExit(3)\n"
    )
    (folder / "erl").chmod(0o755)
    done = begin("demo", "--seconds", "0.5", PATH=f"{folder}:{os.environ['PATH']}")
    text, _ = done.communicate(timeout=60)
    assert done.returncode == 1
    assert "Erlang did not start" in text and "no such runtime" in text
    assert "--no-erlang" in text
    assert running(f"demo_2_{done.pid}@") == []


def test_on_a_terminal_it_shows_what_goes_on() -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "router", "demo", "--no-erlang", "--seconds", "1"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color"},
    )
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert process.wait(30) == 0
    assert b"\x1b[" in shown
    for phase in (b"messages there", b"messages back", b"round trips"):
        assert b"Python 1 and Python 2: " + phase in shown


def test_what_is_wrong_makes_it_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    members = [Member("Python 1", "a@h"), Member("Python 2", "b@h")]

    async def run(*_: Any) -> Any:
        return members, [(*members, Seen(sent=20_000, wrong=["7 came back as [7]"]))]

    monkeypatch.setattr("router.cli.demo._run", run)
    done = RUNNER.invoke(app, ["demo", "--no-erlang"])
    assert done.exit_code == 1
    assert "Python 1 and Python 2: 7 came back as [7]" in done.output
    assert "Every message arrived" not in done.output


def test_a_mistake_in_an_option() -> None:
    assert "--seconds" in failed(2, "demo", "--seconds", "soon")


# What the exchange notices


async def met(pair: Pair, monkeypatch: pytest.MonkeyPatch, peer: Any) -> Seen:
    """What an exchange with that peer saw."""
    monkeypatch.setattr(demo_exchange, "PATIENCE", 0.3)
    monkeypatch.setattr(demo_exchange, "ROUND", 600)
    async with pair() as (a, b):
        box = b.mailbox("demo")
        task = asyncio.create_task(peer(b, box))
        phases: list[str] = []
        seen = await exchange(a, box.pid, 0.05, phases.append)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert phases[0] == "messages there"
        return seen


async def test_an_honest_peer(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = await met(pair, monkeypatch, serve)
    assert seen.wrong == []
    assert seen.sent >= 600 and seen.received >= 600 and seen.round_trips >= 1
    assert 0 < seen.p50 <= seen.p99
    assert (seen.terms_sent, seen.terms_received) == (37, 37)
    assert Seen.of(seen.term()) == seen


def liar(lie: str) -> Any:
    """A peer that does one thing wrong."""

    async def run(node: Node, box: Mailbox) -> None:
        async for term in box:
            match term:
                case ("count", sender, total):
                    if lie == "a message is lost there":
                        await box.receive()
                    verdict = await count(box, total)
                    node.send(sender, (Atom("counted"), *verdict))
                case ("flood", to, total, payload):
                    if lie == "a message is lost back":
                        node.send_many(to, [(Atom("m"), i, payload) for i in range(total - 1)])
                    elif lie == "messages change places":
                        order = [1, 0, *range(2, total)]
                        node.send_many(to, [(Atom("m"), i, payload) for i in order])
                    elif lie == "a message comes twice":
                        order = [0, 0, *range(1, total)]
                        node.send_many(to, [(Atom("m"), i, payload) for i in order])
                    elif lie == "something else comes":
                        node.send(to, 7)
                    else:
                        await flood(node, to, total, payload)
                case ("echo", sender, value):
                    if lie == "an echo is wrong":
                        value = 10**9
                    elif lie == "an echo is lost":
                        continue
                    elif lie == "a float became an integer" and value == [True, None, 1.0]:
                        value = [True, None, 1]
                    elif lie == "true became 1" and value is True:
                        value = 1
                    node.send(sender, (Atom("echoed"), value))
                case ("terms", sender):
                    node.send(sender, (Atom("compared"), 1, ["x came back as y"]))

    return run


LIES = {
    "a message is lost there": "wrong,0,{m,1,",
    "a message is lost back": "wrong,599,nothing",
    "messages change places": "wrong,0,{m,1,",
    "a message comes twice": "wrong,1,{m,0,",
    "something else comes": "wrong,0,7",
    "an echo is wrong": "echo 0 came back as {echoed,1000000000}",
    "an echo is lost": "a message was lost",
    "a float became an integer": "[true,nil,1.0] came back as {echoed,[true,nil,1]}",
    "true became 1": "true came back as {echoed,1}",
    "nothing": "x came back as y",
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_lie_is_noticed(pair: Pair, monkeypatch: pytest.MonkeyPatch, lie: str) -> None:
    seen = await met(pair, monkeypatch, liar(lie))
    assert any(LIES[lie] in text for text in seen.wrong), seen.wrong


async def test_a_peer_that_ends_is_an_error(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    async def quitter(node: Node, box: Mailbox) -> None:
        await box.receive()
        box.close(ImproperList([1], 2))

    with pytest.raises(RouterError, match=r"the other side ended: \[1\|2\]"):
        await met(pair, monkeypatch, quitter)
