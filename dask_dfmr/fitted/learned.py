"""What an estimator has learned: from a fit, from an aggregate that was made elsewhere, or from a mixture alone."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dask_dfmr import checks
from dask_dfmr.aggregation.options import AggregationOptions
from dask_dfmr.aggregation.plan import aggregate_now
from dask_dfmr.aggregation.reasons import NoEstimate
from dask_dfmr.aggregation.result import AggregationResult, LocalEstimates, Note, Origin
from dask_dfmr.explanation.report import have_outcome
from dask_dfmr.explanation.table import short_findings
from dask_dfmr.local.estimate import LocalEstimate, Outcome
from dask_dfmr.mixtures.family import Array
from dask_dfmr.mixtures.gaussian import Mixture
from dask_dfmr.monitoring.row_law import RowLaw, law_of_rows
from dask_dfmr.on_dask.continued import Progress
from dask_dfmr.on_dask.fit_plan import Fit
from dask_dfmr.on_dask.scheduling.threads import single_threaded_blas
from dask_dfmr.on_dask.tasks import estimate_of, report_rows
from dask_dfmr.seeds import seed_sequence

logger = logging.getLogger("dask_dfmr")

MOST_EXPLAINED = 20
"""Up to so many excluded partitions have a finding in the report of a fit; :meth:`GaussianMixture.explain` has all."""

OF_MIXTURE = "the mixture that was given"
"""The source of the only estimate of an estimator that was made of a mixture."""


@dataclass(frozen=True, eq=False)
class Learned:
    """Everything that an estimator has learned; its attributes of the same names with an underscore have the meanings.

    Attributes
    ----------
    aggregate : AggregationResult
    report : pandas.DataFrame
        ``partition_report_``.
    support : ndarray of bool, shape (n_partitions,)
    passes : pandas.DataFrame
        ``refinement_``.
    estimates : sequence of LocalEstimate or None
    n_iter : int
    lower_bound : float
        NaN if it is not known.
    converged : bool
    n_optimum_changes : int
    gain : float or None
        Of :class:`~dask_dfmr.on_dask.continued.Progress`.
    token : str or None
        What the data of the fit are recognized by, if some of their rows are not in the mixture.
    sample : mapping of int to ndarray
        Some rows (n_rows, n_features) of each partition in the mixture; no file and no pickle holds them.
    saved_law : RowLaw or None
        The law of the rows, if it comes from a file.
    unread : str
        Which partitions of X no source could read, in words; no file holds it.
    """

    aggregate: AggregationResult
    report: pd.DataFrame
    support: NDArray[np.bool_]
    passes: pd.DataFrame
    estimates: Sequence[LocalEstimate] | None
    n_iter: int
    lower_bound: float
    converged: bool
    n_optimum_changes: int = 0
    gain: float | None = None
    token: str | None = None
    sample: Mapping[int, Array] = field(default_factory=dict)
    saved_law: RowLaw | None = None
    unread: str = ""

    def __getstate__(self) -> dict[str, Any]:
        """A copy for a pickle holds the law of the rows, and no row."""
        return self.__dict__ | {"sample": {}, "saved_law": self.row_law}

    @property
    def mixture(self) -> Mixture:
        """The global mixture."""
        return self.aggregate.mixture

    @property
    def n_rows(self) -> float:
        """Rows that the mixture is made of; inf if that is not known."""
        n = float(self.report["n_samples"].to_numpy()[self.support].sum())
        return n if n else np.inf

    @cached_property
    def row_law(self) -> RowLaw | None:
        """The law of the rows, computed when it is needed first; None if it is not known."""
        if self.saved_law is not None or not self.sample:
            return self.saved_law
        with single_threaded_blas():
            return law_of_rows(self.mixture, list(self.sample.values()), self._kept_estimates())

    def _kept_estimates(self) -> list[LocalEstimate]:
        """The estimates of the partitions in the mixture; none if they were not kept or not kept as wholes."""
        if self.estimates is None or self.aggregate.decision.components is not None:
            return []
        kept = np.flatnonzero(self.support & self.aggregate.decision.kept).tolist()
        return [self.estimates[i] for i in kept if self.estimates[i].mixture is not None]

    @property
    def progress(self) -> Progress:
        """How far a sequence of fits has come."""
        n_samples = self.report["n_samples"].to_numpy()
        return Progress(self.support, n_samples, self.lower_bound, self.gain)


# -- of a fit --------------------------------------------------------------------------------------


def learned_from(
    fit: Fit,
    report: pd.DataFrame,
    notes: tuple[Note, ...],
    tol: float | str,
    last: Progress | None = None,
) -> Learned:
    """What is learned from a fit.

    Parameters
    ----------
    fit : Fit
    report : pandas.DataFrame
        Of :func:`explained_report`.
    notes : tuple of Note
        Those that the aggregate is to have.
    tol : "auto" or float
        The parameter of the estimator.
    last : Progress or None
        That of the fit before, if this one continues it.
    """
    is_kept, refinement = fit.aggregate.decision.kept & fit.kept, fit.refinement
    n_samples = report["n_samples"].to_numpy()
    weights = n_samples[is_kept].astype(np.float64)
    values = report["log_likelihood"].to_numpy(np.float64)[is_kept]
    bound = float(np.average(values, weights=weights)) if weights.any() else np.nan
    if refinement is not None:
        bound = refinement.mean_log_likelihood
    progress = Progress(fit.kept, n_samples, bound).after(last)
    n_parameters = fit.aggregate.mixture.n_parameters
    converged = (
        fit.aggregate.converged
        and (refinement is None or refinement.converged)
        and (
            have_outcome(report, Outcome.FITTED)[is_kept].all()
            or progress.has_converged(last, tol, n_parameters)
        )
    )
    return Learned(
        replace(fit.aggregate, notes=notes),
        report,
        fit.kept,
        fit.passes,
        LocalEstimates(fit.estimates or (), fit.first) if fit.first else fit.estimates,
        int(report["n_iter"].to_numpy()[is_kept].max()),
        bound,
        bool(converged),
        fit.n_optimum_changes,
        progress.gain,
        sample={i: rows for i, rows in fit.row_sample.items() if fit.kept[i]},
        unread=fit.unread,
    )


def explained_report(fit: Fit) -> pd.DataFrame:
    """The report of a fit; a few excluded partitions have a finding in their reasons, if that takes little time."""
    report = fit.report
    # Estimates are in files if they are many; their findings would take long.
    if fit.aggregate.decision.components is not None or not isinstance(fit.estimates, list):
        return report
    try:
        with single_threaded_blas():
            findings = short_findings(fit.unrefined, MOST_EXPLAINED)
    except Exception:  # the fit is finished, and an explanation that fails must not lose it
        logger.exception(
            "The excluded partitions could not be explained; the report has no findings."
        )
        return report
    if findings:
        report["reason"] = [
            f"{reason}: {findings[i]}" if i in findings else reason
            for i, reason in enumerate(report["reason"])
        ]
    return report


# -- of an aggregate or a mixture ------------------------------------------------------------------


def learned_of_aggregate(aggregate: AggregationResult) -> Learned:
    """What is known of an aggregate that was made elsewhere; the report has zeros for row counts that are not."""
    estimates = estimates_of(aggregate)
    if estimates is None:
        rows = [_unknown_row(aggregate, i) for i in range(aggregate.decision.n_estimates)]
    else:
        rows = report_rows([e.to_arrays() for e in estimates])
    fit = Fit.of(aggregate, rows, estimates)
    return learned_from(fit, explained_report(fit), aggregate.notes, "auto")


def estimates_of(aggregate: AggregationResult) -> list[LocalEstimate] | None:
    """The local estimates of an aggregate, numbered as its decision numbers them; None if they were not kept."""
    origin = aggregate.origin
    if origin is None:
        return None
    messages = [e.to_arrays() if isinstance(e, LocalEstimate) else e for e in origin.estimates]
    found = [estimate_of(message, origin.family, i) for i, message in enumerate(messages)]
    numbered = [replace(estimate, partition=i) for i, estimate in enumerate(found)]
    return LocalEstimates(numbered, origin.first) if origin.first else numbered


def _unknown_row(aggregate: AggregationResult, i: int) -> dict[str, Any]:
    refusal = aggregate.decision.refused.get(i)
    outcome = refusal.outcome if isinstance(refusal, NoEstimate) else Outcome.FITTED.value
    return report_rows([{"n_samples": 0, "outcome": str(outcome), "partition": i}])[0]


def parameters_of_aggregate(aggregate: AggregationResult) -> dict[str, Any]:
    """The parameters of an estimator that follow from an aggregate: of the mixture, the filter and the local fits."""
    mixture, decision, origin = aggregate.mixture, aggregate.decision, aggregate.origin
    found: dict[str, Any] = {
        "n_components": mixture.n_components,
        "covariance_type": mixture.covariance_type,
        "method": aggregate.method,
        "rho": decision.rho,
        "false_exclusion_rate": decision.false_exclusion_rate,
    }
    if origin is None:
        return found
    options, problem = origin.options, origin.problem
    of_options = ("machine_weights", "n_references", "false_exclusion_rate", "rho")
    found |= {name: getattr(options, name) for name in of_options}
    if problem is not None:
        of_problem = ("tol", "max_iter", "penalty", "reg_covar", "nan_policy", "n_init")
        found |= {name: getattr(problem, name) for name in of_problem}
        found["min_partition_rows"] = problem.min_rows
        found["row_outlier_level"], truncates = problem.family.cut
        found["row_outliers"] = "truncate" if truncates else None
    return found


def aggregate_of_mixture(mixture: Mixture, n_samples: int | None) -> AggregationResult:
    """The aggregate of one estimate; without its number of rows it cannot be combined with others.

    Raises
    ------
    TypeError
        If it is no mixture.
    ValueError
        If ``n_samples`` is no number of rows.
    """
    if not isinstance(mixture, Mixture):
        raise TypeError(
            f"mixture must be a dask_dfmr.Mixture; got a {type(mixture).__name__}. "
            "Mixture.from_sklearn makes one of a mixture of scikit-learn, and Mixture.load of a file."
        )
    if n_samples is not None:
        checks.integer("n_samples", n_samples, 1, alternative="None or ")
    options, seed = AggregationOptions(), seed_sequence(0)
    estimate = LocalEstimate(mixture, n_samples or 1, partition=0, source=OF_MIXTURE)
    found = aggregate_now([estimate.to_arrays()], options, seed, mixture.family)
    origin = Origin([estimate], options, seed, family=mixture.family) if n_samples else None
    return replace(found, mixture=mixture, notes=(), origin=origin)
