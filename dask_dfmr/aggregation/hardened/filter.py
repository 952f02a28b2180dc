"""The filter for estimates that may collude: estimates -> which are kept, and why the others are not.

L2 distances alone do not show copies, changes that densities hardly depend on, or several estimates that move together.
The filter has three steps:

1. *Copies*: estimates closer than sampling allows count as one, before anything is measured by majority.
2. *L2 filter* among what is left. It excludes what is grossly off. The rest can be matched component by component.
3. *White coordinates* by the Fisher information at the center, see :mod:`dask_dfmr.mixtures.whitening`. In them
   consistent estimates are standard normal, so that every further test has a law: copies once more; the length of each
   vector and of each of its parts; and directions along which several estimates move together, see
   :mod:`dask_dfmr.aggregation.hardened.spectral`.

The module needs arrays and a family only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dask_dfmr.aggregation import reasons
from dask_dfmr.aggregation.groups import (
    beyond_chance,
    copy_distance,
    near_groups,
    observed_df,
    one_of_each,
)
from dask_dfmr.aggregation.hardened import spectral
from dask_dfmr.aggregation.hardened.spectral import Direction, Widening
from dask_dfmr.aggregation.medoid import Candidate, best_candidate, row_candidates
from dask_dfmr.aggregation.null_law import LEAST_SCALE, Law, chi_square_law
from dask_dfmr.aggregation.reasons import Reason
from dask_dfmr.mixtures.distances import Stack
from dask_dfmr.mixtures.family import Array, Components, Family, Labels
from dask_dfmr.mixtures.whitening import Frame, make_frame

FEWEST_ESTIMATES = 4
"""Fewer estimates do not show which ones are unlike the others."""

LEAST_RHO = 1.3
"""Radii within which an estimate always passes the L2 filter of ``rho="auto"``. Where even half of the estimates lie
farther from their center than sampling explains, it is ``spectral.OUTLYING`` radii."""

COPY_RADIUS_SHARE = 0.5
"""Estimates within this share of the radius of one another are copies, if sampling makes that improbable."""

FEWEST_ROWS = 2.0
"""Rows per component, in units of its parameters, below which no normal law describes an estimate."""

ROWS_PER_AXIS = 10.0
"""With fewer rows per free parameter, refits show how much more than by the law of many rows estimates scatter."""

LEAST_INFORMED_ROWS = 50.0
"""The same if rows say, of the direction of which they say least, as much as fewer rows with known components. Of the
populations tried, estimates from 14 to 36 such rows had outliers, and those from 50 and more had none."""

N_REFITS = 24
"""Refits that show how far estimates from few rows scatter."""

MOST_SCALE = 5.0
"""The filter does not apply if squared distances of most estimates exceed those that sampling explains, few rows
included, by a larger factor."""

SCATTERED = 0.9
"""Quantile of consistent distances below which half of all distances lie, even if nearly half of them are not
consistent."""

DOUBTFUL, MOST_DOUBTFUL = 2.0, 1 / 40
"""Squared lengths up to this multiple of their limit are doubtful. A larger share of doubtful exclusions, of two
estimates at least, causes a warning."""

MOST_EXCLUSION_ROUNDS = 4
"""Rounds of the test for far estimates, which a few far estimates may hide from it."""

FEWER = 0.5
"""If pairs show a smaller share of the degrees of freedom of their law, limits follow the scatter of the majority. Of
20 or more normal vectors they show more in 99 of 100 cases."""

CLOSE_SHARE, CLOSE_SEPARATION = 0.45, 6.0
"""A group of more than this share of the votes, nearer than so many standard errors, may be the consistent one."""

Refit = Callable[[Array, Components, int, int], Stack | None]
"""(weights, components, n_rows, n_refits) -> estimates of so many rows drawn from that mixture."""

Groups = tuple[tuple[int, ...], ...]
"""Indices of the estimates of each group."""


class Estimates(NamedTuple):
    """The m usable estimates.

    Attributes
    ----------
    family : Family
    indices : ndarray of int, shape (m,)
        Indices that reasons and groups name the estimates by.
    stack : Stack
    n_samples : ndarray of shape (m,)
    parameters : ndarray of shape (m, n_parameters)
    distances : ndarray of shape (m, m)
        L2 distances in units of their standard errors.
    """

    family: Family
    indices: Labels
    stack: Stack
    n_samples: Array
    parameters: Array
    distances: Array

    def at(self, order: Labels) -> Estimates:
        """The estimates in another order."""
        return Estimates(
            self.family,
            self.indices[order],
            self.stack[order],
            self.n_samples[order],
            self.parameters[order],
            self.distances[np.ix_(order, order)],
        )


class Hardened(NamedTuple):
    """The decision of the filter.

    Attributes
    ----------
    kept : ndarray of bool, shape (m,)
    center : int
        Position of the center of the estimates that have a vote.
    reasons : dict of int to Reason
        By index. Components have the numbers of the center's components.
    unusable : str
        Why the filter does not apply; "" if it does.
    no_majority : str
        Why it is not clear which estimates are the majority; "" if it is clear.
    misfit : str
        Why the law itself is in doubt; "" if it is not.
    groups : tuple of tuple of int
        Indices of the sides, if there is no clear majority.
    """

    kept: NDArray[np.bool_]
    center: int
    reasons: dict[int, Reason]
    unusable: str = ""
    no_majority: str = ""
    misfit: str = ""
    groups: Groups = ()


def harden(
    estimates: Estimates, law: Law, rho: float | None, false_exclusion_rate: float, refit: Refit
) -> Hardened:
    """Decide which estimates are kept.

    Parameters
    ----------
    estimates : Estimates
    law : Law
        Of squared L2 distances, in the unit of the estimates' distances.
    rho : float or None
        Radii within which estimates pass the L2 filter. None: 1.3, or what sampling explains if that is more.
    false_exclusion_rate : float
        Share of sets of consistent estimates of which one is beyond what "sampling explains" means there.
    refit : Refit
        Called only if there are few rows.
    """
    # The filter has an order of its own, so that nothing depends on the given order, not even rounding.
    order = np.lexsort((*estimates.parameters.T[::-1], estimates.n_samples))
    found = _Filter(estimates.at(order), law, refit).run(rho, false_exclusion_rate)
    kept = np.zeros(len(order), dtype=bool)
    kept[order[found.kept]] = True
    return found._replace(
        kept=kept,
        center=int(order[found.center]),
        reasons=dict(sorted(found.reasons.items())),
        groups=tuple(tuple(sorted(group)) for group in found.groups),
    )


class _Filter:
    """One run of the filter. ``live`` are the positions of the estimates that still have a vote."""

    def __init__(self, estimates: Estimates, law: Law, refit: Refit) -> None:
        self.estimates, self.law, self.refit = estimates, law, refit
        self.live = np.arange(len(estimates.n_samples))
        self.reasons: dict[int, Reason] = {}
        self.represents: dict[int, tuple[int, ...]] = {i: (i,) for i in range(len(self.live))}
        self.n_votes = self.least = len(self.live)
        self.no_majority = self.misfit = ""
        self.groups: Groups = ()
        self.widening = Widening()
        self.df, self.is_wide, self.n_doubtful = law.df, False, 0

    def run(self, rho: float | None, false_exclusion_rate: float) -> Hardened:
        """Copies, L2 filter and tests in white coordinates, in this order."""
        m = len(self.live)
        if m < FEWEST_ESTIMATES:
            return self._unusable(f"of {m} estimates it is unknown which are unlike the others")
        self._collapse_by_distance()
        self.n_votes = len(self.live)
        self.least = self.n_votes // 2 + 1
        center = self._filter(rho, false_exclusion_rate)
        trouble = self._too_few_rows(center)
        if trouble:
            return self._unusable(trouble)
        if len(self.live) < FEWEST_ESTIMATES:  # all others are copies of these, or far away
            return self._result(center)
        return self._test_white(center)

    def _test_white(self, center: int) -> Hardened:
        """The tests in white coordinates."""
        frame, white, squares, scale = self._whitened(center)
        if scale > self._most_scale():
            # A few estimates that are far even by the scatter of the majority may have caused that scatter.
            self.is_wide = True
            if self._exclude_all_far(white, frame):
                frame, white, squares, scale = self._whitened(center)
        if scale > self._most_scale():
            return self._unusable(
                f"squared distances between most estimates are {scale:.3g} times what their numbers of rows explain"
            )
        self.misfit = self._misfit(scale, frame.n_axes)
        n_live = len(self.live)
        self._collapse_white(squares, scale, frame.n_axes)
        # Less than half of the estimates cannot bring this about: see the quantile in _misfit, and _shown_df.
        self.is_wide |= bool(self.misfit) or self.white_df < FEWER * frame.n_axes
        self.least = (self.n_votes - n_live + len(self.live)) // 2 + 1
        self._exclude_all_far(white, frame)
        self._exclude_together(white, frame)
        return self._result(center)

    # -- copies and the L2 filter --

    def _index(self, position: int) -> int:
        return int(self.estimates.indices[position])

    def _indices(self, positions: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(self._index(i) for i in positions))

    def _collapse_by_distance(self) -> None:
        """Find copies by L2 distance, among all estimates."""
        squares, m = self.estimates.distances**2, len(self.live)
        radius = self._center().half_distance
        limit = copy_distance(self.law.df, m, radius, COPY_RADIUS_SHARE)
        self.df = self._shown_df(squares, limit**2, self.law.df)
        limit = copy_distance(self.df, m, radius, COPY_RADIUS_SHARE)
        self._collapse(squares, limit**2, self.df)

    def _collapse_white(self, squares: Array, scale: float, n_axes: int) -> None:
        """Find copies by the squared distances of pairs in white coordinates, among the live."""
        n = len(self.live)
        limit = spectral.copy_limit(n, n_axes, max(scale, LEAST_SCALE), self.widening)
        is_dense = scale < spectral.least_scale(n_axes)
        self.white_df = self._shown_df(squares, limit, n_axes, is_dense)
        if not is_dense or self._has_large_group(squares, limit):
            scale = max(scale, LEAST_SCALE)
        limit = spectral.copy_limit(n, self.white_df, scale, self.widening)
        self._collapse(squares, limit, self.white_df)

    def _has_large_group(self, squares: Array, limit: float) -> bool:
        """Whether most of the live estimates are one group of near ones."""
        groups = near_groups(squares[np.ix_(self.live, self.live)], limit)
        return 2 * max(map(len, groups), default=0) > len(self.live)

    def _shown_df(self, squares: Array, limit: float, df: float, is_dense: bool = False) -> float:
        """Degrees of freedom of pairs: ``df``, or what the majority shows if that is less.

        Pairs within ``limit`` may be copies, which would look like few degrees of freedom: they count as one. Where
        most estimates are near others (``is_dense``), but not in one group, ``df`` may be wrong, and all count.
        """
        own = squares[np.ix_(self.live, self.live)]
        single = one_of_each(len(own), near_groups(own, limit))
        is_dense = is_dense or 2 * len(single) <= len(own)
        if not is_dense or self._has_large_group(squares, limit):
            own = own[np.ix_(single, single)]
        return min(df, observed_df(own))

    def _collapse(self, squares: Array, limit: float, df: float) -> None:
        """Give every group of copies one vote, that of its center."""
        live, lost = self.live, []
        own, n_rows = squares[np.ix_(live, live)], float(np.median(self.estimates.n_samples))
        for group in beyond_chance(near_groups(own, limit), own, limit, df, n_rows):
            members = live[group]
            medoid = self._center(members, squares).estimate
            copies = tuple(sorted(j for i in members for j in self.represents[int(i)]))
            self.represents[medoid] = copies
            lost += [int(i) for i in members if i != medoid]
            for i in copies:
                if i != medoid:
                    rest = tuple(j for j in copies if j not in (i, medoid))
                    reason = reasons.Copy(self._index(medoid), self._indices(rest))
                    self.reasons[self._index(i)] = reason
        self.live = np.setdiff1d(live, lost)

    def _center(self, among: Labels | None = None, distances: Array | None = None) -> Candidate:
        """The center, by default of all estimates that have a vote and by L2 distance."""
        among = self.live if among is None else among
        distances = self.estimates.distances if distances is None else distances
        return best_candidate(
            row_candidates(
                distances[np.ix_(among, among)],
                among.tolist(),
                self.estimates.n_samples[among].astype(int).tolist(),
                self.estimates.parameters[among],
            )
        )

    def _filter(self, rho: float | None, false_exclusion_rate: float) -> int:
        """Exclude by L2 distance among the votes; the position of the center."""
        center = self._center()
        if center.half_distance == 0:  # a single vote
            return center.estimate
        limit = rho
        if limit is None:
            law = self.law._replace(df=self.df)
            level = false_exclusion_rate / len(self.live)
            low, high = np.sqrt(law.ppf(np.array([0.5, 1.0 - level])))
            # Of few estimates half may be near their center by chance: the radius says too little.
            explained = float(high) / min(float(low), center.half_distance)
            most = spectral.SLACK * float(law.ppf(np.array(SCATTERED)))
            is_wide = center.half_distance**2 > most
            limit = max(explained, spectral.OUTLYING if is_wide else LEAST_RHO)
        with np.errstate(invalid="ignore"):
            ratios = np.nan_to_num(center.distances / center.half_distance, nan=np.inf)
        self.n_doubtful += int(((ratios > limit) & (ratios < limit * np.sqrt(DOUBTFUL))).sum())
        for i, ratio in zip(self.live, ratios, strict=True):
            if ratio > limit:
                # This is the reason for its copies too: far away, where densities are wide, small distances do not
                # mean that estimates agree.
                for j in self.represents[int(i)]:
                    self.reasons[self._index(j)] = reasons.FarFromVotes(float(ratio))
        self.live = self.live[ratios <= limit]
        return center.estimate

    def _too_few_rows(self, center: int) -> str:
        family, stack = self.estimates.family, self.estimates.stack
        weights, components = stack.one(center)
        of_one = family.n_parameters(1, family.n_features(components))
        n_rows = float(np.median(self.estimates.n_samples[self.live])) / len(weights)
        if n_rows >= FEWEST_ROWS * of_one:
            return ""
        return f"{n_rows:.0f} rows per component are fewer than {FEWEST_ROWS:g} times its {of_one} parameters"

    # -- white coordinates --

    def _whitened(self, center: int) -> tuple[Frame, Array, Array, float]:
        """Frame, white vectors (m, n_axes) and squared pair distances (m, m) of the live, and the scale of these."""
        m = len(self.estimates.n_samples)
        frame = self._frame(center)
        self._widen(frame)
        white = np.full((m, frame.n_axes), np.nan)
        white[self.live] = frame.white(self.estimates.stack[self.live])
        squares = np.full((m, m), np.inf)
        live = np.ix_(self.live, self.live)
        n_samples = self.estimates.n_samples[self.live]
        squares[live] = spectral.pair_squares(white[self.live], n_samples)
        return frame, white, squares, spectral.typical_pair(squares[live])

    def _frame(self, center: int) -> Frame:
        """The frame at the center, then at the median of all votes, which has a smaller error of its own."""
        # The draws need not be secret: what sampling explains is the same for every caller.
        family, stack = self.estimates.family, self.estimates.stack
        frame = make_frame(family, *stack.one(center), np.random.default_rng(0), is_rough=True)
        middle = frame.mixture_at(np.median(frame.white(stack[self.live]), axis=0))
        if middle is not None and family.is_proper(middle[1]):
            return make_frame(family, *middle, np.random.default_rng(0))
        return make_frame(family, *stack.one(center), np.random.default_rng(0))

    def _widen(self, frame: Frame) -> None:
        """Set the widening of the laws, by refits, if there are few rows."""
        n = float(np.median(self.estimates.n_samples[self.live]))
        if n >= ROWS_PER_AXIS * frame.n_axes and n * frame.information.min() >= LEAST_INFORMED_ROWS:
            return
        refits = self.refit(*frame.origin, int(n), N_REFITS)
        if refits is None:
            return
        white = np.sqrt(n) * frame.white(refits)
        centered = white - np.median(white, axis=0)
        parts = [(part.squares(centered), part.n_free) for part in frame.parts]
        self.widening = spectral.widening_of(white, parts, np.argsort(frame.information))
        # Where some refits are outliers, estimates of as few rows have no law of squared lengths.
        self.is_wide = self.is_wide or bool(self._far(centered, frame))

    def _most_scale(self) -> float:
        return MOST_SCALE * self.widening.length[0]

    def _misfit(self, scale: float, n_axes: int) -> str:
        """Why the mixture hardly fits: most estimates scatter more than its rows let them, consistent or not."""
        law = chi_square_law(n_axes).scaled(*self.widening.length)
        # If nearly half are not consistent, the nearer half of all is nearly all of the consistent ones.
        most = spectral.SLACK * float(law.ppf(np.array(SCATTERED))) / n_axes
        if scale <= most:
            return ""
        return (
            f"squared distances between most estimates are {scale:.3g} times what rows of one mixture explain, so that "
            "the mixture hardly fits the rows"
        )

    # -- excluding in white coordinates --

    def _exclude_all_far(self, white: Array, frame: Frame) -> bool:
        """Exclude in rounds, because far estimates hide less far ones; whether any was excluded."""
        for n_rounds in range(MOST_EXCLUSION_ROUNDS):
            if not self._exclude_far(white, frame):
                return n_rounds > 0
        return True

    def _errors(self, white: Array) -> Array:
        """White vectors of the live about their median, in standard errors."""
        own = white[self.live]
        n_samples = self.estimates.n_samples[self.live, None]
        return np.asarray(np.sqrt(n_samples) * (own - np.median(own, axis=0)))

    def _exclude_far(self, white: Array, frame: Frame) -> bool:
        """Exclude vectors that are too far, in their length or that of a part; whether any was excluded."""
        far = self._far(self._errors(white), frame)
        found: dict[int, Reason] = {}
        for i, (_, times, what, k) in far.items():
            found[i] = (
                reasons.FarInPart(what, _number(k), times) if what else reasons.FarInAll(times)
            )
        self.n_doubtful += sum(excess < DOUBTFUL for excess, *_ in far.values())
        candidates = sorted(far, key=lambda i: -far[i][0])
        return self._exclude(candidates, found, "most estimates are too far from one another")

    def _far(self, errors: Array, frame: Frame) -> dict[int, tuple[float, float, str, int]]:
        """The vectors that are too far, by place.

        With the largest excess over a limit, how many times the usual length that is, and the part and component where.
        """
        n_tests = len(errors) * (1 + len(frame.parts))
        found: dict[int, tuple[float, float, str, int]] = {}
        widenings = self.widening.parts or ((1.0, 1.0),) * len(frame.parts)
        tests = [
            (part.what, part.component, part.squares(errors), part.n_free) for part in frame.parts
        ]
        tests.append(("", -1, (errors**2).sum(axis=1), frame.n_axes))
        for (what, k, squares, n_free), widening in zip(
            tests, (*widenings, self.widening.length), strict=True
        ):
            limit, usual = spectral.far_limit(squares, n_free, n_tests, widening, self.is_wide)
            # The ratio to the limit is comparable between parts of all sizes.
            for i, excess in enumerate(squares / limit):
                if excess > max(1.0, found[i][0] if i in found else 0.0):
                    found[i] = float(excess), float(np.sqrt(squares[i] / usual)), what, k
        return found

    def _exclude(self, candidates: list[int], found: dict[int, Reason], trouble: str) -> bool:
        """Exclude live estimates, by place among them, worst first, as long as a majority of the votes is left."""
        room = len(self.live) - self.least
        if len(candidates) > room:
            self.no_majority = trouble
        excluded = candidates[: max(room, 0)]
        for place in excluded:
            self.reasons[self._index(int(self.live[place]))] = found[place]
        self.live = np.delete(self.live, excluded)
        return bool(excluded)

    def _exclude_together(self, white: Array, frame: Frame) -> None:
        """Exclude groups that stand apart along a direction, and single estimates, until there are none."""
        order = np.argsort(frame.information, kind="stable")
        while True:
            raised = spectral.alarm(self._errors(white), order, self.widening, frame.n_rows)
            if raised is None:
                return
            if (
                self.is_wide
                and not raised.is_group
                and raised.separation < spectral.OUTLYING * raised.usual
            ):
                white = raised.narrowed(white)
                continue
            if raised.is_group and self._is_unclear(raised):
                return
            if len(self.live) - len(raised.minority) < self.least:
                self._report_split(raised, "as many votes stand apart along one direction")
                return
            found = self._reasons_along(raised, frame)
            self.n_doubtful += not raised.is_group and raised.is_doubtful
            self._exclude([int(i) for i in raised.minority], found, "")

    def _reasons_along(self, raised: Direction, frame: Frame) -> dict[int, Reason]:
        """The reasons for the minority along a direction, by place among the live."""
        what, k = _loudest(raised.direction, frame)
        members = tuple(int(i) for i in self.live[raised.minority])
        if not raised.is_group:
            alone = reasons.AlongDirection(what, _number(k), raised.separation)
            return {int(place): alone for place in raised.minority}
        found: dict[int, Reason] = {}
        for place in raised.minority:
            others = self._indices(tuple(j for j in members if j != int(self.live[place])))
            found[int(place)] = reasons.MovedTogether(what, _number(k), raised.separation, others)
        return found

    def _is_unclear(self, raised: Direction) -> bool:
        """Whether the smaller group may as well be the majority; then both are kept."""
        share = len(raised.minority) / self.n_votes
        if share <= CLOSE_SHARE or raised.separation >= CLOSE_SEPARATION:
            return False
        self._report_split(
            raised,
            f"two groups of estimates stand {raised.separation:.1f} standard errors apart along one direction, "
            "and it is not clear which is the majority: both are kept",
        )
        return True

    def _report_split(self, raised: Direction, text: str) -> None:
        self.no_majority = text
        minority = self.live[raised.minority]
        sides = (np.setdiff1d(self.live, minority), minority)
        self.groups = tuple(
            self._indices(tuple(j for i in side for j in self.represents[int(i)])) for side in sides
        )

    # -- results --

    def _result(self, center: int) -> Hardened:
        kept = np.zeros(len(self.estimates.n_samples), dtype=bool)
        kept[self.live] = True
        if self.n_doubtful > max(1, MOST_DOUBTFUL * len(kept)):
            self.misfit = self.misfit or f"{self.n_doubtful} estimates are hardly beyond the limits"
        represented = {j for i in self.live for j in self.represents[int(i)]}
        if 2 * len(represented) <= len(kept):
            rest = tuple(i for i in range(len(kept)) if i not in represented)
            sides = self._indices(tuple(represented)), self._indices(rest)
            self.groups = self.groups or sides
            self.no_majority = self.no_majority or "the kept estimates represent no majority"
        return Hardened(
            kept,
            center,
            self.reasons,
            no_majority=self.no_majority,
            misfit=self.misfit,
            groups=self.groups,
        )

    def _unusable(self, why: str) -> Hardened:
        return Hardened(np.ones(len(self.estimates.n_samples), dtype=bool), 0, {}, why)


def _number(component: int) -> int | None:
    """The number of a component, None for a part that belongs to no single component."""
    return component if component >= 0 else None


def _loudest(direction: Array, frame: Frame) -> tuple[str, int]:
    """The part of the parameters that a direction belongs to most, for its size: its name and component."""
    squares = [
        float(part.squares(direction[None])[0]) - part.n_free / frame.n_axes for part in frame.parts
    ]
    part = frame.parts[int(np.argmax(squares))]
    return part.what, part.component
