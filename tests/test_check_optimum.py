"""A wrong optimum that all partitions share is reported, and left where the user wants that."""

from __future__ import annotations

import dask
import dask.array as da
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dask_dfmr import GaussianMixture, Mixture, OptimumWarning, fit_local, mixing_distance
from dask_dfmr.local.fit import LocalProblem
from dask_dfmr.refinement import optima
from tests.data_makers import CountingReader, make_ddf, same_bits

CLUSTERS = Mixture(
    [0.3, 0.3, 0.4], [[0.0, 0.0], [5.0, 0.0], [20.0, 20.0]], [np.eye(2), np.eye(2), 2 * np.eye(2)]
)
MERGED = Mixture(
    [0.6, 0.2, 0.2],
    [[2.5, 0.0], [19.0, 19.0], [21.0, 21.0]],
    [np.diag([7.0, 1.0]), 2 * np.eye(2), 2 * np.eye(2)],
)
"""One component for two clusters, and two for one: EM does not find out of it."""


def draw(m, n=400, seed=0):
    X, _ = CLUSTERS.sample(m * n, seed)
    return np.random.default_rng(seed).permutation(X)


def start_at(mixture):
    return {
        "weights_init": mixture.weights,
        "means_init": mixture.means,
        "precisions_init": np.linalg.inv(mixture.covariances),
    }


def make(start=MERGED, **kwargs):
    return GaussianMixture(3, **{"random_state": 0, "rho": np.inf, **start_at(start)} | kwargs)


@pytest.fixture(scope="module", name="X")
def rows():
    return da.from_array(draw(10), chunks=(400, 2))


class TestEstimator:
    @pytest.mark.smoke
    def test_a_shared_wrong_optimum_is_reported(self, X):
        with pytest.warns(OptimumWarning, match="there is a better optimum") as warned:
            gm = make().fit(X)
        (message,) = [str(w.message) for w in warned if w.category is OptimumWarning]
        assert "nats per row" in message
        assert "check_optimum=1" in message
        assert gm.n_optimum_changes_ == 0
        assert mixing_distance(gm.mixture_, CLUSTERS) > 1

    def test_it_really_is_an_optimum_of_em(self, X):
        fitted = fit_local(X.compute(), 3, start=MERGED, tol=1e-12).mixture
        assert mixing_distance(fitted, CLUSTERS) > 1

    @pytest.mark.smoke
    def test_a_restart_adopts_the_better_one(self, X):
        gm = make(check_optimum=1).fit(X)
        assert gm.n_optimum_changes_ == 1
        assert mixing_distance(gm.mixture_, CLUSTERS) < 0.3
        assert gm.support_.all()

    def test_the_refinement_starts_from_what_was_adopted(self, X):
        gm = make(check_optimum=2, refine=2).fit(X)
        assert gm.n_optimum_changes_ == 1
        assert mixing_distance(gm.mixture_, CLUSTERS) < 0.3

    @pytest.mark.parametrize("check_optimum", ["auto", 0, 3])
    def test_nothing_is_said_of_a_good_optimum(self, X, check_optimum):
        gm = make(CLUSTERS, check_optimum=check_optimum).fit(X)
        assert gm.n_optimum_changes_ == 0

    def test_nothing_is_asked_if_nothing_should_be(self, X):
        gm = make(check_optimum=None).fit(X)
        assert mixing_distance(gm.mixture_, CLUSTERS) > 1

    def test_a_warm_start_is_a_shared_start(self, X):
        gm = make(check_optimum=None, warm_start=True).fit(X)
        with pytest.warns(OptimumWarning):
            gm.set_params(check_optimum="auto").fit(X)

    def test_the_warning_names_the_number_of_restarts_there_were(self, X, monkeypatch):
        """Where every optimum is said to be beaten."""
        monkeypatch.setattr(optima.Comparison, "is_better", property(lambda self: True))
        with pytest.warns(OptimumWarning) as warned:
            make(check_optimum=1).fit(X)
        text = " ".join(str(w.message) for w in warned)
        assert "Raise check_optimum (now 1)" in text or "the first one is kept" in text

    @pytest.mark.parametrize("check_optimum", [-1, 1.5, "never", True])
    def test_a_wrong_number_is_named(self, X, check_optimum, raise_if_dask_computes):
        with (
            raise_if_dask_computes(),
            pytest.raises(ValueError, match="check_optimum must be None, 'auto' or"),
        ):
            make(check_optimum=check_optimum).fit(X)

    def test_two_partitions_cannot_tell(self):
        X = da.from_array(draw(1), chunks=(400, 2))
        make().fit(X)


class TestReads:
    START = start_at(Mixture([0.65, 0.35], [[3.0, 1.0], [-3.0, 0.0]], [np.eye(2)] * 2))

    def counts(self, tmp_path, **kwargs):
        reader = CountingReader(tmp_path)
        with dask.config.set(scheduler="threads"):
            GaussianMixture(2, random_state=0, rho=np.inf, **kwargs).fit(make_ddf(8, reader))
        return sorted(reader.count().values())

    def test_the_check_reads_a_few_partitions_again(self, tmp_path):
        assert self.counts(tmp_path, **self.START) == [1] * 2 + [2] * 6

    def test_with_large_pilots_nothing_is_checked(self, tmp_path):
        assert self.counts(tmp_path) == [2] * 8

    def test_unless_it_is_asked_for(self, tmp_path):
        assert self.counts(tmp_path, check_optimum=0) == [2] * 2 + [3] * 6

    def test_with_small_pilots_it_is(self, tmp_path):
        """200 rows are fewer than ten for each of 41 parameters."""
        reader = CountingReader(tmp_path)
        with dask.config.set(scheduler="threads"):
            GaussianMixture(7, random_state=0, rho=np.inf, on_failed="ignore").fit(
                make_ddf(8, reader)
            )
        assert sum(reader.count().values()) == 16 + 6


class TestSchedulers:
    def test_same_bits(self, X, client):
        found = make(check_optimum=1).fit(X)
        with dask.config.set(scheduler="synchronous"):
            other = make(check_optimum=1).fit(X)
        assert same_bits(found.mixture_, other.mixture_)


class TestGroups:
    def test_disjoint_and_of_kept_partitions(self):
        groups = optima.draw_groups(range(5, 40), [1000] * 35, 300, np.random.default_rng(0))
        assert [len(group) for group in groups] == [3, 3, 3]
        drawn = [i for group in groups for i in group]
        assert len(set(drawn)) == 9
        assert set(drawn) <= set(range(5, 40))

    @pytest.mark.parametrize(
        ("n_kept", "n_rows", "sizes"),
        [
            (1, 100, []),
            (2, 100, [1, 1]),
            (4, 10, [1, 1, 1]),
            (9, 2000, [1, 1, 1]),
            (100, 10, [6, 6, 6]),
            (100, 10**6, [1, 1, 1]),
        ],
    )
    def test_as_many_as_there_are(self, n_kept, n_rows, sizes):
        groups = optima.draw_groups(range(n_kept), [n_rows] * n_kept, 30, np.random.default_rng(0))
        assert [len(group) for group in groups] == sizes


class TestCompare:
    def fits(self, candidates, shared, n_groups=3):
        problem = LocalProblem(CLUSTERS.family, 3)
        rng = np.random.default_rng(0)
        groups = [draw(1, 1000, seed) for seed in range(n_groups)]
        points = [None if c is None else (c.weights, c.components) for c in candidates]
        shared = (shared.weights, shared.components)
        return [optima.fit_group(problem, rows, shared, points, rng) for rows in groups]

    def test_the_better_optimum_wins(self):
        found = optima.compare(CLUSTERS.family, self.fits([MERGED, None, CLUSTERS], MERGED))
        assert found.candidate == 2
        assert found.is_better
        assert found.n_check_rows == 3000
        assert min(found.group_z) > 4

    @pytest.mark.parametrize("where", [[1e6, 0.0], [0.0, 1e6], [-1e6, 1e6]])
    def test_a_far_row_decides_nothing(self, where):
        fits = self.fits([CLUSTERS], MERGED)
        expected = optima.compare(CLUSTERS.family, fits)
        fits[1].check_rows[0] = where
        found = optima.compare(CLUSTERS.family, fits)
        assert found.is_better
        assert found.gain == pytest.approx(expected.gain, rel=0.2)
        rows = [fit.check_rows for fit in fits]
        assert optima.gain_of(CLUSTERS.family, CLUSTERS, MERGED, rows)[0] > 0

    @given(st.integers(0, 99), st.sampled_from([-1e12, 1e12]))
    def test_a_gain_is_capped_at_a_standard_error(self, seed, far):
        gains = np.random.default_rng(seed).normal(0.3, 1.0, 500)
        assert (optima.capped_gains(gains) == gains).all()
        gains[0] = far
        capped = optima.capped_gains(gains)
        assert (capped[1:] == gains[1:]).all()
        assert abs(capped[0] / len(gains)) <= 1.05 / np.sqrt(len(gains))

    def test_the_same_optimum_is_not_better(self):
        moved = Mixture(CLUSTERS.weights, CLUSTERS.means + 0.2, CLUSTERS.covariances)
        found = optima.compare(CLUSTERS.family, self.fits([moved], CLUSTERS))
        assert abs(found.gain) < optima.LEAST_GAIN_PER_ROW
        assert not found.is_better

    def test_no_candidate_is_no_comparison(self):
        assert optima.compare(CLUSTERS.family, self.fits([None], CLUSTERS)) is None

    def test_one_group_that_disagrees_with_two_is_outvoted(self):
        better = optima.Comparison(0, 0.1, 0.01, [5.0, 4.0, -3.0], 3000)
        assert better.is_better
        assert not better._replace(group_z=[30.0, 1.0, -3.0]).is_better
        assert not better._replace(gain=1e-3, error=1e-5).is_better
        assert not better._replace(error=0.05).is_better

    def test_a_fresh_start_finds_the_clusters(self):
        problem = LocalProblem(CLUSTERS.family, 3)
        found = optima.fresh_start(problem, draw(1, 2000), np.random.default_rng(0))
        mixture = CLUSTERS.family.mixture(*found)
        assert mixing_distance(mixture, CLUSTERS) < 0.5
