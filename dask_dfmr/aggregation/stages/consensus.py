"""Who is kept by what sampling explains: distances to the consensus of those near the center, and their law.

    draw_witnesses -> { take_estimates } -> join_estimates -> form_consensus -> { consensus_distances } -> judge

follow ``l2_filter`` of :mod:`dask_dfmr.aggregation.stages.intake`, in the same terms. The center is one estimate with a sampling error of
its own, which would be in every distance to it. The consensus, a reduction of many, has next to none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dask_dfmr.aggregation.groups import copies_of, groups_of, has_clear_majority, rival_groups
from dask_dfmr.aggregation.null_law import MAX_SPREAD, Law, l2_law, settle
from dask_dfmr.aggregation.reduction import Centers, reduce_pooled
from dask_dfmr.aggregation.result import AggregationOptions, Note
from dask_dfmr.aggregation.stages.intake import (
    Block,
    Participants,
    Verdict,
    listed,
    pair_errors,
    pool,
    rows_of,
    spread,
    verdict_on,
)
from dask_dfmr.exceptions import FilterWarning, HeterogeneityWarning, NoMajorityWarning
from dask_dfmr.local.fit import LocalProblem
from dask_dfmr.mixtures import distances as l2
from dask_dfmr.mixtures.distances import Stack
from dask_dfmr.mixtures.family import Array, Components, Family
from dask_dfmr.mixtures.information import information
from dask_dfmr.seeds import WITNESS_DRAW, stream

MOST_WITNESSES = 256
"""So many machines form the consensus: its variance is then one in a hundred or less of a machine's own."""

MOST_COMPARED = 100
"""So many of them are compared pair by pair, to see whether they fall into groups."""

MEMBER_LEVEL = 0.01
"""Witnesses that sampling explains less often than this are left out of the consensus."""

LEAST_OWN_SHARE = 0.2
"""A machine that is most of the consensus itself is never held to less than this share of its own variance."""

SMALL = 10
"""With fewer rows than so many times the free parameters, an estimate's error is not yet that of many rows."""

REFIT_SHARE, MOST_REFITS, FEWEST_REFITS = 0.05, 48, 3
"""Rows that refits for small machines may take, of all rows; refits of each size."""

FEWEST_MACHINES = 4
"""Of fewer machines nobody can tell which ones are unlike the others."""

WIDE = 3.0
"""Distances that are this many times what sampling explains, for most machines, are worth a warning."""


Groups = tuple[tuple[int, ...], ...]
"""Machines of each group."""


class SmallSize(NamedTuple):
    """Estimates from up to ``n_samples`` rows: their law relative to that of many rows."""

    n_samples: float
    scale: float
    spread: float


class Consensus(NamedTuple):
    """What most machines near the center say together, and how far from it sampling leads.

    ``law`` is that of n D^2 for many rows in units of exp(log_norm); ``members`` are the machines that formed it, of
    ``n_samples`` rows together. ``groups`` and ``copies`` are those among machines that were compared pair by pair.
    """

    weights: Array
    components: Components
    law: Law
    log_norm: float
    members: NDArray[np.intp]
    n_samples: float
    small: tuple[SmallSize, ...]
    groups: Groups
    copies: Groups = ()

    @property
    def stack(self) -> Stack:
        """As a stack of one."""
        return Stack(self.weights[None], tuple(p[None] for p in self.components))


def draw_witnesses(
    verdict: Verdict, participants: Participants, seed: np.random.SeedSequence
) -> list[int]:
    """The machines that are compared with one another: all, or some drawn at random, and the center."""
    if len(participants.indices) <= MOST_WITNESSES:
        return [int(i) for i in participants.indices]
    rng = np.random.default_rng(stream(seed, WITNESS_DRAW))
    drawn = rng.choice(participants.indices, MOST_WITNESSES, replace=False)
    return sorted({verdict.decision.center, verdict.starts[0], *(int(i) for i in drawn)})


def form_consensus(
    witnesses: Block,
    verdict: Verdict,
    participants: Participants,
    problem: LocalProblem,
    law: tuple[Law, float] | None = None,
) -> Consensus:
    """Reduce the witnesses near the center, find the law of distances there, and reduce again what it explains.

    ``law`` is that of an earlier consensus of nearly the same machines, with its ``log_norm``: finding it takes most
    of the time.
    """
    family = participants.schema.family
    near = np.isin(witnesses.summary.indices, participants.indices[verdict.near])
    rows = rows_of(witnesses, participants)
    # What sampling explains is no secret, and the same whoever asks.
    rng = np.random.default_rng(0)
    consensus = _reduce(witnesses, near, verdict, participants)
    if law is None:
        # What is no part of any row has no law; but something has to have one.
        one_row = min(1.0 / rows[near].sum(), 0.5 * consensus.weights.max())
        heavy = consensus.weights > one_row
        components = tuple(p[heavy] for p in consensus.components)
        about = information(family, consensus.weights[heavy], components, rng)
        law = l2_law(family, about, rng)
    place = np.array(witnesses.summary.indices)
    found = Consensus(
        consensus.weights,
        consensus.components,
        *law,
        place[near],
        float(rows[near].sum()),
        (),
        (),
    )
    statistics = _statistics(
        consensus_distances(witnesses, found, participants) ** 2, place, rows, found
    )
    explained = settle(statistics, found.law).p_values >= MEMBER_LEVEL
    if 2 * explained.sum() > near.sum():
        consensus = _reduce(witnesses, explained, verdict, participants)
        found = found._replace(
            weights=consensus.weights,
            components=consensus.components,
            members=place[explained],
            n_samples=float(rows[explained].sum()),
        )
    found = found._replace(small=_small_sizes(found, participants, problem, rng))
    machines, distances = _pairs(witnesses, found, participants, rng)
    # Far away, where densities are wide, small distances say nothing.
    close = np.isin(machines, place[near])
    copies = copies_of(distances[np.ix_(close, close)], found.law) if distances.any() else []
    return found._replace(
        groups=_groups(machines, distances, found.law, participants),
        copies=_named(copies, machines[close]),
    )


def _reduce(
    witnesses: Block, chosen: NDArray[np.bool_], verdict: Verdict, participants: Participants
) -> Centers:
    """The reduction of some witnesses, by their rows, started where that of all is, or else at the first of them."""
    assert witnesses.stack is not None
    indices = witnesses.summary.indices
    usual = verdict.starts[0]
    start = indices.index(usual) if usual in indices else int(chosen.argmax())
    shares = np.where(chosen, rows_of(witnesses, participants), 0.0)
    pooled = pool([(witnesses.stack, shares / shares.sum())])
    assert pooled is not None
    return reduce_pooled(participants.schema.family, *pooled, Centers(*witnesses.stack.one(start)))


def _pairs(
    witnesses: Block, consensus: Consensus, participants: Participants, rng: np.random.Generator
) -> tuple[NDArray[np.intp], Array]:
    """The machines that are compared pair by pair, and their distances in a unit in which honest ones are alike."""
    assert witnesses.stack is not None
    summary, n = witnesses.summary, len(witnesses.summary.indices)
    chosen = np.arange(n)
    if n > MOST_COMPARED:
        chosen = np.sort(rng.choice(n, MOST_COMPARED, replace=False))
    stack, log_self = witnesses.stack[chosen], summary.log_self[chosen]
    tile = l2.l2_tile(
        participants.schema.family, stack, stack, log_self, log_self, consensus.log_norm
    )
    distances = l2.symmetric_tile(tile) / pair_errors(
        *2 * [rows_of(witnesses, participants)[chosen]]
    )
    return np.array(summary.indices)[chosen], distances


def _groups(
    machines: NDArray[np.intp], distances: Array, law: Law, participants: Participants
) -> Groups:
    """Groups among machines that were compared."""
    expected = float(np.sqrt(law.mean))
    found = groups_of(distances, expected)
    if has_clear_majority(found, len(machines)):
        schema = participants.schema
        n_parameters = schema.family.n_parameters(schema.n_components, schema.n_features)
        is_small = participants.n_samples.min() < SMALL * n_parameters
        found = rival_groups(distances, expected, law.df / (MAX_SPREAD**2 if is_small else 1.0))
        found = found or groups_of(distances, expected)
    return _named(found, machines)


def _named(groups: Sequence[Sequence[int]], machines: NDArray[np.intp]) -> Groups:
    return tuple(tuple(int(machines[i]) for i in group) for group in groups)


def consensus_distances(block: Block, consensus: Consensus, participants: Participants) -> Array:
    """Distances of the machines of a block to the consensus, in its unit."""
    if block.stack is None:
        return np.empty(0)
    family = participants.schema.family
    own = np.array([consensus.log_norm])
    log_self = l2.log_self_products(family, consensus.stack)
    return l2.l2_tile(
        family, consensus.stack, block.stack, log_self, block.summary.log_self, float(own[0])
    )[0]


def _statistics(
    squares: Array, indices: NDArray[np.intp], n_samples: Array, consensus: Consensus
) -> Array:
    """Squared distances over the variance that sampling gives them, in which members have a part themselves."""
    own, common = 1.0 / n_samples, 1.0 / consensus.n_samples
    inside = np.maximum(own - common, LEAST_OWN_SHARE * own)
    return squares / np.where(np.isin(indices, consensus.members), inside, own + common)


def problem_of(participants: Participants) -> LocalProblem:
    """How estimates were probably fitted, where nobody said."""
    return LocalProblem(
        participants.schema.family,
        participants.schema.n_components,
        n_sources=max(len(participants.indices), 1),
    )


# -- few rows ------------------------------------------------------------------------------------


def _small_sizes(
    consensus: Consensus,
    participants: Participants,
    problem: LocalProblem,
    rng: np.random.Generator,
) -> tuple[SmallSize, ...]:
    """What refits of rows drawn from the consensus show for machines with few rows, by size.

    Where all are of that size no refits are needed: :func:`settle` hears the machines themselves.
    """
    schema = participants.schema
    limit = SMALL * schema.family.n_parameters(schema.n_components, schema.n_features)
    sizes = np.unique(participants.n_samples)
    if len(sizes) == 1 or sizes[0] >= limit:
        return ()
    bands = np.unique(np.ceil(2 * np.log2(sizes[sizes < limit])))
    found = []
    for band in bands:
        inside = participants.n_samples[np.ceil(2 * np.log2(participants.n_samples)) == band]
        n = int(np.median(inside))
        budget = REFIT_SHARE * participants.n_samples.sum() / (n * len(bands))
        n_refits = int(min(budget, MOST_REFITS))
        if n_refits >= FEWEST_REFITS:
            scale, wider = _refit(consensus, n, n_refits, schema.family, problem, rng)
            found.append(SmallSize(float(inside.max()), scale, wider))
    return tuple(found)


def _refit(
    consensus: Consensus,
    n: int,
    n_refits: int,
    family: Family,
    problem: LocalProblem,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Scale and spread of distances of estimates from n rows of the consensus."""
    weights, components = consensus.weights, consensus.components
    start = problem.family.mixture(weights, components)
    squares = []
    for _ in range(n_refits):
        rows, _ = family.sample(n, weights, components, rng)
        mixture = problem.fit(rows, start).mixture
        if mixture is not None:
            stack = l2.stack_mixtures([mixture])
            a, b = (l2.log_self_products(family, s) for s in (consensus.stack, stack))
            tile = l2.l2_tile(family, consensus.stack, stack, a, b, consensus.log_norm)
            squares.append(n * float(tile[0, 0]) ** 2)
    settled = settle(np.array(squares), consensus.law)
    return settled.scale, settled.spread


def _as_of_many_rows(statistics: Array, n_samples: Array, consensus: Consensus) -> Array:
    """Statistics of small machines moved to the same place of the law of many rows."""
    moved = statistics.copy()
    least = 0.0
    for size in consensus.small:
        here = (n_samples > least) & (n_samples <= size.n_samples)
        z = consensus.law.scaled(size.scale, size.spread).z_scores(statistics[here])
        moved[here] = consensus.law.at_z_scores(z)
        least = size.n_samples
    return moved


# -- the verdict ---------------------------------------------------------------------------------


def judge(
    verdict: Verdict,
    consensus: Consensus,
    distances: Sequence[Array],
    participants: Participants,
    options: AggregationOptions,
) -> Verdict:
    """Add to the decision what sampling explains; with ``rho="auto"`` that decides who is kept."""
    squares = np.concatenate(distances) ** 2
    statistics = _statistics(squares, participants.indices, participants.n_samples, consensus)
    statistics = _as_of_many_rows(statistics, participants.n_samples, consensus)
    settled = settle(statistics, consensus.law)
    decision, is_agreed = verdict.decision, True
    if options.is_calibrated:
        kept = settled.p_values >= options.false_exclusion_rate
        is_agreed = 2 * kept.sum() > len(kept)
        if not is_agreed:
            kept = statistics <= np.sort(statistics)[len(kept) // 2]
        decision = replace(decision, kept=spread(kept, participants, False))
    of_center = squares[participants.indices == decision.center][0]
    expected = np.sqrt(
        settled.law.mean * _size_scales(participants.n_samples, consensus) / participants.n_samples
        + of_center
    )
    expected[participants.indices == decision.center] = 0.0
    decision = replace(
        decision,
        expected_distances=spread(
            l2.in_l2_units(expected, consensus.log_norm), participants, np.nan
        ),
        z_scores=spread(settled.z_scores, participants, np.nan),
        p_values=spread(settled.p_values, participants, np.nan),
        sampling_ratios=spread(np.sqrt(statistics / settled.law.mean), participants, np.nan),
        scale=settled.scale,
        groups=consensus.groups,
    )
    judged = verdict_on(decision, participants, options, verdict.near)
    notes = [
        *heterogeneity_notes(judged, participants, is_agreed),
        *_copy_notes(consensus.copies, participants),
    ]
    return judged._replace(notes=(*judged.notes, *notes))


def _size_scales(n_samples: Array, consensus: Consensus) -> Array:
    scales, least = np.ones_like(n_samples), 0.0
    for size in consensus.small:
        scales[(n_samples > least) & (n_samples <= size.n_samples)] = size.scale
        least = size.n_samples
    return scales


def _copy_notes(copies: Groups, participants: Participants) -> list[Note]:
    """Estimates that agree more closely than independent ones do have a vote each here, though they are one's."""
    if not copies:
        return []
    n_copies = sum(len(group) for group in copies)
    is_many = not has_clear_majority(
        [range(min(len(participants.indices), MOST_COMPARED) - n_copies)],
        min(len(participants.indices), MOST_COMPARED),
    )
    text = "; ".join(f"estimates {listed(group)}" for group in copies[:3])
    text = f"{text}{'; ...' if len(copies) > 3 else ''} are copies of one another: nearer than sampling makes likely"
    advice = "The same file twice, or machines that collude: method='hardened' gives copies one vote together"
    return [Note(NoMajorityWarning if is_many else FilterWarning, f"{text}. {advice}.")]


REMEDIES = (
    "Rows of partitions may be sorted: shuffle or sample them across partitions (mix_partitions). Or one mixture may "
    "not fit: try another n_components, or more starts (n_init). If only proportions differ, heterogeneity='weights' "
    "keeps such partitions"
)


def heterogeneity_notes(
    verdict: Verdict, participants: Participants, is_agreed: bool
) -> list[Note]:
    """What speaks against one population of most estimates; by name, where it is not even clear who is the majority."""
    decision, n_usable = verdict.decision, len(participants.indices)
    n_samples = spread(participants.n_samples, participants, 0.0)
    excluded = 1.0 - n_samples[decision.kept].sum() / n_samples.sum()
    if n_usable < FEWEST_MACHINES:
        return []
    texts, category = [], HeterogeneityWarning
    if not is_agreed:
        texts.append("no majority of the estimates is within what sampling explains")
        category = NoMajorityWarning
    if decision.scale > WIDE**2:
        texts.append(
            f"distances between most estimates are {np.sqrt(decision.scale):.3g} times what their numbers of rows "
            "explain"
        )
        category = NoMajorityWarning
    if decision.groups:
        sizes = " and ".join(str(len(group)) for group in decision.groups)
        texts.append(
            f"estimates fall into groups of {sizes} that lie farther from one another than within"
        )
        n_compared = min(n_usable, MOST_COMPARED)
        if not has_clear_majority(decision.groups, n_compared):
            texts[-1] += ", and none is a clear majority"
            category = NoMajorityWarning
    if not texts:
        return []
    message = f"{'; '.join(texts)}. {excluded:.0%} of the rows are left out"
    if category is NoMajorityWarning:
        message += ", and the result may be that of bad estimates: look at the groups first"
    return [Note(category, f"{message}. {REMEDIES}.")]
