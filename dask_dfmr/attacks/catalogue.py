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

Effect = Callable[..., Any]
"""What an attack does. Of estimates and messages: (adversary, strength) -> one message per bad machine; of rows:
(rows, strength, shared, own), with two generators, that of all bad partitions and the partition's own -> rows."""


@dataclass(frozen=True)
class Attack:
    """A named way in which machines go wrong.

    Attributes
    ----------
    name : str
    kind : {"estimates", "messages", "rows"}
        What is corrupted: estimates, which stay valid ones; messages, which become malformed; rows, before
        any fit.
    strength : float
        Used where no other is given.
    grid : tuple of float
        Strengths that an attacker who can try tries (``stress_test(..., search=True)``).
    unit : str
        What the strength means.
    knows : str
        What the attackers have to know.
    source : str
        Where the attack comes from.
    gaussian_only : bool
        Whether it speaks of means and covariances, and not of any family's parameters.
    effect : callable
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
        """Whether there is a strength to search for."""
        return len(self.grid) > 1

    @property
    def description(self) -> str:
        """What it does, in words."""
        return cleandoc(self.effect.__doc__ or "")

    def __repr__(self) -> str:
        return f"Attack({self.name!r}, kind={self.kind!r}, strength={self.strength:g})"


_catalogue: dict[str, Attack] = {}

ATTACKS: Mapping[str, Attack] = MappingProxyType(_catalogue)
"""All attacks by name."""


def describe() -> pd.DataFrame:
    """All attacks as a table: one row per name, with the attributes of :class:`Attack` and what each does.

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
    unit: str = "none: it has one strength",
    knows: str = "its own estimate",
    source: str,
    gaussian_only: bool = False,
) -> Callable[[Effect], Effect]:
    """Enter a function into the catalogue; without a grid, its one strength is the grid."""

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
    """The attack of this name.

    Raises
    ------
    ValueError
        If there is none, or it is of another kind.
    """
    if isinstance(attack, Attack):
        found = attack
    else:
        checks.one_of("attack", attack, list(ATTACKS))
        found = ATTACKS[str(attack)]
    if found.kind not in kinds:
        raise ValueError(
            f"attack must be one on {' or '.join(kinds)}; {found.name!r} is one on {found.kind}. "
            "Estimates and messages are corrupted by corrupt, rows by corrupt_rows and corrupt_partitions."
        )
    return found
