"""Checks what this project promises: `python -m bench.figures [--runs N] [TEXT...]`.

Every figure of figures.toml whose line holds one of the texts (without texts: all) is
measured, in so many consecutive runs, and holds when it held in each. Every run's
verdicts are appended to results/history.jsonl.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import statistics
import sys
import time
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench import machine, report
from bench.__main__ import BENCHES, RESULTS, run
from bench.measure import HIGHER_IS_BETTER, Comparison, Ratio

__all__ = ["Figure", "Verdict", "check", "load", "main"]

FIGURES = Path(__file__).with_name("figures.toml")
LISTS = ("path", "ours", "peer", "size", "metric")
PARITY = 0.05
"""How far the bad end of the interval of "no slower" may be from 1."""

HOLDS, FALLS_SHORT, NOISY, MISSING, PENDING = (
    "holds", "falls short", "too noisy to judge", "not measured", "pending",
)  # fmt: skip


@dataclass(frozen=True)
class Figure:
    name: str
    bench: str = ""
    path: str = ""
    ours: str = ""
    peer: str = ""
    size: int | None = None
    """None: whatever it is."""
    metric: str = ""
    at_most: float | None = None
    at_least: float | None = None
    no_slower: bool = False
    absolute: bool = False
    limit: str = ""
    """Another peer, which nothing can beat: to come near it is enough."""
    limit_at_most: float | None = None
    pending: str = ""

    @property
    def line(self) -> str:
        size = f", {report.size_words(self.size)}" if self.size else ""
        return f"{self.bench}: {self.path}{size}: {self.ours} / {self.peer}"

    @property
    def wants(self) -> str:
        if self.no_slower:
            return "no slower"
        return f"<= {self.at_most:g}" if self.at_most is not None else f">= {self.at_least:g}"

    def matches(self, path: str, ours: str, peer: str, size: int) -> bool:
        same = (self.path, self.ours) == (path, ours) and peer in (self.peer, self.limit)
        return same and self.size in (None, size)

    @property
    def beside_limit(self) -> Figure:
        """What holds too when this falls short."""
        return replace(
            self, peer=self.limit, at_most=self.limit_at_most, at_least=None, no_slower=False,
            limit="",
        )  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    verdict: str
    ratio: Ratio | None = None
    value: float | None = None
    """Our own median, of an absolute figure."""
    by_limit: bool = False
    """Judged, and the ratio taken, beside the figure's limit."""


def _expand(entry: dict[str, Any]) -> Iterator[Figure]:
    listed = [key for key in LISTS if isinstance(entry.get(key), list)]
    for values in itertools.product(*(entry[key] for key in listed)):
        made = entry | dict(zip(listed, values, strict=True))
        if "peer" in made:
            made["peer"] = made["peer"].replace("$ours", made["ours"])
        figure = Figure(**made)
        asked = (figure.at_most is not None) + (figure.at_least is not None) + figure.no_slower
        if bool(figure.limit) != (figure.limit_at_most is not None):
            raise ValueError(f"{figure.name}: both of limit and limit_at_most, or none")
        if asked != (not figure.pending):
            raise ValueError(f"{figure.name}: one of at_most, at_least and no_slower")
        if not figure.pending and figure.bench not in BENCHES:
            raise ValueError(f"{figure.name}: no benchmark {figure.bench!r}")
        yield figure


def load(path: Path = FIGURES) -> list[Figure]:
    entries = tomllib.loads(path.read_text())["figure"]
    return [figure for entry in entries for figure in _expand(entry)]


def judge(figure: Figure, found: Comparison | None) -> Verdict:
    if found is None:
        return Verdict(MISSING)
    metric = figure.metric or found.decides
    ratio = found.ratios.get(metric)
    if ratio is None:
        return Verdict(MISSING)
    value = None
    if figure.absolute:
        value = statistics.median(
            v for s in found.ours_samples if (v := s.value(metric)) is not None
        )
    if not found.quiet:
        return Verdict(NOISY, ratio, value)
    judged = ratio.ratio if value is None else value
    if figure.no_slower and metric in HIGHER_IS_BETTER:
        good = ratio.low >= 1 - PARITY
    elif figure.no_slower:
        good = ratio.high <= 1 + PARITY
    elif figure.at_most is not None:
        good = judged <= figure.at_most
    else:
        assert figure.at_least is not None
        good = judged >= figure.at_least
    return Verdict(HOLDS if good else FALLS_SHORT, ratio, value)


def check(figures: Iterable[Figure], quick: bool = False) -> dict[Figure, Verdict]:
    """One run: every figure once. A comparison that several figures need is taken once."""
    found = {figure: Verdict(PENDING) for figure in figures}
    for bench in dict.fromkeys(f.bench for f in found if not f.pending):
        asked = [f for f in found if f.bench == bench and not f.pending]

        def wanted(path: str, ours: str, peer: str, size: int, asked: list[Figure] = asked) -> bool:
            return any(f.matches(path, ours, peer, size) for f in asked)

        document = run(bench, quick, wanted)
        for figure in asked:
            found[figure] = judge(figure, _comparison(document, figure))
            if figure.limit and found[figure].verdict != HOLDS:
                beside = figure.beside_limit
                instead = judge(beside, _comparison(document, beside))
                if instead.verdict != MISSING:
                    found[figure] = replace(instead, by_limit=True)
    return found


def _comparison(document: report.Document, figure: Figure) -> Comparison | None:
    taken = (
        c
        for c in document.comparisons
        if c.peer == figure.peer and figure.matches(c.path, c.ours, c.peer, c.size)
    )
    return next(taken, None)


def _row(figure: Figure, verdicts: list[Verdict]) -> tuple[str, ...]:
    last = verdicts[-1]
    if figure.pending:
        return (figure.name, figure.pending, "", "", "", PENDING)
    each = {v.verdict for v in verdicts}
    verdict = HOLDS if each == {HOLDS} else next(
        v for v in (FALLS_SHORT, MISSING, NOISY) if v in each
    )  # fmt: skip
    ratio, interval = "-", "-"
    if last.ratio:
        median = statistics.median(v.ratio.ratio for v in verdicts if v.ratio)
        ratio = f"{median:.3f}"
        low = min(v.ratio.low for v in verdicts if v.ratio)
        high = max(v.ratio.high for v in verdicts if v.ratio)
        interval = f"{low:.3f} .. {high:.3f}"
    if any(v.by_limit for v in verdicts):
        ratio += " of the limit"
    if last.value is not None:
        ratio = f"{report.number(last.value)} = {ratio} x"
    held = sum(v.verdict == HOLDS for v in verdicts)
    if len(verdicts) > 1 and verdict != HOLDS:
        verdict += f" ({held} of {len(verdicts)} held)"
    metric = f" ({figure.metric})" if figure.metric else ""
    return (figure.name, figure.line + metric, figure.wants, ratio, interval, verdict)


def _record(history: Path, found: dict[Figure, Verdict], number: int, runs: int) -> None:
    history.parent.mkdir(parents=True, exist_ok=True)
    described = machine.describe()
    common = {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": machine.commit(),
        "machine": {
            k: described[k] for k in ("processor", "processors", "kernel", "python", "load")
        },
        "run": number,
        "of": runs,
    }
    with history.open("a") as file:
        for figure, verdict in found.items():
            asked = {k: v for k, v in asdict(figure).items() if v not in (None, "", False)}
            line = common | {"figure": asked} | asdict(verdict)
            file.write(json.dumps(line) + "\n")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.figures", description=__doc__)
    parser.add_argument("text", nargs="*", help="only figures whose line holds one of these")
    parser.add_argument("--runs", type=int, default=1, help="consecutive runs (1)")
    parser.add_argument("--quick", action="store_true", help="short runs: to see that it works")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of history.jsonl")
    given = parser.parse_args(arguments)
    figures = [
        f
        for f in load()
        if not given.text or any(text in f"{f.name} {f.line}" for text in given.text)
    ]
    if not figures:
        print(f"no figure says {' or '.join(map(repr, given.text))}", file=sys.stderr)
        return 2
    if machine.is_debug_build():
        print("this is a debug build of router: its figures mean nothing", file=sys.stderr)
        return 2
    began = time.monotonic()
    verdicts: dict[Figure, list[Verdict]] = {figure: [] for figure in figures}
    for number in range(1, given.runs + 1):
        print(f"run {number} of {given.runs}", file=sys.stderr)
        found = check(figures, given.quick)
        _record(given.results / "history.jsonl", found, number, given.runs)
        for figure, verdict in found.items():
            verdicts[figure].append(verdict)
    rows = [_row(figure, each) for figure, each in verdicts.items()]
    head = ("figure", "line", "wanted", "median ratio", "95%", "verdict")
    report.show_tables([report.Table(f"{len(rows)} figures", head, rows)])
    counts = {word: sum(row[-1].startswith(word) for row in rows) for word in
              (HOLDS, FALLS_SHORT, NOISY, MISSING, PENDING)}  # fmt: skip
    said = ", ".join(f"{word} {n}" for word, n in counts.items() if n)
    print(f"{said}; {time.monotonic() - began:.0f} s; added to {given.results}/history.jsonl")
    return 0 if counts[HOLDS] + counts[PENDING] == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
