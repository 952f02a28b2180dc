"""The value ``Attack``, and the catalogue that attacks enter by a decorator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import cleandoc
from types import MappingProxyType
from typing import Any

import pandas as pd

from dask_dfmr import checks

KINDS = ("estimates", "messages", "rows")
"""What an attack can change."""

Effect = Callable[..., Any]
"""The function of an attack.

On estimates and messages: (adversary, strength) -> one message per bad source. On rows: (rows, strength, shared, own)
-> rows, where ``shared`` is the generator of all bad partitions and ``own`` that of the partition."""


@dataclass(frozen=True)
class Attack:
    """A named way in which sources go wrong.

    Attributes
    ----------
    name : str
    kind : {"estimates", "messages", "rows"}
        What is corrupted: estimates, which stay valid; messages, which become malformed; or rows, before any fit.
    strength : float
        The default strength.
    grid : tuple of float
        Strengths that are tried with ``stress_test(..., search=True)``.
    unit : str
        Unit and meaning of the strength.
    knows : str
        What the attackers need to know.
    source : str
        Publication or origin of the attack.
    gaussian_only : bool
        Whether it changes means or covariances, which other families do not have.
    effect : callable
        The function of the attack.
    """

    name: str
    kind: str
    strength: float
    grid: tuple[float, ...]
    unit: str
    knows: str
    source: str
    gaussian_only: bool
    effect: Effect

    @property
    def adaptive(self) -> bool:
        """Whether there are several strengths to search."""
        return len(self.grid) > 1

    @property
    def description(self) -> str:
        """The docstring of its function: what it does."""
        return cleandoc(self.effect.__doc__ or "")

    def __repr__(self) -> str:
        return f"Attack({self.name!r}, kind={self.kind!r}, strength={self.strength:g})"


_catalogue: dict[str, Attack] = {}

ATTACKS: Mapping[str, Attack] = MappingProxyType(_catalogue)
"""All attacks by name."""


def describe() -> pd.DataFrame:
    """All attacks as a table: one row per name, with the attributes of :class:`Attack`.

    Returns
    -------
    pandas.DataFrame
        Indexed by name; columns ``kind``, ``description`` (first sentence), ``strength``, ``unit``, ``grid``,
        ``adaptive``, ``knows``, ``source``, ``gaussian_only``.
    """
    columns = ("kind", "strength", "unit", "grid", "adaptive", "knows", "source", "gaussian_only")
    rows = {
        name: {column: getattr(attack, column) for column in columns}
        for name, attack in ATTACKS.items()
    }
    table = pd.DataFrame.from_dict(rows, orient="index")
    sentences = [attack.description.splitlines()[0] for attack in ATTACKS.values()]
    table.insert(1, "description", sentences)
    return table.rename_axis("attack")


def enter(
    name: str,
    kind: str = "estimates",
    *,
    strength: float = 1.0,
    grid: Sequence[float] = (),
    unit: str = "none, there is one strength",
    knows: str = "its own estimate",
    source: str,
    gaussian_only: bool = False,
) -> Callable[[Effect], Effect]:
    """Enter a function into the catalogue. By default the grid is the one strength."""

    def entered(effect: Effect) -> Effect:
        assert kind in KINDS
        assert name not in _catalogue
        steps = tuple(float(s) for s in grid) or (float(strength),)
        _catalogue[name] = Attack(
            name, kind, float(strength), steps, unit, knows, source, gaussian_only, effect
        )
        return effect

    return entered


def find(attack: str | Attack, kinds: Sequence[str] = KINDS) -> Attack:
    """The attack of this name, which must be of one of these kinds.

    Raises
    ------
    ValueError
        If there is no such attack, or it is of another kind.
    """
    if isinstance(attack, Attack):
        found = attack
    else:
        checks.one_of("attack", attack, list(ATTACKS))
        found = ATTACKS[str(attack)]
    if found.kind not in kinds:
        raise ValueError(
            f"attack must be one on {' or '.join(kinds)}; {found.name!r} is one on {found.kind}. "
            "Use corrupt for estimates and messages, and corrupt_rows or corrupt_partitions for rows."
        )
    return found
