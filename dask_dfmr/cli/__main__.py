"""``python -m dask_dfmr.cli`` is ``dask-dfmr``."""

from dask_dfmr.cli.app import run

if __name__ == "__main__":  # a worker process imports this module again
    run()
