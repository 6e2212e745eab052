"""Messages that flow from senders to receivers: one run of it, and how many make a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.actors import Actor, Meter, Stage
from bench.measure import BenchError, Run, Sample

__all__ = ["Flow", "System"]

RUN_BYTES_MAX = 1 << 30
COUNT_MAX = 4_000_000
PILOT_BYTES = 8 << 20
PILOT_MAX = 4000


@dataclass(frozen=True)
class System:
    """A way to send and a way to receive, on which kind of process each."""

    name: str
    sender: str
    send: str
    receiver: str
    receive: str


class Flow:
    """One system on a stage, with so many senders, receiving processes, and boxes in each."""

    def __init__(
        self,
        stage: Stage,
        system: System,
        size: int,
        seconds: float,
        *,
        senders: int = 1,
        receivers: int = 1,
        boxes: int = 1,
        told: int = 1,
    ) -> None:
        """told: for how many senders at least the receivers check ids: work of its own."""
        self.system = system
        self.size = size
        self._stage = stage
        self._boxes = boxes
        self._told = max(told, senders)
        self._receivers: list[Actor] = []
        self._senders: list[Actor] = []
        try:
            for i in range(receivers):
                self._receivers.append(stage.actor(system.receiver, f"receiver{i}"))
            for i in range(senders):
                self._senders.append(stage.actor(system.sender, f"sender{i}"))
        except BenchError as e:
            e.system = system.name
            raise
        self.count = self._count(seconds)

    def _addresses(self, actor: Actor) -> Sequence[str]:
        if "@" in actor.address:  # a node: its boxes have names
            return [f"sink{i}/{actor.address}" for i in range(self._boxes)]
        return [actor.address]

    def _count(self, seconds: float) -> int:
        """Messages of one run, so that it takes about so long; the first runs also warm up."""
        count = self._round(min(PILOT_MAX, PILOT_BYTES // self.size))
        most = min(COUNT_MAX, RUN_BYTES_MAX // self.size)
        for _ in range(2):
            took = self._run(count)[1]
            count = self._round(min(most, int(count * seconds / max(took, 1e-4))))
        return count

    def _round(self, count: int) -> int:
        """A whole share for every sender, and enough of them to tell first from last."""
        parts = len(self._senders) * len(self._receivers) * self._boxes
        least = 2 if self.size >= 1 << 20 else 2048 if self.size <= 1024 else 32
        return max(count // parts, max(2, least // parts)) * parts

    def run(self) -> Sample:
        return self._run(self.count)[0]

    @property
    def named_run(self) -> tuple[str, Run]:
        return self.system.name, self.run

    def _run(self, count: int) -> tuple[Sample, float]:
        try:
            return self._attempt(count)
        except BenchError as e:
            e.system = self.system.name
            self._stage.drop(*self._senders, *self._receivers)
            raise

    def _attempt(self, count: int) -> tuple[Sample, float]:
        senders, receivers = self._senders, self._receivers
        dests = [address for actor in receivers for address in self._addresses(actor)]
        for actor in senders:
            actor.connect(*dests)
        each = count // len(dests)
        meter = Meter(senders, receivers)
        for actor in receivers:
            words = ("receive", self.system.receive, each, self.size, self._told, self._boxes)
            if not actor.ask(*words).get("armed"):
                raise BenchError(f"{actor.kind} is not ready to receive")
        meter.start()
        for number, actor in enumerate(senders):
            actor.tell("send", self.system.send, each // len(senders), self.size, number, *dests)
        for actor in senders:
            actor.answer()
        done = [actor.answer() for actor in receivers]
        (sent, received), peak = meter.stop()
        seconds = (max(d["last"] for d in done) - min(d["first"] for d in done)) / 1e9
        counted = sum(d["counted"] for d in done)
        sample = Sample(
            messages=count,
            cpu=(sent + received) / count,
            rate=counted / seconds if counted > 0 and seconds > 0 else None,
            sender_cpu=sent / count,
            receiver_cpu=received / count,
            peak=peak,
        )
        return sample, max(seconds, (sent + received) / 2e6)
