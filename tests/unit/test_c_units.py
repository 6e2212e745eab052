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
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
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

    def parts(self) -> tuple[str, ...]:
        """Folders of csrc."""
        return tuple(dict.fromkeys((*USUAL, *self.needs)))

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


@dataclass
class Workshop:
    """Compiles and runs on all processors, in the order of the tests that will ask."""

    folder: Path
    pool: ThreadPoolExecutor
    compiled: dict[tuple[str, str], Future[str]] = field(default_factory=dict)
    done: dict[tuple[str, str], Future[str]] = field(default_factory=dict)

    def take_on(self, test: CTest, variant: str) -> None:
        for part in test.parts():
            if (variant, part) not in self.compiled:
                self.compiled[variant, part] = self.pool.submit(self.compile, variant, part)
        self.done[test.source.stem, variant] = self.pool.submit(self.build_and_run, test, variant)

    def sources(self, part: str) -> list[Path]:
        return sorted((CSRC / part).glob("*.c"))

    def compile(self, variant: str, part: str) -> str:
        into = self.folder / variant / part
        into.mkdir(parents=True)
        sources = [str(source) for source in self.sources(part)]
        return run([*CC, *FLAGS, *VARIANTS[variant], "-c", *sources], into) if sources else ""

    def build_and_run(self, test: CTest, variant: str) -> str:
        """Nothing when all went well. What is waited for here was begun before."""
        for part in test.parts():
            if problem := self.compiled[variant, part].result():
                return problem
        into = self.folder / variant
        linked = [str(into / p / f"{s.stem}.o") for p in test.parts() for s in self.sources(p)]
        program = str(into / test.source.stem)
        command = [*CC, *FLAGS, *VARIANTS[variant], str(test.source), *linked, *LIBRARIES]
        return run([*command, "-o", program]) or run([program])


@pytest.fixture(scope="session")
def workshop(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Workshop]:
    """Has begun with every C test of this session."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        shop = Workshop(tmp_path_factory.mktemp("c_units"), pool)
        for item in request.session.items:
            if isinstance(item, pytest.Function) and item.originalname == "test_c_unit":
                test, variant = (item.callspec.params[name] for name in ("test", "variant"))
                assert isinstance(test, CTest) and isinstance(variant, str)
                shop.take_on(test, variant)
        yield shop
        pool.shutdown(cancel_futures=True)


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
def test_c_unit(test: CTest, variant: str, workshop: Workshop) -> None:
    if problem := workshop.done[test.source.stem, variant].result():
        pytest.fail(problem, pytrace=False)
