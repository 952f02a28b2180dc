"""EM steps over rows whose scatter is known: those of a pass over whitened rows, wherever they are precise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from dask_dfmr import fit_local
from dask_dfmr.local.fit import LocalProblem
from dask_dfmr.mixtures import engine
from dask_dfmr.mixtures.family import Prior, StepRule, em_steps
from dask_dfmr.mixtures.gaussian import Gaussian, Mixture
from dask_dfmr.mixtures.known_scatter import known_scatter
from dask_dfmr.mixtures.row_cut import RowCut
from tests.strategies import random_mixture, seeds

TIED = Gaussian("tied")

priors = st.sampled_from(
    [Prior(0.0, ()), Prior(0.02, ()), Prior(0.3, (), 1e-3), Prior(0.1, ("of all rows",))]
)
"""Without a penalty, with the target of the first step, with a floor too, and with the penalty of the paper."""


@pytest.fixture(autouse=True)
def numpy_engine():
    """In few columns the other engine has no use for the scatter."""
    with engine.use("numpy"):
        yield


def some(seed=1, k=3, d=4, n=400, apart=2.0):
    """A mixture, and rows of it."""
    mixture = random_mixture(seed, k, d, "tied", apart)
    return mixture, mixture.sample(n, random_state=seed)[0]


def steps_from(mixture, X, *, known, prior=None, rule=None):
    """Steps with the scatter of the rows, or by passes over whitened rows."""
    prior = Prior(0.02, ()) if prior is None else prior
    if prior.target == ("of all rows",):
        prior = prior._replace(target=TIED.prior_target(X))
    given = (X, mixture.weights, mixture.components, prior, rule or StepRule(6))
    if not known:
        return em_steps(TIED, *given)
    return TIED.em_steps(*given, TIED.row_totals(X))


def assert_twins(mixture, X, rtol=1e-7, noise=1e-11, **given):
    expected = steps_from(mixture, X, known=False, **given)
    found = steps_from(mixture, X, known=True, **given)
    assert (found.n_steps, found.has_stopped) == (expected.n_steps, expected.has_stopped)
    if not expected.n_steps:
        return found
    for name in ("objective", "log_likelihood"):
        value = getattr(expected, name)
        assert abs(getattr(found, name) - value) < noise * (abs(value) + X.size), name
    parts = (
        [steps.weights, *steps.components, steps.prior.target[0]] for steps in (found, expected)
    )
    for f, e in zip(*parts, strict=True):
        assert f.shape == e.shape
        assert_allclose(f, e, rtol=rtol, atol=rtol * np.abs(e).max())
    return found


class TestSteps:
    @given(
        seeds,
        st.integers(60, 700),
        st.integers(1, 7),
        st.integers(1, 4),
        priors,
        st.sampled_from(["f8", "f4"]),
        st.sampled_from([0.0, 3.0, 1e6]),
    )
    def test_twins(self, seed, n, d, k, prior, dtype, shift):
        mixture, X = some(seed, k, d, n)
        moved = Mixture(mixture.weights, mixture.means + shift, mixture.covariances, "tied")
        assert_twins(moved, (X + shift).astype(dtype if shift < 10 else "f8"), prior=prior)

    def test_many_columns(self):
        found = assert_twins(*some(d=70, n=600, apart=0.5))
        assert found.n_steps == 6

    def test_they_stop_where_passes_stop(self):
        mixture, X = some(apart=1.0)
        for rule in (StepRule(500, -np.inf, 0.02), StepRule(9, -1e300, np.inf), StepRule()):
            assert_twins(mixture, X, rule=rule)

    @given(seeds, st.integers(-60, 60), st.sampled_from([0.0, -7.0, 2.0**12]))
    def test_units_and_origins_do_not_show(self, seed, power, shift):
        mixture, X = some(seed, n=200)
        scale = 2.0**power
        there = Mixture(
            mixture.weights,
            scale * (mixture.means + shift),
            scale**2 * mixture.covariances,
            "tied",
        )
        here = steps_from(mixture, X, known=True)
        found = steps_from(there, scale * (X + shift), known=True)
        assert_allclose(found.weights, here.weights, rtol=1e-8)
        assert_allclose(found.components[0] / scale - shift, here.components[0], atol=1e-8)
        assert_allclose(found.components[1] / scale**2, here.components[1], rtol=1e-7, atol=1e-9)

    def test_the_log_likelihood_is_that_of_the_mixture(self):
        mixture, X = some(d=6, n=2_000)
        steps = steps_from(mixture, X, known=True, rule=StepRule(1))
        total = float(mixture.score_samples(X).sum())
        assert abs(steps.log_likelihood - total) < 1e-14 * (abs(total) + X.size) * 10

    def test_the_layout_of_the_rows_does_not_show(self):
        mixture, X = some(n=9_000, d=20)
        X = X.astype("f4").astype("f8")
        first, *others = (
            steps_from(mixture, rows, known=True)
            for rows in (X, np.asfortranarray(X), np.repeat(X, 2, axis=0)[::2], X.astype("f4"))
        )
        for other in others:
            assert other.objective == first.objective
            for a, b in zip(other.components, first.components, strict=True):
                assert_array_equal(a, b)

    def test_rows_are_not_changed(self):
        mixture, X = some(n=300)
        X -= X.mean(axis=0)
        for rows in (X, X.round(), np.vstack([X, -X])):  # the last two may have the mean 0 exactly
            before = rows.copy()
            steps_from(mixture, rows, known=True)
            assert_array_equal(rows, before)

    def test_a_component_without_weight_keeps_its_mean(self):
        mixture, X = some()
        empty = Mixture([0.6, 0.4, 0.0], mixture.means, mixture.covariances, "tied")
        found = assert_twins(empty, X, rule=StepRule(1))
        assert_allclose(found.components[0][2], mixture.means[2], rtol=1e-12)


class TestWhereTheyAreNotPrecise:
    @pytest.mark.parametrize("apart", [200.0, 1e5, 1e9])
    def test_means_far_apart_take_passes(self, apart):
        mixture, X = some(apart=apart)
        rule = StepRule(3)
        found = steps_from(mixture, X, known=True, rule=rule)
        expected = steps_from(mixture, X, known=False, rule=rule)
        assert found.n_steps == expected.n_steps
        assert found.objective == expected.objective
        for a, b in zip(found.components, expected.components, strict=True):
            assert_array_equal(a, b)

    def test_clusters_far_apart_take_passes_from_any_start(self):
        mixture, X = some(apart=300.0)
        wide = Mixture(mixture.weights, mixture.means, 1e5 * mixture.covariances, "tied")
        expected = steps_from(wide, X, known=False, rule=StepRule(8))
        found, left = steps_from(wide, X, known=True, rule=StepRule(8)), 8
        assert 0 < found.n_steps < 8  # the others would not be precise
        while (left := left - found.n_steps) and found.n_steps:
            found = TIED.em_steps(
                X, found.weights, found.components, found.prior, StepRule(left), TIED.row_totals(X)
            )
        assert_allclose(found.components[0], expected.components[0], rtol=1e-9)
        assert_allclose(found.components[1], expected.components[1], rtol=1e-6, atol=1e-7)

    @pytest.mark.parametrize("far", [1e2, 1e4, 1e8, 1e139])
    def test_a_row_far_from_all_takes_passes(self, far):
        mixture, X = some(n=300)
        X[7] *= far
        assert_twins(mixture, X, rule=StepRule(1))

    @pytest.mark.parametrize("eigenvalue", [1e-3, 1e-6, 1e-8])
    def test_columns_that_nearly_depend_on_others(self, eigenvalue):
        mixture, X = some(d=5, n=800, apart=1.0)
        squeeze = np.eye(5)
        squeeze[-1] = [1.0, 1.0, -1.0, 0.5, np.sqrt(eigenvalue)]
        covariance = squeeze @ mixture.covariances @ squeeze.T
        squeezed = Mixture(mixture.weights, mixture.means @ squeeze.T, covariance, "tied")
        assert_twins(squeezed, X @ squeeze.T, rtol=1e-5, noise=1e-16 / eigenvalue + 1e-11)

    def test_rows_that_determine_no_coordinates(self):
        X = some(n=50, d=5)[1]
        constant, twice = X.copy(), X.copy()
        constant[:, 2] = 0.1
        twice[:, 2] = twice[:, 1] - twice[:, 0]
        for rows in (constant, twice, X[:4], X[:0], np.zeros((9, 2))):
            assert known_scatter(rows) is None

    def test_truncated_and_other_families_have_no_totals(self):
        X = some()[1]
        assert Gaussian("tied", RowCut(0.1, True)).row_totals(X) is None
        assert all(Gaussian(kind).row_totals(X) is None for kind in ("full", "diag", "spherical"))


class TestFits:
    def test_a_clustering_has_the_same_moments(self):
        mixture, X = some(d=6)
        labels = np.arange(len(X)) % 2  # no row belongs to the third one
        expected = TIED.hard_moments(X, labels, mixture.components)
        found = TIED.hard_moments(X, labels, mixture.components, TIED.row_totals(X))
        for f, e in zip(found, expected, strict=True):
            assert_allclose(f, e, rtol=1e-9, atol=1e-9 * np.abs(e).max())

    def test_totals_of_all_rows_are_not_those_of_some(self):
        X = some()[1]
        penalty = LocalProblem(TIED, 3).penalty_for(X)
        assert penalty.totals_of(X) is penalty.row_totals is not None
        assert penalty.totals_of(X[:-1]) is None

    def test_a_fit_is_the_same(self, monkeypatch):
        mixture, X = some(d=5, n=900)
        given = {"covariance_type": "tied", "start": mixture, "min_rows": 2}
        with_totals = fit_local(X, 3, **given)
        monkeypatch.setattr(Gaussian, "row_totals", lambda *_: None)
        without = fit_local(X, 3, **given)
        assert_allclose(with_totals.mixture.means, without.mixture.means, atol=1e-6)
        assert_allclose(with_totals.mixture.covariances, without.mixture.covariances, atol=1e-6)
        assert with_totals.n_iter == without.n_iter
        assert with_totals.n_outside == without.n_outside
        assert with_totals.log_likelihood == pytest.approx(without.log_likelihood, rel=1e-12)
