"""Checks of new rows against a model: false alarms, power, reasons, and what is no table of numbers at all."""

from __future__ import annotations

import json
import pickle

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from sklearn.exceptions import NotFittedError

from dask_dfmr import Aggregate, ClusterError, GaussianMixture, Mixture, check, read_history
from dask_dfmr.monitoring.row_law import law_of_mixture, law_of_rows
from dask_dfmr.on_dask.scheduling.scheduler import LocalScheduler

NAMES = ["length", "width", "depth"]
TRUTH = Mixture(
    [0.5, 0.3, 0.2],
    [[0, 0, 0], [4, 0, 1], [0, 5, 2]],
    [np.eye(3), np.diag([1, 2, 0.5]), 0.6 * np.eye(3)],
)


def frame(seed, n=1000):
    return pd.DataFrame(TRUTH.sample(n, np.random.default_rng(seed))[0], columns=NAMES)


@pytest.fixture(scope="module", autouse=True)
def at_once():
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture(scope="module")
def model():
    parts = [frame(i) for i in range(16)]
    return GaussianMixture(3, check_optimum=None, random_state=0).fit(parts)


@pytest.fixture(scope="module")
def loaded(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.dfmr"
    model.save(path)
    return GaussianMixture.load(path)


def only(result):
    (row,) = result.report.to_dict("records")
    return row


# -- false alarms --------------------------------------------------------------------------------------


class TestFalseAlarms:
    """With 200 sources a rate of .01 gives 2 +- 1.4 alarms; the benchmark checks.py measures .001."""

    @pytest.mark.parametrize("n", [30, 300])
    def test_of_rows_of_the_mixture(self, model, n):
        found = check(model, [frame(1000 + i, n) for i in range(200)], false_alarm_rate=0.01)
        assert (found.report["verdict"] != "accept").sum() <= 7
        assert (found.report["p_scores"] < 0.05).mean() == pytest.approx(0.05, abs=0.045)

    @pytest.mark.filterwarnings("ignore::dask_dfmr.HeterogeneityWarning")
    @pytest.mark.parametrize("draw", ["t3", "lognormal", "grid"])
    def test_of_rows_that_are_no_mixture(self, draw):
        rng = np.random.default_rng(0)
        rows = {
            "t3": lambda n: rng.standard_t(3, size=(n, 2)),
            "lognormal": lambda n: np.exp(0.7 * rng.normal(size=(n, 2))),
            "grid": lambda n: rng.poisson(3, size=(n, 2)).astype(float),
        }[draw]
        gm = GaussianMixture(2, check_optimum=None, random_state=0)
        gm.fit([rows(400) for _ in range(10)])
        found = check(gm, [rows(200) for _ in range(200)], false_alarm_rate=0.01)
        assert found.law == "rows"
        assert (found.report["verdict"] != "accept").sum() <= 7

    def test_sources_that_differ_a_little_as_those_of_the_fit_did(self):
        def source(i):
            return frame(i, 2000) + np.random.default_rng(i).normal(size=3) * 0.08

        parts = [source(i) for i in range(20)]
        gm = GaussianMixture(3, check_optimum=None, random_state=0).fit(parts)
        found = check(gm, [source(100 + i) for i in range(40)], false_alarm_rate=0.01)
        assert (found.report["verdict"] != "accept").sum() <= 5

    def test_the_number_of_low_densities_has_its_exact_law(self):
        """Rows of a law that the mixture does not have: the test is one of ranks."""
        rng = np.random.default_rng(0)
        law = law_of_rows(TRUTH, [rng.standard_t(2, size=(2000, 3))])
        p_values = [
            law.low_densities(rng.standard_t(2, size=(500, 3))).p_values for _ in range(400)
        ]
        for p in np.transpose(p_values):
            assert (p < 0.05).mean() < 0.08


# -- power -------------------------------------------------------------------------------------------------


def correlated(rows):
    """Of rows whose means, variances and marginal laws stay: in one component two columns move together."""
    rng = np.random.default_rng(len(rows))
    values, labels = TRUTH.sample(len(rows), rng)
    own = np.flatnonzero(labels == 0)
    values[own, 1] = 0.5 * values[own, 0] + np.sqrt(0.75) * values[own, 1]
    return pd.DataFrame(values, columns=NAMES)


def with_gross_rows(rows):
    rows = rows.copy()
    rows.iloc[:6, 1] += 40
    return rows


CHANGES = {
    "unit": (lambda rows: rows * [2.54, 1, 1], "unit", "length"),
    "all in another unit": (lambda rows: rows * 1000, "unit", "length, width, depth"),
    "swapped": (lambda rows: rows.rename(columns=dict(zip(NAMES[:2], NAMES[1::-1], strict=True))),
                "swapped columns", "length, width"),
    "shifted": (lambda rows: rows.assign(width=rows["width"] + 1), "offset", "width"),
    "sign": (lambda rows: rows * [1, 1, -1], "sign", "depth"),
    "correlation": (correlated, "component", "length, width"),
    "gross rows": (with_gross_rows, "some rows", "width"),
    "constant": (lambda rows: rows.assign(depth=1.0), "degenerate", ""),
}  # fmt: skip


class TestPower:
    @pytest.mark.parametrize("name", CHANGES)
    def test_it_is_found_and_named(self, model, name):
        change, kind, columns = CHANGES[name]
        sources = [change(frame(2000 + i))[NAMES] for i in range(3)]
        found = check(model, sources).report
        assert (found["verdict"] == "quarantine").all()
        assert (found["kind"].str.startswith(kind)).all()
        assert (found["columns"] == columns).all()

    def test_more_fill_values_than_in_the_rows_of_a_truncated_fit(self):
        """A few are usual, so that none of them is of low density for the law of the rows."""

        def filled(seed, step):
            rows = frame(seed, 500)
            rows.iloc[::step, 1] = -9999.0
            return rows

        settings = {"row_outliers": "truncate", "check_optimum": None, "random_state": 0}
        gm = GaussianMixture(3, **settings).fit([filled(i, 50) for i in range(8)])
        assert check(gm, filled(100, 50)).verdict == "accept"
        row = only(check(gm, filled(101, 8)))
        assert (row["verdict"], row["kind"], row["columns"]) == ("quarantine", "some rows", "width")

    def test_the_component_of_a_correlation(self, model):
        row = only(check(model, correlated(frame(0))))
        heaviest = int(model.weights_.argmax())
        assert row["component"] == heaviest
        assert f"correlation of 'length' and 'width' in component {heaviest}" in row["reason"]


# -- verdicts ----------------------------------------------------------------------------------------------


class TestVerdicts:
    def test_a_source_that_cannot_be_used_is_no_crash(self, model):
        good = frame(3000)

        def broken():
            raise OSError("disk on fire")

        sources = {
            "none": (good.iloc[:0], "review", "empty", "there are no rows"),
            "few": (good.iloc[:5], "review", "too few rows", "5 rows are too few"),
            "few and wrong": (good.iloc[:5] * 1000, "quarantine", "", "almost none"),
            "lacks one": (good[NAMES[:2]], "quarantine", "other columns", "expected"),
            "one more": (good.assign(more=1.0), "quarantine", "other columns", "'more'"),
            "text": (good.assign(depth="x"), "quarantine", "other columns", "'depth' (str)"),
            "a hole": (good.mask(good < -3), "quarantine", "not finite", "nan_policy='omit'"),
            "huge": (good * 1e150, "quarantine", "not finite", "beyond"),
            "other order": (good[NAMES[::-1]], "accept", "", ""),
        }
        found = check(model, [case[0] for case in sources.values()], names=list(sources)).report
        for row, (_, verdict, kind, reason) in zip(
            found.to_dict("records"), sources.values(), strict=True
        ):
            assert (row["verdict"], row["kind"]) == (verdict, kind), row
            assert reason in row["reason"]
        lazy = check(model, [dask.delayed(broken)(), dask.delayed(good)]).report
        assert lazy["verdict"].tolist() == ["quarantine", "accept"]
        assert "OSError: disk on fire" in lazy["reason"][0]

    def test_a_collection_of_other_columns(self, model):
        X = dd.from_pandas(frame(0).assign(depth="x"), npartitions=2)
        row = only(check(model, X))
        assert (row["source"], row["verdict"], row["kind"]) == (
            *("all rows", "quarantine", "other columns"),
        )

    def test_of_many_sources_one_is_unlikely_by_chance(self, model):
        """The same rows are quarantined alone, and up for review among many."""
        rate = 0.05
        sources = [frame(4000 + i, 100) for i in range(100)]
        found = check(model, sources, false_alarm_rate=rate).report
        review = found[found["verdict"] == "review"]
        assert len(review) >= 1
        assert review["p_value"].between(rate / 100, rate).all()
        assert review["reason"].str.contains("are so by chance").all()
        alone = only(check(model, sources[review.index[0]], false_alarm_rate=rate))
        assert alone["verdict"] == "quarantine"
        assert alone["p_value"] == review["p_value"].iloc[0]

    def test_rows_with_holes_are_omitted_if_the_model_omits_them(self, model):
        gm = GaussianMixture.from_mixture(model.mixture_, nan_policy="omit")
        X = frame(0)
        X.loc[:9, "depth"] = np.nan
        row = only(check(gm, X))
        assert (row["verdict"], row["n_samples"], row["n_omitted"]) == ("accept", 990, 10)
        row = only(check(gm, X.assign(depth=np.nan)))
        assert (row["verdict"], row["kind"]) == ("review", "empty")
        assert "1000 hold NaN or infinity" in row["reason"]

    def test_nothing_of_the_rows_is_in_the_result(self, model):
        X = frame(0) * 0 + 12345.678
        X.iloc[::2] = 87654.321
        text = json.dumps(check(model, X).to_dict())
        assert "12345.6" not in text
        assert "87654.3" not in text


class TestModels:
    def test_no_row_is_in_a_file_or_a_pickle(self, model, tmp_path):
        """All rows of these partitions are in the sample of the fit."""
        model.save(tmp_path / "m")
        for content in ((tmp_path / "m").read_bytes(), pickle.dumps(model)):
            assert not any(value.tobytes() in content for value in frame(0).to_numpy()[:200])
        assert check(pickle.loads(pickle.dumps(model)), frame(0)).law == "rows"

    def test_a_loaded_model_checks_to_the_same_bits(self, model, loaded):
        sources = [frame(0), 10 * frame(1), frame(2, 50)]
        a, b = check(model, sources), check(loaded, sources)
        assert_frame_equal(a.report, b.report, check_exact=True)
        assert (a.law, a.model) == ("rows", b.model)

    @pytest.mark.parametrize("kind", ["mixture", "aggregate", "aggregate without estimates"])
    def test_models_without_the_law_of_rows(self, model, kind, tmp_path):
        model.aggregate_.save(tmp_path / "a", estimates=False)
        given = {
            "mixture": model.mixture_,
            "aggregate": model.aggregate_,
            "aggregate without estimates": Aggregate.load(tmp_path / "a"),
        }[kind]
        found = check(given, [frame(0), frame(1) * [1, 3, 1]])
        assert found.law == "mixture"
        assert found.report["verdict"].tolist() == ["accept", "quarantine"]

    def test_the_law_stays_through_an_update(self, model, tmp_path):
        model.save(tmp_path / "m")
        gm = GaussianMixture(3, check_optimum=None, random_state=0)
        gm.fit([frame(i, 400) for i in range(6)]).update([frame(7, 400)])
        assert check(gm, frame(0)).law == "rows"

    def test_a_law_of_few_rows_is_none(self):
        assert law_of_rows(TRUTH, [TRUTH.sample(500, 0)[0]]) is None
        assert law_of_rows(TRUTH, []) is None
        assert not law_of_mixture(TRUTH, 1000.0).is_of_rows

    @pytest.mark.parametrize("kind", ["tied", "diag", "spherical"])
    def test_every_covariance_type(self, kind):
        gm = GaussianMixture(2, covariance_type=kind, check_optimum=None, random_state=0)
        gm.fit([frame(i, 500) for i in range(6)])
        found = check(gm, [frame(100), frame(101) * [1, 1, 2]])
        assert found.report["verdict"].tolist() == ["accept", "quarantine"]

    def test_a_model_of_truncated_fits_accepts_as_many_outliers_as_it_was_fitted_to(self):
        def source(i):
            rows = frame(i, 500)
            rows.iloc[:10] += np.random.default_rng(i).normal(size=(10, 3)) * 30
            return rows

        gm = GaussianMixture(3, row_outliers="truncate", check_optimum=None, random_state=0)
        gm.fit([source(i) for i in range(10)])
        found = check(gm, [source(100), source(101) * [1, 1, 2]])
        assert found.report["verdict"].tolist() == ["accept", "quarantine"]
        assert found.report["kind"][1] == "unit"

    def test_one_that_is_not_fitted(self):
        with pytest.raises(NotFittedError):
            check(GaussianMixture(), frame(0))

    @pytest.mark.parametrize("wrong", ["model.dfmr", None, 3])
    def test_what_is_no_model(self, wrong):
        with pytest.raises(TypeError, match="model must be a fitted GaussianMixture"):
            check(wrong, frame(0))


class TestInputs:
    def test_all_kinds_of_data_give_the_same_numbers(self, model):
        X = pd.concat([frame(0), frame(1)], ignore_index=True)
        lazy = dd.from_pandas(X, npartitions=2)
        pieces = [X.iloc[:1000], X.iloc[1000:]]
        expected = check(model, pieces).report["p_value"]
        for given in (
            lazy,
            da.from_array(X.to_numpy(), chunks=(1000, 3)),
            [dask.delayed(piece) for piece in pieces],
            [piece.to_numpy() for piece in pieces],
        ):
            assert_frame_equal(check(model, given).report[["p_value"]], expected.to_frame())
        for scheduler in ("threads", "synchronous"):
            with dask.config.set(scheduler=scheduler):
                assert_frame_equal(check(model, lazy).report[["p_value"]], expected.to_frame())

    def test_a_scheduler_that_goes_is_no_verdict_on_sources(self, model, monkeypatch):
        def fail(self, build, indices):
            raise RuntimeError("upstream") if len(indices) > 1 else ClusterError("gone")

        monkeypatch.setattr(LocalScheduler, "hold_each", fail)
        with pytest.raises(ClusterError, match="gone"):
            check(model, [frame(0), frame(1)])

    def test_a_table_in_memory_is_one_source(self, model):
        for X in (frame(0), frame(0).to_numpy(), frame(0).to_numpy().tolist()):
            assert only(check(model, X, names="today"))["source"] == "today"

    @pytest.mark.parametrize("n_values", [1, 3])
    @pytest.mark.parametrize("is_lazy", [True, False])
    def test_values_of_a_column(self, model, is_lazy, n_values):
        X = pd.concat([frame(i, 200).assign(day=f"d{i}") for i in range(n_values)])
        X = X.sample(frac=1, random_state=0)
        found = check(model, dd.from_pandas(X, npartitions=2) if is_lazy else X, source="day")
        assert found.report["source"].tolist() == [f"day='d{i}'" for i in range(n_values)]
        assert found.report["n_samples"].tolist() == [200] * n_values

    def test_the_column_of_the_model_is_the_default(self, model):
        gm = GaussianMixture.from_mixture(model.mixture_, source="day")
        assert len(check(gm, frame(0).assign(day=np.arange(1000) % 2)).report) == 2
        assert len(check(gm, frame(0)).report) == 1

    def test_a_list_may_have_the_column_of_the_model(self, model):
        gm = GaussianMixture.from_mixture(model.mixture_, source="day")
        marked, plain = frame(0).assign(day="today"), frame(1)
        assert (check(gm, [marked, plain]).report["verdict"] == "accept").all()
        labels = gm.predict([marked, plain])
        np.testing.assert_array_equal(labels[0], gm.predict(frame(0)))

    def test_files_give_sources_their_names(self, model, tmp_path):
        for name in ("a", "b"):
            frame(0).to_csv(tmp_path / f"{name}.csv", index=False)
        found = check(model, dd.read_csv(str(tmp_path / "*.csv"))).report
        assert [source.rpartition("/")[2] for source in found["source"]] == ["a.csv", "b.csv"]

    @pytest.mark.parametrize("wrong", ["a.csv", 5, pd.Series([1.0]), np.zeros(3), None])
    def test_what_is_no_data(self, model, wrong):
        with pytest.raises(TypeError, match="X must"):
            check(model, wrong)

    def test_an_empty_list(self, model):
        with pytest.raises(ValueError, match="Was no file found"):
            check(model, [])

    @pytest.mark.parametrize(
        ("argument", "value"),
        [
            *(("false_alarm_rate", v) for v in (0, 1, -0.1, "low", True, None)),
            *(("names", v) for v in (["a", "b"], [1])),
            ("partition_timeout", -1),
        ],
    )
    def test_wrong_arguments(self, model, argument, value):
        with pytest.raises(ValueError, match=argument):
            check(model, frame(0), **{argument: value})


# -- results and histories ---------------------------------------------------------------------------------


class TestResult:
    @pytest.fixture(scope="class")
    @classmethod
    def found(cls, model):
        return check(model, [frame(0), frame(1) * 10, frame(2).iloc[:3]], names=["a", "b", "c"])

    def test_the_worst_verdict_is_that_of_all(self, model, found):
        assert found.verdict == "quarantine"
        assert found.counts == {"accept": 1, "review": 1, "quarantine": 1}
        assert check(model, frame(0)).verdict == "accept"

    def test_its_text_has_the_worst_first(self, found):
        first, *others = repr(found).splitlines()
        assert first.startswith("CheckResult(accept 1, review 1, quarantine 1; ")
        assert others[0].startswith(
            "  quarantine  b: unlikely (p < 1e-12): all columns are 10 times"
        )
        assert others[1].startswith("  review      c: 3 rows are too few to decide")

    def test_its_dict_is_json(self, found):
        document = found.to_dict()
        assert json.loads(json.dumps(document, allow_nan=False)) == document
        assert list(document) == [
            *("format", "version", "verdict", "counts", "false_alarm_rate", "law", "model"),
            "sources",
        ]
        assert [list(source) for source in document["sources"]] == [list(found.report.columns)] * 3

    def test_long_ones_are_cut(self, model):
        text = repr(check(model, [frame(0).iloc[:2]] * 15))
        assert text.endswith("... and 5 more")


class TestHistory:
    def test_lines_are_appended(self, model, tmp_path):
        path = tmp_path / "history.jsonl"
        first = check(model, [frame(0), 10 * frame(1)], names=["a", "b"], history=path)
        before = path.read_bytes()
        check(model, frame(2), names="a", history=path)
        assert path.read_bytes().startswith(before)
        found = read_history(path)
        assert found["source"].tolist() == ["a", "b", "a"]
        assert found["p_value"].tolist()[:2] == first.report["p_value"].tolist()
        assert set(found["model"]) == {first.model}
        assert str(found["time"].dtype).endswith("UTC]")

    @pytest.mark.parametrize("n_written", [5, 200])
    def test_an_interrupted_line_is_skipped(self, model, tmp_path, n_written):
        path = tmp_path / "history.jsonl"
        check(model, frame(0), names="a", history=path)
        path.write_bytes(path.read_bytes() + path.read_bytes()[:n_written])
        check(model, frame(0), names="b", history=path)
        assert read_history(path)["source"].tolist() == ["a", "b"]

    @pytest.mark.parametrize(
        "line",
        [
            b"\x80\x04K\x01.",
            b"[1]",
            b'{"format": "cake"}',
            b"[" * 100_000,
            b'{"format": "dask_dfmr.check", "version": 2}',
            b'{"format": "dask_dfmr.check", "version": true}',
            b'{"format": "dask_dfmr.check", "version": 1, "source": {}}',
        ],
    )
    def test_a_hostile_line_is_named(self, model, tmp_path, line):
        path = tmp_path / "history.jsonl"
        check(model, frame(0), names="a", history=path)
        path.write_bytes(path.read_bytes() + line + b"\n")
        with pytest.raises(ValueError, match="line 2"):
            read_history(path)

    def test_no_file(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            read_history(tmp_path / "none")
        (tmp_path / "empty").write_bytes(b"")
        assert len(read_history(tmp_path / "empty")) == 0
