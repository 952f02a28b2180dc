"""Estimates -> who is kept, where L2 distances alone can be fooled: copies, the blind spots of L2, and collusion.

1. *Copies* closer than sampling allows have one vote together, before anything is measured by majority.
2. *L2 filter* among the votes: what is grossly off goes, and what is left can be matched component by component.
3. *White coordinates* by the Fisher information at the center, :mod:`dask_dfmr.mixtures.whitening`. In them honest estimates are
   standard normal, so that each further step has a law: copies once more; the length of each vector and of each of
   its parts; and directions along which several machines move together, :mod:`dask_dfmr.aggregation.hardened.spectral`.

Mathematics only: arrays and a family in, positions and findings out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dask_dfmr.aggregation.groups import copy_distance, near_groups
from dask_dfmr.aggregation.hardened import spectral
from dask_dfmr.aggregation.hardened.spectral import Direction, Widening
from dask_dfmr.aggregation.medoid import Candidate, best_candidate, row_candidates
from dask_dfmr.aggregation.null_law import Law, chi_square_law
from dask_dfmr.mixtures.distances import Stack
from dask_dfmr.mixtures.family import Array, Components, Family, Labels
from dask_dfmr.mixtures.whitening import Frame, make_frame

FEWEST_MACHINES = 4
"""Of fewer nobody can tell which ones are unlike the others."""

COPY_SHARE = 0.5
"""Estimates within this share of the radius of one another are copies, where sampling makes that improbable."""

FEWEST_ROWS = 2.0
"""Rows per component, in units of its parameters, below which estimates have no normal law to be held against."""

SMALL = 10.0
"""Below so many rows per free parameter refits show how much more than the law of many rows estimates scatter."""

N_REFITS = 24

MOST_SCALE = 5.0
"""Squared distances more than so many times those that sampling explains, few rows and all, for the majority: the law
does not apply."""

SCATTERED = 0.9
"""Quantile of honest distances below which half of all distances lie, even where nearly half of them are bad."""

MOST_ROUNDS = 4

CLOSE_SHARE, CLOSE_SEPARATION = 0.45, 6.0
"""A group of more than this share of the votes, nearer than so many standard errors, may be the honest one."""

Refit = Callable[[Array, Components, int, int], Stack | None]
"""(weights, components, rows, how many) -> estimates of so many rows drawn from that mixture."""


class Finding(NamedTuple):
    """Why an estimate has no place in the reduction.

    ``kind`` is "copy" (of ``others``, the first of which has the vote), "distance" (``amount`` radii), "length" and
    "part" (``amount`` times what sampling explains), "group" (with ``others``) or "alone" (``amount`` standard
    errors along a direction). ``what`` and ``component`` name the part that shows it.
    """

    kind: str
    amount: float = 0.0
    what: str = ""
    component: int = -1
    others: tuple[int, ...] = ()


class Hardened(NamedTuple):
    """Who is kept of the estimates, by position, and what was found.

    ``center`` is the one in the middle of those that have a vote; its components are those that ``findings`` number.
    ``unusable`` says why nothing of this applies, "" if it does. ``no_majority`` says in words why it is not clear who
    the majority is, and ``groups`` who stands against whom; ``misfit`` why the law itself is in doubt.
    """

    kept: NDArray[np.bool_]
    center: int
    findings: dict[int, Finding]
    scale: float = 1.0
    unusable: str = ""
    no_majority: str = ""
    misfit: str = ""
    groups: tuple[tuple[int, ...], ...] = ()


class Estimates(NamedTuple):
    """Estimates of m machines with their L2 distances (m, m), in units in which those of honest ones are alike."""

    family: Family
    stack: Stack
    n_samples: Array
    parameters: Array
    distances: Array

    def at(self, order: Labels) -> Estimates:
        """The same in another order."""
        return Estimates(
            self.family,
            self.stack[order],
            self.n_samples[order],
            self.parameters[order],
            self.distances[np.ix_(order, order)],
        )


def harden(
    estimates: Estimates, law: Law, rho: float | None, false_exclusion_rate: float, refit: Refit
) -> Hardened:
    """Who is kept.

    Parameters
    ----------
    estimates : Estimates
    law : Law
        Of squared L2 distances, in any unit.
    rho : float or None
        Radii within which estimates pass the L2 filter; None: 1.3, or what sampling explains if that is more.
    false_exclusion_rate : float
        What "explains" means there.
    refit : Refit
        Asked only where there are few rows.
    """
    # In an order of their own, so that nothing depends on the order they came in, not even rounding.
    order = np.lexsort((*estimates.parameters.T[::-1], estimates.n_samples))
    found = _Filter(estimates.at(order), law, refit).run(rho, false_exclusion_rate)
    kept = np.zeros(len(order), dtype=bool)
    kept[order[found.kept]] = True

    def back(positions: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(int(order[i]) for i in positions)

    findings = {int(order[i]): f._replace(others=back(f.others)) for i, f in found.findings.items()}
    groups = tuple(tuple(sorted(back(group))) for group in found.groups)
    return found._replace(
        kept=kept,
        center=int(order[found.center]),
        findings=dict(sorted(findings.items())),
        groups=groups,
    )


class _Filter:
    """One run: ``live`` are the positions that still have a vote."""

    def __init__(self, estimates: Estimates, law: Law, refit: Refit) -> None:
        self.estimates, self.law, self.refit = estimates, law, refit
        self.live = np.arange(len(estimates.n_samples))
        self.findings: dict[int, Finding] = {}
        self.represents: dict[int, tuple[int, ...]] = {i: (i,) for i in range(len(self.live))}
        self.n_votes = self.least = len(self.live)
        self.no_majority = self.misfit = ""
        self.groups: tuple[tuple[int, ...], ...] = ()
        self.widening = Widening()

    def run(self, rho: float | None, false_exclusion_rate: float) -> Hardened:
        """All steps."""
        m = len(self.live)
        if m < FEWEST_MACHINES:
            return self._unusable(f"of {m} estimates nobody can tell which are unlike the others")
        radius = self._center().half_distance
        self._collapse(self.estimates.distances, copy_distance(self.law, m, radius, COPY_SHARE))
        self.n_votes = len(self.live)
        self.least = self.n_votes // 2 + 1
        center = self._filter(rho, false_exclusion_rate)
        trouble = self._too_few_rows(center)
        if trouble:
            return self._unusable(trouble)
        if len(self.live) < FEWEST_MACHINES:  # all the others are copies of these, or far away
            return self._result(center, 1.0)
        frame, white, squares, scale = self._whitened(center)
        if scale > self._most_scale() and self._drop_all_far(white, frame):
            # A few that are far even by the scatter of the majority may be what the scatter came from.
            frame, white, squares, scale = self._whitened(center)
        if scale > self._most_scale():
            return self._unusable(
                f"squared distances between most estimates are {scale:.3g} times what their numbers of rows explain"
            )
        self.misfit = self._misfit(scale, frame.n_axes)
        limit = spectral.copy_limit(len(self.live), frame.n_axes, scale, self.widening)
        n_live = len(self.live)
        self._collapse(squares, limit)
        self.least = (self.n_votes - n_live + len(self.live)) // 2 + 1
        self._drop_all_far(white, frame)
        self._drop_together(white, frame)
        return self._result(center, scale)

    # -- steps --

    def _whitened(self, center: int) -> tuple[Frame, Array, Array, float]:
        """The frame, white vectors and squared pair distances of the live ones, and the scale of these."""
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

    def _most_scale(self) -> float:
        return MOST_SCALE * self.widening.length[0]

    def _drop_all_far(self, white: Array, frame: Frame) -> bool:
        """In rounds, because what is far hides what is less far; whether any was dropped."""
        for dropped in range(MOST_ROUNDS):
            if not self._drop_far(white, frame):
                return dropped > 0
        return True

    def _collapse(self, distances: Array, limit: float) -> None:
        """Give every group of copies one vote, that of the one in its middle."""
        live = self.live
        lost = []
        for group in near_groups(distances[np.ix_(live, live)], limit):
            members = live[group]
            medoid = self._center(members, distances).machine
            others = [int(i) for i in members if i != medoid]
            everyone = tuple(sorted(j for i in members for j in self.represents[int(i)]))
            self.represents[medoid] = everyone
            lost += others
            for i in everyone:
                if i != medoid:
                    rest = tuple(j for j in everyone if j not in (i, medoid))
                    self.findings[i] = Finding("copy", others=(medoid, *rest))
        self.live = np.setdiff1d(live, lost)

    def _center(self, among: Labels | None = None, distances: Array | None = None) -> Candidate:
        """The one in the middle, by default of all that have a vote."""
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
        """The L2 filter among the votes; the center."""
        center = self._center()
        limit = rho
        if limit is None:
            low, high = np.sqrt(self.law.ppf(np.array([0.5, 1.0 - false_exclusion_rate])))
            limit = max(1.3, float(high / low))
        if center.half_distance == 0:  # a single vote
            return center.machine
        with np.errstate(invalid="ignore"):
            ratios = np.nan_to_num(center.distances / center.half_distance, nan=np.inf)
        for i, ratio in zip(self.live, ratios, strict=True):
            if ratio > limit:
                # Copies of it too: far away, where densities are wide, small distances say nothing.
                for j in self.represents[int(i)]:
                    self.findings[j] = Finding("distance", amount=float(ratio))
        self.live = self.live[ratios <= limit]
        return center.machine

    def _too_few_rows(self, center: int) -> str:
        family, stack = self.estimates.family, self.estimates.stack
        weights, components = stack.one(center)
        of_one = family.n_parameters(1, family.n_features(components))
        n_rows = float(np.median(self.estimates.n_samples[self.live])) / len(weights)
        if n_rows >= FEWEST_ROWS * of_one:
            return ""
        return f"{n_rows:.0f} rows per component are fewer than {FEWEST_ROWS:g} times its {of_one} parameters"

    def _misfit(self, scale: float, n_axes: int) -> str:
        """Whether most estimates scatter more than rows of the mixture let them, however many bad ones there are."""
        law = chi_square_law(n_axes).scaled(*self.widening.length)
        # The nearer half of all, where nearly half are bad, is nearly all of the honest ones.
        most = spectral.SLACK * float(law.ppf(np.array(SCATTERED))) / n_axes
        if scale <= most:
            return ""
        return (
            f"squared distances between most estimates are {scale:.3g} times what rows of one mixture explain, so that "
            "the mixture hardly fits the rows"
        )

    def _frame(self, center: int) -> Frame:
        """At the center, and then at the median of all votes, which has less of an error of its own."""
        # What sampling explains is no secret, and the same whoever asks.
        family, stack = self.estimates.family, self.estimates.stack
        frame = make_frame(family, *stack.one(center), np.random.default_rng(0), is_rough=True)
        middle = frame.mixture_at(np.median(frame.white(stack[self.live]), axis=0))
        if middle is not None and family.is_proper(middle[1]):
            return make_frame(family, *middle, np.random.default_rng(0))
        return make_frame(family, *stack.one(center), np.random.default_rng(0))

    def _widen(self, frame: Frame) -> None:
        n = float(np.median(self.estimates.n_samples[self.live]))
        if n >= SMALL * frame.n_axes:
            return
        refits = self.refit(*frame.origin, int(n), N_REFITS)
        if refits is None:
            return
        white = np.sqrt(n) * frame.white(refits)
        centered = white - np.median(white, axis=0)
        parts = [(part.squares(centered), part.n_free) for part in frame.parts]
        self.widening = spectral.widening_of(white, parts, np.argsort(frame.information))

    def _errors(self, white: Array) -> Array:
        """White vectors of the live ones about their median, in standard errors."""
        own = white[self.live]
        n_samples = self.estimates.n_samples[self.live, None]
        return np.asarray(np.sqrt(n_samples) * (own - np.median(own, axis=0)))

    def _drop_far(self, white: Array, frame: Frame) -> bool:
        """Length and parts of each vector against their laws; whether any was dropped."""
        errors = self._errors(white)
        n_tests = len(self.live) * (1 + len(frame.parts))
        worst = np.zeros(len(self.live))
        found: dict[int, Finding] = {}
        widenings = self.widening.parts or ((1.0, 1.0),) * len(frame.parts)
        tests = [
            (part.what, part.component, part.squares(errors), part.n_free) for part in frame.parts
        ]
        tests.append(("", -1, (errors**2).sum(axis=1), frame.n_axes))
        for (what, k, squares, n_free), widening in zip(
            tests, (*widenings, self.widening.length), strict=True
        ):
            limit, usual = spectral.far_limit(squares, n_free, n_tests, widening)
            # By how much, on a scale on which parts of all sizes are alike.
            excess = squares / limit
            for i in np.flatnonzero((excess > 1.0) & (excess > worst)):
                worst[i] = excess[i]
                times = float(np.sqrt(squares[i] / usual))
                kind = "part" if what else "length"
                found[int(i)] = Finding(kind, times, what, k)
        candidates = sorted(found, key=lambda i: -worst[i])
        return self._drop(candidates, found, "most estimates are too far from one another")

    def _drop(self, candidates: list[int], found: dict[int, Finding], trouble: str) -> bool:
        """Drop live ones, by place among them, worst first, as long as a majority of the votes is left."""
        room = len(self.live) - self.least
        if len(candidates) > room:
            self.no_majority = trouble
        for place in candidates[: max(room, 0)]:
            self.findings[int(self.live[place])] = found[place]
        dropped = candidates[: max(room, 0)]
        self.live = np.delete(self.live, dropped)
        return bool(dropped)

    def _drop_together(self, white: Array, frame: Frame) -> None:
        """Groups that stand apart along a direction, and single machines, until nothing does."""
        order = np.argsort(frame.information, kind="stable")
        while True:
            raised = spectral.alarm(self._errors(white), order, self.widening, frame.n_rows)
            if raised is None:
                return
            if raised.is_group and self._is_unclear(raised):
                return
            members = tuple(int(i) for i in self.live[raised.minority])
            what, k = _loudest(raised.direction, frame)
            found = {
                int(place): Finding(
                    "group" if raised.is_group else "alone",
                    raised.separation,
                    what,
                    k,
                    tuple(j for j in members if j != int(self.live[place])),
                )
                for place in raised.minority
            }
            n_live = len(self.live)
            if n_live - len(members) < self.least:
                self._report_split(raised, "as many votes stand apart along one direction")
                return
            self._drop([int(i) for i in raised.minority], found, "")

    def _is_unclear(self, raised: Direction) -> bool:
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
            tuple(sorted(j for i in side for j in self.represents[int(i)])) for side in sides
        )

    # -- results --

    def _result(self, center: int, scale: float) -> Hardened:
        kept = np.zeros(len(self.estimates.n_samples), dtype=bool)
        kept[self.live] = True
        represented = {j for i in self.live for j in self.represents[int(i)]}
        if 2 * len(represented) <= len(kept):
            rest = tuple(i for i in range(len(kept)) if i not in represented)
            self.groups = self.groups or (tuple(sorted(represented)), rest)
            self.no_majority = self.no_majority or "those kept stand for no majority"
        return Hardened(
            kept,
            center,
            self.findings,
            scale,
            no_majority=self.no_majority,
            misfit=self.misfit,
            groups=self.groups,
        )

    def _unusable(self, reason: str) -> Hardened:
        return Hardened(np.ones(len(self.estimates.n_samples), dtype=bool), 0, {}, 1.0, reason)


def _loudest(direction: Array, frame: Frame) -> tuple[str, int]:
    """The part that a direction belongs to most, for its size."""
    squares = [
        float(part.squares(direction[None])[0]) - part.n_free / frame.n_axes for part in frame.parts
    ]
    part = frame.parts[int(np.argmax(squares))]
    return part.what, part.component
