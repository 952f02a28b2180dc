"""What is said by default about excluded partitions: one sentence per fit, at the line of the caller."""

import re
import warnings
from contextlib import contextmanager

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest

from dask_dfmr import (
    Aggregate,
    ExclusionWarning,
    FilterWarning,
    GaussianMixture,
    Mixture,
    PartitionWarning,
    aggregate,
    dfmr,
    fit_local,
    select_components,
)

TRUTH = Mixture([0.6, 0.4], [[0.0, 0.0], [8.0, 8.0]], [np.eye(2), np.eye(2)])


def partitions_of(n=12, bad=(3,), n_rows=300):
    """Samples of one mixture; the bad ones are in another unit."""
    parts = [TRUTH.sample(n_rows, random_state=i)[0] for i in range(n)]
    for i in bad:
        parts[i] = 100 * parts[i]
    return parts


def estimates_of(parts):
    return [fit_local(rows, 2, random_state=0) for rows in parts]


def make(**parameters):
    return GaussianMixture(**{"n_components": 2, "random_state": 0} | parameters)


@contextmanager
def one_warning(category=ExclusionWarning, match=""):
    """Exactly one warning is issued, of this class, at a line of this file."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        yield said
    assert [w.category for w in said] == [category], [str(w.message) for w in said]
    assert re.search(match, str(said[0].message)), str(said[0].message)
    assert said[0].filename == __file__


@contextmanager
def nothing_said():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture(autouse=True)
def _one_thread():
    with dask.config.set(scheduler="synchronous"):
        yield


class TestFit:
    def test_the_sentence(self):
        with one_warning() as said:
            make().fit(partitions_of())
        assert re.fullmatch(
            r"1 of 12 partitions is excluded, namely 3: \S+ times as far from the consensus as sampling explains "
            r"\(p < 1e-12\): all columns are 100 times as large: another unit\?; see partition_report_ and explain"
            r"\(\); warn_excluded=False silences this\.",
            str(said[0].message),
        )

    def test_several_and_the_first_few_of_many(self):
        with one_warning(match="2 of 20 partitions are excluded, namely 3, 7, mostly like 3: "):
            make().fit(partitions_of(20, bad=(3, 7)))
        match = r"6 of 30 partitions are excluded, namely 0, 1, 2, 3, 4, \.\.\., mostly like 0: "
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            make().fit(partitions_of(30, range(6)))
        own = [w for w in said if w.category is ExclusionWarning]
        assert len(own) == 1
        assert re.match(match, str(own[0].message))

    def test_the_argument_silences_it(self):
        with nothing_said():
            gm = make(warn_excluded=False).fit(partitions_of())
        assert not gm.support_[3]
        (note,) = gm.aggregate_.notes
        assert note.category is ExclusionWarning

    def test_nothing_is_said_if_nothing_is_excluded(self):
        with nothing_said():
            assert make().fit(partitions_of(bad=())).support_.all()

    def test_at_the_line_of_the_caller(self):
        with one_warning():
            make().fit_predict(partitions_of())

    def test_sources_are_named(self):
        rows = np.concatenate(partitions_of())
        frame = pd.DataFrame(rows, columns=["x", "y"]).assign(
            sensor=np.repeat(list("ABCDEFGHIJKL"), 300)
        )
        X = dd.from_pandas(frame, npartitions=2)
        with one_warning(match="1 of 12 partitions is excluded, namely sensor='D': "):
            make(source="sensor").fit(X)

    @pytest.mark.parametrize("method", ["hardened", "componentwise"])
    def test_every_method_that_filters(self, method):
        with one_warning(match="1 of 12 partitions is excluded, namely 3: "):
            make(method=method).fit(partitions_of())

    @pytest.mark.parametrize("method", ["mr", "coat"])
    def test_methods_that_judge_nothing(self, method):
        with nothing_said():
            make(method=method).fit(partitions_of())

    def test_components_of_a_kept_partition(self):
        parts = partitions_of(bad=())
        parts[3][parts[3][:, 0] > 4] += 2.0
        match = (
            r"1 of 12 partitions is excluded \(1 of them only in part\), namely 3: component 1 is "
        )
        with one_warning(match=match):
            gm = make(method="componentwise").fit(parts)
        assert gm.support_.all()

    def test_exclusion_in_a_refinement(self):
        """A partition that the filter keeps with ``rho`` infinite, and the rows' test excludes."""
        parts = partitions_of(bad=())
        parts[5] = parts[5] + 1.5
        with one_warning(match="namely 5: excluded in refinement pass 1: its rows contradict"):
            gm = make(rho=np.inf, refine=2).fit(parts)
        assert not gm.support_[5]

    def test_a_failed_partition_has_one_warning(self):
        parts = partitions_of(bad=())
        parts[3][7] = np.nan
        with one_warning(PartitionWarning, "1 of 12 partitions"):
            make().fit(parts)
        with nothing_said():
            make(on_failed="ignore").fit(parts)

    def test_failed_and_excluded_ones_are_told_apart(self):
        parts = partitions_of()
        parts[5][7] = np.nan
        with (
            pytest.warns(PartitionWarning, match=r"1 of 12 partitions .*partition 5"),
            pytest.warns(ExclusionWarning, match=r"1 of 12 partitions is excluded, namely 3: "),
        ):
            make().fit(parts)

    def test_a_small_partition_that_joins_is_not_said_to_be_unused(self):
        parts = partitions_of(bad=())
        parts[5] = parts[5][:8]
        with nothing_said():
            gm = make(refine=2).fit(parts)
        assert gm.support_[5]

    def test_new_partitions(self):
        with nothing_said():
            gm = make().fit(partitions_of(bad=()))
        with one_warning(match="1 of 16 partitions is excluded, namely 13: "):
            gm.update(partitions_of(16, bad=(13,))[12:])


class TestOtherEntrances:
    def test_selection(self):
        X, found = (
            partitions_of(),
            "1 of 12 partitions is excluded, namely 3: .*; see partition_report_; ",
        )
        with one_warning(match=found):
            select_components(make(), X, [1, 2])
        with nothing_said():
            select_components(make(warn_excluded=False), X, [1, 2])

    def test_a_lazy_result_holds_it(self):
        with nothing_said():
            found = dfmr(make(), partitions_of()).compute()
        with one_warning(
            match=r"1 of 12 estimates is excluded, namely 3: .*; see decision.reason\(3\)\.$"
        ):
            found.warn()
        assert "times as far" in found.decision.reason(3)

    def test_aggregate(self):
        estimates = estimates_of(partitions_of())
        with one_warning(match="1 of 12 estimates is excluded, namely 3: "):
            aggregate(estimates)
        with nothing_said():
            found = aggregate(estimates, warn_excluded=False)
        assert [note.category for note in found.notes] == [ExclusionWarning]

    def test_refused_estimates(self):
        estimates = estimates_of(partitions_of(bad=()))
        estimates[4] = fit_local(partitions_of()[4], 3, random_state=0)
        with one_warning(match="1 of 12 estimates is excluded, namely 4: n_components is 3"):
            aggregate(estimates)

    def test_refused_estimates_are_not_said_twice(self):
        estimates = estimates_of(partitions_of(9, bad=()))
        estimates[4:] = [{"n_samples": "many"}] * 5
        with one_warning(PartitionWarning, "only 4 of 9 local estimates are usable"):
            aggregate(estimates)

    def test_without_and_files(self, tmp_path):
        estimates = estimates_of(partitions_of(20, bad=(3, 7)))
        found = aggregate(estimates, warn_excluded=False)
        (note,) = found.without(7).notes
        assert note.message.startswith("1 of 19 estimates is excluded, namely 3: ")
        assert found.without([3, 7]).notes == ()
        found.save(tmp_path / "found.zip")
        assert Aggregate.load(tmp_path / "found.zip").notes == found.notes

    def test_aggregate_checks_the_argument(self):
        with pytest.raises(ValueError, match=r"warn_excluded must be .*got 'no'"):
            aggregate(estimates_of(partitions_of(4)), warn_excluded="no")


def test_other_warnings_point_to_the_caller_too():
    with one_warning(FilterWarning, "two estimates cannot outvote"):
        make().fit_predict(partitions_of(2, bad=()))
    with one_warning(FilterWarning, "X is one partition"):
        select_components(make(), np.concatenate(partitions_of(bad=())), [2])
