"""Every exception of the package, in one place.

Programs catch `RouterError` for all of them, or the one they can act on.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "BufferFull",
    "CallTimeout",
    "DecodeError",
    "EncodeError",
    "ExitSignal",
    "HandshakeError",
    "NameTaken",
    "NoProcess",
    "NodeDown",
    "NotAllowed",
    "RemoteError",
    "RouterError",
]


class RouterError(Exception):
    """Base of every error this package raises on its own account."""


class EncodeError(RouterError):
    """An object is no term, or breaks a limit of the codec.

    The message names the type and where in the term it stands.
    """


class DecodeError(RouterError):
    """Bytes are no term, or one that the codec refuses.

    `offset` counts from the first byte given to the decoder; `data` holds the
    bytes when a mailbox raises the error, else None.
    """

    def __init__(self, message: str, offset: int | None = None, data: bytes | None = None) -> None:
        super().__init__(message, offset, data)
        self.message = message
        self.offset = offset
        self.data = data

    def __str__(self) -> str:
        if self.offset is None:
            return self.message
        return f"{self.message} (at byte {self.offset})"


class HandshakeError(RouterError):
    """Two nodes could not agree to connect; says which flag or check failed."""


class NodeDown(RouterError):
    """There is no connection to the node, and none could be made, or it broke."""


class NoProcess(RouterError):
    """The process called does not exist, or ended before it answered."""


class CallTimeout(RouterError, TimeoutError):
    """A call was not answered in time. Also a `TimeoutError`."""


class RemoteError(RouterError):
    """Code on another node failed.

    `class_` is Erlang's class of exception ("error", "exit" or "throw"),
    `reason` and `stacktrace` are the terms that came with it.
    """

    def __init__(self, class_: str, reason: Any, stacktrace: Any = None) -> None:
        super().__init__(class_, reason, stacktrace)
        self.class_ = class_
        self.reason = reason
        self.stacktrace = stacktrace

    def __str__(self) -> str:
        return f"{self.class_}: {_short(self.reason)}"


class NameTaken(RouterError):
    """Another node or process has the name already."""


class BufferFull(RouterError):
    """The buffer towards a peer is at its hard limit; nothing was queued.

    Await `Node.drain` and send again.
    """


class ExitSignal(RouterError):
    """A mailbox was closed by an exit signal, or its process has ended.

    `reason` is the term of the signal.
    """

    def __init__(self, reason: Any) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return _short(self.reason)


class NotAllowed(RouterError):
    """The peer, or this node, does not allow the connection or the call."""


def _short(term: object, limit: int = 500) -> str:
    """A repr that neither fails nor floods a log, whatever a peer sent."""
    try:
        text = repr(term)
    except (ValueError, RecursionError):
        # An integer of too many digits, or nesting too deep to print.
        text = f"<{type(term).__name__} too large to print>"
    return text if len(text) <= limit else text[: limit - 3] + "..."
