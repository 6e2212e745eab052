"""One stream of iperf3's on loopback: how fast bytes go when nobody looks at them."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable

from bench import machine
from bench.measure import BenchError, Sample

__all__ = ["NAME", "stream"]

NAME = "iperf3, one stream"
BYTES = 1 << 30
SECONDS_MAX = 60


def stream(size: int) -> Callable[[], Sample]:
    """A run that moves a gibibyte in iperf3's own pieces, counted as messages of `size` bytes.

    Its CPU time is what iperf3 says about both ends.
    """
    program = shutil.which("iperf3")
    if program is None:
        raise BenchError("no iperf3 on this machine")

    def run() -> Sample:
        port = str(machine.free_port())
        with subprocess.Popen(
            [program, "-s", "-1", "-B", "127.0.0.1", "-p", port, "--forceflush"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as server:
            try:
                assert server.stdout is not None
                for line in server.stdout:
                    if "listening" in line:
                        break
                done = subprocess.run(
                    [program, "-c", "127.0.0.1", "-p", port, "-n", str(BYTES), "-J"],
                    capture_output=True, text=True, timeout=SECONDS_MAX, check=False,
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                raise BenchError(f"iperf3: not done in {SECONDS_MAX} s") from None
            finally:
                server.kill()
        found = json.loads(done.stdout or "{}")  # it is JSON when it failed, too
        if done.returncode or "error" in found:
            raise BenchError(f"iperf3: {found.get('error', done.stderr.strip()[:200])}")
        end = found["end"]
        received, used = end["sum_received"], end["cpu_utilization_percent"]
        messages = received["bytes"] // size
        cpu = (used["host_total"] + used["remote_total"]) / 100 * received["seconds"] * 1e6
        return Sample(messages, cpu=cpu / messages, rate=received["bits_per_second"] / 8 / size)

    return run
