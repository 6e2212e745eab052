"""What a program can get wrong raises at the call and says what was expected."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from router import EncodeError, Node, RouterError

from .conftest import new_name

BAD = [
    ({"cookie": 5}, TypeError, "cookie is a str or bytes"),
    ({"listen": 5}, ValueError, "listen is"),
    ({"listen": "127.0.0.1:http"}, ValueError, "listen is"),
    ({"listen": "127.0.0.1:-1"}, ValueError, "listen is"),
    ({"listen": ("127.0.0.1", "x")}, ValueError, "listen is"),
    ({"listen": ("127.0.0.1", 65536)}, ValueError, "listen is"),
    ({"listen": ("127.0.0.1",)}, ValueError, "listen is"),
    ({"listen": ""}, ValueError, "listen is"),
    ({"limits": "many"}, TypeError, "limits is"),
    ({"limits": {"nonsense": 1}}, TypeError, "nonsense"),
    ({"codec": 5}, TypeError, "codec is"),
    ({"resolver": "dns"}, TypeError, "resolver is a function"),
    ({"net_ticktime": "60"}, ValueError, "net_ticktime"),
    ({"net_ticktime": float("nan")}, ValueError, "net_ticktime"),
    ({"net_ticktime": float("inf")}, ValueError, "net_ticktime"),
    ({"epmd_port": "epmd"}, ValueError, "epmd_port"),
    ({"epmd_port": 65536}, ValueError, "epmd_port"),
    ({"engine": ["auto"]}, ValueError, "engine is"),
    ({"epmd": None}, ValueError, "epmd is"),
    ({"busy_wait": -1e-9}, ValueError, "busy_wait is a number of seconds from 0 to 0.001"),
    ({"busy_wait": 0.0010001}, ValueError, "busy_wait is"),
    ({"busy_wait": float("nan")}, ValueError, "busy_wait is"),
    ({"busy_wait": float("inf")}, ValueError, "busy_wait is"),
    ({"busy_wait": "0.0001"}, ValueError, "busy_wait is"),
    ({"busy_wait": None}, ValueError, "busy_wait is"),
    ({"busy_wait": True}, ValueError, "busy_wait is"),
]


@pytest.mark.parametrize(("change", "error", "says"), BAD, ids=[str(b[0]) for b in BAD])
def test_of_a_node(change: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        Node("a@127.0.0.1", **{"cookie": "x", **change})


@pytest.mark.parametrize(
    ("listen", "expected"),
    [
        (None, ("127.0.0.1", 0)),
        (True, ("127.0.0.1", 0)),
        ("0.0.0.0", ("0.0.0.0", 0)),
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("::1", ("::1", 0)),
        ("[::1]", ("::1", 0)),
        ("[::1]:80", ("::1", 80)),
        (("::1", 80), ("::1", 80)),
        (False, None),
    ],
)
def test_listen_is_read_as_documented(listen: Any, expected: Any) -> None:
    assert Node("a@127.0.0.1", cookie="x", listen=listen)._listen_address() == expected


@pytest.fixture
def node() -> Any:
    with Node(new_name(), cookie="secret", epmd="none") as node:
        yield node


def test_of_calls_on_a_node(node: Node) -> None:
    other = Node(new_name(), cookie="secret", epmd="none")
    with other:
        cases: list[tuple[Callable[[], object], type[Exception], str]] = [
            (lambda: node.connect_sync("b@h", port=0), ValueError, "port is"),
            (lambda: node.connect_sync("b@h", port=65536), ValueError, "port is"),
            (lambda: node.connect_sync("b@h", port="x"), ValueError, "port is"),  # type: ignore[arg-type]
            (lambda: node.connect_sync("b@h", port=80.5), ValueError, "port is"),  # type: ignore[arg-type]
            (lambda: node.connect_sync("b@h", host=5, port=1), ValueError, "host is"),  # type: ignore[arg-type]
            (lambda: node.connect_sync("b@h", host="", port=1), ValueError, "host is"),
            (lambda: node.connect_sync(5), TypeError, "a node name is a str"),  # type: ignore[arg-type]
            (lambda: node.connect_sync("nohost"), ValueError, "name@host"),
            (lambda: node.connect_sync(node.name), ValueError, "itself"),
            (lambda: node.connect_sync("b@h", cookie="x" * 256), ValueError, "cookie"),
            (lambda: node.disconnect("nohost"), ValueError, "name@host"),
            (lambda: node.monitor_nodes(5), ValueError, "Mailbox of this node"),  # type: ignore[arg-type]
            (lambda: node.monitor_nodes(other.mailbox()), ValueError, "Mailbox of this node"),
            (lambda: node.mailbox(5), TypeError, "name is a str"),  # type: ignore[arg-type]
            (lambda: node.mailbox("x\ud800"), ValueError, "surrogates"),
            (lambda: node.mailbox(limit="5", overflow="drop"), ValueError, "limit is"),  # type: ignore[arg-type]
            (lambda: node.mailbox(limit=1 << 32, overflow="drop"), ValueError, "limit is"),
            (lambda: node.send(("x" * 256, "b@h"), 1), ValueError, "255"),
            (lambda: node.send(("x\ud800", "b@h"), 1), ValueError, "surrogates"),
            (lambda: node.send_many("x", 5), TypeError, "iterable"),  # type: ignore[arg-type]
            (lambda: node.send(("x", node.name), object()), RouterError, "x"),
        ]
        for use, error, says in cases:
            with pytest.raises(error, match=says):
                use()
        assert node._process_count() == 0


def test_of_calls_on_a_mailbox(node: Node) -> None:
    box = node.mailbox()
    cases: list[tuple[Callable[[], object], type[Exception], str]] = [
        (lambda: box.link(5), TypeError, "link takes a Pid"),  # type: ignore[arg-type]
        (lambda: box.unlink("x"), TypeError, "unlink takes a Pid"),  # type: ignore[arg-type]
        (lambda: box.monitor(5), TypeError, "monitor takes"),  # type: ignore[arg-type]
        (lambda: box.monitor(("x", 5)), TypeError, "monitor takes"),  # type: ignore[arg-type]
        (lambda: box.demonitor(5), TypeError, "demonitor takes a Reference"),  # type: ignore[arg-type]
        (lambda: box.unalias(5), TypeError, "unalias takes a Reference"),  # type: ignore[arg-type]
        (lambda: box.unalias(box.pid), TypeError, "unalias takes a Reference"),  # type: ignore[arg-type]
        (lambda: box.exit("x", "y"), TypeError, "exit takes a Pid"),  # type: ignore[arg-type]
        (lambda: box.exit(box.pid, object()), EncodeError, "object"),
        (lambda: box.get_many(0), ValueError, "max"),
        (lambda: box.on_messages(5), TypeError, "function"),  # type: ignore[arg-type]
        (lambda: box.on_messages(print), RuntimeError, "event loop"),
    ]
    for use, error, says in cases:
        with pytest.raises(error, match=says):
            use()
    assert node._relation_count() == 0
    node.send(box.pid, "nothing was harmed")
    assert box.get(5) == b"nothing was harmed"


@pytest.mark.parametrize("when", ["before start", "after stop"])
def test_of_the_time(when: str) -> None:
    node = Node(new_name(), cookie="secret", epmd="none")
    if when == "after stop":
        with node:
            pass
    uses: list[Callable[[], object]] = [
        lambda: node.send("x", 1),
        lambda: node.send_many("x", [1]),
        lambda: node.mailbox(),
        lambda: node.connect_sync("b@127.0.0.1"),
        lambda: node.call_sync("x", 1),
        lambda: node.rpc_sync("b@127.0.0.1", "m", "f", []),
        lambda: node.cast("x", 1),
        lambda: node.disconnect("b@127.0.0.1"),
        lambda: asyncio.run(node.connect("b@127.0.0.1")),
        lambda: asyncio.run(node.call("x", 1)),
        lambda: asyncio.run(node.drain()),
    ]
    for use in uses:
        with pytest.raises(RouterError, match="not running"):
            use()
    assert not node.ping_sync("b@127.0.0.1")
    assert node.nodes() == []
    assert len(node.stats()) == 0
    assert node.port == 0
    assert not node.running
    if when == "before start":
        for early in (lambda: node.whereis("x"), node.reference):
            with pytest.raises(RouterError, match="not running"):
                early()
        node.stop_sync()  # nothing to stop
    else:
        assert node.whereis("x") is None


def test_a_failed_start_leaves_the_name_free() -> None:
    name = new_name()
    with Node(name, cookie="x", epmd="none") as first:
        with pytest.raises(OSError, match="in use"):
            Node(new_name(), cookie="x", epmd="none", listen=("127.0.0.1", first.port)).start_sync()
    with Node(name, cookie="x", epmd="none"):
        pass
