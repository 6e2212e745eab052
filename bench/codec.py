"""`codec`: encode and decode of the documents, in one process."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

from bench import report
from bench.documents import DOCUMENTS, MISSING, arrays, libraries, plain
from bench.inline import PER_CALL, per_call
from bench.measure import BenchError, Run, compare
from router import etf

__all__ = ["measure"]


def _work(call: Callable[[Any], Any], argument: Any) -> Callable[[int], None]:
    def work(n: int) -> None:
        for _ in range(n):
            call(argument)

    return work


def measure(
    quick: bool, say: report.Say, *, count: int = 7, wanted: report.Wanted = report.everything
) -> report.Document:
    document = report.Document("codec")
    seconds = 0.004 if quick else 0.03
    for name, why in MISSING.items():
        document.failed(BenchError(why), name, "encode and decode", 0, PER_CALL)
    for chosen in DOCUMENTS:
        found = libraries(chosen)
        ours = [library.name for library in found if library.name.startswith("router")]
        peers = [library.name for library in found if library.name not in ours]
        # Both of ours beside the fastest peer, the one with text beside the others.
        both = "msgspec.msgpack"
        pairs = [(mine, both) for mine in ours if both in peers]
        pairs += [(ours[-1], peer) for peer in peers if peer != both]
        data = {library.name: library.encode(chosen.value) for library in found}
        for library in found:
            if plain(library.decode(data[library.name])) != plain(library.expected):
                raise AssertionError(f"{library.name} does not give {chosen.name} back")
        for way in ("encode", "decode"):
            path = f"{way}: {chosen.name}"
            here = [(m, p) for m, p in pairs if wanted(path, m, p, len(data[m]))]
            if not here:
                continue
            say(path)
            runs: dict[str, Run] = {}
            for library in found:
                argument = chosen.value if way == "encode" else data[library.name]
                runs[library.name] = per_call(_work(getattr(library, way), argument), seconds)
            gc.collect()
            for mine, peer in here:
                result = compare((mine, runs[mine]), (peer, runs[peer]), pairs=count)
                document.add(result, path, len(data[mine]), PER_CALL)
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
