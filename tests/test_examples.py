from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dask_dfmr import Mixture, PartitionWarning

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"

pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword:DeprecationWarning")  # Dask

FAR = {"plate-03", "plate-08", "plate-17"}
WITHOUT_ESTIMATE = {"plate-14": "degenerate", "plate-21": "not finite"}


def run_in_a_process(name: str, *arguments: str, cwd: Path) -> str:
    """As a user runs it, but from elsewhere; the source tree is used where nothing is installed."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module", autouse=True)
def _examples_can_be_imported() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        yield
    for path in EXAMPLES.glob("*.py"):
        sys.modules.pop(path.stem, None)


def run_example(name: str, *arguments: str) -> tuple[Any, str]:
    """What an example returns, and what it prints. ``.ci/run`` runs the first command of the README as a process."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        result = importlib.import_module(name).main(arguments)
    return result, printed.getvalue()


def excluded_from(printed: str) -> dict[str, str]:
    """File -> outcome, from the printed table."""
    table = printed.partition("excluded:\n")[2].partition("\n\n")[0]
    rows = re.findall(r"^  (\S+)  (\S+(?: \S+)*)  ", table, flags=re.MULTILINE)
    return dict(rows)


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cytometry")


@pytest.fixture(scope="module")
def fitted(output: Path) -> tuple[Any, str]:
    with pytest.warns(PartitionWarning, match="2 of 25 partitions"):
        return run_example("cytometry", "--output", str(output))


@pytest.fixture(scope="module")
def printed(fitted: tuple[Any, str]) -> str:
    return fitted[1]


def test_cytometry_excludes_exactly_the_damaged_files(printed: str) -> None:
    assert excluded_from(printed) == dict.fromkeys(FAR, "fitted") | WITHOUT_ESTIMATE
    for name in FAR:
        assert re.search(rf"{name}  fitted +\d+\.?\d* times as far from the consensus", printed)


def test_cytometry_prints_the_truth_last(printed: str) -> None:
    listed = printed.partition("what was done to the files\n")[2]
    assert set(re.findall(r"plate-\d\d", listed)) == FAR | WITHOUT_ESTIMATE.keys()


def test_cytometry_prints_what_its_page_says(printed: str) -> None:
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    shown = page.split("```text\n")[1].split("\n```")[0].splitlines()
    found = printed.splitlines()[1 : len(shown) - 2]  # without the names of the folder
    texts = ["\n".join(lines) for lines in (shown[1:-2], found)]
    number = r"\d+\.?\d*"
    masked = [re.sub(number, "", text) for text in texts]
    assert masked[0] == masked[1]
    # Another processor adds in another order.
    on_page, now = ([float(n) for n in re.findall(number, text)] for text in texts)
    np.testing.assert_allclose(on_page, now, rtol=0.02)


def test_cytometry_robust_beats_plain(printed: str) -> None:
    robust, plain, oracle = map(float, re.findall(r"^  (-\d+\.\d+)  ", printed, re.MULTILINE))
    assert robust > plain + 0.05
    assert abs(robust - oracle) < 0.01


def test_cytometry_file_names_show_nothing(printed: str, output: Path) -> None:
    files = sorted(path.name for path in (output / "plates").iterdir())
    assert files == [f"plate-{i:02d}.parquet" for i in range(25)]


def test_cytometry_saves_picture_and_mixture(printed: str, output: Path) -> None:
    image = pytest.importorskip("matplotlib.image")
    pixels = image.imread(output / "cytometry.png")[..., :3]
    assert pixels.shape == (700, 1600, 3)
    for panel in np.array_split(pixels, 3, axis=1):
        assert 0.01 < (panel < 0.9).any(axis=-1).mean() < 0.5
    mixture = Mixture.load(output / "cytometry-mixture.json")
    assert mixture.feature_names == ("FSC-A", "SSC-A", "V2-A", "Y2-A", "B1-A")
    assert json.loads((output / "cytometry-mixture.json").read_text())["version"] == 1


def test_cytometry_returns_what_it_prints(fitted: tuple[Any, str]) -> None:
    result, _ = fitted
    report = result.report
    damaged = importlib.import_module("cytometry").DAMAGED
    assert set(report.loc[~report["kept"], "partition"]) == damaged.keys()
    assert (report["p_value"] < 1e-3).sum() == len(FAR)
    assert result.robust_score > result.plain_score + 0.05
    assert result.robust_score == pytest.approx(result.oracle_score, abs=0.01)
    assert result.mixture.n_components == 5


@pytest.mark.parametrize("shuffle", [None, 7])
def test_cytometry_holds_rows_out(tmp_path: Path, shuffle: int | None) -> None:
    cytometry = importlib.import_module("cytometry")
    held_out = cytometry.write_files(tmp_path, shuffle)
    files = [pd.read_parquet(path) for path in sorted(tmp_path.iterdir())]
    fitted = pd.concat([rows for i, rows in enumerate(files) if i not in cytometry.DAMAGED])
    assert {len(rows) for rows in files} == {820}
    assert len(fitted) == 20 * 820
    assert len(held_out) == 1138
    everything = pd.concat([fitted, held_out])
    measured = cytometry.measured_rows("Mixed")
    assert everything.duplicated().sum() <= measured.duplicated().sum()


@pytest.mark.filterwarnings("ignore::dask_dfmr.PartitionWarning", "ignore:Port 8787 is already")
def test_cluster(printed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, found = run_example("cluster", "--output", str(tmp_path))
    assert re.search(r"2 workers; watch them at http://\S+/status", found)
    assert "20 of 25 partitions kept" in capsys.readouterr().err
    assert excluded_from(found) == dict.fromkeys(FAR, "fitted") | WITHOUT_ESTIMATE
    score = re.search(r"(-\d+\.\d+) log-likelihood", found)
    assert score is not None
    assert f"{score[1]}  robust" in printed  # the same numbers as on local threads


def test_one_bad_sensor(tmp_path: Path) -> None:
    _, printed = run_example("one_bad_sensor", "--output", str(tmp_path))  # without a warning
    by_file, by_instrument = re.findall(r": (\d+) of 20 kept\n((?:  excluded: .*\n)*)", printed)
    assert int(by_file[0]) >= 18  # each is as wrong as the others
    ratios = re.findall(r"instrument='(C\d\d)'  (\S+) times as far", by_instrument[1])
    assert [name for name, _ in ratios] == ["C07"]
    assert float(ratios[0][1]) > 3
    blind, seeing = map(float, re.findall(r"^  (-\d+\.\d+)  ", printed, re.MULTILINE))
    assert seeing > blind + 0.02
    names = sorted(path.name for path in (tmp_path / "hours").iterdir())
    assert names == [f"hour-{i:02d}.parquet" for i in range(20)]


def test_out_of_core(tmp_path: Path) -> None:
    arguments = ("--rows", "500000", "--folder", str(tmp_path))
    printed = run_in_a_process("out_of_core.py", *arguments, cwd=tmp_path)
    assert excluded_from(printed) == {
        "part-0002": "fitted",
        "part-0004": "degenerate",
        "part-0007": "fitted",
        "part-0009": "failed",
    }
    robust, plain = map(float, re.findall(r"^  (\d\S*) +(?:robust|plain)", printed, re.M))
    assert robust < 0.1 < 1 < plain
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_out_of_core_stays_within_the_limit(tmp_path: Path) -> None:
    printed = run_in_a_process("out_of_core.py", "--folder", str(tmp_path), cwd=tmp_path)
    sizes = {
        name: float(re.search(rf"^{name} +([\d,]+) MB", printed, re.M)[1].replace(",", ""))
        for name in ("data", "memory limit", "peak memory")
    }
    assert sizes["peak memory"] < sizes["memory limit"] < sizes["data"]
