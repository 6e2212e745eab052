"""Connections that are made again whenever they have ended."""

from __future__ import annotations

import logging
import random
import time
from typing import TYPE_CHECKING, Any

from router.errors import RouterError

if TYPE_CHECKING:
    from router.mailbox import Mailbox
    from router.node import Node

__all__ = ["PAUSE_SECONDS_MAX", "PAUSE_SECONDS_MIN", "Kept"]

log = logging.getLogger("router")

PAUSE_SECONDS_MIN, PAUSE_SECONDS_MAX = 0.25, 30.0


def check_pause(seconds: Any) -> None:
    """Raises ValueError unless it is one."""
    if not isinstance(seconds, (int, float)) or not seconds > 0:
        raise ValueError(f"pause_max is a positive number of seconds, not {seconds!r}")


class Kept:
    """A peer that is kept connected. Made by `Node.keep`."""

    def __init__(self, node: Node, name: str, box: Mailbox, pause_max: float) -> None:
        self.name = name
        self.failures = 0
        """Attempts that failed since the peer was last up."""
        self.error: str | None = None
        """Why the last of them failed."""
        self._node = node
        self._box = box
        self._pause_max = pause_max

    def __repr__(self) -> str:
        state = "closed" if self.closed else "up" if not self.failures else self.error
        return f"<Kept {self.name}: {state}>"

    @property
    def closed(self) -> bool:
        return self._box.closed

    def close(self) -> None:
        """Lets the peer alone from now on. A connection that stands is left standing."""
        self._box.close()

    async def run(self, box: Mailbox, address: dict[str, Any]) -> None:
        """The process of `box`: ends with it, and with the node."""
        self._node.monitor_nodes(box)
        while True:
            try:
                # Also when it is up: then it says so at once.
                await self._node.connect(self.name, **address)
            except (RouterError, OSError) as e:
                await self._failed(box, e)
                continue
            if self.failures:
                log.info("%s: %s is connected again", self._node.name, self.name)
            self.failures, self.error = 0, None
            while self.name in self._node.nodes():
                await box.receive()

    async def _failed(self, box: Mailbox, e: Exception) -> None:
        if not self.failures or str(e) != self.error:
            log.warning("%s: %s is kept, and not connected: %s", self._node.name, self.name, e)
        self.error = str(e)
        pause = min(PAUSE_SECONDS_MIN * 2 ** min(self.failures, 16), self._pause_max)
        self.failures += 1
        # Not all at once, when a whole cluster has lost the same node.
        until = time.monotonic() + pause * random.uniform(0.5, 1.0)
        while (left := until - time.monotonic()) > 0:
            try:
                event = await box.receive(left)
            except TimeoutError:
                return
            if event == ("nodeup", self.name):  # it has come of its own accord
                return
