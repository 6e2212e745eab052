"""router: a message router that Python services embed.

A node joins clusters that speak the Erlang distribution protocol; messages
travel between processes (mailboxes) on its own and other nodes.
"""

from router import errors, etf
from router._version import __version__
from router.errors import (
    BufferFull,
    CallTimeout,
    DecodeError,
    EncodeError,
    ExitSignal,
    HandshakeError,
    NameTaken,
    NodeDown,
    NoProcess,
    NotAllowed,
    RemoteError,
    RouterError,
)
from router.etf import (
    Atom,
    BitString,
    Codec,
    Export,
    Fun,
    ImproperList,
    Pid,
    Port,
    Reference,
)
from router.limits import Limits
from router.mailbox import Mailbox
from router.node import Node
from router.registry import Registry
from router.serving import NO_REPLY, Caller, GenServer, Server
from router.supervising import Child, Supervisor

__all__ = [
    "NO_REPLY",
    "Atom",
    "BitString",
    "BufferFull",
    "CallTimeout",
    "Caller",
    "Child",
    "Codec",
    "DecodeError",
    "EncodeError",
    "ExitSignal",
    "Export",
    "Fun",
    "GenServer",
    "HandshakeError",
    "ImproperList",
    "Limits",
    "Mailbox",
    "NameTaken",
    "NoProcess",
    "Node",
    "NodeDown",
    "NotAllowed",
    "Pid",
    "Port",
    "Reference",
    "Registry",
    "RemoteError",
    "RouterError",
    "Server",
    "Supervisor",
    "__version__",
    "errors",
    "etf",
]
