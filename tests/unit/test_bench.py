"""The benchmark suite: its arithmetic, its report, and one small run of the real thing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import machine, report
from bench.measure import (
    BenchError,
    Comparison,
    Ratio,
    Sample,
    compare,
    percentile,
    ratio_of_medians,
)

ROOT = Path(__file__).resolve().parents[2]
ROW = {
    "system", "path", "size", "unit", "median", "min", "max", "cpu_us_per_message", "runs", "error",
}  # fmt: skip


def quiet() -> tuple[int, int]:
    return 0, 100


def runs(*cpu: float) -> Iterator[Sample]:
    for value in cpu:
        yield Sample(messages=1, cpu=value, rate=1 / value)


@pytest.mark.parametrize(
    ("share", "expected"), [(0.5, 50), (0.99, 99), (0.999, 100), (1.0, 100), (0.0, 1)]
)
def test_percentile_is_a_value_that_was_measured(share: float, expected: int) -> None:
    assert percentile(list(range(100, 0, -1)), share) == expected


def test_percentile_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_the_interval_holds_the_ratio_and_widens_with_the_spread() -> None:
    steady = ratio_of_medians([2.0, 2.1, 1.9, 2.0, 2.0, 2.1, 1.9], [1.0] * 7)
    wild = ratio_of_medians([2.0, 4.0, 1.0, 2.0, 0.5, 3.0, 1.5], [1.0] * 7)
    assert steady.ratio == wild.ratio == 2.0
    assert wild.low <= steady.low <= 2.0 <= steady.high <= wild.high
    assert wild.high - wild.low > 5 * (steady.high - steady.low)


def test_the_interval_keeps_pairs_together() -> None:
    """What slows both sides of a pair says nothing about their ratio."""
    theirs = [1.0, 8.0, 2.0, 5.0, 1.5, 9.0, 3.0]
    found = ratio_of_medians([2 * value for value in theirs], theirs)
    assert (found.low, found.ratio, found.high) == (2.0, 2.0, 2.0)


def test_unequal_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="pairs"):
        ratio_of_medians([1.0], [1.0, 2.0])


def comparison(ratio: Ratio, noise: float | None = 1.0, decides: str = "cpu") -> Comparison:
    return Comparison("ours", "peer", decides, {decides: ratio}, noise, 7, 0)


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (comparison(Ratio(0.5, 0.4, 0.6)), "ahead"),
        (comparison(Ratio(0.9, 0.8, 1.1)), "level"),
        (comparison(Ratio(1.5, 1.1, 1.6)), "behind"),
        (comparison(Ratio(0.5, 0.4, 0.6), noise=1.11), "too noisy to judge"),
        (comparison(Ratio(0.5, 0.4, 0.6), noise=0.9), "too noisy to judge"),
        (comparison(Ratio(0.5, 0.4, 0.6), noise=0.92), "ahead"),
        (comparison(Ratio(0.5, 0.4, 0.6), noise=None), "too noisy to judge"),
        (comparison(Ratio(2.0, 1.5, 3.0), decides="rate"), "ahead"),
        (comparison(Ratio(0.5, 0.4, 0.6), decides="rate"), "behind"),
    ],
)
def test_verdict(found: Comparison, verdict: str) -> None:
    assert found.verdict == verdict


def test_runs_alternate_and_the_peer_runs_against_itself_first() -> None:
    order = []

    def run(name: str, cpu: float) -> Sample:
        order.append(name)
        return Sample(messages=1, cpu=cpu)

    found = compare(
        ("ours", lambda: run("o", 1.0)), ("peer", lambda: run("p", 2.0)), pairs=3, times=quiet
    )
    assert "".join(order) == "pppppp" + "opopop"
    assert found.ratios["cpu"] == Ratio(0.5, 0.5, 0.5)
    assert (found.noise, found.repeated, found.verdict) == (1.0, 0, "ahead")


def test_a_pair_on_a_stolen_machine_is_repeated() -> None:
    # before and after each pair; the second pair of the second half is stolen
    clock = iter([(0, 0), (0, 100)] * 5 + [(0, 100), (6, 200)] + [(0, 0), (0, 100)] * 2)
    mine = runs(1.0, 50.0, 1.0, 1.0)
    found = compare(
        ("ours", lambda: next(mine)),
        ("peer", lambda: Sample(1, cpu=2.0)),
        pairs=4 - 1,
        times=lambda: next(clock),
    )
    assert found.repeated == 1
    assert [s.cpu for s in found.ours_samples] != [50.0]
    assert len(found.ours_samples) == 3


def test_a_machine_that_stays_stolen_is_given_up() -> None:
    ticks = iter(range(0, 10_000, 50))

    def stolen() -> tuple[int, int]:
        now = next(ticks)
        return now, now

    with pytest.raises(BenchError, match="took over 5%"):
        compare(
            ("ours", lambda: Sample(1, cpu=1.0)),
            ("peer", lambda: Sample(1, cpu=1.0)),
            pairs=2,
            times=stolen,
        )


def test_a_figure_that_nobody_gave_is_an_error() -> None:
    with pytest.raises(BenchError, match="no figure for rate"):
        compare(
            ("ours", lambda: Sample(1, cpu=1.0)),
            ("peer", lambda: Sample(1, cpu=1.0)),
            decides="rate",
            pairs=2,
            times=quiet,
        )


def test_cpu_time_of_another_process_is_read() -> None:
    busy = "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass\n"
    code = busy + "print('done', flush=True)\ninput()\n"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None and child.stdin is not None
        child.stdout.readline()
        spent = machine.cpu_ns(child.pid)
        child.stdin.write(b"\n")
    assert 0.2e9 <= spent < 10e9


def test_own_cpu_time_agrees_with_the_interpreters() -> None:
    before = time.process_time_ns()
    assert before <= machine.cpu_ns(os.getpid()) <= time.process_time_ns()


def document() -> report.Document:
    made = report.Document("throughput")
    found = compare(
        ("router send", lambda: Sample(10, cpu=1.0, rate=5e5, peak=1 << 20)),
        ("peer", lambda: Sample(10, cpu=2.0, rate=2e5, peak=1 << 21)),
        pairs=7,
        times=quiet,
    )
    made.add(found, "Python to Python", 64, report.FLOW)
    made.failed(BenchError("no such library"), "absent", "Python to Python", 64, report.FLOW)
    return made


def test_the_json_has_the_promised_shape() -> None:
    made = json.loads(json.dumps(document().as_dict()))
    assert {"name", "machine", "commit", "rows"} <= made.keys()
    assert all(row.keys() == ROW for row in made["rows"])
    (row,) = [r for r in made["rows"] if r["system"] == "router send" and r["unit"] == "messages/s"]
    assert (row["median"], row["min"], row["max"]) == (5e5, 5e5, 5e5)
    assert (row["cpu_us_per_message"], row["runs"], row["error"]) == (1.0, 7, None)
    (absent,) = [r for r in made["rows"] if r["system"] == "absent"]
    assert absent["error"] == "no such library"
    assert {"kernel", "processor", "python", "versions"} <= made["machine"].keys()
    (ratio,) = made["comparisons"]
    assert ratio["verdict"] == "ahead" and ratio["ratios"]["cpu"]["ratio"] == 0.5


def test_what_failed_makes_a_document_not_ok() -> None:
    assert not document().ok
    assert report.Document("relay", pending="later").ok


def test_the_page_stands_alone_and_says_where_we_lose(tmp_path: Path) -> None:
    made = document()
    behind = compare(
        ("router send <b>", lambda: Sample(1, cpu=3.0, rate=1.0)),
        ("fast", lambda: Sample(1, cpu=1.0, rate=3.0)),
        pairs=2,
        times=quiet,
    )
    made.add(behind, "Python to Python", 64, report.FLOW)
    report.write([made.as_dict(), report.Document("relay", pending="why").as_dict()], tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "Where router loses" in page and "no such library" in page and "relay: why" in page
    assert "router send &lt;b&gt;" in page and "<b>" not in page
    assert "src=" not in page and "<script" not in page and "@import" not in page
    latest = json.loads((tmp_path / "latest.json").read_text())
    assert latest["name"] == "all" and len(latest["benchmarks"]) == 2
    assert all(row.keys() == ROW for row in latest["rows"])


def test_the_plain_table_needs_no_library(capsys: pytest.CaptureFixture[str]) -> None:
    for table in report.tables(document().as_dict()):
        report._show_plain(table)
    shown = capsys.readouterr().out
    assert "router send" in shown and "500,000" in shown and "1.0 MiB" in shown


@pytest.mark.slow
def test_throughput_of_some_thousand_messages() -> None:
    """Beside the plain C programs, which need nothing that is not there for the build."""
    from bench import throughput

    said: list[str] = []
    made = throughput.measure(
        True,
        said.append,
        sizes=(64,),
        seconds=0.001,
        count=2,
        wanted=lambda path, ours, peer, size: "plain C" in peer,
    )
    assert made.ok, made.errors
    assert len(said) == 1
    rates = {r["system"]: r for r in made.rows() if r["unit"] == "messages/s"}
    assert rates.keys() == {"router send_many, receive_many", "plain C (limit)"}
    assert all(row["median"] > 0 and row["cpu_us_per_message"] > 0 for row in rates.values())


@pytest.mark.slow
def test_a_receiver_that_gets_the_wrong_message_is_an_error() -> None:
    """Nothing is counted that was not checked."""
    from bench.actors import Stage

    with Stage() as stage:
        receiver, sender = stage.actor("router", "receiver0"), stage.actor("router", "sender0")
        dest = f"sink0/{receiver.address}"
        sender.connect(dest)
        receiver.ask("receive", "receive_many", 10, 64, 1, 1)
        sender.ask("send", "send", 10, 64, 1, dest)  # ids of sender 1, not of sender 0
        with pytest.raises(BenchError, match="id 1099511627776, not 0"):
            receiver.answer()


def test_a_system_that_cannot_start_is_named() -> None:
    from bench.actors import Stage
    from bench.flow import Flow, System

    with Stage() as stage:
        stage._kinds["broken"] = lambda part: [sys.executable, "-c", "raise SystemExit('no zmq')"]
        with pytest.raises(BenchError, match="broken ended: no zmq") as caught:
            Flow(stage, System("a broken one", "broken", "x", "broken", "x"), 64, 0.01)
    assert caught.value.system == "a broken one"


def test_the_command_line_lists_every_benchmark() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "list"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    names = [line.split()[0] for line in done.stdout.splitlines()]
    assert names == [
        "codec", "local", "throughput", "latency", "fanin", "fanout", "connections", "relay",
    ]  # fmt: skip
    assert "pending" in done.stdout
