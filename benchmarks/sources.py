"""Claim: a corrupted source whose rows lie in all files is excluded only with ``source=``.

    python benchmarks/sources.py --data DIR [--cost 20x20x5000 100x50x10000] [--repeats 3]

1. Cost. Parquet files of rows from the population (overlap .1, K = 5, 10 columns), every file with rows of every
   sensor. "read" is reading the features of all files and nothing else. "grouped" is all that ``source="sensor"`` does
   before the fits (finding the sensors and their rows), reading included. "Dask's shuffle" sends the rows to the same
   places with ``set_index(divisions=...)``. It may use disk or the workers (p2p), and does not restore the order of
   rows. "mixed" is ``mix_partitions``. There are two threads, or a cluster of two processes of one thread; the table
   shows medians.
2. Error. Some of 20 sensors are corrupted, their rows in all of 20 files. The table shows W1 to the truth of fits whose
   sources are files or sensors, over that of the reduction of the clean sensors alone.
3. Mixing. The same rows sorted by their first column and cut into 20 partitions: W1 by the number of pieces, over that
   of rows in random order. The same with one corrupted file among 20 of clean, unsorted rows: mixing spreads what is
   corrupted.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import psutil
from clusters import local_cluster
from common import draw_rows, population
from output import benchmark_parser, print_table, recorded

from dask_dfmr import GaussianMixture, aggregate, mix_partitions, mixing_distance
from dask_dfmr.on_dask.by_column import sources_of
from dask_dfmr.on_dask.scheduling.scheduler import active_scheduler

K = 5
COLUMNS = [f"x{j}" for j in range(10)]
TRUTH = population(0.1, 1)

# -- data ----------------------------------------------------------------------------------------


def draw_frame(n: int, n_sensors: int, rng: np.random.Generator) -> pd.DataFrame:
    """``n`` clean rows in random order, the same number from every sensor."""
    frame = pd.DataFrame(draw_rows(TRUTH, n, rng), columns=COLUMNS)
    names = np.array([f"S{j:03d}" for j in range(n_sensors)], dtype=object)
    return frame.assign(sensor=names[rng.permutation(np.arange(n) % n_sensors)])


def ensure_files(folder: Path, n_sensors: int, n_files: int, n_rows: int) -> Path:
    """A folder of files in which all sensors have rows; it is written if it is not there."""
    folder = folder / f"spread-{n_sensors}-{n_files}-{n_rows}"
    if not folder.exists():
        folder.mkdir(parents=True)
        for i in range(n_files):
            frame = draw_frame(n_rows, n_sensors, np.random.default_rng([n_sensors, n_files, i]))
            frame.to_parquet(folder / f"part-{i:04d}.parquet", index=False)
    return folder


# -- cost ----------------------------------------------------------------------------------------


@contextmanager
def two_threads() -> Iterator[None]:
    """Dask's default scheduler with two threads."""
    with dask.config.set(scheduler="threads", num_workers=2):
        yield


SCHEDULERS = {"two threads": two_threads, "two processes": local_cluster}


def cpu_seconds() -> float:
    """CPU seconds of this process and of the processes that it started."""
    me = psutil.Process()
    times = [process.cpu_times() for process in (me, *me.children(recursive=True))]
    return sum(t.user + t.system for t in times)


def measure(job: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Median wall and CPU seconds, after one run that is not counted."""
    job()
    found = []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), cpu_seconds()
        job()
        found.append((time.perf_counter() - wall, cpu_seconds() - cpu))
    wall, cpu = np.median(found, axis=0)
    return float(wall), float(cpu)


def count_rows(loader: Any, *values: Any) -> int:
    """Load the rows of one source and count them."""
    return len(loader(*values))


def load_all(X: dd.DataFrame, source: str | None) -> list[int]:
    """Load the rows of every source, as its fit would; return their numbers."""
    scheduler = active_scheduler()
    partitions = sources_of(X, source, scheduler=scheduler)

    def add(g: Any, i: int) -> Any:
        return g.add("count", i, count_rows, partitions.loaders[i], *partitions.loaders[i].refs)

    return scheduler.compute_each(partitions.graph, add, len(partitions))


def send(frame: pd.DataFrame, names: pd.Index) -> pd.DataFrame:
    """The features, with the sensors as numbers in the column "number"."""
    return frame[COLUMNS].assign(number=names.get_indexer(frame["sensor"]))


def shuffle_all(X: dd.DataFrame, n_sensors: int) -> Any:
    """Group the rows by sensor with Dask's own shuffle; return their numbers."""
    names = pd.Index([f"S{j:03d}" for j in range(n_sensors)])
    meta = dict.fromkeys(COLUMNS, "f8") | {"number": "i8"}
    numbered = X.map_partitions(send, names, meta=meta)
    with dask.config.set({"optimization.tune.active": False}):
        grouped = numbered.set_index("number", divisions=list(range(n_sensors + 1)))
        return grouped.map_partitions(len).compute()


def cost_row(X: dd.DataFrame, n_sensors: int, scheduler: Any, repeats: int) -> list[str]:
    """The measurements of one size on one scheduler; the last entry is the share of grouping in the fit's CPU."""
    jobs: list[Callable[[], Any]] = [
        lambda: GaussianMixture(K, random_state=0).fit(X[COLUMNS]),
        lambda: load_all(X[COLUMNS], None),
        lambda: load_all(X, "sensor"),
        lambda: shuffle_all(X, n_sensors),
        lambda: load_all(mix_partitions(X[COLUMNS], 0), None),
    ]
    with scheduler():
        found = [measure(job, repeats) for job in jobs]
    fit, read, grouped = (cpu for _, cpu in found[:3])
    return [*(f"{wall:.2f} / {cpu:.2f}" for wall, cpu in found), f"{(grouped - read) / fit:.0%}"]


def cost_rows(folder: Path, sizes: list[str], repeats: int) -> Iterator[list[Any]]:
    """One line per size and scheduler."""
    for size in sizes:
        n_sensors, n_files, n_rows = map(int, size.split("x"))
        X = dd.read_parquet(ensure_files(folder, n_sensors, n_files, n_rows))
        for name, scheduler in SCHEDULERS.items():
            cells = cost_row(X, n_sensors, scheduler, repeats)
            yield [n_sensors, n_files, f"{n_files * n_rows:,}", name, *cells]


# -- error ---------------------------------------------------------------------------------------


def shifted(rows: np.ndarray) -> np.ndarray:
    """The first column shifted by two of its standard deviations."""
    return rows + 2 * TRUTH_SCALE * (np.arange(rows.shape[1]) == 0)


def swapped(rows: np.ndarray) -> np.ndarray:
    """The first two columns exchanged."""
    return rows[:, [1, 0, *range(2, rows.shape[1])]]


def other_unit(rows: np.ndarray) -> np.ndarray:
    """The first column in another unit."""
    return rows * np.where(np.arange(rows.shape[1]) == 0, 10.0, 1.0)


TRUTH_SCALE = float(draw_rows(TRUTH, 10_000, np.random.default_rng(0))[:, 0].std())
KINDS = {"shifted": shifted, "swapped columns": swapped, "other unit": other_unit}


def w1(gm: Any) -> float:
    """Distance of a fit, or of a mixture, to the truth."""
    return mixing_distance(getattr(gm, "mixture_", gm), TRUTH)


def error_row(kind: str, n_corrupted: int, seeds: int) -> list[Any]:
    """One line: medians over seeds of the errors over the oracle's, and mean numbers of excluded files and sensors."""
    ratios, counts = [], []
    for seed in range(seeds):
        rng = np.random.default_rng([17, seed])
        frame = draw_frame(20_000, 20, rng)
        corrupted = frame["sensor"].isin([f"S{j:03d}" for j in range(n_corrupted)]).to_numpy()
        frame.loc[corrupted, COLUMNS] = KINDS[kind](frame.loc[corrupted, COLUMNS].to_numpy())
        X = dd.from_pandas(frame, npartitions=20)
        files = GaussianMixture(K, random_state=seed).fit(X[COLUMNS])
        sensors = GaussianMixture(K, random_state=seed, source="sensor").fit(X)
        oracle = aggregate(list(sensors.estimates_)[n_corrupted:], method="mr").mixture
        ratios.append([w1(oracle), w1(files) / w1(oracle), w1(sensors) / w1(oracle)])
        kept = sensors.support_
        counts.append(
            [(~files.support_).sum(), (~kept[:n_corrupted]).sum(), (~kept[n_corrupted:]).sum()]
        )
    oracle, by_file, by_sensor = np.median(ratios, axis=0)
    excluded = [f"{count:.1f}" for count in np.mean(counts, axis=0)]
    return [kind, n_corrupted, f"{oracle:.3f}", f"{by_file:.2f}", f"{by_sensor:.2f}", *excluded]


def mixing_rows(seeds: int) -> Iterator[list[Any]]:
    """The lines for sorted rows and for one corrupted file, one a number of pieces."""
    pieces = [None, 2, 4, 8, 20]
    found: dict[Any, list[list[float]]] = {n: [] for n in pieces}
    for seed in range(seeds):
        rng = np.random.default_rng([18, seed])
        frame = draw_frame(20_000, 20, rng)[COLUMNS]
        reference = w1(fit_of(frame, None, seed))
        in_order = frame.sort_values("x0", ignore_index=True)
        corrupted = frame.copy()
        corrupted[:1000] = other_unit(corrupted[:1000].to_numpy())
        for n in pieces:
            fits = [fit_of(in_order, n, seed), fit_of(corrupted, n, seed)]
            excluded = [(~gm.support_).mean() for gm in fits]
            found[n].append(
                [w1(fits[0]) / reference, excluded[0], w1(fits[1]) / reference, excluded[1]]
            )
    for n, values in found.items():
        a, b, c, d = np.median(values, axis=0)
        yield ["not mixed" if n is None else n, f"{a:.2f}", f"{b:.0%}", f"{c:.2f}", f"{d:.0%}"]


def fit_of(frame: pd.DataFrame, n_pieces: int | None, seed: int) -> GaussianMixture:
    """A fit of 20 partitions, mixed with ``n_pieces`` pieces or as they are (None)."""
    X = dd.from_pandas(frame, npartitions=20)
    X = X if n_pieces is None else mix_partitions(X, seed, n_pieces)
    return GaussianMixture(K, random_state=seed, on_failed="ignore").fit(X)


def main() -> None:
    """Print the tables."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="where files are written, once")
    sizes = ["20x20x5000", "100x50x10000", "200x100x5000"]
    parser.add_argument("--cost", nargs="*", default=sizes, metavar="SENSORSxFILESxROWS")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("distributed").setLevel(logging.ERROR)
    with recorded(options):
        if options.cost:
            header = ["sensors", "files", "rows", "on", "fit, wall / CPU s", "read", "grouped"]
            header += ["Dask's shuffle", "mixed", "grouping, of the fit's CPU"]
            print_table(header, cost_rows(options.data, options.cost, options.repeats))
        if options.seeds:
            dask.config.set(scheduler="synchronous")
            print_errors(options.seeds)


def print_errors(seeds: int) -> None:
    """The tables of errors with corrupted sensors, and of mixing."""
    header = ["corrupted sensors", "how many of 20", "W1 of the oracle", "files, over it"]
    header += [
        "sensors, over it",
        "files excluded",
        "corrupted sensors excluded",
        "clean ones excluded",
    ]
    cases = [(kind, n_corrupted) for kind in KINDS for n_corrupted in (1, 4, 8)]
    print_table(header, [error_row(*case, seeds) for case in cases])
    header = [
        "pieces",
        "sorted rows: W1 over unsorted",
        "excluded",
        "one corrupted file: W1",
        "excluded",
    ]
    print_table(header, mixing_rows(seeds))


if __name__ == "__main__":
    main()
