"""The result of a check: a verdict for every source, as a table, a dict and a text."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from dask_dfmr.aggregation.reasons import in_short
from dask_dfmr.mixtures.gaussian import Mixture
from dask_dfmr.monitoring.source import CHECKED, EMPTY, SourceCheck
from dask_dfmr.untrusted import portable

CHECK_FORMAT, CHECK_VERSION = "dask_dfmr.check", 1
"""The first two entries of :meth:`CheckResult.to_dict`, and of every line of a history."""

Verdict = Literal["accept", "review", "quarantine"]

VERDICTS: tuple[Verdict, ...] = ("accept", "review", "quarantine")
"""From the best to the worst."""

LEAST_SHOWN = 1e-12
"""Smaller p-values are no more certain, because the tail of no law is known so far out."""

MOST_SHOWN = 10
"""Sources that the text of a result lists, at most."""


@dataclass(frozen=True, eq=False, repr=False)
class CheckResult:
    """What :func:`check` found.

    A source is **quarantined** if its rows contradict the model, or cannot be read or used. It is up for **review** if
    nothing can be decided: it has no rows or too few, or it is unlikely, but among so many sources one that is as
    unlikely is to be expected. All others are **accepted**.

    Attributes
    ----------
    report : pandas.DataFrame
        One row per source. Its columns:

        - ``source``: its name.
        - ``verdict``: "accept", "review" or "quarantine".
        - ``p_value``: probability that a consistent source of as many rows is as unlikely; NaN if nothing was compared.
        - ``reason``: why it is not accepted, in words; otherwise empty.
        - ``kind``: of the reason, a key for code: as in :meth:`GaussianMixture.explain`; "some rows" if a few rows lie
          far outside and the others agree; "unread rows" if some could not be read; an outcome like "empty", "too few
          rows" or "other columns"; otherwise empty.
        - ``component``: the component that differs most; NA if none is known.
        - ``columns``: names of the columns that the reason is about, or that differ most, joined by commas.
        - ``z``: how many standard errors the number is off that differs most.
        - ``n_samples``, ``n_omitted``: rows compared, and rows omitted for NaN or infinity.
        - ``p_scores``, ``ratio``: p-value of the mean score alone, and its distance in units of what sampling explains.
        - ``p_low``, ``n_low``, ``n_low_expected``: p-value of the number of rows of low density, that number, and the
          number to be expected.
    false_alarm_rate : float
        Share of consistent sources that are not accepted.
    law : {"rows", "mixture"}
        What unlikely means: compared with rows of the fit, or with rows of the mixture if the model has no law of rows.
        The latter gives false alarms if the rows of the fit are no mixture.
    model : str
        Digest of the mixture.
    """

    report: pd.DataFrame
    false_alarm_rate: float
    law: Literal["rows", "mixture"]
    model: str

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of a source."""
        return max(self.report["verdict"], key=VERDICTS.index)

    @property
    def counts(self) -> dict[Verdict, int]:
        """How many sources have each verdict."""
        return {verdict: int((self.report["verdict"] == verdict).sum()) for verdict in VERDICTS}

    def to_dict(self) -> dict[str, Any]:
        """The result as values that JSON has; ``docs/reference/file-format.md`` describes it.

        NaN is None. Nothing depends on the time or the machine.
        """
        return {
            "format": CHECK_FORMAT,
            "version": CHECK_VERSION,
            "verdict": self.verdict,
            "counts": self.counts,
            "false_alarm_rate": self.false_alarm_rate,
            "law": self.law,
            "model": self.model,
            "sources": [
                {str(name): _as_json(value) for name, value in row.items()}
                for row in self.report.to_dict("records")
            ],
        }

    def __repr__(self) -> str:
        counts = ", ".join(f"{verdict} {count}" for verdict, count in self.counts.items() if count)
        lines = [
            f"CheckResult({counts}; false_alarm_rate={self.false_alarm_rate:g}, law={self.law!r})"
        ]
        rows = zip(*(self.report[c] for c in ("verdict", "source", "reason")), strict=True)
        others = sorted((r for r in rows if r[0] != "accept"), key=lambda r: -VERDICTS.index(r[0]))
        lines += [
            f"  {verdict:10s}  {name}: {in_short(reason)}"
            for verdict, name, reason in others[:MOST_SHOWN]
        ]
        if len(others) > MOST_SHOWN:
            lines.append(f"  ... and {len(others) - MOST_SHOWN} more")
        return "\n".join(lines)


def result_of(
    found: Sequence[SourceCheck], rate: float, is_of_rows: bool, mixture: Mixture
) -> CheckResult:
    """The verdicts on what was found in all sources."""
    n_compared = sum(not math.isnan(one.p_value) for one in found)
    rows = [_row(one, *_judged(one, rate, n_compared)) for one in found]
    report = pd.DataFrame(rows).astype({"component": "Int64"})
    return CheckResult(report, rate, "rows" if is_of_rows else "mixture", digest_of(mixture))


def _judged(one: SourceCheck, rate: float, n_compared: int) -> tuple[Verdict, str, str]:
    """Verdict, kind and reason of one source."""
    if one.outcome == EMPTY:
        return "review", one.outcome, one.detail
    if one.outcome != CHECKED:
        return "quarantine", one.outcome, f"{one.outcome}: {one.detail}"
    if one.p_value < rate:
        p = f"p = {one.p_value:.2g}" if one.p_value > LEAST_SHOWN else f"p < {LEAST_SHOWN:.0e}"
        if one.p_value < rate / n_compared:
            return "quarantine", one.kind, f"unlikely ({p}): {_why(one)}"
        by_chance = f"of {n_compared} sources {n_compared * one.p_value:.2g} are so by chance"
        return "review", one.kind, f"unlikely ({p}; {by_chance}): {_why(one)}"
    if one.n_samples < one.least_rows:
        text = f"{one.n_samples} rows are too few to decide: at least {one.least_rows}"
        return "review", "too few rows", text
    return ("review", "unread rows", one.unread) if one.unread else ("accept", "", "")


def _why(one: SourceCheck) -> str:
    if one.finding:
        return one.finding
    if one.p_low < one.p_scores:
        low = f"{one.n_low} of {one.n_samples} rows lie where the model has almost none"
        return f"{low}; {one.n_low_expected:.2g} were to be expected"
    return f"the rows as a whole are {one.ratio:.2g} times as far off as sampling explains"


def _row(one: SourceCheck, verdict: Verdict, kind: str, reason: str) -> dict[str, Any]:
    return {
        "source": one.source,
        "verdict": verdict,
        "p_value": one.p_value,
        "reason": reason,
        "kind": kind,
        "component": one.component,
        "columns": ", ".join(one.columns),
        "z": one.z,
        "n_samples": one.n_samples,
        "n_omitted": one.n_omitted,
        "p_scores": one.p_scores,
        "ratio": one.ratio,
        "p_low": one.p_low,
        "n_low": one.n_low,
        "n_low_expected": one.n_low_expected,
    }


def _as_json(value: Any) -> Any:
    if value is None or value is pd.NA:
        return None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def digest_of(mixture: Mixture) -> str:
    """A digest of all numbers and names of a mixture, as hexadecimal text."""
    found = hashlib.sha256(repr((mixture.covariance_type, mixture.feature_names)).encode())
    for array in (mixture.weights, mixture.means, mixture.covariances):
        found.update(portable(array).tobytes())
    return found.hexdigest()[:16]
