"""Commands that use a model: ``score``, ``predict`` and ``explain``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import click

from dask_dfmr.cli.exits import CommandError, Exit, exit_of
from dask_dfmr.cli.fitting import read_frame
from dask_dfmr.cli.options import (
    computing_where_asked,
    data_options,
    optional_data_options,
    scheduler_options,
)
from dask_dfmr.cli.run import (
    Run,
    check_folder,
    check_output,
    command,
    replacing,
    without_shared_folder,
    writing,
)
from dask_dfmr.estimator import GaussianMixture
from dask_dfmr.mixtures.gaussian import Mixture

LABEL_COLUMN, DENSITY = "component", "log_density"
"""Columns that ``predict`` adds."""


def load(path: str) -> GaussianMixture:
    """The model of a file: of ``fit``, of ``aggregate``, or a mixture alone in JSON.

    Raises
    ------
    CommandError
        If it is no such file, or cannot be read.
    """
    if not Path(path).is_file():
        raise CommandError(Exit.NO_INPUT, f"MODEL {path!r} is no file.")
    with Path(path).open("rb") as file:
        is_mixture = file.read(64).lstrip()[:1] == b"{"
    try:
        if is_mixture:
            return GaussianMixture.from_mixture(Mixture.load(path))
        return GaussianMixture.load(path)
    except ValueError as error:
        raise CommandError(Exit.DATA, f"MODEL {path!r} cannot be used: {error}") from error


def rows_of_model(
    run: Run, gm: GaussianMixture, data: tuple[str, ...], source: str | None = None, **how: Any
) -> Any:
    """The rows of DATA in the columns of a model, by their names if it has names."""
    names = gm.mixture_.feature_names
    if not how["columns"] and names is not None:
        # One by one: a name may hold commas.
        how["columns"] = tuple(map(str, names))
    return read_frame(run, data, source, **how)


@contextmanager
def needing_all_rows() -> Iterator[None]:
    """A command that needs the rows of every file. The error of a reader hardly ever names the file, but a check does.

    Raises
    ------
    CommandError
        If a file cannot be read, or has other columns or values than the model needs.
    """
    try:
        yield
    except (ValueError, TypeError, LookupError) as error:
        _, text = exit_of(error)
        if isinstance(error, LookupError):  # that of a reader which does not find a column
            text = f"{type(error).__name__}: {error}"
        raise CommandError(
            Exit.DATA,
            f"{text.strip().rstrip('.')}. 'dask-dfmr check' with the same MODEL and DATA says which files cannot be "
            "used.",
        ) from error


def refuse_to_overwrite(columns: Iterable[Any], added: Iterable[str]) -> None:
    """Raise a CommandError if DATA have a column of a name that ``predict`` would add."""
    clashes = sorted(set(map(str, columns)).intersection(added))
    if clashes:
        names = ", ".join(map(repr, clashes))
        raise CommandError(
            Exit.DATA,
            f"predict would overwrite the column{'s' * (len(clashes) > 1)} {names} of DATA; give the columns that it "
            "adds other names, for example with --prefix model_.",
        )


def _text(source: Any) -> str | None:
    return None if source is None else str(source)


@command(
    "score",
    """Mean log-likelihood of the rows of DATA under MODEL, in nats per row; the higher, the better.

    \b
    Example:
      dask-dfmr score plates.model new/*.parquet
    """,
)
@click.argument("model")
@data_options
@scheduler_options
def score(
    run: Run,
    model: str,
    data: tuple[str, ...],
    **how: Any,
) -> Exit:
    """Score all rows."""
    gm = load(model)
    with computing_where_asked(), needing_all_rows():
        frame = rows_of_model(run, gm, data, **how)
        found = gm.score(frame, rows="all")
    run.say(f"{found:.6g} nats per row")
    return run.finish(mean_log_likelihood=found, n_partitions=frame.npartitions)


@command(
    "predict",
    """Label the rows of DATA with the most probable component of MODEL, and write them to a folder or file.

    The output has the columns of the data, and two more: "component" and "log_density". With --proba it has
    "component_0", "component_1" and so on, too. A column of the data is never overwritten. A folder gets one parquet
    file per partition; a name that ends in .csv gets one file of text.

    \b
    Examples:
      dask-dfmr predict plates.model new/ --out labels
      dask-dfmr predict plates.model new.csv --out labels.csv --proba
    """,
)
@click.argument("model")
@data_options
@click.option("--out", required=True, metavar="PATH", help="Folder, or file that ends in .csv.")
@click.option("--proba", is_flag=True, help="Write the probability of each component, too.")
@click.option(
    "--prefix", default="", metavar="TEXT", help="Begin the names of the added columns with TEXT."
)
@click.option("--force", is_flag=True, help="Replace an output that exists.")
@scheduler_options
def predict(
    run: Run,
    model: str,
    data: tuple[str, ...],
    out: str,
    proba: bool,
    prefix: str,
    force: bool,
    **how: Any,
) -> Exit:
    """Label rows, and write them."""
    check_output(out, force, may_be_folder=True)
    check_folder(out)
    gm = load(model)
    with computing_where_asked(), needing_all_rows():
        frame = rows_of_model(run, gm, data, keeps_others=True, **how)
        rows = frame[list(gm.mixture_.feature_names or how["columns"] or frame.columns)]
        added: dict[str, Any] = {LABEL_COLUMN: gm.predict(rows), DENSITY: gm.score_samples(rows)}
        if proba:
            shares: Any = gm.predict_proba(rows)  # of a Dask frame: a frame
            added |= {name: shares[name] for name in shares.columns}
        added = {prefix + name: values for name, values in added.items()}
        refuse_to_overwrite(frame.columns, added)
        labelled = frame.assign(**added)
        with replacing(out) as path:
            if out.endswith(".csv"):
                labelled.to_csv(path, single_file=True, index=False)
            else:
                labelled.to_parquet(path, write_index=False)
    run.say(f"wrote {out}")
    columns = [str(name) for name in labelled.columns]
    return run.finish(out=out, columns=columns, n_partitions=frame.npartitions)


@command(
    "explain",
    """Explain why partitions were excluded from MODEL, and which have too many rows that belong nowhere.

    With DATA, the files of the fit, the partitions in question are read and fitted again: a fit of correct rows may
    have ended in another optimum.

    \b
    Examples:
      dask-dfmr explain plates.model
      dask-dfmr explain plates.model plates/*.parquet
      dask-dfmr explain plates.model --all --json
    """,
)
@click.argument("model")
@optional_data_options
@click.option("--all", "is_all", is_flag=True, help="Explain all kept partitions, too.")
@scheduler_options
def explain(
    run: Run,
    model: str,
    data: tuple[str, ...],
    is_all: bool,
    **how: Any,
) -> Exit:
    """Show the explanations."""
    gm = load(model)
    which: Literal["all", "unusual"] = "all" if is_all else "unusual"
    if data:
        gm.set_params(verbose=run.verbose)
        with computing_where_asked():
            found = gm.explain(rows_of_model(run, gm, data, _text(gm.source), **how), which)
    else:
        found = gm.explain(which=which)
    if not len(found):
        run.say(
            "no partition that has an estimate was excluded, and none has too many rows that belong nowhere"
        )
    names = ["partition", "source", "kind", "finding"]
    run.table(found[names].assign(source=without_shared_folder(found["source"])))
    return run.finish(partitions=found)


@command(
    "report",
    """Write a page about MODEL: one HTML file that loads nothing from anywhere.

    It has the verdict, the explanations, the mixture, pictures and a table of all partitions. With DATA, the pictures
    show rows behind the components.

    \b
    Examples:
      dask-dfmr report plates.model --out plates.html
      dask-dfmr report plates.model plates/*.parquet --out plates.html --title "Plates of May"
    """,
)
@click.argument("model")
@optional_data_options
@click.option("--out", required=True, metavar="FILE", help="File to write the page to.")
@click.option("--title", metavar="TEXT", help="Heading of the page.")
@click.option("--force", is_flag=True, help="Replace a file that exists.")
@scheduler_options
def report(
    run: Run,
    model: str,
    data: tuple[str, ...],
    out: str,
    title: str | None,
    force: bool,
    **how: Any,
) -> Exit:
    """Write the page."""
    check_output(out, force)
    gm = load(model)
    with computing_where_asked():
        rows = rows_of_model(run, gm, data, _text(gm.source), **how) if data else None
        with writing(out):
            gm.report(out, rows, title=title)
    run.say(f"wrote {out}")
    return run.finish(out=out, n_partitions=gm.n_partitions_)
