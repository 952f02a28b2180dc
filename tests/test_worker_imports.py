"""What a process that computes the tasks of a fit imports: arrays, frames and Dask, and no library for rare paths."""

from __future__ import annotations

import os
import subprocess
import sys

import cloudpickle
import dask
import pytest
from data_makers import make_array

from dask_dfmr import GaussianMixture, dfmr

HEAVY = ("sklearn", "scipy.stats", "narwhals", "distributed", "rich", "matplotlib", "numba")
"""Libraries that a worker does without. numba is the other engine."""

COMPUTE = """
import pickle, sys
import dask
graph, key, heavy = pickle.load(sys.stdin.buffer)
found = dask.get(graph, key)
print(len(found.decision.kept), *(name for name in heavy if name in sys.modules))
"""


@pytest.fixture(scope="module")
def said() -> list[str]:
    """The words that a fresh process prints after pilots, local fits and the aggregation of four partitions."""
    lazy = dfmr(GaussianMixture(2, random_state=0), make_array(4))
    graph = dict(dask.optimize(lazy)[0].__dask_graph__())
    answer = subprocess.run(
        [sys.executable, "-c", COMPUTE],
        input=cloudpickle.dumps((graph, lazy.key, HEAVY)),
        env=os.environ | {"DASK_DFMR_ENGINE": "numpy"},
        capture_output=True,
        check=False,
    )
    assert not answer.returncode, answer.stderr.decode()
    return answer.stdout.decode().split()


def test_a_worker_can_fit(said):
    assert said[0] == "4"


def test_a_worker_needs_no_library_for_rare_paths(said):
    assert not said[1:]
