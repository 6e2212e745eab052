"""Compile and run the C unit tests of tests/c, plain and under sanitizers.

The first line of a test may hold a comment with words for this file:
``/* threads */`` adds a run under the thread sanitizer, ``/* needs: net route */``
links those folders of csrc as well as the usual ones; ``liburing`` adds a run of what is
built without it. The others are built with it where it is installed.
"""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
TESTS = sorted((ROOT / "tests" / "c").glob("test_*.c"))
USUAL = ("base", "term", "dist", "sync", "proc")
CC = os.environ.get("CC", "cc").split()
FLAGS = [
    *["-std=gnu11", "-g", "-O1", "-DRT_DEBUG", "-DRT_TEST_ALLOC"],
    *["-Wall", "-Wextra", "-Werror", f"-I{CSRC}"],
]
LIBURING = runpy.run_path(str(ROOT / "setup.py"), run_name="setup")["URING"]
LIBRARIES = [*LIBURING, "-lz", "-lpthread", "-lm"]
URING = ["-DRT_HAVE_LIBURING"] if LIBURING else []
VARIANTS = {
    "plain": URING,
    "asan": [*URING, "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "tsan": [*URING, "-fsanitize=thread"],
    "bare": [],
}
RUN_SECONDS_MAX = 300

Objects = Callable[[str, str], list[Path]]


@dataclass(frozen=True)
class CTest:
    source: Path
    needs: tuple[str, ...]
    threads: bool
    liburing: bool

    @classmethod
    def of(cls, source: Path) -> CTest:
        with source.open() as text:
            words = text.readline()
        if not words.startswith("/*"):
            words = ""
        needs = re.search(r"needs:([\w ]*)", words)
        threads = re.search(r"\bthreads\b", words) is not None
        liburing = "liburing" in words
        return cls(source, tuple(needs[1].split()) if needs else (), threads, liburing)

    def variants(self) -> list[str]:
        threads = ["tsan"] if self.threads else []
        return ["plain", "asan", *threads, *(["bare"] if self.liburing and LIBURING else [])]


def run(command: list[str], cwd: Path = ROOT) -> str:
    """Run a command. Returns nothing when it went well, else what it said."""
    done = subprocess.run(
        command,
        cwd=cwd,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=RUN_SECONDS_MAX,
        check=False,
    )
    if done.returncode == 0:
        return ""
    said = (done.stdout + done.stderr)[-8000:]
    return f"{' '.join(command)}\nexit status {done.returncode}\n{said}"


def must_run(command: list[str]) -> None:
    if problem := run(command):
        pytest.fail(problem, pytrace=False)


@pytest.fixture(scope="session")
def build_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("c_units")


@pytest.fixture(scope="session")
def objects(build_dir: Path) -> Objects:
    """Give the objects of one folder of csrc in one variant, compiled once."""
    known: dict[tuple[str, str], tuple[list[Path], str]] = {}

    def compile_folder(variant: str, folder: str) -> tuple[list[Path], str]:
        into = build_dir / variant / folder
        into.mkdir(parents=True)
        sources = sorted((CSRC / folder).glob("*.c"))
        command = [*CC, *FLAGS, *VARIANTS[variant], "-c", *map(str, sources)]
        problem = run(command, into) if sources else ""
        return [into / f"{source.stem}.o" for source in sources], problem

    def of(variant: str, folder: str) -> list[Path]:
        key = (variant, folder)
        if key not in known:
            known[key] = compile_folder(variant, folder)
        files, problem = known[key]
        if problem:
            pytest.fail(problem, pytrace=False)
        return files

    return of


def cases() -> list[object]:
    return [
        pytest.param(test, variant, id=f"{test.source.stem}-{variant}")
        for test in map(CTest.of, TESTS)
        for variant in test.variants()
    ]


def test_a_compiler_and_tests_are_there() -> None:
    assert shutil.which(CC[0]), f"no C compiler {CC[0]!r}"
    assert TESTS


@pytest.mark.parametrize(("test", "variant"), cases())
def test_c_unit(test: CTest, variant: str, objects: Objects, build_dir: Path) -> None:
    folders = dict.fromkeys((*USUAL, *test.needs))
    program = build_dir / variant / test.source.stem
    linked = [str(o) for folder in folders for o in objects(variant, folder)]
    must_run(
        [*CC, *FLAGS, *VARIANTS[variant], str(test.source), *linked, *LIBRARIES, "-o", str(program)]
    )
    must_run([str(program)])
