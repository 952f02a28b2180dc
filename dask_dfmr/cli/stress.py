"""``stress``: methods compared under an attack on the user's own data."""

from __future__ import annotations

from typing import Any

import click

from dask_dfmr.attacks.catalogue import ATTACKS
from dask_dfmr.attacks.stress import RATES, default_methods, stress_test
from dask_dfmr.cli.exits import CommandError, Exit
from dask_dfmr.cli.fitting import read_frame
from dask_dfmr.cli.options import (
    computing_where_asked,
    data_options,
    fit_options,
    given_parameters,
    scheduler_options,
)
from dask_dfmr.cli.run import Run, command


def _list_attacks(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        width = max(map(len, ATTACKS))
        for name, attack in ATTACKS.items():
            click.echo(f"{name:<{width}}  on {attack.kind}")
        ctx.exit()


def _rates(ctx: click.Context, parameter: click.Parameter, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter(f"expected shares like 0,0.1,0.2; got {text!r}.") from None


@command(
    "stress",
    """Corrupt a growing share of DATA in a known way, and compare the results of methods.

    An error of 1 is a result no better than that of a single source; above 2 it is called a breakdown. Columns of the
    table are methods, rows are shares of corrupted sources.

    \b
    Examples:
      dask-dfmr stress plates/*.parquet -k 5 --attack wrong_unit
      dask-dfmr stress plates/ -k 5 --attack min_max --rates 0.2,0.4 --compare "dfmr;hardened"
      dask-dfmr stress --list
    """,
)
@data_options
@click.option("--attack", required=True, metavar="NAME", help="An attack; --list shows them.")
@click.option(
    "--list",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_attacks,
    help="List the attacks and exit.",
)
@click.option(
    "--rates",
    default=",".join(map(str, RATES)),
    show_default=True,
    callback=_rates,
    metavar="A,B,...",
    help="Shares of sources to corrupt.",
)
@click.option(
    "--compare",
    metavar="A;B;...",
    help=f"Methods, with semicolons between them. Default: {'; '.join(default_methods())}.",
)
@click.option(
    "--repeats", type=click.IntRange(min=1), default=1, metavar="N", help="Draws per rate."
)
@fit_options
@scheduler_options
def stress(
    run: Run,
    data: tuple[str, ...],
    attack: str,
    rates: list[float],
    compare: str | None,
    repeats: int,
    **how: Any,
) -> Exit:
    """Run a stress test."""
    parameters = given_parameters()
    if "n_components" not in parameters:
        raise CommandError(Exit.USAGE, "-k is needed: the number of components.")
    methods = None if compare is None else [name.strip() for name in compare.split(";")]
    with computing_where_asked():
        frame = read_frame(run, data, **how)
        found = stress_test(
            frame,
            attack,
            rates,
            methods=methods,
            n_repeats=repeats,
            random_state=parameters.pop("random_state", None),
            verbose=run.verbose,
            **parameters,
        )
    run.say(f"error of {attack!r}, in units of {found.yardstick} error\n")
    run.table(found.curve.reset_index())
    breakdown = {str(name): rate for name, rate in found.breakdown.items()}
    worst = [f"{name} at {rate:g}" for name, rate in breakdown.items() if rate == rate]
    run.say(f"\nbreakdown: {', '.join(worst) or 'none'}")
    return run.finish(
        attack=attack, yardstick=found.yardstick, breakdown=breakdown, rows=found.table
    )
