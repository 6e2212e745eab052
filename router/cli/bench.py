"""`router bench`: a place that is kept."""

from __future__ import annotations

from router.cli.common import fail

__all__ = ["bench"]


def bench() -> None:
    """Measure every layer alone and beside its peers: not in this version yet."""
    raise fail(
        "the benchmarks are not part of this version yet; nothing was measured",
        hint="`router demo` shows the rates that nodes reach on this machine.",
        code=2,
    )
