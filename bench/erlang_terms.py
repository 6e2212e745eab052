"""Erlang's own codec as a peer: an `erl` without a node, told over its standard input."""

from __future__ import annotations

import shutil
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from bench import machine
from bench.measure import BenchError, Pieces
from router import etf
from router.etf import Atom

__all__ = ["NAME", "ErlangTerms"]

NAME = "Erlang"
SOURCE = Path(__file__).with_name("peers") / "bench_terms.erl"
# One thread for code, which does not look for work in a loop: its CPU time is the codec's.
FLAGS = ("+S", "1:1", "+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none")


class ErlangTerms:
    def __init__(self) -> None:
        erl, erlc = shutil.which("erl"), shutil.which("erlc")
        if erl is None or erlc is None:
            raise BenchError("no erl on this machine")
        self._folder = tempfile.TemporaryDirectory(prefix="router-bench-")
        subprocess.run([erlc, "-o", self._folder.name, str(SOURCE)], check=True)
        self._process = subprocess.Popen(
            [erl, *FLAGS, "-noinput", "-pa", self._folder.name, "-eval", "bench_terms:main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def _ask(self, *request: Any) -> Any:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        data = etf.encode(request)
        stdin.write(struct.pack(">I", len(data)) + data)
        stdin.flush()
        head = stdout.read(4)
        if len(head) < 4:
            raise BenchError(f"{NAME} ended")
        return etf.decode(stdout.read(*struct.unpack(">I", head)))

    def load(self, name: str, data: bytes) -> None:
        """The term of these bytes, to be encoded and decoded from now on."""
        if self._ask(Atom("load"), name, data) is not True:
            raise BenchError(f"{NAME} does not give {name} back")

    def run(self, way: str, name: str, seconds: float, pieces: int) -> Pieces:
        """A run as `per_call` makes them; its time is the runtime's CPU time."""

        def spent(n: int) -> float:
            begin = machine.cpu_ns(self._process.pid)
            if self._ask(Atom(way), name, n) < n:
                raise BenchError(f"{NAME}: {way} of {name} was not done")
            return (machine.cpu_ns(self._process.pid) - begin) / 1e9

        n = 1
        while (took := spent(n)) < seconds / 4:
            n = max(n * 2, int(n * seconds / max(took, 1e-7) / 2))
        n = max(1, int(n * seconds / took / pieces))

        return Pieces(lambda: spent(n) * 1e6 / n, pieces, n * pieces)

    def __enter__(self) -> ErlangTerms:
        return self

    def __exit__(self, *_: object) -> None:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        stdin.close()
        self._process.wait(10)
        stdout.close()
        self._folder.cleanup()
