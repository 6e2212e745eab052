"""Instructions of the codec and of the way of a message, beside a committed baseline.

    python -m bench.instructions [--update]

A clock says something else each time; instructions under `valgrind --tool=callgrind`
hardly differ between two runs, so that a change of some percent shows. They are no
time: a cache miss counts as much as an addition. What moved is also named by function.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import machine, native, report
from bench.measure import BenchError

__all__ = ["main"]

BASELINE = Path(__file__).with_name("instructions.json")
TOLERANCE = 0.02
FUNCTIONS_KEPT = 12
FUNCTIONS_SHOWN = 3
VALGRIND_HINT = "valgrind is not installed: apt-get install valgrind"

Work = Callable[[], None]


@dataclass(frozen=True)
class Counted:
    """Instructions of one operation, and of the functions it spends most in."""

    instructions: float
    functions: dict[str, float]

    @classmethod
    def of(cls, known: dict[str, Any]) -> Counted:
        return cls(known["instructions"], known["functions"])


# What is counted: this part runs inside valgrind


def _repeat(call: Callable[[Any], object], argument: object, n: int) -> Work:
    def work() -> None:
        for _ in range(n):
            call(argument)

    return work


def _cases(context: native.Context) -> Iterator[tuple[str, Work, int]]:
    """(name, work, operations in it)"""
    from bench import core, local
    from bench.documents import DOCUMENTS
    from router import etf

    for document in DOCUMENTS:
        n = 3 if len(etf.encode(document.value)) > 10_000 else 50
        data = etf.encode(document.value)
        yield f"encode: {document.name}", _repeat(etf.encode, document.value, n), n
        yield f"decode: {document.name}", _repeat(etf.decode, data, n), n
    node = local.Local()
    context.callback(node.close)
    yield "node: send, get", lambda: node.singly(1), local.BATCH
    yield "node: send_many, get_many", lambda: node.many(1), local.BATCH
    for path, what, work, _ in core.cases(context, min(core.SIZES)):
        yield f"{path}: {what}", lambda work=work: work(1000), 1000  # type: ignore[misc]


def _inside(names: Path) -> None:
    """Writes the number of operations of each case to `names`; the dumps are callgrind's."""
    helper = ctypes.CDLL(str(native.counting()))
    counts = {}
    with native.Context() as context:
        for name, work, n in _cases(context):
            for _ in range(3):
                work()
            gc.collect()
            gc.disable()
            helper.counting_begin()
            work()
            helper.counting_end(name.encode())
            gc.enable()
            counts[name] = n
    names.write_text(json.dumps(counts))


# What is made of it


def _read(dump: Path) -> tuple[str, Counter[str]]:
    """The name of a dump, and instructions by function, without those of functions called."""
    found: Counter[str] = Counter()
    names: dict[str, str] = {}
    case = function = ""
    after_call = False
    for line in dump.read_text(errors="replace").splitlines():
        if line.startswith("desc: Trigger: Client Request: "):
            case = line.removeprefix("desc: Trigger: Client Request: ")
        elif line.startswith("fn="):
            number, _, name = line[3:].partition(" ")
            function = names.setdefault(number, name)
        elif line.startswith("cfn="):
            number, _, name = line[4:].partition(" ")
            names.setdefault(number, name)
        elif line.startswith("calls="):
            after_call = True
        elif re.match(r"[0-9+*-]", line):
            if not after_call:
                found[re.sub(r"'\d+$", "", function)] += int(line.split()[1])
            after_call = False
    return case, found


def count(say: report.Say) -> dict[str, Counted]:
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise BenchError(VALGRIND_HINT)
    native.counting(), native.library()  # compiled out here, where it is fast
    with tempfile.TemporaryDirectory(prefix="router-bench-") as scratch:
        names = Path(scratch, "names.json")
        command = [
            *(valgrind, "--tool=callgrind", "--instr-atstart=no", "-q"),
            f"--callgrind-out-file={scratch}/dump",
            *(sys.executable, "-m", "bench.instructions", "--inside", str(names)),
        ]
        say("counting (half a minute)")
        done = subprocess.run(
            command,
            env=os.environ | {"PYTHONHASHSEED": "0", "PYTHONMALLOC": "pymalloc"},
            cwd=native.ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode or not names.exists():
            raise BenchError(f"valgrind: {(done.stderr or done.stdout).strip()[-600:]}")
        operations: dict[str, int] = json.loads(names.read_text())
        found = {}
        for dump in Path(scratch).glob("dump.*"):
            case, functions = _read(dump)
            if n := operations.get(case):
                most = {f: v / n for f, v in functions.most_common(FUNCTIONS_KEPT)}
                found[case] = Counted(functions.total() / n, most)
    if missing := operations.keys() - found.keys():
        raise BenchError(f"valgrind: no figures for {', '.join(sorted(missing))}")
    return {case: found[case] for case in operations}


def _tools() -> dict[str, str]:
    described = machine.describe()
    known = {"python": described["python"], "compiler": described["compiler"]}
    known["machine"] = os.uname().machine
    done = subprocess.run(["valgrind", "--version"], capture_output=True, text=True, check=False)
    return known | {"valgrind": done.stdout.strip()}


def moved(before: Counted, now: Counted) -> str:
    """The functions whose share changed most, with by how many instructions."""
    changes = {
        f: now.functions.get(f, 0.0) - before.functions.get(f, 0.0)
        for f in before.functions.keys() | now.functions.keys()
    }
    most = sorted(changes, key=lambda f: abs(changes[f]), reverse=True)[:FUNCTIONS_SHOWN]
    return ", ".join(f"{f} {changes[f]:+,.0f}" for f in most if abs(changes[f]) >= 1)


def compare(before: dict[str, Counted], now: dict[str, Counted]) -> report.Table:
    rows = []
    for case, found in now.items():
        old = before.get(case)
        if old is None:
            rows.append((case, "-", f"{found.instructions:,.0f}", "-", "new", ""))
            continue
        ratio = found.instructions / old.instructions
        verdict = "more" if ratio > 1 + TOLERANCE else "fewer" if ratio < 1 - TOLERANCE else ""
        was, is_ = f"{old.instructions:,.0f}", f"{found.instructions:,.0f}"
        rows.append((case, was, is_, f"{ratio:.3f}", verdict, moved(old, found) * bool(verdict)))
    gone = [(case, "-", "-", "-", "gone", "") for case in before.keys() - now.keys()]
    head = ("what", "baseline", "now", "ratio", "", "where")
    return report.Table("instructions of one operation", head, [*rows, *gone])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.instructions", description=__doc__)
    parser.add_argument("--update", action="store_true", help="make this the baseline")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.inside:
        _inside(given.inside)
        return 0
    if machine.is_debug_build():
        print("this is a debug build of router: its figures mean nothing", file=sys.stderr)
        return 2
    try:
        now = count(lambda text: print(text, file=sys.stderr, flush=True))
    except BenchError as e:
        print(f"not counted: {e}", file=sys.stderr)
        return 2
    tools = _tools()
    known = json.loads(BASELINE.read_text()) if BASELINE.exists() else {"tools": {}, "cases": {}}
    before = {case: Counted.of(found) for case, found in known["cases"].items()}
    table = compare(before, now)
    report.show_tables([table])
    if given.update:
        cases = {
            case: {
                "instructions": round(found.instructions, 1),
                "functions": {f: round(v, 1) for f, v in found.functions.items()},
            }
            for case, found in now.items()
        }
        BASELINE.write_text(json.dumps({"tools": tools, "cases": cases}, indent=1) + "\n")
        print(f"wrote {BASELINE}", file=sys.stderr)
        return 0
    worse = [row[0] for row in table.rows if row[4] == "more"]
    different = {k: (v, tools.get(k)) for k, v in known["tools"].items() if tools.get(k) != v}
    for what, (was, is_) in different.items():
        print(f"{what}: the baseline was taken with {was}, this is {is_}", file=sys.stderr)
    if worse and not different:
        print(f"more instructions than the baseline: {len(worse)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
