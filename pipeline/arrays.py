"""Writes zarr v3 arrays whose data file is the plain byte stream, so that any zarr reads them and a reader may map them.

One outer chunk (zarr's shard) holds inner chunks without a codec, in order; zarr's own index follows them.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any

import google_crc32c
import numpy as np
from jaxtyping import Shaped

from data_manifests.errors import InputError
from data_manifests.layout import ARRAYS, CHUNK_BYTES, data_file, row_shape
from data_manifests.manifest import Files


class RowStream:
    """One of `ARRAYS`, written rows at a time, so that memory does not grow with it.

    Use it as a context manager; it is an array once `close` wrote its end and its metadata.
    """

    def __init__(self, shard: Path, name: str, K: int, views: int) -> None:
        self.rows = 0
        self._shard, self._name = shard, name
        self._type, self._row = np.dtype(ARRAYS[name][0]).newbyteorder("<"), row_shape(name, K, views)
        row_bytes = self._type.itemsize * int(np.prod(self._row))
        self._chunk_rows = max(1, CHUNK_BYTES // row_bytes)
        self._chunk_bytes = self._chunk_rows * row_bytes
        self._size = self._crc32c = 0
        self._path = data_file(shard / name, 1 + len(self._row))
        self._path.parent.mkdir(parents=True)
        self._file = open(self._path, "wb")  # noqa: SIM115  (closed by close or __exit__)

    def append(self, rows: Shaped[np.ndarray, "..."]) -> None:
        """Adds rows at the end.

        Raises:
            ValueError: rows of another shape.
        """
        if rows.shape[1:] != self._row:
            raise ValueError(f"{self._name}: rows of {rows.shape[1:]}, not {self._row}")
        self._write(np.ascontiguousarray(rows, self._type).reshape(-1).view(np.uint8).data, len(rows))

    def append_bytes(self, piece: bytes) -> None:
        """Adds a piece of a byte stream."""
        self._write(piece, len(piece))

    def _write(self, piece: bytes | memoryview, rows: int) -> None:
        self._put(bytes(piece))
        self._size += len(piece)
        self.rows += rows

    def _put(self, piece: bytes) -> None:
        self._file.write(piece)
        self._crc32c = google_crc32c.extend(self._crc32c, piece)

    def close(self) -> None:
        """Pads the last chunk, writes zarr's index and the array's metadata."""
        chunks = max(1, -(-self._size // self._chunk_bytes))
        self._put(bytes(chunks * self._chunk_bytes - self._size))
        places = np.arange(chunks, dtype="<u8") * self._chunk_bytes
        index = np.stack([places, np.full(chunks, self._chunk_bytes, "<u8")], 1).tobytes()
        self._put(index + google_crc32c.value(index).to_bytes(4, "little"))
        self._file.close()
        chunk, shard = [self._chunk_rows, *self._row], [chunks * self._chunk_rows, *self._row]
        _write_metadata(self._shard / self._name, _array([self.rows, *self._row], self._type, chunk, shard))

    def check(self, files: Files) -> None:
        """Raises InputError if the data file, as it was recorded from the disk, is not what was written."""
        name = self._path.relative_to(self._shard).as_posix()
        if files[name].crc32c != self._crc32c:
            raise InputError(
                f"{self._path} does not hold what was written to it",
                found="another checksum, read back just now",
                todo="run the same command again; if it happens again, test this machine's memory and disk",
            )

    def __enter__(self) -> RowStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def write_groups(shard: Path, attributes: dict[str, Any]) -> None:
    """The metadata of the group that holds the arrays, with its attributes, and of the groups in it."""
    _write_metadata(shard, {"attributes": attributes, "zarr_format": 3, "node_type": "group"})
    for group in sorted({name.split("/")[0] for name in ARRAYS}):
        _write_metadata(shard / group, {"attributes": {}, "zarr_format": 3, "node_type": "group"})


def _array(shape: list[int], dtype: np.dtype, chunk: list[int], shard: list[int]) -> dict[str, Any]:
    """Metadata of a zarr v3 array (zarr-specs, core 3.1; sharding codec 1.0), written here so that a store's bytes do
    not depend on the version of zarr, which opens it."""
    plain = {"name": "bytes", **({"configuration": {"endian": "little"}} if dtype.itemsize > 1 else {})}
    sharding = {
        "chunk_shape": chunk,
        "codecs": [plain],
        "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
        "index_location": "end",
    }
    return {
        "shape": shape,
        "data_type": dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shard}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0.0 if dtype.kind == "f" else 0,
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "attributes": {},
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    }


def _write_metadata(folder: Path, metadata: dict[str, Any]) -> None:
    (folder / "zarr.json").write_text(json.dumps(metadata, indent=2))
