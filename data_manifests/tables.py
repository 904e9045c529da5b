"""The two annotation tables, in Arrow: what annotations become, and what a store carries."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from jaxtyping import Float32

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


def boxes_of(tubes: pa.Table, row: int) -> Float32[np.ndarray, "frames 4"]:
    """The boxes of one row of a TUBES table."""
    boxes = tubes.column("boxes")[row].values
    return boxes.flatten().to_numpy(zero_copy_only=False).reshape(-1, 4)


def box_column(boxes: list[Float32[np.ndarray, "_ 4"]]) -> pa.Array:
    """A `boxes` column from one array a tube."""
    flat = np.concatenate(boxes).astype(np.float32).ravel() if boxes else np.zeros(0, np.float32)
    offsets = np.concatenate([[0], np.cumsum([len(b) for b in boxes])]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.FixedSizeListArray.from_arrays(pa.array(flat), 4))
