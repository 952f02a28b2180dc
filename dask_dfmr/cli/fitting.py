"""``fit`` and ``select``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from dask_dfmr.cli.data import Request, read, reader_options
from dask_dfmr.cli.exits import CommandError, Exit
from dask_dfmr.cli.options import (
    WITHOUT_OPTION,
    computing_where_asked,
    data_options,
    fit_options,
    given_parameters,
    output_options,
    parameter_options,
    scheduler_options,
    source_option,
)
from dask_dfmr.cli.run import (
    Run,
    check_output,
    check_outputs,
    command,
    excluded_table,
    mixture_values,
    shown_excluded,
    writing,
)
from dask_dfmr.component_selection import select_components
from dask_dfmr.estimator import GaussianMixture, learned_by
from dask_dfmr.exceptions import PartitionWarning, warn
from dask_dfmr.parameters import PARAMETERS, WITHOUT_FILTER
from dask_dfmr.selection.criteria import CRITERIA

SHOWN_OTHERWISE: dict[str, Any] = {"warn_excluded": False, "on_failed": "ignore"}
"""Parameters of all fits of commands: the table of what was excluded takes the place of warnings about the same."""


def read_frame(run: Run, data: tuple[str, ...], source: str | None = None, **how: Any) -> Any:
    """The rows of DATA, with a line about files that are ignored."""
    request = Request(
        data,
        how["columns"],
        source,
        how["kind"],
        reader_options(how["reader"]),
        how["partitions"],
        how.get("keeps_others", False),
    )
    frame, ignored = read(request)
    show_ignored(run, ignored)
    return frame


def show_ignored(run: Run, ignored: list[str]) -> None:
    """Say which files of folders are not read."""
    if ignored:
        names = ", ".join(ignored[:3]) + (" and others" if len(ignored) > 3 else "")
        run.hint(f"ignored {len(ignored)} files that are no data by their ending: {names}")


def write_files(
    gm: GaussianMixture, model: str | None, report: str | None = None
) -> dict[str, str]:
    """Write what was asked for; the paths by name."""
    files: dict[str, str] = {}
    if model is not None:
        # What suits a command is not what whoever loads the model expects.
        usual = ("verbose", *SHOWN_OTHERWISE)
        gm.set_params(**{name: PARAMETERS[name].default for name in usual})
        with writing(model):
            gm.save(model)
        files["model"] = model
    if report is not None:
        with writing(report):
            gm.report(report)
        files["report"] = report
    return files


def show_partitions(run: Run, gm: GaussianMixture) -> dict[str, Any]:
    """Show which partitions were kept; the keys of the JSON object about them."""
    report = gm.partition_report_
    excluded = excluded_table(report)
    n_kept, n_rows = int(gm.support_.sum()), int(report["n_samples"].sum())
    kept_rows = int(report.loc[gm.support_, "n_samples"].sum())
    what = "partitions" if gm.source is None else f"values of {gm.source!r}"
    run.say(f"kept {n_kept} of {gm.n_partitions_} {what}, {kept_rows:,} of {n_rows:,} rows")
    run.table(shown_excluded(excluded))
    return {
        "n_partitions": gm.n_partitions_,
        "n_kept": n_kept,
        "n_samples": n_rows,
        "excluded": excluded,
    }


def warn_of_unread(gm: GaussianMixture) -> None:
    """Warn of partitions of X that no source could read: they are in no table."""
    unread = learned_by(gm).unread
    if unread:
        warn(f"{unread}.", PartitionWarning)


def show_mixture(run: Run, gm: GaussianMixture) -> None:
    """Show weights and means."""
    mixture = gm.mixture_
    names = mixture.feature_names or [f"column {i}" for i in range(mixture.n_features)]
    table = gm.partition_report_.iloc[:0].reindex(range(mixture.n_components)).iloc[:, :0]
    table = table.assign(component=range(mixture.n_components), weight=mixture.weights.round(4))
    for name, values in zip(names, mixture.means.T, strict=True):
        table[str(name)] = [float(f"{value:.4g}") for value in values]
    run.say("")
    run.table(table)


def show_written(run: Run, files: dict[str, str]) -> None:
    """Say which files were written."""
    if files:
        run.say(f"\nwrote {', '.join(files.values())}")


@command(
    "fit",
    """Fit a mixture to DATA: files, folders, patterns or URLs of parquet, csv, JSON or ORC.

    Each file is one partition (large ones are several), and each is kept or excluded as a whole. With --source the
    rows of each value of a column are.

    \b
    Examples:
      dask-dfmr fit plates/*.parquet -k 5 --seed 0 --model plates.model --report plates.html
      dask-dfmr fit day-*.csv -k 3 --columns temperature,pressure --refine 2
      dask-dfmr fit readings.parquet -k 3 --source sensor --workers 4
      dask-dfmr fit s3://bucket/day=*/ -k 3 --scheduler tcp://10.0.0.1:8786
      dask-dfmr fit plates/ -k 5 --quiet --json | jq .result.excluded
    """,
)
@data_options
@source_option
@fit_options
@output_options("model", "report")
@scheduler_options
def fit(
    run: Run,
    data: tuple[str, ...],
    source: str | None,
    model: str | None,
    report: str | None,
    force: bool,
    **how: Any,
) -> Exit:
    """Fit, show, write."""
    check_outputs(model, report, force=force)
    gm = _estimator(run, source)
    with computing_where_asked():
        frame = read_frame(run, data, source, **how)
        if frame.npartitions == 1 and source is None and gm.method not in WITHOUT_FILTER:
            run.hint(
                "DATA is one partition; --partitions 8 divides it, --source COLUMN compares values"
            )
        gm.fit(frame)
    warn_of_unread(gm)
    shown = show_partitions(run, gm)
    show_mixture(run, gm)
    files = write_files(gm, model, report)
    show_written(run, files)
    n_excluded = int((~gm.support_).sum())
    return run.finish(
        n_excluded,
        **shown,
        **mixture_values(gm),
        mean_log_likelihood=gm.lower_bound_,
        files=files,
    )


def _estimator(run: Run, source: str | None) -> GaussianMixture:
    """An estimator with the parameters that were given; the table of the excluded takes the place of its warnings."""
    return GaussianMixture(
        **given_parameters(), source=source, verbose=run.verbose, **SHOWN_OTHERWISE
    )


def _numbers(ctx: click.Context, parameter: click.Parameter, text: str) -> list[int]:
    """``1-10`` or ``2,4,8`` as numbers."""
    found: list[int] = []
    for part in text.split(","):
        first, is_range, last = part.partition("-")
        try:
            found += range(int(first), int(last) + 1) if is_range else [int(first)]
        except ValueError:
            raise click.BadParameter(
                f"expected numbers like 1-10 or 2,4,8; got {text!r}."
            ) from None
    return found


def _without_components(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a fit without those that a selection chooses."""
    chosen = {"n_components", "covariance_type"}
    return parameter_options(n for n in PARAMETERS if n not in WITHOUT_OPTION | chosen)(function)


@command(
    "select",
    """Choose the number of components of a mixture of DATA, on the partitions that are consistent.

    All candidates are fitted in one read of the data and compared in a second one, on the same rows.

    \b
    Examples:
      dask-dfmr select plates/*.parquet -k 1-8
      dask-dfmr select plates/ -k 2,4,8 --structures full,diag --criterion icl --model plates.model
    """,
)
@data_options
@source_option
@click.option(
    "-k",
    "--components",
    "numbers",
    default="1-10",
    show_default=True,
    callback=_numbers,
    metavar="RANGE",
    help="Numbers of components, like 1-10 or 2,4,8.",
)
@click.option(
    "--structures",
    default="full",
    show_default=True,
    metavar="A,B,...",
    help="Structures of the covariances: full, tied, diag, spherical.",
)
@click.option(
    "--criterion",
    type=click.Choice(sorted(CRITERIA)),
    default="bic",
    show_default=True,
    help="What decides.",
)
@_without_components
@output_options("model")
@scheduler_options
def select(
    run: Run,
    data: tuple[str, ...],
    numbers: list[int],
    structures: str,
    criterion: Any,
    model: str | None,
    force: bool,
    **how: Any,
) -> Exit:
    """Select, show, write."""
    check_output(model, force)
    if not numbers:
        raise CommandError(Exit.USAGE, "-k must name at least one number of components.")
    with computing_where_asked():
        frame = read_frame(run, data, **how)
        kinds = [kind.strip() for kind in structures.split(",")]
        found = select_components(
            _estimator(run, how["source"]), frame, numbers, kinds, criterion=criterion
        )
    warn_of_unread(found.estimator)
    n_kept, n_partitions = int(found.kept.sum()), len(found.kept)
    table = found.table
    run.say(
        f"selected {found.n_components} components, {found.covariance_type!r}, by {criterion}, "
        f"on {n_kept} of {n_partitions} partitions\n"
    )
    names = ["n_components", "covariance_type", *("bic", "icl", "aic", "held_out"), "n_excluded"]
    run.table(
        table[names].assign(selected=["*" if i == found.best else "" for i in range(len(table))])
    )
    excluded = excluded_table(found.partition_report.assign(kept=found.kept))
    run.say("")
    run.table(shown_excluded(excluded))
    files = write_files(found.estimator, model)
    show_written(run, files)
    return run.finish(
        n_partitions - n_kept,
        excluded=excluded,
        n_components=found.n_components,
        covariance_type=found.covariance_type,
        criterion=criterion,
        n_kept=n_kept,
        n_partitions=n_partitions,
        candidates=table,
        files=files,
    )
