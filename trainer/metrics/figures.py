"""All figures of an evaluation, from the findings of its videos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainer.detection.link import Tubes
from trainer.detection.tubelets import FrameDetections
from trainer.metrics.frame import BoxFindings, Detections, classification, judge_frames, mean_best_overlap
from trainer.metrics.protocol import Protocol
from trainer.metrics.truth import Truth
from trainer.metrics.video import STRICT_TO_LOOSE, TubeDetections, overlap_tubes, video_ap

FRAME_OVERLAPS = (0.2, 0.5, 0.75)
VIDEO_OVERLAPS = (0.2, 0.5, 0.75)
ERROR_OVERLAP = 0.5


@dataclass(frozen=True)
class VideoFindings:
    """All that the figures need of one video; small, where the video's tubelets are large."""

    detections: FrameDetections
    tubes: Tubes
    boxes: BoxFindings


@dataclass(frozen=True)
class Evaluation:
    """What was found in all videos: `video_ids`, `truth` and `findings` in one order."""

    video_ids: list[str]
    classes: list[str]
    K: int
    truth: Truth
    findings: list[VideoFindings]


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _mean(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _by_class(classes: Sequence[str], values: np.ndarray) -> dict[str, float | None]:
    return {name: _number(value) for name, value in zip(classes, values, strict=True)}


def map_figures(
    detections: Detections, tubes: TubeDetections, truth: Truth, classes: Sequence[str], protocol: Protocol
) -> dict[str, Any]:
    """`frame_map` and `video_map` by threshold, and the AP of each class; fractions of 1, null where there is no
    ground truth.
    """
    frame_ap = {}
    for overlap in FRAME_OVERLAPS:
        judged = judge_frames(detections, truth, len(classes), overlap, rule=protocol.ap_rule, frames=protocol.frames)
        frame_ap[f"{overlap:g}"] = np.array([verdicts.ap(protocol.ap_rule) for verdicts in judged])
    by_class = overlap_tubes(tubes, truth, len(classes))
    aps = video_ap(by_class, VIDEO_OVERLAPS, protocol.ap_rule)
    tube_ap = {f"{overlap:g}": ap for overlap, ap in zip(VIDEO_OVERLAPS, aps, strict=True)}
    tube_ap["0.5:0.95"] = video_ap(by_class, STRICT_TO_LOOSE, protocol.ap_rule).mean(0)
    return {
        "frame_map": {overlap: _mean(ap) for overlap, ap in frame_ap.items()},
        "video_map": {overlap: _mean(ap) for overlap, ap in tube_ap.items()},
        "frame_ap": {overlap: _by_class(classes, ap) for overlap, ap in frame_ap.items()},
        "video_ap": {overlap: _by_class(classes, ap) for overlap, ap in tube_ap.items()},
    }


def figures(evaluation: Evaluation, protocol: Protocol) -> dict[str, Any]:
    """The whole of `metrics.json` but for what was evaluated: see `map_figures`; then errors, MABO, classification,
    omissions.
    """
    findings, truth, classes = evaluation.findings, evaluation.truth, evaluation.classes
    detections = Detections.of([one.detections for one in findings])
    tubes = TubeDetections.of([one.tubes for one in findings])
    boxes = BoxFindings.of([one.boxes for one in findings])
    label = truth.label[truth.box_tube]
    split = [
        verdicts.errors()
        for verdicts in judge_frames(detections, truth, len(classes), ERROR_OVERLAP, rule="act", frames=protocol.frames)
    ]
    errors = {kind: np.array([one[kind] for one in split]) for kind in split[0]} if split else {}
    best = mean_best_overlap(boxes, label, len(classes))
    right = classification(boxes, label, len(classes))
    tubes_of_class = np.bincount(truth.label, minlength=len(classes))
    found_of_class = np.bincount(detections.label, minlength=len(classes))

    def shorter_than(least: int) -> list[str]:
        return [name for name, frames in zip(evaluation.video_ids, truth.frames, strict=True) if frames < least]

    return map_figures(detections, tubes, truth, classes, protocol) | {
        "errors": {
            "overlap": ERROR_OVERLAP,
            "mean": {kind: _mean(values) for kind, values in errors.items()},
            "per_class": {kind: _by_class(classes, values) for kind, values in errors.items()},
        },
        "mabo": {"mean": _mean(best), "per_class": _by_class(classes, best)},
        "classification": {
            "mean": _mean(right),
            "per_class": _by_class(classes, right),
            "boxes_without_tubelet": int((boxes.inside & ~boxes.seen).sum()),
        },
        "protocol": {"name": protocol.name, "words": protocol.words(), "fields": protocol.fields()},
        "counts": {
            "videos": len(evaluation.video_ids),
            "frames": int(truth.frames.sum()),
            "ground_truth_tubes": len(truth.label),
            "ground_truth_boxes": len(truth.boxes),
            "frame_detections": len(detections.label),
            "tubes": len(tubes.label),
        },
        "left_out": {
            "classes_without_ground_truth": [classes[c] for c in np.flatnonzero(tubes_of_class == 0)],
            "classes_without_detections": [classes[c] for c in np.flatnonzero(found_of_class == 0)],
            "videos_without_detections": [
                name for name, one in zip(evaluation.video_ids, findings, strict=True) if not len(one.detections.label)
            ],
            "videos_shorter_than_a_clip": shorter_than(evaluation.K),
            "videos_shorter_than_a_tube": shorter_than(max(evaluation.K, protocol.links.least_frames)),
        },
    }
