"""Flow cytometry in 25 files, five of them bad, and one fit that the bad ones do not spoil.

The folder looks like one that a user has: parquet files of one measurement, and no name says which
of them are bad. Every file is a partition, every partition fits a mixture to its own rows, and the
fit finds out which ones to leave out. What was done to the files is printed last, to compare.

    python examples/cytometry.py                      # a few seconds; writes to examples/output
    python examples/cytometry.py --output /tmp/cytometry --picture here.png
    python examples/cytometry.py --shuffle 7          # other rows in every file

Where the rows come from (``data/NOTICE.md``): 19,998 honest ones are cut into pieces of 820. Twenty
become a file as they are and three are damaged first; another well and placeholders make 25 files.
The 1,138 rows left over are in no file: the fits are measured on them. Five components describe
these cells well; five is not the true number of anything.
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


def honest(pieces: Pieces) -> pd.DataFrame:
    """Rows as they were measured."""
    return next(pieces)


def another_well(pieces: Pieces) -> pd.DataFrame:
    """Rows of a well with other cells: nothing is wrong with them, but they do not belong here."""
    return measured_rows("YFP A7").head(ROWS_PER_FILE)


def wrong_gain(pieces: Pieces) -> pd.DataFrame:
    """One detector was set ten times as high; the columns are arcsinh(signal)."""
    rows = next(pieces)
    return rows.assign(**{"B1-A": np.arcsinh(10 * np.sinh(rows["B1-A"]))})


def swapped_columns(pieces: Pieces) -> pd.DataFrame:
    """Two columns under each other's name."""
    rows = next(pieces)
    return rows.assign(**{"B1-A": rows["Y2-A"], "Y2-A": rows["B1-A"]})


def placeholders(pieces: Pieces) -> pd.DataFrame:
    """A file of the right shape in which nothing was ever filled in."""
    return pd.DataFrame(np.float32(-999), index=range(ROWS_PER_FILE), columns=CHANNELS)


def missing_values(pieces: Pieces) -> pd.DataFrame:
    """NaN in one column of every twentieth row."""
    rows = next(pieces)
    return rows.assign(**{"V2-A": rows["V2-A"].where(np.arange(len(rows)) % 20 > 0)})


BAD_FILES: dict[int, tuple[str, Callable[[Pieces], pd.DataFrame]]] = {
    3: ("another well", another_well),
    8: ("B1-A at 10 times the gain", wrong_gain),
    14: ("placeholders", placeholders),
    17: ("B1-A and Y2-A swapped", swapped_columns),
    21: ("values missing", missing_values),
}
"""Number of the file -> what is done to it, in words and as a function."""


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
        _, content = BAD_FILES.get(i, ("", honest))
        content(pieces).to_parquet(folder / f"plate-{i:02d}.parquet", index=False)
    return pd.concat(pieces)


# -- the fit -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """What the example found out; scores are log-likelihoods per held-out row."""

    report: pd.DataFrame
    mixture: Mixture
    robust_score: float
    plain_score: float
    honest_score: float


def main(arguments: Sequence[str] | None = None) -> Result:
    """Write the files, fit them, tell, draw."""
    options = parse(arguments)
    folder = options.output / "plates"
    held_out = write_files(folder, options.shuffle)
    print(
        f"{N_FILES} files of {ROWS_PER_FILE} rows in {shown(folder)}; {len(held_out)} rows held out\n"
    )

    plates = dd.read_parquet(folder)[CHANNELS]
    robust = GaussianMixture(n_components=5, random_state=0).fit(plates)
    plain = GaussianMixture(5, random_state=0, method="mr", on_failed="ignore").fit(plates)
    # A yardstick that only this example can have: it knows which files are honest.
    honest_only = [e for i, e in enumerate(robust.estimates_) if i not in BAD_FILES]
    yardstick = aggregate(honest_only, method="mr").mixture

    report = robust.partition_report_
    print_left_out(report)
    result = Result(
        report,
        robust.mixture_,
        robust.score(held_out),
        plain.score(held_out),
        yardstick.score(held_out),
    )
    print("\nlog-likelihood per held-out row, in nats: the higher, the better")
    print(f"  {result.robust_score:.3f}  robust: far files left out")
    print(f"  {result.plain_score:.3f}  plain:  everything that has an estimate")
    print(f"  {result.honest_score:.3f}  if somebody had told us which files are honest")
    print_truth()

    robust.mixture_.save(options.output / "cytometry-mixture.json")
    mixtures = {"robust": robust.mixture_, "plain": plain.mixture_}
    truth = {i: what for i, (what, _) in BAD_FILES.items()}
    draw_picture(options.picture, held_out, mixtures, robust.aggregate_.decision, report, truth)
    print(f"\nwrote {shown(options.output / 'cytometry-mixture.json')}")
    print(f"      {shown(options.picture)}")
    return result


def print_left_out(report: pd.DataFrame) -> None:
    """Who was left out, and why."""
    print(f"{report['kept'].sum()} of {len(report)} files kept; left out:")
    for file in report[~report["kept"]].itertuples():
        print(f"  {Path(file.source).stem}  {file.outcome:<10}  {file.reason}")


def print_truth() -> None:
    """What the fit was not told."""
    print("\nwhat was done to the files")
    for i, (what, _) in BAD_FILES.items():
        print(f"  plate-{i:02d}  {what}")


def shown(path: Path) -> Path:
    """The path as short as it can be."""
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
