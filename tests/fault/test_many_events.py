"""More happens than is kept for a program that does not look."""

from __future__ import annotations

import socket

from fault.conftest import LogLines
from fault.peer import Atom, Peer
from router import Node

STRANGERS = 2100  # of their events 2048 are kept


def test_events_that_found_no_room_are_told(log: LogLines) -> None:
    with Node("node@127.0.0.1", cookie="secret", epmd="none", engine="thread") as node:
        for _ in range(STRANGERS):
            with socket.create_connection(("127.0.0.1", node.port), 5) as stranger:
                stranger.sendall(b"\0\1x")
                while stranger.recv(100):
                    pass
        link = Peer("peer@127.0.0.1").connect(node.port)
        box = node.mailbox("box")
        link.say((6, link.peer.pid(), Atom(""), Atom("box")), 1)
        assert box.get(5) == 1
        node._handle_events()
    assert log.count("refused a connection") == 2048
    assert log.count(f"{STRANGERS - 2048} events came too fast") == 1
    assert log.count("connected to peer@127.0.0.1") == 1
