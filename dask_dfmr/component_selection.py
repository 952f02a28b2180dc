"""``select_components``: the number of components and the structure that the consistent partitions support.

Candidates are fitted in one read and compared in a second one, on partitions that are the same for all of them::

    fit_all -> find_common_set -> reduce -> climb_and_score -> pick
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dask_dfmr import checks
from dask_dfmr.aggregation.reasons import (
    ExcludedByCandidates,
    ExcludedWithReference,
    Gained,
    NotCompared,
    Reason,
    in_short,
)
from dask_dfmr.aggregation.result import AggregationResult
from dask_dfmr.estimator import GaussianMixture, as_fitted
from dask_dfmr.exceptions import AggregationError, PartitionError, PartitionWarning, warn
from dask_dfmr.explanation.report import describe_failures, failures, partition_report
from dask_dfmr.local.estimate import Outcome
from dask_dfmr.mixtures.gaussian import COVARIANCE_TYPES, Gaussian, Mixture
from dask_dfmr.on_dask.candidates import CandidateFits, Scored, climb_and_score, fit_all
from dask_dfmr.on_dask.candidates_again import look_again
from dask_dfmr.on_dask.fit_plan import Fit, FitPlan
from dask_dfmr.on_dask.rereading import Reader
from dask_dfmr.on_dask.tasks import FitSettings
from dask_dfmr.on_dask.unread import describe_unread
from dask_dfmr.parameters import (
    START_NAMES,
    parameters_of,
    plan_of,
    warn_of_partitions,
)
from dask_dfmr.reporting.page import write_report
from dask_dfmr.reporting.reprs import in_html, in_text
from dask_dfmr.reprs import html_lines, html_table, text_table
from dask_dfmr.results import Aggregate, warn_of
from dask_dfmr.selection.common_set import CommonSet, Judged, find_common_set
from dask_dfmr.selection.criteria import CRITERIA, pick

MOST_EXAMPLES = 3
"""Partitions that a message lists as examples."""


@dataclass(frozen=True, eq=False, repr=False)
class Selection:
    """Candidates compared on the same rows, and the selected one.

    Attributes
    ----------
    table : pandas.DataFrame
        One row per candidate, in the order in which they were given. Its columns:

        - ``n_components``, ``covariance_type``: the candidate.
        - ``n_parameters``: number of free parameters.
        - ``log_likelihood``: of all training rows of the common set, in nats.
        - ``aic``, ``bic``, ``icl``: of the same rows; lower is better.
        - ``held_out``: mean log-likelihood of the held-out rows, in nats per row; higher is better.
        - ``held_out_se``: its standard error, from the differences between partitions.
        - ``held_out_gap``: by how much ``held_out`` is below that of the best candidate.
        - ``held_out_gap_se``: the standard error of that difference, which is far smaller.
        - ``n_excluded``: number of partitions that the candidate's own filter excluded.
        - ``n_fitted``: number of partitions of the common set whose estimates form the candidate.
        - ``converged``: whether those local fits and the reduction converged.
        - ``spurious``: whether a component has fewer training rows than determine it: for "full", no more than there
          are columns. A handful of rows that lie close together raises the likelihood without end. So no criterion
          selects such a candidate, unless all are.
        - ``reason``: why the candidate could not be compared. Its numbers are NaN then. Otherwise empty.
    criterion : str
        The criterion that decided.
    best : int
        The row of the table that was selected.
    mixture : Mixture
        The selected mixture, as it was measured.
    mixtures : tuple of Mixture or None
        The mixtures of all candidates, in the order of the table. None for one that could not be compared.
    aggregate : Aggregate
        The aggregation of the selected candidate.
    estimator : GaussianMixture
        A fitted estimator with the selected mixture: ``predict`` and the like work on collections. The held-out rows
        are not in it. ``estimator.set_params(warm_start=True).fit(X)`` continues from it with all rows.
    kept : ndarray of bool, shape (n_partitions,)
        The common set: partitions on whose rows all candidates were compared.
    partition_report : pandas.DataFrame
        One row per partition, as :attr:`GaussianMixture.partition_report_` of the selected candidate. Two more columns:
        ``n_against``, the number of candidates whose own filter excludes the partition, and ``n_judges``, the number
        of those that have an estimate of it.
    reference : int
        The row of the table whose filter was the reference: the candidate whose BIC exceeds the best BIC by the
        smallest median amount over all partitions.
    n_samples, n_held_out : int
        Numbers of training rows and of held-out rows in the common set.
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
        """Number of components of the selected candidate."""
        return self.mixture.n_components

    @property
    def covariance_type(self) -> str:
        """Structure of the covariance matrices of the selected candidate."""
        return self.mixture.covariance_type

    def best_by(self, criterion: str) -> pd.Series[Any]:
        """The row of the table that another criterion selects.

        Parameters
        ----------
        criterion : {"bic", "aic", "icl", "held_out"}

        Raises
        ------
        ValueError
            If there is no such criterion, or no rows were held out for it.
        """
        checks.one_of("criterion", criterion, CRITERIA)
        if criterion == "held_out" and not self.n_held_out:
            raise ValueError(
                "criterion must not be 'held_out' if no rows are held out; got 'held_out'. Select with test_share > 0."
            )
        return self.table.iloc[_best_of(self.table, criterion)]

    def report(
        self, path: str | os.PathLike[str], X: Any = None, *, title: str | None = None
    ) -> None:
        """Write a page about the selection: one HTML file that loads nothing from anywhere.

        It has the verdict in a sentence, warnings, explanations, the mixture, pictures, the candidates, a table of the
        partitions that can be sorted and searched, parameters, versions and a digest of the mixture. Everything that
        comes from data is escaped. Without matplotlib (the extra ``plots``) it has no pictures.

        Parameters
        ----------
        path : str or path
            The file is written beside it and then renamed, so that there is never half a file.
        X : as for :meth:`GaussianMixture.fit`, optional
            Rows to count behind the ellipses of the mixture. None: no rows, and nothing is read.
        title : str, optional
            Heading of the page.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        write_report(self, path, X, title)

    def __str__(self) -> str:
        return f"{self!r}\n{text_table(*self._table(), 'candidates')}\n{in_text(self)}"

    def _repr_html_(self) -> str:
        return html_lines(repr(self)) + html_table(*self._table(), "candidates") + in_html(self)

    def _table(self) -> tuple[list[str], list[list[str]]]:
        """The candidates as cells of text; the selected one has a mark."""
        numbers = [c for c in ("bic", "aic", "icl", "held_out") if self.table[c].notna().any()]
        rows = [
            [
                f"{row['n_components']}{' *' * (i == self.best)}",
                row["covariance_type"],
                *(f"{row[c]:.6g}" for c in numbers),
                "spurious" if row["spurious"] else row["reason"],
            ]
            for i, row in enumerate(self.table.to_dict("records"))
        ]
        return ["n_components", "covariance_type", *numbers, ""], rows

    def __repr__(self) -> str:
        chosen = f"n_components={self.n_components}, covariance_type={self.covariance_type!r}"
        compared = f"{(self.table['reason'] == '').sum()} of {len(self.table)} candidates compared"
        rows = f"{self.n_samples} rows and {self.n_held_out} held out"
        where = f"{self.kept.sum()} of {len(self.kept)} partitions"
        return f"Selection({chosen} by {self.criterion}; {compared} on {rows} of {where})"


def select_components(
    estimator: Any,
    X: Any,
    n_components: int | Iterable[int] = range(1, 11),
    covariance_type: str | Iterable[str] | None = None,
    *,
    criterion: Literal["bic", "aic", "icl", "held_out"] = "bic",
    test_share: float = 0.1,
) -> Selection:
    """Select the number of components and the structure of the covariances, on the consistent partitions.

    The data are read twice, on the scheduler that is active; eager.

    1. Every partition fits all candidates, to the same training rows. Each candidate is filtered on its own. One
       candidate serves as the reference: the one whose BIC exceeds the best BIC by the smallest median amount over all
       partitions. A partition is excluded if the filter of the reference excludes it, or if more than half of the
       candidates that have an estimate of it do. As in a fit, excluded partitions nearest to the consensus are read
       once more, and kept if their rows do not contradict the reference. The others are the common set, and every
       candidate is reduced again from its estimates there.
    2. All candidates are measured on the training rows and on the held-out rows of the common set.

    So candidates are compared on the same rows, and inconsistent partitions have no influence, as long as more than
    half of the partitions are consistent.

    Parameters
    ----------
    estimator : GaussianMixture
        Its parameters are those of all candidates; it is not changed.

        - ``n_components`` is ignored. So is ``covariance_type``, if the argument of that name is given.
        - ``method`` must be "dfmr", or "mr", which filters nothing.
        - ``init_params`` must be a name, and the other ``*_init`` parameters must be None.
        - ``refine`` must be an int. So many EM passes over the training rows are made for all candidates before they
          are measured. Each pass is one more read of the data, for all candidates together. Passes are worth it if
          partitions have few rows: the bias of such estimates costs candidates with many parameters most.
        - ``on_failed`` concerns partitions that the selected candidate could not be fitted to, and those that could
          not be read again.
        - ``partition_timeout`` is the time for the fits of all candidates together.
        - ``warm_start`` starts no fit here. If the estimator is fitted, the candidate of the same shape has its
          components in the order of the last mixture.
        - ``refit_excluded`` is whether the rows of excluded partitions are held against the reference, as in a fit.
        - ``check_optimum`` and ``keep_estimates`` have no effect on the selection. They have one on a later fit of the
          selected estimator, and so has ``warm_start``.
    X : dask DataFrame, dask Array, list, frame or array-like
        As for :meth:`GaussianMixture.fit`.
    n_components : int or iterable of int, default range(1, 11)
        Numbers of components.
    covariance_type : str, iterable of str or None, default None
        Structures of the covariances: "full", "tied", "diag" and "spherical". Each is combined with each number of
        components. None is the structure of ``estimator``.
    criterion : {"bic", "aic", "icl", "held_out"}, default "bic"
        What decides. The table has all of them.

        - "bic" finds the number of components if the population is such a mixture.
        - "icl" finds the number of clusters: components that overlap much count as one.
        - "aic" and "held_out" look for the best density, and select more components if the population is not a mixture
          of few. "held_out" selects the fewest parameters within one standard error, of the difference, of the best.

        With ``row_outliers="truncate"`` no row counts less than a floor, which is the same for all candidates.
    test_share : float, default 0.1
        Share of the rows of every partition that no fit uses, drawn by seed; from 0 to 0.5.

    Returns
    -------
    Selection

    Raises
    ------
    TypeError, ValueError
        If an argument or a parameter of the estimator is wrong. Nothing was read then, except a column of ``source``.
    AggregationError
        If no candidate could be fitted and measured. Its ``report`` gives the reason for each partition.
    PartitionError
        If a partition could not be fitted or compared on, and ``on_failed="raise"``.

    Warns
    -----
    ExclusionWarning, PartitionWarning, HeterogeneityWarning, FilterWarning
        As :meth:`GaussianMixture.fit`, for the selected candidate.

    Notes
    -----
    The rows of at most 16 partitions stay in memory from the search for starts until they are fitted. If they take
    more than 32 MB, they are read a third time instead. A partition with too few rows for the reference is not judged,
    and is not in the common set. A partition of the common set may have too few rows for a larger candidate. It is then
    not part of that candidate's mixture (``n_fitted``), but the candidate is measured on it.

    Examples
    --------
    The first of twelve partitions is in another unit:

    >>> import dask.array as da, numpy as np
    >>> from dask_dfmr import GaussianMixture
    >>> rng = np.random.default_rng(0)
    >>> rows = np.concatenate([rng.normal(-4, 1, (4000, 2)), rng.normal(4, 1, (8000, 2))])
    >>> rows = rng.permutation(rows)
    >>> rows[:1000] *= 1000
    >>> X = da.from_array(rows, chunks=(1000, 2))
    >>> found = select_components(GaussianMixture(random_state=0), X, [1, 2, 3])
    >>> found.n_components, found.n_samples, found.n_held_out
    (2, 9900, 1100)
    >>> found.table.set_index("n_components")["bic"].idxmin()
    2
    """
    values = parameters_of(estimator, call="select_components(GaussianMixture(), X)")
    structures = values["covariance_type"] if covariance_type is None else covariance_type
    candidates = _candidates(n_components, structures)
    _check(values, criterion, test_share)
    last = getattr(estimator, "mixture_", None) if values["warm_start"] else None
    plan = plan_of(estimator, X)
    warn_of_partitions(plan)
    with plan.scheduler.session():
        comparison = _compare(plan, candidates, float(test_share), int(values["refine"]), last)
        selection = _select(comparison, criterion, values, X)
        _report(selection, comparison, values)
    return selection


# -- arguments -------------------------------------------------------------------------------------


class Candidate(NamedTuple):
    """A number of components and a structure of the covariances."""

    n_components: int
    covariance_type: str

    def __str__(self) -> str:
        return f"n_components={self.n_components}, covariance_type={self.covariance_type!r}"


def _candidates(n_components: Any, covariance_type: Any) -> list[Candidate]:
    numbers = _one_or_more("n_components", n_components)
    structures = _one_or_more("covariance_type", covariance_type)
    for k in numbers:
        checks.integer("n_components", k, 1, alternative="integers; each must be ")
    for structure in structures:
        checks.one_of("covariance_type", structure, COVARIANCE_TYPES)
    return [Candidate(int(k), str(structure)) for structure in structures for k in numbers]


def _one_or_more(name: str, values: Any) -> list[Any]:
    """The values as a list; a ValueError if there is none, or one of them twice."""
    is_one = isinstance(values, str) or not isinstance(values, Iterable)
    found = [values] if is_one else list(values)
    if not found or any(found.index(value) < i for i, value in enumerate(found)):
        raise ValueError(f"{name} must be one value, or several different ones; got {values!r}.")
    return found


def _check(values: Mapping[str, Any], criterion: str, test_share: Any) -> None:
    """Raise an error for a wrong argument, and for a parameter that a selection cannot use."""
    checks.one_of("criterion", criterion, CRITERIA)
    checks.number("test_share", test_share)
    if not 0 <= test_share <= 0.5:
        raise ValueError(f"test_share must be a share from 0 to 0.5; got {test_share!r}.")
    if criterion == "held_out" and test_share == 0:
        raise ValueError("test_share must be positive for criterion='held_out'; got 0.")
    checks.one_of("method", values["method"], ("dfmr", "mr"))
    checks.integer("refine", values["refine"], 0)
    checks.one_of("init_params", values["init_params"], START_NAMES)
    for name in ("weights_init", "means_init", "precisions_init"):
        if values[name] is not None:
            raise ValueError(
                f"{name} must be None in a selection, whose candidates differ in their numbers of components; "
                f"got {values[name]!r:.100}. Leave it out."
            )


# -- the two reads ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Comparison:
    """All candidates after both reads. A candidate's number is its row in the table.

    Attributes
    ----------
    candidates : list of Candidate
    fits : CandidateFits
        Their local fits, and an aggregate of each by its own filter.
    judged : Judged
    common : CommonSet
        The partitions that they were compared on.
    aggregates : dict of int to AggregationResult
        The reductions of the common set, of those candidates that have one.
    reasons : dict of int to str
        Why the other candidates have none.
    scored : Scored
        In the order of ``aggregates``.
    n_passes : int
        EM passes before the last read.
    gained : dict of int to Gained
        What a second look found of partitions that it kept.
    """

    candidates: list[Candidate]
    fits: CandidateFits
    judged: Judged
    common: CommonSet
    aggregates: dict[int, AggregationResult]
    reasons: dict[int, str]
    scored: Scored
    n_passes: int
    gained: dict[int, Gained]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Report rows of the partitions under the reference."""
        return self.fits.rows[self.common.reference]

    @property
    def mixtures(self) -> list[Mixture | None]:
        """The mixtures as they were measured; None for a candidate that was not."""
        measured = dict(zip(self.aggregates, self.scored.mixtures, strict=True))
        return [measured.get(c) for c in range(len(self.candidates))]


def _compare(
    plan: FitPlan,
    candidates: list[Candidate],
    test_share: float,
    n_passes: int,
    last: Mixture | None,
) -> _Comparison:
    """Fit all candidates, find the common set, and measure them there; ``last`` gives its order to its equals."""
    settings = [_settings_of(plan, candidate, test_share, last) for candidate in candidates]
    reader = Reader(replace(plan, settings=settings[0]), purpose="comparing candidates")
    sizes = [_n_parameters(s, plan.partitions.n_features or 1) for s in settings]
    fits = fit_all(replace(plan, partitions=reader.partitions), settings, int(np.argmin(sizes)))
    reasons = {c: str(a) for c, a in enumerate(fits.aggregates) if isinstance(a, AggregationError)}
    if len(reasons) == len(candidates):
        raise AggregationError(
            f"none of the {len(candidates)} candidates could be fitted ({candidates[0]}: {reasons[0]})",
            report=partition_report(fits.rows[0], None),
        )
    judged = fits.judged(_n_features(fits))
    common = find_common_set(judged)
    fits, gained = look_again(reader, fits, common.reference)
    if gained:
        judged = fits.judged(_n_features(fits))
        common = find_common_set(judged)
    reduced = fits.reduce(common, _refusals(fits, common, candidates))
    aggregates = {c: a for c, a in enumerate(reduced) if a is not None}
    for c in range(len(candidates)):
        if c not in aggregates:
            reasons.setdefault(c, "it has no estimate of any partition of the common set")
    rows = fits.rows[common.reference]
    scored = climb_and_score(
        reader,
        [settings[c] for c in aggregates],
        [aggregate.mixture for aggregate in aggregates.values()],
        {int(i): rows[i]["n_samples"] for i in np.flatnonzero(common.kept)},
        n_passes,
    )
    return _Comparison(
        candidates, fits, judged, common, aggregates, reasons, scored, n_passes, gained
    )


def _settings_of(
    plan: FitPlan, candidate: Candidate, test_share: float, last: Mixture | None
) -> FitSettings:
    family = Gaussian(candidate.covariance_type, plan.settings.problem.family.cut)
    problem = replace(plan.settings.problem, family=family, n_components=candidate.n_components)
    return replace(plan.settings, problem=problem, test_share=test_share, order=last)


def _n_parameters(settings: FitSettings, n_features: int) -> int:
    problem = settings.problem
    return problem.family.n_parameters(problem.n_components, n_features)


def _n_features(fits: CandidateFits) -> int:
    """Number of columns, from the first candidate that could be aggregated."""
    return next(
        a.mixture.n_features for a in fits.aggregates if not isinstance(a, AggregationError)
    )


def _refusals(
    fits: CandidateFits, common: CommonSet, candidates: list[Candidate]
) -> dict[int, Reason]:
    """Why partitions are not in the common set."""
    reference = fits.aggregates[common.reference]
    assert not isinstance(reference, AggregationError)
    refusals: dict[int, Reason] = {}
    for i in np.flatnonzero(~common.kept).tolist():
        if reference.decision.kept[i]:
            refusals[i] = ExcludedByCandidates(int(common.n_against[i]), int(common.n_judges[i]))
        else:
            refusals[i] = ExcludedWithReference(
                str(candidates[common.reference]), reference.decision.reasons_for(i)[0]
            )
    return refusals


# -- the choice ------------------------------------------------------------------------------------


def _select(
    comparison: _Comparison, criterion: str, values: Mapping[str, Any], X: Any
) -> Selection:
    """The candidate that the criterion selects, with what is known of all."""
    scored, common = comparison.scored, comparison.common
    if scored.scores is None:
        raise AggregationError(
            f"none of the {common.kept.sum()} partitions to compare candidates on could be read again "
            f"({_examples(scored.lost)}).",
            report=partition_report(comparison.rows, None),
        )
    table = _table_of(comparison)
    best = _best_of(table, criterion)
    fit = _fit_of(comparison, best)
    estimator = as_fitted({**values, **comparison.candidates[best]._asdict()}, fit, X)
    used = np.zeros(len(common.kept), dtype=bool)
    used[scored.used] = True
    return Selection(
        table=table,
        criterion=criterion,
        best=best,
        mixture=estimator.mixture_,
        mixtures=tuple(comparison.mixtures),
        aggregate=estimator.aggregate_,
        estimator=estimator,
        kept=used,
        partition_report=estimator.partition_report_.assign(
            n_against=common.n_against, n_judges=common.n_judges
        ),
        reference=common.reference,
        n_samples=scored.scores.n_samples,
        n_held_out=scored.scores.n_held_out,
        n_reads=2 + comparison.n_passes,
    )


def _fit_of(comparison: _Comparison, c: int) -> Fit:
    """A candidate as the fit that an estimator can learn."""
    aggregate, mixture = comparison.aggregates[c], comparison.mixtures[c]
    assert mixture is not None
    if comparison.n_passes:
        aggregate = replace(aggregate, mixture=mixture, unrefined=aggregate.mixture)
    lost = comparison.scored.lost
    kept = aggregate.decision.kept
    reasons: dict[int, Reason] = {i: g for i, g in comparison.gained.items() if kept[i]}
    reasons |= {i: NotCompared(reason) for i, reason in lost.items()}
    return replace(Fit.of(aggregate, comparison.fits.rows[c], None), reasons=reasons)


_SCORES = ("log_likelihood", "aic", "bic", "icl", "held_out", "held_out_se")
"""Columns of the table that are attributes of a :class:`Score`."""

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
    "spurious",
    "reason",
)
"""All columns of the table, in their order."""


def _table_of(comparison: _Comparison) -> pd.DataFrame:
    """One row per candidate; numbers of a candidate that could not be compared are NaN."""
    scores, judged = comparison.scored.scores, comparison.judged
    assert scores is not None
    rows = []
    for c, candidate in enumerate(comparison.candidates):
        row: dict[str, Any] = candidate._asdict()
        row["n_parameters"] = int(judged.n_parameters[c])
        row["n_excluded"] = int((judged.judged[c] & ~judged.kept[c]).sum())
        row |= {"n_fitted": 0, "converged": False, "spurious": False}
        row["reason"] = comparison.reasons.get(c, "")
        rows.append(row)
    measured = zip(comparison.aggregates.items(), comparison.scored.mixtures, strict=True)
    for k, ((c, aggregate), mixture) in enumerate(measured):
        rows[c]["spurious"] = _is_spurious(mixture, scores.n_samples)
        rows[c] |= {name: getattr(scores.scores[k], name) for name in _SCORES}
        rows[c] |= {"held_out_gap": scores.gaps[k], "held_out_gap_se": scores.gap_errors[k]}
        rows[c]["n_fitted"] = int(aggregate.decision.kept.sum())
        rows[c]["converged"] = _has_converged(aggregate, comparison.fits.rows[c])
    return pd.DataFrame(rows, columns=list(_COLUMNS))


def _has_converged(aggregate: AggregationResult, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the reduction and all local fits that it is made of converged."""
    kept = np.flatnonzero(aggregate.decision.kept).tolist()
    outcomes = {rows[i]["outcome"] for i in kept}
    return bool(aggregate.converged and outcomes == {Outcome.FITTED.value})


def _is_spurious(mixture: Mixture, n_samples: int) -> bool:
    """Whether a component has fewer rows than its likelihood needs for a maximum of its own."""
    least = mixture.family.least_component_rows(mixture.n_features)
    return bool(mixture.weights.min() * n_samples < least)


def _best_of(table: pd.DataFrame, criterion: str) -> int:
    """The row that a criterion selects."""
    values = table[criterion]
    usual = values.where(~table["spurious"])
    values = usual if usual.notna().any() else values
    gaps, errors = table["held_out_gap"].to_numpy(), table["held_out_gap_se"].to_numpy()
    return pick(values.to_numpy(), table["n_parameters"].to_numpy(), gaps, errors, criterion)


# -- messages --------------------------------------------------------------------------------------


def _report(selection: Selection, comparison: _Comparison, values: Mapping[str, Any]) -> None:
    """Issue the warnings, and raise an error about failed partitions if asked to."""
    on_failed, lost = values["on_failed"], comparison.scored.lost
    warn_of(selection.aggregate.notes, values["warn_excluded"])
    report = selection.partition_report
    texts = [describe_failures(report)] if len(failures(report)) else []
    if lost:
        texts.append(f"candidates were not compared on {len(lost)} partitions: {_examples(lost)}")
    unread = describe_unread(comparison.rows)
    texts += [unread] if unread else []
    if not texts or on_failed == "ignore":
        return
    text = ". ".join(texts)
    if on_failed == "raise":
        raise PartitionError(f"{text}. on_failed='warn' compares candidates on the others.")
    warn(f"{text}. See partition_report.", PartitionWarning)


def _examples(lost: Mapping[int, Reason]) -> str:
    """The reasons of the first few partitions."""
    return "; ".join(
        f"partition {i}: {in_short(str(reason))}"
        for i, reason in list(lost.items())[:MOST_EXAMPLES]
    )
