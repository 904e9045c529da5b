"""Scores of single frames: AP per class with the five-way error split, best overlaps (MABO), classification."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int16, Int32, Int64, UInt8

from data_manifests.kernel import kernel
from trainer.detection.overlap import pixel_overlap
from trainer.detection.tubelets import FrameDetections, VideoTubelets
from trainer.metrics.average_precision import area_under, average_precision, by_score, precision_recall
from trainer.metrics.rules import ApRule, FrameRule
from trainer.metrics.truth import Truth

RIGHT, LOCALISATION, CLASSIFICATION, TIME, OTHER = range(5)


@dataclass(frozen=True)
class Detections:
    """Scored boxes of the frames of many videos, in pixels, in the order video, frame, class, best first."""

    video: Int32[np.ndarray, "n"]
    frame: Int32[np.ndarray, "n"]
    label: Int16[np.ndarray, "n"]
    score: Float32[np.ndarray, "n"]
    boxes: Float32[np.ndarray, "n 4"]

    @classmethod
    def of(cls, videos: Sequence[FrameDetections]) -> Detections:
        """Each video's, one after the other."""
        return cls(
            np.repeat(np.arange(len(videos), dtype=np.int32), [len(one.frame) for one in videos]),
            np.concatenate([one.frame for one in videos] or [np.empty(0, np.int32)]),
            np.concatenate([one.label for one in videos] or [np.empty(0, np.int16)]),
            np.concatenate([one.score for one in videos] or [np.empty(0, np.float32)]),
            np.concatenate([one.boxes for one in videos] or [np.empty((0, 4), np.float32)]),
        )

    def where(self, mask: Bool[np.ndarray, "n"]) -> Detections:
        """The chosen rows, in order."""
        return Detections(self.video[mask], self.frame[mask], self.label[mask], self.score[mask], self.boxes[mask])


@dataclass(frozen=True)
class _Frames:
    """Ground-truth boxes by global frame: frame f of all videos in a row has boxes[ptr[f]:ptr[f + 1]]."""

    ptr: Int64[np.ndarray, "bounds"]
    boxes: Float64[np.ndarray, "n 4"]

    @classmethod
    def of(
        cls, place: Int64[np.ndarray, "n"], boxes: Float32[np.ndarray, "n 4"], total: int, rows: Bool[np.ndarray, "n"]
    ) -> _Frames:
        chosen = np.flatnonzero(rows)
        chosen = chosen[np.argsort(place[chosen], kind="stable")]
        ptr = np.concatenate(([0], np.cumsum(np.bincount(place[chosen], minlength=total)))).astype(np.int64)
        return cls(ptr, boxes[chosen].astype(np.float64))


@kernel
@no_type_check
def _overlap64(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1.0
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1.0
    shared = max(0.0, width) * max(0.0, height)
    return shared / ((a[2] - a[0] + 1) * (a[3] - a[1] + 1) + (b[2] - b[0] + 1) * (b[3] - b[1] + 1) - shared)


@kernel
@no_type_check
def _judge_kernel(order, place, video, boxes, ptr, truth, other_ptr, other, shown, threshold, once):
    taken = np.zeros(len(truth), np.bool_)
    verdict = np.empty(len(order), np.uint8)
    for i in range(len(order)):
        row = order[i]
        f = place[row]
        box = boxes[row].astype(np.float64)
        if ptr[f + 1] > ptr[f]:
            best, overlap = -1, -1.0
            for g in range(ptr[f], ptr[f + 1]):
                if once and taken[g]:
                    continue
                value = _overlap64(truth[g], box)
                if value > overlap:
                    best, overlap = g, value
            if best >= 0 and overlap >= threshold and not taken[best]:
                taken[best] = True
                verdict[i] = 0
            else:
                verdict[i] = 1
        elif other_ptr[f + 1] > other_ptr[f]:
            overlap = -1.0
            for g in range(other_ptr[f], other_ptr[f + 1]):
                overlap = max(overlap, _overlap64(other[g], box))
            verdict[i] = 2 if overlap >= threshold else 4
        else:
            verdict[i] = 3 if shown[video[row]] else 4
    return verdict


@dataclass(frozen=True)
class ClassVerdicts:
    """One class's detections, best first: `verdict` is RIGHT or the kind of error; `positives` ground-truth boxes.

    Args:
        rows: each detection's row in `Detections`.
    """

    rows: Int64[np.ndarray, "n"]
    verdict: UInt8[np.ndarray, "n"]
    positives: int

    def ap(self, rule: ApRule) -> float:
        """The class's frame-AP in [0, 1], NaN without ground truth."""
        return average_precision(self.verdict == RIGHT, self.positives, rule)

    def errors(self) -> dict[str, float]:
        """ACT's error split (ACT.py, `frameAP_error`): AP, loc, cls, time, other and missed add up to 1.

        Each kind's share among the detections so far, integrated over recall as precision is. `loc`: the frame shows
        the class, but no free ground truth overlaps; `cls`: another class's ground truth overlaps; `time`: the video
        shows the class, the frame nobody; `other`: the rest; `missed`: 1 - the final recall. All NaN without ground
        truth.
        """
        names = ("loc", "cls", "time", "other")
        if self.positives == 0:
            return dict.fromkeys(("AP", *names, "missed"), float("nan"))
        precision, recall = precision_recall(self.verdict == RIGHT, self.positives)
        split = {"AP": area_under(precision, recall)}
        seen = np.maximum(np.arange(len(self.verdict) + 1), 1)
        for kind, name in enumerate(names, start=1):
            share = np.concatenate(([0], np.cumsum(self.verdict == kind))) / seen
            split[name] = area_under(share.astype(np.float32), recall)
        return split | {"missed": float(1 - recall[-1])}


def judge_frames(
    detections: Detections,
    truth: Truth,
    classes: int,
    threshold: float,
    *,
    rule: ApRule = "act",
    frames: FrameRule = "all",
) -> list[ClassVerdicts]:
    """Decides for every detection of every class whether it is right, and what is wrong with it if not.

    Best first, a detection takes the ground truth of its class and frame that it overlaps most, among those not yet
    taken (`act`, `coco`) or among all, where a taken one makes it wrong (`voc`). Overlaps are IoUs of inclusive pixels.

    Args:
        frames: `annotated` leaves out detections in frames that show no ground truth at all.
    """
    lengths = truth.frames.astype(np.int64)
    np.maximum.at(lengths, truth.video, truth.first + np.diff(truth.ptr))
    base = np.concatenate(([0], np.cumsum(lengths)))
    total = int(base[-1])
    box_tube = truth.box_tube
    truth_place = base[truth.video[box_tube]] + truth.box_frame
    if frames == "annotated":
        annotated = np.bincount(truth_place, minlength=total) > 0
        detections = detections.where(annotated[base[detections.video] + detections.frame])
    place = base[detections.video] + detections.frame
    box_label = truth.label[box_tube]
    verdicts = []
    for label in range(classes):
        mine = box_label == label
        own = _Frames.of(truth_place, truth.boxes, total, mine)
        other = _Frames.of(truth_place, truth.boxes, total, ~mine)
        shown = np.zeros(len(lengths), bool)
        shown[truth.video[truth.label == label]] = True
        rows = np.flatnonzero(detections.label == label)
        rows = rows[by_score(detections.score[rows])]
        verdict = _judge_kernel(
            rows,
            place,
            detections.video,
            detections.boxes,
            own.ptr,
            own.boxes,
            other.ptr,
            other.boxes,
            shown,
            threshold,
            rule != "voc",
        )
        verdicts.append(ClassVerdicts(rows, verdict, int(mine.sum())))
    return verdicts


@dataclass(frozen=True)
class BoxFindings:
    """What a video's tubelets say about each ground-truth box of the video, in the order of `Truth.boxes`.

    Args:
        inside: the box's frame exists (annotations may run past the video).
        best_overlap: the highest IoU of any class's tubelet in that frame; 0 if none.
        label: the class with the highest score, summed over the any-class tubelets of IoU >= 0.7 that cover the frame.
            Class 0 if there is none, as in the original.
        seen: there is such a tubelet.
    """

    inside: Bool[np.ndarray, "n"]
    best_overlap: Float32[np.ndarray, "n"]
    label: Int16[np.ndarray, "n"]
    seen: Bool[np.ndarray, "n"]

    @classmethod
    def of(cls, videos: Sequence[BoxFindings]) -> BoxFindings:
        """Each video's, one after the other."""
        return cls(
            np.concatenate([one.inside for one in videos] or [np.empty(0, bool)]),
            np.concatenate([one.best_overlap for one in videos] or [np.empty(0, np.float32)]),
            np.concatenate([one.label for one in videos] or [np.empty(0, np.int16)]),
            np.concatenate([one.seen for one in videos] or [np.empty(0, bool)]),
        )


@kernel
@no_type_check
def _findings_kernel(frame, truth, frames, class_ptr, class_boxes, any_ptr, any_scores, any_boxes, least):
    n, K, starts = len(frame), any_boxes.shape[1], len(any_ptr) - 1
    classes = any_scores.shape[1] - 1
    inside, seen = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
    best, label = np.zeros(n, np.float32), np.zeros(n, np.int16)
    sums = np.empty(classes, np.float32)
    for i in range(n):
        f = frame[i]
        if f >= frames:
            continue
        inside[i] = True
        sums[:] = np.float32(0)
        for start in range(max(0, f - K + 1), min(starts - 1, f) + 1):
            for row in range(class_ptr[start], class_ptr[start + 1]):
                best[i] = max(best[i], pixel_overlap(class_boxes[row, f - start], truth[i]))
            for row in range(any_ptr[start], any_ptr[start + 1]):
                if pixel_overlap(any_boxes[row, f - start], truth[i]) >= least:
                    seen[i] = True
                    for c in range(classes):
                        sums[c] += any_scores[row, 1 + c]
        label[i] = np.argmax(sums)
    return inside, best, label, seen


def find_boxes(tubelets: VideoTubelets, truth: Truth) -> BoxFindings:
    """MABO's and classification's findings in one video (ACT.py, `frameMABO`, `frameCLASSIF`); `truth` holds that
    video alone.
    """
    return BoxFindings(
        *_findings_kernel(
            truth.box_frame,
            truth.boxes,
            tubelets.frames,
            tubelets.class_ptr,
            tubelets.class_boxes,
            tubelets.any_ptr,
            tubelets.any_scores,
            tubelets.any_boxes,
            np.float32(0.7),
        )
    )


def mean_best_overlap(findings: BoxFindings, label: Int16[np.ndarray, "n"], classes: int) -> Float64[np.ndarray, "C"]:
    """Average best overlap per class in [0, 1], whatever the class of the overlapping box; NaN without ground truth."""
    return _class_means(findings.best_overlap.astype(np.float64), label, findings.inside, classes)


def classification(findings: BoxFindings, label: Int16[np.ndarray, "n"], classes: int) -> Float64[np.ndarray, "C"]:
    """Share of each class's boxes whose best-scored class is theirs; NaN without ground truth.

    A box that no tubelet overlaps counts as class 0, as in the original: right for the first class. `findings.seen`
    tells how many.
    """
    return _class_means((findings.label == label).astype(np.float64), label, findings.inside, classes)


def _class_means(
    values: Float64[np.ndarray, "n"], label: Int16[np.ndarray, "n"], chosen: Bool[np.ndarray, "n"], classes: int
) -> Float64[np.ndarray, "C"]:
    count = np.bincount(label[chosen], minlength=classes)
    total = np.bincount(label[chosen], values[chosen], minlength=classes)
    return np.divide(total, count, out=np.full(classes, np.nan), where=count > 0)
