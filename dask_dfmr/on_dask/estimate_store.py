"""Local estimates that are kept after a fit: in memory if they are small, else block by block on disk."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
import zipfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Self, overload

import numpy as np

from dask_dfmr.local.estimate import LocalEstimate
from dask_dfmr.mixtures.family import Family
from dask_dfmr.on_dask.tasks import estimate_of
from dask_dfmr.untrusted import as_json, portable, read_members, write_members

PLAIN = "messages.json"
"""Name of the member that holds everything but arrays."""

MEMORY_LIMIT = 256 * 2**20
"""Bytes of estimates that stay in memory with ``keep_estimates="auto"``, at most."""


def write_block(messages: Sequence[Any], path: str, family: Family | None = None) -> str:
    """Write the estimates of messages to one ``.npz`` file, all that is no array as one JSON text; no pickle.

    A malformed message becomes an estimate without a mixture, and with the reason, as it does in memory. So whatever a
    worker sent costs its own partition alone.

    Returns
    -------
    str
        The path.
    """
    arrays: dict[str, Any] = {}
    plain: list[dict[str, Any]] = []
    for i, message in enumerate(messages):
        own = estimate_of(message, family).to_arrays()
        arrays |= {
            f"{i}/{name}": portable(value)
            for name, value in own.items()
            if isinstance(value, np.ndarray)
        }
        plain.append(
            {name: as_json(value) for name, value in own.items() if f"{i}/{name}" not in arrays}
        )
    with open(path, "wb") as file, zipfile.ZipFile(file, "w") as archive:
        write_members(archive, PLAIN, plain, arrays)
    return path


def read_block(path: str) -> list[dict[str, Any]]:
    """The messages that :func:`write_block` wrote.

    Raises
    ------
    ValueError
        If the file is no such file.
    """
    messages, arrays = read_members(path, PLAIN, "a block of estimates", list)
    if not all(isinstance(message, dict) for message in messages):
        raise ValueError(f"{path}: {PLAIN} must be a list of messages.")
    for name, array in arrays.items():
        i, _, field = name.partition("/")
        if not i.isdecimal() or int(i) >= len(messages):
            raise ValueError(f"{path}: {name} belongs to none of the {len(messages)} messages.")
        messages[int(i)][field] = array
    return messages


class StoredEstimates(Sequence[LocalEstimate]):
    """Local estimates on disk, read block by block on access; the files are deleted with the object.

    The object never changes, so it is its own copy. A pickle holds the content of all files.
    """

    def __init__(self, n_estimates: int, block_size: int, family: Family) -> None:
        self._folder = tempfile.mkdtemp(prefix="dask-dfmr-")
        self._cleanup = weakref.finalize(self, _remove, self._folder, os.getpid())
        self._n_estimates = n_estimates
        self._block_size = block_size
        self._family = family
        self._read = lru_cache(maxsize=2)(read_block)

    def path(self, block: int) -> str:
        """Path of the file of block number ``block``, whether it is written yet or not."""
        return str(Path(self._folder) / f"block-{block:06d}.npz")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        n_blocks = -(-self._n_estimates // self._block_size)
        contents = [Path(self.path(block)).read_bytes() for block in range(n_blocks)]
        arguments = (self._n_estimates, self._block_size, self._family)
        return _unpickled, (type(self), arguments, contents)

    def __len__(self) -> int:
        return self._n_estimates

    @overload
    def __getitem__(self, index: int) -> LocalEstimate: ...
    @overload
    def __getitem__(self, index: slice) -> list[LocalEstimate]: ...
    def __getitem__(self, index: int | slice) -> LocalEstimate | list[LocalEstimate]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = range(len(self))[index]
        block, offset = divmod(position, self._block_size)
        return estimate_of(self._read(self.path(block))[offset], self._family, position)

    def __repr__(self) -> str:
        return f"StoredEstimates({len(self)} local estimates in {self._folder})"


def _remove(folder: str, process: int) -> None:
    # A process that was forked from this one has the object, but the files are not its own.
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


def _unpickled(
    kind: type[StoredEstimates], arguments: tuple[int, int, Family], contents: Sequence[bytes]
) -> StoredEstimates:
    """Estimates with files of their own, which have these contents."""
    stored = kind(*arguments)
    for block, content in enumerate(contents):
        Path(stored.path(block)).write_bytes(content)
    return stored
