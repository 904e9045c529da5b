"""Intersection over union by ACT's two conventions, in float32 and in the original's order of operations.

*Pixels*: coordinates are inclusive, so a box from 3 to 3 is one pixel wide: +1 in widths and heights (ACT_utils.py,
`iou2d`). *Normalised*: coordinates in [0, 1], no +1, empty or inverted boxes have area 0 and overlap 0 (bbox_util.cpp,
`JaccardOverlap`).
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np

from data_manifests.kernel import kernel

ZERO, ONE = np.float32(0), np.float32(1)
TINY = np.finfo(np.float32).tiny


@kernel
@no_type_check
def pixel_area(x1, y1, x2, y2):
    """Area of a box of inclusive pixels."""
    return (x2 - x1 + ONE) * (y2 - y1 + ONE)


@kernel
@no_type_check
def pixel_overlap(a, b):
    """IoU of two boxes (4,) of inclusive pixels; NaN for NaN coordinates."""
    width = max(ZERO, min(a[2], b[2]) - max(a[0], b[0]) + ONE)
    height = max(ZERO, min(a[3], b[3]) - max(a[1], b[1]) + ONE)
    shared = width * height
    return shared / (pixel_area(a[0], a[1], a[2], a[3]) + pixel_area(b[0], b[1], b[2], b[3]) - shared)


@kernel
@no_type_check
def pixel_overlap_sums(corners, areas, start, stop, box, sums):
    """Fills sums[start:stop] with the sum over the K frames of the IoU of `box` (K, 4) with each of those tubelets.

    The tubelets are corners (K, 4, n) and areas (K, n): one array a coordinate, so that the inner loop vectorises.
    """
    for j in range(start, stop):
        sums[j] = ZERO
    for k in range(len(box)):
        x1, y1, x2, y2, row = corners[k, 0], corners[k, 1], corners[k, 2], corners[k, 3], areas[k]
        ax1, ay1, ax2, ay2 = box[k, 0], box[k, 1], box[k, 2], box[k, 3]
        area = pixel_area(ax1, ay1, ax2, ay2)
        for j in range(start, stop):
            width = max(ZERO, min(ax2, x2[j]) - max(ax1, x1[j]) + ONE)
            height = max(ZERO, min(ay2, y2[j]) - max(ay1, y1[j]) + ONE)
            shared = width * height
            sums[j] += shared / (row[j] + area - shared)


@kernel
@no_type_check
def unit_area(x1, y1, x2, y2):
    """Area of a normalised box; 0 if inverted."""
    return max(ZERO, x2 - x1) * max(ZERO, y2 - y1)


@kernel
@no_type_check
def unit_overlap_sums(corners, areas, start, stop, box, sums):
    """As `pixel_overlap_sums`, for normalised tubelets: boxes that do not meet, or meet in a line, count 0."""
    for j in range(start, stop):
        sums[j] = ZERO
    for k in range(len(box)):
        x1, y1, x2, y2, row = corners[k, 0], corners[k, 1], corners[k, 2], corners[k, 3], areas[k]
        ax1, ay1, ax2, ay2 = box[k, 0], box[k, 1], box[k, 2], box[k, 3]
        area = unit_area(ax1, ay1, ax2, ay2)
        for j in range(start, stop):
            width = max(ZERO, min(ax2, x2[j]) - max(ax1, x1[j]))
            height = max(ZERO, min(ay2, y2[j]) - max(ay1, y1[j]))
            shared = width * height
            union = row[j] + area - shared
            sums[j] += shared / max(union, TINY)


@kernel
@no_type_check
def _sum_block(values, start, stop):
    """At most 128 values: eight running sums, as numpy's `pairwise_sum` does."""
    n = stop - start
    if n < 8:
        total = ZERO
        for i in range(start, stop):
            total += values[i]
        return total
    r0, r1, r2, r3 = values[start], values[start + 1], values[start + 2], values[start + 3]
    r4, r5, r6, r7 = values[start + 4], values[start + 5], values[start + 6], values[start + 7]
    i = start + 8
    while i < stop - n % 8:
        r0 += values[i]
        r1 += values[i + 1]
        r2 += values[i + 2]
        r3 += values[i + 3]
        r4 += values[i + 4]
        r5 += values[i + 5]
        r6 += values[i + 6]
        r7 += values[i + 7]
        i += 8
    total = ((r0 + r1) + (r2 + r3)) + ((r4 + r5) + (r6 + r7))
    while i < stop:
        total += values[i]
        i += 1
    return total


@kernel
@no_type_check
def pairwise_sum(values, count):
    """numpy's sum of float32 values[:count] with its roundings: halves above 128, eight running sums below.

    The original sorts tubes by `np.mean` of their scores; a plain running sum orders some of them otherwise. A stack
    takes the place of numpy's recursion, which numba's cache cannot store.
    """
    if count <= 128:
        return _sum_block(values, 0, count)
    starts, stops, sums = np.empty(64, np.int64), np.empty(64, np.int64), np.empty(64, np.float32)
    starts[0], stops[0] = 0, count
    waiting, summed = 1, 0
    while waiting:
        waiting -= 1
        start, stop = starts[waiting], stops[waiting]
        if stop < 0:
            summed -= 1
            sums[summed - 1] += sums[summed]
        elif stop - start <= 128:
            sums[summed] = _sum_block(values, start, stop)
            summed += 1
        else:
            half = (stop - start) // 2
            half -= half % 8
            stops[waiting] = -1
            starts[waiting + 1], stops[waiting + 1] = start + half, stop
            starts[waiting + 2], stops[waiting + 2] = start, start + half
            waiting += 3
    return sums[0]


@kernel
@no_type_check
def mean_float32(values, count):
    """`np.mean(values[:count])` of float32 values, bit for bit."""
    return pairwise_sum(values, count) / np.float32(count)


@kernel
@no_type_check
def tube_overlap(a_first, a_boxes, b_first, b_boxes, scratch):
    """Spatio-temporal IoU of two tubes: mean IoU over their common frames x temporal IoU (ACT_utils.py, `iou3dt`).

    Tubes are a first frame and boxes (frames, 4) in inclusive pixels; `scratch` is float32, as long as the shorter
    tube.
    """
    first = max(a_first, b_first)
    last = min(a_first + len(a_boxes), b_first + len(b_boxes)) - 1
    if last < first:
        return ZERO
    count = last - first + 1
    for i in range(count):
        scratch[i] = pixel_overlap(a_boxes[first - a_first + i], b_boxes[first - b_first + i])
    union = max(a_first + len(a_boxes), b_first + len(b_boxes)) - min(a_first, b_first)
    return mean_float32(scratch, count) * (np.float32(count) / np.float32(union))
