"""The paper's measures of a mixture: W1 to the truth, agreement of labels, and likelihood of held-out rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.metrics import adjusted_rand_score

from dask_dfmr import Mixture, mixing_distance
from paper.methods import Result
from paper.populations import Labeled


def measure(
    result: Result, oracle: Mixture, truth: Mixture, test: Labeled, is_bad: np.ndarray
) -> dict[str, Any]:
    """The measures by name, and the shares of honest and of bad machines that were kept (None without a decision)."""
    kept = result.kept
    return {
        "method": result.method,
        "w1": mixing_distance(result.mixture, truth),
        "from_oracle": mixing_distance(result.mixture, oracle),
        "ari": float(adjusted_rand_score(test.labels, result.mixture.predict(test.rows))),
        "log_likelihood": result.mixture.score(test.rows),
        "honest_kept": None if kept is None else float(kept[~is_bad].mean()),
        "bad_kept": None if kept is None or not is_bad.any() else float(kept[is_bad].mean()),
        "seconds": None if np.isnan(result.seconds) else result.seconds,
    }
