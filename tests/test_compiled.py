"""The compiled kernels against their NumPy twins, at the edges of blocks, chunks and floating point."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit
from numpy.testing import assert_allclose, assert_array_equal

from dask_dfmr.mixtures import engine
from dask_dfmr.mixtures.compiled import em, integrals, lanes, steps
from dask_dfmr.mixtures.family import Prior, StepRule, em_steps
from dask_dfmr.mixtures.gaussian import COVARIANCE_TYPES, Gaussian
from dask_dfmr.mixtures.row_cut import RowCut
from tests.strategies import covariance_types, random_mixture, seeds

every_type = pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)


def apply(function, values):
    """A function of lanes over an array of any length."""

    @njit
    def loop(x, out):
        for i in range(0, len(x), lanes.LANES):
            lanes.store(out, i, function(lanes.load(x, i)))

    x = np.ones(-(-len(values) // lanes.LANES) * lanes.LANES)
    x[: len(values)] = values
    out = np.empty_like(x)
    loop(x, out)
    return out[: len(values)]


def reduced(function, x):
    """A function of one value of lanes to a number."""
    return njit(lambda x: function(lanes.load(x, 0)))(x)


def both_engines(function, *args):
    results = []
    for name in ("numpy", "numba"):
        with engine.use(name):
            results.append(function(*args))
    return results


def assert_twins(X, mixture, rtol=1e-9, cut=None):
    """One pass by both engines, compared in standard deviations and rows."""
    family = mixture.family if cut is None else mixture.family.with_cut(cut)
    expected, found = both_engines(family.em_pass, X, mixture.weights, mixture.components)
    assert found.n_outside == expected.n_outside
    assert_allclose(found[0], expected[0], rtol=1e-12)
    for f, e in zip(found[1], expected[1], strict=True):
        assert f.shape == e.shape
        assert_allclose(f, e, rtol=rtol, atol=1e-10 * max(np.abs(e).max(), 1e-300))


class TestLanes:
    def test_exp_is_exact_to_two_units_in_the_last_place(self):
        x = -np.concatenate([np.linspace(0, 708, 20_001), np.geomspace(1e-18, 1, 2_001), [0.0]])
        assert_allclose(apply(lanes.exp, x), np.exp(x), rtol=4.5e-16)

    def test_exp_of_far_less_is_zero(self):
        assert_array_equal(apply(lanes.exp, np.array([-709.0, -1e4, -1e300, -np.inf])), 0.0)

    def test_exp_of_zero_is_one(self):
        assert apply(lanes.exp, np.zeros(1))[0] == 1.0

    def test_exponent_and_mantissa_are_those_of_frexp(self):
        x = np.geomspace(1e-300, 1e300, 999)
        fraction, exponent = np.frexp(x)
        assert_array_equal(apply(lanes.mantissa, x), 2 * fraction)
        assert_array_equal(apply(lanes.exponent, x), exponent - 1)

    def test_reductions(self):
        x = np.random.default_rng(0).normal(size=lanes.LANES)
        assert_allclose(reduced(lanes.total, x), x.sum(), rtol=1e-14)
        assert reduced(lanes.largest, x) == x.max()


class TestCompilation:
    """A second type of argument would compile every kernel again, which takes seconds."""

    @every_type
    def test_every_kernel_is_compiled_for_one_type(self, covariance_type):
        mixture = random_mixture(1, 3, 4, covariance_type)
        frozen = mixture.sample(5_000, random_state=0)[0]
        frozen.setflags(write=False)
        with engine.use("numba"):
            for X in (
                frozen,
                np.asfortranarray(frozen),
                frozen.astype("f4"),
                frozen[::2],
                frozen[:1],
            ):
                mixture.family.em_pass(X, mixture.weights, mixture.components)
            writable = tuple(parameter.copy() for parameter in mixture.components)
            floor = np.zeros(3), np.zeros(3)
            mixture.family.log_product_integral(mixture.components, writable)
            mixture.family.log_product_integral(writable, mixture.components, floor)
        is_matrix = covariance_type in ("full", "tied")
        of_vectors = em.vector_pass, integrals.vector_pairs
        pass_ = em.matrix_shared_pass if covariance_type == "tied" else em.matrix_pass
        kernels = (pass_, integrals.matrix_pairs) if is_matrix else of_vectors
        assert [len(kernel.signatures) for kernel in kernels] == [1, 1]


class TestEmPass:
    @given(
        covariance_types,
        seeds,
        st.integers(1, 700),
        st.integers(1, 7),
        st.integers(1, 6),
        st.sampled_from("CF"),
        st.sampled_from(["f8", "f4", "i4"]),
        st.booleans(),
    )
    def test_twins(self, covariance_type, seed, n, d, k, order, dtype, truncates):
        mixture = random_mixture(seed, k, d, covariance_type, 2.0)
        X = mixture.sample(n, random_state=seed)[0] * (10 if dtype == "i4" else 1)
        rows = np.asarray(X, dtype=dtype, order=order)
        assert_twins(rows, mixture, cut=RowCut(0.2, truncates))

    @every_type
    @pytest.mark.parametrize("n", [1, em.GROUP - 1, em.GROUP + 1, 256, 257, 10_000])
    def test_at_the_edges_of_blocks(self, covariance_type, n):
        mixture = random_mixture(n, 3, 3, covariance_type, 1.0)
        assert_twins(mixture.sample(n, random_state=1)[0], mixture)

    @every_type
    def test_many_columns_and_components(self, covariance_type):
        mixture = random_mixture(5, 30, 41, covariance_type, 1.0)
        assert_twins(mixture.sample(700, random_state=1)[0], mixture)

    @every_type
    def test_the_layout_of_the_rows_does_not_show(self, covariance_type):
        mixture = random_mixture(1, 3, 4, covariance_type, 1.0)
        X = mixture.sample(5_000, random_state=1)[0]
        by_row, by_column, strided = (
            mixture.family.em_pass(rows, mixture.weights, mixture.components)
            for rows in (
                np.ascontiguousarray(X),
                np.asfortranarray(X),
                np.repeat(X, 2, axis=0)[::2],
            )
        )
        for other in (by_column, strided):
            assert by_row[0] == other[0]
            for a, b in zip(by_row[1], other[1], strict=True):
                assert_array_equal(a, b)

    @every_type
    def test_rows_beyond_all_components(self, covariance_type):
        mixture = random_mixture(2, 3, 2, covariance_type, 1.0)
        X = np.array([[0.0, 0.0], [1e130, -1e130], [-1e140, 1e140], [1e8, 1e8]])
        expected, found = both_engines(
            mixture.family.em_pass, X, mixture.weights, mixture.components
        )
        assert_allclose(found.log_likelihood, expected.log_likelihood, rtol=1e-12)
        assert_allclose(found.moments[0], expected.moments[0], rtol=1e-12)
        assert found.moments[0].sum() == pytest.approx(len(X))
        assert found.n_outside == expected.n_outside

    def test_a_component_of_weight_zero_has_no_rows(self):
        mixture = random_mixture(3, 3, 2)
        X = mixture.sample(300, random_state=0)[0]
        weights = np.array([0.4, 0.0, 0.6])
        with engine.use("numba"):
            mass, first, second = mixture.family.em_pass(X, weights, mixture.components).moments
        assert mass[1] == 0
        assert not first[1].any()
        assert not second[1].any()

    def test_far_from_the_origin_nothing_cancels(self):
        mixture = random_mixture(4, 3, 2, spread=1.0)
        X = mixture.sample(2_000, random_state=0)[0]
        moved = (mixture.means + 2.0**30, mixture.covariances)
        with engine.use("numba"):
            here = mixture.family.em_pass(X, mixture.weights, mixture.components)
            there = mixture.family.em_pass(X + 2.0**30, mixture.weights, moved)
        assert_allclose(there[0], here[0], rtol=1e-6)
        assert_allclose(there[1][2], here[1][2], rtol=1e-6, atol=1e-4)


priors = st.sampled_from(
    [Prior(0.0, ()), Prior(0.02, ()), Prior(0.3, (), 1e-3), Prior(0.1, ("of all rows",))]
)
"""Without a penalty, with the target of the first step, with a floor too, and with the penalty of the paper."""


class TestEmSteps:
    @staticmethod
    def steps_of(mixture, X, prior=None, rule=None, cut=None, function=Gaussian.em_steps):
        family = mixture.family if cut is None else mixture.family.with_cut(cut)
        prior = Prior(0.02, ()) if prior is None else prior
        if prior.target == ("of all rows",):
            prior = prior._replace(target=family.prior_target(X))
        rule = StepRule(6) if rule is None else rule
        return function(family, X, mixture.weights, mixture.components, prior, rule)

    def assert_twins(self, mixture, X, **given):
        with engine.use("numba"):
            expected = self.steps_of(mixture, X, function=em_steps, **given)
            found = self.steps_of(mixture, X, **given)
        for name in ("n_steps", "has_stopped", "n_outside_first", "n_outside"):
            assert getattr(found, name) == getattr(expected, name), name
        for name in ("objective", "log_likelihood"):
            assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-9)
        parts = (
            [steps.weights, *steps.components, steps.prior.target[0]] for steps in (found, expected)
        )
        for f, e in zip(*parts, strict=True):
            assert f.shape == e.shape
            assert_allclose(f, e, rtol=1e-7, atol=1e-7 * np.abs(e).max())

    @given(
        covariance_types,
        seeds,
        st.integers(60, 700),
        st.integers(1, 7),
        st.integers(1, 4),
        priors,
        st.booleans(),
        st.sampled_from(["f8", "f4"]),
    )
    def test_twins(self, covariance_type, seed, n, d, k, prior, truncates, dtype):
        mixture = random_mixture(seed, k, d, covariance_type, 2.0)
        X = mixture.sample(n, random_state=seed)[0].astype(dtype)
        self.assert_twins(mixture, X, prior=prior, cut=RowCut(0.05, truncates))

    @every_type
    def test_they_stop_where_the_reference_stops(self, covariance_type):
        mixture = random_mixture(7, 3, 2, covariance_type, 1.0)
        X = mixture.sample(400, random_state=1)[0]
        for rule in (StepRule(500, -np.inf, 0.02), StepRule(9, -1e300, np.inf), StepRule()):
            self.assert_twins(mixture, X, rule=rule)

    @every_type
    def test_the_layout_of_the_rows_does_not_show(self, covariance_type):
        mixture = random_mixture(1, 3, 4, covariance_type, 1.0)
        X = mixture.sample(40_000, random_state=1)[0].astype("f4").astype("f8")
        first, *others = (
            self.steps_of(mixture, rows)
            for rows in (X, np.asfortranarray(X), np.repeat(X, 2, axis=0)[::2], X.astype("f4"))
        )
        for other in others:
            assert other.objective == first.objective
            assert_array_equal(other.weights, first.weights)
            for a, b in zip(other.components, first.components, strict=True):
                assert_array_equal(a, b)

    def test_a_step_without_a_result_is_not_made(self):
        mixture = random_mixture(3, 2, 2)
        with engine.use("numba"):
            steps = self.steps_of(mixture, np.zeros((50, 2)), prior=Prior(0.0, ()))
        assert steps.n_steps == 0
        assert steps.weights is mixture.weights

    @every_type
    def test_means_too_far_apart_for_one_center(self, covariance_type):
        mixture = random_mixture(4, 3, 2, covariance_type, 1e9)
        self.assert_twins(mixture, mixture.sample(300, random_state=1)[0], rule=StepRule(1))

    @every_type
    def test_they_are_compiled_for_one_type(self, covariance_type):
        mixture = random_mixture(1, 3, 4, covariance_type, 1.0)
        X = mixture.sample(300, random_state=1)[0]
        frozen = X.copy()
        frozen.setflags(write=False)
        with engine.use("numba"):
            for rows in (frozen, np.asfortranarray(X), X.astype("f4"), X[::2], X[:60]):
                self.steps_of(mixture, rows)
                self.steps_of(mixture, rows, prior=Prior(0.1, ("of all rows",)))
            self.steps_of(mixture, X, prior=Prior(0, (), np.float32(1e-3)))
        n_kinds = len(set(steps.PASS_KINDS.values()))
        assert len(steps.em_steps_kernel.signatures) <= n_kinds


class TestEvaluate:
    @given(covariance_types, seeds, st.integers(1, 700), st.integers(1, 7), st.integers(1, 6))
    def test_twins(self, covariance_type, seed, n, d, k):
        mixture = random_mixture(seed, k, d, covariance_type, 2.0)
        X = mixture.sample(n, random_state=seed)[0]
        for quantity in ("log_density", "label", "responsibilities"):
            numpy_values, found = both_engines(
                mixture.family.evaluate, X, mixture.weights, mixture.components, quantity
            )
            assert found.shape == numpy_values.shape
            assert_allclose(found, numpy_values, rtol=1e-9, atol=1e-10)

    @every_type
    def test_a_row_has_the_same_value_in_any_block(self, covariance_type):
        mixture = random_mixture(6, 3, 3, covariance_type, 1.0)
        X = mixture.sample(1_000, random_state=0)[0]
        with engine.use("numba"):
            whole = mixture.predict_proba(X)
            assert_array_equal(mixture.predict_proba(X[777:]), whole[777:])
            assert_array_equal(mixture.predict_proba(np.asfortranarray(X)), whole)

    @every_type
    def test_rows_beyond_all_components(self, covariance_type):
        mixture = random_mixture(2, 3, 2, covariance_type, 1.0)
        X = np.array([[1e130, -1e130], [-1e140, 1e140]])
        with engine.use("numba"):
            assert np.isfinite(mixture.score_samples(X)).all()
            assert_allclose(mixture.predict_proba(X).sum(axis=1), 1.0)

    def test_a_component_of_weight_zero_has_no_rows(self):
        mixture = random_mixture(3, 3, 2)
        weights = np.array([0.4, 0.0, 0.6])
        X = mixture.sample(300, random_state=0)[0]
        with engine.use("numba"):
            r = mixture.family.evaluate(X, weights, mixture.components, "responsibilities")
        assert not r[:, 1].any()


class TestProductIntegrals:
    @given(covariance_types, seeds, st.integers(1, 40), st.integers(1, 40), st.integers(1, 9))
    def test_twins(self, covariance_type, seed, n_a, n_b, d):
        a, b = (
            random_mixture([seed, i], n, d, covariance_type, 2.0) for i, n in enumerate((n_a, n_b))
        )
        expected, found = both_engines(
            Gaussian(covariance_type).log_product_integral, a.components, b.components
        )
        assert_allclose(found, expected, rtol=1e-11, atol=1e-11)

    @given(seeds, st.floats(0.1, 30), st.floats(-60, 0), st.integers(1, 6))
    def test_only_pairs_below_their_floor_are_skipped(self, seed, spread, floor, d):
        rng = np.random.default_rng(seed)
        a, b = (random_mixture([seed, i], 20, d, "full", spread).components for i in range(2))
        floors = floor + rng.normal(0, 5, 20), rng.normal(0, 5, 20)
        whole = integrals.log_product_integral(a, b)
        some = integrals.log_product_integral(a, b, floors)
        skipped = np.isneginf(some)
        assert_array_equal(some[~skipped], whole[~skipped])
        assert (whole < floors[0][:, None] + floors[1])[skipped].all()

    def test_far_pairs_are_skipped(self):
        a = random_mixture(0, 20, 3).components
        b = a[0] + 1e3, a[1]
        floors = np.full(20, -50.0), np.zeros(20)
        assert np.isneginf(integrals.log_product_integral(a, b, floors)).all()

    @pytest.mark.parametrize("covariance_type", ["full", "diag"])
    @pytest.mark.parametrize("variance", [1e-12, 1.0, 1e12])
    def test_more_columns_than_a_product_of_mantissas_bears(self, covariance_type, variance):
        d = 1_100
        one = np.full((1, d), 0.9 * variance)
        covariances = one if covariance_type == "diag" else one[:, :, None] * np.eye(d)
        components = np.zeros((1, d)), covariances
        found = integrals.log_product_integral(components, components)
        assert_allclose(found, -0.5 * d * np.log(2 * np.pi * 1.8 * variance), rtol=1e-12)

    def test_infinitely_far_is_minus_infinity(self):
        family = Gaussian("full")
        a = np.zeros((1, 2)), np.eye(2)[None] * 1e-200
        b = np.full((1, 2), 1e140), np.eye(2)[None] * 1e-200
        expected, found = both_engines(family.log_product_integral, a, b)
        assert np.isneginf(expected).all()
        assert np.isneginf(found).all()


NARROW = """
import llvmlite.binding as llvm
features = llvm.get_host_cpu_features()
features.update({name: False for name in features if name.startswith("avx512")})
llvm.get_host_cpu_features = lambda: features
import numpy as np
from dask_dfmr import Mixture
from dask_dfmr.mixtures import engine
from dask_dfmr.mixtures.compiled import lanes
assert lanes.LANES == 4
rng = np.random.default_rng(0)
mixture = Mixture([0.5, 0.3, 0.2], rng.normal(size=(3, 5)), [np.eye(5)] * 3)
X = mixture.sample(1_000, random_state=0)[0]
family = mixture.family
results = []
for name in ("numpy", "numba"):
    with engine.use(name):
        sums = family.em_pass(X, mixture.weights, mixture.components)
        integrals = family.log_product_integral(mixture.components, mixture.components)
        results.append((sums.log_likelihood, *sums.moments, integrals))
for expected, found in zip(*results):
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
"""


def test_narrow_registers(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", NARROW], env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
