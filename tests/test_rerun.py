"""Aggregating again: without some, with another rho, from a file, with new partitions."""

from __future__ import annotations

import io
import json
import os
import pickle
import stat
import zipfile
from functools import cache

import dask
import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError

from dask_dfmr import (
    Aggregate,
    AggregationError,
    GaussianMixture,
    LocalEstimate,
    Mixture,
    PartitionWarning,
    aggregate,
    dfmr,
    fit_local,
    mixing_distance,
)
from tests.data_makers import (
    TRUTH,
    Reader,
    make_ddf,
    make_frame,
    other_notes,
    other_unit,
    same_bits,
    short,
)

M = 24
ARRAYS = ("distances", "distance_ratios", "kept", "z_scores", "p_values", "sampling_ratios")


def some(m=M, sizes=(200,)):
    return list(cached(m, sizes))


@cache
def cached(m, sizes):
    found = []
    for i in range(m):
        rows = TRUTH.sample(sizes[i % len(sizes)], i)[0]
        rows = {3: rows * 5, 11: rows - [0, 9]}.get(i, rows)
        found.append(fit_local(rows, 2, start=TRUTH, n_sources=m))
    return found


def assert_same_decision(found, expected, left):
    """The decision on those left is the same to the last bit."""
    for name in ARRAYS:
        a, b = getattr(found, name), getattr(expected, name)
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_array_equal(a[left], b)
    assert found.center == left[expected.center]
    assert found.radius == expected.radius
    assert found.scale == expected.scale


class TestWithout:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"rho": 1.3},
            {"n_references": 8},
            {"method": "coat"},
            {"method": "hardened"},
            {"n_starts": 3},
        ],
    )
    @pytest.mark.parametrize("sizes", [(200,), (100, 400, 200)])
    def test_it_is_the_aggregate_of_the_others(self, options, sizes):
        estimates = some(sizes=sizes)
        whole = aggregate(estimates, random_state=0, **options)
        gone = [0, 3, 17]
        left = [i for i in range(M) if i not in gone]
        expected = aggregate([estimates[i] for i in left], random_state=0, **options)
        found = whole.without(gone)
        assert same_bits(found.mixture, expected.mixture.align_to(whole.mixture))
        assert_same_decision(found.decision, expected.decision, left)
        assert {i: str(r) for i, r in found.decision.refused.items()} == dict.fromkeys(
            gone, "removed"
        )
        assert not found.decision.kept[gone].any()
        assert found.decision.n_estimates == M
        assert (found.objective, found.n_iter) == (expected.objective, expected.n_iter)
        assert other_notes(found) == other_notes(expected)

    def test_across_blocks(self):
        estimates = some(120)
        left = list(range(7, 120))
        expected = aggregate([estimates[i] for i in left], random_state=0)
        found = aggregate(estimates, random_state=0).without(range(7))
        assert same_bits(found.mixture, expected.mixture.align_to(found.mixture))
        assert_same_decision(found.decision, expected.decision, left)

    def test_component_by_component(self):
        estimates = some()
        whole = aggregate(estimates, method="componentwise", random_state=0)
        left = [i for i in range(M) if i != 5]
        expected = aggregate([estimates[i] for i in left], method="componentwise", random_state=0)
        found = whole.without(5)
        assert same_bits(found.mixture, expected.mixture.align_to(whole.mixture))
        order = [0, 1] if same_bits(found.mixture, expected.mixture) else [1, 0]
        np.testing.assert_array_equal(
            found.decision.components.kept[left], expected.decision.components.kept[:, order]
        )

    @pytest.mark.smoke
    def test_one_after_the_other_is_both(self):
        whole = aggregate(some(), random_state=0)
        assert same_bits(
            whole.without(4).without([9]).mixture, whole.without(np.array([4, 9])).mixture
        )

    @pytest.mark.filterwarnings("ignore:estimates .* are copies")
    def test_components_keep_their_order(self):
        halves = [[0.49, 0.51], [0.505, 0.495]]
        estimates = [
            LocalEstimate(Mixture(halves[i < 8], TRUTH.means, TRUTH.covariances), 200)
            for i in range(12)
        ]
        whole = aggregate(estimates, rho=np.inf)
        found = whole.without(range(8))
        assert np.argmax(whole.mixture.weights) == 0
        assert np.argmax(found.mixture.weights) == 1
        np.testing.assert_allclose(found.mixture.means, whole.mixture.means)

    def test_more_than_half_may_go_without_a_warning(self):
        found = aggregate(some(), random_state=0).without(range(20))
        assert [note for note in found.notes if note.category is PartitionWarning] == []

    def test_malformed_estimates_stay_refused(self):
        estimates = [*some(8), {"n_samples": -1}]
        whole = aggregate(estimates, random_state=0)
        found = whole.without(2)
        assert sorted(found.decision.refused) == [2, 8]
        assert found.decision.refused[8] == whole.decision.refused[8]

    @pytest.mark.parametrize("wrong", [-1, M, 1.5, [0, "a"], [True]])
    def test_a_wrong_index_is_named(self, wrong):
        with pytest.raises(ValueError, match="partitions must be indices from 0 to 23"):
            aggregate(some(), random_state=0).without(wrong)

    def test_something_must_be_left(self):
        with pytest.raises(ValueError, match="must leave one estimate"):
            aggregate(some(4)).without(range(4))
        with pytest.raises(AggregationError):
            aggregate([*some(1), {"n_samples": -1}]).without(0)

    def test_without_estimates_it_says_so(self):
        with dask.config.set(scheduler="synchronous"):
            lazy = dfmr(GaussianMixture(2, random_state=0), make_ddf()).compute()
        for call in (lambda: lazy.without(0), lambda: lazy.with_rho(2), lazy.explain):
            with pytest.raises(ValueError, match="does not hold the local estimates"):
                call()


class TestWithRho:
    @pytest.mark.parametrize("rho", ["auto", 1.3, 1.0, np.inf])
    @pytest.mark.parametrize("sizes", [(200,), (100, 400)])
    def test_it_is_the_aggregate_with_that_rho(self, rho, sizes):
        estimates = some(sizes=sizes)
        whole = aggregate(estimates, random_state=0, rho=2.0)
        expected = aggregate(estimates, random_state=0, rho=rho)
        for _ in range(2):  # the second time from what was measured the first time
            found = whole.with_rho(rho)
            assert same_bits(found.mixture, expected.mixture.align_to(whole.mixture))
            assert_same_decision(found.decision, expected.decision, list(range(M)))

    def test_a_wrong_rho_is_named(self):
        with pytest.raises(ValueError, match="rho must be 'auto' or a number"):
            aggregate(some(6)).with_rho(0.5)


def rewritten(path, change=lambda document: None, arrays=None, compress=zipfile.ZIP_STORED):
    """A copy of a saved aggregate that somebody changed."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    document = json.loads(members["aggregate.json"])
    document = change(document) or document
    members["aggregate.json"] = json.dumps(document).encode()
    members |= arrays or {}
    other = path.with_name("other.dfmr")
    with zipfile.ZipFile(other, "w", compress) as archive:
        for name, content in members.items():
            if content is not None:
                archive.writestr(name, content)
    return other


def npy(array):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(array))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "a.dfmr"
    aggregate(some(12), random_state=0).save(path)
    return path.read_bytes()


class TestFiles:
    @pytest.fixture
    def path(self, saved, tmp_path):
        path = tmp_path / "a.dfmr"
        path.write_bytes(saved)
        return path

    @pytest.mark.parametrize("options", [{}, {"rho": 1.3}, {"method": "componentwise"}])
    def test_what_is_loaded_is_what_was_saved(self, tmp_path, options):
        whole = aggregate([*some(12), {"n_samples": -1}], random_state=0, **options)
        whole.save(tmp_path / "a.dfmr")
        loaded = Aggregate.load(tmp_path / "a.dfmr")
        assert loaded.mixture == whole.mixture
        assert repr(loaded) == repr(whole)
        assert loaded.notes == whole.notes
        assert [loaded.decision.reason(i) for i in range(12)] == [
            whole.decision.reason(i) for i in range(12)
        ]
        assert_same_decision(loaded.decision, whole.decision, list(range(13)))
        assert same_bits(loaded.without(3).mixture, whole.without(3).mixture)
        assert loaded.explain().equals(whole.explain())
        assert list(tmp_path.iterdir()) == [tmp_path / "a.dfmr"]

    @pytest.mark.smoke
    def test_without_estimates(self, tmp_path):
        whole = aggregate(some(12), random_state=0)
        whole.save(tmp_path / "a.dfmr", estimates=False)
        loaded = Aggregate.load(tmp_path / "a.dfmr")
        assert loaded.mixture == whole.mixture
        with pytest.raises(ValueError, match="does not hold the local estimates"):
            loaded.without(3)

    @pytest.mark.smoke
    def test_of_a_fit(self, tmp_path):
        with dask.config.set(scheduler="synchronous"):
            gm = GaussianMixture(2, random_state=0, refine=2, on_failed="ignore")
            gm.fit(make_ddf(8, Reader({3: short})))
        gm.aggregate_.save(tmp_path / "a.dfmr")
        loaded = Aggregate.load(tmp_path / "a.dfmr")
        assert loaded.mixture == gm.mixture_
        assert loaded.unrefined == gm.aggregate_.unrefined
        assert same_bits(loaded.without(1).mixture, gm.aggregate_.without(1).mixture)

    def test_it_pickles(self):
        whole = aggregate(some(12), random_state=0)
        again = pickle.loads(pickle.dumps(whole))
        assert same_bits(again.without(2).mixture, whole.without(2).mixture)

    def test_a_failed_save_leaves_what_was_there(self, path, monkeypatch):
        before = path.read_bytes()

        def fail(*args, **kwargs):
            raise OSError("the disk is full")

        monkeypatch.setattr(np.lib.format, "write_array", fail)
        with pytest.raises(OSError, match="full"):
            aggregate(some(6)).save(path)
        assert path.read_bytes() == before
        assert list(path.parent.iterdir()) == [path]

    @pytest.mark.parametrize("umask", [0o022, 0o077])
    def test_the_permissions_are_those_of_the_umask(self, tmp_path, umask):
        before = os.umask(umask)
        try:
            aggregate(some(6)).save(tmp_path / "a.zip")
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "a.zip").stat().st_mode) == 0o666 & ~umask

    def test_no_such_file(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            Aggregate.load(tmp_path / "none")

    @pytest.mark.parametrize("content", [b"", b"{}", b"PK\x03\x04 and so on"])
    def test_what_is_no_zip(self, tmp_path, content):
        (tmp_path / "a").write_bytes(content)
        with pytest.raises(ValueError, match="is not a saved aggregate"):
            Aggregate.load(tmp_path / "a")

    def test_a_truncated_file(self, path):
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(ValueError, match="is not a saved aggregate"):
            Aggregate.load(path)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda d: d.update(version=2), "expected format version 1, got 2"),
            (lambda d: d.update(format="else"), 'expected a JSON object with "format"'),
            (lambda d: [d], "must be a JSON dict"),
            (lambda d: d.pop("decision"), "lacks something"),
            (lambda d: d["decision"].update(center=99), "center must be"),
            (lambda d: d["decision"].update(extra=1), "lacks something"),
            (lambda d: d["notes"].append(["SystemExit", "x"]), "notes must be of"),
            (lambda d: d["mixture"].update(covariance_type="x"), "covariance_type must be"),
            (lambda d: d["origin"]["options"].update(rho=0.1), "rho must be"),
            (lambda d: d["origin"]["estimates"].pop(), "estimates must be as many"),
            (lambda d: d["origin"]["estimates"][0].update(row=99), "lacks something"),
            (lambda d: d["origin"]["estimates"][0].update(n_samples=-1), "n_samples must be"),
            (lambda d: d["origin"].update(removed=[99]), "removed must be"),
            (lambda d: d["origin"].update(entropy="x"), "SeedSequence expects int"),
        ],
    )
    def test_a_changed_document_is_refused(self, path, change, message):
        def changed(document):
            result = change(document)
            return result if isinstance(result, list) and len(result) == 1 else None

        with pytest.raises(ValueError, match=message):
            Aggregate.load(rewritten(path, changed))

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("mixture/weights.npy", npy([0.9, 0.9]), "sum to 1"),
            ("mixture/weights.npy", npy(np.array([0.5, 0.5], "f4")), "must hold one of"),
            ("mixture/weights.npy", None, "lacks something"),
            ("mixture/weights.npy", npy([0.5, 0.5])[:-8], "it has [0-9]+ bytes for them"),
            ("mixture/weights.npy", b"not an array", "magic"),
            ("decision/kept.npy", npy(np.ones(3, bool)), "one entry per estimate"),
            ("decision/kept.npy", npy(np.ones(12)), "one entry per estimate"),
        ],
    )
    def test_a_changed_array_is_refused(self, path, name, content, message):
        with pytest.raises(ValueError, match=message):
            Aggregate.load(rewritten(path, arrays={name: content}))

    def test_an_array_that_claims_to_be_huge(self, path):
        small = npy([0.5, 0.5])
        huge = small.replace(b"(2,), }" + b" " * 14, b"(222222222222222,), }")
        with pytest.raises(ValueError, match=r"it has [0-9]+ bytes for them"):
            Aggregate.load(rewritten(path, arrays={"mixture/weights.npy": huge}))

    @pytest.mark.smoke
    def test_pickles_are_not_opened(self, path):
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, np.array([print], dtype=object), allow_pickle=True)
        with pytest.raises(ValueError, match="must hold one of"):
            Aggregate.load(rewritten(path, arrays={"mixture/weights.npy": buffer.getvalue()}))

    def test_compressed_files_are_refused(self, path):
        with pytest.raises(ValueError, match="without compression"):
            Aggregate.load(rewritten(path, compress=zipfile.ZIP_DEFLATED))


class TestUpdate:
    def fitted(self, m=10, **kwargs):
        with dask.config.set(scheduler="synchronous"):
            reader = Reader({2: other_unit}, 400)
            return GaussianMixture(2, **{"random_state": 0} | kwargs).fit(make_ddf(m, reader))

    def later(self, m=6, bad=()):
        def read(i):
            frame = make_frame(i + 100, 400)
            return frame * 1000 if i in bad else frame

        return make_ddf(m, read)

    @pytest.mark.smoke
    def test_it_is_a_fit_of_all_from_there(self):
        gm = self.fitted()
        start = gm.mixture_
        with dask.config.set(scheduler="synchronous"):
            assert gm.update(self.later(bad=(4,))) is gm
        rows = [make_frame(i, 400).to_numpy() for i in range(10)]
        rows += [make_frame(i + 100, 400).to_numpy() for i in range(6)]
        rows[2], rows[14] = rows[2] * 1000, rows[14] * 1000
        estimates = [fit_local(X, 2, start=start, n_sources=16) for X in rows]
        expected = aggregate(estimates, random_state=0)
        assert mixing_distance(gm.mixture_, expected.mixture) < 1e-2
        np.testing.assert_array_equal(gm.support_, expected.decision.kept)
        assert gm.n_partitions_ == 16
        assert not gm.support_[[2, 14]].any()

    def test_only_the_new_ones_are_read_and_all_are_reported(self):
        gm = self.fitted()
        before = gm.partition_report_
        estimates = gm.estimates_
        with dask.config.set(scheduler="synchronous"):
            gm.update(self.later(3))
        report = gm.partition_report_
        assert report["partition"].tolist() == list(range(13))
        assert report["start"][10:].tolist() == ["given"] * 3
        columns = ["n_samples", "outcome", "log_likelihood", "start"]
        assert report[columns][:10].equals(before[columns])
        assert gm.estimates_[:10] == estimates
        assert ": all columns are 1000 times as large" in report.loc[2, "reason"]

    def test_components_keep_their_order(self):
        with dask.config.set(scheduler="synchronous"):
            gm = GaussianMixture(2, random_state=0, rho=np.inf).fit(make_ddf(10))
        before = gm.means_
        turned = Mixture(TRUTH.weights[::-1], TRUTH.means, TRUTH.covariances)
        rows = np.concatenate([turned.sample(400, i)[0] for i in range(60)])
        with dask.config.set(scheduler="synchronous"):
            gm.set_params(n_partitions=60).update(pd.DataFrame(rows, columns=["x", "y"]))
        assert np.argmax(gm.weights_) == 1
        np.testing.assert_allclose(gm.means_, before, atol=0.3)

    @pytest.mark.filterwarnings("ignore:estimates .* are copies")
    def test_update_after_update(self):
        gm = self.fitted()
        with dask.config.set(scheduler="synchronous"):
            gm.update(self.later(2)).update(self.later(2))
        assert gm.n_partitions_ == 14
        assert gm.aggregate_.without([12, 13]).decision.n_estimates == 14

    def test_on_a_cluster(self, client):
        here, there = self.fitted(), self.fitted()
        with dask.config.set(scheduler="synchronous"):
            here.update(self.later(3))
        there.update(self.later(3))
        assert same_bits(here.mixture_, there.mixture_)

    @pytest.mark.filterwarnings("ignore:estimates .* are copies")
    def test_a_new_partition_that_fails_is_reported(self):
        gm = self.fitted()
        with dask.config.set(scheduler="synchronous"), pytest.warns(PartitionWarning):
            gm.update(make_ddf(2, Reader({1: short}, 400)))
        assert gm.partition_report_.loc[11, "outcome"] == "too few rows"

    def test_what_goes_wrong_is_named(self):
        gm = self.fitted()
        with pytest.raises(ValueError, match="X must have the columns of fit"):
            gm.update(self.later().rename(columns={"y": "z"}))
        with pytest.raises(ValueError, match="X must have 2 columns; got 3"):
            gm.update(np.zeros((50, 3)))
        with pytest.raises(ValueError, match="n_components and covariance_type must be those"):
            self.fitted().set_params(n_components=3).update(self.later())
        with pytest.raises(NotFittedError):
            GaussianMixture(2).update(self.later())
        with pytest.raises(ValueError, match="does not hold the local estimates"):
            self.fitted(keep_estimates=False).update(self.later())
