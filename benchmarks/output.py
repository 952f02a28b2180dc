"""Command lines and output of the benchmark scripts.

A script prints its results to standard output, as Markdown, and its progress to standard error. With ``--write`` the
results also go into ``results/SCRIPT.md``, or for a script in a folder into ``results/FOLDER_SCRIPT.md``, between two
comments that name the command. A later run of the same command replaces that block only; the text around it is written
by hand and stays.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from datetime import date
from pathlib import Path
from typing import Any, TextIO

import dask
import distributed
import numpy as np
import scipy
import sklearn

import dask_dfmr

RESULTS = Path(__file__).with_name("results")

# -- command line --------------------------------------------------------------------------------


def benchmark_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser that shows the script's docstring as it stands and knows ``--write``."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--write", action="store_true", help="also write the results into benchmarks/results"
    )
    return parser


def command_line(script: str, arguments: Sequence[str]) -> str:
    """The command as it can be printed anywhere: absolute paths are shortened to DIR, or to DIR and a file name."""
    words = [_without_folder(word) for word in arguments if word != "--write"]
    return shlex.join(["/".join(["benchmarks", *_place(script)]), *words])


def _place(script: str) -> tuple[str, ...]:
    """The folders and the file of a script, as seen from the folder of the benchmarks."""
    path = Path(script).resolve()
    is_inside = path.is_relative_to(RESULTS.parent)
    return path.relative_to(RESULTS.parent).parts if is_inside else (path.name,)


def _without_folder(word: str) -> str:
    path = Path(word)
    if not path.is_absolute():
        return word
    return f"DIR/{path.name}" if path.is_file() else "DIR"


# -- results -------------------------------------------------------------------------------------


@contextmanager
def recorded(options: argparse.Namespace) -> Iterator[None]:
    """Print the machine; with ``--write`` also keep everything that is printed inside, in ``results/SCRIPT.md``."""
    copy = io.StringIO()
    with redirect_stdout(_Tee(sys.stdout, copy)):
        print_machine()
        yield
    if options.write:
        script, *arguments = sys.argv
        command = command_line(script, arguments)
        page = Path("_".join(_place(script))).with_suffix(".md")
        write_block(RESULTS / page, command, copy.getvalue())


class _Tee(io.TextIOBase):
    """A stream that writes to several others."""

    def __init__(self, *streams: TextIO) -> None:
        self._streams = streams

    def write(self, text: str) -> int:
        for stream in self._streams:
            stream.write(text)
        return len(text)

    def flush(self) -> None:
        for stream in self._streams:
            stream.flush()


def write_block(path: Path, command: str, text: str) -> None:
    """Write the output of a command into a Markdown file.

    The block of the same command is replaced. If there is none, the block is added at the end of the file.
    """
    begin, end = (f"<!-- written by {command}: {edge} -->\n" for edge in ("begin", "end"))
    threads = os.environ.get("OMP_NUM_THREADS")
    setting = f"OMP_NUM_THREADS={threads} " if threads else ""
    block = f"{begin}\n    {setting}python {command}\n\n{text.strip()}\n\n{end}"
    page = path.read_text() if path.exists() else f"# {path.stem}.py\n"
    before, found, rest = page.partition(begin)
    if found:
        path.write_text(before + block + rest.partition(end)[2])
    else:
        path.write_text(f"{page.rstrip()}\n\n{block}")


# -- what is printed -----------------------------------------------------------------------------


def print_machine() -> None:
    """The machine, the date and the versions behind the results."""
    machine = f"{os.cpu_count()} cores, {_cpu_model()}, {platform.system()}"
    print(f"Machine: {machine}, {date.today().isoformat()}.")
    versions = {"Python": platform.python_version()} | {
        module.__name__: module.__version__
        for module in (dask_dfmr, np, scipy, sklearn, dask, distributed)
    }
    print(", ".join(f"{name} {version}" for name, version in versions.items()), end=".\n\n")


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def print_table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A Markdown table with padded cells, so that it can be read on a terminal too."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    for line in (header, ["-" * width for width in widths], *cells):
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print(f"| {' | '.join(padded)} |", flush=True)
    print()


def print_lines(lines: Iterable[str]) -> None:
    """Lines of plain text in a fenced block; nothing where there are none."""
    lines = list(lines)
    if lines:
        print("```text", *lines, "```", sep="\n", end="\n\n", flush=True)


def print_progress(*words: object) -> None:
    """One line to standard error, which is not part of the results."""
    print(*words, sep="  ", file=sys.stderr, flush=True)
