"""The default tests of evidently on the sources that ``checks.py`` wrote; it runs in an environment of its own.

    python -m venv DIR && DIR/bin/pip install evidently "pandas<3"
    python benchmarks/checks.py --evidently DIR/bin/python

It needs evidently and nothing of this repository. An alarm is a failed test of the preset ``DataDriftPreset``: of one
column ("any column"), or of the share of columns that drifted ("data set").
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd


def main(folder: str) -> None:
    """Print the alarms of each file as JSON."""
    from evidently import Report
    from evidently.presets import DataDriftPreset

    def as_frame(rows: np.ndarray) -> pd.DataFrame:
        return pd.DataFrame(rows, columns=[f"x{j}" for j in range(rows.shape[1])])

    found = {}
    for path in sorted(Path(folder).glob("*.npz")):
        with np.load(path) as data:
            reference, sources = as_frame(data["reference"]), data["sources"]
        alarms = {"any column": 0, "data set": 0, "sources": len(sources)}
        for rows in sources:
            report = Report([DataDriftPreset()], include_tests=True)
            tests = report.run(as_frame(rows), reference).dict()["tests"]
            failed = [test["name"] for test in tests if "FAIL" in str(test["status"])]
            alarms["data set"] += any("Share" in name for name in failed)
            alarms["any column"] += any("Share" not in name for name in failed)
        found[path.stem] = alarms
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
