"""The program `router`: its commands and what goes for all of them."""

from __future__ import annotations

from typing import Annotated

import typer

from router._version import __version__
from router.cli import bench, demo, mapper, remote, stats

__all__ = ["app"]

app = typer.Typer(
    name="router",
    no_args_is_help=True,
    add_completion=False,
    # Locals could hold a cookie.
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"router {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """A node of an Erlang or Elixir cluster, from the command line.

    Begin with `router demo`. `router COMMAND --help` shows examples.
    """


app.command()(demo.demo)
app.command()(remote.ping)
app.command()(mapper.names)
app.command()(mapper.epmd)
# What looks like an option may be an argument: a negative number.
app.command(context_settings={"ignore_unknown_options": True})(remote.call)
app.command()(stats.stats)
app.command()(bench.bench)
