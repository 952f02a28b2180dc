"""``select_components``: how many components, and which structure, the good partitions speak for."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dask_dfmr import checks
from dask_dfmr.aggregation.options import FALSE_EXCLUSION_RATE
from dask_dfmr.aggregation.reasons import (
    ExcludedByCandidates,
    ExcludedWithReference,
    NotCompared,
    Reason,
)
from dask_dfmr.aggregation.result import AggregationResult
from dask_dfmr.estimator import GaussianMixture, as_fitted
from dask_dfmr.exceptions import AggregationError, PartitionError, PartitionWarning
from dask_dfmr.explanation.report import describe_failures, failures, partition_report
from dask_dfmr.local.estimate import Outcome
from dask_dfmr.mixtures.gaussian import COVARIANCE_TYPES, Gaussian, Mixture
from dask_dfmr.on_dask.candidates import Scored, climb_and_score, fit_all
from dask_dfmr.on_dask.fit import FitResult, Pipeline
from dask_dfmr.on_dask.refine import FollowUp
from dask_dfmr.on_dask.rereading import Reader
from dask_dfmr.on_dask.scheduling.trusted_workers import trusting
from dask_dfmr.on_dask.tasks import FitSettings
from dask_dfmr.parameters import START_NAMES, build_pipeline
from dask_dfmr.results import Aggregate
from dask_dfmr.seeds import SeedLike
from dask_dfmr.selection.common_set import find_common_set
from dask_dfmr.selection.criteria import CRITERIA, pick

Words = dict[str, Any]
"""A candidate as the user says it: n_components and covariance_type."""


@dataclass(frozen=True, eq=False, repr=False)
class Selection:
    """Candidates compared on the same rows, and the one that was chosen.

    Attributes
    ----------
    table : pandas.DataFrame
        One row per candidate, in the order they were given: ``n_components``, ``covariance_type``,
        ``n_parameters``; ``log_likelihood`` (nats, of all training rows of the common set), ``aic``, ``bic`` and
        ``icl`` of them, the lower the better; ``held_out`` (mean log-likelihood per held-out row, the more the better)
        with its standard error ``held_out_se`` (from the differences between partitions); ``held_out_gap``, what
        it is below the best candidate's, with ``held_out_gap_se``, the error of that difference, which is far
        smaller; ``n_excluded`` (partitions that its own filter left out) and ``n_fitted`` (partitions of the common set
        whose estimates it is made of); ``converged`` (those local fits, and the reduction); ``reason``, in
        words, where a candidate could not be compared and its numbers are NaN.
    criterion : str
        What the choice was made by.
    best : int
        The row of the table that was chosen.
    mixture : Mixture
        The chosen one, as it was scored.
    mixtures : tuple of Mixture or None
        All of them, in the order of the table.
    aggregate : Aggregate
        How the chosen one came about.
    estimator : GaussianMixture
        Fitted: ``predict`` and the like work on collections. It has not seen the held-out rows;
        ``estimator.set_params(warm_start=True).fit(X)`` goes on from it with all of them.
    kept : ndarray of bool, shape (n_partitions,)
        The common set: partitions on whose rows all candidates were compared.
    partition_report : pandas.DataFrame
        One row per partition, as :attr:`GaussianMixture.partition_report_` for the chosen candidate; and ``n_against``,
        how many candidates leave the partition out by themselves, of ``n_judges`` that have an estimate of it.
    reference : int
        The row of the table whose filter counted most: that of the candidate that most partitions' own fits support.
    n_samples, n_held_out : int
        Training rows and held-out rows of the common set.
    n_reads : int
        How often the partitions of the common set were read.
    """

    table: pd.DataFrame
    criterion: str
    best: int
    mixture: Mixture
    mixtures: tuple[Mixture | None, ...]
    aggregate: Aggregate
    estimator: GaussianMixture
    kept: NDArray[np.bool_]
    partition_report: pd.DataFrame
    reference: int
    n_samples: int
    n_held_out: int
    n_reads: int

    @property
    def n_components(self) -> int:
        """Of the chosen candidate."""
        return self.mixture.n_components

    @property
    def covariance_type(self) -> str:
        """Of the chosen candidate."""
        return self.mixture.covariance_type

    def best_by(self, criterion: str) -> pd.Series[Any]:
        """The row of the table that another criterion takes."""
        checks.one_of("criterion", criterion, CRITERIA)
        if criterion == "held_out" and not self.n_held_out:
            raise ValueError("criterion must not be 'held_out' where no rows are held out; got it.")
        return self.table.iloc[_best_of(self.table, criterion)]

    def __repr__(self) -> str:
        chosen = f"n_components={self.n_components}, covariance_type={self.covariance_type!r}"
        compared = f"{(self.table['reason'] == '').sum()} of {len(self.table)} candidates compared"
        rows = f"{self.n_samples} rows and {self.n_held_out} held out"
        where = f"{self.kept.sum()} of {len(self.kept)} partitions"
        return f"Selection({chosen} by {self.criterion}; {compared} on {rows} of {where})"


def select_components(
    X: Any,
    n_components: int | Iterable[int] = range(1, 11),
    *,
    covariance_type: str | Iterable[str] = "full",
    criterion: Literal["bic", "aic", "icl", "held_out"] = "bic",
    test_share: float = 0.1,
    refine: int = 0,
    tol: float | Literal["auto"] = "auto",
    reg_covar: float = 0.0,
    max_iter: int = 1000,
    n_init: int = 1,
    init_params: str = "pilot",
    random_state: SeedLike = None,
    verbose: int = 0,
    source: Hashable = None,
    method: Literal["dfmr", "mr"] = "dfmr",
    rho: float | Literal["auto"] = "auto",
    false_exclusion_rate: float = FALSE_EXCLUSION_RATE,
    machine_weights: str = "rows",
    n_references: int | Literal["auto"] | None = "auto",
    penalty: float | Literal["auto"] = "auto",
    min_partition_rows: int | Literal["auto"] = "auto",
    nan_policy: str = "raise",
    on_failed: str = "warn",
    partition_timeout: float | str | None = None,
    n_partitions: int = 1,
    split_every: int | None = None,
    trusted_workers: Sequence[str] | Mapping[str, float] | str | None = None,
) -> Selection:
    """Choose the number of components and the structure of covariances by what good partitions say.

    The data are read twice. In the first read every partition fits all candidates, to the same training rows. Each
    candidate is filtered by itself, and from all verdicts follows one common set of partitions: what the candidate that
    most partitions' own fits support leaves out is left out, and so is what more than half of the candidates leave out.
    Every candidate is reduced anew from its estimates in the common set. In the second read all of them are measured on
    the training rows and on the held-out rows of the common set. So candidates differ in nothing but themselves, and
    bad partitions have no say, as long as more than half are good. Eager, on whatever scheduler is active.

    Parameters
    ----------
    X : dask DataFrame, dask Array, list of Delayed, pandas DataFrame or array-like
        As for :meth:`GaussianMixture.fit`.
    n_components : int or iterable of int, default range(1, 11)
    covariance_type : str or iterable of str, default "full"
        Of "full", "tied", "diag" and "spherical". Every one is combined with every number of components.
    criterion : {"bic", "aic", "icl", "held_out"}, default "bic"
        What decides; the table has all of them. BIC finds the number of components where the population is such a
        mixture. ICL counts clusters: components that overlap much are one. AIC and the held-out log-likelihood
        look for the best density, and take more components where the population is no mixture of few. "held_out"
        takes the fewest parameters no more than one standard error of the difference behind the best.
    test_share : float, default 0.1
        Share of every partition's rows that is held out of all fits, drawn by seed; 0 to 0.5.
    refine : int, default 0
        EM passes over the training rows of the common set that all candidates make before they are measured. Each of
        them is one more read of the data, for all candidates together. Worth it where partitions have few
        rows, whose estimates have a bias that costs candidates with many parameters most.
    on_failed : {"warn", "raise", "ignore"}, default "warn"
        What to do about partitions that the chosen candidate could not be fitted to, or that could not be read again.
    tol, reg_covar, ..., partition_timeout, n_partitions, split_every, trusted_workers
        As for :class:`GaussianMixture`; ``method="mr"`` filters nothing. The time-out is for all candidates' fits
        together.

    Returns
    -------
    Selection

    Raises
    ------
    TypeError, ValueError
        If X or a parameter is wrong: before anything is read, except a column of ``source``.
    AggregationError
        If no candidate could be fitted and measured; its ``report`` says why for each.
    PartitionError
        If there is something to be said of partitions and ``on_failed="raise"``.

    Warns
    -----
    PartitionWarning, HeterogeneityWarning, FilterWarning
        As :meth:`GaussianMixture.fit`, for the chosen candidate.

    Notes
    -----
    Of at most 16 partitions the rows are kept in memory from the search for starts until they are fitted; where
    they take more than 32 MB they are read a third time instead. A partition with too few rows for the reference
    candidate cannot be judged and is not in the common set. One that is in it, with too few rows for a larger
    candidate, has no part in that candidate's mixture (``n_fitted``), but is measured. ``refit_excluded`` and
    ``check_optimum`` of :class:`GaussianMixture`, which read partitions again, are left to a later fit of ``estimator``.

    Examples
    --------
    >>> import dask.array as da, numpy as np
    >>> rng = np.random.default_rng(0)
    >>> rows = np.concatenate([rng.normal(-4, 1, (4000, 2)), rng.normal(4, 1, (8000, 2))])
    >>> rows = rng.permutation(rows)
    >>> rows[:1000] *= 1000                                  # the first partition is in another unit
    >>> found = select_components(da.from_array(rows, chunks=(1000, 2)), [1, 2, 3], random_state=0)
    >>> found.n_components, found.n_samples, found.n_held_out
    (2, 9900, 1100)
    >>> found.table.set_index("n_components")["bic"].idxmin()
    2
    """
    words = _candidates_in_words(n_components, covariance_type)
    checks.one_of("criterion", criterion, CRITERIA)
    checks.one_of("on_failed", on_failed, ("warn", "raise", "ignore"))
    checks.one_of("init_params", init_params, START_NAMES)
    checks.one_of("method", method, ("dfmr", "mr"))
    checks.integer("refine", refine, 0)
    _check_share(test_share, criterion)
    parameters: dict[str, Any] = {
        "tol": tol,
        "reg_covar": reg_covar,
        "max_iter": max_iter,
        "n_init": n_init,
        "init_params": init_params,
        "random_state": random_state,
        "source": source,
        "method": method,
        "rho": rho,
        "false_exclusion_rate": false_exclusion_rate,
        "machine_weights": machine_weights,
        "n_references": n_references,
        "penalty": penalty,
        "min_partition_rows": min_partition_rows,
        "nan_policy": nan_policy,
        "partition_timeout": partition_timeout,
        "n_partitions": n_partitions,
        "split_every": split_every,
        "trusted_workers": trusted_workers,
    }
    pipeline = build_pipeline(
        X,
        **words[0],
        **parameters,
        weights_init=None,
        means_init=None,
        precisions_init=None,
        n_starts=1,
        block_size=None,
    )
    own = {"refine": refine, "on_failed": on_failed, "verbose": verbose}
    with trusting(pipeline.trusted):
        run = _Run(pipeline, words, float(test_share), int(refine), verbose)
        selection = run.choose(criterion, parameters | own)
    _tell(selection, run.scored, on_failed)
    return selection


# -- the border ------------------------------------------------------------------------------------


def _candidates_in_words(n_components: Any, covariance_type: Any) -> list[Words]:
    numbers, structures = (
        _several("n_components", n_components),
        _several("covariance_type", covariance_type),
    )
    for k in numbers:
        checks.integer("n_components", k, 1, alternative="integers; each must be ")
    for structure in structures:
        checks.one_of("covariance_type", structure, COVARIANCE_TYPES)
    return [
        {"n_components": int(k), "covariance_type": str(structure)}
        for structure in structures
        for k in numbers
    ]


def _several(name: str, values: Any) -> list[Any]:
    """One value or several, all different."""
    is_one = isinstance(values, str) or not isinstance(values, Iterable)
    found = [values] if is_one else list(values)
    if not found or any(found.index(value) < i for i, value in enumerate(found)):
        raise ValueError(f"{name} must be one value, or several different ones; got {values!r}.")
    return found


def _check_share(test_share: Any, criterion: str) -> None:
    checks.number("test_share", test_share)
    if not 0 <= test_share <= 0.5:
        raise ValueError(f"test_share must be a share from 0 to 0.5; got {test_share!r}.")
    if criterion == "held_out" and test_share == 0:
        raise ValueError("test_share must be positive for criterion='held_out'; got 0.")


# -- the two reads ---------------------------------------------------------------------------------


class _Run:
    """A selection on its way: candidates are numbered as in the table."""

    def __init__(
        self, pipeline: Pipeline, words: list[Words], test_share: float, refine: int, verbose: int
    ) -> None:
        self.words, self.refine = words, refine
        settings = [_settings_of(pipeline, w, test_share) for w in words]
        reader = Reader(pipeline.partitions, settings[0], pipeline.split_every, verbose)
        sizes = [_n_parameters(s, pipeline.partitions.n_features or 1) for s in settings]
        self.fits = fit_all(
            reader.partitions, settings, pipeline.options, int(np.argmin(sizes)), verbose
        )
        self.reasons = {
            c: str(a)
            for c, a in enumerate(self.fits.aggregates)
            if not isinstance(a, AggregationResult)
        }
        self._require_some()
        self.judged = self.fits.judged(self._n_features())
        self.common = find_common_set(self.judged)
        reduced = self.fits.reduce(self.common, self._refusals())
        self.aggregates = {c: a for c, a in enumerate(reduced) if a is not None}
        for c, aggregate in enumerate(reduced):
            if aggregate is None and c not in self.reasons:
                self.reasons[c] = "it has no estimate of any partition of the common set"
        self.numbers = list(self.aggregates)
        self.scored = climb_and_score(
            reader,
            [settings[c] for c in self.numbers],
            [self.aggregates[c].mixture for c in self.numbers],
            self._rows_before(),
            refine,
        )

    def _require_some(self) -> None:
        if len(self.reasons) == len(self.words):
            first = f"{_said(self.words[0])}: {self.reasons[0]}"
            raise AggregationError(
                f"none of the {len(self.words)} candidates could be fitted ({first})",
                report=partition_report(self.fits.rows[0], None),
            )

    def _n_features(self) -> int:
        first = next(a for a in self.fits.aggregates if isinstance(a, AggregationResult))
        return first.mixture.n_features

    def _rows_before(self) -> dict[int, int]:
        """Training rows of each partition of the common set."""
        rows = self.fits.rows[self.common.reference]
        return {int(i): rows[i]["n_samples"] for i in np.flatnonzero(self.common.kept)}

    def _refusals(self) -> dict[int, Reason]:
        """Why partitions are not in the common set."""
        common, own = self.common, self.fits.aggregates[self.common.reference]
        assert isinstance(own, AggregationResult)
        said = _said(self.words[common.reference])
        refusals: dict[int, Reason] = {}
        for i in np.flatnonzero(~common.kept).tolist():
            if own.decision.kept[i]:
                against = int(common.n_against[i]), int(common.n_judges[i])
                refusals[i] = ExcludedByCandidates(*against)
            else:
                refusals[i] = ExcludedWithReference(said, own.decision.reasons_for(i)[0])
        return refusals

    def choose(self, criterion: str, parameters: Words) -> Selection:
        """The table, and the candidate that the criterion says."""
        scores = self.scored.scores
        if scores is None:
            examples = "; ".join(f"{i}: {what}" for i, what in list(self.scored.lost.items())[:3])
            raise AggregationError(
                f"none of the {self.common.kept.sum()} partitions to compare candidates on could be read again "
                f"({examples}).",
                report=partition_report(self.fits.rows[self.common.reference], None),
            )
        table = self._table()
        best = _best_of(table, criterion)
        mixture = self.scored.mixtures[self.numbers.index(best)]
        aggregate = self.aggregates[best]
        if self.refine:
            aggregate = replace(aggregate, mixture=mixture, unrefined=aggregate.mixture)
        followed = FollowUp(aggregate, aggregate.decision.kept, self._reasons_of_the_lost())
        result = FitResult(aggregate, self.fits.rows[best], None)
        estimator = as_fitted(self.words[best] | parameters, result, followed)
        mixtures: list[Mixture | None] = [None] * len(self.words)
        for c, found in zip(self.numbers, self.scored.mixtures, strict=True):
            mixtures[c] = found
        used = np.zeros(len(self.common.kept), dtype=bool)
        used[self.scored.used] = True
        return Selection(
            table,
            criterion,
            best,
            mixture,
            tuple(mixtures),
            Aggregate.of(aggregate),
            estimator,
            used,
            estimator.partition_report_.assign(
                n_against=self.common.n_against, n_judges=self.common.n_judges
            ),
            self.common.reference,
            scores.n_samples,
            scores.n_held_out,
            2 + self.refine,
        )

    def _reasons_of_the_lost(self) -> dict[int, Reason]:
        return {i: NotCompared(reason) for i, reason in self.scored.lost.items()}

    def _table(self) -> pd.DataFrame:
        scores = self.scored.scores
        assert scores is not None
        places = {c: k for k, c in enumerate(self.numbers)}
        rows = []
        for c, words in enumerate(self.words):
            row = words | {"n_parameters": int(self.judged.n_parameters[c])}
            if c in places:
                k = places[c]
                row |= {name: getattr(scores.scores[k], name) for name in _SCORES}
                row |= {"held_out_gap": scores.gaps[k], "held_out_gap_se": scores.gap_errors[k]}
            own = self.judged.judged[c]
            row["n_excluded"] = int((own & ~self.judged.kept[c]).sum())
            row["n_fitted"] = int(self.aggregates[c].decision.kept.sum()) if c in places else 0
            row["converged"] = c in places and self._has_converged(c)
            row["reason"] = self.reasons.get(c, "")
            rows.append(row)
        return pd.DataFrame(rows, columns=list(_COLUMNS))

    def _has_converged(self, c: int) -> bool:
        aggregate = self.aggregates[c]
        kept = np.flatnonzero(aggregate.decision.kept)
        outcomes = {self.fits.rows[c][i]["outcome"] for i in kept}
        return bool(aggregate.converged and outcomes == {Outcome.FITTED.value})


_SCORES = ("log_likelihood", "aic", "bic", "icl", "held_out", "held_out_se")
_COLUMNS = (
    "n_components",
    "covariance_type",
    "n_parameters",
    *_SCORES,
    "held_out_gap",
    "held_out_gap_se",
    "n_excluded",
    "n_fitted",
    "converged",
    "reason",
)


def _best_of(table: pd.DataFrame, criterion: str) -> int:
    """The row that a criterion takes."""
    gaps, errors = table["held_out_gap"].to_numpy(), table["held_out_gap_se"].to_numpy()
    sizes = table["n_parameters"].to_numpy()
    return pick(table[criterion].to_numpy(), sizes, gaps, errors, criterion)


def _settings_of(pipeline: Pipeline, words: Words, test_share: float) -> FitSettings:
    settings = pipeline.settings
    problem = replace(
        settings.problem,
        family=Gaussian(words["covariance_type"]),
        n_components=words["n_components"],
    )
    return replace(settings, problem=problem, test_share=test_share)


def _n_parameters(settings: FitSettings, n_features: int) -> int:
    problem = settings.problem
    return problem.family.n_parameters(problem.n_components, n_features)


def _said(words: Words) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in words.items())


def _tell(selection: Selection, scored: Scored, on_failed: str) -> None:
    """Warn of, or raise, what the user asked for."""
    selection.aggregate.warn(stacklevel=3)
    report = selection.partition_report
    texts = [describe_failures(report)] if len(failures(report)) else []
    if scored.lost:
        first = "; ".join(f"partition {i}: {what}" for i, what in list(scored.lost.items())[:3])
        texts.append(f"candidates were not compared on {len(scored.lost)} partitions: {first}")
    if not texts or on_failed == "ignore":
        return
    text = ". ".join(texts)
    if on_failed == "raise":
        raise PartitionError(f"{text}. on_failed='warn' goes on with the others.")
    warnings.warn(f"{text}. See partition_report.", PartitionWarning, stacklevel=3)
