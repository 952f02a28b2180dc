"""Choice of the number of components and of the structure: mathematics, reads, tables, errors."""

from __future__ import annotations

import warnings
from dataclasses import replace

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest

from dask_dfmr import (
    AggregationError,
    ExclusionWarning,
    FilterWarning,
    GaussianMixture,
    Mixture,
    PartitionError,
    PartitionWarning,
    select_components,
)
from dask_dfmr.local.row_statistics import Measurement, PartitionStatistics, split_rows
from dask_dfmr.selection.common_set import Judged, bic_excess, find_common_set
from dask_dfmr.selection.criteria import mean_and_error, pick, score_all
from tests.data_makers import (
    TRUTH,
    CountingReader,
    Reader,
    broken,
    constant,
    make_array,
    make_ddf,
    make_frame,
    make_rows,
    other_unit,
    rolled,
    same_bits,
    short,
    with_nan,
)

# Inconsistent sources that agree form a group: tests/test_consensus.py has the warning.
pytestmark = pytest.mark.filterwarnings("ignore::dask_dfmr.HeterogeneityWarning")

M = 8
NUMBERS = [1, 2, 3]


def make(**parameters):
    return GaussianMixture(**{"random_state": 0} | parameters)


def choose(
    X, n_components=NUMBERS, covariance_type=None, criterion="bic", test_share=0.1, **kwargs
):
    with dask.config.set(scheduler="synchronous"):
        return select_components(
            make(**kwargs),
            X,
            n_components,
            covariance_type,
            criterion=criterion,
            test_share=test_share,
        )


@pytest.fixture(scope="module")
def clean():
    return choose(make_ddf(M))


def rows_of(indices):
    return np.concatenate([make_rows(i) for i in indices])


def bare(mixture):
    """scikit-learn's model for rows without names."""
    names = ("weights", "means", "covariances", "covariance_type")
    return Mixture(*(getattr(mixture, name) for name in names)).to_sklearn()


# -- mathematics -----------------------------------------------------------------------------------


class TestSplit:
    def test_parts_are_disjoint_and_in_order(self):
        X = np.arange(50.0)[:, None]
        fitted, held_out = split_rows(X, 0.1, np.random.SeedSequence(1))
        assert len(held_out) == 5
        np.testing.assert_array_equal(np.sort(np.concatenate([fitted, held_out]), axis=0), X)
        assert (np.diff(fitted, axis=0) > 0).all()

    def test_the_seed_decides(self):
        X = np.arange(50.0)[:, None]
        a, b, c = (split_rows(X, 0.1, np.random.SeedSequence(s))[1] for s in (1, 1, 2))
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)

    @pytest.mark.parametrize(
        ("n", "share", "n_held_out"), [(3, 0.1, 1), (1, 0.5, 0), (9, 0, 0), (0, 0.1, 0)]
    )
    def test_few_rows(self, n, share, n_held_out):
        fitted, held_out = split_rows(np.zeros((n, 2)), share, np.random.SeedSequence(0))
        assert (len(fitted), len(held_out)) == (n - n_held_out, n_held_out)


def judged(log_likelihoods, kept, n_parameters=(2, 5, 8), n=100):
    log_likelihoods = np.array(log_likelihoods, dtype=float)
    is_judged = np.isfinite(log_likelihoods)
    kept = np.array(kept, dtype=bool) & is_judged
    return Judged(
        np.array(n_parameters), np.full(log_likelihoods.shape, n), log_likelihoods, is_judged, kept
    )


class TestCommonSet:
    def test_excess_is_the_distance_of_bics(self):
        excess = bic_excess(judged([[-3.0, -3.0], [-2.0, np.nan]], np.ones((2, 2)), (2, 5)))
        expected = 2 * 100 * (3.0 - 2.0) - 3 * np.log(100)
        np.testing.assert_allclose(excess, [[expected, 0.0], [0.0, np.inf]])

    def test_the_reference_is_what_most_support(self):
        # Two loud partitions prefer the third candidate by far, three the second by little.
        log_likelihoods = [[-3.0] * 5, [-2.0] * 5, [-1.0, -1.0, -2.0, -2.0, -2.0]]
        kept = np.array([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
        found = find_common_set(judged(log_likelihoods, kept))
        assert found.reference == 1
        np.testing.assert_array_equal(found.kept, kept[1])

    def test_what_most_candidates_exclude_is_excluded(self):
        log_likelihoods = [[-3.0] * 4, [-2.0] * 4, [-2.0] * 4]
        kept = [[0, 1, 1, 1], [1, 1, 1, 1], [0, 0, 1, 1]]
        found = find_common_set(judged(log_likelihoods, kept))
        assert found.reference == 1
        assert found.kept.tolist() == [False, True, True, True]
        assert found.n_against.tolist() == [2, 1, 0, 0]

    def test_too_few_rows_for_the_reference_are_not_judged(self):
        log_likelihoods = [[-3.0] * 4, [np.nan, -2.0, -2.0, -2.0], [np.nan, -2.0, -2.0, -2.0]]
        found = find_common_set(judged(log_likelihoods, np.ones((3, 4))))
        assert found.reference == 1
        assert found.kept.tolist() == [False, True, True, True]
        assert found.n_judges.tolist() == [1, 3, 3, 3]

    def test_a_candidate_that_was_not_aggregated_is_no_reference(self):
        found = find_common_set(judged([[-3.0] * 3, [-1.0] * 3], [[1, 1, 1], [0, 0, 0]], (2, 5)))
        assert found.reference == 0
        assert found.kept.all()


class TestScores:
    def test_criteria_and_errors(self):
        readings = [
            PartitionStatistics(
                i,
                100,
                measurements=(Measurement(100, -300.0 - i, entropy=5.0),),
                held_out=(Measurement(10, -30.0 - i),),
            )
            for i in range(4)
        ]
        found = score_all(readings, [7])
        (score,) = found.scores
        assert score.log_likelihood == -1206
        assert score.aic == 2 * 1206 + 14
        assert score.bic == 2 * 1206 + 7 * np.log(400)
        assert score.icl == score.bic + 40
        assert score.held_out == pytest.approx(-3.15)
        # Groups of equal size: the standard error of the mean of their means.
        assert score.held_out_se == pytest.approx(np.std([0.0, 0.1, 0.2, 0.3], ddof=1) / 2)
        assert (found.gaps, found.gap_errors, found.n_samples, found.n_held_out) == (
            [0],
            [0],
            400,
            40,
        )

    def test_pairs_share_what_partitions_have_in_common(self):
        shifts = np.array([0.0, 50.0, -20.0])
        readings = [
            PartitionStatistics(
                i,
                10,
                measurements=(Measurement(10, -1.0),) * 2,
                held_out=(Measurement(10, shift), Measurement(10, shift - 1.0)),
            )
            for i, shift in enumerate(shifts)
        ]
        found = score_all(readings, [1, 2])
        np.testing.assert_allclose(found.gaps, [0, 0.1])
        np.testing.assert_allclose(found.gap_errors, 0, atol=1e-12)
        assert found.scores[0].held_out_se > 1

    def test_one_group_has_no_error(self):
        mean, error = mean_and_error(np.array([6.0]), np.array([2.0]))
        assert mean == 3
        assert np.isnan(error)

    def test_pick(self):
        sizes, nothing = np.array([1, 2, 3]), np.zeros(3)
        assert pick(np.array([np.nan, 5.0, 5.0]), sizes, nothing, nothing, "bic") == 1
        gaps, errors = np.array([0.5, 0.1, 0.0]), np.array([0.2, 0.2, 0.0])
        assert pick(np.array([-3.0, -2.6, -2.5]), sizes, gaps, errors, "held_out") == 1
        # The best may be no candidate of the choice.
        assert pick(np.array([-3.0, -2.6, np.nan]), sizes, gaps, errors, "held_out") == 1


# -- what it finds -----------------------------------------------------------------------------------


class TestClean:
    @pytest.mark.smoke
    def test_finds_the_number_of_components(self, clean):
        assert clean.n_components == 2
        assert clean.kept.all()
        aligned = clean.mixture.align_to(TRUTH)
        np.testing.assert_allclose(aligned.means, TRUTH.means, atol=0.2)

    def test_rows_are_all_there(self, clean):
        assert (clean.n_samples, clean.n_held_out) == (M * 180, M * 20)

    def test_criteria_are_those_of_scikit_learn(self):
        found = choose(make_ddf(M), test_share=0)
        X = rows_of(range(M))
        for row, mixture in zip(found.table.itertuples(), found.mixtures, strict=True):
            model = bare(mixture)
            assert row.aic == pytest.approx(model.aic(X))
            assert row.bic == pytest.approx(model.bic(X))
            assert row.log_likelihood == pytest.approx(model.score(X) * len(X))
            r = model.predict_proba(X)
            entropy = -np.sum(r * np.log(np.maximum(r, 1e-300)))
            assert row.icl == pytest.approx(row.bic + 2 * entropy)
            assert row.n_parameters == model._n_parameters()
        assert found.table[["held_out", "held_out_se", "held_out_gap"]].isna().all(axis=None)
        with pytest.raises(ValueError, match="no rows are held out"):
            found.best_by("held_out")

    def test_all_rows_are_measured_once(self, clean):
        X = rows_of(range(M))
        for row, mixture in zip(clean.table.itertuples(), clean.mixtures, strict=True):
            both = row.log_likelihood + row.held_out * clean.n_held_out
            assert both == pytest.approx(bare(mixture).score(X) * len(X))

    def test_held_out_rows_are_in_no_fit(self, clean):
        # A fit to the training rows describes them better than the others, on average over candidates.
        table = clean.table
        fitted = table["log_likelihood"] / clean.n_samples
        assert table["n_fitted"].tolist() == [M] * 3
        rows = clean.partition_report["n_samples"]
        assert (rows == 180).all()
        assert np.isfinite(fitted - table["held_out"]).all()

    def test_structures(self):
        rng = np.random.default_rng(1)
        centers = np.array([[-5.0, 0.0], [5.0, 3.0]])
        X = rng.normal(size=(3000, 2)) + centers[rng.integers(2, size=3000)]
        found = choose(
            da.from_array(X, chunks=(500, 2)),
            [1, 2],
            covariance_type=["full", "tied", "diag", "spherical"],
        )
        assert found.n_components == 2
        assert len(found.table) == 8
        assert found.covariance_type == "spherical"

    @pytest.mark.smoke
    def test_the_table(self, clean):
        table = clean.table
        assert table["n_components"].tolist() == NUMBERS
        assert table["bic"].idxmin() == clean.best
        assert (table["reason"] == "").all()
        best = table["held_out"].idxmax()
        assert table["held_out_gap"][best] == 0
        np.testing.assert_allclose(
            table["held_out_gap"], table["held_out"][best] - table["held_out"]
        )
        for criterion in ("aic", "icl", "held_out"):
            assert clean.best_by(criterion)["n_components"] >= 2

    def test_a_spurious_candidate_is_not_selected(self, clean):
        assert not clean.table["spurious"].any()
        of_two = clean.table["n_components"] == 2
        found = replace(clean, table=clean.table.assign(spurious=of_two))
        assert all(found.best_by(name)["n_components"] != 2 for name in ("bic", "held_out"))
        alone = replace(clean, table=clean.table.assign(spurious=True))
        assert alone.best_by("bic")["n_components"] == 2

    def test_the_repr(self, clean):
        assert repr(clean) == (
            "Selection(n_components=2, covariance_type='full' by bic; 3 of 3 candidates compared on "
            "1440 rows and 160 held out of 8 of 8 partitions)"
        )


class TestEstimator:
    def test_is_fitted(self, clean):
        assert clean.estimator.mixture_ is clean.mixture
        assert clean.estimator.n_components == 2
        labels = clean.estimator.predict(make_ddf(M)).compute()
        assert len(labels) == M * 200

    def test_goes_on_with_all_rows(self, clean):
        with dask.config.set(scheduler="synchronous"):
            again = clean.estimator.set_params(warm_start=True).fit(make_ddf(M))
        assert (again.partition_report_["n_samples"] == 200).all()
        np.testing.assert_allclose(again.means_, clean.mixture.means, atol=0.1)

    def test_has_the_parameters_that_were_given(self):
        estimator = make(n_components=7, covariance_type="diag", penalty=0.01, check_optimum=None)
        before = estimator.get_params()
        with dask.config.set(scheduler="synchronous"):
            found = select_components(estimator, make_ddf(M), [1, 2])
        assert found.estimator.get_params() == before | {"n_components": found.n_components}
        assert found.covariance_type == "diag"
        assert estimator.get_params() == before
        assert not hasattr(estimator, "mixture_")

    def test_structures_that_are_given_replace_its_own(self):
        found = choose(make_ddf(M), 2, covariance_type="tied")
        assert found.estimator.covariance_type == "tied"


class TestBadPartitions:
    def test_do_not_matter(self, clean):
        bad = {1: other_unit, 4: rolled}
        found = choose(make_ddf(M, Reader(bad)))
        assert np.flatnonzero(~found.kept).tolist() == [1, 4]
        assert found.n_components == 2
        report = found.partition_report
        assert not report["kept"][[1, 4]].any()
        assert (report["reason"][[1, 4]] != "").all()
        assert (report["n_against"][[1, 4]] >= 2).all()
        assert found.n_samples == (M - 2) * 180
        np.testing.assert_allclose(found.mixture.means, clean.mixture.means, atol=0.2)

    def test_do_matter_without_a_filter(self):
        bad = {1: other_unit, 4: other_unit}
        found = choose(make_ddf(M, Reader(bad)), method="mr", on_failed="ignore")
        assert found.kept.all()
        assert found.n_components == 3

    def test_that_cannot_be_fitted_are_named(self):
        bad = {1: broken, 3: constant, 4: with_nan}
        with pytest.warns(PartitionWarning, match="3 of 8 partitions"):
            found = choose(make_ddf(M, Reader(bad)))
        report = found.partition_report
        assert report["outcome"][[1, 3, 4]].tolist() == ["failed", "degenerate", "not finite"]
        assert np.flatnonzero(~found.kept).tolist() == [1, 3, 4]
        with pytest.raises(PartitionError, match="the disk is gone"):
            choose(make_ddf(M, Reader(bad)), on_failed="raise")

    def test_rows_with_nan_are_omitted_and_counted(self):
        found = choose(make_ddf(M, Reader({4: with_nan})), nan_policy="omit")
        assert found.partition_report["n_omitted"][4] == 3
        assert found.kept.all()
        assert found.n_samples + found.n_held_out == M * 200 - 3

    def test_with_few_rows_have_no_part(self):
        found = choose(make_ddf(M, Reader({2: short})), on_failed="ignore")
        assert not found.kept[2]
        assert found.partition_report["n_judges"][2] == 0

    def test_that_change_between_reads_are_named(self, tmp_path):
        reader = Changing(tmp_path)
        with pytest.warns(PartitionWarning, match="partition 3: it has 90 rows now and had 180"):
            found = choose(make_ddf(M, reader))
        assert np.flatnonzero(~found.kept).tolist() == [3]
        assert "not compared on" in found.partition_report["reason"][3]

    def test_none_can_be_read_again(self, tmp_path):
        with pytest.raises(AggregationError, match="could be read again"):
            choose(make_ddf(M, Until(dict.fromkeys(range(M), 1), tmp_path)))

    def test_that_cannot_be_read_in_the_middle_of_a_climb(self, tmp_path):
        reader = Until({3: 2, 5: 3}, tmp_path)
        with pytest.warns(PartitionWarning, match="not compared on 2 partitions"):
            found = choose(make_ddf(M, reader), [1, 2], refine=3)
        assert np.flatnonzero(~found.kept).tolist() == [3, 5]
        assert found.n_samples == (M - 2) * 180
        assert "gone" in found.partition_report["reason"][5]

    def test_of_which_there_is_one(self):
        with pytest.warns(FilterWarning, match="X is one partition"):
            found = choose(rows_of(range(3)))
        assert found.n_components == 2
        assert np.isnan(found.table["held_out_se"]).all()
        assert found.best_by("held_out")["n_components"] >= 2


class Until(CountingReader):
    """Some partitions can be read so many times only."""

    def __init__(self, times, folder):
        super().__init__(folder)
        self.times = times

    def __call__(self, i):
        if self.count().get(i, 0) >= self.times.get(i, 100):
            raise OSError("gone")
        return super().__call__(i)


class Changing(CountingReader):
    """Partition 3 has half of its rows when it is read again."""

    def __call__(self, i):
        has_been = self.count().get(i, 0)
        frame = super().__call__(i)
        return frame.iloc[:100] if i == 3 and has_been else frame


class TestCandidates:
    def test_without_enough_rows_are_in_the_table(self):
        found = choose(make_ddf(M, Reader({}, n=40)), [1, 2, 12])
        row = found.table.iloc[2]
        assert "fewer than the 71 that 12 components in 2 columns need" in row["reason"]
        assert np.isnan(row["bic"])
        assert found.mixtures[2] is None
        assert found.table["reason"][:2].tolist() == ["", ""]

    def test_of_which_none_can_be_fitted_raise(self):
        with pytest.raises(AggregationError, match="none of the 2 candidates") as error:
            choose(make_ddf(M, Reader({}, n=10)), [11, 12])
        assert len(error.value.report) == M

    def test_that_are_too_wide_for_the_floor_of_a_tight_one_are_compared(self):
        # Zeros have a component without width. The floor of its mixture is above the peak of one component alone.
        rng = np.random.default_rng(0)
        rows = rng.gamma(2.0, 3.0, (4, 300, 3))
        rows[rng.random(rows.shape) < 0.4] = 0.0
        selection = choose(list(rows), [1, 5], row_outliers="truncate", warn_excluded=False)
        assert (selection.table["reason"] == "").all()
        assert selection.n_components == 5

    def test_with_fits_of_some_partitions_describe_all_rows(self):
        n = {i: 300 if i < 5 else 45 for i in range(M)}
        X = [dask.delayed(make_frame)(i, n[i]) for i in range(M)]
        found = choose(X, [1, 2, 8], on_failed="ignore")
        assert found.table["n_fitted"].tolist() == [M, M, 5]
        assert found.n_samples == 5 * 270 + 3 * 41


class TestReads:
    def test_two(self, tmp_path):
        reader = CountingReader(tmp_path)
        found = choose(make_ddf(M, reader))
        assert reader.count() == dict.fromkeys(range(M), 2)
        assert found.n_reads == 2

    def test_one_more_for_every_pass(self, tmp_path, clean):
        reader = CountingReader(tmp_path)
        found = choose(make_ddf(M, reader), refine=2)
        assert reader.count() == dict.fromkeys(range(M), 4)
        assert found.n_reads == 4
        assert (found.table["log_likelihood"] > clean.table["log_likelihood"] - 1e-6).all()
        assert found.aggregate.unrefined == clean.mixture

    def test_passes_end_at_the_maximum(self):
        # To all rows, the same as one fit to them that starts there, but for a weaker penalty.
        found = choose(make_ddf(M), [2], refine=40, test_share=0, penalty=0)
        m = found.mixture
        model = GaussianMixture(2, penalty=0, tol=1e-12)
        model.set_params(weights_init=m.weights, means_init=m.means, precisions_init=m.precisions)
        with warnings.catch_warnings(), dask.config.set(scheduler="synchronous"):
            warnings.simplefilter("ignore")
            model.fit(rows_of(range(M)))
        np.testing.assert_allclose(model.means_, m.means, atol=1e-5)

    def test_nothing_is_read_before_parameters_are_checked(self, raise_if_dask_computes):
        with raise_if_dask_computes(), pytest.raises(ValueError, match="refine"):
            select_components(make(refine="auto"), make_ddf(M))


class TestCollections:
    def test_all_the_same(self, clean):
        X = rows_of(range(M))
        frame = pd.concat([make_frame(i) for i in range(M)])
        for data, more in (
            (make_array(M), {}),
            (X, {"n_partitions": M}),
            (frame, {"n_partitions": M}),
        ):
            found = choose(data, **more)
            np.testing.assert_array_equal(found.table["bic"], clean.table["bic"])

    def test_sources_in_a_column(self):
        frame = pd.concat([make_frame(i).assign(sensor=f"S{i}") for i in range(M)])
        frame.loc[frame["sensor"] == "S3", ["x", "y"]] *= 100
        X = dask.dataframe.from_pandas(
            frame.sample(frac=1, random_state=0), npartitions=4, sort=False
        )
        found = choose(X, source="sensor")
        assert found.n_components == 2
        assert found.partition_report["source"][~found.kept].tolist() == ["sensor='S3'"]

    def test_the_same_bits_in_threads(self, clean):
        with dask.config.set(scheduler="threads", num_workers=2):
            found = select_components(make(), make_ddf(M), NUMBERS)
        pd.testing.assert_frame_equal(found.table, clean.table, check_exact=True)
        assert same_bits(found.mixture, clean.mixture)

    def test_the_same_bits_on_a_cluster(self, clean, client, tmp_path):
        reader = CountingReader(tmp_path)
        found = select_components(make(), make_ddf(M, reader), NUMBERS)
        pd.testing.assert_frame_equal(found.table, clean.table, check_exact=True)
        assert same_bits(found.mixture, clean.mixture)
        assert reader.count() == dict.fromkeys(range(M), 2)

    def test_bad_partitions_on_a_cluster(self, client):
        X = make_ddf(M, Reader({1: broken, 4: other_unit}))
        found = select_components(make(on_failed="ignore"), X, 2)
        assert np.flatnonzero(~found.kept).tolist() == [1, 4]

    def test_other_starts(self):
        found = choose(make_ddf(M), [1, 2], init_params="kmeans")
        assert found.n_components == 2


class TestErrors:
    @pytest.mark.parametrize(
        ("wrong", "match"),
        [
            ({"n_components": []}, "n_components must be one value, or several different ones"),
            ({"n_components": [2, 2]}, "n_components must be one value, or several different ones"),
            ({"n_components": [0, 1]}, "n_components must be .*of at least 1; got 0"),
            ({"n_components": 2.5}, "n_components must be .*got 2.5"),
            ({"covariance_type": ["full", "round"]}, "covariance_type must be one of"),
            ({"criterion": "BIC"}, "criterion must be one of"),
            ({"test_share": 0.9}, "test_share must be a share from 0 to 0.5"),
            ({"test_share": 0, "criterion": "held_out"}, "test_share must be positive"),
            ({"refine": -1}, "refine must be"),
            ({"method": "coat"}, "method must be one of"),
            ({"init_params": Mixture([1.0], [[0.0]], [[[1.0]]])}, "init_params must be one of"),
            ({"on_failed": "shout"}, "on_failed must be one of"),
            ({"rho": 0.5}, "rho must be"),
            ({"weights_init": [0.5, 0.5]}, r"weights_init must be None.*got \[0.5, 0.5\]"),
            ({"means_init": [[0.0, 0.0]]}, "means_init must be None"),
            ({"precisions_init": [1.0]}, "precisions_init must be None"),
        ],
    )
    def test_name_what_is_wrong(self, wrong, match, raise_if_dask_computes):
        own = ("n_components", "covariance_type", "criterion", "test_share")
        arguments = {name: value for name, value in wrong.items() if name in own}
        parameters = {name: value for name, value in wrong.items() if name not in own}
        with raise_if_dask_computes(), pytest.raises(ValueError, match=match):
            select_components(make(**parameters), make_ddf(M), **arguments)


def heavy_tailed():
    rng = np.random.default_rng(0)
    return [rng.standard_t(3, size=(200, 2)) for _ in range(12)]


class TestSecondLook:
    """Rows of a heavy tail: fits of some consistent partitions end in another optimum, and look inconsistent."""

    def select(self, parts, **parameters):
        with dask.config.set(scheduler="synchronous"):
            return select_components(GaussianMixture(random_state=0, **parameters), parts, [1, 2])

    def test_consistent_partitions_are_kept_as_a_fit_keeps_them(self):
        found = self.select(heavy_tailed())
        assert found.kept.all()
        assert found.aggregate.decision.kept.all()
        reasons = found.partition_report["reason"]
        assert reasons.str.startswith("kept after a second look").sum() == 2
        assert (found.table["n_fitted"] == 12).all()

    def test_the_same_on_a_cluster(self, client):
        found = select_components(GaussianMixture(random_state=0), heavy_tailed(), [1, 2])
        assert same_bits(found.mixture, self.select(heavy_tailed()).mixture)

    def test_only_if_it_is_asked_for(self):
        with pytest.warns(ExclusionWarning, match="2 of 12"):
            found = self.select(heavy_tailed(), refit_excluded=False)
        assert found.kept.sum() == 10

    def test_inconsistent_partitions_stay_excluded(self):
        with pytest.warns(ExclusionWarning, match="1 of 13"):
            found = self.select([*heavy_tailed(), heavy_tailed()[0] + 2.0])
        assert found.kept.tolist() == [True] * 12 + [False]
