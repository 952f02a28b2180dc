"""The commands by name, and what becomes of an error."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple, NoReturn

import click

from dask_dfmr.cli.exits import MEANINGS, Exit, exit_of


class Entry(NamedTuple):
    """Where a command is, and what it does in one line."""

    module: str
    attribute: str
    about: str


COMMANDS = {
    "fit": Entry("fitting", "fit", "Fit a mixture, and say which files were excluded and why."),
    "select": Entry("fitting", "select", "Choose the number of components on consistent files."),
    "score": Entry("using", "score", "Mean log-likelihood of rows under a model."),
    "predict": Entry("using", "predict", "Label rows with their most probable component."),
    "check": Entry("checking", "check", "Check whether new files contradict a model."),
    "explain": Entry("using", "explain", "Explain why partitions of a model were excluded."),
    "report": Entry("using", "report", "Write a page about a model."),
    "fit-local": Entry("federated", "fit_local", "Fit the rows of one site, for aggregate."),
    "start": Entry("federated", "start", "Make one start for all sites from first estimates."),
    "aggregate": Entry("federated", "aggregate", "Combine estimates of sites into a model."),
    "stress": Entry("stress", "stress", "Try attacks on your own data, and compare methods."),
}
"""The commands in the order of the help. A command is imported when it is used."""

DESCRIPTION = """Robust Gaussian mixtures of many files.

Each file, or each value of a column, is fitted on its own. Fits that are inconsistent with the majority are excluded
and reported; the others are combined into one model.

\b
Examples:
  dask-dfmr fit plates/*.parquet -k 5 --model plates.model
  dask-dfmr fit readings.csv -k 3 --source sensor --columns temperature,pressure
  dask-dfmr check plates.model today/*.parquet
  dask-dfmr predict plates.model new/ --out labels
  dask-dfmr explain plates.model
"""


class App(click.Group):
    """The group of all commands; it imports a command when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        return _imported(cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.about) for name, entry in COMMANDS.items()])
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code.value), text) for code, text in MEANINGS.items()])

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> NoReturn:
        """Run a command line, and exit with its code."""
        given = list(sys.argv[1:] if args is None else args)
        extra["standalone_mode"] = False
        try:
            code = super().main(given, *rest, **extra) or Exit.FINE
        except BaseException as error:
            code = _report(error, given)
        sys.exit(int(code))


def _imported(name: str) -> click.Command:
    entry = COMMANDS[name]
    command = getattr(import_module(f"dask_dfmr.cli.{entry.module}"), entry.attribute)
    assert isinstance(command, click.Command)
    return command


def _report(error: BaseException, given: Sequence[str]) -> Exit:
    """Show an error as a sentence, and as JSON if that was asked for; its exit code."""
    if isinstance(error, click.exceptions.Exit):
        return Exit.FINE if error.exit_code == 0 else Exit.USAGE
    if isinstance(
        error, SystemExit
    ):  # click's way if the reader of a pipe has gone, as "head" does
        return Exit.FINE
    code = Exit.USAGE
    command = next((word for word in given if word in COMMANDS), None)
    if isinstance(error, click.Abort):
        error = KeyboardInterrupt()
    if isinstance(error, click.ClickException):
        message = error.format_message()
        error.show()
    else:
        code, message = exit_of(error)
        if "--debug" in given:
            traceback.print_exception(error)
        from dask_dfmr.cli.words import (
            in_options,
        )  # imports the package, which --help does not need

        of = None if command is None else _imported(command)
        click.echo(f"Error: {in_options(message, of)}", err=True)
    if "--json" in given:
        from dask_dfmr.cli.schema import envelope, to_json

        shown = {"type": type(error).__name__, "message": message}
        click.echo(to_json(envelope(command, code, error=shown)))
    return code


def _show_version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        from dask_dfmr.cli.schema import installed_version

        click.echo(f"dask-dfmr {installed_version()}")
        ctx.exit()


app = App(
    "dask-dfmr",
    help=DESCRIPTION,
    context_settings={"help_option_names": ["-h", "--help"]},
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_show_version,
            help="Show the version.",
        )
    ],
)


def run() -> None:
    """The entry point of ``dask-dfmr``.

    After Ctrl-C threads may be computing still. Python would wait for them at its end, so the process ends without.
    """
    try:
        app(prog_name="dask-dfmr")
    except SystemExit as end:
        if end.code != Exit.INTERRUPTED:
            raise
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(Exit.INTERRUPTED)
