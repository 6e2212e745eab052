"""`codec`: encode and decode of the documents, in one process."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from bench import machine, report
from bench.documents import DOCUMENTS, MISSING, Document, Library, arrays, libraries, plain
from bench.erlang import NAME as ERLANG
from bench.erlang import Erlang
from bench.inline import PER_CALL, per_call
from bench.measure import BenchError, Run, compare
from bench.native import builder
from router import etf
from router.etf import Atom

__all__ = ["LIMIT", "measure"]

LIMIT = "new objects alone"


def _work(call: Callable[[Any], Any], argument: Any) -> Callable[[int], None]:
    def work(n: int) -> None:
        for _ in range(n):
            call(argument)

    return work


def _document(
    document: report.Document,
    chosen: Document,
    erlang: Erlang | None,
    say: report.Say,
    seconds: float,
    count: int,
    wanted: report.Wanted,
) -> None:
    found = libraries(chosen)
    ours = [library.name for library in found if library.name.startswith("router")]
    peers = [library.name for library in found if library.name not in ours]
    # Both of ours beside the fastest peer and Erlang, the one with text beside the others.
    both = ["msgspec.msgpack"] * ("msgspec.msgpack" in peers) + [ERLANG] * bool(erlang)
    pairs = [(mine, peer) for peer in both for mine in ours]
    pairs += [(ours[-1], peer) for peer in peers if peer not in both]
    data = {library.name: library.encode(chosen.value) for library in found}
    for library in found:
        if plain(library.decode(data[library.name])) != plain(library.expected):
            raise AssertionError(f"{library.name} does not give {chosen.name} back")
    if erlang:
        if erlang.ask(Atom("load"), chosen.name, data[ours[0]]) is not True:
            raise AssertionError(f"{ERLANG} does not give {chosen.name} back")
    for way in ("encode", "decode"):
        path = f"{way}: {chosen.name}"
        asked = pairs + ([(mine, LIMIT) for mine in ours] if way == "decode" else [])
        here = [(m, p) for m, p in asked if wanted(path, m, p, len(data[m]))]
        if not here:
            continue
        say(path)
        runs: dict[str, Run] = {}
        for library in found:
            argument = chosen.value if way == "encode" else data[library.name]
            runs[library.name] = per_call(_work(getattr(library, way), argument), seconds)
        if erlang:
            runs[ERLANG] = erlang.run(Atom(way), chosen.name, seconds=seconds)
        gc.collect()
        for mine, peer in here:
            other = _limit(found, mine, data[mine], seconds) if peer == LIMIT else runs[peer]
            result = compare((mine, runs[mine]), (peer, other), pairs=count)
            document.add(result, path, len(data[mine]), PER_CALL)


def _limit(found: list[Library], mine: str, data: bytes, seconds: float) -> Run:
    """The objects that our decoder gives, made without one."""
    library = next(library for library in found if library.name == mine)
    build, like = builder(), library.decode(data)
    if build(like) != like:
        raise AssertionError(f"{LIMIT}: not what {mine} gives")
    return per_call(_work(build, like), seconds)


def measure(
    quick: bool, say: report.Say, *, count: int = 7, wanted: report.Wanted = report.everything
) -> report.Document:
    document = report.Document("codec")
    seconds = 0.004 if quick else 0.08
    for name, why in MISSING.items():
        document.failed(BenchError(why), name, "encode and decode", 0, PER_CALL)
    with ExitStack() as stack:
        stack.enter_context(machine.one_processor())
        erlang: Erlang | None = None
        try:
            erlang = stack.enter_context(Erlang())
        except BenchError as e:
            document.failed(e, ERLANG, "encode and decode", 0, PER_CALL)
        for chosen in DOCUMENTS:
            _document(document, chosen, erlang, say, seconds, count, wanted)
    for what, array in arrays().items():
        path, ours, peer = f"encode: array of {what}", "router etf, array", "router etf, tolist()"
        as_list = etf.encode(array.tolist())
        if etf.encode(array) != as_list:
            raise AssertionError(f"an array of {what} is not what its list is")
        if wanted(path, ours, peer, len(as_list)):
            say(path)
            mine_, theirs = (
                per_call(_work(call, array), seconds)
                for call in (etf.encode, lambda a: etf.encode(a.tolist()))
            )
            result = compare((ours, mine_), (peer, theirs), pairs=count)
            document.add(result, path, len(as_list), PER_CALL)
    return document
