"""The result in a sentence, and how serious it is."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np

from dask_dfmr.aggregation.result import AggregationResult
from dask_dfmr.exceptions import NoMajorityWarning
from dask_dfmr.plotting.found import kept_of, result_of


class Verdict(NamedTuple):
    """What came out.

    ``level`` is "fine" if everything is in the mixture, "excluded" if something is not, and "no majority" if the
    filter found none, so that the mixture may be that of the wrong partitions.
    """

    level: Literal["fine", "excluded", "no majority"]
    sentence: str


def verdict_of(found: Any) -> Verdict:
    """The verdict on a fitted estimator, an aggregate or a selection."""
    result = result_of(found)
    what = "estimates" if found is result else "partitions"
    kept = kept_of(found, result.decision)
    n, n_kept = len(kept), int(kept.sum())
    if result.method == "coat":
        sentence = f"The mixture is that of one of {n:,} {what}, the center (method 'coat')."
        return Verdict("fine", sentence)
    has_none = ~kept & ~np.isfinite(result.decision.distance_ratios)
    parts = _parts(n - n_kept - int(has_none.sum()), int(has_none.sum()))
    in_part = _in_part(result)
    of_all = f"{n_kept:,} of {n:,} {what} {'is' if n_kept == 1 else 'are'}"
    if n_kept == n:
        of_all = f"All {n:,} {what} are" if n > 1 else f"The only {what.removesuffix('s')} is"
    sentence = f"{of_all} in the mixture{in_part}"
    if n == 1 and not parts:
        sentence += "; there is nothing to compare it with"
    sentence += f": {parts}." if parts else "."
    if any(issubclass(note.category, NoMajorityWarning) for note in result.notes):
        return Verdict("no majority", f"There is no clear majority. {sentence}")
    return Verdict("excluded" if parts or in_part else "fine", sentence)


def _parts(n_excluded: int, n_without: int) -> str:
    parts = []
    if n_excluded:
        parts.append(f"{n_excluded:,} {'is' if n_excluded == 1 else 'are'} excluded")
    if n_without:
        parts.append(f"{n_without:,} {'has' if n_without == 1 else 'have'} no usable estimate")
    return " and ".join(parts)


def _in_part(result: AggregationResult) -> str:
    components = result.decision.components
    if components is None:
        return ""
    n = int((~components.kept[result.decision.kept].all(axis=1)).sum())
    return f", {n} of them without some components" if n else ""
