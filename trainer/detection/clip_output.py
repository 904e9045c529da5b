"""One clip's detections: the original's `detection_out` (class NMS, best 200) and `dets_all` (any-class NMS, best
300).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Float32, Int16, Int64

from data_manifests.kernel import kernel
from trainer.detection.suppress import class_kernel, descending, tubelet_kernel


@dataclass(frozen=True)
class DetectionRule:
    """How tubelets are chosen from a clip's priors; the defaults are ACT's (ACT_create_prototxt.py, ACT.py)."""

    score_above: float = 0.01
    class_overlap: float = 0.45
    class_top: int = 400
    keep: int = 200
    candidate_overlap: float = 0.7
    candidates: int = 300


ACT_RULE = DetectionRule()


@kernel
@no_type_check
def class_detections_kernel(boxes, scores, threshold, overlap, top, keep):
    """See `class_detections`."""
    rows, labels = np.empty(0, np.int64), np.empty(0, np.int16)
    values = np.empty(0, np.float32)
    for label in range(1, scores.shape[1]):
        column = np.ascontiguousarray(scores[:, label])
        kept = class_kernel(boxes, column, threshold, overlap, top)
        if len(kept):
            rows = np.concatenate((rows, kept))
            labels = np.concatenate((labels, np.full(len(kept), label, np.int16)))
            values = np.concatenate((values, column[kept]))
    if len(rows) > keep:
        best = descending(values, np.arange(len(rows)))[:keep]
        best = best[np.argsort(labels[best], kind="mergesort")]
        rows, labels, values = rows[best], labels[best], values[best]
    return rows, labels, values


def class_detections(
    boxes: Float32[np.ndarray, "P K 4"], scores: Float32[np.ndarray, "P labels"], rule: DetectionRule = ACT_RULE
) -> tuple[Int64[np.ndarray, "n"], Int16[np.ndarray, "n"], Float32[np.ndarray, "n"]]:
    """ACT's detection output layer on normalised tubelets (ACT_detection_output_layer.cpp, Forward_cpu).

    Returns priors, labels (1 = the first class) and scores: class ascending, score descending inside, at most
    `rule.keep` of all classes together. A clip without detections gives empty arrays (the original writes a row of -1).
    """
    return class_detections_kernel(
        boxes, scores, np.float32(rule.score_above), np.float32(rule.class_overlap), rule.class_top, rule.keep
    )


@kernel
@no_type_check
def to_pixels_kernel(boxes, width, height):
    """See `to_pixels`."""
    pixels = np.empty_like(boxes)
    zero = np.float32(0)
    for i in range(boxes.shape[0]):
        for k in range(boxes.shape[1]):
            for c in range(4):
                side = height if c % 2 else width
                pixels[i, k, c] = max(zero, min(side, boxes[i, k, c] * side))
    return pixels


def to_pixels(boxes: Float32[np.ndarray, "N K 4"], width: int, height: int) -> Float32[np.ndarray, "N K 4"]:
    """Normalised boxes to pixels of a width x height frame, clipped to [0, width] and [0, height] as in ACT.py."""
    return to_pixels_kernel(boxes, np.float32(width), np.float32(height))


@kernel
@no_type_check
def _best_score(scores):
    best = np.empty(len(scores), np.float32)
    for i in range(len(scores)):
        best[i] = scores[i, 1]
        for label in range(2, scores.shape[1]):
            if not scores[i, label] <= best[i]:
                best[i] = scores[i, label]
    return best


def candidates(
    pixels: Float32[np.ndarray, "P K 4"], scores: Float32[np.ndarray, "P labels"], rule: DetectionRule = ACT_RULE
) -> Int64[np.ndarray, "n"]:
    """Priors of the tubelets that tubes are built from: any-class NMS in pixels on the best class score, best first."""
    overlap = np.float32(rule.candidate_overlap * pixels.shape[1])
    return tubelet_kernel(pixels, _best_score(scores), overlap, rule.candidates)
