"""Fixtures shared by all tests, and what is tolerated of other packages."""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import dask
import dask.dataframe as dd
import distributed
import pytest
from distributed.utils import get_mp_context
from threadpoolctl import threadpool_limits

from dask_dfmr.aggregation import null_law as calibration
from dask_dfmr.mixtures import engine, information
from tests.data_makers import make_ddf

LONGEST_FIRST = (
    *("test_estimator.py", "test_examples.py", "test_graph.py", "test_consensus.py"),
    *("test_faults.py", "test_cluster.py", "test_bad_input.py", "test_by_column.py"),
    *("test_refinement.py", "test_selection.py", "test_answers.py", "test_timeouts.py"),
)
"""Files that take or wait longest. Processes get whole files, so one of these at the end would run alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the longest files, and hold the quick subset quick, whatever expression selects it."""
    rank = {name: i for i, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))
    both = [
        item.nodeid for item in items if {"slow", "smoke"} <= {m.name for m in item.iter_markers()}
    ]
    if both:
        raise pytest.UsageError(f"marked as slow and as smoke: {', '.join(both)}")


@contextmanager
def _raise_if_dask_computes() -> Iterator[None]:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("dask was asked to compute")

    with dask.config.set(scheduler=refuse):
        yield


@pytest.fixture
def raise_if_dask_computes() -> Callable[[], AbstractContextManager[None]]:
    """``with raise_if_dask_computes():`` fails as soon as any collection is computed."""
    return _raise_if_dask_computes


@pytest.fixture(scope="module", params=["numpy", "numba"])
def each_engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every test of a module that uses it runs with NumPy and with the compiled code."""
    with engine.use(request.param):
        yield request.param


@pytest.fixture(scope="module")
def coarse_laws() -> Iterator[None]:
    """Laws of distances from few draws: for modules of many small aggregations that do not look at p-values."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "MOST_DRAWS", 128)
        patch.setattr(calibration, "FEWEST_DRAWS", 128)
        patch.setattr(information, "MOST_DRAWN", 2**11)
        yield


@pytest.fixture
def ddf() -> dd.DataFrame:
    """Six clean partitions of 200 rows in columns x and y."""
    return make_ddf()


@pytest.fixture(scope="session", autouse=True)
def _processes_start_with_everything_loaded() -> Iterator[None]:
    """Fork worker processes from one that has imported the package, where Dask would start each from nothing.

    A worker is there after a tenth of the time, and after a death too. Tests that use ``spawned_processes`` start
    theirs as Dask does by default.
    """
    with _started_by("forkserver"):
        get_mp_context()  # names packages to be loaded, once
        multiprocessing.set_forkserver_preload(["tests.warm"])
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_blas_thread() -> Iterator[None]:
    """Matrices here are small: threads of BLAS cost more than they bring, on a loaded machine many times more."""
    with threadpool_limits(1):
        yield


@pytest.fixture
def several_blas_threads() -> Iterator[None]:
    """As many threads of BLAS as a user's process has by default, and two at least."""
    with threadpool_limits(max(2, os.cpu_count() or 1)):
        yield


@pytest.fixture
def spawned_processes() -> Iterator[None]:
    """Processes of the test are started from nothing, as Dask's default is."""
    with _started_by("spawn"):
        yield


def _started_by(method: str) -> AbstractContextManager[None]:
    names = ("distributed.worker.multiprocessing-method", "multiprocessing.context")
    return dask.config.set(dict.fromkeys(names, method))


@contextmanager
def local_cluster(
    n_workers: int, processes: bool = True, **kwargs: Any
) -> Iterator[distributed.LocalCluster]:
    """A quiet cluster on this machine."""
    with distributed.LocalCluster(
        n_workers=n_workers,
        threads_per_worker=1,
        processes=processes,
        dashboard_address=":0",
        silence_logs=logging.CRITICAL,
        **kwargs,
    ) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[distributed.LocalCluster]:
    """Two worker processes for all tests that treat them well."""
    with local_cluster(2) as cluster:
        yield cluster


@pytest.fixture
def client(cluster: distributed.LocalCluster) -> Iterator[distributed.Client]:
    """A client of the shared cluster, the scheduler of everything computed while it is open."""
    with distributed.Client(cluster) as client:
        yield client


@pytest.fixture(scope="module")
def narrow_cluster() -> Iterator[distributed.LocalCluster]:
    """A cluster that can compute one task at a time."""
    with local_cluster(1, processes=False) as cluster:
        yield cluster


@pytest.fixture
def narrow(narrow_cluster: distributed.LocalCluster) -> Iterator[distributed.Client]:
    """A client of it."""
    with distributed.Client(narrow_cluster) as client:
        yield client
