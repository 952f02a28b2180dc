"""Folders of parquet files for the benchmarks: plain partitions, and the jobs that contestants get.

A job's folder holds ``partitions/*.parquet``, each one row group of float64 columns, snappy. Some of the partitions may
be corrupted. ``truth.npz``, ``held_out.npy`` and ``job.json`` are for the evaluation only. ``job.json`` is written
last: a folder without it is not complete.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from common import draw_rows, population
from mixsim import mixsim

from dask_dfmr import Mixture

N_HELD_OUT = 100_000
FEWEST_PARTITIONS = 20
"""A job scaled below this many partitions gets smaller ones instead."""

POPULATION, ROWS, HELD_OUT, CORRUPTION = range(4)
"""First number of the spawn key of each stream of random numbers."""


@dataclass(frozen=True)
class Case:
    """A population, drawn for an overlap of its worst pair, and the number of rows and partitions drawn from it."""

    draw_population: Callable[[float], Mixture]
    overlap: float
    n_rows: int
    n_partitions: int


CASES = {
    "moderate": Case(lambda overlap: population(overlap, 1), 0.1, 10_000_000, 100),
    "wide": Case(lambda overlap: mixsim(10, 30, overlap, seed=1), 0.1, 2_000_000, 40),
    # Long components in random directions cross even where the component of few rows is in doubt.
    "slow": Case(
        lambda overlap: mixsim(8, 10, overlap, seed=8, elongation=100), 0.02, 5_000_000, 50
    ),
}


@dataclass(frozen=True)
class Job:
    """The description of a job on disk; ``corrupted`` are the numbers of its corrupted partitions."""

    name: str
    case: str
    n_components: int
    n_partitions: int
    partition_rows: int
    kind: str = ""
    share: float = 0.0
    corrupted: tuple[int, ...] = ()

    @property
    def n_rows(self) -> int:
        """Number of rows in all partitions."""
        return self.n_partitions * self.partition_rows


def partitions_folder(folder: Path) -> Path:
    """The folder of a job's parquet files."""
    return folder / "partitions"


def write_rows(path: Path, rows: np.ndarray) -> None:
    """Write one partition: float64 columns, one row group, snappy."""
    table = pa.table({f"x{j}": np.ascontiguousarray(column) for j, column in enumerate(rows.T)})
    pq.write_table(table, path, compression="snappy", row_group_size=len(rows))


def read_rows(path: Path) -> np.ndarray:
    """The rows of a partition."""
    return pq.read_table(path).to_pandas().to_numpy()


def partition_path(folder: Path, i: int) -> Path:
    """The file of partition ``i``."""
    return partitions_folder(folder) / f"part-{i:05d}.parquet"


def write_partitions(folder: Path, n: int, m: int) -> list[Path]:
    """``m`` files of ``n`` rows of a population; only missing files are written."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"part-{i:05d}.parquet" for i in range(m)]
    for i, path in enumerate(paths):
        if not path.exists():
            partial = path.with_suffix(".partial")
            write_rows(partial, draw_rows(population(0.1, 1), n, np.random.default_rng([n, i])))
            partial.rename(path)
    return paths


# -- clean jobs ----------------------------------------------------------------------------------


def ensure_job(data: Path, case: str, scale: float = 1.0, overlap: float | None = None) -> Path:
    """The folder of a clean job; it is written if it is not there."""
    size = CASES[case]
    overlap = size.overlap if overlap is None else overlap
    n_rows = max(1, round(scale * size.n_rows))
    m = max(min(size.n_partitions, FEWEST_PARTITIONS), round(scale * size.n_partitions))
    n = n_rows // m
    folder = data / f"{case}-o{overlap:g}-{m}x{n}"
    if (folder / "job.json").exists():
        return folder
    truth = size.draw_population(overlap)
    _clear(folder)
    for i in range(m):
        write_rows(partition_path(folder, i), draw_rows(truth, n, _rng(ROWS, i)))
    np.savez(
        folder / "truth.npz",
        weights=truth.weights,
        means=truth.means,
        covariances=truth.covariances,
    )
    np.save(folder / "held_out.npy", draw_rows(truth, N_HELD_OUT, _rng(HELD_OUT, 0)))
    _write_job(folder, Job(folder.name, case, truth.n_components, m, n))
    return folder


def load_job(folder: Path) -> Job:
    """The description of the job in a folder."""
    fields = json.loads((folder / "job.json").read_text())
    return Job(**{**fields, "corrupted": tuple(fields["corrupted"])})


def _write_job(folder: Path, job: Job) -> None:
    (folder / "job.json").write_text(json.dumps(asdict(job)))


def _clear(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    partitions_folder(folder).mkdir(parents=True)


def _rng(stream: int, i: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(0, spawn_key=(stream, i)))


# -- corrupted jobs ------------------------------------------------------------------------------


def garbage(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Uniform noise over ten times every column's range."""
    middle, spread = (rows.max(axis=0) + rows.min(axis=0)) / 2, np.ptp(rows, axis=0)
    return middle + 10 * spread * rng.uniform(-0.5, 0.5, size=rows.shape)


def times_1000(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """All columns in a wrong unit."""
    return 1000 * rows


def rolled(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Every column under the name of its neighbour."""
    return np.roll(rows, 1, axis=1)


KINDS = {"garbage": garbage, "x1000": times_1000, "rolled": rolled}


def ensure_corrupted(clean: Path, kind: str, share: float) -> Path:
    """The folder of the same job with a seeded share of its partitions corrupted; the others are links."""
    folder = clean.with_name(f"{clean.name}-{kind}-{share:g}")
    if (folder / "job.json").exists():
        return folder
    job = load_job(clean)
    n_corrupted = round(share * job.n_partitions)
    chosen = sorted(
        _rng(CORRUPTION, 0).choice(job.n_partitions, n_corrupted, replace=False).tolist()
    )
    _clear(folder)
    for i in range(job.n_partitions):
        source, target = partition_path(clean, i), partition_path(folder, i)
        if i in chosen:
            write_rows(target, KINDS[kind](read_rows(source), _rng(CORRUPTION, 1 + i)))
        else:
            os.link(source, target)
    for name in ("truth.npz", "held_out.npy"):
        os.link(clean / name, folder / name)
    fields = {"name": folder.name, "kind": kind, "share": share, "corrupted": tuple(chosen)}
    _write_job(folder, replace(job, **fields))
    return folder
