"""Seeds: a fit draws entropy once, and each partition has its own random stream, which depends only on its index."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

(
    PILOT_DRAW,
    PILOT_ROWS,
    PILOT_FIT,
    START_ROWS,
    LOCAL_FIT,
    SCOUT_DRAW,
    REFERENCE_DRAW,
    SAMPLE_DRAW,
    COMPONENT_DRAW,
    REFINEMENT,
    OPTIMUM_DRAW,
    OPTIMUM_ROWS,
    OPTIMUM_FIT,
    HELD_OUT,
    ATTACKED,
    ATTACK_SHARED,
    ATTACK_OWN,
    SAMPLED_ROWS,
    SECOND_LOOK,
    DENSITY_LAW,
    PILOT_SEARCH,
) = range(21)
"""First number of the spawn key of each stream. The second number, if there is one, is the partition."""

SeedLike = int | np.random.RandomState | np.random.Generator | np.random.SeedSequence | None
"""Types of the parameter ``random_state``."""


class _OfThread(threading.local):
    """The RandomState of a thread. Making one takes 90 microseconds, and seeding it anew 2."""

    def __init__(self) -> None:
        self.rng = np.random.RandomState(0)


_own = _OfThread()


def legacy_draws(seed: int) -> np.random.RandomState:
    """``np.random.RandomState(seed)``, for draws before the next call in this thread only.

    Raises
    ------
    ValueError
        If the seed is not from 0 to 2**32 - 1.
    """
    _own.rng.seed(seed)
    return _own.rng


def seed_sequence(random_state: Any) -> np.random.SeedSequence:
    """A seed sequence from the parameter ``random_state``.

    Parameters
    ----------
    random_state : int, RandomState, Generator, SeedSequence or None
        An int gives the same sequence at every call. A RandomState or Generator is advanced. None takes fresh entropy
        from the operating system.

    Raises
    ------
    ValueError
        If it is none of these.
    """
    if isinstance(random_state, np.random.SeedSequence):
        return random_state
    if isinstance(random_state, np.random.Generator):
        return np.random.SeedSequence(random_state.integers(2**32, size=4).tolist())
    if random_state is None:
        return np.random.SeedSequence()
    rng = _random_state(random_state, legacy_draws)
    return np.random.SeedSequence(rng.randint(0, 2**31, size=4).tolist())


def generator(random_state: Any) -> np.random.RandomState | np.random.Generator:
    """A generator of random numbers from the parameter ``random_state``, of any type that a fit takes.

    A RandomState or Generator is returned itself.

    Raises
    ------
    ValueError
        If it is none of these types.
    """
    if isinstance(random_state, np.random.Generator):
        return random_state
    if isinstance(random_state, np.random.SeedSequence):
        return np.random.default_rng(random_state)
    return _random_state(random_state)


def _random_state(
    random_state: Any, of_int: Callable[[int], np.random.RandomState] = np.random.RandomState
) -> np.random.RandomState:
    try:
        if isinstance(random_state, (int, np.integer)):
            return of_int(int(random_state))
        from sklearn.utils import check_random_state  # seldom needed, and slow to import

        rng: np.random.RandomState = check_random_state(random_state)
    except ValueError as error:
        raise ValueError(
            "random_state must be None, an integer from 0 to 2**32 - 1, a RandomState, a Generator or "
            f"a SeedSequence; got {random_state!r}."
        ) from error
    return rng


def stream(seed: np.random.SeedSequence, *key: int) -> np.random.SeedSequence:
    """The child of ``seed`` with a given key; unlike ``seed.spawn`` it does not depend on earlier calls."""
    return np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, *key))
