"""The C programs of bench/c: built once into a library together with csrc, and called."""

from __future__ import annotations

import ctypes
import hashlib
import os
import runpy
import subprocess
import sysconfig
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

from bench.measure import BenchError
from router.etf import Reference

__all__ = [
    "ROOT",
    "Context",
    "Library",
    "bare_read",
    "builder",
    "counting",
    "lfht",
    "library",
    "packets",
    "pollers",
]

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "bench"
FOLDERS = ("base", "term", "dist", "sync", "proc", "route")
OURS = ("primitives.c", "registry.c", "mailbox.c", "wire.c")
PEER = "lfht.c"
# The optimisation that the extension itself is built with.
FLAGS = "-std=gnu11 -O2 -g -fPIC -shared -fvisibility=hidden -pthread -Wall -Wextra".split()
LIBRARIES = ["-lz", "-lm"]
URCU = ["-lurcu-qsbr", "-lurcu-cds", "-lurcu-common"]
URCU_HINT = "liburcu is not installed: apt-get install liburcu-dev"


def _sources() -> list[Path]:
    return [p for folder in FOLDERS for p in sorted((ROOT / "csrc" / folder).glob("*.c"))]


def _compile(name: str, sources: list[Path], more: list[str]) -> Path:
    """A library named after the contents of all it is made of."""
    read = [*sources, ROOT / "bench" / "c" / "bench.h", *sorted((ROOT / "csrc").rglob("*.h"))]
    digest = hashlib.sha256(" ".join([*FLAGS, *more]).encode())
    for path in read:
        digest.update(path.read_bytes())
    made = BUILD / f"{name}-{digest.hexdigest()[:16]}.so"
    if made.exists():
        return made
    BUILD.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD) as scratch:
        half = Path(scratch, made.name)
        compiler = os.environ.get("CC", "cc").split()
        command = [*compiler, *FLAGS, f"-I{ROOT / 'csrc'}", *map(str, sources), "-o", str(half)]
        try:
            done = subprocess.run([*command, *more], capture_output=True, text=True, check=False)
        except OSError as e:
            raise BenchError(f"{compiler[0]}: {e.strerror}") from None
        if done.returncode:
            raise BenchError(f"{compiler[0]}: {done.stderr.strip()[:400]}")
        half.rename(made)
    return made


class Library:
    """Functions by name. A piece of work takes a context and n, and says how many went right."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._dll = ctypes.CDLL(str(path))

    def _function(self, name: str, result: object, *arguments: object) -> Callable[..., object]:
        found = self._dll[name]
        found.restype = result
        found.argtypes = arguments
        return found

    def make(self, name: str, *values: int | bytes) -> int:
        """Calls a function that gives a context."""
        types = [ctypes.c_char_p if isinstance(v, bytes) else ctypes.c_uint32 for v in values]
        return int(str(self._function(name, ctypes.c_void_p, *types)(*values)))

    def end(self, name: str, context: int) -> None:
        self._function(name, None, ctypes.c_void_p)(context)

    def number(self, name: str, context: int, *values: object, types: tuple[object, ...]) -> int:
        made = self._function(name, ctypes.c_uint64, ctypes.c_void_p, *types)(context, *values)
        assert isinstance(made, int)
        return made

    def work(self, name: str, context: int = 0) -> Callable[[int], None]:
        call = self._function(name, ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint64)

        def work(n: int) -> None:
            right = call(context, n)
            if right != n:
                raise AssertionError(f"{name}: {right} of {n} went right")

        return work


class Context(ExitStack):
    """Contexts of a library that end together."""

    def make(self, library: Library, kind: str, *values: int | bytes) -> int:
        found = library.make(f"{kind}_new", *values)
        self.callback(library.end, f"{kind}_free", found)
        return found


def bare_read(table: int) -> Callable[[int], None]:
    """The limit of looking processes of a registry up."""
    work = library().work("registry_bare", table)
    work(1)  # notes the addresses, which is no part of it
    return work


@cache
def library() -> Library:
    """csrc and the programs that measure it."""
    own = [ROOT / "bench" / "c" / name for name in OURS]
    return Library(_compile("ours", [*own, *_sources()], LIBRARIES))


@cache
def pollers() -> Library:
    """Both, with the liburing that the extension itself is built with."""
    csrc = ROOT / "csrc"
    sources = [*sorted(csrc.glob("base/*.c")), *sorted(csrc.glob("net/poller*.c"))]
    sources.append(ROOT / "bench" / "c" / "poller.c")
    liburing: list[str] = runpy.run_path(str(ROOT / "setup.py"), run_name="setup")["URING"]
    return Library(_compile("pollers", sources, ["-DRT_HAVE_LIBURING", *liburing]))


@cache
def lfht() -> Library:
    """liburcu's hash table, behind the same functions."""
    sources = [ROOT / "bench" / "c" / PEER, ROOT / "csrc" / "base" / "hash.c"]
    try:
        return Library(_compile("lfht", sources, URCU))
    except BenchError as e:
        raise BenchError(URCU_HINT if "urcu" in str(e) else str(e)) from None
    except OSError as e:  # the headers are there and the library is not
        raise BenchError(f"{URCU_HINT} ({e})") from None


@cache
def builder() -> Callable[[Any], Any]:
    """Makes an object like its argument: the limit of any decoder."""
    include = f"-I{sysconfig.get_path('include')}"
    path = _compile("builder", [ROOT / "bench" / "c" / "build_objects.c"], [include])
    make = ctypes.PyDLL(str(path)).builder
    make.restype, make.argtypes = ctypes.py_object, [ctypes.py_object]
    found: Callable[[Any], Any] = make(Reference)
    return found


@cache
def counting() -> Path:
    """What speaks with callgrind; to be loaded inside it."""
    try:
        return _compile("callgrind", [ROOT / "bench" / "c" / "callgrind.c"], [])
    except BenchError as e:
        hint = "valgrind is not installed: apt-get install valgrind"
        raise BenchError(hint if "valgrind/" in str(e) else str(e)) from None


def packets(to: int, creation: int, payload: bytes) -> tuple[bytes, bytes]:
    """`{event, 1, payload}` from a@127.0.0.1 to process `to` of b@127.0.0.1, as Erlang writes it:
    the first packet brings three atoms into the cache, the second refers to them.

    Source: Erlang/OTP documentation, erl_dist_protocol, "Distribution Header".
    """
    atoms = (b"a@127.0.0.1", b"b@127.0.0.1", b"event")

    def pid(reference: int, number: int, serial: int, of: int) -> bytes:
        words = b"".join(w.to_bytes(4, "big") for w in (number, serial, of))
        return b"XR" + bytes([reference]) + words

    control = b"h\3a\x16" + pid(0, 100, 0, 7) + pid(1, to & 0xFFFFFFFF, to >> 32, creation)
    term = b"h\3R\2a\1m" + len(payload).to_bytes(4, "big") + payload
    # A nibble for each reference and one for the whole; 8 says that the atom follows.
    first = b"\x83D\3" + b"\x88\x08"
    first += b"".join(bytes([i, len(atom)]) + atom for i, atom in enumerate(atoms))
    return first + control + term, b"\x83D\3\0\0\0\1\2" + control + term
