"""Which file an array of a shard lies in, and what is in it: its metadata held against its file."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_manifests.errors import InputError
from data_manifests.layout import ARRAYS, ROOT, Settings, data_file, row_shape
from data_manifests.manifest import ShardRecord


class ArrayFile(NamedTuple):
    """An array that a file begins with."""

    path: Path
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def values(self) -> int:
        """Its values."""
        return math.prod(self.shape)


def array_files(array: str, settings: Settings) -> tuple[str, str]:
    """The metadata's place below a shard, and the data's."""
    axes = 1 + len(row_shape(array, settings.K, settings.views))
    return f"{array}/{ROOT}", data_file(Path(array), axes).as_posix()


def _rows(array: str, record: ShardRecord, views: int) -> int | None:
    """How many rows an array has in the shard that was recorded; None: its metadata alone tell."""
    view_rows = record.clips * (1 + views)
    rows: dict[str, int | None] = {
        "frames/bytes": None, "frames/offsets": record.frames + 1,
        "targets/offsets": view_rows + 1, "targets/crc32c": view_rows,
    }  # fmt: skip
    of_group = {"frames": record.frames, "clips": record.clips, "views": record.clips, "targets": record.targets}
    return rows.get(array, of_group[array.split("/")[0]])


def array_file(folder: Path, array: str, settings: Settings, record: ShardRecord) -> ArrayFile:
    """One of `data_manifests.layout.ARRAYS` in a shard's folder; its file is as large as its metadata tell, at least.

    Raises:
        InputError: its metadata are not of such an array, tell of more than its file holds, or of other rows than recorded.
        OSError: a file is missing.
    """
    metadata, data = (folder / name for name in array_files(array, settings))
    name, row = ARRAYS[array][0], row_shape(array, settings.K, settings.views)
    size, dtype = data.stat().st_size, np.dtype(name).newbyteorder("<")
    try:
        told = json.loads(metadata.read_bytes())
        shape = tuple(told["shape"])
        found = ArrayFile(data, dtype, shape)
        if told["data_type"] != name or not all(type(side) is int and side >= 0 for side in shape):
            raise ValueError(f"{told['data_type']} {told['shape']}")
        if len(shape) != 1 + len(row) or shape[1:] != row or found.values * dtype.itemsize > size:
            raise ValueError(f"{name} {list(shape)} in {size} bytes")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{data} does not hold the array that its metadata tell of", found=str(error),
            wanted=f"{name}, rows of shape {row}", todo="python -m pipeline verify STORE --repair",
        ) from error  # fmt: skip
    rows = _rows(array, record, settings.views)
    if rows is not None and shape[0] != rows:
        raise InputError(
            f"{folder} is not the shard that was recorded", found=f"{shape[0]} rows of {array}", wanted=f"{rows}",
            todo="python -m pipeline verify STORE --repair",
        )  # fmt: skip
    return found
