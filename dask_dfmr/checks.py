"""Checks of scalar arguments. An error names the argument, what was expected and what came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def one_of(name: str, value: Any, allowed: Sequence[Any]) -> None:
    """Raise ValueError unless ``value`` is one of the allowed values."""
    is_text = isinstance(value, str)  # also numpy.str_, as from an array of names
    if not any(value == a if is_text and isinstance(a, str) else value is a for a in allowed):
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}; got {value!r}.")


def integer(name: str, value: Any, least: int, *, alternative: str = "") -> None:
    """Raise ValueError unless ``value`` is an integer of at least ``least``.

    ``alternative`` is put before "an integer" in the message, for example "None or ".
    """
    is_integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not is_integer or value < least:
        raise ValueError(
            f"{name} must be {alternative}an integer of at least {least}; got {value!r}."
        )


def number(name: str, value: Any, *, alternatives: Sequence[str] = ()) -> None:
    """Raise ValueError unless ``value`` is a finite non-negative number, or one of the alternatives."""
    if isinstance(value, str) and value in alternatives:
        return
    is_number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not is_number or isinstance(value, np.complexfloating) or not 0 <= value < float("inf"):
        expected = " or ".join([*map(repr, alternatives), "a non-negative number"])
        raise ValueError(f"{name} must be {expected}; got {value!r}.")
