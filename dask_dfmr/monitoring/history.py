"""The history of sources: one line of JSON for each source and check, only ever appended.

A line is written by one call of the operating system, so that checks in several processes do not mix. A line that an
interrupted write left unfinished is the last one, and is skipped.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from dask_dfmr.monitoring.result import CHECK_FORMAT, CHECK_VERSION, VERDICTS, CheckResult
from dask_dfmr.untrusted import open_regular, parse_json

ABOUT_ALL = ("format", "version", "time", "model", "false_alarm_rate", "law")
"""Entries of a line besides the columns of the report."""

SHOWN = {"source": str, "verdict": str, "time": str, "model": str, "n_samples": int}
"""Entries that every line must have, and their types."""


def append_history(
    path: str | os.PathLike[str], result: CheckResult, time: datetime | None = None
) -> None:
    """Append one line per source to the file, which is made if there is none.

    Parameters
    ----------
    path : path-like
    result : CheckResult
    time : datetime, optional
        Of the check, with a time zone. Now by default.

    Raises
    ------
    OSError
        If the file cannot be written.
    ValueError
        If there is something else than a regular file.
    """
    moment = (datetime.now(UTC) if time is None else time).isoformat(timespec="seconds")
    whole = result.to_dict()
    about = {"format": CHECK_FORMAT, "version": CHECK_VERSION, "time": moment}
    about |= {name: whole[name] for name in ("model", "false_alarm_rate", "law")}
    lines = [json.dumps(about | source, allow_nan=False) for source in whole["sources"]]
    text = "".join(f"{line}\n" for line in lines)
    if _is_unfinished(path):
        text = "\n" + text
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(handle, text.encode())
    finally:
        os.close(handle)


def _is_unfinished(path: str | os.PathLike[str]) -> bool:
    """Whether a file ends in the middle of a line."""
    if not os.path.exists(path):
        return False
    with open_regular(path) as file:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def read_history(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read the history that ``check(..., history=path)`` has appended.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    pandas.DataFrame
        One row per source and check, in the order of the file: ``time`` (with a time zone), ``model`` (digest), and the
        columns of :attr:`CheckResult.report`.

    Raises
    ------
    OSError
        If the file does not exist or cannot be read.
    ValueError
        If a line is no line of a history; the message has its number.
    """
    with open_regular(path) as file:
        lines = file.read().split(b"\n")
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            rows.append(_parsed(line))
        except ValueError as error:
            if _was_interrupted(line):
                continue
            raise ValueError(f"{os.fspath(path)}, line {number}: {error}.") from error
    table = pd.DataFrame(rows, columns=None if rows else list(SHOWN))
    moments = pd.to_datetime(table.pop("time"), utc=True, errors="coerce")
    table.insert(0, "time", moments)
    return table.drop(columns=["format", "version"], errors="ignore")


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        found = parse_json(line)
    except ValueError as error:
        raise ValueError(f"not JSON ({error})") from error
    if not isinstance(found, dict) or found.get("format") != CHECK_FORMAT:
        raise ValueError(f'expected a JSON object with "format": "{CHECK_FORMAT}"')
    if found.get("version") != CHECK_VERSION or isinstance(found["version"], bool):
        raise ValueError(f"expected version {CHECK_VERSION}, got {found.get('version')!r:.100}")
    for name, kind in SHOWN.items():
        if not isinstance(found.get(name), kind):
            raise ValueError(
                f"{name} must be of type {kind.__name__}; got {found.get(name)!r:.100}"
            )
    if found["verdict"] not in VERDICTS:
        raise ValueError(f"verdict must be one of {VERDICTS}; got {found['verdict']!r:.100}")
    nested = [name for name, value in found.items() if isinstance(value, (dict, list))]
    if nested:
        raise ValueError(f"{nested[0]!r:.100} must be a text or a number")
    return found


def _was_interrupted(line: bytes) -> bool:
    """Whether a line is the beginning of one, as an interrupted write leaves it."""
    head = f'{{"format": "{CHECK_FORMAT}"'.encode()
    return head.startswith(line) or (line.startswith(head) and not line.endswith(b"}"))
