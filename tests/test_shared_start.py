"""Federated use: a robust start from several sites' own estimates, and the page about it with files and processes."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dask_dfmr import LocalEstimate, Mixture, NoMajorityWarning, fit_local, shared_start

PAGE = Path(__file__).parent.parent / "docs" / "how-to" / "estimates-from-elsewhere.md"
TRUTH = Mixture([0.5, 0.3, 0.2], [[0, 0], [4, 0], [0, 5]], [np.eye(2)] * 3)


def site(i, n_init=5, change=lambda rows: rows):
    rows = change(TRUTH.sample(800, random_state=i)[0])
    return fit_local(rows, 3, n_init=n_init, random_state=i)


@pytest.fixture(scope="module")
def good():
    return [site(i) for i in range(5)]


def is_near_truth(start):
    """Whether a fit from this start ends at the truth; the start itself need not be precise."""
    found = fit_local(TRUTH.sample(3000, random_state=99)[0], 3, start=start).mixture
    return np.allclose(found.align_to(TRUTH).means, TRUTH.means, atol=0.3)


class TestStart:
    def test_it_is_that_of_the_sites(self, good):
        start = shared_start(good, random_state=0)
        assert is_near_truth(start)
        assert (np.diff(start.weights) <= 0).all()
        assert start == shared_start(good, random_state=0)

    @pytest.mark.parametrize(
        "change",
        [
            lambda rows: 1000 * rows,
            lambda rows: rows[:, ::-1],
            lambda rows: rows + 3,
            lambda rows: np.random.default_rng(0).normal(size=rows.shape),
        ],
    )
    def test_a_minority_of_bad_sites_does_not_change_it(self, good, change):
        bad = [site(10 + i, change=change) for i in range(2)]
        assert is_near_truth(shared_start([*bad, *good[:3]], random_state=0))

    def test_a_minority_in_another_optimum_does_not_change_it(self, good):
        """Two components share a cluster, and one covers two."""
        other = Mixture(
            [0.25, 0.25, 0.5], [[0, 0.3], [0, -0.3], [2.4, 2]], [np.eye(2)] * 2 + [5 * np.eye(2)]
        )
        assert is_near_truth(shared_start([LocalEstimate(other, 800)] * 2 + good[:3]))

    def test_estimates_that_cannot_be_compared_are_not_used(self, good):
        other = [
            LocalEstimate(None, 3, "too few rows", "why"),
            LocalEstimate(Mixture([1.0], [[0.0]], [[[1.0]]]), 5),
        ]
        start = shared_start([*other, *good], random_state=0)
        assert start == shared_start(good, random_state=0)

    def test_no_majority(self, good):
        bad = [site(20 + i, change=lambda rows, i=i: rows * 10.0**i) for i in (1, 2, 3)]
        with pytest.warns(NoMajorityWarning, match="suits 2 of 5 estimates"):
            shared_start([*bad, *good[:2]], random_state=0)

    def test_names_of_columns_stay(self):
        m = Mixture([1.0], [[0.0]], [[[1.0]]], feature_names=["speed"])
        assert shared_start([LocalEstimate(m, 5)]).feature_names == ("speed",)

    def test_nothing_to_start_from(self):
        with pytest.raises(ValueError, match="at least one with a mixture; got 0"):
            shared_start([])
        with pytest.raises(ValueError, match="why it failed"):
            shared_start([LocalEstimate(None, 3, "failed", "why it failed")])
        with pytest.raises(TypeError, match=r"LocalEstimate\.load"):
            shared_start(["site.json"])


def blocks_of(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_the_page_with_a_process_for_every_step(tmp_path):
    """The functions of the page, each run in a process of its own at its own site."""
    *blocks, last = blocks_of(PAGE, "python")
    (tmp_path / "data.py").write_text(blocks[0])
    kept = (ast.Import, ast.ImportFrom, ast.FunctionDef)
    steps = [node for block in blocks for node in ast.parse(block).body if isinstance(node, kept)]
    (tmp_path / "steps.py").write_text("\n".join(map(ast.unparse, steps)))
    (tmp_path / "use.py").write_text("from steps import *\n" + last)

    def run(*sources):
        started = [
            subprocess.Popen([sys.executable, "-c", source], cwd=tmp_path, stdout=subprocess.PIPE)
            for source in sources
        ]
        printed = [process.communicate()[0].decode() for process in started]
        assert not any(process.returncode for process in started)
        return printed[-1]

    sites = ["oslo", "lima", "kyoto", "quito", "malmo"]
    run("import data")
    run(*(f"import steps; steps.first_fit({name!r})" for name in sites))
    run(f"import steps; steps.make_start({sites})")
    run(*(f"import steps; steps.fit_site({name!r})" for name in sites))
    run(f"import steps; steps.combine({sites})")
    printed = run("import use")
    (expected,) = blocks_of(PAGE, "text")
    assert printed.split() == expected.split()
