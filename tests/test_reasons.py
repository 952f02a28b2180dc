"""Reasons as values: their sentences, renumbered components, and files."""

from __future__ import annotations

import json
import pickle

import pytest

from dask_dfmr.aggregation import reasons as r

SENTENCES = {
    r.Malformed("rates must be positive"): "malformed estimate: rates must be positive",
    r.NoEstimate("lost"): "lost",
    r.NoEstimate("too few rows", "3 rows, fewer than 17"): "too few rows: 3 rows, fewer than 17",
    r.OtherSchema("n_features", "1", "2"): "n_features is 1, the majority's is 2",
    r.OtherColumns(("x", "z"), ("x", "y")): (
        "columns are ['x', 'z'], the majority's are ['x', 'y']"
    ),
    r.Removed(): "removed",
    r.OutsideRadius(4.5678, 1.3): "distance to the center is 4.57 times the radius (rho = 1.3)",
    r.TooFar(8.6612, 1e-13): (
        "8.66 times as far from the consensus as sampling explains (p < 1e-12)"
    ),
    r.TooFar(2.5, 2.34e-4): (
        "2.5 times as far from the consensus as sampling explains (p = 0.0002)"
    ),
    r.OnlyTheCenter(): "only the center itself is kept (method 'coat')",
    r.ComponentTooFar(2, 4.5678, 1.8345): (
        "component 2 is 4.57 times its radius from the others' (limit 1.83)"
    ),
    r.ComponentTooSmall(0, 4.99, 5): "component 0 has too few rows to judge (4.9 of 5)",
    r.Copy(4): "closer to estimate 4 than sampling allows: copies count as one, represented by 4",
    r.Copy(4, (5, 9)): (
        "closer to estimate 4 than sampling allows (so are 5, 9): copies count as one, represented by 4"
    ),
    r.FarFromVotes(3.1416): "distance to the center of all votes is 3.14 times their radius",
    r.FarInAll(2.0): (
        "too far: all parameters together are 2 times as far off as sampling explains"
    ),
    r.FarInPart("weights", None, 3.25): (
        "too far: weights, 3.25 times as far off as sampling explains"
    ),
    r.FarInPart("mean", 1, 3.25): (
        "too far: mean of component 1, 3.25 times as far off as sampling explains"
    ),
    r.AlongDirection("mean", 0, 6.789): (
        "6.79 standard errors off along one direction (mostly mean of component 0)"
    ),
    r.MovedTogether("covariance", 2, 4.321, (3, 8)): (
        "moved together with estimates 3, 8 along one direction (mostly covariance of component 2), "
        "4.32 standard errors from the others"
    ),
    r.ContradictsOthers(3.456, 0.000271): (
        "its rows contradict the others' by z = 3.46 (p = 0.00027)"
    ),
    r.ContradictsOthers(50.0, 0.0): "its rows contradict the others' by z = 50 (p < 1e-300)",
    r.HasFarRows(18.123, 1.3e-15): (
        "far rows, or wrong sums, move the mixture 18.1 times as far as one row may (p = 1.3e-15); "
        "row_outliers='truncate' cuts them off"
    ),
    r.HasFarRows(18.123, 1.3e-15, truncates=True): (
        "far rows, or wrong sums, move the mixture 18.1 times as far as one row may (p = 1.3e-15)"
    ),
    r.ChangedRows(): (
        "its rows changed between two reads, and give other sums; persist() keeps rows as they are"
    ),
    r.Gained(0.54): "kept after a second look: its rows agree with the others' (p = 0.54)",
    r.Gained(0.82, 0.41, 0.32): (
        "kept after a second look: its rows agree with the others' (p = 0.82), "
        "but for 41% outside, which were not compared (32% elsewhere)"
    ),
    r.Unreadable(): "it has no rows now",
    r.Unreadable("OSError: gone"): "it could not be read again: OSError: gone",
    r.OtherRows(5, 6): "it has 5 rows now and had 6",
    r.ExcludedInPass(2, r.OtherRows(5, 6)): (
        "excluded in refinement pass 2: it has 5 rows now and had 6"
    ),
    r.Joined(0.318): "joined in refinement: its rows agree with the others' (p = 0.32)",
    r.AsLikely(0.04): "its rows are as likely as others' (p = 0.04)",
    r.Unlikely(-7.123, 5.2e-13): (
        "its rows are unlikely under the global mixture: z = -7.12 (p = 5.2e-13)"
    ),
    r.TooFewPartitions(): "too few partitions to compare it with",
    r.NeedsRegrouping(): "all rows would have to be regrouped again; a refinement tests them",
    r.NotTested(r.TooFewPartitions()): "not tested: too few partitions to compare it with",
    r.ExcludedWithReference("n_components=3", r.Removed()): "excluded with n_components=3: removed",
    r.ExcludedByCandidates(3, 5): "excluded by 3 of 5 candidates that judged it",
    r.NotCompared(
        r.OtherRows(5, 6)
    ): "candidates were not compared on it: it has 5 rows now and had 6",
}
"""One sentence or more of each kind."""


class TestSentences:
    @pytest.mark.parametrize("reason", SENTENCES, ids=repr)
    def test_words(self, reason):
        assert str(reason) == SENTENCES[reason]

    def test_every_kind_has_one(self):
        assert {type(reason).__name__ for reason in SENTENCES} == set(r.REASON_KINDS)

    def test_no_sentence_is_longer_than_24_words(self):
        assert all(len(sentence.split()) < 25 for sentence in SENTENCES.values())

    def test_long_lists_end_in_an_ellipsis(self):
        reason = r.Copy(0, tuple(range(1, 20)))
        assert "(so are 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, ...)" in str(reason)


class TestLength:
    TABLE = "ValueError: Mismatched dtypes.\n\n+----+----+\n| a  | b  |\n" + "+----+----+\n" * 400

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("", ""),
            ("NaN in 'x' (1 rows)", "NaN in 'x' (1 rows)"),
            (TABLE, "ValueError: Mismatched dtypes ..."),
            ("ArrowInvalid:\n\n  no match\nx: double", "ArrowInvalid: no match ..."),
            ("a" * 5000, "a" * r.LONGEST_SHOWN + " ..."),
        ],
    )
    def test_what_warnings_and_tables_show(self, text, expected):
        assert r.in_short(text) == expected

    def test_what_reports_keep(self):
        assert r.bounded("short\ntext") == "short\ntext"
        assert r.bounded(self.TABLE) == self.TABLE[: r.LONGEST_KEPT] + " ..."


class TestInOrder:
    """``order[k]`` is the former number of component k."""

    ORDER = (2, 0, 1)

    @pytest.mark.parametrize(
        "make",
        [
            lambda k: r.ComponentTooFar(k, 3.0, 1.8),
            lambda k: r.ComponentTooSmall(k, 3.0, 5),
            lambda k: r.FarInPart("mean", k, 3.0),
            lambda k: r.AlongDirection("mean", k, 3.0),
            lambda k: r.MovedTogether("mean", k, 3.0, (1, 2)),
            lambda k: r.ExcludedInPass(1, r.FarInPart("mean", k, 3.0)),
            lambda k: r.NotTested(r.FarInPart("mean", k, 3.0)),
            lambda k: r.NotCompared(r.FarInPart("mean", k, 3.0)),
            lambda k: r.ExcludedWithReference("diag", r.FarInPart("mean", k, 3.0)),
        ],
    )
    def test_components_are_renumbered(self, make):
        assert [make(old).in_order(self.ORDER) for old in self.ORDER] == [make(k) for k in range(3)]

    @pytest.mark.parametrize(
        "reason", [r.TooFar(3.0, 1e-5), r.Copy(2, (0,)), r.FarInPart("weights", None, 3.0)]
    )
    def test_reasons_without_a_component_stay(self, reason):
        assert reason.in_order(self.ORDER) == reason


class TestFiles:
    @pytest.mark.parametrize("reason", SENTENCES, ids=repr)
    def test_there_and_back(self, reason):
        assert r.from_plain(json.loads(json.dumps(r.to_plain(reason)))) == reason
        assert pickle.loads(pickle.dumps(reason)) == reason

    def test_whole_numbers_may_stand_for_floats(self):
        assert r.from_plain({"kind": "TooFar", "ratio": 3, "p_value": 0}) == r.TooFar(3.0, 0.0)

    @pytest.mark.parametrize(
        ("plain", "match"),
        [
            ("too far", "known 'kind'; got 'too far'"),
            ({"kind": "Reason"}, "known 'kind'"),
            ({"kind": ["TooFar"]}, "known 'kind'"),
            ({"kind": "TooFar", "ratio": 3.0}, r"fields \['p_value', 'ratio'\]; got \['ratio'\]"),
            ({"kind": "Removed", "by": "me"}, r"fields \[\]; got \['by'\]"),
            ({"kind": "TooFar", "ratio": "3", "p_value": 0.0}, "ratio of a reason must be of type"),
            ({"kind": "TooFar", "ratio": True, "p_value": 0.0}, "ratio of a reason must be"),
            ({"kind": "Copy", "of": 1, "others": 3}, "others of a reason must be"),
            ({"kind": "Copy", "of": 1, "others": ["3"]}, "others of a reason must be"),
            ({"kind": "ExcludedInPass", "number": 1, "reason": "why"}, "known 'kind'"),
        ],
    )
    def test_anything_else_is_refused(self, plain, match):
        with pytest.raises(ValueError, match=match):
            r.from_plain(plain)
