"""The two annotation tables, in Arrow: what annotations become, and what a store carries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float32

from data_manifests.errors import InputError
from data_manifests.manifest import Files, check_file
from data_manifests.parquet_pages import pages_of

VIDEOS = pa.schema(
    [
        ("video_id", pa.string()),  # Class/name, as in the dataset's own lists
        ("split", pa.string()),
        ("frames", pa.int32()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("path", pa.string()),  # below the dataset's root
    ]
)

TUBES = pa.schema(
    [
        ("video_id", pa.string()),
        ("tube", pa.int32()),  # its index in the video
        ("label", pa.int32()),  # 0-based class
        ("first_frame", pa.int32()),  # 0-based
        ("boxes", pa.list_(pa.list_(pa.float32(), 4))),  # a box a frame: x1 y1 x2 y2 in pixels
    ]
)

SCHEMAS = {"videos": VIDEOS, "tubes": TUBES}
ENCODINGS = {0, 2, 3, 4, 8}
"""How their values are written: plain, by dictionary, in runs. DELTA_BYTE_ARRAY (7) makes a long text of a byte."""
MOST_EXPANSION = 512
"""Bytes in memory for a byte of a table's file. A box's four numbers have levels of 2 bits each, whatever they are, and Snappy
makes 21 bytes of one at most: no more than 340 for endless equal boxes. UCF101's have 4 and 7."""


def read_table(path: Path, schema: pa.Schema) -> pa.Table:
    """A table of a store, `VIDEOS` or `TUBES`. What its footer and pages claim is looked at before memory is made for it.

    Raises:
        InputError: it is no such table, or tells of more than its bytes can hold: a few bytes may claim billions of rows.
    """
    texts = [field.name for field in schema if field.type == pa.string()]
    try:
        size, footer = path.stat().st_size, pq.read_metadata(path)
        if (names := footer.schema.to_arrow_schema().names) != schema.names:
            raise ValueError(f"the columns {', '.join(names)}")
        groups = (footer.row_group(index) for index in range(footer.num_row_groups))
        columns = [group.column(index) for group in groups for index in range(group.num_columns)]
        pages = pages_of(path, footer)
        values = max(sum(c.num_values for c in columns), sum(page.values for page in pages))
        plain = max(sum(c.total_uncompressed_size for c in columns), sum(page.plain for page in pages))
        if max(values * 4, plain) > MOST_EXPANSION * size:
            raise ValueError(f"{values:,} values and {plain:,} bytes in a file of {size:,} bytes")
        if encodings := {page.encoding for page in pages} - ENCODINGS:
            raise ValueError(f"pages of Parquet's encodings {sorted(encodings)}")
        table = pq.read_table(path, read_dictionary=texts)  # a text that is repeated is in a dictionary once
        if (text := sum(_text_bytes(table[name]) for name in texts)) > MOST_EXPANSION * size:
            raise ValueError(f"{text:,} bytes of text in a file of {size:,} bytes")
        if empty := [name for name in table.column_names if table[name].null_count]:
            raise ValueError(f"nothing in rows of {', '.join(empty)}")
        return table.cast(schema)
    except (pa.ArrowException, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the machine's; Arrow's own have none
            raise
        raise InputError(
            f"{path} is not a table that a build makes", found=str(error), todo="build the store anew"
        ) from error


def checked_table(folder: Path, name: str, files: Files) -> pa.Table:
    """A recorded table, `videos.parquet` or `tubes.parquet` below a folder.

    Raises:
        InputError: its checksum does not fit its record, or as `read_table`.
    """
    path = check_file(folder, name, files, deep=True)
    return read_table(path, SCHEMAS[path.stem])


def _text_bytes(column: pa.ChunkedArray) -> int:
    """Bytes of a column's texts, which are stored as a dictionary's, if each were there as often as it is named."""
    lengths = (pc.binary_length(chunk.dictionary).take(chunk.indices) for chunk in column.chunks)
    return sum(pc.sum(of_chunk).as_py() or 0 for of_chunk in lengths)


def boxes_of(tubes: pa.Table, row: int) -> Float32[np.ndarray, "frames 4"]:
    """The boxes of one row of a TUBES table."""
    boxes = tubes.column("boxes")[row].values
    return boxes.flatten().to_numpy(zero_copy_only=False).reshape(-1, 4)


def box_column(boxes: list[Float32[np.ndarray, "_ 4"]]) -> pa.Array:
    """A `boxes` column from one array a tube."""
    flat = np.concatenate(boxes).astype(np.float32).ravel() if boxes else np.zeros(0, np.float32)
    offsets = np.concatenate([[0], np.cumsum([len(b) for b in boxes])]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.FixedSizeListArray.from_arrays(pa.array(flat), 4))
