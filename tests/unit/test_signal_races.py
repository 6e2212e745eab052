"""Signals for a peer whose connection fails before they are queued."""

from __future__ import annotations

import time

import pytest

from router import Atom, Node, NodeDown, Pid, _core


class Hasty(Node):
    """A node whose attempts to connect have failed by the time they are begun."""

    def _connect_held(self, peer: _core.Peer) -> None:
        super()._connect_held(peer)
        deadline = time.monotonic() + 10
        while peer.state:
            assert time.monotonic() < deadline


@pytest.fixture
def node() -> Hasty:
    return Hasty("hasty@127.0.0.1", cookie="secret", epmd="none", engine="thread")


def test_a_monitor_fires_though_the_attempt_failed_before_it_was_noted(node: Hasty) -> None:
    with node, node.mailbox() as box:
        ref = box.monitor(("shop", "nobody@127.0.0.1"))
        there = (Atom("shop"), Atom("nobody@127.0.0.1"))
        assert box.get(10) == ("DOWN", ref, "process", there, "noconnection")
        assert not node._relation_count()


def test_a_link_breaks_though_the_attempt_failed_before_it_was_noted(node: Hasty) -> None:
    with node, node.mailbox() as box:
        box.trap_exit = True
        pid = Pid("nobody@127.0.0.1", 1, 0, 5)
        box.link(pid)
        assert box.get(10) == ("EXIT", pid, "noconnection")
        assert not node._relation_count()


def test_a_call_fails_though_the_attempt_failed_before_it_was_noted(node: Hasty) -> None:
    with node:
        begun = time.monotonic()
        with pytest.raises(NodeDown):
            node.rpc_sync("nobody@127.0.0.1", "erlang", "node", [], 30)
        with pytest.raises(NodeDown):
            node.call_sync(("shop", "nobody@127.0.0.1"), 1, 30)
        assert time.monotonic() - begun < 20
        assert not node._relation_count()
