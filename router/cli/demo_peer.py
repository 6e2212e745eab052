"""The other side of the demo in Python: a node in a process of its own.

Serves the messages of demo_exchange.py and, since it can exchange with others:

    {meet, From, Peer, Milliseconds}  exchanges with Peer; {doing, Text} meanwhile, then
                                      {met, Seen}

The cookie comes from `~/.erlang.cookie`, the port mapper's port from ERL_EPMD_PORT.
Ends when the node that started it is gone.
"""

from __future__ import annotations

import asyncio
import platform
import sys
from typing import Any

from router import Atom, Mailbox, Node
from router.cli.demo_exchange import COUNTED, ECHOED, compare, count, exchange, flood

__all__ = ["main", "serve"]

READY, DOING, MET, COMPARED = (Atom(a) for a in ("ready", "doing", "met", "compared"))


def main() -> None:
    """Arguments: this node's name, the name of the one that started it."""
    asyncio.run(_run(sys.argv[1], sys.argv[2]))


async def _run(name: str, boss: str) -> None:
    async with Node(name) as node:
        box = node.mailbox("demo")
        version = f"{platform.python_implementation()} {platform.python_version()}"
        node.send(("demo", boss), (READY, name, box.pid, version))
        tasks = {
            asyncio.create_task(serve(node, box)),
            asyncio.create_task(_gone(node, boss)),
        }
        done, left = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        for task in done:
            task.result()


async def _gone(node: Node, boss: str) -> None:
    """Returns when the process `demo` of that node, or the way to it, is gone."""
    with node.mailbox() as box:
        box.monitor(("demo", boss))
        await box.receive()


async def serve(node: Node, box: Mailbox) -> None:
    """Answers until it is told to stop."""
    async for term in box:
        match term:
            case ("count", sender, total):
                node.send(sender, (COUNTED, *await count(box, total)))
            case ("flood", to, total, payload):
                await flood(node, to, total, payload)
            case ("echo", sender, value):
                node.send(sender, (ECHOED, value))
            case ("terms", sender):
                node.send(sender, (COMPARED, *await compare(node, box, sender)))
            case ("meet", sender, peer, millis):
                await _meet(node, sender, peer, millis / 1000)
            case "stop":
                return


async def _meet(node: Node, sender: Any, peer: Any, seconds: float) -> None:
    seen = await exchange(node, peer, seconds, lambda text: node.send(sender, (DOING, text)))
    node.send(sender, (MET, seen.term()))
