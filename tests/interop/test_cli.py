"""The command line with a real Erlang node."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from interop.erlang import ErlangNode, Nodes, installed
from program import begin, failed, read_until, running, wait_until_gone, worked


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


@pytest.mark.interop
def test_the_demo_with_erlang() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "router", "demo", "--seconds", "2"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "Erlang" in done.stdout


# Further: every kind of answer and mistake, names of both styles, the port mapper


@pytest.fixture
def cookie(peer: ErlangNode, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("ROUTER_COOKIE", peer.cookie)
    return peer.cookie


def test_ping_counts(peer: ErlangNode, cookie: str) -> None:
    assert worked("ping", peer.name, "--count", "3").count(f"pong from {peer.name}") == 3


def test_ping_with_a_wrong_cookie(peer: ErlangNode) -> None:
    wrong = "a-cookie-of-nobody"
    text = failed(1, "ping", peer.name, "--cookie", wrong)
    assert "cookie does not match" in text and wrong not in text


def test_a_command_is_no_visible_node(peer: ErlangNode, cookie: str) -> None:
    """It asks hidden, so that it does not make every node of the cluster connect to it."""
    assert worked("call", peer.name, "erlang", "nodes") == "[]\n"
    assert worked("call", peer.name, "erlang", "nodes", "hidden").startswith("['router-")


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["erlang", "abs", "-5"], "5"),
        (["erlang", "hd", '"abc"'], "97"),
        (["erlang", "list_to_tuple", "[a,'B c',<<\"x\">>,1.5]"], "{a,'B c',<<\"x\">>,1.5}"),
        (["erlang", "tl", "[1,2|3]"], "[2|3]"),
        (["erlang", "bsl", "1", "100"], str(1 << 100)),
        (["erlang", "node"], "'NODE'"),
        (["maps", "from_list", "[{1,#{}}]"], "#{1 => #{}}"),
        (["erlang", "list_to_binary", "[255,0]"], "<<255,0>>"),
        (["lists", "map", "fun erlang:abs/1", "[-1,-2]"], "[1,2]"),
    ],
)  # fmt: skip
def test_answers(peer: ErlangNode, cookie: str, arguments: list[str], answer: str) -> None:
    assert worked("call", peer.name, *arguments) == answer.replace("NODE", peer.name) + "\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["erlang", "abs", "x"], "error: badarg\n  in {erlang,abs,[x]"),
        (["erlang", "exit", "bye"], "exit: bye"),
        (["erlang", "throw", "{ball,1}"], "throw: {ball,1}"),
        (["nosuch", "function"], "no such function"),
        (["nobody", "hello", "-g"], "erlang registered"),
        (["timer", "sleep", "60000", "--timeout", "0.3"], "no answer within 0.3 s"),
    ],
)
def test_failures(peer: ErlangNode, cookie: str, arguments: list[str], message: str) -> None:
    assert message in failed(1, "call", peer.name, *arguments)


def test_json(peer: ErlangNode, cookie: str) -> None:
    text = worked("call", peer.name, "lists", "seq", "1", "3", "--json")
    assert json.loads(text) == [1, 2, 3]


def test_stats_are_those_of_the_node(peer: ErlangNode, cookie: str) -> None:
    about = json.loads(worked("stats", peer.name, "--json"))["about"]
    assert about["release"] == str(peer.otp.release)
    assert about["process_limit"] == peer.eval("erlang:system_info(process_limit)")
    assert about["schedulers"] == peer.eval("erlang:system_info(schedulers_online)")
    assert about["memory"] > 1_000_000
    # The command itself is not listed.
    assert about["nodes"] == about["hidden_nodes"] == []


def test_short_names(erlang: Nodes) -> None:
    node = erlang("short", short=True, cookie="of-the-short")
    assert "pong" in worked("ping", node.name, "--cookie", "of-the-short")


def test_ipv6(erlang: Nodes) -> None:
    node = erlang("six", ipv6=True)
    assert "pong" in worked("ping", node.name, "--cookie", node.cookie)


def test_erlang_nodes_meet_by_router_epmd(no_epmd: int, erlang: Nodes) -> None:
    serving = begin("epmd")
    try:
        read_until(serving, "Ctrl-C ends it")
        node = erlang("guest", epmd_port=no_epmd)
        read_until(serving, "+ guest at port ")
        other = erlang("other", epmd_port=no_epmd)
        assert other.text(f"net_adm:ping('{node.name}')") == "pong"
        assert "pong" in worked("ping", node.name, "--cookie", node.cookie)
        node.kill()
        read_until(serving, "- guest at port ")
    finally:
        serving.kill()
        serving.communicate()


@pytest.mark.interop
def test_the_demo_meets_erlang_both_ways(tmp_path: Path) -> None:
    otp = next(otp for otp in installed() if otp.can_compile)
    path = f"{otp.root / 'bin'}:{os.environ['PATH']}"
    text = worked("demo", "--seconds", "1.5", PATH=path, TMPDIR=str(tmp_path))
    for row in ("Python 1, Python 2", "Python 1, Erlang  ", "Python 2, Erlang  "):
        assert row in text
    # Terms that Python made, and those that only Erlang can make.
    assert text.count(" 37 + 39 ") == 2
    assert "Every message arrived once and in order" in text
    assert f"Erlang/OTP {otp.release}" in text
    started = re.search(r"demo_erlang_\d+@", text)
    assert started is not None
    assert running(started[0]) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.interop
def test_a_demo_that_is_killed_takes_erlang_along(tmp_path: Path) -> None:
    otp = next(otp for otp in installed() if otp.can_compile)
    path = f"{otp.root / 'bin'}:{os.environ['PATH']}"
    demo = begin("demo", "--seconds", "600", PATH=path, TMPDIR=str(tmp_path), PYTHONUNBUFFERED="1")
    read_until(demo, "Python 1 and Python 2")
    assert running(f"demo_erlang_{demo.pid}@")
    demo.kill()
    demo.communicate(timeout=30)
    wait_until_gone(f"demo_erlang_{demo.pid}@")
    wait_until_gone(f"demo_2_{demo.pid}@")
