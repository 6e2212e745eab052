"""The other side of the demo: `python -m router.cli.demo_peer NAME`.

Serves the process `demo` as demo_peer.erl does in Erlang. The cookie comes from
`~/.erlang.cookie` and the port mapper's port from ERL_EPMD_PORT.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from router import Atom, Mailbox, Node

M, READY, COUNTED, ECHOED, OK = (Atom(a) for a in ("m", "ready", "counted", "echoed", "ok"))
BATCH = 512


async def count(box: Mailbox, total: int) -> tuple[Any, int]:
    """Takes `total` messages `{m, I, _}`; (ok or what was wrong, microseconds first to last)."""
    seen, start = 0, 0.0
    while seen < total:
        for term in await box.receive_many(timeout=20):
            if term[:2] != ("m", seen):
                return (Atom("wrong"), seen, term[1]), 0
            seen += 1
        start = start or time.perf_counter()
    return OK, int((time.perf_counter() - start) * 1e6)


async def flood(node: Node, to: Any, total: int, payload: bytes) -> None:
    """Sends `{m, 0, Payload}` and so on, as fast as the receiver takes them."""
    for first in range(0, total, BATCH):
        last = min(first + BATCH, total)
        node.send_many(to, [(M, i, payload) for i in range(first, last)])
        await node.drain()
        await asyncio.sleep(0)


async def serve(name: str, boss: str) -> None:
    async with Node(name) as node:
        box = node.mailbox("demo")
        node.send(("demo", boss), (READY, box.pid))
        async for term in box:
            match term:
                case ("count", sender, total):
                    node.send(sender, (COUNTED, *await count(box, total)))
                case ("flood", to, total, payload):
                    await flood(node, to, total, payload)
                case ("echo", sender, value):
                    node.send(sender, (ECHOED, value))
                case "stop":
                    return


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2]))
