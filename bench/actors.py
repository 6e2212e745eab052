"""The processes that take part: started, commanded, watched, ended."""

from __future__ import annotations

import json
import os
import resource
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from bench import machine
from bench.measure import BenchError

__all__ = ["Actor", "Stage"]

HERE = Path(__file__).resolve().parent
START_SECONDS = 30.0
ANSWER_SECONDS = 90.0
ERLANG_FLAGS = ("+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none")
"""OTP's own advice where CPU time matters: schedulers sleep when they have nothing to do."""
ERLANG_LOGGER = "[{handler,default,logger_std_h,#{config => #{type => standard_error}}}]"
"""Standard output is for answers."""


class Actor:
    """One process. Its answers are read by whoever asked."""

    def __init__(self, kind: str, command: list[str], env: dict[str, str]) -> None:
        self.kind = kind
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `end`
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=env,
            bufsize=0,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._process.stdout, selectors.EVENT_READ)
        self._text = b""
        self.connected: set[str] = set()
        try:
            self.address: str = self.answer(START_SECONDS)["address"]
        except BenchError:
            self.end()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def tell(self, *words: object) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write((" ".join(str(w) for w in words) + "\n").encode())
        except BrokenPipeError:
            raise BenchError(self._explain("ended")) from None

    def answer(self, seconds: float = ANSWER_SECONDS) -> dict[str, Any]:
        """The next answer; raises BenchError with what the process said when there is none."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + seconds
        while b"\n" not in self._text:
            if not self._selector.select(max(0.0, deadline - time.monotonic())):
                raise BenchError(self._explain(f"gave no answer in {seconds:.0f} s"))
            more = os.read(self._process.stdout.fileno(), 1 << 16)
            if not more:
                raise BenchError(self._explain("ended"))
            self._text += more
        line, _, self._text = self._text.partition(b"\n")
        try:
            found: dict[str, Any] = json.loads(line)
        except ValueError:
            raise BenchError(self._explain(f"said {line[:200]!r}")) from None
        if "error" in found:
            raise BenchError(f"{self.kind}: {found['error']}")
        return found

    def ask(self, *words: object) -> dict[str, Any]:
        self.tell(*words)
        return self.answer()

    def connect(self, *dests: str) -> None:
        new = [dest for dest in dests if dest not in self.connected]
        if new:
            self.ask("connect", *new)
            self.connected.update(new)

    def _explain(self, what: str) -> str:
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"{self.kind} {what}" + (f": {said[-1]}" if said else "")

    def end(self) -> None:
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        with suppress(OSError):
            process.stdin.close()
        try:
            process.wait(timeout=3)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        self._selector.close()
        self._errors.close()


class Stage:
    """Starts each kind of process once for each part it plays, and ends them all.

    Its port mapper is private: nodes on it meet nobody else's.
    """

    def __init__(self) -> None:
        self._actors: dict[tuple[str, str], Actor] = {}
        self._failed: dict[str, BenchError] = {}
        self._scratch = tempfile.TemporaryDirectory(prefix="router-bench-")
        self._epmd: subprocess.Popen[bytes] | None = None
        self.epmd_port = machine.free_port()
        path = os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.env = os.environ | {
            "ERL_EPMD_PORT": str(self.epmd_port),
            "HOME": self._scratch.name,
            "PYTHONPATH": path,
            "PYTHONUNBUFFERED": "1",
        }
        self._kinds: dict[str, Callable[[str], list[str]]] = {
            "router": partial(self._router, "uvloop", "auto"),
            "router-asyncio": partial(self._router, "asyncio", "auto"),
            "router-thread": partial(self._router, "uvloop", "thread"),
            "router-uring": partial(self._router, "uvloop", "thread", poller="io_uring"),
            "router-inline": partial(self._router, "uvloop", "inline"),
            "erlang": partial(self._erlang, ERLANG_FLAGS),
            "erlang-spinning": partial(self._erlang, ()),
            "c": lambda part: [str(self._compiled("sink.c"))],
        }
        for loop in ("asyncio", "uvloop", "aiofastnet"):
            for style in ("streams", "buffered"):
                self._kinds[f"{loop}-{style}"] = partial(self._streams, loop, style)

    def __enter__(self) -> Stage:
        # Many connections in one process; whoever is started inherits the limit.
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.clear()
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait()
        self._scratch.cleanup()

    def actor(self, kind: str, part: str) -> Actor:
        """The process of this kind that plays this part, started when there is none yet."""
        if kind in self._failed:
            raise self._failed[kind]
        found = self._actors.get((kind, part))
        if found is None:
            try:
                found = Actor(kind, self._command(kind, part), self.env)
            except (BenchError, OSError) as e:
                error = e if isinstance(e, BenchError) else BenchError(f"{kind}: {e}")
                self._failed[kind] = error
                raise error from None
            self._actors[kind, part] = found
        return found

    def drop(self, *actors: Actor) -> None:
        """Ends these: after an error nobody knows what they still do."""
        for key, actor in list(self._actors.items()):
            if actor in actors:
                del self._actors[key]
                actor.end()

    def clear(self) -> None:
        for actor in self._actors.values():
            actor.end()
        self._actors.clear()

    # kinds ----------------------------------------------------------------------

    def _command(self, kind: str, part: str) -> list[str]:
        name, _, argument = kind.partition("/")
        if name == "pyzmq":
            return self._python("zmq_actor", argument or "1000")
        if name == "router-busy":
            return self._router("uvloop", "auto", part, busy_us=argument or "50")
        return self._kinds[name](part)

    def _python(self, module: str, *words: str) -> list[str]:
        return [sys.executable, "-m", f"bench.peers.{module}", *words]

    def _streams(self, loop: str, style: str, part: str) -> list[str]:
        return self._python("streams_actor", loop, style)

    def _router(
        self, loop: str, engine: str, part: str, poller: str = "auto", busy_us: str = "0"
    ) -> list[str]:
        self._port_mapper()
        name = f"py_{loop}_{engine}_{poller}_{busy_us}_{part}@127.0.0.1"
        return self._python("router_actor", name, loop, engine, poller, busy_us)

    def _erlang(self, flags: tuple[str, ...], part: str) -> list[str]:
        self._port_mapper()
        erl = shutil.which("erl")
        if erl is None or shutil.which("erlc") is None:
            raise BenchError("erlang: no erl on this machine")
        self._compiled("bench_actor.erl")
        name = f"erl{len(flags)}_{part}@127.0.0.1"
        return [
            *(erl, "-noshell", "-name", name, "-setcookie", "bench", "-pa", self._scratch.name),
            *("-kernel", "logger_level", "error", "logger", ERLANG_LOGGER),
            *(*flags, "-s", "bench_actor", "main"),
        ]

    def _compiled(self, source: str) -> Path:
        """The program built from a source of this suite, once."""
        if source.endswith(".erl"):
            made = Path(self._scratch.name, source).with_suffix(".beam")
            command = ["erlc", "-o", self._scratch.name, str(HERE / "peers" / source)]
        else:
            made = Path(self._scratch.name, source).with_suffix("")
            command = ["cc", "-std=gnu11", "-O2", "-o", str(made), str(HERE / "c" / source)]
        if not made.exists():
            try:
                done = subprocess.run(command, capture_output=True, text=True, check=False)
            except OSError as e:
                raise BenchError(f"{command[0]}: {e.strerror}") from None
            if done.returncode:
                raise BenchError(f"{command[0]}: {(done.stderr or done.stdout).strip()[:300]}")
        return made

    def _port_mapper(self) -> None:
        """Erlang's own where there is one; else the first of our nodes serves it."""
        epmd = shutil.which("epmd")
        if self._epmd is not None or epmd is None:
            return
        self._epmd = subprocess.Popen(
            [epmd, "-port", str(self.epmd_port), "-address", "127.0.0.1"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + START_SECONDS
        while True:
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", self.epmd_port), 1).close()
                return
            if time.monotonic() > deadline or self._epmd.poll() is not None:
                raise BenchError("epmd did not start")
            time.sleep(0.01)


class Meter:
    """CPU time and peak memory of some processes between `start` and `stop`."""

    def __init__(self, *groups: list[Actor]) -> None:
        self._groups = groups

    def start(self) -> None:
        for group in self._groups:
            for actor in group:
                machine.reset_peak(actor.pid)
        self._before = self._read()

    def _read(self) -> list[int]:
        return [sum(machine.cpu_ns(actor.pid) for actor in group) for group in self._groups]

    def stop(self) -> tuple[list[float], int]:
        """Microseconds of each group, and bytes of all."""
        spent = [(b - a) / 1e3 for a, b in zip(self._before, self._read(), strict=True)]
        peak = sum(machine.peak_bytes(actor.pid) for group in self._groups for actor in group)
        return spent, peak
