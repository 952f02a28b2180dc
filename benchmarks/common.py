"""What the benchmark scripts share: populations, partitions, tables, CPU clocks and the words for the machine."""

from __future__ import annotations

import os
import platform
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
import distributed
import numpy as np
import scipy
import sklearn
from dask.callbacks import Callback

import dask_dfmr
from dask_dfmr import LocalEstimate, Mixture
from dask_dfmr.mixtures.gaussian import Gaussian

OVERLAPS = (0.1, 0.2, 0.3)
SEEDS = (1, 2)

# -- populations and rows ------------------------------------------------------------------------


def population(overlap: float, seed: int) -> Mixture:
    """A MixSim population of the paper's design, K = 5 in 10 columns; see data/README.md."""
    with np.load(Path(__file__).with_name("data") / "populations.npz") as data:
        return Mixture(*(data[f"o{overlap:g}_s{seed}_{x}"] for x in ("weights", "means", "covs")))


def populations() -> Iterator[tuple[float, int, Mixture]]:
    """All six of them: overlap, seed, mixture."""
    for overlap in OVERLAPS:
        for seed in SEEDS:
            yield overlap, seed, population(overlap, seed)


def draw_rows(mixture: Mixture, n: int, rng: np.random.Generator) -> np.ndarray:
    """``n`` rows in random order."""
    rows, _ = mixture.sample(n, np.random.RandomState(rng.integers(2**31)))
    return rows[rng.permutation(n)]


def draw_partitions(mixture: Mixture, m: int, n: int, rng: np.random.Generator) -> list[np.ndarray]:
    """The rows of ``m`` honest machines."""
    return [draw_rows(mixture, n, rng) for _ in range(m)]


def estimates_around(
    center: Mixture, n_rows: int, rng: np.random.Generator
) -> Iterator[LocalEstimate]:
    """Without end: local estimates as ``n_rows`` rows each would give them, had they no overlap.

    Drawn from the normal law whose covariance is the inverse complete-data information, which is
    what estimates have where responsibilities are 0 or 1; with overlap they lie farther apart.
    """
    family, origin = center.family, (center.weights, center.components)
    n_coordinates = len(family.coordinates(*origin, origin))
    root = np.sqrt(center.weights)
    while True:
        v = rng.standard_normal(n_coordinates) / np.sqrt(n_rows)
        v[: len(root)] -= root * (root @ v[: len(root)])  # weights sum to one
        drawn = family.from_coordinates(v, origin)
        if drawn is not None:
            yield LocalEstimate(family.mixture(*drawn), n_rows)


# -- clocks --------------------------------------------------------------------------------------


class StageClock(Callback):
    """CPU seconds and rows passed through EM, by stage of the graph; for the synchronous scheduler."""

    def __init__(self) -> None:
        super().__init__()
        self.cpu: Counter[str] = Counter()
        self.rows: Counter[str] = Counter()
        self._seen = 0

    def __enter__(self) -> StageClock:
        self._counting = counted_rows()
        self._count = self._counting.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._counting.__exit__(*error)

    def _pretask(self, key: Any, dsk: Any, state: Any) -> None:
        self._started, self._seen = time.process_time(), self._count[0]

    def _posttask(self, key: Any, result: Any, dsk: Any, state: Any, worker: Any) -> None:
        name = key[0] if isinstance(key, tuple) else key
        stage = str(name).split("-")[0].removeprefix("dfmr_")
        self.cpu[stage] += time.process_time() - self._started
        self.rows[stage] += self._count[0] - self._seen


@contextmanager
def counted_rows() -> Iterator[list[int]]:
    """How many rows went through ``em_pass`` so far, as a list of one number."""
    count, em_pass = [0], Gaussian.em_pass

    def counting(self: Gaussian, X: Any, *point: Any) -> Any:
        count[0] += len(X)
        return em_pass(self, X, *point)

    Gaussian.em_pass = counting
    try:
        yield count
    finally:
        Gaussian.em_pass = em_pass


# -- words ---------------------------------------------------------------------------------------


def print_machine() -> None:
    """The machine and the versions behind a table."""
    print(f"Machine: {os.cpu_count()} cores, {_cpu_model()}, {platform.system()}")
    versions = {"Python": platform.python_version()} | {
        module.__name__: module.__version__
        for module in (dask_dfmr, np, scipy, sklearn, dask, distributed)
    }
    print(", ".join(f"{name} {version}" for name, version in versions.items()), end="\n\n")


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def print_table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A markdown table that is also readable as it stands."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    for line in (header, ["-" * width for width in widths], *cells):
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print(f"| {' | '.join(padded)} |", flush=True)
    print()
