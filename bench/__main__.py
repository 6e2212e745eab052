"""The command line: ``python -m bench NAME [--json] [--quick]``; ``list``; ``all``."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from pathlib import Path
from typing import Protocol

from bench import (
    codec,
    connections,
    core,
    fan,
    groups,
    latency,
    local,
    machine,
    pollers,
    registry,
    relay,
    report,
    throughput,
)

RESULTS = Path(__file__).resolve().parent / "results"


class Measure(Protocol):
    def __call__(
        self, quick: bool, say: report.Say, *, wanted: report.Wanted = ...
    ) -> report.Document: ...


def pending(name: str, why: str) -> Measure:
    return lambda quick, say, *, wanted=report.everything: report.Document(name, pending=why)


BENCHES: dict[str, tuple[str, Measure]] = {
    "core": ("registry, mailbox and frames in C, beside liburcu", core.measure),
    "codec": ("terms to bytes and back, beside serializers", codec.measure),
    "registry": ("router.Registry, beside dict and numpy", registry.measure),
    "local": ("a mailbox of this process, beside queues", local.measure),
    "groups": ("process groups, beside OTP's pg", groups.measure),
    "throughput": ("messages from process to process, by size", throughput.measure),
    "latency": ("round trips, idle and under load", latency.measure),
    "fanin": ("many senders, one process", fan.fan_in),
    "fanout": ("one sender, many processes on many nodes", fan.fan_out),
    "connections": ("connect rate, memory of idle ones, many active", connections.measure),
    "pollers": ("io_uring beside epoll", pollers.measure),
    "relay": ("pending: " + relay.PENDING, pending("relay", relay.PENDING)),
}


def run(name: str, quick: bool, wanted: report.Wanted = report.everything) -> report.Document:
    began = time.monotonic()

    def say(text: str) -> None:
        passed = time.monotonic() - began
        print(f"{passed:5.0f} s  {name}: {text}", file=sys.stderr, flush=True)

    return BENCHES[name][1](quick, say, wanted=wanted)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("name", choices=[*BENCHES, "all", "list"], metavar="NAME")
    parser.add_argument("--json", action="store_true", help="JSON on standard output")
    parser.add_argument(
        "--quick", action="store_true", help="short runs: to see that it works, not to judge"
    )
    parser.add_argument(
        "--results", type=Path, default=RESULTS, help="folder for what `all` writes"
    )
    given = parser.parse_args(arguments)
    if given.name == "list":
        for name, (what, _) in BENCHES.items():
            print(f"{name:12} {what}")
        return 0
    if machine.is_debug_build():
        print("this is a debug build of router: its figures mean nothing", file=sys.stderr)
        return 2
    # Whoever ends this program ends the processes that it started.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    began = time.monotonic()
    names = list(BENCHES) if given.name == "all" else [given.name]
    documents = [run(name, given.quick) for name in names]
    found = [document.as_dict() for document in documents]
    if given.json:
        print(json.dumps(found[0] if given.name != "all" else report.combine(found), indent=1))
    else:
        for shown in found:
            report.show(shown)
    if given.name == "all":
        report.write(found, given.results)
        took = time.monotonic() - began
        print(f"wrote {given.results}/latest.json and report.html; {took:.0f} s", file=sys.stderr)
    for document in documents:
        for row in document.errors:
            print(f"not measured: {row['system']}: {row['error']}", file=sys.stderr)
    return 0 if all(document.ok for document in documents) else 1


if __name__ == "__main__":
    sys.exit(main())
