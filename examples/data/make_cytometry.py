"""Make ``cytometry.parquet``, the real data of the examples, from wells that ship with a package.

Run once, by a maintainer. The wells are FCS files in the tests of the package FlowCytometryTools
0.5.1 (MIT licence, see ``NOTICE.md``); flowio 1.4.0 (BSD) reads them. FlowCytometryTools need not
be importable, only its files are wanted, and flowio needs numpy only, so both go without their
dependencies into an environment that has numpy, pandas and pyarrow::

    pip install --no-deps FlowCytometryTools==0.5.1 flowio==1.4.0
    python examples/data/make_cytometry.py

What is done to the events of each well:

1. The five channels of ``CHANNELS`` are taken as they are in the file: linear, not compensated, no
   gate.
2. Events at the upper limit of a detector in any of them ("saturated") are omitted; their number is
   printed. There is no pile-up elsewhere: values below zero are noise round the baseline, not
   clipped, and stay.
3. The transform is arcsinh(x / COFACTOR).
4. A random sample of at most so many events as ``WELLS`` says remains.
5. The rows of all wells are shuffled together, so that any run of rows of a well, or of several
   wells, is a random sample of them.

The columns are ``well`` (string) and the channels (float32). The same seed gives the same table;
``RandomState`` promises the same stream in every version of numpy.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import flowio
import numpy as np
import pandas as pd

SEED = 20260101
COFACTOR = 150.0
CHANNELS = ("FSC-A", "SSC-A", "V2-A", "Y2-A", "B1-A")

WELLS: dict[str, tuple[str, int | None]] = {
    "Mixed H3": ("Plate02/Mixed_Well_H3.001.fcs", None),
    "Mixed H7": ("Plate02/Mixed_Well_H7.001.fcs", None),
    "YFP A7": ("Plate01/YFP_Well_A7.fcs", 2000),
}
"""Name of a well -> its file below ``tests/data``, and how many events to keep at most (None: all)."""

TARGET = Path(__file__).resolve().with_name("cytometry.parquet")


def wells_folder() -> Path:
    """Where the installed package FlowCytometryTools has its wells; the package is not imported."""
    spec = importlib.util.find_spec("FlowCytometryTools")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(
            "FlowCytometryTools is not installed: pip install --no-deps FlowCytometryTools==0.5.1"
        )
    return Path(spec.submodule_search_locations[0]) / "tests" / "data"


def read_well(path: Path) -> tuple[pd.DataFrame, pd.Series]:
    """The channels of all events of a well in the detectors' linear units, and the upper limit of each channel."""
    data = flowio.FlowData(str(path))
    events = pd.DataFrame(data.as_array(preprocess=False), columns=data.pnn_labels)
    limits = pd.Series(
        {label: float(data.text[f"p{i}r"]) for i, label in enumerate(data.pnn_labels, start=1)}
    )
    return events[list(CHANNELS)], limits[list(CHANNELS)]


def omit_saturated(events: pd.DataFrame, limits: pd.Series, well: str) -> pd.DataFrame:
    """The events below the upper limit of every channel; prints what is omitted."""
    if not np.isfinite(events.to_numpy()).all():
        raise SystemExit(f"{well}: the file holds NaN or infinity")
    saturated = (
        events >= limits - 1.0
    )  # some detectors stop a fraction of a unit short of their limit
    omitted = saturated.any(axis=1)
    per_channel = ", ".join(
        f"{count} at the limit of {channel}" for channel, count in saturated.sum().items() if count
    )
    print(
        f"{well}: {len(events)} events, {omitted.sum()} saturated and omitted ({per_channel or 'none at a limit'})"
    )
    return events[~omitted]


def make_table() -> pd.DataFrame:
    """All wells as one table, in random order."""
    random = np.random.RandomState(SEED)
    folder = wells_folder()
    tables = []
    for well, (file, n_rows) in WELLS.items():
        events = omit_saturated(*read_well(folder / file), well)
        chosen = random.permutation(len(events))[:n_rows]
        values = np.arcsinh(events.to_numpy(dtype=np.float64)[chosen] / COFACTOR).astype(np.float32)
        table = pd.DataFrame(values, columns=list(CHANNELS))
        table.insert(0, "well", well)
        print(f"{well}: {len(table)} of {len(events)} kept by the sampling")
        tables.append(table)
    table = pd.concat(tables, ignore_index=True)
    return table.iloc[random.permutation(len(table))].reset_index(drop=True)


def main() -> None:
    """Write the table."""
    table = make_table()
    table.to_parquet(TARGET, index=False, compression="zstd")
    print(f"{TARGET.name}: {len(table)} rows, {TARGET.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
