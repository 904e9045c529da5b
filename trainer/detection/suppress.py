"""Non-maximum suppression as ACT does it, four times over: class tubelets, any tubelets, boxes of a frame, tubes.

Ties of score: where the original uses a stable sort, so do we; where it takes the last of an ascending `np.argsort`,
the highest row wins. Tubelets with a NaN score or coordinate are never kept.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np
from jaxtyping import Float32, Int64

from data_manifests.kernel import kernel
from trainer.detection.overlap import pixel_area, pixel_overlap_sums, tube_overlap, unit_area, unit_overlap_sums

BLOCK = 32
"""Kept tubelets that a candidate is compared with at a time: it is done with at the first block that suppresses it."""


@kernel
@no_type_check
def descending(scores, rows):
    """`rows` in descending order of their scores, equal scores in the order given."""
    return rows[np.argsort(-scores[rows], kind="mergesort")]


@kernel
@no_type_check
def _finite(boxes, scores, row):
    if np.isnan(scores[row]):
        return False
    for k in range(boxes.shape[1]):
        for c in range(4):
            if not np.isfinite(boxes[row, k, c]):
                return False
    return True


@kernel
@no_type_check
def class_kernel(boxes, scores, threshold, overlap, top):
    """NMS of one class's normalised tubelets (caffe's ACTApplyNMSTubeFast on the CPU), boxes (P, K, 4), scores (P,).

    Scores strictly above `threshold`, the best `top` of them in a stable order; a tubelet goes when its mean IoU with
    a kept one is above `overlap`. Returns the kept rows, best first.
    """
    n = 0
    rows = np.empty(len(scores), np.int64)
    for row in range(len(scores)):
        if scores[row] > threshold and _finite(boxes, scores, row):
            rows[n] = row
            n += 1
    rows = descending(scores, rows[:n])[:top]
    n, K = len(rows), boxes.shape[1]
    corners, areas = np.empty((K, 4, n), np.float32), np.empty((K, n), np.float32)
    sums = np.empty(n, np.float32)
    length = np.float32(K)
    kept = 0
    for i in range(n):
        box = boxes[rows[i]]
        clear = True
        for start in range(0, kept, BLOCK):
            stop = min(start + BLOCK, kept)
            unit_overlap_sums(corners, areas, start, stop, box, sums)
            for j in range(start, stop):
                clear &= sums[j] / length <= overlap
            if not clear:
                break
        if clear:
            for k in range(K):
                corners[k, :, kept] = box[k]
                areas[k, kept] = unit_area(box[k, 0], box[k, 1], box[k, 2], box[k, 3])
            rows[kept] = rows[i]
            kept += 1
    return rows[:kept]


@kernel
@no_type_check
def tubelet_kernel(boxes, scores, overlap, top):
    """NMS of tubelets in inclusive pixels (ACT_utils.py, `nms_tubelets`): kept rows, best first, at most `top`.

    A tubelet goes when the sum of its K IoUs with a kept one is above `overlap`.
    """
    n = 0
    rows = np.empty(len(scores), np.int64)
    for row in range(len(scores) - 1, -1, -1):
        if _finite(boxes, scores, row):
            rows[n] = row
            n += 1
    rows = descending(scores, rows[:n])
    room, K = min(n, top), boxes.shape[1]
    corners, areas = np.empty((K, 4, room), np.float32), np.empty((K, room), np.float32)
    sums = np.empty(room, np.float32)
    kept = 0
    for i in range(n):
        if kept == top:
            break
        box = boxes[rows[i]]
        clear = True
        for start in range(0, kept, BLOCK):
            stop = min(start + BLOCK, kept)
            pixel_overlap_sums(corners, areas, start, stop, box, sums)
            for j in range(start, stop):
                clear &= sums[j] <= overlap
            if not clear:
                break
        if clear:
            for k in range(K):
                corners[k, :, kept] = box[k]
                areas[k, kept] = pixel_area(box[k, 0], box[k, 1], box[k, 2], box[k, 3])
            rows[kept] = rows[i]
            kept += 1
    return rows[:kept]


@kernel
@no_type_check
def box_kernel(boxes, scores, rows, overlap, kept):
    """NMS of one frame's boxes (N, 4) of one class in inclusive pixels (ACT_utils.py, `nms2d`), among `rows`
    (ascending); writes the kept rows, best first, into `kept` and returns how many.
    """
    n = len(rows)
    order = descending(scores, rows[::-1])
    x1, y1 = np.empty(n, np.float32), np.empty(n, np.float32)
    x2, y2 = np.empty(n, np.float32), np.empty(n, np.float32)
    areas = np.empty(n, np.float32)
    gone = np.zeros(n, np.bool_)
    for j in range(n):
        box = boxes[order[j]]
        x1[j], y1[j], x2[j], y2[j] = box[0], box[1], box[2], box[3]
        areas[j] = pixel_area(box[0], box[1], box[2], box[3])
    count = 0
    zero, one = np.float32(0), np.float32(1)
    for i in range(n):
        if gone[i]:
            continue
        kept[count] = order[i]
        count += 1
        for j in range(i + 1, n):
            width = max(zero, min(x2[i], x2[j]) - max(x1[i], x1[j]) + one)
            height = max(zero, min(y2[i], y2[j]) - max(y1[i], y1[j]) + one)
            shared = width * height
            gone[j] |= not (shared / (areas[i] + areas[j] - shared) <= overlap)
    return count


@kernel
@no_type_check
def tube_kernel(first, ptr, boxes, scores, rows, overlap, kept):
    """See `suppress_tubes`; writes the kept rows into `kept` and returns how many."""
    order = descending(scores, rows[::-1])
    n = len(order)
    longest = 1
    for row in rows:
        longest = max(longest, ptr[row + 1] - ptr[row])
    scratch = np.empty(longest, np.float32)
    gone = np.zeros(n, np.bool_)
    count = 0
    for i in range(n):
        if gone[i]:
            continue
        a = order[i]
        kept[count] = a
        count += 1
        for j in range(i + 1, n):
            if not gone[j]:
                b = order[j]
                value = tube_overlap(
                    first[b], boxes[ptr[b] : ptr[b + 1]], first[a], boxes[ptr[a] : ptr[a + 1]], scratch
                )
                gone[j] = not (value <= overlap)
    return count


def suppress_tubes(
    first: Int64[np.ndarray, "T"],
    ptr: Int64[np.ndarray, "bounds"],
    boxes: Float32[np.ndarray, "frames 4"],
    scores: Float32[np.ndarray, "T"],
    rows: Int64[np.ndarray, "n"],
    *,
    overlap: float = 0.3,
) -> Int64[np.ndarray, "kept"]:
    """3-D NMS among `rows` (ascending) of tubes (ACT_utils.py, `nms3dt`): kept rows, best first.

    Tube t starts at frame first[t] and has the boxes ptr[t]:ptr[t + 1].
    """
    kept = np.empty(len(rows), np.int64)
    return kept[: tube_kernel(first, ptr, boxes, scores, rows, np.float32(overlap), kept)]
