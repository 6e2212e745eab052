"""The report's plots, as SVG. Needs matplotlib; reads the JSON alone."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

__all__ = ["draw"]

OURS = "router"
COLOURS = ("#4c78a8", "#72b7b2", "#b279a2", "#9d755d", "#bab0ac", "#54a24b", "#eeca3b", "#79706e")
OURS_COLOURS = ("#d62728", "#f58518", "#e45756", "#ff9da6")
LINES = ("-", "--", "-.", ":")

mpl.rcParams["svg.fonttype"] = "none"  # text stays text, to be found and selected
mpl.rcParams["svg.hashsalt"] = "router"  # the same figures give the same file
mpl.rcParams["font.size"] = 9

Row = Mapping[str, Any]


def _is_ours(system: str) -> bool:
    return OURS in system


def _svg(figure: Figure) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", bbox_inches="tight", metadata={"Date": None})
    text = out.getvalue()
    return re.sub(r"^.*?(?=<svg)", "", text, flags=re.DOTALL)


def _styles(systems: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Warm colours for router, others for peers, a line style when colours run out."""
    made = {}
    ours = theirs = 0
    for system in systems:
        if _is_ours(system):
            made[system] = (OURS_COLOURS[ours % 4], LINES[ours // 4 % 4])
            ours += 1
        else:
            made[system] = (COLOURS[theirs % 8], LINES[theirs // 8 % 4])
            theirs += 1
    return made


def _size(size: float) -> str:
    if size >= 1 << 20:
        return f"{size / (1 << 20):.3g} MiB"
    return f"{size / 1024:.3g} KiB" if size >= 1024 else f"{size:g} B"


def _by_size(rows: Sequence[Row], path: str) -> str:
    figure = Figure(figsize=(10, 5))
    axes = figure.subplots()
    systems = dict.fromkeys(r["system"] for r in rows)
    for system, (colour, line) in _styles(systems).items():
        points = sorted((r["size"], r["median"]) for r in rows if r["system"] == system)
        width = 2.2 if _is_ours(system) else 1.2
        axes.plot(
            *zip(*points, strict=True),
            color=colour,
            linestyle=line,
            marker="o",
            markersize=4,
            linewidth=width,
            label=system,
        )
    sizes = sorted({r["size"] for r in rows})
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(sizes, [_size(size) for size in sizes])
    axes.set_xlabel("payload")
    axes.set_ylabel("messages a second, at the receiver")
    axes.set_title(path)
    axes.grid(True, which="major", alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return _svg(figure)


def _cost(rows: Sequence[Row], title: str) -> str:
    """Horizontal bars, cheapest on top."""
    ordered = sorted(rows, key=lambda r: r["cpu_us_per_message"], reverse=True)
    figure = Figure(figsize=(10, 0.6 + 0.27 * len(ordered)))
    axes = figure.subplots()
    values = [r["cpu_us_per_message"] for r in ordered]
    colours = ["#d62728" if _is_ours(r["system"]) else "#4c78a8" for r in ordered]
    bars = axes.barh([r["system"] for r in ordered], values, color=colours)
    axes.bar_label(bars, labels=[f"{v:.3g}" for v in values], padding=3)
    axes.set_xscale("log")
    axes.set_xlabel("microseconds of CPU a message, all processes")
    axes.set_title(title)
    axes.margins(x=0.1)
    return _svg(figure)


def _percentiles(rows: Sequence[Row], title: str) -> str:
    systems = list(dict.fromkeys(r["system"] for r in rows))
    units = list(dict.fromkeys(r["unit"] for r in rows))
    figure = Figure(figsize=(10, 0.8 + 0.5 * len(systems)))
    axes = figure.subplots()
    for place, unit in enumerate(units):
        found = {r["system"]: r["median"] for r in rows if r["unit"] == unit}
        where = [i + (place - (len(units) - 1) / 2) * 0.26 for i in range(len(systems))]
        values = [found.get(system, 0.0) for system in systems]
        bars = axes.barh(where, values, height=0.24, label=unit.removeprefix("us "))
        axes.bar_label(bars, labels=[f"{v:,.0f}" for v in values], padding=3, fontsize=7)
    axes.set_yticks(range(len(systems)), systems)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("microseconds, there and back")
    axes.set_title(title)
    axes.legend(frameon=False)
    axes.margins(x=0.1)
    return _svg(figure)


def _forest(comparisons: Sequence[Row]) -> str:
    """Every ratio with its interval; left of the line router costs less."""
    shown = sorted(comparisons, key=lambda c: c["ratios"][c["decides"]]["ratio"], reverse=True)
    figure = Figure(figsize=(10, 0.8 + 0.22 * len(shown)))
    axes = figure.subplots()
    colours = {"ahead": "#1a7f37", "behind": "#cf222e", "too noisy to judge": "#bbbbbb"}
    labels = []
    for place, c in enumerate(shown):
        r = c["ratios"][c["decides"]]
        colour = colours.get(c["verdict"], "#777777")
        axes.plot([r["low"], r["high"]], [place, place], color=colour, linewidth=2)
        axes.plot(r["ratio"], place, "o", color=colour, markersize=4)
        size = f", {_size(c['size'])}" if c["size"] else ""
        labels.append(f"{c['ours']} / {c['peer']} ({c['path']}{size})")
    axes.set_yticks(range(len(shown)), labels, fontsize=7)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlabel("ours over the peer's, with a 95% interval; left of 1 router costs less")
    axes.margins(y=0.02)
    return _svg(figure)


def draw(whole: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(title, svg) of each plot for which there are figures."""
    made = []
    by_name = {d["name"]: d for d in whole["benchmarks"]}
    for name, document in by_name.items():
        if document["comparisons"]:
            title = f"Every comparison at a glance: {name}"
            made.append((title, _forest(document["comparisons"])))
    flow = [
        r
        for r in by_name.get("throughput", {"rows": []})["rows"]
        if r["unit"] == "messages/s" and r["error"] is None
    ]
    for path in dict.fromkeys(r["path"] for r in flow):
        rows = [r for r in flow if r["path"] == path]
        made.append((f"Throughput by size: {path}", _by_size(rows, path)))
    for name in ("throughput", "fanin", "fanout"):
        rows = [
            r
            for r in by_name.get(name, {"rows": []})["rows"]
            if r["unit"] == "messages/s" and r["error"] is None
        ]
        for path in dict.fromkeys(r["path"] for r in rows):
            of_path = [r for r in rows if r["path"] == path]
            least = min(r["size"] for r in of_path)
            chosen = [r for r in of_path if r["size"] == least]
            title = f"Cost per message: {path}, {_size(least)}"
            made.append((title, _cost(chosen, path)))
    trips = [
        r
        for r in by_name.get("latency", {"rows": []})["rows"]
        if r["unit"].startswith("us p") and r["error"] is None
    ]
    for path in dict.fromkeys(r["path"] for r in trips):
        rows = [r for r in trips if r["path"] == path]
        made.append((f"Latency percentiles: {path}", _percentiles(rows, path)))
    return made
