"""The fuzz targets over their committed inputs, under ASan and UBSan, without a fuzzer.

What a fuzzer found becomes an input here (`tests/fuzz/corpus.py add`), and is tried in every run.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from fuzz import corpus, fuzz_codec

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "tests" / "fuzz"
CSRC = ROOT / "csrc"
TARGETS = sorted(path.stem for path in HERE.glob("fuzz_*.c"))
IN_PYTHON = sorted(path.stem for path in HERE.glob("fuzz_*.py"))
CC = os.environ.get("CC", "cc").split()
FLAGS = [
    *["-std=gnu11", "-g", "-O1", "-DRT_DEBUG", "-DRT_TEST_ALLOC"],
    *["-Wall", "-Wextra", "-Werror", f"-I{CSRC}"],
    *["-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
]
USUAL = ["base", "term", "dist"]
FOR_ROUTE = ["sync", "proc", "route"]
RUN_SECONDS_MAX = 120
PACKS_BYTES_MAX = 1_000_000


def run(command: list[str | Path], cwd: Path = ROOT) -> str:
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=RUN_SECONDS_MAX, check=False
    )
    if done.returncode != 0:
        said = (done.stdout + done.stderr)[-8000:]
        pytest.fail(f"{' '.join(map(str, command))}\n{said}", pytrace=False)
    return done.stdout


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that targets call, compiled once."""
    folder = tmp_path_factory.mktemp("fuzz")
    sources = [path for name in USUAL + FOR_ROUTE for path in sorted((CSRC / name).glob("*.c"))]
    run([*CC, *FLAGS, "-c", *sources], folder)
    archive = folder / "library.a"
    run(["ar", "rc", archive, *sorted(folder.glob("*.o"))])
    return archive


def needs(target: str) -> list[str]:
    first = (HERE / f"{target}.c").read_text()[:100]
    return USUAL + (FOR_ROUTE if first.startswith("/* needs: route") else [])


def test_every_target_has_inputs() -> None:
    assert TARGETS and IN_PYTHON == ["fuzz_codec"]
    assert sorted(corpus.SEEDS) == sorted(TARGETS + IN_PYTHON)
    assert {p.stem for p in (HERE / "corpus").glob("*.pack")} == set(corpus.SEEDS)
    assert sum(p.stat().st_size for p in (HERE / "corpus").iterdir()) <= PACKS_BYTES_MAX


@pytest.mark.parametrize("target", TARGETS)
def test_replay(target: str, library: Path, tmp_path: Path) -> None:
    program = tmp_path / target
    sources = [HERE / f"{target}.c", HERE / "replay.c"]
    run([*CC, *FLAGS, *sources, library, "-lz", "-lpthread", "-lm", "-o", program])
    said = run([program, corpus.pack_path(target)])
    assert said == f"{len(corpus.read_pack(target))} inputs\n"
    assert len(corpus.read_pack(target)) > 10


def test_replay_of_the_codec() -> None:
    """In this process: `make sanitize` runs it too."""
    inputs = corpus.read_pack("fuzz_codec")
    assert len(inputs) > 100
    for data in inputs:
        fuzz_codec.one(data)


@pytest.mark.parametrize("target", TARGETS + IN_PYTHON)
def test_what_the_seeds_are_made_from_is_still_there(target: str) -> None:
    """The first inputs, which every corpus grew from, can be made again."""
    seeds = list(corpus.SEEDS[target]())
    assert len(seeds) > 5
    assert all(0 < len(seed) <= 2 * corpus.INPUT_BYTES_MAX for seed in seeds)


def test_a_pack_is_what_was_put_into_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(corpus, "HERE", tmp_path)
    corpus.write_pack("fuzz_scan", [b"bb", b"", b"a", b"bb"])
    assert corpus.read_pack("fuzz_scan") == [b"", b"a", b"bb"]
    corpus.write_files(tmp_path / "files", corpus.read_pack("fuzz_scan"))
    assert sorted(corpus.read_files(tmp_path / "files")) == [b"", b"a", b"bb"]


def test_the_runner_knows_what_targets_need() -> None:
    """tests/fuzz/run.sh reads the same first line."""
    assert re.search(r"needs: route", (HERE / "run.sh").read_text())
    assert [t for t in TARGETS if len(needs(t)) > len(USUAL)] == ["fuzz_inbound"]
