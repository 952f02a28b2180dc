"""EM passes over the rows of the kept partitions: from the reduced mixture to their joint maximum likelihood.

The reduction averages local estimates, and with them their biases of order 1/n. Further passes lead to the maximiser of
the joint penalised likelihood of all rows used. Moments are summed over partitions; the M-step takes the sum as a local
fit takes the moments of its rows (:mod:`dask_dfmr.local.em`).

With all rows at hand, rows can be tested and not estimates alone. The passes 1, 2, 4, 8 and so on test whether the rows
of a partition contradict those of the others (:mod:`dask_dfmr.refinement.score_test`). If an extrapolation is taken
back there, the next accepted pass does. The mixture moves less and less, and a test may exclude consistent ones.
Partitions with too few rows for an estimate are tested too, and join if their rows do not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from dask_dfmr import checks
from dask_dfmr.aggregation.options import FALSE_EXCLUSION_RATE
from dask_dfmr.aggregation.reasons import (
    ChangedRows,
    ExcludedInPass,
    Joined,
    NotTested,
    OtherRows,
    Reason,
    TooFewPartitions,
    Unreadable,
    in_short,
)
from dask_dfmr.exceptions import RefinementError
from dask_dfmr.local.comparison import mean_log_densities
from dask_dfmr.local.em import Ascent, ComponentCollapsedError, Point
from dask_dfmr.local.fit import LocalProblem
from dask_dfmr.local.row_statistics import Measurement, PartitionStatistics, Total, Wanted
from dask_dfmr.local.stopping import (
    LEAST_ROWS_OF_A_RIDGE,
    SHORT_STEP,
    MeanChange,
    RemainingGain,
)
from dask_dfmr.mixtures.capped_scores import cap_for
from dask_dfmr.mixtures.family import Array
from dask_dfmr.mixtures.gaussian import Mixture
from dask_dfmr.refinement.far_rows import FarRows, RowsJudged, excess_lengths, far_rows
from dask_dfmr.refinement.optima import fresh_start
from dask_dfmr.refinement.same_rows import MOST_GROWTH, RowSums, row_sums
from dask_dfmr.refinement.score_test import (
    ScoreSample,
    ScoreTest,
    components_with_law,
    part_of,
    score_statistics,
    with_rows_outside,
)

FEWEST_TESTED = 4
"""With fewer partitions it cannot be determined which one contradicts the others."""

MOST_PASSES = 100
"""Passes of an automatic refinement; one that needs more is reported as not converged."""

NEGLIGIBLE_GAIN = 0.001
"""Nats of total log-likelihood per free parameter. Sampling costs half a nat each: what remains is a twentieth of a
standard error."""

LOST_SHARE = 0.5
"""A component that loses more than this share of its rows to excluded partitions described those, not the others."""

MOST_TEST_ROUNDS = 5
"""Tests in one pass. Without an excluded partition the total changes, and others may stand out."""


class HeldStatistics(Protocol):
    """Statistics of some partitions, perhaps held by other processes."""

    def numbers(self) -> list[PartitionStatistics]:
        """The statistics of all partitions without their moments."""
        ...

    def total(self, positions: Sequence[int] | None = None) -> Total:
        """Their sum over the partitions at these positions, by default over all."""
        ...

    def map(self, function: Callable[..., Sequence[Any]], *arguments: Any) -> list[Any]:
        """The results of a function of blocks of statistics, joined."""
        ...


class PartitionReader(Protocol):
    """Reads partitions again and measures their rows."""

    def hold(
        self, indices: Sequence[int], mixtures: Sequence[Mixture], wanted: Wanted
    ) -> HeldStatistics:
        """Measure the rows of some partitions under mixtures."""
        ...


@dataclass(frozen=True)
class RefinementOptions:
    """Options of a refinement; checked on construction.

    Parameters
    ----------
    passes : int or "auto", default "auto"
        Passes over the data; "auto": until the remaining gain is negligible.
    level : float, default 1e-3
        Share of consistent partitions that may be excluded: ``false_exclusion_rate``.

    Raises
    ------
    ValueError
        If ``passes`` is neither "auto" nor a non-negative integer.
    """

    passes: int | str = "auto"
    level: float = FALSE_EXCLUSION_RATE

    def __post_init__(self) -> None:
        if not (isinstance(self.passes, str) and self.passes == "auto"):
            checks.integer("refine", self.passes, 0, alternative="'auto' or ")

    @property
    def most_passes(self) -> int:
        """Largest number of passes over the data; 0 means no refinement."""
        return MOST_PASSES if isinstance(self.passes, str) else int(self.passes)


class PassRecord(NamedTuple):
    """One pass over the data.

    ``objective`` is the penalised log-likelihood, in nats, of the rows used, at the mixture that the pass was made
    with. ``mean_log_likelihood`` is the same without the penalty, in nats per row. ``gain`` is by how much the
    objective rose, NaN if the rows were others before. ``accepted`` is False if an extrapolation was taken back: the
    numbers are then those of the last accepted pass. ``excluded`` and ``joined`` are indices of partitions.
    """

    number: int
    objective: float
    mean_log_likelihood: float
    gain: float
    accepted: bool
    n_partitions: int
    n_samples: int
    excluded: tuple[int, ...] = ()
    joined: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Refinement:
    """The result of a refinement.

    Attributes
    ----------
    mixture : Mixture
        Components in the order of the mixture that was refined.
    used : tuple of int
        Partitions whose rows it was fitted to.
    excluded : dict of int to Reason
        Kept partitions that a pass excluded.
    joined, refused : dict of int to Reason
        Partitions with too few rows for an estimate, whose rows are used or not.
    lost : tuple of int
        Those of ``excluded`` that could not be read again.
    passes : tuple of PassRecord
    converged : bool
        Whether the remaining gain is negligible.
    failure : str
        Why it ended early (only with ``penalty=0``); empty if it did not.
    """

    mixture: Mixture
    used: tuple[int, ...]
    excluded: dict[int, Reason] = field(default_factory=dict)
    joined: dict[int, Reason] = field(default_factory=dict)
    refused: dict[int, Reason] = field(default_factory=dict)
    lost: tuple[int, ...] = ()
    passes: tuple[PassRecord, ...] = ()
    converged: bool = False
    failure: str = ""

    @property
    def mean_log_likelihood(self) -> float:
        """Nats per row of the rows used, at the mixture that the last accepted pass was made with."""
        return self.passes[-1].mean_log_likelihood


def refine(
    reader: PartitionReader,
    problem: LocalProblem,
    start: Mixture,
    kept: Mapping[int, int],
    small: Sequence[int],
    options: RefinementOptions,
    seed: np.random.SeedSequence,
    sample: Mapping[int, Array],
) -> Refinement:
    """Refine a mixture on the rows of partitions.

    Parameters
    ----------
    reader : PartitionReader
    problem : LocalProblem
        Of the local fits. Weight and target of the penalty follow from the rows of all partitions together.
    start : Mixture
        The result of the aggregation.
    kept : mapping of int to int
        Partitions whose estimates were aggregated, and their numbers of rows.
    small : sequence of int
        Partitions with too few rows for an estimate, which join if their rows do not contradict the others'.
    options : RefinementOptions
    seed : SeedSequence
        Of the rows drawn for the law of the scores.
    sample : mapping of int to ndarray
        Some rows (n_rows, n_features) of each kept partition. They give the law of the scores, and another start if a
        component turns out to be that of excluded partitions.

    Raises
    ------
    RefinementError
        If none of the kept partitions could be read again.
    """
    run = _Run(reader, problem, start, kept, small, options, seed, sample)
    while not run.is_over:
        run.make_pass()
    return run.result()


class _Pass(NamedTuple):
    """What one pass measured.

    ``places`` are the positions of partitions in ``held``, ``numbers`` are their statistics without moments, and no
    score in ``held`` is longer than ``score_cap``. The rows were measured at ``point`` and, if that is another mixture,
    at ``tested``. ``sums`` are those of the rows at ``point``, and ``far`` has the excess over the capped scores, if
    there are such.
    """

    point: Point
    tested: Point
    held: HeldStatistics
    places: Mapping[int, int]
    numbers: Mapping[int, PartitionStatistics]
    sums: Mapping[int, RowSums]
    score_cap: float | None
    far: FarRows | None

    def totals(self, used: Sequence[int]) -> Total:
        """Sums over the partitions that are used, at ``point`` first and at ``tested`` last."""
        return self.held.total([self.places[i] for i in used])


class _Run:
    """State of a refinement between passes.

    ``used`` are the partitions whose rows are used now, ``untested`` the small ones until the first accepted pass.
    ``n_rows`` and ``marks`` have the number of rows of each partition and their sums, as first read. ``tested`` are the
    sums in the last pass with a test, whose scores had the cap ``cap``; ``doubted`` those of a pass that is made again.
    ``next_test`` is the first pass that tests again, ``chosen`` are the components at which ``test`` was made.
    """

    def __init__(
        self,
        reader: PartitionReader,
        problem: LocalProblem,
        start: Mixture,
        kept: Mapping[int, int],
        small: Sequence[int],
        options: RefinementOptions,
        seed: np.random.SeedSequence,
        sample: Mapping[int, Array],
    ) -> None:
        self.reader, self.problem, self.options, self.sample = reader, problem, options, sample
        self.start = start
        self.point: Point = (start.weights, start.components)
        self.used, self.untested = list(kept), list(small)
        self.fewest = len(self.used) // 2 + 1
        self.usual_rows = float(np.median(list(kept.values())))
        self.ascent: Ascent | None = None
        self.test: ScoreTest | None = None
        self.chosen: NDArray[np.bool_] | None = None
        self.next_test = 1
        self.rng = np.random.default_rng(seed)
        self.n_rows: dict[int, int] = {}
        self.marks: dict[int, RowSums] = {}
        self.tested: Mapping[int, RowSums] = {}
        self.doubted: Mapping[int, RowSums] = {}
        self.cap: float | None = None
        self.excluded: dict[int, Reason] = {}
        self.joined: dict[int, Reason] = {}
        self.refused: dict[int, Reason] = {}
        self.lost: list[int] = []
        self.records: list[PassRecord] = []
        self.failure = ""

    @property
    def number(self) -> int:
        """Number of the current pass, from 1."""
        return len(self.records) + 1

    @property
    def is_over(self) -> bool:
        if len(self.records) >= self.options.most_passes or self.failure:
            return True
        has_converged = self.ascent is not None and self.ascent.converged
        return has_converged and isinstance(self.options.passes, str)

    def result(self) -> Refinement:
        return Refinement(
            self._mixture_at(self.point if self.ascent is None else self.ascent.mapped),
            tuple(self.used),
            self.excluded,
            self.joined,
            self.refused,
            tuple(self.lost),
            tuple(self.records),
            self.ascent is not None and self.ascent.converged,
            self.failure,
        )

    def make_pass(self) -> None:
        made = self._measure()
        lost = self._remove_lost(made)
        if len(self.used) < FEWEST_TESTED:
            self.refused |= {i: NotTested(TooFewPartitions()) for i in self.untested}
            self.untested = []
        if lost and self.ascent is not None:
            # The earlier objective of the remaining rows is not known. EM starts again from the best mixture.
            self.point, self.ascent = self.ascent.mapped, None
            self._record(np.nan, accepted=False, excluded=lost)
            return
        if self._is_doubtful(made):
            # Once more at the same mixture, with the test.
            self.next_test, self.doubted = self.number + 1, made.sums
            self._record(np.nan, accepted=False)
            return
        totals = made.totals(self.used)
        total = totals[0]
        assert total.moments is not None
        accepted = self.ascent is None or self.ascent.accepts(total.log_likelihood, total.moments)
        excluded: list[int] = []
        joined: list[int] = []
        if accepted and made.score_cap is not None and len(self.used) >= FEWEST_TESTED:
            self.next_test = 2 * self.number
            self.tested, self.cap = made.sums, made.score_cap
            excluded, joined = self._test(made, totals[-1])
        if excluded or joined:
            before, total = total, made.totals(self.used)[0]
            if excluded and _is_component_lost(before, total):
                self._start_again(made.point)
                self._record(np.nan, accepted=False, excluded=[*lost, *excluded], joined=joined)
                return
        if self.ascent is None or excluded or joined:
            self.ascent = self._ascent_from(made.point)
        gain = self._ascend(total)
        self._record(gain, accepted, [*lost, *excluded], joined)

    def _measure(self) -> _Pass:
        point = self.point if self.ascent is None else self.ascent.point
        wanted = [*self.used, *self.untested]
        tested, cap = self._tested(point)
        what = Wanted(score_cap=cap, cut=self.problem.family.cut)
        points = [point] if tested is point else [point, tested]
        held = self.reader.hold(wanted, [self._mixture_at(one) for one in points], what)
        places = {i: k for k, i in enumerate(wanted)}
        numbers = held.numbers()
        far = None if cap is None else self._far_rows(held, numbers, tested, cap)
        by_partition = dict(zip(wanted, numbers, strict=True))
        sums = dict(zip(wanted, held.map(row_sums, self.problem.family, points), strict=True))
        return _Pass(point, tested, held, places, by_partition, sums, cap, far)

    def _far_rows(
        self, held: HeldStatistics, numbers: list[PartitionStatistics], tested: Point, cap: float
    ) -> FarRows:
        excess = held.map(excess_lengths, self.problem.family, tested)
        is_used = np.isin([one.partition for one in numbers], self.used)
        return far_rows(np.array(excess), numbers, cap, is_used)

    def _tested(self, point: Point) -> tuple[Point, float | None]:
        """The mixture of the test, and the cap of the scores; None if no partition will be tested in this pass."""
        if self.number < self.next_test or len(self.used) < FEWEST_TESTED:
            return point, None
        family, rows = self.problem.family, self._rows()
        chosen = components_with_law(family, point, rows)
        if self.chosen is None or (chosen != self.chosen).any():
            self.chosen, self.test = chosen, None
        tested = point if chosen.all() else part_of(point, chosen)
        n_parameters = family.n_parameters(int(chosen.sum()), self.start.n_features)
        return tested, cap_for(family, tested, rows, self.usual_rows, n_parameters)

    def _rows(self) -> list[Array]:
        """The sampled rows of the partitions that are used."""
        return [self.sample[i] for i in self.used if i in self.sample]

    def _mixture_at(self, point: Point) -> Mixture:
        return self.problem.family.mixture(*point, self.start.feature_names)

    def _is_doubtful(self, made: _Pass) -> bool:
        """Whether a pass without a test must be made again: the scores of a partition are much longer than tested."""
        if made.score_cap is not None or self.cap is None:
            return False
        return any(
            made.sums[i].score > MOST_GROWTH * max(self.tested[i].score, self.cap)
            for i in self.used
            if i in self.tested
        )

    def _remove_lost(self, made: _Pass) -> list[int]:
        """Exclude partitions that could not be read again or have other rows; returns those that were used."""
        problems = {
            i: problem
            for i, statistics in made.numbers.items()
            if (problem := self._problem_of(statistics, made.sums[i])) is not None
        }
        lost = [i for i in self.used if i in problems]
        self.excluded |= {i: ExcludedInPass(self.number, problems[i]) for i in lost}
        self.refused |= {i: NotTested(problems[i]) for i in self.untested if i in problems}
        self.lost += lost
        self.used = [i for i in self.used if i not in problems]
        self.untested = [i for i in self.untested if i not in problems]
        if not self.used:
            examples = "; ".join(f"{i}: {in_short(str(problems[i]))}" for i in lost[:3])
            raise RefinementError(
                f"none of the {len(lost)} kept partitions could be read again ({examples})."
            )
        for i, statistics in made.numbers.items():
            if statistics.is_measured:
                self.n_rows.setdefault(i, statistics.n_samples)
                self.marks.setdefault(i, made.sums[i])
        self.doubted = {}
        return lost

    def _problem_of(self, statistics: PartitionStatistics, sums: RowSums) -> Reason | None:
        if not statistics.is_measured:
            return Unreadable(statistics.reason)
        i, n_samples = statistics.partition, statistics.n_samples
        before = self.n_rows.get(i, n_samples)
        if before != n_samples:
            return OtherRows(n_samples, before)
        same = sums.has_rows_of(self.marks.get(i, sums)) and sums.has_score_of(
            self.doubted.get(i, sums)
        )
        return None if same else ChangedRows()

    # -- EM --

    def _ascent_from(self, point: Point) -> Ascent:
        """EM on the rows of the partitions that are used now."""
        problem = self.problem
        n_samples = sum(self.n_rows[i] for i in self.used)
        penalty = problem.penalty_of_moments(n_samples)
        n_parameters = self.start.n_parameters
        short_step = SHORT_STEP * n_parameters if n_samples >= LEAST_ROWS_OF_A_RIDGE else 0.0
        rule = (
            RemainingGain(NEGLIGIBLE_GAIN * n_parameters, short_step)
            if problem.tol == "auto"
            else MeanChange(float(problem.tol) * n_samples)
        )
        return Ascent(problem.family, point, penalty, n_samples, rule, problem.is_accelerated)

    def _ascend(self, total: Measurement) -> float:
        """One step of EM from the sums over all rows; returns the gain, NaN if the rows were others before."""
        assert self.ascent is not None
        assert total.moments is not None
        try:
            gain = self.ascent.take(total.log_likelihood, total.moments)
        except ComponentCollapsedError as error:
            self.failure = str(error)
            return np.nan
        return gain if np.isfinite(gain) else np.nan

    # -- which partitions are excluded, which join --

    def _test(self, made: _Pass, total: Measurement) -> tuple[list[int], list[int]]:
        """Exclude partitions whose rows contradict the others', and let small ones join; returns both."""
        excluded: list[int] = []
        judged = self._p_values(made, total, is_new=self.test is None)
        for round_ in range(MOST_TEST_ROUNDS):
            if round_:
                judged = self._p_values(made, made.totals(self.used)[-1])
            found = self._contradicting(made.places, judged)
            if found and not round_:
                # The law was that of a mixture nearby. No partition is excluded by a law that is not exact.
                judged = self._p_values(made, total, is_new=True)
                found = self._contradicting(made.places, judged)
            if not found:
                break
            for i in found:
                reason = judged.reason(made.places[i], self.options.level)
                self.excluded[i] = ExcludedInPass(self.number, reason)
            self.used = [i for i in self.used if i not in found]
            excluded += found
        return excluded, self._let_join(made.places, judged)

    def _p_values(self, made: _Pass, total: Measurement, is_new: bool = False) -> RowsJudged:
        """The score test of every partition against those that are used, by position.

        The test is that of the last mixture at which it was made, or a new one.
        """
        used = frozenset(self.used)
        is_used = np.array([i in used for i in made.places])
        counts = np.array([max(made.numbers[i].n_samples, 1) for i in made.places], dtype=float)

        def statistics(test: ScoreTest) -> Array:
            # The statistic of an excluded partition may be NaN. It does not count, so that any number will do.
            return np.nan_to_num(made.held.map(score_statistics, test, total, used))

        cut, numbers = self.problem.family.cut, list(made.numbers.values())
        assert made.far is not None
        assert made.score_cap is not None
        if self.test is not None and not is_new:
            test = self.test.at(made.tested)
            settled = test.settle(statistics(test), counts, is_used)
            return RowsJudged(
                with_rows_outside(settled, numbers, total, cut), made.far, cut.truncates
            )
        rows = {i: self.sample[i] for i in self.used if i in self.sample}
        sample = ScoreSample(self.problem.family, made.tested, rows, made.score_cap, self.rng)
        self.test, settled = sample.settle(statistics, list(made.places), counts, is_used)
        return RowsJudged(with_rows_outside(settled, numbers, total, cut), made.far, cut.truncates)

    def _start_again(self, point: Point) -> None:
        """Go on from a fit of the sampled rows of the partitions that are used, if it describes them better."""
        family, rows = self.problem.family, self._rows()
        self.point, self.ascent, self.test, self.next_test = point, None, None, self.number + 1
        self.cap = None
        if not rows:
            return
        pooled = np.concatenate(rows)
        fresh = fresh_start(self.problem, pooled, self.rng)
        if fresh is None:
            return
        of_fresh, of_point = mean_log_densities(family, [fresh, point], pooled)
        if of_fresh > of_point:
            aligned = family.mixture(*fresh).align_to(self._mixture_at(point))
            self.point = (aligned.weights, aligned.components)

    def _contradicting(self, places: Mapping[int, int], judged: RowsJudged) -> frozenset[int]:
        """Used partitions with p-values below the level, the worst first, as long as a majority of the kept remains."""
        p_values, z_scores = judged.p_values, judged.z_scores
        below = [i for i in self.used if p_values[places[i]] < self.options.level]
        below.sort(key=lambda i: (-z_scores[places[i]], i))
        return frozenset(below[: max(len(self.used) - self.fewest, 0)])

    def _let_join(self, places: Mapping[int, int], judged: RowsJudged) -> list[int]:
        """Use the untested small partitions whose rows agree, and refuse the others; returns those used."""
        joined = []
        for i in self.untested:
            p_value = float(judged.p_values[places[i]])
            if p_value >= self.options.level:
                self.joined[i] = Joined(p_value)
                joined.append(i)
            else:
                self.refused[i] = judged.reason(places[i], self.options.level)
        self.used = sorted([*self.used, *joined])
        self.untested = []
        return joined

    def _record(
        self,
        gain: float,
        accepted: bool,
        excluded: Sequence[int] = (),
        joined: Sequence[int] = (),
    ) -> None:
        n_samples = sum(self.n_rows[i] for i in self.used)
        known = self.ascent is not None
        objective = self.ascent.objective if self.ascent is not None else float("nan")
        log_likelihood = self.ascent.log_likelihood if self.ascent is not None else float("nan")
        self.records.append(
            PassRecord(
                self.number,
                objective,
                log_likelihood / n_samples if known else float("nan"),
                gain,
                accepted,
                len(self.used),
                n_samples,
                tuple(sorted(excluded)),
                tuple(sorted(joined)),
            )
        )


def _is_component_lost(before: Measurement, after: Measurement) -> bool:
    """Whether the excluded partitions had most rows of a component, beyond their share of all rows."""
    assert before.moments is not None
    assert after.moments is not None
    expected = before.moments[0] * (after.n_samples / before.n_samples)
    return bool((after.moments[0] < (1.0 - LOST_SHARE) * expected).any())
