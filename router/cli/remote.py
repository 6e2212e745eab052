"""Commands that talk to a running node: ping, call, stats."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any

import typer
from rich.table import Table

from router import etf
from router.cli.common import Cookie, EpmdPort, Name, Timeout, fail, node_for, out, working
from router.errors import RemoteError
from router.node import Node

__all__ = ["call", "ping", "stats"]

Target = Annotated[str, typer.Argument(metavar="NODE", help="name@host", show_default=False)]


def ping(
    node: Target,
    count: Annotated[int, typer.Option("--count", "-c", min=1, help="How often.")] = 1,
    timeout: Timeout = 7.0,
    name: Name = None,
    cookie: Cookie = None,
    epmd_port: EpmdPort = None,
) -> None:
    """Ask a node whether it is there, as net_adm:ping does. Exits 1 when it is not.

    router ping shop@127.0.0.1 --cookie secret
    """
    with node_for(node, name, cookie, epmd_port) as own:
        start = time.perf_counter()
        with working(f"connecting to {node}"):
            own.connect_sync(node, timeout)
        out.print(f"connected to {node} in {_ms(start)}", markup=False)
        for _ in range(count):
            start = time.perf_counter()
            if not own.ping_sync(node, timeout):
                raise fail(f"pang: {node} does not answer")
            out.print(f"pong from {node} in {_ms(start)}", markup=False)


def _ms(start: float) -> str:
    return f"{(time.perf_counter() - start) * 1e3:.2f} ms"


def _parse(text: str) -> Any:
    try:
        return etf.parse(text)
    except ValueError as e:
        raise fail(
            f"not a term in Erlang's notation: {text}\n{e}\n"
            "Examples: 42  ok  'Quoted atom'  <<\"binary\">>  [1,2]  {ok,#{a => 1}}",
            2,
        ) from None


def call(
    node: Target,
    module: Annotated[
        str,
        typer.Argument(help="A module; with --gen-server a registered name.", show_default=False),
    ],
    function: Annotated[
        str,
        typer.Argument(
            help="A function, or with --gen-server the request, a term.", show_default=False
        ),
    ],
    args: Annotated[
        list[str] | None,
        typer.Argument(help="Arguments, each a term in Erlang's notation.", show_default=False),
    ] = None,
    gen_server: Annotated[
        bool, typer.Option("--gen-server", "-g", help="Call a gen_server instead of a function.")
    ] = False,
    timeout: Timeout = 5.0,
    name: Name = None,
    cookie: Cookie = None,
    epmd_port: EpmdPort = None,
) -> None:
    """Call a function, or a gen_server, and print what it answers in Erlang's notation.

    router call shop@127.0.0.1 lists seq 1 10

    router call shop@127.0.0.1 maps get a '#{a => 1}'

    router call shop@127.0.0.1 prices '{price,<<"apple">>}' --gen-server
    """
    terms = [_parse(text) for text in args or []]
    request = _parse(function) if gen_server else None
    if gen_server and terms:
        raise fail("with --gen-server there is one request, a term", 2)
    with node_for(node, name, cookie, epmd_port) as own:
        try:
            with working(f"calling {node}"):
                own.connect_sync(node, timeout)
                if gen_server:
                    result = own.call_sync((module, node), request, timeout)
                else:
                    result = own.rpc_sync(node, module, function, terms, timeout)
        except RemoteError as e:
            stack = f"\n{etf.format(e.stacktrace)}" if e.stacktrace else ""
            raise fail(f"{node} answered {e.class_}: {etf.format(e.reason)}{stack}") from None
        out.print(etf.format(result), markup=False)


_QUESTIONS: tuple[tuple[str, str, str, list[Any]], ...] = (
    ("release", "erlang", "system_info", [etf.Atom("otp_release")]),
    ("schedulers", "erlang", "system_info", [etf.Atom("schedulers_online")]),
    ("processes", "erlang", "system_info", [etf.Atom("process_count")]),
    ("ports", "erlang", "system_info", [etf.Atom("port_count")]),
    ("atoms", "erlang", "system_info", [etf.Atom("atom_count")]),
    ("run queue", "erlang", "statistics", [etf.Atom("run_queue")]),
    ("memory, bytes", "erlang", "memory", [etf.Atom("total")]),
    ("nodes", "erlang", "nodes", []),
    ("hidden nodes", "erlang", "nodes", [etf.Atom("hidden")]),
)


def _ask(own: Node, node: str, timeout: float) -> dict[str, str]:
    found = {}
    for label, module, function, args in _QUESTIONS:
        answer = own.rpc_sync(node, module, function, list(args), timeout)
        charlist = label == "release" and isinstance(answer, list)
        found[label] = bytes(answer).decode() if charlist else etf.format(answer)
    return found


def stats(
    node: Target,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    timeout: Timeout = 5.0,
    name: Name = None,
    cookie: Cookie = None,
    epmd_port: EpmdPort = None,
) -> None:
    """Show how a node is, and the connection with it.

    An Erlang node answers for itself. A router node answers nothing yet: its
    program shows node.stats().
    """
    with node_for(node, name, cookie, epmd_port) as own:
        with working(f"asking {node}"):
            own.connect_sync(node, timeout)
            try:
                found = _ask(own, node, timeout)
                note = ""
            except RemoteError as e:
                found = {}
                note = (
                    f"{node} answers no questions about itself ({etf.format(e.reason)}): "
                    "router nodes do not yet; their programs have node.stats()"
                )
            row = next(r for r in own.stats() if r["peer"] == node)
        link = {field: row[field].item() for field in row.dtype.names if field != "peer"}
        if as_json:
            out.print(
                json.dumps({"node": node, "about": found, "connection": link, "note": note}),
                markup=False,
            )
            return
        table = Table(title=node, show_header=False, title_justify="left")
        for key, value in found.items():
            table.add_row(key, value)
        if found:
            table.add_section()
        for key, value in link.items():
            table.add_row(
                f"connection: {key}", f"{value:.6f}" if isinstance(value, float) else str(value)
            )
        out.print(table)
        if note:
            out.print(note, markup=False)
