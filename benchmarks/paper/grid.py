"""The grid as one lazy Dask graph. Each cell that is done is a file, and a later run computes what has none.

The tasks of a cell are: its population, the local fits, the pooled fits, one task for each attack, and the file. The
rows are drawn again where they are needed. The fits of a cell serve all attacks, and a population all of its cells.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

import dask
from dask.delayed import Delayed, delayed
from distributed import Client, as_completed
from threadpoolctl import threadpool_limits

from dask_dfmr import Mixture
from dask_dfmr.attacks import Adversary, recruit
from paper.local_fits import LocalFits, fit_machines, pooled_fit, refined
from paper.measures import measure
from paper.methods import (
    DEFAULT,
    HARDENED,
    ORACLE,
    POOLED,
    REFINED,
    Result,
    run_methods,
    timed_aggregate,
)
from paper.populations import Cell, draw_machines, draw_population, held_out

NONE = "none"
ATTACKS: dict[str, tuple[str, float | None]] = {
    NONE: ("mean", None),
    "mean": ("mean", None),
    "covariance": ("covariance", None),
    "weight": ("weight", None),
}
"""Attacks by name, each with its entry in the package's catalogue and a strength. None attacks at the rate 0."""

UNSCALED = "covariance without d^-2"
"""The covariance attack of the published scripts, which add B B^T."""

RATES = (0.1, 0.2, 0.3, 0.4)

Lines = list[dict[str, Any]]


class Job(NamedTuple):
    """What is done in a cell: its attacks and rates, whether the hardened filter runs, where to refine and to pool."""

    attacks: tuple[str, ...] = tuple(ATTACKS)
    rates: tuple[float, ...] = RATES
    hardened: bool = False
    refined_at: tuple[float, ...] = ()
    pooled_at: tuple[float, ...] = (0.0,)


class Part(NamedTuple):
    """The value of a task and its CPU seconds."""

    value: Any
    seconds: float


def _timed(task: Any) -> Any:
    """The task with its CPU seconds, on one thread of BLAS, without warnings."""

    @wraps(task)
    def run(*args: Any) -> Part:
        began = time.thread_time()
        with warnings.catch_warnings(), threadpool_limits(1):
            warnings.simplefilter("ignore")
            value = task(*args)
        return Part(value, time.thread_time() - began)

    return run


# -- the tasks -----------------------------------------------------------------------------------


@_timed
def make_population(*population: int | float) -> Mixture:
    """The population of some cells."""
    return draw_population(*population)


@_timed
def make_fits(cell: Cell, truth: Part) -> LocalFits:
    """The local fits of a cell."""
    return fit_machines(cell, truth.value)


@_timed
def try_pooled(cell: Cell, job: Job, truth: Part, fits: Part) -> Lines:
    """The pooled fit to the rows of the honest machines at some rates, which are the same for all attacks."""
    machines, test = draw_machines(cell, truth.value), held_out(cell, truth.value)
    lines = []
    for rate in job.pooled_at:
        adversary = _adversary(cell, fits.value, rate)
        honest = [machines[i] for i in range(cell.m) if not adversary.is_bad[i]]
        oracle = adversary.mixture(*adversary.origin)
        began = time.thread_time()
        found = pooled_fit(cell, honest, oracle).mixture
        assert found is not None
        result = Result(POOLED, found, ~adversary.is_bad, time.thread_time() - began)
        line = measure(result, oracle, truth.value, test, adversary.is_bad)
        lines.append({"attack": NONE, "rate": rate} | line)
    return lines


@_timed
def try_attack(cell: Cell, job: Job, attack: str, truth: Part, fits: Part) -> Lines:
    """All methods under one attack at every rate; without an attack at the rate 0."""
    test = held_out(cell, truth.value)
    machines = draw_machines(cell, truth.value) if job.refined_at else []
    lines = []
    for rate in (0.0,) if attack == NONE else job.rates:
        adversary = _adversary(cell, fits.value, rate)
        oracle = Result(ORACLE, adversary.mixture(*adversary.origin), ~adversary.is_bad)
        sent = adversary.corrupt(
            *(ATTACKS | {UNSCALED: ("covariance", cell.n_features**2.0)})[attack]
        )
        results = [oracle, *run_methods(sent.estimates, job.hardened)]
        if attack == NONE:
            results = [_with_seconds(result, sent.estimates) for result in results]
        if rate in job.refined_at:
            results.append(_refined(cell, machines, fits.value, sent.estimates))
        for result in results:
            line = measure(result, oracle.mixture, truth.value, test, adversary.is_bad)
            lines.append({"attack": attack, "rate": rate} | line)
    return lines


def _adversary(cell: Cell, fits: LocalFits, rate: float) -> Adversary:
    """The bad machines of a rate; those of a smaller rate are among them."""
    return recruit(fits.estimates, rate, random_state=cell.seed)


def _with_seconds(result: Result, estimates: Sequence[Any]) -> Result:
    """The result with the seconds of a whole aggregation by its method alone."""
    if result.method not in (DEFAULT, HARDENED):
        return result
    return result._replace(seconds=timed_aggregate(estimates, result.method)[1])


def _refined(
    cell: Cell, machines: Sequence[Any], fits: LocalFits, estimates: Sequence[Any]
) -> Result:
    began = time.thread_time()
    fit = refined(cell, list(machines), fits, timed_aggregate(estimates, DEFAULT)[0])
    return Result(REFINED, fit.aggregate.mixture, fit.kept, time.thread_time() - began)


def write_cell(folder: Path, cell: Cell, fits: Part, parts: Sequence[Part]) -> Path:
    """Write the lines of a cell into its file, which is there as a whole or not at all."""
    found = {
        "cell": cell._asdict(),
        "fits": {"slowest": fits.value.slowest, "all": fits.value.seconds},
        "seconds": fits.seconds + sum(part.seconds for part in parts),
        "lines": [line for part in parts for line in part.value],
    }
    path = file_of(folder, cell)
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(found))
    return beside.rename(path)


# -- the graph -----------------------------------------------------------------------------------


def file_of(folder: Path, cell: Cell) -> Path:
    """Where the results of a cell are."""
    return folder / f"{cell.name}.json"


def lazy_grid(jobs: Mapping[Cell, Job], folder: Path) -> list[Delayed]:
    """One lazy file for each cell that has none, all in one graph, in the order of the cells."""
    populations: dict[Any, Delayed] = {}
    files = []
    for place, (cell, job) in enumerate(jobs.items()):
        if file_of(folder, cell).exists():
            continue
        with dask.annotate(priority=-place):
            if cell.population not in populations:
                populations[cell.population] = delayed(make_population, pure=False)(
                    *cell.population
                )
            files.append(_lazy_cell(cell, job, folder, populations[cell.population]))
    return files


def _lazy_cell(cell: Cell, job: Job, folder: Path, truth: Delayed) -> Delayed:
    fits = delayed(make_fits, pure=False)(cell, truth)
    attacks = [
        delayed(try_attack, pure=False)(cell, job, attack, truth, fits) for attack in job.attacks
    ]
    pooled = delayed(try_pooled, pure=False)(cell, job, truth, fits)
    return delayed(write_cell, pure=False)(folder, cell, fits, [pooled, *attacks])


def run_grid(
    client: Client, jobs: Mapping[Cell, Job], folder: Path, seconds: float | None = None
) -> Iterator[Path]:
    """Compute the cells without a file on a cluster; yields files as they come, until all are there or time is over.

    What runs when time is over is lost, and a later run computes it again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    futures = client.compute(lazy_grid(jobs, folder))
    try:
        for future in as_completed(futures, timeout=seconds):
            yield future.result()
    except TimeoutError:
        pass
    finally:
        client.cancel(futures)


def read_results(jobs: Iterable[Cell], folder: Path) -> list[dict[str, Any]]:
    """The contents of the files of some cells, as far as they are there."""
    paths = [file_of(folder, cell) for cell in jobs]
    return [json.loads(path.read_text()) for path in paths if path.exists()]
