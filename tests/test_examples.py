from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from dask_dfmr import Mixture

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"

FAR = {"plate-03", "plate-08", "plate-17"}
WITHOUT_ESTIMATE = {"plate-14": "degenerate", "plate-21": "not finite"}


def run_example(name: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """As a user runs it, but from elsewhere; the source tree is used where nothing is installed."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def excluded_from(printed: str) -> dict[str, str]:
    """File -> outcome, from the printed table."""
    table = printed.partition("excluded:\n")[2].partition("\n\n")[0]
    rows = re.findall(r"^  (\S+)  (\S+(?: \S+)*)  ", table, flags=re.MULTILINE)
    return dict(rows)


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cytometry")


@pytest.fixture(scope="module")
def printed(output: Path) -> str:
    done = run_example("cytometry.py", "--output", str(output), cwd=output)
    assert "PartitionWarning: 2 of 25 partitions" in done.stderr
    return done.stdout


@pytest.fixture
def cytometry(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import cytometry

    yield cytometry
    for name in ("cytometry", "cytometry_picture"):
        del sys.modules[name]


def test_cytometry_excludes_exactly_the_damaged_files(printed: str) -> None:
    assert excluded_from(printed) == dict.fromkeys(FAR, "fitted") | WITHOUT_ESTIMATE
    for name in FAR:
        assert re.search(rf"{name}  fitted +\d+\.?\d* times as far from the consensus", printed)


def test_cytometry_prints_the_truth_last(printed: str) -> None:
    listed = printed.partition("what was done to the files\n")[2]
    assert set(re.findall(r"plate-\d\d", listed)) == FAR | WITHOUT_ESTIMATE.keys()


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


@pytest.mark.filterwarnings("ignore::dask_dfmr.PartitionWarning", "ignore::DeprecationWarning")
def test_cytometry_can_be_imported(cytometry: ModuleType, tmp_path: Path) -> None:
    result = cytometry.main(["--output", str(tmp_path), "--picture", str(tmp_path / "p" / "a.png")])
    report = result.report
    assert set(report.loc[~report["kept"], "partition"]) == cytometry.DAMAGED.keys()
    assert (report["p_value"] < 1e-3).sum() == len(FAR)
    assert result.robust_score > result.plain_score + 0.05
    assert result.robust_score == pytest.approx(result.oracle_score, abs=0.01)
    assert result.mixture.n_components == 5
    assert (tmp_path / "p" / "a.png").stat().st_size > 10_000


@pytest.mark.parametrize("shuffle", [None, 7])
def test_cytometry_holds_rows_out(
    cytometry: ModuleType, tmp_path: Path, shuffle: int | None
) -> None:
    held_out = cytometry.write_files(tmp_path, shuffle)
    files = [pd.read_parquet(path) for path in sorted(tmp_path.iterdir())]
    fitted = pd.concat([rows for i, rows in enumerate(files) if i not in cytometry.DAMAGED])
    assert {len(rows) for rows in files} == {820}
    assert len(fitted) == 20 * 820
    assert len(held_out) == 1138
    everything = pd.concat([fitted, held_out])
    measured = cytometry.measured_rows("Mixed")
    assert everything.duplicated().sum() <= measured.duplicated().sum()


def test_cluster(printed: str, tmp_path: Path) -> None:
    done = run_example("cluster.py", "--output", str(tmp_path), cwd=tmp_path)
    assert re.search(r"2 workers; watch them at http://\S+/status", done.stdout)
    assert "100% Completed" in done.stdout
    assert excluded_from(done.stdout) == dict.fromkeys(FAR, "fitted") | WITHOUT_ESTIMATE
    score = re.search(r"(-\d+\.\d+) log-likelihood", done.stdout)
    assert score is not None
    assert f"{score[1]}  robust" in printed  # the same numbers as on local threads


def test_one_bad_sensor(tmp_path: Path) -> None:
    printed = run_example("one_bad_sensor.py", "--output", str(tmp_path), cwd=tmp_path)
    assert printed.stderr == ""  # no warning
    by_file, by_instrument = re.findall(
        r": (\d+) of 20 kept\n((?:  excluded: .*\n)*)", printed.stdout
    )
    assert int(by_file[0]) >= 18  # each is as wrong as the others
    ratios = re.findall(r"instrument='(C\d\d)'  (\S+) times as far", by_instrument[1])
    assert [name for name, _ in ratios] == ["C07"]
    assert float(ratios[0][1]) > 3
    blind, seeing = map(float, re.findall(r"^  (-\d+\.\d+)  ", printed.stdout, re.MULTILINE))
    assert seeing > blind + 0.02
    names = sorted(path.name for path in (tmp_path / "hours").iterdir())
    assert names == [f"hour-{i:02d}.parquet" for i in range(20)]


def test_out_of_core(tmp_path: Path) -> None:
    arguments = ("--rows", "1000000", "--folder", str(tmp_path))
    done = run_example("out_of_core.py", *arguments, cwd=tmp_path)
    assert excluded_from(done.stdout) == {
        "part-0004": "fitted",
        "part-0008": "degenerate",
        "part-0014": "fitted",
        "part-0018": "failed",
    }
    robust, plain = map(float, re.findall(r"^  (\d\S*) +(?:robust|plain)", done.stdout, re.M))
    assert robust < 0.1 < 1 < plain
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_out_of_core_stays_within_the_limit(tmp_path: Path) -> None:
    done = run_example("out_of_core.py", "--folder", str(tmp_path), cwd=tmp_path)
    sizes = {
        name: float(re.search(rf"^{name} +([\d,]+) MB", done.stdout, re.M)[1].replace(",", ""))
        for name in ("data", "memory limit", "peak memory")
    }
    assert sizes["peak memory"] < sizes["memory limit"] < sizes["data"]
