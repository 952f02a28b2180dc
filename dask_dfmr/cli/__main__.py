"""``python -m dask_dfmr.cli`` is ``dask-dfmr``."""

from dask_dfmr.cli.app import app

app(prog_name="dask-dfmr")
