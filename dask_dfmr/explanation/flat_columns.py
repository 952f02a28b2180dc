"""The warning for partitions that were excluded where a column is constant in their rows, but not in those of others.

With ``reg_covar`` such a partition is fitted: a category may be rare, and missing there by chance. The filter compares
Gaussians, in which a spread of ``reg_covar`` alone is far from that of the others. So the exclusion says little about
the rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dask_dfmr.aggregation.reasons import listed
from dask_dfmr.aggregation.result import Note
from dask_dfmr.exceptions import HeterogeneityWarning
from dask_dfmr.local.fit import FITTED_BY_FLOOR, column_labels
from dask_dfmr.mixtures.family import Array
from dask_dfmr.mixtures.gaussian import Mixture

SAFE_SPREAD = 3.0
"""The advised ``reg_covar`` over the variance of the widest of the columns. Measured on one-hot columns of a category
with a share of .3 %, 10 partitions of 400 rows (tests/test_reg_covar.py): 1 does not keep all of them, 3 does."""


def note_on_flat_columns(
    rows: Sequence[Mapping[str, Any]], kept: NDArray[np.bool_], mixture: Mixture
) -> Note | None:
    """The warning, or None if no partition is excluded that only ``reg_covar`` made possible to fit.

    Parameters
    ----------
    rows : sequence of mapping
        The local fits of the report, without their mixtures.
    kept : ndarray of bool, shape (n_partitions,)
    mixture : Mixture
        The global mixture.
    """
    is_flat = np.array([FITTED_BY_FLOOR in row["reason"] for row in rows])
    excluded = np.flatnonzero(is_flat & ~kept)
    if not excluded.size or 2 * is_flat[kept].sum() >= kept.sum():
        return None
    labels = column_labels(mixture.feature_names, mixture.n_features)
    text = " ".join(rows[i]["reason"] for i in excluded.tolist())
    flat = [j for j, label in enumerate(labels) if re.search(rf"{re.escape(label)}(?!\d)", text)]
    advised = SAFE_SPREAD * _variances(mixture)[flat].max()
    who = (
        f"partition {excluded[0]} is"
        if len(excluded) == 1
        else f"partitions {listed(excluded.tolist())} are"
    )
    return Note(
        HeterogeneityWarning,
        f"{who} excluded, and in their rows, unlike in those of the kept ones, {', '.join(labels[j] for j in flat)} "
        "varies in no way of its own. Either it is wrong there, or a rare category is missing by chance: then "
        f"reg_covar={advised:.1g} makes such partitions alike, or shuffle the rows.",
    )


def _variances(mixture: Mixture) -> Array:
    """Variances (n_features,) of the columns under a mixture."""
    draws, _ = mixture.sample(10_000, 0)
    return np.asarray(draws.var(axis=0))
