"""What a process that reads ahead does. Without torch: to import it takes 2 s and 130 MB of each process."""

from __future__ import annotations

import errno
import math
import mmap
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing import reduction
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import cv2
import numpy as np

from data_manifests.errors import InputError, machine_fault

T = TypeVar("T")
Read = Callable[[int, np.ndarray], T]
_MEMORY = Path("/dev/shm")


class SharedPixels:
    """Memory for the pixels of several batches, which goes to other processes as it is: a file that has no name."""

    def __init__(self, shape: tuple[int, ...], file: BinaryIO) -> None:
        self.array = np.frombuffer(mmap.mmap(file.fileno(), math.prod(shape)), np.uint8).reshape(shape)
        self._file = file

    @classmethod
    def allocate(cls, shape: tuple[int, ...]) -> SharedPixels:
        """Raises InputError: there is not so much."""
        size, folder = math.prod(shape), _MEMORY if _MEMORY.is_dir() else Path(tempfile.gettempdir())
        try:
            file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  (see `close`)
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                os.ftruncate(file.fileno(), size)
            return cls(shape, file)
        except OSError as error:
            enlarge = f", or enlarge {folder} (docker run --shm-size)" * (error.errno == errno.ENOSPC)
            raise InputError(
                "no shared memory for the batches that are read ahead", found=str(error),
                wanted=f"{size / 1e6:,.0f} MB in {folder}", todo=f"take fewer --workers or a smaller --batch{enlarge}",
            ) from error  # fmt: skip

    def close(self) -> None:
        """It goes to no further process. The memory stays while the array, or a view of it, is held."""
        self._file.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _attach, (self.array.shape, reduction.DupFd(self._file.fileno()))


def _attach(shape: tuple[int, ...], descriptor: Any) -> SharedPixels:
    with open(descriptor.detach(), "r+b") as file:
        return SharedPixels(shape, file)


def work(pipe: Connection, read: Read[Any], pixels: SharedPixels, first: int, every: int) -> None:
    """Reads batches `first`, `first + every`, … into the slots that are asked for, and answers with what belongs to them."""
    cv2.setNumThreads(0)
    for turn, slot in enumerate(_asked(pipe)):
        answer = _answer(read, first + turn * every, pixels.array[slot])
        with suppress(ConnectionError):
            pipe.send(answer)


def _asked(pipe: Connection) -> Iterator[int]:
    """Slots to fill, until the run is gone."""
    with suppress(EOFError, ConnectionError):
        while True:
            yield pipe.recv()


def _answer(read: Read[T], number: int, pixels: np.ndarray) -> T | InputError:
    try:
        return read(number, pixels)
    except InputError as error:  # carried home as a value: a worker's traceback helps nobody
        return error
    except OSError as error:
        fault = machine_fault(error)
        if fault is None:
            raise
        return fault
