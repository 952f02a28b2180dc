"""DATA of a command line -> a Dask DataFrame, one partition per file where files are small."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import dask
import dask.dataframe as dd
import pandas as pd
from dask.utils import natural_sort_key
from fsspec.core import has_magic, url_to_fs

from dask_dfmr.cli.exits import CommandError, Exit

ENDINGS = {
    **dict.fromkeys((".parquet", ".parq", ".pq"), "parquet"),
    **dict.fromkeys((".csv", ".tsv"), "csv"),
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "json"),
    ".orc": "orc",
}
"""Kinds of files by their ending."""

COMPRESSED = frozenset({".gz", ".bz2", ".xz", ".zst", ".zip"})
"""Endings behind that of the kind; Dask cannot cut such files into blocks."""

FORMATS = ("parquet", "csv", "json", "orc")

MOST_LISTED_COLUMNS = 12
"""Columns that a message lists."""


_NAMELESS = re.compile(r"Unnamed: \d+|__index_level_\d+__")
"""Columns of a file that wrote its index: they number the rows, and are features only if they are asked for."""


@dataclass(frozen=True)
class Request:
    """What to read.

    Attributes
    ----------
    paths : tuple of str
        Files, folders, patterns and URLs.
    columns : tuple of str
        Features; by default all columns that have a name.
    source : str or None
        A column that is no feature, and is needed besides.
    kind : str or None
        One of :data:`FORMATS`; by the endings of the files by default.
    options : mapping of str to object
        Arguments of the reader of ``dask.dataframe``; ``storage_options`` among them.
    n_partitions : int or None
        Into how many partitions to divide; as they are read by default.
    keeps_others : bool
        Whether the frame has the columns that are no features, too.
    """

    paths: tuple[str, ...]
    columns: tuple[str, ...] = ()
    source: str | None = None
    kind: str | None = None
    options: Mapping[str, Any] | None = None
    n_partitions: int | None = None
    keeps_others: bool = False


@dataclass(frozen=True)
class Found:
    """Files of one kind, and those beside them in folders that are of no known kind."""

    kind: str
    files: list[str]
    ignored: list[str]


def read(request: Request) -> tuple[Any, list[str]]:
    """The rows as a lazy Dask DataFrame, and files in folders that are ignored because no reader knows their ending.

    Raises
    ------
    CommandError
        If there is nothing to read, kinds are mixed, or columns are missing or are no numbers.
    """
    options = dict(request.options or {})
    found = find(request.paths, request.kind, options.get("storage_options") or {})
    empty = _empty(found, options.get("storage_options") or {})
    files = [file for file in found.files if file not in empty]
    try:
        frame = _reader(found.kind, files, options, request.source)
        if not len(frame.columns):
            raise ValueError(f"{files[0]} has no columns")
        if empty:
            how = {"kind": found.kind, "names": (), "options": options}
            frame = dd.concat([frame, dd.from_map(load_file, empty, **how, meta=frame._meta)])
    except ImportError:
        raise
    except Exception as error:
        frame = _file_by_file(found, options, error)
    frame = _chosen(frame, request)
    if request.n_partitions is not None:
        frame = frame.repartition(npartitions=request.n_partitions)
    return frame, found.ignored


# -- files -----------------------------------------------------------------------------------------


def find(paths: Sequence[str], kind: str | None, storage: Mapping[str, Any]) -> Found:
    """The files of paths, patterns and folders, which must be of one kind.

    Raises
    ------
    CommandError
        If there are none, or files of several kinds.
    """
    named: list[str] = []
    beside: list[str] = []
    for path in paths:
        files, is_listing = _files_of(path, storage)
        (beside if is_listing else named).extend(files)
    known = [file for file in beside if kind is not None or kind_of(file)]
    files = [*named, *known]
    kinds = {kind or kind_of(file) for file in files}
    if None in kinds:
        unknown = next(file for file in named if kind_of(file) is None)
        raise CommandError(
            Exit.USAGE,
            f"the ending of {unknown!r} says nothing of its kind; add --format, one of {', '.join(FORMATS)}.",
        )
    if len(kinds) > 1:
        pairs = [f"{file!r} is {kind_of(file)}" for file in _one_per_kind(files)]
        raise CommandError(
            Exit.DATA,
            f"DATA must be files of one kind; {' and '.join(pairs)}. Name one kind with a pattern, like '*.parquet'.",
        )
    if not files:
        listed = ", ".join(map(repr, beside[:3])) or "no file"
        raise CommandError(
            Exit.NO_INPUT, f"there is nothing to read in {', '.join(paths)}: it has {listed}."
        )
    return Found(str(kinds.pop()), files, [file for file in beside if file not in set(known)])


def find_files(paths: Sequence[str]) -> list[str]:
    """The files of paths, patterns and folders, of whatever kind.

    Raises
    ------
    CommandError
        If one of the paths has none.
    """
    found: list[str] = []
    for path in paths:
        files, _ = _files_of(path, {})
        if not files:
            raise CommandError(Exit.NO_INPUT, f"there is no file in {path!r}.")
        found += files
    return found


def kind_of(path: str) -> str | None:
    """The kind of a file by its ending; None if that says nothing."""
    endings = [ending.lower() for ending in Path(path.partition("?")[0]).suffixes]
    if endings and endings[-1] in COMPRESSED:
        endings.pop()
    return ENDINGS.get(endings[-1]) if endings else None


def _one_per_kind(files: Sequence[str]) -> list[str]:
    return list({kind_of(file): file for file in reversed(files)}.values())[::-1]


def _files_of(path: str, storage: Mapping[str, Any]) -> tuple[list[str], bool]:
    """Files of a path, and whether they are the content of a folder, which may hold others besides data."""
    try:
        system, inside = url_to_fs(path, **storage)
    except ValueError as error:  # a protocol that nobody knows
        raise CommandError(Exit.USAGE, f"{path}: {error}") from error
    is_local = "file" in (
        [system.protocol] if isinstance(system.protocol, str) else system.protocol
    )
    if path.startswith(("http://", "https://")):
        return [path], False  # servers do not list their files

    def full(names: Sequence[str]) -> list[str]:
        chosen = names if is_local else [system.unstrip_protocol(name) for name in names]
        return sorted(chosen, key=natural_sort_key)

    if system.isdir(inside):
        return full([n for n in system.find(inside) if not _is_hidden(n, inside)]), True
    if system.exists(inside):
        return full([inside]), False
    matches = system.glob(_with_literal_folder(system, inside)) if has_magic(inside) else []
    if not matches:
        text = "matches no file" if has_magic(inside) else "does not exist"
        raise CommandError(Exit.NO_INPUT, f"DATA {path!r} {text}.")
    files: list[str] = []
    for match in matches:
        within = system.find(match) if system.isdir(match) else [match]
        files += [name for name in within if not _is_hidden(name, match)]
    return full(files), False


def _with_literal_folder(system: Any, pattern: str) -> str:
    """A pattern in which brackets of a folder that is there stand for themselves."""
    folder, rest = pattern, ""
    while "/" in folder.rstrip("/"):
        folder, _, last = folder.rstrip("/").rpartition("/")
        rest = f"/{last}{rest}"
        if folder and system.isdir(folder):
            return _literal(folder) + rest
    return pattern


def _literal(path: str) -> str:
    return path.replace("[", "[[]")


def _is_hidden(name: str, folder: str) -> bool:
    """Whether a file in a folder is one of those that writers leave beside data, like _SUCCESS."""
    parts = Path(name).parts[len(Path(folder).parts) :]
    return any(part.startswith((".", "_")) for part in parts)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _cause(error: BaseException) -> BaseException:
    """What a reader of Dask says is only that one of its functions failed; what it failed of is behind that."""
    return _cause(error.__cause__) if error.__cause__ is not None else error


def each_file(request: Request) -> tuple[list[Any], list[str], list[str]]:
    """Every file as a Delayed of its rows, their names, and files that are ignored.

    A file that cannot be read, or lacks columns, is then an outcome of its own and no error of the command.

    Raises
    ------
    CommandError
        If there is nothing to read, or kinds are mixed.
    """
    options = dict(request.options or {})
    found = find(request.paths, request.kind, options.get("storage_options") or {})
    names = list(request.columns)
    load = dask.delayed(load_file, pure=False)
    return (
        [load(file, found.kind, names, options) for file in found.files],
        found.files,
        found.ignored,
    )


def load_file(file: str, kind: str, names: Sequence[str], options: Mapping[str, Any]) -> Any:
    """The rows of one file in these columns; in its own columns if one of these is missing."""
    readers: dict[str, Callable[..., Any]] = {
        "parquet": pd.read_parquet,
        "csv": pd.read_csv,
        "json": partial(pd.read_json, orient="records", lines=True),
        "orc": pd.read_orc,
    }
    usual = {"sep": "\t"} if kind == "csv" and is_tabbed(file) else {}
    try:
        frame = readers[kind](file, **{**usual, **options})
    except Exception as error:
        error.add_note(f"in {file}")
        raise
    return frame[list(names)] if names and set(names) <= set(frame.columns) else frame


def is_tabbed(file: str) -> bool:
    """Whether the columns of a file of text have tabs between them, by its ending."""
    return ".tsv" in [ending.lower() for ending in Path(file).suffixes[-2:]]


def _empty(found: Found, storage: Mapping[str, Any]) -> list[str]:
    """Files of text without a byte, which Dask's reader skips in silence: they are to fail on their own."""
    if found.kind != "csv":
        return []
    systems = ((file, *url_to_fs(file, **storage)) for file in found.files)
    return [file for file, system, inside in systems if system.info(inside).get("size") == 0]


# -- frames ----------------------------------------------------------------------------------------


def _reader(kind: str, files: list[str], options: dict[str, Any], source: str | None) -> Any:
    # fsspec would take brackets in the name of a file that is there for a pattern.
    paths = [_literal(file) if has_magic(file) else file for file in files]
    if kind == "parquet":
        return dd.read_parquet(paths, **options)
    if kind == "orc":
        return dd.read_orc(paths, **options)
    if kind == "json":
        return dd.read_json(paths, **options)
    is_compressed = any(Path(file).suffix.lower() in COMPRESSED for file in files)
    usual: dict[str, Any] = {"blocksize": None} if is_compressed else {}
    if all(map(is_tabbed, files)):
        usual["sep"] = "\t"
    # Whole numbers in the first rows are no promise for the rest: without this, a file with a decimal point fails.
    frame = dd.read_csv(paths, **{"assume_missing": True, **usual, **options})
    if source in frame.columns and frame.dtypes[source].kind == "f" and "dtype" not in options:
        # The numbers of sensors stay whole, and may be missing.
        whole = dd.read_csv(paths, **{**usual, **options}).dtypes[source].kind == "i"
        if whole:
            options = {**options, "dtype": {source: "Int64"}}
            frame = dd.read_csv(paths, **{"assume_missing": True, **usual, **options})
    return frame


def _file_by_file(found: Found, options: Mapping[str, Any], error: Exception) -> Any:
    """The same where Dask's reader cannot look into the first file: files that cannot be read fail on their own.

    Raises
    ------
    CommandError
        If no file can be read.
    """
    for file in found.files:
        try:
            example = load_file(file, found.kind, (), options).iloc[:0]
        except Exception:
            continue
        how = {"kind": found.kind, "names": (), "options": dict(options)}
        return dd.from_map(load_file, found.files, **how, meta=example)
    if isinstance(error, OSError) and error.errno is not None:
        raise CommandError(Exit.NO_INPUT, f"{_first_line(error)}") from error
    text = f"the {found.kind} files cannot be read: {_first_line(_cause(error))}"
    raise CommandError(Exit.DATA, text) from error


def _chosen(frame: Any, request: Request) -> Any:
    """The features and the column of the source; an error says which columns there are."""
    there = [str(name) for name in frame.columns]
    wanted = _split(request.columns, there)
    features = wanted or [n for n in there if n != request.source and not _NAMELESS.fullmatch(n)]
    needed = [*features, *([request.source] if request.source is not None else [])]
    missing = [name for name in needed if name not in there]
    if missing:
        near = difflib.get_close_matches(missing[0], there, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise CommandError(
            Exit.DATA, f"no column {missing[0]!r}; the columns are {_listed(there)}.{hint}"
        )
    numeric = set(frame._meta.select_dtypes("number").columns)
    texts = [name for name in features if name not in numeric]
    if texts:
        usable = [name for name in features if name in numeric]
        advice = f"Name the columns of numbers: --columns {','.join(usable)}" if usable else ""
        one = "columns hold" if len(texts) > 1 else "column holds"
        raise CommandError(Exit.DATA, f"{one} no numbers: {_listed(texts)}. {advice}".strip())
    return frame if request.keeps_others else frame[list(dict.fromkeys(needed))]


def _split(columns: Sequence[str], there: Sequence[str]) -> list[str]:
    """Names that were given one by one or with commas between them; a name may hold commas itself."""
    found: list[str] = []
    for text in columns:
        found += [text] if text in there else [name.strip() for name in text.split(",")]
    return [name for name in dict.fromkeys(found) if name]


def _listed(names: Sequence[str]) -> str:
    more = (
        f" and {len(names) - MOST_LISTED_COLUMNS} more" if len(names) > MOST_LISTED_COLUMNS else ""
    )
    return ", ".join(map(repr, names[:MOST_LISTED_COLUMNS])) + more


def reader_options(texts: Sequence[str]) -> dict[str, Any]:
    """``KEY=VALUE`` texts as arguments of a reader; a value is JSON if it can be, else text.

    Raises
    ------
    CommandError
        If there is no "=" in one of them.
    """
    found: dict[str, Any] = {}
    for text in texts:
        key, is_pair, value = text.partition("=")
        if not is_pair or not key:
            raise CommandError(Exit.USAGE, f"--read must be KEY=VALUE; got {text!r}.")
        try:
            found[key.strip()] = json.loads(value)
        except ValueError:
            found[key.strip()] = value
    return found
