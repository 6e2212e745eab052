"""The command line without Erlang: what it prints, how it ends, what it never shows."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from program import assert_plain, begin, failed, read_until, router, worked
from router import Atom, BitString, ImproperList, Node, __version__, etf
from router.cli.common import shown
from router.cli.terms import json_of

COMMANDS = ("demo", "ping", "names", "epmd", "call", "stats", "bench")
COOKIE = "cookie-that-nobody-may-see"


@pytest.fixture
def node(epmd_port: int) -> Iterator[Node]:
    """A running router node, which serves the port mapper that the commands ask."""
    with Node("shop@127.0.0.1", cookie=COOKIE, epmd_port=epmd_port) as running:
        yield running


@pytest.fixture
def cookie(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("ROUTER_COOKIE", COOKIE)
    return COOKIE


# Help, versions, mistakes


def test_version() -> None:
    assert worked("--version") == f"router {__version__}\n"


def test_help_names_every_command() -> None:
    text = worked("--help")
    assert all(f" {command} " in text for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_has_examples(command: str) -> None:
    text = worked(command, "--help")
    assert f"router {command}" in text.partition("Examples:")[2]


def test_bench_measures_this_installation() -> None:
    rows = json.loads(worked("bench", "--seconds", "0.4", "--json"))
    assert len(rows) == 7 and all(row["per_second"] > 0 for row in rows)
    assert rows[-1]["p99"] >= rows[-1]["p50"] > 0


def test_bench_of_a_router_node_measures_pings(node: Node, cookie: str) -> None:
    (row,) = json.loads(worked("bench", "--node", node.name, "--seconds", "0.2", "--json"))
    assert row["what"] == "ping" and row["per_second"] > 0


def test_bench_of_a_node_that_is_not_there(node: Node, cookie: str) -> None:
    assert "nobody@127.0.0.1" in failed(1, "bench", "--node", "nobody@127.0.0.1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ping", "shop"], "form name@host"),
        (["ping", "@host"], "form name@host"),
        (["stats", "shop@"], "form name@host"),
        (["ping"], "Missing argument"),
        (["ping", "a@b", "--count", "0"], "--count"),
        (["ping", "a@b", "--timeout", "0"], "--timeout"),
        (["names", "--epmd-port", "99999"], "--epmd-port"),
        (["epmd", "--port", "0"], "--port"),
        (["demo", "--seconds", "0"], "--seconds"),
        (["nosuch"], "No such command"),
        (["call", "a@b", "m", "f", "{"], "a term, found the end"),
        (["call", "a@b", "m", "f", "1 2"], "position 2"),
        (["call", "a@b", "m", "f", "Variable"], "position 0"),
        (["call", "a@b", "server", "-g", "[1,"], "found the end"),
        (["call", "a@b", "server", "-g", "1", "2"], "one request"),
        (["call", "a@b", "m", "f", "--timout", "3"], "no option --timout"),
    ],
)
def test_a_mistake_is_named_and_ends_with_2(
    arguments: list[str], message: str, cookie: str
) -> None:
    assert message in failed(2, *arguments)


def test_a_host_that_does_not_resolve_is_named(cookie: str) -> None:
    text = failed(1, "ping", "a@host.invalid")
    assert "a@host.invalid: unknown host" in text and "Does it run?" in text


def test_without_a_cookie_it_says_where_one_goes(tmp_path: Path) -> None:
    text = failed(1, "ping", "a@127.0.0.1", HOME=str(tmp_path))
    assert f"{tmp_path}/.erlang.cookie" in text
    assert "ROUTER_COOKIE" in text and "--cookie" in text


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra_it_prints_the_line_that_installs_it(missing: str) -> None:
    code = (
        f"import sys; sys.modules[{missing!r}] = None; sys.argv = ['router', 'demo'];"
        "from router.__main__ import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    line = "router's command line needs its extra: pip install 'router-beam[cli]'\n"
    assert done.stderr == line


def test_the_core_imports_nothing_of_the_extra() -> None:
    code = "import sys, router; sys.exit(bool({'typer', 'rich', 'router.cli'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


# The cookie


def test_a_wrong_cookie_is_told_and_neither_is_shown(node: Node) -> None:
    wrong = "another-cookie-that-nobody-may-see"
    for text in (
        failed(1, "ping", node.name, "--cookie", wrong),
        failed(1, "call", node.name, "m", "f", ROUTER_COOKIE=wrong),
    ):
        assert "cookie does not match" in text
        assert "--cookie" in text
        assert wrong not in text and COOKIE not in text


def test_help_does_not_show_the_cookie_of_the_environment(cookie: str) -> None:
    assert cookie not in worked("ping", "--help")


def test_a_traceback_does_not_show_the_cookie(cookie: str, epmd_port: int) -> None:
    code = (
        "import router.cli.common as common\n"
        "def broken(cookie): raise RuntimeError('broken on purpose')\n"
        "common._cookie = broken\n"
        "from router.__main__ import main\n"
        "import sys; sys.argv = ['router', 'ping', 'a@127.0.0.1', '--cookie', sys.argv[1]]\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, cookie],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "broken on purpose" in done.stderr
    assert cookie not in done.stderr + done.stdout


def test_a_cookie_too_long_is_refused_without_being_shown(epmd_port: int) -> None:
    text = failed(1, "ping", "a@127.0.0.1", "--cookie", "x" * 300)
    assert "255 bytes" in text and "xxx" not in text


# ping, call, stats with a router node


def test_ping(node: Node, cookie: str) -> None:
    lines = worked("ping", node.name, "--count", "3").splitlines()
    assert lines[0].startswith(f"connected to {node.name} in ")
    assert [line.startswith(f"pong from {node.name} in ") for line in lines[1:4]] == [True] * 3
    assert lines[4].startswith("3 pings: min ")
    assert len(lines) == 5


def test_ping_takes_the_cookie_from_the_home(node: Node, tmp_path: Path) -> None:
    (tmp_path / ".erlang.cookie").write_text(f"{COOKIE}\n")
    assert "pong" in worked("ping", node.name, HOME=str(tmp_path))


def test_ping_under_a_name_of_ones_own(node: Node, cookie: str) -> None:
    box = node.mailbox()
    node.monitor_nodes(box)
    worked("ping", node.name, "--name", "probe")
    assert box.get(timeout=10) == ("nodeup", "probe@127.0.0.1")
    worked("ping", node.name)
    while (seen := box.get(timeout=10)) == ("nodedown", "probe@127.0.0.1"):
        pass
    assert seen[0] == "nodeup" and seen[1].startswith("router-")


def test_ping_of_a_node_that_is_not_there(node: Node, cookie: str) -> None:
    text = failed(1, "ping", "nobody@127.0.0.1")
    assert "knows no node of that name" in text
    assert "`router names 127.0.0.1`" in text


def test_ping_where_no_port_mapper_runs(cookie: str, no_epmd: int) -> None:
    assert f"127.0.0.1:{no_epmd}" in failed(1, "ping", "nobody@127.0.0.1")


def serve(node: Node, name: str, reply: Callable[[Any], Any]) -> threading.Thread:
    """A gen_server that answers one call."""
    box = node.mailbox(name)

    def run() -> None:
        match box.get(timeout=30):
            case ("$gen_call", (_, ImproperList() as tag), request):
                node.send(tag.tail, (tag, reply(request)))

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_call_of_a_gen_server(node: Node, cookie: str) -> None:
    thread = serve(node, "prices", lambda request: (Atom("ok"), request))
    text = worked("call", node.name, "prices", "--gen-server", '{price,<<"apple">>,-1}')
    assert text == '{ok,{price,<<"apple">>,-1}}\n'
    thread.join()


def test_call_for_programs(node: Node, cookie: str) -> None:
    thread = serve(node, "prices", lambda _: {Atom("a"): [1, (b"x", None)]})
    text = worked("call", node.name, "prices", "-g", "all", "--json")
    assert json.loads(text) == {"a": [1, ["x", None]]}
    thread.join()


def test_an_answer_that_json_cannot_hold(node: Node, cookie: str) -> None:
    thread = serve(node, "prices", lambda _: {Atom("a"): 1, b"a": 2})
    assert "two keys" in failed(1, "call", node.name, "prices", "-g", "all", "--json")
    thread.join()


def test_an_answer_is_no_markup(node: Node, cookie: str) -> None:
    thread = serve(node, "odd", lambda _: [Atom("red"), b"[bold]x[/] :smile: \x1b[31m"])
    text = worked("call", node.name, "odd", "-g", "x")
    assert text == f"{etf.format([Atom('red'), b'[bold]x[/] :smile: ' + bytes([27]) + b'[31m'])}\n"
    thread.join()


def test_a_server_that_is_not_there(node: Node, cookie: str) -> None:
    text = failed(1, "call", node.name, "nobody", "-g", "x")
    assert "no such process" in text


def test_a_server_that_does_not_answer(node: Node, cookie: str) -> None:
    node.mailbox("silent")
    text = failed(1, "call", node.name, "silent", "-g", "x", "--timeout", "0.2")
    assert "no answer within 0.2 s" in text and "--timeout" in text


def test_router_nodes_serve_no_functions(node: Node, cookie: str) -> None:
    text = failed(1, "call", node.name, "lists", "seq", "1", "3")
    assert "notsup" in text and "not an Erlang node" in text


def test_stats_of_a_router_node(node: Node, cookie: str) -> None:
    text = worked("stats", node.name)
    assert "connection: round trip" in text
    assert "router nodes answer no questions yet" in text


def test_stats_for_programs(node: Node, cookie: str) -> None:
    found = json.loads(worked("stats", node.name, "--json"))
    assert found["node"] == node.name
    assert found["about"] == {}
    assert found["connection"]["up"] is True
    assert found["connection"]["connects"] == 1
    assert found["connection"]["bytes_out"] > 0
    assert "node.stats()" in found["note"]


# names, epmd


def test_names(node: Node) -> None:
    found = json.loads(worked("names", "--json"))
    assert found == [{"name": "shop", "port": node.port}]
    text = worked("names", "somebody@127.0.0.1")
    assert "shop" in text and str(node.port) in text


def test_names_without_a_port_mapper(no_epmd: int) -> None:
    text = failed(1, "names")
    assert f"no port mapper runs at 127.0.0.1 port {no_epmd}" in text
    assert "`router epmd`" in text


def test_names_of_an_unknown_host() -> None:
    assert "unknown host nowhere.invalid" in failed(1, "names", "nowhere.invalid")


@pytest.fixture
def impostor(epmd_port: int) -> Iterator[Callable[[bytes], None]]:
    """Answers on the port mapper's port with what it is told, and closes."""
    listener = socket.create_server(("127.0.0.1", epmd_port))
    threads = []

    def begin(answer: bytes) -> None:
        def run() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(16)
                    connection.sendall(answer)

        threads.append(threading.Thread(target=run))
        threads[0].start()

    yield begin
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("answer", [b"", b"\0\0", b"SSH-2.0-x\r\n", b"\0\0\x11\x11what is it\n"])
def test_something_else_on_the_port(impostor: Callable[[bytes], None], answer: bytes) -> None:
    impostor(answer)
    assert "is no port mapper" in failed(1, "names")
    assert "something else listens" in failed(1, "epmd")


def test_a_name_cannot_command_the_terminal(
    impostor: Callable[[bytes], None], epmd_port: int
) -> None:
    impostor(b"\0\0\x11\x11name \x1b[31m[bold]x[/] at port 5\n")
    assert "\ufffd[31m[bold]x[/]" in worked("names")


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_epmd_serves_and_prints_who_comes(end: signal.Signals, epmd_port: int) -> None:
    process = begin("epmd")
    try:
        said = read_until(process, "Ctrl-C ends it")
        assert f"port {epmd_port} (loopback)" in said
        with Node("shop@127.0.0.1", cookie="x", epmd_port=epmd_port) as node:
            assert f"+ shop at port {node.port}\n" in read_until(process, "+ ")
            names = [row["name"] for row in json.loads(worked("names", "--json"))]
            assert names[1:] == ["shop"] and names[0].startswith("router-epmd-")
            text = failed(1, "epmd")
            assert f"runs on port {epmd_port} already" in text
        read_until(process, "- shop")
        process.send_signal(end)
        rest, _ = process.communicate(timeout=30)
        assert (process.returncode, rest) == (0, "ended\n")
    finally:
        process.kill()
        process.wait()
    failed(1, "names")


def test_epmd_on_every_address(epmd_port: int) -> None:
    process = begin("epmd", "--any")
    try:
        assert "(every address)" in read_until(process, "Ctrl-C ends it")
        # All of 127.0.0.0/8 is this host; loopback alone would be 127.0.0.1.
        with socket.create_connection(("127.0.0.2", epmd_port), timeout=10):
            pass
    finally:
        process.kill()
        process.communicate()


# Small parts


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        (None, None),
        (True, True),
        (Atom("ok"), "ok"),
        (b"text", "text"),
        (b"\xff", "<<255>>"),
        (BitString(b"\xa0", 3), "<<5:3>>"),
        ([1, 2.5, ()], [1, 2.5, []]),
        (ImproperList([1], 2), "[1|2]"),
        ({(1, 2): {3: b"x"}}, {"{1,2}": {"3": "x"}}),
        (etf.Map([(1, b"a"), (1.0, b"b")]), {"1": "a", "1.0": "b"}),
    ],
)
def test_json(term: Any, expected: Any) -> None:
    found = json_of(term)
    assert found == expected
    assert json.loads(json.dumps(found)) == expected


def test_what_a_peer_says_cannot_command_the_terminal() -> None:
    assert_plain(shown("a\x1b[31mb\x07c\rd\ne\x9b"))
    assert shown("plain: ü→\n") == "plain: ü→\n"


def test_it_is_found_as_a_program() -> None:
    """The console script and `python -m router` are one."""
    found = Path(sys.executable).with_name("router")
    if found.exists():
        done = subprocess.run([found, "--version"], capture_output=True, text=True, check=True)
        assert done.stdout == f"router {__version__}\n"
    assert router("--version").stdout == f"router {__version__}\n"


def test_output_nobody_reads_is_no_traceback(node: Node) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "router", "names"],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(write)
    assert "Traceback" not in done.stderr
