"""The command line, one module for a command or two; `app` puts them together.

Needs the extra `cli` (typer and rich). Nothing else of the package imports this.
"""
