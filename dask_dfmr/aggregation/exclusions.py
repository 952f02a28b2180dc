"""The warning that estimates were excluded: how many, which ones, the main reason, and where to read on.

It follows from the final decision, whose reasons number components as the result does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from dask_dfmr.aggregation.reasons import (
    ComponentTooSmall,
    OnlyTheCenter,
    Reason,
    Removed,
    in_short,
    listed,
)
from dask_dfmr.aggregation.result import AggregationResult, FilterDecision, Note
from dask_dfmr.exceptions import ExclusionWarning, PartitionWarning

MOST_NAMED = 5
"""Excluded estimates that the sentence names before it ends the list in an ellipsis."""


class Exclusion(NamedTuple):
    """One excluded estimate, as the sentence shows it.

    Attributes
    ----------
    name : str
        In the list: its number, or its source.
    example : str
        The same with more details, for the one whose reason is given.
    kind : type
        The class of its reason.
    reason : str
    in_part : bool
        Whether only some of its components are excluded.
    """

    name: str
    example: str
    kind: type[Reason]
    reason: str
    in_part: bool = False


def exclusion_note(excluded: Sequence[Exclusion], n_all: int, what: str, where: str) -> Note | None:
    """The warning in one sentence; None if nothing was excluded.

    Parameters
    ----------
    excluded : sequence of Exclusion
    n_all : int
        Number of estimates, kept ones included.
    what : str
        What they are called, in the plural.
    where : str
        What to do to learn more, in words.
    """
    if not excluded:
        return None
    main = Counter(e.kind for e in excluded).most_common(1)[0][0]
    example = next(e for e in excluded if e.kind is main)
    n, n_in_part = len(excluded), sum(e.in_part for e in excluded)
    names = example.example
    if n > 1:
        names = f"{listed([e.name for e in excluded], MOST_NAMED)}, mostly like {example.example}"
    in_part = f" ({n_in_part} of them only in part)" if n_in_part else ""
    reason = in_short(example.reason.rstrip("."))
    return Note(
        ExclusionWarning,
        f"{n} of {n_all} {what} {'is' if n == 1 else 'are'} excluded{in_part}, namely {names}: {reason}; {where}.",
    )


def main_reason(decision: FilterDecision, index: int) -> Reason | None:
    """Why an estimate was judged as excluded, wholly or in part; None if it was not.

    The user asks for the estimates of ``without`` and "coat" to be excluded. Of a kept estimate, a component with too
    few rows is not judged.
    """
    reasons = [
        reason
        for reason in decision.reasons_for(index)
        if not isinstance(reason, (Removed, OnlyTheCenter))
    ]
    judged = [reason for reason in reasons if not isinstance(reason, ComponentTooSmall)]
    if decision.kept[index]:
        reasons = judged
    return next(iter(judged or reasons), None)


def with_exclusion_note(result: AggregationResult) -> AggregationResult:
    """The result with the warning of its own exclusions among its notes.

    Refused estimates are among them, unless another note says that most are refused. "coat" takes one estimate by
    definition, and excludes no other by a judgment.
    """
    decision, is_coat = result.decision, result.method == "coat"
    is_said = any(note.category is PartitionWarning for note in result.notes)
    excluded, first = [], None
    for i in range(decision.n_estimates):
        reason = main_reason(decision, i)
        is_refused = i in decision.refused
        if reason is None or (is_refused and is_said) or (is_coat and not is_refused):
            continue
        first = i if first is None else first
        name = str(i)
        excluded.append(Exclusion(name, name, type(reason), str(reason), bool(decision.kept[i])))
    n_removed = sum(isinstance(reason, Removed) for reason in decision.refused.values())
    where = f"see decision.reason({first})"
    note = exclusion_note(excluded, decision.n_estimates - n_removed, "estimates", where)
    return result if note is None else replace(result, notes=(*result.notes, note))
