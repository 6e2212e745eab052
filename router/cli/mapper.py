"""Commands about port mappers: names, epmd."""

from __future__ import annotations

import json
import secrets
import signal
import socket
import threading
import time
from types import FrameType
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from router._arguments import default_epmd_port
from router.cli.common import AsJson, EpmdPort, fail, out, shown, working
from router.errors import RouterError
from router.node import Node

__all__ = ["NotAMapper", "ask_names", "epmd", "names"]

NAMES_REQ = b"\x00\x01n"  # length 1, tag 110 (erl_dist_protocol, "EPMD Protocol")
_ANSWER_BYTES_MAX = 16 << 20
_LOOK_SECONDS = 1.0


class NotAMapper(Exception):
    """Something took the connection, and did not answer as a port mapper does."""


def ask_names(host: str, port: int, timeout: float) -> list[tuple[str, int]]:
    """The nodes a port mapper knows: (name, port). Raises OSError, NotAMapper.

    The answer is four bytes of its own port, then lines `name NAME at port PORT`
    (erl_dist_protocol, "Get All Registered Names from EPMD").
    """
    deadline = time.monotonic() + timeout
    data = bytearray()
    with socket.create_connection((host, port), timeout) as s:
        try:
            s.sendall(NAMES_REQ)
            while chunk := s.recv(65536):
                data += chunk
                if len(data) > _ANSWER_BYTES_MAX:
                    raise NotAMapper("its answer has no end")
                s.settimeout(max(0.001, deadline - time.monotonic()))
        except TimeoutError:
            raise NotAMapper(f"no answer within {timeout:g} s") from None
        except OSError as e:
            raise NotAMapper(f"no answer ({e.strerror or e})") from None
    if len(data) < 4 or data[0] or data[1]:
        raise NotAMapper("its answer is not that of a port mapper")
    found = []
    for line in data[4:].decode("utf-8", "replace").splitlines():
        match line.split():
            case ["name", name, "at", "port", number] if number.isdecimal():
                found.append((name, int(number)))
            case _:
                raise NotAMapper("its answer is not that of a port mapper")
    return sorted(found)


def names(
    host: Annotated[
        str, typer.Argument(metavar="HOST", help="Whose port mapper to ask, or a node of it.")
    ] = "127.0.0.1",
    as_json: AsJson = False,
    epmd_port: EpmdPort = None,
) -> None:
    """List the nodes that are registered with a port mapper, as `epmd -names` does.

    Examples:

    router names

    router names backend.example.org --json
    """
    host = host.rpartition("@")[2] or "127.0.0.1"
    port = epmd_port or default_epmd_port()
    try:
        with working(f"asking the port mapper of {host}"):
            found = ask_names(host, port, 5.0)
    except socket.gaierror as e:
        raise fail(f"unknown host {host}: {e.strerror}") from None
    except OSError as e:
        raise fail(
            f"no port mapper runs at {host} port {port}: {e.strerror or e}",
            hint="There is one wherever an Erlang node or a listening router node runs; "
            "`router epmd` serves one alone. Another port: --epmd-port or ERL_EPMD_PORT.",
        ) from None
    except NotAMapper as e:
        raise fail(
            f"what listens at {host} port {port} is no port mapper: {e}",
            hint="Another port: --epmd-port or ERL_EPMD_PORT.",
        ) from None
    if as_json:
        out.print(json.dumps([{"name": n, "port": p} for n, p in found]), markup=False)
        return
    if not found:
        out.print(f"the port mapper at {host} port {port} knows no nodes", markup=False)
        return
    table = Table(title=Text(f"port mapper at {host} port {port}"), title_justify="left")
    table.add_column("name")
    table.add_column("port", justify="right")
    for name, node_port in found:
        table.add_row(Text(shown(name)), str(node_port))
    out.print(table)


def epmd(
    port: Annotated[
        int | None,
        typer.Option(
            envvar="ERL_EPMD_PORT",
            show_default=False,
            min=1,
            max=65535,
            help="Port to serve; without it 4369.",
        ),
    ] = None,
    everywhere: Annotated[
        bool, typer.Option("--any", help="Listen on every address, not on loopback alone.")
    ] = False,
) -> None:
    """Serve a port mapper until Ctrl-C, for hosts where no epmd is installed.

    It is a node of its own with a cookie that nobody knows, and is listed as
    such. Nodes that come and go are printed.

    Examples:

    router epmd

    router epmd --any --port 4370
    """
    number = port or default_epmd_port()
    _refuse_if_taken(number)
    own = f"router-epmd-{secrets.token_hex(3)}"
    node = Node(
        f"{own}@127.0.0.1",
        cookie=secrets.token_hex(16),
        epmd_port=number,
        epmd_any=everywhere,
    )
    done = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        done.set()

    previous = {s: signal.signal(s, end) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        with node:
            where = "every address" if everywhere else "loopback"
            out.print(f"serving the port mapper on port {number} ({where}); Ctrl-C ends it")
            _watch(number, own, done)
            out.print("ended")
    except (RouterError, OSError) as e:
        raise fail(str(e)) from None
    finally:
        for s, handler in previous.items():
            signal.signal(s, handler)


def _refuse_if_taken(port: int) -> None:
    hint = "Another port: --port or ERL_EPMD_PORT, the same for all nodes that should meet."
    try:
        ask_names("127.0.0.1", port, 2.0)
    except NotAMapper as e:
        raise fail(f"something else listens on port {port}: {e}", hint=hint) from None
    except OSError:
        return
    raise fail(
        f"a port mapper runs on port {port} already, and one is enough",
        hint="`router names` shows the nodes it knows. " + hint,
    )


def _watch(port: int, own: str, done: threading.Event) -> None:
    """Prints who registers and who leaves, until `done`."""
    known: set[tuple[str, int]] = set()
    while not done.wait(_LOOK_SECONDS):
        try:
            now = {n for n in ask_names("127.0.0.1", port, 5.0) if n[0] != own}
        except (OSError, NotAMapper) as e:
            raise OSError(f"the port mapper does not answer any more: {e}") from None
        for name, node_port in sorted(known - now):
            out.print(f"- {shown(name)} at port {node_port}", markup=False)
        for name, node_port in sorted(now - known):
            out.print(f"+ {shown(name)} at port {node_port}", markup=False)
        known = now
