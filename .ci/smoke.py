"""A fit with the installed package, away from its source tree: ``python .ci/smoke.py``, in an environment with it."""

from importlib.metadata import version
from pathlib import Path

import dask.array as da
import numpy as np

import dask_dfmr
from dask_dfmr import GaussianMixture, Mixture

folder = Path(dask_dfmr.__file__).parent
assert "site-packages" in folder.parts, f"this is not the installed package: {folder}"
assert (folder / "py.typed").exists()
assert dask_dfmr.__version__ == version("dask-dfmr")

rng = np.random.default_rng(0)
rows = rng.permutation(np.concatenate([rng.normal(-4, 1, (4000, 2)), rng.normal(4, 1, (8000, 2))]))
rows[:1000] *= 1000
gm = GaussianMixture(n_components=2, random_state=0, warn_excluded=False).fit(
    da.from_array(rows, chunks=(1000, 2))
)
assert gm.support_.tolist() == [False] + [True] * 11
gm.mixture_.save("mixture.json")
assert Mixture.load("mixture.json") == gm.mixture_
print(f"dask-dfmr {dask_dfmr.__version__}: {gm.explain()['finding'].iloc[0]}")
