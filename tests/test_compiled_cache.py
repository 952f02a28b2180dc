"""What the cache of compiled kernels holds, and what is done if it cannot be read or written."""

import ast
import importlib.util
import logging
from pathlib import Path

import pytest

from dask_dfmr.mixtures.compiled import compiling

KERNEL = """
from dask_dfmr.mixtures.compiled.compiling import jit
FACTOR = {factor}

@jit
def scaled(x):
    return FACTOR * x
"""


@pytest.fixture(autouse=True)
def beside_the_sources(monkeypatch):
    monkeypatch.setattr("numba.core.config.CACHE_DIR", "")


@pytest.fixture
def kernel(tmp_path):
    """Loads a module with one kernel anew, as another process would."""
    path = tmp_path / "kernel.py"
    path.write_text(KERNEL.format(factor=3.0))

    def load():
        spec = importlib.util.spec_from_file_location("kernel", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.scaled

    return load


def cached(tmp_path, suffix):
    return sorted((tmp_path / "__pycache__").glob(f"*.{suffix}"))


def n_loaded(kernel):
    return sum(kernel.stats.cache_hits.values())


def test_another_process_loads_the_kernel(kernel, tmp_path):
    assert kernel()(2.0) == 6.0
    again = kernel()
    assert again(2.0) == 6.0
    assert n_loaded(again) == 1
    assert len(cached(tmp_path, "nbc")) == 1


def test_kernels_of_other_sources_are_not_loaded(kernel, tmp_path, monkeypatch):
    kernel()(2.0)
    monkeypatch.setattr(compiling, "FINGERPRINT", "of-another-release")
    other = kernel()
    assert other(2.0) == 6.0
    assert n_loaded(other) == 0
    assert any("of-another-release" in path.name for path in cached(tmp_path, "nbi"))


def test_the_fingerprint_is_of_all_files_that_kernels_are_made_of():
    folder = Path(compiling.__file__).parent
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("dask_dfmr"):
                for name in [node.module, *(f"{node.module}.{one.name}" for one in node.names)]:
                    spec = _spec(name)
                    if spec is not None and not spec.submodule_search_locations:
                        assert Path(spec.origin) in compiling.SOURCES, f"{path.name} imports {name}"


def _spec(name):
    try:
        return importlib.util.find_spec(name)
    except ModuleNotFoundError:  # a name in a module
        return None


@pytest.mark.parametrize("suffix", ["nbc", "nbi"])
@pytest.mark.parametrize("damage", [b"", b"\x80\x04 cut off"])
def test_a_damaged_file_is_compiled_anew(kernel, tmp_path, suffix, damage, caplog):
    kernel()(2.0)
    for path in cached(tmp_path, suffix):
        path.write_bytes(damage)
    with caplog.at_level(logging.INFO, "dask_dfmr"):
        assert kernel()(2.0) == 6.0
    assert "cannot load compiled kernels in " in caplog.text
    assert str(tmp_path) in caplog.text
    mended = kernel()
    assert mended(2.0) == 6.0
    assert n_loaded(mended) == 1


def test_a_full_disk(kernel, tmp_path, monkeypatch, caplog):
    def refuse(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("numba.core.caching.IndexDataCacheFile.save", refuse)
    with caplog.at_level(logging.INFO, "dask_dfmr"):
        assert kernel()(2.0) == 6.0
    assert "cannot save compiled kernels" in caplog.text
    assert "No space left on device" in caplog.text
