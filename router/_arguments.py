"""What `Node` and the command line take as arguments: checked, or a clear error."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from router import _core
from router.errors import RouterError

__all__ = [
    "busy_wait_ns_of",
    "cookie_bytes",
    "default_epmd_port",
    "epmd_port_of",
    "is_port",
    "is_text",
    "listen_on",
    "name_ok",
    "numeric",
    "poller_of",
]


def name_ok(name: object) -> bool:
    if not isinstance(name, str):
        return False
    short, at, host = name.partition("@")
    return bool(short and at and host) and len(name) <= 255 and name.isprintable()


def poller_of(poller: object, engine: str) -> str:
    """Which one is meant; ValueError or OSError when it cannot be had."""
    if poller not in ("auto", "epoll", "io_uring"):
        raise ValueError(f"poller is 'auto', 'epoll' or 'io_uring', not {poller!r}")
    if poller != "io_uring":
        return "epoll"
    if engine != "thread":
        raise ValueError(
            f"poller='io_uring' needs engine='thread', not {engine!r}: one thread alone owns a ring"
        )
    if missing := _core.poller_missing(_core.POLLERS["io_uring"]):
        raise OSError(*missing) if missing[0] else ValueError(missing[1])
    return "io_uring"


def busy_wait_ns_of(seconds: object) -> int:
    """Seconds, as nanoseconds."""
    most = _core.BUSY_WAIT_NS_MAX / 1e9
    if isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and 0 <= seconds <= most:
        return round(seconds * 1e9)
    raise ValueError(f"busy_wait is a number of seconds from 0 to {most}, not {seconds!r}")


def listen_on(listen: object) -> tuple[str, int] | bool | None:
    """What the argument says, with an address taken apart."""
    if listen is None or isinstance(listen, bool):
        return listen
    host: object = listen
    port: object = 0
    if isinstance(listen, tuple) and len(listen) == 2:
        host, port = listen
    elif isinstance(listen, str) and listen.startswith("["):  # [::1]:port
        host, _, rest = listen[1:].partition("]")
        port = rest[1:] or 0
    elif isinstance(listen, str) and listen.count(":") == 1:
        host, _, port = listen.partition(":")
    if isinstance(port, str) and port.isascii() and port.isdigit():
        port = int(port)
    if isinstance(host, str) and host and isinstance(port, int) and is_port(port, 0):
        return host, port
    raise ValueError(f"listen is 'host', 'host:port', (host, port) or False, not {listen!r}")


def is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def is_port(value: object, least: int = 1) -> bool:
    return isinstance(value, int) and least <= value <= 65535


def numeric(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        return True
    return False


def default_epmd_port() -> int:
    """The port of port mappers: the environment's ERL_EPMD_PORT, or 4369."""
    return int(os.environ.get("ERL_EPMD_PORT") or 4369)


def epmd_port_of(port: int | None) -> int:
    if port is None:
        port = default_epmd_port()
    if not is_port(port):
        raise ValueError(f"epmd_port is between 1 and 65535, not {port!r}")
    return port


def cookie_bytes(cookie: str | bytes | None) -> bytes:
    if cookie is None:
        path = Path.home() / ".erlang.cookie"
        try:
            cookie = path.read_bytes().strip()
        except OSError as e:
            raise RouterError(
                f"no cookie: pass cookie=, or put the cluster's into {path} ({e.strerror})"
            ) from None
    if not isinstance(cookie, (str, bytes)):
        raise TypeError(f"cookie is a str or bytes, not {type(cookie).__name__}")
    raw = cookie.encode() if isinstance(cookie, str) else cookie
    if len(raw) > 255:
        raise ValueError("a cookie has at most 255 bytes")
    return raw
