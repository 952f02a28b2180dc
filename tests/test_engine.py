"""Which engine runs, what selects it, and the line in the log that names it."""

import logging
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from numba.core import errors

from dask_dfmr import fit_local
from dask_dfmr.mixtures import engine
from dask_dfmr.mixtures.compiled import kernels, lanes

ROWS = np.random.default_rng(0).normal(size=(200, 2))


def run_python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def without_numba(monkeypatch):
    monkeypatch.setattr(engine, "find_spec", lambda name: None)


def test_numba_is_taken_where_it_is_installed():
    with engine.use("auto"):
        assert engine.name() == "numba"


def test_without_numba_numpy_is_taken(monkeypatch, caplog):
    without_numba(monkeypatch)
    with caplog.at_level(logging.INFO, "dask_dfmr"), engine.use("auto"):
        assert engine.name() == "numpy"
    assert [r.getMessage() for r in caplog.records] == ["engine: NumPy (numba is not installed)"]


def test_one_line_says_which(caplog):
    with caplog.at_level(logging.INFO, "dask_dfmr"), engine.use("numba"):
        for _ in range(3):
            engine.compiled()
    (record,) = caplog.records
    assert record.getMessage().startswith("engine: numba ")
    assert "lanes of float64" in record.getMessage()


def test_asked_for_and_not_there(monkeypatch):
    before = engine.name()
    without_numba(monkeypatch)
    with (
        pytest.raises(ImportError, match=r"pip install 'dask-dfmr\[fast\]'"),
        engine.use("numba"),
    ):
        pass
    assert engine.name() == before


@pytest.fixture(params=["no import", "other internals", "no compilation", "other results"])
def unusable_numba(request, monkeypatch):
    """A numba that cannot run the kernels, for each of the reasons that there may be; yields the message."""

    def refuse(error):
        def function(*args):
            raise error

        return function

    if request.param == "no import":
        error = ImportError("Numba needs NumPy 1.0 or less. Got NumPy 2.4.")
        monkeypatch.setattr(engine.importlib, "import_module", refuse(error))
    elif request.param == "other internals":
        error = AttributeError("module 'numba.core.cgutils' has no attribute 'get_or_insert'")
        monkeypatch.setattr(engine.importlib, "import_module", refuse(error))
    elif request.param == "no compilation":
        error = errors.LoweringError("Failed in nopython mode pipeline")
        monkeypatch.setattr(kernels, "check_lanes", refuse(error))
    else:
        error = ArithmeticError("compiled vectors do not compute what NumPy computes")
        monkeypatch.setattr(lanes.np, "allclose", lambda *args, **kwargs: False)
    return str(error).splitlines()[0]


def test_kernels_that_cannot_be_compiled_leave_numpy_and_a_warning(unusable_numba, caplog):
    with caplog.at_level(logging.INFO, "dask_dfmr"), engine.use("auto"):
        assert engine.name() == "numpy"
        assert fit_local(ROWS, 2, random_state=0).is_usable
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "the kernels cannot be compiled with it" in record.getMessage()
    assert unusable_numba in record.getMessage()


def test_kernels_that_cannot_be_compiled_and_were_requested(unusable_numba):
    with pytest.raises(Exception, match=re.escape(unusable_numba)), engine.use("numba"):
        pass


OTHER_NUMBA = """
import logging, sys
logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message)s")
from numba.core import cgutils
del cgutils.get_or_insert_function
import numpy as np
from dask_dfmr import fit_local
rows = np.random.default_rng(0).normal(size=(200, 2))
print(fit_local(rows, 2, random_state=0).outcome)
"""


def test_a_numba_without_a_function_that_the_lanes_use(tmp_path):
    """A release of numba whose internals differ: fits go on with NumPy, as the log says."""
    run = run_python(OTHER_NUMBA, NUMBA_CACHE_DIR=str(tmp_path), DASK_DFMR_ENGINE="auto")
    first, *_, last = run.stdout.splitlines()
    assert first.startswith("WARNING engine: NumPy (numba is installed, but the kernels cannot")
    assert "get_or_insert_function" in run.stdout
    assert last == "fitted"


def test_uses_nest():
    with engine.use("numpy"):
        with engine.use("numba"):
            assert engine.name() == "numba"
        assert engine.name() == "numpy"


def test_an_unknown_engine():
    with pytest.raises(
        ValueError, match="engine must be one of 'auto', 'numba', 'numpy'; got 'gpu'"
    ):
        engine.use("gpu").__enter__()


def test_the_environment_decides_for_a_process():
    code = "from dask_dfmr.mixtures import engine; print(engine.name())"
    assert run_python(code, DASK_DFMR_ENGINE="numpy").stdout == "numpy\n"
    wrong = run_python(code, DASK_DFMR_ENGINE="fortran")
    assert "DASK_DFMR_ENGINE must be one of 'auto', 'numba', 'numpy'; got 'fortran'" in wrong.stderr


def test_importing_the_package_imports_what_is_needed():
    """Nothing before a name is used; the estimator without engine, pictures and other libraries of frames."""
    code = (
        "import sys, dask_dfmr\n"
        "heavy = {'numpy', 'pandas', 'dask', 'distributed', 'sklearn', 'scipy', 'pyarrow'}\n"
        "extras = {'numba', 'matplotlib', 'polars'}\n"
        "print(sorted((heavy | extras) & set(sys.modules)))\n"
        "dask_dfmr.GaussianMixture\n"
        "print(sorted(extras & set(sys.modules)))"
    )
    assert run_python(code).stdout == "[]\n[]\n"


def test_an_empty_environment_variable_decides_nothing():
    run = run_python(
        "from dask_dfmr.mixtures import engine; engine.compiled()", DASK_DFMR_ENGINE=""
    )
    assert not run.stderr
