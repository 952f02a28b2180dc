"""The local fit: its objective, stopping rules, starts, outcomes and arguments."""

import warnings
from functools import cache

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from dask_dfmr import Mixture, Outcome, fit_local
from dask_dfmr.local.em import ComponentCollapsedError
from dask_dfmr.local.fit import LocalProblem
from dask_dfmr.local.starts import NAMED_STARTS
from dask_dfmr.local.stopping import TIGHT
from dask_dfmr.mixtures.family import em_steps
from dask_dfmr.mixtures.gaussian import COVARIANCE_TYPES, Gaussian
from tests import naive
from tests.strategies import jiggled, random_mixture

pytestmark = pytest.mark.usefixtures("each_engine")

every_type = pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
every_start = pytest.mark.parametrize("start", list(NAMED_STARTS))


def problem(seed=1, n=600, covariance_type="full", spread=1.5, d=2):
    """Rows of an overlapping mixture, and a start some way off."""
    truth = random_mixture(seed, 3, d, covariance_type, spread)
    return truth.sample(n, random_state=seed)[0], jiggled(truth, seed, 0.4)


def fit(X, start, **options):
    return fit_local(
        X, start.n_components, covariance_type=start.covariance_type, start=start, **options
    )


def objective(mixture, X, start):
    """The default objective of a fit to X that starts at ``start``."""
    targets = naive.within_targets(start, X)
    return naive.penalised_log_likelihood(mixture, X, 1 / len(X), targets)


class CountingFamily(Gaussian):
    """Counts its passes over the rows, and keeps the points they were made at."""

    def __init__(self, covariance_type):
        super().__init__(covariance_type)
        object.__setattr__(self, "points", [])

    def em_pass(self, X, weights, components):
        self.points.append((weights, components))
        return super().em_pass(X, weights, components)

    def em_steps(self, *given):
        return em_steps(self, *given)  # each of them is a pass


class TestObjective:
    @every_type
    def test_it_never_falls_along_plain_em(self, covariance_type):
        X, start = problem(covariance_type=covariance_type)
        fits = [fit(X, start, accelerate=False, tol=0.0, max_iter=i) for i in range(1, 25)]
        climb = np.array([objective(m, X, start) for m in [start, *(f.mixture for f in fits)]])
        assert (np.diff(climb) > -1e-9 * abs(climb[0])).all()

    @every_type
    def test_it_never_falls_along_the_accepted_points_of_accelerated_em(self, covariance_type):
        X, start = problem(covariance_type=covariance_type)
        local = LocalProblem(start.family, 3, tol=0.0)
        penalty, point = local.penalty_for(X), (start.weights, start.components)
        results = [local.maximise(X, point, penalty, max_iter=i) for i in range(1, 25)]
        accepted = np.array([r.objective for r in results])
        assert (np.diff(accepted) > -1e-9 * abs(accepted[0])).all()
        for r in results:
            m = start.family.mixture(r.weights, r.components)
            assert objective(m, X, start) > r.objective - 1e-9 * abs(r.objective)

    @every_type
    def test_acceleration_reaches_the_same_optimum_in_fewer_passes(self, covariance_type):
        X, start = problem(2, 1000, covariance_type, spread=2.5)
        plain = fit(X, start, accelerate=False, tol=1e-11, max_iter=20_000)
        fast = fit(X, start, tol=1e-11, max_iter=20_000)
        assert plain.outcome is fast.outcome is Outcome.FITTED
        values = [objective(found.mixture, X, start) for found in (fast, plain)]
        assert_allclose(*values, atol=1e-6 * len(X))
        assert fast.n_iter < 0.5 * plain.n_iter

    @every_type
    @pytest.mark.parametrize("penalty", ["paper", "auto", 0.3])
    def test_one_pass_is_the_naive_penalised_step(self, covariance_type, penalty):
        X, start = problem(covariance_type=covariance_type)
        one = fit(X, start, max_iter=1, penalty=penalty).mixture
        a = {"paper": len(X) ** -0.5, "auto": 1 / len(X)}.get(penalty, penalty)
        targets = None if penalty == "paper" else naive.within_targets(start, X)
        weights, means, covariances = naive.em_step(start, X, a, targets)
        assert_allclose(one.weights, weights, rtol=1e-10)
        assert_allclose(one.means, means, rtol=1e-9, atol=1e-10)
        assert_allclose(one.covariances, covariances, rtol=1e-9, atol=1e-10)

    def test_the_automatic_weight_is_one_over_the_row_count(self):
        X, start = problem(n=400)
        assert fit(X, start).mixture == fit(X, start, penalty=1 / 400).mixture

    @every_type
    def test_the_optimum_is_a_fixed_point_of_the_naive_step(self, covariance_type):
        X, start = problem(covariance_type=covariance_type)
        m = fit(X, start, tol=1e-14, max_iter=20_000).mixture
        weights, means, covariances = naive.em_step(
            m, X, 1 / len(X), naive.within_targets(start, X)
        )
        assert_allclose(m.weights, weights, atol=1e-4)
        assert_allclose(m.means, means, atol=1e-4)
        assert_allclose(m.covariances, covariances, atol=1e-4)

    @pytest.mark.parametrize("covariance_type", ["full", "tied"])
    def test_the_fit_is_affine_equivariant(self, covariance_type):
        X, start = problem(covariance_type=covariance_type)
        A, b = np.array([[3.0, 1.0], [-2.0, 0.5]]), np.array([100.0, -7.0])
        moved = Mixture(
            start.weights, start.means @ A.T + b, A @ start.covariances @ A.T, covariance_type
        )
        here = fit(X, start, max_iter=60, tol=0.0, accelerate=False).mixture
        there = fit(X @ A.T + b, moved, max_iter=60, tol=0.0, accelerate=False).mixture
        assert_allclose(there.means, here.means @ A.T + b, rtol=1e-7)
        assert_allclose(there.covariances, A @ here.covariances @ A.T, rtol=1e-6, atol=1e-8)

    def test_the_log_likelihood_is_per_row_and_without_penalty(self):
        X, start = problem()
        result = fit(X, start, tol=1e-12, max_iter=5000)
        assert_allclose(result.log_likelihood, result.mixture.score(X), rtol=1e-7)


class TestStopping:
    @pytest.mark.parametrize("accelerate", [True, False])
    def test_max_iter_counts_passes_over_the_rows(self, accelerate):
        X, start = problem()
        family = CountingFamily("full")
        local = LocalProblem(family, 3, max_iter=17, tol=0.0, accelerate=accelerate)
        result = local.maximise(X, (start.weights, start.components), local.penalty_for(X))
        assert len(family.points) == result.n_iter == 17

    def test_too_few_passes_are_an_outcome_with_advice(self):
        X, start = problem()
        result = fit(X, start, max_iter=2)
        assert result.outcome is Outcome.NOT_CONVERGED
        assert result.is_usable
        assert result.reason == "not converged after 2 passes; raise max_iter or loosen tol"

    def test_a_float_tol_stops_at_sklearns_iteration(self):
        X, start = problem(n=2000)
        theirs = sklearn_twin(start, tol=1e-4, max_iter=500).fit(X)
        mine = fit(X, start, penalty=0, accelerate=False, tol=1e-4, max_iter=500)
        assert mine.n_iter == theirs.n_iter_
        assert mine.outcome is Outcome.FITTED

    @every_type
    @pytest.mark.parametrize("n_sources", [1, 20])
    @pytest.mark.parametrize("accelerate", [True, False])
    @pytest.mark.parametrize("seed", [1, 4, 5])
    def test_the_tight_rule_leaves_less_than_it_promises(
        self, covariance_type, n_sources, accelerate, seed
    ):
        X, start = problem(seed, 2000, covariance_type, spread=4.0)
        # The paper's objective does not depend on the start, so that the second fit has the same.
        options = {"accelerate": accelerate, "max_iter": 20_000, "penalty": "paper"}
        stopped = fit(X, start, n_sources=n_sources, **options)
        exact = fit(X, stopped.mixture, tol=1e-13, max_iter=20_000, penalty="paper")
        found = [
            naive.penalised_log_likelihood(e.mixture, X, len(X) ** -0.5) for e in (exact, stopped)
        ]
        remaining = found[0] - found[1]
        assert stopped.outcome is Outcome.FITTED
        assert remaining < TIGHT * start.n_parameters / n_sources

    def test_more_sources_take_more_passes(self):
        X, start = problem(5, n=2000, spread=4.0)
        passes = [fit(X, start, n_sources=m).n_iter for m in (1, 10_000)]
        assert passes[0] < passes[1]


def sklearn_twin(start, **options):
    model = start.to_sklearn()
    return GaussianMixture(
        start.n_components,
        covariance_type=start.covariance_type,
        weights_init=model.weights_,
        means_init=model.means_,
        precisions_init=model.precisions_,
        reg_covar=options.pop("reg_covar", 0.0),
        **options,
    )


@cache
def converged_twin(covariance_type):
    X, start = problem(n=3000, covariance_type=covariance_type, spread=4.0)
    return X, start, sklearn_twin(start, max_iter=5000, tol=1e-12).fit(X)


class TestAgreementWithSklearn:
    @staticmethod
    def assert_same(mine, theirs, tolerance):
        assert_allclose(mine.weights, theirs.weights_, atol=tolerance)
        assert_allclose(mine.means, theirs.means_, atol=tolerance)
        assert_allclose(mine.covariances, theirs.covariances_, atol=tolerance)

    @every_type
    @pytest.mark.parametrize("n_iter", [1, 12])
    def test_after_the_same_number_of_iterations(self, covariance_type, n_iter):
        X, start = problem(covariance_type=covariance_type)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            theirs = sklearn_twin(start, max_iter=n_iter, tol=0.0).fit(X)
        mine = fit(X, start, penalty=0, accelerate=False, tol=0.0, max_iter=n_iter)
        self.assert_same(mine.mixture, theirs, 1e-9)

    @every_type
    def test_after_convergence(self, covariance_type):
        X, start, theirs = converged_twin(covariance_type)
        mine = fit(X, start, penalty=0, tol=1e-12, max_iter=5000)
        self.assert_same(mine.mixture, theirs, 1e-3)

    @every_type
    def test_with_its_reg_covar(self, covariance_type):
        X, start = problem(covariance_type=covariance_type)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            theirs = sklearn_twin(start, max_iter=5, tol=0.0, reg_covar=0.1).fit(X)
        mine = fit(X, start, penalty=0, tol=0.0, max_iter=5, reg_covar=0.1)
        self.assert_same(mine.mixture, theirs, 1e-9)


class TestStarts:
    @every_type
    @pytest.mark.parametrize("start", ["k-means++", "kmeans", "random_from_data"])
    def test_a_start_from_clusters_finds_well_separated_components(self, covariance_type, start):
        means = np.array([[0.0, 0.0], [20.0, 0.0], [0.0, 30.0]])
        truth = random_mixture(1, 3, 2, covariance_type)
        truth = Mixture(truth.weights, means, truth.covariances, covariance_type)
        X = truth.sample(500, random_state=0)[0]
        result = fit_local(
            X, 3, covariance_type=covariance_type, start=start, n_init=8, random_state=0
        )
        assert_allclose(result.mixture.align_to(truth).means, means, atol=0.6)
        assert result.start == start

    @every_type
    def test_a_start_from_random_labels_is_a_fit(self, covariance_type):
        X, _ = problem()
        result = fit_local(X, 3, covariance_type=covariance_type, start="random", random_state=0)
        assert result.outcome is Outcome.FITTED

    @every_start
    def test_the_same_seed_gives_the_same_bits(self, start):
        X, _ = problem()
        a, b = (fit_local(X, 3, start=start, random_state=5) for _ in range(2))
        assert a == b

    def test_another_seed_starts_elsewhere(self):
        X, _ = problem()
        a, b = (fit_local(X, 3, random_state=s, max_iter=1) for s in (5, 6))
        assert a.mixture != b.mixture

    @pytest.mark.parametrize(
        "make", [np.random.RandomState, np.random.default_rng, np.random.SeedSequence]
    )
    def test_every_kind_of_seed_is_understood(self, make):
        X, _ = problem()
        assert fit_local(X, 3, random_state=make(1)) == fit_local(X, 3, random_state=make(1))

    def test_of_several_starts_the_best_one_wins(self):
        X, _ = problem(seed=8, spread=3.0, d=3)
        # The paper's objective is the same whatever the start.
        options = {"start": "random_from_data", "random_state": 0, "penalty": "paper"}
        one, many = (
            naive.penalised_log_likelihood(
                fit_local(X, 6, n_init=n, **options).mixture, X, len(X) ** -0.5
            )
            for n in (1, 8)
        )
        assert many >= one

    def test_components_come_by_decreasing_weight(self):
        X, _ = problem()
        assert (np.diff(fit_local(X, 3, random_state=0).mixture.weights) <= 0).all()

    def test_components_keep_the_order_of_a_given_start(self):
        X, start = problem(spread=4.0)
        for m in (start, start.reordered([2, 0, 1])):
            result = fit(X, m)
            assert result.mixture.align_to(m) == result.mixture
            assert result.start == "given"

    def test_fewer_distinct_rows_than_components_are_no_trouble(self):
        X = np.random.default_rng(0).integers(0, 2, (300, 2))
        for start in NAMED_STARTS:
            result = fit_local(X, 5, start=start, random_state=0)
            assert result.outcome is Outcome.FITTED

    def test_a_component_far_from_all_rows_survives_without_weight(self):
        X = np.random.default_rng(0).normal(size=(300, 2))
        start = Mixture([0.5, 0.5], [[0.0, 0.0], [900.0, 900.0]], [np.eye(2)] * 2)
        result = fit(X, start)
        assert result.outcome is Outcome.FITTED
        assert_allclose(result.mixture.weights, [1.0, 0.0], atol=1e-12)
        assert_array_equal(result.mixture.means[1], [900.0, 900.0])
        assert_allclose(result.mixture.means[0], X.mean(axis=0), atol=1e-6)


@pytest.mark.smoke
class TestRows:
    def test_integers_are_computed_in_float64(self):
        X, start = problem()
        X = (10 * X).round().astype(np.int32)
        assert fit(X, start) == fit(X.astype(float), start)

    def test_float32_is_computed_in_float64(self):
        X, start = problem()
        X = X.astype(np.float32)
        assert fit(X, start) == fit(X.astype(float), start)

    @every_type
    def test_the_memory_layout_does_not_show(self, covariance_type):
        X, start = problem(n=3000, covariance_type=covariance_type, d=3)
        wide = np.zeros((len(X), 6))
        wide[:, ::2] = X
        reference = fit(X, start)
        assert fit(np.asfortranarray(X), start) == reference
        assert fit(wide[:, ::2], start) == reference
        assert fit_local(
            np.asfortranarray(X), 3, covariance_type=covariance_type, random_state=0
        ) == fit_local(X, 3, covariance_type=covariance_type, random_state=0)

    def test_names_reach_the_mixture(self):
        X, _ = problem()
        assert fit_local(X, 2, feature_names=["a", "b"], random_state=0).mixture.feature_names == (
            "a",
            "b",
        )

    def test_the_rows_are_not_changed(self):
        X, start = problem()
        before = X.copy()
        fit(X, start)
        assert_array_equal(X, before)


@pytest.mark.smoke
class TestOutcomes:
    """Rows that cannot be fitted never raise an error."""

    def test_too_few_rows_for_the_parameters(self):
        result = fit_local(np.random.default_rng(0).normal(size=(16, 2)), 3)
        assert result.outcome is Outcome.TOO_FEW_ROWS
        assert result.reason == (
            "16 rows, fewer than the 17 that 3 components in 2 columns need (gaussian-full); use n_components=2, "
            "covariance_type='diag' or 'tied' or 'spherical', min_partition_rows=16, or larger partitions"
        )
        assert result.n_samples == 16

    def test_min_rows_is_the_callers_choice(self):
        X = np.random.default_rng(0).normal(size=(16, 2))
        assert fit_local(X, 3, min_rows=10, random_state=0).is_usable
        assert fit_local(X, 3, min_rows=20).reason == (
            "16 rows, fewer than the 20 required by min_rows; use min_partition_rows=16 or larger partitions"
        )

    def test_no_rows_at_all(self):
        assert fit_local(np.empty((0, 2)), 3).outcome is Outcome.TOO_FEW_ROWS

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_rows_that_are_not_finite_are_counted_per_column(self, value):
        X, _ = problem()
        X[[1, 7], 1] = value
        result = fit_local(X, 3, feature_names=["a", "b"])
        assert result.outcome is Outcome.NOT_FINITE
        assert "in 'b' (2 rows); nan_policy='omit' omits such rows" in result.reason

    def test_omitted_rows_are_counted_and_not_seen(self):
        X, start = problem()
        Y = np.insert(X, [0, 5, 90], np.nan, axis=0)
        result = fit(Y, start, nan_policy="omit")
        assert result.n_omitted == 3
        assert result.n_samples == len(X)
        assert result.mixture == fit(X, start).mixture

    def test_only_nan_is_too_few_rows(self):
        result = fit_local(np.full((50, 2), np.nan), 2, nan_policy="omit")
        assert result.outcome is Outcome.TOO_FEW_ROWS
        assert result.reason.startswith("0 rows (50 more hold NaN")

    def test_a_constant_column_is_named(self):
        X, _ = problem()
        X[:, 1] = 5.0
        result = fit_local(X, 3, feature_names=["speed", "height"])
        assert result.outcome is Outcome.DEGENERATE
        assert result.reason.startswith("'height' is constant; remove it, or set reg_covar=")
        assert fit_local(X, 3).reason.startswith("column 1 is constant")

    def test_dependent_columns_are_named(self):
        X, _ = problem(d=3)
        X[:, 2] = X[:, 0] - X[:, 1]
        result = fit_local(X, 2)
        assert result.outcome is Outcome.DEGENERATE
        assert result.reason.startswith("column 0, column 1, column 2 are linearly dependent")

    def test_names_with_braces_do_not_confuse_the_reason(self):
        X, _ = problem()
        X[:, 0] = 1.0
        reason = fit_local(X, 2, feature_names=["{column 1}", "b"]).reason
        assert reason.startswith("'{column 1}' is constant")

    def test_without_penalty_a_component_collapses_onto_equal_rows(self):
        X = np.random.default_rng(0).normal(size=(200, 2))
        X[:20] = 30.0
        start = Mixture([0.5, 0.5], [[0.0, 0.0], [30.0, 30.0]], [np.eye(2)] * 2)
        result = fit(X, start, penalty=0)
        assert result.outcome is Outcome.COLLAPSED
        assert "collapsed onto too few rows" in result.reason
        assert "penalty='auto'" in result.reason

    def test_the_penalty_prevents_the_collapse(self):
        X = np.random.default_rng(0).normal(size=(200, 2))
        X[:20] = 30.0
        start = Mixture([0.5, 0.5], [[0.0, 0.0], [30.0, 30.0]], [np.eye(2)] * 2)
        result = fit(X, start)
        assert result.outcome is Outcome.FITTED
        assert np.linalg.eigvalsh(result.mixture.covariances).min() > 0

    def test_one_collapsed_start_of_several_is_no_failure(self, monkeypatch):
        X, _ = problem()
        maximise, calls = LocalProblem.maximise, []

        def first_one_collapses(self, *args, **kwargs):
            calls.append(1)
            if len(calls) == 1:
                raise ComponentCollapsedError("collapsed")
            return maximise(self, *args, **kwargs)

        monkeypatch.setattr(LocalProblem, "maximise", first_one_collapses)
        assert fit_local(X, 3, n_init=3, random_state=0).outcome is Outcome.FITTED
        assert len(calls) == 3

    @every_type
    @pytest.mark.parametrize("value", [1e100, 1e160, 1e200, 1e300])
    def test_an_enormous_value_is_an_estimate_or_an_outcome(self, covariance_type, value):
        X, _ = problem()
        X[0, 0] = value
        result = fit_local(X, 2, covariance_type=covariance_type, random_state=0)
        assert result.is_usable or "constant" not in result.reason


class TestArguments:
    X = np.random.default_rng(0).normal(size=(100, 2))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"covariance_type": "round"}, "covariance_type must be one of 'full'.*got 'round'"),
            ({"start": "cold"}, r"start must be one of 'k-means\+\+'.*got 'cold'"),
            ({"start": random_mixture(1)}, r"start must be a mixture of 2 components.*got Mixture"),
            ({"start": random_mixture(1, 2, 3)}, "in 2 columns"),
            ({"n_components": 0}, "n_components must be an integer of at least 1; got 0"),
            ({"n_components": 2.0}, "n_components must be an integer of at least 1; got 2.0"),
            ({"n_init": 0}, "n_init must be an integer of at least 1; got 0"),
            ({"max_iter": 0}, "max_iter must be an integer of at least 1; got 0"),
            ({"nan_policy": "ignore"}, "nan_policy must be one of 'raise', 'omit'; got 'ignore'"),
            ({"penalty": -1.0}, "penalty .*-1.0"),
            ({"penalty": float("nan")}, "penalty .*nan"),
            ({"penalty": "none"}, "penalty .*'none'"),
            ({"reg_covar": -1.0}, "reg_covar .*-1.0"),
            ({"n_sources": 0}, "n_sources .*0"),
            ({"tol": "loose"}, "tol .*'loose'"),
            ({"tol": -1.0}, "tol .*-1.0"),
            ({"min_rows": "few"}, "min_rows .*'few'"),
        ],
    )
    def test_an_error_names_argument_expectation_and_finding(self, options, message):
        with pytest.raises(ValueError, match=message):
            fit_local(self.X, **{"n_components": 2} | options)

    @pytest.mark.parametrize("X", [np.zeros(5), np.zeros((2, 2, 2))])
    def test_rows_have_two_axes(self, X):
        with pytest.raises(
            ValueError, match=r"X must have the shape \(n_samples, n_features\).*got"
        ):
            fit_local(X, 2)

    def test_rows_have_columns(self):
        with pytest.raises(ValueError, match="X must have"):
            fit_local(np.empty((9, 0)), 2)

    @pytest.mark.parametrize("dtype", [object, complex, bool, str, "datetime64[s]"])
    def test_rows_are_real_numbers(self, dtype):
        with pytest.raises(TypeError, match="X must hold real numbers; got the dtype"):
            fit_local(np.ones((9, 2)).astype(np.int64).astype(dtype), 2)


@pytest.mark.parametrize("n_samples", [1000, 100_000])
@pytest.mark.parametrize("value", [0.0, 0.1, -999.0, 1e9])
def test_a_constant_column_is_seen_whatever_the_number_of_rows(n_samples, value):
    X = np.random.default_rng(0).normal(size=(n_samples, 3))
    X[:, 1] = value
    estimate = fit_local(X, 2, random_state=0, feature_names=["a", "b", "c"])
    assert estimate.outcome is Outcome.DEGENERATE
    assert estimate.reason.startswith("'b' is constant")
