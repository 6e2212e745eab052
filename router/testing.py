"""Fixtures for tests of programs that use router; pytest finds them by itself.

    def test_my_service(router_nodes):
        node, other = router_nodes("service"), router_nodes("client")
        box = node.mailbox("orders")
        other.send(("orders", node.name), ("reserve", 42))
        assert box.get(timeout=5) == (b"reserve", 42)

The nodes are real, on loopback, with a port mapper and a cookie of their own,
so that tests disturb nothing and can run side by side. They work in
asynchronous tests too: the first loop that uses a node drives it.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from router.node import Node

__all__ = ["free_port", "router_nodes"]


def free_port() -> int:
    """A TCP port that was free on loopback a moment ago."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


@pytest.fixture
def router_nodes() -> Iterator[Callable[..., Node]]:
    """`router_nodes(name="node", **options)` starts a `Node`; all stop after the test.

    The name gets `@127.0.0.1` when it has no host. Options are those of `Node`;
    cookie and epmd_port are set unless given.
    """
    nodes: list[Node] = []
    shared: dict[str, Any] = {"cookie": secrets.token_hex(8), "epmd_port": free_port()}

    def start(name: str = "node", **options: Any) -> Node:
        full = name if "@" in name else f"{name}@127.0.0.1"
        node = Node(full, **{**shared, **options})
        node.start_sync()
        nodes.append(node)
        return node

    yield start
    for node in reversed(nodes):
        node.stop_sync()
