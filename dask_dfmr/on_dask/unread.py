"""Partitions of X that cannot be read, if sources are the values of a column: the sources go on without their rows.

What is missing travels with the rows of a source (:class:`PartlyRead`), then in the message of its estimate beside the
estimate, and ends in the reason of the source and in one warning for all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dask_dfmr.aggregation.reasons import bounded, in_short
from dask_dfmr.local.estimate import LocalEstimate
from dask_dfmr.mixtures.family import Rows

UNREAD = "unread"
"""Key of a message, and of the report's row: these partitions by their names, and why, one in a line."""

MOST_IN_WARNING = 3
"""Partitions that the warning names."""


@dataclass(frozen=True)
class PartlyRead:
    """The rows of a source, without those in partitions of X that could not be read.

    Attributes
    ----------
    rows : ndarray of shape (n_samples, n_features)
    unread : tuple of str
        These partitions by their names, and why.
    """

    rows: Rows
    unread: tuple[str, ...]


def unread_of(data: Any) -> tuple[str, ...]:
    """The partitions of X whose rows are missing in the data of a source, and why."""
    return data.unread if isinstance(data, PartlyRead) else ()


def in_words(unread: Sequence[str]) -> str:
    """The same as a reason; empty if all was read."""
    return bounded(f"without its rows in {'; '.join(unread)}") if unread else ""


def with_reason(estimate: LocalEstimate, unread: Sequence[str]) -> LocalEstimate:
    """The estimate of a source, whose reason names what it is without."""
    if not unread:
        return estimate
    return replace(estimate, reason="; ".join(filter(None, (estimate.reason, in_words(unread)))))


def as_entry(unread: Sequence[str]) -> dict[str, str]:
    """An entry of a message, which has none if all was read."""
    return {UNREAD: "\n".join(unread)} if unread else {}


def entry_of(message: Any) -> dict[str, str]:
    """The entry of a message, whatever a worker sent."""
    found = message.get(UNREAD) if type(message) is dict else None
    return {UNREAD: found} if type(found) is str and found else {}


def describe_unread(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many partitions of X could not be used, and how many sources are without their rows: a sentence.

    It is made from the report's rows, and empty if all was read.
    """
    entries = [row[UNREAD].splitlines() for row in rows if UNREAD in row]
    partitions = list(dict.fromkeys(line for lines in entries for line in lines))
    if not partitions:
        return ""
    n = len(partitions)
    named = "; ".join(in_short(line.rstrip(".")) for line in partitions[:MOST_IN_WARNING])
    more = f"; and {n - MOST_IN_WARNING} more" if n > MOST_IN_WARNING else ""
    what, whose = ("1 partition", "its") if n == 1 else (f"{n} partitions", "their")
    without = f"{len(entries)} of {len(rows)} sources are without {whose} rows"
    return f"{what} of X could not be used, and {without}: {named}{more}"
