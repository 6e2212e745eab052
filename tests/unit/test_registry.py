"""The registry alone: names and ids for a program's own objects."""

from __future__ import annotations

import copy
import gc
import pickle
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest

import router
from router import Registry


class Thing:
    def __init__(self, number: int = 0) -> None:
        self.number = number
        self.held: object = None


def test_names_and_ids_find_their_object() -> None:
    routes: Registry[Thing] = Registry()
    one, two = Thing(), Thing()
    first, second = routes.register("one", one), routes.register("zwei, drei", two)
    assert first != second and first > 0 and second > 0
    assert routes.whereis("one") is routes.lookup(first) is one
    assert routes.whereis("zwei, drei") is routes.lookup(second) is two
    assert routes.id_of("one") == first and routes.name_of(second) == "zwei, drei"
    assert routes.whereis("three") is None and routes.id_of("three") is None
    assert routes.lookup(0) is None and routes.name_of(0) is None
    assert routes.lookup(2**64 - 1) is None and routes.lookup(first + 2**32) is None
    assert "one" in routes and "three" not in routes and 1 not in routes
    assert len(routes) == 2
    assert repr(routes) == "<router.Registry of 2>"


def test_an_id_that_is_gone_finds_nobody_though_its_slot_serves_again() -> None:
    routes: Registry[Thing] = Registry(limit=1)
    ids = []
    for number in range(100):
        ids.append(routes.register("only", Thing(number)))
        assert [routes.lookup(i) is not None for i in ids] == [False] * number + [True]
        assert routes.unregister("only")
    assert len(set(ids)) == 100
    assert len({i & 0xFFFFFFFF for i in ids}) == 1, "one slot served them all"
    assert routes.unregister("only") is False


def test_a_taken_name_stays_whose_it_is() -> None:
    routes: Registry[Thing] = Registry(limit=2)
    thing = Thing()
    first = routes.register("name", thing)
    with pytest.raises(router.NameTaken, match="name"):
        routes.register("name", Thing())
    assert routes.lookup(first) is thing and len(routes) == 1
    routes.register("other", Thing())
    with pytest.raises(router.RouterError, match="cannot register"):
        routes.register("third", Thing())
    assert len(routes) == 2 and "third" not in routes


@pytest.mark.parametrize("name", ["a", "x" * 255, "é" * 255, "\U0001f40d" * 255, "a\0b", "\0"])
def test_any_name_of_up_to_255_characters(name: str) -> None:
    routes: Registry[Thing] = Registry()
    thing = Thing()
    i = routes.register(name, thing)
    assert routes.whereis(name) is thing and routes.name_of(i) == name
    assert routes.names() == [name]


@pytest.mark.parametrize(
    ("name", "error"),
    [("", ValueError), ("x" * 256, ValueError), ("\ud800", ValueError), (b"x", TypeError)],
)
def test_a_bad_name_is_refused_and_nothing_is_entered(name: object, error: type) -> None:
    routes: Registry[Thing] = Registry()
    with pytest.raises(error):
        routes.register(name, Thing())  # type: ignore[arg-type]
    assert len(routes) == 0 and routes.names() == []


def test_asking_for_a_name_that_cannot_be_is_not_an_error() -> None:
    routes: Registry[Thing] = Registry()
    for name in ("", "x" * 300, "x" * 100_000):
        assert routes.whereis(name) is None and name not in routes
        assert routes.unregister(name) is False
    with pytest.raises(TypeError, match="a name is a str, not int"):
        routes.whereis(1)  # type: ignore[arg-type]


def test_bad_arguments_say_what_was_expected() -> None:
    with pytest.raises(ValueError, match="limit is from 1"):
        Registry(limit=0)
    with pytest.raises(ValueError, match="limit is from 1"):
        Registry(limit=1 << 40)
    with pytest.raises(TypeError, match="limit is an int"):
        Registry(limit=1.5)  # type: ignore[arg-type]
    routes: Registry[Thing] = Registry()
    with pytest.raises(TypeError, match="None cannot be registered"):
        routes.register("nobody", None)  # type: ignore[arg-type]
    for bad in (-1, 1 << 64):
        with pytest.raises(OverflowError):
            routes.lookup(bad)
    with pytest.raises(TypeError):
        routes.lookup("x")  # type: ignore[arg-type]
    for copier in (copy.copy, pickle.dumps):
        with pytest.raises(TypeError):
            copier(routes)


def filled(n: int) -> tuple[Registry[Thing], list[Thing], np.ndarray]:
    routes: Registry[Thing] = Registry()
    things = [Thing(i) for i in range(n)]
    ids = np.array([routes.register(f"thing {t.number}", t) for t in things], dtype=np.uint64)
    return routes, things, ids


def test_lookup_many_finds_what_lookup_finds() -> None:
    routes, things, ids = filled(3000)
    for number in range(0, 3000, 7):
        routes.unregister(f"thing {number}")
    asked = np.random.default_rng(1).permutation(np.concatenate([ids, ids, [0, 1 << 63]]))
    asked = asked.astype(np.uint64)
    found, slots = routes.lookup_many(asked), routes.lookup_many(asked, out="slot")
    assert found.dtype == object and slots.dtype == np.int64
    assert found.shape == slots.shape == asked.shape
    for i, obj, slot in zip(asked.tolist(), found, slots.tolist(), strict=True):
        assert obj is routes.lookup(i)
        assert slot == (-1 if obj is None else i & 0xFFFFFFFF)
    assert sum(obj is None for obj in found) == 2 * len(range(0, 3000, 7)) + 2
    assert things[1] in found.tolist()


def test_slots_index_arrays_of_ones_own() -> None:
    routes, _, ids = filled(100)
    slots = routes.lookup_many(ids, out="slot")
    assert slots.min() >= 1 and slots.max() <= 100 and len(set(slots.tolist())) == 100


def test_lookup_many_takes_views_and_refuses_the_rest() -> None:
    routes, things, ids = filled(10)
    assert routes.lookup_many(ids[::-3]).tolist() == things[::-3]
    assert routes.lookup_many(ids[:0]).tolist() == []
    readonly = ids.copy()
    readonly.flags.writeable = False
    assert routes.lookup_many(readonly, out="object").tolist() == things
    for bad in ([1, 2], ids.astype(np.int64), ids.astype(">u8"), ids.astype(float)):
        with pytest.raises(TypeError, match="numpy array of uint64"):
            routes.lookup_many(bad)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="one dimension, not 2"):
        routes.lookup_many(ids.reshape(2, 5))
    with pytest.raises(ValueError, match="'names'"):
        routes.lookup_many(ids, out="names")  # type: ignore[call-overload]


def test_references_are_counted_right() -> None:
    routes, things, ids = filled(600)
    before = [sys.getrefcount(t) for t in things]
    found = routes.lookup_many(ids)
    assert [sys.getrefcount(t) for t in things] == [n + 1 for n in before]
    del found
    routes.items()
    routes.names()
    for i in ids.tolist():
        routes.lookup(i)
    assert [sys.getrefcount(t) for t in things] == before
    with pytest.raises(router.NameTaken):
        routes.register("thing 3", things[4])
    for number in range(600):
        routes.unregister(f"thing {number}")
    assert [sys.getrefcount(t) for t in things] == [n - 1 for n in before]
    none = sys.getrefcount(None)
    for _ in range(100):
        routes.lookup_many(ids)
    assert abs(sys.getrefcount(None) - none) < 100


def test_a_snapshot_is_of_one_moment() -> None:
    routes, things, ids = filled(50)
    assert dict(routes.items()) == {f"thing {t.number}": t for t in things}
    assert routes.names() == list(routes) == [name for name, _ in routes.items()]
    assert [routes.name_of(i) for i in routes.ids().tolist()] == routes.names()
    assert sorted(routes.ids().tolist()) == sorted(ids.tolist())
    for name in routes:
        routes.unregister(name)
    assert len(routes) == 0 and routes.names() == [] and routes.ids().tolist() == []


def test_what_runs_while_a_snapshot_is_made_may_change_the_registry() -> None:
    """A collection of garbage in the middle of it registers, and must not wait for a lock."""
    routes: Registry[Thing] = Registry()
    for number in range(2000):
        routes.register(f"{number}", Thing(number))
    ran = []

    class Trash:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            ran.append(routes.unregister(f"{len(ran)}"))
            routes.register(f"new {len(ran)}", Thing())

    threshold = gc.get_threshold()
    gc.set_threshold(5)
    try:
        for _ in range(20):
            Trash()
            names = routes.names()
            assert len(names) == len(set(names)) == 2000
            assert len(routes.items()) == len(routes.ids()) == 2000
    finally:
        gc.set_threshold(*threshold)
    gc.collect()
    assert len(ran) == 20 and all(ran)


def test_what_unregistering_sets_free_may_use_the_registry() -> None:
    routes: Registry[object] = Registry()
    seen: list[object] = []

    class Watcher:
        def __del__(self) -> None:
            seen.extend([routes.whereis("watcher"), routes.unregister("watcher"), len(routes)])
            routes.register("watcher", 1)

    i = routes.register("watcher", Watcher())
    assert routes.unregister("watcher")
    assert seen == [None, False, 0]
    assert routes.whereis("watcher") == 1 and routes.lookup(i) is None


def test_a_registry_in_a_circle_is_collected() -> None:
    routes: Registry[Thing] = Registry()
    thing = Thing()
    thing.held = routes
    routes.register("thing", thing)
    gone = weakref.ref(thing), weakref.ref(routes)
    del routes, thing
    gc.collect()
    assert [ref() for ref in gone] == [None, None]


def test_threads_share_it() -> None:
    routes: Registry[int] = Registry()
    fixed = np.array([routes.register(f"fixed {k}", k) for k in range(500)], dtype=np.uint64)
    stop = threading.Event()
    problems: list[str] = []

    def change(number: int) -> None:
        k = 0
        while not stop.is_set():
            k += 1
            i = routes.register(f"{number}", k)
            if routes.lookup(i) != k or not routes.unregister(f"{number}"):
                problems.append(f"{number}: {k}")
            if routes.lookup(i) is not None:
                problems.append(f"{number}: {k} is still there")

    def read() -> None:
        want = [int(i) & 0xFFFFFFFF for i in fixed]
        for _ in range(300):
            if routes.lookup_many(fixed, out="slot").tolist() != want:
                problems.append("slots")
            if routes.lookup_many(fixed).tolist() != list(range(500)):
                problems.append("objects")

    changers = [threading.Thread(target=change, args=(n,)) for n in range(3)]
    readers = [threading.Thread(target=read) for _ in range(2)]
    for thread in changers + readers:
        thread.start()
    for thread in readers:
        thread.join()
    stop.set()
    for thread in changers:
        thread.join()
    assert problems == []
    assert len(routes) == 500


def test_memory_follows_the_entries_down() -> None:
    """In a process of its own: 300,000 entries come and go, and so does their memory."""
    program = """
import gc
from router import Registry

def pages():
    gc.collect()
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * 4096

routes = Registry()
empty = pages()
for k in range(300_000):
    routes.register(f"a service with a name of some length, number {k}", True)
full = pages()
for k in range(300_000):
    routes.unregister(f"a service with a name of some length, number {k}")
left = pages()
assert len(routes) == 0
print(full - empty, left - empty)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    full, left = map(int, done.stdout.split())
    assert full > 300_000 * 128
    # The hash table stays, 4 bytes for each of up to two buckets a name, twice.
    assert left < 8 << 20, f"{left} of {full} bytes stayed"
