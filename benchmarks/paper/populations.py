"""The populations of the grid and their rows. Nothing is stored: a cell and a block of rows have a seed each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from mixsim import paper_population

from dask_dfmr import Mixture

BLOCK = 10_000
"""Rows that one seed draws. A smaller number of rows in all is the beginning of a larger one."""

HELD_OUT = 5000
"""Rows for the measures. All methods of a draw are measured on the same ones, so that their differences are precise."""

OF_HELD_OUT = 2**31
"""The block of the held-out rows, which no local fit reaches."""


class Cell(NamedTuple):
    """One draw: a population, the rows of ``m`` machines, and the start of their local fits."""

    overlap: float
    m: int
    n_rows: int
    start: str
    seed: int
    n_components: int = 5
    n_features: int = 10

    @property
    def name(self) -> str:
        """Name of its file without the ending."""
        size = f"K{self.n_components}_d{self.n_features}_o{self.overlap:g}_m{self.m}_N{self.n_rows}"
        return f"{size}_{self.start}_s{self.seed}".replace(" ", "-")

    @property
    def population(self) -> tuple[int, int, float, int]:
        """What the population depends on: the arguments of :func:`mixsim.paper_population`."""
        return self.n_components, self.n_features, self.overlap, self.seed


class Labeled(NamedTuple):
    """Rows (n, n_features), and the components that they were drawn from (n,)."""

    rows: np.ndarray
    labels: np.ndarray


def draw_population(*population: int | float) -> Mixture:
    """The population of all cells that agree in ``Cell.population``."""
    return paper_population(*population)


def draw_block(cell: Cell, truth: Mixture, block: int) -> Labeled:
    """``BLOCK`` independent rows of the population."""
    n_components, n_features, overlap, seed = cell.population
    rng = np.random.default_rng([n_components, n_features, round(1000 * overlap), seed, block])
    labels = rng.choice(n_components, size=BLOCK, p=truth.weights)
    rows = rng.standard_normal((BLOCK, n_features))
    roots = np.linalg.cholesky(truth.covariances)
    for k in range(n_components):
        of_one = labels == k
        rows[of_one] = truth.means[k] + rows[of_one] @ roots[k].T
    return Labeled(rows, labels)


def draw_machines(cell: Cell, truth: Mixture) -> list[np.ndarray]:
    """The rows of every machine: arrays (n_rows // m, n_features)."""
    blocks = [draw_block(cell, truth, b).rows for b in range(-(-cell.n_rows // BLOCK))]
    n = cell.n_rows // cell.m
    return np.split(np.concatenate(blocks)[: n * cell.m], cell.m)


def held_out(cell: Cell, truth: Mixture) -> Labeled:
    """``HELD_OUT`` rows that no machine has."""
    blocks = list(_held_out_blocks(cell, truth))
    rows, labels = (np.concatenate(parts)[:HELD_OUT] for parts in zip(*blocks, strict=True))
    return Labeled(rows, labels)


def _held_out_blocks(cell: Cell, truth: Mixture) -> Iterator[Labeled]:
    for b in range(-(-HELD_OUT // BLOCK)):
        yield draw_block(cell, truth, OF_HELD_OUT + b)
