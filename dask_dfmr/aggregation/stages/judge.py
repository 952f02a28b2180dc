"""Distances to the consensus -> which estimates are kept, and what has to be said about that.

The p-values under the null law decide. The warnings are about decisions that may be wrong: estimates that are no
samples of one population, exclusions without a clear gap, changes that the filter could not tell, copies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dask_dfmr.aggregation.canaries import FACTOR, Canary
from dask_dfmr.aggregation.groups import has_clear_majority
from dask_dfmr.aggregation.null_law import Law, Settled, not_judged, settle
from dask_dfmr.aggregation.options import AggregationOptions
from dask_dfmr.aggregation.reasons import listed
from dask_dfmr.aggregation.result import FilterDecision, Note
from dask_dfmr.aggregation.stages.consensus import (
    MOST_COMPARED,
    Consensus,
    Groups,
    as_of_many_rows,
    size_scales,
    statistics_of,
)
from dask_dfmr.aggregation.stages.intake import Block, Participants, spread
from dask_dfmr.aggregation.stages.keep import Selected, select
from dask_dfmr.exceptions import FilterWarning, HeterogeneityWarning, NoMajorityWarning
from dask_dfmr.mixtures import distances as l2
from dask_dfmr.mixtures.family import Array
from dask_dfmr.mixtures.tails import binom_sf

FEWEST_VOTERS = 3
"""Of fewer estimates none can be excluded."""

FEWEST_COMPARABLE = 4
"""Fewer estimates do not show which ones are unlike the others."""

WIDE = 3.0
"""Distances this many times as large as sampling explains, for most estimates, cause a warning."""

CLEAR_GAP = 3.0
"""Excluded estimates stand clearly apart if a gap of so many standard normal units lies between them and the others.
Where rows are no mixture, the gap was 1.4 to 2.2 for consistent estimates in other optima."""

CHANCE_LEVEL = 0.015
"""More exclusions than chance explains at this level need a clear gap. One of 16 or more estimates does not."""

REMEDIES = (
    "Rows of partitions may be sorted: shuffle or sample them across partitions (mix_partitions). Or one mixture may "
    "not fit: try another n_components{starts}. If only proportions differ, method='componentwise' keeps such "
    "partitions"
)
"""What to do about estimates that do not come from one population; the end of a warning."""

MORE_STARTS = " or more starts (n_init, if none is given)"
"""What may help too if there are several components: one has one optimum only."""


# -- the decision ----------------------------------------------------------------------------------


def judge(
    near: Selected,
    consensus: Consensus,
    distances: Sequence[Array],
    participants: Participants,
    options: AggregationOptions,
) -> Selected:
    """Add the p-values under the null law to the decision; with ``rho="auto"`` they decide which are kept."""
    squares = np.concatenate(distances) ** 2
    statistics, settled = _of_fits(squares, consensus, participants)
    decision, is_agreed = near.decision, True
    kept = settled.p_values >= options.false_exclusion_rate
    if options.is_calibrated:
        is_agreed = 2 * kept.sum() > len(kept)
        if not is_agreed:
            kept = statistics <= np.sort(statistics)[len(kept) // 2]
        kept |= participants.is_gained
        decision = replace(decision, kept=spread(kept, participants, False))
    decision = replace(
        _with_expected(decision, squares, settled, consensus, participants),
        z_scores=spread(settled.z_scores, participants, np.nan),
        p_values=spread(settled.p_values, participants, np.nan),
        sampling_ratios=spread(np.sqrt(statistics / settled.law.mean), participants, np.nan),
        scale=settled.scale,
        groups=consensus.groups,
    )
    judged = select(decision, participants, options, near.near)
    notes = [
        *heterogeneity_notes(judged, consensus, participants, is_agreed),
        *_margin_notes(kept, settled, participants, options),
        *_canary_notes(settled.law, consensus, participants, options),
        *_copy_notes(consensus.copies, participants),
        *_one_step_notes(participants, options),
    ]
    return judged._replace(notes=(*judged.notes, *notes))


def admit_gained(
    participants: Participants,
    steps: Block,
    distances_of_steps: Array,
    consensus: Consensus,
    distances: Sequence[Array],
    options: AggregationOptions,
) -> Participants:
    """Let only those estimates be gained that are no farther from the consensus than fits may be.

    In the test of the rows no row counts for much. An EM step follows each row, however far away it is. So one row of
    gross numbers passes the test, and would move the step and with it the global mixture without bound.

    Parameters
    ----------
    participants : Participants
    steps : Block
        The estimates that would take the places of the fits.
    distances_of_steps : ndarray of shape (n_steps,)
        Their distances to the consensus.
    consensus : Consensus
    distances : sequence of ndarray
        Distances of all fits to the consensus, block by block. They give the law.
    options : AggregationOptions
    """
    _, settled = _of_fits(np.concatenate(distances) ** 2, consensus, participants)
    indices = np.array(steps.summary.indices, dtype=np.intp)
    n_samples = np.array(steps.summary.n_samples, dtype=np.float64)
    statistics = statistics_of(distances_of_steps**2, indices, n_samples, consensus)
    statistics = as_of_many_rows(statistics, n_samples, consensus)
    is_near = settled.law.sf(statistics) >= options.false_exclusion_rate
    return participants._replace(gained=frozenset(indices[is_near].tolist()))


def _of_fits(
    squares: Array, consensus: Consensus, participants: Participants
) -> tuple[Array, Settled]:
    """The statistics of all fits, and what they are under the law that they correct."""
    statistics = statistics_of(squares, participants.indices, participants.n_samples, consensus)
    statistics = as_of_many_rows(statistics, participants.n_samples, consensus)
    law = consensus.law
    return statistics, settle(statistics, law) if len(statistics) > 1 else not_judged(law)


def _with_expected(
    decision: FilterDecision,
    squares: Array,
    settled: Settled,
    consensus: Consensus,
    participants: Participants,
) -> FilterDecision:
    """The decision with the L2 distances to the center that sampling explains.

    They follow from log-polar distances between densities of equal norm.
    """
    is_center = participants.indices == decision.center
    scales = size_scales(participants.n_samples, consensus)
    expected = settled.law.mean * scales / participants.n_samples + squares[is_center][0]
    expected = np.sqrt(-2.0 * np.expm1(-0.5 * expected))
    expected[is_center] = 0.0
    in_units = l2.in_l2_units(expected, consensus.log_norm)
    return replace(decision, expected_distances=spread(in_units, participants, np.nan))


# -- canaries --------------------------------------------------------------------------------------


def _canary_notes(
    law: Law, consensus: Consensus, participants: Participants, options: AggregationOptions
) -> list[Note]:
    """A warning if the filter would keep a canary of the median number of rows: a kept estimate then says little."""
    found, n = consensus.canaries, float(np.median(participants.n_samples))
    if not options.is_calibrated or len(participants.indices) < FEWEST_VOTERS:
        return []
    statistics = np.array([c.distance for c in found]) ** 2 / (1.0 / n + 1.0 / consensus.n_samples)
    p_values = law.sf(as_of_many_rows(statistics, np.full(len(found), n), consensus))
    kept = [
        (c, p) for c, p in zip(found, p_values, strict=True) if p >= options.false_exclusion_rate
    ]
    if not kept:
        return []
    names, texts = participants.schema.feature_names, []
    fewer = " or fewer components" if participants.schema.n_components > 1 else ""
    for change in dict.fromkeys(c.change for c, _ in kept):
        worst, p = max(
            (pair for pair in kept if pair[0].change == change), key=lambda pair: pair[1]
        )
        texts.append(f"{_words_on_change(worst, names)} (p = {p:.2g})")
    text = (
        f"partitions differ so much, or have so few rows, that the filter would keep one with {' or '.join(texts)}. "
        f"Use larger partitions{fewer}, or examine the partitions with explain()."
    )
    return [Note(FilterWarning, text)]


def _words_on_change(canary: Canary, names: Sequence[str] | None) -> str:
    """The change of a canary in words."""
    columns = [f"column {j}" if names is None else repr(names[j]) for j in canary.columns]
    if canary.change == "unit":
        return f"{columns[0]} {FACTOR:.0f} times too large"
    if canary.change == "swap":
        return f"{' and '.join(columns)} swapped"
    return "all rows far away from the others"


# -- warnings --------------------------------------------------------------------------------------


def _margin_notes(
    kept: NDArray[np.bool_],
    settled: Settled,
    participants: Participants,
    options: AggregationOptions,
) -> list[Note]:
    """A warning if more estimates than chance explains are excluded without a clear gap to the kept ones."""
    by_distance = kept & ~participants.is_gained
    if not options.is_calibrated or kept.all() or not by_distance.any():
        return []
    z = np.sort(settled.z_scores[~kept])
    gaps = np.diff(z, prepend=settled.z_scores[by_distance].max())
    n_close = int(np.argmax(gaps >= CLEAR_GAP)) if (gaps >= CLEAR_GAP).any() else len(z)
    expected = options.false_exclusion_rate
    if n_close == 0 or binom_sf(n_close - 1, len(kept), expected) >= CHANCE_LEVEL:
        return []
    rate, p_values = options.false_exclusion_rate, settled.p_values
    n_components = participants.schema.n_components
    remedy = f", or use fewer components{MORE_STARTS}" if n_components > 1 else ""
    text = (
        f"{n_close} of {len(kept)} estimates are excluded without a clear gap to the kept ones, where chance excludes "
        f"{rate:.2g} of all: their p-values go up to {p_values[~kept].max():.2g}, those of the kept ones down to "
        f"{p_values[by_distance].min():.2g}. They may be consistent, and their local fits in other optima. Compare "
        f"them with explain(){remedy}."
    )
    return [Note(HeterogeneityWarning, text)]


def _copy_notes(copies: Groups, participants: Participants) -> list[Note]:
    """A warning of estimates that agree more closely than independent ones do: each still counts by itself."""
    if not copies:
        return []
    n_compared = min(len(participants.indices), MOST_COMPARED)
    n_copies = sum(len(group) for group in copies)
    is_many = not has_clear_majority([range(n_compared - n_copies)], n_compared)
    text = "; ".join(f"estimates {listed(group)}" for group in copies[:3])
    text = (
        f"{text}{'; ...' if len(copies) > 3 else ''} are copies of one another: nearer than sampling makes likely. "
        "A file was read twice, or sources collude: method='hardened' counts copies as one."
    )
    return [Note(NoMajorityWarning if is_many else FilterWarning, text)]


def _one_step_notes(participants: Participants, options: AggregationOptions) -> list[Note]:
    """A warning of estimates that are one step from a global mixture, judged as if they were fits."""
    if not (options.is_calibrated and participants.one_step):
        return []
    found = sorted(participants.one_step)
    text = (
        f"estimates {listed(found)} are one EM step from a global mixture, as a second look makes them. They lie "
        "nearer to it than fits do, so that fits of other partitions may look far away. Aggregate gm.estimates_ "
        "itself: it has the first fits too."
    )
    return [Note(FilterWarning, text)]


def heterogeneity_notes(
    selected: Selected, consensus: Consensus, participants: Participants, is_agreed: bool
) -> list[Note]:
    """A warning if most estimates do not come from one population.

    It is a ``NoMajorityWarning`` if it is not even clear which estimates are the majority. It is none if estimates
    differ because they have more components than their rows show.
    """
    decision, n_usable = selected.decision, len(participants.indices)
    if n_usable < FEWEST_COMPARABLE:
        return []
    n_samples = spread(participants.n_samples, participants, 0.0)
    excluded = 1.0 - n_samples[decision.kept].sum() / n_samples.sum()
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
        text, is_clear = _words_on_groups(decision.groups, n_usable)
        texts.append(text)
        category = category if is_clear else NoMajorityWarning
    if not texts:
        return []
    message = f"{'; '.join(texts)}. {excluded:.0%} of the rows are excluded"
    schema = participants.schema
    n_parameters = schema.family.n_parameters(1, schema.n_features)
    if consensus.lightest < n_parameters and not decision.groups:
        message += (
            f". The lightest component of a typical estimate has {consensus.lightest:.0f} rows for its {n_parameters} "
            "parameters: the rows show fewer components. Use a smaller n_components, or larger partitions"
        )
        category = HeterogeneityWarning
    elif category is NoMajorityWarning:
        message += (
            ", and the result may be that of inconsistent estimates: examine the groups first"
        )
    starts = f",{MORE_STARTS}" if participants.schema.n_components > 1 else ""
    return [Note(category, f"{message}. {REMEDIES.format(starts=starts)}.")]


def _words_on_groups(groups: Groups, n_usable: int) -> tuple[str, bool]:
    """The groups in words, and whether one of them is a clear majority."""
    sizes = " and ".join(str(len(group)) for group in groups)
    text = f"estimates form groups of {sizes} that lie farther from one another than within"
    if has_clear_majority(groups, min(n_usable, MOST_COMPARED)):
        return text, True
    return f"{text}, and none is a clear majority", False
