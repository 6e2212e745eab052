"""The harness itself: what the other interop tests stand on, with no code of router involved."""

from __future__ import annotations

import os
import socket
from concurrent.futures import Future
from pathlib import Path

import pytest

from interop.erlang import Epmd, ErlangError, Nodes, Otp


def names(port: int) -> str:
    """What a port mapper answers to NAMES_REQ."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as epmd:
        epmd.sendall(b"\x00\x01n")
        return b"".join(iter(lambda: epmd.recv(4096), b""))[4:].decode()


def test_a_node_is_of_the_release_asked_for(erlang: Nodes, otp: Otp) -> None:
    node = erlang("shop")
    assert node.name == "shop@127.0.0.1"
    assert node.text("node()") == "'shop@127.0.0.1'"
    assert node.text("erlang:system_info(otp_release)") == f'"{otp.release}"'
    assert node.text("erlang:get_cookie()") == "secret"


def test_two_nodes_meet_and_one_dies(erlang: Nodes) -> None:
    a, b = erlang("a"), erlang("b")
    assert a.text(f"net_adm:ping('{b.name}')") == "pong"
    a.text(
        "Test = self(), register(watcher, spawn(fun() ->"
        " ok = net_kernel:monitor_nodes(true), Test ! watching,"
        " Gone = receive {nodedown, Name} -> Name end,"
        " receive {who, From} -> From ! Gone end end)),"
        " receive watching -> ok end"
    )
    b.kill()
    assert a.text("watcher ! {who, self()}, receive Name -> Name end") == f"'{b.name}'"
    assert not b.running


def test_a_different_cookie_keeps_nodes_apart(erlang: Nodes) -> None:
    a, b = erlang("a"), erlang("b", cookie="another")
    assert a.text(f"net_adm:ping('{b.name}')") == "pang"


def test_restart_gives_a_new_creation(erlang: Nodes) -> None:
    node = erlang("again")
    before = node.text("erlang:system_info(creation)")
    node.restart()
    assert node.text("erlang:system_info(creation)") != before


def test_hidden_short_and_arguments(erlang: Nodes) -> None:
    a = erlang("a", short=True)
    b = erlang("b", short=True, hidden=True, args=["-kernel", "net_ticktime", "7"])
    assert b.name == "b@localhost"
    assert b.text("net_kernel:get_net_ticktime()") == "7"
    assert a.text(f"{{net_adm:ping('{b.name}'), nodes(), nodes(hidden)}}") == (
        f"{{pong,[],[{b.name}]}}"
    )


def test_ipv6(erlang: Nodes) -> None:
    a, b = erlang("a", ipv6=True), erlang("b", ipv6=True)
    assert a.name == "a@::1"
    assert a.text(f"net_adm:ping('{b.name}')") == "pong"


def test_evaluations_run_side_by_side(erlang: Nodes) -> None:
    node = erlang("calc")
    waiting: Future[bytes] = node.submit("register(waits, self()), receive X -> X end")
    assert node.text('waits ! <<"it came">>') == '<<"it came">>'
    assert waiting.result(30).endswith(b"it came")
    assert node.eval_bytes("Bytes", Bytes=bytes(range(256)))[6:] == bytes(range(256))
    with pytest.raises(ErlangError, match="badarith"):
        node.text("1 / 0")
    with pytest.raises(ErlangError, match="the process ended: killed"):
        node.text("exit(self(), kill), receive never -> ok end")
    assert node.text("[1, 2.5, foo, <<1>>]") == "[1,2.5,foo,<<1>>]"


def test_what_waits_learns_of_the_end(erlang: Nodes) -> None:
    node = erlang("short_lived")
    waiting = node.submit("receive never -> ok end")
    node.kill()
    with pytest.raises(ConnectionError):
        waiting.result(30)
    with pytest.raises(ConnectionError):
        node.text("1")


def test_load_compiles_a_module(erlang: Nodes, tmp_path: Path) -> None:
    source = tmp_path / "doubler.erl"
    source.write_text("-module(doubler).\n-export([twice/1]).\ntwice(X) -> 2 * X.\n")
    node = erlang("loads")
    assert node.load(source) == "doubler"
    assert node.text("doubler:twice(21)") == "42"


def test_a_node_that_does_not_start_says_why(erlang: Nodes) -> None:
    erlang("twice")
    with pytest.raises(RuntimeError, match=r"(?s)ended at start.*name.*in use"):
        erlang("twice")


def test_suspend_keeps_the_connection_and_says_nothing(erlang: Nodes) -> None:
    node = erlang("sleeper")
    node.suspend()
    answer = node.submit("awake")
    with open(f"/proc/{node.pid}/stat") as stat:
        assert stat.read().split()[2] == "T"
    assert not answer.done()
    node.resume()
    assert answer.result(30).endswith(b"awake")


def test_the_peer_stays(peer: object, epmd: Epmd, otp: Otp) -> None:
    assert f"name peer{otp.release} at port" in names(epmd.port)
    assert os.environ["ERL_EPMD_PORT"] == str(epmd.port)


def test_a_private_epmd_forgets_names_when_restarted(private_epmd: Epmd, erlang: Nodes) -> None:
    erlang("known")
    assert "name known at port" in names(private_epmd.port)
    private_epmd.restart()
    assert names(private_epmd.port) == ""
    private_epmd.kill()
    with pytest.raises(ConnectionRefusedError):
        names(private_epmd.port)


def test_erl_does_not_bring_up_a_port_mapper(no_epmd: int, erlang: Nodes) -> None:
    with pytest.raises(RuntimeError, match="ended at start"):
        erlang("alone")
    with pytest.raises(ConnectionRefusedError):
        names(no_epmd)


def test_elixir(elixir: Nodes) -> None:
    node = elixir("phoenix")
    assert node.text("node()") == "'phoenix@127.0.0.1'"
    assert node.text("'Elixir.Enum':sum([1,2,3])") == "6"
