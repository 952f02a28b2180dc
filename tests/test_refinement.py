"""Refinement: to the optimum of all kept rows, without what contradicts and with what was too small."""

from __future__ import annotations

import dask
import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from dask_dfmr import (
    GaussianMixture,
    Mixture,
    PartitionWarning,
    RefinementError,
    dfmr,
    fit_local,
    mixing_distance,
)
from tests.data_makers import (
    COLUMNS,
    TRUTH,
    CountingReader,
    Reader,
    make_array,
    make_ddf,
    make_frame,
    make_rows,
    same_bits,
    short,
)

M = 8


def make(**kwargs):
    """From near the truth: pilots would take half of the time."""
    usual = {"random_state": 0, "on_failed": "ignore", "means_init": TRUTH.means}
    return GaussianMixture(2, **usual | kwargs)


def lone_row(frame):
    return frame.iloc[:1]


def far_rows(frame):
    """Five rows that no other partition has the like of."""
    return frame.iloc[:5] * 10


def heavy_tail(frame):
    """A tenth of the rows spread out: the L2 distance hardly sees it, the score does."""
    frame = frame.copy()
    frame.iloc[::10] = frame.iloc[::10].to_numpy() * [3.0, 3.0]
    return frame


class Failing:
    """Fails from the given read of a partition on; in this process only."""

    __name__ = "read"

    def __init__(self, partition, first):
        self.partition, self.first, self.reads = partition, first, []  # a list, which copies share

    def __call__(self, i):
        if i == self.partition:
            self.reads.append(i)
            if len(self.reads) >= self.first:
                raise OSError("the disk is gone")
        return make_frame(i)


class Growing(Failing):
    """Has other rows than before."""

    def __call__(self, i):
        if i != self.partition:
            return make_frame(i)
        self.reads.append(i)
        return make_frame(i, 200 if len(self.reads) < self.first else 300)


def pooled_fit(partitions, start, **kwargs):
    rows = np.concatenate([make_rows(i) for i in partitions])
    return fit_local(rows, 2, start=start, tol=1e-13, **kwargs).mixture


class TestResult:
    @pytest.mark.smoke
    def test_auto_is_the_optimum_of_all_kept_rows(self):
        gm = make(refine="auto").fit(make_ddf(M))
        kept = np.flatnonzero(gm.support_)
        expected = pooled_fit(kept, gm.aggregate_.unrefined)
        before = mixing_distance(gm.aggregate_.unrefined, expected)
        assert mixing_distance(gm.mixture_, expected) < 0.02 * before
        assert gm.converged_

    @pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
    def test_a_pass_is_the_em_step_over_all_rows(self, covariance_type):
        gm = make(refine=1, covariance_type=covariance_type).fit(make_ddf(M))
        kept = np.flatnonzero(gm.support_)
        start = gm.aggregate_.unrefined
        expected = pooled_fit(kept, start, covariance_type=covariance_type, max_iter=1)
        for name in ("weights", "means", "covariances"):
            np.testing.assert_allclose(
                getattr(gm.mixture_, name), getattr(expected, name), rtol=1e-9, atol=1e-12
            )

    @pytest.mark.parametrize("parameters", [{"penalty": 0.0}, {"penalty": 0.3}, {"reg_covar": 0.1}])
    def test_the_penalty_is_that_of_the_fits(self, parameters):
        gm = make(refine=1, **parameters).fit(make_ddf(M))
        kept = np.flatnonzero(gm.support_)
        expected = pooled_fit(kept, gm.aggregate_.unrefined, max_iter=1, **parameters)
        np.testing.assert_allclose(gm.covariances_, expected.covariances, rtol=1e-9)

    def test_the_objective_never_falls(self):
        far = Mixture([0.5, 0.5], [[2.5, 0.8], [-1.0, 0.5]], [np.eye(2) * 3] * 2)
        start = {
            "weights_init": far.weights,
            "means_init": far.means,
            "precisions_init": np.linalg.inv(far.covariances),
        }
        gm = make(**start, max_iter=2, refine=15)
        with pytest.warns(ConvergenceWarning):
            gm.fit(make_ddf(M))
        passes = gm.refinement_
        assert len(passes) == gm.n_passes_ == 15
        objective = passes["objective"].to_numpy()
        assert (np.diff(objective) >= -1e-9 * np.abs(objective[1:])).all()
        np.testing.assert_allclose(passes["gain"][1:], np.diff(objective), atol=1e-9)
        assert np.isnan(passes["gain"][0])

    def test_components_keep_their_order(self):
        gm = make(refine=3).fit(make_ddf(M))
        np.testing.assert_allclose(gm.means_, gm.aggregate_.unrefined.means, atol=0.5)

    def test_zero_passes_change_nothing(self):
        plain, zero = make().fit(make_ddf(M)), make(refine=0).fit(make_ddf(M))
        assert plain.mixture_ == zero.mixture_
        assert zero.aggregate_.unrefined is None
        assert zero.n_passes_ == 0
        assert len(zero.refinement_) == 0

    def test_what_is_learned_says_what_was_refined(self):
        gm = make(refine=4).fit(make_ddf(M))
        assert gm.aggregate_.mixture is gm.mixture_
        assert gm.mixture_ != gm.aggregate_.unrefined
        assert gm.lower_bound_ == gm.refinement_["mean_log_likelihood"].iloc[-1]
        assert gm.mixture_.feature_names == tuple(COLUMNS)
        assert (gm.refinement_["n_samples"] == 200 * gm.support_.sum()).all()

    def test_a_tolerance_is_scikit_learns(self):
        loose = make(refine="auto", tol=1e-3).fit(make_ddf(M))
        tight = make(refine="auto").fit(make_ddf(M))
        assert loose.n_passes_ < tight.n_passes_
        assert loose.refinement_["gain"].iloc[-1] < 1e-3 * loose.refinement_["n_samples"].iloc[-1]


class TestReads:
    def test_one_read_of_kept_partitions_a_pass(self, tmp_path):
        reader = CountingReader(tmp_path)
        with dask.config.set(scheduler="threads"):
            make(init_params="kmeans").fit(make_ddf(M, reader))
        before = reader.count()
        with dask.config.set(scheduler="threads"):
            gm = make(init_params="kmeans", refine=3).fit(make_ddf(M, reader))
        for i, count in reader.count().items():
            assert count == 2 * before[i] + 3 * bool(gm.support_[i])

    @pytest.mark.parametrize("make_data", [make_ddf, make_array])
    def test_same_bits_on_every_scheduler(self, make_data):
        fits = []
        for scheduler in ("synchronous", "threads"):
            with dask.config.set(scheduler=scheduler):
                fits.append(make(refine=4).fit(make_data(M)))
        for other in fits[1:]:
            assert same_bits(fits[0].mixture_, other.mixture_)
            assert fits[0].refinement_.equals(other.refinement_)

    def test_a_cluster_gives_the_same_bits(self, client):
        with dask.config.set(scheduler="synchronous"):
            expected = make(refine=4).fit(make_ddf(M))
        found = make(refine=4).fit(make_ddf(M))
        assert same_bits(found.mixture_, expected.mixture_)
        assert found.partition_report_.equals(expected.partition_report_)


class TestLeftOut:
    def bad(self, what, m=20, **kwargs):
        return make(rho=np.inf, **kwargs).fit(make_ddf(m, Reader({3: what})))

    @pytest.mark.smoke
    def test_a_partition_that_contradicts_is_excluded_and_named(self):
        gm = self.bad(heavy_tail, refine=3)
        assert gm.aggregate_.decision.kept[3]
        assert not gm.support_[3]
        assert gm.support_.sum() == 19
        row = gm.partition_report_.loc[3]
        assert not row["kept"]
        assert row["reason"].startswith("excluded in refinement pass 1: its rows contradict")
        assert "z = " in row["reason"]
        assert "p = " in row["reason"]
        assert gm.refinement_["excluded"].tolist() == [(3,), (), ()]
        assert (gm.refinement_["n_partitions"] == 19).all()

    def test_without_it_the_result_is_that_of_the_others(self):
        gm = self.bad(heavy_tail, refine="auto")
        expected = pooled_fit([i for i in range(20) if i != 3], gm.mixture_)
        assert mixing_distance(gm.mixture_, expected) < 1e-3

    def test_three_partitions_are_not_tested(self):
        with pytest.warns(UserWarning, match="three estimates survive"):
            gm = make(rho=np.inf, refine=2).fit(make_ddf(3, Reader({1: heavy_tail})))
        assert gm.support_.all()

    def test_consistent_partitions_stay(self):
        gm = make(rho=np.inf, refine=3).fit(make_ddf(60))
        assert gm.support_.sum() >= 59


class TestAComponentOfExcludedRows:
    """Few rows in another unit take a component of their own, and a true one is lost."""

    PLACES = Mixture([0.5, 0.5], [[0.5, -0.5], [2.6, 0.4]], np.repeat(np.eye(2)[None], 2, axis=0))

    def parts(self, share):
        parts = [self.PLACES.sample(1000, i)[0] for i in range(20)]
        parts[7] = parts[7][: int(share * 1000)] * 1000.0
        return parts

    @pytest.mark.parametrize("share", [0.022, 1.0])
    def test_it_is_replaced(self, share):
        parts = self.parts(share)
        start = Mixture([0.97, 0.03], [[1.5, 0.0], [1500.0, 0.0]], [np.eye(2) * 2, np.eye(2) * 1e6])
        given = {
            "weights_init": start.weights,
            "means_init": start.means,
            "precisions_init": np.linalg.inv(start.covariances),
        }
        gm = make(rho=np.inf, refine="auto", check_optimum=None, **given)
        gm.fit([dask.delayed(p) for p in parts])
        assert np.flatnonzero(~gm.support_).tolist() == [7]
        assert gm.converged_
        good = fit_local(np.concatenate(parts[:7] + parts[8:]), 2, start=self.PLACES).mixture
        assert mixing_distance(gm.mixture_, good) < 0.2 * mixing_distance(good, self.PLACES)


class TestSmallPartitions:
    SMALL = {2: short, 5: far_rows, 7: lone_row}  # noqa: RUF012

    def fit(self, **kwargs):
        return make(**kwargs).fit(make_ddf(20, Reader(self.SMALL)))

    @pytest.mark.smoke
    def test_they_are_tested_without_refinement_too(self):
        report = self.fit().partition_report_
        assert (report.loc[[2, 5, 7], "outcome"] == "too few rows").all()
        assert not report.loc[[2, 5, 7], "kept"].any()
        for i in (2, 7):
            assert "; its rows are as likely as others' (p = " in report.loc[i, "reason"]
        assert "; its rows are unlikely under the global mixture: z = -" in report.loc[5, "reason"]

    def test_in_a_refinement_they_join_if_they_agree(self):
        gm = self.fit(refine=2)
        report = gm.partition_report_
        assert gm.support_[[2, 5, 7]].tolist() == [True, False, True]
        assert report.loc[[2, 7], "kept"].all()
        assert (report.loc[[2, 5, 7], "outcome"] == "too few rows").all()
        assert (
            "joined in refinement: its rows agree with the others' (p = " in report.loc[2, "reason"]
        )
        assert "its rows contradict the others' by z = " in report.loc[5, "reason"]
        assert gm.refinement_["joined"].tolist() == [(2, 7), ()]
        assert gm.refinement_["n_samples"].iloc[0] == 200 * (gm.support_.sum() - 2) + 6

    def test_only_they_are_read_again(self, tmp_path):
        reader = CountingReader(tmp_path)

        def read(i):
            frame = reader(i)
            return frame.iloc[:4] if i == 6 else frame

        with dask.config.set(scheduler="threads"):
            make(init_params="kmeans").fit(make_ddf(M, read))
        assert reader.count() == {i: 2 if i == 6 else 1 for i in range(M)}

    def test_empty_ones_are_not_read_again(self, tmp_path):
        reader = CountingReader(tmp_path)

        def read(i):
            frame = reader(i)
            return frame.iloc[:0] if i == 6 else frame

        with dask.config.set(scheduler="threads"):
            gm = make(init_params="kmeans").fit(make_ddf(M, read))
        assert reader.count() == dict.fromkeys(range(M), 1)
        assert "its rows" not in gm.partition_report_.loc[6, "reason"]

    def test_likelihoods_of_consistent_small_partitions_are_rarely_odd(self):
        small = {i: (lambda frame, n=1 + i % 10: frame.iloc[:n]) for i in range(30, 130)}
        with pytest.warns(PartitionWarning):
            report = make().fit(make_ddf(130, Reader(small))).partition_report_
        reasons = report.loc[30:, "reason"]
        assert reasons.str.contains("as likely as others'").sum() >= 98


class TestWhatGoesWrong:
    def test_a_partition_that_cannot_be_read_again_is_excluded(self):
        with (
            dask.config.set(scheduler="synchronous"),
            pytest.warns(PartitionWarning, match="could not be read again"),
        ):
            gm = make(rho=np.inf, init_params="kmeans", refine=3).fit(make_ddf(M, Failing(2, 2)))
        assert not gm.support_[2]
        assert gm.partition_report_.loc[2, "reason"] == (
            "excluded in refinement pass 1: it could not be read again: OSError: the disk is gone"
        )

    @pytest.mark.parametrize("kind", [Failing, Growing])
    def test_one_that_is_lost_on_the_way_costs_a_pass(self, kind):
        reader = kind(2, 3)
        with dask.config.set(scheduler="synchronous"), pytest.warns(PartitionWarning):
            gm = make(rho=np.inf, init_params="kmeans", refine="auto").fit(make_ddf(M, reader))
        passes = gm.refinement_
        assert passes["excluded"].tolist()[:3] == [(), (2,), ()]
        assert not passes["accepted"][1]
        assert np.isnan(passes["gain"][2])
        assert "pass 2" in gm.partition_report_.loc[2, "reason"]
        expected = pooled_fit(np.flatnonzero(gm.support_), gm.mixture_)
        assert mixing_distance(gm.mixture_, expected) < 1e-3
        assert gm.converged_

    def test_nothing_readable_is_an_error(self):
        reader = CountingOnce()
        with (
            dask.config.set(scheduler="synchronous"),
            pytest.raises(RefinementError, match="the disk is gone"),
        ):
            make(init_params="kmeans", refine=1).fit(make_ddf(M, reader))

    @pytest.mark.parametrize("refine", [-1, 1.5, "often", True, None])
    def test_a_wrong_refine_is_named(self, refine, raise_if_dask_computes):
        with (
            raise_if_dask_computes(),
            pytest.raises(ValueError, match="refine must be 'auto' or an integer"),
        ):
            make(refine=refine).fit(make_ddf())

    def test_a_lazy_graph_cannot_be_refined(self):
        with pytest.raises(ValueError, match=r"GaussianMixture\(refine=3\)"):
            dfmr(GaussianMixture(2, refine=3), make_ddf())

    def test_the_centre_alone_is_not_refined(self):
        with pytest.raises(ValueError, match="method='coat'"):
            make(method="coat", refine=1).fit(make_ddf())

    def test_components_kept_one_by_one_are_not_refined(self):
        with pytest.raises(ValueError, match="method='componentwise'"):
            make(method="componentwise", refine=1).fit(make_ddf())


class CountingOnce:
    """Every partition can be read once."""

    __name__ = "read"

    def __init__(self):
        self.seen = set()

    def __call__(self, i):
        if i in self.seen:
            raise OSError("the disk is gone")
        self.seen.add(i)
        return make_frame(i)
