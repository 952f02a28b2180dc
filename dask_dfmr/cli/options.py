"""Options that several commands share. Those of a fit are made of the table of parameters, each defined once there."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import click

from dask_dfmr.cli.scheduler import computing_on
from dask_dfmr.estimator import GaussianMixture
from dask_dfmr.parameters import PARAMETERS

WITHOUT_OPTION = frozenset(
    {
        *("weights_init", "means_init", "precisions_init"),  # arrays
        *("warm_start", "keep_estimates"),  # about the estimator in Python
        *("verbose", "warn_excluded", "on_failed"),  # --quiet, and the table of what was excluded
        *("source", "n_partitions"),  # --source and --partitions are about the data
    }
)
"""Parameters of a fit that have no option of their own, each for the reason beside it. All others have one."""

NAMES = {"n_components": ["-k", "--components"], "random_state": ["--seed"]}
"""Options with other names than their parameters."""

OF_AGGREGATE = (
    *("method", "rho", "false_exclusion_rate", "machine_weights", "n_references", "random_state"),
)
"""Parameters that the aggregation of estimates takes."""

OF_LOCAL_FITS = (
    *("n_components", "covariance_type", "tol", "reg_covar", "max_iter", "n_init", "penalty"),
    *("min_partition_rows", "nan_policy", "random_state"),
)
"""Parameters that the fit of one site takes."""

WORDS = {"none": None, "true": True, "false": False}
"""Values of options that are no text."""

_KEY, _WHERE = "dask_dfmr.parameters", "dask_dfmr.where"

Decorated = Callable[..., Any]


def checked(name: str, text: str) -> Any:
    """The value of one parameter, checked by the table.

    Raises
    ------
    click.BadParameter
        If the parameter has no such value.
    """
    value = _workers(text) if name == "trusted_workers" else as_value(text)
    try:
        PARAMETERS[name].check(name, value)
    except (ValueError, TypeError) as error:
        raise click.BadParameter(str(error)) from error
    return value


def as_value(text: str) -> Any:
    """A word, a number, or the text itself."""
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _workers(text: str) -> Any:
    """``NAME=AMOUNT`` as resources, else names with commas between them."""
    pairs = [part.partition("=") for part in text.split(",")]
    if all(is_pair for _, is_pair, _ in pairs):
        return {name: as_value(amount) for name, _, amount in pairs}
    return text.split(",")


def parameter_options(names: Iterable[str]) -> Callable[[Decorated], Decorated]:
    """Add the options of parameters; the command gets those that were given as ``parameters``, a dictionary."""

    def store(ctx: click.Context, option: click.Parameter, value: Any) -> None:
        parameters = ctx.meta.setdefault(_KEY, {})
        if value is not None:
            parameters[str(option.name)] = checked(str(option.name), value)

    def decorate(function: Decorated) -> Decorated:
        for name in reversed(list(names)):
            option = NAMES.get(name, [f"--{name.replace('_', '-')}"])
            function = click.option(
                *(name, *option),
                metavar="VALUE" if name not in ("n_components", "random_state") else "N",
                expose_value=False,
                callback=store,
                help=f"{PARAMETERS[name].meaning} {_type_of(name)}.",
            )(function)
        return function

    return decorate


def given_parameters() -> dict[str, Any]:
    """The parameters whose options were given."""
    found: dict[str, Any] = click.get_current_context().meta.get(_KEY, {})
    return found


@cache
def _types() -> dict[str, str]:
    """Type and default of every parameter, as the docstring of the estimator has them."""
    text = inspect.getdoc(GaussianMixture) or ""
    return dict(re.findall(r"^(\w+) : (.+)$", text, re.MULTILINE))


def _type_of(name: str) -> str:
    text = _types()[name]
    for python, here in (
        (" or Mixture", ""),
        (", RandomState, Generator, SeedSequence", ""),
        ("list of str, mapping", "names with commas between them, RESOURCE=AMOUNT"),
        ("float, str or None", "seconds, a time like 5m, or None"),
    ):
        text = text.replace(python, here)
    return text


def fit_options(function: Decorated) -> Decorated:
    """All parameters of a fit that have an option."""
    return parameter_options(n for n in PARAMETERS if n not in WITHOUT_OPTION)(function)


def data_options(function: Decorated) -> Decorated:
    """DATA, and how to read it."""
    return _data_options(function, is_required=True)


def optional_data_options(function: Decorated) -> Decorated:
    """The same where a command can do without."""
    return _data_options(function, is_required=False)


def _data_options(function: Decorated, is_required: bool) -> Decorated:
    for decorate in reversed(
        (
            click.argument(
                "data",
                nargs=-1,
                required=is_required,
                metavar="DATA..." if is_required else "[DATA...]",
            ),
            click.option(
                "--columns",
                multiple=True,
                metavar="A,B,...",
                help="Columns that are features. Default: all that have a name, without that of --source.",
            ),
            click.option(
                "--partitions",
                type=click.IntRange(min=1),
                metavar="N",
                help="Divide the rows into so many partitions. Default: as files and blocks come.",
            ),
            click.option(
                "--format",
                "kind",
                type=click.Choice(["parquet", "csv", "json", "orc"]),
                help="Kind of the files. Default: by their endings.",
            ),
            click.option(
                "--read",
                "reader",
                multiple=True,
                metavar="KEY=VALUE",
                help="Argument of the reader of dask.dataframe, like blocksize=64MB or sep=;. Values may be JSON.",
            ),
        )
    ):
        function = decorate(function)
    return function


def source_option(function: Decorated) -> Decorated:
    """``--source``."""
    return click.option(
        "--source",
        metavar="COLUMN",
        help=f"{PARAMETERS['source'].meaning} Default: each partition. A column: the rows of each of its values.",
    )(function)


def scheduler_options(function: Decorated) -> Decorated:
    """``--scheduler`` and ``--workers``, for :func:`computing_where_asked`."""

    def store(ctx: click.Context, option: click.Parameter, value: Any) -> None:
        ctx.meta[f"{_WHERE}.{option.name}"] = value

    for decorate in (
        click.option(
            "--workers",
            type=click.IntRange(min=1),
            metavar="N",
            expose_value=False,
            callback=store,
            help="Start so many worker processes on this machine.",
        ),
        click.option(
            "--scheduler",
            metavar="ADDRESS",
            expose_value=False,
            callback=store,
            help="Compute on a Dask cluster, like tcp://10.0.0.1:8786. Default: threads of this process.",
        ),
    ):
        function = decorate(function)
    return function


def computing_where_asked() -> AbstractContextManager[None]:
    """Make the scheduler that was asked for the active one.

    Raises
    ------
    CommandError
        As of :func:`~dask_dfmr.cli.scheduler.computing_on`.
    """
    meta = click.get_current_context().meta
    return computing_on(meta[f"{_WHERE}.scheduler"], meta[f"{_WHERE}.workers"])


def output_options(*names: str) -> Callable[[Decorated], Decorated]:
    """Files to write, by name of the option, and ``--force``."""
    about = {
        "model": "Write the fitted model to this file. It is a zip of JSON and arrays.",
        "report": "Write a page about the fit to this file. It is HTML that needs no network.",
    }

    def decorate(function: Decorated) -> Decorated:
        function = click.option("--force", is_flag=True, help="Replace files that exist.")(function)
        for name in reversed(names):
            function = click.option(f"--{name}", metavar="FILE", help=about[name])(function)
        return function

    return decorate
