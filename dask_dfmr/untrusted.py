"""Messages and files from untrusted senders, read as plain values and never executed.

Everything that is not made of numbers, texts and numeric arrays is refused before it is used. No more memory is
allocated than the data that are really there need.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import secrets
import shutil
import stat
import struct
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

import numpy as np

NUMERIC_KINDS = "biuf"
"""Kinds of NumPy arrays that hold plain numbers: no objects, no texts, no dates."""

MAX_TEXT = 100_000
"""Largest number of characters of one text in a message."""

MAX_DEPTH = 3
"""Largest depth of nested lists and dicts in a message."""

PORTABLE_DTYPES = ("<f8", "<i8", "|b1")
"""The types of arrays in files."""


# -- messages ---------------------------------------------------------------------------------------


NUMPY_SCALARS = tuple(
    sorted(
        {t for t in np.sctypeDict.values() if np.dtype(t).kind in NUMERIC_KINDS},
        key=lambda t: t.__name__,
    )
)
"""Types of NumPy's plain numbers."""


def not_plain(value: Any, name: str = "message") -> str | None:
    """The first part of a value that is not plain, in words; None if all of it is plain.

    Plain values are None, bool, int, float, str, numbers of NumPy, numeric arrays, and lists, tuples and dicts (with
    str keys) of plain values. Their types must be exactly these, because a subclass can execute any code. Types are
    compared for identity, and a value that is not plain is not asked anything, because its type can execute code too.

    Parameters
    ----------
    value : object
    name : str
        The name of the value in the text.
    """
    kind = type(value)
    if value is None or _is_one_of(kind, (bool, int, float, *NUMPY_SCALARS)):
        return None
    if _is_one_of(kind, (str, np.str_)):
        if len(value) > MAX_TEXT:
            return f"{name} is a text of {len(value)} characters"
        return None if is_unicode(value) else f"{name} is a text with half a character"
    if kind is np.ndarray:
        is_numeric = value.dtype.kind in NUMERIC_KINDS and not value.dtype.hasobject
        return None if is_numeric else f"{name} is an array of kind {value.dtype.kind!r}"
    if kind is dict:
        odd = next((type(key) for key in value if type(key) is not str), None)
        if odd is not None:
            return f"{name} has a key of type {type_name(odd)}"
        items = [(f"{name}[{key!r}]", item) for key, item in value.items()]
    elif _is_one_of(kind, (list, tuple)):
        items = [(f"{name}[{i}]", item) for i, item in enumerate(value)]
    else:
        return f"{name} is of type {type_name(kind)}"
    if name.count("[") > MAX_DEPTH:
        return f"{name} is nested too deeply"
    return next((text for key, item in items if (text := not_plain(item, key))), None)


def is_unicode(text: str) -> bool:
    """Whether a text can be written: Python's texts may have halves of characters, which pandas and files refuse."""
    try:
        str.encode(text, "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _is_one_of(kind: type, kinds: Sequence[type]) -> bool:
    # `in` would call the comparison of a metaclass.
    return any(kind is known for known in kinds)


def type_name(kind: type) -> str:
    """The name of a type for a message; of a type that may compute its name only that it is unknown."""
    if type(kind) is not type:
        return "unknown"
    names = (kind.__module__, kind.__qualname__)
    return ".".join(names) if all(type(one) is str for one in names) else "unknown"


def plain_mapping(value: Any) -> Mapping[str, Any] | str:
    """The message itself if it is a dict of plain values, otherwise the reason in words why it is not."""
    wrong = not_plain(value)
    if wrong is None and type(value) is dict:
        return value
    return wrong or f"message is of type {type_name(type(value))}"


# -- files ------------------------------------------------------------------------------------------


def parse_json(text: str | bytes) -> Any:
    """The value of a strict JSON document.

    Raises
    ------
    ValueError
        If it is no JSON document, contains NaN or infinity, has one name twice in an object, or is nested too deeply.
    """
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | float:
    """The value of a JSON object; the inverse of :func:`as_json` for one object."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"the name {_repeated([name for name, _ in pairs])!r:.100} occurs twice")
    if list(found) == ["number"] and found["number"] in ("nan", "inf", "-inf"):
        return float(found["number"])  # written by `as_json`
    return found


def _repeated(names: Sequence[str]) -> str:
    """The most frequent of several names."""
    return Counter(names).most_common(1)[0][0]


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def parse_array(name: str, content: bytes) -> Any:
    """The array in the content of an npy file.

    Parameters
    ----------
    name : str
        The name of the file in errors.
    content : bytes

    Raises
    ------
    ValueError
        If the content has no header of the format npy 1.0, is not as long as its header says, or holds another type
        than :data:`PORTABLE_DTYPES`.
    """
    buffer = io.BytesIO(content)
    if np.lib.format.read_magic(buffer) != (1, 0):
        raise ValueError(f"{name} must be an array in the format npy 1.0.")
    try:
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(buffer)
    except (SyntaxError, TypeError, RecursionError, MemoryError) as error:
        # NumPy evaluates the header as a Python literal.
        raise ValueError(f"{name} has no valid npy header ({type(error).__name__}).") from error
    if dtype.str not in PORTABLE_DTYPES or is_fortran:
        raise ValueError(
            f"{name} must hold one of {', '.join(PORTABLE_DTYPES)} in C order; got {dtype.str!r}."
        )
    rest = content[buffer.tell() :]
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(rest):
        raise ValueError(f"{name} must hold {shape} numbers; it has {len(rest)} bytes for them.")
    return np.frombuffer(rest, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def portable(array: Any) -> Any:
    """The numbers of an array as little-endian float64, int64 or bool, in C order."""
    array = np.ascontiguousarray(array)
    kind = {"f": "<f8", "i": "<i8", "u": "<i8", "b": "|b1"}[array.dtype.kind]
    return array.astype(kind)


def as_json(value: Any) -> Any:
    """The value with types that JSON has; NaN and infinity become ``{"number": "nan"}`` and the like."""
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"number": repr(value)}
    return value


def write_document(
    path: str | os.PathLike[str], form: str, version: int, content: Mapping[str, Any]
) -> None:
    """Write one JSON object: the name and version of its format, and the content.

    Numbers are written so that reading them as IEEE doubles gives back the same bits.

    Parameters
    ----------
    path : path-like
        Written by :func:`replacing`.
    form : str
        The name of the format.
    version : int
    content : mapping
        Arrays become nested lists, and other values what :func:`as_json` makes of them.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    with replacing(path) as file:
        file.write(document_of(form, version, content))


def document_of(form: str, version: int, content: Mapping[str, Any]) -> bytes:
    """What :func:`write_document` writes."""
    plain = {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in content.items()
    }
    document = as_json({"format": form, "version": version, **plain})
    return json.dumps(document, allow_nan=False, indent=1).encode()


def read_document(
    path: str | os.PathLike[str], form: str, version: int, what: str
) -> dict[str, Any]:
    """The content of a file that :func:`write_document` wrote, without name and version.

    Parameters
    ----------
    path : path-like
        A regular file.
    form : str
        The name of the format.
    version : int
    what : str
        The description of such a file in errors.

    Raises
    ------
    OSError
        If the file does not exist or cannot be read.
    ValueError
        If it is no such file, or has another version.
    """
    with open_regular(path) as file:
        content = file.read()
    name = os.fspath(path)
    try:
        document = parse_json(content)
    except ValueError as error:
        raise ValueError(f"{name} is not {what}: not JSON ({error}).") from error
    check_format(document, form, version, name, what)
    return {k: v for k, v in document.items() if k not in ("format", "version")}


def check_format(document: Any, form: str, version: int, name: str, what: str) -> None:
    """Raise a ValueError unless a JSON document names this format and version; ``name`` is that of its file."""
    if not isinstance(document, dict) or document.get("format") != form:
        raise ValueError(f'{name} is not {what}: expected a JSON object with "format": "{form}".')
    if document.get("version") != version or isinstance(document["version"], bool):
        raise ValueError(
            f"{name}: expected format version {version}, got {document.get('version')!r:.100}; "
            "a newer dask_dfmr may read it."
        )


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file for writing that takes the place of ``path`` when it is complete; after an error nothing changes.

    It is written beside ``path``. It has the permissions of the file that it replaces. A new one has those that the
    umask of the process allows. A link goes on pointing to the same place.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    target = os.path.realpath(os.fsdecode(path))
    beside = os.path.join(os.path.dirname(target), f".dask-dfmr-{secrets.token_hex(8)}")
    # The operating system applies the umask here; tempfile makes files that only their owner can read.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        handle = os.open(beside, flags, 0o666)
    except OSError as error:  # the error names the path of the caller, not the file beside it
        raise type(error)(error.errno, error.strerror, os.fspath(path)) from None
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if os.path.exists(target):
            shutil.copymode(target, beside)
        os.replace(beside, target)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(beside)
        raise


def write_members(
    archive: zipfile.ZipFile, document_name: str, document: Any, arrays: Mapping[str, Any]
) -> None:
    """Write a document and arrays as members of an archive without compression.

    Parameters
    ----------
    archive : ZipFile
    document_name : str
        The name of the document's member.
    document : object
        As :func:`as_json` returns it.
    arrays : mapping of str to ndarray
        As :func:`portable` returns them, by name without the ending ``.npy``.
    """
    archive.writestr(document_name, json.dumps(document, allow_nan=False, indent=1))
    for name, array in arrays.items():
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, array, allow_pickle=False)
        archive.writestr(f"{name}.npy", buffer.getvalue())


def read_members(
    path: str | os.PathLike[str], document_name: str, what: str, kind: type
) -> tuple[Any, dict[str, Any]]:
    """Read an archive that :func:`write_members` wrote.

    Members are not compressed and nothing is extracted to disk, so reading takes no more memory than a few times the
    length of the file.

    Parameters
    ----------
    path : path-like
        A regular file.
    document_name : str
        The name of the document's member.
    what : str
        The description of such a file in errors.
    kind : type
        The type of the document: dict or list.

    Returns
    -------
    document : dict or list
    arrays : dict of str to ndarray
        By name without the ending ``.npy``.

    Raises
    ------
    OSError
        If the file cannot be opened.
    ValueError
        If it is no such archive, whichever error its content causes.
    """
    name = os.fspath(path)
    with open_regular(path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                return _members(archive, os.fstat(file.fileno()).st_size, document_name, kind)
        except _BROKEN as error:
            text = str(error) or type(error).__name__
            raise ValueError(f"{name} is not {what}: {text.rstrip('.')}.") from error


_MEMBER = re.compile(r"[a-z0-9_-]{1,40}/[a-z0-9_]{1,40}\.npy")
"""Names of the arrays' members."""

_BROKEN = (
    ValueError,
    OSError,
    RuntimeError,
    EOFError,
    LookupError,
    zipfile.BadZipFile,
    struct.error,
)
"""Errors of zipfile, json and NumPy for broken files. NotImplementedError and RecursionError are RuntimeErrors."""


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading. A device or a pipe could block, or never end.

    Raises
    ------
    OSError
        If the file does not exist or cannot be read.
    ValueError
        If it is no regular file.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError(f"{os.fspath(path)} is no regular file.")
    return open(path, "rb")


def _members(
    archive: zipfile.ZipFile, size: int, document_name: str, kind: type
) -> tuple[Any, dict[str, Any]]:
    """The document and the arrays of an archive of ``size`` bytes, after checks of its directory."""
    infos = archive.infolist()
    names = [info.filename for info in infos]
    if len(set(names)) < len(names):
        raise ValueError(f"the member {_repeated(names)!r:.100} occurs twice")
    if document_name not in names:
        raise ValueError(f"it has no member {document_name!r}")
    if any(info.compress_type != zipfile.ZIP_STORED for info in infos):
        raise ValueError("its members must be stored, without compression")
    if sum(info.file_size for info in infos) > size:
        raise ValueError("its members claim to be longer than the file")
    odd = [n for n in names if n != document_name and not _MEMBER.fullmatch(n)]
    if odd:
        raise ValueError(f"{odd[0]!r:.100} is no valid name of a member")
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
