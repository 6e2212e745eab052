"""Commands that ask a running node to do something: ping, call."""

from __future__ import annotations

import json
import statistics
import time
from typing import Annotated, Any

import typer

from router import etf
from router.cli.common import (
    AsJson,
    Cookie,
    EpmdPort,
    Name,
    Target,
    Timeout,
    fail,
    node_for,
    out,
    working,
)
from router.cli.terms import json_of, term_of
from router.errors import RemoteError
from router.node import Node

__all__ = ["call", "ping"]


def ping(
    node: Target,
    count: Annotated[int, typer.Option("--count", "-c", min=1, help="How often.")] = 1,
    timeout: Timeout = 7.0,
    name: Name = None,
    cookie: Cookie = None,
    epmd_port: EpmdPort = None,
) -> None:
    """Ask a node whether it is there, as net_adm:ping does. Exits 1 when it is not.

    Examples:

    router ping shop@127.0.0.1

    ROUTER_COOKIE=secret router ping web@backend --count 5
    """
    with node_for(node, name, cookie, epmd_port) as own:
        start = time.perf_counter()
        with working(f"connecting to {node}"):
            own.connect_sync(node, timeout)
        out.print(f"connected to {node} in {_ms(time.perf_counter() - start)}", markup=False)
        times = []
        for _ in range(count):
            start = time.perf_counter()
            with working(f"waiting for {node}"):
                there = own.ping_sync(node, timeout)
            if not there:
                raise fail(
                    f"pang: {node} is connected but did not answer within {timeout:g} s",
                    hint="--timeout gives it longer.",
                )
            times.append(time.perf_counter() - start)
            out.print(f"pong from {node} in {_ms(times[-1])}", markup=False)
        if count > 1:
            low, middle, high = min(times), statistics.median(times), max(times)
            out.print(f"{count} pings: min {_ms(low)}, median {_ms(middle)}, max {_ms(high)}")


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms"


def call(
    node: Target,
    module: Annotated[
        str,
        typer.Argument(
            metavar="MODULE",
            help="A module; with --gen-server the name of a server.",
            show_default=False,
        ),
    ],
    function: Annotated[
        str,
        typer.Argument(
            metavar="FUNCTION",
            help="A function; with --gen-server the request, a term.",
            show_default=False,
        ),
    ],
    args: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ARGS",
            help="Arguments, each a term in Erlang's notation.",
            show_default=False,
        ),
    ] = None,
    gen_server: Annotated[
        bool, typer.Option("--gen-server", "-g", help="Call a gen_server instead of a function.")
    ] = False,
    as_json: AsJson = False,
    timeout: Timeout = 5.0,
    name: Name = None,
    cookie: Cookie = None,
    epmd_port: EpmdPort = None,
) -> None:
    """Call a function (over erpc) or a gen_server, and print what it answers.

    Terms are in Erlang's notation. With --json, strings stand for atoms and
    binaries, arrays for tuples and lists.

    Examples:

    router call shop@127.0.0.1 lists seq 1 10

    router call shop@127.0.0.1 maps get a '#{a => -1}'

    router call web@127.0.0.1 Elixir.String upcase '<<"hello">>'

    router call shop@127.0.0.1 prices --gen-server '{price,<<"apple">>}'
    """
    if gen_server and args:
        raise fail(
            f"with --gen-server there is one request, a term; {len(args)} more came",
            hint="Several things go into a tuple: router call NODE SERVER -g '{put,a,1}'",
            code=2,
        )
    request = term_of(function) if gen_server else None
    terms = [term_of(text) for text in args or []]
    with node_for(node, name, cookie, epmd_port) as own:
        try:
            with working(f"calling {node}"):
                own.connect_sync(node, timeout)
                if gen_server:
                    result = own.call_sync((module, node), request, timeout)
                else:
                    result = own.rpc_sync(node, module, function, terms, timeout)
        except RemoteError as e:
            raise _remote(e, own, node) from None
    _print(result, as_json)


def _print(result: Any, as_json: bool) -> None:
    if not as_json:
        out.print(etf.format(result), markup=False)
        return
    try:
        text = json.dumps(json_of(result))
    except (ValueError, RecursionError) as e:
        reason = "it nests too deep" if isinstance(e, RecursionError) else str(e)
        raise fail(
            f"the answer does not fit JSON: {reason}", hint="It shows without --json."
        ) from e
    out.print(text, markup=False)


def _remote(e: RemoteError, own: Node, node: str) -> typer.Exit:
    lines = [f"{node} answered {e.class_}: {etf.format(e.reason)}"]
    frames = e.stacktrace if isinstance(e.stacktrace, list) else []
    lines += [f"  in {etf.format(frame)}" for frame in frames]
    hint = ""
    if e.reason == "undef":
        hint = "The node has no such function with that many arguments, or cannot load the module."
    elif e.reason == ("erpc", "notsup"):
        hint = "It is not an Erlang node: router nodes serve no functions yet, they take messages."
    return fail("\n".join(lines), hint=hint)
