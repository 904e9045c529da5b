"""A file's bytes as an array, through the C library: numpy's and Python's own mappings keep a descriptor open each, thousands in
a large store; torch's does not, but importing it takes a loader's worker longer than all else.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from mmap import MAP_PRIVATE, PROT_READ
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from data_manifests.errors import InputError

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_FAILED = ctypes.c_void_p(-1).value


def map_file(path: Path, size: int) -> UInt8[np.ndarray, " size"]:
    """The first `size` bytes, one or more, read-only; they stay mapped while the array or a view of it is held.

    Raises:
        InputError: the file is shorter.
        OSError: it cannot be opened or mapped.
    """
    with open(path, "rb") as file:
        found = os.fstat(file.fileno()).st_size
        if found < size:  # reading past the end would end the process
            raise InputError(
                f"{path} was cut off", found=f"{found} bytes", wanted=f"{size} or more",
                todo="python -m pipeline verify STORE --repair",
            )  # fmt: skip
        address = _libc.mmap(None, size, PROT_READ, MAP_PRIVATE, file.fileno(), 0)
    if address == _FAILED:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))
    return np.asarray(_Mapping(address, size))


class _Mapping:
    """Owns mapped memory; numpy keeps it for as long as it reads there."""

    def __init__(self, address: int, size: int) -> None:
        self.__array_interface__ = {"shape": (size,), "typestr": "|u1", "data": (address, True), "version": 3}
        weakref.finalize(self, _libc.munmap, address, size).atexit = False
