"""Erlang's own codec and process groups as peers: an `erl` without a node, told over its input."""

from __future__ import annotations

import shutil
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from bench import machine
from bench.inline import pieces_of
from bench.measure import TURNS, BenchError, Pieces
from router import etf

__all__ = ["NAME", "Erlang"]

NAME = "Erlang"
SOURCE = Path(__file__).with_name("peers") / "bench_erlang.erl"
# One thread for code, which does not look for work in a loop: its CPU time is the work's.
FLAGS = ("+S", "1:1", "+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none")


class Erlang:
    def __init__(self) -> None:
        erl, erlc = shutil.which("erl"), shutil.which("erlc")
        if erl is None or erlc is None:
            raise BenchError("no erl on this machine")
        self._folder = tempfile.TemporaryDirectory(prefix="router-bench-")
        subprocess.run([erlc, "-o", self._folder.name, str(SOURCE)], check=True)
        self._process = subprocess.Popen(
            [erl, *FLAGS, "-noinput", "-pa", self._folder.name, "-eval", "bench_erlang:main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def ask(self, *request: Any) -> Any:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        data = etf.encode(request)
        stdin.write(struct.pack(">I", len(data)) + data)
        stdin.flush()
        head = stdout.read(4)
        if len(head) < 4:
            raise BenchError(f"{NAME} ended")
        return etf.decode(stdout.read(*struct.unpack(">I", head)))

    def do(self, *request: Any) -> None:
        """A request `{..., N}`, which is answered with N at least."""
        if self.ask(*request) < request[-1]:
            raise BenchError(f"{NAME}: {request[0]} was not done")

    def run(
        self, *request: Any, seconds: float, pieces: int = TURNS, weight: int = 1,
        before: tuple[Any, ...] = (), after: tuple[Any, ...] = (),
    ) -> Pieces:  # fmt: skip
        """A run as `per_call` makes them, of requests without their N; its time is the
        runtime's CPU time."""

        def spent(n: int) -> float:
            if before:
                self.do(*before, n)
            begin = machine.cpu_ns(self._process.pid)
            self.do(*request, n)
            took = machine.cpu_ns(self._process.pid) - begin
            if after:
                self.do(*after, n)
            return took / 1e9

        return pieces_of(spent, seconds, weight, pieces)

    def __enter__(self) -> Erlang:
        return self

    def __exit__(self, *_: object) -> None:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        stdin.close()
        self._process.wait(10)
        stdout.close()
        self._folder.cleanup()
