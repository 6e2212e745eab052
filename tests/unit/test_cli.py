"""The command line without Erlang: what it prints, and its exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from router import Atom, Node, __version__
from router.cli.common import free_port

from .conftest import new_name

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def epmd_port() -> int:
    return free_port()


@pytest.fixture
def router(epmd_port: int, tmp_path: Path) -> Run:
    """`router(*arguments)` runs the command, with a port mapper's port and a home of its own."""
    env = {**os.environ, "ERL_EPMD_PORT": str(epmd_port), "HOME": str(tmp_path), "COLUMNS": "100"}
    env.pop("ROUTER_COOKIE", None)

    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "router", *arguments],
            env={**env, **more}, capture_output=True, text=True, timeout=60, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    return run


def test_version_and_help(router: Run) -> None:
    assert router("--version").stdout == f"router {__version__}\n"
    shown = router("--help").stdout
    for command in ("demo", "ping", "names", "epmd", "call", "stats"):
        assert command in shown
        assert router(command, "--help").returncode == 0


def test_without_the_extra_it_prints_the_line_that_installs_it(tmp_path: Path) -> None:
    for hidden in ("typer", "rich"):
        code = (
            f"import sys; sys.modules[{hidden!r}] = None\nfrom router.__main__ import main; main()"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert "pip install 'router-beam[cli]'" in done.stderr
        assert "Traceback" not in done.stderr


def test_ping(router: Run, epmd_port: int) -> None:
    with Node(new_name(), cookie="secret", epmd_port=epmd_port) as node:
        done = router("ping", node.name, "--count", "2", "--cookie", "secret")
        assert done.returncode == 0
        assert done.stdout.count("pong from") == 2
        done = router("ping", node.name, ROUTER_COOKIE="another")
        assert done.returncode == 1
        assert "cookie" in done.stderr
        assert "another" not in done.stderr + done.stdout
        done = router("ping", "nobody@127.0.0.1", "--cookie", "secret")
        assert (done.returncode, done.stdout) == (1, "")
        assert "knows no node of that name" in done.stderr
    done = router("ping", "nobody", "--cookie", "secret")
    assert done.returncode == 2
    assert "name@host" in done.stderr
    done = router("ping", "a@127.0.0.1")
    assert done.returncode == 1
    assert ".erlang.cookie" in done.stderr


def test_names(router: Run, epmd_port: int) -> None:
    done = router("names")
    assert done.returncode == 1
    assert f"port {epmd_port}" in done.stderr
    with Node(new_name("shop"), cookie="x", epmd_port=epmd_port) as node:
        short = node.name.partition("@")[0]
        assert short in router("names").stdout
        assert json.loads(router("names", "--json").stdout) == [{"name": short, "port": node.port}]


def test_epmd_serves_until_it_is_told_to_stop(router: Run, epmd_port: int) -> None:
    serving = subprocess.Popen(
        [sys.executable, "-m", "router", "epmd", "--port", str(epmd_port)],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    try:
        assert serving.stdout is not None
        assert "serving" in serving.stdout.readline()
        done = router("epmd")
        assert done.returncode == 1
        assert "already" in done.stderr
        with Node(new_name("seen"), cookie="x", epmd_port=epmd_port) as node:
            line = serving.stdout.readline()
            assert line == f"+ {node.name.partition('@')[0]} at port {node.port}\n"
        assert serving.stdout.readline().startswith("- seen")
        serving.send_signal(signal.SIGINT)
        assert serving.wait(10) == 0
    finally:
        serving.kill()
        serving.communicate()


def test_call_a_gen_server(router: Run, epmd_port: int) -> None:
    with Node(new_name(), cookie="secret", epmd_port=epmd_port) as node:
        box = node.mailbox("prices")

        def call(*arguments: str) -> subprocess.Popen[str]:
            return subprocess.Popen(
                [sys.executable, "-m", "router", "call", node.name, *arguments],
                env={**os.environ, "ERL_EPMD_PORT": str(epmd_port), "ROUTER_COOKIE": "secret"},
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip

        asking = call("prices", '{price,<<"apple">>,[1,2.5]}', "--gen-server")
        gen_call, (_, tag), request = box.get(20)
        assert (gen_call, request) == ("$gen_call", ("price", b"apple", [1, 2.5]))
        node.send(tag.tail, (tag, {Atom("ok"): [b"x", -3]}))
        assert asking.communicate(timeout=20) == ('#{ok => [<<"x">>,-3]}\n', "")
        assert asking.returncode == 0
        asking = call("nobody", "hello", "-g")
        said = asking.communicate(timeout=20)[1]
        assert asking.returncode == 1
        assert "no such process" in said
        asking = call("lists", "seq", "1", "2")
        said = asking.communicate(timeout=20)[1]
        assert asking.returncode == 1
        assert "notsup" in said
    done = router("call", "a@127.0.0.1", "m", "f", "{broken", "--cookie", "x")
    assert done.returncode == 2
    assert "Erlang's notation" in done.stderr


def test_stats_of_a_router_node_says_what_is_missing(router: Run, epmd_port: int) -> None:
    with Node(new_name(), cookie="secret", epmd_port=epmd_port) as node:
        done = router("stats", node.name, "--json", ROUTER_COOKIE="secret")
        found: dict[str, Any] = json.loads(done.stdout)
        assert found["connection"]["up"] is True
        assert "node.stats()" in found["note"]


def test_the_demo_between_python_nodes(router: Run) -> None:
    done = router("demo", "--seconds", "1", "--no-erlang")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Python" in done.stdout
    assert "\x1b" not in done.stdout


def test_the_demo_leaves_nobody_behind(tmp_path: Path) -> None:
    demo = subprocess.Popen(
        [sys.executable, "-m", "router", "demo", "--seconds", "30", "--no-erlang"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    child = ""
    while not child:
        assert demo.poll() is None
        tasks = Path(f"/proc/{demo.pid}/task").iterdir()
        child = "".join((t / "children").read_text().strip() for t in tasks)
    demo.send_signal(signal.SIGINT)
    assert demo.wait(20) == 130
    assert "stopped" in demo.communicate()[1]
    assert not Path(f"/proc/{child.split()[0]}").exists()
    assert list(tmp_path.iterdir()) == []
