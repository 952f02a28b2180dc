"""``aggregate`` and its result ``Aggregate``: what a user can do with local estimates and a global mixture.

The computations are in the modules below this one, on :class:`~dask_dfmr.aggregation.result.AggregationResult`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Self

import pandas as pd

from dask_dfmr import checks
from dask_dfmr.aggregation import rerun
from dask_dfmr.aggregation.archive import load_result, save_result
from dask_dfmr.aggregation.exclusions import with_exclusion_note
from dask_dfmr.aggregation.options import FALSE_EXCLUSION_RATE, AggregationOptions, Method
from dask_dfmr.aggregation.plan import aggregate_now
from dask_dfmr.aggregation.reduction import MAX_ROUNDS
from dask_dfmr.aggregation.result import AggregationResult, LocalEstimates, Note, Origin
from dask_dfmr.exceptions import ExclusionWarning, warn
from dask_dfmr.explanation.table import explanation_table
from dask_dfmr.local.estimate import LocalEstimate
from dask_dfmr.mixtures.family import Family
from dask_dfmr.mixtures.gaussian import Gaussian
from dask_dfmr.reporting.page import write_report
from dask_dfmr.reporting.reprs import in_html, in_text
from dask_dfmr.seeds import SeedLike, seed_sequence


@dataclass(frozen=True, eq=False, repr=False)
class Aggregate(AggregationResult):
    """The global mixture, and how it was made.

    Attributes
    ----------
    mixture : Mixture
        Components by decreasing weight.
    decision : FilterDecision
        Which estimates were kept, and why the others were not.
    objective : float
        Composite transportation divergence of the reduction, in nats (0 for ``method="coat"``).
    n_iter : int
        Rounds of the reduction; with ``method="componentwise"`` rounds of matching.
    converged : bool
        Whether no assignment changed in the last round.
    method : str
    notes : tuple of Note
        Warnings, as values; :meth:`warn` issues them.
    unrefined : Mixture or None
        The mixture of the reduction, if ``mixture`` was refined on the rows of the kept sources.
    origin : Origin or None
        The local estimates and options that the mixture was made of, if they were kept.
    """

    @classmethod
    def of(cls, result: AggregationResult) -> Self:
        """A result of the computations as an aggregate."""
        if isinstance(result, cls):
            return result
        return cls(**{field.name: getattr(result, field.name) for field in fields(result)})

    def without(self, partitions: Sequence[int | str] | int | str) -> Self:
        """The aggregate without some of the estimates: what :func:`aggregate` gives for the others, to the last bit.

        Parameters
        ----------
        partitions : int, str or sequence of these
            Their indices, or the names of their sources: ``"part-004.parquet"`` for ``/data/2026/part-004.parquet``, or
            the value of a column, ``"A7"`` for ``sensor='A7'``. The other estimates keep their indices;
            ``decision.refused`` names the removed ones as "removed".

        Returns
        -------
        Aggregate
            Components have the order of this aggregate's. It is not refined, even if this one was. Its notes are not
            issued as warnings: see :meth:`warn`.

        Raises
        ------
        ValueError
            If an index is wrong, a name is that of no source or of several, no estimate would be left, or the
            estimates were not kept.
        AggregationError
            If no usable estimate is left.
        """
        return type(self).of(rerun.without(self, partitions))

    def with_rho(self, rho: float | Literal["auto"]) -> Self:
        """The aggregate with another ``rho``: what :func:`aggregate` gives with it, to the last bit.

        Distances are measured once for all calls. The result is as that of :meth:`without`.

        Parameters
        ----------
        rho : "auto" or float
            As for :func:`aggregate`.

        Returns
        -------
        Aggregate

        Raises
        ------
        ValueError
            If ``rho`` has no allowed value, or the estimates were not kept.
        """
        return type(self).of(rerun.with_rho(self, rho))

    def explain(self, which: Literal["unusual", "excluded", "all"] = "unusual") -> pd.DataFrame:
        """Why estimates were excluded, from the estimates alone.

        Parameters
        ----------
        which : {"unusual", "excluded", "all"}, default "unusual"
            As for :meth:`GaussianMixture.explain`.

        Returns
        -------
        pandas.DataFrame
            One row per estimate; the columns are those of :meth:`GaussianMixture.explain`.

        Raises
        ------
        ValueError
            If ``which`` has no allowed value, or the estimates were not kept.
        """
        return explanation_table(self, which)[0]

    def report(
        self, path: str | os.PathLike[str], X: Any = None, *, title: str | None = None
    ) -> None:
        """Write a page about the aggregate: one HTML file that loads nothing from anywhere.

        It has the verdict in a sentence, warnings, explanations, the mixture, pictures, a table of the partitions
        that can be sorted and searched, parameters, versions and a digest of the mixture. Everything that comes from
        data is escaped. Without matplotlib (the extra ``plots``) it has no pictures.

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

    def save(self, path: str | os.PathLike[str], estimates: bool = True) -> None:
        """Write the aggregate to one file, a zip of JSON and arrays (``docs/reference/file-format.md``).

        Nothing in the file is executable.

        Parameters
        ----------
        path : str or path
            The file is written beside it and then renamed, so that there is never half a file.
        estimates : bool, default True
            Write the local estimates too, if they were kept: :meth:`without`, :meth:`with_rho` and :meth:`explain`
            then work after :meth:`load`.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        save_result(self, path, estimates)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a file of :meth:`save`.

        Parameters
        ----------
        path : str or path

        Returns
        -------
        Aggregate

        Raises
        ------
        OSError
            If the file is not there, or may not be read.
        ValueError
            If it is no such file, has another version, or contradicts itself.
        """
        return cls.of(load_result(path))

    def warn(self) -> None:
        """Issue the notes as warnings, at the line that called the package."""
        warn_of(self.notes)

    def __str__(self) -> str:
        return in_text(self)

    def _repr_html_(self) -> str:
        return in_html(self)

    def __repr__(self) -> str:
        how = (
            f"method={self.method!r}, objective={self.objective:.6g}, "
            f"n_iter={self.n_iter}, converged={self.converged}"
        )
        return f"Aggregate({self.mixture!r}, {self.decision!r}, {how})"


def aggregate(
    estimates: Sequence[LocalEstimate | Mapping[str, Any]],
    *,
    method: Method = "dfmr",
    rho: float | Literal["auto"] = "auto",
    false_exclusion_rate: float = FALSE_EXCLUSION_RATE,
    machine_weights: Literal["rows", "equal"] = "rows",
    n_starts: int = 1,
    max_rounds: int = MAX_ROUNDS,
    n_references: int | Literal["auto"] | None = "auto",
    random_state: SeedLike = None,
    warn_excluded: bool = True,
) -> Aggregate:
    """Combine local estimates into one global mixture, without those that are inconsistent with the majority.

    Parameters
    ----------
    estimates : sequence of LocalEstimate or mapping
        A mapping holds the arrays of a mixture and ``n_samples``, as
        :meth:`LocalEstimate.to_arrays` returns them. Malformed estimates are refused, and so are estimates whose
        family or shape differs from the majority's. ``decision.refused`` has the reasons.

        ``gm.estimates_`` of an estimator has the first fits of partitions that a second look kept. It is judged by
        these, as the fit was. A plain list of the same estimates is not, and a FilterWarning says so.
    method : {"dfmr", "mr", "coat", "hardened", "componentwise"}, default "dfmr"
        "dfmr": distance filtered mixture reduction. "mr": mixture reduction of all estimates, unfiltered. "coat": the
        center alone.

        "hardened": distance filtered mixture reduction with further tests against sources that collude, or that
        change what L2 distances hardly depend on. Copies count as one. No part of an estimate, and no direction along
        which several move together, may be farther off than sampling explains. It takes up to 2,000 estimates
        (``n_references=None`` for more). It is not meant for partitions that differ from one another, because it
        excludes minorities.

        "componentwise": filter component by component with the mixing weights profiled out. Estimates with other
        weights are kept, and of an estimate with an inconsistent component the other components. No estimate is
        then excluded for its weights, whatever they are. Components are kept within ``rho`` radii or within what
        sampling explains. ``n_starts`` and ``max_rounds`` have no effect, and ``n_references`` is the number of
        candidates for the centers.
    rho : "auto" or float, default "auto"
        "auto": an estimate is excluded if its p-value under the null law is below ``false_exclusion_rate``. The null
        law takes account of the numbers of rows and of how the majority scatters. A float: estimates within ``rho``
        times the radius of the center are kept (1.3 in the paper). That is not a significance level: of consistent
        estimates 0 to 35 % lie outside 1.3, most if the mixture has few parameters.
    false_exclusion_rate : float, default 0.001
        Share of consistent estimates that ``rho="auto"`` excludes.
    machine_weights : {"rows", "equal"}, default "rows"
        Weight of an estimate in the reduction: its number of rows, or the same for all (as in the paper).
        An estimate counts for at most ten times the rows of the median estimate, here and in the filter,
        because numbers of rows are claims.
    n_starts : int, default 1
        Number of starts of the reduction: the center, then the kept estimates nearest to it. The best
        reduction is the result.
    max_rounds : int, default 20
        Rounds of a reduction, at most.
    n_references : "auto", int or None, default "auto"
        Number of estimates, drawn at random, that all others are measured against to find candidates for the center.
        The candidates, and everything after them, are measured exactly. More references are safer and slower. None
        measures all pairs, and so does a number of estimates that is not above ``n_references``. "auto" measures all
        pairs up to 2,000 estimates, and takes 512 references beyond.
    random_state : int, RandomState, Generator, SeedSequence or None, default None
        Seed of that draw, and of nothing else. With None it is fresh every time, so that no source can foresee the
        references.
    warn_excluded : bool, default True
        Whether to issue an :class:`ExclusionWarning` if estimates are excluded or refused. It is among the ``notes`` of
        the result in any case.

    Returns
    -------
    Aggregate
        Components are ordered by decreasing weight. :meth:`Mixture.align_to` gives them the order of another mixture.

    Raises
    ------
    ValueError
        If there is no estimate, or an option has no allowed value.
    TypeError
        If an estimate is neither a LocalEstimate nor a mapping.
    AggregationError
        If no estimate is usable.

    Warns
    -----
    ExclusionWarning
        If estimates are excluded or refused (``warn_excluded``).
    PartitionWarning
        If estimates were refused and fewer than half are usable.
    HeterogeneityWarning
        If estimates differ by several times what sampling explains, or form groups.
    FilterWarning
        If there are too few estimates to filter, one holds a large share of the kept rows (more than a fifth, and than
        two average shares), one claims more than ten times the rows of the median one, or some are copies.
    ConvergenceWarning
        If the reduction did not settle.

    References
    ----------
    Zhang, Tan & Chen, Byzantine-tolerant distributed learning of finite mixture models, JRSS-B
    2026, section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from dask_dfmr import Mixture, aggregate, fit_local
    >>> population = Mixture([0.6, 0.4], [[0.0], [9.0]], [[[1.0]], [[1.0]]])
    >>> samples = [population.sample(500, random_state=i)[0] for i in range(10)]
    >>> samples[3] = samples[3] + 5.0
    >>> found = aggregate([fit_local(rows, 2, random_state=0) for rows in samples])
    >>> np.flatnonzero(~found.decision.kept)
    array([3])
    """
    options = AggregationOptions(
        method,
        rho,
        machine_weights,
        n_starts,
        max_rounds,
        n_references,
        false_exclusion_rate,
    )
    checks.one_of("warn_excluded", warn_excluded, (True, False))
    seed = seed_sequence(random_state)
    if not estimates:
        raise ValueError("estimates must hold at least one LocalEstimate; got none.")
    family = _family_of(estimates)
    first = estimates.first if isinstance(estimates, LocalEstimates) else {}
    judged = [first.get(i, e) for i, e in enumerate(estimates)]
    by_rows = first if options.is_calibrated else {}
    gained = {
        i: e for i, e in enumerate(estimates) if i in by_rows and isinstance(e, LocalEstimate)
    }
    found = aggregate_now([_as_message(e) for e in judged], options, seed, family, gained=gained)
    origin = Origin(list(estimates), options, seed, family=family, first=first)
    result = Aggregate.of(with_exclusion_note(replace(found, origin=origin)))
    warn_of(result.notes, warn_excluded)
    return result


def warn_of(notes: Sequence[Note], warn_excluded: bool = True) -> None:
    """Issue notes as warnings, that of the exclusions only if ``warn_excluded``."""
    for note in notes:
        if warn_excluded or note.category is not ExclusionWarning:
            warn(note.message, note.category)


def _as_message(estimate: Any) -> Mapping[str, Any]:
    if isinstance(estimate, LocalEstimate):
        return estimate.to_arrays()
    if isinstance(estimate, Mapping):
        return estimate
    got = type(estimate).__name__
    raise TypeError(
        f"estimates must be LocalEstimate objects or mappings of arrays; got {got}. "
        "Give a bare mixture a row count: LocalEstimate(mixture, n_samples)."
    )


def _family_of(estimates: Sequence[Any]) -> Family:
    """The family that messages are read as: that of the first estimate with one, else Gaussian."""
    families = (
        e.mixture.family
        for e in estimates
        if isinstance(e, LocalEstimate) and e.mixture is not None
    )
    return next(families, Gaussian())
