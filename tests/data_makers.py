"""Small seeded data: two Gaussian clusters in two columns, cut into partitions.

Everything here is at module level, so that it pickles and can be read by other processes.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd

from dask_dfmr import ExclusionWarning, Mixture

COLUMNS = ["x", "y"]
TRUTH = Mixture(
    [0.65, 0.35],
    [[3.0, 1.0], [-3.0, 0.0]],
    [[[1.5, -0.2], [-0.2, 0.5]], [[1.0, 0.3], [0.3, 1.0]]],
    feature_names=COLUMNS,
)
META = pd.DataFrame({name: np.empty(0) for name in COLUMNS})


def make_rows(seed: int = 0, n: int = 200) -> np.ndarray:
    """Rows of the partition with this number."""
    X, _ = TRUTH.sample(n, seed)
    return np.random.default_rng(seed).permutation(X)


def make_frame(seed: int = 0, n: int = 200) -> pd.DataFrame:
    """The same as a frame, with the index that it has in the whole."""
    return pd.DataFrame(make_rows(seed, n), columns=COLUMNS, index=np.arange(n) + seed * n)


def make_ddf(m: int = 6, reader: Any = make_frame, **kwargs: Any) -> dd.DataFrame:
    """A lazy frame of m partitions, each as ``reader(i)`` gives it; divisions are unknown."""
    return dd.from_map(reader, range(m), meta=META, **kwargs)


def make_array(m: int = 6, n: int = 200) -> da.Array:
    """The same rows as a dask Array."""
    return da.from_array(np.concatenate([make_rows(i, n) for i in range(m)]), chunks=(n, 2))


def make_delayed(m: int = 6, reader: Any = make_frame) -> list[Any]:
    """The same rows as a list of Delayed."""
    return [dask.delayed(reader)(i) for i in range(m)]


def write_parquet(folder: Path, m: int = 6, n_more_columns: int = 0, n: int = 200) -> list[str]:
    """One file a partition; the paths."""
    paths = []
    for i in range(m):
        frame = make_frame(i, n)
        for j in range(n_more_columns):
            frame[f"more{j}"] = np.arange(n) + j
        paths.append(str(folder / f"part.{i:03d}.parquet"))
        frame.to_parquet(paths[-1])
    return paths


def same_bits(a: Mixture, b: Mixture) -> bool:
    """Whether two mixtures are equal to the last bit."""
    return all(
        getattr(a, name).tobytes() == getattr(b, name).tobytes()
        for name in ("weights", "means", "covariances")
    )


# -- readers that something happens to -----------------------------------------------------------


class Reader:
    """Gives the frame of a partition, except where ``bad`` says what happens to that partition."""

    __name__ = "read"  # of which dask makes the names of its keys

    def __init__(self, bad: dict[int, Any], n: int = 200) -> None:
        self.bad, self.n = bad, n

    def __call__(self, i: int) -> Any:
        frame = make_frame(i, self.n)
        return self.bad[i](frame) if i in self.bad else frame


def broken(frame: Any) -> Any:
    """A reader that raises."""
    raise OSError("the disk is gone")


def empty(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.iloc[:0]


def short(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.iloc[:5]


def other_unit(frame: pd.DataFrame) -> pd.DataFrame:
    return frame * 1000


def rolled(frame: pd.DataFrame) -> pd.DataFrame:
    """The right names over the wrong columns."""
    return frame[COLUMNS[::-1]].set_axis(COLUMNS, axis=1)


def renamed(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.rename(columns={"y": "z"})


def text(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(y="a")


def constant(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(y=1.0)


def with_nan(frame: pd.DataFrame) -> pd.DataFrame:
    """Three rows with NaN in y, one of them in x too."""
    frame = frame.copy()
    frame.iloc[[0, 7, 9], 1] = np.nan
    frame.iloc[7, 0] = np.nan
    return frame


def with_infinity(frame: pd.DataFrame) -> pd.DataFrame:
    frame = frame.copy()
    frame.iloc[3, 0] = np.inf
    return frame


def sleeping(frame: pd.DataFrame) -> pd.DataFrame:
    time.sleep(3)
    return frame


def deadly(frame: pd.DataFrame) -> pd.DataFrame:
    """Take the worker down."""
    os._exit(1)


class CountingReader:
    """Leaves a file for every call, so that calls can be counted whatever process made them."""

    __name__ = "read"  # of which dask makes the names of its keys

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __call__(self, i: int) -> pd.DataFrame:
        Path(self.folder, f"{i}-{uuid4().hex}").touch()
        return make_frame(i)

    def count(self) -> dict[int, int]:
        """How often each partition was read."""
        names = [path.name for path in Path(self.folder).iterdir()]
        numbers = [int(name.split("-")[0]) for name in names]
        return {i: numbers.count(i) for i in sorted(set(numbers))}


class WaitingReader:
    """One partition says which process reads it, and waits until it may go on."""

    __name__ = "read"  # of which dask makes the names of its keys

    def __init__(self, folder: Path, waiting: int) -> None:
        self.folder, self.waiting = str(folder), waiting

    def __call__(self, i: int) -> pd.DataFrame:
        if i == self.waiting:
            Path(self.folder, f"reader-{os.getpid()}").touch()
            for _ in range(600):
                if Path(self.folder, "go on").exists():
                    break
                time.sleep(0.05)
        return make_frame(i)

    def release(self) -> None:
        """Let the reader go on."""
        Path(self.folder, "go on").touch()

    def wait_for_process(self) -> int:
        """The process that waits now."""
        for _ in range(600):
            for path in Path(self.folder).glob("reader-*"):
                return int(path.name.split("-")[1])
            time.sleep(0.05)
        raise TimeoutError("nobody read the partition")


def other_notes(aggregate):
    """The notes without that of the exclusions, which names estimates by their numbers."""
    return [note for note in aggregate.notes if note.category is not ExclusionWarning]
