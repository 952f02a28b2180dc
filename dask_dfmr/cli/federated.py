"""Commands for sites that share no rows: ``fit-local``, ``start`` and ``aggregate``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import click
import numpy as np

from dask_dfmr.aggregation.reasons import in_short
from dask_dfmr.cli.data import find_files
from dask_dfmr.cli.exits import CommandError, Exit
from dask_dfmr.cli.fitting import (
    read_frame,
    show_mixture,
    show_partitions,
    show_written,
    write_files,
)
from dask_dfmr.cli.options import (
    OF_AGGREGATE,
    OF_LOCAL_FITS,
    data_options,
    given_parameters,
    output_options,
    parameter_options,
)
from dask_dfmr.cli.run import (
    Run,
    check_output,
    check_outputs,
    command,
    in_own_options,
    mixture_values,
    writing,
)
from dask_dfmr.cli.using import load
from dask_dfmr.estimator import GaussianMixture
from dask_dfmr.local.estimate import LocalEstimate
from dask_dfmr.local.fit import fit_local as fit_rows
from dask_dfmr.local.shared_start import shared_start
from dask_dfmr.results import aggregate as combine

LOCAL_NAMES = {"min_partition_rows": "min_rows"}
"""Parameters of a fit whose argument of :func:`fit_local` has another name."""


@command(
    "fit-local",
    """Fit the rows of one site, all together, and write the estimate: a JSON file without rows.

    In the first round sites fit from starts of their own, and "dask-dfmr start" makes one start of the estimates. In
    the second round they fit from that start, and "dask-dfmr aggregate" combines the estimates.

    \b
    Examples:
      dask-dfmr fit-local rows.csv -k 3 --n-init 10 --out oslo.first.json
      dask-dfmr fit-local rows.csv --start start.json --name oslo --out oslo.json
    """,
)
@data_options
@parameter_options(OF_LOCAL_FITS)
@click.option("--start", metavar="FILE", help="Mixture to start from, a file of dask-dfmr start.")
@click.option("--name", metavar="TEXT", help="Name of the site in reports. Default: DATA.")
@click.option(
    "--sites", type=click.IntRange(min=1), default=1, metavar="N", help="Number of sites."
)
@click.option("--out", required=True, metavar="FILE", help="File to write the estimate to.")
@click.option("--force", is_flag=True, help="Replace a file that exists.")
def fit_local(
    run: Run,
    data: tuple[str, ...],
    start: str | None,
    name: str | None,
    sites: int,
    out: str,
    force: bool,
    **how: Any,
) -> Exit:
    """Fit the rows in memory."""
    check_output(out, force)
    parameters = {LOCAL_NAMES.get(key, key): value for key, value in given_parameters().items()}
    if start is not None:
        mixture = load(start).mixture_
        parameters |= {"start": mixture, "covariance_type": mixture.covariance_type}
        parameters.setdefault("n_components", mixture.n_components)
        if not how["columns"] and mixture.feature_names is not None:
            how["columns"] = tuple(mixture.feature_names)
    if "n_components" not in parameters:
        raise CommandError(
            Exit.USAGE, "-k is needed: the number of components. --start has its own."
        )
    rows = read_frame(run, data, **how).compute()
    estimate = fit_rows(rows, **parameters, n_sources=sites)
    estimate = replace(estimate, source=name or " ".join(data))
    with writing(out):
        estimate.save(out)
    has_mixture = estimate.mixture is not None
    run.say(f"{estimate.outcome.value}: {estimate.n_samples:,} rows{_why(estimate)}\nwrote {out}")
    return run.finish(
        int(not has_mixture),
        n_samples=estimate.n_samples,
        outcome=estimate.outcome.value,
        reason=estimate.reason,
        mean_log_likelihood=estimate.log_likelihood if has_mixture else None,
        out=out,
    )


def _why(estimate: LocalEstimate) -> str:
    return f", {in_own_options(in_short(estimate.reason))}" if estimate.reason else ""


def _load_estimates(paths: Sequence[str]) -> list[LocalEstimate]:
    """The estimates of files, folders and patterns, in the order of their names."""
    found = []
    for path in find_files(paths):
        try:
            found.append(LocalEstimate.load(path))
        except ValueError as error:
            raise CommandError(Exit.DATA, f"{path} is no estimate: {error}") from error
    return found


@command(
    "start",
    """Make one start for all sites, from the estimates that they made from starts of their own.

    Wrong estimates do not change it as long as more than half of the sites agree.

    \b
    Example:
      dask-dfmr start first/*.json --out start.json
    """,
)
@click.argument("estimates", nargs=-1, required=True, metavar="ESTIMATES...")
@parameter_options(["random_state"])
@click.option("--out", required=True, metavar="FILE", help="File to write the mixture to.")
@click.option("--force", is_flag=True, help="Replace a file that exists.")
def start(run: Run, estimates: tuple[str, ...], out: str, force: bool) -> Exit:
    """Compare the estimates and continue the best start."""
    check_output(out, force)
    found = _load_estimates(estimates)
    mixture = shared_start(found, **given_parameters())
    with writing(out):
        mixture.save(out)
    run.say(f"made a start of {len(found)} estimates\nwrote {out}")
    return run.finish(n_estimates=len(found), n_components=mixture.n_components, out=out)


@command(
    "aggregate",
    """Combine ESTIMATES of sites into one model, without those that are inconsistent with the majority.

    ESTIMATES are files of "dask-dfmr fit-local", folders of them, or patterns.

    \b
    Example:
      dask-dfmr aggregate second/*.json --model sites.model
    """,
)
@click.argument("estimates", nargs=-1, required=True, metavar="ESTIMATES...")
@parameter_options(OF_AGGREGATE)
@output_options("model", "report")
def aggregate(
    run: Run, estimates: tuple[str, ...], model: str | None, report: str | None, force: bool
) -> Exit:
    """Aggregate, show, write."""
    check_outputs(model, report, force=force)
    found = combine(_load_estimates(estimates), **given_parameters(), warn_excluded=False)
    gm = GaussianMixture.from_aggregate(found)
    shown = show_partitions(run, gm)
    show_mixture(run, gm)
    files = write_files(gm, model, report)
    show_written(run, files)
    n_excluded = int(np.count_nonzero(~gm.support_))
    return run.finish(n_excluded, **shown, **mixture_values(gm), files=files)
