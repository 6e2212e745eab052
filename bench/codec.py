"""`codec`: encode and decode of the documents, in one process."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

from bench import report
from bench.documents import DOCUMENTS, MISSING, libraries, plain
from bench.inline import PER_CALL, per_call
from bench.measure import BenchError, Run, compare

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
        for way in ("encode", "decode"):
            path = f"{way}: {chosen.name}"
            say(path)
            runs: dict[str, Run] = {}
            sizes: dict[str, int] = {}
            for library in found:
                data = library.encode(chosen.value)
                sizes[library.name] = len(data)
                if plain(library.decode(data)) != plain(library.expected):
                    raise AssertionError(f"{library.name} does not give {chosen.name} back")
                argument = chosen.value if way == "encode" else data
                runs[library.name] = per_call(_work(getattr(library, way), argument), seconds)
            names = list(runs)
            ours = [name for name in names if name.startswith("router")]
            # Both of ours beside the fastest peer, the one with text beside the others.
            both = "msgspec.msgpack"
            pairs = [(mine, both) for mine in ours if both in runs]
            pairs += [(ours[-1], peer) for peer in names if peer not in (*ours, both)]
            gc.collect()
            for mine, peer in pairs:
                if not wanted(path, mine, peer, sizes[mine]):
                    continue
                result = compare((mine, runs[mine]), (peer, runs[peer]), pairs=count)
                document.add(result, path, sizes[mine], PER_CALL)
    return document
