"""The command line: demo, ping, names, epmd, call, stats."""

from __future__ import annotations

import typer

from router._version import __version__
from router.cli import demo, mapper, remote

__all__ = ["app"]

app = typer.Typer(
    name="router",
    help="A node of an Erlang or Elixir cluster, from the command line.",
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
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version."
    ),
) -> None:
    pass


app.command()(demo.demo)
app.command()(remote.ping)
app.command()(mapper.names)
app.command()(mapper.epmd)
app.command()(remote.call)
app.command()(remote.stats)
