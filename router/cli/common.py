"""What the commands share: options, consoles, errors, a node for one command."""

from __future__ import annotations

import os
import random
import secrets
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from router.errors import (
    CallTimeout,
    HandshakeError,
    NodeDown,
    NoProcess,
    NotAllowed,
    RouterError,
)
from router.node import Node

__all__ = [
    "AsJson",
    "Cookie",
    "EpmdPort",
    "Name",
    "Target",
    "Timeout",
    "fail",
    "free_port",
    "node_for",
    "out",
    "shown",
    "working",
]

# What reads a pipe has no use for lines folded to a window that is not there.
_WIDTH_PIPED = 200


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _WIDTH_PIPED
    return Console(stderr=stderr, highlight=False, soft_wrap=True, width=width)


out = _console(stderr=False)
err = _console(stderr=True)

Target = Annotated[str, typer.Argument(metavar="NODE", help="name@host", show_default=False)]
Cookie = Annotated[
    str | None,
    typer.Option(
        envvar="ROUTER_COOKIE",
        show_envvar=True,
        show_default=False,
        help="The cluster's cookie; without it ~/.erlang.cookie is read. Other users of this "
        "machine can see what stands on a command line: the variable hides it from them.",
    ),
]
EpmdPort = Annotated[
    int | None,
    typer.Option(
        envvar="ERL_EPMD_PORT",
        show_default=False,
        min=1,
        max=65535,
        help="Port of the port mappers; without it 4369.",
    ),
]
Name = Annotated[
    str | None,
    typer.Option(show_default=False, help="This node's own name; without it one that nobody has."),
]
Timeout = Annotated[float, typer.Option(min=0.001, help="Seconds to wait for each answer.")]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


def shown(text: str) -> str:
    """A text of somebody else's, without what a terminal would obey."""
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)


def fail(message: str, *, hint: str = "", code: int = 1) -> typer.Exit:
    """Prints what went wrong and what to do about it; `raise fail(...)`."""
    err.print(f"router: {shown(message)}", style="red", markup=False)
    if hint:
        err.print(shown(hint), markup=False)
    return typer.Exit(code)


def free_port() -> int:
    """A TCP port that nobody has on loopback, below those the kernel gives to connections."""
    while True:
        port = random.SystemRandom().randrange(15_000, 32_000)
        with socket.socket() as s, suppress(OSError):
            s.bind(("127.0.0.1", port))
            return port


@contextmanager
def working(what: str) -> Iterator[None]:
    """Shows that something goes on, where somebody can see it."""
    if err.is_terminal:
        with err.status(shown(what)):
            yield
    else:
        yield


# A node for one command


@contextmanager
def node_for(
    target: str, name: str | None, cookie: str | None, epmd_port: int | None
) -> Iterator[Node]:
    """A hidden node that does not listen, to speak with `target`. Errors end the command."""
    short, at, host = target.partition("@")
    if not (short and at and host):
        raise fail(
            f"{target!r} is not the name of a node; it has the form name@host",
            hint="`router names` lists the nodes of this host, without the @host.",
            code=2,
        )
    try:
        own = name or f"router-{os.getpid()}-{secrets.token_hex(3)}"
        if "@" not in own:
            own += f"@{_own_host(host)}"
        node = Node(own, cookie=_cookie(cookie), listen=False, epmd_port=epmd_port)
        node.start_sync()
    except (RouterError, ValueError, OSError) as e:
        raise fail(str(e)) from None
    try:
        yield node
    except (RouterError, TimeoutError, ValueError) as e:
        raise fail(str(e) or type(e).__name__, hint=_hint(e, target)) from None
    finally:
        node.stop_sync()


def _cookie(given: str | None) -> bytes:
    if given:
        return os.fsencode(given)
    path = Path.home() / ".erlang.cookie"
    try:
        return path.read_bytes().strip()
    except OSError as e:
        raise fail(
            f"no cookie: {path}: {e.strerror}",
            hint="Put the cluster's cookie into that file or into ROUTER_COOKIE, or use --cookie.",
        ) from None


def _own_host(host: str) -> str:
    """A host by which a node of `host` can know us: long or short, as its own name is."""
    if host == "localhost" or host.startswith("127.") or host == "::1":
        return host
    own = socket.gethostname()
    if "." not in host and ":" not in host:
        return own.partition(".")[0]
    if "." not in own:
        with working("finding the name of this host"):
            own = socket.getfqdn()
    return own if "." in own else _address_towards(host)


def _address_towards(host: str) -> str:
    """This host's address on the way to `host`; nothing is sent."""
    found = []
    with suppress(OSError):  # connecting says what is wrong with a name that does not resolve
        found = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)
    for family, kind, _, _, at in found:
        with socket.socket(family, kind) as s, suppress(OSError):
            s.connect(at)
            return str(s.getsockname()[0])
    return "127.0.0.1"


def _hint(e: BaseException, target: str) -> str:
    """What to try next."""
    if isinstance(e, CallTimeout):
        return "--timeout gives it longer."
    if isinstance(e, NoProcess):
        return f"`router call {target} erlang registered` lists the names there."
    if isinstance(e, NotAllowed):
        return "It takes connections from certain nodes only; --name says who asks."
    if isinstance(e, HandshakeError):
        return "The cookie is --cookie, ROUTER_COOKIE or ~/.erlang.cookie." * ("cookie" in str(e))
    if isinstance(e, NodeDown):
        host = target.partition("@")[2]
        return f"Does it run? `router names {host}` lists the nodes of its host."
    return ""
