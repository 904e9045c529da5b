"""Scores of whole tubes: video-AP per class at several overlaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int16, Int32, Int64

from data_manifests.kernel import kernel
from trainer.detection.link import Tubes
from trainer.detection.overlap import tube_overlap
from trainer.metrics.average_precision import average_precision, by_score
from trainer.metrics.rules import ApRule
from trainer.metrics.truth import Truth

STRICT_TO_LOOSE = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))
"""The overlaps whose mean is video-mAP@0.5:0.95."""


@dataclass(frozen=True)
class TubeDetections:
    """Detected tubes of many videos, after 3-D NMS: as `Tubes`, with the video of each."""

    video: Int32[np.ndarray, "T"]
    label: Int16[np.ndarray, "T"]
    score: Float32[np.ndarray, "T"]
    first: Int64[np.ndarray, "T"]
    ptr: Int64[np.ndarray, "bounds"]
    boxes: Float32[np.ndarray, "n 4"]

    @classmethod
    def of(cls, videos: Sequence[Tubes]) -> TubeDetections:
        """The kept tubes of each video."""
        video, label, score, first, lengths, boxes = [], [], [], [], [], []
        for place, tubes in enumerate(videos):
            for t in np.flatnonzero(tubes.kept):
                video.append(place)
                label.append(tubes.label[t])
                score.append(tubes.score[t])
                first.append(tubes.first[t])
                boxes.append(tubes.boxes[tubes.ptr[t] : tubes.ptr[t + 1]])
                lengths.append(len(boxes[-1]))
        return cls(
            np.asarray(video, np.int32),
            np.asarray(label, np.int16),
            np.asarray(score, np.float32),
            np.asarray(first, np.int64),
            np.concatenate(([0], np.cumsum(lengths, dtype=np.int64))).astype(np.int64),
            np.concatenate(boxes) if boxes else np.empty((0, 4), np.float32),
        )


@kernel
@no_type_check
def _overlaps_kernel(rows, row_first, row_ptr, row_boxes, tubes, tube_first, tube_ptr, tube_boxes, pair_ptr, pairs):
    """Overlap of each detected tube with the ground truths pairs[pair_ptr[i]:pair_ptr[i + 1]] (rows of `tubes`)."""
    longest = 1
    for t in tubes:
        longest = max(longest, tube_ptr[t + 1] - tube_ptr[t])
    scratch = np.empty(longest, np.float32)
    values = np.empty(len(pairs), np.float32)
    for i in range(len(rows)):
        r = rows[i]
        for p in range(pair_ptr[i], pair_ptr[i + 1]):
            t = tubes[pairs[p]]
            values[p] = tube_overlap(
                tube_first[t],
                tube_boxes[tube_ptr[t] : tube_ptr[t + 1]],
                row_first[r],
                row_boxes[row_ptr[r] : row_ptr[r + 1]],
                scratch,
            )
    return values


@kernel
@no_type_check
def _match_kernel(pair_ptr, pairs, values, truths, threshold, once):
    taken = np.zeros(truths, np.bool_)
    right = np.zeros(len(pair_ptr) - 1, np.bool_)
    for i in range(len(right)):
        best, overlap = -1, np.float32(-1)
        for p in range(pair_ptr[i], pair_ptr[i + 1]):
            if once and taken[pairs[p]]:
                continue
            if values[p] > overlap:
                best, overlap = pairs[p], values[p]
        if best >= 0 and overlap >= threshold and not taken[best]:
            taken[best] = True
            right[i] = True
    return right


@dataclass(frozen=True)
class ClassTubes:
    """One class's detected tubes, best first, with their overlaps: tube rows[i] overlaps ground truth pairs[p] by
    values[p].
    """

    rows: Int64[np.ndarray, "n"]
    pair_ptr: Int64[np.ndarray, "bounds"]
    pairs: Int64[np.ndarray, "m"]
    values: Float32[np.ndarray, "m"]
    positives: int

    def right(self, threshold: float, rule: ApRule) -> Bool[np.ndarray, "n"]:
        """Which detections take a ground truth: the one they overlap most, at `threshold` or more, as for frames."""
        return _match_kernel(self.pair_ptr, self.pairs, self.values, self.positives, threshold, rule != "voc")

    def ap(self, threshold: float, rule: ApRule) -> float:
        """Video-AP in [0, 1]; NaN without ground truth."""
        return average_precision(self.right(threshold, rule), self.positives, rule)


def overlap_tubes(detections: TubeDetections, truth: Truth, classes: int) -> list[ClassTubes]:
    """Each class's detected tubes with the overlaps (`iou3dt`) to that class's ground truths of the same video."""
    by_class = []
    for label in range(classes):
        tubes = np.flatnonzero(truth.label == label)
        rows = np.flatnonzero(detections.label == label)
        rows = rows[by_score(detections.score[rows])]
        begin = np.searchsorted(truth.video[tubes], detections.video[rows], side="left")
        end = np.searchsorted(truth.video[tubes], detections.video[rows], side="right")
        pair_ptr = np.concatenate(([0], np.cumsum(end - begin))).astype(np.int64)
        pairs = np.arange(pair_ptr[-1]) - np.repeat(pair_ptr[:-1] - begin, end - begin)
        values = _overlaps_kernel(
            rows,
            detections.first,
            detections.ptr,
            detections.boxes,
            tubes,
            truth.first,
            truth.ptr,
            truth.boxes,
            pair_ptr,
            pairs,
        )
        by_class.append(ClassTubes(rows, pair_ptr, pairs, values, len(tubes)))
    return by_class


def video_ap(
    by_class: Sequence[ClassTubes], thresholds: Sequence[float], rule: ApRule = "act"
) -> Float64[np.ndarray, "thresholds C"]:
    """Video-AP at each overlap, per class (ACT.py, `videoAP`)."""
    return np.array([[tubes.ap(threshold, rule) for tubes in by_class] for threshold in thresholds])
