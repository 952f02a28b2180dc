"""The search for the best optimum of some rows: many short EM runs, of which few are continued.

Starts are given up in rounds, so that most of them cost a few passes over a part of the rows. What one run found and
another one missed is not lost: components of the others take the place of those that the best run needs least. If rows
with the components of a swap have a higher objective than the optimum, EM from there ends in a better one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from dask_dfmr.local.comparison import best_first, boundary, values_of
from dask_dfmr.local.em import ComponentCollapsedError, EmResult
from dask_dfmr.local.fit import LocalProblem
from dask_dfmr.local.penalty import Penalty
from dask_dfmr.local.starts import PROJECTIONS, Clusterings, Scale, thin
from dask_dfmr.mixtures.family import Array, Components, Family, Rows, quantity_of

Start = tuple[Array, Components]
"""Weights and components of a start."""

SHORT_PASSES = 5
"""Passes of a short run from a clustering."""

ROUNDS = ((4, 12), (6, 6), (10, 4))
"""Passes of each round of a search, and the largest number of runs that are continued after it. Of 12 draws of discrete
rows (zeros, binary, grid, with K = 4), 2 ended in a worse optimum with five starts a pilot. With four starts, and 8, 4
and 3 runs that are continued, 5 did."""

ROUND_ROWS, ROUND_SHARE = 2000, 4
"""Rounds take a quarter of the rows, and at least 2,000."""

SAME = 1e-4
"""Runs whose objectives differ by less, in nats per row, after all rounds are taken for one."""

FEW_COLUMNS = 30
"""In more columns a search saves passes, and takes fewer rows (:mod:`dask_dfmr.local.pilots`)."""

N_ENDS = 3
"""Largest number of different optima that a search returns."""

BATCH = 8
"""Further starts that are tried at once."""

ENOUGH = 3
"""So many starts that agree on the best optimum are enough, however few were tried; times ``n_init``. Measured on 120
draws of one partition (mixtures of up to ten components, and the rows of ``benchmarks/row_families.py``): no other
optimum than with all starts. With 2, two of three draws of binary rows end in a worse one."""

LEAST_STARTS, MOST_STARTS = 5, 24
"""Starts before a search may end, and after which it ends. ``n_init`` multiplies both."""

LEAST_GAIN = 1e-3
"""Gain of the objective in nats per row, from which on a run is better than another one."""

LARGEST_LOSS = 0.2
"""A swap is tried even if it first costs so much, in nats per row: EM adapts the other components to it. A smaller
bound (.05) missed swaps that led to a better optimum, in four draws of one population."""

FAR_BEHIND = 0.05
"""A start that is so much worse than the best one after all rounds, in nats per row, is not run to its end. Small
tables take a third less time for it; in ``benchmarks/pilot_search.py`` two more of 96 draws end in a worse optimum."""

MOST_BEHIND = 1e-3
"""A swap is continued if after a few passes it is at most so much worse than the best run, in nats per row."""

N_SWAPS, MOST_ROUNDS_OF_SWAPS = 3, 20
"""Swaps that are tried before the best run is the result, and the largest number of swaps that succeed. With more than
six components half as many swaps as components are tried: with 20 and few draws, three found worse optima than ten."""

ALIKE = 0.7
"""Components whose shares of the rows have a larger cosine are alike, and only one of them is tried."""

LEAST_START_WEIGHT, MOST_WEIGHT = 1e-4, 0.9
"""Weights of a component that takes the place of another one."""


@dataclass(frozen=True)
class Search:
    """Rows (n_samples, n_features), and the problem whose best optimum for them is sought.

    ``given_scale`` is that of the columns in which rows are clustered. None: that of the rows.
    """

    problem: LocalProblem
    rows: Array
    penalty: Penalty
    given_scale: Scale | None = None

    @classmethod
    def on(cls, problem: LocalProblem, rows: Array, scale: Scale | None = None) -> Search:
        """The search on some rows."""
        return cls(problem, rows, problem.penalty_for(rows), scale)

    @property
    def family(self) -> Family:
        """The family of the components."""
        return self.problem.family

    def best(
        self, known: Sequence[Start], n_starts: int, rng: np.random.Generator | None
    ) -> list[EmResult]:
        """The ends of EM runs from known starts, and from further ones while they lead to something better.

        Parameters
        ----------
        known : sequence of (weights, components)
            The best of ``n_starts`` starts that were tried, the most promising first.
        n_starts : int
        rng : Generator or None
            None: no further starts.

        Returns
        -------
        list of EmResult
            At most three different ones, the best first; empty if a component collapsed in all runs.
        """
        if self.problem.n_components == 1:  # there is one optimum
            return self._different([self._long(known[0])])
        starts = [*known, *self._others(known[0])]
        ends, has_gained, n_agree = self._ends_of(starts, [])
        if rng is None or (n_agree >= ENOUGH * self.problem.n_init and not has_gained):
            return ends
        least, most = (n * self.problem.n_init for n in (LEAST_STARTS, MOST_STARTS))
        while n_starts < least or (has_gained and n_starts < most):
            n_starts += BATCH
            further = self._further(rng)
            if not further:
                break
            ends, has_gained, _ = self._ends_of(further, ends)
        return ends

    def short_runs(self, rng: np.random.Generator, n_starts: int) -> list[EmResult | None]:
        """A few plain EM passes from each of several k-means++ starts; None where a component collapsed."""
        return [self._short(start, SHORT_PASSES) for start in self._starts(rng, n_starts)]

    def _starts(self, rng: np.random.Generator, n_starts: int) -> Iterator[Start]:
        """Several k-means++ starts."""
        clusterings = self._clusterings_of(self.problem.start_rows(self.rows, rng))
        return (clusterings.start("k-means++", rng) for _ in range(n_starts))

    def _further(self, rng: np.random.Generator) -> list[Start]:
        """A batch of further starts. In few columns they have made some passes over all rows."""
        if self._is_wide:
            return list(self._starts(rng, BATCH))
        runs = self.short_runs(rng, BATCH)
        return [point_of(run) for run in best_first(self.family, runs, self.rows)]

    def _ends_of(
        self, starts: Sequence[Start], before: list[EmResult]
    ) -> tuple[list[EmResult], bool, int]:
        """The best ends of runs from several starts and before, and what they say.

        The second value is whether the best is better than what there was. Without ends before, that is the best of the
        starts, so that it counts only whether swaps helped. The third is how many starts led to the most promising run.
        """
        distinct, n_agree, pool = self._distinct(starts)
        ends = self._different([*before, *(self._long(start) for start in distinct)])
        if not ends:
            return [], False, 0
        best = self._swap(ends[0], pool)
        first = before[0] if before else ends[0]
        return self._different([best, *ends]), self._gain(first, best) > LEAST_GAIN, n_agree

    def _different(self, runs: Sequence[EmResult | None]) -> list[EmResult]:
        """The best runs, one for each value of the objective, and at most :data:`N_ENDS`."""
        found = best_first(self.family, runs, self.rows)
        values = values_of(self.family, found, self.rows)
        kept, last = [], np.inf
        for run, value in zip(found, values, strict=True):
            if value < last - SAME:
                kept.append(run)
                last = value
        return kept[:N_ENDS]

    def _distinct(self, starts: Sequence[Start]) -> tuple[list[Start], int, Sequence[Start]]:
        """The most promising starts after some passes over a part of the rows, one of each optimum.

        And how many of them agree with the best one, and the starts whose components may be of use to others.
        """
        rows = self.rows
        if not self._is_wide:
            rows = thin(rows, max(ROUND_ROWS, len(rows) // ROUND_SHARE))
        part = self if rows is self.rows else Search.on(self.problem, rows)
        runs, pool = part._in_rounds(starts)
        found = part._different(runs)
        values = values_of(self.family, found, rows)
        near = values > values.max(initial=-np.inf) - FAR_BEHIND
        all_values = values_of(self.family, runs, rows)
        n_agree = int((all_values > all_values.max(initial=-np.inf) - SAME).sum())
        kept = [point_of(run) for run, is_near in zip(found, near, strict=True) if is_near]
        return kept, n_agree, pool

    def _in_rounds(self, starts: Sequence[Start]) -> tuple[list[EmResult], Sequence[Start]]:
        """The best runs from starts after all rounds, the best first; and the mixtures that swaps take components of.

        These are the starts. In many columns they are clusterings, so that runs after the first round are better.
        """
        (n_passes, n_left), *later = ROUNDS
        tried = [self._short(start, n_passes) for start in starts]
        runs = best_first(self.family, tried, self.rows)[:n_left]
        pool = [point_of(run) for run in runs] if self._is_wide else starts
        for n_passes, n_left in later:
            runs = self._go_on(runs, n_passes)[:n_left]
        return runs, pool

    def _go_on(self, runs: Sequence[EmResult], n_passes: int) -> list[EmResult]:
        """Runs after more passes, the best first.

        In many columns a run that has converged makes no more, and one is given up that would still be far behind if
        it came as far in the next passes as in these.
        """
        if not self._is_wide:
            tried = [self._short(point_of(run), n_passes) for run in runs]
            return best_first(self.family, tried, self.rows)
        gone = [
            (run, run if run.converged else self._short(point_of(run), n_passes)) for run in runs
        ]
        pairs = [(before, after) for before, after in gone if after is not None]
        values = values_of(self.family, [run for pair in pairs for run in pair], self.rows)
        before, after = values[::2], values[1::2]
        is_near = 2 * after - before > after.max(initial=-np.inf) - FAR_BEHIND
        tried = [run for (_, run), is_kept in zip(pairs, is_near, strict=True) if is_kept]
        return best_first(self.family, tried, self.rows)

    def _others(self, start: Start) -> list[Start]:
        """Starts of other kinds than that of a pilot.

        Components of one covariance cannot lie about one another: such a start stays near a saddle. One more clustering
        takes its place, and stands beside it in many columns, where further starts cost much.
        """
        has_shells = bool((self.family.coordinate_owners(start[1]) >= 0).all())
        found = [self._shells(start)] if has_shells else []
        if self._is_wide or not has_shells:
            found.append(self._clustered("k-means++"))
        # Along the directions in which the rows are least normal, for long parallel clusters.
        return [*found, self._clustered(PROJECTIONS)]

    def _shells(self, start: Start) -> Start:
        """A start whose components lie about one another, with as many rows each, from the densest to the sparsest.

        Skewed and heavy-tailed rows have such optima, which no clustering leads to.
        """
        k, rows = self.problem.n_components, self.rows
        density = self.family.evaluate(rows, *start, "log_density")
        labels = np.empty(len(rows), dtype=np.intp)
        labels[np.argsort(-density, kind="stable")] = np.arange(len(rows)) * k // len(rows)
        return self._of_all_rows.of_labels(labels)

    def _clustered(self, name: str) -> Start:
        """A start by a clustering, the same at every call."""
        rng = np.random.default_rng(0)
        return self._clusterings_of(self.problem.start_rows(self.rows, rng)).start(name, rng)

    def _swap(self, best: EmResult, others: Sequence[Start]) -> EmResult:
        """The best run after components of others took the place of its own, as long as it gains by that."""
        pool = Pool.of(self.family, others, self.rows)
        for _ in range(MOST_ROUNDS_OF_SWAPS):
            starts = pool.swaps(self.family, point_of(best), self.rows)
            tried = (self._after_swap(best, start) for start in starts)
            found = next((run for run in tried if run is not None), None)
            if found is None:
                break
            best = found
        return best

    def _after_swap(self, best: EmResult, start: Start) -> EmResult | None:
        """The run from a swap if it is better than the best one; one that is far from it is given up early."""
        short = self._short(start, SHORT_PASSES)
        if short is None:
            return None
        gain = self._gain(best, short)
        if gain < (LEAST_GAIN if short.converged else -MOST_BEHIND):
            return None
        long = self._long(point_of(short))
        return long if long is not None and self._gain(best, long) > LEAST_GAIN else None

    def _gain(self, first: EmResult, second: EmResult) -> float:
        """What the second run is better than the first one, in nats per row."""
        before, after = values_of(self.family, [first, second], self.rows)
        return float(after - before)

    def _long(self, start: Start) -> EmResult | None:
        return run_on(self.problem, self.rows, start, self.penalty)

    def _short(self, start: Start, n_passes: int) -> EmResult | None:
        return run_on(self._plain, self.rows, start, self.penalty, n_passes)

    @property
    def _is_wide(self) -> bool:
        """Whether the rows have so many columns that a search has to make few passes."""
        return self.rows.shape[1] > FEW_COLUMNS

    def _clusterings_of(self, rows: Array) -> Clusterings:
        """Clusterings of all rows, or of some of them in the same scale."""
        if rows is self.rows:
            return self._of_all_rows
        k = self.problem.n_components
        return Clusterings(self.family, rows, k, self.penalty, self._of_all_rows.scale)

    @cached_property
    def _of_all_rows(self) -> Clusterings:
        scale = self.given_scale
        scale = self.problem.scale_of(self.rows) if scale is None else scale
        return Clusterings(self.family, self.rows, self.problem.n_components, self.penalty, scale)

    @cached_property
    def _plain(self) -> LocalProblem:
        """The problem without acceleration, which a few passes have no use for."""
        return replace(self.problem, accelerate=False)


class Pool(NamedTuple):
    """Components of several mixtures, with their weights there and the log-densities of rows (n_samples, n_pool)."""

    weights: Array
    components: Components
    log_densities: Array

    @classmethod
    def of(cls, family: Family, mixtures: Sequence[Start], rows: Array) -> Pool:
        """The components of mixtures."""
        weights = np.concatenate([weights for weights, _ in mixtures])
        parts = zip(*(components for _, components in mixtures), strict=True)
        components = tuple(np.concatenate(part) for part in parts)
        densities = np.hstack([family.log_density_of_each(rows, own) for _, own in mixtures])
        return cls(np.clip(weights, LEAST_START_WEIGHT, MOST_WEIGHT), components, densities)

    def swaps(self, family: Family, point: Start, rows: Array) -> list[Start]:
        """Mixtures with a component of the pool in place of one of their own, the most promising first.

        The component is one by which the rows gain most, and it replaces the one that they then need least.
        """
        weights, components = point
        own = np.log(np.maximum(weights, 1e-300)) + family.log_density_of_each(rows, components)
        total = quantity_of(own, "log_density")
        floor = boundary(family, point) if family.cut.truncates else -np.inf
        before = np.maximum(total, floor).mean()
        w = self.weights
        # The log-density of each row if a component of the pool is added, and the others shrink for it.
        added = np.logaddexp(total[:, None] + np.log1p(-w), np.log(w) + self.log_densities)
        found = []
        n_most = max(N_SWAPS, len(weights) // 2)
        for j in self._unlike(np.maximum(added, floor).mean(axis=0), added, n_most):
            share = np.exp(own + np.log1p(-w[j]) - added[:, [j]])
            without = added[:, [j]] + np.log(np.maximum(1.0 - share, 1e-12))
            gains = np.maximum(without, floor).mean(axis=0) - before
            k = int(gains.argmax())
            if gains[k] > -LARGEST_LOSS:
                found.append((gains[k], self._swapped(point, j, k)))
        return [start for _, start in sorted(found, key=lambda pair: -pair[0])]

    def _unlike(self, values: Array, added: Array, n_most: int) -> list[int]:
        """The components of the pool with the largest values, without those that are like a better one."""
        chosen: list[int] = []
        directions: list[Array] = []
        for j in np.argsort(-values, kind="stable").tolist():
            share = np.exp(np.log(self.weights[j]) + self.log_densities[:, j] - added[:, j])
            length = np.sqrt(share @ share)
            if length == 0 or any(share @ other > ALIKE * length for other in directions):
                continue
            chosen.append(j)
            directions.append(share / length)
            if len(chosen) == n_most:
                break
        return chosen

    def _swapped(self, point: Start, j: int, k: int) -> Start:
        """A mixture with component j of the pool in place of its component k."""
        weights, components = point
        new = weights.copy()
        new[k] = self.weights[j]
        parts = tuple(part.copy() for part in components)
        for part, other in zip(parts, self.components, strict=True):
            part[k] = other[j]
        return new / new.sum(), parts


def point_of(run: EmResult) -> Start:
    """Where an EM run ended."""
    return run.weights, run.components


def best_of_starts(
    problem: LocalProblem,
    rows: Array,
    scale: Scale,
    rng: np.random.Generator,
    n_short: int,
    n_long: int,
) -> EmResult | None:
    """The best EM run on rows from ``n_short`` k-means++ starts, of which the best ``n_long`` are continued.

    Both numbers are multiplied by the ``n_init`` of the problem. The first starts are those of ``n_init=1``. The result
    is None if a component collapsed in all runs.
    """
    search = Search.on(problem, rows, scale)
    shorts = search.short_runs(rng, problem.n_init * n_short)
    best = best_first(problem.family, shorts, rows)[: problem.n_init * n_long]
    longs = [run_on(problem, rows, point_of(run), search.penalty) for run in best]
    return next(iter(best_first(problem.family, longs, rows)), None)


def run_on(
    problem: LocalProblem, rows: Rows, start: Start, penalty: Penalty, max_iter: int | None = None
) -> EmResult | None:
    """An EM run with a loose stopping rule; None if a component collapsed."""
    try:
        return problem.search(rows, start, penalty, max_iter)
    except ComponentCollapsedError:
        return None
