"""How a numba kernel is declared here: compiled once, kept on disk, and never used after its source has changed."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba


def _places() -> Iterator[Path]:
    if os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(os.environ["NUMBA_CACHE_DIR"])
    yield Path(__file__).parent / "__pycache__"
    yield Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "tubelets"


def _cache_folder() -> Path | None:
    """The first place that can be written to, and in it a folder of its own for these very sources.

    numba looks only at the file of the function it loads: a kernel that calls one of another file would go on with
    that one's old code. It also refuses to import where it finds no writable place; here nothing is cached then.
    """
    packages = (Path(__file__).parents[1] / name for name in ("data_manifests", "pipeline", "trainer"))
    sources = (source.read_bytes() for package in packages for source in sorted(package.rglob("*.py")))
    kernels = [source for source in sources if re.search(rb"^@kernel\b", source, re.MULTILINE)]
    digest = hashlib.blake2b(b"\0".join(kernels), digest_size=8).hexdigest()
    for place in _places():
        folder = place / f"kernels-{digest}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError:
            continue
        return folder
    return None


_FOLDER = _cache_folder()


def kernel(function: Callable[..., Any] | None = None, *, fastmath: set[str] | None = None) -> Any:
    """Decorator of a kernel. Write `@no_type_check` under it: jaxtyping's import hook would wrap the function otherwise.

    Division by zero gives inf or nan as in numpy; there is no fast-math, so float32 results are the original's.

    Args:
        fastmath: LLVM's names of what may be reordered or fused after all, where nothing is held to the original's bits.
    """
    if function is None:
        return functools.partial(kernel, fastmath=fastmath)
    before = numba.config.CACHE_DIR  # type: ignore[attr-defined]
    numba.config.CACHE_DIR = str(_FOLDER or "")  # type: ignore[attr-defined]
    try:
        return numba.njit(cache=_FOLDER is not None, nogil=True, error_model="numpy", fastmath=fastmath or False)(
            function
        )
    finally:
        numba.config.CACHE_DIR = before  # type: ignore[attr-defined]
