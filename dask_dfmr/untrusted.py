"""Nothing but plain values: messages of machines and files of strangers, taken for what they hold and never run.

Whatever is not made of numbers, texts and numeric arrays is refused before anybody looks at it, and nothing larger
than what is really there is made room for.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import stat
import struct
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO

import numpy as np

NUMERIC_KINDS = "biuf"
"""Kinds of arrays that are bits of numbers: no objects, no texts, no dates."""

MAX_TEXT = 100_000
"""Characters of one text in a message."""

PORTABLE_DTYPES = ("<f8", "<i8", "|b1")
"""Arrays in files hold one of these."""


# -- messages ---------------------------------------------------------------------------------------


def not_plain(value: Any, name: str = "message") -> str | None:
    """What in a value is no plain value; None if all of it is.

    Plain are None, bool, int, float, str, numeric arrays, and dicts with str for keys, lists and tuples of
    them: of exactly these types, since a subclass may do anything.
    """
    kind = type(value)
    if value is None or kind in (bool, int, float) or isinstance(value, (np.number, np.bool_)):
        return None
    if kind in (str, np.str_):
        too_long = len(value) > MAX_TEXT
        return f"{name} is a text of {len(value)} characters" if too_long else None
    if kind is np.ndarray:
        found = value.dtype
        return (
            None if found.kind in NUMERIC_KINDS and not found.hasobject else f"{name} is of {found}"
        )
    if kind is dict:
        odd = next((key for key in value if type(key) is not str), None)
        if odd is not None:
            return f"{name} has a key of type {type(odd).__name__}"
        items = [(f"{name}[{key!r}]", item) for key, item in value.items()]
    elif kind in (list, tuple):
        items = [(f"{name}[{i}]", item) for i, item in enumerate(value)]
    else:
        return f"{name} is of type {kind.__module__}.{kind.__qualname__}"
    if name.count("[") > 3:
        return f"{name} is nested too deeply"
    return next((text for key, item in items if (text := not_plain(item, key))), None)


def plain_mapping(value: Any) -> Mapping[str, Any] | str:
    """A message if it is a dict of plain values, else what is wrong with it."""
    wrong = not_plain(value)
    if wrong is None and type(value) is dict:
        return value
    return wrong or f"message is of type {type(value).__qualname__}"


# -- files ------------------------------------------------------------------------------------------


def parse_json(text: str | bytes) -> Any:
    """A JSON document as the standard has it: no NaN, and no name twice in an object.

    Raises
    ------
    ValueError
        If it is none, or nested too deeply to be read.
    """
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(
            f"the name {next(n for n in names if names.count(n) > 1)!r} is there twice"
        )
    if list(found) == ["number"] and found["number"] in ("nan", "inf", "-inf"):
        return float(found["number"])  # type: ignore[return-value]  # a number that JSON has no word for
    return found


def _first_twice(names: Iterable[str]) -> str:
    seen: set[str] = set()
    return next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def parse_array(name: str, content: bytes) -> Any:
    """An array of the shape that its npy header says, if the content is as long as that says.

    Raises
    ------
    ValueError
        If it is not, or is of a type other than ``PORTABLE_DTYPES``.
    """
    buffer = io.BytesIO(content)
    if np.lib.format.read_magic(buffer) != (1, 0):
        raise ValueError(f"{name} must be an array in the format npy 1.0.")
    try:
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(buffer)
    except (SyntaxError, TypeError, RecursionError, MemoryError) as error:  # of its literal
        raise ValueError(f"{name} has no header of an array ({type(error).__name__}).") from error
    if dtype.str not in PORTABLE_DTYPES or is_fortran:
        raise ValueError(
            f"{name} must hold one of {', '.join(PORTABLE_DTYPES)} in C order; got {dtype.str!r}."
        )
    rest = content[buffer.tell() :]
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(rest):
        raise ValueError(f"{name} must hold {shape} numbers; it is {len(rest)} bytes long.")
    return np.frombuffer(rest, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def portable(array: Any) -> Any:
    """The same numbers as little-endian float64, int64 or bool, in C order."""
    array = np.ascontiguousarray(array)
    kind = {"f": "<f8", "i": "<i8", "u": "<i8", "b": "|b1"}[array.dtype.kind]
    return array.astype(kind)


def as_json(value: Any) -> Any:
    """Numbers as JSON has them: NaN and infinity become words."""
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"number": repr(value)}
    return value


def write_members(
    archive: zipfile.ZipFile, document_name: str, document: Any, arrays: Mapping[str, Any]
) -> None:
    """A document of :func:`as_json` and portable arrays as members of an archive that does not compress."""
    archive.writestr(document_name, json.dumps(document, allow_nan=False, indent=1))
    for name, array in arrays.items():
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, array, allow_pickle=False)
        archive.writestr(f"{name}.npy", buffer.getvalue())


def read_members(
    path: str | os.PathLike[str], document_name: str, what: str, kind: type
) -> tuple[Any, dict[str, Any]]:
    """The document and the arrays, by name without the ending, of an archive that was written so.

    Nothing is unpacked or extracted: members lie in the file as they are, so that reading them takes no more memory
    than the file is long, a few times over.

    Parameters
    ----------
    path : path-like
        Of a regular file.
    document_name : str
        The member that is the document.
    what : str
        What the file should be, for errors.
    kind : type
        Of the document: dict or list.

    Raises
    ------
    OSError
        If the file cannot be opened.
    ValueError
        If it is anything else than such an archive, whatever that trips over.
    """
    name = os.fspath(path)
    with open_regular(path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                return _members(archive, os.fstat(file.fileno()).st_size, document_name, kind)
        except _BROKEN as error:
            text = str(error) or type(error).__name__
            raise ValueError(f"{name} is not {what}: {text.rstrip('.')}.") from error


_BROKEN = (
    ValueError,
    OSError,
    RuntimeError,
    EOFError,
    LookupError,
    zipfile.BadZipFile,
    struct.error,
)
"""What zipfile, json and numpy raise over broken files; NotImplementedError and RecursionError are RuntimeErrors."""


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file, and not something that never ends or never begins, like a device or a pipe.

    Raises
    ------
    OSError
        If there is no such file, or it may not be read.
    ValueError
        If it is no regular file.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError(f"{os.fspath(path)} is no regular file.")
    return open(path, "rb")


def _members(
    archive: zipfile.ZipFile, size: int, document_name: str, kind: type
) -> tuple[Any, dict[str, Any]]:
    infos = archive.infolist()
    names = [info.filename for info in infos]
    if len(set(names)) < len(names):
        raise ValueError(f"the member {_first_twice(names)!r:.100} is there twice")
    if document_name not in names:
        raise ValueError(f"it has no member {document_name!r}")
    if any(info.compress_type != zipfile.ZIP_STORED for info in infos):
        raise ValueError("its members must be stored, without compression")
    if sum(info.file_size for info in infos) > size:
        raise ValueError("its members claim to be longer than the file")
    odd = [n for n in names if n != document_name and not _MEMBER.fullmatch(n)]
    if odd:
        raise ValueError(f"{odd[0]!r:.100} is no name of a member")
    try:
        document = parse_json(archive.read(document_name))
    except ValueError as error:
        raise ValueError(f"not JSON ({error})") from error
    if not isinstance(document, kind):
        raise ValueError(f"{document_name} must be a JSON {kind.__name__}")
    arrays = {
        info.filename.removesuffix(".npy"): parse_array(info.filename, archive.read(info))
        for info in infos
        if info.filename != document_name
    }
    return document, arrays


_MEMBER = re.compile(r"[a-z0-9_-]{1,40}/[a-z0-9_]{1,40}\.npy")
