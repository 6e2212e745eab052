"""What mailboxes hold that nobody has written to."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import gc
import router

def resident():
    gc.collect()
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * 4096

with router.Node("many@127.0.0.1", cookie="many", listen=False, epmd="none") as node:
    boxes = [node.mailbox() for _ in range(1000)]  # what the first ones bring is no part of it
    before = resident()
    boxes.extend(node.mailbox() for _ in range(200_000))
    full = resident()
    pids = {box.pid for box in boxes}
    assert len(pids) == len(boxes)
    node.send(boxes[-1].pid, 1)
    assert boxes[-1].get(1) == 1
    del boxes, pids
    print(full - before, resident() - before)
"""


def test_two_hundred_thousand_idle_mailboxes() -> None:
    """A million from Python in under 500 MB; and what they held is given back."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=120
    )
    full, left = map(int, done.stdout.split())
    assert full < 200_000 * 500, f"{full / 200_000:.0f} bytes each"
    assert left < full / 2, f"{left} of {full} bytes stayed"
