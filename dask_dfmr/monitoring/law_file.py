"""The law of rows in the file of a model: a few arrays, checked when they are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple
from typing import Any

import numpy as np

from dask_dfmr.mixtures.family import Array
from dask_dfmr.mixtures.gaussian import Mixture
from dask_dfmr.mixtures.information import Information
from dask_dfmr.monitoring.heterogeneity import Heterogeneity
from dask_dfmr.monitoring.row_law import Level, RowLaw
from dask_dfmr.refinement.score_test import RowScores

N_MOMENTS = len(RowScores.__dataclass_fields__)
"""Numbers of a :class:`RowScores`."""


def put_row_law(law: RowLaw) -> tuple[dict[str, Any], dict[str, Any]]:
    """The entry of a law in the document of a file, and its arrays by name."""
    arrays: dict[str, Any] = {
        "rows/least": np.array([one.n_rows for one in law.levels]),
        "rows/caps": np.array([one.cap for one in law.levels]),
        "rows/means": np.array([one.mean for one in law.levels]),
        "rows/moments": np.array([astuple(one.row_scores) for one in law.levels]),
        "rows/lowest": law.lowest,
    }
    if law.about.root is not None:
        arrays["rows/root"] = law.about.root
    between = list(law.between)
    return {"n_sampled": law.n_sampled, "n_rows": law.n_rows, "between": between}, arrays


def get_row_law(given: Mapping[str, Any], arrays: Mapping[str, Array], mixture: Mixture) -> RowLaw:
    """The law that :func:`put_row_law` put into a file; it is always one of rows of a fit.

    Raises
    ------
    ValueError
        If an array has another shape or type, or a number is out of range.
    """
    point = (mixture.weights, mixture.components)
    normal = np.zeros(len(mixture.family.coordinates(*point, point)))
    normal[: mixture.n_components] = np.sqrt(mixture.weights)
    n, p = len(arrays["rows/least"]), len(normal)
    shapes = {"least": (n,), "caps": (n,), "means": (n, p), "moments": (n, N_MOMENTS)}
    found = {name: _array(arrays, name, shape) for name, shape in shapes.items()}
    lowest = _array(arrays, "lowest", arrays["rows/lowest"].shape[:1])
    root = _array(arrays, "root", (p, p)) if "rows/root" in arrays else None
    n_sampled, n_rows = given["n_sampled"], given["n_rows"]
    is_count = isinstance(n_sampled, int) and not isinstance(n_sampled, bool)
    if not is_count or not isinstance(n_rows, (int, float)) or min(n_sampled, n_rows) < 1:
        raise ValueError(f"the law of the rows must be of at least one row; got {n_sampled!r:.50}.")
    is_ordered = (np.diff(found["least"]) > 0).all() and (np.diff(lowest) >= 0).all()
    is_positive = (found["caps"] > 0).all() and (found["moments"][:, [0, 1, 3]] > 0).all()
    has_root = root is None or (np.diagonal(root) != 0).all()
    if not (n and len(lowest) and is_ordered and is_positive and has_root):
        raise ValueError(
            "the law of the rows is none: its numbers are not positive, or not sorted."
        )
    between = Heterogeneity(*map(float, given["between"]))
    if not all(1.0 <= number < np.inf for number in between):
        raise ValueError(f"the differences between partitions must be at least 1; got {between}.")
    levels = tuple(
        Level(int(least), float(cap), mean, RowScores(*moments.tolist()))
        for least, cap, mean, moments in zip(*found.values(), strict=True)
    )
    about = Information(*point, root, normal)
    return RowLaw(mixture, about, levels, lowest, n_sampled, float(n_rows), True, between)


def _array(arrays: Mapping[str, Array], name: str, shape: tuple[int, ...]) -> Array:
    array = arrays[f"rows/{name}"]
    if array.shape != shape or array.dtype.kind not in "fi" or not np.isfinite(array).all():
        raise ValueError(f"rows/{name} must have the shape {shape} and finite numbers.")
    return array
