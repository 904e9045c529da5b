"""Kernels on disk: for these very sources, from many processes at once, and where nothing can be written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_manifests import kernel


def test_kernels_compile_where_nothing_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_places", lambda: iter([Path("/proc/nowhere")]))
    assert kernel._cache_folder() is None
    monkeypatch.setattr(kernel, "_FOLDER", None)
    assert kernel.kernel(lambda x: x + 1)(1) == 2


def test_the_cache_folder_is_named_by_the_sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    folder = kernel._cache_folder()
    assert folder is not None
    assert folder.parent == tmp_path
    assert folder == kernel._cache_folder()


def test_processes_that_start_at_once_on_an_empty_cache(tmp_path: Path) -> None:
    code = (
        "import numpy as np; from pipeline.philox import uniform; s = np.arange(9).astype('uint64'); print(uniform(s));"
        "print(bool(uniform.stats.cache_hits))"
    )

    def started() -> subprocess.Popen[str]:
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
        root = Path(__file__).parents[2]
        return subprocess.Popen(
            [sys.executable, "-c", code], cwd=root, env=environment, stdout=subprocess.PIPE, text=True
        )

    def said(process: subprocess.Popen[str]) -> list[str]:
        out, _ = process.communicate(timeout=100)
        assert process.returncode == 0
        return out.split()

    first = [said(process) for process in [started() for _ in range(2)]]
    later = said(started())
    assert {value for value, _ in first} == {later[0]}
    assert later[1] == "True"
