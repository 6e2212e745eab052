"""A node that a soak feeds: it checks each message, takes its time, and tells what came.

Arguments: node name, port of the port mapper, name of the feeding node, seed.
"""

from __future__ import annotations

import asyncio
import random
import sys

from router import Atom, Node

PAUSE_SECONDS = (0.0, 0.0, 0.0, 0.001, 0.05)
NEXT_PAUSE_MAX = 400


def payload(number: int, size: int) -> bytes:
    """Bytes that no other message has, in their beginning and in their end."""
    mark = number.to_bytes(8, "big")
    return mark * (size // 8 + 1)


class Runs:
    """What came: how many, and from where to where without a gap."""

    def __init__(self) -> None:
        self.count = 0
        self.wrong = 0
        self.runs: list[tuple[int, int]] = []

    def add(self, number: int, size: int, data: bytes) -> None:
        self.count += 1
        self.wrong += data != payload(number, size)
        if self.runs and self.runs[-1][1] + 1 == number:
            self.runs[-1] = (self.runs[-1][0], number)
        else:
            self.runs.append((number, number))


async def main(name: str, epmd_port: str, feeder: str, seed: str) -> None:
    dice = random.Random(seed)
    seen = Runs()
    async with Node(name, cookie="secret", epmd_port=int(epmd_port)) as node:
        with node.mailbox("sink", limit_bytes=4 << 20, overflow="pause") as sink:
            node.send(("ready", feeder), sink.pid)
            next_pause = 1
            async for term in sink:
                match term:
                    case (int() as number, int() as size, bytes() as data):
                        seen.add(number, size, data)
                    case ("ping", asker, ref):
                        node.send(asker, ref)
                    case ("leave", peer):
                        node.disconnect(str(peer))
                    case ("report", asker):
                        report = (Atom("report"), seen.count, seen.wrong, seen.runs)
                        node.send(asker, report)
                next_pause -= 1
                if next_pause == 0:
                    next_pause = dice.randrange(1, NEXT_PAUSE_MAX)
                    await asyncio.sleep(dice.choice(PAUSE_SECONDS))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
