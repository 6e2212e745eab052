"""What the commands share: options, consoles, a node for one command."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console

from router.errors import HandshakeError, RouterError
from router.node import Node

__all__ = [
    "Cookie",
    "EpmdPort",
    "Name",
    "Timeout",
    "fail",
    "free_port",
    "node_for",
    "out",
    "working",
]

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

Cookie = Annotated[
    str | None,
    typer.Option(
        envvar="ROUTER_COOKIE",
        show_envvar=True,
        show_default=False,
        help="The cluster's cookie; without it ~/.erlang.cookie is read.",
    ),
]
EpmdPort = Annotated[
    int | None,
    typer.Option(
        envvar="ERL_EPMD_PORT", show_default=False, help="Port of the port mappers. [4369]"
    ),
]
Name = Annotated[
    str | None,
    typer.Option(show_default=False, help="This node's own name. [one that nobody has]"),
]
Timeout = Annotated[float, typer.Option(min=0.001, help="Seconds to wait for an answer.")]


def fail(message: str, code: int = 1) -> typer.Exit:
    """Prints what went wrong; `raise fail(...)`."""
    err.print(f"router: {message}", style="red", markup=False)
    return typer.Exit(code)


def free_port() -> int:
    """A TCP port that was free on loopback a moment ago."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


def _own_host(target: str) -> str:
    """A host by which the target can know us: like its own, long or short."""
    host = target.partition("@")[2]
    if host == "localhost" or host.startswith("127.") or host == "::1":
        return host
    own = socket.gethostname()
    if "." not in host:
        return own.partition(".")[0]
    return own if "." in own else socket.getfqdn()


@contextmanager
def node_for(
    target: str, name: str | None, cookie: str | None, epmd_port: int | None
) -> Iterator[Node]:
    """A hidden node for one command, that does not listen. Errors end the command."""
    if "@" not in target:
        raise fail(f"{target!r} is not a node name; it has the form name@host", 2)
    own = name or f"router-{os.getpid()}-{secrets.token_hex(3)}@{_own_host(target)}"
    try:
        node = Node(own, cookie=cookie, listen=False, epmd_port=epmd_port)
        node.start_sync()
    except (RouterError, ValueError, OSError) as e:
        raise fail(str(e)) from None
    try:
        yield node
    except HandshakeError as e:
        raise fail(f"{e}\nIs the cookie right? --cookie, or ~/.erlang.cookie") from None
    except (RouterError, TimeoutError, ValueError) as e:
        raise fail(str(e) or type(e).__name__) from None
    finally:
        node.stop_sync()


@contextmanager
def working(what: str) -> Iterator[None]:
    """Shows that something goes on, where somebody can see it."""
    if err.is_terminal:
        with err.status(what):
            yield
    else:
        yield
