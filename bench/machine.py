"""What the figures were taken on, and what the kernel says about the processes that take part."""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib.metadata
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

__all__ = [
    "commit",
    "cpu_ns",
    "describe",
    "free_port",
    "is_debug_build",
    "one_processor",
    "peak_bytes",
    "processor_times",
    "reset_peak",
    "resident_bytes",
    "stolen",
]

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (
    "aiofastnet",
    "matplotlib",
    "msgpack",
    "msgspec",
    "numpy",
    "orjson",
    "ormsgpack",
    "pytest-benchmark",
    "pyzmq",
    "uvloop",
)

_libc = ctypes.CDLL(None, use_errno=True)


def cpu_ns(pid: int) -> int:
    """CPU time, user and system, of all threads of a process, ended ones too, in nanoseconds.

    The process's own CPU-time clock: /proc/<pid>/stat holds the same sum, in steps
    of 10 ms, which is longer than a short run.
    """
    clock = ctypes.c_int()
    rc = _libc.clock_getcpuclockid(pid, ctypes.byref(clock))
    if rc != 0:
        raise ProcessLookupError(rc, os.strerror(rc), str(pid))
    return time.clock_gettime_ns(clock.value)


def reset_peak(pid: int) -> None:
    """Peak memory of the process counts from now on."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _status_bytes(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(f"process {pid} has no {field}")


def peak_bytes(pid: int) -> int:
    """The most resident memory since `reset_peak`."""
    return _status_bytes(pid, "VmHWM")


def resident_bytes(pid: int) -> int:
    """Resident memory now, counted page by page: the counters of `status` lag behind."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(f"process {pid} has no memory")


def processor_times() -> tuple[int, int]:
    """(stolen, all) ticks of all processors since boot; `all` counts idle ones too."""
    line = Path("/proc/stat").read_text().partition("\n")[0]
    ticks = [int(word) for word in line.split()[1:9]]  # guest time is inside user time
    return ticks[7], sum(ticks)


def stolen(before: tuple[int, int], after: tuple[int, int]) -> float:
    """The share of processor time that the host gave to others between two readings."""
    total = after[1] - before[1]
    return (after[0] - before[0]) / total if total > 0 else 0.0


def free_port() -> int:
    """A TCP port that was free on loopback a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def one_processor() -> Iterator[None]:
    """What runs in here, processes begun in here among it, shares one processor.

    Two processes that take turns are else each on a processor of its own, and so beside a
    neighbour of its own.
    """
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def is_debug_build() -> bool:
    """True when the core was built with assertions: such figures mean nothing."""
    from router import _core

    return b"assertion failed: " in Path(_core.__file__).read_bytes()


def _run(*command: str) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=20, cwd=ROOT, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


@cache
def commit() -> str:
    """The commit that is measured; `+` after it when the tree has changes; "" outside git."""
    name = _run("git", "rev-parse", "--short=12", "HEAD")
    return name + "+" if name and _run("git", "status", "--porcelain", "-uno") else name


@cache
def otp() -> str:
    """The installed Erlang/OTP release, or ""."""
    return _run("erl", "-noshell", "-eval", "io:put_chars(erlang:system_info(otp_release)),halt().")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _first(path: str, pattern: str) -> str:
    try:
        found = re.search(pattern, Path(path).read_text(), re.MULTILINE)
    except OSError:
        return ""
    return found.group(1).strip() if found else ""


def describe() -> dict[str, Any]:
    """Machine, kernel and versions, for the record."""
    from router import __version__

    compiler = shutil.which("cc")
    return {
        "processor": _first("/proc/cpuinfo", r"^model name\s*:\s*(.*)$") or platform.machine(),
        "processors": os.cpu_count() or 0,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": _first("/etc/os-release", r'^PRETTY_NAME="?([^"\n]*)') or platform.system(),
        "kernel": platform.release(),
        "python": sys.version.split()[0],
        "compiler": _run(compiler, "--version").partition("\n")[0] if compiler else "",
        "otp": otp(),
        "load": round(os.getloadavg()[0], 2),
        "router": __version__,
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
    }
