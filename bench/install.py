"""Installs the peers, each that can be; what cannot is named. ``python -m bench.install``

The benchmarks that need a missing peer name it again and fail, so this one does not.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def pip(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q", *words],
        capture_output=True,
        text=True,
        check=False,
    )


def main() -> None:
    wanted = tomllib.loads(PROJECT.read_text())["project"]["optional-dependencies"]["bench"]
    if pip(*wanted).returncode == 0:
        return
    for requirement in wanted:
        done = pip(requirement)
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            why = errors[-1] if errors else f"pip ended with status {done.returncode}"
            print(f"not installed: {requirement}: {why}", file=sys.stderr)


if __name__ == "__main__":
    main()
