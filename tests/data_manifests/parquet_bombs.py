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


LONG = pa.DictionaryArray.from_arrays(pa.array(np.zeros(3000, np.int32)), pa.array(["a" * 1_000_000]))
_VIDEOS = one_video_again_and_again()
_LONG_NAMES = pa.table(
    [LONG if name == "video_id" else _VIDEOS[name][: len(LONG)] for name in VIDEOS.names], VIDEOS.names
)

BOMBS = {
    "rows": (VIDEOS, parquet(_VIDEOS), r"1,800,\d+ values and [\d,]+ bytes in a file of [\d,]+ bytes"),
    "boxes": (TUBES, parquet(one_tube(2_000_000), compression="zstd"), r"8,000,\d+ values and [\d,]+ bytes in a file of [\d,]+ bytes"),
    "a long text": (
        VIDEOS, parquet(_LONG_NAMES, store_schema=False, dictionary_pagesize_limit=1 << 30), "3,000,.* bytes of text"
    ),
}  # fmt: skip
"""The schema, the file, and what is told of it."""
