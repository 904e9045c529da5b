"""Reads MATLAB files in a process of its own: scipy's reader, in C, can crash on a damaged file, and take any memory."""

from __future__ import annotations

import os
import pickle
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from data_manifests.errors import InputError

MEMORY = 2**30
"""Bytes that the process may take, and EXPANSION more for each of the file's; UCF101's annotations take 10 of one."""
EXPANSION = 64


def load_mat_variable(path: Path, variable: str) -> Any:
    """One variable, structs as dicts (`scipy.io.loadmat`, simplified).

    Raises:
        InputError: the file is damaged, is no MATLAB file up to version 7.2, lacks the variable, or takes too much memory.
    """
    # not multiprocessing: its spawned processes run the caller's script again
    command = [sys.executable, "-m", __name__, str(path), variable]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # which take memory, and do nothing here
    reader = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, env=environment)
    if reader.returncode:
        said = reader.stderr.decode(errors="replace").strip().splitlines()
        crashed = f"its reader crashed (signal {-reader.returncode})"
        raise InputError(
            f"{path} cannot be read",
            found=crashed if reader.returncode < 0 or not said else said[-1],
            wanted=f"a whole MATLAB file (up to version 7.2) with the variable {variable}",
            todo="fetch the file again from its source",
        )
    return pickle.loads(reader.stdout)


def _main(path: str, variable: str) -> None:
    import scipy.io

    most = MEMORY + EXPANSION * os.path.getsize(path)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    content = scipy.io.loadmat(path, variable_names=[variable], simplify_cells=True)[variable]
    pickle.dump(content, sys.stdout.buffer, pickle.HIGHEST_PROTOCOL)


if __name__ == "__main__":
    _main(*sys.argv[1:])
