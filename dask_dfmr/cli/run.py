"""One run of a command: its warnings, its result as text or as one JSON object, and the files that it writes."""

from __future__ import annotations

import os
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import click

from dask_dfmr.aggregation.reasons import in_short
from dask_dfmr.cli.exits import CommandError, Exit, exit_for
from dask_dfmr.cli.schema import envelope, to_json
from dask_dfmr.cli.words import in_options
from dask_dfmr.progress.choice import results_shown_elsewhere

if TYPE_CHECKING:
    import pandas as pd

MOST_TABLE_ROWS = 40
"""Rows of a table that are shown in full; JSON and files have all of them."""


SENTENCES = ("reason", "finding")
"""Columns of tables whose texts may advise parameters; JSON and files keep the whole text, and the names of Python."""


@dataclass
class Run:
    """What one command shows.

    Attributes
    ----------
    command : str
    as_json : bool
        One JSON object on stdout, and nothing else.
    is_quiet : bool
        No progress and no hints; warnings are shown.
    warnings : list of dict
        ``category`` and ``message`` of the warnings of the package so far.
    """

    command: str
    as_json: bool = False
    is_quiet: bool = False
    warnings: list[dict[str, str]] = field(default_factory=list)

    @property
    def verbose(self) -> int:
        """The value of ``verbose`` for the package."""
        return 0 if self.is_quiet else 1

    def hint(self, text: str) -> None:
        """Show advice."""
        if not self.is_quiet:
            click.echo(f"hint: {text}", err=True)

    def say(self, text: str) -> None:
        """Show a line of the result."""
        if not self.as_json:
            _to_stdout(text)

    def table(self, table: pd.DataFrame) -> None:
        """Show a table of the result: drawn in a terminal if rich is there, else aligned text."""
        if self.as_json or not len(table):
            return
        shown = table.head(MOST_TABLE_ROWS)
        texts = [name for name in SENTENCES if name in shown]
        shown = shown.assign(
            **{name: shown[name].astype(str).map(in_own_options) for name in texts}
        )
        if sys.stdout.isatty() and _draw(shown):
            pass
        else:
            _to_stdout(_aligned(shown))
        if len(table) > MOST_TABLE_ROWS:
            _to_stdout(f"... and {len(table) - MOST_TABLE_ROWS} more rows (--json has all)")

    def finish(self, n_excluded: int = 0, **result: Any) -> Exit:
        """Show the result as JSON if that was asked for; the exit code."""
        code = exit_for((found["category"] for found in self.warnings), n_excluded)
        if self.as_json:
            _to_stdout(to_json(envelope(self.command, code, warnings=self.warnings, result=result)))
        return code

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Show warnings as one line each, and remember those of the package."""

        def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
            text = " ".join(str(message).split())
            is_own = category.__module__.startswith(("dask_dfmr", "sklearn"))
            if is_own:
                self.warnings.append({"category": category.__name__, "message": text})
            if is_own or not self.is_quiet:
                click.echo(f"warning: {in_own_options(text)} [{category.__name__}]", err=True)

        with warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", ResourceWarning)
            warnings.showwarning = show
            yield


def in_own_options(text: str) -> str:
    """A text in the options of the command that runs."""
    context = click.get_current_context(silent=True)
    return in_options(text, None if context is None else context.command)


def _to_stdout(text: str) -> None:
    """Show a text. If the reader of a pipe has gone, as "head" does, the command goes on: it has files to write."""
    try:
        click.echo(text)
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


Body = Callable[..., Exit]


def command(name: str, about: str) -> Callable[[Body], click.Command]:
    """Make a command of a function ``(run, **arguments) -> exit code``, with the options that all commands have."""

    def make(body: Body) -> click.Command:
        @wraps(body)
        def invoke(as_json: bool, quiet: bool, debug: bool, **arguments: Any) -> Exit:
            run = Run(name, as_json, quiet)
            with run.caught(), results_shown_elsewhere():
                return body(run, **arguments)

        made: click.Command = click.command(name, help=about)(invoke)
        made.params += [
            click.Option(
                ["--json", "as_json"],
                is_flag=True,
                help="Write one JSON object to stdout, and nothing else there.",
            ),
            click.Option(["-q", "--quiet"], is_flag=True, help="Show no progress and no hints."),
            click.Option(["--debug"], is_flag=True, help="Show the traceback of an error."),
        ]
        return made

    return make


# -- files -----------------------------------------------------------------------------------------


def check_output(path: str | None, force: bool, may_be_folder: bool = False) -> None:
    """Raise an error, before anything is computed, unless a file or folder can be written.

    Raises
    ------
    CommandError
        If it exists already, is a folder where a file is meant, or its folder does not exist.
    """
    if path is None:
        return
    if Path(path).is_dir() and not may_be_folder:
        raise CommandError(Exit.CANNOT_WRITE, f"{path} is a folder; name a file in it.")
    if os.path.lexists(path) and not force:
        text = f"{path} exists. --force replaces it."
        raise CommandError(Exit.CANNOT_WRITE, text)
    parent = Path(path).absolute().parent
    if not parent.is_dir():
        raise CommandError(Exit.CANNOT_WRITE, f"{path}: there is no folder {parent}.")
    if not os.access(parent, os.W_OK):
        raise CommandError(Exit.CANNOT_WRITE, f"{path}: the folder {parent} may not be written to.")


def check_outputs(*paths: str | None, force: bool) -> None:
    """The same for several files of one command, which must be different.

    Raises
    ------
    CommandError
        If two of them are one, or as :func:`check_output` says.
    """
    given = [os.path.realpath(path) for path in paths if path is not None]
    if len(set(given)) < len(given):
        raise CommandError(Exit.USAGE, f"two outputs have the same path, {given[0]!r}.")
    for path in paths:
        check_output(path, force)


@contextmanager
def writing(path: str) -> Iterator[None]:
    """Surrounds the writing of a file; an error of the system becomes one that says so."""
    try:
        yield
    except OSError as error:
        text = f"{path} cannot be written: {error.strerror or error}"
        raise CommandError(Exit.CANNOT_WRITE, text) from error


@contextmanager
def replacing(path: str) -> Iterator[str]:
    """A path beside ``path`` to write to; it takes the place of what is there when all is written, and not before.

    DATA may be what is replaced: rows are read while the output is written.
    """
    target = Path(path).absolute()
    beside = target.with_name(f".{target.name}.{uuid4().hex[:8]}{target.suffix}")
    try:
        with writing(path):
            yield str(beside)
            _remove(target)
            beside.rename(target)
    finally:
        _remove(beside)


def _remove(path: Path) -> None:
    """Remove a file or folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()


def check_folder(path: str) -> None:
    """Raise an error unless a folder that is to be replaced holds an output of ``predict``, and nothing else.

    Raises
    ------
    CommandError
        If it holds anything but parquet files, or is a folder of another kind.
    """
    folder = Path(path)
    if not folder.is_dir():
        return
    other = next((p for p in folder.iterdir() if p.is_dir() or p.suffix != ".parquet"), None)
    is_current = folder.resolve() in (Path.cwd(), *Path.cwd().parents)
    if is_current or other is not None:
        held = "is the current folder" if is_current or other is None else f"holds {other.name!r}"
        text = f"{path} is not replaced, even with --force: it {held}. Name another folder."
        raise CommandError(Exit.CANNOT_WRITE, text)


# -- tables ----------------------------------------------------------------------------------------


def _aligned(table: pd.DataFrame) -> str:
    """Columns of text to the left, of numbers to the right."""
    cells = table.map(_cell)
    columns = []
    for name, column in cells.items():
        width = max(len(str(name)), *map(len, column))
        is_number = table[name].dtype.kind in "fiu"
        fill = str.rjust if is_number else str.ljust
        columns.append([fill(text, width) for text in (str(name), *column)])
    return "\n".join("  ".join(row).rstrip() for row in zip(*columns, strict=True))


def _draw(table: pd.DataFrame) -> bool:
    """Draw a table with rich; False if it is not installed."""
    try:
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        return False
    drawn = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name, column in table.items():
        is_number = column.dtype.kind in "fiu"
        drawn.add_column(Text(str(name)), justify="right" if is_number else "left", overflow="fold")
    for row in table.itertuples(index=False):
        drawn.add_row(*(Text(_cell(value)) for value in row))
    Console().print(drawn)
    return True


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:.4g}"
    return in_short(str(value))


def excluded_table(report: pd.DataFrame) -> pd.DataFrame:
    """The partitions of a report that are not in the mixture, in the columns of the JSON object."""
    columns = ["partition", "source", "n_samples", "outcome", "p_value", "reason"]
    return report.loc[~report["kept"].to_numpy(dtype=bool), columns]


def shown_excluded(excluded: pd.DataFrame) -> pd.DataFrame:
    """The same for people: names of files without the folder that they share, and no column without values."""
    table = excluded.drop(columns=["p_value"])
    names = without_shared_folder(table["source"])
    if not any(names):
        return table.drop(columns=["source"])
    return table.assign(source=names).drop(columns=["partition"])


def without_shared_folder(sources: Iterable[Any]) -> list[str]:
    """Names of files without the folder that all of them are in; other names as they are."""
    names = ["" if s is None or s != s else str(s) for s in sources]
    # "partition 2 (folder/file)" is the name of a file among values of a column.
    leads = [found[0] if (found := _LEAD.match(name)) else "" for name in names]
    paths = [name.removeprefix(lead) for name, lead in zip(names, leads, strict=True)]
    folders = {path.rpartition("/")[0] for path in paths if path}
    shared = f"{folders.pop()}/" if len(folders) == 1 else ""
    if shared == "/":
        return names
    return [lead + path.removeprefix(shared) for lead, path in zip(leads, paths, strict=True)]


_LEAD = re.compile(r"partition \d+ \(")


def mixture_values(gm: Any) -> Mapping[str, Any]:
    """The keys of the JSON object that describe a mixture."""
    mixture = gm.mixture_
    return {
        "n_components": mixture.n_components,
        "covariance_type": mixture.covariance_type,
        "columns": mixture.feature_names,
        "weights": mixture.weights,
        "means": mixture.means,
        "converged": gm.converged_,
    }
