"""Reads pickles that hold plain containers and numpy arrays, and refuses all others before anything runs."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from data_manifests.errors import InputError

_reconstruct, _scalar = np.ndarray(0).__reduce__()[0], np.float64(0).__reduce__()[0]
_ADMITTED = {
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _ADMITTED[module, name]


def load_plain_pickle(path: Path) -> Any:
    """The pickle's object. Python 2 strings are read as latin-1, as numpy wants.

    Raises:
        InputError: it asks for anything but numpy arrays and plain containers, or is damaged.
    """
    try:
        with open(path, "rb") as file:
            return _PlainUnpickler(file, encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
        raise InputError(
            f"{path} is refused",
            found=str(error) or type(error).__name__,
            wanted="a pickle of numpy arrays and plain containers, whole",
            todo="fetch the annotation file again from its source",
        ) from error
