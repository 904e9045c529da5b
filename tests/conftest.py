"""The one place that finds outside data, and a browser. What is absent skips a test and says what was looked for."""

from __future__ import annotations

import functools
import multiprocessing.util
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

from tests.browser import Browser

# before torch is imported: one thread a process, here and in the processes that tests start, as bit-equal runs need
os.environ["OMP_NUM_THREADS"] = "1"
# a shell's background job ignores Ctrl-C, and the processes that tests start and interrupt would inherit that
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
_ROOT = Path(__file__).resolve().parent.parent
# every call is held to the types of its arrays; modules without any are left out: a check takes ten times a short call
for _package in ("data_manifests", "pipeline", "trainer"):
    _sources = [path for path in (_ROOT / _package).rglob("*.py") if "from jaxtyping import" in path.read_text()]
    _names = [".".join(path.relative_to(_ROOT).with_suffix("").parts) for path in _sources]
    install_import_hook([name.removesuffix(".__init__") for name in _names], "beartype.beartype")
_MEMORY, _ROOM = "/dev/shm", 4 << 30
if "TMPDIR" not in os.environ and os.path.isdir(_MEMORY) and shutil.disk_usage(_MEMORY).free > _ROOM:
    os.environ["TMPDIR"] = tempfile.tempdir = _MEMORY  # small stores are written and copied by the hundred


def _folder(variable: str, default: Path) -> Path:
    folder = Path(os.environ.get(variable, default)).resolve()
    if not folder.is_dir():
        pytest.skip(f"no data: {folder} is not there (set {variable})")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk() -> Iterator[None]:
    """Flushing takes most of the time of writing small stores and checkpoints, and no test pulls the plug."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _temporary_files_go_with_the_tests() -> Iterator[None]:
    """Also those that libraries make for themselves, here and in the processes that tests start and kill."""
    folder = tempfile.mkdtemp(prefix="t")
    remove = functools.partial(shutil.rmtree, folder, ignore_errors=True)
    multiprocessing.util.Finalize(None, remove, exitpriority=-1000)  # after multiprocessing has removed its own
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", folder)
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of outside data (TUBELETS_SHARED, by default ../shared)."""
    return _folder("TUBELETS_SHARED", _ROOT.parent / "shared")


@pytest.fixture(scope="session")
def golden() -> Path:
    """Outputs of the original implementation (TUBELETS_GOLDEN)."""
    shared = os.environ.get("TUBELETS_SHARED", _ROOT.parent / "shared")
    return _folder("TUBELETS_GOLDEN", Path(shared) / "golden")


@pytest.fixture(scope="session")
def real() -> Path:
    """Real videos with their annotations (TUBELETS_REAL)."""
    shared = os.environ.get("TUBELETS_SHARED", _ROOT.parent / "shared")
    return _folder("TUBELETS_REAL", Path(shared) / "real")


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """URL of an empty bucket of a real S3 server."""
    pytest.importorskip("s3fs")
    from tests.s3_server import s3_server

    with s3_server() as bucket:
        yield bucket


@pytest.fixture(scope="session")
def session_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One headless Chromium for all tests of pages."""
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@pytest.fixture
def browser(session_browser: Browser) -> Browser:
    """The same, with a clean slate of complaints."""
    session_browser.complaints.clear()
    return session_browser
