"""Canaries: what is plainly wrong is excluded, or the fit says that it could not be told."""

import warnings

import numpy as np
import pytest

from dask_dfmr import FilterWarning, LocalEstimate, Mixture, aggregate, fit_local
from dask_dfmr.aggregation.canaries import FACTOR, canaries
from tests.poisson import Poisson
from tests.strategies import random_mixture

pytestmark = pytest.mark.smoke

TWO = Mixture([0.4, 0.6], [[0.0, 0.0], [3.0, 1.0]], [np.eye(2), [[1.0, 0.6], [0.6, 2.0]]])
ALIKE = Mixture(
    [0.8, 0.1, 0.1], np.zeros((3, 2)), [np.eye(2), np.diag([16.0, 1.0]), np.diag([1.0, 16.0])]
)
"""Both columns have one law, although two of the components do not."""


def changes(mixture):
    found = canaries(mixture.family, mixture.weights, mixture.components)
    return [(c.change, c.columns) for c in found]


def estimates(n_rows, n_estimates=8, truth=TWO):
    rng = np.random.default_rng(0)
    parts = [truth.sample(n_rows, rng)[0] for _ in range(n_estimates)]
    return [fit_local(X, truth.n_components, start=truth, min_rows=2) for X in parts]


def swapped(m):
    return Mixture(m.weights, m.means[:, ::-1], m.covariances[:, ::-1, ::-1])


class TestChanges:
    def test_all_kinds_in_all_columns(self):
        assert changes(TWO) == [("infinity", ()), ("unit", (0,)), ("unit", (1,)), ("swap", (0, 1))]

    def test_columns_alike_need_not_be_told_apart(self):
        assert ("swap", (0, 1)) not in changes(ALIKE)

    def test_columns_of_one_law_that_correlate_differently_are_not_alike(self):
        covariance = np.eye(3)
        covariance[0, 1] = covariance[1, 0] = 0.9
        found = changes(Mixture([1.0], np.zeros((1, 3)), [covariance]))
        assert ("swap", (1, 2)) in found
        assert ("swap", (0, 1)) not in found

    def test_one_column_has_none_to_swap_with(self):
        assert changes(Mixture([1.0], [[1.0]], [[[1.0]]])) == [("infinity", ()), ("unit", (0,))]

    def test_one_variance_for_all_columns_cannot_change_in_one(self):
        found = changes(random_mixture(1, covariance_type="spherical"))
        assert {change for change, _ in found} <= {"infinity", "swap"}

    def test_columns_are_sampled_where_there_are_many(self):
        found = changes(random_mixture(0, 2, 60))
        columns = [c[0] for change, c in found if change == "unit"]
        assert len(columns) == 16
        assert (columns[0], columns[-1]) == (0, 59)

    @pytest.mark.parametrize("unit", [1e-120, 1e120])
    def test_no_unit_overflows(self, unit):
        m = Mixture(TWO.weights, TWO.means * unit, TWO.covariances * unit**2)
        assert changes(m) == changes(TWO)

    def test_a_family_without_a_scale(self):
        found = canaries(Poisson(), np.array([0.5, 0.5]), (np.array([[1.0, 9.0], [2.0, 20.0]]),))
        assert [c.change for c in found] == ["swap"]


class TestNotes:
    def test_enough_rows_tell_all_of_them(self):
        result = aggregate(estimates(500))
        assert not result.notes

    def test_too_few_rows_are_said_with_the_change_and_its_p_value(self):
        with pytest.warns(FilterWarning, match=r"column 0 and column 1 swapped \(p = 0\.\d+\)"):
            aggregate(estimates(14))

    def test_names_of_columns_are_quoted(self):
        some = [e.mixture for e in estimates(14)]
        named = [Mixture(m.weights, m.means, m.covariances, feature_names=["a", "b"]) for m in some]
        with pytest.warns(FilterWarning, match="'a' and 'b' swapped"):
            aggregate([LocalEstimate(m, 14) for m in named])

    def test_partitions_that_differ_much_are_said(self):
        rng = np.random.default_rng(1)
        apart = [
            Mixture(TWO.weights, TWO.means + rng.normal(0, 3, (1, 2)), TWO.covariances)
            for _ in range(12)
        ]
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            aggregate([LocalEstimate(m, 2000) for m in apart])
        assert any("the filter would keep one with" in str(w.message) for w in said)

    def test_a_rule_in_radii_has_no_canaries(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            aggregate(estimates(40), rho=1.3, warn_excluded=False)

    @pytest.mark.parametrize("change", ["unit", "swap"])
    def test_where_nothing_is_said_the_canary_is_excluded(self, change):
        some = estimates(300)
        m = some[3].mixture
        factor = np.array([FACTOR, 1.0])
        bad = (
            swapped(m)
            if change == "swap"
            else Mixture(m.weights, m.means * factor, m.covariances * np.outer(factor, factor))
        )
        result = aggregate([*some[:3], LocalEstimate(bad, 300), *some[4:]])
        assert result.decision.kept.tolist() == [True] * 3 + [False] + [True] * 4
