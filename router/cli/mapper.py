"""Commands about port mappers: names, epmd."""

from __future__ import annotations

import json
import secrets
import signal
import socket
import struct
import threading
from typing import Annotated

import typer
from rich.table import Table

from router.cli.common import EpmdPort, fail, out, working
from router.errors import RouterError
from router.node import Node, default_epmd_port

__all__ = ["epmd", "names"]

NAMES_REQ = b"\x00\x01n"  # length 1, tag 110 (erl_dist_protocol, "EPMD Protocol")


def ask_names(host: str, port: int, timeout: float) -> list[tuple[str, int]]:
    """The nodes a port mapper knows: (name, port). Raises OSError."""
    data = b""
    with socket.create_connection((host, port), timeout) as s:
        s.sendall(NAMES_REQ)
        while chunk := s.recv(65536):
            data += chunk
    if len(data) < 4:
        raise OSError("it is no port mapper: its answer is too short")
    struct.unpack(">I", data[:4])
    found = []
    for line in data[4:].decode("utf-8", "replace").splitlines():
        word = line.split()
        if len(word) == 5 and word[4].isdigit():  # name NAME at port PORT
            found.append((word[1], int(word[4])))
    return sorted(found)


def names(
    host: Annotated[str, typer.Argument(help="Whose port mapper to ask.")] = "127.0.0.1",
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    epmd_port: EpmdPort = None,
) -> None:
    """List the nodes that are registered with a port mapper, as `epmd -names` does."""
    port = epmd_port or default_epmd_port()
    try:
        with working(f"asking the port mapper of {host}"):
            found = ask_names(host, port, 5.0)
    except OSError as e:
        raise fail(
            f"no port mapper at {host} port {port}: {e.strerror or e}\n"
            "One runs wherever an Erlang or router node is started; `router epmd` serves one."
        ) from None
    if as_json:
        out.print(json.dumps([{"name": n, "port": p} for n, p in found]), markup=False)
        return
    table = Table(title=f"port mapper at {host} port {port}", title_justify="left")
    table.add_column("name")
    table.add_column("port", justify="right")
    for name, node_port in found:
        table.add_row(name, str(node_port))
    out.print(table)


def epmd(
    port: Annotated[
        int | None,
        typer.Option(envvar="ERL_EPMD_PORT", show_default=False, help="Port to serve. [4369]"),
    ] = None,
    everywhere: Annotated[
        bool, typer.Option("--any", help="Listen on every address, not on loopback alone.")
    ] = False,
) -> None:
    """Serve a port mapper until Ctrl-C, for hosts where epmd is not installed."""
    number = port or default_epmd_port()
    try:
        ask_names("127.0.0.1", number, 2.0)
    except OSError:
        pass
    else:
        raise fail(f"a port mapper runs on port {number} already; `router names` asks it")
    own = f"router-epmd-{secrets.token_hex(3)}@127.0.0.1"
    node = Node(own, cookie=secrets.token_hex(16), epmd_port=number, epmd_any=everywhere)
    try:
        node.start_sync()
    except (RouterError, OSError) as e:
        raise fail(str(e)) from None
    done = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: done.set())
    out.print(
        f"serving the port mapper on port {number}"
        f" ({'every address' if everywhere else 'loopback'}); Ctrl-C ends it"
    )
    known: set[tuple[str, int]] = set()
    try:
        while not done.wait(1.0):
            now = {n for n in ask_names("127.0.0.1", number, 5.0) if n[0] != own.split("@")[0]}
            for name, node_port in sorted(now - known):
                out.print(f"+ {name} at port {node_port}", markup=False)
            for name, _ in sorted(known - now):
                out.print(f"- {name}", markup=False)
            known = now
    except KeyboardInterrupt:
        pass
    finally:
        node.stop_sync()
