"""`relay`: pending."""

from __future__ import annotations

__all__ = ["PENDING"]

PENDING = (
    "the relay forwards between connected nodes, but sends cannot be routed through it yet; "
    "the issue that brings relaying adds this benchmark, with the plain C relay as its limit"
)
