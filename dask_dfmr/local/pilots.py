"""Pilots: a few partitions are fitted from several starts, and give all partitions a short list of starts.

A local fit that ends in a wrong optimum is a Byzantine failure by accident. With independent starts there can be so
many of them that the correct fits lose the majority. So at most 16 pilot partitions, drawn by seed, are fitted with a
few passes over a few thousand rows. Every partition then starts from the candidate, out of at most four, under which
its own rows have the highest density. One consistent pilot is enough: an inconsistent one takes a place on the list,
but does not change the result.

Candidates are compared on the rows of all pilots. A candidate *covers* a pilot as far as its mean log-density there is
less than about one nat per row below that of the best candidate. The short list is the greedy cover. Candidates of one
population compete for the same rows, so one candidate stands for all of them: the one in the best optimum. A corrupted
pilot is covered only by its own candidate. The short list holds the best optimum of each group of pilots that a search
over the rows of the group finds (:mod:`dask_dfmr.local.search`). A group of few pilots gets further starts there, so
that one pilot alone is searched as well as many together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dask_dfmr.local.comparison import best_first, mean_log_densities, mean_log_densities_each
from dask_dfmr.local.em import EmResult
from dask_dfmr.local.fit import MAX_MAGNITUDE, LocalProblem
from dask_dfmr.local.search import FEW_COLUMNS, Search, Start, point_of, run_on
from dask_dfmr.local.starts import MAX_START_ROWS, Scale, subsample, thin
from dask_dfmr.mixtures.family import Array, Rows
from dask_dfmr.mixtures.gaussian import Mixture

N_PILOTS = 16
"""Largest number of pilots."""

MAX_SHORTLIST = 4
"""Largest number of candidates on the short list."""

N_SHORT_RUNS = 3
"""Starts of a pilot, of which the best is its candidate. ``n_init`` multiplies their number. In
``benchmarks/pilot_search.py`` the search is worse than 40 long runs in 12 of 96 draws, and with five starts in 8."""

TIMES_LEAST_ROWS, LEAST_ROWS = 2, 2000
"""Rows of a pilot that are fitted, as a multiple of those that a fit needs (:meth:`Family.least_rows`, the number of
free parameters for full covariances), and in all if there are as many."""

SETTLING_TIMES, LEAST_SETTLING_ROWS = 8, 4000
"""The same of a group, on which its best optimum is sought."""

MOST_PRODUCTS = MAX_START_ROWS * FEW_COLUMNS**2
"""Rows times squared columns of a search, at most: what a pass costs."""

ROWS_PER_MEAN, ROWS_PER_RANK = 10, 20
"""So many rows are searched for each component, times the columns, and times the rows that it needs at least, whatever
a pass costs. Measured with tied covariances in 100 columns, 5,000 rows, K = 5 and 8, on draws that are hard for every
search: with 2,000 rows, 7 of 27 searches ended in a worse optimum than the best known one, with 4,000 rows 6 of 27,
and with all of them 2 of 16. The search before, over all rows, ended in one in 2 of 27."""

MAX_SENT_ROWS = 5000
"""Largest number of rows that a pilot sends along with its candidate."""

GROUP_ROWS = 16_000
"""Rows of a group on which its candidate is settled, if there are as many."""

MORE_TIMES, MOST_SETTLING_ROWS, FULL_COLUMNS = 16, 80_000, 30
"""If these rows do not determine the components, the search is made again on more: so many for each free parameter, and
at most, in so many columns. In more columns there are fewer, so that a pass costs no more."""

MORE_SHARE = 2500
"""Rows of each pilot that such a search takes in many columns, at most: it costs more than the fit of a partition, so
that the number of rows grows with that of the partitions."""

DETERMINED = 2.5
"""Rows for each parameter of a component that determine it. With K = 10 in 30 columns, the search on 16,000 rows is as
good as the truth at overlap .1. At .2 and .3 it was not, and its lightest component has fewer rows than this
(``benchmarks/pilot_start_is_as_good_as_the_truth.py --wide``)."""

SCALE_ROWS = 2000
"""Largest number of rows from which location and spread of the columns are computed."""

CHECK_ROWS = 1000
"""Largest number of rows of a partition on which candidates are compared."""

LEAST_COVER = 0.5
"""A pilot that the candidate of its group covers less than this does not belong to the group."""

LEAST_ADDED_COVER = 0.5
"""A further candidate must add the cover of at least half a pilot."""


class PilotRows(NamedTuple):
    """Some rows of a pilot partition, and the scale of its columns."""

    rows: Array
    scale: Scale


class PilotFit(NamedTuple):
    """A candidate start, and rows of its pilot, on which all candidates are compared and its group is settled."""

    start: Start
    check_rows: Array


class Shortlist(NamedTuple):
    """The candidate starts, and for each the number of pilots whose rows have the highest density under it."""

    starts: list[Start]
    support: list[int]


def draw_pilots(n_partitions: int, seed: np.random.SeedSequence) -> list[int]:
    """The sorted indices of at most 16 pilot partitions, drawn by seed."""
    rng = np.random.default_rng(seed)
    return sorted(rng.choice(n_partitions, min(N_PILOTS, n_partitions), replace=False).tolist())


def n_rows_of(
    problem: LocalProblem,
    n_features: int,
    times_least: int = TIMES_LEAST_ROWS,
    least: int = LEAST_ROWS,
) -> int:
    """The number of rows of a pilot that are fitted."""
    family, k = problem.family, problem.n_components
    n_rows = np.clip(times_least * family.least_rows(k, n_features), least, MAX_START_ROWS)
    rank = family.least_component_rows(n_features)
    of_columns = k * max(ROWS_PER_RANK * rank, ROWS_PER_MEAN * n_features)
    return int(min(n_rows, max(MOST_PRODUCTS // n_features**2, of_columns, LEAST_ROWS)))


def n_rows_of_settling(problem: LocalProblem, n_features: int) -> tuple[int, int]:
    """Rows on which the best optimum of a group is sought at first, and if they do not determine its components."""
    least = min(n_rows_of(problem, n_features, SETTLING_TIMES, LEAST_SETTLING_ROWS), GROUP_ROWS)
    most = MOST_SETTLING_ROWS * FULL_COLUMNS**2 // max(n_features, FULL_COLUMNS) ** 2
    if n_features > FEW_COLUMNS:
        most = min(most, MORE_SHARE * min(N_PILOTS, problem.n_sources))
    n_parameters = problem.family.n_parameters(problem.n_components, n_features)
    if SETTLING_TIMES * n_parameters <= GROUP_ROWS:
        return least, least
    return least, max(least, min(MORE_TIMES * n_parameters, most))


def share_of(problem: LocalProblem, n_features: int) -> int:
    """The number of rows of a pilot that make up the rows of a group of all pilots."""
    n_rows = max(GROUP_ROWS, *n_rows_of_settling(problem, n_features))
    return -(-n_rows // min(N_PILOTS, problem.n_sources))


def read_pilot(
    problem: LocalProblem,
    X: Rows,
    seed: np.random.SeedSequence,
    largest: LocalProblem | None = None,
) -> PilotRows | None:
    """A subsample of the rows of a pilot; None if its rows cannot be fitted (too few rows, NaN, degenerate).

    There are as many rows as fits of ``largest`` need, which is the problem itself if it is not given.
    """
    X, _, refusal = problem.check_rows(X)
    if refusal is not None:
        return None
    largest = problem if largest is None else largest
    d = X.shape[1]
    n_rows = max(n_rows_of(largest, d), largest.least_rows(d), share_of(largest, d))
    rows = subsample(X, n_rows, np.random.default_rng(seed))
    if not problem.can_fit(rows):
        return None
    return PilotRows(rows, problem.scale_of(thin(rows, SCALE_ROWS)))


def pilot_scale(pilots: Sequence[PilotRows | None]) -> Scale | None:
    """The median scale of the pilots with the most frequent number of columns; None if there is no pilot."""
    scales = [pilot.scale for pilot in pilots if pilot is not None]
    widths = [len(scale.location) for scale in scales]
    usual = max(sorted(set(widths)), key=widths.count, default=0)
    if not scales:
        return None
    return Scale.median([scale for scale in scales if len(scale.location) == usual])


def fit_pilot(
    problem: LocalProblem,
    pilot: PilotRows | None,
    scale: Scale | None,
    seed: np.random.SeedSequence,
) -> PilotFit | None:
    """The best fit of one pilot from several k-means++ starts; None if there is none.

    The scale is that of all pilots. A pilot with another number of columns is not fitted.
    """
    if pilot is None or scale is None or pilot.rows.shape[1] != len(scale.location):
        return None
    rng = np.random.default_rng(seed)
    rows = subsample(pilot.rows, n_rows_of(problem, pilot.rows.shape[1]), rng)
    runs = Search.on(problem, rows, scale).short_runs(rng, _n_short_runs(problem))
    best = next(iter(best_first(problem.family, runs, rows)), None)
    if best is None:
        return None
    n_sent = max(MAX_SENT_ROWS, share_of(problem, pilot.rows.shape[1]))
    return PilotFit(point_of(best), thin(pilot.rows, n_sent))


def make_shortlist(
    problem: LocalProblem,
    fits: Sequence[PilotFit | None],
    seed: np.random.SeedSequence | None = None,
) -> Shortlist:
    """At most four candidates that together cover the pilots; none if no pilot could be fitted.

    With a ``seed``, further starts are tried for groups of few pilots, and while they lead to better optima.
    """
    present = [fit for fit in fits if fit is not None]
    if not present:
        return Shortlist([], [])
    scores = _cross_scores(problem, [fit.start for fit in present], present)
    n_features = present[0].check_rows.shape[1]
    n_parameters = problem.family.n_parameters(problem.n_components, n_features)
    # On the rows to which it was fitted, a candidate is better by about p / n nats than on new rows.
    slack = np.array([1.0 + 2.0 * n_parameters / len(fit.check_rows) for fit in present])
    cover = np.clip(1.0 - (scores.max(axis=0) - scores) / slack, 0.0, 1.0)
    chosen = _greedy_cover(cover)
    groups = np.array(chosen)[cover[chosen].argmax(axis=0)]
    # A pilot that no candidate covers belongs to no group.
    members = [
        np.union1d(np.flatnonzero((groups == i) & (cover[i] >= LEAST_COVER)), [i]) for i in chosen
    ]
    rng = None if seed is None else np.random.default_rng(seed)
    starts = [_settle(problem, present, scores, group, rng) for group in members]
    if len(starts) == 1:
        return Shortlist(starts, [len(present)])
    best = _cross_scores(problem, starts, present).argmax(axis=0)
    return Shortlist(starts, np.bincount(best, minlength=len(starts)).tolist())


def _cross_scores(
    problem: LocalProblem, starts: Sequence[Start], pilots: Sequence[PilotFit]
) -> Array:
    """Mean log-density of each pilot's rows under each candidate, in nats per row, shape (n_starts, n_pilots)."""
    blocks = [thin(fit.check_rows, CHECK_ROWS) for fit in pilots]
    return mean_log_densities_each(problem.family, starts, blocks)


def _greedy_cover(cover: Array) -> list[int]:
    """Candidates that one after the other add most to the cover (n_candidates, n_pilots) of the pilots."""
    chosen: list[int] = []
    covered = np.zeros(cover.shape[1])
    while len(chosen) < MAX_SHORTLIST:
        gains = np.maximum(cover - covered, 0.0).sum(axis=1)
        best = int(gains.argmax())
        if gains[best] < LEAST_ADDED_COVER:
            break
        chosen.append(best)
        covered = np.maximum(covered, cover[best])
    return chosen


def _settle(
    problem: LocalProblem,
    pilots: Sequence[PilotFit],
    scores: Array,
    members: NDArray[np.intp],
    rng: np.random.Generator | None,
) -> Start:
    """The candidate of a group of pilots: its best fits, continued over the pooled rows of the group.

    The optimum of a small pilot may belong to its few rows alone. The pooled rows lead to the common optimum.
    """
    own = scores[np.ix_(members, members)]
    others = np.where(np.eye(len(members), dtype=bool), 0.0, own).sum(axis=1)
    ranked = members[np.argsort(-others, kind="stable")]
    first = pilots[ranked[0]].start
    if rng is None and len(members) == 1:
        return first
    known = [pilots[i].start for i in ranked]
    n_rows, n_more = n_rows_of_settling(problem, pilots[ranked[0]].check_rows.shape[1])
    n_tried = len(members) * _n_short_runs(problem)
    blocks = [pilots[i].check_rows for i in members]
    n_more = min(n_more, sum(map(len, blocks)))
    ends = _ends_on(problem, blocks, n_rows, known, n_tried, rng)
    if n_more > n_rows and not (ends and _is_determined(problem, ends[0], n_rows)):
        ends = _ends_on(problem, blocks, n_more, known, n_tried, rng) or ends
    return point_of(ends[0]) if ends else first


def _ends_on(
    problem: LocalProblem,
    blocks: Sequence[Array],
    n_rows: int,
    known: Sequence[Start],
    n_tried: int,
    rng: np.random.Generator | None,
) -> list[EmResult]:
    """The best optima of a group by a search on so many of its rows, the best first."""
    share = -(-max(GROUP_ROWS, n_rows) // len(blocks))
    rows = np.concatenate([thin(block, share) for block in blocks])
    some = thin(rows, n_rows)
    ends = Search.on(problem, some).best(known, n_tried, rng)
    if len(rows) == len(some):
        return ends
    # Optima that differ little may change places on more rows.
    penalty = problem.penalty_for(rows)
    runs = [run_on(problem, rows, point_of(end), penalty) for end in ends]
    return best_first(problem.family, runs, rows) or ends


def _is_determined(problem: LocalProblem, end: EmResult, n_rows: int) -> bool:
    """Whether the lightest component of an optimum has enough rows for its parameters."""
    k = problem.n_components
    n_parameters = problem.family.n_parameters(k, problem.family.n_features(end.components)) / k
    return bool(end.weights.min() * n_rows >= DETERMINED * n_parameters)


def _n_short_runs(problem: LocalProblem) -> int:
    """Starts of a pilot; the fit of one component does not depend on its start."""
    return 1 if problem.n_components == 1 else N_SHORT_RUNS * problem.n_init


def choose_start(
    problem: LocalProblem, X: Rows, shortlist: Shortlist, seed: np.random.SeedSequence
) -> int | None:
    """The index of the candidate under which a subsample of the rows has the highest mean density.

    The result is None if no candidate has the number of columns of the rows, or no sampled row is finite.
    """
    rows = subsample(X, CHECK_ROWS, np.random.default_rng(seed))
    rows = rows[(np.abs(rows) <= MAX_MAGNITUDE).all(axis=1)]  # excludes NaN too
    usable = [
        i
        for i, (_, components) in enumerate(shortlist.starts)
        if problem.family.n_features(components) == rows.shape[1]
    ]
    if not usable or not len(rows):
        return None
    if len(usable) == 1:
        return usable[0]
    starts = [shortlist.starts[i] for i in usable]
    return usable[int(mean_log_densities(problem.family, starts, rows).argmax())]


def as_mixture(problem: LocalProblem, start: Start, feature_names: Any) -> Mixture:
    """A candidate as a mixture, for :meth:`LocalProblem.fit`."""
    return problem.family.mixture(*start, feature_names)
