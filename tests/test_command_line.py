"""The command line: results, exit codes and messages, most of them in this process, a few as processes."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from dask_dfmr import GaussianMixture, LocalEstimate, Mixture
from dask_dfmr.cli.app import COMMANDS, app
from dask_dfmr.cli.data import Request, kind_of, read, reader_options
from dask_dfmr.cli.exits import CommandError, Exit, exit_for, exit_of
from dask_dfmr.cli.options import WITHOUT_OPTION
from dask_dfmr.cli.run import without_shared_folder
from dask_dfmr.cli.schema import ENVELOPE, RESULTS, envelope, plain
from dask_dfmr.cli.words import in_options
from dask_dfmr.exceptions import ClusterError
from dask_dfmr.parameters import PARAMETERS

N_FILES, BAD = 8, 2
POPULATION = Mixture([0.6, 0.4], [[0.0, 0.0], [5.0, 5.0]], [np.eye(2)] * 2)
KINDS = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "object": dict,
    "array": list,
    "null": type(None),
}


def rows_of(i):
    rows = pd.DataFrame(POPULATION.sample(120, random_state=i)[0], columns=["length", "width, mm"])
    return rows * (100 if i == BAD else 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a space in its name: files of one measurement, one of them in another unit."""
    home = tmp_path_factory.mktemp("command line")
    plates = home / "plates [a]"
    plates.mkdir()
    for i in range(N_FILES):
        rows_of(i).to_parquet(plates / f"plate {i}.parquet", index=False)
    (plates / "_SUCCESS").touch()
    (plates / "notes.txt").touch()
    return home


@pytest.fixture(autouse=True)
def in_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)


def call(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments], prog_name="dask-dfmr")


def call_json(*arguments):
    """The exit code and the object; it is all of stdout, and as its schema says."""
    found = call(*arguments, "--json", "--quiet")
    text = json.loads(found.stdout)
    assert list(text) == list(ENVELOPE)
    assert text["exit_code"] == found.exit_code
    if text["result"] is not None:
        keys = RESULTS[text["command"]]
        assert list(text["result"]) == list(keys)
        for name, key in keys.items():
            assert_kind(text["result"][name], key.kind)
    return found.exit_code, text


def assert_kind(value, kind):
    allowed = [part.split(" of ")[0] for part in kind.split(" or ")]
    assert any(isinstance(value, KINDS[name]) for name in allowed), f"{value!r} is no {kind}"


@pytest.fixture(scope="module")
def fitted(folder):
    """The result of one fit, and its model."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        return call_json("fit", "plates [a]", "-k", 2, "--seed", 0, "--model", "plates.model")
    finally:
        os.chdir(before)


class TestFit:
    def test_a_file_in_another_unit(self, fitted):
        code, found = fitted
        assert code == Exit.REVIEW
        (excluded,) = found["result"]["excluded"]
        assert excluded["source"].endswith(f"plate {BAD}.parquet")
        assert "100 times as large" in excluded["reason"]
        assert found["result"]["columns"] == ["length", "width, mm"]
        assert found["result"]["files"] == {"model": "plates.model"}

    def test_what_a_person_sees(self):
        found = call("fit", "plates [a]/*.parquet", "--components", 2, "--seed", 0)
        assert found.exit_code == Exit.REVIEW
        assert f"kept {N_FILES - 1} of {N_FILES} partitions, 840 of 960 rows" in found.stdout
        (line,) = [line for line in found.stdout.splitlines() if "plate 2.parquet" in line]
        assert "100 times as large" in line
        assert "component  weight" in found.stdout
        assert "partitions kept" not in found.stderr, "the table says it"
        assert "warning" not in found.stderr

    def test_the_model_has_the_usual_parameters(self, fitted):
        gm = GaussianMixture.load("plates.model")
        assert (gm.n_components, gm.random_state) == (2, 0)
        assert (gm.verbose, gm.warn_excluded, gm.on_failed) == (0, True, "warn")

    def test_a_file_that_no_source_can_use_needs_a_review(self, tmp_path):
        rng = np.random.default_rng(0)
        for i in range(4):
            frame = pd.DataFrame(rng.normal(size=(200, 2)), columns=["x", "y"])
            frame["day"] = np.tile([1, 2, 3, 4], 50)
            frame.drop(columns="y" if i == 2 else []).to_parquet(tmp_path / f"{i}.parquet")
        code, found = call_json("fit", tmp_path, "-k", 1, "--seed", 0, "--source", "day")
        assert code == Exit.REVIEW
        (warning,) = found["warnings"]
        assert warning["category"] == "PartitionWarning"
        assert "4 of 4 sources are without its rows: partition 2" in warning["message"]
        assert found["result"]["n_kept"] == 4

    def test_sources_in_a_csv_file(self):
        table = pd.concat([rows_of(i).assign(sensor=f"s{i}") for i in range(N_FILES)])
        table.sample(frac=1, random_state=0).to_csv("sensors.csv", index=False)
        code, found = call_json("fit", "sensors.csv", "-k", 2, "--seed", 0, "--source", "sensor")
        assert code == Exit.REVIEW
        assert [e["source"] for e in found["result"]["excluded"]] == [f"sensor='s{BAD}'"]

    def test_numbers_of_sensors_stay_whole(self, tmp_path):
        table = pd.concat([rows_of(i).assign(sensor=100 + i) for i in range(N_FILES)])
        table.to_csv(tmp_path / "sensors.csv", index=False)
        _, found = call_json("fit", tmp_path, "-k", 2, "--seed", 0, "--source", "sensor")
        assert [e["source"] for e in found["result"]["excluded"]] == [f"sensor={100 + BAD}"]

    def test_one_partition_needs_a_review(self):
        found = call("fit", "plates [a]/plate 0.parquet", "-k", 1)
        assert found.exit_code == Exit.REVIEW
        assert "--partitions 8 divides it" in found.stderr
        assert "warning: X is one partition" in found.stderr
        _, found = call_json("fit", "plates [a]/plate 0.parquet", "--partitions", 6)
        assert found["result"]["n_partitions"] == 6

    def test_whole_numbers_that_become_decimal_in_a_later_file(self):
        for i in range(5):
            rows = POPULATION.sample(60, random_state=i)[0] * 100
            frame = pd.DataFrame(rows if i == 4 else rows.astype(int), columns=["a", "b"])
            frame.to_csv(f"counts-{i}.csv", index=False)
        code, found = call_json("fit", "counts-*.csv", "-k", 2, "--seed", 0)
        assert (code, found["result"]["n_kept"]) == (Exit.FINE, 5)

    def test_workers(self, monkeypatch):
        """The cluster is another one for speed: what is tested is that the command computes on it."""
        found = call("fit", "plates [a]", "--scheduler", "tcp://127.0.0.1:1", "--workers", 2)
        assert found.exit_code == Exit.USAGE
        monkeypatch.setattr("dask_dfmr.cli.scheduler.CONNECT_TIMEOUT", 0.2)
        code, found = call_json("fit", "plates [a]", "--scheduler", "tcp://127.0.0.1:1")
        assert code == Exit.UNAVAILABLE
        assert "tcp://127.0.0.1:1" in found["error"]["message"]


class TestInput:
    @pytest.mark.parametrize(
        ("arguments", "code", "message"),
        [
            (["fit", "nothing.parquet"], Exit.NO_INPUT, "'nothing.parquet' does not exist"),
            (["fit", "nothing/*.csv"], Exit.NO_INPUT, "matches no file"),
            (["fit"], Exit.USAGE, "Missing argument 'DATA...'"),
            (["fit", "plates [a]", "--colour"], Exit.USAGE, "No such option"),
            (["paint"], Exit.USAGE, "No such command 'paint'"),
            (["fit", "plates [a]", "--method", "mean"], Exit.USAGE, "method must be one of 'dfmr'"),
            (["fit", "plates [a]", "--rho", "-1"], Exit.USAGE, "rho must be"),
            (["fit", "plates [a]", "-k", "many"], Exit.USAGE, "n_components must be"),
            (["fit", "plates [a]", "--columns", "lenght"], Exit.DATA, "Did you mean 'length'?"),
            (["fit", "plates [a]", "--source", "day"], Exit.DATA, "no column 'day'"),
            (["fit", "plates [a]", "--read", "sep"], Exit.USAGE, "--read must be KEY=VALUE"),
            (["fit", "plates [a]/notes.txt"], Exit.USAGE, "add --format"),
            (["fit", "ftq://x/y.csv"], Exit.USAGE, "ftq"),
            (["fit", "plates [a]", "--model", "no/m"], Exit.CANNOT_WRITE, "there is no folder"),
            (
                ["fit", "plates [a]", "--refine", "2", "--method", "coat"],
                Exit.DATA,
                "refine must be 0",
            ),
            (["score", "nothing.model", "plates [a]"], Exit.NO_INPUT, "'nothing.model' is no file"),
            (["select", "plates [a]", "-k", "few"], Exit.USAGE, "expected numbers like 1-10"),
            (["stress", "plates [a]", "--attack", "mean"], Exit.USAGE, "-k is needed"),
            (
                ["stress", "plates [a]", "-k", "2", "--attack", "x"],
                Exit.DATA,
                "attack must be one of",
            ),
        ],
    )
    def test_errors(self, arguments, code, message):
        found = call(*arguments)
        assert found.exit_code == code
        assert message in found.stderr
        assert found.stdout == ""
        assert "Traceback" not in found.stderr
        as_json = json.loads(call(*arguments, "--json").stdout)
        assert as_json["exit_code"] == code
        assert message in as_json["error"]["message"]
        assert as_json["result"] is None

    def test_the_traceback_is_there_on_request(self):
        assert "Traceback" in call("fit", "nothing.parquet", "--debug").stderr

    def test_text_columns(self):
        rows_of(0).assign(well="A1", day="Mon").to_csv("text.csv", index=False)
        code, found = call_json("fit", "text.csv")
        assert code == Exit.DATA
        assert found["error"]["message"].startswith("columns hold no numbers: 'well', 'day'")
        # The advice works when copied, with a comma in a name, too.
        names = ["--columns", "length", "--columns", "width, mm"]
        assert call("fit", "text.csv", *names, "--method", "mr").exit_code == Exit.FINE

    def test_a_folder_of_mixed_files(self, tmp_path):
        rows_of(0).to_parquet(tmp_path / "a.parquet")
        rows_of(1).to_csv(tmp_path / "b.csv")
        code, found = call_json("fit", tmp_path)
        assert code == Exit.DATA
        assert "files of one kind" in found["error"]["message"]
        assert call("fit", tmp_path / "*.csv", "--method", "mr").exit_code == Exit.FINE

    def test_a_folder_without_data(self, tmp_path):
        (tmp_path / "readme.md").touch()
        code, found = call_json("fit", tmp_path)
        assert code == Exit.NO_INPUT
        assert "readme.md" in found["error"]["message"]

    def test_files_that_are_no_data_are_named(self):
        found = call("fit", "plates [a]", "-k", 1, "--method", "mr")
        assert "ignored 1 files" in found.stderr
        assert "notes.txt" in found.stderr
        assert "_SUCCESS" not in found.stderr

    def test_broken_files(self, tmp_path):
        (tmp_path / "a.parquet").write_text("no parquet")
        code, found = call_json("fit", tmp_path)
        assert code == Exit.DATA
        assert "parquet files cannot be read" in found["error"]["message"]

    def test_a_broken_file_among_others(self, tmp_path):
        """A failure is an outcome of the file, the first one included."""
        for i in range(N_FILES):
            rows_of(i).to_parquet(tmp_path / f"{i}.parquet", index=False)
        for i in (0, 5):
            (tmp_path / f"{i}.parquet").write_bytes(b"PAR1")
        rows_of(6).drop(columns="length").to_parquet(tmp_path / "6.parquet")
        code, found = call_json("fit", tmp_path, "-k", 2, "--seed", 0)
        assert code == Exit.REVIEW
        names = [Path(e["source"]).name for e in found["result"]["excluded"]]
        assert names == ["0.parquet", f"{BAD}.parquet", "5.parquet", "6.parquet"]

    def test_a_file_that_is_no_model(self, tmp_path):
        for content in (b"text", b"{}", b"PK\x03\x04"):
            path = tmp_path / "x.model"
            path.write_bytes(content)
            code, found = call_json("explain", path)
            assert code == Exit.DATA
            assert "cannot be used" in found["error"]["message"]

    @pytest.mark.parametrize(
        ("path", "kind"),
        [
            ("a/b.parquet", "parquet"),
            ("b.PQ", "parquet"),
            ("s3://x/b.csv.gz", "csv"),
            ("https://x/b.tsv?token=1.2", "csv"),
            ("b.jsonl", "json"),
            ("b.txt", None),
            ("parquet", None),
        ],
    )
    def test_kinds(self, path, kind):
        assert kind_of(path) == kind

    def test_reader_options(self):
        found = reader_options(["sep=;", "blocksize=64MB", 'storage_options={"anon": true}', "x=3"])
        expected = {"sep": ";", "blocksize": "64MB", "storage_options": {"anon": True}, "x": 3}
        assert found == expected

    def test_csv_with_semicolons_and_compressed(self, tmp_path):
        rows_of(0).to_csv(tmp_path / "a.csv.gz", index=False, sep=";")
        read = ["--read", "sep=;", "--method", "mr"]
        assert call("fit", tmp_path / "a.csv.gz", *read).exit_code == Exit.FINE

    def test_a_url(self):
        files = fsspec.filesystem("memory")
        for i in range(N_FILES):
            with files.open(f"/plates/{i}.csv", "w") as file:
                rows_of(i).to_csv(file, index=False)
        for data in ("memory://plates", "memory://plates/*.csv"):
            code, found = call_json("fit", data, "-k", 2, "--seed", 0)
            assert (code, found["result"]["n_kept"]) == (Exit.REVIEW, N_FILES - 1)
        files.rm("/plates", recursive=True)

    def test_a_folder_that_holds_a_column(self, tmp_path):
        for i in range(N_FILES):
            (tmp_path / f"day={i}").mkdir()
            rows_of(i).to_parquet(tmp_path / f"day={i}" / "part.parquet", index=False)
        _, found = call_json("fit", tmp_path, "-k", 2, "--seed", 0, "--source", "day")
        assert [e["source"] for e in found["result"]["excluded"]] == [f"day={BAD}"]

    def test_an_index_is_no_feature(self, tmp_path):
        for i in (0, 1):
            rows_of(i).to_csv(tmp_path / f"{i}.csv")
        frame, _ = read(Request((str(tmp_path),)))
        assert list(frame.columns) == ["length", "width, mm"]
        frame, _ = read(Request((str(tmp_path),), columns=("Unnamed: 0",)))
        assert list(frame.columns) == ["Unnamed: 0"]

    @pytest.mark.parametrize("place", [0, 3])
    def test_a_file_without_a_byte_is_an_outcome(self, tmp_path, place):
        for i in range(4):
            rows_of(i + BAD + 1).to_csv(tmp_path / f"{i}.csv", index=False)
        (tmp_path / f"{place}.csv").write_text("")
        code, found = call_json("fit", tmp_path, "-k", 1, "--seed", 0)
        assert code == Exit.REVIEW
        (excluded,) = found["result"]["excluded"]
        assert (Path(excluded["source"]).name, excluded["outcome"]) == (f"{place}.csv", "failed")
        POPULATION.save("population 3.json")
        columns = ["--columns", "length", "--columns", "width, mm"]
        scored = call("score", "population 3.json", tmp_path, *columns)
        assert scored.exit_code == Exit.DATA
        assert f"{place}.csv" in scored.stderr, (
            "a command that needs all rows says which file has none"
        )

    def test_files_of_which_none_can_be_read(self, tmp_path):
        (tmp_path / "0.parquet").write_bytes(b"PAR1 no")
        found = call("fit", tmp_path, "-k", 1)
        assert found.exit_code == Exit.DATA
        assert "0.parquet" in found.stderr


class TestWords:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("n_components=2, or larger files", "--components 2, or larger files"),
            (
                "covariance_type='diag' or 'tied', min_partition_rows=35",
                "--covariance-type diag or tied, --min-partition-rows 35",
            ),
            ("use tol=1e-3 or n_init=5.", "use --tol 1e-3 or --n-init 5."),
            ("raise max_iter or loosen tol", "raise --max-iter or loosen tol"),
            ("nan_policy='omit'.", "--nan-policy omit."),
            ("penalty='auto' or reg_covar > 0", "--penalty auto or --reg-covar > 0"),
            ("the method of the refine", "the method of the refine"),
            ("gm.weights_init, mean_n_init, 'n_init'", "gm.weights_init, mean_n_init, 'n_init'"),
        ],
    )
    def test_parameters_become_options(self, text, expected):
        assert in_options(text) == expected

    @pytest.mark.parametrize(
        ("command", "text", "expected"),
        [
            ("fit", "nan_policy='omit' omits such rows", "--nan-policy omit omits such rows"),
            ("fit-local", "set reg_covar=1e-6", "set --reg-covar 1e-6"),
            ("check", "nan_policy='omit' omits them", "'fit --nan-policy omit' omits them"),
            ("score", "raise max_iter, or partition_timeout", None),
            ("check", "raise partition_timeout", "raise --partition-timeout"),
            ("aggregate", "set reg_covar=1e-6", "set 'fit-local --reg-covar 1e-6'"),
            ("select", "covariance_type='diag' or 'tied'", "--structures diag or tied"),
        ],
    )
    def test_a_command_is_told_of_its_own_options(self, command, text, expected):
        of = app.get_command(None, command)
        expected = expected or "raise 'fit --max-iter', or 'fit --partition-timeout'"
        assert in_options(text, of) == expected

    def test_advice_of_a_check_is_about_a_fit(self, fitted, tmp_path):
        rows_of(0).assign(length=np.nan).to_csv(tmp_path / "one.csv", index=False)
        shown = call("check", "plates.model", tmp_path / "one.csv").stdout
        assert "'fit --nan-policy omit' omits such rows" in shown
        scored = call("score", "plates.model", tmp_path / "one.csv")
        assert "nan_policy" not in scored.stderr
        assert "'fit --nan-policy" in scored.stderr

    def test_advice_of_a_reason_works_when_copied(self):
        found = call("fit", "plates [a]/plate 0.parquet", "-k", 150)
        assert found.exit_code == Exit.DATA
        advised = re.search("--components ([0-9]+)", found.stderr)
        assert advised is not None
        again = call("fit", "plates [a]/plate 0.parquet", *advised[0].split(), "--tol", "1e-2")
        assert again.exit_code in (Exit.FINE, Exit.REVIEW)


class TestNamesOfFiles:
    @pytest.mark.parametrize(
        ("names", "expected"),
        [
            (["/data/a.csv", "/data/b.csv"], ["a.csv", "b.csv"]),
            (["/data/a.csv", "/other/b.csv"], ["/data/a.csv", "/other/b.csv"]),
            (["partition 2 (/data/2.csv)"], ["partition 2 (2.csv)"]),
            (["site='a/b'", "site='c'"], ["site='a/b'", "site='c'"]),
            ([None, float("nan"), ""], ["", "", ""]),
        ],
    )
    def test_without_the_folder_that_they_share(self, names, expected):
        assert without_shared_folder(names) == expected


class TestOutput:
    def test_a_folder_is_no_file(self, tmp_path):
        found = call("fit", "plates [a]", "-k", 1, "--model", tmp_path, "--force")
        assert found.exit_code == Exit.CANNOT_WRITE
        assert "is a folder" in found.stderr

    def test_two_outputs_in_one_file(self):
        found = call("fit", "plates [a]", "-k", 1, "--model", "one", "--report", "./one")
        assert found.exit_code == Exit.USAGE

    def test_data_that_are_replaced_are_read_before(self, fitted, tmp_path):
        rows_of(0).to_parquet(tmp_path / "0.parquet", index=False)
        code, _ = call_json("predict", "plates.model", tmp_path, "--out", tmp_path, "--force")
        assert code == Exit.FINE
        assert len(pd.read_parquet(tmp_path)) == len(rows_of(0))

    def test_a_folder_of_something_else_is_not_replaced(self, fitted, tmp_path):
        (tmp_path / "thesis.txt").touch()
        out = ["--out", tmp_path, "--force"]
        found = call("predict", "plates.model", "plates [a]", *out)
        assert found.exit_code == Exit.CANNOT_WRITE
        assert (tmp_path / "thesis.txt").exists()

    def test_a_file_that_exists(self, fitted):
        before = Path("plates.model").read_bytes()
        found = call("fit", "plates [a]", "-k", 1, "--model", "plates.model")
        assert found.exit_code == Exit.CANNOT_WRITE
        assert "--force replaces it" in found.stderr
        assert Path("plates.model").read_bytes() == before

    def test_predict_a_folder(self, fitted):
        out = ["predict", "plates.model", "plates [a]", "--out", "labels of plates"]
        code, found = call_json(*out)
        assert code == Exit.FINE
        table = pd.read_parquet("labels of plates")
        assert list(table) == found["result"]["columns"]
        assert list(table) == ["length", "width, mm", "component", "log_density"]
        gm = GaussianMixture.load("plates.model")
        np.testing.assert_array_equal(
            table["component"], gm.predict(table[["length", "width, mm"]])
        )
        assert call_json(*out)[0] == Exit.CANNOT_WRITE
        assert call_json(*out, "--force")[0] == Exit.FINE

    def test_predict_keeps_other_columns(self, fitted):
        rows_of(0).assign(name="x").iloc[:5].to_csv("named.csv")
        call_json("predict", "plates.model", "named.csv", "--out", "labels.csv", "--proba")
        table = pd.read_csv("labels.csv")
        assert (table["name"] == "x").all()
        np.testing.assert_allclose(table[["component_0", "component_1"]].sum(axis=1), 1)

    def test_predict_overwrites_no_column_of_the_data(self, fitted):
        rows_of(0).assign(component="heavy").iloc[:5].to_csv("weighed.csv", index=False)
        out = ["predict", "plates.model", "weighed.csv", "--out", "weighed labels.csv"]
        found = call(*out)
        assert found.exit_code == Exit.DATA
        assert "'component' of DATA" in found.stderr
        assert "--prefix model_" in found.stderr
        assert not Path("weighed labels.csv").exists()
        assert call_json(*out, "--prefix", "model_")[0] == Exit.FINE
        table = pd.read_csv("weighed labels.csv")
        assert (table["component"] == "heavy").all()
        assert set(table["model_component"]) <= {0, 1}

    def test_score(self, fitted):
        code, found = call_json("score", "plates.model", "plates [a]/plate 0.parquet")
        assert code == Exit.FINE
        gm = GaussianMixture.load("plates.model")
        assert found["result"]["mean_log_likelihood"] == pytest.approx(gm.score(rows_of(0)))

    def test_score_under_a_mixture_alone(self):
        POPULATION.save("population.json")
        columns = ["--columns", "length", "--columns", "width, mm"]
        code, found = call_json("score", "population.json", "plates [a]/plate 0.parquet", *columns)
        assert code == Exit.FINE
        expected = POPULATION.score_samples(rows_of(0).to_numpy()).mean()
        assert found["result"]["mean_log_likelihood"] == pytest.approx(expected)

    @pytest.mark.parametrize("command", ["score", "predict"])
    @pytest.mark.parametrize(
        ("content", "error"),
        [
            (lambda rows: rows.rename(columns={"length": "long"}), "KeyError: .*length"),
            (lambda rows: rows.assign(length=np.nan), "NaN or infinity"),
            (None, "Parquet"),
        ],
        ids=["other columns", "missing values", "no parquet"],
    )
    def test_a_file_that_cannot_be_used(self, fitted, tmp_path, command, content, error):
        rows_of(0).to_parquet(tmp_path / "a.parquet", index=False)
        if content is None:
            (tmp_path / "b.parquet").write_bytes(b"no parquet at all")
        else:
            content(rows_of(1)).to_parquet(tmp_path / "b.parquet", index=False)
        out = ["--out", tmp_path / "labels"] if command == "predict" else []
        found = call(command, "plates.model", tmp_path, *out)
        assert found.exit_code == Exit.DATA
        assert re.search(error, found.stderr)
        assert "'dask-dfmr check' with the same MODEL and DATA" in found.stderr
        if command == "score":
            _, checked = call_json("check", "plates.model", tmp_path)
            verdicts = [row["verdict"] for row in checked["result"]["sources"]]
            assert verdicts[1] == "quarantine"

    def test_explain(self, fitted):
        code, found = call_json("explain", "plates.model")
        assert code == Exit.FINE
        (row,) = found["result"]["partitions"]
        assert (row["partition"], row["kind"]) == (BAD, "unit")
        with_rows = call_json("explain", "plates.model", "plates [a]")[1]["result"]["partitions"]
        assert with_rows[0]["log_likelihood"] < -10
        assert "100 times" in call("explain", "plates.model").stdout

    def test_a_page(self, fitted, tmp_path):
        page = tmp_path / "a page.html"
        code, found = call_json("report", "plates.model", "--out", page, "--title", "May <b>")
        assert (code, found["result"]["n_partitions"]) == (Exit.FINE, N_FILES)
        text = page.read_text(encoding="utf-8")
        assert "May &lt;b&gt;" in text
        assert f"plate {BAD}.parquet" in text
        assert call("report", "plates.model", "--out", page).exit_code == Exit.CANNOT_WRITE
        rows = ["plates [a]", "--out", page, "--force"]
        assert call("report", "plates.model", *rows).exit_code == Exit.FINE

    def test_select(self):
        code, found = call_json("select", "plates [a]", "-k", "1,2", "--seed", 0)
        assert code == Exit.REVIEW
        assert found["result"]["n_components"] == 2
        assert [c["n_components"] for c in found["result"]["candidates"]] == [1, 2]
        assert [e["partition"] for e in found["result"]["excluded"]] == [BAD]

    def test_stress(self):
        options = ["-k", 2, "--attack", "mean", "--rates", "0,0.25", "--compare", "dfmr;mr"]
        code, found = call_json("stress", "plates [a]", *options, "--seed", 0)
        assert code == Exit.FINE
        assert found["result"]["breakdown"] == {"dfmr": None, "mr": 0.25}
        assert "wrong_unit" in call("stress", "--list").stdout


class TestCheck:
    def test_one_verdict_per_file(self, fitted, tmp_path):
        for i in range(3):
            rows_of(10 + i).assign(label="x").to_parquet(tmp_path / f"{i}.parquet")
        (rows_of(13) * 100).to_parquet(tmp_path / "unit.parquet")
        rows_of(14).drop(columns="length").to_parquet(tmp_path / "columns.parquet")
        (tmp_path / "broken.parquet").write_text("no parquet")
        history = tmp_path / "history.jsonl"
        code, found = call_json("check", "plates.model", tmp_path, "--history", history)
        assert code == Exit.REVIEW
        verdicts = {
            Path(s["source"]).stem: (s["verdict"], s["kind"]) for s in found["result"]["sources"]
        }
        assert {verdicts[name][0] for name in "012"} == {"accept"}
        assert verdicts["unit"] == ("quarantine", "unit")
        assert verdicts["columns"] == ("quarantine", "other columns")
        assert verdicts["broken"] == ("quarantine", "failed")
        assert len(history.read_text().splitlines()) == 6
        shown = call("check", "plates.model", tmp_path / "*.parquet")
        assert shown.stdout.startswith("3 accept, 3 quarantine of 6 sources")
        assert "100 times as large" in shown.stdout

    def test_nothing_to_report(self, fitted):
        assert call_json("check", "plates.model", "plates [a]/plate 0.parquet")[0] == Exit.FINE

    def test_values_of_a_column(self, fitted, tmp_path):
        parts = [rows_of(20 + i).assign(day=f"d{i}") for i in range(3)]
        parts[1][["length", "width, mm"]] *= 100
        pd.concat(parts).to_csv(tmp_path / "days.csv", index=False)
        days = tmp_path / "days.csv"
        _, found = call_json("check", "plates.model", days, "--source", "day")
        verdicts = [s["verdict"] for s in found["result"]["sources"]]
        assert verdicts == ["accept", "quarantine", "accept"]


class TestSites:
    """Sites that share no rows, by files alone."""

    def test_two_rounds(self, tmp_path):
        for i in range(5):
            rows = f"plates [a]/plate {i}.parquet"
            out = ["--out", tmp_path / f"{i}.first", "--seed", i]
            code, found = call_json("fit-local", rows, "-k", 2, "--n-init", 3, *out)
            assert (code, found["result"]["outcome"]) == (Exit.FINE, "fitted")
        start = tmp_path / "start.json"
        assert call_json("start", tmp_path / "*.first", "--seed", 0, "--out", start)[0] == 0
        for i in range(5):
            rows = f"plates [a]/plate {i}.parquet"
            options = ["--start", start, "--name", f"site {i}", "--out", tmp_path / f"{i}.json"]
            call_json("fit-local", rows, *options)
        assert LocalEstimate.load(tmp_path / "0.json").source == "site 0"
        start.unlink()
        model = tmp_path / "sites.model"
        code, found = call_json("aggregate", tmp_path / "*.json", "--model", model)
        assert code == Exit.REVIEW
        assert [e["source"] for e in found["result"]["excluded"]] == [f"site {BAD}"]
        assert call_json("score", model, "plates [a]/plate 0.parquet")[0] == Exit.FINE

    def test_no_majority(self, tmp_path):
        for i in range(6):
            mixture = Mixture([1.0], [[10.0 * (i % 2) + 0.01 * i, 0.0]], [np.eye(2)])
            LocalEstimate(mixture, 1000).save(tmp_path / f"{i}.json")
        code, found = call_json("aggregate", tmp_path)
        assert code == Exit.NO_MAJORITY
        assert "NoMajorityWarning" in [w["category"] for w in found["warnings"]]

    def test_a_file_that_is_no_estimate(self, tmp_path):
        (tmp_path / "a.json").write_text("[]")
        code, found = call_json("aggregate", tmp_path)
        assert code == Exit.DATA
        assert "is no estimate" in found["error"]["message"]


class TestExits:
    def test_results(self):
        assert exit_for([], 0) == Exit.FINE
        assert exit_for([], 1) == Exit.REVIEW
        assert exit_for(["FilterWarning"], 0) == Exit.REVIEW
        assert exit_for(["FilterWarning", "NoMajorityWarning"], 3) == Exit.NO_MAJORITY

    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (CommandError(Exit.CANNOT_WRITE, "x"), Exit.CANNOT_WRITE),
            (ClusterError("x"), Exit.UNAVAILABLE),
            (ImportError("x"), Exit.UNAVAILABLE),
            (FileNotFoundError(2, "x", "y"), Exit.NO_INPUT),
            (ValueError("x"), Exit.DATA),
            (KeyboardInterrupt(), Exit.INTERRUPTED),
            (ZeroDivisionError("x"), Exit.INTERNAL),
        ],
    )
    def test_errors(self, error, code):
        assert exit_of(error)[0] == code

    def test_a_result_that_differs_from_its_schema_is_an_error(self):
        with pytest.raises(TypeError, match=r"differ in \['n_partitions'\]"):
            envelope("score", 0, result={"mean_log_likelihood": 1.0})

    def test_plain_values(self):
        values = {"a": np.float64("nan"), "b": np.array([1, 2]), 3: (True, pd.NA, np.int64(4))}
        assert plain(values) == {"a": None, "b": [1, 2], "3": [True, None, 4]}


class TestHelp:
    def test_of_all_commands(self):
        text = call("--help").stdout
        for name, entry in COMMANDS.items():
            assert f"  {name} " in text
            found = call(name, "--help")
            assert found.exit_code == 0
            assert f"dask-dfmr {name} " in found.stdout.partition("Example")[2], "it has an example"
            assert entry.about.endswith(".")

    def test_every_parameter_has_an_option_or_a_reason(self):
        assert set(PARAMETERS) >= WITHOUT_OPTION
        text = call("fit", "--help").stdout
        for name in set(PARAMETERS) - WITHOUT_OPTION - {"random_state", "n_components"}:
            assert f"--{name.replace('_', '-')} " in text

    def test_without_arguments(self):
        assert call().exit_code == Exit.USAGE

    def test_warnings_of_other_packages_are_no_verdict(self, monkeypatch):
        def warned(*args, **more):
            warnings.warn("an old function", FutureWarning, stacklevel=1)
            return 1.0

        monkeypatch.setattr(GaussianMixture, "score", warned)
        POPULATION.save("population 2.json")
        found = call("score", "population 2.json", "plates [a]/plate 0.parquet")
        assert found.exit_code == Exit.FINE
        assert "warning: an old function [FutureWarning]" in found.stderr


class TestProcesses:
    def start(self, *arguments, **options):
        command = [sys.executable, "-m", "dask_dfmr.cli", *map(str, arguments)]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
        )

    def test_a_reader_that_has_gone_changes_no_verdict(self, folder):
        """As with ``| head -1``: files are written, and the exit code is the one of the result."""
        fit = ["fit", "plates [a]", "-k", 1, "--model", "piped.model"]
        with self.start(*fit, cwd=folder) as process:
            process.stdout.close()
            process.stderr.read()
        assert process.returncode == Exit.REVIEW
        assert (folder / "piped.model").exists()

    def test_help_imports_nothing_heavy(self):
        code = (
            "import sys; from dask_dfmr.cli.app import app\n"
            "try: app(['--help'])\n"
            "except SystemExit as end: assert end.code == 0\n"
            "heavy = {'numpy', 'pandas', 'dask', 'distributed', 'sklearn', 'scipy', 'rich', 'numba'}\n"
            "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
        )
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)

    def test_a_pipe(self, fitted):
        """stdout is the object alone."""
        process = self.start("fit", "plates [a]", "-k", 2, "--seed", 0, "--json")
        out, err = process.communicate(timeout=120)
        assert process.returncode == Exit.REVIEW, err
        assert json.loads(out)["result"]["means"] == fitted[1]["result"]["means"]

    def test_a_reader_that_goes_away(self):
        process = self.start("--help", env={**os.environ, "PYTHONUNBUFFERED": "1"})
        process.stdout.close()
        assert process.wait(timeout=60) == Exit.FINE
        assert process.stderr.read() == ""
        process.stderr.close()

    def test_interrupted(self):
        """Ctrl-C ends a fit whose tasks take hours."""
        process = self.start(
            *("fit", "plates [a]", "-k", 2, "--n-init", 10**7),
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        assert process.stderr.readline().startswith("hint: ignored")  # and then it computes
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == Exit.INTERRUPTED
        assert err.splitlines()[-1] == "Error: interrupted."
        assert "Traceback" not in err


class TestPage:
    """What the page about the command line shows is what the commands print."""

    @pytest.mark.slow
    def test_its_commands_print_what_it_shows(self, tmp_path, monkeypatch):
        root = Path(__file__).parent.parent
        monkeypatch.syspath_prepend(str(root / "examples"))
        import cytometry

        cytometry.write_files(tmp_path / "plates")
        monkeypatch.chdir(tmp_path)
        page = (root / "docs" / "how-to" / "command-line.md").read_text(encoding="utf-8")
        blocks = re.findall(r"```console\n(.*?)```", page, re.DOTALL)
        shown = [part for block in blocks for part in re.split(r"^\$ ", block, flags=re.M)[1:]]
        assert len(shown) == 5
        for part in shown:
            line, _, expected = part.partition("\n")
            found = call(*shlex.split(line)[1:], "--quiet")
            assert [*found.stdout.splitlines()] == expected.splitlines(), line
