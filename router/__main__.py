"""The command `router`, also `python -m router`."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command line, or says how to install what it needs."""
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ImportError as e:
        print(
            f"router: the command line needs {e.name or 'its extra'}, which is not installed.\n"
            "Install the extra `cli`:  pip install 'router-beam[cli]'",
            file=sys.stderr,
        )
        sys.exit(2)
    from router.cli import app

    app()


if __name__ == "__main__":
    main()
