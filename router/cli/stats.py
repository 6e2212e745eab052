"""`router stats`: what a running node says about itself, and the connection with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from rich.table import Table
from rich.text import Text

from router import etf
from router.cli.common import (
    AsJson,
    Cookie,
    EpmdPort,
    Name,
    Target,
    Timeout,
    node_for,
    out,
    shown,
    working,
)
from router.cli.terms import json_of
from router.errors import RemoteError
from router.node import Node

__all__ = ["stats"]


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else etf.format(value)


def _bytes(value: Any) -> str:
    if not isinstance(value, int):
        return etf.format(value)
    size, unit = float(value), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:,.0f} B" if unit == "B" else f"{size:,.1f} {unit}"


def _seconds(value: Any) -> str:
    if not isinstance(value, (int, float)):
        return etf.format(value)
    if value < 1e-3:
        return f"{value * 1e6:.0f} us"
    if value < 1:
        return f"{value * 1e3:.1f} ms"
    minutes, seconds = divmod(value, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{int(seconds):02d}" if value >= 60 else f"{value:.1f} s"


def _nodes(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) and value else "none"


def _same(value: Any) -> Any:
    return value


def _text(value: Any) -> Any:
    """A list of characters as text."""
    try:
        return bytes(value).decode()
    except (TypeError, ValueError):
        return value


def _uptime(value: Any) -> Any:
    """{Milliseconds since the start, since the last call} as seconds."""
    return value[0] / 1000 if isinstance(value, tuple) else value


_Ask = tuple[str, str, str, str | None, Callable[[Any], Any], Callable[[Any], str]]
_ERLANG: tuple[_Ask, ...] = (
    # label, module, function, atom or nothing, what it means, how a person reads it
    ("release", "erlang", "system_info", "otp_release", _text, str),
    ("uptime", "erlang", "statistics", "wall_clock", _uptime, _seconds),
    ("schedulers", "erlang", "system_info", "schedulers_online", _same, _count),
    ("run_queue", "erlang", "statistics", "run_queue", _same, _count),
    ("memory", "erlang", "memory", "total", _same, _bytes),
    ("memory_processes", "erlang", "memory", "processes", _same, _bytes),
    ("memory_binary", "erlang", "memory", "binary", _same, _bytes),
    ("processes", "erlang", "system_info", "process_count", _same, _count),
    ("process_limit", "erlang", "system_info", "process_limit", _same, _count),
    ("ports", "erlang", "system_info", "port_count", _same, _count),
    ("atoms", "erlang", "system_info", "atom_count", _same, _count),
    ("nodes", "erlang", "nodes", None, json_of, _nodes),
    ("hidden_nodes", "erlang", "nodes", "hidden", json_of, _nodes),
)
_CONNECTION: dict[str, Callable[[Any], str]] = {
    "up": lambda up: "yes" if up else "no",
    "messages_in": _count,
    "messages_out": _count,
    "bytes_in": _bytes,
    "bytes_out": _bytes,
    "queued_bytes": _bytes,
    "dropped_in": _count,
    "dropped_out": _count,
    "refused": _count,
    "connects": _count,
    "failures": _count,
    "round_trip": _seconds,
    "idle": _seconds,
    "age": _seconds,
}


def stats(
    node: Target,
    as_json: AsJson = False,
    timeout: Timeout = 5.0,
    name: Name = None,
    cookie: Cookie = None,
    epmd_port: EpmdPort = None,
) -> None:
    """Show how a node is, and this command's connection with it.

    An Erlang node answers for itself. A router node answers no questions yet:
    its own program has node.stats().

    Examples:

    router stats shop@127.0.0.1

    router stats shop@127.0.0.1 --json
    """
    with node_for(node, name, cookie, epmd_port) as own:
        with working(f"asking {node}"):
            own.connect_sync(node, timeout)
            found, note = _ask(own, node, timeout)
            link = _link(own, node)
    if "hidden_nodes" in found:
        found["hidden_nodes"] = [n for n in found["hidden_nodes"] if n != own.name]
    if as_json:
        out.print(json.dumps(_report(node, found, link, note)), markup=False)
    else:
        _show(node, found, link, note)


def _ask(own: Node, node: str, timeout: float) -> tuple[dict[str, Any], str]:
    found: dict[str, Any] = {}
    for label, module, function, atom, meaning, _ in _ERLANG:
        args: list[Any] = [] if atom is None else [etf.Atom(atom)]
        try:
            found[label] = meaning(own.rpc_sync(node, module, function, args, timeout))
        except RemoteError as e:
            if e.reason == ("erpc", "notsup"):
                return {}, "router nodes answer no questions yet; their program has node.stats()"
            return found, f"asked for {function}({atom or ''}), it answered {etf.format(e.reason)}"
    return found, ""


def _link(own: Node, node: str) -> dict[str, Any]:
    rows = own.stats()
    row = next((r for r in rows if r["peer"] == node), None)
    return {} if row is None else {field: row[field].item() for field in _CONNECTION}


def _report(node: str, found: dict[str, Any], link: dict[str, Any], note: str) -> dict[str, Any]:
    return {"node": node, "about": found, "connection": link, "note": note}


def _show(node: str, found: dict[str, Any], link: dict[str, Any], note: str) -> None:
    table = Table(title=Text(shown(node)), show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column()
    for label, _, _, _, _, reads in _ERLANG:
        if label in found:
            table.add_row(label.replace("_", " "), Text(shown(reads(found[label]))))
    table.add_section()
    for field, value in link.items():
        table.add_row(f"connection: {field.replace('_', ' ')}", _CONNECTION[field](value))
    out.print(table)
    if note:
        out.print(f"{shown(node)}: {shown(note)}", markup=False)
