"""From the right and wrong detections of a class, best first, to its average precision, by three published rules."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from trainer.metrics.rules import ApRule


def precision_recall(
    right: Bool[np.ndarray, "n"], positives: int
) -> tuple[Float32[np.ndarray, "n+1"], Float32[np.ndarray, "n+1"]]:
    """Precision and recall after 0, 1, ... n detections, in float32 as the original keeps them; starts at (1, 0).

    `positives`, the number of ground truths, is at least 1.
    """
    found = np.concatenate(([0], np.cumsum(right)))
    precision = np.ones(len(found))
    precision[1:] = found[1:] / np.arange(1, len(found))
    return precision.astype(np.float32), (found / positives).astype(np.float32)


def area_under(heights: Float32[np.ndarray, "n"], recall: Float32[np.ndarray, "n"]) -> float:
    """Trapezoids under the raw curve, summed in float32 (ACT_utils.py, `pr_to_ap`)."""
    return float(np.sum((recall[1:] - recall[:-1]) * (heights[1:] + heights[:-1]) * np.float32(0.5)))


def _envelope(precision: Float64[np.ndarray, "n"]) -> Float64[np.ndarray, "n"]:
    return np.maximum.accumulate(precision[::-1])[::-1]


def average_precision(right: Bool[np.ndarray, "n"], positives: int, rule: ApRule) -> float:
    """AP in [0, 1]; NaN for a class without ground truth, 0 for one without detections.

    - `act`: trapezoids under the raw precision-recall curve from (1, 0) (Kalogeiton et al., ACT_utils.py).
    - `voc`: PASCAL VOC from 2010 on: area under the monotone envelope.
    - `coco`: mean of the envelope at the recalls 0, 0.01, ... 1 (pycocotools).
    """
    if positives == 0:
        return float("nan")
    if rule == "act":
        return area_under(*precision_recall(right, positives))
    found = np.cumsum(right)
    recall = found / positives
    envelope = _envelope(found / np.arange(1, len(right) + 1))
    if rule == "voc":
        return float(np.sum(np.diff(recall, prepend=0.0) * envelope))
    places = np.searchsorted(recall, np.linspace(0, 1, 101))
    return float(np.append(envelope, 0.0)[places].mean())


def by_score(score: Float32[np.ndarray, "n"]) -> Int64[np.ndarray, "n"]:
    """Rows best first; equal scores keep their order. The original's sort is unstable, so its own figure is one of
    several.
    """
    return np.argsort(-score, kind="stable")
