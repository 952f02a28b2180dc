"""Which engine runs: who decides, and that it is said."""

import logging
import os
import subprocess
import sys

import pytest

from dask_dfmr.mixtures import engine


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


def broken_numba(monkeypatch):
    def refuse(name):
        raise ImportError("Numba needs NumPy 1.0 or less. Got NumPy 2.4.")

    monkeypatch.setattr(engine.importlib, "import_module", refuse)


def test_a_numba_that_does_not_work_is_said_and_done_without(monkeypatch, caplog):
    broken_numba(monkeypatch)
    with caplog.at_level(logging.INFO, "dask_dfmr"), engine.use("auto"):
        assert engine.name() == "numpy"
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "cannot be imported: Numba needs NumPy 1.0 or less" in record.getMessage()


def test_a_numba_that_does_not_work_and_was_asked_for(monkeypatch):
    broken_numba(monkeypatch)
    with pytest.raises(ImportError, match="Numba needs NumPy"), engine.use("numba"):
        pass


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


def test_importing_the_package_does_not_import_numba():
    code = "import sys, dask_dfmr; print('numba' in sys.modules)"
    assert run_python(code).stdout == "False\n"
