"""Estimates near the center -> the consensus and its null law -> distances of all estimates to it.

    draw_sample -> { take_estimates } -> join_estimates -> form_consensus -> { consensus_distances }

The center is a single estimate. Its own sampling error would be part of every distance to it. The consensus is a
reduction of many estimates, and its sampling error is small.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dask_dfmr.aggregation.canaries import Canary, canaries
from dask_dfmr.aggregation.groups import copies_of, groups_of, has_clear_majority, rival_groups
from dask_dfmr.aggregation.null_law import (
    MAX_SPREAD,
    Law,
    Settled,
    chi_square_law,
    distance_law,
    settle,
)
from dask_dfmr.aggregation.reduction import Centers, reduce_pooled
from dask_dfmr.aggregation.stages.intake import (
    Block,
    Participants,
    pair_errors,
    rows_of,
)
from dask_dfmr.aggregation.stages.keep import Selected
from dask_dfmr.aggregation.stages.reduce import pool
from dask_dfmr.local.fit import LocalProblem
from dask_dfmr.mixtures import distances as l2
from dask_dfmr.mixtures.distances import Stack
from dask_dfmr.mixtures.family import Array, Components, Family
from dask_dfmr.mixtures.information import Information, information
from dask_dfmr.seeds import SAMPLE_DRAW, stream

MOST_IN_SAMPLE = 256
"""Estimates that form the consensus, at most. Its variance is then one hundredth or less of a single estimate's."""

MOST_COMPARED = 100
"""Estimates of the sample that are compared pair by pair, to find groups and copies."""

MEMBER_LEVEL = 0.01
"""Estimates with a smaller p-value are excluded from the consensus."""

LEAST_OWN_SHARE = 0.2
"""An estimate that makes up most of the consensus is compared with at least this share of its own variance."""

FEW_ROWS = 10
"""With fewer rows per free parameter, the law of many rows does not yet describe the error of an estimate."""

REFIT_SHARE, MOST_REFITS, FEWEST_REFITS = 0.05, 48, 3
"""Rows that refits for estimates from few rows may use, as a share of all rows; number of refits of each size."""

Groups = tuple[tuple[int, ...], ...]
"""Indices of the estimates of each group."""


class SmallSize(NamedTuple):
    """The null law of estimates from up to ``n_samples`` rows, relative to the law of many rows.

    ``scale`` is the ratio of the means; ``spread`` the ratio of the standard deviations over the mean.
    """

    n_samples: float
    scale: float
    spread: float


class Consensus(NamedTuple):
    """The mixture of most estimates near the center, and the null law of distances to it.

    Attributes
    ----------
    weights : ndarray of shape (n_components,)
    components : tuple of ndarray
    law : Law
        Law of n L^2 for many rows, where L is the log-polar distance.
    log_norm : float
        Log <f, f> of the consensus: the unit of L2 distances near it.
    members : ndarray of int
        Indices of the estimates that formed it.
    n_samples : float
        Their rows together.
    small : tuple of SmallSize
        By increasing number of rows.
    groups, copies : tuple of tuple of int
        Groups and copies among the estimates that were compared pair by pair.
    canaries : tuple of Canary
        Changes that the filter should exclude.
    lightest : float
        Rows of the lightest component of a typical estimate.
    """

    weights: Array
    components: Components
    law: Law
    log_norm: float
    members: NDArray[np.intp]
    n_samples: float
    small: tuple[SmallSize, ...] = ()
    groups: Groups = ()
    copies: Groups = ()
    canaries: tuple[Canary, ...] = ()
    lightest: float = np.inf

    @property
    def stack(self) -> Stack:
        """The consensus as a stack of one mixture."""
        return Stack(self.weights[None], tuple(p[None] for p in self.components))


# -- the consensus ---------------------------------------------------------------------------------


def draw_sample(
    near: Selected, participants: Participants, seed: np.random.SeedSequence
) -> list[int]:
    """Indices of the estimates that are compared with one another: all, or some drawn at random and the center."""
    if len(participants.indices) <= MOST_IN_SAMPLE:
        return [int(i) for i in participants.indices]
    rng = np.random.default_rng(stream(seed, SAMPLE_DRAW))
    drawn = rng.choice(participants.indices, MOST_IN_SAMPLE, replace=False)
    return sorted({near.decision.center, near.starts[0], *(int(i) for i in drawn)})


def form_consensus(
    sample: Block, selected: Selected, participants: Participants, problem: LocalProblem
) -> Consensus:
    """Reduce the sampled estimates near the center, find their null law, and reduce again those that it explains."""
    if len(participants.indices) == 1:
        return _alone(sample, participants)
    near = np.isin(sample.summary.indices, participants.indices[selected.near])
    rows = rows_of(sample, participants)
    # The draws need not be secret: what sampling explains is the same for every caller.
    rng = np.random.default_rng(0)
    reduced = _reduce(sample, near, selected, participants)
    # The law is that of the fits: those that truncate have larger errors.
    family = participants.schema.family.with_cut(problem.family.cut)
    law, log_norm = distance_law(family, _about(reduced, rows[near], family, rng), rng)
    place = np.array(sample.summary.indices)
    found = Consensus(
        reduced.weights,
        reduced.components,
        law,
        log_norm,
        place[near],
        float(rows[near].sum()),
    )
    squares = consensus_distances(sample, found, participants) ** 2
    statistics = statistics_of(squares, place, rows, found)
    explained = settle(statistics, found.law).p_values >= MEMBER_LEVEL
    if 2 * explained.sum() > near.sum():
        reduced = _reduce(sample, explained, selected, participants)
        found = found._replace(
            weights=reduced.weights,
            components=reduced.components,
            members=place[explained],
            n_samples=float(rows[explained].sum()),
        )
    found = found._replace(
        small=_small_sizes(found, participants, problem, rng),
        canaries=canaries(participants.schema.family, found.weights, found.components),
    )
    return _with_groups(found, sample, near, participants, rng)


def _alone(sample: Block, participants: Participants) -> Consensus:
    """The only estimate, whose distance to itself is 0: no law is drawn for it, and that of white errors stands in."""
    assert sample.stack is not None
    schema = participants.schema
    n_parameters = schema.family.n_parameters(schema.n_components, schema.n_features)
    return Consensus(
        *sample.stack.one(0),
        chi_square_law(n_parameters),
        float(sample.summary.log_self[0]),
        participants.indices,
        float(participants.n_samples[0]),
    )


def _about(reduced: Centers, rows: Array, family: Family, rng: np.random.Generator) -> Information:
    """The information at a reduction, without components that no row stands behind: these have no law."""
    one_row = min(1.0 / rows.sum(), 0.5 * reduced.weights.max())  # at least one component has a law
    heavy = reduced.weights > one_row
    components = tuple(p[heavy] for p in reduced.components)
    return information(family, reduced.weights[heavy], components, rng)


def _reduce(
    sample: Block, chosen: NDArray[np.bool_], selected: Selected, participants: Participants
) -> Centers:
    """The reduction of some sampled estimates, by their rows.

    It starts where the reduction of all estimates does, or else at the first of them.
    """
    assert sample.stack is not None
    indices = sample.summary.indices
    usual = selected.starts[0]
    start = indices.index(usual) if usual in indices else int(chosen.argmax())
    shares = np.where(chosen, rows_of(sample, participants), 0.0)
    pooled = pool([(sample.stack, shares / shares.sum())])
    assert pooled is not None
    return reduce_pooled(participants.schema.family, *pooled, Centers(*sample.stack.one(start)))


# -- groups and copies -----------------------------------------------------------------------------


def _with_groups(
    found: Consensus,
    sample: Block,
    near: NDArray[np.bool_],
    participants: Participants,
    rng: np.random.Generator,
) -> Consensus:
    """The consensus with the groups and copies among the sampled estimates."""
    indices, distances = _pairs(sample, found, participants, rng)
    assert sample.stack is not None
    lightest = rows_of(sample, participants) * sample.stack.weights.min(axis=1)
    # Far away, where densities are wide, small distances do not mean that estimates agree.
    close = np.isin(indices, np.array(sample.summary.indices)[near])
    copies = copies_of(
        distances[np.ix_(close, close)],
        found.law,
        sample.parameters[np.isin(sample.summary.indices, indices[close])],
        float(np.median(participants.n_samples)),
    )
    return found._replace(
        groups=_groups(indices, distances, found.law, participants),
        copies=_as_indices(copies, indices[close]),
        lightest=float(np.median(lightest)),
    )


def _pairs(
    sample: Block, consensus: Consensus, participants: Participants, rng: np.random.Generator
) -> tuple[NDArray[np.intp], Array]:
    """Indices of the estimates that are compared pair by pair, and their distances.

    The unit of the distances is their standard error, so that those of consistent estimates are alike.
    """
    assert sample.stack is not None
    summary, n = sample.summary, len(sample.summary.indices)
    chosen = np.arange(n)
    if n > MOST_COMPARED:
        chosen = np.sort(rng.choice(n, MOST_COMPARED, replace=False))
    stack, log_self = sample.stack[chosen], summary.log_self[chosen]
    family, rows = participants.schema.family, rows_of(sample, participants)[chosen]
    tile = l2.l2_tile(family, stack, stack, log_self, log_self, consensus.log_norm)
    distances = l2.symmetric_tile(tile) / pair_errors(rows, rows)
    return np.array(summary.indices)[chosen], distances


def _groups(
    indices: NDArray[np.intp], distances: Array, law: Law, participants: Participants
) -> Groups:
    """Groups among the estimates that were compared."""
    expected = float(np.sqrt(law.mean))
    found = groups_of(distances, expected)
    if has_clear_majority(found, len(indices)):
        schema = participants.schema
        n_parameters = schema.family.n_parameters(schema.n_components, schema.n_features)
        is_small = participants.n_samples.min() < FEW_ROWS * n_parameters
        found = rival_groups(distances, expected, law.df / (MAX_SPREAD**2 if is_small else 1.0))
        found = found or groups_of(distances, expected)
    return _as_indices(found, indices)


def _as_indices(groups: Sequence[Sequence[int]], indices: NDArray[np.intp]) -> Groups:
    return tuple(tuple(int(indices[i]) for i in group) for group in groups)


# -- distances to the consensus --------------------------------------------------------------------


def consensus_distances(block: Block, consensus: Consensus, participants: Participants) -> Array:
    """Log-polar distances of the estimates of a block to the consensus, (n_usable,)."""
    if block.stack is None:
        return np.empty(0)
    family, stack = participants.schema.family, consensus.stack
    log_self = l2.log_self_products(family, stack)
    tile = l2.log_polar_tile(family, stack, block.stack, log_self, block.summary.log_self)
    return tile[0]


def statistics_of(
    squares: Array, indices: NDArray[np.intp], n_samples: Array, consensus: Consensus
) -> Array:
    """Squared distances over the variance that sampling gives them; a member is part of the consensus itself."""
    own, common = 1.0 / n_samples, 1.0 / consensus.n_samples
    inside = np.maximum(own - common, LEAST_OWN_SHARE * own)
    return squares / np.where(np.isin(indices, consensus.members), inside, own + common)


def problem_of(participants: Participants) -> LocalProblem:
    """How estimates were probably fitted, if the caller does not give it: by the defaults."""
    return LocalProblem(
        participants.schema.family,
        participants.schema.n_components,
        n_sources=max(len(participants.indices), 1),
    )


# -- few rows --------------------------------------------------------------------------------------


def _small_sizes(
    consensus: Consensus,
    participants: Participants,
    problem: LocalProblem,
    rng: np.random.Generator,
) -> tuple[SmallSize, ...]:
    """Null laws for estimates from few rows, by size, from refits of rows that are drawn from the consensus.

    If all estimates have the same number of rows no refits are needed: :func:`settle` corrects the law by the
    estimates themselves.
    """
    schema = participants.schema
    limit = FEW_ROWS * schema.family.n_parameters(schema.n_components, schema.n_features)
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
            settled = _refit(consensus, n, n_refits, schema.family, problem, rng)
            found.append(SmallSize(float(inside.max()), settled.scale, settled.spread))
    return tuple(found)


def _refit(
    consensus: Consensus,
    n: int,
    n_refits: int,
    family: Family,
    problem: LocalProblem,
    rng: np.random.Generator,
) -> Settled:
    """The law that distances of estimates from n rows of the consensus show."""
    weights, components = consensus.weights, consensus.components
    start = problem.family.mixture(weights, components)
    squares = []
    for _ in range(n_refits):
        rows, _ = family.sample(n, weights, components, rng)
        mixture = problem.fit(rows, start).mixture
        if mixture is not None:
            stack = l2.stack_mixtures([mixture])
            a, b = (l2.log_self_products(family, s) for s in (consensus.stack, stack))
            tile = l2.log_polar_tile(family, consensus.stack, stack, a, b)
            squares.append(n * float(tile[0, 0]) ** 2)
    return settle(np.array(squares), consensus.law)


def as_of_many_rows(statistics: Array, n_samples: Array, consensus: Consensus) -> Array:
    """Statistics of estimates from few rows, moved to the same quantile of the law of many rows."""
    moved = statistics.copy()
    least = 0.0
    for size in consensus.small:
        here = (n_samples > least) & (n_samples <= size.n_samples)
        z = consensus.law.scaled(size.scale, size.spread).z_scores(statistics[here])
        moved[here] = consensus.law.at_z_scores(z)
        least = size.n_samples
    return moved


def size_scales(n_samples: Array, consensus: Consensus) -> Array:
    """Scale of the law for each number of rows, (n_usable,)."""
    scales, least = np.ones_like(n_samples), 0.0
    for size in consensus.small:
        scales[(n_samples > least) & (n_samples <= size.n_samples)] = size.scale
        least = size.n_samples
    return scales
