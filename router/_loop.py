"""Ties a node to the event loops its program uses.

The first loop becomes the one that drives the engine: it watches the engine's
descriptor. Every other loop only gets woken when its own mailboxes have news.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from router._core import LoopCore, LoopFlush

if TYPE_CHECKING:
    from router._life import LivingNode

__all__ = ["LoopBinding", "running_loop"]


class LoopBinding(LoopCore):
    """One node on one loop. Made and used on that loop's thread."""

    def __init__(self, node: LivingNode, loop: asyncio.AbstractEventLoop) -> None:
        self._engine_fd = -1
        self._attached = True
        loop.add_reader(self.notifier.fd, self._news)
        node._listen_events(self.notifier)

    def drive(self) -> None:
        """This loop drives the engine from now on."""
        node = self._node()
        assert node is not None
        # A copy of the descriptor: it stays ours until the loop has let go of it.
        self._engine_fd = os.dup(node._fd())
        self.loop.add_reader(self._engine_fd, self._engine_ready)
        self.drives = True
        node._promise(1)
        node._set_loop(LoopFlush(self.loop, self._node))

    @property
    def stale(self) -> bool:
        return not self._attached or self.loop.is_closed()

    def detach(self) -> None:
        """Lets go of the loop, from any thread, also of a closed one. Once."""
        if not self._attached:
            return
        self._attached = False
        node = self._node()
        if node is not None:
            node._ignore_events(self.notifier)
            if self.drives:
                node._promise(-1)
                node._set_loop(None)
        if self.loop.is_closed():
            self._close()
        elif running_loop() is self.loop or not self.loop.is_running():
            self._remove()
        else:
            try:
                self.loop.call_soon_threadsafe(self._remove)
            except RuntimeError:  # it closed just now
                self._close()

    def _remove(self) -> None:
        if not self.loop.is_closed():
            self.loop.remove_reader(self.notifier.fd)
            if self.drives:
                self.loop.remove_reader(self._engine_fd)
        self._close()

    def _close(self) -> None:
        if self._engine_fd >= 0:
            os.close(self._engine_fd)
            self._engine_fd = -1

    # A loop that closes before its next turn drops `_remove` unrun.
    __del__ = _close

    def after_fork(self) -> None:
        """In the child: nothing of the loop may be touched, only descriptors closed."""
        self._attached = False
        self._close()


def running_loop() -> asyncio.AbstractEventLoop | None:
    return asyncio._get_running_loop()
