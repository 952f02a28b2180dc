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
from dask_dfmr.mixtures.degeneracy import ALL_COLUMNS
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
    flat = {
        i: _flat_columns(rows[i]["reason"].partition(FITTED_BY_FLOOR)[0], labels)
        for i in excluded.tolist()
    }
    whole = [i for i, columns in flat.items() if len(columns) == len(labels)]
    in_part = [i for i in flat if i not in whole]
    sentences = [_on_whole(whole)] if whole else []
    if in_part:
        columns = sorted({j for i in in_part for j in flat[i]})
        sentences.append(_on_some(in_part, columns, labels, _variances(mixture)))
    return Note(HeterogeneityWarning, " ".join(sentences))


def constant_columns(reason: str, labels: Sequence[str]) -> list[int]:
    """The columns that its reason calls constant in the rows of an estimate: their spread is ``reg_covar``."""
    text, floor, _ = reason.partition(FITTED_BY_FLOOR)
    return _flat_columns(text, labels) if floor and " constant" in text else []


def _flat_columns(reason: str, labels: Sequence[str]) -> list[int]:
    """The columns that a reason names."""
    if reason.startswith(ALL_COLUMNS):
        return list(range(len(labels)))
    return [j for j, label in enumerate(labels) if re.search(rf"{re.escape(label)}(?!\d)", reason)]


def _on_whole(partitions: Sequence[int]) -> str:
    """Of partitions in which nothing varies, no parameter makes more."""
    who, _, its = _who(partitions)
    return f"{who} excluded: no column varies in {its} rows. Check where they come from."


def _on_some(
    partitions: Sequence[int], columns: Sequence[int], labels: Sequence[str], variances: Array
) -> str:
    """Of partitions in which some columns do not vary, and those of others do."""
    who, such, its = _who(partitions)
    advised = SAFE_SPREAD * variances[columns].max()
    others = np.delete(variances, columns)
    # More than a column varies by itself would hide what it says.
    is_safe = bool(others.size) and advised < others.min()
    remedy = (
        f"reg_covar={advised:.1g} makes {such} alike, or shuffle the rows"
        if is_safe
        else "shuffle the rows"
    )
    verb, own, wrong = "varies in no way", "its own", "it is"
    if len(columns) > 1:
        verb, own, wrong = "vary in no way", "their own", "they are"
    return (
        f"{who} excluded, and in {its} rows, unlike in those of the kept ones, {', '.join(labels[j] for j in columns)} "
        f"{verb} of {own}. Either {wrong} wrong there, or a rare category is missing by chance: then {remedy}."
    )


def _who(partitions: Sequence[int]) -> tuple[str, str, str]:
    """Partitions as a subject with its verb, as an object, and as owners."""
    if len(partitions) == 1:
        return f"partition {partitions[0]} is", "such a partition", "its"
    return f"partitions {listed(partitions)} are", "such partitions", "their"


def _variances(mixture: Mixture) -> Array:
    """Variances (n_features,) of the columns under a mixture."""
    draws, _ = mixture.sample(10_000, 0)
    return np.asarray(draws.var(axis=0))
