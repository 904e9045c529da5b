"""The tubelets found in one video, and what its single frames show of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Float32, Int16, Int32, Int64

from data_manifests.kernel import kernel
from trainer.detection.suppress import box_kernel


@dataclass(frozen=True)
class VideoTubelets:
    """All that the network says about one video of `frames` frames, in pixels: start s is the clip of frames s to s +
    K - 1.

    A video shorter than K has no start and no tubelet.

    Args:
        frames: frames of the video.
        class_ptr: the class tubelets of start s are rows class_ptr[s]:class_ptr[s + 1] (the original's `dets`).
        class_label: 0-based class of each.
        class_score: its score.
        class_boxes: its boxes.
        any_ptr: likewise for the any-class tubelets that tubes are built from (the original's `dets_all`).
        any_scores: softmax scores, column 0 the background.
        any_boxes: their boxes.
    """

    frames: int
    class_ptr: Int64[np.ndarray, "bounds"]
    class_label: Int16[np.ndarray, "n"]
    class_score: Float32[np.ndarray, "n"]
    class_boxes: Float32[np.ndarray, "n K 4"]
    any_ptr: Int64[np.ndarray, "bounds"]
    any_scores: Float32[np.ndarray, "m labels"]
    any_boxes: Float32[np.ndarray, "m K 4"]

    @property
    def K(self) -> int:
        """Frames a clip."""
        return self.any_boxes.shape[1]

    @property
    def starts(self) -> int:
        """Clips of the video."""
        return len(self.any_ptr) - 1

    @property
    def classes(self) -> int:
        """Classes, background not counted."""
        return self.any_scores.shape[1] - 1


@dataclass(frozen=True)
class FrameDetections:
    """Scored boxes of single frames, in pixels; the order decides ties of score: frame, class, then best first."""

    frame: Int32[np.ndarray, "n"]
    label: Int16[np.ndarray, "n"]
    score: Float32[np.ndarray, "n"]
    boxes: Float32[np.ndarray, "n 4"]


@kernel
@no_type_check
def _frame_kernel(frames, ptr, label, score, boxes, classes, overlap):
    starts, K = len(ptr) - 1, boxes.shape[1]
    room = len(label) * K
    out_frame, out_label = np.empty(room, np.int32), np.empty(room, np.int16)
    out_score, out_boxes = np.empty(room, np.float32), np.empty((room, 4), np.float32)
    done = 0
    for frame in range(frames):
        first, last = max(0, frame - K + 1), min(frame, starts - 1)
        if last < first:
            continue
        begin, end = ptr[first], ptr[last + 1]
        n = end - begin
        fill = np.zeros(classes + 1, np.int64)
        for row in range(begin, end):
            fill[label[row] + 1] += 1
        for c in range(classes):
            fill[c + 1] += fill[c]
        bounds = fill.copy()
        here = np.empty((n, 4), np.float32)
        values, rows = np.empty(n, np.float32), np.empty(n, np.int64)
        for start in range(first, last + 1):
            for row in range(ptr[start], ptr[start + 1]):
                place = fill[label[row]]
                fill[label[row]] += 1
                rows[place] = place
                here[place] = boxes[row, frame - start]
                values[place] = score[row]
        kept = np.empty(n, np.int64)
        for c in range(classes):
            if bounds[c + 1] > bounds[c]:
                count = box_kernel(here, values, rows[bounds[c] : bounds[c + 1]], overlap, kept)
                for i in range(count):
                    out_frame[done], out_label[done] = frame, c
                    out_score[done], out_boxes[done] = values[kept[i]], here[kept[i]]
                    done += 1
    return out_frame[:done].copy(), out_label[:done].copy(), out_score[:done].copy(), out_boxes[:done].copy()


def frame_detections(tubelets: VideoTubelets, *, overlap: float = 0.3) -> FrameDetections:
    """ACT's detections of single frames (ACT.py, `load_frame_detections`).

    Each class tubelet lends its one score to each of its K boxes; boxes of one class in one frame, from up to K
    starts, then pass box NMS.
    """
    return FrameDetections(
        *_frame_kernel(
            tubelets.frames,
            tubelets.class_ptr,
            tubelets.class_label,
            tubelets.class_score,
            tubelets.class_boxes,
            tubelets.classes,
            np.float32(overlap),
        )
    )
