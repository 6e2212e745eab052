"""The command `router`, also `python -m router`."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command line, or prints the line that installs what it needs."""
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ImportError:
        print(
            "router's command line needs its extra: pip install 'router-beam[cli]'",
            file=sys.stderr,
        )
        sys.exit(2)
    from router.cli.app import app

    app()


if __name__ == "__main__":
    main()
