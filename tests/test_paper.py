"""Small versions of ``benchmarks/paper``: what it draws, that a killed grid goes on, and that its commands run."""

import importlib
import json
import os
import signal

import dask
import distributed
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from dask_dfmr import mixing_distance
from tests.benchmark_scripts import benchmark_script
from tests.conftest import local_cluster

pytestmark = pytest.mark.usefixtures("coarse_laws")

TINY = ["--components", "2", "--features", "2", "--overlaps", "0.1"]
GRID = [*TINY, "--sizes", "10x4000", "10x8000", "--pilot-sizes", "10x4000", "--rates", "0.4"]
GRID += ["--seeds", "2", "--extra-seeds", "1", "--workers", "1"]


@pytest.fixture(scope="module")
def paper():
    """The modules of ``benchmarks/paper`` by name."""
    with benchmark_script("paper") as package:
        names = ("populations", "grid", "images", "simulation", "separation", "digits")
        for name in names:
            importlib.import_module(f"paper.{name}")
        yield package


@pytest.fixture(scope="module")
def simulation(paper):
    return paper.simulation


@pytest.fixture(scope="module")
def truth(paper):
    return paper.populations.draw_population(*cell_of(paper.simulation, 100).population)


def cell_of(simulation, n_rows, m=10, seed=0, start="truth"):
    return simulation.Cell(0.1, m, n_rows, start, seed, 2, 2)


class TestPopulations:
    def test_fewer_rows_are_the_first_of_more(self, paper, simulation, truth):
        few, many = (
            np.concatenate(paper.populations.draw_machines(cell_of(simulation, n, m), truth))
            for n, m in ((3000, 10), (12_000, 6))
        )
        assert few.shape == (3000, 2)
        assert many.shape == (12_000, 2)
        assert_array_equal(few, many[:3000])

    def test_rows_are_those_of_the_population(self, paper, simulation, truth):
        rows, labels = paper.populations.held_out(cell_of(simulation, 100), truth)
        for k in range(2):
            of_one = rows[labels == k]
            assert_allclose(len(of_one) / len(rows), truth.weights[k], atol=0.03)
            spread = np.sqrt(np.diagonal(truth.covariances[k]))
            assert np.all(np.abs(of_one.mean(axis=0) - truth.means[k]) < 5 * spread / 45)
            assert_allclose(np.cov(of_one.T), truth.covariances[k], atol=0.1 * spread.max() ** 2)

    def test_seeds_and_held_out_rows_share_nothing(self, paper, simulation, truth):
        one, other = (
            paper.populations.draw_block(cell_of(simulation, 100, seed=seed), truth, 0).rows
            for seed in (0, 1)
        )
        test = paper.populations.held_out(cell_of(simulation, 100), truth).rows
        assert not np.isin(one, other).any()
        assert not np.isin(one, test).any()


# -- the grid ------------------------------------------------------------------------------------


def without_seconds(path):
    return [line | {"seconds": None} for line in json.loads(path.read_text())["lines"]]


def test_a_grid_that_was_killed_goes_on(paper, simulation, tmp_path, capsys):
    folder = tmp_path / "results"
    jobs = simulation.design(simulation.parse([*GRID, "--results", str(folder)]))
    with local_cluster(1) as cluster, distributed.Client(cluster) as client:
        files = paper.grid.run_grid(client, jobs, folder)
        next(files)
        (pid,) = client.run(os.getpid).values()
        os.kill(pid, signal.SIGKILL)
        files.close()
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.json")}
    assert 0 < len(before) < len(jobs) == 6

    simulation.main([*GRID, "--results", str(folder), "--pictures", str(tmp_path / "pictures")])
    assert len(list(folder.glob("*.json"))) == len(jobs)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 4
    printed = capsys.readouterr().out
    assert "W1 over the oracle's" in printed
    assert "Slope of log W1 on log N" in printed

    # What the cluster computed before and after the kill is what one thread computes.
    cell = cell_of(simulation, 4000, start="pilots")
    again = tmp_path / "again"
    again.mkdir()
    with dask.config.set(scheduler="synchronous"):
        (path,) = dask.compute(paper.grid.lazy_grid({cell: jobs[cell]}, again)[0])
    assert without_seconds(path) == without_seconds(folder / path.name)


def test_a_grid_that_is_done_has_no_tasks(paper, simulation, tmp_path):
    jobs = simulation.design(simulation.parse([*GRID, "--results", str(tmp_path)]))
    assert len(paper.grid.lazy_grid(jobs, tmp_path)) == len(jobs)
    for cell in jobs:
        paper.grid.file_of(tmp_path, cell).touch()
    assert paper.grid.lazy_grid(jobs, tmp_path) == []


# -- the other experiments -----------------------------------------------------------------------


class TestSeparation:
    def test_means_move_by_the_distance(self, paper, truth):
        at = paper.separation.moved(truth, 12.0, 900, np.random.default_rng(0))
        v = truth.family.coordinates(at.weights, at.components, (truth.weights, truth.components))
        assert_allclose(np.linalg.norm(v), 12.0 / 30.0, rtol=1e-6)
        same = paper.separation.moved(truth, 0.0, 900, np.random.default_rng(0))
        assert mixing_distance(same, truth) == 0

    def test_far_machines_are_excluded_and_near_ones_kept(self, paper, tmp_path, capsys):
        options = ["--machines", "10", "--rows", "500", "--seeds", "1", "--distances", "0", "200"]
        paper.separation.main([*TINY, *options, "--pictures", str(tmp_path)])
        near, far = capsys.readouterr().out.splitlines()[-3:-1]
        assert near.split("|")[3].strip().endswith(", 0% / 0.0%")
        assert far.split("|")[3].strip().endswith("1.00, 100% / 0.0%")
        assert (tmp_path / "paper-separation.png").exists()


class TestDigits:
    @pytest.mark.parametrize("kind", ["letters", "inverted", "shifted"])
    def test_other_images_have_the_scale_of_digits(self, paper, kind):
        digits = paper.images.of_sklearn()
        some = digits.images[:20]
        other = paper.images.OTHERS[kind](some, digits.white, np.random.default_rng(0))
        assert other.shape == some.shape
        assert 0 <= other.min() < 0.2 * digits.white
        assert 0.5 * digits.white < other.max() <= digits.white
        assert not np.array_equal(other, some)

    def test_letters_in_the_pixels_of_mnist(self, paper):
        drawn = paper.images.letters(np.zeros((3, 28, 28)), 255.0, np.random.default_rng(0))
        assert drawn.shape == (3, 28, 28)
        assert 0.05 < (drawn > 128).mean() < 0.5

    def test_partitions_of_shuffled_columns_are_excluded(self, paper, capsys):
        options = ["--only", "scikit-learn", "--kinds", "columns shuffled", "--rates", "0.3"]
        paper.digits.main([*options, "--draws", "1"])
        printed = capsys.readouterr().out
        assert "columns shuffled" in printed
        assert "What `explain` finds" in printed
