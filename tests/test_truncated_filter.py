"""Fits that truncate, from end to end: a few bad rows in every partition, and what the filter makes of them."""

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

from dask_dfmr import Aggregate, GaussianMixture, LocalEstimate, Mixture, fit_local
from dask_dfmr.aggregation.null_law import Settled, chi_square_law
from dask_dfmr.aggregation.stages.intake import rows_behind
from dask_dfmr.local.row_statistics import Measurement, PartitionStatistics, total_of
from dask_dfmr.mixtures.row_cut import RowCut
from dask_dfmr.refinement.likelihood_test import row_likelihoods
from dask_dfmr.refinement.score_test import with_rows_outside

TRUTH = Mixture([0.6, 0.4], [[0.0, 0.0], [5.0, 5.0]], [np.eye(2), [[1.0, 0.5], [0.5, 1.0]]])
N_ROWS, BAD, SMALL = 400, 3, 12
TRUNCATED = RowCut(0.01, truncates=True)


def partitions():
    """Twelve of 400 rows, 2 % of which are 1,000 times too large; one is in another unit; and one of 8 rows."""
    rng = np.random.default_rng(0)
    parts = [TRUTH.sample(N_ROWS, random_state=i)[0] for i in range(12)]
    parts[BAD] = 3.0 * parts[BAD]
    for X in parts:
        X[rng.random(N_ROWS) < 0.02] *= 1000.0
    parts.append(TRUTH.sample(8, random_state=99)[0])
    return dd.from_map(lambda i: pd.DataFrame(parts[i], columns=["x", "y"]), list(range(13)))


def fitted(**parameters):
    model = GaussianMixture(
        n_components=2,
        weights_init=TRUTH.weights,
        means_init=TRUTH.means,
        precisions_init=TRUTH.precisions,
        row_outliers="truncate",
        check_optimum=None,
        on_failed="ignore",
        warn_excluded=False,
        random_state=0,
        **parameters,
    )
    with dask.config.set(scheduler="synchronous"):
        return model.fit(partitions())


@pytest.fixture(scope="module")
def plain():
    return fitted()


@pytest.fixture(scope="module")
def refined():
    return fitted(refine="auto")


def is_close(mixture):
    aligned = mixture.align_to(TRUTH)
    return (
        np.abs(aligned.means - TRUTH.means).max() < 0.15
        and np.abs(aligned.covariances - TRUTH.covariances).max() < 0.2
    )


def test_the_filter_excludes_the_bad_partition_alone(plain):
    assert_array_equal(np.flatnonzero(~plain.support_), [BAD, SMALL])
    assert is_close(plain.mixture_)
    # Every partition has rows that belong nowhere, and no kept one has more than the others.
    report = plain.partition_report_
    assert 0.02 < report["rows_outside_expected"][0] < 0.04
    assert report["rows_outside_p_value"][plain.support_].min() > 0.001


def test_rows_that_are_as_likely_are_told_from_bad_ones(plain):
    assert "as likely as others'" in plain.partition_report_["reason"][SMALL]


def test_a_refinement_cuts_rows_off_too(refined):
    assert_array_equal(np.flatnonzero(~refined.support_), [BAD])  # the small one joins
    assert is_close(refined.mixture_)
    assert refined.mixture_ != refined.aggregate_.unrefined
    assert refined.mixture_.weights.sum() == pytest.approx(1.0)


def test_the_hardened_filter_has_the_same_verdicts(plain):
    found = fitted(method="hardened")
    assert_array_equal(found.support_, plain.support_)


def test_a_saved_aggregate_has_the_same_law(plain, tmp_path):
    path = tmp_path / "fit.dfmr"
    plain.aggregate_.save(path)
    loaded = Aggregate.load(path)
    for again in (loaded.without(5), plain.aggregate_.without(5)):
        assert again.decision.scale == loaded.without(5).decision.scale
    assert_array_equal(
        loaded.with_rho("auto").decision.p_values, plain.aggregate_.decision.p_values
    )


class TestRowsWithoutScores:
    """Rows beyond all cuts have the score 0, and yet contradict if they are most of a partition."""

    @staticmethod
    def p_values(shares, n=900, cut=TRUNCATED):
        readings = [
            PartitionStatistics(i, n, measurements=(Measurement(n, 0.0, n_outside=round(s * n)),))
            for i, s in enumerate(shares)
        ]
        none = np.zeros(len(shares))
        settled = Settled(chi_square_law(3), 1.0, 1.0, none + 0.5, none)
        (total,) = total_of(readings[1:])
        return with_rows_outside(settled, readings, total, cut)

    def test_most_rows_outside_contradict(self):
        found = self.p_values([0.5, 0.03, 0.02, 0.03])
        assert found.p_values[0] < 1e-12
        assert found.z_scores[0] > 7
        assert_array_equal(found.p_values[1:4], 0.5)

    def test_a_few_more_than_usual_do_not(self):
        assert_array_equal(self.p_values([0.3, 0.03, 0.02, 0.03]).p_values[:4], 0.5)
        assert_array_equal(self.p_values([0.6, 0.4, 0.4, 0.4]).p_values[:4], 0.5)

    def test_rows_that_count_need_no_such_rule(self):
        assert_array_equal(self.p_values([0.5, 0, 0, 0], cut=RowCut()).p_values[:4], 0.5)

    def test_one_of_very_few_rows_is_no_evidence(self):
        assert self.p_values([1.0, 0, 0, 0], n=2).p_values[0] > 0.01


def test_a_fit_whose_rows_are_outside_of_its_start_starts_at_its_own_rows():
    X = 10.0 * TRUTH.sample(500, random_state=0)[0]
    found = fit_local(X, 2, start=TRUTH, row_outliers="truncate", random_state=0)
    assert (found.outcome, found.start) == ("fitted", "k-means++")
    assert found.n_outside < 25
    # In the order of the start.
    assert np.abs(found.mixture.means - 10.0 * TRUTH.means).max() < 2.0
    assert fit_local(X / 10.0, 2, start=TRUTH, row_outliers="truncate").start == "given"


class TestRowsBehind:
    @pytest.mark.parametrize(
        ("n_outside", "behind"),
        [(None, 1000), (0, 1000), (10, 1000), (19, 1000), (30, 990), (210, 810), (1000, 20)],
    )
    def test_rows_outside_beyond_chance_do_not_count(self, n_outside, behind):
        estimate = LocalEstimate(TRUTH, 1000, n_outside=n_outside)
        assert rows_behind(estimate, TRUNCATED) == behind
        assert rows_behind(estimate, RowCut()) == 1000

    def test_there_is_one_at_least(self):
        assert rows_behind(LocalEstimate(TRUTH, 1, n_outside=1), TRUNCATED) == 1


def test_bad_rows_of_kept_partitions_do_not_decide_what_is_unlikely():
    rows = TRUTH.sample(4000, random_state=1)[0]
    spoilt = rows.copy()
    spoilt[::50] *= 1000.0
    law = row_likelihoods(TRUTH, [rows], 1e-3, np.random.default_rng(0), TRUNCATED)
    with_bad = row_likelihoods(TRUTH, [spoilt], 1e-3, np.random.default_rng(0), TRUNCATED)
    assert with_bad.floor == law.floor
    assert law.sd < with_bad.sd < 2.0 * law.sd
