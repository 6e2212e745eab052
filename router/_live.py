"""The nodes of this process that run: ended at interpreter exit, closed in a forked child."""

from __future__ import annotations

import atexit
import os
import weakref
from typing import TYPE_CHECKING, TypeVar

from router import _core

if TYPE_CHECKING:
    from router._life import LivingNode

__all__ = ["live", "members"]

_T = TypeVar("_T")


def members(things: weakref.WeakSet[_T]) -> list[_T]:
    """What is in the set, though other threads change it meanwhile."""
    while True:
        try:
            return list(things)
        except RuntimeError:  # it changed while it was copied
            continue


live: weakref.WeakSet[LivingNode] = weakref.WeakSet()


def _stop_all() -> None:
    """At interpreter exit: threads end, sockets close; peers see a clean disconnect."""
    for node in members(live):
        if node.running:
            node._flush()
            node._stop()


def _after_fork() -> None:
    """A child has none of its parent's nodes: their descriptors are closed in it."""
    for node in list(live):
        for binding in node._bindings.values():
            binding.after_fork()
        node._bindings.clear()
        node._after_fork()
    live.clear()
    # Of loops, boxes and threads that wait.
    for notifier in list(_core.notifiers):
        notifier.after_fork()
    _core.notifiers.clear()


atexit.register(_stop_all)
os.register_at_fork(after_in_child=_after_fork)
