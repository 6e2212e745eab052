"""How two systems are compared: adjacent pairs, medians, intervals, and when not to judge.

A *run* is a function that does the work once and gives a `Sample`. Nothing here
knows what is measured.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench import machine

__all__ = [
    "METRICS",
    "BenchError",
    "Comparison",
    "Pieces",
    "Ratio",
    "Run",
    "Sample",
    "compare",
    "percentile",
    "ratio_of_medians",
]

PAIRS = 7
TURNS = 10
STOLEN_MAX = 0.05
NOISE_MAX = 0.10
CALM_MAX = 3  # how often the peer runs against itself until it is within NOISE_MAX
REPEATS_MAX = 3  # as many pairs again, times this, before stolen ones are taken as they are
RESAMPLES = 4000


class BenchError(Exception):
    """A system could not be measured; the text says why."""

    system = ""
    """Which one, when that is known."""


@dataclass(frozen=True)
class Sample:
    """One run. Times in microseconds, rates a second, memory in bytes; None: not taken."""

    messages: int
    cpu: float | None = None
    """Per message, user and system, of all processes that take part."""
    rate: float | None = None
    """At the receiver, from its first message to its last."""
    sender_cpu: float | None = None
    receiver_cpu: float | None = None
    peak: float | None = None
    more: dict[str, float] = field(default_factory=dict)
    """Figures of one benchmark alone, such as percentiles; lower is better."""

    def value(self, metric: str) -> float | None:
        found = self.more.get(metric)
        if found is not None:
            return found
        known: float | None = getattr(self, metric, None)
        return known


Run = Callable[[], Sample]


@dataclass(frozen=True)
class Pieces:
    """A run in pieces of the same work, of which the fastest counts: more than it needs is what
    other users of the processor took. Two such runs are taken in turns."""

    piece: Callable[[], float]
    """Does one and gives the CPU time per message."""
    count: int
    messages: int

    def take(self, count: int) -> float:
        return min(self.piece() for _ in range(count))

    def sample(self, fastest: float) -> Sample:
        return Sample(self.messages, cpu=fastest, more={"each": fastest})

    def __call__(self) -> Sample:
        return self.sample(self.take(self.count))


METRICS = ("cpu", "sender_cpu", "receiver_cpu", "rate", "peak")
HIGHER_IS_BETTER = frozenset({"rate"})


@dataclass(frozen=True)
class Ratio:
    """Median of ours over median of the peer's, with a 95% interval."""

    ratio: float
    low: float
    high: float


@dataclass
class Comparison:
    ours: str
    peer: str
    decides: str
    """The metric that decides."""
    ratios: dict[str, Ratio]
    noise: float | None
    """The peer against itself, ratio of medians of the deciding metric; None: not run."""
    pairs: int
    repeated: int
    """Pairs taken again because the host gave the processors to others."""
    ours_samples: list[Sample] = field(default_factory=list)
    peer_samples: list[Sample] = field(default_factory=list)
    path: str = ""
    size: int = 0
    unit: bool = False
    """The peer is no competitor but a unit: the ratio says how many of those ours costs."""
    stolen: bool = False
    """The host took processors away in every attempt at some pair."""

    @property
    def quiet(self) -> bool:
        return self.noise is not None and not self.stolen and _calm(self.noise)

    @property
    def verdict(self) -> str:
        """`ahead`, `level`, `behind`, `too noisy to judge`; beside a unit `times`."""
        found = self.ratios[self.decides]
        if not self.quiet:
            return "too noisy to judge"
        if self.unit:
            return "times"
        if self.decides in HIGHER_IS_BETTER:
            found = Ratio(1 / found.ratio, 1 / found.high, 1 / found.low)
        if found.high < 1:
            return "ahead"
        if found.low > 1:
            return "behind"
        return "level"


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def ratio_of_medians(ours: Sequence[float], peer: Sequence[float], seed: int = 1) -> Ratio:
    """The interval is a percentile bootstrap over pairs: what one pair saw stays together."""
    if len(ours) != len(peer) or not ours:
        raise ValueError("pairs are needed")
    draw = random.Random(seed)
    places = range(len(ours))
    found = []
    for _ in range(RESAMPLES):
        chosen = draw.choices(places, k=len(places))
        found.append(
            statistics.median([ours[i] for i in chosen])
            / statistics.median([peer[i] for i in chosen])
        )
    return Ratio(
        statistics.median(ours) / statistics.median(peer),
        percentile(found, 0.025),
        percentile(found, 0.975),
    )


def _calm(noise: float) -> bool:
    return abs(math.log(noise)) <= math.log(1 + NOISE_MAX)


def _both(first: Run, second: Run) -> tuple[Sample, Sample]:
    """Pieces in turns, so that a neighbour on the processor's other half, who may double all times
    for a tenth of a second as well as for ten, is met by both sides or by none."""
    if not (isinstance(first, Pieces) and isinstance(second, Pieces)):
        return first(), second()
    turns = min(TURNS, first.count, second.count)
    taken = [(first.take(first.count // turns), second.take(second.count // turns))
             for _ in range(turns)]  # fmt: skip
    one, other = map(min, zip(*taken, strict=True))
    return first.sample(one), second.sample(other)


def _pairs(
    first: Run, second: Run, pairs: int, times: Callable[[], tuple[int, int]]
) -> tuple[list[Sample], list[Sample], int]:
    """Adjacent runs, one of each, until `pairs` were taken on a machine that was ours.

    The third figure: how many more were not. Once there are too many of them, all are taken.
    """
    ours: list[Sample] = []
    theirs: list[Sample] = []
    repeated = 0
    while len(ours) < pairs:
        before = times()
        a, b = _both(first, second)
        if machine.stolen(before, times()) > STOLEN_MAX:
            repeated += 1
            if repeated <= pairs * REPEATS_MAX:
                continue
        ours.append(a)
        theirs.append(b)
    return ours, theirs, repeated


def _values(samples: list[Sample], metric: str) -> list[float]:
    return [value for s in samples if (value := s.value(metric)) is not None and value > 0]


def compare(
    ours: tuple[str, Run],
    peer: tuple[str, Run],
    *,
    decides: str = "cpu",
    pairs: int = PAIRS,
    unit: bool = False,
    times: Callable[[], tuple[int, int]] = machine.processor_times,
) -> Comparison:
    """The peer against itself first, then ours against the peer; both sides are warm already.

    What is between two runs of the peer says nothing about ours, so it is waited for a calm
    moment: a burst of a neighbour is over when the peer is like itself again.
    """
    for _ in range(CALM_MAX):
        a, b, again = _pairs(peer[1], peer[1], pairs, times)
        one, other = _values(a, decides), _values(b, decides)
        if not one or not other:
            raise BenchError(f"{peer[0]}: no figure for {decides}")
        noise = statistics.median(one) / statistics.median(other)
        if _calm(noise):
            break
    mine, theirs, repeated = _pairs(ours[1], peer[1], pairs, times)
    most = max(repeated, again)
    repeated += again
    ratios = {}
    for metric in (*METRICS, *mine[0].more):
        x, y = _values(mine, metric), _values(theirs, metric)
        if len(x) == len(y) == pairs:
            ratios[metric] = ratio_of_medians(x, y)
    if decides not in ratios:
        raise BenchError(f"{ours[0]}: no figure for {decides}")
    return Comparison(
        ours[0], peer[0], decides, ratios, noise, pairs, repeated, mine, theirs, unit=unit,
        stolen=most > pairs * REPEATS_MAX,
    )  # fmt: skip
