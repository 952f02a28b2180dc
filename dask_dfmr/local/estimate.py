"""The result of one local fit: an estimate, or an outcome with the reason why there is none."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from dask_dfmr.mixtures.family import Family
from dask_dfmr.mixtures.gaussian import Gaussian, Mixture
from dask_dfmr.reprs import html_lines
from dask_dfmr.untrusted import is_unicode, read_document, write_document

ESTIMATE_FORMAT, ESTIMATE_VERSION = "dask_dfmr.estimate", 1
"""The first two entries of a saved estimate."""

FROM_OTHERS = "mixture of the others"
"""Start of an estimate that replaced the first one, made from the global mixture, as the report shows it."""

MAX_ROWS = 2**62
"""Upper bound of a row count; a larger number in a message is malformed."""


class Outcome(StrEnum):
    """How the local fit of one partition ended; the value is the phrase in the report."""

    FITTED = "fitted"
    NOT_CONVERGED = "not converged"
    TOO_FEW_ROWS = "too few rows"
    NOT_FINITE = "not finite"
    DEGENERATE = "degenerate"
    COLLAPSED = "collapsed"
    BAD_COLUMNS = "other columns"
    FAILED = "failed"
    TIMED_OUT = "timed out"
    LOST = "lost"

    @property
    def is_usable(self) -> bool:
        """Whether there is an estimate, so that it can take part in the aggregation."""
        return self in (Outcome.FITTED, Outcome.NOT_CONVERGED)


@dataclass(frozen=True, repr=False)
class LocalEstimate:
    """The mixture fitted to the rows of one partition or source, or the reason why there is none.

    Parameters
    ----------
    mixture : Mixture or None
        The fitted mixture; None if the outcome is not usable.
    n_samples : int
        Rows to which the mixture was fitted, or rows found if no fit was possible.
    outcome : Outcome, default Outcome.FITTED
        How the fit ended. The phrase, such as "not converged", is accepted too.
    reason : str, default ""
        The reason in words, if the outcome is not "fitted".
    partition : int, optional
        Index of the partition in the collection.
    source : str, optional
        A name of the rows for a reader: a file path, a row range or the value of a column.
    n_omitted : int, default 0
        Rows omitted from the fit for NaN or infinity (``nan_policy="omit"``).
    n_iter : int, default 0
        Passes over all rows of the partition.
    log_likelihood : float, default nan
        Mean log-likelihood of the rows, in nats per row, without the penalty; NaN if it is unknown.
    start : str, default ""
        The start of the fit: its name, or the candidate of the pilots' shortlist.
    n_outside : int, optional
        Rows of the fit that are beyond the cut of every component: those that belong nowhere. None if it is not known.

    Raises
    ------
    ValueError
        If ``mixture`` and ``outcome`` contradict each other, ``n_samples`` is no number of rows, or another value has a
        wrong type.

    Examples
    --------
    An estimate from a file or another cluster needs only a mixture and a number of rows:

    >>> LocalEstimate(Mixture([1.0], [[0.0]], [[[1.0]]]), 5000)
    LocalEstimate('fitted', n_samples=5000, Mixture(n_components=1, n_features=1, covariance_type='full'))
    """

    mixture: Mixture | None
    n_samples: int
    outcome: Outcome = Outcome.FITTED
    reason: str = ""
    partition: int | None = None
    source: str | None = None
    n_omitted: int = 0
    n_iter: int = 0
    log_likelihood: float = float("nan")
    start: str = ""
    n_outside: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "outcome", Outcome(self.outcome))
        count = self.n_samples
        is_count = isinstance(count, (int, np.integer, float, np.floating))
        if not is_count or not 0 <= count < MAX_ROWS or count != int(count):
            raise ValueError(f"n_samples must be a number of rows; got {_shown(count)}.")
        object.__setattr__(self, "n_samples", int(count))
        if self.outcome.is_usable != (self.mixture is not None):
            raise ValueError(
                f"an estimate with the outcome {self.outcome.value!r} must "
                f"{'' if self.outcome.is_usable else 'not '}have a mixture."
            )
        if self.outcome.is_usable and self.n_samples == 0:
            raise ValueError("n_samples must be at least 1 for an estimate with a mixture; got 0.")
        self._check_details()

    def _check_details(self) -> None:
        """Check the types of the values that go into reports and files."""
        for name in ("n_omitted", "n_iter", "partition", "n_outside"):
            value = getattr(self, name)
            if value is None and name in ("partition", "n_outside"):
                continue
            if not isinstance(value, (int, np.integer)) or not 0 <= value < MAX_ROWS:
                raise ValueError(f"{name} must be a non-negative integer; got {_shown(value)}.")
            object.__setattr__(self, name, int(value))
        if self.n_outside is not None and self.n_outside > self.n_samples:
            raise ValueError(f"n_outside must be at most n_samples; got {self.n_outside}.")
        if not _is_double(self.log_likelihood):
            raise ValueError(f"log_likelihood must be a number; got {_shown(self.log_likelihood)}.")
        object.__setattr__(self, "log_likelihood", float(self.log_likelihood))
        for name in ("reason", "source", "start"):
            value = getattr(self, name)
            if not isinstance(value, str) and not (value is None and name == "source"):
                raise ValueError(f"{name} must be a string; got {value!r:.100}.")
            if value is not None and not is_unicode(value):
                # As in the name of a file that is no UTF-8, which reports cannot hold.
                value = value.encode("utf-8", "backslashreplace").decode("utf-8")
                object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        where = "" if self.partition is None else f", partition={self.partition}"
        what = f"{self.mixture!r}" if self.mixture is not None else f"reason={self.reason!r}"
        return f"LocalEstimate({self.outcome.value!r}, n_samples={self.n_samples}{where}, {what})"

    def __str__(self) -> str:
        return "\n".join(
            (self._in_words(), self.reason if self.mixture is None else str(self.mixture))
        )

    def _repr_html_(self) -> str:
        content = self.reason if self.mixture is None else ""
        table = "" if self.mixture is None else self.mixture._repr_html_()
        return html_lines(self._in_words(), content) + table

    def _in_words(self) -> str:
        number = "" if self.partition is None else f"partition {self.partition}"
        where = ", ".join(text for text in (number, self.source) if text)
        omitted = f", {self.n_omitted:,} omitted" if self.n_omitted else ""
        rows = f"{self.n_samples:,} rows{omitted}"
        return f"Estimate of {rows}{f' of {where}' if where else ''}: {self.outcome.value}"

    @property
    def is_usable(self) -> bool:
        """Whether the estimate can take part in the aggregation."""
        return self.outcome.is_usable

    # -- messages: plain arrays and numbers -------------------------------------------------------

    def to_arrays(self) -> dict[str, Any]:
        """The estimate as a dict of arrays, numbers and strings; :meth:`from_arrays` is the inverse."""
        message: dict[str, Any] = {
            "n_samples": self.n_samples,
            "outcome": self.outcome.value,
            "reason": self.reason,
            "partition": self.partition,
            "source": self.source,
            "n_omitted": self.n_omitted,
            "n_iter": self.n_iter,
            "log_likelihood": self.log_likelihood,
            "start": self.start,
            "n_outside": self.n_outside,
        }
        return message if self.mixture is None else message | self.mixture.to_arrays()

    @classmethod
    def from_arrays(cls, message: Mapping[str, Any], family: Family | None = None) -> LocalEstimate:
        """An estimate from a dict with the keys of :meth:`to_arrays`.

        Parameters
        ----------
        message : mapping
            Only ``n_samples`` is required. Keys that are no parameter of the estimate are those of its mixture; without
            any there is no mixture.
        family : Family, optional
            The family that makes the mixture. None: Gaussian, of the covariance type in the message.

        Raises
        ------
        ValueError
            If the message is malformed; the checks are those of the constructors.
        """
        if "n_samples" not in message:
            raise ValueError(f"an estimate must have n_samples; got only {sorted(message)}.")
        own = {
            name: value
            for name, value in message.items()
            if name in cls.__dataclass_fields__ and name != "mixture"
        }
        parameters = {name: value for name, value in message.items() if name not in own}
        return cls(
            mixture=(family or Gaussian()).mixture_from_arrays(parameters) if parameters else None,
            **own,
        )

    # -- files ------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the estimate to a JSON file (``docs/reference/file-format.md``), with its number of rows and source.

        No row is in the file, and nothing in it is executable. :meth:`load` gives back the same bits.

        Parameters
        ----------
        path : path-like
            The file is written beside it and then renamed, so that there is never half a file. An existing file is
            replaced.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        write_document(path, ESTIMATE_FORMAT, ESTIMATE_VERSION, self.to_arrays())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LocalEstimate:
        """Read a file of :meth:`save`.

        Parameters
        ----------
        path : path-like

        Raises
        ------
        OSError
            If the file does not exist or cannot be read.
        ValueError
            If it is no such file, has another version, or holds no valid estimate.
        """
        message = read_document(path, ESTIMATE_FORMAT, ESTIMATE_VERSION, "a saved estimate")
        wrong = wrong_types(message)
        if wrong is not None:
            raise ValueError(f"{os.fspath(path)}: {wrong}.")
        try:
            return cls.from_arrays(message)
        except (ValueError, TypeError, OverflowError) as error:
            raise ValueError(f"{os.fspath(path)}: {error}") from error


def without_estimate(
    outcome: Outcome, reason: str, n_samples: int = 0, **details: Any
) -> LocalEstimate:
    """The result of a local fit that has no mixture, with its outcome and reason."""
    return LocalEstimate(None, n_samples, outcome, reason, **details)


_INTEGER, _NUMBER = (int, np.integer), (int, float, np.integer, np.floating)
_MESSAGE_TYPES: dict[str, tuple[type, ...]] = {
    "n_samples": _INTEGER,
    "outcome": (str,),
    "reason": (str,),
    "partition": (*_INTEGER, type(None)),
    "source": (str, type(None)),
    "n_omitted": _INTEGER,
    "n_iter": _INTEGER,
    "log_likelihood": _NUMBER,
    "start": (str,),
    "n_outside": (*_INTEGER, type(None)),
}
"""Types of the values of a message, apart from those of the mixture."""


def wrong_types(message: Mapping[str, Any]) -> str | None:
    """The first value of a message that has a wrong type, in words; None if all are right.

    The values of the mixture are not checked.
    """
    for name, types in _MESSAGE_TYPES.items():
        if name in message and not isinstance(message[name], types):
            return f"{name} is of type {type(message[name]).__name__}"
        is_right = _is_double if types is _NUMBER else _is_count if int in types else None
        if name in message and is_right is not None and not is_right(message[name]):
            return f"{name} is {_shown(message[name])}"
    if (message.get("n_outside") or 0) > message.get("n_samples", MAX_ROWS):
        return f"n_outside is {message['n_outside']}, of {message['n_samples']} rows"
    if message.get("outcome", Outcome.FITTED) not in list(Outcome):
        return f"outcome is {message['outcome']!r:.100}"
    return None if "n_samples" in message else "it has no n_samples"


def _is_double(value: Any) -> bool:
    """Whether a value is a number that a double can hold; an int can be too large for it."""
    if not isinstance(value, _NUMBER):
        return False
    try:
        float(value)
    except OverflowError:
        return False
    return True


def _is_count(value: Any) -> bool:
    return value is None or 0 <= value < MAX_ROWS


def _shown(value: Any) -> str:
    """A value for a message; Python refuses to write an int of more than some thousand digits."""
    if isinstance(value, int) and abs(value) >= MAX_ROWS:
        return f"an integer of {value.bit_length()} bits"
    return f"{value!r:.100}"
