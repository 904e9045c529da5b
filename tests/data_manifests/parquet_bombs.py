"""Parquet files of the tables' schemas, of a few kB, that would take gigabytes."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_manifests.tables import TUBES, VIDEOS, box_column

ROWS = 300_000
ONE_VIDEO = ("Run/v", "train", 20, 64, 48, "videos/Run/v.avi")


def parquet(table: pa.Table, **options: object) -> bytes:
    """As a file."""
    content = io.BytesIO()
    pq.write_table(table, content, **options)
    return content.getvalue()


def one_tube(boxes: int) -> pa.Table:
    """A tube of equal boxes."""
    frames = np.tile(np.array([[1, 2, 30, 40]], np.float32), (boxes, 1))
    numbers = [pa.array([0], pa.int32())] * 3
    return pa.Table.from_arrays([pa.array(["Run/v"]), *numbers, box_column([frames])], schema=TUBES)


def one_video_again_and_again(**changed: object) -> pa.Table:
    """Run-length encoding makes a few bytes of its rows."""
    values = dict(zip(VIDEOS.names, ONE_VIDEO, strict=True)) | changed
    once = pa.table({name: pa.array([values[name]], VIDEOS.field(name).type) for name in VIDEOS.names}, VIDEOS)
    return once.take(np.zeros(ROWS, np.int64)).combine_chunks()


def with_lying_footer(content: bytes, values: int, told: int = 1) -> bytes:
    """The same pages, with `told` for `values` wherever the footer has it: counts of a column's values, and of rows."""
    size = int.from_bytes(content[-8:-4], "little")
    footer, true = content[-8 - size :], _varint(values << 1)
    assert true in footer
    return content[: -8 - size] + footer.replace(true, _varint(told << 1, len(true)))


def _varint(value: int, least: int = 1) -> bytes:
    """A Thrift integer, in at least so many bytes."""
    out = b""
    while value > 127 or len(out) + 1 < least:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


LONG = pa.DictionaryArray.from_arrays(pa.array(np.zeros(3000, np.int32)), pa.array(["a" * 1_000_000]))
_VIDEOS = one_video_again_and_again()
_LONG_NAMES = pa.table(
    [LONG if name == "video_id" else _VIDEOS[name][: len(LONG)] for name in VIDEOS.names], VIDEOS.names
)

BOMBS = {
    "rows": (VIDEOS, parquet(_VIDEOS), r"1,800,\d+ values and [\d,]+ bytes in a file of \d,\d+ bytes"),
    "a footer that lies of rows": (VIDEOS, with_lying_footer(parquet(_VIDEOS), ROWS), "300000 values in a column's pages, 1 in the footer"),
    "a footer that lies of boxes": (
        TUBES, with_lying_footer(parquet(one_tube(100_000)), 400_000), "400000 values in a column's pages, 1 in the footer"
    ),
    "a long text": (
        VIDEOS, parquet(_LONG_NAMES, store_schema=False, dictionary_pagesize_limit=1 << 30), "3,000,.* bytes of text"
    ),
    "another codec": (VIDEOS, parquet(_VIDEOS[:100], compression="zstd"), "codec 6"),
    "another encoding": (
        VIDEOS, parquet(_VIDEOS[:100], use_dictionary=False, column_encoding={"video_id": "DELTA_BYTE_ARRAY"}), "encoding 7"
    ),
    "other pages": (VIDEOS, parquet(_VIDEOS[:100], data_page_version="2.0"), "page header that no build makes"),
}  # fmt: skip
"""The schema, the file, and what is told of it."""
