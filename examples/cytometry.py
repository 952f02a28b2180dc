"""Flow cytometry in 25 files, five of which are damaged, and one fit that excludes these.

The folder looks like one that a user has: parquet files of one measurement, and no file name shows which files are
damaged. Each file is one partition. Each partition is fitted on its own, and files that are inconsistent with the
majority are excluded. What was done to the files is printed last, for comparison.

    python examples/cytometry.py                      # a few seconds; writes to examples/output
    python examples/cytometry.py --output /tmp/cytometry --picture here.png
    python examples/cytometry.py --shuffle 7          # other rows in every file

The rows are real (``data/NOTICE.md``). 19,998 of them are cut into pieces of 820: twenty pieces become a file as they
are, and three are damaged first. One file of another well and one of placeholders make 25. The 1,138 rows that remain
are in no file; the fits are measured on them. Five components describe these cells well; five is not the true number of
anything.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import dask.dataframe as dd
import numpy as np
import pandas as pd
from cytometry_picture import draw_picture

from dask_dfmr import GaussianMixture, Mixture, aggregate

HERE = Path(__file__).resolve().parent
CHANNELS = ["FSC-A", "SSC-A", "V2-A", "Y2-A", "B1-A"]
N_FILES, ROWS_PER_FILE = 25, 820


# -- the folder that a user already has ----------------------------------------------------------

Pieces = Iterator[pd.DataFrame]


def undamaged(pieces: Pieces) -> pd.DataFrame:
    """Rows as they were measured."""
    return next(pieces)


def another_well(pieces: Pieces) -> pd.DataFrame:
    """Rows of a well with other cells: each is right, but they are not of this population."""
    return measured_rows("YFP A7").head(ROWS_PER_FILE)


def wrong_gain(pieces: Pieces) -> pd.DataFrame:
    """One detector was set ten times as high; the columns are arcsinh(signal)."""
    rows = next(pieces)
    return rows.assign(**{"B1-A": np.arcsinh(10 * np.sinh(rows["B1-A"]))})


def swapped_columns(pieces: Pieces) -> pd.DataFrame:
    """Two columns, each under the name of the other."""
    rows = next(pieces)
    return rows.assign(**{"B1-A": rows["Y2-A"], "Y2-A": rows["B1-A"]})


def placeholders(pieces: Pieces) -> pd.DataFrame:
    """A file of the right shape that contains only placeholders."""
    return pd.DataFrame(np.float32(-999), index=range(ROWS_PER_FILE), columns=CHANNELS)


def missing_values(pieces: Pieces) -> pd.DataFrame:
    """NaN in one column of every twentieth row."""
    rows = next(pieces)
    return rows.assign(**{"V2-A": rows["V2-A"].where(np.arange(len(rows)) % 20 > 0)})


DAMAGED: dict[int, tuple[str, Callable[[Pieces], pd.DataFrame]]] = {
    3: ("another well", another_well),
    8: ("B1-A at 10 times the gain", wrong_gain),
    14: ("placeholders", placeholders),
    17: ("B1-A and Y2-A swapped", swapped_columns),
    21: ("values missing", missing_values),
}
"""By number of the file: what is done to it, in words and as a function."""


def measured_rows(well: str) -> pd.DataFrame:
    """The rows of all wells whose name begins like this, in random order."""
    table = pd.read_parquet(HERE / "data" / "cytometry.parquet")
    return table.loc[table["well"].str.startswith(well), CHANNELS]


def write_files(folder: Path, shuffle: int | None = None) -> pd.DataFrame:
    """Write the 25 files, and return the rows that went into none."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = measured_rows("Mixed")
    if shuffle is not None:
        rows = rows.sample(frac=1, random_state=shuffle)
    pieces = (rows[i : i + ROWS_PER_FILE] for i in range(0, len(rows), ROWS_PER_FILE))
    for i in range(N_FILES):
        _, content = DAMAGED.get(i, ("", undamaged))
        content(pieces).to_parquet(folder / f"plate-{i:02d}.parquet", index=False)
    return pd.concat(pieces)


# -- the fit -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """The report and the robust mixture; scores are mean log-likelihoods in nats per held-out row."""

    report: pd.DataFrame
    mixture: Mixture
    robust_score: float
    plain_score: float
    oracle_score: float


def main(arguments: Sequence[str] | None = None) -> Result:
    """Write the files, fit them, print the result and draw it."""
    options = parse(arguments)
    folder = options.output / "plates"
    held_out = write_files(folder, options.shuffle)
    print(
        f"{N_FILES} files of {ROWS_PER_FILE} rows in {shown(folder)}; {len(held_out)} rows held out\n"
    )

    plates = dd.read_parquet(folder)[CHANNELS]
    robust = GaussianMixture(n_components=5, random_state=0).fit(plates)
    plain = GaussianMixture(5, random_state=0, method="mr", on_failed="ignore").fit(plates)
    # The oracle exists only where the damage is known.
    of_undamaged = [e for i, e in enumerate(robust.estimates_) if i not in DAMAGED]
    oracle = aggregate(of_undamaged, method="mr").mixture

    report = robust.partition_report_
    print_excluded(report)
    result = Result(
        report,
        robust.mixture_,
        robust.score(held_out),
        plain.score(held_out),
        oracle.score(held_out),
    )
    print("\nlog-likelihood per held-out row, in nats: the higher, the better")
    print(f"  {result.robust_score:.3f}  robust: inconsistent files excluded")
    print(f"  {result.plain_score:.3f}  plain:  every file that has an estimate")
    print(f"  {result.oracle_score:.3f}  oracle: only the undamaged files")
    print_truth()

    robust.mixture_.save(options.output / "cytometry-mixture.json")
    truth = {i: what for i, (what, _) in DAMAGED.items()}
    draw_picture(options.picture, held_out, robust, plain, truth)
    print(f"\nwrote {shown(options.output / 'cytometry-mixture.json')}")
    print(f"      {shown(options.picture)}")
    return result


def print_excluded(report: pd.DataFrame) -> None:
    """Print which files were excluded, and why."""
    print(f"{report['kept'].sum()} of {len(report)} files kept; excluded:")
    for file in report[~report["kept"]].itertuples():
        print(f"  {Path(file.source).stem}  {file.outcome:<10}  {file.reason}")


def print_truth() -> None:
    """Print the damage, which no fit has as input."""
    print("\nwhat was done to the files")
    for i, (what, _) in DAMAGED.items():
        print(f"  plate-{i:02d}  {what}")


def shown(path: Path) -> Path:
    """The path relative to the current folder, if it is inside it."""
    path, here = path.resolve(), Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=HERE / "output", help="folder to write to")
    parser.add_argument("--picture", type=Path, help="default: cytometry.png in the output folder")
    parser.add_argument("--shuffle", type=int, metavar="SEED", help="other rows in every file")
    options = parser.parse_args(arguments)
    options.picture = options.picture or options.output / "cytometry.png"
    return options


if __name__ == "__main__":
    main()
