"""Attacks by estimates that are valid mixtures, and wrong.

Every function takes the adversary and a strength, and returns one estimate per bad source. Coordinates are those of
``Family.coordinates`` about the reduction of the honest estimates. In them, rows with known components would have the
identity as their information. In units, "sd" alone is the standard deviation of an honest estimate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy.stats import norm

from dask_dfmr.attacks.adversary import Adversary, mixture_of, with_parameters
from dask_dfmr.attacks.catalogue import enter
from dask_dfmr.local.estimate import MAX_ROWS, LocalEstimate
from dask_dfmr.mixtures.distances import Stack, log_self_products
from dask_dfmr.mixtures.family import Array
from dask_dfmr.mixtures.gaussian import Mixture

PAPER = "Zhang, Tan & Chen, JRSS-B 2026, section 5"
"""Origin of the attacks of the paper."""

FARTHEST_SHIFT = 100.0
"""Largest shift of a component, in its own standard deviations."""

BISECTIONS = 40
"""Halvings of the interval in which the largest step is searched."""

CLIQUE_JITTER, GROUP_JITTER = 0.05, 0.2
"""Distance of the members of a clique and of a tight group, in sd."""

MOST_TIGHT_GROUPS = 4
"""Groups of the attack ``tight_groups``, at most."""

RADII = (0.6, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.6)
"""Strengths of the attacks at the radius."""

# -- the paper's ---------------------------------------------------------------------------------


def _chosen_components(adversary: Adversary, by_component: bool) -> list[list[int]]:
    """The components that each bad source changes: all, or one that it draws."""
    n_components = len(adversary.origin[0])
    if not by_component:
        return [list(range(n_components))] * len(adversary.own)
    return [[int(rng.integers(n_components))] for rng in adversary.own_rngs()]


def _means(adversary: Adversary, strength: float, by_component: bool) -> list[LocalEstimate]:
    chosen = _chosen_components(adversary, by_component)
    sent = []
    for e, rng, which in zip(adversary.own, adversary.own_rngs(), chosen, strict=True):
        means = mixture_of(e).means.copy()
        drawn = rng.normal(0.0, strength, size=means.shape)
        means[which] = drawn[which]
        sent.append(with_parameters(e, {"means": means}))
    return sent


@enter(
    "mean",
    strength=100.0,
    unit="standard deviation of the drawn means, in the units of the data",
    source=PAPER,
    gaussian_only=True,
)
def mean(adversary: Adversary, strength: float) -> list[LocalEstimate]:
    """All means are replaced by independent draws from N(0, strength^2 I)."""
    return _means(adversary, strength, by_component=False)


@enter(
    "mean_component",
    strength=100.0,
    unit="standard deviation of the drawn mean, in the units of the data",
    source=PAPER,
    gaussian_only=True,
)
def mean_component(adversary: Adversary, strength: float) -> list[LocalEstimate]:
    """The mean of one component, drawn by each source, is replaced by a draw from N(0, strength^2 I)."""
    return _means(adversary, strength, by_component=True)


def _covariances(adversary: Adversary, strength: float, by_component: bool) -> list[LocalEstimate]:
    """Tied covariances are one matrix, which all components share. Diagonal and spherical ones get part of the draw."""
    chosen = _chosen_components(adversary, by_component)
    sent = []
    for e, rng, which in zip(adversary.own, adversary.own_rngs(), chosen, strict=True):
        mixture = mixture_of(e)
        d, kind = mixture.n_features, mixture.covariance_type
        factors = rng.standard_normal((1 if kind == "tied" else mixture.n_components, d, d))
        added = strength * (factors @ np.swapaxes(factors, -1, -2)) / d**2
        covariances = mixture.covariances.copy()
        if kind == "tied":
            covariances += added[0]
        elif kind == "full":
            covariances[which] += added[which]
        elif kind == "diag":
            covariances[which] += np.diagonal(added, axis1=-2, axis2=-1)[which]
        else:
            covariances[which] += np.trace(added, axis1=-2, axis2=-1)[which] / d
        sent.append(with_parameters(e, {"covariances": covariances}))
    return sent


@enter(
    "covariance",
    strength=1.0,
    unit="multiple of d^-2 B B^T, in squared units of the data",
    source=PAPER,
    gaussian_only=True,
)
def covariance(adversary: Adversary, strength: float) -> list[LocalEstimate]:
    """To every covariance d^-2 B B^T is added, B (d, d) with standard normal entries."""
    return _covariances(adversary, strength, by_component=False)


@enter(
    "covariance_component",
    strength=1.0,
    unit="multiple of d^-2 B B^T, in squared units of the data",
    source=PAPER,
    gaussian_only=True,
)
def covariance_component(adversary: Adversary, strength: float) -> list[LocalEstimate]:
    """To the covariance of one component, drawn by each source, d^-2 B B^T is added."""
    return _covariances(adversary, strength, by_component=True)


def _with_weights(estimate: LocalEstimate, weights: Array) -> LocalEstimate:
    mixture = mixture_of(estimate)
    new = mixture.family.mixture(weights / weights.sum(), mixture.components, mixture.feature_names)
    return replace(estimate, mixture=new)


@enter(
    "weight",
    unit="share of the drawn weights in a mean of own and drawn ones",
    source=PAPER,
)
def weight(adversary: Adversary, strength: float) -> list[LocalEstimate]:
    """Weights are drawn from a Dirichlet law whose parameters are drawn from {10, ..., 20}."""
    share = min(strength, 1.0)
    sent = []
    for e, rng in zip(adversary.own, adversary.own_rngs(), strict=True):
        weights = mixture_of(e).weights
        drawn = rng.dirichlet(rng.integers(10, 21, size=len(weights)).astype(float))
        sent.append(_with_weights(e, (1.0 - share) * weights + share * drawn))
    return sent


@enter(
    "weight_component",
    unit="share of the drawn weight in a mean of own and drawn one",
    source=PAPER,
)
def weight_component(adversary: Adversary, strength: float) -> list[LocalEstimate]:
    """The weight of one component, drawn by each source, is replaced by its weight in a draw as for ``weight``.

    The others share the rest as before.
    """
    share, sent = min(strength, 1.0), []
    chosen = _chosen_components(adversary, by_component=True)
    for e, rng, (k,) in zip(adversary.own, adversary.own_rngs(), chosen, strict=True):
        weights = mixture_of(e).weights.copy()
        drawn = rng.dirichlet(rng.integers(10, 21, size=len(weights)).astype(float))
        new = (1.0 - share) * weights[k] + share * drawn[k]
        rest = weights.sum() - weights[k]
        if rest > 0:  # a component that is the whole mixture keeps its weight
            weights *= (1.0 - new) / rest
            weights[k] = new
        sent.append(_with_weights(e, weights))
    return sent


# -- from the literature on gradients ------------------------------------------------------------


@enter(
    "sign_flip",
    unit="factor of the means, which get the opposite sign",
    source="Li, Xu, Chen, Giannakis & Ling, AAAI 2019 (of gradients)",
    gaussian_only=True,
)
def sign_flip(adversary: Adversary, strength: float) -> list[LocalEstimate]:
    """All means are multiplied by -strength."""
    return [with_parameters(e, {"means": -strength * mixture_of(e).means}) for e in adversary.own]


def alie_z(n_estimates: int, n_bad: int) -> float:
    """The largest shift, in sd, at which enough honest estimates lie farther out than the bad ones.

    Baruch et al. (2019): with n sources, b of them bad, the bad ones need s = floor(n / 2 + 1) - b supporters to appear
    as a majority.
    """
    supporters = n_estimates // 2 + 1 - n_bad
    honest = n_estimates - n_bad
    share = np.clip((honest - supporters) / honest, 0.5, 1.0 - 1.0 / (2 * honest))
    return float(norm.ppf(share))


@enter(
    "alie",
    strength=0.75,
    grid=(0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0, 3.0),
    unit="sd by which every coordinate is below the honest mean",
    knows="the honest estimates",
    source="Baruch, Baruch & Goldberg, NeurIPS 2019 (A Little Is Enough); line search instead of their z",
)
def alie(adversary: Adversary, strength: float) -> list[LocalEstimate]:
    """All send the honest mean minus so many sd in every coordinate."""
    sent = adversary.mixture_at(adversary.mean - strength * adversary.sd, adversary.mean)
    return adversary.send([sent] * len(adversary.own))


@enter(
    "ipm",
    strength=0.5,
    grid=(0.1, 0.5, 1.0, 1.5, 2.0),
    unit="factor of the honest mean update, which gets the opposite sign",
    knows="the honest estimates",
    source="Xie, Koyejo & Gupta, UAI 2020 (inner product manipulation)",
)
def ipm(adversary: Adversary, strength: float) -> list[LocalEstimate]:
    """All send start - strength * (honest mean - start): an update against the honest one.

    One round of estimates has no common iterate. The first bad source's own estimate replaces it.
    """
    start = adversary.coordinates_of(adversary.own[0])
    sent = adversary.mixture_at(start - strength * (adversary.mean - start), start)
    return adversary.send([sent] * len(adversary.own))


def _as_near_as(
    adversary: Adversary, radii: float, messages: Callable[[float], list[Mixture]], most: float
) -> list[Mixture]:
    """The messages of the largest step, at most ``most``, half of which lie within ``radii`` of the honest center."""
    limit = radii * adversary.radius

    def near(step: float) -> bool:
        return bool(np.median(adversary.distances_to_coat(messages(step))) <= limit)

    if near(most):
        return messages(most)
    low, high = 0.0, most
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if near(middle) else (low, middle)
    return messages(low)


@enter(
    "min_max",
    grid=RADII,
    unit="L2 distance from the honest center, in radii of the honest",
    knows="the honest estimates",
    source="Shejwalkar & Houmansadr, NDSS 2021 (min-max, the sd as direction); at a radius in L2",
)
def min_max(adversary: Adversary, strength: float) -> list[LocalEstimate]:
    """All send one point, from the honest mean along minus the sd, as far as the distance allows."""

    def messages(step: float) -> list[Mixture]:
        return [adversary.mixture_at(adversary.mean - step * adversary.sd, adversary.mean)]

    (sent,) = _as_near_as(adversary, strength, messages, FARTHEST_SHIFT)
    return adversary.send([sent] * len(adversary.own))


def _least_visible_component(adversary: Adversary) -> int:
    """The component with the smallest part w |phi| of the density's norm."""
    weights, components = adversary.origin
    each = Stack(np.ones((len(weights), 1)), tuple(p[:, None] for p in components))
    with np.errstate(divide="ignore"):
        heights = np.log(weights) + 0.5 * log_self_products(adversary.family, each)
    return int(heights.argmin())


def _location_shift(adversary: Adversary, k: int, direction: Array) -> Array:
    """Coordinates of component k one of its own standard deviations away.

    A component's coordinates are its weight, its location (one number per column), and its other parameters.
    """
    weights, components = adversary.origin
    owners = adversary.family.coordinate_owners(components)
    n_features = adversary.family.n_features(components)
    where = np.flatnonzero(owners == k)[1 : 1 + n_features]
    shift = np.zeros(len(owners))
    shift[where] = np.sqrt(weights[k]) * direction / np.linalg.norm(direction)
    return shift


def _one_component_at_radius(
    adversary: Adversary, radii: float, noise: float
) -> list[LocalEstimate]:
    direction = adversary.shared_rng().standard_normal(
        adversary.family.n_features(adversary.origin[1])
    )
    shift = _location_shift(adversary, _least_visible_component(adversary), direction)
    if noise == 0:
        starts = [adversary.mean]
    else:
        starts = [
            adversary.mean + noise * adversary.sampling_error(rng, e.n_samples)
            for e, rng in zip(adversary.own, adversary.own_rngs(), strict=True)
        ]

    def messages(step: float) -> list[Mixture]:
        return [adversary.mixture_at(start + step * shift) for start in starts]

    sent = _as_near_as(adversary, radii, messages, FARTHEST_SHIFT)
    return adversary.send(sent if noise else sent * len(adversary.own))


_MIN_MAX_COMPONENT = "Shejwalkar & Houmansadr, NDSS 2021 (min-max), along one component"


@enter(
    "min_max_component",
    grid=RADII,
    unit="L2 distance from the honest center, in radii of the honest",
    knows="the honest estimates",
    source=_MIN_MAX_COMPONENT,
)
def min_max_component(adversary: Adversary, strength: float) -> list[LocalEstimate]:
    """All send the honest mean with the component that L2 weighs least moved as far as the distance allows.

    The direction is drawn. The shift is at most 100 of the component's own standard deviations.
    """
    return _one_component_at_radius(adversary, strength, 0.0)


def _enter_noisy(percent: int) -> None:
    def noisy(adversary: Adversary, strength: float) -> list[LocalEstimate]:
        return _one_component_at_radius(adversary, strength, percent / 100)

    noisy.__doc__ = (
        f"As ``min_max_component``, with private noise: that of honest sampling times {percent / 100:g}, so that no "
        "two bad messages are alike. Half of them lie within the distance."
    )
    enter(
        f"min_max_noise_{percent}",
        grid=RADII,
        unit="L2 distance from the honest center, in radii of the honest",
        knows="the honest estimates and their law",
        source=_MIN_MAX_COMPONENT,
    )(noisy)


for _percent in (50, 70, 85):
    _enter_noisy(_percent)


@enter(
    "mimic",
    grid=(1.0, 1.3, 1.6),
    unit="radii of the honest within which the victim is looked for",
    knows="the honest estimates",
    source="Karimireddy, He & Jaggi, ICLR 2022 (mimic), of the farthest inside the radius",
)
def mimic(adversary: Adversary, strength: float) -> list[LocalEstimate]:
    """All send a copy of the honest estimate that is farthest from the center inside the radius."""
    distances = adversary.distances[adversary.coat]
    inside = distances <= strength * adversary.radius
    victim = int(np.where(inside, distances, -1.0).argmax())
    return adversary.send([mixture_of(adversary.honest[victim])] * len(adversary.own))


# -- colluders -----------------------------------------------------------------------------------


@enter(
    "clique",
    grid=(0.5, 0.75, 1.0, 1.25, 1.5),
    unit="sd by which every coordinate is off the honest mean",
    knows="the honest estimates and their law",
    source="this project: a clique near the center has the smallest median, and becomes the center",
)
def clique(adversary: Adversary, strength: float) -> list[LocalEstimate]:
    """All lie around one point, the honest mean plus so many sd in every coordinate, signs drawn, and .05 sd apart."""
    signs = adversary.shared_rng().choice([-1.0, 1.0], size=len(adversary.mean))
    point = adversary.mean + strength * signs * adversary.sd
    return adversary.send(
        [
            adversary.mixture_at(
                point + CLIQUE_JITTER * adversary.sampling_error(rng, e.n_samples), adversary.mean
            )
            for e, rng in zip(adversary.own, adversary.own_rngs(), strict=True)
        ]
    )


@enter(
    "tight_groups",
    strength=0.75,
    grid=(0.25, 0.35, 0.5, 0.75, 1.0, 1.5),
    unit="typical lengths sqrt(p) of an honest error, by which each group is off the honest mean",
    knows="the honest estimates and the Fisher information",
    source="this project: several groups have no direction in common",
)
def tight_groups(adversary: Adversary, strength: float) -> list[LocalEstimate]:
    """Up to four groups of two or more, each along its own one of the weakest Fisher axes, members .2 sd apart."""
    errors, axes = adversary.axes
    n_groups = int(np.clip(len(adversary.own) // 2, 1, min(MOST_TIGHT_GROUPS, len(errors) - 1)))
    length = strength * np.sqrt(adversary.n_parameters) * adversary.inflation
    sent = []
    for i, (e, rng) in enumerate(zip(adversary.own, adversary.own_rngs(), strict=True)):
        group = i % n_groups
        point = adversary.mean + length * errors[group] / np.sqrt(e.n_samples) * axes[group]
        jitter = GROUP_JITTER * adversary.sampling_error(rng, e.n_samples)
        sent.append(adversary.mixture_at(point + jitter, adversary.mean))
    return adversary.send(sent)


@enter(
    "shadow",
    strength=3.0,
    grid=(1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 9.0, 13.0, 20.0),
    unit="sd of an honest estimate along the weakest axis",
    knows="the honest estimates and the Fisher information",
    source="this project: honest in every direction but the one with the least information",
)
def shadow(adversary: Adversary, strength: float) -> list[LocalEstimate]:
    """Each sends its own honest estimate, shifted along the weakest axis of the Fisher information."""
    errors, axes = adversary.axes
    shift = strength * adversary.inflation * errors[0] * axes[0]
    sent = []
    for e in adversary.own:
        own = adversary.coordinates_of(e)
        sent.append(adversary.mixture_at(own + shift / np.sqrt(e.n_samples), own))
    return adversary.send(sent)


@enter(
    "blind_spot",
    strength=2.0,
    grid=(1.0, 2.0),
    unit="standard deviations of the component itself",
    knows="its own estimate, and which component is the widest",
    source="this project: a wide component hardly enters the integral of a squared difference",
)
def blind_spot(adversary: Adversary, strength: float) -> list[LocalEstimate]:
    """Each sends its own honest estimate with the widest component moved, all in one direction that is drawn."""
    components = adversary.origin[1]
    each = Stack(np.ones((len(components[0]), 1)), tuple(p[:, None] for p in components))
    widest = int(log_self_products(adversary.family, each).argmin())
    direction = adversary.shared_rng().standard_normal(adversary.family.n_features(components))
    shift = strength * _location_shift(adversary, widest, direction)
    sent = []
    for e in adversary.own:
        own = adversary.coordinates_of(e)
        sent.append(adversary.mixture_at(own + shift, own))
    return adversary.send(sent)


# -- accidents, and what looks like them ---------------------------------------------------------


def _spiked(estimate: LocalEstimate, variance: float, k: int) -> LocalEstimate:
    mixture = mixture_of(estimate)
    covariances = mixture.covariances.copy()
    round_one = np.full_like(mixture.means[0], variance)
    if mixture.covariance_type == "tied":
        covariances[:] = np.diag(round_one)
    elif mixture.covariance_type == "full":
        covariances[k] = np.diag(round_one)
    else:
        covariances[k] = variance
    return with_parameters(estimate, {"covariances": covariances})


def _spike(adversary: Adversary, strength: float) -> list[LocalEstimate]:
    chosen = _chosen_components(adversary, by_component=True)
    return [_spiked(e, strength, k) for e, (k,) in zip(adversary.own, chosen, strict=True)]


@enter(
    "spike",
    strength=1e-4,
    unit="variance, in squared units of the data",
    source="this project: a component collapsed onto a few equal rows",
    gaussian_only=True,
)
def spike(adversary: Adversary, strength: float) -> list[LocalEstimate]:
    """One component, drawn by each source, gets the covariance strength * I; tied ones are shared by all."""
    return _spike(adversary, strength)


@enter(
    "needle",
    strength=1e-13,
    unit="variance, in squared units of the data",
    source="this project: in 50 columns such a component has more than 1e300 times the norm of the others",
    gaussian_only=True,
)
def needle(adversary: Adversary, strength: float) -> list[LocalEstimate]:
    """As ``spike``, so narrow that in units of its norm all distances between the other estimates would be 0."""
    return _spike(adversary, strength)


@enter(
    "duplicate",
    knows="another source's estimate",
    source="this project: a file was copied, or read twice",
)
def duplicate(adversary: Adversary, strength: float) -> list[LocalEstimate]:
    """Each sends a copy of an honest estimate that it draws."""
    return adversary.send(
        [
            mixture_of(adversary.honest[rng.integers(len(adversary.honest))])
            for rng in adversary.own_rngs()
        ]
    )


@enter(
    "inflated_rows",
    strength=1e6,
    grid=(10.0, 1e3, 1e6),
    unit="factor of the row count",
    source="this project: an estimate's weight in the reduction is its number of rows",
)
def inflated_rows(adversary: Adversary, strength: float) -> list[LocalEstimate]:
    """Each sends its own honest estimate, and claims so many times the rows."""
    return [
        replace(e, n_samples=int(min(max(1.0, e.n_samples * strength), MAX_ROWS // 2)))
        for e in adversary.own
    ]
