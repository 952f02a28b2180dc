"""The adversary: which sources are bad, and what they know.

Bad sources cooperate, and know everything that the honest ones sent: their estimates, center and scatter, and the
Fisher information there. Such an omniscient adversary is the worst case, which the publications of these attacks
assume. Each bad source also has the estimate that it would have sent as an honest one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dask_dfmr import checks
from dask_dfmr.aggregation.reduction import Centers, reduce_pooled
from dask_dfmr.attacks.catalogue import Attack, find
from dask_dfmr.local.estimate import LocalEstimate
from dask_dfmr.mixtures.assignment import assignment
from dask_dfmr.mixtures.distances import (
    Stack,
    l2_tile,
    log_self_products,
    stack_mixtures,
    symmetric_tile,
    tile_blocks,
    upper_tiles,
)
from dask_dfmr.mixtures.family import Array, Components, Family, take
from dask_dfmr.mixtures.gaussian import Gaussian, Mixture
from dask_dfmr.mixtures.information import Information, information
from dask_dfmr.seeds import ATTACK_OWN, ATTACK_SHARED, ATTACKED, SeedLike, seed_sequence, stream

SHRINKING, MOST_SHRINKINGS = 0.95, 500
"""A point outside the parameter space is moved towards one inside, by this factor a step and at most so many steps."""


@dataclass(frozen=True, eq=False, repr=False)
class Corruption:
    """Estimates of which some are bad.

    Attributes
    ----------
    estimates : list of LocalEstimate or mapping
        In the order given. The honest ones are the same objects; a malformed message is a mapping.
    is_bad : ndarray of bool, shape (n_estimates,)
    attack : Attack
    strength : float
    """

    estimates: list[Any]
    is_bad: NDArray[np.bool_]
    attack: Attack
    strength: float

    @property
    def honest(self) -> list[Any]:
        """The estimates that were not corrupted. Their reduction is the oracle."""
        return [e for e, bad in zip(self.estimates, self.is_bad, strict=True) if not bad]

    def __repr__(self) -> str:
        return (
            f"Corruption({self.attack.name!r}, strength={self.strength:g}, "
            f"{self.is_bad.sum()} of {len(self.is_bad)} bad)"
        )


def corrupt(
    estimates: Sequence[LocalEstimate],
    attack: str | Attack,
    rate: float,
    *,
    strength: float | None = None,
    random_state: SeedLike = None,
) -> Corruption:
    """Replace the estimates of some sources by what they would send under an attack.

    Parameters
    ----------
    estimates : sequence of LocalEstimate
        Of honest sources. Those without a mixture, or of another shape than most, are never bad.
    attack : str or Attack
        A name in ``ATTACKS`` of the kind "estimates" or "messages".
    rate : float
        Share of bad sources: floor(rate * n) of them are drawn, as in the paper. With the same seed, the bad
        sources of a smaller rate are among those of a larger one.
    strength : float, optional
        The attack's own by default; ``ATTACKS[name].unit`` is its unit.
    random_state : int, RandomState, Generator, SeedSequence or None, default None
        Determines which sources are bad, and all draws of the attack.

    Returns
    -------
    Corruption

    Raises
    ------
    ValueError
        If there is no such attack, an argument is out of range, fewer than two sources stay honest, or
        the attack needs Gaussian mixtures and these are of another family.
    TypeError
        If an estimate is not a :class:`LocalEstimate`.

    Examples
    --------
    >>> from dask_dfmr import LocalEstimate, Mixture, attacks
    >>> estimates = [LocalEstimate(Mixture([1.0], [[0.01 * i]], [[[1.0]]]), 5000) for i in range(10)]
    >>> attacks.corrupt(estimates, "mean", 0.2, random_state=0)
    Corruption('mean', strength=100, 2 of 10 bad)
    """
    return recruit(estimates, rate, random_state=random_state).corrupt(attack, strength)


def recruit(
    estimates: Sequence[LocalEstimate], rate: float, *, random_state: SeedLike = None
) -> Adversary:
    """Draw the bad sources. One adversary can try many attacks and strengths without computing its knowledge again.

    Parameters
    ----------
    estimates, rate, random_state
        As for :func:`corrupt`.

    Returns
    -------
    Adversary

    Raises
    ------
    TypeError, ValueError
        If ``estimates`` or ``rate`` is wrong, as for :func:`corrupt`.
    """
    seed = seed_sequence(random_state)
    check_rate(rate)
    estimates = list(estimates)
    for e in estimates:
        if not isinstance(e, LocalEstimate):
            raise TypeError(
                f"estimates must be LocalEstimate objects; got {type(e).__name__}. "
                "LocalEstimate(mixture, n_samples) makes one."
            )
    usable = _of_one_shape(estimates)
    order = np.random.default_rng(stream(seed, ATTACKED)).permutation(usable)
    bad = np.zeros(len(estimates), dtype=bool)
    bad[order[: n_bad(rate, len(usable))]] = True
    honest = [i for i in usable if not bad[i]]
    if len(honest) < 2:
        raise ValueError(
            f"estimates must leave at least 2 honest sources at rate {rate:g}; "
            f"{len(usable)} of {len(estimates)} are usable and {len(honest)} of them honest."
        )
    return Adversary(estimates, bad, honest, seed)


def check_rate(rate: Any) -> None:
    """Raise ValueError unless ``rate`` is a share below 1."""
    checks.number("rate", rate)
    if not rate < 1:
        raise ValueError(f"rate must be a share of the sources below 1, like 0.2; got {rate!r}.")


def n_bad(rate: float, n: int) -> int:
    """The paper's floor(rate * n), corrected for rounding: 0.29 * 100 gives 29."""
    return int(np.floor(rate * n + 1e-9))


def _of_one_shape(estimates: Sequence[LocalEstimate]) -> list[int]:
    """Indices of the estimates that agree with most in family and shape."""
    shapes = {
        i: (e.mixture.family.name, e.mixture.n_components, e.mixture.n_features)
        for i, e in enumerate(estimates)
        if e.mixture is not None
    }
    counts = Counter(shapes.values())
    if not counts:
        raise ValueError("estimates must hold at least one with a mixture; got none.")
    common = min(counts, key=lambda shape: (-counts[shape], shape))
    return [i for i, shape in shapes.items() if shape == common]


class Adversary:
    """The bad sources of a draw, and what they know; made by :func:`recruit`.

    Attributes
    ----------
    estimates : list of LocalEstimate
        Before the attack, those of the bad sources included.
    is_bad : ndarray of bool, shape (n_estimates,)
    """

    def __init__(
        self,
        estimates: Sequence[LocalEstimate],
        is_bad: NDArray[np.bool_],
        honest: Sequence[int],
        seed: np.random.SeedSequence,
    ) -> None:
        self.estimates = list(estimates)
        self.is_bad = is_bad
        self._honest = list(honest)
        self._seed = seed

    def corrupt(self, attack: str | Attack, strength: float | None = None) -> Corruption:
        """The estimates, those of the bad sources replaced by what they send; see :func:`corrupt`.

        Raises
        ------
        ValueError
            If ``attack`` or ``strength`` is wrong, or the attack needs Gaussian mixtures and these are none.
        """
        found = find(attack, ("estimates", "messages"))
        level = found.strength if strength is None else strength
        checks.number("strength", level)
        if found.gaussian_only and not isinstance(self.family, Gaussian):
            raise ValueError(
                f"attack {found.name!r} needs means and covariances; these mixtures are of the family "
                f"{self.family.name!r}. Use an attack that is not gaussian_only."
            )
        sent = list(self.estimates)
        if self.bad.size:
            messages = found.effect(self, float(level))
            for i, message in zip(self.bad, messages, strict=True):
                sent[i] = message
        return Corruption(sent, self.is_bad.copy(), found, float(level))

    # -- which sources are bad -------------------------------------------------------------------

    @property
    def bad(self) -> NDArray[np.intp]:
        """Indices of the bad sources."""
        return np.flatnonzero(self.is_bad)

    @property
    def own(self) -> list[LocalEstimate]:
        """The estimates that the bad sources would have sent as honest ones."""
        return [self.estimates[i] for i in self.bad]

    @property
    def honest(self) -> list[LocalEstimate]:
        """The estimates of the honest sources."""
        return [self.estimates[i] for i in self._honest]

    @property
    def family(self) -> Family:
        """The family of all mixtures."""
        return mixture_of(self.honest[0]).family

    def shared_rng(self) -> np.random.Generator:
        """The generator of draws that all bad sources share."""
        return np.random.default_rng(stream(self._seed, ATTACK_SHARED))

    def own_rngs(self) -> list[np.random.Generator]:
        """One generator per bad source, for its own draws."""
        return [np.random.default_rng(stream(self._seed, ATTACK_OWN, int(i))) for i in self.bad]

    # -- what they know ---------------------------------------------------------------------------

    @cached_property
    def stack(self) -> Stack:
        """The honest estimates as arrays."""
        return stack_mixtures([mixture_of(e) for e in self.honest])

    @cached_property
    def _log_self(self) -> Array:
        return log_self_products(self.family, self.stack)

    @cached_property
    def distances(self) -> Array:
        """L2 distances between the honest estimates, (n_honest, n_honest), in units of a typical norm."""
        n, blocks = len(self._honest), tile_blocks(len(self._honest))
        found = np.zeros((n, n))
        for i, j in upper_tiles(len(blocks)):
            a, b = blocks[i], blocks[j]
            tile = l2_tile(
                self.family,
                self.stack[a],
                self.stack[b],
                self._log_self[a],
                self._log_self[b],
                self._log_scale,
            )
            tile = symmetric_tile(tile) if i == j else tile
            found[a, b], found[b, a] = tile, tile.T
        return found

    @property
    def _log_scale(self) -> float:
        return float(np.median(self._log_self))

    @cached_property
    def coat(self) -> int:
        """Position of the center among the honest estimates."""
        return int(np.median(self.distances, axis=1).argmin())

    @property
    def radius(self) -> float:
        """Distance from the center within which more than half of the honest estimates lie."""
        return float(np.sort(self.distances[self.coat])[len(self._honest) // 2])

    def distances_to_coat(self, mixtures: Sequence[Mixture]) -> Array:
        """L2 distances of mixtures to the honest center, (n_mixtures,), in the unit of ``distances``."""
        theirs = stack_mixtures(mixtures)
        log_self = log_self_products(self.family, theirs)
        at = np.array([self.coat])
        scale = self._log_scale
        return l2_tile(self.family, self.stack[at], theirs, self._log_self[at], log_self, scale)[0]

    @cached_property
    def origin(self) -> tuple[Array, Components]:
        """The reduction of the honest estimates: the oracle, and the origin of coordinates."""
        rows = np.array([e.n_samples for e in self.honest], dtype=np.float64)
        weights = (self.stack.weights * (rows / rows.sum())[:, None]).ravel()
        start = Centers(*self.stack.one(self.coat))
        found = reduce_pooled(self.family, weights, self.stack.pooled(), start)
        return found.weights, found.components

    def coordinates_of(self, estimate: LocalEstimate) -> Array:
        """Coordinates (n_coordinates,) of an estimate about the origin, its components matched to the origin's."""
        mixture = mixture_of(estimate)
        costs = self.family.divergence(self.origin[1], mixture.components)
        order = assignment(costs)
        return self.family.coordinates(
            mixture.weights[order], take(mixture.components, order), self.origin
        )

    @cached_property
    def deviations(self) -> Array:
        """Coordinates of the honest estimates, shape (n_honest, n_coordinates)."""
        return np.array([self.coordinates_of(e) for e in self.honest])

    @property
    def mean(self) -> Array:
        """Mean coordinates of the honest estimates, (n_coordinates,)."""
        return self.deviations.mean(axis=0)

    @property
    def sd(self) -> Array:
        """Standard deviations of these coordinates, (n_coordinates,)."""
        return self.deviations.std(axis=0, ddof=1)

    @cached_property
    def about(self) -> Information:
        """The Fisher information at the origin."""
        return information(self.family, *self.origin, np.random.default_rng(0))

    @property
    def n_parameters(self) -> int:
        """Free parameters of a mixture."""
        n_features = self.family.n_features(self.origin[1])
        return self.family.n_parameters(len(self.origin[0]), n_features)

    @cached_property
    def inflation(self) -> float:
        """Errors of the honest estimates over those that the Fisher information gives, a median over estimates."""
        rows = np.array([e.n_samples for e in self.honest], dtype=np.float64)
        v = self.deviations - np.outer(self.deviations @ self.about.normal, self.about.normal)
        white = v if self.about.root is None else v @ self.about.root
        squares = rows * np.square(white).sum(axis=1) / self.n_parameters
        return float(np.sqrt(np.median(squares)))

    @cached_property
    def axes(self) -> tuple[Array, Array]:
        """Standard errors from one row, largest first, and their directions as rows (n_coordinates, n_coordinates).

        The direction in which weights cease to sum to 1 comes last, with the error 0.
        """
        normal = self.about.normal
        root = np.eye(len(normal)) if self.about.root is None else self.about.root
        inside = np.eye(len(normal)) - np.outer(normal, normal)
        values, vectors = np.linalg.eigh(inside @ root @ root.T @ inside)
        order = np.r_[1 : len(normal), 0]  # the normal has the eigenvalue 0, the weakest comes next
        errors = np.zeros(len(normal))
        errors[:-1] = 1.0 / np.sqrt(values[1:])
        # LAPACK may give either sign: the largest entry is made positive.
        directions = vectors.T[order]
        largest = np.abs(directions).argmax(axis=1)
        return errors, directions * np.sign(directions[np.arange(len(order)), largest])[:, None]

    def sampling_error(self, rng: np.random.Generator, n_samples: float) -> Array:
        """A random error, in coordinates, that an honest estimate from so many rows might have."""
        white = rng.standard_normal((1, len(self.about.normal)))
        return self.inflation * self.about.errors(white)[0] / np.sqrt(n_samples)

    # -- what they send ---------------------------------------------------------------------------

    def mixture_at(self, coordinates: Array, inside: Array | None = None) -> Mixture:
        """The mixture at coordinates, or the first one on the way from them to ``inside`` (default: the origin)."""
        family, base = self.family, np.zeros_like(coordinates) if inside is None else inside
        for step in SHRINKING ** np.arange(MOST_SHRINKINGS):
            found = family.from_coordinates(base + step * (coordinates - base), self.origin)
            if found is not None:
                return self.mixture(*found)
        return self.mixture(*self.origin)

    def mixture(self, weights: Array, components: Components) -> Mixture:
        """A mixture with the column names of the honest ones."""
        like = mixture_of(self.honest[0])
        return self.family.mixture(weights, components, like.feature_names)

    def send(self, mixtures: Sequence[Mixture]) -> list[LocalEstimate]:
        """One estimate per bad source: its own, with another mixture."""
        return [replace(e, mixture=m) for e, m in zip(self.own, mixtures, strict=True)]


def mixture_of(estimate: LocalEstimate) -> Mixture:
    """The mixture of an estimate that has one."""
    assert estimate.mixture is not None
    return estimate.mixture


def message_of(estimate: LocalEstimate) -> dict[str, Any]:
    """The estimate as a message between tasks, with writable arrays."""
    return {
        name: value.copy() if isinstance(value, np.ndarray) else value
        for name, value in estimate.to_arrays().items()
    }


def with_parameters(estimate: LocalEstimate, parameters: Mapping[str, Any]) -> LocalEstimate:
    """The same estimate with some of the arrays of its mixture replaced."""
    mixture = mixture_of(estimate)
    return replace(
        estimate, mixture=type(mixture).from_arrays(mixture.to_arrays() | dict(parameters))
    )
