"""Attacks on rows, before anything is fitted to them: what happens to files and sensors."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dask_dfmr import checks
from dask_dfmr.attacks.catalogue import Attack, enter, find
from dask_dfmr.mixtures.family import Array
from dask_dfmr.seeds import ATTACK_OWN, ATTACK_SHARED, SeedLike, seed_sequence, stream

Rng = np.random.Generator
"""The type of the generators that an attack on rows draws from."""

ROW_ORIGIN = "this project: what happens to files and sensors"
"""Origin of all attacks in this module."""

PLACEHOLDER = -999.0
"""Value that files often hold in place of a missing one."""


def corrupt_rows(
    rows: Any,
    attack: str | Attack,
    *,
    strength: float | None = None,
    columns: Sequence[Hashable] | None = None,
    random_state: SeedLike = None,
    partition: int = 0,
) -> Any:
    """Corrupt the rows of one bad source.

    Parameters
    ----------
    rows : pandas DataFrame or ndarray of shape (n_samples, n_features)
    attack : str or Attack
        A name in ``ATTACKS`` of the kind "rows".
    strength : float, optional
        The attack's own by default.
    columns : sequence, optional
        Columns that may be corrupted (positions, for an array); all numerical ones by default.
    random_state : int, RandomState, Generator, SeedSequence or None, default None
    partition : int, default 0
        Index of the partition; with the seed it determines the draws of its own.

    Returns
    -------
    DataFrame or ndarray
        Of the type of ``rows``, with the same columns and dtypes: values are rounded and clipped to integers.
        ``rows`` itself is not changed.

    Raises
    ------
    TypeError
        If the rows are neither a frame nor an array.
    ValueError
        If there is no such attack, or there are not the columns that it needs.

    Examples
    --------
    >>> import numpy as np
    >>> from dask_dfmr import attacks
    >>> attacks.corrupt_rows(np.array([[1.0, 2.0], [3.0, 4.0]]), "swapped_columns")
    array([[2., 1.],
           [4., 3.]])
    """
    found = find(attack, ("rows",))
    level = found.strength if strength is None else strength
    checks.number("strength", level)
    seed = seed_sequence(random_state)
    shared = np.random.default_rng(stream(seed, ATTACK_SHARED))
    own = np.random.default_rng(stream(seed, ATTACK_OWN, partition))

    def change(values: Array) -> Array:
        return found.effect(values, float(level), shared, own)

    if isinstance(rows, pd.DataFrame):
        return _changed_frame(rows, columns, change)
    if isinstance(rows, np.ndarray) and rows.ndim == 2:
        return _changed_array(rows, columns, change)
    raise TypeError(
        f"rows must be a pandas DataFrame or an array (n_samples, n_features); got {type(rows).__name__}."
    )


Change = Callable[[Array], Array]
"""Values of some columns -> those of an attack. It may remove the last rows, but never adds any."""


def _changed_frame(
    frame: pd.DataFrame, columns: Sequence[Hashable] | None, change: Change
) -> pd.DataFrame:
    numerical = frame.select_dtypes("number").columns
    names = list(numerical if columns is None else columns)
    absent = [name for name in names if name not in frame.columns]
    if absent:
        raise ValueError(f"columns must be columns of the rows; got {absent}, which are not.")
    values = change(frame[names].to_numpy(np.float64, copy=True))
    changed = frame.iloc[: len(values)].copy()
    for name, column in zip(names, values.T, strict=True):
        changed[name] = _as_before(column, frame[name].dtype)
    return changed


def _changed_array(array: Any, columns: Sequence[Hashable] | None, change: Change) -> Any:
    where = np.arange(array.shape[1]) if columns is None else np.array(columns, dtype=np.intp)
    values = change(array[:, where].astype(np.float64))
    changed = array[: len(values)].copy()
    changed[:, where] = _as_before(values, array.dtype)
    return changed


def _as_before(values: Array, dtype: Any) -> Any:
    """Values in the dtype of the column that they replace, one of NumPy or pandas."""
    if dtype.kind in "iu":
        ends = np.iinfo(f"{dtype.kind}{dtype.itemsize}")
        # The largest 64-bit integer is not a float; the next float below it fits.
        high = np.nextafter(float(ends.max), 0.0) if dtype.itemsize == 8 else float(ends.max)
        values = np.clip(np.rint(values), float(ends.min), high)
    if not isinstance(dtype, np.dtype):
        return pd.array(values, dtype=dtype)
    with np.errstate(over="ignore"):  # values too large for float32 become infinite
        return values.astype(dtype)


def _need_columns(rows: Array, least: int, name: str) -> None:
    if rows.shape[1] < least:
        raise ValueError(
            f"attack {name!r} needs at least {least} numerical columns; got {rows.shape[1]}."
        )


def _column(rows: Array, rng: Rng, name: str) -> int:
    _need_columns(rows, 1, name)
    return int(rng.integers(rows.shape[1]))


@enter(
    "wrong_unit",
    "rows",
    strength=1000.0,
    grid=(1.05, 1.2, 2.0, 10.0, 1000.0),
    unit="factor of the column",
    knows="nothing",
    source=ROW_ORIGIN,
)
def wrong_unit(rows: Array, strength: float, shared: Rng, own: Rng) -> Array:
    """One column, drawn by each source, is multiplied by the strength: grams for kilograms."""
    rows[:, _column(rows, own, "wrong_unit")] *= strength
    return rows


@enter("swapped_columns", "rows", knows="nothing", source=ROW_ORIGIN)
def swapped_columns(rows: Array, strength: float, shared: Rng, own: Rng) -> Array:
    """Two columns, drawn by each source, have each other's values."""
    _need_columns(rows, 2, "swapped_columns")
    a, b = own.choice(rows.shape[1], size=2, replace=False)
    rows[:, [a, b]] = rows[:, [b, a]]
    return rows


@enter(
    "placeholder",
    "rows",
    strength=0.1,
    grid=(0.005, 0.02, 0.1, 0.5),
    unit="share of the rows",
    knows="nothing",
    source=ROW_ORIGIN,
)
def placeholder(rows: Array, strength: float, shared: Rng, own: Rng) -> Array:
    """In one column, drawn by each source, a share of the rows has -999."""
    column = _column(rows, own, "placeholder")
    rows[own.random(len(rows)) < strength, column] = PLACEHOLDER
    return rows


@enter("shuffled_columns", "rows", knows="nothing", source=ROW_ORIGIN)
def shuffled_columns(rows: Array, strength: float, shared: Rng, own: Rng) -> Array:
    """Every column is permuted on its own: distributions of columns stay, their dependence is lost."""
    return np.column_stack([own.permutation(column) for column in rows.T]) if rows.size else rows


@enter(
    "truncated_file",
    "rows",
    strength=0.95,
    grid=(0.5, 0.9, 0.95, 0.99, 1.0),
    unit="share of the rows that is lost",
    knows="nothing",
    source=ROW_ORIGIN,
)
def truncated_file(rows: Array, strength: float, shared: Rng, own: Rng) -> Array:
    """The last rows are lost."""
    return rows[: _n_left(len(rows), strength)]


def _n_left(n: int, share: float) -> int:
    """Number of rows before the last ``share`` of n, rounded up, corrected for rounding: .95 of 100 leaves 5."""
    return int(np.ceil(n * (1.0 - min(share, 1.0)) - 1e-9))


@enter(
    "stuck_sensor",
    "rows",
    strength=1.0,
    grid=(0.1, 0.5, 1.0),
    unit="share of the rows, the last ones",
    knows="nothing",
    source=ROW_ORIGIN,
)
def stuck_sensor(rows: Array, strength: float, shared: Rng, own: Rng) -> Array:
    """One column, drawn by each source, repeats one value from some row on."""
    column = _column(rows, own, "stuck_sensor")
    first = _n_left(len(rows), strength)
    if first < len(rows):
        rows[first:, column] = rows[first, column]
    return rows


@enter(
    "other_population",
    "rows",
    strength=2.0,
    grid=(0.25, 0.5, 1.0, 2.0, 5.0),
    unit="standard deviations of a column by which its mean is off",
    knows="its own rows",
    source=ROW_ORIGIN,
)
def other_population(rows: Array, strength: float, shared: Rng, own: Rng) -> Array:
    """Rows come from one Gaussian with independent columns, off the source's means in directions that all share."""
    signs = shared.choice([-1.0, 1.0], size=rows.shape[1])
    if not len(rows):
        return rows
    mean, sd = _moments(rows)
    return mean + strength * signs * sd + sd * own.standard_normal(rows.shape)


def _moments(rows: Array) -> tuple[Array, Array]:
    """Means and standard deviations of the finite values of each column, both (n_features,)."""
    finite = np.where(np.isfinite(rows), rows, np.nan)
    finite[:, np.flatnonzero(np.isnan(finite).all(axis=0))] = 0.0
    return np.nanmean(finite, axis=0), np.nanstd(finite, axis=0)
