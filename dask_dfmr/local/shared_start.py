"""One start for sources that share no rows: from estimates that each of them made from starts of its own.

A fit on Dask finds starts from the rows of pilots (:mod:`dask_dfmr.local.pilots`). Sites that cannot share rows share
estimates. So rows that are drawn from the estimate of a site stand for its own ones, and the rest is the same: the
estimates are candidates, each is compared on the rows of all, and a greedy cover forms groups. The start is the
candidate of the largest group, continued over the drawn rows of the group.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from dask_dfmr.exceptions import NoMajorityWarning, warn
from dask_dfmr.local.estimate import LocalEstimate
from dask_dfmr.local.fit import LocalProblem
from dask_dfmr.local.pilots import CHECK_ROWS, PilotFit, make_shortlist
from dask_dfmr.mixtures.gaussian import Mixture
from dask_dfmr.seeds import PILOT_DRAW, PILOT_ROWS, SeedLike, seed_sequence, stream

logger = logging.getLogger("dask_dfmr")

MOST_SITES = 64
"""Estimates that are compared with one another, at most; of more, so many are drawn at random."""


def shared_start(estimates: Sequence[LocalEstimate], *, random_state: SeedLike = None) -> Mixture:
    """A start for the local fits of all sources, from estimates that the sources made from starts of their own.

    Fits from starts of their own end in different optima, and an estimate in another optimum looks like a wrong one. So
    each source fits once on its own, all fit again from this one mixture, and :func:`aggregate` combines the second
    estimates. Sources whose first estimates are wrong do not change the start as long as more than half agree. The
    start need not be precise, so the first fit may use a part of the rows.

    Parameters
    ----------
    estimates : sequence of LocalEstimate
        One per source, of the same number of components, covariance type and columns. Those without a mixture, or of
        another shape than most, are not used.
    random_state : int, RandomState, Generator, SeedSequence or None, default None
        Seed of the rows that are drawn from the estimates.

    Returns
    -------
    Mixture
        Components by decreasing weight.

    Raises
    ------
    TypeError
        If an estimate is no LocalEstimate.
    ValueError
        If none has a mixture.

    Warns
    -----
    NoMajorityWarning
        If no start suits more than half of the estimates.

    Examples
    --------
    >>> import numpy as np
    >>> from dask_dfmr import Mixture, fit_local, shared_start
    >>> population = Mixture([0.6, 0.4], [[0.0], [9.0]], [[[1.0]], [[1.0]]])
    >>> sites = [population.sample(500, random_state=i)[0] for i in range(5)]
    >>> sites[1] = 1000 * sites[1]
    >>> first = [fit_local(rows, 2, random_state=0) for rows in sites]
    >>> shared_start(first, random_state=0).means.round(0).tolist()
    [[0.0], [9.0]]
    """
    seed = seed_sequence(random_state)
    mixtures = _comparable(estimates)
    rng = np.random.default_rng(stream(seed, PILOT_DRAW))
    chosen = sorted(rng.permutation(len(mixtures))[:MOST_SITES].tolist())
    pilots = [_as_pilot(mixtures[i], stream(seed, PILOT_ROWS, i)) for i in chosen]
    family, first = mixtures[0].family, mixtures[0]
    shortlist = make_shortlist(LocalProblem(family, first.n_components), pilots)
    best = int(np.argmax(shortlist.support))
    support, n = shortlist.support[best], len(pilots)
    logger.info("the shared start suits %d of %d estimates best", support, n)
    if 2 * support <= n:
        warn(
            f"the shared start suits {support} of {n} estimates, no more than half: the sources may differ, or their "
            "first fits ended in different optima. Fit them from more starts: fit_local(..., n_init=10).",
            NoMajorityWarning,
        )
    start: Mixture = family.mixture(*shortlist.starts[best], first.feature_names)
    return start.reordered(np.argsort(-start.weights, kind="stable"))


def _comparable(estimates: Sequence[LocalEstimate]) -> list[Mixture]:
    """The mixtures of the most frequent shape."""
    for estimate in estimates:
        if not isinstance(estimate, LocalEstimate):
            raise TypeError(
                f"estimates must be LocalEstimate objects; got a {type(estimate).__name__}. "
                "LocalEstimate.load reads one from a file."
            )
    mixtures = [e.mixture for e in estimates if e.mixture is not None]
    if not mixtures:
        reasons = "; ".join(sorted({e.reason for e in estimates}))
        raise ValueError(
            f"estimates must hold at least one with a mixture; got {len(estimates)} without. {reasons:.500}"
        )
    shapes = Counter(_shape(m) for m in mixtures)
    ((usual, count),) = shapes.most_common(1)
    if count < len(mixtures):
        logger.warning("%d estimates have another shape than most", len(mixtures) - count)
    return [m for m in mixtures if _shape(m) == usual]


def _shape(m: Mixture) -> tuple[Any, ...]:
    return m.covariance_type, m.n_components, m.n_features, m.feature_names


def _as_pilot(mixture: Mixture, seed: np.random.SeedSequence) -> PilotFit:
    rows, _ = mixture.sample(CHECK_ROWS, np.random.default_rng(seed))
    return PilotFit((mixture.weights, mixture.components), rows)
