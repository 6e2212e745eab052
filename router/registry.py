"""The process registry alone: a routing table of a program's own objects."""

from router._core import Registry

__all__ = ["Registry"]
