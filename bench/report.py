"""What was measured, for people (tables, one HTML page) and for programs (JSON).

The JSON of one benchmark:

    {"name", "machine", "commit", "rows": [...], "comparisons": [...], "pending"}

A row is one figure of one system: {"system", "path", "size", "unit", "median",
"min", "max", "cpu_us_per_message", "runs", "error"}; size is the payload's bytes.
A comparison is {"ours", "peer", "path", "size", "decides", "ratios": {metric:
{"ratio", "low", "high"}}, "noise", "pairs", "repeated", "verdict"}; ratio is ours
over the peer's, with a 95% interval.
"""

from __future__ import annotations

import html
import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import machine
from bench.measure import BenchError, Comparison, Sample

__all__ = [
    "FLOW",
    "ROUND_TRIP",
    "Document",
    "Say",
    "Table",
    "Wanted",
    "combine",
    "everything",
    "page",
    "show",
    "show_tables",
    "tables",
    "write",
]

Say = Callable[[str], None]
Wanted = Callable[[str, str, str, int], bool]
"""Whether to measure: path, ours, peer, size."""


def everything(path: str, ours: str, peer: str, size: int) -> bool:
    return True


FLOW = {"messages/s": "rate", "bytes of peak memory": "peak"}
ROUND_TRIP = {"us p50": "p50", "us p99": "p99", "us p99.9": "p999"}
METRIC_WORDS = {
    "cpu": "CPU a message",
    "sender_cpu": "sender's CPU",
    "receiver_cpu": "receiver's CPU",
    "rate": "rate",
    "peak": "peak memory",
    "p50": "p50",
    "p99": "p99",
    "p999": "p99.9",
    "mean": "mean",
    "idle": "memory of each",
}


@dataclass
class Document:
    """All that one benchmark found."""

    name: str
    pending: str = ""
    """Why nothing was measured: what has to be there first."""
    comparisons: list[Comparison] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    _samples: dict[tuple[str, str, int], list[Sample]] = field(default_factory=dict)
    _units: dict[tuple[str, str, int], Mapping[str, str]] = field(default_factory=dict)

    def add(self, found: Comparison, path: str, size: int, units: Mapping[str, str]) -> None:
        """units: the unit of each row, and the metric of a sample that it shows."""
        found.path, found.size = path, size
        self.comparisons.append(found)
        for system, samples in ((found.ours, found.ours_samples), (found.peer, found.peer_samples)):
            key = (system, path, size)
            self._samples.setdefault(key, []).extend(samples)
            self._units[key] = units

    def failed(
        self, error: BenchError, system: str, path: str, size: int, units: Mapping[str, str]
    ) -> None:
        row = _row(error.system or system, path, size, next(iter(units)))
        row["error"] = str(error)
        if row not in self.errors:
            self.errors.append(row)

    @property
    def ok(self) -> bool:
        return not self.errors

    def rows(self) -> list[dict[str, Any]]:
        made = []
        for (system, path, size), samples in self._samples.items():
            cpu = [s.cpu for s in samples if s.cpu is not None]
            for unit, metric in self._units[system, path, size].items():
                values = [v for s in samples if (v := s.value(metric)) is not None]
                if not values:
                    continue
                row = _row(system, path, size, unit)
                row |= {
                    "median": statistics.median(values),
                    "min": min(values),
                    "max": max(values),
                    "cpu_us_per_message": statistics.median(cpu) if cpu else None,
                    "runs": len(values),
                }
                made.append(row)
        return made + self.errors

    def as_dict(self) -> dict[str, Any]:
        made: dict[str, Any] = {
            "name": self.name,
            "machine": machine.describe(),
            "commit": machine.commit(),
            "rows": self.rows(),
            "comparisons": [
                {
                    "ours": c.ours,
                    "peer": c.peer,
                    "path": c.path,
                    "size": c.size,
                    "decides": c.decides,
                    "ratios": {
                        metric: {"ratio": r.ratio, "low": r.low, "high": r.high}
                        for metric, r in c.ratios.items()
                    },
                    "noise": c.noise,
                    "pairs": c.pairs,
                    "repeated": c.repeated,
                    "verdict": c.verdict,
                }
                for c in self.comparisons
            ],
            "pending": self.pending,
        }
        return made


def _row(system: str, path: str, size: int, unit: str) -> dict[str, Any]:
    return {
        "system": system,
        "path": path,
        "size": size,
        "unit": unit,
        "median": None,
        "min": None,
        "max": None,
        "cpu_us_per_message": None,
        "runs": 0,
        "error": None,
    }


def combine(documents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One run of all benchmarks, in the same shape; `benchmarks` holds each one."""
    return {
        "name": "all",
        "machine": machine.describe(),
        "commit": machine.commit(),
        "rows": [row for d in documents for row in d["rows"]],
        "comparisons": [c for d in documents for c in d["comparisons"]],
        "pending": "; ".join(d["pending"] for d in documents if d["pending"]),
        "benchmarks": list(documents),
    }


# Tables


@dataclass(frozen=True)
class Table:
    title: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def number(value: float | None) -> str:
    """Three digits that mean something, and thousands apart."""
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def size_words(size: int) -> str:
    for unit, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size:,} B" if size else "-"


def _figure(row: Mapping[str, Any], what: str) -> str:
    value = row[what]
    if value is not None and row["unit"].startswith("bytes"):
        return f"{value / (1 << 20):,.1f} MiB" if value >= 1 << 20 else f"{value / 1024:,.1f} KiB"
    return number(value)


def tables(document: Mapping[str, Any]) -> list[Table]:
    """A table of figures and a table of ratios for each path."""
    made = []
    for path in dict.fromkeys(row["path"] for row in document["rows"]):
        rows = [
            (
                row["system"],
                size_words(row["size"]),
                row["unit"],
                _figure(row, "median"),
                f"{_figure(row, 'min')} .. {_figure(row, 'max')}",
                number(row["cpu_us_per_message"]),
                str(row["runs"]),
            )
            if row["error"] is None
            else (row["system"], size_words(row["size"]), "error", row["error"], "", "", "0")
            for row in document["rows"]
            if row["path"] == path
        ]
        head = ("system", "size", "unit", "median", "min .. max", "CPU us/message", "runs")
        made.append(Table(f"{document['name']}: {path}", head, rows))
        found = [c for c in document["comparisons"] if c["path"] == path]
        if found:
            made.append(_ratios(f"{document['name']}: {path}, ours over the peer's", found))
    return made


def _ratios(title: str, found: list[Mapping[str, Any]]) -> Table:
    rows = []
    for c in found:
        decides = c["ratios"][c["decides"]]
        others = [
            f"{METRIC_WORDS.get(metric, metric)} {r['ratio']:.2f}"
            for metric, r in c["ratios"].items()
            if metric != c["decides"]
        ]
        rows.append(
            (
                c["ours"],
                c["peer"],
                size_words(c["size"]),
                f"{METRIC_WORDS.get(c['decides'], c['decides'])} {decides['ratio']:.2f}",
                f"{decides['low']:.2f} .. {decides['high']:.2f}",
                c["verdict"],
                ", ".join(others),
                f"{c['noise']:.2f}" if c["noise"] is not None else "-",
            )
        )
    head = ("ours", "peer", "size", "ratio", "95%", "verdict", "beside it", "peer/peer")
    return Table(title, head, rows)


def show(document: Mapping[str, Any]) -> None:
    """Prints a document; in colour where rich is installed and the output is a terminal."""
    if document["pending"]:
        print(f"{document['name']}: pending: {document['pending']}")
        return
    show_tables(tables(document))
    described = document["machine"]
    print(
        f"{described['processors']} x {described['processor']}, kernel {described['kernel']}, "
        f"load {described['load']}, commit {document['commit'] or 'unknown'}"
    )
    print("A ratio below 1 means router costs less (for rate: above 1 means it is faster).")


def show_tables(made: Sequence[Table]) -> None:
    try:
        _show_rich(made)
    except ImportError:
        for table in made:
            _show_plain(table)


def _show_plain(table: Table) -> None:
    rows = [table.head, *table.rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(table.head))]
    print(f"\n{table.title}")
    for row in rows:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def _show_rich(made: Sequence[Table]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table as RichTable

    console = Console(width=None if sys.stdout.isatty() else 200)
    colours = {
        "ahead": "green",
        "behind": "red",
        "too noisy to judge": "yellow",
        "fewer": "green",
        "more": "red",
    }
    for table in made:
        shown = RichTable(title=table.title, title_justify="left", row_styles=["", "dim"])
        for place, head in enumerate(table.head):
            shown.add_column(head, overflow="fold", justify="left" if place < 2 else "right")
        for row in table.rows:
            cells = [escape(cell) for cell in row]
            shown.add_row(*(f"[{colours[c]}]{c}[/]" if c in colours else c for c in cells))
        console.print(shown)


# Files


def write(documents: Sequence[dict[str, Any]], folder: Path) -> None:
    """latest.json and report.html."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = combine(documents)
    (folder / "latest.json").write_text(json.dumps(whole, indent=1) + "\n")
    (folder / "report.html").write_text(page(whole))


STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto;
       padding: 0 1rem; }
h1, h2, h3 { line-height: 1.2; } h2 { margin-top: 2.5rem; }
table { border-collapse: collapse; font-size: 13px; margin: .5rem 0 1.5rem; width: 100%; }
th, td { text-align: left; padding: 3px 8px; border-bottom: 1px solid #8884;
         font-variant-numeric: tabular-nums; vertical-align: top; }
figure { margin: 1rem 0; background: white; padding: .5rem; border-radius: 6px; }
figure svg { width: 100%; height: auto; }
.ahead { color: #1a7f37; } .behind { color: #cf222e; font-weight: 600; }
.noisy { color: #9a6700; } .error { color: #cf222e; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 1rem; }
dd { margin: 0; } details { margin: .5rem 0; } summary { cursor: pointer; }
"""
CLASSES = {"ahead": "ahead", "behind": "behind", "too noisy to judge": "noisy", "error": "error"}


def _html_table(table: Table) -> str:
    def cell(tag: str, text: str) -> str:
        kind = f' class="{CLASSES[text]}"' if text in CLASSES else ""
        return f"<{tag}{kind}>{html.escape(text)}</{tag}>"

    head = "".join(cell("th", text) for text in table.head)
    rows = "".join("<tr>" + "".join(cell("td", c) for c in row) + "</tr>" for row in table.rows)
    return (
        f"<h3>{html.escape(table.title)}</h3><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{rows}</tbody></table>"
    )


def _summary(whole: Mapping[str, Any]) -> str:
    """What a person wants to know first: where router loses."""
    by: dict[str, list[Mapping[str, Any]]] = {}
    for c in whole["comparisons"]:
        by.setdefault(c["verdict"], []).append(c)
    counts = ", ".join(f"{verdict} {len(found)}" for verdict, found in sorted(by.items()))
    parts = [f"<p>{len(whole['comparisons'])} comparisons: {html.escape(counts)}.</p>"]
    for verdict, title in (
        ("behind", "Where router loses"),
        ("too noisy to judge", "Could not be judged: the machine was too noisy"),
    ):
        if found := by.get(verdict):
            table = _ratios(title, sorted(found, key=_badness, reverse=True))
            parts.append(_html_table(table))
    errors = [row for row in whole["rows"] if row["error"]]
    if errors:
        parts.append('<h3 class="error">Could not be measured</h3><ul>')
        parts += [
            f"<li>{html.escape(row['system'])}, {html.escape(row['path'])}: "
            f"{html.escape(row['error'])}</li>"
            for row in errors
        ]
        parts.append("</ul>")
    pending = [d for d in whole["benchmarks"] if d["pending"]]
    if pending:
        parts.append("<h3>Pending</h3><ul>")
        parts += [
            f"<li>{html.escape(d['name'])}: {html.escape(d['pending'])}</li>" for d in pending
        ]
        parts.append("</ul>")
    return "".join(parts)


def _badness(comparison: Mapping[str, Any]) -> float:
    ratio: float = comparison["ratios"][comparison["decides"]]["ratio"]
    return ratio


def _taken_on(whole: Mapping[str, Any]) -> str:
    described = dict(whole["machine"])
    versions = described.pop("versions")
    described["commit"] = whole["commit"] or "unknown"
    described["packages"] = ", ".join(f"{name} {version}" for name, version in versions.items())
    rows = "".join(
        f"<dt>{html.escape(k)}</dt><dd>{html.escape(str(v))}</dd>" for k, v in described.items()
    )
    return f"<dl>{rows}</dl>"


def page(whole: Mapping[str, Any]) -> str:
    """One HTML page that needs nothing else."""
    try:
        from bench import plots

        drawn = plots.draw(whole)
    except ImportError as e:
        drawn = [("Plots", f'<p class="error">no plots: {html.escape(str(e))}</p>')]
    figures = "".join(
        f"<h2>{html.escape(title)}</h2><figure>{svg}</figure>" for title, svg in drawn
    )
    details = "".join(
        f"<details><summary>{html.escape(d['name'])}</summary>"
        + "".join(_html_table(t) for t in tables(d))
        + "</details>"
        for d in whole["benchmarks"]
        if d["rows"]
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>router beside its peers</title><style>{STYLE}</style>"
        "<h1>router beside its peers</h1>"
        "<p>Ratios of one run on one machine. CPU time a message, user and system, of all "
        "processes that take part, decides; rates and memory stand beside it. A ratio is ours "
        "over the peer's: below 1, router costs less.</p>"
        f"{_summary(whole)}{figures}<h2>All figures</h2>{details}"
        f"<h2>Taken on</h2>{_taken_on(whole)}</html>\n"
    )
