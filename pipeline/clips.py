"""Which windows of a video are clips to train on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute
from jaxtyping import Bool, Int16, Int32, Int64, Integer

from data_manifests.errors import InputError

MAX_TUBES_OF_CLIP = 64
"""A view's fate of its tubes is stored as bits."""
MAX_TUBES_OF_VIDEO = 255
"""A target names its tube in a byte, of which 255 is taken."""


@dataclass(frozen=True)
class ClipIndex:
    """The valid clips of all videos: row in the videos table, first frame (0-based), number of tubes."""

    video: Int32[np.ndarray, " C"]
    first_frame: Int32[np.ndarray, " C"]
    tubes: Int16[np.ndarray, " C"]


def covers(
    start: Integer[np.ndarray, " C"],
    first_frame: Integer[np.ndarray, " T"],
    length: Integer[np.ndarray, " T"],
    K: int,
) -> Bool[np.ndarray, "T C"]:
    """Whether a tube is there in all K frames of a clip."""
    begin = first_frame.astype(np.int64)[:, None]
    return (begin <= start) & (begin + length[:, None] >= start.astype(np.int64) + K)


def check_tubes(
    video_id: str, tubes: int, start: Integer[np.ndarray, " C"], tubes_of_clip: Integer[np.ndarray, " C"]
) -> None:
    """Raises InputError if a video, or one of its clips that start there, has more tubes than a target can name."""
    if tubes > MAX_TUBES_OF_VIDEO:
        raise InputError(
            f"{video_id} has {tubes} tubes", wanted=f"at most {MAX_TUBES_OF_VIDEO}", todo="split the video"
        )
    if tubes_of_clip.max(initial=0) > MAX_TUBES_OF_CLIP:
        fullest = tubes_of_clip.argmax()
        raise InputError(
            f"{video_id}: the clip at frame {start[fullest]} has {tubes_of_clip[fullest]} tubes",
            wanted=f"at most {MAX_TUBES_OF_CLIP}",
            todo="split the video's tubes over several videos",
        )


def valid_clips(
    frames: int, first_frame: Integer[np.ndarray, " T"], length: Integer[np.ndarray, " T"], K: int, stride: int = 1
) -> tuple[Int32[np.ndarray, " C"], Int16[np.ndarray, " C"]]:
    """First frames of one video's valid clips, and how many tubes each has.

    The ACT rule (`MultiframesLayer.setup`): every tube covers all K frames of the clip or none of them, and at least one
    covers all.

    Args:
        frames: frames of the video.
        first_frame, length: of each tube, in frames.
        K: frames a clip.
        stride: frames from one window to the next.
    """
    start = np.arange(0, max(0, frames - K + 1), stride, dtype=np.int32)
    begin, end = first_frame.astype(np.int64), first_frame.astype(np.int64) + length
    inside = covers(start, first_frame, length, K)
    outside = (begin[:, None] >= start + K) | (end[:, None] <= start)
    valid = (inside | outside).all(0) & inside.any(0)
    return start[valid], inside.sum(0, dtype=np.int16)[valid]


def covered_windows(
    frames: int, first_frame: Integer[np.ndarray, " T"], length: Integer[np.ndarray, " T"], K: int, stride: int = 1
) -> tuple[int, int]:
    """Windows of one video that a tube covers, whatever the others do there, and their (window, tube) pairs.

    More than its valid clips and their pairs by those which the ACT rule rejects. Arguments as of `valid_clips`.
    """
    start = np.arange(0, max(0, frames - K + 1), stride, dtype=np.int32)
    inside = covers(start, first_frame, length, K)
    return int(inside.any(0).sum()), int(inside.sum())


def tubes_by_video(videos: pa.Table, tubes: pa.Table) -> list[Int64[np.ndarray, "3 _"]]:
    """For each row of `videos` its tubes, in their order: labels, first frames and lengths (schemas in
    `data_manifests.tables`); there may be tubes of other videos.
    """
    row_of = {video_id: row for row, video_id in enumerate(videos.column("video_id").to_pylist())}
    owner = np.array([row_of.get(video_id, -1) for video_id in tubes.column("video_id").to_pylist()], np.int64)
    columns = tubes.column("label"), tubes.column("first_frame"), pa.compute.list_value_length(tubes.column("boxes"))
    order = np.argsort(owner, kind="stable")
    table = np.stack([column.to_numpy().astype(np.int64) for column in columns])[:, order]
    bounds = np.searchsorted(owner[order], np.arange(videos.num_rows + 1))
    return np.split(table, bounds, axis=1)[1:-1]


def index_clips(videos: pa.Table, tubes: pa.Table, K: int, stride: int = 1) -> ClipIndex:
    """`valid_clips` of every video of a table, in the table's order (schemas in `data_manifests.tables`).

    Raises:
        InputError: a video or a clip has more tubes than a target can name.
    """
    rows, starts, counts = [], [], []
    names, lengths = videos.column("video_id").to_pylist(), videos.column("frames").to_pylist()
    for row, (name, frames, of_video) in enumerate(zip(names, lengths, tubes_by_video(videos, tubes), strict=True)):
        label, first_frame, length = of_video
        start, count = valid_clips(frames, first_frame, length, K, stride)
        check_tubes(name, len(label), start, count)
        rows.append(np.full(len(start), row, np.int32))
        starts.append(start)
        counts.append(count)
    empty = np.zeros(0, np.int32)
    return ClipIndex(
        np.concatenate([empty, *rows]),
        np.concatenate([empty, *starts]),
        np.concatenate([empty.astype(np.int16), *counts]),
    )
