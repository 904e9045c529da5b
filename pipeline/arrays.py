"""Writes zarr v3 arrays whose data file is the plain byte stream, so that any zarr reads them and a reader may map them.

One outer chunk (zarr's shard) holds inner chunks without a codec, in order; zarr's own index follows them.
"""

from __future__ import annotations

import os
from pathlib import Path

import google_crc32c
import numpy as np
import zarr
from jaxtyping import Shaped

from data_manifests.layout import ARRAYS, CHUNK_BYTES


class ByteStream:
    """The data of a one-dimensional uint8 array, written piece by piece.

    Use it as a context manager; it is an array once `close` wrote its metadata.
    """

    def __init__(self, shard: Path, name: str) -> None:
        self.shard, self.name, self.size = shard, name, 0
        (shard / name / "c").mkdir(parents=True)
        self._file = open(shard / name / "c" / "0", "wb")  # noqa: SIM115  (closed by close)

    def append(self, piece: bytes) -> None:
        """Adds bytes at the end."""
        self._file.write(piece)
        self.size += len(piece)

    def close(self) -> None:
        """Pads the last chunk, writes zarr's index and the array's metadata."""
        _finish(self._file, self.size)
        self._file.close()
        _describe(self.shard, self.name, (self.size,), np.dtype(np.uint8), CHUNK_BYTES)

    def __enter__(self) -> ByteStream:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


def write_array(shard: Path, name: str, array: Shaped[np.ndarray, "..."]) -> None:
    """Writes one of `ARRAYS`, which says its type, chunked along the first axis."""
    array = np.ascontiguousarray(array, ARRAYS[name][0])
    row_bytes = max(1, array.dtype.itemsize * int(np.prod(array.shape[1:])))
    rows = max(1, CHUNK_BYTES // row_bytes)
    data = shard / name / "c" / "/".join("0" * array.ndim)
    data.parent.mkdir(parents=True)
    with open(data, "wb") as file:
        file.write(array.data if array.size else b"")
        _finish(file, array.nbytes, rows * row_bytes)
    _describe(shard, name, array.shape, array.dtype, rows)


def _finish(file: object, size: int, chunk: int = CHUNK_BYTES) -> None:
    chunks = max(1, -(-size // chunk))
    file.write(bytes(chunks * chunk - size))  # type: ignore[attr-defined]
    places = np.arange(chunks, dtype="<u8") * chunk
    index = np.stack([places, np.full(chunks, chunk, "<u8")], 1).tobytes()
    file.write(index + google_crc32c.value(index).to_bytes(4, "little"))  # type: ignore[attr-defined]
    file.flush()  # type: ignore[attr-defined]
    os.fsync(file.fileno())  # type: ignore[attr-defined]


def _describe(shard: Path, name: str, shape: tuple[int, ...], dtype: np.dtype, rows: int) -> None:
    outer = max(1, -(-shape[0] // rows)) * rows
    zarr.create_array(
        zarr.storage.LocalStore(shard),
        name=name,
        shape=shape,
        dtype=dtype,
        chunks=(rows, *shape[1:]),
        shards=(outer, *shape[1:]),
        compressors=None,
        filters=None,
        fill_value=0,
    )


def write_attributes(folder: Path, attributes: dict[str, object]) -> None:
    """Attributes of the group that holds the arrays."""
    zarr.open_group(zarr.storage.LocalStore(folder), mode="a").attrs.put(attributes)
