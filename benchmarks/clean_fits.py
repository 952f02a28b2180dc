"""Local estimates of clean partitions, made once and kept in files: several benchmarks corrupt the same ones.

Rows are drawn from a population of the paper's design (:func:`mixsim.paper_population`). Every partition fits its rows
from the shortlist of pilots, as the partitions of a user do, and not from the truth.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from common import draw_rows
from mixsim import paper_population

from dask_dfmr import LocalEstimate, Mixture
from dask_dfmr.local import pilots as pilot
from dask_dfmr.local.fit import LocalProblem
from dask_dfmr.mixtures.gaussian import Gaussian
from dask_dfmr.on_dask.scheduling.threads import single_threaded_blas
from dask_dfmr.on_dask.tasks import FitSettings, fit_rows
from dask_dfmr.seeds import PILOT_DRAW, PILOT_FIT, PILOT_ROWS, PILOT_SEARCH, stream


class Setting(NamedTuple):
    """A population and its partitions, all with the same number of rows."""

    overlap: float
    seed: int
    n_sources: int = 100
    n_components: int = 5
    n_features: int = 10
    n_rows: int = 5000

    @property
    def name(self) -> str:
        """Name of the file without its ending."""
        return (
            f"K{self.n_components}_d{self.n_features}_n{self.n_rows}_m{self.n_sources}"
            f"_o{self.overlap:g}_s{self.seed}"
        )


def clean_fits(setting: Setting, folder: Path) -> tuple[Mixture, list[LocalEstimate]]:
    """The population and the estimates of its partitions; read from the folder, or made and written there."""
    path = folder / f"{setting.name}.npz"
    if not path.exists():
        truth = paper_population(
            setting.n_components, setting.n_features, setting.overlap, setting.seed
        )
        with single_threaded_blas():
            estimates = _fit(truth, setting)
        folder.mkdir(parents=True, exist_ok=True)
        mixtures = [truth, *(e.mixture for e in estimates)]
        arrays = {
            name: np.array([getattr(m, name) for m in mixtures])
            for name in ("weights", "means", "covariances")
        }
        beside = path.with_suffix(".part.npz")
        np.savez(beside, **arrays)
        beside.rename(path)
    with np.load(path) as data:
        stacks = [data[name] for name in ("weights", "means", "covariances")]
        truth, *found = (Mixture(*one) for one in zip(*stacks, strict=True))
    return truth, [LocalEstimate(mixture, setting.n_rows) for mixture in found]


def _fit(truth: Mixture, setting: Setting) -> list[LocalEstimate]:
    seed = np.random.SeedSequence((setting.seed, round(1000 * setting.overlap)))
    problem = LocalProblem(Gaussian("full"), setting.n_components, n_sources=setting.n_sources)
    settings = FitSettings(problem, "pilot", seed)
    rows_seed, *_ = seed.spawn(1)
    rng = np.random.default_rng(rows_seed)
    rows = [draw_rows(truth, setting.n_rows, rng) for _ in range(setting.n_sources)]
    drawn = pilot.draw_pilots(len(rows), stream(seed, PILOT_DRAW))
    pilots = {i: pilot.read_pilot(problem, rows[i], stream(seed, PILOT_ROWS, i)) for i in drawn}
    scale = pilot.pilot_scale(list(pilots.values()))
    fits = [
        pilot.fit_pilot(problem, rows, scale, stream(seed, PILOT_FIT, i))
        for i, rows in pilots.items()
    ]
    shortlist = pilot.make_shortlist(problem, fits, stream(seed, PILOT_SEARCH))
    return [fit_rows(X, None, i, settings, shortlist) for i, X in enumerate(rows)]
