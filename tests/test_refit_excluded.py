"""Consistent rows whose fit ended in another optimum are gained by a second look; inconsistent rows are not."""

import pickle
from dataclasses import replace

import dask
import numpy as np
import pytest

from dask_dfmr import FilterWarning, GaussianMixture, Mixture, aggregate, fit_local
from dask_dfmr.aggregation.archive import load_result, save_result
from dask_dfmr.aggregation.rerun import with_rho, without
from dask_dfmr.fitted.learned import estimates_of, learned_from
from dask_dfmr.local.estimate import FROM_OTHERS, LocalEstimate
from dask_dfmr.local.fit import LocalProblem
from dask_dfmr.local.row_statistics import PartitionStatistics, Wanted, measure
from dask_dfmr.mixtures.row_cut import RowCut
from dask_dfmr.on_dask import refit
from dask_dfmr.on_dask.first_read import read_first
from dask_dfmr.on_dask.fit import with_origin
from dask_dfmr.on_dask.refit import aggregate_with, fit_partitions, refit_excluded
from dask_dfmr.parameters import plan_of
from dask_dfmr.refinement.second_look import RowsOfKept, one_step

TRUTH = Mixture(
    [0.4, 0.3, 0.3], [[0.0, 0.0], [20.0, 0.0], [20.0, 6.0]], np.repeat(np.eye(2)[None], 3, axis=0)
)
WRONG = Mixture(
    [0.2, 0.2, 0.6], [[-1.0, 0.0], [1.0, 0.0], [20.0, 3.0]], np.repeat(np.eye(2)[None], 3, axis=0)
)
M, N = 20, 300


def partitions(bad=()):
    rows = [TRUTH.sample(N, i)[0] for i in range(M)]
    for i in bad:
        rows[i] = rows[i] * [1.0, 1.3]
    return rows


def collection(rows, reads=None):
    def load(i):
        if reads is not None:
            reads.append(i)
        return rows[i]

    return [dask.delayed(load, pure=False)(i) for i in range(len(rows))]


def fitted_with_wrong_optima(wrong, bad=()):
    """A plan, and a fit of it in which some partitions sit in a wrong optimum."""
    plan = plan_of(GaussianMixture(3, random_state=0), collection(partitions(bad)))
    fit = read_first(plan)
    stuck = replace(plan, settings=replace(plan.settings, start=WRONG, given=None))
    elsewhere = dict(zip(wrong, fit_partitions(stuck, wrong), strict=True))
    spoiled = aggregate_with(plan, fit, elsewhere)
    assert spoiled is not None
    return plan, spoiled


@pytest.fixture(autouse=True)
def _synchronous():
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.mark.smoke
def test_a_wrong_optimum_is_replaced():
    plan, spoiled = fitted_with_wrong_optima([3, 11])
    assert np.flatnonzero(~spoiled.aggregate.decision.kept).tolist() == [3, 11]
    again = refit_excluded(plan, spoiled)
    assert again.aggregate.decision.kept.all()
    assert [again.rows[i]["start"] for i in (3, 11)] == [FROM_OTHERS] * 2
    assert again.rows[3]["log_likelihood"] > spoiled.rows[3]["log_likelihood"]
    assert again.rows[4] == spoiled.rows[4]


@pytest.mark.smoke
def test_bad_rows_stay_out_and_their_first_estimate_stays():
    plan, spoiled = fitted_with_wrong_optima([3], bad=[7])
    assert np.flatnonzero(~spoiled.aggregate.decision.kept).tolist() == [3, 7]
    again = refit_excluded(plan, spoiled)
    assert np.flatnonzero(~again.aggregate.decision.kept).tolist() == [7]
    assert again.estimates[7] == spoiled.estimates[7]


def test_who_cannot_be_won_back_changes_nothing():
    plan, spoiled = fitted_with_wrong_optima([], bad=[7])
    assert refit_excluded(plan, spoiled) is spoiled


def test_only_those_least_far_out_are_read_again(monkeypatch):
    monkeypatch.setattr(refit, "MOST_SHARE", 0.0)
    monkeypatch.setattr(refit, "LEAST", 1)
    reads = []
    rows = partitions(bad=[2, 9])
    rows[9] = rows[9] * 5.0
    GaussianMixture(3, random_state=0).fit(collection(rows, reads))
    counts = np.bincount(reads, minlength=M)
    plain = []
    GaussianMixture(3, random_state=0, refit_excluded=False).fit(collection(rows, plain))
    assert (counts - np.bincount(plain, minlength=M)).tolist() == [int(i == 2) for i in range(M)]


def test_nobody_left_out_means_no_reading():
    reads, plain = [], []
    GaussianMixture(3, random_state=0).fit(collection(partitions(), reads))
    GaussianMixture(3, random_state=0, refit_excluded=False).fit(collection(partitions(), plain))
    assert sorted(reads) == sorted(plain)


def test_estimates_that_were_not_kept_cannot_be_replaced():
    rows = partitions(bad=[2])
    gm = GaussianMixture(3, random_state=0, keep_estimates=False).fit(collection(rows))
    assert not gm.support_[2]


def test_it_is_yes_or_no():
    with pytest.raises(ValueError, match="refit_excluded must be one of True, False; got 'maybe'"):
        GaussianMixture(3, refit_excluded="maybe").fit(collection(partitions()))


class TestRowsAgainstTheGlobalMixture:
    """Skewed counts in 20 partitions: fits end in several optima, and their rows do not contradict."""

    CHANGES = {  # noqa: RUF012
        "x1000": lambda X: X * 1000.0,
        "a column x2": lambda X: X * [2.0, 1.0, 1.0, 1.0],
        "a column x1.15": lambda X: X * [1.15, 1.0, 1.0, 1.0],
        "swapped columns": lambda X: X[:, [1, 0, 2, 3]],
    }

    @staticmethod
    def rows(i):
        rng = np.random.default_rng(i)
        activity = rng.gamma(0.6, 300, size=400)
        rate = rng.beta(4, 12, size=400) * activity / (activity + 30)
        means = [activity * rate * 0.5, activity * rate, activity * 0.12]
        return np.stack([activity.round(), *map(rng.poisson, means)], axis=1).astype(float)

    def p_values(self, parts, others):
        """Of other partitions, at the global mixture of the parts."""
        mixture = fit_local(np.concatenate(parts), 3, random_state=0).mixture
        counts = [len(X) for X in others]
        kept = RowsOfKept(mixture, dict(enumerate(parts)), counts, np.random.default_rng(0))
        readings = [
            PartitionStatistics(
                100 + i, len(X), measurements=measure(X, kept.mixtures, kept.wanted)
            )
            for i, X in enumerate(others)
        ]
        return kept.hold_against(readings).p_values

    def test_consistent_rows_do_not_contradict_and_others_do(self):
        parts = [self.rows(i) for i in range(26)]
        others = [*parts[20:], *(change(parts[20]) for change in self.CHANGES.values())]
        p = self.p_values(parts[:20], others)
        assert p[:6].min() > 0.01
        assert p[6:].max() < 1e-15
        assert p[[6, 7, 9]].max() < 1e-100

    def test_a_test_that_ignores_rows_outside_says_which_share(self):
        parts, far = [self.rows(i) for i in range(4)], self.rows(9)
        far[:100] += 1e6
        mixture = fit_local(np.concatenate(parts), 3, random_state=0).mixture
        shares = {}
        for truncates in (False, True):
            cut, rng = RowCut(1e-4, truncates), np.random.default_rng(0)
            kept = RowsOfKept(mixture, dict(enumerate(parts)), [len(far)], rng, cut)
            found = measure(far, kept.mixtures, kept.wanted)
            reading = PartitionStatistics(9, len(far), measurements=found)
            shares[truncates] = kept.shares_outside(reading)
        assert shares[False] == (0.0, 0.0)
        own, elsewhere = shares[True]
        assert 0.25 <= own < 0.3
        assert elsewhere < 0.05

    @pytest.mark.filterwarnings("ignore:partitions differ so much:dask_dfmr.FilterWarning")
    def test_consistent_partitions_are_gained(self):
        parts = [self.rows(100 + i) for i in range(20)]
        plain = GaussianMixture(3, random_state=0, refit_excluded=False).fit(collection(parts))
        assert not plain.support_.all()
        gm = GaussianMixture(3, random_state=0).fit(collection(parts))
        assert gm.support_.all()
        gained = gm.partition_report_[~plain.support_]
        assert (gained["start"] == FROM_OTHERS).all()
        assert (gained["n_iter"] == 1).all()


def test_the_new_estimate_is_an_em_step_from_the_global_mixture():
    plan, spoiled = fitted_with_wrong_optima([3])
    again = refit_excluded(plan, spoiled)
    start, rows = spoiled.aggregate.mixture, partitions()[3]
    r = start.predict_proba(rows)
    means = r.T @ rows / r.sum(axis=0)[:, None]
    np.testing.assert_allclose(again.estimates[3].mixture.weights, r.mean(axis=0))
    np.testing.assert_allclose(again.estimates[3].mixture.means, means, atol=1e-9)


def test_a_component_without_rows_stays_that_of_the_global_mixture():
    """Three rows do not determine the five parameters of a component, so that a step would make it a needle."""
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.normal(size=(997, 2)), rng.normal([9.0, 9.0], 1.0, size=(3, 2))])
    mixture = Mixture([0.9, 0.1], [[0.0, 0.0], [9.0, 9.0]], [np.eye(2), np.eye(2)])
    problem = LocalProblem(mixture.family, 2)
    wanted = Wanted(moments=True)
    reading = PartitionStatistics(0, len(rows), measurements=measure(rows, [mixture], wanted))
    found = one_step(problem, mixture, reading, LocalEstimate(mixture, len(rows))).mixture
    np.testing.assert_array_equal(found.means[1], mixture.means[1])
    np.testing.assert_array_equal(found.covariances[1], mixture.covariances[1])
    np.testing.assert_allclose(found.weights, [0.997, 0.003], atol=1e-6)
    np.testing.assert_allclose(found.means[0], rows[:997].mean(axis=0), atol=1e-6)


WRONG_ONES = (0, 2, 5, 11, 13, 16)


@pytest.fixture(scope="module")
def looked():
    """Six of twenty fits ended in another optimum, and partition 7 is inconsistent."""
    with dask.config.set(scheduler="synchronous"):
        plan, spoiled = fitted_with_wrong_optima(WRONG_ONES, bad=[7])
        return plan, spoiled, refit_excluded(plan, spoiled)


class TestManyGained:
    """Estimates that are gained do not judge the others."""

    def test_all_are_gained_and_nothing_else_changes(self, looked):
        _, spoiled, again = looked
        before, after = spoiled.aggregate.decision, again.aggregate.decision
        assert np.flatnonzero(~before.kept).tolist() == sorted((*WRONG_ONES, 7))
        assert np.flatnonzero(~after.kept).tolist() == [7]
        for name in ("distances", "z_scores", "p_values"):
            np.testing.assert_array_equal(getattr(before, name), getattr(after, name))

    def test_the_report_says_by_what_they_are_kept(self, looked):
        report = looked[2].report
        said = report["reason"].str.contains("its rows agree with the others'", regex=False)
        assert np.flatnonzero(said).tolist() == list(WRONG_ONES)

    def test_the_test_is_made_once_and_each_is_read_once(self, looked, monkeypatch):
        plan, spoiled, _ = looked
        made, read = [], []
        rows_of_kept, reader = refit.RowsOfKept, refit.Reader
        monkeypatch.setattr(refit, "RowsOfKept", lambda *a: made.append(1) or rows_of_kept(*a))

        class Counting(reader):
            def measure(self, indices, *rest):
                read.append(list(indices))
                return super().measure(indices, *rest)

        monkeypatch.setattr(refit, "Reader", Counting)
        refit_excluded(plan, spoiled)
        assert len(made) == 1
        assert [len(some) for some in read] == [2, 4, 1]
        assert sorted(i for some in read for i in some) == sorted((*WRONG_ONES, 7))

    def test_aggregating_again_keeps_them(self, looked, tmp_path):
        plan, _, again = looked
        result = with_origin(plan, again).aggregate
        for one in (result, saved(result, tmp_path / "result")):
            left = without(one, [0, 1])
            assert np.flatnonzero(~left.decision.kept).tolist() == [0, 1, 7]
            # A fixed radius asks for the distances of the fits.
            assert not with_rho(one, 1.3).decision.kept[list(WRONG_ONES)].any()


class TestAggregateOfTheEstimates:
    """The estimates that an estimator shows have the first fits with them."""

    @pytest.mark.filterwarnings("ignore:estimates form groups of 14 and 6")
    def test_it_gives_the_verdicts_of_the_fit(self, looked, tmp_path):
        plan, spoiled, again = looked
        learned = learned_from(with_origin(plan, again), again.report, (), "auto")
        copied = pickle.loads(pickle.dumps(learned.estimates))
        read = estimates_of(saved(learned.aggregate, tmp_path / "result"))
        for estimates in (learned.estimates, copied, read):
            found = aggregate(estimates, random_state=0, warn_excluded=False)
            assert np.flatnonzero(~found.decision.kept).tolist() == [7]
            np.testing.assert_allclose(
                found.decision.z_scores, spoiled.aggregate.decision.z_scores, rtol=1e-9
            )
            left = found.without([0, 1])
            assert np.flatnonzero(~left.decision.kept).tolist() == [0, 1, 7]

    def test_without_the_first_fits_it_says_so(self, looked):
        _, _, again = looked
        with pytest.warns(FilterWarning, match=r"estimates 0, 2, 5, 11, 13, 16 are one EM step"):
            aggregate(list(again.estimates), random_state=0, warn_excluded=False)


@pytest.fixture(scope="module")
def gross():
    """A fit of twenty partitions, two of which have one row of gross numbers."""
    rows = partitions()
    for i in (3, 11):
        rows[i][0] = [1e6, -1e6]
    with dask.config.set(scheduler="synchronous"):
        return GaussianMixture(3, random_state=0, means_init=TRUTH.means).fit(collection(rows))


class TestOneGrossRow:
    """It hardly counts in the test of the rows, and an EM step follows it anywhere."""

    def test_the_partition_stays_excluded(self, gross):
        assert np.flatnonzero(~gross.support_).tolist() == [3, 11]
        assert FROM_OTHERS not in set(gross.partition_report_["start"])
        np.testing.assert_allclose(gross.mixture_.align_to(TRUTH).means, TRUTH.means, atol=0.1)

    def test_nor_is_one_of_moderate_size_kept(self):
        rows = partitions()
        rows[3][0] = [-40.0, 0.0]
        gm = GaussianMixture(3, random_state=0, means_init=TRUTH.means).fit(collection(rows))
        assert np.flatnonzero(~gm.support_).tolist() == [3]

    def test_a_file_that_says_otherwise_changes_nothing(self, gross, tmp_path):
        result = gross.aggregate_
        steps = {3: result.origin.estimates[3]}
        result = replace(result, origin=replace(result.origin, first=steps))
        left = without(saved(result, tmp_path / "result"), [0])
        assert np.flatnonzero(~left.decision.kept).tolist() == [0, 3, 11]


def saved(result, path):
    save_result(result, path, estimates=True)
    return load_result(path)


def test_a_copy_stays_excluded_whatever_its_rows_are():
    rows = partitions()
    rows[5] = rows[4]
    gm = GaussianMixture(3, method="hardened", random_state=0, means_init=TRUTH.means)
    gm.fit(collection(rows))
    assert np.flatnonzero(~gm.support_).tolist() in ([4], [5])
