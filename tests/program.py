"""The program `router` as a user runs it, for the tests of the command line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

SECONDS_MAX = 60.0


def _environment(env: dict[str, str]) -> dict[str, str]:
    return {**os.environ, "COLUMNS": "120", **env}


def router(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end, with pipes for output."""
    return subprocess.run(
        [sys.executable, "-m", "router", *arguments],
        env=_environment(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )


def worked(*arguments: str, **env: str) -> str:
    """What a command that must work printed; nothing may stand on stderr."""
    done = router(*arguments, **env)
    assert (done.returncode, done.stderr) == (0, ""), done
    assert_plain(done.stdout)
    return done.stdout


def failed(code: int, *arguments: str, **env: str) -> str:
    """What a command that must fail said about it; nothing may stand on stdout."""
    done = router(*arguments, **env)
    assert (done.returncode, done.stdout) == (code, ""), done
    assert "Traceback" not in done.stderr
    assert_plain(done.stderr)
    return done.stderr


def assert_plain(text: str) -> None:
    """A pipe gets no colours, cursor movements or bells."""
    assert not [c for c in text if ord(c) < 32 and c not in "\n\t"], text


def begin(*arguments: str, **env: str) -> subprocess.Popen[str]:
    """Starts a command, whose stdout and stderr are one pipe."""
    return subprocess.Popen(
        [sys.executable, "-m", "router", *arguments],
        env=_environment(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def read_until(process: subprocess.Popen[str], wanted: str) -> str:
    """Reads lines up to the one that holds `wanted`."""
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if wanted in line:
            return "".join(said)
    raise AssertionError(f"ended without {wanted!r}: {''.join(said)}")


def running(word: str) -> list[int]:
    """The processes that have `word` in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if word.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:  # it ended
            continue
    return found


def wait_until_gone(word: str, seconds: float = 20.0) -> None:
    """Fails when they stay, and ends them: `word` names processes of this test alone."""
    deadline = time.monotonic() + seconds
    while left := running(word):
        if time.monotonic() > deadline:
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            raise AssertionError(f"still running: {left}")
        time.sleep(0.02)  # between two looks; what they see decides
