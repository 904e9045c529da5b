"""Ground-truth tubes as flat arrays, of one video or of many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int16, Int32, Int64


@dataclass(frozen=True)
class Truth:
    """The annotated tubes of the videos that are scored.

    Tube t lies in video video[t], has class label[t] (0-based), starts at frame first[t] and owns rows ptr[t]:ptr[t +
    1] of `boxes` (pixels). Tubes are ordered by video, then as annotated: the order decides which of two equal
    overlaps is taken.

    Args:
        frames: frames of each video.
    """

    frames: Int32[np.ndarray, "V"]
    video: Int32[np.ndarray, "T"]
    label: Int16[np.ndarray, "T"]
    first: Int64[np.ndarray, "T"]
    ptr: Int64[np.ndarray, "bounds"]
    boxes: Float32[np.ndarray, "n 4"]

    @classmethod
    def of(cls, frames: Sequence[int], tubes: Sequence[tuple[int, int, int, Float32[np.ndarray, "_ 4"]]]) -> Truth:
        """From (video, label, first frame, boxes) of each tube."""
        lengths = [len(boxes) for *_, boxes in tubes]
        return cls(
            np.asarray(frames, np.int32),
            np.asarray([tube[0] for tube in tubes], np.int32),
            np.asarray([tube[1] for tube in tubes], np.int16),
            np.asarray([tube[2] for tube in tubes], np.int64),
            np.concatenate(([0], np.cumsum(lengths, dtype=np.int64))).astype(np.int64),
            np.concatenate([tube[3] for tube in tubes]) if tubes else np.empty((0, 4), np.float32),
        )

    def of_video(self, video: int) -> Truth:
        """That video's tubes alone, as video 0."""
        rows = np.flatnonzero(self.video == video)
        return Truth.of(
            [int(self.frames[video])],
            [(0, int(self.label[t]), int(self.first[t]), self.boxes[self.ptr[t] : self.ptr[t + 1]]) for t in rows],
        )

    @property
    def box_tube(self) -> Int64[np.ndarray, "n"]:
        """The tube of each box."""
        return np.repeat(np.arange(len(self.label)), np.diff(self.ptr))

    @property
    def box_frame(self) -> Int64[np.ndarray, "n"]:
        """The frame, in its video, of each box."""
        return np.arange(len(self.boxes)) - np.repeat(self.ptr[:-1] - self.first, np.diff(self.ptr))
