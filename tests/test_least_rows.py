"""The least number of rows by structure, and advice that works when it is copied."""

from __future__ import annotations

import re
import warnings
from typing import Any

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest

from dask_dfmr import AggregationError, GaussianMixture
from dask_dfmr.local.least_rows import (
    describe_larger_partitions,
    fewer_partitions,
    larger_chunks,
    remedies,
)
from dask_dfmr.mixtures.gaussian import COVARIANCE_TYPES, Gaussian


def rows(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 3)) + 6.0 * rng.integers(2, size=(n, 1))


def fit(X: Any, **parameters: Any) -> pd.DataFrame:
    """The partition report of a fit."""
    with warnings.catch_warnings(), dask.config.set(scheduler="synchronous"):
        warnings.simplefilter("ignore")
        return GaussianMixture(random_state=0, **parameters).fit(X).partition_report_


class TestLeastRows:
    @pytest.mark.parametrize(
        ("covariance_type", "k", "d", "expected"),
        [
            ("full", 3, 2, 17),
            ("full", 5, 10, 329),
            ("diag", 3, 2, 14),
            ("diag", 5, 10, 104),
            ("diag", 5, 500, 140),
            ("tied", 5, 10, 109),
            ("tied", 3, 50, 550),
            ("spherical", 5, 10, 59),
            ("spherical", 5, 50, 100),
            ("spherical", 1, 1, 2),
        ],
    )
    def test_known_values(self, covariance_type, k, d, expected):
        assert Gaussian(covariance_type).least_rows(k, d) == expected

    @pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
    def test_it_grows_with_the_components_and_allows_one_row_each(self, covariance_type):
        for d in (1, 3, 40):
            least = [Gaussian(covariance_type).least_rows(k, d) for k in range(1, 9)]
            assert (np.diff(least) > 0).all()
            assert all(n >= max(k, 2) for k, n in enumerate(least, 1))
            n_parameters = [Gaussian(covariance_type).n_parameters(k, d) for k in range(1, 9)]
            assert all(n <= max(p, 2) for n, p in zip(least, n_parameters, strict=True))

    @pytest.mark.parametrize("covariance_type", ["diag", "tied", "spherical"])
    def test_many_columns_do_not_need_a_row_for_each_parameter(self, covariance_type):
        rng = np.random.default_rng(0)
        n, d = Gaussian(covariance_type).least_rows(2, 30), 30
        parts = [
            dask.delayed(rng.normal(size=(n, d)) + 3.0 * rng.integers(2, size=(n, 1)))
            for _ in range(12)
        ]
        report = fit(parts, n_components=2, covariance_type=covariance_type)
        assert (report["outcome"] == "fitted").all()
        assert report["kept"].sum() >= 11


class TestAdvice:
    @pytest.mark.parametrize(
        ("covariance_type", "k", "n"), [("full", 3, 24), ("diag", 5, 20), ("tied", 4, 12)]
    )
    def test_it_works_when_copied(self, covariance_type, k, n):
        X = rows(20 * n)
        frame = dd.from_pandas(pd.DataFrame(X, columns=list("abc")), npartitions=20)
        own = {"n_components": k, "covariance_type": covariance_type}
        with pytest.raises(AggregationError) as caught:
            fit(frame, **own)
        reason = caught.value.reasons[0]
        given = [{name: int(value)} for name, value in re.findall(r"(\w+)=(\d+)", reason)]
        given += [{"covariance_type": name} for name in re.findall(r"'(\w+)'", reason)]
        assert {"min_partition_rows": n} in given
        assert any("n_components" in change for change in given)
        for change in given:
            assert fit(frame, **own | change)["outcome"].isin(["fitted", "not converged"]).all()
        array = da.from_array(X, chunks=(n, 3))
        for data, more in ((frame, {}), (array, {}), (X, {"n_partitions": 20})):
            with pytest.raises(AggregationError) as caught:
                fit(data, **own, **more)
            larger = re.search(r"Larger partitions would do: (.*)\.$", str(caught.value))[1]
            if more:
                more = eval(f"dict({larger})")
            else:
                data = eval(larger, {"X": data})
            assert (fit(data, **own, **more)["outcome"] != "too few rows").all()

    @pytest.mark.parametrize("form", ["list", "source"])
    def test_it_suits_what_the_user_gave(self, form):
        table = pd.DataFrame(rows(400), columns=list("abc")).assign(key=np.arange(400) // 20)
        parts = [part for _, part in table.drop(columns="key").groupby(table["key"])]
        X, more = (parts, {}) if form == "list" else (table, {"source": "key"})
        with pytest.raises(AggregationError, match="29 rows or more") as caught:
            fit(X, n_components=3, **more)
        assert "X.re" not in str(caught.value)
        assert "n_partitions" not in str(caught.value)

    def test_it_names_the_largest_number_of_components_that_fits(self):
        assert "n_components=2," in remedies(Gaussian("diag"), 6, 30, 60)

    def test_nothing_is_advised_that_cannot_work(self):
        assert remedies(Gaussian("full"), 3, 3, 2) == "larger partitions"
        assert describe_larger_partitions([3, 4], 29, "frame") == ""
        assert describe_larger_partitions([300], 29, "frame") == ""
        # Dask merges neighbours, and a third of 45 rows is too few: an array can be cut anywhere.
        assert describe_larger_partitions([9] * 5, 19, "frame") == ""
        assert describe_larger_partitions([9] * 5, 19, "array") != ""

    def test_a_reason_is_given_once_in_the_error(self):
        with pytest.raises(AggregationError) as caught:
            fit(dd.from_pandas(pd.DataFrame(rows(80)), npartitions=8), n_components=3)
        assert str(caught.value).count("fewer than the 29 that 3 components in 3 columns") == 1

    @pytest.mark.parametrize("seed", range(5))
    def test_merged_partitions_are_those_of_dask(self, seed):
        rng = np.random.default_rng(seed)
        counts = rng.integers(1, 40, size=rng.integers(3, 30)).tolist()
        m = fewer_partitions(counts, 35)
        if m is None:
            return
        parts = [dask.delayed(pd.DataFrame({"a": np.zeros(n)})) for n in counts]
        merged = dd.from_delayed(parts, verify_meta=False).repartition(npartitions=m)
        with dask.config.set(scheduler="synchronous"):
            assert merged.map_partitions(len).compute().min() >= 35

    @pytest.mark.parametrize("n_rows", [30, 100, 101, 999])
    @pytest.mark.parametrize("least", [9, 10, 33])
    def test_the_last_chunk_is_large_enough_too(self, n_rows, least):
        size = larger_chunks(n_rows, least)
        if size is not None:
            assert n_rows % size == 0 or n_rows % size >= least
            assert size >= least
