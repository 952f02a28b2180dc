"""Texts of the package in the words of the command line: parameters of Python as options."""

from __future__ import annotations

import re

from dask_dfmr.cli.options import NAMES, WITHOUT_OPTION
from dask_dfmr.parameters import PARAMETERS

OPTIONS = {name: f"--{name.replace('_', '-')}" for name in PARAMETERS.keys() - WITHOUT_OPTION}
OPTIONS |= {name: options[-1] for name, options in NAMES.items()}
OPTIONS |= {"n_partitions": "--partitions", "source": "--source"}
"""The option of each parameter that has one."""

_VALUE = r"""(?:'[^']*'|"[^"]*"|[\w+-]+(?:\.\d+)?)"""
_NAMES = "|".join(sorted(OPTIONS, key=len, reverse=True))
_WITH_VALUE = re.compile(rf"\b({_NAMES})=({_VALUE}(?: or (?>{_VALUE})(?!=))*)")
_WITHOUT_QUOTES = str.maketrans("", "", "'\"")
_ALONE = re.compile(rf"(?<![\w.'\"-])({_NAMES})(?![\w.='\"-])")


def in_options(text: str) -> str:
    """The text with parameters as options: ``n_components=3`` becomes ``--components 3``.

    A name alone is taken for a parameter if it has an underscore; other names are also words.
    """

    def with_value(match: re.Match[str]) -> str:
        return f"{OPTIONS[match[1]]} {match[2].translate(_WITHOUT_QUOTES)}"

    def alone(match: re.Match[str]) -> str:
        return OPTIONS[match[1]] if "_" in match[1] else match[1]

    return _ALONE.sub(alone, _WITH_VALUE.sub(with_value, text))
