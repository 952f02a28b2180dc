"""Fixtures shared by all tests, and what is tolerated of other packages."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import dask
import dask.dataframe as dd
import distributed
import pytest

from dask_dfmr.aggregation import null_law as calibration
from dask_dfmr.mixtures import engine, information
from tests.data_makers import make_ddf


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
        patch.setattr(information, "MOST_ROWS", 2**11)
        yield


@pytest.fixture
def ddf() -> dd.DataFrame:
    """Six clean partitions of 200 rows in columns x and y."""
    return make_ddf()


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
