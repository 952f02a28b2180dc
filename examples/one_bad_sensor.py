"""One of twenty instruments has a wrong gain, and its rows lie in every file.

A day of a laboratory: one parquet file an hour, in each of them rows of all twenty instruments. Where
files are trusted or left out as a whole, every file is a little bad, none stands out, and the bad
instrument ends up in the mixture without a word. With ``source="instrument"`` the instruments
are, and it is named.

    python examples/one_bad_sensor.py                 # a few seconds; writes to examples/output

The rows are those of ``cytometry.py``, real ones; the instruments and the hours are made up, and one
detector of one instrument is set ten times as high. The fits are measured on rows that are in no file.
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
BAD = "C07"


def write_files(folder: Path) -> pd.DataFrame:
    """Write one file an hour, and return the rows that went into none."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = measured_rows("Mixed").reset_index(drop=True)
    n = N_INSTRUMENTS * ROWS_PER_INSTRUMENT
    day, held_out = rows[:n], rows[n:]
    day = day.assign(instrument=[f"C{i % N_INSTRUMENTS:02d}" for i in range(n)])
    is_bad = day["instrument"] == BAD
    day.loc[is_bad, "B1-A"] = np.arcsinh(10 * np.sinh(day.loc[is_bad, "B1-A"]))
    for hour in range(N_HOURS):
        per_hour = n // N_HOURS
        part = day[hour * per_hour : (hour + 1) * per_hour]
        part.to_parquet(folder / f"hour-{hour:02d}.parquet", index=False)
    return held_out


@dataclass(frozen=True)
class Result:
    """What the example found out; scores are log-likelihoods per held-out row."""

    by_file: GaussianMixture
    by_instrument: GaussianMixture
    file_score: float
    instrument_score: float


def main(arguments: Sequence[str] | None = None) -> Result:
    """Write the files, fit them twice, tell."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=HERE / "output", help="folder to write to")
    folder = parser.parse_args(arguments).output / "hours"
    held_out = write_files(folder)
    n = N_INSTRUMENTS * ROWS_PER_INSTRUMENT
    print(f"{n} rows of {N_INSTRUMENTS} instruments in {N_HOURS} files in {shown(folder)}")

    X = dd.read_parquet(folder)
    by_file = GaussianMixture(5, random_state=0).fit(X[CHANNELS])
    by_instrument = GaussianMixture(5, random_state=0, source="instrument").fit(X)

    print_report("every file is a machine", by_file)
    print_report('source="instrument"', by_instrument)
    result = Result(by_file, by_instrument, by_file.score(held_out), by_instrument.score(held_out))
    print(
        f"\nlog-likelihood per row of {len(held_out)} held-out ones, in nats: the higher, the better"
    )
    print(f"  {result.file_score:.3f}  every file is a machine")
    print(f"  {result.instrument_score:.3f}  every instrument is a machine")
    print(f"\nwhat was done to the data: {BAD} measured B1-A at 10 times the gain")
    return result


def print_report(title: str, gm: GaussianMixture) -> None:
    """Who was left out."""
    report = gm.partition_report_
    print(f"\n{title}: {report['kept'].sum()} of {len(report)} kept")
    for row in report[~report["kept"]].itertuples():
        print(f"  left out: {Path(row.source).name}  {row.reason}")


if __name__ == "__main__":
    main()
