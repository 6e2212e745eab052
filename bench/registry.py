"""`registry`: router.Registry as a program's routing table, beside Python's dict and numpy.

A dict finds by one key, so its peer for ids is a second dict; what both would cost to keep in
step is not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle, islice
from typing import Any, NamedTuple

import numpy as np

import router
from bench import report
from bench.core import BARE
from bench.inline import PER_CALL, per_call
from bench.measure import Run, compare
from bench.native import Context, bare_read, library

__all__ = ["SIZES", "Case", "Table", "measure"]

SIZES = (1_000, 1_000_000)
BLOCK = 1_000  # names or ids of one piece of work

Work = Callable[[int], None]


class Entry:
    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


class Case(NamedTuple):
    what: str
    ours: Work
    peers: dict[str, Work]
    weight: int
    """How many in each piece of work."""


class Table:
    """The same entries in a registry and in dicts, asked for in one random order."""

    def __init__(self, size: int) -> None:
        self.routes: router.Registry[Entry] = router.Registry(limit=2 * size)
        self.by_name: dict[str, Entry] = {}
        self.by_id: dict[int, Entry] = {}
        entries = [Entry(number) for number in range(size)]
        ids = []
        for entry in entries:
            name = f"service {entry.number}"
            ids.append(self.routes.register(name, entry))
            self.by_name[name] = self.by_id[ids[-1]] = entry
        order = np.random.default_rng(7).permutation(size)
        self.ids = np.array(ids, dtype=np.uint64)[order]
        self.slots = (self.ids & np.uint64(0xFFFFFFFF)).astype(np.int64)
        self.objects = np.empty(2 * size + 1, dtype=object)
        self.objects[1 : size + 1] = entries
        # Other objects than the keys, as names that come from elsewhere are.
        self._names = cycle(_blocks([f"service {number}" for number in order.tolist()]))
        self._ids = cycle(_blocks(self.ids.tolist()))

    def names(self, find: Callable[[str], Entry | None]) -> Work:
        def work(n: int) -> None:
            for block in islice(self._names, n):
                found = [find(name) for name in block]
                if found[-1] is not self.by_name[block[-1]]:
                    raise AssertionError("not the entry of that name")

        return work

    def singly(self, find: Callable[[int], Entry | None]) -> Work:
        def work(n: int) -> None:
            for block in islice(self._ids, n):
                found = [find(i) for i in block]
                if found[-1] is not self.by_id[block[-1]]:
                    raise AssertionError("not the entry with that id")

        return work

    def guests(self, enter: Callable[[str, Entry], object], leave: Callable[[str], object]) -> Work:
        entry = Entry(-1)
        names = [f"guest {number}" for number in range(BLOCK)]

        def work(n: int) -> None:
            for _ in range(n):
                for name in names:
                    enter(name, entry)
                    leave(name)

        return work

    def many(self, find: Callable[[], Any], want: Any) -> Work:
        def work(n: int) -> None:
            for _ in range(n):
                found = find()
            if len(found) != len(want) or found[-1] != want[-1] or found[0] != want[0]:
                raise AssertionError("not what was asked for")

        return work

    def cases(self) -> Iterator[Case]:
        routes, ids, slots, objects = self.routes, self.ids, self.slots, self.objects
        by_name, by_id = self.by_name, self.by_id
        listed, entries = ids.tolist(), objects[slots]
        yield Case("whereis", self.names(routes.whereis), {"dict": self.names(by_name.get)}, BLOCK)
        yield Case("lookup", self.singly(routes.lookup), {"dict": self.singly(by_id.get)}, BLOCK)
        yield Case(
            "register, unregister",
            self.guests(routes.register, routes.unregister),
            {"dict": self.guests(by_name.__setitem__, by_name.__delitem__)},
            BLOCK,
        )
        yield Case(
            "lookup_many, objects",
            self.many(lambda: routes.lookup_many(ids), entries),
            {
                "dict, one by one": self.many(lambda: [by_id.get(i) for i in listed], entries),
                "numpy, objects by slot": self.many(lambda: objects[slots], entries),
            },
            len(ids),
        )
        yield Case(
            "lookup_many, slots",
            self.many(lambda: routes.lookup_many(ids, out="slot"), slots),
            {},
            len(ids),
        )


def _blocks(items: list[Any]) -> Iterator[list[Any]]:
    return (items[i : i + BLOCK] for i in range(0, len(items), BLOCK))


def measure(
    quick: bool, say: report.Say, *, count: int = 7, wanted: report.Wanted = report.everything
) -> report.Document:
    document = report.Document("registry")
    seconds = 0.02 if quick else 0.1
    for size in SIZES:
        path = f"{size:,} entries"
        say(path)
        table = Table(size)
        with Context() as context:
            slots = context.make(library(), "registry", size, 0)
            bare = per_call(bare_read(slots), seconds)
            for case in table.cases():
                name = f"router.Registry: {case.what}"
                peers: dict[str, Run] = {
                    peer: per_call(work, seconds, case.weight)
                    for peer, work in case.peers.items()
                    if wanted(path, name, peer, 0)
                }
                if not case.peers and wanted(path, name, BARE, 0):
                    peers[BARE] = bare
                if not peers:
                    continue
                ours = per_call(case.ours, seconds, case.weight)
                for peer in peers.items():
                    document.add(compare((name, ours), peer, pairs=count), path, 0, PER_CALL)
    return document
