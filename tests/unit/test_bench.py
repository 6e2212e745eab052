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
    Pieces,
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


def test_pieces_are_taken_in_turns_and_meet_the_same_neighbour() -> None:
    """Everything takes twice as long in phases that end where a side's run would end."""
    done = 0

    def piece(cpu: float) -> float:
        nonlocal done
        done += 1
        return cpu * (2 if (done + 19) // 40 % 2 else 1)

    ours, peer = (Pieces(lambda cpu=cpu: piece(cpu), 20, 20) for cpu in (1.2, 1.0))  # type: ignore[misc]
    found = compare(("ours", ours), ("peer", peer), pairs=3, times=quiet)
    assert found.noise == 1.0 and found.ratios["cpu"] == Ratio(1.2, 1.2, 1.2)
    assert found.quiet and done == 2 * 2 * 3 * 20
    done = 20
    short = Pieces(peer.piece, 3, 3)
    assert short().cpu == 2.0
    mixed = compare(("ours", short), ("peer", lambda: Sample(3, cpu=1.0)), pairs=2, times=quiet)
    assert len(mixed.ours_samples) == 2


@pytest.mark.parametrize(("restless", "verdict"), [(2, "ahead"), (3, "too noisy to judge")])
def test_a_peer_that_is_not_like_itself_runs_again(restless: int, verdict: str) -> None:
    times_two = iter([1.0, 2.0] * 3 * restless + [1.0] * 100)
    peer = ("peer", lambda: Sample(1, cpu=next(times_two)))
    found = compare(("ours", lambda: Sample(1, cpu=0.5)), peer, pairs=3, times=quiet)
    assert (found.noise, found.verdict) == (1.0 if restless < 3 else 0.5, verdict)
    assert next(times_two) == 1.0 and len(found.peer_samples) == 3


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


def test_a_machine_that_stays_stolen_is_too_noisy() -> None:
    ticks = iter(range(0, 10_000, 50))

    def stolen() -> tuple[int, int]:
        now = next(ticks)
        return now, now

    found = compare(
        ("ours", lambda: Sample(1, cpu=1.0)),
        ("peer", lambda: Sample(1, cpu=2.0)),
        pairs=2,
        times=stolen,
    )
    assert (found.noise, found.verdict) == (1.0, "too noisy to judge")
    assert found.ratios["cpu"].ratio == 0.5 and found.repeated > 2 * 2


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


def test_who_takes_turns_shares_a_processor() -> None:
    before = os.sched_getaffinity(0)
    with machine.one_processor():
        mine = os.sched_getaffinity(0)
        code = "import os; print(*os.sched_getaffinity(0))"
        child = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert mine == {int(child.stdout)} and mine <= before
    assert os.sched_getaffinity(0) == before


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
    from bench.peers.control import SHIFT

    with Stage() as stage:
        receiver, sender = stage.actor("router", "receiver0"), stage.actor("router", "sender0")
        dest = f"sink0/{receiver.address}"
        sender.connect(dest)
        receiver.ask("receive", "receive_many", 10, 64, 1, 1)
        sender.ask("send", "send", 10, 64, 1, dest)  # ids of sender 1, not of sender 0
        with pytest.raises(BenchError, match=f"id {1 << SHIFT}, not 0"):
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
        "core", "codec", "registry", "local", "groups", "throughput", "latency",
        "fanin", "fanout", "connections", "pollers", "relay",
    ]  # fmt: skip
    assert "pending" in done.stdout


# Figures


def test_every_figure_names_a_benchmark_and_one_condition() -> None:
    from bench import figures

    found = figures.load()
    assert len(found) > 40
    assert len({(f.name, f.line, f.metric) for f in found}) == len(found)
    assert {f.bench for f in found if not f.pending} >= {"throughput", "latency", "codec", "core"}


@pytest.mark.parametrize(
    "text",
    [
        'name = "x"\nbench = "codec"\nat_most = 1.0\nno_slower = true',
        'name = "x"\nbench = "codec"',
        'name = "x"\nbench = "no such"\nat_most = 1.0',
        'name = "x"\npending = "why"\nat_most = 1.0',
        'name = "x"\nbench = "codec"\nat_most = 1.0\nlimit = "y"',
    ],
)
def test_a_figure_that_says_nothing_clear_is_refused(tmp_path: Path, text: str) -> None:
    from bench import figures

    path = tmp_path / "figures.toml"
    path.write_text(f"[[figure]]\n{text}\n")
    with pytest.raises(ValueError, match="x: "):
        figures.load(path)


@pytest.mark.parametrize(
    ("asked", "found", "verdict"),
    [
        ({"at_most": 0.5}, comparison(Ratio(0.49, 0.4, 0.6)), "holds"),
        ({"at_most": 0.5}, comparison(Ratio(0.51, 0.4, 0.6)), "falls short"),
        ({"at_most": 0.5}, comparison(Ratio(0.49, 0.4, 0.6), noise=1.2), "too noisy to judge"),
        ({"no_slower": True}, comparison(Ratio(1.0, 0.9, 1.05)), "holds"),
        ({"no_slower": True}, comparison(Ratio(0.9, 0.8, 1.06)), "falls short"),
        ({"no_slower": True}, comparison(Ratio(1.0, 0.95, 1.5), decides="rate"), "holds"),
        ({"no_slower": True}, comparison(Ratio(1.2, 0.94, 1.5), decides="rate"), "falls short"),
        ({"at_least": 0.8}, comparison(Ratio(0.8, 0.5, 1.5), decides="rate"), "holds"),
        ({"at_least": 0.8, "metric": "peak"}, comparison(Ratio(1, 1, 1)), "not measured"),
        ({"at_least": 0.8}, None, "not measured"),
    ],
)
def test_a_figure_is_judged(
    asked: dict[str, float], found: Comparison | None, verdict: str
) -> None:
    from bench.figures import Figure, judge

    assert judge(Figure("x", "core", **asked), found).verdict == verdict  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("peer", "limit", "verdict"),
    [
        (1.0, 1.5, ("holds", False)),
        (1.6, 1.09, ("holds", True)),
        (1.6, 1.11, ("falls short", True)),
        (1.6, None, ("falls short", False)),
        (None, 1.0, ("holds", True)),
        (None, None, ("not measured", False)),
    ],
)
def test_near_the_limit_is_enough(
    monkeypatch: pytest.MonkeyPatch,
    peer: float | None,
    limit: float | None,
    verdict: tuple[str, bool],
) -> None:
    from bench import figures

    def run(bench: str, quick: bool, wanted: report.Wanted) -> report.Document:
        document = report.Document(bench)
        for name, ratio in (("peer", peer), ("limit", limit)):
            assert wanted("path", "ours", name, 0)
            if ratio is not None:
                found = Comparison(
                    "ours", name, "cpu", {"cpu": Ratio(ratio, ratio, ratio)}, 1.0, 7, 0
                )
                document.add(found, "path", 0, {"us": "cpu"})
        return document

    monkeypatch.setattr(figures, "run", run)
    figure = figures.Figure(
        "x", "core", "path", "ours", "peer", no_slower=True, limit="limit", limit_at_most=1.1
    )
    found = figures.check([figure])[figure]
    assert (found.verdict, found.by_limit) == verdict
    row = figures._row(figure, [found])
    assert ("of the limit" in row[3]) == verdict[1]


def test_an_absolute_figure_is_judged_by_our_own_median() -> None:
    from bench.figures import Figure, judge

    found = comparison(Ratio(5.0, 4.0, 6.0))
    found.ours_samples = [Sample(1, cpu=value) for value in (2.0, 3.0, 9.0)]
    figure = Figure("x", "core", metric="cpu", at_most=3.0, absolute=True)
    verdict = judge(figure, found)
    assert (verdict.verdict, verdict.value) == ("holds", 3.0)


@pytest.mark.slow
def test_figures_are_checked_and_recorded(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.figures", "--quick", "--runs", "2"]
    command += ["--results", str(tmp_path), "an array five times", "relay"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = [json.loads(x) for x in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [line["run"] for line in lines] == [1, 1, 1, 2, 2, 2], done.stderr
    assert {line["verdict"] for line in lines} <= {"holds", "pending", "too noisy to judge"}
    assert "pending 1" in done.stdout


def test_a_figure_that_nobody_promised_is_said(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.figures", "--results", str(tmp_path), "no such thing"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "no figure says 'no such thing'" in done.stderr


# The core in C


def test_a_unit_is_no_competitor() -> None:
    found = comparison(Ratio(5.0, 4.0, 6.0))
    found.unit = True
    assert found.verdict == "times"


def test_work_that_goes_wrong_is_an_error() -> None:
    from bench import native

    with native.Context() as context:
        packet = context.make(native.library(), "wire", b"b@127.0.0.1", 7)
        with pytest.raises(AssertionError, match="wire_scan: 0 of 3 went right"):
            native.library().work("wire_scan", packet)(3)  # there is no packet yet


def test_a_peer_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from bench import native

    monkeypatch.setattr(native, "URCU", ["-lurcu-no-such-library"])
    native.lfht.cache_clear()
    try:
        with pytest.raises(BenchError, match="liburcu is not installed: apt-get"):
            native.lfht()
    finally:
        native.lfht.cache_clear()


def test_the_core_is_measured_in_one_process() -> None:
    """Every case once, whatever it costs; the peer only where liburcu is installed."""
    from bench import core, native

    with native.Context() as context:
        names = [f"{path}: {what}" for path, what, work, _ in core.cases(context, 1000)
                 if work(100) is None]  # fmt: skip
    assert "registry of 1,000: pid lookup, random" in names
    assert "wire: packet to popped message" in names


# Instructions


DUMP = """\
# callgrind format
desc: Trigger: Client Request: encode: x

fl=(1) a.c
fn=(1) outer
10 100
+2 20
cfn=(2) inner
calls=3 40
+1 9999

fn=(2)
5 7
fn=(3) recursive'2
6 3
"""


def test_a_dump_is_read_without_what_was_called(tmp_path: Path) -> None:
    from bench import instructions

    path = tmp_path / "dump.1"
    path.write_text(DUMP)
    case, found = instructions._read(path)
    assert case == "encode: x"
    assert found == {"outer": 120, "inner": 7, "recursive": 3}


def test_what_moved_is_named() -> None:
    from bench.instructions import Counted, compare

    before = {"same": Counted(100, {"f": 90}), "worse": Counted(100, {"f": 60, "g": 40})}
    before |= {"gone": Counted(1, {}), "better": Counted(100, {"f": 100})}
    now = {"same": Counted(101, {"f": 91}), "worse": Counted(110, {"f": 60, "h": 50})}
    now |= {"new": Counted(1, {}), "better": Counted(90, {"f": 90})}
    rows = {row[0]: row[4:] for row in compare(before, now).rows}
    assert rows["same"] == ("", "") and rows["new"] == ("new", "") and rows["gone"] == ("gone", "")
    assert rows["worse"] == ("more", "h +50, g -40") and rows["better"] == ("fewer", "f -10")


def test_the_baseline_has_every_case() -> None:
    from bench import core, instructions, native
    from bench.documents import DOCUMENTS

    known = json.loads(instructions.BASELINE.read_text())["cases"]
    wanted = {f"{way}: {d.name}" for d in DOCUMENTS for way in ("encode", "decode")}
    with native.Context() as context:
        wanted |= {f"{path}: {what}" for path, what, _, _ in core.cases(context, 1000)}
    assert wanted <= known.keys()
