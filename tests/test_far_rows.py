"""What an M step takes must be what the score test saw: far rows, wrong sums, and rows that change between reads."""

from __future__ import annotations

from dataclasses import replace

import dask
import numpy as np
import pytest

from dask_dfmr import GaussianMixture, mixing_distance
from dask_dfmr.aggregation.null_law import Law, Settled
from dask_dfmr.aggregation.reasons import ContradictsOthers, HasFarRows
from dask_dfmr.local.row_statistics import (
    N_LONGEST,
    Measurement,
    PartitionStatistics,
    Wanted,
    measure,
)
from dask_dfmr.mixtures.capped_scores import score_lengths
from dask_dfmr.mixtures.gaussian import Gaussian
from dask_dfmr.on_dask import tasks
from dask_dfmr.refinement.far_rows import FarRows, RowsJudged, excess_lengths, far_rows
from dask_dfmr.refinement.same_rows import row_sums
from tests.data_makers import TRUTH, make_frame, make_rows

M, BAD, CAP = 12, 3, 20.0
POINT = (TRUTH.weights, TRUTH.components)


@pytest.fixture(autouse=True)
def in_this_thread():
    with dask.config.set(scheduler="synchronous"):
        yield


# -- excess and its law ------------------------------------------------------------------------------


class TestExcess:
    def reading(self, X, cap=CAP):
        return PartitionStatistics(
            0, len(X), measurements=measure(X, [TRUTH], Wanted(score_cap=cap))
        )

    def test_rows_within_the_cap_have_none(self):
        one = self.reading(make_rows(0), cap=1e6)
        assert excess_lengths([one], TRUTH.family, POINT)[0] < 1e-9

    def test_it_is_what_the_cap_took(self):
        rows = make_rows(0)
        rows[[3, 50]] = [[40.0, -9.0], [0.0, 30.0]]
        scores = TRUTH.family.scores(rows, *POINT)
        lengths = np.linalg.norm(scores, axis=1)
        expected = (np.maximum(1.0 - CAP / lengths, 0.0)[:, None] * scores).sum(axis=0)
        (found,) = excess_lengths([self.reading(rows)], TRUTH.family, POINT)
        assert found == pytest.approx(np.linalg.norm(expected))

    def test_moments_that_are_no_number_exceed_all(self):
        one = self.reading(make_rows(0))
        wrong = replace(
            one.measurements[0], moments=tuple(m + 1e300 for m in one.measurements[0].moments)
        )
        assert excess_lengths([replace(one, measurements=(wrong,))], TRUTH.family, POINT) == [
            np.inf
        ]

    def test_one_that_was_not_measured_has_none(self):
        assert excess_lengths([PartitionStatistics(0)], TRUTH.family, POINT) == [0.0]

    def test_the_longest_scores_are_those_of_all_rows(self):
        rows = make_rows(0)
        expected = np.sort(score_lengths(TRUTH.family, rows, POINT))[-N_LONGEST:]
        whole, few = self.reading(rows).measurements[0], self.reading(rows[:2]).measurements[0]
        np.testing.assert_array_equal(whole.longest, expected)
        assert len(few.longest) == 2
        parts = [self.reading(rows[s]).measurements[0] for s in (slice(0, 70), slice(70, None))]
        np.testing.assert_array_equal((parts[0] + parts[1]).longest, expected)
        assert (whole + replace(few, longest=None)).longest is None


def readings_of(lengths):
    """Partitions with scores of these lengths, (n_partitions, n_rows), and their excess over the cap."""
    readings = [
        PartitionStatistics(
            i,
            len(own),
            measurements=(Measurement(len(own), 0.0, longest=np.sort(own)[-N_LONGEST:]),),
        )
        for i, own in enumerate(lengths)
    ]
    return np.maximum(lengths - CAP, 0.0).sum(axis=1), readings


def judge(lengths):
    excess, readings = readings_of(lengths)
    return far_rows(excess, readings, CAP, np.ones(len(lengths), dtype=bool))


class TestLaw:
    @pytest.mark.parametrize("index", [0.75, 1.5, 4.0])
    def test_tails_of_a_power_are_rarely_exceeded(self, index):
        """The tails of Student's t with 1.5, 3 and 8 degrees of freedom: scores grow with the square."""
        rng = np.random.default_rng(0)
        p_values = [judge(rng.pareto(index, (20, 500)) + 1.0).p_values for _ in range(100)]
        assert (np.concatenate(p_values) < 0.01).mean() < 0.02

    @pytest.mark.parametrize("m", [4, 20])
    def test_a_row_beyond_every_such_tail_stands_out(self, m):
        lengths = np.random.default_rng(0).pareto(5.0, (m, 500)) + 1.0
        lengths[1, 7] = 1e6
        found = judge(lengths)
        assert np.flatnonzero(found.p_values < 1e-3).tolist() == [1]
        assert found.ratios[1] == pytest.approx((1e6 - CAP) / CAP, rel=0.01)

    def test_a_minority_cannot_widen_the_law(self):
        lengths = np.random.default_rng(0).pareto(5.0, (20, 500)) + 1.0
        lengths[:8, :3] = 1e6
        lengths[:4, :3] *= [[1e3], [1e6], [1e9], [1e12]]
        assert np.flatnonzero(judge(lengths).p_values < 1e-3).tolist() == list(range(8))

    def test_up_to_the_cap_nothing_stands_out(self):
        lengths = np.random.default_rng(0).uniform(0.9, 1.0, (20, 500))
        lengths[1, 7] = 2 * CAP
        assert (judge(lengths).p_values == 1.0).all()

    def test_few_partitions_give_no_law(self):
        lengths = np.ones((2, 500))
        lengths[1, 7] = 1e6
        assert (judge(lengths).p_values == 1.0).all()

    def test_all_rows_together_are_the_first_reason(self):
        settled = Settled(Law(1.0, 1.0), 1.0, 1.0, np.array([1e-9, 0.5]), np.array([6.0, 0.0]))
        judged = RowsJudged(settled, FarRows(np.array([9.0, 9.0]), np.array([1e-5, 1e-5])))
        assert judged.reason(0, 1e-3) == ContradictsOthers(6.0, 1e-9)
        assert judged.reason(1, 1e-3) == HasFarRows(9.0, 1e-5)
        np.testing.assert_allclose(judged.p_values, [1e-9, 1e-5])
        assert judged.z_scores[0] == 6.0
        assert judged.z_scores[1] > 4.0


@pytest.mark.parametrize("covariance_type", ["full", "tied"])
def test_the_mark_of_rows_is_the_same_at_every_mixture(covariance_type):
    rows = make_rows(0) + 1e6
    family = Gaussian(covariance_type)
    sums = []
    for seed in range(3):
        means = rows[np.random.default_rng(seed).choice(len(rows), 2, replace=False)]
        start = family.start_components(rows, means)
        mixture = family.mixture(np.array([0.3, 0.7]), start)
        one = PartitionStatistics(0, len(rows), measurements=measure(rows, [mixture], Wanted()))
        sums += row_sums([one], family, [(mixture.weights, start)])
    assert all(one.has_rows_of(sums[0]) for one in sums)
    changed = rows.copy()
    changed[0, 0] += 3.0
    other = PartitionStatistics(0, len(rows), measurements=measure(changed, [mixture], Wanted()))
    (of_other,) = row_sums([other], family, [(mixture.weights, start)])
    assert not of_other.has_rows_of(sums[-1])
    both = replace(other, measurements=(*other.measurements, *one.measurements))
    (of_both,) = row_sums([both], family, [(mixture.weights, start)] * 2)
    assert not of_both.has_rows_of(of_both)


# -- refinements -------------------------------------------------------------------------------------


class Parts:
    """Reads partitions; ``change`` makes other rows of one from its read number ``first`` on."""

    def __init__(self, change=None, first=1):
        self.change, self.first, self.reads = change, first, 0

    def __call__(self, i):
        rows = make_frame(i).to_numpy()
        if i == BAD and self.change:
            self.reads += 1
            if self.reads >= self.first:
                rows = self.change(rows.copy())
        return rows


def fit(parts=None, refine="auto", **kwargs):
    gm = GaussianMixture(
        2, random_state=0, means_init=TRUTH.means, refine=refine, check_optimum=None, **kwargs
    )
    load = dask.delayed(parts or Parts(), pure=False)
    return gm.fit([load(i) for i in range(M)])


@pytest.fixture(scope="module")
def without():
    """The refined mixture of the other partitions."""
    with dask.config.set(scheduler="synchronous"):
        parts = [make_rows(i) for i in range(M) if i != BAD]
        gm = GaussianMixture(
            2, random_state=0, means_init=TRUTH.means, refine="auto", check_optimum=None
        )
        return gm.fit([dask.delayed(rows) for rows in parts]).mixture_


def one_gross(value):
    def change(rows):
        rows[5] = [value, 0.0]
        return rows

    return change


def shifted(rows):
    return rows + 0.05


@pytest.mark.smoke
@pytest.mark.parametrize("value", [60.0, 1e6])
def test_a_gross_row_that_was_not_there_before(without, value):
    gm = fit(Parts(one_gross(value), 2))
    assert gm.aggregate_.decision.kept[BAD]
    assert np.flatnonzero(~gm.support_).tolist() == [BAD]
    assert "refinement pass 1: far rows, or wrong sums, move" in gm.partition_report_.reason[BAD]
    assert mixing_distance(gm.mixture_, without) < 1e-3


def test_the_remedy_works():
    gm = fit(Parts(one_gross(1e6), 2), row_outliers="truncate")
    assert gm.support_.all()
    assert mixing_distance(gm.mixture_, fit(row_outliers="truncate").mixture_) < 0.02


@pytest.mark.parametrize(("change", "first"), [(one_gross(1e6), 3), (shifted, 4)])
def test_rows_that_change_between_passes(without, change, first):
    with pytest.warns(UserWarning, match="could not be read again as they were"):
        gm = fit(Parts(change, first))
    assert np.flatnonzero(~gm.support_).tolist() == [BAD]
    assert f"pass {first - 1}: its rows changed between" in gm.partition_report_.reason[BAD]
    assert mixing_distance(gm.mixture_, without) < 1e-3
    assert gm.converged_


def pulled(moments, mixture):
    """The sums of rows that are far away, by plausible numbers."""
    mass, first, second = moments
    return mass, first + 10.0 * mass.sum(), second


def in_one(moments, mixture):
    """All rows in the first component: mean and covariance of all rows are right."""
    mass, first, second = (m.copy() for m in moments)
    shift = mixture.means - mixture.means[0]
    outer = np.einsum("ki,kj->kij", first, shift)
    about = mass[:, None, None] * np.einsum("ki,kj->kij", shift, shift)
    second = second + outer + outer.swapaxes(1, 2) + about
    first = first + mass[:, None] * shift
    for moment in (mass, first, second):
        moment[0], moment[1:] = moment.sum(axis=0), 0.0
    return mass, first, second


@pytest.mark.filterwarnings("ignore:.*could not be read again as they were")
@pytest.mark.parametrize(
    ("lie", "only_untested", "outliers"),
    [
        (pulled, False, None),
        (in_one, True, None),
        (in_one, False, "truncate"),
        (pulled, True, "truncate"),
    ],
)
def test_wrong_moments_beside_right_scores(without, monkeypatch, lie, only_untested, outliers):
    usual = tasks.measure_partition

    def answer(loader, partition, settings, mixtures, wanted, *refs):
        found = usual(loader, partition, settings, mixtures, wanted, *refs)
        if partition != BAD or (only_untested and wanted.score_cap is not None):
            return found
        pairs = zip(found.measurements, mixtures, strict=True)
        wrong = [replace(m, moments=lie(m.moments, mixture)) for m, mixture in pairs]
        return replace(found, measurements=tuple(wrong))

    monkeypatch.setattr(tasks, "measure_partition", answer)
    gm = fit(row_outliers=outliers)
    assert np.flatnonzero(~gm.support_).tolist() == [BAD]
    assert mixing_distance(gm.mixture_, without) < (0.05 if outliers else 1e-3)
