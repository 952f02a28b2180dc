"""More data than memory: a fit holds one partition per thread, never all of them.

A worker with a memory limit fits a mixture to a folder that is larger than this limit, and in which
four files are broken. The files are written one after the other, so that this process never holds
the data either. They are removed at the end.

    python examples/out_of_core.py                    # 1 GB on disk, one to three minutes
    python examples/out_of_core.py --rows 2000000 --keep
"""

from __future__ import annotations

import argparse
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import dask.dataframe as dd
import numpy as np
import pandas as pd
from cytometry import print_excluded
from distributed import Client

from dask_dfmr import GaussianMixture, Mixture, aggregate, mixing_distance

COLUMNS = [f"x{j}" for j in range(10)]
N_COMPONENTS = 3
ROWS_PER_FILE = 50_000


# -- the data ------------------------------------------------------------------------------------


def make_truth(seed: int = 0) -> Mixture:
    """A mixture of broad components that overlap."""
    rng = np.random.default_rng(seed)
    d = len(COLUMNS)
    factors = rng.normal(size=(N_COMPONENTS, d, d)) / np.sqrt(d)
    return Mixture(
        weights=rng.dirichlet(np.full(N_COMPONENTS, 10.0)),
        means=rng.normal(scale=0.5, size=(N_COMPONENTS, d)),
        covariances=factors @ factors.transpose(0, 2, 1) + 0.3 * np.eye(d),
        feature_names=COLUMNS,
    )


def overlap_of(mixture: Mixture) -> float:
    """Share of the rows that even the true mixture assigns to the wrong component."""
    rows, components = mixture.sample(ROWS_PER_FILE, random_state=0)
    return float((mixture.predict(rows) != components).mean())


def another_unit(rows: pd.DataFrame) -> pd.DataFrame:
    """Metres became millimetres."""
    return rows * 1000


def stuck_sensor(rows: pd.DataFrame) -> pd.DataFrame:
    """One column stays at its first value."""
    return rows.assign(x4=rows["x4"].iloc[0])


def shifted_columns(rows: pd.DataFrame) -> pd.DataFrame:
    """Every column contains the values of its neighbour."""
    return pd.DataFrame(np.roll(rows.to_numpy(), 1, axis=1), columns=rows.columns)


def cut_off(path: Path) -> None:
    """The writing of a file was interrupted."""
    with path.open("r+b") as file:
        file.truncate(1_000_000)


BROKEN: dict[float, Callable[[pd.DataFrame], pd.DataFrame]] = {
    0.2: another_unit,
    0.4: stuck_sensor,
    0.7: shifted_columns,
}
"""By position in the folder, as a share: the damage to the rows of the file there."""
CUT_OFF = 0.9
"""Position in the folder, as a share, of the file that cannot be read at all."""


def write_files(folder: Path, truth: Mixture, n_files: int) -> list[Path]:
    """Write the files one by one; return those that can be read."""
    broken = {int(share * n_files): damage for share, damage in BROKEN.items()}
    paths = [folder / f"part-{i:04d}.parquet" for i in range(n_files)]
    for i, path in enumerate(paths):
        values, _ = truth.sample(ROWS_PER_FILE, random_state=i)
        rows = pd.DataFrame(values, columns=COLUMNS)
        if i in broken:
            rows = broken[i](rows)
        rows.to_parquet(path, index=False)
    cut_off(paths.pop(int(CUT_OFF * n_files)))
    return paths


# -- the fit -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """The report, memory in bytes, and the errors of both mixtures as W1 to the truth."""

    report: pd.DataFrame
    data_size: int
    memory_limit: int
    peak_memory: int
    robust_error: float
    plain_error: float


def main(arguments: Sequence[str] | None = None) -> Result:
    """Write more than fits into memory, fit it, tell."""
    options = parse(arguments)
    # The workers start first: on Linux a child's peak memory begins with that of its parent.
    with Client(n_workers=1, threads_per_worker=2, memory_limit=options.memory_limit) as client:
        folder = Path(tempfile.mkdtemp(prefix="dask-dfmr-", dir=options.folder))
        try:
            return write_and_fit(client, folder, options.rows // ROWS_PER_FILE)
        finally:
            if options.keep:
                print(f"\nkept {folder}")
            else:
                shutil.rmtree(folder)


def write_and_fit(client: Client, folder: Path, n_files: int) -> Result:
    """Write the files, fit them and print the results."""
    truth = make_truth()
    readable = write_files(folder, truth, n_files)
    data_size = n_files * ROWS_PER_FILE * len(COLUMNS) * 8
    (worker,) = client.scheduler_info()["workers"].values()
    limit = worker["memory_limit"]
    print(f"data          {data_size / 1e6:>6,.0f} MB in {n_files} files of {ROWS_PER_FILE:,} rows")
    print(f"memory limit  {limit / 1e6:>6,.0f} MB")
    print(f"overlap       {overlap_of(truth):>6.0%} of the rows misread even by the true mixture\n")

    start = perf_counter()
    dd.read_parquet(readable).sum().compute()
    print(f"reading alone {perf_counter() - start:>6.1f} s, without the file that cannot be read")

    start = perf_counter()
    gm = GaussianMixture(N_COMPONENTS, random_state=0).fit(dd.read_parquet(folder))
    print(f"fit           {perf_counter() - start:>6.1f} s")
    peak = max(client.run(peak_memory).values())
    print(f"peak memory   {peak / 1e6:>6,.0f} MB, the worker's process with all its libraries\n")

    print_excluded(gm.partition_report_)
    plain = aggregate(gm.estimates_, method="mr").mixture
    robust_error, plain_error = (mixing_distance(m, truth) for m in (gm.mixture_, plain))
    print("\ndistance to the truth, W1")
    print(f"  {robust_error:<8.3g} robust: inconsistent files excluded")
    print(f"  {plain_error:<8.3g} plain:  every file that has an estimate")
    return Result(gm.partition_report_, data_size, limit, peak, robust_error, plain_error)


def peak_memory() -> int:
    """The most memory that this process ever had in use, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=12_000_000, help="of ten float64 columns")
    parser.add_argument("--memory-limit", default="800MB", help="of the worker")
    parser.add_argument("--folder", type=Path, help="where to make the folder; default: temporary")
    parser.add_argument("--keep", action="store_true", help="do not remove the files")
    options = parser.parse_args(arguments)
    if options.rows < 10 * ROWS_PER_FILE:
        parser.error(f"--rows must be at least {10 * ROWS_PER_FILE:,}: ten files")
    return options


if __name__ == "__main__":
    main()
