"""``row_outliers="truncate"``: fits that a few bad rows in every partition do not decide."""

import warnings

import dask
import naive
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import norm
from strategies import random_mixture

from dask_dfmr import GaussianMixture, Mixture, dfmr, fit_local, metrics, select_components
from dask_dfmr.aggregation.archive import load_result
from dask_dfmr.local.central_rows import rows_to_start_from, without_gross
from dask_dfmr.local.comparison import boundary, mean_log_densities
from dask_dfmr.local.fit import LocalProblem
from dask_dfmr.mixtures import engine
from dask_dfmr.mixtures.gaussian import COVARIANCE_TYPES, Gaussian
from dask_dfmr.mixtures.row_cut import RowCut

every_type = pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
TRUTH = Mixture([0.6, 0.4], [[0.0, 0.0], [5.0, 1.0]], [np.eye(2), [[1.0, 0.5], [0.5, 2.0]]])
TRUNCATED = TRUTH.family.with_cut(RowCut(truncates=True))
SHARE = 0.02


def with_bad_rows(X, share=SHARE):
    """The rows, of which the first ones have a gross value."""
    bad = X.copy()
    bad[: round(share * len(X)), 0] = -9999.0
    return bad


def overlapping_with_bad_rows():
    """A mixture of five overlapping components in ten columns, and rows of it, one column of 10 % of them x10."""
    rng = np.random.default_rng(0)
    means, roots = rng.normal(size=(5, 10)), rng.normal(size=(5, 10, 10))
    covariances = roots @ roots.swapaxes(1, 2) / 10 + 0.2 * np.eye(10)
    truth = Mixture(np.full(5, 0.2), means, covariances)
    X, _ = truth.sample(1500, random_state=0)
    X[:150, 0] *= 10.0
    return truth, X


def error(mixture, truth=TRUTH):
    return metrics.parameter_error(mixture, truth)


@pytest.fixture(scope="module")
def clean():
    return [TRUTH.sample(500, random_state=i)[0] for i in range(6)]


@pytest.fixture(scope="module")
def bad(clean):
    return [with_bad_rows(X) for X in clean]


@pytest.fixture(scope="module")
def fitted(bad):
    return estimator().fit(delayed(bad))


def delayed(partitions):
    return [dask.delayed(X) for X in partitions]


def estimator(**parameters):
    parameters = {"check_optimum": None, "random_state": 0} | parameters
    return GaussianMixture(2, row_outliers="truncate", **parameters)


class TestLocalFits:
    @every_type
    def test_one_step_is_that_of_a_naive_twin(self, covariance_type):
        start = random_mixture(1, 3, 3, covariance_type, 2.0)
        X, _ = start.sample(400, random_state=0)
        X[:8] += 6.0
        found = fit_local(
            X,
            3,
            covariance_type=covariance_type,
            start=start,
            penalty=0,
            tol=0.0,
            max_iter=1,
            row_outliers="truncate",
            row_outlier_level=0.05,
        ).mixture
        limit, inside, second = RowCut(0.05).numbers(3)
        r = naive.responsibilities(start, X) * (naive.squared_distances(start, X) <= limit)
        mass = r.sum(axis=0)
        means = r.T @ X / mass[:, None]
        assert_allclose(found.weights, mass / mass.sum(), rtol=1e-9)
        assert_allclose(found.means, means, rtol=1e-9, atol=1e-12)
        if covariance_type == "full":
            about = X[:, None] - start.means
            scatter = np.einsum("nk,nkd,nke->kde", r, about, about) / second
            shift = means - start.means
            scatter -= np.einsum("k,kd,ke->kde", mass / inside, shift, shift)
            expected = scatter / (mass / inside)[:, None, None]
            assert_allclose(found.covariances, expected, rtol=1e-9, atol=1e-12)

    @every_type
    def test_clean_rows_cost_little(self, covariance_type):
        truth = random_mixture(0, 2, 3, covariance_type, 2.0)
        X, _ = truth.sample(4000, random_state=1)
        plain, truncated = (
            fit_local(X, 2, covariance_type=covariance_type, start=truth, row_outliers=how)
            for how in (None, "truncate")
        )
        assert truncated.outcome.value == "fitted"
        assert error(truncated.mixture, truth) < 1.3 * error(plain.mixture, truth) + 0.01

    @pytest.mark.parametrize("name", ["numpy", "numba"])
    def test_bad_rows_do_not_decide(self, clean, name):
        if name == "numba":
            pytest.importorskip("numba")
        X = np.concatenate(clean)
        with engine.use(name):
            plain = error(fit_local(X, 2, random_state=0).mixture)
            wrong = error(fit_local(with_bad_rows(X), 2, random_state=0).mixture)
            found = fit_local(with_bad_rows(X), 2, row_outliers="truncate", random_state=0)
        assert wrong > 10 * plain
        assert error(found.mixture) < 1.3 * plain
        # The mean log-density counts bad rows as rare ones.
        assert abs(found.log_likelihood - TRUTH.score(X)) < 1.0

    @every_type
    @pytest.mark.parametrize(("n_components", "n_features"), [(1, 1), (1, 3), (2, 1)])
    def test_small_fits(self, covariance_type, n_components, n_features):
        truth = random_mixture(2, n_components, n_features, covariance_type, 4.0)
        X, _ = truth.sample(60, random_state=0)
        X[0] = 1e6
        found = fit_local(
            X,
            n_components,
            covariance_type=covariance_type,
            n_init=2,
            random_state=0,
            row_outliers="truncate",
        )
        assert found.outcome.value == "fitted"
        assert np.abs(found.mixture.means).max() < 100

    @pytest.mark.parametrize("penalty", ["paper", 0.0, 0.5])
    @pytest.mark.parametrize("options", [{}, {"reg_covar": 1e-3}, {"tol": 1e-5}])
    def test_with_other_options(self, bad, penalty, options):
        found = fit_local(
            np.concatenate(bad), 2, penalty=penalty, row_outliers="truncate", **options
        )
        assert found.outcome.value == "fitted"
        assert error(found.mixture) < 0.5

    def test_a_component_does_not_grow_over_bad_rows(self):
        # Of overlapping components one grows over the rows at its cut, from the truth itself, if the cut is wide.
        truth, X = overlapping_with_bad_rows()
        problem = LocalProblem(Gaussian(cut=RowCut(truncates=True)), truth.n_components)
        origin = (truth.weights, truth.components)
        left = problem.maximise(X, origin, problem.penalty_for(X))
        found = problem.fit(X, truth)
        assert left.n_outside < 0.5 * left.n_outside_start < found.n_outside

    def test_rows_beyond_all_cuts_of_the_start_start_at_their_own(self):
        X, _ = TRUTH.sample(200, random_state=0)
        found = fit_local(X + 1e6, 2, start=TRUTH, row_outliers="truncate", random_state=0)
        assert (found.outcome.value, found.start) == ("fitted", "k-means++")
        assert np.abs(found.mixture.means - 1e6).max() < 10.0

    def test_a_column_is_constant_whatever_a_few_rows_say(self):
        X, _ = TRUTH.sample(300, random_state=0)
        X = np.column_stack([X, np.full(len(X), 7.0)])
        X[:3, 2] = -9999.0
        assert fit_local(X, 2, random_state=0).outcome.value != "degenerate"
        found = fit_local(X, 2, row_outliers="truncate", random_state=0)
        assert found.outcome.value == "degenerate"
        assert found.reason.startswith(
            "column 2 is constant apart from 3 rows with gross values; for a rare category use "
            "row_outliers=None, otherwise remove it"
        )

    def test_wrong_values(self):
        X, _ = TRUTH.sample(50, random_state=0)
        with pytest.raises(ValueError, match=r"row_outliers must be one of None, 'truncate'"):
            fit_local(X, 2, row_outliers="trim")
        for level in (0.0, 1.0):
            with pytest.raises(ValueError, match="row_outlier_level must be between 0 and 1"):
                fit_local(X, 2, row_outliers="truncate", row_outlier_level=level)


class TestStarts:
    def test_gross_values_are_set_aside(self):
        X, _ = TRUTH.sample(1000, random_state=0)
        assert without_gross(X) is X
        assert_array_equal(without_gross(with_bad_rows(X, 0.1)), X[100:])
        found = rows_to_start_from(with_bad_rows(X), np.random.default_rng(0))
        assert found.min() > -100
        assert 800 < len(found) <= 900

    @pytest.mark.parametrize("n", [1, 2, 5])
    def test_few_rows(self, n):
        X, _ = TRUTH.sample(n, random_state=0)
        assert 1 <= len(rows_to_start_from(X, np.random.default_rng(0))) <= n

    @pytest.mark.parametrize("n_features", [1, 2])
    def test_the_boundary_of_one_component_is_exact(self, n_features):
        one = Mixture([1.0], np.zeros((1, n_features)), np.eye(n_features)[None])
        family = one.family.with_cut(RowCut(truncates=True))
        found = boundary(family, (one.weights, one.components), 0.05)
        rows, _ = one.sample(40_000, random_state=0)
        below = (one.score_samples(rows) < found).mean()
        assert below == pytest.approx(0.05, abs=0.004)
        if n_features == 1:
            assert found == pytest.approx(norm.logpdf(norm.ppf(0.025)), abs=1e-6)

    def test_a_component_for_the_bad_rows_does_not_win(self):
        X, _ = TRUTH.sample(2000, random_state=0)
        X = with_bad_rows(X, 0.05)
        pooled = Mixture([1.0], [[2.0, 0.4]], [np.diag([7.0, 1.7])])
        spent = Mixture(
            [0.95, 0.05],
            [pooled.means[0], [-9999.0, 0.4]],
            [pooled.covariances[0], np.diag([100.0, 1.7])],
        )
        points = [(m.weights, m.components) for m in (TRUTH, spent)]
        right, wrong = mean_log_densities(TRUNCATED, points, X)
        assert right > wrong
        plain_right, plain_wrong = mean_log_densities(TRUTH.family, points, X)
        assert plain_right < plain_wrong


class TestWholeFits:
    def test_the_estimator(self, clean, fitted):
        plain = error(GaussianMixture(2, random_state=0).fit(delayed(clean)).mixture_)
        assert fitted.converged_
        assert fitted.support_.all()
        assert error(fitted.mixture_) < 1.3 * plain
        assert fitted.mixture_.family == Gaussian("full")

    def test_every_scheduler_gives_the_same_bits(self, bad, fitted):
        with dask.config.set(scheduler="threads", num_workers=2):
            again = estimator().fit(delayed(bad))
            lazy = dfmr(estimator(), delayed(bad)).compute()
        assert_array_equal(again.means_, fitted.means_)
        assert_array_equal(lazy.mixture.means, fitted.means_)

    def test_starts_that_are_given(self, bad, fitted):
        again = estimator(max_iter=1, warm_start=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in range(4):
                again.fit(delayed(bad))
        assert error(again.mixture_) < 0.5
        given = estimator(means_init=TRUTH.means).fit(delayed(bad))
        assert_allclose(given.means_, TRUTH.means, atol=0.3)
        start = estimator(init_params=fitted.mixture_, check_optimum=0).fit(delayed(bad))
        assert error(start.mixture_) < 0.3

    def test_an_update_counts_as_the_fit_did(self, bad, fitted):
        again = estimator().fit(delayed(bad[:5])).update(delayed(bad[5:]))
        assert again.support_.all()
        assert_allclose(again.means_, fitted.means_, atol=0.1)

    def test_selection(self, bad):
        found = select_components(estimator(), delayed(bad), n_components=[1, 2, 3])
        assert found.n_components == 2
        assert error(found.mixture) < 0.5

    def test_files_hold_the_cut(self, fitted, tmp_path):
        fitted.aggregate_.save(tmp_path / "result.dfmr", estimates=True)
        again = load_result(tmp_path / "result.dfmr").origin.problem
        assert again.family.cut == RowCut(truncates=True)
