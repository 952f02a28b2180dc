"""Arrays that are expressions: those of Dask with query planning, and those of the package dask-array."""

from __future__ import annotations

import os
import subprocess
import sys

import dask
import dask.array as da
import numpy as np
import pytest

from dask_dfmr import GaussianMixture
from tests.data_makers import make_rows, same_bits

M = 6


def check(arrays, X, n):
    """That fits and predictions of arrays of a kind are those of the same rows in memory."""
    with dask.config.set(scheduler="synchronous"):
        expected = GaussianMixture(2, random_state=0, n_partitions=len(X) // n).fit(X)
        whole = arrays.from_array(X, chunks=(n, X.shape[1]))
        for name, array in {
            "whole rows": whole,
            "single columns": arrays.from_array(X, chunks=(n, 1)),
            "an operation": whole * 2 / 2,
            "persisted": whole.persist(),
        }.items():
            gm = GaussianMixture(2, random_state=0).fit(array)
            assert same_bits(gm.mixture_, expected.mixture_), name
            assert gm.partition_report_["source"].tolist()[0] == f"rows 0:{n}", name
            labels, shares = gm.predict(array), gm.predict_proba(array)
            assert type(labels) is type(array), name
            np.testing.assert_array_equal(labels.compute(), expected.predict(X))
            np.testing.assert_array_equal(shares.compute(), expected.predict_proba(X))
            assert gm.score(array) == pytest.approx(expected.score(X), rel=1e-12), name


def test_of_dask_with_query_planning():
    """In a process of its own: Dask chooses the kind of its arrays when it is imported."""
    code = "from tests.test_kinds_of_arrays import check_query_planning as c; c()"
    environment = os.environ | {"DASK_ARRAY__QUERY_PLANNING": "True"}
    found = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr


def check_query_planning():
    X = make_rows(n=200 * M)
    assert hasattr(da.from_array(X), "expr")
    check(da, X, len(X) // M)


def test_of_the_package_dask_array():
    X = make_rows(n=200 * M)
    check(pytest.importorskip("dask_array"), X, len(X) // M)
