"""Texts of the package in the words of the command line: parameters of Python as options."""

from __future__ import annotations

import re

import click

from dask_dfmr.cli.options import NAMES, WITHOUT_OPTION
from dask_dfmr.parameters import PARAMETERS

OPTIONS = {name: f"--{name.replace('_', '-')}" for name in PARAMETERS.keys() - WITHOUT_OPTION}
OPTIONS |= {name: options[-1] for name, options in NAMES.items()}
OPTIONS |= {"n_partitions": "--partitions", "source": "--source"}
"""The option of each parameter that has one."""

IN_COMMANDS = {"select": {"covariance_type": "--structures"}}
"""Options that are not called as those of ``fit``, by command and parameter."""

MAKERS = {"aggregate": "fit-local", "start": "fit-local"}
"""Commands whose advice is about estimates that another command than ``fit`` makes."""

_VALUE = r"""(?:'[^']*'|"[^"]*"|[\w+-]+(?:\.\d+)?)"""
_NAMES = "|".join(sorted(OPTIONS, key=len, reverse=True))
_WITH_VALUE = re.compile(rf"\b({_NAMES})=({_VALUE}(?: or (?>{_VALUE})(?!=))*)")
_WITHOUT_QUOTES = str.maketrans("", "", "'\"")
_ALONE = re.compile(rf"(?<![\w.'\"-])({_NAMES})(?![\w.='\"-])")


def in_options(text: str, command: click.Command | None = None) -> str:
    """The text with parameters as options: ``n_components=3`` becomes ``--components 3``.

    A name alone is taken for a parameter if it has an underscore; other names are also words. If the ``command`` whose
    text it is does not have an option, it is written with the command that makes estimates and models, and has it:
    ``'fit --components 3'``.
    """
    offered = None if command is None else {word for one in command.params for word in one.opts}
    name = "fit" if command is None else str(command.name)
    options, maker = OPTIONS | IN_COMMANDS.get(name, {}), MAKERS.get(name, "fit")

    def as_option(option: str, value: str = "") -> str:
        is_offered = offered is None or option in offered
        return f"{option}{value}" if is_offered else f"'{maker} {option}{value}'"

    def with_value(match: re.Match[str]) -> str:
        return as_option(options[match[1]], f" {match[2].translate(_WITHOUT_QUOTES)}")

    def alone(match: re.Match[str]) -> str:
        return as_option(options[match[1]]) if "_" in match[1] else match[1]

    return _ALONE.sub(alone, _WITH_VALUE.sub(with_value, text))
