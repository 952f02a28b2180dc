"""Populations, partitions, local estimates and CPU clocks that the benchmark scripts share."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from dask.callbacks import Callback

from dask_dfmr import LocalEstimate, Mixture
from dask_dfmr.mixtures.gaussian import Gaussian

OVERLAPS = (0.1, 0.2, 0.3)
SEEDS = (1, 2)

# -- populations and rows ------------------------------------------------------------------------


def population(overlap: float, seed: int) -> Mixture:
    """A MixSim population of the paper's design: 5 components in 10 columns; see data/README.md."""
    with np.load(Path(__file__).with_name("data") / "populations.npz") as data:
        return Mixture(*(data[f"o{overlap:g}_s{seed}_{x}"] for x in ("weights", "means", "covs")))


def populations() -> Iterator[tuple[float, int, Mixture]]:
    """All six populations of the file, each with its overlap and its seed."""
    for overlap in OVERLAPS:
        for seed in SEEDS:
            yield overlap, seed, population(overlap, seed)


def draw_rows(mixture: Mixture, n: int, rng: np.random.Generator) -> np.ndarray:
    """``n`` rows of a mixture, shape (n, n_features), in random order."""
    rows, _ = mixture.sample(n, np.random.RandomState(rng.integers(2**31)))
    return rows[rng.permutation(n)]


def draw_partitions(mixture: Mixture, m: int, n: int, rng: np.random.Generator) -> list[np.ndarray]:
    """``m`` clean partitions of ``n`` rows each."""
    return [draw_rows(mixture, n, rng) for _ in range(m)]


def estimates_around(
    center: Mixture, n_rows: int, rng: np.random.Generator
) -> Iterator[LocalEstimate]:
    """An endless stream of local estimates as fits of ``n_rows`` rows each would give them without overlap.

    They are drawn from a normal law around ``center``. Its covariance is the inverse of the information that rows with
    known components hold. Estimates of rows whose components overlap lie farther apart than these.
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
    """CPU seconds (``cpu``) and rows that went through EM (``rows``), by stage of the graph.

    It works with the synchronous scheduler only.
    """

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
    """Count the rows that go through passes of EM; the count is the only entry of the list."""
    count, em_pass, em_steps = [0], Gaussian.em_pass, Gaussian.em_steps

    def counting(self: Gaussian, X: Any, *point: Any) -> Any:
        count[0] += len(X)
        return em_pass(self, X, *point)

    def counting_steps(self: Gaussian, X: Any, *given: Any) -> Any:
        before = count[0]
        steps = em_steps(self, X, *given)
        if count[0] == before:  # compiled steps call no pass
            count[0] += steps.n_steps * len(X)
        return steps

    Gaussian.em_pass, Gaussian.em_steps = counting, counting_steps
    try:
        yield count
    finally:
        Gaussian.em_pass, Gaussian.em_steps = em_pass, em_steps
