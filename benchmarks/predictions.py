"""Claim: log-densities, labels and probabilities of rows cost a fraction of scikit-learn's.

    python benchmarks/predictions.py [--rows 2_000_000 --partitions 20 --repeats 3 --data DIR]

The mixture is the population of the rows (5 components in 10 columns), with its covariances reduced to each type.
scikit-learn's model has the same parameters. CPU seconds, one thread, contestants alternated, medians.

1. One ndarray, with each engine.
2. A Dask frame from parquet files, on the synchronous scheduler: ``model.predict(X)`` against ``X.map_partitions`` with
   the method of scikit-learn's model. Both read the files and return a frame or series with the index of X.
3. The method ``score`` of the frame, over reading the files once (``X.map_partitions(len)``).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
from common import draw_rows, population
from em_pass import start_of
from jobs import write_rows
from output import benchmark_parser, print_progress, print_table, recorded
from sklearn.mixture import GaussianMixture as SklearnMixture
from threadpoolctl import threadpool_limits

from dask_dfmr import GaussianMixture, Mixture
from dask_dfmr.mixtures import engine

METHODS = ("score_samples", "predict", "predict_proba")
TYPES = ("full", "tied", "diag", "spherical")
ARRAY_TARGET, FRAME_TARGET, SCORE_TARGET = 6, 2, 2


def sklearn_of(mixture: Mixture) -> SklearnMixture:
    """scikit-learn's fitted model with the parameters of a mixture."""
    covariances, kind = mixture.covariances, mixture.covariance_type
    model = SklearnMixture(mixture.n_components, covariance_type=kind)
    model.weights_, model.means_, model.covariances_ = mixture.weights, mixture.means, covariances
    if kind == "full":
        roots = np.linalg.cholesky(covariances)
        model.precisions_cholesky_ = np.linalg.inv(roots).transpose(0, 2, 1)
    elif kind == "tied":
        model.precisions_cholesky_ = np.linalg.inv(np.linalg.cholesky(covariances)).T
    else:
        model.precisions_cholesky_ = 1 / np.sqrt(covariances)
    model.n_features_in_ = mixture.n_features
    return model


def ours_of(mixture: Mixture) -> GaussianMixture:
    """Our fitted model with the parameters of a mixture."""
    tied = mixture.covariances
    covariances = tied[0] if mixture.covariance_type == "tied" and tied.ndim == 3 else tied
    mixture = Mixture(mixture.weights, mixture.means, covariances, mixture.covariance_type)
    return GaussianMixture.from_mixture(mixture)


def by_sklearn(frame: pd.DataFrame, model: SklearnMixture, method: str) -> Any:
    """What a user would map over the partitions."""
    found = getattr(model, method)(frame.to_numpy())
    if found.ndim == 1:
        return pd.Series(found, index=frame.index, name=method)
    columns = [f"component_{k}" for k in range(found.shape[1])]
    return pd.DataFrame(found, index=frame.index, columns=columns)


def cpu_of(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median CPU seconds of each call; they run in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            began = time.process_time()
            call()
            seconds[name].append(time.process_time() - began)
    return {name: median(values) for name, values in seconds.items()}


def with_engine(name: str, call: Callable[[], Any]) -> Callable[[], Any]:
    """The call in a block of an engine."""

    def run() -> Any:
        with engine.use(name):
            return call()

    return run


def rows_of_table(
    mixture: Mixture, methods_of: Callable[[Any, Any, str], tuple[Any, Any]], repeats: int
) -> list[list[Any]]:
    """Lines of a table: CPU seconds of scikit-learn and of both engines, and the ratios."""
    lines = []
    for kind in TYPES:
        reduced = start_of(mixture, kind)
        model, theirs = ours_of(reduced), sklearn_of(reduced)
        model.predict(mixture.means)  # compiles
        for method in METHODS:
            other, own = methods_of(model, theirs, method)
            calls = {"sklearn": other} | {e: with_engine(e, own) for e in ("numba", "numpy")}
            cpu = cpu_of(calls, repeats)
            ratios = [f"{cpu['sklearn'] / cpu[e]:.1f}" for e in ("numba", "numpy")]
            times = [f"{cpu[name]:.3f}" for name in ("sklearn", "numba", "numpy")]
            lines.append([kind, method, *times, *ratios])
            print_progress(*lines[-1])
    return lines


def write_partitions(folder: Path, rows: np.ndarray, n_partitions: int) -> None:
    """Parquet files of equal size, unless they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, part in enumerate(np.array_split(rows, n_partitions)):
        path = folder / f"part_{i:03}.parquet"
        if not path.exists():
            write_rows(path, part)


def print_tables(folder: Path, n_rows: int, n_partitions: int, repeats: int) -> None:
    """All tables."""
    mixture = population(0.1, 1)
    rows = draw_rows(mixture, n_rows, np.random.default_rng(0))
    write_partitions(folder, rows, n_partitions)
    frame = dd.read_parquet(folder)
    seconds = ("sklearn s", "compiled s", "NumPy s")
    print(f"One ndarray of {n_rows:,} rows (target: {ARRAY_TARGET} times):\n")

    def of_array(model: Any, theirs: Any, method: str) -> tuple[Any, Any]:
        return lambda: getattr(theirs, method)(rows), lambda: getattr(model, method)(rows)

    lines = rows_of_table(mixture, of_array, repeats)
    print_table(("type", "method", *seconds, "compiled x", "NumPy x"), lines)
    print(f"A Dask frame of {n_partitions} files (target: {FRAME_TARGET} times):\n")

    def of_frame(model: Any, theirs: Any, method: str) -> tuple[Any, Any]:
        meta = getattr(model, method)(frame)._meta
        other = frame.map_partitions(by_sklearn, theirs, method, meta=meta)
        return other.compute, lambda: getattr(model, method)(frame).compute()

    lines = rows_of_table(mixture, of_frame, repeats)
    print_table(("type", "method", *seconds, "compiled x", "NumPy x"), lines)
    print(f"score of the frame over a read (target: at most {SCORE_TARGET} times):\n")
    model = ours_of(mixture)
    calls: dict[str, Callable[[], Any]] = {
        "read": lambda: frame.map_partitions(len, meta=(None, int)).compute()
    }
    calls |= {e: with_engine(e, lambda: model.score(frame)) for e in ("numba", "numpy")}
    cpu = cpu_of(calls, repeats)
    values = [f"{cpu[name]:.3f}" for name in ("read", "numba", "numpy")]
    ratios = [f"{cpu[name] / cpu['read']:.2f}" for name in ("numba", "numpy")]
    header = ("read s", "compiled s", "NumPy s", "compiled, of a read", "NumPy, of a read")
    print_table(header, [[*values, *ratios]])


def main() -> None:
    """Print the tables."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--partitions", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--data", type=Path, help="where the files are kept; a temporary folder")
    options = parser.parse_args()
    with (
        recorded(options),
        threadpool_limits(1),
        dask.config.set(scheduler="synchronous"),
        tempfile.TemporaryDirectory(prefix="predictions-") as temporary,
    ):
        folder = options.data or Path(temporary)
        print_tables(folder, options.rows, options.partitions, options.repeats)


if __name__ == "__main__":
    main()
