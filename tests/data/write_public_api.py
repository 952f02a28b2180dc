"""Write ``tests/data/public_api.txt``: ``python tests/data/write_public_api.py``.

The file has the signature of everything public, so that a change of it is seen in a review.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask_dfmr

FILE = Path(__file__).with_name("public_api.txt")


def described(name: str, value: Any) -> Iterator[str]:
    """A line for a value, and one for each public member of a class or module."""
    if inspect.ismodule(value):
        for inner in names_of(value):
            yield from described(f"{name}.{inner}", getattr(value, inner))
    elif inspect.isclass(value):
        yield f"class {name}{bases_of(value)}{signature_of(value)}"
        for member in sorted(members_of(value)):
            yield from described_member(f"{name}.{member}", inspect.getattr_static(value, member))
    elif callable(value):
        yield f"def {name}{signature_of(value)}"
    else:
        yield f"{name}: {type(value).__name__}"


def described_member(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, property):
        returned = inspect.signature(value.fget).return_annotation if value.fget else ""
        yield f"property {name} -> {returned}"
    elif isinstance(value, (classmethod, staticmethod)):
        yield f"{type(value).__name__} {name}{inspect.signature(value.__func__)}"
    elif inspect.isfunction(value):
        yield f"def {name}{inspect.signature(value)}"
    else:
        yield f"{name}"


def names_of(module: Any) -> list[str]:
    """``__all__`` of a module, or the functions and classes that it defines."""
    if hasattr(module, "__all__"):
        return sorted(n for n in module.__all__ if not inspect.ismodule(getattr(module, n)))
    return sorted(
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    )


def members_of(cls: type) -> set[str]:
    """Public members that a class of this package or its bases in this package define."""
    ours = [base for base in cls.__mro__ if base.__module__.startswith("dask_dfmr")]
    return {name for base in ours for name in vars(base) if not name.startswith("_")}


def bases_of(cls: type) -> str:
    names = [base.__name__ for base in cls.__bases__ if base is not object]
    return f"[{', '.join(names)}]" if names else ""


def signature_of(value: Any) -> str:
    if inspect.isclass(value) and issubclass(value, (Exception, str)):
        return ""
    return str(inspect.signature(value))


def public_api() -> str:
    """The whole file."""
    lines = []
    for name in sorted(dask_dfmr.__all__):
        lines += described(name, getattr(dask_dfmr, name))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    FILE.write_text(public_api(), encoding="utf-8")
