"""``check``: whether new files contradict a model."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import click

from dask_dfmr.check_data import check as check_rows
from dask_dfmr.cli.data import Request, each_file, reader_options
from dask_dfmr.cli.exits import Exit
from dask_dfmr.cli.fitting import read_frame, show_ignored
from dask_dfmr.cli.options import checked, computing_where_asked, data_options, scheduler_options
from dask_dfmr.cli.run import Run, command, without_shared_folder, writing
from dask_dfmr.cli.using import load
from dask_dfmr.monitoring.result import CheckResult


@command(
    "check",
    """Check whether new files contradict MODEL, one by one, without a fit.

    Each file is a source and has a verdict: accept, review or quarantine. With --source the rows of each value of a
    column are one. A file that cannot be read, or has other columns, is in quarantine, too.

    \b
    Examples:
      dask-dfmr check plates.model today/*.parquet
      dask-dfmr check plates.model today/ --history checks.jsonl --quiet --json
      dask-dfmr check sensors.model today.csv --source sensor
    """,
)
@click.argument("model")
@data_options
@click.option("--source", metavar="COLUMN", help="The rows of each of its values are a source.")
@click.option(
    "--false-alarm-rate",
    "rate",
    type=click.FloatRange(0, 0.5, min_open=True, max_open=True),
    default=0.001,
    show_default=True,
    metavar="P",
    help="Share of consistent sources that are not accepted.",
)
@click.option("--partition-timeout", "timeout", metavar="TIME", help="Time to give up a source.")
@click.option("--history", metavar="FILE", help="Append a line of JSON for each source.")
@scheduler_options
def check(
    run: Run,
    model: str,
    data: tuple[str, ...],
    source: str | None,
    rate: float,
    timeout: str | None,
    history: str | None,
    **how: Any,
) -> Exit:
    """Check, show, remember."""
    gm = load(model)
    own = source if source is not None else gm.source
    limit = None if timeout is None else checked("partition_timeout", timeout)
    options: dict[str, Any] = {"false_alarm_rate": rate, "partition_timeout": limit}
    if not how["columns"]:
        how["columns"] = tuple(map(str, gm.mixture_.feature_names or ()))
    remembering = nullcontext() if history is None else writing(history)
    with computing_where_asked(), remembering:
        if own is None and how["partitions"] is None:
            request = Request(
                data, how["columns"], None, how["kind"], reader_options(how["reader"])
            )
            parts, names, ignored = each_file(request)
            show_ignored(run, ignored)
            found = check_rows(gm, parts, names=names, history=history, **options)
        else:
            frame = read_frame(run, data, None if own is None else str(own), **how)
            found = check_rows(gm, frame, source=own, history=history, **options)
    return _shown(run, found)


def _shown(run: Run, found: CheckResult) -> Exit:
    """Show the verdicts, the worst ones in full."""
    counts = [f"{n} {verdict}" for verdict, n in found.counts.items() if n]
    run.say(f"{', '.join(counts)} of {len(found.report)} sources")
    others = found.report.loc[found.report["verdict"] != "accept", ["verdict", "source", "reason"]]
    others = others.sort_values("verdict", kind="stable")
    run.table(others.assign(source=without_shared_folder(others["source"])))
    return run.finish(len(others), **found.to_dict())
