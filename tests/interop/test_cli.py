"""The command line with a real Erlang node."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from interop.erlang import ErlangNode


@pytest.fixture
def router(peer: ErlangNode):
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "router", *arguments],
            env={**os.environ, "ROUTER_COOKIE": peer.cookie, "COLUMNS": "100"},
            capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    return run


def test_ping_and_names(router, peer: ErlangNode) -> None:
    done = router("ping", peer.name)
    assert (done.returncode, done.stderr) == (0, "")
    names = [row["name"] for row in json.loads(router("names", "--json").stdout)]
    assert peer.name.partition("@")[0] in names


def test_call(router, peer: ErlangNode) -> None:
    assert router("call", peer.name, "lists", "seq", "1", "5").stdout == "[1,2,3,4,5]\n"
    assert router("call", peer.name, "maps", "get", "a", "#{a => 'Quoted one'}").stdout == (
        "'Quoted one'\n"
    )
    failed = router("call", peer.name, "erlang", "error", "{boo,1}")
    assert failed.returncode == 1
    assert "error: {boo,1}" in failed.stderr
    undefined = router("call", peer.name, "nosuch", "function")
    assert undefined.returncode == 1
    assert "undef" in undefined.stderr
    server = router("call", peer.name, "application_controller", "which_applications", "-g")
    assert "kernel" in server.stdout


def test_stats(router, peer: ErlangNode) -> None:
    found = json.loads(router("stats", peer.name, "--json").stdout)
    assert int(found["about"]["release"]) >= 25
    assert found["connection"]["up"] is True
    assert "processes" in router("stats", peer.name).stdout


def test_the_demo_with_erlang() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "router", "demo", "--seconds", "2"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "Erlang" in done.stdout
