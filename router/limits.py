"""Every limit of a node, its default and what happens at it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

__all__ = ["Limits"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds on what peers and programs can make a node hold.

    Sizes are in bytes, times in milliseconds. `Node(limits=Limits(...))` or
    `Node(limits={"queue_bytes_max": ...})`.
    """

    frame_bytes_max: int = 256 << 20
    """One packet from a peer; a larger one closes that connection. Nodes of router cut their
    messages into packets of at most 68 KiB, so less than that would shut them out."""
    message_bytes_max: int = 1 << 30
    """One message, all fragments together; sending a larger one raises EncodeError."""
    term_depth_max: int = 10_000
    """Nesting of a term from a peer; deeper closes that connection."""
    fragments_in_flight_max: int = 1024
    """Unfinished fragmented messages of one connection; more closes it."""
    peers_max: int = 65_536
    """Names of other nodes; a further one raises RouterError."""
    handshakes_max: int = 1024
    """Connections that are not up yet; a further incoming one is closed. Also of clients of the
    embedded port mapper that hold no registration."""
    handshake_step_ms: int = 7000
    """Silence allowed in each step of a handshake."""
    connect_ms: int = 7000
    """Looking a node up and the TCP connect, each. Also what a client of the embedded port mapper
    may take to ask and to read the answer."""
    queue_bytes_soft: int = 1 << 20
    """Outgoing bytes of one peer above which `drain` waits."""
    queue_bytes_max: int = 64 << 20
    """Outgoing bytes of one peer at which `send` raises BufferFull."""
    processes_max: int = 1 << 24
    """Processes of one node; a further one raises RouterError."""
    spill_bytes_max: int = 16 << 20
    """What one peer may still send while a box with overflow="pause" is full. Also the bytes that
    signals may add to a box with limit_bytes."""
    signals_max: int = 65_536
    """Signals (DOWN, EXIT, spawn_reply, nodeup, nodedown) that a box with a limit takes beyond it,
    whatever its overflow says; at one more it is closed."""
    pause_ms_max: int = 5000
    """How long such a box may stay full before it is closed."""
    inflate_ratio_max: int = 1100
    """A compressed term's size over its compressed size."""
    names_max: int = 1 << 20
    """Registered names; also of the embedded port mapper."""
    multicast_bytes_max: int = 16 << 20
    """Copies that one broadcast from a peer makes for processes of this node, together; more
    closes that connection. Peers are told, and ask for no more."""

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{f.name} is an int, not {type(value).__name__}")
            if not 0 < value < 1 << 32:
                raise ValueError(f"{f.name} is between 1 and 2**32 - 1, not {value}")
        if self.queue_bytes_soft > self.queue_bytes_max:
            raise ValueError("queue_bytes_soft is at most queue_bytes_max")

    def as_dict(self) -> dict[str, int]:
        return asdict(self)
