"""From the reduced mixture to the maximum likelihood of all kept rows: EM passes over the data. Knows no Dask.

The reduction averages local estimates, and with them their biases of order 1/n. Passes over the rows of the kept
partitions take it to the maximiser of their joint penalised likelihood: moments are summed over partitions, and
what is done with the sum is what a local fit does with the moments of its rows (:mod:`dask_dfmr.local.em`).

With all rows at hand more can be judged than estimates: every accepted pass asks whether the rows of a partition
contradict the others' (:mod:`dask_dfmr.refinement.score_test`), those of partitions with too few rows for an estimate included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from dask_dfmr import checks
from dask_dfmr.aggregation.null_law import Settled
from dask_dfmr.aggregation.result import FALSE_EXCLUSION_RATE
from dask_dfmr.exceptions import RefinementError
from dask_dfmr.local.em import Ascent, ComponentCollapsedError, MeanChange, Point, RemainingGain
from dask_dfmr.local.fit import LocalProblem
from dask_dfmr.local.row_statistics import Measurement, PartitionStatistics, Total, Wanted
from dask_dfmr.mixtures.family import Prior
from dask_dfmr.mixtures.gaussian import Mixture
from dask_dfmr.refinement.score_test import ScoreTest, score_statistics, score_test

FEWEST_JUDGES = 4
"""Of fewer partitions nobody can say which one is wrong."""

MOST_PASSES = 100
"""An automatic refinement that needs more says that it did not converge."""

NEGLIGIBLE_GAIN = 0.001
"""Nats of total log-likelihood per free parameter. Sampling costs half a nat each: what remains is a twentieth of a
standard error."""

JUDGING_ROUNDS = 5
"""A partition that is left out pulls the total no longer, and others may stand out then."""


CONTRADICTS = "its rows contradict the others'"


class Held(Protocol):
    """Readings of some partitions that may lie elsewhere; :class:`dask_dfmr.on_dask.rereading.HeldStatistics` is one."""

    def numbers(self) -> list[PartitionStatistics]:
        """All of them without their moments."""
        ...

    def total(self, positions: Sequence[int] | None = None) -> Total:
        """The sum of those at these positions."""
        ...

    def map(self, function: Callable[..., Sequence[Any]], *arguments: Any) -> list[Any]:
        """A function of blocks of readings, its results joined."""
        ...


class Reads(Protocol):
    """Whoever can read partitions; :class:`dask_dfmr.on_dask.rereading.Reader` is one."""

    def hold(self, indices: Sequence[int], mixtures: Sequence[Mixture], wanted: Wanted) -> Held:
        """Measure partitions under mixtures."""
        ...


@dataclass(frozen=True)
class RefinementOptions:
    """What the user can choose about a refinement; checked on construction.

    Parameters
    ----------
    passes : int or "auto", default "auto"
        Passes over the data; "auto": until the remaining gain is negligible.
    level : float, default 1e-3
        Share of honest partitions that may be left out: ``false_exclusion_rate``.
    """

    passes: int | str = "auto"
    level: float = FALSE_EXCLUSION_RATE

    def __post_init__(self) -> None:
        if not (isinstance(self.passes, str) and self.passes == "auto"):
            checks.integer("refine", self.passes, 0, alternative="'auto' or ")

    @property
    def most_passes(self) -> int:
        """Passes at most."""
        return MOST_PASSES if isinstance(self.passes, str) else int(self.passes)


class PassRecord(NamedTuple):
    """What one pass over the data found.

    ``objective`` is the penalised log-likelihood of the rows used, at the mixture that the pass was made with;
    ``mean_log_likelihood`` the same without the penalty, in nats per row; ``gain`` how much it rose, NaN where the
    rows were others before. ``accepted`` is False for an extrapolation that was taken back: the numbers are then
    those of the last accepted pass. ``excluded`` and ``joined`` are partitions.
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
    """What a refinement came to.

    Attributes
    ----------
    mixture : Mixture
        Components in the order of the mixture that was refined.
    used : tuple of int
        Partitions whose rows it was fitted to.
    excluded, joined, refused : dict of int to str
        Kept partitions that were left out in a pass; partitions with too few rows for an estimate that joined, and
        those that did not; each with the reason.
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
    excluded: dict[int, str] = field(default_factory=dict)
    joined: dict[int, str] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    lost: tuple[int, ...] = ()
    passes: tuple[PassRecord, ...] = ()
    converged: bool = False
    failure: str = ""

    @property
    def mean_log_likelihood(self) -> float:
        """Of the rows used, at the mixture that the last accepted pass was made with."""
        return self.passes[-1].mean_log_likelihood


def refine(
    reads: Reads,
    problem: LocalProblem,
    start: Mixture,
    kept: Sequence[int],
    small: Sequence[int],
    options: RefinementOptions,
    seed: np.random.SeedSequence,
) -> Refinement:
    """Refine a mixture on the rows of partitions.

    Parameters
    ----------
    reads : Reads
        Where rows come from.
    problem : LocalProblem
        Of the local fits; the penalty's weight follows from the rows of all partitions together.
    start : Mixture
        The result of the aggregation.
    kept : sequence of int
        Partitions that went into it.
    small : sequence of int
        Partitions with too few rows for an estimate, which join if their rows do not contradict the others'.
    options : RefinementOptions
    seed : SeedSequence
        Of the rows drawn for the law of the scores.
    """
    run = _Run(reads, problem, start, kept, small, options, seed)
    while not run.is_over:
        run.make_pass()
    return run.result()


class _Run:
    """A refinement on its way."""

    def __init__(
        self,
        reads: Reads,
        problem: LocalProblem,
        start: Mixture,
        kept: Sequence[int],
        small: Sequence[int],
        options: RefinementOptions,
        seed: np.random.SeedSequence,
    ) -> None:
        self.reads, self.problem, self.options = reads, problem, options
        self.start = start
        self.point: Point = (start.weights, start.components)
        self.used, self.waiting = list(kept), list(small)
        self.fewest = len(self.used) // 2 + 1
        self.ascent: Ascent | None = None
        self.test: ScoreTest | None = None
        self.rng = np.random.default_rng(seed)
        self.spreads: dict[int, tuple[int, Any]] = {}
        self.excluded: dict[int, str] = {}
        self.joined: dict[int, str] = {}
        self.refused: dict[int, str] = {}
        self.lost: list[int] = []
        self.records: list[PassRecord] = []
        self.failure = ""

    @property
    def number(self) -> int:
        """Of the pass that is being made."""
        return len(self.records) + 1

    @property
    def is_over(self) -> bool:
        is_done = self.ascent is not None and self.ascent.converged
        wants_all = not isinstance(self.options.passes, str)
        has_enough = len(self.records) >= self.options.most_passes or bool(self.failure)
        return has_enough or (is_done and not wants_all)

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
        point = self.point if self.ascent is None else self.ascent.point
        asked = [*self.used, *self.waiting]
        mixture = self._mixture_at(point)
        held = self.reads.hold(asked, [mixture], Wanted(target=not self.spreads))
        places = {i: k for k, i in enumerate(asked)}
        numbers = dict(zip(asked, held.numbers(), strict=True))
        lost = self._forget_unreadable(numbers)
        if lost and self.ascent is not None:
            # What the objective of the rows that are left was is known nowhere: start again where it rose last.
            self.point, self.ascent = self.ascent.mapped, None
            self._record(np.nan, accepted=False, excluded=lost)
            return
        total = self._total(held, places)
        accepted = self.ascent is None or self.ascent.accepts(total.log_likelihood)
        out: list[int] = []
        came: list[int] = []
        if accepted:
            out, came = self._judge(held, places, numbers, point, total)
        if out or came:
            total = self._total(held, places)
        if self.ascent is None or out or came:
            self.ascent = self._ascent_from(point)
        gain = self._take(total)
        self._record(gain, accepted, [*lost, *out], came)

    def _take(self, total: Measurement) -> float:
        """Hand the sums to EM; the gain, NaN where there is nothing to compare with."""
        assert self.ascent is not None
        assert total.moments is not None
        try:
            gain = self.ascent.take(total.log_likelihood, total.moments)
        except ComponentCollapsedError as error:
            self.failure = str(error)
            return np.nan
        return gain if np.isfinite(gain) else np.nan

    def _mixture_at(self, point: Point) -> Mixture:
        names = self.start.feature_names
        return self.problem.family.mixture(*point, names)

    def _total(self, held: Held, places: dict[int, int]) -> Measurement:
        (total,) = held.total([places[i] for i in self.used])
        return total

    def _forget_unreadable(self, numbers: dict[int, PartitionStatistics]) -> list[int]:
        """Partitions that cannot be read this time, or are not what they were, take no further part."""
        problems = {i: self._problem_of(reading) for i, reading in numbers.items()}
        lost = [i for i in self.used if problems[i]]
        for i in lost:
            self.excluded[i] = f"left out in refinement pass {self.number}: {problems[i]}"
        self.refused |= {i: f"not judged: {problems[i]}" for i in self.waiting if problems[i]}
        self.lost += lost
        self.used = [i for i in self.used if not problems[i]]
        self.waiting = [i for i in self.waiting if not problems[i]]
        if not self.used:
            examples = "; ".join(f"{i}: {problems[i]}" for i in lost[:3])
            raise RefinementError(
                f"none of the {len(lost)} kept partitions could be read again ({examples})."
            )
        for i, reading in numbers.items():
            if reading.is_measured and reading.target is not None:
                self.spreads[i] = (reading.n_samples, reading.target)
        return lost

    def _problem_of(self, reading: PartitionStatistics) -> str:
        if not reading.is_measured:
            return reading.reason or "it has no rows now"
        before = self.spreads.get(reading.partition, (reading.n_samples,))[0]
        if before == reading.n_samples:
            return ""
        return f"it has {reading.n_samples} rows now and had {before}"

    def _ascent_from(self, point: Point) -> Ascent:
        """EM on the rows of the partitions that are used now."""
        problem, family = self.problem, self.problem.family
        counts, targets = zip(*(self.spreads[i] for i in self.used), strict=True)
        stacked = tuple(np.array(parts) for parts in zip(*targets, strict=True))
        target = family.pooled_target(np.array(counts, dtype=np.float64), stacked)
        n_samples = sum(counts)
        weight = n_samples**-0.5 if problem.penalty == "auto" else float(problem.penalty)
        rule = (
            RemainingGain(NEGLIGIBLE_GAIN * self.start.n_parameters)
            if problem.tol == "auto"
            else MeanChange(float(problem.tol) * n_samples)
        )
        accelerate = problem.accelerate and problem.reg_covar == 0
        prior = Prior(weight, target, problem.reg_covar)
        return Ascent(family, point, prior, n_samples, rule, accelerate)

    # -- who is left out, who joins -----------------------------------------------------------------

    def _judge(
        self,
        held: Held,
        places: dict[int, int],
        numbers: dict[int, PartitionStatistics],
        point: Point,
        total: Measurement,
    ) -> tuple[list[int], list[int]]:
        """Leave out partitions, and let others join; returns both. Who waited is sent away otherwise."""
        if len(self.used) < FEWEST_JUDGES:
            self.refused |= dict.fromkeys(
                self.waiting, "not judged: too few partitions to judge it by"
            )
            self.waiting = []
            return [], []
        if self.test is None:
            self.test = score_test(self.problem.family, point, self.rng)
        test = self.test.at(point)
        counts = np.array([max(numbers[i].n_samples, 1) for i in places], dtype=np.float64)
        gone: list[int] = []
        for judging in range(JUDGING_ROUNDS):
            if judging:
                total = self._total(held, places)
            used = frozenset(self.used)
            found = np.array(held.map(score_statistics, test, total, used))
            judges = np.array([i in used for i in places])
            # One that was left out has no say and needs no verdict: 0 is a number like another.
            settled = test.settle(np.nan_to_num(found), counts, judges)
            out = self._too_far(places, settled)
            if not out:
                break
            for i in out:
                said = verdict_in_words(CONTRADICTS, settled, places[i])
                self.excluded[i] = f"left out in refinement pass {self.number}: {said}"
            self.used = [i for i in self.used if i not in out]
            gone += out
        return gone, self._let_join(places, settled)

    def _too_far(self, places: dict[int, int], settled: Settled) -> frozenset[int]:
        """Used partitions beyond the level, the worst ones, as long as a majority of those kept stays."""
        p_values, z_scores = settled.p_values, settled.z_scores
        beyond = [i for i in self.used if p_values[places[i]] < self.options.level]
        beyond.sort(key=lambda i: (-z_scores[places[i]], i))
        return frozenset(beyond[: max(len(self.used) - self.fewest, 0)])

    def _let_join(self, places: dict[int, int], settled: Settled) -> list[int]:
        came = [i for i in self.waiting if settled.p_values[places[i]] >= self.options.level]
        for i in self.waiting:
            p = settled.p_values[places[i]]
            if i in came:
                self.joined[i] = (
                    f"joined in refinement: its rows agree with the others' (p = {p:.2g})"
                )
            else:
                self.refused[i] = verdict_in_words(CONTRADICTS, settled, places[i])
        self.used = sorted([*self.used, *came])
        self.waiting = []
        return came

    def _record(
        self,
        gain: float,
        accepted: bool,
        excluded: Sequence[int] = (),
        joined: Sequence[int] = (),
    ) -> None:
        n_samples = sum(self.spreads[i][0] for i in self.used)
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


def verdict_in_words(what: str, settled: Settled, k: int) -> str:
    """What was found, with its numbers."""
    p = settled.p_values[k]
    probability = f"p = {p:.2g}" if p > 0 else "p < 1e-300"
    return f"{what} by z = {settled.z_scores[k]:.3g} ({probability})"
