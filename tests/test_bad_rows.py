"""What the benchmarks of bad rows share: the share of bad rows, the published generator, and other methods."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from tests.benchmark_scripts import benchmark_script
from tests.strategies import random_mixture


@pytest.fixture(scope="module")
def bad_rows():
    with benchmark_script("bad_rows") as script:
        yield script


def test_a_share_of_the_rows_becomes_bad(bad_rows):
    mixture, rng = random_mixture(0), np.random.default_rng(0)
    rows, _ = mixture.sample(2000, 0)
    for kind in bad_rows.KINDS:
        for share in bad_rows.SHARES:
            bad = bad_rows.spoil(kind, rows, share, random_mixture(1), rng)
            n_good = len(rows) - round(share * len(rows))
            assert_array_equal(bad[:n_good], bad_rows.without_last(rows, share))
            assert (bad[n_good:] != rows[n_good:]).any(axis=1).all()


def test_clusters_of_the_published_generator(bad_rows):
    """Type 2: a long cluster, a long one across it, and a round one, however they are turned."""
    mixture, half_width = bad_rows.tclust_population(2, angle=0.7)
    values = np.linalg.eigvalsh(mixture.covariances[:, :2, :2])
    assert_allclose(values, [[1, 81], [1, 81], [9, 9]])
    assert_allclose(
        mixture.covariances[0, :2, :2] @ mixture.covariances[1, :2, :2], 81 * np.eye(2), atol=1e-9
    )
    assert half_width == 50


@pytest.mark.parametrize("name", ["noise component", "trimming", "t mixture"])
def test_other_methods_find_clean_clusters(name):
    mixture = random_mixture(2, 2, 2, spread=5.0)
    rows, _ = mixture.sample(1500, 0)
    with benchmark_script("rivals") as rivals:
        found = rivals.fit_rival(name, rows, 2, 0.0, 0).align_to(mixture)
    assert_allclose(found.means, mixture.means, atol=0.2)
    assert_allclose(found.covariances, mixture.covariances, atol=0.4)
