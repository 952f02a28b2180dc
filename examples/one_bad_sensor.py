"""One of twenty instruments has a wrong gain, and its rows lie in every file.

A day of a laboratory gives one parquet file an hour, with rows of all twenty instruments in each. If the files are the
sources, each of them is slightly wrong and none stands out. The wrong instrument is then part of the mixture, and no
warning is given. With ``source="instrument"`` it is excluded and named.

    python examples/one_bad_sensor.py                 # a few seconds; writes to examples/output

The rows are those of ``cytometry.py``, which are real. The instruments and the hours are made up, and one detector of
one instrument has ten times the gain. The fits are measured on rows that are in no file.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import dask.dataframe as dd
import numpy as np
import pandas as pd
from cytometry import CHANNELS, HERE, measured_rows, shown

from dask_dfmr import GaussianMixture

N_HOURS, N_INSTRUMENTS, ROWS_PER_INSTRUMENT = 20, 20, 900
WRONG = "C07"


def write_files(folder: Path) -> pd.DataFrame:
    """Write one file an hour, and return the rows that went into none."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = measured_rows("Mixed").sample(frac=1.0, random_state=0, ignore_index=True)
    n = N_INSTRUMENTS * ROWS_PER_INSTRUMENT
    day, held_out = rows[:n], rows[n:]
    day = day.assign(instrument=[f"C{i % N_INSTRUMENTS:02d}" for i in range(n)])
    is_wrong = day["instrument"] == WRONG
    day.loc[is_wrong, "B1-A"] = np.arcsinh(10 * np.sinh(day.loc[is_wrong, "B1-A"]))
    for hour in range(N_HOURS):
        per_hour = n // N_HOURS
        part = day[hour * per_hour : (hour + 1) * per_hour]
        part.to_parquet(folder / f"hour-{hour:02d}.parquet", index=False)
    return held_out


@dataclass(frozen=True)
class Result:
    """Both fits; scores are mean log-likelihoods in nats per held-out row."""

    by_file: GaussianMixture
    by_instrument: GaussianMixture
    file_score: float
    instrument_score: float


def main(arguments: Sequence[str] | None = None) -> Result:
    """Write the files, fit them twice and print the results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=HERE / "output", help="folder to write to")
    folder = parser.parse_args(arguments).output / "hours"
    held_out = write_files(folder)
    n = N_INSTRUMENTS * ROWS_PER_INSTRUMENT
    print(f"{n} rows of {N_INSTRUMENTS} instruments in {N_HOURS} files in {shown(folder)}")

    X = dd.read_parquet(folder)
    # The reports below say what is excluded.
    settings = {"n_components": 5, "random_state": 0, "warn_excluded": False}
    by_file = GaussianMixture(**settings).fit(X[CHANNELS])
    by_instrument = GaussianMixture(**settings, source="instrument").fit(X)

    print_report("each file is a source", by_file)
    print_report('source="instrument"', by_instrument)
    result = Result(by_file, by_instrument, by_file.score(held_out), by_instrument.score(held_out))
    print(
        f"\nlog-likelihood per row of {len(held_out)} held-out ones, in nats: the higher, the better"
    )
    print(f"  {result.file_score:.3f}  each file is a source")
    print(f"  {result.instrument_score:.3f}  each instrument is a source")
    print(f"\nwhat was done to the data: {WRONG} measured B1-A at 10 times the gain")
    return result


def print_report(title: str, gm: GaussianMixture) -> None:
    """Print which sources were excluded."""
    report = gm.partition_report_
    print(f"\n{title}: {report['kept'].sum()} of {len(report)} kept")
    for row in report[~report["kept"]].itertuples():
        print(f"  excluded: {Path(row.source).name}  {row.reason}")


if __name__ == "__main__":
    main()
